// SPDX-License-Identifier: Apache-2.0
//! Each shipped profile, rendered: byte for byte the stored capture, and nothing that tshark calls malformed.
//!
//! After a change that is meant to change them: `GREYHOUND_WRITE_GOLDENS=1 cargo test -p greyhound-pktgen --test golden`,
//! and look at what changed before committing it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use aead::Engine;
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::render::{Extent, render};

const PACKETS: u64 = 200;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The shipped profiles, by name.
fn shipped() -> Vec<String> {
    let files = std::fs::read_dir(folder("profiles")).unwrap();
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> =
        files.map(name).filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect();
    names.sort();
    names
}

fn rendered(name: &str, engine: Engine) -> Vec<u8> {
    let profiles = folder("profiles");
    let profile = Profile::read(&profiles.join(format!("{name}.toml"))).unwrap();
    let extent = Extent { packets: PACKETS, ns: 1_000_000_000 };
    let mut capture = Vec::new();
    render(&profile, &profiles, engine, extent, &mut capture)
        .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    capture
}

fn golden(name: &str) -> PathBuf {
    folder("tests/golden").join(format!("{name}.pcap"))
}

#[test]
fn every_shipped_profile_renders_to_its_stored_capture_with_every_engine() {
    let write = std::env::var_os("GREYHOUND_WRITE_GOLDENS").is_some();
    let names = shipped();
    assert!(names.len() >= 8);
    for name in names {
        let path = golden(&name);
        if write {
            std::fs::write(&path, rendered(&name, Engine::best())).unwrap();
        }
        let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for engine in Engine::available() {
            let rendered = rendered(&name, engine);
            assert!(rendered == stored, "{name}: {engine:?} renders another capture than {}", path.display());
        }
    }
}

#[test]
fn the_profile_in_the_manual_is_understood() {
    let manual = std::fs::read_to_string(folder("../docs/pktgen.md")).unwrap();
    let (_, rest) = manual.split_once("```toml\n").unwrap();
    let (profile, _) = rest.split_once("```").unwrap();
    let profile = Profile::parse(profile).unwrap_or_else(|error| panic!("{error}"));
    assert!(profile.streams().len() == 1 && profile.open.len() == 1);
}

#[test]
fn no_capture_is_left_over_from_a_profile_that_is_gone() {
    let stored = std::fs::read_dir(folder("tests/golden")).unwrap();
    let stored =
        stored.map(|file| file.unwrap().path()).filter(|path| path.extension() == Some("pcap".as_ref()));
    let mut stored: Vec<_> =
        stored.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    stored.sort();
    assert_eq!(stored, shipped());
}

#[test]
fn tshark_finds_no_packet_malformed_and_every_checksum_good() {
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("skip: tshark is not installed (scripts/setup.sh)");
        return;
    }
    for name in shipped() {
        let checks = ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"];
        let mut command = Command::new("tshark");
        command.arg("-r").arg(golden(&name)).args([
            "-T",
            "fields",
            "-e",
            "frame.number",
            "-e",
            "frame.protocols",
        ]);
        command.args(checks.iter().flat_map(|check| ["-o".to_owned(), format!("{check}:TRUE")]));
        let read = |filter: &str| {
            let output = command_with(&command, filter).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(read("frame").lines().count() as u64, PACKETS, "{name}");
        let wrong = read("_ws.malformed || _ws.expert.severity == error || _ws.short");
        assert_eq!(wrong, "", "{name}");
        let bad_sum = "ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0 || \
                       icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || gre.checksum.status == 0";
        assert_eq!(read(bad_sum), "", "{name}");
    }
}

fn command_with(command: &Command, filter: &str) -> Command {
    let mut with = Command::new(command.get_program());
    with.args(command.get_args()).args(["-Y", filter]);
    with
}
