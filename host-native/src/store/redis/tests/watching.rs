//! Reads of those who follow a group: at their place among commands, with what follows told, on a server with Redis.

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::{Change, Demand, GroupKey, Json, Position};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{GROUP, ask, commit, done, options, set, store, store_with, wide};
use crate::metrics::Metrics;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::redis::RedisStore;
use crate::store::{ChangeSink, RelaySink, Store, StoreErrorCause};

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
    store.set_watching(told.clone(), Arc::new(Metrics::default()));
    let running = store.clone();
    tokio::spawn(async move { running.run_watching().await });
    told
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
