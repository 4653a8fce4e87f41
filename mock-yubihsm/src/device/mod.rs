//! The device: one frame in, one frame out.
//!
//! What always holds:
//!
//! * no clock and no entropy but what is handed in, so the same calls give the same bytes;
//! * outside of a session nothing is done but to open one, to echo and to say who it is, and nothing inside that the
//!   authentication key's capabilities and domains do not allow;
//! * an audited command is in the log before its answer leaves, or refused.

pub(crate) mod channel;
pub mod codes;
mod commands;
pub(crate) mod frame;
mod log;
mod objects;
mod sessions;
mod wrap;

use std::str::FromStr;
use std::time::Duration;

use sha2::Sha256;

use channel::{Channel, SHORT};
use codes::{DeviceError, command};
use frame::{MAX_FRAME_BEFORE, Reader};
use log::{Event, Log, NO_KEY};
use objects::Objects;
use sessions::Sessions;

pub use frame::MAX_FRAME;
pub use log::CAPACITY as LOG_CAPACITY;
pub use sessions::{IDLE, SESSIONS};

/// Which firmware a device has. What matters here changed twice: 2.3.1 audits nothing by default, 2.4.0 takes longer frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Firmware {
    /// 2.2.0: nearly all commands are audited by default, frames have 2048 bytes at the most.
    Old,
    /// 2.4.0: nothing is audited by default, frames have 3136 bytes at the most.
    #[default]
    New,
}

impl Firmware {
    /// Its number.
    pub fn version(self) -> [u8; 3] {
        match self {
            Self::Old => [2, 2, 0],
            Self::New => [2, 4, 0],
        }
    }

    /// The longest frame in either direction.
    pub fn max_frame(self) -> usize {
        match self {
            Self::Old => MAX_FRAME_BEFORE,
            Self::New => MAX_FRAME,
        }
    }
}

/// Reads `2.2` and `2.4`.
impl FromStr for Firmware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "2.2" => Ok(Self::Old),
            "2.4" => Ok(Self::New),
            _ => Err(format!("`{text}` is neither `2.2` nor `2.4`")),
        }
    }
}

/// Fills a buffer with random bytes.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// A YubiHSM 2.
pub struct Device {
    serial: u32,
    firmware: Firmware,
    objects: Objects,
    sessions: Sessions,
    log: Log,
    entropy: Entropy,
    now: Duration,
    booted: Duration,
    /// Algorithms of newer firmware that the device claims to have.
    extra_algorithms: Vec<u8>,
    has_unknown_object: bool,
    signs_wrongly: bool,
    signs_unlogged: bool,
    /// A reset was asked for, and comes when that is answered (python-yubihsm takes an answer, and the end of the connection too).
    resets: bool,
    signatures: u64,
    last_signed: Option<Signed>,
}

/// A signature that the device has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The number of the key.
    pub key: u16,
    /// What was signed.
    pub message: Vec<u8>,
    /// The signature, right or wrong.
    pub signature: [u8; 64],
}

/// A command within a session, while it is being done.
pub(crate) struct Call {
    /// What the authentication key of the session may.
    capabilities: u64,
    delegated: u64,
    domains: u16,
    /// What the log will name.
    target: u16,
    second: u16,
}

impl Device {
    /// A device after a factory reset, whose authentication key 1 has this password.
    pub fn new(password: &[u8], entropy: Entropy) -> Self {
        Self::with_key(authentication_key(password), entropy)
    }

    /// The same, with what [`authentication_key`] makes of the password: for who makes many devices.
    pub fn with_key(key: [u8; 32], mut entropy: Entropy) -> Self {
        let firmware = Firmware::default();
        let log = factory_log(&mut entropy, firmware);
        Self {
            serial: 12_345_678,
            firmware,
            objects: Objects::factory(key),
            sessions: Sessions::default(),
            log,
            entropy,
            now: Duration::ZERO,
            booted: Duration::ZERO,
            extra_algorithms: Vec::new(),
            has_unknown_object: false,
            signs_wrongly: false,
            signs_unlogged: false,
            resets: false,
            signatures: 0,
            last_signed: None,
        }
    }

    /// The serial number, which is 12345678 unless set.
    pub fn set_serial(&mut self, serial: u32) {
        self.serial = serial;
    }

    /// The firmware, which is the newer one unless set. With another one it comes from the factory with another log.
    pub fn set_firmware(&mut self, firmware: Firmware) {
        self.firmware = firmware;
        self.log = factory_log(&mut self.entropy, firmware);
    }

    /// Which firmware it has.
    pub fn firmware(&self) -> Firmware {
        self.firmware
    }

    /// Answers one frame. `now` is the time since any fixed moment, and never goes back.
    pub fn handle(&mut self, now: Duration, request: &[u8]) -> Vec<u8> {
        self.now = self.now.max(now);
        self.sessions.expire(self.now);
        let is_too_long = request.len() > self.firmware.max_frame();
        let answer = frame::parse(request).and_then(|(code, data)| match code {
            _ if is_too_long => Err(DeviceError::WrongLength),
            command::CREATE_SESSION => self.create_session(data),
            command::AUTHENTICATE_SESSION => self.authenticate_session(request, data),
            command::SESSION_MESSAGE => self.session_message(request, data),
            // Yubico's python-yubihsm begins with it. assume: audited or not, it is not logged, as echo is not.
            command::DEVICE_INFO => Ok(frame::answer(code, &self.info(data)?)),
            command::ECHO => Ok(frame::answer(code, data)),
            // assume: everything else needs a session.
            _ => Err(DeviceError::InvalidCommand),
        });
        answer.unwrap_or_else(frame::error)
    }

    /// Power off and on: sessions are gone, objects and log are not.
    pub fn power_cycle(&mut self) {
        self.sessions = Sessions::default();
        self.booted = self.now;
        self.log.boot();
    }

    /// How many signatures it has made, wrong ones included.
    pub fn signatures(&self) -> u64 {
        self.signatures
    }

    /// The last signature since this was asked before. Nobody else sees into the device.
    pub fn take_signed(&mut self) -> Option<Signed> {
        self.last_signed.take()
    }

    /// How many sessions are open.
    pub fn open_sessions(&self) -> usize {
        self.sessions.count()
    }

    /// How many entries of the log are unread.
    pub fn unread_log_entries(&self) -> usize {
        self.log.used()
    }

    /// From now on, a bit of each signature is wrong, or not.
    pub fn set_signs_wrongly(&mut self, wrongly: bool) {
        self.signs_wrongly = wrongly;
    }

    /// From now on, signatures are not logged, whatever the options say, or they are.
    pub fn set_signs_unlogged(&mut self, unlogged: bool) {
        self.signs_unlogged = unlogged;
    }

    /// The device claims to have these algorithms too, as newer firmware does.
    pub fn set_extra_algorithms(&mut self, algorithms: Vec<u8>) {
        self.extra_algorithms = algorithms;
    }

    /// The device lists an object of a type that only newer firmware has, before all others.
    pub fn set_unknown_object(&mut self, there: bool) {
        self.has_unknown_object = there;
    }

    /// Logs a command that only newer firmware has, as if the authentication key `key` had sent it.
    pub fn log_unknown_command(&mut self, code: u8, key: u16) {
        let result = code | 0x80;
        let _ = self.log.set_command(code, 1);
        let event =
            Event { command: code, length: 0, session_key: key, target: NO_KEY, second: NO_KEY, result };
        self.log.record(&event, self.tick());
    }

    fn create_session(&mut self, data: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let mut fields = Reader(data);
        let (id, host): (_, [u8; SHORT]) = (fields.u16()?, fields.array()?);
        fields.end()?;
        let opened = self.open_channel(id, host);
        let result = opened.as_ref().map_or_else(|error| *error as u8, |_| command::CREATE_SESSION | 0x80);
        self.log_outside(command::CREATE_SESSION, data.len(), id, result);
        let (session, card, channel) = opened?;
        let mut out = vec![session];
        out.extend(card);
        out.extend(channel.card_cryptogram());
        self.sessions.insert(session, id, channel, self.now);
        Ok(frame::answer(command::CREATE_SESSION, &out))
    }

    fn open_channel(
        &mut self,
        id: u16,
        host: [u8; SHORT],
    ) -> Result<(u8, [u8; SHORT], Channel), DeviceError> {
        let (_, key) = self.objects.authentication_key(id).ok_or(DeviceError::ObjectNotFound)?;
        let key = *key;
        let session = self.sessions.free()?;
        let mut card = [0; SHORT];
        (self.entropy)(&mut card);
        Ok((session, card, Channel::new(session, &key, host, card)))
    }

    fn authenticate_session(&mut self, request: &[u8], data: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let id = *data.first().ok_or(DeviceError::WrongLength)?;
        let session = self.sessions.touch(id, self.now)?;
        let key = session.key;
        let proven = session.channel.authenticate(request);
        let result = proven.map_or_else(|error| error as u8, |()| command::AUTHENTICATE_SESSION | 0x80);
        if proven.is_err() {
            // assume: a session that fails to authenticate is gone.
            self.sessions.close(id);
        }
        self.log_outside(command::AUTHENTICATE_SESSION, data.len(), key, result);
        proven.map(|()| frame::answer(command::AUTHENTICATE_SESSION, &[]))
    }

    fn session_message(&mut self, request: &[u8], data: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let id = *data.first().ok_or(DeviceError::WrongLength)?;
        let session = self.sessions.touch(id, self.now)?;
        let key = session.key;
        let plain = match session.channel.open(request) {
            // assume: a wrong MAC ends the session, what does not decrypt does not.
            Err(DeviceError::AuthenticationFailed) => {
                self.sessions.close(id);
                return Err(DeviceError::AuthenticationFailed);
            }
            other => other?,
        };
        let answer = self.command(key, &plain);
        let sealed = self.sessions.touch(id, self.now)?.channel.seal(&answer);
        if plain.first() == Some(&command::CLOSE_SESSION) {
            self.sessions.close(id);
        }
        if std::mem::take(&mut self.resets) {
            self.reset();
        }
        Ok(sealed)
    }

    /// One command within a session: allowed, done, logged.
    fn command(&mut self, key: u16, plain: &[u8]) -> Vec<u8> {
        let (code, data) = match frame::parse(plain) {
            Ok(parsed) => parsed,
            Err(error) => return frame::error(error),
        };
        if self.log.refuses(code) {
            return frame::error(DeviceError::LogFull);
        }
        let Some((owner, _)) = self.objects.authentication_key(key) else {
            return frame::error(DeviceError::InvalidSession);
        };
        let mut call = Call {
            capabilities: owner.capabilities,
            delegated: owner.delegated,
            domains: owner.domains,
            target: NO_KEY,
            second: NO_KEY,
        };
        let done = self.execute(&mut call, code, data);
        let result = done.as_ref().map_or_else(|error| *error as u8, |_| code | 0x80);
        let Call { target, second, .. } = call;
        let length = data.len() as u16;
        let event = Event { command: code, length, session_key: key, target, second, result };
        if !(self.signs_unlogged && code == command::SIGN_EDDSA) {
            self.log.record(&event, self.tick());
        }
        done.map_or_else(frame::error, |data| frame::answer(code, &data))
    }

    fn log_outside(&mut self, code: u8, length: usize, target: u16, result: u8) {
        let length = length as u16;
        let event = Event { command: code, length, session_key: NO_KEY, target, second: NO_KEY, result };
        self.log.record(&event, self.tick());
    }

    /// assume: milliseconds since power-on.
    fn tick(&self) -> u32 {
        self.now.saturating_sub(self.booted).as_millis() as u32
    }

    /// What a factory reset leaves.
    fn reset(&mut self) {
        self.objects = Objects::factory(authentication_key(b"password"));
        self.sessions = Sessions::default();
        self.log = factory_log(&mut self.entropy, self.firmware);
        self.booted = self.now;
    }
}

fn factory_log(entropy: &mut Entropy, firmware: Firmware) -> Log {
    let mut seed = [0; 16];
    entropy(&mut seed);
    let mut log = Log::new(seed, firmware);
    log.boot();
    log
}

/// The two keys that a password stands for, as `yubihsm-shell` derives them.
pub fn authentication_key(password: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password, b"Yubico", 10_000, &mut key);
    key
}
