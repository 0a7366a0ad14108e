//! How a server stops: in which order, how fast, and how long it waits for whom.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Waiting;
use crate::socket::CloseCode;
use crate::subscriber::Subscribers;
use crate::worker::Workers;

/// Longest time between the closes of two subscribers, so that few of them are closed at once.
const CLOSE_INTERVAL_MAX: Duration = Duration::from_millis(1);

/// How long peers that were closed have to complete the close handshake. A little longer than a connection waits for it, so
/// that those who never do have ended too and their leaves are told.
const HANDSHAKES_TIME_MAX: Duration = Duration::from_millis(1_500);

/// How long workers have to answer what they were asked.
pub(super) const ANSWERS_TIME_MAX: Duration = Duration::from_secs(6);

/// How often it is looked at whether a step of a stop is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Who has to be told.
pub(super) struct Peers<'a> {
    pub(super) subscribers: &'a Subscribers,
    pub(super) workers: &'a Workers,
    pub(super) waiting: &'a Waiting,
}

/// Closes all connections. Subscribers first: the ends of their subscriptions are told to workers, which must still be
/// there then, as must be those that execute calls.
pub(super) async fn drain(peers: Peers<'_>, window: Duration) {
    let Peers {
        subscribers,
        workers,
        waiting,
    } = peers;
    close_evenly(subscribers, window).await;
    until(
        HANDSHAKES_TIME_MAX,
        "subscribers complete their close handshakes",
        || {
            // Again and again: somebody may have come in while the doors were closing.
            subscribers.close_all();
            subscribers.is_empty()
        },
    )
    .await;
    until(
        ANSWERS_TIME_MAX,
        "workers answer what they were asked",
        || waiting.count() == 0 && workers.executing_len() == 0,
    )
    .await;
    until(
        HANDSHAKES_TIME_MAX,
        "workers complete their close handshakes",
        || {
            workers.close_all();
            workers.is_empty()
        },
    )
    .await;
}

/// Closes subscribers one after another, evenly over the window: they all come back somewhere, and not at once.
async fn close_evenly(subscribers: &Subscribers, window: Duration) {
    let outboxes = subscribers.outboxes();
    let count = u32::try_from(outboxes.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return;
    }
    let time = window.min(CLOSE_INTERVAL_MAX * count);
    tracing::info!(
        subscribers = count,
        over_ms = time.as_millis(),
        "closing subscribers"
    );
    let begun = Instant::now();
    for (index, outbox) in (0..count).zip(outboxes) {
        tokio::time::sleep_until(begun + time * index / count).await;
        outbox.close(CloseCode::GoingAway);
    }
}

/// Waits until something is done, but not for ever.
async fn until(time_max: Duration, what: &str, is_done: impl Fn() -> bool) {
    let done = async {
        while !is_done() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    if tokio::time::timeout(time_max, done).await.is_err() {
        tracing::warn!("stopping without waiting longer until {what}");
    }
}
