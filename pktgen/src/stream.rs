// SPDX-License-Identifier: Apache-2.0
//! A stream ready to be sent: templates, the fields that change, the checksums that follow, the stamp.
//!
//! Everything that can be is done once; a packet costs a copy, its fields, one fold for each checksum that they
//! touch, and the stamp. Each of these goes over all packets of a burst before the next one does.

use aead::Engine;
use anyhow::Context as _;
use arrayvec::ArrayVec;
use esp::{OutboundParameters, OutboundSa, SequenceNumber, Spi};
use pktbuf::{BURST, NoRoom, Packet};
use std::net::IpAddr;
use std::path::Path;
use wire::{IpProtocol, gre};

use crate::fields::{Effect, Field, Frames, Place, SLOTS, Sums, Width, checksum};
use crate::profile::{self, Ip};
use crate::schedule::Pick;
use crate::seal::Turns;
use crate::sizes::Order;
use crate::stamp::Stamp;
use crate::template::{Layout, Template, icv, upper_protocol};
use crate::values::{Value, Values};

/// A stream.
pub struct Stream {
    /// Which one, as its stamps say.
    pub number: u16,
    templates: Box<[Prepared]>,
    order: Order,
    fields: Box<[Field]>,
    slots: ArrayVec<Slot, SLOTS>,
    stamp_at: Option<usize>,
    sequence: u32,
    flows: u64,
    flow: u64,
    sealing: Option<Sealing>,
    /// The checksums' sums of a burst, kept so that none is cleared that is not used.
    sums: Box<Sums>,
}

/// The template of one size, and what each changing checksum sums up to without the fields.
struct Prepared {
    template: Template,
    sums: [u32; SLOTS],
}

/// A checksum that changes from packet to packet.
#[derive(Clone, Copy, Debug)]
struct Slot {
    offset: usize,
    /// UDP says 0xffff where the sum is 0: 0 means that there is none (RFC 768).
    never_zero: bool,
}

/// The SAs of a sealed stream.
pub struct Sealing {
    /// One for each flow in turn.
    pub sas: Box<[OutboundSa]>,
    /// Where ESP begins in a frame.
    pub esp_offset: usize,
    /// What it carries.
    pub next_header: IpProtocol,
    next: usize,
}

impl Sealing {
    /// The place of the next packet's SA.
    #[inline]
    fn take_turn(&mut self) -> usize {
        let place = self.next;
        self.next = if place + 1 < self.sas.len() { place + 1 } else { 0 };
        place
    }
}

impl Stream {
    /// Prepares stream `number` of a profile; key files are looked for in `folder`.
    ///
    /// # Errors
    /// A size that does not hold its headers, or keys that cannot be had.
    pub fn new(
        number: u16,
        stream: &profile::Stream,
        seed: u64,
        engine: Engine,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let layout = Layout::of(stream);
        let seed = seed.wrapping_add(u64::from(number) << 32);
        let (fields, slots) = Fields::new(stream, &layout, seed).finish();
        let prepare = |size: &u16| {
            let template = Template::new(stream, &layout, *size)?;
            let sums = sums(template.frame(), &slots);
            Ok(Prepared { template, sums })
        };
        let templates: anyhow::Result<Box<[Prepared]>> = stream.size.classes().iter().map(prepare).collect();
        let templates = templates.with_context(|| format!("stream {:?}: size", stream.name))?;
        let sealing = sealing(stream, &layout, engine, folder);
        Ok(Self {
            number,
            templates,
            order: stream.size.order(seed ^ 1),
            fields,
            slots,
            stamp_at: stream.stamp.then_some(layout.payload),
            sequence: 0,
            flows: stream.flows.unwrap_or(0),
            flow: 0,
            sealing: sealing.with_context(|| format!("stream {:?}: esp", stream.name))?,
            sums: Box::new([[0; BURST]; SLOTS]),
        })
    }

    /// Bytes on the wire, without FCS, of each class of sizes.
    pub fn wire_bytes(&self) -> impl ExactSizeIterator<Item = usize> {
        self.templates.iter().map(|prepared| prepared.template.wire_bytes)
    }

    /// Bytes that a packet buffer must hold.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.templates.iter().map(|prepared| prepared.template.buffer_bytes()).max().unwrap_or(0)
    }

    /// The order of the sizes, for who decides when packets are due.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order.clone()
    }

    /// How the stream is sealed, if it is.
    #[must_use]
    pub fn sealing(&self) -> Option<&Sealing> {
        self.sealing.as_ref()
    }

    /// Writes the next `count` packets, at most a burst, of the size classes picked, into empty buffers; `turns` gets the
    /// place of the SA that seals each, if the stream is sealed. A packet is stamped with when it was due, which `sent_ns` says
    /// of its ticks.
    ///
    /// # Errors
    /// A buffer is too short, or there are more than a burst.
    #[inline]
    pub fn write<'a>(
        &mut self,
        count: usize,
        mut jobs: impl Iterator<Item = (Pick, &'a mut Packet)>,
        mut sent_ns: impl FnMut(u64) -> u64,
        turns: &mut Turns,
    ) -> Result<(), NoRoom> {
        let mut left = count;
        while left > 0 {
            let until_restart = if self.flows == 0 { u64::MAX } else { self.flows - self.flow };
            let now = usize::try_from(until_restart).unwrap_or(usize::MAX).min(left);
            if let Some(sealing) = &mut self.sealing {
                for _ in 0..now {
                    turns.try_push(sealing.take_turn()).map_err(|_| NoRoom)?;
                }
            }
            self.write_round(now, jobs.by_ref().take(now), &mut sent_ns)?;
            self.count_flows(now);
            left -= now;
        }
        Ok(())
    }

    /// Writes packets among which no flow begins again.
    #[inline]
    fn write_round<'a>(
        &mut self,
        count: usize,
        jobs: impl Iterator<Item = (Pick, &'a mut Packet)>,
        sent_ns: impl FnMut(u64) -> u64,
    ) -> Result<(), NoRoom> {
        let (mut frames, mut due) = (Frames::new(), ArrayVec::<u64, BURST>::new());
        if let [Prepared { template, sums }] = &*self.templates {
            for (pick, packet) in jobs {
                frames.try_push(template.copy_into(packet)?).map_err(|_| NoRoom)?;
                due.try_push(pick.due).map_err(|_| NoRoom)?;
            }
            for (column, sum) in self.sums.iter_mut().zip(sums).take(self.slots.len()) {
                column.get_mut(..count).ok_or(NoRoom)?.fill(*sum);
            }
        } else {
            for (place, (pick, packet)) in jobs.enumerate() {
                let Prepared { template, sums } =
                    self.templates.get(usize::from(pick.class)).ok_or(NoRoom)?;
                frames.try_push(template.copy_into(packet)?).map_err(|_| NoRoom)?;
                due.try_push(pick.due).map_err(|_| NoRoom)?;
                for (column, sum) in self.sums.iter_mut().zip(sums).take(self.slots.len()) {
                    *column.get_mut(place).ok_or(NoRoom)? = *sum;
                }
            }
        }
        for field in &mut self.fields {
            field.write(&mut frames, &mut self.sums).ok_or(NoRoom)?;
        }
        for (slot, sums) in self.slots.iter().zip(&*self.sums) {
            slot.write(&mut frames, sums).ok_or(NoRoom)?;
        }
        if let Some(at) = self.stamp_at {
            let sent_ns = due.iter().copied().map(sent_ns);
            stamp(&mut frames, at, self.number, self.sequence, sent_ns).ok_or(NoRoom)?;
        }
        // At most a burst.
        self.sequence = self.sequence.wrapping_add(count as u32);
        Ok(())
    }

    #[inline]
    fn count_flows(&mut self, packets: usize) {
        if self.flows == 0 {
            return;
        }
        self.flow += packets as u64;
        if self.flow == self.flows {
            self.flow = 0;
            self.fields.iter_mut().for_each(Field::restart);
            if let Some(sealing) = &mut self.sealing {
                sealing.next = 0;
            }
        }
    }
}

impl Slot {
    #[inline]
    fn write(&self, frames: &mut Frames<'_>, sums: &[u32]) -> Option<()> {
        for (frame, sum) in frames.iter_mut().zip(sums) {
            let checksum = match checksum(*sum) {
                0 if self.never_zero => 0xffff,
                checksum => checksum,
            };
            *frame.get_mut(self.offset..)?.first_chunk_mut()? = checksum.to_be_bytes();
        }
        Some(())
    }
}

/// Stamps packets that are numbered from `sequence`.
#[inline]
fn stamp(
    frames: &mut Frames<'_>,
    at: usize,
    stream: u16,
    mut sequence: u32,
    sent_ns: impl Iterator<Item = u64>,
) -> Option<()> {
    for (frame, sent_ns) in frames.iter_mut().zip(sent_ns) {
        *frame.get_mut(at..)?.first_chunk_mut()? = Stamp { stream, sequence, sent_ns }.to_bytes();
        sequence = sequence.wrapping_add(1);
    }
    Some(())
}

/// What each checksum of a template says that its words sum up to.
fn sums(frame: &[u8], slots: &[Slot]) -> [u32; SLOTS] {
    let mut sums = [0; SLOTS];
    for (sum, slot) in sums.iter_mut().zip(slots) {
        let found = frame.get(slot.offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; 2]);
        *sum = u32::from(!u16::from_be_bytes(found));
    }
    sums
}

fn sealing(
    stream: &profile::Stream,
    layout: &Layout,
    engine: Engine,
    folder: &Path,
) -> anyhow::Result<Option<Sealing>> {
    let (Some(settings), Some(esp_offset)) = (&stream.esp, layout.esp) else { return Ok(None) };
    let keys = settings.keys(folder).map_err(anyhow::Error::msg)?.load(settings.sas)?;
    let mut sas = Vec::new();
    for (number, keying) in (0..).zip(keys) {
        let (key, salt) = keying.expand(engine, icv(settings))?;
        let sa = OutboundSa::new(OutboundParameters {
            spi: Spi(settings.spi + number),
            key,
            salt,
            esn: settings.esn,
            iv_prefix: esp::IvPrefix::EMPTY,
            lifetime: esp::Lifetime::default(),
        });
        sa.sequence().raise_limit(SequenceNumber(u64::MAX));
        sa.sequence().resume_at(SequenceNumber(settings.first_sequence));
        // A stream has one sender.
        sas.push(sa.with_one_sender());
    }
    let next_header = layout.next_header(stream);
    Ok(Some(Sealing { sas: sas.into(), esp_offset, next_header, next: 0 }))
}

/// The checksums that a frame may have, by the place of their slot.
mod slot {
    pub(super) const OUTER: u8 = 0;
    pub(super) const DELIVERY: u8 = 1;
    pub(super) const INNER: u8 = 2;
    pub(super) const UPPER: u8 = 3;
    pub(super) const GRE: u8 = 4;
}

/// Collects the fields that change and the checksums that there are.
struct Fields {
    fields: Vec<Field>,
    slots: [Option<Slot>; SLOTS],
    seed: u64,
}

impl Fields {
    fn new(stream: &profile::Stream, layout: &Layout, seed: u64) -> Self {
        let mut fields = Self { fields: Vec::new(), slots: [None; SLOTS], seed };
        fields.add_link(stream);
        fields.add_esp(stream, layout);
        fields.add_gre(stream, layout);
        fields.add_inner(stream, layout);
        fields.add_upper(stream, layout);
        fields
    }

    fn add<T: Value>(&mut self, values: &Values<T>, place: Place) {
        if values.changes() {
            // Ranges of one stream do not move in step by chance.
            let seed = self.seed.wrapping_add(self.fields.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.fields.push(Field::new(place, values, seed));
        }
    }

    fn add_link(&mut self, stream: &profile::Stream) {
        let link = &stream.ethernet;
        let mac = |offset| plain(offset, Width::Four, Effect::default());
        self.add(&link.destination, mac(2));
        self.add(&link.source, mac(8));
        if let Some(vlan) = &link.vlan {
            let around = u64::from(link.priority) << 13;
            self.add(vlan, Place { around, ..plain(14, Width::Two, Effect::default()) });
        }
    }

    fn add_esp(&mut self, stream: &profile::Stream, layout: &Layout) {
        let Some(esp) = &stream.esp else { return };
        if let (Some(at), Some(source), Some(destination)) = (layout.outer, &esp.source, &esp.destination) {
            self.add_addresses(at, source, destination, slot::OUTER, &Effect::default());
        }
    }

    fn add_gre(&mut self, stream: &profile::Stream, layout: &Layout) {
        let (Some(settings), Some(at), Some(header)) = (&stream.gre, layout.delivery, layout.gre) else {
            return;
        };
        self.add_addresses(at, &settings.source, &settings.destination, slot::DELIVERY, &Effect::default());
        self.add_dscp(at, &settings.dscp, &settings.source, slot::DELIVERY, Effect::default());
        let mut end = header + gre::HEADER_BYTES;
        let mut effect = Effect::default();
        if settings.checksum {
            self.slots[usize::from(slot::GRE)] = Some(Slot { offset: end, never_zero: false });
            effect = effect.adding_to(slot::GRE);
            end += 4;
        }
        if let Some(key) = &settings.key {
            self.add(key, plain(end, Width::Four, effect.clone()));
            end += 4;
        }
        if settings.sequence {
            self.fields.push(Field::number(plain(end, Width::Four, effect)));
        }
    }

    fn add_inner(&mut self, stream: &profile::Stream, layout: &Layout) {
        let Ip { source, destination, dscp, .. } = &stream.ip;
        let is_v4 = source.first.is_ipv4();
        // Only ICMP for IPv4 has no pseudo-header.
        let has_pseudo_header = upper_protocol(stream) != IpProtocol::ICMP;
        let mut addresses = Effect::default();
        if has_pseudo_header {
            addresses = addresses.adding_to(slot::UPPER);
        }
        // IPv4's own checksum takes a change back, and so does a pseudo-header.
        match (is_v4, has_pseudo_header) {
            (true, true) => addresses = addresses.subtracting_from(slot::GRE),
            (false, false) => addresses = addresses.adding_to(slot::GRE),
            _ => {}
        }
        self.add_addresses(layout.inner, source, destination, slot::INNER, &addresses);
        let class = if is_v4 { Effect::default() } else { Effect::default().adding_to(slot::GRE) };
        self.add_dscp(layout.inner, dscp, source, slot::INNER, class);
    }

    fn add_upper(&mut self, stream: &profile::Stream, layout: &Layout) {
        let at = layout.upper;
        let effect = Effect::default().adding_to(slot::UPPER);
        let (checksum, never_zero) = if stream.udp.is_some() {
            (6, true)
        } else if stream.tcp.is_some() {
            (16, false)
        } else {
            (2, false)
        };
        self.slots[usize::from(slot::UPPER)] = Some(Slot { offset: at + checksum, never_zero });
        if let Some(ports) = stream.udp.as_ref().or(stream.tcp.as_ref()) {
            self.add(&ports.source_port, plain(at, Width::Two, effect.clone()));
            self.add(&ports.destination_port, plain(at + 2, Width::Two, effect.clone()));
        }
        if let Some(icmp) = &stream.icmp {
            self.add(&icmp.identifier, plain(at + 4, Width::Two, effect));
        }
    }

    fn add_addresses(
        &mut self,
        at: usize,
        source: &Values<IpAddr>,
        destination: &Values<IpAddr>,
        own: u8,
        effect: &Effect,
    ) {
        if source.first.is_ipv4() {
            self.slots[usize::from(own)] = Some(Slot { offset: at + 10, never_zero: false });
            let effect = effect.clone().adding_to(own);
            self.add(source, plain(at + 12, Width::Four, effect.clone()));
            self.add(destination, plain(at + 16, Width::Four, effect));
        } else {
            // A range stays within the last eight bytes.
            self.add(source, plain(at + 16, Width::Eight, effect.clone()));
            self.add(destination, plain(at + 32, Width::Eight, effect.clone()));
        }
    }

    fn add_dscp(
        &mut self,
        at: usize,
        dscp: &Values<wire::dscp::Dscp>,
        source: &Values<IpAddr>,
        own: u8,
        effect: Effect,
    ) {
        let place = if source.first.is_ipv4() {
            Place { shift: 2, around: 0x4500, ..plain(at, Width::Two, effect.adding_to(own)) }
        } else {
            Place { shift: 6, around: 0x6000, ..plain(at, Width::Two, effect) }
        };
        self.add(dscp, place);
    }

    /// The fields, and those checksums that one of them touches.
    fn finish(mut self) -> (Box<[Field]>, ArrayVec<Slot, SLOTS>) {
        let mut slots = ArrayVec::new();
        let mut kept = Vec::new();
        for (place, slot) in (0..).zip(&self.slots) {
            let is_touched = self.fields.iter().any(|field| field.touches(place));
            if let (Some(slot), true) = (slot, is_touched) {
                slots.push(*slot);
                kept.push(place);
            }
        }
        self.fields.iter_mut().for_each(|field| field.keep_slots(&kept));
        (self.fields.into(), slots)
    }
}

fn plain(offset: usize, width: Width, effect: Effect) -> Place {
    Place { offset, width, shift: 0, around: 0, effect }
}

#[cfg(test)]
mod tests;
