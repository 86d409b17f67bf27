// SPDX-License-Identifier: Apache-2.0
//! Any number of blocks as an array of single ones: the wide algorithms on a CPU without wide instructions.
//!
//! Arithmetic is [`Wide128`]'s, lane by lane; memory under a span is touched octet by octet, and no other.

use super::{BLOCK_BYTES, Block, Lanes, Span, Wide128};

/// `N` lanes.
#[derive(Clone, Copy)]
pub(in crate::engine::native) struct Model<const N: usize>([Wide128; N]);

impl<const N: usize> Model<N> {
    fn octets_of_span(span: Span) -> impl Iterator<Item = usize> {
        assert!(span.from <= span.to && span.to <= Self::BYTES);
        span.from..span.to
    }

    #[inline(never)]
    unsafe fn octets(self) -> Vec<u8> {
        let mut octets = vec![0; Self::BYTES];
        // SAFETY: there is room for a vector.
        unsafe { self.store(octets.as_mut_ptr()) };
        octets
    }
}

impl<const N: usize> Lanes for Model<N> {
    const BLOCKS: usize = N;

    #[inline(never)]
    unsafe fn splat(block: Block) -> Self {
        Self([pass_on!(Wide128::splat(block)); N])
    }

    #[inline(never)]
    unsafe fn broadcast(from: *const [u8; BLOCK_BYTES]) -> Self {
        Self([pass_on!(Wide128::broadcast(from)); N])
    }

    #[inline(never)]
    unsafe fn first(block: Block) -> Self {
        let mut lanes = pass_on!([Wide128::counter(0); N]);
        lanes[0] = pass_on!(Wide128::first(block));
        Self(lanes)
    }

    #[inline(never)]
    unsafe fn counter(word: u32) -> Self {
        Self([pass_on!(Wide128::counter(word)); N])
    }

    #[inline(never)]
    unsafe fn load(from: *const u8) -> Self {
        Self(core::array::from_fn(|lane| pass_on!(Wide128::load(from.add(lane * BLOCK_BYTES)))))
    }

    #[inline(never)]
    unsafe fn store(self, to: *mut u8) {
        for (number, lane) in self.0.into_iter().enumerate() {
            pass_on!(lane.store(to.add(number * BLOCK_BYTES)));
        }
    }

    #[inline(never)]
    unsafe fn load_span(from: *const u8, span: Span) -> Self {
        let mut octets = vec![0; Self::BYTES];
        for at in Self::octets_of_span(span) {
            octets[at] = pass_on!(*from.wrapping_add(at));
        }
        pass_on!(Self::load(octets.as_ptr()))
    }

    #[inline(never)]
    unsafe fn store_span(self, to: *mut u8, span: Span) {
        let octets = pass_on!(self.octets());
        for at in Self::octets_of_span(span) {
            pass_on!(*to.wrapping_add(at) = octets[at]);
        }
    }

    #[inline(never)]
    unsafe fn keep(self, span: Span) -> Self {
        let octets = pass_on!(self.octets());
        pass_on!(Self::load_span(octets.as_ptr(), span))
    }

    #[inline(never)]
    unsafe fn lane_0(self) -> Block {
        pass_on!(self.0[0].lane_0())
    }

    #[inline(never)]
    unsafe fn fold(self) -> Block {
        let sum = self.0.into_iter().reduce(|sum, lane| pass_on!(sum.xor(lane)));
        pass_on!(sum.expect("at least one lane").lane_0())
    }

    #[inline(never)]
    unsafe fn with_last_lane(mut self, other: Self) -> Self {
        self.0[N - 1] = other.0[N - 1];
        self
    }

    #[inline(never)]
    unsafe fn xor(self, other: Self) -> Self {
        Self(core::array::from_fn(|lane| pass_on!(self.0[lane].xor(other.0[lane]))))
    }

    #[inline(never)]
    unsafe fn xor3(self, second: Self, third: Self) -> Self {
        pass_on!(self.xor(second).xor(third))
    }

    #[inline(never)]
    unsafe fn aes(self, round_key: Self) -> Self {
        Self(core::array::from_fn(|lane| pass_on!(self.0[lane].aes(round_key.0[lane]))))
    }

    #[inline(never)]
    unsafe fn aes_last(self, round_key: Self) -> Self {
        Self(core::array::from_fn(|lane| pass_on!(self.0[lane].aes_last(round_key.0[lane]))))
    }

    #[inline(never)]
    unsafe fn multiply<const HALVES: i32>(self, other: Self) -> Self {
        Self(core::array::from_fn(|lane| pass_on!(self.0[lane].multiply::<HALVES>(other.0[lane]))))
    }

    #[inline(never)]
    unsafe fn swap_halves(self) -> Self {
        Self(self.0.map(|lane| pass_on!(lane.swap_halves())))
    }

    #[inline(never)]
    unsafe fn reverse(self) -> Self {
        Self(self.0.map(|lane| pass_on!(lane.reverse())))
    }
}
