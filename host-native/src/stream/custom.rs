//! Streams that a worker keeps itself: calls its functions, and makes events of what they return. Knows no sockets.
//!
//! A stream is kept by a worker when functions like `stream::set(<name>)` are registered, which is looked up for each call;
//! with an adapter of its own, every stream is. Events follow the order in which results arrive, in the group's one
//! sequence. Such items have no versions here, so what needs them is refused. Source: stream functions, section 10; product
//! design, section 7.

use std::sync::Arc;

use iii_stream_core::command::{Action, Get, List, Write};
use iii_stream_core::fields::Fields;
use iii_stream_core::{GroupRef, Item, Json, View, list_json};
use serde_json::value::RawValue;

use super::keeper::{Keeper, call, input};
use super::turns::Turns;
use super::verb::Verb;
use crate::engine::{CallResult, Failure, Output, Registry, ReplyTo};
use crate::store::{Done, Snapshot, Store, StoreError};

/// Finds and calls the functions of workers that keep streams.
pub struct CustomStorage {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    /// Whose functions keep every stream: `<adapter>::set` and so on.
    adapter: Option<String>,
    turns: Arc<Turns>,
}

impl CustomStorage {
    /// Streams without functions of their own stay with `store`, unless there is an `adapter`. `store` counts the changes
    /// of all groups.
    pub fn new(
        registry: Arc<Registry>,
        store: Arc<dyn Store>,
        adapter: Option<String>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            registry,
            store,
            adapter,
            turns: Arc::new(Turns::new(runtime)),
        }
    }

    /// Whether the items of this stream have versions: not where a worker keeps it, nor where the store keeps none.
    pub fn has_versions(&self, stream: &str) -> bool {
        let is_custom = || {
            let mut reads = [Verb::List, Verb::Get].into_iter();
            reads.any(|verb| self.function(verb, stream).is_some())
        };
        self.store.keeps_versions() && !is_custom()
    }

    /// Where streams are kept that no worker keeps.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The function that does this for a stream; `None` when the server's own store does.
    pub(super) fn function(&self, verb: Verb, stream: &str) -> Option<String> {
        if let Some(adapter) = &self.adapter {
            return Some(format!("{adapter}::{}", verb.name()));
        }
        if !self.registry.has_custom_storage() {
            return None;
        }
        let id = format!("stream::{}({stream})", verb.name());
        self.registry.find(&id).is_some().then_some(id)
    }

    /// Carries out a set, update or delete.
    pub(super) fn commit(&self, verb: Verb, function_id: &str, write: Write<'_>, reply: ReplyTo) {
        let Write { target, command } = write;
        let is_versioned = command.condition.is_some() || command.mutation.is_some();
        let (more, is_supported) = match &command.action {
            Action::Set { value, ttl_ms } => (Some(("data", value)), ttl_ms.is_none()),
            Action::Update {
                ops,
                is_atomic,
                ttl_ms,
            } => (Some(("ops", ops.text())), !is_atomic && ttl_ms.is_none()),
            Action::Delete | Action::Send { .. } => (None, true),
        };
        if is_versioned || !is_supported {
            unsupported(
                reply,
                function_id,
                "`if`, `mutation`, `atomic` and `ttl_ms`",
            );
            return;
        }
        let item = command.item.unwrap_or_default();
        let key = (target.as_ref().to_key(), item);
        let keeper = Keeper {
            registry: self.registry.clone(),
            store: self.store.clone(),
            verb,
            returning: command.returning,
        };
        let function_id = function_id.to_owned();
        if let (Action::Update { ops, .. }, Some(adapter)) = (&command.action, &self.adapter)
            && !self.has_update()
        {
            let (ops, adapter) = (ops.clone(), adapter.clone());
            self.turns.take(key.clone(), move |turn| {
                keeper.update_by_parts(&adapter, key, &ops, turn, reply);
            });
            return;
        }
        let input = input(key.0.as_ref(), Some(&key.1), more);
        if self.adapter.is_some() && !self.has_update() {
            // An update of this item in two steps must not be parted by another write.
            self.turns.take(key.clone(), move |turn| {
                keeper.write(&function_id, &input, key, Some(turn), reply);
            });
        } else {
            keeper.write(&function_id, &input, key, None, reply);
        }
    }

    /// Whether the adapter does updates itself.
    fn has_update(&self) -> bool {
        let find = |adapter: &String| self.registry.find(&format!("{adapter}::update"));
        self.adapter
            .as_ref()
            .is_some_and(|adapter| find(adapter).is_some())
    }

    /// Reads one item: what the function returns is passed on as it is.
    pub(super) fn get(&self, function_id: &str, get: &Get<'_>, reply: ReplyTo) {
        if get.meta {
            return unsupported(reply, function_id, "`meta`");
        }
        let input = input(get.target.as_ref(), Some(&get.item), None);
        self.call(function_id, &input, move |result| reply.send(result));
    }

    /// Reads a group: what the function returns is passed on as it is, or as far as its caller may see it.
    pub(super) fn list(&self, function_id: &str, list: &List<'_>, view: View, reply: ReplyTo) {
        if list.meta {
            return unsupported(reply, function_id, "`meta`");
        }
        self.call(
            function_id,
            &input(list.target.as_ref(), None, None),
            move |result| {
                reply.send(match view {
                    View::All => result,
                    view => shown(&view, result),
                });
            },
        );
    }

    /// Reads the names of groups or streams: what the function returns is passed on as far as it is to be `told`.
    pub(super) fn pass_on(
        &self,
        function_id: &str,
        input: &str,
        reply: ReplyTo,
        told: impl FnOnce(Output) -> CallResult + Send + 'static,
    ) {
        self.call(function_id, input, move |result| {
            reply.send(result.and_then(told));
        });
    }

    /// Reads a group or an item for a new subscriber. Its sequence and timestamp are those from before the function is
    /// asked: changes that arrive meanwhile follow the `sync`.
    pub fn snapshot(
        &self,
        group: GroupRef<'_>,
        item: Option<&str>,
        now_ms: u64,
        done: Done<Snapshot>,
    ) {
        let verb = if item.is_some() {
            Verb::Get
        } else {
            Verb::List
        };
        let Some(function_id) = self.function(verb, group.stream) else {
            return self.store.snapshot(group, item, now_ms, done);
        };
        let (registry, key, item) = (
            self.registry.clone(),
            group.to_key(),
            item.map(str::to_owned),
        );
        // Asked for an item that cannot be: only sequence and timestamp are wanted.
        self.store.snapshot(
            group,
            Some(""),
            now_ms,
            Box::new(move |snapshot| {
                let snapshot = match snapshot {
                    Ok(snapshot) => snapshot,
                    Err(error) => return done(Err(error)),
                };
                let input = input(key.as_ref(), item.as_deref(), None);
                call(&registry, &function_id, &input, move |result| {
                    let values = read_values(item.is_some(), result);
                    done(values.map(|values| {
                        Snapshot {
                            items: values
                                .into_iter()
                                .map(|value| {
                                    (id_of(item.as_deref(), &value), Item::unversioned(value))
                                })
                                .collect(),
                            ..snapshot
                        }
                    }));
                });
            }),
        );
    }

    fn call(
        &self,
        function_id: &str,
        input: &str,
        on_answer: impl FnOnce(CallResult) + Send + 'static,
    ) {
        call(&self.registry, function_id, input, on_answer);
    }
}

fn unsupported(reply: ReplyTo, function_id: &str, what: &str) {
    let message = format!("{what} need versions, which items kept by '{function_id}' do not have");
    reply.fail("unsupported_by_storage", message);
}

/// The values of a list that may be seen.
fn shown(view: &View, result: CallResult) -> CallResult {
    let listed = read_values(false, Ok(result?))
        .map_err(|error| Failure::new("JSON_ERROR", &error.message))?;
    let items = listed.into_iter().map(|value| {
        let id = id_of(None, &value);
        (id, Item::unversioned(value))
    });
    let shown: Vec<_> = items.filter(|(id, _)| view.shows(Some(id))).collect();
    Ok(Output::Json(list_json(&shown, false)))
}

/// The id of an item. A listing function gives values only: then it is their member `id`, by which clients know items too.
/// What has none has the empty id, which names nothing.
fn id_of(asked: Option<&str>, value: &Json) -> Arc<str> {
    let of_value = || Fields::read(value.as_str(), &["id"]).ok()?.string(0).ok();
    match asked {
        Some(item) => item.into(),
        None => of_value().as_deref().unwrap_or_default().into(),
    }
}

/// Reads what a listing or getting function returned, for a `sync`.
fn read_values(is_item: bool, result: CallResult) -> Result<Vec<Json>, StoreError> {
    let json = match result {
        Ok(Output::Json(json)) => json,
        Ok(Output::Nothing) => "null".to_owned(),
        Err(failure) => {
            return Err(StoreError::other(failure.message()));
        }
    };
    let unreadable = |error: String| {
        StoreError::other(format!(
            "the function that keeps this stream returned {error}"
        ))
    };
    if json == "null" {
        return Ok(Vec::new());
    }
    if is_item {
        return Json::from_text(&json)
            .map(|value| vec![value])
            .map_err(|error| unreadable(error.to_string()));
    }
    let members: Vec<&RawValue> =
        serde_json::from_str(&json).map_err(|error| unreadable(format!("no array: {error}")))?;
    members
        .into_iter()
        .map(|raw| Json::from_raw(raw).map_err(|error| unreadable(error.to_string())))
        .collect()
}
