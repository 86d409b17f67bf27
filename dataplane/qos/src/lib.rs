// SPDX-License-Identifier: Apache-2.0
//! Quality of service: classifier, marks, meters, shapers and the scheduler of one egress port.
//!
//! - [`bucket`]: the token bucket under all of them, in exact arithmetic.
//! - [`classify`]: classes by the original headers, compiled from ordered rules.
//! - [`mark`]: code points that packets leave with.
//! - [`police`]: three-colour meters and what is done with each colour.
//! - [`schedule`]: port shaper → tunnel shaper → classes, with strict priority, shares, queue limits, WRED, CoDel and PIE.
//! - [`share`]: what the schedulers of one port, one for each worker, share.
//! - [`tally`]: what a burst comes to, class by class.
//!
//! The scheduler is generic over what is queued, and everything is pure: no I/O, no thread, no clock. Time comes in as nanoseconds,
//! sizes as the bytes that a packet will be on the wire. Nothing allocates once it is made.
//!
//! What does not live here: writing headers, the transmit ring.
//!
//! | RFC | part | where |
//! |---|---|---|
//! | 2474 | §4.2.2 IP precedence as code points | [`classify::Dscps::precedence`] |
//! | 2475 | §2.3.2 traffic profiles | [`bucket`] |
//! | 2697, 2698, 4115 | three-colour markers | [`police`] |
//! | 2309 | §3 RED | [`schedule::Wred`] |
//! | 3168 | §5 marks in place of drops | [`schedule::ClassSpec::ecn`] |
//! | 8289 | CoDel | [`schedule::CoDel`] |
//! | 8033 | PIE | [`schedule::Pie`] |
#![forbid(unsafe_code)]

pub mod bucket;
pub mod classify;
pub mod mark;
pub mod police;
pub mod schedule;
pub mod share;
pub mod tally;

pub use bucket::{Bucket, Rate, TrafficProfile};
pub use share::{PortShare, SharedBucket};
