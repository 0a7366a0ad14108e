//! The contract on files.

use std::sync::Arc;

use iii_stream_core::GroupLimits;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::contract;
use super::subject::{Subject, Told};
use crate::store::{Durability, FileOptions, FileStore};

fn open(limits: GroupLimits) -> Subject {
    let told = Arc::<Told>::default();
    let folder = TempDir::new().expect("a folder");
    let runtime = Runtime::new().expect("a runtime");
    let options = FileOptions {
        durability: Durability::Os,
        limits,
        history_bytes_max: 64 << 20,
        cache_bytes_max: 64 << 20,
        queue_bytes_max: 64 << 20,
        segment_bytes: 1 << 20,
        fold_bytes: 4 << 20,
        log_bytes_max: 1 << 30,
    };
    let inside = runtime.enter();
    let store = FileStore::open(folder.path(), told.clone(), options).expect("a store");
    drop(inside);
    let store = Arc::new(store);
    let expiring = store.clone();
    runtime.spawn(async move { expiring.run_expiry().await });
    Subject {
        store,
        told,
        follow: Box::new(|_| {}),
        runtime,
        _place: Box::new(folder),
    }
}

contract!(open);
