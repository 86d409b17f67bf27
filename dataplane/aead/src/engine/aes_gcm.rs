// SPDX-License-Identifier: Apache-2.0
//! The portable engine and reference: RustCrypto's `aes-gcm`, one packet at a time.
//!
//! Its crate feature `hazmat` is what allows an ICV of 8 octets. It verifies before it decrypts.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::cipher::consts::{U8, U12, U16};
use aes_gcm::aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use aes_gcm::{AesGcm, KeyInit, Nonce, Tag};
use sysmem::Locked;

use crate::key::KeyError;
use crate::parameters::{IcvLength, KeySize, NONCE_BYTES};

/// One type for each key size and ICV length: `aes-gcm` has both in the type.
enum Cipher {
    Aes128Icv8(AesGcm<Aes128Enc, U12, U8>),
    Aes128Icv12(AesGcm<Aes128Enc, U12, U12>),
    Aes128Icv16(AesGcm<Aes128Enc, U12, U16>),
    Aes192Icv8(AesGcm<Aes192Enc, U12, U8>),
    Aes192Icv12(AesGcm<Aes192Enc, U12, U12>),
    Aes192Icv16(AesGcm<Aes192Enc, U12, U16>),
    Aes256Icv8(AesGcm<Aes256Enc, U12, U8>),
    Aes256Icv12(AesGcm<Aes256Enc, U12, U12>),
    Aes256Icv16(AesGcm<Aes256Enc, U12, U16>),
}

/// Does `$body` with `$cipher` bound to the concrete cipher within.
macro_rules! with_cipher {
    ($schedule:expr, $cipher:ident => $body:expr) => {
        match $schedule {
            Cipher::Aes128Icv8($cipher) => $body,
            Cipher::Aes128Icv12($cipher) => $body,
            Cipher::Aes128Icv16($cipher) => $body,
            Cipher::Aes192Icv8($cipher) => $body,
            Cipher::Aes192Icv12($cipher) => $body,
            Cipher::Aes192Icv16($cipher) => $body,
            Cipher::Aes256Icv8($cipher) => $body,
            Cipher::Aes256Icv12($cipher) => $body,
            Cipher::Aes256Icv16($cipher) => $body,
        }
    };
}

/// Round keys and powers of H.
pub(crate) struct Schedule(Locked<Cipher>);

impl Schedule {
    pub(super) fn expand(size: KeySize, key: &[u8], icv: IcvLength) -> Result<Self, KeyError> {
        let placed = place(size, key, icv);
        super::wipe_stack();
        placed
    }

    /// Encrypts `text` in place and writes the ICV.
    pub(super) fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8], icv: &mut [u8]) {
        with_cipher!(&*self.0, cipher => seal(cipher, nonce, aad, text, icv));
    }

    /// Decrypts `text` in place if `icv` is right.
    pub(super) fn open(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool {
        with_cipher!(&*self.0, cipher => open(cipher, nonce, aad, text, icv))
    }
}

/// The code path that the crates under `aes-gcm` choose on this CPU.
pub(super) fn path() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as detected;
        let aes = match () {
            () if detected!("avx512f") && detected!("vaes") => "VAES 512",
            () if detected!("vaes") => "VAES 256",
            () if detected!("aes") => "AES-NI",
            () => "AES in software",
        };
        let ghash = match () {
            () if detected!("avx") && detected!("pclmulqdq") => "PCLMULQDQ",
            () => "GHASH in software",
        };
        format!("RustCrypto; {aes}, {ghash}")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let aes = if aes_gcm::aes::hardware_accelerated() { "by the CPU" } else { "in software" };
        format!("RustCrypto; AES {aes}")
    }
}

#[inline(never)]
fn place(size: KeySize, key: &[u8], icv: IcvLength) -> Result<Schedule, KeyError> {
    use IcvLength::{Eight, Sixteen, Twelve};
    use KeySize::{Aes128, Aes192, Aes256};
    let wrong = |_| KeyError::Length(key.len());
    let cipher = match (size, icv) {
        (Aes128, Eight) => Cipher::Aes128Icv8(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes128, Twelve) => Cipher::Aes128Icv12(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes128, Sixteen) => Cipher::Aes128Icv16(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes192, Eight) => Cipher::Aes192Icv8(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes192, Twelve) => Cipher::Aes192Icv12(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes192, Sixteen) => Cipher::Aes192Icv16(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes256, Eight) => Cipher::Aes256Icv8(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes256, Twelve) => Cipher::Aes256Icv12(AesGcm::new_from_slice(key).map_err(wrong)?),
        (Aes256, Sixteen) => Cipher::Aes256Icv16(AesGcm::new_from_slice(key).map_err(wrong)?),
    };
    Ok(Schedule(Locked::new(cipher)?))
}

#[inline]
fn seal<C: AeadInOut<NonceSize = U12>>(
    cipher: &C,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
    icv: &mut [u8],
) {
    match cipher.encrypt_inout_detached(&Nonce::from(*nonce), aad, (&mut *text).into()) {
        Ok(tag) => icv.iter_mut().zip(tag).for_each(|(to, from)| *to = from),
        // Only a text beyond 2^36 octets, which invariant 1 excludes: nothing in clear may leave even then.
        Err(_) => {
            text.fill(0);
            icv.fill(0);
        }
    }
}

#[inline]
fn open<C: AeadInOut<NonceSize = U12>>(
    cipher: &C,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
    icv: &[u8],
) -> bool {
    let Ok(tag) = Tag::<C::TagSize>::try_from(icv) else {
        return false;
    };
    cipher.decrypt_inout_detached(&Nonce::from(*nonce), aad, text.into(), &tag).is_ok()
}
