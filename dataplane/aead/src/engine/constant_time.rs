// SPDX-License-Identifier: Apache-2.0
//! Comparison of ICVs in constant time (NIST SP 800-38D §7.2 wants no more than FAIL to be learned).

use std::hint::black_box;

/// Whether the first octets of `computed` are `received`, whose length (8, 12 or 16) is no secret.
///
/// `computed` is zero behind that length. Any other length is not equal.
#[inline]
pub(super) fn icv_equal(computed: &[u8; 16], received: &[u8]) -> bool {
    let Some(received) = padded(received) else {
        return false;
    };
    let difference = u128::from_le_bytes(*computed) ^ received;
    let [low, high] = [difference as u64, (difference >> 64) as u64];
    black_box(low | high) == 0
}

#[inline]
fn padded(icv: &[u8]) -> Option<u128> {
    if let Ok(icv) = <[u8; 16]>::try_from(icv) {
        return Some(u128::from_le_bytes(icv));
    }
    let (low, rest) = icv.split_first_chunk::<8>()?;
    let low = u128::from(u64::from_le_bytes(*low));
    if rest.is_empty() {
        return Some(low);
    }
    let high = <[u8; 4]>::try_from(rest).ok()?;
    Some(low | u128::from(u32::from_le_bytes(high)) << 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_icvs_of_the_three_lengths_are_equal_and_one_bit_makes_them_differ() {
        for length in [8, 12, 16] {
            let icv: Vec<u8> = (0..length).map(|i| 0xa5 ^ (i as u8 * 17)).collect();
            let mut computed = [0; 16];
            computed[..length].copy_from_slice(&icv);
            assert!(icv_equal(&computed, &icv));
            for bit in 0..128 {
                let mut wrong = computed;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!icv_equal(&wrong, &icv), "length {length}, bit {bit}");
            }
        }
    }

    #[test]
    fn icvs_of_other_lengths_are_never_equal() {
        for length in (0..=32).filter(|length| ![8, 12, 16].contains(length)) {
            assert!(!icv_equal(&[0; 16], &vec![0; length]), "length {length}");
        }
    }
}
