//! What goes over the links: what nodes publish, and every 100 ms what their peers lack.

use std::rc::Rc;

use monosign_protocol::message::{BlockId, Message, Vote};

use super::seat::Outgoing;
use super::{Behaviour, Network, NetworkEvent, Place, node::Node};
use crate::consensus::{Attested, Gossip, Peer, Status};
use crate::node::{Blocks, Requests};
use monosign_protocol::Height;

impl Network {
    /// Sends a node's own message to all its peers.
    pub(super) fn broadcast(&mut self, from: Peer, message: Gossip, at: std::time::Duration) {
        let other = self.equivocation(from, &message);
        for to in (0..self.places.len()).map(Peer).filter(|to| *to != from) {
            let told = other.as_ref().filter(|_| to.0.is_multiple_of(2)).unwrap_or(&message);
            self.send(from, to, told.clone(), at);
        }
    }

    /// What the nodes elsewhere sent since the last time.
    pub(super) fn collect_from_seats(&mut self) {
        for place in 0..self.places.len() {
            let Place::Outside(seat) = &self.places[place] else { continue };
            for outgoing in seat.take_outgoing() {
                self.take_outgoing(Peer(place), outgoing);
            }
        }
    }

    /// Each node sends each peer what that lacks.
    pub(super) fn gossip(&mut self) {
        self.ticks += 1;
        let statuses: Vec<_> = self.places.iter().map(Place::status).collect();
        for from in (0..self.places.len()).map(Peer) {
            let peers = self.reachable(from, &statuses);
            if let Place::Outside(seat) = &self.places[from.0] {
                seat.show_peers(peers);
                continue;
            }
            for (to, status) in peers {
                for message in self.missing(from, &status) {
                    self.send(from, to, message, self.now);
                }
            }
        }
        self.flush_logs();
        self.prune();
    }

    /// Gives a node that is down the blocks that its peers have and it lacks, up to the last but one. True if there were
    /// any.
    pub(super) fn sync_blocks(&mut self, peer: Peer) -> bool {
        let own = self.height(peer);
        let sources = (0..self.places.len()).map(Peer).filter(|source| {
            *source != peer && self.links.is_up(*source, peer) && self.links.is_up(peer, *source)
        });
        let Some(source) = sources.max_by_key(|source| self.height(*source)) else { return false };
        let (Place::Inside(source), false) = (&self.places[source.0], self.is_up(peer)) else { return false };
        let last = source.storage.last().map_or(0, |last| last.block.height.0);
        let blocks: Vec<_> =
            (own.0..last).map_while(|height| source.storage.decided(Height(height)).cloned()).collect();
        let Some(node) = self.node(peer) else { return false };
        let synced = !blocks.is_empty();
        for block in blocks {
            node.storage.save(block);
        }
        synced
    }

    fn is_up(&self, peer: Peer) -> bool {
        self.places[peer.0].status().is_some()
    }

    fn send(&mut self, from: Peer, to: Peer, message: Gossip, at: std::time::Duration) {
        if let Some(latency) = self.links.carry(from, to, self.faults.loss) {
            self.schedule(at + latency, NetworkEvent::Deliver { from, to, message });
        }
    }

    fn take_outgoing(&mut self, from: Peer, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Publish(message) => {
                match &message {
                    Gossip::Vote(vote) => self.oracle.saw_vote(vote),
                    Gossip::Proposal(proposal) => self.oracle.saw_proposal(&self.settings, proposal),
                    Gossip::Part(_) => {}
                }
                self.broadcast(from, message, self.now);
            }
            Outgoing::Send(to, message) => self.send(from, to, message, self.now),
            Outgoing::Signed(vote) => self.oracle.saw_vote(&vote),
            Outgoing::Decided(decided) => self.oracle.saw_decision(&decided),
        }
    }

    /// The peers that are up and that `from` can talk with, and where they stand.
    fn reachable(&self, from: Peer, statuses: &[Option<Status>]) -> Vec<(Peer, Status)> {
        let peers = statuses.iter().enumerate().map(|(place, status)| (Peer(place), status));
        peers
            .filter(|(to, _)| *to != from && self.links.is_up(from, *to) && self.links.is_up(*to, from))
            .filter_map(|(to, status)| Some((to, status.clone()?)))
            .collect()
    }

    fn missing(&self, from: Peer, status: &Status) -> Vec<Gossip> {
        match &self.places[from.0] {
            Place::Inside(node) => {
                let engine = node.engine.as_ref();
                let found = engine.map(|engine| engine.missing(status, node.storage.decided(status.height)));
                found.unwrap_or_default()
            }
            Place::Outside(_) => Vec::new(),
        }
    }

    /// Each node every 2 s, not all at once.
    fn flush_logs(&mut self) {
        let ticks = self.ticks;
        for (place, node) in self.places.iter_mut().enumerate() {
            if let (Place::Inside(node), 0) = (node, (ticks + place as u64) % 20) {
                node.storage.flush();
            }
        }
    }

    /// Blocks that everybody has will not be asked for.
    fn prune(&mut self) {
        if self.ticks.is_multiple_of(100) {
            let below = Height(self.lowest_height().0 - 1);
            for place in &mut self.places {
                if let Place::Inside(node) = place {
                    node.storage.prune(below);
                }
            }
        }
    }

    /// The vote for nil that an equivocating node casts besides one for a block.
    fn equivocation(&mut self, from: Peer, message: &Gossip) -> Option<Gossip> {
        let Gossip::Vote(vote) = message else { return None };
        let vote = vote.content();
        let (dialect, chain_id) = (self.settings.dialect, self.settings.chain_id.clone());
        let key = self.settings.validators.get(usize::try_from(vote.validator_index).ok()?)?.key;
        let node = self.node(from).filter(|node| node.options.behaviour == Behaviour::Equivocating)?;
        let hrs = vote.hrs().filter(|_| !vote.block_id.is_nil())?;
        let mut requests = Requests::new(chain_id, dialect, None, Blocks::new([0; 32]));
        requests.vote_as(&key);
        let index = usize::try_from(vote.validator_index).ok()?;
        let request = requests.vote(hrs, BlockId::default(), vote.timestamp, index, Vec::new());
        let answer = node.options.signer.borrow_mut().answer(&request)?;
        let (Message::SignVoteRequest(asked), Message::SignedVoteResponse(answer)) = (request, answer) else {
            return None;
        };
        let vote = Vote { signature: answer.vote.signature, ..asked.vote? };
        let vote = Rc::new(Attested::new(vote));
        self.oracle.saw_vote(&vote);
        Some(Gossip::Vote(vote))
    }
}

impl Place {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Inside(node) => node.engine.as_ref().map(|engine| engine.status()),
            Self::Outside(seat) => seat.status(),
        }
    }
}

impl Node {
    /// The height that the node decides on, or will when it is up.
    pub(super) fn height(&self, initial: Height) -> Height {
        let after_last = self.storage.last().map_or(initial, |last| Height(last.block.height.0 + 1));
        self.engine.as_ref().map_or(after_last, |engine| engine.height())
    }
}
