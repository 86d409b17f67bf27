// SPDX-License-Identifier: Apache-2.0
//! Class-maps: conditions joined by any, all and not, and their expansion into rules.
//!
//! A negated condition becomes the rules for everything else: what lies below and above a span, each TCP flag that
//! differs, packets that have no ports at all. All of several conditions become every combination of their rules that
//! some packet can match.

use wire::IpProtocol;

use super::rule::{Addresses, Class, Dscps, Rule, Span, TcpFlags, VlanPriorities};

/// What packets a class has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// One of these holds; nothing matches none.
    Any(Vec<Match>),
    /// All of these hold; everything matches none.
    All(Vec<Match>),
    /// This does not hold.
    Not(Box<Match>),
    /// It comes from there.
    Source(Addresses),
    /// It goes there.
    Destination(Addresses),
    /// The upper layer.
    Protocol(Span<u8>),
    /// It has ports, and this is where it comes from.
    SourcePort(Span<u16>),
    /// It has ports, and this is where it goes.
    DestinationPort(Span<u16>),
    /// It is TCP with these flags.
    TcpFlags(TcpFlags),
    /// Its code point.
    Dscp(Dscps),
    /// The VLAN priority with which it came.
    VlanPriority(VlanPriorities),
    /// The tunnel it came from.
    Tunnel(Span<u32>),
    /// The port it came in on.
    IngressPort(Span<u16>),
    /// It is a fragment without upper-layer header.
    LaterFragment,
}

/// An expression that would become too many rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "becomes more than {max} rules, or is asked too often on the way: every combination of what all of its parts match \
     is a rule; write it as several classes, or with fewer parts that match one of many"
)]
pub struct TooManyRules {
    /// How many there may be.
    pub max: usize,
}

/// What expansions may still take, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rules that may come out, also on the way.
    pub rules: usize,
    /// How often a part of an expression may be asked what of a rule it matches.
    pub steps: usize,
}

impl Budget {
    /// For `rules`, with steps for every expression that is not written to be expensive: 2 M.
    #[must_use]
    pub fn of_rules(rules: usize) -> Self {
        Self { rules, steps: 1 << 21 }
    }

    fn step(&mut self) -> Result<(), TooManyRules> {
        self.steps = self.steps.checked_sub(1).ok_or(TooManyRules { max: self.rules })?;
        Ok(())
    }
}

impl Match {
    /// Rules of `class` which together match what this matches.
    ///
    /// # Errors
    /// [`TooManyRules`] for more than `rules_max`, on the way too, or more steps than [`Budget::of_rules`] gives.
    pub fn rules(&self, class: Class, rules_max: usize) -> Result<Vec<Rule>, TooManyRules> {
        self.rules_within(class, &mut Budget::of_rules(rules_max))
    }

    /// The same, for several expressions with one budget.
    ///
    /// # Errors
    /// [`TooManyRules`] if this one does not fit what is left of it.
    pub fn rules_within(&self, class: Class, budget: &mut Budget) -> Result<Vec<Rule>, TooManyRules> {
        let rules = self.expand(Rule::any(class), false, budget)?;
        budget.rules = budget.rules.saturating_sub(rules.len());
        Ok(rules)
    }

    /// Whether it matches `packet`, by its own words.
    #[cfg(test)]
    fn holds(&self, packet: &super::Headers) -> bool {
        let condition = |change: &dyn Fn(&mut Rule)| {
            let mut rule = Rule::any(Class(0));
            change(&mut rule);
            rule.matches(packet, super::Fragments::WithoutPorts)
        };
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.holds(packet)),
            Self::All(parts) => parts.iter().all(|part| part.holds(packet)),
            Self::Not(part) => !part.holds(packet),
            Self::Source(addresses) => addresses.contains(packet.source),
            Self::Destination(addresses) => addresses.contains(packet.destination),
            Self::Protocol(span) => span.contains(packet.protocol.0),
            Self::SourcePort(span) => condition(&|rule| rule.source_ports = Some(*span)),
            Self::DestinationPort(span) => condition(&|rule| rule.destination_ports = Some(*span)),
            Self::TcpFlags(flags) => condition(&|rule| rule.tcp_flags = Some(*flags)),
            Self::Dscp(dscps) => dscps.contains(wire::Dscp::of_tos(packet.tos)),
            Self::VlanPriority(priorities) => priorities.contains(packet.arrival.vlan_priority),
            Self::Tunnel(span) => span.contains(packet.arrival.tunnel),
            Self::IngressPort(span) => span.contains(packet.arrival.port),
            Self::LaterFragment => packet.later_fragment,
        }
    }

    /// What of `rule` this matches, or does not.
    fn expand(&self, rule: Rule, negated: bool, budget: &mut Budget) -> Result<Vec<Rule>, TooManyRules> {
        budget.step()?;
        let parts = match self {
            Self::Not(part) => return part.expand(rule, !negated, budget),
            Self::Any(parts) if negated => return every(parts, rule, true, budget),
            Self::All(parts) if !negated => return every(parts, rule, false, budget),
            Self::Any(parts) | Self::All(parts) => parts,
            condition => {
                let mut found = condition.narrow(rule, negated);
                found.retain(|rule| !rule.protocols_it_can_hold_for().is_empty());
                return bounded(found, budget);
            }
        };
        let mut rules = Vec::new();
        for part in parts {
            rules.extend(part.expand(rule, negated, budget)?);
            rules = bounded(rules, budget)?;
        }
        Ok(rules)
    }

    /// What of `rule` a single condition matches, or does not.
    fn narrow(&self, rule: Rule, negated: bool) -> Vec<Rule> {
        match self {
            Self::Source(addresses) => {
                let spans = side(*addresses, negated);
                with(spans, |addresses| Some(Rule { source: both(rule.source, addresses)?, ..rule }))
            }
            Self::Destination(addresses) => {
                let spans = side(*addresses, negated);
                with(spans, |addresses| {
                    Some(Rule { destination: both(rule.destination, addresses)?, ..rule })
                })
            }
            Self::Protocol(span) => within_protocols(rule, spans(*span, negated, u8::MAX)),
            Self::SourcePort(span) => {
                let ports = |span| Some(Rule { source_ports: Some(join(rule.source_ports, span)?), ..rule });
                upper(with(spans(*span, negated, u16::MAX), ports), rule, negated, IpProtocol::has_ports)
            }
            Self::DestinationPort(span) => {
                let ports = |span| {
                    Some(Rule { destination_ports: Some(join(rule.destination_ports, span)?), ..rule })
                };
                upper(with(spans(*span, negated, u16::MAX), ports), rule, negated, IpProtocol::has_ports)
            }
            Self::TcpFlags(flags) => {
                let flags = flags_spans(*flags, negated);
                let found = with(flags, |flags| {
                    Some(Rule { tcp_flags: Some(both_flags(rule.tcp_flags, flags)?), ..rule })
                });
                upper(found, rule, negated, |protocol| protocol == IpProtocol::TCP)
            }
            Self::Dscp(dscps) => {
                let dscps = Dscps(rule.dscps.0 & if negated { !dscps.0 } else { dscps.0 });
                (dscps.0 != 0).then_some(Rule { dscps, ..rule }).into_iter().collect()
            }
            Self::VlanPriority(priorities) => {
                let wanted = if negated { priorities.not() } else { *priorities };
                let vlan_priorities = rule.vlan_priorities.and(wanted);
                (vlan_priorities.bits() != 0)
                    .then_some(Rule { vlan_priorities, ..rule })
                    .into_iter()
                    .collect()
            }
            Self::Tunnel(span) => with(spans(*span, negated, u32::MAX), |span| {
                Some(Rule { tunnels: rule.tunnels.and(span)?, ..rule })
            }),
            Self::IngressPort(span) => with(spans(*span, negated, u16::MAX), |span| {
                Some(Rule { ingress_ports: rule.ingress_ports.and(span)?, ..rule })
            }),
            Self::LaterFragment => fragment(rule, !negated).into_iter().collect(),
            Self::Any(_) | Self::All(_) | Self::Not(_) => Vec::new(),
        }
    }
}

/// What of `rule` every part matches, or none does.
fn every(parts: &[Match], rule: Rule, negated: bool, budget: &mut Budget) -> Result<Vec<Rule>, TooManyRules> {
    let mut rules = vec![rule];
    for part in parts {
        let mut next = Vec::new();
        for rule in rules {
            next.extend(part.expand(rule, negated, budget)?);
            next = bounded(next, budget)?;
        }
        rules = next;
    }
    bounded(rules, budget)
}

fn bounded(rules: Vec<Rule>, budget: &Budget) -> Result<Vec<Rule>, TooManyRules> {
    let max = budget.rules;
    if rules.len() > max { Err(TooManyRules { max }) } else { Ok(rules) }
}

fn with<T>(all: Vec<T>, rule: impl Fn(T) -> Option<Rule>) -> Vec<Rule> {
    all.into_iter().filter_map(rule).collect()
}

/// A number with one after it and one before it.
trait Number: Copy + Ord {
    const ZERO: Self;
    fn after(self) -> Option<Self>;
    fn before(self) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty),*) => {
        $(impl Number for $type {
            const ZERO: Self = 0;
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
        })*
    };
}

number!(u8, u16, u32, u128);

/// The span, or what of the numbers up to `most` is below and above it.
fn spans<T: Number>(span: Span<T>, negated: bool, most: T) -> Vec<Span<T>> {
    if span.first > span.last {
        return if negated { vec![Span::new(T::ZERO, most)] } else { Vec::new() };
    }
    if !negated {
        return vec![span];
    }
    let below = span.first.before().map(|last| Span::new(T::ZERO, last));
    let above = span.last.after().map(|first| Span::new(first, most));
    below.into_iter().chain(above).collect()
}

/// The addresses, or all others of both families.
fn side(addresses: Addresses, negated: bool) -> Vec<Addresses> {
    let other = match addresses {
        Addresses::V4(_) => Addresses::ALL_V6,
        Addresses::V6(_) => Addresses::ALL_V4,
    };
    let mut all: Vec<Addresses> = match addresses {
        Addresses::V4(span) => spans(span, negated, u32::MAX).into_iter().map(Addresses::V4).collect(),
        Addresses::V6(span) => spans(span, negated, u128::MAX).into_iter().map(Addresses::V6).collect(),
    };
    if negated {
        all.push(other);
    }
    all
}

/// `None`: no address is both.
#[expect(clippy::option_option, reason = "the inner one is the rule's own: any address")]
fn both(before: Option<Addresses>, addresses: Addresses) -> Option<Option<Addresses>> {
    let joined = match (before, addresses) {
        (None, addresses) => addresses,
        (Some(Addresses::V4(a)), Addresses::V4(b)) => Addresses::V4(a.and(b)?),
        (Some(Addresses::V6(a)), Addresses::V6(b)) => Addresses::V6(a.and(b)?),
        _ => return None,
    };
    Some(Some(joined))
}

fn join(before: Option<Span<u16>>, span: Span<u16>) -> Option<Span<u16>> {
    before.map_or(Some(span), |before| before.and(span))
}

/// Flags that are such, or one set for each bit that differs first.
fn flags_spans(flags: TcpFlags, negated: bool) -> Vec<TcpFlags> {
    if !negated {
        return vec![flags];
    }
    let bits = (0..8).map(|bit| 1u8 << bit).filter(|bit| flags.mask & bit != 0);
    bits.map(|bit| {
        let mask = flags.mask & (bit | (bit - 1));
        TcpFlags { value: (flags.value ^ bit) & mask, mask }
    })
    .collect()
}

fn both_flags(before: Option<TcpFlags>, flags: TcpFlags) -> Option<TcpFlags> {
    let Some(before) = before else { return Some(flags) };
    let differ = (before.value ^ flags.value) & before.mask & flags.mask;
    let value = before.value & before.mask | flags.value & flags.mask;
    (differ == 0).then_some(TcpFlags { value, mask: before.mask | flags.mask })
}

/// `found`, which asks for an upper-layer header; negated, packets without one match too.
fn upper(found: Vec<Rule>, rule: Rule, negated: bool, has: impl Fn(IpProtocol) -> bool) -> Vec<Rule> {
    let mut rules: Vec<Rule> = found.into_iter().filter_map(|rule| fragment(rule, false)).collect();
    if negated {
        let has_not = (0..=u8::MAX).filter(|protocol| !has(IpProtocol(*protocol)));
        rules.extend(within_protocols(rule, runs(has_not)));
        rules.extend(fragment(rule, true));
    }
    rules
}

/// Numbers in rising order as spans.
fn runs(numbers: impl Iterator<Item = u8>) -> Vec<Span<u8>> {
    let mut runs: Vec<Span<u8>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.last.checked_add(1) == Some(number) => run.last = number,
            _ => runs.push(Span::only(number)),
        }
    }
    runs
}

fn within_protocols(rule: Rule, protocols: Vec<Span<u8>>) -> Vec<Rule> {
    with(protocols, |protocols| Some(Rule { protocols: rule.protocols.and(protocols)?, ..rule }))
}

/// The rule for later fragments, or for others.
fn fragment(rule: Rule, is_later: bool) -> Option<Rule> {
    let is_possible = rule.later_fragment.is_none_or(|later| later == is_later);
    is_possible.then_some(Rule { later_fragment: Some(is_later), ..rule })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{
        addresses, dscps, headers, ports, protocols, tcp_flags, tunnels, vlan_priorities,
    };
    use super::super::{Classifier, Fragments, first_match};
    use super::*;

    fn condition() -> impl Strategy<Value = Match> {
        prop_oneof![
            addresses().prop_map(Match::Source),
            addresses().prop_map(Match::Destination),
            protocols().prop_map(Match::Protocol),
            ports().prop_map(Match::SourcePort),
            ports().prop_map(Match::DestinationPort),
            tcp_flags().prop_map(Match::TcpFlags),
            dscps().prop_map(Match::Dscp),
            vlan_priorities().prop_map(Match::VlanPriority),
            tunnels().prop_map(Match::Tunnel),
            ports().prop_map(Match::IngressPort),
            Just(Match::LaterFragment),
        ]
    }

    fn expression() -> impl Strategy<Value = Match> {
        condition().prop_recursive(4, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Match::Any),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Match::All),
                inner.prop_map(|inner| Match::Not(Box::new(inner))),
            ]
        })
    }

    proptest! {
        #[test]
        fn its_rules_match_what_it_matches(
            expression in expression(), packets in prop::collection::vec(headers(), 100),
        ) {
            if let Ok(rules) = expression.rules(Class(3), 2000) {
                let classifier = Classifier::build(&rules, Class(0), Fragments::WithoutPorts).unwrap();
                for packet in packets {
                    let holds = expression.holds(&packet);
                    let found = first_match(&rules, &packet, Fragments::WithoutPorts).is_some();
                    prop_assert_eq!(found, holds, "{:?}", packet);
                    prop_assert_eq!(classifier.classify(&packet), Class(if holds { 3 } else { 0 }));
                }
            }
        }
    }

    fn port(port: u16) -> Match {
        Match::DestinationPort(Span::only(port))
    }

    #[test]
    fn any_of_nothing_is_nothing_and_all_of_nothing_is_everything() {
        assert_eq!(Match::Any(Vec::new()).rules(Class(1), 10), Ok(Vec::new()));
        assert_eq!(Match::All(Vec::new()).rules(Class(1), 10), Ok(vec![Rule::any(Class(1))]));
        let neither = Match::Not(Box::new(Match::All(Vec::new())));
        assert_eq!(neither.rules(Class(1), 10), Ok(Vec::new()));
    }

    #[test]
    fn what_contradicts_itself_is_no_rule() {
        assert_eq!(Match::All(vec![port(80), port(443)]).rules(Class(1), 10), Ok(Vec::new()));
        let syn = TcpFlags { value: 2, mask: 2 };
        let both = Match::All(vec![Match::TcpFlags(syn), Match::Not(Box::new(Match::TcpFlags(syn)))]);
        assert_eq!(both.rules(Class(1), 100), Ok(Vec::new()));
    }

    #[test]
    fn combinations_beyond_the_bound_are_refused_with_what_to_do() {
        let many = |first: u16| Match::Any((0..100).map(|step| port(first + 2 * step)).collect());
        let sources = Match::Any((0..100).map(|step| Match::SourcePort(Span::only(step * 2))).collect());
        assert_eq!(many(0).rules(Class(1), 100).unwrap().len(), 100);
        let product = Match::All(vec![many(0), sources]);
        let refused = product.rules(Class(1), 9_999).unwrap_err();
        assert!(refused.to_string().contains("more than 9999 rules"), "{refused}");
        assert_eq!(product.rules(Class(1), 10_000).unwrap().len(), 10_000);
    }

    #[test]
    fn an_expression_that_stays_small_but_is_asked_for_ever_is_refused() {
        let port = |port: u16| Match::DestinationPort(Span::only(port));
        let half = Match::Any((0..4_000).map(port).collect());
        // Each of 4,000 rules meets each of 4,000 parts, and one of them is left.
        assert_eq!(Match::All(vec![half.clone(), half]).rules(Class(1), 1 << 17).unwrap_err().max, 1 << 17);
    }

    #[test]
    fn expressions_share_a_budget() {
        let ports = Match::Any((0..60).map(|port| Match::DestinationPort(Span::only(port))).collect());
        let mut budget = Budget { rules: 100, steps: 1_000 };
        assert_eq!(ports.rules_within(Class(1), &mut budget).unwrap().len(), 60);
        assert_eq!(budget, Budget { rules: 40, steps: 1_000 - 61 });
        assert_eq!(ports.rules_within(Class(1), &mut budget), Err(TooManyRules { max: 40 }));
    }
}
