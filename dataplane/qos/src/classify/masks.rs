// SPDX-License-Identifier: Apache-2.0
//! Which bits the next table looks at.
//!
//! Beginning with none, the leading bits of one lane after the other are taken up or left, whatever finds room for the
//! most boxes, until nothing is better. The boxes of most sets have a few pairs of prefix lengths: a table for
//! the shorter ones is good for the longer too, as in TupleMerge (Daly et al., 2019).

use super::cube::Cube;
use super::table::{CHAIN, Mask, slots};

/// Of more boxes every second, third and so on is looked at.
const LOOKED_AT: usize = 1 << 16;
/// Leading bits of a lane.
const LENGTHS: [u32; 7] = [0, 4, 8, 10, 12, 14, 16];
/// What so many boxes behind one head are worth together: the more there are, the more a key is compared with.
const WORTH: [u32; CHAIN + 1] = [0, 10, 19, 27, 34, 40, 45];

/// The mask whose table has room for the most of `cubes`.
pub(super) fn best<const LANES: usize>(cubes: &[Cube<LANES>]) -> Mask {
    let mut search = Search::of(cubes);
    let (mut lanes, mut best) = ([0; LANES], Mask::default());
    let mut worth = search.worth(&best);
    loop {
        let mut next = None;
        for lanes in search.neighbours(lanes) {
            let Some(mask) = Mask::of(&lanes) else { continue };
            let found = search.worth(&mask);
            if found > worth {
                (next, worth) = (Some((lanes, mask)), found);
            }
        }
        let Some(found) = next else { return best };
        (lanes, best) = found;
    }
}

struct Search<const LANES: usize> {
    /// A corner of each box, and the leading bits that all its keys have alike.
    boxes: Vec<([u16; LANES], [u16; LANES])>,
    /// The bits of each lane that are fixed in any box.
    fixed: [u16; LANES],
    /// Boxes behind each head.
    heads: Vec<u8>,
    shift: u32,
}

impl<const LANES: usize> Search<LANES> {
    fn of(cubes: &[Cube<LANES>]) -> Self {
        let step = cubes.len().div_ceil(LOOKED_AT).max(1);
        let boxes: Vec<_> = cubes.iter().step_by(step).map(|cube| (cube.low, cube.fixed_bits())).collect();
        let any = |lane: usize| boxes.iter().fold(0, |any, (_, fixed)| any | fixed[lane]);
        let fixed = core::array::from_fn(any);
        let heads = vec![0; slots(boxes.len())];
        let shift = u64::BITS - heads.len().ilog2();
        Self { boxes, fixed, heads, shift }
    }

    /// `lanes` with another length in one of them.
    fn neighbours(&self, lanes: [u16; LANES]) -> impl Iterator<Item = [u16; LANES]> + use<LANES> {
        let fixed = self.fixed;
        let all = (0..LANES).flat_map(|lane| LENGTHS.map(|length| (lane, length)));
        all.filter_map(move |(lane, length)| {
            let bits = !u16::MAX.checked_shr(length).unwrap_or(0);
            let mut other = lanes;
            other[lane] = bits;
            (bits & !fixed[lane] == 0 && other != lanes).then_some(other)
        })
    }

    fn worth(&mut self, mask: &Mask) -> u32 {
        self.heads.fill(0);
        let mut worth = 0;
        for (low, fixed) in &self.boxes {
            if mask.is_within(fixed) {
                let head = (mask.hash(low) >> self.shift) as usize;
                let before = usize::from(self.heads[head]);
                if before < CHAIN {
                    worth += WORTH[before + 1] - WORTH[before];
                    self.heads[head] += 1;
                }
            }
        }
        worth
    }
}
