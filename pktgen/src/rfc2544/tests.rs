// SPDX-License-Identifier: Apache-2.0
//! The searches against devices that are only arithmetic.

use super::*;
use crate::outcome::{ArrivedOutcome, DeviceCounts, SenderOutcome, StreamOutcome, Volume};
use crate::random::Random;

/// A device that carries so many packets a second and holds so many.
struct Model {
    carries_pps: f64,
    holds: f64,
    generator_pps: f64,
    trials: usize,
    /// How many of a hundred trials lose a packet whatever the rate, and what decides.
    hiccups: u64,
    chance: Random,
    /// Whether it pushes back in place of losing, so that trials take longer.
    stretches: bool,
}

impl Tester for Model {
    fn trial(&mut self, profile: &Profile, seconds: f64) -> anyhow::Result<Outcome> {
        self.trials += 1;
        let stream = profile.streams().next().unwrap();
        let Sizes::Sequence(sizes) = &stream.size else { panic!() };
        let asked = 1.0 / stream.rate.seconds(usize::from(sizes[0]) - FCS_BYTES, profile.line_bps.unwrap());
        let pps = asked.min(self.generator_pps);
        let packets = stream.packets.map_or(pps * seconds, |packets| packets as f64).floor();
        let carried = packets / pps * self.carries_pps + self.holds;
        let hiccup = u64::from(self.chance.below(100) < self.hiccups);
        let seconds = if self.stretches { packets / pps.min(self.carries_pps) } else { seconds };
        let carried = if self.stretches { packets } else { carried };
        let lost = (packets - carried).max(0.0) as u64 + hiccup;
        let arrived = ArrivedOutcome {
            received: packets as u64 - lost,
            pps,
            lost,
            reordered: 0,
            duplicated: 0,
            too_late: 0,
            corrupt: 0,
            longest_pause: 0.25,
            latency_us: None,
            latency_cdf: Vec::new(),
        };
        Ok(Outcome {
            frame_sizes: FRAME_SIZES.to_owned(),
            seconds,
            streams: vec![StreamOutcome {
                name: stream.name.clone(),
                size: String::new(),
                rate: String::new(),
                sent: Volume::new(packets as u64, packets as u64 * u64::from(sizes[0]), seconds),
                next_sequence: stream.esp.as_ref().map(|esp| esp.first_sequence + packets as u64),
                arrived: Some(arrived),
            }],
            foreign: 0,
            answered: 0,
            sender: SenderOutcome { kept_up: pps >= asked, ..SenderOutcome::default() },
            device: DeviceCounts::default(),
        })
    }

    fn progress(&mut self, _what: &str) {}
}

fn model(carries_pps: f64) -> Model {
    Model {
        carries_pps,
        holds: 0.0,
        generator_pps: 1e9,
        trials: 0,
        hiccups: 0,
        chance: Random::new(7),
        stretches: false,
    }
}

fn settings(benchmarks: &[Benchmark]) -> Settings {
    Settings {
        sizes: vec![64],
        trial_seconds: 10.0,
        resolution_percent: 0.1,
        trials: 1,
        exceed_percent: 0.0,
        most_percent: 100.0,
        partial_drop_percent: 1.0,
        repeats: 3,
        line_bps: 10_000_000_000,
        benchmarks: benchmarks.to_vec(),
        reset_command: Some("true".to_owned()),
        reset_limit: shell::LIMIT,
    }
}

fn profile() -> Profile {
    let text = "[[stream]]\nname = \"one\"\nrate = { pps = 1 }\nsize = 64\nudp = {}\n\
                ip = { source = \"10.0.0.1\", destination = \"10.1.0.1\" }\n\
                esp = { spi = 256, lab_key = \"000102030405060708090a0b0c0d0e0f10111213\" }\n";
    Profile::parse(text).unwrap()
}

/// Of the line of 10 Gbit/s in frames of 64 bytes.
const LINE_PPS: f64 = 1e10 / 672.0;

#[test]
fn the_searches_end_within_the_resolution_of_what_the_device_does() {
    for percent in [0.3, 37.77, 99.95] {
        let mut model = model(LINE_PPS * percent / 100.0);
        let report = run(&mut profile(), &settings(&[Benchmark::Throughput]), &mut model).unwrap();
        let result = &report.sizes[0];
        let no_drop = result.no_drop.as_ref().unwrap();
        let found = no_drop.point.unwrap().percent;
        assert!(found <= percent * (1.0 + 1e-6) && found > percent * 0.999, "{percent}: {found}");
        assert_eq!((no_drop.found_percent.len(), no_drop.spread_percent), (3, 0.0));
        let partial = result.partial_drop.as_ref().unwrap().point.unwrap();
        assert!(
            partial.percent > (percent * 1.009).min(100.0) - 0.1 && partial.loss_percent <= 1.0,
            "{partial:?}"
        );
        assert!(model.trials < 3 * 30, "{} trials", model.trials);
    }
}

#[test]
fn a_device_that_is_held_up_now_and_then_is_found_again_within_three_percent() {
    let spread = |trials, exceed_percent| {
        let mut model = Model { hiccups: 25, ..model(LINE_PPS * 0.05) };
        let settings = Settings {
            repeats: 9,
            resolution_percent: 0.5,
            trials,
            exceed_percent,
            ..settings(&[Benchmark::Throughput])
        };
        let report = run(&mut profile(), &settings, &mut model).unwrap();
        report.sizes[0].no_drop.as_ref().unwrap().spread_percent
    };
    assert!(spread(1, 0.0) > 30.0, "{}", spread(1, 0.0));
    assert!(spread(5, 80.0) < 3.0, "{}", spread(5, 80.0));
}

#[test]
fn a_rate_has_no_more_trials_than_decide() {
    let mut model = model(1e9);
    let decide =
        Settings { repeats: 1, trials: 5, exceed_percent: 50.0, ..settings(&[Benchmark::Throughput]) };
    run(&mut profile(), &decide, &mut model).unwrap();
    // Three that pass of five, of which two may fail; the partial drop rate is known with that.
    assert_eq!(model.trials, 3);
}

#[test]
fn where_no_rate_passed_there_is_no_throughput_to_measure_latency_at() {
    let all = [Benchmark::Throughput, Benchmark::Latency, Benchmark::Reset];
    let report = run(&mut profile(), &settings(&all), &mut model(0.0)).unwrap();
    let size = &report.sizes[0];
    assert_eq!((size.latency_percent, size.reset_seconds), (None, None));
    let report = run(&mut profile(), &settings(&[Benchmark::Latency]), &mut model(0.0)).unwrap();
    assert_eq!(report.sizes[0].latency_percent, Some(100.0));
}

#[test]
fn a_reset_command_that_hangs_is_an_error_that_names_it() {
    let hangs = Settings {
        reset_command: Some("sleep 1000".to_owned()),
        reset_limit: Duration::from_millis(50),
        trial_seconds: 0.1,
        ..settings(&[Benchmark::Reset])
    };
    let error = format!("{:#}", run(&mut profile(), &hangs, &mut model(1e9)).unwrap_err());
    assert!(error.contains("--reset-command: did not end within"), "{error}");
}

#[test]
fn a_device_faster_than_the_line_takes_one_trial_and_one_that_passes_nothing_has_no_throughput() {
    let mut fast = model(1e9);
    let settings = Settings { repeats: 1, ..settings(&[Benchmark::Throughput]) };
    let report = run(&mut profile(), &settings, &mut fast).unwrap();
    assert_eq!((report.sizes[0].no_drop.as_ref().unwrap().point.unwrap().percent, fast.trials), (100.0, 1));
    let report = run(&mut profile(), &settings, &mut model(0.0)).unwrap();
    assert!(report.sizes[0].no_drop.as_ref().unwrap().point.is_none());
}

#[test]
fn a_generator_that_does_not_keep_up_is_not_taken_for_the_device() {
    let mut model = Model { generator_pps: LINE_PPS / 2.0, ..model(1e9) };
    let report = run(&mut profile(), &settings(&[Benchmark::Throughput]), &mut model).unwrap();
    let no_drop = report.sizes[0].no_drop.as_ref().unwrap();
    assert!(no_drop.generator_limited && (49.8..=50.0).contains(&no_drop.point.unwrap().percent));
}

#[test]
fn a_device_that_pushes_back_has_the_rate_at_which_trials_end_in_time() {
    let mut model = Model { stretches: true, ..model(LINE_PPS / 4.0) };
    let report = run(&mut profile(), &settings(&[Benchmark::Throughput]), &mut model).unwrap();
    let no_drop = report.sizes[0].no_drop.as_ref().unwrap();
    let found = no_drop.point.unwrap().percent;
    assert!(no_drop.generator_limited && (25.0..=25.0 * 1.011).contains(&found), "{found}");
}

#[test]
fn loss_is_measured_downwards_until_there_is_none_twice() {
    let mut model = model(LINE_PPS * 0.75);
    let report = run(&mut profile(), &settings(&[Benchmark::Loss]), &mut model).unwrap();
    let loss: Vec<f64> = report.sizes[0].loss.iter().map(|point| point.loss_percent.round()).collect();
    assert_eq!(loss, [25.0, 17.0, 6.0, 0.0, 0.0]);
}

#[test]
fn the_longest_burst_is_what_the_device_carries_and_holds() {
    let mut model = Model { holds: 500_000.0, ..model(LINE_PPS / 2.0) };
    let report = run(&mut profile(), &settings(&[Benchmark::BackToBack]), &mut model).unwrap();
    for burst in &report.sizes[0].back_to_back {
        // Half of it is carried meanwhile.
        assert!(burst.abs_diff(1_000_000) <= 30_000, "{burst}");
    }
}

#[test]
fn a_sealed_stream_never_uses_a_sequence_number_again() {
    let (mut profile, mut model) = (profile(), model(1e9));
    run(&mut profile, &settings(&[Benchmark::Loss, Benchmark::Reset]), &mut model).unwrap();
    let next = profile.streams().next().unwrap().esp.as_ref().unwrap().first_sequence;
    assert!(next as f64 > LINE_PPS * 10.0 * 2.8, "{next}");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    for wrong in [
        Settings { sizes: vec![], ..settings(&[]) },
        Settings { line_bps: 0, ..settings(&[]) },
        Settings { resolution_percent: 0.0, ..settings(&[]) },
        Settings { reset_command: None, ..settings(&[Benchmark::Reset]) },
        Settings { trials: 0, ..settings(&[]) },
        Settings { exceed_percent: 100.0, ..settings(&[]) },
    ] {
        assert!(run(&mut profile(), &wrong, &mut model(1.0)).is_err());
    }
}
