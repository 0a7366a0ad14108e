//! Functions, trigger types, bindings and workers as JSON, from the tables that hold them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::engine::{Binding, FunctionInfo, OwnerId, Registry, Triggers, TypeInfo};
use crate::worker::{Profile, WorkerInfo, Workers};

/// Longest summary of a binding's config, in characters.
const SUMMARY_CHARS_MAX: usize = 80;

/// The namespace of everything that has no other label.
const DEFAULT_NAMESPACE: &str = "default";

/// What there is, as it is shown to whoever asks.
pub struct Directory {
    pub(super) registry: Arc<Registry>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) workers: Arc<Workers>,
}

/// The workers at one moment, to name owners by.
pub(super) struct Owners {
    workers: Vec<WorkerInfo>,
}

impl Directory {
    /// Reads these tables.
    pub fn new(registry: Arc<Registry>, triggers: Arc<Triggers>, workers: Arc<Workers>) -> Self {
        Self {
            registry,
            triggers,
            workers,
        }
    }

    pub(super) fn owners(&self) -> Owners {
        Owners {
            workers: self.workers.list(),
        }
    }

    /// What `engine::functions-available` tells. Shape: `{"event":"functions_changed","functions":[…]}`.
    pub fn functions_changed(&self) -> String {
        let owners = self.owners();
        let functions: Vec<_> = self
            .registry
            .list()
            .iter()
            .filter(|function| !is_internal(function))
            .map(|function| owners.function(function))
            .collect();
        json!({"event": "functions_changed", "functions": functions}).to_string()
    }

    /// The bindings that call a function. Shape: `[{"id","trigger_type","config"}]`.
    pub(super) fn bindings_of(&self, function_id: &str) -> Vec<Value> {
        let bindings = self.triggers.bindings();
        let own = bindings
            .iter()
            .filter(|binding| *binding.function_id == *function_id);
        own.map(|binding| {
            json!({"id": &*binding.id, "trigger_type": &*binding.trigger_type, "config": parsed(&binding.config)})
        })
        .collect()
    }
}

impl Owners {
    pub(super) fn workers(&self) -> &[WorkerInfo] {
        &self.workers
    }

    fn find(&self, owner: &OwnerId) -> Option<&WorkerInfo> {
        self.workers.iter().find(|worker| worker.id == *owner)
    }

    /// The name of the worker that owns something; of one without a name, the first part of the thing's id.
    pub(super) fn worker_name(&self, owner: &OwnerId, id: &str) -> String {
        let name = self
            .find(owner)
            .and_then(|worker| worker.profile.name.clone());
        name.unwrap_or_else(|| id.split("::").next().unwrap_or(id).to_owned())
    }

    pub(super) fn namespace(&self, owner: &OwnerId) -> String {
        let label = self
            .find(owner)
            .and_then(|worker| worker.profile.namespace.clone());
        label.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }

    /// Shape: `{"function_id","namespace","worker_name","description"?,"metadata"?}`.
    pub(super) fn function(&self, function: &FunctionInfo) -> Value {
        let mut entry = json!({
            "function_id": &*function.id,
            "namespace": self.namespace(&function.owner),
            "worker_name": self.worker_name(&function.owner, &function.id),
        });
        put(
            &mut entry,
            "description",
            function.details.description.as_deref().map(Value::from),
        );
        put(
            &mut entry,
            "metadata",
            function.details.metadata.as_deref().map(parsed),
        );
        entry
    }

    /// Shape: `{"id","namespace","worker_name","description"}`.
    pub(super) fn trigger_type(&self, info: &TypeInfo) -> Value {
        json!({
            "id": &*info.id,
            "namespace": self.namespace(&info.owner),
            "worker_name": self.worker_name(&info.owner, &info.id),
            "description": info.details.description.as_deref().unwrap_or_default(),
        })
    }

    /// Shape: `{"id","trigger_type","function_id","worker_name","config"}`.
    pub(super) fn binding(&self, binding: &Binding) -> Value {
        json!({
            "id": &*binding.id,
            "trigger_type": &*binding.trigger_type,
            "function_id": &*binding.function_id,
            "worker_name": self.worker_name(&binding.owner, &binding.function_id),
            "config": parsed(&binding.config),
        })
    }
}

/// A config cut short. Shape: JSON text of at most 80 characters, with `…` where it was longer.
pub(super) fn summary(config: &str) -> String {
    let mut chars = config.chars();
    let mut text: String = chars.by_ref().take(SUMMARY_CHARS_MAX).collect();
    if chars.next().is_some() {
        text.push('…');
    }
    text
}

/// A connected worker. Shape: worker protocol, section 10, `engine::workers::list`; what is not known is `null`.
pub(super) fn worker(info: &WorkerInfo, function_count: usize) -> Value {
    let Profile {
        name,
        description,
        runtime,
        version,
        os,
        isolation,
        namespace,
        pid: _,
    } = &info.profile;
    json!({
        "id": &*info.id,
        "name": name,
        "namespace": namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
        "description": description,
        "version": version,
        "runtime": runtime,
        "os": os,
        "status": "connected",
        "function_count": function_count,
        "connected_at_ms": info.connected_at_ms,
        "active_invocations": info.active_invocations,
        "isolation": isolation,
        "ip_address": info.addr.to_string(),
    })
}

/// The server itself, as one of the workers.
pub(super) fn server(id: &str, function_count: usize) -> Value {
    json!({
        "id": id,
        "name": "iii-stream",
        "namespace": DEFAULT_NAMESPACE,
        "description": "streams, triggers and this directory",
        "version": env!("CARGO_PKG_VERSION"),
        "runtime": "engine",
        "os": null,
        "status": "available",
        "function_count": function_count,
        "connected_at_ms": null,
        "active_invocations": null,
        "isolation": "in-process",
        "ip_address": null,
    })
}

/// Whether a function is shown only on request.
pub(super) fn is_internal(function: &FunctionInfo) -> bool {
    let is_marked = || {
        let metadata = function.details.metadata.as_deref().map(parsed);
        metadata.is_some_and(|metadata| metadata.get("internal") == Some(&Value::Bool(true)))
    };
    function.id.starts_with("engine::") || is_marked()
}

/// Adds a field if there is something to put there.
pub(super) fn put(entry: &mut Value, name: &str, value: Option<Value>) {
    if let (Value::Object(fields), Some(value)) = (entry, value) {
        fields.insert(name.to_owned(), value);
    }
}

/// JSON text that a worker sent, as a value. Text that a value reader refuses is shown as a string.
pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// The fields of an input; `null` is taken as `{}`.
pub(super) fn fields(input: &str) -> Option<Map<String, Value>> {
    match parsed(input) {
        Value::Null => Some(Map::new()),
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}
