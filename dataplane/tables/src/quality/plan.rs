// SPDX-License-Identifier: Apache-2.0
//! What the schedulers of each port have to be: one for each worker that has something to send there.

use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{
    ClassMapIndex, Field, ObjectId, PolicyMap, PolicyMapIndex, PortIndex, ProtectionIndex, Refusal,
    ServiceTarget, TunnelIndex, WorkerId,
};
use qos::schedule::{
    ClassSlot, ClassSpec, CoDel, DropProfile, EarlyDrop, Limit, Pie, PolicySpec, PortSpec, Share, SpecError,
    TunnelSlot, TunnelSpec, Wred,
};
use qos::{TrafficProfile, schedule};
use wire::Dscp;

use super::classes::Policy;
use super::conditioner::Conditioner;
use super::profiles::{Profiles, rate};
use super::{Inputs, OfPort, OfTunnel, Service};

/// Items of a port's scheduler; the dataplane, which knows how many packets there are, may say less.
const ITEMS: u32 = 8_192;
/// Tunnels of a port up to which delays are recorded for each.
const DELAYS_MAX: usize = 4_096;
const NS_PER_S: u64 = 1_000_000_000;
/// A packet as WRED takes it for typical while a queue is empty.
const TYPICAL_PACKET_BYTES: u64 = 500;

/// What a worker's scheduler of a port has to be, and whom its slots belong to. Slot 0 is the port's own, which every
/// worker has; a tunnel with a policy has a slot at one worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The scheduler.
    pub spec: PortSpec,
    /// Whom each slot belongs to.
    pub owners: Vec<ServiceTarget>,
    /// Whether the port has a policy itself, so that its own slot is used.
    pub takes_all: bool,
    /// The class-maps of each policy of `spec`.
    classes: Vec<Vec<Option<ClassMapIndex>>>,
    slots: BTreeMap<ServiceTarget, TunnelSlot>,
}

impl Plan {
    /// Where a slot of this plan goes on in the next: the same port's or tunnel's, whatever its classes are.
    #[must_use]
    pub fn heir(&self, next: &Self, slot: TunnelSlot) -> Option<TunnelSlot> {
        next.slots.get(self.owners.get(slot.0 as usize)?).copied()
    }

    /// Where a class of this plan goes on in the next: in the same port's or tunnel's policy, the class with the same
    /// class-map.
    #[must_use]
    pub fn successor(
        &self,
        next: &Self,
        slot: TunnelSlot,
        class: ClassSlot,
    ) -> Option<(TunnelSlot, ClassSlot)> {
        let heir = self.heir(next, slot)?;
        let class_map = self.classes_of(slot)?.get(usize::from(class.0))?;
        let place = next.classes_of(heir)?.iter().position(|other| other == class_map)?;
        Some((heir, ClassSlot(u8::try_from(place).ok()?)))
    }

    /// The class-map of each class of a slot; none is the class for the rest.
    #[must_use]
    pub fn classes_of(&self, slot: TunnelSlot) -> Option<&[Option<ClassMapIndex>]> {
        let policy = self.spec.tunnels.get(slot.0 as usize)?.policy;
        self.classes.get(policy).map(Vec::as_slice)
    }
}

type Built = (Arc<[OfPort]>, Arc<[OfTunnel]>);

/// What every port and every tunnel has.
pub(super) fn build(
    inputs: &Inputs<'_>,
    policies: &BTreeMap<PolicyMapIndex, Arc<Policy>>,
) -> Result<Built, Refusal> {
    let workers = inputs.limits.workers.max(1);
    let mut drafts: BTreeMap<PortIndex, Draft> = BTreeMap::new();
    let mut of_tunnels = Vec::new();
    for wanted in inputs.wanted.service_policies.values() {
        let id = ObjectId::ServicePolicy(wanted.target);
        let policy = match wanted.policy_map {
            None => None,
            Some(map) => Some(policies.get(&map).ok_or(Refusal::Dangling(id, ObjectId::PolicyMap(map)))?),
        };
        match wanted.target {
            ServiceTarget::Port(port) => {
                let entry =
                    inputs.wanted.ports.get(&port).ok_or(Refusal::Dangling(id, ObjectId::Port(port)))?;
                let draft = drafts.entry(port).or_insert_with(|| Draft::new(entry.mtu, workers));
                draft.own = match policy {
                    Some(policy) => Some(service(inputs, wanted.target, policy, (port, entry.mtu))?),
                    None => None,
                };
            }
            ServiceTarget::Tunnel(tunnel) => {
                let there = inputs.tunnels.get(tunnel);
                let entry = there.ok_or(Refusal::Dangling(id, ObjectId::Tunnel(tunnel)))?;
                let mut of_tunnel = OfTunnel { pre_classify: wanted.pre_classify, ..OfTunnel::NOTHING };
                if let (Some(policy), Some(egress)) = (policy, entry.encapsulation.egress) {
                    let (port, mtu) = (egress.port, egress.port_mtu);
                    of_tunnel.service = Some(service(inputs, wanted.target, policy, (port, mtu))?);
                    of_tunnel.slot = policy.is_queued().then(|| {
                        let draft = drafts.entry(port).or_insert_with(|| Draft::new(mtu, workers));
                        draft.add((tunnel, entry.protection), policy)
                    });
                }
                place(&mut of_tunnels, tunnel, of_tunnel);
            }
        }
    }
    let count = drafts.keys().last().map_or(0, |last| last.index() + 1);
    let mut of_ports = vec![OfPort::default(); count];
    for (port, draft) in drafts {
        if let Some(place) = of_ports.get_mut(port.index()) {
            *place = draft.finish(inputs, port)?;
        }
    }
    Ok((of_ports.into(), of_tunnels.into()))
}

/// A policy at a port or tunnel: that of the previous generation if it is the same, so that policers go on.
fn service(
    inputs: &Inputs<'_>,
    target: ServiceTarget,
    policy: &Arc<Policy>,
    (port, mtu): (PortIndex, u16),
) -> Result<Arc<Service>, Refusal> {
    let profiles = Profiles::new(inputs.link(port), mtu);
    let before = inputs.previous.and_then(|previous| previous.quality.service(target));
    if let Some(before) = before
        && Arc::ptr_eq(&before.policy, policy)
        && (before.port, before.profiles) == (port, profiles)
    {
        return Ok(Arc::clone(before));
    }
    let before = before.and_then(|before| before.conditioner.as_ref());
    let conditioner = policy
        .needs_conditioner()
        .then(|| Conditioner::new(&policy.classes, &profiles, inputs.limits.workers, before))
        .transpose()?;
    Ok(Arc::new(Service { policy: Arc::clone(policy), conditioner, port, profiles }))
}

fn place(of_tunnels: &mut Vec<OfTunnel>, tunnel: TunnelIndex, of_tunnel: OfTunnel) {
    if of_tunnels.len() <= tunnel.index() {
        of_tunnels.resize(tunnel.index() + 1, OfTunnel::NOTHING);
    }
    if let Some(place) = of_tunnels.get_mut(tunnel.index()) {
        *place = of_tunnel;
    }
}

/// A port's plans while tunnels are added.
struct Draft {
    mtu: u16,
    own: Option<Arc<Service>>,
    /// Those whose policies have queues, by the worker that owns them.
    tunnels: Vec<Vec<(TunnelIndex, Arc<Policy>)>>,
}

impl Draft {
    fn new(mtu: u16, workers: u16) -> Self {
        Self { mtu, own: None, tunnels: vec![Vec::new(); usize::from(workers)] }
    }

    /// Gives a tunnel its owner, which it keeps through all changes, and its slot there. Tunnels that share a protection
    /// have the same: their packets get numbers of one SA, which must not pass each other.
    fn add(
        &mut self,
        (tunnel, protection): (TunnelIndex, Option<ProtectionIndex>),
        policy: &Arc<Policy>,
    ) -> (WorkerId, TunnelSlot) {
        let index = protection.map_or(tunnel.index(), |protection| protection.index());
        let owner = index % self.tunnels.len().max(1);
        let slot = self.tunnels.get_mut(owner).map_or(0, |tunnels| {
            tunnels.push((tunnel, Arc::clone(policy)));
            tunnels.len()
        });
        (WorkerId(u16::try_from(owner).unwrap_or(0)), TunnelSlot(u32::try_from(slot).unwrap_or(u32::MAX)))
    }

    fn finish(self, inputs: &Inputs<'_>, port: PortIndex) -> Result<OfPort, Refusal> {
        let workers = (0..).map(WorkerId).zip(&self.tunnels);
        let plans = workers
            .map(|(worker, tunnels)| self.plan(inputs, (port, worker), tunnels))
            .collect::<Result<_, _>>()?;
        Ok(OfPort { plans, service: self.own })
    }

    /// What a worker's scheduler has to be; none if neither the port nor one of the worker's tunnels has a policy with
    /// queues.
    fn plan(
        &self,
        inputs: &Inputs<'_>,
        (port, worker): (PortIndex, WorkerId),
        own_tunnels: &[(TunnelIndex, Arc<Policy>)],
    ) -> Result<Option<Arc<Plan>>, Refusal> {
        let queued = self.own.as_ref().map(|service| &service.policy).filter(|policy| policy.is_queued());
        let takes_all = queued.is_some();
        // A port without queues of its own only paces its tunnels: its own slot stays empty, whatever its classes are.
        let Some(own) = queued.or_else(|| own_tunnels.first().map(|(_, policy)| policy)) else {
            return Ok(None);
        };
        let profiles = Profiles::new(inputs.link(port), self.mtu);
        let delays = self.tunnels.iter().map(Vec::len).sum::<usize>() <= DELAYS_MAX;
        let mut specs = Specs { profiles, delays, ..Specs::default() };
        let own_shape = specs.shape(own)?;
        let (shape, unused) = if takes_all { (own_shape, None) } else { (None, own_shape) };
        let policy = specs.policy(own, unused.or(shape))?;
        let mut tunnels = vec![TunnelSpec { shape: unused, weight: 1, policy }];
        let mut owners = vec![ServiceTarget::Port(port)];
        let mut policies = vec![Arc::clone(own)];
        for (tunnel, policy) in own_tunnels {
            let shaped = specs.shape(policy)?;
            let policy_place = specs.policy(policy, shaped.or(shape))?;
            tunnels.push(TunnelSpec { shape: shaped, weight: 1, policy: policy_place });
            owners.push(ServiceTarget::Tunnel(*tunnel));
            policies.push(Arc::clone(policy));
        }
        let seed = u64::from(port.0) + 1 + (u64::from(worker.0) << 32);
        let packet_bytes_max = profiles.packet_bytes_max();
        let spec =
            PortSpec { shape, packet_bytes_max, items_max: ITEMS, seed, policies: specs.policies, tunnels };
        spec.validate().map_err(|error| refusal(&error, &specs.of, &policies))?;
        let slots = owners.iter().copied().zip((0..).map(TunnelSlot)).collect();
        let plan = Plan { spec, owners, takes_all, classes: specs.classes, slots };
        Ok(Some(shared(inputs, port, worker, plan)))
    }
}

/// The plan of the previous generation, if it is the same: then the scheduler goes on.
fn shared(inputs: &Inputs<'_>, port: PortIndex, worker: WorkerId, plan: Plan) -> Arc<Plan> {
    match inputs.previous.and_then(|previous| previous.quality.plan(port, worker)) {
        Some(before) if **before == plan => Arc::clone(before),
        _ => Arc::new(plan),
    }
}

/// The policies of a port's scheduler, each once.
#[derive(Default)]
struct Specs {
    profiles: Profiles,
    delays: bool,
    policies: Vec<PolicySpec>,
    classes: Vec<Vec<Option<ClassMapIndex>>>,
    of: Vec<PolicyMapIndex>,
    places: BTreeMap<(PolicyMapIndex, Option<u64>), usize>,
}

impl Specs {
    fn shape(&self, policy: &Policy) -> Result<Option<TrafficProfile>, Refusal> {
        let PolicyMap { policy_map, shape } = policy.map;
        let id = ObjectId::PolicyMap(policy_map);
        shape.map(|profile| self.profiles.shaper(profile, id)).transpose()
    }

    /// Place of a policy that has `rate` to share.
    fn policy(&mut self, policy: &Policy, rate: Option<TrafficProfile>) -> Result<usize, Refusal> {
        let key = (policy.map.policy_map, rate.map(|rate| rate.rate.bps()));
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        let classes =
            policy.classes.iter().map(|class| self.class(class, key.1)).collect::<Result<_, _>>()?;
        self.policies.push(PolicySpec { classes });
        self.classes.push(policy.classes.iter().map(|class| class.class_map).collect());
        self.of.push(policy.map.policy_map);
        let place = self.policies.len() - 1;
        self.places.insert(key, place);
        Ok(place)
    }

    fn class(&self, class: &messages::PolicyClass, shared_bps: Option<u64>) -> Result<ClassSpec, Refusal> {
        let id = ObjectId::PolicyClass(class.policy_map, class.place);
        let police = class.police.map(|police| rate(police.committed.rate_bps, id)).transpose()?;
        let service = match class.service {
            messages::Service::Priority { level } => schedule::Service::Priority { level },
            messages::Service::Bandwidth(messages::Share::Percent(percent)) => {
                schedule::Service::Share(Share::Percent(percent))
            }
            messages::Service::Bandwidth(messages::Share::Rate(bps)) => {
                schedule::Service::Share(Share::Rate(rate(bps, id)?))
            }
            messages::Service::Unqueued => return Err(Refusal::OutOfRange(id, Field::Service)),
        };
        let limit = match class.limit {
            messages::QueueLimit::Packets(packets) => Limit::Packets(packets),
            messages::QueueLimit::Bytes(bytes) => Limit::Bytes(bytes),
            messages::QueueLimit::Microseconds(us) => Limit::Time(u64::from(us) * 1_000),
        };
        let early = early(&class.early, shared_bps);
        Ok(ClassSpec { service, police, limit, early, ecn: class.ecn, delays: self.delays })
    }
}

fn early(early: &messages::EarlyDrop, rate: Option<u64>) -> EarlyDrop {
    let profile = |profile: &messages::DropProfile| DropProfile {
        min_packets: profile.min_packets,
        max_packets: profile.max_packets,
        one_in: profile.one_in,
    };
    match early {
        messages::EarlyDrop::None => EarlyDrop::None,
        messages::EarlyDrop::CoDel { target_us, interval_us } => EarlyDrop::CoDel(CoDel {
            target_ns: u64::from(*target_us) * 1_000,
            interval_ns: u64::from(*interval_us) * 1_000,
        }),
        messages::EarlyDrop::Pie { target_us, burst_us } => EarlyDrop::Pie(Pie {
            target_ns: target_us.saturating_mul(1_000),
            burst_ns: burst_us.saturating_mul(1_000),
        }),
        messages::EarlyDrop::Wred(wred) => EarlyDrop::Wred(Wred {
            weight: wred.weight,
            idle_packet_ns: (TYPICAL_PACKET_BYTES * 8 * NS_PER_S / rate.unwrap_or(NS_PER_S).max(1)).max(1),
            default: profile(&wred.default),
            profiles: wred
                .profiles
                .iter()
                .filter_map(|(dscp, own)| Some((Dscp::new(*dscp)?, profile(own))))
                .collect(),
        }),
    }
}

/// What the scheduler would refuse, said of the policy-map.
fn refusal(error: &SpecError, policies: &[PolicyMapIndex], slots: &[Arc<Policy>]) -> Refusal {
    let of_slot = |slot: usize| slots.get(slot).map(|policy| policy.map.policy_map);
    let (map, field) = match *error {
        SpecError::LevelTwice { policy, .. } => (policies.get(policy).copied(), Field::PriorityLevel),
        SpecError::SharesTooMuch { tunnel } | SpecError::SharesTooDifferent { tunnel } => {
            (of_slot(tunnel), Field::Share)
        }
        SpecError::RateUnknown { tunnel } => (of_slot(tunnel), Field::QueueLimit),
        SpecError::BurstBelowPacket(..) => (policies.first().copied(), Field::Burst),
        SpecError::OutOfRange(..) | SpecError::NoSuchPolicy { .. } => {
            (policies.first().copied(), Field::Classes)
        }
    };
    Refusal::OutOfRange(ObjectId::PolicyMap(map.unwrap_or_default()), field)
}
