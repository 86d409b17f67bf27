// SPDX-License-Identifier: Apache-2.0
//! Anonymous memory, zeroed, kept out of core dumps, on huge pages where the kernel has them.

use std::io;
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// An owned anonymous mapping.
pub(crate) struct Map {
    base: NonNull<u8>,
    mapped: NonNull<libc::c_void>,
    mapped_bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; this type only unmaps it.
unsafe impl Send for Map {}
// SAFETY: through `&Map` only the base address is read.
unsafe impl Sync for Map {}

impl Map {
    /// Maps at least `bytes` bytes of zeroes, aligned to 64 bytes; to 2 MiB and preferring huge pages from that
    /// size on. The pages are touched, so that none is missing on the packet path.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Map> {
        let huge = bytes >= HUGE_PAGE;
        let slack = if huge { HUGE_PAGE } else { 0 };
        let mapped_bytes = bytes.max(1).checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapped = map(mapped_bytes)?;
        let skip = if huge { mapped.align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: `skip` is below the slack that was mapped in front of `bytes`.
        let base = unsafe { mapped.cast::<u8>().add(skip) };
        let map = Map { base, mapped, mapped_bytes };
        map.advise(huge, bytes);
        Ok(map)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// All of this is advice: a kernel that does not know one of them leaves memory that works as well. Keeping
    /// memory out of core dumps is known to every kernel since 3.4.
    fn advise(&self, huge: bool, bytes: usize) {
        let base = self.base.as_ptr().cast();
        // SAFETY: the range is this mapping's own, and none of these changes its content.
        unsafe {
            libc::madvise(self.mapped.as_ptr(), self.mapped_bytes, libc::MADV_DONTDUMP);
            if huge {
                libc::madvise(base, bytes, libc::MADV_HUGEPAGE);
            }
            libc::madvise(base, bytes, libc::MADV_POPULATE_WRITE);
        }
    }
}

fn map(bytes: usize) -> io::Result<NonNull<libc::c_void>> {
    // SAFETY: a new anonymous mapping, placed by the kernel, touches no memory in use.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(mapped).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Keeps the pages that hold any of `bytes` bytes from `start` on out of core dumps.
#[cfg(have_dpdk)]
pub(crate) fn keep_out_of_dumps(start: *mut u8, bytes: usize) {
    // SAFETY: reads a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page) = usize::try_from(page) else { return };
    let before = start.addr() % page;
    let whole = (before + bytes).next_multiple_of(page);
    // SAFETY: the flag changes no content; other memory that shares the first or the last page stays out of
    // dumps as well.
    unsafe { libc::madvise(start.wrapping_sub(before).cast(), whole, libc::MADV_DONTDUMP) };
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` returned, and whoever owns the `Map` has let go of every pointer into it.
        unsafe { libc::munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}
