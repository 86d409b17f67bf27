// SPDX-License-Identifier: Apache-2.0
//! IPv6 longest-prefix match: a binary search over the prefix lengths that occur, one hash lookup a step, after
//! Waldvogel, Varghese, Turner, Plattner: "Scalable High Speed IP Routing Lookups" (SIGCOMM 1997).
//!
//! On the way of the search to its own length, a prefix leaves *markers*: a marker that is found says that longer
//! prefixes may match, and carries the best match among the shorter ones, so that the search never goes back.
//! With n lengths a lookup takes at most log2(n) + 1 probes: three for five lengths, eight for all 129.

use core::cmp::Ordering;
use std::sync::Arc;

use super::Leaf;
use crate::paged::PagedMap;

/// High word, low word, length.
type Key = [u64; 3];

#[derive(Clone)]
pub(super) struct Lengths {
    /// The lengths that occur, ascending.
    lengths: Arc<[u8]>,
    /// Prefixes and markers, with the best match for what they contain.
    entries: PagedMap<Key, Leaf>,
}

impl Lengths {
    #[inline]
    pub(super) fn lookup(&self, address: u128) -> Leaf {
        let mut best = Leaf::NONE;
        let mut rest = &*self.lengths;
        while let Some((shorter, length, longer)) = halves(rest) {
            match self.entries.get(&key(address, length)) {
                Some(leaf) => (best, rest) = (*leaf, longer),
                None => rest = shorter,
            }
        }
        best
    }

    /// Prefixes with their lengths and leaves, in any order, none twice.
    pub(super) fn build(prefixes: &[(u128, u8, Leaf)]) -> Lengths {
        let mut lengths: Vec<u8> = prefixes.iter().map(|(_, length, _)| *length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut real = PagedMap::default();
        for (address, length, leaf) in prefixes {
            let _ = real.insert(key(*address, *length), *leaf);
        }
        let mut entries = real.clone();
        for (address, length, _) in prefixes {
            let mut rest = &*lengths;
            while let Some((shorter, middle, longer)) = halves(rest) {
                match middle.cmp(length) {
                    Ordering::Greater => rest = shorter,
                    Ordering::Equal => break,
                    Ordering::Less => {
                        // A real prefix that stands there already is a marker too.
                        let _ =
                            entries.insert(key(*address, middle), best(&real, &lengths, *address, middle));
                        rest = longer;
                    }
                }
            }
        }
        Lengths { lengths: lengths.into(), entries }
    }
}

/// The longest real prefix of at most `length` bits that contains `address`.
fn best(real: &PagedMap<Key, Leaf>, lengths: &[u8], address: u128, length: u8) -> Leaf {
    let candidates = lengths.iter().rev().filter(|candidate| **candidate <= length);
    candidates
        .filter_map(|candidate| real.get(&key(address, *candidate)))
        .copied()
        .next()
        .unwrap_or(Leaf::NONE)
}

/// What lies left of the middle, the middle, and what lies right of it.
#[inline]
fn halves(lengths: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (shorter, rest) = lengths.split_at_checked(lengths.len() / 2)?;
    let (middle, longer) = rest.split_first()?;
    Some((shorter, *middle, longer))
}

#[inline]
fn key(address: u128, length: u8) -> Key {
    let host_bits = 128u32.saturating_sub(u32::from(length));
    let masked = address & u128::MAX.checked_shl(host_bits).unwrap_or(0);
    let [a, b, c, d, e, f, g, h, low @ ..] = masked.to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(low), u64::from(length)]
}
