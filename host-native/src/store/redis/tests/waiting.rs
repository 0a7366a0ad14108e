//! How long callers wait while Redis stands still: once `wait_max`, wherever they spend it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iii_stream_core::GroupRef;

use super::faults::count;
use super::{GROUP, ask, commit, done, options, set, store_with, wide};
use crate::metrics::Metrics;
use crate::redis_client::RedisClient;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::{Store, StoreErrorCause};

const WAIT_MAX: Duration = Duration::from_millis(1_500);

/// What an answer may take beyond that: one attempt to find out what became of a call, and a loaded machine.
const SLACK: Duration = Duration::from_millis(1_200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_waits_once_in_line_and_for_the_answer_together() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut reach = server.options();
    reach.wait_max = WAIT_MAX;
    let client = RedisClient::connect(reach, Arc::new(Metrics::default()))
        .await
        .expect("it runs");
    let mut options = options(wide());
    options.wait_max = WAIT_MAX;
    let store = store_with(&client, options);
    done(commit(&*store, GROUP, set("a", "1", "")))
        .await
        .expect("a change");
    server.pause();
    let mut asked = Vec::new();
    for number in 0..20 {
        let store = store.clone();
        asked.push(tokio::spawn(async move {
            tokio::time::sleep(WAIT_MAX * number / 10).await;
            let begin = Instant::now();
            let error = match number % 2 {
                0 => done(commit(&*store, GROUP, count())).await.map(drop),
                _ => ask(|done| store.list(GROUP, done)).await.map(drop),
            };
            (
                error.expect_err("Redis stands still").cause,
                begin.elapsed(),
            )
        }));
    }
    for call in asked {
        let (cause, took) = call.await.expect("a caller");
        assert!(matches!(
            cause,
            StoreErrorCause::Unavailable | StoreErrorCause::Unknown
        ));
        assert!(took < WAIT_MAX + SLACK, "{took:?}");
    }
    server.resume();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_all_groups_together_is_bounded() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let mut options = options(wide());
    options.queue_total_bytes_max = 1_000;
    let store = store_with(&client, options);
    let value = format!("\"{}\"", "x".repeat(98));
    let write = |group| {
        let group = GroupRef { stream: "s", group };
        commit(&*store, group, set("a", &value, ""))
    };
    server.pause();
    let answers: Vec<_> = ["a", "b", "c"].into_iter().map(write).collect();
    let error = done(write("d")).await.expect_err("there is no room");
    assert_eq!(error.cause, StoreErrorCause::Behind);
    assert!(error.message.contains("queue_total_bytes_max"), "{error}");
    // Each with 200 bytes beside its texts.
    assert_eq!(store.queued_bytes(), 903);
    server.resume();
    for answer in answers {
        done(answer).await.expect("a change");
    }
    let is_free = async {
        while 0 < store.queued_bytes() {
            tokio::task::yield_now().await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(5), is_free).await;
    freed.expect("answered calls give their share back");
    done(write("d")).await.expect("there is room again");
    client.close().await;
}
