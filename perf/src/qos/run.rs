// SPDX-License-Identifier: Apache-2.0
//! A run of the scheduler under a fake clock: sources in front, a modelled port behind, every departure told.

use qos::schedule::{Next, Offer, PortSpec, Scheduler};

use super::source::Source;
use super::wire::Wire;

/// How often the modelled worker looks at its ports.
pub(super) const POLL_NS: u64 = 1_000;

/// A packet in the scheduler: what it was, and when it came.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub(super) offer: Offer,
    pub(super) arrived_ns: u64,
}

/// A packet that has left the port.
#[derive(Clone, Copy)]
pub(super) struct Departure {
    pub(super) packet: Packet,
    /// When it went into the transmit ring.
    pub(super) handed_ns: u64,
    /// When its last bit left.
    pub(super) left_ns: u64,
}

/// Offers the sources' packets for `duration_ns`, then lets the scheduler run empty if `to_the_end`; returns how many
/// packets of each class were offered.
pub(super) fn run(
    spec: &PortSpec,
    mut sources: Vec<Source>,
    mut wire: Wire,
    duration_ns: u64,
    to_the_end: bool,
    mut left: impl FnMut(Departure),
) -> anyhow::Result<Vec<u64>> {
    let mut scheduler = Scheduler::new(spec)?;
    let mut offered = vec![0; sources.len()];
    let mut now_ns = 0;
    loop {
        now_ns += POLL_NS;
        let offering = now_ns <= duration_ns;
        for (source, count) in sources.iter_mut().zip(&mut offered).filter(|_| offering) {
            while let Some((arrived_ns, offer)) = source.arrived(now_ns) {
                *count += 1;
                // A refused packet never departs, which is how it is noticed.
                let _ = scheduler.enqueue(Packet { offer, arrived_ns }, offer, now_ns);
            }
        }
        let empty = transmit(&mut scheduler, &mut wire, now_ns, &mut left);
        if !offering && (empty || !to_the_end) {
            return Ok(offered);
        }
    }
}

/// Fills the ring; whether the scheduler is empty.
fn transmit(
    scheduler: &mut Scheduler<Packet>,
    wire: &mut Wire,
    now_ns: u64,
    left: &mut impl FnMut(Departure),
) -> bool {
    while wire.has_room(now_ns) {
        match scheduler.dequeue(now_ns) {
            Next::Leaving(out) => {
                let left_ns = wire.send(out.wire_bytes, now_ns);
                left(Departure { packet: out.item, handed_ns: now_ns, left_ns });
            }
            Next::Refused(_) => {}
            Next::Wait(moment) => return moment.is_none(),
        }
    }
    false
}
