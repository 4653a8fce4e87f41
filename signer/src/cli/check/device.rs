//! Keys on devices: whether one of them would sign.

use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use super::report::{Finding, Level};
use super::{DIAL, Sealed, unlock_way};
use crate::backend::BackendError;
use crate::backend::device::{DeviceKey as OnDevice, Lack, LackKind};
use crate::backend::locks::lock_of;
use crate::cli::yubihsm::options::{self, Examined};
use crate::cli::{advice, unlock_env};
use crate::config::{ChainConfig, DeviceKey, KeyConfig};
use crate::ops::access::shell;
use crate::pubkey::PublicKey;
use crate::record::Record;
use crate::seams::Seams;
use crate::start::{Devices, StartError};

/// How long a device of several is waited for: as long as a start takes it for alive, and a little longer.
const HEARING: std::time::Duration = std::time::Duration::from_secs(9);

/// What is known of a key.
pub(super) struct KeyState {
    /// Why it signs nowhere, if it does not.
    pub(super) locked: Option<String>,
    /// The same, and it is not kept beside the record: it may be over soon.
    pub(super) is_held: bool,
    /// On each device, in the order of the configuration.
    pub(super) lacks: Vec<Option<Lack>>,
}

/// Looks at a chain's key on its devices, and takes nothing. Others with the same key are looked at as well:
/// what is found there stops this one.
pub(super) async fn look(
    chain: &ChainConfig,
    chains: &[ChainConfig],
    public_key: PublicKey,
    seams: &Seams,
) -> Result<KeyState, StartError> {
    let (env, mut devices) = (unlock_env(), Devices::new(Rc::clone(&seams.disk)).that_only_look());
    devices.admit(public_key, &chain.record).await;
    let begun = Instant::now();
    let mut ours = Vec::new();
    for key in chain.key.on_devices() {
        ours.push(devices.key(key, public_key, &env)?);
    }
    let mut others = Vec::new();
    for other in chains.iter().filter(|other| other.id != chain.id) {
        let peeked = Record::peek(&*seams.disk, &other.record).await;
        if peeked.is_ok_and(|(header, _)| header.public_key == *public_key.as_bytes()) {
            devices.admit(public_key, &other.record).await;
            for key in other.key.on_devices() {
                // That chain's own trouble is told with it.
                others.extend(devices.key(key, public_key, &env));
            }
        }
    }
    let until = begun + DIAL;
    for key in ours.iter().chain(&others) {
        let _ = timeout_at(until, key.until_ready()).await;
    }
    // One that cannot be reached keeps the others from signing for a while.
    let may_sign = |key: &OnDevice| key.lack().is_none();
    if let (Some(key), Err(BackendError::Failed(_))) =
        (ours.iter().find(|key| may_sign(key)), devices.locks().check(public_key))
    {
        let _ = timeout_at(begun + HEARING, key.until_ready()).await;
    }
    let is_kept = !matches!(lock_of(&*seams.disk, &chain.record).await, Ok(None));
    let locked = match devices.locks().check(public_key) {
        Ok(()) => None,
        Err(locked @ BackendError::Locked(_)) => Some(locked.to_string()),
        // A log that was not looked at, on a device that is not there.
        Err(awaited) if ours.iter().any(may_sign) => Some(awaited.to_string()),
        Err(_) => None,
    };
    let is_held = locked.is_some() && !is_kept;
    Ok(KeyState { locked, is_held, lacks: ours.iter().map(OnDevice::lack).collect() })
}

/// What is to be told of it.
pub(super) fn findings(
    chain: &ChainConfig,
    mut state: KeyState,
    examined: &mut BTreeMap<String, Examined>,
    signs_now: bool,
) -> Vec<Finding> {
    let id = &chain.id;
    let keys = match &chain.key {
        KeyConfig::OnDevices(keys) => keys.as_slice(),
        _ => &[],
    };
    let mut more = Vec::new();
    for (key, lack) in keys.iter().zip(&mut state.lacks) {
        let (None, DeviceKey::Yubihsm(on)) = (&lack, key) else { continue };
        let name = key.device();
        let found = examined.entry(name.clone()).or_insert_with(|| options::examine(&on.provider));
        if let Some(why) = found.cannot_sign(on.key) {
            *lack = Some(Lack { what: why, kind: LackKind::Key });
        }
        let told = |level: Level| {
            let name = name.clone();
            move |told: &String| Finding::at(level, format!("device {name}"), told).about(id)
        };
        more.extend(found.bad.iter().map(told(Level::Bad)));
        more.extend(found.warnings.iter().map(told(Level::Warning)));
    }
    let is_about_password =
        state.is_held && state.lacks.iter().flatten().any(|lack| lack.kind == LackKind::Password);
    let locked = state.locked.filter(|_| !is_about_password);
    let is_locked = locked.is_some();
    if let Some(locked) = locked {
        more.push(Finding::of_chain(Level::Unsafe, id, locked).next(unlock_way(chain)));
    }
    let signs_elsewhere = state.lacks.iter().any(Option::is_none);
    let lacks = keys.iter().zip(state.lacks).filter_map(|(key, lack)| Some((key, lack?)));
    // The alarm of a device is what the key is locked for.
    let lacks = lacks.filter(|(_, lack)| !is_locked || lack.kind != LackKind::Alarm);
    let lacks = lacks.map(|(key, lack)| {
        let place = format!("chain {id}: device {}", key.device());
        let is_away = lack.kind == LackKind::Device;
        let finding = Finding::at(Level::Bad, place, lack.what).about(id).next(way_on(key, lack.kind));
        match (signs_elsewhere, signs_now && is_away) {
            (true, _) => finding.at_most(Level::Warning, "another device has the key, too"),
            (_, true) => finding.at_most(Level::Warning, "the running signer reaches it"),
            _ => finding,
        }
    });
    lacks.chain(more).collect()
}

fn way_on(key: &DeviceKey, kind: LackKind) -> String {
    match (key, kind) {
        (_, LackKind::Alarm) => "`monosign yubihsm unlock` shows the log, and goes on from there".into(),
        (DeviceKey::Yubihsm(key), LackKind::Password) => format!(
            "put the password of authentication key {:#06x} where `auth` in [[providers.yubihsm]] says; a \
             device locks a key out after some wrong ones",
            key.provider.auth_key
        ),
        (DeviceKey::Pkcs11(_), LackKind::Password) => {
            "put the user's PIN where [[providers.pkcs11]] says; a token locks after a few wrong ones".into()
        }
        (DeviceKey::Yubihsm(_), LackKind::Device) => {
            "plug it in, and see that the yubihsm-connector runs at `addr`: `monosign yubihsm detect`".into()
        }
        (DeviceKey::Pkcs11(key), LackKind::Device) => format!(
            "`monosign pkcs11 slots --module {}` shows what is there",
            shell(&key.provider.module)
        ),
        (DeviceKey::Yubihsm(_), LackKind::Key) => {
            "`monosign yubihsm keys list` shows which keys there are; `keys` in [[providers.yubihsm]] names the one".into()
        }
        (DeviceKey::Pkcs11(_), LackKind::Key) => {
            "`monosign pkcs11 keys list` shows which keys there are; `keys` in [[providers.pkcs11]] names the one".into()
        }
    }
}

/// What a sealed key needs.
pub(super) fn sealed(chain: &ChainConfig) -> Sealed {
    Sealed { start: advice::command(chain, "start"), unlock: command(chain, "unlock") }
}

/// A command that is about one chain, as it is to be typed.
pub(super) fn command(chain: &ChainConfig, words: &str) -> String {
    let of_chain = if chain.origin.only_chain { String::new() } else { format!(" --chain {}", chain.id) };
    advice::command(chain, words) + &of_chain
}
