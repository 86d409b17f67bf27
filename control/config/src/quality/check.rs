// SPDX-License-Identifier: Apache-2.0
//! What can be said of class-maps and policy-maps by themselves.

use std::collections::{HashMap, HashSet};

use messages::{
    CLASSES_MAX, CRITERIA_MAX, EXPANDED_CRITERIA_MAX, NESTING_MAX, PIE_US_MAX, PROFILES_MAX, QueueLimit,
    Share,
};
use wire::IpProtocol;

use super::extent::{ClassMaps, Extent, circles, extents};
use super::{
    Bandwidth, BitRate, CLASS_DEFAULT, ClassMapEntry, CriterionEntry, PoliceEntry, PolicyClassEntry,
    PolicyMapEntry, ProfileEntry, QUEUE_LIMIT, WredEntry,
};
use crate::check::no_such;
use crate::problem::Complaints;
use crate::{Config, Problems};

/// The shortest frame on the wire, with preamble and gap (IEEE 802.3 §3.2, §4.4.2).
const PACKET_BYTES_MIN: u32 = 84;

/// What is wrong with class-maps, policy-maps, and with whoever names them.
pub(crate) fn check(config: &Config, problems: &mut Problems) {
    let class_maps = config.class_maps.iter().map(|map| (map.name.as_str(), map)).collect();
    let extents = extents(&class_maps);
    let checker = Checker {
        config,
        circles: circles(&class_maps, &extents),
        class_maps,
        extents,
        policy_maps: config.policy_maps.iter().map(|map| map.name.as_str()).collect(),
    };
    for (position, map) in config.class_maps.iter().enumerate() {
        checker.class_map(map, &mut Complaints::about(problems, map, position));
    }
    let mut criteria = 0;
    for (position, map) in config.policy_maps.iter().enumerate() {
        let complaints = &mut Complaints::about(problems, map, position);
        checker.policy_map(map, complaints);
        checker.expanded(map, &mut criteria, complaints);
    }
    for (position, port) in config.ports.iter().enumerate() {
        checker
            .service_policy(port.service_policy.as_ref(), &mut Complaints::about(problems, port, position));
    }
    for (position, tunnel) in config.tunnels.iter().enumerate() {
        let complaints = &mut Complaints::about(problems, tunnel, position);
        checker.service_policy(tunnel.service_policy.as_ref(), complaints);
    }
}

struct Checker<'a> {
    config: &'a Config,
    class_maps: ClassMaps<'a>,
    /// Of class-maps outside circles.
    extents: HashMap<&'a str, Extent>,
    circles: HashSet<&'a str>,
    policy_maps: HashSet<&'a str>,
}

impl Checker<'_> {
    fn service_policy<T: crate::Item>(&self, name: Option<&String>, about: &mut Complaints<'_, T>) {
        let Some(name) = name.filter(|name| !self.policy_maps.contains(name.as_str())) else { return };
        let there = self.config.policy_maps.iter().map(|map| &map.name);
        about.field("service_policy", no_such("policy_map", name, there));
    }

    fn class_map(&self, map: &ClassMapEntry, about: &mut Complaints<'_, ClassMapEntry>) {
        if map.name == CLASS_DEFAULT {
            about.field("name", format!("{CLASS_DEFAULT} is what no class-map matches; give another name"));
        }
        if map.criteria.is_empty() || map.criteria.len() > usize::from(CRITERIA_MAX) {
            let text = format!("give 1 to {CRITERIA_MAX} criteria, as in criteria = [{{ dscp = [\"EF\"] }}]");
            about.field("criteria", text);
        }
        if self.circles.contains(map.name.as_str()) {
            about.field(
                "criteria",
                "it names itself, directly or through another class-map; break the circle",
            );
        }
        self.extent(map, about);
        for (number, criterion) in (1..).zip(&map.criteria) {
            self.criterion(criterion, number, about);
        }
    }

    /// What is wrong with a class-map and those that it names; not again of those that name it.
    fn extent(&self, map: &ClassMapEntry, about: &mut Complaints<'_, ClassMapEntry>) {
        let Some(extent) = self.extents.get(map.name.as_str()) else { return };
        if extent.depth == NESTING_MAX + 1 {
            let text = format!(
                "it is nested {} deep; {NESTING_MAX} at most: name fewer through others",
                extent.depth
            );
            about.field("criteria", text);
        } else if extent.criteria > EXPANDED_CRITERIA_MAX {
            let text = format!(
                "it comes to {} criteria with those of the class-maps that it names; {EXPANDED_CRITERIA_MAX} at most",
                extent.criteria
            );
            about.field("criteria", text);
        }
    }

    /// Adds what a policy-map's classes come to, and says where it becomes too much.
    fn expanded(
        &self,
        map: &PolicyMapEntry,
        criteria: &mut usize,
        about: &mut Complaints<'_, PolicyMapEntry>,
    ) {
        let extents = map.classes.iter().filter_map(|class| self.extents.get(class.class.as_str()));
        let own = extents.map(|extent| extent.criteria).filter(|criteria| *criteria <= EXPANDED_CRITERIA_MAX);
        let before = *criteria;
        *criteria = own.fold(before, usize::saturating_add);
        if before <= EXPANDED_CRITERIA_MAX && *criteria > EXPANDED_CRITERIA_MAX {
            let text = format!(
                "with those of the policy_maps before it, its class-maps come to {criteria} criteria; {EXPANDED_CRITERIA_MAX} at most"
            );
            about.field("classes", text);
        }
    }

    fn criterion(
        &self,
        criterion: &CriterionEntry,
        number: usize,
        about: &mut Complaints<'_, ClassMapEntry>,
    ) {
        let mut say = |text: &str| about.field("criteria", format!("number {number}: {text}"));
        let bare = CriterionEntry { not: criterion.not, ..CriterionEntry::default() };
        if *criterion == bare {
            say("names nothing; say which packets, as in { dscp = [\"EF\"] }");
        }
        for net in [criterion.source, criterion.destination].into_iter().flatten() {
            if net.trunc() != net {
                say(&format!("{net} has bits set behind the prefix length; write {}", net.trunc()));
            }
        }
        if let (Some(source), Some(destination)) = (criterion.source, criterion.destination)
            && source.addr().is_ipv4() != destination.addr().is_ipv4()
        {
            say("source and destination are of two families, so that nothing matches; give two of one");
        }
        let has_ports = criterion.source_ports.is_some() || criterion.destination_ports.is_some();
        let carries = |protocol| matches!(protocol, IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP);
        if has_ports && !criterion.protocol.is_some_and(carries) {
            say("ports need protocol = \"tcp\", \"udp\" or \"sctp\" beside them");
        }
        if criterion.tcp_flags.is_some() && criterion.protocol != Some(IpProtocol::TCP) {
            say("tcp_flags need protocol = \"tcp\" beside them");
        }
        if criterion.precedence.iter().any(|precedence| *precedence > 7) {
            say("a precedence is out of range; give 0 to 7");
        }
        if criterion.vlan_priority.iter().any(|priority| *priority > 7) {
            say("a vlan_priority is out of range; give 0 to 7");
        }
        if let Some(name) = criterion.class_map.as_deref().filter(|name| !self.class_maps.contains_key(name))
        {
            say(&no_such("class_map", name, self.config.class_maps.iter().map(|map| &map.name)));
        }
        if let Some(name) = criterion.tunnel.as_deref().filter(|name| self.config.tunnel(name).is_none()) {
            say(&no_such("tunnel", name, self.config.tunnels.iter().map(|tunnel| &tunnel.name)));
        }
        if let Some(name) = criterion.ingress.as_deref().filter(|name| self.config.port(name).is_none()) {
            say(&no_such("port", name, self.config.ports.iter().map(|port| &port.name)));
        }
    }

    fn policy_map(&self, map: &PolicyMapEntry, about: &mut Complaints<'_, PolicyMapEntry>) {
        let defaults = map.classes.iter().filter(|class| class.class == CLASS_DEFAULT).count();
        let is_last = map.classes.last().is_some_and(|class| class.class == CLASS_DEFAULT);
        if defaults != 1 || !is_last {
            let text =
                format!("the last class, and no other, has to be \"{CLASS_DEFAULT}\": what no other takes");
            about.field("classes", text);
        }
        if map.classes.len() > usize::from(CLASSES_MAX) {
            about.field("classes", format!("there are {}; give {CLASSES_MAX} at most", map.classes.len()));
        }
        let mut seen = HashSet::new();
        for class in &map.classes {
            if !seen.insert(class.class.as_str()) {
                about.field("classes", format!("class {} is there twice; delete one", class.class));
            }
            self.policy_class(class, map.has_queues(), about);
        }
        priorities(map, about);
        shares(map, about);
    }

    fn policy_class(
        &self,
        class: &PolicyClassEntry,
        has_queues: bool,
        about: &mut Complaints<'_, PolicyMapEntry>,
    ) {
        let name = class.class.as_str();
        let mut say = |text: &str| about.field("classes", format!("class {name}: {text}"));
        if name != CLASS_DEFAULT && !self.class_maps.contains_key(name) {
            say(&no_such("class_map", name, self.config.class_maps.iter().map(|map| &map.name)));
        }
        if has_queues && class.priority.is_some() == class.bandwidth.is_some() {
            say("needs exactly one of priority and bandwidth, as in priority = 0 or bandwidth = \"30 %\"");
        }
        if !has_queues && has_queue_options(class) {
            say(
                "has queue_limit, wred, codel, pie or ecn, but in this policy_map nothing waits; give all classes priority or bandwidth, or leave them out",
            );
        }
        if let Some(text) = class.police.as_ref().and_then(PoliceEntry::complaint) {
            say(&text);
        }
        let early =
            [("wred", class.wred.is_some()), ("codel", class.codel.is_some()), ("pie", class.pie.is_some())];
        match early.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect::<Vec<_>>()[..] {
            [] if class.ecn => {
                say("ecn marks where wred, codel or pie would drop; add one of them, or leave ecn out");
            }
            [first, second, ..] => say(&format!("has {first} and {second}; leave one out")),
            _ => {}
        }
        if let Some(wred) = &class.wred
            && let Some(text) = wrong_thresholds(wred)
        {
            say(&text);
        } else if let Some(wred) = &class.wred
            && let Some(text) = beyond_limit(wred, class.queue_limit)
        {
            say(&text);
        }
        if let Some(codel) = &class.codel
            && (codel.target_us == 0 || codel.interval_us <= codel.target_us)
        {
            say("codel: target_us has to be above 0 and below interval_us");
        }
        if let Some(pie) = &class.pie
            && (pie.target_us == 0 || pie.target_us.max(pie.burst_us) > PIE_US_MAX)
        {
            say("pie: target_us has to be above 0, and neither it nor burst_us above 1000000");
        }
    }
}

fn has_queue_options(class: &PolicyClassEntry) -> bool {
    class.wred.is_some() || class.codel.is_some() || class.ecn || class.queue_limit != QUEUE_LIMIT
}

fn wrong_thresholds(wred: &WredEntry) -> Option<String> {
    if wred.by_dscp.len() > PROFILES_MAX {
        return Some(format!("wred: there are {} DSCPs; give {PROFILES_MAX} at most", wred.by_dscp.len()));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = wred.by_dscp.iter().find(|profile| !seen.insert(profile.dscp)) {
        return Some(format!("wred: {} is there twice; delete one", twice.dscp));
    }
    let own = wred.by_dscp.iter().map(|profile| (profile.min, profile.max, profile.one_in));
    let mut all = own.chain([(wred.min, wred.max, wred.one_in)]);
    let wrong = all.find(|(min, max, one_in)| min > max || *one_in == 0)?;
    Some(format!("wred: min {} may not be above max {}, and one_in is 1 at least", wrong.0, wrong.1))
}

/// WRED that never drops: the queue limit is reached first, whatever the DSCP.
fn beyond_limit(wred: &WredEntry, limit: QueueLimit) -> Option<String> {
    let packets = match limit {
        QueueLimit::Packets(packets) => packets,
        QueueLimit::Bytes(bytes) => bytes / PACKET_BYTES_MIN,
        QueueLimit::Microseconds(_) => return None,
    };
    let min = wred.by_dscp.iter().map(|profile| profile.min).fold(wred.min, u16::min);
    (u32::from(min) >= packets).then(|| {
        format!(
            "wred: it begins at {min} packets, but the queue limit lets {packets} wait at most; lower min, or raise queue_limit"
        )
    })
}

fn priorities(map: &PolicyMapEntry, about: &mut Complaints<'_, PolicyMapEntry>) {
    let mut seen = HashMap::new();
    for class in &map.classes {
        if let Some(level) = class.priority
            && let Some(other) = seen.insert(level, &class.class)
        {
            let text = format!(
                "classes {other} and {} both have priority {level}; give one another, 0 to 2, or put both into one class-map",
                class.class
            );
            about.field("classes", text);
        }
    }
}

/// What can be said of shares without knowing what the port has.
fn shares(map: &PolicyMapEntry, about: &mut Complaints<'_, PolicyMapEntry>) {
    let shares = map.classes.iter().filter_map(|class| class.bandwidth);
    let percent: u32 = shares
        .clone()
        .map(|Bandwidth(share)| if let Share::Percent(percent) = share { u32::from(percent) } else { 0 })
        .sum();
    if percent > 100 {
        about.field("classes", format!("the shares are {percent} % together; give 100 % at most"));
    }
    let Some(ProfileEntry { rate: BitRate(rate), .. }) = map.shape else { return };
    let bps = |Bandwidth(share)| match share {
        Share::Percent(percent) => u128::from(rate) * u128::from(percent) / 100,
        Share::Rate(bps) => u128::from(bps),
    };
    if percent <= 100 && shares.map(bps).sum::<u128>() > u128::from(rate) {
        about.field("classes", "the shares are more than the shape; lower them, or raise it");
    }
}
