// SPDX-License-Identifier: Apache-2.0
//! Meters and marks through a whole headend: what leaves the port, with which code points, and what is counted.
//!
//! Frames that come out are opened with the peer's key; counters are compared with them.

use std::collections::BTreeMap;

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{Udp, ip_in};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, Shape, Topology, WAN};
use greyhound_simulation::wanted::tunnel;
use messages::{
    Base, ClassMap, ClassMapIndex, ColourAware, Criterion, DropReason, DscpMap, DscpMapIndex, DscpSet,
    EspMode, Object, Police, PoliceAction, PolicyClass, PolicyMap, PolicyMapIndex, QueueState, ReceivedDscp,
    SecondBucket, Service, ServicePolicy, ServiceTarget, Share, TrafficProfile, TunnelIndex, TunnelMarks,
};
use wire::{Dscp, Ecn};

const TUNNEL: ServiceTarget = ServiceTarget::Tunnel(TunnelIndex(0));
const PORT: ServiceTarget = ServiceTarget::Port(WAN);
const BULK: ClassMapIndex = ClassMapIndex(0);
const AF11: u8 = 10;
const AF12: u8 = 12;
const AF13: u8 = 14;
/// Payload bytes of a packet, and what it is on the wire: IPv4 and UDP, GRE, ESP with padding and ICV, delivery header,
/// Ethernet with FCS, preamble and gap.
const PAYLOAD: usize = 900;
const WIRE_BYTES: u32 = (PAYLOAD + 28 + 4 + 8 + 8 + 2 + 2 + 16 + 20 + 38) as u32;

fn profile(rate_bps: u64, packets: u32) -> TrafficProfile {
    TrafficProfile { rate_bps, burst_bytes: Some(packets * WIRE_BYTES) }
}

fn marking(second: SecondBucket) -> Police {
    Police {
        second,
        conform: PoliceAction::SetDscp(AF11),
        exceed: PoliceAction::SetDscp(AF12),
        ..Police::dropping(profile(1_000_000, 2))
    }
}

fn class(policy_map: PolicyMapIndex, place: u8, class_map: Option<ClassMapIndex>) -> PolicyClass {
    PolicyClass::plain(policy_map, place, class_map, Service::Unqueued)
}

/// A policy of one class for what has a code point from 8 to 15, with a policer, and the rest.
fn policy(map: u32, target: ServiceTarget, service: Service, police: Police) -> Vec<Object> {
    let policy_map = PolicyMapIndex(map);
    let criterion = Criterion { dscps: Some(DscpSet(0xff00)), ..Criterion::anything(BULK, 0) };
    let served = |class: PolicyClass| Object::PolicyClass(PolicyClass { service, ..class });
    vec![
        Object::ClassMap(ClassMap { class_map: BULK, match_any: false }),
        Object::Criterion(criterion),
        Object::PolicyMap(PolicyMap { policy_map, shape: None }),
        served(PolicyClass { police: Some(police), ..class(policy_map, 0, Some(BULK)) }),
        served(class(policy_map, 1, None)),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(policy_map), pre_classify: true }),
    ]
}

fn packet(dscp: u8, ecn: Ecn) -> Vec<u8> {
    let data = [0x5a; PAYLOAD];
    let dscp = Dscp::new(dscp).expect("a DSCP");
    Udp::new(End::A.host(), End::B.host(), &data).tos(dscp, ecn).to_bytes()
}

/// How many frames left with each code point; the outer header has that of the packet inside, and ECN is as it came.
fn left(bench: &mut Bench, opener: &Sealer, ecn: Ecn) -> BTreeMap<u8, u64> {
    let mut left = BTreeMap::new();
    for frame in bench.wan.take_frames() {
        let (outer, ip) = ip_in(&frame).expect("an IP packet");
        assert_eq!(ip.len() as u32 + 38, WIRE_BYTES);
        let plain = opener.open(&ip[20..], 0).expect("a valid ICV");
        let inside = plain.payload[5];
        assert_eq!(inside, outer.tos, "ToS is copied");
        assert_eq!(Ecn::of_tos(inside), ecn);
        assert!(wire::ipv4::Packet::parse(&plain.payload[4..]).expect("IPv4").checksum_is_valid());
        *left.entry(Dscp::of_tos(inside).get()).or_default() += 1;
    }
    bench.wan.take();
    left
}

fn states(bench: &mut Bench) -> Vec<QueueState> {
    bench.headend.installer().queue_states().collect()
}

fn colours(state: &QueueState) -> [u64; 3] {
    state.colours.expect("a policer").map(|colour| colour.packets)
}

/// Every way of serving a class, at a port and at a tunnel.
fn ways() -> impl Iterator<Item = (ServiceTarget, Service)> {
    let services = [Service::Unqueued, Service::Bandwidth(Share::Percent(50))];
    [TUNNEL, PORT].into_iter().flat_map(move |target| services.map(|service| (target, service)))
}

#[test]
fn each_colour_has_its_action_whichever_rfc_and_way() {
    for (target, service) in ways() {
        for (second, green, yellow) in [
            (SecondBucket::None, 2, 0),
            (SecondBucket::ExcessBurst(3 * WIRE_BYTES), 2, 3),
            (SecondBucket::Peak(profile(2_000_000, 6)), 2, 4),
            (SecondBucket::ExcessRate(profile(2_000_000, 5)), 2, 5),
        ] {
            let mut bench = Bench::new(&Shape::default());
            bench.commit(&policy(0, target, service, marking(second)));
            let opener = bench.peer_opener(0);
            for _ in 0..20 {
                bench.lan.send(&packet(9, Ecn::Ect0));
            }
            bench.settle();
            let mut expected = BTreeMap::from([(AF11, green)]);
            expected.extend((yellow > 0).then_some((AF12, yellow)));
            assert_eq!(left(&mut bench, &opener, Ecn::Ect0), expected, "{target:?} {service:?} {second:?}");
            let red = 20 - green - yellow;
            assert_eq!(bench.headend.drops(), [(DropReason::QosPoliced, red)]);
            let states = states(&mut bench);
            assert_eq!(colours(&states[0]), [green, yellow, red]);
            let bytes = u64::from(WIRE_BYTES);
            assert_eq!((states[0].offered_packets, states[0].offered_bytes), (20, 20 * bytes));
            assert_eq!((states[0].sent_packets, states[0].sent_bytes), (20 - red, (20 - red) * bytes));
            assert_eq!(states[0].dropped.policed, red);
            assert_eq!((states[1].offered_packets, states[1].colours), (0, None));
            assert_eq!(bench.headend.unaccounted(), 0);
            assert!(bench.buffers_are_home());
        }
    }
}

#[test]
fn a_colour_aware_policer_never_makes_a_packet_better_than_it_came() {
    let aware = Some(ColourAware { yellow: DscpSet(1 << AF12), red: DscpSet(1 << AF13) });
    let police = Police {
        aware,
        conform: PoliceAction::Transmit,
        violate: PoliceAction::SetDscp(1),
        ..marking(SecondBucket::ExcessBurst(3 * WIRE_BYTES))
    };
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&policy(0, TUNNEL, Service::Unqueued, police));
    let opener = bench.peer_opener(0);
    for dscp in [AF13, AF12, AF11, AF13, AF12, AF11, AF12, AF11] {
        bench.lan.send(&packet(dscp, Ecn::NotEct));
    }
    bench.settle();
    // Two of AF11 are green and the third finds no room beside three of AF12, which were yellow.
    let expected = BTreeMap::from([(AF11, 2), (AF12, 3), (1, 3)]);
    assert_eq!(left(&mut bench, &opener, Ecn::NotEct), expected);
    assert_eq!(colours(&states(&mut bench)[0]), [2, 3, 3]);
    assert_eq!(bench.headend.drops(), []);
}

#[test]
fn a_policy_without_queues_stands_before_the_queues_of_its_port() {
    let mut objects = policy(0, TUNNEL, Service::Unqueued, marking(SecondBucket::None));
    let violated = Police { violate: PoliceAction::Transmit, ..marking(SecondBucket::None) };
    let uplink = Police { committed: profile(1_000_000, 2), conform: PoliceAction::Transmit, ..violated };
    objects.extend(policy(1, PORT, Service::Bandwidth(Share::Percent(50)), uplink));
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&objects);
    let opener = bench.peer_opener(0);
    for _ in 0..5 {
        bench.lan.send(&packet(9, Ecn::NotEct));
    }
    bench.settle();
    assert_eq!(left(&mut bench, &opener, Ecn::NotEct), BTreeMap::from([(AF11, 2)]));
    let states = states(&mut bench);
    let of =
        |target| states.iter().find(|state| (state.target, state.class) == (target, 0)).expect("a class");
    assert_eq!(colours(of(TUNNEL)), [2, 0, 3]);
    assert_eq!(colours(of(PORT)), [2, 0, 0], "what the tunnel's policer has dropped never came here");
    assert_eq!(of(PORT).sent_packets, 2);
}

#[test]
fn what_comes_out_of_a_tunnel_has_its_own_dscp_or_what_the_delivery_headers_says() {
    let (out, back) = (DscpMapIndex(0), DscpMapIndex(1));
    for esp in [EspMode::Transport, EspMode::Tunnel] {
        for (receipt, expected) in [
            (ReceivedDscp::Keep, AF11),
            (ReceivedDscp::Copy, 8),
            (ReceivedDscp::Set(5), 5),
            (ReceivedDscp::Map(back), AF13),
        ] {
            let mut net = Topology::unconfigured(Shape { esp: Some(esp), ..Shape::default() });
            for end in [End::A, End::B] {
                let mut objects = net.shape.objects(end, 0);
                objects.push(Object::DscpMap(DscpMap { dscp_map: out, changes: vec![(AF11, 8)] }));
                objects.push(Object::DscpMap(DscpMap { dscp_map: back, changes: vec![(8, AF13)] }));
                tunnel(&mut objects).marks = TunnelMarks { outward: Some(out), receipt };
                let now_ns = net.now_ns;
                net.headend(end).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
            }
            net.settle();
            for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ce] {
                for v6 in [false, true] {
                    let host = |end: End| if v6 { end.host_v6() } else { end.host() };
                    let packet = |dscp| {
                        let dscp = Dscp::new(dscp).expect("a DSCP");
                        Udp::new(host(End::A), host(End::B), &[0x5a; 99]).tos(dscp, ecn)
                    };
                    net.site(End::A).send(&packet(AF11).to_bytes());
                    net.settle();
                    let arrived = net.site(End::B).take();
                    assert_eq!(
                        arrived,
                        [Udp { ttl: 62, ..packet(expected) }.to_bytes()],
                        "{esp:?} {receipt:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn workers_share_a_policer_and_tokens_come_with_time() {
    let mut bench = Bench::new(&Shape { workers: 2, ..Shape::default() });
    bench.commit(&policy(0, PORT, Service::Unqueued, marking(SecondBucket::None)));
    let opener = bench.peer_opener(0);
    let sent = |bench: &mut Bench| {
        for queue in [0, 1, 1, 0, 1, 0] {
            bench.lan.send_to_queue(queue, &packet(9, Ecn::NotEct));
        }
        bench.settle();
        left(bench, &opener, Ecn::NotEct).values().sum::<u64>()
    };
    assert_eq!(sent(&mut bench), 2, "one burst for both");
    assert_eq!(sent(&mut bench), 0);
    // 1 Mbit/s brings a packet in this time, and a step may bring less than another.
    bench.pass(u64::from(WIRE_BYTES) * 8_000);
    assert_eq!(sent(&mut bench), 1);
    assert_eq!(colours(&states(&mut bench)[0]), [3, 0, 15]);
}

#[test]
fn a_change_elsewhere_fills_no_bucket_and_counters_go_on() {
    let objects = policy(0, TUNNEL, Service::Unqueued, marking(SecondBucket::None));
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&objects);
    let opener = bench.peer_opener(0);
    let mut offered = 0;
    let mut sent = |bench: &mut Bench| {
        offered += 3;
        (0..3).for_each(|_| bench.lan.send(&packet(9, Ecn::NotEct)));
        bench.settle();
        assert_eq!(states(bench)[0].offered_packets, offered);
        left(bench, &opener, Ecn::NotEct).values().sum::<u64>()
    };
    assert_eq!(sent(&mut bench), 2);
    // Another class-map, so that all classifiers are compiled anew; then another burst; then queues.
    let other = ClassMapIndex(7);
    let criterion = Criterion { protocol: Some(6), ..Criterion::anything(other, 0) };
    let map = ClassMap { class_map: other, match_any: true };
    bench.commit(&[Object::ClassMap(map), Object::Criterion(criterion)]);
    assert_eq!(sent(&mut bench), 0);
    let larger = Police { committed: profile(1_000_000, 9), ..marking(SecondBucket::None) };
    bench.commit(&policy(0, TUNNEL, Service::Unqueued, larger));
    assert_eq!(sent(&mut bench), 0);
    bench.commit(&policy(0, TUNNEL, Service::Bandwidth(Share::Percent(50)), larger));
    assert_eq!(bench.headend.dropped(DropReason::QosPoliced), 7);
}
