// SPDX-License-Identifier: Apache-2.0
//! Which Ethernet address a neighbour has: shared by all workers, of fixed size, made of atomics.
//!
//! ```text
//! prints:  | bucket 0: 16 hash prints in one cache line | bucket 1 | …      0: the slot is free
//! slots:   | binding  key (16 bytes, port, family)  since  asked | …        one cache line each
//! binding: | MAC 48 bits | tag 12 | state 4 |                               one word, read by the packet path
//! ```
//!
//! - A neighbour lives in one of two buckets that its hash (with a secret seed) names; a search looks at their prints
//!   and compares keys where a print agrees. Nothing is moved while it lives.
//! - Who finds a slot by its index reads one word. The **tag** changes with each new key of a slot and is part of
//!   [`NeighborIndex`], so an index that outlived its neighbour finds nothing, never another's Ethernet address.
//! - MAC and state change by compare-and-swap. Which *key* a slot holds changes only under the **editing right**, a flag
//!   that is taken by compare-and-swap and held for a few stores. Workers try for it a bounded number of times: a packet
//!   that finds it taken is answered as by a full table. Readers never wait: the binding is the sequence lock of the key.
//! - A generation **pins** the slots that it names, so that they are not removed while it lives.
//!
//! States follow RFC 4861 §7.3.2, for ARP too (RFC 1122 §2.3.2.1): incomplete until a MAC is learnt, reachable for 30
//! seconds after each confirmation, then stale; a stale one is used, asked for while it is used, and incomplete again
//! if it does not answer. Not here: the messages themselves, and packets that wait (`pipeline`).

mod pin;
mod slot;

use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::hash::BuildHasher;
use std::sync::Arc;

use messages::{Neighbor, NeighborState, PortIndex};

use crate::hash;
pub(crate) use pin::Pin;
use slot::{Binding, NeighborKey, Slot, State};

/// Slots in a bucket: their prints fill a cache line.
const WAYS: usize = 16;
/// How often a worker tries for the editing right.
const TRIES: usize = 200;
/// Time between two questions.
const ASK_INTERVAL_NS: u64 = SECOND_NS;
/// Questions before giving up (RFC 4861 §10, MAX_MULTICAST_SOLICIT).
const ATTEMPTS: u64 = 3;
/// After giving up, the next round of questions begins this much later.
const HOLD_DOWN_NS: u64 = 3 * SECOND_NS;
/// How long a confirmation holds (RFC 4861 §10, REACHABLE_TIME).
const REACHABLE_NS: u64 = 30 * SECOND_NS;
/// A neighbour that nobody confirmed or asked for is forgotten after this long.
const UNUSED_NS: u64 = 300 * SECOND_NS;
/// One that never answered goes sooner, so that a scan of a connected prefix does not fill the table.
const UNANSWERED_NS: u64 = 20 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// Names a neighbour's slot, and its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NeighborIndex(pub u32);

impl NeighborIndex {
    const SLOT_BITS: u32 = 20;

    fn new(slot: usize, tag: u64) -> Self {
        let slot = u32::try_from(slot).unwrap_or(u32::MAX) & ((1 << Self::SLOT_BITS) - 1);
        let tag = u32::try_from(tag).unwrap_or(u32::MAX);
        Self(tag << Self::SLOT_BITS | slot)
    }

    #[inline]
    const fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }

    #[inline]
    const fn tag(self) -> u64 {
        (self.0 >> Self::SLOT_BITS) as u64
    }
}

/// There is no room for another neighbour; or, for this instant, another thread is adding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the neighbour table is full")]
pub struct Full;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Not confirmed lately: whoever uses it should [`Neighbors::ask`] as well.
    pub stale: bool,
}

/// Whether to ask for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The caller, and nobody else, sends a question.
    Now {
        /// The first is 1.
        attempt: u8,
    },
    /// A question is out, or none is needed.
    Wait,
    /// The neighbour did not answer; packets for it are dropped for some seconds before it is asked again.
    GaveUp,
}

/// The table.
pub struct Neighbors {
    prints: Box<[Bucket]>,
    slots: Box<[Slot]>,
    pins: Arc<[AtomicU32]>,
    editing: AtomicBool,
    seed: u64,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket([AtomicU32; WAYS]);

const _: () = assert!(size_of::<Bucket>() == 64 && size_of::<Slot>() == 64);

impl Neighbors {
    /// An empty table with room for at least `capacity` neighbours, at most 2^19.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_seed(capacity, std::hash::RandomState::new().hash_one(capacity))
    }

    /// As [`Neighbors::new`], with a seed that outsiders do not know: they choose addresses, but not buckets.
    #[must_use]
    pub fn with_seed(capacity: usize, seed: u64) -> Self {
        // Twice the slots: two choices of 16 then practically never overflow before `capacity` is reached.
        let slots = capacity.clamp(WAYS, 1 << (NeighborIndex::SLOT_BITS - 1)).next_power_of_two() * 2;
        Self {
            prints: std::iter::repeat_with(Bucket::default).take(slots / WAYS).collect(),
            slots: std::iter::repeat_with(Slot::default).take(slots).collect(),
            pins: std::iter::repeat_with(AtomicU32::default).take(slots).collect(),
            editing: AtomicBool::new(false),
            seed,
        }
    }

    /// The neighbour's index, if it is in the table.
    #[inline]
    #[must_use]
    pub fn find(&self, port: PortIndex, address: &IpAddr) -> Option<NeighborIndex> {
        self.search(&NeighborKey::new(port, address))
    }

    /// The neighbour's index; one that was not there is added, incomplete.
    ///
    /// # Errors
    /// [`Full`].
    #[inline]
    pub fn ensure(&self, port: PortIndex, address: &IpAddr) -> Result<NeighborIndex, Full> {
        let key = NeighborKey::new(port, address);
        match self.search(&key) {
            Some(index) => Ok(index),
            None => self.edit(TRIES).and_then(|right| right.ensure(&key)),
        }
    }

    /// Its Ethernet address; `None` while incomplete, or if the neighbour is no more.
    #[inline]
    #[must_use]
    pub fn mac(&self, index: NeighborIndex) -> Option<[u8; 6]> {
        self.binding(index)?.known_mac()
    }

    /// Its Ethernet address, and whether it should be asked for again.
    #[inline]
    #[must_use]
    pub fn link(&self, index: NeighborIndex) -> Option<Link> {
        let binding = self.binding(index)?;
        Some(Link { mac: binding.known_mac()?, stale: binding.state() == State::Stale })
    }

    /// Port and address; `None` if the neighbour is no more.
    #[must_use]
    pub fn address(&self, index: NeighborIndex) -> Option<(PortIndex, IpAddr)> {
        let (binding, key) = self.slots.get(index.slot())?.read()?;
        (binding.tag() == index.tag()).then_some(())?;
        Some((key.port(), key.address()))
    }

    /// Takes over an answer: the neighbour has this Ethernet address. Static ones keep theirs.
    pub fn learn(&self, index: NeighborIndex, mac: [u8; 6], now_ns: u64) {
        let Some(slot) = self.slots.get(index.slot()) else { return };
        let learnt = slot.change(index.tag(), |binding| match binding.state() {
            State::Static => None,
            _ => Some(binding.with(mac, State::Reachable)),
        });
        if learnt {
            slot.confirm(now_ns);
        }
    }

    /// Takes over what somebody said unasked, if the neighbour is known already (RFC 826, "merge flag"). Tells whether
    /// it is known.
    pub fn update(&self, port: PortIndex, address: &IpAddr, mac: [u8; 6], now_ns: u64) -> bool {
        let known = self.find(port, address);
        if let Some(index) = known {
            self.learn(index, mac, now_ns);
        }
        known.is_some()
    }

    /// Whether the caller should send a question. At most one caller a second hears [`Ask::Now`].
    ///
    /// A stale neighbour keeps its Ethernet address meanwhile; it loses it when all attempts went unanswered.
    pub fn ask(&self, index: NeighborIndex, now_ns: u64) -> Ask {
        let Some((slot, binding)) = self.slot(index) else { return Ask::GaveUp };
        if matches!(binding.state(), State::Reachable | State::Static) {
            return Ask::Wait;
        }
        let (asked, attempts) = slot.asked();
        let waited = now_ns.saturating_sub(asked);
        match attempts {
            0 => slot.claim_question((asked, attempts), (now_ns, 1)),
            _ if waited < ASK_INTERVAL_NS => Ask::Wait,
            _ if attempts < ATTEMPTS => slot.claim_question((asked, attempts), (now_ns, attempts + 1)),
            _ if waited < ASK_INTERVAL_NS + HOLD_DOWN_NS => {
                slot.change(index.tag(), Binding::lost);
                Ask::GaveUp
            }
            _ => slot.claim_question((asked, attempts), (now_ns, 1)),
        }
    }

    /// Gives a neighbour a fixed Ethernet address. Only by the commit that makes a generation current: see
    /// [`crate::Generation::switch_neighbors`].
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_static(&self, port: PortIndex, address: &IpAddr, mac: [u8; 6]) -> Result<(), Full> {
        let index = self.ensure(port, address)?;
        if let Some(slot) = self.slots.get(index.slot()) {
            slot.change(index.tag(), |binding| Some(binding.with(mac, State::Static)));
        }
        Ok(())
    }

    /// Makes a static neighbour an incomplete one, to be asked for like any other.
    pub fn remove_static(&self, port: PortIndex, address: &IpAddr) {
        let Some(index) = self.find(port, address) else { return };
        let Some(slot) = self.slots.get(index.slot()) else { return };
        slot.change(index.tag(), |binding| match binding.state() {
            State::Static => Some(binding.with([0; 6], State::Incomplete)),
            _ => None,
        });
    }

    /// Lets time pass: for housekeeping, about once a second. Reachable ones become stale, forgotten ones are removed.
    pub fn age(&self, now_ns: u64) {
        for (place, slot) in self.slots.iter().enumerate() {
            let Some((binding, key)) = slot.read() else { continue };
            let idle_ns = slot.idle_ns(now_ns);
            match binding.state() {
                State::Reachable if slot.unconfirmed_ns(now_ns) >= REACHABLE_NS => {
                    slot.change(binding.tag(), |binding| match binding.state() {
                        State::Reachable => Some(binding.stale()),
                        _ => None,
                    });
                }
                State::Incomplete if idle_ns >= UNANSWERED_NS => self.forget(place, binding, &key),
                State::Stale if idle_ns >= UNUSED_NS => self.forget(place, binding, &key),
                _ => {}
            }
        }
    }

    /// All neighbours, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Neighbor> {
        self.slots.iter().filter_map(|slot| {
            let (binding, key) = slot.read()?;
            let state = match binding.state() {
                State::Free => return None,
                State::Incomplete => NeighborState::Incomplete,
                State::Reachable => NeighborState::Reachable,
                State::Stale => NeighborState::Stale,
                State::Static => NeighborState::Static,
            };
            let mac = binding.known_mac().unwrap_or_default();
            Some(Neighbor { port: key.port(), address: key.address(), mac, state })
        })
    }

    /// As [`Neighbors::ensure`], and the slot stays the neighbour's as long as the pin lives. For compiling.
    pub(crate) fn pin(&self, port: PortIndex, address: &IpAddr) -> Result<(NeighborIndex, Pin), Full> {
        let key = NeighborKey::new(port, address);
        let right = self.edit_patiently();
        let index = right.ensure(&key)?;
        Ok((index, Pin::new(&self.pins, index.slot())))
    }

    #[inline]
    fn binding(&self, index: NeighborIndex) -> Option<Binding> {
        self.slot(index).map(|(_, binding)| binding)
    }

    #[inline]
    fn slot(&self, index: NeighborIndex) -> Option<(&Slot, Binding)> {
        let slot = self.slots.get(index.slot())?;
        let binding = slot.binding();
        (binding.tag() == index.tag() && binding.state() != State::Free).then_some((slot, binding))
    }

    /// The two buckets of a key and its print, which is never 0.
    #[inline]
    fn places(&self, key: &NeighborKey) -> ([usize; 2], u32) {
        let hash = hash::words(self.seed, &key.words()).to_le_bytes();
        let [a, b, c, d, e, f, g, h] = hash;
        let mask = self.prints.len().wrapping_sub(1);
        let bucket = |bytes| u32::from_le_bytes(bytes) as usize & mask;
        ([bucket([a, b, c, 0]), bucket([d, e, f, 0])], u32::from_le_bytes([g, h, c, f]) | 1)
    }

    #[inline]
    fn search(&self, key: &NeighborKey) -> Option<NeighborIndex> {
        let (buckets, print) = self.places(key);
        buckets.iter().find_map(|bucket| self.search_bucket(*bucket, print, key))
    }

    #[inline]
    fn search_bucket(&self, bucket: usize, print: u32, key: &NeighborKey) -> Option<NeighborIndex> {
        let prints = self.prints.get(bucket)?;
        let candidates =
            prints.0.iter().enumerate().filter(|(_, found)| found.load(Ordering::Acquire) == print);
        candidates.map(|(way, _)| bucket * WAYS + way).find_map(|place| {
            let (binding, found) = self.slots.get(place)?.read()?;
            (found == *key).then(|| NeighborIndex::new(place, binding.tag()))
        })
    }

    fn forget(&self, place: usize, seen: Binding, key: &NeighborKey) {
        // Not urgent: if a worker is adding a neighbour right now, the next round comes soon enough.
        if let Ok(right) = self.edit(1) {
            right.forget(place, seen, key);
        }
    }

    fn edit(&self, tries: usize) -> Result<EditingRight<'_>, Full> {
        for _ in 0..tries {
            if self.editing.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(EditingRight { table: self });
            }
            core::hint::spin_loop();
        }
        Err(Full)
    }

    /// For threads that may wait: not on the packet path.
    fn edit_patiently(&self) -> EditingRight<'_> {
        loop {
            if let Ok(right) = self.edit(TRIES) {
                return right;
            }
            std::thread::yield_now();
        }
    }
}

impl core::fmt::Debug for Neighbors {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The right to say which neighbour a slot belongs to; one thread has it at a time.
struct EditingRight<'a> {
    table: &'a Neighbors,
}

impl EditingRight<'_> {
    /// Looks again, for another thread may have been first, and then takes a free slot of the emptier bucket.
    fn ensure(&self, key: &NeighborKey) -> Result<NeighborIndex, Full> {
        if let Some(index) = self.table.search(key) {
            return Ok(index);
        }
        let (buckets, print) = self.table.places(key);
        let [first, second] = buckets.map(|bucket| self.free_way(bucket));
        let (place, _) = if first.1 >= second.1 { first } else { second };
        let place = place.ok_or(Full)?;
        let slot = self.table.slots.get(place).ok_or(Full)?;
        let tag = slot.occupy(key);
        self.set_print(place, print);
        Ok(NeighborIndex::new(place, tag))
    }

    /// Frees a slot that still is as it was seen and that no generation names.
    fn forget(&self, place: usize, seen: Binding, key: &NeighborKey) {
        let (Some(slot), Some(pins)) = (self.table.slots.get(place), self.table.pins.get(place)) else {
            return;
        };
        // Pins are taken under the editing right, so none comes between this look and the removal.
        let unchanged = slot.read() == Some((seen, *key));
        if unchanged && pins.load(Ordering::Acquire) == 0 && slot.vacate(seen) {
            self.set_print(place, 0);
        }
    }

    /// A free place in the bucket, and how many there are.
    fn free_way(&self, bucket: usize) -> (Option<usize>, usize) {
        let Some(prints) = self.table.prints.get(bucket) else { return (None, 0) };
        let free = prints.0.iter().enumerate().filter(|(_, print)| print.load(Ordering::Relaxed) == 0);
        free.fold((None, 0), |(place, count), (way, _)| (place.or(Some(bucket * WAYS + way)), count + 1))
    }

    fn set_print(&self, place: usize, print: u32) {
        if let Some(place) = self.table.prints.get(place / WAYS).and_then(|bucket| bucket.0.get(place % WAYS))
        {
            place.store(print, Ordering::Release);
        }
    }
}

impl Drop for EditingRight<'_> {
    fn drop(&mut self) {
        self.table.editing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
