// SPDX-License-Identifier: Apache-2.0
//! What a trial came to: plain data for tables, JSON and reports.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::device::Ports;
use crate::sizes::GAP_BYTES;

/// What frame sizes mean here, said in every result.
pub const FRAME_SIZES: &str = "RFC 2544: Ethernet frames with FCS";

/// What a trial came to, or how it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// [`FRAME_SIZES`].
    pub frame_sizes: String,
    /// For how long packets were sent.
    pub seconds: f64,
    /// The streams, in the order of the profile.
    pub streams: Vec<StreamOutcome>,
    /// Frames that came and carry none of our packets, or cannot be opened.
    pub foreign: u64,
    /// Questions for an address of ours, by ARP or neighbour discovery, that were answered.
    #[serde(default)]
    pub answered: u64,
    /// How the sender did.
    pub sender: SenderOutcome,
    /// What the devices counted.
    pub device: DeviceCounts,
}

/// What a stream came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamOutcome {
    /// Its name.
    pub name: String,
    /// Frame sizes in clear.
    pub size: String,
    /// The rate asked for.
    pub rate: String,
    /// What the port took.
    pub sent: Volume,
    /// Of a sealed stream: the first ESP sequence number that none of its SAs has used. A run that goes on with the same
    /// keys begins there.
    pub next_sequence: Option<u64>,
    /// What arrived; none if nobody looked, or the stream has no stamps.
    pub arrived: Option<ArrivedOutcome>,
}

/// Packets and how fast they were.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// A second.
    pub pps: f64,
    /// Bits a second of frames on the wire with FCS.
    pub l2_bps: f64,
    /// With preamble and gap.
    pub l1_bps: f64,
}

impl Volume {
    /// So many packets with so many bytes, FCS included, in so long.
    #[must_use]
    pub fn new(packets: u64, bytes: u64, seconds: f64) -> Self {
        let seconds = seconds.max(1e-9);
        let l1_bytes = bytes + packets * GAP_BYTES as u64;
        Self {
            packets,
            pps: packets as f64 / seconds,
            l2_bps: bytes as f64 * 8.0 / seconds,
            l1_bps: l1_bytes as f64 * 8.0 / seconds,
        }
    }
}

/// What arrived of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArrivedOutcome {
    /// Packets, each counted once.
    pub received: u64,
    /// A second, between the first and the last, by the receiver's clock.
    pub pps: f64,
    /// Sent and not received.
    pub lost: u64,
    /// Of those received, the ones that a later one had overtaken (RFC 4737).
    pub reordered: u64,
    /// Further copies.
    pub duplicated: u64,
    /// Too late to be told from copies.
    pub too_late: u64,
    /// Damaged.
    pub corrupt: u64,
    /// The longest time between one packet's arrival and the next one's, in seconds.
    pub longest_pause: f64,
    /// From when packets were due until they were received, in microseconds.
    pub latency_us: Option<Quantiles>,
    /// At the end of a trial: latencies in microseconds, and how many percent of the packets took no longer.
    pub latency_cdf: Vec<[f64; 2]>,
}

/// How the sender did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SenderOutcome {
    /// From when packets were due until they were written, in microseconds: the generator's own part of the latency.
    pub late_us: Option<Quantiles>,
    /// Bursts that the port did not take whole.
    pub refused: u64,
    /// Times that no packet buffer was free.
    pub starved: u64,
    /// Seconds of a CPU that the sending thread had from its start to its end; on a machine that others use, fewer than
    /// passed.
    pub cpu_seconds: f64,
    /// Whether the port took all that was due, in time.
    pub kept_up: bool,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The least.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The most.
    pub max: f64,
}

impl Quantiles {
    /// Of a histogram of nanoseconds, if anything is in it.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            // The end of its bucket, as of all others: no packet is told to be faster than it was.
            min: histogram.highest_equivalent(histogram.min()) as f64 / 1e3,
            mean: histogram.mean() / 1e3,
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

/// Points of a histogram of nanoseconds: microseconds, and percent of its values up to there.
#[must_use]
pub fn cdf(histogram: &Histogram<u64>) -> Vec<[f64; 2]> {
    if histogram.is_empty() {
        return Vec::new();
    }
    const TAIL: [f64; 6] = [0.99, 0.995, 0.999, 0.9999, 0.99999, 1.0];
    let quantiles = (0..=48).map(|step| f64::from(step) / 50.0).chain(TAIL);
    quantiles.map(|quantile| [histogram.value_at_quantile(quantile) as f64 / 1e3, quantile * 100.0]).collect()
}

/// What the devices counted during a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// Packets transmitted.
    pub transmitted: u64,
    /// Packets received.
    pub received: u64,
    /// Packets lost because the receive queue was full or no buffer was free.
    pub missed: u64,
    /// Frames that the sending port would not send: longer than its MTU.
    pub too_long: u64,
}

impl DeviceCounts {
    /// As they stand.
    #[must_use]
    pub fn of(ports: &Ports) -> Self {
        let transmit = ports.transmit.as_ref().map(port::Port::statistics).unwrap_or_default();
        let receive = ports.receiving().map(port::Port::statistics).unwrap_or_default();
        Self {
            transmitted: transmit.tx_packets,
            received: receive.rx_packets,
            missed: receive.rx_missed + receive.rx_no_buffer,
            too_long: transmit.tx_too_long,
        }
    }

    /// Since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            transmitted: self.transmitted.wrapping_sub(before.transmitted),
            received: self.received.wrapping_sub(before.received),
            missed: self.missed.wrapping_sub(before.missed),
            too_long: self.too_long.wrapping_sub(before.too_long),
        }
    }
}

impl Outcome {
    /// Packets sent in all.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.streams.iter().map(|stream| stream.sent.packets).sum()
    }

    /// Packets lost in all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.streams.iter().filter_map(|stream| stream.arrived.as_ref()).map(|arrived| arrived.lost).sum()
    }
}
