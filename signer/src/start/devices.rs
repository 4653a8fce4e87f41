//! The devices of a running signer.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::StartError;
use crate::backend::device::{self, Device, Executor, Failover, OwnThread};
use crate::backend::locks::KeyLocks;
use crate::backend::pkcs11::{self, ChildProcess};
use crate::backend::softsign::unlock::UnlockEnv;
use crate::backend::yubihsm::{self, Audit, Witnessed, YubihsmDriver};
use crate::config::{DeviceKey, YubihsmProvider};
use crate::pubkey::PublicKey;
use crate::seams::Disk;

/// Makes devices reachable: by a thread and a child process in production, and inline in a simulation.
pub trait Hardware {
    /// What asks a YubiHSM.
    fn yubihsm(&self, settings: yubihsm::Settings) -> Rc<dyn Executor>;

    /// What asks a PKCS#11 token.
    fn pkcs11(&self, settings: pkcs11::Settings) -> Rc<dyn Executor>;
}

/// The devices of this machine.
struct Attached;

/// Devices by name: each has one owner, whatever number of chains it signs for.
pub struct Devices {
    disk: Rc<dyn Disk>,
    hardware: Rc<dyn Hardware>,
    devices: BTreeMap<String, Device>,
    locks: Rc<KeyLocks>,
    /// Whether alarms are found, and not kept.
    only_look: bool,
    /// How many keys were put on several devices. Chains take turns in which one they ask first.
    turn: usize,
}

impl Devices {
    /// None yet. What is known of their logs is on `disk`.
    pub fn new(disk: Rc<dyn Disk>) -> Self {
        Self::of(disk, Rc::new(Attached))
    }

    /// None yet, of other hardware than this machine's.
    pub fn of(disk: Rc<dyn Disk>, hardware: Rc<dyn Hardware>) -> Self {
        Self { disk, hardware, devices: BTreeMap::new(), locks: Rc::default(), only_look: false, turn: 0 }
    }

    /// The same for a command that looks, and changes nothing.
    pub fn that_only_look(self) -> Self {
        Self { only_look: true, ..self }
    }

    /// Which keys must not sign.
    pub fn locks(&self) -> &Rc<KeyLocks> {
        &self.locks
    }

    /// A chain's record, beside which it is kept that its key is locked.
    pub async fn admit(&self, public_key: PublicKey, record: &Path) {
        self.locks.admit(&self.disk, public_key, record, self.only_look).await;
    }

    /// A key on its device. It must be called within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// [`StartError::Password`], [`StartError::OtherKey`]
    pub fn key(
        &mut self,
        key: &DeviceKey,
        public_key: PublicKey,
        env: &UnlockEnv,
    ) -> Result<device::DeviceKey, StartError> {
        if let Some(configured) = key.public_key().filter(|configured| *configured != public_key) {
            return Err(StartError::OtherKey { configured, recorded: public_key });
        }
        let name = key.device();
        let device = match self.devices.get(&name) {
            Some(device) => device.clone(),
            None => self.own(key, env)?,
        };
        let key = device.named_key(key.number(), key.name(), public_key);
        self.devices.insert(name, device);
        Ok(key)
    }

    pub(super) fn failover(
        &mut self,
        keys: &[DeviceKey],
        public_key: PublicKey,
        env: &UnlockEnv,
    ) -> Result<Failover, StartError> {
        let mut on_devices = Vec::new();
        for key in keys {
            on_devices.push(self.key(key, public_key, env)?);
        }
        let first = self.turn % on_devices.len();
        on_devices.rotate_left(first);
        self.turn += 1;
        Ok(Failover::new(public_key, on_devices))
    }

    /// Takes a device over.
    fn own(&self, key: &DeviceKey, env: &UnlockEnv) -> Result<Device, StartError> {
        let locks = Rc::clone(&self.locks);
        match key {
            DeviceKey::Yubihsm(key) => {
                let settings = key.provider.settings(env)?;
                let (name, limits) = (settings.name(), settings.limits());
                let executor = self.hardware.yubihsm(settings);
                let YubihsmProvider { audit, audit_file, .. } = &*key.provider;
                if *audit == Audit::Off {
                    return Ok(Device::new(&name, executor, limits, locks));
                }
                let (watched, disk) = (key.provider.watched(), Rc::clone(&self.disk));
                let mut witnessed = Witnessed::new(executor, *audit, watched, disk, audit_file.clone());
                if self.only_look {
                    witnessed = witnessed.that_only_looks();
                }
                // Around a signature the log is looked at and marked as read, which takes a few ms each; any one of these exchanges may be
                // lost, and take as long as the one of an unwatched device.
                let limits = device::Limits { deadline: limits.deadline * 2, ..limits };
                Ok(Device::new(&name, Rc::new(witnessed), limits, locks))
            }
            DeviceKey::Pkcs11(key) => {
                let settings = key.provider.settings(env)?;
                let (name, limits) = (settings.name(), settings.limits());
                Ok(Device::new(&name, self.hardware.pkcs11(settings), limits, locks))
            }
        }
    }
}

impl Hardware for Attached {
    fn yubihsm(&self, settings: yubihsm::Settings) -> Rc<dyn Executor> {
        let settings = Arc::new(settings);
        let make = move || Box::new(YubihsmDriver::new(Arc::clone(&settings))) as _;
        Rc::new(OwnThread::new("yubihsm", make))
    }

    fn pkcs11(&self, settings: pkcs11::Settings) -> Rc<dyn Executor> {
        Rc::new(ChildProcess::new(Rc::new(settings)))
    }
}
