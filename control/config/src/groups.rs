// SPDX-License-Identifier: Apache-2.0
//! Class groups of a protection: an outbound SA for each, where the network behind reorders by DSCP (RFC 4301 §4.1).
//!
//! Groups have names in the file and numbers in messages: their places in the list, from 1 on. Group 0 has no entry and takes
//! what no other does.

use std::collections::HashSet;

use messages::{CLASS_GROUPS_MAX, ClassGroups, Direction};
use serde::{Deserialize, Serialize};
use wire::Dscp;

use crate::problem::Complaints;
use crate::{Config, ProtectionEntry, SaEntry, scalar};

const NAME_MAX: usize = 64;
/// How many DSCPs there are.
const DSCPS: usize = 64;
/// What people call group 0.
pub const GROUP_DEFAULT: &str = "default";

/// A class group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { name = \"voice\", dscp = [\"EF\"] }")]
pub struct GroupEntry {
    /// Its name, by which SAs refer to it.
    pub name: String,
    /// The DSCPs of its packets, in the outermost header as it leaves.
    #[serde(with = "scalar::list")]
    pub dscp: Vec<Dscp>,
}

/// What a protection's groups are in messages.
pub(crate) fn class_groups(protection: &ProtectionEntry) -> ClassGroups {
    let mut groups = ClassGroups::default();
    for (set, group) in groups.0.iter_mut().zip(&protection.groups) {
        set.0 = group.dscp.iter().fold(0, |set, dscp| set | 1 << dscp.get());
    }
    groups
}

/// The number of a group; `None` if there is none of this name.
pub(crate) fn number(protection: &ProtectionEntry, name: Option<&str>) -> Option<u8> {
    let Some(name) = name else { return Some(0) };
    (1..).zip(&protection.groups).find(|(_, group)| group.name == name).map(|(number, _)| number)
}

/// Checks a protection's groups.
pub(crate) fn check(protection: &ProtectionEntry, about: &mut Complaints<'_, ProtectionEntry>) {
    let groups = &protection.groups;
    if groups.len() > CLASS_GROUPS_MAX {
        let text = format!(
            "there are {}; give {CLASS_GROUPS_MAX} at most, beside the default group that takes the rest",
            groups.len()
        );
        about.field("groups", text);
    }
    let (mut names, mut holders) = (Vec::new(), [None; DSCPS]);
    for group in groups {
        let name = group.name.as_str();
        if let Some(text) = wrong_name(name, &names) {
            about.field("groups", text);
        }
        names.push(name);
        if group.dscp.is_empty() {
            about.field("groups", format!("{name:?} has no DSCP; give some, as in dscp = [\"EF\"]"));
        }
        for dscp in &group.dscp {
            let Some(holder) = holders.get_mut(usize::from(dscp.get())) else { continue };
            match holder.replace(name) {
                None => {}
                Some(other) if other == name => {
                    about.field("groups", format!("{name:?} has {dscp} twice; delete one"));
                }
                Some(other) => {
                    let text = format!(
                        "{dscp} is in {other:?} and in {name:?}; a packet goes under one SA, so give it to one of them"
                    );
                    about.field("groups", text);
                }
            }
        }
    }
}

fn wrong_name(name: &str, before: &[&str]) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !(1..=NAME_MAX).contains(&name.len()) || !name.chars().all(allowed) {
        return Some(format!(
            "{name:?} will not do as a name; use 1 to {NAME_MAX} letters, digits, '-', '_' and '.'"
        ));
    }
    if name == GROUP_DEFAULT {
        return Some(format!(
            "{name:?} takes what no other group takes and needs no entry; delete it, or choose another name"
        ));
    }
    let is_there = before.contains(&name);
    is_there.then(|| format!("{name:?} is there twice; give each group a name of its own"))
}

impl Config {
    /// A sentence for each class group without an outbound SA, where its protection has others: none of its packets leaves.
    #[must_use]
    pub fn groups_without_sa(&self) -> Vec<String> {
        let carried: HashSet<_> = self.sas.iter().map(SaEntry::place).collect();
        let mut sentences = Vec::new();
        for protection in &self.protections {
            let is_carried =
                |group| carried.contains(&(protection.name.as_str(), Direction::Outbound, group));
            let takes_all = protection.groups.iter().map(|group| group.dscp.len()).sum::<usize>() == DSCPS;
            let named = protection.groups.iter().map(|group| Some(group.name.as_str()));
            let all: Vec<_> = named.chain((!takes_all).then_some(None)).collect();
            if !all.iter().any(|group| is_carried(*group)) {
                continue;
            }
            let missing = all.into_iter().filter(|group| !is_carried(*group));
            sentences.extend(missing.map(|group| {
                let (name, group) = (&protection.name, group.unwrap_or(GROUP_DEFAULT));
                format!(
                    "protection {name}: group {group} has no outbound SA: its packets are dropped as no_sa"
                )
            }));
        }
        sentences
    }
}

/// Checks that an SA's group is one of its protection's.
pub(crate) fn check_sa(sa: &SaEntry, protection: &ProtectionEntry, about: &mut Complaints<'_, SaEntry>) {
    let Some(name) = &sa.group else { return };
    if number(protection, Some(name)).is_some() {
        return;
    }
    let names: Vec<String> = protection.groups.iter().map(|group| format!("{:?}", group.name)).collect();
    let text = match (name.as_str(), names.is_empty()) {
        (GROUP_DEFAULT, _) => "the default group is that of an SA without one; leave group out".into(),
        (_, true) => {
            format!("protection {} has no groups; leave group out, or add it there", protection.name)
        }
        (_, false) => format!(
            "protection {} has no group {name:?}; there are {}, or leave group out for the default group",
            protection.name,
            names.join(", ")
        ),
    };
    about.field("group", text);
}
