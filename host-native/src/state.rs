//! The `state::` functions: keys in scopes, on a store of their own, with the same core as streams. Source: stream
//! functions, appendix.

use std::sync::Arc;

use iii_stream_core::command::{List, Write};
use iii_stream_core::state::{
    STATE_STREAM, StateGet, read_state_delete, read_state_get, read_state_list,
    read_state_list_groups, read_state_set, read_state_update,
};
use iii_stream_core::{CallError, Committed, Item, Outcome, group_names_json, state_list_json};

use crate::clock;
use crate::engine::{Call, Failure, Function, Output, Registry, ReplyTo, StateTriggers};
use crate::store::Store;
use crate::stream::{answer, refused, unless_meta_unsupported, unless_refused, unless_unsupported};

#[derive(Clone, Copy, Debug)]
enum Verb {
    Set,
    Get,
    Delete,
    Update,
    List,
    ListGroups,
}

const VERBS: [(Verb, &str); 6] = [
    (Verb::Set, "state::set"),
    (Verb::Get, "state::get"),
    (Verb::Delete, "state::delete"),
    (Verb::Update, "state::update"),
    (Verb::List, "state::list"),
    (Verb::ListGroups, "state::list_groups"),
];

impl Verb {
    fn store_error_code(self) -> &'static str {
        match self {
            Self::Set => "SET_ERROR",
            Self::Get => "GET_ERROR",
            Self::Delete => "DELETE_ERROR",
            Self::Update => "UPDATE_ERROR",
            Self::List => "LIST_ERROR",
            Self::ListGroups => "LIST_GROUPS_ERROR",
        }
    }
}

/// Registers the functions on a store whose changes go to `triggers`.
pub fn register(registry: &Registry, store: &Arc<dyn Store>, triggers: &Arc<StateTriggers>) {
    for (verb, id) in VERBS {
        let function = StateFunction {
            verb,
            store: store.clone(),
            triggers: triggers.clone(),
        };
        registry.register_builtin(id, Arc::new(function));
    }
}

struct StateFunction {
    verb: Verb,
    store: Arc<dyn Store>,
    triggers: Arc<StateTriggers>,
}

impl Function for StateFunction {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        match self.verb {
            Verb::Set => self.commit(read_state_set(call.data), reply),
            Verb::Update => self.commit(read_state_update(call.data), reply),
            Verb::Delete => self.delete(read_state_delete(call.data), reply),
            Verb::Get => self.get(read_state_get(call.data), reply),
            Verb::List => self.list(read_state_list(call.data), reply),
            Verb::ListGroups => self.list_groups(read_state_list_groups(call.data), reply),
        }
    }
}

impl StateFunction {
    fn commit(&self, write: Result<Write<'_>, CallError>, reply: ReplyTo) {
        let Some((write, reply)) = unless_refused(write, reply) else {
            return;
        };
        let Some(reply) = unless_unsupported(&*self.store, &write.command, reply) else {
            return;
        };
        let done = answer(
            self.verb.store_error_code(),
            reply,
            |committed: Committed| committed.reply.to_json().map(Output::Json).map_err(refused),
        );
        self.store
            .commit(write.target.as_ref(), write.command, clock::unix_ms(), done);
    }

    /// Answers with the bare old value, and tells triggers even of a key that was not there.
    fn delete(&self, write: Result<Write<'_>, CallError>, reply: ReplyTo) {
        let Some((write, reply)) = unless_refused(write, reply) else {
            return;
        };
        let Some(reply) = unless_unsupported(&*self.store, &write.command, reply) else {
            return;
        };
        let (triggers, scope) = (
            self.triggers.clone(),
            write.target.group.as_ref().to_owned(),
        );
        let key = write.command.item.clone();
        let done = answer(
            self.verb.store_error_code(),
            reply,
            move |committed: Committed| match &committed.reply.outcome {
                Outcome::Deleted { old: Some(old) } => Ok(Output::Json(old.as_str().to_owned())),
                Outcome::Deleted { old: None } => {
                    triggers.tell_deleted_missing(&scope, key.as_deref().unwrap_or_default());
                    Ok(Output::Nothing)
                }
                Outcome::Refused(refusal) => Err(refused(*refusal)),
                _ => committed.reply.to_json().map(Output::Json).map_err(refused),
            },
        );
        self.store
            .commit(write.target.as_ref(), write.command, clock::unix_ms(), done);
    }

    fn get(&self, get: Result<StateGet<'_>, CallError>, reply: ReplyTo) {
        let Some((get, reply)) = unless_refused(get, reply) else {
            return;
        };
        let done = answer(self.verb.store_error_code(), reply, |item: Option<Item>| {
            Ok(item.map_or(Output::Nothing, |item| {
                Output::Json(item.value.as_str().to_owned())
            }))
        });
        self.store.get(get.target.as_ref(), &get.key, done);
    }

    fn list(&self, list: Result<List<'_>, CallError>, reply: ReplyTo) {
        let Some((list, reply)) = unless_refused(list, reply) else {
            return;
        };
        let meta = list.meta;
        let Some(reply) = unless_meta_unsupported(&*self.store, meta, reply) else {
            return;
        };
        let done = answer(self.verb.store_error_code(), reply, move |items: Vec<_>| {
            Ok(Output::Json(state_list_json(&items, meta)))
        });
        self.store.list(list.target.as_ref(), done);
    }

    fn list_groups(&self, input: Result<(), CallError>, reply: ReplyTo) {
        let Some(((), reply)) = unless_refused(input, reply) else {
            return;
        };
        let done = answer(self.verb.store_error_code(), reply, |groups: Vec<_>| {
            Ok::<_, Failure>(Output::Json(format!(
                r#"{{"groups":{}}}"#,
                group_names_json(&groups)
            )))
        });
        self.store.list_groups(STATE_STREAM, done);
    }
}
