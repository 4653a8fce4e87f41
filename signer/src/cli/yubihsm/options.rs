//! Which commands a device audits, and which it should.

use std::collections::{BTreeMap, BTreeSet};

use yubihsm::audit::AuditOption;
use yubihsm::client::Error;
use yubihsm::command::Code;
use yubihsm::device::ErrorKind;
use yubihsm::object::{Filter, Type};
use yubihsm::{Capability, Client};

use super::Failure;
use super::session::open;
use crate::backend::device::DeviceError;
use crate::backend::yubihsm::witness::LogEntry;
use crate::backend::yubihsm::{Audit, read_log};
use crate::cli::advice::first_line;
use crate::cli::unlock_env;
use crate::config::YubihsmProvider;
use crate::start::StartError;

/// What goes into the log beside signatures, which cannot be taken out again. Never what opens sessions or
/// reads the log: with force audit, that would lock the device (yubihsm-shell pull request 509).
const AUDITED: [Code; 7] = [
    Code::PutAsymmetricKey,
    Code::GenerateAsymmetricKey,
    Code::PutAuthenticationKey,
    Code::ImportWrapped,
    Code::DeleteObject,
    Code::ResetDevice,
    // The last, so that setting the others does not fill the log.
    Code::SetOption,
];
/// What the signer asks by itself. Where it is audited, the signer fills the log with its own doing.
const OWN: [Code; 11] = [
    Code::Echo,
    Code::CreateSession,
    Code::AuthenticateSession,
    Code::DeviceInfo,
    Code::CloseSession,
    Code::ListObjects,
    Code::GetLogEntries,
    Code::GetObjectInfo,
    Code::GetOption,
    Code::GetPublicKey,
    Code::SetLogIndex,
];
/// By which a key gets onto a device.
const BRINGS_A_KEY: [Code; 2] = [Code::PutAsymmetricKey, Code::ImportWrapped];

/// What is wrong with what a device audits, for a signer that watches its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct Wrong {
    /// Signatures are not audited: the first one would stop the signer.
    pub(in crate::cli) blind: bool,
    /// What the signer itself asks is audited.
    own: Vec<u8>,
    /// A key that is put there is not.
    unseen: Vec<u8>,
}

impl Wrong {
    /// What a person should know, each with the way on.
    pub(in crate::cli) fn told(&self) -> Vec<String> {
        let hint = "hint: `monosign yubihsm audit options --auth-key 1`, with the administrator's password, sets what is audited";
        let mut told = Vec::new();
        if self.blind {
            return vec![format!(
                "it does not audit signatures (0x6a), so the first one stops the signer\n{hint}"
            )];
        }
        if !self.own.is_empty() {
            told.push(format!(
                "it audits {}, which the signer itself asks: so the signer fills the log, or pushes out of it what it has not seen. \
                 Firmware before 2.3.1 does so by default\n{hint}",
                listed(&self.own)
            ));
        }
        if !self.unseen.is_empty() {
            told.push(format!(
                "it does not audit {}, so a copy of the key under another number is not seen until the next start\n{hint}",
                listed(&self.unseen)
            ));
        }
        told
    }
}

fn listed(codes: &[u8]) -> String {
    codes.iter().map(|code| format!("{code:#04x}")).collect::<Vec<_>>().join(", ")
}

/// Sets the option of every command there is, whatever the firmware's default.
///
/// # Errors
/// What the device says, unless it does not know the command.
pub(super) fn set_all(client: &Client) -> Result<(), Error> {
    let not_audited = all().filter(|code| !AUDITED.contains(code) && *code != Code::SignEddsa);
    let off = std::iter::once(Code::SetOption).chain(not_audited).map(|code| (code, AuditOption::Off));
    let on = AUDITED.map(|code| (code, AuditOption::On));
    for (code, option) in off.chain([(Code::SignEddsa, AuditOption::Fix)]).chain(on) {
        match client.set_command_audit_option(code, option) {
            // No command of this firmware, or fixed already. What is wrong is seen afterwards.
            Err(error) if error.device_error() == Some(ErrorKind::InvalidData) => {}
            other => other?,
        }
    }
    Ok(())
}

/// What is wrong: by the options, or by what the log shows if this authentication key may not ask for them, as that of a validator which
/// tmkms has set up. The session is that of `auth_key`, and `key` is any key that it may see.
///
/// # Errors
/// What the device says.
pub(in crate::cli) fn wrong(client: &Client, auth_key: u16, key: u16) -> Result<Wrong, DeviceError> {
    match by_options(client) {
        Err(error) if error.device_error() == Some(ErrorKind::InsufficientPermissions) => {
            by_log(client, auth_key, key)
        }
        other => other.map_err(|error| DeviceError::Refused(error.to_string())),
    }
}

fn by_options(client: &Client) -> Result<Wrong, Error> {
    // The crate ends the list at a command that it does not know, which is of newer firmware and comes after all that are named here.
    let options = client.get_commands_audit_options()?;
    let audits = |code: &Code| {
        let option = options.iter().find(|option| option.command_type() == *code);
        option.is_some_and(|option| option.audit_option() != AuditOption::Off)
    };
    let bytes = |codes: Vec<Code>| codes.iter().map(|code| code.to_u8()).collect();
    Ok(Wrong {
        blind: !audits(&Code::SignEddsa),
        own: bytes(OWN.into_iter().filter(audits).collect()),
        unseen: bytes(BRINGS_A_KEY.into_iter().filter(|code| !audits(code)).collect()),
    })
}

/// Opening this session, and asking for a public key, are in the log if they are audited.
fn by_log(client: &Client, auth_key: u16, key: u16) -> Result<Wrong, DeviceError> {
    let before = read_log(client)?;
    let opens = |entry: &&LogEntry| SESSION.contains(&entry.command()) && entry.target() == auth_key;
    let mut own: BTreeSet<_> = before
        .entries
        .iter()
        .rev()
        .map_while(|entry| opens(&entry).then(|| entry.command()))
        .take(2)
        .collect();
    let asked = client.get_public_key(key).err().and_then(|error| error.device_error());
    let last = before.entries.last().map(LogEntry::item);
    let after = read_log(client)?;
    let begin = after.entries.iter().position(|entry| Some(entry.item()) == last).map_or(0, |at| at + 1);
    let is_logged = |entry: &LogEntry| entry.command() == PUBLIC_KEY && entry.target() == key;
    if asked == Some(ErrorKind::LogFull) || after.entries[begin..].iter().any(is_logged) {
        own.insert(PUBLIC_KEY);
    }
    if !own.is_empty() {
        // Then what it has logged before is so now.
        let is_own = |code: &u8| OWN.iter().any(|own| own.to_u8() == *code);
        own.extend(after.entries.iter().map(LogEntry::command).filter(is_own));
    }
    Ok(Wrong { own: own.into_iter().collect(), ..Wrong::default() })
}

const SESSION: [u8; 2] = [Code::CreateSession as u8, Code::AuthenticateSession as u8];
const PUBLIC_KEY: u8 = Code::GetPublicKey as u8;

/// What a look at a device has found that its keys' owner does not see.
pub(in crate::cli) struct Examined {
    /// Why nothing is signed, by key.
    refuses: BTreeMap<u16, String>,
    /// Why the first signature would be the last.
    pub(in crate::cli) bad: Vec<String>,
    /// What a person should know.
    pub(in crate::cli) warnings: Vec<String>,
}

impl Examined {
    /// Why nothing is signed with a key.
    pub(in crate::cli) fn cannot_sign(&self, key: u16) -> Option<String> {
        self.refuses.get(&key).cloned()
    }
}

/// Looks at a device that can be reached: whether its log is written as the witness needs it, and whether it would sign for us.
pub(in crate::cli) fn examine(provider: &YubihsmProvider) -> Examined {
    let mut found = Examined { refuses: BTreeMap::new(), bad: Vec::new(), warnings: Vec::new() };
    let password = provider.password.read(&unlock_env()).map_err(StartError::from);
    let session =
        password.map_err(Failure::from).and_then(|password| open(provider, provider.auth_key, password));
    let session = match session {
        Ok(session) => session,
        Err(failure) => {
            found.warnings.push(format!(
                "what it lets us do was not looked at: {}\nhint: sessions that are left open end within 30 s: look again",
                first_line(failure.text())
            ));
            return found;
        }
    };
    if provider.audit != Audit::Off {
        // First, since it tells by the end of the log who has opened this session.
        match findings_of(session.client(), provider.auth_key, provider) {
            Ok((true, told)) => found.bad = told,
            Ok((false, told)) => found.warnings = told,
            Err(_) => {}
        }
    }
    for key in &provider.keys {
        if let Some(why) = refuses(session.client(), provider.auth_key, *key) {
            found.refuses.insert(*key, why);
        }
    }
    if provider.audit == Audit::Off && is_full(session.client()) {
        let why = "its audit log is full, and with force audit it signs nothing then\nhint: `audit = \"detect\"` in [[providers.yubihsm]] and \
                   `monosign yubihsm audit init` have the signer read it; or read it by yubihsm-shell (`audit get`, `audit set`)";
        found.refuses.extend(provider.keys.iter().map(|key| (*key, why.to_owned())));
    }
    found
}

/// Why a signature would be refused, by what the device tells of our authentication key and of the key. What it does not tell is left to the signature.
fn refuses(client: &Client, auth_key: u16, key: u16) -> Option<String> {
    let may = |id, kind| {
        let info = client.get_object_info(id, kind).ok()?;
        Some(info.capabilities.contains(Capability::SIGN_EDDSA))
    };
    if may(auth_key, Type::AuthenticationKey) == Some(false) {
        return Some(format!(
            "authentication key {auth_key:#06x} may not sign\nhint: name one that may in `auth`: `monosign yubihsm setup` makes it as number 4, \
             the validator's"
        ));
    }
    (may(key, Type::AsymmetricKey) == Some(false)).then(|| {
        format!(
            "key {key:#06x} may not sign\nhint: it lacks the capability `sign-eddsa`, which cannot be added: `monosign yubihsm keys import` \
             puts the key there anew, under another number"
        )
    })
}

/// Whether nothing is signed until the log is read.
fn is_full(client: &Client) -> bool {
    let full = client.device_info().is_ok_and(|info| info.log_store_used >= info.log_store_capacity);
    full && client.get_force_audit_option().is_ok_and(|forced| forced != AuditOption::Off)
}

/// The same in a session of `auth_key`.
pub(super) fn findings_of(
    client: &Client,
    auth_key: u16,
    provider: &YubihsmProvider,
) -> Result<(bool, Vec<String>), Failure> {
    let key = provider.keys.first().copied().unwrap_or(ANY_KEY);
    let wrong = wrong(client, auth_key, key).map_err(Failure::new)?;
    let mut told = wrong.told();
    for (copy, ours) in copies(client, &provider.keys) {
        told.push(format!(
            "its key {copy:#06x} is key {ours:#06x} under another number: what signs with it stops the signer\n\
             hint: delete it, with yubihsm-shell and an authentication key that may: `delete 0 {copy} asymmetric-key`"
        ));
    }
    Ok((wrong.blind, told))
}

/// A key to ask for where there is none in particular: that it is not there is logged as well.
pub(super) const ANY_KEY: u16 = 1;

/// The keys that are one of ours under another number, and which one; as far as the session's domains reach.
pub(super) fn copies(client: &Client, ours: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let listed = client.list_objects(&[Filter::Type(Type::AsymmetricKey)]).unwrap_or_default();
    let others: Vec<_> =
        listed.iter().map(|object| object.object_id).filter(|id| !ours.contains(id)).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let key_of = |id: &u16| {
        let found = client.get_public_key(*id).ok()?.ed25519()?;
        Some((*found.as_bytes(), *id))
    };
    let ours: BTreeMap<[u8; 32], u16> = ours.iter().filter_map(key_of).collect();
    let others = others.iter().filter_map(key_of);
    others.filter_map(|(key, id)| Some((id, *ours.get(&key)?))).collect()
}

/// All commands that the crate knows.
fn all() -> impl Iterator<Item = Code> {
    let no_commands = [Code::Unknown, Code::Error, Code::HsmInitialization];
    (0..=u8::MAX).filter_map(|byte| Code::from_u8(byte).ok()).filter(move |code| !no_commands.contains(code))
}
