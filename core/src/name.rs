//! Names: which stream, group and item a call speaks of. Parsed once, always valid. Knows no values.

use alloc::sync::Arc;
use core::hash::{Hash, Hasher};

use hashbrown::Equivalent;

use crate::limits::NAME_BYTES_MAX;

/// Whether `name` can name a stream, a group or an item: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8, any characters.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

/// A stream's name and a group's id, kept apart: `("a:b", "c")` and `("a", "b:c")` are two groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The group's id.
    pub group: Arc<str>,
}

/// A borrowed [`GroupKey`], to look one up without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupRef<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The group's id.
    pub group: &'a str,
}

impl GroupKey {
    /// The borrowed form.
    pub fn as_ref(&self) -> GroupRef<'_> {
        GroupRef {
            stream: &self.stream,
            group: &self.group,
        }
    }
}

impl GroupRef<'_> {
    /// The owned form.
    pub fn to_key(self) -> GroupKey {
        GroupKey {
            stream: self.stream.into(),
            group: self.group.into(),
        }
    }
}

impl Hash for GroupKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl Equivalent<GroupKey> for GroupRef<'_> {
    fn equivalent(&self, key: &GroupKey) -> bool {
        *self == key.as_ref()
    }
}
