// SPDX-License-Identifier: Apache-2.0
//! DPDK pools and ports on virtual devices: no root, no huge pages, no NIC. EAL starts once for all tests.
//! With `GREYHOUND_TEST_HUGE_PAGES` set they run on huge pages (256 MiB).
#![cfg(have_dpdk)]
#![allow(clippy::unwrap_used, reason = "tests")]

use greyhound_port as port;
use pktbuf::{ALIGN_INBOUND, BURST, Batch, HEADROOM, Packet, Pool, PoolConfig, raw};
use port::dpdk::{Eal, EalConfig, EalError, register_worker_thread};
use port::{Port, PortConfig, PortError, pcap};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn eal() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let config = EalConfig {
            instance: "port-test".to_owned(),
            memory_mib: 256,
            huge_pages: std::env::var_os("GREYHOUND_TEST_HUGE_PAGES").is_some(),
            devices: vec!["net_null7,size=100".to_owned()],
            ..EalConfig::default()
        };
        Eal::init(&config).unwrap();
    });
}

/// A pool of 511 packets with a name of its own.
fn pool_with(data_bytes: usize, align_at: usize) -> Pool {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    eal();
    let name = format!("pool{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Pool::dpdk(&name, &PoolConfig { packets: 511, data_bytes, cache: 32, align_at }).unwrap()
}

fn pool() -> Pool {
    pool_with(2048, ALIGN_INBOUND)
}

fn small(pool: &Pool) -> PortConfig {
    PortConfig { rx_descriptors: 64, tx_descriptors: 64, ..PortConfig::new("test", pool) }
}

fn receive_all(queue: &mut port::Queue) -> Vec<Packet> {
    let mut all = Vec::new();
    loop {
        let mut batch = Batch::new();
        if queue.receive(&mut batch) == 0 {
            return all;
        }
        all.extend(batch);
    }
}

#[test]
fn a_pool_gives_out_what_it_has_and_takes_it_back() {
    let pool = pool();
    let out: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((out.len(), pool.available(), pool.capacity()), (511, 0, 511));
    assert!(out.iter().all(|p| (p.len(), p.headroom(), p.tailroom()) == (0, HEADROOM, 2048)));
    assert!(out.iter().all(|p| raw::is_mbuf(p) && raw::references(p) == 1 && raw::segments(p) == 1));
    drop(out);
    assert_eq!(pool.available(), 511);
}

#[test]
fn buffers_share_no_byte_and_lie_as_asked() {
    for align_at in [10, 50, 0, 1] {
        let pool = pool_with(300, align_at);
        let mut packets: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        for (fill, packet) in packets.iter_mut().enumerate() {
            packet.append(300).unwrap();
            assert_eq!(packet.data()[align_at..].as_ptr().addr() % 64, 0);
            packet.prepend(HEADROOM).unwrap();
            packet.data_mut().fill(fill as u8);
        }
        for (fill, packet) in packets.iter().enumerate() {
            assert!(packet.data().iter().all(|&byte| byte == fill as u8));
        }
    }
}

#[test]
fn buffers_are_an_odd_number_of_cache_lines_apart_and_without_gaps() {
    let pool = pool();
    let packets: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    let mut starts: Vec<_> = packets.iter().map(|packet| packet.data().as_ptr().addr()).collect();
    starts.sort_unstable();
    let apart = starts[1] - starts[0];
    assert_eq!((apart % 64, apart / 64 % 2), (0, 1));
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == apart), "net_af_xdp needs pools in one piece");
}

#[test]
fn a_pool_that_cannot_be_is_refused_with_advice() {
    eal();
    let config = PoolConfig { packets: 31, data_bytes: 200, cache: 0, ..PoolConfig::default() };
    let _first = Pool::dpdk("twice", &config).unwrap();
    let error = |name: &str, config: &PoolConfig| Pool::dpdk(name, config).unwrap_err().to_string();
    assert!(error("twice", &config).contains("exists already"));
    assert!(error("large", &PoolConfig { packets: 1 << 24, ..config.clone() }).contains("more memory"));
    assert!(error("cache", &PoolConfig { cache: 500, ..config.clone() }).contains("cache"));
    assert!(Pool::dpdk("nul\0", &config).is_err());
}

#[test]
fn a_looped_back_packet_keeps_its_bytes_headroom_and_single_reference() {
    let pool = pool();
    let port = Port::open("net_ring0", &small(&pool)).unwrap();
    let mut queue = port.queue(0).unwrap();
    let mut batch = Batch::new();
    let mut expected = Vec::new();
    for n in 0..BURST {
        let mut packet = pool.copy_of(&vec![n as u8; 60 + n]).unwrap();
        packet.trim_front(14).unwrap();
        packet.prepend(n * 2).unwrap().fill(0xaa);
        packet.append(n % 16).unwrap().fill(0xbb);
        expected.push((packet.data().to_vec(), packet.headroom(), packet.tailroom()));
        batch.push(packet);
    }
    assert_eq!(queue.transmit(&mut batch), BURST);
    assert!(batch.is_empty());
    let received = receive_all(&mut queue);
    let got = received.iter().map(|p| (p.data().to_vec(), p.headroom(), p.tailroom()));
    assert!(got.eq(expected));
    assert!(received.iter().all(|p| raw::references(p) == 1 && raw::segments(p) == 1));
    let statistics = port.statistics();
    assert_eq!((statistics.tx_packets, statistics.rx_packets), (64, 64));
    drop((received, queue, port));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn what_a_full_device_does_not_take_stays_in_order() {
    let pool = pool_with(100, 0);
    let more = pool_with(100, 0);
    let third = pool_with(100, 0);
    let config = PortConfig { mtu: 80, ..small(&pool) };
    let port = Port::open("net_ring1", &config).unwrap();
    let mut queue = port.queue(0).unwrap();
    let mut sent = 0u32;
    let mut left = Batch::new();
    while left.is_empty() {
        while !left.is_full() {
            let bytes = (sent + left.len() as u32).to_be_bytes();
            let pools = [&pool, &more, &third];
            left.push(pools.iter().find_map(|pool| pool.copy_of(&bytes)).unwrap());
        }
        sent += queue.transmit(&mut left) as u32;
    }
    let numbers = |packets: &[Packet]| -> Vec<u32> {
        packets.iter().map(|p| u32::from_be_bytes(p.data().try_into().unwrap())).collect()
    };
    assert_eq!(numbers(&left), Vec::from_iter(sent..sent + left.len() as u32));
    let received = receive_all(&mut queue);
    assert_eq!(numbers(&received), Vec::from_iter(0..sent));
    drop((received, left, queue, port));
    assert_eq!(pool.available() + more.available() + third.available(), 3 * 511);
}

#[test]
fn a_null_device_makes_and_swallows_packets_on_every_queue() {
    let pool = pool();
    let config = PortConfig { queues: 2, ..small(&pool) };
    let port = Port::open("net_null0,size=200", &config).unwrap();
    assert_eq!((port.queues(), port.mtu(), port.capabilities().driver.as_str()), (2, 1500, "net_null"));
    assert!(port.capabilities().max_queues >= 2);
    for index in 0..2 {
        let mut queue = port.queue(index).unwrap();
        let mut batch = Batch::new();
        batch.push(pool.copy_of(b"first").unwrap());
        assert_eq!(queue.receive(&mut batch), BURST - 1);
        assert_eq!(batch[0].data(), b"first");
        assert!(batch[1..].iter().all(|p| p.len() == 200 && p.headroom() == HEADROOM));
        assert!(batch.iter().all(|p| raw::references(p) == 1 && raw::segments(p) == 1));
        assert_eq!(queue.receive(&mut batch), 0, "a full batch receives nothing");
        assert_eq!(queue.transmit(&mut batch), BURST);
    }
    let statistics = port.statistics();
    assert_eq!((statistics.rx_packets, statistics.tx_packets), (126, 128));
    assert!(port.named_statistics().contains(&("tx_good_packets".to_owned(), 128)));
    drop(port);
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn a_device_named_at_the_start_is_found() {
    let pool = pool();
    let port = Port::open("net_null7", &small(&pool)).unwrap();
    let mut batch = Batch::new();
    port.queue(0).unwrap().receive(&mut batch);
    assert_eq!(batch[0].len(), 100);
}

#[test]
fn a_capture_passes_through_byte_for_byte_with_a_header_put_in_front() {
    let directory = tempfile::tempdir().unwrap();
    let [input, output] = ["in.pcap", "out.pcap"].map(|name| directory.path().join(name));
    let frames: Vec<Vec<u8>> =
        (60..1514).step_by(7).map(|len| (0..len).map(|i| (i ^ len) as u8).collect()).collect();
    let mut writer = pcap::Writer::new(std::fs::File::create(&input).unwrap()).unwrap();
    frames.iter().for_each(|frame| writer.write(1_000_000_000, frame).unwrap());
    writer.finish().unwrap();

    let pool = pool();
    let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let port = Port::open(&device, &PortConfig { mtu: 1700, ..small(&pool) }).unwrap();
    let mut queue = port.queue(0).unwrap();
    let mut received = 0;
    loop {
        let mut batch = Batch::new();
        if queue.receive(&mut batch) == 0 {
            break;
        }
        received += batch.len();
        for packet in &mut batch {
            packet.trim_front(14).unwrap();
            packet.prepend(54).unwrap().fill(0xe5);
            packet.append(18).unwrap().fill(0x1c);
        }
        while !batch.is_empty() {
            queue.transmit(&mut batch);
        }
    }
    assert_eq!(received, frames.len());
    drop((queue, port));
    assert_eq!(pool.available(), pool.capacity());
    let expected = frames.iter().map(|frame| [&[0xe5; 54], &frame[14..], &[0x1c; 18]].concat());
    let written = pcap::read(std::fs::File::open(&output).unwrap()).unwrap();
    assert!(written.into_iter().map(|frame| frame.bytes).eq(expected));
}

#[test]
fn frames_longer_than_a_buffer_are_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("long.pcap");
    let mut writer = pcap::Writer::new(std::fs::File::create(&input).unwrap()).unwrap();
    for len in [60, 1400, 61, 1400, 62] {
        writer.write(0, &vec![7; len]).unwrap();
    }
    writer.finish().unwrap();
    let pool = pool_with(500, 0);
    let device = format!("net_pcap1,rx_pcap={},tx_pcap=/dev/null", input.display());
    let port = Port::open(&device, &PortConfig { mtu: 400, ..small(&pool) }).unwrap();
    let received = receive_all(&mut port.queue(0).unwrap());
    assert!(received.iter().map(Packet::len).eq([60, 61, 62]));
    assert_eq!(port.statistics().rx_multi_segment, 2);
    drop((received, port));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn two_ends_of_shared_memory_exchange_packets() {
    let pool = pool_with(2200, 10);
    let socket = format!("socket-abstract=yes,socket=greyhound-test-{}", std::process::id());
    let server = Port::open(&format!("net_memif0,role=server,{socket}"), &small(&pool)).unwrap();
    let client = Port::open(&format!("net_memif1,role=client,{socket}"), &small(&pool)).unwrap();
    let began = Instant::now();
    while !(server.link_up() && client.link_up()) {
        assert!(began.elapsed() < Duration::from_secs(20), "the two ends do not find each other");
        std::thread::sleep(Duration::from_millis(1));
    }
    for (from, to) in [(&server, &client), (&client, &server)] {
        let (mut send, mut receive) = (from.queue(0).unwrap(), to.queue(0).unwrap());
        // A receiver offers its peer room when it first looks.
        assert_eq!(receive.receive(&mut Batch::new()), 0);
        for len in (60..1514).step_by(97) {
            let mut packet = pool.copy_of(&vec![3; len - 50]).unwrap();
            packet.prepend(50).unwrap().fill(4);
            let expected = packet.data().to_vec();
            let mut batch = Batch::from_iter([packet]);
            assert_eq!(send.transmit(&mut batch), 1);
            while receive.receive(&mut batch) == 0 {
                assert!(began.elapsed() < Duration::from_secs(20), "a packet does not arrive");
            }
            assert_eq!(batch[0].data(), expected);
        }
    }
    // One after the other: the driver frees twice what both sides take down at once (22.11).
    drop(client);
    while server.link_up() {
        assert!(began.elapsed() < Duration::from_secs(20), "the end of the other side is not seen");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(server);
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn packets_of_a_memory_pool_never_reach_a_driver() {
    let pool = pool();
    let memory = Pool::memory(4, 100).unwrap();
    let port = Port::open("net_null2,no-rx=1", &small(&pool)).unwrap();
    let mut queue = port.queue(0).unwrap();
    let mut batch = Batch::new();
    for _ in 0..4 {
        batch.extend([memory.copy_of(b"foreign").unwrap(), pool.copy_of(b"own").unwrap()]);
    }
    assert_eq!(queue.transmit(&mut batch), 8);
    let statistics = port.statistics();
    assert_eq!((statistics.tx_foreign, statistics.tx_packets), (4, 4));
    drop((queue, port));
    assert_eq!((memory.available(), pool.available()), (4, pool.capacity()));
}

#[test]
fn frames_longer_than_the_mtu_allows_are_not_handed_to_the_driver() {
    let pool = pool();
    let port = Port::open("net_null5,no-rx=1", &small(&pool)).unwrap();
    let mut queue = port.queue(0).unwrap();
    let mut batch: Batch =
        [1517, 1518, 1519, 2048, 60].iter().map(|&len| pool.copy_of(&vec![0; len]).unwrap()).collect();
    assert_eq!(queue.transmit(&mut batch), 5);
    assert_eq!((port.statistics().tx_too_long, port.statistics().tx_packets), (2, 3));
    assert_eq!(queue.transmit(&mut Batch::new()), 0);
    drop((queue, port));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn mbufs_pass_through_memory_ports() {
    let pool = pool();
    let (a, b) = port::memory::pair(1, 8);
    let mut batch = Batch::from_iter([pool.copy_of(b"mbuf").unwrap()]);
    a.queue(0).unwrap().transmit(&mut batch);
    b.queue(0).unwrap().receive(&mut batch);
    assert_eq!(batch[0].data(), b"mbuf");
    drop((batch, a, b));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn what_cannot_be_opened_is_refused_with_words() {
    let pool = pool();
    let config = small(&pool);
    let open = |device: &str, config: &PortConfig| Port::open(device, config).unwrap_err();
    assert!(matches!(open("net_nothing0", &config), PortError::NoDevice { .. }));
    assert!(matches!(open("0000:ff:1f.7", &config), PortError::NoDevice { .. }));
    assert!(matches!(open("net_af_packet9,iface=there-is-none", &config), PortError::NoDevice { .. }));
    let of = |change: fn(&mut PortConfig)| {
        let mut config = small(&pool);
        change(&mut config);
        open("net_null3", &config).to_string()
    };
    assert!(of(|config| config.queues = 0).contains("0 queues"));
    assert!(of(|config| config.queues = 60_000).contains("60000 queues"));
    assert!(of(|config| config.mtu = 9000).contains("needs 9018 bytes"));
    assert!(of(|config| config.pool = Pool::memory(1, 2048).unwrap()).contains("Pool::dpdk"));
    assert!(open("net_null3\0", &config).to_string().contains("NUL"));
    assert!(Port::open("net_null3", &config).is_ok(), "refusals leave the device free");
}

/// DPDK gives the number of a device that is gone to the next one: none may be taken for the other.
#[test]
fn devices_come_and_go_on_several_threads() {
    let pool = pool();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..100 {
                    let device = format!("net_null2{thread}");
                    let opened = Port::open(&device, &small(pool));
                    assert!(opened.is_ok(), "{device}, round {round}: {}", opened.unwrap_err());
                }
            });
        }
    });
}

#[test]
fn a_device_is_open_once_and_can_be_opened_again_after_it_was_closed() {
    let pool = pool();
    for _ in 0..3 {
        let port = Port::open("net_null4,no-rx=1", &small(&pool)).unwrap();
        let second = Port::open("net_null4", &small(&pool)).unwrap_err();
        assert!(second.to_string().contains("open already"));
        let mut queue = port.queue(0).unwrap();
        assert!(port.queue(0).is_none() && port.queue(1).is_none());
        drop(port);
        let mut batch = Batch::from_iter([pool.copy_of(b"the queue keeps the device").unwrap()]);
        assert_eq!(queue.transmit(&mut batch), 1);
    }
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn eal_is_started_once() {
    eal();
    assert_eq!(Eal::init(&EalConfig::default()).unwrap_err(), EalError::Again);
    assert!(Eal::version().unwrap().starts_with("DPDK 2"));
}

#[test]
fn worker_threads_come_and_go_and_packets_move_between_them() {
    let pool = pool();
    for _ in 0..3 {
        let (give, take) = std::sync::mpsc::sync_channel::<Packet>(100);
        let from = pool.clone();
        let sender = std::thread::spawn(move || {
            let _registered = register_worker_thread().unwrap();
            let nothing_more_to_do = register_worker_thread().unwrap();
            drop(nothing_more_to_do);
            for n in 0..5000u32 {
                let packet = loop {
                    match from.copy_of(&n.to_be_bytes()) {
                        Some(packet) => break packet,
                        None => std::thread::yield_now(),
                    }
                };
                give.send(packet).unwrap();
            }
        });
        let receiver = std::thread::spawn(move || {
            let _registered = register_worker_thread().unwrap();
            take.into_iter().map(|p| u32::from_be_bytes(p.data().try_into().unwrap())).eq(0..5000)
        });
        sender.join().unwrap();
        assert!(receiver.join().unwrap(), "all of them, in order");
    }
    assert_eq!(pool.available(), pool.capacity());
}

/// The `VmFlags` of the mapping that holds `at`, from /proc/self/smaps.
fn map_flags(at: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let bounds = range.and_then(|(from, to)| {
            Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
        });
        if let Some((from, to)) = bounds {
            inside = (from..to).contains(&at);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.to_owned();
        }
    }
    panic!("no mapping holds {at:x}");
}

#[test]
fn packet_memory_stays_out_of_core_dumps() {
    let pools = [pool(), Pool::memory(4, 2048).unwrap(), Pool::memory(4000, 2048).unwrap()];
    for pool in pools {
        let packet = pool.copy_of(b"secret").unwrap();
        let flags = map_flags(packet.data().as_ptr().addr());
        assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
    }
}
