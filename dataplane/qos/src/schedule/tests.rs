// SPDX-License-Identifier: Apache-2.0
//! Tests of the whole scheduler. What they judge is what leaves, by its own bytes and moments.

use proptest::prelude::*;
use wire::{Dscp, Ecn};

use super::*;
use crate::bucket::{Rate, TrafficProfile};
use crate::tally::{Place, Tally};

const MTU: u32 = 1500;

fn profile(bps: u64, burst_bytes: u32) -> TrafficProfile {
    TrafficProfile { rate: Rate::from_bps(bps).unwrap(), burst_bytes }
}

fn class(service: Service) -> ClassSpec {
    ClassSpec {
        service,
        police: None,
        limit: Limit::Packets(1000),
        early: EarlyDrop::None,
        ecn: false,
        delays: true,
    }
}

fn priority(level: u8) -> ClassSpec {
    class(Service::Priority { level })
}

fn percent(percent: u8) -> ClassSpec {
    class(Service::Share(Share::Percent(percent)))
}

fn port(classes: Vec<ClassSpec>, tunnels: usize) -> PortSpec {
    PortSpec {
        shape: None,
        packet_bytes_max: MTU,
        items_max: 10_000,
        seed: 1,
        policies: vec![PolicySpec { classes }],
        tunnels: vec![TunnelSpec { shape: None, weight: 1, policy: 0 }; tunnels],
    }
}

fn offer(tunnel: u32, class: u8, wire_bytes: u32) -> Offer {
    let (tunnel, class) = (TunnelSlot(tunnel), ClassSlot(class));
    Offer { tunnel, class, wire_bytes, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct }
}

fn leaving<T: core::fmt::Debug>(next: Next<T>) -> Leaving<T> {
    match next {
        Next::Leaving(leaving) => leaving,
        other => panic!("{other:?}"),
    }
}

/// All that leaves at one moment: tunnel, class, bytes.
fn all_at(scheduler: &mut Scheduler<u32>, now_ns: u64) -> Vec<(u32, u8, u32)> {
    let mut sent = Vec::new();
    while let Next::Leaving(out) = scheduler.dequeue(now_ns) {
        sent.push((out.tunnel.0, out.class.0, out.wire_bytes));
    }
    sent
}

#[test]
fn priority_of_any_tunnel_goes_before_all_shares_and_lower_levels_wait_for_higher() {
    let spec = port(vec![percent(100), priority(1), priority(0)], 2);
    let mut scheduler = Scheduler::new(&spec).unwrap();
    for (tunnel, class) in [(0, 0), (0, 0), (1, 1), (1, 1), (1, 2), (0, 2)] {
        scheduler.enqueue(0, offer(tunnel, class, 100), 0).unwrap();
    }
    let order: Vec<_> =
        all_at(&mut scheduler, 0).iter().map(|(tunnel, class, _)| (*tunnel, *class)).collect();
    assert_eq!(order, [(1, 2), (0, 2), (1, 1), (1, 1), (0, 0), (0, 0)]);
    assert_eq!(scheduler.dequeue(0), Next::Wait(None));
}

#[test]
fn shares_are_kept_in_bytes_whatever_the_sizes() {
    let spec = port(vec![percent(50), percent(30), percent(20)], 1);
    let mut scheduler = Scheduler::new(&spec).unwrap();
    let sizes = [64, 1500, 700];
    let mut bytes = [0u64; 3];
    for _ in 0..30_000 {
        for (class, size) in (0u8..).zip(sizes) {
            while scheduler.stats().class(TunnelSlot(0), ClassSlot(class)).unwrap().counters.queued().packets
                < 100
            {
                scheduler.enqueue(0, offer(0, class, size), 0).unwrap();
            }
        }
        let out = leaving(scheduler.dequeue(0));
        bytes[usize::from(out.class.0)] += u64::from(out.wire_bytes);
    }
    let all: u64 = bytes.iter().sum();
    for (bytes, share) in bytes.iter().zip([0.5, 0.3, 0.2]) {
        let part = *bytes as f64 / all as f64;
        assert!((part / share - 1.0).abs() < 0.01, "{part} for {share}");
    }
}

#[test]
fn tunnels_have_what_the_port_leaves_by_their_weights() {
    let mut spec = port(vec![percent(100)], 3);
    spec.tunnels[2].weight = 2;
    let mut scheduler = Scheduler::new(&spec).unwrap();
    for tunnel in 0..3 {
        for _ in 0..1000 {
            scheduler.enqueue(0, offer(tunnel, 0, 1000), 0).unwrap();
        }
    }
    let mut packets = [0; 3];
    for _ in 0..1200 {
        packets[leaving(scheduler.dequeue(0)).tunnel.0 as usize] += 1;
    }
    assert!(
        packets.iter().zip([300i32, 300, 600]).all(|(sent, part)| (sent - part).abs() <= 3),
        "{packets:?}"
    );
}

#[test]
fn a_shaped_tunnel_passes_its_burst_then_its_rate_and_others_do_not_wait_for_it() {
    let mut spec = port(vec![percent(100)], 2);
    spec.tunnels[0].shape = Some(profile(8_000_000, 3000));
    let mut scheduler = Scheduler::new(&spec).unwrap();
    for tunnel in [0, 0, 0, 0, 1, 1] {
        scheduler.enqueue(0, offer(tunnel, 0, 1500), 0).unwrap();
    }
    let sent = all_at(&mut scheduler, 0);
    assert_eq!(sent.iter().filter(|(tunnel, ..)| *tunnel == 0).count(), 2);
    assert_eq!(sent.iter().filter(|(tunnel, ..)| *tunnel == 1).count(), 2);
    // 1500 bytes at 1 byte a microsecond, and at most a tick of the wheel.
    let Next::Wait(Some(at)) = scheduler.dequeue(0) else { panic!("it waits for tokens") };
    assert!(at <= 1_500_000 + 1024);
    assert_eq!(all_at(&mut scheduler, 1_499_999), []);
    assert_eq!(all_at(&mut scheduler, 1_500_000 + 1024).len(), 1);
}

#[test]
fn a_short_priority_packet_leaves_a_parked_tunnel_as_soon_as_it_has_tokens_for_it() {
    let mut spec = port(vec![percent(100), priority(0)], 1);
    spec.tunnels[0].shape = Some(profile(8_000_000, 1500));
    let mut scheduler = Scheduler::new(&spec).unwrap();
    for _ in 0..2 {
        scheduler.enqueue(0, offer(0, 0, 1500), 0).unwrap();
    }
    assert_eq!(all_at(&mut scheduler, 0), [(0, 0, 1500)]);
    scheduler.enqueue(0, offer(0, 1, 100), 100_000).unwrap();
    assert_eq!(all_at(&mut scheduler, 100_000), [(0, 1, 100)]);
    assert_eq!(all_at(&mut scheduler, 1_590_000), []);
    assert_eq!(all_at(&mut scheduler, 1_602_000), [(0, 0, 1500)]);
}

#[test]
fn the_ports_shaper_holds_all_and_the_wait_it_names_is_exact() {
    let mut spec = port(vec![percent(100)], 1);
    spec.shape = Some(profile(1_000_000_000, 1500));
    let mut scheduler = Scheduler::new(&spec).unwrap();
    for _ in 0..3 {
        scheduler.enqueue(0, offer(0, 0, 1500), 0).unwrap();
    }
    assert_eq!(all_at(&mut scheduler, 0).len(), 1);
    assert_eq!(scheduler.dequeue(0), Next::Wait(Some(12_000)));
    assert_eq!(all_at(&mut scheduler, 11_999), []);
    assert_eq!(all_at(&mut scheduler, 12_000).len(), 1);
}

#[test]
fn what_is_refused_comes_back_with_its_reason_and_is_counted() {
    let mut classes = vec![percent(100), priority(0)];
    classes[0].limit = Limit::Bytes(2000);
    let mut spec = port(classes, 1);
    spec.items_max = 16;
    let mut scheduler = Scheduler::new(&spec).unwrap();
    let refusal = |scheduler: &mut Scheduler<u32>, offer| {
        scheduler.enqueue(7, offer, 0).err().map(|refused| (refused.item, refused.refusal))
    };
    assert_eq!(refusal(&mut scheduler, offer(1, 0, 64)), Some((7, Refusal::NoSuchClass)));
    assert_eq!(refusal(&mut scheduler, offer(0, 2, 64)), Some((7, Refusal::NoSuchClass)));
    assert_eq!(refusal(&mut scheduler, offer(0, 0, 1501)), Some((7, Refusal::BadSize)));
    assert_eq!(refusal(&mut scheduler, offer(0, 0, 0)), Some((7, Refusal::BadSize)));
    assert_eq!(refusal(&mut scheduler, offer(0, 0, 1500)), None);
    assert_eq!(refusal(&mut scheduler, offer(0, 0, 501)), Some((7, Refusal::QueueLimit)));
    assert_eq!(refusal(&mut scheduler, offer(0, 1, 1500)), None);
    let shares = scheduler.stats().class(TunnelSlot(0), ClassSlot(0)).unwrap();
    assert_eq!(shares.counters.offered, Volume { packets: 4, bytes: 3502 });
    assert_eq!([Refusal::BadSize, Refusal::QueueLimit].map(|why| shares.counters.dropped(why)), [2, 1]);
}

#[test]
fn bulk_cannot_take_the_last_places_from_priority() {
    let mut spec = port(vec![percent(100), priority(0)], 1);
    spec.items_max = 16;
    let mut scheduler = Scheduler::new(&spec).unwrap();
    let queued = (0..20).filter(|_| scheduler.enqueue(0, offer(0, 0, 64), 0).is_ok()).count();
    assert_eq!(queued, 14);
    assert!((0..2).all(|_| scheduler.enqueue(0, offer(0, 1, 64), 0).is_ok()));
    assert_eq!(scheduler.enqueue(0, offer(0, 1, 64), 0).unwrap_err().refusal, Refusal::NoRoom);
}

#[test]
fn codel_marks_where_it_may_and_drops_the_rest_at_the_head() {
    for (ecn, marks) in [(Ecn::Ect0, true), (Ecn::NotEct, false)] {
        let mut spec =
            port(vec![ClassSpec { ecn: true, early: EarlyDrop::CoDel(CoDel::INTERNET), ..percent(100) }], 1);
        spec.packet_bytes_max = MTU;
        let mut scheduler = Scheduler::new(&spec).unwrap();
        let (mut marked, mut dropped) = (0, 0);
        for ms in 0..1000u64 {
            for _ in 0..2 {
                let _ = scheduler.enqueue(0, Offer { ecn, ..offer(0, 0, 1500) }, ms * 1_000_000);
            }
            match scheduler.dequeue(ms * 1_000_000) {
                Next::Leaving(out) => marked += u64::from(out.mark),
                Next::Refused(refused) => {
                    assert_eq!(refused.refusal, Refusal::CoDel);
                    dropped += 1;
                }
                Next::Wait(_) => panic!("there is a queue"),
            }
        }
        assert_eq!((marked > 5, dropped > 5), (marks, !marks), "{marked} {dropped}");
        let state = scheduler.stats().class(TunnelSlot(0), ClassSlot(0)).unwrap();
        assert_eq!((state.counters.marked, state.counters.dropped(Refusal::CoDel)), (marked, dropped));
    }
}

#[test]
fn pie_keeps_twice_the_rate_at_its_target_delay_and_marks_while_that_is_enough() {
    let target_ns = u64::from(Pie::default().target_ns);
    for (ecn, overload) in [(Ecn::NotEct, 2), (Ecn::Ect0, 2), (Ecn::Ect0, 1)] {
        let mut spec =
            port(vec![ClassSpec { ecn: true, early: EarlyDrop::Pie(Pie::default()), ..percent(100) }], 1);
        spec.items_max = 10_000;
        spec.policies[0].classes[0].limit = Limit::Packets(5_000);
        let mut scheduler = Scheduler::new(&spec).unwrap();
        let (mut marked, mut dropped, mut delays) = (0, 0, Vec::new());
        for ms in 1..20_000u64 {
            // A packet a millisecond leaves; with an overload of 1, a little more than that comes.
            let extra = u64::from(ms % 20 == 0);
            for _ in 0..overload.max(1 + extra) {
                match scheduler.enqueue(0, Offer { ecn, ..offer(0, 0, 1500) }, ms * 1_000_000) {
                    Ok(()) => {}
                    Err(refused) => {
                        assert_eq!(refused.refusal, Refusal::Pie);
                        dropped += 1;
                    }
                }
            }
            if let Next::Leaving(out) = scheduler.dequeue(ms * 1_000_000) {
                marked += u64::from(out.mark);
                delays.push(out.delay_ns);
            }
        }
        let state = scheduler.stats().class(TunnelSlot(0), ClassSlot(0)).unwrap();
        assert_eq!((state.counters.marked, state.counters.dropped(Refusal::Pie)), (marked, dropped));
        let settled = &delays[delays.len() / 2..];
        let mean_ns = settled.iter().sum::<u64>() / settled.len() as u64;
        match (ecn, overload) {
            // Half of what comes has to go; nobody listens to marks.
            (Ecn::NotEct, _) => assert_eq!(marked, 0),
            (_, 2) => assert!(marked > 0 && dropped > 1_000, "{marked} {dropped}"),
            // Marks do not shorten the queue of a sender that does not listen, up to 10 %.
            _ => assert!(marked > 10, "{marked} {dropped}"),
        }
        let is_near = (target_ns / 2..=target_ns * 2).contains(&mean_ns);
        assert!(is_near || overload == 1, "{mean_ns} ns at twice the rate");
    }
}

#[test]
fn wred_refuses_the_higher_drop_precedence_first_and_marks_what_it_may() {
    let af12 = Dscp::new(12).unwrap();
    let profile = |min_packets, max_packets| DropProfile { min_packets, max_packets, one_in: 1 };
    let profiles = vec![(af12, profile(5, 10))];
    let wred = Wred { weight: 0, idle_packet_ns: 1000, default: profile(20, 200), profiles };
    let mut spec = port(vec![ClassSpec { ecn: true, early: EarlyDrop::Wred(wred), ..percent(100) }], 1);
    spec.items_max = 1000;
    let mut scheduler = Scheduler::new(&spec).unwrap();
    for _ in 0..15 {
        scheduler.enqueue(0, offer(0, 0, 100), 0).unwrap();
    }
    let high = Offer { dscp: af12, ecn: Ecn::Ect0, ..offer(0, 0, 100) };
    assert_eq!(scheduler.enqueue(0, high, 0).unwrap_err().refusal, Refusal::Wred);
    for _ in 0..150 {
        scheduler.enqueue(0, Offer { ecn: Ecn::Ect1, ..offer(0, 0, 100) }, 0).unwrap();
    }
    let mut marked = 0;
    while let Next::Leaving(out) = scheduler.dequeue(0) {
        marked += u32::from(out.mark);
    }
    assert!(marked > 10, "{marked}");
}

#[test]
fn nothing_passes_what_waits_and_what_passes_is_counted() {
    let mut spec = port(vec![priority(0), percent(100)], 2);
    spec.shape = Some(profile(8_000_000, 1500));
    let mut scheduler = Scheduler::new(&spec).unwrap();
    let pass = |scheduler: &mut Scheduler<u32>, offers: &[Offer], now_ns| {
        scheduler.pass(offers[0].tunnel, offers.iter(), now_ns)
    };
    let bulk = offer(1, 1, 600);
    assert_eq!(pass(&mut scheduler, &[bulk; 4], 0), 2, "the burst of the port is 1,500 bytes");
    scheduler.enqueue(7, bulk, 0).unwrap();
    assert_eq!(pass(&mut scheduler, &[offer(0, 0, 64)], 1_000_000), 0, "something waits for the port");
    assert_eq!(leaving(scheduler.dequeue(1_000_000)).item, 7);
    assert_eq!(pass(&mut scheduler, &[offer(0, 0, 64)], 1_000_000), 1);
    for wrong in [offer(0, 0, 0), offer(0, 0, MTU + 1), offer(0, 2, 64), offer(2, 0, 64)] {
        assert_eq!(pass(&mut scheduler, &[wrong], 1_000_000_000), 0);
    }
    let of = |tunnel, class| scheduler.stats().class(TunnelSlot(tunnel), ClassSlot(class)).unwrap();
    let counters = of(1, 1).counters;
    assert_eq!((counters.offered, counters.sent), (Volume { packets: 3, bytes: 1_800 }, counters.offered));
    assert_eq!(of(1, 1).delays.unwrap().count(), 3);
    assert_eq!(of(0, 0).counters.sent, Volume { packets: 1, bytes: 64 });
}

fn any_offer() -> impl Strategy<Value = (Offer, u64)> {
    let ecn = prop::sample::select(vec![Ecn::NotEct, Ecn::Ect0]);
    (0u32..4, 0u8..4, 1u32..=1500, ecn, 0u64..200_000).prop_map(|(tunnel, class, wire_bytes, ecn, gap_ns)| {
        (Offer { ecn, ..offer(tunnel, class, wire_bytes) }, gap_ns)
    })
}

proptest! {
    /// To pass is to be queued and to leave in the same moment, with the same tokens afterwards.
    #[test]
    fn what_passes_would_have_left_at_once(offers in prop::collection::vec(any_offer(), 1..200)) {
        let mut spec = port(vec![priority(0), priority(2), percent(60), percent(5)], 4);
        spec.shape = Some(profile(100_000_000, 4000));
        for (tunnel, bps) in spec.tunnels.iter_mut().zip([1_000_000, 30_000_000, 500_000_000]) {
            tunnel.shape = Some(profile(bps, 3000));
        }
        let (mut passed_by, mut queued_by) = (Scheduler::new(&spec).unwrap(), Scheduler::new(&spec).unwrap());
        let mut now_ns = 0;
        for (offer, gap_ns) in offers {
            now_ns += gap_ns;
            prop_assert_eq!(all_at(&mut passed_by, now_ns), all_at(&mut queued_by, now_ns));
            let is_idle = queued_by.queued() == 0;
            let passes = passed_by.pass(offer.tunnel, [offer].iter(), now_ns) == 1;
            queued_by.enqueue(0, offer, now_ns).unwrap();
            if passes {
                let out = leaving(queued_by.dequeue(now_ns));
                let left = (out.tunnel, out.class, out.wire_bytes);
                prop_assert_eq!(left, (offer.tunnel, offer.class, offer.wire_bytes));
            } else {
                passed_by.enqueue(0, offer, now_ns).unwrap();
                let left = all_at(&mut queued_by, now_ns);
                prop_assert!(!is_idle || left.is_empty(), "it could have passed");
                prop_assert_eq!(all_at(&mut passed_by, now_ns), left);
            }
            let (one, other) = (passed_by.stats(), queued_by.stats());
            prop_assert_eq!(one.port_tokens(), other.port_tokens());
            prop_assert_eq!(one.tunnel_tokens(offer.tunnel), other.tunnel_tokens(offer.tunnel));
            let of = |stats: &Stats| stats.class(offer.tunnel, offer.class).unwrap().counters;
            prop_assert_eq!(of(one), of(other));
        }
    }

    /// All pass together that pass one after the other, and with the same tokens and counters afterwards; or none does.
    #[test]
    fn what_passes_together_would_have_passed_one_by_one(
        bursts in prop::collection::vec((0u32..5, prop::collection::vec((0u8..5, 1u32..=1500), 1..20), 0u64..400_000), 1..60),
        waiting in prop::collection::vec(any_offer(), 0..3),
        is_shaped: bool,
    ) {
        let mut spec = port(vec![priority(0), priority(2), percent(60), percent(5)], 4);
        spec.shape = is_shaped.then(|| profile(300_000_000, 20_000));
        for (tunnel, bps) in spec.tunnels.iter_mut().zip([20_000_000, 100_000_000]) {
            tunnel.shape = Some(profile(bps, 15_000));
        }
        let (mut one_by_one, mut together) = (Scheduler::new(&spec).unwrap(), Scheduler::new(&spec).unwrap());
        for (offer, _) in waiting {
            let _ = (one_by_one.enqueue(0, offer, 0), together.enqueue(0, offer, 0));
        }
        let mut now_ns = 0;
        for (tunnel, items, gap_ns) in bursts {
            now_ns += gap_ns;
            let offers: Vec<Offer> = items.iter().map(|(class, bytes)| offer(tunnel, *class, *bytes)).collect();
            let mut tally = Tally::default();
            offers.iter().for_each(|offer| tally.count(Place::of(offer.class), offer.wire_bytes));
            let longest = offers.iter().map(|offer| offer.wire_bytes).max().unwrap();
            let passed = one_by_one.pass(TunnelSlot(tunnel), offers.iter(), now_ns);
            let all_passed = together.pass_all(TunnelSlot(tunnel), &tally, longest, now_ns);
            prop_assert_eq!(all_passed, passed == offers.len());
            if !all_passed {
                prop_assert_eq!(together.pass(TunnelSlot(tunnel), offers.iter(), now_ns), passed);
            }
            let (one, other) = (one_by_one.stats(), together.stats());
            prop_assert_eq!(one.port_tokens(), other.port_tokens());
            prop_assert_eq!(one.tunnel_tokens(TunnelSlot(tunnel)), other.tunnel_tokens(TunnelSlot(tunnel)));
            for class in (0..4).map(ClassSlot) {
                let of = |stats: &Stats| {
                    let state = stats.class(TunnelSlot(tunnel), class)?;
                    Some((state.counters, state.delays.map(|delays| delays.count())))
                };
                prop_assert_eq!(of(one), of(other));
            }
            prop_assert_eq!(all_at(&mut one_by_one, now_ns), all_at(&mut together, now_ns));
        }
    }

    /// Each item comes out exactly once, sent or refused; a class keeps its order; no tunnel passes more than its burst
    /// and rate; what is queued always leaves in the end.
    #[test]
    fn nothing_is_lost_doubled_reordered_or_stuck(offers in prop::collection::vec(any_offer(), 1..300), dequeues in 0usize..4) {
        let mut classes = vec![priority(0), priority(2), percent(60), percent(5)];
        classes[2].limit = Limit::Time(20_000_000);
        classes[3].early = EarlyDrop::CoDel(CoDel { target_ns: 100_000, interval_ns: 1_000_000 });
        let mut spec = port(classes, 4);
        spec.items_max = 64;
        spec.shape = Some(profile(100_000_000, 4000));
        let shapes = [Some(profile(1_000_000, 1500)), Some(profile(30_000_000, 9000)), None, Some(profile(99, 1500))];
        for (tunnel, shape) in spec.tunnels.iter_mut().zip(shapes) {
            tunnel.shape = shape;
        }
        let mut scheduler = Scheduler::new(&spec).unwrap();
        let mut seen = vec![0u32; offers.len()];
        let mut last = [[None; 4]; 4];
        let mut excess = [0u128; 4];
        let mut at = [0u64; 4];
        let mut now_ns = 0;
        let mut work = |scheduler: &mut Scheduler<u32>, now_ns: u64, seen: &mut Vec<u32>| -> Option<Next<u32>> {
            match scheduler.dequeue(now_ns) {
                Next::Leaving(out) => {
                    let (tunnel, class) = (out.tunnel.0 as usize, usize::from(out.class.0));
                    seen[out.item as usize] += 1;
                    assert!(last[tunnel][class] < Some(out.item));
                    last[tunnel][class] = Some(out.item);
                    if let Some(shape) = shapes[tunnel] {
                        let drained = u128::from(shape.rate.bps()) * u128::from(now_ns - at[tunnel]);
                        excess[tunnel] = excess[tunnel].saturating_sub(drained) + u128::from(out.wire_bytes) * 8_000_000_000;
                        at[tunnel] = now_ns;
                        assert!(excess[tunnel] <= u128::from(shape.burst_bytes) * 8_000_000_000);
                    }
                    None
                }
                Next::Refused(refused) => {
                    seen[refused.item as usize] += 1;
                    None
                }
                wait => Some(wait),
            }
        };
        for (item, (offer, gap_ns)) in (0u32..).zip(&offers) {
            now_ns += gap_ns;
            if let Err(refused) = scheduler.enqueue(item, *offer, now_ns) {
                prop_assert_eq!(refused.item, item);
                seen[item as usize] += 1;
            }
            for _ in 0..dequeues {
                work(&mut scheduler, now_ns, &mut seen);
            }
        }
        loop {
            match work(&mut scheduler, now_ns, &mut seen) {
                None => {}
                Some(Next::Wait(Some(later_ns))) => now_ns = now_ns.max(later_ns).max(now_ns + 1),
                Some(_) => break,
            }
        }
        prop_assert!(seen.iter().all(|times| *times == 1), "{:?}", seen);
        for (tunnel, class) in (0..4).flat_map(|tunnel| (0..4).map(move |class| (tunnel, class))) {
            let state = scheduler.stats().class(TunnelSlot(tunnel), ClassSlot(class)).unwrap();
            prop_assert_eq!((state.counters.queued().packets, state.counters.queued().bytes), (0, 0));
            prop_assert_eq!(state.counters.offered.packets, state.counters.sent.packets + state.counters.dropped_in_all());
        }
    }
}

#[test]
fn a_successor_goes_on_with_what_was_queued_counted_and_left_of_tokens() {
    let shape = Some(profile(8_000_000, 3000));
    let tunnels = |count| vec![TunnelSpec { shape, weight: 1, policy: 0 }; count];
    let spec = PortSpec { tunnels: tunnels(2), ..port(vec![priority(0), percent(100)], 2) };
    let mut before = Scheduler::new(&spec).unwrap();
    for (item, (tunnel, class)) in (0u32..).zip([(0, 1), (0, 1), (0, 1), (1, 0), (1, 1)]) {
        before.enqueue(item, offer(tunnel, class, 1500), 0).unwrap();
    }
    assert_eq!(all_at(&mut before, 0), [(1, 0, 1500), (0, 1, 1500), (1, 1, 1500), (0, 1, 1500)]);
    before.enqueue(5, offer(1, 1, 1500), 0).unwrap();
    // Tunnel 1 goes, tunnel 0 moves to place 1, its classes change places.
    let spec = PortSpec { tunnels: tunnels(3), ..port(vec![percent(100), priority(0)], 3) };
    let mut after = Scheduler::new(&spec).unwrap();
    let mut gone = Vec::new();
    let heir = |tunnel: TunnelSlot, class: ClassSlot| {
        (tunnel.0 == 0).then_some((TunnelSlot(1), ClassSlot(1 - class.0)))
    };
    let slot = |tunnel: TunnelSlot| (tunnel.0 == 0).then_some(TunnelSlot(1));
    after.succeed(&mut before, 500_000, slot, heir, |item, why| gone.push((item, why)));
    assert_eq!((gone, before.queued(), after.queued()), (vec![(5, Refusal::NoSuchClass)], 0, 1));
    let counters = after.stats().class(TunnelSlot(1), ClassSlot(0)).unwrap().counters;
    assert_eq!((counters.offered.packets, counters.sent.packets, counters.queued().packets), (3, 2, 1));
    // 500 bytes came in since; the rest of the 1,500 needs a millisecond more.
    assert_eq!(all_at(&mut after, 1_498_000), []);
    assert_eq!(all_at(&mut after, 1_502_000), [(1, 0, 1500)]);
}

#[test]
fn what_is_too_long_for_a_successors_port_goes_and_holds_nothing_up() {
    let shape = Some(profile(8_000_000, 9000));
    let spec = PortSpec { shape, packet_bytes_max: 9000, ..port(vec![percent(100)], 1) };
    let mut before = Scheduler::new(&spec).unwrap();
    for (item, bytes) in (0u32..).zip([9000, 9000, 1500, 9000]) {
        before.enqueue(item, offer(0, 0, bytes), 0).unwrap();
    }
    let shape = Some(profile(8_000_000, 3000));
    let spec = PortSpec { shape, items_max: 1, ..port(vec![percent(100)], 1) };
    let mut after = Scheduler::new(&spec).unwrap();
    before.enqueue(4, offer(0, 0, 1500), 0).unwrap();
    let mut gone = Vec::new();
    let same = |tunnel, class| Some((tunnel, class));
    after.succeed(&mut before, 0, Some, same, |item, why| gone.push((item, why)));
    let too_long = |item| (item, Refusal::BadSize);
    assert_eq!(gone, [too_long(0), too_long(1), too_long(3), (4, Refusal::NoRoom)]);
    let counters = after.stats().class(TunnelSlot(0), ClassSlot(0)).unwrap().counters;
    assert_eq!([Refusal::BadSize, Refusal::NoRoom].map(|why| counters.dropped(why)), [3, 1]);
    assert_eq!(all_at(&mut after, 0), [(0, 0, 1500)]);
    assert_eq!(after.dequeue(0), Next::Wait(None));
}

#[test]
fn a_change_does_not_fill_shapers_of_tunnels_whose_first_class_goes() {
    let shape = Some(profile(8_000_000, 3000));
    let tunnels = vec![TunnelSpec { shape, weight: 1, policy: 0 }];
    let classes = vec![percent(60), percent(40)];
    let spec = PortSpec { tunnels: tunnels.clone(), ..port(classes, 1) };
    let mut before = Scheduler::new(&spec).unwrap();
    for _ in 0..2 {
        before.enqueue(0, offer(0, 1, 1500), 0).unwrap();
    }
    assert_eq!(all_at(&mut before, 0).len(), 2);
    // The first class goes, the second becomes the first; 500 bytes come in meanwhile.
    let spec = PortSpec { tunnels, ..port(vec![percent(40)], 1) };
    let mut after = Scheduler::new(&spec).unwrap();
    let second = |tunnel, class: ClassSlot| (class.0 == 1).then_some((tunnel, ClassSlot(0)));
    after.succeed(&mut before, 500_000, Some, second, |_, _| panic!("nothing waits"));
    after.enqueue(0, offer(0, 0, 500), 500_000).unwrap();
    after.enqueue(0, offer(0, 0, 64), 564_000).unwrap();
    assert_eq!(all_at(&mut after, 500_000), [(0, 0, 500)]);
}

#[test]
fn a_tunnel_that_stands_in_line_with_nothing_to_send_makes_it_wait_not_spin() {
    let mut scheduler = Scheduler::<u32>::new(&port(vec![percent(100)], 1)).unwrap();
    scheduler.tunnels[0].backlog = 1 << SHARES;
    scheduler.stand_in_line(0);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(scheduler.dequeue(0)));
    assert_eq!(told.recv_timeout(core::time::Duration::from_secs(10)), Ok(Next::Wait(None)));
}
