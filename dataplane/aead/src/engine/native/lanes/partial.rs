// SPDX-License-Identifier: Apache-2.0
//! Parts of a block, for forms without byte masks: loads and stores of 8, 4, 2 and 1 octets that may overlap.
//!
//! All passes through registers: no copy of a text is left on the stack.

use core::arch::x86_64::__m128i;
use core::ptr::{read_unaligned, write_unaligned};

use super::Block;

/// The first `bytes` (0 to 16) octets at `from`, zeros behind them; no other octet is touched.
///
/// # Safety
/// `bytes` octets at `from` are readable. SSE2 is part of x86-64.
#[inline(always)]
pub(in crate::engine::native) unsafe fn load_part(from: *const u8, bytes: usize) -> Block {
    // SAFETY: each load lies within the `bytes` octets: the second of a pair ends where they end.
    let value = unsafe {
        match bytes {
            0 => 0,
            1 => u128::from(*from),
            2..4 => {
                let (low, high) = pair::<u16>(from, bytes);
                u128::from(low) | u128::from(high) << (8 * (bytes - 2))
            }
            4..8 => {
                let (low, high) = pair::<u32>(from, bytes);
                u128::from(low) | u128::from(high) << (8 * (bytes - 4))
            }
            // The nonce, and the AAD with ESN: loads that match the stores by which they were staged.
            12 => {
                let (low, _) = pair::<u64>(from, bytes);
                let (_, high) = pair::<u32>(from, bytes);
                u128::from(low) | u128::from(high) << 64
            }
            8..16 => {
                let (low, high) = pair::<u64>(from, bytes);
                u128::from(low) | u128::from(high) << (8 * (bytes - 8))
            }
            _ => read_unaligned(from.cast()),
        }
    };
    from_value(value)
}

/// Writes the first `bytes` (0 to 16) octets of `block` to `to` and touches no other octet.
///
/// # Safety
/// `bytes` octets at `to` are writable.
#[inline(always)]
pub(in crate::engine::native) unsafe fn store_part(block: Block, to: *mut u8, bytes: usize) {
    let value = to_value(block);
    // The value, its first `bytes - width` octets shifted out.
    let end = |width: usize| value >> (8 * (bytes - width));
    // SAFETY: each store lies within the `bytes` octets: the second of a pair ends where they end.
    unsafe {
        match bytes {
            0 => {}
            1 => *to = value as u8,
            2..4 => put_pair(to, bytes, value as u16, end(2) as u16),
            4..8 => put_pair(to, bytes, value as u32, end(4) as u32),
            8..16 => put_pair(to, bytes, value as u64, end(8) as u64),
            _ => write_unaligned(to.cast(), value),
        }
    }
}

/// The first and the last `T` of `bytes` octets.
///
/// # Safety
/// `bytes` octets at `from` are readable, and not fewer than a `T` has.
#[inline(always)]
unsafe fn pair<T: Copy>(from: *const u8, bytes: usize) -> (T, T) {
    // SAFETY: both lie within the `bytes` octets.
    unsafe { (read_unaligned(from.cast()), read_unaligned(from.add(bytes - size_of::<T>()).cast())) }
}

/// Writes the first and the last `T` of `bytes` octets.
///
/// # Safety
/// `bytes` octets at `to` are writable, and not fewer than a `T` has.
#[inline(always)]
unsafe fn put_pair<T: Copy>(to: *mut u8, bytes: usize, first: T, last: T) {
    // SAFETY: both lie within the `bytes` octets.
    unsafe {
        write_unaligned(to.cast(), first);
        write_unaligned(to.add(bytes - size_of::<T>()).cast(), last);
    }
}

#[inline(always)]
fn from_value(value: u128) -> Block {
    // SAFETY: both are 16 octets of which every pattern is valid.
    unsafe { core::mem::transmute::<u128, __m128i>(value) }
}

#[inline(always)]
fn to_value(block: Block) -> u128 {
    // SAFETY: both are 16 octets of which every pattern is valid.
    unsafe { core::mem::transmute::<__m128i, u128>(block) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS: [u8; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

    #[test]
    fn a_part_of_a_block_is_loaded_with_zeros_behind_it() {
        for bytes in 0..=16 {
            // SAFETY: there are 20 octets.
            let loaded = to_value(unsafe { load_part(OCTETS.as_ptr(), bytes) }).to_le_bytes();
            assert_eq!((&loaded[..bytes], &loaded[bytes..]), (&OCTETS[..bytes], &[0; 16][bytes..]));
        }
    }

    #[test]
    fn a_part_of_a_block_is_stored_and_nothing_behind_it() {
        for bytes in 0..=16 {
            let mut memory = [0xa5; 20];
            // SAFETY: there are 20 octets to read and to write.
            unsafe { store_part(load_part(OCTETS.as_ptr(), 16), memory.as_mut_ptr(), bytes) };
            assert_eq!((&memory[..bytes], &memory[bytes..]), (&OCTETS[..bytes], &[0xa5; 20][bytes..]));
        }
    }
}
