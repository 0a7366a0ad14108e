//! Reads of those who follow a group: at their place among commands, with what follows told, on a server with Redis.

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::{Change, Demand, GroupKey, GroupRef, Json, Position};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{GROUP, ask, commit, done, options, set, store, store_with, wide};
use crate::metrics::Metrics;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::redis::RedisStore;
use crate::store::{ChangeSink, PageWish, RelaySink, Store, StoreErrorCause};

/// Writes down what it is told.
#[derive(Default)]
struct Told {
    seqs: Mutex<Vec<u64>>,
    changed: Notify,
}

impl ChangeSink for Told {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, _: &GroupKey, change: Arc<Change>, _: Option<&Json>) {
        self.seqs.lock().push(change.seq);
        self.changed.notify_one();
    }
}

impl RelaySink for Told {
    fn missed(&self, group: &GroupKey, _: bool) {
        panic!("nothing of {group:?} is missed");
    }

    fn restarted(&self, group: &GroupKey, at: &Position) {
        panic!("{group:?} goes on as it was, not at {at}");
    }
}

impl Told {
    async fn reach(&self, seq: u64) -> Vec<u64> {
        let reached = async {
            while self.seqs.lock().last() != Some(&seq) {
                self.changed.notified().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "told of {seq}: {:?}", self.seqs.lock());
        self.seqs.lock().clone()
    }
}

/// Watches as a server does.
fn watching(store: &Arc<RedisStore>) -> Arc<Told> {
    let told = Arc::new(Told::default());
    watching_for(store, told.clone());
    told
}

fn watching_for(store: &Arc<RedisStore>, sink: Arc<dyn RelaySink>) {
    store.set_watching(sink, Arc::new(Metrics::default()));
    let running = store.clone();
    tokio::spawn(async move { running.run_watching().await });
}

/// A change of this group holds up all messages that come after it.
const WALL: GroupRef<'static> = GroupRef {
    stream: "s",
    group: "wall",
};

/// Writes down what it is told, but stands still at [`WALL`] until it is let through.
struct Gate {
    told: Told,
    open: Mutex<std::sync::mpsc::Receiver<()>>,
    reached: Notify,
}

impl ChangeSink for Gate {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, before: Option<&Json>) {
        if group.as_ref() != WALL {
            return self.told.publish(group, change, before);
        }
        self.reached.notify_one();
        let waited = tokio::task::block_in_place(|| self.open.lock().recv());
        waited.expect("it is let through");
    }
}

impl RelaySink for Gate {
    fn missed(&self, group: &GroupKey, events: bool) {
        self.told.missed(group, events);
    }

    fn restarted(&self, group: &GroupKey, at: &Position) {
        self.told.restarted(group, at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_read_keeps_its_place_and_what_follows_it_is_told() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    for round in 0..30 {
        let prefix = format!("t{round}:");
        let of_round = || super::RedisStoreOptions {
            prefix: prefix.clone(),
            ..options(wide())
        };
        let store = store_with(&client, of_round());
        let told = watching(&store);
        let before = commit(&*store, GROUP, set("i", "1", ""));
        store.watch(&GROUP.to_key());
        // None of these waits for the one before.
        let (send, found) = tokio::sync::oneshot::channel();
        let tell = Box::new(move |found| drop(send.send(found)));
        store.snapshot(GROUP, None, 0, tell);
        let after: Vec<_> = (2..=5)
            .map(|value| commit(&*store, GROUP, set("i", &value.to_string(), "")))
            .collect();
        let snapshot = found.await.expect("an answer").expect("a snapshot");
        assert_eq!(
            (snapshot.seq, snapshot.items.len()),
            (1, 1),
            "round {round}"
        );
        assert_eq!(snapshot.items[0].1.value.as_str(), "1");
        done(before).await.expect("a change");
        for answer in after {
            done(answer).await.expect("a change");
        }
        let seqs = told.reach(5).await;
        assert!(seqs.ends_with(&[2, 3, 4, 5]), "round {round}: {seqs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_not_overtaken_by_a_command_that_comes_after_it() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    for _ in 0..50 {
        // Nothing is known yet, and nothing waits: neither of the two has a reason to be slower.
        let store = store(&client, wide());
        let (send, found) = tokio::sync::oneshot::channel();
        store.get(GROUP, "i", Box::new(move |found| drop(send.send(found))));
        let set = commit(&*store, GROUP, set("i", "1", ""));
        let found = found.await.expect("an answer").expect("Redis answers");
        assert_eq!(found.map(|item| item.value.as_str().to_owned()), None);
        done(set).await.expect("a change");
        let deleted = iii_stream_core::Command {
            action: iii_stream_core::command::Action::Delete,
            ..super::set("i", "1", "")
        };
        done(commit(&*store, GROUP, deleted))
            .await
            .expect("a change");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_a_line_end_in_time_when_redis_does_not_answer() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let store = store(&client, wide());
    server.pause();
    let begin = std::time::Instant::now();
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    for _ in 0..5 {
        let store = store.clone();
        let (send, found) = tokio::sync::oneshot::channel();
        store.get(GROUP, "i", Box::new(move |found| drop(send.send(found))));
        reads.push(found);
        writes.push(commit(&*store, GROUP, set("i", "1", "")));
    }
    for read in reads {
        let error = read.await.expect("an answer").expect_err("it stands still");
        let causes = [StoreErrorCause::Unavailable, StoreErrorCause::Unknown];
        assert!(causes.contains(&error.cause), "{error}");
    }
    for write in writes {
        done(write).await.expect_err("it stands still");
    }
    // Each of them waits 5 s at most, not one after the other.
    let took = begin.elapsed();
    server.resume();
    assert!(took < Duration::from_secs(12), "{took:?}");
    let found = ask(|done| store.get(GROUP, "i", done)).await;
    found.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_page_comes_once_the_followers_were_told_what_it_knows() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let [here, there] = [(), ()].map(|()| store(&client, wide()));
    let (open, closed) = std::sync::mpsc::channel();
    let gate = Arc::new(Gate {
        told: Told::default(),
        open: Mutex::new(closed),
        reached: Notify::new(),
    });
    watching_for(&here, gate.clone());
    for group in [GROUP, WALL] {
        done(commit(&*there, group, set("i", "1", "")))
            .await
            .expect("a change");
        here.watch(&group.to_key());
        let snapshot = ask(|done| here.snapshot(group, None, 0, done)).await;
        assert_eq!(snapshot.expect("a snapshot").seq, 1);
    }
    for group in [WALL, GROUP] {
        done(commit(&*there, group, set("i", "2", "")))
            .await
            .expect("a change");
    }
    gate.reached.notified().await;
    // How far a page is, and what was told by then.
    let page = |after| {
        let (send, found) = tokio::sync::oneshot::channel();
        let wish = PageWish {
            after,
            ..PageWish::default()
        };
        let gate = gate.clone();
        let tell = move |page: Result<crate::store::SnapshotPage, _>| {
            drop(send.send((page.expect("a page").seq, gate.told.seqs.lock().clone())));
        };
        here.page(GROUP, wish, 0, Box::new(tell));
        found
    };
    let later = page(1);
    assert_eq!(
        page(0).await.expect("an answer"),
        (2, vec![]),
        "a follower begins with the first one"
    );
    // Time in which the later one could come.
    for _ in 0..30 {
        let found = ask(|done| here.get(GROUP, "i", done)).await;
        found.expect("Redis answers");
    }
    open.send(()).expect("it stands still");
    assert_eq!(later.await.expect("an answer"), (2, vec![2]));
    client.close().await;
}
