//! A change on its way to handlers, and what they are told of it: written once, however many they are.

use std::sync::{Arc, OnceLock};

use iii_stream_core::event::trigger_input;
use iii_stream_core::{Change, GroupRef};

use super::pursuit::Numbered;

/// See the module.
pub(super) struct Heard {
    pub(super) change: Arc<Change>,
    input: OnceLock<Option<Arc<str>>>,
}

impl Heard {
    pub(super) fn new(change: Arc<Change>) -> Arc<Self> {
        Arc::new(Self {
            change,
            input: OnceLock::new(),
        })
    }

    /// What handlers are told; `None` where the value was not kept.
    pub(super) fn input(&self, group: GroupRef<'_>) -> Option<Arc<str>> {
        let write = || trigger_input(group, &self.change).map(Arc::from);
        self.input.get_or_init(write).clone()
    }
}

impl Numbered for Arc<Heard> {
    fn seq(&self) -> u64 {
        self.change.seq
    }

    fn timestamp(&self) -> u64 {
        self.change.timestamp
    }
}
