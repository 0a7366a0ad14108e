//! Which functions there are, and whose they are. Knows only the [`Function`] trait, and [`Elsewhere`] for those of other
//! instances.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::call::{Call, Failure, Function, ReplyTo};
use super::elsewhere::Elsewhere;
use crate::metrics::{FunctionCalls, Metrics};

/// Who registered something: a connection, or the server itself. Shape: a UUID.
pub type OwnerId = Arc<str>;

/// What a worker tells of a function, for whoever asks: JSON text, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// What it does, in words.
    pub description: Option<String>,
    /// Anything the worker added.
    pub metadata: Option<String>,
    /// The shape of its input.
    pub request_format: Option<String>,
    /// The shape of its result.
    pub response_format: Option<String>,
}

/// Another live connection owns the function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function is registered by worker {owner}")]
pub struct Conflict {
    /// Who owns it.
    pub owner: OwnerId,
}

/// Most functions that are registered at one time. One more is refused as if another worker owned it.
const FUNCTIONS_MAX: usize = 100_000;

/// A function as it is shown to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its id.
    pub id: Arc<str>,
    /// Who registered it.
    pub owner: OwnerId,
    /// What its owner told of it.
    pub details: Details,
}

struct Entry {
    owner: OwnerId,
    function: Arc<dyn Function>,
    details: Details,
    /// Where calls are counted: only those of the server's own functions, whose number is bounded.
    calls: Option<Arc<FunctionCalls>>,
}

impl Entry {
    fn info(&self, id: &Arc<str>) -> FunctionInfo {
        FunctionInfo {
            id: id.clone(),
            owner: self.owner.clone(),
            details: self.details.clone(),
        }
    }
}

/// Functions by id. Those of this instance come first; what it does not have is looked for [`Elsewhere`].
pub struct Registry {
    server: OwnerId,
    metrics: Arc<Metrics>,
    functions: RwLock<HashMap<Arc<str>, Entry>>,
    elsewhere: OnceLock<Arc<dyn Elsewhere>>,
    changes: watch::Sender<()>,
    custom_storage: AtomicUsize,
}

impl Registry {
    /// An empty registry; `server` owns what the server registers itself, and calls of that are counted in `metrics`.
    pub fn new(server: OwnerId, metrics: Arc<Metrics>) -> Self {
        Self {
            server,
            metrics,
            functions: RwLock::default(),
            elsewhere: OnceLock::new(),
            changes: watch::Sender::new(()),
            custom_storage: AtomicUsize::new(0),
        }
    }

    /// Who owns what the server registers itself.
    pub fn server(&self) -> &OwnerId {
        &self.server
    }

    /// From now on functions that this instance does not have are looked for there. Only the first one counts.
    pub fn look_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        // A second one is never made: there is one cluster for a server.
        let _ = self.elsewhere.set(elsewhere);
    }

    /// Registers a function of the server. Workers cannot replace it.
    pub fn register_builtin(&self, id: &str, function: Arc<dyn Function>) {
        let entry = Entry {
            owner: self.server.clone(),
            function,
            details: Details::default(),
            calls: Some(self.metrics.function(id)),
        };
        self.functions.write().insert(id.into(), entry);
    }

    /// Registers a function, or replaces the owner's own.
    ///
    /// Errors: [`Conflict`] when somebody else owns it.
    pub fn register(
        &self,
        id: &str,
        owner: &OwnerId,
        function: Arc<dyn Function>,
        details: Details,
    ) -> Result<(), Conflict> {
        let mut functions = self.functions.write();
        let present = functions.get(id);
        if let Some(other) = present
            .map(|entry| &entry.owner)
            .filter(|other| *other != owner)
        {
            return Err(Conflict {
                owner: other.clone(),
            });
        }
        if present.is_none() && FUNCTIONS_MAX <= functions.len() {
            return Err(Conflict {
                owner: self.server.clone(),
            });
        }
        let entry = Entry {
            owner: owner.clone(),
            function,
            details,
            calls: None,
        };
        if functions.insert(id.into(), entry).is_none() && is_custom_storage(id) {
            self.custom_storage.fetch_add(1, Ordering::Relaxed);
        }
        self.changes.send_replace(());
        Ok(())
    }

    /// Takes a function away; does nothing unless `owner` owns it.
    pub fn unregister(&self, id: &str, owner: &OwnerId) {
        let mut functions = self.functions.write();
        if functions.get(id).is_some_and(|entry| entry.owner == *owner) {
            functions.remove(id);
            self.forget(id);
        }
    }

    /// Takes all functions of an owner away.
    pub fn remove_owner(&self, owner: &OwnerId) {
        self.functions.write().retain(|id, entry| {
            let stays = entry.owner != *owner;
            if !stays {
                self.forget(id);
            }
            stays
        });
    }

    /// Notes that a function is gone.
    fn forget(&self, id: &str) {
        if is_custom_storage(id) {
            self.custom_storage.fetch_sub(1, Ordering::Relaxed);
        }
        self.changes.send_replace(());
    }

    /// Whether any worker keeps a stream itself. Asked for every call, so it is no more than a look at numbers.
    pub fn has_custom_storage(&self) -> bool {
        0 < self.custom_storage.load(Ordering::Relaxed)
            || self
                .elsewhere
                .get()
                .is_some_and(|elsewhere| elsewhere.has_custom_storage())
    }

    /// The function with this id.
    pub fn find(&self, id: &str) -> Option<Arc<dyn Function>> {
        let own = self
            .functions
            .read()
            .get(id)
            .map(|entry| entry.function.clone());
        own.or_else(|| {
            let elsewhere = self.elsewhere_with(id)?;
            Some(elsewhere.clone() as Arc<dyn Function>)
        })
    }

    /// What is known of a function.
    pub fn info(&self, id: &str) -> Option<FunctionInfo> {
        let own = self
            .functions
            .read()
            .get_key_value(id)
            .map(|(id, entry)| entry.info(id));
        own.or_else(|| self.elsewhere.get()?.info(id))
    }

    /// What is known of all functions, sorted by id; of one that this instance has too, what is known here.
    pub fn list(&self) -> Vec<FunctionInfo> {
        let mut functions = self.own_list(|_| true);
        if let Some(elsewhere) = self.elsewhere.get() {
            let own = self.functions.read();
            let others = elsewhere.list().into_iter();
            functions.extend(others.filter(|function| !own.contains_key(&function.id)));
        }
        functions.sort_by(|a, b| a.id.cmp(&b.id));
        functions
    }

    /// What is known of the functions that workers of this instance have registered, sorted by id.
    pub fn list_of_workers(&self) -> Vec<FunctionInfo> {
        let mut functions = self.own_list(|owner| *owner != self.server);
        functions.sort_by(|a, b| a.id.cmp(&b.id));
        functions
    }

    /// How many functions the server itself has registered.
    pub fn builtin_len(&self) -> usize {
        let functions = self.functions.read();
        let owners = functions.values().map(|entry| &entry.owner);
        owners.filter(|owner| **owner == self.server).count()
    }

    fn own_list(&self, is_wanted: impl Fn(&OwnerId) -> bool) -> Vec<FunctionInfo> {
        let functions = self.functions.read();
        let wanted = functions
            .iter()
            .filter(|(_, entry)| is_wanted(&entry.owner));
        wanted.map(|(id, entry)| entry.info(id)).collect()
    }

    /// Tells of each change of the set of functions; several in quick succession may be told as one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Notes that other instances have other functions than before.
    pub fn note_change_elsewhere(&self) {
        self.changes.send_replace(());
    }

    fn elsewhere_with(&self, id: &str) -> Option<&Arc<dyn Elsewhere>> {
        self.elsewhere.get().filter(|elsewhere| elsewhere.has(id))
    }

    /// Calls a function, or answers that there is none.
    pub fn invoke(&self, call: &Call<'_>, namespace: &str, reply: ReplyTo) {
        let found = self
            .functions
            .read()
            .get(call.function_id)
            .map(|entry| (entry.function.clone(), entry.calls.clone()));
        match found {
            Some((function, Some(calls))) => function.invoke(call, reply.measured(calls)),
            Some((function, None)) => function.invoke(call, reply),
            None => match self.elsewhere_with(call.function_id) {
                Some(elsewhere) => elsewhere.invoke(call, reply),
                None => reply.send(Err(Failure::function_not_found(
                    call.function_id,
                    namespace,
                ))),
            },
        }
    }

    /// Whether a worker of this instance has the function.
    pub fn has_of_worker(&self, id: &str) -> bool {
        let functions = self.functions.read();
        let entry = functions.get(id);
        entry.is_some_and(|entry| entry.owner != self.server)
    }

    /// Calls a function of a worker of this instance, as another instance asks for it, and says whether one has it. Never looks
    /// elsewhere, so that no call goes in circles.
    pub fn invoke_of_worker(&self, call: &Call<'_>, reply: impl FnOnce() -> ReplyTo) -> bool {
        let found = self
            .functions
            .read()
            .get(call.function_id)
            .filter(|entry| entry.owner != self.server)
            .map(|entry| entry.function.clone());
        let is_here = found.is_some();
        if let Some(function) = found {
            function.invoke(call, reply());
        }
        is_here
    }
}

/// Whether a function keeps a stream, by its name: `stream::set(chat)`.
pub(crate) fn is_custom_storage(id: &str) -> bool {
    id.starts_with("stream::") && id.ends_with(')')
}
