// SPDX-License-Identifier: Apache-2.0
//! Longest-prefix match: a destination's next step.
//!
//! IPv4 is a trie ([`v4`]), IPv6 a binary search over prefix lengths ([`v6`]). Connected prefixes are routes to their
//! port; addresses of ours are not in here, callers ask [`crate::Addresses`] first. IPv6 link-local destinations are
//! discarded whatever the routes say: they are never forwarded (RFC 4291 §2.5.6).

mod v4;
mod v6;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{IpPrefix, PortIndex, TunnelIndex};
use pktbuf::BURST;
use static_assertions::const_assert;

use crate::neighbors::NeighborIndex;

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Out of a port.
    Port {
        /// The port.
        port: PortIndex,
        /// To which neighbour on it.
        neighbor: NextHop,
    },
    /// Into a tunnel.
    Tunnel(TunnelIndex),
    /// Nowhere.
    Discard,
}

/// A neighbour on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// A fixed one. Its slot stays its own as long as the generation lives.
    Slot(NeighborIndex),
    /// The destination itself, to be looked up by its address.
    Connected,
}

/// The routes.
#[derive(Clone)]
pub struct Routes {
    v4: v4::Trie,
    v6: v6::Lengths,
    /// What leaves mean, apart from tunnels, which they name themselves.
    steps: Arc<[NextStep]>,
}

impl Routes {
    /// The next step towards `destination`; `None` without a route.
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: &IpAddr) -> Option<NextStep> {
        let leaf = match destination {
            IpAddr::V4(address) => return self.lookup_v4(u32::from(*address)),
            IpAddr::V6(address) if address.is_unicast_link_local() => return Some(NextStep::Discard),
            IpAddr::V6(address) => self.v6.lookup(u128::from(*address)),
        };
        leaf.step(&self.steps)
    }

    /// The next step towards an IPv4 destination; `None` without a route.
    #[inline]
    #[must_use]
    pub fn lookup_v4(&self, destination: u32) -> Option<NextStep> {
        self.v4.lookup(destination).step(&self.steps)
    }

    /// The ends of lookups of a burst of IPv4 destinations, for [`step`](Self::step): level by level, so that the CPU
    /// waits for the memory of all of them at once. At most [`BURST`].
    #[inline]
    pub fn lookup_v4_burst(&self, destinations: impl Iterator<Item = u32>) -> ArrayVec<Leaf, BURST> {
        self.v4.lookup_burst(destinations)
    }

    /// What the end of a lookup means; `None`: there is no route.
    #[inline(always)]
    #[must_use]
    pub fn step(&self, leaf: Leaf) -> Option<NextStep> {
        leaf.step(&self.steps)
    }

    pub(crate) fn build(routes: &BTreeMap<IpPrefix, NextStep>) -> Routes {
        let mut steps = Steps::default();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (prefix, step) in routes {
            let leaf = steps.leaf(*step);
            match prefix.address {
                IpAddr::V4(address) => v4.push((u32::from(address), prefix.length, leaf)),
                IpAddr::V6(address) => v6.push((u128::from(address), prefix.length, leaf)),
            }
        }
        Routes { v4: v4::Trie::build(v4), v6: v6::Lengths::build(&v6), steps: steps.list.into() }
    }
}

const_assert!(size_of::<NextStep>() <= 16);

impl core::fmt::Debug for Routes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Routes").field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// What a lookup ends in, in 32 bits:
///
/// ```text
///  31 30 29                            0
/// | kind |           number            |
/// ```
///
/// Kind 0: nothing (number 0). 1: a tunnel, by its index. 2: a step, by its place in the list. 3: not an end, but a
/// node of the IPv4 trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf(u32);

impl Leaf {
    /// No route.
    pub const NONE: Leaf = Leaf(0);
    const TUNNEL: u32 = 1 << 30;
    const STEP: u32 = 2 << 30;
    const NODE: u32 = 3 << 30;
    const NUMBER: u32 = (1 << 30) - 1;

    /// The tunnel that it leads into, if it is one.
    #[inline(always)]
    #[must_use]
    pub fn tunnel(self) -> Option<TunnelIndex> {
        (self.0 & !Leaf::NUMBER == Leaf::TUNNEL).then_some(TunnelIndex(self.number()))
    }

    #[inline(always)]
    fn step(self, steps: &[NextStep]) -> Option<NextStep> {
        let number = self.number();
        match self.0 & !Leaf::NUMBER {
            Leaf::TUNNEL => Some(NextStep::Tunnel(TunnelIndex(number))),
            Leaf::STEP => steps.get(place(number)).copied(),
            _ => None,
        }
    }

    fn node(number: usize) -> Leaf {
        Leaf(Leaf::NODE | number_of(number))
    }

    #[inline(always)]
    fn is_node(self) -> bool {
        self.0 >= Leaf::NODE
    }

    /// Of the tunnel, step or node.
    #[inline(always)]
    fn number(self) -> u32 {
        self.0 & Leaf::NUMBER
    }
}

/// A number as a place in a list.
#[inline]
fn place(number: u32) -> usize {
    number as usize
}

/// Lists longer than 2^30 do not fit into memory that anybody has.
fn number_of(place: usize) -> u32 {
    let number = u32::try_from(place).unwrap_or(u32::MAX);
    assert!(number <= Leaf::NUMBER, "more than 2^30 steps or nodes");
    number
}

/// Collects steps, each once.
#[derive(Default)]
struct Steps {
    list: Vec<NextStep>,
    places: std::collections::HashMap<NextStep, Leaf>,
}

impl Steps {
    fn leaf(&mut self, step: NextStep) -> Leaf {
        match step {
            NextStep::Tunnel(TunnelIndex(tunnel)) if tunnel <= Leaf::NUMBER => Leaf(Leaf::TUNNEL | tunnel),
            _ => *self.places.entry(step).or_insert_with(|| {
                self.list.push(step);
                Leaf(Leaf::STEP | number_of(self.list.len() - 1))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addresses::{contains, host_mask};

    fn steps() -> impl Strategy<Value = NextStep> {
        prop_oneof![
            (0u32..4).prop_map(|tunnel| NextStep::Tunnel(TunnelIndex(tunnel))),
            (0u32..3).prop_map(|slot| NextStep::Port {
                port: PortIndex(1),
                neighbor: NextHop::Slot(NeighborIndex(slot))
            }),
            Just(NextStep::Port { port: PortIndex(2), neighbor: NextHop::Connected }),
            Just(NextStep::Discard),
        ]
    }

    /// Addresses that share long beginnings, so that prefixes nest.
    fn v4() -> impl Strategy<Value = IpAddr> {
        (any::<u32>(), 0u32..=32, any::<bool>()).prop_map(|(random, shared, base)| {
            let base = if base { 0x0a01_8180 } else { 0xffff_ffff };
            let mask = u32::MAX.checked_shr(shared).unwrap_or(0);
            IpAddr::V4(((base & !mask) | (random & mask)).into())
        })
    }

    fn v6() -> impl Strategy<Value = IpAddr> {
        (any::<u128>(), 0u32..=128, any::<bool>()).prop_map(|(random, shared, base)| {
            let base = if base { 0x2001_0db8_8000_0001_8000_0000_0000_0001 } else { u128::MAX };
            let mask = u128::MAX.checked_shr(shared).unwrap_or(0);
            IpAddr::V6(((base & !mask) | (random & mask)).into())
        })
    }

    fn prefix(address: IpAddr, length: u8) -> IpPrefix {
        let host = host_mask(&address, length);
        let address = match address {
            IpAddr::V4(a) => IpAddr::V4((u32::from(a) & !(host as u32)).into()),
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) & !host).into()),
        };
        IpPrefix { address, length }
    }

    fn linear(routes: &BTreeMap<IpPrefix, NextStep>, address: &IpAddr) -> Option<NextStep> {
        if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
            return Some(NextStep::Discard);
        }
        let matching = routes.iter().filter(|(prefix, _)| contains(prefix, address));
        matching.max_by_key(|(prefix, _)| prefix.length).map(|(_, step)| *step)
    }

    fn check(routes: Vec<(IpAddr, u8, NextStep)>, asked: Vec<IpAddr>) -> Result<(), TestCaseError> {
        let routes: BTreeMap<_, _> =
            routes.into_iter().map(|(address, length, step)| (prefix(address, length), step)).collect();
        let built = Routes::build(&routes);
        let edges = routes.keys().flat_map(|route| {
            let host = host_mask(&route.address, route.length);
            match route.address {
                IpAddr::V4(a) => {
                    let (first, last) = (u32::from(a), u32::from(a) | host as u32);
                    [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| IpAddr::V4(a.into()))
                }
                IpAddr::V6(a) => {
                    let (first, last) = (u128::from(a), u128::from(a) | host);
                    [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| IpAddr::V6(a.into()))
                }
            }
        });
        let all: Vec<IpAddr> = edges.chain(asked).collect();
        for address in &all {
            prop_assert_eq!(built.lookup(address), linear(&routes, address), "{}", address);
        }
        let all: Vec<u32> = all
            .iter()
            .filter_map(|a| if let IpAddr::V4(v4) = a { Some(v4.to_bits()) } else { None })
            .collect();
        for burst in all.chunks(pktbuf::BURST) {
            let leaves = built.lookup_v4_burst(burst.iter().copied());
            prop_assert_eq!(leaves.len(), burst.len());
            for (leaf, address) in leaves.into_iter().zip(burst) {
                prop_assert_eq!(built.step(leaf), built.lookup_v4(*address), "{:#010x}", address);
            }
        }
        Ok(())
    }

    /// Every second address of a /24 has a route of its own: as many runs as a node can have.
    #[test]
    fn a_node_full_of_runs_is_found_entry_by_entry() {
        let any = |last: u8| IpAddr::from([192, 0, 2, last]);
        let routes =
            (0..=u8::MAX).map(|last| (any(last), 32, NextStep::Tunnel(TunnelIndex(u32::from(last)))));
        let routes: Vec<_> = routes.collect();
        check(routes.clone(), Vec::new()).unwrap();
        check(routes.into_iter().step_by(2).collect(), (0..=u8::MAX).map(any).collect()).unwrap();
    }

    proptest! {
        #[test]
        fn v4_is_the_linear_scan(
            routes in prop::collection::vec((v4(), 0u8..=32, steps()), 0..60),
            asked in prop::collection::vec(v4(), 0..60),
        ) {
            check(routes, asked)?;
        }

        #[test]
        fn v6_is_the_linear_scan(
            routes in prop::collection::vec((v6(), 0u8..=128, steps()), 0..60),
            asked in prop::collection::vec(v6(), 0..60),
        ) {
            check(routes, asked)?;
        }
    }

    #[test]
    fn without_routes_there_is_no_step_and_the_families_are_apart() {
        let any = |address: &str| address.parse::<IpAddr>().unwrap();
        let empty = Routes::build(&BTreeMap::new());
        assert_eq!(empty.lookup(&any("192.0.2.1")), None);
        assert_eq!(empty.lookup(&any("2001:db8::1")), None);
        for (default, other) in [("0.0.0.0", "2001:db8::1"), ("::", "192.0.2.1")] {
            let routes = BTreeMap::from([(IpPrefix { address: any(default), length: 0 }, NextStep::Discard)]);
            let routes = Routes::build(&routes);
            assert_eq!(routes.lookup(&any(other)), None);
            assert_eq!(routes.lookup(&any(default)), Some(NextStep::Discard));
        }
    }
}
