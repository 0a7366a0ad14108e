//! What one instance tells the others of itself: its workers, their functions and their bindings, as JSON text. Knows no Redis.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::{Binding, Details, FunctionInfo, OwnerId};

/// Longest text of one instance, in bytes. What does not fit is left out and not known to others.
const CARD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What other instances know of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Where its workers connect, for people.
    pub address: String,
    /// What all instances should have alike, by its key in the configuration.
    pub settings: BTreeMap<String, String>,
    /// The functions of its workers.
    pub functions: Vec<FunctionInfo>,
    /// The bindings of its workers.
    pub bindings: Vec<Arc<Binding>>,
    /// Its workers, those that have nothing registered too.
    pub workers: Vec<WorkerCard>,
}

/// What other instances know of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCard {
    /// Its id.
    pub id: OwnerId,
    /// What people call it.
    pub name: Option<String>,
    /// Its label.
    pub namespace: Option<String>,
    /// How it is shown to whoever asks, as JSON text.
    pub shown: String,
}

#[derive(Serialize, Deserialize)]
struct CardText {
    version: u64,
    #[serde(default)]
    address: String,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    workers: Vec<WorkerText>,
    #[serde(default)]
    bindings: Vec<BindingText>,
    #[serde(default)]
    functions: Vec<FunctionText>,
}

#[derive(Serialize, Deserialize)]
struct WorkerText {
    id: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    shown: String,
}

#[derive(Serialize, Deserialize)]
struct FunctionText {
    id: Box<str>,
    owner: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_format: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct BindingText {
    id: Box<str>,
    trigger_type: Box<str>,
    function_id: Box<str>,
    config: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    owner: Box<str>,
}

impl Card {
    /// Shape: `{"version","address","settings":{},"workers":[{"id","name"?,"namespace"?,"shown"}],"bindings":[{"id","trigger_type","function_id","config",
    /// "metadata"?,"owner"}],"functions":[{"id","owner","description"?,"metadata"?,"request_format"?,"response_format"?}]}`;
    /// JSON text that came from workers stays text, byte by byte.
    pub(super) fn to_text(&self, version: u64) -> String {
        let mut room = Room(CARD_BYTES_MAX);
        let text = CardText {
            version,
            address: self.address.clone(),
            settings: self.settings.clone(),
            bindings: room.take(self.bindings.iter().map(|it| BindingText::of(it))),
            functions: room.take(self.functions.iter().map(FunctionText::of)),
            workers: room.take(self.workers.iter().map(WorkerText::of)),
        };
        let left_out = self.bindings.len() + self.functions.len() + self.workers.len()
            - text.bindings.len()
            - text.functions.len()
            - text.workers.len();
        if 0 < left_out {
            tracing::error!(
                left_out,
                bytes_max = CARD_BYTES_MAX,
                "other instances do not learn of all functions, triggers and workers of this one: there are too many"
            );
        }
        // It has only strings and numbers, which can always be written.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Reads what [`Card::to_text`] wrote, and which version it is.
    ///
    /// Errors: what is wrong with the text.
    pub(super) fn from_text(text: &[u8]) -> Result<(u64, Self), serde_json::Error> {
        let text: CardText = serde_json::from_slice(text)?;
        let card = Self {
            address: text.address,
            settings: text.settings,
            functions: text.functions.into_iter().map(Into::into).collect(),
            bindings: text
                .bindings
                .into_iter()
                .map(|it| Arc::new(it.into()))
                .collect(),
            workers: text.workers.into_iter().map(Into::into).collect(),
        };
        Ok((text.version, card))
    }

    /// Which settings another instance has otherwise, in words. One that does not tell a setting is of another version.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let differing = self.settings.iter().filter_map(|(key, here)| {
            let there = other.settings.get(key).filter(|there| *there != here)?;
            Some(format!("`{key}` is {there} there and {here} here"))
        });
        differing.collect()
    }
}

/// How many bytes are left.
struct Room(usize);

/// About how long something is as JSON text, in bytes.
trait Size {
    fn size(&self) -> usize;
}

impl Room {
    /// What fits, in order.
    fn take<T: Size>(&mut self, all: impl Iterator<Item = T>) -> Vec<T> {
        let fits = |one: &T| match self.0.checked_sub(one.size()) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        };
        all.filter(fits).collect()
    }
}

/// What field names and punctuation take.
const FRAME_BYTES: usize = 120;

fn len(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

impl Size for WorkerText {
    fn size(&self) -> usize {
        FRAME_BYTES + self.shown.len() + len(self.name.as_ref()) + len(self.namespace.as_ref())
    }
}

impl Size for FunctionText {
    fn size(&self) -> usize {
        let details = [
            &self.description,
            &self.metadata,
            &self.request_format,
            &self.response_format,
        ];
        let details: usize = details.into_iter().map(|text| len(text.as_ref())).sum();
        FRAME_BYTES + self.id.len() + details
    }
}

impl Size for BindingText {
    fn size(&self) -> usize {
        FRAME_BYTES
            + self.id.len()
            + self.function_id.len()
            + self.config.len()
            + len(self.metadata.as_ref())
    }
}

impl WorkerText {
    fn of(worker: &WorkerCard) -> Self {
        let WorkerCard {
            id,
            name,
            namespace,
            shown,
        } = worker.clone();
        Self {
            id: boxed(&id),
            name,
            namespace,
            shown,
        }
    }
}

impl From<WorkerText> for WorkerCard {
    fn from(text: WorkerText) -> Self {
        Self {
            id: text.id.into(),
            name: text.name,
            namespace: text.namespace,
            shown: text.shown,
        }
    }
}

fn boxed(text: &str) -> Box<str> {
    text.into()
}

impl FunctionText {
    fn of(function: &FunctionInfo) -> Self {
        let FunctionInfo { id, owner, details } = function;
        let Details {
            description,
            metadata,
            request_format,
            response_format,
        } = details.clone();
        Self {
            id: boxed(id),
            owner: boxed(owner),
            description,
            metadata,
            request_format,
            response_format,
        }
    }
}

impl From<FunctionText> for FunctionInfo {
    fn from(text: FunctionText) -> Self {
        Self {
            id: text.id.into(),
            owner: text.owner.into(),
            details: Details {
                description: text.description,
                metadata: text.metadata,
                request_format: text.request_format,
                response_format: text.response_format,
            },
        }
    }
}

impl BindingText {
    fn of(binding: &Binding) -> Self {
        let Binding {
            id,
            trigger_type,
            function_id,
            config,
            metadata,
            owner,
        } = binding.clone();
        Self {
            id: boxed(&id),
            trigger_type: boxed(&trigger_type),
            function_id: boxed(&function_id),
            config,
            metadata,
            owner: boxed(&owner),
        }
    }
}

impl From<BindingText> for Binding {
    fn from(text: BindingText) -> Self {
        Self {
            id: text.id.into(),
            trigger_type: text.trigger_type.into(),
            function_id: text.function_id.into(),
            config: text.config,
            metadata: text.metadata,
            owner: text.owner.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_comes_back_as_it_was_written() {
        let card = Card {
            address: "h:1".to_owned(),
            settings: BTreeMap::from([("layout".to_owned(), "native".to_owned())]),
            functions: vec![FunctionInfo {
                id: "a::\"b\"".into(),
                owner: "w".into(),
                details: Details {
                    description: Some("does\nit".to_owned()),
                    metadata: Some(r#"{ "k": [1,  2] }"#.to_owned()),
                    ..Details::default()
                },
            }],
            bindings: vec![Arc::new(Binding {
                id: "1".into(),
                trigger_type: "state".into(),
                function_id: "f".into(),
                config: r#"{"scope": "s"}"#.to_owned(),
                metadata: None,
                owner: "w".into(),
            })],
            workers: vec![WorkerCard {
                id: "w".into(),
                name: Some("n".to_owned()),
                namespace: None,
                shown: "{}".to_owned(),
            }],
        };
        let text = card.to_text(7);
        let read = Card::from_text(text.as_bytes()).expect("a card");
        assert_eq!(read, (7, card));
        assert!(Card::from_text(b"{}").is_err());
        assert!(
            Card::from_text(br#"{"version":1,"of_a_later_version":true}"#)
                .is_ok_and(|(version, card)| version == 1 && card == Card::default())
        );
    }

    #[test]
    fn settings_that_differ_are_named_with_both_values() {
        let with = |settings: &[(&str, &str)]| Card {
            settings: settings
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            ..Card::default()
        };
        let here = with(&[("layout", "native"), ("group_items_max", "5"), ("new", "1")]);
        let there = with(&[("layout", "compatible"), ("group_items_max", "5")]);
        assert_eq!(
            here.differences(&there),
            ["`layout` is compatible there and native here"]
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let workers = ["a", "b"].map(|id| WorkerText {
            id: id.into(),
            name: None,
            namespace: None,
            shown: "x".repeat(1_000),
        });
        let mut room = Room(1_500);
        let fit = room.take(workers.into_iter());
        assert_eq!(fit.len(), 1);
        assert_eq!(room.0, 1_500 - 1_000 - FRAME_BYTES);
    }
}
