// SPDX-License-Identifier: Apache-2.0
//! IPv4 longest-prefix match: a trie with steps of 16, 8 and 8 bits, shorter prefixes painted over what they cover.
//!
//! ```text
//! root: 65,536 entries by bits 31–16 ─▶ node: 256 by bits 15–8 ─▶ node: 256 by bits 7–0
//! ```
//!
//! A node stores runs of equal entries once: which of the 256 begin a run is a bitmap, and the run of an entry is the
//! number of bits up to it. So a node with up to six runs is one cache line, and one with more has the rest elsewhere:
//! a lookup is one load for a prefix of up to 16 bits, mostly two up to 24, mostly three for the rest. Tries compressed
//! by population counts are those of Degermark and others, "Small Forwarding Tables for Fast Routing Lookups" (1997).

use std::sync::Arc;

use arrayvec::ArrayVec;
use pktbuf::{BURST, prefetch};
use static_assertions::const_assert_eq;

use super::Leaf;

const ROOT: usize = 1 << 16;
const NODE: usize = 1 << 8;
/// Runs that lie in a node itself.
const INLINE: usize = 6;
const WORD_BITS: u8 = 64;

#[derive(Clone)]
pub(super) struct Trie {
    root: Arc<[Leaf; ROOT]>,
    nodes: Arc<[Node]>,
    /// The runs of nodes that have more than six.
    spilled: Arc<[Leaf]>,
}

/// See the module's head.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Node {
    /// A bit for each entry: it is another one than the entry before. Set for the first.
    starts: [u64; 4],
    /// Runs that begin before each word of `starts`.
    before: [u8; 4],
    /// Where the runs lie that have no room here.
    spilled: u32,
    runs: [Leaf; INLINE],
}

const_assert_eq!(size_of::<Node>(), 64);

impl Node {
    /// The run of an entry.
    #[inline(always)]
    fn run(&self, byte: u8) -> usize {
        let word = usize::from(byte / WORD_BITS);
        let up_to = self.starts[word] & (u64::MAX >> (WORD_BITS - 1 - byte % WORD_BITS));
        usize::from(self.before[word]) + up_to.count_ones() as usize - 1
    }

    /// From its entries; runs that it has no room for are added to `spilled`.
    fn new(entries: &[Leaf; NODE], spilled: &mut Vec<Leaf>) -> Self {
        let mut node = Self {
            starts: [0; 4],
            before: [0; 4],
            spilled: super::number_of(spilled.len()),
            runs: [Leaf::NONE; INLINE],
        };
        let mut runs = 0;
        for (at, leaf) in entries.iter().enumerate() {
            let (word, bit) = (at / usize::from(WORD_BITS), at % usize::from(WORD_BITS));
            if bit == 0 {
                // At most 192 runs begin before the last word.
                node.before[word] = runs as u8;
            }
            if at == 0 || entries[at - 1] != *leaf {
                node.starts[word] |= 1 << bit;
                match node.runs.get_mut(runs) {
                    Some(place) => *place = *leaf,
                    None => spilled.push(*leaf),
                }
                runs += 1;
            }
        }
        node
    }
}

/// Lookups of a burst that have come to nodes: addresses, and their places in the burst.
struct Open {
    lookups: [(u32, u32); BURST],
    count: usize,
}

impl Open {
    const NONE: Self = Self { lookups: [(0, 0); BURST], count: 0 };

    /// Keeps a lookup that has come to `leaf` if that is a node. Which do is nothing that the CPU could guess, so that no jump
    /// depends on it: it is written in any case.
    #[inline(always)]
    fn note(&mut self, address: u32, place: u32, leaf: Leaf) {
        self.lookups[self.count % BURST] = (address, place);
        self.count += usize::from(leaf.is_node());
    }
}

impl Trie {
    #[inline]
    pub(super) fn lookup(&self, address: u32) -> Leaf {
        let [.., c, d] = address.to_be_bytes();
        self.descend(self.descend(self.top(address), c), d)
    }

    /// As [`lookup`](Self::lookup) for each address, level by level, of at most [`BURST`].
    #[inline]
    pub(super) fn lookup_burst(&self, addresses: impl Iterator<Item = u32>) -> ArrayVec<Leaf, BURST> {
        let mut leaves = ArrayVec::new();
        let mut open = Open::NONE;
        for (place, address) in (0..).zip(addresses.take(BURST)) {
            let leaf = self.top(address);
            leaves.push(leaf);
            self.prefetch_node(leaf);
            open.note(address, place, leaf);
        }
        self.descend_all(&mut open, &mut leaves, |[_, _, c, _]| c, |leaf| self.prefetch_node(leaf));
        self.descend_all(&mut open, &mut leaves, |[.., d]| d, |_| ());
        leaves
    }

    /// One level down for the lookups that have not ended; `seen` is told of where each comes to.
    #[inline(always)]
    fn descend_all(
        &self,
        open: &mut Open,
        leaves: &mut [Leaf],
        byte: impl Fn([u8; 4]) -> u8,
        seen: impl Fn(Leaf),
    ) {
        for at in 0..core::mem::take(&mut open.count) {
            let (address, place) = open.lookups[at % BURST];
            let Some(leaf) = leaves.get_mut(place as usize) else { continue };
            *leaf = self.under(leaf.number(), byte(address.to_be_bytes()));
            seen(*leaf);
            open.note(address, place, *leaf);
        }
    }

    /// Asks the CPU for the node that `leaf` is, if it is one. Which are is nothing that the CPU could guess: for others it is
    /// asked for one that nobody needs.
    #[inline(always)]
    fn prefetch_node(&self, leaf: Leaf) {
        if let Some(node) = self.nodes.get(super::place(leaf.number())) {
            prefetch(node);
        }
    }

    #[inline(always)]
    fn top(&self, address: u32) -> Leaf {
        self.root[place_in_root(address)]
    }

    #[inline(always)]
    fn descend(&self, leaf: Leaf, byte: u8) -> Leaf {
        if leaf.is_node() { self.under(leaf.number(), byte) } else { leaf }
    }

    #[inline(always)]
    fn under(&self, node: u32, byte: u8) -> Leaf {
        self.nodes.get(super::place(node)).map_or(Leaf::NONE, |node| self.entry(node, byte))
    }

    #[inline(always)]
    fn entry(&self, node: &Node, byte: u8) -> Leaf {
        let run = node.run(byte);
        match node.runs.get(run) {
            Some(leaf) => *leaf,
            None => {
                self.spilled.get(super::place(node.spilled) + run - INLINE).copied().unwrap_or(Leaf::NONE)
            }
        }
    }

    /// Prefixes with their lengths and leaves, in any order, none twice.
    pub(super) fn build(mut prefixes: Vec<(u32, u8, Leaf)>) -> Trie {
        let mut builder = Builder { root: vec![Leaf::NONE; ROOT], nodes: Vec::new() };
        prefixes.sort_unstable_by_key(|(address, length, _)| (*length, *address));
        prefixes.into_iter().for_each(|(address, length, leaf)| builder.paint(address, length, leaf));
        let mut spilled = Vec::new();
        let nodes = builder.nodes.iter().map(|entries| Node::new(entries, &mut spilled)).collect();
        // It has that length: the way over the heap, for it is too long for the stack.
        let root =
            Arc::<[Leaf]>::from(builder.root).try_into().unwrap_or_else(|_| Arc::new([Leaf::NONE; ROOT]));
        Trie { root, nodes, spilled: spilled.into() }
    }
}

#[inline(always)]
fn place_in_root(address: u32) -> usize {
    let [a, b, ..] = address.to_be_bytes();
    usize::from(u16::from_be_bytes([a, b]))
}

/// The trie before nodes are compressed.
struct Builder {
    root: Vec<Leaf>,
    nodes: Vec<[Leaf; NODE]>,
}

impl Builder {
    /// Shorter prefixes are painted before longer ones, so that no node hangs under what is painted.
    fn paint(&mut self, address: u32, length: u8, leaf: Leaf) {
        let [a, b, c, d] = address.to_be_bytes();
        let top = usize::from(u16::from_be_bytes([a, b]));
        if length <= 16 {
            return self.root[covered(top, 16 - length)].fill(leaf);
        }
        let node = Self::node_under(&mut self.root[top], &mut self.nodes);
        if length <= 24 {
            return self.nodes[node][covered(usize::from(c), 24 - length)].fill(leaf);
        }
        let mut under = self.nodes[node][usize::from(c)];
        let lowest = Self::node_under(&mut under, &mut self.nodes);
        self.nodes[node][usize::from(c)] = under;
        self.nodes[lowest][covered(usize::from(d), 32 - length)].fill(leaf);
    }

    /// The node that hangs under `entry`; a new one holds what stood there.
    fn node_under(entry: &mut Leaf, nodes: &mut Vec<[Leaf; NODE]>) -> usize {
        if !entry.is_node() {
            nodes.push([*entry; NODE]);
            *entry = Leaf::node(nodes.len() - 1);
        }
        super::place(entry.number())
    }
}

/// The 2^`open` entries from `first` on.
fn covered(first: usize, open: u8) -> core::ops::Range<usize> {
    first..first + (1 << open)
}
