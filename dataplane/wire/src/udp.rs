// SPDX-License-Identifier: Apache-2.0
//! UDP (RFC 768; RFC 8200 §8.1 on the checksum over IPv6).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          Source Port          |       Destination Port        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |            Length             |           Checksum            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use core::net::IpAddr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Sum;
use crate::view::{put, split};
use crate::{EmitError, Family, IpProtocol, ParseError};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 8;

/// The header, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    length: U16,
    checksum: U16,
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

    /// The source port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// The destination port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Header and payload, in bytes.
    #[inline]
    pub const fn length(&self) -> u16 {
        self.length.get()
    }

    /// The checksum as it stands; 0 means none.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }
}

/// A datagram whose lengths have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The header.
    pub header: &'a Header,
    /// The payload, cut to the length.
    pub payload: &'a [u8],
    datagram: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the datagram at the front of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadLength`] for a length below that of the header.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (header, _) = Header::split(bytes)?;
        let length = usize::from(header.length());
        if length < HEADER_BYTES {
            return Err(ParseError::BadLength);
        }
        let datagram = bytes.get(..length).ok_or(ParseError::Truncated)?;
        let payload = datagram.get(HEADER_BYTES..).ok_or(ParseError::Truncated)?;
        Ok(Packet { header, payload, datagram })
    }

    /// Whether the checksum is right for a datagram between these addresses; IPv4 allows none, IPv6 does not.
    pub fn checksum_is_valid(&self, source: IpAddr, destination: IpAddr) -> bool {
        if self.header.checksum() == 0 {
            return Family::of(source) == Family::Ipv4;
        }
        let length = u32::from(self.header.length());
        Sum::pseudo_header(source, destination, IpProtocol::UDP, length).add_bytes(self.datagram).is_valid()
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
}

impl Repr {
    /// Reads the header of `packet`; for its checksum see [`Packet::checksum_is_valid`].
    pub const fn parse(packet: &Packet<'_>) -> Repr {
        Repr { source_port: packet.header.source_port(), destination_port: packet.header.destination_port() }
    }

    /// Writes the header to the front of `datagram`, behind which the payload already stands to the end, with the
    /// checksum for these addresses; returns its length, [`HEADER_BYTES`].
    ///
    /// # Errors
    /// [`EmitError::NoSpace`]; [`EmitError::TooLong`] for more than 65,535 bytes.
    pub fn emit(&self, datagram: &mut [u8], source: IpAddr, destination: IpAddr) -> Result<usize, EmitError> {
        let length = u16::try_from(datagram.len()).map_err(|_| EmitError::TooLong)?;
        let mut header = self.header(length);
        put(&header, datagram)?;
        let sum = Sum::pseudo_header(source, destination, IpProtocol::UDP, u32::from(length));
        // 0 says "no checksum", so a sum of 0 is sent as its other form (RFC 768).
        header.checksum.set(match sum.add_bytes(datagram).finish() {
            0 => 0xffff,
            checksum => checksum,
        });
        put(&header, datagram)
    }

    /// The header without a checksum as bytes on the wire, for templates; `length` counts header and payload.
    #[inline]
    pub fn header(&self, length: u16) -> Header {
        Header {
            source_port: U16::new(self.source_port),
            destination_port: U16::new(self.destination_port),
            length: U16::new(length),
            checksum: U16::ZERO,
        }
    }
}
