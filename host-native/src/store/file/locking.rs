//! Who may use a directory: a lock on a file in it, that the system takes back when the process ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::opening::LOCK;

/// Why a directory cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another process: stop that one first. A running server is asked with --address"
    )]
    InUse {
        /// The directory.
        path: String,
    },
    /// It is not there, or may not be used.
    #[error("cannot open the data directory {path}: {source}")]
    System {
        /// The directory.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Keeps others from writing as long as the result lives. Changes nothing: where there is no file to lock, nobody writes.
pub(super) fn lock_to_read(dir: &Path) -> Result<Option<File>, LockError> {
    let path = || dir.display().to_string();
    match File::open(dir.join(LOCK)) {
        Ok(file) => outcome(dir, file.try_lock_shared()).map(|()| Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LockError::System {
            path: path(),
            source,
        }),
    }
}

/// Keeps everybody else out as long as the result lives.
pub(super) fn lock_to_write(dir: &Path) -> Result<File, LockError> {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK));
    let file = opened.map_err(|source| LockError::System {
        path: dir.display().to_string(),
        source,
    })?;
    outcome(dir, file.try_lock()).map(|()| file)
}

fn outcome(dir: &Path, locked: Result<(), TryLockError>) -> Result<(), LockError> {
    let path = dir.display().to_string();
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(LockError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(LockError::System { path, source }),
    }
}
