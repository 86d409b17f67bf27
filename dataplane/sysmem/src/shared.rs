// SPDX-License-Identifier: Apache-2.0
//! Memory shared with another process that is not trusted: a sealed memfd, seen only as 64-bit atomic words.
//!
//! The creator seals the size before it hands the descriptor over; the receiver checks seals and size before it maps.
//! Both lock their mapping and keep it out of core dumps, since keys pass through.
//!
//! Not here: the socket that carries the descriptor, and any structure inside the memory (`ring`, [`crate::counter`]).

use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::map::Map;

const WORD_BYTES: usize = size_of::<u64>();
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Why shared memory was refused.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The operating system refused.
    #[error("shared memory: {0}")]
    Io(#[from] io::Error),
    /// The descriptor is no memfd.
    #[error("the received descriptor is not a memory file (memfd)")]
    NotMemory,
    /// The peer could still change the size.
    #[error("the received memory file is not sealed against shrinking and growing")]
    NotSealed,
    /// The size is not one that was agreed.
    #[error("the received memory file has {bytes} bytes, expected {least} to {most}")]
    Size {
        /// The size found.
        bytes: u64,
        /// The smallest size that was acceptable.
        least: usize,
        /// The largest size that was acceptable.
        most: usize,
    },
    /// A range that is not inside the memory.
    #[error("bytes {start}..{end} are not inside shared memory of {bytes} bytes")]
    OutOfRange {
        /// First byte asked for.
        start: usize,
        /// First byte after what was asked for.
        end: usize,
        /// Size of the memory.
        bytes: usize,
    },
    /// A range that does not begin and end where it must.
    #[error("{bytes} bytes at offset {offset} do not begin and end at multiples of {align} bytes")]
    Misaligned {
        /// First byte asked for.
        offset: usize,
        /// Bytes asked for.
        bytes: usize,
        /// What both must be a multiple of.
        align: usize,
    },
}

/// A memory object shared with other processes, mapped whole.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    map: Map,
    bytes: usize,
}

impl SharedMemory {
    /// Creates zeroed memory of `bytes`, seals its size, maps and locks it. `name` shows in `/proc/PID/maps` only.
    ///
    /// # Errors
    /// What the operating system says; a failing lock says which limit to raise.
    pub fn create(name: &str, bytes: usize) -> Result<Self, SharedError> {
        let fd = memfd(name)?;
        let size = u64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        rustix::fs::ftruncate(&fd, size).map_err(io::Error::from)?;
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS | SealFlags::SEAL).map_err(io::Error::from)?;
        Self::map(fd, bytes)
    }

    /// Maps memory that a peer created, once its seals are checked and its size found in `expected`.
    ///
    /// # Errors
    /// When it is no memfd, is not sealed, has another size, or cannot be mapped or locked.
    pub fn open(fd: OwnedFd, expected: RangeInclusive<usize>) -> Result<Self, SharedError> {
        let seals = match rustix::fs::fcntl_get_seals(&fd) {
            Ok(seals) => seals,
            Err(Errno::INVAL) => return Err(SharedError::NotMemory),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        if !seals.contains(SIZE_SEALS) {
            return Err(SharedError::NotSealed);
        }
        let stat = rustix::fs::fstat(&fd).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(SharedError::NotMemory);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let wrong = SharedError::Size { bytes: size, least: *expected.start(), most: *expected.end() };
        match usize::try_from(size) {
            Ok(bytes) if expected.contains(&bytes) => Self::map(fd, bytes),
            _ => Err(wrong),
        }
    }

    fn map(fd: OwnedFd, bytes: usize) -> Result<Self, SharedError> {
        let map = Map::shared(fd.as_fd(), bytes)?;
        map.exclude_from_core_dumps()?;
        map.exclude_from_forks()?;
        map.lock()?;
        Ok(Self { fd, map, bytes })
    }

    /// Size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// The words of the byte range `range`, which must begin and end at multiples of 8.
    ///
    /// The other process may change them at any time: copy a word out, then check the copy.
    ///
    /// # Errors
    /// When `range` is not inside the memory or not aligned.
    pub fn words(&self, range: Range<usize>) -> Result<&[AtomicU64], SharedError> {
        let (start, end) = (range.start, range.end);
        if start > end || end > self.bytes {
            return Err(SharedError::OutOfRange { start, end, bytes: self.bytes });
        }
        if !start.is_multiple_of(WORD_BYTES) || !end.is_multiple_of(WORD_BYTES) {
            return Err(SharedError::Misaligned { offset: start, bytes: end - start, align: WORD_BYTES });
        }
        // SAFETY: start <= end <= bytes <= length of the mapping, which lives as long as `self` (invariant 1) and cannot
        // lose its backing (invariant 6). `start` is a multiple of 8 in a page-aligned mapping, and the only view
        // anybody has of it are such atomics (invariant 5), which allow concurrent change.
        Ok(unsafe {
            let first = self.map.start().add(start).cast::<AtomicU64>();
            std::slice::from_raw_parts(first.as_ptr(), (end - start) / WORD_BYTES)
        })
    }

    /// The part of `bytes` at `offset`, as an owner that keeps the mapping alive.
    ///
    /// # Errors
    /// As [`SharedMemory::words`].
    pub fn region(self: &Arc<Self>, offset: usize, bytes: usize) -> Result<Region, SharedError> {
        let end = offset.saturating_add(bytes);
        let words = NonNull::from(self.words(offset..end)?);
        Ok(Region { words, offset, memory: Arc::clone(self) })
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A part of a [`SharedMemory`] that keeps the whole mapped.
#[derive(Debug, Clone)]
pub struct Region {
    /// Checked once, when the region was made.
    words: NonNull<[AtomicU64]>,
    offset: usize,
    memory: Arc<SharedMemory>,
}

// SAFETY: a `Region` is a `&[AtomicU64]` together with what keeps it alive; both parts are Send and Sync.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// The words of this part.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `words` came from a reference into the mapping of `memory`, which this `Region` keeps alive and which
        // stays where it is (invariant 1); only such shared references to it exist (invariant 5).
        unsafe { self.words.as_ref() }
    }

    /// Where this part begins in its [`SharedMemory`], in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        size_of_val(self.words())
    }

    /// The whole of which this is a part.
    #[must_use]
    pub fn memory(&self) -> &Arc<SharedMemory> {
        &self.memory
    }
}

/// A memory file that cannot be executed, where the kernel knows how (6.3 and later).
fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::testing::vm_flags;

    fn unsealed(bytes: u64) -> OwnedFd {
        let fd = memfd("shared-test").unwrap();
        rustix::fs::ftruncate(&fd, bytes).unwrap();
        fd
    }

    fn fd_of(memory: &SharedMemory) -> OwnedFd {
        memory.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn two_mappings_of_one_memory_show_the_same_words() {
        let ours = SharedMemory::create("shared-test", 8192).unwrap();
        let theirs = SharedMemory::open(fd_of(&ours), 8192..=8192).unwrap();
        assert_eq!(theirs.len(), 8192);
        ours.words(0..8192).unwrap()[1023].store(42, Ordering::Relaxed);
        assert_eq!(theirs.words(8184..8192).unwrap()[0].load(Ordering::Relaxed), 42);
    }

    #[test]
    fn a_size_that_is_not_whole_pages_is_kept_exactly() {
        let memory = SharedMemory::create("shared-test", 1000).unwrap();
        assert_eq!(memory.words(0..1000).unwrap().len(), 125);
        assert!(matches!(memory.words(0..1008), Err(SharedError::OutOfRange { bytes: 1000, .. })));
        let theirs = SharedMemory::open(fd_of(&memory), 0..=4096).unwrap();
        assert_eq!(theirs.len(), 1000);
    }

    #[test]
    fn both_mappings_are_locked_undumpable_and_not_inherited() {
        let ours = SharedMemory::create("shared-test", 4096).unwrap();
        let theirs = SharedMemory::open(fd_of(&ours), 4096..=4096).unwrap();
        for memory in [&ours, &theirs] {
            let flags = vm_flags(memory.words(0..8).unwrap().as_ptr() as usize);
            for flag in ["lo", "dd", "dc", "sh"] {
                assert!(flags.iter().any(|found| found == flag), "no {flag} in {flags:?}");
            }
        }
    }

    #[test]
    fn nobody_can_change_the_size_or_take_the_seals_off() {
        let memory = SharedMemory::create("shared-test", 8192).unwrap();
        let theirs = fd_of(&memory);
        for size in [0, 4096, 16384] {
            assert_eq!(rustix::fs::ftruncate(&theirs, size), Err(Errno::PERM));
        }
        assert_eq!(rustix::fs::fcntl_add_seals(&theirs, SealFlags::WRITE), Err(Errno::PERM));
    }

    #[test]
    fn memory_without_seals_is_refused() {
        let wrong = SharedMemory::open(unsealed(4096), 4096..=4096).unwrap_err();
        assert!(matches!(wrong, SharedError::NotSealed), "{wrong}");
        let fd = unsealed(4096);
        rustix::fs::fcntl_add_seals(&fd, SealFlags::GROW).unwrap();
        assert!(matches!(SharedMemory::open(fd, 4096..=4096), Err(SharedError::NotSealed)));
    }

    #[test]
    fn what_is_no_memory_file_is_refused() {
        let file = OwnedFd::from(some_file());
        assert!(matches!(SharedMemory::open(file, 0..=4096), Err(SharedError::NotMemory)));
        let (reader, _writer) = io::pipe().unwrap();
        assert!(matches!(SharedMemory::open(reader.into(), 0..=4096), Err(SharedError::NotMemory)));
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(SharedMemory::open(null, 0..=4096).is_err());
    }

    fn some_file() -> std::fs::File {
        std::fs::File::open(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn another_size_than_agreed_is_refused_and_named() {
        let memory = SharedMemory::create("shared-test", 8192).unwrap();
        for expected in [0..=8191, 8193..=1 << 20] {
            let wrong = SharedMemory::open(fd_of(&memory), expected).unwrap_err();
            assert!(matches!(wrong, SharedError::Size { bytes: 8192, .. }), "{wrong}");
        }
        let empty = unsealed(0);
        rustix::fs::fcntl_add_seals(&empty, SIZE_SEALS).unwrap();
        assert!(SharedMemory::open(empty, 0..=4096).is_err());
    }

    #[test]
    fn memory_sealed_against_writing_is_refused() {
        let fd = unsealed(4096);
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS | SealFlags::WRITE).unwrap();
        assert!(matches!(SharedMemory::open(fd, 4096..=4096), Err(SharedError::Io(_))));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
    fn ranges_outside_or_off_a_word_are_refused() {
        let memory = Arc::new(SharedMemory::create("shared-test", 4096).unwrap());
        for range in [0..4104, 4104..4104, 16..8, usize::MAX - 7..usize::MAX] {
            assert!(matches!(memory.words(range), Err(SharedError::OutOfRange { .. })));
        }
        for range in [4..16, 8..20, 1..2] {
            assert!(matches!(memory.words(range), Err(SharedError::Misaligned { align: 8, .. })));
        }
        assert!(memory.region(8, usize::MAX).is_err());
        assert!(memory.region(4096, 8).is_err());
        assert_eq!(memory.region(4096, 0).unwrap().words().len(), 0);
    }

    #[test]
    fn a_region_keeps_the_memory_mapped() {
        let region = {
            let memory = Arc::new(SharedMemory::create("shared-test", 4096).unwrap());
            memory.region(64, 128).unwrap()
        };
        assert_eq!((region.offset(), region.len_bytes(), region.words().len()), (64, 128, 16));
        region.words()[15].store(1, Ordering::Relaxed);
        assert_eq!(region.words()[15].load(Ordering::Relaxed), 1);
    }
}
