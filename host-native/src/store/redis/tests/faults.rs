//! Redis goes away, comes back, loses answers; instances write the same item.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iii_stream_core::Command;
use iii_stream_core::command::read_update;

use super::{GROUP, ask, commit, done, options, set, store, store_with, wide};
use crate::metrics::Metrics;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::redis_client::{RedisClient, Slot};
use crate::store::{Store, StoreErrorCause};

pub(super) fn count() -> Command {
    let text = r#"{"stream_name":"s","group_id":"g","item_id":"n","ops":[{"type":"increment","path":"","by":1}]}"#;
    read_update(text).expect("a command").command
}

pub(super) async fn value_of(store: &dyn Store, item: &'static str) -> String {
    let (send, receive) = tokio::sync::oneshot::channel();
    let told = Box::new(move |item| {
        let _ = send.send(item);
    });
    store.get(GROUP, item, told);
    let item = receive.await.expect("an answer").expect("Redis answers");
    item.map_or("nothing".to_owned(), |item| item.value.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_several_instances_lose_no_update() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let stores: Vec<_> = (0..3).map(|_| store(&client, wide())).collect();
    done(commit(&*stores[0], GROUP, set("n", "0", "")))
        .await
        .expect("a change");
    let mut writers = Vec::new();
    for number in 0..60 {
        let store = stores[number % 3].clone();
        writers.push(tokio::spawn(async move {
            for _ in 0..10 {
                done(commit(&*store, GROUP, count()))
                    .await
                    .expect("a change");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(value_of(&*stores[1], "n").await, "600");
    let logged = stores[2].changes_after(GROUP, 0).await.expect("an answer");
    let changes = logged.changes.expect("all changes");
    assert!(
        changes
            .iter()
            .zip(1..)
            .all(|(change, seq)| change.seq == seq)
    );
    let rises = changes
        .windows(2)
        .all(|pair| pair[0].timestamp < pair[1].timestamp);
    assert!(rises && changes.len() == 601);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_found_out_and_nothing_happens_twice() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let mut options = options(wide());
    options.wait_max = Duration::from_secs(20);
    let store = store_with(&client, options);
    done(commit(&*store, GROUP, set("n", "0", "")))
        .await
        .expect("a change");
    server.pause();
    let answers: Vec<_> = (0..20).map(|_| commit(&*store, GROUP, count())).collect();
    // Longer than a connection may be silent: it is given up with the command on it, which the server reads once it goes on.
    while client.is_up() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.resume();
    let mut done_count = 0;
    let mut unsure = 0;
    for answer in answers {
        match done(answer).await {
            Ok(_) => done_count += 1,
            Err(error) if error.cause == StoreErrorCause::Unknown => unsure += 1,
            Err(error) => assert_eq!(error.cause, StoreErrorCause::Unavailable, "{error}"),
        }
    }
    assert_eq!(unsure, 0, "the history tells");
    done(commit(&*store, GROUP, count()))
        .await
        .expect("a change");
    assert_eq!(value_of(&*store, "n").await, (done_count + 1).to_string());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_redis_begins_a_new_history() {
    if !is_installed() {
        return;
    }
    let mut server = TestServer::start();
    let client = server.client().await;
    let store = store(&client, wide());
    done(commit(&*store, GROUP, set("a", "1", "")))
        .await
        .expect("a change");
    let before = store.position_now(GROUP).await.expect("a position");
    let slot = Slot::of(b"any");
    let old = client.replication_id(slot);
    server.restart();
    // What is sent before that belongs to the old history, which ends with the next read then.
    while client.replication_id(slot) == old {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = loop {
        match done(commit(&*store, GROUP, set("a", "2", r#","if":{"seq":1}"#))).await {
            Ok(second) => break second,
            Err(error) => assert_eq!(error.cause, StoreErrorCause::Unavailable, "{error}"),
        }
    };
    let (change, json) = (second.change.expect("a change"), second.reply.to_json());
    assert_eq!((change.seq, change.base), (2, Some(1)));
    assert_eq!(json.as_deref(), Ok(r#"{"old_value":1,"new_value":2}"#));
    let after = store.position_now(GROUP).await.expect("a position");
    assert_eq!(after.seq, 2);
    assert_ne!(after.epoch, before.epoch);
    let again = store.changes_after(GROUP, 1).await.expect("an answer");
    assert_eq!(again.changes.map(|changes| changes.len()), Some(1));
    assert_eq!(
        store
            .changes_after(GROUP, 0)
            .await
            .expect("an answer")
            .changes,
        None
    );
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_calls_fail_in_time_and_say_that_nothing_was_done() {
    if !is_installed() {
        return;
    }
    let mut server = TestServer::start_with(&[]);
    let wait_max = Duration::from_millis(300);
    let mut reach = server.options();
    reach.wait_max = wait_max;
    let client = RedisClient::connect(reach, Arc::new(Metrics::default()))
        .await
        .expect("it runs");
    let mut options = options(wide());
    options.wait_max = wait_max;
    let store = store_with(&client, options);
    done(commit(&*store, GROUP, set("a", "1", "")))
        .await
        .expect("a change");
    server.kill();
    while client.is_up() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    let answers: Vec<_> = (0..10).map(|_| commit(&*store, GROUP, count())).collect();
    for answer in answers {
        let error = done(answer).await.expect_err("there is no Redis");
        assert_eq!(error.cause.name(), Some("unavailable"));
    }
    assert!(begin.elapsed() < 10 * wait_max, "{:?}", begin.elapsed());
    let error = ask(|done| store.list(GROUP, done))
        .await
        .expect_err("there is no Redis");
    assert_eq!(error.cause, StoreErrorCause::Unavailable);
    client.close().await;
}
