// SPDX-License-Identifier: Apache-2.0
//! A slot: the key of a neighbour, and a word that binds an Ethernet address to it.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use messages::PortIndex;

use super::Ask;
use crate::addresses::address_words;

/// The low bits of the word in which the last question is kept hold its number.
const ATTEMPT_BITS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Incomplete,
    Reachable,
    Stale,
    Static,
}

/// Ethernet address, tag and state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding(u64);

impl Binding {
    const TAG_SHIFT: u32 = 4;
    const TAG_MASK: u64 = 0xfff;
    const MAC_SHIFT: u32 = 16;

    fn new(mac: [u8; 6], tag: u64, state: State) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let state = match state {
            State::Free => 0,
            State::Incomplete => 1,
            State::Reachable => 2,
            State::Stale => 3,
            State::Static => 4,
        };
        Self(mac << Self::MAC_SHIFT | (tag & Self::TAG_MASK) << Self::TAG_SHIFT | state)
    }

    #[inline]
    pub(super) const fn tag(self) -> u64 {
        self.0 >> Self::TAG_SHIFT & Self::TAG_MASK
    }

    #[inline]
    pub(super) const fn state(self) -> State {
        match self.0 & 0xf {
            1 => State::Incomplete,
            2 => State::Reachable,
            3 => State::Stale,
            4 => State::Static,
            _ => State::Free,
        }
    }

    /// The Ethernet address, where there is one.
    #[inline]
    pub(super) const fn known_mac(self) -> Option<[u8; 6]> {
        match self.state() {
            State::Reachable | State::Stale | State::Static => Some(self.mac()),
            State::Free | State::Incomplete => None,
        }
    }

    #[inline]
    const fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    pub(super) fn with(self, mac: [u8; 6], state: State) -> Self {
        Self::new(mac, self.tag(), state)
    }

    pub(super) fn stale(self) -> Self {
        self.with(self.mac(), State::Stale)
    }

    /// What becomes of a neighbour that did not answer; `None` if nothing changes.
    pub(super) fn lost(self) -> Option<Self> {
        (self.state() == State::Stale).then(|| self.with([0; 6], State::Incomplete))
    }
}

/// What identifies a neighbour: port and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighborKey([u64; 3]);

impl NeighborKey {
    const FAMILY_SHIFT: u32 = 16;

    #[inline]
    pub(super) fn new(port: PortIndex, address: &IpAddr) -> Self {
        let [high, low, family] = address_words(address);
        Self([high, low, family << Self::FAMILY_SHIFT | u64::from(port.0)])
    }

    #[inline]
    pub(super) const fn words(&self) -> [u64; 3] {
        self.0
    }

    pub(super) fn port(&self) -> PortIndex {
        let [low, high, ..] = self.0[2].to_le_bytes();
        PortIndex(u16::from_le_bytes([low, high]))
    }

    pub(super) fn address(&self) -> IpAddr {
        let [high, low, port_family] = self.0;
        if port_family >> Self::FAMILY_SHIFT == 4 {
            let [.., a, b, c, d] = low.to_be_bytes();
            IpAddr::from([a, b, c, d])
        } else {
            IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
        }
    }
}

/// Order of writing: binding to Free, key words, binding to Incomplete with the next tag. Who reads the key between two
/// equal looks at tag and state has read one key.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Slot {
    binding: AtomicU64,
    key: [AtomicU64; 3],
    /// When a confirmation came, or when the neighbour was first seen ageing; 0 before.
    confirmed_ns: AtomicU64,
    /// When the last question was sent, shifted left, and its number.
    asked: AtomicU64,
}

impl Slot {
    #[inline]
    pub(super) fn binding(&self) -> Binding {
        Binding(self.binding.load(Ordering::Acquire))
    }

    /// Binding and key, if there is a neighbour here and both belong together.
    #[inline]
    pub(super) fn read(&self) -> Option<(Binding, NeighborKey)> {
        let before = self.binding();
        let key = NeighborKey([0, 1, 2].map(|word: usize| self.key[word].load(Ordering::Relaxed)));
        fence(Ordering::Acquire);
        let after = Binding(self.binding.load(Ordering::Relaxed));
        let whole =
            before.state() != State::Free && after.state() != State::Free && before.tag() == after.tag();
        whole.then_some((after, key))
    }

    /// Changes a living binding as `change` says, unless the slot went to another neighbour. Tells whether it did.
    pub(super) fn change(&self, tag: u64, change: impl Fn(Binding) -> Option<Binding>) -> bool {
        let step = |word| {
            let binding = Binding(word);
            let ours = binding.tag() == tag && binding.state() != State::Free;
            if ours { change(binding).map(|binding| binding.0) } else { None }
        };
        self.binding.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }

    /// Gives a free slot to a neighbour; returns the tag. Under the editing right only.
    pub(super) fn occupy(&self, key: &NeighborKey) -> u64 {
        let tag = self.binding().tag().wrapping_add(1) & Binding::TAG_MASK;
        // The binding says Free here. Whoever sees one of the stores below also sees that, or what comes after.
        fence(Ordering::Release);
        for (place, word) in self.key.iter().zip(key.words()) {
            place.store(word, Ordering::Relaxed);
        }
        self.confirmed_ns.store(0, Ordering::Relaxed);
        self.asked.store(0, Ordering::Relaxed);
        self.binding.store(Binding::new([0; 6], tag, State::Incomplete).0, Ordering::Release);
        tag
    }

    /// Frees the slot if its binding still is as seen. Under the editing right only.
    pub(super) fn vacate(&self, seen: Binding) -> bool {
        let free = Binding::new([0; 6], seen.tag(), State::Free);
        self.binding.compare_exchange(seen.0, free.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn confirm(&self, now_ns: u64) {
        self.confirmed_ns.store(now_ns.max(1), Ordering::Relaxed);
        self.asked.store(0, Ordering::Relaxed);
    }

    /// Time of the last question and its number; 0 if none is open.
    pub(super) fn asked(&self) -> (u64, u64) {
        let word = self.asked.load(Ordering::Relaxed);
        (word >> ATTEMPT_BITS, word & ((1 << ATTEMPT_BITS) - 1))
    }

    /// One of those who call this with the same last question wins.
    pub(super) fn claim_question(&self, last: (u64, u64), next: (u64, u64)) -> Ask {
        let word = |(ns, attempt): (u64, u64)| ns << ATTEMPT_BITS | attempt;
        match self.asked.compare_exchange(word(last), word(next), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ask::Now { attempt: u8::try_from(next.1).unwrap_or(u8::MAX) },
            Err(_) => Ask::Wait,
        }
    }

    pub(super) fn unconfirmed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.confirmed_ns.load(Ordering::Relaxed))
    }

    /// Time since a confirmation or question; time begins to run with the first call.
    pub(super) fn idle_ns(&self, now_ns: u64) -> u64 {
        let _ = self.confirmed_ns.compare_exchange(0, now_ns.max(1), Ordering::Relaxed, Ordering::Relaxed);
        self.unconfirmed_ns(now_ns).min(now_ns.saturating_sub(self.asked().0))
    }
}
