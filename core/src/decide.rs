//! What a command does to an item: the reply and the change, without sequence and time. Pure, so that every store
//! can use it, and trying again is harmless. Knows no groups and no stores.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::apply::apply;
use crate::command::{Action, Command, Condition, Mutation, Returning};
use crate::error::OpError;
use crate::mutation::{ClientRecord, ClientState, Echo, client_tag};
use crate::op::Ops;
use crate::sparse;
use crate::text::Json;

/// What a decision needs to know of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its value.
    pub value: Json,
    /// The sequence of its last change.
    pub seq: u64,
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What the caller is told, but for the sequence.
    pub reply: Reply,
    /// What happens in the group; `None` is nothing.
    pub draft: Option<Draft>,
    /// What the group must remember of the client from now on, together with the change.
    pub client: Option<(Arc<str>, ClientRecord)>,
}

/// A change that has no sequence and no timestamp yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The item; only [`Kind::Event`] can be without.
    pub item: Option<Arc<str>>,
    /// What happens to it.
    pub kind: Kind,
    /// The new value; for deletes the removed one, for events their data. `None` only for an update by operations whose
    /// value nobody needs as text.
    pub value: Option<Json>,
    /// The operations that lead from the value at `base` to the new one.
    pub ops: Option<Json>,
    /// The item's sequence before, where it existed.
    pub base: Option<u64>,
    /// What becomes of the item's time to live.
    pub ttl: Ttl,
    /// The mutation it came from.
    pub mutation: Option<Echo>,
}

/// What a change does to its item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was missing before.
    Create,
    /// It has a new value.
    Update,
    /// It is gone.
    Delete,
    /// Nothing: something is told to subscribers.
    Event {
        /// The event's `type`, a JSON string.
        label: Json,
    },
}

/// What a change does to its item's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Leaves it, and starts it anew.
    Keep,
    /// Sets it to so many milliseconds, or takes it away.
    Replace(Option<u64>),
}

/// What the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What came of the command.
    pub outcome: Outcome,
    /// What the caller asked to be told of it.
    pub returning: Option<Returning>,
    /// The sequence of the change, filled in by [`stamp`](crate::stamp); `None` where nothing changed.
    pub seq: Option<u64>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The item has a new value.
    Set {
        /// The value before; `None` also where nobody asked for it.
        old: Option<Json>,
        /// The value now.
        new: Json,
    },
    /// Operations were applied, or with `atomic` and errors none was.
    Updated {
        /// The value before; `None` also where nobody asked for it.
        old: Option<Json>,
        /// The value now; `None` where an atomic update left a missing item missing, and where nobody asked for it.
        new: Option<Json>,
        /// The operations that failed.
        errors: Vec<OpError>,
    },
    /// The item is not there any more, or never was.
    Deleted {
        /// The value before.
        old: Option<Json>,
    },
    /// Subscribers are told.
    Sent,
    /// This mutation has been taken before; nothing was done.
    Duplicate {
        /// The last mutation taken from this client.
        seq: u64,
        /// The sequence of the last change of the item that the command names: whoever has seen the item's changes up to
        /// there has seen what came of the original. `None` where there was none, or none is known any more.
        at: Option<u64>,
    },
    /// Nothing was done.
    Refused(Refusal),
}

impl Outcome {
    /// The value before, of a command that changed or deleted an item, where it was asked for.
    pub fn old(&self) -> Option<&Json> {
        match self {
            Self::Set { old, .. } | Self::Updated { old, .. } | Self::Deleted { old } => {
                old.as_ref()
            }
            Self::Sent | Self::Duplicate { .. } | Self::Refused(_) => None,
        }
    }
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The condition does not hold.
    #[error("precondition failed: {}", SeqText(*.seq))]
    PreconditionFailed {
        /// The sequence of the item's last change; `None` if there is no such item.
        seq: Option<u64>,
    },
    /// The item is there and must not be, where items have no sequences.
    #[error("precondition failed: the item exists")]
    ItemExists,
    /// The group has as many items as it may have.
    #[error("the group has {items_max} items, which is the limit")]
    TooManyItems {
        /// The limit.
        items_max: usize,
    },
    /// The group's items would take more room than they may.
    #[error("the group's items would take more than {bytes_max} bytes, which is the limit")]
    TooManyBytes {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// Mutations of this client are missing in between.
    #[error("mutation {got} came before mutation {expected}")]
    MutationGap {
        /// The one that is expected next.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// Nothing is known of this client here, and its mutation is not its first, or may have been taken before.
    #[error(
        "mutation {got} of a client that this group does not know, or not any more: a client starts at 1, and is forgotten after long silence"
    )]
    MutationUnknown {
        /// The one that came.
        got: u64,
    },
}

struct SeqText(Option<u64>);

impl core::fmt::Display for SeqText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(seq) => write!(f, "the item's seq is {seq}"),
            None => f.write_str("the item does not exist"),
        }
    }
}

impl Refusal {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PreconditionFailed { .. } | Self::ItemExists => "precondition_failed",
            Self::TooManyItems { .. } | Self::TooManyBytes { .. } => "group_full",
            Self::MutationGap { .. } => "mutation_gap",
            Self::MutationUnknown { .. } => "mutation_unknown",
        }
    }
}

/// Decides what `command` does, given the item as it stands and what is known of the mutation's client.
///
/// Source: stream functions, sections 3 to 8; product design, section 6.
pub fn decide(current: Option<Current>, command: Command, client: ClientState<'_>) -> Decision {
    decide_on(&mut TextItem(current), command, client)
}

/// The item that a command is about.
pub(crate) trait Subject {
    /// The sequence of its last change; `None` if there is no such item.
    fn seq(&self) -> Option<u64>;

    /// The sequence of the last change that its subscribers have seen, also where it is gone; events about it count
    /// only where `counts_events`. `None` where none is known.
    fn last_change(&self, counts_events: bool) -> Option<u64>;

    /// Its value, if it is there; `None` also where it is not `needed` and not at hand.
    fn value(&mut self, is_needed: bool) -> Option<Json>;

    /// Applies operations. What it does need not be harmless to do again: it is asked once, and the draft that follows
    /// is always carried out.
    fn update(&mut self, ops: &Ops, is_atomic: bool) -> Result<Updated, Refusal>;
}

/// What operations did to a [`Subject`].
#[derive(Debug, Default)]
pub(crate) struct Updated {
    /// The value before, where it is to be told.
    pub(crate) old: Option<Json>,
    /// The value now, where it is to be told.
    pub(crate) new: Option<Json>,
    pub(crate) errors: Vec<OpError>,
    /// Whether errors of an atomic update left everything as it was.
    pub(crate) is_undone: bool,
}

/// An item as text.
pub(crate) struct TextItem(pub(crate) Option<Current>);

impl Subject for TextItem {
    fn seq(&self) -> Option<u64> {
        self.0.as_ref().map(|current| current.seq)
    }

    fn last_change(&self, _: bool) -> Option<u64> {
        self.seq()
    }

    fn value(&mut self, _: bool) -> Option<Json> {
        self.0.as_ref().map(|current| current.value.clone())
    }

    fn update(&mut self, ops: &Ops, is_atomic: bool) -> Result<Updated, Refusal> {
        let old = self.value(true);
        let (new, errors) = update(old.as_ref(), ops);
        let is_undone = is_atomic && !errors.is_empty();
        Ok(Updated {
            new: if is_undone { old.clone() } else { Some(new) },
            old,
            errors,
            is_undone,
        })
    }
}

/// [`decide`], on an item in whatever form.
pub(crate) fn decide_on(
    subject: &mut impl Subject,
    command: Command,
    client: ClientState<'_>,
) -> Decision {
    let Command {
        item,
        action,
        condition,
        mutation,
        returning,
    } = command;
    let reply = |outcome| Reply {
        outcome,
        returning,
        seq: None,
    };
    let taken = match mutation.map(|mutation| take(mutation, client)).transpose() {
        Ok(taken) => taken,
        Err(untaken) => {
            let outcome = match untaken {
                Untaken::Duplicate { seq } => Outcome::Duplicate {
                    seq,
                    at: subject.last_change(matches!(action, Action::Send { .. })),
                },
                Untaken::Refused(refusal) => Outcome::Refused(refusal),
            };
            return Decision {
                reply: reply(outcome),
                draft: None,
                client: None,
            };
        }
    };
    // A mutation that is refused below has still been taken: its client goes on to the next.
    let (client, echo) = taken.unzip();
    let base = subject.seq();
    let refusal = condition.and_then(|condition| check(condition, base).err());
    if let Some(refusal) = refusal {
        return Decision {
            reply: reply(Outcome::Refused(refusal)),
            draft: None,
            client,
        };
    }
    let written = if base.is_some() {
        Kind::Update
    } else {
        Kind::Create
    };
    let draft = |kind, value, ops, ttl| Draft {
        item,
        kind,
        value,
        ops,
        base,
        ttl,
        mutation: echo,
    };
    let (outcome, draft) = match action {
        Action::Set { value, ttl_ms } => {
            let old = subject.value(false);
            let draft = draft(written, Some(value.clone()), None, Ttl::Replace(ttl_ms));
            (Outcome::Set { old, new: value }, Some(draft))
        }
        Action::Update {
            ops,
            is_atomic,
            ttl_ms,
        } => match subject.update(&ops, is_atomic) {
            Ok(Updated {
                old,
                new,
                errors,
                is_undone,
            }) => {
                let draft = (!is_undone).then(|| {
                    let ttl = ttl_ms.map_or(Ttl::Keep, |ttl_ms| Ttl::Replace(Some(ttl_ms)));
                    draft(written, new.clone(), Some(ops.text().clone()), ttl)
                });
                (Outcome::Updated { old, new, errors }, draft)
            }
            Err(refusal) => (Outcome::Refused(refusal), None),
        },
        Action::Delete => {
            let old = subject.value(true);
            let draft = old
                .clone()
                .map(|old| draft(Kind::Delete, Some(old), None, Ttl::Keep));
            (Outcome::Deleted { old }, draft)
        }
        Action::Send { label, data } => (
            Outcome::Sent,
            Some(draft(Kind::Event { label }, Some(data), None, Ttl::Keep)),
        ),
    };
    Decision {
        reply: reply(outcome),
        draft,
        client,
    }
}

type Taken = ((Arc<str>, ClientRecord), Echo);

/// Why a mutation is not taken.
enum Untaken {
    /// It has been.
    Duplicate {
        /// The last one taken from its client.
        seq: u64,
    },
    Refused(Refusal),
}

/// Whether a mutation is the next of its client, and what is to be remembered then.
fn take(mutation: Mutation, state: ClientState<'_>) -> Result<Taken, Untaken> {
    let Mutation {
        client,
        seq,
        is_resent,
    } = mutation;
    let tag = match state {
        ClientState::Known(record) if seq <= record.last => {
            return Err(Untaken::Duplicate { seq: record.last });
        }
        ClientState::Known(record) if seq != record.last + 1 => {
            let expected = record.last + 1;
            return Err(Untaken::Refused(Refusal::MutationGap {
                expected,
                got: seq,
            }));
        }
        ClientState::Known(record) => record.tag.clone(),
        ClientState::New if seq == 1 => client_tag(&client),
        ClientState::Unknown if seq == 1 && !is_resent => client_tag(&client),
        ClientState::New | ClientState::Unknown => {
            return Err(Untaken::Refused(Refusal::MutationUnknown { got: seq }));
        }
    };
    Ok((
        (
            client,
            ClientRecord {
                last: seq,
                tag: tag.clone(),
            },
        ),
        Echo { tag, seq },
    ))
}

/// Whether a condition holds for an item whose last change has this sequence; `None` is no item.
pub(crate) fn check(condition: Condition, seq: Option<u64>) -> Result<(), Refusal> {
    let holds = match condition {
        Condition::Seq(expected) => seq == Some(expected),
        Condition::Absent => seq.is_none(),
        Condition::Exists => seq.is_some(),
    };
    if holds {
        Ok(())
    } else {
        Err(Refusal::PreconditionFailed { seq })
    }
}

/// What operations make of a value: the step of [`decide`] that needs no item.
pub fn update(old: Option<&Json>, ops: &Ops) -> (Json, Vec<OpError>) {
    // The operations were checked, with the depth they can lead to, so the result needs no check.
    if let Some((new, errors)) = old.and_then(|old| sparse::apply_to_text(old.as_str(), ops)) {
        return (Json::from_kept(&new), errors);
    }
    let applied = apply(old.map(Json::to_value), ops);
    (Json::from_checked_value(&applied.value), applied.errors)
}
