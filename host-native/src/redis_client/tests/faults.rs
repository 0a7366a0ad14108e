//! A server that is killed, paused, started again: what calls and listeners are told.

use std::time::{Duration, Instant};

use redis::Value;

use super::heard::{Heard, message};
use crate::metrics::Metrics;
use crate::redis_client::test_server::{TestServer, channel, free_port, is_installed};
use crate::redis_client::{
    CallError, ChannelEvent, RedisClient, RedisOptions, RedisStartError, Slot,
};

fn incr() -> redis::Cmd {
    let mut command = redis::cmd("INCR");
    command.arg("a");
    command
}

#[tokio::test]
async fn a_killed_server_makes_what_was_sent_unknown_and_what_was_not_unavailable() {
    if !is_installed() {
        return;
    }
    let mut server = TestServer::start();
    let wait_max = Duration::from_millis(300);
    let options = RedisOptions {
        wait_max,
        ..server.options()
    };
    let client = RedisClient::connect(options, Metrics::default().into()).await;
    let client = client.expect("the server runs");
    let slot = Slot::of(b"a");
    server.pause();
    let in_flight = tokio::spawn({
        let client = client.clone();
        async move { client.call(slot, incr()).await }
    });
    while client.metrics.redis_calls_in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }
    // The writer's task has run before this one's next turn on a runtime of one thread.
    tokio::task::yield_now().await;
    server.kill();
    let lost = in_flight.await.expect("no panic");
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");

    let begin = Instant::now();
    let unavailable = client.call(slot, incr()).await;
    assert!(
        matches!(unavailable, Err(CallError::Unavailable { .. })),
        "{unavailable:?}"
    );
    assert!(begin.elapsed() < wait_max + Duration::from_millis(500));
    assert!(!client.is_up());

    server.restart();
    let begin = Instant::now();
    while client.call(slot, incr()).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    assert!(client.is_up());
}

#[tokio::test]
async fn without_waiting_a_call_fails_at_once_while_the_server_is_away() {
    if !is_installed() {
        return;
    }
    let mut server = TestServer::start();
    let options = RedisOptions {
        wait_max: Duration::ZERO,
        ..server.options()
    };
    let client = RedisClient::connect(options, Metrics::default().into()).await;
    let client = client.expect("the server runs");
    let done = client.call(Slot::of(b"a"), incr()).await;
    assert_eq!(done.expect("done"), Value::Int(1));
    server.kill();
    while client.is_up() {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    let failed = client.call(Slot::of(b"a"), incr()).await;
    assert!(
        matches!(failed, Err(CallError::Unavailable { .. })),
        "{failed:?}"
    );
    assert!(begin.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn a_pause_longer_than_the_wait_is_unknown_and_heals() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let options = RedisOptions {
        wait_max: Duration::from_secs(1),
        ..server.options()
    };
    let client = RedisClient::connect(options, Metrics::default().into()).await;
    let client = client.expect("the server runs");
    let news = channel("news");
    let (heard, mut hearing) = Heard::new();
    client.subscribe(news.clone(), heard);
    hearing.expect(ChannelEvent::Ready).await;
    server.pause();
    let begin = Instant::now();
    let paused = client.call(Slot::of(b"a"), incr()).await;
    assert!(
        matches!(paused, Err(CallError::Unknown { .. })),
        "{paused:?}"
    );
    assert!(begin.elapsed() < Duration::from_millis(1_500));
    // Silence is noticed on both connections.
    hearing.expect(ChannelEvent::Lost).await;
    assert!(begin.elapsed() >= Duration::from_secs(2));
    while client.is_up() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begin.elapsed() < Duration::from_secs(8));
    }
    server.resume();
    hearing.expect(ChannelEvent::Ready).await;
    client.publish(&news, b"back").await.expect("done");
    hearing.expect(message("back")).await;
}

#[tokio::test]
async fn a_start_that_cannot_succeed_says_why() {
    let port = free_port();
    let options = RedisOptions {
        nodes: vec![format!("redis://ann:secret@127.0.0.1:{port}")],
        connect_time_max: Duration::from_millis(200),
        ..RedisOptions::default()
    };
    let failed = RedisClient::connect(options, Metrics::default().into()).await;
    let text = failed.err().expect("nobody listens there").to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(
        text.contains("200 ms") && !text.contains("secret"),
        "{text}"
    );

    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&["--requirepass", "secret"]);
    let failed = RedisClient::connect(server.options(), Metrics::default().into()).await;
    let text = failed.err().expect("a password is wanted").to_string();
    assert!(text.contains("redis://:PASSWORD@HOST"), "{text}");
    let options = RedisOptions {
        nodes: vec![format!("redis://:wrong@127.0.0.1:{}", server.port)],
        ..RedisOptions::default()
    };
    let failed = RedisClient::connect(options, Metrics::default().into()).await;
    assert!(matches!(failed, Err(RedisStartError::Refused { .. })));
    let options = RedisOptions {
        nodes: vec![format!("redis://:secret@127.0.0.1:{}/3", server.port)],
        ..RedisOptions::default()
    };
    let connected = RedisClient::connect(options, Metrics::default().into()).await;
    connected.expect("the password is right").close().await;
}

#[tokio::test]
async fn unsafe_settings_are_reported_or_that_they_cannot_be_told() {
    if !is_installed() {
        return;
    }
    let told = async |server: &TestServer| {
        let client = server.client().await;
        let told = client.report().nodes[0].unsafe_settings.clone();
        client.close().await;
        told
    };
    let server = TestServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let all = told(&server).await.join("; ");
    for setting in ["appendonly", "maxmemory-policy", "no replica"] {
        assert!(all.contains(setting), "{all}");
    }
    // As with a user that may not ask.
    server.ask(&["ACL", "SETUSER", "default", "-config"]);
    let all = told(&server).await.join("; ");
    assert!(all.contains("cannot be told"), "{all}");
    // It appends, and syncs always: that it is alone is all there is to say.
    let all = told(&TestServer::start()).await;
    assert!(
        matches!(&all[..], [one] if one.starts_with("it has no replica")),
        "{all:?}"
    );
}
