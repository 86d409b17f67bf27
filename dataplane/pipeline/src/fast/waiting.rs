// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels with a service policy: past their queues while nothing waits there, or into them, and out again
//! when it is their turn.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex, TunnelIndex, WorkerId};
use pktbuf::{BURST, Packet};
use qos::classify::WholeV4;
use qos::schedule::Offer;
use qos::tally::Place;
use tables::{Class, Queue};
use wire::{Dscp, Ecn, IpProtocol};

use super::framing::LastHop;
use super::group::{Group, Member};
use super::outbound::{self, Departures};
use super::plain::{Plain, TCP_FLAGS_OFFSET, TOS_OFFSET};
use super::sizes::Sizes;
use super::survey::Survey;
use super::ways::{Departure, Way};
use crate::context::Context;
use crate::lane::Lane;
use crate::outbound::SealNote;
use crate::queues::Item;
use crate::{outbound as whole, scheduled};

/// Why a packet does not go on with its burst.
enum Reason {
    Dropped(DropReason),
    /// It waits for its turn at a port.
    Waits(PortIndex, Offer),
    /// Its queues are another worker's.
    Owner(WorkerId),
}

/// Packets that do not go on: their places in the lane, in order, and why.
#[derive(Default)]
struct Held {
    places: ArrayVec<(usize, Reason), BURST>,
    /// A bit for each queue that some of them wait in; queues that share one are taken for one.
    queues: u64,
}

impl Held {
    /// Whether packets wait in this queue that came before.
    fn waits_in(&self, queue: Queue<'_>) -> bool {
        self.queues & bit(queue) != 0
    }
}

fn bit(queue: Queue<'_>) -> u64 {
    1 << ((queue.slot.0 ^ u32::from(queue.port.0)) % u64::BITS)
}

/// Queues the packets that have to wait, and leaves the others. Mostly nothing has to wait, and nothing is moved.
#[inline(never)]
pub(super) fn wait<'a>(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'a>>,
    ways: &[Way<'a>],
    ingress: PortIndex,
) {
    let mut held = Held::default();
    for group in Group::all(lane, ways) {
        if let Some(queue) = group.first.services.queue {
            match group.first.services.owner_beside(ctx.worker) {
                Some(owner) => {
                    let places = (group.place..).take(group.len());
                    held.places.extend(places.map(|place| (place, Reason::Owner(owner))));
                }
                None => wait_here(ctx, group, queue, ingress, &mut held),
            }
        }
    }
    if !held.places.is_empty() {
        hold_back(ctx, lane, ways, held, ingress);
    }
}

/// Holds those packets of a queue of this worker's that have to wait.
#[inline(always)]
fn wait_here(
    ctx: &mut Context<'_>,
    mut group: Group<'_, '_>,
    queue: Queue<'_>,
    ingress: PortIndex,
    held: &mut Held,
) {
    // What has been marked already is not as it came in.
    let is_as_it_came = group.first.services.conditions.is_none();
    if is_as_it_came
        && !held.waits_in(queue)
        && ctx.queues.may_pass_all(queue.port, ctx.now_ns)
        && let Some(survey) = Survey::of(&group, queue.at_work)
    {
        return pass_surveyed(ctx, group, queue, survey, held);
    }
    let judged = judge(ctx, &mut group, queue, ingress);
    pass(ctx, &judged, (group.first, queue), (group.place, held));
}

/// What becomes of packets of one group: what the scheduler has to know of them, or why they are dropped.
type Judged = ArrayVec<Result<Offer, DropReason>, BURST>;

/// Classifies, meters and marks packets.
#[inline(always)]
fn judge(ctx: &mut Context<'_>, group: &mut Group<'_, '_>, queue: Queue<'_>, ingress: PortIndex) -> Judged {
    let at_work = queue.at_work;
    if at_work.goes_by_dscp() {
        return judge_each(ctx, group, queue, |tos| at_work.by_tos(tos));
    }
    let mut classes: ArrayVec<Class, BURST> = ArrayVec::new();
    at_work.classify_v4(group.packets().map(whole_of), ingress, (ctx.flows, &mut classes));
    let mut classes = classes.into_iter();
    judge_each(ctx, group, queue, |_| classes.next())
}

/// `class` tells the class of packets with a ToS.
#[inline(always)]
fn judge_each(
    ctx: &Context<'_>,
    group: &mut Group<'_, '_>,
    queue: Queue<'_>,
    mut class: impl FnMut(u8) -> Option<Class>,
) -> Judged {
    let mut sizes = Sizes::of_long(group, queue.at_work);
    let judge_one = |member: Member<'_, '_>| {
        let came_with = tos_of(member.0, member.1);
        let class = class(came_with).ok_or(DropReason::NoBuffer)?;
        judge_one(ctx, member, (queue, class), came_with, sizes.as_mut())
    };
    group.packets_mut().map(judge_one).collect()
}

/// Meters and marks a packet that came with this ToS; `sizes` tell what it is on the wire, or its way does.
#[inline(always)]
fn judge_one(
    ctx: &Context<'_>,
    (packet, departure, way): Member<'_, '_>,
    (queue, class): (Queue<'_>, Class),
    came_with: u8,
    sizes: Option<&mut Sizes>,
) -> Result<Offer, DropReason> {
    let wire_bytes = match sizes {
        Some(sizes) => {
            sizes.suit(way, queue.at_work);
            sizes.wire_bytes(departure.plain)
        }
        None => {
            let tos = class.set_dscp.map_or(came_with, |set| set.tos(Ecn::of_tos(came_with)));
            way.for_tos(ctx, tos).wire_bytes(queue.at_work, departure.plain.total_bytes)
        }
    };
    scheduled::offer(ctx, (packet, departure.offset), (queue, class), came_with, wire_bytes)
}

/// Lets packets pass as far as nothing is before them, and holds the others.
#[inline(always)]
fn pass(
    ctx: &mut Context<'_>,
    judged: &Judged,
    (way, queue): (&Way<'_>, Queue<'_>),
    (place, held): (usize, &mut Held),
) {
    // What follows must not overtake what waits.
    let passed = match held.waits_in(queue) || change_groups(way, judged) {
        true => 0,
        false => scheduled::pass(ctx, queue, judged.iter().flatten(), place),
    };
    hold(judged, queue, passed, (place, held));
}

/// Packets of a group that had to be looked at one by one: their places, and what becomes of them.
type LookedAt = ArrayVec<(usize, Result<Offer, DropReason>), BURST>;

/// As [`pass`] where nothing is before them, of a group of which each class's sum will do if all that are not dropped go on
/// at once.
#[inline(always)]
fn pass_surveyed(
    ctx: &mut Context<'_>,
    mut group: Group<'_, '_>,
    queue: Queue<'_>,
    mut survey: Survey,
    held: &mut Held,
) {
    let place = group.place;
    queue.at_work.settle(&survey.tally, ctx.worker);
    let mut looked_at = LookedAt::new();
    for number in survey.others() {
        let Some(member) = group.packet_mut(number) else { continue };
        let tos = member.1.plain.tos();
        let class = queue.at_work.by_tos(tos).ok_or(DropReason::NoBuffer);
        let judged = class.and_then(|class| judge_one(ctx, member, (queue, class), tos, None));
        if let Ok(offer) = &judged {
            survey.tally.count(Place::of(offer.class), offer.wire_bytes);
        }
        looked_at.push((number, judged));
    }
    let going_on = group.len() - looked_at.iter().filter(|(_, judged)| judged.is_err()).count();
    // None may pass that is counted nowhere.
    let are_counted = survey.tally.total().packets == going_on as u64;
    if are_counted && scheduled::pass_all(ctx, queue, &survey.tally, survey.longest, place) {
        let dropped = |(number, judged): (usize, Result<Offer, DropReason>)| {
            Some((place + number, Reason::Dropped(judged.err()?)))
        };
        held.places.extend(looked_at.into_iter().filter_map(dropped));
    } else {
        let judged = one_by_one(&group, queue, looked_at);
        pass(ctx, &judged, (group.first, queue), (place, held));
    }
}

/// What becomes of each packet of a surveyed group.
#[inline(never)]
fn one_by_one(group: &Group<'_, '_>, queue: Queue<'_>, looked_at: LookedAt) -> Judged {
    let mut looked_at = looked_at.into_iter().peekable();
    let judge_one = |(number, (departure, way)): (usize, (&Departure<'_>, &Way<'_>))| {
        if let Some((_, judged)) = looked_at.next_if(|(at, _)| *at == number) {
            return judged;
        }
        let tos = departure.plain.tos();
        let class = queue.at_work.by_tos(tos).ok_or(DropReason::NoBuffer)?;
        Ok(Offer {
            tunnel: queue.slot,
            class: class.slot,
            wire_bytes: way.wire_bytes(queue.at_work, departure.plain.total_bytes),
            dscp: Dscp::of_tos(tos),
            ecn: Ecn::of_tos(tos),
        })
    };
    group.departures().enumerate().map(judge_one).collect()
}

/// Whether marks have put a packet into another class group, with an SA of its own.
#[inline(always)]
fn change_groups(way: &Way<'_>, judged: &Judged) -> bool {
    let is_elsewhere = |offer: &Offer| !way.carries(way.tunnel, offer.dscp.tos(offer.ecn));
    way.has_groups() && judged.iter().flatten().any(is_elsewhere)
}

/// Holds the packets of one queue that cannot go on at once, of which the first has a place in the lane.
#[inline(always)]
fn hold(judged: &Judged, queue: Queue<'_>, passed: usize, (first, held): (usize, &mut Held)) {
    if passed == judged.len() {
        return;
    }
    let mut left = passed;
    for (place, judged) in (first..).zip(judged) {
        match judged {
            Ok(_) if left > 0 => left -= 1,
            Ok(offer) => {
                held.queues |= bit(queue);
                held.places.push((place, Reason::Waits(queue.port, *offer)));
            }
            Err(reason) => held.places.push((place, Reason::Dropped(*reason))),
        }
    }
}

/// Leaves in the lane what goes on.
#[inline(never)]
fn hold_back<'a>(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'a>>,
    ways: &[Way<'_>],
    held: Held,
    ingress: PortIndex,
) {
    let mut held = held.places.into_iter().peekable();
    let mut due = Lane::default();
    for (place, (packet, departure)) in lane.drain().enumerate() {
        let Some((_, reason)) = held.next_if(|(at, _)| *at == place) else {
            // It has room for all that the other had.
            drop(due.push(packet, departure));
            continue;
        };
        match reason {
            Reason::Dropped(reason) => ctx.drop(packet, reason),
            Reason::Waits(port, offer) => {
                if let Some(item) = item(ctx, packet, &departure, ways) {
                    scheduled::enqueue(ctx, port, item, offer);
                }
            }
            Reason::Owner(owner) => {
                if let Some(item) = item(ctx, packet, &departure, ways) {
                    scheduled::hand_over(ctx, owner, item, ingress);
                }
            }
        }
    }
    *lane = due;
}

/// What classes look at: the headers, the 802.1p priority, and the tunnel.
#[inline(always)]
pub(super) fn whole_of(
    (packet, departure, way): (&Packet, &Departure<'_>, &Way<'_>),
) -> (WholeV4, Option<u8>, TunnelIndex) {
    let plain = departure.plain;
    let (source, destination, protocol) = (plain.source(), plain.destination, plain.protocol());
    let tos = tos_of(packet, departure);
    let tcp_flags = match protocol {
        IpProtocol::TCP => packet.data().get(departure.offset + TCP_FLAGS_OFFSET).copied().unwrap_or(0),
        _ => 0,
    };
    (
        WholeV4 { source, destination, ports: plain.ports, protocol, tos, tcp_flags },
        packet.vlan_priority(),
        way.tunnel,
    )
}

/// The ToS that a packet has by now: it may have been marked since it was parsed.
#[inline(always)]
pub(super) fn tos_of(packet: &Packet, departure: &Departure<'_>) -> u8 {
    packet.data().get(departure.offset + TOS_OFFSET).copied().unwrap_or(departure.plain.tos())
}

/// A packet as it waits: by itself, without the link header.
#[inline(always)]
fn item(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    departure: &Departure<'_>,
    ways: &[Way<'_>],
) -> Option<Item> {
    let alone = packet.reframe(departure.offset, 0, usize::from(departure.plain.total_bytes)).is_ok();
    let Some(way) = ways.get(departure.way).filter(|_| alone) else {
        ctx.drop(packet, DropReason::IpMalformed);
        return None;
    };
    Some(Item::plain(packet, ctx.tables.number, way.tunnel))
}

/// Queues what other workers have handed over for tunnels of this one, each with the port it came in by.
pub(crate) fn join(ctx: &mut Context<'_>, given: &mut ArrayVec<(Item, PortIndex), BURST>) {
    given.iter().for_each(|(item, _)| item.packet().prefetch_data());
    let plains: ArrayVec<Plain, BURST> = given.iter().map(|(item, _)| plain_of(ctx, item)).collect();
    let mut going = Going::default();
    for ((item, ingress), plain) in given.drain(..).zip(&plains) {
        if going.departures.ingress != ingress {
            outbound::send(ctx, &mut going.departures);
            going.departures.ingress = ingress;
        }
        if let Err(item) = going.common(ctx, item, plain) {
            outbound::send(ctx, &mut going.departures);
            scheduled::join_one(ctx, ingress, item, going.exceptions());
        }
    }
    outbound::send(ctx, &mut going.departures);
    whole::seal(ctx, &mut going.to_seal);
}

/// Sends what the scheduler of a port has let go, each with its mark.
pub(crate) fn leave(ctx: &mut Context<'_>, port: PortIndex, due: &mut ArrayVec<(Item, bool), BURST>) {
    let plains: ArrayVec<Plain, BURST> =
        due.iter().map(|(item, mark)| if *mark { Plain::NONE } else { plain_of(ctx, item) }).collect();
    let mut going = Going::default();
    for ((item, mark), plain) in due.drain(..).zip(&plains) {
        if let Err(item) = going.common(ctx, item, plain) {
            outbound::send_due(ctx, &mut going.departures);
            scheduled::leave_one(ctx, port, item, mark, going.exceptions());
        }
    }
    outbound::send_due(ctx, &mut going.departures);
    whole::seal(ctx, &mut going.to_seal);
}

/// Packets that have waited, on their way on: the common ones, and those of the whole way, in their order.
#[derive(Default)]
struct Going<'a, 'c> {
    departures: Departures<'a>,
    last_hop: LastHop,
    to_seal: Lane<SealNote<'c>>,
}

impl<'a, 'c: 'a> Going<'a, 'c> {
    /// Takes a packet that goes the common way, behind the exceptions ahead of it; gives any other back.
    #[inline(always)]
    fn common(&mut self, ctx: &mut Context<'c>, item: Item, plain: &'a Plain) -> Result<(), Item> {
        let tunnel = item.tunnel().filter(|_| *plain != Plain::NONE);
        let found =
            tunnel.and_then(|tunnel| self.departures.find(ctx, &mut self.last_hop, (plain, 0), tunnel));
        let Some(departure) = found else { return Err(item) };
        if !self.to_seal.is_empty() {
            whole::seal(ctx, &mut self.to_seal);
        }
        self.departures.push(ctx, item.into_packet(), departure);
        Ok(())
    }

    /// Where an exception goes. It may change what is known of a way.
    fn exceptions(&mut self) -> &mut Lane<SealNote<'c>> {
        self.departures.forget();
        self.last_hop = LastHop::default();
        &mut self.to_seal
    }
}

/// The packet, if it was plain and nothing has changed since.
#[inline(always)]
fn plain_of(ctx: &Context<'_>, item: &Item) -> Plain {
    let is_as_it_was = item.is_plain() && !item.is_older_than(ctx.tables.number);
    is_as_it_was.then(|| Plain::read(item.packet().data())).flatten().unwrap_or(Plain::NONE)
}
