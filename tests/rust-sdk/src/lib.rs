//! What the checklist stands on: the SDK versions behind one trait, a server per test, and calls that can be waited for.

pub mod sdk;
pub mod server;

use serde_json::Value;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const WAIT: Duration = Duration::from_secs(15);

/// Waits for `future` with a limit; a wait that fails says what it waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WAIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {WAIT:?} for {what}"),
    }
}

/// A name no other test of this process uses.
pub fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The calls of a handler, in order.
pub struct Calls {
    pub seen: Vec<Value>,
    arriving: mpsc::UnboundedReceiver<Value>,
}

impl Calls {
    pub fn new() -> (mpsc::UnboundedSender<Value>, Self) {
        let (sender, arriving) = mpsc::unbounded_channel();
        (
            sender,
            Self {
                seen: Vec::new(),
                arriving,
            },
        )
    }

    /// The first `n` calls, waiting for those that are missing.
    pub async fn count(&mut self, n: usize) -> &[Value] {
        while self.seen.len() < n {
            let what = format!("call {} of {n}; have {:?}", self.seen.len() + 1, self.seen);
            let call = within(&what, self.arriving.recv())
                .await
                .expect("the handler lives");
            self.seen.push(call);
        }
        &self.seen[..n]
    }

    /// All calls up to the first that matches.
    pub async fn until(&mut self, matches: impl Fn(&Value) -> bool) -> &[Value] {
        let mut n = 1;
        while !matches(&self.count(n).await[n - 1]) {
            n += 1;
        }
        &self.seen[..n]
    }

    /// What has come so far; for a moment known to be after what should not have come.
    pub fn all(&mut self) -> &[Value] {
        while let Ok(call) = self.arriving.try_recv() {
            self.seen.push(call);
        }
        &self.seen
    }
}
