// SPDX-License-Identifier: Apache-2.0
//! What the schedulers of one port share when each worker has one: the port's tokens, and who has priority packets waiting.
//!
//! ```text
//!   worker 0: scheduler ─ tokens in hand ─┐                 ┌─ what waits at worker 0, by priority level
//!   worker 1: scheduler ─ tokens in hand ─┴─ SharedBucket   └─ what waits at worker 1
//! ```
//!
//! A worker takes the tokens of a few packets at a time, and gives back at the end of its turn what it has not used. What
//! all workers can have in hand is not in the bucket's depth: together they are the burst, so that what passes in any
//! interval is at most the burst and the rate over the interval, whoever holds what for how long.
//!
//! What a worker could not send is announced when it ends its turn. Other workers leave
//! the tokens of priority packets alone for everything below their level. An announcement that is not renewed lapses after
//! [`LAPSE_NS`]: a worker that stands still keeps nobody waiting.
//!
//! The port's own classes with shares stand in line at each worker. How many rounds of its quantum each has had over all
//! workers is counted here, and a class that is [`ROUNDS_AHEAD`] ahead of one that waits at another worker lets it catch
//! up: so their shares are those of the port, wherever their packets come in.
//!
//! A class that waits at two workers, a priority level, the shares of tunnels: of these each worker counts what it sends
//! (`peers.rs`), so that nobody starves who finds the bucket less often, or needs more in it.
//!
//! Lock-free. The state of a bucket is one word of 128 bits, so that it is the same exact arithmetic as
//! [`Bucket`]'s; the profile is the taker's, so that workers may pass to another rate at different moments.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use portable_atomic::AtomicU128;

use crate::bucket::{Bucket, TrafficProfile, tokens};
use crate::schedule::{CLASSES_MAX, ClassSlot, PRIORITY_LEVELS};

mod peers;

use peers::{KINDS, Peers, distance, raise};

/// How long it counts that a worker has priority packets waiting.
pub const LAPSE_NS: u64 = 1_000_000;
/// Longest packets whose tokens are taken at once beyond what the next packet needs.
const BATCH_PACKETS: u32 = 16;
/// How far a class with a share may be ahead of one that waits at another worker.
const ROUNDS_AHEAD: u64 = 2 * ROUND;
/// So far behind is no class that has its turns: its place was another's until the policy changed.
const ROUNDS_BEHIND: u64 = 16 * ROUND;
/// A quantum, as rounds are counted. Counters go round; what counts is their distance.
const ROUND: u64 = 1 << 8;

/// A token bucket that several workers take from. It starts full.
#[derive(Debug)]
pub struct SharedBucket {
    /// Tokens in the upper half, the moment as of which there are so many in the lower.
    state: CachePadded<AtomicU128>,
}

impl Default for SharedBucket {
    fn default() -> Self {
        Self { state: CachePadded::new(AtomicU128::new(pack((u64::MAX, 0)))) }
    }
}

impl SharedBucket {
    /// Takes the tokens of `bytes` if there are so many at `now_ns`.
    pub fn take(&self, profile: TrafficProfile, bytes: u32, now_ns: u64) -> bool {
        self.change(profile, now_ns, |bucket| bucket.take_now(bytes).then_some(())).is_some()
    }

    /// Takes `wanted` tokens if `kept` more are there, and up to `more` beyond, but not more than half of the part of one
    /// of `workers` in what is then left. Returns what was taken.
    fn take_some(
        &self,
        profile: TrafficProfile,
        (wanted, more, kept): (u64, u64, u64),
        workers: u64,
        now_ns: u64,
    ) -> Option<u64> {
        self.change(profile, now_ns, |bucket| {
            let left = bucket.state().0.checked_sub(wanted)?.checked_sub(kept)?;
            let taken = wanted + more.min(left / (2 * workers.max(1)));
            bucket.spend(taken);
            Some(taken)
        })
    }

    fn give_back(&self, profile: TrafficProfile, tokens: u64) {
        // As of the last change: time passes for whoever takes next.
        self.change(profile, 0, |bucket| Some(bucket.fill(tokens)));
    }

    /// The bucket as it is at `now_ns`.
    #[must_use]
    pub fn at(&self, profile: TrafficProfile, now_ns: u64) -> Bucket {
        let mut bucket = unpack(profile, self.state.load(Relaxed));
        bucket.refill(now_ns);
        bucket
    }

    /// Changes the bucket unless `change` declines. No word but this one depends on it, so no order is needed.
    fn change<R>(
        &self,
        profile: TrafficProfile,
        now_ns: u64,
        change: impl Fn(&mut Bucket) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.state.load(Relaxed);
        loop {
            let mut bucket = unpack(profile, state);
            bucket.refill(now_ns);
            let result = change(&mut bucket)?;
            match self.state.compare_exchange_weak(state, pack(bucket.state()), Relaxed, Relaxed) {
                Ok(_) => return Some(result),
                Err(seen) => state = seen,
            }
        }
    }
}

fn pack((level, updated_ns): (u64, u64)) -> u128 {
    u128::from(level) << 64 | u128::from(updated_ns)
}

fn unpack(profile: TrafficProfile, state: u128) -> Bucket {
    Bucket::resume(profile, (state >> 64) as u64, state as u64)
}

/// What one worker has waiting.
#[derive(Debug, Default)]
struct Waiting {
    bytes: [AtomicU32; PRIORITY_LEVELS],
    /// The kinds that wait, one bit each: first the port's own classes with shares, by place.
    kinds: AtomicU32,
    until_ns: AtomicU64,
    /// Bytes that it has sent of each kind.
    sent: [AtomicU64; KINDS],
}

/// What a worker has waiting when it ends its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Bytes at each priority level.
    pub(crate) bytes: [u32; PRIORITY_LEVELS],
    /// The port's own classes with shares, by place: one bit each.
    pub(crate) shares: u32,
    /// Tunnels with shares.
    pub(crate) tunnels: u32,
}

/// What the schedulers of one port share. It outlives them: it goes on while a port's policies change.
#[derive(Debug)]
pub struct PortShare {
    tokens: SharedBucket,
    workers: Box<[CachePadded<Waiting>]>,
    /// Rounds that each of the port's own classes has had.
    rounds: [CachePadded<AtomicU64>; CLASSES_MAX],
    /// The most that any of them has had.
    most_rounds: CachePadded<AtomicU64>,
    /// Bytes that all workers have sent of the port's own classes with shares.
    own_sent: CachePadded<AtomicU64>,
}

impl PortShare {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        Self {
            tokens: SharedBucket::default(),
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
            rounds: Default::default(),
            most_rounds: CachePadded::default(),
            own_sent: CachePadded::default(),
        }
    }

    /// The port's tokens.
    #[must_use]
    pub fn tokens(&self) -> &SharedBucket {
        &self.tokens
    }

    /// What other workers than this have waiting, unless it has lapsed.
    #[inline]
    fn others(&self, worker: usize, now_ns: u64) -> impl Iterator<Item = &Waiting> {
        let others = self.workers.iter().enumerate().filter(move |(index, _)| *index != worker);
        others.map(|(_, waiting)| &**waiting).filter(move |waiting| waiting.until_ns.load(Relaxed) > now_ns)
    }

    /// Bytes that other workers than this have waiting at levels before `level`.
    #[inline]
    fn ahead_of(&self, worker: usize, level: usize, now_ns: u64) -> u64 {
        let of = |waiting: &Waiting| {
            waiting.bytes.iter().take(level).map(|bytes| u64::from(bytes.load(Relaxed))).sum::<u64>()
        };
        self.others(worker, now_ns).map(of).sum()
    }

    /// The fewest rounds that any of these classes has had.
    fn fewest_rounds(&self, shares: u32) -> Option<u64> {
        if shares == 0 {
            return None;
        }
        let of = |(place, rounds): (u32, &CachePadded<AtomicU64>)| {
            (shares >> place & 1 == 1).then(|| rounds.load(Relaxed))
        };
        let fewer = |one, other| if distance(one, other) < 0 { one } else { other };
        (0..).zip(&self.rounds).filter_map(of).reduce(fewer)
    }

    fn announce(&self, worker: usize, backlog: Backlog, until_ns: u64) {
        let Some(waiting) = self.workers.get(worker) else { return };
        for (word, bytes) in waiting.bytes.iter().zip(backlog.bytes) {
            word.store(bytes, Relaxed);
        }
        waiting.kinds.store(backlog.kinds(), Relaxed);
        waiting.until_ns.store(until_ns, Relaxed);
    }
}

/// One worker's end of a [`PortShare`].
pub(crate) struct Member {
    share: Arc<PortShare>,
    worker: usize,
    /// The port's, less what the workers can have in hand.
    profile: Option<TrafficProfile>,
    /// Tokens that it takes beyond what it needs, and can have in hand, at most.
    batch: u64,
    in_hand: u64,
    now_ns: u64,
    announced: bool,
    /// The port's own classes that wait here, as far as is known.
    shares: u32,
    /// The fewest rounds that a class has had which waits at another worker.
    floor: Option<u64>,
    /// Rounds that a class may be behind which waits at another worker too.
    behind: u64,
    /// Rounds of this turn.
    rounds: [u64; CLASSES_MAX],
    /// What of a round is less than can be counted, by class.
    carries: [u64; CLASSES_MAX],
    peers: Peers,
}

impl Member {
    /// Of a port whose packets are `packet_bytes_max` long at most.
    pub(crate) fn new(
        share: Arc<PortShare>,
        worker: usize,
        profile: Option<TrafficProfile>,
        packet_bytes_max: u32,
    ) -> Self {
        // At most a quarter of what there is beside the longest packet, for all workers together.
        let workers = u32::try_from(share.workers.len()).unwrap_or(u32::MAX).max(1);
        let spare = profile.map_or(0, |profile| profile.burst_bytes.saturating_sub(packet_bytes_max));
        let batch = (spare / 4 / workers).min(BATCH_PACKETS * packet_bytes_max);
        let profile = profile.map(|TrafficProfile { rate, burst_bytes }| TrafficProfile {
            rate,
            burst_bytes: burst_bytes.saturating_sub(batch.saturating_mul(workers)),
        });
        let peers = Peers::new(profile, spare, packet_bytes_max);
        // The smallest quantum is a longest packet.
        let behind = ROUNDS_BEHIND + 2 * peers.lead() * ROUND / u64::from(packet_bytes_max.max(1));
        let (batch, rounds, carries) = (tokens(batch), [0; CLASSES_MAX], [0; CLASSES_MAX]);
        let (in_hand, now_ns, announced, shares, floor) = (0, 0, false, 0, None);
        Self {
            share,
            worker,
            profile,
            batch,
            in_hand,
            now_ns,
            announced,
            shares,
            floor,
            behind,
            rounds,
            carries,
            peers,
        }
    }

    /// Lets time pass.
    #[inline]
    pub(crate) fn begin(&mut self, now_ns: u64) {
        if self.now_ns != now_ns {
            self.now_ns = now_ns;
            self.floor = self.share.fewest_rounds(self.shares_elsewhere());
            if self.profile.is_some() {
                self.peers.look(&self.share, self.worker, now_ns);
            }
        }
    }

    fn shares_elsewhere(&self) -> u32 {
        let others = self.share.others(self.worker, self.now_ns);
        others.fold(0, |kinds, waiting| kinds | waiting.kinds.load(Relaxed)) & peers::OWN
    }

    /// One of the port's own classes with shares has something to send, and had not.
    pub(crate) fn joins(&mut self, class: ClassSlot) {
        let bit = 1_u32.checked_shl(class.0.into()).unwrap_or(0);
        let elsewhere = self.shares_elsewhere();
        let fewest = self.share.fewest_rounds((elsewhere | self.shares) & !bit);
        let rounds = fewest.unwrap_or_else(|| self.share.most_rounds.load(Relaxed));
        // What it did not use while it had nothing is not made up for.
        if let Some(own) = self.share.rounds.get(usize::from(class.0)) {
            let behind = if elsewhere & bit == 0 { 0 } else { self.behind };
            if distance(own.load(Relaxed).wrapping_add(behind), rounds) < 0 {
                raise(own, rounds);
            }
        }
        self.shares |= bit;
    }

    /// Whether one of the port's own classes has to let others catch up that wait at other workers.
    #[inline]
    pub(crate) fn is_ahead(&self, class: ClassSlot, quantum: u32) -> bool {
        if self.peers.class_is_ahead(class) {
            return true;
        }
        let Some(floor) = self.floor else { return false };
        let rounds = self.share.rounds.get(usize::from(class.0)).map_or(0, |rounds| rounds.load(Relaxed));
        let in_turn = self.rounds.get(usize::from(class.0)).copied().unwrap_or(0);
        let ahead = u64::try_from(distance(rounds.wrapping_add(in_turn), floor)).unwrap_or(0);
        // At a fast port two rounds are over before the other worker has looked again.
        ahead > ROUNDS_AHEAD
            && (self.profile.is_none() || ahead.saturating_mul(quantum.into()) > self.peers.lead() * ROUND)
    }

    /// Whether tunnels with shares have to let those of other workers catch up.
    #[inline]
    pub(crate) fn tunnels_are_ahead(&self) -> bool {
        self.peers.tunnels_are_ahead()
    }

    /// A packet of one of the port's own classes with shares passes.
    #[inline]
    pub(crate) fn pass_share(&mut self, class: ClassSlot, bytes: u32, quantum: u32) {
        let place = usize::from(class.0);
        if let (Some(rounds), Some(carry)) = (self.rounds.get_mut(place), self.carries.get_mut(place)) {
            let (parts, quantum) = (u64::from(bytes) * ROUND + *carry, u64::from(quantum.max(1)));
            *rounds += parts / quantum;
            *carry = parts % quantum;
        }
        self.peers.pass_class(class, bytes);
    }

    /// A packet of a tunnel's share passes.
    #[inline]
    pub(crate) fn pass_tunnel(&mut self, bytes: u32) {
        self.peers.pass_tunnel(bytes);
    }

    /// A priority packet passes.
    #[inline]
    pub(crate) fn pass_level(&mut self, level: usize, bytes: u32) {
        self.peers.pass_level(level, bytes);
    }

    /// Whether a packet of a level may pass; then its tokens are in hand.
    #[inline]
    pub(crate) fn may_pass(&mut self, level: usize, bytes: u32) -> bool {
        let cost = tokens(bytes);
        let Some(profile) = self.profile else {
            return self.share.ahead_of(self.worker, level, self.now_ns) == 0;
        };
        if self.peers.level_is_ahead(level) {
            return false;
        }
        if self.in_hand >= cost {
            return true;
        }
        let ahead = self.share.ahead_of(self.worker, level, self.now_ns);
        let kept = tokens(u32::try_from(ahead).unwrap_or(u32::MAX));
        // What is kept for others may be more than there ever is.
        let most = tokens(profile.burst_bytes).saturating_sub(cost);
        let wanted = (cost - self.in_hand, self.batch, kept.min(most));
        let workers = self.share.workers.len() as u64;
        let taken = self.share.tokens.take_some(profile, wanted, workers, self.now_ns);
        self.in_hand += taken.unwrap_or(0);
        taken.is_some()
    }

    /// A packet passes that [`may_pass`](Self::may_pass) let.
    #[inline]
    pub(crate) fn pass(&mut self, bytes: u32) {
        if self.profile.is_some() {
            self.in_hand = self.in_hand.saturating_sub(tokens(bytes));
        }
    }

    /// The earliest moment at which so many bytes may pass, as far as is known.
    pub(crate) fn ready_at(&self, bytes: u32) -> u64 {
        let ready = self.profile.and_then(|profile| {
            let bucket = self.share.tokens.at(profile, self.now_ns);
            bucket.ready_at(bytes)
        });
        ready.unwrap_or(0).max(self.now_ns.saturating_add(1))
    }

    /// Whether a class has joined that has not rested since.
    #[inline]
    pub(crate) fn has_joined(&self, class: ClassSlot) -> bool {
        self.shares.checked_shr(class.0.into()).is_some_and(|bits| bits & 1 == 1)
    }

    /// A turn ends, and nobody is told what waits: what is in hand goes back, and what was sent counts for the others.
    pub(crate) fn settle(&mut self) {
        self.put_back();
        for (rounds, own) in self.share.rounds.iter().zip(&mut self.rounds).filter(|(_, own)| **own > 0) {
            let own = core::mem::take(own);
            let now = rounds.fetch_add(own, Relaxed).wrapping_add(own);
            if distance(now, self.share.most_rounds.load(Relaxed)) > 0 {
                raise(&self.share.most_rounds, now);
            }
        }
        self.peers.settle(&self.share, self.worker);
    }

    /// A turn ends, with something waiting.
    pub(crate) fn rest(&mut self, backlog: Backlog) {
        self.settle();
        self.peers.rest(&self.share, self.worker, &backlog);
        self.shares = backlog.shares;
        if backlog != Backlog::default() {
            self.announced = true;
            self.share.announce(self.worker, backlog, self.now_ns.saturating_add(LAPSE_NS));
        } else if self.announced {
            self.announced = false;
            self.share.announce(self.worker, backlog, 0);
        }
    }

    /// Gives back what is in hand.
    pub(crate) fn put_back(&mut self) {
        if let Some(profile) = self.profile.filter(|_| self.in_hand > 0) {
            self.share.tokens.give_back(profile, self.in_hand);
            self.in_hand = 0;
        }
    }
}

#[cfg(test)]
mod tests;
