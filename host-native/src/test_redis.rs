//! A redis-server for a test of this crate: on a free port, in a folder of its own, ended with the test.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection};

/// How long a server may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// How often a server that starts is asked whether it does.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// See the module.
pub(crate) struct TestRedis {
    child: Child,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl TestRedis {
    /// Starts one; `None`, with a printed reason, where there is no redis-server.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: redis-server cannot be started ({error}); run: make setup");
                return None;
            }
        };
        let this = Self {
            child,
            port,
            _folder: folder,
        };
        let begun = Instant::now();
        while this.try_connect().is_none() {
            assert!(
                begun.elapsed() < START_TIME_MAX,
                "redis-server does not start"
            );
            std::thread::sleep(LOOK_INTERVAL);
        }
        Some(this)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A plain connection, as another program would have one.
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().expect("a connection")
    }

    fn try_connect(&self) -> Option<Connection> {
        let mut redis = Client::open(self.url()).ok()?.get_connection().ok()?;
        let pong: redis::RedisResult<String> = redis::cmd("PING").query(&mut redis);
        pong.ok().map(|_| redis)
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
