use std::fmt;

use chacha20poly1305::{
    AeadInPlace, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag, aead::generic_array::typenum::Unsigned,
};

/// The most data one frame carries, in bytes. A longer message takes several frames.
pub const FRAME_DATA: usize = 1024;

/// The size of every frame on the wire, in bytes: `u32` little-endian length of the data, the data, padding to
/// [`FRAME_DATA`], tag.
pub const FRAME_SIZE: usize = PLAIN_SIZE + TAG_SIZE;

const LENGTH_SIZE: usize = 4;
const PLAIN_SIZE: usize = LENGTH_SIZE + FRAME_DATA;
const TAG_SIZE: usize = <ChaCha20Poly1305 as chacha20poly1305::AeadCore>::TagSize::USIZE;

const _: () = assert!(FRAME_SIZE == 1044);

/// Turns messages into frames, one direction of a connection.
///
/// The key is wiped on drop. A nonce is used once: the counter only grows, and the sealer refuses rather than
/// wrap.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    nonces: Nonces,
}

impl Sealer {
    pub(super) fn new(key: &[u8]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(Key::from_slice(key)), nonces: Nonces::default() }
    }

    /// Appends to `out` all the frames of `plain`, to be sent in one write. An empty `plain` has no frame.
    ///
    /// # Errors
    ///
    /// [`SealError::NonceExhausted`] if the counter has too few nonces left; `out` is then as it was.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let frames = plain.len().div_ceil(FRAME_DATA);
        self.nonces.has(frames).ok_or(SealError::NonceExhausted)?;
        out.reserve(frames * FRAME_SIZE);
        for data in plain.chunks(FRAME_DATA) {
            let nonce = self.nonces.take().ok_or(SealError::NonceExhausted)?;
            self.seal_frame(&nonce, data, out);
        }
        Ok(())
    }

    fn seal_frame(&self, nonce: &Nonce, data: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(data);
        out.resize(start + PLAIN_SIZE, 0);
        let tag = self
            .cipher
            .encrypt_in_place_detached(nonce, &[], &mut out[start..])
            .expect("a frame is shorter than ChaCha20-Poly1305's limit of 256 GiB");
        out.extend_from_slice(&tag);
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// Turns frames back into messages, one direction of a connection. The key is wiped on drop.
pub struct Opener {
    cipher: ChaCha20Poly1305,
    nonces: Nonces,
}

impl Opener {
    pub(super) fn new(key: &[u8]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(Key::from_slice(key)), nonces: Nonces::default() }
    }

    /// Opens every complete frame of `wire`, appends their data to `plain`, and says how many bytes of `wire`
    /// that took: a multiple of [`FRAME_SIZE`]. The caller keeps the rest and calls again with more.
    ///
    /// `plain` grows by less than `wire` is long. A frame of length zero is valid and gives nothing, as in Go;
    /// what is in the padding is ignored.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if a frame was not sealed by the peer as its next one. `plain` then ends with the data of
    /// the frames before it, and no later frame opens: the connection is to be closed.
    pub fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<usize, OpenError> {
        let frames = wire.chunks_exact(FRAME_SIZE);
        let used = wire.len() - frames.remainder().len();
        for frame in frames {
            self.open_frame(frame, plain)?;
        }
        Ok(used)
    }

    fn open_frame(&mut self, frame: &[u8], plain: &mut Vec<u8>) -> Result<(), OpenError> {
        // A refused frame uses its nonce up, so that nothing opens after it.
        let nonce = self.nonces.take().ok_or(OpenError::NonceExhausted)?;
        let (sealed, tag) = frame.split_at(PLAIN_SIZE);
        let mut opened = [0u8; PLAIN_SIZE];
        opened.copy_from_slice(sealed);
        self.cipher
            .decrypt_in_place_detached(&nonce, &[], &mut opened, Tag::from_slice(tag))
            .map_err(|_| OpenError::NotAuthentic)?;
        let (&length, data) = opened.split_first_chunk().ok_or(OpenError::NotAuthentic)?;
        let length = u32::from_le_bytes(length);
        let data = usize::try_from(length).ok().and_then(|length| data.get(..length));
        plain.extend_from_slice(data.ok_or(OpenError::DataTooLong { length })?);
        Ok(())
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

/// A message cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The connection has sent as many frames as its nonce counter can count.
    #[error("the connection has used up its 2^64 nonces; open a new one")]
    NonceExhausted,
}

/// The peer sent a frame that is not its next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The frame does not decrypt: altered, out of order, sent twice, or of another connection.
    #[error("frame does not decrypt: it was altered on the way or is not of this connection")]
    NotAuthentic,
    /// The frame says that it holds more data than a frame can.
    #[error("frame claims {length} bytes of data, more than the {FRAME_DATA} it can hold")]
    DataTooLong {
        /// The length that the frame claims, in bytes.
        length: u32,
    },
    /// The connection has received as many frames as its nonce counter can count.
    #[error("the connection has used up its 2^64 nonces; open a new one")]
    NonceExhausted,
}

/// The nonces of one direction: four zero bytes, then a little-endian counter from 0. As in Go the last value,
/// 2^64 - 1, is never used.
#[derive(Default)]
struct Nonces {
    next: u64,
}

impl Nonces {
    /// Whether there are `count` left.
    fn has(&self, count: usize) -> Option<()> {
        u64::try_from(count).ok().and_then(|count| self.next.checked_add(count)).map(|_| ())
    }

    fn take(&mut self) -> Option<Nonce> {
        let counter = self.next;
        self.next = counter.checked_add(1)?;
        let mut nonce = Nonce::default();
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Some(nonce)
    }
}

#[cfg(test)]
impl Sealer {
    /// Seals a frame whose length and padding are the caller's.
    pub(super) fn seal_raw(&mut self, mut plain: Vec<u8>) -> Vec<u8> {
        let nonce = self.nonces.take().unwrap();
        let tag = self.cipher.encrypt_in_place_detached(&nonce, &[], &mut plain).unwrap();
        [&plain[..], &tag].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        (Sealer::new(&[5; 32]), Opener::new(&[5; 32]))
    }

    #[test]
    fn never_reuses_a_nonce() {
        let (mut sealer, mut opener) = pair();
        (sealer.nonces.next, opener.nonces.next) = (u64::MAX - 1, u64::MAX - 1);
        let (mut wire, mut plain) = (vec![1, 2], Vec::new());
        assert_eq!(sealer.seal(&[0; FRAME_DATA + 1], &mut wire), Err(SealError::NonceExhausted));
        assert_eq!(wire, [1, 2], "nothing is sealed of a message that cannot be sealed whole");
        wire.clear();
        sealer.seal(b"last", &mut wire).unwrap();
        assert_eq!(opener.open(&wire, &mut plain), Ok(FRAME_SIZE));
        for _ in 0..2 {
            assert_eq!(sealer.seal(b"more", &mut wire), Err(SealError::NonceExhausted));
            assert_eq!(opener.open(&wire, &mut plain), Err(OpenError::NonceExhausted));
        }
        assert_eq!((wire.len(), plain.as_slice()), (FRAME_SIZE, &b"last"[..]));
    }

    #[test]
    fn opens_nothing_after_a_refused_frame() {
        let (mut sealer, mut opener) = pair();
        let (mut wire, mut plain) = (Vec::new(), Vec::new());
        sealer.seal(b"one", &mut wire).unwrap();
        sealer.seal(b"two", &mut wire).unwrap();
        let second = wire.split_off(FRAME_SIZE);
        assert_eq!(opener.open(&second, &mut plain), Err(OpenError::NotAuthentic));
        assert_eq!(opener.open(&wire, &mut plain), Err(OpenError::NotAuthentic));
        assert!(plain.is_empty());
    }

    #[test]
    fn refuses_a_length_beyond_the_frame_and_takes_length_zero() {
        for (length, expected) in [
            (0, Ok(FRAME_SIZE)),
            (1024, Ok(FRAME_SIZE)),
            (1025, Err(OpenError::DataTooLong { length: 1025 })),
            (u32::MAX, Err(OpenError::DataTooLong { length: u32::MAX })),
        ] {
            let (mut sealer, mut opener) = pair();
            let mut frame = vec![0xaa; PLAIN_SIZE];
            frame[..LENGTH_SIZE].copy_from_slice(&u32::to_le_bytes(length));
            let (frame, mut plain) = (sealer.seal_raw(frame), Vec::new());
            assert_eq!(opener.open(&frame, &mut plain), expected);
            assert_eq!(plain.len(), if expected.is_ok() { length as usize } else { 0 });
        }
    }

    #[test]
    fn allocates_nothing_when_the_buffers_have_room() {
        let (mut sealer, mut opener) = pair();
        let (mut wire, mut plain) = (Vec::with_capacity(3 * FRAME_SIZE), Vec::with_capacity(3 * FRAME_DATA));
        let before = (wire.as_ptr(), plain.as_ptr());
        for _ in 0..10 {
            sealer.seal(&[1; 3 * FRAME_DATA], &mut wire).unwrap();
            opener.open(&wire, &mut plain).unwrap();
            wire.clear();
            plain.clear();
        }
        assert_eq!((wire.as_ptr(), plain.as_ptr()), before);
    }
}
