// SPDX-License-Identifier: Apache-2.0
//! The SAD as configured: which SAs there are, and which one an SPI means (RFC 4301 §4.1, §4.4.2).
//!
//! Keys never come here, only their fingerprints; sequence numbers and windows are in `esp`.

use messages::{
    Direction, Fingerprint, IvPrefix, LifetimeLimits, ObjectId, ProtectionIndex, Refusal, Sa, SaIndex,
    WorkerId,
};

use crate::chunked::Chunked;
use crate::paged::PagedMap;

/// An SA without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaConfig {
    /// Which SA.
    pub sa: SaIndex,
    /// The protection it belongs to.
    pub protection: ProtectionIndex,
    /// Inbound or outbound.
    pub direction: Direction,
    /// The SPI.
    pub spi: u32,
    /// Fingerprint of key ‖ salt.
    pub fingerprint: Fingerprint,
    /// Length of the AES key in bytes.
    pub key_bytes: u8,
    /// Length of the ICV in bytes.
    pub icv_bytes: u8,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Inbound: anti-replay window in packets; 0 switches the check off.
    pub replay_window: u16,
    /// Outbound: the class group it carries.
    pub class_group: u8,
    /// Inbound: the worker that owns the window, if one was named.
    pub owner: Option<WorkerId>,
    /// Outbound: high bits of each IV.
    pub iv_prefix: IvPrefix,
    /// Lifetimes.
    pub lifetime: LifetimeLimits,
}

impl From<&Sa> for SaConfig {
    fn from(sa: &Sa) -> Self {
        Self {
            sa: sa.sa,
            protection: sa.protection,
            direction: sa.direction,
            spi: sa.spi,
            fingerprint: sa.key.secret.fingerprint(),
            key_bytes: u8::try_from(sa.key.secret.key().len()).unwrap_or(u8::MAX),
            icv_bytes: sa.key.icv_bytes,
            esn: sa.esn,
            replay_window: sa.replay_window,
            class_group: sa.class_group,
            owner: sa.owner,
            iv_prefix: sa.iv_prefix,
            lifetime: sa.lifetime,
        }
    }
}

/// The SAs.
#[derive(Clone, Default)]
pub struct Sas {
    configs: Chunked<SaConfig>,
    inbound: PagedMap<u32, (SaIndex, ProtectionIndex)>,
    fingerprints: PagedMap<[u64; 4], SaIndex>,
    /// Those of class group 0.
    outbound: Chunked<SaIndex>,
    /// Those of other class groups, by protection and group.
    grouped: PagedMap<[u64; 1], SaIndex>,
}

impl Sas {
    /// The inbound SA that an SPI means, and its protection. The caller compares the outer addresses with the
    /// protection's endpoints (RFC 4301 §4.1).
    #[inline]
    #[must_use]
    pub fn inbound(&self, spi: u32) -> Option<(SaIndex, ProtectionIndex)> {
        self.inbound.get(&spi).copied()
    }

    /// Asks the CPU for what [`inbound`](Self::inbound) reads first.
    #[inline]
    pub fn prefetch_inbound(&self, spi: u32) {
        self.inbound.prefetch(&spi);
    }

    /// An SA.
    #[inline]
    #[must_use]
    pub fn get(&self, sa: SaIndex) -> Option<&SaConfig> {
        self.configs.get(sa.index())
    }

    /// All SAs by index.
    pub fn iter(&self) -> impl Iterator<Item = &SaConfig> {
        self.configs.iter().map(|(_, sa)| sa)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.configs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The outbound SA of a protection's class group.
    pub(crate) fn outbound(&self, protection: ProtectionIndex, group: u8) -> Option<&SaConfig> {
        self.get(match group {
            0 => *self.outbound.get(protection.index())?,
            _ => *self.grouped.get(&group_key(protection, group))?,
        })
    }

    /// Takes over the wanted SAs and returns the protections whose outbound SA is another one or changed.
    ///
    /// What was changed leaves the indices before anything new enters: SPI or key may pass from one SA to another.
    pub(crate) fn update(&mut self, wanted: &Chunked<SaConfig>) -> Result<Vec<ProtectionIndex>, Refusal> {
        let changed = self.configs.differences(wanted);
        let before = std::mem::replace(&mut self.configs, wanted.clone());
        let mut touched = Vec::new();
        for old in changed.iter().filter_map(|index| before.get(*index)) {
            self.leave(old, &mut touched);
        }
        for new in changed.iter().filter_map(|index| wanted.get(*index)) {
            self.enter(new, &mut touched)?;
        }
        Ok(touched)
    }

    fn leave(&mut self, sa: &SaConfig, touched: &mut Vec<ProtectionIndex>) {
        self.fingerprints.remove(&fingerprint_words(&sa.fingerprint));
        match sa.direction {
            Direction::Inbound => {
                self.inbound.remove(&sa.spi);
            }
            Direction::Outbound => {
                match sa.class_group {
                    0 => drop(self.outbound.set(sa.protection.index(), None)),
                    group => drop(self.grouped.remove(&group_key(sa.protection, group))),
                }
                touched.push(sa.protection);
            }
        }
    }

    fn enter(&mut self, sa: &SaConfig, touched: &mut Vec<ProtectionIndex>) -> Result<(), Refusal> {
        let id = ObjectId::Sa(sa.sa);
        let conflict = |other| Refusal::Conflict(id, ObjectId::Sa(other));
        self.fingerprints
            .insert(fingerprint_words(&sa.fingerprint), sa.sa)
            .map_err(|other| Refusal::KeyReused(id, ObjectId::Sa(other)))?;
        match sa.direction {
            Direction::Inbound => {
                self.inbound.insert(sa.spi, (sa.sa, sa.protection)).map_err(|(other, _)| conflict(other))
            }
            Direction::Outbound => {
                touched.push(sa.protection);
                let before = match sa.class_group {
                    0 => self.outbound.set(sa.protection.index(), Some(sa.sa)),
                    group => self.grouped.insert(group_key(sa.protection, group), sa.sa).err(),
                };
                before.map_or(Ok(()), |other| Err(conflict(other)))
            }
        }
    }
}

impl core::fmt::Debug for Sas {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn group_key(protection: ProtectionIndex, group: u8) -> [u64; 1] {
    [u64::from(protection.0) << 8 | u64::from(group)]
}

fn fingerprint_words(fingerprint: &Fingerprint) -> [u64; 4] {
    let (words, _) = fingerprint.0.as_chunks::<8>();
    core::array::from_fn(|place| words.get(place).map_or(0, |word| u64::from_le_bytes(*word)))
}
