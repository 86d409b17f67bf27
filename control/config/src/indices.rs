// SPDX-License-Identifier: Apache-2.0
//! The numbers by which control and dataplane speak of what people name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Config;

/// Who has which number. Kept by control across restarts, so that a running state keeps its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Indices {
    /// Tunnels by name.
    pub tunnels: BTreeMap<String, u32>,
    /// Protections by name.
    pub protections: BTreeMap<String, u32>,
    /// Policies by name.
    pub policies: BTreeMap<String, u32>,
    /// SAs by [name](crate::SaName), as in "outbound 0x00001001".
    pub sas: BTreeMap<String, u32>,
    /// Class-maps by name.
    pub class_maps: BTreeMap<String, u32>,
    /// Policy-maps by name.
    pub policy_maps: BTreeMap<String, u32>,
    /// Maps of DSCPs by name.
    pub dscp_maps: BTreeMap<String, u32>,
}

impl Indices {
    /// The numbers for `config`: names that stay keep theirs, new names get the lowest that are free, and names that
    /// are gone lose theirs.
    #[must_use]
    pub fn allocate(&self, config: &Config) -> Indices {
        Indices {
            tunnels: hand_out(&self.tunnels, config.tunnels.iter().map(|tunnel| tunnel.name.clone())),
            protections: hand_out(
                &self.protections,
                config.protections.iter().map(|entry| entry.name.clone()),
            ),
            policies: hand_out(&self.policies, config.policies.iter().map(|policy| policy.name.clone())),
            sas: hand_out(&self.sas, config.sas.iter().map(|sa| sa.name().to_string())),
            class_maps: hand_out(&self.class_maps, config.class_maps.iter().map(|map| map.name.clone())),
            policy_maps: hand_out(&self.policy_maps, config.policy_maps.iter().map(|map| map.name.clone())),
            dscp_maps: hand_out(&self.dscp_maps, config.dscp_maps.iter().map(|map| map.name.clone())),
        }
    }
}

fn hand_out(before: &BTreeMap<String, u32>, names: impl Iterator<Item = String>) -> BTreeMap<String, u32> {
    let (mut taken, mut numbers, mut new) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
    for name in names {
        match before.get(&name) {
            // A file that was tampered with may have a number twice.
            Some(number) if numbers.contains_key(&name) || taken.insert(*number) => {
                numbers.insert(name, *number);
            }
            _ => new.push(name),
        }
    }
    let mut free = (0..=u32::MAX).filter(|number| !taken.contains(number));
    for name in new {
        if !numbers.contains_key(&name)
            && let Some(number) = free.next()
        {
            numbers.insert(name, number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: &[(&str, u32)]) -> BTreeMap<String, u32> {
        list.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    fn after(before: &[(&str, u32)], names: &[&str]) -> BTreeMap<String, u32> {
        hand_out(&numbers(before), names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn names_that_stay_keep_their_numbers_and_new_ones_get_the_lowest_free() {
        let before = [("a", 0), ("b", 1), ("c", 2), ("e", 9)];
        assert_eq!(
            after(&before, &["x", "c", "y", "e", "z"]),
            numbers(&[("c", 2), ("e", 9), ("x", 0), ("y", 1), ("z", 3)])
        );
        assert_eq!(after(&[], &["b", "a"]), numbers(&[("b", 0), ("a", 1)]), "in the order of the file");
        assert_eq!(after(&before, &[]), numbers(&[]));
    }

    #[test]
    fn a_name_or_a_number_that_is_there_twice_is_handed_out_once() {
        assert_eq!(after(&[("a", 3)], &["a", "a", "b", "b"]), numbers(&[("a", 3), ("b", 0)]));
        assert_eq!(after(&[("a", 3), ("b", 3)], &["a", "b"]), numbers(&[("a", 3), ("b", 0)]));
    }
}
