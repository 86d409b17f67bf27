// SPDX-License-Identifier: Apache-2.0
//! The parts of a packet's way one by one, through their public interfaces, over the profile's tables and packets.
//!
//! `cargo bench -p greyhound-perf --bench parts`. A round takes 64 packets; the figure is for all of them.
//! What a part costs in the path is another question: there, other parts have the caches too.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use aead::Engine;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use esp::Window;
use greyhound_perf::bed::{self, Headend, Role, Setting, WAN};
use greyhound_perf::profile::{self, Flow, Random, Routes};
use greyhound_perf::traffic::{Size, Traffic};
use pipeline::State;
use pktbuf::BURST;
use ring::{Consumer, Producer, RECORD_BYTES};
use sysmem::SharedMemory;
use tables::PacketSelectors;
use wire::{EtherType, Family, checksum, ethernet, flow, gre};

const TUNNELS: [u32; 3] = [1, 2_000, 60_000];
const WINDOW_PACKETS: u32 = 1_024;
const RING_RECORDS: u32 = 4_096;

fn main() {
    divan::main();
}

fn setting(tunnels: u32) -> Setting {
    Setting::usual(tunnels, 1, Engine::best())
}

/// Tables of the headend that seals, and flows into its tunnels.
struct Loaded {
    state: Arc<State>,
    flows: Vec<Flow>,
}

/// Built once for each number of tunnels.
fn loaded(tunnels: u32) -> &'static Loaded {
    static LOADED: [LazyLock<Loaded>; 3] = [
        LazyLock::new(|| load(TUNNELS[0])),
        LazyLock::new(|| load(TUNNELS[1])),
        LazyLock::new(|| load(TUNNELS[2])),
    ];
    let place = TUNNELS.iter().position(|known| *known == tunnels).unwrap();
    &LOADED[place]
}

fn load(tunnels: u32) -> Loaded {
    let headend = Headend::new(Role::Sealer, &setting(tunnels)).unwrap();
    Loaded { state: Arc::clone(headend.installer.state()), flows: profile::flows(&Routes::new(tunnels)) }
}

/// The next 64 of many, over and over.
struct Bursts<T> {
    items: Vec<T>,
    next: usize,
}

impl<T> Bursts<T> {
    fn new(items: Vec<T>) -> Self {
        Self { items, next: 0 }
    }

    fn next(&mut self) -> &[T] {
        let start = self.next;
        self.next = (start + BURST) % (self.items.len() - BURST);
        &self.items[start..start + BURST]
    }
}

#[divan::bench(args = [20, 64, 1_400])]
fn checksum_of(bencher: Bencher<'_, '_>, bytes: usize) {
    let data: Vec<u8> = (0..bytes).map(|byte| byte as u8).collect();
    bencher.counter(BytesCount::new(bytes)).bench(|| checksum::checksum(black_box(&data)));
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let routes = Routes::new(1);
    let traffic = Traffic::new(&setting(1), Size::Fixed(64), &profile::flows(&routes)).unwrap();
    let packets = (0..4_096).map(|number| traffic.frame(number).split_off(ethernet::HEADER_BYTES)).collect();
    let mut bursts: Bursts<Vec<u8>> = Bursts::new(packets);
    bencher
        .counter(ItemsCount::new(BURST))
        .bench_local(|| bursts.next().iter().filter(|packet| flow::parse(black_box(packet)).is_ok()).count());
}

#[divan::bench]
fn spd(bencher: Bencher<'_, '_>) {
    let loaded = loaded(2_000);
    let mut random = Random(7);
    let address =
        |first: u32, random: &mut Random| IpAddr::from((first << 24 | random.below(1 << 24)).to_be_bytes());
    let packets = (0..4_096).map(|number| PacketSelectors {
        local: address(100, &mut random),
        remote: address(101, &mut random),
        protocol: [6, 17, 47][number % 3],
        ports: (number % 3 != 2).then_some((random.below(65_536) as u16, random.below(65_536) as u16)),
    });
    let mut bursts = Bursts::new(packets.collect());
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for packet in bursts.next() {
            black_box(loaded.state.tables.spds.lookup(WAN, packet));
        }
    });
}

#[divan::bench(args = TUNNELS)]
fn route(bencher: Bencher<'_, '_>, tunnels: u32) {
    let loaded = loaded(tunnels);
    let address = |flow: &Flow| profile::address(Family::Ipv4, flow.destination);
    let mut bursts = Bursts::new(loaded.flows.iter().map(address).collect());
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for destination in bursts.next() {
            black_box(loaded.state.tables.routes.lookup(destination));
        }
    });
}

#[divan::bench(args = TUNNELS)]
fn spi(bencher: Bencher<'_, '_>, tunnels: u32) {
    let loaded = loaded(tunnels);
    let mut bursts = Bursts::new(loaded.flows.iter().map(|flow| bed::spi(flow.tunnel)).collect());
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for spi in bursts.next() {
            black_box(loaded.state.tables.sas.inbound(*spi));
        }
    });
}

#[divan::bench(args = TUNNELS)]
fn gre_tunnel(bencher: Bencher<'_, '_>, tunnels: u32) {
    let loaded = loaded(tunnels);
    let all: Vec<_> = loaded.state.tables.tunnels.iter().map(|t| (t.source, t.destination)).collect();
    let ends = loaded.flows.iter().map(|flow| all[flow.tunnel as usize]).collect();
    let mut bursts = Bursts::new(ends);
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for (local, remote) in bursts.next() {
            black_box(loaded.state.tables.tunnels.by_delivery(local, remote, None).is_ok());
        }
    });
}

#[divan::bench]
fn gre_header(bencher: Bencher<'_, '_>) {
    let mut packet = [0; 64];
    let header = gre::Repr {
        protocol_type: EtherType::IPV4,
        checksum_present: false,
        key: Some(7),
        sequence_number: None,
    };
    header.emit(&mut packet).unwrap();
    bencher.counter(ItemsCount::new(BURST)).bench(|| {
        (0..BURST)
            .filter(|_| gre::Packet::parse(black_box(&packet)).is_ok_and(|gre| gre.key() == Some(7)))
            .count()
    });
}

#[divan::bench(args = [false, true])]
fn replay_window(bencher: Bencher<'_, '_>, esn: bool) {
    let window = Window::new(WINDOW_PACKETS, esn).unwrap();
    let mut next: u32 = 1;
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for _ in 0..BURST {
            let sequence = window.infer(next);
            // Before the cipher, and after it.
            if window.check(sequence).is_ok() {
                let _ = black_box(window.accept(sequence));
            }
            next = next.wrapping_add(1);
        }
    });
}

#[divan::bench(args = [64, 496])]
fn ring_record(bencher: Bencher<'_, '_>, bytes: usize) {
    let size = ring::bytes_for(RING_RECORDS).unwrap();
    let memory = Arc::new(SharedMemory::create("greyhound-bench", size).unwrap());
    ring::format(&memory.region(0, size).unwrap(), RING_RECORDS).unwrap();
    let mut producer = Producer::attach(memory.region(0, size).unwrap()).unwrap();
    let mut consumer = Consumer::attach(memory.region(0, size).unwrap()).unwrap();
    let payload = vec![7; bytes];
    let mut record = [0; RECORD_BYTES];
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for _ in 0..BURST {
            producer.push(&payload).unwrap();
        }
        while consumer.pop(&mut record).unwrap().is_some() {}
    });
}
