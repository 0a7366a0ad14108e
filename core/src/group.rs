//! One group: its items, its sequence, its timestamps, the mutations it has taken, its last changes. Knows no other
//! group, no storage and no subscribers.

mod restore;

pub use restore::Restored;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::{Action, Command, Mutation, Returning};
use crate::decide::{
    Decision, Draft, Kind, Outcome, Refusal, Reply, Subject, TextItem, Ttl, Updated, decide_on,
};
use crate::history::History;
use crate::items::{Items, Needs};
use crate::mutation::{ClientRecords, ClientState, Echo};
use crate::op::Ops;
use crate::stamp::{Change, Floor, stamp};
use crate::step::Step;
use crate::text::Json;

/// How long updates tell values after the last one that had to: a follower that dropped off and comes back in time
/// finds them in the history, in milliseconds.
const VALUES_LINGER_MS: u64 = 60_000;

/// What an empty group takes, in bytes, with the least room of its tables.
const GROUP_BYTES: usize = size_of::<Group>() + 500;

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
    /// How long it lives after a write, in milliseconds; `None` is for good.
    pub ttl_ms: Option<u64>,
    /// When it goes if it is not written again, in Unix milliseconds; there exactly where `ttl_ms` is.
    pub expires_ms: Option<u64>,
}

impl Item {
    /// An item that is kept elsewhere: it has no version here.
    pub fn unversioned(value: Json) -> Self {
        Self {
            value,
            seq: 0,
            created_seq: 0,
            timestamp: 0,
            ttl_ms: None,
            expires_ms: None,
        }
    }
}

/// A part of a group's items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The items with their ids, in order of creation.
    pub items: Vec<(Arc<str>, Item)>,
    /// Whether there are items after these.
    pub more: bool,
}

impl Page {
    /// After which item the next page begins, if there is one.
    pub fn next_after(&self) -> Option<u64> {
        let (_, last) = self.items.last()?;
        self.more.then_some(last.created_seq)
    }
}

/// What those who follow a group need of an update by operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The operations do: the new value may be left unwritten.
    Ops,
    /// The values before and after.
    Values,
}

/// What a command did to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What the caller is told.
    pub reply: Reply,
    /// What happened, for everybody who follows the group.
    pub change: Option<Arc<Change>>,
    /// What must be kept of it; `None` is nothing.
    pub step: Option<Step>,
}

/// The state of one group. Every change goes through [`Group::commit`], [`Group::expire`] or [`Group::announce`], and can be
/// done again from its [`Step`] by [`Group::restore`].
#[derive(Clone, Debug)]
pub struct Group {
    epoch: Arc<str>,
    seq: u64,
    floor: Floor,
    items: Items,
    clients: ClientRecords,
    history: History,
    /// When values were last demanded, in Unix milliseconds.
    values_ms: Option<u64>,
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
    /// Items that are kept parsed for their next update, 16 of up to 4 KiB counting as one; beyond it the one that was not
    /// updated for longest, nearly, is kept as text only.
    pub hot_items_max: usize,
    /// Changes that are kept for those who come back; beyond it the oldest goes.
    pub history_changes_max: usize,
    /// Bytes of these changes; beyond it the oldest goes.
    pub history_bytes_max: usize,
}

impl Group {
    /// An empty group. `epoch` names its history; every timestamp will be later than `floor`.
    pub fn new(epoch: Arc<str>, floor: Floor, limits: GroupLimits) -> Self {
        Self {
            epoch,
            seq: 0,
            floor,
            items: Items::default(),
            clients: ClientRecords::default(),
            history: History::default(),
            values_ms: None,
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
        self.items.len() == 0
    }

    /// Whether nothing is lost when this group is forgotten, but for its floor and its last changes.
    pub fn is_forgettable(&self) -> bool {
        self.is_empty() && self.clients.is_empty()
    }

    /// Whether any mutation client is remembered.
    pub fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// About what the group takes in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        GROUP_BYTES + self.items.memory_bytes() + self.clients.memory_bytes() + self.history.bytes()
    }

    /// Makes every later event later than `ms`, as if a `sync` had been sent then.
    pub fn raise_sync(&mut self, ms: u64) {
        self.floor.sync_ms = self.floor.sync_ms.max(ms);
    }

    /// One item. Writes its text if that was not needed so far, as the next two do.
    pub fn get(&mut self, id: &str) -> Option<Item> {
        self.items.get(id)
    }

    /// All items with their ids, in order of creation.
    pub fn iter(&mut self) -> impl Iterator<Item = (Arc<str>, Item)> {
        self.items.iter()
    }

    /// Items whose `created_seq` is later than `after_created_seq`, in order of creation: at most `items_max`, and no
    /// more once they take `bytes_max`; at least one if there is any. Costs as much as the page is long.
    pub fn page(&mut self, after_created_seq: u64, items_max: usize, bytes_max: usize) -> Page {
        self.items.page(after_created_seq, items_max, bytes_max)
    }

    /// The sequence of an item's last change.
    pub fn item_seq(&self, id: &str) -> Option<u64> {
        self.items.seq(id)
    }

    /// The changes after `seq` that a subscription to `item`, or with `None` to the whole group, gets to see. `None` if
    /// they are not known any more, or never were, or if one lacks a value although the subscription `needs_values`.
    ///
    /// For an item that is there and has not changed since, there is no limit of age.
    pub fn changes_since(
        &self,
        seq: u64,
        item: Option<&str>,
        needs_values: bool,
    ) -> Option<Vec<Arc<Change>>> {
        let heard = item.and_then(|id| self.items.heard_seq(id));
        if seq <= self.seq && heard.is_some_and(|heard| heard <= seq) {
            return Some(Vec::new());
        }
        let changes = self.history.since(seq, self.seq, item)?;
        let is_complete = !needs_values || changes.iter().all(|change| change.value.is_some());
        is_complete.then_some(changes)
    }

    /// What is known of `clients`, by their tags: the last mutation taken from each that had its effect up to `seq`, with
    /// all before it. Those of whom nothing is known are left out, and so is everybody where the changes after `seq` are not
    /// known any more.
    pub fn mutations_up_to<'c>(
        &self,
        clients: impl IntoIterator<Item = &'c str>,
        seq: u64,
    ) -> Vec<Echo> {
        let Some(later) = self.history.since(seq, self.seq, None) else {
            return Vec::new();
        };
        let known = clients
            .into_iter()
            .filter_map(|client| self.clients.find(client)?.before(&later));
        known.collect()
    }

    /// The sequence of the oldest change that the history has.
    pub fn history_first_seq(&self) -> Option<u64> {
        self.history.first_seq()
    }

    /// What the history takes, in bytes.
    pub fn history_bytes(&self) -> usize {
        self.history.bytes()
    }

    /// Drops the oldest changes until the history takes no more than `bytes_max`.
    pub fn trim_history(&mut self, bytes_max: usize) {
        self.history.trim(bytes_max);
    }

    /// The timestamp of a `sync` that is sent now.
    pub fn sync_timestamp(&mut self, now_ms: u64) -> u64 {
        self.floor.sync(now_ms)
    }

    /// Carries out a command, or refuses it; either way the reply says so. `demand` is what the group's followers need
    /// of it.
    ///
    /// An update costs in proportion to its operations where nobody needs the value: `demand` is [`Demand::Ops`] and was
    /// so for a minute, and the caller asks for no value. Not so an atomic one with several operations, and one that may
    /// fill the group: these work on a copy.
    pub fn commit(&mut self, command: Command, now_ms: u64, demand: Demand) -> Committed {
        if demand == Demand::Values {
            self.values_ms = Some(now_ms);
        }
        let tells_new = self
            .values_ms
            .is_some_and(|values_ms| now_ms < values_ms.saturating_add(VALUES_LINGER_MS));
        let returning = command.returning;
        let needs = Needs {
            old: demand == Demand::Values || matches!(returning, None | Some(Returning::Both)),
            new: tells_new || returning != Some(Returning::None),
        };
        let id = command.item.clone();
        let client = match &command.mutation {
            Some(mutation) => self.clients.state(&mutation.client),
            None => ClientState::New,
        };
        let mut subject = GroupItem {
            items: &mut self.items,
            history: &self.history,
            limits: &self.limits,
            id: id.as_deref(),
            needs,
        };
        let Decision {
            mut reply,
            draft,
            client,
        } = decide_on(&mut subject, command, client);
        let client = client.map(|(client, record)| {
            let taken = Mutation {
                client: client.clone(),
                seq: record.last,
                is_resent: false,
            };
            self.clients
                .store(client, record, self.limits.client_records_max);
            taken
        });
        let draft = draft.and_then(|draft| match self.check_room(&draft) {
            Ok(()) => Some(draft),
            Err(refusal) => {
                reply.outcome = Outcome::Refused(refusal);
                None
            }
        });
        let ttl = draft.as_ref().map_or(Ttl::Keep, |draft| draft.ttl);
        let change = draft.map(|draft| self.install(draft, now_ms));
        reply.seq = change.as_ref().map(|change| change.seq);
        let step = (change.is_some() || client.is_some()).then(|| Step {
            change: change.clone(),
            ttl,
            now_ms,
            client,
            is_announced: false,
            taken: self.clients.taken(),
        });
        Committed {
            reply,
            change,
            step,
        }
    }

    /// Stamps a change of an item that is kept elsewhere. Nothing is known of the item's last timestamp, so this one is
    /// later than every event of the group. Nobody can come back to such changes: the history does not have them.
    pub fn announce(&mut self, draft: Draft, now_ms: u64) -> (Arc<Change>, Step) {
        self.seq += 1;
        let item_ms = draft.item.is_some().then_some(self.floor.event_ms);
        let change = stamp(draft, &mut self.floor, item_ms, self.seq, now_ms);
        if let Some(id) = &change.item {
            self.items.hear(id, change.moment());
        }
        self.history.trim(0);
        let change = Arc::new(change);
        let step = Step {
            change: Some(change.clone()),
            ttl: Ttl::Keep,
            now_ms,
            client: None,
            is_announced: true,
            taken: self.clients.taken(),
        };
        (change, step)
    }

    /// When the next item goes, in Unix milliseconds.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.items.next_expiry_ms()
    }

    /// Deletes at most `deletes_max` items whose time has come.
    pub fn expire(&mut self, now_ms: u64, deletes_max: usize) -> Vec<Committed> {
        let mut deletes = Vec::new();
        while deletes.len() < deletes_max
            && let Some(id) = self.items.expired(now_ms)
        {
            let command = Command {
                item: Some(id),
                action: Action::Delete,
                condition: None,
                mutation: None,
                returning: None,
            };
            deletes.push(self.commit(command, now_ms, Demand::Ops));
        }
        deletes
    }

    /// Whether the group may grow by what a draft adds. An update in place has been asked already.
    fn check_room(&mut self, draft: &Draft) -> Result<(), Refusal> {
        let (Some(id), Kind::Create | Kind::Update, Some(value)) =
            (&draft.item, &draft.kind, &draft.value)
        else {
            return Ok(());
        };
        if is_in_place(&draft.kind, draft.ops.as_ref()) {
            return Ok(());
        }
        self.items
            .check_room(id, value.as_str().len(), &self.limits)
    }

    fn install(&mut self, draft: Draft, now_ms: u64) -> Arc<Change> {
        self.seq += 1;
        let ttl = draft.ttl;
        let item_ms = draft.item.as_deref().and_then(|id| self.items.heard_ms(id));
        let change = stamp(draft, &mut self.floor, item_ms, self.seq, now_ms);
        if let Some(id) = &change.item {
            match (&change.kind, &change.value) {
                (Kind::Create, Some(value)) => {
                    self.items
                        .create(id, value.clone(), change.moment(), ttl, now_ms);
                }
                (Kind::Update, value) => {
                    let is_in_place = is_in_place(&change.kind, change.ops.as_ref());
                    let value = value.clone().filter(|_| !is_in_place);
                    self.items.write(id, value, change.moment(), ttl, now_ms);
                }
                (Kind::Delete, _) => self.items.delete(id),
                (Kind::Event { .. } | Kind::Create, _) => {
                    self.items.hear(id, change.moment());
                }
            }
        }
        let change = Arc::new(change);
        self.history.push(&change, &self.limits);
        change
    }
}

/// Whether the item had its new value as soon as the change was decided.
fn is_in_place(kind: &Kind, ops: Option<&Json>) -> bool {
    *kind == Kind::Update && ops.is_some()
}

/// The item of a group that a command is about.
struct GroupItem<'g> {
    items: &'g mut Items,
    history: &'g History,
    limits: &'g GroupLimits,
    id: Option<&'g str>,
    needs: Needs,
}

impl Subject for GroupItem<'_> {
    fn seq(&self) -> Option<u64> {
        self.items.seq(self.id?)
    }

    fn last_change(&self, counts_events: bool) -> Option<u64> {
        let id = self.id?;
        let seq = if counts_events {
            self.items.heard_seq(id)
        } else {
            self.items.seq(id)
        };
        seq.or_else(|| self.history.last_of(id, counts_events))
    }

    fn value(&mut self, is_needed: bool) -> Option<Json> {
        if is_needed || self.needs.old {
            self.items.text(self.id?)
        } else {
            None
        }
    }

    fn update(&mut self, ops: &Ops, is_atomic: bool) -> Result<Updated, Refusal> {
        let updated = match self.id {
            Some(id) => self
                .items
                .update(id, ops, is_atomic, self.needs, self.limits)?,
            None => None,
        };
        updated.map_or_else(|| TextItem(None).update(ops, is_atomic), Ok)
    }
}
