// SPDX-License-Identifier: Apache-2.0
//! Rules as boxes: a span in each lane of a key, and what no span can say beside it.
//!
//! A prefix is a span in each of its words. A range of addresses that is no prefix becomes at most 3 boxes (IPv4) or 15
//! (IPv6), ports without a protocol become a box for each protocol that has ports.

use core::net::Ipv6Addr;
use std::collections::{HashMap, HashSet};

use super::BuildError;
use super::key::{
    DESTINATION_PORT, DSCP, INGRESS_PORT, OTHERS, PROTOCOL, SOURCE_PORT, TCP_FLAGS, TUNNEL, VLAN_PRIORITY,
    halves,
};
use super::rule::{Addresses, Class, Fragments, Rule, Span, TcpFlags, VlanPriorities};

/// All rules of a classifier together may become so many boxes.
pub(super) const CUBES_MAX: usize = 1 << 21;

/// What a rule asks beside its box, word by word. Rules that ask the same share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Extra {
    dscps: u64,
    tunnels: Span<u32>,
    ports: Span<u16>,
    vlan_priorities: u16,
    flags: [u8; 2],
}

impl Extra {
    const NONE: Self = Self {
        dscps: u64::MAX,
        tunnels: Span::new(0, u32::MAX),
        ports: Span::new(0, u16::MAX),
        vlan_priorities: VlanPriorities::ALL.bits(),
        flags: [0, 0],
    };

    fn of(rule: &Rule) -> Self {
        let flags = rule.tcp_flags.map_or([0, 0], |flags| [flags.value & flags.mask, flags.mask]);
        let in_box = bits(rule.dscps.0).is_some_and(|(_, is_exact)| is_exact);
        Self {
            dscps: if in_box { u64::MAX } else { rule.dscps.0 },
            tunnels: rule.tunnels,
            ports: rule.ingress_ports,
            vlan_priorities: rule.vlan_priorities.bits(),
            flags,
        }
    }

    /// Whether lanes `others`, those behind the addresses, are such.
    #[inline(always)]
    pub(super) fn contains(&self, others: &[u16; OTHERS]) -> bool {
        let [_, _, _, dscp, flags, vlan, port, low, high] = *others;
        let tunnel = u32::from(high) << 16 | u32::from(low);
        let [value, mask] = self.flags.map(u16::from);
        self.dscps >> (dscp & 63) & 1 == 1
            && self.vlan_priorities >> (vlan & 15) & 1 == 1
            && flags & mask == value
            && self.ports.contains(port)
            && self.tunnels.contains(tunnel)
    }
}

/// All different [`Extra`]s; the first asks nothing.
pub(super) struct Extras {
    all: Vec<Extra>,
    known: HashMap<Extra, u32>,
}

impl Extras {
    pub(super) fn new() -> Self {
        Self { all: vec![Extra::NONE], known: HashMap::from([(Extra::NONE, 0)]) }
    }

    fn place(&mut self, extra: Extra) -> u32 {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let all = &mut self.all;
        *self.known.entry(extra).or_insert_with(|| {
            all.push(extra);
            next
        })
    }

    pub(super) fn into_boxed(self) -> Box<[Extra]> {
        self.all.into_boxed_slice()
    }
}

/// A rule, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cube<const LANES: usize> {
    pub(super) low: [u16; LANES],
    pub(super) high: [u16; LANES],
    /// The rule's place above its class: less goes first.
    pub(super) rank: u64,
    pub(super) extra: u32,
    /// Whether the box says all.
    pub(super) is_exact: bool,
}

/// A place and a class as one number; less goes first.
pub(super) fn rank(place: usize, class: Class) -> u64 {
    (place as u64) << 16 | u64::from(class.0)
}

/// Which packets the boxes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Whole packets and first fragments.
    Whole,
    /// Later fragments.
    Later(Fragments),
}

impl Part {
    /// The rule as it is for these packets, once for each span of protocols.
    fn rules(self, rule: &Rule) -> Vec<Rule> {
        let is_later = self != Self::Whole;
        let is_other = rule.later_fragment.is_some_and(|later| later != is_later);
        if is_other || is_later && rule.wants_upper_layer() && self != Self::Later(Fragments::Layer3) {
            return Vec::new();
        }
        let with = |protocols| match is_later {
            true => Rule { protocols, source_ports: None, destination_ports: None, tcp_flags: None, ..*rule },
            false => Rule { protocols, ..*rule },
        };
        rule.protocols_it_can_hold_for().into_iter().map(with).collect()
    }
}

/// The boxes of `rules` with `WORDS` words in an address, in their order and each once.
pub(super) fn cubes<const WORDS: usize, const LANES: usize>(
    rules: &[Rule],
    part: Part,
    extras: &mut Extras,
) -> Result<Vec<Cube<LANES>>, BuildError> {
    let mut cubes = Vec::with_capacity(rules.len());
    let mut known = HashSet::new();
    for (place, whole) in rules.iter().enumerate() {
        let (sources, destinations) = (boxes::<WORDS>(whole.source), boxes::<WORDS>(whole.destination));
        for rule in part.rules(whole) {
            let Some((others, is_exact)) = others(&rule) else { continue };
            let extra = extras.place(Extra::of(&rule));
            for (source, destination) in pairs(&sources, &destinations) {
                let spans = source.iter().chain(destination).chain(&others).copied();
                let cube = Cube::new(spans, rank(place, rule.class), extra, is_exact);
                if known.insert((cube.low, cube.high, extra)) {
                    cubes.push(cube);
                }
            }
        }
        if cubes.len() > CUBES_MAX {
            return Err(BuildError::TooManyBoxes { rule: place, max: CUBES_MAX });
        }
    }
    Ok(cubes)
}

fn pairs<'a, T>(left: &'a [T], right: &'a [T]) -> impl Iterator<Item = (&'a T, &'a T)> {
    left.iter().flat_map(move |left| right.iter().map(move |right| (left, right)))
}

impl<const LANES: usize> Cube<LANES> {
    fn new(spans: impl Iterator<Item = Span<u16>>, rank: u64, extra: u32, is_exact: bool) -> Self {
        let mut cube = Self { low: [0; LANES], high: [u16::MAX; LANES], rank, extra, is_exact };
        for ((low, high), span) in cube.low.iter_mut().zip(&mut cube.high).zip(spans) {
            (*low, *high) = (span.first, span.last);
        }
        cube
    }

    /// The values of a lane; `None`: all that there are.
    pub(super) fn span(&self, lane: usize) -> Option<Span<u16>> {
        let span = Span::new(self.low[lane], self.high[lane]);
        (span != Span::new(0, u16::MAX)).then_some(span)
    }

    /// The leading bits of each lane that all keys in the box have alike.
    pub(super) fn fixed_bits(&self) -> [u16; LANES] {
        core::array::from_fn(|lane| {
            let differing = self.low[lane] ^ self.high[lane];
            !u16::MAX.checked_shr(differing.leading_zeros()).unwrap_or(0)
        })
    }
}

/// The spans behind the addresses, and whether they are all that is asked there; `None`: nothing is such.
fn others(rule: &Rule) -> Option<([Span<u16>; OTHERS], bool)> {
    let mut spans = [Span::new(0, u16::MAX); OTHERS];
    let mut is_exact = true;
    let (dscps, vlan) = (bits(rule.dscps.0)?, bits(u64::from(rule.vlan_priorities.bits()))?);
    is_exact &= dscps.1 && vlan.1;
    let flags = rule.tcp_flags.map_or(TcpSpan::ALL, TcpSpan::of);
    is_exact &= flags.is_exact;
    let [first, last] = [rule.tunnels.first, rule.tunnels.last].map(halves);
    let [high, low] = if first[0] == last[0] {
        [Span::only(first[0]), Span::new(first[1], last[1])]
    } else {
        is_exact &= first[1] == 0 && last[1] == u16::MAX;
        [Span::new(first[0], last[0]), Span::new(0, u16::MAX)]
    };
    let set = [
        (SOURCE_PORT, rule.source_ports.unwrap_or(Span::new(0, u16::MAX))),
        (DESTINATION_PORT, rule.destination_ports.unwrap_or(Span::new(0, u16::MAX))),
        (PROTOCOL, whole(Span::new(rule.protocols.first.into(), rule.protocols.last.into()), u8::MAX.into())),
        (DSCP, whole(dscps.0, u64::BITS as u16 - 1)),
        (TCP_FLAGS, whole(flags.span, u8::MAX.into())),
        (VLAN_PRIORITY, whole(vlan.0, VlanPriorities::ALL.bits().ilog2() as u16)),
        (INGRESS_PORT, rule.ingress_ports),
        (TUNNEL, low),
        (TUNNEL + 1, high),
    ];
    for (lane, span) in set {
        if span.first > span.last {
            return None;
        }
        if let Some(place) = spans.get_mut(lane) {
            *place = span;
        }
    }
    Some((spans, is_exact && rule.tunnels.first <= rule.tunnels.last))
}

/// All that a lane can hold if `span` has every value up to `most`, the greatest that there is: so nothing is asked of it.
fn whole(span: Span<u16>, most: u16) -> Span<u16> {
    if span.first == 0 && span.last >= most { Span::new(0, u16::MAX) } else { span }
}

/// From the lowest bit to the highest, and whether all between are set; `None` without any.
fn bits(set: u64) -> Option<(Span<u16>, bool)> {
    let first = set.checked_ilog2().map(|_| set.trailing_zeros())?;
    let last = set.ilog2();
    let is_exact = set.count_ones() == last - first + 1;
    Some((Span::new(u16::try_from(first).ok()?, u16::try_from(last).ok()?), is_exact))
}

/// The least and the greatest byte of flags that are such.
struct TcpSpan {
    span: Span<u16>,
    is_exact: bool,
}

impl TcpSpan {
    const ALL: Self = Self { span: Span::new(0, u16::MAX), is_exact: true };

    fn of(flags: TcpFlags) -> Self {
        let first = flags.value & flags.mask;
        let span = Span::new(u16::from(first), u16::from(first | !flags.mask));
        // Without gaps where only the lowest bits are free.
        Self { span, is_exact: (!flags.mask).wrapping_add(1).count_ones() <= 1 }
    }
}

/// The boxes that together are `addresses`, the least significant word first; none if they are of another family.
fn boxes<const WORDS: usize>(addresses: Option<Addresses>) -> Vec<[Span<u16>; WORDS]> {
    let ends: Option<[[u16; WORDS]; 2]> = match addresses {
        None => return vec![[Span::new(0, u16::MAX); WORDS]],
        Some(Addresses::V4(span)) if span.first <= span.last => {
            words(halves(span.first)).zip(words(halves(span.last))).map(<[_; 2]>::from)
        }
        Some(Addresses::V6(span)) if span.first <= span.last => {
            let [first, last] = [span.first, span.last].map(|end| Ipv6Addr::from_bits(end).segments());
            words(first).zip(words(last)).map(<[_; 2]>::from)
        }
        Some(_) => None,
    };
    let Some([first, last]) = ends else { return Vec::new() };
    let mut boxes = Vec::new();
    split(&first, &last, 0, [Span::new(0, u16::MAX); WORDS], &mut boxes);
    // As keys have them.
    boxes.iter_mut().for_each(|words| words.reverse());
    boxes
}

fn words<const HAVE: usize, const WORDS: usize>(words: [u16; HAVE]) -> Option<[u16; WORDS]> {
    words.as_slice().try_into().ok()
}

/// Appends the boxes from `first` to `last`, which are `done` up to the word `at` and have the words before it alike.
fn split<const WORDS: usize>(
    first: &[u16; WORDS],
    last: &[u16; WORDS],
    at: usize,
    mut done: [Span<u16>; WORDS],
    boxes: &mut Vec<[Span<u16>; WORDS]>,
) {
    let (Some(low), Some(high)) = (first.get(at).copied(), last.get(at).copied()) else {
        return boxes.push(done);
    };
    let rest = at + 1..;
    let starts_whole = first.get(rest.clone()).is_none_or(|rest| rest.iter().all(|word| *word == 0));
    let ends_whole = last.get(rest).is_none_or(|rest| rest.iter().all(|word| *word == u16::MAX));
    let mut with = |span: Span<u16>, first: &[u16; WORDS], last: &[u16; WORDS], at| {
        if let Some(place) = done.get_mut(at) {
            *place = span;
        }
        split(first, last, at + 1, done, boxes);
    };
    if low == high {
        return with(Span::only(low), first, last, at);
    }
    let (mut from, mut to) = (Some(low), Some(high));
    if !starts_whole {
        with(Span::only(low), first, &[u16::MAX; WORDS], at);
        from = low.checked_add(1);
    }
    if !ends_whole {
        with(Span::only(high), &[0; WORDS], last, at);
        to = high.checked_sub(1);
    }
    if let (Some(from), Some(to)) = (from, to)
        && from <= to
    {
        with(Span::new(from, to), &[0; WORDS], &[u16::MAX; WORDS], at);
    }
}
