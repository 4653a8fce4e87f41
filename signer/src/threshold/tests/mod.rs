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

use crate::threshold::cosigner::Cosigner;
use crate::threshold::group::Shape;
use crate::threshold::keeper::Keeper;

/// The first of three cosigners, which has just been started.
pub(super) fn started() -> (Cosigner, Keeper) {
    let mut rig = rig::Rig::new(Shape::new(2, 3).expect("a shape"), 1);
    rig.start(0);
    rig.nodes[0].life.take().expect("it runs")
}
