// SPDX-License-Identifier: Apache-2.0
//! Keying material of sealed streams: from a file that only its owner reads, or in the open for tests.
//!
//! Nothing here is `Debug`, and all of it is zeroed when dropped.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, de};
use zeroize::Zeroizing;

/// Bytes of the salt behind the key (RFC 4106 §8.1).
const SALT_BYTES: usize = 4;
/// Permissions that nobody but the owner may have.
const OTHERS: u32 = 0o077;

/// Key and salt of one SA.
pub struct Keying {
    bytes: Zeroizing<Vec<u8>>,
}

impl Keying {
    fn of_hex(line: &str) -> Result<Self, String> {
        let wanted = "wants hexadecimal digits of key and salt: 20, 28 or 36 bytes";
        let bytes = hex::decode(line.trim()).map(Zeroizing::new).map_err(|_| wanted.to_owned())?;
        match bytes.len() {
            20 | 28 | 36 => Ok(Self { bytes }),
            bytes => Err(format!("{bytes} bytes: {wanted}")),
        }
    }

    /// Expands the key and hands over the salt.
    ///
    /// # Errors
    /// No locked memory.
    pub fn expand(
        &self,
        engine: aead::Engine,
        icv: aead::IcvLength,
    ) -> anyhow::Result<(aead::Key, esp::Salt)> {
        let (key, salt) = self.bytes.split_last_chunk::<SALT_BYTES>().context("a salt")?;
        Ok((engine.key(key, icv)?, esp::Salt::new(*salt)))
    }

    /// The salt alone.
    #[must_use]
    pub fn salt(&self) -> [u8; SALT_BYTES] {
        self.bytes.last_chunk().copied().unwrap_or_default()
    }

    /// The keying material of the `number`th SA after this one, for tests: the last four bytes of the key count.
    fn successor(&self, number: u32) -> Self {
        let mut bytes = self.bytes.clone();
        let end = bytes.len() - SALT_BYTES;
        if let Some((_, last)) = bytes.get_mut(..end).and_then(|key| key.split_last_chunk_mut::<4>()) {
            *last = u32::from_be_bytes(*last).wrapping_add(number).to_be_bytes();
        }
        Self { bytes }
    }
}

/// Keying material that stands in a profile, where anybody reads it.
pub struct LabKey(Keying);

impl<'de> Deserialize<'de> for LabKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Keying::of_hex(&text).map(Self).map_err(|wrong| de::Error::custom(format!("lab_key: {wrong}")))
    }
}

/// Where the keys of a stream's SAs come from.
pub enum KeySource<'a> {
    /// A file with a line for each.
    File(PathBuf),
    /// The first in the open, from which the others follow.
    Lab(&'a LabKey),
}

impl KeySource<'_> {
    /// The keying material of the first `count` SAs.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it has too few lines or a wrong one.
    pub fn load(&self, count: u32) -> anyhow::Result<Vec<Keying>> {
        let path = match self {
            Self::Lab(LabKey(first)) => {
                return Ok((0..count).map(|number| first.successor(number)).collect());
            }
            Self::File(path) => path,
        };
        let name = path.display();
        let mode = std::fs::metadata(path).with_context(|| format!("key_file {name}"))?.mode();
        ensure!(
            mode & OTHERS == 0,
            "key_file {name}: mode {:03o}, others may read it; make it 0600",
            mode & 0o777
        );
        let text =
            std::fs::read_to_string(path).map(Zeroizing::new).with_context(|| format!("key_file {name}"))?;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        ensure!(lines.len() >= count as usize, "key_file {name}: {} lines for {count} SAs", lines.len());
        let keying = lines.iter().take(count as usize).enumerate().map(|(number, line)| {
            Keying::of_hex(line)
                .map_err(|wrong| anyhow::anyhow!("key_file {name}, line {}: {wrong}", number + 1))
        });
        keying.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn load(text: &str, mode: u32, count: u32) -> anyhow::Result<Vec<Keying>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        KeySource::File(path).load(count)
    }

    fn refusal(text: &str, mode: u32, count: u32) -> String {
        format!("{:#}", load(text, mode, count).err().expect("refused"))
    }

    #[test]
    fn a_file_gives_a_key_a_line() {
        let text = format!("{}\n\n{}\n", "11".repeat(20), "22".repeat(36));
        let keys = load(&text, 0o600, 2).unwrap();
        assert_eq!(keys.iter().map(|key| key.bytes.len()).collect::<Vec<_>>(), [20, 36]);
        assert!(keys[0].expand(aead::Engine::best(), aead::IcvLength::Sixteen).is_ok());
    }

    #[test]
    fn an_open_short_or_wrong_file_is_refused_without_saying_what_is_in_it() {
        let line = "ab".repeat(20);
        assert!(refusal(&line, 0o640, 1).contains("0600"));
        assert!(refusal(&line, 0o600, 2).contains("1 lines for 2"));
        let wrong = refusal(&line[1..], 0o600, 1);
        assert!(wrong.contains("line 1") && !wrong.contains("abab"), "{wrong}");
    }

    #[test]
    fn lab_keys_of_several_sas_differ() {
        let lab = LabKey(Keying::of_hex(&"ff".repeat(20)).unwrap());
        let keys = KeySource::Lab(&lab).load(3).unwrap();
        assert_eq!(keys[0].bytes[..], [0xff; 20]);
        assert_eq!(keys[2].bytes[12..16], [0, 0, 0, 1]);
        assert_eq!(keys[2].bytes[16..], [0xff; 4]);
    }
}
