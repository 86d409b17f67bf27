// SPDX-License-Identifier: Apache-2.0
//! A box in the middle that reorders by DSCP, between two whole pipelines: what the peer's anti-replay window drops, with
//! one SA and with an SA for each class group (RFC 4301 §4.1).
//!
//! The box forwards EF at once, AF11 when 1,500 younger packets have come, and the rest when 3,000 have: more than the
//! window of 1,024. Counted are packets that come out at the far side.

use std::collections::VecDeque;

use aead::Engine;
use anyhow::Context as _;
use messages::{Base, ClassGroups, Direction, DropReason, DscpSet, Object, PortIndex, ProtectionIndex, Sa};
use pipeline::Pipeline;
use pktbuf::{BURST, Batch, Pool};
use wire::{Dscp, ethernet, ipv4};

use super::Row;
use crate::bed::{self, Bed, Headend, LAN, MTU, Role, Setting, WAN};
use crate::profile::{REPLAY_WINDOW, Routes, flow};
use crate::traffic::{Size, Traffic};

/// AF11.
const BULK: u8 = 10;
/// By how many packets AF11 is held back; the rest by twice as many.
const HELD_BACK: usize = 1_500;
/// The tunnel that everything goes into. The SAs of tunnels 1 and 2 become those of its groups.
const TUNNELS: u32 = 3;
const NOW_NS: u64 = 1_000_000_000;

/// Packets through the box, without groups and with them.
pub(super) fn reordered_by_dscp(packets: usize) -> anyhow::Result<Vec<Row>> {
    let (without, with) = (lost(packets, false)?, lost(packets, true)?);
    let name = |what: &str| {
        format!(
            "box that holds back by DSCP, up to {} packets, window {REPLAY_WINDOW}: {what}",
            2 * HELD_BACK
        )
    };
    let of = packets - packets % 3;
    Ok(vec![
        Row::at_most(
            name(&format!("lost of {of} with an SA for each class group")),
            with as f64,
            0.0,
            "packets",
        ),
        Row::at_least(
            name(&format!("lost of {of} with one SA, for comparison")),
            without as f64,
            1.0,
            "packets",
        ),
    ])
}

/// How many packets do not come out at the far side; all of them for their age.
fn lost(packets: usize, grouped: bool) -> anyhow::Result<usize> {
    let setting = Setting::usual(TUNNELS, 1, Engine::best());
    let mut bed = Bed::new(&setting)?;
    if grouped {
        let [sealer, opener] = &mut bed.headends;
        regroup(sealer, &mut bed.sealer, Role::Sealer, &setting)?;
        regroup(opener, &mut bed.opener, Role::Opener, &setting)?;
    }
    let traffic = Traffic::new(&setting, Size::Fixed(64), &[flow(&Routes::new(TUNNELS), 0, 0)])?;
    let pool = Pool::memory(2 * BURST, usize::from(MTU) + 64)?;
    let frames = [Dscp::EF.get(), BULK, 0].map(|dscp| marked(traffic.frame(0), dscp));
    let (mut middle, mut out) = (Middle::default(), 0);
    for _ in 0..packets / 3 {
        for frame in forwarded(&mut bed.sealer, &pool, (LAN, WAN), &frames)? {
            middle.take(frame);
        }
        let due = middle.due(false);
        out += forwarded(&mut bed.opener, &pool, (WAN, LAN), &due)?.len();
    }
    for due in middle.due(true).chunks(BURST) {
        out += forwarded(&mut bed.opener, &pool, (WAN, LAN), due)?.len();
    }
    let sent = packets - packets % 3;
    let too_old = bed.opener.counters().dropped(DropReason::ReplayTooOld);
    let lost = sent.checked_sub(out).context("more came out than went in")?;
    anyhow::ensure!(too_old == lost as u64, "{lost} were lost, but {too_old} for their age");
    Ok(lost)
}

/// EF and AF11 in groups of their own, under the SAs that were those of tunnels 1 and 2.
fn regroup(
    headend: &mut Headend,
    pipeline: &mut Pipeline,
    role: Role,
    setting: &Setting,
) -> anyhow::Result<()> {
    let mut class_groups = ClassGroups::default();
    class_groups.0[..2].copy_from_slice(&[DscpSet(1 << Dscp::EF.get()), DscpSet(1 << BULK)]);
    let protection = ProtectionIndex(0);
    let installer = &mut headend.installer;
    let wanted = installer.tables().wanted().protections().find(|entry| entry.protection == protection);
    let grouped = messages::Protection { class_groups, ..*wanted.context("the protection of tunnel 0")? };
    let mut objects = vec![Object::Protection(grouped)];
    for group in 1..=2 {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let class_group = if direction == Direction::Outbound { group } else { 0 };
            let sa = bed::sa(role, setting, u32::from(group), direction)?;
            objects.push(Object::Sa(Sa { protection, class_group, ..sa }));
        }
    }
    installer.begin(2, Base::Running);
    objects.iter().for_each(|object| installer.put(object));
    drop(pipeline.switch(installer.commit(2, NOW_NS)?, NOW_NS));
    Ok(())
}

/// Carries frames from one port of a headend to the other.
fn forwarded(
    pipeline: &mut Pipeline,
    pool: &Pool,
    (from, to): (PortIndex, PortIndex),
    frames: &[Vec<u8>],
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut left = Vec::new();
    for burst in frames.chunks(BURST) {
        let mut batch = Batch::new();
        for frame in burst {
            let packet = pool.copy_of(frame).context("a buffer")?;
            batch.push(packet);
        }
        pipeline.receive(from, &mut batch, NOW_NS);
        pipeline.transmit(to, |batch| {
            let taken = batch.len();
            left.extend(batch.drain(..).map(|packet| packet.data().to_vec()));
            taken
        });
    }
    Ok(left)
}

/// The frame with another DSCP in its IPv4 header.
fn marked(mut frame: Vec<u8>, dscp: u8) -> Vec<u8> {
    if let Some(l3) = frame.get_mut(ethernet::HEADER_BYTES..)
        && let Some(tos) = l3.get_mut(1)
    {
        *tos = dscp << 2;
        if let Ok((header, _)) = ipv4::Header::split_mut(l3) {
            header.fill_checksum();
        }
    }
    frame
}

/// The box: each DSCP in its order, but held back for longer or shorter.
#[derive(Default)]
struct Middle {
    held: [VecDeque<(usize, Vec<u8>)>; 3],
    come: usize,
}

impl Middle {
    fn take(&mut self, frame: Vec<u8>) {
        let place = match frame.get(ethernet::HEADER_BYTES + 1).map(|tos| tos >> 2) {
            Some(dscp) if dscp == Dscp::EF.get() => 0,
            Some(BULK) => 1,
            _ => 2,
        };
        if let Some(held) = self.held.get_mut(place) {
            held.push_back((self.come, frame));
        }
        self.come += 1;
    }

    /// What it forwards by now, or everything.
    fn due(&mut self, all: bool) -> Vec<Vec<u8>> {
        let (come, mut due) = (self.come, Vec::new());
        for (place, held) in self.held.iter_mut().enumerate() {
            while held.front().is_some_and(|(came, _)| all || came + place * HELD_BACK < come) {
                due.extend(held.pop_front().map(|(_, frame)| frame));
            }
        }
        due
    }
}
