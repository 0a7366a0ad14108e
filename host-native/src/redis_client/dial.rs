//! Makes a connection: TCP, then `HELLO` with the login, so that both kinds of connection begin alike.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::address::{Address, Login};
use super::resp::Replies;

/// The system asks a silent peer so often by itself; a second line behind our own health checks.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) enum DialError {
    /// No server answers.
    Unreachable(Arc<str>),
    /// The server does not let us in. Trying again does not help until somebody changes something.
    Refused(Arc<str>),
}

impl DialError {
    pub(super) fn why(&self) -> &Arc<str> {
        match self {
            Self::Unreachable(why) | Self::Refused(why) => why,
        }
    }
}

/// A connection that has been greeted.
pub(super) struct Dialed {
    pub(super) stream: TcpStream,
    pub(super) replies: Replies,
    /// As the server tells it, for example `7.0.15`.
    pub(super) version: String,
    /// What it is.
    pub(super) kind: ServerKind,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKind {
    /// A server by itself, perhaps with replicas.
    Standalone,
    /// Part of a cluster.
    Cluster,
    /// It keeps no data, but knows a master.
    Sentinel,
}

/// Connects and greets within a time.
pub(super) async fn dial(
    address: &Address,
    login: &Login,
    time_max: Duration,
) -> Result<Dialed, DialError> {
    match tokio::time::timeout(time_max, greet(address, login)).await {
        Ok(dialed) => dialed,
        Err(_) => Err(DialError::Unreachable("no answer".into())),
    }
}

async fn greet(address: &Address, login: &Login) -> Result<Dialed, DialError> {
    let unreachable = |error: std::io::Error| DialError::Unreachable(error.to_string().into());
    let stream = TcpStream::connect((&*address.host, address.port))
        .await
        .map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(&stream)
        .set_tcp_keepalive(&keepalive)
        .map_err(unreachable)?;
    let mut greeted = Dialed {
        stream,
        replies: Replies::default(),
        version: String::new(),
        kind: ServerKind::Standalone,
    };
    let hello = greeted.ask(&hello(login)).await?;
    if let Value::ServerError(error) = &hello {
        return Err(refusal(
            error.code(),
            error.details().unwrap_or_default(),
            login,
        ));
    }
    if let Value::Map(fields) = &hello {
        for (name, value) in fields {
            match (as_text(name), as_text(value)) {
                (Some("version"), Some(version)) => version.clone_into(&mut greeted.version),
                (Some("mode"), Some("cluster")) => greeted.kind = ServerKind::Cluster,
                (Some("mode"), Some("sentinel")) => greeted.kind = ServerKind::Sentinel,
                _ => {}
            }
        }
    }
    if login.database != 0 {
        let selected = greeted
            .ask(redis::cmd("SELECT").arg(login.database))
            .await?;
        if let Value::ServerError(error) = selected {
            let database = login.database;
            let details = error.details().unwrap_or_default();
            let why = format!("database {database} cannot be selected: {details}");
            return Err(DialError::Refused(why.into()));
        }
    }
    Ok(greeted)
}

impl Dialed {
    /// One command and its answer, before anybody else uses the connection.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, DialError> {
        let unreachable = |error: std::io::Error| DialError::Unreachable(error.to_string().into());
        self.stream
            .write_all(&command.get_packed_command())
            .await
            .map_err(unreachable)?;
        loop {
            let answer = self.replies.next();
            let answer = answer.map_err(|error| {
                DialError::Refused(format!("what answers there is no Redis ({error})").into())
            });
            if let Some(value) = answer? {
                return Ok(value);
            }
            let read = self.replies.read_more(&mut self.stream).await;
            if read.map_err(unreachable)? == 0 {
                return Err(DialError::Unreachable("the server hung up".into()));
            }
        }
    }
}

fn hello(login: &Login) -> Cmd {
    let mut hello = redis::cmd("HELLO");
    hello.arg(3);
    if let Some(password) = &login.password {
        let user = login.user.as_deref().unwrap_or("default");
        hello.arg("AUTH").arg(user).arg(&**password);
    }
    hello.arg("SETNAME").arg("iii-stream");
    hello
}

/// What the refusal of `HELLO` means for an operator.
fn refusal(code: &str, details: &str, login: &Login) -> DialError {
    let user = login.user.as_deref().unwrap_or("default");
    match code {
        "LOADING" | "MASTERDOWN" | "BUSY" => {
            DialError::Unreachable(format!("it answers {code} {details}").into())
        }
        "NOAUTH" => DialError::Refused(
            "it wants a password; put one into `redis_url`: redis://:PASSWORD@HOST".into(),
        ),
        "WRONGPASS" => DialError::Refused(
            format!(
                "user name or password of user `{user}` in `redis_url` is wrong, or the user is off"
            )
            .into(),
        ),
        "NOPERM" => {
            DialError::Refused(format!("user `{user}` may not even say HELLO: {details}").into())
        }
        "NOPROTO" => DialError::Refused("it has no RESP3; Redis 7.0 or newer is needed".into()),
        "ERR" if details.starts_with("unknown command") => {
            DialError::Refused("it does not know HELLO; Redis 7.0 or newer is needed".into())
        }
        "ERR" if details.contains("max number of clients") => {
            DialError::Unreachable("it has no room for another connection (maxclients)".into())
        }
        _ => DialError::Refused(format!("it answers {code} {details}").into()),
    }
}

/// A text value of the server.
pub(super) fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}
