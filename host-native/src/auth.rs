//! Who may open a subscriber connection: the origin check and the auth function. Knows no sockets.
//!
//! Fails closed: a function that is missing, throws, takes too long or answers nonsense lets nobody in.
//! Source: stream functions, section 9.3; product design, sections 6 and 8.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderValue, ORIGIN};
use hyper::{HeaderMap, StatusCode, Uri};
use iii_stream_core::fields::{Fields, kind_of};
use iii_stream_core::text::push_string;
use iii_stream_core::{Grants, Pattern};
use tokio::time::Instant;

use crate::clock;
use crate::engine::{Call, CallResult, Output, Registry, ReplyTo};
use crate::socket::Refused;

/// When a client may come back after the auth function could not be asked, in seconds.
const RETRY_AFTER_S: u32 = 2;

/// Asks the auth function, if there is one.
pub struct Auth {
    registry: Arc<Registry>,
    function_id: Option<String>,
    time_max: Duration,
    require_context: bool,
    allowed_origins: Vec<Pattern>,
    /// What clients may do, unless the function says something else.
    default_grants: Arc<Grants>,
}

/// With what a client is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Kept for the connection, as JSON text; `None` is `null`.
    pub context: Option<Arc<str>>,
    /// When the connection must end.
    pub expires_at: Option<Instant>,
    /// What the client may do.
    pub grants: Arc<Grants>,
}

/// What the auth function is told of a request.
#[derive(Clone, Copy, Debug)]
pub struct AuthRequest<'a> {
    /// All request headers.
    pub headers: &'a HeaderMap,
    /// Path and query.
    pub uri: &'a Uri,
    /// Where it comes from.
    pub addr: IpAddr,
}

impl Auth {
    /// Lets everybody in with `default_grants`, unless `function_id` names a function to ask: then clients of whom it says no
    /// more may read.
    pub fn new(
        registry: Arc<Registry>,
        function_id: Option<String>,
        time_max: Duration,
        require_context: bool,
        allowed_origins: &[String],
        default_grants: Grants,
    ) -> Self {
        let default_grants = match function_id {
            Some(_) => Grants::read_only(),
            None => default_grants,
        };
        Self {
            registry,
            function_id,
            time_max,
            require_context,
            allowed_origins: allowed_origins
                .iter()
                .map(|origin| Pattern::new(origin))
                .collect(),
            default_grants: Arc::new(default_grants),
        }
    }

    /// Whether a client may connect.
    ///
    /// Errors: 401 when the function refuses, 403 for an origin that is not allowed, 503 when the function could not
    /// be asked or its answer is no use.
    pub async fn admit(&self, request: AuthRequest<'_>) -> Result<Pass, Refused> {
        self.check_origin(request.headers)?;
        let Some(function_id) = &self.function_id else {
            return Ok(Pass {
                context: None,
                expires_at: None,
                grants: self.default_grants.clone(),
            });
        };
        if self.registry.find(function_id).is_none() {
            tracing::warn!(function = %function_id, "the auth function is not registered, nobody is let in");
            return Err(unavailable(
                "the auth function is not registered: its worker is not connected",
            ));
        }
        let (reply, waiter) = ReplyTo::waiter();
        let input = auth_input(request);
        self.registry
            .invoke(&Call::from_server(function_id, &input), "default", reply);
        match tokio::time::timeout(self.time_max, waiter.answer()).await {
            Ok(result) => self.read_result(function_id, result),
            Err(_) => {
                tracing::warn!(function = %function_id, "the auth function took too long, the client is not let in");
                Err(unavailable("the auth function did not answer in time"))
            }
        }
    }

    /// Whether pages of this origin may connect.
    pub fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let mut allowed = self.allowed_origins.iter();
        let matches = |origin: &str| allowed.any(|allowed| allowed.matches(origin));
        self.allowed_origins.is_empty() || origin.to_str().is_ok_and(matches)
    }

    /// Whether only pages of certain origins may connect.
    pub fn knows_origins(&self) -> bool {
        !self.allowed_origins.is_empty() && !self.allowed_origins.iter().any(Pattern::is_any)
    }

    /// Whether a function decides who may connect.
    pub fn asks(&self) -> bool {
        self.function_id.is_some()
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(origin) = headers
            .get(ORIGIN)
            .filter(|_| !self.allowed_origins.is_empty())
        else {
            // Only browsers send it, and only they need this guard.
            return Ok(());
        };
        if self.allows_origin(origin) {
            return Ok(());
        }
        tracing::warn!(?origin, "origin is not among allowed_origins");
        let message = "pages of this origin may not connect";
        Err(Refused {
            status: StatusCode::FORBIDDEN,
            message,
            retry_after_s: None,
        })
    }

    fn read_result(&self, function_id: &str, result: CallResult) -> Result<Pass, Refused> {
        let unauthorized = |message| Refused {
            status: StatusCode::UNAUTHORIZED,
            message,
            retry_after_s: None,
        };
        let json = match result {
            Ok(Output::Json(json)) => json,
            Ok(Output::Nothing) => "null".to_owned(),
            Err(failure) if failure.is_of_server() => {
                tracing::warn!(function = %function_id, error = failure.body(), "the auth function could not be asked");
                return Err(unavailable("the auth function could not be asked"));
            }
            Err(failure) => {
                tracing::info!(function = %function_id, error = failure.body(), "the auth function refused a client");
                return Err(unauthorized("the auth function refused this client"));
            }
        };
        let useless = || {
            tracing::warn!(function = %function_id, got = kind_of(&json), "the auth function must return an object, nobody is let in");
            unavailable("the auth function returned no object that can be read")
        };
        let fields =
            Fields::read(&json, &["context", "expires_at", "grants"]).map_err(|_| useless())?;
        let context: Option<Arc<str>> = fields.optional(0).map(|raw| raw.get().into());
        if self.require_context && context.is_none() {
            return Err(unauthorized(
                "the auth function gave this client no context",
            ));
        }
        let expires_at = fields
            .optional_u64(1)
            .map_err(|_| useless())?
            .map(instant_of);
        let grants = match fields.raw(2) {
            None => self.default_grants.clone(),
            // `null` is no list: it would otherwise grant more than an empty one.
            Some(raw) => Arc::new(Grants::from_text(raw.get()).map_err(|error| {
                tracing::warn!(function = %function_id, %error, "the grants that the auth function gave cannot be read, the client is not let in");
                unavailable("the auth function gave grants that cannot be read")
            })?),
        };
        Ok(Pass {
            context,
            expires_at,
            grants,
        })
    }
}

fn unavailable(message: &'static str) -> Refused {
    Refused {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message,
        retry_after_s: Some(RETRY_AFTER_S),
    }
}

/// The moment that a Unix time in seconds stands for.
fn instant_of(unix_s: u64) -> Instant {
    let left_ms = unix_s
        .saturating_mul(1_000)
        .saturating_sub(clock::unix_ms());
    // Timers reach some years; nothing here lives longer.
    const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;
    Instant::now() + Duration::from_millis(left_ms.min(YEAR_MS))
}

/// The function's input. Shape: `{"headers":{…},"path":"/","query_params":{"a":["1","2"]},"addr":"127.0.0.1"}`.
fn auth_input(request: AuthRequest<'_>) -> String {
    let mut out = String::from(r#"{"headers":{"#);
    let mut first = true;
    for name in request.headers.keys() {
        // Of repeated headers the last one counts; what is not visible ASCII is left out.
        let last = request.headers.get_all(name).iter().next_back();
        let Some(value) = last.and_then(|value| value.to_str().ok()) else {
            continue;
        };
        push_separator(&mut out, &mut first);
        push_string(&mut out, name.as_str());
        out.push(':');
        push_string(&mut out, value);
    }
    out.push_str(r#"},"path":"#);
    push_string(&mut out, request.uri.path());
    out.push_str(r#","query_params":{"#);
    let mut first = true;
    for (name, values) in query_params(request.uri.query().unwrap_or_default()) {
        push_separator(&mut out, &mut first);
        push_string(&mut out, &name);
        out.push_str(":[");
        let mut first = true;
        for value in values {
            push_separator(&mut out, &mut first);
            push_string(&mut out, &value);
        }
        out.push(']');
    }
    out.push_str(r#"},"addr":"#);
    push_string(&mut out, &request.addr.to_canonical().to_string());
    out.push('}');
    out
}

fn push_separator(out: &mut String, first: &mut bool) {
    if !std::mem::take(first) {
        out.push(',');
    }
}

/// The parameters of a query, form-decoded, by name in order of appearance.
fn query_params(query: &str) -> indexmap::IndexMap<String, Vec<String>> {
    let mut params = indexmap::IndexMap::<String, Vec<String>>::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !name.is_empty() {
            params
                .entry(name.into_owned())
                .or_default()
                .push(value.into_owned());
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_has_the_documented_shape() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer t".parse().expect("a value"));
        headers.append("x-a", "1".parse().expect("a value"));
        headers.append("x-a", "2".parse().expect("a value"));
        let uri: Uri = "/stream/a/b?room=a&room=b+c%20d&flag&=x"
            .parse()
            .expect("an address");
        let input = auth_input(AuthRequest {
            headers: &headers,
            uri: &uri,
            addr: [127, 0, 0, 1].into(),
        });
        let expected = r#"{"headers":{"authorization":"Bearer t","x-a":"2"},"path":"/stream/a/b","query_params":{"room":["a","b c d"],"flag":[""]},"addr":"127.0.0.1"}"#;
        assert_eq!(input, expected);
    }
}
