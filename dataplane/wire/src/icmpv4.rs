// SPDX-License-Identifier: Apache-2.0
//! ICMP for IPv4 (RFC 792; RFC 1812 §4.3 on what a router may send; RFC 1191 §4 on the next-hop MTU).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  by type: identifier and sequence number, next-hop MTU, pointer, or zero  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  echo: data; errors: the original IP header and what follows it           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Left out: redirects, source quench, timestamps and the limit on the rate of errors, which has a clock.

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::address::is_ipv4_host;
use crate::checksum;
use crate::view::{put, put_bytes, split, split_mut};
use crate::{Dscp, Ecn, EmitError, IpProtocol, ParseError, ipv4};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 8;
/// The longest error message, IP header included, in bytes (RFC 1812 §4.3.2.3).
pub const MAX_ERROR_BYTES: usize = 576;

/// The ICMP message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type(pub u8);

impl Type {
    /// Echo Reply.
    pub const ECHO_REPLY: Type = Type(0);
    /// Destination Unreachable.
    pub const DESTINATION_UNREACHABLE: Type = Type(3);
    /// Source Quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: Type = Type(4);
    /// Redirect.
    pub const REDIRECT: Type = Type(5);
    /// Echo.
    pub const ECHO: Type = Type(8);
    /// Time Exceeded.
    pub const TIME_EXCEEDED: Type = Type(11);
    /// Parameter Problem.
    pub const PARAMETER_PROBLEM: Type = Type(12);

    /// Whether it is known to be a query or a reply to one, so that an error may be sent about it. Types not listed
    /// might be errors.
    pub const fn is_query(self) -> bool {
        // Echo; router discovery (RFC 1256); timestamp, information, address mask; extended echo (RFC 8335).
        matches!(self.0, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43)
    }
}

/// Codes of Destination Unreachable (RFC 792, RFC 1812 §5.2.7.1).
pub mod unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The host does not answer.
    pub const HOST: u8 = 1;
    /// The protocol is not there.
    pub const PROTOCOL: u8 = 2;
    /// Nobody listens on the port.
    pub const PORT: u8 = 3;
    /// Fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Communication administratively prohibited.
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 13;
}

/// The header, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    kind: u8,
    code: u8,
    checksum: U16,
    rest: [u8; 4],
}

impl Header {
    /// The header at the front of `bytes`, and what follows it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(bytes: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(bytes)
    }

    /// The type.
    #[inline]
    pub const fn kind(&self) -> Type {
        Type(self.kind)
    }

    /// The code.
    #[inline]
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// The four bytes whose meaning depends on the type.
    #[inline]
    pub const fn rest(&self) -> [u8; 4] {
        self.rest
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr<'a> {
    /// Are you there?
    Echo {
        /// Tells one asker from another.
        identifier: u16,
        /// Tells one question from another.
        sequence_number: u16,
        /// What the reply returns.
        data: &'a [u8],
    },
    /// I am.
    EchoReply {
        /// From the question.
        identifier: u16,
        /// From the question.
        sequence_number: u16,
        /// From the question.
        data: &'a [u8],
    },
    /// The packet could not be delivered.
    DestinationUnreachable {
        /// Why: see [`mod@unreachable`].
        code: u8,
        /// What fits, for [`unreachable::FRAGMENTATION_NEEDED`]; else 0.
        next_hop_mtu: u16,
        /// The front of the packet.
        original: &'a [u8],
    },
    /// The packet had no hops left (code 0) or was not reassembled in time (code 1).
    TimeExceeded {
        /// Which of them.
        code: u8,
        /// The front of the packet.
        original: &'a [u8],
    },
    /// Something in the packet's header is wrong.
    ParameterProblem {
        /// The offset of what is wrong, in bytes.
        pointer: u8,
        /// The front of the packet.
        original: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// Reads the message that `message` is, to its end, and checks its checksum.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadChecksum`]; [`ParseError::BadValue`] for any other type.
    pub fn parse(message: &'a [u8]) -> Result<Repr<'a>, ParseError> {
        let (header, data) = Header::split(message)?;
        if !checksum::is_valid(message) {
            return Err(ParseError::BadChecksum);
        }
        let [a, b, c, d] = header.rest;
        let (identifier, sequence_number) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match header.kind() {
            Type::ECHO => Ok(Repr::Echo { identifier, sequence_number, data }),
            Type::ECHO_REPLY => Ok(Repr::EchoReply { identifier, sequence_number, data }),
            Type::DESTINATION_UNREACHABLE => Ok(Repr::DestinationUnreachable {
                code: header.code,
                next_hop_mtu: if header.code == unreachable::FRAGMENTATION_NEEDED {
                    sequence_number
                } else {
                    0
                },
                original: data,
            }),
            Type::TIME_EXCEEDED => Ok(Repr::TimeExceeded { code: header.code, original: data }),
            Type::PARAMETER_PROBLEM => Ok(Repr::ParameterProblem { pointer: a, original: data }),
            _ => Err(ParseError::BadValue),
        }
    }

    /// Length of the message in bytes.
    pub const fn message_bytes(&self) -> usize {
        HEADER_BYTES + self.data().len()
    }

    const fn data(&self) -> &'a [u8] {
        match self {
            Repr::Echo { data, .. } | Repr::EchoReply { data, .. } => data,
            Repr::DestinationUnreachable { original, .. }
            | Repr::TimeExceeded { original, .. }
            | Repr::ParameterProblem { original, .. } => original,
        }
    }

    const fn header(&self) -> Header {
        let (kind, code, rest) = match *self {
            Repr::Echo { identifier, sequence_number, .. } => {
                (Type::ECHO, 0, pair(identifier, sequence_number))
            }
            Repr::EchoReply { identifier, sequence_number, .. } => {
                (Type::ECHO_REPLY, 0, pair(identifier, sequence_number))
            }
            Repr::DestinationUnreachable { code, next_hop_mtu, .. } => {
                (Type::DESTINATION_UNREACHABLE, code, pair(0, next_hop_mtu))
            }
            Repr::TimeExceeded { code, .. } => (Type::TIME_EXCEEDED, code, [0; 4]),
            Repr::ParameterProblem { pointer, .. } => (Type::PARAMETER_PROBLEM, 0, [pointer, 0, 0, 0]),
        };
        Header { kind: kind.0, code, checksum: U16::ZERO, rest }
    }

    /// Writes the message with its checksum to the front of `buffer`; returns its length.
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let mut header = self.header();
        let end = put(&header, buffer)?;
        let end = put_bytes(buffer, end, self.data())?;
        let message = buffer.get(..end).ok_or(EmitError::NoSpace)?;
        header.checksum.set(checksum::checksum(message));
        put(&header, buffer)?;
        Ok(end)
    }
}

const fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_be_bytes(), second.to_be_bytes());
    [a, b, c, d]
}

/// What to say about a packet that is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Destination Unreachable with a code of [`mod@unreachable`].
    DestinationUnreachable {
        /// Why.
        code: u8,
    },
    /// The packet does not fit and may not be fragmented.
    FragmentationNeeded {
        /// What fits.
        next_hop_mtu: u16,
    },
    /// No hops left.
    TimeExceeded,
    /// Something in its header is wrong.
    ParameterProblem {
        /// The offset of what is wrong, in bytes.
        pointer: u8,
    },
}

/// Whether an error may be sent about the packet `original` (RFC 1812 §4.3.2.7).
///
/// Not about anything but a query when it is ICMP, nor a later fragment, nor a packet to or from other than one host. Two
/// conditions only the caller can know: it was not a link-layer broadcast or multicast, and its destination is not the
/// broadcast address of a subnet.
pub fn may_send_error(original: &[u8]) -> bool {
    let Ok(packet) = ipv4::Packet::parse(original) else { return false };
    let header = packet.header;
    if header.fragment_offset() != 0 || !is_ipv4_host(header.source()) || !is_ipv4_host(header.destination())
    {
        return false;
    }
    header.protocol() != IpProtocol::ICMP || packet.payload.first().is_some_and(|kind| Type(*kind).is_query())
}

/// Writes the IP packet that tells the sender of `original` of `error` to the front of `buffer`; returns its length, at
/// most [`MAX_ERROR_BYTES`].
///
/// `source` is the router's own address; the precedence is internetwork control (RFC 1812 §4.3.2.5). What follows the
/// total length of `original` is left out.
///
/// # Errors
/// [`EmitError::NotAllowed`] unless [`may_send_error`]; [`EmitError::NoSpace`].
pub fn emit_error(
    original: &[u8],
    error: Error,
    source: Ipv4Addr,
    ttl: u8,
    identification: u16,
    buffer: &mut [u8],
) -> Result<usize, EmitError> {
    if !may_send_error(original) {
        return Err(EmitError::NotAllowed);
    }
    let (header, _) = ipv4::Header::split(original).map_err(|_| EmitError::NotAllowed)?;
    let quoted = usize::from(header.total_length()).min(MAX_ERROR_BYTES - ipv4::HEADER_BYTES - HEADER_BYTES);
    let quoted = original.get(..quoted).ok_or(EmitError::NotAllowed)?;
    let message = message_of(error, quoted);
    let ip = ipv4::Repr {
        tos: Dscp::CS6.tos(Ecn::NotEct),
        ttl,
        identification,
        payload_bytes: u16::try_from(message.message_bytes()).map_err(|_| EmitError::TooLong)?,
        ..ipv4::Repr::new(source, header.source(), IpProtocol::ICMP)
    };
    let header_bytes = ip.emit(buffer)?;
    let body = buffer.get_mut(header_bytes..).ok_or(EmitError::NoSpace)?;
    Ok(header_bytes + message.emit(body)?)
}

const fn message_of(error: Error, original: &[u8]) -> Repr<'_> {
    match error {
        Error::DestinationUnreachable { code } => {
            Repr::DestinationUnreachable { code, next_hop_mtu: 0, original }
        }
        Error::FragmentationNeeded { next_hop_mtu } => {
            Repr::DestinationUnreachable { code: unreachable::FRAGMENTATION_NEEDED, next_hop_mtu, original }
        }
        Error::TimeExceeded => Repr::TimeExceeded { code: 0, original },
        Error::ParameterProblem { pointer } => Repr::ParameterProblem { pointer, original },
    }
}

/// Turns the echo request that the IP packet `packet` is into its reply, in place: addresses swapped, type changed, DF
/// cleared, `ttl` and `identification` set, both checksums updated (RFC 792, RFC 1812 §4.3.3.6).
///
/// # Errors
/// The packet is unchanged after any: those of [`ipv4::Packet::parse`]; [`ParseError::BadChecksum`] in either checksum;
/// [`ParseError::BadValue`] for anything but a whole echo request; [`ParseError::BadOption`] when it has IP options;
/// [`ParseError::BadAddress`] when an address is not one host's.
pub fn reply_to_echo(packet: &mut [u8], ttl: u8, identification: u16) -> Result<(), ParseError> {
    check_echo(packet)?;
    let (ip, message) = ipv4::Header::split_mut(packet)?;
    let (icmp, _) = split_mut::<Header>(message)?;
    let (source, destination) = (ip.source(), ip.destination());
    ip.rewrite_addresses(destination, source);
    ip.rewrite_ttl(ttl);
    ip.rewrite_identification(identification);
    ip.rewrite_dont_fragment(false);
    let word = |kind: Type| u16::from_be_bytes([kind.0, 0]);
    icmp.checksum.set(checksum::update_u16(icmp.checksum.get(), word(Type::ECHO), word(Type::ECHO_REPLY)));
    icmp.kind = Type::ECHO_REPLY.0;
    if icmp.checksum.get() == 0 {
        // Where nothing but zeros is left the checksum is 0xffff, which the update cannot tell from 0 (RFC 1624 §3).
        let total_bytes = usize::from(ip.total_length());
        let message = packet.get_mut(ipv4::HEADER_BYTES..total_bytes).ok_or(ParseError::Truncated)?;
        let checksum = checksum::checksum(message);
        split_mut::<Header>(message)?.0.checksum.set(checksum);
    }
    Ok(())
}

fn check_echo(packet: &[u8]) -> Result<(), ParseError> {
    let packet = ipv4::Packet::parse(packet)?;
    let header = packet.header;
    if !packet.options.is_empty() {
        return Err(ParseError::BadOption);
    }
    if !packet.checksum_is_valid() || !checksum::is_valid(packet.payload) {
        return Err(ParseError::BadChecksum);
    }
    let (icmp, _) = Header::split(packet.payload)?;
    if header.is_fragment()
        || header.protocol() != IpProtocol::ICMP
        || icmp.kind() != Type::ECHO
        || icmp.code != 0
    {
        return Err(ParseError::BadValue);
    }
    if !is_ipv4_host(header.source()) || !is_ipv4_host(header.destination()) {
        return Err(ParseError::BadAddress);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, dirty, hex, refuses_every_truncation};
    use proptest::prelude::*;
    use std::vec::Vec;

    // All made with Scapy.
    const ECHO: &str =
        "45000027 00034000 11017d97 c0000201 c6336407 080002fa 12340007 70696e67 20646174 612121";
    const FRAGMENTATION_NEEDED: &str = "45c00044 55aa0000 4001264c cb007101 c0000201 0304e3e5 00000578
        45000028 004d4000 01118d3c c0000201 c6336407 00010002 00146ade 71717171 71717171 71717171";
    const TIME_EXCEEDED: &str = "45c00044 55aa0000 4001264c cb007101 c0000201 0b00e161 00000000
        45000028 004d4000 01118d3c c0000201 c6336407 00010002 00146ade 71717171 71717171 71717171";
    const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn original() -> Vec<u8> {
        hex(TIME_EXCEEDED)[28..].to_vec()
    }

    fn change(packet: &[u8], change: impl FnOnce(&mut ipv4::Repr)) -> Vec<u8> {
        let mut repr = ipv4::Repr::parse(&ipv4::Packet::parse(packet).unwrap()).unwrap();
        change(&mut repr);
        let mut packet = packet.to_vec();
        repr.emit(&mut packet).unwrap();
        packet
    }

    #[test]
    fn known_messages_read_as_what_they_are() {
        let echo = hex(ECHO);
        let repr = Repr::Echo { identifier: 0x1234, sequence_number: 7, data: b"ping data!!" };
        assert_eq!(Repr::parse(&echo[20..]), Ok(repr));
        let (message, original) = (hex(FRAGMENTATION_NEEDED), original());
        assert_eq!(
            Repr::parse(&message[20..]),
            Ok(Repr::DestinationUnreachable { code: 4, next_hop_mtu: 1400, original: &original })
        );
        let message = hex(TIME_EXCEEDED);
        assert_eq!(Repr::parse(&message[20..]), Ok(Repr::TimeExceeded { code: 0, original: &original }));
    }

    #[test]
    fn a_message_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let bytes = &hex(ECHO)[20..];
        let repr = Repr::parse(bytes).unwrap();
        let mut buffer = DIRTY;
        assert_eq!(repr.emit(&mut buffer), Ok(bytes.len()));
        assert_eq!(buffer[..bytes.len()], *bytes);
        assert!(buffer[bytes.len()..].iter().all(|byte| *byte == 0xa5));
        for length in 0..bytes.len() {
            assert_eq!(repr.emit(&mut dirty()[..length]), Err(EmitError::NoSpace));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(ECHO)[20..], Repr::parse);
        let packet = hex(ECHO);
        for length in 0..packet.len() {
            let mut cut = packet[..length].to_vec();
            assert!(reply_to_echo(&mut cut, 64, 0).is_err());
            assert_eq!(cut, packet[..length]);
        }
    }

    #[test]
    fn other_types_and_bad_checksums_are_refused() {
        let mut message = hex(ECHO)[20..].to_vec();
        message[8] ^= 1;
        assert_eq!(Repr::parse(&message), Err(ParseError::BadChecksum));
        // Timestamp, with the checksum of the echo made its own.
        let mut message = hex(ECHO)[20..].to_vec();
        message[0] = 13;
        let sum = checksum::update_u16(0x02fa, 0x0800, 0x0d00);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Repr::parse(&message), Err(ParseError::BadValue));
    }

    #[test]
    fn errors_are_what_scapy_writes() {
        for (error, expected) in [
            (Error::FragmentationNeeded { next_hop_mtu: 1400 }, FRAGMENTATION_NEEDED),
            (Error::TimeExceeded, TIME_EXCEEDED),
        ] {
            let mut padded = original();
            padded.resize(46, 0);
            let mut buffer = DIRTY;
            let length = emit_error(&padded, error, ROUTER, 64, 0x55aa, &mut buffer).unwrap();
            assert_eq!(buffer[..length], hex(expected));
            assert!(buffer[length..].iter().all(|byte| *byte == 0xa5));
            for short in 0..length {
                let emitted = emit_error(&padded, error, ROUTER, 64, 0x55aa, &mut dirty()[..short]);
                assert_eq!(emitted, Err(EmitError::NoSpace));
            }
        }
    }

    #[test]
    fn an_error_quotes_no_more_than_576_bytes_allow() {
        let mut original = original();
        original.resize(1500, 0x71);
        let original = change(&original, |_| {});
        let original = {
            let mut original = original;
            ipv4::Header::split_mut(&mut original).unwrap().0.rewrite_total_length(1500);
            original
        };
        let mut buffer = DIRTY;
        let error = Error::DestinationUnreachable { code: unreachable::HOST };
        let length = emit_error(&original, error, ROUTER, 64, 1, &mut buffer).unwrap();
        assert_eq!(length, MAX_ERROR_BYTES);
        let packet = ipv4::Packet::parse(&buffer[..length]).unwrap();
        assert!(packet.checksum_is_valid());
        assert_eq!(
            Repr::parse(packet.payload),
            Ok(Repr::DestinationUnreachable { code: 1, next_hop_mtu: 0, original: &original[..548] })
        );
    }

    #[test]
    fn no_error_is_sent_about_what_rfc_1812_exempts() {
        let original = original();
        assert!(may_send_error(&original));
        let refused = |packet: &[u8]| {
            assert!(!may_send_error(packet));
            let emitted = emit_error(packet, Error::TimeExceeded, ROUTER, 64, 0, &mut dirty());
            assert_eq!(emitted, Err(EmitError::NotAllowed));
        };
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 5], [240, 0, 0, 1], [255; 4]] {
            refused(&change(&original, |repr| repr.source = address.into()));
            refused(&change(&original, |repr| repr.destination = address.into()));
        }
        refused(&change(&original, |repr| repr.fragment_offset = 1));
        assert!(may_send_error(&change(&original, |repr| repr.more_fragments = true)));
        refused(&original[..39]);
        refused(&[]);
    }

    #[test]
    fn no_error_is_sent_about_an_error_or_an_unknown_type() {
        let mut packet = hex(ECHO);
        for kind in 0..=255_u8 {
            packet[20] = kind;
            let is_query = matches!(kind, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43);
            assert_eq!(may_send_error(&packet), is_query, "type {kind}");
        }
        assert!(!may_send_error(&hex(TIME_EXCEEDED)));
        // Without even a type it may be anything.
        let empty = change(&hex(ECHO), |repr| repr.payload_bytes = 0);
        assert!(!may_send_error(&empty[..20]));
    }

    #[test]
    fn an_echo_request_becomes_its_reply() {
        let mut packet = hex(ECHO);
        let (request, expected) = (
            ipv4::Repr::parse(&ipv4::Packet::parse(&packet).unwrap()).unwrap(),
            Repr::EchoReply { identifier: 0x1234, sequence_number: 7, data: b"ping data!!" },
        );
        assert_eq!(reply_to_echo(&mut packet, 64, 0x7777), Ok(()));
        let reply = ipv4::Packet::parse(&packet).unwrap();
        assert_eq!(
            ipv4::Repr::parse(&reply),
            Ok(ipv4::Repr {
                source: request.destination,
                destination: request.source,
                ttl: 64,
                identification: 0x7777,
                dont_fragment: false,
                ..request
            })
        );
        assert_eq!(Repr::parse(reply.payload), Ok(expected));
    }

    #[test]
    fn a_reply_of_nothing_but_zeros_has_the_checksum_ffff() {
        for data in [&[][..], &[0; 5], &[0; 56]] {
            let message = Repr::Echo { identifier: 0, sequence_number: 0, data };
            let payload_bytes = u16::try_from(message.message_bytes()).unwrap();
            let ip = ipv4::Repr {
                payload_bytes,
                ..ipv4::Repr::new(Ipv4Addr::new(192, 0, 2, 9), ROUTER, IpProtocol::ICMP)
            };
            let mut packet = dirty();
            let end = ip.emit(&mut packet).unwrap();
            message.emit(&mut packet[end..]).unwrap();
            reply_to_echo(&mut packet, 64, 7).unwrap();
            let reply = ipv4::Packet::parse(&packet).unwrap();
            let expected = Repr::EchoReply { identifier: 0, sequence_number: 0, data };
            assert_eq!(Repr::parse(reply.payload), Ok(expected));
            assert_eq!(reply.payload[2..4], [0xff, 0xff]);
        }
    }

    #[test]
    fn only_a_whole_and_intact_echo_request_is_answered() {
        let echo = hex(ECHO);
        let refused = |mut packet: Vec<u8>, error| {
            let before = packet.clone();
            assert_eq!(reply_to_echo(&mut packet, 64, 0), Err(error));
            assert_eq!(packet, before);
        };
        refused(change(&echo, |repr| repr.more_fragments = true), ParseError::BadValue);
        refused(change(&echo, |repr| repr.fragment_offset = 1), ParseError::BadValue);
        refused(change(&echo, |repr| repr.protocol = IpProtocol::UDP), ParseError::BadValue);
        refused(change(&echo, |repr| repr.source = Ipv4Addr::UNSPECIFIED), ParseError::BadAddress);
        refused(change(&echo, |repr| repr.destination = Ipv4Addr::BROADCAST), ParseError::BadAddress);
        refused(hex(TIME_EXCEEDED), ParseError::BadValue);
        for at in [8, 30] {
            let mut damaged = echo.clone();
            damaged[at] ^= 1;
            refused(damaged, ParseError::BadChecksum);
        }
        let mut reply = echo.clone();
        reply_to_echo(&mut reply, 64, 0).unwrap();
        refused(reply, ParseError::BadValue);
        // Options: three words in front of the message, the header's sum made right.
        let mut with_options = echo[..20].to_vec();
        with_options.extend_from_slice(&hex("94040000"));
        with_options.extend_from_slice(&echo[20..]);
        with_options[0] = 0x46;
        let (header, _) = ipv4::Header::split_mut(&mut with_options).unwrap();
        header.rewrite_total_length(43);
        refused(with_options, ParseError::BadOption);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            kind in 0..5, code: u8, a: u16, b: u16, data in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let data = data.as_slice();
            let repr = match kind {
                0 => Repr::Echo { identifier: a, sequence_number: b, data },
                1 => Repr::EchoReply { identifier: a, sequence_number: b, data },
                2 => Repr::DestinationUnreachable {
                    code,
                    next_hop_mtu: if code == unreachable::FRAGMENTATION_NEEDED { a } else { 0 },
                    original: data,
                },
                3 => Repr::TimeExceeded { code, original: data },
                _ => Repr::ParameterProblem { pointer: code, original: data },
            };
            let mut buffer = DIRTY;
            let length = repr.emit(&mut buffer).unwrap();
            prop_assert_eq!(length, repr.message_bytes());
            prop_assert_eq!(Repr::parse(&buffer[..length]), Ok(repr));
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(first) = bytes.first_mut() {
                *first = 0x40 | *first & 7;
            }
            let mut buffer = DIRTY;
            let emitted = emit_error(&bytes, Error::TimeExceeded, ROUTER, 64, 0, &mut buffer);
            prop_assert_eq!(emitted.is_ok(), may_send_error(&bytes));
            let _ = reply_to_echo(&mut bytes, 64, 0);
        }
    }
}
