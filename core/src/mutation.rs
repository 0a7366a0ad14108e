//! Which mutations of which clients a group has taken, so that each takes effect once. Knows no items.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write as _;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use crate::stamp::Change;

/// The last mutation that a group took from one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// Its sequence among the client's mutations.
    pub last: u64,
    /// What others may know the client by: see [`client_tag`].
    pub tag: Arc<str>,
}

impl ClientRecord {
    /// The last mutation that had its effect before the changes in `later`, with all before it; `None` if there is none.
    /// `later` are the group's last changes, in order.
    pub fn before(&self, later: &[Arc<Change>]) -> Option<Echo> {
        let mut echoes = later.iter().filter_map(|change| change.mutation.as_ref());
        let last = match echoes.find(|echo| echo.tag == self.tag) {
            Some(first_later) => first_later.seq - 1,
            None => self.last,
        };
        let tag = self.tag.clone();
        (0 < last).then_some(Echo { tag, seq: last })
    }
}

/// What a group knows of a mutation's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState<'r> {
    /// The last mutation that was taken from it.
    Known(&'r ClientRecord),
    /// It was never here: nobody was ever forgotten.
    New,
    /// It is not known any more, or never was.
    Unknown,
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

/// What a client with a name of 36 bytes takes, in bytes. Measured by what is allocated.
const RECORD_BYTES: usize = 240;

/// The client records of one group. When there are more than allowed, the one that was not used for longest goes;
/// its client is then told `mutation_unknown`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientRecords {
    records: HashMap<Arc<str>, (ClientRecord, u64)>,
    /// The mutations taken from those who are known: every client begins at 1 and goes on by 1.
    taken_from_known: u64,
    /// Clients by when they were last used, counted in uses.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
}

impl ClientRecords {
    pub(crate) fn find(&self, client: &str) -> Option<&ClientRecord> {
        self.records.get(client).map(|(record, _)| record)
    }

    /// What is known of a client.
    pub(crate) fn state(&self, client: &str) -> ClientState<'_> {
        match self.find(client) {
            Some(record) => ClientState::Known(record),
            None if self.uses == self.taken_from_known => ClientState::New,
            None => ClientState::Unknown,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// About what the records take in memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.records.len() * RECORD_BYTES
    }

    /// How many mutations were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.uses
    }

    /// Takes `taken` as the number of mutations that were taken before those that follow.
    pub(crate) fn start_at(&mut self, taken: u64) {
        self.uses = taken;
    }

    /// The clients with the last mutation taken from each, the one that was not used for longest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let clients = self.by_use.values();
        clients.filter_map(|client| Some((client, self.find(client)?.last)))
    }

    /// Takes a mutation again that had been taken; gives its echo.
    pub(crate) fn take_again(&mut self, client: &str, seq: u64, records_max: usize) -> Echo {
        let known = self.records.get_key_value(client);
        let (client, record) = match known {
            Some((client, (record, _))) => (client.clone(), record.clone()),
            None => (
                client.into(),
                ClientRecord {
                    last: seq,
                    tag: client_tag(client),
                },
            ),
        };
        let tag = record.tag.clone();
        // A record only moves forward.
        let last = record.last.max(seq);
        self.store(client, ClientRecord { last, ..record }, records_max);
        Echo { tag, seq }
    }

    pub(crate) fn store(&mut self, client: Arc<str>, record: ClientRecord, records_max: usize) {
        self.uses += 1;
        // What was kept is not trusted to add up.
        self.taken_from_known = self.taken_from_known.wrapping_add(record.last);
        if let Some((before, used)) = self.records.insert(client.clone(), (record, self.uses)) {
            self.taken_from_known = self.taken_from_known.wrapping_sub(before.last);
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, client);
        while records_max < self.records.len() {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some((forgotten, _)) = self.records.remove(&oldest) {
                self.taken_from_known = self.taken_from_known.wrapping_sub(forgotten.last);
            }
        }
    }
}
