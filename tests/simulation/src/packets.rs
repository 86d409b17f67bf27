// SPDX-License-Identifier: Apache-2.0
//! IP packets that sites send, and what can be read off a frame.

use core::net::IpAddr;

use wire::flow::{self, Parsed};
use wire::{Dscp, Ecn, EtherType, IpProtocol, MacAddr, checksum, ethernet, ipv4, ipv6};

/// A UDP packet between two addresses of one family, ready to be changed and then written.
#[derive(Clone, Debug)]
pub struct Udp {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// From port.
    pub source_port: u16,
    /// To port.
    pub destination_port: u16,
    /// ToS byte or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DF, if IPv4.
    pub dont_fragment: bool,
    /// Identification, if IPv4.
    pub identification: u16,
    /// The data.
    pub data: Vec<u8>,
}

impl Udp {
    /// A packet with some data, TTL 64, DF clear.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, data: &[u8]) -> Self {
        Self {
            source,
            destination,
            source_port: 4_000,
            destination_port: 5_000,
            tos: 0,
            ttl: 64,
            dont_fragment: false,
            identification: 7,
            data: data.to_vec(),
        }
    }

    /// With a ToS byte.
    #[must_use]
    pub fn tos(mut self, dscp: Dscp, ecn: Ecn) -> Self {
        self.tos = dscp.tos(ecn);
        self
    }

    /// With DF set.
    #[must_use]
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// The whole IP packet.
    ///
    /// # Panics
    /// If the families differ or it is longer than a packet can be.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut udp = Vec::new();
        let length = u16::try_from(8 + self.data.len()).expect("a UDP datagram");
        for word in [self.source_port, self.destination_port, length, 0] {
            udp.extend(word.to_be_bytes());
        }
        udp.extend(&self.data);
        let sum =
            checksum::Sum::pseudo_header(self.source, self.destination, IpProtocol::UDP, u32::from(length))
                .add_bytes(&udp)
                .finish();
        udp[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        ip(self, &udp)
    }
}

/// An IP packet with these addresses and header fields around any upper layer: of `packet` only the IP part counts.
///
/// # Panics
/// If the families differ or it is longer than a packet can be.
#[must_use]
pub fn ip_with(packet: &Udp, protocol: IpProtocol, upper: &[u8]) -> Vec<u8> {
    let payload_bytes = u16::try_from(upper.len()).expect("an IP payload");
    let mut bytes = vec![0; 40];
    let header_bytes = match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4::Repr {
            tos: packet.tos,
            ttl: packet.ttl,
            identification: packet.identification,
            dont_fragment: packet.dont_fragment,
            payload_bytes,
            ..ipv4::Repr::new(source, destination, protocol)
        }
        .emit(&mut bytes),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6::Repr {
            traffic_class: packet.tos,
            hop_limit: packet.ttl,
            payload_bytes,
            ..ipv6::Repr::new(source, destination, protocol)
        }
        .emit(&mut bytes),
        _ => panic!("one family"),
    }
    .expect("a header");
    bytes.truncate(header_bytes);
    bytes.extend(upper);
    bytes
}

fn ip(packet: &Udp, upper: &[u8]) -> Vec<u8> {
    ip_with(packet, IpProtocol::UDP, upper)
}

/// A frame around an IP packet.
#[must_use]
pub fn frame(destination: MacAddr, source: MacAddr, packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 6 { EtherType::IPV6 } else { EtherType::IPV4 };
    let mut bytes = vec![0; ethernet::HEADER_BYTES];
    ethernet::Repr { destination, source, ether_type }.emit(&mut bytes).expect("an Ethernet header");
    bytes.extend(packet);
    bytes
}

/// EtherType of a frame, and what it carries.
///
/// # Panics
/// If it is too short for Ethernet.
#[must_use]
pub fn open_frame(frame: &[u8]) -> (EtherType, &[u8]) {
    let (header, payload) = ethernet::Header::split(frame).expect("a frame");
    (header.ether_type(), payload)
}

/// The IP packet in a frame, parsed; nothing for any other frame.
#[must_use]
pub fn ip_in(frame: &[u8]) -> Option<(Parsed, Vec<u8>)> {
    let (ether_type, payload) = open_frame(frame);
    if !matches!(ether_type, EtherType::IPV4 | EtherType::IPV6) {
        return None;
    }
    let parsed = flow::parse(payload).ok()?;
    Some((parsed, parsed.packet(payload).to_vec()))
}

/// Whether a frame on the untrusted side is one that may be there in clear: ARP or neighbour discovery.
#[must_use]
pub fn is_link_local_chatter(frame: &[u8]) -> bool {
    let (ether_type, payload) = open_frame(frame);
    if ether_type == EtherType::ARP {
        return true;
    }
    let kind = |parsed: Parsed| parsed.upper_layer(payload).first().copied();
    ether_type == EtherType::IPV6
        && flow::parse(payload).is_ok_and(|parsed| {
            parsed.protocol == IpProtocol::ICMPV6 && matches!(kind(parsed), Some(135 | 136))
        })
}

/// Whether a frame carries ESP.
#[must_use]
pub fn is_esp(frame: &[u8]) -> bool {
    ip_in(frame).is_some_and(|(parsed, _)| parsed.protocol == IpProtocol::ESP)
}

/// Puts IPv4 fragments together, in whatever order they are; checks that they cover the packet exactly once.
///
/// # Panics
/// If they do not, or one of them is no good packet.
#[must_use]
pub fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut pieces: Vec<_> = fragments
        .iter()
        .map(|fragment| {
            let packet = ipv4::Packet::parse(fragment).expect("an IPv4 packet");
            assert!(packet.checksum_is_valid());
            (usize::from(packet.header.fragment_offset()) * 8, packet)
        })
        .collect();
    pieces.sort_by_key(|(offset, _)| *offset);
    let mut payload: Vec<u8> = Vec::new();
    let count = pieces.len();
    for (place, (offset, packet)) in pieces.iter().enumerate() {
        assert_eq!(*offset, payload.len(), "no gap, no overlap");
        assert_eq!(packet.header.more_fragments(), place + 1 < count);
        payload.extend(packet.payload);
    }
    let first = pieces[0].1.header;
    let whole = ipv4::Repr {
        tos: first.tos(),
        ttl: first.ttl(),
        identification: first.identification(),
        dont_fragment: first.dont_fragment(),
        payload_bytes: payload.len() as u16,
        ..ipv4::Repr::new(first.source(), first.destination(), first.protocol())
    };
    let mut bytes = vec![0; 20];
    whole.emit(&mut bytes).expect("a header");
    bytes.extend(payload);
    bytes
}
