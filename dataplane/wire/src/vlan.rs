// SPDX-License-Identifier: Apache-2.0
//! The 802.1Q tag, and one pass over the whole link header.
//!
//! The tag follows the source address; the outer EtherType is 0x8100 and the tag ends in the payload's own.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-----+-+-----------------------+-------------------------------+
//! | PCP |D|        VLAN ID        |             Type              |
//! +-----+-+-----------------------+-------------------------------+
//! ```
//!
//! D is the drop eligible indicator. Stacked tags (802.1ad) are left out: their EtherType is reported as it is.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::{self, EtherType, MacAddr};
use crate::view::{put, split};
use crate::{EmitError, ParseError};

/// Length of the tag in bytes.
pub const HEADER_BYTES: usize = 4;

/// A VLAN ID: 1 to 4094, or 0 for a frame without one (untagged or priority-tagged).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VlanId(u16);

impl VlanId {
    /// No VLAN: the frame is untagged, or its tag carries a priority only.
    pub const NONE: VlanId = VlanId(0);

    /// The VLAN `id`; `None` from 4095 on, which 802.1Q reserves.
    #[inline]
    pub const fn new(id: u16) -> Option<VlanId> {
        if id < 0xfff { Some(VlanId(id)) } else { None }
    }

    /// The ID, 0 for none.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The tag, in place: what follows the EtherType 0x8100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    control: U16,
    ether_type: U16,
}

impl Header {
    /// The tag at the front of `bytes`, and what follows it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(bytes: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(bytes)
    }

    /// The priority code point, 0 to 7.
    #[inline]
    pub const fn priority(&self) -> u8 {
        self.control.to_bytes()[0] >> 5
    }

    /// Whether the frame may be dropped first.
    #[inline]
    pub const fn drop_eligible(&self) -> bool {
        self.control.get() & 0x1000 != 0
    }

    /// The VLAN ID as it stands, 0 to 4095.
    #[inline]
    pub const fn id(&self) -> u16 {
        self.control.get() & 0x0fff
    }

    /// The type of the payload.
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }
}

/// What the tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The priority code point, 0 to 7.
    pub priority: u8,
    /// Whether the frame may be dropped first.
    pub drop_eligible: bool,
    /// The VLAN.
    pub vlan: VlanId,
    /// The type of the payload.
    pub ether_type: EtherType,
}

impl Repr {
    /// Reads the tag at the front of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadValue`] for VLAN ID 4095 or an 802.3 length instead of a type.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Repr, ParseError> {
        let (header, _) = Header::split(bytes)?;
        let vlan = VlanId::new(header.id()).ok_or(ParseError::BadValue)?;
        if header.ether_type().is_length() {
            return Err(ParseError::BadValue);
        }
        Ok(Repr {
            priority: header.priority(),
            drop_eligible: header.drop_eligible(),
            vlan,
            ether_type: header.ether_type(),
        })
    }

    /// The tag as bytes on the wire, for templates; only the low three bits of the priority are used.
    #[inline]
    pub fn header(&self) -> Header {
        let control =
            u16::from(self.priority & 7) << 13 | u16::from(self.drop_eligible) << 12 | self.vlan.get();
        Header { control: U16::new(control), ether_type: U16::new(self.ether_type.0) }
    }

    /// Writes the tag to the front of `buffer`; returns its length, [`HEADER_BYTES`].
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        put(&self.header(), buffer)
    }
}

/// The link header of a frame: Ethernet II with at most one 802.1Q tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The destination.
    pub destination: MacAddr,
    /// The source.
    pub source: MacAddr,
    /// The VLAN; [`VlanId::NONE`] for an untagged or priority-tagged frame.
    pub vlan: VlanId,
    /// The tag's priority code point, 0 to 7; none without a tag.
    pub priority: Option<u8>,
    /// The type of the payload, behind the tag if there is one.
    pub ether_type: EtherType,
    /// Where the payload begins: 14 or 18.
    pub header_bytes: u16,
}

/// Reads the link header of `frame`.
///
/// # Errors
/// [`ParseError::Truncated`]; [`ParseError::BadValue`] for an 802.3 length instead of a type, or VLAN ID 4095.
#[inline]
pub fn parse_link(frame: &[u8]) -> Result<Link, ParseError> {
    let ethernet::Frame { header, payload } = ethernet::Frame::parse(frame)?;
    let untagged = Link {
        destination: header.destination(),
        source: header.source(),
        vlan: VlanId::NONE,
        priority: None,
        ether_type: header.ether_type(),
        header_bytes: 14,
    };
    if untagged.ether_type != EtherType::VLAN {
        return Ok(untagged);
    }
    let tag = Repr::parse(payload)?;
    let priority = Some(tag.priority);
    Ok(Link { vlan: tag.vlan, priority, ether_type: tag.ether_type, header_bytes: 18, ..untagged })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use proptest::prelude::*;

    /// Made with Scapy: Ether / Dot1Q(vlan=291, prio=5, id=1) / IP.
    const FRAME: &str = "02005e00 53020200 5e005301 8100b123 0800";

    fn repr() -> Repr {
        Repr {
            priority: 5,
            drop_eligible: true,
            vlan: VlanId::new(291).unwrap(),
            ether_type: EtherType::IPV4,
        }
    }

    #[test]
    fn a_known_tag_reads_as_what_it_is() {
        let bytes = hex(FRAME);
        assert_eq!(Repr::parse(&bytes[14..]), Ok(repr()));
        let link = parse_link(&bytes).unwrap();
        assert_eq!((link.vlan, link.ether_type, link.header_bytes), (repr().vlan, EtherType::IPV4, 18));
        assert_eq!(link.source, MacAddr([2, 0, 0x5e, 0, 0x53, 1]));
        assert_eq!(link.destination, MacAddr([2, 0, 0x5e, 0, 0x53, 2]));
    }

    #[test]
    fn a_tag_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let mut buffer = DIRTY;
        assert_eq!(repr().emit(&mut buffer), Ok(HEADER_BYTES));
        assert_eq!(buffer[..HEADER_BYTES], hex(FRAME)[14..]);
        assert!(buffer[HEADER_BYTES..].iter().all(|byte| *byte == 0xa5));
        assert_eq!(repr().emit(&mut buffer[..3]), Err(EmitError::NoSpace));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(FRAME), parse_link);
        refuses_every_truncation(&hex(FRAME)[14..], Repr::parse);
    }

    #[test]
    fn impossible_ids_and_lengths_are_refused() {
        assert_eq!(VlanId::new(4095), None);
        assert_eq!(VlanId::new(u16::MAX), None);
        assert_eq!(Repr::parse(&hex("0fff 0800")), Err(ParseError::BadValue));
        assert_eq!(Repr::parse(&hex("0001 05dc")), Err(ParseError::BadValue));
    }

    #[test]
    fn untagged_and_priority_tagged_frames_have_no_vlan() {
        let untagged = parse_link(&hex("02005e005302 02005e005301 0806")).unwrap();
        assert_eq!(
            (untagged.vlan, untagged.ether_type, untagged.header_bytes),
            (VlanId::NONE, EtherType::ARP, 14)
        );
        let priority = parse_link(&hex("02005e005302 02005e005301 8100 e000 86dd")).unwrap();
        assert_eq!(
            (priority.vlan, priority.ether_type, priority.header_bytes),
            (VlanId::NONE, EtherType::IPV6, 18)
        );
    }

    #[test]
    fn of_stacked_tags_the_second_is_left_to_the_caller() {
        let link = parse_link(&hex("02005e005302 02005e005301 8100 0064 8100 00c8 0800")).unwrap();
        assert_eq!((link.vlan.get(), link.ether_type), (100, EtherType::VLAN));
        let link = parse_link(&hex("02005e005302 02005e005301 88a8 0064 8100 00c8 0800")).unwrap();
        assert_eq!((link.vlan, link.ether_type), (VlanId::NONE, EtherType::SERVICE_VLAN));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(priority in 0u8..8, drop_eligible: bool, id in 0u16..4095, ether_type in 0x600u16..) {
            let vlan = VlanId::new(id).unwrap();
            let repr = Repr { priority, drop_eligible, vlan, ether_type: EtherType(ether_type) };
            let mut buffer = DIRTY;
            repr.emit(&mut buffer).unwrap();
            prop_assert_eq!(Repr::parse(&buffer), Ok(repr));
        }
    }
}
