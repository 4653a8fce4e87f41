use std::{fmt, sync::Arc};

use snow::StatelessTransportState;

use super::{Framed, PREFIX, crypto::TAG, unframe};

/// The longest message on the wire, in bytes without its length (Noise specification, section 3).
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// The most data one message carries, in bytes. Longer data takes several messages.
pub const MAX_PLAIN: usize = MAX_MESSAGE - TAG;

/// Turns data into Noise messages with their lengths, one direction of a connection.
///
/// A nonce is used once: the counter only grows, and the sealer refuses rather than wrap. The key is wiped when
/// sealer and opener are both dropped.
pub struct Sealer {
    transport: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Sealer {
    pub(super) fn new(transport: Arc<StatelessTransportState>) -> Self {
        Self { transport, nonce: 0 }
    }

    /// Appends to `out` all the messages of `plain`, to be sent in one write. An empty `plain` has none.
    ///
    /// # Errors
    ///
    /// [`SealError::NonceExhausted`] if the counter has too few nonces left; `out` is then as it was.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let messages = plain.len().div_ceil(MAX_PLAIN);
        u64::try_from(messages)
            .ok()
            .and_then(|messages| self.nonce.checked_add(messages))
            .ok_or(SealError::NonceExhausted)?;
        out.reserve(plain.len() + messages * (PREFIX + TAG));
        for data in plain.chunks(MAX_PLAIN) {
            let length = data.len() + TAG;
            out.extend_from_slice(&(length as u16).to_be_bytes());
            let start = out.len();
            out.resize(start + length, 0);
            self.transport
                .write_message(self.nonce, data, &mut out[start..])
                .expect("the buffer fits the message and the nonce is not the last");
            self.nonce += 1;
        }
        Ok(())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// Turns Noise messages back into data, one direction of a connection. The key is wiped when sealer and opener
/// are both dropped.
pub struct Opener {
    transport: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Opener {
    pub(super) fn new(transport: Arc<StatelessTransportState>) -> Self {
        Self { transport, nonce: 0 }
    }

    /// Opens every complete message of `wire`, appends their data to `plain`, and says how many bytes of `wire`
    /// that took. The caller keeps the rest and calls again with more.
    ///
    /// `plain` grows by less than `wire` is long. A message may be without data, as in libp2p.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a message was not sealed by the peer as its next one. `plain` then ends with the data of
    /// the messages before it, and no later one opens: the connection is to be closed.
    pub fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<usize, OpenError> {
        let mut used = 0;
        loop {
            match unframe(&wire[used..]) {
                Framed::Complete(message) => {
                    self.open_message(message, plain)?;
                    used += PREFIX + message.len();
                }
                // Refused now, not when its last byte came: no honest message is shorter than its tag.
                Framed::Partial(length) if length < TAG => return Err(OpenError::TooShort { length }),
                Framed::Partial(_) | Framed::Unknown => return Ok(used),
            }
        }
    }

    fn open_message(&mut self, message: &[u8], plain: &mut Vec<u8>) -> Result<(), OpenError> {
        let length = message.len();
        // A refused message uses its nonce up, so that nothing opens after it.
        let nonce = self.nonce;
        self.nonce = nonce.checked_add(1).ok_or(OpenError::NonceExhausted)?;
        let data = length.checked_sub(TAG).ok_or(OpenError::TooShort { length })?;
        let start = plain.len();
        plain.resize(start + data, 0);
        self.transport.read_message(nonce, message, &mut plain[start..]).map_err(|_| {
            plain.truncate(start);
            OpenError::NotAuthentic
        })?;
        Ok(())
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

/// Data cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The connection has sent as many messages as its nonce counter can count.
    #[error("the connection has used up its 2^64 nonces; open a new one")]
    NonceExhausted,
}

/// The peer sent a message that is not its next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The message does not decrypt: altered, out of order, sent twice, or of another connection.
    #[error("message does not decrypt: it was altered on the way or is not of this connection")]
    NotAuthentic,
    /// The message is shorter than the tag that every message has.
    #[error("message of {length} bytes is shorter than its {TAG} byte tag")]
    TooShort {
        /// The length of the message, in bytes.
        length: usize,
    },
    /// The connection has received as many messages as its nonce counter can count.
    #[error("the connection has used up its 2^64 nonces; open a new one")]
    NonceExhausted,
}

#[cfg(test)]
mod tests {
    use super::{super::handshake::tests::established_pair, *};

    #[test]
    fn never_reuses_a_nonce() {
        let (mut a, mut b) = established_pair();
        (a.sealer.nonce, b.opener.nonce) = (u64::MAX - 1, u64::MAX - 1);
        let (mut wire, mut plain) = (vec![1, 2], Vec::new());
        assert_eq!(a.sealer.seal(&vec![0; MAX_PLAIN + 1], &mut wire), Err(SealError::NonceExhausted));
        assert_eq!(wire, [1, 2], "nothing is sealed of data that cannot be sealed whole");
        wire.clear();
        a.sealer.seal(b"last", &mut wire).unwrap();
        assert_eq!(b.opener.open(&wire, &mut plain), Ok(wire.len()));
        for _ in 0..2 {
            assert_eq!(a.sealer.seal(b"more", &mut wire), Err(SealError::NonceExhausted));
            assert_eq!(b.opener.open(&wire, &mut plain), Err(OpenError::NonceExhausted));
        }
        assert_eq!(plain, b"last");
    }

    #[test]
    fn opens_nothing_after_a_refused_message() {
        let (mut a, mut b) = established_pair();
        let (mut first, mut second, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        a.sealer.seal(b"one", &mut first).unwrap();
        a.sealer.seal(b"two", &mut second).unwrap();
        assert_eq!(b.opener.open(&second, &mut plain), Err(OpenError::NotAuthentic));
        assert_eq!(b.opener.open(&first, &mut plain), Err(OpenError::NotAuthentic));
        assert!(plain.is_empty());
    }

    #[test]
    fn refuses_messages_shorter_than_a_tag() {
        let (_, mut b) = established_pair();
        assert_eq!(b.opener.open(&[0, 0], &mut Vec::new()), Err(OpenError::TooShort { length: 0 }));
        assert_eq!(b.opener.open(&[0, 15], &mut Vec::new()), Err(OpenError::TooShort { length: 15 }));
    }
}
