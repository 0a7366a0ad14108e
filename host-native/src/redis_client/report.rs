//! What can be said about Redis right now: for readiness, monitoring, the console and the start.

/// All servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisReport {
    /// Each server that is known.
    pub nodes: Vec<NodeReport>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// As `host:port`.
    pub address: String,
    /// None while it is connected; else since when it is not, in Unix milliseconds, and why.
    pub down: Option<Down>,
    /// Whether it takes writes.
    pub is_master: bool,
    /// How many replicas it has connected.
    pub replicas: u64,
    /// What it runs, for example `7.0.15`.
    pub version: String,
    /// Settings with which it may lose what it has acknowledged, each with what may be lost and what to do. Half a minute old at most.
    pub unsafe_settings: Vec<String>,
}

/// Since when and why a server is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// Unix milliseconds.
    pub since_ms: u64,
    /// What happened last.
    pub why: String,
}
