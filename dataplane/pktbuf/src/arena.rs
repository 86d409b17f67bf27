// SPDX-License-Identifier: Apache-2.0
//! Arrays of plain data on huge pages, for tables that are read on the packet path.
//!
//! The memory is asked for as transparent huge pages, which need no set-up of the machine; where the kernel has
//! none, the array works on small pages. Arrays do not grow.

use crate::backing::Memory;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A fixed-size array of plain data in an anonymous mapping of its own, aligned to at least 64 bytes.
pub struct HugeVec<T: Copy> {
    memory: Memory,
    len: usize,
    items: PhantomData<T>,
}

impl<T: Copy> HugeVec<T> {
    /// An array of `len` items made by `make` from their index.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn from_fn(len: usize, mut make: impl FnMut(usize) -> T) -> io::Result<HugeVec<T>> {
        const { assert!(align_of::<T>() <= 4096, "mappings are aligned to a page") };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Memory::new(bytes)?;
        let first = memory.base().cast::<T>();
        for index in 0..len {
            // SAFETY: the mapping holds `len` items and is aligned to a page; nobody else refers to it.
            unsafe { first.add(index).write(make(index)) };
        }
        Ok(HugeVec { memory, len, items: PhantomData })
    }

    /// An array of `len` copies of `value`.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn filled(len: usize, value: T) -> io::Result<HugeVec<T>> {
        HugeVec::from_fn(len, |_| value)
    }

    /// A copy of `items`.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn from_slice(items: &[T]) -> io::Result<HugeVec<T>> {
        HugeVec::from_fn(items.len(), |index| items[index])
    }
}

impl<T: Copy> Deref for HugeVec<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `from_fn` wrote all `len` items, which the mapping holds as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.memory.base().cast::<T>().as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for HugeVec<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base().cast::<T>().as_ptr(), self.len) }
    }
}

// SAFETY: the array owns its items, as a Vec does.
unsafe impl<T: Copy + Send> Send for HugeVec<T> {}
// SAFETY: `&HugeVec` gives `&[T]` only.
unsafe impl<T: Copy + Sync> Sync for HugeVec<T> {}

impl<T: Copy> fmt::Debug for HugeVec<T> {
    /// Says how many items there are, not what they hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugeVec").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::HugeVec;

    #[test]
    fn an_array_holds_what_it_was_made_of() {
        let squares = HugeVec::from_fn(1000, |i| i * i).unwrap();
        assert!(squares.iter().enumerate().all(|(i, &item)| item == i * i));
        assert_eq!(&HugeVec::from_slice(&[1u8, 2, 3]).unwrap()[..], [1, 2, 3]);
        assert_eq!(HugeVec::<u64>::filled(0, 1).unwrap().len(), 0);
    }

    #[test]
    fn a_large_array_starts_on_a_huge_page_boundary_and_is_writable_to_its_end() {
        let mut words = HugeVec::filled((4 << 20) / 8, 7u64).unwrap();
        assert_eq!(words.as_ptr().addr() % (2 << 20), 0);
        *words.last_mut().unwrap() = 8;
        assert_eq!((words[0], words[words.len() - 1]), (7, 8));
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(HugeVec::filled(usize::MAX / 4, 0u64).is_err());
        assert!(HugeVec::filled(1 << 44, 0u64).is_err());
    }
}
