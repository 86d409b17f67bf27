// SPDX-License-Identifier: Apache-2.0
//! Either process dies and comes back: what runs goes on, what is missing is filled in, nothing is made up.

use messages::{Base, Event, Greeting, Object, Refusal, SaIndex};

use crate::fake::{Answer, Fake, State};
use crate::lab::{BRANCH_8, CONFIG, Lab};

#[test]
fn an_empty_dataplane_is_filled_with_config_toml_whichever_starts_first() {
    for control_first in [true, false] {
        let mut lab = Lab::new(CONFIG);
        let fake = if control_first {
            lab.start();
            lab.wait_phase("pending");
            assert!(!lab.state("running.toml").exists(), "kept before it was ever committed");
            lab.fake()
        } else {
            let fake = lab.fake();
            lab.start();
            fake
        };
        lab.wait_phase("committed");
        let transactions = fake.take_transactions();
        assert_eq!(transactions.len(), 1);
        assert_eq!(transactions[0].base, Base::Empty);
        assert_eq!(fake.state().objects.len(), 9, "2 ports, 2 addresses, protection, tunnel, route, 2 SAs");
        assert!(lab.state("running.toml").exists());
        assert!(!lab.state("candidate.toml").exists());
    }
}

#[test]
fn a_new_control_takes_over_what_runs_and_sends_nothing() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    for end in [Lab::kill, |lab: &mut Lab| assert!(lab.stop())] {
        end(&mut lab);
        lab.start();
        lab.wait_phase("committed");
        assert_eq!(fake.take_transactions().len(), 0);
        assert!(lab.log().contains("took over generation 1"));
    }
    assert_eq!(fake.state().connections, 3);
    assert_eq!(lab.get("/v1/status")["dataplane"]["generation"], 1);
}

#[test]
fn a_dataplane_that_was_restarted_is_filled_again() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    let before = fake.state().objects.clone();
    drop(fake);
    lab.wait_phase("pending");
    let fake = lab.fake();
    lab.wait_phase("committed");
    assert!(fake.state().objects == before);
    lab.kill();
}

#[test]
fn the_persisted_configuration_rules_over_config_toml() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    lab.kill();
    lab.write("config.toml", &format!("{CONFIG}{BRANCH_8}"));
    lab.start();
    lab.wait_phase("committed");
    assert_eq!(fake.take_transactions().len(), 0);
    let diff = lab.cli(&["diff"]);
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(diff.stdout.contains("+ tunnel branch-8"), "{diff:?}");
}

#[test]
fn killed_between_put_and_commit_the_old_state_stays() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    let before = fake.state().objects.clone();
    // More than the ring holds: the rest waits in control.
    let tunnels: String = (8..24)
        .map(|number| {
            BRANCH_8
                .replace("branch-8", &format!("branch-{number}"))
                .replace(".10\"", &format!(".{number}\""))
        })
        .collect();
    let wanted =
        lab.write("wanted.toml", &format!("{CONFIG}{}", tunnels.replace("192.0.2.9\"", "192.0.2.99\"")));
    fake.state().reads = Some(3);
    let mut cli = std::process::Command::new(env!("CARGO_BIN_EXE_greyhound"))
        .args(["--run-dir", lab.run_dir().to_str().unwrap(), "apply", wanted.to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    lab.wait("the transaction to begin", || fake.state().reads == Some(0));
    assert!(lab.state("candidate.toml").exists());
    lab.kill();
    assert!(!cli.wait().unwrap().success());
    fake.state().reads = None;
    lab.start();
    lab.wait_phase("committed");
    assert_eq!(fake.take_transactions().len(), 0);
    assert!(fake.state().objects == before);
    assert!(!lab.state("candidate.toml").exists() && !lab.state("candidate.json").exists());
    assert!(!lab.cli(&["config"]).stdout.contains("branch-8"));
}

#[test]
fn killed_between_commit_and_its_answer_the_new_state_is_taken_over() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    fake.state().answers = vec![Answer::CommitSilently];
    let wanted = lab.write("wanted.toml", &format!("{CONFIG}{BRANCH_8}"));
    let mut cli = std::process::Command::new(env!("CARGO_BIN_EXE_greyhound"))
        .args(["--run-dir", lab.run_dir().to_str().unwrap(), "apply", wanted.to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    lab.wait("the commit", || fake.state().generation == 2);
    lab.kill();
    assert!(!cli.wait().unwrap().success());
    fake.take_transactions();
    lab.start();
    lab.wait_phase("committed");
    assert_eq!(fake.take_transactions().len(), 0, "the dataplane was not asked to change anything");
    assert!(lab.cli(&["config"]).stdout.contains("branch-8"));
    assert!(!lab.state("candidate.toml").exists());
}

#[test]
fn a_dataplane_that_dies_before_its_answer_gets_the_old_state_again() {
    let (lab, fake) = Lab::filled(CONFIG);
    let before = fake.state().objects.clone();
    fake.state().reads = Some(1);
    let wanted = lab.write("wanted.toml", &format!("{CONFIG}{BRANCH_8}"));
    let answer = std::thread::scope(|scope| {
        let cli = scope.spawn(|| lab.cli(&["apply", wanted.to_str().unwrap()]));
        lab.wait("the transaction to begin", || fake.state().reads == Some(0));
        drop(fake);
        cli.join().unwrap()
    });
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("went away before it answered"), "{answer:?}");
    let fake = lab.fake();
    lab.wait_phase("committed");
    assert!(fake.state().objects == before);
}

#[test]
fn a_state_that_is_not_ours_is_left_alone_until_something_is_applied() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    lab.kill();
    std::fs::remove_dir_all(lab.path("state")).unwrap();
    std::fs::remove_file(lab.config_dir().join("config.toml")).unwrap();
    lab.start();
    lab.wait_phase("foreign");
    assert_eq!(fake.take_transactions().len(), 0);
    let status = lab.cli(&["status"]);
    assert!(status.stdout.contains("generation 1") && status.stdout.contains("apply FILE"), "{status:?}");
    let wanted = lab.write("wanted.toml", CONFIG);
    assert_eq!(lab.cli(&["apply", wanted.to_str().unwrap()]).code, 0);
    let transactions = fake.take_transactions();
    assert_eq!((transactions.len(), transactions[0].base), (1, Base::Empty));
}

#[test]
fn garbage_in_the_event_ring_is_skipped() {
    let (lab, fake) = Lab::filled(CONFIG);
    {
        let mut state = fake.state();
        state.records = (0..200u8).map(|number| vec![number ^ 0xa5; usize::from(number)]).collect();
    }
    fake.send(&Event::Committed { transaction: 999, generation: 999, skew_ns: 0 });
    fake.send(&Event::EndOfList { request: 12345 });
    fake.send(&Event::SaSoftLimit(SaIndex(u32::MAX)));
    lab.wait("the records to be taken", || fake.state().records.is_empty());
    let wanted = lab.write("wanted.toml", &format!("{CONFIG}{BRANCH_8}"));
    let answer = lab.cli(&["apply", wanted.to_str().unwrap(), "--json"]).json();
    assert_eq!((&answer["outcome"], &answer["generation"]), (&"committed".into(), &2.into()));
    assert_eq!(fake.state().connections, 1);
}

#[test]
fn a_ring_that_was_broken_is_left_for_a_new_one() {
    let (lab, fake) = Lab::filled(CONFIG);
    fake.state().break_ring = true;
    lab.wait("a second connection", || fake.state().connections == 2);
    lab.wait_phase("committed");
    assert_eq!(fake.take_transactions().len(), 0);
}

#[test]
fn another_version_is_refused_by_name() {
    let mut lab = Lab::new(CONFIG);
    let mut greeting = Greeting::Refused { reason: String::new() }.to_bytes().unwrap();
    greeting[4] = 99;
    let _fake = Fake::start_with(&lab.run_dir(), State { greeting: Some(greeting), ..State::default() });
    lab.start();
    lab.wait("the complaint", || lab.log().contains("speaks version 99"));
    assert!(lab.log().contains("install the same release"));
    assert_eq!(lab.get("/v1/status")["configuration"]["phase"], "pending");
}

#[test]
fn a_dataplane_that_does_not_want_us_says_why() {
    let mut lab = Lab::new(CONFIG);
    let greeting = Greeting::Refused { reason: "user id 7 may not".into() }.to_bytes().unwrap();
    let fake = Fake::start_with(&lab.run_dir(), State { greeting: Some(greeting), ..State::default() });
    lab.start();
    lab.wait("the complaint", || lab.log().contains("user id 7 may not"));
    fake.state().greeting = None;
    lab.wait_phase("committed");
}

#[test]
fn a_configuration_that_is_refused_at_the_start_is_explained_and_can_be_replaced() {
    let mut lab = Lab::new(CONFIG);
    let tunnel = messages::ObjectId::Tunnel(messages::TunnelIndex(0));
    let answers = vec![Answer::Refuse(Refusal::NoRoom(tunnel))];
    let fake = Fake::start_with(&lab.run_dir(), State { answers, ..State::default() });
    lab.start();
    lab.wait_phase("refused");
    let status = lab.cli(&["status"]);
    assert!(status.stdout.contains("tunnel branch-7"), "{status:?}");
    let wanted = lab.write("wanted.toml", &CONFIG.replace("branch-7", "branch-9"));
    assert_eq!(lab.cli(&["apply", wanted.to_str().unwrap()]).code, 0);
    lab.wait_phase("committed");
    let has_tunnel = fake.state().objects.values().any(|object| matches!(object, Object::Tunnel(_)));
    assert!(has_tunnel);
}

#[test]
fn a_wrong_config_toml_is_complained_about_with_its_line_and_can_be_put_right() {
    let mut lab = Lab::new(&CONFIG.replace("\"protected\"", "\"inside\""));
    let _fake = lab.fake();
    lab.start();
    lab.wait("the dataplane", || lab.get("/v1/status")["dataplane"].is_object());
    let status = lab.cli(&["status"]).stdout;
    assert!(
        status.contains("config.toml:") && status.contains("inside") && lab.log().contains("inside"),
        "{status}"
    );
    let wanted = lab.write("config.toml", CONFIG);
    assert_eq!(lab.cli(&["apply", wanted.to_str().unwrap()]).code, 0);
    lab.wait_phase("committed");
}

#[test]
fn a_key_that_others_can_read_keeps_the_state_from_being_filled() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut lab = Lab::new(CONFIG);
    let key = lab.config_dir().join("in.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let fake = lab.fake();
    lab.start();
    lab.wait_phase("refused");
    let status = lab.cli(&["status"]);
    for part in ["sa inbound 0x00001001", "in.key", "0644", "0600"] {
        assert!(status.stdout.contains(part), "{part}: {status:?}");
    }
    assert_eq!(fake.take_transactions().len(), 0);
}

#[test]
fn a_second_control_of_the_same_instance_does_not_start() {
    let (lab, _fake) = Lab::filled(CONFIG);
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_greyhound-control"));
    second.arg("--config-dir").arg(lab.config_dir()).arg("--run-dir").arg(lab.run_dir());
    let output = second.arg("--state-dir").arg(lab.path("state")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--instance"));
    assert_eq!(lab.cli(&["status"]).code, 0, "the first one goes on");
}

#[test]
fn a_damaged_state_stops_control_instead_of_being_overwritten() {
    let (mut lab, _fake) = Lab::filled(CONFIG);
    lab.kill();
    std::fs::write(lab.state("running.toml"), "[[tunnel").unwrap();
    lab.spawn();
    assert_eq!(lab.wait_end(), 1);
    assert!(lab.log().contains("running.toml"));
    assert_eq!(std::fs::read_to_string(lab.state("running.toml")).unwrap(), "[[tunnel");
}

#[test]
fn a_change_made_later_counts_more_than_one_that_was_never_answered() {
    let (lab, fake) = Lab::filled(CONFIG);
    fake.state().reads = Some(1);
    let wanted = lab.write("wanted.toml", &format!("{CONFIG}{BRANCH_8}"));
    let fake_state = std::sync::Arc::clone(&fake.state);
    std::thread::scope(|scope| {
        let cli = scope.spawn(|| lab.cli(&["apply", wanted.to_str().unwrap()]));
        lab.wait("the transaction to begin", || fake_state.lock().unwrap().reads == Some(0));
        drop(fake);
        assert_eq!(cli.join().unwrap().code, 1);
    });
    assert!(lab.state("candidate.toml").exists());
    let later = lab.write("later.toml", &CONFIG.replace("10.2.0.0/16", "10.3.0.0/16"));
    assert!(lab.cli(&["apply", later.to_str().unwrap()]).stdout.contains("pending"));
    assert!(!lab.state("candidate.toml").exists());
    let fake = lab.fake();
    lab.wait_phase("committed");
    assert_eq!(fake.state().objects.len(), 9);
    assert!(lab.cli(&["config"]).stdout.contains("10.3.0.0/16"));
}
