// SPDX-License-Identifier: Apache-2.0
//! The way out of a plain packet into a tunnel: one hop less → template → sequence number → ESP → link.
//!
//! [`Departure::find`] looks everything up and changes nothing; what it finds no way for goes the whole way of
//! [`crate::outbound`]. [`send`] then cannot fail but for want of room or of a sequence number.

use arrayvec::ArrayVec;
use esp::{OutboundSa, SealBurst};
use messages::{DropReason, PortIndex, TunnelIndex, WorkerCounter};
use pktbuf::{BURST, Packet, prefetch};
use tables::{Shortcut, Tunnel};
use wire::{Family, IpProtocol, MacAddr};

use super::plain::Plain;
use super::{resolved, spend_hop};
use crate::context::Context;
use crate::encapsulate::{self, Inside};
use crate::lane::Lane;
use crate::link;
use crate::outbound::drop_reason;
use crate::outgoing::Outgoing;

/// Everything that a plain packet needs to leave by a tunnel.
#[derive(Clone, Copy)]
pub(crate) struct Departure<'a> {
    plain: Plain,
    tunnel: &'a Tunnel,
    sa: &'a OutboundSa,
    /// The next hop's Ethernet address.
    destination: MacAddr,
    port: PortIndex,
}

impl<'a> Departure<'a> {
    /// The way of a packet into a tunnel, if it is the common one.
    #[inline(always)]
    pub(crate) fn find(ctx: &Context<'a>, plain: Plain, tunnel: TunnelIndex) -> Option<Self> {
        let tunnel = ctx.tables.tunnels.get(tunnel)?;
        let Shortcut { sa, neighbor, port, mtu } = tunnel.shortcut?;
        let fits = plain.ttl > 1 && plain.total_bytes <= mtu && !(plain.is_syn && tunnel.mss.is_some());
        fits.then_some(())?;
        let destination = resolved(ctx, neighbor)?;
        let sa = ctx.sad.outbound(sa)?;
        prefetch(sa);
        tunnel.state.prefetch(ctx.worker);
        Some(Self { plain, tunnel, sa, destination, port })
    }

    fn template(&self) -> &'a tables::Template {
        &self.tunnel.encapsulation.template
    }

    fn esp_offset(&self) -> usize {
        usize::from(self.template().esp_offset.unwrap_or(0))
    }
}

/// Sends packets, each with its IP header in front.
pub(crate) fn send(ctx: &mut Context<'_>, lane: &mut Lane<Departure<'_>>) {
    if lane.is_empty() {
        return;
    }
    let outcomes = dress_and_seal(ctx, lane);
    for ((packet, departure), outcome) in lane.drain().zip(outcomes) {
        match outcome {
            Ok(()) => {
                ctx.counters.add(WorkerCounter::Sealed, 1);
                link::transmit(ctx, departure.port, departure.destination, Outgoing::sealed(packet));
            }
            Err(reason) => ctx.drop(packet, reason),
        }
    }
}

/// Gives each packet its delivery headers and sequence number, then runs the cipher once for all.
#[inline]
fn dress_and_seal(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'_>>,
) -> ArrayVec<Result<(), DropReason>, BURST> {
    let sas: ArrayVec<&OutboundSa, BURST> = lane.iter().map(|(_, departure)| departure.sa).collect();
    let reservations = esp::reserve(&sas, ctx.now_ns);
    let mut burst = SealBurst::new();
    let mut outcomes = ArrayVec::new();
    for ((packet, departure), reservation) in lane.iter_mut().zip(reservations) {
        dress(ctx, packet, departure);
        let next_header = IpProtocol(departure.template().esp_next_header);
        let staged = reservation
            .and_then(|reservation| burst.push(packet, departure.esp_offset(), reservation, next_header));
        outcomes.push(staged.map_err(drop_reason));
    }
    burst.seal();
    outcomes
}

/// Takes a hop off a packet and puts its delivery headers on. Without room for them the packet stays too short for ESP,
/// which says so.
#[inline(always)]
fn dress(ctx: &mut Context<'_>, packet: &mut Packet, departure: &Departure<'_>) {
    let plain = &departure.plain;
    spend_hop(packet);
    departure.tunnel.state.count_out(ctx.worker, u64::from(plain.total_bytes));
    let inside = Inside { family: Family::Ipv4, tos: plain.tos, dont_fragment: plain.dont_fragment };
    let sealed_bytes = |payload| departure.sa.sealed_bytes(payload);
    let dressed =
        encapsulate::encapsulate(packet, inside, departure.template(), sealed_bytes, ctx.identification);
    if dressed.is_err() {
        packet.truncate(0);
    }
}
