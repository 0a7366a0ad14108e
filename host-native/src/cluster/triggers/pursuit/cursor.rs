//! Where a trigger goes on, what is to be read for that, and what is found. Pure.

use std::sync::Arc;

use super::super::course::Place;

/// Something with a place in its group.
pub(in crate::cluster::triggers) trait Numbered {
    /// Counts the group's changes.
    fn seq(&self) -> u64;
    /// Its time, in Unix milliseconds.
    fn timestamp(&self) -> u64;
}

/// Where a trigger goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cluster::triggers) struct Cursor {
    /// Of groups that are not named, what is older than this is done, in Unix milliseconds by Redis.
    pub(in crate::cluster::triggers) since_ms: u64,
    /// Up to where everything is done.
    pub(in crate::cluster::triggers) places: Vec<(Arc<str>, Place)>,
}

/// What is new in the cursor since it was written last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cluster::triggers) struct Delta {
    /// As in [`Cursor`].
    pub(in crate::cluster::triggers) since_ms: u64,
    /// Places that changed.
    pub(in crate::cluster::triggers) places: Vec<(Arc<str>, Place)>,
    /// Groups that are not named any more.
    pub(in crate::cluster::triggers) forgotten: Vec<Arc<str>>,
    /// More has changed than one write holds.
    pub(in crate::cluster::triggers) has_more: bool,
}

/// What is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::triggers) enum Read {
    /// The groups that were touched at this time or later.
    Touched { since_ms: u64 },
    /// What the history of a group holds.
    History { group: Arc<str>, from: From },
}

/// From where on a history is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::triggers) enum From {
    /// After a change.
    After(u64),
    /// At this time or later.
    Since(u64),
}

/// What a history holds.
#[derive(Clone, Debug)]
pub(in crate::cluster::triggers) struct Found<C> {
    /// Names the history.
    pub(in crate::cluster::triggers) epoch: Arc<str>,
    /// The group's last change.
    pub(in crate::cluster::triggers) seq: u64,
    /// What there is of what was asked for, in order, up to the last change.
    pub(in crate::cluster::triggers) changes: Vec<C>,
    /// Whether that is all that was asked for.
    pub(in crate::cluster::triggers) is_whole: bool,
    /// Where the history of this name begins; changes before it are of an earlier one.
    pub(in crate::cluster::triggers) first: u64,
}
