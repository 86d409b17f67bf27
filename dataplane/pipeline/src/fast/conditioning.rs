// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels and ports whose service policy has no queues: classes for all that go one way, then meters and
//! marks, and on they go.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex};
use pktbuf::{BURST, Packet};
use tables::{Arriving, AtWork, Class, Plan};
use wire::{Dscp, dscp};

use super::outbound::{Departure, Way};
use super::waiting::whole_of;
use crate::context::Context;
use crate::lane::Lane;

/// Packets that go no further: their places in the lane, in order, and why.
type Refused = ArrayVec<(usize, DropReason), BURST>;

/// Meters and marks the packets whose policy has no queues.
#[inline(never)]
pub(super) fn condition<'a>(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'a>>,
    ways: &[Way<'_>],
    ingress: PortIndex,
) {
    let mut refused = Refused::new();
    let mut place = 0;
    for (packets, run) in lane.runs_mut(Departure::goes_with) {
        let way = run.first().and_then(|first| ways.get(first.way));
        if let Some((way, at_work)) = way.and_then(|way| Some((way, way.services.conditions?))) {
            let mut classes: ArrayVec<Class, BURST> = ArrayVec::new();
            let whole = packets.iter().zip(run).map(|(packet, departure)| whole_of(packet, departure));
            at_work.classify_v4(whole, ingress, way.tunnel, &mut classes);
            for (((packet, departure), class), place) in packets.iter_mut().zip(run).zip(classes).zip(place..)
            {
                if let Err(reason) = condition_one(ctx, packet, departure, (way, at_work), class) {
                    refused.push((place, reason));
                }
            }
        }
        place += run.len();
    }
    if !refused.is_empty() {
        drop_refused(ctx, lane, &refused);
    }
}

#[inline(always)]
fn condition_one(
    ctx: &Context<'_>,
    packet: &mut Packet,
    departure: &Departure<'_>,
    (way, at_work): (&Way<'_>, AtWork<'_>),
    class: Class,
) -> Result<(), DropReason> {
    let dscp = Dscp::of_tos(departure.plain.tos);
    let wire_bytes = Plan::wire_bytes(way.sealed_bytes(departure.plain));
    let arriving = Arriving { class, wire_bytes, dscp };
    let marked = at_work.condition(&arriving, ctx.worker, ctx.now_ns).ok_or(DropReason::QosPoliced)?;
    if marked == dscp {
        return Ok(());
    }
    let l3 = packet.data_mut().get_mut(departure.offset..).ok_or(DropReason::IpMalformed)?;
    dscp::rewrite(l3, marked).map_err(|_| DropReason::IpMalformed)
}

/// Leaves in the lane what goes on.
#[cold]
fn drop_refused<'a>(ctx: &mut Context<'_>, lane: &mut Lane<Departure<'a>>, refused: &Refused) {
    let mut refused = refused.iter().peekable();
    let mut going_on = Lane::default();
    for (place, (packet, departure)) in lane.drain().enumerate() {
        match refused.next_if(|(at, _)| *at == place) {
            Some((_, reason)) => ctx.drop(packet, *reason),
            // It has room for all that the other had.
            None => drop(going_on.push(packet, departure)),
        }
    }
    *lane = going_on;
}
