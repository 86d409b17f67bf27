// SPDX-License-Identifier: Apache-2.0
//! Vectors of blocks: the operations that AES-GCM is made of, at 512, 256 and 128 bits.
//!
//! The algorithm (`gcm.rs`) is written once over [`Lanes`]. A lane is one block; operations act on every lane
//! alike unless they say otherwise. Each form is one file with nothing in it but instructions.

mod partial;
mod wide128;
mod wide256;
mod wide512;

/// A call of a function that has the contract of its caller: for lanes that are made of others.
#[cfg(any(test, feature = "models"))]
macro_rules! pass_on {
    ($call:expr) => {
        // SAFETY: the features of the lanes that these are made of are the caller's promise, and so is the memory (`Lanes`).
        unsafe { $call }
    };
}

#[cfg(any(test, feature = "models"))]
pub(super) mod hybrid;
#[cfg(any(test, feature = "models"))]
pub(super) mod model;

use core::arch::x86_64::__m128i;

pub(super) use partial::{load_part, store_part};
pub(super) use wide128::Wide128;
pub(super) use wide256::Wide256;
pub(super) use wide512::Wide512;

/// One block: 16 octets in a register.
pub(super) type Block = __m128i;

/// Octets of a block.
pub(super) const BLOCK_BYTES: usize = 16;

/// The octets `from..to` of a vector; `from` begins a lane.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// A vector of blocks.
///
/// # Safety
/// Every function: this CPU has the features that the implementation names (invariant 7). Functions that take
/// an address say what must be readable or writable there, at any alignment.
pub(super) trait Lanes: Copy {
    /// Blocks of a vector.
    const BLOCKS: usize;
    /// Octets of a vector.
    const BYTES: usize = BLOCK_BYTES * Self::BLOCKS;

    /// `block` in every lane.
    unsafe fn splat(block: Block) -> Self;
    /// The 16 octets at `from` in every lane.
    unsafe fn broadcast(from: *const [u8; BLOCK_BYTES]) -> Self;
    /// `block` in lane 0, zeros in the others.
    unsafe fn first(block: Block) -> Self;
    /// `word` in the last 32 bits of every lane, zeros in the rest.
    unsafe fn counter(word: u32) -> Self;
    /// The [`Self::BYTES`] octets at `from`.
    unsafe fn load(from: *const u8) -> Self;
    /// Writes the [`Self::BYTES`] octets at `to`.
    unsafe fn store(self, to: *mut u8);
    /// The octets of `span` of those at `from`, zeros for the others, which are not touched.
    unsafe fn load_span(from: *const u8, span: Span) -> Self;
    /// Writes the octets of `span` of those at `to`; the others are not touched.
    unsafe fn store_span(self, to: *mut u8, span: Span);
    /// The octets of `span`, zeros for the others.
    unsafe fn keep(self, span: Span) -> Self;

    /// Lane 0.
    unsafe fn lane_0(self) -> Block;
    /// The sum (exclusive or) of all lanes.
    unsafe fn fold(self) -> Block;
    /// `self`, with the last lane of `other`.
    unsafe fn with_last_lane(self, other: Self) -> Self;

    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn xor3(self, second: Self, third: Self) -> Self;
    /// One inner round of AES.
    unsafe fn aes(self, round_key: Self) -> Self;
    /// The last round of AES.
    unsafe fn aes_last(self, round_key: Self) -> Self;
    /// Carry-less product of 64-bit halves: bit 0 of `HALVES` chooses the high half of `self`, bit 4 of `other`.
    unsafe fn multiply<const HALVES: i32>(self, other: Self) -> Self;
    /// Exchanges the halves of each lane.
    unsafe fn swap_halves(self) -> Self;
    /// Reverses the octets of each lane.
    unsafe fn reverse(self) -> Self;
}

/// Where the octets of a lane come from when it is reversed.
static REVERSED: [u8; BLOCK_BYTES] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
