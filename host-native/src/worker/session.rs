//! One worker connection: reads its frames, in order, and does what they say.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_tungstenite::HyperWebsocket;

use super::protocol::{
    self, Action, InvocationResult, Invoke, RegisterFunction, RegisterTrigger, RegisterTriggerType,
    Trace, TriggerResult, Undecodable, WorkerFrame,
};
use super::remote::{HttpFunction, RemoteFunction, RemoteTriggerType};
use super::workers::{Claim, Claimed, Worker, Workers};
use crate::engine::{
    Answer, Binding, Call, CallResult, Details, Failure, Function, Output, OwnerId, ReplyTo,
};
use crate::socket::{Connection, End, Incoming, Outbox};

/// How often calls are looked at that wait for a worker, at least.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Frames of one connection that are handled before others get their turn.
const RECEIVE_BATCH: usize = 256;

/// First bytes of telemetry, which old clients send here instead of to `/otel`. Source: worker protocol, section 2.
const TELEMETRY_PREFIXES: [&[u8]; 3] = [b"OTLP", b"MTRC", b"LOGS"];

/// Serves one connection until it ends.
pub async fn serve(socket: HyperWebsocket, workers: Arc<Workers>, addr: IpAddr) {
    let limits = workers.limits.connection;
    let mut connection = match Connection::open(socket, limits).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, "worker went away during its upgrade");
            return;
        }
    };
    let worker = workers.connect(addr, connection.outbox().clone());
    tracing::info!(worker = %worker.id, "worker connected");
    let session = Session {
        workers: &workers,
        worker: &worker,
    };
    let registered = protocol::worker_registered(&worker.id, &worker.reattach_token);
    worker.outbox.push(registered.into());
    let invocation_time_max = workers.limits.invocation_time_max;
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL_MAX.min(invocation_time_max / 2));
    let mut received = 0_usize;
    let end = loop {
        tokio::select! {
            biased;
            // First, so that a worker that never stops sending cannot put it off.
            _ = sweep.tick() => {
                let overdue = worker.sweep(invocation_time_max);
                workers.metrics.invocation_timeouts.inc_by(overdue as u64);
            }
            incoming = connection.next() => match incoming {
                Ok(incoming) => {
                    workers.metrics.worker_messages.inc();
                    session.receive(&incoming);
                }
                Err(end) => break end,
            },
        }
        received += 1;
        if received.is_multiple_of(RECEIVE_BATCH) {
            tokio::task::yield_now().await;
        }
    };
    workers.disconnect(&worker);
    if let End::ByServer(code) = end {
        workers.metrics.closes.inc(code.on_wire().0);
    }
    tracing::info!(worker = %worker.id, ?end, "worker disconnected");
}

struct Session<'a> {
    workers: &'a Arc<Workers>,
    worker: &'a Arc<Worker>,
}

impl Session<'_> {
    fn receive(&self, incoming: &Incoming) {
        let text = match incoming {
            Incoming::Room => return,
            Incoming::Text(text) => text.as_str(),
            Incoming::Binary(bytes) => {
                if TELEMETRY_PREFIXES
                    .iter()
                    .any(|prefix| bytes.starts_with(prefix))
                {
                    return;
                }
                match str::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(error) => {
                        tracing::warn!(worker = %self.worker.id, %error, "binary frame is no JSON");
                        return;
                    }
                }
            }
        };
        if text.trim_ascii().is_empty() {
            return;
        }
        match protocol::decode(text) {
            Ok(frame) => self.handle(frame),
            Err(undecodable) => self.answer_undecodable(undecodable),
        }
    }

    fn handle(&self, frame: WorkerFrame<'_>) {
        let worker = &self.worker;
        match frame {
            WorkerFrame::Invoke(invoke) => self.invoke(&invoke),
            WorkerFrame::Result(result) => self.finish(&result),
            WorkerFrame::RegisterFunction(register) => self.register_function(&register),
            WorkerFrame::UnregisterFunction { id } => {
                worker.withdraw(&id);
                self.workers.registry().unregister(&id, &worker.id);
            }
            WorkerFrame::RegisterTrigger(register) => self.register_trigger(&register),
            WorkerFrame::UnregisterTrigger { id } => {
                self.workers.triggers().unbind(&id, &worker.id);
            }
            WorkerFrame::Reattach {
                previous_worker_id,
                token,
            } => {
                self.workers
                    .reattach(worker, &previous_worker_id, token.as_deref());
            }
            WorkerFrame::Ping => worker.outbox.push(protocol::PONG.into()),
            WorkerFrame::RegisterTriggerType(register) => self.register_trigger_type(&register),
            WorkerFrame::UnregisterTriggerType { id } => {
                self.workers.triggers().unregister_type(&id, &worker.id);
            }
            WorkerFrame::TriggerResult(result) => self.take_trigger_result(&result),
            WorkerFrame::Ignored => {}
        }
    }

    /// Calls to the server's own functions take effect here and now, so those of one connection keep their order.
    fn invoke(&self, invoke: &Invoke<'_>) {
        let reply = match self.reply_to(invoke) {
            Ok(reply) => reply,
            Err((reply, limit)) => {
                self.workers.metrics.calls_refused.inc();
                let message = format!(
                    "this connection has {limit} calls that are not answered, which is the limit"
                );
                reply.fail("too_many_calls", message);
                return;
            }
        };
        let namespace = invoke.namespace.as_deref().unwrap_or("default");
        if namespace.trim().is_empty() {
            reply.fail("INVALID_NAMESPACE", "`namespace` is blank");
            return;
        }
        if let Action::Enqueue { queue } = &invoke.action {
            let message = format!(
                "no queue provider is installed, so nothing can be put into queue '{queue}'"
            );
            reply.fail("enqueue_error", message);
            return;
        }
        let call = Call {
            function_id: &invoke.function_id,
            data: invoke.data,
            metadata: invoke.metadata,
            traceparent: invoke.traceparent.as_deref(),
            baggage: invoke.baggage.as_deref(),
            caller: Some(&self.worker.id),
        };
        self.workers.registry().invoke(&call, namespace, reply);
    }

    /// Where the answer of a call goes. Errors: where to say that there are too many, and how many are allowed.
    fn reply_to(&self, invoke: &Invoke<'_>) -> Result<ReplyTo, (ReplyTo, usize)> {
        let Some(invocation_id) = invoke
            .invocation_id
            .filter(|_| invoke.action != Action::Void)
        else {
            return Ok(ReplyTo::nobody());
        };
        let in_flight = self.worker.calls_in_flight.clone();
        let limit = self.workers.limits.calls_in_flight_max;
        let open = in_flight.fetch_add(1, Ordering::AcqRel);
        let reply = ReplyTo::new(WorkerAnswer {
            outbox: self.worker.outbox.clone(),
            in_flight,
            invocation_id: invocation_id.into(),
            function_id: invoke.function_id.as_ref().into(),
            trace: Trace {
                traceparent: invoke.traceparent.as_deref().map(str::to_owned),
                baggage: invoke.baggage.as_deref().map(str::to_owned),
            },
        });
        if open < limit {
            Ok(reply)
        } else {
            Err((reply, limit))
        }
    }

    fn finish(&self, result: &InvocationResult<'_>) {
        // Results of calls that this worker was not asked to execute are dropped.
        let Some(reply) = self.worker.finish(&result.invocation_id) else {
            return;
        };
        reply.send(match (result.error, result.result) {
            (Some(error), _) => Err(Failure::from_worker(error.to_owned())),
            (None, Some(json)) => Ok(Output::Json(json.to_owned())),
            (None, None) => Ok(Output::Nothing),
        });
    }

    fn register_function(&self, register: &RegisterFunction<'_>) {
        let worker = self.worker;
        let owned = |json: Option<&str>| json.map(str::to_owned);
        let details = Details {
            description: register.description.as_deref().map(str::to_owned),
            metadata: owned(register.metadata),
            request_format: owned(register.request_format),
            response_format: owned(register.response_format),
        };
        let function: Arc<dyn Function> = if register.is_http {
            Arc::new(HttpFunction)
        } else {
            Arc::new(RemoteFunction {
                worker: worker.clone(),
                metrics: self.workers.metrics.clone(),
            })
        };
        let registry = self.workers.registry();
        let Err(conflict) =
            registry.register(&register.id, &worker.id, function.clone(), details.clone())
        else {
            return;
        };
        // The owner may be gone without having said so: it is asked for a sign of life before the newcomer is refused.
        let claim = Claim { function, details };
        match worker.claim(&conflict.owner, &register.id, claim) {
            Claimed::First => {
                tokio::spawn(settle_claims(
                    self.workers.clone(),
                    worker.clone(),
                    conflict.owner,
                ));
            }
            Claimed::Waits => {}
            Claimed::TooMany => {
                worker
                    .outbox
                    .push(protocol::registration_rejected(&register.id, &conflict.owner).into());
            }
        }
    }

    fn register_trigger(&self, register: &RegisterTrigger<'_>) {
        let refuse = |code, message: &str| {
            let RegisterTrigger {
                id,
                trigger_type,
                function_id,
                ..
            } = register;
            tracing::warn!(worker = %self.worker.id, trigger = %id, message, "trigger refused");
            let error = Failure::new(code, message);
            let frame = protocol::trigger_refused(id, trigger_type, function_id, error.body());
            self.worker.outbox.push(frame.into());
        };
        if register.has_blank_namespace {
            refuse("INVALID_NAMESPACE", "the namespace is blank");
            return;
        }
        let binding = Binding {
            id: register.id.as_ref().into(),
            trigger_type: register.trigger_type.as_ref().into(),
            function_id: register.function_id.as_ref().into(),
            config: register.config.to_owned(),
            metadata: register.metadata.map(str::to_owned),
            owner: self.worker.id.clone(),
        };
        if let Err(error) = self.workers.triggers().bind(binding) {
            refuse("trigger_registration_failed", &error.message);
        }
    }

    fn register_trigger_type(&self, register: &RegisterTriggerType<'_>) {
        let worker = self.worker;
        let details = Details {
            description: Some(register.description.as_ref().to_owned()),
            request_format: register.trigger_request_format.map(str::to_owned),
            response_format: register.call_request_format.map(str::to_owned),
            metadata: None,
        };
        let provider = Arc::new(RemoteTriggerType {
            worker: worker.clone(),
        });
        if !self
            .workers
            .triggers()
            .register_type(&register.id, &worker.id, details, provider)
        {
            tracing::warn!(worker = %worker.id, trigger_type = %register.id, "trigger type refused: it is the server's, or there are too many");
        }
    }

    /// Passes a provider's refusal on to whoever made the binding.
    fn take_trigger_result(&self, result: &TriggerResult<'_>) {
        let Some(error) = result.error else { return };
        let refused = self
            .workers
            .triggers()
            .refused_by(&result.id, &self.worker.id);
        if let Some(binding) = refused {
            let frame = protocol::trigger_refused(
                &binding.id,
                &binding.trigger_type,
                &binding.function_id,
                error,
            );
            self.workers.send_to(&binding.owner, frame);
        }
    }

    fn answer_undecodable(&self, undecodable: Undecodable<'_>) {
        let Undecodable { message, call } = undecodable;
        tracing::warn!(worker = %self.worker.id, message, "frame cannot be understood");
        let Some((invocation_id, function_id)) = call else {
            return;
        };
        let failure = Failure::new("deserialization_error", &describe(&function_id, &message));
        let frame = protocol::invocation_result(
            &invocation_id,
            &function_id,
            &Trace::default(),
            &Err(failure),
        );
        self.worker.outbox.push(frame.into());
    }
}

/// Asks the owner of functions that another worker wants for a sign of life, and gives them away if there is none.
async fn settle_claims(workers: Arc<Workers>, worker: Arc<Worker>, owner: OwnerId) {
    let is_alive = workers.is_alive(&owner).await;
    let registry = workers.registry();
    for (count, (id, Claim { function, details })) in
        worker.take_claims(&owner).into_iter().enumerate()
    {
        if count % RECEIVE_BATCH == RECEIVE_BATCH - 1 {
            tokio::task::yield_now().await;
        }
        let is_taken = !is_alive
            && registry
                .register(&id, &worker.id, function, details)
                .is_ok();
        if !is_taken {
            tracing::debug!(worker = %worker.id, function = %id, %owner, "registration refused: another worker has it");
            worker
                .outbox
                .push(protocol::registration_rejected(&id, &owner).into());
        }
    }
    // Whoever went away meanwhile must not own anything.
    if !workers.is_connected(&worker.id) {
        registry.remove_owner(&worker.id);
    }
}

fn describe(function_id: &str, message: &str) -> Cow<'static, str> {
    if function_id.is_empty() {
        message.to_owned().into()
    } else {
        format!("{function_id}: {message}").into()
    }
}

/// The way back to the worker that made a call.
struct WorkerAnswer {
    outbox: Arc<Outbox>,
    in_flight: Arc<AtomicUsize>,
    /// As it came, with its quotes.
    invocation_id: Box<str>,
    function_id: Box<str>,
    trace: Trace,
}

impl Answer for WorkerAnswer {
    fn answer(self: Box<Self>, result: CallResult) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        let frame = protocol::invocation_result(
            &self.invocation_id,
            &self.function_id,
            &self.trace,
            &result,
        );
        self.outbox.push(frame.into());
    }

    fn is_wanted(&self) -> bool {
        !self.outbox.is_closing()
    }
}
