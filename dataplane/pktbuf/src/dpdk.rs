// SPDX-License-Identifier: Apache-2.0
//! Pools of mbufs in DPDK's memory.
//!
//! The buffers are shifted once, when the pool is made: `buf_addr` and `buf_iova` of every mbuf move by the same
//! number of bytes, and the elements are that much longer, so that drivers find as much room as the pool
//! says. Indirect and external buffers are never attached, so nothing moves them back.

use crate::Batch;
use crate::header::Header;
use crate::pool::Geometry;
use crate::{Packet, backing};
use dpdk_sys as sys;
use std::ffi::{CStr, CString, c_void};
use std::io;
use std::ptr::NonNull;

/// Bytes of an mbuf in front of its buffer; no private area.
const MBUF_BYTES: usize = sys::GH_MBUF_SIZE as usize;
/// Bytes of mempool header in front of each mbuf.
const OBJECT_HEADER_BYTES: usize = sys::GH_OBJECT_HEADER_SIZE as usize;

/// The handle of an `rte_mempool`, which is never freed (invariant 5).
pub(crate) struct DpdkPool {
    mempool: NonNull<sys::rte_mempool>,
    capacity: usize,
}

// SAFETY: mempool operations are thread-safe: the ring behind it is multi-producer and multi-consumer, and
// caches belong to registered threads.
unsafe impl Send for DpdkPool {}
// SAFETY: as above.
unsafe impl Sync for DpdkPool {}

impl DpdkPool {
    pub(crate) fn new(name: &str, geometry: &Geometry, cache: u32) -> io::Result<DpdkPool> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let c_name = CString::new(name).map_err(|_| invalid(format!("pool name {name:?} holds a NUL")))?;
        let element_bytes = geometry.stride(OBJECT_HEADER_BYTES + MBUF_BYTES) - OBJECT_HEADER_BYTES;
        let too_large = || invalid(format!("pool {name}: elements of {element_bytes} bytes"));
        let element_bytes_u32 = u32::try_from(element_bytes).map_err(|_| too_large())?;
        // SAFETY: the name is a C string; EAL's state is checked inside, and the sizes by `Geometry`.
        let mempool = unsafe {
            sys::gh_pool_create(
                c_name.as_ptr(),
                geometry.packets_u32(),
                cache,
                element_bytes_u32,
                geometry.buf_len(),
                geometry.shift(),
                // Elements that may not cross pages lie one to a page of 4 KiB where there are no huge pages, in
                // the same few sets of the cache, and net_af_xdp takes the pool for shorter than it is.
                sys::gh_only_virtual_devices(),
            )
        };
        let Some(mempool) = NonNull::new(mempool) else {
            return Err(creation_error(name, geometry));
        };
        let mut kept_out: io::Result<()> = Ok(());
        // SAFETY: a live mempool; the context is what the callback takes, and outlives the call.
        unsafe {
            let context = (&raw mut kept_out).cast();
            sys::gh_pool_each_chunk(mempool.as_ptr(), Some(keep_out_of_dumps), context);
        }
        kept_out?;
        Ok(DpdkPool { mempool, capacity: geometry.packets })
    }

    #[inline]
    pub(crate) fn alloc(&self) -> Option<Packet> {
        // SAFETY: a live mempool (invariant 5) of mbufs that `gh_pool_create` set up to invariants 2 to 4.
        let mbuf = unsafe { sys::gh_mbuf_alloc(self.mempool.as_ptr()) };
        NonNull::new(mbuf.cast::<Header>()).map(Packet)
    }

    /// Adds `count` packets to the batch at once, as far as it has room; none if the pool has fewer.
    #[inline]
    pub(crate) fn alloc_into(&self, batch: &mut Batch, count: usize) -> usize {
        let before = batch.len();
        let count = count.min(batch.remaining_capacity());
        // SAFETY: a live mempool, as in `alloc`. It writes `count` pointers to mbufs behind the packets there are, for
        // which there is room, or none; each belongs to nobody else, and a `Packet` is such a pointer.
        unsafe {
            let spare = batch.as_mut_ptr().add(before).cast();
            // At most BURST, which fits.
            if sys::gh_mbuf_alloc_bulk(self.mempool.as_ptr(), spare, count as u32) == 0 {
                batch.set_len(before + count);
            }
        }
        batch.len() - before
    }

    pub(crate) fn available(&self) -> usize {
        // SAFETY: a live mempool (invariant 5).
        let available = unsafe { sys::gh_pool_available(self.mempool.as_ptr()) };
        available as usize
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.mempool.as_ptr().cast()
    }
}

/// Says why `gh_pool_create` failed, and what would help.
fn creation_error(name: &str, geometry: &Geometry) -> io::Error {
    // SAFETY: reads a thread-local number.
    let number = unsafe { sys::gh_errno() };
    // SAFETY: `gh_strerror` answers with a C string for every number, valid until its next call on this thread.
    let reason = unsafe { CStr::from_ptr(sys::gh_strerror(number)) }.to_string_lossy();
    let advice = match number {
        libc::ENOMEM => "give EAL more memory or reserve more huge pages",
        libc::EEXIST => "a pool of this name exists already",
        libc::EINVAL => "the cache may be at most 512 and two thirds of the packets",
        _ => "EAL must be initialised first",
    };
    io::Error::other(format!("pool {name} of {} packets: {reason}; {advice}", geometry.packets))
}

/// Keeps one piece of a pool out of core dumps. The context is an `io::Result<()>`, which keeps the first error.
unsafe extern "C" fn keep_out_of_dumps(
    context: *mut c_void,
    start: *mut c_void,
    bytes: usize,
    page_bytes: usize,
) {
    // SAFETY: `DpdkPool::new` passes a pointer to its result and does not touch it meanwhile.
    let result = unsafe { &mut *context.cast::<io::Result<()>>() };
    if result.is_ok() {
        *result = backing::keep_out_of_dumps(start.cast(), bytes, page_bytes);
    }
}

/// Returns an mbuf to its pool.
///
/// # Safety
/// The header is an mbuf (invariant 4) and the caller gives up the only handle to it.
#[inline]
pub(crate) unsafe fn give_back(header: NonNull<Header>) {
    // SAFETY: as the caller says; its `refcnt` is 1 and it has one segment (invariants 1 and 3).
    unsafe { sys::gh_mbuf_free(header.as_ptr().cast()) }
}
