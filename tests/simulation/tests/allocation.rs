// SPDX-License-Identifier: Apache-2.0
//! The steady loop neither allocates nor frees: burst in, pipeline, frames out, both ways, whatever is in the burst.
//!
//! A round is counted from frames that lie ready in buffers to frames that were taken off the wires. Making and sealing
//! those frames, and commits, are outside; a worker's switch to a new state is inside.
#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use greyhound_simulation::Bench;
use greyhound_simulation::packets::{self, Udp, ip_with};
use greyhound_simulation::sealer::{Sealer, trailed};
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use greyhound_simulation::wanted::{ANY, ip, policy};
use messages::{
    Base, Direction, DropReason, EspMode, GreOptions, Object, PolicyAction, PolicyClass, PolicyMap,
    PolicyMapIndex, PortIndex, QueueLimit, Selector, Service, ServicePolicy, ServiceTarget, Share,
    TrafficProfile, TunnelIndex, WorkerCounter, WorkerId,
};
use pktbuf::Packet;
use wire::{IpProtocol, MacAddr, checksum};

struct Counting;

/// Calls of the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    allocated: usize,
    freed: usize,
}

thread_local! {
    static CALLS: Cell<Calls> = const { Cell::new(Calls { allocated: 0, freed: 0 }) };
}

fn note(allocated: usize, freed: usize) {
    let calls = CALLS.get();
    CALLS.set(Calls { allocated: calls.allocated + allocated, freed: calls.freed + freed });
}

// SAFETY: passes every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, 0);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, 0);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(1, 1);
        // SAFETY: the caller's promises are passed on; `pointer` came from the system's allocator.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, 1);
        // SAFETY: the caller's promise is passed on; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What this thread asked of the allocator while `work` ran.
fn calls(work: impl FnOnce()) -> Calls {
    let before = CALLS.get();
    work();
    let after = CALLS.get();
    Calls { allocated: after.allocated - before.allocated, freed: after.freed - before.freed }
}

const NONE: Calls = Calls { allocated: 0, freed: 0 };
/// Rounds that may still fill caches of whatever kind.
const WARM_UP: usize = 3;
/// Rounds that are counted.
const ROUNDS: usize = 30;
/// Frames that go in by each port in a round.
const FRAMES: usize = 64;

/// Frames for one round: by the protected port, by the unprotected one.
type Frames = [Vec<Vec<u8>>; 2];

/// A headend that runs warm.
struct Steady {
    bench: Bench,
    sealer: Sealer,
    sequence: u64,
    /// Whether host and peer take what is sent to them.
    is_taken: bool,
}

/// By how much counters rose over the counted rounds.
struct Risen {
    counters: BTreeMap<&'static str, u64>,
    drops: Vec<(DropReason, u64)>,
}

impl Risen {
    fn of(&self, counter: WorkerCounter) -> u64 {
        self.counters[counter.name()]
    }
}

impl Steady {
    fn new(shape: &Shape, change: impl FnOnce(&mut Vec<Object>)) -> Self {
        let bench = Bench::with_packets(shape, 1_024, change);
        let sealer = bench.peer_sealer(0);
        Self { bench, sealer, sequence: 0, is_taken: true }
    }

    /// Runs the loop on what `frames` makes for each round; nothing may be allocated or freed once it is warm.
    fn run(&mut self, mut frames: impl FnMut(&mut Self, usize) -> Frames) -> Risen {
        let mut before = self.counts();
        for round in 0..WARM_UP + ROUNDS {
            let [lan, wan] = frames(self, round);
            let mut lan: Vec<_> = lan.iter().map(|frame| self.bench.lan.buffer(frame)).collect();
            let mut wan: Vec<_> = wan.iter().map(|frame| self.bench.wan.buffer(frame)).collect();
            if round == WARM_UP {
                before = self.counts();
            }
            let calls = calls(|| self.round(&mut lan, &mut wan));
            assert!(round < WARM_UP || calls == NONE, "round {round}: {calls:?}");
        }
        assert_eq!(self.bench.headend.unaccounted(), 0);
        let after = self.counts();
        let counters =
            after.0.iter().map(|(name, count)| (*name, count.wrapping_sub(before.0[name]))).collect();
        let drops =
            after.1.iter().zip(&before.1).map(|((reason, after), (_, before))| (*reason, after - before));
        Risen { counters, drops: drops.filter(|(_, count)| *count > 0).collect() }
    }

    /// Frames in by every worker's queue in turn, some turns of each worker, frames out.
    fn round(&mut self, lan: &mut Vec<Packet>, wan: &mut Vec<Packet>) {
        let bench = &mut self.bench;
        for (site, packets) in [(&bench.lan, lan), (&bench.wan, wan)] {
            for (queue, packet) in (0..bench.shape.workers).cycle().zip(packets.drain(..)) {
                site.send_buffer(queue, packet);
            }
        }
        for _ in 0..3 {
            for worker in 0..bench.shape.workers {
                bench.headend.turn_worker(worker, bench.now_ns);
            }
            if self.is_taken {
                bench.lan.discard();
                bench.wan.discard();
            }
            bench.now_ns += 25_000_000;
        }
        bench.headend.publish();
    }

    fn counts(&mut self) -> (BTreeMap<&'static str, u64>, Vec<(DropReason, u64)>) {
        let headend = &mut self.bench.headend;
        let counters = WorkerCounter::ALL.iter().map(|counter| (counter.name(), headend.counter(*counter)));
        let counters = counters.collect();
        (counters, DropReason::ALL.iter().map(|reason| (*reason, headend.dropped(*reason))).collect())
    }

    /// A frame of the peer with an ESP packet under the next sequence number.
    fn sealed(&mut self, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let esp = self.sealer.seal(self.sequence, next_header.0, payload);
        self.outer(&esp)
    }

    fn outer(&self, esp: &[u8]) -> Vec<u8> {
        let (near, far) = self.bench.shape.endpoints(End::A);
        frame_to(WAN, &ip_with(&Udp::new(far, near, &[]), IpProtocol::ESP, esp))
    }

    /// What the peer sends: an inner packet in GRE, in ESP if there is ESP.
    fn peer_frame(&mut self, place: usize) -> Vec<u8> {
        let inner = udp(End::B, place).to_bytes();
        if self.bench.shape.esp.is_none() {
            // Its only use is in GRE then.
            self.sequence += 1;
        }
        let gre = gre(&self.bench.shape.gre, self.sequence as u32, &inner);
        let (near, far) = self.bench.shape.endpoints(End::A);
        let delivered = ip_with(&Udp::new(far, near, &[]), IpProtocol::GRE, &gre);
        let delivered_as = if far.is_ipv4() { IpProtocol::IPV4 } else { IpProtocol::IPV6 };
        match self.bench.shape.esp {
            Some(EspMode::Transport) => self.sealed(IpProtocol::GRE, &gre),
            Some(EspMode::Tunnel) => self.sealed(delivered_as, &delivered),
            None => frame_to(WAN, &delivered),
        }
    }
}

/// Packets of many sizes and flows, every other one IPv6.
fn udp(from: End, place: usize) -> Udp {
    let to = from.other();
    let (source, destination) =
        if place.is_multiple_of(2) { (from.host(), to.host()) } else { (from.host_v6(), to.host_v6()) };
    Udp { source_port: 1_000 + place as u16, ..Udp::new(source, destination, &vec![7; place * 17 % 1_200]) }
}

fn gre(options: &GreOptions, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let bit = |is: bool, bit: u16| if is { bit } else { 0 };
    let flags =
        bit(options.checksum, 0x8000) | bit(options.key.is_some(), 0x2000) | bit(options.sequence, 0x1000);
    let mut packet = flags.to_be_bytes().to_vec();
    packet.extend(if payload[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    if options.checksum {
        packet.extend([0; 4]);
    }
    options.key.iter().for_each(|key| packet.extend(key.to_be_bytes()));
    if options.sequence {
        packet.extend(sequence.to_be_bytes());
    }
    packet.extend(payload);
    if options.checksum {
        let sum = checksum::checksum(&packet);
        packet[4..6].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn frame_to(port: PortIndex, packet: &[u8]) -> Vec<u8> {
    let far = if port == LAN { End::A.host_mac() } else { End::B.mac(WAN) };
    packets::frame(MacAddr(End::A.mac(port)), MacAddr(far), packet)
}

fn from_host(packet: &Udp) -> Vec<u8> {
    frame_to(LAN, &packet.to_bytes())
}

fn allow(protocol: IpProtocol) -> Object {
    let selector = Selector { protocol: Some(protocol.0), ..ANY };
    policy(u32::from(protocol.0), selector, PolicyAction::Bypass)
}

const IN_ROUNDS: u64 = (ROUNDS * FRAMES) as u64;

#[test]
fn the_counter_counts() {
    let calls = calls(|| {
        let mut bytes = std::hint::black_box(vec![1_u8; 10]);
        bytes.reserve(1_000);
    });
    assert_eq!(calls, Calls { allocated: 2, freed: 2 });
}

#[test]
fn packets_pass_both_ways_without_an_allocation() {
    let plain = GreOptions { key: None, checksum: false, sequence: false };
    let all = GreOptions { key: Some(9), checksum: true, sequence: true };
    for esp in [Some(EspMode::Transport), Some(EspMode::Tunnel), None] {
        for (gre, delivery_v6, esn, icv_bytes) in [
            (plain, false, false, 16),
            (plain, true, true, 12),
            (all, false, true, 8),
            (all, true, false, 16),
        ] {
            let shape = Shape { esp, gre, delivery_v6, esn, icv_bytes, ..Shape::default() };
            let mut steady = Steady::new(&shape, |objects| {
                if esp.is_none() {
                    objects.push(allow(IpProtocol::GRE));
                }
            });
            let risen = steady.run(|steady, _| {
                let out = (0..FRAMES).map(|place| from_host(&udp(End::A, place))).collect();
                [out, (0..FRAMES).map(|place| steady.peer_frame(place)).collect()]
            });
            assert_eq!(risen.drops, [], "{shape:?}");
            assert_eq!(risen.of(WorkerCounter::Transmitted), 2 * IN_ROUNDS);
            let protected = if esp.is_some() { IN_ROUNDS } else { 0 };
            assert_eq!(risen.of(WorkerCounter::Sealed), protected);
            assert_eq!(risen.of(WorkerCounter::Opened), protected);
            assert!(steady.bench.buffers_are_home());
        }
    }
}

#[test]
fn drops_are_counted_without_an_allocation() {
    let mut steady = Steady::new(&Shape::default(), |_| {});
    let risen = steady.run(|steady, _| {
        let good = udp(End::A, 0);
        let stranger =
            packets::frame(MacAddr([2, 9, 9, 9, 9, 9]), MacAddr(End::A.host_mac()), &good.to_bytes());
        let mut unknown_type = from_host(&good);
        unknown_type[12..14].copy_from_slice(&[0x88, 0xcc]);
        let mut bad_checksum = from_host(&good);
        bad_checksum[14 + 10] ^= 1;
        let lan = vec![
            stranger,
            unknown_type,
            from_host(&good)[..13].to_vec(),
            bad_checksum,
            from_host(&good)[..30].to_vec(),
            from_host(&Udp { destination: ip("224.0.0.5"), ..good.clone() }),
            from_host(&Udp { source: ip("127.0.0.1"), ..good.clone() }),
            from_host(&Udp::new(End::A.host(), End::A.gateway(), b"to you")),
            frame_to(
                LAN,
                &ip_with(&Udp::new(End::A.host(), End::A.gateway(), b""), IpProtocol::ICMP, &[9; 16]),
            ),
        ];
        let once = steady.sealed(IpProtocol::GRE, &gre(&steady.bench.shape.gre, 0, &good_inner()));
        let mut bad_icv = steady.sealed(IpProtocol::GRE, &[0; 40]);
        *bad_icv.last_mut().expect("a byte") ^= 1;
        let unknown = steady.bench.peer_sealer(0).with_spi(0x7777).seal(1, 47, &[0; 40]);
        steady.sequence += 1;
        let bad_padding = steady.sealer.seal_text(steady.sequence, &trailed(&[0; 40], &[9, 9], 47));
        let wan = vec![
            once.clone(),
            once,
            bad_icv,
            steady.outer(&unknown),
            steady.outer(&bad_padding),
            steady.outer(&[0, 0, 0]),
            steady.sealed(IpProtocol(59), &[0; 20]),
            steady.sealed(IpProtocol::GRE, &[0, 1, 8, 0, 0, 0, 0, 0]),
            steady.sealed(IpProtocol::GRE, &[0x20, 0, 8, 0, 0, 0, 0, 1, 0, 0]),
            steady.sealed(IpProtocol::GRE, &[0, 0, 8]),
            steady.sealed(IpProtocol::IPV4, &good_inner()),
            frame_to(WAN, &udp(End::B, 0).to_bytes()),
        ];
        [lan, wan]
    });
    assert!(risen.drops.len() >= 15, "{:?}", risen.drops);
    assert_eq!(risen.of(WorkerCounter::Dropped), ROUNDS as u64 * (9 + 12 - 1), "{:?}", risen.drops);
    assert_eq!(risen.of(WorkerCounter::Transmitted), ROUNDS as u64);
    assert!(steady.bench.buffers_are_home());
}

fn good_inner() -> Vec<u8> {
    udp(End::B, 0).to_bytes()
}

#[test]
fn answers_are_made_without_an_allocation() {
    let mut steady = Steady::new(&Shape::default(), |_| {});
    let risen = steady.run(|steady, _| {
        let ping = [8, 0, 0xf7, 0xfb, 0, 4, 0, 0];
        let mut lan = Vec::new();
        for place in 0..4 {
            let packet = udp(End::A, place);
            lan.push(from_host(&Udp { ttl: 1, ..packet.clone() }));
            let nowhere = if packet.source.is_ipv4() { "198.51.100.9" } else { "2001:db8:77::9" };
            lan.push(from_host(&Udp { destination: ip(nowhere), ..packet.clone() }));
            lan.push(from_host(&Udp { data: vec![1; 1_450], ..packet }.dont_fragment()));
            let to_us = Udp::new(End::A.host(), End::A.gateway(), &[]);
            lan.push(frame_to(LAN, &ip_with(&to_us, IpProtocol::ICMP, &ping)));
            lan.push(arp_request());
        }
        let wan = (0..4).map(|place| {
            let dying = Udp { ttl: 1, ..udp(End::B, place) }.to_bytes();
            steady.sealed(IpProtocol::GRE, &gre(&steady.bench.shape.gre, 0, &dying))
        });
        let wan = wan.collect();
        [lan, wan]
    });
    let rounds = ROUNDS as u64;
    assert_eq!(
        risen.drops,
        [
            (DropReason::TtlExceeded, 8 * rounds),
            (DropReason::NoRoute, 4 * rounds),
            (DropReason::TooBig, 4 * rounds)
        ]
    );
    assert_eq!(risen.of(WorkerCounter::Originated), (8 + 4 + 4 + 4 + 4) * rounds, "each is answered");
    assert_eq!(risen.of(WorkerCounter::Sealed), 4 * rounds, "the far host is answered under ESP");
    assert!(steady.bench.buffers_are_home());
}

/// Who has the gateway's address? Tell the host.
fn arp_request() -> Vec<u8> {
    let mac = End::A.host_mac();
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    for (address, mac) in [(End::A.host(), [0; 6]), (End::A.gateway(), [0; 6])] {
        let core::net::IpAddr::V4(address) = address else { unreachable!("IPv4") };
        frame.extend(address.octets());
        frame.extend(mac);
    }
    frame.truncate(42);
    frame
}

#[test]
fn packets_are_cut_without_an_allocation() {
    let mut steady = Steady::new(&Shape::default(), |_| {});
    let risen = steady.run(|_, _| {
        let large = |place: usize| Udp { data: vec![3; 3_000 + 500 * place], ..udp(End::A, 0) };
        [(0..8).map(|place| from_host(&large(place))).collect(), Vec::new()]
    });
    assert_eq!(risen.drops, []);
    assert_eq!(risen.of(WorkerCounter::Sealed), risen.of(WorkerCounter::FragmentsMade));
    assert!(risen.of(WorkerCounter::FragmentsMade) >= 24 * ROUNDS as u64);
    assert!(steady.bench.buffers_are_home());
}

#[test]
fn packets_wait_for_neighbours_and_are_given_up_without_an_allocation() {
    let mut steady = Steady::new(&Shape::default(), |_| {});
    // Twelve hosts that never answer, of the site's prefixes.
    let risen = steady.run(|steady, round| {
        // Several times as long as anyone waits, over all rounds.
        steady.bench.now_ns += 300_000_000;
        let wan = (0..4).map(|place| {
            let silent = format!("10.1.0.{}", 100 + (4 * round + place) % 12);
            let inner = Udp { destination: ip(&silent), ..udp(End::B, 0) }.to_bytes();
            steady.sealed(IpProtocol::GRE, &gre(&steady.bench.shape.gre, 0, &inner))
        });
        let wan = wan.collect();
        [Vec::new(), wan]
    });
    let unresolved = |(reason, _): &(DropReason, u64)| {
        matches!(reason, DropReason::NeighborUnresolved | DropReason::NeighborPending)
    };
    assert!(!risen.drops.is_empty() && risen.drops.iter().all(unresolved), "{:?}", risen.drops);
    assert!(risen.of(WorkerCounter::Originated) > 0, "it asked");
}

#[test]
fn a_port_that_takes_nothing_fills_its_queue_without_an_allocation() {
    let mut steady = Steady::new(&Shape::default(), |_| {});
    steady.is_taken = false;
    let risen =
        steady.run(|_, _| [(0..FRAMES).map(|place| from_host(&udp(End::A, place))).collect(), Vec::new()]);
    let [(DropReason::TransmitFull, dropped)] = risen.drops[..] else { panic!("{:?}", risen.drops) };
    // What the wire and the queue hold, less what went in while warming up.
    let held = (greyhound_simulation::bench::WIRE_PACKETS + 1_024) as u64;
    assert_eq!(dropped, IN_ROUNDS + (WARM_UP * FRAMES) as u64 - held);
    assert_eq!(risen.of(WorkerCounter::Sealed), IN_ROUNDS);
}

/// A policy-map with one class for everything at one place: 1 Mbit/s, eight packets long.
fn narrow(target: ServiceTarget) -> Vec<Object> {
    let policy_map = PolicyMapIndex(0);
    let shape = Some(TrafficProfile { rate_bps: 1_000_000, burst_bytes: None });
    let class = PolicyClass {
        limit: QueueLimit::Packets(8),
        set_dscp: Some(10),
        ..PolicyClass::plain(policy_map, 0, None, Service::Bandwidth(Share::Percent(100)))
    };
    vec![
        Object::PolicyMap(PolicyMap { policy_map, shape }),
        Object::PolicyClass(class),
        Object::ServicePolicy(ServicePolicy { target, policy_map: Some(policy_map), pre_classify: true }),
    ]
}

#[test]
fn packets_wait_for_their_turn_leave_and_are_dropped_without_an_allocation() {
    let mut steady =
        Steady::new(&Shape::default(), |objects| objects.extend(narrow(ServiceTarget::Port(WAN))));
    let risen =
        steady.run(|_, _| [(0..FRAMES).map(|place| from_host(&udp(End::A, place))).collect(), Vec::new()]);
    let [(DropReason::QosQueueLimit, dropped)] = risen.drops[..] else { panic!("{:?}", risen.drops) };
    let sealed = risen.of(WorkerCounter::Sealed);
    assert_eq!(sealed + dropped, IN_ROUNDS.wrapping_sub(risen.of(WorkerCounter::Held)));
    assert!(sealed > IN_ROUNDS / 10 && dropped > IN_ROUNDS / 10, "{sealed} {dropped}");
}

#[test]
fn packets_are_handed_over_without_an_allocation() {
    let mut steady = Steady::new(&Shape { workers: 2, ..Shape::default() }, |objects| {
        for object in objects {
            if let Object::Sa(sa) = object
                && sa.direction == Direction::Inbound
            {
                sa.owner = Some(WorkerId(0));
            }
        }
    });
    let risen = steady.run(|steady, _| {
        let out = (0..FRAMES).map(|place| from_host(&udp(End::A, place))).collect();
        [out, (0..FRAMES).map(|place| steady.peer_frame(place)).collect()]
    });
    assert_eq!(risen.drops, []);
    assert_eq!(risen.of(WorkerCounter::HandedOut), IN_ROUNDS / 2);
    assert_eq!(risen.of(WorkerCounter::HandedIn), IN_ROUNDS / 2);
    assert_eq!(risen.of(WorkerCounter::Transmitted), 2 * IN_ROUNDS);
}

#[test]
fn packets_are_handed_over_to_the_owner_of_their_queues_without_an_allocation() {
    for target in [ServiceTarget::Tunnel(TunnelIndex(0)), ServiceTarget::Port(WAN)] {
        let shape = Shape { workers: 2, ..Shape::default() };
        let mut steady = Steady::new(&shape, |objects| objects.extend(narrow(target)));
        let risen = steady
            .run(|_, _| [(0..FRAMES).map(|place| from_host(&udp(End::A, place))).collect(), Vec::new()]);
        let [(DropReason::QosQueueLimit, dropped)] = risen.drops[..] else { panic!("{:?}", risen.drops) };
        let sealed = risen.of(WorkerCounter::Sealed);
        assert_eq!(sealed + dropped, IN_ROUNDS.wrapping_sub(risen.of(WorkerCounter::Held)));
        assert!(sealed > IN_ROUNDS / 10, "{sealed} of {IN_ROUNDS}");
        let handed = if target == ServiceTarget::Port(WAN) { 0 } else { IN_ROUNDS / 2 };
        assert_eq!(risen.of(WorkerCounter::HandedOut), handed);
        assert_eq!(risen.of(WorkerCounter::HandedIn), handed);
    }
}

/// Each round is under SAs of its own. The worker switches within the counted round; what it leaves behind is freed by
/// the next commit, outside.
#[test]
fn a_worker_switches_to_new_sas_without_an_allocation() {
    let shape = Shape::default();
    let mut steady = Steady::new(&shape, |_| {});
    let first = steady.bench.headend.generation();
    let risen = steady.run(|steady, round| {
        let generation = round as u32 + 1;
        let mut objects = steady.bench.shape.objects(End::A, generation);
        objects.extend(greyhound_simulation::bench::static_neighbors());
        let now_ns = steady.bench.now_ns;
        steady.bench.headend.put(Base::Empty, &objects, now_ns).expect("a valid configuration");
        steady.sealer = steady.bench.peer_sealer(generation);
        steady.sequence = 0;
        let out = (0..FRAMES).map(|place| from_host(&udp(End::A, place))).collect();
        [out, (0..FRAMES).map(|place| steady.peer_frame(place)).collect()]
    });
    assert_eq!(steady.bench.headend.generation() - first, (WARM_UP + ROUNDS) as u64);
    assert_eq!(risen.drops, []);
    assert_eq!((risen.of(WorkerCounter::Sealed), risen.of(WorkerCounter::Opened)), (IN_ROUNDS, IN_ROUNDS));
}
