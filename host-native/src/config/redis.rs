//! How groups are kept in Redis, and how servers on one Redis are one: the keys of the adapter `redis`, checked, with defaults.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::file::Placed;
use super::{MIB, OutOfRange, count, time};
use crate::redis_client::{RedisMode, RedisOptions, check_url};

/// Bytes of `key_prefix`.
const PREFIX_BYTES_MAX: usize = 256;

/// How groups are kept in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is.
    pub nodes: RedisNodes,
    /// What its servers are to each other.
    pub mode: RedisMode,
    /// How keys and values are written.
    pub layout: RedisLayout,
    /// What all keys and channels begin with.
    pub key_prefix: String,
    /// How long a call waits for Redis; zero fails at once.
    pub wait_max: Duration,
    /// How long a connection may take to come about, and a start.
    pub connect_time_max: Duration,
    /// Commands of one group that wait.
    pub queue_commands_max: usize,
    /// Bytes of the commands of one group that wait.
    pub queue_bytes_max: usize,
    /// Bytes of the commands of all groups that wait.
    pub queue_total_bytes_max: usize,
    /// Bytes of what is known of groups.
    pub cache_bytes_max: usize,
    /// How often this instance shows the others that it is alive.
    pub heartbeat: Duration,
    /// After how much silence an instance is gone.
    pub instance_gone_time: Duration,
    /// Calls to and from other instances that are not answered.
    pub forwarded_calls_max: usize,
    /// Bytes of one of them, or of its answer.
    pub forwarded_bytes_max: usize,
    /// For how long a `stream` trigger that nobody has goes on where it was when somebody binds it again.
    pub trigger_resume_time: Duration,
}

/// How keys and values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisLayout {
    /// This server's own way.
    #[default]
    Native,
    /// As existing engines do.
    Compatible,
}

/// Addresses of Redis: `redis://[user[:password]@]host[:port][/database]`. Passwords are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisNodes(Vec<String>);

impl RedisNodes {
    /// Where Redis is, unless somebody said otherwise.
    const DEFAULT: &'static str = "redis://localhost:6379";

    /// Them, with their passwords.
    pub fn urls(&self) -> &[String] {
        &self.0
    }
}

impl Default for RedisNodes {
    fn default() -> Self {
        Self(vec![Self::DEFAULT.to_owned()])
    }
}

impl fmt::Display for RedisNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.0.iter().enumerate() {
            let rest = url.strip_prefix("redis://").unwrap_or(url);
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            write!(f, "{}redis://{host}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for RedisNodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| {
            D::Error::custom("`redis_url` must be one text, several addresses with commas between")
        })?;
        let urls: Vec<_> = text.split(',').map(|url| url.trim().to_owned()).collect();
        for url in &urls {
            check_url(url).map_err(D::Error::custom)?;
        }
        Ok(Self(urls))
    }
}

/// The keys as they stand in the file. Absent ones take their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RedisEntry {
    redis_url: Option<RedisNodes>,
    mode: Option<Mode>,
    sentinel_master: Option<String>,
    layout: Option<RedisLayout>,
    #[serde(deserialize_with = "prefix")]
    key_prefix: Option<String>,
    wait_max_ms: Option<Placed>,
    connect_timeout_ms: Option<Placed>,
    queue_commands_max: Option<Placed>,
    queue_bytes_max: Option<Placed>,
    queue_total_bytes_max: Option<Placed>,
    cache_bytes_max: Option<Placed>,
    heartbeat_ms: Option<Placed>,
    instance_gone_ms: Option<Placed>,
    forwarded_calls_max: Option<Placed>,
    forwarded_bytes_max: Option<Placed>,
    trigger_resume_ms: Option<Placed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Auto,
    Single,
    Cluster,
    Sentinel,
}

/// Braces would decide where a cluster keeps a key.
fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let prefix = Option::<String>::deserialize(deserializer)?;
    let is_wrong = |prefix: &str| PREFIX_BYTES_MAX < prefix.len() || prefix.contains(['{', '}']);
    match prefix {
        Some(prefix) if is_wrong(&prefix) => Err(D::Error::custom(format!(
            "`key_prefix` is `{prefix}`, {} bytes; allowed are up to {PREFIX_BYTES_MAX} bytes without braces",
            prefix.len()
        ))),
        prefix => Ok(prefix),
    }
}

impl RedisEntry {
    /// What of it cannot be at the same time.
    pub(super) fn contradiction(&self) -> Option<String> {
        let nodes = self.redis_url.as_ref().map_or(1, |nodes| nodes.0.len());
        match (self.mode, self.layout) {
            (Some(Mode::Single), _) if nodes > 1 => Some(format!(
                "`mode` is single, and `redis_url` has {nodes} addresses: give one, or use `mode: cluster`, `sentinel` or `auto`"
            )),
            (Some(Mode::Cluster), Some(RedisLayout::Compatible)) => Some(
                "`layout: compatible` needs one Redis, with or without Sentinel, as iii engines do: it does not go with `mode: cluster`"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What it comes to, and what is ignored of it.
    pub(super) fn checked(&self, warnings: &mut Vec<String>) -> Result<RedisConfig, OutOfRange> {
        let is_sentinel = self.mode == Some(Mode::Sentinel);
        if self.sentinel_master.is_some() && !is_sentinel {
            warnings.push(
                "adapter redis: `sentinel_master` has no meaning without `mode: sentinel` and is ignored"
                    .to_owned(),
            );
        }
        let heartbeat = time("heartbeat_ms", self.heartbeat_ms.as_ref(), 1_000)?;
        let gone = time("instance_gone_ms", self.instance_gone_ms.as_ref(), 5_000)?;
        if gone < heartbeat * 3 {
            warnings.push(format!(
                "adapter redis: `instance_gone_ms` is raised to {}, three times `heartbeat_ms`",
                (heartbeat * 3).as_millis()
            ));
        }
        Ok(RedisConfig {
            nodes: self.redis_url.clone().unwrap_or_default(),
            mode: match self.mode {
                None | Some(Mode::Auto) => RedisMode::Auto,
                Some(Mode::Single) => RedisMode::Single,
                Some(Mode::Cluster) => RedisMode::Cluster,
                Some(Mode::Sentinel) => RedisMode::Sentinel {
                    master: self
                        .sentinel_master
                        .clone()
                        .unwrap_or_else(|| "mymaster".to_owned()),
                },
            },
            layout: self.layout.unwrap_or_default(),
            key_prefix: self.key_prefix.clone().unwrap_or_else(|| "iii:".to_owned()),
            wait_max: match &self.wait_max_ms {
                Some(value) if value.value == 0 => Duration::ZERO,
                value => time("wait_max_ms", value.as_ref(), 5_000).map_err(|out_of_range| {
                    OutOfRange {
                        allowed: "0 to 86400000 milliseconds",
                        ..out_of_range
                    }
                })?,
            },
            connect_time_max: time(
                "connect_timeout_ms",
                self.connect_timeout_ms.as_ref(),
                5_000,
            )?,
            queue_commands_max: count(
                "queue_commands_max",
                self.queue_commands_max.as_ref(),
                100_000,
            )?,
            queue_bytes_max: count("queue_bytes_max", self.queue_bytes_max.as_ref(), 64 * MIB)?,
            queue_total_bytes_max: count(
                "queue_total_bytes_max",
                self.queue_total_bytes_max.as_ref(),
                256 * MIB,
            )?,
            cache_bytes_max: count("cache_bytes_max", self.cache_bytes_max.as_ref(), 128 * MIB)?,
            heartbeat,
            instance_gone_time: gone.max(heartbeat * 3),
            forwarded_calls_max: count(
                "forwarded_calls_max",
                self.forwarded_calls_max.as_ref(),
                16_384,
            )?,
            forwarded_bytes_max: count(
                "forwarded_bytes_max",
                self.forwarded_bytes_max.as_ref(),
                8 * MIB,
            )?,
            trigger_resume_time: time(
                "trigger_resume_ms",
                self.trigger_resume_ms.as_ref(),
                60_000,
            )?,
        })
    }
}

impl RedisConfig {
    /// How it is reached.
    pub fn options(&self) -> RedisOptions {
        RedisOptions {
            nodes: self.nodes.urls().to_vec(),
            mode: self.mode.clone(),
            wait_max: self.wait_max,
            connect_time_max: self.connect_time_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ConfigError, StoreConfig};

    fn read(keys: &str) -> Result<(RedisConfig, Vec<String>), ConfigError> {
        let text = format!(
            "- name: iii-stream\n  config: {{ host: 127.0.0.1, adapter: {{ name: redis, config: {{ {keys} }} }} }}\n"
        );
        let config = Config::from_text(&text, Path::new("stream.yaml"), |_| None)?;
        let StoreConfig::Redis(redis) = config.store else {
            panic!("in Redis");
        };
        Ok((*redis, config.warnings))
    }

    #[test]
    fn addresses_are_read_and_shown_without_passwords() {
        let (config, warnings) = read(
            "redis_url: \"redis://me:se@cret@one:1/2, redis://two\", mode: sentinel, sentinel_master: m",
        )
        .expect("a configuration");
        assert_eq!(
            config.nodes.urls(),
            ["redis://me:se@cret@one:1/2", "redis://two"]
        );
        assert_eq!(config.nodes.to_string(), "redis://one:1/2, redis://two");
        assert!(!format!("{config:?}").contains("cret"));
        let master = "m".to_owned();
        assert_eq!(config.mode, RedisMode::Sentinel { master });
        assert!(warnings.is_empty(), "{warnings:?}");
        for bad in [
            "rediss://a",
            "redis://",
            "redis://a,,redis://b",
            "redis://u:secret@",
            "redis://u:secret@h:99999",
            "redis://u:secret@h:port",
            "redis://u:secret@h/db",
        ] {
            let error = read(&format!("redis_url: \"{bad}\"")).expect_err(bad);
            let error = error.to_string();
            assert!(
                error.starts_with("stream.yaml:2:") && error.contains("`redis_url`"),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn keys_are_checked_and_what_has_no_meaning_is_told() {
        let (config, warnings) = read(
            "wait_max_ms: 0, heartbeat_ms: 2000, sentinel_master: m, queue_total_bytes_max: 7",
        )
        .expect("a configuration");
        assert_eq!(config.wait_max, Duration::ZERO);
        assert_eq!(config.queue_total_bytes_max, 7);
        assert_eq!(config.instance_gone_time, Duration::from_secs(6));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for bad in [
            "wait_max_ms: 86400001",
            "queue_commands_max: 0",
            "mode: many",
            "layout: old",
            "key_prefix: \"a{b}\"",
            "redis_uri: redis://localhost",
            "mode: single, redis_url: \"redis://a,redis://b\"",
            "mode: cluster, layout: compatible",
            "redis_url: [redis://a, redis://b]",
            "wait_max_ms: 5s",
        ] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.starts_with("stream.yaml:2:"), "{bad}: {error}");
        }
        let (config, warnings) = read("").expect("a configuration");
        assert_eq!(config.nodes.to_string(), RedisNodes::DEFAULT);
        assert_eq!(
            (config.key_prefix.as_str(), config.mode, config.layout),
            ("iii:", RedisMode::Auto, RedisLayout::Native)
        );
        assert!(warnings.is_empty());
    }
}
