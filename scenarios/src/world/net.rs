//! The signer's network: turmoil's, with what it lacks.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::rc::Rc;

use monosign::config::Endpoint;
use monosign::seams::{Entropy, Local, Net, Stream as SeamStream};
use turmoil::net::TcpStream;

use super::hosts::{Hosts, Power};
use super::signer_host::SignerHost;
use super::wire::Wire;
use crate::streams::{Stream, Streams};

/// How one process dials.
pub(super) struct SimNet {
    pub(super) host: Rc<str>,
    pub(super) hosts: Rc<Hosts>,
    pub(super) signer: Rc<SignerHost>,
    pub(super) streams: Streams,
    /// Tells connections apart, so that each is chopped in its own way.
    pub(super) dialed: std::cell::Cell<u64>,
}

impl Net for SimNet {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> Local<'a, io::Result<Box<dyn SeamStream>>> {
        Box::pin(async move {
            let Endpoint::Tcp { host, port } = endpoint else {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the simulated network has TCP alone",
                ));
            };
            // turmoil refuses what is cut off at once, where a real dialer waits for an answer that never comes.
            if self.hosts.is_cut(&self.host, host) || self.hosts.is_cut(host, &self.host) {
                pending::<()>().await;
            }
            match self.hosts.power(host) {
                Power::On => {}
                // The kernel of a host whose process is gone answers; a host without power does not.
                Power::ProcessDown => return Err(io::ErrorKind::ConnectionRefused.into()),
                Power::Off => pending().await,
            }
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            self.dialed.set(self.dialed.get() + 1);
            let name = format!("chop/{}/{}", self.host, self.dialed.get());
            let chops = self.hosts.chops.then(|| self.streams.of(&name));
            Ok(Box::new(Wire::new(stream, chops, self.signer.tap(host))) as Box<dyn SeamStream>)
        })
    }
}

/// A process's random numbers.
pub(super) struct SimEntropy(pub(super) RefCell<Stream>);

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.borrow_mut().fill(bytes);
    }
}
