//! Which server the load goes to: addresses, token, process.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use clap::Args;

use super::process_cost;

/// The options that all loads share.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Where the server takes workers.
    #[arg(
        long,
        value_name = "URL",
        default_value = "ws://127.0.0.1:49134",
        global = true
    )]
    pub worker_url: String,
    /// Where the server takes subscribers.
    #[arg(
        long,
        value_name = "URL",
        default_value = "ws://127.0.0.1:3112",
        global = true
    )]
    pub url: String,
    /// The token of the worker port; without it the environment variable III_TOKEN.
    #[arg(long, value_name = "TOKEN", global = true)]
    pub token: Option<String>,
    /// The server's process on this machine: tells its CPU time and memory too.
    #[arg(long, value_name = "PID", global = true)]
    pub pid: Option<u32>,
}

impl Target {
    /// The worker port.
    pub fn workers(&self) -> io::Result<SocketAddr> {
        resolve(&self.worker_url, "--worker-url")
    }

    /// The subscriber port.
    pub fn subscribers(&self) -> io::Result<SocketAddr> {
        resolve(&self.url, "--url")
    }

    /// The token to show, if there is one.
    pub fn token(&self) -> Option<String> {
        let environment = || std::env::var("III_TOKEN").ok();
        self.token
            .clone()
            .or_else(environment)
            .filter(|token| !token.is_empty())
    }

    /// The server's process, if it was named and is there.
    pub fn process(&self) -> io::Result<Option<u32>> {
        let readable = |pid| match process_cost::cpu(pid) {
            Ok(_) => Ok(pid),
            Err(error) => Err(io::Error::other(format!(
                "--pid {pid}: {error}; it must be the server's, on this machine"
            ))),
        };
        self.pid.map(readable).transpose()
    }
}

/// The address in `ws://host:port`.
fn resolve(url: &str, option: &str) -> io::Result<SocketAddr> {
    let wrong = |why: String| io::Error::other(format!("{option} {url}: {why}"));
    let Some(rest) = url.strip_prefix("ws://") else {
        return Err(wrong("give it as ws://HOST:PORT".into()));
    };
    let host = rest.trim_end_matches('/');
    let with_port = |host: &str| {
        if host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            host.to_owned()
        } else {
            format!("{host}:80")
        }
    };
    with_port(host)
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?
        .next()
        .ok_or_else(|| wrong("no such host".into()))
}

/// Fails, with what to do, unless this process may open so many files.
pub fn check_open_files(wanted: usize) -> io::Result<()> {
    /// The program's own: standard streams, event queue, worker connections.
    const OTHERS: usize = 40;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let allowed = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    match allowed {
        Some(allowed) if allowed < wanted + OTHERS => Err(io::Error::other(format!(
            "{wanted} connections need {} open files, this shell allows {allowed}: run `ulimit -n {}` first, \
             for the server's shell too",
            wanted + OTHERS,
            wanted + OTHERS
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_refused_with_a_reason() {
        let found = resolve("ws://127.0.0.1:3112/", "--url").expect("an address");
        assert_eq!(found, SocketAddr::from(([127, 0, 0, 1], 3112)));
        let refused = resolve("wss://127.0.0.1:3112", "--url").expect_err("no TLS here");
        assert!(refused.to_string().contains("ws://HOST:PORT"));
    }
}
