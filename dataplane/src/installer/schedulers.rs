// SPDX-License-Identifier: Apache-2.0
//! The schedulers of ports: made here, off the workers, whenever a commit changes what one has to be.
//!
//! Each worker has a scheduler of its own for each port. With several workers those of a port share its tokens,
//! which outlive them: workers switch at different moments.

use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{ClassDrops, ObjectId, PortIndex, QueueState, Refusal, ServiceTarget, WorkerId};
use pipeline::{Handoff, Item};
use qos::schedule::{
    ClassSlot, ClassState, Counters, Membership, PortSpec, Refusal as Cause, Scheduler, Stats, TunnelSlot,
};
use qos::{PortShare, TrafficProfile};
use tables::{Conditioned, Generation, Plan, Quality};

/// Packets that wait in a port's schedulers at most, unless something else is said.
const ROOM: u32 = 8_192;

/// Fewer than a class's usual queue: no scheduler is made then.
const ROOM_MIN: u32 = 64;

/// What is known of the schedulers that run.
pub(super) struct Schedulers {
    /// Of one scheduler.
    room: u32,
    workers: u16,
    ports: BTreeMap<PortIndex, Port>,
}

/// What is known of a port's schedulers.
struct Port {
    share: Arc<PortShare>,
    workers: BTreeMap<WorkerId, Running>,
}

struct Running {
    plan: Arc<Plan>,
    stats: Arc<Stats>,
}

impl Schedulers {
    /// For so many workers.
    pub(super) fn new(workers: u16) -> Self {
        Self::with_room_for(ROOM, workers)
    }

    /// For so many workers, whose schedulers of one port hold so many packets together.
    pub(super) fn with_room_for(room: u32, workers: u16) -> Self {
        Self { room: room / u32::from(workers.max(1)), workers, ports: BTreeMap::new() }
    }

    /// New schedulers where the plan is another one; the others go on.
    ///
    /// # Errors
    /// There cannot be such a scheduler; nothing has changed then.
    pub(super) fn switch(&mut self, tables: &Generation) -> Result<Handoff, Refusal> {
        let handoff = Handoff::new(self.workers);
        let mut ports: BTreeMap<PortIndex, Port> = BTreeMap::new();
        for (port, worker, plan) in tables.quality.plans() {
            let before = self.ports.get(&port);
            let after = ports.entry(port).or_insert_with(|| Port::after(before, self.workers));
            let running = before.and_then(|before| before.workers.get(&worker));
            let membership = Membership { share: Arc::clone(&after.share), worker: worker.0 };
            let running = match running {
                Some(running) if Arc::ptr_eq(&running.plan, plan) => {
                    Running { plan: Arc::clone(plan), stats: Arc::clone(&running.stats) }
                }
                _ => self.bring(&handoff, port, plan, &membership)?,
            };
            after.workers.insert(worker, running);
        }
        self.ports = ports;
        Ok(handoff)
    }

    fn bring(
        &self,
        handoff: &Handoff,
        port: PortIndex,
        plan: &Arc<Plan>,
        membership: &Membership,
    ) -> Result<Running, Refusal> {
        let out_of_memory = out_of_memory(port);
        self.check_room(port)?;
        let spec = PortSpec { items_max: self.room, ..plan.spec.clone() };
        let scheduler = match self.workers {
            ..=1 => Scheduler::<Item>::new(&spec),
            _ => Scheduler::of_worker(&spec, membership),
        };
        let scheduler = scheduler.map_err(|_| out_of_memory)?;
        let stats = Arc::clone(scheduler.stats());
        if !handoff.bring(port, WorkerId(membership.worker), Box::new(scheduler)) {
            return Err(out_of_memory);
        }
        Ok(Running { plan: Arc::clone(plan), stats })
    }

    fn check_room(&self, port: PortIndex) -> Result<(), Refusal> {
        if self.room >= ROOM_MIN {
            return Ok(());
        }
        let (room, more) = (self.room, 2 * u32::from(self.workers) * (ROOM_MIN - self.room));
        tracing::error!(
            "a service policy is refused: of memory.packets {room} are left for each worker's queues of a port, and {ROOM_MIN} are needed; raise it by {more} for each port, or give ports fewer descriptors"
        );
        Err(out_of_memory(port))
    }

    /// Every class: those with queues port by port, the port's own first, then those of its tunnels, worker by worker; at
    /// last those without queues.
    pub(super) fn states<'a>(&'a self, quality: &'a Quality) -> impl Iterator<Item = QueueState> + 'a {
        let queued = self.ports.iter().flat_map(|(port, known)| {
            let tunnels = known.workers.values().flat_map(|running| running.tunnels(*port, quality));
            known.own(*port, quality).into_iter().chain(tunnels)
        });
        queued.chain(quality.unqueued().flat_map(|(port, target, conditioner)| {
            conditioner.all().map(move |(class, conditioned)| unqueued(port, target, class, &conditioned))
        }))
    }
}

fn out_of_memory(port: PortIndex) -> Refusal {
    Refusal::OutOfMemory(ObjectId::ServicePolicy(ServiceTarget::Port(port)))
}

/// A class that nothing waits in.
fn unqueued(
    port: PortIndex,
    target: ServiceTarget,
    class: ClassSlot,
    conditioned: &Conditioned,
) -> QueueState {
    let offered = conditioned.offered();
    let dropped = conditioned.dropped;
    QueueState {
        port,
        target,
        class: class.0,
        offered_packets: offered.packets,
        offered_bytes: offered.bytes,
        sent_packets: offered.packets.saturating_sub(dropped.packets),
        sent_bytes: offered.bytes.saturating_sub(dropped.bytes),
        dropped: ClassDrops { policed: dropped.packets, ..ClassDrops::default() },
        colours: conditioned.is_policed.then_some(conditioned.colours),
        marked: 0,
        queued_packets: 0,
        queued_bytes: 0,
        delay_p50_ns: None,
        delay_p99_ns: None,
        tokens_bytes: None,
        burst_bytes: None,
        rate_bps: None,
    }
}

impl Port {
    fn after(before: Option<&Self>, workers: u16) -> Self {
        let share =
            before.map_or_else(|| Arc::new(PortShare::new(workers)), |before| Arc::clone(&before.share));
        Self { share, workers: BTreeMap::new() }
    }

    /// The port's own classes, added up over the workers.
    fn own(&self, port: PortIndex, quality: &Quality) -> Vec<QueueState> {
        let (slot, target) = (TunnelSlot(0), ServiceTarget::Port(port));
        let Some(first) = self.workers.values().next().filter(|running| running.plan.takes_all) else {
            return Vec::new();
        };
        let shape = first.plan.spec.shape;
        let tokens = match self.workers.len() {
            ..=1 => Some(first.stats.port_tokens()),
            _ => shape.map(|shape| self.share.tokens().at(shape, 0).level_bytes()),
        };
        let class = |class| {
            let mut all = self.workers.values().filter_map(|running| running.stats.class(slot, class));
            let mut state = all.next()?;
            all.for_each(|other| state.add(&other));
            Some(queue_state((port, target, class), &state, (shape, tokens), quality))
        };
        first.classes(slot).filter_map(class).collect()
    }
}

impl Running {
    fn tunnels<'a>(&'a self, port: PortIndex, quality: &'a Quality) -> impl Iterator<Item = QueueState> + 'a {
        let tunnels = (0..).map(TunnelSlot).zip(&self.plan.owners).skip(1);
        tunnels.flat_map(move |(slot, target)| {
            self.classes(slot).filter_map(move |class| {
                let state = self.stats.class(slot, class)?;
                let tunnel = self.plan.spec.tunnels.get(slot.0 as usize);
                let shaper = (tunnel.and_then(|tunnel| tunnel.shape), self.stats.tunnel_tokens(slot));
                Some(queue_state((port, *target, class), &state, shaper, quality))
            })
        })
    }

    fn classes(&self, slot: TunnelSlot) -> impl Iterator<Item = ClassSlot> + use<> {
        let classes = self.plan.classes_of(slot).map_or(0, <[_]>::len);
        (0..u8::try_from(classes).unwrap_or(u8::MAX)).map(ClassSlot)
    }
}

/// A class, with what its policer has dropped in front of the queue.
fn queue_state(
    (port, target, class): (PortIndex, ServiceTarget, ClassSlot),
    ClassState { counters, delays }: &ClassState,
    (shaper, tokens): (Option<TrafficProfile>, Option<u64>),
    quality: &Quality,
) -> QueueState {
    let conditioned = quality.conditioner(target).and_then(|conditioner| conditioner.conditioned(class));
    let policed = conditioned.as_ref().map(|conditioned| conditioned.dropped).unwrap_or_default();
    let colours = conditioned.filter(|conditioned| conditioned.is_policed);
    let queued = counters.queued();
    let percentile = |percent| delays.as_ref().and_then(|delays| delays.percentile_ns(percent));
    let tokens = tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    QueueState {
        port,
        target,
        class: class.0,
        offered_packets: counters.offered.packets.wrapping_add(policed.packets),
        offered_bytes: counters.offered.bytes.wrapping_add(policed.bytes),
        sent_packets: counters.sent.packets,
        sent_bytes: counters.sent.bytes,
        dropped: ClassDrops { policed: policed.packets, ..drops(counters) },
        colours: colours.map(|conditioned| conditioned.colours),
        marked: counters.marked,
        queued_packets: queued.packets,
        queued_bytes: queued.bytes,
        delay_p50_ns: percentile(50),
        delay_p99_ns: percentile(99),
        tokens_bytes: shaper.and(tokens),
        burst_bytes: shaper.map(|shaper| shaper.burst_bytes),
        rate_bps: shaper.map(|shaper| shaper.rate.bps()),
    }
}

fn drops(counters: &Counters) -> ClassDrops {
    ClassDrops {
        // By the policer, in front of the scheduler.
        policed: 0,
        queue_limit: counters.dropped(Cause::QueueLimit),
        wred: counters.dropped(Cause::Wred),
        codel: counters.dropped(Cause::CoDel),
        pie: counters.dropped(Cause::Pie),
        no_room: counters.dropped(Cause::NoRoom),
        size: counters.dropped(Cause::BadSize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_for_a_usual_queue_there_is_no_scheduler() {
        let check = |room, workers| Schedulers::with_room_for(room, workers).check_room(PortIndex(1));
        assert_eq!(check(63, 1), Err(out_of_memory(PortIndex(1))));
        assert_eq!(check(64, 1), Ok(()));
        assert_eq!(check(127, 2), Err(out_of_memory(PortIndex(1))));
        assert_eq!(check(128, 2), Ok(()));
    }
}
