//! A store under test, with everything that it needs: asked as a caller asks it, its answers awaited.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use iii_stream_core::command::{Write, read_delete, read_get, read_send, read_set, read_update};
use iii_stream_core::{
    CallError, Change, Committed, Demand, Draft, GroupKey, GroupLimits, GroupRef, Item, Json,
    Position, list_json,
};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Runtime;

use crate::clock;
use crate::store::{
    ChangeSink, Done, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage, Store, StoreError,
};

/// The group that behaviours are about where they name none.
pub(super) const GROUP: GroupRef<'_> = GroupRef {
    stream: "s",
    group: "g",
};

/// How long an answer or a change may take on a loaded machine.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Opens an empty store with these bounds.
pub(super) type Open<'o> = &'o dyn Fn(GroupLimits) -> Subject;

/// Bounds that no behaviour reaches by accident.
pub(super) fn roomy() -> GroupLimits {
    GroupLimits {
        items_max: 100_000,
        bytes_max: 64 << 20,
        client_records_max: 1_000,
        hot_items_max: 16,
        history_changes_max: 5_000,
        history_bytes_max: 8 << 20,
    }
}

/// Keeps what a store tells, in the order in which it does.
pub(super) struct Told {
    demand: Mutex<Demand>,
    changes: Mutex<Vec<(GroupKey, Arc<Change>)>>,
    came: Condvar,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            demand: Mutex::new(Demand::Ops),
            changes: Mutex::default(),
            came: Condvar::new(),
        }
    }
}

impl ChangeSink for Told {
    fn demand(&self, _: &GroupKey) -> Demand {
        *self.demand.lock()
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, _: Option<&Json>) {
        self.changes.lock().push((group.clone(), change));
        self.came.notify_all();
    }
}

impl Told {
    /// What is needed of changes from now on.
    pub(super) fn set_demand(&self, demand: Demand) {
        *self.demand.lock() = demand;
    }

    /// The changes of a group, up to the one with this sequence, which is awaited; all of them came once and in order.
    pub(super) fn up_to(&self, group: GroupRef<'_>, seq: u64) -> Vec<Arc<Change>> {
        let end = Instant::now() + WAIT_MAX;
        let mut all = self.changes.lock();
        loop {
            let of_group = all.iter().filter(|(key, _)| key.as_ref() == group);
            let changes: Vec<_> = of_group.map(|(_, change)| change.clone()).collect();
            let seqs: Vec<_> = changes.iter().map(|change| change.seq).collect();
            if seqs.last().is_some_and(|last| seq <= *last) {
                assert_eq!(seqs, (1..=seq).collect::<Vec<_>>(), "once and in order");
                return changes;
            }
            let is_late = self.came.wait_until(&mut all, end).timed_out();
            assert!(!is_late, "waited for change {seq}, was told {seqs:?}");
        }
    }
}

/// An open store.
pub(super) struct Subject {
    pub(super) store: Arc<dyn Store>,
    pub(super) told: Arc<Told>,
    /// Says that somebody follows a group from now on.
    pub(super) follow: Box<dyn Fn(&GroupKey) + Send + Sync>,
    /// Runs what the store needs beside its calls.
    pub(super) runtime: Runtime,
    /// What has to be there as long as the store is.
    pub(super) _place: Box<dyn Any + Send + Sync>,
}

impl Subject {
    /// Asks and waits for the answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store, Done<T>),
    ) -> Result<T, StoreError> {
        let _inside = self.runtime.enter();
        let (sender, receiver) = mpsc::channel();
        // Whoever asked may have given up.
        ask(
            &*self.store,
            Box::new(move |answer| drop(sender.send(answer))),
        );
        receiver.recv_timeout(WAIT_MAX).expect("an answer in time")
    }

    /// The same where a failure of the store is one of the test.
    pub(super) fn get_answer<T: Send + 'static>(&self, ask: impl FnOnce(&dyn Store, Done<T>)) -> T {
        self.ask(ask).expect("the store works")
    }

    /// Carries out a command: `input` is what a caller sends, without stream and group.
    pub(super) fn commit(&self, group: GroupRef<'_>, verb: &str, input: &str) -> Committed {
        let text = call_text(group, input);
        let Write { target, command } = read(verb, &text).expect("a call");
        self.get_answer(|store, done| {
            store.commit(target.as_ref(), command, clock::unix_ms(), done);
        })
    }

    /// What a caller is told, as JSON text or as `code: message`.
    pub(super) fn said(&self, group: GroupRef<'_>, verb: &str, input: &str) -> String {
        match verb {
            "get" => {
                let text = call_text(group, input);
                let item = self.get(group, &read_get(&text).expect("a call").item);
                item.map_or("null".into(), |item| item.value.as_str().into())
            }
            "list" => list_json(&self.list(group), false),
            _ => match self.commit(group, verb, input).reply.to_json() {
                Ok(json) => json,
                Err(refusal) => format!("{}: {refusal}", refusal.code()),
            },
        }
    }

    /// Sets an item of the ordinary group to a number; the sequence.
    pub(super) fn set(&self, item: &str, value: u64) -> u64 {
        let input = format!(r#"{{"item_id":"{item}","data":{value}}}"#);
        let committed = self.commit(GROUP, "set", &input);
        committed.reply.seq.expect("a change")
    }

    /// Follows the ordinary group.
    pub(super) fn follow(&self) {
        self.follow_group(GROUP);
    }

    pub(super) fn follow_group(&self, group: GroupRef<'_>) {
        let _inside = self.runtime.enter();
        (self.follow)(&group.to_key());
        // Whoever has read where a group stands is told of everything after that.
        self.position(group);
    }

    pub(super) fn get(&self, group: GroupRef<'_>, item: &str) -> Option<Item> {
        self.get_answer(|store, done| store.get(group, item, done))
    }

    pub(super) fn list(&self, group: GroupRef<'_>) -> Vec<(Arc<str>, Item)> {
        self.get_answer(|store, done| store.list(group, done))
    }

    pub(super) fn position(&self, group: GroupRef<'_>) -> Position {
        self.get_answer(|store, done| store.position(group, done))
    }

    pub(super) fn snapshot(&self, item: Option<&str>) -> Snapshot {
        self.get_answer(|store, done| store.snapshot(GROUP, item, clock::unix_ms(), done))
    }

    pub(super) fn page(&self, wish: PageWish) -> SnapshotPage {
        self.get_answer(|store, done| store.page(GROUP, wish, clock::unix_ms(), done))
    }

    pub(super) fn resume(&self, wish: ResumeWish) -> Option<Resumed> {
        self.get_answer(|store, done| store.resume(GROUP, wish, clock::unix_ms(), done))
    }

    /// What happened in the ordinary group since a place, by the sequences.
    pub(super) fn missed(&self, since: &Position, item: Option<&str>) -> Option<Vec<u64>> {
        let resumed = self.resume(ResumeWish {
            item: item.map(Into::into),
            since: since.clone(),
            needs_values: false,
            clients: None,
        });
        resumed.map(|resumed| resumed.changes.iter().map(|change| change.seq).collect())
    }

    pub(super) fn announce(&self, draft: Draft) -> Arc<Change> {
        self.get_answer(|store, done| store.announce(GROUP, draft, clock::unix_ms(), done))
    }
}

/// The text of a call.
fn call_text(group: GroupRef<'_>, input: &str) -> String {
    let text = |name: &str| Json::from_str_value(name).as_str().to_owned();
    let (stream, group) = (text(group.stream), text(group.group));
    let rest = input.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    format!(r#"{{"stream_name":{stream},"group_id":{group}{comma}{rest}"#)
}

fn read<'t>(verb: &str, text: &'t str) -> Result<Write<'t>, CallError> {
    match verb {
        "set" => read_set(text),
        "update" => read_update(text),
        "delete" => read_delete(text),
        "send" => read_send(text),
        _ => panic!("no verb {verb}"),
    }
}
