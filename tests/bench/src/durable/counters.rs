//! What the server's store says of itself, read from its metrics.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use iii_stream::bench::wire::{connect, unexpected};

/// Counters since the start, and gauges of now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: f64,
    pub(crate) records: f64,
    /// Bytes given to the system for the log, and for the streams' files.
    pub(crate) log_written: f64,
    pub(crate) fold_written: f64,
    pub(crate) folds: f64,
    /// Bytes of groups in memory, now.
    pub(crate) cache_bytes: f64,
    /// Bytes of the log that are not folded, now.
    pub(crate) log_bytes: f64,
}

impl Counters {
    /// Asks the server.
    pub(crate) fn read(admin: SocketAddr) -> io::Result<Self> {
        let mut stream = connect(admin)?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let number = |name: &str| {
            find(&text, name).ok_or_else(|| unexpected(&format!("no metric {name}"), &answer))
        };
        Ok(Self {
            batches: number("batches_total")?,
            records: number("records_total")?,
            log_written: number("log_written_bytes_total")?,
            fold_written: number("fold_written_bytes_total")?,
            folds: number("folds_total")?,
            cache_bytes: number("cache_bytes")?,
            log_bytes: number("log_bytes")?,
        })
    }

    /// What was counted since `earlier`; the gauges as they are now.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            batches: self.batches - earlier.batches,
            records: self.records - earlier.records,
            log_written: self.log_written - earlier.log_written,
            fold_written: self.fold_written - earlier.fold_written,
            folds: self.folds - earlier.folds,
            ..self
        }
    }

    /// Records by batches.
    pub(crate) fn records_per_batch(self) -> f64 {
        self.records / self.batches.max(1.0)
    }

    /// Bytes of one batch.
    pub(crate) fn bytes_per_batch(self) -> f64 {
        self.log_written / self.batches.max(1.0)
    }
}

fn find(text: &str, name: &str) -> Option<f64> {
    let line = |line: &str| {
        let rest = line.strip_prefix("iii_stream_store_")?;
        rest.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()
    };
    text.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "iii_stream_store_log_bytes_max 9\r\niii_stream_store_log_bytes 7\r\n";
        assert_eq!(find(text, "log_bytes"), Some(7.0));
        assert_eq!(find(text, "log"), None);
    }
}
