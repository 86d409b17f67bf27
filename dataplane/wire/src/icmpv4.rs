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
        /// Why: see [`unreachable`].
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
    /// Destination Unreachable with a code of [`unreachable`].
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
