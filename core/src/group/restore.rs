//! A group from what was kept of it: steps that are done again, and images. Decides nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Group, GroupLimits};
use crate::decide::Kind;
use crate::image::{Image, StateReader, read_history};
use crate::items::Needs;
use crate::kept::{RestoreError, Source};
use crate::op::Ops;
use crate::stamp::{Change, Moment};
use crate::step::{Body, Head, Payload};
use crate::text::Json;

/// What became of a step that was to be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It was done.
    Done,
    /// The group had it already.
    Skipped,
}

impl Group {
    /// Does a step again, as [`Step::write`](crate::Step::write) wrote it; one that the group has already is skipped. The
    /// bounds of items and bytes do not count: they did when it happened. The timestamps of a `sync` are not in steps: see
    /// [`Group::raise_sync`].
    ///
    /// Errors: [`RestoreError`]; then the group is as it was.
    pub fn restore(&mut self, step: &[u8]) -> Result<Restored, RestoreError> {
        let mut source = Source::new(step);
        let head = Head::read(&mut source)?;
        let last = if head.is_taken() {
            self.clients.taken()
        } else {
            self.seq
        };
        if head.number <= last {
            return Ok(Restored::Skipped);
        }
        if head.number != last + 1 {
            let (expected, got) = (last + 1, head.number);
            return Err(RestoreError::Gap { expected, got });
        }
        let records_max = self.limits.client_records_max;
        if head.is_taken() {
            let (client, mutation) = head.client(&mut source)?;
            self.clients.take_again(client, mutation, records_max);
            return Ok(Restored::Done);
        }
        let body = head.body(&mut source)?;
        let seq = head.number;
        let timestamp = body.timestamp;
        let Outcome { change, is_gone } =
            self.redo(seq, &body).map_err(|what| source.wrong(what))?;
        self.seq = seq;
        self.floor.event_ms = self.floor.event_ms.max(timestamp);
        if is_gone {
            self.floor.gone_ms = self.floor.gone_ms.max(timestamp);
        }
        let echo = body
            .client
            .map(|(client, mutation)| self.clients.take_again(client, mutation, records_max));
        match change {
            Some(change) => {
                let change = Change {
                    mutation: echo,
                    ..change
                };
                self.history.push(&Arc::new(change), &self.limits);
            }
            None => self.history.trim(0),
        }
        Ok(Restored::Done)
    }

    /// The group as it is now, to be kept. Shares ids and values, and writes the texts that were not needed so far.
    pub fn image(&mut self) -> Image {
        Image {
            seq: self.seq,
            floor: self.floor,
            taken: self.clients.taken(),
            clients: self
                .clients
                .iter()
                .map(|(client, last)| (client.clone(), last))
                .collect(),
            items: self.items.kept(),
            history: self.history.changes(),
        }
    }

    /// A group from the state of its [`Image`], without its history. Of `limits`, only that of client records counts at once.
    ///
    /// Errors: [`RestoreError::Malformed`].
    pub fn from_image(
        epoch: Arc<str>,
        state: &[u8],
        limits: GroupLimits,
    ) -> Result<Self, RestoreError> {
        let mut reader = StateReader::new(state)?;
        let mut group = Self::new(epoch, reader.floor, limits);
        group.seq = reader.seq;
        let clients = reader.clients_len()?;
        // As many mutations were taken as there are clients, at least: the reader has checked that.
        group.clients.start_at(reader.taken - clients as u64);
        for _ in 0..clients {
            let (client, last) = reader.client()?;
            group
                .clients
                .take_again(client, last, limits.client_records_max);
        }
        let items = reader.items_len()?;
        group.items.reserve(items);
        for _ in 0..items {
            let item = reader.item()?;
            if !group.items.put(item) {
                return Err(reader.wrong("an item is there twice"));
            }
        }
        reader.end()?;
        Ok(group)
    }

    /// Puts the history of an [`Image`] before the changes that the group has. Where the two do not join it is left as it
    /// is; beyond the bounds the oldest changes fall away first.
    ///
    /// Errors: [`RestoreError::Malformed`]; then the group is as it was.
    pub fn restore_history(&mut self, history: &[u8]) -> Result<(), RestoreError> {
        let changes = read_history(history, |id| self.items.key(id))?;
        let next = self.history.first_seq().unwrap_or(self.seq + 1);
        if changes.last().is_some_and(|last| last.seq + 1 == next) {
            let shared = changes.into_iter().map(|change| self.shared(change));
            let older: Vec<_> = shared.map(Arc::new).collect();
            self.history.extend_back(older, &self.limits);
        }
        Ok(())
    }

    /// A change with the value of its item, where that is the same: so it is in memory once.
    fn shared(&self, change: Change) -> Change {
        let value = change
            .item
            .as_deref()
            .filter(|_| change.value.is_some() && !matches!(change.kind, Kind::Event { .. }))
            .and_then(|id| self.items.written_at(id, change.seq))
            .filter(|value| change.value.as_ref() == Some(value))
            .or(change.value);
        Change { value, ..change }
    }

    /// Does to the items what a step did. The error says what is wrong; then they are as they were.
    fn redo(&mut self, seq: u64, body: &Body<'_>) -> Result<Outcome, &'static str> {
        let Body {
            timestamp,
            now_ms,
            ttl,
            item,
            ..
        } = *body;
        let moment = Moment { seq, timestamp };
        // Only events and announcements can be without an item, which the reader has checked.
        let id = item.unwrap_or_default();
        let missing = "an item is changed that is not there";
        let mut is_gone = false;
        let (item, kind, value, ops, base) = match body.payload {
            Payload::Create(text) => {
                if self.items.seq(id).is_some() {
                    return Err("an item is created that is there");
                }
                let (id, value) = (Arc::from(id), Json::from_kept(text));
                self.items.create(&id, value.clone(), moment, ttl, now_ms);
                (Some(id), Kind::Create, Some(value), None, None)
            }
            Payload::Set(text) => {
                let value = Json::from_kept(text);
                let written = self
                    .items
                    .write(id, Some(value.clone()), moment, ttl, now_ms);
                let (id, base) = written.ok_or(missing)?;
                (
                    Some(id.clone()),
                    Kind::Update,
                    Some(value),
                    None,
                    Some(base),
                )
            }
            Payload::Ops(text) => {
                let ops = Ops::from_kept(text).ok_or("the operations cannot be read")?;
                if !self.items.is_readable(id).ok_or(missing)? {
                    return Err("the value before cannot be read");
                }
                let limits = GroupLimits {
                    bytes_max: usize::MAX,
                    ..self.limits
                };
                let needs = Needs {
                    old: false,
                    new: false,
                };
                // Without a bound, nothing is refused.
                let updated = self.items.update(id, &ops, false, needs, &limits);
                let value = updated.ok().flatten().and_then(|updated| updated.new);
                let written = self.items.write(id, None, moment, ttl, now_ms);
                let (id, base) = written.ok_or(missing)?;
                let ops = Some(ops.text().clone());
                (Some(id.clone()), Kind::Update, value, ops, Some(base))
            }
            Payload::Delete => {
                let (id, item) = self.items.take(id).ok_or(missing)?;
                is_gone = true;
                (
                    Some(id),
                    Kind::Delete,
                    Some(item.value),
                    None,
                    Some(item.seq),
                )
            }
            Payload::Event { label, data } => {
                let label = Json::from_kept(label);
                let data = Some(Json::from_kept(data));
                let heard = item.and_then(|id| self.items.hear(id, moment));
                let (known, base) = heard.map(|(id, base)| (id.clone(), base)).unzip();
                is_gone = item.is_some() && known.is_none();
                let item = item.map(|id| known.unwrap_or_else(|| id.into()));
                (item, Kind::Event { label }, data, None, base)
            }
            Payload::Announced { deletes } => {
                if item.is_some() {
                    self.items.hear(id, moment);
                }
                return Ok(Outcome {
                    change: None,
                    is_gone: deletes && item.is_some(),
                });
            }
        };
        let change = Change {
            seq,
            timestamp,
            item,
            kind,
            value,
            ops,
            base,
            mutation: None,
        };
        Ok(Outcome {
            change: Some(change),
            is_gone,
        })
    }
}

/// What a step came to.
struct Outcome {
    /// What the history takes; `None` leaves it empty.
    change: Option<Change>,
    /// Whether the item is not there any more, or never was.
    is_gone: bool,
}
