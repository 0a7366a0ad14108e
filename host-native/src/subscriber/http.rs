//! Groups and items over plain HTTP: a page of a snapshot as JSON.
//!
//! A request goes past the same guards as a subscription, whose triggers learn that somebody came and left.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use iii_stream_core::event::session_input;
use iii_stream_core::version2::snapshot_json;

use super::opening::{self, OpenError};
use super::protocol::PathTarget;
use super::session::of_path;
use super::subscribers::{Admission, Subscribers};
use crate::hub::Subscribing;
use crate::socket::Refused;

/// What an answer carries.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// Answers with a page of a group, or with an item.
///
/// Errors: [`Refused`].
pub async fn snapshot(
    subscribers: &Subscribers,
    path: PathTarget,
    admission: &Admission,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, Refused> {
    let join = of_path(path);
    let visit = Visit::begin(subscribers, &join, admission.context.as_deref()).await?;
    let read = read(subscribers, &join, admission.query.after.unwrap_or(0)).await;
    drop(visit);
    let Read { json, tag } = read.map_err(|error| refused_by_store(&join, &error))?;
    let is_known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
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
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
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
) -> Result<Read, OpenError> {
    let streams = &subscribers.streams;
    if streams.is_custom(&join.group.stream) {
        return Err(OpenError::Unsupported);
    }
    let (group, item) = (join.group.as_ref(), join.item.as_deref());
    let page = match item {
        Some(item) => opening::item_page(streams.store(), join, item).await?,
        None => opening::next_page(streams.store(), join, after).await?,
    };
    // An item's own sequence, so that changes of others leave its tag alone.
    let version = match item {
        Some(_) => page.items.first().map_or(0, |(_, item)| item.seq),
        None => page.seq,
    };
    let tag = match item {
        None => format!("\"{}:{version}:{after}\"", page.epoch),
        Some(_) => format!("\"{}:{version}\"", page.epoch),
    };
    let json = snapshot_json(group, item, &page.epoch, page.seq, &page.items, page.more);
    Ok(Read { json, tag })
}

pub(super) fn refused_by_store(join: &Subscribing, error: &OpenError) -> Refused {
    match error {
        OpenError::Unsupported => Refused {
            status: StatusCode::NOT_IMPLEMENTED,
            message: "a worker keeps this stream itself, so its items have no versions: subscribe over a WebSocket",
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

/// A visit that guards were asked about. Whoever was let in is told to have left.
struct Visit<'a> {
    subscribers: &'a Subscribers,
    join: &'a Subscribing,
    context: Option<&'a str>,
}

impl<'a> Visit<'a> {
    async fn begin(
        subscribers: &'a Subscribers,
        join: &'a Subscribing,
        context: Option<&'a str>,
    ) -> Result<Self, Refused> {
        let visit = Self {
            subscribers,
            join,
            context,
        };
        if admits(subscribers, join, context).await {
            return Ok(visit);
        }
        // Who was not let in does not leave.
        std::mem::forget(visit);
        Err(forbidden())
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let Self {
            subscribers,
            join,
            context,
        } = self;
        subscribers
            .leaves
            .tell(&join.group.stream, || input(join, *context));
    }
}

pub(super) async fn admits(
    subscribers: &Subscribers,
    join: &Subscribing,
    context: Option<&str>,
) -> bool {
    let stream = &join.group.stream;
    !subscribers.joins.is_guarded(stream)
        || subscribers
            .joins
            .admits(stream, &input(join, context))
            .await
}

fn input(join: &Subscribing, context: Option<&str>) -> String {
    session_input(
        &join.subscription_id,
        join.group.as_ref(),
        join.item.as_deref(),
        context,
    )
}

pub(super) fn forbidden() -> Refused {
    Refused {
        status: StatusCode::FORBIDDEN,
        message: "a stream:join trigger refused this subscription",
        retry_after_s: None,
    }
}
