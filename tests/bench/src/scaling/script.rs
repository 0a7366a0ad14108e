//! The commit script as `redis-benchmark` runs it: what Redis can take of it, without us.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use iii_stream_core::relay::write_body;
use iii_stream_core::{Draft, Json, Kind, Ttl};

use crate::rounds::{CONNECTIONS, DEPTH};
use crate::values::{ITEMS, value_text};

/// The very script of the store.
const COMMIT: &str = include_str!("../../../../host-native/src/store/redis/scripts/commit.lua");

/// The first argument is packed numbers, which no command line can hold: a deadline that never comes, no floor, the bounds, one
/// item, no client and no turn.
const NUMBERS: &str = "ARGV[1] = struct.pack('>ddddddddddddd', 99999999999999, 0, 100000, 67108864, 1000, 1000, 1048576, \
    4194304, 4194304, 3600000, 1, 0, 0)\n";

/// `redis-benchmark` puts a number of twelve digits here.
const RANDOM: &str = "__rand_int__";

/// Runs it for about so long, and gives commits a second: each sets one of as many items as the other loads have, in a group
/// of its own.
pub(super) fn measure(redis: SocketAddr, time: Duration) -> io::Result<f64> {
    let rough = run(redis, 20_000)?;
    run(redis, (rough * time.as_secs_f64()) as u64)
}

fn run(redis: SocketAddr, commits: u64) -> io::Result<f64> {
    let sha = load(redis)?;
    let output = Command::new("redis-benchmark")
        .args(["-h", &redis.ip().to_string()])
        .args(["-p", &redis.port().to_string()])
        .args(["-c", &CONNECTIONS.to_string(), "-P", &DEPTH.to_string()])
        .args(["-n", &commits.max(1).to_string(), "-r", &ITEMS.to_string()])
        .arg("--csv")
        .arg("EVALSHA")
        .arg(sha)
        .args(arguments()?)
        .stdin(Stdio::null())
        .output()?;
    rate(&output.stdout).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        io::Error::other(format!("redis-benchmark says no rate: {said}{errors}"))
    })
}

fn load(redis: SocketAddr) -> io::Result<OsString> {
    let output = Command::new("redis-cli")
        .args(["-h", &redis.ip().to_string()])
        .args(["-p", &redis.port().to_string()])
        .args(["SCRIPT", "LOAD", &format!("{NUMBERS}{COMMIT}")])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Keys and arguments as the script tells them: one set of one item, whatever its version.
fn arguments() -> io::Result<Vec<OsString>> {
    const TAG: &str = "{bench:script}";
    let value = Json::from_text(&value_text(0)).map_err(io::Error::other)?;
    let draft = Draft {
        item: Some("item-0000".into()),
        kind: Kind::Update,
        value: Some(value.clone()),
        ops: None,
        base: None,
        ttl: Ttl::Replace(None),
        mutation: None,
    };
    let mut body = Vec::new();
    let value_at = write_body(&draft, &mut body).unwrap_or_default();
    let mut arguments: Vec<OsString> = vec!["5".into()];
    for key in ["g", "o", "h", "u", "x"] {
        arguments.push(format!("bench:{key}:{TAG}").into());
    }
    let group = [
        String::new(),
        "0123456789ab".to_owned(),
        "-".to_owned(),
        // Any epoch.
        "*".to_owned(),
        // Bodies are kept, changes are published.
        "1P".to_owned(),
        format!("bench:e:{TAG}"),
        String::new(),
        "bench:script".to_owned(),
        format!("hitem-{RANDOM}"),
    ];
    arguments.extend(group.map(OsString::from));
    arguments.extend(["w", "1", "0", "*", "", "", "-"].map(OsString::from));
    arguments.push(OsString::from_vec(body));
    arguments.push(value_at.to_string().into());
    arguments.push(value.as_str().len().to_string().into());
    Ok(arguments)
}

/// The rate in the last line of the table: `"test","rps",…`.
fn rate(csv: &[u8]) -> Option<f64> {
    let text = String::from_utf8_lossy(csv);
    let line = text.lines().rfind(|line| line.starts_with('"'))?;
    // The command stands quoted in front, whatever it holds.
    let fields: Vec<&str> = line.rsplit("\",\"").collect();
    fields.get(COLUMNS_AFTER_RATE)?.parse().ok()
}

/// avg, min, p50, p95, p99 and max latency.
const COLUMNS_AFTER_RATE: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_behind_any_command() {
        let csv = b"\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\"EVALSHA {\"id\":\"a\",\"n\":0}\",\"110680.69\",\"2.233\",\"0.1\",\"2.143\",\"3\",\"4\",\"5\"\n";
        assert_eq!(rate(csv), Some(110_680.69));
        assert_eq!(rate(b""), None);
    }
}
