//! The end of the leader's log in memory, so that followers near it are fed without the disk. Bounded in bytes; only batches
//! of the current leadership are in it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use zue_core::Tail;
use zue_log::Batch;

/// The newest batches of the log, without a gap.
#[derive(Debug)]
pub(crate) struct TailCache {
    bytes_max: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ring: Mutex::default() }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it holds the lock, and half a change would be seen as a gap and read from disk instead.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        *self.ring() = Ring::default();
    }

    /// Adds a batch that follows the last one.
    pub(crate) fn push(&self, batch: Batch) {
        let mut ring = self.ring();
        if ring.batches.back().is_some_and(|last| last.tail() != batch.prev()) {
            *ring = Ring::default();
        }
        ring.bytes += batch.bytes().len();
        ring.batches.push_back(batch);
        while ring.bytes > self.bytes_max {
            let Some(oldest) = ring.batches.pop_front() else { break };
            ring.bytes -= oldest.bytes().len();
        }
    }

    /// The frames that follow `prev`, whole batches of at most `bytes_max` together but at least one, and the tail after them;
    /// none if they are not here.
    pub(crate) fn after(&self, prev: Tail, bytes_max: usize) -> Option<(Bytes, Tail)> {
        let (found, bytes) = self.collect(prev, bytes_max)?;
        let tail = found.last()?.tail();
        if let [only] = found.as_slice() {
            return Some((only.bytes().clone(), tail));
        }
        let mut frames = BytesMut::with_capacity(bytes);
        for batch in &found {
            frames.extend_from_slice(batch.bytes());
        }
        Some((frames.freeze(), tail))
    }

    fn collect(&self, prev: Tail, bytes_max: usize) -> Option<(Vec<Batch>, usize)> {
        let ring = self.ring();
        let at = ring.batches.binary_search_by(|batch| batch.prev().cmp(&prev)).ok()?;
        let mut found: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for batch in ring.batches.range(at..) {
            let next = bytes + batch.bytes().len();
            if next > bytes_max && !found.is_empty() {
                break;
            }
            bytes = next;
            found.push(batch.clone());
        }
        Some((found, bytes))
    }
}

#[cfg(test)]
mod tests {
    use zue_core::{Epoch, Offset};
    use zue_log::{BatchBuilder, Limits};

    use super::*;

    fn tail(end: u64) -> Tail {
        Tail { epoch: Epoch(1), end: Offset(end) }
    }

    fn batch(base: u64) -> Batch {
        let mut builder = BatchBuilder::new(tail(base), 0, Limits::default());
        builder.push(None, b"0123456789", [], None).unwrap();
        builder.finish().unwrap()
    }

    #[test]
    fn frames_are_found_by_what_they_follow() {
        let size = batch(0).bytes().len();
        let cache = TailCache::new(3 * size);
        (0..5).for_each(|base| cache.push(batch(base)));
        assert_eq!(cache.after(tail(1), usize::MAX), None, "the oldest are gone");
        assert_eq!(cache.after(tail(5), usize::MAX), None, "nothing follows the newest");
        let (bytes, end) = cache.after(tail(2), usize::MAX).unwrap();
        assert_eq!((bytes.len(), end), (3 * size, tail(5)));
        let (bytes, end) = cache.after(tail(3), 1).unwrap();
        assert_eq!((bytes, end), (batch(3).bytes().clone(), tail(4)));
    }

    #[test]
    fn a_gap_empties_what_is_before_it() {
        let cache = TailCache::new(usize::MAX);
        cache.push(batch(0));
        cache.push(batch(7));
        assert_eq!(cache.after(tail(0), usize::MAX), None);
        assert!(cache.after(tail(7), usize::MAX).is_some());
    }
}
