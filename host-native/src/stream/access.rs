//! What the caller of a `stream::` function may do: asked before anything is looked up, and again where a list is told. Knows
//! no store.

use std::sync::Arc;

use iii_stream_core::{Ability, Grants, GroupRef, View};
use serde_json::Value;

use super::verb::Verb;
use crate::engine::{Failure, Output};
use crate::store::StreamGroups;

/// On whose behalf a function is called.
#[derive(Clone, Debug)]
pub enum Access {
    /// Workers and the server itself may do everything.
    Everything,
    /// A client may do what it was granted.
    Granted(Arc<Grants>),
}

impl Access {
    /// Whether a write to an item, or an event about it, is allowed.
    ///
    /// Errors: `forbidden`.
    pub(super) fn check(
        &self,
        verb: Verb,
        group: GroupRef<'_>,
        item: Option<&str>,
    ) -> Result<(), Failure> {
        let ability = match verb {
            Verb::Set => Ability::Set,
            Verb::Update => Ability::Update,
            Verb::Delete => Ability::Delete,
            Verb::Send => Ability::Send,
            Verb::Get | Verb::List | Verb::ListGroups | Verb::ListAll => Ability::Read,
        };
        match self {
            Self::Granted(grants) if !grants.may(ability, group, item) => {
                Err(forbidden(ability, group, item))
            }
            Self::Everything | Self::Granted(_) => Ok(()),
        }
    }

    /// Whether an item may be read.
    pub(super) fn may_read(&self, group: GroupRef<'_>, item: Option<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.may(Ability::Read, group, item),
        }
    }

    /// What of a group may be read.
    ///
    /// Errors: `forbidden` where that is nothing.
    pub(super) fn view(&self, group: GroupRef<'_>) -> Result<View, Failure> {
        let Self::Granted(grants) = self else {
            return Ok(View::All);
        };
        match grants.view(group) {
            View::Nothing => Err(forbidden(Ability::Read, group, None)),
            view => Ok(view),
        }
    }

    /// Whether anything of a group may be read.
    fn shows(&self, stream: &str, group: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.may_read_any(GroupRef { stream, group }),
        }
    }

    /// Takes out the groups of which nothing may be read.
    pub(super) fn retain_groups(&self, stream: &str, groups: &mut Vec<Arc<str>>) {
        groups.retain(|group| self.shows(stream, group));
    }

    /// Takes out the groups of which nothing may be read, and the streams without others.
    pub(super) fn retain_streams(&self, streams: &mut Vec<StreamGroups>) {
        if matches!(self, Self::Everything) {
            return;
        }
        streams.retain_mut(|(stream, groups)| {
            self.retain_groups(stream, groups);
            !groups.is_empty()
        });
    }

    /// The same for a list of groups that a worker's function has given.
    ///
    /// Errors: `JSON_ERROR` where it is no list of names: then what may be told of it cannot be known.
    pub(super) fn filter_groups(&self, stream: &str, output: Output) -> Result<Output, Failure> {
        if matches!(self, Self::Everything) {
            return Ok(output);
        }
        let names: Vec<Box<str>> = parse(&output, "no list of groups' names")?;
        let mut groups: Vec<Arc<str>> = names.into_iter().map(Into::into).collect();
        self.retain_groups(stream, &mut groups);
        Ok(Output::Json(iii_stream_core::group_names_json(&groups)))
    }

    /// The same for a list of streams that a worker's function has given.
    ///
    /// Errors: `JSON_ERROR` where it does not have the shape of the server's own.
    pub(super) fn filter_streams(&self, output: Output) -> Result<Output, Failure> {
        if matches!(self, Self::Everything) {
            return Ok(output);
        }
        let shape = "no list of streams with their groups";
        let list: Value = parse(&output, shape)?;
        let streams = list.get("stream").and_then(Value::as_array);
        let streams = streams.ok_or_else(|| useless(shape))?;
        let mut read = Vec::with_capacity(streams.len());
        for stream in streams {
            let id = stream.get("id").and_then(Value::as_str);
            let groups = stream.get("groups").and_then(Value::as_array);
            let (Some(id), Some(groups)) = (id, groups) else {
                return Err(useless(shape));
            };
            let names = groups.iter().map(|group| group.as_str().map(Into::into));
            let names: Option<Vec<Arc<str>>> = names.collect();
            read.push((id.into(), names.ok_or_else(|| useless(shape))?));
        }
        self.retain_streams(&mut read);
        Ok(Output::Json(iii_stream_core::streams_json(&read)))
    }
}

fn parse<T: serde::de::DeserializeOwned>(output: &Output, shape: &str) -> Result<T, Failure> {
    let Output::Json(json) = output else {
        return Err(useless(shape));
    };
    serde_json::from_str(json).map_err(|_| useless(shape))
}

fn useless(shape: &str) -> Failure {
    let message = format!("the function that keeps this stream returned {shape}");
    Failure::new("JSON_ERROR", &message)
}

fn forbidden(ability: Ability, group: GroupRef<'_>, item: Option<&str>) -> Failure {
    let ability = match ability {
        Ability::Read => "read",
        Ability::Set => "set",
        Ability::Update => "update",
        Ability::Delete => "delete",
        Ability::Send => "send",
    };
    let GroupRef { stream, group } = group;
    let place = match item {
        Some(item) => format!("item {item:?} of group {group:?} of stream {stream:?}"),
        None => format!("group {group:?} of stream {stream:?}"),
    };
    Failure::new(
        "forbidden",
        &format!("this client has no grant to {ability} {place}"),
    )
}
