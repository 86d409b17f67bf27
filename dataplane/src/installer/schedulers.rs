// SPDX-License-Identifier: Apache-2.0
//! The schedulers of ports: made here, off the workers, whenever a commit changes what one has to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{ClassDrops, ObjectId, PortIndex, QueueState, Refusal, ServiceTarget};
use pipeline::{Handoff, Item};
use qos::TrafficProfile;
use qos::schedule::{ClassSlot, ClassState, Counters, Refusal as Cause, Scheduler, Stats, TunnelSlot};
use tables::{Generation, Plan};

/// Packets that wait in a port's scheduler at most, unless something else is said.
const ROOM: u32 = 8_192;

/// Fewer than a class's usual queue: no scheduler is made then.
const ROOM_MIN: u32 = 64;

/// What is known of the schedulers that run.
pub(super) struct Schedulers {
    room: u32,
    ports: BTreeMap<PortIndex, Running>,
}

struct Running {
    plan: Arc<Plan>,
    stats: Arc<Stats>,
}

impl Default for Schedulers {
    fn default() -> Self {
        Self::with_room_for(ROOM)
    }
}

impl Schedulers {
    pub(super) fn with_room_for(room: u32) -> Self {
        Self { room, ports: BTreeMap::new() }
    }

    /// New schedulers for the ports whose plan is another one; the others go on.
    ///
    /// # Errors
    /// There cannot be such a scheduler; nothing has changed then.
    pub(super) fn switch(&mut self, tables: &Generation) -> Result<Handoff, Refusal> {
        let handoff = Handoff::default();
        let mut ports = BTreeMap::new();
        for (port, plan) in tables.quality.plans() {
            let running = match self.ports.get(&port) {
                Some(running) if Arc::ptr_eq(&running.plan, plan) => {
                    Running { plan: Arc::clone(plan), stats: Arc::clone(&running.stats) }
                }
                _ => self.bring(&handoff, port, plan)?,
            };
            ports.insert(port, running);
        }
        self.ports = ports;
        Ok(handoff)
    }

    fn bring(&self, handoff: &Handoff, port: PortIndex, plan: &Arc<Plan>) -> Result<Running, Refusal> {
        let out_of_memory = out_of_memory(port);
        self.check_room(port)?;
        let spec = qos::schedule::PortSpec { items_max: self.room, ..plan.spec.clone() };
        let scheduler = Scheduler::<Item>::new(&spec).map_err(|_| out_of_memory)?;
        let stats = Arc::clone(scheduler.stats());
        if !handoff.bring(port, Box::new(scheduler)) {
            return Err(out_of_memory);
        }
        Ok(Running { plan: Arc::clone(plan), stats })
    }

    fn check_room(&self, port: PortIndex) -> Result<(), Refusal> {
        if self.room >= ROOM_MIN {
            return Ok(());
        }
        let (room, more) = (self.room, 2 * (ROOM_MIN - self.room));
        tracing::error!(
            "a service policy is refused: of memory.packets {room} are left for each port's queues, and {ROOM_MIN} are needed; raise it by {more} for each port, or give ports fewer descriptors"
        );
        Err(out_of_memory(port))
    }

    /// Every class, port by port.
    pub(super) fn states(&self) -> impl Iterator<Item = QueueState> + '_ {
        self.ports.iter().flat_map(|(port, running)| running.states(*port))
    }
}

fn out_of_memory(port: PortIndex) -> Refusal {
    Refusal::OutOfMemory(ObjectId::ServicePolicy(ServiceTarget::Port(port)))
}

impl Running {
    fn states(&self, port: PortIndex) -> impl Iterator<Item = QueueState> + '_ {
        let owners = (0..).map(TunnelSlot).zip(&self.plan.owners);
        let used = owners.filter(|(slot, _)| slot.0 > 0 || self.plan.takes_all);
        used.flat_map(move |(slot, target)| {
            let classes = self.plan.classes_of(slot).map_or(0, <[_]>::len);
            let classes = (0..u8::try_from(classes).unwrap_or(u8::MAX)).map(ClassSlot);
            classes.filter_map(move |class| self.state(port, *target, slot, class))
        })
    }

    fn state(
        &self,
        port: PortIndex,
        target: ServiceTarget,
        slot: TunnelSlot,
        class: ClassSlot,
    ) -> Option<QueueState> {
        let ClassState { counters, delays } = self.stats.class(slot, class)?;
        let queued = counters.queued();
        let percentile = |percent| delays.as_ref().and_then(|delays| delays.percentile_ns(percent));
        let (shaper, tokens) = self.shaper(target, slot);
        let tokens = tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        Some(QueueState {
            port,
            target,
            class: class.0,
            offered_packets: counters.offered.packets,
            offered_bytes: counters.offered.bytes,
            sent_packets: counters.sent.packets,
            sent_bytes: counters.sent.bytes,
            dropped: drops(&counters),
            marked: counters.marked,
            queued_packets: queued.packets,
            queued_bytes: queued.bytes,
            delay_p50_ns: percentile(50),
            delay_p99_ns: percentile(99),
            tokens_bytes: shaper.and(tokens),
            burst_bytes: shaper.map(|shaper| shaper.burst_bytes),
            rate_bps: shaper.map(|shaper| shaper.rate.bps()),
        })
    }

    fn shaper(&self, target: ServiceTarget, slot: TunnelSlot) -> (Option<TrafficProfile>, Option<u64>) {
        match target {
            ServiceTarget::Port(_) => (self.plan.spec.shape, Some(self.stats.port_tokens())),
            ServiceTarget::Tunnel(_) => {
                let tunnel = self.plan.spec.tunnels.get(slot.0 as usize);
                (tunnel.and_then(|tunnel| tunnel.shape), self.stats.tunnel_tokens(slot))
            }
        }
    }
}

fn drops(counters: &Counters) -> ClassDrops {
    ClassDrops {
        policed: counters.dropped(Cause::Policed),
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
        let check = |room| Schedulers::with_room_for(room).check_room(PortIndex(1));
        assert_eq!(check(63), Err(out_of_memory(PortIndex(1))));
        assert_eq!(check(64), Ok(()));
    }
}
