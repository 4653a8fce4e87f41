//! Frames and their fields: a command or error number, a length of two bytes, the data.

use super::codes::{DeviceError, command};

/// The longest frame in either direction, data and all, of any firmware.
pub const MAX_FRAME: usize = 3136;
/// The same before firmware 2.4.0.
pub(crate) const MAX_FRAME_BEFORE: usize = 2048;

pub(crate) fn frame(code: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 + data.len());
    out.push(code);
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
    out
}

pub(crate) fn answer(code: u8, data: &[u8]) -> Vec<u8> {
    frame(code | 0x80, data)
}

pub(crate) fn error(error: DeviceError) -> Vec<u8> {
    frame(command::ERROR, &[error as u8])
}

/// The command and the data of a frame. Whether it is too long for the device is for the device to say.
pub(crate) fn parse(bytes: &[u8]) -> Result<(u8, &[u8]), DeviceError> {
    let [code, high, low, data @ ..] = bytes else { return Err(DeviceError::InvalidData) };
    if usize::from(u16::from_be_bytes([*high, *low])) != data.len() || bytes.len() > MAX_FRAME {
        return Err(DeviceError::WrongLength);
    }
    Ok((*code, data))
}

/// Takes fields off the front of a command's data.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DeviceError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DeviceError::WrongLength)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DeviceError> {
        self.take(N)?.try_into().map_err(|_| DeviceError::WrongLength)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DeviceError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DeviceError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DeviceError> {
        self.array().map(u64::from_be_bytes)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn end(&self) -> Result<(), DeviceError> {
        if self.0.is_empty() { Ok(()) } else { Err(DeviceError::WrongLength) }
    }
}
