//! What is done for subscriptions that changes have passed by, or whose group's history has begun anew: they begin anew too, with
//! what they missed or with a fresh snapshot.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::{GroupKey, Position};

use super::{Beginning, Live, Stage, Step, Subscriptions, Waiting};
use crate::hub::{Behind, Subscribing};
use crate::subscriber::opening::{OpenError, Wish};

/// Pause before a store is read again that could not be read; up to twice as much, so that not all come back together.
const READ_PAUSE: Duration = Duration::from_millis(250);

/// Resolves after a pause.
pub(super) async fn pause() {
    let chance = RandomState::new().hash_one(()) as u32;
    tokio::time::sleep(READ_PAUSE + READ_PAUSE.mul_f64(f64::from(chance) / f64::from(u32::MAX)))
        .await;
}

impl Subscriptions {
    /// Lets subscriptions begin anew that changes have passed by: with what they missed, or with a fresh snapshot.
    pub(super) fn make_good(&mut self) {
        let lags: Vec<(GroupKey, Vec<Behind>)> = self
            .groups
            .iter()
            .filter_map(|(group, part)| {
                let behind = part.seat.take_lag();
                (!behind.is_empty()).then(|| (group.clone(), behind))
            })
            .collect();
        for (group, behind) in lags {
            self.subscribers.metrics.slow_consumer_syncs.inc();
            for Behind {
                subscription_id: id,
                since,
            } in behind
            {
                if self.beginning.contains_key(&id) || !self.live.contains_key(&id) {
                    // It begins anew anyway, because the client has said so.
                    if let Some(part) = self.groups.get(&group) {
                        part.seat.release();
                    }
                } else {
                    self.begin_anew(&id, since);
                }
            }
        }
    }

    /// Lets a subscription begin anew that was to be replaced when changes passed it by, and was not.
    pub(super) fn begin_anew_if_behind(&mut self, subscription_id: &Arc<str>) {
        let part = self
            .live
            .get(subscription_id)
            .and_then(|live| self.groups.get(&live.join.group));
        let Some(part) = part else { return };
        if let Some(behind) = part.seat.behind(subscription_id) {
            part.seat.hold();
            self.begin_anew(subscription_id, behind.since);
        }
    }

    /// Lets a live subscription begin anew: after `since` where it can, else with a snapshot. Changes are held back for it
    /// already.
    pub(super) fn begin_anew(&mut self, subscription_id: &Arc<str>, since: Option<Position>) {
        let Some(Live { join, paging }) = self.live.get(subscription_id).map(Box::as_ref) else {
            return;
        };
        // Half a snapshot is nothing to go on from.
        let can_resume = self.dialect.is_version_2 && paging.is_none();
        let since = since.filter(|_| can_resume);
        let beginning = Beginning {
            join: join.clone(),
            wish: Wish {
                since,
                is_reset: true,
                is_remedy: true,
            },
            stage: Stage::Queued,
            is_held: true,
            waiting: Waiting::default(),
        };
        self.beginning.insert(subscription_id.clone(), beginning);
        self.begin_or_queue(subscription_id);
    }

    /// Reads once more, after a pause, what a subscription begins anew with: its client has done nothing that could fail, and what
    /// it shows stays true until then.
    pub(super) fn open_later(
        &mut self,
        join: Subscribing,
        wish: Wish,
        waiting: Waiting,
        error: &OpenError,
    ) {
        tracing::debug!(stream = %join.group.stream, group = %join.group.group, %error, "a subscription cannot begin anew yet");
        let id = join.subscription_id.clone();
        self.keep_reading(join, wish, waiting);
        self.steps.push(Box::pin(async move {
            pause().await;
            (id, Step::Again)
        }));
    }

    /// Reads once more what could not be read before.
    pub(super) fn take_again(&mut self, subscription_id: &Arc<str>) {
        if let Some(Beginning { join, wish, .. }) = self.beginning.get(subscription_id) {
            self.open(join.clone(), wish.clone());
        }
    }
}
