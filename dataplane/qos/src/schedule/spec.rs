// SPDX-License-Identifier: Apache-2.0
//! What a port's scheduler is to do: policies of classes, the tunnels that use them, the port's own shaper.

use thiserror::Error;

use super::codel::CoDel;
use super::pie::Pie;
use super::wred::Wred;
use crate::bucket::{BURST_BYTES_MAX, Rate, TrafficProfile};

/// Priority levels; 0 is served first, shares after the last of them.
pub const PRIORITY_LEVELS: usize = 3;
/// Classes that a policy can have.
pub const CLASSES_MAX: usize = 16;
/// How many times as much the largest share of a policy may be as the smallest.
pub const SHARE_RATIO_MAX: u64 = 1000;

/// The place of a tunnel in [`PortSpec::tunnels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelSlot(pub u32);

/// The place of a class in its tunnel's [`PolicySpec::classes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassSlot(pub u8);

/// One egress port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The port's shaper; without one, the transmit ring is the only bound.
    pub shape: Option<TrafficProfile>,
    /// The longest packet, in bytes on the wire.
    pub packet_bytes_max: u32,
    /// Items that can be queued in all. An eighth of them is kept for the priority classes.
    pub items_max: u32,
    /// Seed of WRED's random numbers.
    pub seed: u64,
    /// The policies that tunnels name.
    pub policies: Vec<PolicySpec>,
    /// The tunnels. Traffic outside tunnels can have one of its own.
    pub tunnels: Vec<TunnelSpec>,
}

/// One tunnel of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// The tunnel's shaper, if it has one.
    pub shape: Option<TrafficProfile>,
    /// Its part of what the port has left, against the other tunnels; at least 1.
    pub weight: u8,
    /// Its policy's place in [`PortSpec::policies`].
    pub policy: usize,
}

/// A list of classes: what operators call a policy-map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// The classes.
    pub classes: Vec<ClassSpec>,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// How it is served.
    pub service: Service,
    /// What its policer, which stands in front of the scheduler, lets come: a limit in time is reckoned by it.
    pub police: Option<Rate>,
    /// How much may wait.
    pub limit: Limit,
    /// What happens before the limit is reached.
    pub early: EarlyDrop,
    /// Whether WRED, CoDel and PIE mark ECN-capable packets where they would drop others (RFC 3168 §5).
    pub ecn: bool,
    /// Whether delays are recorded, which needs 392 bytes for each tunnel.
    pub delays: bool,
}

/// How a class is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Before all shares and all higher levels, of all tunnels; one class for each level.
    Priority {
        /// 0 to [`PRIORITY_LEVELS`] − 1.
        level: u8,
    },
    /// By deficit round robin, in what the priority levels leave.
    Share(Share),
}

/// A share of a tunnel's rate. What a class does not use goes to the others by their shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Percent of the tunnel's shaper, or of the port's.
    Percent(u8),
    /// A rate.
    Rate(Rate),
}

/// How much of a class may wait: an item that would exceed it is dropped (tail drop).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Packets.
    Packets(u32),
    /// Bytes on the wire.
    Bytes(u32),
    /// As many bytes as the class's share, or its policer's rate, carries in so many nanoseconds.
    Time(u64),
}

/// What happens before the limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EarlyDrop {
    /// Nothing: tail drop only.
    None,
    /// Weighted random early detection by DSCP.
    Wred(Wred),
    /// CoDel.
    CoDel(CoDel),
    /// PIE.
    Pie(Pie),
}

/// A specification that no scheduler can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A number that must not be 0, or is too large.
    #[error("{0}: a value from {1} to {2} is needed")]
    OutOfRange(&'static str, u64, u64),
    /// A tunnel names a policy that is not there.
    #[error("tunnel {tunnel}: there is no policy {policy}")]
    NoSuchPolicy {
        /// The tunnel.
        tunnel: usize,
        /// What it names.
        policy: usize,
    },
    /// A bucket in which the longest packet finds no room would never let it pass.
    #[error("{0}: a burst of {1} bytes is less than the longest packet, {2} bytes")]
    BurstBelowPacket(&'static str, u32, u32),
    /// Two classes of one policy at one priority level.
    #[error("policy {policy}: two classes have priority level {level}")]
    LevelTwice {
        /// The policy.
        policy: usize,
        /// The level.
        level: u8,
    },
    /// Shares that are more than there is.
    #[error("tunnel {tunnel}: the shares of its classes are more than its rate")]
    SharesTooMuch {
        /// The first such tunnel.
        tunnel: usize,
    },
    /// Shares that one round robin cannot serve.
    #[error("tunnel {tunnel}: one share is more than {SHARE_RATIO_MAX} times another")]
    SharesTooDifferent {
        /// The first such tunnel.
        tunnel: usize,
    },
    /// Percent beside bit/s, or a limit in time, where there is neither a shaper nor a policer.
    #[error(
        "tunnel {tunnel}: a percentage or a queue limit in time needs a shaper on the tunnel or the port"
    )]
    RateUnknown {
        /// The first such tunnel.
        tunnel: usize,
    },
}

/// What a class of a given tunnel comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reckoned {
    /// Bytes a round; 0 for a priority class.
    pub(super) quantum: u32,
    pub(super) limit_packets: u32,
    pub(super) limit_bytes: u64,
}

impl PortSpec {
    /// Whether a scheduler can follow it.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.check()?;
        let mut seen = std::collections::BTreeSet::new();
        for (index, tunnel) in self.tunnels.iter().enumerate() {
            if seen.insert((tunnel.policy, tunnel.shape.map(|shape| shape.rate))) {
                self.reckon(index)?;
            }
        }
        Ok(())
    }

    /// Looks at all that does not need a tunnel's rate.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        in_range("packet_bytes_max", u64::from(self.packet_bytes_max), 1, 1 << 16)?;
        in_range("items_max", u64::from(self.items_max), 1, u64::from(u32::MAX) - 1)?;
        in_range("tunnels", self.tunnels.len() as u64, 1, 1 << 24)?;
        self.check_burst("the port's shaper", self.shape)?;
        for (index, policy) in self.policies.iter().enumerate() {
            self.check_policy(index, policy)?;
        }
        for (tunnel, &TunnelSpec { shape, weight, policy }) in self.tunnels.iter().enumerate() {
            in_range("a tunnel's weight", u64::from(weight), 1, u64::from(u8::MAX))?;
            self.check_burst("a tunnel's shaper", shape)?;
            self.policies.get(policy).ok_or(SpecError::NoSuchPolicy { tunnel, policy })?;
        }
        Ok(())
    }

    fn check_policy(&self, index: usize, policy: &PolicySpec) -> Result<(), SpecError> {
        in_range("classes of a policy", policy.classes.len() as u64, 1, CLASSES_MAX as u64)?;
        let mut seen = [false; PRIORITY_LEVELS];
        for class in &policy.classes {
            if let EarlyDrop::Wred(wred) = &class.early {
                in_range("WRED's weight", u64::from(wred.weight), 0, 16)?;
                for profile in wred.profiles.iter().map(|(_, profile)| profile).chain([&wred.default]) {
                    let (min, max) = (u64::from(profile.min_packets), u64::from(profile.max_packets));
                    in_range("WRED's lower threshold", min, 0, max)?;
                    in_range("WRED's one_in", u64::from(profile.one_in), 1, u64::from(u16::MAX))?;
                }
            }
            match class.service {
                Service::Share(Share::Percent(percent)) => in_range("percent", u64::from(percent), 1, 100)?,
                Service::Share(Share::Rate(_)) => {}
                Service::Priority { level } => {
                    in_range("a priority level", u64::from(level), 0, PRIORITY_LEVELS as u64 - 1)?;
                    let twice =
                        seen.get_mut(usize::from(level)).is_none_or(|seen| core::mem::replace(seen, true));
                    if twice {
                        return Err(SpecError::LevelTwice { policy: index, level });
                    }
                }
            }
        }
        Ok(())
    }

    fn check_burst(&self, what: &'static str, profile: Option<TrafficProfile>) -> Result<(), SpecError> {
        let Some(TrafficProfile { burst_bytes, .. }) = profile else { return Ok(()) };
        if burst_bytes < self.packet_bytes_max {
            return Err(SpecError::BurstBelowPacket(what, burst_bytes, self.packet_bytes_max));
        }
        in_range(what, u64::from(burst_bytes), 1, u64::from(BURST_BYTES_MAX))
    }

    /// Quantum and limit of each class of a tunnel, in the order of its policy.
    pub(super) fn reckon(&self, tunnel: usize) -> Result<Vec<Reckoned>, SpecError> {
        let Some(spec) = self.tunnels.get(tunnel) else { return Ok(Vec::new()) };
        let classes = self.policies.get(spec.policy).map_or(&[][..], |policy| &policy.classes);
        let rate = spec.shape.or(self.shape).map(|profile| profile.rate.bps());
        let weights = classes.iter().map(|class| weight(class.service, rate)).collect::<Vec<u128>>();
        let percents = classes.iter().any(|class| matches!(class.service, Service::Share(Share::Percent(_))));
        let rates = classes.iter().any(|class| matches!(class.service, Service::Share(Share::Rate(_))));
        if rate.is_none() && percents && rates {
            return Err(SpecError::RateUnknown { tunnel });
        }
        let whole = rate.map_or(if percents { 100 } else { u128::MAX }, |rate| u128::from(rate) * 100);
        if weights.iter().sum::<u128>() > whole {
            return Err(SpecError::SharesTooMuch { tunnel });
        }
        let least = weights.iter().copied().filter(|weight| *weight > 0).min().unwrap_or(1);
        if weights.iter().any(|weight| *weight > least * u128::from(SHARE_RATIO_MAX)) {
            return Err(SpecError::SharesTooDifferent { tunnel });
        }
        let reckon = |(class, weight): (&ClassSpec, &u128)| {
            let quantum = u128::from(self.packet_bytes_max) * weight / least;
            let quantum = u32::try_from(quantum).unwrap_or(u32::MAX);
            let (limit_packets, limit_bytes) =
                limit(class, rate, *weight).ok_or(SpecError::RateUnknown { tunnel })?;
            Ok(Reckoned { quantum, limit_packets, limit_bytes })
        };
        classes.iter().zip(&weights).map(reckon).collect()
    }
}

/// A share in hundredths of bit/s, or in percent where no rate is known; 0 for a priority class.
fn weight(service: Service, rate: Option<u64>) -> u128 {
    match service {
        Service::Priority { .. } => 0,
        Service::Share(Share::Percent(percent)) => u128::from(percent) * u128::from(rate.unwrap_or(1)),
        Service::Share(Share::Rate(share)) => u128::from(share.bps()) * 100,
    }
}

/// The limit in packets and in bytes; `None` if it is a time and the class's rate is not known.
fn limit(class: &ClassSpec, rate: Option<u64>, weight: u128) -> Option<(u32, u64)> {
    let time_ns = match class.limit {
        Limit::Packets(packets) => return Some((packets, u64::MAX)),
        Limit::Bytes(bytes) => return Some((u32::MAX, u64::from(bytes))),
        Limit::Time(time_ns) => time_ns,
    };
    let bps = match (class.service, class.police) {
        (Service::Priority { .. }, Some(rate)) => u128::from(rate.bps()),
        (Service::Priority { .. }, None) => u128::from(rate?),
        (Service::Share(Share::Rate(share)), _) => u128::from(share.bps()),
        (Service::Share(Share::Percent(_)), _) => rate.map(|_| weight / 100)?,
    };
    Some((u32::MAX, u64::try_from(bps * u128::from(time_ns) / 8_000_000_000).unwrap_or(u64::MAX)))
}

fn in_range(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), SpecError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(SpecError::OutOfRange(what, min, max)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(bps: u64, burst_bytes: u32) -> TrafficProfile {
        TrafficProfile { rate: Rate::from_bps(bps).unwrap(), burst_bytes }
    }

    fn class(service: Service, limit: Limit) -> ClassSpec {
        ClassSpec { service, police: None, limit, early: EarlyDrop::None, ecn: false, delays: false }
    }

    fn share(share: Share) -> ClassSpec {
        class(Service::Share(share), Limit::Packets(10))
    }

    fn bps(bps: u64) -> Share {
        Share::Rate(Rate::from_bps(bps).unwrap())
    }

    fn port(shape: Option<TrafficProfile>, classes: Vec<ClassSpec>) -> PortSpec {
        let tunnels = vec![TunnelSpec { shape, weight: 1, policy: 0 }];
        let policies = vec![PolicySpec { classes }];
        PortSpec { shape: None, packet_bytes_max: 1500, items_max: 10, seed: 1, policies, tunnels }
    }

    #[test]
    fn percent_and_bit_per_second_are_parts_of_the_same_rate() {
        let classes = vec![share(Share::Percent(50)), share(bps(1_000_000)), share(Share::Percent(25))];
        let reckoned = port(Some(profile(10_000_000, 3000)), classes.clone()).reckon(0).unwrap();
        let quanta: Vec<u32> = reckoned.iter().map(|class| class.quantum).collect();
        assert_eq!(quanta, [7500, 1500, 3750]);
        assert_eq!(port(None, classes).reckon(0), Err(SpecError::RateUnknown { tunnel: 0 }));
    }

    #[test]
    fn a_limit_in_time_is_what_the_classs_own_rate_carries() {
        let limit = Limit::Time(10_000_000);
        let priority = |police| ClassSpec { police, ..class(Service::Priority { level: 0 }, limit) };
        let classes =
            vec![priority(Rate::from_bps(800_000)), class(Service::Share(Share::Percent(20)), limit)];
        let reckoned = port(Some(profile(10_000_000, 3000)), classes.clone()).reckon(0).unwrap();
        let bytes: Vec<u64> = reckoned.iter().map(|class| class.limit_bytes).collect();
        assert_eq!(bytes, [1000, 2500]);
        assert_eq!(port(None, classes).reckon(0), Err(SpecError::RateUnknown { tunnel: 0 }));
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let shaped = Some(profile(10_000_000, 3000));
        let level = |level| class(Service::Priority { level }, Limit::Packets(1));
        let checked = |classes| port(shaped, classes).check();
        assert_eq!(checked(vec![level(1), level(1)]), Err(SpecError::LevelTwice { policy: 0, level: 1 }));
        assert_eq!(checked(vec![level(3)]), Err(SpecError::OutOfRange("a priority level", 0, 2)));
        assert_eq!(checked(vec![]), Err(SpecError::OutOfRange("classes of a policy", 1, 16)));
        let short = port(Some(profile(1, 1499)), vec![level(0)]).check();
        assert_eq!(short, Err(SpecError::BurstBelowPacket("a tunnel's shaper", 1499, 1500)));
        let elsewhere = PortSpec { policies: Vec::new(), ..port(shaped, vec![]) };
        assert_eq!(elsewhere.check(), Err(SpecError::NoSuchPolicy { tunnel: 0, policy: 0 }));
        let reckoned = |classes| port(shaped, classes).reckon(0);
        let much = vec![share(Share::Percent(60)), share(bps(5_000_000))];
        assert_eq!(reckoned(much), Err(SpecError::SharesTooMuch { tunnel: 0 }));
        let different = vec![share(Share::Percent(60)), share(bps(1000))];
        assert_eq!(reckoned(different), Err(SpecError::SharesTooDifferent { tunnel: 0 }));
    }
}
