// SPDX-License-Identifier: Apache-2.0
//! How much each worker has sent of what others have waiting too: who is ahead lets them catch up.
//!
//! ```text
//!   a class of the port, a priority level    at worker 0 ── at worker 1     as many bytes
//!   tunnels' shares                          at worker 0 ── at worker 1 ── the port's own     by number of tunnels
//! ```
//!
//! Tokens alone are nobody's: a worker with short packets, or with turns that come more often, would leave none to another
//! that waits for the same bucket. So bytes are counted, and a worker that is more than its lead ahead of one with something
//! waiting takes no tokens. The lead is what a port sends in [`LEAD_NS`]: turns that are shorter cost no rate. Nobody is
//! further behind than two leads when it begins to wait: what it did not use before is not made up for.
//!
//! Counters go round; what counts is their distance.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Backlog, PortShare, Waiting};
use crate::bucket::TrafficProfile;
use crate::schedule::{CLASSES_MAX, ClassSlot, PRIORITY_LEVELS};

/// The port's own classes with shares by place, tunnels' shares, priority levels.
pub(super) const KINDS: usize = CLASSES_MAX + 1 + PRIORITY_LEVELS;
const TUNNELS: usize = CLASSES_MAX;
pub(super) const OWN: u32 = (1 << CLASSES_MAX) - 1;
/// How long a worker may send alone while another waits.
const LEAD_NS: u64 = 250_000;

/// How far one counter is before another; negative if it is behind.
#[inline]
pub(super) const fn distance(of: u64, before: u64) -> i64 {
    of.wrapping_sub(before).cast_signed()
}

/// Moves a counter forward to `to`, unless it is there.
pub(super) fn raise(counter: &AtomicU64, to: u64) {
    let ahead = |now| (distance(to, now) > 0).then_some(to);
    // It declines where nothing is to be done.
    let _ = counter.fetch_update(Relaxed, Relaxed, ahead);
}

impl Backlog {
    /// What waits, one bit for each kind.
    pub(super) fn kinds(&self) -> u32 {
        let tunnels = u32::from(self.tunnels > 0) << TUNNELS;
        let levels = (TUNNELS + 1..).zip(self.bytes);
        levels.fold(self.shares & OWN | tunnels, |kinds, (kind, bytes)| kinds | u32::from(bytes > 0) << kind)
    }
}

impl Waiting {
    fn sent(&self, kind: usize) -> u64 {
        self.sent.get(kind).map_or(0, |sent| sent.load(Relaxed))
    }
}

/// One worker among those that send by a port.
pub(super) struct Peers {
    /// Bytes that it may be ahead of one that waits.
    lead: i64,
    /// Whether others have anything waiting.
    contended: bool,
    /// Bytes of each kind that may still be sent.
    room: [i64; KINDS],
    /// The same of all classes of the port's own together.
    own_room: i64,
    /// Bytes sent in this turn.
    sent: [u64; KINDS],
    own_sent: u64,
    /// Tunnels with shares that waited at the end of the last turn.
    tunnels: u64,
    /// Bytes of tunnels that are less than one for each of them.
    carry: u64,
}

impl Peers {
    pub(super) fn new(profile: Option<TrafficProfile>, spare: u32, packet_bytes_max: u32) -> Self {
        let carried = profile.map_or(0, |profile| profile.rate.bps() / 8 / (1_000_000_000 / LEAD_NS));
        let lead = carried.min(u64::from(spare / 4)).max(2 * u64::from(packet_bytes_max));
        Self {
            lead: i64::try_from(lead).unwrap_or(i64::MAX),
            contended: false,
            room: [i64::MAX; KINDS],
            own_room: i64::MAX,
            sent: [0; KINDS],
            own_sent: 0,
            tunnels: 1,
            carry: 0,
        }
    }

    /// Bytes that it may be ahead.
    #[inline]
    pub(super) fn lead(&self) -> u64 {
        self.lead.unsigned_abs()
    }

    /// Looks at what others have waiting and have sent.
    pub(super) fn look(&mut self, share: &PortShare, worker: usize, now_ns: u64) {
        self.contended = false;
        let Some(me) = share.workers.get(worker) else { return };
        for other in share.others(worker, now_ns) {
            let kinds = other.kinds.load(Relaxed);
            if kinds == 0 {
                continue;
            }
            if !self.contended {
                (self.contended, self.room, self.own_room) = (true, [i64::MAX; KINDS], i64::MAX);
            }
            for (kind, room) in self.room.iter_mut().enumerate().filter(|(kind, _)| kinds >> kind & 1 == 1) {
                let behind = distance(other.sent(kind), me.sent(kind));
                *room = behind.saturating_add(self.lead).min(*room);
            }
            let (own, tunnels) = (share.own_sent.load(Relaxed), me.sent(TUNNELS));
            if kinds >> TUNNELS & 1 == 1 {
                let behind = distance(other.sent(TUNNELS), own);
                self.own_room = behind.saturating_add(self.lead).min(self.own_room);
            }
            if let (true, Some(room)) = (kinds & OWN != 0, self.room.get_mut(TUNNELS)) {
                *room = distance(own, tunnels).saturating_add(self.lead).min(*room);
            }
        }
        if self.contended {
            for (room, sent) in self.room.iter_mut().zip(self.sent) {
                *room = room.saturating_sub_unsigned(sent);
            }
            self.own_room = self.own_room.saturating_sub_unsigned(self.own_sent);
        }
    }

    #[inline]
    fn is_ahead(&self, kind: usize) -> bool {
        self.contended && self.room.get(kind).is_some_and(|room| *room < 0)
    }

    #[inline]
    pub(super) fn class_is_ahead(&self, class: ClassSlot) -> bool {
        self.contended && (self.own_room < 0 || self.is_ahead(class.0.into()))
    }

    #[inline]
    pub(super) fn tunnels_are_ahead(&self) -> bool {
        self.is_ahead(TUNNELS)
    }

    #[inline]
    pub(super) fn level_is_ahead(&self, level: usize) -> bool {
        level < PRIORITY_LEVELS && self.is_ahead(TUNNELS + 1 + level)
    }

    #[inline]
    fn pass(&mut self, kind: usize, bytes: u64) {
        if let Some(sent) = self.sent.get_mut(kind) {
            *sent += bytes;
        }
        if let Some(room) = self.room.get_mut(kind).filter(|_| self.contended) {
            *room = room.saturating_sub_unsigned(bytes);
        }
    }

    #[inline]
    pub(super) fn pass_class(&mut self, class: ClassSlot, bytes: u32) {
        self.pass(class.0.into(), bytes.into());
        self.own_sent += u64::from(bytes);
        self.own_room = self.own_room.saturating_sub(bytes.into());
    }

    #[inline]
    pub(super) fn pass_tunnel(&mut self, bytes: u32) {
        let bytes = u64::from(bytes) + self.carry;
        self.carry = bytes % self.tunnels;
        self.pass(TUNNELS, bytes / self.tunnels);
    }

    #[inline]
    pub(super) fn pass_level(&mut self, level: usize, bytes: u32) {
        self.pass(TUNNELS + 1 + level, bytes.into());
    }

    /// What was sent counts for the others.
    pub(super) fn settle(&mut self, share: &PortShare, worker: usize) {
        let Some(me) = share.workers.get(worker) else { return };
        if self.own_sent > 0 {
            share.own_sent.fetch_add(core::mem::take(&mut self.own_sent), Relaxed);
        }
        for (kind, sent) in self.sent.iter_mut().enumerate() {
            if let Some(counter) = me.sent.get(kind).filter(|_| *sent > 0) {
                // Nobody else writes it.
                counter.store(counter.load(Relaxed).wrapping_add(core::mem::take(sent)), Relaxed);
            }
        }
    }

    /// A turn ends, with this waiting.
    pub(super) fn rest(&mut self, share: &PortShare, worker: usize, backlog: &Backlog) {
        let kinds = backlog.kinds();
        self.tunnels = u64::from(backlog.tunnels).max(1);
        if kinds != 0 {
            self.forgo(share, worker, kinds);
        }
    }

    /// What waits here is not further behind than two leads.
    fn forgo(&self, share: &PortShare, worker: usize, kinds: u32) {
        let credit = self.lead().saturating_mul(2);
        let others = || share.workers.iter().enumerate().filter(move |(index, _)| *index != worker);
        let raise = |counter: &AtomicU64, other: u64| raise(counter, other.wrapping_sub(credit));
        let Some(me) = share.workers.get(worker) else { return };
        for (kind, counter) in me.sent.iter().enumerate().filter(|(kind, _)| kinds >> kind & 1 == 1) {
            others().for_each(|(_, other)| raise(counter, other.sent(kind)));
        }
        if kinds & OWN != 0 {
            others().for_each(|(_, other)| raise(&share.own_sent, other.sent(TUNNELS)));
        }
        if let Some(tunnels) = me.sent.get(TUNNELS).filter(|_| kinds >> TUNNELS & 1 == 1) {
            raise(tunnels, share.own_sent.load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests;
