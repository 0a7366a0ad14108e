//! The calls of one subscriber connection: bounded, allowed only where granted, answered each. Knows no subscriptions.
//!
//! A call is begun where its message is read, so calls take effect in the order in which they were sent. A connection that
//! never calls pays for two pointers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iii_stream_core::Grants;

use super::protocol::{self, Call};
use super::subscribers::Subscribers;
use crate::engine::{Answer, CallResult, Failure, ReplyTo};
use crate::metrics::Metrics;
use crate::socket::Outbox;
use crate::stream::{Access, Verb};

/// See the module.
pub(super) struct Calls {
    grants: Arc<Grants>,
    /// Calls that are not answered; there from the first one on.
    in_flight: Option<Arc<AtomicUsize>>,
}

impl Calls {
    /// None yet.
    pub(super) fn new(grants: Arc<Grants>) -> Self {
        Self {
            grants,
            in_flight: None,
        }
    }

    /// Begins a call, or says why not.
    pub(super) fn begin(
        &mut self,
        call: &Call<'_>,
        subscribers: &Subscribers,
        outbox: &Arc<Outbox>,
    ) {
        subscribers.metrics.client_calls.inc();
        let in_flight = self.in_flight.get_or_insert_default();
        let reply = |only_reads| {
            in_flight.fetch_add(1, Ordering::AcqRel);
            ReplyTo::new(ClientAnswer {
                outbox: outbox.clone(),
                metrics: subscribers.metrics.clone(),
                in_flight: in_flight.clone(),
                id: call.id.into(),
                only_reads,
            })
        };
        let open_max = subscribers.limits.calls_in_flight_max;
        if open_max <= in_flight.load(Ordering::Acquire) {
            let message = format!(
                "this connection has {open_max} calls that are not answered, which is the limit (calls_in_flight_max)"
            );
            return reply(false).fail("too_many_calls", message);
        }
        if outbox.is_overfull() {
            return reply(false).send(Err(too_much_waits(outbox)));
        }
        let access = Access::Granted(self.grants.clone());
        let is_known = subscribers.functions.call_for_client(
            &call.function_id,
            call.data,
            &access,
            |verb: Verb| reply(verb.only_reads()),
        );
        if !is_known {
            // The same for every other name, so that nobody learns which there are.
            let message = format!(
                "clients may call the eight functions of `stream::`, not {:?}",
                call.function_id
            );
            reply(false).fail("forbidden", message);
        }
    }
}

/// The way back to the client that made a call.
struct ClientAnswer {
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    in_flight: Arc<AtomicUsize>,
    /// As it came, with its quotes.
    id: Box<str>,
    /// Nothing is lost with the result.
    only_reads: bool,
}

impl Answer for ClientAnswer {
    fn answer(self: Box<Self>, result: CallResult) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        // Many reads may have begun before the first was answered.
        let result = if self.only_reads && result.is_ok() && self.outbox.is_overfull() {
            Err(too_much_waits(&self.outbox))
        } else {
            result
        };
        count(&self.metrics, &result);
        self.outbox
            .answer(protocol::result_frame(&self.id, &result).into());
    }

    fn is_wanted(&self) -> bool {
        !self.outbox.is_closing()
    }
}

fn too_much_waits(outbox: &Outbox) -> Failure {
    let bytes_max = outbox.bytes_max();
    let message = format!(
        "more than {bytes_max} bytes wait for this connection, which is the limit (queue_bytes_max): read, then call again"
    );
    Failure::new("too_many_calls", &message)
}

fn count(metrics: &Metrics, result: &CallResult) {
    let Err(failure) = result else { return };
    match &*failure.code() {
        "too_many_calls" => metrics.client_calls_refused.inc(),
        "forbidden" => metrics.client_calls_forbidden.inc(),
        _ => {}
    }
}
