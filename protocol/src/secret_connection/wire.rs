//! The little protobuf that the handshakes need, read as gogoproto reads it: the last occurrence of a field
//! wins and unknown fields are skipped. Stricter in one thing no honest peer does: groups are refused.

/// The longest varint, in bytes.
pub(crate) const MAX_VARINT: usize = 10;

/// The bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fields of one message, in the order of the wire.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// One field as read.
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => Value::Bytes(self.delimited()?),
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok(Some(Field { number, value }))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (value, used) = varint(self.rest)?.ok_or(Malformed)?;
        self.rest = &self.rest[used..];
        Ok(value)
    }

    fn delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn varint(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(Malformed),
        }
    }
}

/// Reads a varint and says how many bytes it took; `None` if more bytes are needed.
pub(crate) fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < MAX_VARINT { Ok(None) } else { Err(Malformed) }
}

/// Appends a bytes field shorter than 128 bytes. Every field of both handshakes is.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    debug_assert!(field < 16 && value.len() < 0x80, "one byte of tag, one byte of length");
    out.push(field << 3 | 2);
    out.push(value.len() as u8);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_ten_bytes_at_most() {
        assert_eq!(varint(&[0x80; 9]), Ok(None));
        assert_eq!(varint(&[0x80; 10]), Err(Malformed));
        assert_eq!(varint(&[0xac, 0x02, 0xff]), Ok(Some((300, 2))));
    }

    #[test]
    fn skips_unknown_fields_and_refuses_groups_and_field_zero() {
        let mut fields = Fields::new(&[0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x18, 5]);
        assert_eq!(fields.next().unwrap().unwrap().number, 1);
        assert_eq!(fields.next().unwrap().unwrap().number, 2);
        assert_eq!(fields.next().unwrap().unwrap().varint(), Ok(5));
        assert!(fields.next().unwrap().is_none());
        assert!(Fields::new(&[0x0b, 0x0c]).next().is_err());
        assert!(Fields::new(&[0x00, 0x01]).next().is_err());
    }
}
