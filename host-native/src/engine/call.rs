//! One call of a function: what is asked, and the promise that it is answered. Knows no transport.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use iii_stream_core::fields::Fields;
use iii_stream_core::text::push_string;
use tokio::sync::oneshot;

use crate::metrics::FunctionCalls;

/// Something that can be called.
pub trait Function: Send + Sync {
    /// Takes a call and sees to it that `reply` is answered, now or later. It must not block, and keeps nothing
    /// borrowed: what it needs later it copies.
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo);
}

/// What is asked of a function.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The function's id.
    pub function_id: &'a str,
    /// The input as JSON text.
    pub data: &'a str,
    /// Passed on unchanged, as JSON text.
    pub metadata: Option<&'a str>,
    /// W3C trace context, passed on unchanged.
    pub traceparent: Option<&'a str>,
    /// W3C trace context, passed on unchanged.
    pub baggage: Option<&'a str>,
    /// The calling worker; `None` for calls that the server makes itself.
    pub caller: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// A call that the server makes itself.
    pub fn from_server(function_id: &'a str, data: &'a str) -> Self {
        Self {
            function_id,
            data,
            metadata: None,
            traceparent: None,
            baggage: None,
            caller: None,
        }
    }
}

/// What came of a call.
pub type CallResult = Result<Output, Failure>;

/// What a function returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// No value: the wire then has no `result` field, which is not the same as `null`.
    Nothing,
    /// JSON text.
    Json(String),
}

/// The error body of a call as JSON text. Shape: `{"code","message","stacktrace"?}` and what a code adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    body: String,
    is_of_server: bool,
}

impl Failure {
    /// An error of the server.
    pub fn new(code: &str, message: &str) -> Self {
        let mut body = String::from(r#"{"code":"#);
        push_string(&mut body, code);
        body.push_str(r#","message":"#);
        push_string(&mut body, message);
        body.push('}');
        Self {
            body,
            is_of_server: true,
        }
    }

    /// The same with one more field, whose value is JSON text.
    pub fn with_field(mut self, name: &str, json: &str) -> Self {
        self.body.pop();
        self.body.push_str(",\"");
        self.body.push_str(name);
        self.body.push_str("\":");
        self.body.push_str(json);
        self.body.push('}');
        self
    }

    /// An error that a worker gave: passed on unchanged.
    pub fn from_worker(body: String) -> Self {
        Self {
            body,
            is_of_server: false,
        }
    }

    /// An error that another instance answered with: passed on unchanged.
    pub fn from_instance(body: String, is_of_server: bool) -> Self {
        Self { body, is_of_server }
    }

    /// Whether the server gave this error, so that the function itself may never have been asked.
    pub fn is_of_server(&self) -> bool {
        self.is_of_server
    }

    /// No such function.
    pub fn function_not_found(function_id: &str, namespace: &str) -> Self {
        let message = format!("no function '{function_id}' in namespace '{namespace}'");
        Self::new("function_not_found", &message)
    }

    /// The executing worker went away before it answered.
    pub fn invocation_stopped() -> Self {
        Self::new(
            "invocation_stopped",
            "the worker that ran this call ended before it answered",
        )
    }

    /// The message of the error body; the whole body where there is none.
    pub fn message(&self) -> String {
        let fields = Fields::read(&self.body, &["message"]);
        let message = fields
            .ok()
            .and_then(|fields| fields.string(0).ok().map(Cow::into_owned));
        message.unwrap_or_else(|| self.body.clone())
    }

    /// The code of the error body, for counting: what workers say is counted together.
    pub fn code(&self) -> Cow<'_, str> {
        if !self.is_of_server {
            return Cow::Borrowed("worker_error");
        }
        let fields = Fields::read(&self.body, &["code"]);
        let code = fields.ok().and_then(|fields| fields.string(0).ok());
        code.unwrap_or(Cow::Borrowed("unknown"))
    }

    /// The error body.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// Where an answer goes.
pub trait Answer: Send {
    /// Takes the answer.
    fn answer(self: Box<Self>, result: CallResult);

    /// Whether anybody still waits for it.
    fn is_wanted(&self) -> bool;
}

/// The promise that a call is answered: dropping it answers `invocation_stopped`.
pub struct ReplyTo {
    answer: Option<Box<dyn Answer>>,
    measured: Option<Measured>,
}

/// A call whose answer is counted and timed.
struct Measured {
    calls: Arc<FunctionCalls>,
    since: Instant,
}

impl ReplyTo {
    /// Answers go to `answer`.
    pub fn new(answer: impl Answer + 'static) -> Self {
        Self {
            answer: Some(Box::new(answer)),
            measured: None,
        }
    }

    /// Nobody waits for the answer.
    pub fn nobody() -> Self {
        Self {
            answer: None,
            measured: None,
        }
    }

    /// The answer can be awaited.
    pub fn waiter() -> (Self, Waiter) {
        let (sender, receiver) = oneshot::channel();
        (Self::new(sender), Waiter(receiver))
    }

    /// Counts and times the answer from now on.
    pub fn measured(mut self, calls: Arc<FunctionCalls>) -> Self {
        self.measured = Some(Measured {
            calls,
            since: Instant::now(),
        });
        self
    }

    /// Whether anybody still waits for the answer.
    pub fn is_wanted(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| answer.is_wanted())
    }

    /// Answers the call.
    pub fn send(mut self, result: CallResult) {
        self.finish(result);
    }

    /// Answers the call with an error of the server.
    pub fn fail(self, code: &str, message: impl Into<Cow<'static, str>>) {
        self.send(Err(Failure::new(code, &message.into())));
    }

    fn finish(&mut self, result: CallResult) {
        if let Some(Measured { calls, since }) = self.measured.take() {
            let code = result.as_ref().err().map(Failure::code);
            calls.answered(since, code.as_deref());
        }
        if let Some(answer) = self.answer.take() {
            answer.answer(result);
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.answer.is_some() || self.measured.is_some() {
            self.finish(Err(Failure::invocation_stopped()));
        }
    }
}

impl Answer for oneshot::Sender<CallResult> {
    fn answer(self: Box<Self>, result: CallResult) {
        // Whoever asked may have stopped waiting.
        let _ = self.send(result);
    }

    fn is_wanted(&self) -> bool {
        !self.is_closed()
    }
}

/// The other end of [`ReplyTo::waiter`].
pub struct Waiter(oneshot::Receiver<CallResult>);

impl Waiter {
    /// Waits for the answer, for ever if the function never gives one.
    pub async fn answer(self) -> CallResult {
        self.0
            .await
            .unwrap_or_else(|_| Err(Failure::invocation_stopped()))
    }
}

/// An answer that is taken where and when it arrives.
pub struct OnAnswer<F>(pub F);

impl<F: FnOnce(CallResult) + Send> Answer for OnAnswer<F> {
    fn answer(self: Box<Self>, result: CallResult) {
        (self.0)(result);
    }

    fn is_wanted(&self) -> bool {
        true
    }
}

/// A function that answers at once.
pub struct Immediate<F>(pub F);

impl<F: Fn(&Call<'_>) -> CallResult + Send + Sync> Function for Immediate<F> {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        reply.send((self.0)(call));
    }
}
