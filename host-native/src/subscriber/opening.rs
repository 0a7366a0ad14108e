//! What a subscription begins with: a snapshot or what has changed since, read from where the stream is kept, and written as
//! frames for its connection. What its client may not read is left out here.

use std::sync::Arc;

use iii_stream_core::event::{delta_frame, event_frame, group_sync_frame, item_sync_frame};
use iii_stream_core::version2::{Sync, page_sync_frame, resume_sync_frame};
use iii_stream_core::{Echo, Item, Position, View};
use tokio::sync::oneshot;

use crate::clock;
use crate::hub::{Dialect, Framing, Subscribing};
use crate::socket::Frame;
use crate::store::{
    Done, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage, Store, StoreError, StoreErrorCause,
};
use crate::stream::CustomStorage;

/// See the module.
pub(super) struct Opening {
    content: Content,
    /// What the client holds is of no use any more.
    is_reset: bool,
    /// What of the group its client may read.
    view: View,
}

enum Content {
    Whole(Snapshot),
    Page(SnapshotPage),
    Resumed { resumed: Resumed, from: u64 },
}

/// What the client is to be told to begin with.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    /// Where the client left off.
    pub(super) since: Option<Position>,
    /// Whether it held something before.
    pub(super) is_reset: bool,
    /// Whether it is told again because changes have passed it by.
    pub(super) is_remedy: bool,
}

/// Why a subscription cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    /// The store failed.
    #[error("{0}")]
    Store(StoreError),
    /// The stream has no versions.
    #[error(
        "version 2 needs versions, which this stream does not have, because a worker's functions keep it or the layout of an iii engine: join with version 1"
    )]
    Unsupported,
}

impl OpenError {
    /// Whether the store may be read again soon: it is away, or too much waits for it.
    pub(super) fn may_pass(&self) -> bool {
        let Self::Store(error) = self else {
            return false;
        };
        use StoreErrorCause::{Behind, Contended, Unavailable, Unknown};
        matches!(error.cause, Behind | Contended | Unavailable | Unknown)
    }
}

/// Pages in which there is nothing to show that are read before the client is told that there is more.
const UNSHOWN_PAGES_MAX: usize = 16;

/// Reads what a subscription begins with, as far as its client may read it.
///
/// Errors: [`OpenError`].
pub(super) async fn open(
    streams: Arc<CustomStorage>,
    join: Subscribing,
    dialect: Dialect,
    wish: Wish,
    view: View,
) -> Result<Opening, OpenError> {
    let (group, item) = (join.group.as_ref(), join.item.as_deref());
    if !dialect.is_version_2 {
        let mut snapshot =
            ask(|done| streams.snapshot(group, item, clock::unix_ms(), done)).await?;
        leave_out(&mut snapshot.items, &view);
        return Ok(Opening {
            content: Content::Whole(snapshot),
            is_reset: false,
            view,
        });
    }
    if !streams.has_versions(group.stream) {
        return Err(OpenError::Unsupported);
    }
    let store = streams.store();
    if let Some(since) = &wish.since {
        let wish = ResumeWish {
            item: join.item.clone(),
            since: since.clone(),
            needs_values: !dialect.deltas,
            clients: join.clients.clone(),
        };
        let resumed = ask(|done| store.resume(group, wish, clock::unix_ms(), done)).await?;
        if let Some(mut resumed) = resumed {
            let from = since.seq;
            if view != View::All {
                let changes = &mut resumed.changes;
                changes.retain(|change| view.shows(change.item.as_deref()));
            }
            return Ok(Opening {
                content: Content::Resumed { resumed, from },
                is_reset: false,
                view,
            });
        }
    }
    let first = PageWish {
        item: join.item.clone(),
        clients: join.clients.clone(),
        ..PageWish::default()
    };
    let page = page(store, &join, first, &view).await?;
    Ok(Opening {
        content: Content::Page(page),
        is_reset: wish.is_reset || wish.since.is_some(),
        view,
    })
}

/// Reads a page of a group. Where it shows nothing, the next ones are read in its place: what it stands for has nothing to
/// show at the moment of those either, because new items come last.
///
/// Errors: [`OpenError::Store`].
pub(super) async fn page(
    store: &Arc<dyn Store>,
    join: &Subscribing,
    mut wish: PageWish,
    view: &View,
) -> Result<SnapshotPage, OpenError> {
    let mut unshown_pages = 0;
    loop {
        let (group, asked) = (join.group.as_ref(), wish.clone());
        let mut page = ask(|done| store.page(group, asked, clock::unix_ms(), done)).await?;
        leave_out(&mut page.items, view);
        let Some(next_after) = page.next_after.filter(|_| page.items.is_empty()) else {
            return Ok(page);
        };
        unshown_pages += 1;
        if unshown_pages == UNSHOWN_PAGES_MAX {
            return Ok(page);
        }
        wish.after = next_after;
        // There may be many, and others want their turn.
        tokio::task::yield_now().await;
    }
}

/// Leaves out the items that may not be shown.
fn leave_out(items: &mut Vec<(Arc<str>, Item)>, view: &View) {
    if *view != View::All {
        items.retain(|(id, _)| view.shows(Some(id)));
    }
}

async fn ask<T: Send + 'static>(request: impl FnOnce(Done<T>)) -> Result<T, OpenError> {
    let (sender, receiver) = oneshot::channel();
    request(Box::new(move |answer| {
        // The connection may be gone.
        let _ = sender.send(answer);
    }));
    let dropped = |_| StoreError::other("the store dropped the request");
    receiver
        .await
        .map_err(dropped)
        .and_then(|answer| answer)
        .map_err(OpenError::Store)
}

impl Opening {
    pub(super) fn epoch(&self) -> &Arc<str> {
        match &self.content {
            Content::Whole(snapshot) => &snapshot.epoch,
            Content::Page(page) => &page.epoch,
            Content::Resumed { resumed, .. } => &resumed.epoch,
        }
    }

    /// The last change that it tells of.
    pub(super) fn seq(&self) -> u64 {
        match &self.content {
            Content::Whole(snapshot) => snapshot.seq,
            Content::Page(page) => page.seq,
            Content::Resumed { resumed, .. } => resumed.seq,
        }
    }

    /// After which item the next page begins, if there is one.
    pub(super) fn next_page_after(&self) -> Option<u64> {
        match &self.content {
            Content::Page(page) => page.next_after,
            Content::Whole(_) | Content::Resumed { .. } => None,
        }
    }

    pub(super) fn is_resumed(&self) -> bool {
        matches!(self.content, Content::Resumed { .. })
    }

    pub(super) fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// All of it for one connection. `None` where a change does not carry the value that the connection needs.
    pub(super) fn frame(&self, join: &Subscribing, dialect: Dialect) -> Option<Frame> {
        let group = join.group.as_ref();
        let item = join.item.as_deref();
        let told = self.view.epoch(self.epoch());
        match &self.content {
            Content::Whole(Snapshot {
                seq,
                timestamp,
                items,
                ..
            }) => {
                let text = match item {
                    Some(item) => {
                        let value = items.first().map(|(_, item)| &item.value);
                        item_sync_frame(group, item, *timestamp, &told, *seq, value)
                    }
                    None => {
                        let values = items.iter().map(|(_, item)| &item.value);
                        group_sync_frame(group, *timestamp, &told, *seq, values)
                    }
                };
                Some(dialect.frame(&text, None))
            }
            Content::Page(page) => Some(page_frame(
                join,
                dialect,
                page,
                &told,
                page.seq,
                self.is_reset,
            )),
            Content::Resumed { resumed, from } => {
                resumed_frame(join, dialect, resumed, &told, *from)
            }
        }
    }
}

fn sync<'a>(
    join: &'a Subscribing,
    epoch: &'a str,
    seq: u64,
    timestamp: u64,
    mutations: &'a [Echo],
) -> Sync<'a> {
    Sync {
        group: join.group.as_ref(),
        item: join.item.as_deref(),
        subscription_id: &join.subscription_id,
        epoch,
        seq,
        timestamp,
        mutations: join.clients.is_some().then_some(mutations),
    }
}

/// One page. `epoch` is what the client is told of the history, `seq` the position up to which the connection has seen everything when it gets this.
pub(super) fn page_frame(
    join: &Subscribing,
    dialect: Dialect,
    page: &SnapshotPage,
    epoch: &str,
    seq: u64,
    is_reset: bool,
) -> Frame {
    let sync = sync(join, epoch, seq, page.timestamp, &page.mutations);
    let has_more = page.next_after.is_some();
    let text = page_sync_frame(&sync, &page.items, has_more, is_reset);
    // Whoever comes back in the middle of a snapshot has to begin again.
    let at = (!has_more).then_some((epoch, seq));
    dialect.frame(&text, at)
}

fn resumed_frame(
    join: &Subscribing,
    dialect: Dialect,
    resumed: &Resumed,
    epoch: &str,
    from: u64,
) -> Option<Frame> {
    let group = join.group.as_ref();
    let Resumed {
        seq,
        timestamp,
        changes,
        mutations,
        ..
    } = resumed;
    let subscription_id = &join.subscription_id;
    let sync = resume_sync_frame(&sync(join, epoch, *seq, *timestamp, mutations), from);
    let mut out = Vec::new();
    // The changes that follow carry the positions; with none, this one does.
    let at = match dialect.framing {
        Framing::EventStream if !changes.is_empty() => None,
        _ => Some((epoch, *seq)),
    };
    dialect.push(&mut out, &sync, at);
    for change in changes {
        let text = if dialect.deltas {
            delta_frame(group, change, Some(subscription_id))
        } else {
            event_frame(group, change, Some(subscription_id))
        };
        dialect.push(&mut out, &text?, Some((epoch, change.seq)));
    }
    Some(Frame::encoded(out.into()))
}
