// SPDX-License-Identifier: Apache-2.0
//! Quality of service: which packets are scheduled, as what class, by which port's scheduler.
//!
//! ```text
//! tunnel ─▶ its owner ─▶ its slot in the owner's scheduler of its egress port ─┐
//! port   ─▶ slot 0 at any worker, for all that has no policy of its own ───────┴▶ classifier ─▶ class ─▶ [scheduler]
//! ```
//!
//! Each worker has a scheduler of its own for each port. A [`Plan`] says what one has to be; while it stays the same, the
//! scheduler goes on as it is. The scheduler itself, with its queues and tokens, is the worker's.

mod classes;
mod plan;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{PolicyMapIndex, PortIndex, Refusal, TosPolicy, TunnelIndex, WorkerId};
use qos::classify::{Arrival, Headers, KeyV4, NO_TUNNEL, WholeV4};
use qos::schedule::{ClassSlot, TunnelSlot};
use wire::flow::{Fragment, Parsed};
use wire::{Dscp, Ecn, Family, IpProtocol, ipv4, ipv6};

pub use plan::Plan;

use crate::compile::same;
use crate::encapsulation::Encapsulation;
use crate::{Generation, Limits, Shadow, Tunnels};
use classes::Policy;

/// Slot of what has no policy of its own.
const OWN: TunnelSlot = TunnelSlot(0);

/// See the module's head. Cloning is a few reference counts.
#[derive(Clone, Default)]
pub struct Quality {
    ports: Arc<[Option<PortQueues>]>,
    /// By tunnel; only those with a policy of their own, or without pre-classify.
    tunnels: Arc<[TunnelQueue]>,
    policies: Arc<BTreeMap<PolicyMapIndex, Arc<Policy>>>,
}

/// The schedulers of a port, as far as they are constant.
#[derive(Clone)]
struct PortQueues {
    /// The port's own policy.
    own: Option<Arc<Policy>>,
    /// By worker; those that have something to send.
    workers: Box<[Option<WorkerQueues>]>,
}

/// One worker's scheduler of a port.
#[derive(Clone)]
struct WorkerQueues {
    plan: Arc<Plan>,
    /// The policy of each slot.
    policies: Box<[Arc<Policy>]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct TunnelQueue {
    /// The worker that owns the tunnel, and its slot there; none: the port's.
    slot: Option<(WorkerId, TunnelSlot)>,
    pre_classify: bool,
}

impl TunnelQueue {
    const PORTS_OWN: Self = Self { slot: None, pre_classify: true };
}

/// Where a packet is queued.
#[derive(Clone, Copy)]
pub struct Queue<'a> {
    /// The port.
    pub port: PortIndex,
    /// Its slot in the scheduler.
    pub slot: TunnelSlot,
    /// The only worker that queues there; none: any.
    owner: Option<WorkerId>,
    policy: &'a Policy,
    pre_classify: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The class's place in its policy-map.
    pub slot: ClassSlot,
    /// The DSCP it gets.
    pub set_dscp: Option<Dscp>,
}

impl Quality {
    /// Whether nothing is scheduled anywhere.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// What a worker's scheduler of a port has to be; `None` if it has none.
    #[must_use]
    pub fn plan(&self, port: PortIndex, worker: WorkerId) -> Option<&Arc<Plan>> {
        let queues = self.ports.get(port.index())?.as_ref()?.workers.get(worker.index())?;
        Some(&queues.as_ref()?.plan)
    }

    /// All schedulers.
    pub fn plans(&self) -> impl Iterator<Item = (PortIndex, WorkerId, &Arc<Plan>)> {
        let ports = (0..).map(PortIndex).zip(self.ports.iter());
        ports.filter_map(|(port, queues)| Some((port, queues.as_ref()?))).flat_map(|(port, queues)| {
            let workers = (0..).map(WorkerId).zip(queues.workers.iter());
            workers.filter_map(move |(worker, queues)| Some((port, worker, &queues.as_ref()?.plan)))
        })
    }

    /// Whether packets that leave by a port without a tunnel are queued.
    #[inline]
    #[must_use]
    pub fn takes_port(&self, port: PortIndex) -> bool {
        !self.is_empty() && self.port(port).is_some()
    }

    /// Where packets into a tunnel that leaves by `egress` are queued; `None`: nowhere.
    #[inline]
    #[must_use]
    pub fn tunnel(&self, tunnel: TunnelIndex, egress: PortIndex) -> Option<Queue<'_>> {
        let queues = self.ports.get(egress.index())?.as_ref()?;
        let TunnelQueue { slot, pre_classify } =
            self.tunnels.get(tunnel.index()).copied().unwrap_or(TunnelQueue::PORTS_OWN);
        let Some((owner, slot)) = slot else { return queues.own(egress, pre_classify) };
        let policy = queues.workers.get(owner.index())?.as_ref()?.policies.get(slot.0 as usize)?;
        Some(Queue { port: egress, slot, owner: Some(owner), policy, pre_classify })
    }

    /// Where packets that leave by a port without a tunnel are queued; `None`: nowhere.
    #[inline]
    #[must_use]
    pub fn port(&self, port: PortIndex) -> Option<Queue<'_>> {
        self.ports.get(port.index())?.as_ref()?.own(port, true)
    }
}

impl PortQueues {
    fn own(&self, port: PortIndex, pre_classify: bool) -> Option<Queue<'_>> {
        Some(Queue { port, slot: OWN, owner: None, policy: self.own.as_ref()?, pre_classify })
    }
}

impl Queue<'_> {
    /// The worker that has to queue what `worker` has, if it is another one.
    #[inline(always)]
    #[must_use]
    pub fn owner_beside(&self, worker: WorkerId) -> Option<WorkerId> {
        self.owner.filter(|owner| *owner != worker)
    }

    /// Whether classes look at the original packet.
    #[inline(always)]
    #[must_use]
    pub fn pre_classifies(&self) -> bool {
        self.pre_classify
    }

    /// Appends the classes of whole IPv4 packets on their way into a tunnel, by their original headers.
    #[inline]
    pub fn classify_v4<const BURST: usize>(
        &self,
        packets: impl Iterator<Item = WholeV4>,
        ingress: PortIndex,
        tunnel: TunnelIndex,
        classes: &mut ArrayVec<Class, BURST>,
    ) {
        let arrival = Arrival { port: ingress.0, vlan_priority: None, tunnel: tunnel.0 };
        let keys: ArrayVec<KeyV4, BURST> =
            packets.take(classes.remaining_capacity()).map(|whole| KeyV4::new(&whole, &arrival)).collect();
        self.policy.classify_v4(&keys, classes);
    }

    /// The class of a packet: by its original headers, or without pre-classify by the headers that it will have.
    #[inline]
    #[must_use]
    pub fn classify(
        &self,
        parsed: &Parsed,
        tcp_flags: u8,
        ingress: PortIndex,
        into: Option<(TunnelIndex, &Encapsulation)>,
    ) -> Class {
        let tunnel = into.map_or(NO_TUNNEL, |(tunnel, _)| tunnel.0);
        let arrival = Arrival { port: ingress.0, vlan_priority: None, tunnel };
        let outer = into.filter(|_| !self.pre_classify).and_then(|(_, way)| delivered(parsed, way));
        self.policy.classify(&Headers::of(outer.as_ref().unwrap_or(parsed), tcp_flags, arrival))
    }
}

/// The headers that a packet will have outside.
fn delivered(parsed: &Parsed, way: &Encapsulation) -> Option<Parsed> {
    let (family, source, destination, protocol) = outermost(way.template.bytes())?;
    let behind = way.template.inner.map_or(parsed.tos, |inner| tos(inner.tos, parsed.tos));
    Some(Parsed {
        family,
        source,
        destination,
        protocol,
        source_port: 0,
        destination_port: 0,
        fragment: Fragment::None,
        tos: tos(way.template.outer.tos, behind),
        ..*parsed
    })
}

fn outermost(headers: &[u8]) -> Option<(Family, IpAddr, IpAddr, IpProtocol)> {
    match headers.first()? >> 4 {
        4 => {
            let (header, _) = ipv4::Header::split(headers).ok()?;
            Some((Family::Ipv4, header.source().into(), header.destination().into(), header.protocol()))
        }
        6 => {
            let (header, _) = ipv6::Header::split(headers).ok()?;
            Some((Family::Ipv6, header.source().into(), header.destination().into(), header.next_header()))
        }
        _ => None,
    }
}

fn tos(policy: TosPolicy, behind: u8) -> u8 {
    match policy {
        TosPolicy::Copy => behind,
        TosPolicy::Dscp(dscp) => Dscp::new(dscp).unwrap_or(Dscp::DEFAULT).tos(Ecn::of_tos(behind)),
    }
}

/// What is needed to build it.
pub(crate) struct Inputs<'a> {
    pub(crate) wanted: &'a Shadow,
    pub(crate) limits: &'a Limits,
    pub(crate) tunnels: &'a Tunnels,
    pub(crate) previous: Option<&'a Generation>,
}

impl Inputs<'_> {
    /// # Errors
    /// What cannot be classified or scheduled as it is wanted.
    pub(crate) fn build(&self) -> Result<Quality, Refusal> {
        if self.wanted.service_policies.is_empty() && self.wanted.has_no_maps() {
            return Ok(Quality::default());
        }
        classes::dangling(self.wanted)?;
        let policies = self.policies()?;
        let (ports, tunnels) = plan::build(self, &policies)?;
        Ok(Quality { ports, tunnels, policies })
    }

    /// The policies, which are shared with the previous generation if no map has changed: classifiers are expensive.
    fn policies(&self) -> Result<Arc<BTreeMap<PolicyMapIndex, Arc<Policy>>>, Refusal> {
        let unchanged = self.previous.filter(|previous| {
            let before = previous.wanted();
            same(&before.class_maps, &self.wanted.class_maps)
                && same(&before.criteria, &self.wanted.criteria)
                && same(&before.policy_maps, &self.wanted.policy_maps)
                && same(&before.policy_classes, &self.wanted.policy_classes)
        });
        match unchanged {
            Some(previous) if !previous.quality.policies.is_empty() => {
                Ok(Arc::clone(&previous.quality.policies))
            }
            _ => classes::policies(self.wanted).map(Arc::new),
        }
    }
}

#[cfg(test)]
mod tests;
