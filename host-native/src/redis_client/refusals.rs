//! Writes that Redis refuses although it is there: it has no memory or no disk left, or too few replicas. It ends by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::RedisError;

use super::error::CallError;

/// A refusal counts for so long: nobody may write meanwhile, and then it is not known whether it still is so.
const REFUSAL_COUNTS: Duration = Duration::from_secs(10);

/// The last refusal.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Option<(Instant, Arc<str>)>>);

impl Refusals {
    /// Takes note of how a call ended.
    pub(super) fn note(&self, error: &CallError) {
        let why: Arc<str> = match error {
            CallError::Refused(refused) if is_for_want_of_room(refused) => error.to_string().into(),
            CallError::Unavailable { why, .. } if why.starts_with("NOREPLICAS") => {
                error.to_string().into()
            }
            _ => return,
        };
        let is_new = self.recent().is_none();
        *self.0.lock() = Some((Instant::now(), why.clone()));
        if is_new {
            tracing::error!("writes are refused: {why}");
        }
    }

    /// Why writes were refused a moment ago.
    pub(super) fn recent(&self) -> Option<Arc<str>> {
        let last = self.0.lock();
        let recent = last
            .as_ref()
            .filter(|(at, _)| at.elapsed() < REFUSAL_COUNTS);
        recent.map(|(_, why)| why.clone())
    }
}

/// Whether the server has no room for what was to be written. Nothing of it was done.
pub fn is_for_want_of_room(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF"))
}

/// What an error that a server answers means, in words for operators.
pub(super) fn in_words(error: &RedisError) -> String {
    let details = error.detail().unwrap_or_default();
    match error.code() {
        Some("OOM") => {
            "it has no memory left (`maxmemory`), so nothing was written: raise `maxmemory`"
                .to_owned()
        }
        Some("MISCONF") => {
            format!("it cannot write to its own disk, so nothing was written: MISCONF {details}")
        }
        Some(code) => format!("{code} {details}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> CallError {
        match redis::parse_redis_value(line.as_bytes()).expect("RESP") {
            redis::Value::ServerError(error) => CallError::Refused(error.into()),
            other => panic!("{other:?} is no error"),
        }
    }

    #[test]
    fn want_of_room_is_told_in_words_and_other_errors_as_they_came() {
        let refusals = Refusals::default();
        let wrong = refused("-WRONGTYPE Operation against a key\r\n");
        refusals.note(&wrong);
        assert_eq!(refusals.recent(), None);
        assert_eq!(
            wrong.to_string(),
            "Redis refused the command: WRONGTYPE Operation against a key"
        );
        for (line, words) in [
            (
                "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
                "no memory left (`maxmemory`)",
            ),
            (
                "-MISCONF Errors writing to the AOF file: No space left on device\r\n",
                "its own disk, so nothing was written: MISCONF Errors writing to the AOF file",
            ),
        ] {
            refusals.note(&refused(line));
            let why = refusals.recent().expect("a refusal");
            assert!(why.contains(words), "{why}");
        }
        refusals.note(&CallError::Unavailable {
            node: "h:1".into(),
            why: "NOREPLICAS Not enough good replicas to write.".into(),
        });
        let why = refusals.recent().expect("a refusal");
        assert!(why.contains("Redis at h:1") && why.contains("good replicas"));
    }
}
