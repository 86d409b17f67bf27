// SPDX-License-Identifier: Apache-2.0
//! Whatever is wrong with a file is said in one sentence: where, which entry, what is wrong, what would be right.

use greyhound_config::Config;

const SECOND_SA: &str = "direction = \"inbound\"\nspi = 0x1001\nalgorithm = \"ENCR_AES_GCM_12\"\nkey_id = \"branch-7-in\"\nesn = true\nreplay_window = 64\nowner = 1\n";
const FULL: &str = include_str!("full.toml");

/// `full.toml` with the first `from` replaced.
fn with(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from}");
    FULL.replacen(from, to, 1)
}

/// What is said of a file; the line of a problem is told by the text that stands in it.
fn sentences(text: &str) -> Vec<(String, String)> {
    let error = Config::parse(text, "config.toml").expect_err(text);
    let problem = |problem: &greyhound_config::ParseProblem| {
        let line = problem.line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
        (line.to_owned(), problem.text.clone())
    };
    error.problems().iter().map(problem).collect()
}

/// Each: what is replaced by what, the line that is pointed at, the sentence.
fn check(cases: &[(&str, &str, &str, &str)]) {
    let mut wrong = String::new();
    for (from, to, line, sentence) in cases {
        let said = sentences(&with(from, to));
        if said != [((*line).to_owned(), (*sentence).to_owned())] {
            wrong.push_str(&format!("{from:?} → {to:?}:\n"));
            said.iter()
                .for_each(|(line, sentence)| wrong.push_str(&format!("    {line:?}\n    {sentence:?}\n")));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn values_that_will_not_do() {
    check(&[
        (
            "side = \"protected\"",
            "side = \"inside\"",
            "side = \"inside\"",
            "port lan: side: \"inside\" will not do; give \"protected\" or \"unprotected\"",
        ),
        (
            "manual_keying = \"lab\"",
            "manual_keying = \"production\"",
            "manual_keying = \"production\"",
            "manual_keying: \"production\" will not do; give \"lab\", the only word there is: AES-GCM wants automated keying (RFC 4106 §2, RFC 8221), static keys are for laboratories",
        ),
        (
            "loopbacks = [",
            "loopbacks = [\"10.0.0.0/8\", ",
            "loopbacks = [\"10.0.0.0/8\", \"10.255.0.1/32\", \"2001:db8:ff::1\"]",
            "loopbacks: \"10.0.0.0/8\" will not do; give a single address, as in \"10.255.0.1/32\" or \"2001:db8::1/128\"",
        ),
        (
            "\"10.0.0.1/24\"",
            "\"10.0.0.1\"",
            "addresses = [\"10.0.0.1\", \"2001:db8:1::1/64\"]",
            "port lan: addresses: \"10.0.0.1\" will not do; give address and prefix length, as in \"192.0.2.1/24\" or \"2001:db8::1/64\"",
        ),
        ("mtu = 1400", "mtu = 575", "mtu = 575", "port wan: mtu: 575 is out of range; give 576 to 9216"),
        (
            "mtu = 1400",
            "mtu = \"large\"",
            "mtu = \"large\"",
            "port wan: mtu: string \"large\" will not do; give a number from 576 to 9216",
        ),
        (
            "answer_ping = false",
            "answer_ping = 0",
            "answer_ping = 0",
            "port lan: answer_ping: integer `0` will not do; give true or false",
        ),
        (
            "02:00:00:00:00:09",
            "02:00:00:00:00",
            "mac = \"02:00:00:00:00\"",
            "neighbor 192.0.2.9 on port wan: mac: \"02:00:00:00:00\" will not do; give an Ethernet address, as in \"02:00:00:00:00:09\"",
        ),
        (
            "10.2.0.0/16",
            "10.2.0.0/33",
            "prefix = \"10.2.0.0/33\"",
            "route 10.2.0.0/33: prefix: \"10.2.0.0/33\" will not do; give address and prefix length, as in \"192.0.2.1/24\" or \"2001:db8::1/64\"",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"gateway\"",
            "via = \"gateway\"",
            "route 0.0.0.0/0: via: \"gateway\" will not do; give an IPv4 or IPv6 address, as in \"192.0.2.1\" or \"2001:db8::1\"",
        ),
        (
            "mode = \"transport\"",
            "mode = \"gre\"",
            "mode = \"gre\"",
            "protection branch-7: mode: \"gre\" will not do; give \"transport\" or \"tunnel\"",
        ),
        (
            "tos = \"EF\"",
            "tos = \"gold\"",
            "tos = \"gold\"",
            "protection branch-8: tos: \"gold\" will not do; give \"copy\", a DSCP's name such as \"EF\", or its number from 0 to 63",
        ),
        (
            "tos = 63",
            "tos = 64",
            "tos = 64",
            "tunnel branch-7: tos: 64 will not do; give \"copy\", a DSCP's name such as \"EF\", its number from 0 to 63, or a map, as in \"map uplink\"",
        ),
        (
            "df = \"clear\"",
            "df = true",
            "df = true",
            "protection branch-8: df: boolean `true` will not do; give \"copy\", \"clear\" or \"set\"",
        ),
        ("ttl = 32", "ttl = 0", "ttl = 0", "tunnel branch-7: ttl: 0 is out of range; give 1 to 255"),
        ("ttl = 32", "ttl = 256", "ttl = 256", "tunnel branch-7: ttl: 256 is out of range; give 1 to 255"),
        (
            "key = 7",
            "key = 4294967296",
            "key = 4294967296",
            "tunnel branch-7: key: 4294967296 is out of range; give 0 to 4294967295",
        ),
        ("mtu = 1300", "mtu = 67", "mtu = 67", "tunnel branch-7: mtu: 67 is out of range; give 68 to 9216"),
        (
            "mss = 1200",
            "mss = 100",
            "mss = 100",
            "tunnel branch-7: mss: 100 will not do; give \"automatic\", \"off\" or a number from 216 to 9176",
        ),
        (
            "mss = \"off\"",
            "mss = \"auto\"",
            "mss = \"auto\"",
            "tunnel branch-8: mss: \"auto\" will not do; give \"automatic\", \"off\" or a number from 216 to 9176",
        ),
        (
            "protocol = \"udp\"",
            "protocol = \"upd\"",
            "protocol = \"upd\"",
            "policy ike-bypass: protocol: \"upd\" will not do; give a protocol's name such as \"udp\", or its number from 0 to 255",
        ),
        (
            "\"500-600\"",
            "\"600-500\"",
            "remote_ports = \"600-500\"",
            "policy ike-bypass: remote_ports: \"600-500\" will not do; give one port, as in \"500\", or a range, as in \"500-600\", lowest first",
        ),
        (
            "action = \"bypass\"",
            "action = \"allow\"",
            "action = \"allow\"",
            "policy ike-bypass: action: \"allow\" will not do; give \"protect\", \"bypass\" or \"discard\"",
        ),
        (
            "direction = \"outbound\"",
            "direction = \"out\"",
            "direction = \"out\"",
            "sa out 0x00001001: direction: \"out\" will not do; give \"inbound\" or \"outbound\"",
        ),
        (
            "spi = 0x1001\nalgorithm = \"ENCR_AES_GCM_16\"",
            "spi = 255\nalgorithm = \"ENCR_AES_GCM_16\"",
            "spi = 255",
            "sa outbound 0x000000ff: spi: 255 will not do; give an SPI from 0x100 to 0xffffffff; 0 to 255 are reserved (RFC 4303 §2.1)",
        ),
        (
            "\"ENCR_AES_GCM_12\"",
            "\"aes-gcm\"",
            "algorithm = \"aes-gcm\"",
            "sa inbound 0x00001001: algorithm: \"aes-gcm\" will not do; give \"ENCR_AES_GCM_16\", \"ENCR_AES_GCM_12\" or \"ENCR_AES_GCM_8\"",
        ),
        (
            "replay_window = 64",
            "replay_window = 16384",
            "replay_window = 16384",
            "sa inbound 0x00001001: replay_window: 16384 is out of range; give 0 to 8192",
        ),
        (
            "owner = 1",
            "owner = -1",
            "owner = -1",
            "sa inbound 0x00001001: owner: -1 is out of range; give 0 to 65535",
        ),
        (
            "{ bits = 8, value = 3 }",
            "{ bits = 33, value = 3 }",
            "iv_prefix = { bits = 33, value = 3 }",
            "sa outbound 0x00001001: iv_prefix: 33 is out of range; give 0 to 32",
        ),
        (
            "{ bits = 8, value = 3 }",
            "{ bits = 8 }",
            "iv_prefix = { bits = 8 }",
            "sa outbound 0x00001001: iv_prefix: value is missing; add it",
        ),
        (
            "{ bits = 8, value = 3 }",
            "3",
            "iv_prefix = 3",
            "sa outbound 0x00001001: iv_prefix: integer `3` will not do; give a table, as in { bits = 8, value = 3 }",
        ),
        (
            "protection = \"branch-7\"\ntos",
            "protection = 7\ntos",
            "protection = 7",
            "tunnel branch-7: protection: integer `7` will not do; give a string",
        ),
        (
            "loopbacks = [\"10.255.0.1/32\"",
            "loopbacks = [\"10.255.0.1\", 5",
            "loopbacks = [\"10.255.0.1\", 5, \"2001:db8:ff::1\"]",
            "loopbacks: 5 will not do; give a single address, as in \"10.255.0.1/32\" or \"2001:db8::1/128\"",
        ),
        (
            "loopbacks = [\"10.255.0.1/32\", \"2001:db8:ff::1\"]",
            "loopbacks = \"10.255.0.1\"",
            "loopbacks = \"10.255.0.1\"",
            "loopbacks: string \"10.255.0.1\" will not do; give a list, as in [\"…\"]",
        ),
        (
            "soft_seconds = 3000",
            "soft_seconds = -1",
            "lifetime = { soft_bytes = 1000000, hard_bytes = 2000000, soft_packets = 1000, hard_packets = 2000, soft_seconds = -1, hard_seconds = 3600 }",
            "sa outbound 0x00001001: lifetime: -1 is out of range; give 0 to 4294967295",
        ),
        (
            "soft_seconds = 3000",
            "soft_hours = 1",
            "lifetime = { soft_bytes = 1000000, hard_bytes = 2000000, soft_packets = 1000, hard_packets = 2000, soft_hours = 1, hard_seconds = 3600 }",
            "sa outbound 0x00001001: lifetime: unknown field `soft_hours`, expected one of `soft_bytes`, `hard_bytes`, `soft_packets`, `hard_packets`, `soft_seconds`, `hard_seconds`",
        ),
    ]);
}

#[test]
fn what_is_missing_or_unknown() {
    check(&[
        (
            "side = \"protected\"\n",
            "",
            "[[port]]",
            "port lan: side is missing; add side = \"protected\" or side = \"unprotected\"",
        ),
        (
            "name = \"lan\"\n",
            "",
            "[[port]]",
            "[[port]] number 1: name is missing; add name = \"…\", a port of dataplane.toml",
        ),
        (
            "address = \"192.0.2.9\"\n",
            "",
            "[[neighbor]]",
            "[[neighbor]] number 1: address is missing; add address = \"…\", the neighbor's IPv4 or IPv6 address",
        ),
        (
            "prefix = \"10.2.0.0/16\"\n",
            "",
            "[[route]]",
            "[[route]] number 1: prefix is missing; add prefix = \"…\", such as \"10.2.0.0/16\"",
        ),
        (
            "remote = \"198.51.100.7\"\n",
            "",
            "[[protection]]",
            "protection branch-7: remote is missing; add remote = \"…\", the peer's ESP endpoint's address",
        ),
        (
            "destination = \"198.51.100.7\"\n",
            "",
            "[[tunnel]]",
            "tunnel branch-7: destination is missing; add destination = \"…\", the peer's address in the delivery header",
        ),
        (
            "action = \"bypass\"\n",
            "",
            "[[policy]]",
            "policy ike-bypass: action is missing; add action = \"protect\", action = \"bypass\" or action = \"discard\"",
        ),
        ("spi = 0x2002\n", "", "[[sa]]", "[[sa]] number 3: spi is missing; add spi = …, such as 0x1001"),
        (
            "direction = \"outbound\"\n",
            "",
            "[[sa]]",
            "[[sa]] number 1: direction is missing; add direction = \"inbound\" or direction = \"outbound\"",
        ),
        (
            "answer_ping = false",
            "ping = false",
            "ping = false",
            "port lan: unknown field `ping`, expected one of `name`, `side`, `addresses`, `mtu`, `answer_ping`, `service_policy`",
        ),
        (
            "[[neighbor]]",
            "[[neighbour]]",
            "[[neighbour]]",
            "\"neighbour\" is not known here; there are manual_keying, loopbacks, [[port]], [[neighbor]], [[route]], [[protection]], [[tunnel]], [[policy]], [[sa]], [[class_map]], [[policy_map]] and [[dscp_map]]",
        ),
        ("[[neighbor]]", "[neighbor]", "[neighbor]", "neighbor is a list of tables; write [[neighbor]]"),
        (
            "loopbacks",
            "loopback",
            "loopback = [\"10.255.0.1/32\", \"2001:db8:ff::1\"]",
            "\"loopback\" is not known here; there are manual_keying, loopbacks, [[port]], [[neighbor]], [[route]], [[protection]], [[tunnel]], [[policy]], [[sa]], [[class_map]], [[policy_map]] and [[dscp_map]]",
        ),
        (
            "answer_ping = false",
            "answer_ping = ",
            "answer_ping = ",
            "this is not TOML: string values must be quoted, expected literal string",
        ),
        (
            "answer_ping = false",
            "answer_ping = false\nanswer_ping = true",
            "answer_ping = true",
            "answer_ping is given twice; delete one",
        ),
    ]);
}

#[test]
fn entries_that_contradict_themselves() {
    check(&[
        (
            "name = \"icmp\"",
            "name = \"ic mp\"",
            "name = \"ic mp\"",
            "policy ic mp: name: \"ic mp\" will not do; use 1 to 64 letters, digits, '-', '_' and '.'",
        ),
        (
            "name = \"icmp\"",
            "name = \"\"",
            "name = \"\"",
            "policy : name: \"\" will not do; use 1 to 64 letters, digits, '-', '_' and '.'",
        ),
        (
            "\"10.0.0.1/24\"",
            "\"10.0.0.255/24\"",
            "addresses = [\"10.0.0.255/24\", \"2001:db8:1::1/64\"]",
            "port lan: addresses: 10.0.0.255/24 is a broadcast address of its prefix; give a host's",
        ),
        (
            "\"10.0.0.1/24\"",
            "\"10.0.0.1/0\"",
            "addresses = [\"10.0.0.1/0\", \"2001:db8:1::1/64\"]",
            "port lan: addresses: 10.0.0.1/0 would connect the whole Internet; give the length of the prefix that the port is on",
        ),
        (
            "\"10.0.0.1/24\"",
            "\"224.0.0.1/24\"",
            "addresses = [\"224.0.0.1/24\", \"2001:db8:1::1/64\"]",
            "port lan: addresses: 224.0.0.1 is no host's address; give the address of one host, neither multicast, broadcast, loopback, unspecified nor IPv4-mapped",
        ),
        (
            "02:00:00:00:00:09",
            "03:00:00:00:00:09",
            "mac = \"03:00:00:00:00:09\"",
            "neighbor 192.0.2.9 on port wan: mac: 03:00:00:00:00:09 is not the address of one station; it may be neither multicast nor zero",
        ),
        (
            "10.2.0.0/16",
            "10.2.0.1/16",
            "prefix = \"10.2.0.1/16\"",
            "route 10.2.0.1/16: prefix: 10.2.0.1/16 has bits set behind the prefix length; write 10.2.0.0/16",
        ),
        (
            "tunnel = \"branch-8\"",
            "tunnel = \"branch-8\"\nport = \"wan\"",
            "[[route]]",
            "route 2001:db8:2::/48: leads nowhere or to several places; give exactly one of tunnel, port and discard = true",
        ),
        (
            "tunnel = \"branch-8\"",
            "",
            "[[route]]",
            "route 2001:db8:2::/48: leads nowhere or to several places; give exactly one of tunnel, port and discard = true",
        ),
        (
            "tunnel = \"branch-8\"",
            "tunnel = \"branch-8\"\nvia = \"2001:db8::9\"",
            "via = \"2001:db8::9\"",
            "route 2001:db8:2::/48: via: goes with a port only; add port = \"…\", or leave via out",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"2001:db8::9\"",
            "via = \"2001:db8::9\"",
            "route 0.0.0.0/0: via: 2001:db8::9 is of another family than the prefix; give a next hop of the same",
        ),
        (
            "remote = \"198.51.100.7\"",
            "remote = \"192.0.2.1\"",
            "remote = \"192.0.2.1\"",
            "protection branch-7: remote: 192.0.2.1 is local as well; give the peer's address",
        ),
        (
            "remote = \"198.51.100.7\"",
            "remote = \"2001:db8::7\"",
            "remote = \"2001:db8::7\"",
            "protection branch-7: remote: 2001:db8::7 and local 192.0.2.1 are of two families; give two of one",
        ),
        (
            "destination = \"10.255.0.8\"",
            "destination = \"127.0.0.1\"",
            "destination = \"127.0.0.1\"",
            "tunnel branch-8: destination: 127.0.0.1 is no host's address; give the address of one host, neither multicast, broadcast, loopback, unspecified nor IPv4-mapped",
        ),
        (
            "local = \"192.0.2.1/32\"",
            "local = \"192.0.2.1/24\"",
            "local = \"192.0.2.1/24\"",
            "policy ike-bypass: local: 192.0.2.1/24 has bits set behind the prefix length; write 192.0.2.0/24",
        ),
        (
            "local = \"192.0.2.1/32\"",
            "local = \"2001:db8::/32\"",
            "remote = \"0.0.0.0/0\"",
            "policy ike-bypass: remote: 0.0.0.0/0 and local 2001:db8::/32 are of two families, so that nothing matches; give two of one",
        ),
        (
            "protocol = \"udp\"\nlocal_ports = \"500\"\n",
            "protocol = \"gre\"\n",
            "remote_ports = \"500-600\"",
            "policy ike-bypass: remote_ports: protocol gre has no ports here; use tcp, udp or sctp, or leave remote_ports out",
        ),
        (
            "action = \"bypass\"",
            "action = \"bypass\"\nprotection = \"branch-7\"",
            "protection = \"branch-7\"",
            "policy ike-bypass: protection: goes with action = \"protect\" only; leave it out, or change the action",
        ),
        (
            "action = \"bypass\"",
            "action = \"protect\"",
            "[[policy]]",
            "policy ike-bypass: protection: is missing; action = \"protect\" needs protection = \"…\"",
        ),
        (
            "owner = 1",
            "owner = 1\nkey_file = \"x\"",
            "[[sa]]",
            "sa inbound 0x00001001: needs exactly one of key_file and key_id",
        ),
        (
            "key_id = \"branch-7-in\"\n",
            "",
            "[[sa]]",
            "sa inbound 0x00001001: needs exactly one of key_file and key_id",
        ),
        (
            "key_id = \"branch-7-in\"",
            "key_id = \"../branch\"",
            "key_id = \"../branch\"",
            "sa inbound 0x00001001: key_id: \"../branch\" will not do; use 1 to 64 letters, digits, '-' and '_'",
        ),
        (
            "key_file = \"keys/branch-8-in.key\"",
            "key_file = \"\"",
            "key_file = \"\"",
            "sa inbound 0x00002002: key_file: is empty; say where the key is",
        ),
        (
            "replay_window = 64",
            "replay_window = 100",
            "replay_window = 100",
            "sa inbound 0x00001001: replay_window: 100 will not do; give a power of two from 64 to 8192, or 0 for no check",
        ),
        (
            "replay_window = 64",
            "replay_window = 0",
            "replay_window = 0",
            "sa inbound 0x00001001: replay_window: 0 will not do with esn, whose high half is inferred from the window (RFC 4303 App. A2); give a power of two from 64 to 8192",
        ),
        (
            "replay_window = 64",
            "iv_prefix = { bits = 1, value = 1 }",
            "iv_prefix = { bits = 1, value = 1 }",
            "sa inbound 0x00001001: iv_prefix: is for outbound SAs, whose IVs we choose; leave it out",
        ),
        (
            "{ bits = 8, value = 3 }",
            "{ bits = 8, value = 256 }",
            "iv_prefix = { bits = 8, value = 256 }",
            "sa outbound 0x00001001: iv_prefix: value 256 does not fit 8 bits; give at most 32 bits, and a value below 2 to their power",
        ),
        (
            "iv_prefix = { bits = 8, value = 3 }",
            "replay_window = 64",
            "replay_window = 64",
            "sa outbound 0x00001001: replay_window: is for inbound SAs; leave it out",
        ),
        (
            "iv_prefix = { bits = 8, value = 3 }",
            "owner = 0",
            "owner = 0",
            "sa outbound 0x00001001: owner: is for inbound SAs, whose window one worker owns; leave it out",
        ),
        (
            "soft_packets = 1000",
            "soft_packets = 2001",
            "lifetime = { soft_bytes = 1000000, hard_bytes = 2000000, soft_packets = 2001, hard_packets = 2000, soft_seconds = 3000, hard_seconds = 3600 }",
            "sa outbound 0x00001001: lifetime: soft_packets 2001 is above hard_packets 2000; the soft limit comes first",
        ),
        (
            "manual_keying = \"lab\"\n",
            "",
            "[[sa]]",
            "manual_keying: is missing, but there are SAs with static keys; AES-GCM wants automated keying (RFC 4106 §2, RFC 8221 §3), so write manual_keying = \"lab\" if this is a laboratory",
        ),
    ]);
}

#[test]
fn entries_that_contradict_each_other() {
    check(&[
        (
            "\"10.0.0.1/24\"",
            "\"10.255.0.1/24\"",
            "addresses = [\"10.255.0.1/24\", \"2001:db8:1::1/64\"]",
            "port lan: addresses: 10.255.0.1 is an address of loopbacks already; give it to one of them",
        ),
        (
            "port = \"wan\"\naddress",
            "port = \"dmz\"\naddress",
            "port = \"dmz\"",
            "neighbor 192.0.2.9 on port dmz: port: there is no port \"dmz\"; there are \"lan\", \"wan\"",
        ),
        (
            "tunnel = \"branch-7\"",
            "tunnel = \"branch\"",
            "tunnel = \"branch\"",
            "route 10.2.0.0/16: tunnel: there is no tunnel \"branch\"; there are \"branch-7\", \"branch-8\"",
        ),
        (
            "protection = \"branch-7\"\ntos",
            "protection = \"branch-9\"\ntos",
            "protection = \"branch-9\"",
            "tunnel branch-7: protection: there is no protection \"branch-9\"; there are \"branch-7\", \"branch-8\"",
        ),
        (
            "prefix = \"10.9.0.0/16\"",
            "prefix = \"10.2.0.0/16\"",
            "[[route]]",
            "route 10.2.0.0/16: is there twice; give each a name of its own, or delete one",
        ),
        (
            "port = \"wan\"\nlocal = \"192.0.2.1/32\"",
            "port = \"lan\"\nlocal = \"192.0.2.1/32\"",
            "port = \"lan\"",
            "policy ike-bypass: port: lan is protected and has no SPD; give an unprotected port",
        ),
        (
            "name = \"icmp\"",
            "name = \"sites\"",
            "[[policy]]",
            "policy sites: is there twice; give each a name of its own, or delete one",
        ),
        (
            "spi = 0x2002",
            "spi = 0x1001",
            "[[sa]]",
            "sa inbound 0x00001001: is there twice; give each a name of its own, or delete one",
        ),
        (
            "\"keys/branch-8-in.key\"",
            "\"/etc/greyhound/main/keys/branch-7-out.key\"",
            "key_file = \"/etc/greyhound/main/keys/branch-7-out.key\"",
            "sa inbound 0x00002002: key_file: /etc/greyhound/main/keys/branch-7-out.key is the key of sa outbound 0x00001001 already, which would use nonces twice (RFC 4106 §2); give every SA a key of its own",
        ),
    ]);
}

#[test]
fn what_the_tables_of_the_dataplane_refuse() {
    check(&[
        (
            "\"10.0.0.1/24\"",
            "\"10.0.0.1/24\", \"192.0.2.2/24\"",
            "addresses = [\"10.0.0.1/24\", \"192.0.2.2/24\", \"2001:db8:1::1/64\"]",
            "address 192.0.2.2: connects the same prefix as address 192.0.2.1, but on another port; a prefix belongs to one port",
        ),
        (
            "mtu = 1400",
            "mtu = 1279",
            "[[port]]",
            "port wan: its mtu has to be 576 at least, 1280 at least with an IPv6 address, and no more than mtu_max in dataplane.toml",
        ),
        (
            "address = \"192.0.2.9\"",
            "address = \"192.0.2.1\"",
            "[[neighbor]]",
            "neighbor 192.0.2.1 on port wan: is one of our own addresses",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"192.0.3.254\"",
            "[[route]]",
            "route 0.0.0.0/0: via is no neighbour: it has to lie in a prefix of one of the port's addresses, and neither be one of ours nor a broadcast address",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"192.0.2.255\"",
            "[[route]]",
            "route 0.0.0.0/0: via is no neighbour: it has to lie in a prefix of one of the port's addresses, and neither be one of ours nor a broadcast address",
        ),
        (
            "prefix = \"10.9.0.0/16\"",
            "prefix = \"10.0.0.0/24\"",
            "[[route]]",
            "route 10.0.0.0/24: is connected already, by address 10.0.0.1; leave the route out, or make it longer",
        ),
        (
            "prefix = \"10.9.0.0/16\"",
            "prefix = \"fe80::/16\"",
            "[[route]]",
            "route fe80::/16: no route can lead there: link-local and IPv4-mapped prefixes are not forwarded, and no bit may be set behind the prefix length",
        ),
        (
            "source = \"10.255.0.1\"",
            "source = \"10.255.0.2\"",
            "[[tunnel]]",
            "tunnel branch-8: its source 10.255.0.2 is no address of ours; add it to a port or to loopbacks",
        ),
        (
            "destination = \"10.255.0.8\"",
            "destination = \"192.0.2.1\"",
            "[[tunnel]]",
            "tunnel branch-8: its destination 192.0.2.1 is one of our own addresses; give the peer's",
        ),
        (
            "destination = \"10.255.0.8\"",
            "destination = \"10.0.0.255\"",
            "[[tunnel]]",
            "tunnel branch-8: its two addresses have to be two different hosts of one family; neither may be multicast, broadcast, loopback or unspecified",
        ),
        (
            "source = \"10.255.0.1\"\ndestination = \"10.255.0.8\"",
            "source = \"192.0.2.1\"\nkey = 7\ndestination = \"198.51.100.7\"",
            "[[tunnel]]",
            "tunnel branch-8: has source, destination and key of tunnel branch-7; give one of them another key",
        ),
        (
            "source = \"192.0.2.1\"",
            "source = \"10.255.0.1\"",
            "[[tunnel]]",
            "tunnel branch-7: its source and destination are not local and remote of protection branch-7, as they must be in transport mode; use mode = \"tunnel\", or the same addresses",
        ),
        (
            "local = \"192.0.2.1\"\nremote = \"198.51.100.8\"",
            "local = \"192.0.2.3\"\nremote = \"198.51.100.8\"",
            "[[protection]]",
            "protection branch-8: its local endpoint 192.0.2.3 is no address of ours; add it to a port or to loopbacks",
        ),
        (
            "local = \"192.0.2.1\"\nremote = \"198.51.100.8\"",
            "local = \"10.255.0.1\"\nremote = \"192.0.2.1\"",
            "[[protection]]",
            "protection branch-8: its remote endpoint 192.0.2.1 is one of our own addresses; give the peer's",
        ),
        (
            SECOND_SA,
            "direction = \"outbound\"\nspi = 0x1003\nkey_id = \"other\"\n",
            "[[sa]]",
            "sa outbound 0x00001003: conflicts with sa outbound 0x00001001: a protection has one outbound SA for each class group, and an inbound SPI means one SA; delete the other, or replace it",
        ),
    ]);
}
