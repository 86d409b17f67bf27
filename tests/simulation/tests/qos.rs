// SPDX-License-Identifier: Apache-2.0
//! Quality of service through a whole headend: what leaves the port, in which order, and when.
//!
//! One worker and a clock that the test moves. Figures are those of the frames that come out, opened with the peer's key;
//! the scheduler's own counters are compared with them.

use core::net::IpAddr;

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{Udp, ip_in};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use greyhound_simulation::wanted::{self, ANY, ip, prefix, route_by};
use messages::{
    ClassMap, ClassMapIndex, Criterion, Direction, DropReason, DscpSet, EarlyDrop, EspMode, Object, ObjectId,
    Police, Policy, PolicyAction, PolicyClass, PolicyIndex, PolicyMapIndex, PortSide, ProtectionIndex,
    QueueLimit, QueueState, Selector, Service, ServicePolicy, ServiceTarget, Share, TrafficProfile,
    TunnelIndex, WorkerCounter,
};
use wire::{Dscp, Ecn};

const MBIT: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const TUNNEL: TunnelIndex = TunnelIndex(0);
const MAP: PolicyMapIndex = PolicyMapIndex(0);
const EF: ClassMapIndex = ClassMapIndex(0);
/// Ethernet around an IP packet on the wire: header, FCS, preamble and gap.
const AROUND: u64 = 38;

fn code_point(class_map: ClassMapIndex, dscp: u8) -> [Object; 2] {
    let criterion = Criterion { dscps: Some(DscpSet(1 << dscp)), ..Criterion::anything(class_map, 0) };
    [Object::ClassMap(ClassMap { class_map, match_any: false }), Object::Criterion(criterion)]
}

fn class(place: u8, class_map: Option<ClassMapIndex>, service: Service) -> PolicyClass {
    PolicyClass::plain(MAP, place, class_map, service)
}

fn shaped(mbits: u64) -> Object {
    wanted::shaped(MAP, mbits)
}

fn at_work(target: ServiceTarget) -> Object {
    Object::ServicePolicy(ServicePolicy { target, policy_map: Some(MAP), pre_classify: true })
}

/// EF before everything else, at so many Mbit/s.
fn voice_and_rest(mbits: u64, target: ServiceTarget) -> Vec<Object> {
    let mut objects = code_point(EF, Dscp::EF.get()).to_vec();
    objects.push(shaped(mbits));
    objects.push(Object::PolicyClass(class(0, Some(EF), Service::Priority { level: 0 })));
    objects.push(Object::PolicyClass(class(1, None, Service::Bandwidth(Share::Percent(100)))));
    objects.push(at_work(target));
    objects
}

fn hosts() -> (IpAddr, IpAddr) {
    (End::A.host(), End::B.host())
}

fn packet(dscp: Dscp, number: u32, length: usize) -> Vec<u8> {
    let mut data = vec![0x5a; length];
    data[..4].copy_from_slice(&number.to_be_bytes());
    Udp::new(hosts().0, hosts().1, &data).tos(dscp, Ecn::NotEct).to_bytes()
}

/// What came out of the port: its moment, its bytes on the wire, the ESP sequence number, and what was inside.
struct Departed {
    at_ns: u64,
    wire_bytes: u64,
    sequence: u32,
    dscp: Dscp,
    number: u32,
}

fn departures(bench: &mut Bench, opener: &Sealer) -> Vec<Departed> {
    let at_ns = bench.now_ns;
    let frames = bench.wan.take_frames();
    bench.wan.take();
    frames.iter().map(|frame| departed(frame, opener, at_ns)).collect()
}

fn departed(frame: &[u8], opener: &Sealer, at_ns: u64) -> Departed {
    let (outer, ip) = ip_in(frame).expect("an IP packet");
    let plain = opener.open(&ip[20..], 0).expect("a valid ICV");
    // GRE without options, then IPv4 and UDP.
    let inner = &plain.payload[4..];
    let number = u32::from_be_bytes(inner[28..32].try_into().expect("four bytes"));
    let dscp = Dscp::of_tos(inner[1]);
    assert_eq!(Dscp::of_tos(outer.tos), dscp, "ToS is copied");
    Departed { at_ns, wire_bytes: ip.len() as u64 + AROUND, sequence: plain.sequence_low, dscp, number }
}

/// Offers voice every 4 ms and twice the rate in bulk for `ns`; tells when each voice packet came, and what left.
fn overload(bench: &mut Bench, opener: &Sealer, mbits: u64, ns: u64) -> (Vec<u64>, Vec<Departed>) {
    let (start_ns, mut arrived, mut left) = (bench.now_ns, Vec::new(), Vec::new());
    let bulk_gap_ns = 1_500 * 8 * 1_000 / (2 * mbits);
    let (mut next_voice_ns, mut next_bulk_ns) = (start_ns, start_ns);
    let mut number = 0;
    while bench.now_ns < start_ns + ns {
        if bench.now_ns >= next_voice_ns {
            bench.lan.send(&packet(Dscp::EF, arrived.len() as u32, 32));
            arrived.push(bench.now_ns);
            next_voice_ns += 4_000_000;
        }
        while bench.now_ns >= next_bulk_ns {
            bench.lan.send(&packet(Dscp::DEFAULT, number, 1_372));
            number += 1;
            next_bulk_ns += bulk_gap_ns;
        }
        bench.step();
        left.extend(departures(bench, opener));
    }
    (arrived, left)
}

fn drain(bench: &mut Bench, opener: &Sealer, left: &mut Vec<Departed>) {
    for _ in 0..200_000 {
        bench.step();
        left.extend(departures(bench, opener));
        if bench.headend.counter(WorkerCounter::Held) == 0 {
            return;
        }
    }
    panic!("it does not run empty");
}

fn state(bench: &mut Bench, class: u8) -> QueueState {
    let states: Vec<_> = bench.headend.installer().queue_states().collect();
    *states.iter().find(|state| state.class == class).expect("the class")
}

#[test]
fn voice_loses_nothing_and_waits_for_two_packets_at_most_while_bulk_is_twice_the_rate() {
    for target in [ServiceTarget::Port(WAN), ServiceTarget::Tunnel(TUNNEL)] {
        let mut bench = Bench::new(&Shape::default());
        bench.commit(&voice_and_rest(10, target));
        let opener = bench.peer_opener(0);
        // Until the burst is spent and the queue is full.
        overload(&mut bench, &opener, 10, SECOND_NS / 10);
        let (arrived, left) = overload(&mut bench, &opener, 10, SECOND_NS);
        let mut last = Vec::new();
        drain(&mut bench, &opener, &mut last);
        let voice: Vec<&Departed> = left.iter().filter(|out| out.dscp == Dscp::EF).collect();
        assert_eq!(voice.len(), arrived.len(), "{target:?}: no voice is lost");
        // One bulk packet on the way and one whose tokens are missing: 2 × 1,492 bytes at 10 Mbit/s, and a step.
        let waited = voice.iter().map(|out| out.at_ns - arrived[out.number as usize]);
        assert!(waited.clone().max().unwrap() <= 2_500_000, "{:?}", waited.max());
        let bytes: u64 = left.iter().map(|out| out.wire_bytes).sum();
        let mbits = bytes as f64 * 8.0 / MBIT as f64;
        assert!((9.95..=10.05).contains(&mbits), "{target:?}: {mbits} Mbit/s");
        let (ef, rest) = (state(&mut bench, 0), state(&mut bench, 1));
        assert_eq!((ef.dropped.queue_limit, ef.queued_packets), (0, 0));
        assert!(rest.dropped.queue_limit > 100, "{rest:?}");
        assert_eq!(bench.headend.dropped(DropReason::QosQueueLimit), rest.dropped.queue_limit);
        assert_eq!(rest.offered_packets, rest.sent_packets + rest.dropped.queue_limit);
        assert!(ef.delay_p99_ns.is_some_and(|ns| ns <= 2_500_000 * 5 / 4), "{ef:?}");
        assert_eq!(bench.headend.unaccounted(), 0);
        assert!(bench.buffers_are_home());
    }
}

/// What a peer with an anti-replay window of 64 packets loses of these sequence numbers.
fn replay_drops(sequences: impl Iterator<Item = u32>) -> usize {
    let mut edge = 0;
    let too_old = |sequence: u32| {
        edge = sequence.max(edge);
        sequence + 64 <= edge
    };
    sequences.map(too_old).filter(|is_lost| *is_lost).count()
}

#[test]
fn four_classes_in_one_sa_leave_in_the_order_of_their_sequence_numbers() {
    let dscps = [Dscp::EF, Dscp::new(34).unwrap(), Dscp::new(18).unwrap(), Dscp::DEFAULT];
    let mut objects = vec![shaped(10)];
    for (place, dscp) in (0..3_u32).zip(dscps) {
        objects.extend(code_point(ClassMapIndex(place), dscp.get()));
    }
    let map = |place| Some(ClassMapIndex(place));
    let share = |percent| Service::Bandwidth(Share::Percent(percent));
    let classes = [
        class(0, map(0), Service::Priority { level: 0 }),
        class(1, map(1), share(60)),
        class(2, map(2), share(30)),
        class(3, None, share(10)),
    ];
    let classes = classes.map(|class| PolicyClass { limit: QueueLimit::Packets(200), ..class });
    objects.extend(classes.map(Object::PolicyClass));
    objects.push(at_work(ServiceTarget::Tunnel(TUNNEL)));
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&objects);
    let opener = bench.peer_opener(0);
    let (mut left, mut number) = (Vec::new(), 0);
    for step in 0..40_000u32 {
        if step % 40 == 0 {
            for (place, dscp) in dscps.iter().enumerate() {
                // EF a tenth of what the others offer: they are the overload.
                if place > 0 || step % 400 == 0 {
                    bench.lan.send(&packet(*dscp, number, 400));
                    number += 1;
                }
            }
        }
        bench.step();
        left.extend(departures(&mut bench, &opener));
    }
    drain(&mut bench, &opener, &mut left);
    for dscp in dscps {
        assert!(left.iter().filter(|out| out.dscp == dscp).count() > 50, "{dscp:?} left");
    }
    assert_eq!(replay_drops(left.iter().map(|out| out.sequence)), 0);
    // Had they been numbered as they came and scheduled afterwards, they would have left with these numbers.
    let lost = replay_drops(left.iter().map(|out| out.number + 1));
    assert!(lost * 10 > left.len(), "{lost} of {}", left.len());
    assert_eq!(bench.headend.unaccounted(), 0);
}

#[test]
fn what_waits_for_a_tunnel_that_goes_is_a_counted_drop_and_what_waits_for_others_goes_on() {
    for target in [ServiceTarget::Port(WAN), ServiceTarget::Tunnel(TUNNEL)] {
        let mut bench = Bench::new(&Shape::default());
        bench.commit(&voice_and_rest(1, target));
        for number in 0..40 {
            bench.lan.send(&packet(Dscp::DEFAULT, number, 1_000));
        }
        (0..10).for_each(|_| {
            bench.step();
        });
        let waiting = bench.headend.counter(WorkerCounter::Held);
        assert!(waiting > 20, "{waiting} wait");
        let mut deleted = vec![ObjectId::Tunnel(TUNNEL)];
        if target == ServiceTarget::Tunnel(TUNNEL) {
            deleted.push(ObjectId::ServicePolicy(target));
        }
        let routes = bench.shape.network(End::A).into_iter().map(|object| object.id());
        deleted.extend(routes.filter(|id| matches!(id, ObjectId::Route(_))));
        let now_ns = bench.now_ns;
        bench.headend.change(messages::Base::Running, &deleted, &[], now_ns).expect("a valid change");
        bench.pass(2 * SECOND_NS);
        assert_eq!(bench.headend.dropped(DropReason::QosGone), waiting);
        assert_eq!(bench.headend.counter(WorkerCounter::Held), 0);
        assert_eq!(bench.headend.unaccounted(), 0);
        assert!(bench.buffers_are_home());
    }
}

#[test]
fn a_commit_that_changes_no_policy_keeps_what_waits_and_one_that_does_passes_it_on() {
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&voice_and_rest(1, ServiceTarget::Tunnel(TUNNEL)));
    let opener = bench.peer_opener(0);
    for number in 0..40 {
        bench.lan.send(&packet(Dscp::DEFAULT, number, 1_000));
    }
    let mut left = Vec::new();
    (0..10).for_each(|_| {
        bench.step();
    });
    left.extend(departures(&mut bench, &opener));
    let now_ns = bench.now_ns;
    // Nothing that the scheduler knows of; then its rate.
    let base = messages::Base::Running;
    bench.headend.put(base, &code_point(ClassMapIndex(7), 7), now_ns).expect("a valid change");
    bench.step();
    bench.headend.put(base, &[shaped(2)], now_ns).expect("a valid change");
    drain(&mut bench, &opener, &mut left);
    let numbers: Vec<u32> = left.iter().map(|out| out.number).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>(), "all of them, in order");
    assert_eq!(state(&mut bench, 1).sent_packets, 40, "counters go on");
    assert_eq!(bench.headend.drops(), []);
}

#[test]
fn what_is_above_its_policer_is_dropped_and_what_is_marked_leaves_marked() {
    let mut objects = voice_and_rest(100, ServiceTarget::Tunnel(TUNNEL));
    let police = Some(Police::dropping(TrafficProfile { rate_bps: MBIT, burst_bytes: Some(3_000) }));
    objects.push(Object::PolicyClass(PolicyClass {
        police,
        set_dscp: Some(Dscp::CS6.get()),
        ..class(0, Some(EF), Service::Priority { level: 0 })
    }));
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&objects);
    let opener = bench.peer_opener(0);
    for number in 0..10 {
        bench.lan.send(&packet(Dscp::EF, number, 900));
    }
    let mut left = Vec::new();
    drain(&mut bench, &opener, &mut left);
    left.extend(departures(&mut bench, &opener));
    assert_eq!(left.len(), 2, "3,000 bytes hold two of them");
    assert!(left.iter().all(|out| out.dscp == Dscp::CS6));
    assert_eq!(bench.headend.dropped(DropReason::QosPoliced), 8);
}

#[test]
fn early_drops_are_told_apart_and_ecn_capable_packets_are_marked_instead() {
    let profile = messages::DropProfile { min_packets: 1, max_packets: 1_000, one_in: 2 };
    let wred = EarlyDrop::Wred(messages::Wred { weight: 0, default: profile, profiles: Vec::new() });
    let codel = EarlyDrop::CoDel { target_us: 5_000, interval_us: 100_000 };
    for (early, reason) in [(wred, DropReason::QosWred), (codel, DropReason::QosCodel)] {
        for (ecn, field) in [(false, Ecn::Ect0), (true, Ecn::NotEct), (true, Ecn::Ect0)] {
            let mut objects = voice_and_rest(2, ServiceTarget::Tunnel(TUNNEL));
            objects.push(Object::PolicyClass(PolicyClass {
                limit: QueueLimit::Packets(500),
                early: early.clone(),
                ecn,
                ..class(1, None, Service::Bandwidth(Share::Percent(100)))
            }));
            let mut bench = Bench::new(&Shape::default());
            bench.commit(&objects);
            for _ in 0..200 {
                bench
                    .lan
                    .send(&Udp::new(hosts().0, hosts().1, &[0; 400]).tos(Dscp::DEFAULT, field).to_bytes());
                bench.step();
            }
            bench.pass(2 * SECOND_NS);
            let left = bench.wan.take();
            let marked = left.iter().filter(|ip| Ecn::of_tos(ip[1]) == Ecn::Ce).count() as u64;
            let dropped = bench.headend.dropped(reason);
            let (counted, is_marked) = (state(&mut bench, 1).marked, ecn && field == Ecn::Ect0);
            assert_eq!(marked, counted, "{reason} {ecn} {field:?}: the mark is on the outer header too");
            assert_eq!((dropped > 0, marked > 0), (!is_marked, is_marked), "{reason} {ecn} {field:?}");
            assert_eq!(left.len() as u64 + dropped, 200);
        }
    }
}

#[test]
fn pie_drops_or_marks_what_arrives_while_the_queue_is_late() {
    for (ecn, field) in [(false, Ecn::Ect0), (true, Ecn::NotEct), (true, Ecn::Ect0)] {
        let mut objects = voice_and_rest(2, ServiceTarget::Tunnel(TUNNEL));
        objects.push(Object::PolicyClass(PolicyClass {
            limit: QueueLimit::Packets(2_000),
            early: EarlyDrop::Pie { target_us: 5_000, burst_us: 50_000 },
            ecn,
            ..class(1, None, Service::Bandwidth(Share::Percent(100)))
        }));
        let mut bench = Bench::new(&Shape::default());
        bench.commit(&objects);
        // A little more than the shaper lets through.
        let (mut left, mut sent) = (Vec::new(), 0);
        for ms in 0..1_500u64 {
            for _ in 0..u64::from(ms % 2 == 0) + u64::from(ms % 20 == 1) {
                let packet = Udp::new(hosts().0, hosts().1, &[0; 400]).tos(Dscp::DEFAULT, field);
                bench.lan.send(&packet.to_bytes());
                sent += 1;
            }
            bench.now_ns += 990_000;
            bench.step();
            left.extend(bench.wan.take());
        }
        bench.pass(20 * SECOND_NS);
        left.extend(bench.wan.take());
        let marked = left.iter().filter(|ip| Ecn::of_tos(ip[1]) == Ecn::Ce).count() as u64;
        let dropped = bench.headend.dropped(DropReason::QosPie);
        let counted = state(&mut bench, 1);
        assert_eq!((counted.marked, counted.dropped.pie), (marked, dropped), "{ecn} {field:?}");
        let may_mark = ecn && field == Ecn::Ect0;
        assert!(
            if may_mark { marked > 0 } else { marked == 0 && dropped > 0 },
            "{ecn} {field:?} {counted:?}"
        );
        assert_eq!(left.len() as u64 + dropped, sent);
    }
}

#[test]
fn without_pre_classify_the_class_is_that_of_the_delivery_header() {
    for (pre_classify, expected) in [(true, 0), (false, 1)] {
        let mut objects = voice_and_rest(10, ServiceTarget::Port(WAN));
        // The tunnel's delivery header has its own DSCP.
        for object in bench_tunnel() {
            objects.push(object);
        }
        let target = ServiceTarget::Tunnel(TUNNEL);
        objects.push(Object::ServicePolicy(ServicePolicy { target, policy_map: None, pre_classify }));
        let mut bench = Bench::new(&Shape::default());
        bench.commit(&objects);
        bench.lan.send(&packet(Dscp::EF, 0, 100));
        bench.settle();
        assert_eq!(state(&mut bench, expected).sent_packets, 1, "pre-classify {pre_classify}");
    }
}

fn bench_tunnel() -> Vec<Object> {
    let objects = Shape::default().network(End::A).into_iter();
    let tunnels = objects.filter_map(|object| match object {
        Object::Tunnel(tunnel) => {
            Some(Object::Tunnel(messages::Tunnel { tos: messages::TosPolicy::Dscp(10), ..tunnel }))
        }
        _ => None,
    });
    tunnels.collect()
}

#[test]
fn in_esp_tunnel_mode_without_gre_a_packet_waits_at_the_port_that_leads_to_the_peer() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    // Its route leads out of the LAN port, whose SPD sends it to a peer behind the WAN port.
    let beyond = prefix("10.9.0.0/24");
    let mut bench = Bench::with(&shape, |objects| {
        for object in objects.iter_mut() {
            if let Object::Port(settings) = object {
                settings.side = PortSide::Unprotected;
            }
        }
        objects.push(route_by(beyond, LAN, End::A.host()));
        let spd = |order, selector, action| {
            Object::Policy(Policy { policy: PolicyIndex(order), port: LAN, order, selector, action })
        };
        let to_it = Selector { remote: Some(beyond), ..ANY };
        objects.push(spd(1, to_it, PolicyAction::Protect(ProtectionIndex(0))));
        objects.push(spd(2, ANY, PolicyAction::Bypass));
    });
    bench.commit(&voice_and_rest(1, ServiceTarget::Port(WAN)));
    for _ in 0..10 {
        bench.lan.send(&Udp::new(hosts().0, ip("10.9.0.1"), &[0; 900]).to_bytes());
    }
    (0..10).for_each(|_| {
        bench.step();
    });
    assert!(bench.headend.counter(WorkerCounter::Held) > 5, "WAN's shaper holds them");
    bench.pass(SECOND_NS);
    assert_eq!(state(&mut bench, 1).sent_packets, 10);
    assert_eq!((bench.wan.take().len(), bench.headend.drops()), (10, vec![]));
}

#[test]
fn what_becomes_no_frame_does_not_keep_the_worker_longer_than_a_few_bursts() {
    let mut objects = voice_and_rest(1, ServiceTarget::Tunnel(TUNNEL));
    let rest = class(1, None, Service::Bandwidth(Share::Percent(100)));
    objects.push(Object::PolicyClass(PolicyClass { limit: QueueLimit::Packets(2_000), ..rest }));
    let mut bench = Bench::new(&Shape::default());
    bench.commit(&objects);
    for number in 0..800 {
        bench.lan.send(&packet(Dscp::DEFAULT, number, 100));
        bench.step();
    }
    let waiting = bench.headend.counter(WorkerCounter::Held);
    assert!(waiting > 700, "{waiting} wait");
    // Without an SA, and with tokens for all of them.
    let sa = bench.shape.sa(End::A, Direction::Outbound, 0).id();
    let now_ns = bench.now_ns;
    bench
        .headend
        .change(messages::Base::Running, &[sa], &[shaped(1_000_000)], now_ns)
        .expect("a valid change");
    let (mut most, mut dropped) = (0, 0);
    for _ in 0..100 {
        bench.step();
        let now = bench.headend.dropped(DropReason::NoSa);
        (most, dropped) = (most.max(now - dropped), now);
    }
    assert_eq!(dropped, waiting);
    assert!(most <= 4 * 64, "{most} in one turn");
}
