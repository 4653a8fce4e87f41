//! What the fuzz targets share.

pub mod hostile;
pub mod meter;

use monosign_protocol::frame::{self, Frame, MAX_MESSAGE_LEN};
use monosign_protocol::message::Message;

/// The messages in a stream of frames, up to the first that cannot be delimited; what does not decode is left out.
///
/// Inputs of this form mutate well and the golden vectors are seeds for them as they are.
pub fn messages(mut stream: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Ok(Frame::Complete { start, end }) = frame::find(stream, MAX_MESSAGE_LEN) {
        messages.extend(Message::decode(&stream[start..end]).ok().flatten());
        stream = &stream[end..];
    }
    messages
}

/// Takes `N` bytes from the front of an input; what is missing is zero.
pub fn head<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let mut head = [0; N];
    let len = N.min(input.len());
    head[..len].copy_from_slice(&input[..len]);
    *input = &input[len..];
    head
}
