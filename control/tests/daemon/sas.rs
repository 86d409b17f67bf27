// SPDX-License-Identifier: Apache-2.0
//! SAs one by one: added, replaced without a gap, deleted; and keys that turn up nowhere but where they belong.

use std::os::unix::fs::PermissionsExt as _;

use messages::{Direction, Event, Object, ObjectId, Refusal, Request, SaIndex};
use serde_json::json;

use crate::fake::{Answer, name_of};
use crate::lab::{CONFIG, Lab, key_line};

/// What a transaction does to SAs, in its order.
fn steps(changes: &[Request]) -> Vec<String> {
    let step = |change: &Request| match change {
        Request::Put(Object::Sa(sa)) => format!("put {}", name_of(sa)),
        Request::Delete(ObjectId::Sa(_)) => "delete".to_owned(),
        other => format!("{other:?}"),
    };
    changes.iter().map(step).collect()
}

fn pair(spi: u32, grace: &str) -> Vec<String> {
    let arguments = format!(
        "sa replace --protection branch-7 --inbound-spi 0x{:x} --outbound-spi 0x{:x} --key-stdin --grace {grace}",
        0x1000 + spi,
        0x2000 + spi
    );
    arguments.split(' ').map(str::to_owned).collect()
}

fn replace_pair(lab: &Lab, spi: u8, grace: &str) -> crate::lab::Ran {
    let arguments = pair(spi.into(), grace);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.cli_with(&arguments, &format!("{}\n{}\n", key_line(spi + 0x40), key_line(spi + 0x80)))
}

#[test]
fn an_sa_from_standard_input_runs_survives_and_leaves_no_trace_of_its_key() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    let add =
        ["sa", "add", "--protection", "branch-7", "--direction", "inbound", "--spi", "0x1009", "--key-stdin"];
    let answer = lab.cli_with(&[&add[..], &["--esn", "--replay-window", "64"]].concat(), &key_line(9));
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stderr.contains("RFC 4106"), "{answer:?}");
    assert_eq!(fake.sas(), ["inbound 0x00001001", "inbound 0x00001009", "outbound 0x00002001"]);
    let put = fake.take_transactions().remove(0).changes.remove(0);
    let Request::Put(Object::Sa(sa)) = put else { panic!("{put:?}") };
    assert_eq!((sa.esn, sa.replay_window, sa.direction), (true, 64, Direction::Inbound));
    assert_eq!(hex::encode([sa.key.secret.key(), sa.key.secret.salt()].concat()), key_line(9));

    let keys: Vec<_> =
        lab.state_files().into_iter().filter(|(_, content)| content.contains("c0ffee")).collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(std::fs::metadata(&keys[0].0).unwrap().permissions().mode() & 0o7777, 0o600);
    let shown =
        [lab.log(), answer.stdout, lab.cli(&["config"]).stdout, lab.cli(&["sa", "list", "--json"]).stdout];
    assert!(!shown.concat().contains("c0ffee"));

    lab.kill();
    lab.start();
    lab.wait_phase("committed");
    assert_eq!(fake.take_transactions().len(), 0, "the key was found again");
    assert_eq!(lab.cli(&["sa", "delete", "inbound", "0x1009"]).code, 0);
    assert_eq!(fake.sas().len(), 2);
    assert!(!keys[0].0.exists(), "a key that no SA uses is removed");
}

#[test]
fn a_list_shows_configuration_and_state_together() {
    let (lab, _fake) = Lab::filled(CONFIG);
    let list = lab.cli(&["sa", "list", "--json"]).json();
    let [inbound, outbound] = &list.as_array().unwrap()[..] else { panic!("{list}") };
    assert_eq!(
        (&inbound["name"], &inbound["right_edge"], &inbound["owner"]),
        (&json!("inbound 0x00001001"), &json!(10), &json!(1))
    );
    assert_eq!(
        (&outbound["spi"], &outbound["next_sequence"], &outbound["protection"]),
        (&json!(0x2001), &json!(11), &json!("branch-7"))
    );
    assert_eq!(
        (&outbound["installed"], &outbound["algorithm"], &outbound["age_seconds"]),
        (&json!(true), &json!("ENCR_AES_GCM_16"), &json!(2))
    );
    let table = lab.cli(&["sa", "list"]).stdout;
    assert!(table.starts_with("DIRECTION") && table.contains("0x00002001"), "{table}");
}

#[test]
fn a_pair_is_replaced_make_before_break_and_the_old_inbound_sa_goes_after_its_grace() {
    let (lab, fake) = Lab::filled(CONFIG);
    let answer = replace_pair(&lab, 2, "1");
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.contains("sa inbound 0x00001001 goes in"), "{answer:?}");
    lab.wait("the old inbound SA to go", || fake.sas() == ["inbound 0x00001002", "outbound 0x00002002"]);
    let transactions = fake.take_transactions();
    let steps: Vec<_> = transactions.iter().map(|transaction| steps(&transaction.changes)).collect();
    assert_eq!(steps[0], ["put inbound 0x00001002"], "first a new SA to open with");
    assert_eq!(steps[1].last().unwrap(), "put outbound 0x00002002", "then a new SA to seal with");
    assert!(!steps[1].contains(&"put inbound 0x00001001".to_owned()));
    assert_eq!(steps[2], ["delete"]);
    assert_eq!(steps.len(), 3);
    lab.wait("the end of retiring", || lab.get("/v1/status")["retiring"] == json!([]));
    lab.wait("the event", || lab.cli(&["events"]).stdout.contains("retired SA inbound 0x00001001"));
}

#[test]
fn a_grace_outlives_control() {
    let (mut lab, fake) = Lab::filled(CONFIG);
    assert_eq!(replace_pair(&lab, 2, "2").code, 0);
    lab.kill();
    assert_eq!(fake.sas().len(), 3);
    lab.start();
    lab.wait("the old inbound SA to go", || fake.sas() == ["inbound 0x00001002", "outbound 0x00002002"]);
}

#[test]
fn without_grace_the_old_inbound_sa_is_gone_when_the_answer_comes() {
    let (lab, fake) = Lab::filled(CONFIG);
    for spi in 2..12 {
        let answer = replace_pair(&lab, spi, "0");
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(
            fake.sas(),
            [
                format!("inbound 0x{:08x}", 0x1000 + u32::from(spi)),
                format!("outbound 0x{:08x}", 0x2000 + u32::from(spi))
            ]
        );
    }
    let keys = lab.state_files().into_iter().filter(|(_, content)| content.contains("c0ffee")).count();
    assert_eq!(keys, 2, "old keys are removed");
}

#[test]
fn one_direction_is_replaced_and_takes_over_what_is_not_said() {
    let config = CONFIG.replace("spi = 0x2001", "spi = 0x2001\nesn = true\nlifetime = { hard_bytes = 1000 }");
    let (lab, fake) = Lab::filled(&config);
    lab.write("new.key", &key_line(5));
    let arguments = [
        "sa",
        "replace",
        "--protection",
        "branch-7",
        "--direction",
        "outbound",
        "--spi",
        "0x2005",
        "--key-file",
        "new.key",
    ];
    let answer = lab.cli(&[&arguments[..], &["--algorithm", "ENCR_AES_GCM_12"]].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(fake.take_transactions().len(), 1);
    let state = fake.state();
    let sa = state.objects.values().find_map(|object| match object {
        Object::Sa(sa) if sa.direction == Direction::Outbound => Some(sa.clone()),
        _ => None,
    });
    let sa = sa.unwrap();
    assert_eq!((sa.spi, sa.esn, sa.lifetime.hard_bytes, sa.key.icv_bytes), (0x2005, true, 1000, 12));
}

#[test]
fn a_replacement_that_is_refused_half_way_is_taken_back() {
    let (lab, fake) = Lab::filled(CONFIG);
    fake.state().answers =
        vec![Answer::Commit, Answer::Refuse(Refusal::StoreWrite(ObjectId::Sa(SaIndex(1))))];
    let answer = replace_pair(&lab, 2, "30");
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("outbound"), "{answer:?}");
    assert_eq!(fake.sas(), ["inbound 0x00001001", "outbound 0x00002001"]);
    assert!(!lab.cli(&["config"]).stdout.contains("4098"));
    assert_eq!(lab.get("/v1/status")["retiring"], json!([]));
    assert!(
        !lab.state_files().iter().any(|(_, content)| content.contains("c0ffee")),
        "the keys were removed"
    );
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let (lab, fake) = Lab::filled(CONFIG);
    let add = |spi: &str, protection: &str, key: &str| {
        lab.cli_with(
            &["sa", "add", "--protection", protection, "--direction", "inbound", "--spi", spi, "--key-stdin"],
            key,
        )
    };
    for (answer, part) in [
        (add("0x1001", "branch-7", &key_line(3)), "exists already"),
        (add("0x1003", "nobody", &key_line(3)), "nobody"),
        (add("0x1003", "branch-7", &key_line(1)), "key"),
        (add("0x1003", "branch-7", "c0ffee"), "20 (AES-128)"),
        (add("0x1003", "branch-7", "not hex"), "hex"),
        (add("0x1003", "branch-7", ""), "0 lines"),
        (lab.cli(&["sa", "delete", "outbound", "0x1001"]), "there is no SA outbound 0x00001001"),
    ] {
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(answer.stderr.contains(part) && !answer.stderr.contains("c0ffee"), "{part}: {answer:?}");
    }
    // The same key for both directions would repeat nonces.
    let arguments = pair(2, "0");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let answer = lab.cli_with(&arguments, &format!("{}\n{}\n", key_line(7), key_line(7)));
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(fake.take_transactions().len(), 0);
    assert!(!lab.state_files().iter().any(|(_, content)| content.contains("c0ffee")));
}

#[test]
fn a_dry_run_of_an_sa_leaves_nothing_behind() {
    let (lab, fake) = Lab::filled(CONFIG);
    let add = [
        "sa",
        "add",
        "--protection",
        "branch-7",
        "--direction",
        "inbound",
        "--spi",
        "0x1009",
        "--key-stdin",
        "--dry-run",
    ];
    assert_eq!(lab.cli_with(&add, &key_line(9)).code, 0);
    assert_eq!(lab.cli(&["sa", "delete", "inbound", "0x1001", "--dry-run"]).code, 0);
    assert_eq!((fake.sas().len(), fake.state().generation), (2, 1));
    assert!(!lab.state_files().iter().any(|(_, content)| content.contains("c0ffee")));
}

#[test]
fn a_worn_sa_is_reported_by_name() {
    let (lab, fake) = Lab::filled(CONFIG);
    fake.send(&Event::SaSoftLimit(SaIndex(1)));
    fake.send(&Event::SaHardLimit(SaIndex(0)));
    fake.send(&Event::StoreFailing);
    lab.wait("the events", || lab.cli(&["events"]).stdout.contains("store of sequence numbers"));
    let events = lab.cli(&["events"]).stdout;
    assert!(events.contains("sa outbound 0x00002001 reached a soft lifetime limit"), "{events}");
    assert!(events.contains("sa inbound 0x00001001 reached a hard lifetime limit"), "{events}");
}

#[test]
fn sas_are_changed_while_the_dataplane_is_away_too() {
    let (lab, fake) = Lab::filled(CONFIG);
    drop(fake);
    lab.wait_phase("pending");
    let answer = replace_pair(&lab, 2, "0");
    assert!(answer.code == 0 && answer.stdout.contains("pending"), "{answer:?}");
    let fake = lab.fake();
    lab.wait_phase("committed");
    assert_eq!(fake.sas(), ["inbound 0x00001002", "outbound 0x00002002"]);
}
