// SPDX-License-Identifier: Apache-2.0
//! SAs are replaced make-before-break while hundreds of packets are on their way.

use greyhound_simulation::esp;
use greyhound_simulation::topology::{End, Shape, Topology};
use greyhound_simulation::traffic::Ledger;
use messages::{Base, Direction, DropReason, EspMode, GreOptions, Object, ObjectId, SaIndex, WorkerCounter};
use port::fault::Faults;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ENDS: [End; 2] = [End::A, End::B];
const FLOWS: u16 = 6;

/// A network under load whose link carries only now and then, so that packets pile up on their way.
struct Loaded {
    net: Topology,
    ledger: Ledger,
    random: ChaCha8Rng,
    generation: u32,
    in_flight_most: u64,
}

impl Loaded {
    fn new(shape: Shape) -> Self {
        let random = ChaCha8Rng::seed_from_u64(shape.seed);
        let mut loaded = Self {
            net: Topology::new(shape),
            ledger: Ledger::default(),
            random,
            generation: 0,
            in_flight_most: 0,
        };
        // Neighbours are known before the load comes: how packets wait for them is another test's business.
        for from in ENDS {
            for flow in [0, 1] {
                loaded.ledger.send(&mut loaded.net, from, flow, 0, 64);
                loaded.net.settle();
            }
        }
        loaded.ledger.collect(&mut loaded.net);
        loaded
    }

    /// Load goes on for a while; every eighth step on average the link carries what piled up.
    fn load(&mut self, steps: usize) {
        for _ in 0..steps {
            for from in ENDS {
                for _ in 0..self.random.random_range(0..48) {
                    let (flow, bytes) =
                        (self.random.random_range(0..FLOWS), self.random.random_range(11..300));
                    self.ledger.send(&mut self.net, from, flow, 0, bytes);
                }
                let now_ns = self.net.now_ns;
                self.net.headend(from).turn(now_ns);
            }
            if self.random.random_ratio(1, 8) {
                let carried = self.net.link.carry() as u64;
                self.in_flight_most = self.in_flight_most.max(carried);
            }
            self.net.now_ns += 10_000;
            self.ledger.collect(&mut self.net);
        }
    }

    /// Everything arrives that will.
    fn settle(&mut self) {
        self.net.settle();
        self.net.link.flush();
        self.net.settle();
        self.ledger.collect(&mut self.net);
    }

    fn change(&mut self, end: End, deleted: &[ObjectId], objects: &[Object]) {
        let now_ns = self.net.now_ns;
        self.net.headend(end).change(Base::Running, deleted, objects, now_ns).expect("a valid change");
    }

    /// One rekey of both directions; packets are on their way at each of its steps. `drain` lets those under the old SAs
    /// arrive before these are taken away.
    fn rekey(&mut self, drain: bool) {
        let (old, new) = (self.generation, self.generation + 1);
        for end in ENDS {
            let inbound = self.net.sa(end, Direction::Inbound, new);
            self.change(end, &[], &[inbound]);
            self.load_a_while();
        }
        self.load(2);
        for end in ENDS {
            let outbound = self.net.sa(end, Direction::Outbound, new);
            self.change(end, &[id_of(&self.net.sa(end, Direction::Outbound, old))], &[outbound]);
            self.load_a_while();
        }
        if drain {
            self.load(2);
            self.net.link.carry();
            self.net.link.flush();
            self.load(24);
        }
        for end in ENDS {
            self.change(end, &[id_of(&self.net.sa(end, Direction::Inbound, old))], &[]);
            self.load_a_while();
        }
        self.generation = new;
    }

    fn load_a_while(&mut self) {
        let steps = self.random.random_range(1..5);
        self.load(steps);
    }

    fn assert_balanced(&mut self) {
        for end in ENDS {
            assert_eq!(self.net.headend(end).unaccounted(), 0);
        }
        assert_eq!(self.net.buffers_out(), 0, "a buffer leaked");
        assert_eq!(self.net.frames_in_clear(), 0);
        assert_eq!(esp::repeated_ivs(&self.net.esp_seen()), []);
    }

    fn set_faults(&mut self, faults: Faults) {
        ENDS.iter().for_each(|end| self.net.link.set_faults(end.outward(), faults));
    }
}

fn id_of(object: &Object) -> ObjectId {
    object.id()
}

/// Rekeys under load without a packet lost; returns how many packets that were.
fn rekeys_lose_nothing(shape: Shape, rekeys: u32) -> u64 {
    let mut loaded = Loaded::new(shape);
    loaded.load(20);
    for _ in 0..rekeys {
        loaded.rekey(true);
    }
    loaded.load(20);
    loaded.settle();
    loaded.ledger.assert_complete();
    loaded.assert_balanced();
    for end in ENDS {
        assert_eq!(loaded.net.headend(end).drops(), []);
        let running = loaded.net.headend(end).sas(0).iter().map(|sa| sa.sa).collect::<Vec<_>>();
        assert_eq!(running, [SaIndex(2 * rekeys), SaIndex(2 * rekeys + 1)], "the old SAs are gone");
    }
    let generations = generations_seen(&loaded.net);
    assert_eq!(generations, [rekeys as usize + 1; 2], "each SA carried something");
    assert!(loaded.in_flight_most >= 200, "only {} packets were in flight", loaded.in_flight_most);
    loaded.ledger.sent()
}

/// How many SPIs were seen on the wire from A and from B.
fn generations_seen(net: &Topology) -> [usize; 2] {
    let packets = net.esp_seen();
    ENDS.map(|from| {
        let (_, to) = net.endpoints(from);
        let spis = packets.iter().filter(|packet| packet.destination == to).map(|packet| packet.spi);
        spis.collect::<std::collections::HashSet<_>>().len()
    })
}

#[test]
fn forty_rekeys_of_both_directions_under_load_lose_and_reorder_nothing() {
    let sent = rekeys_lose_nothing(Shape::default(), 40);
    assert!(sent > 40_000, "{sent}");
}

#[test]
fn rekeys_lose_nothing_whatever_the_options() {
    let gre = GreOptions { key: Some(9), checksum: true, sequence: true };
    for (seed, esp, esn, delivery_v6, icv_bytes, replay_window) in [
        (2, EspMode::Tunnel, true, false, 16, 64),
        (3, EspMode::Transport, true, true, 12, 8_192),
        (4, EspMode::Tunnel, false, true, 8, 128),
    ] {
        let esp = Some(esp);
        let shape = Shape { gre, esp, esn, delivery_v6, icv_bytes, replay_window, seed, ..Shape::default() };
        rekeys_lose_nothing(shape, 6);
    }
}

#[test]
fn the_same_seed_gives_the_same_packets_on_the_wire() {
    let run = || {
        let mut loaded = Loaded::new(Shape { seed: 5, ..Shape::default() });
        loaded.set_faults(Faults { loss_ppm: 50_000, duplicate_ppm: 50_000, ..Faults::default() });
        loaded.rekey(true);
        loaded.settle();
        let seen = loaded.net.seen.lock().unwrap().clone();
        (seen, loaded.net.headend(End::B).drops())
    };
    assert!(run() == run());
}

/// Rekeys over a bad link. Whatever was sent arrived once, was lost on the link, or was dropped for a reason.
fn rekeys_over_a_bad_link(shape: Shape, faults: Faults, drain: bool) -> [u64; 2] {
    let mut loaded = Loaded::new(shape);
    let before = ENDS.map(|end| loaded.net.link.counts(end.outward()));
    loaded.set_faults(faults);
    loaded.load(20);
    for _ in 0..6 {
        loaded.rekey(drain);
    }
    loaded.load(20);
    loaded.settle();
    loaded.assert_balanced();
    assert_eq!(loaded.ledger.copies(), 0, "of the copies on the link none came through");
    for (from, before) in ENDS.into_iter().zip(before) {
        let counts = loaded.net.link.counts(from.outward());
        let lost = counts.lost - before.lost;
        let passed = counts.passed - before.passed;
        let copies = counts.duplicated - before.duplicated;
        let sealed = loaded.net.headend(from).counter(WorkerCounter::Sealed);
        assert_eq!(sealed, loaded.ledger.sent_from(from), "every packet was sealed");
        assert_eq!(passed + lost, counts.received - before.received + copies);

        let receiver = loaded.net.headend(from.other());
        let [replayed, too_old, unknown] =
            [DropReason::Replayed, DropReason::ReplayTooOld, DropReason::SpiUnknown]
                .map(|r| receiver.dropped(r));
        let opened = receiver.counter(WorkerCounter::Opened);
        assert_eq!(
            receiver.drops().iter().map(|(_, count)| count).sum::<u64>(),
            replayed + too_old + unknown
        );
        assert_eq!(loaded.ledger.arrived_from(from), opened, "what was opened came out");
        // Two packets each way went before the faults.
        assert_eq!(passed + 2, opened + replayed + too_old + unknown, "what came in is accounted for");
        if drain {
            assert_eq!(unknown, 0, "the old SA stayed for what was on its way");
        } else {
            assert!(unknown > 0, "something was still on its way under the old SA");
        }
        assert!(lost > 0 && copies > 0 && replayed > 0);
        if drain && too_old == 0 {
            assert_eq!(replayed, copies, "every copy was refused");
            assert_eq!(loaded.ledger.sent_from(from), loaded.ledger.arrived_from(from) + lost);
        }
    }
    ENDS.map(|end| loaded.net.headend(end).dropped(DropReason::ReplayTooOld))
}

const BAD: Faults = Faults {
    loss_ppm: 30_000,
    duplicate_ppm: 30_000,
    reorder_ppm: 50_000,
    reorder_depth: 20,
    corrupt_ppm: 0,
};

#[test]
fn over_a_link_that_loses_copies_and_reorders_the_counts_add_up() {
    for (seed, esn) in [(11, false), (12, true)] {
        let too_old = rekeys_over_a_bad_link(Shape { seed, esn, ..Shape::default() }, BAD, true);
        assert_eq!(too_old, [0; 2], "nothing was overtaken by a whole window");
    }
}

#[test]
fn a_small_window_drops_what_was_overtaken_too_far_and_counts_it() {
    let faults = Faults { reorder_depth: 200, ..BAD };
    let too_old =
        rekeys_over_a_bad_link(Shape { seed: 13, replay_window: 64, ..Shape::default() }, faults, true);
    assert!(too_old.iter().all(|count| *count > 0), "{too_old:?}");
}

#[test]
fn old_sas_taken_away_too_soon_cost_packets_and_each_is_counted() {
    rekeys_over_a_bad_link(Shape { seed: 14, ..Shape::default() }, BAD, false);
}

#[test]
fn damaged_frames_are_dropped_and_counted_and_never_come_through() {
    let mut loaded = Loaded::new(Shape { seed: 15, ..Shape::default() });
    loaded.set_faults(Faults { corrupt_ppm: 200_000, ..Faults::default() });
    loaded.load(200);
    loaded.rekey(true);
    loaded.settle();
    loaded.assert_balanced();
    assert_eq!((loaded.ledger.copies(), loaded.ledger.late()), (0, 0));
    for from in ENDS {
        let corrupted = loaded.net.link.counts(from.outward()).corrupted;
        let receiver = loaded.net.headend(from.other());
        let drops = receiver.drops().iter().map(|(_, count)| count).sum::<u64>();
        let missing = loaded.ledger.sent_from(from) - loaded.ledger.arrived_from(from);
        // A bit of the outer ToS, flags or TTL that the checksum covers is caught by it; a bit of a source Ethernet address
        // is nobody's business.
        assert_eq!(missing, drops);
        assert!(drops > corrupted / 2 && drops <= corrupted, "{drops} of {corrupted}");
        assert!(loaded.net.headend(from.other()).dropped(DropReason::BadIcv) > 0);
    }
}
