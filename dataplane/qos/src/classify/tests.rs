// SPDX-License-Identifier: Apache-2.0
//! The compiled classifier against the linear scan.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use wire::IpProtocol;

use super::*;

const DEFAULT: Class = Class(999);

/// Addresses that share any number of leading bits, so that prefixes overlap.
pub(super) fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    (any::<u128>(), 0u32..=128).prop_map(move |(random, shared)| {
        let mask = u128::MAX.checked_shr(shared).unwrap_or(0);
        let bits = (0x0a01_0203_0a01_0203_0a01_0203_0a01_0203u128 & !mask) | (random & mask);
        if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4(((bits >> 96) as u32).into()) }
    })
}

pub(super) fn addresses() -> impl Strategy<Value = Addresses> {
    let prefix = any::<bool>().prop_flat_map(|v6| {
        (address(v6), 0..=(if v6 { 128u8 } else { 32 }))
            .prop_map(|(address, length)| Addresses::prefix(address, length).unwrap())
    });
    let range = any::<bool>().prop_flat_map(|v6| (address(v6), address(v6))).prop_map(|ends| match ends {
        (IpAddr::V4(a), IpAddr::V4(b)) => Addresses::V4(Span::new(a.min(b).into(), a.max(b).into())),
        (IpAddr::V6(a), IpAddr::V6(b)) => Addresses::V6(Span::new(a.min(b).into(), a.max(b).into())),
        _ => unreachable!("both are of one family"),
    });
    prop_oneof![3 => prefix, 1 => range]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(u16::MAX), 0..20u16, any::<u16>()]
}

pub(super) fn ports() -> impl Strategy<Value = Span<u16>> {
    (port(), port()).prop_map(|(a, b)| Span::new(a.min(b), a.max(b)))
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(6), Just(17), Just(47), Just(132), any::<u8>()]
}

pub(super) fn protocols() -> impl Strategy<Value = Span<u8>> {
    let ends = (protocol(), protocol()).prop_map(|(a, b)| Span::new(a.min(b), a.max(b)));
    prop_oneof![Just(Span::new(0, 255)), protocol().prop_map(Span::only), ends]
}

pub(super) fn dscps() -> impl Strategy<Value = Dscps> {
    prop_oneof![4 => Just(Dscps::ALL), 1 => (0..9u8).prop_map(Dscps::precedence), 1 => any::<u64>().prop_map(Dscps)]
}

fn tunnel() -> impl Strategy<Value = u32> {
    prop_oneof![Just(NO_TUNNEL), Just(0), 0..4u32, 0xfffe..0x1_0003u32]
}

pub(super) fn tunnels() -> impl Strategy<Value = Span<u32>> {
    let ends = (tunnel(), tunnel()).prop_map(|(a, b)| Span::new(a.min(b), a.max(b)));
    prop_oneof![4 => Just(Span::new(0, u32::MAX)), 1 => tunnel().prop_map(Span::only), 1 => ends]
}

pub(super) fn tcp_flags() -> impl Strategy<Value = TcpFlags> {
    let mask = prop_oneof![any::<u8>(), Just(0x12), Just(2), Just(0), Just(255), Just(0xf0)];
    (any::<u8>(), mask).prop_map(|(value, mask)| TcpFlags { value, mask })
}

pub(super) fn vlan_priorities() -> impl Strategy<Value = VlanPriorities> {
    let bits = any::<u8>().prop_map(VlanPriorities::of_bits);
    prop_oneof![4 => Just(VlanPriorities::ALL), 1 => bits, 1 => Just(VlanPriorities::UNTAGGED)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let hosts = (prop::option::of(addresses()), prop::option::of(addresses()), protocols());
    let upper = (
        prop::option::of(ports()),
        prop::option::of(ports()),
        prop_oneof![4 => Just(None), 1 => tcp_flags().prop_map(Some)],
    );
    let arrival =
        (vlan_priorities(), tunnels(), prop_oneof![3 => Just(Span::new(0, u16::MAX)), 1 => ports()]);
    let rest =
        (dscps(), prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)], (0..8u16).prop_map(Class));
    (hosts, upper, arrival, rest).prop_map(|(hosts, upper, arrival, (dscps, later_fragment, class))| Rule {
        source: hosts.0,
        destination: hosts.1,
        protocols: hosts.2,
        source_ports: upper.0,
        destination_ports: upper.1,
        tcp_flags: upper.2,
        vlan_priorities: arrival.0,
        tunnels: arrival.1,
        ingress_ports: arrival.2,
        dscps,
        later_fragment,
        class,
    })
}

/// Rules, some of them twice: a later copy must never decide.
pub(super) fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    (
        prop::collection::vec(rule(), 0..most),
        prop::collection::vec(any::<prop::sample::Index>(), 0..most / 4 + 1),
    )
        .prop_map(|(mut rules, again)| {
            for index in again {
                if !rules.is_empty() {
                    rules.push(Rule { class: Class(77), ..*index.get(&rules) });
                }
            }
            rules
        })
}

pub(super) fn headers() -> impl Strategy<Value = Headers> {
    let hosts = any::<bool>().prop_flat_map(|v6| (address(v6), address(v6)));
    let upper = (port(), port(), any::<u8>(), any::<u8>(), prop::bool::weighted(0.2));
    let arrival = (port(), prop::option::of(0..8u8), tunnel());
    (hosts, protocol(), upper, arrival).prop_map(|(hosts, protocol, upper, arrival)| Headers {
        source: hosts.0,
        destination: hosts.1,
        protocol: IpProtocol(protocol),
        source_port: if upper.4 { 0 } else { upper.0 },
        destination_port: if upper.4 { 0 } else { upper.1 },
        tcp_flags: upper.2,
        tos: upper.3,
        later_fragment: upper.4,
        arrival: Arrival { port: arrival.0, vlan_priority: arrival.1, tunnel: arrival.2 },
    })
}

fn fragments() -> impl Strategy<Value = Fragments> {
    prop_oneof![Just(Fragments::WithoutPorts), Just(Fragments::Layer3), Just(Fragments::Class(Class(55)))]
}

fn linear(rules: &[Rule], packet: &Headers, fragments: Fragments) -> Class {
    match fragments {
        Fragments::Class(class) if packet.later_fragment => class,
        _ => first_match(rules, packet, fragments)
            .and_then(|place| rules.get(place))
            .map_or(DEFAULT, |rule| rule.class),
    }
}

/// Packets at the corners of a rule's spans and one step outside.
fn corners(rule: &Rule, packet: &Headers) -> Vec<Headers> {
    let ends = |addresses: Option<Addresses>| match addresses {
        None => vec![packet.source],
        Some(Addresses::V4(span)) => {
            [span.first.wrapping_sub(1), span.first, span.last, span.last.wrapping_add(1)]
                .map(|end| IpAddr::V4(Ipv4Addr::from_bits(end)))
                .to_vec()
        }
        Some(Addresses::V6(span)) => {
            [span.first.wrapping_sub(1), span.first, span.last, span.last.wrapping_add(1)]
                .map(|end| IpAddr::V6(Ipv6Addr::from_bits(end)))
                .to_vec()
        }
    };
    let ports = |span: Option<Span<u16>>| {
        span.map_or(vec![0, u16::MAX], |span| {
            vec![span.first.wrapping_sub(1), span.first, span.last, span.last.wrapping_add(1)]
        })
    };
    let mut all = Vec::new();
    for source in ends(rule.source) {
        for destination in ends(rule.destination) {
            for source_port in ports(rule.source_ports) {
                for destination_port in ports(rule.destination_ports) {
                    let protocol = IpProtocol(rule.protocols.first);
                    all.push(Headers {
                        source,
                        destination,
                        source_port,
                        destination_port,
                        protocol,
                        ..*packet
                    });
                }
            }
        }
    }
    all
}

fn whole(packet: &Headers) -> Option<(WholeV4, Arrival)> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (packet.source, packet.destination) else {
        return None;
    };
    let whole = WholeV4 {
        source: source.to_bits(),
        destination: destination.to_bits(),
        ports: u32::from(packet.source_port) << 16 | u32::from(packet.destination_port),
        protocol: packet.protocol,
        tos: packet.tos,
        tcp_flags: packet.tcp_flags,
    };
    (!packet.later_fragment).then_some((whole, packet.arrival))
}

fn compare(rules: &[Rule], fragments: Fragments, packets: &[Headers]) -> Result<(), TestCaseError> {
    let classifier = Classifier::build(rules, DEFAULT, fragments).unwrap();
    let expected: Vec<Class> = packets.iter().map(|packet| linear(rules, packet, fragments)).collect();
    for (packet, class) in packets.iter().zip(&expected) {
        prop_assert_eq!(classifier.classify(packet), *class, "{:?}", packet);
    }
    let of_v4 = packets.iter().zip(&expected).filter_map(|(packet, class)| Some((whole(packet)?, *class)));
    let (keys, expected_v4): (Vec<KeyV4>, Vec<Class>) =
        of_v4.map(|((whole, arrival), class)| (KeyV4::new(&whole, &arrival), class)).unzip();
    let mut classes = vec![Class(12345); keys.len()];
    classifier.classify_v4(&keys, &mut classes);
    prop_assert_eq!(classes, expected_v4);
    let of_v6 = packets.iter().zip(&expected).filter(|(packet, _)| !packet.later_fragment);
    let (keys, expected_v6): (Vec<KeyV6>, Vec<Class>) =
        of_v6.filter_map(|(packet, class)| Some((KeyV6::of(packet)?, *class))).unzip();
    let mut classes = vec![Class(12345); keys.len()];
    classifier.classify_v6(&keys, &mut classes);
    prop_assert_eq!(classes, expected_v6);
    Ok(())
}

proptest! {
    #[test]
    fn it_is_the_linear_scan(
        rules in rules(40), fragments in fragments(), packets in prop::collection::vec(headers(), 100),
    ) {
        compare(&rules, fragments, &packets)?;
    }

    #[test]
    fn it_is_the_linear_scan_at_every_corner(
        rules in rules(20), fragments in fragments(), packet in headers(), of in any::<prop::sample::Index>(),
    ) {
        if !rules.is_empty() {
            compare(&rules, fragments, &corners(of.get(&rules), &packet))?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn it_is_the_linear_scan_over_many_rules(
        rules in rules(3000), fragments in fragments(), packets in prop::collection::vec(headers(), 500),
    ) {
        compare(&rules, fragments, &packets)?;
        let mut corners_of_some: Vec<Headers> = Vec::new();
        for (rule, packet) in rules.iter().step_by(50).zip(&packets) {
            corners_of_some.extend(corners(rule, packet));
        }
        compare(&rules, fragments, &corners_of_some)?;
    }
}
