// SPDX-License-Identifier: Apache-2.0
//! One worker's pipeline: bursts in, frames and hand-overs out.

use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex, WorkerCounter, WorkerId};
use pktbuf::{BURST, Batch, Pool};
use qos::classify::FlowCache;
use tables::Neighbors;
use wire::{MacAddr, VlanId};

use crate::context::Context;
use crate::counters::Counters;
use crate::dispatch::Lanes;
use crate::handovers::{HandedOver, Handovers};
use crate::identification::Identification;
use crate::lane::Lane;
use crate::limiter::Limiter;
use crate::outgoing::{Sent, Transmission};
use crate::queues::Queues;
use crate::sad::State;
use crate::stopwatch::{Stage, Stopwatch};
use crate::waiting::Waiting;
use crate::{fast, inbound, ingress, neighbor, outbound, scheduled, tag};

/// Flows whose classes a worker keeps, in 2 MiB that are touched only where a policy has so many rules that it is worth it.
const FLOWS: usize = 1 << 16;

/// What a pipeline is built from.
pub struct PipelineConfig {
    /// Which worker it belongs to.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: u16,
    /// Ethernet address of each port, in order.
    pub macs: Vec<[u8; 6]>,
    /// The VLAN of each port, in order, whose tag all its frames have; [`VlanId::NONE`]: a priority and no VLAN. Ports
    /// without an entry, or with none, have untagged frames.
    pub vlans: Vec<Option<VlanId>>,
    /// Buffers for packets made here.
    pub pool: Pool,
    /// Neighbours, shared by all workers.
    pub neighbors: Arc<Neighbors>,
    /// What runs until the first commit.
    pub state: Arc<State>,
}

/// The packet path of one worker.
///
/// A turn of the worker: [`receive`](Self::receive) each port's burst, [`take_over`](Self::take_over) what other
/// workers handed over, [`hand_over`](Self::hand_over) what is theirs, [`release`](Self::release) what waited for its turn,
/// [`transmit`](Self::transmit) to each port.
/// Between turns the worker may [`switch`](Self::switch) to a new state.
pub struct Pipeline {
    worker: WorkerId,
    state: Arc<State>,
    neighbors: Arc<Neighbors>,
    pool: Pool,
    macs: Vec<MacAddr>,
    /// One for each port.
    vlans: Vec<Option<VlanId>>,
    counters: Counters,
    transmission: Transmission,
    waiting: Waiting,
    flows: FlowCache,
    queues: Queues,
    limiter: Limiter,
    identification: Identification,
    lanes: Lanes,
    handovers: Handovers,
    /// Handed over by a worker that has switched, while this one has not.
    early: ArrayVec<HandedOver, BURST>,
    originated: Lane<crate::context::Note>,
    whole_way_only: bool,
    stopwatch: Stopwatch,
}

impl Pipeline {
    /// A pipeline without packets.
    #[must_use]
    pub fn new(config: PipelineConfig) -> Self {
        let PipelineConfig { worker, workers, macs, mut vlans, pool, neighbors, state } = config;
        vlans.resize(macs.len(), None);
        let queues = Queues::new(worker, macs.len(), &state.handoff);
        Self {
            worker,
            state,
            neighbors,
            pool,
            transmission: Transmission::new(&vlans),
            vlans,
            flows: FlowCache::new(FLOWS),
            queues,
            macs: macs.into_iter().map(MacAddr).collect(),
            counters: Counters::default(),
            waiting: Waiting::default(),
            limiter: Limiter::default(),
            identification: Identification::new(worker, workers),
            lanes: Lanes::default(),
            handovers: Handovers::default(),
            early: ArrayVec::new(),
            originated: Lane::default(),
            whole_way_only: false,
            stopwatch: Stopwatch::default(),
        }
    }

    /// Switches the fast path off, or on again. The two differ in speed only: tests compare what they do, `greyhound-perf
    /// path --whole-way` what they cost.
    pub fn set_whole_way_only(&mut self, whole_way_only: bool) {
        self.whole_way_only = whole_way_only;
    }

    /// Notes from here on how much of the time that `clock` tells each stage takes; a reading a stage and burst.
    pub fn time_stages(&mut self, clock: fn() -> u64) {
        self.stopwatch = Stopwatch::with(clock);
    }

    /// What each stage took since [`time_stages`](Self::time_stages), in units of its clock.
    pub fn stage_times(&self) -> impl Iterator<Item = (Stage, u64)> {
        self.stopwatch.spent()
    }

    /// Carries a burst that came in by `port` to its end: every packet is queued to leave, waits, is handed over, is
    /// consumed or is dropped. `batch` is empty afterwards. `now_ns` is a monotonic time in nanoseconds.
    pub fn receive(&mut self, port: PortIndex, batch: &mut Batch, now_ns: u64) {
        self.counters.add(WorkerCounter::Received, batch.len() as u64);
        if let Some(vlan) = self.vlans.get(port.index()).copied().flatten() {
            tag::take_off_all(batch, vlan, &mut self.counters);
        }
        let whole_way_only = self.whole_way_only;
        self.run(now_ns, |ctx, lanes| {
            if whole_way_only {
                batch.drain(..).for_each(|frame| ingress::receive(ctx, port, frame, lanes));
            } else {
                fast::receive(ctx, port, batch, lanes);
            }
        });
    }

    /// Carries packets that other workers handed over, at most a burst of them; none while some wait for this worker to
    /// switch.
    pub fn take_over(&mut self, packets: impl Iterator<Item = HandedOver>, now_ns: u64) {
        if !self.early.is_empty() {
            return;
        }
        let mut early = std::mem::take(&mut self.early);
        self.run(now_ns, |ctx, lanes| {
            let generation = ctx.tables.number;
            let handed = packets.take(BURST).filter_map(|handed| {
                ctx.counters.add(WorkerCounter::HandedIn, 1);
                if early.is_empty() && !handed.is_early(generation) {
                    return Some(handed);
                }
                early.push(handed);
                None
            });
            let handed: ArrayVec<_, BURST> = handed.collect();
            take_over(ctx, handed, lanes);
        });
        self.early = early;
    }

    /// Gives what belongs to other workers to `give`, which returns what it has no room for.
    pub fn hand_over(&mut self, mut give: impl FnMut(WorkerId, HandedOver) -> Result<(), HandedOver>) {
        for (owner, handed) in self.handovers.drain() {
            match give(owner, handed) {
                Ok(()) => self.counters.add(WorkerCounter::HandedOut, 1),
                Err(_refused) => self.counters.drop_packets(DropReason::HandoverFull, 1),
            }
        }
    }

    /// Sends what the schedulers let go by now: for ports without a service policy nothing. Returns how many packets.
    pub fn release(&mut self, now_ns: u64) -> usize {
        if self.state.tables.quality.is_empty() {
            return 0;
        }
        let mut let_go = 0;
        let ports = self.macs.len();
        self.run(now_ns, |ctx, _| {
            for port in (0..).map(PortIndex).take(ports) {
                let_go += scheduled::leave(ctx, port);
            }
        });
        let_go
    }

    /// Offers the frames queued for `port` to `send`, which takes packets from the front of its batch and leaves the
    /// rest. Returns what was taken.
    pub fn transmit(&mut self, port: PortIndex, send: impl FnMut(&mut Batch) -> usize) -> Sent {
        let sent = self.transmission.send(port, send);
        self.counters.add(WorkerCounter::Transmitted, sent.frames);
        if sent.no_headroom > 0 {
            self.counters.drop_packets(DropReason::NoHeadroom, sent.no_headroom);
        }
        sent
    }

    /// Looks after packets that wait for neighbours; to be called every few milliseconds.
    pub fn tick(&mut self, now_ns: u64) {
        self.run(now_ns, |ctx, _| neighbor::tick(ctx));
    }

    /// Runs on `state` from the next burst on; the old state comes back, to be freed elsewhere.
    ///
    /// What a worker that has switched before handed over meanwhile is taken over, and what waits in a scheduler whose port's policies change goes on in the next one. It is dropped if it has no class
    /// there (`qos_gone`), no room (`qos_no_room`), or is longer than the port now takes (`mtu_changed`).
    pub fn switch(&mut self, state: Arc<State>, now_ns: u64) -> Arc<State> {
        self.counters.set(WorkerCounter::Generation, state.tables.number);
        let old = std::mem::replace(&mut self.state, state);
        let (tables, handoffs) = ((&*old.tables, &*self.state.tables), (&old.handoff, &self.state.handoff));
        let counters = &mut self.counters;
        self.queues.switch(tables, handoffs, now_ns, |packet, reason| {
            counters.drop_packets(reason, 1);
            drop(packet);
        });
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.run(now_ns, |ctx, lanes| take_over(ctx, early, lanes));
        }
        old
    }

    /// The counters, with the gauge of packets held brought up to date.
    pub fn counters(&mut self) -> &mut Counters {
        let held = self.transmission.held()
            + self.waiting.len()
            + self.handovers.len()
            + self.early.len()
            + self.queues.held();
        self.counters.set(WorkerCounter::Held, held as u64);
        &mut self.counters
    }

    /// Frames that wait for `transmit`, over all ports.
    #[must_use]
    pub fn frames_queued(&self) -> usize {
        self.transmission.held()
    }

    /// Runs `first`, then lets everything go that it has put into the lanes.
    fn run(&mut self, now_ns: u64, first: impl FnOnce(&mut Context<'_>, &mut Lanes)) {
        let state = &self.state;
        let mut ctx = Context {
            tables: &state.tables,
            sad: &state.sad,
            neighbors: &self.neighbors,
            pool: &self.pool,
            macs: &self.macs,
            worker: self.worker,
            now_ns,
            counters: &mut self.counters,
            transmission: &mut self.transmission,
            waiting: &mut self.waiting,
            flows: &mut self.flows,
            queues: &mut self.queues,
            limiter: &mut self.limiter,
            identification: &mut self.identification,
            handovers: &mut self.handovers,
            originated: &mut self.originated,
            stopwatch: &mut self.stopwatch,
        };
        ctx.stopwatch.start();
        let lanes = &mut self.lanes;
        first(&mut ctx, lanes);
        whole_way(&mut ctx, lanes);
        ctx.stopwatch.lap(Stage::WholeWay);
    }
}

/// Carries what other workers handed over.
fn take_over(ctx: &mut Context<'_>, packets: ArrayVec<HandedOver, BURST>, lanes: &mut Lanes) {
    let mut to_queue = ArrayVec::new();
    for handed in packets {
        let is_esp = handed.tunnel().is_none();
        let (item, port) = handed.into_parts();
        if is_esp {
            ingress::take_over(ctx, port, item.into_packet(), lanes);
        } else {
            to_queue.push((item, port));
        }
    }
    if !to_queue.is_empty() {
        fast::join(ctx, &mut to_queue);
    }
}

/// The way in, the way out, and the way out of what was originated meanwhile, for all packets in the lanes.
pub(crate) fn whole_way(ctx: &mut Context<'_>, lanes: &mut Lanes) {
    inbound::run(ctx, lanes);
    outbound::run(ctx, &mut lanes.forward);
    if !ctx.originated.is_empty() {
        let mut originated = std::mem::take(ctx.originated);
        outbound::run(ctx, &mut originated);
    }
}

#[cfg(test)]
mod tests {
    use messages::{DropReason, TunnelIndex};
    use tables::Generation;
    use wire::{IpProtocol, ipv4};

    use super::*;
    use crate::queues::{Handoff, Item};
    use crate::sad::Sad;

    fn state(number: u64) -> Arc<State> {
        let mut tables = Generation::empty();
        tables.number = number;
        Arc::new(State { tables: Arc::new(tables), sad: Sad::default(), handoff: Handoff::default() })
    }

    fn counts(pipeline: &mut Pipeline) -> [u64; 3] {
        let counters = pipeline.counters();
        assert_eq!(counters.unaccounted(), 0);
        [
            counters.worker(WorkerCounter::HandedIn),
            counters.worker(WorkerCounter::Held),
            counters.dropped(DropReason::QosGone),
        ]
    }

    #[test]
    fn what_a_worker_that_has_switched_hands_over_waits_until_this_one_has() {
        let pool = Pool::memory(8, 2_048).unwrap();
        let mut pipeline = Pipeline::new(PipelineConfig {
            worker: WorkerId(0),
            workers: 2,
            macs: vec![[2, 0, 0, 0, 0, 1]],
            vlans: Vec::new(),
            pool: pool.clone(),
            neighbors: Arc::new(Neighbors::with_seed(16, 1)),
            state: state(3),
        });
        let mut bytes = [0; 28];
        let repr = ipv4::Repr {
            payload_bytes: 8,
            ..ipv4::Repr::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), IpProtocol::UDP)
        };
        repr.emit(&mut bytes).unwrap();
        let handed = |generation| {
            let item = Item::new(pool.copy_of(&bytes).unwrap(), generation, Some(TunnelIndex(0)));
            HandedOver::queued(item, PortIndex(0))
        };
        let mut ring = [3, 4, 3, 4].map(handed).into_iter();
        pipeline.take_over(ring.by_ref().take(3), 1);
        assert_eq!(counts(&mut pipeline), [3, 2, 1], "the one behind it keeps its place");
        pipeline.take_over(ring.by_ref(), 2);
        assert_eq!((ring.len(), counts(&mut pipeline)), (1, [3, 2, 1]));
        // There is no such tunnel in the next tables either.
        pipeline.switch(state(4), 3);
        assert_eq!(counts(&mut pipeline), [3, 0, 3]);
        pipeline.take_over(ring, 4);
        assert_eq!(counts(&mut pipeline), [4, 0, 4]);
        drop(pipeline);
        assert_eq!(pool.available(), pool.capacity());
    }
}
