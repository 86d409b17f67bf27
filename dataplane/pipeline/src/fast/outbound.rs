// SPDX-License-Identifier: Apache-2.0
//! The way out of plain packets into tunnels: route → tunnel, SA, next hop → headers, sequence number → cipher → queue.
//!
//! [`Ways::find`] looks everything up and changes nothing; what it finds no way for goes the whole way of
//! [`crate::outbound`]. [`send`] then cannot fail but for want of room or of a sequence number.

use arrayvec::ArrayVec;
use esp::{Reservation, SealBurst, SealError};
use messages::{DropReason, PortIndex, TunnelIndex, WorkerCounter};
use pktbuf::{BURST, Batch, Packet};
use qos::mark::DscpMap;
use tables::Leaf;
use wire::ipv4::OpenFields;
use wire::{IpProtocol, ethernet, ipv4};

use super::Sorter;
use super::framing::LastHop;
use super::headers::{self, IN_CLEAR_BYTES};
use super::plain::{self, Plain};
use super::ways::{self, Departure, Way, Ways};
use super::{conditioning, waiting};
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
    let mut plains = ArrayVec::new();
    plain::parse_burst(batch, ctx.mac(port), &mut plains, |_| ());
    ctx.stopwatch.lap(Stage::Parse);
    let leaves = tables.routes.lookup_v4_burst(plains.iter().map(|plain| plain.destination));
    ways::prefetch(ctx, &leaves);
    ctx.stopwatch.lap(Stage::Lookup);
    let mut sorter = Sorter::default();
    sorter.departures.ingress = port;
    let mut packets = batch.drain(..);
    let mut ahead = Ahead { plains: &plains, leaves: &leaves };
    while packets.len() > 0 {
        // A common packet behind exceptions lets them go first.
        if sorter.had_exceptions
            && let Some(departure) = sorter.departures.find_first(ctx, &mut sorter.last_hop, ahead)
            && let Some(packet) = packets.next()
        {
            sorter.common(ctx, lanes);
            sorter.departures.push(ctx, packet, departure);
            ahead = ahead.behind(1);
            continue;
        }
        let common = match sorter.had_exceptions {
            true => 0,
            false => sorter.departures.take(ctx, &mut sorter.last_hop, &mut packets, ahead),
        };
        if let Some(packet) = packets.next() {
            sorter.exception();
            ingress::receive(ctx, port, packet, lanes);
        }
        ahead = ahead.behind(common + 1);
    }
    drop(packets);
    ctx.stopwatch.lap(Stage::Adjacency);
    send(ctx, &mut sorter.departures);
}

/// Packets of a burst whose turn has not come: their headers, and what their lookups have ended in.
#[derive(Clone, Copy)]
struct Ahead<'p, 'l> {
    plains: &'p [Plain],
    leaves: &'l [Leaf],
}

impl Ahead<'_, '_> {
    fn behind(self, count: usize) -> Self {
        let Self { plains, leaves } = self;
        Self {
            plains: plains.get(count..).unwrap_or_default(),
            leaves: leaves.get(count..).unwrap_or_default(),
        }
    }
}

/// Packets of a burst that leave by tunnels, and the ways that they go.
#[derive(Default)]
pub(super) struct Departures<'a> {
    lane: Lane<Departure<'a>>,
    ways: Ways<'a>,
    /// The port that the burst came in by.
    pub(super) ingress: PortIndex,
}

impl<'a> Departures<'a> {
    /// Takes packets into tunnels from the front, as long as they go the common way; how many.
    #[inline(always)]
    fn take<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        packets: &mut impl Iterator<Item = Packet>,
        ahead: Ahead<'a, '_>,
    ) -> usize {
        let Self { lane, ways, .. } = self;
        let mut ahead = ahead.plains.iter().zip(ahead.leaves);
        lane.extend(packets, || {
            let (plain, leaf) = ahead.next()?;
            ways.find_routed(ctx, last_hop, plain, *leaf)
        })
    }

    /// How the first packet leaves, if it goes the common way.
    #[inline(never)]
    fn find_first<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        ahead: Ahead<'a, '_>,
    ) -> Option<Departure<'a>> {
        let (plain, leaf) = (ahead.plains.first()?, ahead.leaves.first()?);
        self.ways.find_routed(ctx, last_hop, plain, *leaf)
    }

    /// How the packet at `offset`, which nobody has seen coming, goes into a tunnel, if it goes the common way.
    #[inline(always)]
    pub(super) fn find<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        packet: (&'a Plain, usize),
        tunnel: TunnelIndex,
    ) -> Option<Departure<'a>> {
        let known = self.ways.list.len();
        let departure = self.ways.find(ctx, last_hop, packet, tunnel);
        self.ways.prefetch_behind(ctx, known);
        departure
    }

    /// Something happened that may have changed ways: none of those found so far is that of another packet.
    pub(super) fn forget(&mut self) {
        self.ways.forget();
    }

    /// Queues a packet to leave.
    #[inline(always)]
    pub(super) fn push(&mut self, ctx: &mut Context<'_>, packet: Packet, departure: Departure<'a>) {
        if let Err(packet) = self.lane.push(packet, departure) {
            ctx.drop(packet, DropReason::NoBuffer);
        }
    }
}

/// Packets that were not sealed: their places in the lane, in order, and why.
type Failures = ArrayVec<(usize, SealError), BURST>;

/// Sends packets, but for those that have to wait for their turn.
pub(super) fn send(ctx: &mut Context<'_>, departures: &mut Departures<'_>) {
    let Departures { lane, ways, ingress } = departures;
    if ways.some_conditioned {
        conditioning::condition(ctx, lane, &ways.list, *ingress);
    }
    if ways.some_queued {
        waiting::wait(ctx, lane, &ways.list, *ingress);
    }
    send_due(ctx, departures);
}

/// Sends packets: headers and sequence numbers for all, then the cipher once for all, then each to its port.
pub(super) fn send_due(ctx: &mut Context<'_>, departures: &mut Departures<'_>) {
    let Departures { lane, ways: Ways { list: ways, several_ports, .. }, .. } = departures;
    if lane.is_empty() {
        return;
    }
    let mut failures = Failures::new();
    let staged = dress_and_seal(ctx, lane, ways, &mut failures);
    ctx.stopwatch.lap(Stage::Cipher);
    if !failures.is_empty() {
        lane.remove(&failures, |packet, error| ctx.drop(packet, drop_reason(error)));
    }
    // Nothing leaves in clear, even if some packet was forgotten.
    if lane.len() != staged {
        return lane.drain().for_each(|(packet, _)| ctx.drop(packet, DropReason::NoHeadroom));
    }
    ctx.counters.add(WorkerCounter::Sealed, lane.len() as u64);
    let to_one_port = |departures: &[Departure<'_>]| {
        if *several_ports { Departure::run_length(departures) } else { departures.len() }
    };
    lane.drain_runs(to_one_port, |departure, packets| {
        if let Some(way) = ways.get(departure.way) {
            link::queue_run(ctx, way.framing.port, packets.map(Outgoing::sealed));
        }
    });
    ctx.stopwatch.lap(Stage::Transmit);
}

/// Returns how many packets were sealed.
#[inline(always)]
fn dress_and_seal(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'_>>,
    ways: &[Way<'_>],
    failures: &mut Failures,
) -> usize {
    let mut burst = SealBurst::new();
    for (packets, run) in lane.runs_mut(Departure::run_length) {
        let way = run.first().and_then(|first| ways.get(first.way));
        // A length that the compiler knows makes a copy a few wide stores, and spares each field its check.
        match way.map(|way| (way, way.shortcut.header_bytes)) {
            Some((way, 40)) => dress_run::<40, 60>(ctx, way, (packets, run), &mut burst, failures),
            Some((way, 44)) => dress_run::<44, 64>(ctx, way, (packets, run), &mut burst, failures),
            Some((way, 60)) => dress_run::<60, 80>(ctx, way, (packets, run), &mut burst, failures),
            Some((way, 64)) => dress_run::<64, 84>(ctx, way, (packets, run), &mut burst, failures),
            _ => run.iter().for_each(|_| fail(&burst, failures, SealError::NoRoom)),
        }
    }
    ctx.stopwatch.lap(Stage::Headers);
    // Sealed where it ends: to be given to `seal` it would be copied.
    burst.len()
}

/// Notes that the packet whose turn it is will not be sealed.
#[inline(always)]
fn fail(burst: &SealBurst<'_>, failures: &mut Failures, error: SealError) {
    failures.push((burst.len() + failures.len(), error));
}

/// Prepares packets that go one way, with `HEADERS` bytes of delivery headers, for the cipher; `FRONT` is that and their own
/// IPv4 header.
#[inline(always)]
fn dress_run<'a, const HEADERS: usize, const FRONT: usize>(
    ctx: &mut Context<'_>,
    way: &Way<'a>,
    (packets, run): (&'a mut [Packet], &[Departure<'_>]),
    burst: &mut SealBurst<'a>,
    failures: &mut Failures,
) {
    let bytes = run.iter().map(|departure| u64::from(departure.plain.total_bytes)).sum();
    way.shortcut.counts.count_out(ctx.worker, run.len() as u64, bytes);
    match &way.shortcut.outward {
        None => dress_each::<HEADERS, FRONT>(ctx, way, (packets, run), (burst, failures), |fields| fields),
        Some(map) => dress_mapped::<HEADERS, FRONT>(ctx, way, (packets, run), (burst, failures), map),
    }
}

/// The same for a tunnel that maps DSCPs; apart, so that others do not pay for it.
#[inline(never)]
fn dress_mapped<'a, const HEADERS: usize, const FRONT: usize>(
    ctx: &mut Context<'_>,
    way: &Way<'a>,
    run: (&'a mut [Packet], &[Departure<'_>]),
    results: (&mut SealBurst<'a>, &mut Failures),
    map: &DscpMap,
) {
    dress_each::<HEADERS, FRONT>(ctx, way, run, results, |fields| {
        fields.map_tos(|tos| map.apply_to_tos(tos))
    });
}

/// `outward` tells how a packet's header looks to the one in front of it.
#[inline(always)]
fn dress_each<'a, const HEADERS: usize, const FRONT: usize>(
    ctx: &mut Context<'_>,
    way: &Way<'a>,
    (packets, run): (&'a mut [Packet], &[Departure<'_>]),
    (burst, failures): (&mut SealBurst<'a>, &mut Failures),
    outward: impl Fn(OpenFields) -> OpenFields,
) {
    let mut text_bytes = 0;
    let reservations = way.sa.reserve(run.len(), ctx.now_ns);
    for ((departure, reservation), packet) in run.iter().zip(reservations).zip(packets) {
        let dressed = match reservation {
            Ok(reservation) => {
                dress::<HEADERS, FRONT>(ctx, way, (packet, departure), reservation, burst, &outward)
            }
            Err(error) => {
                headers::skip(way.shortcut, ctx.identification);
                Err(error)
            }
        };
        match dressed {
            Ok(bytes) => text_bytes += bytes,
            Err(error) => fail(burst, failures, error),
        }
    }
    burst.count(way.sa, text_bytes);
}

/// Writes everything around a packet but its ICV, and stages it for the cipher; returns how many octets are to be encrypted.
#[inline(always)]
fn dress<'a, const HEADERS: usize, const FRONT: usize>(
    ctx: &mut Context<'_>,
    way: &Way<'a>,
    (packet, departure): (&'a mut Packet, &Departure<'_>),
    reservation: Reservation<'a>,
    burst: &mut SealBurst<'a>,
    outward: impl Fn(OpenFields) -> OpenFields,
) -> Result<usize, SealError> {
    let Way { shortcut, sa, framing, .. } = way;
    let payload_bytes = HEADERS - IN_CLEAR_BYTES + usize::from(departure.plain.total_bytes);
    let envelope = sa.envelope(payload_bytes);
    let sealed_bytes = ipv4::HEADER_BYTES + envelope.bytes();
    let (trim, grow) = (departure.offset, ethernet::HEADER_BYTES + HEADERS);
    let frame = packet.reframe(trim, grow, ethernet::HEADER_BYTES + sealed_bytes);
    let (link, l3) = frame.ok().and_then(<[u8]>::split_first_chunk_mut).ok_or(SealError::NoRoom)?;
    framing.write(link);
    let front = l3.first_chunk_mut::<FRONT>().ok_or(SealError::NoRoom)?;
    headers::put_on::<HEADERS, FRONT>(front, shortcut, sealed_bytes, ctx.identification, outward)
        .ok_or(SealError::NoRoom)?;
    let (_, esp) = l3.split_at_mut_checked(ipv4::HEADER_BYTES).ok_or(SealError::NoRoom)?;
    burst.stage(esp, envelope, reservation, IpProtocol(shortcut.esp_next_header))
}
