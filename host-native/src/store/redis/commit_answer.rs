//! What the commit script answers: what became of each command, and how things are that were thought to be otherwise.

use redis::Value;

use super::Shared;
use super::answer::Parts;
use super::kept::{Head, Meta, value_of};
use super::known::KnownItem;
use crate::store::StoreError;

/// What the script said.
pub(super) enum Answer {
    /// As many commands as there are results were done.
    Done {
        meta: Option<Meta>,
        results: Vec<CommandResult>,
        conflict: Option<Conflict>,
    },
    /// It came too late: nothing was done.
    Late,
    /// It is the turn of another instance: nothing was done.
    Waits,
}

/// How items and clients are that were thought to be otherwise.
#[derive(Default)]
pub(super) struct Conflict {
    pub(super) items: Vec<(usize, Option<KnownItem>)>,
    pub(super) clients: Vec<(usize, String)>,
}

/// What became of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandResult {
    Nothing,
    /// The last change of the item, if that is there, and of the group.
    Told {
        item_seq: Option<u64>,
        seq: u64,
    },
    TooManyItems,
    TooManyBytes,
    Changed {
        seq: u64,
        timestamp: u64,
        base: Option<u64>,
    },
}

impl Shared {
    pub(super) fn read_answer(&self, value: Value) -> Result<Answer, StoreError> {
        let mut parts = Parts::of(value)?;
        let status = parts.text()?;
        self.hear_now_ms(parts.number()?);
        let is_conflict = match status.as_str() {
            "done" => false,
            "conflict" => true,
            "waits" => return Ok(Answer::Waits),
            _ => return Ok(Answer::Late),
        };
        let meta = parts.bytes()?;
        let meta = match meta.is_empty() {
            true => None,
            false => Some(Meta::read(&meta)?),
        };
        let results = parts.text()?;
        let results: Result<Vec<_>, _> = results
            .split('\n')
            .filter(|line| !line.is_empty())
            .map(CommandResult::read)
            .collect();
        let conflict = match is_conflict {
            true => Some(Conflict::read(&mut parts)?),
            false => None,
        };
        Ok(Answer::Done {
            meta,
            results: results?,
            conflict,
        })
    }
}

impl CommandResult {
    fn read(line: &str) -> Result<Self, StoreError> {
        match line {
            "n" => return Ok(Self::Nothing),
            "I" => return Ok(Self::TooManyItems),
            "B" => return Ok(Self::TooManyBytes),
            _ => {}
        }
        if let Some(told) = line.strip_prefix("q ") {
            let read = || {
                let (item_seq, seq) = told.split_once(' ')?;
                let item_seq = match item_seq {
                    "-" => None,
                    item_seq => Some(item_seq.parse().ok()?),
                };
                let seq = seq.parse().ok()?;
                Some(Self::Told { item_seq, seq })
            };
            return read().ok_or_else(no_result);
        }
        let read = || {
            let mut fields = line.split(' ');
            let mut number = || fields.next()?.parse().ok();
            let (seq, timestamp) = (number()?, number()?);
            let base = match fields.next()? {
                "-" => None,
                base => Some(base.parse().ok()?),
            };
            Some(Self::Changed {
                seq,
                timestamp,
                base,
            })
        };
        read().ok_or_else(no_result)
    }
}

fn no_result() -> StoreError {
    StoreError::other("Redis answered with a result that is none")
}

impl Conflict {
    fn read(parts: &mut Parts) -> Result<Self, StoreError> {
        let mut conflict = Self::default();
        let mut items = parts.parts()?;
        while let Some(item) = items.next() {
            let mut item = Parts::of(item)?;
            let index = index_of(item.number()?);
            let known = match item.optional_bytes()? {
                Some(head) => Some(KnownItem {
                    seq: Head::read(&head)?.seq,
                    value: value_of(&item.bytes()?)?,
                }),
                None => None,
            };
            conflict.items.push((index, known));
        }
        let mut clients = parts.parts()?;
        while let Some(client) = clients.next() {
            let mut client = Parts::of(client)?;
            conflict
                .clients
                .push((index_of(client.number()?), client.text()?));
        }
        Ok(conflict)
    }
}

/// Scripts count from 1.
fn index_of(number: u64) -> usize {
    usize::try_from(number).map_or(usize::MAX, |number| number.wrapping_sub(1))
}
