//! The admin listener: shows health, readiness and metrics to whoever operates the server. Changes nothing, and knows
//! neither streams nor workers.

mod pages;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

pub use pages::{Inspect, StoreHealth};

use crate::door::{Room, accept};
use crate::metrics::{Metrics, Port};

/// Connections to the admin listener at one time; one more is closed at accept.
pub const CONNECTIONS_MAX: usize = 64;

/// How long one connection may take for its request and for reading the answer, after which it is closed. Each serves one
/// request.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// Serves the listener until dropped.
pub async fn serve(listener: TcpListener, inspect: Arc<dyn Inspect>, metrics: Arc<Metrics>) {
    let room = Room::new(Port::Admin, metrics, CONNECTIONS_MAX, CONNECTIONS_MAX);
    accept(listener, room, |stream, _addr, permit| {
        let inspect = inspect.clone();
        async move {
            let serving = serve_connection(stream, inspect);
            if tokio::time::timeout(CONNECTION_TIME_MAX, serving)
                .await
                .is_err()
            {
                tracing::debug!("admin connection took too long");
            }
            drop(permit);
        }
    })
    .await;
}

async fn serve_connection(stream: TcpStream, inspect: Arc<dyn Inspect>) {
    let service = service_fn(|request| {
        let inspect = inspect.clone();
        async move { Ok::<_, Infallible>(pages::answer(&request, inspect).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection broke");
    }
}
