//! The requests of a repair to the other replicas: which records, in which order, and how much of what nobody has is passed over. Decides
//! only; asking is up to others.

use std::collections::VecDeque;

use zue_core::Offset;

use crate::maintenance::repair::Excerpt;
use crate::num::wide;

/// So many records of a range that nobody has are asked for one by one, then fewer and fewer of the rest.
const MISSES_MAX: u32 = 64;
/// The part of one segment that is fetched before it is written anew; the rest is fetched after that.
const EXCERPTS_BYTES_MAX: u64 = 64 << 20;

/// The records that are missing in a damaged segment, and what was fetched of them.
#[derive(Clone, Debug)]
pub struct FetchPlan {
    /// The ranges still to fetch.
    ranges: VecDeque<(Offset, Offset)>,
    /// The number of times nobody had what was asked for in the first of them, and how much is passed over then.
    misses: u32,
    pass: u64,
    excerpts: Vec<Excerpt>,
    bytes: u64,
}

/// Records that may not be fetched: another leader may have others there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what is before {end} is not known to be committed")]
pub struct NotCommitted {
    /// The offset at which they end.
    pub end: Offset,
}

impl FetchPlan {
    /// The missing ranges, each by itself and in order; everything before `committed` is known to be committed.
    ///
    /// # Errors
    /// When any of it is not.
    pub fn new(missing: &[(Offset, Offset)], committed: Offset) -> Result<Self, NotCommitted> {
        if let Some((_, end)) = missing.iter().find(|(_, end)| *end > committed) {
            return Err(NotCommitted { end: *end });
        }
        debug_assert!(missing.is_sorted_by(|(_, end), (next, _)| end <= next), "ranges overlap, or are out of order");
        let ranges = missing.iter().copied().filter(|(from, end)| from < end).collect();
        Ok(Self { ranges, misses: 0, pass: 1, excerpts: Vec::new(), bytes: 0 })
    }

    /// The records to ask for next, if any: from an offset on and before another.
    pub fn next(&self) -> Option<(Offset, Offset)> {
        self.ranges.front().copied().filter(|_| self.bytes < EXCERPTS_BYTES_MAX)
    }

    /// Takes what was asked for, or its beginning.
    pub fn got(&mut self, excerpt: Excerpt) {
        self.bytes = self.bytes.saturating_add(wide(excerpt.bytes().len()));
        self.go_on_at(excerpt.end());
        self.excerpts.push(excerpt);
    }

    /// Nobody has what was asked for. What is behind may be had.
    pub fn missed(&mut self) {
        let Some((from, _)) = self.ranges.front() else { return };
        self.go_on_at(from.plus(self.pass));
        self.misses = self.misses.saturating_add(1);
        if self.misses > MISSES_MAX {
            self.pass = self.pass.saturating_mul(2);
        }
    }

    fn go_on_at(&mut self, at: Offset) {
        let Some((from, end)) = self.ranges.front_mut() else { return };
        debug_assert!(*from < at, "what was fetched is asked for again");
        *from = at;
        if at >= *end {
            self.ranges.pop_front();
            (self.misses, self.pass) = (0, 1);
        }
    }

    /// The fetched excerpts, in order.
    pub fn into_excerpts(self) -> Vec<Excerpt> {
        self.excerpts
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use zue_core::{Epoch, Tail};

    use super::*;
    use crate::format::batch::BatchBuilder;
    use crate::format::limits::Limits;

    fn wanted(missing: &[(u64, u64)], committed: u64) -> Result<FetchPlan, NotCommitted> {
        let missing: Vec<_> = missing.iter().map(|(from, end)| (Offset(*from), Offset(*end))).collect();
        FetchPlan::new(&missing, Offset(committed))
    }

    fn excerpt(from: u64, count: u64) -> Excerpt {
        let mut builder = BatchBuilder::new(Tail { epoch: Epoch(1), end: Offset(from) }, 1, Limits::default());
        for _ in 0..count {
            builder.push(None, b"x", [], None).unwrap();
        }
        Excerpt::decode(Bytes::clone(builder.finish().unwrap().bytes()), Offset(from)).unwrap()
    }

    #[test]
    fn nothing_is_asked_for_while_a_part_is_not_known_to_be_committed() {
        assert_eq!(wanted(&[(2, 5), (7, 9)], 8).unwrap_err(), NotCommitted { end: Offset(9) });
        assert_eq!(wanted(&[(2, 5), (7, 9)], 9).unwrap().next(), Some((Offset(2), Offset(5))));
        assert_eq!(wanted(&[], 0).unwrap().next(), None);
    }

    #[test]
    fn what_is_given_piece_by_piece_is_asked_for_until_there_is_no_more() {
        let mut wanted = wanted(&[(2, 5), (7, 9)], 9).unwrap();
        wanted.got(excerpt(2, 2));
        assert_eq!(wanted.next(), Some((Offset(4), Offset(5))));
        wanted.missed();
        assert_eq!(wanted.next(), Some((Offset(7), Offset(9))));
        wanted.got(excerpt(7, 2));
        assert_eq!(wanted.next(), None);
        assert_eq!(wanted.into_excerpts(), [excerpt(2, 2), excerpt(7, 2)]);
    }

    #[test]
    fn a_long_range_that_nobody_has_is_not_asked_for_record_by_record() {
        let mut wanted = wanted(&[(0, 1 << 40), (1 << 41, 1 << 42)], 1 << 42).unwrap();
        let mut asked = Vec::new();
        while let Some((from, _)) = wanted.next() {
            asked.push(from.0);
            wanted.missed();
        }
        assert!(asked.len() < 300, "{} questions", asked.len());
        assert!(asked.starts_with(&(0..64).collect::<Vec<_>>()), "the first ones by one");
        assert!(asked.contains(&((1 << 41) + 1)), "and so in the next range");
    }
}
