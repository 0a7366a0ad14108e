//! The contract on memory.

use std::sync::Arc;

use iii_stream_core::GroupLimits;
use tokio::runtime::Runtime;

use super::contract;
use super::subject::{Subject, Told};
use crate::store::MemoryStore;

fn open(limits: GroupLimits) -> Subject {
    let told = Arc::<Told>::default();
    let store = Arc::new(MemoryStore::new("e", told.clone(), limits, 64 << 20));
    let runtime = Runtime::new().expect("a runtime");
    let expiring = store.clone();
    runtime.spawn(async move { expiring.run_expiry().await });
    Subject {
        store,
        told,
        follow: Box::new(|_| {}),
        runtime,
        _place: Box::new(()),
    }
}

contract!(open);
