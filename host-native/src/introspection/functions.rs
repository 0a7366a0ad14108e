//! The `engine::` functions: read the input, ask the directory.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::directory::{
    Directory, SERVER_NAME, fields, is_internal, parsed, put, server, summary, worker,
};
use crate::engine::{
    Binding, Call, CallResult, Failure, FunctionInfo, Immediate, Output, Registry,
};

/// Most functions that one `engine::functions::info` may ask for.
const FUNCTION_IDS_MAX: usize = 32;

/// Registers the functions on a directory.
pub fn register(registry: &Registry, directory: &Arc<Directory>) {
    type Answer = fn(&Directory, &Input<'_>) -> Result<Value, Failure>;
    let functions: [(&str, Answer); 10] = [
        ("engine::functions::list", functions_list),
        ("engine::functions::info", functions_info),
        ("engine::workers::list", workers_list),
        ("engine::workers::info", workers_info),
        ("engine::triggers::list", triggers_list),
        ("engine::triggers::info", triggers_info),
        (
            "engine::registered-triggers::list",
            registered_triggers_list,
        ),
        (
            "engine::registered-triggers::info",
            registered_triggers_info,
        ),
        ("engine::register_trigger", register_trigger),
        ("engine::unregister_trigger", unregister_trigger),
    ];
    for (id, answer) in functions {
        let directory = directory.clone();
        registry.register_builtin(
            id,
            Arc::new(Immediate(move |call: &Call<'_>| -> CallResult {
                let input = Input::read(call)?;
                answer(&directory, &input).map(|result| Output::Json(result.to_string()))
            })),
        );
    }
}

/// The input of one call.
struct Input<'a> {
    function_id: &'a str,
    fields: Map<String, Value>,
}

impl<'a> Input<'a> {
    fn read(call: &Call<'a>) -> Result<Self, Failure> {
        let function_id = call.function_id;
        match fields(call.data) {
            Some(fields) => Ok(Self {
                function_id,
                fields,
            }),
            None => Err(Failure::new(
                "deserialization_error",
                &format!("{function_id}: the input must be an object"),
            )),
        }
    }

    /// A string; absent and `null` are the same.
    fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a string")),
        }
    }

    fn required(&self, name: &str) -> Result<&str, Failure> {
        self.text(name)?
            .ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "must be a boolean")),
        }
    }

    /// An array of strings; absent and `null` are the same.
    fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, Failure> {
        let wrong = || self.wrong(name, "must be an array of strings");
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(texts)) => texts
                .iter()
                .map(|text| text.as_str().ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    fn wrong(&self, name: &str, what: &str) -> Failure {
        Failure::new(
            "deserialization_error",
            &format!("{}: field `{name}` {what}", self.function_id),
        )
    }

    fn not_found(&self, what: &str) -> Failure {
        Failure::new(
            "NOT_FOUND",
            &format!("{}: there is no {what}", self.function_id),
        )
    }

    /// Whether an id and a description pass `search` and `prefix`.
    fn passes(&self, id: &str, description: &str) -> Result<bool, Failure> {
        let search = self.text("search")?.map(str::to_lowercase);
        let found = search.is_none_or(|search| {
            id.to_lowercase().contains(&search) || description.to_lowercase().contains(&search)
        });
        Ok(found
            && self
                .text("prefix")?
                .is_none_or(|prefix| id.starts_with(prefix)))
    }
}

fn functions_list(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let owners = directory.owners();
    let with_internal = input.flag("include_internal")?;
    let (worker, workers) = (input.text("worker")?, input.texts("workers")?);
    let mut functions = Vec::new();
    for function in directory.registry.list() {
        let description = function.details.description.as_deref().unwrap_or_default();
        let owner = owners.worker_name(&function.owner, &function.id);
        let is_wanted = worker.is_none_or(|name| name == owner)
            && workers
                .as_ref()
                .is_none_or(|names| names.contains(&owner.as_str()))
            && (with_internal || !is_internal(&function));
        if is_wanted && input.passes(&function.id, description)? {
            functions.push(owners.function(&function));
        }
    }
    Ok(json!({ "functions": functions }))
}

fn functions_info(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    if let Some(ids) = input.texts("function_ids")? {
        if FUNCTION_IDS_MAX < ids.len() {
            return Err(input.wrong(
                "function_ids",
                &format!("has {} ids, limit is {FUNCTION_IDS_MAX}", ids.len()),
            ));
        }
        let entries: Vec<_> = ids
            .into_iter()
            .map(|id| match directory.registry.info(id) {
                Some(function) => function_info(directory, &function),
                None => json!({"function_id": id, "error": "not_found"}),
            })
            .collect();
        return Ok(json!({ "functions": entries }));
    }
    let id = input.required("function_id")?;
    let function = directory
        .registry
        .info(id)
        .ok_or_else(|| input.not_found(&format!("function '{id}'")))?;
    Ok(function_info(directory, &function))
}

fn function_info(directory: &Directory, function: &FunctionInfo) -> Value {
    let mut entry = directory.owners().function(function);
    put(
        &mut entry,
        "request_schema",
        function.details.request_format.as_deref().map(parsed),
    );
    put(
        &mut entry,
        "response_schema",
        function.details.response_format.as_deref().map(parsed),
    );
    put(
        &mut entry,
        "registered_triggers",
        Some(directory.bindings_of(&function.id).into()),
    );
    entry
}

fn workers_list(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let (search, runtime, status) = (
        input.text("search")?,
        input.text("runtime")?,
        input.text("status")?,
    );
    let mut workers = all_workers(directory);
    let is = |worker: &Value, field: &str, wanted: Option<&str>| {
        wanted.is_none_or(|wanted| worker.get(field).and_then(Value::as_str) == Some(wanted))
    };
    workers.retain(|worker| {
        let name = worker
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let found =
            search.is_none_or(|search| name.to_lowercase().contains(&search.to_lowercase()));
        found && is(worker, "runtime", runtime) && is(worker, "status", status)
    });
    Ok(json!({ "workers": workers }))
}

fn all_workers(directory: &Directory) -> Vec<Value> {
    let functions = directory.registry.list();
    let count = |owner: &str| {
        functions
            .iter()
            .filter(|function| *function.owner == *owner)
            .count()
    };
    let owners = directory.owners();
    let connected = owners
        .workers()
        .iter()
        .map(|info| worker(info, count(&info.id)));
    let own = directory.registry.server();
    let elsewhere = owners.elsewhere().iter().map(|card| parsed(&card.shown));
    connected
        .chain([server(own, count(own))])
        .chain(elsewhere)
        .collect()
}

fn workers_info(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let name = input.required("name")?;
    let owners = directory.owners();
    let functions = directory.registry.list();
    let found = owners
        .workers()
        .iter()
        .find(|info| info.profile.name.as_deref() == Some(name));
    let own = directory.registry.server();
    let (owner, mut entry) = match found {
        Some(info) => {
            let count = functions
                .iter()
                .filter(|function| function.owner == info.id)
                .count();
            let mut entry = worker(info, count);
            put(&mut entry, "pid", info.profile.pid.as_deref().map(parsed));
            (&info.id, entry)
        }
        None if name == SERVER_NAME => (
            own,
            server(
                own,
                functions
                    .iter()
                    .filter(|function| function.owner == *own)
                    .count(),
            ),
        ),
        None => {
            let mut cards = owners.elsewhere().iter();
            let card = cards
                .find(|card| card.name.as_deref() == Some(name))
                .ok_or_else(|| input.not_found(&format!("worker '{name}'")))?;
            (&card.id, parsed(&card.shown))
        }
    };
    put(&mut entry, "internal", Some((owner == own).into()));
    let own_functions: Vec<_> = functions
        .iter()
        .filter(|function| function.owner == *owner)
        .map(|function| owners.function(function))
        .collect();
    let types = directory.triggers.types();
    let own_types: Vec<_> = types
        .iter()
        .filter(|info| info.owner == *owner)
        .map(|info| owners.trigger_type(info))
        .collect();
    let bindings = directory.bindings();
    let own_bindings: Vec<_> = bindings
        .iter()
        .filter(|binding| binding.owner == *owner)
        .map(|binding| owners.binding(binding))
        .collect();
    Ok(json!({
        "worker": entry,
        "functions": own_functions,
        "trigger_types": own_types,
        "registered_triggers": own_bindings,
    }))
}

fn triggers_list(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let owners = directory.owners();
    let worker = input.text("worker")?;
    let with_internal = input.flag("include_internal")?;
    let mut triggers = Vec::new();
    for info in directory.triggers.types() {
        let description = info.details.description.as_deref().unwrap_or_default();
        let is_wanted = worker.is_none_or(|name| name == owners.worker_name(&info.owner, &info.id))
            && (with_internal || !info.id.starts_with("engine::"));
        if is_wanted && input.passes(&info.id, description)? {
            triggers.push(owners.trigger_type(&info));
        }
    }
    Ok(json!({ "triggers": triggers }))
}

fn triggers_info(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let id = input.required("id")?;
    let types = directory.triggers.types();
    let info = types
        .iter()
        .find(|info| *info.id == *id)
        .ok_or_else(|| input.not_found(&format!("trigger type '{id}'")))?;
    let mut entry = directory.owners().trigger_type(info);
    put(
        &mut entry,
        "configuration_schema",
        info.details.request_format.as_deref().map(parsed),
    );
    put(
        &mut entry,
        "request_schema",
        info.details.response_format.as_deref().map(parsed),
    );
    put(&mut entry, "instance_count", Some(info.bindings.into()));
    Ok(entry)
}

fn registered_triggers_list(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let owners = directory.owners();
    let (trigger_type, function_id) = (input.text("trigger_type")?, input.text("function_id")?);
    let worker = input.text("worker")?;
    let with_internal = input.flag("include_internal")?;
    let mut rows = Vec::new();
    for binding in directory.bindings() {
        let is_wanted = trigger_type.is_none_or(|id| *id == *binding.trigger_type)
            && function_id.is_none_or(|id| *id == *binding.function_id)
            && worker.is_none_or(|name| {
                name == owners.worker_name(&binding.owner, &binding.function_id)
            })
            && (with_internal || !binding.trigger_type.starts_with("engine::"));
        if is_wanted && input.passes(&binding.id, &binding.function_id)? {
            let mut row = owners.binding(&binding);
            put(
                &mut row,
                "config_summary",
                Some(summary(&binding.config).into()),
            );
            rows.push(row);
        }
    }
    Ok(json!({ "registered_triggers": rows }))
}

fn registered_triggers_info(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let id = input.required("id")?;
    let bindings = directory.bindings();
    let binding = bindings
        .iter()
        .find(|binding| *binding.id == *id)
        .ok_or_else(|| input.not_found(&format!("registered trigger '{id}'")))?;
    let owners = directory.owners();
    let types = directory.triggers.types();
    let trigger = types.iter().find(|info| info.id == binding.trigger_type);
    let function = directory.registry.info(&binding.function_id);
    let mut entry = owners.binding(binding);
    put(
        &mut entry,
        "metadata",
        binding.metadata.as_deref().map(parsed),
    );
    put(
        &mut entry,
        "trigger",
        Some(trigger.map_or(Value::Null, |info| owners.trigger_type(info))),
    );
    put(
        &mut entry,
        "function",
        Some(function.map_or(Value::Null, |function| owners.function(&function))),
    );
    Ok(entry)
}

/// Makes a binding that no connection owns: it stays until it is taken away.
fn register_trigger(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let id = Uuid::new_v4().to_string();
    let text = |name: &str| {
        input
            .fields
            .get(name)
            .filter(|value| !value.is_null())
            .map(Value::to_string)
    };
    let binding = Binding {
        id: id.as_str().into(),
        trigger_type: input.required("trigger_type")?.into(),
        function_id: input.required("function_id")?.into(),
        config: text("config").unwrap_or_else(|| "null".to_owned()),
        metadata: text("metadata"),
        owner: directory.registry.server().clone(),
    };
    match directory.triggers.bind(binding) {
        Ok(()) => Ok(json!({ "id": id })),
        Err(error) => Err(Failure::new("trigger_registration_failed", &error.message)),
    }
}

fn unregister_trigger(directory: &Directory, input: &Input<'_>) -> Result<Value, Failure> {
    let removed = directory.triggers.unbind_any(input.required("id")?);
    Ok(json!({ "removed": removed }))
}
