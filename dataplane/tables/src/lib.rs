// SPDX-License-Identifier: Apache-2.0
//! What the packet path consults: addresses, routes, tunnels, protections, SPD, SAs, classes, neighbours; and how the
//! wanted state becomes those tables.
//!
//! ```text
//! messages ── put, delete ──▶ Shadow ── compile ──▶ Generation ── Arc ──▶ every worker, between two bursts
//!                                                        ╲ next hops
//!                                                         ▶ Neighbors: shared, changed by packets
//! ```
//!
//! A [`Generation`] never changes. What is equal in two of them is shared ([`chunked`], [`paged`]), so that a change of
//! a few SAs does not copy 60,000 tunnels. What changes with packets lives apart from generations and is made of
//! atomics: [`Neighbors`] and [`TunnelRuntime`].
//!
//! Lookups are short, bounded, and neither allocate nor lock nor panic. Not here: keys and sequence numbers (`esp`),
//! clocks, packets, the order in which tables are asked (`pipeline`), and the handing over of a generation to the
//! workers (`dataplane`).
#![forbid(unsafe_code)]

mod addresses;
mod check;
mod chunked;
mod compile;
mod encapsulation;
mod filter;
mod generation;
mod groups;
mod hash;
mod limits;
mod neighbors;
mod paged;
mod ports;
mod protections;
mod quality;
mod regions;
mod routes;
mod runtime;
mod sas;
mod shadow;
mod shortcuts;
mod spd;
mod template;
mod tunnels;

#[cfg(test)]
mod testing;

pub use addresses::{Addresses, LocalAddress};
pub use chunked::Chunked;
pub use encapsulation::{Egress, Encapsulation, Verdict};
pub use generation::Generation;
pub use groups::ByGroup;
pub use limits::{Limits, PortLimits};
pub use neighbors::{Ask, Full, Link, NeighborIndex, Neighbors};
pub use ports::{PortEntry, Ports};
pub use protections::{ProtectionEntry, Protections};
pub use quality::{Arriving, AtWork, Class, Conditioned, Conditioner, Plan, Quality, Queue, Services};
pub use routes::{Leaf, NextHop, NextStep, Routes};
pub use runtime::{SequenceOrder, TunnelCounters, TunnelCounts, TunnelRuntime};
pub use sas::{SaConfig, Sas};
pub use shadow::Shadow;
pub use shortcuts::{ShortcutIn, ShortcutOut};
pub use spd::{POLICIES_PER_PORT_MAX, PacketSelectors, SpdVerdict, Spds};
pub use template::{HeaderPatch, Template};
pub use tunnels::{MssLimits, NoTunnel, Tunnel, Tunnels};
