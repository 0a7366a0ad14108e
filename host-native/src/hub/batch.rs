//! The changes of one step of a fan-out as frames: written once for each kind of connection, and only if there is one.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use iii_stream_core::event::{delta_frame, event_frame};
use iii_stream_core::{Change, GroupRef};

use super::dialect::Dialect;
use crate::socket::Frame;

/// See the module.
pub(super) struct Batch<'a> {
    group: GroupRef<'a>,
    /// Names the group's history.
    epoch: &'a str,
    pub(super) changes: &'a [Arc<Change>],
    encoded: [OnceCell<Encoded>; Dialect::ENCODINGS],
}

/// The frames of all changes, one after another in one piece of memory.
struct Encoded {
    run: Bytes,
    /// `None` for a change that does not carry the value that this kind of connection needs. Such a one is told to nobody:
    /// it is older than the first of them.
    frames: Vec<Option<Range<usize>>>,
}

/// A value was asked for that a change does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoValue;

impl<'a> Batch<'a> {
    pub(super) fn new(group: GroupRef<'a>, epoch: &'a str, changes: &'a [Arc<Change>]) -> Self {
        Self {
            group,
            epoch,
            changes,
            encoded: Default::default(),
        }
    }

    /// All changes.
    pub(super) fn run(&self, dialect: Dialect) -> Result<Frame, NoValue> {
        let encoded = self.encoded(dialect);
        if encoded.frames.iter().any(Option::is_none) {
            return Err(NoValue);
        }
        Ok(Frame::encoded(encoded.run.clone()))
    }

    /// One of the changes.
    pub(super) fn frame(&self, dialect: Dialect, index: usize) -> Result<Frame, NoValue> {
        let encoded = self.encoded(dialect);
        Ok(Frame::encoded(encoded.run.slice(encoded.range(index)?)))
    }

    /// Some of the changes, one after another.
    pub(super) fn some(&self, dialect: Dialect, indices: &[usize]) -> Result<Frame, NoValue> {
        if let [index] = indices {
            return self.frame(dialect, *index);
        }
        if indices.len() == self.changes.len() {
            return self.run(dialect);
        }
        let encoded = self.encoded(dialect);
        let mut out = Vec::new();
        for index in indices {
            out.extend_from_slice(&encoded.run[encoded.range(*index)?]);
        }
        Ok(Frame::encoded(out.into()))
    }

    fn encoded(&self, dialect: Dialect) -> &Encoded {
        self.encoded[dialect.encoding()].get_or_init(|| self.encode(dialect))
    }

    fn encode(&self, dialect: Dialect) -> Encoded {
        let mut out = Vec::new();
        let mut frames = Vec::with_capacity(self.changes.len());
        for change in self.changes {
            let start = out.len();
            let text = if dialect.deltas {
                delta_frame(self.group, change, None)
            } else {
                event_frame(self.group, change, None)
            };
            frames.push(text.map(|text| {
                dialect.push(&mut out, &text, Some((self.epoch, change.seq)));
                start..out.len()
            }));
        }
        Encoded {
            run: out.into(),
            frames,
        }
    }
}

impl Encoded {
    fn range(&self, index: usize) -> Result<Range<usize>, NoValue> {
        self.frames.get(index).cloned().flatten().ok_or(NoValue)
    }
}
