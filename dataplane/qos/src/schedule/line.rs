// SPDX-License-Identifier: Apache-2.0
//! A line: indices that wait for their turn, linked through the things they stand for.
//!
//! The classes of a tunnel and the tunnels of a port stand in lines. Deficit round robin (Shreedhar and Varghese 1996)
//! serves the first while its deficit lasts, then adds its quantum and sends it to the end. With no quantum below the
//! longest packet each turn finds a packet to send, so that a choice costs the same with one in line and with 60,000.

use super::NONE;

/// The ends of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    head: u32,
    tail: u32,
}

/// Where the links of a line are.
pub(super) trait Links {
    fn link(&mut self, index: u32) -> Option<&mut u32>;
}

impl Line {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE };

    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// Whether there is nothing behind the first.
    pub(super) fn is_single(&self) -> bool {
        self.head == self.tail
    }

    pub(super) fn push(&mut self, links: &mut impl Links, index: u32) {
        let Some(link) = links.link(index) else { return };
        *link = NONE;
        match links.link(self.tail) {
            Some(tail) => *tail = index,
            None => self.head = index,
        }
        self.tail = index;
    }

    pub(super) fn pop(&mut self, links: &mut impl Links) {
        let Some(link) = links.link(self.head) else { return };
        self.head = *link;
        if self.head == NONE {
            self.tail = NONE;
        }
    }

    /// The first goes to the end.
    pub(super) fn rotate(&mut self, links: &mut impl Links) {
        let first = self.head;
        if first != self.tail {
            self.pop(links);
            self.push(links, first);
        }
    }
}
