// SPDX-License-Identifier: Apache-2.0
//! Policy-maps with their classifiers: class-maps, nested as they are, become one ordered list of rules for each
//! policy-map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{
    CLASSES_MAX, ClassMapIndex, Criterion, EXPANDED_CRITERIA_MAX, Field, IpPrefix, NESTING_MAX, ObjectId,
    PolicyClass, PolicyMap, PolicyMapIndex, PortRange, Refusal, Service,
};
use qos::classify::{
    self, Addresses, Budget, Classifier, Dscps, FlowCache, Fragments, Headers, KeyV4, Match, Rule, Span,
    TcpFlags, VlanPriorities,
};
use qos::schedule::ClassSlot;
use qos::tally::Place;
use wire::Dscp;

use super::Class;
use crate::Shadow;

/// Rules that all policy-maps may come to.
const RULES_MAX: usize = 1 << 17;

/// From so many rules on a flow cache wins, also against the nearest caches (docs/qos.md).
const CACHED_RULES_MIN: usize = 1_000;

/// A policy-map, compiled.
pub(super) struct Policy {
    pub(super) map: PolicyMap,
    pub(super) classes: Vec<PolicyClass>,
    /// What each class says by itself.
    own: Box<[Class]>,
    classifier: Classifier,
    /// For each code point the class of whole packets, where it decides alone.
    by_dscp: [Option<Class>; 64],
    /// Whether it always does.
    goes_by_dscp: bool,
    /// See [`AtWork::counted_at`](super::AtWork::counted_at).
    counted_at: [Place; 64],
    /// Whether to look into the flow cache is cheaper than to walk the trees.
    has_many_rules: bool,
}

impl Policy {
    /// Whether packets wait: all classes are served, or none.
    pub(super) fn is_queued(&self) -> bool {
        self.classes.iter().any(|class| class.service != Service::Unqueued)
    }

    /// Whether a class polices; or whether nothing else counts its packets.
    pub(super) fn needs_conditioner(&self) -> bool {
        !self.is_queued() || self.classes.iter().any(|class| class.police.is_some())
    }

    /// Whether the code point alone decides of what class a whole packet is.
    #[inline(always)]
    pub(super) fn goes_by_dscp(&self) -> bool {
        self.goes_by_dscp
    }

    /// The class of whole packets with this ToS, if its code point decides alone.
    #[inline(always)]
    pub(super) fn by_tos(&self, tos: u8) -> Option<Class> {
        self.by_dscp[usize::from(tos >> 2)]
    }

    #[inline(always)]
    pub(super) fn counted_at(&self) -> &[Place; 64] {
        &self.counted_at
    }

    /// Where packets with a code point are counted, if nothing else is done with them.
    fn counts_only(&self, dscp: Dscp) -> Option<Place> {
        let class = self.by_dscp[usize::from(dscp.get())]?;
        let is_policed = self.classes.get(usize::from(class.slot.0))?.police.is_some();
        let changes = class.set_dscp.is_some_and(|set| set != dscp) || class.set_vlan_priority.is_some();
        (!is_policed && !changes).then(|| Place::of(class.slot))
    }

    #[inline]
    pub(super) fn classify(&self, headers: &Headers) -> Class {
        self.class(self.classifier.classify(headers))
    }

    #[inline]
    pub(super) fn classify_v4<const BURST: usize>(
        &self,
        keys: &[KeyV4],
        flows: &mut FlowCache,
        classes: &mut ArrayVec<Class, BURST>,
    ) {
        let mut found = [classify::Class(0); BURST];
        if self.has_many_rules {
            flows.classify_v4(&self.classifier, keys, &mut found);
        } else {
            self.classifier.classify_v4(keys, &mut found);
        }
        for class in found.iter().take(keys.len().min(classes.remaining_capacity())) {
            classes.push(self.class(*class));
        }
    }

    #[inline(always)]
    fn class(&self, classify::Class(place): classify::Class) -> Class {
        self.own.get(usize::from(place)).copied().unwrap_or(Class::NONE)
    }
}

/// All policy-maps, whether they are at work or not: what is wrong with one is said at once. Nothing is [`dangling`].
pub(super) fn policies(wanted: &Shadow) -> Result<BTreeMap<PolicyMapIndex, Arc<Policy>>, Refusal> {
    let extents = extents(wanted)?;
    let mut compiler = Compiler {
        class_maps: ClassMaps { wanted },
        extents,
        criteria: EXPANDED_CRITERIA_MAX,
        budget: Budget::of_rules(RULES_MAX),
    };
    wanted.policy_maps.values().map(|map| Ok((map.policy_map, Arc::new(compiler.policy(map)?)))).collect()
}

/// Everything that names what is not there: a map, or a tunnel or port, which may go while no map changes.
pub(super) fn dangling(wanted: &Shadow) -> Result<(), Refusal> {
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

/// What a class-map comes to with those that it names.
#[derive(Clone, Copy)]
struct Extent {
    depth: usize,
    criteria: usize,
}

/// Of every class-map, before any becomes an expression: a few that name each other often come to more than fits
/// memory.
fn extents(wanted: &Shadow) -> Result<BTreeMap<ClassMapIndex, Extent>, Refusal> {
    let mut extents = BTreeMap::new();
    for map in wanted.class_maps.keys() {
        extent(wanted, *map, 1, &mut extents)?;
    }
    Ok(extents)
}

/// `level` bounds the recursion, and so tells a class-map that names itself.
fn extent(
    wanted: &Shadow,
    map: ClassMapIndex,
    level: usize,
    known: &mut BTreeMap<ClassMapIndex, Extent>,
) -> Result<Extent, Refusal> {
    let refused = |field| Refusal::OutOfRange(ObjectId::ClassMap(map), field);
    if let Some(extent) = known.get(&map) {
        return Ok(*extent);
    }
    if level > NESTING_MAX {
        return Err(refused(Field::ClassMap));
    }
    let mut all = Extent { depth: 1, criteria: 0 };
    for (_, criterion) in wanted.criteria.range((map, 0)..=(map, u16::MAX)) {
        if names_nothing(criterion) {
            return Err(Refusal::OutOfRange(ObjectId::Criterion(map, criterion.place), Field::Criterion));
        }
        all.criteria = all.criteria.saturating_add(1);
        if let Some(nested) = criterion.nested {
            let nested = extent(wanted, nested, level + 1, known)?;
            all.depth = all.depth.max(nested.depth + 1);
            all.criteria = all.criteria.saturating_add(nested.criteria);
        }
    }
    match all.criteria {
        0 => Err(refused(Field::Criterion)),
        _ if all.depth > NESTING_MAX || all.criteria > EXPANDED_CRITERIA_MAX => Err(refused(Field::ClassMap)),
        _ => {
            known.insert(map, all);
            Ok(all)
        }
    }
}

fn names_nothing(criterion: &Criterion) -> bool {
    let anything = Criterion::anything(criterion.class_map, criterion.place);
    *criterion == Criterion { negated: criterion.negated, ..anything }
}

/// Compiles policy-maps, which share what they may come to.
struct Compiler<'a> {
    class_maps: ClassMaps<'a>,
    extents: BTreeMap<ClassMapIndex, Extent>,
    /// Criteria that are left.
    criteria: usize,
    budget: Budget,
}

impl Compiler<'_> {
    fn policy(&mut self, map: &PolicyMap) -> Result<Policy, Refusal> {
        let id = ObjectId::PolicyMap(map.policy_map);
        let range = (map.policy_map, 0)..=(map.policy_map, u8::MAX);
        let classes: Vec<PolicyClass> =
            self.class_maps.wanted.policy_classes.range(range).map(|(_, class)| class.clone()).collect();
        let Some((last, first)) = classes.split_last() else {
            return Err(Refusal::OutOfRange(id, Field::Classes));
        };
        let is_complete = last.class_map.is_none() && first.iter().all(|class| class.class_map.is_some());
        if !is_complete || classes.len() > usize::from(CLASSES_MAX) {
            return Err(Refusal::OutOfRange(id, Field::Classes));
        }
        let unqueued = classes.iter().filter(|class| class.service == Service::Unqueued).count();
        if unqueued > 0 && (unqueued < classes.len() || map.shape.is_some()) {
            return Err(Refusal::OutOfRange(id, Field::Service));
        }
        let too_many = Refusal::OutOfRange(id, Field::ClassMap);
        let mut rules = Vec::new();
        for (place, class) in (0..).zip(first) {
            let Some(class_map) = class.class_map else { continue };
            rules.extend(self.rules(class_map, classify::Class(place))?.ok_or(too_many)?);
        }
        let default = classify::Class(u16::try_from(first.len()).unwrap_or(u16::MAX));
        let has_many_rules = rules.len() >= CACHED_RULES_MIN;
        let classifier = Classifier::build(&rules, default, Fragments::default()).map_err(|_| too_many)?;
        let own = (0..).map(ClassSlot).zip(&classes).map(|(slot, class)| Class {
            slot,
            set_dscp: class.set_dscp.and_then(Dscp::new),
            set_vlan_priority: class.set_vlan_priority,
        });
        let own = own.collect();
        let mut policy = Policy {
            map: *map,
            classes,
            own,
            classifier,
            by_dscp: [None; 64],
            goes_by_dscp: false,
            counted_at: [Place::NOWHERE; 64],
            has_many_rules,
        };
        policy.by_dscp = for_each_dscp(|dscp| {
            let class = policy.class(policy.classifier.by_dscp(dscp)?);
            // What it gets is known already, whether the class sets something or not.
            Some(Class { set_dscp: Some(class.set_dscp.unwrap_or(dscp)), ..class })
        });
        policy.goes_by_dscp = policy.by_dscp.iter().all(Option::is_some);
        let counted_at = for_each_dscp(|dscp| policy.counts_only(dscp));
        policy.counted_at = counted_at.map(|place| place.unwrap_or(Place::NOWHERE));
        Ok(policy)
    }

    /// `None`: more than is left.
    fn rules(&mut self, map: ClassMapIndex, class: classify::Class) -> Result<Option<Vec<Rule>>, Refusal> {
        let criteria = self.extents.get(&map).map_or(usize::MAX, |extent| extent.criteria);
        let Some(left) = self.criteria.checked_sub(criteria) else { return Ok(None) };
        self.criteria = left;
        let expression = self.class_maps.expression(map)?;
        Ok(expression.rules_within(class, &mut self.budget).ok())
    }
}

fn for_each_dscp<T>(tell: impl Fn(Dscp) -> Option<T>) -> [Option<T>; 64] {
    core::array::from_fn(|value| tell(u8::try_from(value).ok().and_then(Dscp::new)?))
}

/// Class-maps as expressions.
struct ClassMaps<'a> {
    wanted: &'a Shadow,
}

impl ClassMaps<'_> {
    /// Of a class-map that has an extent.
    fn expression(&self, map: ClassMapIndex) -> Result<Match, Refusal> {
        let id = ObjectId::ClassMap(map);
        let entry = self.wanted.class_maps.get(&map).ok_or(Refusal::OutOfRange(id, Field::ClassMap))?;
        let criteria = self.wanted.criteria.range((map, 0)..=(map, u16::MAX));
        let matches =
            criteria.map(|(_, criterion)| self.criterion(criterion)).collect::<Result<Vec<_>, _>>()?;
        Ok(if entry.match_any { Match::Any(matches) } else { Match::All(matches) })
    }

    fn criterion(&self, criterion: &Criterion) -> Result<Match, Refusal> {
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
        let priorities = criterion.vlan_priorities.map(VlanPriorities::of_bits);
        all.extend(priorities.map(Match::VlanPriority));
        if let Some(nested) = criterion.nested {
            all.push(self.expression(nested)?);
        }
        let all = Match::All(all);
        Ok(if criterion.negated { Match::Not(Box::new(all)) } else { all })
    }
}

fn ports(range: PortRange) -> Span<u16> {
    Span::new(range.first, range.last)
}
