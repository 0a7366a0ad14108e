//! Every metric of the server, declared once with its name and help. Knows nobody who counts and no HTTP.
//!
//! What happens is counted in [`Metrics`], which is handed around; what can be read where it is kept is read when somebody
//! asks, as [`Readings`]. `docs/operations.md` says what each metric means, and a test holds it against this file.

/// Declares a struct of metrics: each line is a field, its type, the name and the help that are shown.
macro_rules! metrics {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty = $metric:literal, $help:literal;)* }) => {
        $(#[$meta])*
        pub struct $name {
            $(#[doc = $help] pub $field: $type,)*
        }

        impl $name {
            /// Writes all of them, in the order of their declaration.
            pub fn write(&self, page: &mut Page) {
                $(page.metric($metric, $help, &self.$field);)*
            }
        }
    };
}

use std::sync::Arc;

mod calls;
mod label;
mod number;
mod page;
mod process;

pub use calls::{ByFunction, FunctionCalls, Outcomes};
pub use label::{By, ByCode, ChangeKind, Label, Port, RedisOutcome, SlowConsumerEnd};
pub use number::{Counter, Gauge, Histogram, MessageBuckets, TimeBuckets, TimestampLead};
pub use page::{Info, Metric, Page, Total};
pub use process::ProcessReadings;

metrics! {
    /// What is counted where it happens. Counting is relaxed and parted by threads, so it may stand on the hottest way.
    #[derive(Default)]
    Metrics {
        connections: By<Port, Gauge> = "iii_stream_connections", "TCP connections now";
        connections_total: By<Port, Counter> = "iii_stream_connections_total", "TCP connections that were let in";
        connections_refused: By<Port, Counter> = "iii_stream_connections_refused_total", "TCP connections closed at accept, because there were too many";
        accept_errors: By<Port, Counter> = "iii_stream_accept_errors_total", "times that the system gave no connection, for example because of too many open files";
        requests_refused: By<Port, ByCode> = "iii_stream_requests_refused_total", "requests that did not become a WebSocket, by HTTP status";
        closes: ByCode = "iii_stream_closes_total", "WebSocket closes that the server began, by close code";

        event_streams: Gauge = "iii_stream_event_streams", "server-sent event streams now";
        event_streams_total: Counter = "iii_stream_event_streams_total", "server-sent event streams that began";
        subscriber_messages: Counter = "iii_stream_subscriber_messages_total", "messages received from subscribers";
        client_calls: Counter = "iii_stream_client_calls_total", "calls received from subscribers";
        client_calls_refused: Counter = "iii_stream_client_calls_refused_total", "calls of subscribers answered too_many_calls: too many were open (calls_in_flight_max), or more than queue_bytes_max waited for the subscriber";
        client_calls_forbidden: Counter = "iii_stream_client_calls_forbidden_total", "calls of subscribers answered forbidden, for want of a grant or because the function is not for clients";
        rate_limited: Counter = "iii_stream_rate_limited_total", "subscribers closed because they sent too many messages in one second";
        subscriptions: Gauge = "iii_stream_subscriptions", "subscriptions now";
        joins: Counter = "iii_stream_joins_total", "subscriptions that began";
        leaves: Counter = "iii_stream_leaves_total", "subscriptions that ended";
        joins_refused: Counter = "iii_stream_joins_refused_total", "joins answered with unauthorized";
        resumes: Counter = "iii_stream_resumes_total", "joins with a since that was honoured";
        resets: Counter = "iii_stream_resets_total", "joins with a since that could not be honoured and got a snapshot";
        snapshot_pages: Counter = "iii_stream_snapshot_pages_total", "pages of snapshots sent; a sync in one piece is one page";

        changes: By<ChangeKind, Counter> = "iii_stream_changes_total", "changes that the store published, by kind";
        feed_dropped: Counter = "iii_stream_feed_dropped_changes_total", "changes dropped because too many of one group waited for delivery (feed_pending_max)";
        timestamp_lead: TimestampLead = "iii_stream_timestamp_lead_seconds", "how far the latest timestamp given to a change is ahead of the clock";
        delivered_messages: Counter = "iii_stream_delivered_messages_total", "event messages handed to subscribers";
        delivered_bytes: Counter = "iii_stream_delivered_bytes_total", "bytes of the event messages handed to subscribers";
        fanout_messages: Histogram<MessageBuckets> = "iii_stream_fanout_messages", "messages of one fan-out step: all pending changes of a group to all of its subscribers";
        slow_consumer_missed: Counter = "iii_stream_slow_consumer_missed_events_total", "events that subscribers missed because they read too slowly, each of them told so";
        slow_consumer_syncs: Counter = "iii_stream_slow_consumer_syncs_total", "fresh syncs or resumes sent in place of what a slow subscriber missed";
        slow_consumer_ends: By<SlowConsumerEnd, Counter> = "iii_stream_slow_consumer_closed_total", "subscribers closed with 4008, by reason";

        worker_messages: Counter = "iii_stream_worker_messages_total", "messages received from workers";
        calls: ByFunction<Outcomes> = "iii_stream_calls_total", "calls of the server's own functions that were answered; outcome is ok or the error code";
        call_seconds: ByFunction<Histogram<TimeBuckets>> = "iii_stream_call_seconds", "time from a call of one of the server's own functions to its answer";
        calls_refused: Counter = "iii_stream_calls_refused_total", "calls of workers answered too_many_calls (calls_in_flight_max)";
        invocations_total: Counter = "iii_stream_invocations_total", "calls handed to workers";
        invocation_timeouts: Counter = "iii_stream_invocation_timeouts_total", "calls that a worker did not answer in time (invocation_timeout_ms)";
        trigger_calls_lost: Counter = "iii_stream_trigger_calls_lost_total", "trigger calls lost because too many waited (trigger_queue_max)";
        stream_trigger_changes_lost: Counter = "iii_stream_trigger_changes_lost_total", "changes that stream triggers on Redis missed as the group's history did not reach back to them";

        redis_calls: By<RedisOutcome, Counter> = "iii_stream_redis_calls_total", "calls to Redis that ended, by outcome; a script or a pipeline is one call";
        redis_calls_in_flight: Gauge = "iii_stream_redis_calls_in_flight", "calls to Redis that wait for their answer, or to be sent";
        redis_call_seconds: Histogram<TimeBuckets> = "iii_stream_redis_call_seconds", "time from a call to Redis to its end, with all attempts";
        redis_reconnects: Counter = "iii_stream_redis_reconnects_total", "connections to Redis that were lost";
        redis_subscriptions: Gauge = "iii_stream_redis_subscriptions", "channels of Redis that are listened to now";
        redis_history_reads: Counter = "iii_stream_redis_history_reads_total", "reads of a watched group's history: one when it gets its first subscriber here, others to find out what was not heard";
        redis_history_gaps: Counter = "iii_stream_redis_history_gaps_total", "times that changes of a watched group were lost and not in its history any more; its subscribers begin anew";
        redis_history_restarts: Counter = "iii_stream_redis_history_restarts_total", "times that a watched group's history turned out to be another one, as after a failover; its subscribers begin anew";
        redis_messages: Counter = "iii_stream_redis_messages_total", "messages received from channels of Redis";
        redis_frames_unreadable: Counter = "iii_stream_redis_frames_unreadable_total", "with layout: compatible, messages of the channel stream::events that are no changes and were left out";
        redis_items_unreadable: Counter = "iii_stream_redis_items_unreadable_total", "with layout: compatible, items left out of lists and syncs because their text in Redis is no JSON value";

        cluster_instances: Gauge = "iii_stream_cluster_instances", "instances that share one Redis and are alive, with this one; 0 without Redis";
        cluster_calls: Arc<Outcomes> = "iii_stream_cluster_calls_total", "calls of functions of other instances that ended; outcome is ok or the error code";
        cluster_calls_in_flight: Gauge = "iii_stream_cluster_calls_in_flight", "calls of functions of other instances that are not answered yet";
        cluster_call_seconds: Arc<Histogram<TimeBuckets>> = "iii_stream_cluster_call_seconds", "time from a call of a function of another instance to its answer";
        cluster_calls_received: Counter = "iii_stream_cluster_calls_received_total", "calls that other instances asked this one for";
    }
}

metrics! {
    /// What is read where it is kept, when somebody asks.
    #[derive(Debug, Default)]
    Readings {
        info: Info = "iii_stream_info", "always 1; its labels say which version runs and what keeps the groups";
        uptime_seconds: f64 = "iii_stream_uptime_seconds", "time since the server began to listen";
        draining: u64 = "iii_stream_draining", "1 from the moment a stop begins, else 0";
        connections_max: By<Port, u64> = "iii_stream_connections_max", "bound of iii_stream_connections";
        workers: u64 = "iii_stream_workers", "connected workers now";
        subscribers: u64 = "iii_stream_subscribers", "connected WebSocket subscribers now";
        subscribed_groups: u64 = "iii_stream_subscribed_groups", "groups that have subscribers now";
        subscriber_queue_bytes: u64 = "iii_stream_subscriber_queue_bytes", "bytes waiting to be sent to subscribers now, all together";
        subscriber_queue_bytes_max: u64 = "iii_stream_subscriber_queue_bytes_max", "bound of iii_stream_subscriber_queue_bytes: subscribers now × queue_bytes_max";
        invocations: u64 = "iii_stream_invocations", "calls that workers execute now and somebody waits for";
        trigger_calls_waiting: u64 = "iii_stream_trigger_calls_waiting", "trigger calls that wait, or whose handler has not answered";
        store_groups: u64 = "iii_stream_store_groups", "groups in the store, with those that are empty but not forgotten yet";
        history_bytes: u64 = "iii_stream_history_bytes", "bytes of changes kept for resuming, all groups together";
        history_bytes_max: u64 = "iii_stream_history_bytes_max", "bound of iii_stream_history_bytes";
        store_writable: u64 = "iii_stream_store_writable", "1 while changes can be stored; 0 while the disk is full, or after it failed";
        store_cache_bytes: Option<u64> = "iii_stream_store_cache_bytes", "bytes of groups in memory";
        store_cache_bytes_max: Option<u64> = "iii_stream_store_cache_bytes_max", "bound of iii_stream_store_cache_bytes";
        store_queue_bytes: Option<u64> = "iii_stream_store_queue_bytes", "bytes of changes that wait for the disk, or of calls that wait for Redis, now";
        store_queue_bytes_max: Option<u64> = "iii_stream_store_queue_bytes_max", "bound of iii_stream_store_queue_bytes";
        store_log_bytes: Option<u64> = "iii_stream_store_log_bytes", "bytes of the commit log that are not folded into the streams' files";
        store_log_bytes_max: Option<u64> = "iii_stream_store_log_bytes_max", "bound of iii_stream_store_log_bytes";
        store_batches: Option<Total> = "iii_stream_store_batches_total", "batches written to the commit log, each with one sync unless durability is os";
        store_records: Option<Total> = "iii_stream_store_records_total", "changes written to the commit log";
        store_log_written: Option<Total> = "iii_stream_store_log_written_bytes_total", "bytes given to the system for the commit log";
        store_fold_written: Option<Total> = "iii_stream_store_fold_written_bytes_total", "bytes given to the system for the streams' files";
        store_folds: Option<Total> = "iii_stream_store_folds_total", "times that the commit log was folded into the streams' files";
        store_loads: Option<Total> = "iii_stream_store_loads_total", "groups loaded from the disk";
        store_evictions: Option<Total> = "iii_stream_store_evictions_total", "groups that left memory because the cache was full";
        redis_up: Option<u64> = "iii_stream_redis_up", "1 while all servers of Redis that are needed are connected, else 0";
        store_sync_seconds: Option<Arc<Histogram<TimeBuckets>>> = "iii_stream_store_sync_seconds", "time to write one batch to the commit log and to make it safe";
    }
}

impl Metrics {
    /// The counts of calls of functions of other instances.
    pub fn forwarded(&self) -> Arc<FunctionCalls> {
        Arc::new(FunctionCalls {
            outcomes: self.cluster_calls.clone(),
            seconds: self.cluster_call_seconds.clone(),
        })
    }

    /// The counts of one of the server's own functions.
    pub fn function(&self, id: &str) -> Arc<FunctionCalls> {
        Arc::new(FunctionCalls {
            outcomes: self.calls.of(id),
            seconds: self.call_seconds.of(id),
        })
    }
}

/// The page that monitoring reads.
pub fn page(metrics: &Metrics, readings: &Readings, process: &ProcessReadings) -> String {
    let mut page = Page::default();
    readings.write(&mut page);
    metrics.write(&mut page);
    process.write(&mut page);
    page.into_text()
}
