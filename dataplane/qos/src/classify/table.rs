// SPDX-License-Identifier: Apache-2.0
//! Boxes that agree on some leading bits of some lanes, found by these bits at one blow.
//!
//! ```text
//! key & mask ── hash ──→ head: first entry | which of eight hashes there are
//!                          │
//!                          ↓
//!                        entry → entry      boxes in order of their ranks, a cache line each (IPv6: two)
//! ```
//!
//! What is in no box of the table mostly ends at its head, which is 4 bytes. All keys of a burst go one step, then all
//! the next, so that each line is asked for while others are worked on.

use pktbuf::prefetch;

use super::cube::{Cube, Extra};
use super::entry::Entry;
use super::key::Key;
use super::places::TOGETHER;

/// Entries behind one head. What finds no room is left for the next table.
pub(super) const CHAIN: usize = 6;
/// Bits of a head that say which hashes it has, and how many bits of a hash choose one of these.
const MARKS: u32 = 8;
const MARK_BITS: u32 = MARKS.ilog2();
/// A table of no more bytes is in a near cache after a few bursts: asking for its lines costs more than it brings.
const NEAR_BYTES: usize = 256 * 1024;
/// Odd, and dense in bits (the fractional part of π).
const MULTIPLIERS: [u64; WORDS] = [0x243f_6a88_85a3_08d3, 0xa409_3822_299f_31d1];
/// Words of four lanes that a table looks at.
const WORDS: usize = 2;

/// The bits that the boxes of a table have in common with their keys, in two words of four lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask {
    /// Which words.
    words: [u8; WORDS],
    /// Which bits of them.
    bits: [u64; WORDS],
}

impl Mask {
    /// A number for the bits that a key has there; its leading bits are the best.
    #[inline(always)]
    pub(super) fn hash<const LANES: usize>(&self, lanes: &[u16; LANES]) -> u64 {
        let words = lanes.as_chunks::<4>().0;
        let word =
            |at: usize| -> u64 { zerocopy::transmute!(words[usize::from(self.words[at]) % (LANES / 4)]) };
        let parts: [u64; WORDS] =
            core::array::from_fn(|at| (word(at) & self.bits[at]).wrapping_mul(MULTIPLIERS[at]));
        parts[0].wrapping_add(parts[1])
    }

    /// The mask with these bits of each lane; `None` if they are in more than two words.
    pub(super) fn of<const LANES: usize>(lanes: &[u16; LANES]) -> Option<Self> {
        let mut mask = Self::default();
        let asked = (0u8..).zip(lanes.as_chunks::<4>().0).filter(|(_, lanes)| **lanes != [0; 4]);
        for (at, (word, lanes)) in asked.enumerate() {
            *mask.words.get_mut(at)? = word;
            mask.bits[at] = zerocopy::transmute!(*lanes);
        }
        Some(mask)
    }

    /// Whether its bits are all among `lanes`.
    pub(super) fn is_within<const LANES: usize>(&self, lanes: &[u16; LANES]) -> bool {
        let words = lanes.as_chunks::<4>().0;
        self.words.iter().zip(&self.bits).all(|(word, bits)| {
            let word: u64 = zerocopy::transmute!(words[usize::from(*word) % (LANES / 4)]);
            bits & !word == 0
        })
    }
}

/// An entry with a cache line of its own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line<const EIGHTS: usize>(Entry<EIGHTS>);

const _: () = assert!(size_of::<Line<1>>() == 64 && size_of::<Line<3>>() == 128);

pub(super) struct Table<const EIGHTS: usize> {
    mask: Mask,
    /// What of a hash is not looked at.
    shift: u32,
    /// 2^n of them: the first entry above [`MARKS`] bits.
    heads: Box<[u32]>,
    lines: Box<[Line<EIGHTS>]>,
    /// Whether any entry has one.
    has_extras: bool,
}

impl<const EIGHTS: usize> Table<EIGHTS> {
    /// The table, and the boxes that are not in it. `cubes` are in order of their ranks, and so is what is left.
    pub(super) fn build<const LANES: usize>(mask: Mask, cubes: &[Cube<LANES>]) -> (Self, Vec<Cube<LANES>>) {
        let fitting = cubes.iter().filter(|cube| mask.is_within(&cube.fixed_bits())).count();
        let bits = slots(fitting).ilog2();
        let shift = u64::BITS - bits - MARK_BITS;
        let mut chains: Vec<Vec<&Cube<LANES>>> = vec![Vec::new(); 1 << bits];
        let (mut marks, mut left) = (vec![0u32; 1 << bits], Vec::new());
        for cube in cubes {
            let at = mask.hash(&cube.low) >> shift;
            let (slot, mark) = ((at >> MARK_BITS) as usize, at % u64::from(MARKS));
            if mask.is_within(&cube.fixed_bits()) && chains[slot].len() < CHAIN {
                chains[slot].push(cube);
                marks[slot] |= 1 << mark;
            } else {
                left.push(*cube);
            }
        }
        let (mut heads, mut lines) = (Vec::with_capacity(1 << bits), Vec::with_capacity(fitting));
        for (chain, marks) in chains.iter().zip(marks) {
            heads.push((lines.len() as u32) << MARKS | marks);
            for (at, cube) in chain.iter().enumerate() {
                let next = if at + 1 == chain.len() { 0 } else { lines.len() as u32 + 1 };
                lines.push(Line(Entry::new(cube, next)));
            }
        }
        let has_extras = lines.iter().any(|Line(entry): &Line<EIGHTS>| entry.has_extra());
        (Self { mask, shift, heads: heads.into(), lines: lines.into(), has_extras }, left)
    }

    /// Lowers the ranks in `best` to those of the first entries that the keys match here.
    #[inline(always)]
    pub(super) fn lookup<const LANES: usize>(
        &self,
        keys: &[Key<LANES>],
        best: &mut [u64; TOGETHER],
        extras: &[Extra],
    ) {
        let mut open = Open { all: [0; TOGETHER], count: 0 };
        if self.memory_bytes() > NEAR_BYTES {
            self.find_far(keys, &mut open);
        } else {
            self.find(keys.iter().map(|key| self.at(key)), &mut open);
        }
        if self.has_extras {
            self.compare::<true, _>(keys, best, extras, &mut open);
        } else {
            self.compare::<false, _>(keys, best, extras, &mut open);
        }
    }

    /// Asks for all heads before it looks at the first, and for the entries.
    #[inline(never)]
    fn find_far<const LANES: usize>(&self, keys: &[Key<LANES>], open: &mut Open) {
        let mut all = [0; TOGETHER];
        for (at, key) in all.iter_mut().zip(keys) {
            *at = self.at(key);
            if let Some(head) = self.heads.get((*at >> MARK_BITS) as usize) {
                prefetch(head);
            }
        }
        self.find(all.into_iter().take(keys.len()), open);
        for item in open.all.iter().take(open.count) {
            self.fetch(item >> MARKS);
        }
    }

    /// Opens what the heads have for keys that are `at` there.
    #[inline(always)]
    fn find(&self, all: impl Iterator<Item = u32>, open: &mut Open) {
        for (place, at) in (0..).zip(all) {
            let head = self.heads.get((at >> MARK_BITS) as usize).copied().unwrap_or(0);
            open.push_if(head >> MARKS, place, head >> (at % MARKS) & 1 == 1);
        }
    }

    /// Compares the open keys with their entries and all behind.
    #[inline(always)]
    fn compare<const EXTRAS: bool, const LANES: usize>(
        &self,
        keys: &[Key<LANES>],
        best: &mut [u64; TOGETHER],
        extras: &[Extra],
        open: &mut Open,
    ) {
        while open.count > 0 {
            let before = core::mem::take(&mut open.count);
            for at in 0..before {
                let item = open.all[at % TOGETHER];
                let place = item as usize % TOGETHER;
                let (Some(Line(entry)), Some(key)) =
                    (self.lines.get((item >> MARKS) as usize), keys.get(place))
                else {
                    continue;
                };
                let (lower, goes_on) = entry.ask::<EXTRAS, _>(key, extras, best[place]);
                best[place] = lower;
                open.push_if(entry.next, place as u32, goes_on);
            }
        }
    }

    /// The head of a key, and behind it its mark there.
    #[inline(always)]
    fn at<const LANES: usize>(&self, key: &Key<LANES>) -> u32 {
        self.mask.hash(&key.lanes).wrapping_shr(self.shift) as u32
    }

    #[inline(always)]
    fn fetch(&self, line: u32) {
        if let Some(line) = self.lines.get(line as usize) {
            prefetch(line);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.heads) + size_of_val(&*self.lines)
    }
}

/// Heads for so many boxes.
pub(super) fn slots(boxes: usize) -> usize {
    (2 * boxes.max(1)).next_power_of_two()
}

/// Keys of a burst that are still to be compared: an entry above eight bits for the key's place.
struct Open {
    all: [u32; TOGETHER],
    count: usize,
}

impl Open {
    /// One more if `goes`: written in any case, for a jump would be foreseen by no CPU.
    #[inline(always)]
    fn push_if(&mut self, line: u32, place: u32, goes: bool) {
        self.all[self.count % TOGETHER] = line << MARKS | place;
        self.count += usize::from(goes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cube::{Extras, Part, cubes};
    use super::super::key::KeyV4;
    use super::super::rule::{Addresses, Class, Rule, Span};
    use super::*;

    fn to_host(host: u32) -> Rule {
        Rule { destination: Some(Addresses::V4(Span::only(host))), ..Rule::any(Class(1)) }
    }

    fn key(host: u32) -> KeyV4 {
        let mut lanes = [7; 16];
        [lanes[2], lanes[3]] = [host as u16, (host >> 16) as u16];
        KeyV4 { lanes }
    }

    #[test]
    fn a_far_table_opens_what_a_near_one_would() {
        let rules: Vec<Rule> = (0..20_000).map(|at| to_host(at * 3)).collect();
        let cubes = cubes::<2, 16>(&rules, Part::Whole, &mut Extras::new()).unwrap();
        let mask = Mask::of(&cubes[0].fixed_bits()).unwrap();
        let (table, left) = Table::<1>::build(mask, &cubes);
        assert!(table.memory_bytes() > NEAR_BYTES && left.len() < rules.len() / 100);
        for first in [0, 30_000, 59_990, 1 << 20] {
            for length in [0, 1, 63, 64] {
                let keys: Vec<KeyV4> = (first..first + length).map(key).collect();
                let [mut far, mut near] = [(); 2].map(|()| Open { all: [0; TOGETHER], count: 0 });
                table.find_far(&keys, &mut far);
                table.find(keys.iter().map(|key| table.at(key)), &mut near);
                assert_eq!(far.all[..far.count], near.all[..near.count]);
            }
        }
    }

    #[test]
    fn a_chain_takes_the_first_boxes_and_leaves_the_others_in_their_order() {
        let rules: Vec<Rule> =
            (0..10).map(|port| Rule { source_ports: Some(Span::only(port)), ..to_host(5) }).collect();
        let cubes: Vec<Cube<16>> = cubes::<2, 16>(&rules, Part::Whole, &mut Extras::new()).unwrap();
        let (table, left) = Table::<1>::build(Mask::default(), &cubes);
        assert_eq!((table.lines.len(), left.len()), (CHAIN, cubes.len() - CHAIN));
        assert!(left.iter().zip(&cubes[CHAIN..]).all(|(left, cube)| left.rank == cube.rank));
    }

    #[test]
    fn a_mask_has_bits_in_two_words_at_most() {
        let lanes = |asked: &[usize]| {
            let mut lanes = [0u16; 16];
            asked.iter().for_each(|lane| lanes[*lane] = 0xff00);
            lanes
        };
        assert!(Mask::of(&lanes(&[0, 3, 4])).is_some_and(|mask| mask.is_within(&[0xfff0; 16])));
        assert!(Mask::of(&lanes(&[0, 3, 12])).is_some_and(|mask| !mask.is_within(&lanes(&[0, 12]))));
        assert_eq!(Mask::of(&lanes(&[0, 4, 8])), None);
    }
}
