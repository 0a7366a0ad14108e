//! What a manifest says, all edits taken together.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::GroupKey;

use super::edit::{Durability, Edit, GroupKept};

/// Where the log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// The position of the first record that counts.
    pub lsn: u64,
    /// The segment that holds it.
    pub segment: u64,
}

/// Who opened the store last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastOpened {
    /// Names the start of the machine.
    pub boot_id: String,
    /// What the process promised.
    pub durability: Durability,
    /// Whether the process wrote all it had.
    pub closed: bool,
}

/// What is where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Names the store: the same in each of its files.
    pub store_id: [u8; 16],
    /// Groups by stream's name and group's id. No stream is without groups.
    pub streams: HashMap<Arc<str>, HashMap<Arc<str>, GroupKept>>,
    /// Where the log begins, once it was told.
    pub log: Option<LogStart>,
    /// Every timestamp of a group that is made anew is later, in milliseconds since 1970.
    pub floor_ms: u64,
    /// The last [`Edit::Era`].
    pub era: u64,
    /// Who opened the store last.
    pub opened: Option<LastOpened>,
}

impl Contents {
    /// How a group is kept.
    pub fn kept(&self, key: &GroupKey) -> Option<&GroupKept> {
        self.streams.get(&key.stream)?.get(&key.group)
    }

    /// Takes an edit in.
    pub fn apply(&mut self, edit: Edit<'_>) {
        match edit {
            Edit::Group {
                stream,
                group,
                kept,
            } => {
                if !self.streams.contains_key(stream) {
                    self.streams.insert(stream.into(), HashMap::new());
                }
                if let Some(groups) = self.streams.get_mut(stream) {
                    match groups.get_mut(group) {
                        Some(before) => *before = kept.into_owned(),
                        None => {
                            groups.insert(group.into(), kept.into_owned());
                        }
                    }
                }
            }
            Edit::Gone { stream, group } => {
                if let Some(groups) = self.streams.get_mut(stream) {
                    groups.remove(group);
                    if groups.is_empty() {
                        self.streams.remove(stream);
                    }
                }
            }
            Edit::Log {
                start_lsn: lsn,
                start_segment: segment,
            } => self.log = Some(LogStart { lsn, segment }),
            Edit::Floor { ms } => self.floor_ms = ms,
            Edit::Era { n } => self.era = n,
            Edit::Opened {
                boot_id,
                durability,
            } => {
                self.opened = Some(LastOpened {
                    boot_id: boot_id.to_owned(),
                    durability,
                    closed: false,
                });
            }
            Edit::Closed => {
                if let Some(opened) = &mut self.opened {
                    opened.closed = true;
                }
            }
        }
    }

    /// The edits that make the same contents out of nothing.
    pub fn edits(&self) -> impl Iterator<Item = Edit<'_>> {
        let log = self.log.map(|log| Edit::Log {
            start_lsn: log.lsn,
            start_segment: log.segment,
        });
        let opened = self.opened.as_ref();
        let closed = opened.filter(|opened| opened.closed).map(|_| Edit::Closed);
        let opened = opened.map(|opened| Edit::Opened {
            boot_id: &opened.boot_id,
            durability: opened.durability,
        });
        let numbers = [Edit::Floor { ms: self.floor_ms }, Edit::Era { n: self.era }];
        let groups = self.streams.iter().flat_map(|(stream, groups)| {
            groups.iter().map(move |(group, kept)| Edit::Group {
                stream,
                group,
                kept: Cow::Borrowed(kept),
            })
        });
        let rest = log.into_iter().chain(opened).chain(closed);
        numbers.into_iter().chain(rest).chain(groups)
    }
}
