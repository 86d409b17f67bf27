// SPDX-License-Identifier: Apache-2.0
//! Delivery headers in front of a plain packet, in few stores; and one hop less on its own.
//!
//! What [`crate::encapsulate`] does for any template and any packet.

use messages::EspMode;
use tables::{Marking, ShortcutOut};
use wire::ipv4;

use super::plain::{DONT_FRAGMENT, Plain, TOS_OFFSET};
use crate::identification::Identification;

/// Outer IPv4 header, ESP header and IV.
pub(super) const IN_CLEAR_BYTES: usize = ipv4::HEADER_BYTES + esp::HEADER_BYTES;

/// Writes `HEADERS` bytes of headers to the front of `l3`, outermost IP header first, and takes a hop off the packet behind
/// them: sealed, it will be as long as `l3`. `outward` tells what the first header takes over of its ToS. `None` if that is shorter than `FRONT`, the headers and the packet's own.
#[inline(always)]
pub(super) fn put_on<const HEADERS: usize, const FRONT: usize>(
    l3: &mut [u8],
    shortcut: &ShortcutOut,
    plain: &Plain,
    identification: &mut Identification,
    outward: impl Fn(u8) -> u8,
) -> Option<()> {
    const { assert!(FRONT == HEADERS + ipv4::HEADER_BYTES) };
    let sealed_bytes = u16::try_from(l3.len()).ok()?;
    let front: &mut [u8; FRONT] = l3.first_chunk_mut()?;
    *front.first_chunk_mut::<HEADERS>()? = *shortcut.headers.first_chunk()?;
    spend_hop(front.get_mut(HEADERS..)?)?;
    // As it is by now, not as it came: it may have been marked.
    let tos = *front.get(HEADERS + TOS_OFFSET)?;
    let mut behind = (outward(tos), plain.flags);
    if shortcut.mode == EspMode::Tunnel {
        let bytes = u16::try_from(HEADERS - IN_CLEAR_BYTES).ok()?.checked_add(plain.total_bytes)?;
        let delivery = front.get_mut(IN_CLEAR_BYTES..)?;
        behind = fill_in(delivery, &shortcut.inner, behind, bytes, identification.next())?;
    }
    fill_in(front, &shortcut.outer, behind, sealed_bytes, identification.next())?;
    Some(())
}

/// Uses up the identifications of a packet that gets no headers, as the whole way does.
#[cold]
pub(super) fn skip(shortcut: &ShortcutOut, identification: &mut Identification) {
    identification.next();
    if shortcut.mode == EspMode::Tunnel {
        identification.next();
    }
}

/// Fills in one IPv4 header; returns what one in front of it may copy.
#[inline(always)]
fn fill_in(
    l3: &mut [u8],
    marking: &Marking,
    (tos, flags): (u8, u16),
    total_bytes: u16,
    identification: u16,
) -> Option<(u8, u16)> {
    let tos = tos & marking.tos_mask | marking.tos_set;
    let flags = flags & marking.flags_mask | marking.flags_set;
    let (header, _) = ipv4::Header::split_mut(l3).ok()?;
    header.fill_template(tos, total_bytes, identification, flags & DONT_FRAGMENT != 0);
    Some((tos, flags))
}

/// Takes one hop off a TTL that was seen to be more than 1 (RFC 1812 §5.3.1).
#[inline(always)]
pub(super) fn spend_hop(l3: &mut [u8]) -> Option<()> {
    let (header, _) = ipv4::Header::split_mut(l3).ok()?;
    header.decrement_ttl().ok()?;
    Some(())
}
