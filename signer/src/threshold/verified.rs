//! A signature that was verified, and of what: there is no other way to get one.

use std::rc::Rc;

use ed25519_dalek::{Signature, VerifyingKey};

/// A signature that was verified by the strict rule, under which key and of which bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    key: VerifyingKey,
    bytes: Rc<[u8]>,
    signature: [u8; 64],
}

impl Verified {
    /// Verifies a signature. `None` if it is none.
    pub fn new(key: &VerifyingKey, bytes: &[u8], signature: [u8; 64]) -> Option<Self> {
        key.verify_strict(bytes, &Signature::from_bytes(&signature)).ok()?;
        Some(Self { key: *key, bytes: bytes.into(), signature })
    }

    /// The signature, if it was verified under this key as one of these bytes.
    pub fn of(&self, key: &VerifyingKey, bytes: &[u8]) -> Option<[u8; 64]> {
        (self.key == *key && *self.bytes == *bytes).then_some(self.signature)
    }

    /// The signature, for those who verify it themselves.
    pub fn signature(&self) -> [u8; 64] {
        self.signature
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn a_signature_is_given_for_the_bytes_and_the_key_that_it_was_verified_with_alone() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let (public, other) = (key.verifying_key(), SigningKey::from_bytes(&[4; 32]).verifying_key());
        let signature = key.sign(b"a message").to_bytes();
        let verified = Verified::new(&public, b"a message", signature).expect("a signature");
        assert_eq!(verified.of(&public, b"a message"), Some(signature));
        assert_eq!((verified.of(&public, b"another"), verified.of(&other, b"a message")), (None, None));
        assert_eq!(Verified::new(&public, b"another", signature), None);
        assert_eq!(Verified::new(&other, b"a message", signature), None);
    }
}
