//! The pages of a large snapshot: one at a time, when there is room, in order with the changes that go on meanwhile.

use std::sync::Arc;

use futures_util::future::FutureExt;

use super::{Live, Part, Step, Subscriptions};
use crate::hub::{Framing, ToldUpTo};
use crate::socket::CloseCode;
use crate::store::{PageWish, SnapshotPage};
use crate::subscriber::opening::{self, OpenError};

/// A snapshot that is not told to its end.
pub(super) struct Paging {
    /// The history that the pages are of.
    pub(super) epoch: Arc<str>,
    /// When the last item that was told of was created.
    pub(super) after: u64,
    /// What the first page told of.
    pub(super) first_seq: u64,
    pub(super) is_reading: bool,
}

impl Subscriptions {
    /// Reads the next page of a subscription's snapshot.
    pub(super) fn read_page(&mut self, subscription_id: &Arc<str>) {
        let Some(Live {
            join,
            paging: Some(paging),
        }) = self.live.get_mut(subscription_id).map(Box::as_mut)
        else {
            return;
        };
        if std::mem::replace(&mut paging.is_reading, true) {
            return;
        }
        let mut wish = PageWish {
            after: paging.after,
            clients: join.clients.clone(),
            ..PageWish::default()
        };
        let (join, after) = (join.clone(), paging.after);
        if let Some(part) = self.groups.get(&join.group) {
            // Operations on an item must not come before the page that holds it.
            part.seat.hold();
            // The page may know of mutations whose changes come after it: they are not in what the client has then.
            wish.mutations_up_to = match self.dialect.framing {
                Framing::WebSocket => None,
                Framing::EventStream => Some(part.seat.position(subscription_id)),
            };
        }
        let view = self.admitted.grants.view(join.group.as_ref());
        let streams = self.subscribers.streams.clone();
        let mut reading =
            Box::pin(async move { opening::page(streams.store(), &join, wish, &view).await });
        match (&mut reading).now_or_never() {
            Some(page) => self.take_page(subscription_id, after, page),
            None => {
                let id = subscription_id.clone();
                self.steps.push(Box::pin(
                    async move { (id, Step::Paged(after, reading.await)) },
                ));
            }
        }
    }

    /// What becomes of a page that is ahead of the changes that were told, or behind them.
    fn put_off(
        &mut self,
        subscription_id: &Arc<str>,
        after: u64,
        page: SnapshotPage,
        told: ToldUpTo,
    ) {
        if let ToldUpTo::Awaited(comes) = told {
            let id = subscription_id.clone();
            return self.steps.push(Box::pin(async move {
                // Also where they will not come: that is seen then.
                let _ = comes.await;
                (id, Step::Paged(after, Ok(page)))
            }));
        }
        if matches!(told, ToldUpTo::Passed) {
            self.queued.push_back(subscription_id.clone());
            self.outbox.want_room();
        } else {
            self.page_soon(subscription_id, after);
        }
    }

    fn page_soon(&mut self, subscription_id: &Arc<str>, after: u64) {
        let id = subscription_id.clone();
        self.steps.push(Box::pin(async move {
            super::remedy::pause().await;
            (id, Step::PageAgain(after))
        }));
    }

    /// Reads a page once more that could not be read before, or not be told.
    pub(super) fn take_page_again(&mut self, subscription_id: &Arc<str>, after: u64) {
        let live = self.live.get(subscription_id).map(Box::as_ref);
        let paging = live.and_then(|live| live.paging.as_ref());
        // It may have begun anew meanwhile.
        if paging.is_some_and(|paging| paging.after == after) {
            self.read_page(subscription_id);
        }
    }

    pub(super) fn take_page(
        &mut self,
        subscription_id: &Arc<str>,
        after: u64,
        page: Result<SnapshotPage, OpenError>,
    ) {
        let Some(Live { join, paging }) = self.live.get_mut(subscription_id).map(Box::as_mut)
        else {
            return;
        };
        // It may have begun anew meanwhile.
        let Some(Paging {
            epoch: pages_epoch,
            first_seq,
            ..
        }) = paging.take_if(|paging| paging.is_reading && paging.after == after)
        else {
            return;
        };
        let Some(part) = self.groups.get(&join.group) else {
            return;
        };
        let page = match page {
            Ok(page) => page,
            Err(error) if error.may_pass() => {
                // Half a snapshot was told: the rest of it, once it can be read.
                tracing::debug!(stream = %join.group.stream, group = %join.group.group, %error, "a page cannot be read yet");
                part.seat.release();
                *paging = Some(Paging {
                    epoch: pages_epoch,
                    after,
                    first_seq,
                    is_reading: false,
                });
                return self.page_soon(subscription_id, after);
            }
            Err(error) => {
                tracing::error!(stream = %join.group.stream, group = %join.group.group, %error, "snapshot failed");
                part.seat.release();
                return self.outbox.close(CloseCode::StoreFailed);
            }
        };
        if page.epoch != pages_epoch {
            // The rest of another snapshot.
            part.seat.hold();
            self.end_hold(part, true);
            return self.begin_anew(subscription_id, None);
        }
        let seq = match self.dialect.framing {
            // Changes that it knows are told before it, else operations would come for items that it does not have any more.
            Framing::WebSocket => {
                let told = part.seat.tell_up_to(subscription_id, page.seq);
                if !matches!(told, ToldUpTo::Told) {
                    let is_reading = matches!(told, ToldUpTo::Awaited(_));
                    if !is_reading {
                        part.seat.release();
                    }
                    *paging = Some(Paging {
                        epoch: pages_epoch,
                        after,
                        first_seq,
                        is_reading,
                    });
                    return self.put_off(subscription_id, after, page, told);
                }
                page.seq
            }
            // All changes come after the last page, with values.
            Framing::EventStream => first_seq,
        };
        let view = self.admitted.grants.view(join.group.as_ref());
        let epoch = view.epoch(&page.epoch);
        let frame = opening::page_frame(join, self.dialect, &page, &epoch, seq, false);
        self.outbox.deliver_uncounted(&frame);
        part.seat.release();
        self.subscribers.metrics.snapshot_pages.inc();
        match page.next_after {
            Some(after) => {
                *paging = Some(Paging {
                    epoch: pages_epoch,
                    after,
                    first_seq,
                    is_reading: false,
                });
                self.queued.push_back(subscription_id.clone());
                self.outbox.want_room();
            }
            None if self.dialect.framing == Framing::EventStream => part.seat.release(),
            None => {}
        }
    }

    /// Lets changes through that wait for the pages of a snapshot.
    pub(super) fn end_paging(&self, live: &Live) {
        let (Some(paging), Some(part)) = (&live.paging, self.groups.get(&live.join.group)) else {
            return;
        };
        self.end_hold(part, paging.is_reading);
    }

    fn end_hold(&self, part: &Part, is_reading: bool) {
        if is_reading {
            part.seat.release();
        }
        if self.dialect.framing == Framing::EventStream {
            part.seat.release();
        }
    }
}
