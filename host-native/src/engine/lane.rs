//! The way of one binding from what happened to its function: a queue, a condition, a window of open calls.
//!
//! Each binding has a lane of its own, so that a stuck handler or condition delays nobody else. Within a lane calls leave
//! in the order of what happened: conditions run ahead, but release in order; answers are not awaited beyond a window.
//! Source: product design, section 6.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

use super::call::{Call, Output, ReplyTo};
use super::gate::{Passage, Ticket};
use super::registry::Registry;
use super::trigger::Binding;
use crate::metrics::Metrics;

/// What all lanes share.
#[derive(Clone)]
pub struct LaneContext {
    /// Where functions are found.
    pub registry: Arc<Registry>,
    /// Where the lanes run.
    pub runtime: tokio::runtime::Handle,
    /// How long a handler or a condition may take before it no longer counts.
    pub time_max: Duration,
    /// Handlers of one binding that have not answered yet, and conditions that run ahead; further calls wait.
    pub open_max: usize,
    /// What waits in one binding's lane; more is lost, counted and logged.
    pub queue_max: usize,
    /// How much waits in all lanes together.
    pub waiting: Waiting,
    /// Where lost calls are counted.
    pub metrics: Arc<Metrics>,
}

/// Counts what waits in lanes or for a handler's answer, so that a stop can wait until everything is done.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// How much waits now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    fn enter(&self) -> Place {
        self.0.fetch_add(1, Ordering::AcqRel);
        Place(self.0.clone())
    }
}

/// One place among what waits, given up when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The input of one call on its way.
struct Input {
    text: Arc<str>,
    ticket: Option<Arc<dyn Ticket>>,
    /// Its handler answered.
    is_answered: bool,
    _place: Place,
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            ticket.leaves_lane(self.is_answered);
        }
    }
}

impl Input {
    /// Waits until the call may leave. Whether it may.
    async fn pass(self) -> (Self, bool) {
        let passage = match &self.ticket {
            Some(ticket) => ticket.gate().settled().await,
            None => Passage::Open,
        };
        (self, passage == Passage::Open)
    }

    fn passage(&self) -> Passage {
        match &self.ticket {
            Some(ticket) => ticket.gate().passage(),
            None => Passage::Open,
        }
    }
}

/// The entrance of one binding's lane. Dropping it ends the lane at once.
pub(crate) struct Lane {
    pub(crate) binding: Arc<Binding>,
    inputs: mpsc::Sender<Input>,
    waiting: Waiting,
    metrics: Arc<Metrics>,
    lost: Mutex<u64>,
}

impl Lane {
    /// Opens a lane. `condition` is the function that is asked before each call.
    pub(crate) fn open(
        context: &LaneContext,
        binding: &Arc<Binding>,
        condition: Option<Arc<str>>,
    ) -> Self {
        let (inputs, queue) = mpsc::channel(context.queue_max);
        let task = LaneTask {
            context: context.clone(),
            binding: binding.clone(),
            condition,
        };
        context.runtime.spawn(task.run(queue));
        Self {
            binding: binding.clone(),
            inputs,
            waiting: context.waiting.clone(),
            metrics: context.metrics.clone(),
            lost: Mutex::default(),
        }
    }

    /// Takes the input of the next call.
    pub(super) fn push(&self, input: Arc<str>) {
        self.push_with(input, None);
    }

    /// The same, with what is to be known when the call leaves and when it is done with.
    pub(crate) fn push_with(&self, input: Arc<str>, ticket: Option<Arc<dyn Ticket>>) {
        let input = Input {
            text: input,
            ticket,
            is_answered: false,
            _place: self.waiting.enter(),
        };
        if self.inputs.try_send(input).is_err() {
            self.metrics.trigger_calls_lost.inc();
            let mut lost = self.lost.lock();
            *lost += 1;
            // Told at 1, 2, 4, 8 … losses, so that the log does not drown.
            if lost.is_power_of_two() {
                tracing::error!(
                    trigger = %self.binding.id,
                    function = %self.binding.function_id,
                    lost = *lost,
                    "a trigger lost calls: too many were waiting for its handler (trigger_queue_max)"
                );
            }
        }
    }
}

impl Lane {
    /// Whether one more input would find room.
    pub(crate) fn has_room(&self) -> bool {
        0 < self.room_left()
    }

    /// How many more inputs would find room.
    pub(crate) fn room_left(&self) -> usize {
        match self.inputs.is_closed() {
            true => usize::MAX,
            false => self.inputs.capacity(),
        }
    }

    /// Resolves once there is room, or the lane has ended.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let inputs = self.inputs.clone();
        async move {
            // The place is given back at once: only one task fills the lane.
            drop(inputs.reserve_owned().await);
        }
    }
}

struct LaneTask {
    context: LaneContext,
    binding: Arc<Binding>,
    condition: Option<Arc<str>>,
}

impl LaneTask {
    /// Runs until the lane is dropped; what still waits then is dropped too, but for the answers that have come.
    async fn run(self, mut queue: mpsc::Receiver<Input>) {
        let mut judged = FuturesOrdered::new();
        let mut open = FuturesUnordered::new();
        // The call at whose gate all others wait.
        let mut held = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = open.next(), if !open.is_empty() => {}
                Some((input, may_leave)) = held.next(), if !held.is_empty() => {
                    if may_leave && !queue.is_closed() {
                        open.push(self.call_handler(input));
                    }
                }
                Some(judgement) = judged.next(), if held.is_empty() && open.len() < self.context.open_max && !judged.is_empty() => {
                    let (input, passes): (Input, bool) = judgement;
                    if passes && !queue.is_closed() {
                        match input.passage() {
                            Passage::Open => open.push(self.call_handler(input)),
                            Passage::Shut => held.push(input.pass()),
                            Passage::Closed => drop(input),
                        }
                    }
                }
                input = queue.recv(), if judged.len() < self.context.open_max => {
                    if let Some(input) = input {
                        judged.push_back(self.judge(input));
                    }
                }
            }
            if queue.is_closed() {
                // A worker that goes away right after its answers has given them.
                while let Some(Some(())) = unconstrained(open.next()).now_or_never() {}
                return;
            }
        }
    }

    async fn judge(&self, input: Input) -> (Input, bool) {
        let passes = match &self.condition {
            Some(condition) => passes(&self.context, &self.binding, condition, &input.text).await,
            None => true,
        };
        (input, passes)
    }

    /// Sends the call now and gives what waits for its answer. Until then it counts as waiting.
    fn call_handler(&self, input: Input) -> impl Future<Output = ()> + use<> {
        let answer = call_handler(&self.context, &self.binding, &input.text);
        async move {
            // All of it is held until the answer, not only the field that is written.
            let mut input = input;
            // Handlers' results have no meaning here; faults are logged where they are seen.
            input.is_answered = match answer.await {
                Ok(_) => true,
                Err(fault) => fault == HandlerFault::Answered,
            };
        }
    }
}

/// Asks a condition. Only a clean answer other than `false` lets a call through.
/// Source: stream functions, section 9.1.
pub(super) async fn passes(
    context: &LaneContext,
    binding: &Binding,
    condition: &str,
    input: &str,
) -> bool {
    let (reply, waiter) = ReplyTo::waiter();
    context
        .registry
        .invoke(&Call::from_server(condition, input), "default", reply);
    match tokio::time::timeout(context.time_max, waiter.answer()).await {
        Ok(Ok(Output::Json(json))) => json != "false",
        Ok(Ok(Output::Nothing)) => true,
        Ok(Err(failure)) => {
            tracing::warn!(trigger = %binding.id, condition, error = failure.body(), "condition failed, its handler is skipped");
            false
        }
        Err(_) => {
            tracing::warn!(trigger = %binding.id, condition, "condition took too long, its handler is skipped");
            false
        }
    }
}

/// Why a handler gave no result. Logged where it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandlerFault {
    /// It answered with an error.
    Answered,
    /// It took too long, or could not be asked, or its worker went away.
    Silent,
}

/// Calls a binding's handler now; the future waits for its answer.
pub(super) fn call_handler(
    context: &LaneContext,
    binding: &Arc<Binding>,
    input: &str,
) -> impl Future<Output = Result<Output, HandlerFault>> + use<> {
    let (reply, waiter) = ReplyTo::waiter();
    let call = Call {
        metadata: binding.metadata.as_deref(),
        ..Call::from_server(&binding.function_id, input)
    };
    context.registry.invoke(&call, "default", reply);
    let (binding, time_max) = (binding.clone(), context.time_max);
    async move {
        match tokio::time::timeout(time_max, waiter.answer()).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(failure)) => {
                tracing::warn!(trigger = %binding.id, function = %binding.function_id, error = failure.body(), "trigger handler failed");
                Err(match failure.is_of_server() {
                    true => HandlerFault::Silent,
                    false => HandlerFault::Answered,
                })
            }
            Err(_) => {
                tracing::warn!(trigger = %binding.id, function = %binding.function_id, "trigger handler took too long");
                Err(HandlerFault::Silent)
            }
        }
    }
}
