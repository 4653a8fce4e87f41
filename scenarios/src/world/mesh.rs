//! What secures the connections of simulated cosigners, in the place of TLS, whose own entropy would make each run another.
//!
//! Each end proves by a signature that it holds the identity key that the other expects, in as many trips as TLS 1.3 takes; then the
//! production messages go through as they are. Nothing is encrypted: nobody listens here but the oracle. That TLS lets nobody in and
//! changes nothing is not shown by a simulation; it has tests of its own.

use std::io;
use std::rc::Rc;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use monosign::seams::{Entropy, Local, Stream};
use monosign::threshold::transport::{Accepted, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::overhear::{Overheard, Side};
use super::signer_host::SignerHost;

/// A cosigner's end of its connections.
pub(super) struct SimTransport {
    pub(super) identity: SigningKey,
    /// Who is let in.
    pub(super) peers: Vec<[u8; 32]>,
    /// The cosigner's host, if the oracle hears what it says.
    pub(super) overhears: Option<Rc<SignerHost>>,
    pub(super) entropy: Rc<dyn Entropy>,
}

/// Who speaks, and to what each end signs.
const DIALS: &[u8] = b"dials";
const ACCEPTS: &[u8] = b"accepts";

impl SimTransport {
    fn public(&self) -> [u8; 32] {
        self.identity.verifying_key().to_bytes()
    }

    fn overheard(&self, stream: Box<dyn Stream>, peer: [u8; 32], side: Side) -> Box<dyn Stream> {
        match &self.overhears {
            Some(signer) => Box::new(Overheard::new(stream, Rc::clone(signer), peer, side)),
            None => stream,
        }
    }

    fn sign(&self, role: &[u8], dialer: &[u8; 64], accepter: &[u8; 64]) -> [u8; 64] {
        self.identity.sign(&[role, dialer, accepter].concat()).to_bytes()
    }
}

/// An identity key and a fresh number.
fn greeting(identity: [u8; 32], entropy: &dyn Entropy) -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[..32].copy_from_slice(&identity);
    greeting[32..].copy_from_slice(&entropy.key());
    greeting
}

fn identity_in(greeting: &[u8; 64]) -> [u8; 32] {
    let mut identity = [0; 32];
    identity.copy_from_slice(&greeting[..32]);
    identity
}

fn check(
    role: &[u8],
    by: [u8; 32],
    dialer: &[u8; 64],
    accepter: &[u8; 64],
    proof: [u8; 64],
) -> io::Result<()> {
    let key = VerifyingKey::from_bytes(&by).map_err(io::Error::other)?;
    let signed = [role, dialer, accepter].concat();
    key.verify_strict(&signed, &Signature::from_bytes(&proof)).map_err(io::Error::other)
}

fn stranger() -> io::Error {
    io::Error::other("the peer is somebody else")
}

impl Transport for SimTransport {
    fn dial<'a>(
        &'a self,
        mut stream: Box<dyn Stream>,
        peer: &'a [u8; 32],
    ) -> Local<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let ours = greeting(self.public(), &*self.entropy);
            stream.write_all(&ours).await?;
            let (mut theirs, mut proof) = ([0; 64], [0; 64]);
            stream.read_exact(&mut theirs).await?;
            stream.read_exact(&mut proof).await?;
            if identity_in(&theirs) != *peer {
                return Err(stranger());
            }
            check(ACCEPTS, *peer, &ours, &theirs, proof)?;
            stream.write_all(&self.sign(DIALS, &ours, &theirs)).await?;
            Ok(self.overheard(stream, *peer, Side::Dialed))
        })
    }

    fn accept(&self, mut stream: Box<dyn Stream>) -> Local<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let mut theirs = [0; 64];
            stream.read_exact(&mut theirs).await?;
            let peer = identity_in(&theirs);
            if !self.peers.contains(&peer) {
                return Err(stranger());
            }
            let ours = greeting(self.public(), &*self.entropy);
            stream.write_all(&ours).await?;
            stream.write_all(&self.sign(ACCEPTS, &theirs, &ours)).await?;
            let mut proof = [0; 64];
            stream.read_exact(&mut proof).await?;
            check(DIALS, peer, &theirs, &ours, proof)?;
            Ok((self.overheard(stream, peer, Side::Accepted), peer))
        })
    }
}
