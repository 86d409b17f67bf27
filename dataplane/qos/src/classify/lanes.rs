// SPDX-License-Identifier: Apache-2.0
//! Eight lanes of 16 bits, compared at once.
//!
//! Plain loops over arrays of a fixed size, in the form that compilers make vector instructions of.

/// Lanes that are compared at once.
pub(super) const LANES: usize = 8;

#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct Eight([u16; LANES]);

impl Eight {
    #[inline(always)]
    pub(super) const fn new(lanes: [u16; LANES]) -> Self {
        Self(lanes)
    }

    /// One value in all lanes.
    pub(super) const fn all(value: u16) -> Self {
        Self([value; LANES])
    }

    /// Each lane by itself.
    #[inline(always)]
    pub(super) const fn lanes(&self) -> &[u16; LANES] {
        &self.0
    }

    /// 0 in each lane that is at least that of `low` and at most so much above it.
    #[inline(always)]
    pub(super) fn beyond(&self, low: &Self, length: &Self) -> Self {
        Self(core::array::from_fn(|at| self.0[at].wrapping_sub(low.0[at]).saturating_sub(length.0[at])))
    }

    #[inline(always)]
    pub(super) fn bits(&self) -> u128 {
        zerocopy::transmute!(self.0)
    }

    /// The bits of both.
    #[inline(always)]
    pub(super) fn or(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// In each lane what `zero` has where this is 0, and what `other` has where it is not.
    #[inline(always)]
    pub(super) fn choose(&self, zero: &Self, other: &Self) -> Self {
        Self(core::array::from_fn(|at| {
            // In this form a blend of vectors; as an `if` a jump for each lane.
            let is_zero = u16::from(self.0[at] == 0).wrapping_neg();
            other.0[at] ^ (other.0[at] ^ zero.0[at]) & is_zero
        }))
    }

    /// How many of three times eight lanes are below `value`.
    #[inline(always)]
    pub(super) fn below(three: &[Self; 3], value: u16) -> u32 {
        let [a, b, c] = three;
        let each: [u16; LANES] = core::array::from_fn(|at| {
            u16::from(a.0[at] < value) + u16::from(b.0[at] < value) + u16::from(c.0[at] < value)
        });
        let [a, b, c, d, e, f, g, h] = each;
        u32::from((a + b) + (c + d) + ((e + f) + (g + h)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_lane_outside_is_seen_wherever_it_is(
            lanes: [u16; LANES], low: [u16; LANES], length: [u16; LANES], inside: bool,
        ) {
            let lanes = if inside {
                core::array::from_fn(|at| low[at].wrapping_add(lanes[at] % length[at].saturating_add(1)))
            } else {
                lanes
            };
            let all = (0..LANES).all(|at| lanes[at].wrapping_sub(low[at]) <= length[at]);
            prop_assert_eq!(Eight::new(lanes).beyond(&Eight::new(low), &Eight::new(length)).bits() == 0, all);
            prop_assert!(all || !inside);
        }

        #[test]
        fn thresholds_below_a_value_are_counted(mut rising: [u16; 24], value: u16, at in 0..24usize, near: bool) {
            rising.sort_unstable();
            let value = if near { rising[at].wrapping_add(value % 3).wrapping_sub(1) } else { value };
            let eights = core::array::from_fn(|part| Eight::new(core::array::from_fn(|lane| rising[8 * part + lane])));
            let expected = rising.iter().filter(|threshold| **threshold < value).count() as u32;
            prop_assert_eq!(Eight::below(&eights, value), expected);
        }
    }
}
