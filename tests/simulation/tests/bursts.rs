// SPDX-License-Identifier: Apache-2.0
//! A burst is treated as its packets are one by one: two headends with the same service policy at the same moment, of which
//! one receives bursts and the other each packet in a turn of its own.

use std::collections::BTreeMap;

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{Udp, ip_in};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, Shape, WAN};
use greyhound_simulation::wanted;
use messages::{
    ClassMap, ClassMapIndex, Criterion, DropReason, DscpSet, Object, Police, PoliceAction, PolicyClass,
    PolicyMap, PolicyMapIndex, QueueState, SecondBucket, Service, ServicePolicy, ServiceTarget, Share,
    TrafficProfile, TunnelIndex,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::{Dscp, Ecn};

const MAP: PolicyMapIndex = PolicyMapIndex(0);
/// EF is policed, AF21 becomes AF11, AF31 is policed and marked; the rest is only counted.
const CODE_POINTS: [u8; 3] = [46, 18, 26];
const OTHERS: [u8; 3] = [0, 8, 34];
const PAYLOAD: usize = 900;
/// On the wire: IPv4 and UDP, GRE, ESP with padding and ICV, delivery header, Ethernet with FCS, preamble and gap.
const WIRE_BYTES: u32 = (PAYLOAD + 28 + 4 + 8 + 8 + 2 + 2 + 16 + 20 + 38) as u32;

fn police(packets: u32, conform: PoliceAction, exceed: PoliceAction) -> Police {
    let profile = TrafficProfile { rate_bps: 1_000_000, burst_bytes: Some(packets * WIRE_BYTES) };
    let second = SecondBucket::ExcessBurst(3 * WIRE_BYTES);
    Police { second, conform, exceed, ..Police::dropping(profile) }
}

/// Four classes by code point at `target`; with queues at so many Mbit/s, if there are any.
fn policy(target: ServiceTarget, shape: Option<u64>) -> Vec<Object> {
    let mut objects = vec![match shape {
        Some(mbits) => wanted::shaped(MAP, mbits),
        None => Object::PolicyMap(PolicyMap { policy_map: MAP, shape: None }),
    }];
    let services = [Service::Priority { level: 0 }, Service::Bandwidth(Share::Percent(25))];
    let service = |place: u8| match shape {
        Some(_) => services[usize::from(place.min(1))],
        None => Service::Unqueued,
    };
    for (place, dscp) in (0..).zip(CODE_POINTS) {
        let class_map = ClassMapIndex(place);
        let criterion = Criterion { dscps: Some(DscpSet(1 << dscp)), ..Criterion::anything(class_map, 0) };
        objects.push(Object::ClassMap(ClassMap { class_map, match_any: false }));
        objects.push(Object::Criterion(criterion));
    }
    let class =
        |place: u8, map: Option<u32>| PolicyClass::plain(MAP, place, map.map(ClassMapIndex), service(place));
    let ef = police(6, PoliceAction::Transmit, PoliceAction::Drop);
    let af31 = police(2, PoliceAction::Transmit, PoliceAction::SetDscp(28));
    objects.extend([
        Object::PolicyClass(PolicyClass { police: Some(ef), ..class(0, Some(0)) }),
        Object::PolicyClass(PolicyClass { set_dscp: Some(10), ..class(1, Some(1)) }),
        Object::PolicyClass(PolicyClass { police: Some(af31), ..class(2, Some(2)) }),
        Object::PolicyClass(class(3, None)),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(MAP), pre_classify: true }),
    ]);
    objects
}

fn packet(dscp: u8, number: u32) -> Vec<u8> {
    let mut data = [0x5a; PAYLOAD];
    data[..4].copy_from_slice(&number.to_be_bytes());
    let dscp = Dscp::new(dscp).expect("a DSCP");
    Udp::new(End::A.host(), End::B.host(), &data).tos(dscp, Ecn::Ect0).to_bytes()
}

/// The numbers of the packets that left, by the code point that they have now, in their order.
fn left(bench: &mut Bench, opener: &Sealer) -> BTreeMap<u8, Vec<u32>> {
    let mut left = BTreeMap::<u8, Vec<u32>>::new();
    for frame in bench.wan.take_frames() {
        let (_, ip) = ip_in(&frame).expect("an IP packet");
        assert_eq!(ip.len() as u32 + 38, WIRE_BYTES);
        let plain = opener.open(&ip[20..], 0).expect("a valid ICV");
        let inner = &plain.payload[4..];
        let number = u32::from_be_bytes(inner[28..32].try_into().expect("four bytes"));
        left.entry(Dscp::of_tos(inner[1]).get()).or_default().push(number);
    }
    bench.wan.take();
    left
}

/// What is left, dropped and counted when all is at rest.
type Outcome = (BTreeMap<u8, Vec<u32>>, Vec<(DropReason, u64)>, Vec<QueueState>);

fn outcome(bench: &mut Bench) -> Outcome {
    bench.settle();
    bench.pass(20_000_000);
    let opener = bench.peer_opener(0);
    let left = left(bench, &opener);
    let states = bench.headend.installer().queue_states().collect();
    (left, bench.headend.drops(), states)
}

#[test]
fn a_burst_is_treated_as_its_packets_one_by_one() {
    let targets = [ServiceTarget::Port(WAN), ServiceTarget::Tunnel(TunnelIndex(0))];
    // At 20 Mbit/s a few packets of a burst have their tokens at once, at 1 Gbit/s all.
    let ways = [None, Some(20), Some(1_000)];
    for (target, shape) in targets.into_iter().flat_map(|target| ways.map(|shape| (target, shape))) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let [mut together, mut alone] = [(); 2].map(|()| {
            let mut bench = Bench::new(&Shape::default());
            bench.commit(&policy(target, shape));
            bench
        });
        let mut number = 0;
        for burst in 0..40 {
            let count = random.random_range(1..=64);
            // Some bursts are of packets that are only counted, others of all kinds.
            let kinds: Vec<u8> =
                if burst % 4 == 0 { OTHERS.to_vec() } else { [CODE_POINTS, OTHERS].concat() };
            for _ in 0..count {
                let packet = packet(kinds[random.random_range(0..kinds.len())], number);
                number += 1;
                together.lan.send(&packet);
                alone.lan.send(&packet);
                alone.headend.turn(alone.now_ns);
            }
            together.headend.turn(together.now_ns);
            let [one, other] = [&mut together, &mut alone].map(outcome);
            let name = format!("{target:?}, {shape:?}, burst {burst} of {count}");
            assert_eq!(one.0, other.0, "{name}");
            assert_eq!(one.1, other.1, "{name}");
            assert_eq!(one.2, other.2, "{name}");
        }
        assert!(together.headend.drops().contains(&(DropReason::QosPoliced, policed(&mut together))));
        assert_eq!(together.headend.unaccounted(), 0);
    }
}

/// Packets that a policer found red or yellow, and dropped.
fn policed(bench: &mut Bench) -> u64 {
    let states: Vec<QueueState> = bench.headend.installer().queue_states().collect();
    let [_, yellow, red] = states[0].colours.expect("a policer").map(|colour| colour.packets);
    let [_, _, red_af31] = states[2].colours.expect("a policer").map(|colour| colour.packets);
    assert!(yellow > 0 && red > 0, "the policer has something to drop");
    yellow + red + red_af31
}
