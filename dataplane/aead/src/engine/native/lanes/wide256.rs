// SPDX-License-Identifier: Apache-2.0
//! Two blocks in a register: AVX2 with VAES and VPCLMULQDQ, for CPUs without AVX-512.

use core::arch::x86_64::*;

use super::{BLOCK_BYTES, Block, Lanes, REVERSED, Span, load_part, store_part};

/// Two lanes.
#[derive(Clone, Copy)]
pub(in crate::engine::native) struct Wide256(__m256i);

impl Lanes for Wide256 {
    const BLOCKS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn splat(block: Block) -> Self {
        Self(_mm256_broadcastsi128_si256(block))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn broadcast(from: *const [u8; BLOCK_BYTES]) -> Self {
        // SAFETY: the caller's 16 octets.
        Self(_mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn first(block: Block) -> Self {
        Self(_mm256_zextsi128_si256(block))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn counter(word: u32) -> Self {
        Self(_mm256_blend_epi32::<0b1000_1000>(_mm256_setzero_si256(), _mm256_set1_epi32(word.cast_signed())))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's 32 octets.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's 32 octets.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    // Without `target_feature`, which excludes `inline(always)`: a call here would spill keystream to the stack.
    #[inline(always)]
    unsafe fn load_span(from: *const u8, span: Span) -> Self {
        // SAFETY: the caller's promise about the CPU, and the caller's octets of the span.
        unsafe {
            if span.to <= BLOCK_BYTES {
                return Self::first(load_part(from.wrapping_add(span.from), span.to - span.from));
            }
            let low = if span.from == 0 { _mm_loadu_si128(from.cast()) } else { _mm_setzero_si128() };
            let high = load_part(from.wrapping_add(BLOCK_BYTES), span.to - BLOCK_BYTES);
            Self(_mm256_set_m128i(high, low))
        }
    }

    // Without `target_feature`, which excludes `inline(always)`: a call here would spill keystream to the stack.
    #[inline(always)]
    unsafe fn store_span(self, to: *mut u8, span: Span) {
        // SAFETY: the caller's promise about the CPU, and the caller's octets of the span.
        unsafe {
            let (low, high) = (_mm256_castsi256_si128(self.0), _mm256_extracti128_si256::<1>(self.0));
            if span.to <= BLOCK_BYTES {
                return store_part(low, to.wrapping_add(span.from), span.to - span.from);
            }
            if span.from == 0 {
                _mm_storeu_si128(to.cast(), low);
            }
            store_part(high, to.wrapping_add(BLOCK_BYTES), span.to - BLOCK_BYTES);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn keep(self, span: Span) -> Self {
        let index = _mm256_set_epi8(
            31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7,
            6, 5, 4, 3, 2, 1, 0,
        );
        let before_end = _mm256_cmpgt_epi8(_mm256_set1_epi8(span.to as i8), index);
        let before_start = _mm256_cmpgt_epi8(_mm256_set1_epi8(span.from as i8), index);
        Self(_mm256_and_si256(self.0, _mm256_andnot_si256(before_start, before_end)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lane_0(self) -> Block {
        _mm256_castsi256_si128(self.0)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn fold(self) -> Block {
        _mm_xor_si128(_mm256_castsi256_si128(self.0), _mm256_extracti128_si256::<1>(self.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn with_last_lane(self, other: Self) -> Self {
        Self(_mm256_blend_epi32::<0b1111_0000>(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn xor(self, other: Self) -> Self {
        Self(_mm256_xor_si256(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn xor3(self, second: Self, third: Self) -> Self {
        Self(_mm256_xor_si256(_mm256_xor_si256(self.0, second.0), third.0))
    }

    #[inline]
    #[target_feature(enable = "avx2,vaes")]
    unsafe fn aes(self, round_key: Self) -> Self {
        Self(_mm256_aesenc_epi128(self.0, round_key.0))
    }

    #[inline]
    #[target_feature(enable = "avx2,vaes")]
    unsafe fn aes_last(self, round_key: Self) -> Self {
        Self(_mm256_aesenclast_epi128(self.0, round_key.0))
    }

    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    unsafe fn multiply<const HALVES: i32>(self, other: Self) -> Self {
        Self(_mm256_clmulepi64_epi128::<HALVES>(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn swap_halves(self) -> Self {
        Self(_mm256_shuffle_epi32::<0b01_00_11_10>(self.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn reverse(self) -> Self {
        // SAFETY: a constant of 16 octets.
        let order = unsafe { Self::broadcast(&raw const REVERSED) };
        Self(_mm256_shuffle_epi8(self.0, order.0))
    }
}
