// SPDX-License-Identifier: Apache-2.0
//! The two ways of a packet and their stages.
//!
//! [`Pipeline`] is one worker's: the process gives it bursts and a time, it gives back frames to transmit and
//! packets for other workers. [`outbound`] and [`inbound`] know the stages and their order; stages know the
//! tables; stages do not know each other. A stage is a loop over a [lane](lane) of packets.
//!
//! Not here: I/O, threads, clocks, logs, building of tables, and `unsafe`. Time comes in as nanoseconds of a
//! monotonic clock, packet memory as a pool, keys inside the SAs of [`Sad`].
#![forbid(unsafe_code)]

mod context;
mod counters;
mod dispatch;
mod encapsulate;
mod fast;
mod forward;
mod fragment;
mod gre;
mod handovers;
mod icmp;
mod identification;
mod inbound;
mod ingress;
mod lane;
mod limiter;
mod link;
mod local;
mod mss;
mod neighbor;
mod outbound;
mod outgoing;
mod pipeline;
mod policy;
mod queues;
mod sad;
mod scheduled;
mod stopwatch;
mod tag;
#[cfg(test)]
mod testing;
mod waiting;

use pipeline::whole_way;

pub use counters::Counters;
pub use handovers::HandedOver;
pub use outgoing::Sent;
pub use pipeline::{Pipeline, PipelineConfig};
pub use queues::{Handoff, Item};
pub use sad::{InboundEntry, Sad, State};
pub use stopwatch::Stage;
