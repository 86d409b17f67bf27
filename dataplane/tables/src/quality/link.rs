// SPDX-License-Identifier: Apache-2.0
//! What a packet is on a port's link: Ethernet, with an 802.1Q tag or without.

use wire::{ethernet, vlan};

/// Preamble and gap in front of and behind every frame (IEEE 802.3 §4.4.2).
const PREAMBLE_AND_GAP_BYTES: u32 = 20;
const FCS_BYTES: u32 = 4;
/// The shortest frame, tag and FCS included.
const FRAME_BYTES_MIN: u32 = 64;

/// What a port's frames have around an IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    tag_bytes: u32,
}

impl Link {
    pub(super) const fn new(is_tagged: bool) -> Self {
        Self { tag_bytes: if is_tagged { vlan::HEADER_BYTES as u32 } else { 0 } }
    }

    /// The bytes that an IP packet of `l3_bytes` is on the wire.
    #[inline(always)]
    pub(super) fn wire_bytes(self, l3_bytes: usize) -> u32 {
        let frame = u32::try_from(l3_bytes + ethernet::HEADER_BYTES).unwrap_or(u32::MAX >> 1) + FCS_BYTES;
        (frame + self.tag_bytes).max(FRAME_BYTES_MIN) + PREAMBLE_AND_GAP_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_four_bytes_more_but_for_frames_that_are_padded_with_it() {
        let wire_bytes = |l3_bytes| [false, true].map(|is_tagged| Link::new(is_tagged).wire_bytes(l3_bytes));
        assert_eq!(wire_bytes(1_500), [1_538, 1_542]);
        assert_eq!(wire_bytes(47), [85, 89]);
        assert_eq!(wire_bytes(46), [84, 88]);
        assert_eq!(wire_bytes(44), [84, 86]);
        assert_eq!(wire_bytes(42), [84, 84]);
        assert_eq!(wire_bytes(20), [84, 84]);
    }
}
