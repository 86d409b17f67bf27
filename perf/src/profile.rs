// SPDX-License-Identifier: Apache-2.0
//! The profile that is measured: what a headend carries when nothing is switched off.
//!
//! 1,000 SPD entries that a packet has to pass before the one that protects it, 10,000 routes with scattered prefixes
//! of mixed lengths beside each tunnel's own, 4,096 flows with DSCPs of several classes. All of it follows from fixed
//! seeds, so that two runs measure the same.
//!
//! Not here: the headends that this is loaded into ([`bed`](crate::bed)).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;

use messages::{
    ClassMap, ClassMapIndex, Criterion, DscpSet, IpPrefix, Object, Police, Policy, PolicyAction, PolicyClass,
    PolicyIndex, PolicyMap, PolicyMapIndex, PortIndex, PortRange, ProtectionIndex, QueueLimit, Selector,
    Service, ServicePolicy, ServiceTarget, Share, TrafficProfile,
};
use wire::Family;

/// Entries of the SPD towards the other headend.
pub const POLICIES: u32 = 1_000;
/// Tunnels that an SPD entry of their own protects; those beyond have tunnel protection.
pub const PROTECTED_BY_POLICY: u32 = 500;
/// Routes beside those that every tunnel has for its own site.
pub const ROUTES: usize = 10_000;
/// Packets in the anti-replay window.
pub const REPLAY_WINDOW: u16 = 1_024;
/// Flows, by the addresses and ports at the core.
pub const FLOWS: u32 = 4_096;
/// Packets that differ in flow or tunnel before they repeat: a multiple of all numbers of buffers and of the mix.
pub const PACKETS: usize = 49_152;

const IPV6_NETWORK: u128 = 0x2a00 << 112;
const DSCPS: [u8; 6] = [0, 0, 10, 18, 34, 46];
/// Classes by DSCP, that for the rest included.
pub const CLASSES_MAX: u8 = 8;
/// DSCPs with a class of their own where packets have classes: four that occur and three that do not.
const CLASSES: [u8; 7] = [46, 34, 18, 10, 26, 48, 8];
/// First octets of the scattered prefixes: none that the bed itself uses.
const OCTETS: [core::ops::Range<u32>; 3] = [11..100, 102..127, 128..170];

/// An address by its IPv4 form. IPv6 has it behind 2a00::/16, so that a prefix is 16 bits longer.
#[must_use]
pub fn address(family: Family, v4: u32) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(v4)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(IPV6_NETWORK | u128::from(v4) << 80 | 1)),
    }
}

/// A prefix by its IPv4 form.
#[must_use]
pub fn prefix(family: Family, prefix: Prefix) -> IpPrefix {
    match family {
        Family::Ipv4 => IpPrefix { address: address(family, prefix.address), length: prefix.length },
        Family::Ipv6 => {
            let network = Ipv6Addr::from(IPV6_NETWORK | u128::from(prefix.address) << 80);
            IpPrefix { address: network.into(), length: prefix.length + 16 }
        }
    }
}

/// A prefix in its IPv4 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The network.
    pub address: u32,
    /// Its length.
    pub length: u8,
}

impl Prefix {
    fn of(address: u32, length: u8) -> Self {
        Self { address: address & (u32::MAX << (32 - length)), length }
    }

    fn host(self, random: &mut Random) -> u32 {
        let hosts = (1 << (32 - self.length)) - 2;
        self.address + 1 + random.below(hosts)
    }
}

/// All prefixes behind the tunnels, and around them.
pub struct Routes {
    tunnels: u32,
    scattered: Vec<Prefix>,
    known: BTreeSet<Prefix>,
}

impl Routes {
    /// The profile's, for so many tunnels.
    #[must_use]
    pub fn new(tunnels: u32) -> Self {
        let mut random = Random(0x0070_7574_6573);
        let octets: Vec<u32> = OCTETS.into_iter().flatten().collect();
        let mut known = BTreeSet::new();
        let mut scattered = Vec::with_capacity(ROUTES);
        while scattered.len() < ROUTES {
            let first = octets.get(random.below(octets.len() as u32) as usize).copied().unwrap_or(11);
            let length = 16 + random.below(13) as u8;
            let prefix = Prefix::of(first << 24 | random.below(1 << 24), length);
            if known.insert(prefix) {
                scattered.push(prefix);
            }
        }
        Self { tunnels, scattered, known }
    }

    /// The scattered prefixes, and the tunnel that leads there; every second one leads into a tunnel.
    pub fn scattered(&self) -> impl Iterator<Item = (Prefix, Option<u32>)> + '_ {
        self.scattered.iter().enumerate().map(|(index, prefix)| {
            let tunnel = (index as u32 / 2) % self.tunnels.max(1);
            (*prefix, index.is_multiple_of(2).then_some(tunnel))
        })
    }

    /// The prefix of a tunnel's own site, scattered over 10.0.0.0/8.
    #[must_use]
    pub fn own(tunnel: u32) -> Prefix {
        let slot = tunnel.wrapping_mul(40_503) & 0xffff;
        Prefix { address: 10 << 24 | slot << 8, length: 24 + (tunnel % 5) as u8 }
    }

    /// A host that is reached through `tunnel`: behind one of the scattered prefixes, or in its own site.
    fn destination(&self, tunnel: u32, random: &mut Random) -> u32 {
        let step = 2 * self.tunnels.max(1) as usize;
        let prefixes = self.scattered.iter().skip(2 * tunnel as usize).step_by(step);
        let count = prefixes.clone().count();
        let chosen = prefixes.clone().nth(random.below(count as u32 + 1) as usize).copied();
        match chosen {
            Some(prefix) => {
                let host = prefix.host(random);
                if self.has_longer(host, prefix.length) { Self::own(tunnel).host(random) } else { host }
            }
            None => Self::own(tunnel).host(random),
        }
    }

    fn has_longer(&self, host: u32, length: u8) -> bool {
        (length + 1..=28).any(|longer| self.known.contains(&Prefix::of(host, longer)))
    }
}

/// What distinguishes one packet from another, size and payload aside.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The tunnel it is routed into.
    pub tunnel: u32,
    /// A host at the core, in IPv4 form.
    pub source: u32,
    /// A host at the site, in IPv4 form.
    pub destination: u32,
    /// UDP source port.
    pub source_port: u16,
    /// Its DSCP.
    pub dscp: u8,
}

/// The packets' flows: a random flow and a random tunnel for each.
#[must_use]
pub fn flows(routes: &Routes) -> Vec<Flow> {
    let mut random = Random(0x5eed);
    (0..PACKETS).map(|_| flow(routes, random.below(FLOWS), random.below(routes.tunnels))).collect()
}

/// Flow `number` into `tunnel`: the same destination each time.
#[must_use]
pub fn flow(routes: &Routes, number: u32, tunnel: u32) -> Flow {
    let mut random = Random(u64::from(number) << 32 | u64::from(tunnel) | 1 << 63);
    random.below(1);
    Flow {
        tunnel,
        source: Ipv4Addr::new(172, 20, 0, 1).to_bits() + (number << 4),
        destination: routes.destination(tunnel, &mut random),
        source_port: 1_024 + number as u16,
        dscp: DSCPS[number as usize % DSCPS.len()],
    }
}

/// The SPD of `port`: entries of every kind that GRE between the headends does not match, then those that protect it,
/// then one that discards the rest. `ends` gives local and remote address of each tunnel.
pub fn policies(port: PortIndex, tunnels: u32, ends: impl Fn(u32) -> (IpAddr, IpAddr)) -> Vec<Policy> {
    let protecting = tunnels.min(PROTECTED_BY_POLICY);
    let mut random = Random(0x0053_5044);
    let others = POLICIES - 1 - protecting;
    let mut entries: Vec<(Selector, PolicyAction)> = (0..others).map(|_| mixed(&mut random)).collect();
    entries.extend((0..protecting).map(|tunnel| {
        let (local, remote) = ends(tunnel);
        let host = |address| Some(IpPrefix { address, length: 32 });
        let selector =
            Selector { local: host(local), remote: host(remote), protocol: Some(47), ..ANY_SELECTOR };
        (selector, PolicyAction::Protect(ProtectionIndex(tunnel)))
    }));
    entries.push((ANY_SELECTOR, PolicyAction::Discard));
    let numbered = (0..).zip(entries);
    numbered
        .map(|(number, (selector, action))| Policy {
            policy: PolicyIndex(number),
            port,
            order: number * 10,
            selector,
            action,
        })
        .collect()
}

const ANY_SELECTOR: Selector =
    Selector { local: None, remote: None, protocol: None, local_ports: None, remote_ports: None };

/// An entry that no GRE packet between the headends matches: another protocol, or other networks.
fn mixed(random: &mut Random) -> (Selector, PolicyAction) {
    let network = |random: &mut Random, first: u32| {
        let prefix = Prefix::of(first << 24 | random.below(1 << 24), 8 + random.below(21) as u8);
        Some(self::prefix(Family::Ipv4, prefix))
    };
    let ports = |random: &mut Random| {
        let first = random.below(60_000) as u16;
        Some(PortRange { first, last: first + random.below(5_000) as u16 })
    };
    let elsewhere = 11 + random.below(80);
    let between = 100 + random.below(2);
    let selector = match random.below(5) {
        0 => Selector { remote: network(random, elsewhere), ..ANY_SELECTOR },
        1 => Selector {
            local: network(random, elsewhere),
            remote: network(random, between),
            protocol: Some(47),
            ..ANY_SELECTOR
        },
        2 => Selector { remote: network(random, between), protocol: Some(1), ..ANY_SELECTOR },
        3 => Selector {
            remote: network(random, between),
            protocol: Some(6),
            remote_ports: ports(random),
            ..ANY_SELECTOR
        },
        _ => Selector {
            local: network(random, between),
            remote: network(random, elsewhere),
            protocol: Some(17),
            local_ports: ports(random),
            remote_ports: ports(random),
        },
    };
    let action = if random.below(2) == 0 { PolicyAction::Bypass } else { PolicyAction::Discard };
    (selector, action)
}

/// A small generator (xorshift64*, Vigna 2016), so that runs are alike.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, 0 if that is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % u64::from(bound.max(1))) as u32
    }
}

/// A policy-map with eight classes by DSCP for everything that leaves by a port, EF before the others.
#[must_use]
pub fn scheduled(port: PortIndex) -> Vec<Object> {
    classes(port, CLASSES_MAX, |place| PolicyClass {
        service: match place {
            0 => Service::Priority { level: 0 },
            _ => Service::Bandwidth(Share::Percent(14)),
        },
        ..class(place)
    })
}

/// A policy-map with up to eight classes by DSCP and without queues for everything that leaves by a port; EF has a policer that
/// it never exceeds.
#[must_use]
pub fn conditioned(port: PortIndex, count: u8) -> Vec<Object> {
    let profile = TrafficProfile { rate_bps: 1_000_000_000_000, burst_bytes: Some(1 << 30) };
    let police = (count > 1).then(|| Police::dropping(profile));
    classes(port, count, |place| PolicyClass { police: police.filter(|_| place == 0), ..class(place) })
}

fn class(place: u8) -> PolicyClass {
    let plain = PolicyClass::plain(PolicyMapIndex(0), place, None, Service::Unqueued);
    PolicyClass { limit: QueueLimit::Packets(256), ..plain }
}

/// A policy-map with `count` classes, the last of which takes the rest.
fn classes(port: PortIndex, count: u8, class: impl Fn(u8) -> PolicyClass) -> Vec<Object> {
    let policy_map = PolicyMapIndex(0);
    let mut objects = vec![Object::PolicyMap(PolicyMap { policy_map, shape: None })];
    let last = count.clamp(1, CLASSES_MAX) - 1;
    for (place, dscp) in (0..last).zip(CLASSES) {
        let class_map = ClassMapIndex(u32::from(place));
        objects.push(Object::ClassMap(ClassMap { class_map, match_any: false }));
        objects.push(Object::Criterion(by_dscp(class_map, dscp)));
        objects.push(Object::PolicyClass(PolicyClass { class_map: Some(class_map), ..class(place) }));
    }
    objects.push(Object::PolicyClass(class(last)));
    let target = ServiceTarget::Port(port);
    let policy_map = Some(policy_map);
    objects.push(Object::ServicePolicy(ServicePolicy { target, policy_map, pre_classify: true }));
    objects
}

fn by_dscp(class_map: ClassMapIndex, dscp: u8) -> Criterion {
    Criterion { dscps: Some(DscpSet(1 << dscp)), ..Criterion::anything(class_map, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_prefixes_are_distinct_and_of_every_length_from_16_to_28() {
        let routes = Routes::new(64);
        assert_eq!(routes.scattered().count(), ROUTES);
        let lengths: BTreeSet<u8> = routes.scattered().map(|(prefix, _)| prefix.length).collect();
        assert_eq!(lengths, (16..=28).collect());
    }

    #[test]
    fn every_destination_has_its_tunnel_as_the_longest_match() {
        for tunnels in [1, 64, 60_000] {
            let routes = Routes::new(tunnels);
            let mut into: Vec<(Prefix, u32)> =
                routes.scattered().filter_map(|(prefix, tunnel)| Some((prefix, tunnel?))).collect();
            into.extend((0..tunnels).map(|tunnel| (Routes::own(tunnel), tunnel)));
            let all: std::collections::BTreeMap<Prefix, Option<u32>> = routes
                .scattered()
                .chain((0..tunnels).map(|tunnel| (Routes::own(tunnel), Some(tunnel))))
                .collect();
            for flow in flows(&routes).iter().take(5_000) {
                let longest =
                    (16..=28).rev().find_map(|length| all.get(&Prefix::of(flow.destination, length)));
                assert_eq!(longest, Some(&Some(flow.tunnel)));
            }
        }
    }

    #[test]
    fn one_tunnel_has_destinations_behind_many_prefixes() {
        let routes = Routes::new(1);
        let networks: BTreeSet<u32> = flows(&routes).iter().map(|flow| flow.destination >> 16).collect();
        assert!(networks.len() > 1_000, "{}", networks.len());
    }

    #[test]
    fn the_spd_has_as_many_entries_as_the_profile_says() {
        let ends = |_| (address(Family::Ipv4, 100 << 24), address(Family::Ipv4, 101 << 24));
        for tunnels in [1, 500, 60_000] {
            assert_eq!(policies(PortIndex(1), tunnels, ends).len(), POLICIES as usize);
        }
    }
}
