// SPDX-License-Identifier: Apache-2.0
//! What differs between two configurations, entry by entry and field by field. Never a key, only where it is.

use core::fmt;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::write::{fields, shown};
use crate::{Config, Item, Kind, PolicyEntry};

/// The differences. Without any it is empty, and says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diff {
    /// Entries that differ: kind by kind, in the order of the configurations.
    pub items: Vec<ItemDiff>,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// An entry that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemDiff {
    /// What became of it.
    pub change: DiffKind,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its fields that differ; for one that is new or gone, all but those of its name.
    pub fields: Vec<FieldChange>,
}

/// A field that differs, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field. `after` is not one of the file: it says after which policy of the port a policy stands.
    pub field: String,
    /// What it was; nothing if it was at its default or not there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// What it becomes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
}

impl Diff {
    /// Whether both configurations mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// What has to change in `running` to get `wanted`. The order of entries does not count, but that of one port's policies.
#[must_use]
pub fn diff(running: &Config, wanted: &Config) -> Diff {
    let mut items = Vec::new();
    settings(&mut items, running, wanted);
    loopbacks(&mut items, running, wanted);
    let ports = |config: &Config| config.normalized().ports;
    entries(&mut items, &ports(running), &ports(wanted));
    entries(&mut items, &running.neighbors, &wanted.neighbors);
    entries(&mut items, &running.routes, &wanted.routes);
    entries(&mut items, &running.protections, &wanted.protections);
    entries(&mut items, &running.tunnels, &wanted.tunnels);
    entries(&mut items, &running.policies, &wanted.policies);
    policy_order(&mut items, &running.policies, &wanted.policies);
    entries(&mut items, &running.sas, &wanted.sas);
    entries(&mut items, &running.class_maps, &wanted.class_maps);
    entries(&mut items, &running.policy_maps, &wanted.policy_maps);
    entries(&mut items, &running.dscp_maps, &wanted.dscp_maps);
    Diff { items }
}

fn settings(items: &mut Vec<ItemDiff>, running: &Config, wanted: &Config) {
    let value = |config: &Config| {
        let bare = Config { manual_keying: config.manual_keying, ..Config::default() };
        fields(&bare).get("manual_keying").map(ToString::to_string)
    };
    let (from, to) = (value(running), value(wanted));
    if from == to {
        return;
    }
    let change = match (&from, &to) {
        (None, _) => DiffKind::Added,
        (_, None) => DiffKind::Removed,
        _ => DiffKind::Changed,
    };
    let field = FieldChange { field: "value".into(), from, to };
    items.push(ItemDiff { change, kind: Kind::Setting, name: "manual_keying".into(), fields: vec![field] });
}

fn loopbacks(items: &mut Vec<ItemDiff>, running: &Config, wanted: &Config) {
    let one_sided = |here: &Config, there: &Config, change| {
        let mut only: Vec<_> =
            here.loopbacks.iter().filter(|address| !there.loopbacks.contains(address)).collect();
        only.sort();
        only.into_iter()
            .map(|address| ItemDiff {
                change,
                kind: Kind::Loopback,
                name: address.to_string(),
                fields: Vec::new(),
            })
            .collect::<Vec<_>>()
    };
    items.extend(one_sided(running, wanted, DiffKind::Removed));
    items.extend(one_sided(wanted, running, DiffKind::Added));
}

fn entries<T: Item + PartialEq>(items: &mut Vec<ItemDiff>, running: &[T], wanted: &[T]) {
    let before: HashMap<String, &T> = running.iter().map(|item| (item.label(), item)).collect();
    let after: HashMap<String, &T> = wanted.iter().map(|item| (item.label(), item)).collect();
    for item in running.iter().filter(|item| !after.contains_key(&item.label())) {
        items.push(item_diff(DiffKind::Removed, Some(item), None));
    }
    for item in wanted {
        match before.get(&item.label()).copied() {
            None => items.push(item_diff(DiffKind::Added, None, Some(item))),
            Some(old) if old != item => items.push(item_diff(DiffKind::Changed, Some(old), Some(item))),
            Some(_) => {}
        }
    }
}

fn item_diff<T: Item>(change: DiffKind, from: Option<&T>, to: Option<&T>) -> ItemDiff {
    let texts = |item: Option<&T>| -> Vec<(String, String)> {
        let table = item.map(fields).unwrap_or_default();
        let beside_name = table.iter().filter(|(name, _)| !T::NAMED_BY.contains(&name.as_str()));
        beside_name.map(|(name, value)| (name.clone(), shown(T::KIND, name, value))).collect()
    };
    let (before, after) = (texts(from), texts(to));
    let of = |list: &[(String, String)], name: &str| {
        list.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let mut names: Vec<&String> = before.iter().map(|(name, _)| name).collect();
    names.extend(after.iter().map(|(name, _)| name).filter(|name| of(&before, name).is_none()));
    let changes = names.into_iter().map(|name| FieldChange {
        field: name.clone(),
        from: of(&before, name),
        to: of(&after, name),
    });
    ItemDiff {
        change,
        kind: T::KIND,
        name: from.or(to).map(Item::label).unwrap_or_default(),
        fields: changes.filter(|change| change.from != change.to).collect(),
    }
}

/// Policies that stay on their port but change places: the fewest that have to move.
fn policy_order(items: &mut Vec<ItemDiff>, running: &[PolicyEntry], wanted: &[PolicyEntry]) {
    let (before, after) = (by_port(running), by_port(wanted));
    for (port, names) in &after {
        let Some(old) = before.get(port) else { continue };
        let places: HashMap<&str, usize> = old.iter().copied().zip(0..).collect();
        let common: Vec<(&str, usize)> =
            names.iter().filter_map(|name| places.get(name).map(|place| (*name, *place))).collect();
        let stay = longest_increasing(&common.iter().map(|(_, place)| *place).collect::<Vec<_>>());
        for (position, (name, place)) in common.iter().enumerate() {
            if stay.binary_search(&position).is_err() {
                let new_place = names.iter().position(|other| other == name).unwrap_or_default();
                moved(items, name, predecessor(old, *place), predecessor(names, new_place));
            }
        }
    }
}

fn by_port(policies: &[PolicyEntry]) -> BTreeMap<&str, Vec<&str>> {
    let mut ports: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for policy in policies {
        ports.entry(&policy.port).or_default().push(&policy.name);
    }
    ports
}

fn predecessor(names: &[&str], place: usize) -> String {
    place
        .checked_sub(1)
        .and_then(|before| names.get(before))
        .map_or_else(|| "(first)".into(), |name| format!("{name:?}"))
}

fn moved(items: &mut Vec<ItemDiff>, name: &str, from: String, to: String) {
    let field = FieldChange { field: "after".into(), from: Some(from), to: Some(to) };
    match items.iter_mut().find(|item| item.kind == Kind::Policy && item.name == name) {
        Some(item) => item.fields.push(field),
        None => items.push(ItemDiff {
            change: DiffKind::Changed,
            kind: Kind::Policy,
            name: name.to_owned(),
            fields: vec![field],
        }),
    }
}

/// The places of a longest increasing subsequence of different numbers.
fn longest_increasing(numbers: &[usize]) -> Vec<usize> {
    let (mut ends, mut before): (Vec<usize>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
    for (place, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(place);
        } else {
            ends[length] = place;
        }
    }
    let mut longest: Vec<usize> =
        core::iter::successors(ends.last().copied(), |place| before[*place]).collect();
    longest.reverse();
    longest
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| writeln!(f, "{item}"))
    }
}

impl fmt::Display for ItemDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.change {
            DiffKind::Added => '+',
            DiffKind::Removed => '-',
            DiffKind::Changed => '~',
        };
        match self.kind {
            Kind::Setting => write!(f, "{sign} {}", self.name)?,
            kind => write!(f, "{sign} {kind} {}", self.name)?,
        }
        for (number, field) in self.fields.iter().enumerate() {
            f.write_str(if number == 0 { ": " } else { ", " })?;
            self.show(field, f)?;
        }
        Ok(())
    }
}

impl ItemDiff {
    fn show(&self, change: &FieldChange, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let absent = || "(default)".to_owned();
        let field = &change.field;
        match (self.change, &change.from, &change.to) {
            (DiffKind::Added, _, Some(value)) | (DiffKind::Removed, Some(value), _) => {
                write!(f, "{field} = {value}")
            }
            (_, from, to) => {
                let value = |side: &Option<String>| side.clone().unwrap_or_else(absent);
                write!(f, "{field} {} → {}", value(from), value(to))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{pair, shuffled};

    const BEFORE: &str = r#"
        loopbacks = ["10.255.0.1"]
        [[port]]
        name = "wan"
        side = "unprotected"
        addresses = ["192.0.2.1/24"]
        [[route]]
        prefix = "10.0.0.0/8"
        tunnel = "branch-7"
        [[tunnel]]
        name = "branch-7"
        source = "192.0.2.1"
        destination = "198.51.100.7"
        key = 7
        [[policy]]
        name = "a"
        port = "wan"
        action = "bypass"
        [[policy]]
        name = "b"
        port = "wan"
        action = "discard"
        [[policy]]
        name = "c"
        port = "wan"
        action = "discard"
    "#;

    const AFTER: &str = r#"
        manual_keying = "lab"
        loopbacks = ["10.255.0.2"]
        [[port]]
        name = "wan"
        side = "unprotected"
        addresses = ["192.0.2.1/24"]
        mtu = 1400
        [[route]]
        prefix = "10.0.0.0/8"
        tunnel = "branch-8"
        [[tunnel]]
        name = "branch-8"
        source = "192.0.2.1"
        destination = "198.51.100.8"
        [[protection]]
        name = "branch-8"
        mode = "transport"
        local = "192.0.2.1"
        remote = "198.51.100.8"
        [[policy]]
        name = "c"
        port = "wan"
        action = "bypass"
        [[policy]]
        name = "a"
        port = "wan"
        action = "bypass"
        [[policy]]
        name = "b"
        port = "wan"
        action = "discard"
        [[sa]]
        protection = "branch-8"
        direction = "outbound"
        spi = 0x1001
        key_id = "k"
    "#;

    const SAID: &str = r#"+ manual_keying: value = "lab"
- loopback 10.255.0.1
+ loopback 10.255.0.2
~ port wan: mtu (default) → 1400
~ route 10.0.0.0/8: tunnel "branch-7" → "branch-8"
+ protection branch-8: mode = "transport", local = "192.0.2.1", remote = "198.51.100.8"
- tunnel branch-7: source = "192.0.2.1", destination = "198.51.100.7", key = 7
+ tunnel branch-8: source = "192.0.2.1", destination = "198.51.100.8"
~ policy c: action "discard" → "bypass", after "b" → (first)
+ sa outbound 0x00001001: protection = "branch-8", algorithm = "ENCR_AES_GCM_16", key_id = "k"
"#;

    fn read(text: &str) -> Config {
        Config::parse(text, "test").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_difference_reads_like_a_diff() {
        assert_eq!(diff(&read(BEFORE), &read(AFTER)).to_string(), SAID);
    }

    #[test]
    fn programs_read_it_too() {
        let diff = diff(&read(BEFORE), &read(AFTER));
        let json = serde_json::to_value(&diff).unwrap();
        assert_eq!(json[3]["change"], "changed");
        assert_eq!((&json[3]["kind"], &json[3]["name"]), (&"port".into(), &"wan".into()));
        assert_eq!(json[3]["fields"], serde_json::json!([{"field": "mtu", "to": "1400"}]));
        assert_eq!(serde_json::from_value::<Diff>(json).unwrap(), diff);
    }

    proptest! {
        #[test]
        fn it_is_empty_exactly_where_both_mean_the_same(seed: u64) {
            let (before, after) = pair(seed);
            let says_nothing = diff(&before, &after).is_empty();
            prop_assert_eq!(says_nothing, before.normalized() == after.normalized());
            prop_assert_eq!(diff(&after, &before).is_empty(), says_nothing);
            prop_assert!(diff(&before, &shuffled(&before, seed)).is_empty());
        }

        #[test]
        fn it_names_every_entry_that_differs_and_no_other(seed: u64) {
            let (before, after) = pair(seed);
            let diff = diff(&before, &after);
            for tunnel in &after.tunnels {
                let said = diff.items.iter().find(|item| item.kind == Kind::Tunnel && item.name == tunnel.name);
                let expected = match before.tunnel(&tunnel.name) {
                    None => Some(DiffKind::Added),
                    Some(old) if old != tunnel => Some(DiffKind::Changed),
                    Some(_) => None,
                };
                prop_assert_eq!(said.map(|item| item.change), expected);
            }
            for sa in &before.sas {
                let label = sa.name().to_string();
                let said = diff.items.iter().find(|item| item.kind == Kind::Sa && item.name == label);
                let expected = match after.sa(sa.name()) {
                    None => Some(DiffKind::Removed),
                    Some(new) if new != sa => Some(DiffKind::Changed),
                    Some(_) => None,
                };
                prop_assert_eq!(said.map(|item| item.change), expected);
            }
        }

        #[test]
        fn the_longest_increasing_subsequence_is_one_and_none_is_longer(numbers in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle()) {
            let found = longest_increasing(&numbers);
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1] && numbers[pair[0]] < numbers[pair[1]]));
            let best = (0u32..1 << numbers.len()).filter_map(|set| {
                let chosen: Vec<_> = numbers.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1).map(|(_, n)| n).collect();
                chosen.windows(2).all(|pair| pair[0] < pair[1]).then_some(chosen.len())
            });
            prop_assert_eq!(Some(found.len()), best.max());
        }
    }
}
