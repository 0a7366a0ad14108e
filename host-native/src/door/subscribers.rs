//! The subscribers' door: `/` and `/stream/{stream}/{group}[/{item}]`, past the auth function, to a WebSocket, to server-sent
//! events, or to a snapshot. Source: subscriber socket, section 1; product design, section 5.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderMap, HeaderValue, ORIGIN,
    VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use super::{DoorContext, Permit, Room, accept, not_found};
use crate::auth::{Auth, AuthRequest};
use crate::metrics::Port;
use crate::socket::{self, HangUp, Refused};
use crate::subscriber::{
    self, Admission, PathTarget, Query, ResponseBody, Subscribers, event_stream, wants_event_stream,
};

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
            socket::serve_http(stream, limits.handshake_time_max, |request, hang_up| {
                let (door, permit) = (door.clone(), permit.clone());
                async move {
                    let response = if hyper_tungstenite::is_upgrade_request(&request) {
                        door.upgrade(request, addr, permit).await
                    } else {
                        door.answer(&request, addr, hang_up).await
                    };
                    response.unwrap_or_else(|refused| {
                        let response = door.context.refuse(Port::Subscribers, &refused);
                        response.map(BodyExt::boxed_unsync)
                    })
                }
            })
            .await;
        }
    })
    .await;
}

type HttpResponse = Response<ResponseBody>;

impl SubscriberDoor {
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
        hang_up: HangUp,
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
            Method::OPTIONS => return Ok(self.preflight(request.headers())),
            _ => return Ok(method_not_allowed()),
        }
        let query = read_query(request, true)?;
        let admission = self.admit(request, addr, None, query).await?;
        let (subscribers, headers) = (&self.subscribers, request.headers());
        let mut response = if wants_event_stream(headers) && request.method() == Method::GET {
            event_stream(subscribers, path, admission, headers, hang_up).await?
        } else {
            subscriber::snapshot(subscribers, path, &admission, headers).await?
        };
        self.allow_origin(headers, response.headers_mut());
        Ok(response)
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
        let grant = self.auth.admit(asked).await?;
        // The auth function may have taken its time.
        self.context.check_open()?;
        Ok(Admission {
            path,
            query,
            context: grant.context,
            expires_at: grant.expires_at,
        })
    }

    /// Tells a browser what pages of other origins may send.
    fn preflight(&self, asked: &HeaderMap) -> HttpResponse {
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
        self.allow_origin(asked, headers);
        response
    }

    /// Lets a page read the answer, if its origin is allowed to connect.
    fn allow_origin(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        let Some(origin) = asked.get(ORIGIN) else {
            return;
        };
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if self.auth.allows_origin(origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("ETag"),
            );
        }
    }
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
