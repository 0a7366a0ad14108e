//! A store on a simulated disk from one opening to the next, with its threads run by hand.

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::{Change, Demand, GroupKey, GroupRef, Json};
use parking_lot::Mutex;

use super::super::committing::Committer;
use super::super::disk::simulated::SimDisk;
use super::super::entry::Entry;
use super::super::folding::Folder;
use super::super::opening;
use super::super::releasing::Releasing;
use super::super::{ChangeSink, Disk, FileOptions, FileStore, Inner, OpenError, RunAside};

/// Takes what followers are told.
#[derive(Default)]
pub(super) struct Sink(Mutex<Vec<(GroupKey, Arc<Change>)>>);

impl Sink {
    pub(super) fn take(&self) -> Vec<(GroupKey, Arc<Change>)> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// What the followers of a group need.
pub(super) fn demand(group: &GroupKey) -> Demand {
    if &*group.group == "g1" {
        Demand::Values
    } else {
        Demand::Ops
    }
}

impl ChangeSink for Sink {
    fn demand(&self, group: &GroupKey) -> Demand {
        demand(group)
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, _: Option<&Json>) {
        self.0.lock().push((group.clone(), change));
    }
}

/// See the module.
pub(super) struct Life {
    pub(super) store: FileStore,
    pub(super) sink: Arc<Sink>,
    pub(super) committer: Committer,
    pub(super) folder: Folder,
}

impl Life {
    /// Opens the store. `boot` names the start of the machine.
    pub(super) fn open(
        disk: &SimDisk,
        options: FileOptions,
        boot: u64,
        may_wait: bool,
    ) -> Result<Self, OpenError> {
        let sink = Arc::new(Sink::default());
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let inline: RunAside = Box::new(|work| work());
        let boot = format!("boot{boot}");
        let opened = opening::open(
            &disk,
            sink.clone(),
            options,
            inline,
            Releasing::new(None),
            &boot,
        )?;
        let inner = opened.inner;
        Ok(Self {
            committer: Committer::new(inner.clone(), opened.log),
            folder: Folder::new(inner.clone(), opened.disk, opened.manifest, may_wait),
            store: FileStore {
                inner,
                threads: Mutex::new(None),
            },
            sink,
        })
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.store.inner
    }

    pub(super) fn turn(&mut self) {
        self.committer.turn(Duration::ZERO);
    }

    /// Folds and makes spares. What waits for a fold is put in an order first, so that a seed tells all.
    pub(super) fn fold(&mut self) {
        let key = |entry: &Arc<Entry>| entry.key.clone();
        self.inner().unfolded.lock().sort_by_key(key);
        self.folder.turn();
    }

    /// The name of a group's history, if the store knows the group.
    pub(super) fn epoch(&self, group: GroupRef<'_>) -> Option<Arc<str>> {
        let entry = self.inner().table.find(group)?;
        let epoch = entry.state.lock().epoch.clone();
        Some(self.inner().era.name(&epoch))
    }

    /// Where the log has all that a group has in memory.
    pub(super) fn end_lsn(&self, group: GroupRef<'_>) -> u64 {
        let entry = self.inner().table.find(group);
        entry.map_or(0, |entry| entry.state.lock().end_lsn)
    }

    /// Where the log has each of a group's steps that are not folded.
    pub(super) fn pending_ends(&self, group: GroupRef<'_>) -> Vec<u64> {
        let Some(entry) = self.inner().table.find(group) else {
            return Vec::new();
        };
        let state = entry.state.lock();
        state.pending.iter().map(|at| at.end_lsn()).collect()
    }

    /// A change of a group, decided but maybe not safe.
    pub(super) fn change(&self, group: GroupRef<'_>, seq: u64) -> Option<Arc<Change>> {
        let entry = self.inner().table.find(group)?;
        let mut state = entry.state.lock();
        let changes = state.hot()?.changes_since(seq - 1, None, false)?;
        changes.into_iter().find(|change| change.seq == seq)
    }

    pub(super) fn close(self) {
        self.committer.close();
        self.folder.close();
    }
}
