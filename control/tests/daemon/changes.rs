// SPDX-License-Identifier: Apache-2.0
//! Whole configurations: applied, refused, compared, or kept until a dataplane comes.

use messages::{Base, ObjectId, Refusal, Request, TunnelIndex};

use crate::fake::Answer;
use crate::lab::{BRANCH_8, CONFIG, Lab};

fn with_branch_8() -> String {
    format!("{CONFIG}{BRANCH_8}")
}

#[test]
fn an_applied_change_is_as_small_as_it_can_be_and_survives() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    let wanted = lab.write("wanted.toml", &with_branch_8());
    let answer = lab.cli(&["apply", wanted.to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.stdout.contains("+ tunnel branch-8") && answer.stdout.contains("generation 2"),
        "{answer:?}"
    );
    assert!(answer.stderr.contains("RFC 8221"), "manual keying goes unmentioned: {answer:?}");
    let transactions = fake.take_transactions();
    assert_eq!((transactions.len(), transactions[0].base), (1, Base::Running));
    assert!(matches!(&transactions[0].changes[..], [Request::Put(messages::Object::Tunnel(_))]));
    lab.kill();
    lab.start();
    lab.wait_phase("committed");
    assert_eq!(fake.take_transactions().len(), 0);
    assert!(lab.cli(&["config"]).stdout.contains("branch-8"));
}

#[test]
fn what_is_applied_again_changes_nothing() {
    let (lab, fake) = Lab::filled(CONFIG);
    let answer = lab.cli(&["apply", lab.config_dir().join("config.toml").to_str().unwrap(), "--json"]).json();
    assert_eq!((&answer["outcome"], &answer["changes"]), (&"unchanged".into(), &serde_json::json!([])));
    assert_eq!(fake.take_transactions().len(), 0);
}

#[test]
fn a_refusal_keeps_the_old_state_and_names_things() {
    let (lab, fake) = Lab::filled(CONFIG);
    let before = std::fs::read_to_string(lab.state("running.toml")).unwrap();
    let refusal = Refusal::NoRoom(ObjectId::Tunnel(TunnelIndex(1)));
    fake.state().answers = vec![Answer::Refuse(refusal)];
    let wanted = lab.write("wanted.toml", &with_branch_8());
    let answer = lab.cli(&["apply", wanted.to_str().unwrap()]);
    assert_eq!(answer.code, 1);
    assert!(
        answer.stderr.contains("nothing was changed") && answer.stderr.contains("tunnel branch-8"),
        "{answer:?}"
    );
    assert_eq!(std::fs::read_to_string(lab.state("running.toml")).unwrap(), before);
    assert!(!lab.state("candidate.toml").exists());
    assert_eq!(lab.get("/v1/status")["configuration"]["phase"], "committed");
    // And the next change starts from what runs.
    assert_eq!(lab.cli(&["apply", wanted.to_str().unwrap()]).code, 0);
    assert_eq!(fake.take_transactions().last().unwrap().base, Base::Running);
}

#[test]
fn a_wrong_configuration_is_refused_with_every_problem_before_the_dataplane_hears_of_it() {
    let (lab, fake) = Lab::filled(CONFIG);
    let dangling = with_branch_8()
        .replace("tunnel = \"branch-7\"", "tunnel = \"nowhere\"")
        .replace("protection = \"branch-7\"", "protection = \"nobody\"");
    let other_port = with_branch_8().replace("\"wan\"", "\"uplink\"");
    for (wrong, parts) in [(dangling, ["nowhere", "nobody"]), (other_port, ["uplink", "wan"])] {
        let wanted = lab.write("wanted.toml", &wrong);
        let answer = lab.cli(&["apply", wanted.to_str().unwrap()]);
        assert_eq!(answer.code, 1);
        assert!(!answer.stderr.contains("configuration:"), "the file goes unnamed: {answer:?}");
        for part in parts {
            assert!(answer.stderr.contains(part), "{part}: {answer:?}");
        }
    }
    assert_eq!(fake.take_transactions().len(), 0);
}

#[test]
fn a_dry_run_asks_the_dataplane_and_changes_nothing() {
    let (lab, fake) = Lab::filled(CONFIG);
    let wanted = lab.write("wanted.toml", &with_branch_8());
    let arguments = ["apply", wanted.to_str().unwrap(), "--dry-run"];
    let answer = lab.cli(&arguments);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.contains("+ tunnel branch-8") && answer.stdout.contains("nothing was changed"));
    let transactions = fake.take_transactions();
    assert!(transactions.len() == 1 && transactions[0].is_check);
    assert_eq!(fake.state().generation, 1);
    assert!(!lab.cli(&["config"]).stdout.contains("branch-8"));
    fake.state().answers = vec![Answer::Refuse(Refusal::NoRoom(ObjectId::Tunnel(TunnelIndex(1))))];
    let answer = lab.cli(&arguments);
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("tunnel branch-8"), "{answer:?}");
}

#[test]
fn changes_while_the_dataplane_is_away_wait_for_it() {
    let mut lab = Lab::new(CONFIG);
    lab.start();
    let wanted = lab.write("wanted.toml", &with_branch_8());
    let answer = lab.cli(&["apply", wanted.to_str().unwrap()]);
    assert_eq!(answer.code, 0);
    assert!(answer.stdout.contains("pending"), "{answer:?}");
    let (status, body) = lab.http("PUT", "/v1/config", &with_branch_8());
    assert_eq!((status, &body["outcome"]), (202, &"pending".into()));
    // It survives before any dataplane has seen it.
    lab.kill();
    lab.start();
    let fake = lab.fake();
    lab.wait_phase("committed");
    assert_eq!(fake.state().objects.len(), 10);
}

#[test]
fn diff_says_what_differs_by_its_exit_status_too() {
    let (lab, _fake) = Lab::filled(CONFIG);
    let same = lab.cli(&["diff"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""));
    let wanted = lab.write("wanted.toml", &with_branch_8());
    let other = lab.cli(&["diff", wanted.to_str().unwrap()]);
    assert_eq!(other.code, 1);
    assert!(other.stdout.contains("+ tunnel branch-8"), "{other:?}");
    let other = lab.cli(&["--json", "diff", wanted.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&other.stdout).unwrap();
    assert_eq!((other.code, &json["different"]), (1, &true.into()));
    let missing = lab.cli(&["diff", "/nowhere/config.toml"]);
    assert!(missing.code == 1 && missing.stderr.contains("/nowhere/config.toml"), "{missing:?}");
}

#[test]
fn what_config_prints_can_be_applied_again() {
    let (lab, fake) = Lab::filled(&with_branch_8());
    let text = lab.cli(&["config"]).stdout;
    let answer = lab.cli_with(&["apply", "-", "--json"], &text);
    assert_eq!(answer.json()["outcome"], "unchanged");
    assert_eq!(fake.take_transactions().len(), 0);
}

#[test]
fn a_key_file_with_another_key_is_noticed_at_the_next_change() {
    let (lab, fake) = Lab::filled(CONFIG);
    lab.write("out.key", &crate::lab::key_line(9));
    let answer = lab.cli(&["apply", lab.config_dir().join("config.toml").to_str().unwrap(), "--json"]).json();
    assert_eq!(answer["outcome"], "committed");
    assert!(answer["changes"][0].as_str().unwrap().contains("outbound 0x00002001"), "{answer}");
    assert_eq!(fake.take_transactions().len(), 1);
}
