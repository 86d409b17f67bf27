// SPDX-License-Identifier: Apache-2.0
//! Where keys come from: key files, and the store of keys that were given on standard input.
//!
//! A key file has one line: hex of AES key ‖ salt (RFC 4106 §8.1), 20, 28 or 36 bytes. It must be a regular file that
//! nobody but root or we may read. Key files are read whenever a state is compiled; nothing keeps a copy but the objects
//! that go to the dataplane.
//!
//! Not here: the sequence numbers that were used with a key; those are the dataplane's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use config::{KeyReference, KeySource, SaEntry, SaName};
use messages::{Direction, Secret};
use sysmem::LockedBytes;

use crate::files::{self, FileError};

/// The longest key file: 36 bytes in hex, and room for spaces and an end of line.
const FILE_BYTES_MAX: usize = 256;

/// Finds keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// What relative key files are relative to.
    config_dir: PathBuf,
    /// Where control keeps keys.
    store: PathBuf,
}

impl Keys {
    /// Keys in `store`, which is made if need be, and in files; relative names are relative to `config_dir`.
    ///
    /// # Errors
    /// Every [`FileError`].
    pub fn open(config_dir: &Path, store: PathBuf) -> Result<Self, FileError> {
        files::private_folder(&store)?;
        Ok(Self { config_dir: config_dir.to_owned(), store })
    }

    /// Keeps `secret`, whose hex is `line`, for the SA `name`; returns the id to find it by.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn keep(&self, name: SaName, secret: &Secret, line: &[u8]) -> Result<String, FileError> {
        let direction = match name.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        let fingerprint = secret.fingerprint().0;
        let short = hex::encode(fingerprint.get(..8).unwrap_or_default());
        let id = format!("{direction}-{:08x}-{short}", name.spi);
        files::replace(&self.path_of(&id), line)?;
        Ok(id)
    }

    /// Removes every key that is not in `used`.
    pub fn keep_only(&self, used: &BTreeSet<&str>) {
        let Ok(entries) = std::fs::read_dir(&self.store) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_used = path.extension().is_some_and(|extension| extension == "key")
                && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|id| used.contains(id));
            if !is_used && let Err(error) = files::remove(&path) {
                tracing::warn!(%error, "a key that no SA uses could not be removed");
            }
        }
    }

    fn path_of(&self, id: &str) -> PathBuf {
        self.store.join(format!("{id}.key"))
    }

    fn read_file(&self, file: &str) -> Result<Secret, String> {
        let path = self.config_dir.join(file);
        let line = files::read_secret(&path, FILE_BYTES_MAX).map_err(|error| format!("key file {error}"))?;
        parse(&line).map_err(|problem| format!("key file {}: {problem}", path.display()))
    }

    fn read_kept(&self, id: &str) -> Result<Secret, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if id.is_empty() || !id.chars().all(allowed) {
            return Err(format!("key_id {id:?} is none: use letters, digits, '-' and '_'"));
        }
        match files::read_secret(&self.path_of(id), FILE_BYTES_MAX) {
            Ok(line) => parse(&line).map_err(|problem| format!("kept key {id}: {problem}")),
            Err(error) if error.is_missing() => Err(format!(
                "control keeps no key {id}; give the key anew with `greyhound sa add … --key-stdin`, or use key_file"
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl KeySource for Keys {
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
        match sa.key() {
            Some(KeyReference::File(file)) => self.read_file(file),
            Some(KeyReference::Id(id)) => self.read_kept(id),
            None => Err("give exactly one of key_file and key_id".into()),
        }
    }
}

/// Reads key ‖ salt from a line of hex; blanks around it do not matter.
///
/// # Errors
/// What is wrong, without a byte of it.
pub fn parse(line: &[u8]) -> Result<Secret, String> {
    let digits = line.trim_ascii();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("not one line of hex digits, two for each byte of key and salt".into());
    }
    let mut keymat = LockedBytes::zeroed(digits.len() / 2).map_err(|error| error.to_string())?;
    hex::decode_to_slice(digits, &mut keymat).map_err(|_| "not hex digits".to_owned())?;
    Secret::from_keymat(&keymat).ok_or_else(|| {
        format!(
            "{} bytes; AES key and 4 bytes of salt make 20 (AES-128), 28 (AES-192) or 36 (AES-256)",
            keymat.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const SPI: u32 = 0x1001;

    fn entry(key_file: Option<&str>, key_id: Option<&str>) -> SaEntry {
        let text = "[[sa]]\nprotection = \"p\"\ndirection = \"inbound\"\nspi = 0x1001\nkey_id = \"x\"";
        let mut sas: Vec<SaEntry> =
            toml::from_str::<toml::Table>(text).unwrap()["sa"].clone().try_into().unwrap();
        let mut sa = sas.remove(0);
        sa.key_file = key_file.map(Into::into);
        sa.key_id = key_id.map(Into::into);
        sa
    }

    fn keys(folder: &tempfile::TempDir) -> Keys {
        Keys::open(folder.path(), folder.path().join("keys")).unwrap()
    }

    fn write(folder: &tempfile::TempDir, name: &str, content: &str, mode: u32) {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn three_lengths_of_hex_are_keys_and_nothing_else_is() {
        for bytes in 0..40 {
            let line = "5a".repeat(bytes) + "\n";
            assert_eq!(parse(line.as_bytes()).is_ok(), matches!(bytes, 20 | 28 | 36), "{bytes}");
        }
        for line in ["", "xy", "5a5", &("5a".repeat(20) + "\n" + &"5a".repeat(20))] {
            let problem = parse(line.as_bytes()).err().unwrap();
            assert!(line.is_empty() || !problem.contains("5a"), "{problem}");
        }
        assert!(parse(format!("  {}\r\n", "5A".repeat(20)).as_bytes()).is_ok());
    }

    #[test]
    fn a_relative_key_file_lies_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "a.key", &"01".repeat(20), 0o600);
        let secret = keys(&folder).secret(&entry(Some("a.key"), None)).unwrap();
        assert_eq!(secret.key(), [1; 16]);
    }

    #[test]
    fn an_open_key_file_is_refused_by_name_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "a.key", &"01".repeat(20), 0o644);
        let problem = keys(&folder).secret(&entry(Some("a.key"), None)).err().unwrap();
        assert!(
            problem.contains("a.key") && problem.contains("0644") && problem.contains("0600"),
            "{problem}"
        );
    }

    #[test]
    fn a_key_that_is_kept_is_found_by_its_id_until_nobody_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(&folder);
        let line = "02".repeat(36);
        let secret = parse(line.as_bytes()).unwrap();
        let name = SaName { direction: Direction::Inbound, spi: SPI };
        let id = keys.keep(name, &secret, line.as_bytes()).unwrap();
        assert!(id.starts_with("inbound-00001001-"), "{id}");
        assert!(keys.secret(&entry(None, Some(&id))).unwrap() == secret);
        keys.keep_only(&BTreeSet::from([id.as_str()]));
        assert!(keys.secret(&entry(None, Some(&id))).is_ok());
        keys.keep_only(&BTreeSet::new());
        let problem = keys.secret(&entry(None, Some(&id))).err().unwrap();
        assert!(problem.contains(&id), "{problem}");
    }

    #[test]
    fn an_id_cannot_lead_out_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "a.key", &"01".repeat(20), 0o600);
        for id in ["../a", "", "/etc/passwd"] {
            assert!(keys(&folder).secret(&entry(None, Some(id))).is_err(), "{id}");
        }
    }
}
