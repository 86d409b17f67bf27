// SPDX-License-Identifier: Apache-2.0
//! Quality of service through a whole headend with two workers: a tunnel's queues have one owner, a port's rate is shared.
//!
//! Workers turn one at a time and the clock is the test's. Which queue of the LAN port a packet comes in by, and so which
//! worker has it first, is the test's too. Figures are those of the frames that come out, opened with the peer's key.

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{Udp, ip_in};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, Shape, WAN};
use greyhound_simulation::wanted;
use messages::{
    Base, ClassMap, ClassMapIndex, Criterion, DropReason, DscpSet, Object, ObjectId, Police, PolicyClass,
    PolicyMapIndex, QueueState, Service, ServicePolicy, ServiceTarget, Share, TrafficProfile, TunnelIndex,
    WorkerCounter,
};
use wire::{Dscp, Ecn};

const MBIT: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Its queues are worker 0's.
const TUNNEL: TunnelIndex = TunnelIndex(0);
const MAP: PolicyMapIndex = PolicyMapIndex(0);
const EF: ClassMapIndex = ClassMapIndex(0);
/// Ethernet around an IP packet on the wire: header, FCS, preamble and gap.
const AROUND: u64 = 38;
/// Of the flow of a packet in its data, in front of its number.
const VOICE: u32 = 0;

fn class(place: u8, class_map: Option<ClassMapIndex>, service: Service) -> Object {
    Object::PolicyClass(PolicyClass::plain(MAP, place, class_map, service))
}

fn shaped(mbits: u64) -> Object {
    wanted::shaped(MAP, mbits)
}

/// EF before everything else, at so many Mbit/s.
fn voice_and_rest(mbits: u64, target: ServiceTarget) -> Vec<Object> {
    let ef = Criterion { dscps: Some(DscpSet(1 << Dscp::EF.get())), ..Criterion::anything(EF, 0) };
    vec![
        Object::ClassMap(ClassMap { class_map: EF, match_any: false }),
        Object::Criterion(ef),
        shaped(mbits),
        class(0, Some(EF), Service::Priority { level: 0 }),
        class(1, None, Service::Bandwidth(Share::Percent(100))),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(MAP), pre_classify: true }),
    ]
}

/// A packet of a flow; bulk flows are 1 and more.
fn packet(flow: u32, number: u32, length: usize) -> Vec<u8> {
    let mut data = vec![0x5a; length];
    data[..4].copy_from_slice(&flow.to_be_bytes());
    data[4..8].copy_from_slice(&number.to_be_bytes());
    let dscp = if flow == VOICE { Dscp::EF } else { Dscp::DEFAULT };
    Udp::new(End::A.host(), End::B.host(), &data).tos(dscp, Ecn::NotEct).to_bytes()
}

/// What came out of the port: its moment, its bytes on the wire, the ESP sequence number, and which packet it was.
struct Departed {
    at_ns: u64,
    wire_bytes: u64,
    sequence: u32,
    flow: u32,
    number: u32,
}

fn departures(bench: &mut Bench, opener: &Sealer) -> Vec<Departed> {
    let at_ns = bench.now_ns;
    let frames = bench.wan.take_frames();
    bench.wan.take();
    let departed = |frame: &Vec<u8>| {
        let (_, ip) = ip_in(frame).expect("an IP packet");
        let plain = opener.open(&ip[20..], 0).expect("a valid ICV");
        // GRE without options, then IPv4 and UDP.
        let data = &plain.payload[4 + 28..];
        let word = |at| u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"));
        let wire_bytes = ip.len() as u64 + AROUND;
        Departed { at_ns, wire_bytes, sequence: plain.sequence_low, flow: word(0), number: word(4) }
    };
    frames.iter().map(departed).collect()
}

fn bench(target: ServiceTarget, mbits: u64) -> Bench {
    let shape = Shape { workers: 2, replay_window: 64, ..Shape::default() };
    let mut bench = Bench::with_packets(&shape, 2_048, |_| {});
    bench.commit(&voice_and_rest(mbits, target));
    bench
}

/// Offers voice every 4 ms at worker 1, and twice the rate in bulk for `ns`: flow 1 at worker 0, and flow 2 at worker 1 if
/// `both`. Tells when each voice packet came, and what left.
fn overload(bench: &mut Bench, opener: &Sealer, both: bool, ns: u64) -> (Vec<u64>, Vec<Departed>) {
    let (start_ns, mut arrived, mut left) = (bench.now_ns, Vec::new(), Vec::new());
    let bulk_gap_ns = 1_500 * 8 * 1_000 / 20;
    // Numbers go on from one call to the next.
    let (mut next_voice_ns, mut next_bulk_ns, mut number) = (start_ns, start_ns, (start_ns / 100_000) as u32);
    while bench.now_ns < start_ns + ns {
        if bench.now_ns >= next_voice_ns {
            bench.lan.send_to_queue(1, &packet(VOICE, arrived.len() as u32, 32));
            arrived.push(bench.now_ns);
            next_voice_ns += 4_000_000;
        }
        while bench.now_ns >= next_bulk_ns {
            let queue = if both { number % 2 } else { 0 };
            bench.lan.send_to_queue(queue as u16, &packet(1 + queue, number, 1_372));
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

/// What a peer with an anti-replay window of 64 packets loses.
fn replay_drops(left: &[Departed]) -> usize {
    let mut edge = 0;
    let too_old = |departed: &&Departed| {
        edge = departed.sequence.max(edge);
        departed.sequence + 64 <= edge
    };
    left.iter().filter(too_old).count()
}

fn assert_flows_in_order(left: &[Departed]) {
    for flow in 0..3 {
        let numbers: Vec<_> = left.iter().filter(|out| out.flow == flow).map(|out| out.number).collect();
        assert!(numbers.is_sorted(), "flow {flow}");
    }
}

fn states(bench: &mut Bench) -> Vec<QueueState> {
    bench.headend.installer().queue_states().collect()
}

#[test]
fn voice_at_one_worker_loses_nothing_and_waits_for_two_packets_at_most_while_bulk_overloads_the_other() {
    for target in [ServiceTarget::Port(WAN), ServiceTarget::Tunnel(TUNNEL)] {
        for both in [false, true] {
            let mut bench = bench(target, 10);
            let opener = bench.peer_opener(0);
            // Until the burst is spent and the queues are full.
            let (_, mut all) = overload(&mut bench, &opener, both, SECOND_NS / 10);
            let (arrived, left) = overload(&mut bench, &opener, both, SECOND_NS);
            let voice: Vec<&Departed> = left.iter().filter(|out| out.flow == VOICE).collect();
            assert_eq!(voice.len(), arrived.len(), "{target:?}: no voice is lost");
            let waited = voice.iter().map(|out| out.at_ns - arrived[out.number as usize]);
            // Two bulk packets of 1,492 bytes at 10 Mbit/s, and 50 µs.
            assert!(waited.clone().max() <= Some(2_437_200), "{target:?} {both}: {:?}", waited.max());
            let bytes: u64 = left.iter().map(|out| out.wire_bytes).sum();
            let mbits = bytes as f64 * 8.0 / MBIT as f64;
            assert!((9.95..=10.05).contains(&mbits), "{target:?} {both}: {mbits} Mbit/s");
            assert_flows_in_order(&left);
            all.extend(left);
            drain(&mut bench, &opener, &mut all);
            assert_eq!(replay_drops(&all), 0);
            let of = |bench: &mut Bench, worker| {
                [WorkerCounter::Sealed, WorkerCounter::HandedOut].map(|c| bench.headend.counter_of(worker, c))
            };
            let [first, second] = [0, 1].map(|worker| of(&mut bench, worker));
            match target {
                ServiceTarget::Tunnel(_) => assert!(second[0] == 0 && second[1] > 250, "{second:?}"),
                ServiceTarget::Port(_) => assert_eq!((first[1], second[1]), (0, 0), "none is handed over"),
            }
            assert_eq!(first[0] + second[0], all.len() as u64);
            let states = states(&mut bench);
            let sent: u64 = states.iter().map(|state| state.sent_packets).sum();
            assert_eq!((states.len(), sent), (2, all.len() as u64), "workers are added up");
            assert_eq!((states[0].dropped.queue_limit, states[0].queued_packets), (0, 0));
            assert_eq!(bench.headend.dropped(DropReason::QosQueueLimit), states[1].dropped.queue_limit);
            assert!(states[0].delay_p99_ns.is_some_and(|ns| ns <= 2_437_200 * 5 / 4), "{:?}", states[0]);
            assert_eq!(
                (states[0].rate_bps, states[0].burst_bytes),
                (Some(10 * MBIT), Some(states[1].burst_bytes.unwrap()))
            );
            assert_eq!(bench.headend.unaccounted(), 0);
            assert!(bench.buffers_are_home());
        }
    }
}

#[test]
fn what_waits_in_the_ring_or_in_the_queues_of_a_tunnel_that_goes_is_a_counted_drop() {
    let mut bench = bench(ServiceTarget::Tunnel(TUNNEL), 1);
    for number in 0..40 {
        bench.lan.send_to_queue(0, &packet(1, number, 1_000));
        bench.lan.send_to_queue(1, &packet(2, number, 1_000));
    }
    let now_ns = bench.now_ns;
    bench.headend.turn_worker(0, now_ns);
    bench.headend.turn_worker(1, now_ns);
    assert_eq!(bench.headend.counter_of(1, WorkerCounter::HandedOut), 40);
    let waiting = bench.headend.counter(WorkerCounter::Held) + 40;
    assert!(waiting > 70, "{waiting} wait");
    let mut deleted = vec![ObjectId::Tunnel(TUNNEL), ObjectId::ServicePolicy(ServiceTarget::Tunnel(TUNNEL))];
    let routes = bench.shape.network(End::A).into_iter().map(|object| object.id());
    deleted.extend(routes.filter(|id| matches!(id, ObjectId::Route(_))));
    bench.headend.change(Base::Running, &deleted, &[], now_ns).expect("a valid change");
    bench.pass(2 * SECOND_NS);
    assert_eq!(bench.headend.dropped(DropReason::QosGone), waiting);
    assert_eq!(bench.headend.counter(WorkerCounter::Held), 0);
    assert_eq!(bench.headend.unaccounted(), 0);
    assert!(bench.buffers_are_home());
}

/// Rates, and policies at the port, at the tunnel and nowhere; workers switch at different moments, with packets in the rings.
#[test]
fn a_change_of_policies_loses_nothing_whichever_worker_switches_first() {
    for target in [ServiceTarget::Port(WAN), ServiceTarget::Tunnel(TUNNEL)] {
        let mut bench = bench(target, 50);
        let opener = bench.peer_opener(0);
        let (mut left, mut number) = (Vec::new(), 0);
        let service = ObjectId::ServicePolicy(target);
        for round in 0..60u64 {
            for _ in 0..8 {
                bench.lan.send_to_queue(0, &packet(1, number, 700));
                bench.lan.send_to_queue(1, &packet(2, number, 700));
                number += 1;
            }
            let (first, now_ns) = ((round / 3 % 2) as u16, bench.now_ns);
            // What waits when its policy goes is dropped, so nothing waits then.
            if round % 6 != 5 {
                bench.headend.turn_worker(1 - first, now_ns);
            }
            let changed = match round % 6 {
                5 => bench.headend.change(Base::Running, &[service], &[], now_ns),
                0 => bench.headend.put(Base::Running, &voice_and_rest(50 + round, target), now_ns),
                _ => bench.headend.put(Base::Running, &[shaped(50 + round)], now_ns),
            };
            changed.expect("a valid change");
            bench.headend.turn_worker(first, now_ns);
            bench.now_ns += 400_000;
            bench.step();
            left.extend(departures(&mut bench, &opener));
            if round % 6 == 4 {
                drain(&mut bench, &opener, &mut left);
            }
        }
        drain(&mut bench, &opener, &mut left);
        assert_eq!(left.len() as u32, 2 * number, "{target:?}: {:?}", bench.headend.drops());
        assert_eq!(bench.headend.drops(), []);
        assert_flows_in_order(&left);
        assert_eq!(replay_drops(&left), 0);
        assert_eq!(bench.headend.unaccounted(), 0);
        assert!(bench.buffers_are_home());
    }
}

#[test]
fn a_policer_of_a_ports_class_holds_for_all_workers_together() {
    let mut bench = bench(ServiceTarget::Port(WAN), 100);
    let Object::PolicyClass(voice) = class(0, Some(EF), Service::Priority { level: 0 }) else { return };
    let police = Some(Police::dropping(TrafficProfile { rate_bps: MBIT, burst_bytes: Some(3_000) }));
    bench.commit(&[Object::PolicyClass(PolicyClass { police, ..voice })]);
    for number in 0..10 {
        bench.lan.send_to_queue(number as u16 % 2, &packet(VOICE, number, 900));
    }
    bench.pass(SECOND_NS / 100);
    let opener = bench.peer_opener(0);
    assert_eq!(departures(&mut bench, &opener).len(), 2, "3,000 bytes hold two of them");
    assert_eq!(bench.headend.dropped(DropReason::QosPoliced), 8);
}
