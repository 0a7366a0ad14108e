//! What can be wrong with a manifest, and what to do about it.

use std::io::{self, ErrorKind};

/// Why a manifest could not be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// What the system says.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The file, or the directory's first file where it is about the directory.
        path: String,
        /// A verb.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Written by a later release.
    #[error(
        "{path} has format version {found}, and this program knows version {known}: use a later release"
    )]
    OtherVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// Its checksum is wrong.
    #[error(
        "the header of {path} (bytes 0 to 63) is damaged; restore the store's directory from a backup"
    )]
    DamagedHeader {
        /// The file.
        path: String,
    },
    /// It was written under another number.
    #[error("{path} holds manifest {found}: it was renamed; give it its old name back")]
    OtherNumber {
        /// The file.
        path: String,
        /// The number in its header.
        found: u64,
    },
    /// What is there is not what was written, and it was safe.
    #[error(
        "{path} is damaged at offset {offset}: {what}; restore the store's directory from a backup"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where the unit begins that cannot be used.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Nobody knows how much of an earlier unit is in the file.
    #[error("an earlier write to {path} failed; it takes nothing more until it is written anew")]
    NeedsRewrite {
        /// The file.
        path: String,
    },
    /// The edits do not fit one unit.
    #[error(
        "cannot append {bytes} bytes of edits to {path} at once: at most {bytes_max} are allowed"
    )]
    UnitTooLarge {
        /// The file.
        path: String,
        /// How long they are.
        bytes: usize,
        /// How long they may be.
        bytes_max: usize,
    },
}

impl ManifestError {
    /// Whether there is no room on the disk: the same may go well later.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if says_disk_full(source))
    }

    pub(in crate::store::file) fn io(path: &str, doing: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    }
}

pub(super) fn says_disk_full(error: &io::Error) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
