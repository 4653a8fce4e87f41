//! A seat in the network for a node that runs elsewhere.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::consensus::{Attested, Decided, Gossip, Peer, Status};
use monosign_protocol::message::Vote;

/// The network's end of a node that runs elsewhere, say in a task of a simulator.
///
/// Clones are the same seat; one thread only. What is published leaves with the next
/// [`Network::advance_to`](super::Network::advance_to), which also fills the inbox. A node that starts calls
/// [`Seat::join`], one that dies [`Seat::leave`].
#[derive(Debug, Clone)]
pub struct Seat {
    peer: Peer,
    shared: Rc<RefCell<Shared>>,
    arrived: Rc<Notify>,
}

#[derive(Debug, Default)]
struct Shared {
    present: bool,
    status: Status,
    peers: Vec<(Peer, Status)>,
    inbox: VecDeque<(Peer, Gossip)>,
    outbox: Vec<Outgoing>,
}

/// What a node elsewhere gives to the network.
#[derive(Debug)]
pub(super) enum Outgoing {
    Publish(Gossip),
    Send(Peer, Gossip),
    Signed(Rc<Attested<Vote>>),
    Decided(Decided),
}

impl Seat {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, shared: Rc::default(), arrived: Rc::new(Notify::new()) }
    }

    /// The node's place in the network.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The node is up: from now on it gets messages.
    pub fn join(&self, status: Status) {
        let mut shared = self.shared.borrow_mut();
        shared.present = true;
        shared.status = status;
    }

    /// The node died: its inbox is lost, and it gets nothing until it joins again.
    pub fn leave(&self) {
        let mut shared = self.shared.borrow_mut();
        shared.present = false;
        shared.inbox.clear();
        shared.peers.clear();
    }

    /// Sends to every peer: what [`Port::publish`](crate::consensus::Port::publish) is given.
    pub fn publish(&self, message: &Gossip) {
        self.shared.borrow_mut().outbox.push(Outgoing::Publish(message.clone()));
    }

    /// Sends to one peer: what it lacks.
    pub fn send(&self, to: Peer, message: Gossip) {
        self.shared.borrow_mut().outbox.push(Outgoing::Send(to, message));
    }

    /// A vote was signed, whether or not it is ever published: the oracle is to see it.
    pub fn signed(&self, vote: &Rc<Attested<Vote>>) {
        self.shared.borrow_mut().outbox.push(Outgoing::Signed(Rc::clone(vote)));
    }

    /// The node decided a block: the oracle is to see it.
    pub fn decided(&self, decided: &Decided) {
        self.shared.borrow_mut().outbox.push(Outgoing::Decided(decided.clone()));
    }

    /// Where the node stands, which decides what its peers send it. To be called after each
    /// [`Engine::handle`](crate::consensus::Engine::handle).
    pub fn update(&self, status: Status) {
        self.shared.borrow_mut().status = status;
    }

    /// Where the peers stand that can be reached, as of the last 100 ms. Every 100 ms the node is to send each of
    /// them what [`Engine::missing`](crate::consensus::Engine::missing) finds.
    pub fn peers(&self) -> Vec<(Peer, Status)> {
        self.shared.borrow().peers.clone()
    }

    /// The next message, if one is there.
    pub fn try_recv(&self) -> Option<(Peer, Gossip)> {
        self.shared.borrow_mut().inbox.pop_front()
    }

    /// Waits for the next message. Nothing is lost if the future is dropped.
    pub async fn recv(&self) -> (Peer, Gossip) {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) fn deliver(&self, from: Peer, message: Gossip) {
        let mut shared = self.shared.borrow_mut();
        if shared.present {
            shared.inbox.push_back((from, message));
            self.arrived.notify_one();
        }
    }

    pub(super) fn take_outgoing(&self) -> Vec<Outgoing> {
        mem::take(&mut self.shared.borrow_mut().outbox)
    }

    pub(super) fn status(&self) -> Option<Status> {
        let shared = self.shared.borrow();
        shared.present.then(|| shared.status.clone())
    }

    pub(super) fn show_peers(&self, peers: Vec<(Peer, Status)>) {
        self.shared.borrow_mut().peers = peers;
    }
}
