// SPDX-License-Identifier: Apache-2.0
//! One SA: what it is made from, and how it stands.

use std::sync::Arc;

use aead::{Engine, IcvLength, Key};
use esp::{
    Bounds, InboundParameters, InboundSa, IvPrefix, Lifetime, LifetimeState, OutboundParameters, OutboundSa,
    Salt, SequenceNumber, Spi,
};
use messages::{Field, InboundState, ObjectId, OutboundState, Refusal, Sa, SaState, WorkerId};
use pipeline::InboundEntry;
use tables::SaConfig;

use super::RESERVE;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A key, expanded, before its SA is made.
pub(super) struct Schedule {
    key: Key,
    salt: Salt,
}

impl Schedule {
    pub(super) fn of(engine: Engine, sa: &Sa) -> Result<Self, Refusal> {
        let id = ObjectId::Sa(sa.sa);
        let icv = IcvLength::try_from(usize::from(sa.key.icv_bytes))
            .map_err(|_| Refusal::OutOfRange(id, Field::IcvBytes))?;
        let key = engine.key(sa.key.secret.key(), icv).map_err(|_| Refusal::KeyRefused(id))?;
        Ok(Self { key, salt: Salt::new(*sa.key.secret.salt()) })
    }
}

/// An SA and what it was made from.
#[derive(Clone)]
pub(super) struct Installed {
    pub(super) config: SaConfig,
    pub(super) since_ns: u64,
    pub(super) sa: AnySa,
}

#[derive(Clone)]
pub(super) enum AnySa {
    Inbound(InboundEntry),
    Outbound(Arc<OutboundSa>),
}

impl Installed {
    /// A new outbound SA that goes on at `first`, for so many workers; it has no numbers until its limit is raised.
    pub(super) fn new_outbound(
        config: &SaConfig,
        schedule: Schedule,
        first: SequenceNumber,
        workers: u16,
        now_ns: u64,
    ) -> Result<Self, Refusal> {
        let id = ObjectId::Sa(config.sa);
        let iv_prefix = IvPrefix::new(config.iv_prefix.bits, config.iv_prefix.value)
            .map_err(|_| Refusal::OutOfRange(id, Field::IvPrefix))?;
        let sa = OutboundSa::new(OutboundParameters {
            spi: Spi(config.spi),
            key: schedule.key,
            salt: schedule.salt,
            esn: config.esn,
            iv_prefix,
            lifetime: lifetime(config, now_ns),
        });
        let sa = if workers == 1 { sa.with_one_sender() } else { sa };
        sa.sequence().resume_at(first);
        Ok(Self { config: *config, since_ns: now_ns, sa: AnySa::Outbound(Arc::new(sa)) })
    }

    /// A new inbound SA whose window begins behind `edge`.
    pub(super) fn new_inbound(
        config: &SaConfig,
        schedule: Schedule,
        edge: SequenceNumber,
        owner: WorkerId,
        now_ns: u64,
    ) -> Result<Self, Refusal> {
        let sa = InboundSa::new(InboundParameters {
            spi: Spi(config.spi),
            key: schedule.key,
            salt: schedule.salt,
            esn: config.esn,
            window: (config.replay_window > 0).then_some(u32::from(config.replay_window)),
            lifetime: lifetime(config, now_ns),
        })
        .map_err(|_| Refusal::OutOfRange(ObjectId::Sa(config.sa), Field::ReplayWindow))?;
        if let Some(window) = sa.window() {
            window.resume(edge);
        }
        let entry = InboundEntry { sa: Arc::new(sa), owner };
        Ok(Self { config: *config, since_ns: now_ns, sa: AnySa::Inbound(entry) })
    }

    pub(super) fn outbound(&self) -> Option<(&SaConfig, &Arc<OutboundSa>)> {
        match &self.sa {
            AnySa::Outbound(sa) => Some((&self.config, sa)),
            AnySa::Inbound(_) => None,
        }
    }

    pub(super) fn inbound(&self) -> Option<(&SaConfig, &Arc<InboundSa>)> {
        match &self.sa {
            AnySa::Inbound(entry) => Some((&self.config, &entry.sa)),
            AnySa::Outbound(_) => None,
        }
    }

    /// Whether `wanted` is this SA, wherever it is put and whatever it carries.
    pub(super) fn goes_on_as(&self, wanted: &SaConfig) -> bool {
        let placed_alike = SaConfig {
            sa: wanted.sa,
            protection: wanted.protection,
            class_group: wanted.class_group,
            ..self.config
        };
        placed_alike == *wanted
    }

    pub(super) fn lifetime_state(&self, now_ns: u64) -> LifetimeState {
        match &self.sa {
            AnySa::Inbound(entry) => entry.sa.lifetime_state(now_ns),
            AnySa::Outbound(sa) => sa.lifetime_state(now_ns),
        }
    }

    /// What control is told of it.
    pub(super) fn state(&self, now_ns: u64) -> SaState {
        let config = &self.config;
        let (usage, outbound, inbound) = match &self.sa {
            AnySa::Outbound(sa) => {
                let sequence = sa.sequence();
                let state = OutboundState { next_sequence: sequence.position().0, limit: sequence.limit().0 };
                (sa.usage(), Some(state), None)
            }
            AnySa::Inbound(entry) => {
                let right_edge = entry.sa.window().map_or(0, |window| window.right_edge().0);
                (entry.sa.usage(), None, Some(InboundState { right_edge, owner: entry.owner }))
            }
        };
        SaState {
            sa: config.sa,
            protection: config.protection,
            direction: config.direction,
            spi: config.spi,
            fingerprint: config.fingerprint,
            packets: usage.packets,
            bytes: usage.bytes,
            age_ns: now_ns.saturating_sub(self.since_ns),
            outbound,
            inbound,
        }
    }
}

/// The limit that gives an SA a chunk ahead of its position.
pub(super) fn target(sa: &OutboundSa) -> SequenceNumber {
    let past_end = sa.sequence().last().0.saturating_add(1);
    SequenceNumber(sa.sequence().position().0.saturating_add(RESERVE).min(past_end))
}

fn lifetime(config: &SaConfig, now_ns: u64) -> Lifetime {
    let limit = |value: u64| if value == 0 { u64::MAX } else { value };
    let deadline = |seconds: u32| match seconds {
        0 => u64::MAX,
        _ => now_ns.saturating_add(u64::from(seconds) * NS_PER_SECOND),
    };
    let limits = &config.lifetime;
    Lifetime {
        soft: Bounds {
            bytes: limit(limits.soft_bytes),
            packets: limit(limits.soft_packets),
            deadline_ns: deadline(limits.soft_seconds),
        },
        hard: Bounds {
            bytes: limit(limits.hard_bytes),
            packets: limit(limits.hard_packets),
            deadline_ns: deadline(limits.hard_seconds),
        },
    }
}
