// SPDX-License-Identifier: Apache-2.0
//! Memory from the operating system and the cycle clock: what the other crates need `unsafe` and system calls for.
//!
//! - [`map`]: an owned mapping, locked and kept out of core dumps on request.
//! - [`locked`]: owners for key material in locked memory that is zeroed on drop.
//! - [`shared`]: memory shared with another process, reached only through 64-bit atomics.
//! - [`counter`]: counter words with one writer and any number of readers.
//! - [`clock`]: the time stamp counter, calibrated against `CLOCK_MONOTONIC`.
//!
//! Not here: packet memory (`pktbuf`), sockets and descriptor passing (the two processes), DPDK.
//!
//! # Invariants
//!
//! The `SAFETY` comments of this crate cite these by number.
//!
//! 1. A [`map::Map`] owns its whole range of addresses: it was returned by `mmap` for exactly `len` bytes at a place
//!    the kernel chose, it stays mapped readable and writable at that address until the `Map` is dropped, and nothing
//!    else unmaps or remaps it.
//! 2. A slot is handed out to one owner at a time. Between the moment `locked` takes it from the free list and the
//!    moment its owner gives it back, nobody else reads or writes it.
//! 3. A slot is 64-byte aligned, at least as long as what it was asked for, a multiple of 64 bytes long, and all zero
//!    when it is handed out.
//! 4. A chunk of slots is never unmapped while a slot of it exists: chunks of the slab live as long as the process,
//!    the chunk of a large slot belongs to that slot.
//! 5. Memory that another process may write is only ever seen as `AtomicU64` words. No reference to a plain integer
//!    or byte slice into it exists anywhere.
//! 6. The object behind a [`shared::SharedMemory`] is sealed against shrinking before it is mapped, so that an access
//!    inside the mapping cannot raise `SIGBUS`, whatever the peer does.

#![expect(unsafe_code, reason = "mappings, slots in raw memory, words shared between processes, rdtsc")]

pub mod clock;
pub mod counter;
pub mod locked;
pub mod map;
pub mod shared;
#[cfg(test)]
mod testing;

pub use clock::{Calibration, ClockSource, Cycles};
pub use counter::{CounterReader, CounterWord, CounterWriter};
pub use locked::{Locked, LockedBytes, Pod, no_core_dumps};
pub use map::Map;
pub use shared::{Region, SharedError, SharedMemory};

/// Bytes in a cache line of the machines that Greyhound runs on.
pub const CACHE_LINE_BYTES: usize = 64;
