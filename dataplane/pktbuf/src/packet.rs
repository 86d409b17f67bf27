// SPDX-License-Identifier: Apache-2.0
//! The owned packet handle.

use crate::header::{Header, MEMORY_TAG, RX_RSS_HASH, RX_VLAN_STRIPPED, VLAN_PRIORITY_SET};
use crate::{HEADROOM, memory};
use std::fmt;
use std::ptr::NonNull;

const CACHE_LINE: usize = 64;
/// Where the priority is in a tag (IEEE 802.1Q §9.6).
const PRIORITY_SHIFT: u16 = 13;

/// There is not enough head- or tailroom, or not enough data to trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in the packet buffer")]
pub struct NoRoom;

/// A packet: the owned handle of one buffer, which goes back to its pool when dropped.
///
/// Eight bytes, and `Option<Packet>` is eight bytes too. It may be freed on another thread than the one that
/// allocated it.
#[repr(transparent)]
pub struct Packet(pub(crate) NonNull<Header>);

// SAFETY: invariant 1: the handle is the only way to the header and buffer, so they move with it. Pools take
// packets back from any thread.
unsafe impl Send for Packet {}
// SAFETY: methods that take `&self` only read the header and the buffer.
unsafe impl Sync for Packet {}

impl Packet {
    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: invariant 1: the header is valid and not written to while `self` is borrowed.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn header_mut(&mut self) -> &mut Header {
        // SAFETY: invariant 1: nothing else reaches the header while `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// Length of the packet's data in bytes.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.header().data_len)
    }

    /// Whether the packet holds no data.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes free in front of the data.
    #[inline(always)]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.header().data_off)
    }

    /// Bytes free behind the data.
    #[inline(always)]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        let header = self.header();
        usize::from(header.buf_len) - usize::from(header.data_off) - usize::from(header.data_len)
    }

    /// The packet's bytes.
    #[inline(always)]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: invariants 2 and 3: the range lies in the buffer, is initialised, and is borrowed with `self`.
        unsafe {
            let start = header.buf_addr.add(usize::from(header.data_off));
            std::slice::from_raw_parts(start, usize::from(header.data_len))
        }
    }

    /// The packet's bytes, to change.
    #[inline(always)]
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let header = self.header();
        // SAFETY: as in `data`; `self` is borrowed exclusively, and with it the buffer (invariant 1).
        unsafe {
            let start = header.buf_addr.add(usize::from(header.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(header.data_len))
        }
    }

    /// Grows the packet at the front and returns the `n` new bytes, whose content is whatever was there.
    ///
    /// # Errors
    /// [`NoRoom`] if the headroom is shorter; the packet is unchanged then.
    #[inline(always)]
    pub fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        let header = self.header_mut();
        let step = u16::try_from(n).map_err(|_| NoRoom)?;
        header.data_off = header.data_off.checked_sub(step).ok_or(NoRoom)?;
        // No overflow: the sum is at most buf_len - data_off (invariant 3).
        header.data_len += step;
        header.pkt_len = u32::from(header.data_len);
        self.data_mut().get_mut(..n).ok_or(NoRoom)
    }

    /// Grows the packet at the end and returns the `n` new bytes, whose content is whatever was there.
    ///
    /// # Errors
    /// [`NoRoom`] if the tailroom is shorter; the packet is unchanged then.
    #[inline(always)]
    pub fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom);
        }
        let step = u16::try_from(n).map_err(|_| NoRoom)?;
        let old = self.len();
        let header = self.header_mut();
        header.data_len += step;
        header.pkt_len = u32::from(header.data_len);
        self.data_mut().get_mut(old..).ok_or(NoRoom)
    }

    /// Takes `n` bytes off the front.
    ///
    /// # Errors
    /// [`NoRoom`] if the packet is shorter; it is unchanged then.
    #[inline(always)]
    pub fn trim_front(&mut self, n: usize) -> Result<(), NoRoom> {
        let step = u16::try_from(n).map_err(|_| NoRoom)?;
        let header = self.header_mut();
        header.data_len = header.data_len.checked_sub(step).ok_or(NoRoom)?;
        header.data_off += step;
        header.pkt_len = u32::from(header.data_len);
        Ok(())
    }

    /// Takes `trim` bytes off the front, puts `grow` bytes there, and makes the packet `len` bytes long, all at once; returns
    /// its bytes. New ones hold whatever was there.
    ///
    /// # Errors
    /// [`NoRoom`] if the packet is shorter than `trim`, or the buffer does not reach so far; the packet is unchanged then.
    #[inline(always)]
    pub fn reframe(&mut self, trim: usize, grow: usize, len: usize) -> Result<&mut [u8], NoRoom> {
        let header = self.header_mut();
        if trim > usize::from(header.data_len) {
            return Err(NoRoom);
        }
        let start = (usize::from(header.data_off) + trim).checked_sub(grow).ok_or(NoRoom)?;
        if len > usize::from(header.buf_len) - start {
            return Err(NoRoom);
        }
        // Both are at most buf_len, so that nothing is cut off.
        header.data_off = start as u16;
        header.data_len = len as u16;
        header.pkt_len = len as u32;
        // SAFETY: as in `data_mut`, of what has just been written; the compiler goes on with the length that it knows, and
        // need not look whether a buffer is at address 0.
        Ok(unsafe {
            std::hint::assert_unchecked(!header.buf_addr.is_null());
            std::slice::from_raw_parts_mut(header.buf_addr.add(start), len)
        })
    }

    /// Makes the packet `len` bytes long and copies `lines` to where it begins, whole: what they have more than `len` bytes comes to
    /// lie behind it. Returns the packet's bytes.
    ///
    /// # Errors
    /// [`NoRoom`] if the lines are fewer than `len` bytes, or more than the buffer has; the packet is unchanged then.
    #[inline(always)]
    pub fn set_lines(&mut self, lines: &[[u8; CACHE_LINE]], len: usize) -> Result<&mut [u8], NoRoom> {
        let header = self.header_mut();
        let room = usize::from(header.buf_len) - usize::from(header.data_off);
        let bytes = size_of_val(lines);
        if bytes > room || len > bytes {
            return Err(NoRoom);
        }
        // Both are at most buf_len, so that nothing is cut off.
        header.data_len = len as u16;
        header.pkt_len = len as u32;
        // SAFETY: invariants 1 and 2: the range lies in the buffer, as checked, and is initialised and nobody else's.
        let data = unsafe {
            let start = header.buf_addr.add(usize::from(header.data_off));
            std::slice::from_raw_parts_mut(start, bytes)
        };
        for (to, from) in data.as_chunks_mut::<CACHE_LINE>().0.iter_mut().zip(lines) {
            *to = *from;
        }
        data.get_mut(..len).ok_or(NoRoom)
    }

    /// Shortens the packet to `len` bytes at the end; does nothing if it is not longer.
    #[inline(always)]
    pub fn truncate(&mut self, len: usize) {
        let header = self.header_mut();
        if let Ok(len) = u16::try_from(len)
            && len < header.data_len
        {
            header.data_len = len;
            header.pkt_len = u32::from(len);
        }
    }

    /// Empties the packet and gives it the standard headroom, as if just allocated.
    #[inline]
    pub fn clear(&mut self) {
        let header = self.header_mut();
        header.data_off = (HEADROOM as u16).min(header.buf_len);
        header.data_len = 0;
        header.pkt_len = 0;
        header.ol_flags = 0;
    }

    /// Asks the CPU for the header's cache line.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        prefetch_line(self.0.as_ptr().cast());
    }

    /// Asks the CPU for the first cache line of the data; reads the header.
    #[inline(always)]
    pub fn prefetch_data(&self) {
        prefetch_line(self.data().as_ptr());
    }

    /// Asks the CPU for the cache line in front of the data, where headers will be put; reads the header.
    #[inline(always)]
    pub fn prefetch_headroom(&self) {
        prefetch_line(self.data().as_ptr().wrapping_sub(CACHE_LINE));
    }

    /// The RSS hash over the packet's flow, if the NIC gave one.
    #[inline(always)]
    #[must_use]
    pub fn flow_hash(&self) -> Option<u32> {
        let header = self.header();
        (header.ol_flags & RX_RSS_HASH != 0).then_some(header.hash[0])
    }

    /// Sets what [`flow_hash`](Self::flow_hash) answers, as a port does that hashes in software.
    #[inline]
    pub fn set_flow_hash(&mut self, hash: Option<u32>) {
        let header = self.header_mut();
        match hash {
            Some(hash) => {
                header.ol_flags |= RX_RSS_HASH;
                header.hash[0] = hash;
            }
            None => header.ol_flags &= !RX_RSS_HASH,
        }
    }

    /// The 802.1p priority, 0 to 7, that it was given to leave with, or else came with; none if its frame had no tag.
    #[inline(always)]
    #[must_use]
    pub fn vlan_priority(&self) -> Option<u8> {
        let header = self.header();
        let is_known = header.ol_flags & (RX_VLAN_STRIPPED | VLAN_PRIORITY_SET) != 0;
        is_known.then_some((header.vlan_tci >> PRIORITY_SHIFT) as u8)
    }

    /// The 802.1p priority that it leaves with: 0 unless it was given one. What it came with is the link's where it came
    /// from.
    #[inline(always)]
    #[must_use]
    pub fn leaving_vlan_priority(&self) -> u8 {
        let header = self.header();
        let is_set = header.ol_flags & VLAN_PRIORITY_SET != 0;
        if is_set { (header.vlan_tci >> PRIORITY_SHIFT) as u8 } else { 0 }
    }

    /// Notes the priority of the tag that it came with, which has been taken off.
    #[inline(always)]
    pub fn note_vlan_priority(&mut self, priority: u8) {
        let header = self.header_mut();
        header.ol_flags = header.ol_flags & !VLAN_PRIORITY_SET | RX_VLAN_STRIPPED;
        header.vlan_tci = u16::from(priority) << PRIORITY_SHIFT;
    }

    /// Gives it a priority to leave with; only the low three bits count.
    #[inline(always)]
    pub fn set_vlan_priority(&mut self, priority: u8) {
        let header = self.header_mut();
        header.ol_flags |= VLAN_PRIORITY_SET;
        header.vlan_tci = u16::from(priority) << PRIORITY_SHIFT;
    }

    /// Forgets what priority it came with and was given, as if its frame had no tag.
    #[inline(always)]
    pub fn forget_vlan_priority(&mut self) {
        self.header_mut().ol_flags &= !(RX_VLAN_STRIPPED | VLAN_PRIORITY_SET);
    }

    /// Takes over what is known of the priority of a packet that this one is a part of.
    #[inline]
    pub fn share_vlan_priority(&mut self, whole: &Packet) {
        const KNOWN: u64 = RX_VLAN_STRIPPED | VLAN_PRIORITY_SET;
        let (flags, tci) = (whole.header().ol_flags & KNOWN, whole.header().vlan_tci);
        let header = self.header_mut();
        header.ol_flags = header.ol_flags & !KNOWN | flags;
        header.vlan_tci = tci;
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        #[cfg(have_dpdk)]
        if self.header().pool.addr() & MEMORY_TAG == 0 {
            // SAFETY: without the tag the header is an mbuf (invariant 4), and this handle was the only one
            // (invariant 1).
            return unsafe { crate::dpdk::give_back(self.0) };
        }
        debug_assert!(self.header().pool.addr() & MEMORY_TAG != 0);
        // SAFETY: the tag says that a memory pool owns the header (invariant 4), and this handle was the only
        // one. A build without DPDK makes no other packets.
        unsafe { memory::give_back(self.0) };
    }
}

impl fmt::Debug for Packet {
    /// Says where the data lies and how long it is, never what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}

/// Asks the CPU for every cache line of a value that will be needed soon.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let start = core::ptr::from_ref(value).cast::<u8>();
    for offset in (0..size_of::<T>()).step_by(CACHE_LINE) {
        prefetch_line(start.wrapping_add(offset));
    }
}

#[inline(always)]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use crate::{HEADROOM, NoRoom, Packet, Pool};
    use proptest::prelude::*;

    const DATA_BYTES: usize = 200;

    #[derive(Clone, Debug)]
    enum Step {
        Prepend(usize),
        Append(usize),
        TrimFront(usize),
        Truncate(usize),
        Reframe(usize, usize, usize),
        SetLines(usize, usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = prop_oneof![0..60usize, 0..400usize, Just(65_535), Just(65_536), Just(usize::MAX)];
        (0..12u8, n, 0..60usize, 0..400usize).prop_map(|(kind, n, grow, len)| match kind {
            0..3 => Step::Prepend(n),
            3..5 => Step::Append(n),
            5..7 => Step::TrimFront(n),
            7 => Step::Truncate(n),
            8..10 => Step::Reframe(n, grow, len),
            10 => Step::SetLines(grow % 5, len),
            _ => Step::Clear,
        })
    }

    /// The same step on a plain buffer: where the data starts, and the data.
    fn apply(step: &Step, headroom: &mut usize, data: &mut Vec<u8>, fill: u8) -> Result<(), NoRoom> {
        let tailroom = HEADROOM + DATA_BYTES - *headroom - data.len();
        match *step {
            Step::Prepend(n) if n > *headroom => return Err(NoRoom),
            Step::Append(n) if n > tailroom => return Err(NoRoom),
            Step::TrimFront(n) if n > data.len() => return Err(NoRoom),
            Step::Prepend(n) => {
                *headroom -= n;
                data.splice(..0, vec![fill; n]);
            }
            Step::Append(n) => data.extend(vec![fill; n]),
            Step::TrimFront(n) => {
                *headroom += n;
                data.drain(..n);
            }
            Step::Truncate(n) => data.truncate(n),
            Step::Reframe(trim, ..) if trim > data.len() => return Err(NoRoom),
            Step::Reframe(trim, grow, len) => {
                let start = (*headroom + trim).checked_sub(grow).ok_or(NoRoom)?;
                if start + len > HEADROOM + DATA_BYTES {
                    return Err(NoRoom);
                }
                // The whole buffer, of which what is new is filled as below.
                let old = data.split_off(trim);
                *data = [vec![fill; grow], old, vec![fill; len]].concat();
                data.truncate(len);
                *headroom = start;
            }
            Step::SetLines(lines, len) if lines * 64 > tailroom + data.len() || len > lines * 64 => {
                return Err(NoRoom);
            }
            Step::SetLines(_, len) => *data = vec![fill; len],
            Step::Clear => {
                *headroom = HEADROOM;
                data.clear();
            }
        }
        Ok(())
    }

    fn apply_to_packet(step: &Step, packet: &mut Packet, fill: u8) -> Result<(), NoRoom> {
        match *step {
            Step::Prepend(n) => packet.prepend(n)?.fill(fill),
            Step::Append(n) => packet.append(n)?.fill(fill),
            Step::TrimFront(n) => packet.trim_front(n)?,
            Step::Truncate(n) => packet.truncate(n),
            Step::Reframe(trim, grow, len) => {
                let kept = packet.len().saturating_sub(trim);
                let bytes = packet.reframe(trim, grow, len)?;
                bytes.iter_mut().take(grow).for_each(|byte| *byte = fill);
                bytes.iter_mut().skip(grow + kept).for_each(|byte| *byte = fill);
            }
            Step::SetLines(lines, len) => {
                packet.set_lines(&vec![[fill; 64]; lines], len)?;
            }
            Step::Clear => packet.clear(),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_packet_behaves_as_a_plain_buffer(steps in proptest::collection::vec(step(), 0..60)) {
            let pool = Pool::memory(1, DATA_BYTES).unwrap();
            let mut packet = pool.alloc().unwrap();
            let (mut headroom, mut data) = (HEADROOM, Vec::new());
            for (fill, step) in steps.iter().enumerate() {
                let expected = apply(step, &mut headroom, &mut data, fill as u8);
                prop_assert_eq!(apply_to_packet(step, &mut packet, fill as u8), expected);
                prop_assert_eq!(packet.data(), &data[..]);
                prop_assert_eq!(packet.headroom(), headroom);
                prop_assert_eq!(packet.tailroom(), HEADROOM + DATA_BYTES - headroom - data.len());
                prop_assert_eq!(packet.header().pkt_len as usize, data.len());
            }
        }
    }
}
