// SPDX-License-Identifier: Apache-2.0
//! Files that outlive the process: private folders, and content that is whole or not there at all.
//!
//! A file is written aside, brought to the disk, renamed into place, and the folder is brought to the disk too. What a
//! crash leaves behind is the old content or the new one, and perhaps a file `.NAME.new`, which the next write
//! replaces.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sysmem::LockedBytes;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Somebody else could read or change it.
    #[error("{}: mode {mode:04o} lets others in; make it {wanted:04o} (chmod {wanted:o})", path.display())]
    Mode {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// Somebody else's.
    #[error("{}: belongs to user id {owner}; it must belong to root or to user id {wanted}, as who control runs", path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        wanted: u32,
    },
    /// A pipe, a device, a folder.
    #[error("{}: is no regular file", path.display())]
    NotRegular {
        /// What was named.
        path: PathBuf,
    },
}

impl FileError {
    /// Whether the file simply is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    |error| FileError::Io { path: path.to_owned(), error }
}

/// Makes `path` a folder, parents included, that only we may enter; refuses one that others may.
///
/// # Errors
/// Every [`FileError`].
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
    check_private(path, &std::fs::metadata(path).map_err(failed(path))?, 0o700)
}

/// Replaces the content of `path`, mode 0600, so that a crash leaves the old or the new one.
///
/// # Errors
/// [`FileError::Io`]; the old content is still there then.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let aside = aside(path);
    write_new(&aside, content).map_err(failed(&aside))?;
    rename(&aside, path)
}

/// Renames `from` to `to` in the same folder, durably.
///
/// # Errors
/// [`FileError::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(failed(from))?;
    sync_folder_of(to)
}

/// Removes `path`, durably; a file that is not there is as good.
///
/// # Errors
/// [`FileError::Io`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path)(error)),
    }
}

/// The text of `path`, or `None` if there is no such file.
///
/// # Errors
/// [`FileError::Io`].
pub fn read_text(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// The content of a file with a secret in it, at most `limit` bytes: a regular file, 0600 or stricter, ours or root's.
///
/// # Errors
/// Every [`FileError`].
pub fn read_secret(path: &Path, limit: usize) -> Result<LockedBytes, FileError> {
    let mut options = OpenOptions::new();
    // A pipe must not make us wait.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    options.read(true).custom_flags(i32::try_from(flags).unwrap_or(0));
    let file = options.open(path).map_err(failed(path))?;
    let metadata = file.metadata().map_err(failed(path))?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular { path: path.to_owned() });
    }
    check_private(path, &metadata, 0o600)?;
    LockedBytes::read_from(file, limit).map_err(failed(path))
}

fn check_private(path: &Path, metadata: &std::fs::Metadata, wanted: u32) -> Result<(), FileError> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode, wanted });
    }
    let us = rustix::process::geteuid().as_raw();
    match metadata.uid() {
        0 => Ok(()),
        owner if owner == us => Ok(()),
        owner => Err(FileError::Owner { path: path.to_owned(), owner, wanted: us }),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_and_private_with_nothing_left_aside() {
        let folder = folder();
        let path = folder.path().join("running.toml");
        for content in ["first, and rather long", "second"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(read_text(&path).unwrap().as_deref(), Some(content));
            assert_eq!(mode(&path), 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_aside_does_not_stand_in_the_way() {
        let folder = folder();
        let path = folder.path().join("running.toml");
        std::fs::write(folder.path().join(".running.toml.new"), "half a").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("whole"));
    }

    #[test]
    fn a_missing_file_is_none_and_removing_it_is_no_error() {
        let folder = folder();
        let path = folder.path().join("nothing");
        assert_eq!(read_text(&path).unwrap(), None);
        remove(&path).unwrap();
        assert!(read_secret(&path, 10).err().unwrap().is_missing());
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_by_its_mode() {
        let folder = folder();
        let path = folder.path().join("a.key");
        std::fs::write(&path, "00ff").unwrap();
        for open in [0o640, 0o604, 0o660, 0o622] {
            set_mode(&path, open);
            let error = read_secret(&path, 64).err().unwrap().to_string();
            assert!(error.contains(&format!("{open:04o}")) && error.contains("0600"), "{error}");
        }
        for closed in [0o600, 0o400] {
            set_mode(&path, closed);
            assert_eq!(&read_secret(&path, 64).unwrap()[..], b"00ff");
        }
    }

    #[test]
    fn what_is_no_regular_file_or_too_long_is_no_secret() {
        let folder = folder();
        assert!(matches!(read_secret(folder.path(), 64), Err(FileError::NotRegular { .. })));
        let path = folder.path().join("long");
        replace(&path, &[b'0'; 65]).unwrap();
        assert!(read_secret(&path, 64).is_err());
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let folder = folder();
        let state = folder.path().join("a/control");
        private_folder(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
        set_mode(&state, 0o750);
        let error = private_folder(&state).unwrap_err().to_string();
        assert!(error.contains("0750") && error.contains("0700"), "{error}");
    }
}
