//! The eight `stream::` functions: reads the input, asks the store, writes the reply.

use std::borrow::Cow;
use std::sync::Arc;

use iii_stream_core::command::{
    Get, List, Returning, Write, read_delete, read_get, read_list, read_list_all, read_list_groups,
    read_send, read_set, read_update,
};
use iii_stream_core::text::push_string;
use iii_stream_core::{
    CallError, Committed, Item, View, group_names_json, list_json, streams_json,
};

use super::access::Access;
use super::answer::{answer, refused, unless_refused};
use super::custom::CustomStorage;
use super::unversioned::{unless_meta_unsupported, unless_unsupported};
use super::verb::{VERBS, Verb};
use crate::clock;
use crate::engine::{Call, Function, Output, Registry, ReplyTo};
use crate::metrics::{FunctionCalls, Metrics};
use crate::store::Store;

/// The eight functions on a store.
pub struct StreamFunctions {
    store: Arc<dyn Store>,
    custom: Arc<CustomStorage>,
    /// Where calls of clients are counted, in the order of [`VERBS`]. The registry counts those of workers.
    counts: [Arc<FunctionCalls>; VERBS.len()],
}

/// One of them, for workers.
struct Registered {
    verb: Verb,
    functions: Arc<StreamFunctions>,
}

impl Function for Registered {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        let access = &Access::Everything;
        self.functions.call(self.verb, call.data, access, reply);
    }
}

impl StreamFunctions {
    /// Calls of clients are counted in `metrics`.
    pub fn new(store: Arc<dyn Store>, custom: Arc<CustomStorage>, metrics: &Metrics) -> Self {
        Self {
            store,
            custom,
            counts: VERBS.map(|(_, id)| metrics.function(id)),
        }
    }

    /// Offers them to workers, who may do everything.
    pub fn register(self: &Arc<Self>, registry: &Registry) {
        for (verb, id) in VERBS {
            let functions = self.clone();
            registry.register_builtin(id, Arc::new(Registered { verb, functions }));
        }
    }

    /// Calls one of them for a client. Whether there is one of this name; if not, nobody was asked for the way to answer.
    pub fn call_for_client(
        &self,
        function_id: &str,
        data: &str,
        access: &Access,
        reply: impl FnOnce(Verb) -> ReplyTo,
    ) -> bool {
        let found = VERBS.iter().zip(&self.counts);
        let found = found.into_iter().find(|((_, id), _)| *id == function_id);
        let Some(((verb, _), counts)) = found else {
            return false;
        };
        self.call(*verb, data, access, reply(*verb).measured(counts.clone()));
        true
    }

    fn call(&self, verb: Verb, data: &str, access: &Access, reply: ReplyTo) {
        match verb {
            Verb::Set => self.commit(verb, read_set(data), access, reply),
            Verb::Update => self.commit(verb, read_update(data), access, reply),
            Verb::Delete => self.commit(verb, read_delete(data), access, reply),
            Verb::Send => self.commit(verb, read_send(data), access, reply),
            Verb::Get => self.get(read_get(data), access, reply),
            Verb::List => self.list(read_list(data), access, reply),
            Verb::ListGroups => self.list_groups(read_list_groups(data), access, reply),
            Verb::ListAll => self.list_all(read_list_all(data), access, reply),
        }
    }

    /// The worker's function that does this call instead of the server's store. Events are the server's in any case.
    fn custom_function(&self, verb: Verb, stream: &str) -> Option<String> {
        if verb == Verb::Send {
            None
        } else {
            self.custom.function(verb, stream)
        }
    }

    fn commit(
        &self,
        verb: Verb,
        write: Result<Write<'_>, CallError>,
        access: &Access,
        reply: ReplyTo,
    ) {
        let Some((mut write, reply)) = unless_refused(write, reply) else {
            return;
        };
        let (group, item) = (write.target.as_ref(), write.command.item.as_deref());
        if let Err(forbidden) = access.check(verb, group, item) {
            return reply.send(Err(forbidden));
        }
        if verb != Verb::Send && !access.may_read(group, item) {
            // Whoever may only write learns no values by writing.
            write.command.returning = Some(Returning::None);
        }
        if let Some(function_id) = self.custom_function(verb, &write.target.stream) {
            return self.custom.commit(verb, &function_id, write, reply);
        }
        let Some(reply) = unless_unsupported(&*self.store, &write.command, reply) else {
            return;
        };
        let done = answer(verb.store_error_code(), reply, |committed: Committed| {
            committed.reply.to_json().map(Output::Json).map_err(refused)
        });
        self.store
            .commit(write.target.as_ref(), write.command, clock::unix_ms(), done);
    }

    fn get(&self, get: Result<Get<'_>, CallError>, access: &Access, reply: ReplyTo) {
        let Some((get, reply)) = unless_refused(get, reply) else {
            return;
        };
        let (verb, group) = (Verb::Get, get.target.as_ref());
        if let Err(forbidden) = access.check(verb, group, Some(&get.item)) {
            return reply.send(Err(forbidden));
        }
        if let Some(function_id) = self.custom_function(verb, &get.target.stream) {
            return self.custom.get(&function_id, &get, reply);
        }
        let meta = get.meta;
        let Some(reply) = unless_meta_unsupported(&*self.store, meta, reply) else {
            return;
        };
        let done = answer(verb.store_error_code(), reply, move |item: Option<Item>| {
            Ok(match item {
                None => Output::Nothing,
                Some(item) if meta => Output::Json(item.to_meta_json()),
                Some(item) => Output::Json(item.value.as_str().to_owned()),
            })
        });
        self.store.get(get.target.as_ref(), &get.item, done);
    }

    fn list(&self, list: Result<List<'_>, CallError>, access: &Access, reply: ReplyTo) {
        let Some((list, reply)) = unless_refused(list, reply) else {
            return;
        };
        let verb = Verb::List;
        let view = match access.view(list.target.as_ref()) {
            Ok(view) => view,
            Err(forbidden) => return reply.send(Err(forbidden)),
        };
        if let Some(function_id) = self.custom_function(verb, &list.target.stream) {
            return self.custom.list(&function_id, &list, view, reply);
        }
        let meta = list.meta;
        let Some(reply) = unless_meta_unsupported(&*self.store, meta, reply) else {
            return;
        };
        let done = answer(verb.store_error_code(), reply, move |mut items: Vec<_>| {
            if view != View::All {
                items.retain(|(id, _): &(Arc<str>, Item)| view.shows(Some(id)));
            }
            Ok(Output::Json(list_json(&items, meta)))
        });
        self.store.list(list.target.as_ref(), done);
    }

    fn list_groups(
        &self,
        stream: Result<Cow<'_, str>, CallError>,
        access: &Access,
        reply: ReplyTo,
    ) {
        let Some((stream, reply)) = unless_refused(stream, reply) else {
            return;
        };
        let verb = Verb::ListGroups;
        let (access, name) = (access.clone(), stream.clone().into_owned());
        if let Some(function_id) = self.custom_function(verb, &stream) {
            let mut input = String::from(r#"{"stream_name":"#);
            push_string(&mut input, &stream);
            input.push('}');
            let told = move |groups| access.filter_groups(&name, groups);
            return self.custom.pass_on(&function_id, &input, reply, told);
        }
        let done = answer(verb.store_error_code(), reply, move |mut groups| {
            access.retain_groups(&name, &mut groups);
            Ok(Output::Json(group_names_json(&groups)))
        });
        self.store.list_groups(&stream, done);
    }

    fn list_all(&self, input: Result<(), CallError>, access: &Access, reply: ReplyTo) {
        let Some(((), reply)) = unless_refused(input, reply) else {
            return;
        };
        let (verb, access) = (Verb::ListAll, access.clone());
        if let Some(function_id) = self.custom_function(verb, "") {
            let told = move |streams| access.filter_streams(streams);
            return self.custom.pass_on(&function_id, "{}", reply, told);
        }
        let done = answer(verb.store_error_code(), reply, move |mut streams| {
            access.retain_streams(&mut streams);
            Ok(Output::Json(streams_json(&streams)))
        });
        self.store.list_all(done);
    }
}
