// SPDX-License-Identifier: Apache-2.0
//! What runs out: sequence numbers, room in buffers, buffers, rings, the device; and sizes that do not fit.

use esp::SequenceNumber;
use greyhound_simulation::Bench;
use greyhound_simulation::bench::WIRE_PACKETS;
use greyhound_simulation::packets::{Udp, ip_in};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use messages::{Direction, DropReason, Object, PortSettings, PortSide, SaIndex, WorkerCounter, WorkerId};
use pktbuf::Pool;

use crate::support::{Attack, frame_to, note, outbound};

fn outbound_sa(attack: &mut Attack) -> std::sync::Arc<esp::OutboundSa> {
    let index = greyhound_simulation::wanted::sa(attack.bench.shape.sa(End::A, Direction::Outbound, 0)).sa;
    let state = attack.bench.headend.installer().state();
    let mut sas = state.sad.all_outbound();
    let (_, sa) = sas.find(|(place, _)| *place == index.index()).expect("an outbound SA");
    std::sync::Arc::clone(sa)
}

#[test]
fn after_its_last_sequence_number_an_sa_sends_no_more() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX - 1)] {
        let mut attack = Attack::on(&Shape { esn, ..Shape::default() });
        let sa = outbound_sa(&mut attack);
        sa.sequence().raise_limit(SequenceNumber(u64::MAX));
        sa.sequence().resume_at(SequenceNumber(last));
        let seen = attack.bench.observe(|bench| bench.lan.send(&outbound().to_bytes()));
        assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1), "the last one");
        for _ in 0..3 {
            attack.drops_from_host(DropReason::SequenceExhausted, &outbound().to_bytes());
        }
    }
}

#[test]
fn at_the_limit_on_disk_an_sa_waits_for_housekeeping() {
    let mut attack = Attack::transport();
    let sa = outbound_sa(&mut attack);
    let limit = sa.sequence().limit();
    sa.sequence().resume_at(SequenceNumber(limit.0 - 1));
    let seen = attack.bench.observe(|bench| bench.lan.send(&outbound().to_bytes()));
    assert_eq!(seen.wan.len(), 1);
    attack.drops_from_host(DropReason::SequenceNotReserved, &outbound().to_bytes());
    attack.bench.headend.housekeep().expect("a store");
    attack.is_alive();
}

#[test]
fn a_buffer_without_room_for_headers_or_trailer_is_dropped() {
    let mut attack = Attack::transport();
    let frame = frame_to(LAN, &outbound().to_bytes());
    // As many bytes as the frame has, up to the alignment of buffers: nothing is left behind it.
    let mut long = frame.clone();
    let pool = Pool::memory(4, frame.len()).expect("packet memory");
    let room = pool.copy_of(&frame).expect("a buffer").tailroom();
    long.resize(frame.len() + room, 0);
    let grown = (outbound().data.len() + room) as u16;
    let packet = Udp { data: vec![7; usize::from(grown)], ..outbound() };
    let frame = frame_to(LAN, &packet.to_bytes());
    let buffer = pool.copy_of(&frame).expect("a buffer");
    assert!(buffer.tailroom() < 18, "the trailer does not fit");
    let seen = attack.bench.observe(|bench| bench.lan.send_buffer(0, buffer));
    attack.bench.lan.poll();
    let sealed = seen.counter(WorkerCounter::Sealed);
    assert_eq!((seen.drops, sealed, seen.wan.len()), (vec![(DropReason::NoHeadroom, 1)], 0, 0));
    assert_eq!(pool.available(), pool.capacity());
    note(DropReason::NoHeadroom);
    attack.is_alive();
}

#[test]
fn without_buffers_a_packet_is_not_cut() {
    let bench = Bench::with_packets(&Shape::default(), 1, |_| {});
    let sealer = bench.peer_sealer(0);
    let mut attack = Attack { bench, sealer, sequence: 0 };
    // Three fragments are wanted, and there is one buffer.
    let packet = Udp { data: vec![7; 3_000], ..outbound() };
    attack.drops_from_host(DropReason::NoBuffer, &packet.to_bytes());
    attack.is_alive();
}

#[test]
fn a_packet_that_does_not_fit_and_may_not_be_cut_is_answered() {
    let mut attack = Attack::transport();
    let v4 = Udp { data: vec![7; 1_450], ..outbound() }.dont_fragment();
    let v6 = Udp::new(End::A.host_v6(), End::B.host_v6(), &[7; 1_450]);
    for packet in [v4, v6] {
        let answer = attack.drops_and_tells(LAN, DropReason::TooBig, &packet.to_bytes());
        assert_eq!(ip_in(&answer).expect("an IP packet").0.destination, packet.source);
    }
    attack.is_alive();
}

#[test]
fn what_waited_and_no_longer_fits_is_dropped() {
    let mut attack = Attack::with(&Shape::default(), |objects| {
        objects.retain(|object| !matches!(object, Object::Neighbor(neighbor) if neighbor.port == WAN));
    });
    attack.bench.wan.set_silent(true);
    let packet = Udp { data: vec![7; 1_300], ..outbound() }.to_bytes();
    let seen = attack.bench.observe(|bench| bench.lan.send(&packet));
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1), "it waits");
    let smaller = PortSettings { port: WAN, mtu: 1_300, side: PortSide::Unprotected, answer_ping: true };
    let seen = attack.bench.observe(|bench| {
        bench.commit(&[Object::Port(smaller)]);
        bench.wan.set_silent(false);
        bench.pass(1_100_000_000);
    });
    assert_eq!(seen.drops, [(DropReason::MtuChanged, 1)]);
    assert!(attack.bench.buffers_are_home());
    note(DropReason::MtuChanged);
}

#[test]
fn a_device_that_takes_no_more_holds_up_a_bounded_number() {
    let mut attack = Attack::transport();
    // What the wire holds, and what a port's queue holds.
    let most = WIRE_PACKETS + 1_024;
    let packet = outbound().to_bytes();
    for sent in 0..most {
        attack.bench.lan.send(&packet);
        if sent % 64 == 63 {
            attack.bench.headend.turn(attack.bench.now_ns);
        }
    }
    attack.bench.headend.turn(attack.bench.now_ns);
    assert_eq!(attack.bench.headend.drops(), []);
    attack.bench.lan.send(&packet);
    attack.bench.headend.turn(attack.bench.now_ns);
    assert_eq!(attack.bench.headend.drops(), [(DropReason::TransmitFull, 1)]);
    assert_eq!(attack.bench.headend.unaccounted(), 0);
    let seen = attack.bench.observe(|bench| while bench.step() {});
    assert_eq!((seen.drops.len(), seen.wan.len()), (0, most));
    assert!(attack.bench.buffers_are_home());
    note(DropReason::TransmitFull);
}

#[test]
fn a_full_ring_to_another_worker_drops_what_is_for_it() {
    let shape = Shape { workers: 2, ..Shape::default() };
    let mut attack = Attack::with(&shape, |objects| {
        for object in objects {
            if let Object::Sa(sa) = object
                && sa.direction == Direction::Inbound
            {
                sa.owner = Some(WorkerId(1));
            }
        }
    });
    let ring = 1_024;
    for sent in 0..=ring {
        let genuine = attack.genuine();
        attack.bench.wan.send(&genuine);
        if sent % 64 == 63 || sent == ring {
            attack.bench.headend.turn_worker(0, attack.bench.now_ns);
        }
    }
    assert_eq!(attack.bench.headend.drops(), [(DropReason::HandoverFull, 1)]);
    assert_eq!(attack.bench.headend.counter(WorkerCounter::HandedOut), ring);
    let seen = attack.bench.observe(|bench| while bench.step() {});
    assert_eq!(seen.drops, []);
    assert_eq!(seen.counter(WorkerCounter::HandedIn), ring);
    assert_eq!(seen.lan.len() as u64, ring);
    assert!(attack.bench.buffers_are_home());
    note(DropReason::HandoverFull);
}

/// The SA index of the first outbound SA is what `Shape::sa` says: a check on this file's own footing.
#[test]
fn the_outbound_sa_of_generation_0_is_where_it_is_looked_for() {
    let mut attack = Attack::transport();
    assert_eq!(outbound_sa(&mut attack).spi().0, 0x1000);
    assert_eq!(
        greyhound_simulation::wanted::sa(attack.bench.shape.sa(End::A, Direction::Outbound, 0)).sa,
        SaIndex(1)
    );
}

pub(crate) const CASES: &[fn()] = &[
    after_its_last_sequence_number_an_sa_sends_no_more,
    at_the_limit_on_disk_an_sa_waits_for_housekeeping,
    a_buffer_without_room_for_headers_or_trailer_is_dropped,
    without_buffers_a_packet_is_not_cut,
    a_packet_that_does_not_fit_and_may_not_be_cut_is_answered,
    what_waited_and_no_longer_fits_is_dropped,
    a_device_that_takes_no_more_holds_up_a_bounded_number,
    a_full_ring_to_another_worker_drops_what_is_for_it,
];
