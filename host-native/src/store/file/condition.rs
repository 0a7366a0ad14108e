//! Whether the store can be written, and what people are told where it cannot.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::store::{Condition, StoreError, StoreErrorCause};

const WORKS: u8 = 0;
const FULL: u8 = 1;
const READ_ONLY: u8 = 2;

/// The present condition.
#[derive(Default)]
pub(super) struct Present {
    code: AtomicU8,
    reason: Mutex<String>,
}

impl Present {
    /// Errors: why nothing can be written now.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        if self.code.load(Ordering::Acquire) == WORKS {
            return Ok(());
        }
        Err(self.error())
    }

    pub(super) fn is_full(&self) -> bool {
        self.code.load(Ordering::Acquire) == FULL
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.code.load(Ordering::Acquire) == READ_ONLY
    }

    /// There is room again.
    pub(super) fn set_works(&self) {
        if self.is_full() {
            self.code.store(WORKS, Ordering::Release);
        }
    }

    /// No room on the disk, for now.
    pub(super) fn set_full(&self, reason: String) {
        self.set(FULL, reason);
    }

    /// Something failed that leaves the disk in an unknown state: nothing is written until a restart.
    pub(super) fn set_read_only(&self, reason: String) {
        self.set(READ_ONLY, reason);
    }

    fn set(&self, code: u8, reason: String) {
        *self.reason.lock() = reason;
        self.code.fetch_max(code, Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> Condition {
        match self.code.load(Ordering::Acquire) {
            WORKS => Condition::Works,
            FULL => Condition::Full(self.reason.lock().clone()),
            _ => Condition::ReadOnly(self.reason.lock().clone()),
        }
    }

    fn error(&self) -> StoreError {
        match self.get() {
            // It changed just now; a disk is never elsewhere.
            Condition::Works | Condition::Unavailable(_) => StoreError::in_trouble(),
            Condition::Full(reason) => StoreError::full(&reason),
            Condition::ReadOnly(reason) => StoreError::read_only(&reason),
        }
    }
}

impl StoreError {
    pub(super) fn full(reason: &str) -> Self {
        let message = format!("the disk is full, nothing was changed: {reason}");
        Self::new(StoreErrorCause::Full, message)
    }

    pub(super) fn read_only(reason: &str) -> Self {
        let message = format!("the store is read-only until the server is restarted: {reason}");
        Self::new(StoreErrorCause::ReadOnly, message)
    }

    pub(super) fn behind(queue_bytes_max: usize) -> Self {
        let message = format!(
            "the disk is behind: {queue_bytes_max} bytes wait to be written, which is the limit; try again later"
        );
        Self::new(StoreErrorCause::Behind, message)
    }

    pub(super) fn in_trouble() -> Self {
        Self::other("nothing can be written at this moment; try again")
    }

    pub(super) fn damaged(what: impl std::fmt::Display) -> Self {
        let message = format!("cannot read what was stored: {what}");
        Self::new(StoreErrorCause::Damaged, message)
    }
}
