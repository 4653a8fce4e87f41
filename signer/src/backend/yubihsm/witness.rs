//! The device as a witness: its audit log against what we asked for.
//!
//! What is remembered is a [`Cursor`], the newest entry that was accounted for, and the signatures that were asked for and not seen
//! in the log yet. From there the log must go on without a gap, each digest following from the one before, and each signature by
//! one of our keys must be one that we asked for. So a signature by a copy of us, by another authentication key, or by a signer that a
//! restored disk has forgotten is found at the next look.
//!
//! It detects, and does not prevent: two copies that both look, then both sign, are found afterwards. It cannot see signatures by
//! another device that holds the same key.

use std::collections::{BTreeSet, VecDeque};

use sha2::{Digest as _, Sha256};

/// An entry of the log (developers.yubico.com/YubiHSM2/Concepts/Logs.html), and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// Number, command, length, the keys of session, target and second object, result, tick.
    pub bytes: [u8; 16],
    /// The first 16 bytes of the SHA-256 of the entry and the digest before.
    pub digest: [u8; 16],
}

/// The unread part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditLog {
    /// How many boots and sessions could not be logged because it was full.
    pub unlogged: u32,
    /// The entries, the oldest first.
    pub entries: Vec<LogEntry>,
}

/// The newest entry that was accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Its number.
    pub item: u16,
    /// Its digest.
    pub digest: [u8; 16],
}

/// A signature that was asked for: the key, and the length of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The number of the key.
    pub key: u16,
    /// The message and two bytes of key number.
    pub length: u16,
}

/// Whose signatures are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Our authentication key.
    pub auth_key: u16,
    /// Our keys.
    pub keys: BTreeSet<u16>,
}

/// What the log tells that must not be. All stop the device for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// Somebody else signed with our key.
    #[error("authentication key {auth_key:#06x} signed with our key {key:#06x} (log entry {item}){}", UNLOCK)]
    Foreign {
        /// Whose session it was.
        auth_key: u16,
        /// Our key.
        key: u16,
        /// The entry.
        item: u16,
    },
    /// Somebody signed as us.
    #[error(
        "a signature that this signer did not ask for was made with key {key:#06x} as authentication key {auth_key:#06x}, ours (log \
         entry {item}): there is another signer, or this disk is a copy or was restored{}",
        UNLOCK
    )]
    NotAsked {
        /// Our authentication key.
        auth_key: u16,
        /// Our key.
        key: u16,
        /// The entry.
        item: u16,
    },
    /// Entries are missing.
    #[error(
        "the log goes on at entry {found}, and entry {last} was the last one seen: what is between cannot be known. Somebody else has \
         marked it as read, as another signer that watches this device, or overwritten it, which force audit prevents; or this disk is \
         a copy or was restored{}",
        UNLOCK
    )]
    Gap {
        /// The last one accounted for.
        last: u16,
        /// The oldest that is there.
        found: u16,
    },
    /// The log is not the one that was seen before.
    #[error("log entry {item} is another one than it was: the device was reset, or is another one{}", UNLOCK)]
    OtherHistory {
        /// The entry.
        item: u16,
    },
    /// Even the newest entry was marked as read, which we never do.
    #[error(
        "the log is empty: somebody else reads it\nhint: find out who; a power cycle of the device makes an entry, from which \
         `monosign yubihsm unlock` goes on"
    )]
    Empty,
    /// The crate cannot read all entries, and hides what follows.
    #[error(
        "the log has {claimed} entries, of which {parsed} can be read: a command that is not known is among them\nhint: yubihsm-shell \
         shows them all (`audit get`), and marks them as read (`audit set`); then `monosign yubihsm unlock` goes on"
    )]
    Unreadable {
        /// What the device says.
        claimed: usize,
        /// What the crate gives.
        parsed: usize,
    },
    /// The device signed, and its log does not show it.
    #[error(
        "the device signed with key {key:#06x}, and its log does not tell: signatures are not audited any more, or the log is not its own\n\
         hint: find out who changed it, and have the device audit command 0x6a again, as `monosign yubihsm setup` does; then `monosign \
         yubihsm unlock` goes on"
    )]
    NotLogged {
        /// The key.
        key: u16,
    },
}

/// What ends an alarm.
pub(super) const UNLOCK: &str = "\nhint: stop the signer and find out who signed; `monosign yubihsm unlock` shows the log, and goes on from there";
const PUT_KEY: u8 = 0x45;
const GENERATE_KEY: u8 = 0x46;
const IMPORT_WRAPPED: u8 = 0x4b;
const DELETE: u8 = 0x58;
const SIGN_EDDSA: u8 = 0x6a;
const SIGNED: u8 = SIGN_EDDSA | 0x80;

impl LogEntry {
    /// Its number, which goes from 65535 to 0.
    pub fn item(&self) -> u16 {
        self.u16_at(0)
    }

    /// The command.
    pub fn command(&self) -> u8 {
        self.bytes[2]
    }

    /// The key that the command was about.
    pub fn target(&self) -> u16 {
        self.u16_at(7)
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// The key that a signature was made with.
    pub(super) fn signed_with(&self) -> Option<u16> {
        self.signature().map(|(_, made)| made.key)
    }

    /// Whether the key of this number is another one from here on, or none.
    pub(super) fn replaces(&self, key: u16) -> bool {
        let object = match self.command() {
            IMPORT_WRAPPED => self.u16_at(9),
            PUT_KEY | GENERATE_KEY | DELETE => self.target(),
            _ => return false,
        };
        object == key && self.bytes[11] == self.command() | 0x80
    }

    /// Whether the device has made a key of its own for this number, which is nobody's copy.
    pub(super) fn makes(&self, key: u16) -> bool {
        self.command() == GENERATE_KEY && self.replaces(key)
    }

    fn follows(&self, digest: [u8; 16]) -> bool {
        Sha256::new().chain_update(self.bytes).chain_update(digest).finalize()[..16] == self.digest
    }

    /// The session's authentication key, the signing key and the length of the command, if it is a signature that was made.
    fn signature(&self) -> Option<(u16, Asked)> {
        let signed = self.bytes[2] == SIGN_EDDSA && self.bytes[11] == SIGNED;
        signed.then(|| (self.u16_at(5), Asked { key: self.u16_at(7), length: self.u16_at(3) }))
    }

    /// Takes it out of `asked`, if it is a signature by one of our keys, and tells its place there: the newest that is alike, so that what
    /// was lost long ago excuses nothing for longer.
    ///
    /// # Errors
    /// [`Alarm::Foreign`] and [`Alarm::NotAsked`].
    pub(super) fn account(
        &self,
        watched: &Watched,
        asked: &mut VecDeque<Asked>,
    ) -> Result<Option<usize>, Alarm> {
        let signature = self.signature().filter(|(_, made)| watched.keys.contains(&made.key));
        let Some((auth_key, made)) = signature else { return Ok(None) };
        let (key, item) = (made.key, self.item());
        if auth_key != watched.auth_key {
            return Err(Alarm::Foreign { auth_key, key, item });
        }
        let ours = asked.iter().rposition(|asked| *asked == made);
        let ours = ours.ok_or(Alarm::NotAsked { auth_key, key, item })?;
        asked.remove(ours);
        Ok(Some(ours))
    }
}

impl AuditLog {
    /// A cursor at its newest entry.
    ///
    /// # Errors
    /// [`Alarm::Empty`]
    pub fn newest(&self) -> Result<Cursor, Alarm> {
        let newest = self.entries.last().ok_or(Alarm::Empty)?;
        Ok(Cursor { item: newest.item(), digest: newest.digest })
    }
}

impl Cursor {
    /// Moves to the newest entry, over entries that all are accounted for; those of `asked` that were seen are taken out, one after the
    /// other at the places that are told.
    ///
    /// What was not asked for yet when this is called excuses nothing that is in the log by then: so it is called before each request.
    ///
    /// # Errors
    /// [`Alarm`]: nothing has moved then.
    pub fn follow(
        &mut self,
        log: &AuditLog,
        watched: &Watched,
        asked: &mut VecDeque<Asked>,
    ) -> Result<Vec<usize>, Alarm> {
        let mut cursor = *self;
        let mut open = asked.clone();
        let mut places = Vec::new();
        for entry in cursor.news(log)? {
            if !entry.follows(cursor.digest) {
                return Err(Alarm::OtherHistory { item: entry.item() });
            }
            cursor = Self { item: entry.item(), digest: entry.digest };
            places.extend(entry.account(watched, &mut open)?);
        }
        (*self, *asked) = (cursor, open);
        Ok(places)
    }

    /// The entries after the cursor, which follow it without a gap.
    pub(super) fn news<'a>(&self, log: &'a AuditLog) -> Result<&'a [LogEntry], Alarm> {
        let oldest = log.entries.first().ok_or(Alarm::Empty)?;
        let news = match log.entries.iter().position(|entry| entry.item() == self.item) {
            Some(at) if log.entries[at].digest != self.digest => {
                return Err(Alarm::OtherHistory { item: self.item });
            }
            Some(at) => &log.entries[at + 1..],
            None => &log.entries[..],
        };
        let mut last = self.item;
        for entry in news {
            if entry.item() != last.wrapping_add(1) {
                let gap = if last == self.item { oldest.item() } else { entry.item() };
                return Err(Alarm::Gap { last, found: gap });
            }
            last = entry.item();
        }
        Ok(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that logs.
    struct Device {
        log: AuditLog,
        last: Cursor,
    }

    impl Device {
        fn new(item: u16) -> Self {
            Self { log: AuditLog::default(), last: Cursor { item, digest: [9; 16] } }
        }

        fn logs(&mut self, command: u8, length: u16, auth_key: u16, key: u16) {
            let item = self.last.item.wrapping_add(1);
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&item.to_be_bytes());
            bytes[2] = command;
            bytes[3..5].copy_from_slice(&length.to_be_bytes());
            bytes[5..7].copy_from_slice(&auth_key.to_be_bytes());
            bytes[7..9].copy_from_slice(&key.to_be_bytes());
            bytes[11] = command | 0x80;
            let hash = Sha256::new().chain_update(bytes).chain_update(self.last.digest).finalize();
            let mut digest = [0; 16];
            digest.copy_from_slice(&hash[..16]);
            self.last = Cursor { item, digest };
            self.log.entries.push(LogEntry { bytes, digest });
        }

        fn signs(&mut self, auth_key: u16, key: u16) {
            self.logs(SIGN_EDDSA, 122, auth_key, key);
        }
    }

    const ASKED: Asked = Asked { key: 1, length: 122 };

    fn watched() -> Watched {
        Watched { auth_key: 4, keys: BTreeSet::from([1]) }
    }

    /// A device that has booted, and a cursor on that.
    fn begin(item: u16) -> (Device, Cursor) {
        let mut device = Device::new(item);
        device.logs(0, 0, 0xffff, 0);
        let cursor = device.log.newest().unwrap();
        (device, cursor)
    }

    fn follow(cursor: &mut Cursor, device: &Device, asked: usize) -> Result<usize, Alarm> {
        let mut asked = VecDeque::from(vec![ASKED; asked]);
        cursor.follow(&device.log, &watched(), &mut asked).map(|_| asked.len())
    }

    #[test]
    fn our_own_signatures_are_accounted_for_over_the_wrap_of_numbers_too() {
        for first in [1, 65_533] {
            let (mut device, mut cursor) = begin(first);
            for _ in 0..5 {
                device.signs(4, 1);
                device.logs(0, 0, 0xffff, 0);
                assert_eq!(follow(&mut cursor, &device, 1), Ok(0));
            }
            assert_eq!(cursor, device.last);
        }
    }

    #[test]
    fn a_signature_whose_answer_was_lost_may_be_there_or_not() {
        let (mut device, mut cursor) = begin(1);
        assert_eq!(follow(&mut cursor, &device, 1), Ok(1));
        device.signs(4, 1);
        assert_eq!(follow(&mut cursor, &device, 2), Ok(1));
    }

    #[test]
    fn a_copy_of_us_is_found() {
        let (mut device, mut cursor) = begin(1);
        device.signs(4, 1);
        device.signs(4, 1);
        let before = cursor;
        let alarm = Alarm::NotAsked { auth_key: 4, key: 1, item: 4 };
        assert_eq!(follow(&mut cursor, &device, 1), Err(alarm));
        assert_eq!(cursor, before, "and found again");
    }

    #[test]
    fn another_authentication_key_is_named_and_its_own_keys_are_its_own_matter() {
        let (mut device, mut cursor) = begin(1);
        device.signs(5, 2);
        assert_eq!(follow(&mut cursor, &device, 0), Ok(0));
        device.signs(5, 1);
        let alarm = Alarm::Foreign { auth_key: 5, key: 1, item: 4 };
        assert_eq!(follow(&mut cursor, &device, 1), Err(alarm));
    }

    #[test]
    fn a_restored_disk_finds_what_it_has_forgotten() {
        let (mut device, mut cursor) = begin(1);
        let saved = cursor;
        for _ in 0..5 {
            device.signs(4, 1);
            follow(&mut cursor, &device, 1).unwrap();
        }
        let alarm = Alarm::NotAsked { auth_key: 4, key: 1, item: 4 };
        assert_eq!(follow(&mut saved.clone(), &device, 1), Err(alarm));
        // The newer one has marked all but the newest entry as read.
        device.log.entries.drain(..5);
        assert_eq!(follow(&mut saved.clone(), &device, 1), Err(Alarm::Gap { last: 2, found: 7 }));
        device.log.entries.clear();
        assert_eq!(follow(&mut saved.clone(), &device, 1), Err(Alarm::Empty));
    }

    #[test]
    fn a_device_that_was_reset_is_another_one() {
        let (_, mut cursor) = begin(1);
        let mut reset = Device::new(1);
        reset.last.digest = [8; 16];
        reset.logs(0, 0, 0xffff, 0);
        assert_eq!(follow(&mut cursor, &reset, 0), Err(Alarm::OtherHistory { item: 2 }));
        reset.logs(0, 0, 0xffff, 0);
        reset.log.entries.remove(0);
        assert_eq!(follow(&mut cursor, &reset, 0), Err(Alarm::OtherHistory { item: 3 }));
    }

    #[test]
    fn a_gap_and_a_changed_entry_are_found_anywhere() {
        let (mut device, cursor) = begin(1);
        (0..4).for_each(|_| device.logs(0, 0, 0xffff, 0));
        let mut gap = AuditLog { entries: device.log.entries.clone(), unlogged: 0 };
        gap.entries.remove(2);
        let mut asked = VecDeque::new();
        let followed = cursor.clone().follow(&gap, &watched(), &mut asked);
        assert_eq!(followed, Err(Alarm::Gap { last: 3, found: 5 }));
        device.log.entries[3].bytes[15] ^= 1;
        assert_eq!(follow(&mut cursor.clone(), &device, 0), Err(Alarm::OtherHistory { item: 5 }));
    }
}
