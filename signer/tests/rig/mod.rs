//! The signer as its operator starts it, and the node's end of its sockets.
//!
//! A [`Home`] is a directory on disk with keys, records and a configuration; [`Home::start`] runs the binary on it, and a
//! [`NodeSide`] listens and asks. All waiting has a deadline that is far beyond what a busy machine needs: it ends tests
//! that hang, and never decides one.
#![allow(dead_code, reason = "each test crate uses its own part of this module")]

pub(crate) mod cosigners;
#[path = "../../../protocol/tests/common/deadline.rs"]
mod deadline;
mod home;
mod node_side;
mod oracle;
mod process;
mod random;

use std::time::Duration;

#[allow(unused_imports, reason = "each test crate uses its own part of this module")]
pub(crate) use home::{Home, IDENTITY, signing_key, validator_table};
#[allow(unused_imports, reason = "as above")]
pub(crate) use node_side::{Conversation, NOW, NodeSide, requests, verifier};
#[allow(unused_imports, reason = "as above")]
pub(crate) use oracle::Oracle;
#[allow(unused_imports, reason = "as above")]
pub(crate) use process::{Finished, Signer};
#[allow(unused_imports, reason = "as above")]
pub(crate) use random::Random;

/// The chain that tests with one chain have.
pub(crate) const CHAIN: &str = "test-chain-1";

/// When a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that tells nobody when it changes.
const POLL: Duration = Duration::from_millis(2);

/// Waits for `future`, and fails the test if it takes forever.
pub(crate) async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    deadline::waiting_for(what);
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

/// strace is not everywhere, and where it is missing nothing is counted: that must be asked for.
pub(crate) fn skip_without_strace() -> bool {
    if std::env::var_os("MONOSIGN_SKIP_STRACE").is_some() {
        eprintln!("MONOSIGN_SKIP_STRACE is set: no system calls are counted");
        return true;
    }
    let found = std::process::Command::new("strace").arg("-V").stdout(std::process::Stdio::null()).status();
    assert!(
        found.is_ok(),
        "strace is missing: `apt-get install strace` (./test.sh does), or set MONOSIGN_SKIP_STRACE=1"
    );
    false
}

/// Looks until there is something to see.
pub(crate) async fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within_deadline(what, async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await
}
