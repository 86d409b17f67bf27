// SPDX-License-Identifier: Apache-2.0
//! The SPDs of the ports: ordered entries, the first match decides (RFC 4301 §4.4.1).
//!
//! Entries become a [`classifier`]: for each selector the intervals between all bounds that occur, with one bit for
//! each entry that covers the interval. A lookup finds one interval for each of five selectors, five short binary
//! searches, ANDs the bits word by word, and stops at the first word that is not zero. Families have a classifier each,
//! so that IPv4 and IPv6 never match each other.
//!
//! Local and remote are as seen from us: outbound packets have local sources, inbound packets local destinations.

mod classifier;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{Policy, PolicyAction, PolicyIndex, PortIndex, PortSettings, PortSide, ProtectionIndex};

use classifier::Classifier;

/// An SPD has at most this many entries: the bits grow with their square.
pub const POLICIES_PER_PORT_MAX: usize = 4096;

/// What of a packet the SPD looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSelectors {
    /// Our end.
    pub local: IpAddr,
    /// The far end.
    pub remote: IpAddr,
    /// The upper-layer protocol.
    pub protocol: u8,
    /// Local and remote port; `None` for a later fragment and for a protocol without ports.
    pub ports: Option<(u16, u16)>,
}

/// What the SPD says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpdVerdict {
    /// Under ESP.
    Protect(ProtectionIndex),
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
    /// No entry matches: not at all, either.
    NoMatch,
}

impl From<PolicyAction> for SpdVerdict {
    fn from(action: PolicyAction) -> Self {
        match action {
            PolicyAction::Protect(protection) => Self::Protect(protection),
            PolicyAction::Bypass => Self::Bypass,
            PolicyAction::Discard => Self::Discard,
        }
    }
}

/// The SPDs of all ports.
#[derive(Clone)]
pub struct Spds {
    ports: Arc<[PortSpd]>,
}

#[derive(Clone)]
enum PortSpd {
    /// No settings: nothing passes.
    Down,
    /// Inside the IPsec boundary.
    Protected,
    Unprotected(Arc<Spd>),
}

/// The SPD of one port.
struct Spd {
    v4: Classifier,
    v6: Classifier,
    /// In order of the entries.
    verdicts: Box<[SpdVerdict]>,
}

impl Spds {
    /// What the SPD of `port` says of a packet. Protected ports bypass always.
    #[inline]
    #[must_use]
    pub fn lookup(&self, port: PortIndex, packet: &PacketSelectors) -> SpdVerdict {
        match self.ports.get(port.index()) {
            Some(PortSpd::Unprotected(spd)) => spd.lookup(packet),
            Some(PortSpd::Protected) => SpdVerdict::Bypass,
            Some(PortSpd::Down) | None => SpdVerdict::NoMatch,
        }
    }

    pub(crate) fn build(
        ports: &BTreeMap<PortIndex, PortSettings>,
        policies: &BTreeMap<PolicyIndex, Policy>,
    ) -> Spds {
        let mut entries: BTreeMap<PortIndex, Vec<&Policy>> = BTreeMap::new();
        for policy in policies.values() {
            entries.entry(policy.port).or_default().push(policy);
        }
        let count = ports.keys().last().map_or(0, |last| last.index() + 1);
        let port = |port| match ports.get(&port).map(|settings| settings.side) {
            None => PortSpd::Down,
            Some(PortSide::Protected) => PortSpd::Protected,
            Some(PortSide::Unprotected) => {
                PortSpd::Unprotected(Arc::new(Spd::build(entries.remove(&port).unwrap_or_default())))
            }
        };
        Spds { ports: (0..).map(PortIndex).take(count).map(port).collect() }
    }
}

impl core::fmt::Debug for Spds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let entries = self.ports.iter().map(|port| match port {
            PortSpd::Unprotected(spd) => spd.verdicts.len(),
            PortSpd::Down | PortSpd::Protected => 0,
        });
        f.debug_list().entries(entries).finish()
    }
}

impl Spd {
    fn build(mut entries: Vec<&Policy>) -> Spd {
        entries.sort_by_key(|policy| policy.order);
        let selectors: Vec<_> = entries.iter().map(|policy| policy.selector).collect();
        Spd {
            v4: Classifier::build(&selectors, &IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)),
            v6: Classifier::build(&selectors, &IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)),
            verdicts: entries.iter().map(|policy| policy.action.into()).collect(),
        }
    }

    #[inline]
    fn lookup(&self, packet: &PacketSelectors) -> SpdVerdict {
        let first = match (packet.local, packet.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                self.v4.first(u32::from(local).into(), u32::from(remote).into(), packet)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => self.v6.first(local.into(), remote.into(), packet),
            _ => None,
        };
        first.and_then(|entry| self.verdicts.get(entry)).copied().unwrap_or(SpdVerdict::NoMatch)
    }
}

#[cfg(test)]
mod tests {
    use messages::{IpPrefix, PortRange, Selector};
    use proptest::prelude::*;

    use super::*;
    use crate::addresses::{connected_prefix, contains};

    const PORT: PortIndex = PortIndex(1);

    fn settings(side: PortSide) -> BTreeMap<PortIndex, PortSettings> {
        BTreeMap::from([(PORT, PortSettings { port: PORT, mtu: 1500, side, answer_ping: true })])
    }

    fn build(policies: &[Policy]) -> Spds {
        let policies = policies.iter().map(|policy| (policy.policy, *policy)).collect();
        Spds::build(&settings(PortSide::Unprotected), &policies)
    }

    /// RFC 4301 §4.4.1, word by word.
    fn linear(policies: &[Policy], packet: &PacketSelectors) -> SpdVerdict {
        let mut ordered: Vec<_> = policies.iter().collect();
        ordered.sort_by_key(|policy| policy.order);
        let matching = ordered.into_iter().find(|policy| matches(&policy.selector, packet));
        matching.map_or(SpdVerdict::NoMatch, |policy| policy.action.into())
    }

    fn matches(selector: &Selector, packet: &PacketSelectors) -> bool {
        let within =
            |prefix: Option<IpPrefix>, address| prefix.is_none_or(|prefix| contains(&prefix, address));
        let in_range = |range: Option<PortRange>, port: Option<u16>| match (range, port) {
            (None, _) => true,
            (Some(range), Some(port)) => (range.first..=range.last).contains(&port),
            (Some(_), None) => false,
        };
        packet.local.is_ipv4() == packet.remote.is_ipv4()
            && within(selector.local, &packet.local)
            && within(selector.remote, &packet.remote)
            && selector.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && in_range(selector.local_ports, packet.ports.map(|(local, _)| local))
            && in_range(selector.remote_ports, packet.ports.map(|(_, remote)| remote))
    }

    fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
        (any::<u128>(), 0u32..=128).prop_map(move |(random, shared)| {
            let mask = u128::MAX.checked_shr(shared).unwrap_or(0);
            let bits = (0x0a01_0203_0a01_0203_0a01_0203_0a01_0203u128 & !mask) | (random & mask);
            if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4(((bits >> 96) as u32).into()) }
        })
    }

    fn prefix(v6: bool) -> impl Strategy<Value = Option<IpPrefix>> {
        prop::option::of((address(v6), 0..=(if v6 { 128u8 } else { 32 })).prop_map(|(address, length)| {
            connected_prefix(&messages::Address { port: None, address, length })
        }))
    }

    fn ports() -> impl Strategy<Value = Option<PortRange>> {
        let edge = || prop_oneof![Just(0), Just(u16::MAX), 0..20u16, any::<u16>()];
        prop::option::of((edge(), edge()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }))
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let protocol = prop::option::of(prop_oneof![Just(6), Just(17), Just(47), any::<u8>()]);
        any::<bool>()
            .prop_flat_map(move |v6| (prefix(v6), prefix(v6), protocol.clone(), ports(), ports()))
            .prop_map(|(local, remote, protocol, local_ports, remote_ports)| Selector {
                local,
                remote,
                protocol,
                local_ports,
                remote_ports,
            })
    }

    fn policies(most: usize) -> impl Strategy<Value = Vec<Policy>> {
        let action = prop_oneof![
            (0..5u32).prop_map(|protection| PolicyAction::Protect(ProtectionIndex(protection))),
            Just(PolicyAction::Bypass),
            Just(PolicyAction::Discard),
        ];
        prop::collection::btree_map(any::<u32>(), (selector(), action), 0..most).prop_map(|entries| {
            let number = (0..).map(PolicyIndex);
            let entries = number.zip(entries).map(|(policy, (order, (selector, action)))| Policy {
                policy,
                port: PORT,
                order,
                selector,
                action,
            });
            entries.collect()
        })
    }

    fn packet() -> impl Strategy<Value = PacketSelectors> {
        let port = || prop_oneof![Just(0), Just(u16::MAX), 0..20u16, any::<u16>()];
        let protocol = prop_oneof![Just(6), Just(17), Just(47), any::<u8>()];
        (any::<bool>(), prop::option::of((port(), port())), protocol).prop_flat_map(
            |(v6, ports, protocol)| {
                (address(v6), address(v6)).prop_map(move |(local, remote)| PacketSelectors {
                    local,
                    remote,
                    protocol,
                    ports,
                })
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_the_linear_scan(policies in policies(40), packets in prop::collection::vec(packet(), 40)) {
            let spds = build(&policies);
            for packet in packets {
                prop_assert_eq!(spds.lookup(PORT, &packet), linear(&policies, &packet), "{:?}", packet);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn it_is_the_linear_scan_over_many_entries(
            policies in policies(1000),
            packets in prop::collection::vec(packet(), 200),
        ) {
            let spds = build(&policies);
            for packet in packets {
                prop_assert_eq!(spds.lookup(PORT, &packet), linear(&policies, &packet), "{:?}", packet);
            }
        }
    }

    fn any_packet() -> PacketSelectors {
        PacketSelectors {
            local: "192.0.2.1".parse().unwrap(),
            remote: "198.51.100.1".parse().unwrap(),
            protocol: 17,
            ports: Some((500, 500)),
        }
    }

    const ANY: Selector =
        Selector { local: None, remote: None, protocol: None, local_ports: None, remote_ports: None };

    fn entry(order: u32, selector: Selector, action: PolicyAction) -> Policy {
        Policy { policy: PolicyIndex(100 - order), port: PORT, order, selector, action }
    }

    #[test]
    fn an_unprotected_port_without_entries_lets_nothing_pass_and_a_protected_one_everything() {
        assert_eq!(build(&[]).lookup(PORT, &any_packet()), SpdVerdict::NoMatch);
        let inside = Spds::build(&settings(PortSide::Protected), &BTreeMap::new());
        assert_eq!(inside.lookup(PORT, &any_packet()), SpdVerdict::Bypass);
        for down in [PortIndex(0), PortIndex(2), PortIndex(u16::MAX)] {
            assert_eq!(inside.lookup(down, &any_packet()), SpdVerdict::NoMatch);
        }
    }

    #[test]
    fn the_lowest_order_that_matches_decides() {
        let udp = Selector { protocol: Some(17), ..ANY };
        let spds = build(&[
            entry(9, ANY, PolicyAction::Discard),
            entry(1, Selector { protocol: Some(6), ..ANY }, PolicyAction::Bypass),
            entry(5, udp, PolicyAction::Protect(ProtectionIndex(3))),
            entry(6, udp, PolicyAction::Bypass),
        ]);
        assert_eq!(spds.lookup(PORT, &any_packet()), SpdVerdict::Protect(ProtectionIndex(3)));
        let other = PacketSelectors { protocol: 1, ports: None, ..any_packet() };
        assert_eq!(spds.lookup(PORT, &other), SpdVerdict::Discard);
    }

    #[test]
    fn a_packet_without_ports_matches_no_entry_with_ports_not_even_all_of_them() {
        let all = Some(PortRange { first: 0, last: u16::MAX });
        for selector in [Selector { local_ports: all, ..ANY }, Selector { remote_ports: all, ..ANY }] {
            let spds =
                build(&[entry(1, selector, PolicyAction::Bypass), entry(2, ANY, PolicyAction::Discard)]);
            assert_eq!(spds.lookup(PORT, &any_packet()), SpdVerdict::Bypass);
            let fragment = PacketSelectors { ports: None, ..any_packet() };
            assert_eq!(spds.lookup(PORT, &fragment), SpdVerdict::Discard);
        }
    }

    #[test]
    fn addresses_of_two_families_match_nothing() {
        let spds = build(&[entry(1, ANY, PolicyAction::Bypass)]);
        let mixed = PacketSelectors { remote: "2001:db8::1".parse().unwrap(), ..any_packet() };
        assert_eq!(spds.lookup(PORT, &mixed), SpdVerdict::NoMatch);
        let mapped = PacketSelectors { local: "::ffff:192.0.2.1".parse().unwrap(), ..mixed };
        let v4 = IpPrefix { address: "0.0.0.0".parse().unwrap(), length: 0 };
        let spds = build(&[entry(1, Selector { local: Some(v4), ..ANY }, PolicyAction::Bypass)]);
        assert_eq!(spds.lookup(PORT, &mapped), SpdVerdict::NoMatch);
    }
}
