// SPDX-License-Identifier: Apache-2.0
//! Answers for flows that were asked for before: a worker's own, of fixed size.
//!
//! ```text
//! line: two entries of 32 bytes, the one used last in front
//! entry: lanes 0 to 12 of the key | class | generation of the classifier that said so
//! ```
//!
//! An entry of another classifier is none, so that rules take effect with the commit that brings them; nothing is swept.

use pktbuf::prefetch;

use super::key::KeyV4;
use super::{Class, Classifier};

/// As many keys are looked up together.
const TOGETHER: usize = 64;
/// Lanes of an entry: the key's, which uses 13, then class and generation.
const CLASS: usize = 13;
const GENERATION: [usize; 2] = [14, 15];
/// Odd, and dense in bits (the fractional part of π).
const MULTIPLIER: u64 = 0x243f_6a88_85a3_08d3;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([[u16; 16]; 2]);

/// Classes of IPv4 flows, told apart by all that rules can look at.
pub struct FlowCache {
    lines: Box<[Line]>,
    shift: u32,
    hits: u64,
    misses: u64,
}

impl FlowCache {
    /// An empty cache for at least `flows` flows, 32 bytes each: the next power of two, from 2 to 2^24.
    #[must_use]
    pub fn new(flows: usize) -> Self {
        let lines = (flows.min(1 << 24).div_ceil(2)).next_power_of_two();
        let shift = 64 - lines.ilog2();
        Self { lines: vec![Line([[0; 16]; 2]); lines].into_boxed_slice(), shift, hits: 0, misses: 0 }
    }

    /// What [`Classifier::classify_v4`] says, asked only for the keys that are not here.
    #[inline]
    pub fn classify_v4(&mut self, classifier: &Classifier, keys: &[KeyV4], classes: &mut [Class]) {
        for (keys, classes) in keys.chunks(TOGETHER).zip(classes.chunks_mut(TOGETHER)) {
            self.classify_some(classifier, keys, classes);
        }
    }

    /// Keys that were here, and keys that were not.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    fn classify_some(&mut self, classifier: &Classifier, keys: &[KeyV4], classes: &mut [Class]) {
        let mut lines = [0; TOGETHER];
        for (line, key) in lines.iter_mut().zip(keys) {
            *line = self.line_of(key);
            if let Some(line) = self.lines.get(*line) {
                prefetch(line);
            }
        }
        let (mut missing, mut places, mut count) = ([KeyV4::NONE; TOGETHER], [0u8; TOGETHER], 0);
        for (place, ((key, class), line)) in keys.iter().zip(classes.iter_mut()).zip(&lines).enumerate() {
            let found = self.find(*line, key, classifier.generation());
            *class = found.unwrap_or_default();
            missing[count % TOGETHER] = *key;
            places[count % TOGETHER] = place as u8;
            count += usize::from(found.is_none());
        }
        let asked = missing.get(..count).unwrap_or(&[]);
        self.hits += (classes.len().min(keys.len()) - count) as u64;
        self.misses += count as u64;
        if asked.is_empty() {
            return;
        }
        let mut said = [Class::default(); TOGETHER];
        classifier.classify_v4(asked, &mut said);
        for ((key, place), said) in asked.iter().zip(places).zip(said) {
            let place = usize::from(place);
            if let (Some(class), Some(line)) = (classes.get_mut(place), lines.get(place)) {
                *class = said;
                self.remember(*line, key, said, classifier.generation());
            }
        }
    }

    #[inline(always)]
    fn line_of(&self, key: &KeyV4) -> usize {
        let words: [u64; 4] = zerocopy::transmute!(key.lanes);
        let [a, b, c, d] = words;
        let mixed = (a ^ c.rotate_left(32)).wrapping_mul(MULTIPLIER) ^ (b ^ d.rotate_left(48));
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(MULTIPLIER);
        usize::try_from(mixed.checked_shr(self.shift).unwrap_or(0)).unwrap_or(0)
    }

    #[inline(always)]
    fn find(&self, line: usize, key: &KeyV4, generation: u32) -> Option<Class> {
        let Line([first, second]) = self.lines.get(line)?;
        let is = |entry: &[u16; 16]| *entry == entry_of(key, Class(entry[CLASS]), generation);
        let (in_first, in_second) = (is(first), is(second));
        let class = if in_first { first[CLASS] } else { second[CLASS] };
        (in_first | in_second).then_some(Class(class))
    }

    #[inline(always)]
    fn remember(&mut self, line: usize, key: &KeyV4, class: Class, generation: u32) {
        if let Some(Line([first, second])) = self.lines.get_mut(line) {
            *second = *first;
            *first = entry_of(key, class, generation);
        }
    }
}

/// The entry for a key.
#[inline(always)]
fn entry_of(key: &KeyV4, class: Class, generation: u32) -> [u16; 16] {
    let mut entry = key.lanes;
    let [low, high] = [generation as u16, (generation >> 16) as u16];
    entry[CLASS] = class.0;
    entry[GENERATION[0]] = low;
    entry[GENERATION[1]] = high;
    entry
}

#[cfg(test)]
mod tests {
    use super::super::{Arrival, Fragments, NO_TUNNEL, Rule, Span, WholeV4};
    use super::*;
    use wire::IpProtocol;

    fn key(source: u32, port: u16) -> KeyV4 {
        let packet = WholeV4 {
            source,
            destination: 7,
            ports: u32::from(port),
            protocol: IpProtocol::UDP,
            tos: 0,
            tcp_flags: 0,
        };
        KeyV4::new(&packet, &Arrival { port: 1, vlan_priority: None, tunnel: NO_TUNNEL })
    }

    fn below_1000(class: u16) -> Classifier {
        let rule = Rule { destination_ports: Some(Span::new(0, 999)), ..Rule::any(Class(class)) };
        Classifier::build(&[rule], Class(0), Fragments::WithoutPorts).unwrap()
    }

    fn ask(cache: &mut FlowCache, classifier: &Classifier, keys: &[KeyV4]) -> Vec<Class> {
        let mut classes = vec![Class(99); keys.len()];
        cache.classify_v4(classifier, keys, &mut classes);
        classes
    }

    #[test]
    fn it_says_what_the_classifier_says_and_remembers_it() {
        let (mut cache, classifier) = (FlowCache::new(1024), below_1000(5));
        let keys: Vec<KeyV4> = (0..200).map(|flow| key(flow, (flow * 10) as u16)).collect();
        let expected: Vec<Class> = (0..200).map(|flow| Class(if flow < 100 { 5 } else { 0 })).collect();
        assert_eq!(ask(&mut cache, &classifier, &keys), expected);
        assert_eq!(cache.hits_and_misses(), (0, 200));
        assert_eq!(ask(&mut cache, &classifier, &keys), expected);
        let (hits, misses) = cache.hits_and_misses();
        assert!(hits > 150 && hits + misses == 400, "{hits} hits");
    }

    #[test]
    fn other_rules_make_it_forget() {
        let mut cache = FlowCache::new(64);
        for class in 1..20 {
            assert_eq!(ask(&mut cache, &below_1000(class), &[key(1, 80)]), [Class(class)]);
        }
        assert_eq!(cache.hits_and_misses(), (0, 19));
        let classifier = below_1000(3);
        let clone = classifier.clone();
        ask(&mut cache, &classifier, &[key(1, 80)]);
        ask(&mut cache, &clone, &[key(1, 80)]);
        assert_eq!(cache.hits_and_misses(), (1, 20));
    }

    #[test]
    fn more_flows_than_it_has_room_for_are_told_apart_all_the_same() {
        for room in [0, 1, 2, 16] {
            let (mut cache, classifier) = (FlowCache::new(room), below_1000(5));
            for _ in 0..3 {
                for flow in 0..500u32 {
                    let port = (flow * 7 % 2000) as u16;
                    let expected = Class(if port < 1000 { 5 } else { 0 });
                    assert_eq!(ask(&mut cache, &classifier, &[key(flow, port)]), [expected]);
                }
            }
        }
    }

    #[test]
    fn an_empty_cache_does_not_know_the_key_of_no_packet() {
        let (mut cache, classifier) = (FlowCache::new(8), below_1000(5));
        assert_eq!(ask(&mut cache, &classifier, &[KeyV4::NONE]), [Class(0)]);
        assert_eq!(cache.hits_and_misses(), (0, 1));
    }
}
