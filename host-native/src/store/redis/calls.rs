//! The calls of the store: each becomes work in the line of its group, where it keeps its place, and which one task at a time does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use iii_stream_core::{Change, Command, Committed, Draft, GroupRef, Item, Position};

use super::keys::GroupKeys;
use super::lines::{Line, Turn};
use super::watching::{Begun, Follows, Placed};
use super::work::{Pending, Task};
use super::{RedisStore, Shared, time_limit};
use crate::store::{
    Done, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage, Store, StoreError,
    StoreErrorCause, StreamGroups,
};

/// A read waits at least so long, also where `wait_max` is shorter, and a little longer than the call to Redis in it, which can say
/// better what is wrong.
const READ_TIME_MIN: Duration = Duration::from_secs(1);
const READ_SLACK: Duration = Duration::from_millis(250);

impl Store for RedisStore {
    fn commit(&self, group: GroupRef<'_>, command: Command, _now_ms: u64, done: Done<Committed>) {
        let task = Task::Commit { command, done };
        self.shared.submit(group, Pending::new(task));
    }

    fn announce(&self, group: GroupRef<'_>, draft: Draft, _now_ms: u64, done: Done<Arc<Change>>) {
        let task = Task::Announce { draft, done };
        self.shared.submit(group, Pending::new(task));
    }

    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>) {
        let item = item.to_owned();
        self.read(group, done, move |shared, keys| async move {
            shared.get(&keys, &item).await
        });
    }

    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>) {
        self.read(group, done, |shared, keys| async move {
            shared.list(&keys).await
        });
    }

    fn snapshot(
        &self,
        group: GroupRef<'_>,
        item: Option<&str>,
        _now_ms: u64,
        done: Done<Snapshot>,
    ) {
        let item = item.map(str::to_owned);
        self.read_watched(group, Follows::Nothing, done, move |shared, keys| {
            let item = item.clone();
            async move { shared.snapshot(&keys, item.as_deref()).await }
        });
    }

    fn page(&self, group: GroupRef<'_>, wish: PageWish, _now_ms: u64, done: Done<SnapshotPage>) {
        let follows = match wish.after {
            0 => Follows::Nothing,
            _ => Follows::Changes,
        };
        self.read_watched(group, follows, done, move |shared, keys| {
            let wish = wish.clone();
            async move { shared.page(&keys, &wish).await }
        });
    }

    fn resume(
        &self,
        group: GroupRef<'_>,
        wish: ResumeWish,
        _now_ms: u64,
        done: Done<Option<Resumed>>,
    ) {
        self.read_watched(group, Follows::Nothing, done, move |shared, keys| {
            let wish = wish.clone();
            async move { shared.resume(&keys, &wish).await }
        });
    }

    fn position(&self, group: GroupRef<'_>, done: Done<Position>) {
        self.read_watched(group, Follows::Nothing, done, |shared, keys| async move {
            shared.position(&keys).await
        });
    }

    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>) {
        let (shared, stream) = (self.shared.clone(), stream.to_owned());
        let list = async move { done(shared.list_groups(&stream).await) };
        let deadline = self.shared.deadline();
        let list = time_limit::within(deadline, list);
        self.shared.runtime.spawn(list);
    }

    fn list_all(&self, done: Done<Vec<StreamGroups>>) {
        let shared = self.shared.clone();
        let list = async move { done(shared.list_all().await) };
        let deadline = self.shared.deadline();
        let list = time_limit::within(deadline, list);
        self.shared.runtime.spawn(list);
    }
}

impl RedisStore {
    /// Reads a group after what waits in it.
    fn read<T, F>(
        &self,
        group: GroupRef<'_>,
        done: Done<T>,
        read: impl FnOnce(Arc<Shared>, GroupKeys) -> F + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.shared.queue_read(group, done, read);
    }

    /// The same for somebody who goes on with the changes that follow: what watches the group must hear them.
    fn read_watched<T, F>(
        &self,
        group: GroupRef<'_>,
        follows: Follows,
        done: Done<T>,
        read: impl Fn(Arc<Shared>, GroupKeys) -> F + Clone + Send + Sync + 'static,
    ) where
        T: Placed + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let Some(watching) = self.shared.watching.get() else {
            return self.read(group, done, read);
        };
        // It takes its place among the commands now; what it waits for then holds up nobody.
        let begun = watching.begin(group);
        let first = self.shared.read_in_turn(group, begun.noting(read.clone()));
        let (shared, key) = (self.shared.clone(), group.to_key());
        let deadline = self.shared.deadline();
        self.shared
            .runtime
            .spawn(time_limit::within(deadline, async move {
                let group = key.as_ref();
                let again = |begun: &Begun| shared.read_in_turn(group, begun.noting(read.clone()));
                let found = match shared.watching.get() {
                    Some(watching) => watching.finish(group, begun, first, follows, again).await,
                    None => first.await,
                };
                done(found);
            }));
    }
}

impl Shared {
    fn queue_read<T, F>(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        done: Done<T>,
        read: impl FnOnce(Arc<Self>, GroupKeys) -> F + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        if let Err(error) = self.lines.check_read(group) {
            return done(Err(error));
        }
        let (shared, keys) = (self.clone(), self.keys.group(group));
        let (asked, deadline) = (Instant::now(), self.deadline());
        let reading: BoxFuture<'static, ()> = Box::pin(async move {
            if deadline < Instant::now() && shared.options.wait_max != Duration::ZERO {
                return done(Err(shared.overdue()));
            }
            let read = time_limit::within(deadline, read(shared, keys));
            let time_max = deadline.max(asked + READ_TIME_MIN) + READ_SLACK;
            let read = tokio::time::timeout_at(time_max.into(), read);
            done(read.await.unwrap_or_else(|_| {
                let what = "Redis did not answer in time what was asked before in this group";
                Err(StoreError::new(StoreErrorCause::Unavailable, what))
            }));
        });
        if let Some(line) = self.lines.push_read(&self.keys, group, reading) {
            self.runtime.spawn(self.clone().work(line));
        }
    }

    /// Reads a group after what waits in it. It takes its place there at once, not when it is polled.
    fn read_in_turn<T, F>(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        read: impl FnOnce(Arc<Self>, GroupKeys) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (send, receive) = tokio::sync::oneshot::channel();
        let done = Box::new(move |found| {
            // Nobody waits any more: that is fine.
            let _ = send.send(found);
        });
        self.queue_read(group, done, read);
        let dropped = |_| StoreError::other("the read was dropped");
        Box::pin(async move { receive.await.map_err(dropped)? })
    }

    /// Queues a command in its group.
    pub(super) fn submit(self: &Arc<Self>, group: GroupRef<'_>, pending: Pending) {
        match self.lines.push_write(&self.keys, group, pending) {
            Ok(None) => {}
            Ok(Some(line)) => drop(self.runtime.spawn(self.clone().work(line))),
            Err(refused) => {
                let (pending, error) = *refused;
                pending.fail(&error);
            }
        }
    }

    /// Works for a group until nothing waits there.
    async fn work(self: Arc<Self>, line: Arc<Line>) {
        let mut known = self.lines.take_known(&line);
        while let Some(turn) = self.lines.next_turn(&line, &mut known) {
            match turn {
                Turn::Reads(reads) => drop(futures_util::future::join_all(reads).await),
                Turn::Writes(writes) => self.commit_all(&line, &mut known, writes).await,
            }
        }
    }

    /// Resolves once what waits in a group now is done.
    pub(super) async fn settled(&self, group: GroupRef<'_>) {
        let (send, receive) = tokio::sync::oneshot::channel();
        let told: BoxFuture<'static, ()> = Box::pin(async move {
            // Nobody waits any more: that is fine.
            let _ = send.send(());
        });
        if self.lines.push_behind(group, told).is_none() {
            // An error says that it was dropped, with the runtime.
            let _ = receive.await;
        }
    }
}
