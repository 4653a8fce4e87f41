//! How much is done for one peer before others have their turn.
//!
//! All of the signer runs on one thread, and a task that always finds something to do goes on for ever. What a peer sends may be there at once,
//! and so may the room for its answers, so a loop that serves one counts what it has done: not what it has answered, which may be nothing.

use tokio::task::yield_now;

/// What has been done for a peer since others had their turn.
#[derive(Debug, Default)]
pub struct Turn {
    done: usize,
}

/// What a piece of work costs besides its bytes, in bytes: as much as to unseal and copy so many.
const PIECE: usize = 1024;
/// What fits into one turn: some 60 small messages, which take a tenth of a millisecond.
const TURN: usize = 64 * 1024;

impl Turn {
    /// A message was handled, or bytes were read.
    pub fn count(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(PIECE).saturating_add(bytes);
    }

    /// Whether it is the others' turn.
    pub fn is_over(&self) -> bool {
        self.done >= TURN
    }

    /// Lets the others have their turn, if it is theirs.
    pub async fn end_if_over(&mut self) {
        if self.is_over() {
            self.done = 0;
            yield_now().await;
        }
    }
}
