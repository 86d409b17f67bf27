// SPDX-License-Identifier: Apache-2.0
//! What can be said of an object without looking at any other: ranges of single fields.

use core::net::IpAddr;

use messages::{
    Address, CLASS_GROUPS_MAX, CLASSES_MAX, CRITERIA_MAX, Criterion, Direction, DscpMap, EarlyDrop, Field,
    IpPrefix, LifetimeLimits, MssClamp, Object, ObjectId, PIE_US_MAX, PROFILES_MAX, Police, PoliceAction,
    Policy, PolicyClass, PortRange, PortSettings, Protection, QueueLimit, ReceivedDscp, Refusal, Route,
    RouteTarget, Sa, SecondBucket, Service, Share, StaticNeighbor, TosPolicy, Tunnel,
};
use qos::schedule::PRIORITY_LEVELS;
use wire::address::{is_host, is_ipv4_mapped};
use wire::{Dscp, IpProtocol, Spi, ipv4};

use crate::Limits;
use crate::addresses::{address_bits, broadcasts, family_bits, host_mask};

/// Port MTUs: what every IPv4 host takes (RFC 791 §3.1), up to jumbo frames.
const PORT_MTU: core::ops::RangeInclusive<u16> = 576..=9216;
/// 1 Tbit/s.
const RATE_MAX_BPS: u64 = 1_000_000_000_000;
/// What `greyhound.toml` documents for a fixed MSS.
const MSS: core::ops::RangeInclusive<u16> = 216..=9176;

/// Checks one object.
pub(crate) fn object(object: &Object, limits: &Limits) -> Result<(), Refusal> {
    let check = Check { id: object.id() };
    match object {
        Object::Port(x) => check.port(x, limits),
        Object::Address(x) => check.address(x),
        Object::Neighbor(x) => check.neighbor(x),
        Object::Route(x) => check.route(x),
        Object::Tunnel(x) => check.tunnel(x, limits),
        Object::Protection(x) => check.protection(x, limits),
        Object::Policy(x) => check.policy(x),
        Object::Sa(x) => check.sa(x, limits),
        Object::ClassMap(_) | Object::ServicePolicy(_) => Ok(()),
        Object::Criterion(x) => check.criterion(x),
        Object::PolicyMap(x) => x.shape.iter().try_for_each(|profile| check.rate(profile.rate_bps)),
        Object::PolicyClass(x) => check.policy_class(x),
        Object::DscpMap(x) => check.dscp_map(x),
    }
}

struct Check {
    id: ObjectId,
}

impl Check {
    fn that(&self, holds: bool, field: Field) -> Result<(), Refusal> {
        if holds { Ok(()) } else { Err(Refusal::OutOfRange(self.id, field)) }
    }

    fn within(&self, index: u32, limit: u32) -> Result<(), Refusal> {
        if index < limit { Ok(()) } else { Err(Refusal::BeyondLimit(self.id, limit)) }
    }

    fn port(&self, settings: &PortSettings, limits: &Limits) -> Result<(), Refusal> {
        let count = u32::try_from(limits.ports.len()).unwrap_or(u32::MAX);
        self.within(settings.port.0.into(), count)?;
        let mtu_max = limits.ports.get(settings.port.index()).map_or(0, |port| port.mtu_max);
        self.that(PORT_MTU.contains(&settings.mtu) && settings.mtu <= mtu_max, Field::Mtu)
    }

    fn address(&self, own: &Address) -> Result<(), Refusal> {
        self.host(&own.address)?;
        self.that((1..=family_bits(&own.address)).contains(&own.length), Field::Prefix)?;
        let is_broadcast =
            broadcasts(&own.address, own.length).any(|address| IpAddr::V4(address) == own.address);
        self.that(own.port.is_none() || !is_broadcast, Field::Address)
    }

    fn neighbor(&self, neighbor: &StaticNeighbor) -> Result<(), Refusal> {
        self.host(&neighbor.address)?;
        let is_group = neighbor.mac[0] & 1 != 0;
        self.that(!is_group && neighbor.mac != [0; 6], Field::Mac)
    }

    fn route(&self, route: &Route) -> Result<(), Refusal> {
        self.prefix(&route.prefix)?;
        let is_link_local = matches!(route.prefix.address, IpAddr::V6(a) if a.is_unicast_link_local());
        self.that(!is_link_local, Field::Prefix)?;
        match route.target {
            RouteTarget::Port { next_hop: Some(next_hop), .. } => {
                self.host(&next_hop)?;
                self.that(next_hop.is_ipv4() == route.prefix.address.is_ipv4(), Field::Address)
            }
            RouteTarget::Port { next_hop: None, .. } | RouteTarget::Tunnel(_) | RouteTarget::Discard => {
                Ok(())
            }
        }
    }

    fn tunnel(&self, tunnel: &Tunnel, limits: &Limits) -> Result<(), Refusal> {
        self.within(tunnel.tunnel.0, limits.tunnels_max)?;
        self.ends(&tunnel.source, &tunnel.destination)?;
        self.header(tunnel.tos, tunnel.ttl)?;
        let is_dscp = !matches!(tunnel.marks.receipt, ReceivedDscp::Set(dscp) if Dscp::new(dscp).is_none());
        self.that(is_dscp, Field::Dscp)?;
        self.that(tunnel.mtu.is_none_or(|mtu| mtu >= ipv4::MIN_MTU), Field::Mtu)?;
        self.that(!matches!(tunnel.mss, MssClamp::Fixed(mss) if !MSS.contains(&mss)), Field::Mss)
    }

    fn protection(&self, protection: &Protection, limits: &Limits) -> Result<(), Refusal> {
        self.within(protection.protection.0, limits.protections_max())?;
        self.ends(&protection.local, &protection.remote)?;
        self.header(protection.tos, protection.ttl)?;
        self.that(protection.class_groups.is_disjoint(), Field::ClassGroup)
    }

    fn policy(&self, policy: &Policy) -> Result<(), Refusal> {
        let selector = &policy.selector;
        selector.local.iter().chain(&selector.remote).try_for_each(|prefix| self.prefix(prefix))?;
        if let (Some(local), Some(remote)) = (selector.local, selector.remote) {
            self.that(local.address.is_ipv4() == remote.address.is_ipv4(), Field::Address)?;
        }
        let carries_ports = selector.protocol.is_none_or(|protocol| {
            matches!(IpProtocol(protocol), IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP)
        });
        let in_order = |range: &PortRange| range.first <= range.last;
        let mut ranges = selector.local_ports.iter().chain(&selector.remote_ports);
        self.that(ranges.all(|range| carries_ports && in_order(range)), Field::PortRange)
    }

    fn sa(&self, sa: &Sa, limits: &Limits) -> Result<(), Refusal> {
        self.within(sa.sa.0, limits.sas_max)?;
        self.that(!Spi(sa.spi).is_reserved(), Field::Spi)?;
        self.that(matches!(sa.key.icv_bytes, 8 | 12 | 16), Field::IcvBytes)?;
        let window = sa.replay_window;
        let is_window = window == 0 || window.is_power_of_two() && (64..=8192).contains(&window);
        // RFC 4303 App. A2: the high half of an ESN is inferred from the window.
        let infers = sa.direction == Direction::Outbound || window > 0 || !sa.esn;
        self.that(is_window && infers, Field::ReplayWindow)?;
        let prefix = sa.iv_prefix;
        let fits = prefix.bits <= 32 && u64::from(prefix.value) < 1 << prefix.bits;
        self.that(fits, Field::IvPrefix)?;
        let is_carried = sa.direction == Direction::Outbound || sa.class_group == 0;
        self.that(is_carried && usize::from(sa.class_group) <= CLASS_GROUPS_MAX, Field::ClassGroup)?;
        self.that(sa.owner.is_none_or(|owner| owner.0 < limits.workers), Field::Owner)?;
        self.that(is_ordered(&sa.lifetime), Field::Lifetime)
    }

    fn criterion(&self, criterion: &Criterion) -> Result<(), Refusal> {
        self.that(criterion.place < CRITERIA_MAX, Field::Criterion)?;
        criterion.source.iter().chain(&criterion.destination).try_for_each(|prefix| self.prefix(prefix))?;
        if let (Some(source), Some(destination)) = (criterion.source, criterion.destination) {
            self.that(source.address.is_ipv4() == destination.address.is_ipv4(), Field::Address)?;
        }
        let mut ranges = criterion.source_ports.iter().chain(&criterion.destination_ports);
        self.that(ranges.all(|range| range.first <= range.last), Field::PortRange)?;
        self.that(criterion.dscps.is_none_or(|dscps| dscps.0 != 0), Field::Dscp)?;
        self.that(criterion.vlan_priorities != Some(0), Field::VlanPriority)?;
        self.that(criterion.tcp_flags.is_none_or(|flags| flags.value & !flags.mask == 0), Field::Criterion)
    }

    fn policy_class(&self, class: &PolicyClass) -> Result<(), Refusal> {
        self.that(class.place < CLASSES_MAX, Field::Classes)?;
        self.that(class.set_dscp.is_none_or(|dscp| Dscp::new(dscp).is_some()), Field::Dscp)?;
        self.that(class.set_vlan_priority.is_none_or(|priority| priority < 8), Field::VlanPriority)?;
        class.police.iter().try_for_each(|police| self.police(police))?;
        match class.service {
            Service::Priority { level } => {
                self.that(usize::from(level) < PRIORITY_LEVELS, Field::PriorityLevel)
            }
            Service::Bandwidth(Share::Percent(percent)) => {
                self.that((1..=100).contains(&percent), Field::Share)
            }
            Service::Bandwidth(Share::Rate(bps)) => self.rate(bps),
            Service::Unqueued => {
                let has_no_queue = class.early == EarlyDrop::None && !class.ecn;
                self.that(has_no_queue, Field::Service)
            }
        }?;
        let is_limit = match class.limit {
            QueueLimit::Packets(limit) | QueueLimit::Bytes(limit) | QueueLimit::Microseconds(limit) => {
                limit > 0
            }
        };
        self.that(is_limit, Field::QueueLimit)?;
        self.that(is_early_drop(&class.early), Field::EarlyDrop)
    }

    fn dscp_map(&self, map: &DscpMap) -> Result<(), Refusal> {
        let is_dscp = |dscp: u8| Dscp::new(dscp).is_some();
        let are_dscps = map.changes.iter().all(|(from, to)| is_dscp(*from) && is_dscp(*to));
        self.that(are_dscps && map.changes.len() <= 64, Field::Dscp)
    }

    fn police(&self, police: &Police) -> Result<(), Refusal> {
        let second = match police.second {
            SecondBucket::None | SecondBucket::ExcessBurst(_) => None,
            SecondBucket::Peak(profile) | SecondBucket::ExcessRate(profile) => Some(profile.rate_bps),
        };
        [Some(police.committed.rate_bps), second].into_iter().flatten().try_for_each(|bps| self.rate(bps))?;
        // RFC 2698 §3: PIR is CIR at least.
        let is_peak =
            !matches!(police.second, SecondBucket::Peak(peak) if peak.rate_bps < police.committed.rate_bps);
        self.that(is_peak, Field::PeakRate)?;
        let is_action = |action| !matches!(action, PoliceAction::SetDscp(dscp) if Dscp::new(dscp).is_none());
        let are_actions = [police.conform, police.exceed, police.violate].into_iter().all(is_action);
        self.that(are_actions, Field::Dscp)?;
        let is_one_colour = police.aware.is_none_or(|aware| aware.yellow.0 & aware.red.0 == 0);
        self.that(is_one_colour, Field::Colour)
    }

    fn rate(&self, bps: u64) -> Result<(), Refusal> {
        self.that((1..=RATE_MAX_BPS).contains(&bps), Field::Rate)
    }

    fn host(&self, address: &IpAddr) -> Result<(), Refusal> {
        self.that(is_host(*address), Field::Address)
    }

    /// Two different hosts of one family.
    fn ends(&self, ours: &IpAddr, theirs: &IpAddr) -> Result<(), Refusal> {
        self.host(ours)?;
        self.host(theirs)?;
        self.that(ours.is_ipv4() == theirs.is_ipv4() && ours != theirs, Field::Address)
    }

    fn header(&self, tos: TosPolicy, ttl: u8) -> Result<(), Refusal> {
        self.that(!matches!(tos, TosPolicy::Dscp(dscp) if Dscp::new(dscp).is_none()), Field::Dscp)?;
        self.that(ttl >= 1, Field::Ttl)
    }

    fn prefix(&self, prefix: &IpPrefix) -> Result<(), Refusal> {
        let is_mapped = matches!(prefix.address, IpAddr::V6(address) if is_ipv4_mapped(&address));
        let fits = prefix.length <= family_bits(&prefix.address) && !is_mapped;
        let host_bits = address_bits(&prefix.address) & host_mask(&prefix.address, prefix.length);
        self.that(fits && host_bits == 0, Field::Prefix)
    }
}

fn is_early_drop(early: &EarlyDrop) -> bool {
    match early {
        EarlyDrop::None => true,
        EarlyDrop::CoDel { target_us, interval_us } => *target_us > 0 && interval_us > target_us,
        EarlyDrop::Pie { target_us, burst_us } => *target_us > 0 && *target_us.max(burst_us) <= PIE_US_MAX,
        EarlyDrop::Wred(wred) => {
            let mut profiles = wred.profiles.iter().map(|(_, profile)| profile).chain([&wred.default]);
            wred.weight <= 16
                && wred.profiles.len() <= PROFILES_MAX
                && wred.profiles.iter().all(|(dscp, _)| Dscp::new(*dscp).is_some())
                && profiles.all(|profile| profile.min_packets <= profile.max_packets && profile.one_in > 0)
        }
    }
}

/// Soft limits come no later than hard ones; zero is no limit.
fn is_ordered(lifetime: &LifetimeLimits) -> bool {
    let ordered = |soft: u64, hard: u64| soft == 0 || hard == 0 || soft <= hard;
    ordered(lifetime.soft_bytes, lifetime.hard_bytes)
        && ordered(lifetime.soft_packets, lifetime.hard_packets)
        && ordered(lifetime.soft_seconds.into(), lifetime.hard_seconds.into())
}
