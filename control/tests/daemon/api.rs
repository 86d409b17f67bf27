// SPDX-License-Identifier: Apache-2.0
//! The API as any HTTP client sees it, and the lists of the CLI.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::lab::{CONFIG, Lab};

const POLICIES: &str = r#"
[[policy]]
name = "ike"
port = "wan"
protocol = "udp"
local_ports = "500"
action = "bypass"

[[policy]]
name = "rest"
port = "wan"
action = "discard"
"#;

#[test]
fn every_resource_answers_in_json() {
    let (lab, _fake) = Lab::filled(&format!("{CONFIG}{POLICIES}"));
    let status = lab.get("/v1/status");
    assert_eq!((&status["instance"], &status["dataplane"]["engine"]), (&json!("main"), &json!("fake")));
    assert_eq!(
        (&status["configuration"]["tunnels"], &status["configuration"]["policies"]),
        (&json!(1), &json!(2))
    );
    assert!(status["warnings"][0].as_str().unwrap().contains("RFC 4106"));

    let tunnels = lab.get("/v1/tunnels");
    let tunnel = &tunnels[0];
    assert_eq!(
        (&tunnel["name"], &tunnel["effective_mtu"], &tunnel["egress"]),
        (&json!("branch-7"), &json!(1438), &json!("wan"))
    );
    assert_eq!(
        (&tunnel["packets_out"], &tunnel["bytes_in"], &tunnel["protection"]),
        (&json!(1), &json!(4), &json!("branch-7"))
    );

    let routes = lab.get("/v1/routes");
    let to =
        |prefix: &str| routes.as_array().unwrap().iter().find(|row| row["prefix"] == prefix).unwrap().clone();
    assert_eq!(
        (&to("10.2.0.0/16")["tunnel"], &to("10.2.0.0/16")["origin"]),
        (&json!("branch-7"), &json!("configured"))
    );
    assert_eq!(
        (&to("192.0.2.0/24")["port"], &to("192.0.2.0/24")["origin"]),
        (&json!("wan"), &json!("connected"))
    );

    let policies = lab.get("/v1/policies");
    assert_eq!(
        (&policies[0]["order"], &policies[0]["local_ports"], &policies[1]["order"]),
        (&json!(1), &json!("500"), &json!(2))
    );

    let neighbors = lab.get("/v1/neighbors");
    assert_eq!(
        neighbors,
        json!([{"port": "wan", "address": "192.0.2.9", "mac": "02:00:00:00:00:09", "state": "reachable"}])
    );

    let ports = lab.get("/v1/ports");
    assert_eq!(
        (&ports[1]["name"], &ports[1]["tx_packets"], &ports[1]["side"]),
        (&json!("wan"), &json!(11), &json!("unprotected"))
    );
    assert_eq!(
        (&ports[0]["mac"], &ports[0]["mtu"], &ports[0]["tx_packets"]),
        (&json!("02:00:00:00:00:01"), &json!(1500), &json!(0))
    );
    assert_eq!((&ports[0]["vlan"], &ports[1]["vlan"]), (&Value::Null, &json!(100)));

    let workers = lab.get("/v1/workers");
    assert_eq!(
        (&workers["workers"][1]["cpu"], &workers["workers"][1]["counters"]["received"]),
        (&json!(3), &json!(11))
    );

    let drops = lab.get("/v1/drops");
    assert_eq!(drops.as_array().unwrap().len(), 1);
    assert_eq!(
        (&drops[0]["reason"], &drops[0]["packets"], &drops[0]["workers"]),
        (&json!("bad_icv"), &json!(7), &json!([3, 4]))
    );
    assert_eq!(lab.get("/v1/drops?all=true").as_array().unwrap().len(), messages::DropReason::COUNT);

    let events = lab.get("/v1/events");
    let next = events["next"].as_u64().unwrap();
    assert!(events["events"].as_array().unwrap().len() as u64 == next && next > 0);
    assert_eq!(lab.get(&format!("/v1/events?since={next}"))["events"], json!([]));
}

#[test]
fn the_configuration_is_toml_or_json_as_one_likes() {
    let (lab, fake) = Lab::filled(CONFIG);
    let (status, text) = lab.http_text("GET", "/v1/config", "Accept: */*\r\n", "");
    assert!(status == 200 && text.contains("[[tunnel]]"), "{text}");
    let mut config = lab.get("/v1/config");
    assert_eq!(config["tunnel"][0]["name"], "branch-7");
    config["tunnel"][0]["mtu"] = json!(1300);
    let body = config.to_string();
    let (status, answer) = lab.http_of("PUT", "/v1/config", "application/json", &body);
    assert_eq!((status, &answer["outcome"]), (200, &json!("committed")), "{answer}");
    assert!(answer["changes"][0].as_str().unwrap().contains("mtu"), "{answer}");
    assert_eq!(fake.take_transactions().len(), 1);
}

#[test]
fn failures_are_json_with_a_status_that_fits() {
    let (lab, fake) = Lab::filled(CONFIG);
    let sa = |spi: u32| {
        json!({"protection": "branch-7", "direction": "inbound", "spi": spi, "key": "00"}).to_string()
    };
    for (method, path, body, status, part) in [
        ("GET", "/v1/nothing", "", 404, "no such resource"),
        ("GET", "/", "", 404, "no such resource"),
        ("DELETE", "/v1/status", "", 405, "method"),
        ("PUT", "/v1/config", "[[tunnel", 422, "not valid"),
        ("PUT", "/v1/config?dry_run=perhaps", "", 400, "understood"),
        ("POST", "/v1/config/diff", "port = 7", 422, "not valid"),
        ("PUT", "/v1/config", "[[route]]\nprefix = \"10.0.0.0/8\"\ntunnel = \"x\"", 422, "not valid"),
        ("POST", "/v1/sas", "not json", 400, "understood"),
        ("POST", "/v1/sas", "[]", 400, "understood"),
        ("POST", "/v1/sas", &sa(0x1003), 422, "not valid"),
        ("POST", "/v1/sas", &sa(0x1001), 409, "exists"),
        ("POST", "/v1/sas/replace", "{\"sas\": []}", 400, "no SA"),
        ("POST", "/v1/sas/replace", "{\"sas\": [], \"x\": 1}", 400, "understood"),
        ("DELETE", "/v1/sas/inbound/0x9999", "", 404, "no SA inbound 0x00009999"),
        ("DELETE", "/v1/sas/sideways/1", "", 400, "understood"),
        ("GET", "/v1/events?since=x", "", 400, "understood"),
    ] {
        let (found, answer) = lab.http(method, path, body);
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{method} {path}: {answer}");
        assert!(answer["details"].is_array(), "{method} {path}: {answer}");
    }
    assert_eq!(fake.take_transactions().len(), 0);
    drop(fake);
    lab.wait_phase("pending");
    for path in ["/v1/ports", "/v1/workers", "/v1/drops", "/v1/neighbors"] {
        let (status, answer) = lab.http("GET", path, "");
        assert_eq!(status, 503, "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("greyhound-dataplane"), "{answer}");
    }
    assert_eq!(lab.get("/v1/sas")[0]["installed"], false);
    assert_eq!(lab.get("/v1/tunnels")[0]["installed"], false);
}

#[test]
fn the_cli_lists_what_the_api_knows() {
    let (lab, _fake) = Lab::filled(&format!("{CONFIG}{POLICIES}"));
    for (command, parts) in [
        ("status", ["committed", "engine fake"]),
        ("tunnel list", ["branch-7", "1438"]),
        ("route list", ["tunnel branch-7", "connected"]),
        ("policy list", ["bypass", "any"]),
        ("neighbor list", ["02:00:00:00:00:09", "reachable"]),
        ("port list", ["unprotected", "192.0.2.1/24"]),
        ("worker list --interval 0.1", ["LOAD", "0.0 %"]),
        ("drops", ["bad_icv", "7"]),
        ("drops --workers", ["0: 3", "1: 4"]),
        ("drops --all", ["no_sa", "must be protected"]),
        ("events", ["filled the dataplane", "TIME"]),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let ran = lab.cli(&arguments);
        assert_eq!(ran.code, 0, "{ran:?}");
        for part in parts {
            assert!(ran.stdout.contains(part), "{command}: {part}: {ran:?}");
        }
        let json = lab.cli(&[&arguments[..], &["--json"]].concat()).json();
        assert!(json.is_array() || json.is_object(), "{command}");
    }
    // A word is a cell: each port has a side and one address.
    let ports = lab.cli(&["port", "list"]).stdout;
    let vlans: Vec<_> = ports.lines().map(|line| line.split_whitespace().nth(4)).collect();
    assert_eq!(vlans, [Some("VLAN"), Some("-"), Some("100")], "{ports}");
    let drops = lab.cli(&["--json", "drops"]).json();
    assert_eq!((&drops[0]["reason"], &drops[0]["packets"]), (&json!("bad_icv"), &json!(7)));
}

#[test]
fn watch_prints_a_line_a_look_for_programs() {
    use std::io::BufRead as _;
    let (lab, _fake) = Lab::filled(CONFIG);
    let mut watch = std::process::Command::new(env!("CARGO_BIN_EXE_greyhound"))
        .args(["--json", "--run-dir", lab.run_dir().to_str().unwrap(), "watch", "--interval", "0.1"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(watch.stdout.take().unwrap()).lines().take(2);
    let looks: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!((&looks[0]["connected"], &looks[0]["rates"]), (&json!(true), &Value::Null));
    assert!(looks[0]["events"].as_array().is_some_and(|events| !events.is_empty()));
    assert_eq!(
        (&looks[1]["rates"]["ports"][1]["name"], &looks[1]["rates"]["ports"][1]["tx_pps"]),
        (&json!("wan"), &json!(0.0))
    );
    assert_eq!(looks[1]["events"], json!([]));
}

#[test]
fn who_cannot_reach_control_is_told_by_status_3_and_wrong_usage_by_2() {
    let lab = Lab::new("");
    let ran = lab.cli(&["status"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("control.sock") && ran.stderr.contains("greyhound-control"), "{ran:?}");
    let ran = lab.cli(&["--json", "status"]);
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert!(ran.code == 3 && error["error"].is_string());
    for wrong in [&["dance"][..], &[], &["sa", "replace", "--protection", "p", "--key-stdin"]] {
        assert_eq!(lab.cli(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn the_socket_is_for_its_owner_and_group_and_goes_when_control_stops() {
    let (mut lab, _fake) = Lab::filled(CONFIG);
    let socket = lab.run_dir().join("control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o660);
    assert!(lab.stop());
    assert!(!socket.exists());
}
