// SPDX-License-Identifier: Apache-2.0
//! Frames that never become packets, ARP and neighbour discovery that is wrong.

use greyhound_simulation::Bench;
use greyhound_simulation::bench::static_neighbors;
use greyhound_simulation::packets::{self, Udp, ip_with};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use messages::{DropReason, PortIndex};
use wire::{EtherType, IpProtocol, MacAddr, arp, checksum, ethernet, ndp};

use crate::support::{Attack, far_mac, frame_to, outbound};

#[test]
fn a_frame_cut_inside_its_ethernet_header_is_truncated() {
    let mut attack = Attack::transport();
    let whole = frame_to(LAN, &outbound().to_bytes());
    for length in 0..ethernet::HEADER_BYTES {
        attack.drops_frame(LAN, DropReason::EthernetTruncated, &whole[..length]);
    }
    let tagged = with_tag(&whole, 0);
    for length in ethernet::HEADER_BYTES..ethernet::HEADER_BYTES + 4 {
        attack.drops_frame(LAN, DropReason::EthernetTruncated, &tagged[..length]);
    }
    attack.is_alive();
}

#[test]
fn a_frame_for_another_station_is_not_for_us() {
    let mut attack = Attack::transport();
    for (port, packet) in [(LAN, outbound().to_bytes()), (WAN, attack.genuine())] {
        let frame = packets::frame(MacAddr([2, 0, 0, 0, 9, 9]), far_mac(port), &packet);
        attack.drops_frame(port, DropReason::NotForUs, &frame);
    }
    attack.is_alive();
}

#[test]
fn a_packet_for_one_host_in_a_frame_for_everybody_is_not_forwarded() {
    let mut attack = Attack::transport();
    let ipv6 = Udp::new(End::A.host_v6(), End::B.host_v6(), b"to afar").to_bytes();
    for group in [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        for packet in [outbound().to_bytes(), ipv6.clone()] {
            let frame = packets::frame(MacAddr(group), far_mac(LAN), &packet);
            attack.drops_frame(LAN, DropReason::NotForUs, &frame);
        }
        let genuine = attack.genuine();
        let frame = packets::frame(MacAddr(group), far_mac(WAN), &genuine);
        attack.drops_frame(WAN, DropReason::NotForUs, &frame);
    }
    attack.is_alive();
}

#[test]
fn a_vlan_that_the_port_does_not_carry_is_dropped() {
    let mut attack = Attack::transport();
    let frame = frame_to(LAN, &outbound().to_bytes());
    for vlan in [1, 100, 4_094, 4_095] {
        attack.drops_frame(LAN, DropReason::VlanUnknown, &with_tag(&frame, vlan));
    }
    attack.is_alive();
}

#[test]
fn a_priority_tag_alone_is_no_vlan() {
    let mut attack = Attack::transport();
    let frame = with_tag(&frame_to(LAN, &outbound().to_bytes()), 0);
    let seen = attack.bench.observe(|bench| bench.lan.send_frame(0, &frame));
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1));
    let request = with_tag(&arp_frame(LAN, &request(End::A.host(), End::A.gateway())), 0);
    let seen = attack.bench.observe(|bench| bench.lan.send_frame(0, &request));
    assert_eq!((seen.drops.len(), seen.lan.len()), (0, 1), "ARP is answered");
}

#[test]
fn what_is_neither_ip_nor_arp_is_an_unknown_ethertype() {
    let mut attack = Attack::transport();
    let frame = frame_to(WAN, &outbound().to_bytes());
    // LLDP, MPLS, PPPoE, an 802.3 length as spanning tree has it, a second tag.
    for ether_type in [0x88cc_u16, 0x8847, 0x8864, 0x0026, 0x88a8, 0x0600] {
        let mut frame = frame.clone();
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        attack.drops_frame(WAN, DropReason::EthertypeUnknown, &frame);
        attack.drops_frame(WAN, DropReason::EthertypeUnknown, &with_tag(&frame, 0));
    }
    attack.is_alive();
}

#[test]
fn a_port_without_settings_takes_nothing() {
    let bench = Bench::unconfigured(&Shape::default(), 64);
    let sealer = bench.peer_sealer(0);
    let mut attack = Attack { bench, sealer, sequence: 0 };
    let genuine = attack.genuine();
    attack.drops(DropReason::PortDown, &genuine);
    attack.drops_from_host(DropReason::PortDown, &outbound().to_bytes());
    let request = arp_frame(LAN, &request(End::A.host(), End::A.gateway()));
    attack.drops_frame(LAN, DropReason::PortDown, &request);
}

#[test]
fn arp_that_is_not_ipv4_over_ethernet_is_malformed() {
    let mut attack = Attack::transport();
    let whole = arp_frame(LAN, &request(End::A.host(), End::A.gateway()));
    for length in ethernet::HEADER_BYTES..ethernet::HEADER_BYTES + arp::PACKET_BYTES {
        attack.drops_frame(LAN, DropReason::ArpMalformed, &whole[..length]);
    }
    // Hardware type, protocol type, both lengths, operation, a group as sender.
    for (place, value) in [(15, 6), (16, 9), (18, 8), (19, 16), (21, 3), (22, 0x03)] {
        let mut frame = whole.clone();
        frame[place] = value;
        attack.drops_frame(LAN, DropReason::ArpMalformed, &frame);
    }
}

#[test]
fn arp_that_claims_our_address_is_not_believed() {
    let mut attack = Attack::transport();
    let claim = arp_frame(LAN, &request(End::A.gateway(), End::A.gateway()));
    attack.drops_frame(LAN, DropReason::SourceInvalid, &claim);
}

#[test]
fn neighbour_discovery_that_came_from_afar_or_is_wrong_is_malformed() {
    let mut attack = Attack::transport();
    let whole = solicitation();
    let mut routed = whole.clone();
    routed[7] = 254;
    attack.drops_from_host(DropReason::NdMalformed, &routed);
    let mut damaged = whole.clone();
    damaged[45] ^= 1;
    attack.drops_from_host(DropReason::NdMalformed, &damaged);
    for (place, value) in [(41, 1), (48, 0xff), (65, 0)] {
        let mut changed = whole.clone();
        changed[place] = value;
        let sum = icmpv6_sum(&changed);
        changed[42..44].copy_from_slice(&sum.to_be_bytes());
        attack.drops_from_host(DropReason::NdMalformed, &changed);
    }
    for length in 42..whole.len() {
        let mut short = whole[..length].to_vec();
        short[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        attack.drops_from_host(DropReason::NdMalformed, &short);
    }
    let seen = attack.bench.observe(|bench| bench.lan.send(&whole));
    assert_eq!((seen.drops.len(), seen.lan.len()), (0, 1), "the right one is answered");
}

#[test]
fn fragmented_neighbour_discovery_is_malformed_and_a_later_fragment_is_none() {
    let mut attack = Attack::transport();
    let solicitation = solicitation();
    let fragmented = |offset: u16, more: bool, destination: core::net::IpAddr| {
        let mut upper = vec![IpProtocol::ICMPV6.0, 0];
        upper.extend((offset << 3 | u16::from(more)).to_be_bytes());
        upper.extend([0, 0, 0, 7]);
        upper.extend(&solicitation[40..]);
        let addresses = Udp { ttl: 255, ..Udp::new(End::A.host_v6(), destination, &[]) };
        ip_with(&addresses, IpProtocol::FRAGMENT, &upper)
    };
    // RFC 6980 §5.
    attack.drops_from_host(DropReason::NdMalformed, &fragmented(0, true, End::A.gateway_v6()));
    // Its first byte is whatever the datagram has there: it goes on to where it is sent.
    let later = fragmented(10, false, End::B.host_v6());
    let seen = attack.bench.observe(|bench| bench.lan.send(&later));
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1));
}

#[test]
fn a_neighbour_table_that_is_full_takes_no_new_neighbour() {
    let mut attack = Attack::with(&Shape::default(), |_| {});
    let known = static_neighbors().len();
    // 1,024 neighbours have a place for certain, and no more than 2,048 places are there.
    for number in 0..6_000u32 {
        let packet = Udp::new(End::A.host_v6(), neighbor(number), &[]).to_bytes();
        attack.bench.lan.send(&packet);
        if number % 64 == 63 {
            attack.bench.step();
        }
    }
    attack.bench.settle();
    assert!(attack.bench.headend.neighbors().len() > 1_024 + known);
    attack.bench.lan.take_frames();
    let new = Udp::new(End::A.host_v6(), neighbor(10_000), &[]).to_bytes();
    let seen = attack.bench.observe(|bench| bench.lan.send(&new));
    assert_eq!(seen.drops, [(DropReason::NeighborTableFull, 1)]);
    assert_eq!((seen.lan.len(), seen.wan.len()), (0, 0));
    crate::support::note(DropReason::NeighborTableFull);
    // Neighbours that are known are not forgotten for it.
    let seen = attack.bench.observe(|bench| bench.lan.send(&outbound().to_bytes()));
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1));
}

#[test]
fn too_many_packets_for_one_neighbour_do_not_wait() {
    let mut attack = Attack::transport();
    let packet = Udp::new(End::A.host_v6(), neighbor(1), &[]).to_bytes();
    let seen = attack.bench.observe(|bench| (0..16).for_each(|_| bench.lan.send(&packet)));
    assert_eq!((seen.drops.len(), seen.lan.len()), (0, 1), "one question goes out");
    let seen = attack.bench.observe(|bench| bench.lan.send(&packet));
    assert_eq!(seen.drops, [(DropReason::NeighborPending, 1)]);
    assert_eq!((seen.lan.len(), seen.wan.len()), (0, 0));
    crate::support::note(DropReason::NeighborPending);
}

#[test]
fn a_neighbour_that_does_not_answer_loses_what_waited_for_it() {
    let mut attack = Attack::with(&Shape::default(), |objects| {
        objects.retain(|object| !matches!(object, messages::Object::Neighbor(n) if n.port == WAN));
    });
    attack.bench.wan.set_silent(true);
    let seen = attack.bench.observe(|bench| {
        bench.lan.send(&outbound().to_bytes());
        bench.pass(3_500_000_000);
    });
    assert_eq!(seen.drops, [(DropReason::NeighborUnresolved, 1)]);
    assert_eq!((seen.lan.len(), seen.wan.len()), (0, 3), "three questions, and no word of a sealed packet");
    crate::support::note(DropReason::NeighborUnresolved);
    // Just after that nobody is asked.
    let seen = attack.bench.observe(|bench| bench.lan.send(&outbound().to_bytes()));
    attack.only_dropped_sealed(&seen);
}

impl Attack {
    fn only_dropped_sealed(&self, seen: &greyhound_simulation::bench::Seen) {
        assert_eq!(seen.drops, [(DropReason::NeighborUnresolved, 1)]);
        assert_eq!((seen.lan.len(), seen.wan.len()), (0, 0));
        assert!(self.bench.buffers_are_home());
    }
}

/// A neighbour on the site's network that is not there.
fn neighbor(number: u32) -> core::net::IpAddr {
    let core::net::IpAddr::V6(gateway) = End::A.gateway_v6() else { unreachable!("IPv6") };
    core::net::Ipv6Addr::from_bits(gateway.to_bits() + 0x1_0000 + u128::from(number)).into()
}

fn solicitation() -> Vec<u8> {
    let (core::net::IpAddr::V6(host), core::net::IpAddr::V6(gateway)) =
        (End::A.host_v6(), End::A.gateway_v6())
    else {
        unreachable!("IPv6")
    };
    let mut bytes = vec![0; ndp::MAX_PACKET_BYTES];
    let length = ndp::Message::solicit(host, far_mac(LAN), gateway).emit(&mut bytes).expect("a solicitation");
    bytes.truncate(length);
    bytes
}

/// The checksum that the ICMPv6 message of an IPv6 packet should have.
fn icmpv6_sum(packet: &[u8]) -> u16 {
    let parsed = wire::flow::parse(packet).expect("a packet");
    let mut message = packet[40..].to_vec();
    message[2..4].fill(0);
    let length = message.len() as u32;
    checksum::Sum::pseudo_header(parsed.source, parsed.destination, IpProtocol::ICMPV6, length)
        .add_bytes(&message)
        .finish()
}

fn request(from: core::net::IpAddr, target: core::net::IpAddr) -> arp::Repr {
    let (core::net::IpAddr::V4(from), core::net::IpAddr::V4(target)) = (from, target) else {
        unreachable!("IPv4")
    };
    arp::Repr::request(far_mac(LAN), from, target)
}

fn arp_frame(port: PortIndex, message: &arp::Repr) -> Vec<u8> {
    let mut bytes = vec![0; ethernet::MIN_FRAME_BYTES];
    let (link, body) = bytes.split_at_mut(ethernet::HEADER_BYTES);
    let header =
        ethernet::Repr { destination: MacAddr([0xff; 6]), source: far_mac(port), ether_type: EtherType::ARP };
    header.emit(link).expect("an Ethernet header");
    message.emit(body).expect("an ARP packet");
    bytes
}

/// The same frame with an 802.1Q tag.
fn with_tag(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend([0x81, 0x00]);
    tagged.extend((0xa000 | vlan).to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

pub(crate) const CASES: &[fn()] = &[
    a_frame_cut_inside_its_ethernet_header_is_truncated,
    a_frame_for_another_station_is_not_for_us,
    a_vlan_that_the_port_does_not_carry_is_dropped,
    what_is_neither_ip_nor_arp_is_an_unknown_ethertype,
    a_port_without_settings_takes_nothing,
    arp_that_is_not_ipv4_over_ethernet_is_malformed,
    neighbour_discovery_that_came_from_afar_or_is_wrong_is_malformed,
    a_neighbour_table_that_is_full_takes_no_new_neighbour,
    too_many_packets_for_one_neighbour_do_not_wait,
    a_neighbour_that_does_not_answer_loses_what_waited_for_it,
];
