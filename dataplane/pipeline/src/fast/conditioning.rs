// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels and ports whose service policy has no queues: classes for all under one policy, then meters and
//! marks, and on they go.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex};
use pktbuf::{BURST, Packet};
use qos::tally::Tally;
use tables::{Arriving, AtWork, Class};
use wire::{Dscp, dscp};

use super::group::{Group, Member};
use super::survey::Survey;
use super::waiting::whole_of;
use super::ways::{Departure, Way};
use crate::context::Context;
use crate::lane::Lane;

/// Packets that go no further: their places in the lane, in order, and why.
type Refused = ArrayVec<(usize, DropReason), BURST>;

/// Meters and marks the packets whose policy has no queues.
#[inline(never)]
pub(super) fn condition<'a>(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'a>>,
    ways: &[Way<'a>],
    ingress: PortIndex,
) {
    let mut work = Work { refused: Refused::new(), last: None, tally: Tally::default() };
    for group in Group::all(lane, ways) {
        if let Some(at_work) = group.first.services.conditions {
            work.condition(ctx, group, at_work, ingress);
        }
    }
    work.settle(ctx);
    if !work.refused.is_empty() {
        lane.remove(&work.refused, |packet, reason| ctx.drop(packet, reason));
    }
}

/// What has become of the packets so far.
struct Work<'a> {
    refused: Refused,
    /// The policy of the group before.
    last: Option<AtWork<'a>>,
    /// What is not counted of it yet.
    tally: Tally,
}

impl<'a> Work<'a> {
    /// Meters and marks the packets of a group.
    #[inline(always)]
    fn condition(
        &mut self,
        ctx: &mut Context<'_>,
        mut group: Group<'_, '_>,
        at_work: AtWork<'a>,
        ingress: PortIndex,
    ) {
        if self.last.is_some_and(|last| !last.is(&at_work)) {
            self.settle(ctx);
        }
        self.last = Some(at_work);
        let place = group.place;
        if !at_work.goes_by_dscp() {
            let mut classes: ArrayVec<Class, BURST> = ArrayVec::new();
            at_work.classify_v4(group.packets().map(whole_of), ingress, (ctx.flows, &mut classes));
            for ((place, member), class) in (place..).zip(group.packets_mut()).zip(classes) {
                self.condition_one(ctx, (place, member), at_work, class);
            }
        } else if let Some(survey) = Survey::of(&group, at_work) {
            self.tally.add(&survey.tally);
            for number in survey.others() {
                if let Some(member) = group.packet_mut(number) {
                    self.condition_by_tos(ctx, (place + number, member), at_work);
                }
            }
        } else {
            for (place, member) in (place..).zip(group.packets_mut()) {
                self.condition_by_tos(ctx, (place, member), at_work);
            }
        }
    }

    #[inline(always)]
    fn condition_by_tos(
        &mut self,
        ctx: &Context<'_>,
        (place, member): (usize, Member<'_, '_>),
        at_work: AtWork<'_>,
    ) {
        let (_, departure, _) = &member;
        if let Some(class) = at_work.by_tos(departure.plain.tos()) {
            self.condition_one(ctx, (place, member), at_work, class);
        }
    }

    /// Meters and marks one packet, with its place in the lane.
    #[inline(always)]
    fn condition_one(
        &mut self,
        ctx: &Context<'_>,
        (place, (packet, departure, way)): (usize, Member<'_, '_>),
        at_work: AtWork<'_>,
        class: Class,
    ) {
        if let Some(priority) = class.set_vlan_priority {
            packet.set_vlan_priority(priority);
        }
        let dscp = Dscp::of_tos(departure.plain.tos());
        let arriving =
            Arriving { class, wire_bytes: way.wire_bytes(at_work, departure.plain.total_bytes), dscp };
        let marked = at_work.condition_of_many(&arriving, ctx.worker, ctx.now_ns, &mut self.tally);
        if marked != Some(dscp)
            && let Err(reason) = mark(packet, departure.offset, marked)
        {
            self.refused.push((place, reason));
        }
    }

    /// Counts what has gathered.
    fn settle(&mut self, ctx: &Context<'_>) {
        if let Some(last) = self.last {
            last.settle(&core::mem::take(&mut self.tally), ctx.worker);
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
