// SPDX-License-Identifier: Apache-2.0
//! What must survive the process so that no IV is used twice and no old packet accepted again.
//!
//! Two files in the state directory, each a map from key fingerprint to a number:
//!
//! - `sequence-limits`: outbound. The first sequence number that was *not* reserved. Written before use, so that after
//!   a crash an SA resumes at its limit; after a clean stop its limit is its position.
//! - `replay-edges`: inbound. The right edge of the anti-replay window, at most a second old. After a restart
//!   everything up to it is refused. What was received within that second and not yet recorded can be replayed once
//!   (`docs/security.md`).
//!
//! Entries outlive their SA: the same key added again goes on where it was, and only in the direction that it had:
//! turned around, it would seal under IVs that the peer has used. A key without an entry is new and starts at 1. If
//! `sequence-limits` is missing or damaged no key is known to be new, so every key is refused until
//! `greyhound-dataplane init-state`.
//!
//! A file is written aside, flushed to disk, renamed, and its directory flushed. Its end carries SHA-256 over the rest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use messages::Fingerprint;
use sha2::{Digest, Sha256};

const LIMITS: &str = "sequence-limits";
const EDGES: &str = "replay-edges";
const MAGIC: &[u8; 8] = b"GHSEQ\x001\n";
const RECORD_BYTES: usize = 40;
const HASH_BYTES: usize = 32;

/// Why a store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there.
    #[error("{0} does not exist; if this is a new headend, run `greyhound-dataplane init-state`")]
    Missing(PathBuf),
    /// Its content is not what was written.
    #[error(
        "{0} is damaged; sequence numbers in it cannot be trusted. Replace every key, then run `greyhound-dataplane init-state --force`"
    )]
    Damaged(PathBuf),
    /// `init-state` found a store.
    #[error(
        "{0} already exists; deleting it would let used sequence numbers return. Use --force only after replacing every key"
    )]
    Exists(PathBuf),
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        error: io::Error,
    },
}

/// A map from fingerprint to number that is a file.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    entries: BTreeMap<Fingerprint, u64>,
    dirty: bool,
}

/// Both tables.
#[derive(Debug)]
pub struct SequenceStore {
    limits: Table,
    edges: Table,
}

impl SequenceStore {
    /// Creates empty tables in `directory`.
    ///
    /// # Errors
    /// [`StoreError::Exists`] unless `force`; [`StoreError::Io`].
    pub fn init(directory: &Path, force: bool) -> Result<Self, StoreError> {
        let path = directory.join(LIMITS);
        if path.exists() && !force {
            return Err(StoreError::Exists(path));
        }
        let mut store = Self { limits: Table::empty(path), edges: Table::empty(directory.join(EDGES)) };
        store.limits.write()?;
        store.edges.write()?;
        Ok(store)
    }

    /// Reads the tables of `directory`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let limits = Table::read(directory.join(LIMITS))?;
        let edges = Table::read(directory.join(EDGES))?;
        Ok(Self { limits, edges })
    }

    /// First sequence number that a key may use: its limit, or 1 if it is new.
    #[must_use]
    pub fn limit(&self, key: &Fingerprint) -> u64 {
        self.limits.entries.get(key).copied().unwrap_or(1)
    }

    /// Right edge below and at which everything of this key is refused: 0 if it is new.
    #[must_use]
    pub fn edge(&self, key: &Fingerprint) -> u64 {
        self.edges.entries.get(key).copied().unwrap_or(0)
    }

    /// Whether the key has served an outbound SA.
    #[must_use]
    pub fn has_sealed(&self, key: &Fingerprint) -> bool {
        self.limits.entries.contains_key(key)
    }

    /// Whether the key has served an inbound SA.
    #[must_use]
    pub fn has_opened(&self, key: &Fingerprint) -> bool {
        self.edges.entries.contains_key(key)
    }

    /// Notes a new limit; it may be used once [`save_limits`](Self::save_limits) has succeeded.
    pub fn set_limit(&mut self, key: Fingerprint, limit: u64) {
        self.limits.set(key, limit);
    }

    /// Notes how far a window has come.
    pub fn set_edge(&mut self, key: Fingerprint, edge: u64) {
        self.edges.set(key, edge);
    }

    /// Makes the noted limits durable.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was noted stays noted, and is not durable.
    pub fn save_limits(&mut self) -> Result<(), StoreError> {
        self.limits.save()
    }

    /// Makes the noted edges durable.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save_edges(&mut self) -> Result<(), StoreError> {
        self.edges.save()
    }
}

impl Table {
    fn empty(path: PathBuf) -> Self {
        Self { path, entries: BTreeMap::new(), dirty: true }
    }

    fn read(path: PathBuf) -> Result<Self, StoreError> {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing(path)),
            Err(error) => return Err(StoreError::Io { path, error }),
        };
        match parse(&bytes) {
            Some(entries) => Ok(Self { path, entries, dirty: false }),
            None => Err(StoreError::Damaged(path)),
        }
    }

    fn set(&mut self, key: Fingerprint, value: u64) {
        if self.entries.insert(key, value) != Some(value) {
            self.dirty = true;
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        if self.dirty { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        replace_file(&self.path, &format(&self.entries))
            .map_err(|error| StoreError::Io { path: self.path.clone(), error })?;
        self.dirty = false;
        Ok(())
    }
}

/// Writes aside with mode 0600, flushes, renames, and flushes the directory.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut aside = tempfile::NamedTempFile::new_in(directory)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    aside.persist(path).map_err(|refused| refused.error)?;
    File::open(directory)?.sync_all()
}

fn format(entries: &BTreeMap<Fingerprint, u64>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + entries.len() * RECORD_BYTES + HASH_BYTES);
    bytes.extend_from_slice(MAGIC);
    for (fingerprint, value) in entries {
        bytes.extend_from_slice(&fingerprint.0);
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<Fingerprint, u64>> {
    let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
    if Sha256::digest(body)[..] != hash[..] {
        return None;
    }
    let (records, rest) = body.strip_prefix(MAGIC)?.as_chunks::<RECORD_BYTES>();
    rest.is_empty().then(|| records.iter().map(record).collect())
}

fn record(bytes: &[u8; RECORD_BYTES]) -> (Fingerprint, u64) {
    let mut fingerprint = [0; 32];
    let mut value = [0; 8];
    fingerprint.copy_from_slice(&bytes[..32]);
    value.copy_from_slice(&bytes[32..]);
    (Fingerprint(fingerprint), u64::from_le_bytes(value))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: Fingerprint = Fingerprint([7; 32]);
    const OTHER: Fingerprint = Fingerprint([9; 32]);

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.set_limit(KEY, 1 << 40);
        store.set_edge(OTHER, 12);
        store.save_limits().unwrap();
        store.save_edges().unwrap();
        let store = SequenceStore::open(directory.path()).unwrap();
        assert_eq!((store.limit(&KEY), store.edge(&OTHER)), (1 << 40, 12));
        assert_eq!((store.limit(&OTHER), store.edge(&KEY)), (1, 0), "unknown keys are new");
    }

    #[test]
    fn what_was_not_saved_is_not_there() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.set_limit(KEY, 1000);
        assert_eq!(SequenceStore::open(directory.path()).unwrap().limit(&KEY), 1);
    }

    #[test]
    fn a_missing_store_is_said_to_be_missing() {
        let directory = directory();
        assert!(matches!(SequenceStore::open(directory.path()), Err(StoreError::Missing(_))));
    }

    #[test]
    fn init_does_not_forget_an_existing_store_unless_forced() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.set_limit(KEY, 5);
        store.save_limits().unwrap();
        assert!(matches!(SequenceStore::init(directory.path(), false), Err(StoreError::Exists(_))));
        SequenceStore::init(directory.path(), true).unwrap();
        assert_eq!(SequenceStore::open(directory.path()).unwrap().limit(&KEY), 1);
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_damage() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.set_limit(KEY, 77);
        store.save_limits().unwrap();
        let path = directory.path().join(LIMITS);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(
                matches!(SequenceStore::open(directory.path()), Err(StoreError::Damaged(_))),
                "byte {at}"
            );
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(
                matches!(SequenceStore::open(directory.path()), Err(StoreError::Damaged(_))),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn only_the_owner_may_read_it() {
        let directory = directory();
        SequenceStore::init(directory.path(), false).unwrap();
        for name in [LIMITS, EDGES] {
            let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
