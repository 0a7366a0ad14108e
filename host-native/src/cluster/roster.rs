//! Which instances there are, by their heartbeats. Knows no Redis: it is told what was read there, and when.
//!
//! An instance is gone when it has not beaten for too long while this one could see that: a time in which Redis was away, or in
//! which its clock jumped, counts for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

/// An id that lives as long as a process. Shape: a UUID.
pub type InstanceId = Arc<str>;

/// What an instance says with each heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// When it beat, by the clock of Redis.
    pub(super) beat_ms: u64,
    /// Which version its card has now.
    pub(super) version: u64,
    /// Whether it is about to stop.
    pub(super) is_leaving: bool,
}

/// What is to be done after a look at all rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Their cards have to be read: they came, or have another version.
    pub(super) stale: Vec<InstanceId>,
    /// They have begun to leave.
    pub(super) leaving: Vec<InstanceId>,
    /// They are no more.
    pub(super) gone: Vec<InstanceId>,
    /// Rows of instances that have not beaten for so long that the row can be removed, and when they last did.
    pub(super) forgotten: Vec<(InstanceId, u64)>,
}

struct Known {
    beat_ms: u64,
    version: u64,
    /// The version of the card that was read last.
    read_version: Option<u64>,
    is_leaving: bool,
}

/// Rows are removed that are older than this many times the silence after which an instance is gone.
const FORGOTTEN_AFTER_SILENCES: u64 = 12;

/// All other instances.
pub(super) struct Roster {
    own: InstanceId,
    /// After so much silence an instance is gone, in milliseconds.
    gone_ms: u64,
    /// Between two looks that are further apart than this, in milliseconds, Redis was away or slow.
    gap_ms: u64,
    others: BTreeMap<InstanceId, Known>,
    last_look_ms: Option<u64>,
    /// Since when looks have followed each other without a gap.
    steady_since_ms: u64,
}

impl Roster {
    /// Nobody is known yet.
    pub(super) fn new(own: InstanceId, heartbeat_ms: u64, gone_ms: u64) -> Self {
        Self {
            own,
            gone_ms,
            gap_ms: (gone_ms / 2).max(2 * heartbeat_ms),
            others: BTreeMap::new(),
            last_look_ms: None,
            steady_since_ms: 0,
        }
    }

    /// Takes a look at all rows. `now_ms` is the clock of Redis at that moment.
    pub(super) fn look(&mut self, now_ms: u64, rows: Vec<(InstanceId, Row)>) -> Seen {
        let is_steady = self
            .last_look_ms
            .is_some_and(|last| last <= now_ms && now_ms - last <= self.gap_ms);
        if !is_steady {
            self.steady_since_ms = now_ms;
        }
        self.last_look_ms = Some(now_ms);
        let mut seen = Seen::default();
        for (id, row) in rows {
            if id != self.own {
                self.look_at(now_ms, id, row, &mut seen);
            }
        }
        let silent = self
            .others
            .iter()
            .filter(|(_, known)| self.silent_at(known) <= now_ms);
        let silent: Vec<_> = silent.map(|(id, _)| id.clone()).collect();
        for id in silent {
            self.others.remove(&id);
            seen.gone.push(id);
        }
        seen
    }

    fn look_at(&mut self, now_ms: u64, id: InstanceId, row: Row, seen: &mut Seen) {
        // A clock that was set back must not make a beat last longer.
        let beat_ms = row.beat_ms.min(now_ms);
        let age_ms = now_ms - beat_ms;
        let Some(known) = self.others.get_mut(&id) else {
            if age_ms < self.gone_ms {
                if row.is_leaving {
                    seen.leaving.push(id.clone());
                }
                let known = Known {
                    beat_ms,
                    version: row.version,
                    read_version: None,
                    is_leaving: row.is_leaving,
                };
                self.others.insert(id.clone(), known);
                seen.stale.push(id);
            } else if FORGOTTEN_AFTER_SILENCES * self.gone_ms <= age_ms {
                seen.forgotten.push((id, row.beat_ms));
            }
            return;
        };
        known.beat_ms = beat_ms;
        known.version = row.version;
        if row.is_leaving && !known.is_leaving {
            known.is_leaving = true;
            seen.leaving.push(id.clone());
        }
        if known.read_version != Some(row.version) {
            seen.stale.push(id);
        }
    }

    fn silent_at(&self, known: &Known) -> u64 {
        known.beat_ms.max(self.steady_since_ms) + self.gone_ms
    }

    /// When the next instance would be gone if it stayed silent, by the clock of Redis.
    pub(super) fn next_silent_at(&self) -> Option<u64> {
        self.others
            .values()
            .map(|known| self.silent_at(known))
            .min()
    }

    /// Whether an instance has a card that was not read, when told that this is its version.
    pub(super) fn is_stale(&self, id: &str, version: u64) -> bool {
        self.others
            .get(id)
            .is_some_and(|known| known.read_version.is_none_or(|read| read < version))
    }

    /// Whether an instance is there.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.others.contains_key(id)
    }

    /// Whether an instance is about to stop.
    pub(super) fn is_leaving(&self, id: &str) -> bool {
        self.others.get(id).is_some_and(|known| known.is_leaving)
    }

    /// Notes that the card of an instance was read.
    pub(super) fn read(&mut self, id: &str, version: u64) {
        if let Some(known) = self.others.get_mut(id) {
            known.read_version = Some(version);
        }
    }

    /// Notes that an instance has said that it ends. Whether it was known.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.others.remove(id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_MS: u64 = 5_000;

    fn roster() -> Roster {
        Roster::new("own".into(), 1_000, GONE_MS)
    }

    fn row(beat_ms: u64, version: u64) -> Row {
        Row {
            beat_ms,
            version,
            is_leaving: false,
        }
    }

    fn ids(ids: &[InstanceId]) -> Vec<&str> {
        ids.iter().map(|id| &**id).collect()
    }

    #[test]
    fn an_instance_comes_changes_and_falls_silent() {
        let mut roster = roster();
        let seen = roster.look(
            100_000,
            vec![("own".into(), row(99_000, 1)), ("a".into(), row(99_500, 1))],
        );
        assert_eq!(ids(&seen.stale), ["a"], "oneself is no other instance");
        roster.read("a", 1);
        assert!(!roster.is_stale("a", 1) && roster.is_stale("a", 2));
        let seen = roster.look(101_000, vec![("a".into(), row(100_500, 2))]);
        assert_eq!(ids(&seen.stale), ["a"]);
        assert_eq!(roster.next_silent_at(), Some(105_500));
        for now_ms in [102_000, 103_000, 104_000, 105_000] {
            let seen = roster.look(now_ms, vec![("a".into(), row(100_500, 2))]);
            assert!(seen.gone.is_empty(), "{now_ms}");
        }
        let seen = roster.look(105_500, vec![("a".into(), row(100_500, 2))]);
        assert_eq!(ids(&seen.gone), ["a"]);
        let seen = roster.look(106_000, vec![("a".into(), row(105_900, 2))]);
        assert_eq!(ids(&seen.stale), ["a"], "it is back, with all it has");
    }

    #[test]
    fn nobody_is_gone_because_redis_was_away() {
        let mut roster = roster();
        roster.look(100_000, vec![("a".into(), row(100_000, 1))]);
        let seen = roster.look(110_000, vec![("a".into(), row(100_000, 1))]);
        assert_eq!(seen.gone, Vec::<InstanceId>::new());
        let mut now_ms = 110_000;
        let seen = loop {
            now_ms += 1_000;
            let seen = roster.look(now_ms, Vec::new());
            if !seen.gone.is_empty() {
                break seen;
            }
        };
        assert_eq!(
            (ids(&seen.gone), now_ms),
            (vec!["a"], 115_000),
            "a row that was lost, and no beat since Redis is back"
        );
    }

    #[test]
    fn a_clock_that_jumps_makes_nobody_gone() {
        let mut roster = roster();
        roster.look(100_000, vec![("a".into(), row(100_000, 1))]);
        let seen = roster.look(40_000, vec![("a".into(), row(100_000, 1))]);
        assert!(seen.gone.is_empty());
        assert_eq!(
            roster.next_silent_at(),
            Some(45_000),
            "a beat in the future counts as one of now"
        );
    }

    #[test]
    fn rows_of_the_dead_are_not_instances() {
        let mut roster = roster();
        let rows = || vec![("a".into(), row(90_000, 1)), ("b".into(), row(30_000, 1))];
        let seen = roster.look(100_000, rows());
        assert_eq!(seen.forgotten, [("b".into(), 30_000)]);
        assert!(seen.stale.is_empty() && !roster.knows("a"));
    }

    #[test]
    fn leaving_is_told_once() {
        let mut roster = roster();
        let leaving = |beat_ms| Row {
            is_leaving: true,
            ..row(beat_ms, 1)
        };
        roster.look(100_000, vec![("a".into(), row(100_000, 1))]);
        let seen = roster.look(101_000, vec![("a".into(), leaving(101_000))]);
        assert_eq!(ids(&seen.leaving), ["a"]);
        let seen = roster.look(102_000, vec![("a".into(), leaving(102_000))]);
        assert!(seen.leaving.is_empty());
        assert!(roster.remove("a") && !roster.remove("a"));
    }
}
