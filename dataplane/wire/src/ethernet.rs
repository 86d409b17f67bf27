// SPDX-License-Identifier: Apache-2.0
//! Ethernet II (IEEE 802.3 with a type, RFC 894, RFC 2464); the 802.1Q tag is in [`crate::vlan`].
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Destination                          |
//! +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                               |                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//! |                            Source                             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |             Type              |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::view::{put, split, split_mut};
use crate::{EmitError, ParseError};

/// Length of the header in bytes, without a tag.
pub const HEADER_BYTES: usize = 14;
/// The shortest frame in bytes, without its FCS; shorter payloads are padded.
pub const MIN_FRAME_BYTES: usize = 60;

/// A MAC address (EUI-48).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Every station.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// No station: what ARP puts where an address is not known.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether the group bit is set: multicast or broadcast.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is the broadcast address.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == MacAddr::BROADCAST
    }

    /// Whether it can be one station's address: neither a group nor zero.
    #[inline]
    pub fn is_station(self) -> bool {
        !self.is_multicast() && self != MacAddr::ZERO
    }

    /// The group address that an IPv6 multicast `destination` is sent to: `33:33` and its last 32 bits (RFC 2464 §7).
    pub const fn of_ipv6_multicast(destination: Ipv6Addr) -> MacAddr {
        let [.., a, b, c, d] = destination.octets();
        MacAddr([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not six pairs of hexadecimal digits with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: write it as 02:00:5e:00:53:01")]
pub struct MacAddrError;

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<MacAddr, MacAddrError> {
        let mut address = MacAddr::ZERO;
        let mut parts = text.split(':');
        for octet in &mut address.0 {
            let part = parts.next().ok_or(MacAddrError)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacAddrError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacAddrError)?;
        }
        if parts.next().is_some() { Err(MacAddrError) } else { Ok(address) }
    }
}

/// An EtherType, which is GRE's protocol type too; any value from 0x0600 is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP.
    pub const ARP: EtherType = EtherType(0x0806);
    /// NHRP (RFC 2332), in GRE.
    pub const NHRP: EtherType = EtherType(0x2001);
    /// Transparent Ethernet Bridging, in GRE (RFC 7637 uses it).
    pub const TRANSPARENT_ETHERNET_BRIDGING: EtherType = EtherType(0x6558);
    /// An 802.1Q tag.
    pub const VLAN: EtherType = EtherType(0x8100);
    /// IPv6.
    pub const IPV6: EtherType = EtherType(0x86dd);
    /// MPLS, unicast.
    pub const MPLS: EtherType = EtherType(0x8847);
    /// An 802.1ad service tag.
    pub const SERVICE_VLAN: EtherType = EtherType(0x88a8);
    /// LLDP.
    pub const LLDP: EtherType = EtherType(0x88cc);

    /// Whether the value is an 802.3 length, not a type.
    #[inline]
    pub const fn is_length(self) -> bool {
        self.0 < 0x0600
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The header, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    destination: MacAddr,
    source: MacAddr,
    ether_type: U16,
}

impl Header {
    /// The header at the front of `frame`, and what follows it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(frame: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(frame)
    }

    /// The header at the front of `frame`, mutable, and what follows it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split_mut(frame: &mut [u8]) -> Result<(&mut Header, &mut [u8]), ParseError> {
        split_mut(frame)
    }

    /// The destination.
    #[inline]
    pub const fn destination(&self) -> MacAddr {
        self.destination
    }

    /// The source.
    #[inline]
    pub const fn source(&self) -> MacAddr {
        self.source
    }

    /// The type.
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }

    /// Sets the destination.
    #[inline]
    pub fn set_destination(&mut self, destination: MacAddr) {
        self.destination = destination;
    }

    /// Sets the source.
    #[inline]
    pub fn set_source(&mut self, source: MacAddr) {
        self.source = source;
    }

    /// Sets the type.
    #[inline]
    pub fn set_ether_type(&mut self, ether_type: EtherType) {
        self.ether_type.set(ether_type.0);
    }
}

/// A frame whose header is whole.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The header.
    pub header: &'a Header,
    /// What follows the header: a tag, or the payload with its padding.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the header of `frame`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadValue`] for an 802.3 length instead of a type.
    #[inline]
    pub fn parse(frame: &'a [u8]) -> Result<Frame<'a>, ParseError> {
        let (header, payload) = Header::split(frame)?;
        if header.ether_type().is_length() {
            return Err(ParseError::BadValue);
        }
        Ok(Frame { header, payload })
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The destination.
    pub destination: MacAddr,
    /// The source.
    pub source: MacAddr,
    /// The type.
    pub ether_type: EtherType,
}

impl Repr {
    /// Reads the header of `frame`.
    pub fn parse(frame: &Frame<'_>) -> Repr {
        Repr {
            destination: frame.header.destination(),
            source: frame.header.source(),
            ether_type: frame.header.ether_type(),
        }
    }

    /// The header as bytes on the wire, for templates.
    #[inline]
    pub fn header(&self) -> Header {
        Header { destination: self.destination, source: self.source, ether_type: U16::new(self.ether_type.0) }
    }

    /// Writes the header to the front of `buffer`; returns its length, [`HEADER_BYTES`].
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        put(&self.header(), buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use proptest::prelude::*;
    use std::string::ToString;

    const HEADER: &str = "02005e005302 02005e005301 86dd";

    fn repr() -> Repr {
        Repr {
            destination: MacAddr([2, 0, 0x5e, 0, 0x53, 2]),
            source: MacAddr([2, 0, 0x5e, 0, 0x53, 1]),
            ether_type: EtherType::IPV6,
        }
    }

    #[test]
    fn a_known_header_reads_as_what_it_is() {
        let bytes = hex(&[HEADER, "6000"].concat());
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(Repr::parse(&frame), repr());
        assert_eq!(frame.payload, [0x60, 0]);
    }

    #[test]
    fn a_header_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let mut buffer = DIRTY;
        assert_eq!(repr().emit(&mut buffer), Ok(HEADER_BYTES));
        assert_eq!(buffer[..HEADER_BYTES], hex(HEADER));
        assert!(buffer[HEADER_BYTES..].iter().all(|byte| *byte == 0xa5));
        assert_eq!(repr().emit(&mut buffer[..13]), Err(EmitError::NoSpace));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(HEADER), Frame::parse);
    }

    #[test]
    fn a_length_in_place_of_the_type_is_refused() {
        let mut bytes = hex(HEADER);
        for length in [0_u16, 46, 1500, 0x05ff] {
            bytes[12..].copy_from_slice(&length.to_be_bytes());
            assert_eq!(Frame::parse(&bytes).err(), Some(ParseError::BadValue), "{length}");
        }
        bytes[12..].copy_from_slice(&[6, 0]);
        assert!(Frame::parse(&bytes).is_ok());
    }

    #[test]
    fn fields_are_set_in_place() {
        let mut bytes = hex(HEADER);
        let (header, _) = Header::split_mut(&mut bytes).unwrap();
        header.set_destination(MacAddr::BROADCAST);
        header.set_source(MacAddr::ZERO);
        header.set_ether_type(EtherType::ARP);
        assert_eq!(bytes, hex("ffffffffffff 000000000000 0806"));
    }

    #[test]
    fn mac_addresses_know_what_they_name() {
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr::BROADCAST.is_station() && !MacAddr::ZERO.is_station());
        assert!(repr().source.is_station());
        let group = MacAddr::of_ipv6_multicast("ff02::1:ff12:3456".parse().unwrap());
        assert_eq!(group.to_string(), "33:33:ff:12:34:56");
        assert!(group.is_multicast() && !group.is_broadcast());
    }

    #[test]
    fn text_that_is_not_a_mac_address_is_refused() {
        for text in [
            "",
            "02:00:5e:00:53",
            "02:00:5e:00:53:01:",
            "02:00:5e:00:53:1",
            "02-00-5e-00-53-01",
            "+2:00:5e:00:53:01",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(MacAddrError), "{text}");
        }
        assert_eq!("02:00:5E:00:53:01".parse(), Ok(repr().source));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(destination: [u8; 6], source: [u8; 6], ether_type in 0x600u16..) {
            let repr = Repr {
                destination: MacAddr(destination),
                source: MacAddr(source),
                ether_type: EtherType(ether_type),
            };
            let mut buffer = DIRTY;
            repr.emit(&mut buffer).unwrap();
            prop_assert_eq!(Repr::parse(&Frame::parse(&buffer).unwrap()), repr);
            prop_assert_eq!(repr.source.to_string().parse(), Ok(repr.source));
        }
    }
}
