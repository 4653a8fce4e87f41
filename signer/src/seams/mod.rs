//! The few places where the world comes in: network, disk and entropy; time is `tokio::time`.
//!
//! Each seam is a trait with a production form here and a simulated form in the simulator. Nothing else in the signer
//! touches sockets, files or randomness while it runs, so what runs in production is what is simulated.

mod disk;
mod entropy;
mod host_claim;
#[cfg(test)]
pub(crate) mod interrupted;
mod net;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

pub use disk::{Claim, Disk, DiskFile, Holder, Open, Secret, StdDisk};
pub use entropy::{Entropy, OsEntropy};
pub use net::{KEEPALIVE, Keepalive, Listen, Net, Stream, TokioNet};

/// A future of the single thread that the signer runs on.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// All seams together, cheap to clone.
#[derive(Clone)]
pub struct Seams {
    /// Dials validators, and carries cosigners.
    pub net: Rc<dyn Net>,
    /// Holds the records, and the shares of cosigners.
    pub disk: Rc<dyn Disk>,
    /// Gives ephemeral keys and jitter.
    pub entropy: Rc<dyn Entropy>,
}

impl Seams {
    /// The operating system's network, disk and entropy.
    pub fn production() -> Self {
        Self { net: Rc::new(TokioNet), disk: Rc::new(StdDisk::default()), entropy: Rc::new(OsEntropy) }
    }
}
