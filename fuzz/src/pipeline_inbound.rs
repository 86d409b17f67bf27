// SPDX-License-Identifier: Apache-2.0
//! The whole packet path of two workers over a pool in memory: frames of the fuzzer's, sealed ones among them, out come
//! frames and counters.
//!
//! The input is a list of steps in the life of the headend that [`headend`] describes. After each step every packet is
//! accounted for and every buffer has its place; whatever leaves is looked at by [`leaving`]: right checksums, no longer
//! than the link takes, and towards the untrusted side nothing of a protected site in clear, and no IV twice.

mod frames;
mod headend;
mod leaving;

use std::collections::{BTreeSet, VecDeque};

use messages::{PortIndex, WorkerCounter, WorkerId};
use pipeline::{HandedOver, Pipeline, PipelineConfig};
use pktbuf::{Batch, Pool};

use crate::input::Input;
use headend::{LAN, MACS, PROTECTIONS, WAN, WORKERS};
use leaving::Leaving;

/// Steps that are looked at; more only take time.
const STEPS_MAX: usize = 300;
const POOL_PACKETS: usize = 512;
const MILLISECOND_NS: u64 = 1_000_000;

thread_local! {
    /// Whole at the beginning and at the end of every input.
    static POOL: Pool = Pool::memory(POOL_PACKETS, 2048).expect("memory for a small pool");
}

/// A headend's life.
///
/// # Panics
/// On a finding.
pub fn pipeline_inbound(data: &[u8]) {
    Headend::after(data).finish();
}

struct Headend {
    pool: Pool,
    workers: Vec<Pipeline>,
    /// What came in by each port and was not received yet.
    waiting: [Batch; 2],
    now_ns: u64,
    /// The last number that each peer sealed under, and all that it used.
    sequences: [u64; PROTECTIONS],
    used: BTreeSet<(usize, u64)>,
    leaving: Leaving,
    state: std::sync::Arc<pipeline::State>,
}

impl Headend {
    fn new() -> Self {
        let pool = POOL.with(Pool::clone);
        let (state, neighbors) = headend::state();
        let worker = |worker| {
            Pipeline::new(PipelineConfig {
                worker: WorkerId(worker),
                workers: WORKERS,
                macs: MACS.to_vec(),
                vlans: Vec::new(),
                pool: pool.clone(),
                neighbors: neighbors.clone(),
                state: state.clone(),
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self {
            pool,
            workers,
            waiting: [Batch::new(), Batch::new()],
            now_ns: 1,
            sequences: [0; PROTECTIONS],
            used: BTreeSet::new(),
            leaving: Leaving::default(),
            state,
        }
    }

    /// A headend that has been through the steps of `data`.
    fn after(data: &[u8]) -> Self {
        let mut input = Input::new(data);
        let mut headend = Self::new();
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            headend.step(&mut input);
        }
        headend
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.u8();
        match kind & 7 {
            0 => {
                let port = port(input);
                let frame = frames::raw(input);
                self.arrive(port, &frame);
            }
            1 | 7 => {
                let frame = self.sealed(input);
                self.arrive(WAN, &frame);
            }
            2 => {
                let port = port(input);
                let frame = frames::mended(port, input);
                self.arrive(port, &frame);
            }
            3 => {
                let frame = frames::from_site(input);
                self.arrive(LAN, &frame);
            }
            4 => {
                let port = port(input);
                self.receive(port, usize::from(kind >> 3 & 1));
            }
            5 => {
                self.now_ns += u64::from(input.u16()) * MILLISECOND_NS;
                let now_ns = self.now_ns;
                self.workers.iter_mut().for_each(|worker| worker.tick(now_ns));
            }
            _ => {
                let port = port(input);
                self.transmit(port, input.u8().into());
            }
        }
        self.check();
    }

    fn sealed(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let pair = usize::from(input.u8()) % PROTECTIONS;
        let ahead = i64::from(input.u8().cast_signed()).wrapping_add(1);
        let sequence = self.sequences[pair].wrapping_add_signed(ahead) & 0xffff_ffff;
        self.sequences[pair] = sequence;
        self.used.insert((pair, sequence));
        frames::sealed(pair, sequence, input)
    }

    /// A frame on the line; a device with no buffer loses it.
    fn arrive(&mut self, port: PortIndex, frame: &[u8]) {
        if self.waiting[port.index()].is_full() {
            self.receive(port, 0);
        }
        if let Some(packet) = self.pool.copy_of(frame) {
            self.waiting[port.index()].push(packet);
        }
    }

    fn receive(&mut self, port: PortIndex, worker: usize) {
        let now_ns = self.now_ns;
        self.workers[worker].receive(port, &mut self.waiting[port.index()], now_ns);
        assert!(self.waiting[port.index()].is_empty(), "left in the batch");
        let mut handed: VecDeque<(WorkerId, HandedOver)> = VecDeque::new();
        self.workers[worker].hand_over(|owner, packet| {
            handed.push_back((owner, packet));
            Ok(())
        });
        for (owner, packet) in handed {
            assert_ne!(usize::from(owner.0), worker, "handed to itself");
            self.workers[owner.index()].take_over([packet].into_iter(), now_ns);
        }
    }

    /// The device takes `room` frames.
    fn transmit(&mut self, port: PortIndex, room: usize) {
        for worker in &mut self.workers {
            let leaving = &mut self.leaving;
            let mut room = room;
            worker.transmit(port, |batch| {
                let count = batch.len().min(room);
                room -= count;
                batch.drain(..count).for_each(|packet| leaving.check(port, packet.data()));
                count
            });
        }
    }

    fn check(&mut self) {
        let mut held = 0;
        for worker in &mut self.workers {
            let counters = worker.counters();
            assert_eq!(counters.unaccounted(), 0);
            held += counters.worker(WorkerCounter::Held);
        }
        let waiting: usize = self.waiting.iter().map(|batch| batch.len()).sum();
        let out = self.pool.capacity() - self.pool.available();
        assert_eq!(out as u64, held + waiting as u64, "buffers without a place");
    }

    /// Everything leaves; no number was accepted twice, and every buffer comes home.
    fn finish(mut self) {
        for port in [WAN, LAN] {
            self.receive(port, 0);
        }
        self.check();
        for port in [WAN, LAN] {
            self.transmit(port, usize::MAX);
        }
        self.check();
        for (index, (_, entry)) in self.state.sad.all_inbound().enumerate() {
            let distinct = self.used.iter().filter(|(pair, _)| *pair == index).count();
            assert!(entry.sa.usage().packets <= distinct as u64, "a number was accepted twice");
        }
        self.workers.clear();
        assert_eq!(self.pool.available(), self.pool.capacity(), "buffers are lost");
    }
}

fn port(input: &mut Input<'_>) -> PortIndex {
    input.choose([WAN, LAN])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counter over both workers, after the life that a seed tells.
    fn count(seed: &str, counter: WorkerCounter) -> u64 {
        let path = format!("{}/corpus/pipeline_inbound/seed-{seed}", env!("CARGO_MANIFEST_DIR"));
        let mut headend = Headend::after(&std::fs::read(path).unwrap());
        let count = headend.workers.iter_mut().map(|worker| worker.counters().worker(counter)).sum();
        headend.finish();
        count
    }

    #[test]
    fn the_seeds_reach_every_protection_in_both_directions() {
        assert_eq!(count("out", WorkerCounter::Sealed), 4);
        assert_eq!(count("in", WorkerCounter::Opened), 4);
        assert_eq!(count("other-worker", WorkerCounter::HandedOut), 2);
    }

    #[test]
    fn of_three_copies_one_is_opened() {
        assert_eq!(count("in-twice", WorkerCounter::Opened), 1);
    }
}
