//! The nodes: whether one would be served, and whether it is there.

use monosign_protocol::Step;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::report::{Finding, Level};
use super::{DIAL, level_of};
use crate::cli::{Failure, block_on, status_socket};
use crate::config::ValidatorConfig;
use crate::guard::Watermark;
use crate::link::{LinkSettings, Protection, session_for};
use crate::ops::access;
use crate::ops::access::Changeable;
use crate::seams::Seams;
use crate::session::{Event, PeerMisbehaved};
use crate::start::link_settings;

/// A validator, and what is known of it before anybody is dialed.
pub(super) struct Node<'a> {
    pub(super) config: &'a ValidatorConfig,
    /// What others can change of it.
    pub(super) changeable: Vec<Changeable>,
    /// Where its chain's record stands.
    pub(super) watermark: Option<&'a Watermark>,
}

/// Why a node was not reached.
enum Unreached {
    /// It may come.
    Absent(String),
    /// What is there is no node that we would serve.
    Wrong(String),
}

/// What is to be told of each. They are dialed at the same time.
pub(super) fn look(
    nodes: &[Node<'_>],
    running: Option<&status_socket::Answer>,
    offline: bool,
) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut dialed = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let (addr, is_connected) = (node.config.addr.to_string(), is_connected(node.config, running));
        let at = |level, text: &str| {
            Finding::at(level, format!("validator {addr}"), text).about(&node.config.chain_id)
        };
        let settings = link_settings(node.config);
        findings.push(match (&settings, access::told(&node.changeable), passed(node)) {
            (_, Some(told), _) => at(Level::Unsafe, &told),
            (Err(error), ..) => at(level_of(error), &error.to_string()),
            (.., Some(passed)) => at(Level::Bad, &passed),
            _ if is_connected == Some(true) => at(Level::Good, "connected with the running signer"),
            _ if offline => at(Level::Good, "not dialed"),
            (Ok(settings), ..) => {
                dialed.push((n, settings.clone()));
                at(Level::Good, "")
            }
        });
    }
    let answers = block_on(async {
        let tasks: Vec<_> = dialed
            .into_iter()
            .map(|(n, settings)| (n, spawn_local(async move { timeout(DIAL, handshake(&settings)).await })))
            .collect();
        let mut answers = Vec::new();
        for (n, task) in tasks {
            answers.push((n, task.await));
        }
        answers
    })?;
    for (n, answer) in answers {
        let node = nodes[n].config;
        let host = node.addr.to_string();
        let (level, what, next) = match answer {
            Ok(Ok(Ok(peer))) => (Level::Good, format!("reached, peer id {peer}"), None),
            Ok(Ok(Err(Unreached::Wrong(what)))) => (
                Level::Bad,
                what,
                Some(
                    "check that `addr` is the node's priv_validator_laddr; a peer id in it is that of the node, \
                     which makes a new \
                     one at each start: leave it out where the path to the node is trusted",
                ),
            ),
            Ok(Ok(Err(Unreached::Absent(what)))) if what.contains("failed to lookup address") => {
                (Level::Warning, what, Some("the name in `addr` cannot be looked up: correct it, or the name service"))
            }
            Ok(Ok(Err(Unreached::Absent(what)))) => (
                Level::Warning,
                what,
                Some("is the node running, with priv_validator_laddr set to this address?"),
            ),
            Ok(Err(_)) => (
                Level::Warning,
                "accepts connections, but does not answer: another signer seems to be connected, perhaps this one".into(),
                Some("if no signer runs, check that `addr` is the node's priv_validator_laddr"),
            ),
            Err(error) => (Level::Warning, error.to_string(), Some("look again")),
        };
        let finding = Finding::at(level, format!("validator {host}"), what).about(&node.chain_id);
        findings[n] = match next {
            Some(next) => finding.next(next),
            None => finding,
        };
    }
    Ok(findings)
}

fn is_connected(node: &ValidatorConfig, running: Option<&status_socket::Answer>) -> Option<bool> {
    let addr = node.addr.to_string();
    let links = &running?.validators;
    let link = links.iter().find(|link| link.addr == addr && link.chain_id == node.chain_id.as_str());
    link.map(|link| link.connected)
}

/// Whether everything up to its `max_height` is signed.
fn passed(node: &Node<'_>) -> Option<String> {
    let (max_height, watermark) = (node.config.max_height?, node.watermark?);
    let is_last = watermark.height == max_height && watermark.step == Some(Step::Precommit);
    (watermark.height > max_height || is_last).then(|| {
        format!(
            "its max_height is {}, and h/r/s {watermark} is signed: nothing is left to sign for it\n\
             hint: raise `max_height` in this [[validator]], or take it out",
            max_height.0
        )
    })
}

async fn handshake(settings: &LinkSettings) -> Result<String, Unreached> {
    let absent = |error: std::io::Error| Unreached::Absent(error.to_string());
    let wrong = |error: PeerMisbehaved| Unreached::Wrong(error.to_string());
    let seams = Seams::production();
    let mut stream = seams.net.dial(&settings.endpoint).await.map_err(absent)?;
    if matches!(settings.protection, Protection::Plain) {
        return Ok("local".into());
    }
    let mut session = session_for(&settings.protection, &*seams.entropy);
    let mut chunk = vec![0; 4096];
    loop {
        if let Some(Event::Established(peer)) = session.poll_event().map_err(wrong)? {
            return Ok(peer.to_string());
        }
        stream.write_all(session.outbox()).await.map_err(absent)?;
        session.sent();
        let n = stream.read(&mut chunk).await.map_err(absent)?;
        if n == 0 {
            return Err(Unreached::Absent("closed in the handshake".into()));
        }
        session.handle_bytes(&chunk[..n]).map_err(wrong)?;
    }
}
