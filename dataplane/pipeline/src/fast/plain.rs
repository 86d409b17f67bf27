// SPDX-License-Identifier: Apache-2.0
//! What a plain packet is: IPv4 without options, whole, between two hosts. Everything else is not for the fast path.

use arrayvec::ArrayVec;
use pktbuf::{BURST, Batch};
use wire::checksum::Sum;
use wire::{EtherType, IpProtocol, MacAddr, ethernet, ipv4};

use crate::scheduled;

/// The shortest plain packet: header and ports.
const BYTES_MIN: usize = ipv4::HEADER_BYTES + 4;
/// The same with the link header in front.
const FRAME_BYTES_MIN: usize = ethernet::HEADER_BYTES + BYTES_MIN;
/// Version 4 without options, no fragment: bits of a header's first eight octets, of which DF may be either.
const SHAPE: u64 = u64::from_le_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
const SHAPE_MASK: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0xbf, 0xff]);
/// The destination address of a frame, in its first eight octets.
const MAC_MASK: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
/// Where it has its ToS.
pub(super) const TOS_OFFSET: usize = 1;
/// Where a plain packet has its TCP flags; and the flag.
pub(super) const TCP_FLAGS_OFFSET: usize = ipv4::HEADER_BYTES + scheduled::TCP_FLAGS_OFFSET;
const TCP_SYN: u8 = 0x02;
/// How many packets ahead of its turn a packet's memory is asked for: its header first, then where it points.
const HEADER_AHEAD: usize = 8;
const DATA_AHEAD: usize = 4;

/// The original headers of a plain packet: what QoS pre-classify keeps through encapsulation.
///
/// The header lies as it came, octet by octet: one load and one store for eight of its octets are all that most packets need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// Version and length, ToS, total length, identification, flags and fragment offset: the first octet lowest.
    first: u64,
    /// TTL, protocol, checksum, source.
    second: u64,
    pub destination: u32,
    /// The first four bytes of the upper layer: its ports, or an SPI (RFC 4303 §2.1).
    pub ports: u32,
    pub total_bytes: u16,
    /// A TCP segment that opens a connection.
    pub is_syn: bool,
}

impl Plain {
    /// No packet at all: no table knows its addresses.
    pub(crate) const NONE: Self =
        Self { first: 0, second: 0, destination: 0, ports: 0, total_bytes: 0, is_syn: false };

    /// The packet at the front of `l3`, if it is plain and its header checksum is right.
    #[inline(always)]
    pub(crate) fn parse(l3: &[u8]) -> Option<Self> {
        Self::parse_header(l3.first_chunk()?, l3)
    }

    /// The packet in a frame for `mac`; link padding may follow it.
    #[inline(always)]
    fn parse_frame(frame: &[u8], mac: u64) -> Option<Self> {
        let front: &[u8; FRAME_BYTES_MIN] = frame.first_chunk()?;
        let (link, header) = front.split_first_chunk::<{ ethernet::HEADER_BYTES }>()?;
        let is_ours = u64::from_le_bytes(*link.first_chunk()?) & MAC_MASK == mac
            && u16::from_be_bytes(*link.last_chunk()?) == EtherType::IPV4.0;
        is_ours.then_some(())?;
        Self::parse_header(header.first_chunk()?, frame.get(ethernet::HEADER_BYTES..)?)
    }

    /// The packet at the front of `l3`, of which `header` is the front.
    #[inline(always)]
    fn parse_header(header: &[u8; BYTES_MIN], l3: &[u8]) -> Option<Self> {
        let plain = Self::read_header(header)?;
        let is_plain = plain.first & SHAPE_MASK == SHAPE
            && (BYTES_MIN..=l3.len()).contains(&usize::from(plain.total_bytes))
            && Sum::of(header.first_chunk::<{ ipv4::HEADER_BYTES }>()?).is_valid();
        is_plain.then_some(())?;
        plain.with_flags_of(l3)
    }

    /// The same of a packet that is known to be plain.
    #[inline(always)]
    pub(crate) fn read(l3: &[u8]) -> Option<Self> {
        Self::read_header(l3.first_chunk()?)?.with_flags_of(l3)
    }

    #[inline(always)]
    fn read_header(header: &[u8; BYTES_MIN]) -> Option<Self> {
        let (first, rest) = header.split_first_chunk()?;
        let (second, rest) = rest.split_first_chunk()?;
        let (destination, ports) = rest.split_first_chunk()?;
        let first = u64::from_le_bytes(*first);
        Some(Self {
            first,
            second: u64::from_le_bytes(*second),
            destination: u32::from_be_bytes(*destination),
            ports: u32::from_be_bytes(*ports.first_chunk()?),
            total_bytes: ((first >> 16) as u16).swap_bytes(),
            is_syn: false,
        })
    }

    /// With what a TCP segment has behind its ports.
    #[inline(always)]
    fn with_flags_of(self, l3: &[u8]) -> Option<Self> {
        if self.protocol() == IpProtocol::TCP {
            return Some(Self { is_syn: l3.get(TCP_FLAGS_OFFSET)? & TCP_SYN != 0, ..self });
        }
        Some(self)
    }

    #[inline(always)]
    pub(crate) fn source(&self) -> u32 {
        ((self.second >> 32) as u32).swap_bytes()
    }

    #[inline(always)]
    pub(crate) fn tos(&self) -> u8 {
        (self.first >> 8) as u8
    }

    #[inline(always)]
    pub(crate) fn ttl(&self) -> u8 {
        self.second as u8
    }

    #[inline(always)]
    pub(crate) fn protocol(&self) -> IpProtocol {
        IpProtocol((self.second >> 8) as u8)
    }
}

/// Reads every packet of a burst into `plains`; what is not plain, or not in a frame for `mac`, is [`Plain::NONE`]. `seen` is told
/// of each.
#[inline(always)]
pub(super) fn parse_burst(
    batch: &Batch,
    MacAddr([a, b, c, d, e, f]): MacAddr,
    plains: &mut ArrayVec<Plain, BURST>,
    mut seen: impl FnMut(&Plain),
) {
    let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    for (place, packet) in batch.iter().enumerate() {
        if let Some(ahead) = batch.get(place + HEADER_AHEAD) {
            ahead.prefetch_header();
        }
        if let Some(ahead) = batch.get(place + DATA_AHEAD) {
            ahead.prefetch_data();
            ahead.prefetch_headroom();
        }
        match Plain::parse_frame(packet.data(), mac) {
            Some(plain) => {
                seen(&plain);
                plains.push(plain);
            }
            None => plains.push(Plain::NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;
    use wire::Family;
    use wire::flow::{self, Fragment};

    use super::*;

    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let header = (any::<[u8; 8]>(), 0..8u8, prop::sample::select(vec![0u16, 0x4000, 0x2000, 7, 0x8000]));
        (header, 0..60usize, any::<[u8; 4]>(), prop::sample::select(vec![1u8, 6, 17, 47, 50])).prop_map(
            |((addresses, tos, flags), payload, upper, protocol)| {
                let [a, b, c, d, e, f, g, h] = addresses;
                let repr = ipv4::Repr {
                    tos,
                    payload_bytes: payload as u16,
                    ..ipv4::Repr::new([a, b, c, d].into(), [e, f, g, h].into(), IpProtocol(protocol))
                };
                let mut bytes = vec![0x5a; 20 + payload];
                repr.emit(&mut bytes).unwrap();
                bytes[6..8].copy_from_slice(&flags.to_be_bytes());
                ipv4::Header::split_mut(&mut bytes).unwrap().0.fill_checksum();
                for (byte, value) in bytes[20..].iter_mut().zip(upper) {
                    *byte = value;
                }
                bytes
            },
        )
    }

    proptest! {
        /// A plain packet is one that the whole parser takes, and both say the same of it.
        #[test]
        fn what_is_plain_is_parsed_alike(mut bytes in packet(), at in 0..80usize, flip in 0..4u8) {
            if flip == 0 && let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x10;
            }
            if let Some(plain) = Plain::parse(&bytes) {
                let parsed = flow::parse(&bytes).unwrap();
                prop_assert_eq!(parsed.family, Family::Ipv4);
                prop_assert_eq!(parsed.fragment, Fragment::None);
                prop_assert!(!parsed.has_options);
                prop_assert_eq!(parsed.source, Ipv4Addr::from(plain.source()));
                prop_assert_eq!(parsed.destination, Ipv4Addr::from(plain.destination));
                prop_assert_eq!(parsed.total_bytes, plain.total_bytes);
                prop_assert_eq!(parsed.protocol, plain.protocol());
                prop_assert_eq!((parsed.tos, parsed.ttl), (plain.tos(), plain.ttl()));
                prop_assert!([0x00, 0x40].contains(&bytes[6]) && bytes[7] == 0, "only DF can be set");
                if parsed.protocol.has_ports() {
                    let ports = u32::from(parsed.source_port) << 16 | u32::from(parsed.destination_port);
                    prop_assert_eq!(ports, plain.ports);
                }
            }
        }
    }

    #[test]
    fn a_common_packet_is_plain() {
        let repr = ipv4::Repr {
            payload_bytes: 8,
            ..ipv4::Repr::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), IpProtocol::UDP)
        };
        let mut bytes = [0; 28];
        repr.emit(&mut bytes).unwrap();
        assert!(Plain::parse(&bytes).is_some());
    }
}
