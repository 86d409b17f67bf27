// SPDX-License-Identifier: Apache-2.0
//! The IPsec boundary: what may not leave in clear, what may not come in clear, and what came under another tunnel's SA
//! (RFC 4301 §5.1, §5.2).

use core::net::IpAddr;

use greyhound_simulation::packets::{Udp, ip_with};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use greyhound_simulation::wanted::{ANY, host, ip, policy, prefix, route_by, route_into, sa};
use messages::{
    Address, Direction, DropReason, EspMode, GreOptions, Key, Object, PolicyAction, PortRange, PortSide,
    ProtectionIndex, SaIndex, Secret, Selector, StaticNeighbor, TunnelIndex,
};
use wire::IpProtocol;

use crate::support::{
    Attack, IPV4, KEY_PRESENT, PLAIN, delivery, forwarded, frame_to, gre, gre_with, inner, outbound,
};

const SECOND: ProtectionIndex = ProtectionIndex(1);

/// Another protection with SAs of its own between the same two addresses, or others.
fn second_protection(shape: &Shape, far: IpAddr) -> (Vec<Object>, Sealer) {
    let mut objects = Vec::new();
    for object in shape.objects(End::A, 1) {
        match object {
            Object::Protection(mut protection) => {
                protection.protection = SECOND;
                protection.remote = far;
                objects.push(Object::Protection(protection));
            }
            Object::Sa(mut sa) => {
                sa.protection = SECOND;
                objects.push(Object::Sa(sa));
            }
            _ => {}
        }
    }
    (objects, Sealer::new(&sa(shape.sa(End::A, Direction::Inbound, 1))))
}

/// A second tunnel like the first, but for what `change` makes of it.
fn second_tunnel(shape: &Shape, change: impl FnOnce(&mut messages::Tunnel)) -> Object {
    let tunnel = shape.network(End::A).into_iter().find_map(|object| match object {
        Object::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    });
    let mut tunnel = tunnel.expect("a tunnel");
    tunnel.tunnel = TunnelIndex(1);
    tunnel.protection = Some(SECOND);
    change(&mut tunnel);
    Object::Tunnel(tunnel)
}

#[test]
fn a_packet_under_the_sa_of_another_tunnel_is_dropped_by_its_key() {
    let shape = Shape { gre: GreOptions { key: Some(1), ..PLAIN }, ..Shape::default() };
    let (objects, second) = second_protection(&shape, End::B.wan());
    let mut attack = Attack::with(&shape, |all| {
        all.extend(objects);
        all.push(second_tunnel(&shape, |tunnel| tunnel.gre.key = Some(2)));
    });
    let keyed = |key| gre_with(KEY_PRESENT, IPV4, &[key], &inner().to_bytes());
    for (key, other) in [(1, 2), (2, 1)] {
        let sequence = attack.next();
        let sealer = if key == 1 { &attack.sealer } else { &second };
        let right = attack.outer(&sealer.seal(sequence, IpProtocol::GRE.0, &keyed(key)));
        let wrong = attack.outer(&sealer.seal(sequence + 100, IpProtocol::GRE.0, &keyed(other)));
        attack.passes(&right, &forwarded(&inner()));
        attack.drops(DropReason::SaTunnelMismatch, &wrong);
    }
}

#[test]
fn a_packet_under_the_sa_of_another_tunnel_is_dropped_by_its_delivery_address() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let far = ip("192.0.2.3");
    let (objects, second) = second_protection(&shape, far);
    let mut attack = Attack::with(&shape, |all| {
        all.extend(objects);
        all.push(second_tunnel(&shape, |tunnel| tunnel.destination = far));
        all.push(Object::Neighbor(StaticNeighbor { port: WAN, address: far, mac: End::B.mac(WAN) }));
    });
    let payload = gre(0, IPV4, &inner().to_bytes());
    let from = |source| ip_with(&Udp::new(source, End::A.wan(), &[]), IpProtocol::GRE, &payload);
    let outer = |source, esp: &[u8]| ip_with(&Udp::new(source, End::A.wan(), &[]), IpProtocol::ESP, esp);
    for (sealer, own, other) in
        [(&attack.bench.peer_sealer(0), End::B.wan(), far), (&second, far, End::B.wan())]
    {
        let right = outer(own, &sealer.seal(1, IpProtocol::IPV4.0, &from(own)));
        let wrong = outer(own, &sealer.seal(2, IpProtocol::IPV4.0, &from(other)));
        attack.passes(&right, &forwarded(&inner()));
        attack.drops(DropReason::SaTunnelMismatch, &wrong);
    }
}

#[test]
fn a_packet_under_the_sa_of_another_protection_is_dropped_by_its_selectors() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let (objects, second) = second_protection(&shape, End::B.wan());
    let mut attack = Attack::with(&shape, |all| {
        all.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
        all.extend(objects);
        let selector =
            |remote| Selector { remote: Some(prefix(remote)), local: Some(prefix("10.1.0.0/24")), ..ANY };
        all.push(policy(0, selector("10.2.0.0/24"), PolicyAction::Protect(ProtectionIndex(0))));
        all.push(policy(1, selector("10.3.0.0/24"), PolicyAction::Protect(SECOND)));
        all.push(policy(2, Selector { remote: Some(prefix("10.4.0.0/24")), ..ANY }, PolicyAction::Bypass));
        all.push(policy(3, Selector { remote: Some(prefix("10.5.0.0/24")), ..ANY }, PolicyAction::Discard));
    });
    let from = |source: &str| Udp { source: ip(source), ..inner() };
    for (sealer, own, other) in
        [(&attack.bench.peer_sealer(0), "10.2.0.2", "10.3.0.2"), (&second, "10.3.0.2", "10.2.0.2")]
    {
        let right = attack.outer(&sealer.seal(1, IpProtocol::IPV4.0, &from(own).to_bytes()));
        attack.passes(&right, &forwarded(&from(own)));
        // The other one's, what is to come in clear, what is to be discarded, what nothing is said of; and our end.
        for (sequence, source) in [(2, other), (3, "10.4.0.2"), (4, "10.5.0.2"), (5, "10.6.0.2")] {
            let wrong = attack.outer(&sealer.seal(sequence, IpProtocol::IPV4.0, &from(source).to_bytes()));
            attack.drops(DropReason::SelectorMismatch, &wrong);
        }
        let elsewhere = Udp { destination: ip("10.9.0.2"), ..from(own) };
        let wrong = attack.outer(&sealer.seal(6, IpProtocol::IPV4.0, &elsewhere.to_bytes()));
        attack.drops(DropReason::SelectorMismatch, &wrong);
    }
}

#[test]
fn selectors_look_at_ports_and_at_later_fragments_without() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let mut attack = Attack::with(&shape, |all| {
        all.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
        let selector = Selector {
            protocol: Some(IpProtocol::UDP.0),
            local_ports: Some(PortRange { first: 5_000, last: 5_009 }),
            remote_ports: Some(PortRange { first: 4_000, last: 4_000 }),
            ..ANY
        };
        all.push(policy(0, selector, PolicyAction::Protect(ProtectionIndex(0))));
    });
    let mut under_esp = |packet: &[u8]| attack.esp(IpProtocol::IPV4, packet);
    let good = under_esp(&inner().to_bytes());
    let mut bad = Vec::new();
    for (source_port, destination_port) in [(4_001, 5_000), (4_000, 5_010), (4_000, 4_999), (5_000, 4_000)] {
        bad.push(under_esp(&Udp { source_port, destination_port, ..inner() }.to_bytes()));
    }
    bad.push(under_esp(&ip_with(&inner(), IpProtocol::TCP, &[0x0f, 0xa0, 0x13, 0x88, 0, 0, 0, 0])));
    let mut later = inner().to_bytes();
    later[6..8].copy_from_slice(&4u16.to_be_bytes());
    bad.push(under_esp(&crate::support::resum(later)));
    attack.passes(&good, &forwarded(&inner()));
    for packet in bad {
        attack.drops(DropReason::SelectorMismatch, &packet);
    }
}

#[test]
fn a_packet_for_a_tunnel_without_protection_may_not_come_under_esp() {
    // Protection 0 is there and nothing says that the tunnel's packets come under it.
    let shape = Shape { esp: Some(EspMode::Transport), ..Shape::default() };
    let mut attack = Attack::with(&shape, |all| {
        for object in all.iter_mut() {
            if let Object::Tunnel(tunnel) = object {
                tunnel.protection = None;
            }
        }
        let gre = Selector { protocol: Some(IpProtocol::GRE.0), ..ANY };
        all.push(policy(0, gre, PolicyAction::Bypass));
    });
    let under_esp = attack.genuine();
    attack.drops(DropReason::SaTunnelMismatch, &under_esp);
    attack.passes(&delivery(&gre(0, IPV4, &inner().to_bytes())), &forwarded(&inner()));
}

#[test]
fn gre_in_clear_for_a_protected_tunnel_is_dropped() {
    for mut attack in [Attack::transport(), Attack::tunnel()] {
        let clear = delivery(&gre(0, IPV4, &inner().to_bytes()));
        attack.drops(DropReason::ClearButProtected, &clear);
        // From the inside neither.
        attack.drops_from_host(DropReason::ClearButProtected, &clear);
        attack.is_alive();
    }
}

#[test]
fn an_spd_that_lets_gre_pass_does_not_open_a_protected_tunnel() {
    let mut attack = Attack::with(&Shape::default(), |all| all.push(policy(0, ANY, PolicyAction::Bypass)));
    let clear = delivery(&gre(0, IPV4, &inner().to_bytes()));
    attack.drops(DropReason::ClearButProtected, &clear);
    attack.is_alive();
}

#[test]
fn gre_that_the_spd_protects_may_not_come_in_clear() {
    // No tunnel protection: the SPD of the port asks for ESP.
    let mut attack = Attack::with(&Shape::default(), |all| {
        for object in all.iter_mut() {
            if let Object::Tunnel(tunnel) = object {
                tunnel.protection = None;
            }
        }
        let gre = Selector { protocol: Some(IpProtocol::GRE.0), ..ANY };
        all.push(policy(0, gre, PolicyAction::Protect(ProtectionIndex(0))));
    });
    let clear = delivery(&gre(0, IPV4, &inner().to_bytes()));
    attack.drops(DropReason::ClearButProtected, &clear);
    attack.is_alive();
}

#[test]
fn gre_in_clear_that_the_spd_discards_or_does_not_know_is_dropped() {
    let shape = Shape { esp: None, ..Shape::default() };
    let clear = delivery(&gre(0, IPV4, &inner().to_bytes()));
    let mut attack = Attack::on(&shape);
    attack.drops(DropReason::PolicyNone, &clear);
    attack.drops_from_host(DropReason::PolicyNone, &outbound().to_bytes());
    let mut attack = Attack::with(&shape, |all| all.push(policy(0, ANY, PolicyAction::Discard)));
    attack.drops(DropReason::PolicyDiscard, &clear);
    attack.drops_from_host(DropReason::PolicyDiscard, &outbound().to_bytes());
}

#[test]
fn a_clear_packet_that_the_spd_protects_discards_or_does_not_know_does_not_pass() {
    let mut attack = Attack::by_policy();
    attack.drops(DropReason::ClearButProtected, &inner().to_bytes());
    let inner_v6 = Udp::new(End::B.host_v6(), End::A.host_v6(), b"");
    attack.drops(DropReason::ClearButProtected, &inner_v6.to_bytes());
    let stranger = Udp { source: ip("198.51.100.1"), ..inner() };
    attack.drops(DropReason::PolicyNone, &stranger.to_bytes());
    // To an address of ours, and a ping to it.
    let to_us = Udp::new(End::B.wan(), End::A.wan(), b"");
    attack.drops(DropReason::PolicyNone, &to_us.to_bytes());
    let ping = ip_with(&to_us, IpProtocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    attack.drops(DropReason::PolicyNone, &ping);
    attack.bench.commit(&[policy(1_000, ANY, PolicyAction::Discard)]);
    attack.drops(DropReason::PolicyDiscard, &stranger.to_bytes());
    attack.drops(DropReason::PolicyDiscard, &ping);
    attack.is_alive();
}

#[test]
fn nothing_leaves_by_an_unprotected_port_that_its_spd_does_not_let() {
    let mut attack = Attack::with(&Shape::default(), |all| {
        all.push(route_by(prefix("198.51.100.0/24"), WAN, End::B.wan()));
        let selector = Selector { remote: Some(prefix("198.51.100.128/25")), ..ANY };
        all.push(policy(0, selector, PolicyAction::Discard));
    });
    let to = |destination: &str| Udp { destination: ip(destination), ..outbound() }.to_bytes();
    attack.drops_from_host(DropReason::PolicyNone, &to("198.51.100.7"));
    attack.drops_from_host(DropReason::PolicyDiscard, &to("198.51.100.200"));
    // Out of the tunnel and on by the same port.
    let inside = Udp { destination: ip("198.51.100.7"), ..inner() }.to_bytes();
    let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
    attack.drops(DropReason::PolicyNone, &packet);
    attack.is_alive();
}

#[test]
fn transport_mode_is_for_packets_between_its_own_ends() {
    let shape = Shape { esp: Some(EspMode::Transport), ..Shape::default() };
    let mut attack = Attack::with(&shape, |all| {
        all.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
        all.push(route_by(prefix("10.2.0.0/24"), WAN, End::B.wan()));
        all.push(policy(0, ANY, PolicyAction::Protect(ProtectionIndex(0))));
    });
    attack.drops_from_host(DropReason::SaAddress, &outbound().to_bytes());
}

#[test]
fn without_an_outbound_sa_nothing_leaves() {
    let without = |all: &mut Vec<Object>| {
        all.retain(|object| !matches!(object, Object::Sa(sa) if sa.direction == Direction::Outbound));
    };
    for mode in [EspMode::Transport, EspMode::Tunnel] {
        let mut attack = Attack::with(&Shape { esp: Some(mode), ..Shape::default() }, without);
        attack.drops_from_host(DropReason::NoSa, &outbound().to_bytes());
        let packet = attack.genuine();
        attack.passes(&packet, &forwarded(&inner()));
    }
    let mut attack = Attack::by_policy();
    let sa = sa(attack.bench.shape.sa(End::A, Direction::Outbound, 0)).sa;
    let now_ns = attack.bench.now_ns;
    let deleted = [messages::ObjectId::Sa(sa)];
    attack.bench.headend.change(messages::Base::Running, &deleted, &[], now_ns).expect("a deletion");
    attack.bench.settle();
    attack.drops_from_host(DropReason::NoSa, &outbound().to_bytes());
}

#[test]
fn a_tunnel_whose_far_end_no_port_leads_to_has_no_egress() {
    for esp in [Some(EspMode::Transport), Some(EspMode::Tunnel), None] {
        let far = ip("198.51.100.9");
        let shape = Shape { esp, ..Shape::default() };
        let mut attack = Attack::with(&shape, |all| {
            for object in all {
                match object {
                    Object::Tunnel(tunnel) => tunnel.destination = far,
                    Object::Protection(protection) => protection.remote = far,
                    _ => {}
                }
            }
        });
        attack.drops_from_host(DropReason::NoEgress, &outbound().to_bytes());
        // A route into a tunnel is no way out either: what is encapsulated is not routed again.
        attack.bench.commit(&[route_into(host(far), 0)]);
        attack.drops_from_host(DropReason::NoEgress, &outbound().to_bytes());
    }
}

#[test]
fn a_strict_tunnel_takes_only_sources_that_are_routed_to_it() {
    let mut attack = Attack::with(&Shape::default(), |all| {
        for object in all.iter_mut() {
            if let Object::Tunnel(tunnel) = object {
                tunnel.strict_source = true;
            }
        }
    });
    for source in ["10.2.0.3", "10.9.0.9", "198.51.100.1", "10.1.0.7"] {
        let inside = Udp { source: ip(source), ..inner() }.to_bytes();
        let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
        attack.drops(DropReason::StrictSource, &packet);
    }
    attack.is_alive();
    // Without the check they pass.
    let mut attack = Attack::transport();
    let stranger = Udp { source: ip("10.9.0.9"), ..inner() };
    let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &stranger.to_bytes()));
    attack.passes(&packet, &forwarded(&stranger));
}

#[test]
fn what_waited_in_clear_is_judged_again_by_a_new_policy() {
    let shape = Shape { esp: None, ..Shape::default() };
    let let_pass = |all: &mut Vec<Object>| {
        all.retain(|object| !matches!(object, Object::Neighbor(neighbor) if neighbor.port == WAN));
        all.push(policy(5, ANY, PolicyAction::Bypass));
    };
    let protected = Shape { esp: Some(EspMode::Transport), ..Shape::default() };
    let tunnel_protection: Vec<Object> = protected
        .objects(End::A, 0)
        .into_iter()
        .filter(|object| matches!(object, Object::Protection(_) | Object::Sa(_) | Object::Tunnel(_)))
        .collect();
    for (change, reason) in [
        (vec![policy(0, ANY, PolicyAction::Discard)], DropReason::PolicyDiscard),
        (tunnel_protection, DropReason::ClearButProtected),
    ] {
        let mut attack = Attack::with(&shape, let_pass);
        attack.bench.wan.set_silent(true);
        let seen = attack.bench.observe(|bench| bench.lan.send(&outbound().to_bytes()));
        assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1), "it waits");
        let seen = attack.bench.observe(|bench| {
            bench.commit(&change);
            bench.wan.set_silent(false);
            bench.pass(1_100_000_000);
        });
        assert_eq!(seen.drops, [(reason, 1)]);
        let is_arp = |frame: &Vec<u8>| frame[12..14] == [0x08, 0x06];
        assert!(seen.wan.iter().all(is_arp), "nothing leaves in clear");
        assert!(attack.bench.buffers_are_home());
        crate::support::note(reason);
    }
    // One that is still let pass goes on its way.
    let mut attack = Attack::with(&shape, let_pass);
    attack.bench.wan.set_silent(true);
    attack.bench.lan.send(&outbound().to_bytes());
    attack.bench.settle();
    attack.bench.wan.take_frames();
    let seen = attack.bench.observe(|bench| {
        bench.commit(&[policy(9, ANY, PolicyAction::Discard)]);
        bench.wan.set_silent(false);
        bench.pass(1_100_000_000);
    });
    assert_eq!(seen.drops, []);
    assert_eq!(seen.wan.len(), 2, "a question and the packet");
}

#[test]
fn a_port_on_the_protected_side_has_no_spd_and_needs_none() {
    let mut attack = Attack::with(&Shape { esp: None, ..Shape::default() }, |all| {
        for object in all.iter_mut() {
            if let Object::Port(port) = object {
                port.side = PortSide::Protected;
            }
        }
    });
    attack.passes(&delivery(&gre(0, IPV4, &inner().to_bytes())), &forwarded(&inner()));
}

#[test]
fn loopback_addresses_of_ours_are_for_us_on_every_port() {
    let loopback = ip("172.16.0.1");
    let mut attack = Attack::with(&Shape::default(), |all| {
        all.push(Object::Address(Address { port: None, address: loopback, length: 32 }));
    });
    let to_us = Udp { destination: loopback, ..outbound() }.to_bytes();
    attack.drops_frame(LAN, DropReason::LocalProtocol, &frame_to(LAN, &to_us));
    attack.drops(DropReason::PolicyNone, &Udp { destination: loopback, ..inner() }.to_bytes());
}

/// Two keys of the same shape that are not the same.
#[test]
fn a_key_of_another_length_opens_nothing() {
    let mut attack = Attack::transport();
    let mut other = sa(attack.bench.shape.sa(End::A, Direction::Inbound, 0));
    let keymat: Vec<u8> =
        other.key.secret.key().iter().chain(&[0; 16]).chain(other.key.secret.salt()).copied().collect();
    other.sa = SaIndex(9);
    other.key = Key { secret: Secret::from_keymat(&keymat).expect("a key"), icv_bytes: 16 };
    let packet =
        attack.outer(&Sealer::new(&other).seal(1, IpProtocol::GRE.0, &gre(0, IPV4, &inner().to_bytes())));
    attack.drops(DropReason::BadIcv, &packet);
}

pub(crate) const CASES: &[fn()] = &[
    a_packet_under_the_sa_of_another_tunnel_is_dropped_by_its_key,
    a_packet_under_the_sa_of_another_protection_is_dropped_by_its_selectors,
    gre_in_clear_for_a_protected_tunnel_is_dropped,
    gre_in_clear_that_the_spd_discards_or_does_not_know_is_dropped,
    nothing_leaves_by_an_unprotected_port_that_its_spd_does_not_let,
    without_an_outbound_sa_nothing_leaves,
    a_tunnel_whose_far_end_no_port_leads_to_has_no_egress,
    a_strict_tunnel_takes_only_sources_that_are_routed_to_it,
];
