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
    first_bytes: usize,
    later_bytes: usize,
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
        let mtu = usize::from(mtu);
        // Every fragment but the last carries a multiple of 8 bytes.
        let room = |header_bytes: usize| mtu.saturating_sub(header_bytes) & !7;
        let first_bytes = room(HEADER_BYTES + packet.options.len());
        let later_bytes = room(HEADER_BYTES + options_bytes);
        let end = usize::from(packet.header.fragment_offset()) * 8 + packet.payload.len();
        if first_bytes == 0 || later_bytes == 0 || end > usize::from(OFFSET_MASK) * 8 + 7 {
            return Err(ParseError::BadLength);
        }
        Ok(Plan { packet, options, options_bytes, first_bytes, later_bytes })
    }

    /// The number of fragments, at least 1.
    pub fn count(&self) -> usize {
        let after_first = self.packet.payload.len().saturating_sub(self.first_bytes);
        1 + after_first.div_ceil(self.later_bytes)
    }

    /// Which part of the payload fragment number `index` carries; `None` from [`Plan::count`] on.
    pub fn piece(&self, index: usize) -> Option<Piece> {
        if index >= self.count() {
            return None;
        }
        let (offset, room) = match index.checked_sub(1) {
            None => (0, self.first_bytes),
            Some(before) => (self.first_bytes + before * self.later_bytes, self.later_bytes),
        };
        let left = self.packet.payload.len().saturating_sub(offset);
        Some(Piece { offset, bytes: left.min(room), is_last: index + 1 == self.count() })
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
