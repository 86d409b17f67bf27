// SPDX-License-Identifier: Apache-2.0
//! `docs/configuration.md` says what is so: its examples are accepted, and each field has its row.

use greyhound_config::Config;

const MANUAL: &str = include_str!("../../../docs/configuration.md");
const QOS: &str = include_str!("../../../docs/qos.md");
const FULL: &str = include_str!("full.toml");

/// What the manual says of `config.toml`.
fn chapter() -> &'static str {
    let (_, rest) = MANUAL.split_once("## `config.toml`").expect("a chapter on config.toml");
    rest.split_once("## `dataplane.toml`").expect("a chapter on dataplane.toml").0
}

fn examples() -> Vec<&'static str> {
    examples_of(chapter())
}

fn examples_of(text: &'static str) -> Vec<&'static str> {
    text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn every_example_is_accepted() {
    let examples = examples();
    assert!(examples.len() >= 2);
    let (headend, additions) = examples.split_first().unwrap();
    let config = Config::parse(headend, "the headend").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.tunnels.len(), config.sas.len()), (1, 2));
    for addition in additions {
        let text = format!("{headend}\n{addition}");
        Config::parse(&text, "with an addition").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_worked_example_of_quality_of_service_is_accepted() {
    let examples = examples_of(QOS);
    let [maps, at_work] = examples[..] else { panic!("two examples") };
    let headend = examples_of(MANUAL)[0];
    // Port and tunnel of the headend, with what the example adds to them.
    let (port, tunnel) = ("service_policy = \"uplink\"", "service_policy = \"branch-10\"");
    assert!(at_work.contains(port) && at_work.contains(tunnel));
    let text = headend
        .replace("side = \"unprotected\"", &format!("side = \"unprotected\"\n{port}"))
        .replace("key = 7", &format!("key = 7\n{tunnel}"));
    let config =
        Config::parse(&format!("{text}\n{maps}"), "qos.md").unwrap_or_else(|error| panic!("{error}"));
    assert!(config.ports.iter().any(|port| port.service_policy.is_some()));
    assert!(config.tunnels[0].service_policy.is_some());
}

#[test]
fn every_field_has_a_row_in_the_section_of_its_table() {
    let mut section = chapter().split("### At the top").nth(1).unwrap();
    for line in FULL.lines() {
        if let Some(table) = line.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")) {
            let (_, rest) =
                chapter().split_once(&format!("### `[[{table}]]`")).unwrap_or_else(|| panic!("{table}"));
            section = rest.split("\n### ").next().unwrap();
        } else if let Some((field, _)) = line.split_once(" = ") {
            let has_row = section.lines().any(|row| {
                let first = row.split('|').nth(1).unwrap_or_default();
                first.split(", ").any(|name| name.trim() == format!("`{field}`"))
            });
            assert!(has_row, "{field} of {}", section.lines().next().unwrap_or_default());
        }
    }
}

#[test]
fn the_messages_it_shows_are_those_that_are_said() {
    let text = FULL.replace("tunnel = \"branch-7\"", "tunnel = \"branch\"");
    let said = Config::parse(&text, "config.toml").unwrap_err().to_string();
    let shown = said.split_once(": ").unwrap().1;
    assert!(MANUAL.contains(shown), "{shown}");
    let text = FULL.replace("source = \"10.255.0.1\"", "source = \"10.255.0.2\"");
    let said = Config::parse(&text, "config.toml").unwrap_err().to_string();
    assert!(MANUAL.contains(said.split_once(": ").unwrap().1), "{said}");
}
