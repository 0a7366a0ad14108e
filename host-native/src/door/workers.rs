//! The workers' door: `/` for workers, `/otel` for telemetry, `/ws/channels/{id}` for channels. Source: worker protocol,
//! section 1.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode, Uri};
use tokio::net::TcpListener;

use super::{DoorContext, HttpResponse, Permit, Room, accept, not_found};
use crate::channel::{self, Channels, Direction};
use crate::metrics::Port;
use crate::socket::{self, Patience, Refused};
use crate::worker::{self, Workers};

/// What connections to the worker port need.
#[derive(Clone)]
pub struct WorkerDoor {
    /// Who is connected.
    pub workers: Arc<Workers>,
    /// Pipes between them.
    pub channels: Arc<Channels>,
    /// What workers must show.
    pub token: Option<Arc<str>>,
    /// Who may come in at all, and where they are counted.
    pub context: DoorContext,
}

/// Serves the port until dropped.
pub async fn accept_workers(listener: TcpListener, door: WorkerDoor) {
    let limits = door.workers.limits;
    let room = Room::new(
        Port::Workers,
        door.context.metrics.clone(),
        limits.connections_max,
        limits.connections_max,
    );
    accept(listener, room, |stream, addr, permit| {
        let door = door.clone();
        async move {
            let patience = Patience {
                handshake_time_max: limits.handshake_time_max,
                // Answers are short here, and a channel's writer waits for its reader.
                blocked_time_max: None,
                unsent_bytes_max: None,
                unconfirmed_time_max: None,
            };
            socket::serve_http(stream, patience, |request, _| {
                let answer = answer_worker(request, addr, &door, &permit)
                    .unwrap_or_else(|refused| door.context.refuse(Port::Workers, &refused));
                async { answer }
            })
            .await;
        }
    })
    .await;
}

fn answer_worker(
    mut request: Request<Incoming>,
    addr: SocketAddr,
    door: &WorkerDoor,
    permit: &Permit,
) -> Result<HttpResponse, Refused> {
    door.context.check_open()?;
    let Some(purpose) = Purpose::of(request.uri()) else {
        return Err(not_found(
            "workers connect to /, telemetry to /otel, channels to /ws/channels/{id}",
        ));
    };
    if let Some(token) = door.token.as_deref()
        // A channel has a key of its own.
        && !matches!(purpose, Purpose::Channel { .. })
        && !has_bearer(&request, token)
    {
        return Err(Refused {
            status: StatusCode::UNAUTHORIZED,
            message: "this server asks workers for a token: Authorization: Bearer …",
            retry_after_s: None,
        });
    }
    let limits = door.workers.limits.connection;
    let (response, websocket) = socket::upgrade(&mut request, limits)?;
    let end = match &purpose {
        Purpose::Channel { id, key, direction } => {
            Some(door.take_channel(id, key.as_deref(), *direction)?)
        }
        Purpose::Worker | Purpose::Telemetry => None,
    };
    let workers = door.workers.clone();
    let permit = permit.clone();
    tokio::spawn(async move {
        match (purpose, end) {
            (_, Some(end)) => channel::serve(websocket, end, limits).await,
            (Purpose::Telemetry, None) => worker::discard_telemetry(websocket, &workers).await,
            (_, None) => {
                socket::corked(worker::serve(websocket, workers, addr.ip().to_canonical())).await;
            }
        }
        drop(permit);
    });
    Ok(response)
}

/// What a connection to the worker port is for.
enum Purpose {
    Worker,
    Telemetry,
    Channel {
        id: String,
        key: Option<String>,
        direction: Option<Direction>,
    },
}

impl Purpose {
    fn of(uri: &Uri) -> Option<Self> {
        match uri.path() {
            "/" => return Some(Self::Worker),
            "/otel" => return Some(Self::Telemetry),
            _ => {}
        }
        let id = uri
            .path()
            .strip_prefix("/ws/channels/")
            .filter(|id| !id.is_empty() && !id.contains('/'))?;
        let query = uri.query().unwrap_or_default();
        let param = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned())
        };
        let direction = match param("dir").as_deref() {
            Some("read") => Some(Direction::Read),
            Some("write") => Some(Direction::Write),
            _ => None,
        };
        Some(Self::Channel {
            id: id.to_owned(),
            key: param("key"),
            direction,
        })
    }
}

impl WorkerDoor {
    fn take_channel(
        &self,
        id: &str,
        key: Option<&str>,
        direction: Option<Direction>,
    ) -> Result<channel::End, Refused> {
        let (Some(key), Some(direction)) = (key, direction) else {
            let message = "a channel needs ?key=…&dir=read or dir=write";
            return Err(Refused {
                status: StatusCode::BAD_REQUEST,
                message,
                retry_after_s: None,
            });
        };
        let not_there = || not_found("there is no such channel, or the key is another");
        self.channels.take(id, key, direction).ok_or_else(not_there)
    }
}

fn has_bearer(request: &Request<Incoming>, token: &str) -> bool {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, given)| {
        // Compared without an early end, so that time tells nothing of the token.
        let differs = given
            .bytes()
            .zip(token.bytes())
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && given.len() == token.len() && differs == 0
    })
}
