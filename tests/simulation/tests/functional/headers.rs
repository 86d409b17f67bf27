// SPDX-License-Identifier: Apache-2.0
//! Every field of the headers that a headend writes, and what it leaves alone (RFC 4301 §5.1.2, RFC 4303 §2, RFC 6040,
//! RFC 6864, RFC 2983).

use std::collections::HashSet;

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{Udp, ip_in, ip_with};
use greyhound_simulation::sealer::{Plain, Sealer};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use greyhound_simulation::wanted::{ANY, host, policy, protection, route_by, tunnel};
use messages::{
    DfPolicy, DropReason, DscpMap, DscpMapIndex, EspMode, GreOptions, Object, PolicyAction, ProtectionIndex,
    TosPolicy, WorkerCounter,
};
use wire::{Ecn, EtherType, IpProtocol, MacAddr, checksum, ethernet, flow, gre, ipv4};

use crate::support::{MODES, allow_gre, packets_in, sized};

/// A packet as it left: the outermost IP packet, the delivery packet, GRE, and what it carries.
struct Sent {
    outer: Vec<u8>,
    esp: Option<Plain>,
    delivery: Vec<u8>,
    gre: gre::Repr,
    payload: Vec<u8>,
}

/// Takes a frame apart as the peer would; checks all lengths and checksums on the way.
fn take_apart(shape: &Shape, opener: &Sealer, frame: &[u8]) -> Sent {
    let ethernet = ethernet::Frame::parse(frame).expect("a frame");
    assert_eq!(ethernet.header.destination(), MacAddr(End::B.mac(WAN)));
    assert_eq!(ethernet.header.source(), MacAddr(End::A.mac(WAN)));
    let expected = if shape.delivery_v6 { EtherType::IPV6 } else { EtherType::IPV4 };
    assert_eq!(ethernet.header.ether_type(), expected);
    let (near, far) = shape.endpoints(End::A);
    let read = |packet: &[u8]| {
        let parsed = flow::parse(packet).expect("lengths and header checksum are right");
        assert_eq!(usize::from(parsed.total_bytes), packet.len(), "nothing follows the packet");
        assert_eq!((parsed.source, parsed.destination), (near, far));
        parsed
    };
    let outer = ethernet.payload.to_vec();
    let parsed = read(&outer);
    let upper = parsed.upper_layer(&outer).to_vec();
    let (esp, delivery, gre_bytes) = match shape.esp {
        None => (None, outer.clone(), upper),
        Some(mode) => {
            assert_eq!(parsed.protocol, IpProtocol::ESP);
            let plain = opener.open(&upper, 0).expect("a right ICV");
            let payload = plain.payload.clone();
            match mode {
                EspMode::Transport => {
                    assert_eq!(plain.next_header, IpProtocol::GRE.0);
                    (Some(plain), outer.clone(), payload)
                }
                EspMode::Tunnel => {
                    let version = if shape.delivery_v6 { IpProtocol::IPV6 } else { IpProtocol::IPV4 };
                    assert_eq!(plain.next_header, version.0);
                    let parsed = read(&payload);
                    assert_eq!(parsed.protocol, IpProtocol::GRE);
                    let gre = parsed.upper_layer(&payload).to_vec();
                    (Some(plain), payload, gre)
                }
            }
        }
    };
    let packet = gre::Packet::parse(&gre_bytes).expect("GRE, its checksum right");
    assert_eq!(gre_bytes[0] & 0x4f | gre_bytes[1], 0, "reserved bits and version");
    Sent { gre: gre::Repr::parse(&packet), payload: packet.payload.to_vec(), outer, esp, delivery }
}

fn bench(shape: &Shape, change: impl FnOnce(&mut Vec<Object>)) -> Bench {
    Bench::with(shape, |objects| {
        allow_gre(shape, objects);
        change(objects);
    })
}

/// Sends a packet from the host and takes apart what leaves.
fn sent(bench: &mut Bench, packet: &[u8]) -> Sent {
    let seen = bench.observe(|bench| bench.lan.send(packet));
    assert_eq!((&seen.drops[..], seen.wan.len()), (&[][..], 1));
    take_apart(&bench.shape, &bench.peer_opener(0), &seen.wan[0])
}

fn shapes() -> Vec<Shape> {
    let families = [false, true];
    let modes = MODES.into_iter();
    modes.flat_map(|esp| families.map(|delivery_v6| Shape { esp, delivery_v6, ..Shape::default() })).collect()
}

fn tos(dscp: u8, ecn: Ecn) -> u8 {
    dscp << 2 | ecn.bits()
}

const ECNS: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

#[test]
fn the_payload_packet_is_carried_whole_less_one_hop() {
    for shape in shapes() {
        let mut bench = bench(&shape, |_| {});
        for v6 in [false, true] {
            for total in [60, 61, 62, 63, 64, 500, 1_300] {
                let packet = sized(End::A, v6, total);
                let sent = sent(&mut bench, &packet.to_bytes());
                assert_eq!(sent.payload, Udp { ttl: 63, ..packet }.to_bytes());
                let expected = if v6 { EtherType::IPV6 } else { EtherType::IPV4 };
                assert_eq!(sent.gre, gre::Repr::new(expected));
            }
        }
    }
}

#[test]
fn the_tos_byte_is_copied_outward_or_its_dscp_fixed_and_ecn_always_copied() {
    for shape in shapes() {
        for policy in [TosPolicy::Copy, TosPolicy::Dscp(26), TosPolicy::Dscp(0)] {
            let mut bench = bench(&shape, |objects| {
                tunnel(objects).tos = policy;
                if shape.esp.is_some() {
                    protection(objects).tos = policy;
                }
            });
            for dscp in [0, 8, 46, 63] {
                for ecn in ECNS {
                    for v6 in [false, true] {
                        let packet = Udp { tos: tos(dscp, ecn), ..sized(End::A, v6, 100) };
                        let sent = sent(&mut bench, &packet.to_bytes());
                        let outside = match policy {
                            TosPolicy::Copy => dscp,
                            TosPolicy::Dscp(fixed) => fixed,
                        };
                        let of = |packet: &[u8]| flow::parse(packet).expect("a packet").tos;
                        assert_eq!(of(&sent.outer), tos(outside, ecn));
                        assert_eq!(of(&sent.delivery), tos(outside, ecn));
                        assert_eq!(of(&sent.payload), tos(dscp, ecn), "the inner one is kept");
                    }
                }
            }
        }
    }
}

#[test]
fn the_dscp_outside_is_what_the_tunnels_map_has_and_ecn_is_copied() {
    let map = DscpMapIndex(3);
    for shape in shapes() {
        let mut bench = bench(&shape, |objects| {
            objects
                .push(Object::DscpMap(DscpMap { dscp_map: map, changes: vec![(46, 40), (8, 1), (40, 2)] }));
            tunnel(objects).marks.outward = Some(map);
        });
        for (dscp, outside) in [(46, 40), (8, 1), (40, 2), (0, 0), (63, 63)] {
            for ecn in ECNS {
                for v6 in [false, true] {
                    let packet = Udp { tos: tos(dscp, ecn), ..sized(End::A, v6, 100) };
                    let sent = sent(&mut bench, &packet.to_bytes());
                    let of = |packet: &[u8]| flow::parse(packet).expect("a packet").tos;
                    assert_eq!(of(&sent.outer), tos(outside, ecn), "ESP's header copies the delivery header");
                    assert_eq!(of(&sent.delivery), tos(outside, ecn));
                    assert_eq!(of(&sent.payload), tos(dscp, ecn), "the inner one is kept");
                }
            }
        }
    }
}

#[test]
fn esp_copies_from_the_delivery_header_what_that_does_not_copy() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let mut bench = bench(&shape, |objects| {
        tunnel(objects).tos = TosPolicy::Dscp(26);
        tunnel(objects).df = DfPolicy::Set;
    });
    let packet = sized(End::A, false, 100);
    let sent = sent(&mut bench, &packet.to_bytes());
    for header in [&sent.outer, &sent.delivery] {
        let parsed = flow::parse(header).expect("a packet");
        assert_eq!((parsed.tos >> 2, parsed.dont_fragment), (26, true));
    }
    let parsed = flow::parse(&sent.payload).expect("a packet");
    assert_eq!((parsed.tos, parsed.dont_fragment), (0, false));
}

#[test]
fn df_is_copied_cleared_or_set_and_counts_as_set_for_ipv6_inside() {
    for esp in MODES {
        let shape = Shape { esp, ..Shape::default() };
        for policy in [DfPolicy::Copy, DfPolicy::Clear, DfPolicy::Set] {
            let mut bench = bench(&shape, |objects| {
                tunnel(objects).df = policy;
                if esp.is_some() {
                    protection(objects).df = policy;
                }
            });
            let plain = sized(End::A, false, 100);
            let v6 = sized(End::A, true, 100);
            for (packet, inside) in [(plain.clone(), false), (plain.dont_fragment(), true), (v6, true)] {
                let sent = sent(&mut bench, &packet.to_bytes());
                let expected = match policy {
                    DfPolicy::Copy => inside,
                    DfPolicy::Clear => false,
                    DfPolicy::Set => true,
                };
                for header in [&sent.outer, &sent.delivery] {
                    assert_eq!(flow::parse(header).expect("a packet").dont_fragment, expected);
                }
                assert_eq!(flow::parse(&sent.payload).expect("a packet").dont_fragment, inside);
            }
        }
    }
}

#[test]
fn each_header_has_the_hops_that_were_configured_for_it() {
    for shape in shapes() {
        let mut bench = bench(&shape, |objects| {
            tunnel(objects).ttl = 33;
            if shape.esp.is_some() {
                protection(objects).ttl = 44;
            }
        });
        for ttl in [2, 64, 255] {
            let packet = Udp { ttl, ..sized(End::A, false, 100) };
            let sent = sent(&mut bench, &packet.to_bytes());
            let ttl_of = |packet: &[u8]| flow::parse(packet).expect("a packet").ttl;
            let outer = if shape.esp == Some(EspMode::Tunnel) { 44 } else { 33 };
            assert_eq!(
                (ttl_of(&sent.outer), ttl_of(&sent.delivery), ttl_of(&sent.payload)),
                (outer, 33, ttl - 1)
            );
        }
    }
}

#[test]
fn identifications_of_headers_that_may_be_cut_do_not_repeat() {
    for esp in MODES {
        let shape = Shape { esp, ..Shape::default() };
        let mut bench = bench(&shape, |_| {});
        let mut outer = HashSet::new();
        let mut delivery = HashSet::new();
        for _ in 0..500 {
            let sent = sent(&mut bench, &sized(End::A, false, 60).to_bytes());
            let identification = |packet: &[u8]| {
                let (header, _) = ipv4::Header::split(packet).expect("an IPv4 header");
                assert!(!header.dont_fragment() && !header.is_fragment());
                header.identification()
            };
            assert!(outer.insert(identification(&sent.outer)));
            assert!(delivery.insert(identification(&sent.delivery)));
        }
    }
}

#[test]
fn workers_do_not_use_each_others_identifications() {
    let shape = Shape { workers: 3, esp: None, ..Shape::default() };
    let mut bench = bench(&shape, |_| {});
    let packet = sized(End::A, false, 60).to_bytes();
    let seen = bench.observe(|bench| {
        for _ in 0..20 {
            (0..3).for_each(|queue| bench.lan.send_to_queue(queue, &packet));
        }
    });
    let identification =
        |packet: &Vec<u8>| ipv4::Header::split(packet).expect("an IPv4 header").0.identification();
    let all: HashSet<_> = packets_in(&seen.wan).iter().map(identification).collect();
    assert_eq!((seen.wan.len(), all.len()), (60, 60));
}

#[test]
fn header_checksums_are_right_and_flow_labels_zero() {
    for shape in shapes() {
        let mut bench = bench(&shape, |_| {});
        for dscp in 0..64 {
            let packet = Udp { tos: dscp << 2, ..sized(End::A, false, 60 + usize::from(dscp)) };
            let sent = sent(&mut bench, &packet.to_bytes());
            for header in [&sent.outer, &sent.delivery] {
                if shape.delivery_v6 {
                    assert_eq!((header[1] & 0x0f, header[2], header[3]), (0, 0, 0));
                } else {
                    assert_eq!(header[0], 0x45);
                    assert!(checksum::is_valid(&header[..20]));
                }
            }
        }
    }
}

#[test]
fn gre_has_the_options_of_the_tunnel_and_numbers_from_0() {
    for bits in 0..8u32 {
        let options = GreOptions {
            key: (bits & 1 != 0).then_some(0xa5a5_0000 | bits),
            checksum: bits & 2 != 0,
            sequence: bits & 4 != 0,
        };
        for esp in MODES {
            let shape = Shape { esp, gre: options, ..Shape::default() };
            let mut bench = bench(&shape, |_| {});
            for number in 0..3 {
                let sent = sent(&mut bench, &sized(End::A, false, 61).to_bytes());
                let expected = gre::Repr {
                    protocol_type: EtherType::IPV4,
                    checksum_present: options.checksum,
                    key: options.key,
                    sequence_number: options.sequence.then_some(number),
                };
                assert_eq!(sent.gre, expected);
            }
        }
    }
}

#[test]
fn padding_counts_from_1_is_the_least_that_aligns_and_numbers_and_ivs_go_up_by_one() {
    for esp in [EspMode::Transport, EspMode::Tunnel] {
        for (esn, icv_bytes) in [(false, 16), (true, 12), (false, 8)] {
            let shape = Shape { esp: Some(esp), esn, icv_bytes, ..Shape::default() };
            let mut bench = bench(&shape, |_| {});
            let mut ivs = HashSet::new();
            for (sequence, total) in (1u32..).zip(60..=92) {
                let sent = sent(&mut bench, &sized(End::A, false, total).to_bytes());
                let plain = sent.esp.expect("ESP");
                assert_eq!(plain.padding, [1, 2, 3][..plain.padding.len()]);
                let inside = plain.payload.len();
                assert_eq!((inside + plain.padding.len() + 2) % 4, 0);
                assert_eq!(plain.sequence_low, sequence);
                assert!(ivs.insert(plain.iv));
                let esp_bytes = 16 + inside + plain.padding.len() + 2 + usize::from(icv_bytes);
                assert_eq!(sent.outer.len(), 20 + esp_bytes);
            }
        }
    }
}

/// What RFC 6040 figure 4 forwards for an inner field (row) and an outer one (column), in the order of [`ECNS`].
const FIGURE_4: [[Option<Ecn>; 4]; 4] = {
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    [
        [Some(NotEct), Some(NotEct), Some(NotEct), None],
        [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)],
        [Some(Ect0), Some(Ect1), Some(Ect0), Some(Ce)],
        [Some(Ce), Some(Ce), Some(Ce), Some(Ce)],
    ]
};

#[test]
fn congestion_met_on_the_way_reaches_the_inner_packet_as_figure_4_says() {
    for esp in MODES {
        let shape = Shape { esp, ..Shape::default() };
        let mut bench = bench(&shape, |_| {});
        let sealer = bench.peer_sealer(0);
        let mut sequence = 0;
        for (row, inner_ecn) in FIGURE_4.iter().zip(ECNS) {
            for (expected, outer_ecn) in row.iter().zip(ECNS) {
                for v6 in [false, true] {
                    sequence += 1;
                    let packet = Udp { tos: tos(46, inner_ecn), ..sized(End::B, v6, 100) };
                    let delivery =
                        Udp { tos: tos(0, outer_ecn), ..Udp::new(End::B.wan(), End::A.wan(), &[]) };
                    let mut gre = vec![0, 0];
                    gre.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
                    gre.extend(packet.to_bytes());
                    let frame = match esp {
                        None => ip_with(&delivery, IpProtocol::GRE, &gre),
                        Some(EspMode::Transport) => {
                            let esp = sealer.seal(sequence, IpProtocol::GRE.0, &gre);
                            ip_with(&delivery, IpProtocol::ESP, &esp)
                        }
                        Some(EspMode::Tunnel) => {
                            // As its ingress copies it: both outer headers say the same.
                            let inside = ip_with(&delivery, IpProtocol::GRE, &gre);
                            let esp = sealer.seal(sequence, IpProtocol::IPV4.0, &inside);
                            ip_with(&delivery, IpProtocol::ESP, &esp)
                        }
                    };
                    let seen = bench.observe(|bench| bench.wan.send(&frame));
                    let arrived = packets_in(&seen.lan);
                    match expected {
                        Some(ecn) => {
                            let expected = Udp { tos: tos(46, *ecn), ttl: 63, ..packet }.to_bytes();
                            assert_eq!(arrived, [expected], "{inner_ecn:?} in {outer_ecn:?}");
                            let marked = *ecn == Ecn::Ce && inner_ecn != Ecn::Ce;
                            assert_eq!(seen.counter(WorkerCounter::EcnCongested), u64::from(marked));
                        }
                        None => assert_eq!(seen.drops, [(DropReason::EcnInvalid, 1)]),
                    }
                }
            }
        }
    }
}

/// Three headers: what a router marked on the outermost only goes through the delivery header to the payload.
#[test]
fn congestion_on_the_outermost_header_goes_through_both_to_the_payload() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let mut bench = bench(&shape, |_| {});
    let packet = Udp { tos: tos(0, Ecn::Ect0), ..sized(End::B, false, 100) };
    let mut gre = vec![0, 0, 8, 0];
    gre.extend(packet.to_bytes());
    let header = |ecn| Udp { tos: tos(0, ecn), ..Udp::new(End::B.wan(), End::A.wan(), &[]) };
    let inside = ip_with(&header(Ecn::Ect0), IpProtocol::GRE, &gre);
    let esp = bench.peer_sealer(0).seal(1, IpProtocol::IPV4.0, &inside);
    let seen = bench.observe(|bench| bench.wan.send(&ip_with(&header(Ecn::Ce), IpProtocol::ESP, &esp)));
    let arrived = packets_in(&seen.lan);
    assert_eq!(arrived, [Udp { tos: tos(0, Ecn::Ce), ttl: 63, ..packet }.to_bytes()]);
}

fn by_policy() -> Bench {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    Bench::with(&shape, |objects| {
        objects.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
        for (far, next_hop) in [(End::B.host(), End::B.wan()), (End::B.host_v6(), End::B.wan_v6())] {
            objects.push(route_by(host(far), WAN, next_hop));
        }
        objects.push(policy(0, ANY, PolicyAction::Protect(ProtectionIndex(0))));
        protection(objects).ttl = 44;
    })
}

#[test]
fn esp_tunnel_mode_alone_has_the_same_rules() {
    let mut bench = by_policy();
    let opener = bench.peer_opener(0);
    for v6 in [false, true] {
        for ecn in ECNS {
            let packet = Udp { tos: tos(46, ecn), ..sized(End::A, v6, 101) }.dont_fragment();
            let seen = bench.observe(|bench| bench.lan.send(&packet.to_bytes()));
            let (outer, bytes) = ip_in(&seen.wan[0]).expect("an IP packet");
            assert_eq!((outer.tos, outer.ttl, outer.dont_fragment), (packet.tos, 44, true));
            assert_eq!((outer.source, outer.destination), (End::A.wan(), End::B.wan()));
            let plain = opener.open(outer.upper_layer(&bytes), 0).expect("a right ICV");
            assert_eq!(plain.next_header, if v6 { 41 } else { 4 });
            assert_eq!(plain.payload, Udp { ttl: 63, ..packet }.to_bytes());
        }
    }
}

#[test]
fn esp_tunnel_mode_alone_carries_congestion_inward() {
    let mut bench = by_policy();
    let sealer = bench.peer_sealer(0);
    let mut sequence = 0;
    for (row, inner_ecn) in FIGURE_4.iter().zip(ECNS) {
        for (expected, outer_ecn) in row.iter().zip(ECNS) {
            for v6 in [false, true] {
                sequence += 1;
                let packet = Udp { tos: tos(10, inner_ecn), ..sized(End::B, v6, 100) };
                let outer = Udp { tos: tos(0, outer_ecn), ..Udp::new(End::B.wan(), End::A.wan(), &[]) };
                let esp = sealer.seal(sequence, if v6 { 41 } else { 4 }, &packet.to_bytes());
                let seen = bench.observe(|bench| bench.wan.send(&ip_with(&outer, IpProtocol::ESP, &esp)));
                match expected {
                    Some(ecn) => {
                        let expected = Udp { tos: tos(10, *ecn), ttl: 63, ..packet }.to_bytes();
                        assert_eq!(packets_in(&seen.lan), [expected]);
                    }
                    None => assert_eq!(seen.drops, [(DropReason::EcnInvalid, 1)]),
                }
            }
        }
    }
}

/// A site's frame is as the site's own link has it.
#[test]
fn what_comes_out_has_the_addresses_of_its_link() {
    let mut bench = bench(&Shape::default(), |_| {});
    let mut gre = vec![0, 0, 8, 0];
    gre.extend(sized(End::B, false, 100).to_bytes());
    let esp = bench.peer_sealer(0).seal(1, IpProtocol::GRE.0, &gre);
    let outer = Udp::new(End::B.wan(), End::A.wan(), &[]);
    let seen = bench.observe(|bench| bench.wan.send(&ip_with(&outer, IpProtocol::ESP, &esp)));
    let frame = ethernet::Frame::parse(&seen.lan[0]).expect("a frame");
    assert_eq!(frame.header.destination(), MacAddr(End::A.host_mac()));
    assert_eq!(frame.header.source(), MacAddr(End::A.mac(LAN)));
}
