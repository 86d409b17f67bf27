// SPDX-License-Identifier: Apache-2.0
//! Packets and the size of what carries them: fits, is cut (RFC 791 §3.2), or is too big (RFC 1191, RFC 8201).
//!
//! Fragmentation happens before GRE and ESP: each fragment is sealed on its own.

use messages::{DropReason, WorkerCounter};
use pktbuf::Packet;
use wire::Family;
use wire::flow::{self, Parsed};
use wire::ipv4;
use wire::ipv4::fragment::Plan;

use crate::context::{Context, Note};

/// Whether a packet may go on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fits {
    /// As it is.
    Whole,
    /// In pieces.
    InFragments,
    /// Not at all: its sender is told.
    TooBig,
}

/// Compares a packet with the largest that may go on.
#[inline(always)]
pub(crate) fn fits(packet: &Packet, parsed: &Parsed, mtu: u16) -> Fits {
    if packet.len() <= usize::from(mtu) {
        Fits::Whole
    } else if parsed.family == Family::Ipv4 && !parsed.dont_fragment {
        Fits::InFragments
    } else {
        Fits::TooBig
    }
}

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes and gives each to `each`, in order.
pub(crate) fn fragment<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: &Note,
    mtu: u16,
    mut each: impl FnMut(&mut Context<'a>, Packet, Note),
) {
    let plan = ipv4::Packet::parse(packet.data()).and_then(|whole| Plan::new(whole, mtu));
    let Ok(plan) = plan else {
        return ctx.drop(packet, DropReason::FragmentFailed);
    };
    if ctx.pool.available() < plan.count() {
        return ctx.drop(packet, DropReason::NoBuffer);
    }
    for index in 0..plan.count() {
        // Another worker may have taken the buffers since: the packet is lost then, whatever has left of it.
        let Some(mut fragment) = piece(ctx, &plan, index, mtu) else {
            return ctx.drop(packet, DropReason::NoBuffer);
        };
        fragment.share_vlan_priority(&packet);
        ctx.counters.add(WorkerCounter::FragmentsMade, 1);
        match flow::parse(fragment.data()) {
            Ok(parsed) => each(ctx, fragment, Note { parsed, ..*note }),
            Err(_) => ctx.drop(fragment, DropReason::FragmentFailed),
        }
    }
    ctx.consume(packet);
}

fn piece(ctx: &Context<'_>, plan: &Plan<'_>, index: usize, mtu: u16) -> Option<Packet> {
    let mut fragment = ctx.pool.alloc()?;
    let bytes = plan.emit(index, fragment.append(usize::from(mtu)).ok()?).ok()?;
    fragment.truncate(bytes);
    Some(fragment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    /// An IPv4 packet of 128 bytes.
    fn packet() -> Vec<u8> {
        let (source, destination) = ([192, 0, 2, 1].into(), [198, 51, 100, 7].into());
        let mut bytes = vec![0; 20 + 108];
        let repr =
            ipv4::Repr { payload_bytes: 108, ..ipv4::Repr::new(source, destination, wire::IpProtocol::UDP) };
        repr.emit(&mut bytes).unwrap();
        bytes
    }

    fn cut(fixture: &mut Fixture, mtu: u16) -> Vec<usize> {
        let (mut packet, note) = fixture.packet(&packet());
        let mut lengths = Vec::new();
        packet.set_vlan_priority(5);
        fragment(&mut fixture.context(), packet, &note, mtu, |ctx, fragment, _| {
            assert_eq!(fragment.vlan_priority(), Some(5));
            lengths.push(fragment.len());
            ctx.consume(fragment);
        });
        lengths
    }

    #[test]
    fn a_packet_is_cut_into_pieces_that_fit() {
        let mut fixture = Fixture::new(8);
        assert_eq!(cut(&mut fixture, 68), [68, 68, 32]);
        assert_eq!(fixture.counters.worker(WorkerCounter::FragmentsMade), 3);
    }

    #[test]
    fn a_packet_that_cannot_be_cut_is_dropped() {
        // No room for eight bytes of payload: no port has such an MTU.
        let mut fixture = Fixture::new(8);
        assert_eq!(cut(&mut fixture, 27), []);
        assert_eq!(fixture.counters.dropped(DropReason::FragmentFailed), 1);
        assert_eq!(fixture.counters.worker(WorkerCounter::Dropped), 1);
    }

    #[test]
    fn without_buffers_for_all_pieces_none_is_made() {
        let mut fixture = Fixture::new(3);
        assert_eq!(cut(&mut fixture, 68), []);
        assert_eq!(fixture.counters.dropped(DropReason::NoBuffer), 1);
        assert_eq!(fixture.counters.worker(WorkerCounter::FragmentsMade), 0);
    }
}
