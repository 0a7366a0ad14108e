//! Settings of a server with which it may lose what it has acknowledged, or drop what we depend on.

use redis::Value;

/// What is asked for.
const SETTINGS: [&str; 6] = [
    "appendonly",
    "save",
    "appendfsync",
    "maxmemory-policy",
    "min-replicas-to-write",
    "client-output-buffer-limit",
];
/// A subscription connection that is behind by fewer bytes must not be cut off.
const PUBSUB_BUFFER_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// What is not safe at a server: one line each, with the setting, what may be lost by it, and what to do.
pub(super) fn judge(answer: &Value, replicas: u64) -> Vec<String> {
    let settings: Vec<(String, String)> = match redis::from_redis_value(answer.clone()) {
        Ok(settings) if !matches!(answer, Value::ServerError(_)) => settings,
        _ => {
            return vec![
                "its settings cannot be read, so whether it keeps what was acknowledged cannot be told: allow CONFIG GET to our user, or see to it that appendonly is yes"
                    .to_owned(),
            ];
        }
    };
    let setting = |name: &str| {
        let mut all = settings.iter();
        all.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    };
    let mut found = Vec::new();
    match (setting("appendonly"), setting("save")) {
        (Some("no"), Some("")) => found.push(
            "appendonly is no and save is empty: whenever Redis ends, everything is lost; set appendonly yes".to_owned(),
        ),
        (Some("no"), _) => found.push(
            "appendonly is no: when Redis is killed or crashes, what was acknowledged since its last snapshot is lost; set appendonly yes".to_owned(),
        ),
        _ if setting("appendfsync") == Some("no") => found.push(
            "appendfsync is no: a power cut loses what the system has not put on the disk yet, some 30 s; set appendfsync everysec (some 2 s) or always (nothing)".to_owned(),
        ),
        _ => {}
    }
    if let Some(policy) = setting("maxmemory-policy").filter(|policy| *policy != "noeviction") {
        found.push(format!(
            "maxmemory-policy is {policy}: when memory is short, Redis throws groups away without a word; set maxmemory-policy noeviction, so that writes are refused"
        ));
    }
    if replicas == 0 {
        found.push(
            "it has no replica: when its machine is lost, so is everything, and until it is back nothing works; attach a replica".to_owned(),
        );
    } else if setting("min-replicas-to-write") == Some("0") {
        found.push(
            "min-replicas-to-write is 0: it goes on acknowledging while no replica follows, and a failover loses all of that; set min-replicas-to-write 1".to_owned(),
        );
    }
    if let Some(bytes) = setting("client-output-buffer-limit").and_then(pubsub_bytes)
        && bytes > 0
        && bytes < PUBSUB_BUFFER_BYTES_MIN
    {
        found.push(format!(
            "client-output-buffer-limit pubsub is {bytes} bytes: in a burst subscriptions are cut off, and subscribers get a fresh `sync`; allow {PUBSUB_BUFFER_BYTES_MIN} or more"
        ));
    }
    found
}

/// The command that asks for the settings.
pub(super) fn question() -> redis::Cmd {
    let mut question = redis::cmd("CONFIG");
    question.arg("GET").arg(&SETTINGS);
    question
}

/// The hard limit for pub/sub, of a text such as `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn pubsub_bytes(limits: &str) -> Option<u64> {
    let mut words = limits.split_ascii_whitespace();
    words.find(|word| *word == "pubsub")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Value {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Value::Map(
            pairs
                .iter()
                .map(|(key, value)| (text(key), text(value)))
                .collect(),
        )
    }

    const SAFE: [(&str, &str); 6] = [
        ("appendonly", "yes"),
        ("save", ""),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
        ("min-replicas-to-write", "1"),
        (
            "client-output-buffer-limit",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        ),
    ];

    #[test]
    fn safe_settings_are_not_told() {
        assert_eq!(judge(&settings(&SAFE), 1), Vec::<String>::new());
    }

    #[test]
    fn each_unsafe_setting_is_told_by_its_name() {
        for (index, value) in [
            (0, "no"),
            (2, "no"),
            (3, "allkeys-lru"),
            (4, "0"),
            (5, "pubsub 1048576 0 0"),
        ] {
            let mut pairs = SAFE;
            pairs[index].1 = value;
            let told = judge(&settings(&pairs), 1);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(SAFE[index].0), "{told:?}");
        }
        let mut pairs = SAFE;
        (pairs[0].1, pairs[1].1) = ("no", "3600 1");
        assert!(judge(&settings(&pairs), 1)[0].contains("since its last snapshot"));
        pairs[1].1 = "";
        assert!(judge(&settings(&pairs), 1)[0].contains("everything is lost"));
        let told = judge(&settings(&SAFE), 0);
        assert!(told[0].contains("no replica"), "{told:?}");
        let forbidden = redis::parse_redis_value(b"-NOPERM no\r\n").expect("RESP");
        assert!(judge(&forbidden, 1)[0].contains("cannot be told"));
    }
}
