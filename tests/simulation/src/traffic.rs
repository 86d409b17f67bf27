// SPDX-License-Identifier: Apache-2.0
//! Numbered packets between the sites, and books over what became of each.
//!
//! A flow is a stream of UDP packets from one host to the other, told apart by a number that also makes its source port.
//! Flows with odd numbers are IPv6. What arrives is compared with what was sent byte by byte, less two hops.

use std::collections::BTreeMap;

use crate::packets::Udp;
use crate::topology::{End, Topology};

/// Says that a packet is from here.
const MAGIC: &[u8; 4] = b"flow";
/// Data bytes that every packet has: magic, sender, flow, number.
pub const DATA_BYTES_MIN: usize = 4 + 1 + 2 + 4;

/// Which flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    from_a: bool,
    number: u16,
}

/// One flow's books.
#[derive(Default)]
struct Stream {
    sent: u32,
    arrived: Vec<u32>,
}

/// The books.
#[derive(Default)]
pub struct Ledger {
    streams: BTreeMap<Flow, Stream>,
    strays: Vec<Vec<u8>>,
}

impl Ledger {
    /// The next packet of a flow, noted as sent. It has at least [`DATA_BYTES_MIN`] data bytes.
    pub fn packet(&mut self, from: End, flow: u16, data_bytes: usize) -> Vec<u8> {
        let flow = Flow { from_a: from == End::A, number: flow };
        let stream = self.streams.entry(flow).or_default();
        stream.sent += 1;
        numbered(flow, stream.sent - 1, data_bytes).to_bytes()
    }

    /// Sends the next packet of a flow from its site by a queue of its gateway.
    pub fn send(&mut self, net: &mut Topology, from: End, flow: u16, queue: u16, data_bytes: usize) {
        let packet = self.packet(from, flow, data_bytes);
        net.site(from).send_to_queue(queue, &packet);
    }

    /// Notes everything that the sites have received.
    ///
    /// # Panics
    /// If a packet of a flow is at the wrong site, was never sent, or was changed on its way.
    pub fn collect(&mut self, net: &mut Topology) {
        for at in [End::A, End::B] {
            for packet in net.site(at).take() {
                self.arrive(at, packet);
            }
        }
    }

    /// Notes one packet that arrived at a site.
    fn arrive(&mut self, at: End, packet: Vec<u8>) {
        let Some((flow, number, data_bytes)) = mark_of(&packet) else {
            return self.strays.push(packet);
        };
        assert_eq!(flow.from_a, at == End::B, "at the wrong site");
        let expected = Udp { ttl: 62, ..numbered(flow, number, data_bytes) }.to_bytes();
        assert!(packet == expected, "packet {number} of {flow:?} was changed on its way");
        let stream = self.streams.get_mut(&flow).expect("a flow that was sent");
        assert!(number < stream.sent, "packet {number} of {flow:?} was never sent");
        stream.arrived.push(number);
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.streams.values().map(|stream| u64::from(stream.sent)).sum()
    }

    /// Packets that arrived so far, copies included.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.streams.values().map(|stream| stream.arrived.len() as u64).sum()
    }

    /// Packets sent from one end so far.
    #[must_use]
    pub fn sent_from(&self, from: End) -> u64 {
        self.of(from).map(|stream| u64::from(stream.sent)).sum()
    }

    /// Packets from one end that arrived so far, copies included.
    #[must_use]
    pub fn arrived_from(&self, from: End) -> u64 {
        self.of(from).map(|stream| stream.arrived.len() as u64).sum()
    }

    /// Packets of one flow that arrived so far, copies included.
    #[must_use]
    pub fn arrived_of(&self, from: End, flow: u16) -> u64 {
        let stream = self.streams.get(&Flow { from_a: from == End::A, number: flow });
        stream.map_or(0, |stream| stream.arrived.len() as u64)
    }

    /// Packets that did not arrive.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.streams.values().map(|stream| u64::from(stream.sent) - distinct(stream)).sum()
    }

    /// Packets that arrived once more than they were sent.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.streams.values().map(|stream| stream.arrived.len() as u64 - distinct(stream)).sum()
    }

    /// Packets that arrived after a later one of their flow.
    #[must_use]
    pub fn late(&self) -> u64 {
        let late = |stream: &Stream| {
            let mut newest = None;
            let is_late = |number: &&u32| {
                let late = newest.is_some_and(|newest| **number < newest);
                newest = newest.max(Some(**number));
                late
            };
            stream.arrived.iter().filter(is_late).count() as u64
        };
        self.streams.values().map(late).sum()
    }

    /// Everything else that arrived at a site.
    #[must_use]
    pub fn strays(&self) -> &[Vec<u8>] {
        &self.strays
    }

    /// Every packet arrived once and in order, and nothing else did.
    ///
    /// # Panics
    /// If not.
    pub fn assert_complete(&self) {
        let faults = (self.missing(), self.copies(), self.late(), self.strays.len());
        assert_eq!(faults, (0, 0, 0, 0), "missing, copies, late, strays of {} packets", self.sent());
    }

    fn of(&self, from: End) -> impl Iterator<Item = &Stream> {
        let from_a = from == End::A;
        self.streams.iter().filter(move |(flow, _)| flow.from_a == from_a).map(|(_, stream)| stream)
    }
}

fn distinct(stream: &Stream) -> u64 {
    let mut numbers = stream.arrived.clone();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len() as u64
}

fn numbered(flow: Flow, number: u32, data_bytes: usize) -> Udp {
    let from = if flow.from_a { End::A } else { End::B };
    let to = from.other();
    let mut data =
        [&MAGIC[..], &[u8::from(flow.from_a)], &flow.number.to_be_bytes(), &number.to_be_bytes()].concat();
    data.resize(data_bytes.max(DATA_BYTES_MIN), number as u8);
    let ends =
        if flow.number.is_multiple_of(2) { (from.host(), to.host()) } else { (from.host_v6(), to.host_v6()) };
    Udp { source_port: 10_000 + flow.number, ..Udp::new(ends.0, ends.1, &data) }
}

/// Flow, number and data length of a packet that is from here.
fn mark_of(packet: &[u8]) -> Option<(Flow, u32, usize)> {
    let parsed = wire::flow::parse(packet).ok()?;
    let data = parsed.upper_layer(packet).get(8..)?;
    let (mark, _) = data.split_first_chunk::<DATA_BYTES_MIN>()?;
    let [magic @ .., from, flow_high, flow_low, a, b, c, d] = mark;
    if magic != MAGIC {
        return None;
    }
    let flow = Flow { from_a: *from == 1, number: u16::from_be_bytes([*flow_high, *flow_low]) };
    Some((flow, u32::from_be_bytes([*a, *b, *c, *d]), data.len()))
}
