// SPDX-License-Identifier: Apache-2.0
//! Tests of what workers share.

use proptest::prelude::*;
use wire::{Dscp, Ecn};

use super::*;
use crate::bucket::Rate;
use crate::schedule::{
    ClassSpec, EarlyDrop, Limit, Membership, Next, Offer, PolicySpec, PortSpec, Scheduler, Service, Share,
    TunnelSlot, TunnelSpec,
};

const BULK: usize = PRIORITY_LEVELS;
const TOKENS_PER_BYTE: u128 = 8_000_000_000;

fn profile(bps: u64, burst_bytes: u32) -> TrafficProfile {
    TrafficProfile { rate: Rate::from_bps(bps).unwrap(), burst_bytes }
}

fn members(profile: Option<TrafficProfile>, workers: u16) -> (Arc<PortShare>, Vec<Member>) {
    let share = Arc::new(PortShare::new(workers));
    let member = |worker| Member::new(Arc::clone(&share), usize::from(worker), profile, 1_500);
    let members = (0..workers).map(member).collect();
    (share, members)
}

fn waiting(bytes: [u32; PRIORITY_LEVELS]) -> Backlog {
    Backlog { bytes, ..Backlog::default() }
}

fn waiting_shares(shares: u32) -> Backlog {
    Backlog { shares, ..Backlog::default() }
}

fn passes(member: &mut Member, level: usize, bytes: u32, now_ns: u64) -> bool {
    member.begin(now_ns);
    let may = member.may_pass(level, bytes);
    if may {
        member.pass(bytes);
    }
    may
}

#[test]
fn it_starts_full_whatever_its_depth_and_a_deeper_one_does_not_fill_at_once() {
    let bucket = SharedBucket::default();
    assert!(bucket.take(profile(8, 1_000), 1_000, 7));
    assert!(
        !bucket.take(profile(8, 2_000), 1, 7),
        "workers that pass to another profile find the same tokens"
    );
    assert!(bucket.take(profile(8_000_000_000, 2_000), 2_000, 2_007));
}

#[test]
fn priority_packets_of_one_worker_keep_their_tokens_from_bulk_of_another_until_they_lapse() {
    let (_, mut workers) = members(Some(profile(8_000_000_000, 3_000)), 2);
    let [voice, bulk] = &mut workers[..] else { panic!("two workers") };
    assert!(passes(bulk, BULK, 1_500, 0) && passes(bulk, BULK, 1_126, 0));
    assert!(!passes(bulk, BULK, 1, 0), "374 bytes are for what the two may have in hand");
    bulk.rest(Backlog::default());
    assert!(!passes(voice, 0, 100, 0));
    voice.rest(waiting([100, 0, 0]));
    // A byte a nanosecond: 1,550 at 1,550 ns, of which 100 are not for bulk.
    assert!(!passes(bulk, BULK, 1_500, 1_550));
    assert!(!passes(bulk, 1, 1_500, 1_550), "nor for a later priority level");
    assert!(passes(voice, 0, 100, 1_550));
    voice.rest(Backlog::default());
    assert!(!passes(bulk, BULK, 1_500, 1_550));
    assert!(passes(bulk, BULK, 1_500, 1_600));
    bulk.rest(Backlog::default());
    voice.rest(waiting([3_000, 0, 0]));
    assert!(!passes(bulk, BULK, 1_500, 4_000));
    assert!(passes(bulk, BULK, 1_500, 1_550 + LAPSE_NS));
}

#[test]
fn at_a_port_without_a_shaper_bulk_lets_priority_packets_of_another_worker_go_first() {
    let (_, mut workers) = members(None, 3);
    workers[0].begin(5);
    workers[0].rest(waiting([0, 64, 0]));
    assert!(!passes(&mut workers[1], BULK, 1_500, 6));
    assert!(!passes(&mut workers[2], 2, 100, 6));
    assert!(passes(&mut workers[2], 1, 100, 6), "the same level");
    workers[0].rest(Backlog::default());
    assert!(passes(&mut workers[1], BULK, 1_500, 6));
}

#[test]
fn what_is_taken_and_not_used_goes_back() {
    let port = profile(1_000, 1_000_000);
    let (share, mut workers) = members(Some(port), 2);
    assert!(passes(&mut workers[0], BULK, 1_000, 0));
    // 16 longest packets for each of the two are not in the bucket.
    assert_eq!(share.tokens().at(port, 0).level_bytes(), 952_000 - 1_000 - 24_000);
    workers[0].rest(Backlog::default());
    assert_eq!(share.tokens().at(port, 0).level_bytes(), 952_000 - 1_000);
}

#[test]
fn a_class_lets_one_that_waits_at_another_worker_catch_up_also_when_its_rounds_go_round() {
    [0, ROUND, 2 * ROUND, 3 * ROUND].into_iter().for_each(one_catches_up);
}

/// Counters begin so many before their end.
fn one_catches_up(before: u64) {
    let (share, mut workers) = members(None, 2);
    share
        .rounds
        .iter()
        .chain([&share.most_rounds])
        .for_each(|rounds| rounds.store(0u64.wrapping_sub(before), Relaxed));
    let [first, second] = &mut workers[..] else { panic!("two workers") };
    let (fast, slow) = (ClassSlot(0), ClassSlot(1));
    second.begin(1);
    second.joins(slow);
    second.rest(waiting_shares(0b10));
    first.begin(2);
    first.joins(fast);
    for _ in 0..5 {
        assert!(!first.is_ahead(fast, 3_000));
        first.pass_share(fast, 1_500, 3_000);
    }
    assert!(first.is_ahead(fast, 3_000), "two rounds and a half");
    first.rest(waiting_shares(1));
    second.begin(3);
    second.pass_share(slow, 1_500, 1_500);
    second.rest(waiting_shares(0b10));
    first.begin(4);
    assert!(!first.is_ahead(fast, 3_000), "one round and a half");
    second.rest(Backlog::default());
    first.pass_share(fast, 30_000, 3_000);
    first.begin(5);
    assert!(!first.is_ahead(fast, 3_000), "nobody waits");
    // The most there were goes on too: who comes now begins there.
    first.rest(Backlog::default());
    second.joins(ClassSlot(2));
    assert_eq!(share.rounds[2].load(Relaxed), (12 * ROUND + ROUND / 2).wrapping_sub(before));
}

#[test]
fn a_class_that_had_nothing_to_send_does_not_make_up_for_it() {
    let (share, mut workers) = members(None, 2);
    workers[0].begin(1);
    workers[0].joins(ClassSlot(0));
    workers[0].pass_share(ClassSlot(0), 150_000, 1_500);
    workers[0].rest(waiting_shares(1));
    workers[1].begin(2);
    workers[1].joins(ClassSlot(1));
    assert_eq!(share.rounds[1].load(Relaxed), 100 * ROUND);
    // Nor does one that comes while nobody waits, or the others would have to wait for it later.
    workers.iter_mut().for_each(|worker| worker.rest(Backlog::default()));
    workers[1].joins(ClassSlot(2));
    assert_eq!(share.rounds[2].load(Relaxed), 100 * ROUND);
}

proptest! {
    /// Whoever sends, and whenever what was not used goes back: in any interval at most the burst and the rate over it.
    #[test]
    fn no_interval_passes_more_than_burst_and_rate_over_all_workers(
        bps in 1u64..100_000_000_000,
        burst in 1_500u32..100_000,
        steps in prop::collection::vec((0usize..3, 0u64..20_000, 1u32..1_500, any::<bool>()), 1..80),
    ) {
        let (_, mut workers) = members(Some(profile(bps, burst)), 3);
        let (mut now_ns, mut passed) = (0, Vec::new());
        for (worker, gap_ns, bytes, rests) in steps {
            now_ns += gap_ns;
            let member = &mut workers[worker];
            member.begin(now_ns);
            while passed.len() < 400 && member.may_pass(BULK, bytes) {
                member.pass(bytes);
                passed.push((now_ns, u128::from(bytes)));
            }
            // Who does not rest keeps its tokens from the others, and gives them back when it comes again.
            if rests {
                member.rest(Backlog::default());
            }
        }
        for (first, &(start_ns, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for &(end_ns, bytes) in &passed[first..] {
                sum += bytes;
                let allowed = u128::from(burst) * TOKENS_PER_BYTE + u128::from(bps) * u128::from(end_ns - start_ns);
                prop_assert!(sum * TOKENS_PER_BYTE <= allowed);
            }
        }
    }
}

/// Two threads and one clock: to the last token, what has passed and what is left is what was there and what came in.
#[test]
fn workers_that_take_at_the_same_time_neither_lose_nor_make_a_token() {
    const TURNS: u64 = 20_000;
    let port = profile(5_000_000_000, 1 << 30);
    let (share, workers) = members(Some(port), 2);
    assert!(share.tokens().take(port, 1 << 30, 1));
    let clock = AtomicU64::new(1);
    let work = |mut member: Member, seed: u32| {
        let (mut passed, mut random) = (0u128, seed);
        for _ in 0..TURNS {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            member.begin(clock.fetch_add(u64::from(random >> 20), Relaxed));
            let bytes = 64 + (random >> 8) % 1_400;
            for _ in 0..random >> 30 {
                if member.may_pass(BULK, bytes) {
                    member.pass(bytes);
                    passed += u128::from(bytes);
                }
            }
            member.rest(waiting([random % 2, 0, 0]));
        }
        passed
    };
    let passed: u128 = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .zip([1, 99])
            .map(|(member, seed)| scope.spawn(move || work(member, seed)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let end_ns = clock.load(Relaxed);
    let (left, _) = share.tokens().at(port, end_ns).state();
    let came = u128::from(port.rate.bps()) * u128::from(end_ns - 1);
    assert!(left < tokens(1 << 30), "it was never full");
    assert_eq!(passed * TOKENS_PER_BYTE + u128::from(left), came);
    assert!(passed > u128::from(TURNS));
}

/// One worker's scheduler of a port with a priority class and shares of 50, 30 and 20 %.
fn scheduler(share: &Arc<PortShare>, worker: u16, shape: TrafficProfile) -> Scheduler<usize> {
    let class = |service| ClassSpec {
        service,
        police: None,
        limit: Limit::Packets(1_000),
        early: EarlyDrop::None,
        ecn: false,
        delays: false,
    };
    let percents = [50, 30, 20].map(|percent| class(Service::Share(Share::Percent(percent))));
    let classes = [class(Service::Priority { level: 0 })].into_iter().chain(percents).collect();
    let spec = PortSpec {
        shape: Some(shape),
        packet_bytes_max: 1_500,
        items_max: 1_000,
        seed: 1,
        policies: vec![PolicySpec { classes }],
        tunnels: vec![TunnelSpec { shape: None, weight: 1, policy: 0 }],
    };
    let membership = Membership { share: Arc::clone(share), worker };
    Scheduler::of_worker(&spec, &membership).unwrap()
}

#[test]
fn shares_are_those_of_the_port_whichever_class_comes_to_which_worker() {
    let arrivals: [[&[u8]; 2]; 3] = [[&[1, 2, 3], &[1, 2, 3]], [&[1], &[2, 3]], [&[1, 3], &[2]]];
    for at in arrivals {
        let share = Arc::new(PortShare::new(2));
        let mut schedulers = [0, 1].map(|worker| scheduler(&share, worker, profile(100_000_000, 10_000)));
        let (mut sent, mut waiting) = ([0u64; 4], [[0u32; 4]; 2]);
        for look in 0..40_000u64 {
            let (worker, now_ns) = ((look % 2) as usize, 1 + look * 10_000);
            for &class in at[worker] {
                let wire_bytes = [0, 1_400, 90, 700][usize::from(class)];
                let (tunnel, slot) = (TunnelSlot(0), ClassSlot(class));
                let offer = Offer { tunnel, class: slot, wire_bytes, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct };
                while waiting[worker][usize::from(class)] < 60 {
                    schedulers[worker].enqueue(0, offer, now_ns).unwrap();
                    waiting[worker][usize::from(class)] += 1;
                }
            }
            while let Next::Leaving(out) = schedulers[worker].dequeue(now_ns) {
                waiting[worker][usize::from(out.class.0)] -= 1;
                sent[usize::from(out.class.0)] += u64::from(out.wire_bytes);
            }
            schedulers[worker].rest(now_ns);
        }
        let all = sent.iter().sum::<u64>() as f64;
        assert!((4_975_000.0..5_035_000.0).contains(&all), "100 Mbit/s for 0.4 s: {all}");
        for (class, part) in [(1, 0.5), (2, 0.3), (3, 0.2)] {
            let had = sent[class] as f64 / all;
            assert!((had / part - 1.0).abs() < 0.01, "{at:?}: {had} for {part}");
        }
    }
}

#[test]
fn a_class_that_has_passed_alone_has_its_share_once_another_waits_at_another_worker() {
    let share = Arc::new(PortShare::new(2));
    let mut schedulers = [0, 1].map(|worker| scheduler(&share, worker, profile(100_000_000, 10_000)));
    let offer = |class| {
        let (tunnel, class) = (TunnelSlot(0), ClassSlot(class));
        Offer { tunnel, class, wire_bytes: 1_000, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct }
    };
    let classes = [offer(1), offer(3)];
    // A second at 40 Mbit/s, at the end of whose turns the device never takes more.
    for ms in 1..=1_000 {
        assert_eq!(schedulers[0].pass(TunnelSlot(0), [classes[0]; 5].iter(), ms * 1_000_000), 5);
        schedulers[0].pause(ms * 1_000_000);
    }
    let mut sent = [0u32; 2];
    for look in 0..4_000 {
        let (worker, now_ns) = (1 - look % 2, 1_001_000_000 + look as u64 * 10_000);
        while schedulers[worker].queued() < 60 {
            schedulers[worker].enqueue(0, classes[worker], now_ns).unwrap();
        }
        while let Next::Leaving(_) = schedulers[worker].dequeue(now_ns) {
            sent[worker] += 1;
        }
        schedulers[worker].rest(now_ns);
    }
    let had = f64::from(sent[0]) / f64::from(sent.iter().sum::<u32>());
    assert!((0.68..0.75).contains(&had), "50 % beside 20 %: {sent:?}");
}

proptest! {
    /// Whatever comes where and when: all of it leaves, each class of a worker in its order, and the port never sends more
    /// than its burst and its rate.
    #[test]
    fn schedulers_that_share_a_port_send_all_they_have_within_its_burst(
        bps in 1_000_000u64..10_000_000_000,
        burst in 1_500u32..50_000,
        steps in prop::collection::vec((0usize..2, 0u8..4, 64u32..1_500, 0u64..20_000), 1..120),
    ) {
        let share = Arc::new(PortShare::new(2));
        let mut schedulers = [0, 1].map(|worker| scheduler(&share, worker, profile(bps, burst)));
        let (mut now_ns, mut left) = (1, Vec::new());
        let mut turn = |schedulers: &mut [Scheduler<usize>; 2], worker: usize, now_ns: u64| {
            while let Next::Leaving(out) = schedulers[worker].dequeue(now_ns) {
                left.push((now_ns, worker, out.class.0, out.item, u128::from(out.wire_bytes)));
            }
            schedulers[worker].rest(now_ns);
        };
        for (number, &(worker, class, wire_bytes, gap_ns)) in steps.iter().enumerate() {
            now_ns += gap_ns;
            let (tunnel, class) = (TunnelSlot(0), ClassSlot(class));
            let offer = Offer { tunnel, class, wire_bytes, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct };
            prop_assert!(schedulers[worker].enqueue(number, offer, now_ns).is_ok());
            turn(&mut schedulers, worker, now_ns);
        }
        let look_ns = 1_000.max(1_500 * 2_000_000_000 / bps);
        for _ in 0..4_000 {
            now_ns += look_ns;
            (0..2).for_each(|worker| turn(&mut schedulers, worker, now_ns));
        }
        prop_assert_eq!(left.len(), steps.len());
        for (first, &(start_ns, worker, class, number, _)) in left.iter().enumerate() {
            let mut sum = 0;
            for &(end_ns, other_worker, other_class, other, bytes) in &left[first..] {
                sum += bytes;
                let allowed = u128::from(burst) * TOKENS_PER_BYTE + u128::from(bps) * u128::from(end_ns - start_ns);
                prop_assert!(sum * TOKENS_PER_BYTE <= allowed);
                prop_assert!((worker, class) != (other_worker, other_class) || number <= other);
            }
        }
    }
}
