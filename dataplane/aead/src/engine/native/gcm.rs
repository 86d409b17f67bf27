// SPDX-License-Identifier: Apache-2.0
//! AES-GCM over vectors of blocks, written once for every width (NIST SP 800-38D §7; RFC 4106).
//!
//! A packet is one run of blocks, in which the block of the AAD stands at the place of J0:
//!
//! ```text
//! counter   1 (J0)   2        3            n + 1
//! text      –        text 0   text 1   …   text n-1     the run lies at the text's address - 16
//! hashed    AAD      cipher 0 cipher 1     cipher n-1   then the block of lengths
//! ```
//!
//! So the same vectors are counters, text and what is hashed, with nothing to be shifted between them. `GROUP`
//! vectors are one group: all their products are summed before one reduction. A packet of one group or less,
//! AAD and lengths included, is hashed with one reduction. In longer ones the group before is hashed between
//! the AES rounds of the next.
//!
//! Control flow and addresses depend on lengths only.

use core::arch::asm;
use core::arch::x86_64::_mm_set_epi64x;

use super::key::Blocks;
use super::lanes::{BLOCK_BYTES, Block, Lanes, Span, Wide128, load_part};
use crate::parameters::{KeySize, NONCE_BYTES};

/// Vectors of a group. There are powers of H for as many of the widest ones, and registers on every CPU for its
/// states, the ciphertext that is hashed beside it, and the sums.
const GROUP: usize = 4;

/// The last 32 bits, big-endian, of counter blocks 1 to 16.
#[repr(C, align(64))]
struct Counters([[u32; 4]; 16]);

static COUNTERS: Counters = Counters({
    let mut blocks = [[0; 4]; 16];
    let mut at = 0;
    while at < blocks.len() {
        blocks[at][3] = (at as u32 + 1).to_be();
        at += 1;
    }
    blocks
});

/// GHASH's `x^63 + x^62 + x^57` in the high half, by which [`Sums::reduce`] folds.
static FOLDING: [u8; BLOCK_BYTES] = (0xc200_0000_0000_0000_u128 << 64 | 1).to_le_bytes();

/// A sum of products of field elements, not reduced yet: in each lane 256 bits as low, middle, high.
#[derive(Clone, Copy)]
pub(super) struct Sums<V> {
    low: V,
    middle: V,
    high: V,
}

/// Functions of this block are for callers in which `V`'s features are on (invariant 7).
impl<V: Lanes> Sums<V> {
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the caller's promise about the CPU.
        let zero = unsafe { V::counter(0) };
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds `data` · `weight`.
    #[inline(always)]
    pub(super) unsafe fn add(&mut self, data: V, weight: V) {
        // SAFETY: the caller's promise about the CPU.
        unsafe {
            self.low = self.low.xor(data.multiply::<0x00>(weight));
            self.middle = self.middle.xor3(data.multiply::<0x01>(weight), data.multiply::<0x10>(weight));
            self.high = self.high.xor(data.multiply::<0x11>(weight));
        }
    }

    /// Adds two products with one addition less in each part where the width has a sum of three.
    #[inline(always)]
    unsafe fn add_two(&mut self, [first, second]: [V; 2], [first_weight, second_weight]: [V; 2]) {
        // SAFETY: the caller's promise about the CPU.
        unsafe {
            let low = second.multiply::<0x00>(second_weight);
            self.low = self.low.xor3(first.multiply::<0x00>(first_weight), low);
            self.middle =
                self.middle.xor3(first.multiply::<0x01>(first_weight), first.multiply::<0x10>(first_weight));
            self.middle = self
                .middle
                .xor3(second.multiply::<0x01>(second_weight), second.multiply::<0x10>(second_weight));
            let high = second.multiply::<0x11>(second_weight);
            self.high = self.high.xor3(first.multiply::<0x11>(first_weight), high);
        }
    }

    /// The sum in the field, lane by lane: two folds of 64 bits each, from the low end as bits are reflected.
    #[inline(always)]
    pub(super) unsafe fn reduce(self) -> V {
        // SAFETY: the caller's promise about the CPU; a constant of 16 octets.
        unsafe {
            let folding = V::broadcast(&raw const FOLDING);
            let middle = self.middle.xor3(self.low.swap_halves(), folding.multiply::<0x01>(self.low));
            self.high.xor3(middle.swap_halves(), folding.multiply::<0x01>(middle))
        }
    }
}

/// Which powers of H weigh the vectors of a group, the first of which has the weight at `first`.
#[derive(Clone, Copy)]
struct Weights {
    first: *const [u8; BLOCK_BYTES],
    /// Every lane of a vector has its first lane's weight: lanes are summed up apart, and the result goes to
    /// the lanes of the next group's first vector, whose own weights make up for it. This saves a fold.
    lanes_apart: bool,
}

impl Weights {
    #[inline(always)]
    unsafe fn of<V: Lanes>(self, vector: usize) -> V {
        let at = self.first.wrapping_add(vector * V::BLOCKS);
        // SAFETY: the CPU is the caller's promise; `at` is within the schedule's powers, and a vector that begins
        // at H^1 or higher ends within the round keys (`Blocks`).
        unsafe { if self.lanes_apart { V::broadcast(at) } else { V::load(at.cast()) } }
    }
}

/// One packet on its way: what is the same for all its groups, and where the next one begins.
struct Packet<'a, V> {
    key: &'a Blocks,
    rounds: usize,
    /// Nonce and first round key, in every lane.
    whitened_nonce: V,
    /// The counter in front of the next group, and its block, whitened, in every lane.
    counter: u32,
    front: V,
    /// The next group's first octet; of the first group, [`BLOCK_BYTES`] before the text.
    at: *mut u8,
    /// Octets from `at` to the text's end.
    bytes: usize,
}

/// Where a group stands in its packet.
#[derive(Clone, Copy)]
struct Place {
    first: bool,
    last: bool,
}

/// What a group leaves behind.
struct Done<V, const N: usize> {
    /// Its ciphertext, reversed, as it is hashed.
    hashed: [V; N],
    /// Lane 0 of its output; of the first group, AES(J0).
    lane_0: Block,
}

/// Encrypts (`SEAL`) or decrypts `text` in place and returns the whole ICV over `aad` and the ciphertext.
///
/// # Safety
/// The caller has `V`'s features on and knows that this CPU has them. `key` is expanded for so many `rounds`, 10, 12
/// or 14.
#[inline(always)]
pub(super) unsafe fn crypt<V: Lanes, const SEAL: bool>(
    key: &Blocks,
    rounds: usize,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
) -> Block {
    // SAFETY: the caller's promise; the run is the text and the block before it, which is never touched.
    unsafe {
        let lengths = _mm_set_epi64x(8 * aad.len() as i64, 8 * text.len() as i64);
        let aad = aad_block(key, aad);
        let whitened_nonce = V::splat(load_nonce(nonce)).xor(V::broadcast(key.round_key(0)));
        let packet = Packet {
            key,
            rounds,
            whitened_nonce,
            counter: 0,
            front: whitened_nonce,
            at: text.as_mut_ptr().wrapping_sub(BLOCK_BYTES),
            bytes: text.len() + BLOCK_BYTES,
        };
        if packet.bytes <= GROUP * V::BYTES {
            packet.short::<SEAL>(aad, lengths)
        } else {
            packet.long::<SEAL>(aad, lengths)
        }
    }
}

/// Does `$body` with the constant `$n` as the number of vectors that hold `$bytes`, of a group or less.
macro_rules! with_vectors {
    ($bytes:expr, $n:ident => $body:expr) => {{
        macro_rules! with {
            ($count:literal) => {{
                const $n: usize = $count;
                $body
            }};
        }
        match usize::div_ceil($bytes, V::BYTES) {
            0 | 1 => with!(1),
            2 => with!(2),
            3 => with!(3),
            _ => with!(4),
        }
    }};
}

/// Functions of this block have the contract of [`crypt`].
impl<V: Lanes> Packet<'_, V> {
    /// A packet of one group.
    #[inline(always)]
    unsafe fn short<const SEAL: bool>(mut self, aad: Block, lengths: Block) -> Block {
        let blocks = self.bytes.div_ceil(BLOCK_BYTES);
        // SAFETY: the contract is passed on.
        unsafe {
            with_vectors!(self.bytes, N => {
                let place = Place { first: true, last: true };
                let done = self.group::<SEAL, N, 0>(place, &[], None, &mut Sums::zero());
                let hash = hash_last(self.key, done.hashed, aad, blocks, lengths);
                icv(hash, done.lane_0)
            })
        }
    }

    /// A packet of more than one group.
    #[inline(always)]
    unsafe fn long<const SEAL: bool>(mut self, aad: Block, lengths: Block) -> Block {
        let blocks = GROUP * V::BLOCKS;
        let full = |lanes_apart| Some(Weights { first: self.key.power(blocks), lanes_apart });
        let (apart, together) = (full(true), full(false));
        // SAFETY: the contract is passed on.
        unsafe {
            let place = Place { first: true, last: false };
            let first = self.group::<SEAL, GROUP, 0>(place, &[], None, &mut Sums::zero());
            let mut hashed = first.hashed;
            hashed[0] = hashed[0].xor(V::first(aad));
            while self.bytes > GROUP * V::BYTES {
                let mut sums = Sums::zero();
                let place = Place { first: false, last: false };
                let done = self.group::<SEAL, GROUP, GROUP>(place, &hashed, apart, &mut sums);
                hashed = done.hashed;
                hashed[0] = hashed[0].xor(sums.reduce());
            }
            let blocks = self.bytes.div_ceil(BLOCK_BYTES);
            with_vectors!(self.bytes, N => {
                let mut sums = Sums::zero();
                let place = Place { first: false, last: true };
                let done =
                    self.group::<SEAL, N, GROUP>(place, &hashed, together, &mut sums);
                let hash = hash_last(self.key, done.hashed, sums.reduce().fold(), blocks, lengths);
                icv(hash, first.lane_0)
            })
        }
    }

    /// Encrypts or decrypts the next group, of `N` vectors, and hashes `beside`, of `M`, meanwhile.
    #[inline(always)]
    unsafe fn group<const SEAL: bool, const N: usize, const M: usize>(
        &mut self,
        place: Place,
        beside: &[V; M],
        weights: Option<Weights>,
        sums: &mut Sums<V>,
    ) -> Done<V, N> {
        // SAFETY: the contract is passed on; `load` and `store` stay within the text.
        unsafe {
            let input: [V; N] = self.load(place);
            let mut states: [V; N] = self.counters();
            let key = opaque(self.key);
            // What longer keys have more comes first, so that what follows is one stretch of code.
            let mut round = 1;
            for more in [KeySize::Aes256, KeySize::Aes192] {
                if self.rounds >= more.rounds() {
                    aes(&mut states, key.round_key(round));
                    aes(&mut states, key.round_key(round + 1));
                    round += 2;
                }
            }
            for (step, round) in (round..).take(KeySize::Aes128.rounds() - 1).enumerate() {
                aes(&mut states, key.round_key(round));
                // Two products after each third round: both ports of the CPU have work all the time.
                let pair = step / 3 * 2;
                if let (Some(weights), true) = (weights, step % 3 == 2 && pair < M) {
                    let products = [beside[pair], beside[pair + 1]];
                    sums.add_two(products, [weights.of(pair), weights.of(pair + 1)]);
                }
            }
            // The last round's key is added last: adding the text to it beforehand is off the critical path.
            let last_key = V::broadcast(key.round_key(self.rounds));
            let mut output = input;
            for (text, state) in output.iter_mut().zip(states) {
                *text = state.aes_last(text.xor(last_key));
            }
            self.store(output, place);
            let mut hashed = input;
            for vector in 0..N {
                let cipher = if SEAL { self.kept(output[vector], vector, N, place) } else { input[vector] };
                hashed[vector] = cipher.reverse();
            }
            self.at = self.at.wrapping_add(N * V::BYTES);
            self.bytes = self.bytes.saturating_sub(N * V::BYTES);
            Done { hashed, lane_0: output[0].lane_0() }
        }
    }

    /// The whitened counter blocks of the next group, of which a full one has `GROUP` vectors.
    ///
    /// Counters differ from the one in front of the group in bits that are zero there, so they are put in by
    /// exclusive or; all but the last of a full group, which is the one in front of the next group.
    #[inline(always)]
    unsafe fn counters<const N: usize>(&mut self) -> [V; N] {
        // SAFETY: the contract is passed on; a group has at most 16 blocks.
        unsafe {
            let mut blocks = [self.front; N];
            for (vector, block) in blocks.iter_mut().enumerate() {
                *block = block.xor(V::load(COUNTERS.0.as_ptr().wrapping_add(vector * V::BLOCKS).cast()));
            }
            if N == GROUP {
                self.counter = self.counter.wrapping_add((GROUP * V::BLOCKS) as u32);
                self.front = self.whitened_nonce.xor(V::counter(self.counter.to_be()));
                blocks[N - 1] = blocks[N - 1].with_last_lane(self.front);
            }
            blocks
        }
    }

    /// The next group's text, zeros around it.
    #[inline(always)]
    unsafe fn load<const N: usize>(&self, place: Place) -> [V; N] {
        // SAFETY: the contract is passed on; the octets of every vector's span are of the text.
        unsafe {
            let mut text = [V::counter(0); N];
            for (vector, loaded) in text.iter_mut().enumerate() {
                let at = self.at.wrapping_add(vector * V::BYTES);
                *loaded = match self.span(vector, N, place) {
                    Some(span) => V::load_span(at, span),
                    None => V::load(at),
                };
            }
            text
        }
    }

    /// Writes the group over the text it was made of.
    #[inline(always)]
    unsafe fn store<const N: usize>(&self, output: [V; N], place: Place) {
        for (vector, output) in output.into_iter().enumerate() {
            let at = self.at.wrapping_add(vector * V::BYTES);
            // SAFETY: as in `load`.
            unsafe {
                match self.span(vector, N, place) {
                    Some(span) => output.store_span(at, span),
                    None => output.store(at),
                }
            }
        }
    }

    /// A vector of ciphertext, zeros around it.
    #[inline(always)]
    unsafe fn kept(&self, cipher: V, vector: usize, vectors: usize, place: Place) -> V {
        match self.span(vector, vectors, place) {
            // SAFETY: the contract is passed on.
            Some(span) => unsafe { cipher.keep(span) },
            None => cipher,
        }
    }

    /// The octets of the text in a vector of the next group; `None` is all.
    #[inline(always)]
    fn span(&self, vector: usize, vectors: usize, place: Place) -> Option<Span> {
        let (first, last) = (place.first && vector == 0, place.last && vector + 1 == vectors);
        if !first && !last {
            return None;
        }
        let from = if first { BLOCK_BYTES } else { 0 };
        let to = if last { self.bytes.saturating_sub(vector * V::BYTES) } else { V::BYTES };
        Some(Span { from, to: to.min(V::BYTES) })
    }
}

/// One inner round of AES on all states.
///
/// # Safety
/// That of [`crypt`], and there is a round key at `round_key`.
#[inline(always)]
unsafe fn aes<V: Lanes, const N: usize>(states: &mut [V; N], round_key: *const [u8; BLOCK_BYTES]) {
    // SAFETY: the contract is passed on.
    unsafe {
        let round_key = V::broadcast(round_key);
        for state in states {
            *state = state.aes(round_key);
        }
    }
}

/// The same key, of which the compiler does not know that it is the same: round keys that it kept in registers
/// from group to group would drive others, keystream among them, onto the stack.
#[inline(always)]
fn opaque(key: &Blocks) -> &Blocks {
    let mut address: *const Blocks = key;
    // SAFETY: no instruction at all: the register keeps the address of `key`, which lives on.
    unsafe {
        asm!("/* {} */", inout(reg) address, options(readonly, nostack, preserves_flags));
        &*address
    }
}

/// Loads the first counter block, without its counter.
#[inline(always)]
fn load_nonce(nonce: &[u8; NONCE_BYTES]) -> Block {
    // SAFETY: the nonce's octets.
    unsafe { load_part(nonce.as_ptr(), NONCE_BYTES) }
}

/// What stands for the AAD in the first block of the run, reversed as all that is hashed.
///
/// # Safety
/// That of [`crypt`].
#[inline(always)]
unsafe fn aad_block(key: &Blocks, aad: &[u8]) -> Block {
    // SAFETY: lengths are as matched; the CPU is the caller's promise.
    unsafe {
        match aad.len() {
            8 => Wide128::first(load_part(aad.as_ptr(), 8)).reverse().lane_0(),
            12 => Wide128::first(load_part(aad.as_ptr(), 12)).reverse().lane_0(),
            _ => other_aad_block(key, aad),
        }
    }
}

/// [`aad_block`] of an AAD that ESP does not have: the hash of all its blocks but the last, plus that one.
///
/// # Safety
/// That of [`crypt`].
#[cold]
#[inline(never)]
#[target_feature(enable = "aes,avx,pclmulqdq")]
unsafe fn other_aad_block(key: &Blocks, aad: &[u8]) -> Block {
    // SAFETY: chunks have at most 16 octets; the CPU is the caller's promise.
    unsafe {
        let mut hash = Wide128::counter(0);
        for (number, chunk) in aad.chunks(BLOCK_BYTES).enumerate() {
            if number > 0 {
                let mut sums = Sums::zero();
                sums.add(hash, Wide128::broadcast(key.power(1)));
                hash = sums.reduce();
            }
            hash = hash.xor(Wide128::first(load_part(chunk.as_ptr(), chunk.len())).reverse());
        }
        hash.lane_0()
    }
}

/// The hash of a whole packet: its last group, of so many blocks, whose first vector takes on what was `before`,
/// and the block of lengths.
///
/// # Safety
/// That of [`crypt`].
#[inline(always)]
unsafe fn hash_last<V: Lanes, const N: usize>(
    key: &Blocks,
    mut hashed: [V; N],
    before: Block,
    blocks: usize,
    lengths: Block,
) -> Block {
    // SAFETY: the contract is passed on. The weight of a group's first block is one power above its number of
    // blocks, 1 to 16, as the lengths follow it.
    unsafe {
        hashed[0] = hashed[0].xor(V::first(before));
        let weights = Weights { first: key.power(blocks + 1), lanes_apart: false };
        let mut sums = Sums::zero();
        sums.add(V::first(lengths), V::load(key.power(1).cast()));
        for vector in (0..N - N % 2).step_by(2) {
            let pair = [hashed[vector], hashed[vector + 1]];
            sums.add_two(pair, [weights.of(vector), weights.of(vector + 1)]);
        }
        if N % 2 == 1 {
            sums.add(hashed[N - 1], weights.of(N - 1));
        }
        sums.reduce().fold()
    }
}

/// The ICV: the hash in the order of octets, encrypted with AES(J0).
///
/// # Safety
/// That of [`crypt`].
#[inline(always)]
unsafe fn icv(hash: Block, mask: Block) -> Block {
    // SAFETY: the contract is passed on.
    unsafe { Wide128::first(hash).reverse().xor(Wide128::first(mask)).lane_0() }
}
