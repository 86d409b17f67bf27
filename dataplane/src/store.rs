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
//! a file is missing or damaged no key is known to be new, so every key is refused until
//! `greyhound-dataplane init-state`.
//!
//! How a file is written, and what a crash may leave of it: [`table`].

mod table;

use std::io;
use std::path::{Path, PathBuf};

use messages::Fingerprint;
use table::Table;

const LIMITS: &str = "sequence-limits";
const EDGES: &str = "replay-edges";

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
        Ok(Self { limits: Table::create(path)?, edges: Table::create(directory.join(EDGES))? })
    }

    /// Reads the tables of `directory`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Ok(Self { limits: Table::open(directory.join(LIMITS))?, edges: Table::open(directory.join(EDGES))? })
    }

    /// First sequence number that a key may use: its limit, or 1 if it is new.
    #[must_use]
    pub fn limit(&self, key: &Fingerprint) -> u64 {
        self.limits.find(key).unwrap_or(1)
    }

    /// Right edge below and at which everything of this key is refused: 0 if it is new.
    #[must_use]
    pub fn edge(&self, key: &Fingerprint) -> u64 {
        self.edges.find(key).unwrap_or(0)
    }

    /// Whether the key has served an outbound SA.
    #[must_use]
    pub fn has_sealed(&self, key: &Fingerprint) -> bool {
        self.limits.find(key).is_some()
    }

    /// Whether the key has served an inbound SA.
    #[must_use]
    pub fn has_opened(&self, key: &Fingerprint) -> bool {
        self.edges.find(key).is_some()
    }

    /// Writes limits. Numbers below them may be used once this has succeeded.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the limits are as they were, here at least. On disk they may be either: no harm, as long as
    /// none is lowered below a number that may still be used.
    pub fn write_limits(
        &mut self,
        limits: impl IntoIterator<Item = (Fingerprint, u64)>,
    ) -> Result<(), StoreError> {
        self.limits.write(limits)
    }

    /// Writes how far windows have come.
    ///
    /// # Errors
    /// [`StoreError::Io`], as for limits.
    pub fn write_edges(
        &mut self,
        edges: impl IntoIterator<Item = (Fingerprint, u64)>,
    ) -> Result<(), StoreError> {
        self.edges.write(edges)
    }
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
    fn what_was_written_is_read_again() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.write_limits([(KEY, 1 << 40)]).unwrap();
        store.write_edges([(OTHER, 12)]).unwrap();
        let store = SequenceStore::open(directory.path()).unwrap();
        assert_eq!((store.limit(&KEY), store.edge(&OTHER)), (1 << 40, 12));
        assert_eq!((store.limit(&OTHER), store.edge(&KEY)), (1, 0), "unknown keys are new");
        assert_eq!((store.has_sealed(&KEY), store.has_opened(&KEY)), (true, false));
    }

    #[test]
    fn a_missing_store_is_said_to_be_missing() {
        for gone in [LIMITS, EDGES] {
            let directory = directory();
            SequenceStore::init(directory.path(), false).unwrap();
            std::fs::remove_file(directory.path().join(gone)).unwrap();
            assert!(matches!(SequenceStore::open(directory.path()), Err(StoreError::Missing(_))), "{gone}");
        }
    }

    #[test]
    fn init_does_not_forget_an_existing_store_unless_forced() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.write_limits([(KEY, 5)]).unwrap();
        assert!(matches!(SequenceStore::init(directory.path(), false), Err(StoreError::Exists(_))));
        SequenceStore::init(directory.path(), true).unwrap();
        assert_eq!(SequenceStore::open(directory.path()).unwrap().limit(&KEY), 1);
    }

    #[test]
    fn only_the_owner_may_read_it() {
        let directory = directory();
        let mut store = SequenceStore::init(directory.path(), false).unwrap();
        store.write_limits([(KEY, 5)]).unwrap();
        for name in [LIMITS, EDGES] {
            let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
