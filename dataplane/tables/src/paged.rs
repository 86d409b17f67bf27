// SPDX-License-Identifier: Apache-2.0
//! A hash map whose copies share all pages that are equal.
//!
//! ```text
//! high bits of the hash ─▶ directory [ page 0 | page 1 | … ]     one Arc, a power of two of pages
//! low bits of the hash  ─▶ page: slots, open addressing          one Arc each, a power of two of slots
//! ```
//!
//! A lookup is two dependent loads and a few neighbouring slots; a page is never more than three quarters full, so each
//! probe ends at a free slot.

use std::sync::Arc;

use pktbuf::prefetch;

use crate::hash::Key;

/// Pages are split when they hold more than this on average.
const PAGE_ENTRIES: usize = 128;
const PAGE_SLOTS_MIN: usize = 8;
/// A larger directory means four times the pages, so that splitting is rare.
const GROWTH: usize = 4;

type Slots<K, V> = [Option<(K, V)>];

struct Page<K, V> {
    slots: Arc<Slots<K, V>>,
    used: usize,
}

impl<K, V> Clone for Page<K, V> {
    fn clone(&self) -> Self {
        Self { slots: Arc::clone(&self.slots), used: self.used }
    }
}

/// See the module's head. Cloning is one reference count.
pub(crate) struct PagedMap<K, V> {
    directory: Arc<[Page<K, V>]>,
    /// The directory has 2^(64 − shift) pages; 64 means one.
    shift: u32,
    len: usize,
}

impl<K, V> Clone for PagedMap<K, V> {
    fn clone(&self) -> Self {
        Self { directory: Arc::clone(&self.directory), shift: self.shift, len: self.len }
    }
}

impl<K, V> Default for PagedMap<K, V> {
    fn default() -> Self {
        Self { directory: Arc::from([]), shift: 64, len: 0 }
    }
}

impl<K: Key, V: Clone> PagedMap<K, V> {
    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    /// The value under `key`.
    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = key.hash();
        let slots = &*self.directory.get(self.page_of(hash))?.slots;
        let mask = slots.len().wrapping_sub(1);
        let mut place = low(hash) & mask;
        loop {
            let (found, value) = slots.get(place)?.as_ref()?;
            if found == key {
                return Some(value);
            }
            place = (place + 1) & mask;
        }
    }

    /// Asks the CPU for what [`get`](Self::get) reads first.
    #[inline]
    pub(crate) fn prefetch(&self, key: &K) {
        let hash = key.hash();
        let Some(page) = self.directory.get(self.page_of(hash)) else { return };
        if let Some(slot) = page.slots.get(low(hash) & page.slots.len().wrapping_sub(1)) {
            prefetch(slot);
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The value that stands under `key` already; the map is unchanged.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), V> {
        if let Some(present) = self.get(&key) {
            return Err(present.clone());
        }
        self.make_room();
        let place = self.page_of(key.hash());
        if let Some(page) = Arc::make_mut(&mut self.directory).get_mut(place) {
            page.insert(key, value);
            self.len += 1;
        }
        Ok(())
    }

    /// The value under `key`, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get(key)?;
        let place = self.page_of(key.hash());
        let page = Arc::make_mut(&mut self.directory).get_mut(place)?;
        let slots = Arc::make_mut(&mut page.slots);
        slots.iter_mut().flatten().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    /// Takes an entry away and returns its value.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.get(key)?.clone();
        let place = self.page_of(key.hash());
        Arc::make_mut(&mut self.directory).get_mut(place)?.remove(key);
        self.len -= 1;
        Some(removed)
    }

    #[inline]
    fn page_of(&self, hash: u64) -> usize {
        low(hash.checked_shr(self.shift).unwrap_or(0))
    }

    /// Splits the pages when they are full on average.
    fn make_room(&mut self) {
        if self.directory.is_empty() {
            self.directory = [Page::new(PAGE_SLOTS_MIN)].into();
        }
        if self.len < self.directory.len() * PAGE_ENTRIES {
            return;
        }
        self.shift -= GROWTH.ilog2();
        let mut split: Vec<Page<K, V>> = std::iter::repeat_with(|| Page::new(PAGE_SLOTS_MIN))
            .take(self.directory.len() * GROWTH)
            .collect();
        for (key, value) in self.directory.iter().flat_map(|page| page.slots.iter()).flatten() {
            split[self.page_of(key.hash())].insert(*key, value.clone());
        }
        self.directory = split.into();
    }
}

impl<K: Key, V: Clone> Page<K, V> {
    fn new(slots: usize) -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(slots).collect(), used: 0 }
    }

    fn insert(&mut self, key: K, value: V) {
        if self.used >= self.slots.len() / 4 * 3 {
            *self = self.rebuilt(self.slots.len() * 2, |_| true);
        }
        put(Arc::make_mut(&mut self.slots), key, value);
        self.used += 1;
    }

    /// Builds the page anew without `key`: it is small, and open addressing leaves no holes then.
    fn remove(&mut self, key: &K) {
        *self = self.rebuilt(self.slots.len(), |found| found != key);
    }

    fn rebuilt(&self, slots: usize, keep: impl Fn(&K) -> bool) -> Self {
        let mut rebuilt: Vec<Option<(K, V)>> = std::iter::repeat_with(|| None).take(slots).collect();
        let mut used = 0;
        for (key, value) in self.slots.iter().flatten().filter(|(key, _)| keep(key)) {
            put(&mut rebuilt, *key, value.clone());
            used += 1;
        }
        Self { slots: rebuilt.into(), used }
    }
}

/// The low bits, as many as an index has.
#[inline]
fn low(hash: u64) -> usize {
    usize::from_le_bytes(hash.to_le_bytes())
}

/// Writes an entry into the first free slot from its place on; there is one.
fn put<K: Key, V>(slots: &mut Slots<K, V>, key: K, value: V) {
    let mask = slots.len() - 1;
    let mut place = low(key.hash()) & mask;
    while slots[place].is_some() {
        place = (place + 1) & mask;
    }
    slots[place] = Some((key, value));
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "Greyhound runs on 64-bit machines");

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A key whose hash is poor, so that pages overflow and probes run long.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    struct Poor(u16);

    impl Key for Poor {
        fn hash(&self) -> u64 {
            u64::from(self.0 % 5) << 61 | u64::from(self.0 % 7)
        }
    }

    fn check<K: Key + std::hash::Hash + std::fmt::Debug>(
        steps: &[(u16, bool)],
        key: impl Fn(u16) -> K,
    ) -> Result<(), TestCaseError> {
        let (mut map, mut model) = (PagedMap::default(), HashMap::new());
        let mut kept = (map.clone(), model.clone());
        for (step, (k, add)) in steps.iter().enumerate() {
            if *add {
                let expected = model.get(k).map_or(Ok(()), |v| Err(*v));
                prop_assert_eq!(map.insert(key(*k), step), expected);
                model.entry(*k).or_insert(step);
            } else {
                prop_assert_eq!(map.remove(&key(*k)), model.remove(k));
            }
            if step == steps.len() / 2 {
                kept = (map.clone(), model.clone());
            }
            if let Some(value) = map.get_mut(&key(k.wrapping_add(1))) {
                *value += 1;
                *model.get_mut(&k.wrapping_add(1)).unwrap() += 1;
            }
        }
        for (map, model) in [(&map, &model), (&kept.0, &kept.1)] {
            prop_assert_eq!(map.len(), model.len());
            for k in 0..=1024 {
                prop_assert_eq!(map.get(&key(k)), model.get(&k), "{:?}", k);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_do_not_see_each_other(
            steps in prop::collection::vec((0u16..1024, prop::bool::weighted(0.8)), 0..2000),
        ) {
            check(&steps, |k| [u64::from(k), 0, 7])?;
        }

        #[test]
        fn a_poor_hash_costs_time_but_no_entry(
            steps in prop::collection::vec((0u16..512, prop::bool::weighted(0.8)), 0..300),
        ) {
            check(&steps, Poor)?;
        }
    }

    #[test]
    fn a_change_copies_one_page_only() {
        let mut map = PagedMap::default();
        for key in 0..20_000u32 {
            map.insert(key, key).unwrap();
        }
        let kept = map.clone();
        map.remove(&77).unwrap();
        let shared = map
            .directory
            .iter()
            .zip(&*kept.directory)
            .filter(|(a, b)| Arc::ptr_eq(&a.slots, &b.slots))
            .count();
        assert!(map.directory.len() > 100 && shared == map.directory.len() - 1);
        assert_eq!((map.get(&77), kept.get(&77)), (None, Some(&77)));
    }
}
