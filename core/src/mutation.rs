//! Which mutations of which clients a group has taken, so that each takes effect once. Knows no items.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write as _;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

/// The last mutation that a group took from one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// Its sequence among the client's mutations.
    pub last: u64,
    /// What others may know the client by: see [`client_tag`].
    pub tag: Arc<str>,
}

/// What an event tells of the mutation it came from. Shape: `{"tag":"…","seq":112}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// See [`client_tag`].
    pub tag: Arc<str>,
    /// The mutation's sequence among the client's.
    pub seq: u64,
}

/// A name for a client that does not give its secret away: the first 16 bytes of its SHA-256 in hexadecimal.
pub fn client_tag(client: &str) -> Arc<str> {
    let digest = Sha256::digest(client.as_bytes());
    let mut tag = String::with_capacity(32);
    for byte in &digest[..16] {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.into()
}

/// The client records of one group. When there are more than allowed, the one that was not used for longest goes;
/// its client is then told `mutation_unknown`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientRecords {
    records: HashMap<Arc<str>, (ClientRecord, u64)>,
    /// Clients by when they were last used, counted in uses.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
}

impl ClientRecords {
    pub(crate) fn find(&self, client: &str) -> Option<&ClientRecord> {
        self.records.get(client).map(|(record, _)| record)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn store(&mut self, client: Arc<str>, record: ClientRecord, records_max: usize) {
        self.uses += 1;
        if let Some((_, used)) = self.records.insert(client.clone(), (record, self.uses)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, client);
        while records_max < self.records.len() {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.records.remove(&oldest);
        }
    }
}
