// SPDX-License-Identifier: Apache-2.0
//! The sending end: stamped datagrams at a steady rate.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::socket::stamp::Stamp;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The stream's number.
    pub stream: u32,
    /// Packets a second.
    pub rate_pps: u32,
    /// UDP payload in bytes.
    pub payload_bytes: usize,
    /// How many packets; `None` until told to stop.
    pub packets: Option<u64>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that it refused; their sequence numbers were not used.
    pub refused: u64,
    /// CLOCK_MONOTONIC in nanoseconds when the first was due; without refusals, number n was due n ÷ rate later.
    pub started_ns: u64,
    /// Seconds from the first to the last.
    pub seconds: f64,
}

/// Sends by the plan until it is done or `stop` is set. Packets are due at fixed times from the start: after a delay
/// the stream catches up, so the rate asked for is the rate sent.
///
/// # Errors
/// What the socket says, other than that a datagram was refused for the moment.
pub fn send(socket: &UdpSocket, plan: &Plan, stop: &AtomicBool) -> io::Result<Sent> {
    let mut payload = vec![0; plan.payload_bytes];
    let start = Instant::now();
    let mut sent = Sent { sent: 0, refused: 0, started_ns: now_ns(), seconds: 0.0 };
    while plan.packets.is_none_or(|packets| sent.sent < packets) && !stop.load(Ordering::Relaxed) {
        let due = Duration::from_nanos((sent.sent + sent.refused) * 1_000_000_000 / u64::from(plan.rate_pps));
        if let Some(early) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(early);
        }
        let stamp = Stamp { stream: plan.stream, sequence: sent.sent, sent_ns: now_ns() };
        if !stamp.emit(&mut payload) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "payload shorter than the stamp"));
        }
        match socket.send(&payload) {
            Ok(_) => sent.sent += 1,
            Err(error) if is_passing(&error) => sent.refused += 1,
            Err(error) => return Err(error),
        }
    }
    sent.seconds = start.elapsed().as_secs_f64();
    Ok(sent)
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, WouldBlock};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | WouldBlock)
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}
