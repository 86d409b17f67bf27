// SPDX-License-Identifier: Apache-2.0
//! Rates and bursts as they are at a port: what is left out of a profile follows from its longest packet.

use messages::{Field, ObjectId, Police, Refusal, SecondBucket};
use qos::bucket::BURST_BYTES_MAX;
use qos::{Rate, TrafficProfile};

use super::link::Link;

/// What a burst that is not given carries on top of two longest packets: of a shaper, and of a policer.
const SHAPER_BURST_NS: u64 = 1_000_000;
const POLICER_BURST_NS: u64 = 20_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// Profiles at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Profiles {
    pub(super) link: Link,
    mtu: u16,
}

impl Profiles {
    pub(super) const fn new(link: Link, mtu: u16) -> Self {
        Self { link, mtu }
    }

    /// The longest packet, in bytes on the wire.
    pub(super) fn packet_bytes_max(&self) -> u32 {
        self.link.wire_bytes(usize::from(self.mtu))
    }

    /// A shaper's profile.
    pub(super) fn shaper(
        &self,
        profile: messages::TrafficProfile,
        id: ObjectId,
    ) -> Result<TrafficProfile, Refusal> {
        self.complete(profile, SHAPER_BURST_NS, id)
    }

    /// A policer with all its bursts.
    pub(super) fn police(&self, police: &Police, id: ObjectId) -> Result<Police, Refusal> {
        let complete = |profile| {
            let TrafficProfile { rate, burst_bytes } = self.complete(profile, POLICER_BURST_NS, id)?;
            Ok(messages::TrafficProfile { rate_bps: rate.bps(), burst_bytes: Some(burst_bytes) })
        };
        let second = match police.second {
            SecondBucket::None => SecondBucket::None,
            SecondBucket::ExcessBurst(bytes) => SecondBucket::ExcessBurst(self.burst(bytes, id)?),
            SecondBucket::Peak(profile) => SecondBucket::Peak(complete(profile)?),
            SecondBucket::ExcessRate(profile) => SecondBucket::ExcessRate(complete(profile)?),
        };
        Ok(Police { committed: complete(police.committed)?, second, ..*police })
    }

    /// A profile of a policer that has all its bursts.
    pub(super) fn complete_already(
        profile: messages::TrafficProfile,
        id: ObjectId,
    ) -> Result<TrafficProfile, Refusal> {
        let burst_bytes = profile.burst_bytes.ok_or(Refusal::OutOfRange(id, Field::Burst))?;
        Ok(TrafficProfile { rate: rate(profile.rate_bps, id)?, burst_bytes })
    }

    fn complete(
        &self,
        profile: messages::TrafficProfile,
        burst_ns: u64,
        id: ObjectId,
    ) -> Result<TrafficProfile, Refusal> {
        let carried = u128::from(profile.rate_bps) * u128::from(burst_ns) / u128::from(8 * NS_PER_S);
        let usual = carried + 2 * u128::from(self.packet_bytes_max());
        let usual = u32::try_from(usual).unwrap_or(u32::MAX).min(BURST_BYTES_MAX);
        let burst_bytes = self.burst(profile.burst_bytes.unwrap_or(usual), id)?;
        Ok(TrafficProfile { rate: rate(profile.rate_bps, id)?, burst_bytes })
    }

    /// A bucket that the longest packet does not fit would never let it pass.
    fn burst(&self, bytes: u32, id: ObjectId) -> Result<u32, Refusal> {
        let range = self.packet_bytes_max()..=BURST_BYTES_MAX;
        if range.contains(&bytes) { Ok(bytes) } else { Err(Refusal::OutOfRange(id, Field::Burst)) }
    }
}

pub(super) fn rate(bps: u64, id: ObjectId) -> Result<Rate, Refusal> {
    Rate::from_bps(bps).ok_or(Refusal::OutOfRange(id, Field::Rate))
}
