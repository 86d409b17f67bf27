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

#[cfg(test)]
mod tests {
    use super::{FaultCounts, Faults, Faulty, SplitMix64};
    use pktbuf::{Packet, Pool};
    use proptest::prelude::*;

    const FRAMES: u16 = 2000;

    /// What comes out of `FRAMES` numbered frames, and what was counted.
    fn run(faults: Faults, seed: u64, pool: &Pool) -> (Vec<Vec<u8>>, FaultCounts) {
        let mut faulty = Faulty::new(faults, seed, pool);
        let mut out = Vec::new();
        let mut take = |packet: Packet| out.push(packet.data().to_vec());
        for n in 0..FRAMES {
            let frame = pool.copy_of(&[&n.to_be_bytes()[..], &[0; 58]].concat()).unwrap();
            faulty.pass(frame, &mut take);
        }
        faulty.flush(&mut take);
        let counts = faulty.counts();
        (out, counts)
    }

    fn number(frame: &[u8]) -> u16 {
        u16::from_be_bytes([frame[0], frame[1]])
    }

    #[test]
    fn without_faults_everything_passes_unchanged() {
        let pool = Pool::memory(64, 100).unwrap();
        let (out, counts) = run(Faults::default(), 1, &pool);
        assert!(out.iter().map(|frame| number(frame)).eq(0..FRAMES));
        let all = u64::from(FRAMES);
        assert_eq!(counts, FaultCounts { received: all, passed: all, ..FaultCounts::default() });
    }

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix64(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_held_frame_is_overtaken_by_at_most_the_depth() {
        let pool = Pool::memory(64, 100).unwrap();
        let faults = Faults { reorder_ppm: 100_000, reorder_depth: 5, ..Faults::default() };
        let (out, counts) = run(faults, 7, &pool);
        assert!(counts.reordered > 50);
        let numbers: Vec<_> = out.iter().map(|frame| number(frame)).collect();
        assert!(!numbers.is_sorted());
        for (place, n) in numbers.iter().enumerate() {
            let overtaken_by = numbers[..place].iter().filter(|before| *before > n).count();
            // Frames that were held at the same time may come out between.
            assert!(overtaken_by <= 5 + 4, "{n} was overtaken by {overtaken_by}");
        }
        let mut sorted = numbers;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..FRAMES));
    }

    #[test]
    fn damage_is_one_bit() {
        let pool = Pool::memory(64, 100).unwrap();
        let (out, counts) = run(Faults { corrupt_ppm: 500_000, ..Faults::default() }, 3, &pool);
        let flipped = out.iter().enumerate().map(|(n, frame)| {
            let mut expected = (n as u16).to_be_bytes().to_vec();
            expected.resize(60, 0);
            frame.iter().zip(expected).map(|(a, b)| u64::from((a ^ b).count_ones())).sum::<u64>()
        });
        let flipped: Vec<_> = flipped.collect();
        assert!(flipped.iter().all(|&bits| bits <= 1));
        assert_eq!(flipped.iter().sum::<u64>(), counts.corrupted);
        assert!((800..1200).contains(&counts.corrupted));
    }

    #[test]
    fn a_pool_without_packets_makes_no_duplicates_and_says_so() {
        let pool = Pool::memory(1, 100).unwrap();
        let (out, counts) = run(Faults { duplicate_ppm: 1_000_000, ..Faults::default() }, 3, &pool);
        assert_eq!(out.len(), usize::from(FRAMES));
        assert_eq!((counts.duplicated, counts.not_duplicated), (0, u64::from(FRAMES)));
    }

    #[test]
    fn an_empty_frame_survives_damage() {
        let pool = Pool::memory(1, 100).unwrap();
        let mut faulty = Faulty::new(Faults { corrupt_ppm: 1_000_000, ..Faults::default() }, 3, &pool);
        let mut passed = 0;
        faulty.pass(pool.alloc().unwrap(), |_| passed += 1);
        assert_eq!((passed, faulty.counts().corrupted), (1, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn frames_are_conserved_and_a_seed_repeats(
            seed: u64,
            loss_ppm in 0..200_000u32,
            duplicate_ppm in 0..200_000u32,
            reorder_ppm in 0..200_000u32,
            reorder_depth in 0..40u32,
            corrupt_ppm in 0..200_000u32,
        ) {
            let pool = Pool::memory(256, 100).unwrap();
            let faults = Faults { loss_ppm, duplicate_ppm, reorder_ppm, reorder_depth, corrupt_ppm };
            let (out, counts) = run(faults, seed, &pool);
            prop_assert_eq!(counts.received + counts.duplicated, counts.passed + counts.lost);
            prop_assert_eq!(counts.passed, out.len() as u64);
            prop_assert_eq!(pool.available(), 256);
            prop_assert_eq!((out, counts), run(faults, seed, &pool));
        }
    }
}
