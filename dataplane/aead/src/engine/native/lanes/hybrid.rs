// SPDX-License-Identifier: Apache-2.0
//! A wide form with AES and products done block by block: its masks, shuffles and sums on a CPU without VAES.

use super::{BLOCK_BYTES, Block, Lanes, Span, Wide128};

/// The lanes of `V`.
#[derive(Clone, Copy)]
pub(in crate::engine::native) struct Hybrid<V>(V);

impl<V: Lanes> Lanes for Hybrid<V> {
    const BLOCKS: usize = V::BLOCKS;

    #[inline(always)]
    unsafe fn splat(block: Block) -> Self {
        Self(pass_on!(V::splat(block)))
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const [u8; BLOCK_BYTES]) -> Self {
        Self(pass_on!(V::broadcast(from)))
    }

    #[inline(always)]
    unsafe fn first(block: Block) -> Self {
        Self(pass_on!(V::first(block)))
    }

    #[inline(always)]
    unsafe fn counter(word: u32) -> Self {
        Self(pass_on!(V::counter(word)))
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        Self(pass_on!(V::load(from)))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        pass_on!(self.0.store(to))
    }

    #[inline(always)]
    unsafe fn load_span(from: *const u8, span: Span) -> Self {
        Self(pass_on!(V::load_span(from, span)))
    }

    #[inline(always)]
    unsafe fn store_span(self, to: *mut u8, span: Span) {
        pass_on!(self.0.store_span(to, span))
    }

    #[inline(always)]
    unsafe fn keep(self, span: Span) -> Self {
        Self(pass_on!(self.0.keep(span)))
    }

    #[inline(always)]
    unsafe fn lane_0(self) -> Block {
        pass_on!(self.0.lane_0())
    }

    #[inline(always)]
    unsafe fn fold(self) -> Block {
        pass_on!(self.0.fold())
    }

    #[inline(always)]
    unsafe fn with_last_lane(self, other: Self) -> Self {
        Self(pass_on!(self.0.with_last_lane(other.0)))
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        Self(pass_on!(self.0.xor(other.0)))
    }

    #[inline(always)]
    unsafe fn xor3(self, second: Self, third: Self) -> Self {
        Self(pass_on!(self.0.xor3(second.0, third.0)))
    }

    #[inline(always)]
    unsafe fn aes(self, round_key: Self) -> Self {
        Self(pass_on!(by_lane(self.0, round_key.0, Wide128::aes)))
    }

    #[inline(always)]
    unsafe fn aes_last(self, round_key: Self) -> Self {
        Self(pass_on!(by_lane(self.0, round_key.0, Wide128::aes_last)))
    }

    #[inline(always)]
    unsafe fn multiply<const HALVES: i32>(self, other: Self) -> Self {
        Self(pass_on!(by_lane(self.0, other.0, Wide128::multiply::<HALVES>)))
    }

    #[inline(always)]
    unsafe fn swap_halves(self) -> Self {
        Self(pass_on!(self.0.swap_halves()))
    }

    #[inline(always)]
    unsafe fn reverse(self) -> Self {
        Self(pass_on!(self.0.reverse()))
    }
}

/// `work` on each lane of two vectors.
///
/// # Safety
/// As of the functions above.
#[inline(always)]
unsafe fn by_lane<V: Lanes>(first: V, second: V, work: unsafe fn(Wide128, Wide128) -> Wide128) -> V {
    let (mut left, mut right) = ([[0_u8; BLOCK_BYTES]; 4], [[0_u8; BLOCK_BYTES]; 4]);
    // SAFETY: the features are the caller's promise, and no vector has more than four lanes.
    unsafe {
        first.store(left.as_mut_ptr().cast());
        second.store(right.as_mut_ptr().cast());
        for (lane, other) in left.iter_mut().zip(&right).take(V::BLOCKS) {
            work(Wide128::broadcast(lane), Wide128::broadcast(other)).store(lane.as_mut_ptr());
        }
        V::load(left.as_ptr().cast())
    }
}
