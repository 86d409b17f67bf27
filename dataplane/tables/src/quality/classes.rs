// SPDX-License-Identifier: Apache-2.0
//! Policy-maps with their classifiers: class-maps, nested as they are, become one ordered list of rules for each
//! policy-map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{
    CLASSES_MAX, ClassMapIndex, Criterion, Field, IpPrefix, ObjectId, PolicyClass, PolicyMap, PolicyMapIndex,
    PortRange, Refusal,
};
use qos::classify::{
    self, Addresses, Classifier, Dscps, Fragments, Headers, KeyV4, Match, Rule, Span, TcpFlags,
};
use qos::schedule::ClassSlot;
use wire::Dscp;

use super::Class;
use crate::Shadow;

/// How deep class-maps may be nested.
const DEPTH_MAX: usize = 8;
/// Rules that one policy-map may come to.
const RULES_MAX: usize = 1 << 17;

/// A policy-map, compiled.
pub(super) struct Policy {
    pub(super) map: PolicyMap,
    pub(super) classes: Vec<PolicyClass>,
    /// The DSCP that each class sets.
    marks: Box<[Option<Dscp>]>,
    classifier: Classifier,
}

impl Policy {
    #[inline]
    pub(super) fn classify(&self, headers: &Headers) -> Class {
        self.class(self.classifier.classify(headers))
    }

    #[inline]
    pub(super) fn classify_v4<const BURST: usize>(
        &self,
        keys: &[KeyV4],
        classes: &mut ArrayVec<Class, BURST>,
    ) {
        let mut found = [classify::Class(0); BURST];
        self.classifier.classify_v4(keys, &mut found);
        for class in found.iter().take(keys.len().min(classes.remaining_capacity())) {
            classes.push(self.class(*class));
        }
    }

    #[inline(always)]
    fn class(&self, classify::Class(place): classify::Class) -> Class {
        let set_dscp = self.marks.get(usize::from(place)).copied().flatten();
        Class { slot: ClassSlot(u8::try_from(place).unwrap_or(u8::MAX)), set_dscp }
    }
}

/// All policy-maps, whether they are at work or not: what is wrong with one is said at once.
pub(super) fn policies(wanted: &Shadow) -> Result<BTreeMap<PolicyMapIndex, Arc<Policy>>, Refusal> {
    dangling(wanted)?;
    let class_maps = ClassMaps { wanted };
    wanted.class_maps.keys().try_for_each(|map| class_maps.expression(*map, 0).map(drop))?;
    wanted.policy_maps.values().map(|map| Ok((map.policy_map, Arc::new(policy(wanted, map)?)))).collect()
}

/// Everything that names a map which is not there.
fn dangling(wanted: &Shadow) -> Result<(), Refusal> {
    for criterion in wanted.criteria.values() {
        let id = ObjectId::Criterion(criterion.class_map, criterion.place);
        for named in [Some(criterion.class_map), criterion.nested].into_iter().flatten() {
            if !wanted.class_maps.contains_key(&named) {
                return Err(Refusal::Dangling(id, ObjectId::ClassMap(named)));
            }
        }
        if let Some(tunnel) = criterion.tunnel.filter(|tunnel| wanted.tunnels.get(tunnel.index()).is_none()) {
            return Err(Refusal::Dangling(id, ObjectId::Tunnel(tunnel)));
        }
        if let Some(port) = criterion.ingress.filter(|port| !wanted.ports.contains_key(port)) {
            return Err(Refusal::Dangling(id, ObjectId::Port(port)));
        }
    }
    for class in wanted.policy_classes.values() {
        let id = ObjectId::PolicyClass(class.policy_map, class.place);
        if !wanted.policy_maps.contains_key(&class.policy_map) {
            return Err(Refusal::Dangling(id, ObjectId::PolicyMap(class.policy_map)));
        }
        if let Some(map) = class.class_map.filter(|map| !wanted.class_maps.contains_key(map)) {
            return Err(Refusal::Dangling(id, ObjectId::ClassMap(map)));
        }
    }
    Ok(())
}

fn policy(wanted: &Shadow, map: &PolicyMap) -> Result<Policy, Refusal> {
    let id = ObjectId::PolicyMap(map.policy_map);
    let range = (map.policy_map, 0)..=(map.policy_map, u8::MAX);
    let classes: Vec<PolicyClass> =
        wanted.policy_classes.range(range).map(|(_, class)| class.clone()).collect();
    let Some((last, first)) = classes.split_last() else {
        return Err(Refusal::OutOfRange(id, Field::Classes));
    };
    let is_complete = last.class_map.is_none() && first.iter().all(|class| class.class_map.is_some());
    if !is_complete || classes.len() > usize::from(CLASSES_MAX) {
        return Err(Refusal::OutOfRange(id, Field::Classes));
    }
    let mut rules = Vec::new();
    for (place, class) in (0..).zip(first) {
        let Some(class_map) = class.class_map else { continue };
        rules.extend(rules_of(wanted, class_map, classify::Class(place))?);
    }
    let default = classify::Class(u16::try_from(first.len()).unwrap_or(u16::MAX));
    if rules.len() > RULES_MAX {
        return Err(Refusal::OutOfRange(id, Field::ClassMap));
    }
    let classifier = Classifier::build(&rules, default, Fragments::default())
        .map_err(|_| Refusal::OutOfRange(id, Field::ClassMap))?;
    let marks = classes.iter().map(|class| class.set_dscp.and_then(Dscp::new)).collect();
    Ok(Policy { map: *map, classes, marks, classifier })
}

fn rules_of(wanted: &Shadow, map: ClassMapIndex, class: classify::Class) -> Result<Vec<Rule>, Refusal> {
    let expression = ClassMaps { wanted }.expression(map, 0)?;
    let too_many = |_| Refusal::OutOfRange(ObjectId::ClassMap(map), Field::ClassMap);
    expression.rules(class, RULES_MAX).map_err(too_many)
}

/// Class-maps as expressions.
struct ClassMaps<'a> {
    wanted: &'a Shadow,
}

impl ClassMaps<'_> {
    /// `depth` tells a class-map that names itself from one that is only nested.
    fn expression(&self, map: ClassMapIndex, depth: usize) -> Result<Match, Refusal> {
        let id = ObjectId::ClassMap(map);
        let Some(entry) = self.wanted.class_maps.get(&map).filter(|_| depth < DEPTH_MAX) else {
            return Err(Refusal::OutOfRange(id, Field::ClassMap));
        };
        let criteria = self.wanted.criteria.range((map, 0)..=(map, u16::MAX));
        let matches =
            criteria.map(|(_, criterion)| self.criterion(criterion, depth)).collect::<Result<Vec<_>, _>>()?;
        if matches.is_empty() {
            return Err(Refusal::OutOfRange(id, Field::Criterion));
        }
        Ok(if entry.match_any { Match::Any(matches) } else { Match::All(matches) })
    }

    fn criterion(&self, criterion: &Criterion, depth: usize) -> Result<Match, Refusal> {
        let id = ObjectId::Criterion(criterion.class_map, criterion.place);
        let prefix = |prefix: IpPrefix| {
            Addresses::prefix(prefix.address, prefix.length).ok_or(Refusal::OutOfRange(id, Field::Prefix))
        };
        let mut all = Vec::new();
        all.extend(criterion.source.map(prefix).transpose()?.map(Match::Source));
        all.extend(criterion.destination.map(prefix).transpose()?.map(Match::Destination));
        all.extend(criterion.protocol.map(|protocol| Match::Protocol(Span::only(protocol))));
        all.extend(criterion.source_ports.map(|range| Match::SourcePort(ports(range))));
        all.extend(criterion.destination_ports.map(|range| Match::DestinationPort(ports(range))));
        let flags = criterion.tcp_flags;
        all.extend(flags.map(|flags| Match::TcpFlags(TcpFlags { value: flags.value, mask: flags.mask })));
        all.extend(criterion.dscps.map(|dscps| Match::Dscp(Dscps(dscps.0))));
        all.extend(criterion.tunnel.map(|tunnel| Match::Tunnel(Span::only(tunnel.0))));
        all.extend(criterion.ingress.map(|port| Match::IngressPort(Span::only(port.0))));
        if let Some(nested) = criterion.nested {
            all.push(self.expression(nested, depth + 1)?);
        }
        if all.is_empty() {
            return Err(Refusal::OutOfRange(id, Field::Criterion));
        }
        let all = Match::All(all);
        Ok(if criterion.negated { Match::Not(Box::new(all)) } else { all })
    }
}

fn ports(range: PortRange) -> Span<u16> {
    Span::new(range.first, range.last)
}
