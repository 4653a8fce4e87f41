//! Objects that leave a device encrypted, and come into another: AES-CCM with a nonce of 13 bytes and a tag of 16.
//!
//! assume: what is inside. It is the order of fields of the `yubihsm` crate's mock, which mirrors the answer of Get Object
//! Info, and the secret follows it; no document states it.

use aes::{Aes128, Aes256};
use ccm::Ccm;
use ccm::aead::{Aead as _, KeyInit as _};
use ccm::consts::{U13, U16};

use super::codes::{DeviceError, Type, algorithm, origin};
use super::frame::Reader;
use super::objects::{Content, Ed25519, Object};

/// The bytes of a nonce.
pub(crate) const NONCE: usize = 13;

pub(crate) fn seal(key: &[u8], nonce: [u8; NONCE], plain: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let nonce = &nonce.into();
    let sealed = match key.len() {
        16 => Ccm::<Aes128, U16, U13>::new_from_slice(key).map(|ccm| ccm.encrypt(nonce, plain)),
        _ => Ccm::<Aes256, U16, U13>::new_from_slice(key).map(|ccm| ccm.encrypt(nonce, plain)),
    };
    sealed.ok().and_then(Result::ok).ok_or(DeviceError::InvalidData)
}

pub(crate) fn open(key: &[u8], nonce: [u8; NONCE], sealed: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let nonce = &nonce.into();
    let plain = match key.len() {
        16 => Ccm::<Aes128, U16, U13>::new_from_slice(key).map(|ccm| ccm.decrypt(nonce, sealed)),
        _ => Ccm::<Aes256, U16, U13>::new_from_slice(key).map(|ccm| ccm.decrypt(nonce, sealed)),
    };
    plain.ok().and_then(Result::ok).ok_or(DeviceError::InvalidData)
}

/// What is said of an object: the answer of Get Object Info, and the head of what is wrapped.
pub(crate) fn info(kind: Type, id: u16, object: &Object) -> Vec<u8> {
    let mut out = Vec::with_capacity(66);
    out.extend(object.capabilities.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend((object.content.len() as u16).to_be_bytes());
    out.extend(object.domains.to_be_bytes());
    out.extend([kind as u8, object.algorithm, object.sequence, object.origin]);
    out.extend(object.label);
    out.extend(object.delegated.to_be_bytes());
    out
}

/// An object as it is encrypted.
pub(crate) fn serialize(kind: Type, id: u16, object: &Object) -> Vec<u8> {
    let mut out = info(kind, id, object);
    match &object.content {
        Content::Opaque(bytes) | Content::Wrap(bytes) => out.extend(bytes),
        Content::Authentication(key) => out.extend(key),
        Content::Ed25519(key) => out.extend(key.to_wrapped()),
    }
    out
}

/// The object in what was decrypted.
pub(crate) fn deserialize(plain: &[u8]) -> Result<(Type, u16, Object), DeviceError> {
    let mut fields = Reader(plain);
    let capabilities = fields.u64()?;
    let id = fields.u16()?;
    let _length = fields.u16()?;
    let domains = fields.u16()?;
    let kind = Type::from_u8(fields.u8()?)?;
    let algorithm = fields.u8()?;
    let sequence = fields.u8()?;
    let origin = fields.u8()? | origin::WRAPPED;
    let label = fields.array()?;
    let delegated = fields.u64()?;
    let content = content(kind, algorithm, fields.rest())?;
    let object = Object { label, domains, capabilities, delegated, algorithm, origin, sequence, content };
    Ok((kind, id, object))
}

fn content(kind: Type, algorithm: u8, secret: &[u8]) -> Result<Content, DeviceError> {
    let wrong = |_| DeviceError::WrongLength;
    Ok(match (kind, algorithm) {
        (Type::AsymmetricKey, algorithm::ED25519) => {
            Content::Ed25519(Ed25519::from_wrapped(secret.try_into().map_err(wrong)?))
        }
        (Type::AuthenticationKey, _) => Content::Authentication(secret.try_into().map_err(wrong)?),
        (Type::Opaque, _) => Content::Opaque(secret.to_vec()),
        (Type::WrapKey, algorithm::AES128_CCM | algorithm::AES256_CCM) => Content::Wrap(secret.to_vec()),
        _ => return Err(DeviceError::InvalidData),
    })
}
