// SPDX-License-Identifier: Apache-2.0
//! Sizes: the largest packet that fits goes, one byte more is answered or cut, and nothing on the wire is larger than the
//! port's MTU (RFC 1191, RFC 8201, RFC 4459; RFC 9293 §3.7.1 on the MSS).

use greyhound_simulation::Bench;
use greyhound_simulation::packets::ip_with;
use greyhound_simulation::topology::{End, LAN, Shape, Topology, WAN};
use greyhound_simulation::wanted::{ANY, host, policy, route_by, tunnel};
use messages::{
    Base, DropReason, EspMode, GreOptions, MssClamp, Object, PolicyAction, ProtectionIndex, WorkerCounter,
};
use wire::{IpProtocol, icmpv4, icmpv6, tcp};

use crate::support::{MODES, PLAIN, allow_gre, hosts, icmp_error, packets_in, reassemble, sized};

/// Bytes of the IP packet on the wire around a payload packet, added up from the RFCs.
fn on_the_wire(shape: &Shape, payload: usize) -> usize {
    let ip = if shape.delivery_v6 { 40 } else { 20 };
    let gre = &shape.gre;
    let options = [gre.checksum, gre.key.is_some(), gre.sequence].iter().filter(|is| **is).count();
    let gre = 4 + 4 * options + payload;
    let esp = |inside: usize| 8 + 8 + (inside + 2).next_multiple_of(4) + usize::from(shape.icv_bytes);
    match shape.esp {
        None => ip + gre,
        Some(EspMode::Transport) => ip + esp(gre),
        Some(EspMode::Tunnel) => ip + esp(ip + gre),
    }
}

fn largest(shape: &Shape) -> usize {
    let mtu = usize::from(shape.wan_mtu);
    (0..mtu).rev().find(|payload| on_the_wire(shape, *payload) <= mtu).expect("something fits")
}

fn shapes() -> Vec<Shape> {
    let all = GreOptions { key: Some(9), checksum: true, sequence: true };
    let mut shapes = Vec::new();
    for esp in MODES {
        for delivery_v6 in [false, true] {
            for gre in [PLAIN, GreOptions { key: Some(9), ..PLAIN }, all] {
                for icv_bytes in if esp.is_some() { vec![16, 12, 8] } else { vec![16] } {
                    shapes.push(Shape { esp, delivery_v6, gre, icv_bytes, ..Shape::default() });
                }
            }
        }
    }
    shapes
}

fn bench(shape: &Shape) -> Bench {
    Bench::with(shape, |objects| allow_gre(shape, objects))
}

#[test]
fn the_largest_packet_that_fits_goes_and_one_byte_more_is_answered_with_its_size() {
    let mut all = shapes();
    all.push(Shape { wan_mtu: 4_000, ..Shape::default() });
    all.push(Shape { wan_mtu: 9_000, esp: Some(EspMode::Tunnel), ..Shape::default() });
    assert_eq!(all.len(), 2 * 2 * 3 * 3 + 2 * 3 + 2);
    for shape in all {
        let mut bench = bench(&shape);
        let most = largest(&shape);
        for v6 in [false, true] {
            for size in most - 4..=most {
                let packet = sized(End::A, v6, size).dont_fragment().to_bytes();
                let seen = bench.observe(|bench| bench.lan.send(&packet));
                assert_eq!((&seen.drops[..], seen.wan.len()), (&[][..], 1), "{shape:?} {size}");
                assert_eq!(seen.wan[0].len(), 14 + on_the_wire(&shape, size), "{shape:?} {size}");
            }
            let packet = sized(End::A, v6, most + 1).dont_fragment();
            let seen = bench.observe(|bench| bench.lan.send(&packet.to_bytes()));
            assert_eq!(seen.drops, [(DropReason::TooBig, 1)], "{shape:?}");
            assert_eq!(seen.wan.len(), 0);
            let error = icmp_error(&packets_in(&seen.lan)[0]);
            let expected = if v6 {
                (icmpv6::Type::PACKET_TOO_BIG.0, 0)
            } else {
                (icmpv4::Type::DESTINATION_UNREACHABLE.0, icmpv4::unreachable::FRAGMENTATION_NEEDED)
            };
            assert_eq!((error.kind, error.code), expected);
            assert_eq!(error.word as usize, most, "{shape:?}");
            assert_eq!(error.parsed.destination, packet.source);
        }
        assert!(bench.buffers_are_home());
    }
}

#[test]
fn without_df_a_packet_is_cut_before_esp_and_comes_together_again() {
    for shape in shapes().into_iter().step_by(3) {
        let most = largest(&shape);
        let mut net = Topology::unconfigured(shape.clone());
        for end in [End::A, End::B] {
            let mut objects = net.objects(end, 0);
            allow_gre(&shape, &mut objects);
            net.headend(end).put(Base::Empty, &objects, 0).expect("a valid configuration");
        }
        net.settle();
        for size in [most + 1, most + 8, 2 * most, 5_000, 9_000] {
            let sent = sized(End::A, false, size);
            net.site(End::A).send(&sent.to_bytes());
            net.settle();
            let fragments = net.site(End::B).take();
            assert!(fragments.len() >= 2 && fragments.iter().all(|fragment| fragment.len() <= most));
            let expected = greyhound_simulation::packets::Udp { ttl: 62, ..sent }.to_bytes();
            assert_eq!(reassemble(&fragments), expected, "{shape:?} {size}");
            assert_eq!(net.headend(End::A).drops(), []);
            assert_eq!(net.headend(End::B).drops(), []);
        }
        let seen = net.seen.lock().expect("no panic");
        let longest = seen.iter().map(Vec::len).max().expect("frames");
        assert!(longest <= 14 + usize::from(shape.wan_mtu));
        // No frame on the wire is itself a fragment.
        for frame in seen.iter() {
            if let Some((parsed, _)) = greyhound_simulation::packets::ip_in(frame) {
                assert!(!parsed.is_fragment());
            }
        }
    }
}

#[test]
fn a_fragment_is_cut_again_where_it_must() {
    let mut net = Topology::new(Shape::default());
    let sent = sized(End::A, false, 6_000);
    let whole = sent.to_bytes();
    // Two fragments as a host with a larger MTU would send them.
    let cut = 20 + 3_200;
    let piece = |payload: &[u8], flags_offset: u16| {
        let mut fragment = whole[..20].to_vec();
        fragment.extend(payload);
        let total = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        fragment[6..8].copy_from_slice(&flags_offset.to_be_bytes());
        fragment[10..12].fill(0);
        let sum = wire::checksum::checksum(&fragment[..20]);
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        fragment
    };
    net.site(End::A).send(&piece(&whole[20..cut], 0x2000));
    net.site(End::A).send(&piece(&whole[cut..], 3_200 / 8));
    net.settle();
    let expected = greyhound_simulation::packets::Udp { ttl: 62, ..sent }.to_bytes();
    assert_eq!(reassemble(&net.site(End::B).take()), expected);
}

#[test]
fn a_configured_mtu_holds_and_none_is_larger_than_what_fits() {
    let most = largest(&Shape::default());
    for (configured, expected) in [(1_000, 1_000), (576, 576), (9_000, most)] {
        let mut bench = Bench::with(&Shape::default(), |objects| tunnel(objects).mtu = Some(configured));
        let fits = sized(End::A, false, expected).dont_fragment().to_bytes();
        let seen = bench.observe(|bench| bench.lan.send(&fits));
        assert_eq!(seen.wan.len(), 1);
        let beyond = sized(End::A, false, expected + 1).dont_fragment().to_bytes();
        let seen = bench.observe(|bench| bench.lan.send(&beyond));
        let error = icmp_error(&packets_in(&seen.lan)[0]);
        assert_eq!(error.word as usize, expected);
    }
}

#[test]
fn a_site_with_a_smaller_mtu_answers_through_the_tunnel() {
    let mut net = Topology::unconfigured(Shape::default());
    for end in [End::A, End::B] {
        let mut objects = net.objects(end, 0);
        for object in &mut objects {
            if let Object::Port(port) = object
                && (port.port, end) == (LAN, End::B)
            {
                port.mtu = 1_300;
            }
        }
        net.headend(end).put(Base::Empty, &objects, 0).expect("a valid configuration");
    }
    net.settle();
    for v6 in [false, true] {
        let packet = sized(End::A, v6, 1_301).dont_fragment();
        net.site(End::A).send(&packet.to_bytes());
        net.settle();
        let answers = net.site(End::A).take();
        assert_eq!((answers.len(), net.site(End::B).take().len()), (1, 0));
        let error = icmp_error(&answers[0]);
        let gateway = if v6 { End::B.gateway_v6() } else { End::B.gateway() };
        assert_eq!((error.parsed.source, error.word), (gateway, 1_300));
    }
    let cut = sized(End::A, false, 1_400);
    net.site(End::A).send(&cut.to_bytes());
    net.settle();
    let fragments = net.site(End::B).take();
    assert_eq!(fragments.len(), 2);
    let expected = greyhound_simulation::packets::Udp { ttl: 62, ..cut }.to_bytes();
    assert_eq!(reassemble(&fragments), expected);
}

#[test]
fn esp_tunnel_mode_by_policy_has_its_own_exact_mtu() {
    for icv_bytes in [16, 12, 8] {
        let shape = Shape { esp: Some(EspMode::Tunnel), icv_bytes, ..Shape::default() };
        let mut bench = Bench::with(&shape, |objects| {
            objects.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
            for (far, next_hop) in [(End::B.host(), End::B.wan()), (End::B.host_v6(), End::B.wan_v6())] {
                objects.push(route_by(host(far), WAN, next_hop));
            }
            objects.push(policy(0, ANY, PolicyAction::Protect(ProtectionIndex(0))));
        });
        let wire = |payload: usize| 20 + 16 + (payload + 2).next_multiple_of(4) + usize::from(icv_bytes);
        let most = (0..1_500).rev().find(|payload| wire(*payload) <= 1_500).expect("something fits");
        for v6 in [false, true] {
            let packet = sized(End::A, v6, most).dont_fragment().to_bytes();
            let seen = bench.observe(|bench| bench.lan.send(&packet));
            assert_eq!((seen.drops.len(), seen.wan[0].len()), (0, 14 + wire(most)));
            let packet = sized(End::A, v6, most + 1).dont_fragment().to_bytes();
            let seen = bench.observe(|bench| bench.lan.send(&packet));
            assert_eq!(seen.drops, [(DropReason::TooBig, 1)]);
            assert_eq!(icmp_error(&packets_in(&seen.lan)[0]).word as usize, most);
        }
        let seen = bench.observe(|bench| bench.lan.send(&sized(End::A, false, 4_000).to_bytes()));
        assert_eq!(seen.counter(WorkerCounter::FragmentsMade), 3);
        assert!(seen.wan.len() == 3 && seen.wan.iter().all(|frame| frame.len() <= 1_514));
    }
}

/// A TCP segment with an MSS option, if any, from one host to the other.
fn segment(from: End, v6: bool, flags: tcp::Flags, mss: Option<u16>) -> Vec<u8> {
    let (source, destination) = hosts(from, v6);
    let repr = tcp::Repr {
        source_port: 40_000,
        destination_port: 443,
        sequence_number: 7,
        acknowledgment_number: 0,
        flags,
        window: 65_535,
        urgent_pointer: 0,
        mss,
    };
    let mut bytes = vec![0; repr.header_bytes()];
    repr.emit(&mut bytes, source, destination).expect("a segment");
    let addresses = greyhound_simulation::packets::Udp::new(source, destination, &[]);
    ip_with(&addresses, IpProtocol::TCP, &bytes)
}

/// The MSS option of a segment that arrived, whose checksum is right.
fn mss_of(packet: &[u8]) -> Option<u16> {
    let parsed = wire::flow::parse(packet).expect("a packet");
    let segment = tcp::Packet::parse(parsed.upper_layer(packet)).expect("a segment");
    assert!(segment.checksum_is_valid(parsed.source, parsed.destination));
    tcp::Repr::parse(&segment).expect("a segment").mss
}

#[test]
fn the_mss_of_a_syn_is_clamped_to_the_tunnel_both_ways_and_never_raised() {
    let most = largest(&Shape::default()) as u16;
    for (clamp, limits) in [
        (MssClamp::Automatic, [most - 40, most - 60]),
        (MssClamp::Fixed(1_200), [1_200, 1_200]),
        (MssClamp::Off, [u16::MAX, u16::MAX]),
    ] {
        let mut net = Topology::unconfigured(Shape::default());
        for end in [End::A, End::B] {
            let mut objects = net.objects(end, 0);
            tunnel(&mut objects).mss = clamp;
            net.headend(end).put(Base::Empty, &objects, 0).expect("a valid configuration");
        }
        net.settle();
        let syn = tcp::Flags::SYN;
        for (from, v6) in [(End::A, false), (End::B, false), (End::A, true), (End::B, true)] {
            let limit = limits[usize::from(v6)];
            for flags in [syn, syn | tcp::Flags::ACK] {
                for mss in
                    [Some(9_000), Some(1_460), Some(limit), Some(limit.min(9_000) - 1), Some(536), None]
                {
                    net.site(from).send(&segment(from, v6, flags, mss));
                    net.settle();
                    let arrived = net.site(from.other()).take();
                    assert_eq!(mss_of(&arrived[0]), mss.map(|mss| mss.min(limit)), "{clamp:?} {mss:?}");
                }
            }
            // Not a SYN: the option means nothing there and is left alone.
            net.site(from).send(&segment(from, v6, tcp::Flags::ACK, Some(9_000)));
            net.settle();
            assert_eq!(mss_of(&net.site(from.other()).take()[0]), Some(9_000));
        }
        let clamped = net.headend(End::A).counter(WorkerCounter::MssClamped);
        assert_eq!(clamped > 0, clamp != MssClamp::Off);
    }
}

#[test]
fn the_mss_is_clamped_on_what_comes_out_of_the_tunnel_too() {
    let mut bench = Bench::new(&Shape::default());
    let mut gre = vec![0, 0, 8, 0];
    gre.extend(segment(End::B, false, tcp::Flags::SYN, Some(9_000)));
    let esp = bench.peer_sealer(0).seal(1, IpProtocol::GRE.0, &gre);
    let outer = greyhound_simulation::packets::Udp::new(End::B.wan(), End::A.wan(), &[]);
    let seen = bench.observe(|bench| bench.wan.send(&ip_with(&outer, IpProtocol::ESP, &esp)));
    assert_eq!(mss_of(&packets_in(&seen.lan)[0]), Some(largest(&Shape::default()) as u16 - 40));
    assert_eq!(seen.counter(WorkerCounter::MssClamped), 1);
}
