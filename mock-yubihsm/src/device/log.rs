//! The audit log: 62 entries that outlive the power, each with a digest over itself and the one before.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest as _, Sha256};

use super::Firmware;
use super::codes::{DeviceError, command};

/// How many entries the log holds.
pub const CAPACITY: usize = 62;
/// Stands in an entry for a key that there is none of.
pub(crate) const NO_KEY: u16 = 0xffff;

const OFF: u8 = 0;
const ON: u8 = 1;
const FIX: u8 = 2;

/// Which commands there are is known to GET OPTION.
const COMMANDS: std::ops::RangeInclusive<u8> = command::PUT_OPAQUE..=0x6c;
/// What has an option of its own beside those.
const MORE_COMMANDS: [u8; 10] = [
    command::ECHO,
    command::CREATE_SESSION,
    command::AUTHENTICATE_SESSION,
    command::SESSION_MESSAGE,
    command::DEVICE_INFO,
    0x07,
    command::RESET_DEVICE,
    0x09,
    command::CLOSE_SESSION,
    command::STORAGE_INFO,
];
/// What firmware before 2.3.1 does not audit by default (yubihsm 0.42.1 `mockhsm/audit.rs`; python-yubihsm
/// `tests/device/test_logs.py` says that the others are).
const NOT_AUDITED_BEFORE: [u8; 7] = [
    command::ECHO,
    command::SESSION_MESSAGE,
    command::DEVICE_INFO,
    0x07,
    0x09,
    command::GET_LOG_ENTRIES,
    0x6c,
];

/// What an audited command did.
pub(crate) struct Event {
    pub(crate) command: u8,
    pub(crate) length: u16,
    pub(crate) session_key: u16,
    pub(crate) target: u16,
    pub(crate) second: u16,
    /// The command with the highest bit set, or the error.
    pub(crate) result: u8,
}

#[derive(Clone)]
struct Entry {
    /// Counts from 1 and never wraps; the log shows its low 16 bits.
    sequence: u64,
    bytes: [u8; 16],
    digest: [u8; 16],
}

/// The log and its two options.
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    last: u64,
    digest: [u8; 16],
    /// The newest entry that the host has marked as read.
    read: u64,
    unlogged_boots: u16,
    unlogged_sessions: u16,
    force: u8,
    commands: BTreeMap<u8, u8>,
}

impl Log {
    /// As after a factory reset: the marker of the reset, which is all ones, and what the firmware audits by default: nothing
    /// from 2.3.1 on, and before that nearly all.
    pub(crate) fn new(seed: [u8; 16], firmware: Firmware) -> Self {
        let mut log = Self {
            entries: VecDeque::new(),
            last: 0,
            digest: seed,
            read: 0,
            unlogged_boots: 0,
            unlogged_sessions: 0,
            force: OFF,
            commands: COMMANDS.chain(MORE_COMMANDS).map(|code| (code, default_of(firmware, code))).collect(),
        };
        log.push([0xff; 14]);
        log
    }

    /// A power-on. assume: it is logged whatever the options say.
    pub(crate) fn boot(&mut self) {
        if self.is_full() {
            self.unlogged_boots = self.unlogged_boots.saturating_add(1);
        } else {
            let mut fields = [0; 14];
            fields[3..5].fill(0xff);
            self.push(fields);
        }
    }

    /// Whether a command must be refused for want of room: it is audited, auditing is forced, and all entries are unread.
    pub(crate) fn refuses(&self, command: u8) -> bool {
        self.is_full() && self.audits(command) && !Self::is_always_allowed(command)
    }

    pub(crate) fn record(&mut self, event: &Event, tick: u32) {
        if !self.audits(event.command) {
            return;
        }
        if self.is_full() {
            let opens = matches!(event.command, command::CREATE_SESSION | command::AUTHENTICATE_SESSION);
            self.unlogged_sessions = self.unlogged_sessions.saturating_add(u16::from(opens));
            return;
        }
        let mut fields = [0; 14];
        fields[0] = event.command;
        fields[1..3].copy_from_slice(&event.length.to_be_bytes());
        fields[3..5].copy_from_slice(&event.session_key.to_be_bytes());
        fields[5..7].copy_from_slice(&event.target.to_be_bytes());
        fields[7..9].copy_from_slice(&event.second.to_be_bytes());
        fields[9] = event.result;
        fields[10..].copy_from_slice(&tick.to_be_bytes());
        self.push(fields);
    }

    /// The unread entries. assume: those that were marked as read are not shown again.
    pub(crate) fn show(&self) -> Vec<u8> {
        let unread: Vec<_> = self.unread().collect();
        let mut out = Vec::with_capacity(5 + unread.len() * 32);
        out.extend(self.unlogged_boots.to_be_bytes());
        out.extend(self.unlogged_sessions.to_be_bytes());
        out.push(unread.len() as u8);
        for entry in unread {
            out.extend(entry.bytes);
            out.extend(entry.digest);
        }
        out
    }

    /// Marks entries as read, up to the one of this number.
    ///
    /// assume: it must be one that the log holds, and not before what was read already; numbers of more than 60, which the
    /// documents do not allow, are taken.
    pub(crate) fn mark_read(&mut self, item: u16) -> Result<(), DeviceError> {
        let entry = self.entries.iter().find(|entry| entry.sequence as u16 == item);
        let sequence = entry.map(|entry| entry.sequence).filter(|sequence| *sequence >= self.read);
        self.read = sequence.ok_or(DeviceError::InvalidData)?;
        self.unlogged_boots = 0;
        self.unlogged_sessions = 0;
        Ok(())
    }

    pub(crate) fn set_force(&mut self, value: u8) -> Result<(), DeviceError> {
        if self.force == FIX || value > FIX {
            return Err(DeviceError::InvalidData);
        }
        self.force = value;
        Ok(())
    }

    pub(crate) fn set_command(&mut self, command: u8, value: u8) -> Result<(), DeviceError> {
        if self.commands.get(&command) == Some(&FIX) || value > FIX {
            return Err(DeviceError::InvalidData);
        }
        self.commands.insert(command, value);
        Ok(())
    }

    pub(crate) fn force(&self) -> u8 {
        self.force
    }

    pub(crate) fn commands(&self) -> Vec<u8> {
        self.commands.iter().flat_map(|(command, value)| [*command, *value]).collect()
    }

    pub(crate) fn used(&self) -> usize {
        self.unread().count()
    }

    fn unread(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.sequence > self.read)
    }

    /// assume: what was marked as read makes room.
    fn is_full(&self) -> bool {
        self.force != OFF && self.used() >= CAPACITY
    }

    fn audits(&self, command: u8) -> bool {
        self.commands.get(&command).is_some_and(|value| *value != OFF)
    }

    /// What makes room, and what opens a session to do so.
    fn is_always_allowed(command: u8) -> bool {
        matches!(
            command,
            command::CREATE_SESSION
                | command::AUTHENTICATE_SESSION
                | command::GET_LOG_ENTRIES
                | command::SET_LOG_INDEX
        )
    }

    fn push(&mut self, fields: [u8; 14]) {
        self.last += 1;
        let mut bytes = [0; 16];
        // assume: the number goes from 65535 to 0.
        bytes[..2].copy_from_slice(&(self.last as u16).to_be_bytes());
        bytes[2..].copy_from_slice(&fields);
        let digest = Sha256::new().chain_update(bytes).chain_update(self.digest).finalize();
        self.digest.copy_from_slice(&digest[..16]);
        self.entries.push_back(Entry { sequence: self.last, bytes, digest: self.digest });
        if self.entries.len() > CAPACITY {
            self.entries.pop_front();
        }
    }
}

fn default_of(firmware: Firmware, code: u8) -> u8 {
    match firmware {
        Firmware::Old if !NOT_AUDITED_BEFORE.contains(&code) => ON,
        Firmware::Old | Firmware::New => OFF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Event {
        let (command, result) = (command::SIGN_EDDSA, command::SIGN_EDDSA | 0x80);
        Event { command, length: 120, session_key: 4, target: 1, second: NO_KEY, result }
    }

    fn audited(force: u8) -> Log {
        let mut log = Log::new([0; 16], Firmware::New);
        log.set_command(command::SIGN_EDDSA, FIX).unwrap();
        log.set_force(force).unwrap();
        log
    }

    #[test]
    fn forced_auditing_refuses_when_full_and_one_read_entry_makes_room_for_one() {
        let mut log = audited(1);
        while !log.refuses(command::SIGN_EDDSA) {
            log.record(&signed(), 0);
        }
        assert_eq!(log.used(), CAPACITY);
        assert!(!log.refuses(command::GET_LOG_ENTRIES) && !log.refuses(command::ECHO));
        log.mark_read(1).unwrap();
        assert!(!log.refuses(command::SIGN_EDDSA));
        log.record(&signed(), 0);
        assert!(log.refuses(command::SIGN_EDDSA));
    }

    #[test]
    fn without_force_the_oldest_entry_goes() {
        let mut log = audited(0);
        (0..100).for_each(|_| log.record(&signed(), 0));
        assert_eq!(log.used(), CAPACITY);
        assert_eq!(log.entries[0].sequence, 101 - CAPACITY as u64 + 1);
    }

    #[test]
    fn the_number_of_an_entry_wraps_and_can_still_be_marked_as_read() {
        let mut log = audited(0);
        (0..65_540).for_each(|_| log.record(&signed(), 0));
        assert_eq!(log.last as u16, 5);
        log.mark_read(2).unwrap();
        assert_eq!(log.used(), 3);
        assert_eq!(log.mark_read(1), Err(DeviceError::InvalidData), "never backwards");
    }

    #[test]
    fn old_firmware_logs_that_its_log_was_read_into_the_place_that_this_makes() {
        let mut log = Log::new([0; 16], Firmware::Old);
        log.set_force(1).unwrap();
        while !log.refuses(command::SIGN_EDDSA) {
            log.record(&signed(), 0);
        }
        log.mark_read(1).unwrap();
        let (command, result) = (command::SET_LOG_INDEX, command::SET_LOG_INDEX | 0x80);
        log.record(&Event { command, result, ..signed() }, 0);
        assert!(log.refuses(command::SIGN_EDDSA));
    }

    #[test]
    fn what_is_fixed_stays() {
        let mut log = audited(2);
        assert_eq!(log.set_force(0), Err(DeviceError::InvalidData));
        assert_eq!(log.set_command(command::SIGN_EDDSA, 0), Err(DeviceError::InvalidData));
    }
}
