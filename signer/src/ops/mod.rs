//! What the signer does on its host: files, permissions.

pub mod private_file;
