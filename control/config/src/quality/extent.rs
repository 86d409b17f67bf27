// SPDX-License-Identifier: Apache-2.0
//! What class-maps come to with those that they name, however many there are and however they name each other.

use std::collections::{HashMap, HashSet};

use super::ClassMapEntry;

/// A class-map with all that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// 1 if it names no other.
    pub(super) depth: usize,
    /// Criteria; those of another class-map count wherever it is named.
    pub(super) criteria: usize,
}

/// Class-maps by name.
pub(super) type ClassMaps<'a> = HashMap<&'a str, &'a ClassMapEntry>;

/// Of every class-map, but for those that are in a circle or name one that is. Those that name none come first, then
/// those that name only these, and so on.
pub(super) fn extents<'a>(maps: &ClassMaps<'a>) -> HashMap<&'a str, Extent> {
    let mut users: HashMap<&str, Vec<&'a str>> = HashMap::new();
    let mut missing: HashMap<&str, usize> = HashMap::new();
    for (name, map) in maps {
        let mut count = 0;
        for nested in nested(maps, map) {
            users.entry(nested).or_default().push(name);
            count += 1;
        }
        missing.insert(name, count);
    }
    let mut ready: Vec<&str> = maps.keys().copied().filter(|name| missing.get(name) == Some(&0)).collect();
    let mut extents = HashMap::new();
    while let Some(name) = ready.pop() {
        let Some(map) = maps.get(name) else { continue };
        let known = nested(maps, map).filter_map(|nested| extents.get(nested));
        let alone = Extent { depth: 1, criteria: map.criteria.len() };
        let extent = known.fold(alone, |all, nested: &Extent| Extent {
            depth: all.depth.max(nested.depth.saturating_add(1)),
            criteria: all.criteria.saturating_add(nested.criteria),
        });
        extents.insert(name, extent);
        release(users.get(name).into_iter().flatten().copied(), &mut missing, &mut ready);
    }
    extents
}

/// The class-maps of circles, and what stands between two of them.
pub(super) fn circles<'a>(maps: &ClassMaps<'a>, extents: &HashMap<&'a str, Extent>) -> HashSet<&'a str> {
    let mut left: HashSet<&str> = maps.keys().copied().filter(|name| !extents.contains_key(name)).collect();
    let mut uses: HashMap<&str, usize> = left.iter().map(|name| (*name, 0)).collect();
    let inside = |map| nested(maps, map).filter(|nested| !extents.contains_key(nested));
    for nested in left.iter().filter_map(|name| maps.get(name)).flat_map(|map| inside(map)) {
        uses.entry(nested).and_modify(|uses| *uses += 1);
    }
    let mut ready: Vec<&str> = left.iter().copied().filter(|name| uses.get(name) == Some(&0)).collect();
    while let Some(name) = ready.pop() {
        left.remove(name);
        release(maps.get(name).into_iter().flat_map(|map| inside(map)), &mut uses, &mut ready);
    }
    left
}

/// One thing less that each of `names` waits for.
fn release<'a>(
    names: impl Iterator<Item = &'a str>,
    waiting: &mut HashMap<&'a str, usize>,
    ready: &mut Vec<&'a str>,
) {
    for name in names {
        if let Some(count) = waiting.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                ready.push(name);
            }
        }
    }
}

/// The class-maps that there are of those that a class-map names.
fn nested<'a>(maps: &ClassMaps<'a>, map: &'a ClassMapEntry) -> impl Iterator<Item = &'a str> {
    let named = map.criteria.iter().filter_map(|criterion| criterion.class_map.as_deref());
    named.filter(|name| maps.contains_key(name))
}
