// SPDX-License-Identifier: Apache-2.0
//! Two workers: an inbound SA's window has one owner, and packets that arrive elsewhere are handed over to it unopened.
//!
//! Workers turn one at a time, in whatever order a seed says. A flow enters by one queue and a packet keeps the number of
//! its queue all the way, so the test decides at which worker it arrives.

use greyhound_simulation::esp;
use greyhound_simulation::topology::{End, Shape, Topology};
use greyhound_simulation::traffic::Ledger;
use messages::{Base, Direction, DropReason, EspMode, Object, ObjectId, SaIndex, WorkerCounter, WorkerId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ENDS: [End; 2] = [End::A, End::B];
const WORKERS: u16 = 2;
/// Packets that one worker may have given another and that were not taken yet (`dataplane::mailbox`).
const RING_PACKETS: u64 = 1_024;

/// A network of headends with two workers each, and its traffic.
struct Workers {
    net: Topology,
    ledger: Ledger,
    random: ChaCha8Rng,
}

impl Workers {
    /// Two workers at each end. All inbound SAs belong to `owner`, or to the worker that their SPI says.
    fn new(shape: Shape, owner: Option<WorkerId>) -> Self {
        Self::with(Shape { workers: WORKERS, ..shape }, owner)
    }

    fn with(shape: Shape, owner: Option<WorkerId>) -> Self {
        let random = ChaCha8Rng::seed_from_u64(shape.seed);
        let mut net = Topology::unconfigured(shape);
        for end in ENDS {
            let mut objects = net.objects(end, 0);
            for object in &mut objects {
                if let Object::Sa(sa) = object
                    && sa.direction == Direction::Inbound
                {
                    sa.owner = owner;
                }
            }
            let now_ns = net.now_ns;
            net.headend(end).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
        }
        net.settle();
        let mut workers = Self { net, ledger: Ledger::default(), random };
        workers.learn_neighbors();
        workers
    }

    /// How packets wait for neighbours is another test's business. The answer may come to another worker than the one that
    /// holds the packet, which then looks when it next ticks.
    fn learn_neighbors(&mut self) {
        for from in ENDS {
            for flow in [0, 1] {
                self.ledger.send(&mut self.net, from, flow, 0, 64);
                self.net.pass(30_000_000);
            }
        }
        self.ledger.collect(&mut self.net);
        self.ledger.assert_complete();
    }

    /// Flows 0 and 1 (IPv4, IPv6) enter by queue 0, 2 and 3 by queue 1, and so on round the workers.
    fn send(&mut self, from: End, flow: u16, packets: usize) {
        for _ in 0..packets {
            let bytes = self.random.random_range(11..300);
            let queue = flow / 2 % self.net.shape.workers;
            self.ledger.send(&mut self.net, from, flow, queue, bytes);
        }
    }

    fn turn(&mut self, end: End, worker: u16) -> bool {
        let now_ns = self.net.now_ns;
        self.net.now_ns += 10_000;
        self.net.headend(end).turn_worker(worker, now_ns)
    }

    /// One worker turns until it has nothing to do, the others stand still; then the link carries.
    fn run_alone(&mut self, end: End, worker: u16) {
        while self.turn(end, worker) {}
        self.net.link.carry();
    }

    /// Packets from both ends by `flows`, everything that can happen next in random order. Every so often all comes to
    /// rest, so that never more than `in_flight` packets wait anywhere.
    fn churn(&mut self, rounds: usize, flows: core::ops::Range<u16>, in_flight: u64) {
        for _ in 0..rounds {
            let mut waiting = 0;
            while waiting < in_flight {
                let from = ENDS[self.random.random_range(0..2)];
                match self.random.random_range(0..8) {
                    0..=2 => {
                        let packets = self.random.random_range(1..=48).min((in_flight - waiting) as usize);
                        let flow = self.random.random_range(flows.clone());
                        self.send(from, flow, packets);
                        waiting += packets as u64;
                    }
                    3..=6 => {
                        let worker = self.random.random_range(0..WORKERS);
                        self.turn(from, worker);
                    }
                    _ => {
                        self.net.link.carry();
                    }
                }
            }
            self.rest();
        }
    }

    fn rest(&mut self) {
        self.net.settle();
        self.ledger.collect(&mut self.net);
    }

    fn of(&mut self, end: End, worker: u16, counter: WorkerCounter) -> u64 {
        self.net.headend(end).counter_of(worker, counter)
    }

    fn drops(&mut self) -> Vec<(DropReason, u64)> {
        ENDS.into_iter().flat_map(|end| self.net.headend(end).drops()).collect()
    }

    /// Whatever was handed out has been handed in, every packet is accounted for, and nothing was in clear or under an IV
    /// that was on the wire before.
    fn assert_balanced(&mut self) {
        for end in ENDS {
            let headend = self.net.headend(end);
            let handed = [WorkerCounter::HandedOut, WorkerCounter::HandedIn].map(|c| headend.counter(c));
            assert_eq!(handed[0], handed[1], "handed out, handed in");
            assert_eq!(headend.unaccounted(), 0);
        }
        assert_eq!(self.net.buffers_out(), 0, "a buffer leaked");
        assert_eq!(self.net.frames_in_clear(), 0);
        assert_eq!(esp::repeated_ivs(&self.net.esp_seen()), []);
    }
}

fn shape(replay_window: u16, seed: u64) -> Shape {
    let esp = Some(if seed.is_multiple_of(2) { EspMode::Transport } else { EspMode::Tunnel });
    Shape { replay_window, seed, esp, esn: seed % 3 == 1, ..Shape::default() }
}

#[test]
fn a_packet_is_opened_by_the_owner_of_its_sa_wherever_it_arrives() {
    for owner in 0..WORKERS {
        for queue in 0..WORKERS {
            let mut workers = Workers::new(shape(64, 0), Some(WorkerId(owner)));
            let other = 1 - owner;
            let before = [owner, other].map(|worker| workers.of(End::B, worker, WorkerCounter::Opened));
            let handed = workers.of(End::B, other, WorkerCounter::HandedOut);
            for flow in [2 * queue, 2 * queue + 1] {
                workers.send(End::A, flow, 150);
            }
            workers.rest();
            workers.ledger.assert_complete();
            let opened = |workers: &mut Workers, worker| workers.of(End::B, worker, WorkerCounter::Opened);
            assert_eq!(opened(&mut workers, owner) - before[0], 300);
            assert_eq!(opened(&mut workers, other) - before[1], 0);
            let moved = if queue == owner { 0 } else { 300 };
            assert_eq!(workers.of(End::B, other, WorkerCounter::HandedOut) - handed, moved);
            assert_eq!(workers.of(End::B, owner, WorkerCounter::HandedOut), 0);
            workers.assert_balanced();
        }
    }
}

/// The SA's packets arrive in order at the worker that does not own it: the smallest window is enough, however far the
/// owner lags behind.
#[test]
fn packets_in_order_stay_in_order_across_the_hand_over_and_no_window_trips() {
    for seed in 0..6 {
        let mut workers = Workers::new(shape(64, seed), Some(WorkerId(0)));
        workers.churn(6, 2..4, RING_PACKETS);
        workers.ledger.assert_complete();
        assert_eq!(workers.drops(), []);
        assert!(workers.of(End::B, 1, WorkerCounter::HandedOut) > 1_000);
        assert!(workers.of(End::A, 1, WorkerCounter::HandedOut) > 1_000);
        workers.assert_balanced();
    }
}

/// One SA's packets over both queues: sealed by two workers at the far end, opened by one. A window as wide as what may wait
/// keeps them all, and each flow stays in order although the SA's numbers do not.
#[test]
fn flows_over_both_workers_keep_their_order_within_the_window() {
    for seed in 0..6 {
        let mut workers = Workers::new(shape(1_024, seed), None);
        workers.churn(10, 0..8, 900);
        workers.ledger.assert_complete();
        assert_eq!(workers.drops(), []);
        workers.assert_balanced();
        // Two workers shared each outbound SA: every number once, none left out.
        for end in ENDS {
            let seen = workers.net.esp_seen();
            let mut numbers: Vec<_> = seen
                .iter()
                .filter(|packet| packet.destination == end.wan())
                .map(|packet| u64::from(packet.sequence))
                .collect();
            assert!(!numbers.is_sorted(), "the workers' packets are interleaved on the wire");
            numbers.sort_unstable();
            assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
        }
    }
}

#[test]
fn what_waits_longer_than_the_window_reaches_is_too_old_and_counted() {
    let mut workers = Workers::new(shape(64, 0), Some(WorkerId(0)));
    // 40 packets reach the ring; 64 later ones pass them by the owner's own queue.
    workers.send(End::A, 2, 40);
    workers.run_alone(End::A, 1);
    workers.run_alone(End::B, 1);
    assert_eq!(workers.of(End::B, 1, WorkerCounter::HandedOut), 40);
    workers.send(End::A, 0, 64);
    workers.run_alone(End::A, 0);
    workers.rest();
    assert_eq!(workers.drops(), [(DropReason::ReplayTooOld, 40)]);
    assert_eq!((workers.ledger.missing(), workers.ledger.copies(), workers.ledger.late()), (40, 0, 0));
    workers.assert_balanced();
}

#[test]
fn a_ring_takes_what_it_has_room_for_and_the_rest_is_counted() {
    for beyond in [0, 1, 300] {
        let mut workers = Workers::new(shape(64, 0), Some(WorkerId(0)));
        workers.send(End::A, 2, (RING_PACKETS + beyond) as usize);
        workers.run_alone(End::A, 1);
        workers.run_alone(End::B, 1);
        let dropped = workers.net.headend(End::B).dropped_by(1, DropReason::HandoverFull);
        assert_eq!(dropped, beyond);
        assert_eq!(workers.of(End::B, 1, WorkerCounter::HandedOut), RING_PACKETS);
        assert_eq!(workers.net.headend(End::B).unaccounted(), 0, "while the owner stands still");
        workers.rest();
        let expected: &[_] = if beyond == 0 { &[] } else { &[(DropReason::HandoverFull, beyond)] };
        assert_eq!(workers.drops(), expected);
        let ledger = &workers.ledger;
        assert_eq!((ledger.missing(), ledger.copies(), ledger.late()), (beyond, 0, 0));
        workers.assert_balanced();
        // The ring is as good as new.
        workers.send(End::A, 3, 500);
        workers.rest();
        assert_eq!(workers.drops(), expected);
        assert_eq!(workers.ledger.missing(), beyond);
    }
}

/// New SAs belong by turns to one worker and the other, as their SPIs say, and packets are in the rings at each step.
#[test]
fn a_rekey_loses_nothing_while_packets_are_handed_over() {
    for seed in 0..4 {
        let mut workers = Workers::new(shape(1_024, seed), None);
        let mut carried = [0; 2];
        for generation in 1..=4 {
            for step in 0..3 {
                workers.churn(1, 0..8, 300);
                // What is on its way when the change comes.
                for flow in 0..8 {
                    workers.send(ENDS[usize::from(flow % 2)], flow, 20);
                }
                ENDS.into_iter().for_each(|end| (0..WORKERS).for_each(|w| workers.run_alone(end, w)));
                for end in ENDS {
                    rekey_step(&mut workers.net, end, generation, step);
                    let first = workers.random.random_range(0..WORKERS);
                    workers.turn(end, first);
                }
                workers.rest();
            }
            carried = ENDS.map(|end| workers.net.headend(end).counter(WorkerCounter::HandedOut));
        }
        workers.ledger.assert_complete();
        assert_eq!(workers.drops(), []);
        assert!(carried.into_iter().all(|handed| handed > 500), "{carried:?}");
        workers.assert_balanced();
    }
}

/// Inbound first, then outbound, then the old ones go: make before break.
fn rekey_step(net: &mut Topology, end: End, generation: u32, step: usize) {
    let inbound = net.sa(end, Direction::Inbound, generation);
    let outbound = net.sa(end, Direction::Outbound, generation);
    let old = |direction| {
        let is_outbound = u32::from(direction == Direction::Outbound);
        ObjectId::Sa(SaIndex((generation - 1) * 2 + is_outbound))
    };
    let now_ns = net.now_ns;
    let headend = net.headend(end);
    let changed = match step {
        0 => headend.change(Base::Running, &[], &[inbound], now_ns),
        1 => headend.change(Base::Running, &[old(Direction::Outbound)], &[outbound], now_ns),
        _ => headend.change(Base::Running, &[old(Direction::Inbound)], &[], now_ns),
    };
    changed.expect("a valid change");
}

#[test]
fn what_waits_in_a_ring_when_its_sa_goes_is_dropped_and_counted() {
    let mut workers = Workers::new(shape(64, 0), Some(WorkerId(0)));
    workers.send(End::A, 2, 200);
    workers.run_alone(End::A, 1);
    workers.run_alone(End::B, 1);
    let inbound = workers.net.sa(End::B, Direction::Inbound, 0).id();
    let now_ns = workers.net.now_ns;
    workers.net.headend(End::B).change(Base::Running, &[inbound], &[], now_ns).expect("a valid change");
    workers.rest();
    assert_eq!(workers.drops(), [(DropReason::SpiUnknown, 200)]);
    assert_eq!(workers.net.headend(End::B).dropped_by(0, DropReason::SpiUnknown), 200);
    assert_eq!(workers.ledger.missing(), 200);
    workers.assert_balanced();
}

/// Worker 1 hands over as much as the owner takes in a turn, and more; what little worker 2 has to give gets its turn.
#[test]
fn who_hands_over_much_does_not_keep_others_waiting() {
    let shape = Shape { workers: 3, ..shape(8_192, 0) };
    let mut workers = Workers::with(shape, Some(WorkerId(0)));
    let rounds = 60;
    for _ in 0..rounds {
        workers.send(End::A, 2, 64);
        workers.send(End::A, 4, 4);
        for end in ENDS {
            for worker in [1, 2, 0] {
                workers.turn(end, worker);
            }
            workers.net.link.carry();
        }
        workers.ledger.collect(&mut workers.net);
    }
    let few = workers.ledger.arrived_of(End::A, 4);
    assert!(few >= 4 * (rounds - 6), "{few} of {}", 4 * rounds);
    workers.rest();
    workers.ledger.assert_complete();
    assert_eq!(workers.drops(), []);
    workers.assert_balanced();
}
