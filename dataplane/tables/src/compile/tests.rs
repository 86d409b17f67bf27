// SPDX-License-Identifier: Apache-2.0
//! One test file for checks, builds and sharing, because a transaction meets them together.

use core::net::IpAddr;

use messages::{
    Direction, DropReason, EspMode, Field, GreOptions, IvPrefix, LifetimeLimits, MssClamp, Object, ObjectId,
    Policy, PolicyAction, PolicyIndex, PortIndex, PortRange, PortSide, ProtectionIndex, Refusal, RouteTarget,
    SaIndex, Selector, StaticNeighbor, TosPolicy, TunnelIndex, WorkerId,
};
use proptest::prelude::*;

use crate::testing::*;
use crate::{
    Generation, MssLimits, Neighbors, NextHop, NextStep, NoTunnel, PacketSelectors, Shadow, SpdVerdict,
    Verdict,
};

mod groups;
mod steps;

fn tunnel_id(index: u32) -> ObjectId {
    ObjectId::Tunnel(TunnelIndex(index))
}

fn protection_id(index: u32) -> ObjectId {
    ObjectId::Protection(ProtectionIndex(index))
}

fn sa_id(index: u32) -> ObjectId {
    ObjectId::Sa(SaIndex(index))
}

fn policy_id(index: u32) -> ObjectId {
    ObjectId::Policy(PolicyIndex(index))
}

fn address_id(text: &str) -> ObjectId {
    ObjectId::Address(ip(text))
}

fn route_id(text: &str) -> ObjectId {
    ObjectId::Route(prefix(text))
}

/// Stages on top of a headend with four tunnels, and compiles.
fn with(objects: impl IntoIterator<Item = Object>) -> Result<Generation, Refusal> {
    compiled(&changed(&headend(4), objects)?)
}

#[track_caller]
fn refused(objects: impl IntoIterator<Item = Object>, expected: Refusal) {
    assert_eq!(with(objects).err(), Some(expected));
}

fn protected_tunnel(index: u32) -> [Object; 4] {
    let tunnel = messages::Tunnel { protection: Some(ProtectionIndex(index)), ..tunnel(index) };
    [
        Object::Protection(protection(index)),
        Object::Tunnel(tunnel),
        Object::Sa(sa(2 * index, index, Direction::Inbound)),
        Object::Sa(sa(2 * index + 1, index, Direction::Outbound)),
    ]
}

// ---- single fields ----

#[test]
fn ports_have_a_sensible_mtu_and_exist() {
    let id = ObjectId::Port(INSIDE);
    for (mtu, fine) in [(575, false), (576, true), (9000, true), (9001, false), (9217, false)] {
        let staged = staged([port(INSIDE, mtu, PortSide::Protected)]);
        assert_eq!(staged.err(), (!fine).then_some(Refusal::OutOfRange(id, Field::Mtu)), "{mtu}");
    }
    let unknown = staged([port(PortIndex(3), 1500, PortSide::Protected)]);
    assert_eq!(unknown.err(), Some(Refusal::BeyondLimit(ObjectId::Port(PortIndex(3)), 3)));
}

#[test]
fn addresses_of_ours_are_hosts() {
    for (text, field) in [
        ("0.0.0.0/24", Field::Address),
        ("127.0.0.1/8", Field::Address),
        ("224.0.0.1/24", Field::Address),
        ("255.255.255.255/32", Field::Address),
        ("::1/128", Field::Address),
        ("ff02::1/64", Field::Address),
        ("::ffff:192.0.2.1/128", Field::Address),
        ("192.0.2.255/24", Field::Address),
        ("192.0.2.0/24", Field::Address),
        ("192.0.2.1/33", Field::Prefix),
        ("192.0.2.1/0", Field::Prefix),
        ("2001:db8::1/129", Field::Prefix),
    ] {
        let staged = staged([address(Some(INSIDE), text)]);
        assert_eq!(staged.err(), Some(Refusal::OutOfRange(ObjectId::Address(prefix(text).address), field)));
    }
    for text in ["192.0.2.0/31", "192.0.2.1/32", "2001:db8::/64", "fe80::1/64"] {
        assert!(staged([address(Some(INSIDE), text)]).is_ok(), "{text}");
    }
}

#[test]
fn routes_have_clean_prefixes_and_next_hops_of_their_family() {
    let target = via(OUTSIDE, "198.51.100.254");
    for (text, field) in [
        ("10.0.0.1/24", Field::Prefix),
        ("10.0.0.0/33", Field::Prefix),
        ("2001:db8::1/64", Field::Prefix),
        ("::ffff:0.0.0.0/96", Field::Prefix),
        ("fe80::/64", Field::Prefix),
        ("2001:db8::/64", Field::Address),
    ] {
        let staged = staged([route(text, target)]);
        assert_eq!(staged.err(), Some(Refusal::OutOfRange(route_id(text), field)), "{text}");
    }
    let staged = staged([route("10.0.0.0/8", via(OUTSIDE, "224.0.0.1"))]);
    assert_eq!(staged.err(), Some(Refusal::OutOfRange(route_id("10.0.0.0/8"), Field::Address)));
}

#[test]
fn a_static_neighbour_has_an_ethernet_address_of_its_own() {
    for mac in [[0; 6], [1, 0, 0, 0, 0, 1], [0xff; 6]] {
        let neighbor = StaticNeighbor { port: OUTSIDE, address: ip("198.51.100.9"), mac };
        let id = ObjectId::Neighbor(OUTSIDE, neighbor.address);
        let staged = staged([Object::Neighbor(neighbor)]);
        assert_eq!(staged.err(), Some(Refusal::OutOfRange(id, Field::Mac)));
    }
}

#[test]
fn tunnels_have_ends_of_one_family_and_fields_in_range() {
    let base = tunnel(1);
    for (changed, field) in [
        (messages::Tunnel { destination: ip("2001:db8::1"), ..base }, Field::Address),
        (messages::Tunnel { destination: base.source, ..base }, Field::Address),
        (messages::Tunnel { destination: ip("224.0.0.1"), ..base }, Field::Address),
        (messages::Tunnel { source: ip("0.0.0.0"), ..base }, Field::Address),
        (messages::Tunnel { ttl: 0, ..base }, Field::Ttl),
        (messages::Tunnel { tos: TosPolicy::Dscp(64), ..base }, Field::Dscp),
        (messages::Tunnel { mtu: Some(67), ..base }, Field::Mtu),
        (messages::Tunnel { mss: MssClamp::Fixed(215), ..base }, Field::Mss),
        (messages::Tunnel { mss: MssClamp::Fixed(9177), ..base }, Field::Mss),
    ] {
        refused([Object::Tunnel(changed)], Refusal::OutOfRange(tunnel_id(1), field));
    }
    refused([Object::Tunnel(tunnel(500))], Refusal::BeyondLimit(tunnel_id(500), 500));
}

#[test]
fn protections_have_ends_of_one_family_and_fields_in_range() {
    let base = protection(1);
    for (changed, field) in [
        (messages::Protection { remote: ip("2001:db8::1"), ..base }, Field::Address),
        (messages::Protection { ttl: 0, ..base }, Field::Ttl),
        (messages::Protection { tos: TosPolicy::Dscp(255), ..base }, Field::Dscp),
    ] {
        refused([Object::Protection(changed)], Refusal::OutOfRange(protection_id(1), field));
    }
    refused([Object::Protection(protection(1000))], Refusal::BeyondLimit(protection_id(1000), 1000));
}

#[test]
fn policies_have_selectors_that_can_match() {
    let ports = |first, last| Some(PortRange { first, last });
    for (selector, field) in [
        (Selector { local: Some(prefix("10.0.0.1/24")), ..ANY }, Field::Prefix),
        (Selector { remote: Some(prefix("10.0.0.0/33")), ..ANY }, Field::Prefix),
        (Selector { local: Some(prefix("10.0.0.0/8")), remote: Some(prefix("::/0")), ..ANY }, Field::Address),
        (Selector { local_ports: ports(2, 1), ..ANY }, Field::PortRange),
        (Selector { protocol: Some(47), remote_ports: ports(1, 2), ..ANY }, Field::PortRange),
    ] {
        let policy = policy(1, selector, PolicyAction::Bypass);
        refused([Object::Policy(policy)], Refusal::OutOfRange(policy_id(1), field));
    }
    let fine = Selector { protocol: Some(17), local_ports: ports(500, 500), ..ANY };
    assert!(with([Object::Policy(policy(1, fine, PolicyAction::Bypass))]).is_ok());
}

#[test]
fn sas_have_fields_in_range() {
    let base = sa(1, 0, Direction::Inbound);
    let limit = |lifetime| messages::Sa { lifetime, ..base.clone() };
    let none = LifetimeLimits::default();
    let key = |icv_bytes| messages::Key { icv_bytes, ..base.key.clone() };
    for (changed, field) in [
        (messages::Sa { spi: 0, ..base.clone() }, Field::Spi),
        (messages::Sa { spi: 255, ..base.clone() }, Field::Spi),
        (messages::Sa { key: key(10), ..base.clone() }, Field::IcvBytes),
        (messages::Sa { replay_window: 32, ..base.clone() }, Field::ReplayWindow),
        (messages::Sa { replay_window: 100, ..base.clone() }, Field::ReplayWindow),
        (messages::Sa { replay_window: 16384, ..base.clone() }, Field::ReplayWindow),
        (messages::Sa { replay_window: 0, esn: true, ..base.clone() }, Field::ReplayWindow),
        (messages::Sa { iv_prefix: IvPrefix { bits: 33, value: 0 }, ..base.clone() }, Field::IvPrefix),
        (messages::Sa { iv_prefix: IvPrefix { bits: 4, value: 16 }, ..base.clone() }, Field::IvPrefix),
        (messages::Sa { iv_prefix: IvPrefix { bits: 0, value: 1 }, ..base.clone() }, Field::IvPrefix),
        (messages::Sa { class_group: 1, ..base.clone() }, Field::ClassGroup),
        (messages::Sa { class_group: 8, direction: Direction::Outbound, ..base.clone() }, Field::ClassGroup),
        (messages::Sa { owner: Some(WorkerId(2)), ..base.clone() }, Field::Owner),
        (limit(LifetimeLimits { soft_bytes: 2, hard_bytes: 1, ..none }), Field::Lifetime),
        (limit(LifetimeLimits { soft_packets: 2, hard_packets: 1, ..none }), Field::Lifetime),
        (limit(LifetimeLimits { soft_seconds: 2, hard_seconds: 1, ..none }), Field::Lifetime),
    ] {
        refused([Object::Sa(changed)], Refusal::OutOfRange(sa_id(1), field));
    }
    for fine in [
        messages::Sa { replay_window: 0, spi: 256, ..base.clone() },
        messages::Sa { iv_prefix: IvPrefix { bits: 32, value: u32::MAX }, ..base.clone() },
        limit(LifetimeLimits { soft_bytes: 5, hard_packets: 1, ..none }),
    ] {
        assert!(with([Object::Protection(protection(0)), Object::Sa(fine)]).is_ok());
    }
    refused([Object::Sa(sa(1000, 0, Direction::Inbound))], Refusal::BeyondLimit(sa_id(1000), 1000));
}

#[test]
fn what_is_not_there_cannot_be_deleted() {
    let mut shadow = headend(1);
    for id in [
        ObjectId::Port(PortIndex(2)),
        address_id("192.0.2.9"),
        ObjectId::Neighbor(OUTSIDE, ip("198.51.100.9")),
        route_id("10.9.0.0/16"),
        tunnel_id(1),
        tunnel_id(u32::MAX),
        protection_id(0),
        policy_id(0),
        sa_id(0),
    ] {
        assert_eq!(shadow.delete(id), Err(Refusal::Unknown(id)));
    }
    assert_eq!(shadow.delete(tunnel_id(0)), Ok(()));
    assert_eq!(shadow.delete(tunnel_id(0)), Err(Refusal::Unknown(tunnel_id(0))));
}

// ---- objects against each other ----

#[test]
fn what_is_named_must_exist() {
    let port2 = PortIndex(2);
    let dangling = |id, other| Refusal::Dangling(id, other);
    refused([address(Some(port2), "192.0.3.1/24")], dangling(address_id("192.0.3.1"), ObjectId::Port(port2)));
    let neighbor = StaticNeighbor { port: port2, address: ip("192.0.3.9"), mac: [2; 6] };
    let id = ObjectId::Neighbor(port2, neighbor.address);
    refused([Object::Neighbor(neighbor)], dangling(id, ObjectId::Port(port2)));
    let id = route_id("10.99.0.0/16");
    refused([route("10.99.0.0/16", via(port2, "192.0.3.1"))], dangling(id, ObjectId::Port(port2)));
    refused([route("10.99.0.0/16", RouteTarget::Tunnel(TunnelIndex(9)))], dangling(id, tunnel_id(9)));
    let elsewhere = Policy { port: port2, ..policy(1, ANY, PolicyAction::Bypass) };
    refused([Object::Policy(elsewhere)], dangling(policy_id(1), ObjectId::Port(port2)));
    let protect = policy(1, ANY, PolicyAction::Protect(ProtectionIndex(7)));
    refused([Object::Policy(protect)], dangling(policy_id(1), protection_id(7)));
    refused([Object::Sa(sa(1, 7, Direction::Inbound))], dangling(sa_id(1), protection_id(7)));
    let [_, tunnel, ..] = protected_tunnel(1);
    refused([tunnel], dangling(tunnel_id(1), protection_id(1)));
}

#[test]
fn what_others_name_cannot_go_even_if_they_were_checked_before() {
    let shadow = changed(&headend(2), protected_tunnel(0)).unwrap();
    let table = Neighbors::with_seed(64, 1);
    let before = shadow.compile(1, &limits(), None, &table).unwrap();
    for (id, expected) in [
        (tunnel_id(1), Refusal::Dangling(route_id("10.0.1.0/24"), tunnel_id(1))),
        (protection_id(0), Refusal::Dangling(sa_id(0), protection_id(0))),
        (address_id("198.51.100.1"), Refusal::OutOfRange(route_id("0.0.0.0/0"), Field::Address)),
        (ObjectId::Port(INSIDE), Refusal::Dangling(address_id("192.0.2.1"), ObjectId::Port(INSIDE))),
    ] {
        let mut shadow = shadow.clone();
        shadow.delete(id).unwrap();
        assert_eq!(shadow.compile(2, &limits(), Some(&before), &table).err(), Some(expected), "{id}");
        assert_eq!(shadow.compile(2, &limits(), None, &table).err(), Some(expected), "{id}");
    }
}

#[test]
fn the_near_end_is_ours_and_the_far_end_is_a_host_elsewhere() {
    let base = tunnel(1);
    let foreign = messages::Tunnel { source: ip("198.51.100.77"), ..base };
    refused([Object::Tunnel(foreign)], Refusal::Dangling(tunnel_id(1), address_id("198.51.100.77")));
    let own = messages::Tunnel { destination: ip("192.0.2.1"), ..base };
    refused([Object::Tunnel(own)], Refusal::Conflict(tunnel_id(1), address_id("192.0.2.1")));
    let broadcast = messages::Tunnel { destination: ip("198.51.100.255"), ..base };
    refused([Object::Tunnel(broadcast)], Refusal::OutOfRange(tunnel_id(1), Field::Address));
    let foreign = messages::Protection { local: ip("198.51.100.77"), ..protection(1) };
    refused([Object::Protection(foreign)], Refusal::Dangling(protection_id(1), address_id("198.51.100.77")));
    let loopback = messages::Tunnel { source: ip("203.0.113.1"), ..base };
    assert!(with([address(None, "203.0.113.1/32"), Object::Tunnel(loopback)]).is_ok());
}

#[test]
fn an_ipv6_address_needs_an_mtu_of_1280() {
    let refusal = Refusal::OutOfRange(ObjectId::Port(INSIDE), Field::Mtu);
    refused([port(INSIDE, 1279, PortSide::Protected)], refusal);
    assert!(with([port(INSIDE, 1280, PortSide::Protected)]).is_ok());
}

#[test]
fn a_next_hop_is_a_neighbour_on_its_port() {
    let id = route_id("10.99.0.0/16");
    for next_hop in ["198.51.101.1", "192.0.2.9", "198.51.100.1", "198.51.100.255"] {
        refused([route("10.99.0.0/16", via(OUTSIDE, next_hop))], Refusal::OutOfRange(id, Field::Address));
    }
    let direct = RouteTarget::Port { port: PortIndex(2), next_hop: None };
    let up = port(PortIndex(2), 1500, PortSide::Protected);
    refused([up, route("10.99.0.0/16", direct)], Refusal::OutOfRange(id, Field::Port));
    let link_local =
        [address(Some(OUTSIDE), "fe80::1/64"), route("2001:db8:99::/48", via(OUTSIDE, "fe80::99"))];
    assert!(with(link_local).is_ok());
}

#[test]
fn a_prefix_is_connected_to_one_port_and_not_routed_besides() {
    refused(
        [address(Some(INSIDE), "198.51.100.7/24")],
        Refusal::Conflict(address_id("198.51.100.7"), address_id("198.51.100.1")),
    );
    refused(
        [route("192.0.2.0/24", RouteTarget::Discard)],
        Refusal::Conflict(route_id("192.0.2.0/24"), address_id("192.0.2.1")),
    );
    let both = [address(Some(INSIDE), "192.0.2.7/24"), address(Some(INSIDE), "192.0.2.8/25")];
    assert!(with(both).is_ok(), "a second address in the prefix, and a longer prefix");
    let link_local = [address(Some(INSIDE), "fe80::1/64"), address(Some(OUTSIDE), "fe80::2/64")];
    assert!(with(link_local).is_ok(), "every port has the link-local prefix");
}

#[test]
fn policies_stand_on_unprotected_ports_in_one_order() {
    let inside = Policy { port: INSIDE, ..policy(1, ANY, PolicyAction::Bypass) };
    refused([Object::Policy(inside)], Refusal::OutOfRange(policy_id(1), Field::Port));
    let equal = Policy { order: 1, ..policy(2, ANY, PolicyAction::Discard) };
    let objects = [Object::Policy(policy(1, ANY, PolicyAction::Bypass)), Object::Policy(equal)];
    refused(objects, Refusal::Conflict(policy_id(2), policy_id(1)));
}

#[test]
fn two_tunnels_differ_in_addresses_or_key() {
    let twin = |key| messages::Tunnel {
        destination: tunnel(1).destination,
        gre: GreOptions { key, ..tunnel(2).gre },
        ..tunnel(2)
    };
    refused([Object::Tunnel(twin(None))], Refusal::Conflict(tunnel_id(2), tunnel_id(1)));
    let generation = with([Object::Tunnel(twin(Some(0)))]).unwrap();
    let (local, remote) = (tunnel(1).source, tunnel(1).destination);
    let found = |local, remote, key| generation.tunnels.by_delivery(local, remote, key);
    assert_eq!(found(&local, &remote, None), Ok(TunnelIndex(1)));
    assert_eq!(found(&local, &remote, Some(0)), Ok(TunnelIndex(2)));
    assert_eq!(found(&local, &remote, Some(1)), Err(NoTunnel::Key));
    assert_eq!(found(&remote, &local, None), Err(NoTunnel::Addresses));
    assert_eq!(found(&local, &tunnel(2).destination, None), Err(NoTunnel::Addresses));
}

#[test]
fn an_spi_means_one_inbound_sa_and_a_protection_has_one_outbound_sa() {
    let base = [Object::Protection(protection(0)), Object::Protection(protection(1))];
    let spi = |sa: messages::Sa| Object::Sa(messages::Sa { spi: 0x9999, ..sa });
    let inbound = [spi(sa(1, 0, Direction::Inbound)), spi(sa(2, 1, Direction::Inbound))];
    refused(base.iter().cloned().chain(inbound), Refusal::Conflict(sa_id(2), sa_id(1)));
    let outbound = [Object::Sa(sa(1, 0, Direction::Outbound)), Object::Sa(sa(2, 0, Direction::Outbound))];
    refused(base.iter().cloned().chain(outbound), Refusal::Conflict(sa_id(2), sa_id(1)));
    let fine = [
        spi(sa(1, 0, Direction::Inbound)),
        spi(sa(2, 0, Direction::Outbound)),
        spi(sa(3, 1, Direction::Outbound)),
        Object::Sa(sa(4, 0, Direction::Inbound)),
    ];
    let generation = with(base.iter().cloned().chain(fine)).unwrap();
    assert_eq!(generation.sas.inbound(0x9999), Some((SaIndex(1), ProtectionIndex(0))));
    assert_eq!(generation.sas.inbound(0x1004), Some((SaIndex(4), ProtectionIndex(0))));
    assert_eq!(generation.sas.inbound(0x1002), None);
    assert_eq!(generation.protections.get(ProtectionIndex(1)).unwrap().outbound, Some(SaIndex(3)));
}

#[test]
fn a_key_serves_one_sa_in_one_direction() {
    let original = sa(1, 0, Direction::Inbound);
    for direction in [Direction::Inbound, Direction::Outbound] {
        let copy = messages::Sa { key: original.key.clone(), ..sa(2, 0, direction) };
        let objects = [Object::Protection(protection(0)), Object::Sa(original.clone()), Object::Sa(copy)];
        refused(objects, Refusal::KeyReused(sa_id(2), sa_id(1)));
    }
}

#[test]
fn transport_mode_goes_between_the_tunnels_own_ends() {
    let other = messages::Protection { remote: ip("203.0.9.9"), ..protection(1) };
    let [_, tunnel, ..] = protected_tunnel(1);
    refused([Object::Protection(other), tunnel.clone()], Refusal::Conflict(tunnel_id(1), protection_id(1)));
    let outside = messages::Protection { mode: EspMode::Tunnel, ..other };
    assert!(with([Object::Protection(outside), tunnel]).is_ok());
}

// ---- what comes out ----

#[test]
fn a_protected_tunnel_goes_out_under_its_sa_by_the_gateway() {
    let table = Neighbors::with_seed(64, 1);
    let shadow = changed(&headend(2), protected_tunnel(1)).unwrap();
    let generation = shadow.compile(5, &limits(), None, &table).unwrap();
    let tunnel = generation.tunnels.get(TunnelIndex(1)).unwrap();
    let way = &tunnel.encapsulation;
    assert_eq!(way.verdict, Verdict::Protect { protection: ProtectionIndex(1), sa: Some(SaIndex(3)) });
    assert_eq!(way.template.bytes()[20..24], (0x1003u32).to_be_bytes());
    let egress = way.egress.unwrap();
    let gateway = table.find(OUTSIDE, &ip("198.51.100.254")).unwrap();
    assert_eq!((egress.port, egress.neighbor, egress.port_mtu), (OUTSIDE, NextHop::Slot(gateway), 1500));
    // RFC 4303, RFC 2784: 1500 − 20 − 16 − 16 = 1448, a multiple of 4; less trailer 2 and GRE 4.
    assert_eq!(way.mtu, 1442);
    assert_eq!(tunnel.mss, Some(MssLimits { v4: 1402, v6: 1382 }));
    assert_eq!((tunnel.protection, generation.number), (Some(ProtectionIndex(1)), 5));
    assert_eq!(generation.tunnels.len(), 2);
}

#[test]
fn without_an_sa_there_is_room_for_one_but_none_to_use() {
    let [protection, tunnel, inbound, _] = protected_tunnel(1);
    let generation = with([protection, tunnel, inbound]).unwrap();
    let way = &generation.tunnels.get(TunnelIndex(1)).unwrap().encapsulation;
    assert_eq!(way.verdict, Verdict::Protect { protection: ProtectionIndex(1), sa: None });
    assert_eq!((way.template.icv_bytes, way.mtu), (16, 1442));
    assert_eq!(way.template.bytes()[20..36], [0; 16]);
}

#[test]
fn without_tunnel_protection_the_spd_of_the_egress_port_decides_about_gre() {
    let gre = Selector { protocol: Some(47), remote: Some(prefix("203.0.0.0/16")), ..ANY };
    for (policies, expected) in [
        (vec![], Verdict::Drop(DropReason::PolicyNone)),
        (vec![policy(1, gre, PolicyAction::Bypass)], Verdict::Clear),
        (vec![policy(1, gre, PolicyAction::Discard)], Verdict::Drop(DropReason::PolicyDiscard)),
        (
            vec![policy(1, gre, PolicyAction::Protect(ProtectionIndex(1)))],
            Verdict::Protect { protection: ProtectionIndex(1), sa: Some(SaIndex(3)) },
        ),
    ] {
        let [protection, _, inbound, outbound] = protected_tunnel(1);
        let outside = match protection {
            Object::Protection(config) => messages::Protection { mode: EspMode::Tunnel, ..config },
            _ => unreachable!(),
        };
        let objects = [Object::Protection(outside), inbound, outbound];
        let generation = with(objects.into_iter().chain(policies.into_iter().map(Object::Policy))).unwrap();
        let tunnel = generation.tunnels.get(TunnelIndex(1)).unwrap();
        assert_eq!(tunnel.encapsulation.verdict, expected);
        let protected = matches!(expected, Verdict::Protect { .. });
        assert_eq!(tunnel.protection.is_some(), protected);
        assert_eq!(tunnel.encapsulation.template.esp_offset.is_some(), protected);
    }
}

#[test]
fn towards_a_protected_port_the_spd_has_no_say() {
    let inside = messages::Tunnel { source: ip("192.0.2.1"), destination: ip("192.0.2.77"), ..tunnel(1) };
    let table = Neighbors::with_seed(64, 1);
    let shadow = changed(&headend(4), [Object::Tunnel(inside)]).unwrap();
    let generation = shadow.compile(1, &limits(), None, &table).unwrap();
    let way = &generation.tunnels.get(TunnelIndex(1)).unwrap().encapsulation;
    assert_eq!((way.verdict, way.mtu), (Verdict::Clear, 1476));
    let peer = table.find(INSIDE, &inside.destination).unwrap();
    assert_eq!(way.egress.unwrap().neighbor, NextHop::Slot(peer), "connected: the peer itself");
}

#[test]
fn a_peer_that_no_port_leads_to_has_no_egress() {
    for target in
        [RouteTarget::Discard, RouteTarget::Tunnel(TunnelIndex(2)), RouteTarget::Tunnel(TunnelIndex(1))]
    {
        let generation = with([route("203.0.0.1/32", target)]).unwrap();
        let way = &generation.tunnels.get(TunnelIndex(1)).unwrap().encapsulation;
        assert_eq!((way.verdict, way.egress), (Verdict::Drop(DropReason::NoEgress), None));
    }
    let protected = protected_tunnel(1);
    let generation =
        with(protected.into_iter().chain([route("203.0.0.1/32", RouteTarget::Discard)])).unwrap();
    let way = &generation.tunnels.get(TunnelIndex(1)).unwrap().encapsulation;
    assert_eq!(way.verdict, Verdict::Drop(DropReason::NoEgress), "protected or not");
}

#[test]
fn dual_tier_puts_the_esp_peer_outside_and_the_gre_peer_inside() {
    let outer = messages::Protection {
        mode: EspMode::Tunnel,
        local: ip("2001:db8:2::1"),
        remote: ip("2001:db8:9::1"),
        ttl: 33,
        ..protection(1)
    };
    let [_, tunnel, _, outbound] = protected_tunnel(1);
    let table = Neighbors::with_seed(64, 1);
    let shadow = changed(&headend(2), [Object::Protection(outer), tunnel, outbound]).unwrap();
    let generation = shadow.compile(1, &limits(), None, &table).unwrap();
    let way = &generation.tunnels.get(TunnelIndex(1)).unwrap().encapsulation;
    let gateway = table.find(OUTSIDE, &ip("2001:db8:2::fe")).unwrap();
    assert_eq!(way.egress.unwrap().neighbor, NextHop::Slot(gateway), "the way to the ESP peer");
    assert_eq!((way.template.outer.family_v6, way.template.outer.offset), (true, 0));
    let inner = way.template.inner.unwrap();
    assert_eq!((inner.family_v6, inner.offset), (false, 56));
    assert_eq!((way.template.gre_offset, way.template.esp_next_header), (Some(76), 4));
    // 1500 − 40 − 16 − 16 = 1428; less trailer 2, delivery 20 and GRE 4.
    assert_eq!(way.mtu, 1402);
}

#[test]
fn ports_know_their_addresses() {
    let generation =
        with([address(Some(OUTSIDE), "fe80::1/64"), address(Some(OUTSIDE), "198.51.100.9/24")]).unwrap();
    let outside = generation.ports.get(OUTSIDE).unwrap();
    assert_eq!(outside.v4_source.map(IpAddr::V4), Some(ip("198.51.100.1")));
    assert_eq!(outside.v6_source.map(IpAddr::V6), Some(ip("2001:db8:2::1")));
    assert!(outside.has_v4 && outside.has_v6);
    assert!(generation.ports.get(PortIndex(2)).is_none() && generation.ports.get(PortIndex(9)).is_none());
    assert_eq!(generation.ports.iter().count(), 2);
}

#[test]
fn connected_prefixes_are_routes_and_link_local_ones_are_not() {
    let generation =
        with([address(Some(OUTSIDE), "fe80::1/64"), address(Some(INSIDE), "192.0.9.1/32")]).unwrap();
    let connected = |port| Some(NextStep::Port { port, neighbor: NextHop::Connected });
    assert_eq!(generation.routes.lookup(&ip("192.0.2.200")), connected(INSIDE));
    assert_eq!(generation.routes.lookup(&ip("2001:db8:2::77")), connected(OUTSIDE));
    let default = generation.routes.lookup(&ip("8.8.8.8"));
    assert!(matches!(default, Some(NextStep::Port { port: OUTSIDE, neighbor: NextHop::Slot(_) })));
    assert_eq!(generation.routes.lookup(&ip("192.0.9.1")), default);
    assert_eq!(
        generation.routes.lookup(&ip("fe80::9")),
        Some(NextStep::Discard),
        "in spite of the default route"
    );
    assert_eq!(generation.routes.lookup(&ip("10.0.3.9")), Some(NextStep::Tunnel(TunnelIndex(3))));
}

#[test]
fn the_empty_generation_knows_nothing() {
    let generation = Generation::empty();
    let address = ip("192.0.2.1");
    assert!(
        generation.ports.get(INSIDE).is_none() && generation.tunnels.is_empty() && generation.sas.is_empty()
    );
    assert!(!generation.addresses.is_local(&address) && generation.routes.lookup(&address).is_none());
    let packet = PacketSelectors { local: address, remote: address, protocol: 47, ports: None };
    assert_eq!(generation.spds.lookup(OUTSIDE, &packet), SpdVerdict::NoMatch);
    assert_eq!(generation.tunnels.by_delivery(&address, &address, None), Err(NoTunnel::Addresses));
}

// ---- what lives on, and what is shared ----

#[test]
fn counters_live_as_long_as_index_and_addresses() {
    let table = Neighbors::with_seed(64, 1);
    let shadow = headend(3);
    let before = shadow.compile(1, &limits(), None, &table).unwrap();
    let count = |generation: &Generation, index| {
        generation.tunnels.get(TunnelIndex(index)).unwrap().state.counts().sum().packets_out
    };
    for index in 0..3 {
        before.tunnels.get(TunnelIndex(index)).unwrap().state.counts().count_out(WorkerId(0), 1, 100);
    }
    let objects = [
        Object::Tunnel(messages::Tunnel { ttl: 3, ..tunnel(0) }),
        Object::Tunnel(messages::Tunnel { destination: ip("203.0.9.9"), ..tunnel(1) }),
    ];
    let after = changed(&shadow, objects).unwrap().compile(2, &limits(), Some(&before), &table).unwrap();
    assert_eq!([0, 1, 2].map(|index| count(&after, index)), [1, 0, 1]);
    let frame_changed = changed(&shadow, [port(OUTSIDE, 1400, PortSide::Unprotected)]).unwrap();
    let after = frame_changed.compile(2, &limits(), Some(&before), &table).unwrap();
    assert_eq!([0, 1, 2].map(|index| count(&after, index)), [1, 1, 1]);
    assert_eq!(after.tunnels.get(TunnelIndex(2)).unwrap().encapsulation.mtu, 1376);
}

#[test]
fn a_rekey_builds_one_tunnel_and_shares_the_rest() {
    let table = Neighbors::with_seed(64, 1);
    let shadow = changed(&headend(400), (0..400).flat_map(protected_tunnel)).unwrap();
    let before = shadow.compile(1, &limits(), None, &table).unwrap();
    let mut shadow = before.wanted().clone();
    shadow.delete(sa_id(2 * 7 + 1)).unwrap();
    let rekeyed = messages::Sa {
        sa: SaIndex(900),
        key: messages::Key { icv_bytes: 8, ..sa(900, 7, Direction::Outbound).key },
        ..sa(900, 7, Direction::Outbound)
    };
    shadow.put(&Object::Sa(rekeyed), &limits()).unwrap();
    let after = shadow.compile(2, &limits(), Some(&before), &table).unwrap();
    let way = &after.tunnels.get(TunnelIndex(7)).unwrap().encapsulation;
    assert_eq!(way.verdict, Verdict::Protect { protection: ProtectionIndex(7), sa: Some(SaIndex(900)) });
    assert_eq!((way.template.icv_bytes, way.mtu), (8, 1450));
    assert_eq!(way.template.bytes()[20..24], (0x1000u32 + 900).to_be_bytes());
    let shared = (0..400).map(TunnelIndex).filter(|index| {
        core::ptr::eq(before.tunnels.get(*index).unwrap(), after.tunnels.get(*index).unwrap())
    });
    assert!(shared.count() >= 400 - 128, "all but one chunk");
    assert_eq!(after.sas.inbound(0x1000 + 14), Some((SaIndex(14), ProtectionIndex(7))));
}

#[test]
fn a_new_site_shares_what_leaves_as_before_and_a_new_way_out_does_not() {
    let table = Neighbors::with_seed(64, 1);
    let shadow = headend(300);
    let before = shadow.compile(1, &limits(), None, &table).unwrap();
    let shared = |after: &Generation| {
        let same = |index: &TunnelIndex| {
            core::ptr::eq(before.tunnels.get(*index).unwrap(), after.tunnels.get(*index).unwrap())
        };
        (0..300).map(TunnelIndex).filter(same).count()
    };
    let site = [Object::Tunnel(tunnel(310)), route("10.200.0.0/16", RouteTarget::Tunnel(TunnelIndex(310)))];
    let after = changed(&shadow, site).unwrap().compile(2, &limits(), Some(&before), &table).unwrap();
    assert!(shared(&after) >= 300 - 128, "all but the chunk of the new one");
    assert_eq!(after.routes.lookup(&ip("10.200.7.7")), Some(NextStep::Tunnel(TunnelIndex(310))));
    let other_gateway = route("0.0.0.0/0", via(OUTSIDE, "198.51.100.253"));
    let after =
        changed(&shadow, [other_gateway]).unwrap().compile(2, &limits(), Some(&before), &table).unwrap();
    assert_eq!(shared(&after), 0);
    let gateway = table.find(OUTSIDE, &ip("198.51.100.253")).unwrap();
    let egress = |index| after.tunnels.get(TunnelIndex(index)).unwrap().encapsulation.egress.unwrap();
    assert!((0..300).all(|index| egress(index).neighbor == NextHop::Slot(gateway)));
}

#[test]
fn spis_and_keys_may_change_hands_in_one_transaction() {
    let table = Neighbors::with_seed(64, 1);
    let shadow = changed(&headend(2), protected_tunnel(0).into_iter().chain(protected_tunnel(1))).unwrap();
    let before = shadow.compile(1, &limits(), None, &table).unwrap();
    let swap = |index: u32, other: u32| {
        let theirs = sa(other, other / 2, Direction::Inbound);
        Object::Sa(messages::Sa {
            spi: theirs.spi,
            key: theirs.key,
            ..sa(index, index / 2, Direction::Inbound)
        })
    };
    let shadow = changed(&shadow, [swap(0, 2), swap(2, 0)]).unwrap();
    let after = shadow.compile(2, &limits(), Some(&before), &table).unwrap();
    assert_eq!(after.sas.inbound(0x1000), Some((SaIndex(2), ProtectionIndex(1))));
    assert_eq!(after.sas.inbound(0x1002), Some((SaIndex(0), ProtectionIndex(0))));
}

#[test]
fn next_hops_keep_their_slots_as_long_as_a_generation_lives() {
    let table = Neighbors::with_seed(64, 1);
    let inside = messages::Tunnel { source: ip("192.0.2.1"), destination: ip("192.0.2.77"), ..tunnel(0) };
    let shadow = changed(&headend(1), [Object::Tunnel(inside)]).unwrap();
    let first = shadow.compile(1, &limits(), None, &table).unwrap();
    let second = shadow.compile(2, &limits(), Some(&first), &table).unwrap();
    let known = || {
        let hops = [(OUTSIDE, "198.51.100.254"), (OUTSIDE, "2001:db8:2::fe"), (INSIDE, "192.0.2.77")];
        hops.map(|(port, address)| table.find(port, &ip(address)).is_some())
    };
    let age = |seconds: u64| {
        table.age(seconds * 1_000_000_000);
        table.age((seconds + 1000) * 1_000_000_000);
    };
    age(1_000);
    assert_eq!(known(), [true; 3]);
    drop(first);
    age(5_000);
    assert_eq!(known(), [true; 3]);
    drop(second);
    age(9_000);
    assert_eq!(known(), [false; 3]);
}

#[test]
fn static_neighbours_come_and_go_with_the_commit() {
    let table = Neighbors::with_seed(64, 1);
    let neighbor = |host: u8, mac| {
        Object::Neighbor(StaticNeighbor { port: OUTSIDE, address: IpAddr::from([198, 51, 100, host]), mac })
    };
    let mac = |host: u8| {
        let index = table.find(OUTSIDE, &IpAddr::from([198, 51, 100, host]))?;
        table.mac(index)
    };
    let shadow = changed(&headend(1), [neighbor(254, [2; 6]), neighbor(9, [4; 6])]).unwrap();
    let first = shadow.compile(1, &limits(), None, &table).unwrap();
    assert_eq!([mac(254), mac(9)], [None, None], "compiling alone sets nothing");
    first.switch_neighbors(None, &table);
    assert_eq!([mac(254), mac(9)], [Some([2; 6]), Some([4; 6])]);
    let mut shadow = changed(&shadow, [neighbor(9, [6; 6])]).unwrap();
    shadow.delete(ObjectId::Neighbor(OUTSIDE, ip("198.51.100.254"))).unwrap();
    let second = shadow.compile(2, &limits(), Some(&first), &table).unwrap();
    second.switch_neighbors(Some(&first), &table);
    assert_eq!([mac(254), mac(9)], [None, Some([6; 6])]);
    refused(
        [Object::Neighbor(StaticNeighbor { port: OUTSIDE, address: ip("192.0.2.1"), mac: [2; 6] })],
        Refusal::Conflict(ObjectId::Neighbor(OUTSIDE, ip("192.0.2.1")), address_id("192.0.2.1")),
    );
}

#[test]
fn a_full_neighbour_table_refuses_what_needs_a_slot() {
    let table = Neighbors::with_seed(1, 1);
    while (0..=255u8)
        .any(|host| table.ensure(PortIndex(7), &IpAddr::from([10, 0, 0, host])).is_ok_and(|_| host == 255))
    {
    }
    let refusal = headend(1).compile(1, &limits(), None, &table).err();
    assert_eq!(refusal, Some(Refusal::OutOfMemory(route_id("0.0.0.0/0"))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn delivery_finds_what_a_linear_search_finds(
        wanted in prop::collection::vec((0u8..2, 0u8..4, any::<bool>(), prop::option::of(0u32..3)), 0..40),
    ) {
        let ends = |own: u8, peer: u8, v6: bool| {
            let peers = ["203.0.0.1", "203.0.0.2", "10.9.9.9", "203.0.1.1"];
            let peers_v6 = ["2001:db8:9::1", "2001:db8:9::2", "::cb00:1", "2001:db8:9::cb00:1"];
            match v6 {
                false => (ip(["198.51.100.1", "192.0.2.1"][usize::from(own)]), ip(peers[usize::from(peer)])),
                true => (ip(["2001:db8:2::1", "2001:db8:1::1"][usize::from(own)]), ip(peers_v6[usize::from(peer)])),
            }
        };
        let mut configs: Vec<messages::Tunnel> = Vec::new();
        for (own, peer, v6, key) in wanted {
            let (source, destination) = ends(own, peer, v6);
            let index = u32::try_from(configs.len()).unwrap();
            let config = messages::Tunnel { source, destination, gre: GreOptions { key, ..tunnel(0).gre }, ..tunnel(index) };
            let is_new = |x: &messages::Tunnel| (x.source, x.destination, x.gre.key) != (source, destination, key);
            if configs.iter().all(is_new) {
                configs.push(config);
            }
        }
        let generation = compiled(&changed(&headend(0), configs.iter().map(|x| Object::Tunnel(*x))).unwrap()).unwrap();
        for (own, peer, v6) in (0..16).map(|bits| (bits & 1, bits >> 1 & 3, bits & 8 != 0)) {
            let (local, remote) = ends(own, peer, v6);
            for key in [None, Some(0), Some(1), Some(2), Some(3)] {
                let mut pair = configs.iter().filter(|x| (x.source, x.destination) == (local, remote)).peekable();
                let expected = match pair.peek() {
                    None => Err(NoTunnel::Addresses),
                    Some(_) => pair.find(|x| x.gre.key == key).map(|x| x.tunnel).ok_or(NoTunnel::Key),
                };
                prop_assert_eq!(generation.tunnels.by_delivery(&local, &remote, key), expected);
            }
        }
    }
}
