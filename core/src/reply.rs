//! What callers are told, as JSON text. Knows no transport.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::Returning;
use crate::decide::{Outcome, Refusal, Reply};
use crate::error::OpError;
use crate::group::Item;
use crate::text::{Json, push_number, push_string};

impl Reply {
    /// The result of the call as JSON text.
    ///
    /// Shape: stream functions, sections 3, 5, 7 and 8; with `returning`, also `seq`, the sequence of the change or
    /// `null`. Errors: the [`Refusal`].
    pub fn to_json(&self) -> Result<String, Refusal> {
        let (old, new, errors) = match &self.outcome {
            Outcome::Set { old, new } => (old.as_ref(), Some(Some(new)), &[][..]),
            Outcome::Updated { old, new, errors } => {
                (old.as_ref(), Some(new.as_ref()), errors.as_slice())
            }
            Outcome::Deleted { old } => (old.as_ref(), None, &[][..]),
            Outcome::Sent => return Ok("null".into()),
            Outcome::Duplicate { seq, at } => return Ok(duplicate(*seq, *at)),
            Outcome::Refused(refusal) => return Err(*refusal),
        };
        let has_old = matches!(self.returning, None | Some(Returning::Both));
        let new = new.filter(|_| self.returning != Some(Returning::None));
        let length = |json: Option<&Json>| json.map_or(4, |json| json.as_str().len());
        let values = length(old.filter(|_| has_old)) + length(new.flatten());
        let mut object = ObjectText::with_capacity(values + 64);
        if has_old {
            object.value("old_value", old);
        }
        if let Some(new) = new {
            object.value("new_value", new);
        }
        if !errors.is_empty() {
            object.errors(errors);
        }
        if self.returning.is_some() {
            object.seq(self.seq);
        }
        Ok(object.finish())
    }
}

fn duplicate(seq: u64, at: Option<u64>) -> String {
    let mut text = String::from(r#"{"duplicate":true,"seq":"#);
    push_number(&mut text, seq);
    text.push_str(r#","at":"#);
    match at {
        Some(at) => push_number(&mut text, at),
        None => text.push_str("null"),
    }
    text.push('}');
    text
}

/// Writes an object field by field.
struct ObjectText {
    text: String,
}

impl ObjectText {
    fn with_capacity(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Self { text }
    }

    fn name(&mut self, name: &str) {
        if 1 < self.text.len() {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn value(&mut self, name: &str, value: Option<&Json>) {
        self.name(name);
        self.text.push_str(value.map_or("null", Json::as_str));
    }

    fn errors(&mut self, errors: &[OpError]) {
        self.name("errors");
        // Numbers and strings in a list always have a JSON form.
        self.text
            .push_str(&serde_json::to_string(errors).unwrap_or_default());
    }

    fn seq(&mut self, seq: Option<u64>) {
        self.name("seq");
        match seq {
            Some(seq) => push_number(&mut self.text, seq),
            None => self.text.push_str("null"),
        }
    }

    fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

impl Item {
    /// What `stream::get` with `meta` tells. Shape: `{"value","seq","timestamp","ttl_ms"?,"expires_ms"?}`.
    pub fn to_meta_json(&self) -> String {
        let mut text = String::with_capacity(self.value.as_str().len() + 64);
        text.push('{');
        self.push_meta(&mut text);
        text
    }

    fn push_meta(&self, text: &mut String) {
        text.push_str(r#""value":"#);
        text.push_str(self.value.as_str());
        text.push_str(r#","seq":"#);
        push_number(text, self.seq);
        text.push_str(r#","timestamp":"#);
        push_number(text, self.timestamp);
        if let (Some(ttl_ms), Some(expires_ms)) = (self.ttl_ms, self.expires_ms) {
            text.push_str(r#","ttl_ms":"#);
            push_number(text, ttl_ms);
            text.push_str(r#","expires_ms":"#);
            push_number(text, expires_ms);
        }
        text.push('}');
    }
}

/// What `stream::list` tells. Shape: `[value, …]`, with `meta` `[{"id", …}, …]` and the fields of [`Item::to_meta_json`].
pub fn list_json(items: &[(Arc<str>, Item)], meta: bool) -> String {
    members_json(items, meta.then_some("id"))
}

/// What `state::list` tells. Shape: `[value, …]`, with `meta` `[{"key", …}, …]` and the fields of [`Item::to_meta_json`].
pub fn state_list_json(items: &[(Arc<str>, Item)], meta: bool) -> String {
    members_json(items, meta.then_some("key"))
}

/// Bare values, or objects that tell ids under the name `id_field`.
fn members_json(items: &[(Arc<str>, Item)], id_field: Option<&str>) -> String {
    let values: usize = items
        .iter()
        .map(|(_, item)| item.value.as_str().len() + 1)
        .sum();
    let mut text = String::with_capacity(values + 2);
    text.push('[');
    for (id, item) in items {
        if 1 < text.len() {
            text.push(',');
        }
        if let Some(id_field) = id_field {
            text.push_str("{\"");
            text.push_str(id_field);
            text.push_str("\":");
            push_string(&mut text, id);
            text.push(',');
            item.push_meta(&mut text);
        } else {
            text.push_str(item.value.as_str());
        }
    }
    text.push(']');
    text
}

/// What `stream::list_groups` tells. Shape: `["r1", …]`.
pub fn group_names_json(groups: &[Arc<str>]) -> String {
    let mut text = String::from("[");
    for (index, group) in groups.iter().enumerate() {
        if 0 < index {
            text.push(',');
        }
        push_string(&mut text, group);
    }
    text.push(']');
    text
}

/// What `stream::list_all` tells. Shape: `{"stream":[{"id":"chat","groups":["r1"]}],"count":1}`.
pub fn streams_json(streams: &[(Arc<str>, Vec<Arc<str>>)]) -> String {
    let mut text = String::from(r#"{"stream":["#);
    for (index, (stream, groups)) in streams.iter().enumerate() {
        text.push_str(if 0 < index { r#",{"id":"# } else { r#"{"id":"# });
        push_string(&mut text, stream);
        text.push_str(r#","groups":"#);
        text.push_str(&group_names_json(groups));
        text.push('}');
    }
    text.push_str(r#"],"count":"#);
    // A count of things in memory fits.
    push_number(&mut text, streams.len() as u64);
    text.push('}');
    text
}
