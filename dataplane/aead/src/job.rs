// SPDX-License-Identifier: Apache-2.0
//! Jobs of a burst, and the two burst functions.

use thiserror::Error;

use crate::engine::Scratch;
#[cfg(target_arch = "x86_64")]
use crate::engine::native;
use crate::key::Key;
use crate::parameters::{Aad, NONCE_BYTES};

/// A buffer that does not have room for a key's ICV, or has more text than [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a buffer of {buffer_bytes} octets: wants the ICV's {icv_bytes} and at most 65535 of text")]
pub struct LengthError {
    /// The refused buffer's octets.
    pub buffer_bytes: usize,
    /// The octets of the key's ICV.
    pub icv_bytes: usize,
}

/// One packet to seal: [`seal`] turns the plaintext into ciphertext in place and writes the ICV behind it.
pub struct SealJob<'a> {
    pub(crate) key: &'a Key,
    pub(crate) nonce: [u8; NONCE_BYTES],
    pub(crate) aad: Aad,
    pub(crate) text: &'a mut [u8],
    pub(crate) icv: &'a mut [u8],
}

impl<'a> SealJob<'a> {
    /// A job for `buffer`: the plaintext, followed by room for the ICV of `key`.
    ///
    /// The caller never uses a nonce twice with one key.
    ///
    /// # Errors
    /// When the buffer is shorter than the ICV or its text longer than [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES); it is untouched.
    #[inline]
    pub fn new(
        key: &'a Key,
        nonce: [u8; NONCE_BYTES],
        aad: Aad,
        buffer: &'a mut [u8],
    ) -> Result<Self, LengthError> {
        let buffer_bytes = buffer.len();
        match key.split(buffer) {
            Some((text, icv)) => Ok(Self { key, nonce, aad, text, icv }),
            None => Err(LengthError { buffer_bytes, icv_bytes: key.icv_length().bytes() }),
        }
    }

    /// Seals this job alone.
    #[inline]
    pub(crate) fn seal(&mut self, scratch: &mut Scratch) {
        self.key.seal_parts(scratch, &self.nonce, self.aad.as_slice(), self.text, self.icv);
    }
}

/// One packet to open: [`open`] turns the ciphertext into plaintext in place, if the ICV is right.
pub struct OpenJob<'a> {
    /// The key of the SA.
    pub key: &'a Key,
    /// Salt and IV.
    pub nonce: [u8; NONCE_BYTES],
    /// SPI and sequence number.
    pub aad: Aad,
    /// The ciphertext, followed by the ICV. After a failure the text is zeroed.
    pub buffer: &'a mut [u8],
    /// The result: whether the ICV was right. [`open`] writes it whatever it was before.
    pub verified: bool,
}

impl<'a> OpenJob<'a> {
    /// A job for `buffer`, not verified yet.
    ///
    /// A buffer shorter than the ICV, or with more text than [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES), will not be verified.
    #[inline]
    pub fn new(key: &'a Key, nonce: [u8; NONCE_BYTES], aad: Aad, buffer: &'a mut [u8]) -> Self {
        Self { key, nonce, aad, buffer, verified: false }
    }

    /// Opens this job alone.
    #[inline]
    pub(crate) fn open(&mut self, scratch: &mut Scratch) {
        self.verified = match self.key.split(self.buffer) {
            Some((text, icv)) => self.key.open_parts(scratch, &self.nonce, self.aad.as_slice(), text, icv),
            None => false,
        };
    }
}

/// Seals every job of a burst.
#[inline]
pub fn seal(jobs: &mut [SealJob<'_>]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(schedule) = jobs.first().and_then(|job| job.key.native()) {
        return native::seal_burst(schedule.form(), jobs);
    }
    let mut scratch = Scratch::new();
    for job in jobs {
        job.seal(&mut scratch);
    }
}

/// Opens every job of a burst and says in each whether it is verified.
#[inline]
pub fn open(jobs: &mut [OpenJob<'_>]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(schedule) = jobs.first().and_then(|job| job.key.native()) {
        return native::open_burst(schedule.form(), jobs);
    }
    let mut scratch = Scratch::new();
    for job in jobs {
        job.open(&mut scratch);
    }
}
