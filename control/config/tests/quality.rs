// SPDX-License-Identifier: Apache-2.0
//! Class-maps, policy-maps and service policies: what is said when they are wrong, and what they become.

use greyhound_config::{
    Config, Environment, EnvironmentPort, Indices, KeySource, Problems, SaEntry, compile, diff,
};
use messages::{Object, Secret, Service, ServiceTarget};

const BRANCH: &str = r#"
[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24"]
service_policy = "uplink"

[[tunnel]]
name = "branch-7"
source = "192.0.2.1"
destination = "192.0.2.7"
service_policy = "branch"

[[policy]]
name = "gre"
port = "wan"
protocol = "gre"
action = "bypass"

[[class_map]]
name = "voice"
criteria = [{ dscp = ["EF"] }]

[[class_map]]
name = "calls"
match = "any"
criteria = [
    { class_map = "voice" },
    { protocol = "udp", destination_ports = "5060-5061" },
]

[[policy_map]]
name = "branch"
shape = { rate = "10 Mbit/s" }
classes = [
    { class = "voice", priority = 0, police = { rate = "1 Mbit/s" } },
    { class = "calls", bandwidth = "20 %" },
    { class = "class-default", bandwidth = "80 %", wred = { min = 20, max = 40 } },
]

[[policy_map]]
name = "uplink"
shape = { rate = "100 Mbit/s" }
classes = [{ class = "class-default", bandwidth = "100 %" }]
"#;

struct NoKeys;

impl KeySource for NoKeys {
    fn secret(&self, _sa: &SaEntry) -> Result<Secret, String> {
        Err("there is no SA".into())
    }
}

fn objects(text: &str, workers: u16) -> Result<Vec<Object>, Problems> {
    let config = Config::parse(text, "branch.toml").unwrap_or_else(|error| panic!("{error}"));
    let ports = vec![EnvironmentPort { name: "wan".into(), mtu_max: 1500, is_tagged: false }];
    let environment = Environment { ports, workers, sas_max: 8, tunnels_max: 8 };
    let compiled = compile(&config, &Indices::default().allocate(&config), &environment, &NoKeys)?;
    Ok(compiled.objects.into_values().collect())
}

/// What is said when the first `from` is `to`.
fn said(from: &str, to: &str) -> Vec<String> {
    assert!(BRANCH.contains(from), "{from}");
    match Config::parse(&BRANCH.replacen(from, to, 1), "branch.toml") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().iter().map(|problem| problem.text.clone()).collect(),
    }
}

#[test]
fn what_is_written_is_what_is_sent() {
    let objects = objects(BRANCH, 1).unwrap_or_else(|problems| panic!("{problems}"));
    let count = |is: fn(&Object) -> bool| objects.iter().filter(|object| is(object)).count();
    assert_eq!(count(|object| matches!(object, Object::ClassMap(_))), 2);
    assert_eq!(count(|object| matches!(object, Object::Criterion(_))), 3);
    assert_eq!(count(|object| matches!(object, Object::PolicyClass(_))), 4);
    let targets: Vec<_> = objects
        .iter()
        .filter_map(|object| match object {
            Object::ServicePolicy(service) => Some((service.target, service.pre_classify)),
            _ => None,
        })
        .collect();
    assert!(matches!(targets[..], [(ServiceTarget::Port(_), true), (ServiceTarget::Tunnel(_), true)]));
}

#[test]
fn vlan_priorities_are_a_set_and_one_to_leave_with() {
    let text = BRANCH.replacen("dscp = [\"EF\"]", "vlan_priority = [0, 5]", 1).replacen(
        "police = { rate = \"1 Mbit/s\" }",
        "set_vlan_priority = 7",
        1,
    );
    let objects = objects(&text, 1).unwrap_or_else(|problems| panic!("{problems}"));
    let sets = objects.iter().filter_map(|object| match object {
        Object::Criterion(criterion) => criterion.vlan_priorities,
        _ => None,
    });
    assert_eq!(sets.collect::<Vec<_>>(), [0b0010_0001]);
    let marks = objects.iter().filter_map(|object| match object {
        Object::PolicyClass(class) => class.set_vlan_priority,
        _ => None,
    });
    assert_eq!(marks.collect::<Vec<_>>(), [7]);
    assert!(said("police = { rate = \"1 Mbit/s\" }", "set_vlan_priority = 8")[0].contains("0 to 7"));
}

#[test]
fn it_is_written_as_a_person_would() {
    let config = Config::parse(BRANCH, "branch.toml").unwrap_or_else(|error| panic!("{error}"));
    let text = config.to_toml();
    assert!(
        text.contains("[[class_map]]\nname = \"voice\"\ncriteria = [\n    { dscp = [\"EF\"] },\n]\n"),
        "{text}"
    );
    assert_eq!(Config::parse(&text, "written"), Ok(config));
}

#[test]
fn a_class_that_changes_is_told_as_a_difference_of_its_policy_map() {
    let before = Config::parse(BRANCH, "before").unwrap_or_else(|error| panic!("{error}"));
    let mut after = before.clone();
    after.policy_maps[1].shape = None;
    after.tunnels[0].pre_classify = false;
    assert_eq!(
        diff(&before, &after).to_string(),
        "~ tunnel branch-7: pre_classify (default) → false\n~ policy_map uplink: shape { rate = \"100 Mbit/s\" } → (default)\n"
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, sentence) in [
        (
            "service_policy = \"branch\"",
            "service_policy = \"brnch\"",
            "tunnel branch-7: service_policy: there is no policy_map \"brnch\"; there are \"branch\", \"uplink\"",
        ),
        (
            "{ class = \"voice\", priority = 0,",
            "{ class = \"vice\", priority = 0,",
            "policy_map branch: classes: class vice: there is no class_map \"vice\"; there are \"voice\", \"calls\"",
        ),
        (
            "criteria = [{ dscp = [\"EF\"] }]",
            "criteria = [{ class_map = \"voice\" }]",
            "class_map voice: criteria: it names itself, directly or through another class-map; break the circle",
        ),
        (
            "criteria = [{ dscp = [\"EF\"] }]",
            "criteria = [{ not = true }]",
            "class_map voice: criteria: number 1: names nothing; say which packets, as in { dscp = [\"EF\"] }",
        ),
        (
            "criteria = [{ dscp = [\"EF\"] }]",
            "criteria = [{ vlan_priority = [5, 8] }]",
            "class_map voice: criteria: number 1: a vlan_priority is out of range; give 0 to 7",
        ),
        (
            "protocol = \"udp\", destination_ports",
            "destination_ports",
            "class_map calls: criteria: number 2: ports need protocol = \"tcp\", \"udp\" or \"sctp\" beside them",
        ),
        (
            "bandwidth = \"20 %\"",
            "bandwidth = \"30 %\"",
            "policy_map branch: classes: the shares are 110 % together; give 100 % at most",
        ),
        (
            "bandwidth = \"20 %\"",
            "bandwidth = \"3 Mbit/s\"",
            "policy_map branch: classes: the shares are more than the shape; lower them, or raise it",
        ),
        (
            "bandwidth = \"20 %\"",
            "bandwidth = \"20 %\", priority = 1",
            "policy_map branch: classes: class calls: needs exactly one of priority and bandwidth, as in priority = 0 or bandwidth = \"30 %\"",
        ),
        (
            "bandwidth = \"20 %\"",
            "priority = 0",
            "policy_map branch: classes: classes voice and calls both have priority 0; give one another, 0 to 2, or put both into one class-map",
        ),
        (
            "police = { rate = \"1 Mbit/s\" }",
            "police = { rate = \"1 Mbit/s\", peak_rate = \"2 Mbit/s\", excess_burst = 3000 }",
            "policy_map branch: classes: class voice: police: peak_rate counts what is above the rate from 0 (RFC 2698), excess_burst and excess_rate beside it (RFC 2697, RFC 4115); give one kind",
        ),
        (
            "police = { rate = \"1 Mbit/s\" }",
            "police = { rate = \"1 Mbit/s\", peak_burst = 3000 }",
            "policy_map branch: classes: class voice: police: peak_burst needs a peak_rate beside it",
        ),
        (
            "police = { rate = \"1 Mbit/s\" }",
            "police = { rate = \"1 Mbit/s\", peak_rate = \"999 kbit/s\" }",
            "policy_map branch: classes: class voice: police: peak_rate is below rate, which it includes; raise it, or use excess_rate",
        ),
        (
            "police = { rate = \"1 Mbit/s\" }",
            "police = { rate = \"1 Mbit/s\", exceed = \"set_dscp AF12\" }",
            "policy_map branch: classes: class voice: police: exceed needs a second bucket, by excess_burst, excess_rate or peak_rate; with one bucket, what is above it violates",
        ),
        (
            "police = { rate = \"1 Mbit/s\" }",
            "police = { rate = \"1 Mbit/s\", yellow = [\"AF12\"], red = [\"AF12\", \"AF13\"] }",
            "policy_map branch: classes: class voice: police: AF12 is both yellow and red; delete it from one",
        ),
        (
            "police = { rate = \"1 Mbit/s\" }",
            "police = { rate = \"1 Mbit/s\", violate = \"AF13\" }",
            "policy_map branch: classes: \"AF13\" will not do; give \"transmit\", \"drop\", or a DSCP to set, as in \"set_dscp AF12\"",
        ),
        (
            "shape = { rate = \"100 Mbit/s\" }\nclasses = [{ class = \"class-default\", bandwidth = \"100 %\" }]",
            "classes = [{ class = \"class-default\", queue_limit = \"9 packets\" }]",
            "policy_map uplink: classes: class class-default: has queue_limit, wred, codel, pie or ecn, but in this policy_map nothing waits; give all classes priority or bandwidth, or leave them out",
        ),
        (
            "wred = { min = 20, max = 40 }",
            "wred = { min = 50, max = 40 }",
            "policy_map branch: classes: class class-default: wred: min 50 may not be above max 40, and one_in is 1 at least",
        ),
        (
            "wred = { min = 20, max = 40 }",
            "ecn = true",
            "policy_map branch: classes: class class-default: ecn marks where wred, codel or pie would drop; add one of them, or leave ecn out",
        ),
        (
            "classes = [{ class = \"class-default\", bandwidth = \"100 %\" }]",
            "classes = []",
            "policy_map uplink: classes: the last class, and no other, has to be \"class-default\": what no other takes",
        ),
        (
            "shape = { rate = \"10 Mbit/s\" }",
            "shape = { rate = \"10 Mb\" }",
            "policy_map branch: shape: \"10 Mb\" will not do; give a rate up to 1000 Gbit/s, as in \"10 Mbit/s\" or \"512 kbit/s\", or a number of bit/s",
        ),
        (
            "shape = { rate = \"10 Mbit/s\" }",
            "shape = { rate = \"10 Mbit/s\", burst = 1500 }",
            "policy_map branch: a burst has to hold the longest packet of the port on the wire, its MTU and 38 bytes of Ethernet, and be 1 GiB at most; raise burst, or leave it out",
        ),
    ] {
        assert_eq!(said(from, to), [sentence], "{to}");
    }
}

#[test]
fn a_policy_map_without_queues_is_for_any_number_of_workers() {
    let policy = |name: &str, classes: &str| {
        format!("[[policy_map]]\nname = \"{name}\"\nclasses = [{classes}{{ class = \"class-default\" }}]\n")
    };
    let (head, _) = BRANCH.split_once("[[policy_map]]").unwrap();
    let voice = "{ class = \"voice\", police = { rate = 1000 }, set_dscp = \"CS5\" },";
    let text = head.to_owned() + &policy("branch", voice) + &policy("uplink", "");
    let objects = objects(&text, 4).unwrap_or_else(|problems| panic!("{problems}"));
    let services = objects.iter().filter_map(|object| match object {
        Object::PolicyClass(class) => Some(class.service),
        _ => None,
    });
    assert_eq!(services.collect::<Vec<_>>(), [Service::Unqueued; 3]);
}

#[test]
fn what_is_wrong_with_maps_of_dscps_is_named() {
    let said = |tos: &str, map: &str| {
        let tunnel = format!("name = \"branch-7\"\n{tos}");
        let map = format!("\n[[dscp_map]]\nname = \"to-wan\"\nmap = [{map}]\n");
        problems(&(BRANCH.replacen("name = \"branch-7\"", &tunnel, 1) + &map))
    };
    let good = "{ from = [\"EF\", 5], to = \"CS5\" }";
    assert_eq!(said("tos = \"map to-wan\"\ninner_tos = \"map to-wan\"", good), [""; 0]);
    assert_eq!(
        said("tos = \"map to-wam\"\ninner_tos = \"map from-wan\"", good),
        [
            "tunnel branch-7: tos: there is no dscp_map \"to-wam\"; there are \"to-wan\"",
            "tunnel branch-7: inner_tos: there is no dscp_map \"from-wan\"; there are \"to-wan\"",
        ]
    );
    let twice = format!("{good}, {{ from = [\"EF\"], to = 1 }}");
    assert_eq!(said("", &twice), ["dscp_map to-wan: map: EF is there twice; delete one"]);
    let none = "{ from = [], to = \"AF11\" }";
    assert_eq!(said("", none), ["dscp_map to-wan: map: from is empty where to is AF11; give DSCPs"]);
}

/// Class-maps of which each names the next one `times`, and the last one a DSCP.
fn chain(length: usize, times: usize) -> String {
    let map = |number: usize| {
        let next = format!("{{ class_map = \"c{}\" }},", number + 1);
        let criteria = if number == length { "{ dscp = [\"EF\"] }".into() } else { next.repeat(times) };
        format!("[[class_map]]\nname = \"c{number}\"\nmatch = \"any\"\ncriteria = [{criteria}]\n")
    };
    (1..=length).map(map).collect()
}

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, "branch.toml") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().iter().map(|problem| problem.text.clone()).collect(),
    }
}

#[test]
fn class_maps_are_nested_8_deep_at_most_however_many_there_are() {
    assert_eq!(problems(&chain(8, 1)), [""; 0]);
    let sentence = |name: &str| {
        format!("class_map {name}: criteria: it is nested 9 deep; 8 at most: name fewer through others")
    };
    assert_eq!(problems(&chain(9, 1)), [sentence("c1")]);
    assert_eq!(problems(&chain(100_000, 1)), [sentence("c99992")]);
}

#[test]
fn class_maps_that_multiply_are_refused_by_name() {
    let sentence = |name: &str, criteria: usize| {
        format!(
            "class_map {name}: criteria: it comes to {criteria} criteria with those of the class-maps that it names; 131072 at most"
        )
    };
    assert_eq!(problems(&chain(6, 10)), [sentence("c1", 11 * 10 + 1_000 + 10_000 + 100_000 + 100_000)]);
    let names: Vec<String> = problems(&chain(8, 12));
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn policy_maps_that_come_to_too_much_together_are_refused_by_name() {
    let policy = |name: &str| {
        format!(
            "[[policy_map]]\nname = \"{name}\"\nclasses = [{{ class = \"c1\", bandwidth = \"50 %\" }}, {{ class = \"class-default\", bandwidth = \"50 %\" }}]\n"
        )
    };
    let text: String = ["a", "b", "c", "d"].map(policy).concat() + &chain(4, 27);
    assert_eq!(
        problems(&text),
        [
            "policy_map d: classes: with those of the policy_maps before it, its class-maps come to 160488 criteria; 131072 at most"
        ]
    );
}

#[test]
fn only_class_maps_of_a_circle_are_told_to_break_it() {
    let map = |name: &str, other: &str| {
        format!("[[class_map]]\nname = \"{name}\"\ncriteria = [{{ class_map = \"{other}\" }}]\n")
    };
    let text = map("a", "b") + &map("b", "c") + &map("c", "b");
    let sentence = |name: &str| {
        format!(
            "class_map {name}: criteria: it names itself, directly or through another class-map; break the circle"
        )
    };
    assert_eq!(problems(&text), [sentence("b"), sentence("c")]);
}

#[test]
fn wred_that_the_queue_limit_forestalls_is_refused() {
    let sentence = |min: u32, packets: u32| {
        format!(
            "policy_map branch: classes: class class-default: wred: it begins at {min} packets, but the queue limit lets {packets} wait at most; lower min, or raise queue_limit"
        )
    };
    let wred = "wred = { min = 20, max = 40 }";
    for (to, problem) in [
        ("wred = { min = 100, max = 200 }", Some(sentence(100, 64))),
        ("wred = { min = 64, max = 64 }", Some(sentence(64, 64))),
        ("wred = { min = 63, max = 200 }", None),
        ("queue_limit = \"8400 bytes\", wred = { min = 100, max = 200 }", Some(sentence(100, 100))),
        ("queue_limit = \"100 ms\", wred = { min = 100, max = 200 }", None),
        ("wred = { min = 100, max = 200, by_dscp = [{ dscp = \"AF13\", min = 10, max = 20 }] }", None),
    ] {
        assert_eq!(said(wred, to), Vec::from_iter(problem), "{to}");
    }
}
