// SPDX-License-Identifier: Apache-2.0
//! Sends hostile packets between good ones, and judges what the device under test made of them: what it counted, by
//! its own counters, and what came through, by the receiver.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pktbuf::Batch;
use port::Queue;
use serde::Serialize;

use super::{Frames, Hostile};
use crate::counters::{Counters, Source, since};
use crate::device::Ports;
use crate::locate::{self, Inside};
use crate::open::Opener;
use crate::stamp::Stamp;

/// From packet to packet: slow enough that nothing is lost on the way.
const INTERVAL: Duration = Duration::from_micros(100);
/// How long a port may take no packet, and a counter may take to show what it counted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Once nothing has come for so long, nothing comes any more.
const SETTLE: Duration = Duration::from_millis(300);
/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(100);

/// What packets go through, and who tells what became of them.
pub struct Judge<'a> {
    /// Open ports.
    pub ports: &'a Ports,
    /// Whether what comes through is looked at.
    pub receives: bool,
    /// Opens what comes through sealed.
    pub opener: Option<Opener>,
    /// The counters of the device.
    pub counters: Source,
    /// Ends it early when set.
    pub stop: &'a AtomicBool,
}

/// What came of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    pub kind: Hostile,
    /// What it had to be counted under.
    pub reason: String,
    /// Frames sent in all.
    pub sent: u64,
    /// Of them, those that had to be dropped.
    pub hostile: u64,
    /// Counted under the reason.
    pub counted: u64,
    /// Counted meanwhile under other reasons.
    pub others: Counters,
    /// Good packets sent.
    pub good: u64,
    /// Good packets that came through; none if nobody looked.
    pub good_received: Option<u64>,
    /// Copies and hostile packets that came through; none if nobody looked.
    pub let_through: Option<u64>,
    /// Whether all is as it should be.
    pub is_right: bool,
}

impl Judge<'_> {
    /// Sends the frames of a kind and judges.
    ///
    /// # Errors
    /// Ports or counters cannot be used, or it was stopped.
    pub fn judge(&self, kind: Hostile, reason: &str, made: &Frames) -> anyhow::Result<Verdict> {
        let before = self.counters.read()?;
        let came = self.exchange(&made.frames)?;
        let (counted, others) = self.counted(reason, made.hostile, &before)?;
        let good_received = came.keys().filter(|stamp| made.good.contains(stamp)).count() as u64;
        let let_through = came.values().sum::<u64>() - good_received;
        let good = made.good.len() as u64;
        let passed = !self.receives || (good_received == good && let_through == 0);
        Ok(Verdict {
            kind,
            reason: reason.to_owned(),
            sent: made.frames.len() as u64,
            hostile: made.hostile,
            counted,
            good,
            good_received: self.receives.then_some(good_received),
            let_through: self.receives.then_some(let_through),
            is_right: passed && counted == made.hostile && others.is_empty(),
            others,
        })
    }

    /// Waits until the reason has counted all; says how many, and what else was counted.
    fn counted(&self, reason: &str, hostile: u64, before: &Counters) -> anyhow::Result<(u64, Counters)> {
        let start = Instant::now();
        loop {
            let mut grown = since(self.counters.read()?, before);
            let counted = grown.remove(reason).unwrap_or(0);
            if counted >= hostile || start.elapsed() > PATIENCE || self.stop.load(Ordering::Relaxed) {
                return Ok((counted, grown));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sends frames one by one; returns how often each stamp came back.
    fn exchange(&self, frames: &[Vec<u8>]) -> anyhow::Result<BTreeMap<u32, u64>> {
        let transmit = self.ports.transmit.as_ref().context("a port to send through")?;
        let mut queue = transmit.queue(0).context("queue 0 of the sending port")?;
        let receive = self.ports.receive.as_ref().filter(|_| self.receives);
        let mut other =
            receive.map(|port| port.queue(0).context("queue 0 of the receiving port")).transpose()?;
        let (mut waiting, mut came) = (Batch::new(), BTreeMap::new());
        let mut frames = frames.iter().peekable();
        let (mut due, mut last) = (Instant::now(), Instant::now());
        loop {
            ensure!(!self.stop.load(Ordering::Relaxed), "stopped");
            if let Some(frame) = frames.peek()
                && waiting.is_empty()
                && due <= Instant::now()
                && let Some(packet) = self.ports.pool.copy_of(frame)
            {
                frames.next();
                waiting.push(packet);
                due += INTERVAL;
            }
            let sent = if waiting.is_empty() { 0 } else { queue.transmit(&mut waiting) };
            let received =
                if self.receives { self.receive(other.as_mut().unwrap_or(&mut queue), &mut came) } else { 0 };
            if sent + received > 0 {
                last = Instant::now();
            } else {
                let is_over = waiting.is_empty() && frames.peek().is_none();
                if is_over && (!self.receives || last.elapsed() > SETTLE) {
                    return Ok(came);
                }
                ensure!(is_over || last.elapsed() < PATIENCE, "port {:?} takes no packets", transmit.name());
                std::thread::yield_now();
            }
        }
    }

    /// Notes the stamps of what a queue has; returns the number of frames.
    fn receive(&self, queue: &mut Queue, came: &mut BTreeMap<u32, u64>) -> usize {
        let mut batch = Batch::new();
        let received = queue.receive(&mut batch);
        let located = match &self.opener {
            Some(opener) => opener.locate(&mut batch),
            None => batch
                .iter()
                .map(|packet| match locate::in_frame(packet.data()) {
                    Some(Inside::Payload(range)) => Some(range),
                    _ => None,
                })
                .collect(),
        };
        for (packet, range) in batch.iter().zip(located) {
            let payload = range.and_then(|range| packet.data().get(range));
            if let Some(Ok(stamp)) = payload.map(Stamp::parse) {
                *came.entry(stamp.sequence).or_default() += 1;
            }
        }
        received
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::device::Settings;
    use crate::hostile::tests::packets_in_clear;

    /// The verdict on a device that is a wire, and counts what a file says: `before`, then `after`.
    fn verdict(receives: bool, made: &Frames, before: &str, after: &str) -> Verdict {
        let ports = Ports::open(Some("memory"), Some("memory"), &Settings::new(1_514, 2_048)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("looked");
        let command =
            format!("test -e {0} && echo '{after}' || {{ touch {0}; echo '{before}'; }}", file.display());
        let judge = Judge {
            ports: &ports,
            receives,
            opener: None,
            counters: Source::Command(command),
            stop: &AtomicBool::new(false),
        };
        judge.judge(Hostile::BadIcv, "bad_icv", made).unwrap()
    }

    /// Two good packets, as they look behind a device that opens.
    fn good() -> Frames {
        Frames { frames: packets_in_clear(2), hostile: 2, good: BTreeSet::from([0, 1]) }
    }

    #[test]
    fn what_is_counted_once_each_and_costs_no_good_packet_is_right() {
        let verdict = verdict(true, &good(), r#"{"bad_icv": 5}"#, r#"{"bad_icv": 7}"#);
        assert!(verdict.is_right, "{verdict:?}");
        assert_eq!((verdict.counted, verdict.good_received, verdict.let_through), (2, Some(2), Some(0)));
    }

    #[test]
    fn too_many_and_other_counts_are_wrong() {
        assert!(!verdict(true, &good(), r#"{"bad_icv": 5}"#, r#"{"bad_icv": 8}"#).is_right);
        let other = verdict(true, &good(), "{}", r#"{"bad_icv": 2, "no_route": 1}"#);
        assert!(!other.is_right && other.others == Counters::from([("no_route".to_owned(), 1)]));
    }

    #[test]
    fn lost_good_packets_and_hostile_ones_that_come_through_are_wrong_if_somebody_looks() {
        let after = r#"{"bad_icv": 2}"#;
        let mut lost = good();
        lost.frames.pop();
        let lost_one = verdict(true, &lost, "{}", after);
        assert!(!lost_one.is_right && lost_one.good_received == Some(1), "{lost_one:?}");
        let mut leaked = good();
        leaked.good = BTreeSet::from([0]);
        let leaked_one = verdict(true, &leaked, "{}", after);
        assert!(!leaked_one.is_right && leaked_one.let_through == Some(1), "{leaked_one:?}");
        let unseen = verdict(false, &lost, "{}", after);
        assert!(unseen.is_right && unseen.good_received.is_none() && unseen.let_through.is_none());
    }
}
