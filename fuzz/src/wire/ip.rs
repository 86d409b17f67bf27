// SPDX-License-Identifier: Apache-2.0
//! IPv4 with options and fragments, IPv6 with extension headers, the one-pass parser against both, and the fields that
//! are rewritten in place.

use core::net::Ipv4Addr;

use ::wire::flow::{self, Fragment, HeaderChecksum, Parsed};
use ::wire::{Dscp, Ecn, Family, IpProtocol, ParseError, dscp, ecn, ipv4, ipv6};

use super::Parameters;

/// `parsed` is what [`flow::parse`] says of `l3`.
pub(super) fn check(l3: &[u8], parsed: Result<Parsed, ParseError>, parameters: Parameters) {
    check_flow(l3, parsed);
    check_tos(l3, parameters);
    if let Ok(packet) = ipv4::Packet::parse(l3) {
        check_ipv4(l3, &packet, parameters);
        check_plan(packet, parameters.mtu);
    }
    if let Ok(packet) = ipv6::Packet::parse(l3) {
        check_ipv6(l3, &packet);
    }
}

fn check_flow(l3: &[u8], parsed: Result<Parsed, ParseError>) {
    let verified = flow::parse_with(l3, HeaderChecksum::Verified);
    match (parsed, verified) {
        (Ok(_), _) => assert_eq!(parsed, verified),
        (Err(ParseError::BadChecksum), _) => {}
        (Err(_), verified) => assert!(verified.is_err()),
    }
    let Ok(parsed) = verified else { return };
    let (header_bytes, total_bytes) = (usize::from(parsed.header_bytes), usize::from(parsed.total_bytes));
    assert!(header_bytes <= total_bytes && total_bytes <= l3.len());
    assert_eq!(parsed.packet(l3).len(), total_bytes);
    assert_eq!(parsed.upper_layer(l3).len(), total_bytes - header_bytes);
    let padded = [parsed.packet(l3), &[0xa5; 9]].concat();
    assert_eq!(flow::parse_with(&padded, HeaderChecksum::Verified), Ok(parsed), "padding counts");
    match parsed.family {
        Family::Ipv4 => assert!(ipv4::Packet::parse(l3).is_ok()),
        Family::Ipv6 => {
            let upper = ipv6::upper_layer(l3).expect("what flow walks");
            assert_eq!((upper.protocol, upper.offset), (parsed.protocol, parsed.header_bytes));
            let later = upper.fragment.is_some_and(|fragment| fragment.offset != 0);
            assert_eq!(later, parsed.fragment == Fragment::Later);
        }
    }
}

/// A ToS or traffic class is replaced and nothing else, and an IPv4 checksum that was right stays so.
fn check_tos(l3: &[u8], parameters: Parameters) {
    let Ok(tos) = dscp::tos_of(l3) else { return };
    let mut packet = l3.to_vec();
    assert_eq!(dscp::rewrite_tos(&mut packet, parameters.byte), Ok(()));
    assert_eq!(dscp::tos_of(&packet), Ok(parameters.byte));
    checksum_follows(l3, &packet);
    let code_point = Dscp::of_tos(parameters.byte);
    assert_eq!(dscp::rewrite(&mut packet, code_point), Ok(()));
    assert_eq!(ecn::rewrite(&mut packet, Ecn::of_tos(tos)), Ok(()));
    assert_eq!(dscp::tos_of(&packet), Ok(code_point.tos(Ecn::of_tos(tos))));
    checksum_follows(l3, &packet);
    assert_eq!(dscp::rewrite_tos(&mut packet, tos), Ok(()));
    if Family::Ipv4 as u8 == l3[0] >> 4 {
        packet[10..12].copy_from_slice(&l3[10..12]);
    }
    assert_eq!(packet, l3);
}

/// A right IPv4 header checksum is still right in `after`.
fn checksum_follows(before: &[u8], after: &[u8]) {
    let is_right = |l3| ipv4::Packet::parse(l3).ok().map(|packet| packet.checksum_is_valid());
    if is_right(before) == Some(true) {
        assert_eq!(is_right(after), Some(true), "the checksum does not follow");
    }
}

fn check_ipv4(l3: &[u8], packet: &ipv4::Packet<'_>, parameters: Parameters) {
    let header_bytes = usize::from(packet.header.header_bytes());
    assert_eq!(header_bytes, 20 + packet.options.len());
    assert_eq!(header_bytes + packet.payload.len(), usize::from(packet.header.total_length()));
    let listed: usize =
        ipv4::options::Options::new(packet.options).flatten().map(|option| option.bytes.len()).sum();
    assert!(listed <= packet.options.len());
    rewrite(l3, parameters);
    let Ok(repr) = ipv4::Repr::parse(packet) else { return };
    let mut again = vec![0xa5; 20];
    assert_eq!(repr.emit(&mut again), Ok(20));
    again.extend(packet.payload);
    let reparsed = ipv4::Packet::parse(&again).expect("what was emitted");
    assert_eq!(ipv4::Repr::parse(&reparsed), Ok(repr));
    assert_eq!(reparsed.payload, packet.payload);
}

fn rewrite(l3: &[u8], parameters: Parameters) {
    let mut after = l3.to_vec();
    let (header, _) = ipv4::Header::split_mut(&mut after).expect("parsed");
    let addresses = (Ipv4Addr::from_bits(parameters.word), Ipv4Addr::from_bits(!parameters.word));
    header.rewrite_identification(parameters.mtu);
    header.rewrite_dont_fragment(parameters.byte & 1 != 0);
    header.rewrite_addresses(addresses.0, addresses.1);
    header.rewrite_protocol(IpProtocol(parameters.byte));
    header.rewrite_ttl(parameters.byte);
    assert_eq!(header.decrement_ttl().is_ok(), parameters.byte > 1);
    assert_eq!(header.ttl(), if parameters.byte > 1 { parameters.byte - 1 } else { parameters.byte });
    assert_eq!((header.source(), header.destination()), addresses);
    assert_eq!((header.identification(), header.protocol().0), (parameters.mtu, parameters.byte));
    checksum_follows(l3, &after);
}

/// The fragments fit, are right, and together they are the packet.
fn check_plan(packet: ipv4::Packet<'_>, mtu: u16) {
    let Ok(plan) = ipv4::fragment::Plan::new(packet, mtu) else { return };
    let mut payload: Vec<u8> = Vec::new();
    let count = plan.count();
    let mut buffer = vec![0xa5; usize::from(mtu)];
    for index in 0..count {
        let end = plan.emit(index, &mut buffer).expect("a fragment fits its link");
        let piece = ipv4::Packet::parse(&buffer[..end]).expect("a fragment is a packet");
        assert!(piece.checksum_is_valid());
        let offset = usize::from(packet.header.fragment_offset()) * 8 + payload.len();
        assert_eq!(usize::from(piece.header.fragment_offset()) * 8, offset);
        assert_eq!(piece.header.more_fragments(), index + 1 < count || packet.header.more_fragments());
        assert_eq!(piece.header.identification(), packet.header.identification());
        payload.extend(piece.payload);
    }
    assert_eq!(payload, packet.payload);
    assert!(plan.piece(count).is_none() && plan.emit(count, &mut buffer).is_err());
}

fn check_ipv6(l3: &[u8], packet: &ipv6::Packet<'_>) {
    let mut again = [0xa5; 40];
    assert_eq!(ipv6::Repr::parse(packet).emit(&mut again), Ok(40));
    assert_eq!(again, l3[..40]);
    let total_bytes = 40 + packet.payload.len();
    for walked in [ipv6::upper_layer(l3), ipv6::transport(l3)].into_iter().flatten() {
        assert!((40..=total_bytes).contains(&usize::from(walked.offset)));
        assert!(walked.extension_headers <= ipv6::MAX_EXTENSION_HEADERS);
    }
    let mut after = l3.to_vec();
    let (header, _) = ipv6::Header::split_mut(&mut after).expect("parsed");
    let hop_limit = header.hop_limit();
    assert_eq!(header.decrement_hop_limit().is_ok(), hop_limit > 1);
    assert_eq!(header.hop_limit(), if hop_limit > 1 { hop_limit - 1 } else { hop_limit });
}
