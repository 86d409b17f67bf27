// SPDX-License-Identifier: Apache-2.0
//! The neighbour table against a model, and under several threads at once.

use std::collections::HashMap;
use std::thread;

use proptest::prelude::*;

use super::*;

const PORT: PortIndex = PortIndex(3);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn table() -> Neighbors {
    Neighbors::with_seed(100, 7)
}

fn learnt(table: &Neighbors, address: &str, now_ns: u64) -> NeighborIndex {
    let index = table.ensure(PORT, &ip(address)).unwrap();
    table.learn(index, MAC, now_ns);
    index
}

#[test]
fn a_new_neighbour_is_incomplete_and_known_once_it_answers() {
    let table = table();
    assert_eq!(table.find(PORT, &ip("192.0.2.1")), None);
    let index = table.ensure(PORT, &ip("192.0.2.1")).unwrap();
    assert_eq!(table.ensure(PORT, &ip("192.0.2.1")), Ok(index));
    assert_eq!(table.find(PORT, &ip("192.0.2.1")), Some(index));
    assert_eq!((table.mac(index), table.link(index)), (None, None));
    assert_eq!(table.address(index), Some((PORT, ip("192.0.2.1"))));
    table.learn(index, MAC, 5);
    assert_eq!(table.mac(index), Some(MAC));
    assert_eq!(table.link(index), Some(Link { mac: MAC, stale: false }));
    let listed: Vec<_> = table.iter().collect();
    let expected =
        Neighbor { port: PORT, address: ip("192.0.2.1"), mac: MAC, state: NeighborState::Reachable };
    assert_eq!(listed, [expected]);
}

#[test]
fn ports_and_families_are_apart() {
    let table = table();
    let index = learnt(&table, "192.0.2.1", 0);
    for (port, address) in [(PortIndex(4), "192.0.2.1"), (PORT, "::ffff:192.0.2.1"), (PORT, "::c000:201")] {
        assert_eq!(table.find(port, &ip(address)), None, "{address}");
        assert_ne!(table.ensure(port, &ip(address)), Ok(index));
    }
    let v6 = learnt(&table, "2001:db8::1", 0);
    assert_eq!(table.address(v6), Some((PORT, ip("2001:db8::1"))));
}

#[test]
fn three_questions_a_second_apart_then_a_pause_then_again() {
    let table = table();
    let index = table.ensure(PORT, &ip("192.0.2.1")).unwrap();
    let start = 17 * SECOND_NS;
    for (tenths, expected) in [
        (0, Ask::Now { attempt: 1 }),
        (0, Ask::Wait),
        (9, Ask::Wait),
        (10, Ask::Now { attempt: 2 }),
        (19, Ask::Wait),
        (20, Ask::Now { attempt: 3 }),
        (29, Ask::Wait),
        (30, Ask::GaveUp),
        (59, Ask::GaveUp),
        (60, Ask::Now { attempt: 1 }),
        (61, Ask::Wait),
        (70, Ask::Now { attempt: 2 }),
    ] {
        assert_eq!(table.ask(index, start + tenths * SECOND_NS / 10), expected, "after {tenths} tenths");
    }
    table.learn(index, MAC, start);
    assert_eq!(table.ask(index, start + 100 * SECOND_NS), Ask::Wait, "reachable: nothing to ask");
}

#[test]
fn of_many_who_ask_at_once_one_sends() {
    for round in 0..50u64 {
        let table = table();
        let index = table.ensure(PORT, &ip("192.0.2.1")).unwrap();
        let asked = || usize::from(matches!(table.ask(index, round), Ask::Now { .. }));
        let sent: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(asked)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sent, 1);
    }
}

#[test]
fn a_stale_neighbour_keeps_its_address_until_it_left_three_questions_unanswered() {
    let table = table();
    let index = learnt(&table, "192.0.2.1", SECOND_NS);
    let mut now_ns = 31 * SECOND_NS;
    table.age(now_ns - 1);
    assert_eq!(table.link(index), Some(Link { mac: MAC, stale: false }));
    table.age(now_ns);
    assert_eq!(table.link(index), Some(Link { mac: MAC, stale: true }));
    for attempt in 1..=3 {
        assert_eq!(table.ask(index, now_ns), Ask::Now { attempt });
        assert_eq!(table.mac(index), Some(MAC));
        now_ns += SECOND_NS;
    }
    assert_eq!(table.ask(index, now_ns), Ask::GaveUp);
    assert_eq!(table.mac(index), None);
    table.learn(index, [2; 6], now_ns);
    assert_eq!(table.link(index), Some(Link { mac: [2; 6], stale: false }));
}

#[test]
fn an_answer_ends_the_questions_and_the_next_round_begins_at_one() {
    let table = table();
    let index = learnt(&table, "192.0.2.1", 0);
    table.age(40 * SECOND_NS);
    assert_eq!(table.ask(index, 40 * SECOND_NS), Ask::Now { attempt: 1 });
    table.learn(index, MAC, 41 * SECOND_NS);
    table.age(60 * SECOND_NS);
    assert_eq!(table.link(index), Some(Link { mac: MAC, stale: false }));
    table.age(71 * SECOND_NS);
    assert_eq!(table.ask(index, 71 * SECOND_NS), Ask::Now { attempt: 1 });
}

#[test]
fn what_is_said_unasked_updates_only_who_is_known() {
    let table = table();
    assert!(!table.update(PORT, &ip("192.0.2.1"), MAC, 1));
    assert_eq!(table.iter().count(), 0);
    let index = learnt(&table, "192.0.2.1", 1);
    assert!(table.update(PORT, &ip("192.0.2.1"), [4; 6], 2));
    assert_eq!(table.mac(index), Some([4; 6]));
}

#[test]
fn a_static_neighbour_learns_nothing_and_does_not_age() {
    let table = table();
    table.set_static(PORT, &ip("192.0.2.1"), MAC).unwrap();
    let index = table.find(PORT, &ip("192.0.2.1")).unwrap();
    table.learn(index, [4; 6], 1);
    assert!(table.update(PORT, &ip("192.0.2.1"), [4; 6], 2));
    table.age(10_000 * SECOND_NS);
    assert_eq!(table.link(index), Some(Link { mac: MAC, stale: false }));
    assert_eq!(table.ask(index, 10_000 * SECOND_NS), Ask::Wait);
    table.remove_static(PORT, &ip("192.0.2.1"));
    assert_eq!(table.mac(index), None);
    assert_eq!(table.ask(index, 10_000 * SECOND_NS), Ask::Now { attempt: 1 });
    let other = learnt(&table, "192.0.2.2", 1);
    table.remove_static(PORT, &ip("192.0.2.2"));
    assert_eq!(table.mac(other), Some(MAC), "not static: not touched");
}

#[test]
fn the_unanswered_and_the_unused_are_forgotten_and_their_index_finds_nothing() {
    let table = table();
    let silent = table.ensure(PORT, &ip("192.0.2.1")).unwrap();
    let unused = learnt(&table, "192.0.2.2", SECOND_NS);
    let asked = learnt(&table, "192.0.2.3", SECOND_NS);
    table.age(2 * SECOND_NS);
    table.age(21 * SECOND_NS);
    assert_eq!(table.find(PORT, &ip("192.0.2.1")), Some(silent), "its time began with the first look at it");
    table.age(22 * SECOND_NS);
    assert_eq!(table.find(PORT, &ip("192.0.2.1")), None);
    assert_eq!((table.address(silent), table.mac(silent)), (None, None));
    assert_eq!(table.ask(silent, 23 * SECOND_NS), Ask::GaveUp);
    table.age(100 * SECOND_NS);
    assert_eq!(table.ask(asked, 200 * SECOND_NS), Ask::Now { attempt: 1 });
    table.age(300 * SECOND_NS);
    assert_eq!(table.mac(unused), Some(MAC));
    table.age(301 * SECOND_NS);
    assert_eq!((table.mac(unused), table.mac(asked)), (None, Some(MAC)));
}

#[test]
fn a_slot_that_went_to_another_neighbour_is_not_found_by_an_old_index() {
    let table = Neighbors::with_seed(1, 1);
    let mut old: Vec<(NeighborIndex, IpAddr)> = Vec::new();
    let mut now_ns = 1;
    for host in 0..200u8 {
        let address = IpAddr::from([192, 0, 2, host]);
        let index = table.ensure(PORT, &address).unwrap();
        table.learn(index, [2, 0, 0, 0, 0, host], now_ns);
        for (old, address) in &old {
            assert_eq!(table.mac(*old), None, "{address}");
            assert_eq!(table.address(*old), None);
            table.learn(*old, [0xee; 6], now_ns);
        }
        assert_eq!(table.mac(index), Some([2, 0, 0, 0, 0, host]));
        old.push((index, address));
        now_ns += UNUSED_NS;
        table.age(now_ns);
        now_ns += UNUSED_NS;
        table.age(now_ns);
    }
}

#[test]
fn a_pinned_slot_is_kept_until_the_last_pin_goes() {
    let table = table();
    let (index, pin) = table.pin(PORT, &ip("192.0.2.1")).unwrap();
    let second = pin.clone();
    drop(pin);
    for seconds in [1, 100, 1000, 10_000] {
        table.age(seconds * SECOND_NS);
        assert_eq!(table.find(PORT, &ip("192.0.2.1")), Some(index));
    }
    drop(second);
    table.age(10_001 * SECOND_NS);
    assert_eq!(table.find(PORT, &ip("192.0.2.1")), None);
}

#[test]
fn it_takes_as_many_as_it_was_made_for_and_then_says_that_it_is_full() {
    for seed in 0..20 {
        let table = Neighbors::with_seed(1000, seed);
        let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        for number in 0..1000 {
            let index = table.ensure(PORT, &address(number)).unwrap();
            table.learn(index, MAC, 1);
        }
        assert!((0..1000).all(|number| table.find(PORT, &address(number)).is_some()));
        let added = (1000..5000).filter(|number| table.ensure(PORT, &address(*number)).is_ok()).count();
        assert!(added < 4000, "a table of 2,048 slots");
        assert_eq!(table.iter().count(), 1000 + added);
    }
}

/// The Ethernet address that a key has in the tests below: whoever finds another one has found a wrong one.
fn mac_of(port: PortIndex, address: &IpAddr) -> [u8; 6] {
    let [_, _, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => [0x60, 0, address.octets()[14], address.octets()[15]],
    };
    [2, u8::try_from(port.0).unwrap(), address.is_ipv6().into(), c, d, 0x77]
}

#[derive(Clone, Debug)]
enum Step {
    Ensure(u8),
    Learn(u8),
    Update(u8),
    SetStatic(u8),
    RemoveStatic(u8),
    Ask(u8),
    Age(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..12;
    prop::collection::vec(
        prop_oneof![
            4 => key.clone().prop_map(Step::Ensure),
            4 => key.clone().prop_map(Step::Learn),
            2 => key.clone().prop_map(Step::Update),
            1 => key.clone().prop_map(Step::SetStatic),
            1 => key.clone().prop_map(Step::RemoveStatic),
            4 => key.prop_map(Step::Ask),
            4 => prop_oneof![Just(1), Just(11), Just(31), Just(301)].prop_map(Step::Age),
        ],
        0..120,
    )
}

/// State, time of the last confirmation or of the first ageing that saw it, last question and its number.
#[derive(Clone, Copy, Debug)]
struct Model {
    state: NeighborState,
    since: u64,
    asked: Option<(u64, u8)>,
}

fn key(number: u8) -> (PortIndex, IpAddr) {
    let address = if number.is_multiple_of(3) {
        IpAddr::from([0x20, 1, 13, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
    } else {
        IpAddr::from([192, 0, 2, number])
    };
    (PortIndex(u16::from(number % 2)), address)
}

fn model_ask(model: &mut Model, now: u64) -> Ask {
    if matches!(model.state, NeighborState::Reachable | NeighborState::Static) {
        return Ask::Wait;
    }
    let attempt = match model.asked {
        None => 1,
        Some((at, _)) if now < at + 1 => return Ask::Wait,
        Some((_, attempt)) if attempt < 3 => attempt + 1,
        Some((at, _)) if now < at + 4 => {
            model.state = NeighborState::Incomplete;
            return Ask::GaveUp;
        }
        Some(_) => 1,
    };
    model.asked = Some((now, attempt));
    Ask::Now { attempt }
}

fn model_age(models: &mut HashMap<u8, Model>, now: u64) {
    models.retain(|_, model| {
        if model.since == 0 {
            model.since = now;
        }
        let idle = now - model.since.max(model.asked.map_or(0, |(at, _)| at));
        match model.state {
            NeighborState::Reachable if now - model.since >= 30 => model.state = NeighborState::Stale,
            NeighborState::Stale => return idle < 300,
            NeighborState::Incomplete => return idle < 20,
            _ => {}
        }
        true
    });
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in steps(), seed: u64) {
        let table = Neighbors::with_seed(64, seed);
        let mut models: HashMap<u8, Model> = HashMap::new();
        let mut now = 1;
        for step in steps {
            let fresh = Model { state: NeighborState::Incomplete, since: 0, asked: None };
            match step {
                Step::Ensure(number) => {
                    let (port, address) = key(number);
                    prop_assert!(table.ensure(port, &address).is_ok());
                    models.entry(number).or_insert(fresh);
                }
                Step::Learn(number) | Step::Update(number) => {
                    let (port, address) = key(number);
                    let mac = mac_of(port, &address);
                    if matches!(step, Step::Learn(_)) {
                        let index = table.ensure(port, &address).unwrap();
                        table.learn(index, mac, now * SECOND_NS);
                        models.entry(number).or_insert(fresh);
                    } else {
                        let known = table.update(port, &address, mac, now * SECOND_NS);
                        prop_assert_eq!(known, models.contains_key(&number));
                    }
                    if let Some(model) = models.get_mut(&number)
                        && model.state != NeighborState::Static
                    {
                        *model = Model { state: NeighborState::Reachable, since: now, asked: None };
                    }
                }
                Step::SetStatic(number) => {
                    let (port, address) = key(number);
                    table.set_static(port, &address, mac_of(port, &address)).unwrap();
                    models.entry(number).or_insert(fresh).state = NeighborState::Static;
                }
                Step::RemoveStatic(number) => {
                    let (port, address) = key(number);
                    table.remove_static(port, &address);
                    if let Some(model) = models.get_mut(&number)
                        && model.state == NeighborState::Static
                    {
                        model.state = NeighborState::Incomplete;
                    }
                }
                Step::Ask(number) => {
                    let (port, address) = key(number);
                    if let Some(index) = table.find(port, &address) {
                        let asked = table.ask(index, now * SECOND_NS);
                        prop_assert_eq!(asked, model_ask(models.get_mut(&number).unwrap(), now));
                    }
                }
                Step::Age(seconds) => {
                    now += seconds;
                    table.age(now * SECOND_NS);
                    model_age(&mut models, now);
                }
            }
            for number in 0..12 {
                let (port, address) = key(number);
                let found = table.find(port, &address);
                prop_assert_eq!(found.is_some(), models.contains_key(&number));
                let (Some(index), Some(model)) = (found, models.get(&number)) else { continue };
                let mac = mac_of(port, &address);
                let known = model.state != NeighborState::Incomplete;
                prop_assert_eq!(table.mac(index), known.then_some(mac));
                let stale = model.state == NeighborState::Stale;
                prop_assert_eq!(table.link(index), known.then_some(Link { mac, stale }));
                prop_assert_eq!(table.address(index), Some((port, address)));
            }
            prop_assert_eq!(table.iter().count(), models.len());
        }
    }
}

/// One look of a worker at the neighbour with this number. Returns whether it found an Ethernet address.
fn look(table: &Neighbors, number: u32, now_ns: u64) -> bool {
    let port = PortIndex((number & 1) as u16);
    let address = IpAddr::from([10, 0, 0, number as u8]);
    let right = mac_of(port, &address);
    let Ok(index) = table.ensure(port, &address) else { return false };
    assert!(table.mac(index).is_none_or(|mac| mac == right), "{address} has the Ethernet address of another");
    table.learn(index, right, now_ns);
    assert!(table.address(index).is_none_or(|found| found == (port, address)));
    let found = table.find(port, &address).and_then(|index| table.mac(index));
    assert!(found.is_none_or(|mac| mac == right), "{address}: {found:?}");
    for neighbor in table.iter().take(2) {
        let right = mac_of(neighbor.port, &neighbor.address);
        assert!(neighbor.mac == right || neighbor.state == NeighborState::Incomplete, "{neighbor:?}");
    }
    found.is_some()
}

/// Two workers and housekeeping on a small table, whose slots go from neighbour to neighbour all the time. No table is
/// used for so long that a slot's tag could come round again while a thread is held up.
#[test]
fn nobody_ever_finds_the_address_of_another_neighbour() {
    use core::sync::atomic::{AtomicBool, AtomicU64};

    const ROUNDS: u64 = 200;
    for seed in 0..2u64 {
        let table = Neighbors::with_seed(16, seed);
        let (clock, stop) = (AtomicU64::new(1), AtomicBool::new(false));
        let looks = [AtomicU64::new(0), AtomicU64::new(0)];
        let worker = |first: u32, looks: &AtomicU64| {
            let mut found = 0u64;
            for step in 0u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // The neighbours in use move on with time, so that those left behind are forgotten.
                let now_ns = clock.load(Ordering::Relaxed);
                let epoch = (now_ns / UNUSED_NS) as u32;
                let near = step.wrapping_mul(2_654_435_761).wrapping_add(first) >> 20 & 31;
                found += u64::from(look(&table, epoch.wrapping_mul(16).wrapping_add(near) & 63, now_ns));
                looks.fetch_add(1, Ordering::Relaxed);
            }
            found
        };
        thread::scope(|scope| {
            let workers = [
                scope.spawn(|| worker(seed as u32, &looks[0])),
                scope.spawn(|| worker(!(seed as u32), &looks[1])),
            ];
            let looked = || looks.each_ref().map(|looks| looks.load(Ordering::Relaxed));
            for _ in 0..ROUNDS {
                // However busy the machine is, each worker gets its looks between two rounds.
                let before = looked();
                while looked().iter().zip(before).any(|(&now, before)| now < before + 20)
                    && !workers.iter().any(|w| w.is_finished())
                {
                    thread::yield_now();
                }
                table.age(clock.fetch_add(UNUSED_NS, Ordering::Relaxed));
            }
            stop.store(true, Ordering::Relaxed);
            for worker in workers {
                assert!(worker.join().unwrap() > 0, "nothing was found at all");
            }
        });
        let tags = table.slots.iter().map(|slot| slot.binding().tag());
        assert!(tags.sum::<u64>() > 32 * 5, "slots went from neighbour to neighbour");
    }
}
