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
        map.keep_out_of_dumps()?;
        map.advise(huge, bytes);
        Ok(map)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Before anything is written here (invariant 6).
    fn keep_out_of_dumps(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping's own, and the flag changes no content.
        match unsafe { libc::madvise(self.mapped.as_ptr(), self.mapped_bytes, libc::MADV_DONTDUMP) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A kernel that does not know these leaves memory that works as well.
    fn advise(&self, huge: bool, bytes: usize) {
        let base = self.base.as_ptr().cast();
        // SAFETY: the range is this mapping's own, and neither changes its content.
        unsafe {
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
pub(crate) fn keep_out_of_dumps(start: *mut u8, bytes: usize, page_bytes: usize) -> io::Result<()> {
    let before = start.addr() % page_bytes.max(1);
    let whole = (before + bytes).next_multiple_of(page_bytes.max(1));
    // SAFETY: the flag changes no content; other memory that shares the first or the last page stays out of
    // dumps as well.
    match unsafe { libc::madvise(start.wrapping_sub(before).cast(), whole, libc::MADV_DONTDUMP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` returned, and whoever owns the `Map` has let go of every pointer into it.
        unsafe { libc::munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}
