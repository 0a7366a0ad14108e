//! Tests of the Redis store, each on a server of its own.

mod alike;
mod fairness;
mod faults;
mod keeping;
mod moving;
mod waiting;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::command::read_set;
use iii_stream_core::{Command, Committed, GroupLimits, GroupRef};
use tokio::sync::oneshot;

use super::{RedisStore, RedisStoreOptions, Sinks, Triggered};
use crate::redis_client::RedisClient;
use crate::store::{Done, Store, StoreError};

const GROUP: GroupRef<'static> = GroupRef {
    stream: "s",
    group: "g",
};

struct NoTriggers;

impl Triggered for NoTriggers {
    fn is_triggered(&self, _: &str) -> bool {
        false
    }
}

fn limits() -> GroupLimits {
    GroupLimits {
        items_max: 6,
        bytes_max: 400,
        client_records_max: 2,
        hot_items_max: 4,
        history_changes_max: 2_000,
        history_bytes_max: 1 << 20,
    }
}

/// Limits that nothing here reaches.
fn wide() -> GroupLimits {
    GroupLimits {
        items_max: 10_000,
        bytes_max: 64 << 20,
        client_records_max: 1_000,
        ..limits()
    }
}

fn options(limits: GroupLimits) -> RedisStoreOptions {
    RedisStoreOptions {
        prefix: "t:".to_owned(),
        limits,
        keeps_history: true,
        wait_max: Duration::from_secs(5),
        queue_commands_max: 10_000,
        queue_bytes_max: 64 << 20,
        queue_total_bytes_max: 256 << 20,
        cache_bytes_max: 16 << 20,
    }
}

fn store(client: &Arc<RedisClient>, limits: GroupLimits) -> Arc<RedisStore> {
    store_with(client, options(limits))
}

fn store_with(client: &Arc<RedisClient>, options: RedisStoreOptions) -> Arc<RedisStore> {
    RedisStore::new(
        client.clone(),
        options,
        Sinks::Channel,
        Arc::new(NoTriggers),
    )
}

async fn ask<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (send, receive) = oneshot::channel();
    call(Box::new(move |result| {
        // Whoever asked has gone with its test.
        let _ = send.send(result);
    }));
    receive.await.expect("an answer")
}

fn commit(
    store: &dyn Store,
    group: GroupRef<'_>,
    command: Command,
) -> oneshot::Receiver<Result<Committed, StoreError>> {
    let (send, receive) = oneshot::channel();
    let done = Box::new(move |result| {
        let _ = send.send(result);
    });
    store.commit(group, command, crate::clock::unix_ms(), done);
    receive
}

/// `stream::set` of an item, with more fields.
fn set(item: &str, value: &str, more: &str) -> Command {
    let text =
        format!(r#"{{"stream_name":"s","group_id":"g","item_id":"{item}","data":{value}{more}}}"#);
    read_set(&text).expect("a command").command
}

async fn done(
    answer: oneshot::Receiver<Result<Committed, StoreError>>,
) -> Result<Committed, StoreError> {
    answer.await.expect("an answer")
}
