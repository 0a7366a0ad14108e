//! A cluster: slots that move, masters that fail, and the channels in them.

use std::sync::Arc;
use std::time::Instant;

use redis::Value;

use super::heard::{Heard, WAIT_MAX, message};
use crate::redis_client::test_cluster::TestCluster;
use crate::redis_client::test_server::{channel, is_installed};
use crate::redis_client::{CallError, Channel, ChannelEvent, RedisClient, Script, Slot};

async fn incr(client: &RedisClient, key: &str) -> Result<Value, CallError> {
    let mut command = redis::cmd("INCR");
    command.arg(key);
    client.call(Slot::of(key.as_bytes()), command).await
}

#[tokio::test]
async fn calls_and_channels_find_their_servers_while_slots_move() {
    if !is_installed() {
        return;
    }
    let cluster = TestCluster::start(0);
    let client = cluster.client().await;
    assert!(client.is_up());
    assert_eq!(client.report().nodes.len(), 3);
    for key in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(incr(&client, key).await.expect("done"), Value::Int(1));
    }

    // Sharded and plain channels, on all servers.
    let mut hearings = Vec::new();
    for name in ["a", "b", "c"] {
        for channel in [
            channel(name),
            Channel {
                name: format!("plain-{name}").into(),
                slot: None,
            },
        ] {
            let (heard, mut hearing) = Heard::new();
            client.subscribe(channel.clone(), heard);
            hearing.expect(ChannelEvent::Ready).await;
            client.publish(&channel, b"one").await.expect("done");
            hearing.expect(message("one")).await;
            hearings.push((channel, hearing));
        }
    }

    // Writers go on while the slot of `a` moves: no error, no lost and no doubled update.
    let slot = Slot::of(b"a");
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    let writer = tokio::spawn({
        let client = client.clone();
        async move {
            for count in 2..=400 {
                assert_eq!(incr(&client, "a").await.expect("done"), Value::Int(count));
            }
        }
    });
    let cluster = Arc::new(cluster);
    let moving = cluster.clone();
    tokio::task::spawn_blocking(move || {
        moving.begin_move(slot, to);
    })
    .await
    .expect("no panic");
    // A key that is not there yet is asked for at the new server.
    let mut commands = redis::pipe();
    commands.cmd("SET").arg("{a}new").arg("1");
    commands.cmd("GET").arg("{a}new");
    let values = client.pipeline(slot, commands).await.expect("done");
    assert_eq!(values, [Value::Okay, Value::BulkString(b"1".to_vec())]);
    // So is a script, which that server does not have.
    static ADD: Script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let added = client.script(slot, &ADD, &[b"{a}other"], &[b"5"]).await;
    assert_eq!(added.expect("done"), Value::Int(5));
    let moving = cluster.clone();
    tokio::task::spawn_blocking(move || moving.end_move(slot, to))
        .await
        .expect("no panic");
    writer.await.expect("no panic");
    assert_eq!(cluster.owner(slot), to);

    // The server itself ended the subscription; it is made anew at the other one.
    let (channel_a, hearing) = &mut hearings[0];
    hearing.expect(ChannelEvent::Lost).await;
    hearing.expect(ChannelEvent::Ready).await;
    client.publish(channel_a, b"two").await.expect("done");
    hearing.expect(message("two")).await;
    for (channel, hearing) in &mut hearings[1..] {
        client.publish(channel, b"two").await.expect("done");
        hearing.expect(message("two")).await;
    }

    for key in ["x", "y", "z"] {
        let slot = Slot::of(key.as_bytes());
        let added = client.script(slot, &ADD, &[key.as_bytes()], &[b"5"]).await;
        assert_eq!(added.expect("done"), Value::Int(5));
    }
}

#[tokio::test]
async fn a_failover_heals_calls_and_channels() {
    if !is_installed() {
        return;
    }
    let mut cluster = TestCluster::start(1);
    let client = cluster.client().await;
    let slot = Slot::of(b"a");
    incr(&client, "a").await.expect("done");
    let news = channel("a");
    let plain = Channel {
        name: "plain".into(),
        slot: None,
    };
    let (heard, mut hearing) = Heard::new();
    client.subscribe(news.clone(), heard);
    hearing.expect(ChannelEvent::Ready).await;
    let (heard, mut plain_hearing) = Heard::new();
    client.subscribe(plain.clone(), heard);
    plain_hearing.expect(ChannelEvent::Ready).await;
    let before = client.replication_id(slot);

    let master = cluster.owner(slot);
    cluster.servers[master].kill();
    hearing.expect(ChannelEvent::Lost).await;
    hearing.expect(ChannelEvent::Ready).await;
    let begin = Instant::now();
    while !matches!(incr(&client, "a").await, Ok(Value::Int(_))) {
        assert!(begin.elapsed() < WAIT_MAX);
    }
    let after = client.replication_id(slot);
    assert_eq!(after.len(), 40);
    assert_ne!(after, before);
    client.publish(&news, b"back").await.expect("done");
    hearing.expect(message("back")).await;
    // Where the plain channel was heard at the killed server, it has moved.
    loop {
        client.publish(&plain, b"back").await.expect("done");
        match plain_hearing.next().await {
            ChannelEvent::Lost => plain_hearing.expect(ChannelEvent::Ready).await,
            event => {
                assert_eq!(event, message("back"));
                break;
            }
        }
    }
}
