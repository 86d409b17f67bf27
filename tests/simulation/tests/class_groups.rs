// SPDX-License-Identifier: Apache-2.0
//! An SA for each class group (RFC 4301 §4.1): what a network that reorders by DSCP does to a tunnel, with them and without.
//!
//! The network in the middle holds back what is not EF for so long that packets are overtaken by more than the peer's
//! anti-replay window. The peer is a whole headend.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use greyhound_simulation::packets::{Udp, frame, ip_in, ip_with};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, Shape, Topology, WAN};
use greyhound_simulation::wanted::{ANY, ip, policy, prefix, protection, route_by, sa};
use greyhound_simulation::{Bench, esp};
use messages::{
    Base, ClassGroups, ClassMap, ClassMapIndex, Criterion, Direction, DropReason, DscpSet, EspMode, Object,
    ObjectId, PolicyAction, PolicyClass, PolicyMap, PolicyMapIndex, ProtectionIndex, QueueLimit, Sa, SaIndex,
    Selector, Service, ServicePolicy, ServiceTarget, Share, TrafficProfile, TunnelIndex,
};
use wire::{Dscp, Ecn, IpProtocol, MacAddr, checksum, flow};

const WINDOW: u16 = 1_024;
/// AF11.
const BULK: u8 = 10;
/// EF in group 1, AF11 in group 2; the rest is everything else.
const VOICE_GROUP: u8 = 1;
const BULK_GROUP: u8 = 2;
const PROTECT: PolicyAction = PolicyAction::Protect(ProtectionIndex(0));
/// Ethernet around an IP packet on the wire: header, FCS, preamble and gap.
const AROUND: u64 = 38;

fn groups() -> ClassGroups {
    let mut groups = ClassGroups::default();
    (groups.0[0], groups.0[1]) = (DscpSet(1 << Dscp::EF.get()), DscpSet(1 << BULK));
    groups
}

/// The outbound SA of a group, and what the peer opens it with: generation 0 of the keys is group 0's, and so on.
fn outbound(shape: &Shape, generation: u32, class_group: u8) -> Object {
    Object::Sa(Sa { class_group, ..sa(shape.sa(End::A, Direction::Outbound, generation)) })
}

fn with_groups(shape: &Shape, objects: &mut Vec<Object>) {
    protection(objects).class_groups = groups();
    objects.extend([VOICE_GROUP, BULK_GROUP].map(|group| outbound(shape, group.into(), group)));
}

fn dscp(value: u8) -> Dscp {
    Dscp::new(value).expect("below 64")
}

fn packet(mark: Dscp, number: u32) -> Vec<u8> {
    let data = number.to_be_bytes();
    Udp::new(End::A.host(), End::B.host(), &data).tos(mark, Ecn::NotEct).to_bytes()
}

/// A network that forwards EF at once, AF11 when so many younger packets have come, and the rest when twice as many have.
struct Middle {
    held: [VecDeque<(usize, Vec<u8>)>; 3],
    come: usize,
    delay: usize,
}

impl Middle {
    fn new(delay: usize) -> Self {
        Self { held: Default::default(), come: 0, delay }
    }

    fn take(&mut self, frame: Vec<u8>) {
        let (outer, _) = ip_in(&frame).expect("an IP packet");
        let place = match Dscp::of_tos(outer.tos) {
            Dscp::EF => 0,
            other if other.get() == BULK => 1,
            _ => 2,
        };
        self.held[place].push_back((self.come, frame));
        self.come += 1;
    }

    /// What it forwards by now; everything once nothing more will come.
    fn give(&mut self, is_over: bool) -> Vec<Vec<u8>> {
        let mut given = Vec::new();
        for (place, held) in self.held.iter_mut().enumerate() {
            while held.front().is_some_and(|(came, _)| is_over || came + place * self.delay < self.come) {
                given.extend(held.pop_front().map(|(_, frame)| frame));
            }
        }
        given
    }
}

/// What came of a stream.
#[derive(Debug)]
struct Outcome {
    arrived: usize,
    too_old: u64,
    /// DSCPs that were seen under each SPI.
    seen: BTreeMap<u32, BTreeSet<u8>>,
    /// By how many numbers the farthest packet was overtaken within its SA.
    overtaken_by: u32,
}

/// A third of everything EF, AF11 and best effort, through the network in the middle.
fn through_the_middle(shape: &Shape, count: u32, grouped: bool) -> Outcome {
    let mut near = Bench::with(shape, |objects| {
        if grouped {
            with_groups(shape, objects);
        }
    });
    let mut far = Topology::unconfigured(shape.clone());
    let mut objects = far.objects(End::B, 0);
    for generation in [1, 2] {
        objects.push(far.sa(End::B, Direction::Inbound, generation));
    }
    let now_ns = far.now_ns;
    far.headend(End::B).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
    far.settle();
    let mut middle = Middle::new(1_500);
    let (mut seen, mut edges) = (BTreeMap::<u32, BTreeSet<u8>>::new(), BTreeMap::<u32, u32>::new());
    let (mut arrived, mut overtaken_by) = (BTreeSet::new(), 0);
    let marks = [Dscp::EF, dscp(BULK), Dscp::DEFAULT];
    for number in 0..count {
        near.lan.send(&packet(marks[number as usize % 3], number));
        let is_last = number + 1 == count;
        if number % 16 == 0 || is_last {
            near.settle();
            near.wan.take();
            near.wan.take_frames().into_iter().for_each(|frame| middle.take(frame));
            for frames in middle.give(is_last).chunks(64) {
                for frame in frames {
                    let (outer, _) = ip_in(frame).expect("an IP packet");
                    let clear = esp::read(frame).expect("an ESP packet");
                    seen.entry(clear.spi).or_default().insert(outer.tos >> 2);
                    let edge = edges.entry(clear.spi).or_default();
                    *edge = clear.sequence.max(*edge);
                    overtaken_by = overtaken_by.max(*edge - clear.sequence);
                    far.inject(End::B, 0, frame);
                }
                far.settle();
                for packet in far.site(End::B).take() {
                    let number = u32::from_be_bytes(*packet[28..].first_chunk().expect("a number"));
                    assert!(arrived.insert(number), "{number} came twice");
                }
            }
        }
    }
    assert_eq!((near.headend.drops(), near.headend.unaccounted()), (vec![], 0));
    assert_eq!(far.headend(End::B).unaccounted(), 0);
    let too_old = far.headend(End::B).dropped(DropReason::ReplayTooOld);
    let drops: u64 = far.headend(End::B).drops().iter().map(|(_, count)| count).sum();
    assert_eq!(drops, too_old, "nothing else is dropped");
    Outcome { arrived: arrived.len(), too_old, seen, overtaken_by }
}

#[test]
fn what_a_network_reorders_by_dscp_arrives_with_an_sa_for_each_group_and_most_of_it_is_lost_with_one() {
    const COUNT: u32 = 9_000;
    for (esp, delivery_v6) in [
        (EspMode::Transport, false),
        (EspMode::Tunnel, false),
        (EspMode::Transport, true),
        (EspMode::Tunnel, true),
    ] {
        let shape = Shape { esp: Some(esp), delivery_v6, replay_window: WINDOW, ..Shape::default() };
        let with = through_the_middle(&shape, COUNT, true);
        assert_eq!((with.arrived, with.too_old), (COUNT as usize, 0), "{esp:?} {delivery_v6}");
        assert_eq!(with.overtaken_by, 0, "nothing overtakes within an SA");
        let spi = |group: u32| 0x1000 + group;
        let own = |dscps: &[u8]| dscps.iter().copied().collect::<BTreeSet<u8>>();
        let expected = [(spi(0), own(&[0])), (spi(1), own(&[Dscp::EF.get()])), (spi(2), own(&[BULK]))].into();
        assert_eq!(with.seen, expected, "each DSCP leaves under its SA");
        let without = through_the_middle(&shape, COUNT, false);
        assert!(without.overtaken_by > u32::from(WINDOW), "{without:?}");
        assert_eq!(without.arrived as u64 + without.too_old, u64::from(COUNT));
        assert!(without.too_old > u64::from(COUNT) / 3, "{without:?}");
        println!(
            "{esp:?}, IPv6 delivery {delivery_v6}: of {COUNT} lost with groups {}, without {} ({} packets overtaken)",
            with.too_old, without.too_old, without.overtaken_by
        );
    }
}

#[test]
fn a_group_without_an_sa_drops_its_packets_and_no_others() {
    for whole_way in [false, true] {
        let shape = Shape::default();
        let mut bench = Bench::with(&shape, |objects| {
            with_groups(&shape, objects);
            objects.retain(|object| object.id() != outbound(&shape, 1, VOICE_GROUP).id());
            if whole_way {
                // A checksum is not for the fast path.
                greyhound_simulation::wanted::tunnel(objects).gre.checksum = true;
            }
        });
        for number in 0..30 {
            let mark = [Dscp::EF, dscp(BULK), Dscp::DEFAULT][number as usize % 3];
            bench.lan.send(&packet(mark, number));
        }
        let seen = bench.observe(|_| {});
        assert_eq!(seen.drops, [(DropReason::NoSa, 10)], "whole way {whole_way}");
        let left = |generation: u32| {
            let spi = 0x1000 + generation;
            seen.wan.iter().filter_map(|frame| esp::read(frame)).filter(|clear| clear.spi == spi).count()
        };
        assert_eq!([0, 1, 2].map(left), [10, 0, 10], "whole way {whole_way}");
    }
}

#[test]
fn one_group_is_rekeyed_under_traffic_and_the_others_go_on_as_they_are() {
    let shape = Shape { replay_window: WINDOW, ..Shape::default() };
    let mut net = Topology::unconfigured(shape.clone());
    for end in [End::A, End::B] {
        let mut objects = net.objects(end, 0);
        match end {
            End::A => with_groups(&shape, &mut objects),
            End::B => objects.extend([1, 2].map(|generation| net.sa(End::B, Direction::Inbound, generation))),
        }
        let now_ns = net.now_ns;
        net.headend(end).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
    }
    net.settle();
    let (mut sent, mut arrived) = (0, Vec::new());
    let mut load = |net: &mut Topology, steps: u32| {
        for _ in 0..steps {
            for mark in [Dscp::EF, dscp(BULK), Dscp::DEFAULT] {
                net.site(End::A).send(&packet(mark, sent));
                sent += 1;
            }
            let now_ns = net.now_ns;
            net.headend(End::A).turn(now_ns);
            // The link carries what piled up now and then, so that packets are on their way at each change.
            if sent % 150 == 0 {
                net.step();
            }
            arrived.extend(net.site(End::B).take());
        }
    };
    load(&mut net, 1);
    net.settle();
    let mut old = 1;
    for new in 3..=6 {
        load(&mut net, 130);
        let (new_in, new_out) = (net.sa(End::B, Direction::Inbound, new), outbound(&shape, new, VOICE_GROUP));
        net.commit(End::B, &[new_in]).expect("a second inbound SA");
        load(&mut net, 70);
        let (old_out, now_ns) = (outbound(&shape, old, VOICE_GROUP).id(), net.now_ns);
        net.headend(End::A).change(Base::Running, &[old_out], &[new_out], now_ns).expect("the switch");
        load(&mut net, 90);
        net.settle();
        let (old_in, now_ns) = (net.sa(End::B, Direction::Inbound, old).id(), net.now_ns);
        net.headend(End::B).change(Base::Running, &[old_in], &[], now_ns).expect("the old one goes");
        load(&mut net, 30);
        old = new;
    }
    net.settle();
    load(&mut net, 1);
    net.settle();
    arrived.extend(net.site(End::B).take());
    let sent = net.esp_seen().len();
    assert_eq!(arrived.len(), sent);
    for end in [End::A, End::B] {
        assert_eq!((net.headend(end).drops(), net.headend(end).unaccounted()), (vec![], 0));
    }
    let mut numbers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    net.esp_seen().iter().for_each(|clear| numbers.entry(clear.spi).or_default().push(clear.sequence));
    let third = sent as u32 / 3;
    for generation in [0, 2] {
        assert_eq!(numbers[&(0x1000 + generation)], (1..=third).collect::<Vec<_>>(), "without a gap");
    }
    let voice: Vec<u32> =
        [1, 3, 4, 5, 6].map(|generation| numbers[&(0x1000 + generation)].len() as u32).to_vec();
    assert!(voice.iter().all(|count| *count > 50) && voice.iter().sum::<u32>() == third, "{voice:?}");
    assert_eq!((net.frames_in_clear(), net.buffers_out()), (0, 0));
    assert_eq!(esp::repeated_ivs(&net.esp_seen()), []);
}

/// EF is marked CS6 in its class, everything shaped to 20 Mbit/s.
fn marking(target: ServiceTarget) -> Vec<Object> {
    let (policy_map, class_map) = (PolicyMapIndex(0), ClassMapIndex(0));
    let criterion =
        Criterion { dscps: Some(DscpSet(1 << Dscp::EF.get())), ..Criterion::anything(class_map, 0) };
    let class = |place, class_map, service, set_dscp| {
        Object::PolicyClass(PolicyClass {
            limit: QueueLimit::Packets(500),
            set_dscp,
            ..PolicyClass::plain(policy_map, place, class_map, service)
        })
    };
    let shape = Some(TrafficProfile { rate_bps: 20_000_000, burst_bytes: None });
    vec![
        Object::ClassMap(ClassMap { class_map, match_any: false }),
        Object::Criterion(criterion),
        Object::PolicyMap(PolicyMap { policy_map, shape }),
        class(0, Some(class_map), Service::Priority { level: 0 }, Some(Dscp::CS6.get())),
        class(1, None, Service::Bandwidth(Share::Percent(100)), None),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(policy_map), pre_classify: true }),
    ]
}

#[test]
fn behind_a_scheduler_the_group_is_that_of_the_dscp_that_a_packet_got_there() {
    for (target, checksum) in [
        (ServiceTarget::Port(WAN), false),
        (ServiceTarget::Tunnel(TunnelIndex(0)), false),
        (ServiceTarget::Tunnel(TunnelIndex(0)), true),
    ] {
        let shape = Shape::default();
        let mut bench = Bench::with(&shape, |objects| {
            let mut groups = groups();
            groups.0[2] = DscpSet(1 << Dscp::CS6.get());
            protection(objects).class_groups = groups;
            greyhound_simulation::wanted::tunnel(objects).gre.checksum = checksum;
            // EF has an SA as well, which nothing may leave under; CS6's has another ICV than the others.
            objects.extend([1, 2, 3].map(|group| outbound(&shape, u32::from(group), group)));
            if let Some(Object::Sa(sa)) = objects.last_mut() {
                sa.key.icv_bytes = 8;
            }
        });
        bench.commit(&marking(target));
        for number in 0..200 {
            let mark = [Dscp::EF, dscp(BULK), Dscp::DEFAULT][number as usize % 3];
            bench.lan.send(&packet(mark, number));
            if number % 50 == 49 {
                bench.step();
            }
        }
        bench.pass(1_000_000_000);
        let frames = bench.wan.take_frames();
        assert_eq!((frames.len(), bench.headend.drops()), (200, vec![]));
        let mut left: BTreeMap<(u32, u8), u64> = BTreeMap::new();
        let mut wire_bytes = 0;
        for frame in &frames {
            let (outer, ip) = ip_in(frame).expect("an IP packet");
            let clear = esp::read(frame).expect("an ESP packet");
            *left.entry((clear.spi - 0x1000, outer.tos >> 2)).or_default() += 1;
            wire_bytes += ip.len() as u64 + AROUND;
        }
        let expected = [((0, 0), 66), ((2, BULK), 67), ((3, Dscp::CS6.get()), 67)];
        assert_eq!(left, expected.into(), "{target:?}");
        let sent: u64 = bench.headend.installer().queue_states().map(|state| state.sent_bytes).sum();
        assert_eq!(sent, wire_bytes, "bytes are those on the wire, whatever the ICV: {target:?}");
        assert_eq!(bench.headend.unaccounted(), 0);
    }
}

#[test]
fn without_gre_the_group_is_that_of_the_packet_in_tunnel_mode() {
    for fixed in [false, true] {
        let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
        let beyond = prefix("10.9.0.0/24");
        let mut bench = Bench::with(&shape, |objects| {
            with_groups(&shape, objects);
            if fixed {
                protection(objects).tos = messages::TosPolicy::Dscp(BULK);
            }
            objects.push(route_by(beyond, WAN, End::B.wan()));
            objects.push(policy(1, Selector { remote: Some(beyond), ..ANY }, PROTECT));
        });
        for (number, mark) in [Dscp::EF, dscp(BULK), Dscp::DEFAULT].into_iter().enumerate() {
            let to = Udp::new(End::A.host(), ip("10.9.0.1"), &[number as u8; 40]);
            bench.lan.send(&to.tos(mark, Ecn::NotEct).to_bytes());
            bench.settle();
        }
        let spis: Vec<u32> = esp::read_all(&bench.wan.take_frames()).iter().map(|clear| clear.spi).collect();
        let expected = if fixed { [0x1002; 3] } else { [0x1001, 0x1002, 0x1000] };
        assert_eq!(spis, expected, "what counts is the outermost header");
        assert_eq!(bench.headend.drops(), []);
    }
}

#[test]
fn in_transport_mode_without_gre_the_group_is_that_of_our_own_packet() {
    for delivery_v6 in [false, true] {
        let shape = Shape { delivery_v6, ..Shape::default() };
        let kind = if delivery_v6 { IpProtocol::ICMPV6 } else { IpProtocol::ICMP };
        let mut bench = Bench::with(&shape, |objects| {
            objects.retain(|object| {
                let id = object.id();
                !matches!(id, ObjectId::Tunnel(_) | ObjectId::Route(_))
            });
            with_groups(&shape, objects);
            // Answers leave with DSCP 0: here they have a group of their own.
            protection(objects).class_groups.0[1] = DscpSet(1);
            objects.push(policy(1, Selector { protocol: Some(kind.0), ..ANY }, PROTECT));
        });
        let (ours, theirs) = shape.endpoints(End::A);
        let addresses = Udp::new(theirs, ours, &[]);
        let request = echo_request(&addresses, kind);
        let header = usize::from(flow::parse(&request).expect("an IP packet").header_bytes);
        let sealer = Sealer::new(&sa(shape.sa(End::A, Direction::Inbound, 0)));
        let sealed = ip_with(&addresses, IpProtocol::ESP, &sealer.seal(1, kind.0, &request[header..]));
        let macs = [End::A.mac(WAN), End::B.mac(WAN)].map(MacAddr);
        bench.wan.send_frame(0, &frame(macs[0], macs[1], &sealed));
        bench.settle();
        assert_eq!(bench.headend.drops(), []);
        let spis: Vec<u32> = esp::read_all(&bench.wan.take_frames()).iter().map(|clear| clear.spi).collect();
        assert_eq!(spis, [0x1000 + u32::from(BULK_GROUP)]);
        let sas = bench.headend.sas(0);
        assert!(sas.iter().any(|state| state.sa == SaIndex(5) && state.packets == 1), "{sas:?}");
    }
}

fn echo_request(addresses: &Udp, kind: IpProtocol) -> Vec<u8> {
    let mut message = vec![if kind == IpProtocol::ICMP { 8 } else { 128 }, 0, 0, 0, 0x12, 0x34, 0, 5];
    message.extend(b"are you there?");
    let sum = match kind {
        IpProtocol::ICMP => checksum::checksum(&message),
        _ => {
            let length = message.len() as u32;
            let pseudo = checksum::Sum::pseudo_header(addresses.source, addresses.destination, kind, length);
            pseudo.add_bytes(&message).finish()
        }
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_with(addresses, kind, &message)
}
