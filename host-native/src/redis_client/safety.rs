//! Settings of a server with which it may lose what it has acknowledged, or drop what we depend on.

use redis::Value;

/// What is asked for.
const SETTINGS: [&str; 5] = [
    "appendonly",
    "appendfsync",
    "maxmemory-policy",
    "min-replicas-to-write",
    "client-output-buffer-limit",
];
/// A subscription connection that is behind by fewer bytes must not be cut off.
const PUBSUB_BUFFER_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// What is not safe at a server, and what to do: one line each.
pub(super) fn judge(answer: &Value, replicas: u64) -> Vec<String> {
    let settings: Vec<(String, String)> = match redis::from_redis_value(answer.clone()) {
        Ok(settings) if !matches!(answer, Value::ServerError(_)) => settings,
        _ => {
            return vec![
                "its settings cannot be read (CONFIG GET is not allowed): whether it keeps what it acknowledges cannot be told"
                    .to_owned(),
            ];
        }
    };
    let setting = |name: &str| {
        let mut all = settings.iter();
        all.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    };
    let mut unsafe_settings = Vec::new();
    match setting("appendonly") {
        Some("no") => unsafe_settings.push(
            "appendonly is no: a restart loses what was written since the last snapshot; set appendonly yes".to_owned(),
        ),
        Some(_) if setting("appendfsync") == Some("no") => unsafe_settings.push(
            "appendfsync is no: a power cut loses what the system has not written yet; set appendfsync everysec or always".to_owned(),
        ),
        _ => {}
    }
    if let Some(policy) = setting("maxmemory-policy").filter(|policy| *policy != "noeviction") {
        unsafe_settings.push(format!(
            "maxmemory-policy is {policy}: keys vanish when memory is short; set maxmemory-policy noeviction"
        ));
    }
    if replicas == 0 {
        unsafe_settings
            .push("it has no replica: its machine is the only one with the data".to_owned());
    } else if setting("min-replicas-to-write") == Some("0") {
        unsafe_settings.push(
            "min-replicas-to-write is 0: a failover loses what no replica had yet; set min-replicas-to-write 1".to_owned(),
        );
    }
    if let Some(bytes) = setting("client-output-buffer-limit").and_then(pubsub_bytes)
        && bytes > 0
        && bytes < PUBSUB_BUFFER_BYTES_MIN
    {
        unsafe_settings.push(format!(
            "client-output-buffer-limit pubsub is {bytes} bytes: subscriptions are cut off in a burst; allow {PUBSUB_BUFFER_BYTES_MIN} or more"
        ));
    }
    unsafe_settings
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

    const SAFE: [(&str, &str); 5] = [
        ("appendonly", "yes"),
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
            (1, "no"),
            (2, "allkeys-lru"),
            (3, "0"),
            (4, "pubsub 1048576 0 0"),
        ] {
            let mut pairs = SAFE;
            pairs[index].1 = value;
            let told = judge(&settings(&pairs), 1);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(SAFE[index].0), "{told:?}");
        }
        let told = judge(&settings(&SAFE), 0);
        assert!(told[0].contains("no replica"), "{told:?}");
        let forbidden = redis::parse_redis_value(b"-NOPERM no\r\n").expect("RESP");
        assert!(judge(&forbidden, 1)[0].contains("cannot be told"));
    }
}
