//! The child: one token, asked through standard input, answering on standard output.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use super::{Settings, Token, TokenError, wire};
use crate::backend::device::{DeviceError, Driver};

pub use wire::body_len;

/// A worker without its pipes: the body of a message in, an answer out.
pub struct Service<T, O> {
    open: O,
    settings: Option<Settings>,
    token: Option<T>,
}

/// What comes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What is written, head and all. Nothing for the first message, which says which token it is.
    pub frame: Vec<u8>,
    /// The token is lost, or refuses the PIN: the process ends, and a new one is what helps.
    pub ends: bool,
}

impl<T: Driver, O: FnMut(&Settings) -> Result<T, DeviceError>> Service<T, O> {
    /// A worker whose token is opened by `open`, when it is first asked, and not before: what the parent does not wait for is not
    /// tried.
    pub fn new(open: O) -> Self {
        Self { open, settings: None, token: None }
    }

    /// Takes the body of a message.
    ///
    /// # Errors
    /// If it is none.
    pub fn handle(&mut self, body: &[u8]) -> io::Result<Answer> {
        let Some(settings) = &self.settings else {
            self.settings = Some(wire::read_hello(body).ok_or(io::ErrorKind::InvalidData)?);
            return Ok(Answer { frame: Vec::new(), ends: false });
        };
        let request = wire::read_request(body).ok_or(io::ErrorKind::InvalidData)?;
        let opened = match self.token.take() {
            Some(token) => Ok(token),
            None => (self.open)(settings),
        };
        let replied = opened.and_then(|opened| self.token.insert(opened).perform(&request));
        let ends = matches!(replied, Err(DeviceError::Lost { .. } | DeviceError::WrongPin(_)));
        Ok(Answer { frame: wire::reply(&replied), ends })
    }
}

/// Serves until standard input ends, or the token is lost: then a new process is what helps.
///
/// # Errors
/// If a pipe breaks.
pub fn run(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut service = Service::new(open);
    while let Some(body) = read(&mut input)? {
        let answer = service.handle(&body)?;
        output.write_all(&answer.frame)?;
        output.flush()?;
        if answer.ends {
            return Ok(());
        }
    }
    Ok(())
}

fn open(settings: &Settings) -> Result<Token, DeviceError> {
    let Settings { module, token_label, pin, keys, .. } = settings;
    Token::open(module, token_label, pin, keys.clone()).map_err(|error| match error {
        TokenError::Pin(why) => DeviceError::WrongPin(why.into()),
        other => DeviceError::Lost { reason: other.to_string(), session_spent: false },
    })
}

/// The body of the next message, or `None` at the end.
fn read(input: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = body_len(head).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = Zeroizing::new(vec![0; len]);
    input.read_exact(&mut body)?;
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::device::{Reply, Request};
    use crate::pubkey::PublicKey;

    /// A token that has one key, and is lost when it is asked for another.
    struct Fake;

    impl Driver for Fake {
        fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError> {
            match request {
                Request::PublicKey(0) => Ok(Reply::PublicKey(PublicKey::from_bytes([7; 32]))),
                _ => Err(DeviceError::Lost { reason: "gone".into(), session_spent: false }),
            }
        }
    }

    fn settings() -> Settings {
        Settings {
            module: "/lib/x.so".into(),
            token_label: "val".into(),
            pin: "1234".into(),
            keys: Vec::new(),
            timeout: super::super::TIMEOUT,
        }
    }

    #[test]
    fn a_token_is_opened_by_the_first_request_and_the_worker_ends_with_it() {
        let mut opened = 0;
        let mut service = Service::new(|settings: &Settings| {
            assert_eq!(settings.token_label, "val");
            opened += 1;
            Ok(Fake)
        });
        let body = |frame: Vec<u8>| frame[4..].to_vec();
        let hello = wire::hello(&settings());
        assert_eq!(service.handle(&hello[4..]).unwrap(), Answer { frame: Vec::new(), ends: false });
        let asked = body(wire::request(&Request::PublicKey(0)));
        for _ in 0..2 {
            let answer = service.handle(&asked).unwrap();
            assert!(
                !answer.ends && matches!(wire::read_reply(&answer.frame[4..]), Some(Ok(Reply::PublicKey(_))))
            );
        }
        assert!(service.handle(&body(wire::request(&Request::PublicKey(1)))).unwrap().ends);
        assert!(service.handle(&[9]).is_err());
        drop(service);
        assert_eq!(opened, 1);
    }
}
