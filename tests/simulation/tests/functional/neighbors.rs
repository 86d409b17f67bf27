// SPDX-License-Identifier: Apache-2.0
//! ARP and neighbour discovery: asking, answering, learning, waiting (RFC 826, RFC 4861 §7.2, RFC 5227).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use greyhound_simulation::Bench;
use greyhound_simulation::bench::Seen;
use greyhound_simulation::packets::{self, Udp, ip_in};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use greyhound_simulation::wanted::ip;
use messages::{DropReason, NeighborState, Object, PortIndex, StaticNeighbor, WorkerCounter};
use wire::{EtherType, MacAddr, arp, ethernet, ndp};

use crate::support::{hosts, packets_in, sized};

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0x77, 0x77]);

/// A bench whose neighbours are yet to be found.
fn bench(shape: &Shape) -> Bench {
    Bench::with(shape, |objects| objects.retain(|object| !matches!(object, Object::Neighbor(_))))
}

fn v4(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else { panic!("IPv4") };
    address
}

fn v6(address: IpAddr) -> Ipv6Addr {
    let IpAddr::V6(address) = address else { panic!("IPv6") };
    address
}

fn host_mac() -> MacAddr {
    MacAddr(End::A.host_mac())
}

/// ARP messages in these frames, with the Ethernet addresses they go to.
fn arps(frames: &[Vec<u8>]) -> Vec<(MacAddr, arp::Repr)> {
    frames
        .iter()
        .filter_map(|frame| {
            let frame = ethernet::Frame::parse(frame).expect("a frame");
            let is_arp = frame.header.ether_type() == EtherType::ARP;
            is_arp.then(|| (frame.header.destination(), arp::Repr::parse(frame.payload).expect("ARP")))
        })
        .collect()
}

/// Neighbour discovery in these frames.
fn discoveries(frames: &[Vec<u8>]) -> Vec<(MacAddr, ndp::Message)> {
    frames
        .iter()
        .filter_map(|frame| {
            let frame = ethernet::Frame::parse(frame).expect("a frame");
            let message = ndp::Message::parse(frame.payload).ok()?;
            Some((frame.header.destination(), message))
        })
        .collect()
}

fn arp_frame(destination: MacAddr, message: &arp::Repr) -> Vec<u8> {
    let mut bytes = vec![0; ethernet::MIN_FRAME_BYTES];
    let (link, body) = bytes.split_at_mut(ethernet::HEADER_BYTES);
    let header = ethernet::Repr { destination, source: message.sender_hardware, ether_type: EtherType::ARP };
    header.emit(link).expect("an Ethernet header");
    message.emit(body).expect("an ARP packet");
    bytes
}

fn discovery_frame(destination: MacAddr, source: MacAddr, message: &ndp::Message) -> Vec<u8> {
    let mut bytes = vec![0; ndp::MAX_PACKET_BYTES];
    let length = message.emit(&mut bytes).expect("a message");
    packets::frame(destination, source, &bytes[..length])
}

fn broadcast() -> MacAddr {
    MacAddr([0xff; 6])
}

/// What the headend knows of an address on a port.
fn known(bench: &Bench, port: PortIndex, address: IpAddr) -> Option<(NeighborState, MacAddr)> {
    let found = bench.headend.neighbors().into_iter().find(|n| (n.port, n.address) == (port, address));
    found.map(|neighbor| (neighbor.state, MacAddr(neighbor.mac)))
}

fn from_site(bench: &mut Bench, frame: &[u8]) -> Seen {
    bench.observe(|bench| bench.lan.send_frame(0, frame))
}

#[test]
fn the_first_packet_asks_and_all_that_wait_leave_in_order() {
    for delivery_v6 in [false, true] {
        let mut bench = bench(&Shape { delivery_v6, ..Shape::default() });
        bench.wan.set_silent(true);
        let seen = bench.observe(|bench| {
            (60..70).for_each(|size| bench.lan.send(&sized(End::A, false, size).to_bytes()));
        });
        assert_eq!((&seen.drops[..], seen.wan.len()), (&[][..], 1), "one question for all");
        assert_eq!(seen.counter(WorkerCounter::Held), 10);
        let our_mac = MacAddr(End::A.mac(WAN));
        let peer_mac = MacAddr(End::B.mac(WAN));
        let answer = if delivery_v6 {
            let (destination, question) = discoveries(&seen.wan)[0];
            let expected = ndp::Message::solicit(v6(End::A.wan_v6()), our_mac, v6(End::B.wan_v6()));
            assert_eq!(question, expected);
            assert_eq!(destination, MacAddr::of_ipv6_multicast(question.destination));
            discovery_frame(our_mac, peer_mac, &question.answer(peer_mac).expect("an answer"))
        } else {
            let (destination, question) = arps(&seen.wan)[0];
            assert_eq!(destination, broadcast());
            assert_eq!(question, arp::Repr::request(our_mac, v4(End::A.wan()), v4(End::B.wan())));
            arp_frame(our_mac, &question.reply(peer_mac))
        };
        let seen = bench.observe(|bench| bench.wan.send_frame(0, &answer));
        assert_eq!(seen.drops, []);
        let sizes: Vec<_> = packets_in(&seen.wan).iter().map(Vec::len).collect();
        assert_eq!(sizes.len(), 10);
        assert!(sizes.is_sorted(), "in the order in which they came: {sizes:?}");
        let opener = bench.peer_opener(0);
        let header = if delivery_v6 { 40 } else { 20 };
        for (sequence, packet) in (1..).zip(packets_in(&seen.wan)) {
            let plain = opener.open(&packet[header..], 0).expect("a right ICV");
            assert_eq!(plain.sequence_low, sequence);
        }
        assert!(bench.buffers_are_home());
    }
}

#[test]
fn a_host_is_found_likewise() {
    let mut bench = bench(&Shape::default());
    for is_v6 in [false, true] {
        let (source, destination) = hosts(End::B, is_v6);
        let mut gre = vec![0, 0];
        gre.extend(if is_v6 { [0x86, 0xdd] } else { [8, 0] });
        gre.extend(Udp::new(source, destination, b"hello").to_bytes());
        let esp = bench.peer_sealer(0).seal(1 + u64::from(is_v6), wire::IpProtocol::GRE.0, &gre);
        let outer = Udp::new(End::B.wan(), End::A.wan(), &[]);
        let packet = packets::ip_with(&outer, wire::IpProtocol::ESP, &esp);
        // The host answers by itself.
        let seen = bench.observe(|bench| bench.wan.send(&packet));
        assert_eq!(seen.drops, []);
        let arrived: Vec<_> = seen
            .lan
            .iter()
            .filter_map(|frame| ip_in(frame))
            .filter(|(parsed, _)| parsed.source == source)
            .collect();
        assert_eq!(arrived.len(), 1);
        assert_eq!(known(&bench, LAN, destination), Some((NeighborState::Reachable, host_mac())));
    }
}

#[test]
fn arp_is_answered_for_the_ports_own_addresses_only() {
    let mut bench = bench(&Shape::default());
    let question = |target| arp::Repr::request(host_mac(), v4(End::A.host()), v4(target));
    let seen = from_site(&mut bench, &arp_frame(broadcast(), &question(End::A.gateway())));
    let (destination, answer) = arps(&seen.lan)[0];
    assert_eq!(destination, host_mac());
    assert_eq!(answer, question(End::A.gateway()).reply(MacAddr(End::A.mac(LAN))));
    assert!(seen.lan[0].len() >= 60, "no runt");
    // Asked directly, as Linux does to refresh what it knows.
    let to_us = MacAddr(End::A.mac(LAN));
    let seen = from_site(&mut bench, &arp_frame(to_us, &question(End::A.gateway())));
    assert_eq!(seen.lan.len(), 1);
    for other in [End::A.wan(), End::A.host(), ip("10.1.0.77"), End::B.host()] {
        let seen = from_site(&mut bench, &arp_frame(broadcast(), &question(other)));
        assert_eq!((&seen.drops[..], seen.lan.len(), seen.wan.len()), (&[][..], 0, 0), "{other}");
        assert_eq!(seen.counter(WorkerCounter::Consumed), 1);
    }
}

#[test]
fn an_address_probe_is_answered_and_teaches_nothing() {
    let mut bench = bench(&Shape::default());
    let probe = arp::Repr::request(host_mac(), Ipv4Addr::UNSPECIFIED, v4(End::A.gateway()));
    let seen = from_site(&mut bench, &arp_frame(broadcast(), &probe));
    assert_eq!(seen.lan.len(), 1);
    assert_eq!(bench.headend.neighbors().iter().filter(|n| n.port == LAN).count(), 0);
    // Duplicate address detection for ours (RFC 4861 §7.2.4: to all nodes).
    let probe = ndp::Message {
        source: Ipv6Addr::UNSPECIFIED,
        ..ndp::Message::solicit(v6(End::A.host_v6()), host_mac(), v6(End::A.gateway_v6()))
    };
    let probe = ndp::Message {
        repr: ndp::Repr::NeighborSolicitation { target: v6(End::A.gateway_v6()), source_link_layer: None },
        ..probe
    };
    let group = MacAddr::of_ipv6_multicast(probe.destination);
    let seen = from_site(&mut bench, &discovery_frame(group, host_mac(), &probe));
    let (destination, answer) = discoveries(&seen.lan)[0];
    assert_eq!(answer.destination, ndp::ALL_NODES);
    assert_eq!(destination, MacAddr::of_ipv6_multicast(ndp::ALL_NODES));
    assert_eq!(bench.headend.neighbors().iter().filter(|n| n.port == LAN).count(), 0);
}

#[test]
fn who_asks_for_us_is_known_from_then_on() {
    let mut bench = bench(&Shape::default());
    let question = arp::Repr::request(host_mac(), v4(End::A.host()), v4(End::A.gateway()));
    from_site(&mut bench, &arp_frame(broadcast(), &question));
    assert_eq!(known(&bench, LAN, End::A.host()), Some((NeighborState::Reachable, host_mac())));
    let question = ndp::Message::solicit(v6(End::A.host_v6()), host_mac(), v6(End::A.gateway_v6()));
    let group = MacAddr::of_ipv6_multicast(question.destination);
    let seen = from_site(&mut bench, &discovery_frame(group, host_mac(), &question));
    assert_eq!(discoveries(&seen.lan), [(host_mac(), question.answer(MacAddr(End::A.mac(LAN))).unwrap())]);
    assert_eq!(known(&bench, LAN, End::A.host_v6()), Some((NeighborState::Reachable, host_mac())));
}

#[test]
fn a_solicitation_for_another_is_left_to_the_other() {
    let mut bench = bench(&Shape::default());
    for target in [ip("2001:db8:1::77"), End::A.wan_v6()] {
        let question = ndp::Message::solicit(v6(End::A.host_v6()), host_mac(), v6(target));
        let group = MacAddr::of_ipv6_multicast(question.destination);
        let seen = from_site(&mut bench, &discovery_frame(group, host_mac(), &question));
        assert_eq!((&seen.drops[..], seen.lan.len(), seen.wan.len()), (&[][..], 0, 0));
    }
}

#[test]
fn strangers_and_announcements_of_the_unknown_are_not_learnt() {
    let mut bench = bench(&Shape::default());
    let count = |bench: &Bench| bench.headend.neighbors().iter().filter(|n| n.port == LAN).count();
    // Gratuitous: about itself to everybody (RFC 5227 §3).
    let host = v4(End::A.host());
    from_site(&mut bench, &arp_frame(broadcast(), &arp::Repr::request(host_mac(), host, host)));
    assert_eq!(count(&bench), 0);
    // To us, but from beyond the link.
    let far = arp::Repr::request(host_mac(), v4(ip("198.51.100.7")), v4(End::A.gateway()));
    from_site(&mut bench, &arp_frame(broadcast(), &far));
    assert_eq!(count(&bench), 0);
    let far = ndp::Message::solicit(v6(ip("2001:db8:77::7")), host_mac(), v6(End::A.gateway_v6()));
    let group = MacAddr::of_ipv6_multicast(far.destination);
    from_site(&mut bench, &discovery_frame(group, host_mac(), &far));
    assert_eq!(count(&bench), 0);
    // An advertisement that nobody asked for (RFC 4861 §7.2.5).
    let advertisement = ndp::Message {
        source: v6(End::A.host_v6()),
        destination: ndp::ALL_NODES,
        repr: ndp::Repr::NeighborAdvertisement {
            router: false,
            solicited: false,
            overrides: true,
            target: v6(End::A.host_v6()),
            target_link_layer: Some(host_mac()),
        },
    };
    let group = MacAddr::of_ipv6_multicast(ndp::ALL_NODES);
    from_site(&mut bench, &discovery_frame(group, host_mac(), &advertisement));
    assert_eq!(count(&bench), 0);
}

/// To where the headend sends what is for the host.
fn goes_to(bench: &mut Bench) -> MacAddr {
    let ping = crate::support::ping(End::A.host(), End::A.gateway());
    let seen = bench.observe(|bench| bench.lan.send(&ping));
    assert_eq!(seen.drops, []);
    let reply = seen.lan.iter().find(|frame| ip_in(frame).is_some()).expect("a reply");
    ethernet::Frame::parse(reply).expect("a frame").header.destination()
}

#[test]
fn an_announcement_moves_a_neighbour_that_is_known() {
    let mut bench = bench(&Shape::default());
    assert_eq!(goes_to(&mut bench), host_mac());
    let host = v4(End::A.host());
    from_site(&mut bench, &arp_frame(broadcast(), &arp::Repr::request(OTHER, host, host)));
    assert_eq!(goes_to(&mut bench), OTHER);
    assert_eq!(known(&bench, LAN, End::A.host()), Some((NeighborState::Reachable, OTHER)));
}

#[test]
fn an_advertisement_without_the_override_flag_moves_nobody() {
    let mut bench = bench(&Shape::default());
    let question = ndp::Message::solicit(v6(End::A.host_v6()), host_mac(), v6(End::A.gateway_v6()));
    let group = MacAddr::of_ipv6_multicast(question.destination);
    from_site(&mut bench, &discovery_frame(group, host_mac(), &question));
    for (overrides, expected) in [(false, host_mac()), (true, OTHER)] {
        let advertisement = ndp::Message {
            source: v6(End::A.host_v6()),
            destination: v6(End::A.gateway_v6()),
            repr: ndp::Repr::NeighborAdvertisement {
                router: false,
                solicited: true,
                overrides,
                target: v6(End::A.host_v6()),
                target_link_layer: Some(OTHER),
            },
        };
        let to_us = MacAddr(End::A.mac(LAN));
        from_site(&mut bench, &discovery_frame(to_us, OTHER, &advertisement));
        assert_eq!(known(&bench, LAN, End::A.host_v6()), Some((NeighborState::Reachable, expected)));
    }
}

#[test]
fn a_static_neighbour_is_never_asked_for_nor_moved() {
    let mut bench = Bench::new(&Shape::default());
    let host = v4(End::A.host());
    from_site(&mut bench, &arp_frame(broadcast(), &arp::Repr::request(OTHER, host, host)));
    from_site(&mut bench, &arp_frame(broadcast(), &arp::Repr::request(OTHER, host, v4(End::A.gateway()))));
    assert_eq!(goes_to(&mut bench), host_mac());
    bench.pass(400_000_000_000);
    bench.headend.age_neighbors(bench.now_ns);
    assert_eq!(known(&bench, LAN, End::A.host()), Some((NeighborState::Static, host_mac())));
    let seen = bench.observe(|bench| bench.lan.send(&sized(End::A, false, 60).to_bytes()));
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1));
}

#[test]
fn a_neighbour_given_as_static_releases_what_waits_before_what_comes_later() {
    let mut bench = bench(&Shape::default());
    bench.wan.set_silent(true);
    (60..65).for_each(|size| bench.lan.send(&sized(End::A, false, size).to_bytes()));
    bench.settle();
    bench.wan.take_frames();
    let seen = bench.observe(|bench| {
        let mac = End::B.mac(WAN);
        let neighbor = Object::Neighbor(StaticNeighbor { port: WAN, address: End::B.wan(), mac });
        bench.headend.put(messages::Base::Running, &[neighbor], bench.now_ns).expect("a neighbour");
        (65..70).for_each(|size| bench.lan.send(&sized(End::A, false, size).to_bytes()));
    });
    let sequences: Vec<_> =
        greyhound_simulation::esp::read_all(&seen.wan).iter().map(|esp| esp.sequence).collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
}

#[test]
fn what_waits_at_one_worker_is_not_overtaken_when_another_hears_the_answer() {
    let mut bench = bench(&Shape { workers: 2, ..Shape::default() });
    bench.wan.set_silent(true);
    (60..65).for_each(|size| bench.lan.send_to_queue(1, &sized(End::A, false, size).to_bytes()));
    bench.settle();
    let question = arps(&bench.wan.take_frames())[0].1;
    let answer = arp_frame(MacAddr(End::A.mac(WAN)), &question.reply(MacAddr(End::B.mac(WAN))));
    let seen = bench.observe(|bench| {
        bench.wan.send_frame(0, &answer);
        (65..70).for_each(|size| bench.lan.send_to_queue(1, &sized(End::A, false, size).to_bytes()));
    });
    let sequences: Vec<_> =
        greyhound_simulation::esp::read_all(&seen.wan).iter().map(|esp| esp.sequence).collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_stale_neighbour_is_used_and_asked_and_is_reachable_again_when_it_answers() {
    let mut bench = bench(&Shape::default());
    assert_eq!(goes_to(&mut bench), host_mac());
    bench.pass(31_000_000_000);
    bench.headend.age_neighbors(bench.now_ns);
    assert_eq!(known(&bench, LAN, End::A.host()), Some((NeighborState::Stale, host_mac())));
    let ping = crate::support::ping(End::A.host(), End::A.gateway());
    let seen = bench.observe(|bench| bench.lan.send(&ping));
    assert_eq!((arps(&seen.lan).len(), packets_in(&seen.lan).len()), (1, 1), "used, and asked");
    assert_eq!(known(&bench, LAN, End::A.host()), Some((NeighborState::Reachable, host_mac())));
}

#[test]
fn a_stale_neighbour_that_does_not_answer_three_times_is_lost() {
    let mut bench = bench(&Shape::default());
    assert_eq!(goes_to(&mut bench), host_mac());
    bench.pass(31_000_000_000);
    bench.headend.age_neighbors(bench.now_ns);
    bench.lan.set_silent(true);
    let ping = crate::support::ping(End::A.host(), End::A.gateway());
    let mut questions = 0;
    for _ in 0..4 {
        let seen = bench.observe(|bench| {
            bench.lan.send(&ping);
            bench.pass(1_100_000_000);
        });
        assert_eq!((&seen.drops[..], packets_in(&seen.lan).len()), (&[][..], 1), "still used");
        questions += arps(&seen.lan).len();
    }
    assert_eq!(questions, 3);
    let seen = bench.observe(|bench| bench.lan.send(&ping));
    assert_eq!(seen.drops, [(DropReason::NeighborUnresolved, 1)]);
    assert_eq!(known(&bench, LAN, End::A.host()).map(|(state, _)| state), Some(NeighborState::Incomplete));
    // It comes back: a while later it is asked for again.
    bench.lan.set_silent(false);
    bench.pass(4_000_000_000);
    assert_eq!(goes_to(&mut bench), host_mac());
}

#[test]
fn a_neighbour_that_nobody_uses_is_forgotten() {
    let mut bench = bench(&Shape::default());
    assert_eq!(goes_to(&mut bench), host_mac());
    for _ in 0..2 {
        bench.now_ns += 301_000_000_000;
        bench.headend.age_neighbors(bench.now_ns);
    }
    assert_eq!(known(&bench, LAN, End::A.host()), None);
    assert_eq!(goes_to(&mut bench), host_mac(), "and found again");
}

#[test]
fn the_next_hop_of_a_route_is_asked_for_not_the_destination() {
    let mut bench = bench(&Shape::default());
    bench.commit(&[greyhound_simulation::wanted::route_by(
        greyhound_simulation::wanted::prefix("203.0.113.0/24"),
        LAN,
        End::A.host(),
    )]);
    let packet = Udp::new(End::A.host(), ip("203.0.113.9"), b"to and fro");
    let seen = bench.observe(|bench| bench.lan.send(&packet.to_bytes()));
    assert_eq!(seen.drops, []);
    let questions = arps(&seen.lan);
    assert_eq!((questions.len(), questions[0].1.target_protocol), (1, v4(End::A.host())));
    assert_eq!(packets_in(&seen.lan), [Udp { ttl: 63, ..packet }.to_bytes()]);
}
