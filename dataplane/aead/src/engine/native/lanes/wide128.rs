// SPDX-License-Identifier: Apache-2.0
//! One block in a register: AES-NI and PCLMULQDQ, for CPUs without VAES.

use core::arch::x86_64::*;

use super::{BLOCK_BYTES, Block, Lanes, REVERSED, Span, load_part, store_part};

/// One lane.
#[derive(Clone, Copy)]
pub(in crate::engine::native) struct Wide128(__m128i);

impl Lanes for Wide128 {
    const BLOCKS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn splat(block: Block) -> Self {
        Self(block)
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn broadcast(from: *const [u8; BLOCK_BYTES]) -> Self {
        // SAFETY: the caller's 16 octets.
        Self(unsafe { _mm_loadu_si128(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn first(block: Block) -> Self {
        Self(block)
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn counter(word: u32) -> Self {
        Self(_mm_insert_epi32::<3>(_mm_setzero_si128(), word.cast_signed()))
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's 16 octets.
        Self(unsafe { _mm_loadu_si128(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's 16 octets.
        unsafe { _mm_storeu_si128(to.cast(), self.0) }
    }

    // Without `target_feature`, which excludes `inline(always)`: a call here would spill keystream to the stack.
    #[inline(always)]
    unsafe fn load_span(from: *const u8, span: Span) -> Self {
        // SAFETY: the caller's octets of the span; where there are none, the address is only computed.
        Self(unsafe { load_part(from.wrapping_add(span.from), span.to - span.from) })
    }

    // Without `target_feature`, which excludes `inline(always)`: a call here would spill keystream to the stack.
    #[inline(always)]
    unsafe fn store_span(self, to: *mut u8, span: Span) {
        // SAFETY: as in `load_span`.
        unsafe { store_part(self.0, to.wrapping_add(span.from), span.to - span.from) }
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn keep(self, span: Span) -> Self {
        let index = _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let before_end = _mm_cmpgt_epi8(_mm_set1_epi8(span.to as i8), index);
        let before_start = _mm_cmpgt_epi8(_mm_set1_epi8(span.from as i8), index);
        Self(_mm_and_si128(self.0, _mm_andnot_si128(before_start, before_end)))
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn lane_0(self) -> Block {
        self.0
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn fold(self) -> Block {
        self.0
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn with_last_lane(self, other: Self) -> Self {
        other
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn xor(self, other: Self) -> Self {
        Self(_mm_xor_si128(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn xor3(self, second: Self, third: Self) -> Self {
        Self(_mm_xor_si128(_mm_xor_si128(self.0, second.0), third.0))
    }

    #[inline]
    #[target_feature(enable = "avx,aes")]
    unsafe fn aes(self, round_key: Self) -> Self {
        Self(_mm_aesenc_si128(self.0, round_key.0))
    }

    #[inline]
    #[target_feature(enable = "avx,aes")]
    unsafe fn aes_last(self, round_key: Self) -> Self {
        Self(_mm_aesenclast_si128(self.0, round_key.0))
    }

    #[inline]
    #[target_feature(enable = "avx,pclmulqdq")]
    unsafe fn multiply<const HALVES: i32>(self, other: Self) -> Self {
        Self(_mm_clmulepi64_si128::<HALVES>(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn swap_halves(self) -> Self {
        Self(_mm_shuffle_epi32::<0b01_00_11_10>(self.0))
    }

    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn reverse(self) -> Self {
        // SAFETY: a constant of 16 octets.
        let order = unsafe { Self::broadcast(&raw const REVERSED) };
        Self(_mm_shuffle_epi8(self.0, order.0))
    }
}

impl Wide128 {
    /// Whether all bits are zero.
    ///
    /// # Safety
    /// The CPU has AVX.
    #[inline]
    #[target_feature(enable = "avx")]
    pub(in crate::engine::native) unsafe fn is_zero(self) -> bool {
        _mm_testz_si128(self.0, self.0) == 1
    }
}
