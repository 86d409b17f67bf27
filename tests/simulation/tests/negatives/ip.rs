// SPDX-License-Identifier: Apache-2.0
//! IP headers that contradict their packet, addresses that may not stand where they stand, and packets for us that
//! nothing takes.

use core::net::IpAddr;

use greyhound_simulation::packets::{Udp, ip_in, ip_with};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use messages::{DropReason, IpPrefix, Object, Route, RouteTarget};
use wire::{IpProtocol, icmpv4, icmpv6};

use crate::support::{Attack, IPV4, IPV6, forwarded, frame_to, gre, inner, outbound, resum};

fn outbound_v6() -> Udp {
    Udp::new(End::A.host_v6(), End::B.host_v6(), b"to afar")
}

fn inner_v6() -> Udp {
    Udp::new(End::B.host_v6(), End::A.host_v6(), b"from afar")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_frame_cut_anywhere_in_its_packet_contradicts_its_lengths() {
    let mut attack = Attack::transport();
    let genuine = attack.genuine();
    for (port, packet) in [(WAN, genuine), (LAN, outbound().to_bytes()), (LAN, outbound_v6().to_bytes())] {
        let frame = frame_to(port, &packet);
        for length in 14..frame.len() {
            attack.drops_frame(port, DropReason::IpMalformed, &frame[..length]);
        }
    }
    attack.is_alive();
}

#[test]
fn versions_and_lengths_that_cannot_be_are_malformed() {
    let mut attack = Attack::transport();
    let packet = outbound().to_bytes();
    // Version 5 and 0; a header of 16 bytes, and of 60, which is more than there is.
    for first in [0x55, 0x05, 0x44, 0x4f] {
        let mut packet = packet.clone();
        packet[0] = first;
        attack.drops_from_host(DropReason::IpMalformed, &packet);
    }
    for total in [0u16, 19, packet.len() as u16 + 1, 0xffff] {
        let mut packet = packet.clone();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        attack.drops_from_host(DropReason::IpMalformed, &resum(packet));
    }
    let mut long = outbound_v6().to_bytes();
    long[4..6].copy_from_slice(&0xff00u16.to_be_bytes());
    attack.drops_from_host(DropReason::IpMalformed, &long);
    attack.is_alive();
}

#[test]
fn a_version_that_the_ethertype_denies_is_malformed() {
    let mut attack = Attack::transport();
    for (packet, ether_type) in [(outbound().to_bytes(), IPV6), (outbound_v6().to_bytes(), IPV4)] {
        let mut frame = frame_to(LAN, &packet);
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        attack.drops_frame(LAN, DropReason::IpMalformed, &frame);
    }
}

#[test]
fn an_upper_layer_shorter_than_its_ports_is_malformed() {
    let mut attack = Attack::transport();
    for (protocol, least) in [(IpProtocol::UDP, 4), (IpProtocol::TCP, 4), (IpProtocol::ICMP, 2)] {
        for length in 0..least {
            let packet = ip_with(&outbound(), protocol, &vec![0; length]);
            attack.drops_from_host(DropReason::IpMalformed, &packet);
        }
    }
}

#[test]
fn a_wrong_header_checksum_is_told_from_anything_else() {
    let mut attack = Attack::transport();
    let genuine = attack.genuine();
    for (port, packet) in [(LAN, outbound().to_bytes()), (WAN, genuine)] {
        for bit in 0..16 {
            let mut packet = packet.clone();
            packet[10 + bit / 8] ^= 1 << (bit % 8);
            attack.drops_at(port, DropReason::IpChecksum, &packet);
        }
    }
    // The same inside, under a valid ICV.
    let mut inside = inner().to_bytes();
    inside[10] ^= 1;
    let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
    attack.drops(DropReason::IpChecksum, &packet);
    attack.is_alive();
}

/// The same packet with 4 bytes of IPv4 options: no operations, end of list.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut longer = packet[..20].to_vec();
    longer.extend([1, 1, 1, 0]);
    longer.extend(&packet[20..]);
    longer[0] = 0x46;
    let total = longer.len() as u16;
    longer[2..4].copy_from_slice(&total.to_be_bytes());
    resum(longer)
}

#[test]
fn ipv4_options_are_dropped_wherever_they_stand() {
    let mut attack = Attack::transport();
    attack.drops_from_host(DropReason::IpOptions, &with_options(&outbound().to_bytes()));
    let ping = Udp::new(End::A.host(), End::A.gateway(), b"").to_bytes();
    attack.drops_from_host(DropReason::IpOptions, &with_options(&ping));
    let esp = attack.genuine();
    attack.drops(DropReason::IpOptions, &with_options(&esp));
    let inside = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &with_options(&inner().to_bytes())));
    attack.drops(DropReason::IpOptions, &inside);
    attack.is_alive();

    let mut attack = Attack::tunnel();
    let delivery = with_options(&crate::support::delivery(&gre(0, IPV4, &inner().to_bytes())));
    let packet = attack.esp(IpProtocol::IPV4, &delivery);
    attack.drops(DropReason::IpOptions, &packet);
    attack.is_alive();
}

/// An IPv6 packet with these extension headers before an empty UDP datagram: each 8 bytes, without options.
fn chain(addresses: &Udp, kinds: &[IpProtocol]) -> Vec<u8> {
    let mut upper = Vec::new();
    for (place, _) in kinds.iter().enumerate() {
        let next = kinds.get(place + 1).copied().unwrap_or(IpProtocol::UDP);
        upper.extend([next.0, 0, 1, 4, 0, 0, 0, 0]);
    }
    upper.extend([0x0f, 0xa0, 0x13, 0x88, 0, 8, 0, 0]);
    ip_with(addresses, kinds.first().copied().unwrap_or(IpProtocol::UDP), &upper)
}

#[test]
fn ipv6_extension_headers_beyond_the_walk_or_out_of_place_are_dropped() {
    use wire::IpProtocol as P;
    let mut attack = Attack::transport();
    let options = P::DESTINATION_OPTIONS;
    let many = [options; 9];
    let whole = chain(&outbound_v6(), &many[..8]);
    let seen = attack.bench.observe(|bench| bench.lan.send(&whole));
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1), "eight are walked");
    attack.drops_from_host(DropReason::IpExtensionHeaders, &chain(&outbound_v6(), &many));
    attack.drops_from_host(DropReason::IpExtensionHeaders, &chain(&outbound_v6(), &[options, P::HOP_BY_HOP]));
    let twice = chain(&outbound_v6(), &[P::FRAGMENT, P::FRAGMENT]);
    // The bytes of the option are the fragment's offset and flags here: make both atomic.
    let atomic = |mut packet: Vec<u8>| {
        packet[42..44].fill(0);
        packet[50..52].fill(0);
        packet
    };
    attack.drops_from_host(DropReason::IpExtensionHeaders, &atomic(twice));
    let inside = attack.esp(IpProtocol::GRE, &gre(0, IPV6, &chain(&inner_v6(), &many)));
    attack.drops(DropReason::IpExtensionHeaders, &inside);
    // Cut anywhere in the chain, the length field following.
    let cut = chain(&outbound_v6(), &many[..3]);
    for length in 40..40 + 3 * 8 + 4 {
        let mut cut = cut[..length].to_vec();
        cut[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        attack.drops_from_host(DropReason::IpMalformed, &cut);
    }
    attack.is_alive();
}

#[test]
fn a_routing_header_that_names_more_nodes_ends_here() {
    let mut attack = Attack::transport();
    let to_us = Udp::new(End::A.host_v6(), End::A.gateway_v6(), b"");
    let mut packet = chain(&to_us, &[IpProtocol::ROUTING]);
    // Type 0 (RFC 5095), one segment left.
    packet[42..44].copy_from_slice(&[0, 1]);
    attack.drops_from_host(DropReason::IpExtensionHeaders, &packet);
}

#[test]
fn a_source_that_is_not_one_host_is_invalid() {
    let mut attack = Attack::transport();
    let v4 = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "239.1.1.1", "240.0.0.1", "255.255.255.255"];
    let broadcasts = ["10.1.0.255", "10.1.0.0", "192.0.2.255"];
    let ours = ["10.1.0.1", "192.0.2.1"];
    for source in v4.into_iter().chain(broadcasts).chain(ours).chain(["169.254.1.1"]) {
        let packet = Udp { source: ip(source), ..outbound() }.to_bytes();
        attack.drops_from_host(DropReason::SourceInvalid, &packet);
        let inside = Udp { source: ip(source), ..inner() }.to_bytes();
        let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
        attack.drops(DropReason::SourceInvalid, &packet);
    }
    for source in ["::", "::1", "ff02::1", "2001:db8:1::1", "2001:db8:ffff::1", "fe80::7"] {
        let packet = Udp { source: ip(source), ..outbound_v6() }.to_bytes();
        attack.drops_from_host(DropReason::SourceInvalid, &packet);
        let inside = Udp { source: ip(source), ..inner_v6() }.to_bytes();
        let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV6, &inside));
        attack.drops(DropReason::SourceInvalid, &packet);
    }
    attack.is_alive();
}

#[test]
fn a_destination_that_is_not_one_host_or_stays_on_its_link_is_invalid() {
    let mut attack = Attack::transport();
    let v4 = ["0.0.0.0", "127.0.0.1", "224.0.0.5", "239.1.1.1", "240.0.0.1", "255.255.255.255"];
    for destination in v4.into_iter().chain(["10.1.0.255", "10.1.0.0", "192.0.2.0", "169.254.1.1"]) {
        let packet = Udp { destination: ip(destination), ..outbound() }.to_bytes();
        attack.drops_from_host(DropReason::DestinationInvalid, &packet);
        let inside = Udp { destination: ip(destination), ..inner() }.to_bytes();
        let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
        attack.drops(DropReason::DestinationInvalid, &packet);
    }
    for destination in ["::", "::1", "ff02::5", "ff0e::1", "fe80::7"] {
        let packet = Udp { destination: ip(destination), ..outbound_v6() }.to_bytes();
        attack.drops_from_host(DropReason::DestinationInvalid, &packet);
    }
    // A frame to everybody carries nothing else.
    let mut frame = frame_to(LAN, &Udp { destination: ip("255.255.255.255"), ..outbound() }.to_bytes());
    frame[..6].fill(0xff);
    attack.drops_frame(LAN, DropReason::DestinationInvalid, &frame);
    attack.is_alive();
}

#[test]
fn an_ipv4_address_in_ipv6_form_is_in_no_packet() {
    let mut attack = Attack::transport();
    for (source, destination) in [("::ffff:10.1.0.2", "2001:db8:2::2"), ("2001:db8:1::2", "::ffff:10.2.0.2")]
    {
        let packet = Udp::new(ip(source), ip(destination), b"").to_bytes();
        attack.drops_from_host(DropReason::IpMalformed, &packet);
    }
}

#[test]
fn the_last_hop_is_not_taken_and_its_sender_told() {
    let mut attack = Attack::transport();
    for ttl in [1, 0] {
        for packet in [Udp { ttl, ..outbound() }, Udp { ttl, ..outbound_v6() }] {
            let answer = attack.drops_and_tells(LAN, DropReason::TtlExceeded, &packet.to_bytes());
            let (parsed, _) = ip_in(&answer).expect("an IP packet");
            assert_eq!(parsed.destination, packet.source);
            let kind = if packet.source.is_ipv4() {
                icmpv4::Type::TIME_EXCEEDED.0
            } else {
                icmpv6::Type::TIME_EXCEEDED.0
            };
            assert_eq!(parsed.source_port, u16::from(kind) << 8);
        }
    }
    // Under a valid ICV it counts too, and the word goes back under ESP.
    let inside = Udp { ttl: 1, ..inner() }.to_bytes();
    let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
    let answer = attack.drops_and_tells(WAN, DropReason::TtlExceeded, &packet);
    assert!(greyhound_simulation::packets::is_esp(&answer));
    attack.is_alive();
}

#[test]
fn a_destination_without_a_route_is_answered_and_one_to_discard_is_not() {
    let mut attack = Attack::with(&Shape::default(), |objects| {
        let prefix = IpPrefix { address: ip("203.0.113.0"), length: 24 };
        objects.push(Object::Route(Route { prefix, target: RouteTarget::Discard }));
    });
    for packet in [
        Udp { destination: ip("198.51.100.7"), ..outbound() },
        Udp { destination: ip("2001:db8:7::7"), ..outbound_v6() },
    ] {
        let answer = attack.drops_and_tells(LAN, DropReason::NoRoute, &packet.to_bytes());
        assert_eq!(ip_in(&answer).expect("an IP packet").0.destination, packet.source);
    }
    let packet = Udp { destination: ip("203.0.113.9"), ..outbound() };
    attack.drops_from_host(DropReason::RouteDiscard, &packet.to_bytes());
    attack.is_alive();
}

#[test]
fn fragments_for_us_are_not_reassembled() {
    let mut attack = Attack::transport();
    let to_us = Udp::new(End::A.host(), End::A.gateway(), &[7; 64]);
    for flags_offset in [0x2000u16, 0x2001, 0x0004] {
        let mut packet = to_us.to_bytes();
        packet[6..8].copy_from_slice(&flags_offset.to_be_bytes());
        attack.drops_from_host(DropReason::LocalFragment, &resum(packet));
        let mut esp = attack.genuine();
        esp[6..8].copy_from_slice(&flags_offset.to_be_bytes());
        attack.drops(DropReason::EspFragment, &resum(esp));
    }
    attack.is_alive();
}

#[test]
fn fragments_of_esp_over_ipv6_are_not_reassembled() {
    let mut attack = Attack::on(&Shape { delivery_v6: true, ..Shape::default() });
    let sealed = attack.sealer.seal(1, IpProtocol::GRE.0, &gre(0, IPV4, &inner().to_bytes()));
    for (offset, more) in [(0u16, 1u16), (2, 1), (2, 0)] {
        let mut upper = vec![IpProtocol::ESP.0, 0];
        upper.extend((offset << 3 | more).to_be_bytes());
        upper.extend([0, 0, 0, 9]);
        upper.extend(&sealed);
        let addresses = Udp::new(End::B.wan_v6(), End::A.wan_v6(), &[]);
        attack.drops(DropReason::EspFragment, &ip_with(&addresses, IpProtocol::FRAGMENT, &upper));
    }
}

#[test]
fn what_nothing_here_takes_is_a_local_protocol() {
    let mut attack = Attack::transport();
    for protocol in [IpProtocol::UDP, IpProtocol::TCP, IpProtocol::SCTP, IpProtocol::OSPF, IpProtocol::AH] {
        let addresses = Udp::new(End::A.host(), End::A.gateway(), &[]);
        attack.drops_from_host(DropReason::LocalProtocol, &ip_with(&addresses, protocol, &[0; 20]));
    }
    // ESP and GRE are for what comes in by a port, not out of a tunnel.
    for protocol in [IpProtocol::ESP, IpProtocol::GRE] {
        let addresses = Udp::new(End::B.host(), End::A.gateway(), &[]);
        let inside = ip_with(&addresses, protocol, &[0; 64]);
        let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &inside));
        attack.drops(DropReason::LocalProtocol, &packet);
    }
    attack.is_alive();
}

/// An ICMP message with its checksum.
fn icmp(kind: u8, code: u8, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(data);
    let sum = wire::checksum::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

#[test]
fn icmp_that_is_no_whole_echo_request_is_taken_by_nothing() {
    let mut attack = Attack::transport();
    let addresses = Udp::new(End::A.host(), End::A.gateway(), &[]);
    let mut damaged = icmp(8, 0, &[0, 1, 0, 2, 5]);
    damaged[8] ^= 1;
    // A damaged request, one with a code, a reply, an error, an address mask request, a request that ends too soon.
    for message in [
        damaged,
        icmp(8, 1, &[0; 4]),
        icmp(0, 0, &[0; 4]),
        icmp(3, 1, &[0; 32]),
        icmp(17, 0, &[0; 8]),
        icmp(8, 0, &[]),
    ] {
        let packet = ip_with(&addresses, IpProtocol::ICMP, &message);
        attack.drops_from_host(DropReason::LocalIcmp, &packet);
    }
    let addresses = Udp::new(End::A.host_v6(), End::A.gateway_v6(), &[]);
    let packet = ip_with(&addresses, IpProtocol::ICMPV6, &[128, 0, 0xbe, 0xef, 0, 1, 0, 2]);
    attack.drops_from_host(DropReason::LocalIcmp, &packet);
    attack.is_alive();
}

#[test]
fn a_port_may_be_told_not_to_answer_ping() {
    let mut attack = Attack::with(&Shape::default(), |objects| {
        for object in objects {
            if let Object::Port(port) = object {
                port.answer_ping = port.port == WAN;
            }
        }
    });
    // It is the port that has the address which decides, also for a request out of the tunnel, which came in by the other.
    let request = icmp(8, 0, &[0, 1, 0, 2]);
    let near = ip_with(&Udp::new(End::A.host(), End::A.gateway(), &[]), IpProtocol::ICMP, &request);
    attack.drops_from_host(DropReason::LocalIcmp, &near);
    let far = ip_with(&Udp::new(End::B.host(), End::A.gateway(), &[]), IpProtocol::ICMP, &request);
    let packet = attack.esp(IpProtocol::GRE, &gre(0, IPV4, &far));
    attack.drops(DropReason::LocalIcmp, &packet);
    let other = ip_with(&Udp::new(End::A.host(), End::A.wan(), &[]), IpProtocol::ICMP, &request);
    let seen = attack.bench.observe(|bench| bench.lan.send(&other));
    assert_eq!((seen.drops.len(), seen.lan.len()), (0, 1));
}

#[test]
fn an_error_is_never_about_what_no_error_may_be_about() {
    let mut attack = Attack::transport();
    let addresses = Udp { ttl: 1, ..outbound() };
    let error = ip_with(&addresses, IpProtocol::ICMP, &icmp(3, 1, &outbound().to_bytes()));
    let mut later = Udp { ttl: 1, ..outbound() }.to_bytes();
    later[6..8].copy_from_slice(&5u16.to_be_bytes());
    for packet in [error, resum(later)] {
        let seen = attack.bench.observe(|bench| bench.lan.send(&packet));
        assert_eq!(seen.drops, [(DropReason::TtlExceeded, 1)]);
        assert_eq!(seen.counter(messages::WorkerCounter::IcmpSuppressed), 1);
        assert_eq!((seen.lan.len(), seen.wan.len()), (0, 0));
    }
    // The suppressed ones have not used up the rate limit.
    for _ in 0..200 {
        let seen = attack.bench.observe(|bench| {
            bench.lan.send(&ip_with(&addresses, IpProtocol::ICMP, &icmp(11, 0, &[0; 32])));
        });
        assert_eq!(seen.drops, [(DropReason::TtlExceeded, 1)]);
    }
    let seen = attack.bench.observe(|bench| bench.lan.send(&Udp { ttl: 1, ..outbound() }.to_bytes()));
    assert_eq!(seen.lan.len(), 1);
}

#[test]
fn padding_behind_a_packet_is_cut_and_no_part_of_it() {
    let mut attack = Attack::transport();
    for length in [1, 7, 26] {
        let mut padded = attack.genuine();
        padded.resize(padded.len() + length, 0xee);
        attack.passes(&padded, &forwarded(&inner()));
    }
}

pub(crate) const CASES: &[fn()] = &[
    a_frame_cut_anywhere_in_its_packet_contradicts_its_lengths,
    a_wrong_header_checksum_is_told_from_anything_else,
    ipv4_options_are_dropped_wherever_they_stand,
    ipv6_extension_headers_beyond_the_walk_or_out_of_place_are_dropped,
    a_source_that_is_not_one_host_is_invalid,
    a_destination_that_is_not_one_host_or_stays_on_its_link_is_invalid,
    the_last_hop_is_not_taken_and_its_sender_told,
    a_destination_without_a_route_is_answered_and_one_to_discard_is_not,
    fragments_for_us_are_not_reassembled,
    what_nothing_here_takes_is_a_local_protocol,
    icmp_that_is_no_whole_echo_request_is_taken_by_nothing,
];
