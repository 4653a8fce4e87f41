//! The connections of cosigners: TLS 1.3 with raw public keys (RFC 7250), pinned at both ends.
//!
//! There are no certificates, no authorities and no expiry: each end must prove that it holds one of the identity keys of
//! the group file, and the dialed end the very one that was dialed.

use std::io;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use zeroize::Zeroizing;

use super::transport::{Accepted, Transport};
use crate::seams::{Local, Stream};

/// SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410 section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PKCS #8 of an Ed25519 seed, up to the seed (RFC 8410 section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A cosigner's end of its connections.
#[derive(Clone)]
pub struct Tls {
    identity: Arc<CertifiedKey>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// An end with this identity that lets the holders of these keys in.
    ///
    /// # Errors
    /// [`Error`] if the cryptography cannot be set up; it does not happen with an Ed25519 key.
    pub fn new(identity: &SigningKey, peers: impl Iterator<Item = [u8; 32]>) -> Result<Self, Error> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + 32));
        der.extend_from_slice(&PKCS8);
        der.extend_from_slice(identity.as_bytes());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice()));
        let key = ring::default_provider().key_provider.load_private_key(key.clone_key())?;
        let public = CertificateDer::from(spki(identity.verifying_key().as_bytes()));
        let identity = Arc::new(CertifiedKey::new(vec![public], key));
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Pinned::new(peers)))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&identity))));
        Ok(Self { identity, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Secures a connection that we dialed, if the peer is who we dialed.
    ///
    /// # Errors
    /// The handshake's, or that it is somebody else.
    pub async fn dial(
        &self,
        stream: Box<dyn Stream>,
        peer: &[u8; 32],
    ) -> io::Result<client::TlsStream<Box<dyn Stream>>> {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.identity));
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(std::iter::once(*peer))))
            .with_client_cert_resolver(Arc::new(resolver));
        // A connection is a new one, with new keys: nothing is resumed.
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from("cosigner").map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Secures a connection that was accepted. Returns the identity key of who dialed.
    ///
    /// # Errors
    /// The handshake's, or that it is nobody of the group.
    pub async fn accept(
        &self,
        stream: Box<dyn Stream>,
    ) -> io::Result<(server::TlsStream<Box<dyn Stream>>, [u8; 32])> {
        let stream = self.acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|list| list.first());
        let key = certificate.and_then(|certificate| key_of(certificate));
        let key = key.ok_or_else(|| io::Error::other("the peer has shown no identity key"))?;
        Ok((stream, key))
    }
}

impl Transport for Tls {
    fn dial<'a>(
        &'a self,
        stream: Box<dyn Stream>,
        peer: &'a [u8; 32],
    ) -> Local<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(Tls::dial(self, stream, peer).await?) as Box<dyn Stream>) })
    }

    fn accept(&self, stream: Box<dyn Stream>) -> Local<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, who) = Tls::accept(self, stream).await?;
            Ok((Box::new(stream) as Box<dyn Stream>, who))
        })
    }
}

/// What an error of a connection means to who runs a group.
pub fn explained(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        // The alert of who did not find our key among its own.
        Some(Error::AlertReceived(AlertDescription::UnknownCA)) => {
            "it does not know the identity key of this cosigner yet: give it the group file that this one has, and restart it".into()
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its identity key is not in the group file: if a ceremony has changed it, restart this cosigner with the group file of that \
             ceremony; if not, it is a stranger"
                .into()
        }
        _ => error.to_string(),
    }
}

fn spki(key: &[u8; 32]) -> Vec<u8> {
    [SPKI.as_slice(), key].concat()
}

fn key_of(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI)?.try_into().ok()
}

/// Lets in who proves to hold one of these keys.
#[derive(Debug)]
struct Pinned {
    keys: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(keys: impl Iterator<Item = [u8; 32]>) -> Self {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self { keys: keys.collect(), algorithms }
    }

    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let is_known = key_of(shown).is_some_and(|key| self.keys.contains(&key));
        is_known.then_some(()).ok_or(CertificateError::UnknownIssuer.into())
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

fn only_tls13() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> [u8; 32] {
        key(seed).verifying_key().to_bytes()
    }

    /// Who the accepting end saw and what it read, or the errors of both.
    async fn meet(dialer: u8, dialed: u8, accepts: u8) -> Result<([u8; 32], [u8; 5]), String> {
        let (near, far) = duplex(1 << 16);
        let server = Tls::new(&key(2), std::iter::once(public(accepts))).expect("a server");
        let client = Tls::new(&key(dialer), std::iter::empty()).expect("a client");
        let serve = async move {
            let (mut stream, who) = server.accept(Box::new(far)).await?;
            let mut read = [0; 5];
            stream.read_exact(&mut read).await?;
            io::Result::Ok((who, read))
        };
        let dial = async move {
            let mut stream = client.dial(Box::new(near), &public(dialed)).await?;
            stream.write_all(b"hello").await?;
            stream.flush().await?;
            // Kept open until the other end has read.
            let _ = stream.read(&mut [0; 1]).await;
            io::Result::Ok(())
        };
        let (served, dialed) = tokio::join!(serve, dial);
        dialed.map_err(|e| e.to_string())?;
        served.map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn both_ends_know_each_other_by_their_keys() {
        assert_eq!(meet(1, 2, 1).await, Ok((public(1), *b"hello")));
    }

    #[tokio::test]
    async fn neither_end_speaks_to_a_stranger() {
        assert!(meet(1, 3, 1).await.is_err(), "the dialer expects another");
        assert!(meet(1, 2, 4).await.is_err(), "the dialed lets only another in");
    }

    /// An end that shows a key and holds another.
    fn impostor(shows: u8, holds: u8, peers: &[u8]) -> Tls {
        let honest = Tls::new(&key(holds), peers.iter().map(|seed| public(*seed))).expect("an end");
        let shown = CertificateDer::from(spki(&public(shows)));
        let identity = Arc::new(CertifiedKey::new(vec![shown], Arc::clone(&honest.identity.key)));
        let resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&identity)));
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(Arc::new(Pinned::new(peers.iter().map(|seed| public(*seed)))))
            .with_cert_resolver(resolver);
        Tls { identity, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// What each end says of a connection between them: the one that dials a member, and the one that is dialed.
    async fn ends(dials: Tls, dialed: [u8; 32], accepts: Tls) -> (io::Result<()>, io::Result<[u8; 32]>) {
        let (near, far) = duplex(1 << 16);
        let serve = async move {
            let (mut stream, who) = accepts.accept(Box::new(far)).await?;
            stream.write_all(b"welcome").await?;
            stream.flush().await?;
            Ok(who)
        };
        let dial = async move {
            let mut stream = dials.dial(Box::new(near), &dialed).await?;
            // A client of TLS 1.3 hears only now whether it was let in.
            stream.read_exact(&mut [0; 7]).await?;
            Ok(())
        };
        let (served, dialed) = tokio::join!(serve, dial);
        (dialed, served)
    }

    #[tokio::test]
    async fn who_shows_a_members_key_without_holding_it_is_let_in_by_neither_end() {
        // Both ends are right if they hold what they show, so it is this that is refused below.
        let (dialed, served) = ends(impostor(1, 1, &[2]), public(2), impostor(2, 2, &[1])).await;
        dialed.expect("the one that dials is content");
        assert_eq!(served.expect("the one that is dialed, too"), public(1));
        let server = Tls::new(&key(2), std::iter::once(public(1))).expect("a server");
        let (dialed, served) = ends(impostor(1, 9, &[2]), public(2), server).await;
        let refused = served.expect_err("an impostor that dials");
        assert!(refused.to_string().contains("BadSignature"), "{refused}");
        assert!(dialed.is_err());
        let client = Tls::new(&key(1), std::iter::empty()).expect("a client");
        let (dialed, served) = ends(client, public(2), impostor(2, 9, &[1])).await;
        let refused = dialed.expect_err("an impostor that was dialed");
        assert!(refused.to_string().contains("BadSignature"), "{refused}");
        assert!(served.is_err());
    }

    #[tokio::test]
    async fn who_is_not_known_yet_is_told_what_to_do() {
        let server = Tls::new(&key(2), std::iter::once(public(1))).expect("a server");
        let stranger = Tls::new(&key(4), std::iter::empty()).expect("a client");
        let (dialed, served) = ends(stranger, public(2), server.clone()).await;
        let told = explained(&dialed.expect_err("a stranger"));
        assert!(told.contains("does not know the identity key of this cosigner yet"), "{told}");
        let told = explained(&served.expect_err("a stranger"));
        assert!(told.contains("restart this cosigner"), "{told}");
        let client = Tls::new(&key(1), std::iter::empty()).expect("a client");
        let (dialed, _) = ends(client, public(3), server).await;
        let told = explained(&dialed.expect_err("another than was dialed"));
        assert!(told.contains("not in the group file"), "{told}");
    }
}
