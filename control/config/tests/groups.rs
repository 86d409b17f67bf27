// SPDX-License-Identifier: Apache-2.0
//! Class groups of protections: what is said when they are wrong, and what they become.

use greyhound_config::{Config, Environment, EnvironmentPort, Indices, KeySource, SaEntry, compile, diff};
use messages::{ClassGroups, Direction, DscpSet, Object, Secret};

const BRANCH: &str = r#"
manual_keying = "lab"

[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24"]

[[protection]]
name = "branch-7"
local = "192.0.2.1"
remote = "192.0.2.7"
groups = [{ name = "voice", dscp = ["EF", 44] }, { name = "bulk", dscp = ["AF11"] }]

[[protection]]
name = "branch-8"
local = "192.0.2.1"
remote = "192.0.2.8"

[[sa]]
protection = "branch-7"
direction = "outbound"
spi = 0x1001
key_id = "a"

[[sa]]
protection = "branch-7"
direction = "outbound"
spi = 0x1002
group = "bulk"
key_id = "b"

[[sa]]
protection = "branch-7"
direction = "inbound"
spi = 0x1001
group = "voice"
key_id = "c"
"#;

fn read(text: &str) -> Config {
    Config::parse(text, "branch.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// What is said when the first `from` is replaced.
#[track_caller]
fn said(from: &str, to: &str) -> String {
    assert!(BRANCH.contains(from), "{from}");
    let error = Config::parse(&BRANCH.replacen(from, to, 1), "branch.toml").expect_err(to);
    error.problems().iter().map(|problem| problem.text.as_str()).collect::<Vec<_>>().join("\n")
}

struct Keys;

impl KeySource for Keys {
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
        let mut keymat = [0; 20];
        keymat[..4].copy_from_slice(&sa.spi.to_le_bytes());
        keymat[4] = sa.direction as u8;
        Secret::from_keymat(&keymat).ok_or_else(|| "no key".into())
    }
}

fn objects(config: &Config) -> Vec<Object> {
    let ports = vec![EnvironmentPort { name: "wan".into(), mtu_max: 1500, is_tagged: false }];
    let environment = Environment { ports, workers: 1, sas_max: 8, tunnels_max: 8 };
    let compiled = compile(config, &Indices::default().allocate(config), &environment, &Keys);
    compiled.unwrap_or_else(|problems| panic!("{problems}")).objects.into_values().collect()
}

#[test]
fn groups_become_sets_of_dscps_and_sas_carry_their_numbers() {
    let objects = objects(&read(BRANCH));
    let mut expected = ClassGroups::default();
    (expected.0[0], expected.0[1]) = (DscpSet(1 << 46 | 1 << 44), DscpSet(1 << 10));
    let groups = objects.iter().filter_map(|object| match object {
        Object::Protection(protection) => Some(protection.class_groups),
        _ => None,
    });
    assert_eq!(groups.collect::<Vec<_>>(), [expected, ClassGroups::default()]);
    let mut carried: Vec<_> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Sa(sa) => Some((sa.direction, sa.spi, sa.class_group)),
            _ => None,
        })
        .collect();
    carried.sort_unstable();
    let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
    // Any inbound SA of a protection is accepted, whatever comes under it.
    assert_eq!(carried, [(inbound, 0x1001, 0), (outbound, 0x1001, 0), (outbound, 0x1002, 2)]);
}

#[test]
fn what_is_wrong_with_groups_is_said() {
    let protection = "protection branch-7: groups: ";
    let all = "groups = [{ name = \"voice\", dscp = [\"EF\", 44] }, { name = \"bulk\", dscp = [\"AF11\"] }]";
    let eight: Vec<String> =
        (0..8).map(|number| format!("{{ name = \"g{number}\", dscp = [{number}] }}")).collect();
    let eight = format!("groups = [{}]\n[[sa]]", eight.join(", "));
    let only_groups = BRANCH.split(all).next().unwrap();
    let error = Config::parse(&(only_groups.to_owned() + eight.trim_end_matches("[[sa]]")), "branch.toml");
    assert!(
        error
            .unwrap_err()
            .to_string()
            .ends_with("groups: there are 8; give 7 at most, beside the default group that takes the rest")
    );
    for (from, to, sentence) in [
        (
            "\"AF11\"",
            "\"AF11\", \"EF\"",
            "EF is in \"voice\" and in \"bulk\"; a packet goes under one SA, so give it to one of them",
        ),
        ("\"EF\", 44", "\"EF\", 46", "\"voice\" has EF twice; delete one"),
        ("[\"AF11\"]", "[]", "\"bulk\" has no DSCP; give some, as in dscp = [\"EF\"]"),
        (
            "name = \"bulk\"",
            "name = \"voice\"",
            "\"voice\" is there twice; give each group a name of its own\nsa outbound 0x00001002: group: protection branch-7 has no group \"bulk\"; there are \"voice\", \"voice\", or leave group out for the default group",
        ),
        (
            "{ name = \"voice\"",
            "{ name = \"\"",
            "\"\" will not do as a name; use 1 to 64 letters, digits, '-', '_' and '.'\nsa inbound 0x00001001: group: protection branch-7 has no group \"voice\"; there are \"\", \"bulk\", or leave group out for the default group",
        ),
        (
            ", { name = \"bulk\"",
            ", { name = \"default\", dscp = [1] }, { name = \"bulk\"",
            "\"default\" takes what no other group takes and needs no entry; delete it, or choose another name",
        ),
        ("\"AF11\"", "64", "64 will not do; give a DSCP's name such as \"EF\", or its number from 0 to 63"),
        ("name = \"bulk\", ", "", "name is missing; add it"),
    ] {
        assert_eq!(said(from, to), format!("{protection}{sentence}"), "{from} → {to}");
    }
}

#[test]
fn what_is_wrong_with_an_sas_group_is_said() {
    let sa = "sa outbound 0x00001002: ";
    for (from, to, sentence) in [
        (
            "group = \"bulk\"",
            "group = \"video\"",
            "group: protection branch-7 has no group \"video\"; there are \"voice\", \"bulk\", or leave group out for the default group",
        ),
        (
            "group = \"bulk\"",
            "group = \"default\"",
            "group: the default group is that of an SA without one; leave group out",
        ),
        (
            "group = \"bulk\"\n",
            "",
            "conflicts with sa outbound 0x00001001: a protection has one outbound SA for each class group, and an inbound SPI means one SA; delete the other, or replace it",
        ),
    ] {
        assert_eq!(said(from, to), format!("{sa}{sentence}"), "{from} → {to}");
    }
    let elsewhere = BRANCH.replace(
        "protection = \"branch-7\"\ndirection = \"outbound\"\nspi = 0x1002",
        "protection = \"branch-8\"\ndirection = \"outbound\"\nspi = 0x1002",
    );
    let error = Config::parse(&elsewhere, "branch.toml").unwrap_err().to_string();
    assert!(
        error.ends_with("group: protection branch-8 has no groups; leave group out, or add it there"),
        "{error}"
    );
}

#[test]
fn groups_read_in_a_diff_as_in_the_file_and_are_written_a_line_each() {
    let (before, after) = (read(BRANCH), read(&BRANCH.replace("\"AF11\"", "\"AF11\", \"AF12\"")));
    assert_eq!(
        diff(&before, &after).to_string(),
        "~ protection branch-7: groups [{ name = \"voice\", dscp = [\"EF\", 44] }, { name = \"bulk\", dscp = [\"AF11\"] }] → [{ name = \"voice\", dscp = [\"EF\", 44] }, { name = \"bulk\", dscp = [\"AF11\", \"AF12\"] }]\n"
    );
    let text = after.to_toml();
    assert!(text.contains("\n    { name = \"bulk\", dscp = [\"AF11\", \"AF12\"] },\n"), "{text}");
    assert_eq!(read(&text), after);
}

#[test]
fn a_group_without_an_outbound_sa_is_told_where_others_have_one() {
    let config = read(BRANCH);
    let sentence = |group: &str| {
        format!("protection branch-7: group {group} has no outbound SA: its packets are dropped as no_sa")
    };
    assert_eq!(config.groups_without_sa(), [sentence("voice")]);
    let mut fewer = config.clone();
    fewer.sas.remove(0);
    assert_eq!(fewer.groups_without_sa(), [sentence("voice"), sentence("default")]);
    fewer.sas.retain(|sa| sa.direction == Direction::Inbound);
    assert_eq!(fewer.groups_without_sa(), [""; 0], "nothing can be sent yet at all");
    let mut whole = config;
    whole.protections[0].groups[0].dscp =
        (0..64).filter(|dscp| *dscp != 10).filter_map(wire::Dscp::new).collect();
    whole.sas.remove(0);
    assert_eq!(whole.groups_without_sa(), [sentence("voice")], "no DSCP is left for the default group");
}

#[test]
fn the_order_of_groups_gives_numbers_and_sas_follow_their_names() {
    let turned = BRANCH.replace(
        "{ name = \"voice\", dscp = [\"EF\", 44] }, { name = \"bulk\", dscp = [\"AF11\"] }",
        "{ name = \"bulk\", dscp = [\"AF11\"] }, { name = \"voice\", dscp = [\"EF\", 44] }",
    );
    let of_bulk = |object: &Object| match object {
        Object::Sa(sa) if sa.spi == 0x1002 => Some(sa.class_group),
        _ => None,
    };
    assert_eq!(objects(&read(&turned)).iter().find_map(of_bulk), Some(1));
}
