// SPDX-License-Identifier: Apache-2.0
//! The /16 networks in which some address is special: one bit for each, 8 KiB in all.

use std::sync::Arc;

/// Bits of an address below the 64 regions of a word.
const BELOW_WORD: u32 = 32 - 10;
/// Bits of an address below its region.
const BELOW_REGION: u32 = 16;

/// See the module's head.
#[derive(Clone)]
pub(crate) struct Regions(Arc<[u64; 1 << (32 - BELOW_WORD)]>);

impl Regions {
    /// None.
    pub(crate) fn new() -> Self {
        Self(Arc::new([0; _]))
    }

    /// Notes the region of `address`.
    pub(crate) fn insert(&mut self, address: u32) {
        Arc::make_mut(&mut self.0)[word(address)] |= 1 << bit(address);
    }

    /// Notes all regions of the addresses that begin with `first`.
    pub(crate) fn insert_first_octet(&mut self, first: u8) {
        (0..=u8::MAX).for_each(|second| self.insert(u32::from_be_bytes([first, second, 0, 0])));
    }

    /// Whether something was noted in the region of `address`.
    #[inline(always)]
    pub(crate) fn contains(&self, address: u32) -> bool {
        self.0[word(address)] >> bit(address) & 1 != 0
    }
}

#[inline(always)]
fn word(address: u32) -> usize {
    (address >> BELOW_WORD) as usize
}

#[inline(always)]
fn bit(address: u32) -> u32 {
    (address >> BELOW_REGION) % u64::BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_slash_16() {
        let mut regions = Regions::new();
        regions.insert(0x0a01_0203);
        regions.insert_first_octet(0xe0);
        for (address, is_noted) in [
            (0x0a01_0000, true),
            (0x0a01_ffff, true),
            (0x0a00_ffff, false),
            (0x0a02_0000, false),
            (0xdfff_ffff, false),
            (0xe000_0000, true),
            (0xe0ff_ffff, true),
            (0xe100_0000, false),
            (0, false),
            (u32::MAX, false),
        ] {
            assert_eq!(regions.contains(address), is_noted, "{address:#010x}");
        }
    }
}
