// SPDX-License-Identifier: Apache-2.0
//! Delivery headers in front of a plain packet, in few stores; and one hop less on its own.
//!
//! What [`crate::encapsulate`] does for any template and any packet.

use messages::EspMode;
use tables::ShortcutOut;
use wire::ipv4::{self, OpenFields};

use crate::identification::Identification;

/// Outer IPv4 header, ESP header and IV.
pub(super) const IN_CLEAR_BYTES: usize = ipv4::HEADER_BYTES + esp::HEADER_BYTES;

/// Writes `HEADERS` bytes of headers to the front, outermost IP header first, and takes a hop off the packet behind them: sealed, it
/// will be an IP packet of `sealed_bytes`. ESP header and IV are left open. `outward` tells how the packet's header looks to the one
/// in front of it, which takes over ToS and DF. `None` if it has no hop left, or that is too long for a packet. `FRONT` is the headers
/// and the packet's own.
#[inline(always)]
pub(super) fn put_on<const HEADERS: usize, const FRONT: usize>(
    front: &mut [u8; FRONT],
    shortcut: &ShortcutOut,
    sealed_bytes: usize,
    identification: &mut Identification,
    outward: impl Fn(OpenFields) -> OpenFields,
) -> Option<()> {
    const { assert!(FRONT == HEADERS + ipv4::HEADER_BYTES) };
    let (headers, inside) = front.split_first_chunk_mut::<HEADERS>()?;
    spend_hop(inside)?;
    // As it is by now, not as it came: it may have been marked.
    let mut behind = outward(OpenFields::of(*inside.first_chunk()?));
    let (outer, rest) = headers.split_first_chunk_mut()?;
    let (outer_template, rest_template) = shortcut.headers.split_first_chunk()?;
    let (_, behind_esp) = rest.split_at_mut_checked(esp::HEADER_BYTES)?;
    let (_, template) = rest_template.split_at_checked(esp::HEADER_BYTES)?;
    behind_esp.copy_from_slice(template.get(..HEADERS - IN_CLEAR_BYTES)?);
    // The lengths of headers tell the mode: see `ShortcutOut::LENGTHS`.
    if HEADERS >= IN_CLEAR_BYTES + ipv4::HEADER_BYTES {
        let payload_bytes = behind.total_length().checked_add((HEADERS - IN_CLEAR_BYTES) as u16)?;
        let open = behind.only(shortcut.inner).with(payload_bytes, identification.next());
        let delivery = behind_esp.first_chunk_mut()?;
        ipv4::Header::emit_template(delivery, template.first_chunk()?, open);
        behind = OpenFields::of(*delivery.first_chunk()?);
    }
    let sealed_bytes = u16::try_from(sealed_bytes).ok()?;
    let open = behind.only(shortcut.outer).with(sealed_bytes, identification.next());
    ipv4::Header::emit_template(outer, outer_template, open);
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

/// Takes one hop off a TTL that was seen to be more than 1 (RFC 1812 §5.3.1).
#[inline(always)]
pub(super) fn spend_hop(l3: &mut [u8]) -> Option<()> {
    let (header, _) = ipv4::Header::split_mut(l3).ok()?;
    header.decrement_ttl().ok()?;
    Some(())
}
