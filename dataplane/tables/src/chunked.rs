// SPDX-License-Identifier: Apache-2.0
//! An array with holes whose copies share all chunks that are equal: indices are dense, changes are few.
//!
//! ```text
//! directory ─▶ [ chunk 0 | chunk 1 | … ]      one Arc; copied when a chunk is replaced
//!                   │          ╲
//!                   ▼           ▼
//!            items 0–127   items 128–255      one Arc each; copied when an item in it changes
//! ```

use std::sync::Arc;

use pktbuf::prefetch;

/// Items in a chunk: with 60,000 items, directory and chunk are of like size, so that a change copies little.
const CHUNK: usize = 128;

type Chunk<T> = [Option<T>; CHUNK];

/// See the module's head. Cloning is one reference count.
pub struct Chunked<T> {
    directory: Arc<[Arc<Chunk<T>>]>,
    len: usize,
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        Self { directory: Arc::clone(&self.directory), len: self.len }
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { directory: Arc::from([]), len: 0 }
    }
}

impl<T> Chunked<T> {
    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The item at `index`.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.place(index)?.as_ref()
    }

    /// Where the item at `index` is, if there is one: it is not read.
    #[inline]
    #[must_use]
    pub fn place(&self, index: usize) -> Option<&Option<T>> {
        self.directory.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// Asks the CPU for the cache lines of an item.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        self.place(index).into_iter().for_each(prefetch);
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.directory.iter().enumerate().flat_map(|(place, chunk)| {
            let items = chunk.iter().enumerate();
            items.filter_map(move |(offset, item)| Some((place * CHUNK + offset, item.as_ref()?)))
        })
    }

    /// The indices at which two arrays differ, without looking into chunks that they share.
    pub(crate) fn differences(&self, other: &Self) -> Vec<usize>
    where
        T: PartialEq,
    {
        self.differences_by(other, |ours, theirs| ours == theirs)
    }

    /// The same, where `same` says what makes no difference.
    pub(crate) fn differences_by(
        &self,
        other: &Self,
        same: impl Fn(Option<&T>, Option<&T>) -> bool,
    ) -> Vec<usize> {
        let mut found = Vec::new();
        for place in 0..self.directory.len().max(other.directory.len()) {
            let (ours, theirs) = (self.directory.get(place), other.directory.get(place));
            if let (Some(ours), Some(theirs)) = (ours, theirs)
                && Arc::ptr_eq(ours, theirs)
            {
                continue;
            }
            let indices = place * CHUNK..(place + 1) * CHUNK;
            found.extend(indices.filter(|index| !same(self.get(*index), other.get(*index))));
        }
        found
    }
}

impl<T: Clone> Chunked<T> {
    /// Puts an item at `index`, or with `None` takes it away; returns what was there.
    pub fn set(&mut self, index: usize, item: Option<T>) -> Option<T> {
        if item.is_none() && self.get(index).is_none() {
            return None;
        }
        self.grow(index / CHUNK + 1);
        let added = usize::from(item.is_some());
        let chunk = Arc::make_mut(&mut self.directory).get_mut(index / CHUNK)?;
        let place = Arc::make_mut(chunk).get_mut(index % CHUNK)?;
        let before = std::mem::replace(place, item);
        self.len = self.len + added - usize::from(before.is_some());
        before
    }

    /// Makes room for `chunks` chunks; new ones share one empty chunk.
    fn grow(&mut self, chunks: usize) {
        if chunks <= self.directory.len() {
            return;
        }
        let empty: Arc<Chunk<T>> = Arc::new([const { None }; CHUNK]);
        let added = chunks.next_power_of_two() - self.directory.len();
        self.directory =
            self.directory.iter().cloned().chain(std::iter::repeat_n(empty, added)).collect::<Arc<[_]>>();
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Chunked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_do_not_see_each_other(
            before in prop::collection::vec((0usize..600, any::<Option<u8>>()), 0..100),
            after in prop::collection::vec((0usize..600, any::<Option<u8>>()), 0..20),
        ) {
            let (mut array, mut model) = (Chunked::default(), BTreeMap::new());
            let set = |array: &mut Chunked<u8>, model: &mut BTreeMap<usize, u8>, index, item: Option<u8>| {
                let old = match item { Some(item) => model.insert(index, item), None => model.remove(&index) };
                assert_eq!(array.set(index, item), old);
            };
            for (index, item) in before {
                set(&mut array, &mut model, index, item);
            }
            let (kept, kept_model) = (array.clone(), model.clone());
            for (index, item) in after {
                set(&mut array, &mut model, index, item);
            }
            for (array, model) in [(&array, &model), (&kept, &kept_model)] {
                prop_assert_eq!(array.len(), model.len());
                prop_assert!(array.iter().map(|(i, x)| (i, *x)).eq(model.iter().map(|(i, x)| (*i, *x))));
                prop_assert!((0..700).all(|i| array.get(i) == model.get(&i)));
            }
            let differ: Vec<_> = (0..700).filter(|i| model.get(i) != kept_model.get(i)).collect();
            prop_assert_eq!(array.differences(&kept), differ);
        }
    }

    #[test]
    fn a_change_copies_one_chunk_only() {
        let mut array = Chunked::default();
        for index in 0..1000 {
            array.set(index, Some(index));
        }
        let kept = array.clone();
        array.set(500, Some(501));
        let shared = array.directory.iter().zip(&*kept.directory).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, array.directory.len() - 1);
        assert_eq!((array.get(500), kept.get(500)), (Some(&501), Some(&500)));
    }
}
