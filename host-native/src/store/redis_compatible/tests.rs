//! The store on a real Redis, beside the store in memory, another instance, and a client that writes as an engine does.

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

/// Small numbers in an order that is always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn random_command(numbers: &mut Numbers) -> (String, &'static str) {
    let item = format!("i{}", numbers.below(6));
    let condition = [
        "",
        "",
        r#","if":{"absent":true}"#,
        r#","if":{"exists":true}"#,
    ];
    let condition = condition[numbers.below(4) as usize];
    let values = [
        "1",
        "null",
        r#"{"a":[1,{"b":"🦀"}]}"#,
        "[]",
        r#""x""#,
        "1.50",
    ];
    let value = values[numbers.below(6) as usize];
    let ops = [
        r#"[{"type":"increment","path":"n","by":1}]"#,
        r#"[{"type":"append","path":"list","value":{}},{"type":"set","path":"x","value":null}]"#,
        r#"[{"type":"remove","path":"a"}]"#,
        r#"[{"type":"merge","path":"","value":{"deep":{"er":[]}}}]"#,
        "[]",
    ];
    let ops = ops[numbers.below(5) as usize];
    match numbers.below(8) {
        0..=2 => (
            input(&item, &format!(r#","data":{value}{condition}"#)),
            "set",
        ),
        3 | 4 => (
            input(&item, &format!(r#","ops":{ops}{condition}"#)),
            "update",
        ),
        5 => (
            input(
                &item,
                &format!(r#","ops":{ops},"atomic":true,"returning":"new""#),
            ),
            "update",
        ),
        6 => (input(&item, condition), "delete"),
        _ => {
            let text = format!(
                r#"{{"stream_name":"s","group_id":"g","type":"t","id":"{item}","data":{value}}}"#
            );
            (text, "send")
        }
    }
}

fn read_command<'t>(text: &'t str, verb: &str) -> Write<'t> {
    let read = match verb {
        "set" => read_set(text),
        "update" => read_update(text),
        "delete" => read_delete(text),
        _ => read_send(text),
    };
    read.expect("a command")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_come_to_the_same_as_in_memory() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.came(&GROUP.to_key());
    // So that the subscription stands.
    answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    let (sink, mut changes) = told();
    let memory = MemoryStore::new("m", sink, LIMITS, 1_000_000);
    let mut numbers = Numbers(7);
    let commands: Vec<_> = (0..2_000).map(|_| random_command(&mut numbers)).collect();
    for chunk in commands.chunks(50) {
        // Those of a chunk wait together, so that batches of all kinds come about.
        let answers = chunk.iter().map(|(text, verb)| {
            let write = read_command(text, verb);
            let (sender, receiver) = oneshot::channel();
            let done = Box::new(move |answer| drop(sender.send(answer)));
            ours.store
                .commit(write.target.as_ref(), write.command, 1, done);
            receiver
        });
        let answers: Vec<_> = answers.collect();
        for ((text, verb), answer) in chunk.iter().zip(answers) {
            let expected = run(&memory, read_command(text, verb)).await;
            let expected_change = expected.as_ref().ok().and_then(|done| done.change.clone());
            let expected = reply(expected);
            let got = tokio::time::timeout(PATIENCE, answer)
                .await
                .expect("in time")
                .expect("an answer");
            let got = reply(got);
            let (got, expected) = (without_seq(&got), without_seq(&expected));
            assert_eq!(got, expected, "{verb} {text}");
            let Some(expected) = expected_change else {
                continue;
            };
            next(&mut changes).await;
            for heard in [&mut ours.subscribers, &mut ours.triggers] {
                let change = next_change(heard).await;
                assert_eq!(
                    (&change.item, &change.kind),
                    (&expected.item, &expected.kind)
                );
                let value = change.value.as_ref().map(Json::as_str);
                assert_eq!(
                    value,
                    expected.value.as_ref().map(Json::as_str),
                    "{verb} {text}"
                );
            }
        }
    }
    let mut expected = answer(|done| memory.list(GROUP, done))
        .await
        .expect("items");
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    let got = answer(|done| ours.store.list(GROUP, done))
        .await
        .expect("items");
    let plain = |items: Vec<(Arc<str>, Item)>| -> Vec<(Arc<str>, Json)> {
        items
            .into_iter()
            .map(|(id, item)| (id, item.value))
            .collect()
    };
    assert_eq!(plain(got), plain(expected));
}

/// A reply without what this layout does not have.
fn without_seq(reply: &str) -> String {
    if reply.starts_with("precondition_failed") {
        return "precondition_failed".to_owned();
    }
    match reply.rfind(r#","seq":"#) {
        Some(at) => reply[..at].to_owned(),
        None => reply.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_come_to_what_the_vectors_say() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let (sink, _changes) = told();
    let memory = MemoryStore::new("m", sink, LIMITS, 1_000_000);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let mut tried = 0;
    for file in ["update-ops.jsonl", "update-ops-added.jsonl"] {
        let text = std::fs::read_to_string(folder.join(file)).expect("the vectors");
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let fields =
                iii_stream_core::fields::Fields::read(line, &["old", "ops"]).expect("a vector");
            let (old, ops) = (fields.raw(0), fields.required(1).expect("operations"));
            for store in [&*ours.store as &dyn Store, &memory] {
                match old {
                    Some(old) => set(store, "i", old.get()).await.expect("a set"),
                    None => run(store, read_delete(&input("i", "")).expect("a delete"))
                        .await
                        .expect("a delete"),
                };
            }
            let got = reply(update(&*ours.store, "i", ops.get()).await);
            assert_eq!(got, reply(update(&memory, "i", ops.get()).await), "{line}");
            tried += 1;
        }
    }
    assert!(1_000 < tried, "{tried} vectors");
}

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
    other.store.came(&GROUP.to_key());
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
async fn an_engine_beside_us_sees_and_is_seen() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.came(&GROUP.to_key());
    let mut engine = engine(&server);
    let () = engine
        .hset("stream:s:g", "z", r#"{"by":"engine"}"#)
        .expect("a field");
    let () = engine.hset("stream:s:g", "a", "1").expect("a field");
    let snapshot = answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    let ids: Vec<_> = snapshot.items.iter().map(|(id, _)| &**id).collect();
    assert_eq!(ids, ["a", "z"], "sorted by id");

    let frame = r#"{"type":"stream","timestamp":1760000000123,"streamName":"s","groupId":"g","id":"z","event":{"type":"update","data":{"by":"engine","n":2}}}"#;
    let () = engine
        .hset("stream:s:g", "z", r#"{"by":"engine","n":2}"#)
        .expect("a field");
    let () = engine.publish(EVENTS, "no frame").expect("a message");
    let () = engine.publish(EVENTS, frame).expect("a message");
    let change = next_change(&mut ours.subscribers).await;
    assert_eq!(change.kind, Kind::Update);
    assert_eq!(change.seq, snapshot.seq + 1);
    assert!(
        snapshot.timestamp < change.timestamp,
        "a sync is earlier than what follows it"
    );

    // What we write is in the engine's place and form, and so is what we publish.
    let client = Client::open(server.url()).expect("an address");
    let mut subscriber = client.get_connection().expect("a connection");
    let mut events = subscriber.as_pubsub();
    events.subscribe(EVENTS).expect("a subscription");
    update(
        &*ours.store,
        "z",
        r#"[{"type":"increment","path":"n","by":40}]"#,
    )
    .await
    .expect("an update");
    let text: String = engine.hget("stream:s:g", "z").expect("a text");
    assert_eq!(text, r#"{"by":"engine","n":42}"#);
    let payload: String = events
        .get_message()
        .and_then(|message| message.get_payload())
        .expect("a frame");
    let own = next_change(&mut ours.subscribers).await;
    let change = next_change(&mut ours.triggers).await;
    assert_eq!(trigger_input(GROUP, &change).as_deref(), Some(&*payload));
    assert_eq!(
        (own.timestamp, &own.value),
        (change.timestamp, &change.value)
    );
    assert!(
        ours.triggers.try_recv().is_err(),
        "what an engine writes fires its own triggers"
    );

    // An event is only told; the last delete takes the hash with it.
    let send = r#"{"stream_name":"s","group_id":"g","type":"typing","data":{"u":1}}"#;
    run(&*ours.store, read_send(send).expect("a send"))
        .await
        .expect("a send");
    let payload: String = events
        .get_message()
        .and_then(|message| message.get_payload())
        .expect("a frame");
    assert!(
        payload.ends_with(
            r#""id":null,"event":{"type":"event","event":{"type":"typing","data":{"u":1}}}}"#
        ),
        "{payload}"
    );
    for item in ["a", "z"] {
        run(
            &*ours.store,
            read_delete(&input(item, "")).expect("a delete"),
        )
        .await
        .expect("a delete");
    }
    let is_there: bool = engine.exists("stream:s:g").expect("an answer");
    assert!(!is_there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_no_json_hides_nothing_else() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let mut engine = engine(&server);
    for (field, text) in [
        ("bad", &b"{oops"[..]),
        ("worse", b"\xff"),
        ("good", b"[ 1 ]"),
    ] {
        let () = engine.hset("stream:s:g", field, text).expect("a field");
    }
    let list = answer(|done| ours.store.list(GROUP, done))
        .await
        .expect("a list");
    let values: Vec<_> = list
        .iter()
        .map(|(id, item)| (&**id, item.value.as_str()))
        .collect();
    assert_eq!(values, [("good", "[1]")]);
    assert_eq!(ours.store.shared.metrics.redis_items_unreadable.get(), 2);
    let error = answer(|done| ours.store.get(GROUP, "bad", done))
        .await
        .expect_err("an error");
    assert_eq!(error.cause, StoreErrorCause::Damaged);
    assert!(
        error.message.contains("key `stream:s:g`, field `bad`"),
        "{error}"
    );
    let (bad, good) = tokio::join!(
        set(&*ours.store, "bad", "1"),
        set(&*ours.store, "good", "2")
    );
    assert_eq!(bad.expect_err("an error").cause, StoreErrorCause::Damaged);
    assert_eq!(reply(good), r#"{"old_value":[1],"new_value":2}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_found_whatever_their_names() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let state = instance(&server, Kept::State, "e2").await;
    let mut engine = engine(&server);
    let keys = [
        "stream:a*:g[1]",
        "stream:a*:b:c",
        "stream:ab:x",
        "stream:a\\:y",
        "state:users",
        "state:a:b",
        "state:",
    ];
    for key in keys {
        let () = engine.hset(key, "i", "1").expect("a hash");
    }
    let () = engine.set("stream:a*:text", "no hash").expect("a text");
    for number in 0..3_000 {
        let () = engine
            .hset(format!("stream:many:{number:04}"), "i", "1")
            .expect("a hash");
    }
    let groups = |stream: &'static str| answer(|done| ours.store.list_groups(stream, done));
    let names = |groups: Vec<Arc<str>>| groups.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(groups("a*").await.expect("groups")), ["b:c", "g[1]"]);
    assert_eq!(
        names(groups("a*:b").await.expect("groups")),
        ["c"],
        "the same hash by another split"
    );
    assert_eq!(names(groups("a\\").await.expect("groups")), ["y"]);
    assert_eq!(
        names(groups("a").await.expect("groups")),
        Vec::<String>::new()
    );
    assert_eq!(groups("many").await.expect("groups").len(), 3_000);
    let all = answer(|done| ours.store.list_all(done))
        .await
        .expect("streams");
    let streams: Vec<_> = all
        .iter()
        .map(|(stream, groups)| (&**stream, groups.len()))
        .collect();
    assert_eq!(streams, [("a*", 2), ("a\\", 1), ("ab", 1), ("many", 3_000)]);
    let scopes = answer(|done| state.store.list_groups("state", done))
        .await
        .expect("scopes");
    assert_eq!(names(scopes), ["a:b", "users"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_written_and_told_to_its_triggers_only() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut streams = instance(&server, Kept::Streams, "e1").await;
    let mut state = instance(&server, Kept::State, "e2").await;
    let scope = GroupRef {
        stream: "state",
        group: "users",
    };
    streams.store.came(&scope.to_key());
    answer(|done| streams.store.snapshot(scope, None, 1, done))
        .await
        .expect("a snapshot");
    let text = r#"{"stream_name":"state","group_id":"users","item_id":"u1","data":1}"#;
    run(&*state.store, read_set(text).expect("a set"))
        .await
        .expect("a set");
    run(&*state.store, read_set(text).expect("a set"))
        .await
        .expect("a set");
    let kinds = [
        next(&mut state.triggers).await,
        next(&mut state.triggers).await,
    ];
    match &kinds {
        [
            Heard::Change(_, one, None),
            Heard::Change(_, two, Some(old)),
        ] => {
            assert_eq!(
                (&one.kind, &two.kind, old.as_str()),
                (&Kind::Create, &Kind::Update, "1")
            );
        }
        other => panic!("{other:?}"),
    }
    let value: String = engine(&server).hget("state:users", "u1").expect("a text");
    assert_eq!(value, "1");
    let after = answer(|done| streams.store.snapshot(scope, None, 1, done))
        .await
        .expect("a snapshot");
    assert_eq!(after.seq, 0, "nothing was published");
    assert!(streams.subscribers.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_group_takes_no_more() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let mut engine = engine(&server);
    let fields: Vec<_> = (1..LIMITS.items_max)
        .map(|index| (format!("f{index}"), 1))
        .collect();
    let () = engine.hset_multiple("stream:s:g", &fields).expect("a hash");
    let (one, two) = tokio::join!(set(&*ours.store, "a", "1"), set(&*ours.store, "b", "1"));
    let mut replies = [reply(one), reply(two)];
    replies.sort();
    assert_eq!(
        replies[0],
        "group_full: the group has 1000 items, which is the limit"
    );
    assert_eq!(replies[1], r#"{"old_value":null,"new_value":1}"#);
    let free = run(
        &*ours.store,
        read_delete(&input("f1", "")).expect("a delete"),
    )
    .await;
    assert_eq!(reply(free), r#"{"old_value":1}"#);
    assert_eq!(
        reply(set(&*ours.store, "c", "1").await),
        r#"{"old_value":null,"new_value":1}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_subscription_is_made_good() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.came(&GROUP.to_key());
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
    ours.store.came(&GROUP.to_key());
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
