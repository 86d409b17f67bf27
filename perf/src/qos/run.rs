// SPDX-License-Identifier: Apache-2.0
//! A run of the schedulers under a fake clock: sources in front, a modelled port behind, every departure told.

use std::sync::Arc;

use qos::PortShare;
use qos::schedule::{CLASSES_MAX, Membership, Next, Offer, PortSpec, Scheduler};

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

/// The workers of a run and what comes to each: one with a scheduler of its own, or several that share the port.
pub(super) type Arrivals = Vec<Vec<Source>>;

/// Offers the sources' packets for `duration_ns`, then lets the schedulers run empty if `to_the_end`; returns how many
/// packets of each class were offered. Workers look at the port one after the other, each once in [`POLL_NS`].
pub(super) fn run(
    spec: &PortSpec,
    mut arrivals: Arrivals,
    mut wire: Wire,
    duration_ns: u64,
    to_the_end: bool,
    mut left: impl FnMut(Departure),
) -> anyhow::Result<Vec<u64>> {
    let mut schedulers = schedulers(spec, arrivals.len())?;
    let workers = arrivals.len();
    let mut is_empty = vec![false; workers];
    let mut offered = vec![0; CLASSES_MAX];
    for look in 0.. {
        let now_ns = POLL_NS + look * POLL_NS / workers as u64;
        let worker = look as usize % workers;
        let offering = now_ns <= duration_ns;
        let scheduler = &mut schedulers[worker];
        for source in arrivals[worker].iter_mut().filter(|_| offering) {
            while let Some((arrived_ns, offer)) = source.arrived(now_ns) {
                offered[usize::from(offer.class.0)] += 1;
                // A refused packet never departs, which is how it is noticed.
                let _ = scheduler.enqueue(Packet { offer, arrived_ns }, offer, now_ns);
            }
        }
        is_empty[worker] = transmit(scheduler, &mut wire, now_ns, &mut left);
        scheduler.rest(now_ns);
        if !offering && (!to_the_end || is_empty.iter().all(|is_empty| *is_empty)) {
            break;
        }
    }
    Ok(offered)
}

fn schedulers(spec: &PortSpec, workers: usize) -> anyhow::Result<Vec<Scheduler<Packet>>> {
    if workers == 1 {
        return Ok(vec![Scheduler::new(spec)?]);
    }
    let workers = u16::try_from(workers)?;
    let share = Arc::new(PortShare::new(workers));
    let of = |worker| Membership { share: Arc::clone(&share), worker };
    (0..workers).map(|worker| Ok(Scheduler::of_worker(spec, &of(worker))?)).collect()
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
