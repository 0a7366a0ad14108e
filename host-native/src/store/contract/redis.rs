//! The contract on Redis, as one instance keeps it that hands changes on by itself.

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::GroupLimits;
use tokio::runtime::Runtime;

use super::contract;
use super::subject::{Subject, Told};
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::redis::{RedisStore, RedisStoreOptions, Sinks, Triggered};

/// Nobody has triggers.
struct NoTriggers;

impl Triggered for NoTriggers {
    fn is_triggered(&self, _: &str) -> bool {
        false
    }
}

fn options(limits: GroupLimits) -> RedisStoreOptions {
    RedisStoreOptions {
        prefix: "iii:".into(),
        limits,
        keeps_history: true,
        wait_max: Duration::from_secs(5),
        queue_commands_max: 10_000,
        queue_bytes_max: 64 << 20,
        queue_total_bytes_max: 256 << 20,
        cache_bytes_max: 64 << 20,
    }
}

fn open(limits: GroupLimits) -> Subject {
    let told = Arc::<Told>::default();
    let server = TestServer::start();
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(server.client());
    let inside = runtime.enter();
    let sinks = Sinks::AtOnce(told.clone());
    let store = RedisStore::new(client, options(limits), sinks, Arc::new(NoTriggers));
    drop(inside);
    Subject {
        store,
        told,
        follow: Box::new(|_| {}),
        runtime,
        _place: Box::new(server),
    }
}

contract!(open, if is_installed);
