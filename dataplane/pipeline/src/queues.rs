// SPDX-License-Identifier: Apache-2.0
//! The worker's schedulers: what waits for its turn in front of GRE and ESP.
//!
//! A packet waits as it came, its link header gone and its hop spent. Which tunnel, SA, template and MTU it leaves with is
//! looked up when it leaves ([`crate::scheduled`]).

use std::fmt;

use crossbeam::queue::ArrayQueue;
use messages::{DropReason, PortIndex, TunnelIndex, WorkerId};
use pktbuf::Packet;
use qos::schedule::{Leaving, Next, Offer, Refusal, Scheduler, TunnelSlot};
use qos::tally::Tally;
use tables::{Generation, Plan};

/// Ports whose schedulers one state can bring.
const PORTS_MAX: usize = 64;
/// The bit of a plain packet beside its generation.
const PLAIN: u32 = 1 << 31;
/// Stands for no tunnel.
const NO_TUNNEL: u32 = u32::MAX;

/// A packet that waits.
#[derive(Debug)]
pub struct Item {
    packet: Packet,
    /// The low bits of the generation that routed it, and whether it is a plain packet whose hop is not spent.
    generation: u32,
    tunnel: u32,
}

impl Item {
    /// A packet that `generation` routed into a tunnel, or by the port itself.
    #[inline]
    pub(crate) fn new(packet: Packet, generation: u64, tunnel: Option<TunnelIndex>) -> Self {
        Self { packet, generation: low(generation), tunnel: tunnel.map_or(NO_TUNNEL, |tunnel| tunnel.0) }
    }

    /// A plain packet (`fast::plain`) that `generation` routed into a tunnel. Its hop is not spent yet.
    #[inline(always)]
    pub(crate) fn plain(packet: Packet, generation: u64, tunnel: TunnelIndex) -> Self {
        Self { packet, generation: low(generation) | PLAIN, tunnel: tunnel.0 }
    }

    /// Whether later tables than these routed it: the worker that handed it over has switched, and this one has not.
    #[inline]
    pub(crate) fn is_newer_than(&self, generation: u64) -> bool {
        let ahead = (self.generation & !PLAIN).wrapping_sub(low(generation)) & !PLAIN;
        (1..=PLAIN / 2).contains(&ahead)
    }

    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.generation & PLAIN != 0
    }

    #[inline(always)]
    pub(crate) fn packet(&self) -> &Packet {
        &self.packet
    }

    /// The tunnel that it goes into.
    #[inline]
    pub(crate) fn tunnel(&self) -> Option<TunnelIndex> {
        (self.tunnel != NO_TUNNEL).then_some(TunnelIndex(self.tunnel))
    }

    /// Whether other tables than these routed it.
    #[inline]
    pub(crate) fn is_older_than(&self, generation: u64) -> bool {
        self.generation & !PLAIN != low(generation)
    }

    #[inline]
    pub(crate) fn into_packet(self) -> Packet {
        self.packet
    }
}

fn low(generation: u64) -> u32 {
    (generation & u64::from(!PLAIN)) as u32
}

/// Schedulers on their way to their workers, and back to be freed elsewhere. A state that changes a plan brings the new
/// one.
#[derive(Default)]
pub struct Handoff {
    workers: Box<[WorkerHandoff]>,
}

struct WorkerHandoff {
    fresh: ArrayQueue<(PortIndex, Box<Scheduler<Item>>)>,
    retired: ArrayQueue<Box<Scheduler<Item>>>,
}

impl Handoff {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        let worker =
            |_| WorkerHandoff { fresh: ArrayQueue::new(PORTS_MAX), retired: ArrayQueue::new(PORTS_MAX) };
        Self { workers: (0..workers).map(worker).collect() }
    }

    /// Adds a worker's scheduler of a port; false if there are too many, or there is no such worker.
    #[must_use]
    pub fn bring(&self, port: PortIndex, worker: WorkerId, scheduler: Box<Scheduler<Item>>) -> bool {
        let worker = self.workers.get(worker.index());
        worker.is_some_and(|worker| worker.fresh.push((port, scheduler)).is_ok())
    }

    fn take(&self, worker: WorkerId) -> Option<(PortIndex, Box<Scheduler<Item>>)> {
        self.workers.get(worker.index())?.fresh.pop()
    }

    fn retire(&self, worker: WorkerId, scheduler: Box<Scheduler<Item>>) {
        // Room for all ports: a queue that is full would free the scheduler here.
        if let Some(worker) = self.workers.get(worker.index()) {
            let _ = worker.retired.push(scheduler);
        }
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// The schedulers of one worker, by port.
pub(crate) struct Queues {
    worker: WorkerId,
    ports: Vec<Option<Box<Scheduler<Item>>>>,
}

impl Queues {
    /// Those that the first state brings.
    pub(crate) fn new(worker: WorkerId, ports: usize, first: &Handoff) -> Self {
        let mut queues = Self { worker, ports: (0..ports).map(|_| None).collect() };
        while let Some((port, scheduler)) = first.take(worker) {
            if let Some(place) = queues.ports.get_mut(port.index()) {
                *place = Some(scheduler);
            }
        }
        queues
    }

    /// Packets that wait.
    pub(crate) fn held(&self) -> usize {
        self.ports.iter().flatten().map(|scheduler| scheduler.queued() as usize).sum()
    }

    /// How many packets of one tunnel of this port, from the first on, may go on without being queued; they count as sent.
    #[inline]
    pub(crate) fn pass<'o>(
        &mut self,
        (port, tunnel): (PortIndex, TunnelSlot),
        offers: impl Iterator<Item = &'o Offer>,
        now_ns: u64,
    ) -> usize {
        let scheduler = self.ports.get_mut(port.index()).and_then(Option::as_mut);
        scheduler.map_or(0, |scheduler| scheduler.pass(tunnel, offers, now_ns))
    }

    /// Whether [`pass_all`](Self::pass_all) is worth asking.
    #[inline]
    pub(crate) fn may_pass_all(&mut self, port: PortIndex, now_ns: u64) -> bool {
        let scheduler = self.ports.get_mut(port.index()).and_then(Option::as_mut);
        scheduler.is_some_and(|scheduler| scheduler.may_pass_all(now_ns))
    }

    /// As [`pass`](Self::pass), of packets of which each class's sum is known: all or none.
    #[inline]
    pub(crate) fn pass_all(
        &mut self,
        (port, tunnel): (PortIndex, TunnelSlot),
        packets: &Tally,
        longest: u32,
        now_ns: u64,
    ) -> bool {
        let scheduler = self.ports.get_mut(port.index()).and_then(Option::as_mut);
        scheduler.is_some_and(|scheduler| scheduler.pass_all(tunnel, packets, longest, now_ns))
    }

    /// Queues a packet of this port; gives it back with the reason if it may not wait.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        port: PortIndex,
        item: Item,
        offer: Offer,
        now_ns: u64,
    ) -> Result<(), (Packet, DropReason)> {
        match self.ports.get_mut(port.index()).and_then(Option::as_mut) {
            Some(scheduler) => scheduler
                .enqueue(item, offer, now_ns)
                .map_err(|refused| (refused.item.packet, reason(refused.refusal))),
            None => Err((item.packet, DropReason::QosGone)),
        }
    }

    /// What is next to leave by a port; with the packet if something is to be dropped.
    #[inline]
    pub(crate) fn next(&mut self, port: PortIndex, now_ns: u64) -> Turn {
        let Some(scheduler) = self.ports.get_mut(port.index()).and_then(Option::as_mut) else {
            return Turn::Nothing;
        };
        match scheduler.dequeue(now_ns) {
            Next::Leaving(Leaving { item, mark, .. }) => Turn::Leaving { item, mark },
            Next::Refused(refused) => Turn::Drop(refused.item.packet, reason(refused.refusal)),
            Next::Wait(_) => Turn::Nothing,
        }
    }

    /// No more leaves by a port in this turn: what waits is told to the other workers that send by it.
    #[inline]
    pub(crate) fn rest(&mut self, port: PortIndex, now_ns: u64) {
        if let Some(scheduler) = self.ports.get_mut(port.index()).and_then(Option::as_mut) {
            scheduler.rest(now_ns);
        }
    }

    /// The device of a port takes no more for now: what this worker has in hand of what others share goes back.
    #[inline]
    pub(crate) fn pause(&mut self, port: PortIndex, now_ns: u64) {
        if let Some(scheduler) = self.ports.get_mut(port.index()).and_then(Option::as_mut) {
            scheduler.pause(now_ns);
        }
    }

    /// From one state to the next: ports get the schedulers that it brings, which go on with what waits. `gone` gets
    /// every packet that cannot wait there, with the reason.
    pub(crate) fn switch(
        &mut self,
        (before, next): (&Generation, &Generation),
        (old, new): (&Handoff, &Handoff),
        now_ns: u64,
        mut gone: impl FnMut(Packet, DropReason),
    ) {
        let worker = self.worker;
        while let Some((port, mut scheduler)) = new.take(worker) {
            let Some(place) = self.ports.get_mut(port.index()) else { continue };
            if let Some(mut last) = place.take() {
                let plans = before.quality.plan(port, worker).zip(next.quality.plan(port, worker));
                scheduler.succeed(
                    &mut last,
                    now_ns,
                    |slot| plans.and_then(|(before, next)| before.heir(next, slot)),
                    |slot, class| plans.and_then(|(before, next)| Plan::successor(before, next, slot, class)),
                    |item, refusal| gone(item.packet, reason(refusal)),
                );
                old.retire(worker, last);
            }
            *place = Some(scheduler);
        }
        for (port, place) in (0..).map(PortIndex).zip(&mut self.ports) {
            if next.quality.plan(port, worker).is_none()
                && let Some(mut last) = place.take()
            {
                last.clear(|item| gone(item.packet, DropReason::QosGone));
                old.retire(worker, last);
            }
        }
    }
}

/// What a port's scheduler wants done.
pub(crate) enum Turn {
    /// Send this; with a CE mark, if it has become one.
    Leaving { item: Item, mark: bool },
    /// Drop this.
    Drop(Packet, DropReason),
    /// Nothing for now.
    Nothing,
}

fn reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::NoSuchClass => DropReason::QosGone,
        // The longest packet of a plan is its port's MTU.
        Refusal::BadSize => DropReason::MtuChanged,
        Refusal::QueueLimit => DropReason::QosQueueLimit,
        Refusal::Wred => DropReason::QosWred,
        Refusal::CoDel => DropReason::QosCodel,
        Refusal::Pie => DropReason::QosPie,
        Refusal::NoRoom => DropReason::QosNoRoom,
    }
}

#[cfg(test)]
mod tests {
    use pktbuf::Pool;
    use qos::schedule::{ClassSlot, ClassSpec, EarlyDrop, Limit, PolicySpec, PortSpec, Service, TunnelSpec};
    use wire::{Dscp, Ecn};

    use super::*;

    fn spec(items_max: u32) -> PortSpec {
        let class = ClassSpec {
            service: Service::Priority { level: 0 },
            police: None,
            limit: Limit::Packets(100),
            early: EarlyDrop::None,
            ecn: false,
            delays: false,
        };
        PortSpec {
            shape: None,
            packet_bytes_max: 1_538,
            items_max,
            seed: 1,
            policies: vec![PolicySpec { classes: vec![class] }],
            tunnels: vec![TunnelSpec { shape: None, weight: 1, policy: 0 }],
        }
    }

    #[test]
    fn a_scheduler_without_room_gives_the_packet_back() {
        let pool = Pool::memory(8, 2_048).unwrap();
        let handoff = Handoff::new(2);
        let scheduler = || Box::new(Scheduler::new(&spec(3)).unwrap());
        assert!(handoff.bring(PortIndex(0), WorkerId(1), scheduler()));
        assert!(!handoff.bring(PortIndex(0), WorkerId(2), scheduler()));
        let mut queues = Queues::new(WorkerId(1), 1, &handoff);
        let (tunnel, class) = (TunnelSlot(0), ClassSlot(0));
        let offer = Offer { tunnel, class, wire_bytes: 84, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct };
        let refused = (0..5).filter_map(|_| {
            let item = Item::new(pool.copy_of(&[0; 60]).unwrap(), 1, None);
            queues.enqueue(PortIndex(0), item, offer, 0).err().map(|(_, reason)| reason)
        });
        assert_eq!(refused.collect::<Vec<_>>(), [DropReason::QosNoRoom; 2]);
        assert_eq!(queues.held(), 3);
        let item = Item::new(pool.copy_of(&[0; 60]).unwrap(), 1, None);
        let no_such_port = queues.enqueue(PortIndex(1), item, offer, 0).map_err(|(_, reason)| reason);
        assert_eq!(no_such_port, Err(DropReason::QosGone));
    }

    #[test]
    fn which_tables_are_newer_is_known_beyond_the_end_of_their_short_numbers() {
        let pool = Pool::memory(1, 2_048).unwrap();
        let newer = |of: u64, than: u64| {
            Item::plain(pool.copy_of(&[0; 60]).unwrap(), of, TunnelIndex(0)).is_newer_than(than)
        };
        assert!(newer(8, 7) && newer(1 << 31, (1 << 31) - 1) && newer((1 << 31) + 5, 1 << 31));
        assert!(!newer(7, 7) && !newer(6, 7) && !newer((1 << 31) - 1, 1 << 31));
    }

    #[test]
    fn an_item_is_two_words() {
        assert_eq!(size_of::<Item>(), 16);
    }
}
