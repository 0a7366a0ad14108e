//! Calls of functions that workers of other instances have: asks the instance, keeps the promise of an answer, and carries out
//! what others ask for. Knows no Redis, only a [`Wire`].
//!
//! A wire may lose messages. So whoever has asked asks again, after a while, which of its calls are not being executed; what was
//! asked is never sent twice.

mod answering;
mod asking;
mod carrying;
mod executing;
mod letter;
mod open;
mod post;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use executing::Executing;
use letter::{ASK, FORGET};
use open::OpenCalls;
use post::{Outgoing, Post};

use super::places::Places;
use super::roster::InstanceId;
use crate::engine::{Failure, Registry};
use crate::metrics::{FunctionCalls, Metrics};

/// How long a call may be on its way. An instance that gets it later does not begin it.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is looked at which calls have been lost or abandoned, or take too long.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// After this time without an answer an instance is asked whether it executes a call.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// Most calls that are asked about in one letter.
const ASK_CALLS_MAX: usize = 1_000;

/// All calls that are not answered have at most so many times the bytes that a single one may have, and so have all answers that
/// wait to be sent.
const HELD_CALLS: usize = 8;

/// The bounds of calls between instances.
#[derive(Clone, Copy, Debug)]
pub struct CallBounds {
    /// Calls that this instance has asked for, and calls that it executes for others, each; one more is answered
    /// `too_many_calls`. Config: `forwarded_calls_max`.
    pub calls_max: usize,
    /// Bytes of one call and of one answer; more is answered `payload_too_large`. Config: `forwarded_bytes_max`.
    pub bytes_max: usize,
    /// How long a worker may take; the caller is answered `invocation_timeout` not long after.
    pub time_max: Duration,
}

/// What came of sending a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The instance listens.
    Heard,
    /// The instance surely did not get it: it does not listen.
    Unheard,
    /// The instance surely did not get it: there is no way to it now.
    Unavailable,
    /// The instance may have got it.
    Unknown,
}

/// The way to other instances. Messages to one instance arrive in the order in which they were sent, or not at all.
pub(super) trait Wire: Send + Sync {
    /// Sends a message. Takes no longer than the caller of a function may be kept waiting.
    fn send<'a>(&'a self, to: &'a str, message: String) -> BoxFuture<'a, Delivery>;

    /// A clock that this instance and `instance` have in common, in milliseconds.
    fn now_ms(&self, instance: &str) -> u64;
}

/// All calls between this instance and others.
pub(super) struct Calls {
    own: InstanceId,
    bounds: CallBounds,
    this: Weak<Calls>,
    /// Owns this, in the end.
    registry: Weak<Registry>,
    places: Arc<Places>,
    wire: Arc<dyn Wire>,
    runtime: tokio::runtime::Handle,
    open: Mutex<OpenCalls>,
    executing: Mutex<Executing>,
    post: Mutex<Post>,
    metrics: Arc<Metrics>,
    measured: Arc<FunctionCalls>,
}

impl Calls {
    /// No calls yet. Must be called on a runtime.
    pub(super) fn new(
        own: InstanceId,
        bounds: CallBounds,
        registry: &Arc<Registry>,
        places: Arc<Places>,
        wire: Arc<dyn Wire>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let held_bytes_max = HELD_CALLS * bounds.bytes_max;
        Arc::new_cyclic(|this| Self {
            own,
            bounds,
            this: this.clone(),
            registry: Arc::downgrade(registry),
            places,
            wire,
            runtime: tokio::runtime::Handle::current(),
            open: Mutex::new(OpenCalls::new(bounds.calls_max, held_bytes_max)),
            executing: Mutex::new(Executing::new(bounds.calls_max)),
            post: Mutex::default(),
            measured: metrics.forwarded(),
            metrics,
        })
    }

    /// Ends all calls of functions of an instance that is gone, and forgets what it has asked for.
    pub(super) fn gone(&self, instance: &str) {
        self.post.lock().clear(instance);
        self.executing.lock().end_all(instance);
        let (unsent, sent) = self.open.lock().of_instance(instance);
        for number in unsent {
            if !self.reroute(number, instance) {
                self.end(number, instance, &stopped());
            }
        }
        for number in sent {
            self.end(number, instance, &stopped());
        }
    }

    /// Finds calls that were lost, abandoned, or take too long. To be called each [`LOOK_INTERVAL`].
    pub(super) fn look(&self) {
        let age_max = self.bounds.time_max + 2 * START_TIME_MAX;
        let (unwanted, overdue) = self.open.lock().sweep(age_max);
        for call in overdue {
            let seconds = age_max.as_secs_f64();
            let message = format!("another instance has not answered within {seconds} s");
            call.reply.fail("invocation_timeout", message);
        }
        for (number, call) in unwanted {
            self.post_text(&call.at, letter::write_many(FORGET, &[number]));
            // Nobody hears it, but it is counted.
            call.reply.fail("abandoned", "nobody waits for the answer");
        }
        let asked = self.open.lock().sent_before(ASK_AFTER);
        for (instance, numbers) in asked {
            // Who cannot be reached is asked when it can.
            if self.post.lock().is_busy(&instance) {
                continue;
            }
            for numbers in numbers.chunks(ASK_CALLS_MAX) {
                self.post_text(&instance, letter::write_many(ASK, numbers));
            }
        }
        self.note_in_flight();
    }

    /// Waits until everything is sent, but not longer than this.
    pub(super) async fn flush(&self, time_max: Duration) {
        const LOOK: Duration = Duration::from_millis(5);
        let until = Instant::now() + time_max;
        while !self.post.lock().is_empty() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn post_text(&self, to: &InstanceId, text: String) {
        self.post_letter(to, Outgoing::written(text));
    }

    fn post_letter(&self, to: &InstanceId, letter: Outgoing) {
        let has_to_begin = self.post.lock().push(to, letter);
        if has_to_begin && let Some(this) = self.this.upgrade() {
            self.runtime.spawn(this.carry(to.clone()));
        }
    }

    fn note_in_flight(&self) {
        let open = self.open.lock();
        self.metrics.cluster_calls_in_flight.set(open.len());
    }
}

/// The instance that was asked is no more.
fn stopped() -> Failure {
    Failure::new(
        "invocation_stopped",
        "the instance whose worker ran this call ended before it answered",
    )
}
