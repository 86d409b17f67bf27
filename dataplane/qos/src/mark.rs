// SPDX-License-Identifier: Apache-2.0
//! Marks: which code point a packet leaves with.
//!
//! Only what to write is decided here; [`wire::dscp::rewrite`] writes it. The ECN field is
//! never touched: RFC 6040 has its own rules at tunnel ends ([`wire::ecn`]).

use std::sync::Arc;

use wire::{Dscp, Ecn};

/// What becomes of a code point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DscpMark {
    /// It stays, and is copied to an outer header as it is.
    Copy,
    /// This one, whatever it was.
    Set(Dscp),
    /// The one that the table has for it.
    Map(Arc<DscpMap>),
}

impl DscpMark {
    /// What `dscp` becomes.
    #[inline]
    #[must_use]
    pub fn apply(&self, dscp: Dscp) -> Dscp {
        match self {
            Self::Copy => dscp,
            Self::Set(set) => *set,
            Self::Map(map) => map.of(dscp),
        }
    }

    /// What a ToS byte or traffic class becomes; its ECN field stays.
    #[inline]
    #[must_use]
    pub fn apply_to_tos(&self, tos: u8) -> u8 {
        self.apply(Dscp::of_tos(tos)).tos(Ecn::of_tos(tos))
    }
}

/// A code point for each code point; at first each for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DscpMap([Dscp; 64]);

impl DscpMap {
    /// Each for itself but those in `changes`; the last change of a code point counts.
    #[must_use]
    pub fn new(changes: impl IntoIterator<Item = (Dscp, Dscp)>) -> Self {
        let mut map = Self([Dscp::DEFAULT; 64]);
        for (value, to) in (0u8..).zip(&mut map.0) {
            *to = Dscp::new(value).unwrap_or_default();
        }
        for (from, to) in changes {
            if let Some(place) = map.0.get_mut(usize::from(from.get())) {
                *place = to;
            }
        }
        map
    }

    /// What a ToS byte or traffic class becomes; its ECN field stays.
    #[inline]
    #[must_use]
    pub fn apply_to_tos(&self, tos: u8) -> u8 {
        self.of(Dscp::of_tos(tos)).tos(Ecn::of_tos(tos))
    }

    /// What `dscp` becomes.
    #[inline]
    #[must_use]
    pub fn of(&self, dscp: Dscp) -> Dscp {
        self.0.get(usize::from(dscp.get())).copied().unwrap_or(dscp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Dscp> {
        (0..64).filter_map(Dscp::new)
    }

    #[test]
    fn a_copy_changes_nothing_and_a_set_everything_but_ecn() {
        for tos in 0..=255 {
            assert_eq!(DscpMark::Copy.apply_to_tos(tos), tos);
            assert_eq!(DscpMark::Set(Dscp::EF).apply_to_tos(tos), 46 << 2 | tos & 3);
        }
    }

    #[test]
    fn a_map_changes_what_it_names_and_the_last_change_counts() {
        let to = |value| Dscp::new(value).unwrap();
        let map = DscpMap::new([(Dscp::EF, to(10)), (Dscp::CS6, to(1)), (Dscp::EF, to(40))]);
        let mark = DscpMark::Map(Arc::new(map));
        for dscp in all() {
            let expected = match dscp {
                Dscp::EF => to(40),
                Dscp::CS6 => to(1),
                other => other,
            };
            assert_eq!(mark.apply(dscp), expected);
            assert_eq!(mark.apply_to_tos(dscp.get() << 2 | 2), expected.get() << 2 | 2);
        }
        assert!(all().all(|dscp| DscpMap::new([]).of(dscp) == dscp));
    }
}
