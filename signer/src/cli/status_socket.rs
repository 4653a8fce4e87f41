//! The socket on which a running signer says how it stands, and how `monosign check` asks it.
//!
//! Whoever connects is given one line of JSON. It lies beside the admin socket, as long as the signer runs.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::admin_socket::{self, AdminSocket, CannotListen, NoSigner};
use crate::config::Config;
use crate::start::{ChainStands, LinkStands, Standing};

/// How many are answered at once.
const AT_ONCE: usize = 8;
/// How long an answer is waited for: a signer that hangs is one that cannot be asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer.
const MAX_ANSWER: u64 = 1 << 22;

/// What a running signer says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Its process.
    pub(super) process: u32,
    /// Its configuration.
    pub(super) config: PathBuf,
    pub(super) chains: Vec<ChainStands>,
    pub(super) validators: Vec<LinkStands>,
}

fn socket_path(admin: &Path) -> PathBuf {
    admin.with_added_extension("status")
}

/// Answers for this process.
pub(super) fn listen(config: &Config, standing: Rc<Standing>) -> Result<AdminSocket, CannotListen> {
    let file = Rc::new(config.path.canonicalize().unwrap_or_else(|_| config.path.clone()));
    AdminSocket::bind(&socket_path(&config.admin_socket), AT_ONCE, move |stream| {
        answer(stream, Rc::clone(&file), Rc::clone(&standing))
    })
}

async fn answer(
    mut stream: tokio::net::UnixStream,
    config: Rc<PathBuf>,
    standing: Rc<Standing>,
) -> io::Result<()> {
    let answer = Answer {
        process: std::process::id(),
        config: config.as_ref().clone(),
        chains: standing.chains().await,
        validators: standing.links(),
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    match stream.write_all(&line).await {
        // Whoever only wanted to know whether somebody listens is gone.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        other => other,
    }
}

/// Asks the signer that runs with a configuration. `None` if none does; the error is why one that may run
/// could not be asked.
pub(super) fn ask(config: &Config) -> Result<Option<Answer>, String> {
    let path = socket_path(&config.admin_socket);
    // A signer of another user is one that root looks after.
    let secret = config.chains.first().map(|chain| chain.record.as_path());
    let stream = match admin_socket::reach(&path, secret, PATIENCE) {
        Ok(stream) => stream,
        Err(NoSigner::Gone) => return Ok(None),
        Err(NoSigner::Other(why)) => return Err(why),
    };
    let mut text = String::new();
    let at = path.display();
    let read = stream.take(MAX_ANSWER).read_to_string(&mut text);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("the signer at `{at}` gave no answer within {PATIENCE:?}")
        }
        _ => format!("the signer at `{at}`: {error}"),
    })?;
    if text.is_empty() {
        return Err(format!("the signer at `{at}` gave no answer: its log says whom it turned away"));
    }
    serde_json::from_str(&text).map(Some).map_err(|_| format!("what listens at `{at}` is no signer"))
}
