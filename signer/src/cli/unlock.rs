//! `monosign unlock`, and the socket on which a running signer waits for it.
//!
//! The socket exists only if a key was sealed at start, until the signer ends. It is a unix socket of mode 0600; a request is one line with the chain id
//! and one with the passphrase, the answer is `ok` or what is wrong.

use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use monosign_protocol::ChainId;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{ChainArgs, Failure};
use crate::backend::softsign::vault::Vault;

/// Arguments of `monosign unlock`.
#[derive(Debug, Args)]
pub(super) struct UnlockArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// Read the passphrase from standard input instead of asking for it.
    #[arg(long)]
    stdin: bool,
}

/// The longest request, and the time it may take.
const MAX_REQUEST: u64 = 4096;
const REQUEST_TIME: Duration = Duration::from_secs(10);

pub(super) fn run(args: &UnlockArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = args.chain.config.load()?;
    let chain = args.chain.load()?;
    let Some(source) = chain.key.softsign() else {
        let whose =
            if chain.key.threshold().is_some() { "this is a cosigner" } else { "the key is on a device" };
        return Err(Failure::new(format!("{whose}: there is nothing to unlock")));
    };
    let passphrase = Zeroizing::new(if args.stdin {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        line
    } else {
        rpassword::prompt_password(format!("passphrase of {}: ", source.path.display()))?
    });
    let socket = &config.admin_socket;
    let mut stream = UnixStream::connect(socket).map_err(|e| {
        let socket = socket.display();
        Failure::new(format!(
            "cannot reach a signer at `{socket}`: {e}\nhint: it listens there while a key is sealed"
        ))
    })?;
    let request = Zeroizing::new(format!("{}\n{}\n", chain.id, passphrase.trim_end_matches(['\r', '\n'])));
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer.trim_end() {
        "ok" => Ok(writeln!(out, "chain {} is unlocked", chain.id)?),
        other => Err(Failure::new(other)),
    }
}

/// A listening socket; it ends and its file goes when this is dropped.
pub(super) struct AdminSocket {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens on a path that only this user reaches, with a task that serves it.
    pub(super) fn bind<F: Future<Output = ()> + 'static>(
        path: &Path,
        serve: impl FnOnce(UnixListener) -> F,
    ) -> Result<Self, Failure> {
        let at = |e: io::Error| Failure::new(format!("cannot listen on `{}`: {e}", path.display()));
        remove_stale(path).map_err(at)?;
        let listener = UnixListener::bind(path).map_err(at)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(at)?;
        Ok(Self { task: spawn_local(serve(listener)), path: path.into() })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Waits for the passphrases of sealed keys; `None` if no key is sealed.
pub(super) fn listen(path: &Path, sealed: Vec<(ChainId, Rc<Vault>)>) -> Result<Option<AdminSocket>, Failure> {
    if sealed.is_empty() {
        return Ok(None);
    }
    let socket = AdminSocket::bind(path, |listener| serve(listener, sealed))?;
    tracing::warn!("waiting for `monosign unlock` on {}", path.display());
    Ok(Some(socket))
}

/// Removes the socket of a signer that is gone, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::other("something that is no socket is there")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// One request after the other: each takes half a second and 256 MiB to try a passphrase.
async fn serve(listener: UnixListener, sealed: Vec<(ChainId, Rc<Vault>)>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if let Ok(Err(error)) = timeout(REQUEST_TIME, answer(stream, &sealed)).await {
            tracing::warn!("unlock: {error}");
        }
    }
}

async fn answer(mut stream: tokio::net::UnixStream, sealed: &[(ChainId, Rc<Vault>)]) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = tokio::io::BufReader::new(read.take(MAX_REQUEST));
    let (mut chain, mut passphrase) = (String::new(), Zeroizing::new(String::new()));
    lines.read_line(&mut chain).await?;
    lines.read_line(&mut passphrase).await?;
    let passphrase = SecretString::from(passphrase.trim_end_matches('\n'));
    let answer = match unlock(chain.trim_end(), passphrase, sealed).await {
        Ok(()) => "ok\n".into(),
        Err(error) => format!("{}\n", error.replace('\n', "; ")),
    };
    write.write_all(answer.as_bytes()).await
}

async fn unlock(
    chain: &str,
    passphrase: SecretString,
    sealed: &[(ChainId, Rc<Vault>)],
) -> Result<(), String> {
    let (id, vault) = sealed
        .iter()
        .find(|(id, _)| id.as_str() == chain)
        .ok_or_else(|| format!("the key of chain `{chain}` is not sealed, or there is no such chain"))?;
    let Some(key) = vault.sealed_key() else { return Ok(()) };
    let key = spawn_blocking(move || key.unlock(passphrase))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    vault.unseal(key).map_err(|e| e.to_string())?;
    tracing::info!(chain_id = %id, "the key of chain {id} is unlocked");
    Ok(())
}
