// SPDX-License-Identifier: Apache-2.0
//! Greyhound's own engine: AES-GCM in AES and carry-less multiplication instructions, one packet at a time.
//!
//! - `gcm.rs`: the algorithm, once for every width.
//! - `lanes.rs`: vectors of blocks, 512, 256 and 128 bits wide, each in a file of its own.
//! - `key.rs`: the key schedule, the same for every width.
//! - `packet.rs`: one packet: key size, ICV.
//! - `burst.rs`: the loops over the jobs of a burst.
//!
//! The width is chosen by CPU when the engine is ([`Form`]). All code of a form is compiled into the few entry
//! points at the end of this file, on which the CPU's features are switched on: everything below them is
//! `inline(always)`, or an instruction.
#![expect(unsafe_code, reason = "instructions that not every CPU has, masked loads and stores by address")]

mod burst;
mod gcm;
mod key;
mod lanes;
mod packet;

use std::arch::is_x86_feature_detected as detected;

use sysmem::Locked;
use zeroize::Zeroize;

use crate::key::KeyError;
use crate::parameters::{KeySize, NONCE_BYTES};
pub(crate) use burst::{open_burst, seal_burst};
use key::Blocks;

pub(super) const NOT_HERE: &str = "this CPU lacks AES-NI, PCLMULQDQ or AVX";

/// How wide the engine works. A form exists only on a CPU that has its features (invariant 7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Four blocks: AVX-512, VAES, VPCLMULQDQ.
    Wide512,
    /// Two blocks: AVX2, VAES, VPCLMULQDQ.
    Wide256,
    /// One block: AVX, AES-NI, PCLMULQDQ.
    Wide128,
    /// [`Form::Wide512`] with its vectors modelled on single blocks.
    #[cfg(any(test, feature = "models"))]
    Model512,
    /// [`Form::Wide256`] with its vectors modelled on single blocks.
    #[cfg(any(test, feature = "models"))]
    Model256,
    /// [`Form::Wide512`] without VAES and VPCLMULQDQ.
    #[cfg(any(test, feature = "models"))]
    Hybrid512,
    /// [`Form::Wide256`] without VAES and VPCLMULQDQ.
    #[cfg(any(test, feature = "models"))]
    Hybrid256,
}

impl Form {
    /// The forms that this CPU runs, the widest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [
            Self::Wide512,
            Self::Wide256,
            Self::Wide128,
            #[cfg(any(test, feature = "models"))]
            Self::Model512,
            #[cfg(any(test, feature = "models"))]
            Self::Model256,
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid512,
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid256,
        ]
        .into_iter()
        .filter(|form| form.runs_here())
    }

    /// Whether this CPU has the features that the form's entry points name.
    fn runs_here(self) -> bool {
        let single = detected!("aes") && detected!("avx") && detected!("pclmulqdq");
        let avx2 = single && detected!("avx2");
        let vaes = avx2 && detected!("vaes") && detected!("vpclmulqdq");
        let avx512 = avx2
            && detected!("avx512f")
            && detected!("avx512bw")
            && detected!("avx512vl")
            && detected!("bmi2");
        match self {
            Self::Wide512 => vaes && avx512,
            Self::Wide256 => vaes,
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid512 => avx512,
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid256 => avx2,
            _ => single,
        }
    }

    #[inline]
    fn entries(self) -> Entries {
        match self {
            Self::Wide512 => wide512::ENTRIES,
            Self::Wide256 => wide256::ENTRIES,
            Self::Wide128 => wide128::ENTRIES,
            #[cfg(any(test, feature = "models"))]
            Self::Model512 => model512::ENTRIES,
            #[cfg(any(test, feature = "models"))]
            Self::Model256 => model256::ENTRIES,
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid512 => hybrid512::ENTRIES,
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid256 => hybrid256::ENTRIES,
        }
    }

    /// Overwrites what the entry points may have left on the stack: with 16 registers, compilers put some of what
    /// they hold there. The widest form has 32 and keeps keys in them.
    #[inline]
    fn wipe(self) {
        if self != Self::Wide512 {
            wipe_below();
        }
    }

    /// The form's instructions, for people to read.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Wide512 => "AVX-512, VAES, VPCLMULQDQ: 4 blocks an instruction",
            Self::Wide256 => "AVX2, VAES, VPCLMULQDQ: 2 blocks an instruction",
            Self::Wide128 => "AES-NI, PCLMULQDQ: 1 block an instruction",
            #[cfg(any(test, feature = "models"))]
            Self::Model512 => "model of 4 blocks an instruction",
            #[cfg(any(test, feature = "models"))]
            Self::Model256 => "model of 2 blocks an instruction",
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid512 => "AVX-512, AES and products 1 block an instruction",
            #[cfg(any(test, feature = "models"))]
            Self::Hybrid256 => "AVX2, AES and products 1 block an instruction",
        }
    }
}

/// Round keys and powers of H, and the form that works with them.
pub(crate) struct Schedule {
    blocks: Locked<Blocks>,
    size: KeySize,
    form: Form,
}

/// Overwrites the stack below the caller, further than any entry point reaches.
#[inline(never)]
fn wipe_below() {
    let mut below = [0_u64; 80];
    below.zeroize();
}

/// Seals the text of one packet in place and writes its ICV.
type Seal = unsafe fn(&Schedule, &[u8; NONCE_BYTES], &[u8], &mut [u8], &mut [u8]);
/// Opens the text of one packet in place and says whether its ICV is right.
type Open = unsafe fn(&Schedule, &[u8; NONCE_BYTES], &[u8], &mut [u8], &[u8]) -> bool;

/// The entry points of a form.
#[derive(Clone, Copy)]
struct Entries {
    seal: Seal,
    open: Open,
}

impl Schedule {
    pub(super) fn expand(form: Form, size: KeySize, key: &[u8]) -> Result<Self, KeyError> {
        if key.len() != size.bytes() {
            return Err(KeyError::Length(key.len()));
        }
        let mut blocks = Locked::<Blocks>::zeroed()?;
        // SAFETY: there is a form, so the CPU has the features of the narrowest one (invariant 7).
        unsafe { blocks.expand(size, key) };
        super::wipe_stack();
        Ok(Self { blocks, size, form })
    }

    #[inline]
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Encrypts `text` in place and writes the ICV.
    pub(super) fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8], icv: &mut [u8]) {
        let seal = self.form.entries().seal;
        // SAFETY: the form exists, so the CPU has the features of its entry points (invariant 7).
        unsafe { seal(self, nonce, aad, text, icv) }
        self.form.wipe();
    }

    /// Decrypts `text` in place, and then says whether `icv` was right.
    pub(super) fn open(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool {
        let open = self.form.entries().open;
        // SAFETY: as in `seal`.
        let verified = unsafe { open(self, nonce, aad, text, icv) };
        self.form.wipe();
        verified
    }
}

/// The entry points of one form: the only functions in which its features are switched on.
macro_rules! entries {
    ($module:ident, $lanes:ty, $features:literal) => {
        mod $module {
            use super::*;

            pub(super) const ENTRIES: Entries = Entries { seal, open };

            /// # Safety
            /// The CPU has the features.
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn seal(
                schedule: &Schedule,
                nonce: &[u8; NONCE_BYTES],
                aad: &[u8],
                text: &mut [u8],
                icv: &mut [u8],
            ) {
                // SAFETY: the caller's promise, and the features are on.
                unsafe { packet::seal::<$lanes>(schedule, nonce, aad, text, icv) }
            }

            /// # Safety
            /// The CPU has the features.
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn open(
                schedule: &Schedule,
                nonce: &[u8; NONCE_BYTES],
                aad: &[u8],
                text: &mut [u8],
                icv: &[u8],
            ) -> bool {
                // SAFETY: the caller's promise, and the features are on.
                unsafe { packet::open::<$lanes>(schedule, nonce, aad, text, icv) }
            }
        }
    };
}

entries!(wide512, lanes::Wide512, "aes,avx,pclmulqdq,avx2,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl,bmi2");
entries!(wide256, lanes::Wide256, "aes,avx,pclmulqdq,avx2,vaes,vpclmulqdq");
entries!(wide128, lanes::Wide128, "aes,avx,pclmulqdq");
#[cfg(any(test, feature = "models"))]
entries!(model512, lanes::model::Model<4>, "aes,avx,pclmulqdq");
#[cfg(any(test, feature = "models"))]
entries!(model256, lanes::model::Model<2>, "aes,avx,pclmulqdq");
#[cfg(any(test, feature = "models"))]
entries!(
    hybrid512,
    lanes::hybrid::Hybrid<lanes::Wide512>,
    "aes,avx,pclmulqdq,avx2,avx512f,avx512bw,avx512vl,bmi2"
);
#[cfg(any(test, feature = "models"))]
entries!(hybrid256, lanes::hybrid::Hybrid<lanes::Wide256>, "aes,avx,pclmulqdq,avx2");
