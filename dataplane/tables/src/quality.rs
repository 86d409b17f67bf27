// SPDX-License-Identifier: Apache-2.0
//! Quality of service: of what class packets are, what polices them, and which port's scheduler they wait in.
//!
//! ```text
//! tunnel ─▶ its owner ─▶ its slot in the owner's scheduler of its egress port ─┐
//! port   ─▶ slot 0 at any worker, for all that has no policy of its own ───────┴▶ classifier ─▶ class ─▶ policer ─▶ [scheduler]
//! ```
//!
//! A policy without queues has a classifier and policers only: what it lets pass goes on to the port's queues, if there are
//! any. One of a tunnel stands in place of its port's, if that has no queues either.
//!
//! Each worker has a scheduler of its own for each port. A [`Plan`] says what one has to be; while it stays the same, the
//! scheduler goes on as it is. The scheduler itself, with its queues and tokens, is the worker's.

mod classes;
mod conditioner;
mod link;
mod plan;
mod profiles;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{
    PolicyMapIndex, PortIndex, PortSettings, Refusal, ServiceTarget, TosPolicy, TunnelIndex, WorkerId,
};
use qos::classify::{Arrival, FlowCache, Headers, KeyV4, NO_TUNNEL, WholeV4};
use qos::schedule::{ClassSlot, TunnelSlot};
use qos::tally::{Place, Tally};
use wire::flow::{Fragment, Parsed};
use wire::{Dscp, Ecn, Family, IpProtocol, ipv4, ipv6};

pub use conditioner::{Arriving, Conditioned, Conditioner};
pub use plan::Plan;

use crate::compile::same;
use crate::encapsulation::Encapsulation;
use crate::{Generation, Limits, Shadow, Tunnel, Tunnels};
use classes::Policy;
use link::Link;
use profiles::Profiles;

/// Slot of what has no policy of its own.
const OWN: TunnelSlot = TunnelSlot(0);

/// See the module's head. Cloning is a few reference counts.
#[derive(Clone, Default)]
pub struct Quality {
    ports: Arc<[OfPort]>,
    /// By tunnel; only those with a policy of their own, or without pre-classify.
    tunnels: Arc<[OfTunnel]>,
    policies: Arc<BTreeMap<PolicyMapIndex, Arc<Policy>>>,
}

/// What a port has.
#[derive(Clone, Default)]
struct OfPort {
    /// The scheduler of each worker, as far as it is constant; those that have something to send.
    plans: Box<[Option<Arc<Plan>>]>,
    /// The port's own service policy.
    service: Option<Arc<Service>>,
}

impl OfPort {
    /// The port's own slot, if its policy has queues.
    fn queue(&self, port: PortIndex, pre_classify: bool) -> Option<Queue<'_>> {
        let service = self.service.as_deref().filter(|service| service.policy.is_queued())?;
        Some(Queue { port, slot: OWN, owner: None, at_work: AtWork { service, pre_classify } })
    }

    /// The port's own policy, if it has no queues.
    fn conditions(&self, pre_classify: bool) -> Option<AtWork<'_>> {
        let service = self.service.as_deref().filter(|service| !service.policy.is_queued())?;
        Some(AtWork { service, pre_classify })
    }
}

/// What a tunnel has that its port has not.
#[derive(Clone)]
struct OfTunnel {
    service: Option<Arc<Service>>,
    /// If its policy has queues, the worker that owns them, and its place in that worker's scheduler of its port.
    slot: Option<(WorkerId, TunnelSlot)>,
    pre_classify: bool,
}

impl OfTunnel {
    const NOTHING: Self = Self { service: None, slot: None, pre_classify: true };
}

/// A policy at a port or tunnel. What every packet asks for stands in front, together.
#[repr(C)]
struct Service {
    policy: Arc<Policy>,
    /// The port that its packets leave by, and how long they may be.
    profiles: Profiles,
    port: PortIndex,
    /// If it has one: a policy that neither polices nor counts needs none.
    conditioner: Option<Conditioner>,
}

/// A policy at work: on what leaves by a port, or goes into a tunnel.
#[derive(Clone, Copy)]
pub struct AtWork<'a> {
    service: &'a Service,
    pre_classify: bool,
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
    /// The policy.
    pub at_work: AtWork<'a>,
}

/// What service policies do with packets that go one way: first one without queues, then one with.
#[derive(Clone, Copy, Default)]
pub struct Services<'a> {
    /// Packets are metered and marked.
    pub conditions: Option<AtWork<'a>>,
    /// Packets wait here.
    pub queue: Option<Queue<'a>>,
}

impl Queue<'_> {
    fn is(&self, other: &Self) -> bool {
        (self.port, self.slot, self.owner) == (other.port, other.slot, other.owner)
            && self.at_work.is(&other.at_work)
            && self.at_work.pre_classify == other.at_work.pre_classify
    }
}

impl Services<'_> {
    /// Whether there is none.
    #[inline(always)]
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.conditions.is_none() && self.queue.is_none()
    }

    /// Whether the same is done.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let same_conditions = match (&self.conditions, &other.conditions) {
            (Some(one), Some(other)) => one.is(other) && one.pre_classify == other.pre_classify,
            (None, None) => true,
            _ => false,
        };
        let same_queue = match (&self.queue, &other.queue) {
            (Some(one), Some(other)) => one.is(other),
            (None, None) => true,
            _ => false,
        };
        same_conditions && same_queue
    }

    /// Whether classes look at the original packet.
    #[inline(always)]
    #[must_use]
    pub fn pre_classify(&self) -> bool {
        self.conditions.is_none_or(|at_work| at_work.pre_classify)
            && self.queue.is_none_or(|queue| queue.at_work.pre_classify)
    }

    /// The worker that has to queue what `worker` has, if it is another one. It begins with the packet from the front,
    /// so nothing may meter and mark in front of a queue with an owner.
    #[inline(always)]
    #[must_use]
    pub fn owner_beside(&self, worker: WorkerId) -> Option<WorkerId> {
        let owner = self.queue?.owner?;
        debug_assert!(self.conditions.is_none(), "the owner would meter and mark once more");
        (owner != worker).then_some(owner)
    }
}

/// The class of a packet, and what it says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The class's place in its policy-map.
    pub slot: ClassSlot,
    /// The DSCP it gets.
    pub set_dscp: Option<Dscp>,
    /// The 802.1p priority it gets.
    pub set_vlan_priority: Option<u8>,
}

impl Class {
    /// One that no policy-map has.
    const NONE: Self = Self { slot: ClassSlot(u8::MAX), set_dscp: None, set_vlan_priority: None };
}

impl Quality {
    /// Whether there is no service policy anywhere.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.tunnels.is_empty()
    }

    /// What a worker's scheduler of a port has to be; `None` if it has none.
    #[must_use]
    pub fn plan(&self, port: PortIndex, worker: WorkerId) -> Option<&Arc<Plan>> {
        self.ports.get(port.index())?.plans.get(worker.index())?.as_ref()
    }

    /// All schedulers.
    pub fn plans(&self) -> impl Iterator<Item = (PortIndex, WorkerId, &Arc<Plan>)> {
        let ports = (0..).map(PortIndex).zip(self.ports.iter());
        ports.flat_map(|(port, of_port)| {
            let workers = (0..).map(WorkerId).zip(of_port.plans.iter());
            workers.filter_map(move |(worker, plan)| Some((port, worker, plan.as_ref()?)))
        })
    }

    /// Every policy without queues that is at work: the port that its packets leave by, whose it is, and its classes.
    pub fn unqueued(&self) -> impl Iterator<Item = (PortIndex, ServiceTarget, &Conditioner)> {
        let ports = (0..).map(|port| ServiceTarget::Port(PortIndex(port)));
        let tunnels = (0..).map(|tunnel| ServiceTarget::Tunnel(TunnelIndex(tunnel)));
        let ports = ports.zip(self.ports.iter().map(|of_port| of_port.service.as_deref()));
        let tunnels = tunnels.zip(self.tunnels.iter().map(|of_tunnel| of_tunnel.service.as_deref()));
        ports.chain(tunnels).filter_map(|(target, service)| {
            let service = service.filter(|service| !service.policy.is_queued())?;
            Some((service.port, target, service.conditioner.as_ref()?))
        })
    }

    /// What polices the classes of a port or tunnel, if something does.
    #[must_use]
    pub fn conditioner(&self, target: ServiceTarget) -> Option<&Conditioner> {
        self.service(target)?.conditioner.as_ref()
    }

    fn service(&self, target: ServiceTarget) -> Option<&Arc<Service>> {
        match target {
            ServiceTarget::Port(port) => self.ports.get(port.index())?.service.as_ref(),
            ServiceTarget::Tunnel(tunnel) => self.tunnels.get(tunnel.index())?.service.as_ref(),
        }
    }

    /// Whether something has to be done with packets that leave by a port without a tunnel.
    #[inline]
    #[must_use]
    pub fn takes_port(&self, port: PortIndex) -> bool {
        !self.is_empty() && !self.port(port).is_none()
    }

    /// What is done with packets into a tunnel that leaves by `egress`.
    #[inline]
    #[must_use]
    pub fn tunnel(&self, tunnel: TunnelIndex, egress: PortIndex) -> Services<'_> {
        if self.is_empty() {
            return Services::default();
        }
        let of_port = self.ports.get(egress.index());
        let of_tunnel = self.tunnels.get(tunnel.index()).unwrap_or(&OfTunnel::NOTHING);
        let pre_classify = of_tunnel.pre_classify;
        let own = of_tunnel.service.as_deref().map(|service| AtWork { service, pre_classify });
        match (own, of_tunnel.slot) {
            (Some(at_work), Some((owner, slot))) => {
                let queue = Queue { port: egress, slot, owner: Some(owner), at_work };
                Services { conditions: None, queue: Some(queue) }
            }
            _ => Services {
                conditions: own.or_else(|| of_port?.conditions(pre_classify)),
                queue: of_port.and_then(|of_port| of_port.queue(egress, pre_classify)),
            },
        }
    }

    /// What is done with packets that leave by a port without a tunnel.
    #[inline]
    #[must_use]
    pub fn port(&self, port: PortIndex) -> Services<'_> {
        let Some(of_port) = self.ports.get(port.index()) else { return Services::default() };
        Services { conditions: of_port.conditions(true), queue: of_port.queue(port, true) }
    }
}

impl<'a> AtWork<'a> {
    /// Appends the classes of whole IPv4 packets on their way into tunnels, by their original headers, and the 802.1p
    /// priority and the tunnel beside each. A policy with many rules asks the worker's flow cache first.
    #[inline]
    pub fn classify_v4<const BURST: usize>(
        &self,
        packets: impl Iterator<Item = (WholeV4, Option<u8>, TunnelIndex)>,
        ingress: PortIndex,
        (flows, classes): (&mut FlowCache, &mut ArrayVec<Class, BURST>),
    ) {
        let key = |(whole, vlan_priority, tunnel): (WholeV4, Option<u8>, TunnelIndex)| {
            KeyV4::new(&whole, &Arrival { port: ingress.0, vlan_priority, tunnel: tunnel.0 })
        };
        let keys: ArrayVec<KeyV4, BURST> = packets.take(classes.remaining_capacity()).map(key).collect();
        self.service.policy.classify_v4(&keys, flows, classes);
    }

    /// The bytes that an IP packet of `l3_bytes` is on the wire of the port that it leaves by.
    #[inline(always)]
    #[must_use]
    pub fn wire_bytes(&self, l3_bytes: usize) -> u32 {
        self.service.profiles.link.wire_bytes(l3_bytes)
    }

    /// Whether it is the same policy at the same place.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        core::ptr::eq(self.service, other.service)
    }

    /// Whether classes look at the original packet.
    #[inline(always)]
    #[must_use]
    pub fn pre_classifies(&self) -> bool {
        self.pre_classify
    }

    /// Whether the code point alone decides of what class a whole packet is.
    #[inline(always)]
    #[must_use]
    pub fn goes_by_dscp(&self) -> bool {
        self.service.policy.goes_by_dscp()
    }

    /// The class of whole packets with this ToS, if its code point decides alone.
    #[inline(always)]
    #[must_use]
    pub fn by_tos(&self, tos: u8) -> Option<Class> {
        self.service.policy.by_tos(tos)
    }

    /// For each code point where its whole packets are counted if that is all that their class does with them; nowhere if
    /// there is more to do, or more to look at.
    #[inline(always)]
    #[must_use]
    pub fn counted_at(&self) -> &'a [Place; 64] {
        self.service.policy.counted_at()
    }

    /// The class of a packet that came in by a port, with an 802.1p priority or none: by its original headers, or without pre-classify by the headers that it will have.
    #[inline]
    #[must_use]
    pub fn classify(
        &self,
        parsed: &Parsed,
        tcp_flags: u8,
        (ingress, vlan_priority): (PortIndex, Option<u8>),
        into: Option<(TunnelIndex, &Encapsulation)>,
    ) -> Class {
        let tunnel = into.map_or(NO_TUNNEL, |(tunnel, _)| tunnel.0);
        let arrival = Arrival { port: ingress.0, vlan_priority, tunnel };
        let outer = into.filter(|_| !self.pre_classify).and_then(|(_, way)| delivered(parsed, way));
        self.service.policy.classify(&Headers::of(outer.as_ref().unwrap_or(parsed), tcp_flags, arrival))
    }

    /// What DSCP each of many packets goes on with, as [`condition`](Self::condition) says of one; `tally` is to be
    /// [settled](Self::settle).
    #[inline(always)]
    #[must_use]
    pub fn condition_of_many(
        &self,
        arriving: &Arriving,
        worker: WorkerId,
        now_ns: u64,
        tally: &mut Tally,
    ) -> Option<Dscp> {
        match &self.service.conditioner {
            Some(conditioner) => conditioner.condition_of_many(arriving, worker, now_ns, tally),
            None => Some(arriving.class.set_dscp.unwrap_or(arriving.dscp)),
        }
    }

    /// Counts what has gathered of many packets.
    pub fn settle(&self, tally: &Tally, worker: WorkerId) {
        if let Some(conditioner) = &self.service.conditioner {
            conditioner.settle(tally, worker);
        }
    }

    /// What DSCP a packet goes on with; `None`: its class's policer drops it. One thread only calls this for a worker.
    #[inline(always)]
    #[must_use]
    pub fn condition(&self, arriving: &Arriving, worker: WorkerId, now_ns: u64) -> Option<Dscp> {
        match &self.service.conditioner {
            Some(conditioner) => conditioner.condition(arriving, worker, now_ns),
            None => Some(arriving.class.set_dscp.unwrap_or(arriving.dscp)),
        }
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
        if let Some(previous) = self.previous.filter(|previous| self.changes_nothing(previous, &policies)) {
            return Ok(previous.quality.clone());
        }
        let (ports, tunnels) = plan::build(self, &policies)?;
        Ok(Quality { ports, tunnels, policies })
    }

    /// Whether all that plans and services are made from is as it was: policies, where they are at work, MTUs of ports,
    /// and of tunnels with a policy the way out and who owns them.
    fn changes_nothing(
        &self,
        previous: &Generation,
        policies: &Arc<BTreeMap<PolicyMapIndex, Arc<Policy>>>,
    ) -> bool {
        let before = previous.wanted();
        let mtus = |(port, settings): (&PortIndex, &PortSettings)| (*port, settings.mtu);
        let exit = |tunnel: &Tunnel| {
            let egress = tunnel.encapsulation.egress.map(|egress| (egress.port, egress.port_mtu));
            (egress, tunnel.protection)
        };
        let is_served = |tunnel| self.wanted.service_policies.contains_key(&ServiceTarget::Tunnel(tunnel));
        Arc::ptr_eq(&previous.quality.policies, policies)
            && same(&before.service_policies, &self.wanted.service_policies)
            && before.ports.iter().map(mtus).eq(self.wanted.ports.iter().map(mtus))
            && !self.tunnels.changed_in(&previous.tunnels, exit).any(is_served)
    }

    fn link(&self, port: PortIndex) -> Link {
        Link::new(self.limits.ports.get(port.index()).is_some_and(|port| port.is_tagged))
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
            Some(previous) => Ok(Arc::clone(&previous.quality.policies)),
            None => classes::policies(self.wanted).map(Arc::new),
        }
    }
}

#[cfg(test)]
mod tests;
