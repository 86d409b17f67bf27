// SPDX-License-Identifier: Apache-2.0
//! What left, flow by flow, without the numbers that depend on what else was in a burst.

use std::collections::BTreeMap;

use greyhound_simulation::sealer::Sealer;
use messages::Direction;
use wire::{IpProtocol, flow};

use crate::network::{INNER, Network, OURS};

/// Frames of each flow, in order.
pub(crate) type Canon = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;
/// Sequence numbers of each SPI, in order.
pub(crate) type Numbers = BTreeMap<u32, Vec<u32>>;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;

/// Opens what the headends sealed.
pub(crate) struct Reader {
    sealers: BTreeMap<u32, Sealer>,
    ours: Vec<[u8; 4]>,
}

impl Reader {
    pub(crate) fn new(network: &Network) -> Self {
        let outbound = network.sas.iter().filter(|sa| sa.direction == Direction::Outbound);
        let sealers = outbound.map(|sa| (sa.spi, Sealer::new(sa))).collect();
        let ours = [OURS, INNER[0], "10.1.0.1", "10.9.0.1"]
            .map(|text| text.parse::<core::net::Ipv4Addr>().expect("an address").octets());
        Self { sealers, ours: ours.into() }
    }

    pub(crate) fn read(&self, frames: &[Vec<u8>]) -> (Canon, Numbers) {
        let (mut canon, mut numbers) = (Canon::new(), Numbers::new());
        for frame in frames {
            let mut bytes = frame[..ETHERNET_BYTES].to_vec();
            let mut flow = Vec::new();
            if frame[12..14] == [0x08, 0x00] || frame[12..14] == [0x86, 0xdd] {
                self.packet(&frame[ETHERNET_BYTES..], &mut bytes, &mut flow, &mut numbers);
            } else {
                bytes = frame.clone();
            }
            canon.entry(flow).or_default().push(bytes);
        }
        (canon, numbers)
    }

    /// Appends a packet without what was numbered here; the innermost packet says which flow it is.
    fn packet(&self, packet: &[u8], bytes: &mut Vec<u8>, flow: &mut Vec<u8>, numbers: &mut Numbers) {
        let parsed = flow::parse(packet).expect("what leaves is whole");
        assert_eq!(packet.len(), usize::from(parsed.total_bytes), "and no longer");
        let (mut header, upper) =
            (packet[..usize::from(parsed.header_bytes)].to_vec(), parsed.upper_layer(packet));
        let is_v4 = header[0] >> 4 == 4;
        let is_ours = is_v4 && self.ours.iter().any(|ours| header[12..16] == *ours);
        if is_ours {
            // Identification and checksum.
            header[4..6].fill(0);
            header[10..12].fill(0);
        }
        bytes.extend(&header);
        match parsed.protocol {
            IpProtocol::ESP if is_ours => self.esp(upper, bytes, flow, numbers),
            IpProtocol::GRE if is_ours && !parsed.is_fragment() => self.gre(upper, bytes, flow, numbers),
            protocol => {
                bytes.extend(upper);
                *flow = if is_v4 { header[4..6].to_vec() } else { Vec::new() };
                flow.push(protocol.0);
                flow.extend(&header[if is_v4 { 12..IPV4_BYTES } else { 8..40 }]);
                if !parsed.is_fragment() {
                    flow.extend(upper.iter().take(4));
                }
            }
        }
    }

    fn esp(&self, esp: &[u8], bytes: &mut Vec<u8>, flow: &mut Vec<u8>, numbers: &mut Numbers) {
        let spi = u32::from_be_bytes(*esp.first_chunk().expect("an SPI"));
        let plain = self.sealers[&spi].open(esp, 0).expect("a good ICV");
        numbers.entry(spi).or_default().push(plain.sequence_low);
        bytes.extend(spi.to_be_bytes());
        bytes.extend(&plain.padding);
        bytes.push(plain.next_header);
        match IpProtocol(plain.next_header) {
            IpProtocol::IPV4 | IpProtocol::IPV6 => self.packet(&plain.payload, bytes, flow, numbers),
            IpProtocol::GRE => self.gre(&plain.payload, bytes, flow, numbers),
            other => panic!("ESP around protocol {}", other.0),
        }
    }

    fn gre(&self, gre: &[u8], bytes: &mut Vec<u8>, flow: &mut Vec<u8>, numbers: &mut Numbers) {
        let parsed = wire::gre::Packet::parse(gre).expect("GRE with a right checksum");
        let mut header = gre[..gre.len() - parsed.payload.len()].to_vec();
        let mut options = 4;
        for (flag, zeroed) in [(0x80, true), (0x20, false), (0x10, true)] {
            if header[0] & flag != 0 {
                if zeroed {
                    header[options..options + 4].fill(0);
                }
                options += 4;
            }
        }
        bytes.extend(&header);
        self.packet(parsed.payload, bytes, flow, numbers);
    }
}
