//! Where a Redis server is, and who we are there. The password is shown nowhere.

use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::error::RedisStartError;

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// As whom, and in which database, we work at a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<Arc<str>>,
    pub(super) password: Option<Arc<str>>,
    pub(super) database: i64,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Login")
            .field("user", &self.user)
            .field("has_password", &self.password.is_some())
            .field("database", &self.database)
            .finish()
    }
}

/// Whether an address can be used, as far as can be told without asking for it.
///
/// Errors: [`RedisStartError::Url`].
pub fn check_url(url: &str) -> Result<(), RedisStartError> {
    read_url(url).map(|_| ())
}

/// Reads `redis://[user[:password]@]host[:port][/database]`, or only `host[:port]`.
pub(super) fn read_url(url: &str) -> Result<(Address, Login), RedisStartError> {
    let url = url.trim();
    let invalid = |problem: String| RedisStartError::Url {
        url: without_login(url),
        problem,
    };
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        None | Some("redis") => {}
        Some("rediss") => {
            return Err(invalid(
                "this build has no TLS; use redis:// within a private network, or a TLS proxy on this machine".to_owned(),
            ));
        }
        Some(other) => {
            return Err(invalid(format!(
                "the scheme `{other}` is not known; use redis://"
            )));
        }
    }
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if host.is_empty() || host.starts_with([':', '/']) {
        return Err(invalid("it names no host".to_owned()));
    }
    let full = match scheme {
        None => format!("redis://{url}"),
        Some(_) => url.to_owned(),
    };
    let info = full.as_str().into_connection_info().map_err(|_| {
        invalid("it must be redis://[user[:password]@]host[:port][/database]".to_owned())
    })?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(invalid("only TCP addresses are possible".to_owned()));
    };
    // A literal IPv6 address stands in brackets only where a port follows.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let redis = info.redis_settings();
    let login = Login {
        user: redis.username().map(Arc::from),
        password: redis.password().map(Arc::from),
        database: redis.db(),
    };
    Ok((Address::new(host, *port), login))
}

/// A URL as it may be shown.
fn without_login(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://{}", &url[..scheme], &url[at + 1..])
        }
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let (address, login) = read_url("redis://ann:s%40cret@db.example:7000/2").expect("a URL");
        assert_eq!(address, Address::new("db.example", 7000));
        assert_eq!(login.user.as_deref(), Some("ann"));
        assert_eq!(login.password.as_deref(), Some("s@cret"));
        assert_eq!(login.database, 2);
        let (address, login) = read_url("localhost").expect("a host");
        assert_eq!(address.to_string(), "localhost:6379");
        assert_eq!(login, Login::default());
        let (address, _) = read_url("redis://[::1]:7000").expect("an IPv6 address");
        assert_eq!(address.to_string(), "[::1]:7000");
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "rediss://ann:secret@db.example",
            "http://ann:secret@db.example",
            "redis://ann:secret@db.example:port",
            "ann:secret@db.example:port",
            "redis://ann:secret@db.example:99999",
            "redis://ann:secret@db.example/db",
        ] {
            let error = read_url(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.contains("db.example"), "{error}");
        }
        let (_, login) = read_url("redis://ann:secret@db.example").expect("a URL");
        assert!(!format!("{login:?}").contains("secret"));
    }
}
