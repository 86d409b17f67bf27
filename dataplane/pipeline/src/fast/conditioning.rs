// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels and ports whose service policy has no queues: classes for all that go one way, then meters and
//! marks, and on they go.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex};
use pktbuf::{BURST, Packet};
use tables::{Arriving, AtWork, Class, Plan, Tally};
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
            let work = Work { way, at_work, first: place };
            if at_work.goes_by_dscp() {
                let of = |departure: &Departure<'_>| at_work.by_tos(departure.plain.tos);
                work.condition(ctx, (packets, run), of, &mut refused);
            } else {
                let mut classes: ArrayVec<Class, BURST> = ArrayVec::new();
                let whole = packets.iter().zip(run).map(|(packet, departure)| whole_of(packet, departure));
                at_work.classify_v4(whole, ingress, way.tunnel, (ctx.flows, &mut classes));
                let mut classes = classes.into_iter();
                work.condition(ctx, (packets, run), |_| classes.next(), &mut refused);
            }
        }
        place += run.len();
    }
    if !refused.is_empty() {
        drop_refused(ctx, lane, &refused);
    }
}

/// A policy, and the packets that go one way under it.
struct Work<'a> {
    way: &'a Way<'a>,
    at_work: AtWork<'a>,
    /// The place of the first in the lane.
    first: usize,
}

impl Work<'_> {
    /// Meters and marks packets of the classes that `class_of` tells.
    #[inline(always)]
    fn condition(
        &self,
        ctx: &Context<'_>,
        (packets, run): (&mut [Packet], &[Departure<'_>]),
        mut class_of: impl FnMut(&Departure<'_>) -> Option<Class>,
        refused: &mut Refused,
    ) {
        let mut tally = Tally::default();
        for (number, (packet, departure)) in packets.iter_mut().zip(run).enumerate() {
            let Some(class) = class_of(departure) else { continue };
            if let Some(priority) = class.set_vlan_priority {
                packet.set_vlan_priority(priority);
            }
            let dscp = Dscp::of_tos(departure.plain.tos);
            let wire_bytes = Plan::wire_bytes(self.way.sealed_bytes(departure.plain));
            let arriving = Arriving { class, wire_bytes, dscp };
            let marked = self.at_work.condition_of_many(&arriving, ctx.worker, ctx.now_ns, &mut tally);
            if marked != Some(dscp)
                && let Err(reason) = mark(packet, departure.offset, marked)
            {
                refused.push((self.first + number, reason));
            }
        }
        self.at_work.settle(&tally, ctx.worker);
    }
}

/// Writes a DSCP into the packet at `offset`.
#[inline(never)]
fn mark(packet: &mut Packet, offset: usize, marked: Option<Dscp>) -> Result<(), DropReason> {
    let dscp = marked.ok_or(DropReason::QosPoliced)?;
    let l3 = packet.data_mut().get_mut(offset..).ok_or(DropReason::IpMalformed)?;
    dscp::rewrite(l3, dscp).map_err(|_| DropReason::IpMalformed)
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
