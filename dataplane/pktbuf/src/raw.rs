// SPDX-License-Identifier: Apache-2.0
//! What port drivers need and nobody else: packets as raw header pointers.

use crate::{Header, Packet};
use std::ptr::NonNull;

/// Gives up ownership of a packet and returns its header.
#[inline(always)]
#[must_use]
pub fn into_raw(packet: Packet) -> NonNull<Header> {
    let raw = packet.0;
    std::mem::forget(packet);
    raw
}

/// Takes ownership of a packet by its header.
///
/// # Safety
/// The header must fulfil invariants 1 to 4: it came from [`into_raw`], or it is an mbuf of one segment that a
/// driver handed out and that nobody else refers to.
#[inline(always)]
#[must_use]
pub unsafe fn from_raw(header: NonNull<Header>) -> Packet {
    Packet(header)
}

/// Number of segments; more than one only in what a driver has just received.
#[inline(always)]
#[must_use]
pub fn segments(packet: &Packet) -> u16 {
    packet.header().nb_segs
}

/// References to the buffer; 1 in every packet that is not in a driver's hands.
#[must_use]
pub fn references(packet: &Packet) -> u16 {
    packet.header().refcnt
}

/// Whether the packet is a DPDK mbuf, and so may be handed to a DPDK driver.
#[inline(always)]
#[must_use]
pub fn is_mbuf(packet: &Packet) -> bool {
    packet.header().pool.addr() & crate::header::MEMORY_TAG == 0
}

/// Corrects the data offset of a packet that a driver placed as if its buffer had not been shifted by `shift` bytes.
/// Answers whether the data lies in the buffer; if not, the packet is left empty.
#[must_use]
pub fn account_for_shift(packet: &mut Packet, shift: u16) -> bool {
    let header = packet.header_mut();
    let data_off = header.data_off.checked_sub(shift);
    let inside =
        data_off.filter(|&off| off.checked_add(header.data_len).is_some_and(|end| end <= header.buf_len));
    match inside {
        Some(data_off) => header.data_off = data_off,
        None => packet.clear(),
    }
    inside.is_some()
}
