//! The end of a leader's log in memory, so that followers near it are fed without the disk. Bounded in bytes; only batches of the
//! current leadership are in it.

use std::cmp::Ordering;
use std::collections::VecDeque;

use zue_core::Tail;
use zue_log::Batch;

/// The newest batches of the log, without a gap. `B` is a batch of frames, with whatever goes with it.
#[derive(Debug)]
pub struct Ring<B = Batch> {
    bytes_max: usize,
    batches: VecDeque<B>,
    bytes: usize,
}

impl<B: AsRef<Batch> + Clone> Ring<B> {
    /// One that holds so many bytes at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, batches: VecDeque::new(), bytes: 0 }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        (self.batches, self.bytes) = (VecDeque::new(), 0);
    }

    /// Adds a batch that follows the last one.
    pub fn push(&mut self, batch: B) {
        if self.batches.back().is_some_and(|last| last.as_ref().tail() != batch.as_ref().prev()) {
            self.clear();
        }
        self.bytes += batch.as_ref().bytes().len();
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes -= oldest.as_ref().bytes().len();
        }
    }

    /// The frames that follow `prev`, whole batches of at most `bytes_max` together but at least one; none if they are not here.
    pub fn after(&self, prev: Tail, bytes_max: usize) -> Option<Vec<B>> {
        let last = self.batches.back()?.as_ref();
        let at = match last.prev().cmp(&prev) {
            // Mostly the newest is asked for.
            Ordering::Equal => self.batches.len() - 1,
            Ordering::Less => return None,
            Ordering::Greater => self.batches.binary_search_by(|batch| batch.as_ref().prev().cmp(&prev)).ok()?,
        };
        let mut found: Vec<B> = Vec::new();
        let mut bytes = 0;
        for batch in self.batches.range(at..) {
            let next = bytes + batch.as_ref().bytes().len();
            if next > bytes_max && !found.is_empty() {
                break;
            }
            bytes = next;
            found.push(batch.clone());
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::{batch, tail};

    /// The bytes that follow, and up to where.
    fn after(ring: &Ring, prev: u64, bytes_max: usize) -> Option<(usize, Tail)> {
        let found = ring.after(tail(prev), bytes_max)?;
        Some((Batch::join(&found).len(), found.last()?.tail()))
    }

    #[test]
    fn frames_are_found_by_what_they_follow() {
        let size = batch(0).bytes().len();
        let mut ring = Ring::new(3 * size);
        (0..5).for_each(|base| ring.push(batch(base)));
        assert_eq!(after(&ring, 1, usize::MAX), None, "the oldest are gone");
        assert_eq!(after(&ring, 5, usize::MAX), None, "nothing follows the newest");
        assert_eq!(after(&ring, 2, usize::MAX), Some((3 * size, tail(5))));
        assert_eq!(after(&ring, 2, 3 * size - 1), Some((2 * size, tail(4))), "whole batches alone");
        assert_eq!(after(&ring, 3, 1), Some((size, tail(4))), "but one at least");
    }

    #[test]
    fn a_gap_empties_what_is_before_it() {
        let mut ring = Ring::new(usize::MAX);
        ring.push(batch(0));
        ring.push(batch(7));
        assert_eq!(after(&ring, 0, usize::MAX), None);
        assert!(after(&ring, 7, usize::MAX).is_some());
    }
}
