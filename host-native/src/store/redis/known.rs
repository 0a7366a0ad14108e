//! What an instance last knew of a group's items and clients. It may be out of date: every decision is verified where the group
//! is kept.

use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::{ClientRecord, ClientState, Json};

/// What an entry takes beside its texts, in bytes.
const ENTRY_BYTES: usize = 120;

/// See the module. It holds for one epoch.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) epoch: Option<Arc<str>>,
    /// The group's last sequence.
    pub(super) seq: u64,
    /// The latest timestamp that the group gave out.
    pub(super) latest_ms: u64,
    /// `None`: it is not there.
    items: HashMap<Arc<str>, Option<KnownItem>>,
    clients: HashMap<Arc<str>, KnownClient>,
    bytes: usize,
}

/// An item that is there.
#[derive(Clone, Debug)]
pub(super) struct KnownItem {
    pub(super) value: Json,
    pub(super) seq: u64,
}

/// A mutation client.
#[derive(Clone, Debug)]
pub(super) enum KnownClient {
    Known(ClientRecord),
    New,
    Unknown,
}

impl KnownClient {
    pub(super) fn state(&self) -> ClientState<'_> {
        match self {
            Self::Known(record) => ClientState::Known(record),
            Self::New => ClientState::New,
            Self::Unknown => ClientState::Unknown,
        }
    }
}

impl Known {
    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.epoch.is_none() && self.items.is_empty() && self.clients.is_empty()
    }

    /// Takes note of the group as a whole; what was known in another epoch is forgotten.
    pub(super) fn hear(&mut self, epoch: &Arc<str>, seq: u64, latest_ms: u64) {
        if self.epoch.as_ref() != Some(epoch) {
            self.forget();
            self.epoch = Some(epoch.clone());
        }
        self.seq = seq;
        self.latest_ms = self.latest_ms.max(latest_ms);
    }

    /// Forgets all but the latest timestamp.
    pub(super) fn forget(&mut self) {
        *self = Self {
            latest_ms: self.latest_ms,
            ..Self::default()
        };
    }

    /// About what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An item; what is not known is taken as missing.
    pub(super) fn item(&self, id: &str) -> Option<&KnownItem> {
        self.items.get(id)?.as_ref()
    }

    pub(super) fn client(&self, client: &str) -> KnownClient {
        self.clients
            .get(client)
            .cloned()
            .unwrap_or(KnownClient::New)
    }

    pub(super) fn set_item(&mut self, id: Arc<str>, item: Option<KnownItem>) {
        let cost = |id: &str, item: &Option<KnownItem>| {
            let value = item.as_ref().map_or(0, |item| item.value.as_str().len());
            ENTRY_BYTES + id.len() + value
        };
        self.bytes += cost(&id, &item);
        let id_bytes = id.clone();
        if let Some(before) = self.items.insert(id, item) {
            self.bytes -= cost(&id_bytes, &before);
        }
    }

    pub(super) fn set_client(&mut self, client: Arc<str>, state: KnownClient) {
        let cost = ENTRY_BYTES + client.len();
        if self.clients.insert(client, state).is_none() {
            self.bytes += cost;
        }
    }
}
