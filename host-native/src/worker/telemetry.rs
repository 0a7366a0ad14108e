//! `/otel`: the telemetry that every SDK sends is read and dropped, so that SDKs do not complain. Source: worker
//! protocol, section 12.

use hyper_tungstenite::HyperWebsocket;

use super::workers::Workers;
use crate::socket::Connection;

/// Reads one connection until it ends.
pub async fn discard_telemetry(socket: HyperWebsocket, workers: &Workers) {
    let limits = workers.limits.connection;
    if let Ok(mut connection) = Connection::open(socket, limits).await {
        while connection.next().await.is_ok() {}
    }
}
