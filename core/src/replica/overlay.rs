//! The pending mutations of one item, and what they make of it. Knows no frames and no other item.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::{Action, Condition};
use crate::decide::{check, update};
use crate::error::OpError;
use crate::held::Held;

/// A mutation that the server has not dealt with yet, as far as is known.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) client: Arc<str>,
    /// What the server's events call the client.
    pub(super) tag: Arc<str>,
    /// Among the client's.
    pub(super) seq: u64,
    /// Among all of the replica's: the order in which they were made.
    pub(super) number: u64,
    pub(super) item: Option<Arc<str>>,
    pub(super) action: Action,
    pub(super) condition: Option<Condition>,
}

/// What a mutation is expected to come to.
#[derive(Debug, Default)]
pub(super) struct Prediction {
    pub(super) errors: Vec<OpError>,
    /// The code and the message of the refusal.
    pub(super) refused: Option<(&'static str, String)>,
}

/// What is confirmed of an item.
#[derive(Clone, Copy)]
pub(super) enum Base<'a> {
    /// Nothing: it may be there or not.
    Unknown,
    Absent,
    Present {
        held: &'a Held,
        /// `None` where the server counts no changes.
        seq: Option<u64>,
    },
}

/// What is shown of an item.
#[derive(Debug)]
pub(super) enum Shown {
    /// Nothing, as what is there is not known.
    Unknown,
    Absent,
    Present {
        held: Held,
        /// The number of the pending mutation that created it; `None` where the server did.
        creator: Option<u64>,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Overlay {
    queue: VecDeque<Queued>,
    shown: Shown,
    /// Whether `shown` is of an older base or queue.
    is_stale: bool,
    /// How many of the queue are acknowledged.
    acknowledged: usize,
    /// How many of the queue depend on when the item changed last.
    dependent: usize,
}

#[derive(Debug)]
struct Queued {
    pending: Arc<Pending>,
    /// Whether it changes what is shown.
    is_effective: bool,
    acknowledged: Option<Acknowledged>,
}

/// The server has taken a mutation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    /// With the confirmed state at this change, the mutation is in it.
    pub(super) change_seq: u64,
    /// Whether the next `sync` brings that change, whatever its sequence: it was heard over an earlier connection.
    pub(super) is_due_at_sync: bool,
}

impl Pending {
    fn depends_on_seq(&self) -> bool {
        matches!(self.condition, Some(Condition::Seq(_)))
    }
}

impl Overlay {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            shown: Shown::Unknown,
            is_stale: true,
            acknowledged: 0,
            dependent: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether any pending mutation changes what is shown.
    pub(super) fn is_effective(&self) -> bool {
        self.queue.iter().any(|queued| queued.is_effective)
    }

    /// Makes what is shown be made anew from what is confirmed when it is asked for.
    pub(super) fn invalidate(&mut self) {
        self.is_stale = true;
    }

    /// What is shown. Costs nothing while neither the base nor the queue changed otherwise than was expected.
    pub(super) fn shown(&mut self, base: Base<'_>) -> &mut Shown {
        if self.is_stale {
            self.is_stale = false;
            self.shown = Shown::of(base);
            let mut is_touched = false;
            for queued in &mut self.queue {
                let (is_effective, _) = self.shown.step(&queued.pending, base, is_touched);
                queued.is_effective = is_effective;
                is_touched |= is_effective;
            }
        }
        &mut self.shown
    }

    /// Shows one more mutation.
    pub(super) fn push(&mut self, pending: Arc<Pending>, base: Base<'_>) -> Prediction {
        self.shown(base);
        let is_touched = self.is_effective();
        let (is_effective, prediction) = self.shown.step(&pending, base, is_touched);
        self.dependent += usize::from(pending.depends_on_seq());
        self.queue.push_back(Queued {
            pending,
            is_effective,
            acknowledged: None,
        });
        prediction
    }

    /// The first pending mutation, where it is this one and is part of what is shown.
    pub(super) fn expected(&self, tag: &str, seq: u64) -> Option<Arc<Pending>> {
        let queued = self.queue.front()?;
        let pending = &queued.pending;
        let is_expected = pending.seq == seq && *pending.tag == *tag;
        (is_expected && queued.is_effective && !self.is_stale).then(|| pending.clone())
    }

    /// Takes away the first mutation, whose effect is now in the base, and nothing else is. Where nothing of what follows
    /// depends on when the base changed last, what is shown stays.
    pub(super) fn confirm_first(&mut self) {
        let Some(queued) = self.queue.pop_front() else {
            return;
        };
        self.uncount(&queued);
        self.is_stale |= 0 < self.dependent;
        let pending = queued.pending;
        if let Shown::Present { creator, .. } = &mut self.shown
            && *creator == Some(pending.number)
        {
            *creator = None;
        }
    }

    /// Takes away a mutation whose effect is in the base, and the client's earlier ones: whatever these did came before.
    pub(super) fn confirm(&mut self, tag: &str, seq: u64) {
        self.retain(&mut |queued| queued.pending.seq > seq || *queued.pending.tag != *tag);
    }

    /// Takes away a mutation, whatever came of it.
    pub(super) fn withdraw(&mut self, pending: &Pending) {
        let queued = self.place(pending);
        if let Some(queued) = queued.and_then(|place| self.queue.remove(place)) {
            self.uncount(&queued);
            self.is_stale |= queued.is_effective;
        }
    }

    /// Notes that a mutation was taken. Whether it is there.
    pub(super) fn acknowledge(&mut self, pending: &Pending, heard: Acknowledged) -> bool {
        let queued = self.place(pending);
        let queued = queued.and_then(|place| self.queue.get_mut(place));
        queued.is_some_and(|queued| {
            self.acknowledged += usize::from(queued.acknowledged.replace(heard).is_none());
            true
        })
    }

    /// The same, of the client with this tag.
    pub(super) fn acknowledge_echo(&mut self, tag: &str, seq: u64, heard: Acknowledged) {
        let mut queue = self.queue.iter();
        let queued = queue.find(|queued| queued.pending.seq == seq && *queued.pending.tag == *tag);
        if let Some(pending) = queued.map(|queued| queued.pending.clone()) {
            self.acknowledge(&pending, heard);
        }
    }

    /// Where a mutation is. They stand in the order in which they were made.
    fn place(&self, pending: &Pending) -> Option<usize> {
        let number = |queued: &Queued| queued.pending.number;
        self.queue
            .binary_search_by_key(&pending.number, number)
            .ok()
    }

    /// A mutation is not in the queue any more.
    fn uncount(&mut self, queued: &Queued) {
        self.acknowledged -= usize::from(queued.acknowledged.is_some());
        self.dependent -= usize::from(queued.pending.depends_on_seq());
    }

    /// Takes away acknowledged mutations that are in the base.
    pub(super) fn settle(&mut self, mut is_in_base: impl FnMut(Acknowledged) -> bool) {
        if 0 < self.acknowledged {
            self.retain(&mut |queued| !queued.acknowledged.is_some_and(&mut is_in_base));
        }
    }

    /// Makes the next `sync` bring whatever was acknowledged.
    pub(super) fn expect_sync(&mut self) {
        for queued in &mut self.queue {
            if let Some(acknowledged) = &mut queued.acknowledged {
                acknowledged.is_due_at_sync = true;
            }
        }
    }

    /// The changes with which acknowledged mutations are in the base.
    pub(super) fn awaited(&self) -> impl Iterator<Item = u64> {
        let acknowledged = self.queue.iter().filter_map(|queued| queued.acknowledged);
        acknowledged.map(|acknowledged| acknowledged.change_seq)
    }

    fn retain(&mut self, keeps: &mut dyn FnMut(&Queued) -> bool) {
        let (is_stale, acknowledged) = (&mut self.is_stale, &mut self.acknowledged);
        let dependent = &mut self.dependent;
        self.queue.retain(|queued| {
            let is_kept = keeps(queued);
            if !is_kept {
                *is_stale |= queued.is_effective;
                *acknowledged -= usize::from(queued.acknowledged.is_some());
                *dependent -= usize::from(queued.pending.depends_on_seq());
            }
            is_kept
        });
    }
}

impl Shown {
    fn of(base: Base<'_>) -> Self {
        match base {
            Base::Unknown => Self::Unknown,
            Base::Absent => Self::Absent,
            Base::Present { held, .. } => Self::Present {
                held: held.clone(),
                creator: None,
            },
        }
    }

    /// Carries out one mutation. Whether that changed anything, and what the server is expected to say.
    ///
    /// What depends on a value or on a condition is not shown as long as nothing is known of the item.
    fn step(&mut self, pending: &Pending, base: Base<'_>, is_touched: bool) -> (bool, Prediction) {
        let nothing = |errors| {
            let refused = None;
            (false, Prediction { errors, refused })
        };
        if let Some(condition) = pending.condition {
            let seq = match self {
                Self::Unknown => return nothing(Vec::new()),
                Self::Absent => None,
                // The change of a pending mutation will have a sequence that nobody knows yet.
                Self::Present { .. } if is_touched => Some(u64::MAX),
                Self::Present { .. } => match base {
                    Base::Present { seq: Some(seq), .. } => Some(seq),
                    _ if matches!(condition, Condition::Seq(_)) => return nothing(Vec::new()),
                    _ => Some(0),
                },
            };
            if let Err(refusal) = check(condition, seq) {
                let message = if is_touched && seq.is_some() {
                    "precondition failed: an earlier mutation of the item is pending".into()
                } else {
                    format!("{refusal}")
                };
                let refused = Some((refusal.code(), message));
                let errors = Vec::new();
                return (false, Prediction { errors, refused });
            }
        }
        let created = |held| Self::Present {
            held,
            creator: Some(pending.number),
        };
        match (&pending.action, &mut *self) {
            (Action::Set { value, .. }, Self::Present { held, .. }) => {
                *held = Held::from_text(value.clone());
            }
            (Action::Set { value, .. }, _) => *self = created(Held::from_text(value.clone())),
            (Action::Update { .. }, Self::Unknown) => return nothing(Vec::new()),
            (Action::Update { ops, is_atomic, .. }, Self::Absent) => {
                let (value, errors) = update(None, ops);
                if *is_atomic && !errors.is_empty() {
                    return nothing(errors);
                }
                *self = created(Held::from_text(value));
                let refused = None;
                return (true, Prediction { errors, refused });
            }
            (Action::Update { ops, is_atomic, .. }, Self::Present { held, .. }) => {
                let errors = held.update(ops, *is_atomic);
                let is_effective = !*is_atomic || errors.is_empty();
                let refused = None;
                return (is_effective, Prediction { errors, refused });
            }
            (Action::Delete, Self::Absent) | (Action::Send { .. }, _) => {
                return nothing(Vec::new());
            }
            (Action::Delete, _) => *self = Self::Absent,
        }
        (true, Prediction::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Ops;
    use crate::text::Json;

    fn pending(number: u64, action: Action) -> Arc<Pending> {
        Arc::new(Pending {
            client: "c".into(),
            tag: "t".into(),
            seq: number,
            number,
            item: Some("a".into()),
            action,
            condition: None,
        })
    }

    fn count(number: u64) -> Arc<Pending> {
        let ops = Ops::from_text(r#"[{"type":"increment","by":1}]"#).expect("operations");
        pending(
            number,
            Action::Update {
                ops,
                is_atomic: false,
                ttl_ms: None,
            },
        )
    }

    fn held(text: &str) -> Held {
        Held::from_text(Json::from_text(text).expect("JSON text"))
    }

    fn text(overlay: &mut Overlay, base: Base<'_>) -> String {
        match overlay.shown(base) {
            Shown::Present { held, .. } => held.text().as_str().into(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_was_expected_is_not_carried_out_again() {
        let (before, after) = (held("1"), held("2"));
        let base = |held| Base::Present { held, seq: Some(1) };
        let mut overlay = Overlay::new();
        overlay.push(count(1), base(&before));
        overlay.push(count(2), base(&before));
        assert!(overlay.expected("t", 1).is_some());
        assert!(overlay.expected("t", 2).is_none(), "it is not the first");
        overlay.confirm_first();
        assert!(!overlay.is_stale, "what is shown stays");
        assert_eq!(text(&mut overlay, base(&after)), "3");
        overlay.invalidate();
        assert_eq!(text(&mut overlay, base(&after)), "3", "made anew");
    }

    #[test]
    fn an_echo_takes_earlier_mutations_along_and_no_later_ones() {
        let before = held("1");
        let base = Base::Present {
            held: &before,
            seq: Some(1),
        };
        let mut overlay = Overlay::new();
        for number in 1..=3 {
            overlay.push(count(number), base);
        }
        overlay.confirm("another", 3);
        assert_eq!(text(&mut overlay, base), "4");
        overlay.confirm("t", 2);
        assert_eq!(text(&mut overlay, base), "2");
    }

    #[test]
    fn what_an_unknown_item_becomes_is_shown_only_where_that_does_not_matter() {
        let mut overlay = Overlay::new();
        overlay.push(count(1), Base::Unknown);
        assert_eq!(text(&mut overlay, Base::Unknown), "Unknown");
        let value = Json::from_text("7").expect("JSON text");
        let ttl_ms = None;
        overlay.push(pending(2, Action::Set { value, ttl_ms }), Base::Unknown);
        assert_eq!(text(&mut overlay, Base::Unknown), "7");
        overlay.push(pending(3, Action::Delete), Base::Unknown);
        assert_eq!(text(&mut overlay, Base::Unknown), "Absent");
    }
}
