//! A store of the server, as the configuration says: in memory or in a directory. The one place that asks which.

use std::sync::Arc;

use iii_stream_core::{GroupLimits, GroupRef};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::StartError;
use crate::config::{Bounds, StoreConfig};
use crate::metrics::{Histogram, TimeBuckets};
use crate::store::{ChangeSink, Condition, FileReadings, FileStore, MemoryStore, STATE_DIR, Store};

/// What a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// The groups of streams.
    Streams,
    /// The scopes of state, to whose history nobody comes back.
    State,
}

/// See the module.
#[derive(Clone)]
pub(super) enum GroupStore {
    Memory(Arc<MemoryStore>),
    File(Arc<FileStore>),
}

impl GroupStore {
    /// Errors: the data directory cannot be used.
    pub(super) fn open(
        config: &StoreConfig,
        holding: Holding,
        sink: Arc<dyn ChangeSink>,
        bounds: &Bounds,
    ) -> Result<Self, StartError> {
        let (limits, history_bytes_max) = match holding {
            Holding::Streams => (bounds.group, bounds.history_total_bytes_max),
            Holding::State => {
                let limits = GroupLimits {
                    history_changes_max: 0,
                    ..bounds.group
                };
                (limits, 0)
            }
        };
        let StoreConfig::File(file) = config else {
            let store = MemoryStore::new(&new_epoch(), sink, limits, history_bytes_max);
            return Ok(Self::Memory(Arc::new(store)));
        };
        let dir = match holding {
            Holding::Streams => file.dir.clone(),
            Holding::State => file.dir.join(STATE_DIR),
        };
        let options = file.options(limits, history_bytes_max);
        Ok(Self::File(Arc::new(FileStore::open(&dir, sink, options)?)))
    }

    pub(super) fn shared(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => store.clone(),
            Self::File(store) => store.clone(),
        }
    }

    /// Starts what goes on in the background until the server ends.
    pub(super) fn spawn_care(
        &self,
        background: &mut JoinSet<()>,
        is_watched: impl Fn(GroupRef<'_>) -> bool + Send + Sync + 'static,
    ) {
        match self.clone() {
            Self::Memory(store) => {
                let expiring = store.clone();
                background.spawn(async move { expiring.run_expiry().await });
                background.spawn(async move { store.run_forgetting(is_watched).await });
            }
            Self::File(store) => {
                let (expiring, caching) = (store.clone(), store.clone());
                background.spawn(async move { expiring.run_expiry().await });
                background.spawn(async move { caching.run_cache().await });
                background.spawn(async move { store.run_forgetting(is_watched).await });
            }
        }
    }

    /// Whether it can be written.
    pub(super) fn condition(&self) -> Condition {
        match self {
            Self::Memory(_) => Condition::Works,
            Self::File(store) => store.condition(),
        }
    }

    pub(super) fn groups_len(&self) -> usize {
        match self {
            Self::Memory(store) => store.groups_len(),
            Self::File(store) => store.readings().groups as usize,
        }
    }

    pub(super) fn history_bytes(&self) -> usize {
        match self {
            Self::Memory(store) => store.history_bytes(),
            Self::File(store) => store.readings().history_bytes as usize,
        }
    }

    /// What a store in a directory can tell.
    pub(super) fn file_readings(&self) -> Option<FileReadings> {
        match self {
            Self::Memory(_) => None,
            Self::File(store) => Some(store.readings()),
        }
    }

    pub(super) fn sync_seconds(&self) -> Option<Arc<Histogram<TimeBuckets>>> {
        match self {
            Self::Memory(_) => None,
            Self::File(store) => Some(store.sync_seconds()),
        }
    }

    /// Writes what waits, and lets go of the directory.
    pub(super) async fn close(self) {
        if let Self::File(store) = self {
            let closing = tokio::task::spawn_blocking(move || store.close());
            if let Err(error) = closing.await {
                tracing::error!("closing the store failed: {error}");
            }
        }
    }
}

/// A name for the history of this process's groups that no other process has: `[a-z0-9]+`.
fn new_epoch() -> String {
    let random = Uuid::new_v4().simple().to_string();
    random[..12].to_owned()
}
