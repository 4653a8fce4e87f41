//! Protobuf's wire format, with the semantics of the code that CometBFT's nodes run.
//!
//! gogoproto's generated decoders differ from prost's where it matters to a signer: an absent timestamp is Go's
//! year 1, a repeated oneof arm replaces the earlier one, strings may hold any bytes. So that node and signer
//! never disagree on what was asked, this decoder follows gogoproto (checked by `vectors/*/privval_decode.jsonl`).

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A varint has more than ten bytes.
    #[error("varint has more than ten bytes")]
    VarintTooLong,
    /// A tag has a field number below 1 or a wire type that does not exist.
    #[error("illegal tag `{tag:#x}`")]
    IllegalTag {
        /// The tag as it was read.
        tag: u64,
    },
    /// A known field has the wrong wire type.
    #[error("field {field} of {message} has the wrong wire type")]
    WrongWireType {
        /// The message that holds the field.
        message: &'static str,
        /// The field's number.
        field: i32,
    },
    /// A timestamp that Go's `StdTimeUnmarshal` refuses: out of years 1 to 9999, or nanos outside `[0, 1e9)`.
    #[error("timestamp out of range: {seconds} s, {nanos} ns")]
    TimestampOutOfRange {
        /// Seconds since 1970.
        seconds: i64,
        /// Nanoseconds.
        nanos: i32,
    },
}

/// The fields of one message, in the order of the wire.
pub(crate) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

/// One field as read.
pub(crate) struct Field<'a> {
    message: &'static str,
    pub(crate) number: i32,
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed64([u8; 8]),
    /// 32-bit values and groups: no message here has any, so their content is not kept.
    Other,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    /// The next field, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.rest)?;
        // gogoproto computes `int32(wire >> 3)` and lets unknown bits go.
        let number = (tag >> 3) as i32;
        if number <= 0 {
            return Err(DecodeError::IllegalTag { tag });
        }
        let value = self.value(tag)?;
        Ok(Some(Field { message: self.message, number, value }))
    }

    fn value(&mut self, tag: u64) -> Result<Value<'a>, DecodeError> {
        Ok(match tag & 7 {
            0 => Value::Varint(take_varint(&mut self.rest)?),
            2 => Value::Bytes(take_delimited(&mut self.rest)?),
            1 => Value::Fixed64(take_fixed64(&mut self.rest)?),
            3 | 5 => {
                skip(&mut self.rest, tag)?;
                Value::Other
            }
            _ => return Err(DecodeError::IllegalTag { tag }),
        })
    }
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_wire_type()),
        }
    }

    pub(crate) fn varint(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(v) => Ok(v),
            _ => Err(self.wrong_wire_type()),
        }
    }

    pub(crate) fn sfixed64(&self) -> Result<i64, DecodeError> {
        match self.value {
            Value::Fixed64(bytes) => Ok(i64::from_le_bytes(bytes)),
            _ => Err(self.wrong_wire_type()),
        }
    }

    pub(crate) fn int64(&self) -> Result<i64, DecodeError> {
        self.varint().map(|v| v as i64)
    }

    /// An `int32` or enum: gogoproto keeps the low 32 bits.
    pub(crate) fn int32(&self) -> Result<i32, DecodeError> {
        self.varint().map(|v| v as i32)
    }

    fn wrong_wire_type(&self) -> DecodeError {
        DecodeError::WrongWireType { message: self.message, field: self.number }
    }
}

/// The longest varint, in bytes.
pub(crate) const MAX_VARINT: usize = 10;

/// Reads gogoproto's varint at the front of `bytes` and says how many bytes it took; `None` if more are needed. Ten bytes at
/// most; bits beyond 64 are let go.
pub(crate) fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, DecodeError> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < MAX_VARINT { Ok(None) } else { Err(DecodeError::VarintTooLong) }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let (value, used) = varint(rest)?.ok_or(DecodeError::Truncated)?;
    *rest = &rest[used..];
    Ok(value)
}

fn take_fixed64(rest: &mut &[u8]) -> Result<[u8; 8], DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

fn take_delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = usize::try_from(take_varint(rest)?).map_err(|_| DecodeError::Truncated)?;
    take(rest, len)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(head)
}

/// Skips the value of `tag`, whole groups too, without recursion: a peer cannot exhaust the stack.
fn skip(rest: &mut &[u8], tag: u64) -> Result<(), DecodeError> {
    let mut tag = tag;
    let mut depth = 0u32;
    loop {
        match tag & 7 {
            0 => drop(take_varint(rest)?),
            1 => drop(take(rest, 8)?),
            2 => drop(take_delimited(rest)?),
            3 => depth += 1,
            4 if depth > 0 => depth -= 1,
            5 => drop(take(rest, 4)?),
            _ => return Err(DecodeError::IllegalTag { tag }),
        }
        if depth == 0 {
            return Ok(());
        }
        tag = take_varint(rest)?;
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// A varint field; zero is omitted, as proto3 does.
pub(crate) fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_tag(out, field, 0);
        put_varint(out, value);
    }
}

/// An `int32`, `int64` or enum field; negative numbers take ten bytes.
pub(crate) fn put_int(out: &mut Vec<u8>, field: u32, value: i64) {
    put_uint(out, field, value as u64);
}

/// An `sfixed64` field; zero is omitted.
pub(crate) fn put_sfixed64(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        put_tag(out, field, 1);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A bytes or string field; an empty one is omitted.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes_always(out, field, value);
    }
}

/// A bytes field that is written even when empty (a oneof arm).
pub(crate) fn put_bytes_always(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_tag(out, field, 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// An embedded message, written even when empty.
pub(crate) fn put_nested(out: &mut Vec<u8>, field: u32, body: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, field, 2);
    put_delimited(out, body);
}

/// A varint length and then what `body` writes, without a second buffer.
pub(crate) fn put_delimited(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    body(out);
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    put_varint(&mut prefix, len as u64);
    out.splice(start..=start, prefix);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_deep_groups_without_recursion() {
        let bytes = vec![0x0b; 1 << 20];
        assert!(matches!(Fields::new("test", &bytes).next(), Err(DecodeError::Truncated)));
    }

    #[test]
    fn varints_are_ten_bytes_at_most() {
        let mut ten: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(take_varint(&mut ten), Ok(u64::MAX));
        assert_eq!(varint(&[0xff; 11]), Err(DecodeError::VarintTooLong));
        assert_eq!(varint(&[0x80; 10]), Err(DecodeError::VarintTooLong));
        assert_eq!(varint(&[0x80; 9]), Ok(None));
        assert_eq!(varint(&[0xac, 0x02, 0xff]), Ok(Some((300, 2))));
    }

    #[test]
    fn writes_long_nested_messages_with_a_long_prefix() {
        let mut out = Vec::new();
        put_nested(&mut out, 1, |out| put_bytes(out, 2, &[7; 300]));
        let mut fields = Fields::new("test", &out);
        let field = fields.next().expect("decodes").expect("has a field");
        assert_eq!(field.bytes().expect("is bytes").len(), 303);
        assert!(fields.next().expect("ends").is_none());
    }
}
