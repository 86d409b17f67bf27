// SPDX-License-Identifier: Apache-2.0
//! ESP, from its own header on: SAs as the packet path sees them, and the sealing and opening of bursts.
//!
//! - [`sequence`]: sequence numbers, the outbound counter with its persisted limit, the IV prefix.
//! - [`window`]: the anti-replay window and the inference of the high word of ESN.
//! - [`layout`]: the octets of an ESP packet and the arithmetic of their sizes.
//! - [`lifetime`]: soft and hard bounds of an SA's use.
//! - [`outbound`]: outbound SAs; reserve numbers, stage headers, seal.
//! - [`inbound`]: inbound SAs; check, open, check again and mark, strip.
//!
//! Nothing here allocates, locks, copies a packet or calls through a pointer once an SA is made. Time comes
//! in as an argument.
//!
//! What does not live here: delivery headers, UDP encapsulation, GRE, the SAD and SPD, drop reasons (each
//! stage of `pipeline` decides which drop an error is), the store of limits and edges, and key exchange.
//!
//! # RFCs
//!
//! | RFC | part | where |
//! |---|---|---|
//! | 4301 | §4.4.2.1 lifetimes | [`lifetime`] |
//! | 4303 | §2.1–2.6 format, padding, dummy packets | [`layout`], [`inbound`] |
//! | 4303 | §2.2.1, §3.3.3 sequence numbers, ESN | [`sequence`] |
//! | 4303 | §3.4.3, Appendix A2 window, ESN high word | [`window`], [`inbound`] |
//! | 4106 | §3–6, §8.1 AES-GCM: IV, nonce, AAD, ICV, salt | [`layout`], [`sequence`] |
//! | 6054 | sender id in the IV | [`sequence::IvPrefix`] |
//!
//! Left out: RFC 4303 §2.7 traffic flow confidentiality padding, Appendix A3 resynchronisation of ESN.
#![forbid(unsafe_code)]

pub mod inbound;
pub mod layout;
pub mod lifetime;
pub mod outbound;
pub mod sequence;
pub mod window;

pub use inbound::{
    InboundParameters, InboundSa, InboundSaError, InboundStatistics, OpenBurst, OpenError, Opened, Outcomes,
};
pub use layout::{HEADER_BYTES, Salt, TRAILER_BYTES, overhead, padding_bytes, payload_room, sealed_bytes};
pub use lifetime::{Bounds, Lifetime, LifetimeState, Usage};
pub use outbound::{
    OutboundParameters, OutboundSa, Reservation, Reservations, SealBurst, SealError, reserve,
};
pub use sequence::{IvPrefix, IvPrefixError, Reserved, SequenceCounter, SequenceError, SequenceNumber};
pub use window::{ReplayError, WINDOW_DEFAULT, WINDOW_MAX, WINDOW_MIN, Window, WindowSizeError};
pub use wire::Spi;

#[cfg(test)]
mod testing;
