//! One write to a stream that a worker keeps: calls its functions, reads what they return, and makes an event of it. Source:
//! stream functions, section 10.

use std::sync::Arc;

use iii_stream_core::command::Returning;
use iii_stream_core::fields::Fields;
use iii_stream_core::raw::Raw;
use iii_stream_core::text::push_string;
use iii_stream_core::{Change, Draft, GroupRef, Json, Kind, Ops, Outcome, Reply, Ttl, update};

use super::answer::refused;
use super::turns::{ItemKey, Turn};
use super::verb::Verb;
use crate::clock;
use crate::engine::{Call, CallResult, Failure, OnAnswer, Output, Registry, ReplyTo};
use crate::store::{Store, StoreError};

/// Takes the group's change that a result led to, or none.
type Announced = Box<dyn FnOnce(Option<u64>) + Send>;

/// What one write needs once it is on its way.
pub(super) struct Keeper {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) verb: Verb,
    pub(super) returning: Option<Returning>,
}

impl Keeper {
    /// Calls a storing function and makes an event of what it returns.
    pub(super) fn write(
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
    pub(super) fn update_by_parts(
        self,
        adapter: &str,
        key: ItemKey,
        ops: &Ops,
        turn: Turn,
        reply: ReplyTo,
    ) {
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

pub(super) fn call(
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
pub(super) fn input(
    group: GroupRef<'_>,
    item: Option<&str>,
    more: Option<(&str, &Json)>,
) -> String {
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
        let value = self.new.clone().or_else(|| self.old.clone());
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
    let value = |raw: Option<Raw<'_>>| {
        raw.map(Json::from_field)
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
