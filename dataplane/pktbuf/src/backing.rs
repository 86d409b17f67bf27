// SPDX-License-Identifier: Apache-2.0
//! Memory for packets and tables: zeroed, touched, kept out of core dumps, on huge pages where the kernel has them.

use std::io;
use std::ptr::NonNull;
use sysmem::Map;

const HUGE_PAGE: usize = 2 << 20;

/// An owned range of memory, aligned to a page; to 2 MiB from that size on.
pub(crate) struct Memory {
    base: NonNull<u8>,
    _map: Map,
}

// SAFETY: memory belongs to the process, not to a thread; this type only keeps it mapped.
unsafe impl Send for Memory {}
// SAFETY: through `&Memory` only the base address is read.
unsafe impl Sync for Memory {}

impl Memory {
    /// At least `bytes` bytes of zeroes. The pages are touched, so that none is missing on the packet path.
    pub(crate) fn new(bytes: usize) -> io::Result<Memory> {
        let huge = bytes >= HUGE_PAGE;
        let slack = if huge { HUGE_PAGE } else { 0 };
        let with_slack = bytes.max(1).checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = Map::anonymous(with_slack)?;
        map.exclude_from_core_dumps()?;
        if huge {
            // A kernel without huge pages leaves memory that works as well.
            let _ = map.prefer_huge_pages();
        }
        let skip = if huge { map.start().align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: `skip` is below the slack that was mapped besides `bytes`.
        let base = unsafe { map.start().add(skip) };
        touch(base, bytes);
        Ok(Memory { base, _map: map })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

/// Has the kernel find the pages; one older than 5.14 finds them when they are first used.
fn touch(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the range was just mapped by the caller, and populating it changes no content.
    unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
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
