// SPDX-License-Identifier: Apache-2.0
//! Faults of a wire, by a seed: loss, duplicates, reordering, damage. The same seed and the same frames give the
//! same faults.

use pktbuf::{Packet, Pool};

/// How often what happens to a frame, each in frames of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The frame is lost.
    pub loss_ppm: u32,
    /// The frame arrives twice.
    pub duplicate_ppm: u32,
    /// The frame is overtaken by up to [`reorder_depth`](Self::reorder_depth) later ones.
    pub reorder_ppm: u32,
    /// Most frames that overtake a held one; 0 counts as 1.
    pub reorder_depth: u32,
    /// One bit of the frame is flipped.
    pub corrupt_ppm: u32,
}

/// What a [`Faulty`] has done so far, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Given to it.
    pub received: u64,
    /// Passed on.
    pub passed: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Copied.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
    /// Meant to be copied, but the pool was empty.
    pub not_duplicated: u64,
}

/// A stretch of wire that does things to frames.
#[derive(Debug)]
pub struct Faulty {
    faults: Faults,
    random: SplitMix64,
    pool: Pool,
    held: Vec<Held>,
    counts: FaultCounts,
}

#[derive(Debug)]
struct Held {
    overtaken_by: u32,
    packet: Packet,
}

impl Faulty {
    /// A stretch of wire with these faults. The pool is where duplicates come from.
    #[must_use]
    pub fn new(faults: Faults, seed: u64, pool: &Pool) -> Faulty {
        let random = SplitMix64(seed);
        Faulty { faults, random, pool: pool.clone(), held: Vec::new(), counts: FaultCounts::default() }
    }

    /// Changes the faults from the next frame on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Carries one frame; `out` gets what comes out at the other side, in order.
    pub fn pass(&mut self, mut packet: Packet, mut out: impl FnMut(Packet)) {
        self.counts.received += 1;
        if self.happens(self.faults.loss_ppm) {
            self.counts.lost += 1;
            return;
        }
        if self.happens(self.faults.corrupt_ppm) {
            self.flip_a_bit(&mut packet);
        }
        let copy = if self.happens(self.faults.duplicate_ppm) { self.copy(&packet) } else { None };
        self.deliver(packet, &mut out);
        if let Some(copy) = copy {
            self.deliver(copy, &mut out);
        }
    }

    /// Lets out what is held back.
    pub fn flush(&mut self, mut out: impl FnMut(Packet)) {
        for held in self.held.drain(..) {
            self.counts.passed += 1;
            out(held.packet);
        }
    }

    /// What has been done so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    fn deliver(&mut self, packet: Packet, out: &mut impl FnMut(Packet)) {
        if self.happens(self.faults.reorder_ppm) {
            self.counts.reordered += 1;
            let overtaken_by = 1 + self.random.below(self.faults.reorder_depth.max(1));
            self.held.push(Held { overtaken_by, packet });
            return;
        }
        self.counts.passed += 1;
        out(packet);
        for held in &mut self.held {
            held.overtaken_by -= 1;
        }
        for held in self.held.extract_if(.., |held| held.overtaken_by == 0) {
            self.counts.passed += 1;
            out(held.packet);
        }
    }

    fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.random.below(1_000_000) < ppm
    }

    fn flip_a_bit(&mut self, packet: &mut Packet) {
        let bits = u32::try_from(packet.len() * 8).unwrap_or(u32::MAX);
        if bits == 0 {
            return;
        }
        let bit = self.random.below(bits);
        if let Some(byte) = packet.data_mut().get_mut(bit as usize / 8) {
            *byte ^= 1 << (bit % 8);
            self.counts.corrupted += 1;
        }
    }

    fn copy(&mut self, packet: &Packet) -> Option<Packet> {
        let copy = self.pool.copy_of(packet.data());
        match copy {
            Some(_) => self.counts.duplicated += 1,
            None => self.counts.not_duplicated += 1,
        }
        copy
    }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014). For tests, not for secrets.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0; even to within 2^-32.
    fn below(&mut self, bound: u32) -> u32 {
        let wide = (self.next() >> 32) * u64::from(bound);
        (wide >> 32) as u32
    }
}
