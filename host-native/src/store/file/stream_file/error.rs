//! What can be wrong with a stream's file, and what to do about it.

use std::io::{self, ErrorKind};

use super::super::extent::Extent;

/// Why a stream's file could not be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum StreamFileError {
    /// What the system says.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// A verb.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It begins with something else.
    #[error(
        "{path} does not begin as the file of a stream does: it is damaged, or was put there by something else; \
         restore the store's directory from a backup"
    )]
    NotAStreamFile {
        /// The file.
        path: String,
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
        "the header of {path} (bytes 0 to 4095) is damaged; restore the store's directory from a backup"
    )]
    DamagedHeader {
        /// The file.
        path: String,
    },
    /// The id of the store is another one.
    #[error(
        "{path} was made by another store than the manifest beside it; put back the files that belong together, \
         for example from one backup"
    )]
    OtherStore {
        /// The file.
        path: String,
    },
    /// The name in its header is another one.
    #[error(
        "{path} holds stream {found:?} instead of {expected:?}: it was renamed; give it its old name back"
    )]
    OtherStream {
        /// The file.
        path: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A stream cannot be called so.
    #[error(
        "cannot create {path}: the stream's name has {bytes} bytes, and at most {bytes_max} are allowed"
    )]
    NameTooLong {
        /// The file.
        path: String,
        /// How long the name is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// An extent cannot be made of so many.
    #[error("cannot write {parts} parts to {path} as one extent: at most {parts_max} are allowed")]
    TooManyParts {
        /// The file.
        path: String,
        /// How many there are.
        parts: usize,
        /// How many there may be.
        parts_max: usize,
    },
    /// The manifest gives the same bytes to two groups, or twice to one.
    #[error(
        "the manifest gives the {bytes} bytes of {path} at offset {offset} away again at offset {other_offset}; \
         restore the store's directory from a backup"
    )]
    Overlap {
        /// The file.
        path: String,
        /// Where one extent begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// Where the other one begins.
        other_offset: u64,
    },
    /// The file is shorter than the manifest says.
    #[error(
        "{path} has no {bytes} bytes at offset {offset}, where the manifest expects data: it was cut off; \
         restore the store's directory from a backup"
    )]
    Outside {
        /// The file.
        path: String,
        /// Where the extent begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// What is there is not what was written.
    #[error(
        "the {bytes} bytes of {path} at offset {offset} are damaged: {what}; \
         restore the store's directory from a backup"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where the extent begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl StreamFileError {
    /// Whether there is no room on the disk: the same may go well later.
    pub fn is_disk_full(&self) -> bool {
        use ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }

    /// Which file.
    pub fn path(&self) -> &str {
        match self {
            Self::Io { path, .. }
            | Self::NotAStreamFile { path }
            | Self::OtherVersion { path, .. }
            | Self::DamagedHeader { path }
            | Self::OtherStore { path }
            | Self::OtherStream { path, .. }
            | Self::NameTooLong { path, .. }
            | Self::TooManyParts { path, .. }
            | Self::Overlap { path, .. }
            | Self::Outside { path, .. }
            | Self::Damaged { path, .. } => path,
        }
    }

    /// Where in it, where that is known.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::NotAStreamFile { .. } | Self::DamagedHeader { .. } => Some(0),
            Self::Overlap { offset, .. }
            | Self::Outside { offset, .. }
            | Self::Damaged { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    pub(super) fn io(path: &str, doing: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    }

    pub(super) fn outside(path: &str, offset: u64, bytes: u64) -> Self {
        Self::Outside {
            path: path.to_owned(),
            offset,
            bytes,
        }
    }

    pub(super) fn damaged(path: &str, extent: Extent, what: &'static str) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            offset: extent.offset,
            bytes: extent.bytes,
            what,
        }
    }
}
