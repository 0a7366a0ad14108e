//! What files there are and what they are called: as the process sees it, and as a power cut would leave it.

use std::collections::{BTreeMap, HashSet};

use super::fate::Fate;
use super::random::Random;

pub(super) type FileId = u64;

#[derive(Clone, Default)]
pub(super) struct Names {
    now: BTreeMap<String, FileId>,
    durable: BTreeMap<String, FileId>,
    /// What leads from `durable` to `now`, in order.
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Create { name: String, file: FileId },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl Names {
    /// All durable.
    pub(super) fn new(names: BTreeMap<String, FileId>) -> Self {
        Self {
            now: names.clone(),
            durable: names,
            unsynced: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> &BTreeMap<String, FileId> {
        &self.now
    }

    pub(super) fn all_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    pub(super) fn create(&mut self, name: &str, file: FileId) {
        self.change(Change::Create {
            name: name.into(),
            file,
        });
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.change(Change::Rename {
            from: from.into(),
            to: to.into(),
        });
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.change(Change::Remove { name: name.into() });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What is there when the power comes back. Changes of one name come in their order, and none without those before.
    pub(super) fn after_power_cut(
        &self,
        fate: Fate,
        random: &mut Random,
    ) -> BTreeMap<String, FileId> {
        let count = self.unsynced.len();
        let happens: Vec<bool> = match fate {
            Fate::Nothing => vec![false; count],
            Fate::Everything => vec![true; count],
            Fate::Prefix => {
                let reached = random.below(count + 1);
                (0..count).map(|index| index < reached).collect()
            }
            Fate::AllButOne => {
                let missing = random.below(count);
                (0..count).map(|index| index != missing).collect()
            }
            Fate::LengthOnly | Fate::Moments | Fate::Subset | Fate::Reordered => {
                (0..count).map(|_| random.coin()).collect()
            }
        };
        let mut left = self.durable.clone();
        let mut stale: HashSet<&str> = HashSet::new();
        for (change, happens) in self.unsynced.iter().zip(happens) {
            let touched = change.touched();
            if happens && !touched.iter().flatten().any(|name| stale.contains(name)) {
                change.apply(&mut left);
            } else {
                stale.extend(touched.into_iter().flatten());
            }
        }
        left
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }

    fn touched(&self) -> [Option<&str>; 2] {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => [Some(name), None],
            Self::Rename { from, to } => [Some(from), Some(to)],
        }
    }
}
