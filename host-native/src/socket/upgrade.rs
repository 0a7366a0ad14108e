//! From a TCP connection to a WebSocket: HTTP, refusals in words, the sub-protocol answer. Knows no messages.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_tungstenite::HyperWebsocket;
use hyper_tungstenite::tungstenite::protocol::WebSocketConfig;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::connection::Limits;

/// Buffer for the HTTP part of a connection, in bytes: also the longest request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Frames gathered before a write, in bytes.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

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

/// Serves the HTTP part of one connection; upgraded connections live on in tasks of their own. A peer that does not
/// finish its request in `handshake_time_max` is dropped.
pub async fn serve_http<F, R>(stream: TcpStream, handshake_time_max: Duration, handle: F)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    // Small messages must not wait for more; a socket that cannot be told so still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let response = handle(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(handshake_time_max)
        .max_buf_size(HEAD_BYTES_MAX);
    if let Err(error) = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
    {
        tracing::debug!(%error, "connection ended before its upgrade");
    }
}

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
        .read_buffer_size(limits.read_buffer_bytes)
        .write_buffer_size(WRITE_BUFFER_BYTES)
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
