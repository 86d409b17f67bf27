// SPDX-License-Identifier: Apache-2.0
//! Ports in memory: two ends joined by bounded queues of packets, without copies, threads or a clock.
//!
//! ```text
//!   Port A, queue 0  ── outgoing ──► lane 0 ──► queue 0, Port B
//!           queue 1  ──────────────► lane 1 ──► queue 1
//!                    ◄── incoming ──
//! ```
//!
//! What is transmitted at one end is received at the other, in order within a lane; a full lane accepts nothing
//! more and the packet stays in the transmitter's batch. Which lane a packet takes is decided by the queue it
//! was sent from or by a hash over its bytes ([`Spread`]), so runs are deterministic.

use crate::{Capabilities, MacAddress, Port, Statistics};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use pktbuf::{Batch, Packet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How packets are distributed over the receiving port's queues.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    /// By the number of the queue they were sent from.
    QueueNumber,
    /// By a hash over the frame, as a NIC with RSS does; the receiver finds it in `Packet::flow_hash`.
    Hash(fn(&[u8]) -> u32),
}

/// How two ports are joined.
#[derive(Clone, Debug)]
pub struct PairConfig {
    /// Names of the two ports.
    pub names: [String; 2],
    /// Queues of each of the two ports.
    pub queues: [u16; 2],
    /// Packets that fit into each queue.
    pub capacity: usize,
    /// How packets are distributed over the receiving queues.
    pub spread: Spread,
    /// MAC addresses of the two ports.
    pub macs: [MacAddress; 2],
    /// MTU of both.
    pub mtu: u16,
}

impl PairConfig {
    /// Ports with `queues` queues each, spread by queue number, with an MTU of 1,500.
    #[must_use]
    pub fn new(queues: u16, capacity: usize) -> PairConfig {
        PairConfig {
            names: ["memory-a".to_owned(), "memory-b".to_owned()],
            queues: [queues; 2],
            capacity,
            spread: Spread::QueueNumber,
            macs: [[2, 0, 0, 0, 0, 0x0a], [2, 0, 0, 0, 0, 0x0b]],
            mtu: 1500,
        }
    }
}

/// Two ports, each of which receives what the other transmits.
///
/// # Panics
/// If there are no queues, or they hold nothing.
#[must_use]
pub fn pair(queues: u16, capacity: usize) -> (Port, Port) {
    pair_with(&PairConfig::new(queues, capacity))
}

/// Two ports, each of which receives what the other transmits.
///
/// # Panics
/// If there are no queues, or they hold nothing.
#[must_use]
pub fn pair_with(config: &PairConfig) -> (Port, Port) {
    let [a, b] = ends(config);
    (Port::over_memory(&config.names[0], a), Port::over_memory(&config.names[1], b))
}

/// A port and the wire that comes out of it, for tests: what is injected there the port receives, and what the
/// port transmits is collected there.
///
/// # Panics
/// If there are no queues, or they hold nothing.
#[must_use]
pub fn wire(queues: u16, capacity: usize) -> (Port, Wire) {
    wire_with(&PairConfig::new(queues, capacity))
}

/// The first port of a pair, with a wire in the place of the second.
///
/// # Panics
/// If there are no queues, or they hold nothing.
#[must_use]
pub fn wire_with(config: &PairConfig) -> (Port, Wire) {
    let [near, far] = ends(config);
    (Port::over_memory(&config.names[0], near), Wire { end: far })
}

fn ends(config: &PairConfig) -> [End; 2] {
    let [to_a, to_b] = config.queues.map(|queues| Arc::new(Lanes::new(queues, config.capacity)));
    let link = Arc::new(AtomicBool::new(true));
    [(0, &to_a, &to_b), (1, &to_b, &to_a)].map(|(index, incoming, outgoing)| End {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        link: link.clone(),
        counters: (0..config.queues[index]).map(|_| Arc::default()).collect(),
        spread: config.spread,
        mac: config.macs[index],
        mtu: config.mtu,
    })
}

/// The queues that lead to one port.
struct Lanes(Box<[CachePadded<ArrayQueue<Packet>>]>);

impl Lanes {
    fn new(queues: u16, capacity: usize) -> Lanes {
        assert!(queues > 0 && capacity > 0, "a memory port needs queues that hold something");
        Lanes((0..queues).map(|_| CachePadded::new(ArrayQueue::new(capacity))).collect())
    }

    #[inline]
    fn send(&self, spread: Spread, queue: u16, mut packet: Packet) -> Result<(), Packet> {
        let hash = match spread {
            Spread::QueueNumber => None,
            Spread::Hash(hash) => Some(hash(packet.data())),
        };
        packet.set_flow_hash(hash);
        packet.forget_vlan_priority();
        let lane = hash.unwrap_or(u32::from(queue)) as usize % self.0.len().max(1);
        match self.0.get(lane) {
            Some(lane) => lane.push(packet),
            None => Err(packet),
        }
    }
}

/// Counters of one queue; the queue's owner is their only writer.
#[derive(Default)]
struct Counters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
}

/// Adds to a counter that has one writer.
#[inline]
fn add(counter: &AtomicU64, n: usize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n as u64), Ordering::Relaxed);
}

/// One end of a joined pair.
pub(crate) struct End {
    incoming: Arc<Lanes>,
    outgoing: Arc<Lanes>,
    link: Arc<AtomicBool>,
    counters: Box<[Arc<CachePadded<Counters>>]>,
    spread: Spread,
    mac: MacAddress,
    mtu: u16,
}

impl End {
    pub(crate) fn queues(&self) -> u16 {
        u16::try_from(self.counters.len()).unwrap_or(u16::MAX)
    }

    pub(crate) fn queue(&self, index: u16) -> Option<Queue> {
        Some(Queue {
            index,
            incoming: self.incoming.clone(),
            outgoing: self.outgoing.clone(),
            link: self.link.clone(),
            counters: self.counters.get(usize::from(index))?.clone(),
            spread: self.spread,
        })
    }

    pub(crate) fn mac(&self) -> MacAddress {
        self.mac
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    pub(crate) fn link_up(&self) -> bool {
        self.link.load(Ordering::Relaxed)
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let sum = |field: fn(&Counters) -> &AtomicU64| {
            self.counters.iter().map(|counters| field(counters).load(Ordering::Relaxed)).sum()
        };
        Statistics {
            rx_packets: sum(|c| &c.rx_packets),
            rx_bytes: sum(|c| &c.rx_bytes),
            tx_packets: sum(|c| &c.tx_packets),
            tx_bytes: sum(|c| &c.tx_bytes),
            ..Statistics::default()
        }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities {
            driver: "memory".to_owned(),
            max_queues: self.queues(),
            max_mtu: u16::MAX,
            spreads_flows: matches!(self.spread, Spread::Hash(_)),
        }
    }
}

/// A queue of a memory port.
pub(crate) struct Queue {
    index: u16,
    incoming: Arc<Lanes>,
    outgoing: Arc<Lanes>,
    link: Arc<AtomicBool>,
    counters: Arc<CachePadded<Counters>>,
    spread: Spread,
}

impl Queue {
    pub(crate) fn receive(&mut self, batch: &mut Batch) -> usize {
        let Some(lane) = self.incoming.0.get(usize::from(self.index)) else { return 0 };
        let before = batch.len();
        let mut bytes = 0;
        while !batch.is_full() {
            let Some(packet) = lane.pop() else { break };
            bytes += packet.len();
            batch.push(packet);
        }
        let received = batch.len() - before;
        if received > 0 {
            add(&self.counters.rx_packets, received);
            add(&self.counters.rx_bytes, bytes);
        }
        received
    }

    pub(crate) fn transmit(&mut self, batch: &mut Batch) -> usize {
        if batch.is_empty() || !self.link.load(Ordering::Relaxed) {
            return 0;
        }
        let (mut sent, mut bytes) = (0, 0);
        let mut packets = std::mem::take(batch).into_iter();
        for packet in packets.by_ref() {
            let len = packet.len();
            if let Err(refused) = self.outgoing.send(self.spread, self.index, packet) {
                batch.push(refused);
                break;
            }
            sent += 1;
            bytes += len;
        }
        batch.extend(packets);
        add(&self.counters.tx_packets, sent);
        add(&self.counters.tx_bytes, bytes);
        sent
    }
}

/// The far side of a memory port.
pub struct Wire {
    end: End,
}

impl Wire {
    /// Gives the port a packet to receive, as if sent from the far port's queue `queue`.
    ///
    /// # Errors
    /// The packet, if the port's queue is full.
    pub fn inject(&self, queue: u16, packet: Packet) -> Result<(), Packet> {
        self.end.outgoing.send(self.end.spread, queue, packet)
    }

    /// The next packet that the port has transmitted; lower queues first.
    #[must_use]
    pub fn collect(&self) -> Option<Packet> {
        self.end.incoming.0.iter().find_map(|lane| lane.pop())
    }

    /// The next packet that arrives at the far side's queue `queue`.
    #[must_use]
    pub fn collect_from(&self, queue: u16) -> Option<Packet> {
        self.end.incoming.0.get(usize::from(queue))?.pop()
    }

    /// Number of queues at the far side.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.end.queues()
    }

    /// Plugs or unplugs the cable: unplugged, the port transmits nothing.
    pub fn set_link(&self, up: bool) {
        self.end.link.store(up, Ordering::Relaxed);
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("queues", &self.end.queues()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{PairConfig, Spread, pair, pair_with, wire};
    use crate::{Port, Statistics};
    use pktbuf::{Batch, Packet, Pool};

    fn numbered(pool: &Pool, numbers: impl IntoIterator<Item = u8>) -> Batch {
        numbers.into_iter().map(|n| pool.copy_of(&[n; 60]).unwrap()).collect()
    }

    fn numbers<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> Vec<u8> {
        packets.into_iter().map(|packet| packet.data()[0]).collect()
    }

    fn received(port: &Port, queue: u16) -> Vec<u8> {
        let mut batch = Batch::new();
        port.queue(queue).unwrap().receive(&mut batch);
        numbers(&batch)
    }

    #[test]
    fn what_one_end_transmits_the_other_receives_in_order_both_ways() {
        let pool = Pool::memory(100, 100).unwrap();
        let (a, b) = pair(1, 64);
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut batch = numbered(&pool, 0..50);
            assert_eq!(from.queue(0).unwrap().transmit(&mut batch), 50);
            assert!(batch.is_empty());
            assert_eq!(received(to, 0), Vec::from_iter(0..50));
        }
        let counted = Statistics {
            rx_packets: 50,
            rx_bytes: 3000,
            tx_packets: 50,
            tx_bytes: 3000,
            ..Statistics::default()
        };
        assert_eq!([a.statistics(), b.statistics()], [counted; 2]);
        assert_eq!(pool.available(), 100);
    }

    #[test]
    fn what_does_not_fit_stays_in_the_batch_in_order() {
        let pool = Pool::memory(100, 100).unwrap();
        let (a, b) = pair(1, 10);
        let mut queue = a.queue(0).unwrap();
        let mut batch = numbered(&pool, 0..25);
        for round in 0..3u8 {
            let expected = if round < 2 { 10 } else { 5 };
            assert_eq!(queue.transmit(&mut batch), usize::from(expected));
            assert_eq!(numbers(&batch), Vec::from_iter(round * 10 + expected..25));
            assert_eq!(received(&b, 0), Vec::from_iter(round * 10..round * 10 + expected));
        }
        assert_eq!(a.statistics().tx_packets, 25);
    }

    #[test]
    fn receiving_adds_to_a_batch_as_far_as_it_has_room() {
        let pool = Pool::memory(100, 100).unwrap();
        let (a, b) = pair(1, 64);
        a.queue(0).unwrap().transmit(&mut numbered(&pool, 0..10));
        let mut batch = numbered(&pool, 100..160);
        let mut queue = b.queue(0).unwrap();
        assert_eq!((queue.receive(&mut batch), queue.receive(&mut batch)), (4, 0));
        assert_eq!(numbers(&batch), Vec::from_iter((100..160).chain(0..4)));
    }

    #[test]
    fn packets_stay_in_the_queue_they_were_sent_from() {
        let pool = Pool::memory(100, 100).unwrap();
        let (a, b) = pair(3, 64);
        for queue in 0..3 {
            a.queue(queue).unwrap().transmit(&mut numbered(&pool, [queue as u8]));
        }
        assert_eq!([0, 1, 2].map(|queue| received(&b, queue)), [[0], [1], [2]]);
    }

    #[test]
    fn more_senders_than_receivers_share_the_receivers_queues() {
        let pool = Pool::memory(100, 100).unwrap();
        let (a, b) = pair_with(&PairConfig { queues: [3, 2], ..PairConfig::new(1, 64) });
        for queue in 0..3 {
            a.queue(queue).unwrap().transmit(&mut numbered(&pool, [queue as u8]));
        }
        assert_eq!([received(&b, 0), received(&b, 1)], [vec![0, 2], vec![1]]);
    }

    #[test]
    fn a_hash_spreads_flows_and_travels_with_the_packet() {
        let pool = Pool::memory(100, 100).unwrap();
        let spread = Spread::Hash(|frame| u32::from(frame[0]) + 4);
        let (a, b) = pair_with(&PairConfig { spread, ..PairConfig::new(2, 64) });
        a.queue(1).unwrap().transmit(&mut numbered(&pool, 0..6));
        let mut batch = Batch::new();
        b.queue(0).unwrap().receive(&mut batch);
        assert_eq!(numbers(&batch), [0, 2, 4]);
        assert_eq!(batch[1].flow_hash(), Some(6));
        assert!(b.capabilities().spreads_flows);
        assert_eq!(received(&b, 1), [1, 3, 5]);
    }

    #[test]
    fn what_is_known_of_a_packet_does_not_cross_the_wire() {
        let pool = Pool::memory(1, 100).unwrap();
        let (a, b) = pair(1, 1);
        let mut batch = numbered(&pool, [1]);
        batch[0].set_flow_hash(Some(9));
        batch[0].set_vlan_priority(5);
        a.queue(0).unwrap().transmit(&mut batch);
        b.queue(0).unwrap().receive(&mut batch);
        assert_eq!((batch[0].flow_hash(), batch[0].vlan_priority()), (None, None));
    }

    #[test]
    fn a_queue_is_out_once_and_comes_back_when_dropped() {
        let (a, _b) = pair(2, 1);
        let queue = a.queue(1).unwrap();
        assert!(a.queue(1).is_none() && a.queue(2).is_none() && a.queue(0).is_some());
        assert_eq!((queue.index(), a.queues()), (1, 2));
        drop(queue);
        assert!(a.queue(1).is_some());
    }

    #[test]
    fn a_wire_injects_collects_and_can_be_unplugged() {
        let pool = Pool::memory(10, 100).unwrap();
        let (port, wire) = wire(2, 2);
        let one = || pool.copy_of(&[7; 60]).unwrap();
        assert!(wire.inject(1, one()).is_ok() && wire.inject(1, one()).is_ok());
        assert!(wire.inject(1, one()).is_err(), "full");
        assert_eq!(received(&port, 1), [7, 7]);
        let mut queue = port.queue(1).unwrap();
        wire.set_link(false);
        let mut batch = numbered(&pool, [1, 2]);
        assert_eq!((port.link_up(), queue.transmit(&mut batch)), (false, 0));
        wire.set_link(true);
        assert_eq!((port.link_up(), queue.transmit(&mut batch)), (true, 2));
        assert!(wire.collect_from(0).is_none());
        assert_eq!(
            [wire.collect_from(1), wire.collect(), wire.collect()].map(|p| p.map(|p| p.data()[0])),
            [Some(1), Some(2), None]
        );
    }

    #[test]
    fn ports_on_two_threads_lose_nothing() {
        let pool = Pool::memory(300, 100).unwrap();
        let (a, b) = pair(1, 128);
        let (mut send, mut receive) = (a.queue(0).unwrap(), b.queue(0).unwrap());
        let from = pool.clone();
        let sender = std::thread::spawn(move || {
            let mut sent = 0u32;
            let mut batch = Batch::new();
            while sent < 20_000 {
                while batch.len() < 32
                    && let Some(packet) = from.copy_of(&(sent + batch.len() as u32).to_be_bytes())
                {
                    batch.push(packet);
                }
                sent += send.transmit(&mut batch) as u32;
                std::thread::yield_now();
            }
            sent
        });
        let mut next = 0u32;
        while next < 20_000 {
            let mut batch = Batch::new();
            if receive.receive(&mut batch) == 0 {
                std::thread::yield_now();
            }
            for packet in &batch {
                assert_eq!(packet.data(), next.to_be_bytes());
                next += 1;
            }
        }
        assert!(sender.join().unwrap() >= 20_000);
        drop((a, b, receive));
        assert_eq!(pool.available(), 300);
    }
}
