//! A whole group, as it is kept: written as bytes, and read again. Knows no steps.
//!
//! ```text
//! state   = seq, event_ms, gone_ms, sync_ms, mutations taken, clients, items
//! clients = count, for each (the one not used for longest first): client, last mutation
//! items   = count, for each (in order of creation): flags, created_seq, seq, timestamp, [heard_ms, heard_seq],
//!           [ttl_ms, expires_ms], id, value
//! history = count, [first seq], for each: flags, timestamp, [item], [label], [value], [ops], [base], [tag, mutation]
//! ```
//!
//! Numbers that follow from others but for a little are written as the difference.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decide::Kind;
use crate::items::KeptItem;
use crate::kept::{RestoreError, Source, push_number, push_text};
use crate::mutation::Echo;
use crate::stamp::{Change, Floor};
use crate::text::Json;

/// A group as it was when it was taken by [`Group::image`](crate::Group::image).
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) seq: u64,
    pub(crate) floor: Floor,
    /// How many mutations the group has taken.
    pub(crate) taken: u64,
    pub(crate) clients: Vec<(Arc<str>, u64)>,
    pub(crate) items: Vec<KeptItem>,
    pub(crate) history: Vec<Arc<Change>>,
}

/// Flags of an item.
const HAS_HEARD: u8 = 1;
const HAS_EXPIRY: u8 = 1 << 1;

/// Flags of a change in the history; the two low bits are its kind.
const CREATE: u8 = 0;
const UPDATE: u8 = 1;
const DELETE: u8 = 2;
const EVENT: u8 = 3;
const HAS_ITEM: u8 = 1 << 2;
const HAS_VALUE: u8 = 1 << 3;
const HAS_OPS: u8 = 1 << 4;
const HAS_BASE: u8 = 1 << 5;
const HAS_MUTATION: u8 = 1 << 6;

/// The least that a client, an item and a change take, in bytes.
const CLIENT_BYTES_MIN: usize = 2;
const ITEM_BYTES_MIN: usize = 6;
const CHANGE_BYTES_MIN: usize = 2;

impl Image {
    /// The sequence of the last change that is in it.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Appends all but the history. [`Group::from_image`](crate::Group::from_image) takes exactly these bytes.
    pub fn write_state(&self, out: &mut Vec<u8>) {
        push_number(out, self.seq);
        push_number(out, self.floor.event_ms);
        push_number(out, self.floor.gone_ms);
        push_number(out, self.floor.sync_ms);
        push_number(out, self.taken);
        push_number(out, self.clients.len() as u64);
        for (client, last) in &self.clients {
            push_text(out, client);
            push_number(out, *last);
        }
        push_number(out, self.items.len() as u64);
        let mut created_before = 0;
        for item in &self.items {
            push_item(out, item, created_before, self.floor.event_ms);
            created_before = item.created_seq;
        }
    }

    /// Appends the history. [`Group::restore_history`](crate::Group::restore_history) takes exactly these bytes.
    pub fn write_history(&self, out: &mut Vec<u8>) {
        push_number(out, self.history.len() as u64);
        let Some(first) = self.history.first() else {
            return;
        };
        push_number(out, first.seq);
        let mut timestamp = 0;
        for change in &self.history {
            push_change(out, change, timestamp);
            timestamp = change.timestamp;
        }
    }
}

/// Appends an item. No item's timestamp is later than the group's last, `event_ms`.
fn push_item(out: &mut Vec<u8>, item: &KeptItem, created_before: u64, event_ms: u64) {
    let has_heard = item.heard_seq != item.seq;
    let heard_flag = if has_heard { HAS_HEARD } else { 0 };
    let expiry_flag = if item.expiry.is_some() { HAS_EXPIRY } else { 0 };
    out.push(heard_flag | expiry_flag);
    push_number(out, item.created_seq - created_before);
    push_number(out, item.seq - item.created_seq);
    push_number(out, event_ms - item.timestamp);
    if has_heard {
        push_number(out, item.heard_ms - item.timestamp);
        push_number(out, item.heard_seq - item.seq);
    }
    if let Some((ttl_ms, expires_ms)) = item.expiry {
        push_number(out, ttl_ms);
        // By the clock, which no timestamp is behind.
        push_number(out, (item.timestamp + ttl_ms).saturating_sub(expires_ms));
    }
    push_text(out, &item.id);
    push_text(out, item.value.as_str());
}

fn push_change(out: &mut Vec<u8>, change: &Change, timestamp_before: u64) {
    let kind = match change.kind {
        Kind::Create => CREATE,
        Kind::Update => UPDATE,
        Kind::Delete => DELETE,
        Kind::Event { .. } => EVENT,
    };
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    out.push(
        kind | flag(HAS_ITEM, change.item.is_some())
            | flag(HAS_VALUE, change.value.is_some())
            | flag(HAS_OPS, change.ops.is_some())
            | flag(HAS_BASE, change.base.is_some())
            | flag(HAS_MUTATION, change.mutation.is_some()),
    );
    // A group's timestamps never decrease.
    push_number(out, change.timestamp.saturating_sub(timestamp_before));
    if let Some(item) = &change.item {
        push_text(out, item);
    }
    if let Kind::Event { label } = &change.kind {
        push_text(out, label.as_str());
    }
    for text in [&change.value, &change.ops].into_iter().flatten() {
        push_text(out, text.as_str());
    }
    if let Some(base) = change.base {
        push_number(out, change.seq - base);
    }
    if let Some(Echo { tag, seq }) = &change.mutation {
        push_text(out, tag);
        push_number(out, *seq);
    }
}

/// Reads the state of an image, part by part in their order.
pub(crate) struct StateReader<'b> {
    source: Source<'b>,
    pub(crate) seq: u64,
    pub(crate) floor: Floor,
    pub(crate) taken: u64,
    created_before: u64,
}

impl<'b> StateReader<'b> {
    pub(crate) fn new(state: &'b [u8]) -> Result<Self, RestoreError> {
        let mut source = Source::new(state);
        let seq = source.number()?;
        let floor = Floor {
            event_ms: source.number()?,
            gone_ms: source.number()?,
            sync_ms: source.number()?,
        };
        let taken = source.number()?;
        Ok(Self {
            source,
            seq,
            floor,
            taken,
            created_before: 0,
        })
    }

    /// How many clients there are: no more than mutations were taken.
    pub(crate) fn clients_len(&mut self) -> Result<usize, RestoreError> {
        let count = self.source.count(CLIENT_BYTES_MIN)?;
        if self.taken < count as u64 {
            return Err(self.wrong("there are more clients than mutations"));
        }
        Ok(count)
    }

    pub(crate) fn client(&mut self) -> Result<(&'b str, u64), RestoreError> {
        Ok((self.source.text()?, self.source.number()?))
    }

    pub(crate) fn items_len(&mut self) -> Result<usize, RestoreError> {
        self.source.count(ITEM_BYTES_MIN)
    }

    pub(crate) fn item(&mut self) -> Result<KeptItem, RestoreError> {
        let source = &mut self.source;
        let flags = source.byte()?;
        let created_seq = source.above(self.created_before)?;
        let seq = source.above(created_seq)?;
        let timestamp = source.below(self.floor.event_ms)?;
        let (mut heard_ms, mut heard_seq) = (timestamp, seq);
        if flags & HAS_HEARD != 0 {
            heard_ms = source.above(timestamp)?;
            heard_seq = source.above(seq)?;
        }
        let mut expiry = None;
        if flags & HAS_EXPIRY != 0 {
            let ttl_ms = source.number()?;
            expiry = Some((ttl_ms, source.below(timestamp + ttl_ms)?));
        }
        if created_seq == self.created_before || self.seq < seq.max(heard_seq) {
            return Err(source.wrong("an item has a sequence that it cannot have"));
        }
        self.created_before = created_seq;
        Ok(KeptItem {
            id: source.text()?.into(),
            value: Json::from_kept(source.text()?),
            seq,
            created_seq,
            timestamp,
            heard_ms,
            heard_seq,
            expiry,
        })
    }

    pub(crate) fn end(&self) -> Result<(), RestoreError> {
        self.source.end()
    }

    pub(crate) fn wrong(&self, what: &'static str) -> RestoreError {
        self.source.wrong(what)
    }
}

/// Reads the history of an image. `key` gives ids that can be shared.
pub(crate) fn read_history(
    history: &[u8],
    key: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<Vec<Change>, RestoreError> {
    let mut source = Source::new(history);
    let mut changes = Vec::new();
    let count = source.count(CHANGE_BYTES_MIN)?;
    if 0 < count {
        let first = source.number()?;
        let mut timestamp = 0;
        let mut tag: Option<Arc<str>> = None;
        for seq in (first..).take(count) {
            let change = read_change(&mut source, seq, timestamp, &key, &mut tag)?;
            timestamp = change.timestamp;
            changes.push(change);
        }
    }
    source.end()?;
    Ok(changes)
}

/// Reads one change. `tag_before` is the last tag that was read: the next is often the same.
fn read_change(
    source: &mut Source<'_>,
    seq: u64,
    timestamp_before: u64,
    key: impl Fn(&str) -> Option<Arc<str>>,
    tag_before: &mut Option<Arc<str>>,
) -> Result<Change, RestoreError> {
    let flags = source.byte()?;
    let has = |flag| flags & flag != 0;
    let timestamp = source.above(timestamp_before)?;
    let mut item = None;
    if has(HAS_ITEM) {
        let id = source.text()?;
        item = Some(key(id).unwrap_or_else(|| id.into()));
    }
    let kind = match flags & EVENT {
        CREATE => Kind::Create,
        UPDATE => Kind::Update,
        DELETE => Kind::Delete,
        _ => Kind::Event {
            label: Json::from_kept(source.text()?),
        },
    };
    let mut text = |flag| match has(flag) {
        true => source.text().map(|text| Some(Json::from_kept(text))),
        false => Ok(None),
    };
    let (value, ops) = (text(HAS_VALUE)?, text(HAS_OPS)?);
    let base = match has(HAS_BASE) {
        true => Some(source.below(seq)?),
        false => None,
    };
    let mut mutation = None;
    if has(HAS_MUTATION) {
        let text = source.text()?;
        let same = tag_before.take().filter(|tag| **tag == *text);
        let tag = same.unwrap_or_else(|| text.into());
        *tag_before = Some(tag.clone());
        let seq = source.number()?;
        mutation = Some(Echo { tag, seq });
    }
    Ok(Change {
        seq,
        timestamp,
        item,
        kind,
        value,
        ops,
        base,
        mutation,
    })
}
