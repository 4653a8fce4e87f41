//! `monosign demo`: this very program as a signer, and a mock validator that asks it for signatures.
//!
//! Everything is done as an operator would do it: `init` makes the directory, `softsign keygen` the encrypted key, `state init`
//! the record, and `start` runs as a process of its own. Only the validator is not a real one. Each part checks what it shows:
//! the command fails at the first thing that does not hold.

mod page;
mod process;
mod validator;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mock_validator::link::{Address, Listener};
use monosign_protocol::Dialect;

use super::{Failure, block_on};
use page::Page;
use process::{Directory, Signer};
use validator::{Answered, Validator};

/// Arguments of `monosign demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many blocks to sign.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,
    /// The pause between two blocks, in milliseconds.
    #[arg(long, default_value_t = 250, value_name = "MS")]
    block_time: u64,
    /// Which CometBFT the validator is.
    #[arg(long, default_value = "v0.38")]
    dialect: Dialect,
    /// Keep the directory of the signer in DIR instead of a temporary one; it must not exist.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const CHAIN: &str = "demo-1";
/// How often the signer is killed.
const KILLS: u32 = 3;

const WHAT_FOR: &str = "\
A validator signs its votes with one key. Whoever makes it sign two different votes at one height has it slashed,
for good: that is a double sign. A remote signer holds the key on another machine, and must never sign twice,
whatever crashes. This demo starts one, gives it a validator, and tries to make it sign twice.";

pub(super) fn run(args: &DemoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let directory = Directory::new(args.keep.as_deref())?;
    let mut page = Page::new(out);
    block_on(show(args, &directory, &mut page))?
}

async fn show(args: &DemoArgs, directory: &Directory, page: &mut Page<'_>) -> Result<(), Failure> {
    let any_port: Address = "tcp://127.0.0.1:0".parse().map_err(Failure::new)?;
    let listener = Listener::bind(&any_port).await.map_err(Failure::new)?;
    let addr = listener.address().to_string();
    page.text(WHAT_FOR)?;
    set_up(directory.path(), &addr)?;
    page.line(&format!(
        "The signer is in {}; the validator, a CometBFT {}, is on {addr}.",
        directory.path().display(),
        args.dialect
    ))?;

    let mut signer = Signer::start(directory.path())?;
    let mut validator = Validator::new(&listener, args.dialect)?;
    let shown = parts(args, directory.path(), &mut signer, &mut validator, page).await;
    if let Err(failure) = shown {
        page.text(&format!("The end of the signer's log:\n{}", signer.end_of_log()))?;
        return Err(failure);
    }
    signer.stop()
}

/// The directory, the key and the record of a signer.
fn set_up(dir: &Path, addr: &str) -> Result<(), Failure> {
    let config = dir.join("monosign.toml");
    process::monosign(&[&"init", &dir, &"--chain", &CHAIN, &"--addr", &addr])?;
    process::monosign(&[&"softsign", &"keygen", &"--output", &dir.join("secrets/consensus.key")])?;
    process::monosign(&[&"state", &"init", &"-c", &config, &"--chain", &CHAIN])
}

async fn parts(
    args: &DemoArgs,
    dir: &Path,
    signer: &mut Signer,
    validator: &mut Validator<'_>,
    page: &mut Page<'_>,
) -> Result<(), Failure> {
    page.heading("A validator makes blocks with the signer")?;
    let key = validator.connect().await?;
    page.line(&format!("The signer has connected. Its public key: ed25519 {key}"))?;
    for block in 0..args.blocks {
        if block > 0 {
            validator.pause(Duration::from_millis(args.block_time)).await;
        }
        page.line(&validator.make_block().await?)?;
    }

    page.heading("The signer is killed in the middle of its work, and starts again")?;
    for kill in 1..=KILLS {
        let first = validator.last_precommit()?;
        page.line(&format!("it has signed a {}: signature {}", first.vote, first.short()))?;
        page.line(&format!(
            "the validator asks again; SIGKILL number {kill} while the request is under way"
        ))?;
        let took = validator.ask_again_under_sigkill(signer).await?;
        let again = validator.ask_again().await?;
        if again != first {
            let twice = format!("the {} has another signature after SIGKILL", first.vote);
            return Err(Failure::new(twice));
        }
        let (ms, short) = (took.as_millis(), again.short());
        page.good(&format!("started again, it answers {ms} ms after the kill: the same signature {short}"))?;
        page.line(&validator.make_block().await?)?;
    }

    page.heading("The validator asks for a second, different vote: this is a double sign")?;
    let (asked, answered) = validator.ask_for_double_sign().await?;
    page.line(&format!("signed:    {}", asked.signed))?;
    page.line(&format!("asked for: {}", asked.conflicting))?;
    match answered {
        Answered::Refused(reason) => page.good(&format!("REFUSED:   {reason}"))?,
        Answered::Signed => return Err(Failure::new("DOUBLE SIGN: the signer signed both; do not use it")),
    }
    page.line("With both signatures, anyone could have this validator slashed.")?;

    page.heading("A second signer is started on a copy of the directory")?;
    let refusal = process::start_copy(dir)?;
    page.good(&format!("REFUSED:   {refusal}"))?;
    page.line(&validator.make_block().await?)?;
    page.line("The first one goes on. A copy on another machine would not be seen: never make one.")?;

    page.heading("What was shown")?;
    let (blocks, signatures) = (validator.blocks(), validator.signatures());
    page.good(&format!("1. {blocks} blocks: {signatures} signatures, each checked against the public key."))?;
    page.good(&format!(
        "2. Killed {KILLS} times: the answer before and after was the same, all 64 bytes of it."
    ))?;
    page.good("3. A vote for another block at the same height was refused.")?;
    page.good("4. A second signer with the same key on this machine was refused.")?;
    page.line("5. Why: each vote is on the disk before its signature leaves the signer.")?;
    page.text(
        "Next: `Sign for a validator` in README.md sets up a real one. `just scenarios` (scenarios/README.md)\n\
         does the same with power cuts, torn writes, partitions and copies, thousands of times.",
    )
}
