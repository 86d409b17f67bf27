// SPDX-License-Identifier: Apache-2.0
//! The fast process: configuration, workers and their pinning, housekeeping, the link to control, counters.
//!
//! ```text
//!   main thread          housekeeping: control link, transactions → State, sequence store, ageing
//!     │  Mailbox (in-process, lock-free)  State ↓   retired State ↑   acknowledged generation ↑
//!   worker thread 0..n   queues of every port → pipeline → queues; pinned, no lock, no allocation, no log
//! ```
//!
//! A library so that simulations drive the very same parts over memory ports and a clock of their own. Not here:
//! what happens to a packet (`pipeline`), what a configuration means (`tables`), device drivers (`port`).
#![forbid(unsafe_code)]

pub mod config;
pub mod control_link;
pub mod counters;
pub mod housekeeping;
pub mod idle;
pub mod installer;
pub mod mailbox;
pub mod privileges;
pub mod process;
pub mod store;
pub mod worker;
