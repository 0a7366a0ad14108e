//! What can go wrong with the log, in words for operators.

use std::io;

use super::super::Disk;

/// Why the log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system refused.
    #[error("{file}: {error}")]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// Something that was durable is not there any more.
    #[error(
        "{file} is damaged at byte {offset}: {expected}. {follows_bytes} bytes follow. Restore the directory from a backup, \
         or let `iii-stream verify --repair {dir}` drop everything after this place"
    )]
    Damaged {
        /// Which file.
        file: String,
        /// The directory it is in.
        dir: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What should be there, and what is there instead.
        expected: String,
        /// How much was written behind, in this file and the later ones, as far as known.
        follows_bytes: u64,
    },
    /// A segment is not there.
    #[error(
        "{file} is missing: the log goes from segment {first} to {last}. Restore the directory from a backup, \
         or let `iii-stream verify --repair {dir}` drop everything after the segment before"
    )]
    Missing {
        /// Which file.
        file: String,
        /// The directory it should be in.
        dir: String,
        /// The first segment that is needed.
        first: u64,
        /// The last segment that is known of.
        last: u64,
    },
    /// Written by a later release.
    #[error(
        "{file} has format version {version}; this release reads up to version {version_max}. Use the release that wrote it, \
         or a later one"
    )]
    Newer {
        /// Which file.
        file: String,
        /// Its format.
        version: u32,
        /// The latest format known here.
        version_max: u32,
    },
    /// Of another store.
    #[error("{file} belongs to another store: files of two directories were mixed")]
    Foreign {
        /// Which file.
        file: String,
    },
    /// A log with records is there already.
    #[error(
        "{file} is there, but no manifest that tells of it: a new store would overwrite it. Restore the manifest from a \
         backup, or move the files away"
    )]
    AlreadyThere {
        /// Which file.
        file: String,
    },
    /// The record was released.
    #[error("the log no longer holds a record at lsn {lsn}")]
    Gone {
        /// Where it was.
        lsn: u64,
    },
    /// A record is whole, but whoever takes records cannot make sense of it.
    #[error("{file}: the record at lsn {lsn}, of {len} bytes, cannot be understood: {why}")]
    Unreadable {
        /// Which file.
        file: String,
        /// Where the record is.
        lsn: u64,
        /// Its length in bytes.
        len: u32,
        /// What the taker said.
        why: String,
    },
}

/// Why a batch could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// There was no room for a new segment. Nothing was written; a later write may succeed.
    #[error("no space for the log's next segment: {file}: {error}")]
    NoSpace {
        /// Which file could not be made.
        file: String,
        /// What the system said.
        error: String,
    },
    /// The batch is larger than any segment can be. Nothing was written.
    #[error("a batch of {bytes} bytes; the log takes up to {bytes_max}")]
    TooLarge {
        /// The batch's payload.
        bytes: usize,
        /// The most that can be.
        bytes_max: usize,
    },
    /// It is not known what of the log is on the disk: it takes nothing more until it is opened again.
    #[error("the log takes no more changes until a restart: {why}")]
    Failed {
        /// The error after which that is so.
        why: String,
    },
}

/// Puts the file's name to an error of the system.
pub(super) fn io_at<'a>(
    disk: &'a dyn Disk,
    name: &'a str,
) -> impl FnOnce(io::Error) -> LogError + 'a {
    move |error| LogError::Io {
        file: disk.path_of(name),
        error,
    }
}

/// The directory's name, for commands that are proposed.
pub(super) fn dir_of(disk: &dyn Disk, name: &str) -> String {
    let path = disk.path_of(name);
    let dir = path.strip_suffix(name).unwrap_or(&path);
    match dir.trim_end_matches(['/', '\\']) {
        "" => ".".into(),
        dir => dir.into(),
    }
}

pub(super) fn damaged(
    disk: &dyn Disk,
    name: &str,
    offset: u64,
    expected: impl Into<String>,
    follows_bytes: u64,
) -> LogError {
    LogError::Damaged {
        file: disk.path_of(name),
        dir: dir_of(disk, name),
        offset,
        expected: expected.into(),
        follows_bytes,
    }
}

/// Whether the disk, or what the user may take of it, is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
