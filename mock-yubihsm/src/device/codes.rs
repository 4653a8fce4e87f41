//! The numbers of the protocol (developers.yubico.com/YubiHSM2: Commands, Concepts).

/// Commands. An answer carries the command's number with the highest bit set.
pub mod command {
    #![allow(missing_docs)]
    pub const ECHO: u8 = 0x01;
    pub const CREATE_SESSION: u8 = 0x03;
    pub const AUTHENTICATE_SESSION: u8 = 0x04;
    pub const SESSION_MESSAGE: u8 = 0x05;
    pub const DEVICE_INFO: u8 = 0x06;
    pub const RESET_DEVICE: u8 = 0x08;
    pub const CLOSE_SESSION: u8 = 0x40;
    pub const STORAGE_INFO: u8 = 0x41;
    pub const PUT_OPAQUE: u8 = 0x42;
    pub const GET_OPAQUE: u8 = 0x43;
    pub const PUT_AUTHENTICATION_KEY: u8 = 0x44;
    pub const PUT_ASYMMETRIC_KEY: u8 = 0x45;
    pub const GENERATE_ASYMMETRIC_KEY: u8 = 0x46;
    pub const LIST_OBJECTS: u8 = 0x48;
    pub const EXPORT_WRAPPED: u8 = 0x4a;
    pub const IMPORT_WRAPPED: u8 = 0x4b;
    pub const PUT_WRAP_KEY: u8 = 0x4c;
    pub const GET_LOG_ENTRIES: u8 = 0x4d;
    pub const GET_OBJECT_INFO: u8 = 0x4e;
    pub const SET_OPTION: u8 = 0x4f;
    pub const GET_OPTION: u8 = 0x50;
    pub const GET_PSEUDO_RANDOM: u8 = 0x51;
    pub const GET_PUBLIC_KEY: u8 = 0x54;
    pub const DELETE_OBJECT: u8 = 0x58;
    pub const SET_LOG_INDEX: u8 = 0x67;
    pub const SIGN_EDDSA: u8 = 0x6a;
    pub const BLINK_DEVICE: u8 = 0x6b;
    pub const ERROR: u8 = 0x7f;
}

/// What keys may do, and what may be done with them.
pub mod capability {
    #![allow(missing_docs)]
    pub const GET_OPAQUE: u64 = 1;
    pub const PUT_OPAQUE: u64 = 1 << 0x01;
    pub const PUT_AUTHENTICATION_KEY: u64 = 1 << 0x02;
    pub const PUT_ASYMMETRIC_KEY: u64 = 1 << 0x03;
    pub const GENERATE_ASYMMETRIC_KEY: u64 = 1 << 0x04;
    pub const SIGN_EDDSA: u64 = 1 << 0x08;
    pub const EXPORT_WRAPPED: u64 = 1 << 0x0c;
    pub const IMPORT_WRAPPED: u64 = 1 << 0x0d;
    pub const PUT_WRAP_KEY: u64 = 1 << 0x0e;
    pub const EXPORTABLE_UNDER_WRAP: u64 = 1 << 0x10;
    pub const SET_OPTION: u64 = 1 << 0x11;
    pub const GET_OPTION: u64 = 1 << 0x12;
    pub const GET_PSEUDO_RANDOM: u64 = 1 << 0x13;
    pub const GET_LOG_ENTRIES: u64 = 1 << 0x18;
    pub const RESET_DEVICE: u64 = 1 << 0x1c;
    pub const DELETE_OPAQUE: u64 = 1 << 0x27;
    pub const DELETE_AUTHENTICATION_KEY: u64 = 1 << 0x28;
    pub const DELETE_ASYMMETRIC_KEY: u64 = 1 << 0x29;
    pub const DELETE_WRAP_KEY: u64 = 1 << 0x2a;
}

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Type {
    Opaque = 1,
    AuthenticationKey = 2,
    AsymmetricKey = 3,
    WrapKey = 4,
}

impl Type {
    pub(crate) fn from_u8(byte: u8) -> Result<Self, DeviceError> {
        match byte {
            1 => Ok(Self::Opaque),
            2 => Ok(Self::AuthenticationKey),
            3 => Ok(Self::AsymmetricKey),
            4 => Ok(Self::WrapKey),
            _ => Err(DeviceError::InvalidData),
        }
    }
}

pub(crate) mod algorithm {
    pub(crate) const OPAQUE_DATA: u8 = 0x1e;
    pub(crate) const AES128_CCM: u8 = 0x1d;
    pub(crate) const AES256_CCM: u8 = 0x2a;
    pub(crate) const AES128_YUBICO_AUTHENTICATION: u8 = 0x26;
    pub(crate) const ED25519: u8 = 0x2e;
}

pub(crate) mod origin {
    pub(crate) const GENERATED: u8 = 0x01;
    pub(crate) const IMPORTED: u8 = 0x02;
    /// Set on top of the others when an object comes in wrapped.
    pub(crate) const WRAPPED: u8 = 0x10;
}

/// The errors that the device answers with, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum DeviceError {
    #[error("invalid command")]
    InvalidCommand = 0x01,
    #[error("invalid data")]
    InvalidData = 0x02,
    #[error("invalid session")]
    InvalidSession = 0x03,
    #[error("authentication failed")]
    AuthenticationFailed = 0x04,
    #[error("sessions full")]
    SessionsFull = 0x05,
    #[error("storage failed")]
    StorageFailed = 0x07,
    #[error("wrong length")]
    WrongLength = 0x08,
    #[error("insufficient permissions")]
    InsufficientPermissions = 0x09,
    #[error("log full")]
    LogFull = 0x0a,
    #[error("object not found")]
    ObjectNotFound = 0x0b,
    #[error("object exists")]
    ObjectExists = 0x11,
}

impl DeviceError {
    /// The error of a number.
    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        let all = [
            Self::InvalidCommand,
            Self::InvalidData,
            Self::InvalidSession,
            Self::AuthenticationFailed,
            Self::SessionsFull,
            Self::StorageFailed,
            Self::WrongLength,
            Self::InsufficientPermissions,
            Self::LogFull,
            Self::ObjectNotFound,
            Self::ObjectExists,
        ];
        all.into_iter().find(|error| *error as u8 == number)
    }
}
