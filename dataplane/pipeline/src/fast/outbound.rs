// SPDX-License-Identifier: Apache-2.0
//! The way out of a plain packet into a tunnel: one hop less → template → sequence number → ESP → link.
//!
//! [`Departure::find`] looks everything up and changes nothing; what it finds no way for goes the whole way of
//! [`crate::outbound`]. [`send`] then cannot fail but for want of room or of a sequence number.

use arrayvec::ArrayVec;
use esp::{OutboundSa, SealBurst, SealError};
use messages::{DropReason, PortIndex, WorkerCounter};
use pktbuf::BURST;
use tables::{Encapsulation, NextStep, Tunnel, Verdict};
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
    /// The way of a packet whose route is `step`, if it is the common one.
    #[inline(always)]
    pub(crate) fn find(ctx: &Context<'a>, plain: Plain, step: Option<NextStep>) -> Option<Self> {
        let Some(NextStep::Tunnel(tunnel)) = step else { return None };
        let tunnel = ctx.tables.tunnels.get(tunnel)?;
        let Encapsulation { verdict: Verdict::Protect { sa: Some(sa), .. }, egress: Some(egress), mtu, .. } =
            tunnel.encapsulation
        else {
            return None;
        };
        let is_common = plain.ttl > 1
            && plain.total_bytes <= mtu
            && !(plain.is_syn && tunnel.mss.is_some())
            && !tunnel.gre.sequence
            && !tunnel.gre.checksum;
        is_common.then_some(())?;
        let destination = resolved(ctx, egress.port, egress.neighbor, plain.destination)?;
        Some(Self { plain, tunnel, sa: ctx.sad.outbound(sa)?, destination, port: egress.port })
    }

    /// Length of the packet.
    pub(super) fn total_bytes(&self) -> u16 {
        self.plain.total_bytes
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
    let dressed = dress(ctx, lane);
    let outcomes = seal(ctx, lane, &dressed);
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

/// Takes a hop off each packet and puts its delivery headers on; tells for which there was room.
#[inline]
fn dress(ctx: &mut Context<'_>, lane: &mut Lane<Departure<'_>>) -> ArrayVec<bool, BURST> {
    let mut dressed = ArrayVec::new();
    for (packet, departure) in lane.iter_mut() {
        let plain = &departure.plain;
        spend_hop(packet);
        departure.tunnel.state.count_out(ctx.worker, u64::from(plain.total_bytes));
        let inside =
            Inside { family: Family::Ipv4, tos: plain.tos, dont_fragment: plain.dont_fragment };
        let sealed_bytes = |payload| departure.sa.sealed_bytes(payload);
        let done =
            encapsulate::encapsulate(packet, inside, departure.template(), sealed_bytes, ctx.identification);
        dressed.push(done.is_ok());
    }
    dressed
}

/// Reserves sequence numbers for the burst, writes headers and nonces, then runs the cipher once.
#[inline]
fn seal(
    ctx: &Context<'_>,
    lane: &mut Lane<Departure<'_>>,
    dressed: &[bool],
) -> ArrayVec<Result<(), DropReason>, BURST> {
    let sas: ArrayVec<&OutboundSa, BURST> = lane.iter().map(|(_, departure)| departure.sa).collect();
    let reservations = esp::reserve(&sas, ctx.now_ns);
    let mut burst = SealBurst::new();
    let mut outcomes = ArrayVec::new();
    for (((packet, departure), reservation), dressed) in lane.iter_mut().zip(reservations).zip(dressed) {
        let next_header = IpProtocol(departure.template().esp_next_header);
        let staged = match (reservation, dressed) {
            (Ok(reservation), true) => {
                burst.push(packet, departure.esp_offset(), reservation, next_header)
            }
            (Ok(_), false) => Err(SealError::NoRoom),
            (Err(error), _) => Err(error),
        };
        outcomes.push(staged.map_err(drop_reason));
    }
    burst.seal();
    outcomes
}
