// SPDX-License-Identifier: Apache-2.0
//! A map from fingerprint to number that is a file. Writing costs what changes, however many entries there are.
//!
//! ```text
//!   0       8          16                              48
//!   | magic | records  | SHA-256 of magic and records  | record 0 | record 1 | … | left by a crash
//!   | ------------------- head ----------------------- |  a record: fingerprint, 32 bytes; number, 8
//! ```
//!
//! Of several records of a key the last one holds. Numbers are little-endian. A change goes in two steps: its records
//! are appended and flushed to disk; then the head is written in place, which takes them in, and flushed.
//!
//! - A crash before the head is on disk leaves bytes behind the last record, which mean nothing: the change was never
//!   reported as written.
//! - The head lies in one sector, which disks write whole. One that was torn all the same does not fit its records.
//! - Any other change of head or records, and any missing byte, does not fit the hash: the file is damaged, and who
//!   reads it trusts none of it.
//!
//! When most records are outdated, after an error, and when another file lies in its place, the file is written anew:
//! aside, flushed, renamed, and its directory flushed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use messages::Fingerprint;
use sha2::{Digest, Sha256};

use super::StoreError;

const MAGIC: &[u8; 8] = b"GHSEQ\x002\n";
/// The format before: magic, records, SHA-256 of both at the end.
const MAGIC_1: &[u8; 8] = b"GHSEQ\x001\n";
const HEAD_BYTES: usize = 48;
const RECORD_BYTES: usize = 40;
const HASH_BYTES: usize = 32;
/// A file is written anew when it has this many records for each entry, and some more.
const RECORDS_PER_ENTRY: usize = 4;
const RECORDS_MIN: usize = 1 << 16;

type Record = (Fingerprint, u64);
type Entries = BTreeMap<Fingerprint, u64>;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    entries: Entries,
    /// None if what is on disk is not known: the next write is of the whole file.
    log: Option<Log>,
}

impl Table {
    /// An empty file at `path`; what was there is lost.
    pub(super) fn create(path: PathBuf) -> Result<Self, StoreError> {
        let mut table = Self { path, entries: Entries::new(), log: None };
        table.write([])?;
        Ok(table)
    }

    /// Reads the file at `path`. One of the format before is written anew in this one.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let (file, bytes) = match read(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing(path)),
            Err(error) => return Err(StoreError::Io { path, error }),
        };
        if let Some(entries) = parse_1(&bytes) {
            let mut table = Self { path, entries, log: None };
            table.write([])?;
            return Ok(table);
        }
        match parse(&bytes) {
            Some((entries, records, hash)) => {
                Ok(Self { path, entries, log: Some(Log { file, records, hash }) })
            }
            None => Err(StoreError::Damaged(path)),
        }
    }

    pub(super) fn find(&self, key: &Fingerprint) -> Option<u64> {
        self.entries.get(key).copied()
    }

    /// Writes what changes to disk and only then takes it over.
    pub(super) fn write(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), StoreError> {
        let mut changed: Entries = records.into_iter().collect();
        changed.retain(|key, number| self.entries.get(key) != Some(number));
        if changed.is_empty() && self.log.is_some() {
            return Ok(());
        }
        let most = RECORDS_MIN + RECORDS_PER_ENTRY * self.entries.len();
        let log = self.log.take().filter(|log| log.records + changed.len() <= most && log.is_at(&self.path));
        let written = match log {
            Some(log) => log.append(&changed),
            None => Log::create(&self.path, &[encode(&self.entries), encode(&changed)].concat()),
        };
        self.log = Some(written.map_err(|error| StoreError::Io { path: self.path.clone(), error })?);
        self.entries.extend(changed);
        Ok(())
    }
}

/// An open file and what is in it.
#[derive(Debug)]
struct Log {
    file: File,
    records: usize,
    /// Of magic and records.
    hash: Sha256,
}

impl Log {
    /// A whole file with mode 0600 in the place of what is at `path`.
    fn create(path: &Path, records: &[u8]) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut aside = tempfile::NamedTempFile::new_in(directory)?;
        let hash = Sha256::new_with_prefix(MAGIC).chain_update(records);
        let count = records.len() / RECORD_BYTES;
        aside.write_all(&head(count, &hash))?;
        aside.write_all(records)?;
        aside.as_file().sync_all()?;
        let file = aside.persist(path).map_err(|refused| refused.error)?;
        File::open(directory)?.sync_all()?;
        Ok(Self { file, records: count, hash })
    }

    /// Appends records. After an error nobody knows what is on disk, so that the log is used up.
    fn append(self, records: &Entries) -> io::Result<Self> {
        let bytes = encode(records);
        self.file.write_all_at(&bytes, (HEAD_BYTES + self.records * RECORD_BYTES) as u64)?;
        self.file.sync_data()?;
        let hash = self.hash.chain_update(&bytes);
        let count = self.records + records.len();
        self.file.write_all_at(&head(count, &hash), 0)?;
        self.file.sync_data()?;
        Ok(Self { file: self.file, records: count, hash })
    }

    /// Whether this file still lies at `path`: an operator may have put another one there.
    fn is_at(&self, path: &Path) -> bool {
        let same = |ours: std::fs::Metadata, there: std::fs::Metadata| {
            (ours.dev(), ours.ino()) == (there.dev(), there.ino())
        };
        self.file.metadata().is_ok_and(|ours| std::fs::metadata(path).is_ok_and(|there| same(ours, there)))
    }
}

fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

fn head(records: usize, hash: &Sha256) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&(records as u64).to_le_bytes());
    head[16..].copy_from_slice(&hash.clone().finalize());
    head
}

fn encode(entries: &Entries) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * RECORD_BYTES);
    for (fingerprint, number) in entries {
        bytes.extend_from_slice(&fingerprint.0);
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Entries, number of records, and the hash of magic and records.
fn parse(bytes: &[u8]) -> Option<(Entries, usize, Sha256)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let count = u64::from_le_bytes(*head.strip_prefix(MAGIC)?.first_chunk()?);
    let count = usize::try_from(count).ok()?;
    let records = rest.get(..count.checked_mul(RECORD_BYTES)?)?;
    let hash = Sha256::new_with_prefix(MAGIC).chain_update(records);
    (hash.clone().finalize()[..] == head[16..]).then(|| (entries(records), count, hash))
}

fn parse_1(bytes: &[u8]) -> Option<Entries> {
    let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
    let records = body.strip_prefix(MAGIC_1)?;
    let is_whole = records.len().is_multiple_of(RECORD_BYTES) && Sha256::digest(body)[..] == hash[..];
    is_whole.then(|| entries(records))
}

fn entries(records: &[u8]) -> Entries {
    records.as_chunks::<RECORD_BYTES>().0.iter().map(record).collect()
}

fn record(bytes: &[u8; RECORD_BYTES]) -> Record {
    let mut fingerprint = [0; 32];
    let mut number = [0; 8];
    fingerprint.copy_from_slice(&bytes[..32]);
    number.copy_from_slice(&bytes[32..]);
    (Fingerprint(fingerprint), u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests;
