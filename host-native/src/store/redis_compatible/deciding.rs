//! Decides a batch of commands, one after another, on the texts that Redis holds. Pure; the core says what a command does.

use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::command::Action;
use iii_stream_core::{
    ClientState, Command, Current, Decision, Draft, GroupLimits, Json, Kind, Outcome, Refusal,
    Reply, decide,
};

use crate::store::{StoreError, StoreErrorCause};

/// An item has no sequence here. The core is told this one, and nobody else.
const NO_SEQ: u64 = 0;

/// The fields that a batch is about, as they were read.
pub(super) struct Known {
    /// How many fields the hash has.
    pub(super) items: usize,
    /// The texts of the fields, in the order in which they were asked for.
    pub(super) texts: Vec<Option<Vec<u8>>>,
}

/// A field that the batch is about.
pub(super) struct Field {
    pub(super) name: Arc<str>,
    /// Its text in Redis.
    pub(super) before: Option<Vec<u8>>,
    /// Its value after the commands so far.
    now: Result<Option<Json>, StoreError>,
    /// Whether a command has written it.
    is_written: bool,
}

impl Field {
    /// What becomes of it: nothing, its end, or a new text.
    pub(super) fn write(&self) -> Option<Option<&str>> {
        let now = self.now.as_ref().ok().filter(|_| self.is_written)?;
        Some(now.as_ref().map(Json::as_str))
    }
}

/// What one command comes to.
pub(super) type Decided = Result<(Reply, Option<Draft>), StoreError>;

/// What a batch comes to.
pub(super) struct Decisions {
    pub(super) fields: Vec<Field>,
    pub(super) commands: Vec<Decided>,
}

impl Decisions {
    /// Whether anything is written or told.
    pub(super) fn do_something(&self) -> bool {
        let mut commands = self.commands.iter().flatten();
        commands.any(|(_, draft)| draft.is_some())
    }

    /// What is told, in order.
    pub(super) fn drafts(&self) -> impl Iterator<Item = &Draft> {
        let commands = self.commands.iter().flatten();
        commands.filter_map(|(_, draft)| draft.as_ref())
    }
}

/// The items that commands are about, each once, without those of events, which touch nothing.
pub(super) fn items_of(commands: &[Command]) -> Vec<Arc<str>> {
    let mut items: Vec<Arc<str>> = Vec::new();
    let mut seen = hashbrown::HashSet::new();
    for command in commands {
        if let (Some(item), true) = (&command.item, touches(command))
            && seen.insert(item.clone())
        {
            items.push(item.clone());
        }
    }
    items
}

fn touches(command: &Command) -> bool {
    !matches!(command.action, Action::Send { .. })
}

/// Decides. `key` is the hash's, for errors that name it.
pub(super) fn decide_all(
    key: &str,
    items: &[Arc<str>],
    known: Known,
    commands: &[Command],
    limits: &GroupLimits,
) -> Decisions {
    let mut count = known.items;
    let mut fields: Vec<Field> = items
        .iter()
        .zip(known.texts)
        .map(|(name, before)| Field {
            name: name.clone(),
            now: before
                .as_deref()
                .map(|text| read_value(key, name, text))
                .transpose(),
            before,
            is_written: false,
        })
        .collect();
    let places: HashMap<Arc<str>, usize> = items.iter().cloned().zip(0..).collect();
    let commands = commands
        .iter()
        .map(|command| {
            let place = command.item.as_ref().filter(|_| touches(command));
            let field = place
                .and_then(|item| places.get(item))
                .map(|&place| &mut fields[place]);
            decide_one(command.clone(), field, &mut count, limits)
        })
        .collect();
    Decisions { fields, commands }
}

fn decide_one(
    command: Command,
    field: Option<&mut Field>,
    count: &mut usize,
    limits: &GroupLimits,
) -> Decided {
    let current = match &field {
        Some(field) => field.now.clone()?,
        None => None,
    };
    let current = current.map(|value| Current { value, seq: NO_SEQ });
    let Decision {
        mut reply, draft, ..
    } = decide(current, command, ClientState::Unknown);
    if let Outcome::Refused(refusal @ Refusal::PreconditionFailed { seq: Some(_) }) =
        &mut reply.outcome
    {
        *refusal = Refusal::ItemExists;
    }
    let Some(mut draft) = draft else {
        return Ok((reply, None));
    };
    draft.base = None;
    draft.ops = None;
    if draft.kind == Kind::Create && limits.items_max <= *count {
        let items_max = limits.items_max;
        reply.outcome = Outcome::Refused(Refusal::TooManyItems { items_max });
        return Ok((reply, None));
    }
    if let Some(field) = field {
        match draft.kind {
            Kind::Create => *count += 1,
            Kind::Delete => *count = count.saturating_sub(1),
            Kind::Update | Kind::Event { .. } => {}
        }
        let value = draft.value.clone();
        field.now = Ok(value.filter(|_| draft.kind != Kind::Delete));
        field.is_written = true;
    }
    Ok((reply, Some(draft)))
}

/// A value as Redis holds it.
///
/// Errors: it is no JSON, or none that can be kept.
pub(super) fn read_value(key: &str, field: &str, text: &[u8]) -> Result<Json, StoreError> {
    let damaged = |what: String| {
        StoreError::new(
            StoreErrorCause::Damaged,
            format!("Redis holds no value under key `{key}`, field `{field}`: {what}"),
        )
    };
    let text = std::str::from_utf8(text).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
    Json::from_text(text).map_err(|error| damaged(error.to_string()))
}
