//! The server binary of `$III_STREAM_BIN` on free ports, restartable on the same ones, and plain subscribers of it.

use crate::{WAIT, unique, within};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

pub struct Server {
    child: Child,
    folder: PathBuf,
    silent: mpsc::Receiver<()>,
    pub workers: String,
    pub subscribers: String,
}

impl Server {
    pub fn start() -> Self {
        Self::start_on(0, 0)
    }

    fn start_on(workers: u16, subscribers: u16) -> Self {
        let folder = std::env::temp_dir().join(format!(
            "iii-stream-{}-{}",
            std::process::id(),
            unique("rust-sdk")
        ));
        std::fs::create_dir_all(&folder).expect("a folder for the server");
        let entry = |name: &str, port: u16| {
            format!("- name: {name}\n  config:\n    port: {port}\n    host: 127.0.0.1\n")
        };
        let config = folder.join("config.yaml");
        std::fs::write(
            &config,
            entry("iii-stream", subscribers) + &entry("iii-worker-manager", workers),
        )
        .expect("the configuration");
        let binary =
            std::env::var("III_STREAM_BIN").expect("$III_STREAM_BIN names the server binary");
        let mut child = Command::new(&binary)
            .args(["--config".as_ref(), config.as_os_str()])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {binary}: {error}"));
        // It prints both addresses, or ends and thereby ends its output.
        let (mut workers, mut subscribers) = (None, None);
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        while workers.is_none() || subscribers.is_none() {
            let line = output
                .next()
                .expect("the server prints both addresses")
                .expect("as text");
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["workers", url, ..] => workers = Some(url.to_owned()),
                ["subscribers", url, ..] => subscribers = Some(url.to_owned()),
                _ => {}
            }
        }
        // Somebody must read on, or the server would block on a full pipe one day; its output ends when it does.
        let (says, silent) = mpsc::channel();
        std::thread::spawn(move || {
            output.for_each(drop);
            says.send(())
        });
        Self {
            child,
            folder,
            silent,
            workers: workers.expect("read"),
            subscribers: subscribers.expect("read"),
        }
    }

    /// Ends the server by SIGTERM and starts another on the same ports.
    pub fn restart(&mut self) {
        let port = |url: &str| {
            url.rsplit(':')
                .next()
                .and_then(|text| text.trim_end_matches('/').parse().ok())
                .expect("a port")
        };
        let (workers, subscribers) = (port(&self.workers), port(&self.subscribers));
        let told = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(told.success());
        self.silent
            .recv_timeout(WAIT)
            .expect("the server ends after SIGTERM");
        let status = self.child.wait().expect("its state");
        assert!(
            status.success(),
            "the server ended with {status} after SIGTERM"
        );
        *self = Self::start_on(workers, subscribers);
    }

    pub async fn subscriber(&self) -> Subscriber {
        let unlimited = WebSocketConfig::default()
            .max_frame_size(None)
            .max_message_size(None);
        let connecting = connect_async_with_config(&self.subscribers, Some(unlimited), false);
        let (socket, _) = within("a subscriber connection", connecting)
            .await
            .expect("the server accepts");
        Subscriber { socket }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Failing here would hide the test's own failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A subscriber connection: there is no Rust stream client.
pub struct Subscriber {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Subscriber {
    pub async fn next(&mut self) -> Value {
        loop {
            match within("a frame", self.socket.next())
                .await
                .expect("the connection lives")
                .expect("a frame")
            {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) => {}
                other => panic!("an unexpected frame: {other:?}"),
            }
        }
    }

    /// Joins and returns the type of the frame that answers.
    pub async fn join(
        &mut self,
        subscription: &str,
        stream: &str,
        group: &str,
        item: Option<&str>,
    ) -> String {
        let mut data =
            json!({"subscriptionId": subscription, "streamName": stream, "groupId": group});
        if let Some(item) = item {
            data["id"] = item.into();
        }
        let join = json!({"type": "join", "data": data}).to_string();
        self.socket
            .send(Message::text(join))
            .await
            .expect("the join is sent");
        loop {
            let frame = self.next().await;
            let kind = frame["event"]["type"].as_str().expect("an event type");
            if frame["groupId"] == group && matches!(kind, "sync" | "unauthorized") {
                return kind.to_owned();
            }
        }
    }

    pub async fn close(mut self) {
        self.socket.close(None).await.expect("the close is sent");
        // The server's close frame ends the stream.
        within("the close handshake", async {
            while self.socket.next().await.is_some_and(|frame| frame.is_ok()) {}
        })
        .await;
    }
}
