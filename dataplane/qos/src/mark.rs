// SPDX-License-Identifier: Apache-2.0
//! Marks: which code point and which VLAN priority a packet leaves with.
//!
//! Only what to write is decided here; [`wire::dscp::rewrite`] and the frame's builder write it. The ECN field is
//! never touched: RFC 6040 has its own rules at tunnel ends ([`wire::ecn`]).

use wire::Dscp;

/// What becomes of a code point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DscpMark {
    /// It stays, and is copied to an outer header as it is.
    Copy,
    /// This one, whatever it was.
    Set(Dscp),
    /// The one that the table has for it.
    Map(Box<DscpMap>),
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
        self.apply(Dscp::of_tos(tos)).get() << 2 | tos & 3
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

    /// What `dscp` becomes.
    #[inline]
    #[must_use]
    pub fn of(&self, dscp: Dscp) -> Dscp {
        self.0.get(usize::from(dscp.get())).copied().unwrap_or(dscp)
    }
}

/// A priority code point of 802.1Q, 0 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VlanPriority(u8);

impl VlanPriority {
    /// The priority `value`; `None` from 8 on.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value < 8 { Some(Self(value)) } else { None }
    }

    /// The value, 0 to 7.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The 802.1p priority of each class, by its number; classes beyond have the default 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanPriorityOfClass(Box<[VlanPriority]>);

impl VlanPriorityOfClass {
    /// Those of classes 0, 1 and so on.
    #[must_use]
    pub fn new(of_classes: Vec<VlanPriority>) -> Self {
        Self(of_classes.into_boxed_slice())
    }

    /// The priority of a class.
    #[inline]
    #[must_use]
    pub fn of(&self, class: crate::classify::Class) -> VlanPriority {
        self.0.get(usize::from(class.0)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Class;

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
        let mark = DscpMark::Map(Box::new(map));
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

    #[test]
    fn a_class_without_a_priority_has_0() {
        let five = VlanPriority::new(5).unwrap();
        let table = VlanPriorityOfClass::new(vec![VlanPriority::default(), five]);
        assert_eq!([0, 1, 2, 999].map(|class| table.of(Class(class)).get()), [0, 5, 0, 0]);
        assert_eq!(VlanPriority::new(8), None);
    }
}
