//! The one place that translates between the text of worker frames and types. Source: worker protocol.

use std::borrow::Cow;

use iii_stream_core::fields::{FieldError, Fields};
use iii_stream_core::raw::Raw;
use iii_stream_core::text::push_string;

use crate::engine::{Binding, Call, CallResult, Output};

/// A frame of a worker.
#[derive(Debug)]
pub(super) enum WorkerFrame<'a> {
    Invoke(Invoke<'a>),
    Result(InvocationResult<'a>),
    RegisterFunction(RegisterFunction<'a>),
    UnregisterFunction {
        id: Cow<'a, str>,
    },
    RegisterTrigger(RegisterTrigger<'a>),
    UnregisterTrigger {
        id: Cow<'a, str>,
    },
    RegisterTriggerType(RegisterTriggerType<'a>),
    UnregisterTriggerType {
        id: Cow<'a, str>,
    },
    TriggerResult(TriggerResult<'a>),
    Reattach {
        previous_worker_id: Cow<'a, str>,
        token: Option<Cow<'a, str>>,
    },
    Ping,
    /// Known, and without effect here.
    Ignored,
}

/// `invokefunction`, section 5.1.
#[derive(Debug)]
pub(super) struct Invoke<'a> {
    /// As it came, with its quotes; `None`: no answer is wanted.
    pub(super) invocation_id: Option<&'a str>,
    pub(super) function_id: Cow<'a, str>,
    pub(super) data: &'a str,
    pub(super) metadata: Option<&'a str>,
    pub(super) traceparent: Option<Cow<'a, str>>,
    pub(super) baggage: Option<Cow<'a, str>>,
    pub(super) namespace: Option<Cow<'a, str>>,
    pub(super) action: Action<'a>,
}

/// What to do with a call, section 5.3.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    Call,
    Void,
    Enqueue { queue: Cow<'a, str> },
}

/// `invocationresult`, section 5.4.
#[derive(Debug)]
pub(super) struct InvocationResult<'a> {
    pub(super) invocation_id: Cow<'a, str>,
    /// `None` and `null` are both no value.
    pub(super) result: Option<&'a str>,
    pub(super) error: Option<&'a str>,
}

/// `registerfunction`, section 5.7.
#[derive(Debug)]
pub(super) struct RegisterFunction<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) description: Option<Cow<'a, str>>,
    pub(super) metadata: Option<&'a str>,
    pub(super) request_format: Option<&'a str>,
    pub(super) response_format: Option<&'a str>,
    /// Whether the function is to be called over HTTP, which this server does not do.
    pub(super) is_http: bool,
}

/// `registertrigger`, section 6.1.
#[derive(Debug)]
pub(super) struct RegisterTrigger<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) trigger_type: Cow<'a, str>,
    pub(super) function_id: Cow<'a, str>,
    pub(super) config: &'a str,
    pub(super) metadata: Option<&'a str>,
    /// Whether a namespace was given that is blank.
    pub(super) has_blank_namespace: bool,
}

/// `registertriggertype`, section 6.2.
#[derive(Debug)]
pub(super) struct RegisterTriggerType<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) description: Cow<'a, str>,
    pub(super) trigger_request_format: Option<&'a str>,
    pub(super) call_request_format: Option<&'a str>,
}

/// `triggerregistrationresult`, section 6.2: what the provider of a type says of a binding.
#[derive(Debug)]
pub(super) struct TriggerResult<'a> {
    pub(super) id: Cow<'a, str>,
    /// `None`: it takes the binding.
    pub(super) error: Option<&'a str>,
}

/// A frame that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undecodable<'a> {
    /// What is wrong.
    pub(super) message: String,
    /// The call that must be answered with an error: its id as it came, with quotes, and the function if it is known.
    pub(super) call: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

const FIELDS: &[&str; 23] = &[
    "type",
    "invocation_id",
    "function_id",
    "data",
    "action",
    "result",
    "error",
    "metadata",
    "traceparent",
    "baggage",
    "namespace",
    "id",
    "trigger_type",
    "config",
    "description",
    "request_format",
    "response_format",
    "invocation",
    "previous_worker_id",
    "reattach_token",
    "trigger_namespace",
    "trigger_request_format",
    "call_request_format",
];
const TYPE: usize = 0;
const INVOCATION_ID: usize = 1;
const FUNCTION_ID: usize = 2;
const DATA: usize = 3;
const ACTION: usize = 4;
const RESULT: usize = 5;
const ERROR: usize = 6;
const METADATA: usize = 7;
const TRACEPARENT: usize = 8;
const BAGGAGE: usize = 9;
const NAMESPACE: usize = 10;
const ID: usize = 11;
const TRIGGER_TYPE: usize = 12;
const CONFIG: usize = 13;
const DESCRIPTION: usize = 14;
const REQUEST_FORMAT: usize = 15;
const RESPONSE_FORMAT: usize = 16;
const INVOCATION: usize = 17;
const PREVIOUS_WORKER_ID: usize = 18;
const REATTACH_TOKEN: usize = 19;
const TRIGGER_NAMESPACE: usize = 20;
const TRIGGER_REQUEST_FORMAT: usize = 21;
const CALL_REQUEST_FORMAT: usize = 22;

type FrameFields<'a> = Fields<'a, 23>;

/// Reads a frame.
///
/// Errors: [`Undecodable`], which names the call that must be answered wherever it can be made out.
pub(super) fn decode(text: &str) -> Result<WorkerFrame<'_>, Undecodable<'_>> {
    let fields = Fields::read(text, FIELDS).map_err(|error| Undecodable {
        message: error.to_string(),
        call: salvage_call(text),
    })?;
    let decoded = match fields.string(TYPE).as_deref() {
        Ok("invokefunction") => decode_invoke(&fields).map(WorkerFrame::Invoke),
        Ok("invocationresult") => decode_result(&fields).map(WorkerFrame::Result),
        Ok("registerfunction") => {
            decode_register_function(&fields).map(WorkerFrame::RegisterFunction)
        }
        Ok("unregisterfunction") => fields
            .string(ID)
            .map(|id| WorkerFrame::UnregisterFunction { id }),
        Ok("registertrigger") => decode_register_trigger(&fields).map(WorkerFrame::RegisterTrigger),
        Ok("unregistertrigger") => fields
            .string(ID)
            .map(|id| WorkerFrame::UnregisterTrigger { id }),
        Ok("reattach") => decode_reattach(&fields),
        Ok("ping") => Ok(WorkerFrame::Ping),
        Ok("registertriggertype") => decode_trigger_type(&fields),
        Ok("unregistertriggertype") => fields
            .string(ID)
            .map(|id| WorkerFrame::UnregisterTriggerType { id }),
        Ok("triggerregistrationresult") => decode_trigger_result(&fields),
        Ok("pong" | "registerservice") => Ok(WorkerFrame::Ignored),
        _ => Err(fields.wrong_type(TYPE, "a message type of the worker protocol")),
    };
    decoded.map_err(|error| Undecodable {
        message: error.to_string(),
        call: call_to_answer(&fields),
    })
}

fn decode_invoke<'a>(fields: &FrameFields<'a>) -> Result<Invoke<'a>, FieldError> {
    let action = match fields.optional(ACTION) {
        None => Action::Call,
        Some(raw) => decode_action(raw, fields)?,
    };
    Ok(Invoke {
        invocation_id: match fields.optional_string(INVOCATION_ID)? {
            Some(_) => fields.optional(INVOCATION_ID).map(Raw::get),
            None => None,
        },
        function_id: fields.string(FUNCTION_ID)?,
        data: fields.raw(DATA).map_or("null", Raw::get),
        metadata: fields.optional(METADATA).map(Raw::get),
        traceparent: fields.optional_string(TRACEPARENT)?,
        baggage: fields.optional_string(BAGGAGE)?,
        namespace: fields.optional_string(NAMESPACE)?,
        action,
    })
}

fn decode_action<'a>(raw: Raw<'a>, fields: &FrameFields<'a>) -> Result<Action<'a>, FieldError> {
    let unknown = || {
        fields.wrong_type(
            ACTION,
            r#"{"type":"void"} or {"type":"enqueue","queue":"…"}"#,
        )
    };
    let action = Fields::read(raw.get(), &["type", "queue"]).map_err(|_| unknown())?;
    match action.string(0).as_deref() {
        Ok("void") => Ok(Action::Void),
        Ok("enqueue") => Ok(Action::Enqueue {
            queue: action.string(1).map_err(|_| unknown())?,
        }),
        _ => Err(unknown()),
    }
}

fn decode_result<'a>(fields: &FrameFields<'a>) -> Result<InvocationResult<'a>, FieldError> {
    Ok(InvocationResult {
        invocation_id: fields.string(INVOCATION_ID)?,
        result: fields.optional(RESULT).map(Raw::get),
        error: fields.optional(ERROR).map(Raw::get),
    })
}

fn decode_register_function<'a>(
    fields: &FrameFields<'a>,
) -> Result<RegisterFunction<'a>, FieldError> {
    Ok(RegisterFunction {
        id: fields.string(ID)?,
        description: fields.optional_string(DESCRIPTION)?,
        metadata: fields.optional(METADATA).map(Raw::get),
        request_format: fields.optional(REQUEST_FORMAT).map(Raw::get),
        response_format: fields.optional(RESPONSE_FORMAT).map(Raw::get),
        is_http: fields.optional(INVOCATION).is_some(),
    })
}

fn decode_register_trigger<'a>(
    fields: &FrameFields<'a>,
) -> Result<RegisterTrigger<'a>, FieldError> {
    let is_blank = |index| {
        let namespace = fields.optional_string(index)?;
        Ok(namespace.is_some_and(|namespace| namespace.trim().is_empty()))
    };
    Ok(RegisterTrigger {
        id: fields.string(ID)?,
        trigger_type: fields.string(TRIGGER_TYPE)?,
        function_id: fields.string(FUNCTION_ID)?,
        config: fields.raw(CONFIG).map_or("null", Raw::get),
        metadata: fields.optional(METADATA).map(Raw::get),
        has_blank_namespace: is_blank(NAMESPACE)? || is_blank(TRIGGER_NAMESPACE)?,
    })
}

fn decode_trigger_type<'a>(fields: &FrameFields<'a>) -> Result<WorkerFrame<'a>, FieldError> {
    Ok(WorkerFrame::RegisterTriggerType(RegisterTriggerType {
        id: fields.string(ID)?,
        description: fields.optional_string(DESCRIPTION)?.unwrap_or_default(),
        trigger_request_format: fields.optional(TRIGGER_REQUEST_FORMAT).map(Raw::get),
        call_request_format: fields.optional(CALL_REQUEST_FORMAT).map(Raw::get),
    }))
}

fn decode_trigger_result<'a>(fields: &FrameFields<'a>) -> Result<WorkerFrame<'a>, FieldError> {
    let id = fields.string(ID)?;
    Ok(WorkerFrame::TriggerResult(TriggerResult {
        id,
        error: fields.optional(ERROR).map(Raw::get),
    }))
}

fn decode_reattach<'a>(fields: &FrameFields<'a>) -> Result<WorkerFrame<'a>, FieldError> {
    Ok(WorkerFrame::Reattach {
        previous_worker_id: fields.string(PREVIOUS_WORKER_ID)?,
        token: fields.optional_string(REATTACH_TOKEN)?,
    })
}

/// The call in a frame that is an object but not what it should be.
fn call_to_answer<'a>(fields: &FrameFields<'a>) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
    let is_call = fields
        .string(TYPE)
        .is_ok_and(|name| name == "invokefunction");
    // A void call is never answered.
    let is_void = fields.optional(ACTION).is_some_and(|raw| {
        Fields::read(raw.get(), &["type"])
            .is_ok_and(|action| action.string(0).is_ok_and(|name| name == "void"))
    });
    if !is_call
        || is_void
        || fields
            .optional_string(INVOCATION_ID)
            .ok()
            .flatten()
            .is_none()
    {
        return None;
    }
    let id = fields.optional(INVOCATION_ID)?.get();
    Some((
        Cow::Borrowed(id),
        fields.string(FUNCTION_ID).unwrap_or_default(),
    ))
}

/// The call in text that is no JSON, for example because it holds `NaN`: found by its field names.
fn salvage_call(text: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    if !text.contains(r#""invokefunction""#) {
        return None;
    }
    let id = salvage_string(text, r#""invocation_id""#)?;
    let function_id = salvage_string(text, r#""function_id""#).unwrap_or_default();
    Some((Cow::Owned(format!("\"{id}\"")), Cow::Borrowed(function_id)))
}

/// The string after a field's name, if it has no escapes.
fn salvage_string<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    /// Longer strings are no ids.
    const BYTES_MAX: usize = 256;
    let (_, rest) = text.split_once(name)?;
    let rest = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    let (value, _) = rest.split_once('"')?;
    let is_plain = value.bytes().all(|byte| byte != b'\\' && 0x20 <= byte);
    (value.len() <= BYTES_MAX && is_plain).then_some(value)
}

/// The first frame on every connection, section 4.
pub(super) fn worker_registered(worker_id: &str, reattach_token: &str) -> String {
    format!(
        r#"{{"type":"workerregistered","worker_id":"{worker_id}","reattach_token":"{reattach_token}"}}"#
    )
}

/// The answer to a call, section 5.4. `invocation_id` stands as it came, with its quotes.
pub(super) fn invocation_result(
    invocation_id: &str,
    function_id: &str,
    trace: &Trace,
    result: &CallResult,
) -> String {
    let body_bytes = match result {
        Ok(Output::Json(json)) => json.len(),
        Ok(Output::Nothing) => 0,
        Err(failure) => failure.body().len(),
    };
    let mut out = String::with_capacity(128 + invocation_id.len() + function_id.len() + body_bytes);
    out.push_str(r#"{"type":"invocationresult","invocation_id":"#);
    out.push_str(invocation_id);
    out.push_str(r#","function_id":"#);
    push_string(&mut out, function_id);
    trace.push_to(&mut out);
    match result {
        Ok(Output::Nothing) => {}
        Ok(Output::Json(json)) => push_field(&mut out, "result", json),
        Err(failure) => push_field(&mut out, "error", failure.body()),
    }
    out.push('}');
    out
}

/// A call for a worker to execute, section 5.2.
pub(super) fn invoke_function(invocation_id: &str, call: &Call<'_>) -> String {
    let mut out = String::with_capacity(256 + call.data.len());
    out.push_str(r#"{"type":"invokefunction","invocation_id":""#);
    out.push_str(invocation_id);
    out.push_str(r#"","function_id":"#);
    push_string(&mut out, call.function_id);
    out.push_str(r#","data":"#);
    push_data(&mut out, call.data, call.caller);
    if let Some(metadata) = call.metadata {
        push_field(&mut out, "metadata", metadata);
    }
    let borrowed = [("traceparent", call.traceparent), ("baggage", call.baggage)];
    for (name, value) in borrowed {
        if let Some(value) = value {
            push_text_field(&mut out, name, value);
        }
    }
    out.push('}');
    out
}

/// The input of a call; an object that comes from a worker tells which.
fn push_data(out: &mut String, data: &str, caller: Option<&str>) {
    let open = data
        .trim_end()
        .strip_suffix('}')
        .filter(|_| data.trim_start().starts_with('{'));
    let (Some(open), Some(caller)) = (open, caller) else {
        out.push_str(data);
        return;
    };
    out.push_str(open);
    if open.trim() != "{" {
        out.push(',');
    }
    out.push_str(r#""_caller_worker_id":"#);
    push_string(out, caller);
    out.push('}');
}

/// The refusal of a function whose id another worker owns, section 5.7.
pub(super) fn registration_rejected(function_id: &str, owner: &str) -> String {
    let mut out = String::from(
        r#"{"type":"registrationrejected","code":"FUNCTION_NAMESPACE_CONFLICT","namespace":"default""#,
    );
    push_text_field(&mut out, "function_id", function_id);
    push_text_field(&mut out, "owner_worker_id", owner);
    out.push('}');
    out
}

/// The refusal of a binding, section 6.1. `error` is its body as JSON text.
pub(super) fn trigger_refused(
    id: &str,
    trigger_type: &str,
    function_id: &str,
    error: &str,
) -> String {
    let mut out = String::from(r#"{"type":"triggerregistrationresult""#);
    push_text_field(&mut out, "id", id);
    push_text_field(&mut out, "trigger_type", trigger_type);
    push_text_field(&mut out, "function_id", function_id);
    push_field(&mut out, "error", error);
    out.push('}');
    out
}

/// A binding for the provider of its type, section 6.2.
pub(super) fn register_trigger(binding: &Binding) -> String {
    let mut out = String::from(r#"{"type":"registertrigger""#);
    push_text_field(&mut out, "id", &binding.id);
    push_text_field(&mut out, "trigger_type", &binding.trigger_type);
    push_text_field(&mut out, "function_id", &binding.function_id);
    push_field(&mut out, "config", &binding.config);
    if let Some(metadata) = &binding.metadata {
        push_field(&mut out, "metadata", metadata);
    }
    out.push('}');
    out
}

/// The end of a binding for the provider of its type, section 6.2.
pub(super) fn unregister_trigger(binding: &Binding) -> String {
    let mut out = String::from(r#"{"type":"unregistertrigger""#);
    push_text_field(&mut out, "id", &binding.id);
    push_text_field(&mut out, "trigger_type", &binding.trigger_type);
    out.push('}');
    out
}

/// The answer to a ping in JSON, section 7.
pub(super) const PONG: &str = r#"{"type":"pong"}"#;

/// Trace context, passed on unchanged.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) traceparent: Option<String>,
    pub(super) baggage: Option<String>,
}

impl Trace {
    fn push_to(&self, out: &mut String) {
        let fields = [
            ("traceparent", &self.traceparent),
            ("baggage", &self.baggage),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                push_text_field(out, name, value);
            }
        }
    }
}

fn push_field(out: &mut String, name: &str, json: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(json);
}

fn push_text_field(out: &mut String, name: &str, text: &str) {
    push_field(out, name, "");
    push_string(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Failure;

    #[test]
    fn a_call_that_cannot_be_read_is_still_found() {
        let id = r#""7a1f0000-0000-4000-8000-000000000001""#;
        let cases = [
            format!(
                r#"{{"type":"invokefunction","invocation_id":{id},"function_id":"f","data":{{"x":NaN}}}}"#
            ),
            format!(
                r#"{{"type":"invokefunction","invocation_id":{id},"function_id":"f","data":1,"action":{{"type":"later"}}}}"#
            ),
            format!(
                r#"{{"type":"invokefunction","invocation_id":{id},"function_id":"f","data":1,"traceparent":7}}"#
            ),
        ];
        for text in &cases {
            let error = decode(text).expect_err("undecodable");
            assert_eq!(
                error.call,
                Some((Cow::Borrowed(id), Cow::Borrowed("f"))),
                "{text}"
            );
        }
        let missing = format!(r#"{{"type":"invokefunction","invocation_id":{id}}}"#);
        let error = decode(&missing).expect_err("undecodable");
        assert_eq!(error.call, Some((Cow::Borrowed(id), Cow::Borrowed(""))));
        assert_eq!(error.message, "field `function_id` is missing");
        let void = format!(
            r#"{{"type":"invokefunction","invocation_id":{id},"action":{{"type":"void"}}}}"#
        );
        assert_eq!(decode(&void).expect_err("undecodable").call, None);
    }

    #[test]
    fn tells_the_callee_who_calls() {
        let with = |data, caller| {
            let mut out = String::new();
            push_data(&mut out, data, caller);
            out
        };
        assert_eq!(
            with(r#"{"a":1}"#, Some("w")),
            r#"{"a":1,"_caller_worker_id":"w"}"#
        );
        assert_eq!(with("{ }", Some("w")), r#"{ "_caller_worker_id":"w"}"#);
        assert_eq!(with("[1]", Some("w")), "[1]");
        assert_eq!(with(r#"{"a":1}"#, None), r#"{"a":1}"#);
        assert_eq!(with(r#""{}""#, Some("w")), r#""{}""#);
    }

    #[test]
    fn nothing_and_null_are_two_results() {
        let trace = Trace::default();
        let text = |result| invocation_result("\"i\"", "f", &trace, &result);
        assert_eq!(
            text(Ok(Output::Nothing)),
            r#"{"type":"invocationresult","invocation_id":"i","function_id":"f"}"#
        );
        assert_eq!(
            text(Ok(Output::Json("null".into()))),
            r#"{"type":"invocationresult","invocation_id":"i","function_id":"f","result":null}"#
        );
        assert_eq!(
            text(Err(Failure::new("c", "m").with_field("seq", "5"))),
            r#"{"type":"invocationresult","invocation_id":"i","function_id":"f","error":{"code":"c","message":"m","seq":5}}"#
        );
    }
}
