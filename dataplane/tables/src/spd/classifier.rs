// SPDX-License-Identifier: Apache-2.0
//! Interval bit vectors: which entries of an ordered list match a packet, the first of them.
//!
//! ```text
//! starts:   0         10.0.0.0   10.1.0.0   10.2.0.0   11.0.0.0
//!           |---------|----------|----------|----------|--------…
//! rows:     …001      …011       …111       …011       …001         bit i: entry i covers this interval
//! ```
//!
//! Intervals with equal bits share a row, so that entries that say ANY cost little.

use core::net::IpAddr;
use std::collections::HashMap;

use messages::{IpPrefix, PortRange, Selector};

use super::PacketSelectors;
use crate::addresses::{address_bits, host_mask};

/// Entries in a word of a row.
const WORD: usize = 64;

/// The entries that one family can match.
pub(super) struct Classifier {
    local: Field<u128>,
    remote: Field<u128>,
    protocol: Field<u8>,
    local_ports: Field<u16>,
    remote_ports: Field<u16>,
    /// Rows for a packet without ports: the entries without that range.
    no_local_ports: Box<[u64]>,
    no_remote_ports: Box<[u64]>,
}

impl Classifier {
    /// `family` is any address of the family.
    pub(super) fn build(selectors: &[Selector], family: &IpAddr) -> Classifier {
        let prefixes = |pick: fn(&Selector) -> Option<IpPrefix>| -> Vec<_> {
            selectors.iter().map(|selector| interval(pick(selector), family)).collect()
        };
        let ports = |pick: fn(&Selector) -> Option<PortRange>| -> Vec<_> {
            let all = PortRange { first: 0, last: u16::MAX };
            let range = |selector| pick(selector).unwrap_or(all);
            selectors.iter().map(range).map(|range| Some((range.first, range.last))).collect()
        };
        let without = |pick: fn(&Selector) -> Option<PortRange>| -> Box<[u64]> {
            let mut row = vec![0; selectors.len().div_ceil(WORD)];
            let without = selectors.iter().enumerate().filter(|(_, selector)| pick(selector).is_none());
            without.for_each(|(entry, _)| flip(&mut row, entry));
            row.into()
        };
        let protocols: Vec<_> = selectors
            .iter()
            .map(|selector| Some(selector.protocol.map_or((0, u8::MAX), |protocol| (protocol, protocol))))
            .collect();
        Classifier {
            local: Field::build(&prefixes(|selector| selector.local)),
            remote: Field::build(&prefixes(|selector| selector.remote)),
            protocol: Field::build(&protocols),
            local_ports: Field::build(&ports(|selector| selector.local_ports)),
            remote_ports: Field::build(&ports(|selector| selector.remote_ports)),
            no_local_ports: without(|selector| selector.local_ports),
            no_remote_ports: without(|selector| selector.remote_ports),
        }
    }

    /// The first entry that matches.
    #[inline]
    pub(super) fn first(&self, local: u128, remote: u128, packet: &PacketSelectors) -> Option<usize> {
        let (local_ports, remote_ports) = match packet.ports {
            Some((local, remote)) => (self.local_ports.row(local), self.remote_ports.row(remote)),
            None => (&*self.no_local_ports, &*self.no_remote_ports),
        };
        let addresses = self.local.row(local).iter().zip(self.remote.row(remote));
        let ports = local_ports.iter().zip(remote_ports);
        let words = addresses.zip(ports).zip(self.protocol.row(packet.protocol));
        let anded = words.map(|(((a, b), (c, d)), e)| a & b & c & d & e);
        let (place, word) = anded.enumerate().find(|(_, word)| *word != 0)?;
        Some(place * WORD + usize::try_from(word.trailing_zeros()).unwrap_or(0))
    }
}

/// What a selector covers of a family; nothing if it is of the other one.
fn interval(prefix: Option<IpPrefix>, family: &IpAddr) -> Option<(u128, u128)> {
    match prefix {
        None => Some((0, host_mask(family, 0))),
        Some(prefix) if prefix.address.is_ipv4() == family.is_ipv4() => {
            let first = address_bits(&prefix.address);
            Some((first, first | host_mask(family, prefix.length)))
        }
        Some(_) => None,
    }
}

/// One selector of all entries.
struct Field<T> {
    /// Where intervals begin, ascending; the first begins at 0.
    starts: Box<[T]>,
    /// The row of each interval.
    rows: Box<[u32]>,
    words: Box<[u64]>,
    words_per_row: usize,
}

impl<T: Copy + Ord + Default + Step> Field<T> {
    /// The row of the interval that holds `value`.
    #[inline]
    fn row(&self, value: T) -> &[u64] {
        let behind = self.starts.partition_point(|start| *start <= value);
        let row = self.rows.get(behind.wrapping_sub(1)).map_or(0, |row| *row as usize);
        let first = row * self.words_per_row;
        self.words.get(first..first + self.words_per_row).unwrap_or(&[])
    }

    /// Each entry's interval, both ends inclusive; `None` matches nothing.
    fn build(entries: &[Option<(T, T)>]) -> Field<T> {
        let mut edges: Vec<(T, usize)> = Vec::with_capacity(entries.len() * 2);
        for (entry, (first, last)) in entries.iter().enumerate().filter_map(|(e, range)| Some((e, (*range)?)))
        {
            edges.push((first, entry));
            edges.extend(last.next().map(|behind| (behind, entry)));
        }
        edges.sort_unstable();
        let words_per_row = entries.len().div_ceil(WORD);
        let mut rows = Rows { places: HashMap::new(), words: Vec::new() };
        let mut covering = vec![0; words_per_row];
        let (mut starts, mut places) = (Vec::new(), Vec::new());
        let mut at = T::default();
        let mut rest = &*edges;
        loop {
            let here = rest.iter().take_while(|(edge, _)| *edge == at).count();
            // An edge is where an entry begins or where it has ended: either way its bit turns.
            rest[..here].iter().for_each(|(_, entry)| flip(&mut covering, *entry));
            rest = &rest[here..];
            starts.push(at);
            places.push(rows.place(&covering));
            match rest.first() {
                Some((edge, _)) => at = *edge,
                None => break,
            }
        }
        Field { starts: starts.into(), rows: places.into(), words: rows.words.into(), words_per_row }
    }
}

/// Collects rows, each once.
struct Rows {
    places: HashMap<Vec<u64>, u32>,
    words: Vec<u64>,
}

impl Rows {
    fn place(&mut self, row: &[u64]) -> u32 {
        if let Some(place) = self.places.get(row) {
            return *place;
        }
        let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.insert(row.to_vec(), place);
        self.words.extend_from_slice(row);
        place
    }
}

fn flip(row: &mut [u64], entry: usize) {
    row[entry / WORD] ^= 1 << (entry % WORD);
}

/// The value behind, if there is one.
trait Step {
    fn next(self) -> Option<Self>
    where
        Self: Sized;
}

macro_rules! step {
    ($($type:ty)*) => {$(
        impl Step for $type {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    )*};
}

step!(u8 u16 u128);
