//! The eight `stream::` functions: reads the input, asks the store, writes the reply.

use std::borrow::Cow;
use std::sync::Arc;

use iii_stream_core::command::{
    Get, List, Write, read_delete, read_get, read_list, read_list_all, read_list_groups, read_send,
    read_set, read_update,
};
use iii_stream_core::text::push_string;
use iii_stream_core::{
    CallError, Committed, Item, Refusal, group_names_json, list_json, streams_json,
};

use super::custom::CustomStorage;
use crate::clock;
use crate::engine::{Call, CallResult, Failure, Function, Output, Registry, ReplyTo};
use crate::store::{Done, Store};

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `stream::set`
    Set,
    /// `stream::get`
    Get,
    /// `stream::delete`
    Delete,
    /// `stream::update`
    Update,
    /// `stream::list`
    List,
    /// `stream::list_groups`
    ListGroups,
    /// `stream::list_all`
    ListAll,
    /// `stream::send`
    Send,
}

const VERBS: [(Verb, &str); 8] = [
    (Verb::Set, "stream::set"),
    (Verb::Get, "stream::get"),
    (Verb::Delete, "stream::delete"),
    (Verb::Update, "stream::update"),
    (Verb::List, "stream::list"),
    (Verb::ListGroups, "stream::list_groups"),
    (Verb::ListAll, "stream::list_all"),
    (Verb::Send, "stream::send"),
];

impl Verb {
    /// What custom storage calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::List => "list",
            Self::ListGroups => "list_groups",
            Self::ListAll => "list_all",
            Self::Send => "send",
        }
    }

    /// The code of an error of the store. Source: stream functions, section 2.
    pub(super) fn store_error_code(self) -> &'static str {
        match self {
            Self::Set => "STREAM_SET_ERROR",
            Self::Get => "STREAM_GET_ERROR",
            Self::Delete => "STREAM_DELETE_ERROR",
            Self::Update => "STREAM_UPDATE_ERROR",
            Self::List => "STREAM_GET_GROUP_ERROR",
            Self::ListGroups => "STREAM_LIST_GROUPS_ERROR",
            Self::ListAll => "STREAM_LIST_ALL_ERROR",
            Self::Send => "STREAM_SEND_ERROR",
        }
    }
}

/// Registers the eight functions on a store.
pub fn register(registry: &Registry, store: &Arc<dyn Store>, custom: &Arc<CustomStorage>) {
    for (verb, id) in VERBS {
        registry.register_builtin(
            id,
            Arc::new(StreamFunction {
                verb,
                store: store.clone(),
                custom: custom.clone(),
            }),
        );
    }
}

struct StreamFunction {
    verb: Verb,
    store: Arc<dyn Store>,
    custom: Arc<CustomStorage>,
}

impl Function for StreamFunction {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        match self.verb {
            Verb::Set => self.commit(read_set(call.data), reply),
            Verb::Update => self.commit(read_update(call.data), reply),
            Verb::Delete => self.commit(read_delete(call.data), reply),
            Verb::Send => self.commit(read_send(call.data), reply),
            Verb::Get => self.get(read_get(call.data), reply),
            Verb::List => self.list(read_list(call.data), reply),
            Verb::ListGroups => self.list_groups(read_list_groups(call.data), reply),
            Verb::ListAll => self.list_all(read_list_all(call.data), reply),
        }
    }
}

impl StreamFunction {
    /// The worker's function that does this call instead of the server's store. Events are the server's in any case.
    fn custom_function(&self, stream: &str) -> Option<String> {
        if self.verb == Verb::Send {
            None
        } else {
            self.custom.function(self.verb, stream)
        }
    }

    fn commit(&self, write: Result<Write<'_>, CallError>, reply: ReplyTo) {
        let Some((write, reply)) = unless_refused(write, reply) else {
            return;
        };
        if let Some(function_id) = self.custom_function(&write.target.stream) {
            return self.custom.commit(self.verb, &function_id, write, reply);
        }
        let done = self.answer(reply, |committed: Committed| {
            committed.reply.to_json().map(Output::Json).map_err(refused)
        });
        self.store
            .commit(write.target.as_ref(), write.command, clock::unix_ms(), done);
    }

    fn get(&self, get: Result<Get<'_>, CallError>, reply: ReplyTo) {
        let Some((get, reply)) = unless_refused(get, reply) else {
            return;
        };
        if let Some(function_id) = self.custom_function(&get.target.stream) {
            return self.custom.get(&function_id, &get, reply);
        }
        let meta = get.meta;
        let done = self.answer(reply, move |item: Option<Item>| {
            Ok(match item {
                None => Output::Nothing,
                Some(item) if meta => Output::Json(item.to_meta_json()),
                Some(item) => Output::Json(item.value.as_str().to_owned()),
            })
        });
        self.store.get(get.target.as_ref(), &get.item, done);
    }

    fn list(&self, list: Result<List<'_>, CallError>, reply: ReplyTo) {
        let Some((list, reply)) = unless_refused(list, reply) else {
            return;
        };
        if let Some(function_id) = self.custom_function(&list.target.stream) {
            return self.custom.list(&function_id, &list, reply);
        }
        let meta = list.meta;
        let done = self.answer(reply, move |items: Vec<_>| {
            Ok(Output::Json(list_json(&items, meta)))
        });
        self.store.list(list.target.as_ref(), done);
    }

    fn list_groups(&self, stream: Result<Cow<'_, str>, CallError>, reply: ReplyTo) {
        let Some((stream, reply)) = unless_refused(stream, reply) else {
            return;
        };
        if let Some(function_id) = self.custom_function(&stream) {
            let mut input = String::from(r#"{"stream_name":"#);
            push_string(&mut input, &stream);
            input.push('}');
            return self.custom.pass_on(&function_id, &input, reply);
        }
        let done = self.answer(reply, |groups: Vec<_>| {
            Ok(Output::Json(group_names_json(&groups)))
        });
        self.store.list_groups(&stream, done);
    }

    fn list_all(&self, input: Result<(), CallError>, reply: ReplyTo) {
        let Some(((), reply)) = unless_refused(input, reply) else {
            return;
        };
        if let Some(function_id) = self.custom_function("") {
            return self.custom.pass_on(&function_id, "{}", reply);
        }
        let done = self.answer(reply, |streams: Vec<_>| {
            Ok(Output::Json(streams_json(&streams)))
        });
        self.store.list_all(done);
    }

    fn answer<T: 'static>(
        &self,
        reply: ReplyTo,
        to_result: impl FnOnce(T) -> CallResult + Send + 'static,
    ) -> Done<T> {
        answer(self.verb.store_error_code(), reply, to_result)
    }
}

/// Turns what a store says into the answer of a call; `code` is that of the store's own errors.
pub fn answer<T: 'static>(
    code: &'static str,
    reply: ReplyTo,
    to_result: impl FnOnce(T) -> CallResult + Send + 'static,
) -> Done<T> {
    Box::new(move |outcome| {
        reply.send(
            outcome
                .map_err(|error| Failure::new(code, &error.message))
                .and_then(to_result),
        );
    })
}

/// Answers a call that cannot be read; gives back what is needed to go on with one that can.
pub fn unless_refused<T>(input: Result<T, CallError>, reply: ReplyTo) -> Option<(T, ReplyTo)> {
    match input {
        Ok(input) => Some((input, reply)),
        Err(error) => {
            reply.fail(error.code(), error.to_string());
            None
        }
    }
}

/// A refusal as the error of a call, with what its caller needs to go on as fields of their own.
pub fn refused(refusal: Refusal) -> Failure {
    let failure = Failure::new(refusal.code(), &refusal.to_string());
    match refusal {
        Refusal::PreconditionFailed { seq } => failure.with_field(
            "seq",
            &seq.map_or_else(|| "null".to_owned(), |seq| seq.to_string()),
        ),
        Refusal::MutationGap { expected, .. } => {
            failure.with_field("expected", &expected.to_string())
        }
        _ => failure,
    }
}
