//! What `snow` computes with: X25519 that refuses points of low order, a cipher that wipes its key, SHA-256, and
//! the caller's entropy in place of a generator.

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use sha2::{Digest, Sha256};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Bytes of the tag behind each encrypted text.
pub(super) const TAG: usize = 16;

/// Gives `snow` the primitives of `Noise_XX_25519_ChaChaPoly_SHA256`, and `ephemeral` as the only random number.
pub(super) struct Resolver {
    pub(super) ephemeral: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::new(&[0; 32])) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(HashSha256(Sha256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(None)) as Box<dyn Cipher>)
    }
}

/// A generator that knows one number and fails when asked for another: the ephemeral key cannot repeat.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        dest.get_mut(..).filter(|dest| dest.len() == bytes.len()).ok_or(Error::Rng)?.copy_from_slice(&*bytes);
        Ok(())
    }
}

struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    fn new(secret: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*secret);
        let public = PublicKey::from(&secret);
        Self { secret, public }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(privkey);
        *self = Self::new(&secret);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *secret)?;
        *self = Self::new(&secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// Refuses an all-zero result, as Go's `curve25519.X25519` does for go-libp2p (RFC 7748, section 6.1).
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (theirs, _) = pubkey.split_first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

/// Without a key until `snow` sets one, which it does before the first use.
struct ChaChaPoly(Option<ChaCha20Poly1305>);

impl ChaChaPoly {
    fn keyed(&self) -> &ChaCha20Poly1305 {
        self.0.as_ref().expect("snow sets a cipher's key before it uses the cipher")
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Some(ChaCha20Poly1305::new(Key::from_slice(key)));
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let tag = self
            .keyed()
            .encrypt_in_place_detached(&nonce(counter), authtext, text)
            .expect("a Noise message is shorter than ChaCha20-Poly1305's limit of 256 GiB");
        rest[..TAG].copy_from_slice(&tag);
        plaintext.len() + TAG
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (sealed, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let text = out.get_mut(..sealed.len()).ok_or(Error::Decrypt)?;
        text.copy_from_slice(sealed);
        self.keyed()
            .decrypt_in_place_detached(&nonce(counter), authtext, text, Tag::from_slice(tag))
            .map_err(|_| Error::Decrypt)?;
        Ok(sealed.len())
    }
}

struct HashSha256(Sha256);

impl Hash for HashSha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

/// Four zero bytes, then the counter, little-endian (Noise specification, section 12.3).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_ephemeral_key_once() {
        let resolver = Resolver { ephemeral: Zeroizing::new([9; 32]) };
        let mut rng = resolver.resolve_rng().unwrap();
        let mut bytes = [0; 32];
        rng.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [9; 32]);
        assert_eq!(rng.try_fill_bytes(&mut bytes), Err(Error::Rng));
    }

    #[test]
    fn refuses_points_of_low_order() {
        let ours = X25519::new(&[3; 32]);
        let mut out = [0; 32];
        for first in [0, 1] {
            let mut low = [0; 32];
            low[0] = first;
            assert_eq!(ours.dh(&low, &mut out), Err(Error::Dh));
        }
        assert!(ours.dh(X25519::new(&[4; 32]).pubkey(), &mut out).is_ok());
    }
}
