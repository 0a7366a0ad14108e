//! The store that keeps groups in memory and loses them when the process ends.
//!
//! A group is held by its own lock while a command runs on it, so groups do not wait for each other. Lock order:
//! group, then listing, deadlines or idle list; never two groups.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{
    Change, Command, Committed, Draft, Floor, Group, GroupKey, GroupLimits, GroupRef, Item,
    Position,
};
use parking_lot::{Mutex, RwLock};

use super::deadlines::Deadlines;
use super::listing::Listing;
use super::{
    ChangeSink, Done, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage, Store, StreamGroups,
};
use crate::clock;

/// The table of groups is parted so that looking up does not wait. A power of two.
const SHARDS: usize = 64;

/// Items deleted in one hold of a group's lock when their time has come; the rest follows at once.
const EXPIRE_BATCH_MAX: usize = 256;

/// Share of what all histories may take, in percent, beyond which those of quiet groups are halved.
const HISTORY_FILL_MAX: usize = 90;

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
    listing: Listing,
    deadlines: Deadlines,
    /// What the histories of all groups take, in bytes.
    history_bytes: AtomicUsize,
    history_bytes_max: usize,
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
    /// This group's share of what all histories take, in bytes.
    history_bytes: usize,
    /// When it was last written, in Unix milliseconds.
    written_ms: u64,
}

impl MemoryStore {
    /// An empty store whose changes go to `sink`. `epoch` must be new for every process, `[a-z0-9]+`. The histories of all
    /// groups together take at most `history_bytes_max`.
    pub fn new(
        epoch: &str,
        sink: Arc<dyn ChangeSink>,
        group_limits: GroupLimits,
        history_bytes_max: usize,
    ) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            sink,
            epoch: epoch.into(),
            group_limits,
            forgotten: AtomicU64::new(0),
            forgotten_ms: AtomicU64::new(0),
            listing: Listing::default(),
            deadlines: Deadlines::default(),
            history_bytes: AtomicUsize::new(0),
            history_bytes_max,
            idle: Mutex::default(),
        }
    }

    /// Deletes items whose time has come, for as long as the process lives.
    pub async fn run_expiry(&self) {
        loop {
            self.deadlines.due().await;
            let now_ms = clock::unix_ms();
            if let Some(group) = self.deadlines.take_due(now_ms) {
                self.expire(group.as_ref(), now_ms);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Forgets groups that hold nothing and that nobody watches, and old changes of quiet groups when there are many, for
    /// as long as the process lives.
    pub async fn run_forgetting(&self, is_watched: impl Fn(GroupRef<'_>) -> bool + Send + Sync) {
        loop {
            tokio::time::sleep(super::FORGET_INTERVAL).await;
            self.forget_idle(&is_watched);
            self.sweep_histories();
        }
    }

    /// What the histories of all groups take, in bytes.
    pub fn history_bytes(&self) -> usize {
        self.history_bytes.load(Ordering::Relaxed)
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
            state.group.trim_history(0);
            self.count_history(&mut state);
            let latest_ms = state.group.floor().latest_ms();
            drop(state);
            self.forgotten_ms.fetch_max(latest_ms, Ordering::AcqRel);
            self.forgotten.fetch_add(1, Ordering::AcqRel);
            self.shard(key.as_ref()).write().remove(&key);
        }
    }

    fn expire(&self, group: GroupRef<'_>, now_ms: u64) {
        let Some(entry) = self.find(group) else {
            return;
        };
        let mut state = entry.state.lock();
        state.deadline_ms = None;
        let deletes = state.group.expire(now_ms, EXPIRE_BATCH_MAX);
        for change in deletes.into_iter().filter_map(|deleted| deleted.change) {
            let old = change.value.clone();
            self.sink.publish(&entry.key, change, old.as_ref());
        }
        self.after_write(&entry.key, &mut state, false, now_ms);
    }

    /// Halves the histories of groups that were not written for longest, until there is room for new changes again.
    fn sweep_histories(&self) {
        let is_filled = || self.history_bytes_max / 100 * HISTORY_FILL_MAX < self.history_bytes();
        if !is_filled() {
            return;
        }
        let mut groups = Vec::new();
        for shard in &self.shards {
            let entries: Vec<_> = shard.read().values().cloned().collect();
            for entry in entries {
                let state = entry.state.lock();
                if 0 < state.history_bytes {
                    let written_ms = state.written_ms;
                    drop(state);
                    groups.push((written_ms, entry));
                }
            }
        }
        groups.sort_unstable_by_key(|(written_ms, _)| *written_ms);
        for (_, entry) in groups {
            if !is_filled() {
                break;
            }
            let mut state = entry.state.lock();
            let half = state.history_bytes / 2;
            state.group.trim_history(half);
            self.count_history(&mut state);
        }
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
                history_bytes: 0,
                written_ms: 0,
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

    /// Reads a group, also one that holds nothing: whoever is told of its history may count on it from then on.
    fn read_group<T>(&self, group: GroupRef<'_>, read: impl FnOnce(&mut Group) -> T) -> T {
        self.with_group(group, |key, state| {
            if state.group.is_forgettable() {
                self.idle.lock().insert(key.clone());
            }
            read(&mut state.group)
        })
    }

    /// Brings a group's share of what all histories take up to date, and gives their sum.
    fn count_history(&self, state: &mut State) -> usize {
        let (old, new) = (state.history_bytes, state.group.history_bytes());
        state.history_bytes = new;
        if old == new {
            self.history_bytes()
        } else if old < new {
            let added = new - old;
            self.history_bytes.fetch_add(added, Ordering::Relaxed) + added
        } else {
            let freed = old - new;
            self.history_bytes.fetch_sub(freed, Ordering::Relaxed) - freed
        }
    }

    /// Keeps index, deadlines, idle list and histories true after a write.
    fn after_write(&self, key: &GroupKey, state: &mut State, was_empty: bool, now_ms: u64) {
        state.written_ms = now_ms;
        let history_bytes = self.count_history(state);
        if self.history_bytes_max < history_bytes {
            // What is too much in all gives way here: the oldest changes of the group that wrote.
            let excess = history_bytes - self.history_bytes_max;
            let left = state.history_bytes.saturating_sub(excess);
            state.group.trim_history(left);
            self.count_history(state);
        }
        let is_empty = state.group.is_empty();
        if is_empty != was_empty {
            self.listing.note(key, !is_empty);
        }
        if state.group.is_forgettable() {
            self.idle.lock().insert(key.clone());
        }
        let deadline_ms = state.group.next_expiry_ms();
        self.deadlines.replace(key, state.deadline_ms, deadline_ms);
        state.deadline_ms = deadline_ms;
    }
}

impl Store for MemoryStore {
    fn commit(&self, group: GroupRef<'_>, command: Command, now_ms: u64, done: Done<Committed>) {
        let committed = self.with_group(group, |key, state| {
            let was_empty = state.group.is_empty();
            let demand = self.sink.demand(key);
            let committed = state.group.commit(command, now_ms, demand);
            if let Some(change) = &committed.change {
                self.sink
                    .publish(key, change.clone(), committed.reply.outcome.old());
            }
            self.after_write(key, state, was_empty, now_ms);
            committed
        });
        done(Ok(committed));
    }

    fn announce(&self, group: GroupRef<'_>, draft: Draft, now_ms: u64, done: Done<Arc<Change>>) {
        let change = self.with_group(group, |key, state| {
            let was_empty = state.group.is_empty();
            let (change, _) = state.group.announce(draft, now_ms);
            self.sink.publish(key, change.clone(), None);
            self.after_write(key, state, was_empty, now_ms);
            change
        });
        done(Ok(change));
    }

    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>) {
        let item = self
            .find(group)
            .and_then(|entry| entry.state.lock().group.get(item));
        done(Ok(item));
    }

    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>) {
        let items = self
            .find(group)
            .map(|entry| entry.state.lock().group.iter().collect());
        done(Ok(items.unwrap_or_default()));
    }

    fn snapshot(&self, group: GroupRef<'_>, item: Option<&str>, now_ms: u64, done: Done<Snapshot>) {
        done(Ok(self.read_group(group, |group| {
            let timestamp = group.sync_timestamp(now_ms);
            let items = match item {
                Some(id) => {
                    let item = group.get(id).map(|item| (id.into(), item));
                    item.into_iter().collect()
                }
                None => group.iter().collect(),
            };
            Snapshot {
                epoch: group.epoch().clone(),
                seq: group.seq(),
                timestamp,
                items,
            }
        })));
    }

    fn page(&self, group: GroupRef<'_>, wish: PageWish, now_ms: u64, done: Done<SnapshotPage>) {
        done(Ok(self.read_group(group, |group| wish.read(group, now_ms))));
    }

    fn resume(
        &self,
        group: GroupRef<'_>,
        wish: ResumeWish,
        now_ms: u64,
        done: Done<Option<Resumed>>,
    ) {
        done(Ok(self.read_group(group, |group| wish.read(group, now_ms))));
    }

    fn position(&self, group: GroupRef<'_>, done: Done<Position>) {
        done(Ok(self.read_group(group, |group| Position {
            epoch: group.epoch().clone(),
            seq: group.seq(),
        })));
    }

    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>) {
        done(Ok(self.listing.groups_of(stream)));
    }

    fn list_all(&self, done: Done<Vec<StreamGroups>>) {
        done(Ok(self.listing.all()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use iii_stream_core::command::{read_delete, read_set};
    use iii_stream_core::{Change, Demand, Json};

    use super::*;

    const HISTORY_BYTES_MAX: usize = 2_000;

    /// Keeps what it is told.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Arc<Change>>>);

    impl ChangeSink for Kept {
        fn demand(&self, _: &GroupKey) -> Demand {
            Demand::Values
        }

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
            hot_items_max: 1,
            history_changes_max: 4,
            history_bytes_max: 10_000,
        };
        (
            MemoryStore::new("e", kept.clone(), limits, HISTORY_BYTES_MAX),
            kept,
        )
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

    fn answer<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> T {
        let (sender, receiver) = mpsc::channel();
        ask(Box::new(move |answer| assert!(sender.send(answer).is_ok())));
        receiver.recv().expect("an answer").expect("success")
    }

    fn resume(store: &MemoryStore, epoch: &str, seq: u64) -> Option<Vec<u64>> {
        let group = GroupRef {
            stream: "s",
            group: "g",
        };
        let since = Position {
            epoch: epoch.into(),
            seq,
        };
        let wish = ResumeWish {
            item: None,
            since,
            needs_values: true,
            clients: None,
        };
        let resumed = answer(|done| store.resume(group, wish, 1_000, done));
        resumed.map(|resumed| {
            assert_eq!((&*resumed.epoch, resumed.seq), ("e", 6));
            resumed.changes.iter().map(|change| change.seq).collect()
        })
    }

    #[test]
    fn a_subscriber_comes_back_to_where_the_history_reaches() {
        let (store, _) = store();
        for _ in 0..6 {
            run(&store, "set", "g", 1_000);
        }
        assert_eq!(resume(&store, "e", 6), Some(vec![]));
        assert_eq!(resume(&store, "e", 2), Some(vec![3, 4, 5, 6]));
        assert_eq!(resume(&store, "e", 1), None, "four changes are kept");
        assert_eq!(resume(&store, "e", 7), None, "never was");
        assert_eq!(resume(&store, "other", 5), None);
        let group = GroupRef {
            stream: "s",
            group: "g",
        };
        let position = answer(|done| store.position(group, done));
        assert_eq!(position.to_string(), "e:6");
    }

    #[test]
    fn a_group_is_read_in_pages() {
        let (store, _) = store();
        run(&store, "set", "g", 1_000);
        let group = GroupRef {
            stream: "s",
            group: "g",
        };
        let read = |after| {
            let wish = PageWish {
                after,
                ..PageWish::default()
            };
            answer(|done| store.page(group, wish, 1_000, done))
        };
        let page = read(0);
        assert_eq!((page.seq, page.items.len(), page.next_after), (1, 1, None));
        let after = page.items[0].1.created_seq;
        let page = read(after);
        assert!(page.items.is_empty() && page.next_after.is_none());
    }

    fn counted(store: &MemoryStore, groups: &[&str]) -> Vec<usize> {
        let bytes = groups.iter().map(|group| {
            let group = GroupRef { stream: "s", group };
            store.with_group(group, |_, state| state.group.history_bytes())
        });
        let bytes: Vec<_> = bytes.collect();
        assert_eq!(store.history_bytes(), bytes.iter().sum::<usize>());
        bytes
    }

    #[test]
    fn all_histories_together_are_bounded() {
        let (store, _) = store();
        let groups = ["a", "b", "c", "d", "e"];
        for (index, group) in groups.iter().enumerate() {
            for _ in 0..4 {
                run(&store, "set", group, 1_000 + index as u64);
            }
        }
        let before = counted(&store, &groups);
        assert!(store.history_bytes() <= HISTORY_BYTES_MAX);
        assert!(before[3] < before[0], "the writer gives way: {before:?}");
        store.sweep_histories();
        let after = counted(&store, &groups);
        assert_eq!(after[0], before[0] / 2, "the quietest group is halved");
        assert_eq!(after[2..], before[2..]);
        assert!(store.history_bytes() <= HISTORY_BYTES_MAX / 100 * HISTORY_FILL_MAX);
    }

    #[test]
    fn a_forgotten_group_leaves_no_history() {
        let (store, _) = store();
        run(&store, "set", "g", 1_000);
        run(&store, "delete", "g", 1_000);
        assert!(0 < store.history_bytes());
        store.forget_idle(&|_| false);
        assert_eq!(store.history_bytes(), 0);
    }
}
