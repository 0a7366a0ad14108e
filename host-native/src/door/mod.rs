//! The doors: accepts connections, keeps count of them, and sends each to where its request asks. Knows no messages.

mod subscribers;
mod workers;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

pub use subscribers::{SubscriberDoor, accept_subscribers};
pub use workers::{WorkerDoor, accept_workers};

use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, Port};
use crate::socket::{self, Refused};

/// When somebody who was sent away by a stop may come back, in seconds.
const RETRY_AFTER_STOP_S: u32 = 2;

/// How long accepting pauses when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) type HttpResponse = Response<Full<Bytes>>;

/// What a connection holds for as long as it lives.
pub(crate) type Permit = Arc<Place>;

/// What both doors need.
#[derive(Clone)]
pub struct DoorContext {
    /// Whether anybody may come in.
    pub lifecycle: Arc<Lifecycle>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

impl DoorContext {
    /// Answers a request with a refusal.
    fn refuse(&self, port: Port, refused: &Refused) -> HttpResponse {
        let status = refused.status.as_u16();
        self.metrics.requests_refused.of(port).inc(status);
        let mut response = socket::refuse(refused);
        if self.lifecycle.is_draining() {
            // There will be nobody to ask again.
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Lets nobody in from the moment a stop begins: whoever asked before and is still being asked about comes too late.
    ///
    /// Errors: [`Refused`] with 503.
    fn check_open(&self) -> Result<(), Refused> {
        if !self.lifecycle.is_draining() {
            return Ok(());
        }
        Err(Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "this server stops",
            retry_after_s: Some(RETRY_AFTER_STOP_S),
        })
    }
}

/// Accepts connections and gives each a task, as long as there is room for one.
pub(crate) async fn accept<F, R>(listener: TcpListener, room: Room, serve: F)
where
    F: Fn(TcpStream, SocketAddr, Permit) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(room);
    let (mut refusals, mut errors) = (0_u64, 0_u64);
    // Told at the 1st, 2nd, 4th, 8th … time, so that the log does not drown.
    let is_told = |count: &mut u64| {
        *count += 1;
        count.is_power_of_two()
    };
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => match Room::enter(&room, addr.ip().to_canonical()) {
                Some(permit) => drop(tokio::spawn(serve(stream, addr, Arc::new(permit)))),
                None => {
                    room.metrics.connections_refused.of(room.port).inc();
                    if is_told(&mut refusals) {
                        tracing::warn!(%addr, refusals, "connection refused: there are too many");
                    }
                }
            },
            Err(error) => {
                room.metrics.accept_errors.of(room.port).inc();
                if is_told(&mut errors) {
                    tracing::error!(%error, errors, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How many connections there may be, in all and of each address.
pub(crate) struct Room {
    port: Port,
    metrics: Arc<Metrics>,
    connections_max: usize,
    per_address_max: usize,
    inside: Mutex<Inside>,
}

/// Who is inside.
#[derive(Default)]
struct Inside {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place, given up when dropped.
pub(crate) struct Place {
    room: Arc<Room>,
    addr: IpAddr,
}

impl Room {
    pub(crate) fn new(
        port: Port,
        metrics: Arc<Metrics>,
        connections_max: usize,
        per_address_max: usize,
    ) -> Self {
        Self {
            port,
            metrics,
            connections_max,
            per_address_max,
            inside: Mutex::default(),
        }
    }

    fn enter(this: &Arc<Self>, addr: IpAddr) -> Option<Place> {
        let mut inside = this.inside.lock();
        let own = inside.by_address.get(&addr).copied().unwrap_or(0);
        if this.connections_max <= inside.all || this.per_address_max <= own {
            return None;
        }
        inside.all += 1;
        this.metrics.connections.of(this.port).inc();
        this.metrics.connections_total.of(this.port).inc();
        inside.by_address.insert(addr, own + 1);
        Some(Place {
            room: this.clone(),
            addr,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.room.inside.lock();
        inside.all -= 1;
        self.room.metrics.connections.of(self.room.port).dec();
        if let Some(own) = inside.by_address.get_mut(&self.addr) {
            *own -= 1;
            if *own == 0 {
                inside.by_address.remove(&self.addr);
            }
        }
    }
}

fn not_found(message: &'static str) -> Refused {
    Refused {
        status: StatusCode::NOT_FOUND,
        message,
        retry_after_s: None,
    }
}
