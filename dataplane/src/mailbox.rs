// SPDX-License-Identifier: Apache-2.0
//! What a worker and the other threads leave for each other, lock-free and without allocation on the worker's side.
//!
//! ```text
//!   housekeeping ── next: State ──▶ worker
//!   housekeeping ◀─ retired: State ─ worker        freed off the worker
//!   housekeeping ◀─ switched: generation, time ─── worker
//!   worker a ── handover[a][b]: packets ──▶ worker b
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use messages::WorkerId;
use pipeline::{HandedOver, State};

/// Packets that one worker may hand to another and that were not taken yet.
const HANDOVER_PACKETS: usize = 1024;
/// States on their way to a worker or back. A commit waits for the one before, so two are enough.
const STATES: usize = 4;

/// One worker's mailbox.
struct Mailbox {
    next: ArrayQueue<Arc<State>>,
    retired: ArrayQueue<Arc<State>>,
    switched: CachePadded<Switched>,
    /// Hand-over rings by the worker that fills them.
    handovers: Vec<ArrayQueue<HandedOver>>,
}

#[derive(Default)]
struct Switched {
    generation: AtomicU64,
    at_ns: AtomicU64,
}

/// All mailboxes of a process.
pub struct Mailboxes {
    boxes: Vec<Mailbox>,
    stop: AtomicBool,
}

impl Mailboxes {
    /// Mailboxes for so many workers.
    #[must_use]
    pub fn new(workers: u16) -> Arc<Self> {
        let mailbox = |_| Mailbox {
            next: ArrayQueue::new(STATES),
            retired: ArrayQueue::new(STATES),
            switched: CachePadded::default(),
            handovers: (0..workers).map(|_| ArrayQueue::new(HANDOVER_PACKETS)).collect(),
        };
        Arc::new(Self { boxes: (0..workers).map(mailbox).collect(), stop: AtomicBool::new(false) })
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u16 {
        u16::try_from(self.boxes.len()).unwrap_or(u16::MAX)
    }

    /// Housekeeping: gives every worker the state to switch to. False if one has not taken the states before.
    #[must_use]
    pub fn post(&self, state: &Arc<State>) -> bool {
        self.boxes.iter().all(|mailbox| mailbox.next.push(Arc::clone(state)).is_ok())
    }

    /// Housekeeping: frees what the workers are done with.
    pub fn free_retired(&self) {
        for mailbox in &self.boxes {
            while mailbox.retired.pop().is_some() {}
        }
    }

    /// Housekeeping: when the first and the last worker switched to `generation`, in nanoseconds; the first worker that
    /// has not switched yet otherwise.
    pub fn switched(&self, generation: u64) -> Result<(u64, u64), WorkerId> {
        let (mut first, mut last) = (u64::MAX, 0);
        for (worker, mailbox) in (0_u16..).zip(&self.boxes) {
            if mailbox.switched.generation.load(Ordering::Acquire) < generation {
                return Err(WorkerId(worker));
            }
            let at = mailbox.switched.at_ns.load(Ordering::Relaxed);
            (first, last) = (first.min(at), last.max(at));
        }
        Ok((first.min(last), last))
    }

    /// Worker: the newest state posted, if there is one.
    #[inline]
    #[must_use]
    pub fn take(&self, worker: WorkerId) -> Option<Arc<State>> {
        let mailbox = self.boxes.get(worker.index())?;
        if mailbox.next.is_empty() {
            return None;
        }
        mailbox.next.pop()
    }

    /// Worker: it runs on `generation` from `now_ns` on, and has no use for `old` any more.
    pub fn acknowledge(&self, worker: WorkerId, generation: u64, now_ns: u64, old: Arc<State>) {
        let Some(mailbox) = self.boxes.get(worker.index()) else { return };
        // A full queue would free the state here, on the worker: it cannot be full, since a commit waits for the last.
        drop(mailbox.retired.push(old));
        mailbox.switched.at_ns.store(now_ns, Ordering::Relaxed);
        mailbox.switched.generation.store(generation, Ordering::Release);
    }

    /// Worker `from`: a packet for worker `to`.
    ///
    /// # Errors
    /// Gives the packet back if the ring is full.
    #[inline]
    pub fn hand_over(&self, from: WorkerId, to: WorkerId, packet: HandedOver) -> Result<(), HandedOver> {
        match self.boxes.get(to.index()).and_then(|mailbox| mailbox.handovers.get(from.index())) {
            Some(ring) => ring.push(packet),
            None => Err(packet),
        }
    }

    /// Worker: packets that others handed to it, in the order of each giver. `first` is the giver to begin with: a worker
    /// that takes only so many begins with another one each time, or the first could keep the others waiting for good.
    pub fn handed_over(&self, worker: WorkerId, first: WorkerId) -> impl Iterator<Item = HandedOver> + '_ {
        let rings = self.boxes.get(worker.index()).map_or(&[][..], |mailbox| &mailbox.handovers);
        let (before, from_first) = rings.split_at(first.index().min(rings.len()));
        from_first.iter().chain(before).flat_map(|ring| std::iter::from_fn(|| ring.pop()))
    }

    /// Whether anything was handed to the worker.
    #[must_use]
    pub fn has_handovers(&self, worker: WorkerId) -> bool {
        self.boxes
            .get(worker.index())
            .is_some_and(|mailbox| mailbox.handovers.iter().any(|ring| !ring.is_empty()))
    }

    /// Asks every worker to end its loop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the workers are to end.
    #[inline]
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
