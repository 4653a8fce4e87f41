//! What goes through the pipes of a worker: a length of four bytes, then a message.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{KeyName, MAX_MESSAGE, Settings};
use crate::backend::device::{DeviceError, Reply, Request};
use crate::pubkey::PublicKey;

/// The longest message, with its head.
pub(super) const MAX_FRAME: usize = MAX_MESSAGE + 4096;

/// The first message to a worker.
#[derive(Serialize, Deserialize)]
struct Hello {
    module: std::path::PathBuf,
    token_label: String,
    pin: String,
    keys: Vec<(Option<String>, Option<Vec<u8>>)>,
}

impl Drop for Hello {
    fn drop(&mut self) {
        self.pin.zeroize();
    }
}

pub(super) fn hello(settings: &Settings) -> Zeroizing<Vec<u8>> {
    let hello = Hello {
        module: settings.module.clone(),
        token_label: settings.token_label.clone(),
        pin: settings.pin.expose_secret().to_owned(),
        keys: settings.keys.iter().map(|key| (key.label.clone(), key.id.clone())).collect(),
    };
    // Text and bytes always have a JSON form, but for paths that are no Unicode, which the configuration cannot hold.
    let json = Zeroizing::new(serde_json::to_vec(&hello).unwrap_or_default());
    Zeroizing::new(frame(&json))
}

pub(super) fn read_hello(body: &[u8]) -> Option<Settings> {
    let hello: Hello = serde_json::from_slice(body).ok()?;
    Some(Settings {
        module: hello.module.clone(),
        token_label: hello.token_label.clone(),
        pin: hello.pin.as_str().into(),
        keys: hello.keys.iter().cloned().map(|(label, id)| KeyName { label, id }).collect(),
        timeout: Duration::ZERO,
    })
}

pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// The length of a message's body, by its head, unless it is absurd.
pub fn body_len(head: [u8; 4]) -> Option<usize> {
    Some(u32::from_le_bytes(head) as usize).filter(|len| *len <= MAX_FRAME)
}

pub(super) fn request(request: &Request) -> Vec<u8> {
    let mut body = Vec::new();
    match request {
        Request::PublicKey(key) => {
            body.push(0);
            body.extend_from_slice(&key.to_le_bytes());
        }
        Request::Sign { key, message } => {
            body.push(1);
            body.extend_from_slice(&key.to_le_bytes());
            body.extend_from_slice(message);
        }
        // A token has no log that we could read.
        Request::LogHasRoom | Request::Log | Request::MarkRead(_) => body.push(2),
    }
    frame(&body)
}

pub(super) fn read_request(body: &[u8]) -> Option<Request> {
    match body {
        [0, low, high] => Some(Request::PublicKey(u16::from_le_bytes([*low, *high]))),
        [1, low, high, message @ ..] => {
            Some(Request::Sign { key: u16::from_le_bytes([*low, *high]), message: message.to_vec() })
        }
        [2] => Some(Request::LogHasRoom),
        _ => None,
    }
}

pub(super) fn reply(reply: &Result<Reply, DeviceError>) -> Vec<u8> {
    let mut body = Vec::new();
    match reply {
        Ok(Reply::PublicKey(key)) => {
            body.push(0);
            body.extend_from_slice(key.as_bytes());
        }
        Ok(Reply::Signature(signature)) => {
            body.push(1);
            body.extend_from_slice(&**signature);
        }
        Ok(Reply::LogHasRoom(room)) => body.extend_from_slice(&[2, u8::from(*room)]),
        Ok(Reply::Log(_) | Reply::Done) => body.extend_from_slice(&[2, 1]),
        Err(DeviceError::WrongPin(why)) => {
            body.push(3);
            body.extend_from_slice(why.as_bytes());
        }
        Err(DeviceError::NoKey { key, reason }) => {
            body.push(4);
            body.extend_from_slice(&key.to_le_bytes());
            body.extend_from_slice(reason.as_bytes());
        }
        Err(DeviceError::Refused(what)) => {
            body.push(5);
            body.extend_from_slice(what.as_bytes());
        }
        Err(other) => {
            body.push(6);
            body.extend_from_slice(other.to_string().as_bytes());
        }
    }
    frame(&body)
}

pub(super) fn read_reply(body: &[u8]) -> Option<Result<Reply, DeviceError>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match body {
        [0, key @ ..] => Ok(Reply::PublicKey(PublicKey::from_bytes(key.try_into().ok()?))),
        [1, signature @ ..] => Ok(Reply::Signature(Box::new(signature.try_into().ok()?))),
        [2, room] => Ok(Reply::LogHasRoom(*room == 1)),
        [3, why @ ..] => Err(DeviceError::WrongPin(text(why))),
        [4, low, high, reason @ ..] => {
            Err(DeviceError::NoKey { key: u16::from_le_bytes([*low, *high]), reason: text(reason) })
        }
        [5, what @ ..] => Err(DeviceError::Refused(text(what))),
        [6, what @ ..] => Err(DeviceError::Lost { reason: text(what), session_spent: false }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(frame: &[u8]) -> &[u8] {
        let head = frame[..4].try_into().unwrap();
        assert_eq!(body_len(head), Some(frame.len() - 4));
        &frame[4..]
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let message = vec![7; 120];
        for asked in [Request::PublicKey(3), Request::Sign { key: 515, message }, Request::LogHasRoom] {
            assert_eq!(read_request(body(&request(&asked))), Some(asked));
        }
        let lost = DeviceError::Lost { reason: "gone".into(), session_spent: false };
        for replied in [
            Ok(Reply::PublicKey(PublicKey::from_bytes([7; 32]))),
            Ok(Reply::Signature(Box::new([9; 64]))),
            Ok(Reply::LogHasRoom(true)),
            Err(DeviceError::WrongPin("the token refuses the PIN".into())),
            Err(DeviceError::NoKey { key: 7, reason: "it is gone".into() }),
            Err(DeviceError::Refused("no".into())),
            Err(lost),
        ] {
            assert_eq!(read_reply(body(&reply(&replied))), Some(replied));
        }
        let settings = Settings {
            module: "/lib/x.so".into(),
            token_label: "val".into(),
            pin: "1234".into(),
            keys: vec![KeyName { label: Some("a".into()), id: Some(vec![1]) }],
            timeout: Duration::ZERO,
        };
        let again = read_hello(body(&hello(&settings))).unwrap();
        assert_eq!((again.pin.expose_secret(), &again.keys), ("1234", &settings.keys));
    }

    #[test]
    fn nonsense_is_no_message() {
        assert_eq!(body_len(u32::MAX.to_le_bytes()), None);
        assert!(read_request(&[9]).is_none() && read_request(&[]).is_none());
        assert!(
            read_reply(&[1, 2, 3]).is_none() && read_reply(&[0; 40]).is_none() && read_reply(&[]).is_none()
        );
        assert!(read_hello(b"{}").is_none());
    }
}
