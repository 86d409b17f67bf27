// SPDX-License-Identifier: Apache-2.0
//! `docs/drops.md` says of each drop reason what `messages::DropReason` says, and what to look at first.

use std::collections::BTreeSet;
use std::path::PathBuf;

use messages::DropReason;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cells of each row that begins with a name in backticks.
fn rows(text: &str) -> Vec<[&str; 3]> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            cells.try_into().unwrap_or_else(|cells| panic!("three cells: {cells:?}"))
        })
        .collect()
}

#[test]
fn the_manual_lists_every_drop_reason_in_order_with_its_meaning() {
    let text = std::fs::read_to_string(root().join("docs/drops.md")).expect("docs/drops.md");
    let rows = rows(&text);
    let listed: Vec<_> = rows.iter().map(|[name, meaning, _]| (name.trim_matches('`'), *meaning)).collect();
    let expected: Vec<_> = DropReason::ALL.iter().map(|reason| (reason.name(), reason.meaning())).collect();
    assert_eq!(listed, expected);
}

/// What to look at first is a sentence, and the reasons and counters that it names are there.
#[test]
fn the_manual_says_of_each_reason_what_to_look_at_first() {
    let text = std::fs::read_to_string(root().join("docs/drops.md")).expect("docs/drops.md");
    let reasons = DropReason::ALL.iter().map(|reason| reason.name());
    let counters = messages::WorkerCounter::ALL.iter().map(|counter| counter.name());
    let known: BTreeSet<_> = reasons.chain(counters).collect();
    for [name, _, first] in rows(&text) {
        assert!(first.ends_with('.') && first.len() > 10, "{name}: {first}");
        // Every second piece is in backticks.
        for quoted in first.split('`').skip(1).step_by(2) {
            let is_command = quoted.starts_with("greyhound ");
            let is_setting = SETTINGS.contains(&quoted);
            assert!(is_command || is_setting || known.contains(quoted), "{name}: what is `{quoted}`?");
            assert!(!is_command || COMMANDS.contains(&quoted), "{name}: no such command as `{quoted}`");
        }
    }
}

/// Commands that the manual may name.
const COMMANDS: &[&str] = &[
    "greyhound drops",
    "greyhound sa list",
    "greyhound tunnel list",
    "greyhound route list",
    "greyhound policy list",
    "greyhound neighbor list",
    "greyhound port list",
    "greyhound worker list",
    "greyhound qos show",
];

/// Settings that the manual may name.
const SETTINGS: &[&str] = &["strict_source", "answer_ping", "mtu", "police", "queue_limit"];

#[test]
fn the_settings_that_the_manual_names_are_in_the_configuration() {
    let read = |file: &str| std::fs::read_to_string(root().join("control/config/src").join(file));
    let model = read("model.rs").expect("the model") + &read("quality.rs").expect("quality of service");
    for setting in SETTINGS {
        assert!(model.contains(&format!("{setting}:")), "{setting}");
    }
}

#[test]
fn the_commands_that_the_manual_names_are_in_the_cli() {
    let path = root().join("control/src/cli/args.rs");
    let args = std::fs::read_to_string(path).expect("the arguments of the CLI");
    for command in COMMANDS {
        let words: Vec<_> = command.split(' ').skip(1).collect();
        let [word, rest @ ..] = &words[..] else { panic!("{command} has a word") };
        let variant = word[..1].to_uppercase() + &word[1..];
        let expected = if rest.is_empty() { format!("    {variant} {{") } else { format!("    {variant}(") };
        assert!(args.contains(&expected), "{command}");
    }
}
