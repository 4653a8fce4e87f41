//! Dialing, handshakes, frames and messages, with a place for each fault.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use mock_validator::conform::Stream as _;
use mock_validator::conform::by_hand::{self, Ephemeral, FRAME_SIZE, HELLO_SIZE, Keys};
use monosign_protocol::frame::{self, Frame};
use monosign_protocol::message::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::Fault;
use super::rules::{Rules, Trouble, refused_vote};
use super::street::{Pipe, Place};

/// One running process of a signer.
pub struct Running {
    pub fault: Option<Fault>,
    pub rules: RefCell<Rules>,
    pub is_dead: Cell<bool>,
    pub handshakes: Cell<u64>,
    /// How many connections there were.
    pub connections: Cell<u64>,
    pub hang_up_all: tokio::sync::Notify,
}

/// Why a session ended.
enum End {
    Closed,
    Reset,
    Silent,
    Broke,
    Died,
}

impl Running {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Serves one validator until the process is killed.
    pub async fn serve(self: Rc<Self>, place: Place) {
        let (mut refused, mut kept) = (0, Vec::new());
        while !self.is_dead.get() {
            let Some(mut pipe) = place.dial() else {
                refused += 1;
                if (self.has(Fault::GivesUpOnRefusedPort) && refused == 20)
                    || self.has(Fault::NewSocketNotDialed)
                {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            refused = 0;
            let end = self.session(&mut pipe).await;
            if self.has(Fault::StaysOnCleanEnd) && matches!(end, End::Closed) {
                return;
            }
            match self.fault {
                Some(Fault::SlowAfterReset) => {
                    drop(pipe);
                    sleep(Duration::from_secs(4)).await;
                }
                Some(Fault::HalfASecondToComeBack) => {
                    drop(pipe);
                    sleep(Duration::from_millis(500)).await;
                }
                Some(Fault::LeaksSockets) => kept.push(pipe),
                _ => {
                    drop(pipe);
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn session(&self, pipe: &mut Pipe) -> End {
        let mut wire = Vec::new();
        let patience = Duration::from_secs(if self.has(Fault::DiesInTheBacklog) { 1 } else { 8 });
        let shaken = timeout(patience, self.shake_hands(pipe, &mut wire)).await;
        let keys = match shaken {
            Ok(Ok(keys)) => keys,
            Ok(Err(end)) => {
                self.is_dead.set(matches!(end, End::Died));
                return end;
            }
            Err(_) => {
                self.is_dead.set(self.has(Fault::DiesInTheBacklog));
                return End::Silent;
            }
        };
        let number = self.connections.get() + 1;
        self.connections.set(number);
        let session = Session { running: self, number, keys, wire, plain: Vec::new(), pipe };
        let end = tokio::select! {
            biased;
            () = self.hang_up_all.notified(), if self.has(Fault::OneEndsBoth) => End::Closed,
            end = session.run() => end,
        };
        if self.has(Fault::OneEndsBoth) {
            self.hang_up_all.notify_waiters();
        }
        if matches!(end, End::Died) {
            self.is_dead.set(true);
        }
        end
    }

    async fn shake_hands(&self, pipe: &mut Pipe, wire: &mut Vec<u8>) -> Result<Keys, End> {
        let number = if self.has(Fault::ReusesEphemeralKey) { 0 } else { self.handshakes.get() + 1 };
        self.handshakes.set(number);
        let mut secret = [3; 32];
        // Not in the first byte, whose lowest bits X25519 does not read.
        secret[8..16].copy_from_slice(&number.to_le_bytes());
        let ephemeral = Ephemeral::new(secret);
        pipe.write_all(&ephemeral.hello()).await.map_err(|_| End::Closed)?;
        let dies = self.has(Fault::DiesWhenHandshakeIsClosed);
        let hello =
            self.take(pipe, wire, HELLO_SIZE).await.map_err(|end| if dies { End::Died } else { end })?;
        let theirs = match by_hand::key_of(&hello) {
            Some(key) => key,
            None if self.has(Fault::ReadsAnyHello) => hello[3..].try_into().expect("32 bytes"),
            None => return Err(End::Broke),
        };
        let mut keys = ephemeral.agree(&theirs);
        if !keys.is_contributory && !self.has(Fault::TakesLowOrderPoints) {
            return Err(End::Broke);
        }
        let identity = SigningKey::from_bytes(&[11; 32]);
        let proof = keys.proof(&identity);
        let sealed = keys.seal(&proof);
        pipe.write_all(&sealed).await.map_err(|_| End::Closed)?;
        let is_reflected = hello == ephemeral.hello();
        let frame = self.take(pipe, wire, FRAME_SIZE).await?;
        if is_reflected && self.has(Fault::TalksWithItself) {
            return Ok(keys);
        }
        let opened = keys.open(&frame);
        if opened.is_none() && self.has(Fault::TakesAlteredProof) {
            keys.received += 1;
        } else if !self.believes(&opened.ok_or(End::Broke)?, &keys) {
            return Err(End::Broke);
        }
        if self.has(Fault::DropsBehindHandshake) {
            // What came in the same packet.
            yield_now().await;
            wire.clear();
        }
        Ok(keys)
    }

    fn believes(&self, proof: &[u8], keys: &Keys) -> bool {
        match self.fault {
            Some(Fault::TakesWrongSignature) if proof[3] == 0x0a && proof[37] != 1 => true,
            Some(Fault::TakesAnyIdentityType) if proof[3] != 0x0a => true,
            Some(Fault::TakesLowOrderIdentity) if proof[3] == 0x0a => {
                use ed25519_dalek::Verifier as _;
                let key =
                    VerifyingKey::from_bytes(proof[5..37].try_into().expect("32 bytes")).expect("a point");
                let signature = Signature::from_slice(&proof[39..103]).expect("64 bytes");
                key.verify(&keys.challenge, &signature).is_ok()
            }
            _ => by_hand::proven(proof, &keys.challenge).is_some(),
        }
    }

    /// Exactly so many bytes of the stream.
    async fn take(&self, pipe: &mut Pipe, wire: &mut Vec<u8>, bytes: usize) -> Result<Vec<u8>, End> {
        while wire.len() < bytes {
            let mut chunk = [0; 8192];
            match pipe.read(&mut chunk).await {
                Ok(0) => return Err(End::Closed),
                Err(_) => return Err(End::Reset),
                Ok(n) => wire.extend_from_slice(&chunk[..n]),
            }
            if wire.len() < bytes && self.has(Fault::NeedsWholeHandshake) {
                return Err(End::Broke);
            }
        }
        Ok(wire.drain(..bytes).collect())
    }
}

struct Session<'a> {
    running: &'a Running,
    number: u64,
    keys: Keys,
    wire: Vec<u8>,
    plain: Vec<u8>,
    pipe: &'a mut Pipe,
}

impl Session<'_> {
    fn has(&self, fault: Fault) -> bool {
        self.running.fault == Some(fault)
    }

    async fn run(mut self) -> End {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        while self.wire.len() >= FRAME_SIZE {
            let frame: Vec<_> = self.wire.drain(..FRAME_SIZE).collect();
            self.open(&frame).await?;
        }
        self.answer_all().await?;
        let mut chunk = vec![0; 64 * 1024];
        let patience = match self.running.fault {
            Some(Fault::ImpatientWhenIdle) => Duration::from_millis(3500),
            Some(Fault::NeverLeavesSilence) => Duration::from_secs(100_000),
            Some(Fault::HurriesSlowValidators) if !self.plain.is_empty() => Duration::from_millis(100),
            _ => Duration::from_secs(5),
        };
        match timeout(patience, self.pipe.read(&mut chunk)).await {
            Err(_) => Err(End::Silent),
            Ok(Ok(0)) => Err(self.half(End::Closed)),
            Ok(Err(_)) => Err(self.half(End::Reset)),
            Ok(Ok(n)) => {
                self.wire.extend_from_slice(&chunk[..n]);
                if self.has(Fault::NeedsWholeFrames) && self.wire.len() < FRAME_SIZE {
                    return Err(End::Broke);
                }
                Ok(())
            }
        }
    }

    /// What is left of a request when the connection ends.
    fn half(&mut self, end: End) -> End {
        if self.has(Fault::SignsHalfARequest) && self.plain.len() > 40 {
            // The next request will be taken for a conflict with this.
            self.running.rules.borrow_mut().got_out_of_step();
        }
        end
    }

    async fn open(&mut self, frame: &[u8]) -> Result<(), End> {
        let received = self.keys.received;
        let mut opened = self.keys.open_whole(frame);
        if opened.is_none() && self.has(Fault::TakesFramesTwice) && received > 0 {
            self.keys.received = received - 1;
            opened = self.keys.open_whole(frame);
        }
        if opened.is_none() && self.has(Fault::TakesFramesAhead) {
            self.keys.received = received + 1;
            opened = self.keys.open_whole(frame);
        }
        let Some((length, data)) = opened else {
            let elsewhere = [received - 1, received + 1].into_iter().any(|place| {
                self.keys.received = place;
                self.keys.open_whole(frame).is_some()
            });
            self.keys.received = received;
            return match self.running.fault {
                Some(Fault::AnswersAlteredFrames) if !elsewhere => {
                    self.send(&Message::PingResponse).await?;
                    Err(End::Broke)
                }
                Some(Fault::KeepsConnectionAfterAlteredFrame) => Ok(()),
                _ => Err(End::Broke),
            };
        };
        let length = length as usize;
        if length > 1024 && !self.has(Fault::TakesLongFrames) {
            return Err(End::Broke);
        }
        if length == 0 && self.has(Fault::ClosesOnEmptyFrame) {
            return Err(End::Broke);
        }
        let (data, padding) = data.split_at(length.min(1024));
        if self.has(Fault::ReadsPadding) && padding.iter().any(|byte| *byte != 0) {
            return Err(End::Broke);
        }
        self.plain.extend_from_slice(data);
        if self.has(Fault::TakesLongFrames) && length > 1024 {
            self.plain.truncate(3);
        }
        Ok(())
    }

    async fn answer_all(&mut self) -> Result<(), End> {
        loop {
            let (start, end) = match frame::find(&self.plain, 2 * 1024 * 1024) {
                Ok(Frame::Complete { start, end }) => (start, end),
                Ok(Frame::Incomplete) if self.has(Fault::NeedsWholeMessages) && !self.plain.is_empty() => {
                    self.plain.clear();
                    return Ok(());
                }
                Ok(Frame::Incomplete) => return Ok(()),
                Err(frame::FrameError::TooLong { .. }) if self.has(Fault::DiesOfLongLength) => {
                    return Err(End::Died);
                }
                Err(frame::FrameError::PrefixTooLong) if self.has(Fault::DiesOfBadLength) => {
                    return Err(End::Died);
                }
                Err(_) => return Err(End::Broke),
            };
            let body: Vec<_> = self.plain.drain(..end).skip(start).collect();
            if self.has(Fault::OneMessagePerRead) {
                self.plain.clear();
            }
            self.answer(&body).await?;
        }
    }

    async fn answer(&mut self, body: &[u8]) -> Result<(), End> {
        if body.is_empty() && self.has(Fault::DiesOfEmptyMessage) {
            return Err(End::Died);
        }
        if self.has(Fault::RefusesLongRequests) && body.len() > 10_000 {
            return Err(End::Broke);
        }
        let request = match Message::decode(body) {
            Ok(Some(request)) => request,
            Ok(None) if !body.is_empty() && self.has(Fault::DiesOfUnknownMessage) => return Err(End::Died),
            Ok(None) => return self.send_bytes(&[0]).await,
            Err(_) if self.has(Fault::DiesOfMalformedMessage) => return Err(End::Died),
            Err(_) if self.has(Fault::SilentOnMalformed) => return Ok(()),
            Err(_) => {
                if body == [0x1a, 0x05, 0x0a] {
                    self.running.rules.borrow_mut().got_out_of_step();
                }
                return self.send(&refused_vote("malformed")).await;
            }
        };
        self.dawdle(&request).await;
        let stale = self.running.rules.borrow().snapshot();
        let waits = self.has(Fault::ChecksBeforeItWaits);
        if waits {
            sleep(Duration::from_millis(1)).await;
        }
        let answer = {
            let mut rules = self.running.rules.borrow_mut();
            if waits {
                stale(&mut rules);
            }
            rules.connection = self.number;
            rules.answer(&request)
        };
        match answer {
            Ok(answer) => self.send(&answer).await?,
            Err(Trouble::Closes) => return Err(End::Broke),
            Err(Trouble::Dies) => return Err(End::Died),
            Err(Trouble::Refused(why)) => self.send(&refused_vote(why)).await?,
        }
        if self.has(Fault::SavesAfterAnswering) {
            sleep(Duration::from_millis(5)).await;
        }
        self.running.rules.borrow_mut().save_late();
        Ok(())
    }

    async fn dawdle(&self, request: &Message) {
        let signs = !matches!(request, Message::PingRequest | Message::PubKeyRequest(_));
        if self.has(Fault::Slow) && signs {
            sleep(Duration::from_millis(11)).await;
        }
    }

    async fn send(&mut self, answer: &Message) -> Result<(), End> {
        let mut framed = Vec::new();
        frame::encode(answer, &mut framed);
        self.send_bytes(&framed).await
    }

    async fn send_bytes(&mut self, framed: &[u8]) -> Result<(), End> {
        let sealed = self.keys.seal(framed);
        self.pipe.write_all(&sealed).await.map_err(|_| End::Closed)?;
        self.pipe.flush().await.map_err(|_| End::Closed)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // A process that ends resets what it has not read.
        if self.running.is_dead.get() {
            self.pipe.reset_on_drop();
        }
    }
}
