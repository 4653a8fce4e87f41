//! `monosign unlock`, and how a running signer answers it.
//!
//! The socket is there only if a key was sealed at start, until the signer ends. The signer begins with one line of JSON that says who it is; a
//! request is one line with the chain id and one with the passphrase, the answer is `ok` or what is wrong. A command that has come to another
//! signer, as where two share a directory, does not tell it the passphrase.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use monosign_protocol::ChainId;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::admin_socket::{self, AdminSocket, CannotListen};
use super::{ChainArgs, Failure};
use crate::backend::softsign::unlock::KeySource;
use crate::backend::softsign::vault::Vault;
use crate::config::{ChainConfig, Config};

/// Arguments of `monosign unlock`.
#[derive(Debug, Args)]
pub(super) struct UnlockArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// Read the passphrase from standard input instead of asking for it.
    #[arg(long)]
    stdin: bool,
}

/// The longest request, and the longest line with which a signer begins.
const MAX_REQUEST: u64 = 4096;
const MAX_GREETING: u64 = 1 << 20;

/// Who a signer is.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    /// Its configuration.
    config: PathBuf,
    /// The chains whose keys were sealed when it started.
    sealed: Vec<String>,
}

pub(super) fn run(args: &UnlockArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = args.chain.config.load()?;
    let chain = args.chain.load()?;
    let Some(source) = chain.key.softsign() else {
        let whose =
            if chain.key.threshold().is_some() { "this is a cosigner" } else { "the key is on a device" };
        return Err(Failure::new(format!("{whose}: there is nothing to unlock")));
    };
    // Before anybody is asked for the passphrase; and again for the request, since typing may take longer than the signer waits.
    meet(&config, &chain, source)?;
    let passphrase = Zeroizing::new(if args.stdin {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        line
    } else {
        rpassword::prompt_password(format!("passphrase of {}: ", source.path.display()))?
    });
    let mut signer = meet(&config, &chain, source)?;
    let request = Zeroizing::new(format!("{}\n{}\n", chain.id, passphrase.trim_end_matches(['\r', '\n'])));
    signer.get_mut().write_all(request.as_bytes())?;
    let mut answer = String::new();
    signer.read_line(&mut answer)?;
    match answer.trim_end() {
        "ok" => Ok(writeln!(out, "chain {} is unlocked", chain.id)?),
        "" => Err(Failure::new("the signer gave no answer\nhint: its log says why")),
        other => Err(Failure::new(other)),
    }
}

/// Connects to the signer that waits for the passphrase of this chain.
fn meet(config: &Config, chain: &ChainConfig, source: &KeySource) -> Result<BufReader<UnixStream>, Failure> {
    let (path, own) = (&config.admin_socket, config.path.display());
    let hint = "a signer listens there while a key is sealed: `monosign start` says in its log where";
    let stream = admin_socket::connect(path, Some(&source.path), hint)?;
    let mut signer = BufReader::new(stream);
    let mut line = String::new();
    let read = (&mut signer).take(MAX_GREETING).read_line(&mut line);
    let greeting: Option<Greeting> = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(greeting) = greeting else {
        return Err(Failure::new(format!(
            "what listens on `{}` is no signer that waits for a passphrase: nothing was sent\n\
             hint: its log says whom it turned away; otherwise set `admin_socket` in `{own}` to another path",
            path.display()
        )));
    };
    if greeting.sealed.iter().any(|id| *id == chain.id.as_str()) {
        return Ok(signer);
    }
    let (id, running) = (&chain.id, greeting.config.display());
    let is_ours = config.path.canonicalize().is_ok_and(|path| path == greeting.config);
    Err(Failure::new(match is_ours {
        true => format!(
            "the key of chain `{id}` was not sealed when the signer started: nothing was sent\n\
             hint: its log says whether the chain is served"
        ),
        false => format!(
            "the signer that listens on `{}` is that of `{running}`, and has no sealed key of chain `{id}`: nothing was sent\n\
             hint: set `admin_socket` in `{own}` to a path of its own, and start its signer anew or send it SIGHUP",
            path.display()
        ),
    }))
}

/// Waits for the passphrases of sealed keys, one after the other: each takes half a second and 256 MiB to try.
pub(super) fn listen(
    config: &Config,
    sealed: Vec<(ChainId, Rc<Vault>)>,
) -> Result<AdminSocket, CannotListen> {
    let greeting = Greeting {
        config: config.path.canonicalize().unwrap_or_else(|_| config.path.clone()),
        sealed: sealed.iter().map(|(id, _)| id.to_string()).collect(),
    };
    // No path that is no text, so it can always be written.
    let greeting = Rc::new(serde_json::to_string(&greeting).unwrap_or_default() + "\n");
    let sealed = Rc::new(sealed);
    let socket = AdminSocket::bind(&config.admin_socket, 1, move |stream| {
        answer(stream, Rc::clone(&greeting), Rc::clone(&sealed))
    })?;
    tracing::warn!("waiting for `monosign unlock` on {}", config.admin_socket.display());
    Ok(socket)
}

async fn answer(
    mut stream: tokio::net::UnixStream,
    greeting: Rc<String>,
    sealed: Rc<Vec<(ChainId, Rc<Vault>)>>,
) -> io::Result<()> {
    let (read, mut write) = stream.split();
    write.write_all(greeting.as_bytes()).await?;
    let mut lines = tokio::io::BufReader::new(read.take(MAX_REQUEST));
    let (mut chain, mut passphrase) = (String::new(), Zeroizing::new(String::new()));
    let asked = async {
        lines.read_line(&mut chain).await?;
        lines.read_line(&mut passphrase).await
    };
    if admin_socket::heard(asked).await? == 0 && chain.is_empty() {
        // It only looked who we are.
        return Ok(());
    }
    let passphrase = SecretString::from(passphrase.trim_end_matches('\n'));
    let answer = match unlock(chain.trim_end(), passphrase, &sealed).await {
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
