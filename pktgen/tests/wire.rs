// SPDX-License-Identifier: Apache-2.0
//! Whole trials through memory ports, whose wire does what it is told: the counts must say what it did.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aead::Engine;
use greyhound_pktgen::device::{Ports, Settings};
use greyhound_pktgen::outcome::{ArrivedOutcome, Outcome};
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::trial::Trial;

const KEY: &str = "000102030405060708090a0b0c0d0e0f10111213";

/// Sends 20,000 packets of each stream.
fn run(device: &str, profile: &str) -> Outcome {
    let profile = Profile::parse(profile).unwrap();
    let ports = Ports::open(Some(device), Some(device), &Settings::new(1_600, 2_048)).unwrap();
    let trial = Trial {
        profile: &profile,
        folder: Path::new(""),
        engine: Engine::best(),
        seconds: 60.0,
        // Longer than a busy machine keeps the wire's thread waiting.
        settle: Duration::from_secs(1),
        cpus: &[],
        receive: true,
        stop: &AtomicBool::new(false),
    };
    trial.run(&ports, &mut |_| {}).unwrap()
}

fn stream(name: &str, more: &str) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\nrate = {{ pps = 100000 }}\npackets = 20000\nsize = 128\n\
         ip = {{ source = \"10.0.0.1\", destination = \"10.1.0.1\" }}\nudp = {{}}\n{more}\n"
    )
}

fn through(wire: &str) -> (Outcome, ArrivedOutcome) {
    let outcome = run(wire, &stream("one", ""));
    let arrived = outcome.streams[0].arrived.clone().unwrap();
    assert_eq!(outcome.streams[0].sent.packets, 20_000);
    assert_eq!(arrived.received + arrived.lost, 20_000);
    (outcome, arrived)
}

/// Lost, reordered, duplicated, corrupt.
fn counts(arrived: &ArrivedOutcome) -> [u64; 4] {
    [arrived.lost, arrived.reordered, arrived.duplicated, arrived.corrupt]
}

#[test]
fn what_is_sent_through_memory_arrives_once_in_order_and_whole() {
    let (outcome, arrived) = through("memory");
    assert_eq!(counts(&arrived), [0; 4]);
    assert_eq!((outcome.foreign, outcome.device.transmitted, outcome.device.received), (0, 20_000, 20_000));
    assert!(outcome.sender.kept_up && arrived.latency_us.is_some());
}

#[test]
fn loss_copies_and_reordering_are_counted_as_the_wire_made_them() {
    let (_, lost) = through("memory,loss_ppm=250000,seed=3");
    assert!((4_700..5_300).contains(&lost.lost) && lost.reordered == 0, "{lost:?}");
    let (_, doubled) = through("memory,duplicate_ppm=1000000");
    assert_eq!(counts(&doubled), [0, 0, 20_000, 0]);
    let (_, reordered) = through("memory,reorder_ppm=10000,seed=5");
    // One that is held back when the last has passed stays on the wire.
    assert!((100..300).contains(&reordered.reordered) && reordered.lost <= 8, "{reordered:?}");
}

#[test]
fn a_damaged_packet_is_corrupt_or_foreign_and_never_received() {
    let (outcome, arrived) = through("memory,corrupt_ppm=1000000,seed=1");
    // What the damage hits besides addresses, ports and MAC addresses shows.
    assert!(arrived.corrupt > 12_000 && outcome.foreign > 1_000, "{arrived:?}");
    assert_eq!(arrived.received + arrived.corrupt + outcome.foreign, 20_000);
}

#[test]
fn a_wire_that_delays_shows_in_the_least_latency() {
    let (_, arrived) = through("memory,delay_us=1000");
    let latency = arrived.latency_us.unwrap();
    assert!(latency.min >= 1_000.0 && arrived.lost == 0, "{latency:?}");
}

#[test]
fn streams_are_told_apart() {
    let profile = stream("one", "") + &stream("two", "flows = 2");
    let outcome = run("memory", &profile);
    let received: Vec<_> =
        outcome.streams.iter().map(|stream| stream.arrived.as_ref().unwrap().received).collect();
    assert_eq!(received, [20_000; 2]);
}

#[test]
fn what_comes_back_sealed_is_opened_with_the_sas_of_the_profile() {
    for esn in [false, true] {
        let sealed = format!("esp = {{ spi = 4096, sas = 3, esn = {esn}, lab_key = \"{KEY}\" }}");
        let gre = "gre = { source = \"192.0.2.1\", destination = \"198.51.100.1\", checksum = true }\n";
        let open = format!("[[open]]\nspi = 4096\nsas = 3\nesn = {esn}\nlab_key = \"{KEY}\"\n");
        for more in [sealed.clone(), format!("{gre}{sealed}")] {
            let outcome = run("memory", &(open.clone() + &stream("one", &more)));
            assert_eq!(counts(outcome.streams[0].arrived.as_ref().unwrap()), [0; 4], "{more}");
        }
        let unopened = run("memory", &stream("one", &sealed));
        assert_eq!((unopened.foreign, unopened.streams[0].arrived.as_ref().unwrap().received), (20_000, 0));
    }
}
