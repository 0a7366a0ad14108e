//! One group: its items in order, its sequence, its timestamps, the mutations it has taken. Knows no other group,
//! no storage and no subscribers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::command::{Action, Command};
use crate::decide::{Current, Decision, Draft, Kind, Outcome, Refusal, Reply, Ttl, decide};
use crate::mutation::ClientRecords;
use crate::stamp::{Change, Floor, stamp};
use crate::text::Json;

/// An item as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its value.
    pub value: Json,
    /// The group's sequence at its last change; serves as its version.
    pub seq: u64,
    /// The group's sequence at its creation: lists are in this order.
    pub created_seq: u64,
    /// The timestamp of its last change, in Unix milliseconds.
    pub timestamp: u64,
    /// The latest timestamp that its subscribers have seen; later than `timestamp` after a `send`.
    heard_ms: u64,
    ttl_ms: Option<u64>,
    /// When it goes if it is not written again, in Unix milliseconds.
    expires_ms: Option<u64>,
}

/// What a command did to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What the caller is told.
    pub reply: Reply,
    /// What happened, for everybody who follows the group.
    pub change: Option<Arc<Change>>,
}

/// The state of one group. Every change goes through [`Group::commit`] or [`Group::expire`].
#[derive(Clone, Debug)]
pub struct Group {
    epoch: Arc<str>,
    seq: u64,
    floor: Floor,
    items: HashMap<Arc<str>, Item>,
    /// Ids by the sequence of their creation. Apart from the map, because taking an id out of an
    /// insertion-ordered map costs as much as the map is long.
    order: BTreeMap<u64, Arc<str>>,
    /// When items go, with the sequence of their creation.
    expiries: BTreeSet<(u64, u64)>,
    clients: ClientRecords,
    /// What ids and values take, in bytes.
    bytes: usize,
    limits: GroupLimits,
}

/// The bounds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Items; one more is refused with `group_full`.
    pub items_max: usize,
    /// Bytes of ids and values together; a write that grows beyond it is refused with `group_full`.
    pub bytes_max: usize,
    /// Mutation clients that are remembered; beyond it the one that was silent for longest is forgotten.
    pub client_records_max: usize,
}

impl Group {
    /// An empty group. `epoch` names its history; every timestamp will be later than `floor`.
    pub fn new(epoch: Arc<str>, floor: Floor, limits: GroupLimits) -> Self {
        Self {
            epoch,
            seq: 0,
            floor,
            items: HashMap::new(),
            order: BTreeMap::new(),
            expiries: BTreeSet::new(),
            clients: ClientRecords::default(),
            bytes: 0,
            limits,
        }
    }

    /// The name of this group's history.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// The sequence of the last change; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The timestamps that the next ones will be above.
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether nothing is lost when this group is forgotten, but for its floor.
    pub fn is_forgettable(&self) -> bool {
        self.items.is_empty() && self.clients.is_empty()
    }

    /// One item.
    pub fn get(&self, id: &str) -> Option<&Item> {
        self.items.get(id)
    }

    /// All items with their ids, in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Item)> {
        self.order
            .values()
            .filter_map(|id| self.items.get_key_value(id))
    }

    /// The timestamp of a `sync` that is sent now.
    pub fn sync_timestamp(&mut self, now_ms: u64) -> u64 {
        self.floor.sync(now_ms)
    }

    /// Carries out a command, or refuses it; either way the reply says so.
    pub fn commit(&mut self, command: Command, now_ms: u64) -> Committed {
        let item = command.item.as_deref().and_then(|id| self.items.get(id));
        let current = item.map(|item| Current {
            value: item.value.clone(),
            seq: item.seq,
        });
        let record = command
            .mutation
            .as_ref()
            .and_then(|mutation| self.clients.find(&mutation.client));
        let Decision {
            mut reply,
            draft,
            client,
        } = decide(current, command, record);
        if let Some((client, record)) = client {
            self.clients
                .store(client, record, self.limits.client_records_max);
        }
        let draft = draft.and_then(|draft| match self.check_room(&draft) {
            Ok(()) => Some(draft),
            Err(refusal) => {
                reply.outcome = Outcome::Refused(refusal);
                None
            }
        });
        let change = draft.map(|draft| self.install(draft, now_ms));
        reply.seq = change.as_ref().map(|change| change.seq);
        Committed { reply, change }
    }

    /// Stamps a change of an item that is kept elsewhere. Nothing is known of the item's last timestamp, so this one is
    /// later than every event of the group.
    pub fn announce(&mut self, draft: Draft, now_ms: u64) -> Arc<Change> {
        self.seq += 1;
        let item_ms = draft.item.is_some().then_some(self.floor.event_ms);
        Arc::new(stamp(draft, &mut self.floor, item_ms, self.seq, now_ms))
    }

    /// When the next item goes, in Unix milliseconds.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|&(expires_ms, _)| expires_ms)
    }

    /// Deletes at most `deletes_max` items whose time has come.
    pub fn expire(&mut self, now_ms: u64, deletes_max: usize) -> Vec<Arc<Change>> {
        let mut changes = Vec::new();
        while changes.len() < deletes_max
            && let Some(&(expires_ms, created_seq)) = self.expiries.first()
            && expires_ms <= now_ms
            && let Some(id) = self.order.get(&created_seq).cloned()
        {
            let command = Command {
                item: Some(id),
                action: Action::Delete,
                condition: None,
                mutation: None,
                returning: None,
            };
            changes.extend(self.commit(command, now_ms).change);
        }
        changes
    }

    /// Whether the group may grow by what a draft adds.
    fn check_room(&self, draft: &Draft) -> Result<(), Refusal> {
        let (Some(id), Kind::Create | Kind::Update) = (&draft.item, &draft.kind) else {
            return Ok(());
        };
        let GroupLimits {
            items_max,
            bytes_max,
            ..
        } = self.limits;
        let old_bytes = self.items.get(id).map(|item| bytes_of(id, &item.value));
        if old_bytes.is_none() && items_max <= self.items.len() {
            return Err(Refusal::TooManyItems { items_max });
        }
        let new_bytes = bytes_of(id, &draft.value);
        // A group that is too large already can still shrink.
        let grows = old_bytes.unwrap_or(0) < new_bytes;
        if grows && bytes_max < self.bytes - old_bytes.unwrap_or(0) + new_bytes {
            return Err(Refusal::TooManyBytes { bytes_max });
        }
        Ok(())
    }

    fn install(&mut self, draft: Draft, now_ms: u64) -> Arc<Change> {
        self.seq += 1;
        let ttl = draft.ttl;
        let item_ms = draft
            .item
            .as_deref()
            .and_then(|id| self.items.get(id))
            .map(|item| item.heard_ms);
        let change = stamp(draft, &mut self.floor, item_ms, self.seq, now_ms);
        if let Some(id) = &change.item {
            match change.kind {
                Kind::Create => self.create(id, &change, ttl, now_ms),
                Kind::Update => self.update(id, &change, ttl, now_ms),
                Kind::Delete => self.delete(id),
                Kind::Event { .. } => {
                    if let Some(item) = self.items.get_mut(id) {
                        item.heard_ms = change.timestamp;
                    }
                }
            }
        }
        Arc::new(change)
    }

    fn create(&mut self, id: &Arc<str>, change: &Change, ttl: Ttl, now_ms: u64) {
        let item = Item {
            value: change.value.clone(),
            seq: change.seq,
            created_seq: change.seq,
            timestamp: change.timestamp,
            heard_ms: change.timestamp,
            ttl_ms: None,
            expires_ms: None,
        };
        self.bytes += bytes_of(id, &item.value);
        self.order.insert(change.seq, id.clone());
        let item = self.items.entry(id.clone()).insert(item).into_mut();
        item.schedule(&mut self.expiries, ttl, now_ms);
    }

    fn update(&mut self, id: &Arc<str>, change: &Change, ttl: Ttl, now_ms: u64) {
        let Some(item) = self.items.get_mut(id) else {
            return;
        };
        self.bytes = self.bytes - bytes_of(id, &item.value) + bytes_of(id, &change.value);
        item.value = change.value.clone();
        item.seq = change.seq;
        item.timestamp = change.timestamp;
        item.heard_ms = change.timestamp;
        item.schedule(&mut self.expiries, ttl, now_ms);
    }

    fn delete(&mut self, id: &Arc<str>) {
        let Some(item) = self.items.remove(id) else {
            return;
        };
        self.bytes -= bytes_of(id, &item.value);
        self.order.remove(&item.created_seq);
        if let Some(expires_ms) = item.expires_ms {
            self.expiries.remove(&(expires_ms, item.created_seq));
        }
    }
}

fn bytes_of(id: &str, value: &Json) -> usize {
    id.len() + value.as_str().len()
}

impl Item {
    /// An item that is kept elsewhere: it has no version here.
    pub fn unversioned(value: Json) -> Self {
        Self {
            value,
            seq: 0,
            created_seq: 0,
            timestamp: 0,
            heard_ms: 0,
            ttl_ms: None,
            expires_ms: None,
        }
    }

    /// Starts the time to live anew.
    fn schedule(&mut self, expiries: &mut BTreeSet<(u64, u64)>, ttl: Ttl, now_ms: u64) {
        if let Some(expires_ms) = self.expires_ms.take() {
            expiries.remove(&(expires_ms, self.created_seq));
        }
        if let Ttl::Replace(ttl_ms) = ttl {
            self.ttl_ms = ttl_ms;
        }
        self.expires_ms = self.ttl_ms.map(|ttl_ms| now_ms + ttl_ms);
        if let Some(expires_ms) = self.expires_ms {
            expiries.insert((expires_ms, self.created_seq));
        }
    }
}
