//! `/otel`: the telemetry that every SDK sends is read and dropped, so that SDKs do not complain. Source: worker
//! protocol, section 12.

use hyper_tungstenite::HyperWebsocket;

use super::workers::Workers;
use crate::socket::{Connection, Outbox};

/// Reads one connection until it ends.
pub async fn discard_telemetry(socket: HyperWebsocket, workers: &Workers) {
    let Ok(socket) = socket.await else { return };
    let outbox = Outbox::new(workers.limits.queue_bytes_max);
    let mut connection = Connection::new(socket, workers.limits.connection);
    while connection.next(&outbox).await.is_ok() {}
}
