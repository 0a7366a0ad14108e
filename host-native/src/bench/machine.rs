//! The machine and build a report belongs to.

use serde_json::{Value, json};

/// Cores, CPU model, kernel, memory and how busy the machine was at the start.
pub fn describe() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "cores": cores,
        "cpu": field("/proc/cpuinfo", "model name"),
        "kernel": line("/proc/sys/kernel/osrelease"),
        "memory": field("/proc/meminfo", "MemTotal"),
        "load_average_at_start": line("/proc/loadavg"),
    })
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// The first `name : value` of a file.
fn field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or_else(|| "unknown".into(), |(_, value)| value.trim().into())
}
