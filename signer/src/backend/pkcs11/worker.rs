//! The child: one token, asked through standard input, answering on standard output.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use super::{Token, TokenError, wire};
use crate::backend::device::{DeviceError, Driver as _};

/// Serves until standard input ends, or the token is lost: then a new process is what helps.
///
/// # Errors
/// If a pipe breaks.
pub fn run(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let Some(hello) = read(&mut input)? else { return Ok(()) };
    let settings = wire::read_hello(&hello).ok_or(io::ErrorKind::InvalidData)?;
    drop(hello);
    // When the parent asks, and not before: what it does not wait for is not tried.
    let mut token: Option<Token> = None;
    while let Some(body) = read(&mut input)? {
        let request = wire::read_request(&body).ok_or(io::ErrorKind::InvalidData)?;
        let opened = match token.take() {
            Some(token) => Ok(token),
            None => {
                Token::open(&settings.module, &settings.token_label, &settings.pin, settings.keys.clone())
                    .map_err(unopened)
            }
        };
        let replied = opened.and_then(|opened| token.insert(opened).perform(&request));
        output.write_all(&wire::reply(&replied))?;
        output.flush()?;
        if matches!(replied, Err(DeviceError::Lost { .. } | DeviceError::WrongPassword)) {
            return Ok(());
        }
    }
    Ok(())
}

fn unopened(error: TokenError) -> DeviceError {
    match error {
        TokenError::Pin(_) => DeviceError::WrongPassword,
        other => DeviceError::Lost { reason: other.to_string(), session_spent: false },
    }
}

/// The body of the next message, or `None` at the end.
fn read(input: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = wire::body_len(head).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = Zeroizing::new(vec![0; len]);
    input.read_exact(&mut body)?;
    Ok(Some(body))
}
