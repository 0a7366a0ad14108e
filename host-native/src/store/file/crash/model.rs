//! What the store should hold: groups of the core, fed with the commands in the order in which the store took them; and what
//! anybody was told, against which everything told later is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use iii_stream_core::{Change, Floor, Group, GroupKey, GroupLimits, Item, Json};

/// A group after one step.
#[derive(Clone)]
pub(super) struct Version {
    /// Where the log has the step.
    pub(super) end_lsn: u64,
    pub(super) epoch: Arc<str>,
    /// Its timestamps are not those of the store, which has other floors.
    pub(super) group: Group,
    /// As the store decided it; `None` for steps without one, and where only followers learn of it.
    pub(super) change: Option<Arc<Change>>,
}

/// The latest timestamps that were told of a group, in Unix milliseconds.
#[derive(Clone, Default)]
struct Times {
    event_ms: u64,
    items_ms: BTreeMap<Arc<str>, u64>,
    sync_ms: u64,
    /// A `sync` that is only known to be later than the clock before, because nothing was written since.
    loose_sync_ms: u64,
}

/// Names one change of one history.
type Place = (Arc<str>, GroupKey, u64);

/// See the module.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) limits: GroupLimits,
    pub(super) groups: BTreeMap<GroupKey, Vec<Version>>,
    /// What must not be lost.
    pub(super) acked_lsn: u64,
    /// What may be on the disk although nobody was told.
    maybe: Vec<(GroupKey, Version)>,
    told: BTreeMap<Place, Arc<Change>>,
    times: BTreeMap<GroupKey, Times>,
    /// Positions that somebody may come back with.
    pub(super) positions: Vec<(GroupKey, Arc<str>, u64)>,
}

/// Whether two changes are the same but for the timestamp. The value or the operations may be left unwritten, not both.
fn is_same(one: &Change, other: &Change) -> bool {
    let strip = |change: &Change| Change {
        timestamp: 0,
        value: None,
        ops: None,
        ..change.clone()
    };
    let fits =
        |one: &Option<Json>, other: &Option<Json>| one.is_none() || other.is_none() || one == other;
    let tells = |change: &Change| change.value.is_some() || change.ops.is_some();
    strip(one) == strip(other)
        && fits(&one.value, &other.value)
        && fits(&one.ops, &other.ops)
        && tells(one) == tells(other)
}

impl Model {
    pub(super) fn new(limits: GroupLimits) -> Self {
        Self {
            limits,
            groups: BTreeMap::new(),
            acked_lsn: 0,
            maybe: Vec::new(),
            told: BTreeMap::new(),
            times: BTreeMap::new(),
            positions: Vec::new(),
        }
    }

    /// A group in its present history, if it has any steps in it. `epoch` is what the store calls that.
    pub(super) fn current(&self, key: &GroupKey, epoch: Option<&Arc<str>>) -> Option<&Version> {
        let last = self.groups.get(key)?.last()?;
        if Some(&last.epoch) == epoch {
            return Some(last);
        }
        assert!(
            last.group.is_forgettable(),
            "{key:?} was forgotten with things in it: {} is now {epoch:?}",
            last.epoch
        );
        None
    }

    /// The group that the next command works on.
    pub(super) fn working_copy(&self, key: &GroupKey, epoch: Option<&Arc<str>>) -> Group {
        match self.current(key, epoch) {
            Some(version) => version.group.clone(),
            None => Group::new("model".into(), Floor::default(), self.limits),
        }
    }

    pub(super) fn push(&mut self, key: &GroupKey, version: Version) {
        self.groups.entry(key.clone()).or_default().push(version);
    }

    /// What is after `lsn` was not written; with `maybe` it may be on the disk all the same.
    pub(super) fn take_back(&mut self, lsn: u64, maybe: bool) {
        for (key, versions) in &mut self.groups {
            while let Some(version) = versions.pop_if(|version| lsn < version.end_lsn) {
                if maybe {
                    self.maybe.push((key.clone(), version));
                }
            }
        }
    }

    pub(super) fn merge_maybe(&mut self) {
        self.maybe.sort_by_key(|(_, version)| version.end_lsn);
        for (key, version) in std::mem::take(&mut self.maybe) {
            self.groups.entry(key).or_default().push(version);
        }
    }

    /// The store was opened again, with a log that ends at `lsn`: what is after that is gone.
    pub(super) fn cut(&mut self, lsn: u64) {
        self.merge_maybe();
        let mut ends = self
            .groups
            .values()
            .flatten()
            .map(|version| version.end_lsn);
        assert!(
            lsn <= self.acked_lsn || ends.any(|end_lsn| end_lsn == lsn),
            "the log ends at {lsn}, where no command ended"
        );
        self.take_back(lsn, false);
        self.acked_lsn = lsn;
        self.groups.retain(|_, versions| !versions.is_empty());
    }

    /// Everything that is there may have been seen.
    pub(super) fn note_visible(&mut self) {
        let all: Vec<_> = self
            .groups
            .iter()
            .flat_map(|(key, versions)| versions.iter().map(move |version| (key, version)))
            .filter_map(|(key, version)| {
                Some((key.clone(), version.epoch.clone(), version.change.clone()?))
            })
            .collect();
        for (key, epoch, change) in all {
            self.note_change(&key, &epoch, &change, false);
        }
    }

    /// A follower was told of a change.
    pub(super) fn note_told(&mut self, key: &GroupKey, epoch: &Arc<str>, change: &Arc<Change>) {
        self.note_change(key, epoch, change, true);
    }

    /// One that was never told as it happened is told only to those who come back, behind a later `sync`.
    fn note_change(
        &mut self,
        key: &GroupKey,
        epoch: &Arc<str>,
        change: &Arc<Change>,
        is_live: bool,
    ) {
        let place = (epoch.clone(), key.clone(), change.seq);
        if let Some(before) = self.told.get(&place) {
            assert!(
                is_same(before, change) && before.timestamp == change.timestamp,
                "{key:?} {epoch}:{} was {before:?} and is now {change:?}",
                change.seq
            );
            return;
        }
        let times = self.times.entry(key.clone()).or_default();
        let at = change.timestamp;
        assert!(
            times.event_ms <= at,
            "{key:?}: {change:?} is earlier than {}",
            times.event_ms
        );
        let sync_ms = times.sync_ms.max(times.loose_sync_ms);
        assert!(
            sync_ms < at || !is_live,
            "{key:?}: {change:?} is not later than the sync {sync_ms}"
        );
        times.event_ms = at;
        if let Some(item) = &change.item {
            let before = times.items_ms.insert(item.clone(), at).unwrap_or(0);
            assert!(
                before < at,
                "{key:?}: {change:?} is not later than {before} of its item"
            );
        }
        self.told.insert(place, change.clone());
        self.positions
            .push((key.clone(), epoch.clone(), change.seq));
    }

    /// A reader was told a state of a group with the timestamp of a `sync`.
    pub(super) fn note_sync(&mut self, key: &GroupKey, epoch: &Arc<str>, seq: u64, sync_ms: u64) {
        self.positions.push((key.clone(), epoch.clone(), seq));
        let told = |seq: u64| self.told.get(&(epoch.clone(), key.clone(), seq));
        let (last, next) = (told(seq), told(seq + 1));
        let times = self.times.entry(key.clone()).or_default();
        let event_ms = last.map_or(0, |last| last.timestamp);
        let event_ms = if next.is_none() {
            event_ms.max(times.event_ms)
        } else {
            event_ms
        };
        assert!(
            event_ms < sync_ms,
            "{key:?} {epoch}:{seq}: the sync {sync_ms} is not later than {event_ms}; last {last:?} next {next:?}"
        );
        if let Some(next) = next {
            assert!(
                sync_ms < next.timestamp,
                "{key:?}: the sync {sync_ms} is too late for {next:?}"
            );
        }
        times.loose_sync_ms = times.loose_sync_ms.max(sync_ms);
    }

    /// Something was made safe, and with it the time.
    pub(super) fn note_written(&mut self) {
        for times in self.times.values_mut() {
            times.sync_ms = times.sync_ms.max(times.loose_sync_ms);
        }
    }

    /// The clock went back, and nothing tells of the times that were not written.
    pub(super) fn forget_loose_times(&mut self) {
        for times in self.times.values_mut() {
            times.loose_sync_ms = 0;
        }
    }

    /// What was told was lost with the power, as announced: times begin anew.
    pub(super) fn forget_times(&mut self) {
        self.times.clear();
    }

    /// The items of a group as the store should tell them.
    pub(super) fn check_items(
        &self,
        key: &GroupKey,
        version: Option<&Version>,
        items: &[(Arc<str>, Item)],
    ) -> Result<(), String> {
        let mut group = version.map(|version| version.group.clone());
        let expected: Vec<_> = group.iter_mut().flat_map(Group::iter).collect();
        let strip = |items: &[(Arc<str>, Item)]| -> Vec<_> {
            items
                .iter()
                .map(|(id, item)| (id.clone(), item.value.clone(), item.seq, item.created_seq))
                .collect()
        };
        let (expected, got) = (strip(&expected), strip(items));
        if expected != got {
            return Err(format!("{key:?} should be {expected:?}, not {got:?}"));
        }
        for (id, item) in items {
            let epoch = version
                .map(|version| version.epoch.clone())
                .unwrap_or_default();
            if let Some(change) = self.told.get(&(epoch, key.clone(), item.seq))
                && change.timestamp != item.timestamp
            {
                return Err(format!(
                    "{key:?} {id}: {item:?} has not the time of {change:?}"
                ));
            }
        }
        Ok(())
    }

    /// What a subscription that comes back is told.
    pub(super) fn check_resumed(
        &self,
        key: &GroupKey,
        version: &Version,
        since: u64,
        item: Option<&str>,
        changes: &[Arc<Change>],
    ) {
        let mut changes = changes.iter();
        for seq in since + 1..=version.group.seq() {
            let told = self.told.get(&(version.epoch.clone(), key.clone(), seq));
            // Of announcements whose followers were never told nothing is known.
            let Some(told) = told else { continue };
            if item.is_none() || item == told.item.as_deref() {
                let got = changes.next();
                assert!(
                    got.is_some_and(|got| is_same(got, told) && got.timestamp == told.timestamp),
                    "{key:?} since {since} for {item:?}: {told:?} was told, but comes again as {got:?}"
                );
            }
        }
        assert_eq!(changes.next(), None, "{key:?} since {since} for {item:?}");
    }

    /// The groups that have items, by stream.
    pub(super) fn listing(
        &self,
        is_known: impl Fn(&GroupKey, &Version) -> bool,
    ) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
        let mut streams: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for (key, versions) in &self.groups {
            if versions
                .last()
                .is_some_and(|last| !last.group.is_empty() && is_known(key, last))
            {
                streams
                    .entry(key.stream.clone())
                    .or_default()
                    .push(key.group.clone());
            }
        }
        streams.into_iter().collect()
    }
}

/// Whether a change is what the model decided.
pub(super) fn assert_same(key: &GroupKey, expected: &Change, got: &Change) {
    assert!(
        is_same(expected, got),
        "{key:?}: {got:?} should be {expected:?}"
    );
}
