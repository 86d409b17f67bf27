// SPDX-License-Identifier: Apache-2.0
//! Class-maps, policy-maps and service policies as objects.

use messages::{
    ClassMap, ClassMapIndex, Criterion, DropProfile, DscpSet, EarlyDrop, IpPrefix, Object, PolicyClass,
    PolicyMap, PolicyMapIndex, PortIndex, Service, ServicePolicy, ServiceTarget, TrafficProfile, TunnelIndex,
};

use super::{
    Bandwidth, BitRate, CLASS_DEFAULT, ClassMapEntry, CriterionEntry, Flags, Matching, PoliceEntry,
    PolicyClassEntry, PolicyMapEntry, ProfileEntry, WredEntry,
};
use crate::{Indices, PortEntry, TunnelEntry};

/// Numbers of what a criterion names.
pub(crate) struct Numbers<'a> {
    pub(crate) indices: &'a Indices,
    pub(crate) port: &'a dyn Fn(&str) -> Option<PortIndex>,
}

impl Numbers<'_> {
    fn class_map(&self, name: &str) -> Option<ClassMapIndex> {
        self.indices.class_maps.get(name).copied().map(ClassMapIndex)
    }

    fn policy_map(&self, name: &str) -> Option<PolicyMapIndex> {
        self.indices.policy_maps.get(name).copied().map(PolicyMapIndex)
    }

    fn tunnel(&self, name: &str) -> Option<TunnelIndex> {
        self.indices.tunnels.get(name).copied().map(TunnelIndex)
    }
}

/// A class-map and its criteria; `None` if something that it names has no number.
pub(crate) fn class_map(entry: &ClassMapEntry, numbers: &Numbers<'_>) -> Option<Vec<Object>> {
    let class_map = numbers.class_map(&entry.name)?;
    let match_any = entry.matching == Matching::Any;
    let mut objects = vec![Object::ClassMap(ClassMap { class_map, match_any })];
    for (place, entry) in (0..).zip(&entry.criteria) {
        objects.push(Object::Criterion(criterion(entry, class_map, place, numbers)?));
    }
    Some(objects)
}

fn criterion(
    entry: &CriterionEntry,
    class_map: ClassMapIndex,
    place: u16,
    numbers: &Numbers<'_>,
) -> Option<Criterion> {
    let prefix = |net: ipnet::IpNet| IpPrefix { address: net.addr(), length: net.prefix_len() };
    let mut criterion = Criterion {
        class_map,
        place,
        negated: entry.not,
        source: entry.source.map(prefix),
        destination: entry.destination.map(prefix),
        protocol: entry.protocol.map(|protocol| protocol.0),
        source_ports: entry.source_ports,
        destination_ports: entry.destination_ports,
        tcp_flags: entry.tcp_flags.map(|Flags(flags)| flags),
        dscps: dscps(entry),
        tunnel: None,
        ingress: None,
        vlan_priorities: vlan_priorities(entry),
        nested: None,
    };
    if let Some(name) = &entry.tunnel {
        criterion.tunnel = Some(numbers.tunnel(name)?);
    }
    if let Some(name) = &entry.ingress {
        criterion.ingress = Some((numbers.port)(name)?);
    }
    if let Some(name) = &entry.class_map {
        criterion.nested = Some(numbers.class_map(name)?);
    }
    Some(criterion)
}

/// The DSCPs of a criterion: IP precedence is their upper three bits (RFC 2474 §4.2.2).
fn dscps(entry: &CriterionEntry) -> Option<DscpSet> {
    if entry.dscp.is_empty() && entry.precedence.is_empty() {
        return None;
    }
    let named = entry.dscp.iter().fold(0, |set: u64, dscp| set | 1 << dscp.get());
    let eighths = entry.precedence.iter().filter(|precedence| **precedence < 8);
    Some(DscpSet(eighths.fold(named, |set, precedence| set | 0xff << (precedence * 8))))
}

fn vlan_priorities(entry: &CriterionEntry) -> Option<u8> {
    let named = entry.vlan_priority.iter().filter(|priority| **priority < 8);
    (!entry.vlan_priority.is_empty()).then(|| named.fold(0, |set, priority| set | 1 << priority))
}

/// A policy-map and its classes.
pub(crate) fn policy_map(entry: &PolicyMapEntry, numbers: &Numbers<'_>) -> Option<Vec<Object>> {
    let policy_map = numbers.policy_map(&entry.name)?;
    let shape = entry.shape.as_ref().map(profile);
    let mut objects = vec![Object::PolicyMap(PolicyMap { policy_map, shape })];
    for (place, entry) in (0..).zip(&entry.classes) {
        objects.push(Object::PolicyClass(policy_class(entry, policy_map, place, numbers)?));
    }
    Some(objects)
}

fn policy_class(
    entry: &PolicyClassEntry,
    policy_map: PolicyMapIndex,
    place: u8,
    numbers: &Numbers<'_>,
) -> Option<PolicyClass> {
    let class_map = match entry.class.as_str() {
        CLASS_DEFAULT => None,
        name => Some(numbers.class_map(name)?),
    };
    let service = match (entry.priority, entry.bandwidth) {
        (Some(level), _) => Service::Priority { level },
        (None, Some(Bandwidth(share))) => Service::Bandwidth(share),
        (None, None) => Service::Unqueued,
    };
    let early = match (&entry.wred, &entry.codel, &entry.pie) {
        (Some(entry), ..) => EarlyDrop::Wred(wred(entry)),
        (None, Some(codel), _) => {
            EarlyDrop::CoDel { target_us: codel.target_us, interval_us: codel.interval_us }
        }
        (None, None, Some(pie)) => EarlyDrop::Pie { target_us: pie.target_us, burst_us: pie.burst_us },
        (None, None, None) => EarlyDrop::None,
    };
    Some(PolicyClass {
        policy_map,
        place,
        class_map,
        service,
        police: entry.police.as_ref().map(PoliceEntry::police),
        limit: entry.queue_limit,
        early,
        ecn: entry.ecn,
        set_dscp: entry.set_dscp.map(wire::Dscp::get),
        set_vlan_priority: entry.set_vlan_priority,
    })
}

fn profile(entry: &ProfileEntry) -> TrafficProfile {
    let BitRate(rate_bps) = entry.rate;
    TrafficProfile { rate_bps, burst_bytes: entry.burst }
}

fn wred(entry: &WredEntry) -> messages::Wred {
    let profile = |min, max, one_in| DropProfile { min_packets: min, max_packets: max, one_in };
    messages::Wred {
        weight: entry.weight,
        default: profile(entry.min, entry.max, entry.one_in),
        profiles: entry
            .by_dscp
            .iter()
            .map(|own| (own.dscp.get(), profile(own.min, own.max, own.one_in)))
            .collect(),
    }
}

/// The service policy of a port, if it has one.
pub(crate) fn of_port(entry: &PortEntry, port: PortIndex, numbers: &Numbers<'_>) -> Option<Object> {
    let policy_map = numbers.policy_map(entry.service_policy.as_ref()?)?;
    let target = ServiceTarget::Port(port);
    Some(Object::ServicePolicy(ServicePolicy { target, policy_map: Some(policy_map), pre_classify: true }))
}

/// What a tunnel says that its port does not.
pub(crate) fn of_tunnel(entry: &TunnelEntry, tunnel: TunnelIndex, numbers: &Numbers<'_>) -> Option<Object> {
    let policy_map = entry.service_policy.as_ref().and_then(|name| numbers.policy_map(name));
    let is_usual = policy_map.is_none() && entry.pre_classify;
    let target = ServiceTarget::Tunnel(tunnel);
    let policy = ServicePolicy { target, policy_map, pre_classify: entry.pre_classify };
    (!is_usual).then_some(Object::ServicePolicy(policy))
}
