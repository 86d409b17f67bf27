// SPDX-License-Identifier: Apache-2.0
//! IPv4 longest-prefix match: a trie with steps of 16, 8 and 8 bits, shorter prefixes painted over what they cover.
//!
//! ```text
//! root: 65,536 entries by bits 31–16 ─▶ node: 256 by bits 15–8 ─▶ node: 256 by bits 7–0
//! ```
//!
//! One load for a prefix of up to 16 bits, two up to 24, three for the rest. Each /16 and each /24 that holds longer
//! prefixes costs a kilobyte.

use std::sync::Arc;

use pktbuf::prefetch;

use super::Leaf;

const ROOT: usize = 1 << 16;
const NODE: usize = 1 << 8;

#[derive(Clone)]
pub(super) struct Trie {
    root: Arc<[Leaf]>,
    nodes: Arc<[[Leaf; NODE]]>,
}

impl Trie {
    #[inline]
    pub(super) fn lookup(&self, address: u32) -> Leaf {
        let [a, b, c, d] = address.to_be_bytes();
        let leaf = self.root.get(usize::from(u16::from_be_bytes([a, b]))).copied().unwrap_or(Leaf::NONE);
        self.descend(self.descend(leaf, c), d)
    }

    #[inline]
    pub(super) fn prefetch_root(&self, address: u32) {
        let [a, b, ..] = address.to_be_bytes();
        if let Some(leaf) = self.root.get(usize::from(u16::from_be_bytes([a, b]))) {
            prefetch(leaf);
        }
    }

    #[inline]
    pub(super) fn prefetch_node(&self, address: u32) {
        let [a, b, c, _] = address.to_be_bytes();
        let leaf = self.root.get(usize::from(u16::from_be_bytes([a, b])));
        if let Some(node) = leaf.and_then(|leaf| leaf.as_node()).and_then(|node| self.nodes.get(node)) {
            prefetch(&node[usize::from(c)]);
        }
    }

    #[inline]
    pub(super) fn prefetch_lowest(&self, address: u32) {
        let [a, b, c, d] = address.to_be_bytes();
        let leaf = self.root.get(usize::from(u16::from_be_bytes([a, b]))).copied().unwrap_or(Leaf::NONE);
        if let Some(node) = self.descend(leaf, c).as_node().and_then(|node| self.nodes.get(node)) {
            prefetch(&node[usize::from(d)]);
        }
    }

    #[inline]
    fn descend(&self, leaf: Leaf, byte: u8) -> Leaf {
        match leaf.as_node() {
            Some(node) => self.nodes.get(node).map_or(Leaf::NONE, |node| node[usize::from(byte)]),
            None => leaf,
        }
    }

    /// Prefixes with their lengths and leaves, in any order, none twice.
    pub(super) fn build(mut prefixes: Vec<(u32, u8, Leaf)>) -> Trie {
        if prefixes.is_empty() {
            return Trie { root: Arc::from([]), nodes: Arc::from([]) };
        }
        let mut builder = Builder { root: vec![Leaf::NONE; ROOT], nodes: Vec::new() };
        prefixes.sort_unstable_by_key(|(address, length, _)| (*length, *address));
        prefixes.into_iter().for_each(|(address, length, leaf)| builder.paint(address, length, leaf));
        Trie { root: builder.root.into(), nodes: builder.nodes.into() }
    }
}

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
        entry.as_node().unwrap_or_else(|| {
            nodes.push([*entry; NODE]);
            *entry = Leaf::node(nodes.len() - 1);
            nodes.len() - 1
        })
    }
}

/// The 2^`open` entries from `first` on.
fn covered(first: usize, open: u8) -> core::ops::Range<usize> {
    first..first + (1 << open)
}
