//! The ages of the records, as far as this process has seen it itself. A record that was committed, as it saw, less than an age ago by
//! its monotonic clock is younger than that, whatever wall clocks say. One that was committed at least an age ago by that clock and
//! by the agreed time is older, whatever its timestamp says. Of all others the agreed time decides.

use alloc::collections::VecDeque;

use crate::types::{Millis, Offset};

/// The number of looks at the log in one age.
const LOOKS: u64 = 256;
/// The number of looks that are remembered: more than an age's while the agreed time is behind.
const LOOKS_MAX: usize = 1024;

/// The known facts of the ages of records at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aged {
    /// Records before are older.
    pub old_before: Offset,
    /// Records from here on are younger.
    pub young_from: Offset,
    /// Of those between, the ones are older whose timestamp says so at this time, ms since the Unix epoch.
    pub agreed_ms: u64,
}

impl Aged {
    /// Of all records their timestamps say how old they are.
    pub const fn by_timestamps(agreed_ms: u64) -> Self {
        Self { old_before: Offset(0), young_from: Offset(u64::MAX), agreed_ms }
    }

    /// No record is old.
    pub const fn unknown() -> Self {
        Self { old_before: Offset(0), young_from: Offset(0), agreed_ms: 0 }
    }

    /// Returns whether the record is older than the age.
    pub fn is_old(&self, record: Offset, age_ms: u64, timestamp_ms: u64) -> bool {
        self.seen(record).unwrap_or_else(|| self.is_past(age_ms, timestamp_ms))
    }

    /// As [`Aged::is_old`], of a timestamp that is asked for only if it decides. A record of unknown time is not old.
    ///
    /// # Errors
    /// When the timestamp cannot be told.
    pub fn is_older<E>(
        &self,
        record: Offset,
        age_ms: u64,
        timestamp_ms: impl FnOnce() -> Result<Option<u64>, E>,
    ) -> Result<bool, E> {
        match self.seen(record) {
            Some(is_old) => Ok(is_old),
            None => Ok(timestamp_ms()?.is_some_and(|timestamp_ms| self.is_past(age_ms, timestamp_ms))),
        }
    }

    /// The age of the record as it was seen, if that decides.
    fn seen(&self, record: Offset) -> Option<bool> {
        debug_assert!(self.old_before <= self.young_from, "a record is old and young");
        if record < self.old_before { Some(true) } else { (record >= self.young_from).then_some(false) }
    }

    fn is_past(&self, age_ms: u64, timestamp_ms: u64) -> bool {
        timestamp_ms.saturating_add(age_ms) < self.agreed_ms
    }
}

/// A look at the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LogSample {
    at: Millis,
    agreed_ms: u64,
    /// All before was committed.
    commit_end: Offset,
    /// The end of what the leader knew to be committed: the rest was not.
    told_end: Offset,
}

/// A process's view of the ages of records, with regard to one age.
#[derive(Clone, Debug)]
pub struct Ages {
    age_ms: u64,
    /// The oldest first.
    looks: VecDeque<LogSample>,
}

impl Ages {
    /// Nothing was seen yet.
    pub const fn new(age_ms: u64) -> Self {
        Self { age_ms, looks: VecDeque::new() }
    }

    /// Looks at the log, and says what is known then. `commit_end` is the end of what is committed here, `told_end` of what the leader
    /// knows to be.
    pub fn look(&mut self, now: Millis, agreed_ms: u64, commit_end: Offset, told_end: Offset) -> Aged {
        debug_assert!(commit_end <= told_end, "more is committed here than the leader knows of");
        debug_assert!(self.looks.back().is_none_or(|last| last.at <= now), "the monotonic clock went back");
        let is_due = |last: &LogSample| now.since(last.at) >= self.age_ms / LOOKS;
        if self.looks.back().is_none_or(is_due) {
            self.looks.push_back(LogSample { at: now, agreed_ms, commit_end, told_end });
        }
        let age_ms = self.age_ms;
        let is_old =
            |look: &LogSample| now.since(look.at) >= age_ms && agreed_ms.saturating_sub(look.agreed_ms) >= age_ms;
        // The newest look that is old says all that those before it say.
        if let Some(newest) = self.looks.iter().rposition(is_old) {
            self.looks.drain(..newest);
        }
        if self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
        debug_assert!((1..=LOOKS_MAX).contains(&self.looks.len()), "no look is remembered, or too many are");
        let old_before = self.looks.front().filter(|look| is_old(look)).map_or(Offset(0), |look| look.commit_end);
        let young_from = self.looks.iter().find(|look| now.since(look.at) < age_ms);
        let young_from = young_from.map_or(Offset(u64::MAX), |look| look.told_end);
        debug_assert!(old_before <= young_from, "a record is old and young");
        Aged { old_before, young_from, agreed_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: u64 = 10_000;

    /// Looks at a log of which all is committed.
    fn look(seen: &mut Ages, now: u64, agreed_ms: u64, end: u64) -> Aged {
        seen.look(Millis(now), agreed_ms, Offset(end), Offset(end))
    }

    fn is_old(aged: &Aged, record: u64, timestamp_ms: u64) -> bool {
        aged.is_old(Offset(record), AGE, timestamp_ms)
    }

    #[test]
    fn what_came_less_than_an_age_ago_is_young_whatever_wall_clocks_say() {
        let mut seen = Ages::new(AGE);
        look(&mut seen, 0, 1_000_000, 5);
        let aged = look(&mut seen, 9_999, 9_000_000, 50);
        assert!(!is_old(&aged, 5, 0), "it came after the first look");
        assert!(is_old(&aged, 4, 0), "what was there before is judged by its timestamp");
        assert!(!is_old(&aged, 4, 8_999_999));
        let aged = look(&mut seen, 10_000, 9_000_000, 50);
        assert!(is_old(&aged, 5, 0), "nobody has seen that it is younger");
        assert!(!is_old(&aged, 50, 0));
    }

    #[test]
    fn what_was_there_an_age_ago_is_old_whatever_its_timestamp_says() {
        let (mut seen, ahead) = (Ages::new(AGE), u64::MAX);
        look(&mut seen, 0, 1_000_000, 5);
        assert!(!is_old(&look(&mut seen, 9_999, 1_010_000, 50), 4, ahead));
        assert!(!is_old(&look(&mut seen, 10_000, 1_009_999, 50), 4, ahead), "the agreed time does not say so yet");
        let aged = look(&mut seen, 10_000, 1_010_000, 50);
        assert!(is_old(&aged, 4, ahead));
        assert!(!is_old(&aged, 5, ahead));
        assert!(is_old(&look(&mut seen, 20_000, 1_020_000, 60), 49, ahead));
    }

    #[test]
    fn an_agreed_time_that_was_put_back_lets_records_go_an_age_later() {
        let (mut seen, ahead) = (Ages::new(AGE), u64::MAX);
        look(&mut seen, 0, 9_000_000, 5);
        for second in 1..=19 {
            let aged = look(&mut seen, second * 1000, 1_000_000 + second * 1000, 5);
            assert_eq!(is_old(&aged, 4, ahead), second >= 11, "{second}");
        }
    }

    #[test]
    fn no_more_looks_are_remembered_than_an_age_is_divided_into() {
        let mut seen = Ages::new(AGE);
        for now in 0..100_000 {
            look(&mut seen, now, now, now);
            assert!(seen.looks.len() <= 260, "{}", seen.looks.len());
        }
        // The agreed time stands still: nothing is old by it.
        for now in 100_000..300_000 {
            look(&mut seen, now, 100_000, now);
        }
        assert!(seen.looks.len() <= LOOKS_MAX, "{}", seen.looks.len());
    }

    #[test]
    fn at_an_age_of_nothing_all_that_is_committed_is_old() {
        let mut seen = Ages::new(0);
        let aged = seen.look(Millis(0), 5, Offset(3), Offset(7));
        assert_eq!((aged.old_before, aged.young_from), (Offset(3), Offset(u64::MAX)));
    }
}
