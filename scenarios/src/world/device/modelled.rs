//! The key in memory, or behind a modelled device: the production software key, with the latency and the faults of a device.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use monosign::backend::{Backend, BackendError};
use monosign::pubkey::PublicKey;
use monosign::record::Permit;
use monosign::seams::Local;
use tokio::time::{sleep, timeout};

use super::Eye;
use crate::reach::Reach;
use crate::scenario::{DeviceFault, SpanRange};
use crate::streams::Stream;

/// A modelled device; outlives the processes that use it.
pub(in crate::world) struct Model {
    latency: SpanRange,
    stream: RefCell<Stream>,
    fault: Cell<Option<DeviceFault>>,
    reach: Reach,
}

/// A driver of a device gives up after this: what an operator would set, and less than the 5 s that a node waits.
const DEADLINE: Duration = Duration::from_secs(2);

impl Model {
    /// A device that takes so long, in order.
    pub(super) fn new(latency: SpanRange, stream: Stream, reach: Reach) -> Rc<Self> {
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
            // What only hardware has is one more error here.
            Some(
                DeviceFault::Error
                | DeviceFault::PowerCycle
                | DeviceFault::Truncated
                | DeviceFault::LogFull
                | DeviceFault::SessionsTaken
                | DeviceFault::Busy
                | DeviceFault::KeyDeleted
                | DeviceFault::ForeignSignature
                | DeviceFault::CopySigns
                | DeviceFault::CopiedKeySigns
                | DeviceFault::SignaturesNotLogged,
            ) => {
                return Err(BackendError::Failed("the device answered with an error".into()));
            }
            _ => {}
        }
        Ok(())
    }
}

const SLOW: Duration = Duration::from_millis(1500);

/// A key on a modelled device, as one process sees it.
pub(in crate::world) struct ModelledKey {
    pub(super) key: Rc<dyn Backend>,
    pub(super) device: Rc<Model>,
    pub(super) eye: Eye,
    pub(super) reach: Reach,
}

impl Backend for ModelledKey {
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

    fn until_ready(&self) -> Local<'_, ()> {
        self.key.until_ready()
    }

    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        Box::pin(async move {
            self.eye.asks(permit.bytes());
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
            self.eye.saw(permit.bytes(), signature);
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

    fn max_message(&self) -> usize {
        self.key.max_message()
    }

    fn distrust(&self) {
        self.key.distrust();
    }
}
