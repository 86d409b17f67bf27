// SPDX-License-Identifier: Apache-2.0
//! The way out of plain packets into tunnels: route → tunnel, SA, next hop → headers, sequence number → cipher → queue.
//!
//! [`Departures::find`] looks everything up and changes nothing; what it finds no way for goes the whole way of
//! [`crate::outbound`]. [`send`] then cannot fail but for want of room or of a sequence number.

use arrayvec::ArrayVec;
use esp::{OutboundSa, Reservation, SealBurst, SealError};
use messages::{DropReason, PortIndex, TunnelIndex, WorkerCounter};
use pktbuf::{BURST, Batch, Packet};
use qos::mark::DscpMap;
use tables::{AtWork, Leaf, Services, ShortcutOut};
use wire::ipv4::OpenFields;
use wire::{IpProtocol, ethernet, ipv4};

use super::Sorter;
use super::framing::{Framing, LastHop};
use super::headers::{self, IN_CLEAR_BYTES};
use super::plain::{self, Plain};
use super::{conditioning, waiting};
use crate::context::Context;
use crate::dispatch::Lanes;
use crate::lane::{Lane, run_length};
use crate::outbound::drop_reason;
use crate::outgoing::Outgoing;
use crate::stopwatch::Stage;
use crate::{ingress, link};

/// More than a route can lead into.
const NO_TUNNEL: TunnelIndex = TunnelIndex(u32::MAX);

/// Carries a burst that came in by a protected port, where no SPD applies.
pub(super) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    let tables = ctx.tables;
    let mut plains = ArrayVec::new();
    plain::parse_burst(batch, ctx.mac(port), &mut plains, |_| ());
    ctx.stopwatch.lap(Stage::Parse);
    let leaves = tables.routes.lookup_v4_burst(plains.iter().map(|plain| plain.destination));
    prefetch_ways(ctx, &leaves);
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

/// Asks for what ways into tunnels lead over, step by step: the shortcut, the SA's place, the SA.
#[inline(always)]
fn prefetch_ways(ctx: &Context<'_>, leaves: &[Leaf]) {
    let mut shortcuts = ArrayVec::<_, BURST>::new();
    let mut last = Leaf::NONE;
    for leaf in leaves {
        if *leaf != last {
            last = *leaf;
            shortcuts.extend(last.tunnel().and_then(|tunnel| ctx.tables.tunnels.prefetch_out(tunnel)));
        }
    }
    for shortcut in shortcuts.iter().copied().flatten() {
        ctx.sad.prefetch_outbound(shortcut.sa);
    }
    for shortcut in shortcuts.iter().copied().flatten() {
        ctx.sad.outbound(shortcut.sa).into_iter().for_each(OutboundSa::prefetch);
    }
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

/// What all packets into one tunnel share.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) tunnel: TunnelIndex,
    /// The tunnel's shortcut, which knows those of its class groups; and the one of this way's.
    whole: &'a ShortcutOut,
    shortcut: &'a ShortcutOut,
    sa: &'a OutboundSa,
    framing: Framing,
    /// What service policies do with packets first.
    pub(super) services: Services<'a>,
    /// Ways in a row with the same services are of one group; one with class groups is of its own. Only told if some has any.
    pub(super) group: u8,
}

impl<'a> Way<'a> {
    /// The way into a tunnel for packets with this ToS, if they have a common one.
    #[inline(always)]
    fn find<'c: 'a>(ctx: &Context<'c>, last_hop: &mut LastHop, tunnel: TunnelIndex, tos: u8) -> Option<Self> {
        let tables = ctx.tables;
        let whole = tables.tunnels.shortcut_out(tunnel)?;
        let shortcut = whole.for_tos(tos)?;
        let services = tables.quality.tunnel(tunnel, shortcut.port);
        // A policy without queues may mark a packet after this, and so change its class group.
        (services.pre_classify() && (services.conditions.is_none() || !whole.has_groups())).then_some(())?;
        let framing = last_hop.towards_neighbor(ctx, shortcut.port, shortcut.neighbor)?;
        let sa = ctx.sad.outbound(shortcut.sa)?;
        sa.prefetch();
        shortcut.counts.prefetch(ctx.worker);
        Some(Self { tunnel, whole, shortcut, sa, framing, services, group: 0 })
    }

    /// What a payload packet of `total_bytes` is on the wire, as a policy at work on this way counts it.
    #[inline(always)]
    pub(super) fn wire_bytes(&self, at_work: AtWork<'_>, total_bytes: u16) -> u32 {
        at_work.wire_bytes(self.sealed_bytes(total_bytes))
    }

    /// What is around a payload packet.
    #[inline(always)]
    pub(super) fn shape(&self) -> Shape {
        Shape { header_bytes: self.shortcut.header_bytes, icv_bytes: self.sa.icv_bytes() }
    }

    /// The length of the IP packet that a payload packet of `total_bytes` becomes.
    #[inline(always)]
    fn sealed_bytes(&self, total_bytes: u16) -> usize {
        let headers = usize::from(self.shortcut.header_bytes).saturating_sub(IN_CLEAR_BYTES);
        ipv4::HEADER_BYTES + self.sa.sealed_bytes(headers + usize::from(total_bytes))
    }

    /// The way of packets with another ToS; the same if theirs is not a common one.
    #[inline(always)]
    pub(super) fn for_tos<'c: 'a>(self, ctx: &Context<'c>, tos: u8) -> Self {
        let other =
            self.whole.for_tos(tos).and_then(|shortcut| Some((shortcut, ctx.sad.outbound(shortcut.sa)?)));
        other.map_or(self, |(shortcut, sa)| Self { shortcut, sa, ..self })
    }

    /// Whether packets with another ToS may go another way.
    #[inline(always)]
    pub(super) fn has_groups(&self) -> bool {
        self.whole.has_groups()
    }

    /// The group of a way that is found after this one.
    #[inline(always)]
    fn group_of_next(&self, next: &Self) -> u8 {
        let is_same = self.services.is(&next.services) && !self.has_groups() && !next.has_groups();
        self.group + u8::from(!is_same)
    }

    /// Whether packets into `tunnel` with this ToS go this way.
    #[inline(always)]
    pub(super) fn carries(&self, tunnel: TunnelIndex, tos: u8) -> bool {
        let shortcut = self.whole.for_tos(tos);
        self.tunnel == tunnel && shortcut.is_some_and(|shortcut| core::ptr::eq(shortcut, self.shortcut))
    }
}

/// What of a way decides how long packets become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    header_bytes: u8,
    icv_bytes: usize,
}

/// A plain packet that can leave by a tunnel.
#[derive(Clone, Copy)]
pub(super) struct Departure<'a> {
    pub(super) plain: &'a Plain,
    /// Where the packet begins in its buffer.
    pub(super) offset: usize,
    /// Its place among the ways.
    pub(super) way: usize,
}

impl Departure<'_> {
    /// How many at the front go the same way. Ways are numbered as they are found, and none comes back: if the last goes the
    /// way of the first, all do.
    #[inline(always)]
    pub(super) fn run_length(departures: &[Self]) -> usize {
        match departures {
            [first, .., last] if first.way == last.way => departures.len(),
            _ => run_length(departures, |one, other| one.way == other.way),
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

/// The ways that were found for packets of a burst.
#[derive(Default)]
struct Ways<'a> {
    /// One for packets in a row that share it, so that there is room for those of a burst.
    list: ArrayVec<Way<'a>, BURST>,
    latest: Latest,
    /// Packets of some way are metered and marked; or queued.
    some_conditioned: bool,
    some_queued: bool,
    /// Not all ways leave by the same port.
    several_ports: bool,
}

/// What tells whether the next packet goes the way that was found last.
#[derive(Clone, Copy)]
struct Latest {
    /// The tunnel, if the way can be relied on for any packet into it; else one that no packet goes into.
    tunnel: TunnelIndex,
    /// It can be for packets of its class group.
    may_follow_in_group: bool,
    /// Its place among the ways.
    way: usize,
    mtu: u16,
    clamps_mss: bool,
}

impl Default for Latest {
    fn default() -> Self {
        Self { tunnel: NO_TUNNEL, may_follow_in_group: false, way: 0, mtu: 0, clamps_mss: false }
    }
}

impl<'a> Ways<'a> {
    /// How a packet that came in by a port leaves, if that is by a tunnel and it goes the common way.
    #[inline(always)]
    fn find_routed<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        plain: &'a Plain,
        leaf: Leaf,
    ) -> Option<Departure<'a>> {
        let tunnel = leaf.tunnel()?;
        let addresses = &ctx.tables.addresses;
        let is_between_hosts =
            addresses.is_foreign_host(plain.source()) && addresses.is_foreign_host(plain.destination);
        is_between_hosts.then_some(())?;
        self.find(ctx, last_hop, (plain, ethernet::HEADER_BYTES), tunnel)
    }

    /// How the packet at `offset` goes into a tunnel, if it goes the common way.
    #[inline(always)]
    fn find<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        (plain, offset): (&'a Plain, usize),
        tunnel: TunnelIndex,
    ) -> Option<Departure<'a>> {
        if self.latest.tunnel != tunnel && !self.follows_in_group(tunnel, plain.tos()) {
            self.find_way(ctx, last_hop, tunnel, plain.tos())?;
        }
        let Latest { way, mtu, clamps_mss, .. } = self.latest;
        let fits = plain.ttl() > 1 && plain.total_bytes <= mtu && !(plain.is_syn && clamps_mss);
        fits.then_some(Departure { plain, offset, way })
    }

    /// Finds the way into a tunnel of packets with this ToS, if they have a common one.
    #[inline(always)]
    fn find_way<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        tunnel: TunnelIndex,
        tos: u8,
    ) -> Option<()> {
        let mut way = Way::find(ctx, last_hop, tunnel, tos)?;
        self.some_conditioned |= way.services.conditions.is_some();
        self.some_queued |= way.services.queue.is_some();
        if let Some(last) = self.list.last() {
            self.several_ports |= last.framing.port != way.framing.port;
            if self.some_conditioned || self.some_queued {
                way.group = last.group_of_next(&way);
            }
        }
        let has_groups = way.whole.has_groups();
        let latest = Latest {
            tunnel: if has_groups { NO_TUNNEL } else { tunnel },
            may_follow_in_group: has_groups,
            way: self.list.len(),
            mtu: way.shortcut.mtu,
            clamps_mss: way.shortcut.clamps_mss,
        };
        self.list.try_push(way).ok()?;
        self.latest = latest;
        Some(())
    }

    #[inline(always)]
    fn follows_in_group(&self, tunnel: TunnelIndex, tos: u8) -> bool {
        self.latest.may_follow_in_group && self.list.last().is_some_and(|last| last.carries(tunnel, tos))
    }
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

    /// How the packet at `offset` goes into a tunnel, if it goes the common way.
    #[inline(always)]
    pub(super) fn find<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        packet: (&'a Plain, usize),
        tunnel: TunnelIndex,
    ) -> Option<Departure<'a>> {
        self.ways.find(ctx, last_hop, packet, tunnel)
    }

    /// Something happened that may have changed ways: none of those found so far is that of another packet.
    pub(super) fn forget(&mut self) {
        self.ways.latest = Latest::default();
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
        drop_failed(ctx, lane, &failures);
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

/// Leaves in the lane what was sealed.
#[cold]
fn drop_failed<'a>(ctx: &mut Context<'_>, lane: &mut Lane<Departure<'a>>, failures: &Failures) {
    let mut failures = failures.iter().peekable();
    let mut sealed = Lane::default();
    for (place, (packet, departure)) in lane.drain().enumerate() {
        match failures.next_if(|(at, _)| *at == place) {
            Some((_, error)) => ctx.drop(packet, drop_reason(*error)),
            // It has room for all that the other had.
            None => drop(sealed.push(packet, departure)),
        }
    }
    *lane = sealed;
}
