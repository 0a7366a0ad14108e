//! Instances whose way to Redis is not equally long, and one hot item.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::faults::{count, value_of};
use super::{GROUP, commit, done, options, set, store, store_with, wide};
use crate::metrics::Metrics;
use crate::redis_client::RedisClient;
use crate::redis_client::test_server::{TestServer, is_installed};

/// How much longer each way is.
const LATER: Duration = Duration::from_millis(30);

/// A way to a server on this machine that takes longer; the port where it begins.
async fn long_way_to(port: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let begin = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port)).await;
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.expect("a server").into_split();
            carry(near_in, far_out);
            carry(far_in, near_out);
        }
    });
    begin
}

/// Carries bytes on, each as much later.
fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let (send, mut receive) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let _ = send.send((Instant::now() + LATER, bytes[..length].to_vec()));
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = receive.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_far_away_gets_its_turn_on_a_hot_item() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let mut far = server.options();
    far.nodes = vec![format!(
        "redis://127.0.0.1:{}",
        long_way_to(server.port).await
    )];
    let far_client = RedisClient::connect(far, Arc::new(Metrics::default()))
        .await
        .expect("it runs");
    let stores = [
        store(&client, wide()),
        store(&client, wide()),
        store_with(&far_client, options(wide())),
    ];
    done(commit(&*stores[0], GROUP, set("n", "0", "")))
        .await
        .expect("a change");
    let end = Instant::now() + Duration::from_secs(5);
    let mut writers = Vec::new();
    for number in 0..200 {
        let store = stores[number % 3].clone();
        writers.push(tokio::spawn(async move {
            let mut counted = 0;
            while Instant::now() < end {
                done(commit(&*store, GROUP, count()))
                    .await
                    .expect("a change");
                counted += 1;
            }
            counted
        }));
    }
    let (mut all, mut least) = (0, u32::MAX);
    for writer in writers {
        let counted = writer.await.expect("a writer");
        all += counted;
        least = least.min(counted);
    }
    assert_eq!(value_of(&*stores[1], "n").await, all.to_string());
    assert!(3 <= least, "{least} of {all}");
    for client in [client, far_client] {
        client.close().await;
    }
}
