// SPDX-License-Identifier: Apache-2.0
//! Four blocks in a register: AVX-512 with VAES and VPCLMULQDQ.

use core::arch::x86_64::*;

use super::{BLOCK_BYTES, Block, Lanes, REVERSED, Span};

/// Four lanes.
#[derive(Clone, Copy)]
pub(in crate::engine::native) struct Wide512(__m512i);

/// `vpternlog`'s truth table of a ^ b ^ c.
const XOR3: i32 = 0x96;

impl Lanes for Wide512 {
    const BLOCKS: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn splat(block: Block) -> Self {
        Self(_mm512_broadcast_i32x4(block))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn broadcast(from: *const [u8; BLOCK_BYTES]) -> Self {
        // SAFETY: the caller's 16 octets.
        Self(_mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn first(block: Block) -> Self {
        Self(_mm512_zextsi128_si512(block))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn counter(word: u32) -> Self {
        Self(_mm512_maskz_set1_epi32(0x8888, word.cast_signed()))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's 64 octets.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's 64 octets.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    unsafe fn load_span(from: *const u8, span: Span) -> Self {
        // SAFETY: the caller's octets of the span; the CPU does not touch those that are masked out.
        Self(unsafe { _mm512_maskz_loadu_epi8(mask(span), from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    unsafe fn store_span(self, to: *mut u8, span: Span) {
        // SAFETY: the caller's octets of the span; the CPU does not touch those that are masked out.
        unsafe { _mm512_mask_storeu_epi8(to.cast(), mask(span), self.0) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    unsafe fn keep(self, span: Span) -> Self {
        Self(_mm512_maskz_mov_epi8(mask(span), self.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn lane_0(self) -> Block {
        _mm512_castsi512_si128(self.0)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2")]
    unsafe fn fold(self) -> Block {
        let half = _mm256_xor_si256(_mm512_castsi512_si256(self.0), _mm512_extracti64x4_epi64::<1>(self.0));
        _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn with_last_lane(self, other: Self) -> Self {
        Self(_mm512_mask_blend_epi64(0b1100_0000, self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn xor(self, other: Self) -> Self {
        Self(_mm512_xor_si512(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn xor3(self, second: Self, third: Self) -> Self {
        Self(_mm512_ternarylogic_epi64::<XOR3>(self.0, second.0, third.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    unsafe fn aes(self, round_key: Self) -> Self {
        Self(_mm512_aesenc_epi128(self.0, round_key.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,vaes")]
    unsafe fn aes_last(self, round_key: Self) -> Self {
        Self(_mm512_aesenclast_epi128(self.0, round_key.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    unsafe fn multiply<const HALVES: i32>(self, other: Self) -> Self {
        Self(_mm512_clmulepi64_epi128::<HALVES>(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn swap_halves(self) -> Self {
        Self(_mm512_shuffle_epi32::<0b01_00_11_10>(self.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn reverse(self) -> Self {
        // SAFETY: a constant of 16 octets.
        let order = unsafe { Self::broadcast(&raw const REVERSED) };
        Self(_mm512_shuffle_epi8(self.0, order.0))
    }
}

/// One bit for each octet of `span`.
#[inline]
#[target_feature(enable = "bmi2")]
fn mask(span: Span) -> __mmask64 {
    _bzhi_u64(u64::MAX << span.from, span.to as u32)
}
