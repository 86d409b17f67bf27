// SPDX-License-Identifier: Apache-2.0
//! Every header format, read from any bytes.
//!
//! An input is eight bytes of [`Parameters`] and a frame. The frame is read as every format that could stand at its
//! front, and then as what it says it is: Ethernet, 802.1Q, IP, what IP carries, and the packet in GRE once more. A fuzzer
//! does not find checksums, so a parameter asks that they be put right first.

mod icmp;
mod ip;
mod link;
mod text;
mod upper;

use core::net::IpAddr;

use ::wire::{EtherType, Family, IpProtocol, checksum, flow, vlan};

use crate::input::Input;

/// How many IP packets inside each other are looked at.
const DEPTH_MAX: u8 = 3;

/// What the input chooses beside the frame.
#[derive(Clone, Copy)]
pub(crate) struct Parameters {
    /// Put checksums right on the way.
    mends: bool,
    /// Bytes of a link, for fragments and for "too big".
    mtu: u16,
    /// A ToS, a TTL, or any other byte.
    byte: u8,
    /// A number.
    word: u32,
}

/// All formats.
///
/// # Panics
/// On a finding.
pub fn wire(data: &[u8]) {
    let mut input = Input::new(data);
    let parameters =
        Parameters { mends: input.u8() & 1 != 0, mtu: input.u16(), byte: input.u8(), word: input.u32() };
    let bytes = input.rest();
    link::check(bytes);
    upper::check(bytes);
    text::check(bytes);
    sums(bytes, parameters);
    packet(&mut bytes.to_vec(), parameters, 0);
    if let Ok(link) = vlan::parse_link(bytes) {
        let payload = &bytes[usize::from(link.header_bytes)..];
        match link.ether_type {
            EtherType::ARP => link::check_arp(payload),
            EtherType::IPV4 | EtherType::IPV6 => packet(&mut payload.to_vec(), parameters, 0),
            _ => {}
        }
    }
}

/// An IP packet and what it carries.
fn packet(l3: &mut [u8], parameters: Parameters, depth: u8) {
    if parameters.mends {
        mend_header(l3);
    }
    let parsed = flow::parse(l3);
    ip::check(l3, parsed, parameters);
    let Ok(parsed) = parsed else { return };
    if parameters.mends && !parsed.is_fragment() {
        mend_upper_layer(l3, &parsed);
    }
    let l3 = parsed.packet(l3);
    icmp::check(l3, &parsed, parameters);
    let upper_layer = parsed.upper_layer(l3);
    match parsed.protocol {
        _ if parsed.fragment == flow::Fragment::Later => {}
        IpProtocol::TCP => upper::check_tcp(upper_layer, &parsed, parameters),
        IpProtocol::UDP => upper::check_udp(upper_layer, &parsed),
        IpProtocol::GRE if depth < DEPTH_MAX => {
            if let Some(payload) = upper::check_gre(upper_layer, parameters) {
                packet(&mut payload.to_vec(), parameters, depth + 1);
            }
        }
        IpProtocol::IPV4 | IpProtocol::IPV6 if depth < DEPTH_MAX => {
            packet(&mut upper_layer.to_vec(), parameters, depth + 1);
        }
        _ => {}
    }
}

/// The Internet checksum against the loop of RFC 1071 §4.1, whole and in two pieces.
fn sums(bytes: &[u8], parameters: Parameters) {
    let expected = reference_checksum(bytes);
    assert_eq!(checksum::checksum(bytes), expected);
    let middle = (parameters.word as usize % (bytes.len() + 1)) & !1;
    let (front, back) = bytes.split_at(middle);
    let sum = checksum::Sum::of(back).add_sum(checksum::Sum::of(front));
    assert_eq!(sum.finish(), expected, "in pieces");
}

fn reference_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).expect("folded")
}

/// Puts the checksums of an IP packet and of what it carries right.
pub(crate) fn mend(l3: &mut [u8]) {
    mend_header(l3);
    if let Ok(parsed) = flow::parse(l3)
        && !parsed.is_fragment()
    {
        mend_upper_layer(l3, &parsed);
    }
}

/// Puts the IPv4 header checksum right, if there is a whole header.
fn mend_header(l3: &mut [u8]) {
    let Some(&first) = l3.first() else { return };
    let header_bytes = usize::from(first & 15) * 4;
    if first >> 4 == 4 && header_bytes >= 20 && l3.len() >= header_bytes {
        l3[10..12].fill(0);
        let sum = reference_checksum(&l3[..header_bytes]);
        l3[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Puts the checksum of the upper layer right, as far as there is room for it.
fn mend_upper_layer(l3: &mut [u8], parsed: &flow::Parsed) {
    let pseudo_header = pseudo_header(parsed);
    let upper_layer = parsed.upper_layer_mut(l3);
    let (at, pseudo_header) = match parsed.protocol {
        IpProtocol::TCP => (16, pseudo_header),
        IpProtocol::UDP => (6, pseudo_header),
        IpProtocol::ICMP if parsed.family == Family::Ipv4 => (2, Vec::new()),
        IpProtocol::ICMPV6 if parsed.family == Family::Ipv6 => (2, pseudo_header),
        IpProtocol::GRE if upper_layer.first().is_some_and(|flags| flags & 0x80 != 0) => (4, Vec::new()),
        _ => return,
    };
    if upper_layer.len() >= at + 2 {
        upper_layer[at..at + 2].fill(0);
        let sum = reference_checksum(&[&pseudo_header, &*upper_layer].concat());
        upper_layer[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The pseudo-header as RFC 8200 §8.1 lays it out; that of RFC 768 has the same sum.
fn pseudo_header(parsed: &flow::Parsed) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::from(parsed.total_bytes - parsed.header_bytes).to_be_bytes();
    let last = [0, 0, 0, parsed.protocol.0];
    [octets(parsed.source), octets(parsed.destination), length.to_vec(), last.to_vec()].concat()
}
