//! The store on a simulated disk, its threads run by hand.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use iii_stream_core::command::{Write, read_set, read_update};
use iii_stream_core::{
    CallError, Change, Committed, Demand, GroupKey, GroupLimits, GroupRef, Json,
};
use parking_lot::Mutex;

use super::committing::Committer;
use super::disk::simulated::SimDisk;
use super::folding::Folder;
use super::opening;
use super::*;
use crate::store::StoreError;

/// Keeps what it is told.
#[derive(Default)]
pub(super) struct Told(pub(super) Mutex<Vec<(GroupKey, Arc<Change>)>>);

impl ChangeSink for Told {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Ops
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, _: Option<&Json>) {
        self.0.lock().push((group.clone(), change));
    }
}

pub(super) fn options() -> FileOptions {
    FileOptions {
        durability: Durability::Fsync,
        limits: GroupLimits {
            items_max: 1_000,
            bytes_max: 1 << 20,
            client_records_max: 10,
            hot_items_max: 4,
            history_changes_max: 50,
            history_bytes_max: 1 << 16,
        },
        history_bytes_max: 1 << 20,
        cache_bytes_max: 1 << 20,
        queue_bytes_max: 1 << 20,
        segment_bytes: 8 << 10,
        fold_bytes: 0,
        log_bytes_max: u64::MAX,
    }
}

/// A store whose threads are run by hand.
pub(super) struct ByHand {
    pub(super) inner: Arc<Inner>,
    pub(super) told: Arc<Told>,
    pub(super) committer: Committer,
    pub(super) folder: Folder,
}

impl ByHand {
    pub(super) fn open(disk: &SimDisk, options: FileOptions) -> Result<Self, OpenError> {
        let told = Arc::new(Told::default());
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let inline: RunAside = Box::new(|work| work());
        let opened = opening::open(
            &disk,
            told.clone(),
            options,
            inline,
            Releasing::new(None),
            "boot",
        )?;
        let inner = opened.inner.clone();
        Ok(Self {
            told,
            committer: Committer::new(inner.clone(), opened.log),
            folder: Folder::new(inner.clone(), opened.disk, opened.manifest, false),
            inner,
        })
    }

    /// Sends a command on its way.
    pub(super) fn send(
        &self,
        write: Result<Write<'_>, CallError>,
        now_ms: u64,
    ) -> mpsc::Receiver<Result<Committed, StoreError>> {
        let (sender, receiver) = mpsc::channel();
        let write = write.expect("a command");
        // The test may not wait for it.
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.inner
            .commit(write.target.as_ref(), write.command, now_ms, done);
        receiver
    }

    pub(super) fn turn(&mut self) {
        self.committer.turn(Duration::ZERO);
    }

    pub(super) fn list(
        &mut self,
        group: GroupRef<'_>,
    ) -> Result<Vec<(Arc<str>, Item)>, StoreError> {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |outcome| assert!(sender.send(outcome).is_ok()));
        self.inner.read(group, |group| group.iter().collect(), done);
        self.turn();
        receiver.recv().expect("an answer")
    }

    pub(super) fn close(self) {
        self.committer.close();
        self.folder.close();
    }
}

fn texts(items: Vec<(Arc<str>, Item)>) -> Vec<String> {
    let text = |(id, item): (Arc<str>, Item)| format!("{id}={}#{}", item.value.as_str(), item.seq);
    items.into_iter().map(text).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_restarts_and_folds() {
    let mut disk = SimDisk::new(1);
    let group = GroupRef {
        stream: "s/1",
        group: "g",
    };
    let mut store = ByHand::open(&disk, options()).expect("a store");
    for round in 0..400 {
        let item = round % 20;
        let text = "x".repeat(100);
        let set = format!(
            r#"{{"stream_name":"s/1","group_id":"g","item_id":"i{item}","data":{{"n":{round},"text":"{text}"}}}}"#
        );
        let set = store.send(read_set(&set), 1_000 + round);
        let update = format!(
            r#"{{"stream_name":"s/1","group_id":"g","item_id":"i{item}","ops":[{{"type":"increment","path":"n","by":1}}]}}"#
        );
        let update = store.send(read_update(&update), 1_000 + round);
        assert!(set.try_recv().is_err(), "nobody is told before it is safe");
        store.turn();
        let told = std::mem::take(&mut *store.told.0.lock());
        assert_eq!(told.len(), 2, "changes are told once they are safe");
        set.recv().expect("an answer").expect("success");
        update.recv().expect("an answer").expect("success");
        if round % 10 == 9 {
            store.folder.fold().expect("a fold");
        }
        if round % 50 == 25 {
            let before = texts(store.list(group).expect("items"));
            assert_eq!(before.len(), 20);
            if round % 100 == 25 {
                store.close();
            }
            disk = disk.after_power_cut(round);
            store = ByHand::open(&disk, options()).expect("a store");
            assert_eq!(texts(store.list(group).expect("items")), before, "{round}");
        }
    }
}
