//! Functions, trigger types, bindings and workers as JSON, from the tables that hold them.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::cluster::{Places, WorkerCard};
use crate::engine::{Binding, FunctionInfo, OwnerId, Registry, Triggers, TypeInfo};
use crate::worker::{Profile, WorkerInfo, Workers};

/// Longest summary of a binding's config, in characters.
const SUMMARY_CHARS_MAX: usize = 80;

/// The namespace of everything that has no other label.
const DEFAULT_NAMESPACE: &str = "default";

/// What the server itself is called among the workers.
pub(super) const SERVER_NAME: &str = "iii-stream";

/// What there is, as it is shown to whoever asks.
pub struct Directory {
    pub(super) registry: Arc<Registry>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) workers: Arc<Workers>,
    places: Arc<Places>,
}

/// The workers at one moment, to name owners by.
pub(super) struct Owners {
    workers: Vec<WorkerInfo>,
    /// Those of other instances, and these instances themselves.
    elsewhere: Vec<WorkerCard>,
}

impl Directory {
    /// Reads these tables, and in `places` what other instances have.
    pub fn new(
        registry: Arc<Registry>,
        triggers: Arc<Triggers>,
        workers: Arc<Workers>,
        places: Arc<Places>,
    ) -> Self {
        Self {
            registry,
            triggers,
            workers,
            places,
        }
    }

    /// What other instances have: to be filled by whoever knows them.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The functions of this instance.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The bindings of this instance.
    pub fn triggers(&self) -> &Arc<Triggers> {
        &self.triggers
    }

    /// The workers of this instance.
    pub fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }

    /// What other instances are told of the workers of this one, and of this one itself.
    pub fn worker_cards(&self) -> Vec<WorkerCard> {
        let functions = self.registry.list_of_workers();
        let mut counts = HashMap::<&str, usize>::new();
        for function in &functions {
            *counts.entry(&function.owner).or_default() += 1;
        }
        let cards = self.workers.list().into_iter().map(|info| {
            let mut shown = worker(&info, counts.get(&*info.id).copied().unwrap_or_default());
            // It changes all the time.
            put(&mut shown, "active_invocations", Some(Value::Null));
            WorkerCard {
                id: info.id,
                name: info.profile.name,
                namespace: info.profile.namespace,
                shown: shown.to_string(),
            }
        });
        let id = self.registry.server().clone();
        let own = WorkerCard {
            shown: server(&id, self.registry.builtin_len()).to_string(),
            id,
            name: Some(SERVER_NAME.to_owned()),
            namespace: None,
        };
        cards.chain([own]).collect()
    }

    pub(super) fn owners(&self) -> Owners {
        Owners {
            workers: self.workers.list(),
            elsewhere: self.places.workers(),
        }
    }

    /// All bindings, those of this instance first where ids are the same, sorted by id.
    pub(super) fn bindings(&self) -> Vec<Arc<Binding>> {
        let mut bindings = self.triggers.bindings();
        bindings.extend(self.places.bindings());
        bindings.sort_by(|a, b| a.id.cmp(&b.id));
        bindings
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
        let bindings = self.bindings();
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

    pub(super) fn elsewhere(&self) -> &[WorkerCard] {
        &self.elsewhere
    }

    /// What the owner of something says of itself: its name and its label.
    fn find(&self, owner: &OwnerId) -> Option<(Option<&String>, Option<&String>)> {
        let own = self.workers.iter().find(|worker| worker.id == *owner);
        let own = own.map(|it| (it.profile.name.as_ref(), it.profile.namespace.as_ref()));
        own.or_else(|| {
            let other = self.elsewhere.iter().find(|worker| worker.id == *owner)?;
            Some((other.name.as_ref(), other.namespace.as_ref()))
        })
    }

    /// The name of the worker that owns something; of one without a name, the first part of the thing's id.
    pub(super) fn worker_name(&self, owner: &OwnerId, id: &str) -> String {
        let name = self.find(owner).and_then(|(name, _)| name);
        let first_part = || id.split("::").next().unwrap_or(id).to_owned();
        name.map_or_else(first_part, String::clone)
    }

    pub(super) fn namespace(&self, owner: &OwnerId) -> String {
        let label = self.find(owner).and_then(|(_, label)| label);
        label.map_or_else(|| DEFAULT_NAMESPACE.to_owned(), String::clone)
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
        "name": SERVER_NAME,
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
