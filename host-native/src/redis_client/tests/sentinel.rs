//! A master that its sentinels replace.

use std::time::{Duration, Instant};

use redis::Value;

use super::heard::{Heard, WAIT_MAX, message};
use crate::metrics::Metrics;
use crate::redis_client::test_server::{TestServer, channel, is_installed};
use crate::redis_client::{ChannelEvent, RedisClient, RedisMode, RedisOptions, Slot};

#[tokio::test]
async fn the_master_is_found_again_after_a_failover() {
    if !is_installed() {
        return;
    }
    let mut master = TestServer::start();
    let replica = TestServer::start_replica_of(&master);
    let sentinel = TestServer::start_sentinel_of(&master);
    let begin = Instant::now();
    while !sentinel.ask(&["INFO", "sentinel"]).contains("slaves=1") {
        assert!(begin.elapsed() < WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mistaken = RedisOptions {
        nodes: vec![sentinel.url()],
        ..RedisOptions::default()
    };
    let failed = RedisClient::connect(mistaken, Metrics::default().into()).await;
    let text = failed.err().expect("it keeps no data").to_string();
    assert!(text.contains("it is a sentinel"), "{text}");
    let options = RedisOptions {
        nodes: vec![sentinel.url()],
        mode: RedisMode::Sentinel {
            master: "main".to_owned(),
        },
        ..RedisOptions::default()
    };
    let client = RedisClient::connect(options, Metrics::default().into()).await;
    let client = client.expect("the sentinel knows the master");
    let slot = Slot::of(b"a");
    let mut incr = redis::cmd("INCR");
    incr.arg("a");
    assert_eq!(
        client.call(slot, incr.clone()).await.expect("done"),
        Value::Int(1)
    );
    let news = channel("news");
    let (heard, mut hearing) = Heard::new();
    client.subscribe(news.clone(), heard);
    hearing.expect(ChannelEvent::Ready).await;

    master.kill();
    hearing.expect(ChannelEvent::Lost).await;
    let begin = Instant::now();
    while client.call(slot, incr.clone()).await.is_err() {
        assert!(begin.elapsed() < WAIT_MAX);
    }
    hearing.expect(ChannelEvent::Ready).await;
    client.publish(&news, b"back").await.expect("done");
    hearing.expect(message("back")).await;
    let nodes = client.report().nodes;
    assert_eq!(nodes[0].address, format!("127.0.0.1:{}", replica.port));
    assert!(nodes[0].is_master);
}
