// SPDX-License-Identifier: Apache-2.0
//! Packets that several of these files send and read.

use core::net::IpAddr;

pub(crate) use greyhound_simulation::packets::reassemble;
use greyhound_simulation::packets::{Udp, ip_in, ip_with};
use greyhound_simulation::topology::{End, Shape};
use greyhound_simulation::wanted::{ANY, policy};
use messages::{EspMode, GreOptions, Object, PolicyAction, Selector};
use wire::flow::Parsed;
use wire::{IpProtocol, checksum, icmpv4, icmpv6};

pub(crate) const PLAIN: GreOptions = GreOptions { key: None, checksum: false, sequence: false };
pub(crate) const MODES: [Option<EspMode>; 3] = [Some(EspMode::Transport), Some(EspMode::Tunnel), None];

/// GRE may leave and come in clear: for a tunnel without protection.
pub(crate) fn gre_in_clear() -> Object {
    policy(1_000, Selector { protocol: Some(IpProtocol::GRE.0), ..ANY }, PolicyAction::Bypass)
}

/// The objects of a shape, with the SPD entry that GRE alone needs.
pub(crate) fn allow_gre(shape: &Shape, objects: &mut Vec<Object>) {
    if shape.esp.is_none() {
        objects.push(gre_in_clear());
    }
}

/// A UDP packet of exactly so many bytes from one site's host to the other's.
pub(crate) fn sized(from: End, v6: bool, total_bytes: usize) -> Udp {
    let (source, destination) = hosts(from, v6);
    let header = if v6 { 48 } else { 28 };
    let data: Vec<u8> = (0..total_bytes - header).map(|place| place as u8).collect();
    Udp::new(source, destination, &data)
}

pub(crate) fn hosts(from: End, v6: bool) -> (IpAddr, IpAddr) {
    let to = from.other();
    if v6 { (from.host_v6(), to.host_v6()) } else { (from.host(), to.host()) }
}

/// An ICMP or ICMPv6 message with its checksum in an IP packet between these addresses.
pub(crate) fn icmp(addresses: &Udp, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    let protocol = if addresses.source.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
    let sum = if addresses.source.is_ipv4() {
        checksum::checksum(&message)
    } else {
        let length = message.len() as u32;
        checksum::Sum::pseudo_header(addresses.source, addresses.destination, protocol, length)
            .add_bytes(&message)
            .finish()
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_with(addresses, protocol, &message)
}

/// An echo request with some data.
pub(crate) fn ping(from: IpAddr, to: IpAddr) -> Vec<u8> {
    icmp(&Udp::new(from, to, &[]), echo_kinds(from).0, 0, b"\x12\x34\x00\x05are you there?")
}

/// The reply to [`ping`], as it leaves with so many hops left.
pub(crate) fn pong(from: IpAddr, to: IpAddr, ttl: u8, identification: u16) -> Vec<u8> {
    let addresses = Udp { ttl, identification, ..Udp::new(from, to, &[]) };
    icmp(&addresses, echo_kinds(from).1, 0, b"\x12\x34\x00\x05are you there?")
}

fn echo_kinds(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() {
        (icmpv4::Type::ECHO.0, icmpv4::Type::ECHO_REPLY.0)
    } else {
        (icmpv6::Type::ECHO_REQUEST.0, icmpv6::Type::ECHO_REPLY.0)
    }
}

/// An ICMP error that arrived: header, type, code, the 32 bits that follow the checksum, and what it quotes. Its
/// checksum is right.
pub(crate) struct IcmpError {
    pub(crate) parsed: Parsed,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) word: u32,
    pub(crate) quoted: Vec<u8>,
}

pub(crate) fn icmp_error(packet: &[u8]) -> IcmpError {
    let parsed = wire::flow::parse(packet).expect("an IP packet");
    let message = parsed.upper_layer(packet);
    match (parsed.protocol, parsed.source, parsed.destination) {
        (IpProtocol::ICMP, ..) => assert!(checksum::is_valid(message)),
        (IpProtocol::ICMPV6, IpAddr::V6(source), IpAddr::V6(destination)) => {
            assert!(icmpv6::checksum_is_valid(message, source, destination));
        }
        (other, ..) => panic!("protocol {}", other.0),
    }
    let word = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    IcmpError { parsed, kind: message[0], code: message[1], word, quoted: message[8..].to_vec() }
}

/// The IP packets in these frames.
pub(crate) fn packets_in(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().filter_map(|frame| ip_in(frame)).map(|(_, packet)| packet).collect()
}
