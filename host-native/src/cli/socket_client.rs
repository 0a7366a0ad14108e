//! The client side of a WebSocket, for the commands that talk to a running server.

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Failure;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects, or says in one line why not.
pub(super) async fn connect(url: &str) -> Result<Socket, Failure> {
    match tokio_tungstenite::connect_async(url).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Io(error)) => Err(format!(
            "cannot reach {url}: {error}. Is the server running? Start it with: iii-stream"
        )
        .into()),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let said = String::from_utf8_lossy(body);
            Err(format!("{url} answered {}: {}", response.status(), said.trim()).into())
        }
        Err(error) => Err(format!("cannot connect to {url}: {error}").into()),
    }
}
