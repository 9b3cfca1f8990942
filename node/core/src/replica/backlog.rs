//! The number of bytes of a leader's log behind a place in it. Knows the appends of one leadership, as totals at some of their ends:
//! near the log's end to the grain, far from it as a number that is too small rather than too large.

use alloc::collections::VecDeque;

use crate::types::Offset;

/// The number of totals that are kept. With a grain of a 2,048th of what is asked about they reach back twice as far.
const MARKS_MAX: usize = 4096;
const GRAINS: u64 = 2048;

/// The sizes of appends, added up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Backlog {
    /// Ends of appends, and all bytes up to there. Invariant: both rise; never empty.
    marks: VecDeque<(Offset, u64)>,
    /// The last end and all bytes there are.
    last: (Offset, u64),
    grain: u64,
}

impl Backlog {
    /// Nothing yet behind `start`; of interest are lags of about `bytes`.
    pub(crate) fn new(start: Offset, bytes: u64) -> Self {
        let last = (start, 0);
        Self { marks: [last].into(), last, grain: bytes / GRAINS }
    }

    /// An append of so many bytes that ends at `end`.
    pub(crate) fn push(&mut self, end: Offset, bytes: u64) {
        debug_assert!(self.last.0 < end, "an append ends before the one in front of it");
        self.last = (end, self.last.1.saturating_add(bytes));
        debug_assert!(self.marks.back().is_some_and(|marked| *marked <= self.last), "a total is of a later end");
        let marked = self.marks.back().map_or(0, |(_, total)| *total);
        if self.last.1 <= marked.saturating_add(self.grain) {
            return;
        }
        self.marks.push_back(self.last);
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
        debug_assert!(!self.marks.is_empty() && self.marks.len() <= MARKS_MAX, "no total is kept, or too many are");
    }

    /// The number of bytes between two ends of appends.
    pub(crate) fn between(&self, from: Offset, to: Offset) -> u64 {
        if from >= to {
            return 0;
        }
        let (before, all) = (self.total_at(from), self.total_at(to));
        debug_assert!(before <= all, "totals are out of order");
        all.saturating_sub(before)
    }

    /// The end of the last append.
    pub(crate) fn end(&self) -> Offset {
        self.last.0
    }

    fn total_at(&self, end: Offset) -> u64 {
        if end >= self.last.0 {
            return self.last.1;
        }
        let after = self.marks.partition_point(|(marked, _)| *marked <= end);
        let mark = after.checked_sub(1).and_then(|at| self.marks.get(at)).or(self.marks.front());
        mark.map_or(0, |(_, total)| *total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_to_the_grain_and_never_too_many_far_back() {
        let mut backlog = Backlog::new(Offset(5), 20_480);
        assert_eq!(backlog.between(Offset(0), Offset(5)), 0);
        for append in 0..3 {
            backlog.push(Offset(6 + append), 1000);
        }
        let behind = |backlog: &Backlog, from| backlog.between(Offset(from), Offset(1 << 40));
        assert_eq!([5, 6, 7, 8].map(|from| behind(&backlog, from)), [3000, 2000, 1000, 0]);
        assert_eq!(backlog.between(Offset(6), Offset(7)), 1000);
        // Of appends smaller than the grain some ends are kept.
        for append in 0..10 {
            backlog.push(Offset(9 + append), 3);
        }
        assert!((30..=40).contains(&behind(&backlog, 8)), "{}", behind(&backlog, 8));
        assert_eq!(behind(&backlog, 18), 0);
        for append in 0..10_000 {
            backlog.push(Offset(19 + append), 1000);
        }
        assert_eq!(backlog.marks.len(), MARKS_MAX);
        assert_eq!(behind(&backlog, 9018), 1_000 * 1000);
        let far = behind(&backlog, 8);
        assert!((4_000_000..10_000_000).contains(&far), "{far}");
    }
}
