// SPDX-License-Identifier: Apache-2.0
//! What a plain packet is: IPv4 without options, whole, between two hosts. Everything else is not for the fast path.

use arrayvec::ArrayVec;
use pktbuf::{BURST, Batch};
use wire::checksum::Sum;
use wire::{EtherType, IpProtocol, MacAddr, ethernet, ipv4};

use crate::scheduled;

/// The shortest plain packet: header and ports.
const BYTES_MIN: usize = ipv4::HEADER_BYTES + 4;
const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
/// MF, fragment offset, and the reserved bit.
const FRAGMENT_BITS: u16 = 0xbfff;
/// DF, beside the fragment offset.
pub(super) const DONT_FRAGMENT: u16 = 0x4000;
/// Where it has its ToS.
pub(super) const TOS_OFFSET: usize = 1;
/// Where a plain packet has its TCP flags; and the flag.
pub(super) const TCP_FLAGS_OFFSET: usize = ipv4::HEADER_BYTES + scheduled::TCP_FLAGS_OFFSET;
const TCP_SYN: u8 = 0x02;
/// How many packets ahead of its turn a packet's memory is asked for: its header first, then where it points.
const HEADER_AHEAD: usize = 8;
const DATA_AHEAD: usize = 4;

/// The original headers of a plain packet: what QoS pre-classify keeps through encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub source: u32,
    pub destination: u32,
    /// The first four bytes of the upper layer: its ports, or an SPI (RFC 4303 §2.1).
    pub ports: u32,
    pub total_bytes: u16,
    /// Flags and fragment offset, of which only DF can be set.
    pub flags: u16,
    pub protocol: IpProtocol,
    pub tos: u8,
    pub ttl: u8,
    /// A TCP segment that opens a connection.
    pub is_syn: bool,
}

impl Plain {
    /// No packet at all: no table knows its addresses.
    pub(crate) const NONE: Self = Self {
        source: 0,
        destination: 0,
        ports: 0,
        total_bytes: 0,
        flags: 0,
        protocol: IpProtocol(0),
        tos: 0,
        ttl: 0,
        is_syn: false,
    };

    /// The packet at the front of `l3`, if it is plain and its header checksum is right.
    #[inline(always)]
    pub(crate) fn parse(l3: &[u8]) -> Option<Self> {
        let ip: &[u8; ipv4::HEADER_BYTES] = l3.get(..BYTES_MIN)?.first_chunk()?;
        let [version_ihl, _, a, b, _, _, c, d, ..] = *ip;
        let is_plain = version_ihl == VERSION_4_WITHOUT_OPTIONS
            && u16::from_be_bytes([c, d]) & FRAGMENT_BITS == 0
            && (BYTES_MIN..=l3.len()).contains(&usize::from(u16::from_be_bytes([a, b])))
            && Sum::of(ip).is_valid();
        if is_plain { Self::read(l3) } else { None }
    }

    /// The same of a packet that is known to be plain.
    #[inline(always)]
    pub(crate) fn read(l3: &[u8]) -> Option<Self> {
        let header: &[u8; BYTES_MIN] = l3.first_chunk()?;
        let (ip, ports): (&[u8; ipv4::HEADER_BYTES], _) = header.split_first_chunk()?;
        let [_, tos, a, b, _, _, c, d, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
        let total_bytes = u16::from_be_bytes([a, b]);
        let flags = u16::from_be_bytes([c, d]);
        let protocol = IpProtocol(protocol);
        let is_syn = protocol == IpProtocol::TCP && l3.get(TCP_FLAGS_OFFSET)? & TCP_SYN != 0;
        Some(Self {
            source: u32::from_be_bytes([s0, s1, s2, s3]),
            destination: u32::from_be_bytes([d0, d1, d2, d3]),
            ports: u32::from_be_bytes(*ports.first_chunk()?),
            total_bytes,
            flags,
            protocol,
            tos,
            ttl,
            is_syn,
        })
    }
}

/// Reads every packet of a burst; what is not plain, or not in a frame for `mac`, is [`Plain::NONE`]. `seen` is told of
/// each.
#[inline(always)]
pub(super) fn parse_burst(
    batch: &Batch,
    mac: MacAddr,
    mut seen: impl FnMut(&Plain),
) -> ArrayVec<Plain, BURST> {
    let mut plains = ArrayVec::new();
    for (place, packet) in batch.iter().enumerate() {
        if let Some(ahead) = batch.get(place + HEADER_AHEAD) {
            ahead.prefetch_header();
        }
        if let Some(ahead) = batch.get(place + DATA_AHEAD) {
            ahead.prefetch_data();
            ahead.prefetch_headroom();
        }
        match ipv4_in(packet.data(), mac).and_then(Plain::parse) {
            Some(plain) => {
                seen(&plain);
                plains.push(plain);
            }
            None => plains.push(Plain::NONE),
        }
    }
    plains
}

/// The IPv4 packet, and what may follow it, in a frame for `mac`.
#[inline(always)]
fn ipv4_in(frame: &[u8], mac: MacAddr) -> Option<&[u8]> {
    let (header, l3) = frame.split_first_chunk::<{ ethernet::HEADER_BYTES }>()?;
    let [a, b, c, d, e, f, .., high, low] = *header;
    ([a, b, c, d, e, f] == mac.0 && u16::from_be_bytes([high, low]) == EtherType::IPV4.0).then_some(l3)
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
                prop_assert_eq!(parsed.source, Ipv4Addr::from(plain.source));
                prop_assert_eq!(parsed.destination, Ipv4Addr::from(plain.destination));
                prop_assert_eq!(parsed.total_bytes, plain.total_bytes);
                prop_assert_eq!(parsed.protocol, plain.protocol);
                prop_assert_eq!((parsed.tos, parsed.ttl), (plain.tos, plain.ttl));
                prop_assert_eq!(parsed.dont_fragment, plain.flags == DONT_FRAGMENT);
                prop_assert!(parsed.dont_fragment || plain.flags == 0);
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
