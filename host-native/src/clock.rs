//! The only reader of the system's time of day. Everything below is handed the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds; 0 for a clock that stands before 1970.
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Milliseconds since 1970 fit until the year 584,554,051.
    elapsed.as_millis() as u64
}
