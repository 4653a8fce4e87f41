//! What can go wrong between host and device, on command.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// It never reaches the device, and the connection ends.
    LoseRequest,
    /// The device does it, and the connection ends before its answer.
    LoseAnswer,
    /// The answer lacks its last byte.
    Truncate,
    /// The device loses its power before the request reaches it. The connector stays up.
    PowerCycle,
}

/// What stays until it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Answers come in two segments, head and body, 20 ms apart.
    Split,
    /// No request is answered; when this ends, those that wait are.
    Hang,
    /// The device is not plugged in. Plugging it in is a power cycle.
    Unplug,
    /// A bit of each signature is wrong.
    SignWrongly,
    /// The connector answers those hosts only that a real one has on its list.
    ListHosts,
}

/// A fault and, for those that last, whether it begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// For the next request that has none yet.
    Once(Once),
    /// From now on, or no more.
    Lasting(Lasting, bool),
    /// Each request takes this much longer.
    Delay(Duration),
}

/// A fault that there is no such name for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault\nhint: lose-request, lose-answer, truncate, power-cycle, split/on, hang/on, unplug/on, \
     sign-wrongly/on, list-hosts/on (each also /off), delay/MILLISECONDS"
)]
pub struct UnknownFault(String);

/// Reads what follows `/mock/` in the path of a request to the connector.
impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        let (name, value) = text.split_once('/').unwrap_or((text, ""));
        let lasting = |fault| match value {
            "on" => Ok(Self::Lasting(fault, true)),
            "off" => Ok(Self::Lasting(fault, false)),
            _ => Err(unknown()),
        };
        match (name, value) {
            ("lose-request", "") => Ok(Self::Once(Once::LoseRequest)),
            ("lose-answer", "") => Ok(Self::Once(Once::LoseAnswer)),
            ("truncate", "") => Ok(Self::Once(Once::Truncate)),
            ("power-cycle", "") => Ok(Self::Once(Once::PowerCycle)),
            ("split", _) => lasting(Lasting::Split),
            ("hang", _) => lasting(Lasting::Hang),
            ("unplug", _) => lasting(Lasting::Unplug),
            ("sign-wrongly", _) => lasting(Lasting::SignWrongly),
            ("list-hosts", _) => lasting(Lasting::ListHosts),
            ("delay", _) => {
                value.parse().map(|ms| Self::Delay(Duration::from_millis(ms))).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) once: VecDeque<Once>,
    pub(crate) split: bool,
    pub(crate) hang: bool,
    pub(crate) unplugged: bool,
    pub(crate) lists_hosts: bool,
    pub(crate) delay: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_paths_and_others_are_refused() {
        assert_eq!("truncate".parse(), Ok(Fault::Once(Once::Truncate)));
        assert_eq!("hang/off".parse(), Ok(Fault::Lasting(Lasting::Hang, false)));
        assert_eq!("delay/20".parse(), Ok(Fault::Delay(Duration::from_millis(20))));
        for bad in ["", "hang", "hang/maybe", "delay/", "truncate/on", "explode"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }
}
