// SPDX-License-Identifier: Apache-2.0
//! Class groups: which packets of a protection go under which of its outbound SAs (RFC 4301 §4.1).
//!
//! A network that treats DSCPs differently reorders by them; packets of one SA that are late by more than the peer's
//! anti-replay window are lost there. Packets that keep their order share an SA, others do not.

use serde::{Deserialize, Serialize};

use crate::DscpSet;

/// Class groups that a protection has at most beside group 0.
pub const CLASS_GROUPS_MAX: usize = 7;

/// The DSCPs of groups 1, 2, … in order, as the outermost header has them. Group 0 takes all others; a group without DSCPs
/// does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassGroups(pub [DscpSet; CLASS_GROUPS_MAX]);

impl ClassGroups {
    /// The group of packets that leave with `dscp`, 0–63.
    #[must_use]
    pub fn of(&self, dscp: u8) -> u8 {
        let holds = |set: &DscpSet| set.0.checked_shr(dscp.into()).unwrap_or(0) & 1 != 0;
        (1..).zip(&self.0).find(|(_, set)| holds(set)).map_or(0, |(group, _)| group)
    }

    /// Whether there is such a group. Group 0 there is always.
    #[must_use]
    pub fn has(&self, group: u8) -> bool {
        (0..).zip([DscpSet(u64::MAX)].iter().chain(&self.0)).any(|(other, set)| other == group && set.0 != 0)
    }

    /// Whether group 0 is the only one.
    #[must_use]
    pub fn is_one(&self) -> bool {
        *self == Self::default()
    }

    /// Whether no DSCP is in two groups.
    #[must_use]
    pub fn is_disjoint(&self) -> bool {
        let all = self.0.iter().fold(0, |all, set| all | set.0);
        self.0.iter().map(|set| set.0.count_ones()).sum::<u32>() == all.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(sets: &[u64]) -> ClassGroups {
        let mut groups = ClassGroups::default();
        groups.0.iter_mut().zip(sets).for_each(|(place, set)| *place = DscpSet(*set));
        groups
    }

    #[test]
    fn a_dscp_is_in_the_group_that_names_it_or_in_group_0() {
        let groups = groups(&[1 << 46 | 1 << 40, 0, 1]);
        let found: Vec<u8> = [46, 40, 0, 1, 63, 64, 255].map(|dscp| groups.of(dscp)).to_vec();
        assert_eq!(found, [1, 1, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn a_group_without_dscps_does_not_exist_but_group_0_always_does() {
        let groups = groups(&[1, 0, 1 << 63]);
        let there: Vec<u8> = (0..=u8::MAX).filter(|group| groups.has(*group)).collect();
        assert_eq!(there, [0, 1, 3]);
        assert!(!groups.is_one() && ClassGroups::default().is_one());
        assert!(ClassGroups::default().has(0) && !ClassGroups::default().has(1));
    }

    #[test]
    fn a_dscp_belongs_to_one_group() {
        assert!(groups(&[1, 2, 4]).is_disjoint());
        assert!(!groups(&[1, 2, 5]).is_disjoint());
        assert!(ClassGroups::default().is_disjoint());
    }
}
