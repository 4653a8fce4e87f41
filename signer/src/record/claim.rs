//! One process of a host for one chain and key.
//!
//! The lock of a record is on its file, and goes where the file goes: a copy has none. So whoever opens a record also claims a name
//! that follows from chain and public key alone. Cosigners of one group have the same of both, and may share a host: the name of each
//! has its identity on connections too, which a copy of it has as well.
//!
//! What is not seen: other hosts and other network namespaces (see `seams/host_claim.rs`), a cosigner that was repaired beside the one
//! that was lost, and a whole key that starts beside a cosigner. (A cosigner does not start beside the whole key.)

use std::any::Any;
use std::io;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::Header;
use crate::seams::{Claim, Disk, Holder};

/// Who uses a record: the whole key, or the cosigner with this identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct User(pub(super) Option<[u8; 32]>);

impl User {
    /// Claims the host's name.
    pub(super) async fn claim(
        self,
        disk: &dyn Disk,
        header: &Header,
    ) -> io::Result<Result<Box<dyn Any>, Holder>> {
        let ours = match disk.claim(&self.name(header)).await? {
            Claim::Ours(ours) => ours,
            Claim::Others(holder) => return Ok(Err(holder)),
        };
        // Claimed before it is looked for, so that of two that start at once one at least sees the other.
        if self.0.is_some()
            && let Some(holder) = disk.holder(&Self(None).name(header)).await?
        {
            return Ok(Err(holder));
        }
        Ok(Ok(ours))
    }

    /// Who has claimed it.
    pub(super) async fn holder(self, disk: &dyn Disk, header: &Header) -> io::Result<Option<Holder>> {
        disk.holder(&self.name(header)).await
    }

    fn name(self, header: &Header) -> String {
        let chain_id = header.chain_id.as_str().as_bytes();
        let mut hash = Sha256::new_with_prefix(b"monosign: one process for a chain and key\0");
        hash.update([chain_id.len() as u8]);
        hash.update(chain_id);
        hash.update(header.public_key);
        hash.update(self.0.as_ref().map_or(&[][..], |identity| &identity[..]));
        format!("monosign-{}", HEXLOWER.encode(&hash.finalize()))
    }
}
