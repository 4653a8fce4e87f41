//! `[[providers.threshold]]`: a share of a key, and where the other cosigners are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Addr, ChainKeys, Endpoint, KeyConfig, PinnedPeer, Resolver, schema};
use crate::backend::softsign::unlock::KeySource;
use crate::threshold::cosigner::Rejoin;
use crate::threshold::rounds::MemberId;

/// A share of a key, and the other cosigners as this one sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThresholdConfig {
    /// This cosigner's share of the key.
    pub share: KeySource,
    /// The group file.
    pub group: PathBuf,
    /// Where this cosigner listens.
    pub listen: Endpoint,
    /// Where the others listen.
    pub peers: BTreeMap<MemberId, Endpoint>,
    /// When a start needs the others.
    pub rejoin: Rejoin,
    /// How long a cosigner is waited for before another is asked too.
    pub hedge: Duration,
    /// How long a validator is kept waiting before it is refused.
    pub hold: Duration,
}

/// Three round trips between neighbouring regions.
const DEFAULT_HEDGE_MS: u64 = 50;
/// A third of the time that CometBFT gives a signer.
const DEFAULT_HOLD_MS: u64 = 1500;
/// CometBFT's own limit is 5 s (`privval/signer_listener_endpoint.go`), and an answer takes its way.
const LONGEST_HOLD_MS: u64 = 4000;

impl Resolver<'_> {
    /// A chain, and this cosigner's share of its key.
    pub(super) fn share(&mut self, provider: schema::Threshold) -> Result<(String, ThresholdConfig), String> {
        let [id] = provider.chain_ids.as_slice() else {
            return Err("chain_ids names one chain: a group signs for one".into());
        };
        let mut peers = BTreeMap::new();
        for peer in &provider.peer {
            let endpoint = tcp(&peer.addr)?;
            if peers.values().any(|other| *other == endpoint) {
                return Err(format!("peer {}: `{}` is the address of another", peer.id, peer.addr));
            }
            if peers.insert(MemberId(peer.id), endpoint).is_some() {
                return Err(format!("peer {} is named twice", peer.id));
            }
        }
        let hold = provider.hold_ms.unwrap_or(DEFAULT_HOLD_MS);
        let hedge = provider.hedge_ms.unwrap_or(DEFAULT_HEDGE_MS);
        if hold > LONGEST_HOLD_MS {
            return Err(format!("hold_ms {hold}: a node waits 5 s, so at most {LONGEST_HOLD_MS}"));
        }
        if hedge == 0 || hedge >= hold {
            return Err(format!("hedge_ms {hedge}: more than 0 and less than hold_ms, which is {hold}"));
        }
        let share = KeySource {
            path: self.path(provider.share),
            credential: provider.credential,
            identity_file: provider.identity_file.map(|path| self.path(path)),
            ..KeySource::default()
        };
        let threshold = ThresholdConfig {
            share,
            group: self.path(provider.group),
            listen: tcp(&provider.listen)?,
            peers,
            rejoin: match provider.rejoin {
                schema::Rejoin::Auto => Rejoin::Auto,
                schema::Rejoin::Strict => Rejoin::Strict,
            },
            hedge: Duration::from_millis(hedge),
            hold: Duration::from_millis(hold),
        };
        Ok((id.clone(), threshold))
    }
}

/// Refuses a second share that listens where one of the others does.
pub(super) fn check_listen(share: &ThresholdConfig, others: &ChainKeys) -> Result<(), String> {
    let mut others = others.values().filter_map(KeyConfig::threshold);
    if others.any(|other| other.listen == share.listen) {
        return Err("its listen is that of another [[providers.threshold]]".into());
    }
    Ok(())
}

/// Cosigners know each other by their identity keys, so an address is a host and a port.
fn tcp(text: &str) -> Result<Endpoint, String> {
    let addr: Addr = text.parse().map_err(|e| format!("{e}"))?;
    match (addr.endpoint, addr.peer) {
        (endpoint @ Endpoint::Tcp { .. }, PinnedPeer::Anyone) => Ok(endpoint),
        _ => Err(format!("`{text}`: cosigners have addresses of the form tcp://HOST:PORT")),
    }
}
