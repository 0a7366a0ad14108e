//! The store that keeps groups in memory and loses them when the process ends.
//!
//! A group is held by its own lock while a command runs on it, so groups do not wait for each other. Lock order:
//! group, then index, deadlines or idle list; never two groups.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{
    Change, Command, Committed, Draft, Floor, Group, GroupKey, GroupLimits, GroupRef, Item,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::{ChangeSink, Done, Snapshot, Store, StreamGroups};
use crate::clock;

/// The table of groups is parted so that looking up does not wait. A power of two.
const SHARDS: usize = 64;

/// Items deleted in one hold of a group's lock when their time has come; the rest follows at once.
const EXPIRE_BATCH_MAX: usize = 256;

/// How often groups that hold nothing are looked at, to be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);

/// Groups in memory. See the module.
pub struct MemoryStore {
    shards: Vec<RwLock<HashMap<GroupKey, Arc<Entry>>>>,
    hasher: DefaultHashBuilder,
    sink: Arc<dyn ChangeSink>,
    /// Names the history of this process's groups.
    epoch: Arc<str>,
    group_limits: GroupLimits,
    /// How many groups were forgotten: a group that comes again starts a history with another name.
    forgotten: AtomicU64,
    /// No timestamp of a forgotten group was later.
    forgotten_ms: AtomicU64,
    /// Groups that have items, by stream.
    index: Mutex<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>,
    /// When each group next has to delete items, in Unix milliseconds.
    deadlines: Mutex<BTreeSet<(u64, GroupKey)>>,
    deadlines_changed: Notify,
    /// Groups that may hold nothing any more.
    idle: Mutex<BTreeSet<GroupKey>>,
}

struct Entry {
    key: GroupKey,
    state: Mutex<State>,
}

struct State {
    group: Group,
    /// No longer in the table: whoever still holds this entry must look the group up again.
    is_forgotten: bool,
    /// This group's entry among the deadlines.
    deadline_ms: Option<u64>,
}

impl MemoryStore {
    /// An empty store whose changes go to `sink`. `epoch` must be new for every process, `[a-z0-9]+`.
    pub fn new(epoch: &str, sink: Arc<dyn ChangeSink>, group_limits: GroupLimits) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            sink,
            epoch: epoch.into(),
            group_limits,
            forgotten: AtomicU64::new(0),
            forgotten_ms: AtomicU64::new(0),
            index: Mutex::default(),
            deadlines: Mutex::default(),
            deadlines_changed: Notify::new(),
            idle: Mutex::default(),
        }
    }

    /// Deletes items whose time has come, for as long as the process lives.
    pub async fn run_expiry(&self) {
        loop {
            let now_ms = clock::unix_ms();
            let next = self
                .deadlines
                .lock()
                .first()
                .map(|(deadline_ms, _)| *deadline_ms);
            match next {
                None => self.deadlines_changed.notified().await,
                Some(deadline_ms) if now_ms < deadline_ms => {
                    let wait = Duration::from_millis(deadline_ms - now_ms);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.deadlines_changed.notified() => {}
                    }
                }
                Some(_) => {
                    self.expire_due(now_ms);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Forgets groups that hold nothing and that nobody watches, for as long as the process lives.
    pub async fn run_forgetting(&self, is_watched: impl Fn(GroupRef<'_>) -> bool + Send + Sync) {
        loop {
            tokio::time::sleep(FORGET_INTERVAL).await;
            self.forget_idle(&is_watched);
        }
    }

    /// How many groups are in the table.
    pub fn groups_len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Forgets the groups that hold nothing. A group that `is_watched` must keep its history: its subscribers
    /// count on it. They register before they read their snapshot, so either they are seen here, or they find the
    /// entry forgotten and look the group up again.
    fn forget_idle(&self, is_watched: &(impl Fn(GroupRef<'_>) -> bool + Sync)) {
        let idle = std::mem::take(&mut *self.idle.lock());
        for key in idle {
            let Some(entry) = self.find(key.as_ref()) else {
                continue;
            };
            let mut state = entry.state.lock();
            if !state.group.is_forgettable() {
                continue;
            }
            if is_watched(key.as_ref()) {
                self.idle.lock().insert(key);
                continue;
            }
            state.is_forgotten = true;
            let latest_ms = state.group.floor().latest_ms();
            drop(state);
            self.forgotten_ms.fetch_max(latest_ms, Ordering::AcqRel);
            self.forgotten.fetch_add(1, Ordering::AcqRel);
            self.shard(key.as_ref()).write().remove(&key);
        }
    }

    fn expire_due(&self, now_ms: u64) {
        let due = {
            let mut deadlines = self.deadlines.lock();
            match deadlines.first() {
                Some((deadline_ms, _)) if *deadline_ms <= now_ms => deadlines.pop_first(),
                _ => None,
            }
        };
        let Some((_, key)) = due else { return };
        let Some(entry) = self.find(key.as_ref()) else {
            return;
        };
        let mut state = entry.state.lock();
        state.deadline_ms = None;
        for change in state.group.expire(now_ms, EXPIRE_BATCH_MAX) {
            let old = change.value.clone();
            self.sink.publish(&entry.key, change, Some(&old));
        }
        self.after_write(&entry.key, &mut state, false);
    }

    fn shard(&self, group: GroupRef<'_>) -> &RwLock<HashMap<GroupKey, Arc<Entry>>> {
        // The high bits: the tables inside the shards use the low ones.
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }

    fn find(&self, group: GroupRef<'_>) -> Option<Arc<Entry>> {
        self.shard(group).read().get(&group).cloned()
    }

    fn find_or_make(&self, group: GroupRef<'_>) -> Arc<Entry> {
        if let Some(entry) = self.find(group) {
            return entry;
        }
        let mut shard = self.shard(group).write();
        if let Some(entry) = shard.get(&group) {
            return entry.clone();
        }
        let forgotten = self.forgotten.load(Ordering::Acquire);
        let epoch = match forgotten {
            0 => self.epoch.clone(),
            // `x` is no digit of the number, so no two names are alike.
            count => format!("{}x{count}", self.epoch).into(),
        };
        let floor = Floor::above(self.forgotten_ms.load(Ordering::Acquire));
        let entry = Arc::new(Entry {
            key: group.to_key(),
            state: Mutex::new(State {
                group: Group::new(epoch, floor, self.group_limits),
                is_forgotten: false,
                deadline_ms: None,
            }),
        });
        shard.insert(entry.key.clone(), entry.clone());
        entry
    }

    /// Runs `work` on a group that is in the table.
    fn with_group<T>(
        &self,
        group: GroupRef<'_>,
        work: impl FnOnce(&GroupKey, &mut State) -> T,
    ) -> T {
        loop {
            let entry = self.find_or_make(group);
            let mut state = entry.state.lock();
            if !state.is_forgotten {
                return work(&entry.key, &mut state);
            }
            drop(state);
            // It is about to leave the table.
            std::thread::yield_now();
        }
    }

    /// Keeps index, deadlines and idle list true after a write.
    fn after_write(&self, key: &GroupKey, state: &mut State, was_empty: bool) {
        let is_empty = state.group.is_empty();
        if is_empty != was_empty {
            let mut index = self.index.lock();
            if is_empty {
                if let Some(groups) = index.get_mut(&key.stream) {
                    groups.remove(&key.group);
                    if groups.is_empty() {
                        index.remove(&key.stream);
                    }
                }
            } else {
                index
                    .entry(key.stream.clone())
                    .or_default()
                    .insert(key.group.clone());
            }
        }
        if state.group.is_forgettable() {
            self.idle.lock().insert(key.clone());
        }
        let deadline_ms = state.group.next_expiry_ms();
        if deadline_ms != state.deadline_ms {
            let mut deadlines = self.deadlines.lock();
            if let Some(old_ms) = state.deadline_ms {
                deadlines.remove(&(old_ms, key.clone()));
            }
            if let Some(new_ms) = deadline_ms {
                deadlines.insert((new_ms, key.clone()));
            }
            state.deadline_ms = deadline_ms;
            drop(deadlines);
            self.deadlines_changed.notify_one();
        }
    }
}

impl Store for MemoryStore {
    fn commit(&self, group: GroupRef<'_>, command: Command, now_ms: u64, done: Done<Committed>) {
        let committed = self.with_group(group, |key, state| {
            let was_empty = state.group.is_empty();
            let committed = state.group.commit(command, now_ms);
            if let Some(change) = &committed.change {
                self.sink
                    .publish(key, change.clone(), committed.reply.outcome.old());
            }
            self.after_write(key, state, was_empty);
            committed
        });
        done(Ok(committed));
    }

    fn announce(&self, group: GroupRef<'_>, draft: Draft, now_ms: u64, done: Done<Arc<Change>>) {
        let change = self.with_group(group, |key, state| {
            let was_empty = state.group.is_empty();
            let change = state.group.announce(draft, now_ms);
            self.sink.publish(key, change.clone(), None);
            self.after_write(key, state, was_empty);
            change
        });
        done(Ok(change));
    }

    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>) {
        let item = self
            .find(group)
            .and_then(|entry| entry.state.lock().group.get(item).cloned());
        done(Ok(item));
    }

    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>) {
        let items = self
            .find(group)
            .map(|entry| all_items(&entry.state.lock().group));
        done(Ok(items.unwrap_or_default()));
    }

    fn snapshot(&self, group: GroupRef<'_>, item: Option<&str>, now_ms: u64, done: Done<Snapshot>) {
        let snapshot = self.with_group(group, |key, state| {
            let timestamp = state.group.sync_timestamp(now_ms);
            let group = &state.group;
            let items = match item {
                Some(id) => group
                    .get(id)
                    .map(|item| (id.into(), item.clone()))
                    .into_iter()
                    .collect(),
                None => all_items(group),
            };
            if group.is_forgettable() {
                self.idle.lock().insert(key.clone());
            }
            Snapshot {
                epoch: group.epoch().clone(),
                seq: group.seq(),
                timestamp,
                items,
            }
        });
        done(Ok(snapshot));
    }

    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>) {
        let index = self.index.lock();
        let groups = index
            .get(stream)
            .map(|groups| groups.iter().cloned().collect());
        drop(index);
        done(Ok(groups.unwrap_or_default()));
    }

    fn list_all(&self, done: Done<Vec<StreamGroups>>) {
        let index = self.index.lock();
        let streams = index
            .iter()
            .map(|(stream, groups)| (stream.clone(), groups.iter().cloned().collect()))
            .collect();
        drop(index);
        done(Ok(streams));
    }
}

fn all_items(group: &Group) -> Vec<(Arc<str>, Item)> {
    group
        .iter()
        .map(|(id, item)| (id.clone(), item.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use iii_stream_core::command::{read_delete, read_set};
    use iii_stream_core::{Change, Json};

    use super::*;

    /// Keeps what it is told.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Arc<Change>>>);

    impl ChangeSink for Kept {
        fn publish(&self, _: &GroupKey, change: Arc<Change>, _: Option<&Json>) {
            self.0.lock().push(change);
        }
    }

    fn store() -> (MemoryStore, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        let limits = GroupLimits {
            items_max: 10,
            bytes_max: 1_000,
            client_records_max: 10,
        };
        (MemoryStore::new("e", kept.clone(), limits), kept)
    }

    fn run(store: &MemoryStore, verb: &str, group: &str, now_ms: u64) {
        let input = format!(r#"{{"stream_name":"s","group_id":"{group}","item_id":"i","data":1}}"#);
        let read = if verb == "set" {
            read_set(&input)
        } else {
            read_delete(&input)
        };
        let write = read.expect("a command");
        store.commit(
            write.target.as_ref(),
            write.command,
            now_ms,
            Box::new(|outcome| assert!(outcome.is_ok())),
        );
    }

    fn snapshot(store: &MemoryStore, group: &str, now_ms: u64) -> Snapshot {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |snapshot| assert!(sender.send(snapshot).is_ok()));
        store.snapshot(GroupRef { stream: "s", group }, None, now_ms, done);
        receiver.recv().expect("an answer").expect("a snapshot")
    }

    #[test]
    fn a_forgotten_group_comes_again_with_another_history_and_later_timestamps() {
        let (store, kept) = store();
        run(&store, "set", "g", 1_000);
        run(&store, "delete", "g", 1_000);
        let before = snapshot(&store, "g", 1_000);
        store.forget_idle(&|_| true);
        assert_eq!(store.groups_len(), 1, "somebody watches it");
        store.forget_idle(&|_| false);
        assert_eq!(store.groups_len(), 0);
        run(&store, "set", "g", 500);
        let after = snapshot(&store, "g", 500);
        assert_eq!((before.seq, after.seq), (2, 1));
        assert_ne!(before.epoch, after.epoch);
        let last = kept.0.lock().last().map(|change| change.timestamp);
        assert!(
            last.is_some_and(|timestamp| before.timestamp < timestamp),
            "{last:?} after {}",
            before.timestamp
        );
    }

    #[test]
    fn a_group_with_items_is_not_forgotten() {
        let (store, _) = store();
        run(&store, "set", "g", 1_000);
        store.forget_idle(&|_| false);
        assert_eq!(snapshot(&store, "g", 1_000).items.len(), 1);
    }

    #[test]
    fn only_groups_with_items_are_listed() {
        let (store, _) = store();
        run(&store, "set", "b", 1_000);
        run(&store, "set", "a", 1_000);
        run(&store, "set", "gone", 1_000);
        run(&store, "delete", "gone", 1_000);
        let (sender, receiver) = mpsc::channel();
        store.list_groups(
            "s",
            Box::new(move |groups| assert!(sender.send(groups).is_ok())),
        );
        let groups = receiver.recv().expect("an answer").expect("groups");
        assert_eq!(
            groups.iter().map(|group| &**group).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
