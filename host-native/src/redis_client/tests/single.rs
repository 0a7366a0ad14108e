//! One server: calls, pipelines, scripts, channels.

use redis::Value;

use super::heard::{Heard, message};
use crate::redis_client::test_server::{TestServer, channel, is_installed};
use crate::redis_client::{CallError, ChannelEvent, Script, Slot};

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
}

#[tokio::test]
async fn calls_pipelines_and_scripts_are_answered() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let client = server.client().await;
    let slot = Slot::of(b"a");
    let done = client.call(slot, command(&["SET", "a", "1"])).await;
    assert_eq!(done.expect("done"), Value::Okay);
    let refused = client.call(slot, command(&["LPUSH", "a", "1"])).await;
    assert!(matches!(refused, Err(CallError::Refused(error)) if error.code() == Some("WRONGTYPE")));

    let mut commands = redis::pipe();
    commands.cmd("INCR").arg("a").cmd("LPUSH").arg("a").arg("1");
    let values = client.pipeline(slot, commands.clone()).await.expect("done");
    assert_eq!(values[0], Value::Int(2));
    assert!(matches!(values[1], Value::ServerError(_)));
    let values = client.pipeline(slot, commands.atomic().clone()).await;
    assert_eq!(values.expect("done")[0], Value::Int(3));

    static ADD: Script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let add = async || client.script(slot, &ADD, &[b"a"], &[b"10"]).await;
    assert_eq!(add().await.expect("done"), Value::Int(13));
    assert_eq!(server.ask(&["SCRIPT", "FLUSH"]), "+OK\r\n");
    assert_eq!(add().await.expect("done"), Value::Int(23));

    let lead = client.now_ms(slot).abs_diff(crate::clock::unix_ms());
    assert!(lead < 1_000, "{lead}");
    assert_eq!(client.replication_id(slot).len(), 40);
    assert!(client.is_up());
    client.close().await;
    assert!(!client.is_up());
}

#[tokio::test]
async fn listeners_hear_ready_and_then_messages_in_order() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let client = server.client().await;
    let news = channel("news");
    let (heard, mut hearing) = Heard::new();
    client.subscribe(news.clone(), heard);
    hearing.expect(ChannelEvent::Ready).await;
    for payload in ["one", "two"] {
        assert_eq!(
            client
                .publish(&news, payload.as_bytes())
                .await
                .expect("done"),
            1
        );
    }
    hearing.expect(message("one")).await;
    hearing.expect(message("two")).await;

    let (other, mut other_hearing) = Heard::new();
    client.unsubscribe(&news);
    client.subscribe(news.clone(), other);
    other_hearing.expect(ChannelEvent::Ready).await;
    client.publish(&news, b"three").await.expect("done");
    other_hearing.expect(message("three")).await;
    client.unsubscribe(&news);
    while client.publish(&news, b"four").await.expect("done") > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lost_subscription_is_told_and_comes_back() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let client = server.client().await;
    let news = channel("news");
    let (heard, mut hearing) = Heard::new();
    client.subscribe(news.clone(), heard);
    hearing.expect(ChannelEvent::Ready).await;
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    hearing.expect(ChannelEvent::Lost).await;
    hearing.expect(ChannelEvent::Ready).await;
    client.publish(&news, b"again").await.expect("done");
    hearing.expect(message("again")).await;
}
