// SPDX-License-Identifier: Apache-2.0
//! Copies and reordering: exactly one of each packet passes, and the rest is counted for what it was.
//!
//! What A seals is recorded while the link loses all of it; then it is put on the link towards B in an order, and in
//! bursts, that the test chooses. What must become of each packet says a model with a set and no ring of bits.

use std::collections::HashSet;
use std::iter::repeat_n;

use greyhound_simulation::topology::{End, Shape, Topology};
use greyhound_simulation::traffic::Ledger;
use greyhound_simulation::{esp, packets};
use messages::{DropReason, EspMode, WorkerCounter};
use port::fault::Faults;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZES: [u16; 8] = [64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192];
const BOUNDARY: u64 = 1 << 32;
/// Packets that a worker takes at once.
const BURST: usize = 64;
/// What may become of a packet that does not pass.
const REFUSED: [DropReason; 3] = [DropReason::Replayed, DropReason::ReplayTooOld, DropReason::BadIcv];

/// RFC 4303 §3.4.3 for whole sequence numbers.
struct Model {
    size: u64,
    esn: bool,
    edge: u64,
    seen: HashSet<u64>,
}

impl Model {
    /// Everything up to `edge` was received.
    fn new(shape: &Shape, edge: u64) -> Self {
        let size = u64::from(shape.replay_window);
        Self { size, esn: shape.esn, edge, seen: (edge.saturating_sub(size)..=edge).collect() }
    }

    fn check(&self, number: u64) -> Result<(), DropReason> {
        if self.size == 0 {
            Ok(())
        } else if number + self.size <= self.edge {
            Err(DropReason::ReplayTooOld)
        } else if self.seen.contains(&number) {
            Err(DropReason::Replayed)
        } else {
            Ok(())
        }
    }

    /// What is said of a packet before it is opened. With ESN a low word from behind the window is taken for one of the
    /// next 2^32 numbers (RFC 4303 App. A2), so that what is too old has a wrong ICV.
    fn check_unopened(&self, number: u64) -> Result<(), DropReason> {
        self.check(number).map_err(|reason| match reason {
            DropReason::ReplayTooOld if self.esn => DropReason::BadIcv,
            _ => reason,
        })
    }

    /// A burst is checked, opened, and each packet of it checked again and marked.
    fn burst(&mut self, numbers: &[u64]) -> Vec<Result<(), DropReason>> {
        let before: Vec<_> = numbers.iter().map(|number| self.check_unopened(*number)).collect();
        let again = numbers.iter().zip(before).map(|(number, before)| {
            before.and_then(|()| self.check(*number)).inspect(|()| {
                self.seen.insert(*number);
                self.edge = self.edge.max(*number);
            })
        });
        again.collect()
    }
}

/// What A sealed for B and B has not seen yet, and what B has.
struct Recording {
    net: Topology,
    ledger: Ledger,
    frames: Vec<Vec<u8>>,
    numbers: Vec<u64>,
    model: Model,
}

impl Recording {
    /// `count` packets under the SA's numbers from `first` on, the one before which has arrived.
    fn new(shape: Shape, first: u64, count: usize) -> Self {
        let model = Model::new(&shape, first - 1);
        let mut net = Topology::unconfigured(shape);
        net.begin_at(End::A, 0, first - 1);
        net.configure(0);
        let mut ledger = Ledger::default();
        ledger.send(&mut net, End::A, 0, 0, 40);
        net.settle();
        ledger.collect(&mut net);
        ledger.assert_complete();
        let mut recording = Self { net, ledger, frames: Vec::new(), numbers: Vec::new(), model };
        recording.record(count);
        assert_eq!(recording.numbers, (first..first + count as u64).collect::<Vec<_>>());
        recording
    }

    fn record(&mut self, count: usize) {
        let everything = Faults { loss_ppm: 1_000_000, ..Faults::default() };
        self.net.link.set_faults(End::A.outward(), everything);
        let before = self.net.seen.lock().expect("no panic").len();
        for sent in 0..count {
            self.ledger.send(&mut self.net, End::A, 0, 0, 40);
            if sent % BURST == BURST - 1 {
                self.net.step();
            }
        }
        self.net.settle();
        self.net.link.set_faults(End::A.outward(), Faults::default());
        let frames = self.net.seen.lock().expect("no panic").split_off(before);
        // With an empty prefix the IV is the whole number (RFC 4106 §3.1 leaves that to the sender).
        self.numbers.extend(esp::read_all(&frames).iter().map(|packet| packet.iv));
        self.frames.extend(frames);
        assert_eq!(self.numbers.len(), self.frames.len());
    }

    /// Puts one burst on the link to B and holds B to what the model says of each packet.
    fn burst(&mut self, places: &[usize]) {
        assert!(places.len() <= BURST);
        for place in places {
            self.net.inject(End::B, 0, &self.frames[*place]);
        }
        let numbers: Vec<_> = places.iter().map(|place| self.numbers[*place]).collect();
        let expected = self.model.burst(&numbers);
        let before = REFUSED.map(|reason| self.net.headend(End::B).dropped(reason));
        let arrived = self.ledger.arrived();
        self.net.step();
        self.ledger.collect(&mut self.net);
        for (reason, before) in REFUSED.into_iter().zip(before) {
            let expected = expected.iter().filter(|outcome| **outcome == Err(reason)).count() as u64;
            let dropped = self.net.headend(End::B).dropped(reason) - before;
            assert_eq!(dropped, expected, "{reason} of {numbers:x?} at {:x}", self.model.edge);
        }
        let passed = expected.iter().filter(|outcome| outcome.is_ok()).count() as u64;
        assert_eq!(self.ledger.arrived() - arrived, passed, "of {numbers:x?} at {:x}", self.model.edge);
    }

    fn bursts(&mut self, places: &[usize], random: &mut ChaCha8Rng) {
        let mut rest = places;
        while !rest.is_empty() {
            let (burst, after) = rest.split_at(random.random_range(1..=BURST).min(rest.len()));
            self.burst(burst);
            rest = after;
        }
    }

    /// What was refused, by reason; nothing else was.
    fn refused(mut self) -> [u64; 3] {
        let b = self.net.headend(End::B);
        let refused = REFUSED.map(|reason| b.dropped(reason));
        assert_eq!(
            b.drops().iter().map(|(_, count)| count).sum::<u64>(),
            refused.iter().sum(),
            "{:?}",
            b.drops()
        );
        assert_eq!((b.unaccounted(), b.counter(WorkerCounter::Opened)), (0, self.ledger.arrived()));
        assert_eq!(self.net.buffers_out(), 0, "a buffer leaked");
        if self.model.size > 0 {
            assert_eq!(self.ledger.copies(), 0, "a copy came through");
        }
        refused
    }
}

fn shape(replay_window: u16, esn: bool) -> Shape {
    let esp = Some(if esn { EspMode::Tunnel } else { EspMode::Transport });
    Shape { replay_window, esn, esp, ..Shape::default() }
}

/// Every place once or, some of them, up to four times; each moved back by up to `depth` places.
fn muddled(places: usize, depth: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order = Vec::new();
    for place in 0..places {
        let copies = if random.random_ratio(1, 4) { random.random_range(2..=4) } else { 1 };
        for _ in 0..copies {
            // Half of the copies follow at once, so that a burst holds several.
            let delay = if random.random() { 0 } else { random.random_range(0..depth) };
            order.push((place + delay, place));
        }
    }
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}

#[test]
fn of_all_copies_of_a_packet_in_one_burst_exactly_one_passes() {
    for size in SIZES {
        for esn in [false, true] {
            let mut recording = Recording::new(shape(size, esn), 2, 32);
            recording.burst(&(0..16).flat_map(|place| repeat_n(place, 4)).collect::<Vec<_>>());
            recording.burst(&(16..32).cycle().take(64).collect::<Vec<_>>());
            recording.burst(&[31; 64]);
            assert_eq!(recording.ledger.arrived(), 1 + 32);
            recording.ledger.assert_complete();
            assert_eq!(recording.refused(), [48 + 48 + 64, 0, 0]);
        }
    }
}

#[test]
fn a_link_that_copies_every_frame_changes_nothing_but_the_count() {
    for size in SIZES {
        let mut net = Topology::new(shape(size, false));
        net.link.set_faults(End::A.outward(), Faults { duplicate_ppm: 1_000_000, ..Faults::default() });
        let mut ledger = Ledger::default();
        for sent in 0..300 {
            ledger.send(&mut net, End::A, sent % 2, 0, 50);
            if sent % 50 < 2 {
                net.settle();
            }
        }
        net.settle();
        ledger.collect(&mut net);
        ledger.assert_complete();
        let copies = net.seen.lock().expect("no panic").iter().filter(|frame| packets::is_esp(frame)).count();
        assert_eq!(net.headend(End::B).drops(), [(DropReason::Replayed, copies as u64)]);
        assert_eq!((copies, net.buffers_out()), (300, 0));
    }
}

#[test]
fn the_window_ends_exactly_at_its_size() {
    for size in SIZES {
        let newest = usize::from(size);
        for esn in [false, true] {
            // Place n has the number n + 2. The first three are overtaken.
            let mut recording = Recording::new(shape(size, esn), 2, newest + 3);
            let mut random = ChaCha8Rng::seed_from_u64(1);
            recording.bursts(&(3..=newest).collect::<Vec<_>>(), &mut random);
            // One by a whole window, one by a packet less, …
            recording.burst(&[0]);
            recording.burst(&[1, 1, 0]);
            // … and one falls out of the window by the packet before it in the burst.
            recording.burst(&[newest + 2, 2]);
            recording.burst(&[newest + 1]);
            assert_eq!(recording.ledger.missing(), 2);
            let expected = if esn { [1, 1, 2] } else { [1, 3, 0] };
            assert_eq!(recording.refused(), expected, "window {size}");
        }
    }
}

#[test]
fn any_order_with_copies_ends_as_the_model_says_for_each_window() {
    for (seed, size) in (1..).zip(SIZES) {
        let places = usize::from(size) + 400;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let esn = seed % 2 == 0;
        let mut recording = Recording::new(shape(size, esn), 2, places);
        let order = muddled(places, usize::from(size) * 2, &mut random);
        recording.bursts(&order, &mut random);
        let [replayed, too_old, bad_icv] = recording.refused();
        assert!(replayed > 0 && too_old + bad_icv > 0, "window {size}");
        assert_eq!(bad_icv > 0, esn, "window {size}");
    }
}

#[test]
fn without_a_window_every_copy_passes() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut recording = Recording::new(shape(0, false), 2, 200);
    let order = muddled(200, 100, &mut random);
    recording.bursts(&order, &mut random);
    assert_eq!(recording.ledger.arrived(), 1 + order.len() as u64);
    assert_eq!(recording.refused(), [0; 3]);
}

#[test]
fn extended_numbers_cross_two_to_the_32_in_order() {
    let mut recording = Recording::new(shape(64, true), BOUNDARY - 100, 200);
    let low: Vec<_> = esp::read_all(&recording.frames).iter().map(|packet| packet.sequence).collect();
    assert_eq!((low[99], low[100], low[101]), (u32::MAX, 0, 1), "a low word of 0 is sent");
    recording.bursts(&(0..200).collect::<Vec<_>>(), &mut ChaCha8Rng::seed_from_u64(2));
    recording.ledger.assert_complete();
    assert_eq!(recording.refused(), [0; 3]);
}

#[test]
fn a_window_across_two_to_the_32_takes_any_order_and_no_copy() {
    for (seed, size) in (10..).zip(SIZES) {
        let before = 1 + u64::from(size) / 2;
        let places = usize::from(size) + 100;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut recording = Recording::new(shape(size, true), BOUNDARY - before, places);
        let order = muddled(places, usize::from(size) / 2, &mut random);
        recording.bursts(&order, &mut random);
        recording.burst(&(0..64).map(|_| random.random_range(places - 50..places)).collect::<Vec<_>>());
        assert_eq!(recording.ledger.missing(), 0, "window {size}");
        let refused = recording.refused().iter().sum::<u64>();
        assert_eq!(refused as usize, order.len() + 64 - places);
    }
}

#[test]
fn packets_lost_around_two_to_the_32_do_not_confuse_the_high_word() {
    for (size, lost) in [(64, 1), (64, 63), (64, 64), (64, 65), (128, 5_000), (8_192, 8_200)] {
        let mut recording = Recording::new(shape(size, true), BOUNDARY - 40, 20 + lost + 80);
        let rest = (0..20).chain(20 + lost..20 + lost + 80).collect::<Vec<_>>();
        recording.bursts(&rest, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(recording.ledger.missing(), lost as u64);
        assert_eq!(recording.refused(), [0; 3]);
    }
}

/// Its low word lies ahead of the window, so it is taken for one of the next 2^32; then the ICV is wrong, and the window
/// stays where it is.
#[test]
fn a_copy_from_before_two_to_the_32_that_comes_long_after_is_not_opened() {
    let mut recording = Recording::new(shape(64, true), BOUNDARY - 10, 300);
    let mut random = ChaCha8Rng::seed_from_u64(4);
    recording.bursts(&(0..290).collect::<Vec<_>>(), &mut random);
    let copies = 8;
    for place in 0..copies {
        recording.net.inject(End::B, 0, &recording.frames[place]);
    }
    recording.net.step();
    assert_eq!(recording.net.headend(End::B).drops(), [(DropReason::BadIcv, copies as u64)]);
    recording.bursts(&(280..300).collect::<Vec<_>>(), &mut random);
    recording.ledger.assert_complete();
    let expected = [(DropReason::Replayed, 10), (DropReason::BadIcv, copies as u64)];
    assert_eq!(recording.net.headend(End::B).drops(), expected);
}

#[test]
fn a_shuffled_burst_loses_nothing() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut recording = Recording::new(shape(64, true), 2, 64 * 20);
    for burst in 0..20 {
        let mut places: Vec<_> = (burst * 64..(burst + 1) * 64).collect();
        places.shuffle(&mut random);
        recording.burst(&places);
    }
    assert_eq!((recording.ledger.missing(), recording.ledger.copies()), (0, 0));
    assert_eq!(recording.refused(), [0; 3]);
}
