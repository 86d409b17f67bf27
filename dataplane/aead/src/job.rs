// SPDX-License-Identifier: Apache-2.0
//! Jobs of a burst, and the two burst functions.

use thiserror::Error;

use crate::engine::Scratch;
use crate::key::Key;
use crate::parameters::{Aad, MAX_TEXT_BYTES, NONCE_BYTES};

/// A buffer that does not have room for a key's ICV, or has more text than [`MAX_TEXT_BYTES`].
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
    key: &'a Key,
    nonce: [u8; NONCE_BYTES],
    aad: Aad,
    text: &'a mut [u8],
    icv: &'a mut [u8],
}

impl<'a> SealJob<'a> {
    /// A job for `buffer`: the plaintext, followed by room for the ICV of `key`.
    ///
    /// The caller never uses a nonce twice with one key.
    ///
    /// # Errors
    /// When the buffer is shorter than the ICV or its text longer than [`MAX_TEXT_BYTES`]; it is untouched.
    #[inline]
    pub fn new(
        key: &'a Key,
        nonce: [u8; NONCE_BYTES],
        aad: Aad,
        buffer: &'a mut [u8],
    ) -> Result<Self, LengthError> {
        let buffer_bytes = buffer.len();
        match split(key, buffer) {
            Some((text, icv)) => Ok(Self { key, nonce, aad, text, icv }),
            None => Err(LengthError { buffer_bytes, icv_bytes: key.icv_length().bytes() }),
        }
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
    /// A buffer shorter than the ICV, or with more text than [`MAX_TEXT_BYTES`], will not be verified.
    #[inline]
    pub fn new(key: &'a Key, nonce: [u8; NONCE_BYTES], aad: Aad, buffer: &'a mut [u8]) -> Self {
        Self { key, nonce, aad, buffer, verified: false }
    }
}

/// Seals every job of a burst.
#[inline]
pub fn seal(jobs: &mut [SealJob<'_>]) {
    let mut scratch = Scratch::new();
    for job in jobs {
        job.key.seal_parts(&mut scratch, &job.nonce, job.aad.as_slice(), job.text, job.icv);
    }
}

/// Opens every job of a burst and says in each whether it is verified.
#[inline]
pub fn open(jobs: &mut [OpenJob<'_>]) {
    let mut scratch = Scratch::new();
    for job in jobs {
        job.verified = match split(job.key, job.buffer) {
            Some((text, icv)) => job.key.open_parts(&mut scratch, &job.nonce, job.aad.as_slice(), text, icv),
            None => false,
        };
    }
}

/// Text and ICV of a buffer; `None` where invariant 1 would not hold.
#[inline]
fn split<'b>(key: &Key, buffer: &'b mut [u8]) -> Option<(&'b mut [u8], &'b mut [u8])> {
    let text_bytes = buffer.len().checked_sub(key.icv_length().bytes())?;
    if text_bytes > MAX_TEXT_BYTES {
        return None;
    }
    buffer.split_at_mut_checked(text_bytes)
}
