// SPDX-License-Identifier: Apache-2.0
//! The way out of plain packets into tunnels: route → tunnel, SA, next hop → headers, sequence number → cipher → queue.
//!
//! [`Departure::find`] looks everything up and changes nothing; what it finds no way for goes the whole way of
//! [`crate::outbound`]. [`send`] then cannot fail but for want of room or of a sequence number.

use arrayvec::ArrayVec;
use esp::{OutboundSa, Reservation, SealBurst, SealError};
use messages::{PortIndex, TunnelIndex, WorkerCounter};
use pktbuf::{BURST, Batch, Packet};
use tables::ShortcutOut;
use wire::{IpProtocol, ethernet, ipv4};

use super::Sorter;
use super::framing::{Framing, LastHop};
use super::headers::{self, IN_CLEAR_BYTES};
use super::plain::{self, Plain, is_foreign_host};
use crate::context::Context;
use crate::dispatch::Lanes;
use crate::lane::Lane;
use crate::outbound::drop_reason;
use crate::outgoing::Outgoing;
use crate::stopwatch::Stage;
use crate::{ingress, link};

/// Carries a burst that came in by a protected port, where no SPD applies.
pub(super) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    let tables = ctx.tables;
    let plains =
        plain::parse_burst(batch, ctx.mac(port), |plain| tables.routes.prefetch_v4(plain.destination));
    ctx.stopwatch.lap(Stage::Parse);
    let leaves = tables.routes.lookup_v4_burst(&plains.iter().map(|plain| plain.destination).collect());
    leaves.iter().filter_map(|leaf| leaf.tunnel()).for_each(|tunnel| tables.tunnels.prefetch_out(tunnel));
    ctx.stopwatch.lap(Stage::Lookup);
    let mut sorter = Sorter::default();
    for ((packet, plain), leaf) in batch.drain(..).zip(&plains).zip(leaves) {
        let between_hosts =
            |_: &TunnelIndex| is_foreign_host(ctx, plain.source) && is_foreign_host(ctx, plain.destination);
        let departure = leaf.tunnel().filter(between_hosts).and_then(|tunnel| {
            Departure::find(ctx, &mut sorter.last_hop, plain, ethernet::HEADER_BYTES, tunnel)
        });
        match departure {
            Some(departure) => {
                sorter.common(ctx, lanes);
                sorter.depart(ctx, packet, departure);
            }
            None => {
                sorter.exception();
                ingress::receive(ctx, port, packet, lanes);
            }
        }
    }
    ctx.stopwatch.lap(Stage::Adjacency);
    send(ctx, &mut sorter.departures);
}

/// Everything that a plain packet needs to leave by a tunnel.
#[derive(Clone, Copy)]
pub(crate) struct Departure<'a> {
    plain: &'a Plain,
    /// Where the packet begins in its buffer.
    offset: usize,
    shortcut: &'a ShortcutOut,
    sa: &'a OutboundSa,
    framing: Framing,
}

impl<'a> Departure<'a> {
    /// The way of the packet at `offset` into a tunnel, if it is the common one.
    #[inline(always)]
    pub(super) fn find<'c: 'a>(
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        plain: &'a Plain,
        offset: usize,
        tunnel: TunnelIndex,
    ) -> Option<Self> {
        let shortcut = ctx.tables.tunnels.shortcut_out(tunnel)?;
        let fits =
            plain.ttl > 1 && plain.total_bytes <= shortcut.mtu && !(plain.is_syn && shortcut.clamps_mss);
        (fits && !ctx.tables.quality.takes_tunnel(tunnel, shortcut.port)).then_some(())?;
        let framing = last_hop.towards_neighbor(ctx, shortcut.port, shortcut.neighbor)?;
        let sa = ctx.sad.outbound(shortcut.sa)?;
        sa.prefetch();
        shortcut.counts.prefetch(ctx.worker);
        Some(Self { plain, offset, shortcut, sa, framing })
    }
}

/// Sends packets: headers and sequence numbers for all, then the cipher once for all, then each to its port.
pub(super) fn send(ctx: &mut Context<'_>, lane: &mut Lane<Departure<'_>>) {
    if lane.is_empty() {
        return;
    }
    let outcomes = dress_and_seal(ctx, lane);
    for ((packet, departure), outcome) in lane.drain().zip(outcomes) {
        match outcome {
            Ok(()) => {
                ctx.counters.add(WorkerCounter::Sealed, 1);
                link::queue(ctx, departure.framing.port, Outgoing::sealed(packet));
            }
            Err(error) => ctx.drop(packet, drop_reason(error)),
        }
    }
    ctx.stopwatch.lap(Stage::Transmit);
}

#[inline(always)]
fn dress_and_seal(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'_>>,
) -> ArrayVec<Result<(), SealError>, BURST> {
    let sas: ArrayVec<&OutboundSa, BURST> = lane.iter().map(|(_, departure)| departure.sa).collect();
    let reservations = esp::reserve(&sas, ctx.now_ns);
    let mut burst = SealBurst::new();
    let mut outcomes = ArrayVec::new();
    for ((packet, departure), reservation) in lane.iter_mut().zip(reservations) {
        departure.shortcut.counts.count_out(ctx.worker, u64::from(departure.plain.total_bytes));
        outcomes.push(match reservation {
            Ok(reservation) => {
                dress(ctx, packet, departure, reservation, &mut burst).unwrap_or(Err(SealError::NoRoom))
            }
            Err(error) => {
                headers::skip(departure.shortcut, ctx.identification);
                Err(error)
            }
        });
    }
    ctx.stopwatch.lap(Stage::Headers);
    burst.seal();
    ctx.stopwatch.lap(Stage::Cipher);
    outcomes
}

/// Writes everything around a packet but its ICV, and stages it for the cipher. `None` if there is no room.
#[inline(always)]
fn dress<'a>(
    ctx: &mut Context<'_>,
    packet: &'a mut Packet,
    departure: &Departure<'a>,
    reservation: Reservation<'a>,
    burst: &mut SealBurst<'a>,
) -> Option<Result<(), SealError>> {
    let Departure { plain, shortcut, sa, .. } = departure;
    let header_bytes = usize::from(shortcut.header_bytes);
    let payload_bytes = (header_bytes + usize::from(plain.total_bytes)).checked_sub(IN_CLEAR_BYTES)?;
    let l3_bytes = ipv4::HEADER_BYTES + sa.sealed_bytes(payload_bytes);
    let in_front = ethernet::HEADER_BYTES + header_bytes;
    let frame = packet.reframe(departure.offset, in_front, ethernet::HEADER_BYTES + l3_bytes).ok()?;
    let (link, l3) = frame.split_first_chunk_mut()?;
    departure.framing.write(link);
    headers::put_on(l3, shortcut, plain, ctx.identification)?;
    let (_, esp) = l3.split_at_mut_checked(ipv4::HEADER_BYTES)?;
    Some(burst.stage(esp, payload_bytes, reservation, IpProtocol(shortcut.esp_next_header)))
}
