//! What happened to a group, as it is kept: written as bytes, and read again.
//!
//! ```text
//! step   = flags, seq, timestamp, [timestamp - now_ms], [ttl_ms], [client, mutation], [item], payload
//! taken  = flags, how many mutations the group took with this one, client, mutation
//! flags  = 3 bits form, 1 bit client, 2 bits time to live, 1 bit item
//! ```
//!
//! The payload is what cannot be told from the group as it was before: the value of a create or a set, the operations of
//! an update, label and data of an event, and nothing of a delete. Operations that are longer than the value that they lead
//! to, where that is at hand, are kept as that value.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::Mutation;
use crate::decide::{Kind, Ttl};
use crate::kept::{RestoreError, Source, push_number, push_text};
use crate::stamp::Change;
use crate::text::Json;

/// What a group must do again to be as it is. Making one takes no memory: it shares the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What happened; `None` if a mutation was taken and nothing came of it.
    pub change: Option<Arc<Change>>,
    /// What became of the item's time to live.
    pub ttl: Ttl,
    /// When it happened by the clock, in Unix milliseconds.
    pub now_ms: u64,
    /// The mutation that was taken.
    pub client: Option<Mutation>,
    /// Whether the change concerns an item that is kept elsewhere.
    pub(crate) is_announced: bool,
    /// How many mutations the group has taken, with this one.
    pub(crate) taken: u64,
}

/// The forms of a step: the low bits of its flags.
const CREATE: u8 = 0;
const SET: u8 = 1;
const OPS: u8 = 2;
const DELETE: u8 = 3;
const EVENT: u8 = 4;
const TAKEN: u8 = 5;
const ANNOUNCED: u8 = 6;
const ANNOUNCED_DELETE: u8 = 7;

const FORM_BITS: u8 = 0b111;
const HAS_CLIENT: u8 = 1 << 3;
const TTL_NONE: u8 = 1 << 4;
const TTL_SOME: u8 = 1 << 5;
const HAS_ITEM: u8 = 1 << 6;
const UNUSED: u8 = 1 << 7;

impl Step {
    /// The sequence of the change; `None` if there is none.
    pub fn seq(&self) -> Option<u64> {
        self.change.as_ref().map(|change| change.seq)
    }

    /// Appends the step. [`Group::restore`](crate::Group::restore) takes exactly these bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let client_flag = if self.client.is_some() { HAS_CLIENT } else { 0 };
        let Some(change) = self.change.as_deref() else {
            out.push(TAKEN | client_flag);
            push_number(out, self.taken);
            self.push_client(out);
            return;
        };
        let payload = Payload::of(change, self.is_announced);
        let ttl_flag = match self.ttl {
            _ if !payload.writes() => 0,
            Ttl::Keep => 0,
            Ttl::Replace(None) => TTL_NONE,
            Ttl::Replace(Some(_)) => TTL_SOME,
        };
        let item_flag = if change.item.is_some() { HAS_ITEM } else { 0 };
        out.push(payload.form() | client_flag | ttl_flag | item_flag);
        push_number(out, change.seq);
        push_number(out, change.timestamp);
        if payload.writes() {
            // No timestamp is behind the clock.
            push_number(out, change.timestamp.saturating_sub(self.now_ms));
            if let Ttl::Replace(Some(ttl_ms)) = self.ttl {
                push_number(out, ttl_ms);
            }
        }
        self.push_client(out);
        if let Some(item) = &change.item {
            push_text(out, item);
        }
        match payload {
            Payload::Create(text) | Payload::Set(text) | Payload::Ops(text) => push_text(out, text),
            Payload::Event { label, data } => {
                push_text(out, label);
                push_text(out, data);
            }
            Payload::Delete | Payload::Announced { .. } => {}
        }
    }

    fn push_client(&self, out: &mut Vec<u8>) {
        if let Some(Mutation { client, seq, .. }) = &self.client {
            push_text(out, client);
            push_number(out, *seq);
        }
    }
}

/// What a step's bytes say, but for the client and the item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'b> {
    Create(&'b str),
    Set(&'b str),
    Ops(&'b str),
    Delete,
    Event { label: &'b str, data: &'b str },
    Announced { deletes: bool },
}

impl<'c> Payload<'c> {
    fn of(change: &'c Change, is_announced: bool) -> Self {
        // Only updates by operations may lack a value.
        let value = change.value.as_ref().map_or("null", Json::as_str);
        match (&change.kind, &change.ops) {
            (Kind::Delete, _) if is_announced => Self::Announced { deletes: true },
            _ if is_announced => Self::Announced { deletes: false },
            (Kind::Create, _) => Self::Create(value),
            (Kind::Update, Some(ops))
                if change.value.is_none() || ops.as_str().len() <= value.len() =>
            {
                Self::Ops(ops.as_str())
            }
            (Kind::Update, _) => Self::Set(value),
            (Kind::Delete, _) => Self::Delete,
            (Kind::Event { label }, _) => Self::Event {
                label: label.as_str(),
                data: value,
            },
        }
    }
}

impl Payload<'_> {
    fn form(self) -> u8 {
        match self {
            Self::Create(_) => CREATE,
            Self::Set(_) => SET,
            Self::Ops(_) => OPS,
            Self::Delete => DELETE,
            Self::Event { .. } => EVENT,
            Self::Announced { deletes: false } => ANNOUNCED,
            Self::Announced { deletes: true } => ANNOUNCED_DELETE,
        }
    }

    /// Whether the item has a new value, and starts its time to live anew.
    fn writes(self) -> bool {
        matches!(self, Self::Create(_) | Self::Set(_) | Self::Ops(_))
    }
}

/// The beginning of a step: as much as it takes to know whether it is the next.
pub(crate) struct Head {
    flags: u8,
    /// The sequence of the change, or how many mutations the group has taken.
    pub(crate) number: u64,
}

/// The rest of a step that is a change.
pub(crate) struct Body<'b> {
    pub(crate) timestamp: u64,
    pub(crate) now_ms: u64,
    pub(crate) ttl: Ttl,
    pub(crate) client: Option<(&'b str, u64)>,
    pub(crate) item: Option<&'b str>,
    pub(crate) payload: Payload<'b>,
}

impl Head {
    pub(crate) fn read(source: &mut Source<'_>) -> Result<Self, RestoreError> {
        let flags = source.byte()?;
        if flags & UNUSED != 0 || flags & TTL_NONE != 0 && flags & TTL_SOME != 0 {
            return Err(source.wrong("these flags are never written"));
        }
        let number = source.number()?;
        Ok(Self { flags, number })
    }

    /// Whether it is no change, but a mutation that was taken.
    pub(crate) fn is_taken(&self) -> bool {
        self.flags & FORM_BITS == TAKEN
    }

    /// The client and its mutation, of a step that is no more than that.
    pub(crate) fn client<'b>(
        &self,
        source: &mut Source<'b>,
    ) -> Result<(&'b str, u64), RestoreError> {
        let client = (source.text()?, source.number()?);
        source.end()?;
        Ok(client)
    }

    pub(crate) fn body<'b>(&self, source: &mut Source<'b>) -> Result<Body<'b>, RestoreError> {
        let form = self.flags & FORM_BITS;
        let has = |flag| self.flags & flag != 0;
        let timestamp = source.number()?;
        let mut now_ms = timestamp;
        let mut ttl = Ttl::Keep;
        if matches!(form, CREATE | SET | OPS) {
            now_ms = source.below(timestamp)?;
            if has(TTL_SOME) {
                ttl = Ttl::Replace(Some(source.number()?));
            } else if has(TTL_NONE) {
                ttl = Ttl::Replace(None);
            }
        }
        let client = if has(HAS_CLIENT) {
            Some((source.text()?, source.number()?))
        } else {
            None
        };
        let item = if has(HAS_ITEM) {
            Some(source.text()?)
        } else {
            None
        };
        let payload = match form {
            CREATE => Payload::Create(source.text()?),
            SET => Payload::Set(source.text()?),
            OPS => Payload::Ops(source.text()?),
            DELETE => Payload::Delete,
            EVENT => Payload::Event {
                label: source.text()?,
                data: source.text()?,
            },
            _ => Payload::Announced {
                deletes: form == ANNOUNCED_DELETE,
            },
        };
        source.end()?;
        if item.is_none() && !matches!(payload, Payload::Event { .. } | Payload::Announced { .. }) {
            return Err(source.wrong("an item is changed without being named"));
        }
        Ok(Body {
            timestamp,
            now_ms,
            ttl,
            client,
            item,
            payload,
        })
    }
}
