//! One item with its names, where it was found, and the two ends of a move. Knows no formats.

use std::fmt;
use std::io;
use std::sync::Arc;

use iii_stream_core::Json;

/// The longest text of one item that is read or written, in bytes: the largest message that a server takes.
pub const ITEM_BYTES_MAX: usize = 64 << 20;

/// Which item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An item of a stream.
    Stream {
        /// The stream's name.
        stream: Arc<str>,
        /// The group's id.
        group: Arc<str>,
        /// The item's id.
        item: String,
    },
    /// A key of the state.
    State {
        /// The scope.
        scope: Arc<str>,
        /// The key.
        key: String,
    },
}

/// An item as it is moved. Its names and its time to live are within their bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which item.
    pub place: Place,
    /// Its value.
    pub value: Json,
    /// How long it lives after a write, in milliseconds; `None` is for good, as for every key of the state.
    pub ttl_ms: Option<u64>,
    /// When it goes if it is not written again, in Unix milliseconds; only where `ttl_ms` is.
    pub expires_ms: Option<u64>,
}

/// Where something was found, in words that lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line, counted from 1.
    Line(u64),
    /// A file, by its name, or a group of a running server.
    Named(Arc<str>),
}

/// Why a source did not give an item.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Something is no item; what comes after it can still be asked for.
    #[error("{origin}: {reason}")]
    Damaged {
        /// Where.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// The source cannot be read on.
    #[error("cannot read {name}: {error}")]
    Broken {
        /// What was read.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// The server that was asked has gone or does not make sense.
    #[error("{0}")]
    Server(String),
}

/// Why a sink took an item and could not keep it.
#[derive(Debug)]
pub struct Refused {
    /// Which item.
    pub place: Place,
    /// Where it came from.
    pub origin: Origin,
    /// What the sink said.
    pub reason: String,
}

/// The end that items come from, each group in order of creation.
pub trait ItemSource {
    /// The next item and where it was found; `None` at the end.
    ///
    /// Errors: after [`SourceError::Damaged`] one can ask again; the others are the end.
    fn next_item(&mut self) -> Result<Option<(Entry, Origin)>, SourceError>;

    /// How many bytes were read so far.
    fn bytes_read(&self) -> u64;
}

/// The end that items go to. A later item of the same place takes the place of the earlier one.
pub trait ItemSink {
    /// Takes an item. What becomes of it may only be known later; items that are known by now to have been refused are
    /// added to `refused`.
    ///
    /// Errors: nothing more can be taken.
    fn put(
        &mut self,
        entry: &Entry,
        origin: &Origin,
        refused: &mut Vec<Refused>,
    ) -> Result<(), SinkError>;

    /// Waits until everything that was taken is kept or refused.
    ///
    /// Errors: nobody knows about what was taken of late.
    fn finish(&mut self, refused: &mut Vec<Refused>) -> Result<(), SinkError>;
}

/// Why a sink takes nothing more, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream {
                stream,
                group,
                item,
            } => write!(f, "item `{item}` of `{stream}`, group `{group}`"),
            Self::State { scope, key } => write!(f, "state `{key}` of scope `{scope}`"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}
