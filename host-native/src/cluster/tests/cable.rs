//! A cable to a server on this machine that a test can cut: what is connected falls silent or ends, nobody new gets through.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(super) struct Cable {
    port: u16,
    is_cut: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl Cable {
    pub(super) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let own_port = listener.local_addr().expect("its address").port();
        let is_cut = Arc::new(watch::Sender::new(false));
        let cut = is_cut.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut cut = cut.subscribe();
                if !*cut.borrow() {
                    tokio::spawn(async move {
                        tokio::select! {
                            () = carry(client, port) => {}
                            _ = cut.wait_for(|is_cut| *is_cut) => {}
                        }
                    });
                }
            }
        });
        Self {
            port: own_port,
            is_cut,
            accepting,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(super) fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, port: u16) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    // Either end may go at any time.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
