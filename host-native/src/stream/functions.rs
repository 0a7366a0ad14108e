//! The eight `stream::` functions: reads the input, asks the store, writes the reply.

use std::borrow::Cow;
use std::sync::Arc;

use iii_stream_core::command::{
    Get, List, Write, read_delete, read_get, read_list, read_list_all, read_list_groups, read_send,
    read_set, read_update,
};
use iii_stream_core::text::push_string;
use iii_stream_core::{CallError, Committed, Item, group_names_json, list_json, streams_json};

use super::answer::{answer, refused, unless_refused};
use super::custom::CustomStorage;
use super::verb::{VERBS, Verb};
use crate::clock;
use crate::engine::{Call, CallResult, Function, Output, Registry, ReplyTo};
use crate::store::{Done, Store};

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
