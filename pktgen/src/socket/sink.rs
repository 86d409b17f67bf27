// SPDX-License-Identifier: Apache-2.0
//! The receiving end: what came of each stream, from the stamps alone.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::socket::ledger::{Ledger, Totals};
use crate::socket::stamp::{Stamp, StampError};
use crate::socket::stream::now_ns;

/// How long one wait for a datagram lasts, so that `stop` is seen.
const WAIT: Duration = Duration::from_millis(50);
/// Sequence numbers beyond this are damage, not a stream.
const SEQUENCE_MAX: u64 = 1 << 32;
/// Streams beyond this many are foreign.
const STREAMS_MAX: usize = 1_024;

/// What arrived.
#[derive(Debug, Default, Serialize)]
pub struct Arrived {
    /// By stream.
    pub streams: BTreeMap<u32, Totals>,
    /// Datagrams without a stamp.
    pub foreign: u64,
    /// Datagrams whose filler was damaged.
    pub corrupt: u64,
}

/// Receives until `stop` is set and nothing has come for `quiet`.
///
/// # Errors
/// What the socket says.
pub fn receive(socket: &UdpSocket, stop: &AtomicBool, quiet: Duration) -> anyhow::Result<Arrived> {
    socket.set_read_timeout(Some(WAIT))?;
    let mut ledgers: BTreeMap<u32, Ledger> = BTreeMap::new();
    let mut arrived = Arrived::default();
    let mut datagram = vec![0; 1 << 16];
    let mut last = Instant::now();
    loop {
        match socket.recv(&mut datagram) {
            Ok(length) => {
                last = Instant::now();
                note(&datagram[..length], &mut ledgers, &mut arrived)?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if stop.load(Ordering::Relaxed) && last.elapsed() >= quiet {
            break;
        }
    }
    arrived.streams = ledgers.iter().map(|(stream, ledger)| (*stream, ledger.totals())).collect();
    Ok(arrived)
}

fn note(datagram: &[u8], ledgers: &mut BTreeMap<u32, Ledger>, arrived: &mut Arrived) -> anyhow::Result<()> {
    let now = now_ns();
    match Stamp::parse(datagram) {
        Ok(stamp) if stamp.sequence >= SEQUENCE_MAX => arrived.corrupt += 1,
        Ok(stamp) => {
            if !ledgers.contains_key(&stamp.stream) {
                if ledgers.len() >= STREAMS_MAX {
                    arrived.foreign += 1;
                    return Ok(());
                }
                ledgers.insert(stamp.stream, Ledger::new()?);
            }
            if let Some(ledger) = ledgers.get_mut(&stamp.stream) {
                ledger.note(stamp.sequence, now.saturating_sub(stamp.sent_ns));
            }
        }
        Err(StampError::Foreign) => arrived.foreign += 1,
        Err(StampError::Corrupt) => arrived.corrupt += 1,
    }
    Ok(())
}
