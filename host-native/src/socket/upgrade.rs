//! From a TCP connection to a WebSocket: HTTP, refusals in words, the sub-protocol answer. Knows no messages.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::service::service_fn;
use hyper::upgrade::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_tungstenite::HyperWebsocket;
use hyper_tungstenite::tungstenite::protocol::WebSocketConfig;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::connection::Limits;
use super::impatient::Impatient;

/// Buffer for the HTTP part of a connection, in bytes: also the longest request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Buffers of the library's own frame reader, in bytes. It is left before it reads anything, but where channels use it.
const FRAME_BUFFER_BYTES: usize = 16 * 1024;

/// Tells the published Rust client that this end sends small messages at once.
const CAPABILITIES: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-iii-capabilities"),
    HeaderValue::from_static("tcp-nodelay"),
);

/// Why a request does not become a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong, in words.
    pub message: &'static str,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u32>,
}

impl Refused {
    /// The request is wrong in itself.
    pub fn bad_request(message: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message,
            retry_after_s: None,
        }
    }
}

/// The HTTP connection by which a request came.
#[derive(Clone, Debug)]
pub struct Line(mpsc::Sender<Infallible>);

impl Line {
    /// Waits until the connection has ended: what was answered has left, or never will.
    pub async fn ended(&self) {
        self.0.closed().await;
    }
}

/// How long an HTTP connection is borne with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A peer that does not finish its request in this time is dropped.
    pub handshake_time_max: Duration,
    /// A peer that takes nothing of an answer for so long is dropped; `None` where all answers are short.
    pub blocked_time_max: Option<Duration>,
    /// Bytes that the system takes before they leave for the peer, also after an upgrade; `None` leaves it to the system, which
    /// takes megabytes. So a peer that does not keep up is found out early, and one that reads slowly shows that it reads.
    pub unsent_bytes_max: Option<u32>,
    /// A peer from which nothing of what was sent is confirmed for so long is dropped: it has vanished. `None`: whenever the
    /// system gives up, which takes a quarter of an hour.
    pub unconfirmed_time_max: Option<Duration>,
}

/// How the HTTP part of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpEnd {
    /// The peer took nothing for too long.
    Blocked,
    /// In any other way.
    Ended,
}

/// Serves the HTTP part of one connection; upgraded connections live on in tasks of their own.
pub async fn serve_http<F, R, B>(stream: TcpStream, patience: Patience, handle: F) -> HttpEnd
where
    F: Fn(Request<Incoming>, Line) -> R,
    R: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    // Small messages must not wait for more; a socket that cannot be told so still works.
    let _ = stream.set_nodelay(true);
    bound_in_system(&stream, patience);
    // Nothing is ever sent: it ends with the connection, which is the message.
    let (line, _is_open) = mpsc::channel(1);
    let line = Line(line);
    let service = service_fn(|request| {
        let response = handle(request, line.clone());
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.handshake_time_max)
        .max_buf_size(HEAD_BYTES_MAX);
    let stream = Impatient::new(stream, patience.blocked_time_max);
    let served = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    let Err(error) = served else {
        return HttpEnd::Ended;
    };
    tracing::debug!(%error, "connection ended before its upgrade");
    let io_error = error.source().and_then(|source| source.downcast_ref());
    match io_error.map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => HttpEnd::Blocked,
        _ => HttpEnd::Ended,
    }
}

/// Has the system end a connection whose peer confirms nothing, and take little that does not leave. Event streams need the first:
/// their clients are not asked for signs of life, and the system takes much of what is sent to one that has vanished.
#[cfg(target_os = "linux")]
fn bound_in_system(stream: &TcpStream, patience: Patience) {
    let socket = socket2::SockRef::from(stream);
    // A system that does not know these gives up later, and takes more.
    if let Some(time_max) = patience.unconfirmed_time_max {
        let _ = socket.set_tcp_user_timeout(Some(time_max));
    }
    if let Some(bytes) = patience.unsent_bytes_max {
        let _ = socket.set_tcp_notsent_lowat(bytes);
    }
}

#[cfg(not(target_os = "linux"))]
fn bound_in_system(_: &TcpStream, _: Patience) {}

/// Answers a request with a refusal.
pub fn refuse(refused: &Refused) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{}\n", refused.message)));
    *response.status_mut() = refused.status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Some(seconds) = refused.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refused.status == StatusCode::UPGRADE_REQUIRED {
        // Source: RFC 9110, section 15.5.22.
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response
}

/// Answers a request with an upgrade; the WebSocket is there once the answer is sent.
///
/// Errors: [`Refused`] when the request does not ask for a WebSocket in a way that can be answered.
pub fn upgrade(
    request: &mut Request<Incoming>,
    limits: Limits,
) -> Result<(Response<Full<Bytes>>, HyperWebsocket), Refused> {
    let refused = |status, message| Refused {
        status,
        message,
        retry_after_s: None,
    };
    if !hyper_tungstenite::is_upgrade_request(request) {
        let message = "this address speaks WebSocket: connect with a WebSocket client";
        return Err(refused(StatusCode::UPGRADE_REQUIRED, message));
    }
    let protocol = select_protocol(request.headers());
    let config = WebSocketConfig::default()
        .read_buffer_size(FRAME_BUFFER_BYTES)
        .write_buffer_size(FRAME_BUFFER_BYTES)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max));
    let (mut response, socket) =
        hyper_tungstenite::upgrade(request, Some(config)).map_err(|_| {
            refused(
                StatusCode::BAD_REQUEST,
                "the upgrade request lacks Sec-WebSocket-Key or version 13",
            )
        })?;
    let (name, value) = CAPABILITIES;
    response.headers_mut().insert(name, value);
    if let Some(protocol) = protocol {
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok((response, socket))
}

/// A connection that has become a WebSocket: what is read and written from here on are frames.
pub(super) struct Upgraded {
    pub(super) socket: TcpStream,
    /// What came together with the request.
    pub(super) early: Bytes,
}

/// Waits until an upgrade is through, and takes the TCP connection out of the library's hands: its reader holds a buffer for
/// every connection, and its writer cannot send a frame that is shared.
///
/// Errors: the peer went away.
pub(super) async fn upgraded(upgrading: HyperWebsocket) -> io::Result<Upgraded> {
    let upgraded = upgrading.await.map_err(io::Error::other)?;
    let upgraded = upgraded.into_inner().into_inner();
    let not_tcp = |_| io::Error::other("the upgraded connection is not the one that was accepted");
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<Impatient>>().map_err(not_tcp)?;
    Ok(Upgraded {
        socket: io.into_inner().into_socket(),
        early: read_buf,
    })
}

/// Which of the requested sub-protocols to answer with: `Authorization` if it is among them, else the first. A token
/// that stands beside it is never sent back. Source: subscriber socket, section 1.1.
pub fn select_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let requested: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let authorization = requested
        .iter()
        .find(|name| name.eq_ignore_ascii_case("authorization"));
    let selected = authorization.or(requested.first())?;
    HeaderValue::from_str(selected).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
        }
        select_protocol(&headers).and_then(|value| value.to_str().map(str::to_owned).ok())
    }

    #[test]
    fn answers_with_authorization_and_never_with_the_token() {
        assert_eq!(
            selected(&["Authorization, secret"]).as_deref(),
            Some("Authorization")
        );
        assert_eq!(
            selected(&["Authorization,secret"]).as_deref(),
            Some("Authorization")
        );
        assert_eq!(
            selected(&["secret", "authorization"]).as_deref(),
            Some("authorization")
        );
        assert_eq!(selected(&["chat, superchat"]).as_deref(), Some("chat"));
        assert_eq!(selected(&[]), None);
        assert_eq!(selected(&[" , "]), None);
    }
}
