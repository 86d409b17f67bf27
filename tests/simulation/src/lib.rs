// SPDX-License-Identifier: Apache-2.0
//! Two dataplanes in one process, over memory ports and a fake clock: deterministic by seed.
//!
//! A [`Headend`] is everything of the dataplane process but its threads, sockets and devices: the very installer,
//! mailboxes, workers and pipelines. A [`Site`] is a host at the far side of a port, which knows ARP and nothing else.
//! [`packets`] builds and reads what sites exchange, [`traffic`] numbers it and keeps the books, [`esp`] reads what an
//! eavesdropper sees of ESP.
//!
//! Not here: control and the rings (its own tests), real devices (the scenarios in the folders beside this one).
#![forbid(unsafe_code)]

pub mod bench;
pub mod esp;
mod headend;
pub mod packets;
pub mod sealer;
mod site;
pub mod topology;
pub mod traffic;
pub mod wanted;

pub use bench::Bench;
pub use headend::{Ending, Headend, HeadendConfig};
pub use site::Site;
