// SPDX-License-Identifier: Apache-2.0
//! A profile as a capture file: the very packets that would be sent, at the times at which they would be. No port, no
//! clock, no privilege.

use std::io::Write;
use std::path::Path;

use aead::Engine;
use anyhow::{Context as _, ensure};
use pktbuf::{BURST, Batch, Pool};
use port::pcap;

use crate::generator::Generator;
use crate::profile::Profile;
use crate::rate::Rate;
use crate::schedule::Picks;

/// How much is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// At most so many packets.
    pub packets: u64,
    /// At most so many nanoseconds.
    pub ns: u64,
}

/// Writes the beginning of a profile as a capture whose time begins at 0; returns the number of packets.
///
/// # Errors
/// A profile that cannot be or has no times, or a file that cannot be written.
pub fn render(
    profile: &Profile,
    folder: &Path,
    engine: Engine,
    extent: Extent,
    to: impl Write,
) -> anyhow::Result<u64> {
    let unpaced = profile.streams().find(|stream| stream.rate == Rate::Max);
    if let Some(stream) = unpaced {
        anyhow::bail!("stream {:?}: rate \"max\" has no times to render; give it a rate", stream.name);
    }
    let mut generator = Generator::new(profile, engine, folder)?;
    let mut schedule = generator.schedule(profile, 1e9, extent.ns);
    let pool = Pool::memory(BURST, generator.buffer_bytes()?)?;
    let mut writer = pcap::Writer::new(to)?;
    let mut written = 0;
    while !schedule.is_over() && written < extent.packets {
        let mut picks = Picks::new();
        schedule.take(extent.ns, &mut picks);
        picks.truncate(usize::try_from(extent.packets - written).unwrap_or(BURST));
        let mut batch = Batch::new();
        ensure!(pool.alloc_into(&mut batch, picks.len()) == picks.len(), "a pool of one burst holds a burst");
        generator.write(&picks, &mut batch, |due| due)?;
        for (pick, packet) in picks.iter().zip(&batch) {
            writer.write(pick.due, packet.data()).context("capture file")?;
        }
        written += picks.len() as u64;
    }
    writer.finish()?;
    Ok(written)
}
