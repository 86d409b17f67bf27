// SPDX-License-Identifier: Apache-2.0
//! What outlives the process: the running configuration, the numbers behind its names, which SAs are about to go.
//!
//! ```text
//! STATE_DIR/control/            0700
//!   lock                        held while a control process runs
//!   running.toml                the running configuration; keys are named, not contained
//!   running.json                numbers of names, SAs about to be retired
//!   candidate.{toml,json}       a change that was sent to the dataplane and not answered yet
//!   keys/ID.key                 keys that were given on standard input
//! ```
//!
//! A change is written as the candidate before it is committed, and becomes the running configuration when the
//! dataplane says that it is. Whoever starts in between asks the dataplane's digest which of the two it runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use config::{Config, Indices, SaName};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// SAs that are deleted when their time comes: milliseconds since 1970.
pub type Retiring = BTreeMap<SaName, u64>;

/// A state as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The configuration.
    pub config: Config,
    /// The numbers behind its names.
    pub indices: Indices,
    /// Its SAs that are about to go.
    pub retiring: Retiring,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Beside {
    indices: Indices,
    retiring: Retiring,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody else uses it.
    #[error("{}: another greyhound-control runs with this state; stop it, or give this one an --instance of its own", .0.display())]
    InUse(PathBuf),
    /// What is in a file cannot be understood.
    #[error("{}: {problem}; it is control's own file: restore it, or remove it to begin with config.toml", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The folder with the state.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held as long as we live.
    _lock: File,
}

const RUNNING: &str = "running";
const CANDIDATE: &str = "candidate";

impl Store {
    /// Opens, or makes, the state in `folder` and keeps others out.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::File`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        files::private_folder(folder)?;
        let path = folder.join("lock");
        let failed = |error| FileError::Io { path: path.clone(), error };
        let mut options = File::options();
        let lock =
            options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
            Err(error) => Err(failed(error.into()).into()),
        }
    }

    /// Where keys are kept.
    #[must_use]
    pub fn keys_folder(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// The running configuration, if there is one.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Content`].
    pub fn running(&self) -> Result<Option<Saved>, StoreError> {
        let beside = self.path(RUNNING, "json");
        self.read(RUNNING, &beside)
    }

    /// The change that was under way when control last ended, if there was one.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Content`].
    pub fn candidate(&self) -> Result<Option<Saved>, StoreError> {
        let beside = self.path(CANDIDATE, "json");
        // Promotion renames this one first.
        let beside = if beside.exists() { beside } else { self.path(RUNNING, "json") };
        self.read(CANDIDATE, &beside)
    }

    /// Makes `saved` the running configuration.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn save(&self, saved: &Saved) -> Result<(), StoreError> {
        self.write(RUNNING, saved)
    }

    /// Notes that `saved` is about to be committed.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn save_candidate(&self, saved: &Saved) -> Result<(), StoreError> {
        self.write(CANDIDATE, saved)
    }

    /// Makes the candidate the running configuration.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn promote_candidate(&self) -> Result<(), StoreError> {
        for kind in ["json", "toml"] {
            files::rename(&self.path(CANDIDATE, kind), &self.path(RUNNING, kind))?;
        }
        Ok(())
    }

    /// Forgets the candidate, if there is one.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn discard_candidate(&self) -> Result<(), StoreError> {
        for kind in ["toml", "json"] {
            files::remove(&self.path(CANDIDATE, kind))?;
        }
        Ok(())
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }

    fn write(&self, name: &str, saved: &Saved) -> Result<(), StoreError> {
        let beside = Beside { indices: saved.indices.clone(), retiring: saved.retiring.clone() };
        let path = self.path(name, "json");
        let json = serde_json::to_vec_pretty(&beside)
            .map_err(|error| StoreError::Content { path: path.clone(), problem: error.to_string() })?;
        // Numbers first: those of names that the configuration does not have do no harm.
        files::replace(&path, &json)?;
        files::replace(&self.path(name, "toml"), saved.config.to_toml().as_bytes())?;
        Ok(())
    }

    fn read(&self, name: &str, beside: &Path) -> Result<Option<Saved>, StoreError> {
        let path = self.path(name, "toml");
        let Some(text) = files::read_text(&path)? else { return Ok(None) };
        let config = Config::parse(&text, &path.display().to_string())
            .map_err(|error| StoreError::Content { path, problem: error.sentences().join("; ") })?;
        let json = files::read_text(beside)?.unwrap_or_else(|| "{}".into());
        let Beside { indices, retiring } = serde_json::from_str(&json)
            .map_err(|error| StoreError::Content { path: beside.to_owned(), problem: error.to_string() })?;
        Ok(Some(Saved { config, indices, retiring }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(tunnel: &str) -> Saved {
        let text = format!(
            "loopbacks = [\"192.0.2.1\"]\n[[tunnel]]\nname = {tunnel:?}\nsource = \"192.0.2.1\"\ndestination = \"192.0.2.2\""
        );
        let config = Config::parse(&text, "test").unwrap();
        let indices = Indices::default().allocate(&config);
        let name = "inbound 0x00001001".parse().unwrap();
        Saved { config, indices, retiring: Retiring::from([(name, 1_700_000_000_000)]) }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("control");
        let store = Store::open(&folder).unwrap();
        assert_eq!(store.running().unwrap(), None);
        store.save(&saved("a")).unwrap();
        store.save(&saved("b")).unwrap();
        drop(store);
        let store = Store::open(&folder).unwrap();
        assert_eq!(store.running().unwrap(), Some(saved("b")));
        assert_eq!(names(&folder), ["lock", "running.json", "running.toml"]);
    }

    #[test]
    fn a_candidate_is_promoted_or_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("control")).unwrap();
        store.save(&saved("a")).unwrap();
        store.save_candidate(&saved("b")).unwrap();
        assert_eq!(store.candidate().unwrap(), Some(saved("b")));
        store.discard_candidate().unwrap();
        assert_eq!((store.candidate().unwrap(), store.running().unwrap()), (None, Some(saved("a"))));
        store.save_candidate(&saved("c")).unwrap();
        store.promote_candidate().unwrap();
        assert_eq!((store.candidate().unwrap(), store.running().unwrap()), (None, Some(saved("c"))));
    }

    #[test]
    fn a_crash_in_the_middle_of_promotion_leaves_the_candidate_with_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("control");
        let store = Store::open(&folder).unwrap();
        store.save(&saved("a")).unwrap();
        store.save_candidate(&saved("b")).unwrap();
        std::fs::rename(folder.join("candidate.json"), folder.join("running.json")).unwrap();
        assert_eq!(store.candidate().unwrap(), Some(saved("b")));
    }

    #[test]
    fn a_second_control_with_the_same_state_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("control");
        let first = Store::open(&folder).unwrap();
        let error = Store::open(&folder).unwrap_err().to_string();
        assert!(error.contains("--instance"), "{error}");
        drop(first);
        assert!(Store::open(&folder).is_ok());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("control");
        let store = Store::open(&folder).unwrap();
        store.save(&saved("a")).unwrap();
        for (file, content) in [("running.json", "{"), ("running.toml", "[[tunnel")] {
            std::fs::write(folder.join(file), content).unwrap();
            let error = store.running().unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
            store.save(&saved("a")).unwrap();
        }
    }
}
