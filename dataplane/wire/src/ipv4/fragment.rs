// SPDX-License-Identifier: Apache-2.0
//! Cutting an IPv4 packet into fragments (RFC 791 §3.2, RFC 1812 §4.2.2.7).
//!
//! A [`Plan`] is made once from the header; each fragment is then written, copy by copy, into a buffer of the caller's.
//! Left out: DF, which the caller looks at before, and reassembly.

use super::{HEADER_BYTES, Header, OFFSET_MASK, Packet, options};
use crate::view::{put, put_bytes};
use crate::{EmitError, ParseError};

/// How a packet is cut to fit a link.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    packet: Packet<'a>,
    options: [u8; options::MAX_BYTES],
    options_bytes: usize,
    first_room: usize,
    later_room: usize,
}

/// Where one fragment's payload lies in the packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first byte.
    pub offset: usize,
    /// The number of bytes.
    pub bytes: usize,
    /// Whether it is the packet's last.
    pub is_last: bool,
}

impl<'a> Plan<'a> {
    /// The plan that cuts `packet` into fragments of at most `mtu` bytes each, header included.
    ///
    /// # Errors
    /// [`ParseError::BadLength`] when `mtu` leaves no room for 8 bytes of payload, or the last fragment's offset would
    /// not fit its field; [`ParseError::BadOption`].
    pub fn new(packet: Packet<'a>, mtu: u16) -> Result<Plan<'a>, ParseError> {
        let mut options = [0; options::MAX_BYTES];
        let options_bytes =
            options::copy_for_fragment(packet.options, &mut options).map_err(|_| ParseError::BadOption)?;
        let room = |header_bytes: usize| usize::from(mtu).saturating_sub(header_bytes);
        let first_room = room(HEADER_BYTES + packet.options.len());
        let later_room = room(HEADER_BYTES + options_bytes);
        let end = usize::from(packet.header.fragment_offset()) * 8 + packet.payload.len();
        if first_room < 8 || later_room < 8 || end > usize::from(OFFSET_MASK) * 8 + 7 {
            return Err(ParseError::BadLength);
        }
        Ok(Plan { packet, options, options_bytes, first_room, later_room })
    }

    /// The number of fragments, at least 1.
    pub fn count(&self) -> usize {
        let payload_bytes = self.packet.payload.len();
        if payload_bytes <= self.first_room {
            return 1;
        }
        let left = payload_bytes - whole_units(self.first_room);
        2 + left.saturating_sub(self.later_room).div_ceil(whole_units(self.later_room))
    }

    /// Which part of the payload fragment number `index` carries; `None` from [`Plan::count`] on.
    pub fn piece(&self, index: usize) -> Option<Piece> {
        let count = self.count();
        if index >= count {
            return None;
        }
        let (first, later) = (whole_units(self.first_room), whole_units(self.later_room));
        let (offset, bytes) = match index.checked_sub(1) {
            None => (0, first),
            Some(before) => (first + before * later, later),
        };
        let is_last = index + 1 == count;
        let bytes = if is_last { self.packet.payload.len().saturating_sub(offset) } else { bytes };
        Some(Piece { offset, bytes, is_last })
    }

    /// Writes fragment number `index`, header and payload, to the front of `buffer`; returns its length.
    ///
    /// # Errors
    /// [`EmitError::NoSpace`]; [`EmitError::NotAllowed`] when there is no such fragment.
    pub fn emit(&self, index: usize, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let piece = self.piece(index).ok_or(EmitError::NotAllowed)?;
        let options = if index == 0 {
            self.packet.options
        } else {
            self.options.get(..self.options_bytes).ok_or(EmitError::NoSpace)?
        };
        let payload =
            self.packet.payload.get(piece.offset..piece.offset + piece.bytes).ok_or(EmitError::TooLong)?;
        let header = self.header(piece, options)?;
        let end = put(&header, buffer)?;
        let end = put_bytes(buffer, end, options)?;
        put_bytes(buffer, end, payload)
    }

    fn header(&self, piece: Piece, options: &[u8]) -> Result<Header, EmitError> {
        let mut header = *self.packet.header;
        let header_bytes = HEADER_BYTES + options.len();
        let total = u16::try_from(header_bytes + piece.bytes).map_err(|_| EmitError::TooLong)?;
        let words = u8::try_from(header_bytes / 4).map_err(|_| EmitError::TooLong)?;
        let offset = u16::try_from(piece.offset / 8).map_err(|_| EmitError::TooLong)?;
        header.version_ihl = 0x40 | words;
        header.total_length.set(total);
        // The packet may itself be a fragment: its offset counts, and its MF stays on the last piece.
        let flags = header.flags_offset.get();
        let more = if piece.is_last { 0 } else { super::MORE_FRAGMENTS };
        header.flags_offset.set((flags | more) & !OFFSET_MASK | (flags & OFFSET_MASK).saturating_add(offset));
        header.checksum.set(0);
        header.checksum.set(header.sum().add_bytes(options).finish());
        Ok(header)
    }
}

/// Offsets count units of 8 bytes, so every fragment but the last carries whole ones.
const fn whole_units(bytes: usize) -> usize {
    bytes & !7
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4::Repr;
    use crate::testing::{DIRTY, dirty, hex};
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn packet(payload_bytes: u16, options: &[u8]) -> Vec<u8> {
        let repr = Repr {
            identification: 0x1234,
            payload_bytes,
            ..Repr::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7), crate::IpProtocol::UDP)
        };
        let mut header = repr.header().unwrap();
        header.version_ihl += u8::try_from(options.len() / 4).unwrap();
        header.total_length.set(payload_bytes + 20 + u16::try_from(options.len()).unwrap());
        header.checksum.set(0);
        header.checksum.set(header.sum().add_bytes(options).finish());
        let mut bytes = zerocopy::IntoBytes::as_bytes(&header).to_vec();
        bytes.extend_from_slice(options);
        bytes.extend((0..payload_bytes).map(|i| i.to_be_bytes()[1] ^ i.to_be_bytes()[0]));
        bytes
    }

    fn fragments(packet: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, ParseError> {
        let plan = Plan::new(Packet::parse(packet)?, mtu)?;
        let emit = |index| {
            let mut buffer = DIRTY;
            let length = plan.emit(index, &mut buffer).unwrap();
            assert!(buffer[length..].iter().all(|byte| *byte == 0xa5), "nothing behind it is touched");
            buffer[..length].to_vec()
        };
        Ok((0..plan.count()).map(emit).collect())
    }

    #[test]
    fn a_packet_of_1500_bytes_is_cut_for_a_link_of_576() {
        // Fragments may carry 552 bytes of payload: 576 - 20 = 556, down to a multiple of 8.
        let fragments = fragments(&packet(1480, &[]), 576).unwrap();
        let read: Vec<_> = fragments
            .iter()
            .map(|fragment| Repr::parse(&Packet::parse(fragment).unwrap()).unwrap())
            .map(|repr| (repr.payload_bytes, repr.fragment_offset, repr.more_fragments, repr.identification))
            .collect();
        assert_eq!(read, [(552, 0, true, 0x1234), (552, 69, true, 0x1234), (376, 138, false, 0x1234)]);
    }

    #[test]
    fn options_are_whole_in_the_first_fragment_and_copied_ones_in_the_others() {
        let options = hex("94040000 01070704 00000000");
        let fragments = fragments(&packet(100, &options), 68).unwrap();
        assert_eq!(Packet::parse(&fragments[0]).unwrap().options, options);
        for fragment in &fragments[1..] {
            let fragment = Packet::parse(fragment).unwrap();
            assert_eq!(fragment.options, &options[..4]);
            assert!(fragment.checksum_is_valid());
        }
    }

    #[test]
    fn a_fragment_of_a_fragment_keeps_its_offset_and_more_fragments() {
        let middle = &fragments(&packet(1480, &[]), 576).unwrap()[1];
        let pieces = fragments(middle, 300).unwrap();
        let read: Vec<_> = pieces
            .iter()
            .map(|piece| Repr::parse(&Packet::parse(piece).unwrap()).unwrap())
            .map(|repr| (repr.payload_bytes, repr.fragment_offset, repr.more_fragments))
            .collect();
        assert_eq!(read, [(280, 69, true), (272, 104, true)]);
    }

    #[test]
    fn a_packet_that_fits_is_one_fragment_which_is_itself() {
        let whole = packet(100, &[]);
        assert_eq!(fragments(&whole, 120).unwrap(), [whole]);
    }

    #[test]
    fn a_link_without_room_for_eight_bytes_and_bad_options_are_refused() {
        assert_eq!(fragments(&packet(100, &[]), 27), Err(ParseError::BadLength));
        assert!(fragments(&packet(100, &[]), 28).is_ok());
        assert_eq!(fragments(&packet(100, &[]), 0), Err(ParseError::BadLength));
        assert_eq!(fragments(&packet(100, &hex("07010000")), 68), Err(ParseError::BadOption));
    }

    #[test]
    fn there_is_no_fragment_behind_the_last_and_none_in_a_short_buffer() {
        let whole = packet(100, &[]);
        let plan = Plan::new(Packet::parse(&whole).unwrap(), 68).unwrap();
        assert_eq!(plan.piece(plan.count()), None);
        assert_eq!(plan.emit(plan.count(), &mut dirty()), Err(EmitError::NotAllowed));
        for length in 0..68 {
            assert_eq!(plan.emit(0, &mut dirty()[..length]), Err(EmitError::NoSpace));
        }
    }

    proptest! {
        #[test]
        fn fragments_put_together_are_the_packet(
            payload_bytes in 0u16..1900, mtu in 68u16..2000, option_words in 0usize..3,
        ) {
            let options = &hex("8304aabb 44040001")[..option_words * 4];
            let whole = packet(payload_bytes, options);
            let fragments = fragments(&whole, mtu).unwrap();
            let mut payload = Vec::new();
            for (index, fragment) in fragments.iter().enumerate() {
                prop_assert!(fragment.len() <= usize::from(mtu));
                let fragment = Packet::parse(fragment).unwrap();
                prop_assert!(fragment.checksum_is_valid());
                prop_assert_eq!(usize::from(fragment.header.fragment_offset()) * 8, payload.len());
                prop_assert_eq!(fragment.header.more_fragments(), index + 1 < fragments.len());
                payload.extend_from_slice(fragment.payload);
            }
            prop_assert_eq!(payload, Packet::parse(&whole).unwrap().payload);
            if whole.len() <= usize::from(mtu) {
                prop_assert_eq!(fragments, [whole]);
            }
        }
    }
}
