//! The connections of a ceremony: each host dials every other, and says on that connection what it has to say. Who is at the other
//! end is known by the identity keys of the plan, as between cosigners.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, split};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::meeting::{Meeting, MeetingError, Round};
use super::plan::Key;
use crate::config::Endpoint;
use crate::seams::{Listen, Local, Net};
use crate::threshold::connection::{read, write};
use crate::threshold::message::{Framed, MAX_MESSAGE, encode};
use crate::threshold::transport::Transport;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long it takes until a host that is not there yet is dialed again.
const REDIAL: Duration = Duration::from_millis(300);
/// How long what was said last may take to go out.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a host says in a round.
#[derive(Serialize, Deserialize)]
struct Said {
    round: Round,
    #[serde(with = "crate::threshold::bytes")]
    body: Vec<u8>,
}

impl Framed for Said {
    fn longest(_: u8) -> usize {
        MAX_MESSAGE
    }
}

/// One of the others.
#[derive(Debug, Clone)]
pub struct Party {
    /// By what it is known.
    pub key: Key,
    /// Where it is.
    pub endpoint: Endpoint,
    /// What it is called.
    pub name: String,
}

/// Connections with all the others.
pub struct Links {
    me: Key,
    parties: BTreeMap<Key, String>,
    outgoing: BTreeMap<Key, mpsc::Sender<Vec<u8>>>,
    incoming: BTreeMap<Key, mpsc::Receiver<Result<Said, String>>>,
    writers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// How long a round may take.
    patience: Duration,
}

/// A connection that was accepted: who has dialed, and what it says.
type Accepted = (Key, mpsc::Receiver<Result<Said, String>>);

impl Links {
    /// Waits until every host is there. It must be called within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// [`MeetingError::Absent`] with those that have not come within `patience`.
    pub async fn meet(
        net: Rc<dyn Net>,
        transport: Rc<dyn Transport>,
        me: Key,
        listener: Box<dyn Listen>,
        parties: Vec<Party>,
        patience: Duration,
    ) -> Result<Self, MeetingError> {
        let until = Instant::now() + patience;
        let (accepted, mut welcome) = mpsc::channel(64);
        let mut links = Self {
            me,
            parties: parties.iter().map(|party| (party.key, party.name.clone())).collect(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            writers: Vec::new(),
            others: vec![spawn_local(listen(listener, Rc::clone(&transport), accepted))],
            patience,
        };
        let (dialed, mut up) = mpsc::channel(64);
        for party in parties {
            let (frames, waiting) = mpsc::channel(64);
            links.outgoing.insert(party.key, frames);
            let dialing = dial(Rc::clone(&net), Rc::clone(&transport), party, waiting, dialed.clone());
            links.writers.push(spawn_local(dialing));
        }
        let mut reached = BTreeSet::new();
        while reached.len() < links.parties.len() || links.incoming.len() < links.parties.len() {
            let next = async {
                tokio::select! {
                    biased;
                    Some(key) = up.recv() => drop(reached.insert(key)),
                    // A later connection of the same host is the one that counts: it has started anew.
                    Some((key, said)) = welcome.recv() => if links.parties.contains_key(&key) {
                        links.incoming.insert(key, said);
                    },
                }
            };
            if timeout_at(until, next).await.is_err() {
                let is_here = |key: &Key| reached.contains(key) && links.incoming.contains_key(key);
                let missing = links.parties.iter().filter(|(key, _)| !is_here(key));
                let mut missing: Vec<&str> = missing.map(|(_, name)| name.as_str()).collect();
                missing.sort_unstable();
                return Err(MeetingError::Absent(missing.join(", ")));
            }
        }
        Ok(links)
    }

    /// Lets go out what was said, and closes.
    pub async fn part(mut self) {
        self.outgoing.clear();
        for writer in std::mem::take(&mut self.writers) {
            // Nobody waits for who does not take it.
            let _ = timeout(GOODBYE, writer).await;
        }
    }

    async fn hear(&mut self, from: Key, round: Round) -> Result<Vec<u8>, MeetingError> {
        let who = self.parties.get(&from).cloned().unwrap_or_default();
        let gone = |why: &str| MeetingError::Gone { who: who.clone(), why: why.into() };
        let said = self.incoming.get_mut(&from).ok_or_else(|| gone("not connected"))?;
        match timeout(self.patience, said.recv()).await {
            Ok(Some(Ok(said))) if said.round == round => Ok(said.body),
            Ok(Some(Ok(_))) => Err(MeetingError::OutOfStep(who)),
            Ok(Some(Err(why))) => Err(gone(&why)),
            Ok(None) => Err(gone("closed by the peer")),
            Err(_) => Err(gone(&format!("it has said nothing for {:?}", self.patience))),
        }
    }
}

impl Meeting for Links {
    fn me(&self) -> Key {
        self.me
    }

    fn others(&self) -> Vec<Key> {
        self.parties.keys().copied().collect()
    }

    fn exchange<'a>(
        &'a mut self,
        round: Round,
        said: BTreeMap<Key, Vec<u8>>,
    ) -> Local<'a, Result<BTreeMap<Key, Vec<u8>>, MeetingError>> {
        Box::pin(async move {
            for (key, body) in said {
                // Who does not read any more is found out by listening to it.
                if let Some(frames) = self.outgoing.get(&key) {
                    let _ = frames.send(encode(&Said { round, body })).await;
                }
            }
            let mut heard = BTreeMap::new();
            for key in self.others() {
                heard.insert(key, self.hear(key, round).await?);
            }
            Ok(heard)
        })
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.writers.iter().chain(&self.others).for_each(JoinHandle::abort);
    }
}

/// Reaches a host, and then writes to it what there is to say.
async fn dial(
    net: Rc<dyn Net>,
    transport: Rc<dyn Transport>,
    party: Party,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    dialed: mpsc::Sender<Key>,
) {
    loop {
        let secured = async {
            let stream = net.dial(&party.endpoint).await?;
            transport.dial(stream, &party.key).await
        };
        if let Ok(Ok(stream)) = timeout(HANDSHAKE, secured).await {
            if dialed.send(party.key).await.is_err() {
                return;
            }
            let (mut reader, mut writer) = split(stream);
            tokio::select! {
                biased;
                // A connection that breaks is found out by listening to the host.
                _ = write(&mut writer, &mut waiting) => return,
                // Nothing is ever said on this one, so it has ended: the host was started anew, perhaps.
                _ = reader.read_u8() => {}
            }
        }
        if waiting.is_closed() {
            return;
        }
        sleep(REDIAL).await;
    }
}

async fn listen(
    mut listener: Box<dyn Listen>,
    transport: Rc<dyn Transport>,
    accepted: mpsc::Sender<Accepted>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(REDIAL).await;
            continue;
        };
        let (transport, accepted) = (Rc::clone(&transport), accepted.clone());
        spawn_local(async move {
            let Ok(Ok((stream, key))) = timeout(HANDSHAKE, transport.accept(stream)).await else { return };
            let (said, heard) = mpsc::channel(4);
            if accepted.send((key, heard)).await.is_ok() {
                listen_to(stream, said).await;
            }
        });
    }
}

async fn listen_to(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    said: mpsc::Sender<Result<Said, String>>,
) {
    let mut buffer = Vec::new();
    loop {
        let next = read(&mut stream, &mut buffer).await.map(|(said, _): (Said, _)| said);
        let (is_last, next) = (next.is_err(), next.map_err(|ended| ended.to_string()));
        if said.send(next).await.is_err() || is_last {
            return;
        }
    }
}
