// SPDX-License-Identifier: Apache-2.0
//! DPDK ports over veth pairs, each test in a network namespace of its own that ends with its thread. Needs root.
#![cfg(have_dpdk)]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unsafe_code, reason = "one call to unshare")]

use greyhound_port as port;
use pktbuf::{ALIGN_OUTBOUND, Batch, HEADROOM, Packet, Pool, PoolConfig, raw};
use port::dpdk::{Eal, EalConfig};
use port::{Port, PortConfig, Queue};
use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A new network namespace with interfaces `va` and `vb`, joined; none if this process may not have one.
fn namespace() -> Option<()> {
    // SAFETY: gives this thread a network namespace of its own; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let reason = std::io::Error::last_os_error();
        // Not by eprintln, which the test harness swallows.
        let line = format!("skipped: namespaces: a new network namespace: {reason}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    ip("link add va type veth peer name vb");
    for interface in ["va", "vb"] {
        let _ = Command::new("sysctl")
            .args(["-qw", &format!("net.ipv6.conf.{interface}.disable_ipv6=1")])
            .status();
        ip(&format!("link set {interface} up"));
    }
    eal();
    Some(())
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn eal() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let config = EalConfig {
            instance: "port-veth-test".to_owned(),
            memory_mib: 256,
            huge_pages: false,
            ..EalConfig::default()
        };
        Eal::init(&config).unwrap();
    });
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn pool() -> Pool {
    let config = PoolConfig { packets: 8191, data_bytes: 2048, cache: 64, align_at: ALIGN_OUTBOUND };
    Pool::dpdk(&format!("veth{}", unique()), &config).unwrap()
}

fn open(driver: &str, interface: &str, arguments: &str, queues: u16, pool: &Pool) -> Port {
    let device = format!("{driver}{},iface={interface}{arguments}", unique());
    Port::open(&device, &PortConfig { queues, ..PortConfig::new(interface, pool) }).unwrap()
}

/// Receives until `count` packets are there, or nothing has come for a second.
fn receive(queue: &mut Queue, count: usize) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut last = Instant::now();
    while packets.len() < count && last.elapsed() < Duration::from_secs(1) {
        let mut batch = Batch::new();
        if queue.receive(&mut batch) > 0 {
            last = Instant::now();
        }
        packets.extend(batch);
    }
    packets
}

/// The kernel tells of a carrier a moment after the interface is up.
fn wait_for(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not come to pass");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn transmit(queue: &mut Queue, mut batch: Batch) {
    let began = Instant::now();
    while !batch.is_empty() {
        queue.transmit(&mut batch);
        assert!(began.elapsed() < Duration::from_secs(5), "the device takes nothing");
    }
}

/// A frame of `len` bytes with an experimental EtherType (RFC 5342), or with a VLAN tag.
fn frame(len: usize, seed: usize, tagged: bool) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i * 7 + seed) as u8).collect();
    frame[..12].copy_from_slice(&[0xff; 12]);
    frame[6] = 2;
    let after_macs: &[u8] = if tagged { &[0x81, 0, 0x20, 7, 0x88, 0xb5] } else { &[0x88, 0xb5] };
    frame[12..12 + after_macs.len()].copy_from_slice(after_macs);
    frame
}

/// A packet with these bytes, made by growing and trimming so that it does not start at the standard headroom.
fn encapsulated(pool: &Pool, bytes: &[u8]) -> Packet {
    let mut packet = pool.copy_of(&[&[0; 20], &bytes[54..]].concat()).unwrap();
    packet.trim_front(20).unwrap();
    packet.prepend(54).unwrap().copy_from_slice(&bytes[..54]);
    packet
}

/// Sends frames of all sizes from one port to the other, in bursts, and expects each byte of them.
fn exchange(from: &mut Queue, to: &mut Queue, pool: &Pool) {
    let frames: Vec<_> = (60..1515).map(|len| frame(len, len, len % 3 == 0)).collect();
    for burst in frames.chunks(64) {
        transmit(from, burst.iter().map(|bytes| encapsulated(pool, bytes)).collect());
        let received = receive(to, burst.len());
        let got: Vec<_> = received.iter().map(|packet| packet.data().to_vec()).collect();
        let same = got.iter().zip(burst).take_while(|(a, b)| a == b).count();
        assert!(
            got == burst,
            "{} of {} frames, {same} as sent; then {:02x?} for {:02x?}",
            got.len(),
            burst.len(),
            got.get(same).map(|frame| (frame.len(), &frame[..20])),
            burst.get(same).map(|frame| (frame.len(), &frame[..20]))
        );
        assert!(received.iter().all(|p| raw::references(p) == 1 && raw::segments(p) == 1));
        // A driver that puts a VLAN tag back takes four bytes.
        assert!(received.iter().all(|p| p.headroom() >= HEADROOM - 4));
    }
}

#[test]
fn af_packet_carries_frames_of_all_sizes_both_ways() {
    let Some(()) = namespace() else { return };
    let pool = pool();
    let a = open("net_af_packet", "va", ",framecnt=4096", 1, &pool);
    let b = open("net_af_packet", "vb", ",framecnt=4096", 1, &pool);
    let (mut qa, mut qb) = (a.queue(0).unwrap(), b.queue(0).unwrap());
    exchange(&mut qa, &mut qb, &pool);
    exchange(&mut qb, &mut qa, &pool);
    wait_for(|| a.link_up());
    assert_eq!(a.mtu(), 1500);
    assert_eq!(a.statistics().tx_packets, b.statistics().rx_packets);
    drop((qa, qb, a, b));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn af_packet_holds_three_thousand_frames_between_two_looks() {
    let Some(()) = namespace() else { return };
    let pool = pool();
    let a = open("net_af_packet", "va", ",framecnt=4096", 1, &pool);
    let b = open("net_af_packet", "vb", ",framecnt=4096", 1, &pool);
    let (mut qa, mut qb) = (a.queue(0).unwrap(), b.queue(0).unwrap());
    for burst in 0..47 {
        transmit(&mut qa, (0..64).map(|n| encapsulated(&pool, &frame(100, burst * 64 + n, false))).collect());
    }
    let received = receive(&mut qb, 47 * 64);
    let expected = (0..47 * 64).map(|n| frame(100, n, false));
    assert!(received.iter().map(|packet| packet.data().to_vec()).eq(expected));
}

#[test]
fn af_packet_works_with_two_queues() {
    let Some(()) = namespace() else { return };
    let pool = pool();
    let a = open("net_af_packet", "va", ",framecnt=4096,qpairs=2", 2, &pool);
    let b = open("net_af_packet", "vb", ",framecnt=4096,qpairs=2", 2, &pool);
    let mut receivers = [0, 1].map(|index| b.queue(index).unwrap());
    for index in 0..2 {
        transmit(
            &mut a.queue(index).unwrap(),
            (0..64).map(|n| encapsulated(&pool, &frame(100, n, false))).collect(),
        );
    }
    let mut got = 0;
    let began = Instant::now();
    while got < 128 && began.elapsed() < Duration::from_secs(5) {
        got += receivers.iter_mut().map(|queue| queue.receive(&mut Batch::new())).sum::<usize>();
    }
    assert_eq!(got, 128);
}

#[test]
fn a_cable_that_is_unplugged_is_seen_and_stops_nothing_but_frames() {
    let Some(()) = namespace() else { return };
    let pool = pool();
    let a = open("net_af_packet", "va", ",framecnt=4096", 1, &pool);
    let mut queue = a.queue(0).unwrap();
    wait_for(|| a.link_up());
    ip("link set vb down");
    wait_for(|| !a.link_up());
    let mut batch = Batch::from_iter([pool.copy_of(&frame(100, 0, false)).unwrap()]);
    queue.transmit(&mut batch);
    ip("link set va down");
    queue.transmit(&mut batch);
    assert_eq!(queue.receive(&mut Batch::new()), 0);
    ip("link set va up");
    ip("link set vb up");
    wait_for(|| a.link_up());
    drop((batch, queue, a));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn af_packet_sets_the_mtu_of_the_interface() {
    let Some(()) = namespace() else { return };
    let pool = pool();
    let device = format!("net_af_packet{},iface=va,framecnt=4096", unique());
    let port = Port::open(&device, &PortConfig { mtu: 1400, ..PortConfig::new("va", &pool) }).unwrap();
    let shown = Command::new("ip").args(["-o", "link", "show", "va"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("mtu 1400"));
    assert_eq!(port.mtu(), 1400);
}

#[test]
fn af_xdp_carries_frames_of_all_sizes_both_ways() {
    let Some(()) = namespace() else { return };
    let pools = [pool(), pool()];
    let a = open("net_af_xdp", "va", "", 1, &pools[0]);
    let b = open("net_af_packet", "vb", ",framecnt=4096", 1, &pools[1]);
    let (mut qa, mut qb) = (a.queue(0).unwrap(), b.queue(0).unwrap());
    exchange(&mut qb, &mut qa, &pools[1]);
    exchange(&mut qa, &mut qb, &pools[0]);
    exchange(&mut qa, &mut qb, &pools[1]);
}
