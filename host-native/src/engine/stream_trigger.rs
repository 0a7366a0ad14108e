//! The trigger type `stream`: calls functions when items change. Follows the feed; knows no sockets and no stores.
//!
//! Each binding has a lane of its own, so that a stuck handler or condition delays nobody else. Within a lane calls
//! leave in the order of the changes: conditions run ahead, but release in order; answers are not awaited beyond a
//! window. Source: stream functions, section 9.1; product design, section 6.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use iii_stream_core::event::{trigger_input, wants};
use iii_stream_core::fields::{FieldError, Fields};
use iii_stream_core::{Change, GroupKey, GroupRef, Kind};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::call::{Call, Output, ReplyTo};
use super::registry::Registry;
use super::trigger::{BindError, Binding, TriggerType};
use crate::feed::Follower;

/// Handlers of one binding that have not answered yet; further calls wait.
const OPEN_MAX: usize = 64;

/// Conditions of one binding that run ahead.
const CONDITIONS_MAX: usize = 64;

/// Changes that wait in one binding's lane; further ones are lost, counted and logged.
const QUEUE_MAX: usize = 10_000;

/// See the module.
pub struct StreamTriggers {
    registry: Arc<Registry>,
    runtime: tokio::runtime::Handle,
    /// How long a handler or a condition may take before it no longer counts.
    time_max: Duration,
    lanes: RwLock<HashMap<Arc<str>, Vec<Lane>>>,
}

/// One binding, with the way to its task. Dropping it ends the task.
struct Lane {
    binding: Arc<Binding>,
    filter: Filter,
    events: mpsc::Sender<Arc<str>>,
    lost: Mutex<Lost>,
}

#[derive(Default)]
struct Lost {
    count: u64,
}

/// Which changes a binding is about.
struct Filter {
    stream: Arc<str>,
    group: Option<String>,
    item: Option<String>,
    condition: Option<Arc<str>>,
    /// Whether `stream::send` counts too.
    include_events: bool,
}

impl Filter {
    /// Reads a binding's config. Shape: `{"stream_name", "group_id"?, "item_id"?, "condition_function_id"?,
    /// "include_events"?}`; an empty group or item is any.
    fn read(config: &str) -> Result<Self, FieldError> {
        let fields = Fields::read(
            config,
            &[
                "stream_name",
                "group_id",
                "item_id",
                "condition_function_id",
                "include_events",
            ],
        )?;
        let stream = fields.optional_string(0)?.ok_or(FieldError::Missing {
            field: "stream_name",
        })?;
        let any_if_empty = |text: Option<std::borrow::Cow<'_, str>>| {
            text.filter(|text| !text.is_empty())
                .map(std::borrow::Cow::into_owned)
        };
        Ok(Self {
            stream: stream.as_ref().into(),
            group: any_if_empty(fields.optional_string(1)?),
            item: any_if_empty(fields.optional_string(2)?),
            condition: fields.optional_string(3)?.map(|id| id.as_ref().into()),
            include_events: fields.optional_bool(4)?.unwrap_or(false),
        })
    }

    fn matches(&self, group: &GroupKey, change: &Change) -> bool {
        let is_event = matches!(change.kind, Kind::Event { .. });
        (self.include_events || !is_event)
            && self.group.as_deref().is_none_or(|id| *id == *group.group)
            && (self.item.is_none() || wants(self.item.as_deref(), change))
    }
}

impl StreamTriggers {
    /// No bindings yet. Handlers and conditions have `time_max` to answer.
    pub fn new(
        registry: Arc<Registry>,
        runtime: tokio::runtime::Handle,
        time_max: Duration,
    ) -> Self {
        Self {
            registry,
            runtime,
            time_max,
            lanes: RwLock::default(),
        }
    }
}

impl TriggerType for StreamTriggers {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let filter = Filter::read(&binding.config).map_err(|error| BindError {
            message: format!("config of a stream trigger: {error}"),
        })?;
        let (events, queue) = mpsc::channel(QUEUE_MAX);
        let task = LaneTask {
            registry: self.registry.clone(),
            binding: binding.clone(),
            condition: filter.condition.clone(),
            time_max: self.time_max,
        };
        self.runtime.spawn(task.run(queue));
        let stream = filter.stream.clone();
        let lane = Lane {
            binding: binding.clone(),
            filter,
            events,
            lost: Mutex::default(),
        };
        self.lanes.write().entry(stream).or_default().push(lane);
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.lanes.write().retain(|_, lanes| {
            lanes.retain(|lane| !Arc::ptr_eq(&lane.binding, binding));
            !lanes.is_empty()
        });
    }
}

impl Follower for StreamTriggers {
    fn follows(&self, group: GroupRef<'_>) -> bool {
        self.lanes.read().contains_key(group.stream)
    }

    fn deliver(&self, group: &GroupKey, changes: &[Arc<Change>]) {
        let lanes = self.lanes.read();
        let Some(lanes) = lanes.get(&group.stream) else {
            return;
        };
        for change in changes {
            // The input is written once for all bindings that match.
            let mut input: Option<Arc<str>> = None;
            for lane in lanes
                .iter()
                .filter(|lane| lane.filter.matches(group, change))
            {
                let input = input
                    .get_or_insert_with(|| trigger_input(group.as_ref(), change).into())
                    .clone();
                lane.push(input);
            }
        }
    }

    fn missed(&self, group: &GroupKey) {
        tracing::error!(stream = %group.stream, group = %group.group, "stream triggers missed changes: the group's feed was full");
    }
}

impl Lane {
    fn push(&self, input: Arc<str>) {
        if self.events.try_send(input).is_err() {
            let mut lost = self.lost.lock();
            lost.count += 1;
            // Told at 1, 2, 4, 8 … losses, so that the log does not drown.
            if lost.count.is_power_of_two() {
                tracing::error!(
                    trigger = %self.binding.id,
                    function = %self.binding.function_id,
                    lost = lost.count,
                    "a stream trigger lost changes: {QUEUE_MAX} were waiting for its handler"
                );
            }
        }
    }
}

struct LaneTask {
    registry: Arc<Registry>,
    binding: Arc<Binding>,
    condition: Option<Arc<str>>,
    time_max: Duration,
}

impl LaneTask {
    /// Runs until the lane is dropped; what still waits then is dropped too.
    async fn run(self, mut queue: mpsc::Receiver<Arc<str>>) {
        let mut judged = FuturesOrdered::new();
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = open.next(), if !open.is_empty() => {}
                Some(judgement) = judged.next(), if open.len() < OPEN_MAX && !judged.is_empty() => {
                    let (input, passes): (Arc<str>, bool) = judgement;
                    if passes && !queue.is_closed() {
                        open.push(self.call_handler(&input));
                    }
                }
                input = queue.recv(), if judged.len() < CONDITIONS_MAX => {
                    let Some(input) = input else { return };
                    judged.push_back(self.judge(input));
                }
            }
        }
    }

    /// Asks the condition. Only a clean answer other than `false` lets the call through.
    async fn judge(&self, input: Arc<str>) -> (Arc<str>, bool) {
        let Some(condition) = &self.condition else {
            return (input, true);
        };
        let (reply, waiter) = ReplyTo::waiter();
        self.registry
            .invoke(&Call::from_server(condition, &input), "default", reply);
        let passes = match tokio::time::timeout(self.time_max, waiter.answer()).await {
            Ok(Ok(Output::Json(json))) => json != "false",
            Ok(Ok(Output::Nothing)) => true,
            Ok(Err(failure)) => {
                tracing::warn!(trigger = %self.binding.id, condition = %condition, error = failure.body(), "condition failed, its handler is skipped");
                false
            }
            Err(_) => {
                tracing::warn!(trigger = %self.binding.id, condition = %condition, "condition took too long, its handler is skipped");
                false
            }
        };
        (input, passes)
    }

    /// Sends the call now and gives what waits for its answer.
    fn call_handler(&self, input: &str) -> impl Future<Output = ()> + use<> {
        let (reply, waiter) = ReplyTo::waiter();
        let call = Call {
            metadata: self.binding.metadata.as_deref(),
            ..Call::from_server(&self.binding.function_id, input)
        };
        self.registry.invoke(&call, "default", reply);
        let binding = self.binding.clone();
        let time_max = self.time_max;
        async move {
            match tokio::time::timeout(time_max, waiter.answer()).await {
                Ok(Ok(_)) => {}
                Ok(Err(failure)) => {
                    tracing::warn!(trigger = %binding.id, function = %binding.function_id, error = failure.body(), "trigger handler failed");
                }
                Err(_) => {
                    tracing::warn!(trigger = %binding.id, function = %binding.function_id, "trigger handler took too long");
                }
            }
        }
    }
}
