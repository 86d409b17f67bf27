// SPDX-License-Identifier: Apache-2.0
//! The plug is pulled: processes end without a word, at moments that a seed chooses, and start again on what is on disk.
//! No IV returns under its key, nothing leaves in clear, nothing received before is taken again, traffic is back.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dataplane::installer::RESERVE;
use dataplane::store::SequenceStore;
use greyhound_simulation::topology::{End, Shape, Topology};
use greyhound_simulation::traffic::Ledger;
use greyhound_simulation::{Ending, esp};
use messages::{Base, Direction, DropReason, EspMode, Object, Refusal};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ENDS: [End; 2] = [End::A, End::B];
const FILES: [&str; 2] = ["sequence-limits", "replay-edges"];

struct Run {
    net: Topology,
    ledger: Ledger,
    random: ChaCha8Rng,
    housekeeps: bool,
}

impl Run {
    fn new(shape: Shape) -> Self {
        let random = ChaCha8Rng::seed_from_u64(shape.seed);
        let mut run = Self { net: Topology::new(shape), ledger: Ledger::default(), random, housekeeps: true };
        run.carries_everything();
        run
    }

    /// Traffic both ways for some turns, each end's housekeeping now and then; much is on its way at the end.
    fn load(&mut self, steps: usize) {
        for _ in 0..steps {
            for from in ENDS {
                for _ in 0..self.random.random_range(0..16) {
                    let (flow, queue) = self.flow();
                    self.ledger.send(&mut self.net, from, flow, queue, 200);
                }
                if self.housekeeps && self.random.random_ratio(1, 10) {
                    self.net.headend(from).housekeep().expect("a store");
                }
                let now_ns = self.net.now_ns;
                self.net.headend(from).turn(now_ns);
                self.net.now_ns += 5_000;
            }
            if self.random.random_ratio(1, 3) {
                self.net.link.carry();
            }
            self.ledger.collect(&mut self.net);
        }
    }

    fn flow(&mut self) -> (u16, u16) {
        let flow = self.random.random_range(0..8);
        (flow, flow % self.net.shape.workers)
    }

    /// Traffic is back: of some packets of each flow both ways none is missing.
    fn carries_everything(&mut self) {
        self.net.settle();
        self.ledger.collect(&mut self.net);
        let missing = self.ledger.missing();
        for _ in 0..3 {
            for from in ENDS {
                for flow in 0..4 {
                    let queue = flow % self.net.shape.workers;
                    self.ledger.send(&mut self.net, from, flow, queue, 60);
                }
            }
            self.net.settle();
        }
        self.ledger.collect(&mut self.net);
        assert_eq!(self.ledger.missing(), missing, "{:?}", self.drops());
    }

    /// An end dies and comes back; its control gives it the same configuration with the same keys again, at once or the
    /// SAs some time after the rest.
    fn restart(&mut self, end: End, ending: Ending) {
        self.net.restart(end, ending);
        if self.random.random() {
            let (network, now_ns) = (self.net.network(end), self.net.now_ns);
            self.net.headend(end).put(Base::Empty, &network, now_ns).expect("a valid configuration");
            let steps = self.random.random_range(0..4);
            self.load(steps);
        }
        let (objects, now_ns) = (self.net.objects(end, 0), self.net.now_ns);
        self.net.headend(end).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
    }

    fn drops(&mut self) -> [Vec<(DropReason, u64)>; 2] {
        ENDS.map(|end| self.net.headend(end).drops())
    }

    /// Whole numbers that an end has used so far, in order: the IVs.
    fn numbers(&self, from: End) -> Vec<u64> {
        let (_, to) = self.net.endpoints(from);
        let seen = self.net.esp_seen();
        seen.iter().filter(|packet| packet.destination == to).map(|packet| packet.iv).collect()
    }

    /// ESP frames that an end has sent so far.
    fn frames(&self, from: End) -> Vec<Vec<u8>> {
        let (_, to) = self.net.endpoints(from);
        let is_from = |frame: &&Vec<u8>| esp::read(frame).is_some_and(|packet| packet.destination == to);
        self.net.seen.lock().expect("no panic").iter().filter(is_from).cloned().collect()
    }

    /// Puts frames on the link once more, and returns how many packets came out at the other site.
    fn replay(&mut self, to: End, frames: &[Vec<u8>]) -> u64 {
        self.net.settle();
        self.ledger.collect(&mut self.net);
        let before = self.ledger.arrived_from(to.other());
        // No more at once than may wait for a neighbour that the new process does not know yet.
        for burst in frames.chunks(16) {
            burst.iter().for_each(|frame| self.net.inject(to, 0, frame));
            self.net.settle();
        }
        self.ledger.collect(&mut self.net);
        self.ledger.arrived_from(to.other()) - before
    }

    fn assert_sound(&mut self) {
        for end in ENDS {
            assert_eq!(self.net.headend(end).unaccounted(), 0);
            let numbers = self.numbers(end);
            assert!(numbers.is_sorted_by(|a, b| a < b), "numbers only rise");
        }
        assert_eq!(esp::repeated_ivs(&self.net.esp_seen()), []);
        assert_eq!((self.net.frames_in_clear(), self.net.buffers_out()), (0, 0));
        assert_eq!((self.ledger.copies(), self.ledger.late(), self.ledger.strays().len()), (0, 0, 0));
    }
}

/// Sets damage to the files of a store, and says which.
type Damage = (&'static str, fn(&PathBuf));

fn flip_a_bit(path: &PathBuf) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).expect("a file that can be written");
}

fn cut_short(path: &PathBuf) {
    let bytes = std::fs::read(path).expect("a file");
    std::fs::write(path, &bytes[..bytes.len() - 1]).expect("a file that can be written");
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).expect("a file");
    file.write_all(bytes).expect("a file that can be written");
}

fn take_away(path: &PathBuf) {
    std::fs::remove_file(path).expect("a file");
}

#[test]
fn crashes_at_random_moments_repeat_no_iv_and_leak_nothing() {
    let shape =
        |seed, esn, esp, delivery_v6| Shape { seed, esn, esp: Some(esp), delivery_v6, ..Shape::default() };
    for shape in [
        shape(1, false, EspMode::Transport, false),
        shape(2, true, EspMode::Tunnel, false),
        shape(3, true, EspMode::Transport, true),
    ] {
        let mut run = Run::new(shape);
        for _ in 0..20 {
            let steps = run.random.random_range(1..40);
            run.load(steps);
            let end = ENDS[run.random.random_range(0..2)];
            let ending = if run.random.random_ratio(3, 4) { Ending::Crash } else { Ending::Clean };
            run.restart(end, ending);
            if run.random.random_ratio(1, 4) {
                run.restart(end.other(), Ending::Crash);
            }
            run.carries_everything();
        }
        run.assert_sound();
        let sent = run.ledger.sent();
        assert!(
            sent > 4_000 && run.ledger.missing() < sent / 4,
            "{} of {sent} missing",
            run.ledger.missing()
        );
    }
}

#[test]
fn a_crash_skips_at_most_what_was_reserved_and_a_clean_stop_nothing() {
    let mut run = Run::new(Shape { esn: true, ..Shape::default() });
    let mut crashes = 0;
    for ending in [Ending::Clean, Ending::Crash, Ending::Clean, Ending::Crash, Ending::Crash, Ending::Clean] {
        let last = *run.numbers(End::A).last().expect("a packet");
        run.restart(End::A, ending);
        run.carries_everything();
        let next = *run.numbers(End::A).iter().find(|number| **number > last).expect("a packet");
        match ending {
            Ending::Clean => assert_eq!(next, last + 1),
            Ending::Crash => {
                crashes += 1;
                assert!(next > last + 1 && next <= last + 1 + RESERVE, "from {last} to {next}");
            }
        }
    }
    assert!(*run.numbers(End::A).last().expect("a packet") < (crashes + 1) * RESERVE);
    run.assert_sound();
}

#[test]
fn crashes_without_any_traffic_do_not_use_the_numbers_up() {
    for esn in [false, true] {
        let mut run = Run::new(Shape { esn, ..Shape::default() });
        for _ in 0..50 {
            run.net.restart(End::A, Ending::Crash);
            run.net.configure(0);
        }
        run.carries_everything();
        assert!(*run.numbers(End::A).last().expect("a packet") <= 51 * RESERVE + 100, "of 2^32");
        run.assert_sound();
    }
}

#[test]
fn what_was_received_before_the_end_is_refused_after_it() {
    for (replay_window, esn) in [(64, false), (1_024, false), (64, true), (8_192, true)] {
        for ending in [Ending::Crash, Ending::Clean] {
            let mut run = Run::new(Shape { replay_window, esn, seed: 4, ..Shape::default() });
            run.load(40);
            run.net.settle();
            if ending == Ending::Crash {
                run.net.headend(End::B).housekeep().expect("a store");
            }
            let before = run.frames(End::A);
            run.net.restart(End::B, ending);
            run.net.configure(0);
            assert!(before.len() > 300);
            assert_eq!(run.replay(End::B, &before), 0, "{ending:?}, window {replay_window}");
            let refused: u64 = run.net.headend(End::B).drops().iter().map(|(_, count)| count).sum();
            assert_eq!(refused, before.len() as u64);
            for (reason, _) in run.net.headend(End::B).drops() {
                // With ESN what is too old is taken for a number far ahead, whose ICV is wrong (RFC 4303 App. A2).
                let old = if esn { DropReason::BadIcv } else { DropReason::ReplayTooOld };
                assert!(reason == DropReason::Replayed || reason == old, "{reason}");
            }
            run.carries_everything();
            run.assert_sound();
        }
    }
}

#[test]
fn what_came_after_the_edge_was_last_written_is_all_that_can_be_taken_twice() {
    let mut run = Run::new(Shape { seed: 5, ..Shape::default() });
    run.load(20);
    run.net.settle();
    run.net.headend(End::B).housekeep().expect("a store");
    let written = run.frames(End::A).len();
    run.housekeeps = false;
    run.load(20);
    run.net.settle();
    run.ledger.collect(&mut run.net);
    let frames = run.frames(End::A);
    run.net.restart(End::B, Ending::Crash);
    run.net.configure(0);
    assert_eq!(run.replay(End::B, &frames[..written]), 0);
    assert_eq!(run.replay(End::B, &frames[written..]), (frames.len() - written) as u64, "the documented gap");
    assert_eq!(run.replay(End::B, &frames), 0, "and no third time");
}

#[test]
fn a_key_taken_away_and_added_again_goes_on_where_it_was() {
    for between in [None, Some(Ending::Clean), Some(Ending::Crash)] {
        let mut run = Run::new(Shape { seed: 6, ..Shape::default() });
        run.load(20);
        run.net.settle();
        run.ledger.collect(&mut run.net);
        let frames = run.frames(End::A);
        for (end, direction) in [(End::A, Direction::Outbound), (End::B, Direction::Inbound)] {
            let sa = run.net.sa(end, direction, 0);
            let now_ns = run.net.now_ns;
            run.net.headend(end).change(Base::Running, &[sa.id()], &[], now_ns).expect("a valid change");
        }
        run.net.settle();
        run.ledger.send(&mut run.net, End::A, 0, 0, 30);
        run.net.settle();
        let dropped = [End::A, End::B].map(|end| run.net.headend(end).dropped(DropReason::NoSa));
        assert_eq!(dropped, [1, 0], "in between nothing leaves");
        for end in ENDS {
            if let Some(ending) = between {
                run.net.headend(end).housekeep().expect("a store");
                run.net.restart(end, ending);
            }
        }
        if between.is_some() {
            run.net.configure(0);
        } else {
            for (end, direction) in [(End::B, Direction::Inbound), (End::A, Direction::Outbound)] {
                let sa = run.net.sa(end, direction, 0);
                run.net.commit(end, &[sa]).expect("the key again");
            }
        }
        run.net.settle();
        assert_eq!(run.replay(End::B, &frames), 0, "{between:?}: what was received stays received");
        run.carries_everything();
        run.assert_sound();
    }
}

/// What the peer sealed under a key must not be sealed here under the same IVs, however long ago that was.
#[test]
fn a_key_that_served_one_direction_is_not_taken_for_the_other() {
    for ending in [None, Some(Ending::Clean), Some(Ending::Crash)] {
        for replay_window in [0, 1_024] {
            let mut run = Run::new(Shape { replay_window, ..Shape::default() });
            let sas = [Direction::Inbound, Direction::Outbound].map(|way| run.net.sa(End::A, way, 0));
            let now_ns = run.net.now_ns;
            let ids = [sas[0].id(), sas[1].id()];
            run.net.headend(End::A).change(Base::Running, &ids, &[], now_ns).expect("a valid change");
            run.net.settle();
            if let Some(ending) = ending {
                run.net.headend(End::A).housekeep().expect("a store");
                run.net.restart(End::A, ending);
                let network = run.net.network(End::A);
                run.net.headend(End::A).put(Base::Empty, &network, now_ns).expect("a valid configuration");
                run.net.settle();
            }
            for sa in sas {
                let Object::Sa(mut turned) = sa else { unreachable!() };
                turned.direction = match turned.direction {
                    Direction::Inbound => Direction::Outbound,
                    Direction::Outbound => Direction::Inbound,
                };
                turned.replay_window = 1_024 - replay_window;
                let refused = run.net.commit(End::A, &[Object::Sa(turned.clone())]);
                assert_eq!(refused, Err(Refusal::KeyTurned(Object::Sa(turned).id())), "{ending:?}");
            }
            run.assert_sound();
        }
    }
}

#[test]
fn a_store_that_is_damaged_or_gone_refuses_every_key() {
    let damages: [Damage; 3] = [("a flipped bit", flip_a_bit), ("cut short", cut_short), ("gone", take_away)];
    for file in FILES {
        for (what, damage) in damages {
            let mut run = Run::new(Shape { seed: 7, ..Shape::default() });
            run.load(5);
            run.net.settle();
            run.net.headend(End::A).housekeep().expect("a store");
            damage(&run.net.directory(End::A).join(file));
            run.net.restart(End::A, Ending::Crash);
            let (network, now_ns) = (run.net.network(End::A), run.net.now_ns);
            run.net.headend(End::A).put(Base::Empty, &network, now_ns).expect("what needs no key");
            run.net.settle();
            for generation in [0, 1] {
                for direction in [Direction::Inbound, Direction::Outbound] {
                    let sa = run.net.sa(End::A, direction, generation);
                    let expected = Err(Refusal::NoSequenceStore(sa.id()));
                    assert_eq!(run.net.commit(End::A, &[sa]), expected, "{file}: {what}");
                }
            }
            let sent = run.numbers(End::A).len();
            for _ in 0..20 {
                run.ledger.send(&mut run.net, End::A, 0, 0, 30);
            }
            run.net.settle();
            assert_eq!(run.net.headend(End::A).drops(), [(DropReason::NoSa, 20)]);
            assert_eq!(run.numbers(End::A).len(), sent);
            run.assert_sound();
        }
    }
}

#[test]
fn after_init_state_by_force_new_keys_are_taken() {
    let mut run = Run::new(Shape { seed: 8, ..Shape::default() });
    run.load(5);
    flip_a_bit(&run.net.directory(End::A).join(FILES[0]));
    run.net.restart(End::A, Ending::Crash);
    SequenceStore::init(run.net.directory(End::A), true).expect("a new store");
    run.net.restart(End::A, Ending::Crash);
    run.net.configure(1);
    run.carries_everything();
    let Object::Sa(sa) = run.net.sa(End::A, Direction::Outbound, 1) else { unreachable!() };
    let seen = run.net.esp_seen();
    let first = seen.iter().find(|packet| packet.spi == sa.spi).expect("a packet under the new key");
    assert_eq!(first.iv, 1);
    assert_eq!((esp::repeated_ivs(&seen), run.net.frames_in_clear()), (vec![], 0));
}

/// A write that a crash cut off lies aside under another name, or behind the last record.
#[test]
fn what_a_crash_left_of_an_unfinished_write_is_ignored() {
    let mut run = Run::new(Shape { seed: 9, ..Shape::default() });
    for left in [&[0; 40][..], &[0xa5; 79], &[7; 200], &[1]] {
        run.load(10);
        for end in ENDS {
            std::fs::write(run.net.directory(end).join(".tmpA1b2C3"), b"GHSEQ").expect("a file");
            for file in FILES {
                append(&run.net.directory(end).join(file), left);
            }
            run.restart(end, Ending::Crash);
        }
        run.carries_everything();
    }
    run.assert_sound();
}

#[test]
fn a_transaction_that_a_crash_cut_off_is_as_if_it_had_never_been() {
    let mut run = Run::new(Shape { seed: 10, ..Shape::default() });
    let new = run.net.sa(End::A, Direction::Outbound, 1);
    let old = run.net.sa(End::A, Direction::Outbound, 0);
    let installer = run.net.headend(End::A).installer();
    installer.begin(5_000, Base::Running);
    installer.delete(old.id());
    installer.put(&new);
    run.restart(End::A, Ending::Crash);
    run.carries_everything();
    run.assert_sound();
    let Object::Sa(sa) = new else { unreachable!() };
    assert!(run.net.esp_seen().iter().all(|packet| packet.spi != sa.spi));
}
