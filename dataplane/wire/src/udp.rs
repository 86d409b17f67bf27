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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use proptest::prelude::*;

    // Both made with Scapy, between the addresses below.
    const OVER_IPV4: &str = "0fa01388 000f333c 7061796c 6f6164";
    const OVER_IPV6: &str = "0fa01388 000fc3fd 7061796c 6f6164";

    fn ipv4() -> (IpAddr, IpAddr) {
        ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap())
    }

    fn ipv6() -> (IpAddr, IpAddr) {
        ("2001:db8::1".parse().unwrap(), "2001:db8:1::7".parse().unwrap())
    }

    const REPR: Repr = Repr { source_port: 4000, destination_port: 5000 };

    #[test]
    fn known_datagrams_read_as_what_they_are() {
        for (text, (source, destination)) in [(OVER_IPV4, ipv4()), (OVER_IPV6, ipv6())] {
            let mut bytes = hex(text);
            bytes.push(0);
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((Repr::parse(&packet), packet.payload), (REPR, b"payload".as_slice()));
            assert!(packet.checksum_is_valid(source, destination));
            bytes[10] ^= 1;
            assert!(!Packet::parse(&bytes).unwrap().checksum_is_valid(source, destination));
        }
    }

    #[test]
    fn no_checksum_is_valid_over_ipv4_only() {
        let mut bytes = hex(OVER_IPV4);
        bytes[6..8].fill(0);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.checksum_is_valid(ipv4().0, ipv4().1));
        assert!(!packet.checksum_is_valid(ipv6().0, ipv6().1));
    }

    #[test]
    fn a_header_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        for (text, (source, destination)) in [(OVER_IPV4, ipv4()), (OVER_IPV6, ipv6())] {
            let mut buffer = DIRTY;
            buffer[8..15].copy_from_slice(b"payload");
            assert_eq!(REPR.emit(&mut buffer[..15], source, destination), Ok(HEADER_BYTES));
            assert_eq!(buffer[..15], hex(text));
            assert!(buffer[15..].iter().all(|byte| *byte == 0xa5));
            assert_eq!(REPR.emit(&mut buffer[..7], source, destination), Err(EmitError::NoSpace));
        }
    }

    #[test]
    fn a_sum_of_zero_is_not_sent_as_no_checksum() {
        let (source, destination) = ipv4();
        let mut datagram = [0; 10];
        // The last word is chosen so that the checksum comes out as 0.
        REPR.emit(&mut datagram, source, destination).unwrap();
        let checksum = [datagram[6], datagram[7]];
        datagram[8..].copy_from_slice(&checksum);
        REPR.emit(&mut datagram, source, destination).unwrap();
        assert_eq!(datagram[6..8], [0xff, 0xff]);
        assert!(Packet::parse(&datagram).unwrap().checksum_is_valid(source, destination));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(OVER_IPV4), Packet::parse);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let mut bytes = hex(OVER_IPV4);
        for length in 0..8 {
            bytes[5] = length;
            assert_eq!(Packet::parse(&bytes).err(), Some(ParseError::BadLength));
        }
        bytes[5] = 16;
        assert_eq!(Packet::parse(&bytes).err(), Some(ParseError::Truncated));
        let mut huge = std::vec![0; 65536];
        assert_eq!(REPR.emit(&mut huge, ipv4().0, ipv4().1), Err(EmitError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            source_port: u16, destination_port: u16, payload in prop::collection::vec(any::<u8>(), 0..100),
            v4: (std::net::Ipv4Addr, std::net::Ipv4Addr), v6: (std::net::Ipv6Addr, std::net::Ipv6Addr),
        ) {
            let repr = Repr { source_port, destination_port };
            for (source, destination) in [(IpAddr::V4(v4.0), IpAddr::V4(v4.1)), (IpAddr::V6(v6.0), IpAddr::V6(v6.1))] {
                let mut buffer = std::vec![0xa5; HEADER_BYTES];
                buffer.extend_from_slice(&payload);
                repr.emit(&mut buffer, source, destination).unwrap();
                let packet = Packet::parse(&buffer).unwrap();
                prop_assert_eq!((Repr::parse(&packet), packet.payload), (repr, payload.as_slice()));
                prop_assert!(packet.checksum_is_valid(source, destination));
            }
        }
    }
}
