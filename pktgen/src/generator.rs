// SPDX-License-Identifier: Apache-2.0
//! A whole profile, ready to be sent: its streams and their schedule.

use std::path::Path;

use aead::Engine;
use anyhow::Context as _;
use arrayvec::ArrayVec;
use esp::SealError;
use pktbuf::{BURST, Batch, NoRoom, Packet};

use crate::profile::Profile;
use crate::schedule::{Pick, Plan, Schedule};
use crate::seal::{Turns, seal};
use crate::stream::Stream;

/// Why a burst cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A packet buffer is too short.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A packet cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The streams of a profile.
pub struct Generator {
    streams: Vec<Stream>,
    any_sealed: bool,
}

impl Generator {
    /// Prepares a profile; key files are looked for in `folder`.
    ///
    /// # Errors
    /// What of the profile cannot be.
    pub fn new(profile: &Profile, engine: Engine, folder: &Path) -> anyhow::Result<Self> {
        let prepare = |(number, stream)| Stream::new(number, stream, profile.seed, engine, folder);
        let streams = (0..).zip(profile.streams()).map(prepare).collect::<anyhow::Result<Vec<_>>>()?;
        let any_sealed = streams.iter().any(|stream| stream.sealing().is_some());
        Ok(Self { streams, any_sealed })
    }

    /// The schedule of a profile's streams in ticks of which there are so many in a second, until tick `end`.
    #[must_use]
    pub fn schedule(&self, profile: &Profile, ticks_per_second: f64, end: u64) -> Schedule {
        let sizes: Vec<Vec<usize>> =
            self.streams.iter().map(|stream| stream.wire_bytes().collect()).collect();
        let plans =
            profile.streams().zip(&self.streams).zip(&sizes).map(|((settings, stream), wire_bytes)| Plan {
                rate: settings.rate,
                line_bps: profile.line_bps.unwrap_or(0),
                wire_bytes,
                order: stream.order(),
                burst: settings.burst,
                packets: settings.packets,
            });
        Schedule::new(plans, ticks_per_second, end)
    }

    /// Bytes that a packet buffer must hold.
    ///
    /// # Errors
    /// There are no streams.
    pub fn buffer_bytes(&self) -> anyhow::Result<usize> {
        self.streams.iter().map(Stream::buffer_bytes).max().context("a stream")
    }

    /// Bytes on the wire, without FCS, of each stream's classes of sizes.
    pub fn wire_bytes(&self) -> impl Iterator<Item = impl ExactSizeIterator<Item = usize>> {
        self.streams.iter().map(Stream::wire_bytes)
    }

    /// For each sealed stream, the first ESP sequence number that none of its SAs has given out.
    #[must_use]
    pub fn next_sequences(&self) -> Vec<Option<u64>> {
        let next = |stream: &Stream| {
            let sealing = stream.sealing()?;
            sealing.sas.iter().map(|sa| sa.sequence().position().0).max()
        };
        self.streams.iter().map(next).collect()
    }

    /// Longest frame on the wire, without FCS.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        self.streams.iter().flat_map(Stream::wire_bytes).max().unwrap_or(0)
    }

    /// Writes the picked packets into empty buffers, one for each, and seals them. A packet is stamped with when it was
    /// due, which `sent_ns` says of its ticks.
    ///
    /// # Errors
    /// [`WriteError`]; the burst is not to be sent then.
    #[inline]
    pub fn write(
        &mut self,
        picks: &[Pick],
        batch: &mut Batch,
        mut sent_ns: impl FnMut(u64) -> u64,
    ) -> Result<(), WriteError> {
        let Some(Pick { stream: first, .. }) = picks.first().copied() else { return Ok(()) };
        let mut turns = Turns::new();
        if picks.iter().all(|pick| pick.stream == first) {
            let stream = self.streams.get_mut(usize::from(first)).ok_or(NoRoom)?;
            let count = picks.len().min(batch.len());
            stream.write(count, picks.iter().copied().zip(batch.iter_mut()), sent_ns, &mut turns)?;
            return self.seal(batch.iter_mut().map(|packet| (first, packet)), &turns);
        }
        // Of a stream all packets together and in their order; where each lies in the batch does not change.
        let jobs = picks.iter().copied().zip(batch);
        let mut jobs: ArrayVec<(Pick, &mut Packet), BURST> = jobs.collect();
        jobs.sort_by_key(|(pick, _)| pick.stream);
        for run in jobs.chunk_by_mut(|(a, _), (b, _)| a.stream == b.stream) {
            let stream = run.first().and_then(|(pick, _)| self.streams.get_mut(usize::from(pick.stream)));
            let (count, jobs) = (run.len(), run.iter_mut().map(|(pick, packet)| (*pick, &mut **packet)));
            stream.ok_or(NoRoom)?.write(count, jobs, &mut sent_ns, &mut turns)?;
        }
        self.seal(jobs.into_iter().map(|(pick, packet)| (pick.stream, packet)), &turns)
    }

    #[inline]
    fn seal<'a>(
        &self,
        packets: impl Iterator<Item = (u16, &'a mut Packet)>,
        turns: &Turns,
    ) -> Result<(), WriteError> {
        if self.any_sealed {
            seal(&self.streams, packets, turns)?;
        }
        Ok(())
    }
}
