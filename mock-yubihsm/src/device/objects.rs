//! The objects of a device, and what each may be used for.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::{Digest as _, Sha512};

use super::codes::{DeviceError, Type, algorithm, capability, origin};

/// The bytes of a label.
pub(crate) const LABEL: usize = 40;

/// One object.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) label: [u8; LABEL],
    pub(crate) domains: u16,
    pub(crate) capabilities: u64,
    /// What objects may be given that come into being by this key.
    pub(crate) delegated: u64,
    pub(crate) algorithm: u8,
    pub(crate) origin: u8,
    /// How many objects of this type and number there were before.
    pub(crate) sequence: u8,
    pub(crate) content: Content,
}

#[derive(Clone)]
pub(crate) enum Content {
    Opaque(Vec<u8>),
    /// 16 bytes that encrypt, 16 for MACs.
    Authentication([u8; 32]),
    Ed25519(Ed25519),
    /// An AES key.
    Wrap(Vec<u8>),
}

/// A key as the device keeps it: hashed out of its seed, which is not kept.
#[derive(Clone)]
pub(crate) struct Ed25519([u8; 64]);

impl Ed25519 {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        let mut expanded: [u8; 64] = Sha512::digest(seed).into();
        // RFC 8032 section 5.1.5, step 2.
        expanded[0] &= 248;
        expanded[31] &= 127;
        expanded[31] |= 64;
        Self(expanded)
    }

    /// The 96 bytes of a wrapped key, as tmkms 0.15 reads them (`commands/softsign/import`): the scalar with its highest byte
    /// first, the prefix, the public key.
    pub(crate) fn from_wrapped(bytes: &[u8; 96]) -> Self {
        let mut expanded = [0; 64];
        expanded.copy_from_slice(&bytes[..64]);
        expanded[..32].reverse();
        Self(expanded)
    }

    /// The same 96 bytes.
    pub(crate) fn to_wrapped(&self) -> Vec<u8> {
        let mut out = self.0.to_vec();
        out[..32].reverse();
        out.extend(self.public_key());
        out
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        VerifyingKey::from(&self.secret()).to_bytes()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let secret = self.secret();
        raw_sign::<Sha512>(&secret, message, &VerifyingKey::from(&secret)).to_bytes()
    }

    fn secret(&self) -> ExpandedSecretKey {
        ExpandedSecretKey::from_bytes(&self.0)
    }
}

impl Content {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Opaque(bytes) => bytes.len(),
            Self::Authentication(_) => 32,
            Self::Ed25519(_) => 32,
            // assume: with the eight bytes that the device adds.
            Self::Wrap(key) => key.len() + 8,
        }
    }
}

/// All objects by type and number. It outlives the power, and how often a number was used outlives the object.
#[derive(Default)]
pub(crate) struct Objects {
    objects: BTreeMap<(Type, u16), Object>,
    used: BTreeMap<(Type, u16), u8>,
}

impl Objects {
    /// As after a factory reset: the one authentication key 1, which may do everything.
    pub(crate) fn factory(key: [u8; 32]) -> Self {
        let mut label = [0; LABEL];
        let text = b"DEFAULT AUTHKEY CHANGE THIS ASAP";
        label[..text.len()].copy_from_slice(text);
        let object = Object {
            label,
            domains: u16::MAX,
            capabilities: u64::MAX,
            delegated: u64::MAX,
            algorithm: algorithm::AES128_YUBICO_AUTHENTICATION,
            origin: origin::IMPORTED,
            sequence: 0,
            content: Content::Authentication(key),
        };
        Self { objects: BTreeMap::from([((Type::AuthenticationKey, 1), object)]), used: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, kind: Type, id: u16, mut object: Object) -> Result<(), DeviceError> {
        if self.objects.contains_key(&(kind, id)) {
            return Err(DeviceError::ObjectExists);
        }
        let next = self.used.get(&(kind, id)).map_or(0, |used| used.wrapping_add(1));
        self.used.insert((kind, id), next);
        object.sequence = next;
        self.objects.insert((kind, id), object);
        Ok(())
    }

    /// assume: an object outside of the asker's domains is answered as one that is not there.
    pub(crate) fn get(&self, kind: Type, id: u16, domains: u16) -> Result<&Object, DeviceError> {
        let object = self.objects.get(&(kind, id)).filter(|object| object.domains & domains != 0);
        object.ok_or(DeviceError::ObjectNotFound)
    }

    pub(crate) fn remove(&mut self, kind: Type, id: u16) {
        self.objects.remove(&(kind, id));
    }

    /// The objects within these domains.
    pub(crate) fn iter(&self, domains: u16) -> impl Iterator<Item = (&(Type, u16), &Object)> {
        self.objects.iter().filter(move |(_, object)| object.domains & domains != 0)
    }

    pub(crate) fn authentication_key(&self, id: u16) -> Option<(&Object, &[u8; 32])> {
        match self.objects.get(&(Type::AuthenticationKey, id)) {
            Some(object @ Object { content: Content::Authentication(key), .. }) => Some((object, key)),
            _ => None,
        }
    }

    pub(crate) fn is_free(&self, kind: Type, id: u16) -> bool {
        !self.objects.contains_key(&(kind, id))
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }
}

/// What deleting an object of this type takes.
pub(crate) fn delete_capability(kind: Type) -> u64 {
    match kind {
        Type::Opaque => capability::DELETE_OPAQUE,
        Type::AuthenticationKey => capability::DELETE_AUTHENTICATION_KEY,
        Type::AsymmetricKey => capability::DELETE_ASYMMETRIC_KEY,
        Type::WrapKey => capability::DELETE_WRAP_KEY,
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn a_wrapped_key_signs_as_its_seed_does() {
        let seed = [7; 32];
        let key = Ed25519::from_seed(&seed);
        let wrapped: [u8; 96] = key.to_wrapped().try_into().unwrap();
        let again = Ed25519::from_wrapped(&wrapped);
        let reference = SigningKey::from_bytes(&seed);
        assert_eq!(again.public_key(), reference.verifying_key().to_bytes());
        assert_eq!(again.sign(b"vote"), ed25519_dalek::Signer::sign(&reference, b"vote").to_bytes());
    }
}
