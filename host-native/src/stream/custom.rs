//! Streams that a worker keeps itself: calls its functions, and makes events of what they return. Knows no sockets.
//!
//! A stream is kept by a worker when functions like `stream::set(<name>)` are registered, which is looked up for each call;
//! with an adapter of its own, every stream is. Events follow the order in which results arrive, in the group's one
//! sequence. Such items have no versions here, so what needs them is refused. Source: stream functions, section 10; product
//! design, section 7.

use std::sync::Arc;

use iii_stream_core::command::{Action, Get, List, Returning, Write};
use iii_stream_core::fields::Fields;
use iii_stream_core::text::push_string;
use iii_stream_core::{
    Change, Draft, GroupRef, Item, Json, Kind, Ops, Outcome, Reply, Ttl, update,
};
use serde_json::value::RawValue;

use super::functions::{Verb, refused};
use super::turns::{ItemKey, Turn, Turns};
use crate::clock;
use crate::engine::{Call, CallResult, Failure, OnAnswer, Output, Registry, ReplyTo};
use crate::store::{Done, Snapshot, Store, StoreError};

/// Finds and calls the functions of workers that keep streams.
pub struct CustomStorage {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    /// Whose functions keep every stream: `<adapter>::set` and so on.
    adapter: Option<String>,
    turns: Arc<Turns>,
}

/// Takes the group's change that a result led to, or none.
type Announced = Box<dyn FnOnce(Option<u64>) + Send>;

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

    /// Reads a group: what the function returns is passed on as it is.
    pub(super) fn list(&self, function_id: &str, list: &List<'_>, reply: ReplyTo) {
        if list.meta {
            return unsupported(reply, function_id, "`meta`");
        }
        self.call(
            function_id,
            &input(list.target.as_ref(), None, None),
            move |result| reply.send(result),
        );
    }

    /// Reads the names of groups or streams: what the function returns is passed on as it is.
    pub(super) fn pass_on(&self, function_id: &str, input: &str, reply: ReplyTo) {
        self.call(function_id, input, move |result| reply.send(result));
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
                                .map(|value| ("".into(), Item::unversioned(value)))
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

fn call(
    registry: &Registry,
    function_id: &str,
    input: &str,
    on_answer: impl FnOnce(CallResult) + Send + 'static,
) {
    registry.invoke(
        &Call::from_server(function_id, input),
        "default",
        ReplyTo::new(OnAnswer(on_answer)),
    );
}

/// What one write needs once it is on its way.
struct Keeper {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    verb: Verb,
    returning: Option<Returning>,
}

impl Keeper {
    /// Calls a storing function and makes an event of what it returns.
    fn write(
        self,
        function_id: &str,
        input: &str,
        key: ItemKey,
        turn: Option<Turn>,
        reply: ReplyTo,
    ) {
        let Self {
            registry,
            store,
            verb,
            returning,
        } = self;
        call(&registry, function_id, input, move |result| {
            let returned = match read_result(verb, verb.store_error_code(), result) {
                Ok(returned) => returned,
                Err(failure) => return reply.send(Err(failure)),
            };
            let (group, item) = key;
            let draft = returned.draft(verb, item);
            let announced = move |seq| {
                drop(turn);
                reply.send(returned.reply(returning, seq));
            };
            announce(&store, group.as_ref(), draft, Box::new(announced));
        });
    }

    /// Updates an item with `get` and `set`, for an adapter that has no `update`. Atomic among the writes of this server.
    fn update_by_parts(self, adapter: &str, key: ItemKey, ops: &Ops, turn: Turn, reply: ReplyTo) {
        let (ops, set_id) = (ops.clone(), format!("{adapter}::set"));
        let get = input(key.0.as_ref(), Some(&key.1), None);
        let registry = self.registry.clone();
        call(&registry, &format!("{adapter}::get"), &get, move |result| {
            let current = match read_current(self.verb.store_error_code(), result) {
                Ok(current) => current,
                Err(failure) => return reply.send(Err(failure)),
            };
            let (new, errors) = update(current.as_ref(), &ops);
            let set = input(key.0.as_ref(), Some(&key.1), Some(("data", &new)));
            let outcome = Outcome::Updated {
                old: current,
                new: Some(new),
                errors,
            };
            self.set_updated(&set_id, &set, key, outcome, turn, reply);
        });
    }

    /// The second part of an update: stores what it came to.
    fn set_updated(
        self,
        set_id: &str,
        set: &str,
        key: ItemKey,
        outcome: Outcome,
        turn: Turn,
        reply: ReplyTo,
    ) {
        let Self {
            registry,
            store,
            verb,
            returning,
        } = self;
        call(&registry, set_id, set, move |result| {
            if let Err(failure) = read_result(Verb::Set, verb.store_error_code(), result) {
                return reply.send(Err(failure));
            }
            let (group, item) = key;
            let (old, new) = match &outcome {
                Outcome::Updated { old, new, .. } => (old.clone(), new.clone()),
                _ => (None, None),
            };
            let draft = Returned {
                old,
                new,
                errors: None,
            }
            .draft(Verb::Set, item);
            let announced = move |seq| {
                drop(turn);
                let reply_text = Reply {
                    outcome,
                    returning,
                    seq,
                }
                .to_json();
                reply.send(reply_text.map(Output::Json).map_err(refused));
            };
            announce(&store, group.as_ref(), draft, Box::new(announced));
        });
    }
}

/// Reads what a getting function returned before an update; nothing and `null` are a missing item.
fn read_current(code: &str, result: CallResult) -> Result<Option<Json>, Failure> {
    match result {
        Ok(Output::Json(json)) if json != "null" => Json::from_text(&json).map(Some).map_err(|error| {
            let message = format!("the function that keeps this stream returned a value that cannot be read: {error}");
            Failure::new("JSON_ERROR", &message)
        }),
        Ok(_) => Ok(None),
        Err(failure) => Err(Failure::new(code, &failure.message())),
    }
}

fn unsupported(reply: ReplyTo, function_id: &str, what: &str) {
    let message = format!("{what} need versions, which items kept by '{function_id}' do not have");
    reply.fail("unsupported_by_storage", message);
}

fn announce(
    store: &Arc<dyn Store>,
    group: GroupRef<'_>,
    draft: Option<Draft>,
    announced: Announced,
) {
    let Some(draft) = draft else {
        return announced(None);
    };
    store.announce(
        group,
        draft,
        clock::unix_ms(),
        Box::new(move |change: Result<Arc<Change>, StoreError>| {
            // What the worker did is done, told or not.
            announced(change.ok().map(|change| change.seq));
        }),
    );
}

/// The input of the built-in, with exactly its known fields.
fn input(group: GroupRef<'_>, item: Option<&str>, more: Option<(&str, &Json)>) -> String {
    let mut out = String::from(r#"{"stream_name":"#);
    push_string(&mut out, group.stream);
    out.push_str(r#","group_id":"#);
    push_string(&mut out, group.group);
    if let Some(item) = item {
        out.push_str(r#","item_id":"#);
        push_string(&mut out, item);
    }
    if let Some((name, json)) = more {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":");
        out.push_str(json.as_str());
    }
    out.push('}');
    out
}

/// What a storing function returned.
struct Returned {
    /// `None` for absent and `null`: the item is taken as new.
    old: Option<Json>,
    /// `None` for deletes.
    new: Option<Json>,
    /// The failed operations of an update, as they came.
    errors: Option<Json>,
}

impl Returned {
    fn draft(&self, verb: Verb, item: Arc<str>) -> Option<Draft> {
        let kind = match (verb, &self.old) {
            (Verb::Delete, Some(_)) => Kind::Delete,
            (Verb::Delete, None) => return None,
            (_, Some(_)) => Kind::Update,
            (_, None) => Kind::Create,
        };
        let value = self.new.clone().or_else(|| self.old.clone())?;
        Some(Draft {
            item: Some(item),
            kind,
            value,
            ops: None,
            base: None,
            ttl: Ttl::Keep,
            mutation: None,
        })
    }

    fn reply(self, returning: Option<Returning>, seq: Option<u64>) -> CallResult {
        let Self { old, new, errors } = self;
        let outcome = match new {
            Some(new) => Outcome::Set { old, new },
            None => Outcome::Deleted { old },
        };
        let mut json = Reply {
            outcome,
            returning,
            seq,
        }
        .to_json()
        .unwrap_or_default();
        if let Some(errors) = errors {
            json.pop();
            json.push_str(r#","errors":"#);
            json.push_str(errors.as_str());
            json.push('}');
        }
        Ok(Output::Json(json))
    }
}

/// Reads what a storing function returned. Errors: `STREAM_*_ERROR` when it failed or returned nothing, `JSON_ERROR` when
/// the shape is no use.
fn read_result(verb: Verb, code: &str, result: CallResult) -> Result<Returned, Failure> {
    let json = match result {
        Ok(Output::Json(json)) if json != "null" => json,
        Ok(_) => {
            return Err(Failure::new(
                code,
                "the function that keeps this stream returned nothing",
            ));
        }
        Err(failure) => return Err(Failure::new(code, &failure.message())),
    };
    let useless = |what: &str| {
        Failure::new(
            "JSON_ERROR",
            &format!("the function that keeps this stream returned {what}"),
        )
    };
    let fields = Fields::read(&json, &["old_value", "new_value", "errors"])
        .map_err(|error| useless(&format!("no object that can be read: {error}")))?;
    let value = |raw: Option<&RawValue>| {
        raw.map(Json::from_raw)
            .transpose()
            .map_err(|error| useless(&format!("a value that cannot be stored: {error}")))
    };
    let new = match verb {
        Verb::Delete => None,
        _ => Some(value(fields.raw(1))?.ok_or_else(|| useless("no `new_value`"))?),
    };
    Ok(Returned {
        old: value(fields.optional(0))?,
        new,
        errors: value(fields.optional(2))?,
    })
}

/// Reads what a listing or getting function returned, for a `sync`.
fn read_values(is_item: bool, result: CallResult) -> Result<Vec<Json>, StoreError> {
    let json = match result {
        Ok(Output::Json(json)) => json,
        Ok(Output::Nothing) => "null".to_owned(),
        Err(failure) => {
            return Err(StoreError {
                message: failure.message(),
            });
        }
    };
    let unreadable = |error: String| StoreError {
        message: format!("the function that keeps this stream returned {error}"),
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
