// SPDX-License-Identifier: Apache-2.0
//! The shipped profiles of the packet generator, one with everything, and what people get wrong; and frames for its receiver.

use std::path::Path;
use std::{fs, io};

use super::Seed;

const EVERYTHING: &str = r#"
seed = 7
line_bps = 10_000_000_000
answer = { addresses = ["10.0.0.9", "2001:db8::9"], mac = "02:00:00:00:00:05" }
[[open]]
spi = 0x2001
sas = 2
esn = true
lab_key = "4c6142206b65792c206e6f742073656372657421"
[[stream]]
name = "clear"
rate = { line_percent = 40 }
size = { uniform = [100, 110] }
burst = 32
flows = 64
packets = 100
ethernet = { source = { first = "02:00:00:00:01:00", count = 9 }, vlan = { first = 5, last = 9 }, priority = 3 }
ip = { source = { first = "10.1.0.1", count = 64, step = 256, order = "random" }, destination = "10.0.0.1", dscp = "EF", ttl = 9, dont_fragment = true }
icmp = { identifier = { first = 1, last = 9 } }
gre = { source = "192.0.2.1", destination = "192.0.2.2", key = { first = 1, count = 64 }, checksum = true, sequence = true }
[[stream]]
name = "sealed"
rate = "max"
size = "cisco-188"
ip = { source = "2001:db8::1", destination = { first = "2001:db8:1::", count = 400, step = 65537 } }
tcp = { source_port = { first = 1024, last = 65535, order = "random" } }
stamp = false
[stream.esp]
mode = "tunnel"
source = "203.0.113.1"
destination = "203.0.113.2"
spi = 0x1001
sas = 3
icv_bytes = 12
esn = true
first_sequence = 4294967290
lab_key = "4c6142206b65792c206e6f742073656372657421"
"#;

const WRONG: [&str; 6] = [
    "",
    "stream = 3",
    "[[stream]]\nname = \"x\"",
    "[[stream]]\nname = \"x\"\nrate = { pps = 1e300 }\nsize = 64\nburst = 4294967295\nip = { source = \"10.0.0.1\", destination = \"10.0.0.2\" }\nudp = {}",
    "[[stream]]\nname = \"x\"\nrate = { pps = 1e-300 }\nsize = 9216\nip = { source = \"10.0.0.1\", destination = \"::\" }\nudp = {}",
    "[[stream]]\nname = \"x\"\nrate = { pps = 1, l1_bps = 1 }\nsize = { list = [] }\nip = { source = \"10.0.0.1\", destination = \"10.0.0.2\" }",
];

/// Profiles.
pub(super) fn profiles(shipped: &Path) -> io::Result<Vec<Seed>> {
    let mut seeds = vec![("everything".to_owned(), EVERYTHING.into())];
    for entry in fs::read_dir(shipped)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        seeds.push((name, fs::read(&path)?));
    }
    seeds.extend(
        WRONG.iter().zip(0..).map(|(text, number)| (format!("wrong-{number}"), text.as_bytes().to_vec())),
    );
    Ok(seeds)
}

/// Frames in the target's language: those of a stock kernel as they are, and some of each kind that it makes itself.
pub(super) fn received(golden: &[Seed]) -> Vec<Seed> {
    let raw = golden.iter().map(|(name, frame)| {
        let bytes = u16::try_from(frame.len().min(1_500)).unwrap_or(0);
        let input = [&[0, 0][..], &bytes.to_be_bytes(), &frame[..usize::from(bytes)]].concat();
        (format!("kernel-{name}"), input)
    });
    let stamped = |stream: u8, sequence: u8| [&[stream, 0, 0, 0, sequence][..], &[0; 8], &[9]].concat();
    let whole = |sequence| [&[0, 1][..], &stamped(1, sequence), &[0, 0, 0]].concat();
    let sealed = |sequence| [&[0, 2, 0, 0, 0, 0][..], &stamped(0, sequence)].concat();
    let mut seeds: Vec<Seed> = raw.collect();
    seeds.push(("stamped".to_owned(), [0, 1, 3, 2, 2].map(whole).concat()));
    seeds.push(("sealed".to_owned(), [0, 1, 2, 1].map(sealed).concat()));
    seeds.push(("asked".to_owned(), vec![3, 3, 0, 3, 1, 3, 0]));
    seeds
}
