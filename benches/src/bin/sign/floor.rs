//! What no durable signer can leave out, each part measured on its own.

use std::{
    fs::{File, OpenOptions},
    hint::black_box,
    net::SocketAddr,
    os::unix::fs::FileExt,
};

use anyhow::Context;
use ed25519_dalek::{Signer, SigningKey};
use mock_validator::link::{Address, LinkError, NodeLink, Socket};
use monosign_protocol::message::Message;
use monosign_protocol::sign_bytes;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    client::Client,
    report::{Nanos, nanos, print_row},
    setup::Setup,
};

pub(crate) struct Floor {
    echo: NodeLink<Socket>,
    request: Message,
    file: File,
    page: Vec<u8>,
    next: u64,
    key: SigningKey,
    sign_bytes: Vec<u8>,
    times: Times,
}

struct Times {
    echo: Nanos,
    sync: Nanos,
    sign: Nanos,
    verify: Nanos,
}

/// A record's slot: one page.
const PAGE: usize = 4096;

/// Pages written in turn, as a record with a ring of slots does.
const PAGES: u64 = 64;

impl Floor {
    /// Takes a prevote and its answer from `client` for the sizes, and sets the echo and the file up.
    pub(crate) async fn new(setup: &Setup, client: &mut Client) -> anyhow::Result<Self> {
        let (request, answer) = client.exchange().await?;
        let Message::SignVoteRequest(vote) = &request else { anyhow::bail!("a prevote was expected") };
        let sign_bytes = sign_bytes::vote(
            setup.chain_id.as_str(),
            vote.vote.as_ref().context("a request without a vote")?,
        );
        Ok(Self {
            echo: echo(setup, answer).await?,
            request,
            file: zero_filled(setup)?,
            page: vec![0xa5; PAGE],
            next: 0,
            key: setup.key.clone(),
            sign_bytes,
            times: Times::new(),
        })
    }

    /// Measures each part `count` times.
    pub(crate) async fn rounds(&mut self, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            let begin = Instant::now();
            self.echo.ask(&self.request).await?;
            let echoed = Instant::now();
            self.file.write_all_at(&self.page, self.next % PAGES * PAGE as u64)?;
            self.file.sync_data()?;
            let synced = Instant::now();
            let signature = self.key.sign(black_box(&self.sign_bytes));
            let signed = Instant::now();
            self.key.verifying_key().verify_strict(black_box(&self.sign_bytes), &signature)?;
            let verified = Instant::now();
            self.next += 1;
            self.times.echo.record((echoed - begin).as_nanos() as u64)?;
            self.times.sync.record((synced - echoed).as_nanos() as u64)?;
            self.times.sign.record((signed - synced).as_nanos() as u64)?;
            self.times.verify.record((verified - signed).as_nanos() as u64)?;
        }
        Ok(())
    }

    /// Drops what was measured: the warm-up.
    pub(crate) fn forget(&mut self) {
        self.times = Times::new();
    }

    /// The sum of the parts' medians, in nanoseconds.
    pub(crate) fn total(&self) -> u64 {
        self.times.parts().iter().map(|(_, times)| times.value_at_quantile(0.5)).sum()
    }

    pub(crate) fn print(&self) {
        for (name, times) in self.times.parts() {
            print_row(name, times);
        }
    }
}

impl Times {
    fn new() -> Self {
        Self { echo: nanos(), sync: nanos(), sign: nanos(), verify: nanos() }
    }

    fn parts(&self) -> [(&'static str, &Nanos); 4] {
        [
            ("floor: echo over SecretConnection", &self.echo),
            ("floor: 4 KiB in place, fdatasync", &self.sync),
            ("floor: sign", &self.sign),
            ("floor: verify_strict", &self.verify),
        ]
    }
}

/// A file whose blocks are there and written: later writes change no metadata, so `fdatasync` is one flush.
fn zero_filled(setup: &Setup) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(setup.path("floor.record"))?;
    file.write_all_at(&vec![0; PAGE * PAGES as usize], 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Connects to a thread that answers every request with `answer`.
async fn echo(setup: &Setup, answer: Message) -> anyhow::Result<NodeLink<Socket>> {
    let listener = setup.listen().await?;
    let Address::Tcp(addr) = *listener.address() else { anyhow::bail!("no tcp address") };
    spawn_echo(addr, answer);
    let socket = listener.accept().await?;
    Ok(NodeLink::accept_secret(socket, &SigningKey::from_bytes(&[45; 32]), [47; 32]).await?)
}

#[allow(clippy::disallowed_methods, reason = "the echo must wake up like another process, not like a task")]
fn spawn_echo(addr: SocketAddr, answer: Message) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The node's side sees a closed connection if this fails.
        runtime.block_on(serve_echo(addr, answer))
    });
}

async fn serve_echo(addr: SocketAddr, answer: Message) -> Result<(), LinkError> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let mut link = NodeLink::accept_secret(stream, &SigningKey::from_bytes(&[48; 32]), [49; 32]).await?;
    loop {
        link.receive().await?;
        link.send(&answer).await?;
    }
}
