//! The subscribers' door: `/` and `/stream/{stream}/{group}[/{item}]`, past the auth function, to a WebSocket, to server-sent
//! events, or to a snapshot. Source: subscriber socket, section 1; product design, section 5.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    CONNECTION, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::{DoorContext, Permit, Room, accept, not_found};
use crate::auth::{Auth, AuthRequest};
use crate::metrics::{Port, SlowConsumerEnd};
use crate::socket::{self, HttpEnd, Line, Patience, Refused};
use crate::subscriber::{
    self, Admission, PathTarget, Query, ResponseBody, Subscribers, event_stream, wants_event_stream,
};

/// Bytes of a body that are read for nothing.
const BODY_BYTES_MAX: usize = 1_024 * 1_024;

/// What the system may take for one client before it leaves, in bytes.
const UNSENT_BYTES_MAX: u32 = 1_024 * 1_024;

/// What connections to the subscriber port need.
#[derive(Clone)]
pub struct SubscriberDoor {
    /// Who is connected.
    pub subscribers: Arc<Subscribers>,
    /// Who may come in.
    pub auth: Arc<Auth>,
    /// Who may come in at all, and where they are counted.
    pub context: DoorContext,
}

/// Serves the port until dropped.
pub async fn accept_subscribers(listener: TcpListener, door: SubscriberDoor) {
    let limits = door.subscribers.limits;
    let room = Room::new(
        Port::Subscribers,
        door.context.metrics.clone(),
        limits.connections_max,
        limits.connections_per_address_max,
    );
    accept(listener, room, |stream, addr, permit| {
        let door = door.clone();
        async move {
            let patience = Patience {
                handshake_time_max: limits.handshake_time_max,
                blocked_time_max: Some(limits.connection.blocked_time_max),
                unsent_bytes_max: Some(UNSENT_BYTES_MAX),
                // Who is there but takes nothing has the other time too.
                unconfirmed_time_max: Some(
                    limits
                        .connection
                        .idle_time_max
                        .max(limits.connection.blocked_time_max),
                ),
            };
            let end = socket::serve_http(stream, patience, |request, line| {
                let (door, permit) = (door.clone(), permit.clone());
                async move { door.serve(request, addr, permit, line).await }
            })
            .await;
            if end == HttpEnd::Blocked {
                let ends = &door.context.metrics.slow_consumer_ends;
                ends.of(SlowConsumerEnd::Blocked).inc();
            }
        }
    })
    .await;
}

type HttpResponse = Response<ResponseBody>;

impl SubscriberDoor {
    /// Answers a request.
    async fn serve(
        &self,
        mut request: Request<Incoming>,
        addr: SocketAddr,
        permit: Permit,
        line: Line,
    ) -> HttpResponse {
        let refuse = |refused: Refused| {
            let response = self.context.refuse(Port::Subscribers, &refused);
            response.map(BodyExt::boxed_unsync)
        };
        if hyper_tungstenite::is_upgrade_request(&request) {
            let response = self.upgrade(request, addr, permit).await;
            return response.unwrap_or_else(refuse);
        }
        let time_max = self.subscribers.limits.handshake_time_max;
        let is_read = discard(request.body_mut(), time_max).await;
        let response = self.answer(&request, addr, line).await;
        let mut response = response.unwrap_or_else(refuse);
        if !is_read {
            // Where the next request would begin is not known.
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Refusals too: a page must be able to see what is wrong.
        self.allow_origin(request.headers(), response.headers_mut());
        response
    }

    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        addr: SocketAddr,
        permit: Permit,
    ) -> Result<HttpResponse, Refused> {
        self.context.check_open()?;
        let path = read_path(&request)?;
        let query = read_query(&request, false)?;
        let subscribers = self.subscribers.clone();
        // Asked before the auth function is: what cannot be upgraded need not be admitted.
        let (response, websocket) = socket::upgrade(&mut request, subscribers.limits.connection)?;
        let admission = self.admit(&request, addr, path, query).await?;
        tokio::spawn(subscriber::serve(websocket, subscribers, admission, permit));
        Ok(response.map(BodyExt::boxed_unsync))
    }

    /// Answers a request that does not want a WebSocket.
    async fn answer(
        &self,
        request: &Request<Incoming>,
        addr: SocketAddr,
        line: Line,
    ) -> Result<HttpResponse, Refused> {
        self.context.check_open()?;
        let Some(path) = read_path(request)? else {
            return Err(Refused {
                status: StatusCode::UPGRADE_REQUIRED,
                message: "this address speaks WebSocket: connect with a WebSocket client, or GET /stream/{stream}/{group}",
                retry_after_s: None,
            });
        };
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(preflight()),
            _ => return Ok(method_not_allowed()),
        }
        let query = read_query(request, true)?;
        let admission = self.admit(request, addr, None, query).await?;
        if admission.expires_at.is_some_and(|at| at <= Instant::now()) {
            return Err(Refused {
                status: StatusCode::UNAUTHORIZED,
                message: "the permission that the auth function gave has expired",
                retry_after_s: None,
            });
        }
        let (subscribers, headers) = (&self.subscribers, request.headers());
        if wants_event_stream(headers) && request.method() == Method::GET {
            event_stream(subscribers, path, admission, headers, line).await
        } else {
            let is_for_all = !self.auth.asks();
            subscriber::snapshot(subscribers, path, admission, headers, is_for_all).await
        }
    }

    async fn admit(
        &self,
        request: &Request<Incoming>,
        addr: SocketAddr,
        path: Option<PathTarget>,
        query: Query,
    ) -> Result<Admission, Refused> {
        let asked = AuthRequest {
            headers: request.headers(),
            uri: request.uri(),
            addr: addr.ip(),
        };
        let pass = self.auth.admit(asked).await?;
        // The auth function may have taken its time.
        self.context.check_open()?;
        Ok(Admission {
            path,
            query,
            context: pass.context,
            expires_at: pass.expires_at,
            grants: pass.grants,
        })
    }

    /// Lets a page read the answer, if its origin is allowed to connect. What a cache keeps for one page must not be shown to
    /// another, nor JSON to who wants events.
    fn allow_origin(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        headers.insert(VARY, HeaderValue::from_static("Accept, Origin"));
        let Some(origin) = asked.get(ORIGIN) else {
            return;
        };
        if !self.auth.allows_origin(origin) {
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag, Retry-After"),
        );
        if self.auth.knows_origins() {
            // An EventSource has no other way to show who it is; any page at all may not do it in the user's name.
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

/// Tells a browser what pages of other origins may send.
fn preflight() -> HttpResponse {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, If-None-Match, Last-Event-ID",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Reads what a request carries, though nobody wants it: an answer is lost where a connection ends with something unread. Whether
/// that was all of it.
async fn discard(body: &mut Incoming, time_max: Duration) -> bool {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if BODY_BYTES_MAX < bytes {
                return false;
            }
        }
        body.is_end_stream()
    };
    timeout(time_max, reading).await.unwrap_or(false)
}

fn read_path(request: &Request<Incoming>) -> Result<Option<PathTarget>, Refused> {
    Subscribers::read_path(request.uri().path()).ok_or_else(|| {
        not_found("subscribers connect to / or to /stream/{stream}/{group}[/{item}]")
    })
}

fn read_query(request: &Request<Incoming>, is_http: bool) -> Result<Query, Refused> {
    Subscribers::read_query(request.uri().query().unwrap_or_default(), is_http)
        .map_err(Refused::bad_request)
}

fn method_not_allowed() -> HttpResponse {
    let refused = Refused {
        status: StatusCode::METHOD_NOT_ALLOWED,
        message: "only GET and HEAD: items are written with stream::set and stream::update on the worker port",
        retry_after_s: None,
    };
    let mut response = socket::refuse(&refused);
    let allowed = HeaderValue::from_static("GET, HEAD, OPTIONS");
    response.headers_mut().insert(ALLOW, allowed);
    response.map(BodyExt::boxed_unsync)
}
