// SPDX-License-Identifier: Apache-2.0
//! What a policy without queues costs the path: the same packets through two headends, of which one has eight classes.

use aead::Engine;
use sysmem::Calibration;

use super::Row;
use crate::bed::Setting;
use crate::path::{Course, Memory, Plan};
use crate::profile::CLASSES_MAX;
use crate::report::Measured;
use crate::traffic::{Size, Way};

const GOAL_CYCLES: f64 = 20.0;
/// Pairs of runs; the median counts.
const PAIRS: usize = 9;

/// Cycles a packet of 64 bytes more than without a policy: outbound, one tunnel, buffers warm, not congested.
pub(super) fn measure(quick: bool, clock: &Calibration) -> anyhow::Result<Row> {
    let plain = Setting::usual(1, 1, Engine::best());
    let mut without = Course::new(&plain)?;
    let mut with = Course::new(&Setting { classes: CLASSES_MAX, ..plain })?;
    let size = Size::Fixed(64);
    let plan = Plan { way: Way::Outbound, size, memory: Memory::Warm, runs: 1, quick };
    let mut more = Vec::with_capacity(PAIRS);
    for pair in 0..PAIRS {
        let of = |course: &mut Course| anyhow::Ok(course.measure(&plan, clock.hz())?.cycles.median);
        let (with, without) = if pair.is_multiple_of(2) {
            let with = of(&mut with)?;
            (with, of(&mut without)?)
        } else {
            let without = of(&mut without)?;
            (of(&mut with)?, without)
        };
        more.push(with - without);
    }
    let name = "8 classes by DSCP, ToS copied, one policer, not congested: on top of the path, 64 bytes";
    Ok(Row::at_most(name.to_owned(), Measured::of(more).median, GOAL_CYCLES, "cycles"))
}
