//! The client side of a WebSocket, for the commands that talk to a running server.

use hyper::header::AUTHORIZATION;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Failure;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects, or says in one line why not. Shows the token that the environment variable `III_TOKEN` holds.
pub(super) async fn connect(url: &str) -> Result<Socket, Failure> {
    let invalid = |error| format!("{url} is no WebSocket address: {error}");
    let mut request = url.into_client_request().map_err(invalid)?;
    if let Some(token) = std::env::var("III_TOKEN")
        .ok()
        .filter(|token| !token.is_empty())
    {
        let value = format!("Bearer {token}")
            .parse()
            .map_err(|_| "III_TOKEN holds characters that no header may hold")?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    // A list comes in one frame, however long it is, and whoever asks for it wants it.
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    match tokio_tungstenite::connect_async_with_config(request, Some(config), false).await {
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
