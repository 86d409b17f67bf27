// SPDX-License-Identifier: Apache-2.0
//! The control channel's ring: fixed-size records from one producer to one consumer in another process.
//!
//! ```text
//! byte 0     header: magic, version, capacity, record size; written once, read once by each end
//! byte 128   tail: records published so far, written by the producer
//! byte 256   head: records consumed so far, written by the consumer
//! byte 384   slot 0 │ slot 1 │ … │ slot capacity - 1, 512 bytes each
//!            └─ word 0: low half of the record's index ‖ mark ‖ payload length; then the payload, padded with zeros
//! ```
//!
//! Either end distrusts the other, who can write every byte at any time:
//!
//! 1. All access to the shared memory is by relaxed, acquire or release operations on 64-bit words, one word at a time:
//!    a word that the peer changes meanwhile is old or new, never undefined.
//! 2. Each end keeps its own index, the peer's last valid index and the capacity in private memory and never reads them
//!    back. The header is read once, at attach.
//! 3. The peer's index is copied, and the copy is checked before use: it may only have moved forward, and only as far as
//!    the ring allows. Anything else is [`Corrupt`], and the end stays so.
//! 4. A slot's place follows from the private index alone. A record is copied out whole (all words, whatever its
//!    length field says), the slot is zeroed, and only then is the copy checked.
//! 5. Each call does a bounded amount of work that does not depend on what is in the shared memory: a peer can stop the
//!    ring, it cannot make the other end wait, loop, panic or read outside.
//!
//! The crate needs no `unsafe`: mapping, sealing and the view as words are `sysmem`'s. Keys pass through records: the
//! consumer zeroes slots, and both ends write and read the caller's buffer directly, which should be locked memory.
//!
//! Not here: what the records mean (`messages`), the socket that carries the memory's descriptor, waking the other side
//! (housekeeping polls).
//!
//! A connection begins with fresh memory: [`format()`] once, then one [`Producer`] and one [`Consumer`] attach.
//!
//! # The model check
//!
//! loom tries the interleavings and memory orders of both ends on short records:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p greyhound-ring --test loom --release
//! ```

#![forbid(unsafe_code)]

mod consumer;
mod layout;
mod memory;
mod producer;

pub use consumer::Consumer;
pub use layout::{
    AttachError, Corrupt, MAX_CAPACITY, PAYLOAD_BYTES, RECORD_BYTES, VERSION, bytes_for, format,
};
pub use memory::{Memory, Word};
pub use producer::{Producer, PushError};
