// SPDX-License-Identifier: Apache-2.0
//! One packet: its ICV written or compared.

use super::Schedule;
use super::gcm::crypt;
use super::lanes::{BLOCK_BYTES, Block, Lanes, Span, Wide128, load_part, store_part};
use crate::parameters::NONCE_BYTES;

/// Encrypts `text` in place and writes the ICV.
///
/// # Safety
/// The caller has `V`'s features on, and the CPU has them.
#[inline(always)]
pub(super) unsafe fn seal<V: Lanes>(
    schedule: &Schedule,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
    icv: &mut [u8],
) {
    // SAFETY: the caller's promise; the ICV's own octets.
    unsafe {
        let computed = crypt::<V, true>(&schedule.blocks, schedule.size.rounds(), nonce, aad, text);
        match icv.len() {
            // By far the most frequent one is written by one store.
            BLOCK_BYTES => Wide128::first(computed).store(icv.as_mut_ptr()),
            bytes => store_part(computed, icv.as_mut_ptr(), bytes),
        }
    }
}

/// Decrypts `text` in place and says whether `icv` is right.
///
/// # Safety
/// As of [`seal`].
#[inline(always)]
pub(super) unsafe fn open<V: Lanes>(
    schedule: &Schedule,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
    icv: &[u8],
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let computed = crypt::<V, false>(&schedule.blocks, schedule.size.rounds(), nonce, aad, text);
        equal(computed, icv)
    }
}

/// Whether the first octets of `computed` are `received`, of 8, 12 or 16, in constant time: one comparison of
/// all bits in a register.
///
/// # Safety
/// As of [`seal`].
#[inline(always)]
unsafe fn equal(computed: Block, received: &[u8]) -> bool {
    let bytes = received.len();
    if !matches!(bytes, 8 | 12 | 16) {
        return false;
    }
    // SAFETY: the caller's promise; the received octets.
    unsafe {
        let received = Wide128::first(load_part(received.as_ptr(), bytes));
        Wide128::first(computed).keep(Span { from: 0, to: bytes }).xor(received).is_zero()
    }
}
