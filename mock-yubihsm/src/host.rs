//! The other end of a device: sessions and commands without HTTP, threads or a clock, for simulations.
//!
//! It keeps its session as the `yubihsm` crate 0.42.1 does, the crate's defects included, since what stands on it is to be tried
//! with them: an error that came unencrypted and an answer that cannot be read leave the session as it was, and every later command in
//! it fails. Only a lost answer and a wrong MAC end it, and the next command opens another.

use std::time::Duration;

use crate::device::channel::{Channel, SHORT};
use crate::device::codes::{DeviceError, command};
use crate::device::{IDLE, frame};

/// What lies between a host and its device.
pub trait Line {
    /// Sends a frame, and gives the answer if one comes.
    fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>>;

    /// The time since any fixed moment.
    fn now(&self) -> Duration;

    /// Fills a buffer with random bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A host with one authentication key, and one session at a time.
pub struct Host {
    key: u16,
    secret: [u8; 32],
    channel: Option<Channel>,
    last_used: Duration,
    opened: u64,
}

/// Why a command has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No answer came. It may have been done.
    #[error("no answer")]
    NoAnswer,
    /// An answer came that is none of this session. It may have been done.
    #[error("an answer that makes no sense: {0}")]
    Unclean(&'static str),
    /// The device does not know the key, or knows it otherwise.
    #[error("wrong credentials")]
    WrongKey,
    /// The device says so: within the session, or of its sessions when one was to be opened.
    #[error(transparent)]
    Device(DeviceError),
}

/// The crate takes a session for ended a second before the device does.
const FUZZ: Duration = Duration::from_secs(1);

impl Host {
    /// A host that opens its first session with its first command. `secret` is what
    /// [`authentication_key`](crate::device::authentication_key) makes of a password.
    pub fn new(key: u16, secret: [u8; 32]) -> Self {
        Self { key, secret, channel: None, last_used: Duration::ZERO, opened: 0 }
    }

    /// How many sessions the device has opened for it.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Opens a session if there is none.
    ///
    /// # Errors
    /// [`HostError`]
    pub fn connect(&mut self, line: &mut impl Line) -> Result<(), HostError> {
        let is_idle = line.now().saturating_sub(self.last_used) >= IDLE - FUZZ;
        if self.channel.is_some() && !is_idle {
            return Ok(());
        }
        self.channel = None;
        let channel = self.create(line)?;
        self.last_used = line.now();
        self.channel = Some(channel);
        Ok(())
    }

    /// Does a command, and gives the data of the answer.
    ///
    /// # Errors
    /// [`HostError`]
    pub fn command(&mut self, line: &mut impl Line, code: u8, data: &[u8]) -> Result<Vec<u8>, HostError> {
        self.connect(line)?;
        self.last_used = line.now();
        let channel = self.channel.as_mut().ok_or(HostError::NoAnswer)?;
        let Some(answer) = line.exchange(&channel.seal_command(&frame::frame(code, data))) else {
            self.channel = None;
            return Err(HostError::NoAnswer);
        };
        let data =
            answer_to(command::SESSION_MESSAGE, &answer).map_err(|(_, why)| HostError::Unclean(why))?;
        let Some(plain) = channel.open_answer(data) else {
            // The crate gives a session up after a cryptographic error.
            self.channel = None;
            return Err(HostError::Unclean("its MAC is wrong"));
        };
        match answer_to(code, &plain) {
            Ok(data) => Ok(data.to_vec()),
            Err((Some(error), _)) => Err(HostError::Device(error)),
            Err((None, why)) => Err(HostError::Unclean(why)),
        }
    }

    fn create(&mut self, line: &mut impl Line) -> Result<Channel, HostError> {
        let mut challenge = [0; SHORT];
        line.fill(&mut challenge);
        let mut data = self.key.to_be_bytes().to_vec();
        data.extend(challenge);
        let request = frame::frame(command::CREATE_SESSION, &data);
        let answer = line.exchange(&request).ok_or(HostError::NoAnswer)?;
        let data = answer_to(command::CREATE_SESSION, &answer).map_err(|(error, why)| match error {
            Some(DeviceError::ObjectNotFound) => HostError::WrongKey,
            Some(error) => HostError::Device(error),
            None => HostError::Unclean(why),
        })?;
        let [session, rest @ ..] = data else { return Err(HostError::Unclean("it is too short")) };
        let card = rest.get(..SHORT).and_then(|card| card.try_into().ok());
        let card = card.ok_or(HostError::Unclean("it is too short"))?;
        self.opened += 1;
        let mut channel = Channel::new(*session, &self.secret, challenge, card);
        if !channel.is_card(&rest[SHORT..]) {
            return Err(HostError::WrongKey);
        }
        let answer = line.exchange(&channel.host_proof()).ok_or(HostError::NoAnswer)?;
        answer_to(command::AUTHENTICATE_SESSION, &answer).map_err(|(_, why)| HostError::Unclean(why))?;
        Ok(channel)
    }
}

/// The data of an answer to a command, or the error that it is.
fn answer_to(code: u8, answer: &[u8]) -> Result<&[u8], (Option<DeviceError>, &'static str)> {
    let Ok((answered, data)) = frame::parse(answer) else { return Err((None, "its length is wrong")) };
    match (answered, data) {
        (command::ERROR, [number]) => Err((DeviceError::from_u8(*number), "it is an error")),
        (answered, data) if answered == code | 0x80 => Ok(data),
        _ => Err((None, "it is to another command")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::device::authentication_key;

    /// A device, and what becomes of the next answers.
    struct Wire {
        device: Device,
        now: Duration,
        cut: usize,
        lose: bool,
    }

    impl Line for Wire {
        fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
            let mut answer = self.device.handle(self.now, frame);
            answer.truncate(answer.len() - std::mem::take(&mut self.cut));
            (!std::mem::take(&mut self.lose)).then_some(answer)
        }

        fn now(&self) -> Duration {
            self.now
        }

        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(3);
        }
    }

    fn wire() -> (Wire, Host) {
        let device = Device::new(b"password", Box::new(|bytes| bytes.fill(7)));
        let wire = Wire { device, now: Duration::ZERO, cut: 0, lose: false };
        (wire, Host::new(1, authentication_key(b"password")))
    }

    fn echo(host: &mut Host, wire: &mut Wire) -> Result<Vec<u8>, HostError> {
        host.command(wire, command::ECHO, b"hello")
    }

    #[test]
    fn commands_are_answered_in_one_session_until_it_is_idle() {
        let (mut wire, mut host) = wire();
        for _ in 0..50 {
            assert_eq!(echo(&mut host, &mut wire), Ok(b"hello".to_vec()));
        }
        assert_eq!(wire.device.open_sessions(), 1);
        wire.now = IDLE;
        assert_eq!(echo(&mut host, &mut wire), Ok(b"hello".to_vec()));
        assert_eq!((host.opened(), wire.device.open_sessions()), (2, 1));
        let error = host.command(&mut wire, command::GET_PUBLIC_KEY, &[0, 9]);
        assert_eq!(error, Err(HostError::Device(DeviceError::ObjectNotFound)));
        assert_eq!(echo(&mut host, &mut wire), Ok(b"hello".to_vec()));
    }

    #[test]
    fn after_a_power_cycle_the_session_is_dead_for_good_as_that_of_the_crate() {
        let (mut wire, mut host) = wire();
        echo(&mut host, &mut wire).unwrap();
        wire.device.power_cycle();
        for _ in 0..3 {
            assert_eq!(echo(&mut host, &mut wire), Err(HostError::Unclean("it is an error")));
        }
    }

    #[test]
    fn a_truncated_answer_leaves_the_counters_out_of_step_as_with_the_crate() {
        let (mut wire, mut host) = wire();
        echo(&mut host, &mut wire).unwrap();
        wire.cut = 1;
        assert_eq!(echo(&mut host, &mut wire), Err(HostError::Unclean("its length is wrong")));
        assert!(matches!(echo(&mut host, &mut wire), Err(HostError::Unclean(_))));
    }

    #[test]
    fn a_lost_answer_costs_a_session_and_a_wrong_key_opens_none_that_is_of_use() {
        let (mut wire, mut host) = wire();
        echo(&mut host, &mut wire).unwrap();
        wire.lose = true;
        assert_eq!(echo(&mut host, &mut wire), Err(HostError::NoAnswer));
        assert_eq!(echo(&mut host, &mut wire), Ok(b"hello".to_vec()));
        assert_eq!(wire.device.open_sessions(), 2);
        for (key, secret) in [(1, [0; 32]), (9, authentication_key(b"password"))] {
            assert_eq!(echo(&mut Host::new(key, secret), &mut wire), Err(HostError::WrongKey));
        }
    }
}
