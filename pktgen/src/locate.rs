// SPDX-License-Identifier: Apache-2.0
//! Where in a received frame the test packet's payload is, through whatever tunnels it came.

use std::ops::Range;

use wire::{EtherType, IpProtocol, gre, ipv4, ipv6, tcp, udp, vlan};

/// Tunnels in tunnels beyond this are not ours.
const DEPTH: usize = 4;
const ICMP_HEADER_BYTES: usize = 8;

/// What a frame leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// The payload of UDP, TCP or ICMP.
    Payload(Range<usize>),
    /// ESP, from the SPI to the end of the IP packet.
    Esp(Range<usize>),
}

/// Follows a frame's headers; none if they are not what test packets have.
#[inline]
#[must_use]
pub fn in_frame(frame: &[u8]) -> Option<Inside> {
    let link = vlan::parse_link(frame).ok()?;
    in_ip(frame, usize::from(link.header_bytes), link.ether_type, DEPTH)
}

/// Follows what an ESP packet carried, which lies at `range` of a frame.
#[inline]
#[must_use]
pub fn in_opened(frame: &[u8], range: Range<usize>, next_header: IpProtocol) -> Option<Inside> {
    in_upper(frame, range, next_header, DEPTH)
}

#[inline]
fn in_ip(frame: &[u8], at: usize, ether_type: EtherType, depth: usize) -> Option<Inside> {
    let bytes = frame.get(at..)?;
    let (protocol, start, payload_bytes) = match ether_type {
        EtherType::IPV4 => {
            let packet = ipv4::Packet::parse(bytes).ok()?;
            if packet.header.is_fragment() {
                return None;
            }
            let start = at + usize::from(packet.header.header_bytes());
            (packet.header.protocol(), start, packet.payload.len())
        }
        EtherType::IPV6 => {
            let packet = ipv6::Packet::parse(bytes).ok()?;
            (packet.header.next_header(), at + ipv6::HEADER_BYTES, packet.payload.len())
        }
        _ => return None,
    };
    in_upper(frame, start..start + payload_bytes, protocol, depth)
}

#[inline]
fn in_upper(frame: &[u8], range: Range<usize>, protocol: IpProtocol, depth: usize) -> Option<Inside> {
    let bytes = frame.get(range.clone())?;
    match protocol {
        IpProtocol::UDP => {
            let payload = udp::Packet::parse(bytes).ok()?.payload.len();
            let start = range.start + udp::HEADER_BYTES;
            Some(Inside::Payload(start..start + payload))
        }
        IpProtocol::TCP => {
            let header = tcp::Packet::parse(bytes).ok()?.header.header_bytes();
            Some(Inside::Payload(range.start + usize::from(header)..range.end))
        }
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            bytes.get(ICMP_HEADER_BYTES..)?;
            Some(Inside::Payload(range.start + ICMP_HEADER_BYTES..range.end))
        }
        IpProtocol::ESP => Some(Inside::Esp(range)),
        IpProtocol::GRE if depth > 0 => {
            let packet = gre::Packet::parse(bytes).ok()?;
            let start = range.end - packet.payload.len();
            in_ip(frame.get(..range.end)?, start, packet.header.protocol_type(), depth - 1)
        }
        IpProtocol::IPV4 if depth > 0 => {
            in_ip(frame.get(..range.end)?, range.start, EtherType::IPV4, depth - 1)
        }
        IpProtocol::IPV6 if depth > 0 => {
            in_ip(frame.get(..range.end)?, range.start, EtherType::IPV6, depth - 1)
        }
        _ => None,
    }
}
