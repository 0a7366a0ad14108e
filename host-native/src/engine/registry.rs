//! Which functions there are, and whose they are. Knows only the [`Function`] trait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::call::{Call, Failure, Function, ReplyTo};
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

/// Functions by id.
pub struct Registry {
    server: OwnerId,
    metrics: Arc<Metrics>,
    functions: RwLock<HashMap<Arc<str>, Entry>>,
    changed: Notify,
    custom_storage: AtomicUsize,
}

impl Registry {
    /// An empty registry; `server` owns what the server registers itself, and calls of that are counted in `metrics`.
    pub fn new(server: OwnerId, metrics: Arc<Metrics>) -> Self {
        Self {
            server,
            metrics,
            functions: RwLock::default(),
            changed: Notify::new(),
            custom_storage: AtomicUsize::new(0),
        }
    }

    /// Who owns what the server registers itself.
    pub fn server(&self) -> &OwnerId {
        &self.server
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
        self.changed.notify_one();
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
        self.changed.notify_one();
    }

    /// Whether any worker keeps a stream itself. Asked for every call, so it is no more than a look at a number.
    pub fn has_custom_storage(&self) -> bool {
        0 < self.custom_storage.load(Ordering::Relaxed)
    }

    /// The function with this id.
    pub fn find(&self, id: &str) -> Option<Arc<dyn Function>> {
        self.functions
            .read()
            .get(id)
            .map(|entry| entry.function.clone())
    }

    /// What is known of a function.
    pub fn info(&self, id: &str) -> Option<FunctionInfo> {
        let functions = self.functions.read();
        functions
            .get_key_value(id)
            .map(|(id, entry)| entry.info(id))
    }

    /// What is known of all functions, sorted by id.
    pub fn list(&self) -> Vec<FunctionInfo> {
        let mut functions: Vec<_> = self
            .functions
            .read()
            .iter()
            .map(|(id, entry)| entry.info(id))
            .collect();
        functions.sort_by(|a, b| a.id.cmp(&b.id));
        functions
    }

    /// Waits until the set of functions has changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
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
            None => reply.send(Err(Failure::function_not_found(
                call.function_id,
                namespace,
            ))),
        }
    }
}

/// Whether a function keeps a stream, by its name: `stream::set(chat)`.
fn is_custom_storage(id: &str) -> bool {
    id.starts_with("stream::") && id.ends_with(')')
}
