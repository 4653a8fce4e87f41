//! The sealed frames of a SecretConnection: each is the next one and whole, or nothing.

use std::time::Duration;

use monosign_protocol::{Step, frame, message::Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::by_hand::{self, Ephemeral, FRAME_SIZE, HELLO_SIZE, Keys};
use super::case::{Case, Failed, Need, Verdict};
use super::{Bench, Stream, source};
use crate::node::Answer;

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        Case::robustness(
            "frame/altered",
            "A frame that was altered on its way is not answered.",
            source::SECRET_FRAME,
            |bench| Box::pin(altered(bench)),
        ),
        Case::robustness(
            "frame/sent-twice",
            "A frame that comes a second time is not answered: each has its own nonce.",
            source::SECRET_FRAME,
            |bench| Box::pin(sent_twice(bench)),
        ),
        Case::robustness(
            "frame/out-of-order",
            "Neither is one that is not the next.",
            source::SECRET_FRAME,
            |bench| Box::pin(out_of_order(bench)),
        ),
        Case::robustness(
            "frame/longer-than-a-frame",
            "A frame that claims to hold more than 1024 bytes is not answered.",
            source::SECRET_FRAME,
            |bench| Box::pin(longer_than_a_frame(bench)),
        ),
        Case::missed_blocks(
            "frame/padding",
            "What is behind the data of a frame means nothing: Go leaves old data there.",
            source::SECRET_FRAME,
            |bench| Box::pin(padding(bench)),
        ),
        Case::missed_blocks(
            "frame/split-on-the-wire",
            "A frame may come in pieces.",
            source::SECRET_FRAME,
            |bench| Box::pin(split_on_the_wire(bench)),
        ),
        Case::advisory(
            "frame/empty",
            "A frame of no data is passed over: what comes behind it is read as it is.",
            source::EMPTY_FRAME,
            |bench| Box::pin(empty(bench)),
        ),
        Case::advisory(
            "frame/closes-on-an-altered-one",
            "The connection is closed after an altered frame: nothing behind it can be trusted.",
            source::SECRET_FRAME,
            |bench| Box::pin(closes(bench)),
        ),
    ];
    cases.into_iter().map(|case| case.needs(&[Need::SecretConnection])).collect()
}

/// A connection of which every byte can be made by hand.
pub(super) struct HandLink {
    pub(super) stream: Box<dyn Stream>,
    pub(super) keys: Keys,
    plain: Vec<u8>,
}

/// What a raw peer got to hear.
pub(super) enum Heard {
    Nothing,
    Closed,
    Bytes,
}

/// Waits so long for what should not come.
const LISTEN: Duration = Duration::from_millis(300);

impl HandLink {
    /// Does an honest handshake.
    pub(super) async fn shake_hands(bench: &mut Bench) -> Result<Self, Failed> {
        let mut link = Self::exchange_keys(bench).await?;
        let proof = link.keys.proof(bench.identity());
        let sealed = link.keys.seal(&proof);
        link.write(&sealed).await?;
        let theirs = link.read_frame(bench.limits.answer).await?;
        match by_hand::proven(&theirs, &link.keys.challenge) {
            Some(_) => Ok(link),
            None => Err(Failed::because("did not prove its identity")),
        }
    }

    /// Exchanges the ephemeral keys and proves nothing yet.
    pub(super) async fn exchange_keys(bench: &mut Bench) -> Result<Self, Failed> {
        let (mut stream, theirs) = accept_hello(bench).await?;
        let ephemeral = Ephemeral::new(bench.random());
        stream.write_all(&ephemeral.hello()).await?;
        Ok(Self { stream, keys: ephemeral.agree(&theirs), plain: Vec::new() })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        Ok(self.stream.write_all(bytes).await?)
    }

    pub(super) async fn read_frame(&mut self, limit: Duration) -> Result<Vec<u8>, Failed> {
        let mut frame = [0; FRAME_SIZE];
        let read = timeout(limit, self.stream.read_exact(&mut frame)).await;
        read.map_err(|_| Failed::Silent { limit })??;
        self.keys.open(&frame).ok_or_else(|| Failed::because("sent a frame that does not open"))
    }

    /// The next message, which fits a frame.
    async fn receive(&mut self, limit: Duration) -> Result<Option<Message>, Failed> {
        loop {
            match frame::find(&self.plain, 10 * 1024) {
                Ok(frame::Frame::Complete { start, end }) => {
                    let message = Message::decode(&self.plain[start..end]);
                    return message.map_err(|error| Failed::because(error.to_string()));
                }
                Ok(frame::Frame::Incomplete) => {}
                Err(error) => return Err(Failed::because(error.to_string())),
            }
            let more = self.read_frame(limit).await?;
            self.plain.extend(more);
        }
    }

    /// What comes now, if anything does.
    pub(super) async fn hears(&mut self) -> Heard {
        hears(&mut *self.stream, LISTEN).await
    }
}

/// Hears what a peer has to say within `limit`.
pub(super) async fn hears(stream: &mut dyn Stream, limit: Duration) -> Heard {
    match timeout(limit, stream.read(&mut [0; 1])).await {
        Err(_) => Heard::Nothing,
        Ok(Ok(0) | Err(_)) => Heard::Closed,
        Ok(Ok(_)) => Heard::Bytes,
    }
}

/// A signer that has said its ephemeral key, and to which nothing was said.
pub(super) async fn accept_hello(bench: &mut Bench) -> Result<(Box<dyn Stream>, [u8; 32]), Failed> {
    let limit = bench.limits.connect;
    for _ in 0..20 {
        let mut stream = bench.accept_raw(limit).await?;
        let mut hello = [0; HELLO_SIZE];
        if let Ok(Ok(_)) = timeout(bench.limits.answer, stream.read_exact(&mut hello)).await
            && let Some(key) = by_hand::key_of(&hello)
        {
            return Ok((stream, key));
        }
        stream.reset_on_drop();
    }
    Err(Failed::NotConnected { limit })
}

fn sealed(link: &mut HandLink, request: &Message) -> Vec<u8> {
    link.keys.seal(&framed(request))
}

fn framed(request: &Message) -> Vec<u8> {
    let mut framed = Vec::new();
    frame::encode(request, &mut framed);
    framed
}

/// Nothing comes, and the signer is there for the next connection.
async fn is_not_answered(bench: &mut Bench, mut link: HandLink) -> Verdict {
    if let Heard::Bytes = link.hears().await {
        return Err(Failed::because("answered it").into());
    }
    link.stream.reset_on_drop();
    drop(link);
    bench.survived().await?;
    Ok(())
}

async fn altered(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let mut frame = sealed(&mut link, &Message::PingRequest);
    frame[1] ^= 1;
    link.write(&frame).await?;
    is_not_answered(bench, link).await
}

async fn sent_twice(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let frame = sealed(&mut link, &Message::PingRequest);
    link.write(&frame).await?;
    link.receive(bench.limits.answer).await?;
    link.write(&frame).await?;
    is_not_answered(bench, link).await
}

async fn out_of_order(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    link.keys.sent += 1;
    let frame = sealed(&mut link, &Message::PingRequest);
    link.write(&frame).await?;
    is_not_answered(bench, link).await
}

async fn longer_than_a_frame(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let frame = link.keys.seal_frame(1025, &framed(&Message::PingRequest), 0);
    link.write(&frame).await?;
    is_not_answered(bench, link).await
}

async fn padding(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let ping = framed(&Message::PingRequest);
    let frame = link.keys.seal_frame(ping.len() as u32, &ping, 0xaa);
    link.write(&frame).await?;
    answers_ping(bench, link).await
}

async fn split_on_the_wire(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    let frame = sealed(&mut link, &request);
    for piece in frame.chunks(200) {
        link.write(piece).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = link.receive(bench.limits.answer).await?;
    link.stream.reset_on_drop();
    match bench.check(&request, answer)? {
        Answer::Signed(_) => Ok(()),
        _ => Err(Failed::because("did not sign").into()),
    }
}

async fn empty(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let nothing = link.keys.seal_frame(0, &[], 0);
    link.write(&nothing).await?;
    let frame = sealed(&mut link, &Message::PingRequest);
    link.write(&frame).await?;
    answers_ping(bench, link).await
}

async fn closes(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::shake_hands(bench).await?;
    let mut frame = sealed(&mut link, &Message::PingRequest);
    frame[FRAME_SIZE - 1] ^= 1;
    link.write(&frame).await?;
    match link.hears().await {
        Heard::Closed => Ok(()),
        Heard::Nothing => Err(Failed::because("kept the connection").into()),
        Heard::Bytes => Err(Failed::because("answered it").into()),
    }
}

async fn answers_ping(bench: &mut Bench, mut link: HandLink) -> Verdict {
    let answer = link.receive(bench.limits.answer).await?;
    link.stream.reset_on_drop();
    match answer {
        Some(_) => Ok(()),
        None => Err(Failed::because("did not answer the ping").into()),
    }
}
