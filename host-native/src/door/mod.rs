//! The two doors: accepts connections, keeps count of them, and sends each to where its request asks. Knows no messages.

mod subscribers;
mod workers;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

pub use subscribers::{SubscriberDoor, accept_subscribers};
pub use workers::{WorkerDoor, accept_workers};

use crate::socket::Refused;

/// How long accepting pauses when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type HttpResponse = Response<Full<Bytes>>;

/// What a connection holds for as long as it lives.
type Permit = Arc<Place>;

/// Accepts connections and gives each a task, as long as there is room for one.
async fn accept<F, R>(listener: TcpListener, room: Room, serve: F)
where
    F: Fn(TcpStream, SocketAddr, Permit) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(room);
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => match Room::enter(&room, addr.ip().to_canonical()) {
                Some(permit) => drop(tokio::spawn(serve(stream, addr, Arc::new(permit)))),
                None => tracing::warn!(%addr, "connection refused: there are too many"),
            },
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How many connections there may be, in all and of each address.
struct Room {
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
struct Place {
    room: Arc<Room>,
    addr: IpAddr,
}

impl Room {
    fn new(connections_max: usize, per_address_max: usize) -> Self {
        Self {
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
