//! Framing and messages: whatever bytes come, there is a message or an error, in memory bounded by the bytes, and a
//! message says the same when it is written and read again, in each release's dialect too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monosign_fuzz::meter::Meter;
use monosign_protocol::Dialect;
use monosign_protocol::dialect::Recognised;
use monosign_protocol::frame::{self, Frame, MAX_MESSAGE_LEN};
use monosign_protocol::message::Message;

fuzz_target!(|input: &[u8]| {
    check_body(input);
    let mut stream = input;
    while let Some(used) = check_frame(stream) {
        stream = &stream[used..];
    }
});

/// The first frame of a stream: where it ends, if it is whole.
fn check_frame(stream: &[u8]) -> Option<usize> {
    let found = frame::find(stream, MAX_MESSAGE_LEN);
    // A reader that has less of the stream waits, or sees the same.
    let part = frame::find(&stream[..stream.len() / 2], MAX_MESSAGE_LEN);
    assert!(part == Ok(Frame::Incomplete) || part == found);
    let Ok(Frame::Complete { start, end }) = found else { return None };
    assert!(start <= end && end <= stream.len());
    assert!(end - start <= MAX_MESSAGE_LEN && start <= 10);
    check_body(&stream[start..end]);
    Some(end)
}

fn check_body(body: &[u8]) {
    frame::is_amino(body);
    let meter = Meter::new();
    let decoded = Message::decode(body);
    // No decoded value is larger than its bytes; a message alone has less than 1 KiB.
    assert!(meter.allocated() <= 2 * body.len() + 1024, "{} bytes for {}", meter.allocated(), body.len());
    let message = match decoded {
        Err(error) => return drop(error.to_string()),
        Ok(None) => return,
        Ok(Some(message)) => message,
    };
    check_message(&message);
    assert!(!format!("{message:?}").is_empty() && !message.name().is_empty());
    let mut seen = Recognised::default();
    seen.observe(&message);
    assert!(!seen.observe(&message), "the same message shows nothing new");
    for dialect in Dialect::ALL {
        let Some(restricted) = dialect.restrict(message.clone()) else { continue };
        check_message(&restricted);
        assert_eq!(dialect.restrict(restricted.clone()), Some(restricted));
    }
}

fn check_message(message: &Message) {
    let mut wire = vec![0xaa];
    frame::encode(message, &mut wire);
    let wire = &wire[1..];
    let Ok(Frame::Complete { start, end }) = frame::find(wire, usize::MAX) else {
        panic!("our own frame is whole")
    };
    assert_eq!(end, wire.len());
    assert_eq!(Message::decode(&wire[start..end]).as_ref(), Ok(&Some(message.clone())));
}
