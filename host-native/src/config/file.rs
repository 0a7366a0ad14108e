//! The YAML of a configuration file: its shape, and where in it something is wrong. Knows no defaults.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use iii_stream_core::Grants;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use serde_saphyr::Spanned;

use super::redis::RedisEntry;
use super::{ConfigError, FileConfig, MIB, OutOfRange, StoreConfig, count, segment};
use crate::store::Durability;

/// A number with its place in the file, so that an error can say where it stands.
pub(super) type Placed = Spanned<u64>;

/// The entries that concern this server.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) stream: StreamEntry,
    pub(super) port: PortEntry,
    pub(super) warnings: Vec<String>,
}

/// The config of `iii-stream`. Absent keys take their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamEntry {
    pub(super) port: Option<u16>,
    pub(super) host: Option<String>,
    pub(super) admin_port: Option<u16>,
    pub(super) admin_host: Option<String>,
    pub(super) drain_window_ms: Option<Placed>,
    pub(super) auth_function: Option<String>,
    pub(super) auth_timeout_ms: Option<Placed>,
    pub(super) require_context: Option<bool>,
    pub(super) allowed_origins: Option<Vec<String>>,
    pub(super) default_grants: Option<Grants>,
    pub(super) adapter: Option<Adapter>,
    pub(super) handler_timeout_ms: Option<Placed>,
    pub(super) join_guard: Option<JoinGuard>,
    pub(super) join_guard_timeout_ms: Option<Placed>,
    pub(super) handshake_timeout_ms: Option<Placed>,
    pub(super) connections_max: Option<Placed>,
    pub(super) connections_per_address_max: Option<Placed>,
    pub(super) messages_per_second_max: Option<Placed>,
    pub(super) subscriptions_max: Option<Placed>,
    pub(super) calls_in_flight_max: Option<Placed>,
    pub(super) join_held_max: Option<Placed>,
    pub(super) feed_pending_max: Option<Placed>,
    pub(super) trigger_open_max: Option<Placed>,
    pub(super) trigger_queue_max: Option<Placed>,
    pub(super) group_items_max: Option<Placed>,
    pub(super) group_bytes_max: Option<Placed>,
    pub(super) mutation_clients_max: Option<Placed>,
    pub(super) group_hot_items_max: Option<Placed>,
    pub(super) history_changes_max: Option<Placed>,
    pub(super) history_bytes_max: Option<Placed>,
    pub(super) history_total_bytes_max: Option<Placed>,
    pub(super) queue_bytes_max: Option<Placed>,
    pub(super) message_bytes_max: Option<Placed>,
    pub(super) ping_interval_ms: Option<Placed>,
    pub(super) idle_timeout_ms: Option<Placed>,
    pub(super) blocked_timeout_ms: Option<Placed>,
}

/// What a join guard that fails means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JoinGuard {
    AllowOnError,
    DenyOnError,
}

/// The config of `iii-worker-manager`, which says where workers connect. Absent keys take their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortEntry {
    pub(super) port: Option<u16>,
    pub(super) host: Option<String>,
    pub(super) token: Option<String>,
    pub(super) handshake_timeout_ms: Option<Placed>,
    pub(super) connections_max: Option<Placed>,
    pub(super) calls_in_flight_max: Option<Placed>,
    pub(super) invocation_timeout_ms: Option<Placed>,
    pub(super) queue_bytes_max: Option<Placed>,
    pub(super) message_bytes_max: Option<Placed>,
    pub(super) ping_interval_ms: Option<Placed>,
    pub(super) idle_timeout_ms: Option<Placed>,
    pub(super) blocked_timeout_ms: Option<Placed>,
}

/// What both ports bound in each connection.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) message_bytes_max: Option<Placed>,
    pub(super) queue_bytes_max: Option<Placed>,
    pub(super) ping_interval_ms: Option<Placed>,
    pub(super) idle_timeout_ms: Option<Placed>,
    pub(super) blocked_timeout_ms: Option<Placed>,
}

impl StreamEntry {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            message_bytes_max: self.message_bytes_max.clone(),
            queue_bytes_max: self.queue_bytes_max.clone(),
            ping_interval_ms: self.ping_interval_ms.clone(),
            idle_timeout_ms: self.idle_timeout_ms.clone(),
            blocked_timeout_ms: self.blocked_timeout_ms.clone(),
        }
    }

    /// Where groups are kept, and what is ignored of what was said about it.
    pub(super) fn store(&self, warnings: &mut Vec<String>) -> Result<StoreConfig, OutOfRange> {
        Ok(match &self.adapter {
            None => StoreConfig::File(KvConfig::default().file()?),
            Some(Adapter::Kv(kv)) => {
                let ignored = [
                    ("save_interval_ms", kv.save_interval_ms.is_some()),
                    ("channel_size", kv.channel_size.is_some()),
                ];
                for (key, _) in ignored.iter().filter(|(_, is_set)| *is_set) {
                    warnings.push(format!(
                        "adapter kv: `{key}` has no meaning here and is ignored"
                    ));
                }
                match kv.store_method {
                    None | Some(StoreMethod::InMemory) => {
                        for (key, _) in kv.of_files().iter().filter(|(_, is_set)| *is_set) {
                            warnings.push(format!(
                                "adapter kv: `{key}` has no meaning without `store_method: file_based` and is ignored"
                            ));
                        }
                        StoreConfig::Memory
                    }
                    Some(StoreMethod::FileBased) => StoreConfig::File(kv.file()?),
                }
            }
            Some(Adapter::Redis(redis)) => StoreConfig::Redis(Box::new(redis.checked(warnings)?)),
            Some(Adapter::Other { name }) if name == "bridge" => {
                StoreConfig::NotBuiltIn { name: name.clone() }
            }
            Some(Adapter::Other { name }) => StoreConfig::Custom { name: name.clone() },
        })
    }
}

impl PortEntry {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            message_bytes_max: self.message_bytes_max.clone(),
            queue_bytes_max: self.queue_bytes_max.clone(),
            ping_interval_ms: self.ping_interval_ms.clone(),
            idle_timeout_ms: self.idle_timeout_ms.clone(),
            blocked_timeout_ms: self.blocked_timeout_ms.clone(),
        }
    }
}

/// Where groups are kept. Shape: `{name, config?}`.
#[derive(Clone, Debug)]
pub(super) enum Adapter {
    Kv(Box<KvConfig>),
    Redis(Box<RedisEntry>),
    Other { name: String },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KvConfig {
    store_method: Option<StoreMethod>,
    file_path: Option<String>,
    durability: Option<FileDurability>,
    cache_bytes_max: Option<Placed>,
    write_queue_bytes_max: Option<Placed>,
    log_segment_bytes: Option<Placed>,
    log_fold_bytes: Option<Placed>,
    log_bytes_max: Option<Placed>,
    save_interval_ms: Option<u64>,
    channel_size: Option<u64>,
}

/// When a change counts as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FileDurability {
    Fsync,
    Os,
}

impl KvConfig {
    /// Where groups are kept in files, and how.
    fn file(&self) -> Result<FileConfig, OutOfRange> {
        let bytes = |key, value: Option<&Placed>, default| {
            count(key, value, default).map(|bytes| bytes as u64)
        };
        Ok(FileConfig {
            dir: self.file_path.as_deref().unwrap_or(FileConfig::DIR).into(),
            durability: match self.durability {
                None | Some(FileDurability::Fsync) => Durability::Fsync,
                Some(FileDurability::Os) => Durability::Os,
            },
            cache_bytes_max: count("cache_bytes_max", self.cache_bytes_max.as_ref(), 512 * MIB)?,
            queue_bytes_max: count(
                "write_queue_bytes_max",
                self.write_queue_bytes_max.as_ref(),
                256 * MIB,
            )?,
            segment_bytes: segment(self.log_segment_bytes.as_ref())?,
            fold_bytes: bytes("log_fold_bytes", self.log_fold_bytes.as_ref(), 64 * MIB)?,
            log_bytes_max: bytes("log_bytes_max", self.log_bytes_max.as_ref(), 1_024 * MIB)?,
        })
    }

    /// The keys that only mean something to files, and whether they are set.
    fn of_files(&self) -> [(&'static str, bool); 7] {
        [
            ("file_path", self.file_path.is_some()),
            ("durability", self.durability.is_some()),
            ("cache_bytes_max", self.cache_bytes_max.is_some()),
            (
                "write_queue_bytes_max",
                self.write_queue_bytes_max.is_some(),
            ),
            ("log_segment_bytes", self.log_segment_bytes.is_some()),
            ("log_fold_bytes", self.log_fold_bytes.is_some()),
            ("log_bytes_max", self.log_bytes_max.is_some()),
        ]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoreMethod {
    InMemory,
    FileBased,
}

/// Reads the text of a file.
///
/// Errors: [`ConfigError::Syntax`] with the place, and for a wrong key the nearest right one.
pub(super) fn read(text: &str, path: &Path) -> Result<Entries, ConfigError> {
    let mut entries = Entries::default();
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(entries);
    }
    let file: File = serde_saphyr::from_str(text).map_err(|error| syntax_error(&error, path))?;
    entries.warnings = file.warnings;
    for entry in file.entries {
        match entry {
            Entry::Stream(stream) => entries.stream = *stream,
            Entry::Port(port) => entries.port = *port,
            Entry::Other { name } => {
                entries.warnings.push(format!(
                    "entry `{name}` is of another worker and is skipped"
                ));
            }
        }
    }
    Ok(entries)
}

fn syntax_error(error: &serde_saphyr::Error, path: &Path) -> ConfigError {
    let error = error.without_snippet();
    let location = error.location();
    let place = |read: fn(&serde_saphyr::Location) -> u64| {
        location.as_ref().map_or(0, |location| {
            usize::try_from(read(location)).unwrap_or(usize::MAX)
        })
    };
    let message = match error {
        serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } => unknown_key(field, expected),
        other => plain_message(other),
    };
    ConfigError::Syntax {
        path: path.into(),
        line: place(serde_saphyr::Location::line),
        column: place(serde_saphyr::Location::column),
        message,
    }
}

/// The reader's own words without the place, which stands before them already.
fn plain_message(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        other => {
            let text = other.to_string();
            match text
                .split_once(" at line ")
                .map_or(&*text, |(message, _)| message)
            {
                "invalid u64" => "a whole number is needed here, without a unit".to_owned(),
                message => message.to_owned(),
            }
        }
    }
}

fn unknown_key(key: &str, expected: &[&str]) -> String {
    /// Less alike than this is no help.
    const LIKENESS_MIN: f64 = 0.6;
    let nearest = expected
        .iter()
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .filter(|(likeness, _)| LIKENESS_MIN <= *likeness)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, name)) => format!("unknown key `{key}`, did you mean `{name}`?"),
        None => format!("unknown key `{key}`, there are {}", expected.join(", ")),
    }
}

/// A list of entries, or one under `workers:`.
#[derive(Debug, Default)]
struct File {
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

/// One entry. Shape: `{name, config?}`.
#[derive(Debug)]
enum Entry {
    Stream(Box<StreamEntry>),
    Port(Box<PortEntry>),
    Other { name: String },
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = File;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries, or one under `workers:`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<File, A::Error> {
        let mut file = File::default();
        while let Some(entry) = seq.next_element()? {
            file.entries.push(entry);
        }
        Ok(file)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let mut file = File::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "workers" {
                file.entries = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
                file.warnings.push(format!(
                    "`{key}` at the top of the file is not for this server and is skipped"
                ));
            }
        }
        Ok(file)
    }
}

/// Something whose `name` says what its `config` is. Shape: `{name, config?}`, the name first.
trait Named<'de>: Sized {
    const EXPECTED: &'static str;

    fn without_config(name: String) -> Self;

    fn with_config<A: MapAccess<'de>>(name: String, map: &mut A) -> Result<Self, A::Error>;
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Named<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut name = None;
        let mut read = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => name = Some(map.next_value::<String>()?),
                "config" => {
                    let name = name
                        .take()
                        .ok_or_else(|| A::Error::custom("`name` must stand before `config`"))?;
                    read = Some(T::with_config(name, &mut map)?);
                }
                other => return Err(A::Error::unknown_field(other, &["name", "config"])),
            }
        }
        match (read, name) {
            (Some(read), _) => Ok(read),
            (None, Some(name)) => Ok(T::without_config(name)),
            (None, None) => Err(A::Error::missing_field("name")),
        }
    }
}

/// Reads a config that may be empty.
fn config<'de, T: Deserialize<'de> + Default, A: MapAccess<'de>>(
    map: &mut A,
) -> Result<T, A::Error> {
    map.next_value::<Option<T>>().map(Option::unwrap_or_default)
}

impl<'de> Named<'de> for Entry {
    const EXPECTED: &'static str = "an entry with `name` and `config`";

    fn without_config(name: String) -> Self {
        match name.as_str() {
            "iii-stream" => Self::Stream(Box::default()),
            "iii-worker-manager" => Self::Port(Box::default()),
            _ => Self::Other { name },
        }
    }

    fn with_config<A: MapAccess<'de>>(name: String, map: &mut A) -> Result<Self, A::Error> {
        match name.as_str() {
            "iii-stream" => Ok(Self::Stream(config(map)?)),
            "iii-worker-manager" => Ok(Self::Port(config(map)?)),
            _ => {
                map.next_value::<IgnoredAny>()?;
                Ok(Self::Other { name })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

impl<'de> Named<'de> for Adapter {
    const EXPECTED: &'static str = "an adapter with `name` and `config`";

    fn without_config(name: String) -> Self {
        match name.as_str() {
            "kv" => Self::Kv(Box::default()),
            "redis" => Self::Redis(Box::default()),
            _ => Self::Other { name },
        }
    }

    fn with_config<A: MapAccess<'de>>(name: String, map: &mut A) -> Result<Self, A::Error> {
        match name.as_str() {
            "kv" => Ok(Self::Kv(config(map)?)),
            "redis" => {
                let redis: Box<RedisEntry> = config(map)?;
                match redis.contradiction() {
                    Some(contradiction) => Err(A::Error::custom(contradiction)),
                    None => Ok(Self::Redis(redis)),
                }
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
                Ok(Self::Other { name })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Adapter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError, StoreConfig};
    use crate::store::Durability;

    fn read(text: &str) -> Result<Config, ConfigError> {
        Config::from_text(text, Path::new("stream.yaml"), |_| None)
    }

    /// The samples of the product document, and the one of the specification (stream functions, section 11).
    const SAMPLES: [(&str, &str); 5] = [
        (
            "- name: iii-stream\n  config:\n    port: ${STREAM_PORT:3112}\n    host: 0.0.0.0\n    adapter:\n      name: redis\n      config:\n        redis_url: ${REDIS_URL:redis://localhost:6379}\n",
            "redis://localhost:6379",
        ),
        (
            "- name: iii-stream\n  config:\n    auth_function: onAuth\n",
            "data/stream_store",
        ),
        (
            "- name: iii-stream\n  config:\n    port: 3112\n    host: 0.0.0.0\n    auth_function: stream::auth\n    adapter:\n      name: kv\n      config:\n        store_method: file_based\n        file_path: ./data/stream_store\n",
            "./data/stream_store",
        ),
        (
            "- name: iii-stream\n  config:\n    port: 3112          # number, default 3112\n    host: 0.0.0.0       # default 0.0.0.0\n    auth_function: id   # optional\n    adapter:            # optional, default kv in memory\n      name: kv          # kv | redis | bridge\n      config:\n        store_method: in_memory   # in_memory (default) | file_based\n        file_path: ./data/x       # directory, default kv_store_data.db\n        save_interval_ms: 5000    # flush period, >= 100\n        channel_size: 256         # events buffered for fan-out\n",
            "memory",
        ),
        (
            "- name: iii-stream\n  config:\n    adapter:\n      name: bridge\n      config:\n        bridge_url: ws://localhost:49134\n",
            "not built in: bridge",
        ),
    ];

    #[test]
    fn every_sample_is_read_as_a_list_and_under_workers() {
        for (sample, expected) in SAMPLES {
            let indented: String = sample.lines().map(|line| format!("  {line}\n")).collect();
            for text in [sample.to_owned(), format!("workers:\n{indented}")] {
                let config = read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                let store = match config.store {
                    StoreConfig::Memory => "memory".to_owned(),
                    StoreConfig::File(file) => file.dir.display().to_string(),
                    StoreConfig::Redis(redis) => redis.nodes.to_string(),
                    StoreConfig::NotBuiltIn { name } => format!("not built in: {name}"),
                    StoreConfig::Custom { name } => format!("custom: {name}"),
                };
                assert_eq!(
                    (store.as_str(), config.subscribers.port),
                    (expected, 3_112),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn says_where_and_what_was_meant() {
        let cases = [
            (
                "- name: iii-stream\n  config:\n    prot: 1\n",
                "stream.yaml:3:5: unknown key `prot`, did you mean `port`?",
            ),
            (
                "- name: iii-stream\n  config:\n    adapter:\n      name: kv\n      config:\n        store: x\n",
                "stream.yaml:6:9: unknown key `store`, did you mean `store_method`?",
            ),
            (
                "- name: iii-stream\n  config:\n    ping_interval_ms: 0\n",
                "stream.yaml:3:23: `ping_interval_ms` is 0, allowed are 1 to 86400000 milliseconds",
            ),
            (
                "- name: iii-stream\n  config:\n    drain_window_ms: 86400001\n",
                "stream.yaml:3:22: `drain_window_ms` is 86400001, allowed are 0 to 86400000 milliseconds",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                read(text)
                    .map_err(|error| error.to_string())
                    .err()
                    .as_deref(),
                Some(expected)
            );
        }
        for text in [
            "- name: iii-stream\n  config:\n    port: many\n",
            "- nam: x\n",
            "just words",
            "- name: [\n",
        ] {
            let error = read(text).expect_err("no configuration").to_string();
            assert!(
                error.starts_with("stream.yaml:") && error.len() < 200,
                "{error}"
            );
        }
    }

    #[test]
    fn other_entries_are_skipped_and_told() {
        let text = "- name: iii-queue\n  config: { anything: [1] }\n- name: iii-worker-manager\n  config: { port: 5000, host: 127.0.0.2 }\n";
        let config = read(text).expect("a configuration");
        assert_eq!(
            (config.workers.port, config.workers.host.as_str()),
            (5_000, "127.0.0.2")
        );
        assert!(
            config
                .warnings
                .iter()
                .any(|line| line.contains("iii-queue")),
            "{:?}",
            config.warnings
        );
    }

    #[test]
    fn keys_of_files_are_read_checked_and_told_where_they_mean_nothing() {
        let kv = |keys: &str| {
            read(&format!(
                "- name: iii-stream\n  config: {{ host: 127.0.0.1, adapter: {{ name: kv, config: {{ {keys} }} }} }}\n"
            ))
        };
        let config = kv(
            "store_method: file_based, file_path: x, durability: os, cache_bytes_max: 1000000, log_segment_bytes: 65536",
        )
        .expect("a configuration");
        let StoreConfig::File(file) = config.store else {
            panic!("in files");
        };
        assert_eq!(
            (
                file.dir.as_path(),
                file.durability,
                file.cache_bytes_max,
                file.segment_bytes
            ),
            (Path::new("x"), Durability::Os, 1_000_000, 65_536)
        );
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let ignored = kv("store_method: in_memory, file_path: x, durability: os").expect("valid");
        assert_eq!(
            (ignored.store, ignored.warnings.len()),
            (StoreConfig::Memory, 2)
        );
        for bad in [
            "store_method: file_based, log_segment_bytes: 1",
            "store_method: file_based, durability: never",
            "store_method: file_based, file_pth: x",
            "store_method: on_paper",
        ] {
            let error = kv(bad).expect_err(bad).to_string();
            assert!(error.starts_with("stream.yaml:2:"), "{bad}: {error}");
        }
    }

    #[test]
    fn default_grants_are_read_and_what_is_wrong_with_them_is_placed() {
        let grants = |value: &str, more: &str| {
            read(&format!(
                "- name: iii-stream\n  config:\n    host: 127.0.0.1\n    default_grants: {value}\n{more}"
            ))
        };
        let config = grants(
            r#"[{ stream: chat, group: "room-*", can: [read, send] }]"#,
            "",
        );
        let config = config.expect("a configuration");
        let same = r#"[{"stream":"chat","group":"room-*","can":["read","send"]}]"#;
        assert_eq!(
            Ok(config.auth.default_grants),
            iii_stream_core::Grants::from_text(same)
        );
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let beside = grants("[]", "    auth_function: f\n").expect("a configuration");
        assert_eq!(beside.warnings.len(), 1, "{:?}", beside.warnings);
        for (bad, named) in [
            ("everything", "sequence"),
            ("[{ can: [write] }]", "`write`"),
            ("[{ groups: a, can: [read] }]", "`groups`"),
            ("[{ stream: \"\", can: [read] }]", "empty"),
            ("[{ group: , can: [read] }]", "null"),
            ("[{ group: a, can: [read] }]", "`stream`"),
            ("[{ stream: a, group: a }]", "`can`"),
        ] {
            let error = grants(bad, "").expect_err(bad).to_string();
            assert!(
                error.starts_with("stream.yaml:4:") && error.contains(named),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn an_admin_port_is_wanted_only_where_it_is_named() {
        let admin = |keys: &str| {
            let text = format!("- name: iii-stream\n  config: {{ host: 127.0.0.1{keys} }}\n");
            let config = read(&text).expect("a configuration");
            (config.admin.port, config.warnings.len())
        };
        assert_eq!(admin(""), (None, 0));
        assert_eq!(admin(", admin_port: 3113"), (Some(3_113), 0));
        assert_eq!(admin(", admin_host: 0.0.0.0"), (None, 1));
    }

    #[test]
    fn an_empty_file_is_a_bare_start() {
        for text in ["", "# nothing\n"] {
            let config = read(text).expect("a configuration");
            assert_eq!(
                (config.workers.port, config.subscribers.port),
                (49_134, 3_112)
            );
            assert_eq!(config.store, Config::bare().store);
            let StoreConfig::File(file) = config.store else {
                panic!("a bare start keeps groups in files");
            };
            assert_eq!(file.dir, Path::new("data/stream_store"));
            assert_eq!(file.durability, Durability::Fsync);
        }
    }
}
