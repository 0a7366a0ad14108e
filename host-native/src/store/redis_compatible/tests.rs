//! The store on a real Redis, beside the store in memory, another instance, and a client that writes as an engine does.

mod beside_engine;
mod beside_memory;

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::command::{Write, read_delete, read_send, read_set, read_update};
use iii_stream_core::event::trigger_input;
use iii_stream_core::{Demand, Json, Kind};
use redis::{Client, Commands, Connection};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::{MemoryStore, StoreErrorCause};

const PATIENCE: Duration = Duration::from_secs(20);

const LIMITS: GroupLimits = GroupLimits {
    items_max: 1_000,
    bytes_max: 1 << 30,
    client_records_max: 10,
    hot_items_max: 4,
    history_changes_max: 10,
    history_bytes_max: 10_000,
};

/// Hands on what it is told.
struct Told(mpsc::UnboundedSender<Heard>);

#[derive(Debug)]
enum Heard {
    Change(GroupKey, Arc<Change>, Option<Json>),
    Missed(GroupKey),
}

fn told() -> (Arc<Told>, mpsc::UnboundedReceiver<Heard>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(Told(sender)), receiver)
}

impl ChangeSink for Told {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, old: Option<&Json>) {
        // The test may be over.
        let _ = self
            .0
            .send(Heard::Change(group.clone(), change, old.cloned()));
    }
}

impl RelaySink for Told {
    fn missed(&self, group: &GroupKey, _: bool) {
        let _ = self.0.send(Heard::Missed(group.clone()));
    }

    fn restarted(&self, _: &GroupKey, _: &Position) {}
}

/// One instance, with what its subscribers and its triggers are told.
struct Instance {
    store: Arc<CompatibleStore>,
    subscribers: mpsc::UnboundedReceiver<Heard>,
    triggers: mpsc::UnboundedReceiver<Heard>,
}

async fn instance(server: &TestServer, kept: Kept, epoch: &str) -> Instance {
    let (sink, subscribers) = told();
    let (trigger_sink, triggers) = told();
    let options = CompatibleOptions {
        kept,
        limits: LIMITS,
        epoch: epoch.into(),
        wait_max: Duration::from_secs(5),
        queue_commands_max: 10_000,
        queue_bytes_max: 64 << 20,
        queue_total_bytes_max: 256 << 20,
    };
    let relay: Option<Arc<dyn RelaySink>> = match kept {
        Kept::Streams => Some(sink),
        Kept::State => None,
    };
    let store = CompatibleStore::new(
        server.client().await,
        options,
        relay,
        trigger_sink,
        Arc::new(Metrics::default()),
        tokio::runtime::Handle::current(),
    );
    Instance {
        store: Arc::new(store),
        subscribers,
        triggers,
    }
}

fn engine(server: &TestServer) -> Connection {
    let client = Client::open(server.url()).expect("an address");
    client.get_connection().expect("a connection")
}

async fn next(heard: &mut mpsc::UnboundedReceiver<Heard>) -> Heard {
    let next = tokio::time::timeout(PATIENCE, heard.recv()).await;
    next.expect("something in time").expect("a store")
}

async fn next_change(heard: &mut mpsc::UnboundedReceiver<Heard>) -> Arc<Change> {
    match next(heard).await {
        Heard::Change(group, change, _) => {
            assert_eq!(group, GROUP.to_key());
            change
        }
        other => panic!("{other:?} instead of a change"),
    }
}

async fn answer<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (sender, receiver) = oneshot::channel();
    ask(Box::new(move |answer| {
        let _ = sender.send(answer);
    }));
    let answered = tokio::time::timeout(PATIENCE, receiver).await;
    answered.expect("an answer in time").expect("an answer")
}

async fn run(store: &dyn Store, write: Write<'_>) -> Result<Committed, StoreError> {
    answer(|done| store.commit(write.target.as_ref(), write.command, 1, done)).await
}

fn input(item: &str, more: &str) -> String {
    let item = Json::from_str_value(item);
    format!(
        r#"{{"stream_name":"s","group_id":"g","item_id":{}{more}}}"#,
        item.as_str()
    )
}

async fn set(store: &dyn Store, item: &str, value: &str) -> Result<Committed, StoreError> {
    let input = input(item, &format!(r#","data":{value}"#));
    run(store, read_set(&input).expect("a set")).await
}

async fn update(store: &dyn Store, item: &str, ops: &str) -> Result<Committed, StoreError> {
    let input = input(item, &format!(r#","ops":{ops}"#));
    run(store, read_update(&input).expect("an update")).await
}

fn reply(committed: Result<Committed, StoreError>) -> String {
    match committed.expect("no failure").reply.to_json() {
        Ok(text) => text,
        Err(refusal) => format!("{}: {refusal}", refusal.code()),
    }
}

const GROUP: GroupRef<'_> = GroupRef {
    stream: "s",
    group: "g",
};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_writers_of_two_instances_lose_no_update() {
    if !is_installed() {
        return;
    }
    const WRITERS: usize = 50;
    const UPDATES: usize = 20;
    let server = TestServer::start_with(&[]);
    let one = instance(&server, Kept::Streams, "e1").await;
    let mut other = instance(&server, Kept::Streams, "e2").await;
    other.store.watch(&GROUP.to_key());
    answer(|done| other.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    let writers = (0..WRITERS).map(|writer| {
        let store = [&one.store, &other.store][writer % 2].clone();
        tokio::spawn(async move {
            for _ in 0..UPDATES {
                let ops = r#"[{"type":"increment","path":"n","by":1}]"#;
                update(&*store, "counter", ops).await.expect("an update");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let mut last = None;
    for expected in 1..=WRITERS * UPDATES {
        let change = next_change(&mut other.subscribers).await;
        let value = change.value.as_ref().map(Json::as_str);
        assert_eq!(
            value,
            Some(&*format!(r#"{{"n":{expected}}}"#)),
            "in the order of the writes"
        );
        assert!(
            last < Some(change.timestamp),
            "{last:?} before {}",
            change.timestamp
        );
        last = Some(change.timestamp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_subscription_is_made_good() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.watch(&GROUP.to_key());
    answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    let mut engine = engine(&server);
    let killed: usize = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("pubsub")
        .query(&mut engine)
        .expect("an answer");
    assert_eq!(killed, 1);
    match next(&mut ours.subscribers).await {
        Heard::Missed(group) => assert_eq!(group, GROUP.to_key()),
        other => panic!("{other:?}"),
    }
    set(&*ours.store, "a", "1").await.expect("a set");
    let snapshot = answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    assert_eq!((snapshot.seq, snapshot.items.len()), (1, 1));
    assert_eq!(next_change(&mut ours.subscribers).await.kind, Kind::Create);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_callers_are_told_in_time() {
    if !is_installed() {
        return;
    }
    let mut server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    set(&*ours.store, "a", "1").await.expect("a set");
    server.kill();
    let begun = std::time::Instant::now();
    let error = set(&*ours.store, "a", "2").await.expect_err("an error");
    assert_eq!(error.cause, StoreErrorCause::Unavailable);
    let error = answer(|done| ours.store.get(GROUP, "a", done))
        .await
        .expect_err("an error");
    assert_eq!(error.cause, StoreErrorCause::Unavailable);
    let error = answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect_err("an error");
    assert_eq!(error.cause, StoreErrorCause::Unavailable);
    assert!(
        begun.elapsed() < Duration::from_secs(18),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_worker_has_the_sequence_that_subscribers_see() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.watch(&GROUP.to_key());
    set(&*ours.store, "a", "1").await.expect("a set");
    let draft = Draft {
        item: Some("b".into()),
        kind: Kind::Create,
        value: Some(Json::from_text("{}").expect("JSON")),
        ops: None,
        base: None,
        ttl: iii_stream_core::Ttl::Keep,
        mutation: None,
    };
    let change = answer(|done| ours.store.announce(GROUP, draft, 1, done))
        .await
        .expect("a change");
    loop {
        let heard = next_change(&mut ours.subscribers).await;
        if heard.item.as_deref() == Some("b") {
            assert_eq!((heard.seq, heard.timestamp), (change.seq, change.timestamp));
            break;
        }
    }
    let position = answer(|done| ours.store.position(GROUP, done))
        .await
        .expect("a position");
    assert_eq!((&*position.epoch, position.seq), ("e1", change.seq));
    let is_there: bool = engine(&server)
        .hexists("stream:s:g", "b")
        .expect("an answer");
    assert!(!is_there, "its worker keeps it");
}
