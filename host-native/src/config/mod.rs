//! What a server is told to do: read, completed with defaults, and checked once, at start.

mod expand;
mod file;
mod open;
mod redis;

use std::path::{Path, PathBuf};
use std::time::Duration;

use file::{Entries, JoinGuard, Placed};
pub use file::{PortEntry, StreamEntry};
pub use redis::{RedisConfig, RedisLayout, RedisNodes};

use iii_stream_core::{Grants, GroupLimits};

use crate::socket::Limits;
use crate::store::{Durability, FileOptions};
use crate::subscriber::SubscriberLimits;
use crate::worker::WorkerLimits;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The worker port.
    pub workers: WorkerPortConfig,
    /// The subscriber port.
    pub subscribers: SubscriberPortConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Over how much time a stop spreads the closes of subscribers; zero closes all at once.
    pub drain_window: Duration,
    /// Who may subscribe.
    pub auth: AuthConfig,
    /// How `stream:join` triggers decide.
    pub join_guards: JoinGuardConfig,
    /// Where groups are kept.
    pub store: StoreConfig,
    /// Bounds inside the server.
    pub bounds: Bounds,
    /// Whether it is for the first minute on one's own machine: see [`Config::read_open`].
    pub is_open: bool,
    /// What the operator should know, one line each.
    pub warnings: Vec<String>,
}

/// Bounds inside the server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long trigger handlers and conditions may take.
    pub handler_time_max: Duration,
    /// Handlers of one trigger that have not answered yet.
    pub trigger_open_max: usize,
    /// Calls of one trigger that wait.
    pub trigger_queue_max: usize,
    /// Changes of one group that wait for delivery.
    pub feed_pending_max: usize,
    /// Events held back for one connection and group while it joins.
    pub join_held_max: usize,
    /// Items, bytes, remembered mutation clients and history of one group.
    pub group: GroupLimits,
    /// Bytes of the histories of all groups.
    pub history_total_bytes_max: usize,
}

/// The worker port.
#[derive(Clone, Debug)]
pub struct WorkerPortConfig {
    /// Where to listen.
    pub host: String,
    /// Where to listen; 0 takes any free port.
    pub port: u16,
    /// What workers must show.
    pub token: Option<String>,
    /// Bounds.
    pub limits: WorkerLimits,
}

/// The subscriber port.
#[derive(Clone, Debug)]
pub struct SubscriberPortConfig {
    /// Where to listen.
    pub host: String,
    /// Where to listen; 0 takes any free port.
    pub port: u16,
    /// Bounds.
    pub limits: SubscriberLimits,
}

/// The admin listener: health, readiness, metrics.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where to listen.
    pub host: String,
    /// Where to listen; 0 takes any free port. `None`: [`AdminConfig::PORT`] if it is free, else nowhere.
    pub port: Option<u16>,
}

impl AdminConfig {
    /// Where the admin listener is, unless somebody said otherwise.
    pub const PORT: u16 = 3_113;
}

/// Who may subscribe.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The function that decides; `None` lets everybody in.
    pub function_id: Option<String>,
    /// How long it may take.
    pub time_max: Duration,
    /// Whether a `null` context is a refusal.
    pub require_context: bool,
    /// Origins that pages may have; empty allows any.
    pub allowed_origins: Vec<String>,
    /// What clients may do where there is no function.
    pub default_grants: Grants,
}

/// How `stream:join` triggers decide.
#[derive(Clone, Copy, Debug)]
pub struct JoinGuardConfig {
    /// How long each may take.
    pub time_max: Duration,
    /// Whether one that fails or takes too long denies, instead of letting in.
    pub deny_on_error: bool,
}

/// Where groups are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// In memory, lost when the process ends.
    Memory,
    /// In files.
    File(FileConfig),
    /// In Redis, with other servers.
    Redis(Box<RedisConfig>),
    /// By functions of workers: `<name>::set` and so on.
    Custom {
        /// What their ids begin with.
        name: String,
    },
    /// Known, but not in this version.
    NotBuiltIn {
        /// Its name in the configuration.
        name: String,
    },
}

/// How groups are kept in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// When a change counts as safe.
    pub durability: Durability,
    /// Bytes of groups in memory; beyond it those not used for longest leave it.
    pub cache_bytes_max: usize,
    /// Bytes of changes that wait for the disk.
    pub queue_bytes_max: usize,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of the log from which on it is folded into the streams' files.
    pub fold_bytes: u64,
    /// Bytes of the log at which writes wait for the folding.
    pub log_bytes_max: u64,
}

impl FileConfig {
    /// Where groups are kept, unless somebody said otherwise.
    pub const DIR: &'static str = "data/stream_store";

    /// How a store is to use it.
    pub fn options(&self, limits: GroupLimits, history_bytes_max: usize) -> FileOptions {
        FileOptions {
            durability: self.durability,
            limits,
            history_bytes_max,
            cache_bytes_max: self.cache_bytes_max,
            queue_bytes_max: self.queue_bytes_max,
            segment_bytes: self.segment_bytes,
            fold_bytes: self.fold_bytes,
            log_bytes_max: self.log_bytes_max,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no YAML of the documented shape.
    #[error("{}:{line}:{column}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong, and what was probably meant.
        message: String,
    },
    /// What was configured does not go with a start that is open to this machine.
    #[error(
        "--open lets whoever is on this machine write, so it does not go with {what}: start without it"
    )]
    Open {
        /// The key, with what it is.
        what: String,
    },
    /// A value is out of its range.
    #[error("{}:{line}:{column}: `{key}` is {value}, allowed are {allowed}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Counted from 1.
        column: u64,
        /// The key with those above it.
        key: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
}

impl Config {
    /// What a start without a configuration uses.
    pub fn bare() -> Self {
        let defaults = Self::from_entries(&StreamEntry::default(), &PortEntry::default());
        // Proof: the defaults are within their ranges; a test reads them.
        #[expect(clippy::expect_used)]
        defaults.expect("defaults are within their ranges")
    }

    /// Reads a configuration file: a list of entries, or one under `workers:`.
    ///
    /// Errors: [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = text_of(path)?;
        Self::from_text(&text, path, |name| std::env::var(name).ok())
    }

    /// The same, or without a file the defaults, for the first minute on one's own machine: unless the configuration says
    /// otherwise, clients may do everything, and only programs and pages of this machine are clients.
    ///
    /// Errors: [`ConfigError`], also for an auth function and for a host that others can reach.
    pub fn read_open(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::from_entries_open("", Path::new(""), |_| None);
        };
        let text = text_of(path)?;
        Self::from_entries_open(&text, path, |name| std::env::var(name).ok())
    }

    fn from_entries_open(
        text: &str,
        path: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut entries = file::read(&expand::expand(text, variable), path)?;
        entries
            .stream
            .open()
            .map_err(|what| ConfigError::Open { what })?;
        Ok(Self {
            is_open: true,
            ..Self::of(entries, path)?
        })
    }

    /// Reads the text of a configuration file; `path` is for error messages, `variable` looks up the environment.
    ///
    /// Errors: [`ConfigError`].
    pub fn from_text(
        text: &str,
        path: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let text = expand::expand(text, variable);
        Self::of(file::read(&text, path)?, path)
    }

    fn of(entries: Entries, path: &Path) -> Result<Self, ConfigError> {
        let mut config =
            Self::from_entries(&entries.stream, &entries.port).map_err(|out_of_range| {
                let OutOfRange {
                    key,
                    value,
                    allowed,
                } = out_of_range;
                ConfigError::Value {
                    path: path.into(),
                    line: value.defined.line(),
                    column: value.defined.column(),
                    key,
                    value: value.value,
                    allowed,
                }
            })?;
        config.warnings.splice(0..0, entries.warnings);
        Ok(config)
    }

    fn from_entries(stream: &StreamEntry, port: &PortEntry) -> Result<Self, OutOfRange> {
        const STREAM: Defaults = Defaults {
            message_bytes_max: MIB,
            read_buffer_bytes: 4 * KIB,
            queue_bytes_max: MIB,
            blocked_ms: 30_000,
        };
        const WORKER: Defaults = Defaults {
            message_bytes_max: 64 * MIB,
            read_buffer_bytes: 64 * KIB,
            queue_bytes_max: 256 * MIB,
            blocked_ms: 60_000,
        };
        let mut warnings = Vec::new();
        let subscriber_limits = SubscriberLimits {
            connection: limits(&stream.bounds(), &STREAM)?,
            handshake_time_max: handshake(stream.handshake_timeout_ms.as_ref())?,
            connections_max: count("connections_max", stream.connections_max.as_ref(), 100_000)?,
            connections_per_address_max: count(
                "connections_per_address_max",
                stream.connections_per_address_max.as_ref(),
                100_000,
            )?,
            messages_per_second_max: count(
                "messages_per_second_max",
                stream.messages_per_second_max.as_ref(),
                10_000,
            )?,
            calls_in_flight_max: count(
                "calls_in_flight_max",
                stream.calls_in_flight_max.as_ref(),
                1_024,
            )?,
            subscriptions_max: count(
                "subscriptions_max",
                stream.subscriptions_max.as_ref(),
                10_000,
            )?,
        };
        let worker_limits = WorkerLimits {
            connection: limits(&port.bounds(), &WORKER)?,
            handshake_time_max: handshake(port.handshake_timeout_ms.as_ref())?,
            connections_max: count("connections_max", port.connections_max.as_ref(), 10_000)?,
            calls_in_flight_max: count(
                "calls_in_flight_max",
                port.calls_in_flight_max.as_ref(),
                16_384,
            )?,
            invocation_time_max: time(
                "invocation_timeout_ms",
                port.invocation_timeout_ms.as_ref(),
                600_000,
            )?,
        };
        let store = stream.store(&mut warnings)?;
        let host = stream.host.clone().unwrap_or_else(|| "0.0.0.0".to_owned());
        if stream.auth_function.is_none() && !is_loopback(&host) {
            let what = match &stream.default_grants {
                Some(grants) if *grants != Grants::read_only() => {
                    "for what `default_grants` allows"
                }
                _ => "to read",
            };
            warnings.push(format!(
                "subscribers on {host} need no permission {what}: set `auth_function`, or `host: 127.0.0.1`"
            ));
        }
        if stream.auth_function.is_some() && stream.default_grants.is_some() {
            warnings.push(
                "`default_grants` has no meaning beside `auth_function`, whose result grants, and is ignored"
                    .to_owned(),
            );
        }
        let admin = AdminConfig {
            host: stream
                .admin_host
                .clone()
                .unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: stream.admin_port,
        };
        if !is_loopback(&admin.host) {
            warnings.push(format!(
                "the admin listener on {} shows health and metrics to whoever reaches it",
                admin.host
            ));
        }
        Ok(Self {
            admin,
            drain_window: drain_window(stream.drain_window_ms.as_ref())?,
            workers: WorkerPortConfig {
                host: port.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
                port: port.port.unwrap_or(49_134),
                token: port.token.clone().filter(|token| !token.is_empty()),
                limits: worker_limits,
            },
            subscribers: SubscriberPortConfig {
                host,
                port: stream.port.unwrap_or(3_112),
                limits: subscriber_limits,
            },
            auth: AuthConfig {
                function_id: stream.auth_function.clone(),
                time_max: time("auth_timeout_ms", stream.auth_timeout_ms.as_ref(), 5_000)?,
                require_context: stream.require_context.unwrap_or(false),
                allowed_origins: stream.allowed_origins.clone().unwrap_or_default(),
                default_grants: stream
                    .default_grants
                    .clone()
                    .unwrap_or_else(Grants::read_only),
            },
            join_guards: JoinGuardConfig {
                time_max: time(
                    "join_guard_timeout_ms",
                    stream.join_guard_timeout_ms.as_ref(),
                    5_000,
                )?,
                deny_on_error: stream.join_guard == Some(JoinGuard::DenyOnError),
            },
            store,
            bounds: Bounds {
                handler_time_max: time(
                    "handler_timeout_ms",
                    stream.handler_timeout_ms.as_ref(),
                    30_000,
                )?,
                trigger_open_max: count(
                    "trigger_open_max",
                    stream.trigger_open_max.as_ref(),
                    1_024,
                )?,
                trigger_queue_max: count(
                    "trigger_queue_max",
                    stream.trigger_queue_max.as_ref(),
                    10_000,
                )?,
                feed_pending_max: count(
                    "feed_pending_max",
                    stream.feed_pending_max.as_ref(),
                    100_000,
                )?,
                join_held_max: count("join_held_max", stream.join_held_max.as_ref(), 10_000)?,
                group: GroupLimits {
                    items_max: count(
                        "group_items_max",
                        stream.group_items_max.as_ref(),
                        10_000_000,
                    )?,
                    bytes_max: count(
                        "group_bytes_max",
                        stream.group_bytes_max.as_ref(),
                        4_096 * MIB,
                    )?,
                    client_records_max: count(
                        "mutation_clients_max",
                        stream.mutation_clients_max.as_ref(),
                        1_000,
                    )?,
                    hot_items_max: count(
                        "group_hot_items_max",
                        stream.group_hot_items_max.as_ref(),
                        64,
                    )?,
                    history_changes_max: count(
                        "history_changes_max",
                        stream.history_changes_max.as_ref(),
                        1_000,
                    )?,
                    history_bytes_max: count(
                        "history_bytes_max",
                        stream.history_bytes_max.as_ref(),
                        MIB,
                    )?,
                },
                history_total_bytes_max: count(
                    "history_total_bytes_max",
                    stream.history_total_bytes_max.as_ref(),
                    256 * MIB,
                )?,
            },
            is_open: false,
            warnings,
        })
    }
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })
}

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

struct Defaults {
    message_bytes_max: usize,
    read_buffer_bytes: usize,
    queue_bytes_max: usize,
    blocked_ms: u64,
}

struct OutOfRange {
    key: &'static str,
    value: Placed,
    allowed: &'static str,
}

impl std::fmt::Debug for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} = {}, allowed are {}",
            self.key, self.value.value, self.allowed
        )
    }
}

fn limits(bounds: &file::Bounds, defaults: &Defaults) -> Result<Limits, OutOfRange> {
    Ok(Limits {
        message_bytes_max: count(
            "message_bytes_max",
            bounds.message_bytes_max.as_ref(),
            defaults.message_bytes_max,
        )?,
        read_buffer_bytes: defaults.read_buffer_bytes,
        queue_bytes_max: count(
            "queue_bytes_max",
            bounds.queue_bytes_max.as_ref(),
            defaults.queue_bytes_max,
        )?,
        ping_interval: time("ping_interval_ms", bounds.ping_interval_ms.as_ref(), 25_000)?,
        idle_time_max: time("idle_timeout_ms", bounds.idle_timeout_ms.as_ref(), 60_000)?,
        blocked_time_max: time(
            "blocked_timeout_ms",
            bounds.blocked_timeout_ms.as_ref(),
            defaults.blocked_ms,
        )?,
    })
}

fn segment(value: Option<&Placed>) -> Result<u64, OutOfRange> {
    const MAX: u64 = 1 << 30;
    match value {
        None => Ok(16 * MIB as u64),
        Some(placed) if (64 * KIB as u64..=MAX).contains(&placed.value) => Ok(placed.value),
        Some(placed) => Err(OutOfRange {
            key: "log_segment_bytes",
            value: placed.clone(),
            allowed: "64 KiB to 1 GiB, in bytes",
        }),
    }
}

fn handshake(value: Option<&Placed>) -> Result<Duration, OutOfRange> {
    time("handshake_timeout_ms", value, 10_000)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn drain_window(value: Option<&Placed>) -> Result<Duration, OutOfRange> {
    const KEY: &str = "drain_window_ms";
    match value {
        // No window: all at once.
        Some(value) if value.value == 0 => Ok(Duration::ZERO),
        value => time(KEY, value, 5_000).map_err(|out_of_range| OutOfRange {
            allowed: "0 to 86400000 milliseconds",
            ..out_of_range
        }),
    }
}

fn time(
    key: &'static str,
    value: Option<&Placed>,
    default_ms: u64,
) -> Result<Duration, OutOfRange> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let Some(value) = value else {
        return Ok(Duration::from_millis(default_ms));
    };
    if (1..=DAY_MS).contains(&value.value) {
        return Ok(Duration::from_millis(value.value));
    }
    Err(OutOfRange {
        key,
        value: value.clone(),
        allowed: "1 to 86400000 milliseconds",
    })
}

fn count(key: &'static str, value: Option<&Placed>, default: usize) -> Result<usize, OutOfRange> {
    const COUNT_MAX: u64 = 1 << 40;
    let Some(value) = value else {
        return Ok(default);
    };
    match usize::try_from(value.value) {
        Ok(count) if (1..=COUNT_MAX).contains(&value.value) => Ok(count),
        _ => Err(OutOfRange {
            key,
            value: value.clone(),
            allowed: "1 to 1099511627776",
        }),
    }
}
