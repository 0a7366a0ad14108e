//! A subscription as server-sent events: the frames of version 2, with positions as ids, so that a browser that comes back goes
//! on where it left off.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame};
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use iii_stream_core::Position;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::address::{PathTarget, Query};
use super::http::{ResponseBody, Visit, readable, refused_by_store};
use super::opening::OpenError;
use super::session::of_path;
use super::subscribers::{Admission, Subscribers};
use super::subscriptions::{Admitted, Subscriptions};
use crate::hub::{ConnectionId, Framing};
use crate::socket::{CloseCode, Line, Outbox, Refused};

/// Where a client left off.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A line that means nothing, so that nobody in between thinks that nobody is there.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Whether a request wants server-sent events.
pub fn wants_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"))
}

/// Where a client left off: by the header that browsers send when they come back, else by the query.
///
/// Errors: the header is no position.
fn since_of(headers: &HeaderMap, query: &Query) -> Result<Option<Position>, &'static str> {
    let id = headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return Ok(query.since.clone());
    };
    let position = str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    position.map(Some).ok_or(
        "the header `Last-Event-ID` must look like k3:57, as the ids of this server's events do",
    )
}

/// Answers with events for as long as the client stays, by `line`.
///
/// Errors: [`Refused`].
pub async fn event_stream(
    subscribers: &Arc<Subscribers>,
    path: PathTarget,
    admission: Admission,
    headers: &HeaderMap,
    line: Line,
) -> Result<Response<ResponseBody>, Refused> {
    let since = since_of(headers, &admission.query).map_err(Refused::bad_request)?;
    let join = of_path(path);
    readable(&admission.grants, &join)?;
    if !subscribers.streams.has_versions(&join.group.stream) {
        return Err(refused_by_store(&join, &OpenError::Unsupported));
    }
    let visit = Visit::begin(subscribers, join, admission.context.clone()).await?;
    let outbox = Arc::new(Outbox::to_taker(
        subscribers.limits.connection.queue_bytes_max,
    ));
    let id = subscribers.connect(&outbox);
    let mut subscriptions = Subscriptions::new(
        id,
        subscribers.clone(),
        outbox.clone(),
        Admitted {
            context: admission.context,
            grants: admission.grants,
        },
        Framing::EventStream,
        Some(admission.query.asks),
    );
    subscriptions.join_admitted(visit.hand_over(), since);
    // One piece on its way: what waits is bounded in the outbox.
    let (pieces, body) = mpsc::channel(1);
    let session = Session {
        id,
        subscribers: subscribers.clone(),
        outbox,
        expires_at: admission.expires_at,
        line,
    };
    tokio::spawn(session.run(subscriptions, pieces));
    let mut response = Response::new(Pieces(body).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    // Proxies that gather answers would hold events back.
    let name = HeaderName::from_static("x-accel-buffering");
    headers.insert(name, HeaderValue::from_static("no"));
    Ok(response)
}

/// The body of the answer.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// One client, from its request to its end.
struct Session {
    id: ConnectionId,
    subscribers: Arc<Subscribers>,
    outbox: Arc<Outbox>,
    expires_at: Option<Instant>,
    line: Line,
}

/// What the outbox has for the client.
enum Next {
    Bytes(Bytes),
    Room,
    End,
}

impl Session {
    async fn run(self, mut subscriptions: Subscriptions, pieces: mpsc::Sender<Bytes>) {
        let metrics = &self.subscribers.metrics;
        metrics.event_streams.inc();
        metrics.event_streams_total.inc();
        let limits = self.subscribers.limits.connection;
        let mut keep_alive = tokio::time::interval(limits.ping_interval);
        keep_alive.reset();
        loop {
            let piece = tokio::select! {
                next = poll_fn(|cx| poll_next(&self.outbox, cx)) => match next {
                    Next::Bytes(bytes) => {
                        keep_alive.reset();
                        bytes
                    }
                    Next::Room => {
                        subscriptions.go_on();
                        continue;
                    }
                    Next::End => break,
                },
                Some((subscription_id, step)) = subscriptions.next_step(), if subscriptions.has_steps() => {
                    subscriptions.take_step(&subscription_id, step);
                    continue;
                }
                _ = keep_alive.tick() => KEEP_ALIVE,
                () = expiry(self.expires_at) => {
                    self.outbox.close(CloseCode::AuthExpired);
                    break;
                }
                () = pieces.closed() => break,
            };
            // A client that takes nothing for too long loses its connection, and with it this ends.
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        subscriptions.end();
        // The end of the answer: a client that it does not reach cannot tell an end from a break.
        drop(pieces);
        self.line.ended().await;
        self.subscribers.disconnect(self.id);
        metrics.event_streams.dec();
    }
}

fn poll_next(outbox: &Outbox, cx: &Context<'_>) -> Poll<Next> {
    let bytes = outbox.poll_take(cx);
    if let Poll::Ready(bytes) = bytes {
        return Poll::Ready(bytes.map_or(Next::End, Next::Bytes));
    }
    if outbox.take_room() {
        return Poll::Ready(Next::Room);
    }
    Poll::Pending
}

async fn expiry(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_that_come_back_say_where_they_were() {
        let mut headers = HeaderMap::new();
        let query = Query {
            since: "k3:1".parse().ok(),
            ..Query::default()
        };
        assert_eq!(since_of(&headers, &query), Ok(query.since.clone()));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("k3:57"));
        assert_eq!(since_of(&headers, &query), Ok("k3:57".parse().ok()));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("57"));
        assert!(since_of(&headers, &query).is_err());
    }
}
