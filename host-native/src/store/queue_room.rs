//! What may wait in all queues of a store together. Whoever waits has a share, and gives it back with its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{StoreError, StoreErrorCause};

/// See the module.
pub(super) struct QueueRoom {
    taken_bytes: AtomicUsize,
    bytes_max: usize,
}

/// So many bytes of the room, until it is dropped.
pub(super) struct QueueShare {
    room: Arc<QueueRoom>,
    bytes: usize,
}

impl QueueRoom {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken_bytes: AtomicUsize::new(0),
            bytes_max,
        })
    }

    /// Takes a share. One is always given where nobody else has any.
    ///
    /// Errors: [`StoreErrorCause::Behind`] where there is no room.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Result<QueueShare, StoreError> {
        let more = |taken: usize| {
            let sum = taken.saturating_add(bytes);
            (taken == 0 || sum <= self.bytes_max).then_some(sum)
        };
        let taken = &self.taken_bytes;
        match taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(QueueShare {
                room: self.clone(),
                bytes,
            }),
            Err(taken) => Err(StoreError::new(
                StoreErrorCause::Behind,
                format!(
                    "calls of {taken} bytes wait for Redis in all groups, and this one has {bytes}: at most {} (queue_total_bytes_max) may",
                    self.bytes_max
                ),
            )),
        }
    }

    /// What is taken now.
    pub(super) fn bytes(&self) -> usize {
        self.taken_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for QueueShare {
    fn drop(&mut self) {
        let taken = &self.room.taken_bytes;
        taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back_and_the_only_one_may_be_of_any_size() {
        let room = QueueRoom::new(100);
        let large = room.take(1_000).expect("nobody else has any");
        assert!(room.take(1).is_err());
        drop(large);
        let (first, second) = (room.take(60), room.take(40));
        assert_eq!(room.bytes(), 100);
        let error = room.take(1).err().expect("it is full");
        assert_eq!(error.cause, StoreErrorCause::Behind);
        assert!(error.message.contains("queue_total_bytes_max"), "{error}");
        drop(first);
        assert_eq!(room.bytes(), 40);
        assert!(room.take(60).is_ok());
        drop(second);
        assert_eq!(room.bytes(), 0);
    }
}
