//! The share file: what one cosigner has that nobody else may see. An age file, like every key file.
//!
//! Inside is one line of JSON:
//!
//! ```json
//! {"monosign_share":1,"id":1,"epoch":1,"chain_id":"…","public_key":"…","share":"…","identity":"…","floor":"12345"}
//! ```
//!
//! with base64 values: the share of the key, the seed of the identity on connections to the other cosigners, and the first
//! height that may be signed with it.

use std::fmt;
use std::rc::Rc;

use age::x25519;
use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use monosign_protocol::{ChainId, Height};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::frost::{KeyPackage, SigningShare, VerifyingShare};
use super::group::Group;
use super::rounds::MemberId;
use crate::backend::softsign::key_file::{self, SealError};
use crate::pubkey::PublicKey;

/// One cosigner's secrets.
pub struct Share {
    id: MemberId,
    epoch: u32,
    chain_id: ChainId,
    public_key: PublicKey,
    floor: Height,
    share: SigningShare,
    identity: SigningKey,
}

/// What the shares of one group have in common.
#[derive(Debug, Clone)]
pub struct ShareOf {
    /// The chain.
    pub chain_id: ChainId,
    /// The group's public key.
    pub public_key: PublicKey,
    /// How often the key was shared anew.
    pub epoch: u32,
    /// The first height that may be signed.
    pub floor: Height,
}

/// Why a share file cannot be used. No variant holds any part of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// It does not open, or was changed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It opens, and holds no share.
    #[error("the file was decrypted, but holds no share of monosign\nhint: check that it is the right file")]
    Content,
    /// It is of a later version.
    #[error("the share file is of version {0}, which is not known here\nhint: use a newer monosign")]
    NewerVersion(u32),
    /// It belongs to another group.
    #[error("the share is of another {what} than the group file\nhint: both must come from the same split")]
    OtherGroup {
        /// What differs.
        what: &'static str,
    },
}

impl Share {
    /// A member's share and identity.
    pub(super) fn new(of: &ShareOf, id: MemberId, share: SigningShare, identity: SigningKey) -> Self {
        let ShareOf { chain_id, public_key, epoch, floor } = of.clone();
        Self { id, epoch, chain_id, public_key, floor, share, identity }
    }

    /// Encrypts it to its holder. Returns the content of the share file, in ASCII armor.
    ///
    /// # Errors
    /// [`ShareError::Seal`].
    pub fn seal(&self, recipient: &x25519::Recipient) -> Result<String, ShareError> {
        let content = self.to_json();
        Ok(key_file::encrypt(std::iter::once(recipient as &dyn age::Recipient), content.as_bytes())?)
    }

    /// Decrypts a share file.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn open(content: &[u8], identities: &[x25519::Identity]) -> Result<Self, ShareError> {
        let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
        Self::from_json(&key_file::decrypt_content(content, identities)?)
    }

    /// The cosigner's number.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Which sharing of the key it is of.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The first height that may be signed with it.
    pub fn floor(&self) -> Height {
        self.floor
    }

    /// The identity on connections to other cosigners.
    pub fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// The share in the form that signs, if it belongs to the group.
    ///
    /// # Errors
    /// [`ShareError::OtherGroup`].
    pub fn key_package(&self, group: &Group) -> Result<Rc<KeyPackage>, ShareError> {
        let differs = |what| Err(ShareError::OtherGroup { what });
        if self.chain_id != *group.chain_id() {
            return differs("chain");
        }
        if self.public_key != group.public_key() {
            return differs("public key");
        }
        if self.epoch != group.epoch() {
            return differs("epoch");
        }
        let verifying_share = VerifyingShare::from(self.share);
        let (Some(expected), Some(identifier)) = (group.verifying_share(self.id), self.id.identifier())
        else {
            return differs("size");
        };
        if *expected != verifying_share {
            return differs("polynomial");
        }
        if group.identity(self.id) != Some(self.identity.verifying_key().as_bytes()) {
            return differs("identity");
        }
        let key = *group.package().verifying_key();
        let threshold = group.shape().threshold();
        Ok(Rc::new(KeyPackage::new(identifier, self.share, verifying_share, key, threshold)))
    }

    fn to_json(&self) -> Zeroizing<String> {
        let share = Zeroizing::new(BASE64.encode(&Zeroizing::new(self.share.serialize())));
        let identity = Zeroizing::new(BASE64.encode(self.identity.as_bytes()));
        let (id, epoch, floor) = (self.id.to_string(), self.epoch.to_string(), self.floor.to_string());
        let public_key = self.public_key.to_base64();
        let parts = [
            r#"{"monosign_share":1,"id":"#,
            &id,
            r#","epoch":"#,
            &epoch,
            r#","chain_id":""#,
            self.chain_id.as_str(),
            r#"","public_key":""#,
            &public_key,
            r#"","share":""#,
            &share,
            r#"","identity":""#,
            &identity,
            r#"","floor":""#,
            &floor,
            "\"}\n",
        ];
        // Of full capacity from the start: a growing buffer leaves copies behind that nobody wipes.
        let mut json = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.into_iter().for_each(|part| json.push_str(part));
        json
    }

    fn from_json(json: &[u8]) -> Result<Self, ShareError> {
        // The parser's own text may quote the secret.
        let content: Content<'_> = serde_json::from_slice(json).map_err(|_| ShareError::Content)?;
        if content.monosign_share != 1 {
            return Err(ShareError::NewerVersion(content.monosign_share));
        }
        let share = secret(content.share)?;
        let identity = secret(content.identity)?;
        let public_key = <[u8; 32]>::try_from(
            BASE64.decode(content.public_key.as_bytes()).map_err(|_| ShareError::Content)?,
        );
        Ok(Self {
            id: MemberId(content.id),
            epoch: content.epoch,
            chain_id: content.chain_id.parse().map_err(|_| ShareError::Content)?,
            public_key: PublicKey::from_bytes(public_key.map_err(|_| ShareError::Content)?),
            floor: Height(content.floor.parse().map_err(|_| ShareError::Content)?),
            share: SigningShare::deserialize(&*share).map_err(|_| ShareError::Content)?,
            identity: SigningKey::from_bytes(&identity),
        })
    }
}

/// The content; values borrow from a buffer that is wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<'a> {
    monosign_share: u32,
    id: u16,
    epoch: u32,
    chain_id: &'a str,
    public_key: &'a str,
    share: &'a str,
    identity: &'a str,
    floor: &'a str,
}

fn secret(text: &str) -> Result<Zeroizing<[u8; 32]>, ShareError> {
    let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| ShareError::Content)?);
    <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| ShareError::Content)
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("id", &self.id).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
