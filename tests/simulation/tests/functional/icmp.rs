// SPDX-License-Identifier: Apache-2.0
//! What a headend says itself: echo replies and errors (RFC 792, RFC 1812 §4.3, RFC 4443).

use core::net::IpAddr;

use greyhound_simulation::Bench;
use greyhound_simulation::packets::Udp;
use greyhound_simulation::topology::{End, LAN, Shape, Topology, WAN};
use greyhound_simulation::wanted::{ANY, host, ip, policy, prefix, route_by, route_into};
use messages::{Address, Base, DropReason, EspMode, Object, PolicyAction, Selector, WorkerCounter};
use wire::{Dscp, Ecn, IpProtocol, icmpv4, icmpv6};

use crate::support::{MODES, allow_gre, hosts, icmp, icmp_error, packets_in, ping, pong, sized};

#[test]
fn each_address_of_ours_answers_ping_from_its_site() {
    let loopback = ip("172.16.0.1");
    let mut bench = Bench::with(&Shape::default(), |objects| {
        objects.push(Object::Address(Address { port: None, address: loopback, length: 32 }));
    });
    for ours in [End::A.gateway(), End::A.wan(), loopback, End::A.gateway_v6(), End::A.wan_v6()] {
        let host = hosts(End::A, ours.is_ipv6()).0;
        let seen = bench.observe(|bench| bench.lan.send(&ping(host, ours)));
        assert_eq!(seen.drops, []);
        let replies = packets_in(&seen.lan);
        let identification = wire::ipv4::Header::split(&replies[0]).map_or(0, |(ip, _)| ip.identification());
        assert_eq!(replies, [pong(ours, host, 64, identification)]);
        assert_eq!((seen.counter(WorkerCounter::Consumed), seen.counter(WorkerCounter::Originated)), (1, 1));
        assert!(bench.buffers_are_home());
    }
}

#[test]
fn a_gateway_answers_ping_through_the_tunnel() {
    for esp in MODES {
        let mut net = Topology::unconfigured(Shape { esp, ..Shape::default() });
        for end in [End::A, End::B] {
            let mut objects = net.objects(end, 0);
            allow_gre(&net.shape, &mut objects);
            for gateway in [end.other().gateway(), end.other().gateway_v6()] {
                objects.push(route_into(host(gateway), 0));
            }
            net.headend(end).put(Base::Empty, &objects, 0).unwrap();
        }
        net.settle();
        for (host, gateway) in [(End::A.host(), End::B.gateway()), (End::A.host_v6(), End::B.gateway_v6())] {
            net.site(End::A).send(&ping(host, gateway));
            net.settle();
            let replies = net.site(End::A).take();
            assert_eq!(replies.len(), 1, "{esp:?} {:?}", net.headend(End::B).drops());
            let identification =
                wire::ipv4::Header::split(&replies[0]).map_or(0, |(ip, _)| ip.identification());
            assert_eq!(replies, [pong(gateway, host, 63, identification)]);
        }
        assert_eq!(net.frames_in_clear() > 0, esp.is_none());
    }
}

#[test]
fn the_untrusted_side_is_answered_if_the_spd_lets_it() {
    for (from, to) in [(End::B.wan(), End::A.wan()), (End::B.wan_v6(), End::A.wan_v6())] {
        let protocol = if from.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
        let mut bench = Bench::with(&Shape::default(), |objects| {
            let selector = Selector { protocol: Some(protocol.0), ..ANY };
            objects.push(policy(0, selector, PolicyAction::Bypass));
        });
        let seen = bench.observe(|bench| bench.wan.send(&ping(from, to)));
        assert_eq!(seen.drops, []);
        assert_eq!((packets_in(&seen.wan).len(), seen.lan.len()), (1, 0));
    }
}

#[test]
fn an_echo_reply_keeps_the_tos_byte_and_may_be_cut() {
    let mut bench = Bench::with(&Shape::default(), |objects| {
        for object in objects {
            if let Object::Port(port) = object
                && port.port == LAN
            {
                port.mtu = 1_500;
            }
        }
    });
    let addresses =
        Udp::new(End::A.host(), End::A.gateway(), &[]).tos(Dscp::new(26).expect("AF31"), Ecn::NotEct);
    let request = icmp(&addresses, 8, 0, &[7; 3_000]);
    let seen = bench.observe(|bench| bench.lan.send(&request));
    assert_eq!(seen.drops, []);
    let fragments = packets_in(&seen.lan);
    assert_eq!(fragments.len(), 3);
    assert!(fragments.iter().all(|fragment| fragment.len() <= 1_500));
    let whole = crate::support::reassemble(&fragments);
    assert_eq!(&whole[24..], &request[24..], "all but type, code and checksum");
    assert_eq!(whole[1], addresses.tos);
    assert_eq!(whole[20], 0);
}

#[test]
fn time_exceeded_quotes_the_packet_and_comes_from_the_gateway() {
    let mut bench = Bench::new(&Shape::default());
    for data_bytes in [0usize, 100, 1_300] {
        for v6 in [false, true] {
            let (source, destination) = hosts(End::A, v6);
            let packet = Udp { ttl: 1, ..Udp::new(source, destination, &vec![7; data_bytes]) }.to_bytes();
            let seen = bench.observe(|bench| bench.lan.send(&packet));
            assert_eq!(seen.drops, [(DropReason::TtlExceeded, 1)]);
            let answers = packets_in(&seen.lan);
            let error = icmp_error(&answers[0]);
            let gateway = if v6 { End::A.gateway_v6() } else { End::A.gateway() };
            assert_eq!((error.parsed.source, error.parsed.destination), (gateway, source));
            assert_eq!((error.parsed.ttl, error.word, error.code), (64, 0, 0));
            let (kind, most) = if v6 {
                (icmpv6::Type::TIME_EXCEEDED.0, 1_280 - 48)
            } else {
                (icmpv4::Type::TIME_EXCEEDED.0, 576 - 28)
            };
            assert_eq!(error.kind, kind);
            assert_eq!(error.quoted, packet[..packet.len().min(most)]);
            if !v6 {
                // RFC 1812 §4.3.2.5: internetwork control.
                assert_eq!(error.parsed.tos >> 2, 48);
            }
        }
    }
}

/// traceroute from site B sees headend B, then headend A by its inside address, then the host.
#[test]
fn a_route_can_be_traced_through_the_tunnel() {
    for esp in [EspMode::Transport, EspMode::Tunnel] {
        let mut net = Topology::new(Shape { esp: Some(esp), ..Shape::default() });
        for v6 in [false, true] {
            let (source, destination) = hosts(End::B, v6);
            let hops = if v6 {
                [End::B.gateway_v6(), End::A.gateway_v6()]
            } else {
                [End::B.gateway(), End::A.gateway()]
            };
            for (ttl, hop) in (1..).zip(hops) {
                let probe = Udp { ttl, ..Udp::new(source, destination, b"probe") };
                net.site(End::B).send(&probe.to_bytes());
                net.settle();
                let answers = net.site(End::B).take();
                assert_eq!(answers.len(), 1, "hop {ttl}");
                let error = icmp_error(&answers[0]);
                assert_eq!((error.parsed.source, error.parsed.destination), (hop, source));
                let kind = if v6 { 3 } else { 11 };
                assert_eq!(error.kind, kind);
                // Each hop before has taken one off the TTL.
                assert_eq!(error.quoted, Udp { ttl: 1, ..probe }.to_bytes());
            }
            net.site(End::B).send(&Udp { ttl: 3, ..Udp::new(source, destination, b"probe") }.to_bytes());
            net.settle();
            assert_eq!(net.site(End::A).take().len(), 1);
        }
    }
}

#[test]
fn hosts_hear_of_missing_routes_and_of_neighbours_that_do_not_answer() {
    let mut bench = Bench::new(&Shape::default());
    let unreachable = [icmpv4::Type::DESTINATION_UNREACHABLE.0, icmpv6::Type::DESTINATION_UNREACHABLE.0];
    for (v6, nowhere, silent) in
        [(false, "198.51.100.9", "10.1.0.77"), (true, "2001:db8:77::9", "2001:db8:1::77")]
    {
        let source = hosts(End::A, v6).0;
        let packet = Udp::new(source, ip(nowhere), b"hello");
        let seen = bench.observe(|bench| bench.lan.send(&packet.to_bytes()));
        assert_eq!(seen.drops, [(DropReason::NoRoute, 1)]);
        let error = icmp_error(&packets_in(&seen.lan)[0]);
        assert_eq!((error.kind, error.code), (unreachable[usize::from(v6)], 0));
        assert_eq!(error.quoted, Udp { ttl: 63, ..packet }.to_bytes());

        let packet = Udp::new(source, ip(silent), b"hello");
        let seen = bench.observe(|bench| {
            bench.lan.send(&packet.to_bytes());
            bench.pass(3_500_000_000);
        });
        assert_eq!(seen.drops, [(DropReason::NeighborUnresolved, 1)]);
        let answers: Vec<_> =
            packets_in(&seen.lan).into_iter().filter(|packet| !is_solicitation(packet)).collect();
        assert_eq!(answers.len(), 1);
        let error = icmp_error(&answers[0]);
        // Host unreachable, and address unreachable (RFC 4861 §7.2.2).
        let code = if v6 { icmpv6::unreachable::ADDRESS } else { icmpv4::unreachable::HOST };
        assert_eq!((error.kind, error.code), (unreachable[usize::from(v6)], code));
        assert_eq!(error.parsed.destination, source);
    }
}

fn is_solicitation(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 && packet[6] == IpProtocol::ICMPV6.0 && packet[40] == 135
}

#[test]
fn errors_are_limited_in_rate() {
    let mut bench = Bench::new(&Shape::default());
    let packet = Udp { ttl: 1, ..sized(End::A, false, 60) }.to_bytes();
    let burst = |bench: &mut Bench| {
        let seen = bench.observe(|bench| {
            for _ in 0..16 {
                (0..64).for_each(|_| bench.lan.send(&packet));
                bench.step();
            }
        });
        assert_eq!(seen.drops, [(DropReason::TtlExceeded, 1_024)]);
        let told = seen.lan.len() as u64;
        assert_eq!(told + seen.counter(WorkerCounter::IcmpSuppressed), 1_024);
        told
    };
    assert_eq!(burst(&mut bench), 64);
    bench.now_ns += 10_000_000;
    assert!((10..=11).contains(&burst(&mut bench)), "1,000 a second");
    bench.now_ns += 1_000_000_000;
    assert_eq!(burst(&mut bench), 64);
    assert!(bench.buffers_are_home());
}

#[test]
fn nothing_is_said_about_errors_later_fragments_and_groups() {
    let mut bench = Bench::new(&Shape::default());
    let silent = |bench: &mut Bench, reason, packet: &[u8]| {
        let seen = bench.observe(|bench| bench.lan.send(packet));
        assert_eq!(seen.drops, [(reason, 1)]);
        assert_eq!((seen.lan.len(), seen.wan.len()), (0, 0));
    };
    for v6 in [false, true] {
        let (source, destination) = hosts(End::A, v6);
        let last_hop = Udp { ttl: 1, ..Udp::new(source, destination, &[]) };
        let errors: &[u8] = if v6 { &[1, 2, 3, 4, 100, 127, 137] } else { &[3, 4, 5, 11, 12, 30] };
        for kind in errors {
            silent(&mut bench, DropReason::TtlExceeded, &icmp(&last_hop, *kind, 0, &[0; 40]));
        }
        // About a query there is.
        let kind = if v6 { 128 } else { 8 };
        let seen = bench.observe(|bench| bench.lan.send(&icmp(&last_hop, kind, 0, &[0; 4])));
        assert_eq!(seen.lan.len(), 1);
    }
    let mut fragment = Udp { ttl: 1, ..sized(End::A, false, 100) }.to_bytes();
    for (flags_offset, told) in [(0x2000u16, 1), (0x2001, 0), (0x0001, 0)] {
        fragment[6..8].copy_from_slice(&flags_offset.to_be_bytes());
        fragment[10..12].fill(0);
        let sum = wire::checksum::checksum(&fragment[..20]);
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        let seen = bench.observe(|bench| bench.lan.send(&fragment));
        assert_eq!(seen.drops, [(DropReason::TtlExceeded, 1)]);
        assert_eq!(seen.lan.len(), told, "{flags_offset:04x}");
    }
    let groups = ["224.0.0.5", "255.255.255.255", "10.1.0.255"];
    for group in groups {
        let packet = Udp { ttl: 1, ..Udp::new(End::A.host(), ip(group), &[]) }.to_bytes();
        silent(&mut bench, DropReason::DestinationInvalid, &packet);
        let packet = Udp { ttl: 1, ..Udp::new(ip(group), End::B.host(), &[]) }.to_bytes();
        silent(&mut bench, DropReason::SourceInvalid, &packet);
    }
}

#[test]
fn a_headend_without_an_ipv6_address_outside_still_tells_hosts_behind_the_tunnel() {
    // What comes out of the tunnel came in by a port that has IPv4 only.
    let mut bench = Bench::with(&Shape::default(), |objects| {
        objects.retain(|object| match object {
            Object::Address(own) => own.address != End::A.wan_v6(),
            Object::Neighbor(neighbor) => neighbor.address != End::B.wan_v6(),
            _ => true,
        });
    });
    let (source, destination) = hosts(End::B, true);
    let inside = Udp { ttl: 1, ..Udp::new(source, destination, &[]) }.to_bytes();
    let mut gre = vec![0, 0, 0x86, 0xdd];
    gre.extend(&inside);
    let esp = bench.peer_sealer(0).seal(1, IpProtocol::GRE.0, &gre);
    let outer = Udp::new(End::B.wan(), End::A.wan(), &[]);
    let packet = greyhound_simulation::packets::ip_with(&outer, IpProtocol::ESP, &esp);
    let seen = bench.observe(|bench| bench.wan.send(&packet));
    assert_eq!(seen.drops, [(DropReason::TtlExceeded, 1)]);
    let answer = packets_in(&seen.wan).remove(0);
    let plain = bench.peer_opener(0).open(&answer[20..], 0).expect("a right ICV");
    let error = icmp_error(&plain.payload[4..]);
    assert_eq!((error.parsed.source, error.parsed.destination), (End::A.gateway_v6(), source));
}

#[test]
fn the_error_about_a_packet_of_the_untrusted_side_needs_leave_of_the_spd() {
    let transit = |action| {
        let mut bench = Bench::with(&Shape::default(), |objects| {
            objects.push(route_by(prefix("203.0.113.0/24"), WAN, End::B.wan()));
            let udp = Selector { protocol: Some(IpProtocol::UDP.0), ..ANY };
            objects.push(policy(0, udp, PolicyAction::Bypass));
            let icmp = Selector { protocol: Some(IpProtocol::ICMP.0), ..ANY };
            objects.push(policy(1, icmp, action));
        });
        let stranger: IpAddr = ip("203.0.113.5");
        let packet = Udp { ttl: 1, ..Udp::new(stranger, End::A.host(), &[]) }.to_bytes();
        bench.observe(|bench| bench.wan.send(&packet))
    };
    let seen = transit(PolicyAction::Bypass);
    assert_eq!((seen.drops, seen.wan.len()), (vec![(DropReason::TtlExceeded, 1)], 1));
    let seen = transit(PolicyAction::Discard);
    assert_eq!(seen.wan.len(), 0);
    let mut drops = seen.drops;
    drops.sort();
    assert_eq!(drops, [(DropReason::TtlExceeded, 1), (DropReason::PolicyDiscard, 1)]);
}
