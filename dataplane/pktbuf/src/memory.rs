// SPDX-License-Identifier: Apache-2.0
//! Pools in plain memory: one mapping cut into slots, and a lock-free list of the free ones.
//!
//! ```text
//!   slot, an odd number of cache lines so that slots spread over the cache sets
//!   +--------+-------+---------------------------+------+
//!   | header | shift | buf_len bytes             | pad  |
//!   | 64     | 0-63  | HEADROOM + data_bytes     |      |
//!   +--------+-------+---------------------------+------+
//! ```

use crate::backing::Memory;
use crate::header::{Header, MEMORY_TAG};
use crate::pool::Geometry;
use crate::{HEADROOM, Packet};
use crossbeam::queue::ArrayQueue;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const HEADER_BYTES: usize = size_of::<Header>();

/// What a pool's handles and its packets share; lives until the last slot is home (invariant 5).
struct Shared {
    free: ArrayQueue<u32>,
    memory: Memory,
    stride: usize,
    /// Set when the last handle is gone: packets are then counted home instead of listed.
    closed: AtomicBool,
    /// Slots not yet counted home; counts down after `closed` only.
    missing: AtomicUsize,
}

/// The owning handle of a memory pool.
pub(crate) struct MemoryPool {
    shared: NonNull<Shared>,
    capacity: usize,
}

// SAFETY: `Shared` is Sync (queue, atomics, read-only fields) and is reached through shared references only.
unsafe impl Send for MemoryPool {}
// SAFETY: as above.
unsafe impl Sync for MemoryPool {}

impl MemoryPool {
    pub(crate) fn new(geometry: &Geometry) -> io::Result<MemoryPool> {
        let capacity = geometry.packets;
        let stride = geometry.stride(HEADER_BYTES);
        let bytes = stride.checked_mul(capacity).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Memory::new(bytes)?;
        let shared = Box::new(Shared {
            free: ArrayQueue::new(capacity),
            memory,
            stride,
            closed: AtomicBool::new(false),
            missing: AtomicUsize::new(capacity),
        });
        let shared = NonNull::from(Box::leak(shared));
        let pool = MemoryPool { shared, capacity };
        for slot in 0..geometry.packets_u32() {
            pool.set_up(slot, geometry);
        }
        Ok(pool)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: invariant 5: while this handle lives the pool is not closed, and so is not freed.
        unsafe { self.shared.as_ref() }
    }

    /// Writes what of a slot's header never changes, and lists the slot as free.
    fn set_up(&self, slot: u32, geometry: &Geometry) {
        let header = self.shared().header(slot);
        let first_byte = HEADER_BYTES + usize::from(geometry.shift());
        // SAFETY: the slot lies in the mapping, is aligned to a cache line, and nobody has seen it yet.
        unsafe {
            header.write(Header {
                buf_addr: header.as_ptr().cast::<u8>().add(first_byte),
                buf_iova: u64::from(slot),
                data_off: 0,
                refcnt: 0,
                nb_segs: 0,
                port: 0,
                ol_flags: 0,
                packet_type: 0,
                pkt_len: 0,
                data_len: 0,
                vlan_tci: 0,
                hash: [0; 2],
                vlan_tci_outer: 0,
                buf_len: geometry.buf_len(),
                pool: self.shared.as_ptr().wrapping_byte_add(MEMORY_TAG).cast(),
            });
        }
        // The list has as many places as there are slots.
        let _ = self.shared().free.push(slot);
    }

    #[inline]
    pub(crate) fn alloc(&self) -> Option<Packet> {
        let shared = self.shared();
        let slot = shared.free.pop()?;
        let mut packet = Packet(shared.header(slot));
        let header = packet.header_mut();
        header.data_off = HEADROOM as u16;
        header.refcnt = 1;
        header.nb_segs = 1;
        header.port = u16::MAX;
        header.ol_flags = 0;
        header.packet_type = 0;
        header.pkt_len = 0;
        header.data_len = 0;
        header.vlan_tci = 0;
        Some(packet)
    }

    pub(crate) fn available(&self) -> usize {
        self.shared().free.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Shared {
    #[inline(always)]
    fn header(&self, slot: u32) -> NonNull<Header> {
        // SAFETY: slots come from the free list, which holds those set up only: below capacity, so that the
        // header lies in the mapping.
        unsafe { self.memory.base().add(slot as usize * self.stride).cast() }
    }
}

impl Drop for MemoryPool {
    /// Closes the pool; whoever counts the last slot home frees it.
    fn drop(&mut self) {
        let shared = self.shared();
        shared.closed.store(true, Ordering::SeqCst);
        let mut home = 0;
        while shared.free.pop().is_some() {
            home += 1;
        }
        // SAFETY: these slots were popped here, so nobody else counts them.
        unsafe { count_home(self.shared, home) };
    }
}

/// Counts `slots` home after closing and frees the pool with the last.
///
/// A packet that is being returned while the pool closes may still go to the list and is counted by nobody:
/// then the memory stays. That is a leak at worst, never memory freed too early: a slot is counted only after
/// its return has come to an end.
///
/// # Safety
/// `shared` is alive, closed, and each of the slots is counted once.
unsafe fn count_home(shared: NonNull<Shared>, slots: usize) {
    // SAFETY: alive, as the caller says.
    let missing = unsafe { &shared.as_ref().missing };
    if slots > 0 && missing.fetch_sub(slots, Ordering::AcqRel) == slots {
        // SAFETY: every slot is home: no packet, no handle and no return under way refers to it (invariant 5).
        drop(unsafe { Box::from_raw(shared.as_ptr()) });
    }
}

/// Returns a packet's slot to its pool.
///
/// # Safety
/// The header belongs to a memory pool (invariant 4) and the caller gives up the only handle to it.
#[inline]
pub(crate) unsafe fn give_back(header: NonNull<Header>) {
    // SAFETY: the caller's handle keeps the header, and by invariant 5 its pool, alive.
    let (slot, pool) = unsafe {
        let header = header.as_ref();
        (header.buf_iova, header.pool)
    };
    let Some(shared) = NonNull::new(pool.wrapping_byte_sub(MEMORY_TAG).cast::<Shared>()) else {
        return;
    };
    // SAFETY: invariants 4 and 5.
    let pool = unsafe { shared.as_ref() };
    if pool.closed.load(Ordering::Acquire) {
        // SAFETY: closed, alive until this slot is counted, and it is counted here only.
        unsafe { count_home(shared, 1) };
    } else {
        // The slot number is what `set_up` wrote, a u32; the list has a place for every slot.
        let _ = pool.free.push(slot as u32);
    }
}

#[cfg(test)]
thread_local! {
    /// Pools whose memory this thread has freed.
    static FREED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
impl Drop for Shared {
    fn drop(&mut self) {
        FREED.set(FREED.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::FREED;
    use crate::{ALIGN_INBOUND, ALIGN_OUTBOUND, Batch, HEADROOM, NoRoom, Packet, Pool, PoolConfig};

    #[test]
    fn a_handle_is_one_pointer() {
        assert_eq!(size_of::<Packet>(), 8);
        assert_eq!(size_of::<Option<Packet>>(), 8);
    }

    #[test]
    fn a_pool_gives_out_what_it_has_and_takes_it_back() {
        let pool = Pool::memory(3, 100).unwrap();
        let out: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!((out.len(), pool.available(), pool.capacity()), (3, 0, 3));
        drop(out);
        assert_eq!(pool.available(), 3);
    }

    #[test]
    fn a_new_packet_is_empty_with_the_standard_headroom_whatever_it_held_before() {
        let pool = Pool::memory(1, 100).unwrap();
        let mut packet = pool.copy_of(&[1; 90]).unwrap();
        packet.prepend(100).unwrap();
        packet.set_flow_hash(Some(7));
        packet.note_vlan_priority(7);
        packet.set_vlan_priority(5);
        drop(packet);
        let packet = pool.alloc().unwrap();
        assert_eq!((packet.len(), packet.headroom(), packet.tailroom()), (0, HEADROOM, 100));
        assert_eq!(packet.flow_hash(), None);
        assert_eq!((packet.vlan_priority(), packet.leaving_vlan_priority()), (None, 0));
    }

    #[test]
    fn a_priority_is_left_with_only_if_it_was_given() {
        let pool = Pool::memory(2, 100).unwrap();
        let (mut packet, mut part) = (pool.alloc().unwrap(), pool.alloc().unwrap());
        let known = |packet: &Packet| (packet.vlan_priority(), packet.leaving_vlan_priority());
        assert_eq!(known(&packet), (None, 0));
        packet.note_vlan_priority(6);
        assert_eq!(known(&packet), (Some(6), 0));
        packet.set_vlan_priority(3);
        part.share_vlan_priority(&packet);
        assert_eq!([known(&packet), known(&part)], [(Some(3), 3); 2]);
        packet.note_vlan_priority(0);
        part.clear();
        assert_eq!([known(&packet), known(&part)], [(Some(0), 0), (None, 0)]);
        packet.set_vlan_priority(7);
        packet.forget_vlan_priority();
        assert_eq!(known(&packet), (None, 0));
    }

    #[test]
    fn growing_and_trimming_keep_the_bytes_between() {
        let pool = Pool::memory(1, 100).unwrap();
        let mut packet = pool.copy_of(b"payload").unwrap();
        packet.prepend(3).unwrap().copy_from_slice(b"abc");
        packet.append(2).unwrap().copy_from_slice(b"xy");
        assert_eq!(packet.data(), b"abcpayloadxy");
        packet.trim_front(5).unwrap();
        packet.truncate(4);
        assert_eq!(packet.data(), b"yloa");
        packet.truncate(100);
        assert_eq!(packet.len(), 4);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let pool = Pool::memory(1, 100).unwrap();
        let mut packet = pool.copy_of(b"payload").unwrap();
        for n in [HEADROOM + 1, 65_536, 65_536 + 4, usize::MAX] {
            assert_eq!(packet.prepend(n), Err(NoRoom));
        }
        for n in [94, 65_536, 65_536 + 4, usize::MAX] {
            assert_eq!(packet.append(n), Err(NoRoom));
        }
        for n in [8, 65_536, usize::MAX] {
            assert_eq!(packet.trim_front(n), Err(NoRoom));
        }
        assert_eq!((packet.data(), packet.headroom()), (&b"payload"[..], HEADROOM));
        assert!(packet.prepend(HEADROOM).is_ok() && packet.append(93).is_ok());
        assert_eq!((packet.headroom(), packet.tailroom(), packet.len()), (0, 0, HEADROOM + 100));
    }

    #[test]
    fn a_copy_that_does_not_fit_gives_none_and_leaks_nothing() {
        let pool = Pool::memory(2, 100).unwrap();
        assert!(pool.copy_of(&[0; 101]).is_none());
        assert!(pool.copy_of(&[0; 100]).is_some());
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn packets_share_no_byte() {
        let pool = Pool::memory(5, 61).unwrap();
        let mut packets: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        for (fill, packet) in packets.iter_mut().enumerate() {
            packet.prepend(HEADROOM).unwrap();
            packet.append(61).unwrap();
            packet.data_mut().fill(fill as u8);
        }
        for (fill, packet) in packets.iter().enumerate() {
            assert!(packet.data().iter().all(|&byte| byte == fill as u8));
        }
    }

    #[test]
    fn the_byte_asked_for_lies_on_a_cache_line_boundary_in_every_packet() {
        for align_at in [ALIGN_OUTBOUND, ALIGN_INBOUND, 0, 1, 63, 64, 1000] {
            let config = PoolConfig { packets: 9, data_bytes: 1500, align_at, ..PoolConfig::default() };
            let pool = Pool::memory_with(&config).unwrap();
            let packets: Vec<_> = std::iter::from_fn(|| pool.copy_of(&[0; 1200])).collect();
            assert_eq!(packets.len(), 9);
            assert!(packets.iter().all(|p| p.data()[align_at..].as_ptr().addr() % 64 == 0));
        }
    }

    #[test]
    fn slots_are_an_odd_number_of_cache_lines_apart() {
        for data_bytes in [0, 100, 1500, 2048, 9000, 65_535 - HEADROOM] {
            let pool = Pool::memory(2, data_bytes).unwrap();
            let (a, b) = (pool.alloc().unwrap(), pool.alloc().unwrap());
            let apart = a.data().as_ptr().addr().abs_diff(b.data().as_ptr().addr());
            assert_eq!((apart % 64, apart / 64 % 2), (0, 1));
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert!(Pool::memory(0, 100).is_err());
        assert!(Pool::memory(1 << 32, 100).is_err());
        assert!(Pool::memory(1, 65_536 - HEADROOM).is_err());
        assert!(Pool::memory(usize::MAX >> 8, 65_535 - HEADROOM).is_err());
    }

    #[test]
    fn packets_outlive_their_pool_and_the_last_one_home_frees_it() {
        let pool = Pool::memory(3, 100).unwrap();
        let (kept, home) = (pool.copy_of(b"kept").unwrap(), pool.alloc().unwrap());
        let other_handle = pool.clone();
        drop(pool);
        assert_eq!((other_handle.available(), FREED.get()), (1, 0));
        drop(other_handle);
        drop(home);
        assert_eq!((kept.data(), FREED.get()), (&b"kept"[..], 0));
        drop(kept);
        assert_eq!(FREED.get(), 1);
    }

    #[test]
    fn a_pool_whose_packets_are_home_is_freed_with_its_last_handle() {
        let pool = Pool::memory(3, 100).unwrap();
        drop(pool.alloc());
        drop(pool.clone());
        assert_eq!(FREED.get(), 0);
        drop(pool);
        assert_eq!(FREED.get(), 1);
    }

    #[test]
    fn a_batch_is_filled_as_far_as_room_and_pool_allow() {
        let pool = Pool::memory(100, 100).unwrap();
        let mut batch = Batch::new();
        assert_eq!(pool.alloc_into(&mut batch, 10), 10);
        assert_eq!(pool.alloc_into(&mut batch, 100), 54);
        let mut second = Batch::new();
        assert_eq!(pool.alloc_into(&mut second, 64), 36);
        drop((batch, second));
        assert_eq!(pool.available(), 100);
    }

    #[test]
    fn packets_are_freed_on_other_threads_while_the_pool_closes() {
        for _ in 0..20 {
            let pool = Pool::memory(64, 100).unwrap();
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let pool = pool.clone();
                    let (send, receive) = std::sync::mpsc::channel::<Packet>();
                    let freeing =
                        std::thread::spawn(move || receive.into_iter().map(|p| p.len()).sum::<usize>());
                    let sending = std::thread::spawn(move || {
                        let sent = (0..200).filter_map(|_| pool.copy_of(&[1; 10])).map(|p| send.send(p));
                        sent.filter(Result::is_ok).count()
                    });
                    (freeing, sending)
                })
                .collect();
            drop(pool);
            for (freeing, sending) in threads {
                assert_eq!(sending.join().unwrap() * 10, freeing.join().unwrap());
            }
        }
    }

    #[test]
    fn memory_comes_zeroed_and_debug_output_shows_no_bytes() {
        let pool = Pool::memory(1, 4).unwrap();
        let mut packet = pool.alloc().unwrap();
        assert_eq!(packet.append(4).unwrap(), [0; 4]);
        assert_eq!(format!("{packet:?}"), "Packet { len: 4, headroom: 128, tailroom: 0 }");
    }
}
