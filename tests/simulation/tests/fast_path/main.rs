// SPDX-License-Identifier: Apache-2.0
//! The fast path against the whole way: two headends from the same objects, keys and seed, one with its fast path
//! switched off. Both get the same random bursts, and are compared after each: frames, counters, windows.
//!
//! After bursts of packets that are common in every respect the frames are equal byte by byte. In other bursts the whole
//! way does stage by stage what the fast path does in the order of arrival, so identifications and sequence numbers go to
//! other packets: sealed frames are opened, what was numbered is left out, and each flow is compared in its order.

mod frames;
mod network;
mod packets;

use frames::{Canon, Reader};
use messages::{DropReason, PortIndex, QueueState, SaState, WorkerCounter, WorkerId};
use network::{Network, Rig};
use packets::Source;
use rand::RngExt;

const BURSTS: usize = 1_000;
/// Bursts between changes of what is configured.
const CHANGE_EVERY: usize = 20;
const STEP_NS: u64 = 1_000_000_000;

/// Everything that can be counted.
#[derive(Debug, PartialEq)]
struct Books {
    workers: Vec<(u16, WorkerCounter, u64)>,
    drops: Vec<(u16, DropReason, u64)>,
    tunnels: Vec<(usize, [u64; 4])>,
    sas: Vec<SaState>,
    classes: Vec<QueueState>,
}

/// Everything that one worker sent by one port, in order.
type Frames = Vec<Vec<u8>>;

/// Both headends, and what both have done.
struct Pair {
    fast: Rig,
    whole: Rig,
    reader: Reader,
    source: Source,
    now_ns: u64,
    /// Bursts after which every frame was equal.
    equal: usize,
    seen: std::collections::BTreeSet<&'static str>,
}

impl Pair {
    fn new(network: &Network, seed: u64) -> Self {
        let now_ns = 1_000_000_000;
        let mut whole = Rig::new(network, now_ns);
        whole.pipelines.iter_mut().for_each(|pipeline| pipeline.set_whole_way_only(true));
        Self {
            fast: Rig::new(network, now_ns),
            whole,
            reader: Reader::new(network),
            source: Source::new(network, seed),
            now_ns,
            equal: 0,
            seen: std::collections::BTreeSet::new(),
        }
    }

    fn rigs(&mut self) -> [&mut Rig; 2] {
        [&mut self.fast, &mut self.whole]
    }

    /// One burst into both, to its end.
    fn burst(&mut self, worker: u16, port: PortIndex, frames: &[Vec<u8>], common: bool, name: &str) {
        self.now_ns += STEP_NS;
        let now_ns = self.now_ns;
        let [fast, whole] = self.rigs().map(|rig| {
            rig.refresh(now_ns);
            rig.receive(worker, port, frames, now_ns);
            rig.settle(now_ns);
            rig.take_frames()
        });
        for (queue, (fast, whole)) in fast.iter().zip(&whole).enumerate() {
            let (by, port) = (queue / network::MACS.len(), queue % network::MACS.len());
            let name = format!("{name}, by worker {by} out of port {port}");
            if common {
                // What waited for its neighbour was numbered, and questions were put in order, in an earlier burst.
                let is_of_now =
                    |frame: &&Vec<u8>| frame[0] & 1 == 0 && !frame.starts_with(&network::UNANSWERED_MAC);
                let [fast, whole] = [fast, whole].map(|all| all.iter().filter(is_of_now).collect::<Vec<_>>());
                let differs = fast.iter().zip(&whole).position(|(fast, whole)| fast != whole);
                assert!(
                    differs.is_none() && fast.len() == whole.len(),
                    "{name}: {} frames, not {}, and number {differs:?} differs:\n{:02x?}\n{:02x?}",
                    fast.len(),
                    whole.len(),
                    differs.map(|place| &fast[place]),
                    differs.map(|place| &whole[place]),
                );
            }
            self.compare(fast, whole, &name);
        }
        self.equal += usize::from(fast == whole);
        let [fast, whole] = self.rigs().map(|rig| books(rig, now_ns));
        assert_eq!(fast, whole, "{name}");
        self.seen.extend(fast.drops.iter().filter(|drop| drop.2 > 0).map(|drop| drop.1.name()));
    }

    fn compare(&self, fast: &Frames, whole: &Frames, name: &str) {
        let [(fast, fast_numbers), (whole, whole_numbers)] =
            [fast, whole].map(|frames| self.reader.read(frames));
        let keys = |canon: &Canon| canon.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&fast), keys(&whole), "{name}: flows");
        for (flow, frames) in &fast {
            assert_eq!(Some(frames), whole.get(flow), "{name}: flow {flow:x?}");
        }
        for (spi, numbers) in &fast_numbers {
            assert!(numbers.is_sorted_by(|a, b| a < b), "{name}: SPI {spi:#x} leaves in order: {numbers:?}");
        }
        assert_eq!(fast_numbers, whole_numbers, "{name}: sequence numbers");
    }
}

fn books(rig: &mut Rig, now_ns: u64) -> Books {
    let mut workers = Vec::new();
    let mut drops = Vec::new();
    for (worker, pipeline) in (0..).zip(&mut rig.pipelines) {
        let counters = pipeline.counters();
        assert_eq!(counters.unaccounted(), 0);
        workers
            .extend(WorkerCounter::ALL.iter().map(|counter| (worker, *counter, counters.worker(*counter))));
        drops.extend(DropReason::ALL.iter().map(|reason| (worker, *reason, counters.dropped(*reason))));
    }
    let tunnels = &rig.installer.tables().tunnels;
    let of = |index: u32| {
        let counters = tunnels.get(messages::TunnelIndex(index))?.state.counts().sum();
        let all = [counters.packets_out, counters.bytes_out, counters.packets_in, counters.bytes_in];
        Some((index as usize, all))
    };
    let tunnels = (0..network::TUNNELS).filter_map(of).collect();
    let sas = rig.installer.sa_states(now_ns).collect();
    Books { workers, drops, tunnels, sas, classes: rig.installer.queue_states().collect() }
}

#[test]
fn the_fast_path_is_the_whole_way() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..4 {
        let network = Network::new(seed);
        let mut pair = Pair::new(&network, seed);
        let mut common_bursts = 0;
        for number in 0..BURSTS {
            if number % CHANGE_EVERY == CHANGE_EVERY - 1 {
                let objects = network.changes(number / CHANGE_EVERY);
                let now_ns = pair.now_ns;
                pair.rigs().into_iter().for_each(|rig| rig.change(&objects, now_ns));
            }
            let (worker, port, kind) = {
                let random = pair.source.random();
                (random.random_range(0..2), PortIndex(random.random_range(0..3)), random.random_range(0..8))
            };
            let name = format!("seed {seed}, burst {number}, worker {worker}, port {}", port.0);
            match kind {
                0 => {
                    let answer = pair.source.arp(worker, port);
                    pair.burst(worker, port, &[answer], true, &name);
                }
                1..=3 => {
                    common_bursts += 1;
                    let frames = pair.source.common(port);
                    pair.burst(worker, port, &frames, true, &name);
                }
                _ => {
                    let frames = pair.source.mixed(port);
                    pair.burst(worker, port, &frames, false, &name);
                }
            }
        }
        let sealed = books(&mut pair.fast, pair.now_ns).workers;
        let sum = |counter| sealed.iter().filter(|c| c.1 == counter).map(|c| c.2).sum::<u64>();
        for counter in [
            WorkerCounter::Sealed,
            WorkerCounter::Opened,
            WorkerCounter::HandedIn,
            WorkerCounter::MssClamped,
            WorkerCounter::EcnCongested,
            WorkerCounter::FragmentsMade,
            WorkerCounter::Originated,
        ] {
            assert!(sum(counter) > 20, "{counter:?} {}", sum(counter));
        }
        assert!(pair.equal >= common_bursts);
        assert_eq!(pair.source.owner_of_six(), WorkerId(1));
        seen.append(&mut pair.seen);
    }
    let never: Vec<_> = [
        DropReason::SaTunnelMismatch,
        DropReason::SelectorMismatch,
        DropReason::ClearButProtected,
        DropReason::StrictSource,
        DropReason::SaAddress,
        DropReason::SpiUnknown,
        DropReason::Replayed,
        DropReason::ReplayTooOld,
        DropReason::BadIcv,
        DropReason::SequenceZero,
        DropReason::PadBytes,
        DropReason::DummyPacket,
        DropReason::EspNextHeader,
        DropReason::EspFragment,
        DropReason::EcnInvalid,
        DropReason::GreKey,
        DropReason::GreChecksum,
        DropReason::GreReservedBits,
        DropReason::GreSequence,
        DropReason::SourceInvalid,
        DropReason::DestinationInvalid,
        DropReason::TtlExceeded,
        DropReason::TooBig,
        DropReason::IpChecksum,
        DropReason::IpOptions,
        DropReason::IpMalformed,
        DropReason::NotForUs,
        DropReason::VlanUnknown,
        DropReason::NoSa,
        DropReason::SaExpired,
        DropReason::SequenceExhausted,
        DropReason::NeighborPending,
        DropReason::PolicyNone,
        DropReason::NoRoute,
    ]
    .iter()
    .map(|reason| reason.name())
    .filter(|name| !seen.contains(name))
    .collect();
    assert!(never.is_empty(), "{never:?} never happened");
}
