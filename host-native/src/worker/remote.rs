//! A function that a worker executes: sends the call to the worker and keeps the promise for its answer.

use std::sync::Arc;

use super::protocol;
use super::workers::Worker;
use crate::engine::{Call, Failure, Function, ReplyTo};

/// See the module.
pub(super) struct RemoteFunction {
    pub(super) worker: Arc<Worker>,
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
                let invocation_id = invocation_id.hyphenated().to_string();
                let frame = protocol::invoke_function(&invocation_id, call);
                self.worker.outbox.push(frame.into());
            }
            Err(reply) => reply.send(Err(Failure::invocation_stopped())),
        }
    }
}
