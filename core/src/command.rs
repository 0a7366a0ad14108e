//! What a call asks for: reads the input of the `stream::` functions. Knows no items and no transport.

use alloc::borrow::Cow;
use alloc::sync::Arc;

use crate::error::{CallError, OpsError};
use crate::fields::{FieldError, Fields};
use crate::limits::{MUTATION_CLIENT_BYTES_MAX, TTL_MS_MAX};
use crate::name::{GroupRef, is_name};
use crate::op::Ops;
use crate::raw::Raw;
use crate::text::Json;

/// Which group a call addresses. Both names are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The stream's name.
    pub stream: Cow<'a, str>,
    /// The group's id.
    pub group: Cow<'a, str>,
}

impl Target<'_> {
    /// The borrowed form.
    pub fn as_ref(&self) -> GroupRef<'_> {
        GroupRef {
            stream: &self.stream,
            group: &self.group,
        }
    }
}

/// A call that may change a group.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// The group.
    pub target: Target<'a>,
    /// What to do with it.
    pub command: Command,
}

/// What to do with a group.
#[derive(Clone, Debug)]
pub struct Command {
    /// The item; only [`Action::Send`] can do without.
    pub item: Option<Arc<str>>,
    /// What to do with the item.
    pub action: Action,
    /// Must hold, or nothing is done.
    pub condition: Option<Condition>,
    /// Makes the command take effect once, however often it is sent.
    pub mutation: Option<Mutation>,
    /// What the reply holds; `None` is the reply of the published wire.
    pub returning: Option<Returning>,
}

/// What to do with an item.
#[derive(Clone, Debug)]
pub enum Action {
    /// Replaces the value, or creates the item.
    Set {
        /// The new value.
        value: Json,
        /// Lives this long without another write, in milliseconds; `None` for ever.
        ttl_ms: Option<u64>,
    },
    /// Applies operations to the value, or to a missing item.
    Update {
        /// The operations.
        ops: Ops,
        /// Whether one failed operation undoes all.
        is_atomic: bool,
        /// Lives this long without another write, in milliseconds; `None` leaves the time to live as it is.
        ttl_ms: Option<u64>,
    },
    /// Takes the item away.
    Delete,
    /// Stores nothing: subscribers get an event.
    Send {
        /// The event's `type`, a JSON string.
        label: Json,
        /// The event's `data`.
        data: Json,
    },
}

/// What must hold for a command to be carried out. Shape: `{"seq":52}`, `{"absent":true}` or `{"exists":true}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The item's last change has this sequence.
    Seq(u64),
    /// There is no such item.
    Absent,
    /// There is such an item.
    Exists,
}

/// Who asks for a change, and the how-manieth it is of theirs in this group. Shape: `{"client":"…","seq":112,"resent"?:true}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// A secret of its maker.
    pub client: Arc<str>,
    /// Counts from 1.
    pub seq: u64,
    /// Whether it may have been sent before.
    pub is_resent: bool,
}

/// What the reply to a write holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returning {
    /// The value before and the value after.
    Both,
    /// The value after.
    New,
    /// Neither.
    None,
}

/// A call that reads one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// The group.
    pub target: Target<'a>,
    /// The item.
    pub item: Cow<'a, str>,
    /// Whether to tell sequence and timestamp too.
    pub meta: bool,
}

/// A call that reads all items of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<'a> {
    /// The group.
    pub target: Target<'a>,
    /// Whether to tell ids, sequences and timestamps too.
    pub meta: bool,
}

const SET: &str = "stream::set";
const UPDATE: &str = "stream::update";
const DELETE: &str = "stream::delete";
const SEND: &str = "stream::send";
const GET: &str = "stream::get";
const LIST: &str = "stream::list";
const LIST_GROUPS: &str = "stream::list_groups";
const LIST_ALL: &str = "stream::list_all";

/// Every function whose input this module reads.
pub const STREAM_FUNCTIONS: [&str; 8] =
    [SET, GET, DELETE, UPDATE, LIST, LIST_GROUPS, LIST_ALL, SEND];

/// Reads the input of `stream::set`.
///
/// Errors: [`CallError`], as for the others here. Source: stream functions, section 3; product design, section 6.
pub fn read_set(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 8] = &[
        "stream_name",
        "group_id",
        "item_id",
        "data",
        "ttl_ms",
        "if",
        "mutation",
        "returning",
    ];
    let input = Input::read(SET, input, FIELDS)?;
    let target = input.target()?;
    let item = input.item(2)?;
    let value = input.value(3)?;
    let action = Action::Set {
        value,
        ttl_ms: input.ttl_ms(4)?,
    };
    input.write(target, Some(item), action, 5)
}

/// Reads the input of `stream::update`. Source: stream functions, section 8.
pub fn read_update(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 9] = &[
        "stream_name",
        "group_id",
        "item_id",
        "ops",
        "atomic",
        "ttl_ms",
        "if",
        "mutation",
        "returning",
    ];
    let input = Input::read(UPDATE, input, FIELDS)?;
    let target = input.target()?;
    let item = input.item(2)?;
    let ops = input.ops(3)?;
    let is_atomic = input.flag(4)?;
    let action = Action::Update {
        ops,
        is_atomic,
        ttl_ms: input.ttl_ms(5)?,
    };
    input.write(target, Some(item), action, 6)
}

/// Reads the input of `stream::delete`. Source: stream functions, section 5.
pub fn read_delete(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 6] = &[
        "stream_name",
        "group_id",
        "item_id",
        "if",
        "mutation",
        "returning",
    ];
    let input = Input::read(DELETE, input, FIELDS)?;
    let target = input.target()?;
    let item = input.item(2)?;
    input.write(target, Some(item), Action::Delete, 3)
}

/// Reads the input of `stream::send`. Source: stream functions, section 7.
pub fn read_send(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 6] = &["stream_name", "group_id", "type", "id", "data", "mutation"];
    let input = Input::read(SEND, input, FIELDS)?;
    let target = input.target()?;
    let label = Json::from_str_value(&input.of(input.fields.string(2))?);
    let item = match input.of(input.fields.optional_string(3))? {
        Some(id) => Some(input.name("id", id)?.as_ref().into()),
        None => None,
    };
    let action = Action::Send {
        label,
        data: input.value(4)?,
    };
    let mutation = input.mutation(5)?;
    Ok(Write {
        target,
        command: Command {
            item,
            action,
            condition: None,
            mutation,
            returning: None,
        },
    })
}

/// Reads the input of `stream::get`. Source: stream functions, section 4.
pub fn read_get(input: &str) -> Result<Get<'_>, CallError> {
    const FIELDS: &[&str; 4] = &["stream_name", "group_id", "item_id", "meta"];
    let input = Input::read(GET, input, FIELDS)?;
    let target = input.target()?;
    let item = input.required_name(2)?;
    let meta = input.flag(3)?;
    Ok(Get { target, item, meta })
}

/// Reads the input of `stream::list`. Source: stream functions, section 6.
pub fn read_list(input: &str) -> Result<List<'_>, CallError> {
    const FIELDS: &[&str; 3] = &["stream_name", "group_id", "meta"];
    let input = Input::read(LIST, input, FIELDS)?;
    let target = input.target()?;
    let meta = input.flag(2)?;
    Ok(List { target, meta })
}

/// Reads the input of `stream::list_groups`: the stream's name. Source: stream functions, section 6.
pub fn read_list_groups(input: &str) -> Result<Cow<'_, str>, CallError> {
    const FIELDS: &[&str; 1] = &["stream_name"];
    Input::read(LIST_GROUPS, input, FIELDS)?.required_name(0)
}

/// Reads the input of `stream::list_all`, which has no fields; `null` is taken as `{}`.
/// Source: stream functions, section 6.
pub fn read_list_all(input: &str) -> Result<(), CallError> {
    const FIELDS: &[&str; 0] = &[];
    if input.trim_ascii() == "null" {
        return Ok(());
    }
    Input::read(LIST_ALL, input, FIELDS).map(|_| ())
}

/// The fields of one call, with the function's name for its errors. The first two are stream and group.
pub(crate) struct Input<'a, const N: usize> {
    function: &'static str,
    names: &'static [&'static str; N],
    fields: Fields<'a, N>,
}

impl<'a, const N: usize> Input<'a, N> {
    pub(crate) fn read(
        function: &'static str,
        input: &'a str,
        names: &'static [&'static str; N],
    ) -> Result<Self, CallError> {
        let fields =
            Fields::read(input, names).map_err(|source| CallError::Field { function, source })?;
        Ok(Self {
            function,
            names,
            fields,
        })
    }

    fn of<T>(&self, result: Result<T, FieldError>) -> Result<T, CallError> {
        result.map_err(|source| CallError::Field {
            function: self.function,
            source,
        })
    }

    fn target(&self) -> Result<Target<'a>, CallError> {
        Ok(Target {
            stream: self.required_name(0)?,
            group: self.required_name(1)?,
        })
    }

    pub(crate) fn item(&self, index: usize) -> Result<Arc<str>, CallError> {
        self.required_name(index).map(|name| name.as_ref().into())
    }

    pub(crate) fn required_name(&self, index: usize) -> Result<Cow<'a, str>, CallError> {
        self.name(self.names[index], self.of(self.fields.string(index))?)
    }

    fn name(&self, field: &'static str, name: Cow<'a, str>) -> Result<Cow<'a, str>, CallError> {
        if is_name(&name) {
            return Ok(name);
        }
        Err(CallError::Name {
            function: self.function,
            field,
            bytes: name.len(),
        })
    }

    pub(crate) fn value(&self, index: usize) -> Result<Json, CallError> {
        let raw = self.of(self.fields.required(index))?;
        Json::from_field(raw).map_err(|source| CallError::Value {
            function: self.function,
            field: self.names[index],
            source,
        })
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        self.fields.raw(index).is_some()
    }

    pub(crate) fn flag(&self, index: usize) -> Result<bool, CallError> {
        Ok(self.of(self.fields.optional_bool(index))?.unwrap_or(false))
    }

    pub(crate) fn ops(&self, index: usize) -> Result<Ops, CallError> {
        let raw = self
            .fields
            .raw(index)
            .ok_or(OpsError::NotAnArray { got: "nothing" });
        raw.and_then(Ops::from_raw)
            .map_err(|source| CallError::Ops {
                function: self.function,
                source,
            })
    }

    fn ttl_ms(&self, index: usize) -> Result<Option<u64>, CallError> {
        match self.of(self.fields.optional_u64(index))? {
            Some(ttl_ms) if !(1..=TTL_MS_MAX).contains(&ttl_ms) => Err(CallError::Ttl {
                function: self.function,
                ttl_ms,
            }),
            ttl_ms => Ok(ttl_ms),
        }
    }

    /// Reads the fields that all writes to items end with: `if`, `mutation` and `returning`, from `first` on.
    pub(crate) fn write(
        &self,
        target: Target<'a>,
        item: Option<Arc<str>>,
        action: Action,
        first: usize,
    ) -> Result<Write<'a>, CallError> {
        let condition = self.condition(first)?;
        let mutation = self.mutation(first + 1)?;
        let returning = self.returning(first + 2)?;
        Ok(Write {
            target,
            command: Command {
                item,
                action,
                condition,
                mutation,
                returning,
            },
        })
    }

    fn condition(&self, index: usize) -> Result<Option<Condition>, CallError> {
        const EXPECTED: &str = r#"one of {"seq":N}, {"absent":true}, {"exists":true}"#;
        let Some(raw) = self.fields.optional(index) else {
            return Ok(None);
        };
        let read = || {
            let fields = Fields::read(raw.get(), &["seq", "absent", "exists"])?;
            Ok((
                fields.optional_u64(0)?,
                fields.optional_bool(1)?,
                fields.optional_bool(2)?,
            ))
        };
        let parts: Result<_, FieldError> = read();
        match parts {
            Ok((Some(seq), None, None)) => Ok(Some(Condition::Seq(seq))),
            Ok((None, Some(true), None)) => Ok(Some(Condition::Absent)),
            Ok((None, None, Some(true))) => Ok(Some(Condition::Exists)),
            _ => self.of(Err(self.fields.wrong_type(index, EXPECTED))),
        }
    }

    fn mutation(&self, index: usize) -> Result<Option<Mutation>, CallError> {
        let Some(raw) = self.fields.optional(index) else {
            return Ok(None);
        };
        let function = self.function;
        let wrong = || {
            self.fields
                .wrong_type(index, "an object with `client`, `seq` and perhaps `resent`")
        };
        let (client, seq, is_resent) = self.of(read_mutation(raw).ok_or_else(wrong))?;
        if client.is_empty() || MUTATION_CLIENT_BYTES_MAX < client.len() {
            return Err(CallError::MutationClient {
                function,
                bytes: client.len(),
            });
        }
        if seq == 0 {
            return Err(CallError::MutationSeqZero { function });
        }
        Ok(Some(Mutation {
            client: client.as_ref().into(),
            seq,
            is_resent,
        }))
    }

    fn returning(&self, index: usize) -> Result<Option<Returning>, CallError> {
        match self.fields.optional(index).map(Raw::get) {
            None => Ok(None),
            Some(r#""both""#) => Ok(Some(Returning::Both)),
            Some(r#""new""#) => Ok(Some(Returning::New)),
            Some(r#""none""#) => Ok(Some(Returning::None)),
            Some(_) => self.of(Err(self
                .fields
                .wrong_type(index, "\"both\", \"new\" or \"none\""))),
        }
    }
}

fn read_mutation(raw: Raw<'_>) -> Option<(Cow<'_, str>, u64, bool)> {
    let fields = Fields::read(raw.get(), &["client", "seq", "resent"]).ok()?;
    let (client, seq) = (fields.string(0).ok()?, fields.optional_u64(1).ok()??);
    Some((client, seq, fields.optional_bool(2).ok()?.unwrap_or(false)))
}
