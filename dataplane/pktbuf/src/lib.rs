// SPDX-License-Identifier: Apache-2.0
//! Packet memory: pools, [`Packet`] with headroom, [`Batch`], prefetch, and a huge-page arena for tables.
//!
//! A [`Packet`] is one pointer to a header that has the layout of the first cache line of DPDK's `rte_mbuf`.
//! Over DPDK it *is* the mbuf; over a memory pool the header is our own, so that no code on the packet path
//! asks which of the two it holds. Only returning a packet to its pool differs.
//!
//! ```text
//!   header (64 B; 128 B over DPDK)   buf_addr                  data_off                          buf_len
//!   +-------------------------------+-+-----------------------+---------------------------------+
//!   | buf_addr data_off … pool      |s|        headroom       | data (len)     |    tailroom    |
//!   +-------------------------------+-+-----------------------+---------------------------------+
//!                              shift, chosen once so that data + PoolConfig::align_at is 64-byte aligned
//! ```
//!
//! Not here: packet I/O (`port`), header formats (`wire`), chains of segments (packets are linear).
//!
//! # Invariants
//! The `SAFETY` comments cite these by number.
//!
//! 1. A `Packet` holds the only pointer by which its header and its buffer are reached, from the moment its
//!    pool gave it out until it is dropped or handed to a driver. `refcnt` is 1 throughout.
//! 2. `buf_addr` points to `buf_len` bytes of initialised memory (pool memory comes zeroed from the kernel)
//!    that belong to this header alone, and both stay as they were set at pool creation.
//! 3. `data_off + data_len <= buf_len`, `pkt_len == data_len`, and `nb_segs == 1`.
//! 4. `pool` carries [`MEMORY_TAG`](header::MEMORY_TAG) in its lowest bit exactly if the header belongs to a memory
//!    pool; then the rest of it points to that pool. Otherwise it is the `rte_mempool` of an mbuf.
//! 5. A memory pool's memory is unmapped only when every one of its slots has been counted home. DPDK pools
//!    are never freed: they live as long as the process.
//! 6. Packet memory is anonymous and kept out of core dumps, so no file ever holds it.

#![allow(unsafe_code, reason = "packets are raw pool memory; every block says why it holds")]

pub mod arena;
mod backing;
#[cfg(have_dpdk)]
mod dpdk;
mod header;
mod memory;
mod packet;
mod pool;
pub mod raw;

pub use header::Header;
pub use packet::{NoRoom, Packet, prefetch};
pub use pool::{ALIGN_INBOUND, ALIGN_OUTBOUND, Pool, PoolConfig};

/// Packets that a worker takes from a queue at once.
pub const BURST: usize = 64;

/// Bytes free in front of a frame as it is received, and of a packet as it is allocated.
///
/// It is DPDK's compiled-in headroom. Together with the Ethernet header that encapsulation replaces (14 bytes)
/// it holds the worst encapsulation of 138 bytes: Ethernet and VLAN 18, IPv6 40, UDP 8, ESP with IV 16, inner
/// IPv6 40, GRE with key, checksum and sequence number 16.
pub const HEADROOM: usize = 128;

/// The longest run of bytes that encapsulation puts in front of an inner IP packet, Ethernet included.
pub const WORST_ENCAPSULATION: usize = 18 + 40 + 8 + 16 + 40 + 16;

const _: () = assert!(WORST_ENCAPSULATION <= HEADROOM + 14);

/// Bytes of tailroom that sealing may need behind a packet: ESP padding up to a block of 4 (3), pad length and
/// next header (2), and the longest ICV (16), rounded up to a word.
pub const SEALING_TAILROOM: usize = 24;

/// A burst of packets, held on the stack or in a worker's state.
pub type Batch = arrayvec::ArrayVec<Packet, BURST>;
