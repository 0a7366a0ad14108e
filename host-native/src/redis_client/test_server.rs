//! Real Redis servers for tests: started on free ports of the loopback, in folders of their own, ended when dropped.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Channel, RedisClient, RedisMode, RedisOptions, Slot};
use crate::metrics::Metrics;

/// A server has to answer so soon after its start.
const START_MAX: Duration = Duration::from_secs(10);

/// Whether there is a `redis-server`; says so where there is none.
pub(crate) fn is_installed() -> bool {
    let is_installed = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !is_installed {
        eprintln!("skipped: there is no redis-server on this machine");
    }
    is_installed
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// One `redis-server`.
pub(crate) struct TestServer {
    pub(crate) port: u16,
    folder: TempDir,
    settings: Vec<String>,
    process: Option<Child>,
    config: Option<PathBuf>,
}

impl TestServer {
    /// A server that keeps its data across [`TestServer::restart`].
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A server with settings of its own, as on the command line.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::new(settings);
        server.restart();
        server
    }

    fn new(settings: &[&str]) -> Self {
        Self {
            port: free_port(),
            folder: tempfile::tempdir().expect("a folder"),
            settings: settings.iter().map(|&text| text.to_owned()).collect(),
            process: None,
            config: None,
        }
    }

    /// A replica of another server, in step with it.
    pub(crate) fn start_replica_of(master: &Self) -> Self {
        let port = master.port.to_string();
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &port]);
        let begin = Instant::now();
        while !replica
            .ask(&["INFO", "replication"])
            .contains("master_link_status:up")
        {
            assert!(begin.elapsed() < START_MAX, "the replica is not in step");
            std::thread::sleep(Duration::from_millis(10));
        }
        replica
    }

    /// A sentinel that alone decides about a master, which it calls `main`.
    pub(crate) fn start_sentinel_of(master: &Self) -> Self {
        let mut sentinel = Self::new(&["--sentinel"]);
        let config = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n",
            master.port
        );
        let file = sentinel.folder.path().join("sentinel.conf");
        std::fs::write(&file, config).expect("a file");
        sentinel.config = Some(file);
        sentinel.restart();
        // Else it looks only every 10 s who is a master.
        let faster = ["SENTINEL", "DEBUG", "info-period", "100"];
        assert!(sentinel.ask(&faster).starts_with("+OK"));
        sentinel
    }

    /// Starts it again on the same port, in the same folder.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let process = Command::new("redis-server")
            .args(&self.config)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--loglevel", "warning", "--daemonize", "no"])
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.process = Some(process);
        let begin = Instant::now();
        while !["+PONG", "-NOAUTH"]
            .iter()
            .any(|running| self.ask(&["PING"]).starts_with(running))
        {
            assert!(begin.elapsed() < START_MAX, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the process is ours");
            process.wait().expect("the process is ours");
        }
    }

    /// Stops it without ending it: its connections stay, nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Goes on after [`TestServer::pause`].
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        let status = Command::new("kill")
            .args([&format!("-{name}"), &process.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// What the server answers to a command, as on the wire (RESP2), or nothing where it does not run.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        ask(self.port, words)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Options that reach it.
    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions {
            nodes: vec![self.url()],
            mode: RedisMode::Single,
            ..RedisOptions::default()
        }
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> std::sync::Arc<RedisClient> {
        let connected = RedisClient::connect(self.options(), Metrics::default().into()).await;
        connected.expect("the server runs")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a server on this machine answers to a command, as on the wire (RESP2).
pub(crate) fn ask(port: u16, words: &[&str]) -> String {
    use std::io::Write;

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return String::new();
    };
    let time = Some(Duration::from_secs(10));
    stream.set_read_timeout(time).expect("a time limit");
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _ = stream.write_all(&command.get_packed_command());
    let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
    while redis::parse_redis_value(&answer).is_err() {
        match stream.read(&mut bytes) {
            Ok(length) if length > 0 => answer.extend_from_slice(&bytes[..length]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A channel that belongs to the slot of its name.
pub(crate) fn channel(name: &str) -> Channel {
    Channel {
        name: name.into(),
        slot: Some(Slot::of(name.as_bytes())),
    }
}
