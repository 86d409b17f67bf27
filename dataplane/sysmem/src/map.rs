// SPDX-License-Identifier: Apache-2.0
//! An owned memory mapping, the base of locked and of shared memory.
//!
//! Not here: what the bytes mean. A [`Map`] only gives a pointer and a length.

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

/// A readable and writable mapping, unmapped when dropped.
#[derive(Debug)]
pub struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Map` itself never reads or writes through the
// pointer (invariant 1): moving it to another thread or sharing the pointer value is harmless.
unsafe impl Send for Map {}
// SAFETY: as for `Send`: all methods taking `&self` are system calls on the range, which the kernel serialises.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `bytes` of private, zeroed memory, rounded up to whole pages.
    ///
    /// # Errors
    /// What `mmap` says, and `InvalidInput` for a length of 0 or beyond the address space.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        Self::private(bytes, rustix::param::page_size(), MapFlags::empty())
    }

    /// Maps `bytes` of private, zeroed memory from the kernel's pool of 2 MiB huge pages, rounded up to whole pages.
    ///
    /// # Errors
    /// As [`Map::anonymous`], and `OutOfMemory` where the pool has too few free pages.
    pub fn anonymous_huge(bytes: usize) -> io::Result<Self> {
        Self::private(bytes, 2 << 20, MapFlags::HUGETLB | MapFlags::HUGE_2MB)
    }

    fn private(bytes: usize, page: usize, flags: MapFlags) -> io::Result<Self> {
        let len = whole_pages(bytes, page)?;
        // SAFETY: a null hint without MAP_FIXED lets the kernel choose unused addresses, so nothing that exists is
        // replaced. The result is `len` bytes, owned by the `Map` from here on (invariant 1).
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | flags,
            )?
        };
        Self::own(start, len)
    }

    /// Maps the first `bytes` of `fd`, shared with everybody else who maps it.
    ///
    /// Only for objects sealed against shrinking (invariant 6), hence not public.
    pub(crate) fn shared(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let len = whole_pages(bytes, rustix::param::page_size())?;
        // SAFETY: as in `private`: the kernel chooses unused addresses. That the file behind them is not cut short is
        // invariant 6, and nobody makes a plain reference into them by invariant 5.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        Self::own(start, len)
    }

    fn own(start: *mut c_void, len: usize) -> io::Result<Self> {
        let start =
            NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { start, len })
    }

    /// The first byte.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes, whole pages.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Locks the range into RAM, so that it is never written to swap.
    ///
    /// # Errors
    /// What `mlock` says, with the limit and the ways to raise it.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is ours (invariant 1), and locking changes no byte of it.
        unsafe { rustix::mm::mlock(self.start.as_ptr().cast(), self.len) }
            .map_err(|error| lock_error(error, self.len))
    }

    /// Keeps the range out of core dumps.
    ///
    /// # Errors
    /// What `madvise` says.
    pub fn exclude_from_core_dumps(&self) -> io::Result<()> {
        self.advise(Advice::LinuxDontDump)
    }

    /// Keeps the range out of forked children: there the addresses are unmapped.
    ///
    /// # Errors
    /// What `madvise` says.
    pub fn exclude_from_forks(&self) -> io::Result<()> {
        self.advise(Advice::LinuxDontFork)
    }

    /// Asks for transparent huge pages. The kernel is free to ignore it.
    ///
    /// # Errors
    /// What `madvise` says, for example where the kernel was built without them.
    pub fn prefer_huge_pages(&self) -> io::Result<()> {
        self.advise(Advice::LinuxHugepage)
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: the range is ours (invariant 1), and none of the four advices used here discards or changes a byte
        // that this process can see.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice)? };
        Ok(())
    }
}

impl Map {
    /// Start and length of a mapping that is not unmapped until it is put together again.
    pub(crate) fn into_parts(self) -> (NonNull<u8>, usize) {
        let whole = core::mem::ManuallyDrop::new(self);
        (whole.start, whole.len)
    }

    /// Puts a mapping together again.
    ///
    /// # Safety
    /// The parts are those of [`into_parts`](Self::into_parts), and used once.
    pub(crate) unsafe fn from_parts(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone (invariant 1), and whoever made a reference into it borrows or owns this
        // `Map` (invariants 4 and 5), so none is left. The only possible failure is a range that is not a mapping.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn whole_pages(bytes: usize, page: usize) -> io::Result<usize> {
    match bytes.checked_next_multiple_of(page) {
        Some(len) if bytes > 0 && isize::try_from(len).is_ok() => Ok(len),
        _ => {
            let message = format!(
                "a mapping of {bytes} bytes: its length must be at least 1 and fit the address space"
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

fn lock_error(error: rustix::io::Errno, bytes: usize) -> io::Error {
    let limit = match getrlimit(Resource::Memlock).current {
        Some(limit) => format!("{limit} bytes"),
        None => "unlimited".to_owned(),
    };
    let message = format!(
        "cannot lock {bytes} bytes of memory: {error}; RLIMIT_MEMLOCK is {limit}: \
         raise it (LimitMEMLOCK= of the service, or ulimit -l) or grant CAP_IPC_LOCK"
    );
    io::Error::new(io::Error::from(error).kind(), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vm_flags;

    #[test]
    fn a_mapping_is_whole_pages_and_zero_to_its_last_byte() {
        let page = rustix::param::page_size();
        for (bytes, pages) in [(1, 1), (page - 1, 1), (page, 1), (page + 1, 2), (10 * page, 10)] {
            let map = Map::anonymous(bytes).unwrap();
            assert_eq!(map.len(), pages * page);
            assert!((map.start().as_ptr() as usize).is_multiple_of(page));
            // SAFETY: the map owns these bytes (invariant 1) and nobody else knows of them.
            let content = unsafe { std::slice::from_raw_parts_mut(map.start().as_ptr(), map.len()) };
            assert!(content.iter().all(|&byte| byte == 0));
            content.fill(0xa5);
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for bytes in [0, usize::MAX, usize::MAX - 4096, isize::MAX as usize + 1] {
            assert_eq!(Map::anonymous(bytes).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bytes}");
        }
        assert!(Map::anonymous(isize::MAX as usize - 8191).is_err());
    }

    #[test]
    fn the_kernel_knows_what_was_asked_for() {
        let map = Map::anonymous(64 << 10).unwrap();
        let address = map.start().as_ptr() as usize;
        let has = |flag: &str| vm_flags(address).iter().any(|found| found == flag);
        assert!(!has("dd") && !has("dc") && !has("lo"));
        map.exclude_from_core_dumps().unwrap();
        assert!(has("dd"));
        map.exclude_from_forks().unwrap();
        assert!(has("dc"));
        map.lock().unwrap();
        assert!(has("lo"));
    }

    #[test]
    fn huge_pages_are_given_or_refused_with_an_error() {
        match Map::anonymous_huge(1) {
            Ok(map) => assert_eq!(map.len(), 2 << 20),
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
        let map = Map::anonymous(4 << 20).unwrap();
        if map.prefer_huge_pages().is_ok() {
            assert!(vm_flags(map.start().as_ptr() as usize).iter().any(|flag| flag == "hg"));
        }
    }

    #[test]
    fn a_dropped_mapping_gives_its_memory_back() {
        // 160 times 1 GiB of addresses a round: if they stayed, the address space (128 TiB) would run out.
        for _ in 0..1000 {
            let maps: Vec<_> = (0..160).map(|_| Map::anonymous(1 << 30).unwrap()).collect();
            drop(maps);
        }
    }
}
