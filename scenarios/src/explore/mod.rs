//! Looking for what nobody thought of: scenarios made up at random, and failures cut down to what they need.

mod generate;
mod shrink;

pub use generate::{generate, made_up};
pub use shrink::shrink;
