// SPDX-License-Identifier: Apache-2.0
//! The benchmarks of RFC 2544 §26: throughput, latency, frame loss, back-to-back frames, reset.
//!
//! A rate is a share of the line. The search halves the interval between a rate that passed and one that did not until
//! it is as narrow as the resolution, a share of the rate. A rate has several trials, of which some may lose too much, so that
//! a device that is held up now and then does not end the search where that happened: a goal's loss ratio, exceed ratio and
//! width as in draft-ietf-bmwg-mlrsearch. With one trial for each rate it is RFC 2544's own search. A trial that the generator
//! itself did not keep up with did not pass, and says so.
//! Left out: system recovery (§26.5), and the mix with broadcasts and management frames (§11).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::outcome::{ArrivedOutcome, FRAME_SIZES, Outcome, Quantiles};
use crate::profile::Profile;
use crate::rate::Rate;
use crate::shell;
use crate::sizes::{FCS_BYTES, Sizes};

/// How much longer than its time a trial may take to send what was due, as a share of it.
const LATE_SHARE: f64 = 0.01;

/// How the benchmarks are run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Frame sizes in clear, FCS included.
    pub sizes: Vec<u16>,
    /// Seconds of a trial (RFC 2544 §24 asks for 60).
    pub trial_seconds: f64,
    /// Width of the interval at which a search ends, in percent of the rate.
    pub resolution_percent: f64,
    /// Trials that decide on a rate.
    #[serde(default = "one")]
    pub trials: u16,
    /// Of them, those that may lose more than is allowed, in percent.
    #[serde(default)]
    pub exceed_percent: f64,
    /// Highest rate that is tried, in percent of the line.
    pub most_percent: f64,
    /// Loss that the partial drop rate allows, in percent.
    pub partial_drop_percent: f64,
    /// Searches for each size; the median is the result.
    pub repeats: u16,
    /// The line, in bits a second with preamble and gap.
    pub line_bps: u64,
    /// Which benchmarks.
    pub benchmarks: Vec<Benchmark>,
    /// What resets the device under test, for a shell.
    pub reset_command: Option<String>,
    /// How long that may take.
    #[serde(skip, default = "shell::limit")]
    pub reset_limit: Duration,
}

/// One of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Benchmark {
    /// §26.1.
    Throughput,
    /// §26.2.
    Latency,
    /// §26.3.
    Loss,
    /// §26.4.
    BackToBack,
    /// §26.6.
    Reset,
}

/// What sends a profile for so many seconds and tells what arrived.
pub trait Tester {
    /// One trial.
    ///
    /// # Errors
    /// It could not be run.
    fn trial(&mut self, profile: &Profile, seconds: f64) -> anyhow::Result<Outcome>;

    /// Says what is done next.
    fn progress(&mut self, what: &str);
}

/// One trial of a size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Rate asked for, in percent of the line.
    pub percent: f64,
    /// Packets a second that were sent.
    pub pps: f64,
    /// Bits a second that were sent, with preamble and gap.
    pub l1_bps: f64,
    /// Lost, in percent of what was sent.
    pub loss_percent: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets lost.
    pub lost: u64,
    /// Whether the generator sent what was asked for.
    pub kept_up: bool,
}

/// A rate that was searched for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Searched {
    /// The trial that the median search ended with; none if no rate passed.
    pub point: Option<Point>,
    /// What each search found, in percent of the line.
    pub found_percent: Vec<f64>,
    /// How far apart they are, in percent of the median.
    pub spread_percent: f64,
    /// Whether higher rates failed because the port did not take what was due: the generator's limit, or a device that
    /// pushes back.
    pub generator_limited: bool,
}

/// The results for one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SizeResult {
    /// Frame size in clear, FCS included.
    pub size: u16,
    /// Highest rate without any loss (RFC 1242 §3.17).
    pub no_drop: Option<Searched>,
    /// Highest rate with no more loss than is allowed.
    pub partial_drop: Option<Searched>,
    /// The load at which latency was measured, in percent of the line: the throughput, or without a search the highest.
    #[serde(default)]
    pub latency_percent: Option<f64>,
    /// Latency there, in microseconds.
    pub latency_us: Option<Quantiles>,
    /// The same as microseconds, and how many percent of the packets took no longer.
    pub latency_cdf: Vec<[f64; 2]>,
    /// Loss by load, from the highest downwards.
    pub loss: Vec<Point>,
    /// Longest burst at the highest rate without loss, in packets, each search.
    pub back_to_back: Vec<u64>,
    /// Seconds without packets while the device was reset.
    pub reset_seconds: Option<f64>,
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FRAME_SIZES`].
    pub frame_sizes: String,
    /// How it was run.
    pub settings: Settings,
    /// Size by size.
    pub sizes: Vec<SizeResult>,
}

/// Runs the benchmarks on a profile whose sizes and rates are replaced.
///
/// # Errors
/// Settings that cannot be, or a trial that could not be run.
pub fn run(profile: &mut Profile, settings: &Settings, tester: &mut dyn Tester) -> anyhow::Result<Report> {
    settings.check()?;
    profile.line_bps = Some(settings.line_bps);
    let mut bench = Bench { profile, settings, tester, trials: Vec::new(), aim: String::new() };
    let sizes = settings.sizes.iter().map(|size| bench.size(*size)).collect::<anyhow::Result<_>>()?;
    Ok(Report { frame_sizes: FRAME_SIZES.to_owned(), settings: settings.clone(), sizes })
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.line_bps > 0, "line_bps 0: give the line rate in bits a second");
        ensure!(self.trial_seconds > 0.0, "a trial of {} seconds: above 0", self.trial_seconds);
        let percents = [self.resolution_percent, self.most_percent, self.partial_drop_percent];
        ensure!(
            percents.iter().all(|percent| *percent > 0.0 && *percent <= 100.0),
            "percentages: above 0, at most 100"
        );
        ensure!(self.repeats > 0 && !self.sizes.is_empty(), "at least one size and one search");
        ensure!(self.trials > 0, "trials that decide on a rate: at least one");
        ensure!(
            self.exceed_percent >= 0.0 && self.exceed_percent < 100.0,
            "{} % of the trials may lose too much: from 0, below 100",
            self.exceed_percent
        );
        let resets = self.benchmarks.contains(&Benchmark::Reset);
        ensure!(!resets || self.reset_command.is_some(), "reset: needs --reset-command");
        Ok(())
    }

    fn wants(&self, benchmark: Benchmark) -> bool {
        self.benchmarks.contains(&benchmark)
    }

    /// Trials of a rate that may lose too much.
    fn may_exceed(&self) -> usize {
        (f64::from(self.trials) * self.exceed_percent / 100.0) as usize
    }
}

fn one() -> u16 {
    1
}

struct Bench<'a> {
    profile: &'a mut Profile,
    settings: &'a Settings,
    tester: &'a mut dyn Tester,
    /// All trials of the present search, so that the second search uses what the first has seen.
    trials: Vec<Point>,
    /// What the present trials are for.
    aim: String,
}

impl Bench<'_> {
    fn size(&mut self, size: u16) -> anyhow::Result<SizeResult> {
        let settings = self.settings;
        self.profile.streams_mut().for_each(|stream| stream.size = Sizes::Sequence(vec![size]));
        let mut result = SizeResult {
            size,
            no_drop: None,
            partial_drop: None,
            latency_percent: None,
            latency_us: None,
            latency_cdf: Vec::new(),
            loss: Vec::new(),
            back_to_back: Vec::new(),
            reset_seconds: None,
        };
        if settings.wants(Benchmark::Throughput) {
            let (mut no_drop, mut partial_drop) = (Vec::new(), Vec::new());
            for repeat in 1..=settings.repeats {
                self.aim = format!("{size} bytes: throughput, search {repeat} of {}", settings.repeats);
                self.trials.clear();
                no_drop.push(self.search(0.0)?);
                partial_drop.push(self.search(settings.partial_drop_percent)?);
            }
            result.no_drop = Some(Searched::of(no_drop, settings));
            result.partial_drop = Some(Searched::of(partial_drop, settings));
        }
        // Without a search, the highest load; where none passed, there is no throughput to measure at.
        let load = match &result.no_drop {
            Some(searched) => searched.point.map(|point| point.percent),
            None => Some(settings.most_percent),
        };
        if let (true, Some(load)) = (settings.wants(Benchmark::Latency), load) {
            self.tester.progress(&format!("{size} bytes: latency at {load:.2} %"));
            let outcome = self.trial(load, None, settings.trial_seconds)?;
            result.latency_percent = Some(load);
            if let Some(worst) = worst_latency(&outcome) {
                (result.latency_us, result.latency_cdf) = (worst.latency_us, worst.latency_cdf.clone());
            }
        }
        if settings.wants(Benchmark::Loss) {
            result.loss = self.loss_by_load(size)?;
        }
        if settings.wants(Benchmark::BackToBack) {
            let bursts = (0..settings.repeats).map(|_| self.longest_burst(size));
            result.back_to_back = bursts.collect::<anyhow::Result<_>>()?;
        }
        if let (true, Some(load)) = (settings.wants(Benchmark::Reset), load) {
            self.tester.progress(&format!("{size} bytes: reset"));
            result.reset_seconds = Some(self.reset(load)?);
        }
        Ok(result)
    }

    /// One trial with the line's share spread evenly over the streams; each sends `packets` at most.
    fn trial(&mut self, percent: f64, packets: Option<u64>, seconds: f64) -> anyhow::Result<Outcome> {
        let share = percent / self.profile.streams().len() as f64;
        for stream in self.profile.streams_mut() {
            stream.rate = Rate::LinePercent(share);
            stream.packets = packets;
        }
        let outcome = self.tester.trial(self.profile, seconds)?;
        // The device under test has seen these sequence numbers, and no IV is to be used twice.
        for (stream, sent) in self.profile.streams_mut().zip(&outcome.streams) {
            if let (Some(esp), Some(next)) = (&mut stream.esp, sent.next_sequence) {
                esp.first_sequence = next;
            }
        }
        Ok(outcome)
    }

    fn point(&mut self, percent: f64) -> anyhow::Result<Point> {
        let before = self.trials.iter().filter(|point| point.percent == percent).count();
        self.tester.progress(&format!("{}: {percent:.3} %, trial {}", self.aim, before + 1));
        let outcome = self.trial(percent, None, self.settings.trial_seconds)?;
        let mut point = Point::of(percent, &outcome)?;
        // Who comes late catches up, and who ends late has sent at another rate.
        point.kept_up &= outcome.seconds <= self.settings.trial_seconds * (1.0 + LATE_SHARE);
        self.trials.push(point);
        Ok(point)
    }

    /// The highest rate, to the resolution, at which no more than `allowed_percent` is lost, and what was seen there.
    fn search(&mut self, allowed_percent: f64) -> anyhow::Result<Found> {
        let most = self.settings.most_percent;
        let (mut best, mut worst) = self.bounds(allowed_percent);
        if worst.is_none() && best.is_none_or(|best| best.percent < most) {
            match self.decide(most, allowed_percent)? {
                Verdict::Passes(point) => best = Some(point),
                Verdict::Fails { limited } => worst = Some((most, limited)),
            }
        }
        let Some((mut worst, mut limited)) = worst else { return Ok(Found { point: best, limited: false }) };
        let width = self.settings.resolution_percent / 100.0;
        // Where nothing passes, there is an end too: a tenth of the resolution of the highest rate.
        while best.map_or(worst > width * most / 10.0, |best| worst - best.percent > width * best.percent) {
            let middle = f64::midpoint(worst, best.map_or(0.0, |best| best.percent));
            match self.decide(middle, allowed_percent)? {
                Verdict::Passes(point) => best = Some(point),
                Verdict::Fails { limited: by_generator } => (worst, limited) = (middle, by_generator),
            }
        }
        Ok(Found { point: best, limited })
    }

    /// What the trials so far say: the highest rate that passed, and the lowest above it that did not.
    fn bounds(&self, allowed_percent: f64) -> (Option<Point>, Option<(f64, bool)>) {
        let (mut best, mut failed): (Option<Point>, Vec<(f64, bool)>) = (None, Vec::new());
        for point in &self.trials {
            match self.verdict(point.percent, allowed_percent) {
                Some(Verdict::Passes(point)) if best.is_none_or(|best| point.percent > best.percent) => {
                    best = Some(point);
                }
                Some(Verdict::Fails { limited }) => failed.push((point.percent, limited)),
                _ => {}
            }
        }
        let above = failed.into_iter().filter(|(percent, _)| best.is_none_or(|best| *percent > best.percent));
        (best, above.min_by(|(a, _), (b, _)| a.total_cmp(b)))
    }

    /// Tries a rate until it is decided whether it passes.
    fn decide(&mut self, percent: f64, allowed_percent: f64) -> anyhow::Result<Verdict> {
        loop {
            if let Some(verdict) = self.verdict(percent, allowed_percent) {
                return Ok(verdict);
            }
            self.point(percent)?;
        }
    }

    /// What the trials of a rate say, once further ones could not change it.
    fn verdict(&self, percent: f64, allowed_percent: f64) -> Option<Verdict> {
        let passes = |point: &&Point| point.kept_up && point.loss_percent <= allowed_percent;
        let (good, bad): (Vec<&Point>, Vec<&Point>) =
            self.trials.iter().filter(|point| point.percent == percent).partition(passes);
        let (trials, may_exceed) = (usize::from(self.settings.trials), self.settings.may_exceed());
        if bad.len() > may_exceed {
            return Some(Verdict::Fails { limited: bad.iter().all(|point| !point.kept_up) });
        }
        let most_lost = good.iter().max_by(|a, b| a.loss_percent.total_cmp(&b.loss_percent))?;
        (good.len() >= trials - may_exceed).then_some(Verdict::Passes(**most_lost))
    }

    /// From the highest rate down in steps of a tenth, until two trials in a row lose nothing (§26.3).
    fn loss_by_load(&mut self, size: u16) -> anyhow::Result<Vec<Point>> {
        let mut points: Vec<Point> = Vec::new();
        for tenth in (1..=10).rev() {
            let percent = self.settings.most_percent * f64::from(tenth) / 10.0;
            self.aim = format!("{size} bytes: loss");
            points.push(self.point(percent)?);
            if let [.., a, b] = points[..]
                && a.lost == 0
                && b.lost == 0
            {
                break;
            }
        }
        Ok(points)
    }

    /// The longest burst at the highest rate of which nothing is lost (§26.4), at most two seconds of it.
    fn longest_burst(&mut self, size: u16) -> anyhow::Result<u64> {
        const SECONDS: f64 = 2.0;
        let streams = self.profile.streams().len() as u64;
        let per_second = 1.0
            / Rate::LinePercent(self.settings.most_percent)
                .seconds(usize::from(size) - FCS_BYTES, self.settings.line_bps);
        let most = (per_second * SECONDS) as u64 / streams;
        let (mut best, mut worst) = (0, most + 1);
        let mut next = most;
        while worst - best > (most / 1_000).max(1) {
            self.tester.progress(&format!("{size} bytes: back-to-back frames, {} of them", next * streams));
            let outcome = self.trial(self.settings.most_percent, Some(next.max(1)), SECONDS + 1.0)?;
            if outcome.lost() == 0 {
                best = next;
            } else {
                worst = next;
            }
            next = best.midpoint(worst);
        }
        Ok(best * streams)
    }

    /// How long nothing comes through while the device is reset (§26.6), at the throughput.
    fn reset(&mut self, percent: f64) -> anyhow::Result<f64> {
        let command = self.settings.reset_command.clone().context("a reset command")?;
        let quarter = Duration::from_secs_f64(self.settings.trial_seconds / 4.0);
        let limit = self.settings.reset_limit;
        let reset = std::thread::spawn(move || {
            std::thread::sleep(quarter);
            shell::run(&command, limit)
        });
        let outcome = self.trial(percent, None, self.settings.trial_seconds)?;
        reset.join().ok().context("the reset thread panicked")?.context("--reset-command")?;
        let pauses = outcome.streams.iter().filter_map(|stream| stream.arrived.as_ref());
        Ok(pauses.map(|arrived| arrived.longest_pause).fold(0.0, f64::max))
    }
}

/// What the trials of one rate say.
#[derive(Clone, Copy)]
enum Verdict {
    /// It passed; of the trials that did, the one that lost most.
    Passes(Point),
    /// It did not.
    Fails {
        /// Whether the port did not take what was due, each time.
        limited: bool,
    },
}

/// What one search came to.
#[derive(Clone, Copy)]
struct Found {
    point: Option<Point>,
    limited: bool,
}

impl Searched {
    fn of(mut found: Vec<Found>, settings: &Settings) -> Self {
        let percent = |found: &Found| found.point.map_or(0.0, |point| point.percent);
        let found_percent: Vec<f64> = found.iter().map(percent).collect();
        found.sort_by(|a, b| percent(a).total_cmp(&percent(b)));
        let median = found[found.len() / 2];
        let (least, most) = (percent(&found[0]), percent(&found[found.len() - 1]));
        Self {
            point: median.point,
            spread_percent: 100.0 * (most - least) / percent(&median).max(settings.resolution_percent),
            found_percent,
            generator_limited: median.limited,
        }
    }
}

impl Point {
    fn of(percent: f64, outcome: &Outcome) -> anyhow::Result<Self> {
        let sent = outcome.sent();
        ensure!(sent > 0, "a trial at {percent} % sent nothing; longer trials or a higher rate are needed");
        let arrived = outcome.streams.iter().all(|stream| stream.arrived.is_some());
        ensure!(arrived, "RFC 2544 needs stamps in every stream, and a port that is received from");
        Ok(Self {
            percent,
            pps: outcome.streams.iter().map(|stream| stream.sent.pps).sum(),
            l1_bps: outcome.streams.iter().map(|stream| stream.sent.l1_bps).sum(),
            loss_percent: 100.0 * outcome.lost() as f64 / sent as f64,
            sent,
            lost: outcome.lost(),
            kept_up: outcome.sender.kept_up,
        })
    }
}

/// What arrived of the stream that took longest.
fn worst_latency(outcome: &Outcome) -> Option<&ArrivedOutcome> {
    let p50 = |arrived: &ArrivedOutcome| arrived.latency_us.map_or(0.0, |latency| latency.p50);
    let arrived = outcome.streams.iter().filter_map(|stream| stream.arrived.as_ref());
    arrived.max_by(|a, b| p50(a).total_cmp(&p50(b)))
}

#[cfg(test)]
mod tests;
