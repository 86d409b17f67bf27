// SPDX-License-Identifier: Apache-2.0
//! The engine intel-ipsec-mb, by its direct (one packet a call) GCM functions.
//!
//! Its job and burst API is left out: there is no multi-buffer GCM behind it, and it measures slower. The
//! library chooses its code by CPU when it is initialised and hands it out as function pointers; the C shim
//! (`shim/ipsec_mb.c`) passes them on, so that no layout of the library is repeated here but the two
//! structures below, whose sizes the shim checks against the library's header.
//!
//! Every call stores to one process-wide error word of the library: workers on different cores share that
//! cache line.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use sysmem::{Locked, Pod};
use zeroize::Zeroize;

use super::constant_time::icv_equal;
use crate::key::KeyError;
use crate::parameters::{KeySize, NONCE_BYTES};

/// Octets of `struct gcm_key_data`; `SHIM_KEY_DATA_BYTES` in the shim.
const KEY_DATA_BYTES: usize = 1024;
/// Octets of `struct gcm_context_data`; `SHIM_CONTEXT_BYTES` in the shim.
const CONTEXT_BYTES: usize = 88;

const NOT_HERE: &str = "this CPU lacks AES-NI or PCLMULQDQ, or the library's self test failed";

/// `struct gcm_key_data`: round keys and powers of H, written by the library's `pre` function.
#[repr(C, align(64))]
struct KeyData([u8; KEY_DATA_BYTES]);

// SAFETY: an array of octets: every bit pattern is valid, and it holds no pointer.
unsafe impl Pod for KeyData {}

/// `struct gcm_context_data`: the state of one operation, wiped when the burst ends.
#[repr(C, align(64))]
pub(crate) struct Context([u64; CONTEXT_BYTES / 8]);

impl Context {
    #[inline]
    pub(super) fn new() -> Self {
        Self([0; CONTEXT_BYTES / 8])
    }
}

impl Drop for Context {
    #[inline]
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// `aes_gcm_enc_dec_t`: key, context, output, input, length, 12-octet nonce, AAD, its length, ICV, its length.
type CipherFn = unsafe extern "C" fn(
    *const KeyData,
    *mut Context,
    *mut u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    u64,
    *mut u8,
    u64,
);

/// `aes_gcm_pre_t`: key of the function's size, key data to fill.
type ExpandFn = unsafe extern "C" fn(*const u8, *mut KeyData);

/// The functions for one key size.
#[derive(Clone, Copy)]
struct Functions {
    seal: CipherFn,
    open: CipherFn,
    expand: ExpandFn,
}

/// What the shim fills (`struct shim_library`).
#[repr(C)]
struct RawLibrary {
    seal: [Option<CipherFn>; 3],
    open: [Option<CipherFn>; 3],
    expand: [Option<ExpandFn>; 3],
    /// Static strings of the library and its symbol table.
    version: *const c_char,
    path: *const c_char,
}

unsafe extern "C" {
    fn greyhound_ipsec_mb_open(library: *mut RawLibrary) -> i32;
}

/// The library, initialised for this CPU (invariant 4).
pub(super) struct Library {
    aes128: Functions,
    aes192: Functions,
    aes256: Functions,
    path: String,
}

impl Library {
    fn functions(&'static self, size: KeySize) -> &'static Functions {
        match size {
            KeySize::Aes128 => &self.aes128,
            KeySize::Aes192 => &self.aes192,
            KeySize::Aes256 => &self.aes256,
        }
    }
}

/// The library, initialised by the first call.
///
/// # Errors
/// What this machine lacks for it.
pub(super) fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    LIBRARY.get_or_init(initialise).as_ref().ok_or(NOT_HERE)
}

/// Version and code path, for people to read.
pub(super) fn path() -> String {
    library().map_or_else(str::to_owned, |library| library.path.clone())
}

fn initialise() -> Option<Library> {
    let mut raw = RawLibrary {
        seal: [None; 3],
        open: [None; 3],
        expand: [None; 3],
        version: std::ptr::null(),
        path: std::ptr::null(),
    };
    // SAFETY: `raw` has the layout of the shim's `struct shim_library` and is valid for the call; the shim
    // keeps no pointer to it.
    if unsafe { greyhound_ipsec_mb_open(&raw mut raw) } != 0 {
        return None;
    }
    let functions = |at: usize| {
        Some(Functions {
            seal: (*raw.seal.get(at)?)?,
            open: (*raw.open.get(at)?)?,
            expand: (*raw.expand.get(at)?)?,
        })
    };
    Some(Library {
        aes128: functions(0)?,
        aes192: functions(1)?,
        aes256: functions(2)?,
        path: format!("{}; {}", text(raw.version)?, text(raw.path)?),
    })
}

fn text(string: *const c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: not null, and the shim hands out NUL-terminated strings in static storage only.
    Some(unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned())
}

/// An expanded key and the functions for its size.
pub(crate) struct Schedule {
    key: Locked<KeyData>,
    functions: &'static Functions,
}

impl Schedule {
    pub(super) fn expand(size: KeySize, key: &[u8]) -> Result<Self, KeyError> {
        if key.len() != size.bytes() {
            return Err(KeyError::Length(key.len()));
        }
        let library = library().map_err(KeyError::Engine)?;
        let functions = library.functions(size);
        let mut expanded = Locked::<KeyData>::zeroed()?;
        // SAFETY: `key` has the length that this size's function reads (checked above); `expanded` is a
        // `struct gcm_key_data` by size and alignment, exclusively borrowed. The function comes from the
        // library (invariant 4).
        unsafe { (functions.expand)(key.as_ptr(), &raw mut *expanded) };
        Ok(Self { key: expanded, functions })
    }

    /// Encrypts `text` in place and writes the ICV.
    #[inline]
    pub(super) fn seal(
        &self,
        context: &mut Context,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8],
    ) {
        // SAFETY: see `call`; `icv` is writable for its length, which invariant 1 makes 8, 12 or 16.
        unsafe { self.call(self.functions.seal, context, nonce, aad, text, icv) };
    }

    /// Decrypts `text` in place, and then says whether `icv` was right.
    #[inline]
    pub(super) fn open(
        &self,
        context: &mut Context,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8],
    ) -> bool {
        let mut computed = [0; 16];
        let Some(room) = computed.get_mut(..icv.len()) else {
            return false;
        };
        // SAFETY: see `call`; `room` is as long as the ICV.
        unsafe { self.call(self.functions.open, context, nonce, aad, text, room) };
        icv_equal(&computed, icv)
    }

    /// # Safety
    /// `function` is `seal` or `open` of this schedule's functions.
    #[inline]
    unsafe fn call(
        &self,
        function: CipherFn,
        context: &mut Context,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8],
    ) {
        let in_place = text.as_mut_ptr();
        // SAFETY: the key data was filled by the same library for the same key size (invariant 4); every
        // pointer is not null and valid for the length beside it, the nonce for 12 octets; output and input
        // are the same text, which the library allows, and nothing else overlaps (invariant 5). The lengths
        // are in the range that the library accepts (invariant 1), so it does the work and does not return
        // early. It keeps none of the pointers.
        unsafe {
            function(
                &raw const *self.key,
                context,
                in_place,
                in_place.cast_const(),
                text.len() as u64,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len() as u64,
                icv.as_mut_ptr(),
                icv.len() as u64,
            );
        }
    }
}
