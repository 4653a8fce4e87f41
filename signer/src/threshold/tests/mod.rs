//! A group in memory, against crashes, reordering, copies and cosigners that cheat.

mod alike;
mod cheating;
mod crashes;
mod idle;
mod rejoining;
mod rig;
mod rogue;
mod signatures;
mod signing;
