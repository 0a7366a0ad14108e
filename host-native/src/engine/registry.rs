//! Which functions there are, and whose they are. Knows only the [`Function`] trait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::call::{Call, Failure, Function, ReplyTo};

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

struct Entry {
    owner: OwnerId,
    function: Arc<dyn Function>,
    details: Details,
}

/// Functions by id.
pub struct Registry {
    server: OwnerId,
    functions: RwLock<HashMap<Arc<str>, Entry>>,
}

impl Registry {
    /// An empty registry; `server` owns what the server registers itself.
    pub fn new(server: OwnerId) -> Self {
        Self {
            server,
            functions: RwLock::default(),
        }
    }

    /// Registers a function of the server. Workers cannot replace it.
    pub fn register_builtin(&self, id: &str, function: Arc<dyn Function>) {
        let entry = Entry {
            owner: self.server.clone(),
            function,
            details: Details::default(),
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
        let is_full = FUNCTIONS_MAX <= functions.len();
        match functions.get_mut(id) {
            Some(entry) if entry.owner != *owner => Err(Conflict {
                owner: entry.owner.clone(),
            }),
            Some(entry) => {
                entry.function = function;
                entry.details = details;
                Ok(())
            }
            None if is_full => Err(Conflict {
                owner: self.server.clone(),
            }),
            None => {
                functions.insert(
                    id.into(),
                    Entry {
                        owner: owner.clone(),
                        function,
                        details,
                    },
                );
                Ok(())
            }
        }
    }

    /// Takes a function away; does nothing unless `owner` owns it.
    pub fn unregister(&self, id: &str, owner: &OwnerId) {
        let mut functions = self.functions.write();
        if functions.get(id).is_some_and(|entry| entry.owner == *owner) {
            functions.remove(id);
        }
    }

    /// Takes all functions of an owner away.
    pub fn remove_owner(&self, owner: &OwnerId) {
        self.functions
            .write()
            .retain(|_, entry| entry.owner != *owner);
    }

    /// The function with this id.
    pub fn find(&self, id: &str) -> Option<Arc<dyn Function>> {
        self.functions
            .read()
            .get(id)
            .map(|entry| entry.function.clone())
    }

    /// What is known of a function: its owner and what that told of it.
    pub fn details(&self, id: &str) -> Option<(OwnerId, Details)> {
        let functions = self.functions.read();
        functions
            .get(id)
            .map(|entry| (entry.owner.clone(), entry.details.clone()))
    }

    /// Calls a function, or answers that there is none.
    pub fn invoke(&self, call: &Call<'_>, namespace: &str, reply: ReplyTo) {
        match self.find(call.function_id) {
            Some(function) => function.invoke(call, reply),
            None => reply.send(Err(Failure::function_not_found(
                call.function_id,
                namespace,
            ))),
        }
    }
}
