// SPDX-License-Identifier: Apache-2.0
//! Frames that are there already, sent at their times, at other times, or at a rate; and frames that come, kept.
//!
//! As for generated packets, each frame is due at a time that follows from the start alone: who comes late catches up,
//! so the rate asked is the rate sent.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use pktbuf::{BURST, Batch, NoRoom};
use port::Queue;
use port::dpdk::register_worker_thread;
use port::pcap::{Frame, Writer};
use serde::Serialize;
use sysmem::{Calibration, CounterWord};

use crate::device::Ports;
use crate::rate::Rate;

const LINE: usize = 64;

/// When frames are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timing {
    /// At the times at which they were captured, so many times as fast.
    Captured(f64),
    /// At a rate, whatever their times were.
    Rate(Rate, u64),
}

/// Frames, ready to be copied, and when each is due.
pub struct Playlist {
    frames: Vec<Ready>,
    /// The bytes of all frames, each from a line of its own.
    lines: Vec<[u8; LINE]>,
    /// Nanoseconds from the start; as many as there are frames.
    due_ns: Vec<f64>,
    /// How long one round takes.
    round_ns: f64,
}

/// A frame among the lines.
struct Ready {
    first_line: usize,
    line_count: usize,
    bytes: usize,
}

impl Playlist {
    /// Plans frames in the order in which they are given.
    ///
    /// # Errors
    /// No frames, or a speed that is not above 0.
    pub fn new(frames: Vec<Frame>, timing: Timing) -> anyhow::Result<Self> {
        let first_ns = frames.first().context("there are no frames to send")?.time_ns;
        let mut due_ns = Vec::with_capacity(frames.len());
        let mut at = 0.0;
        for frame in &frames {
            match timing {
                Timing::Captured(speed) => {
                    ensure!(speed.is_finite() && speed > 0.0, "a speed of {speed}: above 0");
                    // A capture may have frames out of order; none is sent before the one in front of it.
                    at = (frame.time_ns.saturating_sub(first_ns) as f64 / speed).max(at);
                    due_ns.push(at);
                }
                Timing::Rate(rate, line_bps) => {
                    due_ns.push(at);
                    at += rate.seconds(frame.bytes.len(), line_bps) * 1e9;
                }
            }
        }
        // The last frame of a round has the mean distance from the first of the next.
        let mean = if frames.len() > 1 { at / (frames.len() - 1) as f64 } else { 0.0 };
        let round_ns = if matches!(timing, Timing::Captured(_)) { at + mean } else { at };
        let mut lines = Vec::new();
        let frames = frames.iter().map(|frame| Ready::new(&frame.bytes, &mut lines)).collect();
        Ok(Self { frames, lines, due_ns, round_ns })
    }

    /// Longest frame in bytes, without FCS.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        self.frames.iter().map(|frame| frame.bytes).max().unwrap_or(0)
    }

    /// Bytes of a packet buffer that the longest frame needs.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.longest_frame().next_multiple_of(LINE)
    }

    /// Writes the frames from `next` on into empty packets.
    fn write(&self, next: usize, batch: &mut Batch) -> Result<(), NoRoom> {
        for (packet, frame) in batch.iter_mut().zip(self.frames.get(next..).unwrap_or_default()) {
            let lines = self.lines.get(frame.first_line..).and_then(|lines| lines.get(..frame.line_count));
            packet.set_lines(lines.ok_or(NoRoom)?, frame.bytes)?;
        }
        Ok(())
    }
}

impl Ready {
    /// Appends a frame to the lines.
    fn new(bytes: &[u8], lines: &mut Vec<[u8; LINE]>) -> Self {
        let first_line = lines.len();
        for chunk in bytes.chunks(LINE) {
            let mut line = [0; LINE];
            line[..chunk.len()].copy_from_slice(chunk);
            lines.push(line);
        }
        Self { first_line, line_count: lines.len() - first_line, bytes: bytes.len() }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Played {
    /// Frames that the port took.
    pub frames: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// The most that a frame was handed over after it was due, in microseconds; none at a rate of "max".
    pub late_us_max: Option<f64>,
    /// How long frames should have taken.
    pub asked_seconds: f64,
}

/// Sends a playlist `rounds` times, or until `stop` is set; `done` says meanwhile how many frames the port took.
///
/// # Errors
/// The port or its pool cannot be used.
pub fn play(
    ports: &Ports,
    playlist: &Playlist,
    rounds: u64,
    stop: &AtomicBool,
    done: &CounterWord,
) -> anyhow::Result<Played> {
    let transmit = ports.transmit.as_ref().context("a port to send through")?;
    let mut queue = transmit.queue(0).context("queue 0 of the sending port")?;
    let _registration = register_worker_thread()?;
    let clock = Calibration::measure();
    let start = clock.now();
    let elapsed_ns = || clock.cycles_to_ns(clock.now().since(start)) as f64;
    let mut played = Played { asked_seconds: playlist.round_ns * rounds as f64 / 1e9, ..Played::default() };
    let mut batch = Batch::new();
    'rounds: for round in 0..rounds {
        let base = round as f64 * playlist.round_ns;
        let mut next = 0;
        while let Some(due_ns) = playlist.due_ns.get(next..).filter(|due_ns| !due_ns.is_empty()) {
            if stop.load(Ordering::Relaxed) {
                break 'rounds;
            }
            let now_ns = elapsed_ns() - base;
            let due = due_ns.iter().take(BURST).take_while(|due| **due <= now_ns).count();
            // As many as there are buffers; the others are as due in the next turn.
            let count = ports.pool.alloc_into(&mut batch, due);
            playlist.write(next, &mut batch)?;
            if let (Some(first), true) = (due_ns.first(), count > 0 && playlist.round_ns > 0.0) {
                let late_us = (now_ns - first) / 1e3;
                played.late_us_max = Some(played.late_us_max.map_or(late_us, |most: f64| most.max(late_us)));
            }
            next += count;
            transmit_all(&mut queue, &mut batch, &mut played, stop);
            done.set(played.frames);
        }
    }
    played.seconds = elapsed_ns() / 1e9;
    Ok(played)
}

fn transmit_all(queue: &mut Queue, batch: &mut Batch, played: &mut Played, stop: &AtomicBool) {
    let bytes = |batch: &Batch| batch.iter().map(|packet| packet.len() as u64).sum::<u64>();
    let before = bytes(batch);
    while !batch.is_empty() && !stop.load(Ordering::Relaxed) {
        played.frames += queue.transmit(batch) as u64;
    }
    played.bytes += before - bytes(batch);
    batch.clear();
}

/// Writes what comes in to a capture until `packets` have come or `stop` is set; returns the number of frames. Times
/// are those at which bursts were received, on the wall clock. `done` says meanwhile how many frames were kept.
///
/// # Errors
/// The port cannot be used, or the file cannot be written.
pub fn capture(
    ports: &Ports,
    packets: u64,
    stop: &AtomicBool,
    done: &CounterWord,
    to: impl Write,
) -> anyhow::Result<u64> {
    let port = ports.receiving().context("a port to receive from")?;
    let mut queue = port.queue(0).context("queue 0 of the receiving port")?;
    let mut writer = Writer::new(to)?;
    let _registration = register_worker_thread()?;
    let (clock, epoch) = (Calibration::measure(), std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64);
    let (start, mut kept, mut batch) = (clock.now(), 0, Batch::new());
    while kept < packets {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if queue.receive(&mut batch) == 0 {
            continue;
        }
        let time_ns = epoch + clock.cycles_to_ns(clock.now().since(start));
        for packet in batch.drain(..) {
            if kept < packets {
                writer.write(time_ns, packet.data()).context("capture file")?;
                kept += 1;
            }
        }
        done.set(kept);
    }
    writer.finish()?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Settings;

    fn frame(time_ns: u64, byte: u8) -> Frame {
        Frame { time_ns, bytes: vec![byte; 60] }
    }

    fn due(timing: Timing) -> (Vec<f64>, f64) {
        let frames = vec![frame(1_000, 0), frame(3_000, 1), frame(2_000, 2), frame(7_000, 3)];
        let playlist = Playlist::new(frames, timing).unwrap();
        (playlist.due_ns, playlist.round_ns)
    }

    #[test]
    fn frames_are_due_as_captured_scaled_or_at_the_rate() {
        assert_eq!(due(Timing::Captured(1.0)), (vec![0.0, 2_000.0, 2_000.0, 6_000.0], 8_000.0));
        assert_eq!(due(Timing::Captured(2.0)), (vec![0.0, 1_000.0, 1_000.0, 3_000.0], 4_000.0));
        let (due, round) = due(Timing::Rate(Rate::L1Bps(672e6), 0));
        assert_eq!(due.iter().map(|ns| ns.round()).collect::<Vec<_>>(), [0.0, 1_000.0, 2_000.0, 3_000.0]);
        assert_eq!(round.round(), 4_000.0);
    }

    #[test]
    fn nothing_and_impossible_speeds_are_refused() {
        assert!(Playlist::new(Vec::new(), Timing::Captured(1.0)).is_err());
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Playlist::new(vec![frame(0, 0)], Timing::Captured(speed)).is_err());
        }
    }

    #[test]
    fn a_capture_ends_when_told_to_however_much_comes_in() {
        let ports = Ports::open(Some("memory"), Some("memory"), &Settings::new(1_514, 2_048)).unwrap();
        let playlist = Playlist::new(vec![frame(0, 7)], Timing::Rate(Rate::Max, 0)).unwrap();
        let (stop, end, kept) = (AtomicBool::new(false), AtomicBool::new(false), CounterWord::default());
        std::thread::scope(|scope| {
            let played =
                scope.spawn(|| play(&ports, &playlist, u64::MAX, &end, &CounterWord::default()).unwrap());
            let captured = scope.spawn(|| capture(&ports, u64::MAX, &stop, &kept, std::io::sink()).unwrap());
            while kept.read() < 1_000 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(captured.join().unwrap() >= 1_000);
            end.store(true, Ordering::Relaxed);
            played.join().unwrap();
        });
    }

    #[test]
    fn what_is_played_is_captured_frame_by_frame_even_from_a_small_pool() {
        let settings = Settings { packets: 64, ..Settings::new(1_514, 2_048) };
        let ports = Ports::open(Some("memory"), Some("memory"), &settings).unwrap();
        let frames: Vec<Frame> = (0..100).map(|number| frame(number * 1_000, number as u8)).collect();
        let playlist = Playlist::new(frames.clone(), Timing::Rate(Rate::Pps(1e6), 0)).unwrap();
        let stop = AtomicBool::new(false);
        let (mut file, kept_so_far) = (Vec::new(), CounterWord::default());
        let kept = std::thread::scope(|scope| {
            let played = scope.spawn(|| play(&ports, &playlist, 3, &stop, &CounterWord::default()).unwrap());
            let kept = capture(&ports, 300, &stop, &kept_so_far, &mut file).unwrap();
            assert_eq!(played.join().unwrap().frames, 300);
            kept
        });
        let captured = port::pcap::read(&file[..]).unwrap();
        assert_eq!((kept, kept_so_far.read(), captured.len()), (300, 300, 300));
        for (number, frame) in captured.iter().enumerate() {
            assert_eq!(frame.bytes, frames[number % 100].bytes);
        }
    }
}
