//! What holds the key of a simulated signer: the production key, behind the latency and the faults of a device, watched by the oracle.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use monosign::backend::{Backend, BackendError};
use monosign::pubkey::PublicKey;
use monosign::record::Permit;
use monosign::seams::Local;
use tokio::time::{sleep, timeout};

use crate::disk::HostDisk;
use crate::oracle::Oracle;
use crate::reach::Reach;
use crate::run::Mode;
use crate::scenario::{DeviceFault, SpanRange};
use crate::streams::Stream;

/// The key device of a host; outlives the processes that use it.
pub(super) struct Device {
    latency: SpanRange,
    stream: RefCell<Stream>,
    fault: Cell<Option<DeviceFault>>,
    reach: Reach,
}

/// A driver of a device gives up after this: what an operator would set, and less than the 5 s that a node waits.
const DEADLINE: Duration = Duration::from_secs(2);

impl Device {
    /// The device of a mode, in order.
    pub(super) fn new(mode: Mode, stream: Stream, reach: Reach) -> Rc<Self> {
        let latency = match mode {
            // A share of the key is always a software key.
            Mode::Softsign | Mode::Threshold(_) => SpanRange::always(Duration::ZERO),
            // EdDSA on a YubiHSM 2, as published.
            Mode::Device => SpanRange::millis(115, 146),
        };
        Rc::new(Self { latency, stream: RefCell::new(stream), fault: Cell::new(None), reach })
    }

    /// The device fails in this way from now on, or no more.
    pub(super) fn set_fault(&self, fault: Option<DeviceFault>) {
        self.fault.set(fault);
    }

    async fn work(&self) -> Result<(), BackendError> {
        let latency = self.latency.draw(&mut self.stream.borrow_mut());
        if latency > Duration::ZERO {
            sleep(latency).await;
        }
        match self.fault.get() {
            Some(DeviceFault::Hang) => std::future::pending().await,
            Some(DeviceFault::Slow) => {
                self.reach.hit("key device slow");
                sleep(SLOW).await;
            }
            Some(DeviceFault::Error) => {
                return Err(BackendError::Failed("the device answered with an error".into()));
            }
            _ => {}
        }
        Ok(())
    }
}

const SLOW: Duration = Duration::from_millis(1500);

/// A key on a device, as one process sees it.
pub(super) struct WatchedKey {
    pub(super) key: Rc<dyn Backend>,
    pub(super) device: Rc<Device>,
    pub(super) host: Rc<str>,
    pub(super) disk: Rc<HostDisk>,
    pub(super) record: std::path::PathBuf,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) reach: Reach,
}

impl WatchedKey {
    fn saw(&self, bytes: &[u8], signature: [u8; 64]) {
        let mut oracle = self.oracle.borrow_mut();
        let seen = self.disk.durable_file(&self.record, |record| {
            oracle.key_signed(&self.host, bytes, signature, Some(record))
        });
        if seen.is_none() {
            oracle.key_signed(&self.host, bytes, signature, None);
        }
    }
}

impl Backend for WatchedKey {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    fn ready(&self) -> Result<(), BackendError> {
        if self.device.fault.get() == Some(DeviceFault::Absent) {
            self.reach.hit("key device absent");
            return Err(BackendError::Failed("the device is not there".into()));
        }
        self.key.ready()
    }

    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        Box::pin(async move {
            let signed = timeout(DEADLINE, async {
                self.device.work().await?;
                self.key.sign(permit).await
            });
            let mut signature = match signed.await {
                Ok(signature) => signature?,
                Err(_) => {
                    self.reach.hit("key device gave no answer");
                    return Err(BackendError::Failed("the device gave no answer in time".into()));
                }
            };
            self.saw(permit.bytes(), signature);
            match self.device.fault.get() {
                Some(DeviceFault::AnswerLost) => {
                    self.reach.hit("key device lost its answer");
                    Err(BackendError::Failed("the device's answer was lost".into()))
                }
                Some(DeviceFault::WrongSignature) => {
                    self.reach.hit("key device gave a wrong signature");
                    signature[7] ^= 1;
                    Ok(signature)
                }
                _ => Ok(signature),
            }
        })
    }
}
