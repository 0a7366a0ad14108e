//! Since when the server runs, and whether it is stopping.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Since when the server runs, and whether it is stopping. Shared by all who must know.
#[derive(Debug)]
pub struct Lifecycle {
    since: Instant,
    is_draining: AtomicBool,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            is_draining: AtomicBool::new(false),
        }
    }
}

impl Lifecycle {
    /// How long the server has been running.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    /// A stop begins: nobody new comes in.
    pub fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether a stop has begun.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}
