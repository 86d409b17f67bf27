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
//! Left out: sending traffic flow confidentiality padding (RFC 4303 §2.7; on receipt it stays in the payload,
//! behind the inner packet's own length), and the resynchronisation of ESN after a loss of 2^32 packets
//! (Appendix A3, a SHOULD).
//!
//! # Example
//!
//! ```
//! # use greyhound_esp as esp;
//! use esp::{InboundParameters, InboundSa, OutboundParameters, OutboundSa, Salt, SequenceNumber, Spi};
//! use wire::IpProtocol;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (spi, engine, icv) = (Spi(0x1001), aead::Engine::best(), aead::IcvLength::Sixteen);
//! let outbound = OutboundSa::new(OutboundParameters {
//!     spi,
//!     key: engine.key(&[7; 16], icv)?,
//!     salt: Salt::new(*b"salt"),
//!     esn: true,
//!     iv_prefix: esp::IvPrefix::EMPTY,
//!     lifetime: esp::Lifetime::default(),
//! });
//! outbound.sequence().raise_limit(SequenceNumber(1000)); // once 1000 is safely on disk
//!
//! // 20 octets of delivery header, room for ESP header and IV, and the payload.
//! let pool = pktbuf::Pool::memory(64, 2048)?;
//! let mut packet = pool.copy_of(&[&[0; 20 + esp::HEADER_BYTES][..], b"payload"].concat()).ok_or("no packet")?;
//! let mut burst = esp::SealBurst::new();
//! for (packet, reservation) in [&mut packet].into_iter().zip(esp::reserve(&[&outbound], 0)) {
//!     burst.push(packet, 20, reservation?, IpProtocol::GRE)?;
//! }
//! burst.seal();
//!
//! let inbound = InboundSa::new(InboundParameters {
//!     spi,
//!     key: engine.key(&[7; 16], icv)?,
//!     salt: Salt::new(*b"salt"),
//!     esn: true,
//!     window: Some(esp::WINDOW_DEFAULT),
//!     lifetime: esp::Lifetime::default(),
//! })?;
//! let mut burst = esp::OpenBurst::new(0);
//! burst.push(&mut packet, 20, &inbound)?;
//! for opened in burst.open() {
//!     let opened = opened?;
//!     assert_eq!((&packet.data()[opened.payload], opened.next_header), (&b"payload"[..], IpProtocol::GRE));
//! }
//! # Ok(())
//! # }
//! ```
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
pub use layout::{
    Envelope, HEADER_BYTES, Salt, TRAILER_BYTES, overhead, padding_bytes, payload_room, sealed_bytes,
};
pub use lifetime::{Bounds, Lifetime, LifetimeState, Usage};
pub use outbound::{
    OutboundParameters, OutboundSa, Reservation, Reservations, SealBurst, SealError, reserve,
};
pub use sequence::{IvPrefix, IvPrefixError, Reserved, SequenceCounter, SequenceError, SequenceNumber};
pub use window::{ReplayError, WINDOW_DEFAULT, WINDOW_MAX, WINDOW_MIN, Window, WindowSizeError};
pub use wire::Spi;

#[cfg(test)]
mod testing;
