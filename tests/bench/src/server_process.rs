//! Starts the release server on free ports, with the store that is asked for, and ends it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use iii_stream::bench::target::Target;
use tempfile::TempDir;

use crate::child::OwnChild;

const CONFIG_HEAD: &str = "\
- name: iii-worker-manager
  config:
    port: 0
    host: 127.0.0.1
- name: iii-stream
  config:
    port: 0
    host: 127.0.0.1
    admin_port: 0
";

/// No start takes this long, however much it finds.
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// Keys of the store's adapter and their values.
pub(crate) type StoreKeys<'a> = &'a [(&'a str, &'a str)];

/// Everything in memory.
const IN_MEMORY: StoreKeys<'static> = &[("store_method", "in_memory")];

/// A running server.
pub(crate) struct ServerProcess {
    pub(crate) child: OwnChild,
    /// Where workers connect.
    pub(crate) workers: SocketAddr,
    /// Where subscribers connect.
    pub(crate) subscribers: SocketAddr,
    /// Where the metrics are.
    pub(crate) admin: SocketAddr,
    /// Its own, unless its folder is somebody else's.
    folder: Option<TempDir>,
}

/// Starts the server with everything in memory and waits for the lines that name its ports.
pub(crate) fn start(binary: &Path) -> io::Result<ServerProcess> {
    start_with(binary, IN_MEMORY)
}

/// The same with another store, in a folder that goes when the server does.
pub(crate) fn start_with(binary: &Path, store: StoreKeys<'_>) -> io::Result<ServerProcess> {
    start_on(binary, "kv", store)
}

/// The same with a store by another adapter.
pub(crate) fn start_on(
    binary: &Path,
    adapter: &str,
    store: StoreKeys<'_>,
) -> io::Result<ServerProcess> {
    let folder = tempfile::tempdir()?;
    let mut server = start_with_adapter(binary, folder.path(), adapter, store)?;
    server.folder = Some(folder);
    Ok(server)
}

/// The same in a folder that stays, where it may find what another has left.
pub(crate) fn start_in(
    binary: &Path,
    folder: &Path,
    store: StoreKeys<'_>,
) -> io::Result<ServerProcess> {
    start_with_adapter(binary, folder, "kv", store)
}

fn start_with_adapter(
    binary: &Path,
    folder: &Path,
    adapter: &str,
    store: StoreKeys<'_>,
) -> io::Result<ServerProcess> {
    let config = folder.join("config.yaml");
    let keys = store
        .iter()
        .map(|(key, value)| format!("        {key}: {value}\n"));
    std::fs::write(
        &config,
        format!(
            "{CONFIG_HEAD}    adapter:\n      name: {adapter}\n      config:\n{}",
            keys.collect::<String>()
        ),
    )?;
    let log = folder.join("server.log");
    let mut child = OwnChild::new(
        Command::new(binary.canonicalize()?)
            .arg("--config")
            .arg(&config)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?,
    );
    let lines = child.handle().stdout.take().map(read_lines);
    let lines = lines.ok_or_else(|| io::Error::other("the server has no standard output"))?;
    let next = |name| address(&lines, name).map_err(|error| with_log(&error, &log));
    Ok(ServerProcess {
        workers: next("workers")?,
        subscribers: next("subscribers")?,
        admin: next("admin")?,
        child,
        folder: None,
    })
}

impl ServerProcess {
    /// It, for the loads of `iii-stream bench`.
    pub(crate) fn target(&self) -> Target {
        Target {
            worker_url: format!("ws://{}", self.workers),
            url: format!("ws://{}", self.subscribers),
            token: None,
            pid: Some(self.child.pid()),
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// Errors: what it said, if it does not end well.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        let pid = self.child.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = self.child.handle().wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the server ended: {status}")))
        }
    }
}

/// The binary asked for, else the one built beside this program, else the one in target/release.
pub(crate) fn find_binary(asked: Option<&Path>) -> io::Result<PathBuf> {
    const NAME: &str = "iii-stream";
    let beside = std::env::current_exe()?.with_file_name(NAME);
    let built = Path::new("target/release").join(NAME);
    let candidates = asked.map_or_else(|| vec![beside, built], |path| vec![path.to_owned()]);
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            io::Error::other(
                "no server binary: build it with `cargo build --release`, or name it with --server",
            )
        })
}

/// Reads the server's output to its end, so that it never waits for us to.
fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens once the address is known.
            let _ = sender.send(line);
        }
    });
    lines
}

/// The address that the next line with this name tells.
fn address(lines: &Receiver<String>, name: &str) -> io::Result<SocketAddr> {
    loop {
        match lines.recv_timeout(START_TIME_MAX) {
            Ok(line) => {
                if let Some(address) = parse_address(&line, name) {
                    return Ok(address);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(io::Error::other("the server does not say where it listens"));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the server ended while starting"));
            }
        }
    }
}

/// What the server said before it failed is the reason.
fn with_log(error: &io::Error, log: &Path) -> io::Error {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    io::Error::other(format!("{error}\n{}", said.trim_end()))
}

/// `workers      ws://127.0.0.1:PORT`, or with `http`.
fn parse_address(line: &str, name: &str) -> Option<SocketAddr> {
    let (_, address) = line.trim().strip_prefix(name)?.split_once("://")?;
    address.trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_line_is_understood() {
        let found = parse_address("workers      ws://127.0.0.1:49134", "workers");
        assert_eq!(found, Some(SocketAddr::from(([127, 0, 0, 1], 49134))));
        assert_eq!(
            parse_address("subscribers  ws://127.0.0.1:3112", "workers"),
            None
        );
    }
}
