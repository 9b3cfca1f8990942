//! The end of the leader's log in memory, for the streams of all followers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use zue_core::Tail;
use zue_engine::ring::Ring;
use zue_log::Batch;

/// The newest batches of the log, without a gap.
#[derive(Debug)]
pub(crate) struct TailCache(Mutex<Ring>);

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Mutex::new(Ring::new(bytes_max)))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it holds the lock, and half a change would be seen as a gap and read from disk instead.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        self.ring().clear();
    }

    /// Adds a batch that follows the last one.
    pub(crate) fn push(&self, batch: Batch) {
        self.ring().push(batch);
    }

    /// The frames that follow `prev`, as [`Ring::after`] has it.
    pub(crate) fn after(&self, prev: Tail, bytes_max: usize) -> Option<Vec<Batch>> {
        self.ring().after(prev, bytes_max)
    }
}
