// SPDX-License-Identifier: Apache-2.0
//! Header formats: no state, no I/O, no allocation, no unsafe.
//!
//! One file a protocol. Each has a borrowed typed `Header` (big-endian fields read in place), a view `Packet` that has
//! checked the lengths, and a small `Repr` that parses from the view and emits into a buffer. Parsing takes bytes from
//! the network and never panics: it returns [`ParseError`]. Emitting returns [`EmitError`] when the buffer is too short.
//!
//! [`flow::parse`] is the one pass that the packet path makes over every packet. What must be changed in a packet on
//! its way (TTL, ToS, MSS, …) is changed in place with an incremental checksum (RFC 1624).
//!
//! Left out: keys, sequence numbers' meaning, windows, tables, buffers; the IV of ESP, which belongs to the cipher.
//!
//! Naming in all files: `set_…` writes a field and leaves the checksum alone, `rewrite_…` also updates it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod address;
pub mod arp;
pub mod checksum;
pub mod dscp;
pub mod ecn;
pub mod error;
pub mod esp;
pub mod ethernet;
pub mod flow;
pub mod gre;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod protocol;
pub mod tcp;
pub mod udp;
pub mod vlan;

mod view;

#[cfg(test)]
mod testing;

pub use address::{Address, Family};
pub use dscp::Dscp;
pub use ecn::Ecn;
pub use error::{EmitError, ParseError};
pub use esp::Spi;
pub use ethernet::{EtherType, MacAddr};
pub use protocol::IpProtocol;
pub use vlan::VlanId;
