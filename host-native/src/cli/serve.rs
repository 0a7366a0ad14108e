//! `iii-stream`: starts a server, says where it listens and what to try, and stops it on Ctrl-C or SIGTERM.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use iii_stream_core::Grants;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{Config, StoreConfig};
use crate::server::Server;

pub(super) async fn run(
    configuration: impl FnOnce() -> Result<Config, Failure>,
) -> Result<(), Failure> {
    start_log();
    let mut config = configuration()?;
    if let Some(token) = std::env::var("III_TOKEN")
        .ok()
        .filter(|token| !token.is_empty())
    {
        config.workers.token.get_or_insert(token);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // Listened for before anybody can know that the server runs.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::bind(&config).await?;
    greet(&config, &server)?;
    let mut next_signal = async move || {
        tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
        }
    };
    server
        .run(async move {
            next_signal().await;
            tracing::info!("stopping; a second signal ends at once");
            tokio::spawn(async move { end_at_once(next_signal().await) });
        })
        .await;
    tracing::info!("stopped");
    Ok(())
}

/// Ends the process without a word to anybody, as the shell tells of a process that a signal has ended.
fn end_at_once(signal: SignalKind) {
    tracing::warn!("a second signal: ending at once, connections break");
    std::process::exit(128 + signal.as_raw_value());
}

fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
}

/// The option that leads a command to an address, where that is not the one it tries by itself.
fn option(name: &str, addr: SocketAddr, default_port: u16) -> String {
    if addr.port() == default_port {
        return String::new();
    }
    let ip = if addr.ip().is_unspecified() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        addr.ip()
    };
    format!(" {name} ws://{}", SocketAddr::new(ip, addr.port()))
}

/// This program as it can be called from here: short when it lies below the folder that one is in.
fn program() -> String {
    let called = std::env::args()
        .next()
        .unwrap_or_else(|| "iii-stream".to_owned());
    let below = std::env::current_dir().ok().and_then(|folder| {
        let path = Path::new(&called).strip_prefix(folder).ok()?;
        Some(path.display().to_string())
    });
    below.unwrap_or(called)
}

/// Says what runs where. The lines for `workers`, `subscribers` and `admin` are read by tools.
fn greet(config: &Config, server: &Server) -> Result<(), Failure> {
    let store = match &config.store {
        StoreConfig::Memory => "MEMORY ONLY: everything is lost when this process ends".to_owned(),
        StoreConfig::File(file) => {
            format!("{} ({})", file.dir.display(), file.durability.in_words())
        }
        StoreConfig::Redis(redis) => redis.nodes.to_string(),
        StoreConfig::Custom { .. } => "functions of your workers".to_owned(),
        StoreConfig::NotBuiltIn { .. } => "none".to_owned(),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "iii-stream {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  workers      ws://{}", server.workers_addr()?)?;
    writeln!(out, "  subscribers  ws://{}", server.subscribers_addr()?)?;
    if let Some(addr) = server.admin_addr()? {
        writeln!(out, "  admin        http://{addr}")?;
    }
    writeln!(out, "  store        {store}")?;
    if config.is_open && config.auth.default_grants == Grants::everything() {
        let who = "programs and pages of this machine may call everything (--open)";
        writeln!(out, "  clients      {who}")?;
    }
    writeln!(out)?;
    let program = program();
    writeln!(out, "Try, in two other terminals:")?;
    let watch_at = option("--url", server.subscribers_addr()?, 3_112);
    let call_at = option("--worker-url", server.workers_addr()?, 49_134);
    writeln!(out, "  {program} watch chat lobby{watch_at}")?;
    writeln!(
        out,
        r#"  {program} call stream::set '{{"stream_name":"chat","group_id":"lobby","item_id":"m1","data":{{"text":"hi"}}}}'{call_at}"#
    )?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}
