// SPDX-License-Identifier: Apache-2.0
//! Rules and headers for the classifier, with the traits that ClassBench (Taylor and Turner, 2007) found in filter sets
//! of the field: pairs of prefix lengths that go together, nested prefixes, five kinds of port ranges, few protocols.
//!
//! The distributions are our own and rounded; they are not ClassBench's seed files.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

use qos::classify::{Addresses, Class, Rule, Span, WholeV4};
use wire::IpProtocol;

use crate::profile::Random;

/// No header comes again before so many others.
const NO_REPEAT: usize = 64 * 1024;
/// Classes that rules lead to.
const CLASSES: u32 = 8;

/// What a set of rules is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An access list: hosts and small prefixes on both sides, exact destination ports.
    Acl,
    /// A firewall: one side is often anywhere, ranges of ports on both sides.
    Firewall,
    /// A chain of a host's filter: prefixes of all lengths, exact ports on either side.
    Chain,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Acl, Self::Firewall, Self::Chain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Acl => "ACL",
            Self::Firewall => "firewall",
            Self::Chain => "chain",
        }
    }

    /// Weights of pairs of prefix lengths, source and destination.
    fn lengths(self) -> &'static [(u32, [u8; 2])] {
        match self {
            Self::Acl => &[
                (30, [32, 32]),
                (20, [24, 32]),
                (10, [28, 30]),
                (10, [24, 24]),
                (8, [16, 32]),
                (8, [21, 27]),
                (5, [0, 32]),
                (4, [0, 24]),
                (3, [32, 0]),
                (2, [16, 16]),
            ],
            Self::Firewall => &[
                (25, [0, 32]),
                (12, [32, 0]),
                (12, [32, 32]),
                (12, [24, 32]),
                (10, [0, 24]),
                (8, [16, 32]),
                (8, [24, 0]),
                (6, [24, 24]),
                (5, [29, 16]),
                (2, [0, 16]),
            ],
            Self::Chain => &[
                (22, [32, 32]),
                (14, [24, 24]),
                (12, [32, 24]),
                (12, [24, 32]),
                (10, [16, 24]),
                (8, [19, 28]),
                (8, [0, 32]),
                (6, [32, 0]),
                (4, [16, 16]),
                (4, [8, 26]),
            ],
        }
    }

    /// Weights of the kinds of port ranges: any, from 1024 on, below 1024, any range, one port. Source, destination.
    fn ports(self) -> [[u32; 5]; 2] {
        match self {
            Self::Acl => [[95, 2, 0, 1, 2], [14, 8, 1, 15, 62]],
            Self::Firewall => [[55, 20, 2, 8, 15], [30, 12, 3, 15, 40]],
            Self::Chain => [[65, 10, 1, 4, 20], [40, 8, 2, 10, 40]],
        }
    }

    /// Weights of TCP, UDP, ICMP, any.
    fn protocols(self) -> [u32; 4] {
        match self {
            Self::Acl => [72, 20, 2, 6],
            Self::Firewall => [60, 28, 4, 8],
            Self::Chain => [58, 30, 3, 9],
        }
    }
}

/// `count` different rules, the longer prefixes roughly first, as people write them; the same for the same seed.
pub(super) fn rules(kind: Kind, count: usize, seed: u64) -> Vec<Rule> {
    let mut random = Random(seed ^ 0x7275_6c65_7300);
    let mut pools = [Pool::new(&mut random), Pool::new(&mut random)];
    let mut known = HashSet::new();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let lengths = weighted(kind.lengths().iter().copied(), &mut random).unwrap_or([32, 32]);
        let [source, destination] = {
            let [sources, destinations] = &mut pools;
            [sources.prefix(lengths[0], &mut random), destinations.prefix(lengths[1], &mut random)]
        };
        let protocol =
            weighted(kind.protocols().into_iter().zip([Some(6), Some(17), Some(1), None]), &mut random);
        let protocols = protocol.flatten().map_or(Span::new(0, u8::MAX), Span::only);
        let has_ports = matches!(protocol.flatten(), Some(6 | 17));
        let ports = kind.ports().map(|weights| has_ports.then(|| port_range(weights, &mut random)).flatten());
        if known.insert((source, destination, protocols, ports)) {
            let place = u32::from(64 - lengths[0] - lengths[1]) + random.below(12);
            all.push((place, source, destination, protocols, ports));
        }
    }
    all.sort_by_key(|rule| rule.0);
    all.into_iter()
        .map(|(_, source, destination, protocols, ports)| Rule {
            source: source.map(Addresses::V4),
            destination: destination.map(Addresses::V4),
            protocols,
            source_ports: ports[0],
            destination_ports: ports[1],
            ..Rule::any(Class(random.below(CLASSES) as u16))
        })
        .collect()
}

fn weighted<T>(choices: impl Iterator<Item = (u32, T)> + Clone, random: &mut Random) -> Option<T> {
    let all = choices.clone().map(|(weight, _)| weight).sum();
    let mut at = random.below(all);
    for (weight, choice) in choices {
        match at.checked_sub(weight) {
            Some(rest) => at = rest,
            None => return Some(choice),
        }
    }
    None
}

/// Addresses that prefixes are taken from, so that long ones lie in short ones.
struct Pool {
    networks: Vec<u32>,
    seen: Vec<u32>,
}

impl Pool {
    fn new(random: &mut Random) -> Self {
        let networks = (0..48).map(|_| (1 + random.below(222)) << 24 | random.below(1 << 16) << 8).collect();
        Self { networks, seen: Vec::new() }
    }

    /// A prefix of this length: around or in one that was there before, or a new one in a network. `None`: anywhere.
    fn prefix(&mut self, length: u8, random: &mut Random) -> Option<Span<u32>> {
        if length == 0 {
            return None;
        }
        let hosts = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let again = !self.seen.is_empty() && random.below(100) < 55;
        let base = if again {
            let known = self.seen[random.below(self.seen.len() as u32) as usize];
            if random.below(2) == 0 { known } else { known ^ random.below(1 << 8) }
        } else {
            // Squared: low networks are used more than high ones.
            let at = random.below(48) * random.below(48) / 48;
            self.networks[at as usize] ^ random.below(1 << 18)
        };
        self.seen.push(base);
        Some(Span::new(base & !hosts, base | hosts))
    }
}

fn port_range(weights: [u32; 5], random: &mut Random) -> Option<Span<u16>> {
    const KNOWN: [u16; 20] =
        [20, 21, 22, 23, 25, 53, 80, 110, 123, 135, 137, 139, 143, 161, 389, 443, 445, 993, 1521, 3389];
    match weighted(weights.into_iter().zip(0u8..), random)? {
        0 => None,
        1 => Some(Span::new(1024, u16::MAX)),
        2 => Some(Span::new(0, 1023)),
        3 => {
            let first = random.below(60_000) as u16;
            Some(Span::new(
                first,
                first + 1 + random.below(if first.is_multiple_of(2) { 16 } else { 5_000 }) as u16,
            ))
        }
        _ if random.below(3) > 0 => Some(Span::only(KNOWN[random.below(20) as usize])),
        _ => Some(Span::only(random.below(1 << 16) as u16)),
    }
}

/// Headers of which all but a twentieth are taken from a random rule, none twice within 64 k.
pub(super) fn headers(rules: &[Rule], count: usize, seed: u64) -> Vec<WholeV4> {
    let mut random = Random(seed ^ 0x6865_6164_0000);
    let (mut known, mut order) = (HashSet::new(), VecDeque::new());
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let rule = rules.get(random.below(rules.len() as u32) as usize).filter(|_| random.below(20) > 0);
        let header = header(rule, &mut random);
        let tuple = (header.source, header.destination, header.ports, header.protocol);
        if !known.insert(tuple) {
            continue;
        }
        order.push_back(tuple);
        if order.len() > NO_REPEAT
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        all.push(header);
    }
    all
}

fn header(rule: Option<&Rule>, random: &mut Random) -> WholeV4 {
    let any = |random: &mut Random| random.below(1 << 16) << 16 | random.below(1 << 16);
    let mut address = |addresses: Option<Addresses>| match addresses {
        Some(Addresses::V4(span)) => span.first + (any(random) & (span.last - span.first)),
        _ => any(random),
    };
    let (source, destination) = match rule {
        Some(rule) => (address(rule.source), address(rule.destination)),
        None => (address(None), address(None)),
    };
    let mut port = |ports: Option<Span<u16>>| match ports {
        Some(span) => u32::from(span.first) + random.below(u32::from(span.last - span.first) + 1),
        None => random.below(1 << 16),
    };
    let ports = port(rule.and_then(|rule| rule.source_ports)) << 16
        | port(rule.and_then(|rule| rule.destination_ports));
    let protocol = match rule.map(|rule| rule.protocols) {
        Some(span) if span.first == span.last => span.first,
        _ => [6, 17, 1, 47][random.below(4) as usize],
    };
    let tos = (random.below(64) << 2) as u8;
    WholeV4 { source, destination, ports, protocol: IpProtocol(protocol), tos, tcp_flags: 0x10 }
}

/// Writes rules, headers and their classes for `scripts/acl-beside`.
pub(super) fn write(
    directory: &Path,
    name: &str,
    rules: &[Rule],
    headers: &[WholeV4],
    classes: &[Class],
) -> anyhow::Result<()> {
    let mut text = String::new();
    for rule in rules {
        let [source, destination] = [rule.source, rule.destination].map(|addresses| match addresses {
            Some(Addresses::V4(span)) => {
                format!("{}/{}", span.first, (span.first ^ span.last).leading_zeros())
            }
            _ => "0/0".to_owned(),
        });
        let [from, to] = [rule.source_ports, rule.destination_ports].map(|ports| {
            let ports = ports.unwrap_or(Span::new(0, u16::MAX));
            format!("{}-{}", ports.first, ports.last)
        });
        let protocol = rule.protocols;
        let mask = if protocol.first == protocol.last { u8::MAX } else { 0 };
        writeln!(
            text,
            "{source} {destination} {from} {to} {}/{mask} {}",
            protocol.first & mask,
            rule.class.0
        )?;
    }
    let mut bytes = Vec::with_capacity(headers.len() * 20);
    for (header, class) in headers.iter().zip(classes) {
        bytes.extend([header.protocol.0, 0, 0, 0]);
        bytes.extend([header.source, header.destination, header.ports].map(u32::to_be_bytes).as_flattened());
        bytes.extend(u32::from(class.0).to_le_bytes());
    }
    std::fs::write(directory.join(format!("{name}.rules")), text)?;
    std::fs::write(directory.join(format!("{name}.headers")), bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use qos::classify::{Arrival, Classifier, Fragments, Headers, KeyV4, NO_TUNNEL, first_match};

    use super::*;

    const ARRIVAL: Arrival = Arrival { port: 1, vlan_priority: None, tunnel: NO_TUNNEL };

    fn whole(header: &WholeV4) -> Headers {
        Headers {
            source: std::net::IpAddr::V4(header.source.into()),
            destination: std::net::IpAddr::V4(header.destination.into()),
            protocol: header.protocol,
            source_port: (header.ports >> 16) as u16,
            destination_port: header.ports as u16,
            tcp_flags: header.tcp_flags,
            tos: header.tos,
            later_fragment: false,
            arrival: ARRIVAL,
        }
    }

    #[test]
    fn the_classifier_says_what_the_linear_scan_says_of_rules_of_each_kind() {
        for kind in Kind::ALL {
            for count in [10, 300, 3_000] {
                let rules = rules(kind, count, 5);
                let classifier = Classifier::build(&rules, Class(99), Fragments::WithoutPorts).unwrap();
                let headers = headers(&rules, 2_000, 6);
                let keys: Vec<KeyV4> = headers.iter().map(|header| KeyV4::new(header, &ARRIVAL)).collect();
                let mut classes = vec![Class(0); keys.len()];
                classifier.classify_v4(&keys, &mut classes);
                for (header, class) in headers.iter().zip(classes) {
                    let first = first_match(&rules, &whole(header), Fragments::WithoutPorts);
                    assert_eq!(class, first.map_or(Class(99), |place| rules[place].class), "{header:?}");
                }
            }
        }
    }

    #[test]
    fn most_headers_match_many_different_rules_and_none_comes_back_soon() {
        for kind in Kind::ALL {
            let rules = rules(kind, 500, 1);
            let headers = headers(&rules, 2 * NO_REPEAT, 2);
            let mut last: HashMap<_, usize> = HashMap::new();
            for (at, header) in headers.iter().enumerate() {
                let tuple = (header.source, header.destination, header.ports, header.protocol);
                let before = last.insert(tuple, at);
                assert!(before.is_none_or(|before| at - before >= NO_REPEAT));
            }
            let some = headers.iter().step_by(40);
            let first: Vec<_> =
                some.map(|header| first_match(&rules, &whole(header), Fragments::WithoutPorts)).collect();
            let matched: HashSet<usize> = first.iter().flatten().copied().collect();
            let misses = first.iter().filter(|first| first.is_none()).count();
            assert!(misses * 10 < first.len(), "{}: {misses} of {} match nothing", kind.name(), first.len());
            assert!(matched.len() > 250, "{}: only {} rules are matched", kind.name(), matched.len());
        }
    }

    #[test]
    fn rules_differ_from_each_other_and_come_again_with_their_seed() {
        for kind in Kind::ALL {
            assert_eq!(rules(kind, 200, 7), rules(kind, 200, 7));
            assert_ne!(rules(kind, 200, 7), rules(kind, 200, 8));
        }
    }
}
