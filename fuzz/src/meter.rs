//! Counts what a piece of code allocates.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What was allocated since the meter was made.
pub struct Meter(Region<'static, System>);

impl Meter {
    /// Starts counting.
    #[expect(clippy::new_without_default, reason = "to start counting is an act")]
    pub fn new() -> Self {
        Self(Region::new(GLOBAL))
    }

    /// The bytes of all allocations, freed ones too; a buffer that grew counts once, at its last size.
    pub fn allocated(&self) -> usize {
        self.0.change().bytes_allocated
    }

    /// The bytes that are still held.
    pub fn held(&self) -> usize {
        let change = self.0.change();
        change.bytes_allocated.saturating_sub(change.bytes_deallocated)
    }
}
