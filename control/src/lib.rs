// SPDX-License-Identifier: Apache-2.0
//! The slow process: the daemon `greyhound-control`, and the CLI `greyhound` ([`cli`]).
//!
//! ```text
//!   greyhound ── HTTP + JSON ── api ── commands ── core ── link ── rings ── dataplane
//!                                │                  │
//!                                └── view ──────────┤          core is one task: changes happen one after another;
//!                                   (read only)     └── store   what only reads asks the view and waits for nobody
//! ```
//!
//! Control owns the truth: the configuration, the SAs and their keys. It is never on the way of a packet. It can be
//! killed at any time; the next one takes over what runs.
//!
//! Not here: what a configuration means (`config`), what goes through the rings (`messages`), packets.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod core;
pub mod daemon;
pub mod exchange;
pub mod failure;
pub mod files;
pub mod history;
pub mod keys;
pub mod link;
pub mod place;
pub mod sas;
pub mod store;
pub mod view;
