// SPDX-License-Identifier: Apache-2.0
//! ICMP for IPv6 (RFC 4443); neighbor discovery is in [`crate::ndp`].
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  by type: identifier and sequence number, MTU, pointer, or zero           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  echo: data; errors: as much of the invoking packet as fits               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Types below 128 are errors. Left out: the limit on the rate of errors (§2.4 f), which has a clock.

use core::net::Ipv6Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::address::{is_ipv4_mapped, is_ipv6_host};
use crate::checksum::{self, Sum};
use crate::view::{put, put_bytes, split, split_mut};
use crate::{EmitError, IpProtocol, ParseError, ipv6};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 8;
/// The longest error message, IP header included, in bytes: the minimum IPv6 MTU (RFC 4443 §2.4 c).
pub const MAX_ERROR_BYTES: usize = 1280;

/// The ICMPv6 message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type(pub u8);

impl Type {
    /// Destination Unreachable.
    pub const DESTINATION_UNREACHABLE: Type = Type(1);
    /// Packet Too Big.
    pub const PACKET_TOO_BIG: Type = Type(2);
    /// Time Exceeded.
    pub const TIME_EXCEEDED: Type = Type(3);
    /// Parameter Problem.
    pub const PARAMETER_PROBLEM: Type = Type(4);
    /// Echo Request.
    pub const ECHO_REQUEST: Type = Type(128);
    /// Echo Reply.
    pub const ECHO_REPLY: Type = Type(129);
    /// Router Solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: Type = Type(133);
    /// Router Advertisement (RFC 4861).
    pub const ROUTER_ADVERTISEMENT: Type = Type(134);
    /// Neighbor Solicitation (RFC 4861).
    pub const NEIGHBOR_SOLICITATION: Type = Type(135);
    /// Neighbor Advertisement (RFC 4861).
    pub const NEIGHBOR_ADVERTISEMENT: Type = Type(136);
    /// Redirect (RFC 4861).
    pub const REDIRECT: Type = Type(137);

    /// Whether it is an error, by its number.
    pub const fn is_error(self) -> bool {
        self.0 < 128
    }

    /// Whether no error may be sent about it: errors and redirects (RFC 4443 §2.4 e.1, e.2).
    pub const fn is_unanswerable(self) -> bool {
        self.is_error() || self.0 == Type::REDIRECT.0
    }
}

/// Codes of Destination Unreachable (RFC 4443 §3.1).
pub mod unreachable {
    /// No route to the destination.
    pub const NO_ROUTE: u8 = 0;
    /// Communication administratively prohibited.
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 1;
    /// Beyond the scope of the source address.
    pub const BEYOND_SCOPE: u8 = 2;
    /// The address does not answer.
    pub const ADDRESS: u8 = 3;
    /// Nobody listens on the port.
    pub const PORT: u8 = 4;
}

/// Codes of Parameter Problem (RFC 4443 §3.4).
pub mod problem {
    /// A header field is wrong.
    pub const HEADER_FIELD: u8 = 0;
    /// The next header is not known.
    pub const NEXT_HEADER: u8 = 1;
    /// An option is not known.
    pub const OPTION: u8 = 2;
}

/// The header, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) checksum: U16,
    pub(crate) rest: [u8; 4],
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

/// Whether the checksum of `message` is right between these addresses.
pub fn checksum_is_valid(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> bool {
    sum(message, source, destination).is_some_and(Sum::is_valid)
}

/// The sum over pseudo-header and message; `None` beyond 32 bits of length.
pub(crate) fn sum(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Option<Sum> {
    let length = u32::try_from(message.len()).ok()?;
    let pseudo = Sum::pseudo_header(source.into(), destination.into(), IpProtocol::ICMPV6, length);
    Some(pseudo.add_bytes(message))
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr<'a> {
    /// Are you there?
    EchoRequest {
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
        /// The front of the packet.
        original: &'a [u8],
    },
    /// The packet does not fit the next link.
    PacketTooBig {
        /// What fits.
        mtu: u32,
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
    /// Something in the packet's headers is wrong or not known.
    ParameterProblem {
        /// Which of them: see [`problem`].
        code: u8,
        /// The offset of what is wrong, in bytes.
        pointer: u32,
        /// The front of the packet.
        original: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// Reads the message that `message` is, to its end, and checks its checksum.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadChecksum`]; [`ParseError::BadValue`] for any other type.
    pub fn parse(message: &'a [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<Repr<'a>, ParseError> {
        let (header, data) = Header::split(message)?;
        if !checksum_is_valid(message, source, destination) {
            return Err(ParseError::BadChecksum);
        }
        let [a, b, c, d] = header.rest;
        let (identifier, sequence_number) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (code, word) = (header.code, u32::from_be_bytes(header.rest));
        match header.kind() {
            Type::ECHO_REQUEST => Ok(Repr::EchoRequest { identifier, sequence_number, data }),
            Type::ECHO_REPLY => Ok(Repr::EchoReply { identifier, sequence_number, data }),
            Type::DESTINATION_UNREACHABLE => Ok(Repr::DestinationUnreachable { code, original: data }),
            Type::PACKET_TOO_BIG => Ok(Repr::PacketTooBig { mtu: word, original: data }),
            Type::TIME_EXCEEDED => Ok(Repr::TimeExceeded { code, original: data }),
            Type::PARAMETER_PROBLEM => Ok(Repr::ParameterProblem { code, pointer: word, original: data }),
            _ => Err(ParseError::BadValue),
        }
    }

    /// Length of the message in bytes.
    pub const fn message_bytes(&self) -> usize {
        HEADER_BYTES + self.data().len()
    }

    const fn data(&self) -> &'a [u8] {
        match self {
            Repr::EchoRequest { data, .. } | Repr::EchoReply { data, .. } => data,
            Repr::DestinationUnreachable { original, .. }
            | Repr::PacketTooBig { original, .. }
            | Repr::TimeExceeded { original, .. }
            | Repr::ParameterProblem { original, .. } => original,
        }
    }

    const fn header(&self) -> Header {
        let (kind, code, rest) = match *self {
            Repr::EchoRequest { identifier, sequence_number, .. } => {
                (Type::ECHO_REQUEST, 0, pair(identifier, sequence_number))
            }
            Repr::EchoReply { identifier, sequence_number, .. } => {
                (Type::ECHO_REPLY, 0, pair(identifier, sequence_number))
            }
            Repr::DestinationUnreachable { code, .. } => (Type::DESTINATION_UNREACHABLE, code, [0; 4]),
            Repr::PacketTooBig { mtu, .. } => (Type::PACKET_TOO_BIG, 0, mtu.to_be_bytes()),
            Repr::TimeExceeded { code, .. } => (Type::TIME_EXCEEDED, code, [0; 4]),
            Repr::ParameterProblem { code, pointer, .. } => {
                (Type::PARAMETER_PROBLEM, code, pointer.to_be_bytes())
            }
        };
        Header { kind: kind.0, code, checksum: U16::ZERO, rest }
    }

    /// Writes the message with its checksum for these addresses to the front of `buffer`; returns its length.
    ///
    /// # Errors
    /// [`EmitError::NoSpace`]; [`EmitError::TooLong`].
    pub fn emit(
        &self,
        buffer: &mut [u8],
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<usize, EmitError> {
        let header = self.header();
        let end = put(&header, buffer)?;
        let end = put_bytes(buffer, end, self.data())?;
        let message = buffer.get_mut(..end).ok_or(EmitError::NoSpace)?;
        fill_checksum(message, source, destination)?;
        Ok(end)
    }
}

/// Writes the checksum of `message` between these addresses into its header.
pub(crate) fn fill_checksum(
    message: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<(), EmitError> {
    split_mut::<Header>(message).map_err(|_| EmitError::NoSpace)?.0.checksum.set(0);
    let checksum = sum(message, source, destination).ok_or(EmitError::TooLong)?.finish();
    split_mut::<Header>(message).map_err(|_| EmitError::NoSpace)?.0.checksum.set(checksum);
    Ok(())
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
    /// The packet does not fit.
    PacketTooBig {
        /// What fits.
        mtu: u32,
    },
    /// No hops left.
    TimeExceeded,
    /// Something in its headers is wrong or not known.
    ParameterProblem {
        /// Which of them: see [`problem`].
        code: u8,
        /// The offset of what is wrong, in bytes.
        pointer: u32,
    },
}

impl Error {
    /// Whether it may be sent about a packet to a multicast address (RFC 4443 §2.4 e.3, its two exceptions).
    const fn may_answer_multicast(self) -> bool {
        matches!(self, Error::PacketTooBig { .. } | Error::ParameterProblem { code: problem::OPTION, .. })
    }
}

/// Whether `error` may be sent about the packet `original` (RFC 4443 §2.4 e).
///
/// Not about errors and redirects, nor a packet whose source does not name one node, nor one to a multicast address but
/// for Packet Too Big and unknown options. A later fragment hides what it is part of, so of it only Packet Too Big may
/// speak. What only the caller can know: the same exceptions hold for link-layer multicast and broadcast.
pub fn may_send_error(original: &[u8], error: Error) -> bool {
    let Ok(packet) = ipv6::Packet::parse(original) else { return false };
    let (source, destination) = (packet.header.source(), packet.header.destination());
    if !is_ipv6_host(source) || destination.is_unspecified() || is_ipv4_mapped(&destination) {
        return false;
    }
    if destination.is_multicast() && !error.may_answer_multicast() {
        return false;
    }
    // A chain that cannot be walked to its end may hide an error.
    let Ok(upper) = ipv6::extension::walk(&packet, true) else { return false };
    if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return matches!(error, Error::PacketTooBig { .. });
    }
    if upper.protocol != IpProtocol::ICMPV6 {
        return true;
    }
    let kind = original.get(usize::from(upper.offset)..).and_then(|message| message.first());
    kind.is_some_and(|kind| !Type(*kind).is_unanswerable())
}

/// Writes the IP packet that tells the sender of `original` of `error` to the front of `buffer`; returns its length, at
/// most [`MAX_ERROR_BYTES`].
///
/// `source` is the router's own address. What follows the payload length of `original` is left out.
///
/// # Errors
/// [`EmitError::NotAllowed`] unless [`may_send_error`]; [`EmitError::NoSpace`].
pub fn emit_error(
    original: &[u8],
    error: Error,
    source: Ipv6Addr,
    hop_limit: u8,
    buffer: &mut [u8],
) -> Result<usize, EmitError> {
    if !may_send_error(original, error) {
        return Err(EmitError::NotAllowed);
    }
    let (header, _) = ipv6::Header::split(original).map_err(|_| EmitError::NotAllowed)?;
    let whole = ipv6::HEADER_BYTES + usize::from(header.payload_length());
    let quoted = whole.min(MAX_ERROR_BYTES - ipv6::HEADER_BYTES - HEADER_BYTES);
    let quoted = original.get(..quoted).ok_or(EmitError::NotAllowed)?;
    let message = message_of(error, quoted);
    let destination = header.source();
    let ip = ipv6::Repr {
        hop_limit,
        payload_bytes: u16::try_from(message.message_bytes()).map_err(|_| EmitError::TooLong)?,
        ..ipv6::Repr::new(source, destination, IpProtocol::ICMPV6)
    };
    let header_bytes = ip.emit(buffer)?;
    let body = buffer.get_mut(header_bytes..).ok_or(EmitError::NoSpace)?;
    Ok(header_bytes + message.emit(body, source, destination)?)
}

const fn message_of(error: Error, original: &[u8]) -> Repr<'_> {
    match error {
        Error::DestinationUnreachable { code } => Repr::DestinationUnreachable { code, original },
        Error::PacketTooBig { mtu } => Repr::PacketTooBig { mtu, original },
        Error::TimeExceeded => Repr::TimeExceeded { code: 0, original },
        Error::ParameterProblem { code, pointer } => Repr::ParameterProblem { code, pointer, original },
    }
}

/// Turns the echo request that the IP packet `packet` is into its reply, in place: addresses swapped, type changed,
/// `hop_limit` set, checksum updated (RFC 4443 §4.2).
///
/// # Errors
/// The packet is unchanged after any: those of [`ipv6::Packet::parse`]; [`ParseError::BadChecksum`];
/// [`ParseError::BadValue`] for anything but an echo request without extension headers; [`ParseError::BadAddress`] when
/// an address is not one node's.
pub fn reply_to_echo(packet: &mut [u8], hop_limit: u8) -> Result<(), ParseError> {
    check_echo(packet)?;
    let (ip, message) = ipv6::Header::split_mut(packet)?;
    let (icmp, _) = split_mut::<Header>(message)?;
    // Both addresses are in the pseudo-header, whose sum does not change when they are swapped.
    ip.set_addresses(ip.destination(), ip.source());
    ip.set_hop_limit(hop_limit);
    let word = |kind: Type| u16::from_be_bytes([kind.0, 0]);
    icmp.checksum.set(checksum::update_u16(
        icmp.checksum.get(),
        word(Type::ECHO_REQUEST),
        word(Type::ECHO_REPLY),
    ));
    icmp.kind = Type::ECHO_REPLY.0;
    Ok(())
}

fn check_echo(packet: &[u8]) -> Result<(), ParseError> {
    let packet = ipv6::Packet::parse(packet)?;
    let (source, destination) = (packet.header.source(), packet.header.destination());
    let (icmp, _) = Header::split(packet.payload)?;
    if packet.header.next_header() != IpProtocol::ICMPV6
        || icmp.kind() != Type::ECHO_REQUEST
        || icmp.code != 0
    {
        return Err(ParseError::BadValue);
    }
    if !is_ipv6_host(source) || !is_ipv6_host(destination) {
        return Err(ParseError::BadAddress);
    }
    if !checksum_is_valid(packet.payload, source, destination) {
        return Err(ParseError::BadChecksum);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, dirty, hex};
    use proptest::prelude::*;
    use std::vec::Vec;

    // All made with Scapy.
    const ECHO: &str =
        "60000000 00133a11 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        80002f31 12340007 70696e67 20646174 612121";
    const TOO_BIG: &str =
        "60000000 00443a40 20010db8 00ff0000 00000000 00000001 20010db8 00000000 00000000 00000001
        02002aa6 00000578 60000000 00141101 20010db8 00000000 00000000 00000001
        20010db8 00010000 00000000 00000007 00010002 0014fb9f 71717171 71717171 71717171";
    const TIME_EXCEEDED: &str =
        "60000000 00443a40 20010db8 00ff0000 00000000 00000001 20010db8 00000000 00000000 00000001
        03002f1e 00000000 60000000 00141101 20010db8 00000000 00000000 00000001
        20010db8 00010000 00000000 00000007 00010002 0014fb9f 71717171 71717171 71717171";
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
    const ALL: [Error; 4] = [
        Error::PacketTooBig { mtu: 1400 },
        Error::TimeExceeded,
        Error::DestinationUnreachable { code: unreachable::NO_ROUTE },
        Error::ParameterProblem { code: problem::OPTION, pointer: 48 },
    ];

    fn original() -> Vec<u8> {
        hex(TIME_EXCEEDED)[48..].to_vec()
    }

    fn addresses(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
        let (header, _) = ipv6::Header::split(packet).unwrap();
        (header.source(), header.destination())
    }

    fn read(packet: &[u8]) -> Result<Repr<'_>, ParseError> {
        let (source, destination) = addresses(packet);
        Repr::parse(&packet[40..], source, destination)
    }

    fn with_addresses(packet: &[u8], source: &str, destination: &str) -> Vec<u8> {
        let mut packet = packet.to_vec();
        let (header, _) = ipv6::Header::split_mut(&mut packet).unwrap();
        header.set_addresses(source.parse().unwrap(), destination.parse().unwrap());
        packet
    }

    /// `packet` with the extension header `header` of type `kind` put behind its IPv6 header.
    fn behind(packet: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
        let mut bytes = packet[..40].to_vec();
        bytes.extend_from_slice(header);
        bytes[40] = packet[6];
        bytes[6] = kind;
        bytes.extend_from_slice(&packet[40..]);
        let payload = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&payload.to_be_bytes());
        bytes
    }

    #[test]
    fn known_messages_read_as_what_they_are() {
        let echo = Repr::EchoRequest { identifier: 0x1234, sequence_number: 7, data: b"ping data!!" };
        assert_eq!(read(&hex(ECHO)), Ok(echo));
        let original = original();
        assert_eq!(read(&hex(TOO_BIG)), Ok(Repr::PacketTooBig { mtu: 1400, original: &original }));
        assert_eq!(read(&hex(TIME_EXCEEDED)), Ok(Repr::TimeExceeded { code: 0, original: &original }));
    }

    #[test]
    fn a_message_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let packet = hex(ECHO);
        let (source, destination) = addresses(&packet);
        let repr = read(&packet).unwrap();
        let mut buffer = DIRTY;
        assert_eq!(repr.emit(&mut buffer, source, destination), Ok(19));
        assert_eq!(buffer[..19], packet[40..]);
        assert!(buffer[19..].iter().all(|byte| *byte == 0xa5));
        for length in 0..19 {
            let emitted = repr.emit(&mut dirty()[..length], source, destination);
            assert_eq!(emitted, Err(EmitError::NoSpace));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let packet = hex(ECHO);
        for length in 40..packet.len() {
            assert!(read(&packet[..length]).is_err());
        }
        for length in 0..packet.len() {
            let mut cut = packet[..length].to_vec();
            assert!(reply_to_echo(&mut cut, 64).is_err());
            assert_eq!(cut, packet[..length]);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_so_are_other_addresses() {
        let packet = hex(ECHO);
        for bit in 0..19 * 8 {
            let mut flipped = packet.clone();
            flipped[40 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), Err(ParseError::BadChecksum), "bit {bit}");
        }
        let moved = with_addresses(&packet, "2001:db8::1", "2001:db8:1::8");
        assert_eq!(read(&moved), Err(ParseError::BadChecksum));
    }

    #[test]
    fn errors_are_what_scapy_writes() {
        for (error, expected) in [(ALL[0], TOO_BIG), (ALL[1], TIME_EXCEEDED)] {
            let mut padded = original();
            padded.push(0);
            let mut buffer = DIRTY;
            let length = emit_error(&padded, error, ROUTER, 64, &mut buffer).unwrap();
            assert_eq!(buffer[..length], hex(expected));
            assert!(buffer[length..].iter().all(|byte| *byte == 0xa5));
            for short in 0..length {
                let emitted = emit_error(&padded, error, ROUTER, 64, &mut dirty()[..short]);
                assert_eq!(emitted, Err(EmitError::NoSpace));
            }
        }
    }

    #[test]
    fn an_error_quotes_no_more_than_1280_bytes_allow() {
        let mut original = original();
        original.resize(1500, 0x71);
        ipv6::Header::split_mut(&mut original).unwrap().0.set_payload_length(1460);
        let mut buffer = DIRTY;
        let length = emit_error(&original, ALL[0], ROUTER, 64, &mut buffer).unwrap();
        assert_eq!(length, MAX_ERROR_BYTES);
        assert_eq!(
            read(&buffer[..length]),
            Ok(Repr::PacketTooBig { mtu: 1400, original: &original[..1232] })
        );
    }

    #[test]
    fn no_error_is_sent_to_a_source_that_is_not_one_node() {
        let original = original();
        for error in ALL {
            assert!(may_send_error(&original, error));
            for source in ["::", "::1", "ff02::1", "::ffff:192.0.2.1"] {
                let packet = with_addresses(&original, source, "2001:db8:1::7");
                assert!(!may_send_error(&packet, error), "{source}");
                let emitted = emit_error(&packet, error, ROUTER, 64, &mut dirty());
                assert_eq!(emitted, Err(EmitError::NotAllowed));
            }
            assert!(!may_send_error(&with_addresses(&original, "2001:db8::1", "::"), error));
            assert!(!may_send_error(&original[..59], error));
            assert!(!may_send_error(&[], error));
        }
    }

    #[test]
    fn multicast_may_be_too_big_or_have_unknown_options_and_no_more() {
        let packet = with_addresses(&original(), "2001:db8::1", "ff0e::1");
        assert_eq!(ALL.map(|error| may_send_error(&packet, error)), [true, false, false, true]);
        let header_field = Error::ParameterProblem { code: problem::HEADER_FIELD, pointer: 0 };
        assert!(!may_send_error(&packet, header_field));
    }

    #[test]
    fn no_error_is_sent_about_errors_and_redirects_wherever_they_hide() {
        let mut packet = hex(ECHO);
        for kind in 0..=255_u8 {
            packet[40] = kind;
            let may = kind >= 128 && kind != 137;
            let authentication = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            for hidden in [packet.clone(), behind(&packet, 60, &[0; 8]), behind(&packet, 51, &authentication)]
            {
                assert_eq!(may_send_error(&hidden, Error::TimeExceeded), may, "type {kind}");
            }
        }
        packet.truncate(40);
        packet[5] = 0;
        assert!(!may_send_error(&packet, Error::TimeExceeded), "without a type it may be anything");
        packet[6] = 60;
        assert!(!may_send_error(&packet, Error::TimeExceeded), "and so it may without its next header");
    }

    #[test]
    fn of_a_later_fragment_only_its_size_is_told() {
        let later = behind(&original(), 44, &[0, 0, 0, 8, 0, 0, 0, 1]);
        assert_eq!(ALL.map(|error| may_send_error(&later, error)), [true, false, false, false]);
        let first = behind(&original(), 44, &[0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(ALL.map(|error| may_send_error(&first, error)), [true; 4]);
    }

    #[test]
    fn an_echo_request_becomes_its_reply() {
        let mut packet = hex(ECHO);
        let (source, destination) = addresses(&packet);
        assert_eq!(reply_to_echo(&mut packet, 64), Ok(()));
        assert_eq!(addresses(&packet), (destination, source));
        assert_eq!(ipv6::Header::split(&packet).unwrap().0.hop_limit(), 64);
        let reply = Repr::EchoReply { identifier: 0x1234, sequence_number: 7, data: b"ping data!!" };
        assert_eq!(read(&packet), Ok(reply));
    }

    #[test]
    fn only_an_intact_echo_request_is_answered() {
        let refused = |mut packet: Vec<u8>, error| {
            let before = packet.clone();
            assert_eq!(reply_to_echo(&mut packet, 64), Err(error));
            assert_eq!(packet, before);
        };
        let echo = hex(ECHO);
        refused(hex(TOO_BIG), ParseError::BadValue);
        refused(behind(&echo, 60, &[0; 8]), ParseError::BadValue);
        refused(with_addresses(&echo, "ff02::1", "2001:db8:1::7"), ParseError::BadAddress);
        refused(with_addresses(&echo, "2001:db8::1", "ff02::1"), ParseError::BadAddress);
        let mut damaged = echo.clone();
        damaged[58] ^= 1;
        refused(damaged, ParseError::BadChecksum);
        let mut code = echo.clone();
        code[41] = 1;
        refused(code, ParseError::BadValue);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            kind in 0..6, code: u8, a: u16, word: u32, source: Ipv6Addr, destination: Ipv6Addr,
            data in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let data = data.as_slice();
            let repr = match kind {
                0 => Repr::EchoRequest { identifier: a, sequence_number: !a, data },
                1 => Repr::EchoReply { identifier: a, sequence_number: !a, data },
                2 => Repr::DestinationUnreachable { code, original: data },
                3 => Repr::PacketTooBig { mtu: word, original: data },
                4 => Repr::TimeExceeded { code, original: data },
                _ => Repr::ParameterProblem { code, pointer: word, original: data },
            };
            let mut buffer = DIRTY;
            let length = repr.emit(&mut buffer, source, destination).unwrap();
            prop_assert_eq!(length, repr.message_bytes());
            prop_assert_eq!(Repr::parse(&buffer[..length], source, destination), Ok(repr));
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), kind in 0usize..4) {
            if bytes.len() >= 40 {
                let payload = u16::try_from(bytes.len() - 40).unwrap();
                bytes[4..6].copy_from_slice(&payload.to_be_bytes());
                bytes[0] = 0x60;
                bytes[6] = [0, 43, 44, 51, 58, 60][usize::from(bytes[6]) % 6];
            }
            let mut buffer = DIRTY;
            let emitted = emit_error(&bytes, ALL[kind], ROUTER, 64, &mut buffer);
            prop_assert_eq!(emitted.is_ok(), may_send_error(&bytes, ALL[kind]));
            let _ = reply_to_echo(&mut bytes, 64);
        }
    }
}
