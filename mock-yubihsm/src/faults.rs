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
    /// Connections that are idle for so long are closed, from their next request on; or none are.
    IdleClose(Option<Duration>),
    /// All connections that are idle now are closed, as if that time were over.
    CloseIdle,
}

/// A fault that there is no such name for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault\nhint: lose-request, lose-answer, truncate, power-cycle, split/on, hang/on, unplug/on, \
     sign-wrongly/on, list-hosts/on (each also /off), delay/MILLISECONDS, close-idle, idle-close/SECONDS (or /off)"
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
            ("close-idle", "") => Ok(Self::CloseIdle),
            ("idle-close", "off") => Ok(Self::IdleClose(None)),
            ("idle-close", _) => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                seconds.map(|seconds| Self::IdleClose(Some(Duration::from_secs(seconds)))).ok_or_else(unknown)
            }
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
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) once: VecDeque<Once>,
    pub(crate) split: bool,
    pub(crate) hang: bool,
    pub(crate) unplugged: bool,
    pub(crate) lists_hosts: bool,
    pub(crate) delay: Duration,
    pub(crate) idle_close: Option<Duration>,
}

/// What yubihsm-connector 3 does: its `http.Server` has a `ReadTimeout` of 5 s and no `IdleTimeout`, for which Go then takes the same.
const IDLE_CLOSE: Duration = Duration::from_secs(5);

impl Default for Faults {
    /// None; a connector closes idle connections in good order.
    fn default() -> Self {
        Self {
            once: VecDeque::new(),
            split: false,
            hang: false,
            unplugged: false,
            lists_hosts: false,
            delay: Duration::ZERO,
            idle_close: Some(IDLE_CLOSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_paths_and_others_are_refused() {
        assert_eq!("truncate".parse(), Ok(Fault::Once(Once::Truncate)));
        assert_eq!("hang/off".parse(), Ok(Fault::Lasting(Lasting::Hang, false)));
        assert_eq!("delay/20".parse(), Ok(Fault::Delay(Duration::from_millis(20))));
        assert_eq!("close-idle".parse(), Ok(Fault::CloseIdle));
        assert_eq!("idle-close/5".parse(), Ok(Fault::IdleClose(Some(Duration::from_secs(5)))));
        assert_eq!("idle-close/off".parse(), Ok(Fault::IdleClose(None)));
        for bad in [
            "",
            "hang",
            "idle-close/0",
            "idle-close/-1",
            "close-idle/on",
            "hang/maybe",
            "delay/",
            "truncate/on",
            "explode",
        ] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }
}
