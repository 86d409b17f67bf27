// SPDX-License-Identifier: Apache-2.0
//! Tagged ports through a whole headend: which frames come in, with which tags others leave, and what 802.1p priorities do.
//!
//! One headend between two wires whose every frame is the test's; tags are put on and taken off by hand.

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{Udp, frame, ip_in, ip_with, open_frame};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use messages::{
    Base, ClassMap, ClassMapIndex, Criterion, DropReason, Object, Police, PolicyClass, PolicyMap,
    PolicyMapIndex, QueueLimit, Service, ServicePolicy, ServiceTarget, Share, TrafficProfile, TunnelIndex,
    WorkerCounter,
};
use wire::{Dscp, EtherType, IpProtocol, MacAddr, VlanId, arp, ethernet};

const LAN_VLAN: u16 = 100;
const WAN_VLAN: u16 = 4_094;
const HIGH: ClassMapIndex = ClassMapIndex(0);
const MAP: PolicyMapIndex = PolicyMapIndex(0);
/// Payload bytes; of a datagram that has to be cut for the unprotected side.
const SMALL: usize = 64;
const LARGE: usize = 4_000;
/// What a frame is on the wire beside what a wire in memory carries: FCS, preamble and gap.
const AROUND: usize = 24;
const TUNNEL: ServiceTarget = ServiceTarget::Tunnel(TunnelIndex(0));
const PORT: ServiceTarget = ServiceTarget::Port(WAN);
/// Not a packet a second.
const SLOW: TrafficProfile = TrafficProfile { rate_bps: 1_000, burst_bytes: Some(2_000) };

fn shape(lan: Option<u16>, wan: Option<u16>) -> Shape {
    Shape { vlans: [lan, wan].map(|vlan| vlan.and_then(VlanId::new)), ..Shape::default() }
}

fn tagged(frame: &[u8], priority: u16, vlan: u16) -> Vec<u8> {
    let [high, low] = (priority << 13 | vlan).to_be_bytes();
    [&frame[..12], &[0x81, 0x00, high, low], &frame[12..]].concat()
}

/// Priority and VLAN of a frame, and the frame without its tag.
fn untagged(frame: &[u8]) -> (u16, u16, Vec<u8>) {
    assert_eq!(frame[12..14], [0x81, 0x00], "a tag");
    let tci = u16::from_be_bytes([frame[14], frame[15]]);
    assert_eq!(tci & 0x1000, 0, "not drop eligible");
    (tci >> 13, tci & 0xfff, [&frame[..12], &frame[16..]].concat())
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|place| place as u8).collect()
}

/// A frame to the headend's protected port: the first goes the common way, the second has a protocol that nobody
/// knows behind IPv6, the third is cut.
fn lan_frames() -> [Vec<u8>; 3] {
    let (v4, v6) = ((End::A.host(), End::B.host()), (End::A.host_v6(), End::B.host_v6()));
    let to_gateway = |ip: &[u8]| frame(MacAddr(End::A.mac(LAN)), MacAddr(End::A.host_mac()), ip);
    [
        to_gateway(&Udp::new(v4.0, v4.1, &payload(SMALL)).to_bytes()),
        to_gateway(&ip_with(&Udp::new(v6.0, v6.1, b""), IpProtocol(253), &payload(SMALL))),
        to_gateway(&Udp::new(v4.0, v4.1, &payload(LARGE)).to_bytes()),
    ]
}

fn class(place: u8, class_map: Option<ClassMapIndex>, service: Service) -> PolicyClass {
    PolicyClass::plain(MAP, place, class_map, service)
}

/// What came with priority 5 or 6 gets EF and leaves with 3; the rest as it is.
fn marking(target: ServiceTarget, service: Service) -> Vec<Object> {
    let criterion = Criterion { vlan_priorities: Some(0b0110_0000), ..Criterion::anything(HIGH, 0) };
    let marked = PolicyClass {
        set_dscp: Some(Dscp::EF.get()),
        set_vlan_priority: Some(3),
        ..class(0, Some(HIGH), service)
    };
    vec![
        Object::ClassMap(ClassMap { class_map: HIGH, match_any: false }),
        Object::Criterion(criterion),
        Object::PolicyMap(PolicyMap { policy_map: MAP, shape: None }),
        Object::PolicyClass(marked),
        Object::PolicyClass(class(1, None, service)),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(MAP), pre_classify: true }),
    ]
}

/// Priority and ToS of what left by the unprotected port, all of it in its VLAN.
fn left(bench: &mut Bench) -> Vec<(u16, u8)> {
    let frames = bench.wan.take_frames();
    frames.iter().map(|frame| priority_and_tos(frame)).collect()
}

fn priority_and_tos(frame: &[u8]) -> (u16, u8) {
    let (priority, vlan, frame) = untagged(frame);
    assert_eq!(vlan, WAN_VLAN);
    (priority, ip_in(&frame).expect("an IP packet").0.tos)
}

#[test]
fn what_comes_in_one_vlan_leaves_in_another_sealed_and_opened() {
    let mut bench = Bench::new(&shape(Some(LAN_VLAN), Some(WAN_VLAN)));
    let (opener, sealer) = (bench.peer_opener(0), bench.peer_sealer(0));
    let [plain, ..] = lan_frames();
    bench.lan.send_frame(0, &tagged(&plain, 5, LAN_VLAN));
    bench.settle();
    let frames = bench.wan.take_frames();
    let [sealed] = &frames[..] else { panic!("{} frames", frames.len()) };
    let (priority, vlan, sealed) = untagged(sealed);
    assert_eq!((priority, vlan), (0, WAN_VLAN), "what it came with is the other link's");
    let (_, esp) = ip_in(&sealed).expect("an IP packet");
    let opened = opener.open(&esp[20..], 0).expect("a valid ICV");
    // GRE, then the packet with one hop less.
    assert_eq!(opened.payload[4 + 28..], payload(SMALL));

    let inside = Udp::new(End::B.host(), End::A.host(), &payload(SMALL)).to_bytes();
    let gre = [&[0, 0, 0x08, 0x00][..], &inside].concat();
    let outer = Udp::new(End::B.wan(), End::A.wan(), b"");
    let esp = ip_with(&outer, IpProtocol::ESP, &sealer.seal(1, IpProtocol::GRE.0, &gre));
    let back = frame(MacAddr(End::A.mac(WAN)), MacAddr(End::B.mac(WAN)), &esp);
    bench.wan.send_frame(0, &tagged(&back, 7, WAN_VLAN));
    bench.settle();
    let frames = bench.lan.take_frames();
    let [clear] = &frames[..] else { panic!("{} frames", frames.len()) };
    let (priority, vlan, clear) = untagged(clear);
    assert_eq!((priority, vlan), (0, LAN_VLAN));
    assert_eq!(ip_in(&clear).expect("an IP packet").1[20..], inside[20..]);
    assert_eq!(bench.headend.drops(), []);
    assert!(bench.buffers_are_home());
}

#[test]
fn frames_of_other_vlans_and_none_are_counted_and_go_no_further() {
    let mut bench = Bench::new(&shape(Some(LAN_VLAN), None));
    for frame in lan_frames() {
        for other in [tagged(&frame, 5, LAN_VLAN + 1), tagged(&frame, 5, 0), tagged(&frame, 0, 4_095), frame]
        {
            let seen = bench.observe(|bench| bench.lan.send_frame(0, &other));
            assert_eq!(seen.drops, [(DropReason::VlanUnknown, 1)]);
            assert_eq!((seen.lan.len(), seen.wan.len()), (0, 0));
            assert_eq!(seen.counter(WorkerCounter::Received), 1);
        }
    }
    let untagged_wan = frame(MacAddr(End::A.mac(WAN)), MacAddr(End::B.mac(WAN)), &[0x45; 60]);
    let seen = bench.observe(|bench| bench.wan.send_frame(0, &tagged(&untagged_wan, 0, LAN_VLAN)));
    assert_eq!(seen.drops, [(DropReason::VlanUnknown, 1)], "a port has its own VLAN, or none");
    assert_eq!(bench.headend.unaccounted(), 0);
}

#[test]
fn arp_is_asked_and_answered_with_the_ports_tag() {
    let mut bench = Bench::new(&shape(Some(LAN_VLAN), None));
    let (core::net::IpAddr::V4(host), core::net::IpAddr::V4(gateway)) = (End::A.host(), End::A.gateway())
    else {
        unreachable!("IPv4")
    };
    let question = arp::Repr::request(MacAddr(End::A.host_mac()), host, gateway);
    let mut bytes = vec![0; ethernet::MIN_FRAME_BYTES];
    let (link, body) = bytes.split_at_mut(ethernet::HEADER_BYTES);
    question.ethernet().emit(link).expect("an Ethernet header");
    question.emit(body).expect("an ARP packet");
    bench.lan.send_frame(0, &tagged(&bytes, 6, LAN_VLAN));
    bench.settle();
    let frames = bench.lan.take_frames();
    let [answer] = &frames[..] else { panic!("{} frames", frames.len()) };
    let (priority, vlan, answer) = untagged(answer);
    let (ether_type, body) = open_frame(&answer);
    assert_eq!((priority, vlan, ether_type), (0, LAN_VLAN, EtherType::ARP));
    let answer = arp::Repr::parse(body).expect("an answer");
    assert_eq!((answer.operation, answer.sender_protocol), (arp::Operation::REPLY, gateway));
}

#[test]
fn a_port_of_no_vlan_takes_and_sends_priority_tags() {
    let mut bench = Bench::new(&shape(Some(0), Some(WAN_VLAN)));
    bench.commit(&marking(PORT, Service::Unqueued));
    let [plain, ..] = lan_frames();
    for frame in [&plain, &tagged(&plain, 5, 0), &tagged(&plain, 4, 0)] {
        bench.lan.send_frame(0, frame);
    }
    bench.settle();
    let ef = Dscp::EF.get() << 2;
    assert_eq!(left(&mut bench), [(0, 0), (3, ef), (0, 0)]);
    let seen = bench.observe(|bench| bench.lan.send_frame(0, &tagged(&plain, 5, 1)));
    assert_eq!(seen.drops, [(DropReason::VlanUnknown, 1)]);
}

#[test]
fn priorities_are_classified_and_marked_on_every_way_out() {
    let ef = Dscp::EF.get() << 2;
    for target in [TUNNEL, PORT] {
        for service in [Service::Unqueued, Service::Bandwidth(Share::Percent(50))] {
            // Tagged, priority-tagged, and a port without tags, where such a frame may come too.
            for lan in [Some(LAN_VLAN), Some(0), None] {
                let mut bench = Bench::new(&shape(lan, Some(WAN_VLAN)));
                bench.commit(&marking(target, service));
                for (frame, pieces) in lan_frames().iter().zip([1, 1, 3]) {
                    for (priority, expected) in [(5, (3, ef)), (6, (3, ef)), (7, (0, 0)), (0, (0, 0))] {
                        bench.lan.send_frame(0, &tagged(frame, priority, lan.unwrap_or(0)));
                        bench.settle();
                        let left = left(&mut bench);
                        assert_eq!(left, vec![expected; pieces], "{target:?} {service:?} {lan:?} {priority}");
                    }
                }
                assert_eq!(bench.headend.drops(), []);
                assert_eq!(bench.headend.unaccounted(), 0);
                assert!(bench.buffers_are_home());
            }
        }
    }
}

#[test]
fn without_a_tag_nothing_matches_a_priority_and_no_priority_is_left_from_before() {
    let mut bench = Bench::with_packets(&shape(None, Some(WAN_VLAN)), 64, |_| {});
    bench.commit(&marking(PORT, Service::Unqueued));
    let [plain, _, cut] = lan_frames();
    for _ in 0..40 {
        bench.lan.send_frame(0, &tagged(&plain, 5, 0));
        bench.lan.send_frame(0, &tagged(&cut, 5, 0));
        bench.lan.send_frame(0, &plain);
        bench.lan.send_frame(0, &cut);
        bench.settle();
        let mut priorities: Vec<u16> = left(&mut bench).iter().map(|(priority, _)| *priority).collect();
        priorities.sort_unstable();
        assert_eq!(priorities, [0, 0, 0, 0, 3, 3, 3, 3]);
    }
    assert_eq!(bench.headend.drops(), []);
}

#[test]
fn a_second_policy_sees_the_priority_that_the_first_has_set() {
    // At the tunnel what came with 5 or 6 gets 3; at the port what has 3 by then gets 7.
    let mut objects = marking(TUNNEL, Service::Unqueued);
    let (map, three) = (PolicyMapIndex(1), ClassMapIndex(1));
    let service = Service::Bandwidth(Share::Percent(50));
    let of_map = |class: PolicyClass| Object::PolicyClass(PolicyClass { policy_map: map, ..class });
    objects.extend([
        Object::ClassMap(ClassMap { class_map: three, match_any: false }),
        Object::Criterion(Criterion { vlan_priorities: Some(1 << 3), ..Criterion::anything(three, 0) }),
        Object::PolicyMap(PolicyMap { policy_map: map, shape: None }),
        of_map(PolicyClass { set_vlan_priority: Some(7), ..class(0, Some(three), service) }),
        of_map(class(1, None, service)),
        Object::ServicePolicy(ServicePolicy { target: PORT, policy_map: Some(map), pre_classify: true }),
    ]);
    let mut bench = Bench::new(&shape(Some(LAN_VLAN), Some(WAN_VLAN)));
    bench.commit(&objects);
    for frame in lan_frames() {
        for (priority, expected) in [(5, 7), (3, 7), (2, 0)] {
            bench.lan.send_frame(0, &tagged(&frame, priority, LAN_VLAN));
            bench.settle();
            assert!(left(&mut bench).iter().all(|(priority, _)| *priority == expected), "{priority}");
        }
    }
}

#[test]
fn tags_are_no_part_of_the_mtu() {
    let mut bench = Bench::new(&shape(Some(LAN_VLAN), Some(WAN_VLAN)));
    let (host, far) = (End::A.host(), End::B.host());
    // What fills the WAN's 1,500 bytes: IPv4, ESP with IV, GRE, the packet, padding, trailer, ICV.
    let inner = 1_500 - 20 - 16 - 4 - 2 - 16;
    let packet = Udp::new(host, far, &payload(inner / 4 * 4 + 2 - 28)).dont_fragment().to_bytes();
    let frame = frame(MacAddr(End::A.mac(LAN)), MacAddr(End::A.host_mac()), &packet);
    let seen = bench.observe(|bench| bench.lan.send_frame(0, &tagged(&frame, 0, LAN_VLAN)));
    assert_eq!((seen.drops.len(), seen.wan.len(), seen.lan.len()), (0, 1, 0));
    let longest = seen.wan[0].len();
    assert!((1_500 + 18 - 4..=1_500 + 18).contains(&longest), "{longest}");
}

/// One class for all.
fn one_class(target: ServiceTarget, class: PolicyClass, shape: Option<TrafficProfile>) -> [Object; 3] {
    [
        Object::PolicyMap(PolicyMap { policy_map: MAP, shape }),
        Object::PolicyClass(class),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(MAP), pre_classify: true }),
    ]
}

/// The bytes that each frame that left was on the wire.
fn wire_bytes_left(bench: &mut Bench) -> Vec<u32> {
    bench.wan.take_frames().iter().map(|frame| (frame.len() + AROUND) as u32).collect()
}

/// What a frame that came in by the protected port is on the wire when it leaves.
fn wire_bytes_of(frame: &[u8], shape: &Shape) -> u32 {
    let mut bench = Bench::new(shape);
    bench.lan.send_frame(0, frame);
    bench.settle();
    let [wire_bytes] = wire_bytes_left(&mut bench)[..] else { panic!("one frame") };
    wire_bytes
}

/// How many of 20 frames that come in by a queue leave a headend that has these objects, and why the others do not.
fn left_of_20(
    frame: &[u8],
    (shape, queue): &(Shape, u16),
    objects: &[Object],
) -> (u32, Vec<(DropReason, u64)>) {
    let mut bench = Bench::new(shape);
    bench.commit(objects);
    (0..20).for_each(|_| bench.lan.send_frame(*queue, frame));
    bench.settle();
    assert_eq!(bench.headend.unaccounted(), 0);
    (bench.wan.take_frames().len() as u32, bench.headend.drops())
}

/// How many of 40 frames wait where a few have used up the burst.
fn waiting_of_40(frame: &[u8], (shape, queue): &(Shape, u16), objects: &[Object]) -> u64 {
    let mut bench = Bench::new(shape);
    bench.commit(objects);
    (0..40).for_each(|_| bench.lan.send_frame(*queue, frame));
    (0..5).for_each(|_| {
        bench.step();
    });
    assert!(bench.headend.dropped(DropReason::QosQueueLimit) > 0);
    assert_eq!(bench.headend.unaccounted(), 0);
    bench.headend.counter(WorkerCounter::Held)
}

/// Policers with and without queues and a queue limit let so many packets pass where they have so many bytes.
fn assert_that_bytes_are(bytes: u32, packets: u32, frame: &[u8], headend: &(Shape, u16)) {
    let expected = |reason| (packets, vec![(reason, u64::from(20 - packets))]);
    let share = class(0, None, Service::Bandwidth(Share::Percent(100)));
    let profile = TrafficProfile { rate_bps: 1_000_000, burst_bytes: Some(bytes) };
    let police = Some(Police::dropping(profile));
    for target in [TUNNEL, PORT] {
        for class in [class(0, None, Service::Unqueued), share.clone()] {
            let policed = PolicyClass { police, ..class };
            let left = left_of_20(frame, headend, &one_class(target, policed, None));
            assert_eq!(left, expected(DropReason::QosPoliced), "{target:?} {headend:?}");
        }
        let limited = PolicyClass { limit: QueueLimit::Bytes(bytes), ..share.clone() };
        let waiting = waiting_of_40(frame, headend, &one_class(target, limited, Some(SLOW)));
        assert_eq!(waiting, u64::from(packets), "{target:?} {headend:?}");
    }
}

#[test]
fn policers_and_queue_limits_count_the_tag_of_the_port_that_packets_leave_by_and_of_no_other() {
    for (lan, wan) in [(None, Some(WAN_VLAN)), (Some(LAN_VLAN), None)] {
        let alone = shape(lan, wan);
        // The second worker hands over what goes into a tunnel that the first owns.
        let both = Shape { workers: 2, ..alone.clone() };
        let [plain, unknown, _] = lan_frames();
        for frame in [plain, unknown] {
            let frame = lan.map_or(frame.clone(), |vlan| tagged(&frame, 0, vlan));
            let bytes = 10 * wire_bytes_of(&frame, &alone);
            for headend in [(alone.clone(), 0), (both.clone(), 1)] {
                assert_that_bytes_are(bytes, 10, &frame, &headend);
                assert_that_bytes_are(bytes - 1, 9, &frame, &headend);
            }
        }
    }
}

#[test]
fn shapers_let_through_their_rate_of_tagged_frames() {
    let profile = TrafficProfile { rate_bps: 1_000_000, burst_bytes: Some(2_000) };
    let share = class(0, None, Service::Bandwidth(Share::Percent(100)));
    let [plain, ..] = lan_frames();
    for wan in [Some(WAN_VLAN), None] {
        for target in [TUNNEL, PORT] {
            let mut bench = Bench::new(&shape(None, wan));
            bench.commit(&one_class(target, share.clone(), Some(profile)));
            let (start_ns, mut left) = (bench.now_ns, Vec::new());
            while bench.now_ns < start_ns + 1_000_000_000 {
                // Never less than two packets wait.
                if bench.headend.counter(WorkerCounter::Held) < 2 {
                    (0..2).for_each(|_| bench.lan.send_frame(0, &plain));
                }
                bench.step();
                left.extend(wire_bytes_left(&mut bench));
            }
            let (bytes, longest) = (left.iter().sum::<u32>(), left[0]);
            let carried = 2_000 + (u128::from(bench.now_ns - start_ns) * 1_000_000 / 8_000_000_000) as u32;
            assert!(
                (carried - 2 * longest..=carried).contains(&bytes),
                "{wan:?} {target:?}: {bytes} of {carried}"
            );
        }
    }
}

#[test]
fn the_longest_packet_that_has_to_fit_a_burst_has_the_tag() {
    for (wan, longest) in [(Some(WAN_VLAN), 1_542), (None, 1_538)] {
        for (burst_bytes, fits) in [(longest, true), (longest - 1, false)] {
            let mut bench = Bench::new(&shape(None, wan));
            let profile = TrafficProfile { rate_bps: 1_000_000, burst_bytes: Some(burst_bytes) };
            let share = class(0, None, Service::Bandwidth(Share::Percent(100)));
            let objects = one_class(PORT, share, Some(profile));
            let now_ns = bench.now_ns;
            assert_eq!(
                bench.headend.put(Base::Running, &objects, now_ns).is_ok(),
                fits,
                "{wan:?} {burst_bytes}"
            );
        }
    }
}
