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
    /// When it was read, as far as can be told.
    at: Instant,
    /// When it was read at the latest.
    until: Instant,
}

impl ServerClock {
    /// Notes an answer to `TIME`, which was asked for at `asked` and has just come: the server read its clock halfway between.
    pub(super) fn note(&self, answer: &Value, asked: Instant) {
        let Some(server_ms) = read_time(answer) else {
            return;
        };
        let until = Instant::now();
        let at = asked + until.duration_since(asked) / 2;
        *self.0.lock() = Some(Reading {
            server_ms,
            at,
            until,
        });
    }

    /// Its Unix milliseconds now; those of this machine before the server told any.
    pub(super) fn now_ms(&self) -> u64 {
        match *self.0.lock() {
            Some(reading) => reading.server_ms + whole_ms(reading.at.elapsed()),
            None => clock::unix_ms(),
        }
    }

    /// The same, but surely not later than it is there, however long the answer took.
    pub(super) fn earliest_ms(&self) -> u64 {
        match *self.0.lock() {
            Some(reading) => reading.server_ms + whole_ms(reading.until.elapsed()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_makes_the_estimate_vague_and_its_lower_end_stays_true() {
        let clock = ServerClock::default();
        let answer = Value::Array(vec![
            Value::BulkString(b"1000".to_vec()),
            Value::BulkString(b"5000".to_vec()),
        ]);
        let took = Duration::from_secs(60);
        let asked = Instant::now().checked_sub(took);
        clock.note(&answer, asked.expect("the machine is up for a minute"));
        // The server may have read its clock right before it answered: less than a minute ago, and more than nothing.
        assert!((1_000_005..1_010_005).contains(&clock.earliest_ms()));
        assert!((1_030_005..1_040_005).contains(&clock.now_ms()));
    }
}
