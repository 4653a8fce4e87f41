//! A signer that is right but for one fault, in memory: what the suite is tested with.
#![allow(unreachable_pub, dead_code, reason = "each test crate uses its own part of this module")]

pub mod expected;
mod fault;
mod rules;
mod session;
pub mod street;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use mock_validator::conform::Process;
use tokio::task::{JoinHandle, spawn_local};

pub use fault::Fault;
use rules::Rules;
use session::Running;
use street::Place;

/// A signer that the suite starts and kills.
pub struct Faulty {
    chain: &'static str,
    fault: Option<Fault>,
    places: Vec<Place>,
    state: PathBuf,
    starts: u64,
    tasks: Vec<JoinHandle<()>>,
    /// How often its state was flushed to the disk, as strace would count it.
    flushes: Rc<Cell<u64>>,
}

impl Faulty {
    pub fn new(chain: &'static str, fault: Option<Fault>, places: Vec<Place>, state: PathBuf) -> Self {
        Self { chain, fault, places, state, starts: 0, tasks: Vec::new(), flushes: Rc::default() }
    }

    /// The consensus key.
    pub fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }
}

impl Process for Faulty {
    fn start(&mut self) -> io::Result<()> {
        self.kill();
        self.starts += 1;
        let (chain, fault, first) = (self.chain, self.fault, self.starts == 1);
        let (state, flushes) = (self.state.clone(), self.flushes.clone());
        let Some(rules) = Rules::load(chain, Self::key(), fault, state, flushes, first) else {
            // It refuses to start, and says so in its log.
            return Ok(());
        };
        let running = Rc::new(Running {
            fault,
            rules: RefCell::new(rules),
            is_dead: Cell::new(false),
            handshakes: Cell::new(1000 * self.starts),
            connections: Cell::new(0),
            hang_up_all: tokio::sync::Notify::new(),
        });
        self.tasks =
            self.places.iter().map(|place| spawn_local(running.clone().serve(place.clone()))).collect();
        Ok(())
    }

    fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    fn is_running(&mut self) -> bool {
        self.tasks.iter().any(|task| !task.is_finished())
    }

    fn state(&self) -> Option<&Path> {
        Some(&self.state)
    }

    fn start_counted(&mut self) -> io::Result<bool> {
        self.flushes.set(0);
        self.start()?;
        Ok(true)
    }

    fn end_counted(&mut self) -> io::Result<Option<u64>> {
        self.kill();
        Ok(Some(self.flushes.get()))
    }
}
