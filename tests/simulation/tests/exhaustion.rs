// SPDX-License-Identifier: Apache-2.0
//! Sequence numbers come to an end: of the SA, of what is reserved on disk, of a lifetime. Each stops the SA and nothing
//! else, and no number is ever given twice.

use ::esp::SequenceNumber;
use greyhound_simulation::Ending;
use greyhound_simulation::esp;
use greyhound_simulation::topology::{End, Shape, Topology};
use greyhound_simulation::traffic::Ledger;
use messages::{
    Base, Direction, DropReason, LifetimeLimits, Object, ObjectId, Refusal, SaIndex, WorkerCounter,
};

const ENDS: [End; 2] = [End::A, End::B];
/// The first number that an SA without ESN cannot give.
const PAST_END: u64 = 1 << 32;

struct Run {
    net: Topology,
    ledger: Ledger,
}

impl Run {
    /// A configured network whose neighbours know each other, A's first number being `first`.
    fn beginning_at(shape: Shape, first: u64) -> Self {
        let mut net = Topology::unconfigured(shape);
        net.begin_at(End::A, 0, first);
        net.configure(0);
        Self { net, ledger: Ledger::default() }
    }

    /// Sends packets of one flow and returns how many arrived.
    fn send(&mut self, from: End, packets: usize) -> u64 {
        let before = self.ledger.arrived_from(from);
        for sent in 1..=packets {
            self.ledger.send(&mut self.net, from, 0, 0, 30);
            // The first finds the neighbours.
            if sent == 1 || sent % 32 == 0 {
                self.net.settle();
            }
        }
        self.net.settle();
        self.ledger.collect(&mut self.net);
        self.ledger.arrived_from(from) - before
    }

    fn dropped(&mut self, from: End, reason: DropReason) -> u64 {
        self.net.headend(from).dropped(reason)
    }

    /// Whole numbers that A has put on the wire under SAs of a generation, in order: the IVs.
    fn numbers(&self, generation: u32) -> Vec<u64> {
        let Object::Sa(sa) = self.net.sa(End::A, Direction::Outbound, generation) else { unreachable!() };
        self.net.esp_seen().iter().filter(|packet| packet.spi == sa.spi).map(|packet| packet.iv).collect()
    }

    /// Lets A's SA skip numbers, as if it had used them.
    fn skip_to(&mut self, number: u64) {
        let state = self.net.headend(End::A).installer().state().clone();
        let (_, sa) = state.sad.all_outbound().next().expect("an outbound SA");
        sa.sequence().resume_at(SequenceNumber(number));
    }

    fn limit(&mut self) -> u64 {
        let now_ns = self.net.now_ns;
        let states = self.net.headend(End::A).sas(now_ns);
        states.iter().find_map(|sa| sa.outbound).expect("an outbound SA").limit
    }

    fn change(&mut self, end: End, deleted: &[ObjectId], objects: &[Object]) -> Result<(), Refusal> {
        let now_ns = self.net.now_ns;
        self.net.headend(end).change(Base::Running, deleted, objects, now_ns)
    }

    /// New SAs in the direction from A to B take the place of the old ones.
    fn rekey(&mut self, generation: u32) {
        let inbound = self.net.sa(End::B, Direction::Inbound, generation);
        self.change(End::B, &[], &[inbound]).expect("a new SA");
        let old = self.net.sa(End::A, Direction::Outbound, generation - 1).id();
        let outbound = self.net.sa(End::A, Direction::Outbound, generation);
        self.change(End::A, &[old], &[outbound]).expect("a new SA");
        self.net.settle();
    }

    fn assert_balanced(&mut self) {
        for end in ENDS {
            assert_eq!(self.net.headend(end).unaccounted(), 0);
        }
        assert_eq!(self.net.buffers_out(), 0, "a buffer leaked");
        assert_eq!((self.ledger.copies(), self.ledger.late()), (0, 0));
        assert_eq!(self.net.frames_in_clear(), 0);
        assert_eq!(esp::repeated_ivs(&self.net.esp_seen()), []);
    }
}

#[test]
fn without_esn_the_last_number_is_two_to_the_32_less_one_and_nothing_wraps() {
    let mut run = Run::beginning_at(Shape::default(), PAST_END - 50);
    assert_eq!(run.send(End::A, 100), 50);
    assert_eq!(run.numbers(0), (PAST_END - 50..PAST_END).collect::<Vec<_>>());
    assert_eq!(run.dropped(End::A, DropReason::SequenceExhausted), 50);
    assert_eq!(run.send(End::B, 70), 70, "the other direction goes on");

    run.net.headend(End::A).housekeep().expect("a store");
    assert_eq!((run.send(End::A, 200), run.numbers(0).len()), (0, 50), "no more for any housekeeping");
    assert_eq!(run.net.headend(End::A).drops(), [(DropReason::SequenceExhausted, 250)]);
    run.assert_balanced();

    run.rekey(1);
    assert_eq!(run.send(End::A, 60), 60, "a new SA brings it back");
    assert_eq!(run.numbers(1), (1..=60).collect::<Vec<_>>());
    assert_eq!(run.dropped(End::A, DropReason::SequenceExhausted), 250);
    run.assert_balanced();
}

#[test]
fn a_restart_does_not_bring_an_exhausted_key_back() {
    for ending in [Ending::Clean, Ending::Crash] {
        let mut run = Run::beginning_at(Shape::default(), PAST_END - 3);
        assert_eq!(run.send(End::A, 5), 3);
        for _ in 0..2 {
            run.net.restart(End::A, ending);
            run.net.configure(0);
            assert_eq!(run.send(End::A, 5), 0, "{ending:?}");
            assert_eq!(run.dropped(End::A, DropReason::SequenceExhausted), 5);
        }
        assert_eq!(run.numbers(0).len(), 3);
        run.assert_balanced();
    }
}

#[test]
fn with_esn_the_counter_goes_on_past_two_to_the_32() {
    let mut run = Run::beginning_at(Shape { esn: true, ..Shape::default() }, PAST_END - 50);
    assert_eq!(run.send(End::A, 100), 100);
    assert_eq!(run.numbers(0), (PAST_END - 50..PAST_END + 50).collect::<Vec<_>>());
    assert_eq!(run.net.headend(End::A).drops(), []);
    run.assert_balanced();
}

#[test]
fn with_esn_the_very_end_stops_it_too() {
    let mut run = Run::beginning_at(Shape { esn: true, ..Shape::default() }, u64::MAX - 5);
    assert_eq!(run.send(End::A, 10), 5);
    assert_eq!(run.numbers(0), (u64::MAX - 5..u64::MAX).collect::<Vec<_>>());
    assert_eq!(run.dropped(End::A, DropReason::SequenceExhausted), 5);
    run.assert_balanced();
}

#[test]
fn an_sa_stops_at_what_is_reserved_until_housekeeping_reserves_more() {
    for esn in [false, true] {
        let mut run = Run::beginning_at(Shape { esn, ..Shape::default() }, 1);
        assert_eq!(run.send(End::A, 10), 10);
        for round in 1..=3 {
            let limit = run.limit();
            run.skip_to(limit - 20);
            assert_eq!(run.send(End::A, 50), 20, "up to the limit and not one more");
            assert_eq!(run.dropped(End::A, DropReason::SequenceNotReserved), round * 30);
            assert_eq!(run.send(End::B, 40), 40, "the other direction goes on");
            run.net.headend(End::A).housekeep().expect("a store");
            assert_eq!(run.send(End::A, 25), 25);
            let numbers = run.numbers(0);
            let last = &numbers[numbers.len() - 45..];
            assert!(last.iter().copied().eq(limit - 20..limit + 25), "no number was lost at the limit");
        }
        run.assert_balanced();
    }
}

#[test]
fn housekeeping_in_time_never_lets_an_sa_stop() {
    let mut run = Run::beginning_at(Shape::default(), 1);
    for _ in 0..5 {
        let limit = run.limit();
        // More than half of what is reserved is used.
        run.skip_to(limit - dataplane::installer::RESERVE / 2 + 1);
        run.net.headend(End::A).housekeep().expect("a store");
        assert!(run.limit() > limit);
        run.skip_to(limit - 10);
        assert_eq!(run.send(End::A, 40), 40, "across the old limit");
    }
    assert_eq!(run.net.headend(End::A).drops(), []);
    run.assert_balanced();
}

/// The directory is moved away and back, as a file system that is gone for a while.
#[test]
fn while_the_store_cannot_be_written_sas_run_to_their_limits_and_recover_when_it_is_back() {
    let mut run = Run::beginning_at(Shape::default(), 1);
    let directory = run.net.directory(End::A).clone();
    let away = directory.with_extension("away");
    std::fs::rename(&directory, &away).expect("a rename");

    let limit = run.limit();
    run.skip_to(limit - 30);
    assert!(run.net.headend(End::A).housekeep().is_err());
    assert_eq!(run.limit(), limit, "what is not on disk is not given out");
    assert_eq!(run.send(End::A, 40), 30);
    assert_eq!(run.dropped(End::A, DropReason::SequenceNotReserved), 10);
    let new = [run.net.sa(End::A, Direction::Inbound, 1), run.net.sa(End::A, Direction::Outbound, 1)];
    let old = run.net.sa(End::A, Direction::Outbound, 0).id();
    let refused = run.change(End::A, &[old], &new);
    assert_eq!(refused, Err(Refusal::StoreWrite(new[1].id())), "no new SA without its numbers on disk");
    assert_eq!(run.send(End::B, 40), 40, "inbound goes on");
    assert_eq!(run.send(End::A, 5), 0);

    std::fs::rename(&away, &directory).expect("a rename");
    run.net.headend(End::A).housekeep().expect("the store is back");
    assert_eq!(run.send(End::A, 40), 40);
    run.net.restart(End::A, Ending::Crash);
    run.net.configure(0);
    assert_eq!(run.send(End::A, 40), 40);
    assert_eq!(run.net.headend(End::A).drops(), []);
    run.assert_balanced();
}

#[test]
fn a_key_refused_for_want_of_a_store_begins_at_one_once_it_is_taken() {
    let mut run = Run::beginning_at(Shape::default(), 1);
    let directory = run.net.directory(End::A).clone();
    let away = directory.with_extension("away");
    std::fs::rename(&directory, &away).expect("a rename");
    let outbound = run.net.sa(End::A, Direction::Outbound, 1);
    let old = run.net.sa(End::A, Direction::Outbound, 0).id();
    for _ in 0..3 {
        let refused = run.change(End::A, &[old], std::slice::from_ref(&outbound));
        assert_eq!(refused, Err(Refusal::StoreWrite(outbound.id())));
    }
    std::fs::rename(&away, &directory).expect("a rename");
    run.rekey(1);
    assert_eq!(run.send(End::A, 10), 10);
    assert_eq!(run.numbers(1), (1..=10).collect::<Vec<_>>());
    run.assert_balanced();
}

#[test]
fn an_inbound_key_is_refused_until_it_is_noted_that_it_opens() {
    let mut run = Run::beginning_at(Shape::default(), 1);
    let directory = run.net.directory(End::A).clone();
    let away = directory.with_extension("away");
    std::fs::rename(&directory, &away).expect("a rename");
    let inbound = run.net.sa(End::A, Direction::Inbound, 1);
    for _ in 0..3 {
        let refused = run.change(End::A, &[], std::slice::from_ref(&inbound));
        assert_eq!(refused, Err(Refusal::StoreWrite(inbound.id())));
    }
    std::fs::rename(&away, &directory).expect("a rename");
    run.change(End::A, &[], std::slice::from_ref(&inbound)).expect("a valid change");
    run.net.restart(End::A, Ending::Crash);
    run.net.configure(0);
    let Object::Sa(mut turned) = inbound else { unreachable!("an SA") };
    turned.direction = Direction::Outbound;
    turned.replay_window = 0;
    let old = run.net.sa(End::A, Direction::Outbound, 0).id();
    let refused = run.change(End::A, &[old], &[Object::Sa(turned.clone())]);
    assert_eq!(refused, Err(Refusal::KeyTurned(Object::Sa(turned).id())));
    run.assert_balanced();
}

#[test]
fn an_sa_at_its_hard_lifetime_carries_nothing_more_in_either_direction() {
    for (at_sender, reached_by) in [(true, "packets"), (false, "packets"), (true, "time"), (false, "time")] {
        let net = Topology::new(Shape::default());
        let end = if at_sender { End::A } else { End::B };
        let mut objects = net.objects(end, 0);
        for object in &mut objects {
            let Object::Sa(sa) = object else { continue };
            if (sa.direction == Direction::Outbound) == at_sender {
                sa.lifetime = match reached_by {
                    "packets" => LifetimeLimits { hard_packets: 100, ..LifetimeLimits::default() },
                    _ => LifetimeLimits { hard_seconds: 60, ..LifetimeLimits::default() },
                };
            }
        }
        let mut run = Run { net, ledger: Ledger::default() };
        run.net.restart(end, Ending::Clean);
        let now_ns = run.net.now_ns;
        run.net.headend(end).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
        run.net.settle();
        if reached_by == "packets" {
            let passed = run.send(End::A, 200);
            assert!((100..100 + 64).contains(&passed), "{passed}: a burst may pass it");
        } else {
            assert_eq!(run.send(End::A, 50), 50);
            run.net.pass(60_000_000_000);
        }
        assert_eq!(run.send(End::A, 50), 0);
        let lost = run.ledger.missing();
        assert_eq!(run.net.headend(end).drops(), [(DropReason::SaExpired, lost)], "{reached_by}");
        assert_eq!(run.send(End::B, 50), 50, "the other direction goes on");
        assert_eq!(run.net.headend(End::A).counter(WorkerCounter::Opened), 50);
        run.assert_balanced();
    }
}

#[test]
fn an_sa_index_says_nothing_about_numbers() {
    // The same key under another index goes on counting; another key under the same index begins at 1.
    let mut run = Run::beginning_at(Shape::default(), 1);
    assert_eq!(run.send(End::A, 10), 10);
    let Object::Sa(mut sa) = run.net.sa(End::A, Direction::Outbound, 0) else { unreachable!() };
    let old = ObjectId::Sa(sa.sa);
    sa.sa = SaIndex(77);
    run.change(End::A, &[old], &[Object::Sa(sa)]).expect("the same SA elsewhere");
    assert_eq!(run.send(End::A, 10), 10);
    assert_eq!(run.numbers(0), (1..=20).collect::<Vec<_>>());
    let inbound = run.net.sa(End::B, Direction::Inbound, 1);
    run.change(End::B, &[], &[inbound]).expect("a new SA");
    let Object::Sa(mut other) = run.net.sa(End::A, Direction::Outbound, 1) else { unreachable!() };
    other.sa = SaIndex(77);
    run.change(End::A, &[], &[Object::Sa(other)]).expect("another key");
    run.net.settle();
    assert_eq!(run.send(End::A, 10), 10);
    assert_eq!(run.numbers(1), (1..=10).collect::<Vec<_>>());
    run.assert_balanced();
}
