//! Groups and items over plain HTTP: a page of a snapshot as JSON.
//!
//! A request goes past the same guards as a subscription, whose triggers learn that somebody came and left.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use iii_stream_core::event::session_input;
use iii_stream_core::version2::snapshot_json;
use iii_stream_core::{Grants, View};

use super::address::PathTarget;
use super::opening::{self, OpenError};
use super::session::of_path;
use super::subscribers::{Admission, Subscribers};
use crate::hub::Subscribing;
use crate::socket::Refused;
use crate::store::PageWish;

/// What an answer carries.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// Answers with a page of a group, or with an item. `is_for_all`: nobody was asked who may see it, so caches may share it.
///
/// Errors: [`Refused`].
pub async fn snapshot(
    subscribers: &Arc<Subscribers>,
    path: PathTarget,
    admission: Admission,
    headers: &HeaderMap,
    is_for_all: bool,
) -> Result<Response<ResponseBody>, Refused> {
    let after = admission.query.after.unwrap_or(0);
    let join = of_path(path);
    let view = readable(&admission.grants, &join)?;
    let visit = Visit::begin(subscribers, join, admission.context).await?;
    let read = read(subscribers, &visit.join, after, &view).await;
    let Read { json, tag } = read.map_err(|error| refused_by_store(&visit.join, &error))?;
    drop(visit);
    let is_known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == "*" || opaque(known.trim()) == opaque(&tag));
    let body = if is_known {
        Empty::new().boxed_unsync()
    } else {
        Full::from(json).boxed_unsync()
    };
    let mut response = Response::new(body);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    // It may be kept, but must be asked for again: the tag makes that cheap.
    let cached = if is_for_all {
        "no-cache"
    } else {
        "private, no-cache"
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cached));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
}

/// What a client may read of the group that it asks for.
///
/// Errors: [`Refused`] with 403 if nothing of what it asks for.
pub(super) fn readable(grants: &Grants, join: &Subscribing) -> Result<View, Refused> {
    let view = grants.view(join.group.as_ref());
    if view.shows(join.item.as_deref()) {
        return Ok(view);
    }
    Err(Refused {
        status: StatusCode::FORBIDDEN,
        message: "this client may read nothing of it: neither the auth function nor `default_grants` grants it",
        retry_after_s: None,
    })
}

struct Read {
    json: String,
    /// Changes with what is shown.
    tag: String,
}

async fn read(
    subscribers: &Subscribers,
    join: &Subscribing,
    after: u64,
    view: &View,
) -> Result<Read, OpenError> {
    let streams = &subscribers.streams;
    if !streams.has_versions(&join.group.stream) {
        return Err(OpenError::Unsupported);
    }
    let (group, item) = (join.group.as_ref(), join.item.as_deref());
    let wish = PageWish {
        item: join.item.clone(),
        after,
        ..PageWish::default()
    };
    let page = opening::page(streams.store(), join, wish, view).await?;
    // An item's own sequence, so that changes of others leave its tag alone.
    let version = match item {
        Some(_) => page.items.first().map_or(0, |(_, item)| item.seq),
        None => page.seq,
    };
    let epoch = view.epoch(&page.epoch);
    let tag = match item {
        None => format!("\"{epoch}:{version}:{after}\""),
        // Weak: the group's position stands beside the item, and moves on without it.
        Some(_) => format!("W/\"{epoch}:{version}\""),
    };
    let json = snapshot_json(group, item, &epoch, page.seq, &page.items, page.next_after);
    Ok(Read { json, tag })
}

pub(super) fn refused_by_store(join: &Subscribing, error: &OpenError) -> Refused {
    match error {
        OpenError::Unsupported => Refused {
            status: StatusCode::NOT_IMPLEMENTED,
            message: "the items of this stream have no versions, because a worker keeps it or the layout of an iii engine: subscribe over a WebSocket",
            retry_after_s: None,
        },
        OpenError::Store(_) => {
            tracing::error!(stream = %join.group.stream, group = %join.group.group, %error, "snapshot failed");
            Refused {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: "the store cannot be read now",
                retry_after_s: Some(1),
            }
        }
    }
}

/// Of two tags only this is compared. Source: RFC 9110, section 13.1.2.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Somebody whom the guards have let in, and who is told to have left in the end.
pub(super) struct Visit {
    subscribers: Arc<Subscribers>,
    pub(super) join: Subscribing,
    context: Option<Arc<str>>,
    /// Somebody else tells of the end.
    is_handed_over: bool,
}

impl Visit {
    /// Asks the guards, to the end even if nobody waits for it any more: whoever was let in then has left at once.
    ///
    /// Errors: [`Refused`] with 403.
    pub(super) async fn begin(
        subscribers: &Arc<Subscribers>,
        join: Subscribing,
        context: Option<Arc<str>>,
    ) -> Result<Self, Refused> {
        let subscribers = subscribers.clone();
        let guarded = subscribers
            .joins
            .is_guarded(&join.group.stream)
            .then(|| input(&join, context.as_deref()));
        let visit = |subscribers, join| Self {
            subscribers,
            join,
            context,
            is_handed_over: false,
        };
        let Some(input) = guarded else {
            return Ok(visit(subscribers, join));
        };
        let asking = tokio::spawn(async move {
            let joins = &subscribers.joins;
            let admits = joins.admits(&join.group.stream, &input).await;
            admits.then(|| visit(subscribers, join))
        });
        asking.await.ok().flatten().ok_or(Refused {
            status: StatusCode::FORBIDDEN,
            message: "a stream:join trigger refused this subscription",
            retry_after_s: None,
        })
    }

    /// Leaves it to a subscription to tell of its end.
    pub(super) fn hand_over(mut self) -> Subscribing {
        self.is_handed_over = true;
        self.join.clone()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Self {
            subscribers,
            join,
            context,
            is_handed_over,
        } = self;
        if !*is_handed_over {
            subscribers
                .leaves
                .tell(&join.group.stream, || input(join, context.as_deref()));
        }
    }
}

fn input(join: &Subscribing, context: Option<&str>) -> String {
    session_input(
        &join.subscription_id,
        join.group.as_ref(),
        join.item.as_deref(),
        context,
    )
}
