// SPDX-License-Identifier: Apache-2.0
//! Delivery headers in front of a plain packet, in few stores; and one hop less on its own.
//!
//! What [`crate::encapsulate`] does for any template and any packet.

use messages::EspMode;
use tables::{Marking, ShortcutOut};
use wire::ipv4;

use super::plain::{DONT_FRAGMENT, Plain};
use crate::identification::Identification;

/// Outer IPv4 header, ESP header and IV.
pub(super) const IN_CLEAR_BYTES: usize = ipv4::HEADER_BYTES + esp::HEADER_BYTES;

/// Fills in the headers at the front of `l3`: outermost IP header first, sealed size, payload packet behind them. `None` if
/// `l3` is too short.
#[inline(always)]
pub(super) fn put_on(
    l3: &mut [u8],
    shortcut: &ShortcutOut,
    plain: &Plain,
    identification: &mut Identification,
) -> Option<()> {
    copy(l3, shortcut)?;
    spend_hop(l3.get_mut(usize::from(shortcut.header_bytes)..)?)?;
    let sealed_bytes = u16::try_from(l3.len()).ok()?;
    let mut behind = (plain.tos, plain.flags);
    if shortcut.mode == EspMode::Tunnel {
        let delivery = l3.get_mut(IN_CLEAR_BYTES..)?;
        let own_bytes = u16::from(shortcut.header_bytes).checked_sub(IN_CLEAR_BYTES as u16)?;
        let bytes = own_bytes.checked_add(plain.total_bytes)?;
        behind = fill_in(delivery, &shortcut.inner, behind, bytes, identification.next())?;
    }
    fill_in(l3, &shortcut.outer, behind, sealed_bytes, identification.next())?;
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

/// Copies the headers. Lengths that the compiler knows become a few wide stores: those of [`ShortcutOut::LENGTHS`].
#[inline(always)]
fn copy(l3: &mut [u8], shortcut: &ShortcutOut) -> Option<()> {
    match shortcut.header_bytes {
        40 => copy_bytes::<40>(l3, shortcut),
        44 => copy_bytes::<44>(l3, shortcut),
        60 => copy_bytes::<60>(l3, shortcut),
        64 => copy_bytes::<64>(l3, shortcut),
        _ => None,
    }
}

#[inline(always)]
fn copy_bytes<const BYTES: usize>(l3: &mut [u8], shortcut: &ShortcutOut) -> Option<()> {
    *l3.first_chunk_mut::<BYTES>()? = *shortcut.headers.first_chunk()?;
    Some(())
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
