// SPDX-License-Identifier: Apache-2.0
//! What is counted for each class, and why an item can be refused.

use core::fmt;

/// Packets and the bytes that they are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// Why an item was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such tunnel or class.
    NoSuchClass,
    /// Its bytes on the wire are none, or more than the port's most.
    BadSize,
    /// The class's queue is at its limit.
    QueueLimit,
    /// WRED, before the queue is full.
    Wred,
    /// CoDel: the queue has been long for too long.
    CoDel,
    /// PIE: packets wait too long.
    Pie,
    /// The port has no room left for queued items.
    NoRoom,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoSuchClass,
        Self::BadSize,
        Self::QueueLimit,
        Self::Wred,
        Self::CoDel,
        Self::Pie,
        Self::NoRoom,
    ];

    /// The name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSuchClass => "no_such_class",
            Self::BadSize => "bad_size",
            Self::QueueLimit => "queue_limit",
            Self::Wred => "wred",
            Self::CoDel => "codel",
            Self::Pie => "pie",
            Self::NoRoom => "no_room",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The counters of one class, as they were read. Offered = sent + dropped + what is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What arrived.
    pub offered: Volume,
    /// What left.
    pub sent: Volume,
    /// Packets that left with a CE mark of ours.
    pub marked: u64,
    /// Bytes that were dropped.
    pub dropped_bytes: u64,
    pub(super) dropped: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in [(&mut self.offered, other.offered), (&mut self.sent, other.sent)] {
            own.packets += other.packets;
            own.bytes += other.bytes;
        }
        self.marked += other.marked;
        self.dropped_bytes += other.dropped_bytes;
        self.dropped.iter_mut().zip(other.dropped).for_each(|(own, other)| *own += other);
    }

    /// Packets dropped for this reason.
    #[must_use]
    pub fn dropped(&self, refusal: Refusal) -> u64 {
        self.dropped.get(refusal as usize).copied().unwrap_or(0)
    }

    /// Packets dropped, for whatever reason.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// What waits. Read beside a worker that counts, it may be a few packets off.
    #[must_use]
    pub fn queued(&self) -> Volume {
        let less =
            |offered: u64, sent: u64, dropped: u64| offered.saturating_sub(sent).saturating_sub(dropped);
        Volume {
            packets: less(self.offered.packets, self.sent.packets, self.dropped_in_all()),
            bytes: less(self.offered.bytes, self.sent.bytes, self.dropped_bytes),
        }
    }
}
