// SPDX-License-Identifier: Apache-2.0
//! Builds trees over the boxes that no table has room for.
//!
//! A node cuts its region on the lane that leaves the fewest boxes to a key. A box that would lie in many of its children
//! goes to the next tree instead, which is built from all such boxes; so boxes with the same wildcards end up in
//! one tree, and trees do not grow beyond a multiple of their boxes. The last tree keeps all.

use std::collections::VecDeque;

use super::cube::Cube;
use super::entry::{Entry, eights};
use super::tree::{Line, THRESHOLDS, Tree};

const TREES_MAX: usize = 4;
/// A region is cut so often, or less often if that makes too many lines.
const CUTS: [usize; 4] = [THRESHOLDS, 8, 3, 1];
/// A leaf of so many entries is not split.
const LEAF: usize = 3;
/// Below that many boxes none goes to the next tree.
const EVICT_FROM: usize = 512;
/// A split may make so many lines of each box.
const GROWTH_MAX: usize = 4;
/// A tree may have so many lines for each of its boxes.
const LINES_A_BOX: usize = 12;
const LINES_MIN: usize = 2048;
/// So few boxes are all in one tree.
const FEW: usize = 64;

/// The trees over `cubes`, which are in order of their ranks.
pub(super) fn forest<const EIGHTS: usize, const LANES: usize>(cubes: Vec<Cube<LANES>>) -> Vec<Tree<EIGHTS>> {
    let mut trees = Vec::new();
    let mut rest = cubes;
    for tree in 1..=TREES_MAX {
        let mut builder = Builder::new(&rest, tree < TREES_MAX && rest.len() > FEW);
        builder.build();
        let evicted = core::mem::take(&mut builder.evicted);
        let lines = core::mem::take(&mut builder.lines);
        let kept = rest.iter().zip(&evicted).filter(|(_, evicted)| !**evicted);
        let first_rank = kept.map(|(cube, _)| cube.rank).min().unwrap_or(u64::MAX);
        if first_rank != u64::MAX {
            trees.push(Tree { lines: lines.into_boxed_slice(), first_rank });
        }
        let next = rest.iter().zip(&evicted).filter(|(_, evicted)| **evicted);
        rest = next.map(|(cube, _)| *cube).collect();
    }
    trees
}

struct Builder<'c, const EIGHTS: usize, const LANES: usize> {
    cubes: &'c [Cube<LANES>],
    evicted: Vec<bool>,
    may_evict: bool,
    lines: Vec<Line<EIGHTS>>,
    /// Lines that are there and boxes that wait for one.
    planned: usize,
    lines_max: usize,
    waiting: VecDeque<Place<LANES>>,
}

/// A line that is to be written.
struct Place<const LANES: usize> {
    line: usize,
    /// The node it is a child of, and which.
    parent: Option<(usize, usize)>,
    low: [u16; LANES],
    high: [u16; LANES],
    /// The boxes in the region, in order of their ranks.
    cubes: Vec<u32>,
}

/// The last value and the boxes of each child.
type Children = Vec<(u16, Vec<u32>)>;

/// How a region may be split.
struct Split {
    lane: usize,
    /// The last value of each child but the last.
    cuts: Vec<u16>,
    /// Boxes that an average box's child has.
    left: f64,
}

impl<'c, const EIGHTS: usize, const LANES: usize> Builder<'c, EIGHTS, LANES> {
    fn new(cubes: &'c [Cube<LANES>], may_evict: bool) -> Self {
        Self {
            cubes,
            evicted: vec![false; cubes.len()],
            may_evict,
            lines: vec![Line::Entry(Entry::never())],
            planned: cubes.len() + 1,
            lines_max: LINES_MIN.min(64 + 24 * cubes.len()).max(cubes.len() * LINES_A_BOX),
            waiting: VecDeque::new(),
        }
    }

    fn build(&mut self) {
        let all = (0..).take(self.cubes.len()).collect();
        let root = Place { line: 0, parent: None, low: [0; LANES], high: [u16::MAX; LANES], cubes: all };
        self.waiting.push_back(root);
        while let Some(mut place) = self.waiting.pop_front() {
            self.prune(&mut place);
            if !self.split(&mut place) {
                self.write_leaf(&place);
            }
        }
    }

    fn cube(&self, index: u32) -> &'c Cube<LANES> {
        // Indices are those of the slice itself.
        &self.cubes[index as usize]
    }

    /// Leaves out what has gone to the next tree and what stands behind a box that covers the whole region.
    fn prune(&self, place: &mut Place<LANES>) {
        place.cubes.retain(|index| !self.evicted[*index as usize]);
        let covers = |cube: &Cube<LANES>| {
            cube.is_exact
                && cube.low.iter().zip(&place.low).all(|(cube, region)| cube <= region)
                && cube.high.iter().zip(&place.high).all(|(cube, region)| cube >= region)
        };
        if let Some(at) = place.cubes.iter().position(|index| covers(self.cube(*index))) {
            place.cubes.truncate(at + 1);
        }
    }

    /// Writes a node and has its children wait; `false` if the region is better a leaf.
    fn split(&mut self, place: &mut Place<LANES>) -> bool {
        if place.cubes.len() <= LEAF {
            return false;
        }
        let found = CUTS.into_iter().find_map(|cuts| self.children_of(place, cuts));
        let Some((lane, children, planned)) = found else { return false };
        self.planned = planned;
        self.write_node(place, lane, children);
        true
    }

    /// The lane and the children if the region is cut at most `cuts` times, and the lines that are planned then.
    fn children_of(&mut self, place: &mut Place<LANES>, cuts: usize) -> Option<(usize, Children, usize)> {
        let splits = (0..LANES).filter_map(|lane| self.cuts(place, lane, cuts));
        let split = splits.min_by(|a, b| a.left.total_cmp(&b.left))?;
        let before = place.cubes.len();
        if self.may_evict && before >= EVICT_FROM {
            self.evict(place, &split);
        }
        let children = self.children(place, &split);
        let lines: usize = children.iter().map(|(_, cubes)| cubes.len() + 1).sum();
        self.planned -= before - place.cubes.len();
        let planned = self.planned - place.cubes.len() + lines;
        let is_worth = children.len() > 1 && lines <= (GROWTH_MAX * place.cubes.len()).max(self.lines_free());
        (is_worth && planned <= self.lines_max).then_some((split.lane, children, planned))
    }

    /// What small trees may grow by at once.
    fn lines_free(&self) -> usize {
        self.lines_max.min(LINES_MIN).saturating_sub(self.planned) / 2
    }

    /// The boxes that lie in more than a quarter of the children go to the next tree.
    fn evict(&mut self, place: &mut Place<LANES>, split: &Split) {
        let most = 2.max((split.cuts.len() + 1) / 4);
        let (cubes, evicted) = (self.cubes, &mut self.evicted);
        let is_wide = |cube: &Cube<LANES>| {
            let first = split.cuts.partition_point(|cut| *cut < cube.low[split.lane]);
            let last = split.cuts.partition_point(|cut| *cut < cube.high[split.lane]);
            last - first + 1 > most
        };
        place.cubes.retain(|index| {
            let wide = is_wide(&cubes[*index as usize]);
            evicted[*index as usize] |= wide;
            !wide
        });
    }

    /// The last value and the boxes of each child; neighbours with the same boxes are one child.
    fn children(&self, place: &Place<LANES>, split: &Split) -> Children {
        let lane = split.lane;
        let mut children: Children = Vec::new();
        let mut first = place.low[lane];
        for last in split.cuts.iter().copied().chain([place.high[lane]]) {
            let is_in =
                |index: &&u32| self.cube(**index).low[lane] <= last && self.cube(**index).high[lane] >= first;
            let cubes: Vec<u32> = place.cubes.iter().filter(is_in).copied().collect();
            match children.last_mut() {
                Some(before) if before.1 == cubes => before.0 = last,
                _ => children.push((last, cubes)),
            }
            first = last.saturating_add(1);
        }
        children
    }

    /// Where `lane` would be cut; `None` if no box ends inside the region.
    fn cuts(&self, place: &Place<LANES>, lane: usize, most: usize) -> Option<Split> {
        let (low, high) = (place.low[lane], place.high[lane]);
        let ends = |index: &u32| {
            let cube = self.cube(*index);
            (cube.low[lane].max(low), cube.high[lane].min(high))
        };
        let (mut lows, mut highs): (Vec<u16>, Vec<u16>) = place.cubes.iter().map(ends).unzip();
        lows.sort_unstable();
        highs.sort_unstable();
        let before_lows = lows.iter().filter(|value| **value > low).map(|value| value - 1);
        let mut points: Vec<u16> =
            before_lows.chain(highs.iter().copied().filter(|value| *value < high)).collect();
        points.sort_unstable();
        points.dedup();
        if points.is_empty() {
            return None;
        }
        let started = |last: u16| lows.partition_point(|value| *value <= last);
        let ended = |last: u16| highs.partition_point(|value| *value <= last);
        let cuts = choose(&points, low, most, started, ended);
        let (mut left, mut from, mut gone) = (0.0, 0, 0);
        for last in cuts.iter().copied().chain([high]) {
            let to = started(last);
            left += (to - from) as f64 * (to - gone) as f64;
            (from, gone) = (to, ended(last));
        }
        Some(Split { lane, cuts, left: left / place.cubes.len() as f64 })
    }

    fn write_node(&mut self, place: &Place<LANES>, lane: usize, children: Children) {
        let first = self.lines.len();
        let mut thresholds = [u16::MAX; THRESHOLDS];
        for (threshold, (last, _)) in thresholds.iter_mut().zip(&children).take(children.len() - 1) {
            *threshold = *last;
        }
        self.lines.resize(first + children.len(), Line::Entry(Entry::never()));
        self.lines[place.line] = Line::Node {
            thresholds: eights(&thresholds),
            children: index(first),
            leaves: 0,
            lane: lane as u8,
        };
        let mut from = place.low[lane];
        for (child, (last, cubes)) in children.into_iter().enumerate() {
            let (mut low, mut high) = (place.low, place.high);
            (low[lane], high[lane]) = (from, last);
            let parent = Some((place.line, child));
            self.waiting.push_back(Place { line: first + child, parent, low, high, cubes });
            from = last.saturating_add(1);
        }
    }

    fn write_leaf(&mut self, place: &Place<LANES>) {
        let mut line = place.line;
        for (at, cube) in place.cubes.iter().enumerate() {
            let is_last = at + 1 == place.cubes.len();
            let next = if is_last { 0 } else { self.lines.len() };
            self.lines[line] = Line::Entry(Entry::new(self.cube(*cube), index(next)));
            if !is_last {
                self.lines.push(Line::Entry(Entry::never()));
                line = next;
            }
        }
        if let Some((parent, child)) = place.parent
            && let Line::Node { leaves, .. } = &mut self.lines[parent]
        {
            *leaves |= 1 << child;
        }
    }
}

/// At most `most` of `points`, with about as many ends of boxes between any two, where few boxes are cut.
fn choose(
    points: &[u16],
    low: u16,
    most: usize,
    started: impl Fn(u16) -> usize,
    ended: impl Fn(u16) -> usize,
) -> Vec<u16> {
    if points.len() <= most {
        return points.to_vec();
    }
    let base = started(low);
    let weight = |point: u16| started(point) - base + ended(point);
    let all = points.last().map_or(0, |last| weight(*last));
    let mut chosen: Vec<u16> = Vec::new();
    let (mut rest, mut done) = (points, 0);
    while chosen.len() < most && !rest.is_empty() {
        let step = ((all - done) / (most + 1 - chosen.len())).max(1);
        let from = rest.partition_point(|point| weight(*point) < done + step / 2);
        let to = rest.partition_point(|point| weight(*point) <= done + step + step / 2);
        let window = from..to.max(from + 1).min(rest.len());
        let cut =
            |at: &usize| (started(rest[*at]) - ended(rest[*at]), weight(rest[*at]).abs_diff(done + step));
        let Some(at) = window.min_by_key(cut) else { break };
        done = weight(rest[at]);
        chosen.push(rest[at]);
        rest = &rest[at + 1..];
    }
    chosen
}

/// Lines are bounded far below what 32 bits can count.
fn index(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(0)
}
