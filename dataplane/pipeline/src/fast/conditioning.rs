// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels and ports whose service policy has no queues: classes for all that go one way, then meters and
//! marks, and on they go.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex};
use pktbuf::{BURST, Packet};
use qos::tally::Tally;
use tables::{Arriving, AtWork, Class};
use wire::{Dscp, dscp};

use super::outbound::{Departure, Way};
use super::plain::Plain;
use super::survey::Survey;
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
    let mut tally = Tally::default();
    let mut last: Option<AtWork<'_>> = None;
    let mut place = 0;
    for (packets, run) in lane.runs_mut(Departure::run_length) {
        let way = run.first().and_then(|first| ways.get(first.way));
        if let Some((way, at_work)) = way.and_then(|way| Some((way, way.services.conditions?))) {
            if let Some(before) = last.filter(|before| !before.is(&at_work)) {
                before.settle(&tally, ctx.worker);
                tally = Tally::default();
            }
            last = Some(at_work);
            let mut work = Work { way, at_work, first: place, tally: &mut tally, refused: &mut refused };
            if !at_work.goes_by_dscp() {
                let mut classes: ArrayVec<Class, BURST> = ArrayVec::new();
                let whole = packets.iter().zip(run).map(|(packet, departure)| whole_of(packet, departure));
                at_work.classify_v4(whole, ingress, way.tunnel, (ctx.flows, &mut classes));
                let mut classes = classes.into_iter();
                work.condition(ctx, (packets, run), |_| classes.next());
            } else if let Some(survey) = Survey::of(way, at_work, run) {
                for number in survey.count(run, work.tally).iter() {
                    let (Some(packet), Some(departure)) = (packets.get_mut(number), run.get(number)) else {
                        continue;
                    };
                    let class = at_work.by_tos(departure.plain.tos);
                    let wire_bytes = survey.sizes.wire_bytes(departure.plain);
                    work.condition_one(ctx, (number, packet, departure), class, wire_bytes);
                }
            } else {
                let class = |plain: &Plain| at_work.by_tos(plain.tos);
                work.condition(ctx, (packets, run), class);
            }
        }
        place += run.len();
    }
    if let Some(last) = last {
        last.settle(&tally, ctx.worker);
    }
    if !refused.is_empty() {
        drop_refused(ctx, lane, &refused);
    }
}

/// A policy, and the packets that go one way under it.
struct Work<'a, 't> {
    way: &'a Way<'a>,
    at_work: AtWork<'a>,
    /// The place of the first in the lane.
    first: usize,
    tally: &'t mut Tally,
    refused: &'t mut Refused,
}

impl Work<'_, '_> {
    /// Meters and marks packets, of which `class` tells the class.
    #[inline(always)]
    fn condition(
        &mut self,
        ctx: &Context<'_>,
        (packets, run): (&mut [Packet], &[Departure<'_>]),
        mut class: impl FnMut(&Plain) -> Option<Class>,
    ) {
        for (number, (packet, departure)) in packets.iter_mut().zip(run).enumerate() {
            let class = class(departure.plain);
            let wire_bytes = self.way.wire_bytes(self.at_work, departure.plain);
            self.condition_one(ctx, (number, packet, departure), class, wire_bytes);
        }
    }

    /// Meters and marks one packet.
    #[inline(always)]
    fn condition_one(
        &mut self,
        ctx: &Context<'_>,
        (number, packet, departure): (usize, &mut Packet, &Departure<'_>),
        class: Option<Class>,
        wire_bytes: u32,
    ) {
        debug_assert_eq!(wire_bytes, self.way.wire_bytes(self.at_work, departure.plain));
        let Some(class) = class else { return };
        if let Some(priority) = class.set_vlan_priority {
            packet.set_vlan_priority(priority);
        }
        let dscp = Dscp::of_tos(departure.plain.tos);
        let arriving = Arriving { class, wire_bytes, dscp };
        let marked = self.at_work.condition_of_many(&arriving, ctx.worker, ctx.now_ns, self.tally);
        if marked != Some(dscp)
            && let Err(reason) = mark(packet, departure.offset, marked)
        {
            self.refused.push((self.first + number, reason));
        }
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
