//! Varint-delimited framing with a bound.
//!
//! Each message is preceded by its length as an unsigned LEB128 varint (CometBFT `libs/protoio`). Frames do not
//! align with the packets or sealed frames that carry them: one may hold several messages or a part of one.

use crate::message::Message;
use crate::wire::put_delimited;

/// The longest message that the signer reads, in bytes: 2 MiB.
///
/// CometBFT's own readers stop at 10 240 bytes up to v0.39, v1.0 and v2.0, and at 1 MiB and a little in v0.40. The
/// bound is on each *reader*, so a signer that reads more can sign 1 MiB vote extensions for all of them.
pub const MAX_MESSAGE_LEN: usize = 2 * 1024 * 1024;

/// Where the first message in a buffer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed.
    Incomplete,
    /// A whole message: its body is `buffer[start..end]`, the next frame starts at `end`.
    Complete {
        /// Where the body starts.
        start: usize,
        /// Where the body ends.
        end: usize,
    },
}

/// Why a stream of frames cannot be read further. The stream is out of step: the connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length prefix does not fit 64 bits.
    #[error("length prefix does not fit 64 bits")]
    PrefixTooLong,
    /// The message is longer than the reader's bound.
    #[error("message of {len} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// The announced length in bytes.
        len: u64,
        /// The bound in bytes.
        max: usize,
    },
    /// The peer speaks tendermint v0.33 or older.
    #[error("the peer speaks amino (tendermint v0.33 or older), which is not supported: v0.34 is the oldest")]
    Amino,
}

/// Finds the first frame of `buffer` without copying; bodies longer than `max` bytes are refused at once.
///
/// # Errors
/// [`FrameError::PrefixTooLong`] and [`FrameError::TooLong`]; the stream cannot be resynchronised after either.
pub fn find(buffer: &[u8], max: usize) -> Result<Frame, FrameError> {
    let mut len = 0u64;
    for (i, byte) in buffer.iter().enumerate() {
        // As Go's binary.ReadUvarint: the tenth byte may only hold one bit.
        if i == 9 && *byte > 1 {
            return Err(FrameError::PrefixTooLong);
        }
        len |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let body = usize::try_from(len).ok().filter(|len| *len <= max);
            let body = body.ok_or(FrameError::TooLong { len, max })?;
            let (start, end) = (i + 1, i + 1 + body);
            return Ok(if end <= buffer.len() { Frame::Complete { start, end } } else { Frame::Incomplete });
        }
    }
    Ok(Frame::Incomplete)
}

/// Appends `message` with its length prefix to `out`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    put_delimited(out, |out| message.encode(out));
}

/// Whether a frame's body starts like an amino message of tendermint v0.33 or older.
///
/// The prefixes are those of go-amino's registered privval types (tendermint v0.33 `privval/codec.go`); read as
/// protobuf they are field numbers far beyond any that privval has.
pub fn is_amino(body: &[u8]) -> bool {
    const PREFIXES: [[u8; 4]; 4] = [
        [0xcb, 0x94, 0xd6, 0x20], // PubKeyRequest
        [0xf3, 0xf4, 0x12, 0x04], // SignVoteRequest
        [0xbd, 0xe4, 0x98, 0xe2], // SignProposalRequest
        [0x1b, 0xad, 0xb6, 0x0d], // PingRequest
    ];
    PREFIXES.iter().any(|prefix| body.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_frames_that_are_split_or_coalesced() {
        let two = [0x02, 0x3a, 0x00, 0x02, 0x42, 0x00];
        assert_eq!(find(&two, 10), Ok(Frame::Complete { start: 1, end: 3 }));
        assert_eq!(find(&two[..2], 10), Ok(Frame::Incomplete));
        assert_eq!(find(&[], 10), Ok(Frame::Incomplete));
        assert_eq!(find(&[0x80], 10), Ok(Frame::Incomplete));
    }

    #[test]
    fn refuses_a_length_over_the_bound_before_the_body_comes() {
        assert_eq!(find(&[0x0b], 10), Err(FrameError::TooLong { len: 11, max: 10 }));
        assert_eq!(find(&[0xff; 10], 10), Err(FrameError::PrefixTooLong));
    }
}
