// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen stream` and `sink`: between two sockets of the kernel.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use greyhound_pktgen::socket::stamp::STAMP_BYTES;
use greyhound_pktgen::socket::{sink, stream};

/// Bytes that the kernel may keep for the sink while it is busy.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// Send a stamped stream between two sockets of the kernel, over UDP at a steady rate.
#[derive(Args)]
#[command(after_help = "\
Example, on two hosts:
  greyhound-pktgen sink --listen 10.2.0.2:7000 --json
  greyhound-pktgen stream --to 10.2.0.2:7000 --rate-pps 5000 --packets 50000
End the sink with Ctrl-C or SIGTERM; it prints what arrived of each stream.")]
pub(crate) struct StreamArguments {
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// Number of the stream, to tell several apart at one sink.
    #[arg(long, default_value_t = 1)]
    stream: u32,
    /// Packets a second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate_pps: u32,
    /// UDP payload in bytes, stamp included.
    #[arg(long, default_value_t = 172)]
    payload_bytes: u16,
    /// Stop after so many packets; without it, on SIGTERM or Ctrl-C.
    #[arg(long)]
    packets: Option<u64>,
    /// DSCP of the packets, 0-63.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=63))]
    dscp: u8,
}

/// Receive such streams until SIGTERM or Ctrl-C, and tell what arrived.
#[derive(Args)]
pub(crate) struct SinkArguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// After the signal, wait until nothing has come for so many milliseconds.
    #[arg(long, default_value_t = 500)]
    quiet_ms: u64,
}

impl StreamArguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let Self { to, stream: number, rate_pps, payload_bytes, packets, dscp } = self;
        let payload_bytes = usize::from(payload_bytes);
        ensure!(
            payload_bytes >= STAMP_BYTES,
            "--payload-bytes {payload_bytes}: the stamp alone takes {STAMP_BYTES}"
        );
        let stop = stop_on_signals()?;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).context("UDP socket")?;
        socket.connect(to).with_context(|| format!("{to}"))?;
        match to {
            SocketAddr::V4(_) => rustix::net::sockopt::set_ip_tos(&socket, dscp << 2)?,
            SocketAddr::V6(_) => rustix::net::sockopt::set_ipv6_tclass(&socket, u32::from(dscp) << 2)?,
        }
        let plan = stream::Plan { stream: number, rate_pps, payload_bytes, packets };
        let sent = stream::send(&socket, &plan, &stop)?;
        if json {
            println!("{}", serde_json::to_string(&sent)?);
        } else {
            println!("sent {} packets in {:.1} s, {} refused", sent.sent, sent.seconds, sent.refused);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl SinkArguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let Self { listen, quiet_ms } = self;
        let stop = stop_on_signals()?;
        let socket = UdpSocket::bind(listen).with_context(|| format!("{listen}"))?;
        // Root may go beyond net.core.rmem_max; others get what it allows.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
        }
        let arrived = sink::receive(&socket, &stop, Duration::from_millis(quiet_ms))?;
        if json {
            println!("{}", serde_json::to_string(&arrived)?);
        } else {
            print_arrived(&arrived);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As for all commands, and a finer timer.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    // A millisecond of slack would make bursts of a stream. Should it be refused, the rate still holds on average.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    super::ports::stop_on_signals()
}

fn print_arrived(arrived: &sink::Arrived) {
    for (stream, totals) in &arrived.streams {
        let latency = totals.latency_us;
        println!(
            "stream {stream}: received {}, missing {}, duplicated {}, reordered {}; latency p50 {:.0} p99 {:.0} max {:.0} µs",
            totals.received,
            totals.highest - totals.received,
            totals.duplicated,
            totals.reordered,
            latency.p50,
            latency.p99,
            latency.max,
        );
    }
    println!("foreign {}, corrupt {}", arrived.foreign, arrived.corrupt);
}
