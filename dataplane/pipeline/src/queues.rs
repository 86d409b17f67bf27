// SPDX-License-Identifier: Apache-2.0
//! The worker's schedulers: what waits for its turn in front of GRE and ESP.
//!
//! A packet waits as it came, its link header gone and its hop spent. Which tunnel, SA, template and MTU it leaves with is
//! looked up when it leaves ([`crate::scheduled`]).

use std::fmt;

use crossbeam::queue::ArrayQueue;
use messages::{DropReason, PortIndex, TunnelIndex};
use pktbuf::Packet;
use qos::schedule::{Leaving, Next, Offer, Refusal, Scheduler};
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

/// Schedulers on their way to the worker, and back to be freed elsewhere. A state that changes a port's plan brings the
/// new one.
pub struct Handoff {
    fresh: ArrayQueue<(PortIndex, Box<Scheduler<Item>>)>,
    retired: ArrayQueue<Box<Scheduler<Item>>>,
}

impl Default for Handoff {
    fn default() -> Self {
        Self { fresh: ArrayQueue::new(PORTS_MAX), retired: ArrayQueue::new(PORTS_MAX) }
    }
}

impl Handoff {
    /// Adds the scheduler of a port; false if there are too many.
    #[must_use]
    pub fn bring(&self, port: PortIndex, scheduler: Box<Scheduler<Item>>) -> bool {
        self.fresh.push((port, scheduler)).is_ok()
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").field("fresh", &self.fresh.len()).finish_non_exhaustive()
    }
}

/// The schedulers of one worker, by port.
pub(crate) struct Queues {
    ports: Vec<Option<Box<Scheduler<Item>>>>,
}

impl Queues {
    /// Those that the first state brings.
    pub(crate) fn new(ports: usize, first: &Handoff) -> Self {
        let mut queues = Self { ports: (0..ports).map(|_| None).collect() };
        while let Some((port, scheduler)) = first.fresh.pop() {
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

    /// From one state to the next: ports get the schedulers that it brings, which go on with what waits. `gone` gets
    /// every packet that cannot wait there, with the reason.
    pub(crate) fn switch(
        &mut self,
        (before, next): (&Generation, &Generation),
        (old, new): (&Handoff, &Handoff),
        now_ns: u64,
        mut gone: impl FnMut(Packet, DropReason),
    ) {
        while let Some((port, mut scheduler)) = new.fresh.pop() {
            let Some(place) = self.ports.get_mut(port.index()) else { continue };
            if let Some(mut last) = place.take() {
                let plans = before.quality.plan(port).zip(next.quality.plan(port));
                scheduler.succeed(
                    &mut last,
                    now_ns,
                    |slot| plans.and_then(|(before, next)| before.heir(next, slot)),
                    |slot, class| plans.and_then(|(before, next)| Plan::successor(before, next, slot, class)),
                    |item, refusal| gone(item.packet, reason(refusal)),
                );
                // Room for all ports: a queue that is full would free the scheduler here.
                let _ = old.retired.push(last);
            }
            *place = Some(scheduler);
        }
        for (port, place) in (0..).map(PortIndex).zip(&mut self.ports) {
            if next.quality.plan(port).is_none()
                && let Some(mut last) = place.take()
            {
                last.clear(|item| gone(item.packet, DropReason::QosGone));
                let _ = old.retired.push(last);
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
        Refusal::Policed => DropReason::QosPoliced,
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
    use qos::schedule::{
        ClassSlot, ClassSpec, EarlyDrop, Limit, PolicySpec, PortSpec, Service, TunnelSlot, TunnelSpec,
    };
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
        let handoff = Handoff::default();
        assert!(handoff.bring(PortIndex(0), Box::new(Scheduler::new(&spec(3)).unwrap())));
        let mut queues = Queues::new(1, &handoff);
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
    fn an_item_is_two_words() {
        assert_eq!(size_of::<Item>(), 16);
    }
}
