// SPDX-License-Identifier: Apache-2.0
//! What the scheduler costs with many shapers: cycles a packet in and out, bytes of memory.

use qos::schedule::{
    ClassSlot, ClassSpec, EarlyDrop, Limit, Next, Offer, PolicySpec, PortSpec, Scheduler, Service, Share,
    TunnelSlot, TunnelSpec,
};
use qos::{Rate, TrafficProfile};
use serde::{Deserialize, Serialize};
use sysmem::Calibration;
use wire::{Dscp, Ecn};

use super::source::MTU_WIRE_BYTES;
use crate::profile::Random;
use crate::report::Measured;

const RUNS: usize = 5;
const BURST: usize = 64;
/// Each tunnel's shaper.
const TUNNEL_BPS: u64 = 2_000_000;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Tunnels, each with a shaper and four classes.
    pub shapers: u32,
    /// Memory of a tunnel with its shaper, without its classes.
    pub bytes_per_shaper: usize,
    /// Memory of a class.
    pub bytes_per_class: usize,
    /// Memory of a class's delays, where they are recorded.
    pub bytes_per_delays: usize,
    /// Memory that the scheduler adds to a queued item.
    pub bytes_per_item: usize,
    /// Cycles to queue a packet, in bursts of 64 for random tunnels; the median burst of each run.
    pub enqueue_cycles: Measured,
    /// Cycles to take one, with the timers that go off meanwhile; the median burst of each run.
    pub dequeue_cycles: Measured,
}

/// Measures a port of `shapers` tunnels, all overloaded by a fifth.
pub(super) fn measure(shapers: u32, quick: bool, clock: &Calibration) -> anyhow::Result<Cost> {
    let mut scheduler = Scheduler::<u64>::new(&port(shapers)?)?;
    let bursts = if quick { 2_000 } else { 20_000 };
    let mut random = Random(0x716f_7300);
    let mut now_ns = 0;
    let (mut enqueue, mut dequeue) = (Vec::new(), Vec::new());
    // The first run fills the queues and is not counted.
    for run in 0..=RUNS {
        let (mut in_cycles, mut out_cycles) = (Vec::new(), Vec::new());
        for _ in 0..bursts {
            let offers: [Offer; BURST] = core::array::from_fn(|_| offer(shapers, &mut random));
            now_ns += gap_ns(shapers);
            let start = clock.now();
            for offer in offers {
                // Overloaded by design: some are refused, and that is part of the cost.
                let _ = scheduler.enqueue(0, offer, now_ns);
            }
            let between = clock.now();
            let sent = drain(&mut scheduler, now_ns);
            let end = clock.now();
            in_cycles.push(between.since(start) as f64 / BURST as f64);
            if sent > 0 {
                out_cycles.push(end.since(between) as f64 / sent as f64);
            }
        }
        if run > 0 {
            // The median burst of a run: one in which something else had the CPU does not count.
            enqueue.push(Measured::of(in_cycles).median);
            dequeue.push(Measured::of(out_cycles).median);
        }
    }
    let [bytes_per_shaper, bytes_per_class, bytes_per_delays, item] = Scheduler::<u64>::bytes_for_each();
    Ok(Cost {
        shapers,
        bytes_per_shaper,
        bytes_per_class,
        bytes_per_delays,
        bytes_per_item: item - size_of::<u64>(),
        enqueue_cycles: Measured::of(enqueue),
        dequeue_cycles: Measured::of(dequeue),
    })
}

fn drain(scheduler: &mut Scheduler<u64>, now_ns: u64) -> u64 {
    let mut sent = 0;
    while let Next::Leaving(_) = scheduler.dequeue(now_ns) {
        sent += 1;
    }
    sent
}

fn offer(tunnels: u32, random: &mut Random) -> Offer {
    let (tunnel, class) = (TunnelSlot(random.below(tunnels)), ClassSlot(random.below(4) as u8));
    Offer { tunnel, class, wire_bytes: MTU_WIRE_BYTES, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct }
}

/// The time in which all shapers together pass five sixths of a burst.
fn gap_ns(shapers: u32) -> u64 {
    let bits = BURST as u64 * u64::from(MTU_WIRE_BYTES) * 8;
    bits * 1_000_000_000 * 5 / 6 / (u64::from(shapers) * TUNNEL_BPS)
}

fn port(shapers: u32) -> anyhow::Result<PortSpec> {
    let rate = Rate::from_bps(TUNNEL_BPS).ok_or_else(|| anyhow::anyhow!("a rate of 0"))?;
    let shape = Some(TrafficProfile { rate, burst_bytes: 2 * MTU_WIRE_BYTES });
    let class = |service| ClassSpec {
        service,
        police: None,
        limit: Limit::Packets(64),
        early: EarlyDrop::None,
        ecn: false,
        delays: false,
    };
    let priority = class(Service::Priority { level: 0 });
    let shares = [50, 30, 20].map(|percent| class(Service::Share(Share::Percent(percent))));
    Ok(PortSpec {
        shape: None,
        packet_bytes_max: MTU_WIRE_BYTES,
        items_max: 1 << 20,
        seed: 1,
        policies: vec![PolicySpec { classes: [vec![priority], shares.to_vec()].concat() }],
        tunnels: vec![TunnelSpec { shape, weight: 1, policy: 0 }; shapers as usize],
    })
}
