// SPDX-License-Identifier: Apache-2.0
//! The packet generator: sends what a profile says, at the rate it says, and tells what arrived.
//!
//! ```text
//!   profile ─ values, sizes, rate, keys     what the file says, checked
//!      │
//!   stream ─ template, fields, stamp        packets, prepared as far as can be
//!   schedule                                when which is due
//!      └─► generator ─ seal                 bursts of packets
//!             ├─► render                    a capture file
//!             └─► send ─► device ─► receive ─ open, locate, track, answer
//!                   └────── trial ──────┘   a profile for a while: an outcome
//!                             └─► rfc2544, report ─ plot
//!   hostile, playback                       frames one by one
//! ```
//!
//! Frame sizes are those of RFC 2544: the whole Ethernet frame, FCS included. Apart from all that is [`socket`].
#![forbid(unsafe_code)]

pub mod answer;
pub mod capture_file;
pub mod counters;
pub mod device;
pub mod fields;
pub mod generator;
pub mod hostile;
pub mod keys;
pub mod locate;
pub mod open;
pub mod outcome;
pub mod playback;
pub mod plot;
pub mod profile;
pub mod random;
pub mod rate;
pub mod receive;
pub mod render;
pub mod report;
pub mod rfc2544;
pub mod schedule;
pub mod seal;
pub mod send;
pub mod sequences;
pub mod shell;
pub mod sizes;
pub mod socket;
pub mod stamp;
pub mod stream;
pub mod template;
pub mod track;
pub mod trial;
pub mod values;
