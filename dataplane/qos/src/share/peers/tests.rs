// SPDX-License-Identifier: Apache-2.0
//! Tests of who gets what when several workers wait for one port.

use std::sync::Arc;

use wire::{Dscp, Ecn};

use super::*;
use crate::bucket::{Bucket, Rate};
use crate::schedule::{
    ClassSpec, EarlyDrop, Limit, Membership, Next, Offer, PolicySpec, PortSpec, Scheduler, Service, Share,
    TunnelSlot, TunnelSpec,
};

const PACKET_BYTES_MAX: u32 = 1_538;
/// Packets that a worker sends in a turn.
const TURN_PACKETS: usize = 256;
const PRIORITY: u8 = 0;
const BULK: u8 = 1;

/// A worker that always has more to send than it may.
struct Sender {
    scheduler: Scheduler<()>,
    /// From turn to turn, and how old its clock is when it uses it.
    turn_ns: u64,
    age_ns: u64,
    /// Tunnel, class and bytes of what it sends.
    packets: Packets,
}

fn profile(bps: u64) -> TrafficProfile {
    // A millisecond and two packets, as ports have them by default.
    let burst_bytes = u32::try_from(bps / 8_000).unwrap() + 2 * PACKET_BYTES_MAX;
    TrafficProfile { rate: Rate::from_bps(bps).unwrap(), burst_bytes }
}

/// A port's own slot and as many tunnels as asked for.
fn spec(bps: u64, tunnels: usize) -> PortSpec {
    let class = |service| ClassSpec {
        service,
        police: None,
        limit: Limit::Packets(1_000),
        early: EarlyDrop::None,
        ecn: false,
        delays: false,
    };
    let classes = vec![class(Service::Priority { level: 0 }), class(Service::Share(Share::Percent(90)))];
    PortSpec {
        shape: Some(profile(bps)),
        packet_bytes_max: PACKET_BYTES_MAX,
        items_max: 10_000,
        seed: 1,
        policies: vec![PolicySpec { classes }],
        tunnels: vec![TunnelSpec { shape: None, weight: 1, policy: 0 }; tunnels + 1],
    }
}

type Packets = &'static [(u32, u8, u32)];

fn senders(bps: u64, of: [(u64, u64, Packets); 2]) -> [Sender; 2] {
    let share = Arc::new(PortShare::new(2));
    let mut worker = 0;
    of.map(|(turn_ns, age_ns, packets)| {
        let tunnels = packets.iter().map(|packet| packet.0).max().unwrap_or(0);
        let membership = Membership { share: Arc::clone(&share), worker };
        worker += 1;
        let scheduler = Scheduler::of_worker(&spec(bps, tunnels as usize), &membership).unwrap();
        Sender { scheduler, turn_ns, age_ns, packets }
    })
}

/// What each tunnel and class of each worker has sent of the port's rate from `from_ns` to `end_ns`, in parts of it.
/// Nothing passes above the burst.
fn run(bps: u64, workers: &mut [Sender; 2], from_ns: u64, end_ns: u64) -> [Vec<f64>; 2] {
    let offer = |(tunnel, class, wire_bytes): (u32, u8, u32)| Offer {
        tunnel: TunnelSlot(tunnel),
        class: ClassSlot(class),
        wire_bytes,
        dscp: Dscp::DEFAULT,
        ecn: Ecn::NotEct,
    };
    for worker in workers.iter_mut() {
        for _ in 0..300 {
            worker.packets.iter().for_each(|packet| worker.scheduler.enqueue((), offer(*packet), 1).unwrap());
        }
    }
    let mut bucket = Bucket::new(profile(bps));
    let mut next_ns = [100_000, 100_000 + workers[1].turn_ns / 2];
    let mut sent = [0, 1].map(|worker| vec![0u64; workers[worker].packets.len()]);
    while next_ns.iter().any(|next| *next < end_ns) {
        let index = usize::from(next_ns[1] < next_ns[0]);
        let Sender { scheduler, turn_ns, age_ns, packets } = &mut workers[index];
        let now_ns = next_ns[index] - *age_ns;
        for _ in 0..TURN_PACKETS {
            let Next::Leaving(out) = scheduler.dequeue(now_ns) else { break };
            assert!(bucket.take(out.wire_bytes, now_ns), "{} bytes above the burst", out.wire_bytes);
            let place = packets.iter().position(|packet| (packet.0, packet.1) == (out.tunnel.0, out.class.0));
            let place = place.unwrap();
            scheduler.enqueue((), offer(packets[place]), now_ns).unwrap();
            if next_ns[index] >= from_ns {
                sent[index][place] += u64::from(out.wire_bytes);
            }
        }
        scheduler.rest(now_ns);
        next_ns[index] += *turn_ns;
    }
    let whole = bps as f64 / 8e9 * (end_ns - from_ns) as f64;
    sent.map(|sent| sent.iter().map(|bytes| *bytes as f64 / whole).collect())
}

/// Rates, and how long to look at them, from when.
const RATES: [(u64, u64, u64); 3] = [
    (10_000_000, 20_000_000, 2_020_000_000),
    (1_000_000_000, 5_000_000, 105_000_000),
    (10_000_000_000, 5_000_000, 30_000_000),
];

fn assert_shares(what: &str, bps: u64, got: [Vec<f64>; 2], wanted: [&[f64]; 2]) {
    let total: f64 = got.iter().flatten().sum();
    assert!((total - 1.0).abs() < 0.005, "{what} at {bps} bit/s: {total} of the rate, {got:?}");
    for (got_one, wanted_one) in got.iter().flatten().zip(wanted.into_iter().flatten()) {
        assert!((got_one / wanted_one - 1.0).abs() < 0.03, "{what} at {bps} bit/s: {got:?} for {wanted:?}");
    }
}

fn halves(what: &str, of: [(u64, u64, Packets); 2]) {
    for (bps, from_ns, end_ns) in RATES {
        let got = run(bps, &mut senders(bps, of), from_ns, end_ns);
        assert_shares(what, bps, got, [&[0.5], &[0.5]]);
    }
}

#[test]
fn a_class_with_short_packets_at_one_worker_and_long_ones_at_another_has_half_at_each() {
    halves("a share", [(5_000, 0, &[(0, BULK, 84)]), (5_000, 0, &[(0, BULK, 1_538)])]);
    halves("a priority level", [(5_000, 0, &[(0, PRIORITY, 84)]), (5_000, 0, &[(0, PRIORITY, 1_538)])]);
}

#[test]
fn a_worker_with_an_old_clock_and_long_turns_has_its_half() {
    halves("a share", [(2_000, 1_000, &[(0, BULK, 1_538)]), (40_000, 35_000, &[(0, BULK, 1_538)])]);
    halves("a level", [(2_000, 1_000, &[(0, PRIORITY, 1_538)]), (40_000, 35_000, &[(0, PRIORITY, 1_538)])]);
}

#[test]
fn tunnels_of_two_owners_have_the_same_share_each() {
    halves("two tunnels", [(5_000, 0, &[(1, BULK, 84)]), (5_000, 0, &[(1, BULK, 1_538)])]);
    halves("two tunnels", [(2_000, 1_000, &[(1, BULK, 1_538)]), (40_000, 35_000, &[(1, BULK, 1_538)])]);
    for (bps, from_ns, end_ns) in RATES {
        let three = &[(1, BULK, 1_538), (2, BULK, 900), (3, BULK, 84)];
        let mut workers = senders(bps, [(40_000, 35_000, three), (2_000, 0, &[(1, BULK, 200)])]);
        let got = run(bps, &mut workers, from_ns, end_ns);
        assert_shares("four tunnels", bps, got, [&[0.25; 3], &[0.25]]);
    }
}

#[test]
fn tunnels_at_one_worker_leave_the_ports_own_classes_at_another_the_share_of_a_tunnel() {
    for (bps, from_ns, end_ns) in RATES {
        let mut workers = senders(
            bps,
            [(2_000, 0, &[(1, BULK, 84), (2, BULK, 84)]), (40_000, 35_000, &[(0, BULK, 1_538)])],
        );
        let got = run(bps, &mut workers, from_ns, end_ns);
        assert_shares("the port's own", bps, got, [&[1.0 / 3.0; 2], &[1.0 / 3.0]]);
        // Where both have the port's own, the tunnel's half stays its own.
        let both = [(2_000, 0, &[(0, BULK, 84), (1, BULK, 84)][..]), (5_000, 3_000, &[(0, BULK, 1_538)])];
        let got = run(bps, &mut senders(bps, both), from_ns, end_ns);
        assert_shares("the port's own at both", bps, got, [&[0.25, 0.5], &[0.25]]);
    }
}

#[test]
fn counters_that_go_round_change_nothing() {
    for before in [0, 1_000, 100_000, 2_000_000] {
        let packets: [(u64, u64, Packets); 2] =
            [(5_000, 0, &[(0, BULK, 84), (1, BULK, 84)]), (5_000, 0, &[(0, BULK, 1_538), (1, BULK, 1_538)])];
        let share = Arc::new(PortShare::new(2));
        let start = 0u64.wrapping_sub(before);
        let own = share.rounds.iter().map(|rounds| &**rounds).chain([&*share.most_rounds, &*share.own_sent]);
        own.chain(share.workers.iter().flat_map(|worker| &worker.sent)).for_each(|counter| {
            counter.store(start, Relaxed);
        });
        let mut workers = senders(1_000_000_000, packets);
        for (worker, sender) in (0..).zip(&mut workers) {
            let membership = Membership { share: Arc::clone(&share), worker };
            sender.scheduler = Scheduler::of_worker(&spec(1_000_000_000, 1), &membership).unwrap();
        }
        let got = run(1_000_000_000, &mut workers, 5_000_000, 105_000_000);
        let third = 1.0 / 3.0;
        assert_shares("near the end", 1_000_000_000, got, [&[third / 2.0, third], &[third / 2.0, third]]);
        assert!(share.own_sent.load(Relaxed) < 100_000_000, "it has gone round");
    }
}

#[test]
fn what_a_worker_did_not_send_while_it_had_nothing_is_not_made_up_for() {
    let share = PortShare::new(2);
    let mut workers = [0, 1].map(|_| Peers::new(Some(profile(1_000_000_000)), 100_000, 1_500));
    let lead = workers[0].lead();
    workers[0].pass_class(ClassSlot(0), 1_000_000_000);
    workers[0].settle(&share, 0);
    workers[0].rest(&share, 0, &Backlog::default());
    let backlog = Backlog { shares: 1, ..Backlog::default() };
    workers[1].settle(&share, 1);
    workers[1].rest(&share, 1, &backlog);
    share.announce(1, backlog, 10);
    workers[0].look(&share, 0, 5);
    assert!(workers[0].class_is_ahead(ClassSlot(0)));
    workers[1].pass_class(ClassSlot(0), u32::try_from(lead).unwrap());
    workers[1].settle(&share, 1);
    workers[1].rest(&share, 1, &backlog);
    workers[0].look(&share, 0, 5);
    assert!(!workers[0].class_is_ahead(ClassSlot(0)), "one lead, not a billion bytes");
}
