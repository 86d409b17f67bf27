// SPDX-License-Identifier: Apache-2.0
//! Frames that an input lists: out of the site, out of ESP, or as they are.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use messages::{EspMode, PortIndex};
use wire::{EtherType, IpProtocol, MacAddr, ethernet, gre, ipv4, ipv6};

use super::headend::{LAN, MACS, PAIRS, WAN, address};
use crate::input::Input;
use crate::sealing::with_trailer;
use crate::wire::mend;

/// The most bytes of a frame: a full one and some more.
const FRAME_BYTES_MAX: usize = 1600;

/// A frame as it is in the input.
pub(super) fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let bytes = usize::from(input.u16());
    input.bytes(bytes.min(FRAME_BYTES_MAX)).to_vec()
}

/// An IP packet of the input with its checksums put right, in a frame for us.
pub(super) fn mended(port: PortIndex, input: &mut Input<'_>) -> Vec<u8> {
    let mut packet = raw(input);
    mend(&mut packet);
    framed(port, &packet)
}

/// A packet of a host in our site for a host in one of the others.
pub(super) fn from_site(input: &mut Input<'_>) -> Vec<u8> {
    framed(LAN, &inner(input.u8(), true, input))
}

/// An ESP packet of one of the peers under the number `sequence`.
pub(super) fn sealed(pair: usize, sequence: u64, input: &mut Input<'_>) -> Vec<u8> {
    let flags = input.u8();
    let (payload, next_header) = match flags & 3 {
        0 => in_gre(pair, flags, input),
        1 => (inner(pair_site(pair, flags), false, input), IpProtocol::IPV4.0),
        2 => (raw(input), IpProtocol::GRE.0),
        _ => (raw(input), input.u8()),
    };
    let text = if flags & 4 == 0 { with_trailer(&payload, next_header) } else { payload };
    let known = &PAIRS[pair];
    let mut esp = known.inbound.seal(&known.key, sequence, [flags; 8], &text);
    if flags & 0xf0 == 0xf0 {
        let at = usize::from(input.u16()) % esp.len();
        esp[at] ^= input.u8();
    }
    framed(WAN, &delivered(known.remote, known.local, IpProtocol::ESP, input.u8() & 0x1f, &esp))
}

/// A packet of a host of the pair's site in GRE, and in tunnel mode in the GRE endpoints' header, too.
fn in_gre(pair: usize, flags: u8, input: &mut Input<'_>) -> (Vec<u8>, u8) {
    let payload = inner(pair_site(pair, flags), false, input);
    let header = gre::Repr {
        protocol_type: if is_ipv6(&payload) { EtherType::IPV6 } else { EtherType::IPV4 },
        checksum_present: flags & 8 != 0,
        key: [None, Some(1), Some(2), Some(3)][pair],
        sequence_number: (pair == 1).then(|| u32::from(input.u8())),
    };
    let mut packet = vec![0; header.header_bytes()];
    packet.extend(payload);
    header.emit(&mut packet).expect("there is room");
    match PAIRS[pair].mode {
        EspMode::Transport => (packet, IpProtocol::GRE.0),
        EspMode::Tunnel => {
            let (source, destination) = (address("10.255.0.8"), address("10.255.0.1"));
            (delivered(source, destination, IpProtocol::GRE, 0, &packet), IpProtocol::IPV4.0)
        }
    }
}

/// The site behind a protection, or another one.
fn pair_site(pair: usize, flags: u8) -> u8 {
    let site = u8::try_from(pair).expect("few");
    if flags & 0x70 == 0x70 { site + 1 } else { site }
}

/// A packet between our site and `site`: host, protocol, ToS, DF and length are the input's.
fn inner(site: u8, is_outbound: bool, input: &mut Input<'_>) -> Vec<u8> {
    let (host, kind) = (input.u8(), input.u8());
    let upper_layer = upper_layer(kind, input);
    let protocol =
        [IpProtocol::UDP, IpProtocol::TCP, IpProtocol::ICMP, IpProtocol::GRE][usize::from(kind & 3)];
    let (ours, theirs): (IpAddr, IpAddr) = if kind & 0x20 == 0 {
        (Ipv4Addr::new(10, 1, 0, 2).into(), Ipv4Addr::new(10, 2 + site % 8, 0, host).into())
    } else {
        let of_site = |site: u16, host: u8| Ipv6Addr::new(0xfd00, site, 0, 0, 0, 0, 0, host.into()).into();
        (of_site(1, 9), of_site(2 + u16::from(site % 4), host))
    };
    let (source, destination) = if is_outbound { (ours, theirs) } else { (theirs, ours) };
    let mut packet = delivered(source, destination, protocol, kind, &upper_layer);
    mend(&mut packet);
    packet
}

/// A few bytes of the input and zeros, as many as it says; for TCP a SYN with an MSS.
fn upper_layer(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    const SYN: [u8; 24] = [4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 255, 255, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let bytes = usize::from(input.u16()) % (FRAME_BYTES_MAX - 60);
    let mut upper_layer = if kind & 3 == 1 { SYN.to_vec() } else { input.bytes(bytes.min(16)).to_vec() };
    upper_layer.resize(bytes.max(upper_layer.len()), 0);
    upper_layer
}

/// `payload` behind an IP header; `bits` choose DF, ToS and TTL.
fn delivered(source: IpAddr, destination: IpAddr, protocol: IpProtocol, bits: u8, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = u16::try_from(payload.len()).expect("a short packet");
    let hops = if bits & 0x80 == 0 { 64 } else { 1 };
    let mut packet = vec![0; 40];
    let header_bytes = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Repr::new(source, destination, protocol);
            let dont_fragment = bits & 0x40 != 0;
            ipv4::Repr { dont_fragment, tos: bits & 0x1f, ttl: hops, payload_bytes, ..header }
                .emit(&mut packet)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Repr::new(source, destination, protocol);
            ipv6::Repr { traffic_class: bits & 0x1f, hop_limit: hops, payload_bytes, ..header }
                .emit(&mut packet)
        }
        _ => panic!("two families in one packet"),
    };
    packet.truncate(header_bytes.expect("there is room"));
    packet.extend(payload);
    packet
}

fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}

fn framed(port: PortIndex, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr {
        destination: MacAddr(MACS[port.index()]),
        source: MacAddr([2, 0, 0, 0, 0, 0x20]),
        ether_type: if is_ipv6(packet) { EtherType::IPV6 } else { EtherType::IPV4 },
    };
    let mut frame = vec![0; ethernet::HEADER_BYTES];
    header.emit(&mut frame).expect("there is room");
    frame.extend(packet);
    frame
}
