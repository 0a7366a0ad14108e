//! What a worker provides for others: functions that it executes, and trigger types. Sends what is asked to the worker and
//! keeps the promise for its answer.

use std::sync::Arc;

use super::protocol;
use super::workers::Worker;
use crate::engine::{BindError, Binding, Call, Failure, Function, ReplyTo, TriggerType};
use crate::metrics::Metrics;

/// A function that a worker executes.
pub(super) struct RemoteFunction {
    pub(super) worker: Arc<Worker>,
    pub(super) metrics: Arc<Metrics>,
}

impl Function for RemoteFunction {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        if self.worker.outbox.is_closing() {
            reply.fail(
                "channel_send_failed",
                "the connection of the worker that runs this function is closing",
            );
            return;
        }
        match self.worker.begin(reply) {
            Ok(invocation_id) => {
                self.metrics.invocations_total.inc();
                let invocation_id = invocation_id.hyphenated().to_string();
                let frame = protocol::invoke_function(&invocation_id, call);
                self.worker.outbox.push(frame.into());
            }
            Err(reply) => reply.send(Err(Failure::invocation_stopped())),
        }
    }
}

/// A function that a worker wants to have called over HTTP, which this server does not do: every call is told so.
pub(super) struct HttpFunction;

impl Function for HttpFunction {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        let message = format!(
            "function '{}' is to be called over HTTP, which this server does not do",
            call.function_id
        );
        reply.fail("http_invocation_unsupported", message);
    }
}

/// A trigger type that a worker provides: it fires by calling the bindings' functions itself.
pub(super) struct RemoteTriggerType {
    pub(super) worker: Arc<Worker>,
}

impl TriggerType for RemoteTriggerType {
    /// The provider may refuse later, with a frame of its own.
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        self.worker
            .outbox
            .push(protocol::register_trigger(binding).into());
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.worker
            .outbox
            .push(protocol::unregister_trigger(binding).into());
    }
}
