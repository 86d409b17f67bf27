// SPDX-License-Identifier: Apache-2.0
//! An expanded key: the schedule of one engine in locked memory, and the ICV length of its SA.

use std::io;

use static_assertions::{assert_impl_all, assert_not_impl_any, const_assert};
use thiserror::Error;

#[cfg(target_arch = "x86_64")]
use crate::engine::native;
use crate::engine::{Engine, Schedule, Scratch};
use crate::parameters::{IcvLength, KeySize, MAX_TEXT_BYTES, NONCE_BYTES};

/// Why a key could not be made.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The key has a length that AES does not have.
    #[error("an AES key of {0} octets: wants 16, 24 or 32")]
    Length(usize),
    /// The engine does not run here; [`Engine`] handles exist only where it does.
    #[error("the AEAD engine does not run here: {0}")]
    Engine(&'static str),
    /// No locked memory for the schedule.
    #[error("no locked memory for a key schedule (is RLIMIT_MEMLOCK too low?)")]
    Memory(#[from] io::Error),
}

/// A key ready for the packet path: made by [`Engine::key`], zeroed when dropped.
///
/// It says nothing about its content, not even by mistake:
///
/// ```compile_fail,E0277
/// fn printed(key: greyhound_aead::Key) -> String {
///     format!("{key:?}")
/// }
/// ```
pub struct Key {
    schedule: Schedule,
    size: KeySize,
    icv: IcvLength,
}

assert_impl_all!(Key: Send, Sync);
assert_not_impl_any!(Key: std::fmt::Debug, std::fmt::Display, Clone);
// A part of what every packet touches of its SA.
const_assert!(size_of::<Key>() <= 40);

impl Key {
    pub(crate) fn new(engine: Engine, key: &[u8], icv: IcvLength) -> Result<Self, KeyError> {
        let size = KeySize::from_bytes(key.len()).ok_or(KeyError::Length(key.len()))?;
        Ok(Self { schedule: engine.expand(size, key, icv)?, size, icv })
    }

    /// The length of the ICV that this key's texts have.
    #[inline]
    pub fn icv_length(&self) -> IcvLength {
        self.icv
    }

    /// The size of the AES key.
    pub fn size(&self) -> KeySize {
        self.size
    }

    /// The engine that this key is for.
    pub fn engine(&self) -> Engine {
        self.schedule.engine()
    }

    /// The schedule of the native engine, if that is the key's.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn native(&self) -> Option<&native::Schedule> {
        self.schedule.native()
    }

    /// Text and ICV of a buffer; `None` where invariant 1 would not hold.
    #[inline(always)]
    pub(crate) fn split<'b>(&self, buffer: &'b mut [u8]) -> Option<(&'b mut [u8], &'b mut [u8])> {
        let text_bytes = buffer.len().checked_sub(self.icv.bytes())?;
        if text_bytes > MAX_TEXT_BYTES {
            return None;
        }
        buffer.split_at_mut_checked(text_bytes)
    }

    /// Encrypts `text` in place and writes `icv`, of the key's ICV length (invariant 1), for any AAD.
    #[inline]
    pub(crate) fn seal_parts(
        &self,
        scratch: &mut Scratch,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8],
    ) {
        self.schedule.seal(scratch, nonce, aad, text, icv);
    }

    /// Decrypts `text` in place if `icv` is right; else zeroes it and says `false` (invariant 2).
    #[inline]
    pub(crate) fn open_parts(
        &self,
        scratch: &mut Scratch,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8],
    ) -> bool {
        let verified = self.schedule.open(scratch, nonce, aad, text, icv);
        if !verified {
            text.fill(0);
        }
        verified
    }
}
