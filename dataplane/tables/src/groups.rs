// SPDX-License-Identifier: Apache-2.0
//! One thing for each class group of a protection, found by the ToS of the packet inside.
//!
//! Class groups are by the DSCP that leaves; which one that will be is known when the tables are built, so that a packet
//! needs one load to know its group.

use messages::ClassGroups;
use wire::Dscp;

/// How many DSCPs there are.
const DSCPS: usize = 64;

/// See the module's head.
#[derive(Clone, Debug)]
pub struct ByGroup<T> {
    /// The place of each DSCP's group among the things.
    places: [u8; DSCPS],
    things: Box<[T]>,
}

impl<T> ByGroup<T> {
    /// `thing` is asked for group 0 and every other; `outermost` says what a packet's DSCP becomes outside.
    pub(crate) fn build<E>(
        groups: &ClassGroups,
        outermost: impl Fn(Dscp) -> Dscp,
        thing: impl FnMut(u8) -> Result<T, E>,
    ) -> Result<Self, E> {
        let there: Vec<u8> = (0..=u8::MAX).filter(|group| groups.has(*group)).collect();
        let place = |dscp| {
            let group = groups.of(outermost(dscp).get());
            (0..).zip(&there).find(|(_, other)| **other == group).map_or(0, |(place, _)| place)
        };
        let mut places = [0; DSCPS];
        places.iter_mut().zip((0..).map_while(Dscp::new)).for_each(|(found, dscp)| *found = place(dscp));
        Ok(Self { places, things: there.into_iter().map(thing).collect::<Result<_, E>>()? })
    }

    /// What belongs to the group of packets with this ToS or traffic class inside.
    #[inline]
    #[must_use]
    pub fn of_tos(&self, tos: u8) -> Option<&T> {
        let place = self.places.get(usize::from(Dscp::of_tos(tos).get()))?;
        self.things.get(usize::from(*place))
    }

    /// All of them, that of group 0 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.things.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.things.iter_mut()
    }

    /// The same with other things.
    pub(crate) fn map<U>(&self, thing: impl FnMut(&T) -> U) -> ByGroup<U> {
        ByGroup { places: self.places, things: self.things.iter().map(thing).collect() }
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use messages::DscpSet;

    use super::*;

    #[test]
    fn a_packet_finds_the_group_of_the_dscp_it_leaves_with() {
        let mut groups = ClassGroups::default();
        (groups.0[0], groups.0[4]) = (DscpSet(1 << 46), DscpSet(1 << 10 | 1 << 12));
        // AF13 leaves as AF11.
        let outermost = |dscp: Dscp| if dscp.get() == 14 { Dscp::new(10).unwrap() } else { dscp };
        let Ok(by_group) = ByGroup::build(&groups, outermost, Ok::<u8, Infallible>);
        assert_eq!(by_group.iter().copied().collect::<Vec<_>>(), [0, 1, 5]);
        for tos in 0..=u8::MAX {
            let expected = match tos >> 2 {
                46 => 1,
                10 | 12 | 14 => 5,
                _ => 0,
            };
            assert_eq!(by_group.of_tos(tos), Some(&expected), "{tos}");
        }
        let named = by_group.map(|group| format!("group {group}"));
        assert_eq!(named.of_tos(46 << 2 | 3).map(String::as_str), Some("group 1"));
    }
}
