//! Reads groups: items as they are, and whole pictures at one moment for subscribers.

use std::sync::Arc;

use iii_stream_core::{Change, ClientRecord, Echo, Item, Position, client_tag, event};
use redis::Value;

use super::Shared;
use super::answer::{Parts, store_error};
use super::arguments::Arguments;
use super::committing::EMPTY_MS;
use super::history::{changes_of, changes_with_origin, fill_values};
use super::kept::{Head, Meta};
use super::keys::GroupKeys;
use super::scripts::LOOK;
use crate::redis_client::Slot;
use crate::store::{
    Clients, PAGE_BYTES_MAX, PAGE_ITEMS_MAX, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage,
    StoreError,
};

/// What is read of a group at one moment.
pub(super) struct Look<'w> {
    pub(super) reading: Reading<'w>,
    /// Whether a `sync` is stamped.
    pub(super) syncs: bool,
    /// Changes only where the history has this name.
    pub(super) epoch: Option<&'w str>,
    pub(super) changes_after: Option<u64>,
    /// Whether these are wanted with values also where operations lead to them.
    pub(super) needs_values: bool,
    pub(super) clients: &'w Clients,
}

/// Which items are read.
pub(super) enum Reading<'w> {
    Nothing,
    Item(&'w str),
    Page { after: u64 },
    All,
}

/// A group as it was at one moment.
pub(super) struct Looked {
    pub(super) meta: Meta,
    pub(super) timestamp: u64,
    /// The items with what their subscribers heard last, in order of creation.
    pub(super) items: Vec<(Arc<str>, Item)>,
    /// What the subscribers of the one item that was read heard last.
    heard_seq: Option<u64>,
    has_more: bool,
    clients: Vec<ClientRecord>,
    /// `None`: they were not asked for, or the history does not reach back.
    pub(super) changes: Option<Vec<Arc<Change>>>,
    /// The first change that must be read too where these are needed with values.
    origin: Option<u64>,
}

const NO_CLIENTS: &Clients = &None;

impl<'w> Look<'w> {
    pub(super) fn of(reading: Reading<'w>) -> Self {
        Self {
            reading,
            syncs: false,
            epoch: None,
            changes_after: None,
            needs_values: false,
            clients: NO_CLIENTS,
        }
    }
}

impl Shared {
    /// Sends a command.
    pub(super) async fn ask(&self, slot: Slot, command: redis::Cmd) -> Result<Value, StoreError> {
        let answer = self.client.call_by(slot, command, self.deadline()).await;
        answer.map_err(|error| store_error(&error))
    }

    pub(super) async fn get(
        &self,
        keys: &GroupKeys,
        item: &str,
    ) -> Result<Option<Item>, StoreError> {
        let mut read = redis::cmd("HMGET");
        read.arg(&*keys.group);
        read.arg(format!("h{item}")).arg(format!("v{item}"));
        let mut parts = Parts::of(self.ask(keys.slot, read).await?)?;
        let (head, value) = (parts.optional_bytes()?, parts.optional_bytes()?);
        let item = head.zip(value);
        item.map(|(head, value)| Head::read(&head)?.with_value(&value))
            .transpose()
    }

    pub(super) async fn list(&self, keys: &GroupKeys) -> Result<Vec<(Arc<str>, Item)>, StoreError> {
        let mut read = redis::cmd("HGETALL");
        read.arg(&*keys.group);
        items_of_hash(Parts::of(self.ask(keys.slot, read).await?)?)
    }

    pub(super) async fn snapshot(
        &self,
        keys: &GroupKeys,
        item: Option<&str>,
    ) -> Result<Snapshot, StoreError> {
        let look = Look {
            syncs: true,
            ..Look::of(item.map_or(Reading::All, Reading::Item))
        };
        let looked = self.look(keys, look).await?;
        Ok(Snapshot {
            epoch: looked.meta.epoch,
            seq: looked.meta.seq,
            timestamp: looked.timestamp,
            items: looked.items,
        })
    }

    pub(super) async fn page(
        &self,
        keys: &GroupKeys,
        wish: &PageWish,
    ) -> Result<SnapshotPage, StoreError> {
        let reading = match &wish.item {
            Some(item) => Reading::Item(item),
            None => Reading::Page { after: wish.after },
        };
        let look = Look {
            syncs: true,
            changes_after: wish.mutations_up_to.filter(|_| wish.clients.is_some()),
            clients: &wish.clients,
            ..Look::of(reading)
        };
        let looked = self.look(keys, look).await?;
        let mutations = match wish.mutations_up_to {
            Some(up_to) if !self.may_reach(looked.meta.seq, up_to) => Vec::new(),
            Some(_) => looked.mutations_before(looked.changes.as_deref()),
            None => looked.mutations_before(Some(&[])),
        };
        let last = looked.items.last().filter(|_| looked.has_more);
        Ok(SnapshotPage {
            next_after: last.map(|(_, item)| item.created_seq),
            epoch: looked.meta.epoch,
            seq: looked.meta.seq,
            timestamp: looked.timestamp,
            items: looked.items,
            mutations,
        })
    }

    pub(super) async fn resume(
        &self,
        keys: &GroupKeys,
        wish: &ResumeWish,
    ) -> Result<Option<Resumed>, StoreError> {
        let item = wish.item.as_deref();
        let since = wish.since.seq;
        let look = Look {
            syncs: true,
            epoch: Some(&wish.since.epoch),
            changes_after: Some(since),
            needs_values: wish.needs_values,
            clients: &wish.clients,
            ..Look::of(item.map_or(Reading::Nothing, Reading::Item))
        };
        let looked = self.look(keys, look).await?;
        if looked.meta.epoch != wish.since.epoch {
            return Ok(None);
        }
        // For an item that is there and has not changed since, there is no limit of age.
        let is_unchanged = since <= looked.meta.seq
            && looked.heard_seq.is_some_and(|heard_seq| heard_seq <= since);
        let mutations = looked.mutations_before(Some(&[]));
        let may_reach = self.may_reach(looked.meta.seq, since);
        let changes = match looked.changes {
            _ if is_unchanged => Vec::new(),
            Some(mut changes) if may_reach => {
                changes.retain(|change| event::wants(item, change));
                let lacks_value = |change: &Arc<Change>| change.value.is_none();
                if wish.needs_values && changes.iter().any(lacks_value) {
                    return Ok(None);
                }
                changes
            }
            _ => return Ok(None),
        };
        Ok(Some(Resumed {
            epoch: looked.meta.epoch,
            seq: looked.meta.seq,
            timestamp: looked.timestamp,
            changes,
            mutations,
        }))
    }

    /// Whether changes since `since` may be told. Redis may keep some more than the limit says, so that it trims seldom; those
    /// who come back do not see it.
    fn may_reach(&self, seq: u64, since: u64) -> bool {
        seq.saturating_sub(since) <= self.options.limits.history_changes_max as u64
    }

    /// Where a group's history is. A group that is missing is made.
    pub(super) async fn position(&self, keys: &GroupKeys) -> Result<Position, StoreError> {
        let Meta { epoch, seq, .. } = self.look(keys, Look::of(Reading::Nothing)).await?.meta;
        Ok(Position { epoch, seq })
    }

    pub(super) async fn look(
        &self,
        keys: &GroupKeys,
        look: Look<'_>,
    ) -> Result<Looked, StoreError> {
        let mut looked = self.look_once(keys, &look).await?;
        let Some(after) = look.changes_after.filter(|_| look.needs_values) else {
            return Ok(looked);
        };
        let Some(changes) = &mut looked.changes else {
            return Ok(looked);
        };
        if let Some(origin) = looked.origin.filter(|origin| *origin <= after) {
            // The values that the first of these changes begin with are older.
            let mut read = redis::cmd("XRANGE");
            read.arg(&*keys.history);
            read.arg(format!("{origin}-0")).arg(format!("{after}-0"));
            let older = Parts::of(self.ask(keys.slot, read).await?)?;
            changes.splice(..0, changes_of(older)?);
        }
        fill_values(changes)?;
        changes.retain(|change| after < change.seq);
        Ok(looked)
    }

    async fn look_once(&self, keys: &GroupKeys, look: &Look<'_>) -> Result<Looked, StoreError> {
        let mut arguments = Arguments::default();
        arguments.push(self.replication_id(keys.slot).as_bytes());
        arguments.push(self.new_name());
        arguments.push_number(self.floor_ms());
        arguments.push(if look.syncs { "1" } else { "0" });
        let (mode, item, after) = match look.reading {
            Reading::Nothing => ("none", "", 0),
            Reading::Item(item) => ("item", item, 0),
            Reading::Page { after } => ("page", "", after),
            Reading::All => ("all", "", 0),
        };
        arguments.push(mode);
        arguments.push(item);
        arguments.push_number(after);
        arguments.push_number(PAGE_ITEMS_MAX as u64);
        arguments.push_number(PAGE_BYTES_MAX as u64);
        arguments.push_number(EMPTY_MS);
        arguments.push(look.epoch.unwrap_or("*"));
        match look.changes_after.filter(|_| self.options.keeps_history) {
            Some(after) => arguments.push_number(after),
            None => arguments.push("-"),
        }
        let asked = look.clients.as_deref().unwrap_or_default();
        for client in asked {
            arguments.push_field(b'c', client);
        }
        let answer = self
            .client
            .script_by(
                keys.slot,
                &LOOK,
                &[&keys.group, &keys.order, &keys.history],
                &arguments.as_slices(),
                self.deadline(),
            )
            .await
            .map_err(|error| store_error(&error))?;
        let mut parts = Parts::of(answer)?;
        self.hear_now_ms(parts.number()?);
        let meta = Meta::read(&parts.bytes()?)?;
        let timestamp = parts.number()?;
        let has_more = parts.number()? == 1;
        let mut found = parts.parts()?;
        let mut heard_seq = None;
        let items = match look.reading {
            Reading::All => items_of_hash(found)?,
            _ => {
                let mut items = Vec::with_capacity(found.len() / 3);
                while 0 < found.len() {
                    let id = found.text()?.into();
                    let head = Head::read(&found.bytes()?)?;
                    heard_seq = Some(head.heard_seq);
                    items.push((id, head.with_value(&found.bytes()?)?));
                }
                items
            }
        };
        let mut records = parts.parts()?;
        let mut clients = Vec::new();
        for client in asked {
            if let Some(last) = records.optional_bytes()? {
                let last = std::str::from_utf8(&last)
                    .ok()
                    .and_then(|last| last.parse().ok());
                let last = last.ok_or_else(|| super::kept::damaged("a mutation"))?;
                let tag = client_tag(client);
                clients.push(ClientRecord { last, tag });
            }
        }
        let (changes, origin) = match parts.next() {
            Some(Value::Array(changes)) => {
                let (changes, origin) = changes_with_origin(Parts::of(Value::Array(changes))?)?;
                (Some(changes), origin)
            }
            _ => (None, None),
        };
        Ok(Looked {
            meta,
            timestamp,
            items,
            heard_seq,
            has_more,
            clients,
            changes,
            origin,
        })
    }
}

impl Looked {
    /// The last mutation of each client that had its effect before the changes in `later`.
    fn mutations_before(&self, later: Option<&[Arc<Change>]>) -> Vec<Echo> {
        let Some(later) = later else {
            return Vec::new();
        };
        let clients = self.clients.iter();
        clients.filter_map(|client| client.before(later)).collect()
    }
}

/// The items of a group's hash, in order of creation.
fn items_of_hash(mut parts: Parts) -> Result<Vec<(Arc<str>, Item)>, StoreError> {
    let mut heads = Vec::new();
    let mut values = hashbrown::HashMap::new();
    while 0 < parts.len() {
        let (name, content) = (parts.text()?, parts.bytes()?);
        if let Some(id) = name.strip_prefix('h') {
            heads.push((Arc::<str>::from(id), Head::read(&content)?));
        } else if let Some(id) = name.strip_prefix('v') {
            values.insert(id.to_owned(), content);
        }
    }
    heads.sort_unstable_by_key(|(_, head)| head.created_seq);
    let mut items = Vec::with_capacity(heads.len());
    for (id, head) in heads {
        if let Some(value) = values.get(&*id) {
            items.push((id, head.with_value(value)?));
        }
    }
    Ok(items)
}
