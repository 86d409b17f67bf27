// SPDX-License-Identifier: Apache-2.0
//! AEAD engines behind one burst interface: AES-GCM with 96-bit nonces as ESP uses it (RFC 4106).
//!
//! A [`Key`] is expanded once, off the packet path, by the [`Engine`] chosen at start. The packet path stages
//! one [`SealJob`] or [`OpenJob`] for each packet and hands the burst to [`seal`] or [`open`]; jobs of one
//! burst may have different keys, even of different engines. Texts are processed in place.
//!
//! What does not live here: salts, sequence numbers and IVs, padding, ESP headers (crate `esp`), and the
//! duty never to repeat a nonce for a key.
//!
//! # Engines
//!
//! One module for each under `engine/`; dispatch is a `match` on a closed enum, so a new engine is a new
//! module, a new variant, and nothing else.
//!
//! - `native`: our own, in AES and carry-less multiplication instructions, at the widest of 512, 256 and 128 bits
//!   that the CPU has. x86-64 with AES-NI, PCLMULQDQ and AVX.
//! - `ipsec-mb` (intel-ipsec-mb): there when its header and library were found at build time (cfg `have_ipsec_mb`;
//!   the feature `require-ipsec-mb` turns its absence into a build failure) and the CPU has AES-NI at run time.
//! - `aes-gcm` (RustCrypto): portable, and the reference.
//!
//! # Invariants
//!
//! 1. A job's ICV room is exactly as long as its key's ICV, and its text at most [`MAX_TEXT_BYTES`] long:
//!    [`SealJob::new`] checks it before a seal, [`open`] before each opening. The 32-bit block counter of
//!    GCM therefore never wraps.
//! 2. A text whose ICV is wrong is all zeros when [`open`] returns. The ICVs are compared in constant time.
//! 3. A key schedule lives only in [`sysmem::locked`] memory, at one address from its making to its end,
//!    and is zeroed when its [`Key`] is dropped. No type that holds one is `Debug` or `Clone`.
//! 4. All functions in `engine/ipsec_mb.rs` come from one successful initialisation of intel-ipsec-mb on this
//!    CPU, whose self test did not fail; they keep no state but a process-wide error word, which nothing here
//!    reads, so any thread may call them at any time.
//! 5. The buffers lent to an engine are distinct: text and ICV are the halves of one `&mut [u8]`, which
//!    excludes the key schedule, the nonce and the AAD by the borrow rules.
//! 6. Nothing on the way of a packet allocates, locks, logs, or panics.
//! 7. A `Form` of the native engine is handed out only where the CPU has every feature that the form's entry
//!    points name; those of the narrowest form are among them. Generic code below the entry points is
//!    `inline(always)`, so that it is compiled with these features on.
//! 8. The native engine touches octets of the text, the ICV, the AAD and the nonce, and no others: full vectors
//!    where the text has them, masked or partial ones at its ends. The block before the text is addressed, and
//!    always masked out. `tests/guard_pages.rs` has inaccessible pages on both sides of each.
//! 9. Branches and addresses of the native engine depend on lengths, the key's size, and the verdict on an ICV:
//!    `scripts/check-branches` looks at the compiled code, `examples/timing.rs` at the clock.

mod engine;
mod job;
mod key;
mod parameters;
#[cfg(test)]
mod tests;

pub use engine::{Engine, EngineError};
pub use job::{LengthError, OpenJob, SealJob, open, seal};
pub use key::{Key, KeyError};
pub use parameters::{Aad, BURST, IcvLength, IcvLengthError, KeySize, MAX_TEXT_BYTES, NONCE_BYTES};
