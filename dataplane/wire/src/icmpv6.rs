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
        /// Why: see [`unreachable`].
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
    /// Destination Unreachable with a code of [`unreachable`].
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
