//! Up to where everything is done: what is written of it to the cursor in Redis, and which groups are forgotten. Pure.

use std::sync::Arc;

use super::{Delta, Numbered, Pursuit};

/// How long a group's place is kept after its last change. Clocks of a cluster's nodes must not differ by more.
const KEEP_MS: u64 = 60_000;

/// Most places that one write of the cursor holds.
const DELTA_MAX: usize = 5_000;

/// Most groups whose places are known at one time. Beyond, those that are quiet longest are forgotten.
pub(super) const GROUPS_MAX: usize = 20_000;

impl<C: Numbered> Pursuit<C> {
    /// What is to be written to the cursor. Unless it was, [`Pursuit::not_stored`] must be told.
    pub(in crate::cluster::triggers) fn delta(&mut self) -> Delta {
        let mut delta = Delta {
            since_ms: self.since_ms,
            ..Delta::default()
        };
        while let Some(group) = self.dirty.pop() {
            let Some(course) = self.groups.get_mut(&group) else {
                continue;
            };
            if !std::mem::take(&mut course.is_dirty) {
                continue;
            }
            let place = course.done_up_to();
            if place != course.stored
                && let Some(place) = place
            {
                course.stored = Some(place.clone());
                course.is_named = true;
                delta.places.push((group, place));
                if DELTA_MAX <= delta.places.len() {
                    break;
                }
            }
        }
        delta.has_more = !self.dirty.is_empty();
        match self.stored_since_ms {
            // The time goes on only together with all places that it leaves behind.
            Some(stored) if delta.has_more => delta.since_ms = stored,
            _ => {
                delta.forgotten = std::mem::take(&mut self.forgotten);
                // Some have come again meanwhile.
                delta
                    .forgotten
                    .retain(|group| !self.groups.contains_key(group));
                self.stored_since_ms = Some(delta.since_ms);
            }
        }
        delta
    }

    /// A delta may not have been written.
    pub(in crate::cluster::triggers) fn not_stored(&mut self, delta: Delta) {
        for (group, _) in delta.places {
            self.mark_unstored(&group);
        }
        self.forgotten.extend(delta.forgotten);
    }

    /// Nothing of the cursor is in Redis any more.
    pub(in crate::cluster::triggers) fn nothing_stored(&mut self) {
        self.stored_since_ms = None;
        self.forgotten.clear();
        let groups: Vec<_> = self.groups.keys().cloned().collect();
        groups.iter().for_each(|group| self.mark_unstored(group));
    }

    fn mark_unstored(&mut self, group: &Arc<str>) {
        if let Some(course) = self.groups.get_mut(group) {
            course.stored = None;
            self.mark(group);
        }
    }

    /// The cursor of a group may have to be written.
    pub(super) fn mark(&mut self, group: &Arc<str>) {
        if let Some(course) = self.groups.get_mut(group)
            && !std::mem::replace(&mut course.is_dirty, true)
        {
            self.dirty.push(group.clone());
        }
    }

    /// Ends a round that has read everything, and forgets groups that were quiet for long.
    pub(super) fn end_round(&mut self) {
        let Some((0, begun_ms)) = self.round.open else {
            return;
        };
        self.round.open = None;
        // What was read after the halt was not taken.
        if self.round.is_void || self.is_halted {
            return;
        }
        let before_ms = self.round.last_ms.replace(begun_ms);
        // Everything older has been seen. Of groups that were skipped that is known up to the round before.
        let seen_ms = match self.round.skipped.is_empty() {
            true => begun_ms,
            false => before_ms.unwrap_or(0),
        };
        self.forget_before(seen_ms.min(begun_ms.saturating_sub(KEEP_MS)));
    }

    fn forget_before(&mut self, floor_ms: u64) {
        if floor_ms <= self.since_ms {
            return;
        }
        self.since_ms = floor_ms;
        let forgotten = &mut self.forgotten;
        self.groups.retain(|group, course| {
            let stays = floor_ms <= course.last_ms || !course.is_quiet();
            if !stays && course.is_named {
                forgotten.push(group.clone());
            }
            stays
        });
    }

    /// Makes room: forgets the quarter of groups that are quiet longest.
    pub(super) fn forget_quiet(&mut self) {
        let quiet = self.groups.values().filter(|course| course.is_quiet());
        let mut times: Vec<_> = quiet.map(|course| course.last_ms).collect();
        if !times.is_empty() {
            let quarter = (times.len() - 1) / 4;
            let (_, last_ms, _) = times.select_nth_unstable(quarter);
            let floor_ms = *last_ms + 1;
            // What is still to be read must not be left behind.
            let unknown = self.groups.values().filter(|course| course.taken.is_none());
            let unknown_ms = unknown.map(|course| course.last_ms).min();
            self.forget_before(floor_ms.min(unknown_ms.unwrap_or(floor_ms)));
        }
        self.forget_from = GROUPS_MAX.max(self.groups.len() / 4 * 5);
    }
}
