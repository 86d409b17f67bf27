// SPDX-License-Identifier: Apache-2.0
//! Key material on its way through a message: never shown, zeroed when it goes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Fingerprint;

/// Sets fingerprints apart from any other use of SHA-256 on key material.
const FINGERPRINT_LABEL: &[u8] = b"greyhound key fingerprint v1";

/// AES key of 16, 24 or 32 bytes and the 4-byte salt of RFC 4106 §8.1. No `Debug`; zeroed on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    key: [u8; 32],
    key_bytes: u8,
    salt: [u8; 4],
}

impl Secret {
    /// Takes key ‖ salt as the RFC orders keying material (RFC 4106 §8.1): 20, 28 or 36 bytes.
    #[must_use]
    pub fn from_keymat(keymat: &[u8]) -> Option<Self> {
        let (key, salt) = keymat.split_last_chunk::<4>()?;
        if !matches!(key.len(), 16 | 24 | 32) {
            return None;
        }
        let mut secret = Self { key: [0; 32], key_bytes: key.len() as u8, salt: *salt };
        secret.key[..key.len()].copy_from_slice(key);
        Some(secret)
    }

    /// The AES key: 16, 24 or 32 bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.get(..usize::from(self.key_bytes)).unwrap_or(&self.key)
    }

    /// The salt, first four octets of every nonce (RFC 4106 §4).
    #[must_use]
    pub fn salt(&self) -> &[u8; 4] {
        &self.salt
    }

    /// One-way name of key ‖ salt: equal for equal keying material, on every machine.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let hash =
            Sha256::new().chain_update(FINGERPRINT_LABEL).chain_update(self.key()).chain_update(self.salt);
        Fingerprint(hash.finalize().into())
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.key, self.key_bytes, self.salt).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, key_bytes, salt) = <([u8; 32], u8, [u8; 4])>::deserialize(deserializer)?;
        let secret = Self { key, key_bytes, salt };
        if matches!(key_bytes, 16 | 24 | 32) {
            Ok(secret)
        } else {
            Err(serde::de::Error::custom("an AES key has 16, 24 or 32 bytes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_exactly_the_three_lengths() {
        for length in 0..64 {
            let keymat: Vec<u8> = (0..length as u8).collect();
            let secret = Secret::from_keymat(&keymat);
            assert_eq!(secret.is_some(), matches!(length, 20 | 28 | 36), "{length}");
            if let Some(secret) = secret {
                assert_eq!(secret.key(), &keymat[..length - 4]);
                assert_eq!(secret.salt().as_slice(), &keymat[length - 4..]);
            }
        }
    }

    #[test]
    fn the_fingerprint_depends_on_key_and_salt() {
        let of = |keymat: &[u8]| Secret::from_keymat(keymat).unwrap().fingerprint();
        let mut other_salt = [7; 20];
        other_salt[19] = 8;
        assert_eq!(of(&[7; 20]), of(&[7; 20]));
        assert_ne!(of(&[7; 20]), of(&other_salt));
        assert_ne!(of(&[7; 20]), of(&[7; 28]));
    }

    #[test]
    fn does_not_show_itself() {
        let secret = Secret::from_keymat(&[0x5a; 20]).unwrap();
        let shown = format!("{secret:?}");
        assert!(!shown.contains("5a") && !shown.contains("90"), "{shown}");
    }
}
