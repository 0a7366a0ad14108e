//! The pages of the admin listener, each by its path. Knows no sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use iii_stream_core::text::push_string;

use crate::store::Condition;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Prometheus exposition format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

const INDEX: &str = "\
/health   whether the server works, since when, and what keeps the groups (JSON)
/ready    200 while new connections are welcome, 503 while the server stops or cannot reach its store (JSON)
/metrics  everything that is counted (Prometheus text)
";

/// What keeps the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreHealth {
    /// Its kind.
    pub name: &'static str,
    /// What survives, in words.
    pub durability: String,
    /// Settings outside of this server with which less survives than it seems, each with what to do.
    pub unsafe_settings: Vec<String>,
    /// Whether it can be written.
    pub condition: Condition,
}

/// Gives what the pages show.
pub trait Inspect: Send + Sync {
    /// How long the server has been running.
    fn uptime(&self) -> Duration;

    /// Whether a stop has begun.
    fn is_draining(&self) -> bool;

    /// What keeps the groups.
    fn store(&self) -> StoreHealth;

    /// The page of metrics. May take some milliseconds.
    fn metrics(&self) -> String;
}

/// Answers a request.
pub(super) async fn answer(
    request: &Request<Incoming>,
    inspect: Arc<dyn Inspect>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "only GET and HEAD are answered here\n";
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => page(StatusCode::OK, PLAIN, INDEX),
        "/health" => health(&*inspect),
        "/ready" => ready(&*inspect),
        // Reading what thousands of connections hold takes a moment, which must not be one of the connections' own.
        "/metrics" => match tokio::task::spawn_blocking(move || inspect.metrics()).await {
            Ok(text) => page(StatusCode::OK, METRICS, text),
            Err(error) => {
                tracing::error!(%error, "cannot gather metrics");
                let text = "cannot gather metrics\n";
                page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text)
            }
        },
        _ => {
            let text = format!("there is no such page; there are\n\n{INDEX}");
            page(StatusCode::NOT_FOUND, PLAIN, text)
        }
    }
}

/// Shape: `{"ready","reason"?}`. The reason is `draining`, or `store_unavailable` while the groups are kept elsewhere and cannot be
/// reached: then the answer is a 503.
fn ready(inspect: &dyn Inspect) -> Response<Full<Bytes>> {
    let reason = match inspect.store().condition {
        _ if inspect.is_draining() => "draining",
        Condition::Unavailable(_) => "store_unavailable",
        // Readers are served.
        Condition::Works | Condition::Full(_) | Condition::ReadOnly(_) => {
            return page(StatusCode::OK, JSON, "{\"ready\":true}\n");
        }
    };
    let text = format!("{{\"ready\":false,\"reason\":\"{reason}\"}}\n");
    page(StatusCode::SERVICE_UNAVAILABLE, JSON, text)
}

/// Shape: `{"status","version","uptime_s","store":{"name","durability","unsafe_settings"?:[text],"reason"?}}`. The status is `ok`, `full` while the disk has
/// no room, `unavailable` while Redis is not there, or `read_only`, which only a restart ends: then the answer is a 503.
fn health(inspect: &dyn Inspect) -> Response<Full<Bytes>> {
    let StoreHealth {
        name,
        durability,
        unsafe_settings,
        condition,
    } = inspect.store();
    let (code, status, reason) = match condition {
        Condition::Works => (StatusCode::OK, "ok", None),
        Condition::Full(reason) => (StatusCode::OK, "full", Some(reason)),
        Condition::ReadOnly(reason) => (StatusCode::SERVICE_UNAVAILABLE, "read_only", Some(reason)),
        // A restart does not help.
        Condition::Unavailable(reason) => (StatusCode::OK, "unavailable", Some(reason)),
    };
    let mut out = format!(r#"{{"status":"{status}","version":"#);
    push_string(&mut out, env!("CARGO_PKG_VERSION"));
    out.push_str(r#","uptime_s":"#);
    out.push_str(&inspect.uptime().as_secs().to_string());
    out.push_str(r#","store":{"name":"#);
    push_string(&mut out, name);
    out.push_str(r#","durability":"#);
    push_string(&mut out, &durability);
    for (index, text) in unsafe_settings.iter().enumerate() {
        out.push_str(if index == 0 {
            r#","unsafe_settings":["#
        } else {
            ","
        });
        push_string(&mut out, text);
    }
    if !unsafe_settings.is_empty() {
        out.push(']');
    }
    if let Some(reason) = reason {
        out.push_str(r#","reason":"#);
        push_string(&mut out, &reason);
    }
    out.push_str("}}\n");
    page(code, JSON, out)
}

fn page(
    status: StatusCode,
    content_type: HeaderValue,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
