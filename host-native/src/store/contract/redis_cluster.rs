//! The contract on a cluster of three masters, as two instances keep it: one commits, followers of the other hear it over Redis,
//! both read by turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use iii_stream_core::{
    Change, Command, Committed, Draft, GroupKey, GroupLimits, GroupRef, Item, Position,
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::contract;
use super::subject::{Subject, Told};
use crate::metrics::Metrics;
use crate::redis_client::test_cluster::TestCluster;
use crate::redis_client::test_server::is_installed;
use crate::store::redis::{RedisStore, RedisStoreOptions, Sinks, Triggered};
use crate::store::{
    Done, PageWish, RelaySink, ResumeWish, Resumed, Snapshot, SnapshotPage, Store, StreamGroups,
};

/// One cluster for all tests that run at the same time: starting one takes seconds.
static CLUSTER: Mutex<Weak<TestCluster>> = Mutex::new(Weak::new());

/// Each test has keys of its own.
static TESTS: AtomicUsize = AtomicUsize::new(0);

struct NoTriggers;

impl Triggered for NoTriggers {
    fn is_triggered(&self, _: &str) -> bool {
        false
    }
}

impl RelaySink for Told {
    fn missed(&self, group: &GroupKey, _: bool) {
        panic!("changes of {group:?} are missed");
    }

    fn restarted(&self, group: &GroupKey, _: &Position) {
        panic!("{group:?} begins anew");
    }
}

/// Two instances that are read by turns. The second commits, for calls of one caller keep their order within an instance; groups
/// are followed at the first.
struct Turns {
    stores: [Arc<RedisStore>; 2],
    calls: AtomicUsize,
}

impl Turns {
    fn next(&self) -> &RedisStore {
        &self.stores[self.calls.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

impl Store for Turns {
    fn commit(&self, group: GroupRef<'_>, command: Command, now_ms: u64, done: Done<Committed>) {
        self.stores[1].commit(group, command, now_ms, done);
    }

    fn announce(&self, group: GroupRef<'_>, draft: Draft, now_ms: u64, done: Done<Arc<Change>>) {
        self.next().announce(group, draft, now_ms, done);
    }

    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>) {
        self.next().get(group, item, done);
    }

    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>) {
        self.next().list(group, done);
    }

    fn snapshot(&self, group: GroupRef<'_>, item: Option<&str>, now_ms: u64, done: Done<Snapshot>) {
        self.next().snapshot(group, item, now_ms, done);
    }

    fn page(&self, group: GroupRef<'_>, wish: PageWish, now_ms: u64, done: Done<SnapshotPage>) {
        self.next().page(group, wish, now_ms, done);
    }

    fn resume(
        &self,
        group: GroupRef<'_>,
        wish: ResumeWish,
        now_ms: u64,
        done: Done<Option<Resumed>>,
    ) {
        self.next().resume(group, wish, now_ms, done);
    }

    fn position(&self, group: GroupRef<'_>, done: Done<Position>) {
        self.stores[0].position(group, done);
    }

    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>) {
        self.next().list_groups(stream, done);
    }

    fn list_all(&self, done: Done<Vec<StreamGroups>>) {
        self.next().list_all(done);
    }
}

fn cluster() -> Arc<TestCluster> {
    let mut shared = CLUSTER.lock();
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(TestCluster::start(0));
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

fn open(limits: GroupLimits) -> Subject {
    let told = Arc::<Told>::default();
    let cluster = cluster();
    let runtime = Runtime::new().expect("a runtime");
    let prefix = format!("t{}:", TESTS.fetch_add(1, Ordering::Relaxed));
    let inside = runtime.enter();
    let stores = [(), ()].map(|()| {
        let client = runtime.block_on(cluster.client());
        let options = RedisStoreOptions {
            prefix: prefix.clone(),
            limits,
            keeps_history: true,
            wait_max: Duration::from_secs(5),
            queue_commands_max: 10_000,
            queue_bytes_max: 64 << 20,
            queue_total_bytes_max: 256 << 20,
            cache_bytes_max: 64 << 20,
        };
        RedisStore::new(client, options, Sinks::Channel, Arc::new(NoTriggers))
    });
    let first = stores[0].clone();
    first.set_watching(told.clone(), Arc::new(Metrics::default()));
    let watching = first.clone();
    runtime.spawn(async move { watching.run_watching().await });
    drop(inside);
    Subject {
        store: Arc::new(Turns {
            stores,
            calls: AtomicUsize::new(0),
        }),
        told,
        follow: Box::new(move |group| first.watch(group)),
        runtime,
        _place: Box::new(cluster),
    }
}

contract!(open, if is_installed);
