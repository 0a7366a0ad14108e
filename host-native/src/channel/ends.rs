//! The two ends of a channel on their sockets: frames go from one to the other unchanged, at the speed of the slower.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper_tungstenite::{HyperWebsocket, HyperWebsocketStream};
use tokio_tungstenite::tungstenite::Message;

use super::table::{End, ReadEnd, WriteEnd};
use crate::socket::{CloseCode, Connection, Incoming, Limits};

/// How long the reader's client may take to close after the last message.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves one end until it is over.
pub async fn serve(socket: HyperWebsocket, end: End, limits: Limits) {
    match end {
        End::Write(end) => {
            if let Ok(connection) = Connection::open(socket, limits).await {
                write(connection, end).await;
            }
        }
        End::Read(end) => {
            if let Ok(socket) = socket.await {
                read(socket, end, limits).await;
            }
        }
        End::Taken => {
            if let Ok(mut socket) = socket.await {
                // The client is told that there is nothing for it; if it is gone, so be it.
                let _ = socket.close(None).await;
            }
        }
    }
}

async fn write(mut connection: Connection, end: WriteEnd) {
    let outbox = connection.outbox().clone();
    while let Ok(incoming) = connection.next().await {
        let message = match incoming {
            // Nothing is ever sent to the writer but pings and the close.
            Incoming::Room => continue,
            Incoming::Text(text) => Message::Text(text),
            Incoming::Binary(bytes) => Message::Binary(bytes),
        };
        if !end.put(message).await {
            outbox.close(CloseCode::GoingAway);
        }
    }
}

async fn read(mut socket: HyperWebsocketStream, mut end: ReadEnd, limits: Limits) {
    let mut heartbeat = tokio::time::interval(limits.ping_interval);
    loop {
        tokio::select! {
            message = end.take() => match message {
                Some((message, place)) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                    drop(place);
                }
                None => break,
            },
            incoming = socket.next() => match incoming {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
            _ = heartbeat.tick() => {
                if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
            }
        }
    }
    // The close handshake; a peer that does not do its part is cut off.
    let close = async {
        if socket.close(None).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, close).await;
}
