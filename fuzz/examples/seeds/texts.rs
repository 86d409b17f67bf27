// SPDX-License-Identifier: Apache-2.0
//! Configurations: whole ones, and what people get wrong in them.

use super::Seed;

const CONTROL: &str = r#"manual_keying = "lab"
loopbacks = ["10.255.0.1", "2001:db8:ff::1"]

[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24", "2001:db8::1/64"]
mtu = 1500
answer_ping = false

[[port]]
name = "lan"
side = "protected"
addresses = ["10.1.0.1/16"]

[[neighbor]]
port = "wan"
address = "192.0.2.254"
mac = "02:00:00:00:00:09"

[[route]]
prefix = "0.0.0.0/0"
port = "wan"
via = "192.0.2.254"

[[route]]
prefix = "10.2.0.0/16"
tunnel = "branch-7"

[[route]]
prefix = "10.9.0.0/16"
discard = true

[[protection]]
name = "branch-7"
mode = "transport"
local = "192.0.2.1"
remote = "198.51.100.7"

[[protection]]
name = "branch-8"
mode = "tunnel"
local = "192.0.2.1"
remote = "198.51.100.8"
tos = "EF"
df = "clear"
ttl = 255

[[tunnel]]
name = "branch-7"
source = "192.0.2.1"
destination = "198.51.100.7"
key = 7
checksum = true
sequence = true
protection = "branch-7"
tos = 46
df = "set"
ttl = 63
mtu = 1400
mss = 1300
strict_source = true

[[policy]]
name = "ike-bypass"
port = "wan"
local = "192.0.2.1/32"
remote = "0.0.0.0/0"
protocol = "udp"
local_ports = "500"
remote_ports = "500-600"
action = "bypass"

[[policy]]
name = "site-8"
port = "wan"
local = "10.1.0.0/16"
remote = "10.4.0.0/16"
action = "protect"
protection = "branch-8"

[[policy]]
name = "rest"
port = "wan"
protocol = 6
action = "discard"

[[sa]]
protection = "branch-7"
direction = "outbound"
spi = 0x1001
algorithm = "ENCR_AES_GCM_16"
key_file = "/etc/greyhound/main/keys/branch-7-out.key"
esn = true
iv_prefix = { bits = 8, value = 3 }
lifetime = { soft_bytes = 1000, hard_bytes = 2000, soft_packets = 10, hard_packets = 20, soft_seconds = 3600, hard_seconds = 7200 }

[[sa]]
protection = "branch-7"
direction = "inbound"
spi = 0x2001
algorithm = "ENCR_AES_GCM_12"
key_id = "branch-7-in"
replay_window = 2048
owner = 1

[[sa]]
protection = "branch-8"
direction = "inbound"
spi = 8194
algorithm = "ENCR_AES_GCM_8"
key_file = "keys/in"
replay_window = 0
"#;

const DATAPLANE: &str = r#"engine = "auto"
idle = "adaptive"
control_uid = 1000
sas_max = 8192
tunnels_max = 4096
neighbors_max = 16384

[memory]
packets = 65536
mib = 512
huge_pages = false

[[worker]]
cpu = 2

[[worker]]
cpu = 3

[[port]]
name = "wan"
device = "net_af_packet0,iface=eth1,framecnt=4096"
mtu_max = 1500
rx_descriptors = 512

[[port]]
name = "lan"
device = "0000:3b:00.0"
tx_descriptors = 2048
"#;

/// What a word of a whole file becomes in another input.
const CHANGES: [(&str, &str); 14] = [
    ("\"wan\"", "\"w\\u0061n\""),
    ("lab", "yes"),
    ("192.0.2.1/24", "192.0.2.1"),
    ("10.2.0.0/16", "10.2.0.1/16"),
    ("198.51.100.7", "2001:db8:1::7"),
    ("0x1001", "255"),
    ("replay_window = 2048", "replay_window = 100"),
    ("500-600", "600-500"),
    ("\"transport\"", "\"beet\""),
    ("mtu = 1400", "mtu = 65536"),
    ("name = \"branch-8\"", "name = \"branch-7\""),
    ("key_id", "keyid"),
    ("cpu = 3", "cpu = 2"),
    ("mtu_max = 1500", "mtu_max = 65535"),
];

pub(super) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (kind, name, text) in [(0, "control", CONTROL), (1, "dataplane", DATAPLANE)] {
        seeds.push((name.to_owned(), input(kind, text)));
        let changed = CHANGES.iter().filter(|(from, _)| text.contains(from)).enumerate();
        seeds.extend(
            changed.map(|(number, (from, to))| {
                (format!("{name}-{number}"), input(kind, &text.replace(from, to)))
            }),
        );
        let tables = text.split("\n\n").enumerate();
        seeds.extend(tables.map(|(number, table)| (format!("{name}-table-{number}"), input(kind, table))));
    }
    seeds
}

fn input(kind: u8, text: &str) -> Vec<u8> {
    [&[kind], text.as_bytes()].concat()
}
