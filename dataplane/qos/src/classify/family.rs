// SPDX-License-Identifier: Apache-2.0
//! All boxes for the packets of one family, in the forms in which they are found fastest.
//!
//! Tables take what they have room for, as long as one of them is worth its look. A few boxes that are left
//! are compared with every key (`columns`), many become trees.

use super::NO_RULE;
use super::build;
use super::columns::Columns;
use super::cube::{Cube, Extra, rank};
use super::key::Key;
use super::masks;
use super::places::TOGETHER;
use super::rule::Class;
use super::table::Table;
use super::tree::Tree;

/// A family has at most so many tables.
const TABLES_MAX: usize = 16;
/// A look into a table costs as much as so many boxes that every key is compared with, or a little less.
const TABLE_MIN: usize = 16;
/// A table takes at least one of so many boxes.
const TABLE_PART: usize = 8;
/// What is left is compared with every key if it is no more.
const SCANNED_MAX: usize = 48;

/// Boxes of `LANES` lanes, `EIGHTS` times eight of them in an entry.
pub(super) enum Family<const EIGHTS: usize, const LANES: usize> {
    /// They answer with their classes.
    Few(Columns<LANES>),
    Many(Many<EIGHTS, LANES>),
}

pub(super) struct Many<const EIGHTS: usize, const LANES: usize> {
    tables: Vec<Table<EIGHTS>>,
    trees: Vec<Tree<EIGHTS>>,
    /// The rest, which answers with places in `ranks`.
    few: Columns<LANES>,
    /// Behind all others that of no box.
    ranks: Box<[u64]>,
    default: u64,
}

impl<const EIGHTS: usize, const LANES: usize> Family<EIGHTS, LANES> {
    /// `cubes` are in order of their ranks, `default` is the class of what is in none.
    pub(super) fn build(cubes: Vec<Cube<LANES>>, default: Class) -> Self {
        let (mut tables, mut rest) = (Vec::new(), cubes);
        while rest.len() >= TABLE_MIN && tables.len() < TABLES_MAX {
            let (table, left) = Table::build(masks::best(&rest), &rest);
            if rest.len() - left.len() < TABLE_MIN.max(rest.len() / TABLE_PART) {
                break;
            }
            tables.push(table);
            rest = left;
        }
        let many = if rest.len() > SCANNED_MAX { core::mem::take(&mut rest) } else { Vec::new() };
        if tables.is_empty() && many.is_empty() {
            let class = |cube: &Cube<LANES>| class(cube.rank).0;
            return Self::Few(Columns::new(rest.iter().map(|cube| (cube, class(cube))), default.0));
        }
        let ranks: Box<[u64]> = rest.iter().map(|cube| cube.rank).chain([u64::MAX]).collect();
        let few = Columns::new(rest.iter().zip(0..rest.len() as u16), rest.len() as u16);
        let default = rank(NO_RULE, default);
        Self::Many(Many { tables, trees: build::forest(many), few, ranks, default })
    }

    #[inline]
    pub(super) fn lookup(&self, keys: &[Key<LANES>], extras: &[Extra], classes: &mut [Class]) {
        match self {
            Self::Few(few) => {
                for (keys, classes) in keys.chunks(TOGETHER).zip(classes.chunks_mut(TOGETHER)) {
                    let mut found = [0; TOGETHER];
                    few.answers(keys, extras, &mut found);
                    for (class, found) in classes.iter_mut().zip(found) {
                        *class = Class(found);
                    }
                }
            }
            Self::Many(many) => {
                for (keys, classes) in keys.chunks(TOGETHER).zip(classes.chunks_mut(TOGETHER)) {
                    many.lookup(keys, extras, classes);
                }
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Few(few) => few.memory_bytes(),
            Self::Many(many) => {
                let tables: usize = many.tables.iter().map(Table::memory_bytes).sum();
                let trees: usize = many.trees.iter().map(|tree| size_of_val(&*tree.lines)).sum();
                tables + trees + many.few.memory_bytes() + size_of_val(&*many.ranks)
            }
        }
    }
}

impl<const EIGHTS: usize, const LANES: usize> Many<EIGHTS, LANES> {
    #[inline(always)]
    fn lookup(&self, keys: &[Key<LANES>], extras: &[Extra], classes: &mut [Class]) {
        let mut best = [self.default; TOGETHER];
        for table in &self.tables {
            table.lookup(keys, &mut best, extras);
        }
        for tree in &self.trees {
            tree.lookup(keys, &mut best, extras);
        }
        if self.ranks.len() > 1 {
            let mut found = [0; TOGETHER];
            self.few.answers(keys, extras, &mut found);
            for (best, found) in best.iter_mut().zip(found).take(keys.len()) {
                let rank = self.ranks.get(usize::from(found)).copied().unwrap_or(u64::MAX);
                *best = rank.min(*best);
            }
        }
        for (place, best) in classes.iter_mut().zip(best) {
            *place = class(best);
        }
    }
}

/// The class in a rank.
#[inline(always)]
fn class(rank: u64) -> Class {
    let [low, high, ..] = rank.to_le_bytes();
    Class(u16::from_le_bytes([low, high]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cube::{Extras, Part, cubes};
    use super::super::key::AnyKey;
    use super::super::rule::{Fragments, Headers, Rule, first_match};
    use super::super::tests::{headers, rules};
    use super::*;

    const DEFAULT: Class = Class(999);

    /// The same boxes as columns alone, as trees alone, and as one table before columns or trees.
    fn forms<const EIGHTS: usize, const LANES: usize>(cubes: &[Cube<LANES>]) -> Vec<Family<EIGHTS, LANES>> {
        let many = |tables, rest: Vec<Cube<LANES>>, scanned: Vec<Cube<LANES>>| {
            let few = Columns::new(scanned.iter().zip(0..scanned.len() as u16), scanned.len() as u16);
            let ranks = scanned.iter().map(|cube| cube.rank).chain([u64::MAX]).collect();
            Family::Many(Many {
                tables,
                trees: build::forest(rest),
                few,
                ranks,
                default: rank(NO_RULE, DEFAULT),
            })
        };
        let classes = cubes.iter().map(|cube| (cube, class(cube.rank).0));
        let (table, left) = Table::build(masks::best(cubes), cubes);
        let (same, again) = Table::build(masks::best(cubes), cubes);
        vec![
            Family::Few(Columns::new(classes, DEFAULT.0)),
            many(Vec::new(), cubes.to_vec(), Vec::new()),
            many(vec![table], left, Vec::new()),
            many(vec![same], Vec::new(), again),
        ]
    }

    fn compare<const WORDS: usize, const EIGHTS: usize, const LANES: usize>(
        rules: &[Rule],
        packets: &[Headers],
        key: impl Fn(AnyKey) -> Option<Key<LANES>>,
    ) -> Result<(), TestCaseError> {
        let mut extras = Extras::new();
        let cubes = cubes::<WORDS, LANES>(rules, Part::Whole, &mut extras).unwrap();
        let extras = extras.into_boxed();
        let whole = packets.iter().filter(|packet| !packet.later_fragment);
        let (keys, expected): (Vec<Key<LANES>>, Vec<Class>) = whole
            .filter_map(|packet| {
                let first = first_match(rules, packet, Fragments::WithoutPorts);
                Some((key(AnyKey::of(packet)?)?, first.map_or(DEFAULT, |place| rules[place].class)))
            })
            .unzip();
        for (form, family) in forms::<EIGHTS, LANES>(&cubes).iter().enumerate() {
            for length in 0..=keys.len() {
                let mut classes = vec![Class(12345); keys.len() + 1];
                family.lookup(&keys[..length], &extras, &mut classes[..length]);
                prop_assert_eq!(&classes[..length], &expected[..length], "form {}", form);
                prop_assert_eq!(classes[length], Class(12345));
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn each_form_says_what_the_linear_scan_says_of_bursts_of_every_length(
            rules in prop_oneof![rules(12), rules(80)], packets in prop::collection::vec(headers(), 200),
        ) {
            compare::<2, 1, 16>(&rules, &packets, |key| match key { AnyKey::V4(key) => Some(key), AnyKey::V6(_) => None })?;
            compare::<8, 3, 32>(&rules, &packets, |key| match key { AnyKey::V6(key) => Some(key), AnyKey::V4(_) => None })?;
        }
    }

    #[test]
    fn prefixes_become_tables_and_overlapping_ranges_of_ports_trees() {
        use super::super::rule::{Addresses, Span};
        let host =
            |host: u32| Rule { destination: Some(Addresses::V4(Span::only(host))), ..Rule::any(Class(1)) };
        let from = |port: u16| Rule {
            protocols: Span::only(6),
            destination_ports: Some(Span::new(port, port + 20_000)),
            ..Rule::any(Class(2))
        };
        let built = |rules: &[Rule]| -> Family<1, 16> {
            Family::build(cubes::<2, 16>(rules, Part::Whole, &mut Extras::new()).unwrap(), DEFAULT)
        };
        let hosts: Vec<Rule> = (0..1000).map(|at| host(at * 77)).collect();
        let ports: Vec<Rule> = (0..1000).map(|at| from(at * 7)).collect();
        assert!(matches!(built(&hosts[..8]), Family::Few(_)));
        assert!(
            matches!(built(&hosts), Family::Many(Many { tables, trees, .. }) if !tables.is_empty() && trees.is_empty())
        );
        assert!(matches!(built(&ports), Family::Many(Many { trees, .. }) if !trees.is_empty()));
    }
}
