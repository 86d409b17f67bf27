// SPDX-License-Identifier: Apache-2.0
//! Packets in a row under the same service policies, whichever tunnels they go into: what is classified, metered, marked and
//! queued together.

use pktbuf::Packet;

use super::ways::{Departure, Way};
use crate::lane::{Lane, run_length, runs};

/// See the module's head.
pub(super) struct Group<'g, 'a> {
    /// The way of the first. All have its services; if it has class groups, all go this way.
    pub(super) first: &'g Way<'a>,
    /// The place of the first in the lane.
    pub(super) place: usize,
    packets: &'g mut [Packet],
    departures: &'g [Departure<'a>],
    ways: &'g [Way<'a>],
}

/// A packet of a group, with its departure and way.
pub(super) type Member<'g, 'a> = (&'g mut Packet, &'g Departure<'a>, &'g Way<'a>);

impl<'g, 'a> Group<'g, 'a> {
    /// The groups of a lane, in order.
    #[inline(always)]
    pub(super) fn all(
        lane: &'g mut Lane<Departure<'a>>,
        ways: &'g [Way<'a>],
    ) -> impl Iterator<Item = Group<'g, 'a>> {
        let groups = lane.runs_mut(move |departures| length(departures, ways));
        let mut next = 0;
        groups.filter_map(move |(packets, departures)| {
            let place = next;
            next += departures.len();
            let first = ways.get(departures.first()?.way)?;
            Some(Self { first, place, packets, departures, ways })
        })
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.departures.len()
    }

    /// The departures, run by run of those that go the same way.
    #[inline(always)]
    pub(super) fn runs(&self) -> impl Iterator<Item = (&'g [Departure<'a>], &'g Way<'a>)> + use<'g, 'a> {
        let (first, ways) = (self.first, self.ways);
        let runs = runs(self.departures, Departure::run_length);
        runs.map(move |run| (run, run.first().and_then(|one| ways.get(one.way)).unwrap_or(first)))
    }

    /// Each packet's departure and way.
    #[inline(always)]
    pub(super) fn departures(&self) -> impl Iterator<Item = (&'g Departure<'a>, &'g Way<'a>)> + use<'g, 'a> {
        let (first, ways) = (self.first, self.ways);
        self.departures.iter().map(move |departure| (departure, ways.get(departure.way).unwrap_or(first)))
    }

    /// The packets, with their departures and ways.
    #[inline(always)]
    pub(super) fn packets(&self) -> impl Iterator<Item = (&Packet, &'g Departure<'a>, &'g Way<'a>)> {
        let each = self.packets.iter().zip(self.departures());
        each.map(|(packet, (departure, way))| (packet, departure, way))
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(super) fn packets_mut(&mut self) -> impl Iterator<Item = Member<'_, 'a>> {
        let departures = self.departures();
        let each = self.packets.iter_mut().zip(departures);
        each.map(|(packet, (departure, way))| (packet, departure, way))
    }

    /// One of them.
    #[inline(always)]
    pub(super) fn packet_mut(&mut self, number: usize) -> Option<Member<'_, 'a>> {
        let departure = self.departures.get(number)?;
        let way = self.ways.get(departure.way).unwrap_or(self.first);
        Some((self.packets.get_mut(number)?, departure, way))
    }
}

/// How many at the front are in one group. Groups are numbered as ways are: none comes back.
#[inline(always)]
fn length(departures: &[Departure<'_>], ways: &[Way<'_>]) -> usize {
    let group = |departure: &Departure<'_>| ways.get(departure.way).map(|way| way.group);
    match departures {
        [first, .., last] if group(first) == group(last) => departures.len(),
        _ => run_length(departures, |one, other| group(one) == group(other)),
    }
}
