// SPDX-License-Identifier: Apache-2.0
//! ICMP, ICMPv6, neighbour discovery: messages, errors about any packet, and replies made in place.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::wire::flow::Parsed;
use ::wire::{IpProtocol, MacAddr, icmpv4, icmpv6, ipv4, ipv6, ndp};

use super::Parameters;

const OUR_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUR_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// Everything about the packet `l3`, which `parsed` describes.
pub(super) fn check(l3: &[u8], parsed: &Parsed, parameters: Parameters) {
    let upper_layer = parsed.upper_layer(l3);
    match (parsed.source, parsed.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            if parsed.protocol == IpProtocol::ICMP {
                message_v4(upper_layer);
            }
            error_v4(l3, parameters);
            echo_v4(l3, parameters);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if parsed.protocol == IpProtocol::ICMPV6 {
                message_v6(upper_layer, source, destination);
            }
            error_v6(l3, parameters);
            echo_v6(l3, parameters);
            discovery(l3);
        }
        _ => panic!("addresses of two families in one packet"),
    }
}

fn message_v4(message: &[u8]) {
    let Ok(repr) = icmpv4::Repr::parse(message) else { return };
    let mut buffer = vec![0xa5; repr.message_bytes()];
    assert_eq!(repr.emit(&mut buffer), Ok(message.len()));
    assert_eq!(icmpv4::Repr::parse(&buffer), Ok(repr));
}

fn message_v6(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) {
    let Ok(repr) = icmpv6::Repr::parse(message, source, destination) else { return };
    let mut buffer = vec![0xa5; repr.message_bytes()];
    assert_eq!(repr.emit(&mut buffer, source, destination), Ok(message.len()));
    assert_eq!(icmpv6::Repr::parse(&buffer, source, destination), Ok(repr));
}

fn error_v4(original: &[u8], parameters: Parameters) {
    let error = match parameters.word % 4 {
        0 => icmpv4::Error::DestinationUnreachable { code: parameters.byte },
        1 => icmpv4::Error::FragmentationNeeded { next_hop_mtu: parameters.mtu },
        2 => icmpv4::Error::TimeExceeded,
        _ => icmpv4::Error::ParameterProblem { pointer: parameters.byte },
    };
    let mut buffer = [0xa5; icmpv4::MAX_ERROR_BYTES];
    let emitted = icmpv4::emit_error(original, error, OUR_IPV4, 64, parameters.mtu, &mut buffer);
    assert_eq!(emitted.is_ok(), icmpv4::may_send_error(original));
    let Ok(end) = emitted else { return };
    let answer = &buffer[..end];
    let packet = ipv4::Packet::parse(answer).expect("an error is a packet");
    let header = ipv4::Header::split(original).expect("it was answered").0;
    assert!(packet.checksum_is_valid());
    assert_eq!((packet.header.source(), packet.header.destination()), (OUR_IPV4, header.source()));
    let quoted = match icmpv4::Repr::parse(packet.payload).expect("an error is a message") {
        icmpv4::Repr::DestinationUnreachable { original, .. }
        | icmpv4::Repr::TimeExceeded { original, .. }
        | icmpv4::Repr::ParameterProblem { original, .. } => original,
        other => panic!("not an error: {other:?}"),
    };
    assert!(original.starts_with(quoted) && quoted.len() >= original.len().min(28));
    assert!(!icmpv4::may_send_error(answer), "an error about an error");
}

fn error_v6(original: &[u8], parameters: Parameters) {
    let error = match parameters.word % 4 {
        0 => icmpv6::Error::DestinationUnreachable { code: parameters.byte },
        1 => icmpv6::Error::PacketTooBig { mtu: parameters.word },
        2 => icmpv6::Error::TimeExceeded,
        _ => icmpv6::Error::ParameterProblem { code: parameters.byte, pointer: parameters.word },
    };
    let mut buffer = [0xa5; icmpv6::MAX_ERROR_BYTES];
    let emitted = icmpv6::emit_error(original, error, OUR_IPV6, 64, &mut buffer);
    assert_eq!(emitted.is_ok(), icmpv6::may_send_error(original, error));
    let Ok(end) = emitted else { return };
    let answer = &buffer[..end];
    let packet = ipv6::Packet::parse(answer).expect("an error is a packet");
    let (source, destination) = (packet.header.source(), packet.header.destination());
    assert_eq!(
        (source, destination),
        (OUR_IPV6, ipv6::Header::split(original).expect("answered").0.source())
    );
    let quoted = match icmpv6::Repr::parse(packet.payload, source, destination).expect("a message") {
        icmpv6::Repr::DestinationUnreachable { original, .. }
        | icmpv6::Repr::PacketTooBig { original, .. }
        | icmpv6::Repr::TimeExceeded { original, .. }
        | icmpv6::Repr::ParameterProblem { original, .. } => original,
        other => panic!("not an error: {other:?}"),
    };
    assert!(original.starts_with(quoted) && quoted.len() >= original.len().min(1232));
    assert!(!icmpv6::may_send_error(answer, error), "an error about an error");
}

fn echo_v4(l3: &[u8], parameters: Parameters) {
    let mut packet = l3.to_vec();
    if icmpv4::reply_to_echo(&mut packet, parameters.byte, parameters.mtu).is_err() {
        assert_eq!(packet, l3, "refused and changed");
        return;
    }
    let before = ipv4::Packet::parse(l3).expect("it was answered");
    let after = ipv4::Packet::parse(&packet).expect("a reply is a packet");
    assert!(after.checksum_is_valid());
    assert_eq!(after.header.source(), before.header.destination());
    assert_eq!(after.header.destination(), before.header.source());
    match (icmpv4::Repr::parse(before.payload), icmpv4::Repr::parse(after.payload)) {
        (
            Ok(icmpv4::Repr::Echo { identifier, sequence_number, data }),
            Ok(icmpv4::Repr::EchoReply { identifier: i, sequence_number: s, data: d }),
        ) => assert_eq!((identifier, sequence_number, data), (i, s, d)),
        other => panic!("{other:?}"),
    }
}

fn echo_v6(l3: &[u8], parameters: Parameters) {
    let mut packet = l3.to_vec();
    if icmpv6::reply_to_echo(&mut packet, parameters.byte).is_err() {
        assert_eq!(packet, l3, "refused and changed");
        return;
    }
    let before = ipv6::Packet::parse(l3).expect("it was answered");
    let after = ipv6::Packet::parse(&packet).expect("a reply is a packet");
    let (source, destination) = (before.header.source(), before.header.destination());
    assert_eq!((after.header.source(), after.header.destination()), (destination, source));
    let asked = icmpv6::Repr::parse(before.payload, source, destination);
    let answered = icmpv6::Repr::parse(after.payload, destination, source);
    match (asked, answered) {
        (
            Ok(icmpv6::Repr::EchoRequest { identifier, sequence_number, data }),
            Ok(icmpv6::Repr::EchoReply { identifier: i, sequence_number: s, data: d }),
        ) => assert_eq!((identifier, sequence_number, data), (i, s, d)),
        other => panic!("{other:?}"),
    }
}

fn discovery(l3: &[u8]) {
    let Ok(message) = ndp::Message::parse(l3) else { return };
    emits(&message);
    if let Some(answer) = message.answer(OUR_MAC) {
        emits(&answer);
    }
}

fn emits(message: &ndp::Message) {
    let mut buffer = [0xa5; ndp::MAX_PACKET_BYTES];
    let end = message.emit(&mut buffer).expect("there is room");
    assert_eq!(ndp::Message::parse(&buffer[..end]).as_ref(), Ok(message));
}
