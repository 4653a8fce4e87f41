//! How a running signer stands: what commands on its host may ask it.
//!
//! Nothing is kept for it: it looks at what the tasks keep for themselves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use monosign_protocol::ChainId;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::backend::{Backend, BackendError};
use crate::pubkey::PublicKey;
use crate::threshold::cosigner::Status;
use crate::threshold::run::GroupHandle;

/// How long a cosigner is waited for: its disk may hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a signer stands; its chains and links come and go.
#[derive(Default)]
pub struct Standing {
    chains: RefCell<BTreeMap<ChainId, Chain>>,
    links: RefCell<Vec<Weak<LinkStanding>>>,
}

struct Chain {
    record: PathBuf,
    public_key: Option<PublicKey>,
    by: By,
}

/// What signs.
#[derive(Clone)]
enum By {
    Key(Rc<dyn Backend>),
    Group(GroupHandle),
    /// Nothing, and why.
    Nobody(ChainState, String),
}

/// A connection to a validator, as its owner holds it.
pub(super) struct LinkStanding {
    chain_id: ChainId,
    addr: String,
    connected: Rc<Cell<bool>>,
}

/// Whether a chain would sign what it is asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChainState {
    /// It would.
    Ready,
    /// Its key waits for a passphrase.
    Sealed,
    /// Its key signs nowhere until an operator has gone on.
    Locked,
    /// Its device is not there, or is asked nothing more.
    NoDevice,
    /// Its cosigner does not take part yet.
    Joining,
    /// Too few cosigners are there.
    NoQuorum,
    /// It can sign nothing more until the signer is started anew.
    Stopped,
    /// It could not be started.
    NotServed,
    /// It gave no answer, or one that a newer version gives.
    #[serde(other)]
    Unknown,
}

/// How a chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStands {
    /// The chain.
    pub id: String,
    /// Its record.
    pub record: PathBuf,
    /// Its public key.
    pub public_key: Option<String>,
    /// Whether it signs.
    pub state: ChainState,
    /// Why it does not, with what to do; or how many cosigners there are.
    pub why: Option<String>,
}

/// How a connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStands {
    /// The validator's chain.
    pub chain_id: String,
    /// Where it is.
    pub addr: String,
    /// Whether it is connected, and has asked for something since.
    pub connected: bool,
}

impl Standing {
    /// A chain is served by a key.
    pub(super) fn of_key(&self, id: &ChainId, record: &Path, backend: Rc<dyn Backend>) {
        let public_key = Some(backend.public_key());
        self.set(id, Chain { record: record.into(), public_key, by: By::Key(backend) });
    }

    /// A chain is served by a group.
    pub(super) fn of_group(&self, id: &ChainId, record: &Path, public_key: PublicKey, group: GroupHandle) {
        let by = By::Group(group);
        self.set(id, Chain { record: record.into(), public_key: Some(public_key), by });
    }

    /// A chain could not be started.
    pub fn not_served(&self, id: &ChainId, record: &Path, why: &str) {
        let by = By::Nobody(ChainState::NotServed, why.into());
        self.set(id, Chain { record: record.into(), public_key: None, by });
    }

    /// A chain signs nothing more.
    pub(super) fn stopped(&self, id: &ChainId, why: &str) {
        if let Some(chain) = self.chains.borrow_mut().get_mut(id) {
            chain.by = By::Nobody(ChainState::Stopped, why.into());
        }
    }

    fn set(&self, id: &ChainId, chain: Chain) {
        self.chains.borrow_mut().insert(id.clone(), chain);
    }

    /// A validator is served, as long as what is returned is held.
    pub(super) fn of_link(&self, id: &ChainId, addr: &str, connected: Rc<Cell<bool>>) -> Rc<LinkStanding> {
        let link = Rc::new(LinkStanding { chain_id: id.clone(), addr: addr.into(), connected });
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.strong_count() > 0);
        links.push(Rc::downgrade(&link));
        link
    }

    /// The connections.
    pub fn links(&self) -> Vec<LinkStands> {
        let stands = |link: Rc<LinkStanding>| LinkStands {
            chain_id: link.chain_id.to_string(),
            addr: link.addr.clone(),
            connected: link.connected.get(),
        };
        self.links.borrow().iter().filter_map(Weak::upgrade).map(stands).collect()
    }

    /// The chains.
    pub async fn chains(&self) -> Vec<ChainStands> {
        let chains: Vec<_> = {
            let chains = self.chains.borrow();
            let chain = |(id, chain): (&ChainId, &Chain)| {
                (id.to_string(), chain.record.clone(), chain.public_key, chain.by.clone())
            };
            chains.iter().map(chain).collect()
        };
        let mut stands = Vec::new();
        for (id, record, public_key, by) in chains {
            let (state, why) = by.look().await;
            let public_key = public_key.map(|key| key.to_string());
            stands.push(ChainStands { id, record, public_key, state, why });
        }
        stands
    }
}

impl By {
    async fn look(&self) -> (ChainState, Option<String>) {
        match self {
            Self::Nobody(state, why) => (*state, Some(why.clone())),
            Self::Key(backend) => match backend.ready() {
                Ok(()) => (ChainState::Ready, None),
                Err(error @ BackendError::Sealed) => (ChainState::Sealed, Some(error.to_string())),
                Err(error @ BackendError::Locked(_)) => (ChainState::Locked, Some(error.to_string())),
                Err(error) => (ChainState::NoDevice, Some(error.to_string())),
            },
            Self::Group(group) => match timeout(PATIENCE, group.status()).await {
                Ok(Some(status)) => of_cosigner(&status),
                Ok(None) => {
                    (ChainState::Stopped, Some("its cosigner has ended: start the signer anew".into()))
                }
                Err(_) => {
                    (ChainState::Unknown, Some(format!("its cosigner gave no answer within {PATIENCE:?}")))
                }
            },
        }
    }
}

/// Whether a cosigner's group would sign.
pub fn of_cosigner(status: &Status) -> (ChainState, Option<String>) {
    let needed = usize::from(status.shape.threshold());
    let others = status.peers.iter().filter(|peer| peer.up && peer.active).count();
    let members = status.shape.members();
    let there = format!("{needed} of {members} must sign, and {} are there with this one", others + 1);
    match status.state.as_str() {
        "active" if others + 1 >= needed => (ChainState::Ready, Some(there)),
        "active" => (ChainState::NoQuorum, Some(there)),
        state if state.starts_with("stopped") => (ChainState::Stopped, Some(state.to_owned())),
        state => (ChainState::Joining, Some(state.to_owned())),
    }
}
