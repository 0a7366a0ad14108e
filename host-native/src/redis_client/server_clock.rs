//! An estimate of a server's clock, from what it said last and the time since.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::Value;

use crate::clock;

/// The clock of one server.
#[derive(Debug, Default)]
pub(super) struct ServerClock(Mutex<Option<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    server_ms: u64,
    at: Instant,
}

impl ServerClock {
    /// Notes an answer to `TIME`, which was asked for at `asked` and has just come: the server read its clock halfway between.
    pub(super) fn note(&self, answer: &Value, asked: Instant) {
        let Some(server_ms) = read_time(answer) else {
            return;
        };
        let at = asked + asked.elapsed() / 2;
        *self.0.lock() = Some(Reading { server_ms, at });
    }

    /// Its Unix milliseconds now; those of this machine before the server told any.
    pub(super) fn now_ms(&self) -> u64 {
        match *self.0.lock() {
            Some(reading) => reading.server_ms + whole_ms(reading.at.elapsed()),
            None => clock::unix_ms(),
        }
    }
}

/// Whole milliseconds of a time.
pub(super) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `TIME` answers seconds and microseconds as texts.
fn read_time(answer: &Value) -> Option<u64> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(answer.clone()).ok()?;
    Some(seconds * 1_000 + micros / 1_000)
}
