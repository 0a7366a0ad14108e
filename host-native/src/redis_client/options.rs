//! How Redis is reached: addresses, kind of installation, time limits.

use std::time::Duration;

/// What the servers are to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RedisMode {
    /// A cluster where the server says that it is part of one, else one server.
    #[default]
    Auto,
    /// One server.
    Single,
    /// A cluster, of which `nodes` are some servers: the others are found by them.
    Cluster,
    /// `nodes` are sentinels; they say which server is the master.
    Sentinel {
        /// What the sentinels call the master.
        master: String,
    },
}

/// How Redis is reached.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user[:password]@]host[:port][/database]` of one or more servers. User, password and database of the first count
    /// for all.
    pub nodes: Vec<String>,
    /// What the servers are to each other.
    pub mode: RedisMode,
    /// How long a call waits for Redis. Zero: a call fails at once while Redis is not there.
    pub wait_max: Duration,
    /// How long making a connection may take, and how long the start tries.
    pub connect_time_max: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            nodes: vec!["redis://localhost:6379".to_owned()],
            mode: RedisMode::default(),
            wait_max: Duration::from_secs(5),
            connect_time_max: Duration::from_secs(5),
        }
    }
}

/// What is asked of each connection, often enough to notice one whose other end is gone.
pub(super) const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// A connection that is asked and stays silent for so long is given up.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The settings with which data may be lost are read so often, besides at each new connection.
pub(super) const SETTINGS_PERIOD: Duration = Duration::from_secs(30);
/// A command that was sent waits at least so long for its answer, also where `wait_max` is shorter: else `wait_max` zero would
/// make each outcome unknown.
pub(super) const ANSWER_WAIT_MIN: Duration = Duration::from_secs(1);
/// The same for a command with a deadline, which may be sent right before that.
pub(super) const LATE_ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect: doubled from the first to the last, each with jitter.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// See [`BACKOFF_FIRST`].
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Pause before a command is sent again that the server could not take now.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Most calls that wait to be written to one connection; further ones are unavailable at once.
pub(super) const WAITING_CALLS_MAX: usize = 65_536;
/// Most bytes that wait to be written to one connection; further calls are unavailable at once.
pub(super) const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A cluster is asked so often for its slots, besides at each sign of a change.
pub(super) const TOPOLOGY_PERIOD: Duration = Duration::from_secs(10);
/// The same while a slot or a master is missing.
pub(super) const TOPOLOGY_PERIOD_BROKEN: Duration = Duration::from_millis(250);
/// Shortest time between two such questions.
pub(super) const TOPOLOGY_PAUSE: Duration = Duration::from_millis(50);
/// Time for the answer.
pub(super) const TOPOLOGY_TIME_MAX: Duration = Duration::from_secs(1);
/// So long, a server that is said to have got a slot is not doubted by another server's list of slots.
pub(super) const OWNER_TRUST: Duration = Duration::from_secs(2);
