//! The signer's network: turmoil's, with what it lacks.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use monosign::config::Endpoint;
use monosign::seams::{Entropy, Listen, Local, Net, Stream as SeamStream};
use monosign::threshold::transport::Transport;
use turmoil::net::{TcpListener, TcpStream};

use super::hosts::{Hosts, Power};
use super::mesh::SimTransport;
use super::signer_host::{MESH_PORT, SignerHost};
use super::wire::{Tap, Wire};
use crate::streams::{Stream, Streams};

/// How one process dials and listens.
pub(super) struct SimNet {
    pub(super) host: Rc<str>,
    pub(super) hosts: Rc<Hosts>,
    pub(super) signer: Rc<SignerHost>,
    pub(super) streams: Streams,
    pub(super) entropy: Rc<dyn Entropy>,
    /// Whether the oracle hears what cosigners say: what hosts of a ceremony say is other messages.
    pub(super) is_overheard: bool,
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
            let host = self.hosts.at_address(&self.host, host);
            let tap = match *port {
                MESH_PORT.. => self.signer.mesh_tap(),
                _ => self.signer.tap(&host),
            };
            // turmoil refuses what is cut off at once, where a real dialer waits for an answer that never comes.
            if self.hosts.is_cut(&self.host, &host) || self.hosts.is_cut(&host, &self.host) {
                pending::<()>().await;
            }
            match self.hosts.power(&host) {
                Power::On => {}
                // The kernel of a host whose process is gone answers; a host without power does not.
                Power::ProcessDown => return Err(io::ErrorKind::ConnectionRefused.into()),
                Power::Off => pending().await,
            }
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            self.dialed.set(self.dialed.get() + 1);
            let name = format!("chop/{}/{}", self.host, self.dialed.get());
            let chops = self.hosts.chops.then(|| self.streams.of(&name));
            let wire = Wire::dialed(stream, chops, tap, &self.hosts, (&self.host, &host))?;
            Ok(Box::new(wire) as Box<dyn SeamStream>)
        })
    }

    fn listen<'a>(&'a self, endpoint: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Listen>>> {
        Box::pin(async move {
            let Endpoint::Tcp { port, .. } = endpoint else { return Err(io::ErrorKind::Unsupported.into()) };
            let listener = TcpListener::bind(("0.0.0.0", *port)).await?;
            let (host, streams, tap) = (Rc::clone(&self.host), self.streams, self.signer.mesh_tap());
            let hosts = Rc::clone(&self.hosts);
            let accepted = self.dialed.get();
            Ok(Box::new(SimListen { listener, host, hosts, streams, tap, accepted }) as Box<dyn Listen>)
        })
    }

    fn transport(&self, identity: &SigningKey, peers: &[[u8; 32]]) -> io::Result<Rc<dyn Transport>> {
        let (identity, peers) = (identity.clone(), peers.to_vec());
        let overhears = self.is_overheard.then(|| Rc::clone(&self.signer));
        Ok(Rc::new(SimTransport { identity, peers, overhears, entropy: Rc::clone(&self.entropy) }))
    }
}

/// Where a process listens.
struct SimListen {
    listener: TcpListener,
    host: Rc<str>,
    hosts: Rc<Hosts>,
    streams: Streams,
    tap: Tap,
    accepted: u64,
}

impl Listen for SimListen {
    fn accept(&mut self) -> Local<'_, io::Result<(Box<dyn SeamStream>, String)>> {
        Box::pin(async {
            let (stream, from) = self.listener.accept().await?;
            self.accepted += 1;
            let name = format!("chop accepted/{}/{}", self.host, self.accepted);
            let chops = self.hosts.chops.then(|| self.streams.of(&name));
            let wire = Wire::accepted(stream, chops, self.tap.clone(), (&self.hosts, &self.host))?;
            Ok((Box::new(wire) as Box<dyn SeamStream>, from.to_string()))
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
