// SPDX-License-Identifier: Apache-2.0
//! The engines: which there are, which one this machine gets, and the static dispatch to them.
//!
//! Each engine is one module with a `Schedule` (`expand`, `seal`, `open`) over detached text and ICV and an
//! AAD of any length.

mod aes_gcm;
#[cfg(any(have_ipsec_mb, test))]
mod constant_time;
#[cfg(have_ipsec_mb)]
mod ipsec_mb;
#[cfg(target_arch = "x86_64")]
pub(crate) mod native;

use std::fmt;

use thiserror::Error;
use zeroize::Zeroize;

use crate::key::{Key, KeyError};
use crate::parameters::{IcvLength, KeySize, NONCE_BYTES};

const AES_GCM: &str = "aes-gcm";
const IPSEC_MB: &str = "ipsec-mb";
const NATIVE: &str = "native";

/// Why an engine named by the operator cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// No engine has this name.
    #[error("no AEAD engine `{0}`: wants `native`, `ipsec-mb` or `aes-gcm`")]
    Unknown(String),
    /// The engine was left out of this build, or does not run on this machine.
    #[error("AEAD engine `{name}` is not available: {reason}")]
    Unavailable {
        /// The engine's name.
        name: &'static str,
        /// What is missing.
        reason: &'static str,
    },
}

/// Which engine makes keys: a handle, cheap to copy, that exists only for an engine that runs here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Engine(Kind);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    AesGcm,
    #[cfg(have_ipsec_mb)]
    IpsecMb,
    #[cfg(target_arch = "x86_64")]
    Native(native::Form),
}

impl Engine {
    /// The engines that run on this machine, the fastest first. There is always one.
    pub fn available() -> impl Iterator<Item = Self> {
        [NATIVE, IPSEC_MB, AES_GCM].into_iter().filter_map(|name| Self::named(name).ok())
    }

    /// The fastest engine that runs on this machine.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self(Kind::AesGcm))
    }

    /// The engine with this name, as [`Engine::name`] gives it.
    ///
    /// # Errors
    /// When there is no such engine, or it does not run here.
    pub fn named(name: &str) -> Result<Self, EngineError> {
        match name {
            AES_GCM => Ok(Self(Kind::AesGcm)),
            IPSEC_MB => {
                Self::ipsec_mb().map_err(|reason| EngineError::Unavailable { name: IPSEC_MB, reason })
            }
            NATIVE => Self::native().map_err(|reason| EngineError::Unavailable { name: NATIVE, reason }),
            unknown => Err(EngineError::Unknown(unknown.to_owned())),
        }
    }

    #[cfg(have_ipsec_mb)]
    fn ipsec_mb() -> Result<Self, &'static str> {
        ipsec_mb::library().map(|_| Self(Kind::IpsecMb))
    }

    #[cfg(not(have_ipsec_mb))]
    fn ipsec_mb() -> Result<Self, &'static str> {
        Err("this build found no intel-ipsec-mb 1.3 or later (Debian: libipsec-mb-dev)")
    }

    #[cfg(target_arch = "x86_64")]
    fn native() -> Result<Self, &'static str> {
        native::Form::all().next().map(|form| Self(Kind::Native(form))).ok_or(native::NOT_HERE)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn native() -> Result<Self, &'static str> {
        Err("it is for x86-64 only")
    }

    /// As [`Engine::available`], with the native engine in every form that runs here: for comparing them.
    pub fn in_every_form() -> impl Iterator<Item = Self> {
        let others = Self::available().filter(|engine| engine.name() != NATIVE);
        #[cfg(target_arch = "x86_64")]
        let others = native::Form::all().map(|form| Self(Kind::Native(form))).chain(others);
        others
    }

    /// The engine's name, as the operator writes it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::AesGcm => AES_GCM,
            #[cfg(have_ipsec_mb)]
            Kind::IpsecMb => IPSEC_MB,
            #[cfg(target_arch = "x86_64")]
            Kind::Native(_) => NATIVE,
        }
    }

    /// The engine's name, version and the code path that it has chosen for this CPU, for people to read.
    pub fn describe(self) -> String {
        let path = match self.0 {
            Kind::AesGcm => aes_gcm::path(),
            #[cfg(have_ipsec_mb)]
            Kind::IpsecMb => ipsec_mb::path(),
            #[cfg(target_arch = "x86_64")]
            Kind::Native(form) => form.path().to_owned(),
        };
        format!("{} ({path})", self.name())
    }

    /// Expands `key` (without salt; 16, 24 or 32 octets) for texts whose ICV has the length `icv`.
    ///
    /// Control path: it allocates.
    ///
    /// # Errors
    /// When the key has another length, or locked memory is not to be had.
    pub fn key(self, key: &[u8], icv: IcvLength) -> Result<Key, KeyError> {
        Key::new(self, key, icv)
    }

    pub(crate) fn expand(self, size: KeySize, key: &[u8], icv: IcvLength) -> Result<Schedule, KeyError> {
        match self.0 {
            Kind::AesGcm => aes_gcm::Schedule::expand(size, key, icv).map(Schedule::AesGcm),
            #[cfg(have_ipsec_mb)]
            Kind::IpsecMb => ipsec_mb::Schedule::expand(size, key).map(Schedule::IpsecMb),
            #[cfg(target_arch = "x86_64")]
            Kind::Native(form) => native::Schedule::expand(form, size, key).map(Schedule::Native),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engine").field(&self.describe()).finish()
    }
}

/// The expanded key of one engine.
pub(crate) enum Schedule {
    AesGcm(aes_gcm::Schedule),
    #[cfg(have_ipsec_mb)]
    IpsecMb(ipsec_mb::Schedule),
    #[cfg(target_arch = "x86_64")]
    Native(native::Schedule),
}

impl Schedule {
    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::AesGcm(_) => Engine(Kind::AesGcm),
            #[cfg(have_ipsec_mb)]
            Self::IpsecMb(_) => Engine(Kind::IpsecMb),
            #[cfg(target_arch = "x86_64")]
            Self::Native(schedule) => Engine(Kind::Native(schedule.form())),
        }
    }

    /// The schedule of the native engine, if it is one.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn native(&self) -> Option<&native::Schedule> {
        if let Self::Native(schedule) = self { Some(schedule) } else { None }
    }

    #[inline]
    pub(crate) fn seal(
        &self,
        scratch: &mut Scratch,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8],
    ) {
        let Scratch {
            #[cfg(have_ipsec_mb)]
            ipsec_mb,
        } = scratch;
        match self {
            Self::AesGcm(schedule) => schedule.seal(nonce, aad, text, icv),
            #[cfg(have_ipsec_mb)]
            Self::IpsecMb(schedule) => schedule.seal(ipsec_mb, nonce, aad, text, icv),
            #[cfg(target_arch = "x86_64")]
            Self::Native(schedule) => schedule.seal(nonce, aad, text, icv),
        }
    }

    /// `false` leaves `text` in any state: the caller zeroes it.
    #[inline]
    pub(crate) fn open(
        &self,
        scratch: &mut Scratch,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8],
    ) -> bool {
        let Scratch {
            #[cfg(have_ipsec_mb)]
            ipsec_mb,
        } = scratch;
        match self {
            Self::AesGcm(schedule) => schedule.open(nonce, aad, text, icv),
            #[cfg(have_ipsec_mb)]
            Self::IpsecMb(schedule) => schedule.open(ipsec_mb, nonce, aad, text, icv),
            #[cfg(target_arch = "x86_64")]
            Self::Native(schedule) => schedule.open(nonce, aad, text, icv),
        }
    }
}

/// Overwrites the stack below the caller, where a function that it called has left copies of a key.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u64; 1536];
    below.zeroize();
}

/// What the engines need beside the key: made once for a burst, wiped at its end.
pub(crate) struct Scratch {
    #[cfg(have_ipsec_mb)]
    ipsec_mb: ipsec_mb::Context,
}

impl Scratch {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(have_ipsec_mb)]
            ipsec_mb: ipsec_mb::Context::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_engine_is_the_first_available_one_and_the_reference_is_always_there() {
        let available: Vec<_> = Engine::available().collect();
        assert_eq!(available.first(), Some(&Engine::best()));
        assert_eq!(available.last().map(|engine| engine.name()), Some("aes-gcm"));
    }

    #[test]
    fn an_engine_is_found_by_its_name_and_describes_itself_with_it() {
        for engine in Engine::available() {
            assert_eq!(Engine::named(engine.name()), Ok(engine));
            let description = engine.describe();
            println!("{description}");
            assert!(description.starts_with(engine.name()) && description.len() > engine.name().len() + 3);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_there_are() {
        let error = Engine::named("openssl").unwrap_err();
        assert_eq!(error, EngineError::Unknown("openssl".to_owned()));
        assert!(error.to_string().contains("`openssl`") && error.to_string().contains("`aes-gcm`"));
    }

    #[cfg(feature = "require-ipsec-mb")]
    #[test]
    fn a_build_that_requires_ipsec_mb_has_it_where_the_cpu_can_run_it() {
        if std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq") {
            assert!(Engine::named("ipsec-mb").is_ok());
        }
    }
}
