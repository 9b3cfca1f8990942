//! The appends of the producers: keeps a repeated append from being stored twice. A function of the log: recording its appends in order
//! gives the same table on every replica; a cut takes back what it cuts.

use alloc::collections::{BTreeMap, VecDeque};

use crate::types::Offset;
use crate::types::refusal::Refusal;

mod encoding;

pub use encoding::BadTable;

/// A producer: 64 bits of the commit end when it was opened, 64 random bits.
///
/// All its records lie at or after `born`, so a producer that is not in the table and was born after everything that was ever
/// evicted is known to be new; any other may have been evicted, and is refused rather than trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId {
    /// A committed end at the time it was opened.
    pub born: Offset,
    /// Tells it from others born at the same time.
    pub nonce: u64,
}

impl ProducerId {
    /// The id as it stands in records.
    pub fn to_u128(self) -> u128 {
        (u128::from(self.born.0) << 64) | u128::from(self.nonce)
    }

    /// The id from its form in records.
    pub fn from_u128(id: u128) -> Self {
        let low = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        Self { born: Offset(low(id >> 64)), nonce: low(id) }
    }
}

/// An append in the log: a producer's records `sequence..sequence + count` at `base..base + count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The producer.
    pub producer: ProducerId,
    /// The sequence of its first record.
    pub sequence: u64,
    /// The number of records.
    pub count: u32,
    /// The offset of its first record.
    pub base: Offset,
}

/// The kind of an append, seen from the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not in the log: append it.
    New,
    /// In the log since an earlier try, at this offset.
    Duplicate(Offset),
    /// In the log since an earlier try, somewhere before this offset.
    Before(Offset),
    /// Refuse it.
    Refuse(Refusal),
}

/// The limits of the table. What goes follows from them and from the offsets in the log alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerLimits {
    /// The number of producers that are remembered; the one that appended longest ago is forgotten first.
    pub producers_max: usize,
    /// The number of appends of each that are remembered with their offsets, while there is room for so many.
    pub appends_max: usize,
    /// The number of appends of all that are remembered, if that is at least one of each. Beyond it the producer that appended longest ago
    /// keeps no more than its share of them.
    pub all_appends_max: usize,
}

impl Default for ProducerLimits {
    fn default() -> Self {
        Self { producers_max: 65_536, appends_max: 64, all_appends_max: 4096 * 64 }
    }
}

impl ProducerLimits {
    /// The number of appends of each producer that there is always room for.
    fn share(self) -> usize {
        self.all_appends_max.checked_div(self.producers_max).unwrap_or_default().max(1)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Producer {
    next_sequence: u64,
    /// The offset of its last record; its place in the order of eviction.
    last: Offset,
    /// Its last appends, oldest first: first sequence, count, base.
    appends: VecDeque<(u64, u32, Offset)>,
}

/// The producers of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Producers {
    limits: ProducerLimits,
    known: BTreeMap<ProducerId, Producer>,
    by_age: BTreeMap<Offset, ProducerId>,
    /// Those of which more appends are remembered than their share.
    rich: BTreeMap<Offset, ProducerId>,
    /// The number of appends that are remembered.
    appends: usize,
    /// Every producer that was ever forgotten appended only before this offset.
    horizon: Offset,
}

impl Producers {
    /// An empty table.
    pub fn new(limits: ProducerLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The number of producers that are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The treatment of an append of `count` records from `sequence` on.
    pub fn check(&self, id: ProducerId, sequence: u64, count: u32) -> Verdict {
        let Some(producer) = self.known.get(&id) else {
            return match sequence {
                _ if id.born < self.horizon => Verdict::Refuse(Refusal::UnknownProducer),
                0 => Verdict::New,
                found => Verdict::Refuse(Refusal::SequenceGap { found, expected: 0 }),
            };
        };
        let expected = producer.next_sequence;
        let end = sequence.saturating_add(u64::from(count));
        match () {
            () if sequence == expected => Verdict::New,
            () if sequence > expected => Verdict::Refuse(Refusal::SequenceGap { found: sequence, expected }),
            () if end > expected => Verdict::Refuse(Refusal::Overlap { first: sequence, last: end.saturating_sub(1) }),
            () => producer.find(sequence, end),
        }
    }

    /// Returns whether one more append would make it forget where an uncommitted one is. So what it forgets is committed.
    pub fn is_full(&self, id: ProducerId, commit_end: Offset) -> bool {
        let oldest = |producer: &Producer| {
            let full = producer.appends.len() >= self.limits.appends_max;
            producer.appends.front().filter(|_| full).map(|(_, count, base)| base.plus(u64::from(*count)))
        };
        self.known.get(&id).and_then(oldest).is_some_and(|end| end > commit_end)
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> ProducerLimits {
        self.limits
    }

    /// Every producer that was ever forgotten appended only before this offset; whether one born before it is new is not known.
    pub fn horizon(&self) -> Offset {
        self.horizon
    }

    /// Takes note of an append; appends come in the order of the log.
    pub fn record(&mut self, append: Appended) {
        let Appended { producer: id, sequence, count, base } = append;
        let mut producer = self.take(id).unwrap_or_default();
        producer.next_sequence = sequence.saturating_add(u64::from(count));
        producer.last = base.plus(u64::from(count).saturating_sub(1));
        producer.appends.push_back((sequence, count, base));
        if producer.appends.len() > self.limits.appends_max {
            producer.appends.pop_front();
        }
        self.put(id, producer);
        self.forget_surplus();
        debug_assert!(self.appends <= self.limits.all_appends_max || self.rich.is_empty(), "too much is remembered");
    }

    fn take(&mut self, id: ProducerId) -> Option<Producer> {
        let producer = self.known.remove(&id)?;
        self.by_age.remove(&producer.last);
        self.rich.remove(&producer.last);
        debug_assert!(producer.appends.len() <= self.appends, "more appends are taken than are remembered");
        self.appends -= producer.appends.len();
        Some(producer)
    }

    fn put(&mut self, id: ProducerId, producer: Producer) {
        self.by_age.insert(producer.last, id);
        if producer.appends.len() > self.limits.share() {
            self.rich.insert(producer.last, id);
        }
        self.appends += producer.appends.len();
        let before = self.known.insert(id, producer);
        debug_assert_eq!(before, None, "a producer's appends are counted that are remembered no more");
        debug_assert!(self.rich.len() <= self.by_age.len(), "a producer has more than its share, and no age");
    }

    /// Forgets those that appended longest ago, and then their oldest appends, until the rest is within the limits.
    fn forget_surplus(&mut self) {
        while self.known.len() > self.limits.producers_max {
            let Some(oldest) = self.by_age.first_key_value().map(|(_, id)| *id) else { break };
            let Some(Producer { last, .. }) = self.take(oldest) else { break };
            self.horizon = self.horizon.max(last.plus(1));
        }
        while self.appends > self.limits.all_appends_max {
            let Some(richest) = self.rich.first_key_value().map(|(_, id)| *id) else { break };
            let Some(mut producer) = self.take(richest) else { break };
            let surplus = producer.appends.len().saturating_sub(self.limits.share());
            producer.appends.drain(..surplus);
            producer.appends.shrink_to_fit();
            self.put(richest, producer);
        }
        debug_assert!(self.by_age.len() <= self.known.len(), "a forgotten producer has an age");
        debug_assert!(self.by_age.len() <= self.limits.producers_max, "more producers are remembered than may be");
    }

    /// Forgets everybody: who appended what before `end` is not known any more. Those born before are refused until they are
    /// recorded again.
    pub fn forget(&mut self, end: Offset) {
        *self = Self { horizon: self.horizon, ..Self::new(self.limits) };
        self.horizon = self.horizon.max(end);
    }

    /// Takes back every append at or after `end`.
    ///
    /// A producer whose remembered appends are all cut, while older ones are no longer remembered, is forgotten: where its
    /// sequence stands is not known any more, and it is refused rather than answered wrongly.
    pub fn cut(&mut self, end: Offset) {
        // What a forgotten producer still has in the log lies before the cut.
        self.horizon = self.horizon.min(end);
        while let Some(id) = self.by_age.last_key_value().filter(|(last, _)| **last >= end).map(|(_, id)| *id) {
            let Some(mut producer) = self.take(id) else { break };
            while let Some((sequence, ..)) =
                producer.appends.pop_back_if(|(_, count, base)| base.plus((*count).into()) > end)
            {
                producer.next_sequence = sequence;
            }
            if let Some((_, count, base)) = producer.appends.back() {
                producer.last = base.plus(u64::from(*count).saturating_sub(1));
                self.put(id, producer);
            } else if producer.next_sequence > 0 {
                self.horizon = self.horizon.max(end);
            }
        }
        debug_assert!(self.horizon <= end, "a producer was forgotten that appended behind the log's end");
        debug_assert!(self.by_age.last_key_value().is_none_or(|(last, _)| *last < end), "an append was not taken back");
    }
}

impl Producer {
    fn find(&self, sequence: u64, end: u64) -> Verdict {
        let holds = |(first, count, _): &&(u64, u32, Offset)| {
            *first <= sequence && end <= first.saturating_add(u64::from(*count))
        };
        if let Some((first, _, base)) = self.appends.iter().find(holds) {
            return Verdict::Duplicate(base.plus(sequence.saturating_sub(*first)));
        }
        // Sequences follow each other: what is not remembered, as its records were compacted away, lies in front of the next that is. So
        // do the first records of an append of which only the rest is, as they are damaged.
        let overlaps = |from: u64, upto: u64| {
            self.appends.iter().any(|(first, count, _)| *first < upto && from < first.saturating_add(u64::from(*count)))
        };
        for (first, count, base) in &self.appends {
            if end <= *first && !overlaps(sequence, end) {
                return Verdict::Before(*base);
            }
            if sequence < *first && end == first.saturating_add(u64::from(*count)) && !overlaps(sequence, *first) {
                return Verdict::Before(base.plus(u64::from(*count)));
            }
        }
        Verdict::Refuse(Refusal::Overlap { first: sequence, last: end.saturating_sub(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ProducerLimits = ProducerLimits { producers_max: 2, appends_max: 3, all_appends_max: 6 };

    fn id(born: u64, nonce: u64) -> ProducerId {
        ProducerId { born: Offset(born), nonce }
    }

    fn table(appends: &[(ProducerId, u64, u32, u64)]) -> Producers {
        let mut producers = Producers::new(LIMITS);
        for (producer, sequence, count, base) in appends {
            assert_eq!(producers.check(*producer, *sequence, *count), Verdict::New);
            let (producer, sequence, count, base) = (*producer, *sequence, *count, Offset(*base));
            producers.record(Appended { producer, sequence, count, base });
        }
        producers
    }

    #[test]
    fn an_id_survives_its_form_in_records() {
        let id = id(u64::MAX - 3, 77);
        assert_eq!(ProducerId::from_u128(id.to_u128()), id);
    }

    #[test]
    fn a_repeated_append_that_was_compacted_away_between_others_is_in_the_log() {
        let mut producers = Producers::new(LIMITS);
        for (sequence, count, base) in [(0, 2, 0), (6, 2, 9)] {
            producers.record(Appended { producer: id(0, 1), sequence, count, base: Offset(base) });
        }
        for (sequence, count) in [(2, 4), (2, 1), (4, 2)] {
            assert_eq!(producers.check(id(0, 1), sequence, count), Verdict::Before(Offset(9)));
        }
        for (sequence, count) in [(1, 2), (5, 2)] {
            let refused = producers.check(id(0, 1), sequence, count);
            assert!(matches!(refused, Verdict::Refuse(Refusal::Overlap { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_repeated_append_whose_first_records_are_damaged_is_in_the_log() {
        let mut producers = Producers::new(LIMITS);
        for (sequence, count, base) in [(0, 2, 0), (6, 2, 9)] {
            producers.record(Appended { producer: id(0, 1), sequence, count, base: Offset(base) });
        }
        for (sequence, count) in [(2, 6), (5, 3)] {
            assert_eq!(producers.check(id(0, 1), sequence, count), Verdict::Before(Offset(11)));
        }
        for (sequence, count) in [(1, 7), (0, 8), (5, 2)] {
            let refused = producers.check(id(0, 1), sequence, count);
            assert!(matches!(refused, Verdict::Refuse(Refusal::Overlap { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_cut_inside_an_append_takes_all_of_it_back() {
        let mut producers = table(&[(id(0, 1), 0, 2, 0), (id(0, 1), 2, 3, 2)]);
        producers.cut(Offset(3));
        assert_eq!(producers.check(id(0, 1), 2, 3), Verdict::New);
        assert_eq!(producers.check(id(0, 1), 0, 2), Verdict::Duplicate(Offset(0)));
    }

    #[test]
    fn a_repeated_append_is_found_where_it_is() {
        let producers = table(&[(id(0, 1), 0, 2, 0), (id(0, 1), 2, 3, 2)]);
        assert_eq!(producers.check(id(0, 1), 0, 2), Verdict::Duplicate(Offset(0)));
        assert_eq!(producers.check(id(0, 1), 2, 3), Verdict::Duplicate(Offset(2)));
        assert_eq!(producers.check(id(0, 1), 5, 1), Verdict::New);
    }

    #[test]
    fn a_gap_is_refused_with_what_is_next() {
        let producers = table(&[(id(0, 1), 0, 2, 0)]);
        let refuse = |found, expected| Verdict::Refuse(Refusal::SequenceGap { found, expected });
        assert_eq!(producers.check(id(0, 1), 3, 1), refuse(3, 2));
        assert_eq!(producers.check(id(0, 9), 1, 1), refuse(1, 0));
    }

    #[test]
    fn an_append_that_only_overlaps_is_refused() {
        let producers = table(&[(id(0, 1), 0, 2, 0), (id(0, 1), 2, 2, 2)]);
        assert_eq!(producers.check(id(0, 1), 3, 2), Verdict::Refuse(Refusal::Overlap { first: 3, last: 4 }));
        assert_eq!(producers.check(id(0, 1), 1, 2), Verdict::Refuse(Refusal::Overlap { first: 1, last: 2 }));
    }

    #[test]
    fn beyond_the_appends_of_all_the_producer_that_appended_longest_ago_keeps_its_share() {
        let limits = ProducerLimits { producers_max: 3, appends_max: 8, all_appends_max: 9 };
        let mut producers = Producers::new(limits);
        let mut offset = 0;
        for (nonce, appends) in [(1, 6), (2, 2), (3, 8)] {
            for sequence in 0..appends {
                producers.record(Appended { producer: id(0, nonce), sequence, count: 1, base: Offset(offset) });
                offset += 1;
            }
        }
        // The oldest has been cut down to three of six, and then, with nobody else above the share, the newest.
        assert_eq!(producers.check(id(0, 1), 2, 1), Verdict::Before(Offset(3)));
        assert_eq!(producers.check(id(0, 1), 3, 1), Verdict::Duplicate(Offset(3)));
        assert_eq!(producers.check(id(0, 2), 0, 1), Verdict::Duplicate(Offset(6)));
        assert_eq!(producers.check(id(0, 3), 7, 1), Verdict::Duplicate(Offset(15)));
        assert!(producers.appends <= 9, "{} appends are remembered", producers.appends);
        assert_eq!(Producers::decode(&producers.encode(), limits), Ok(producers));
    }

    #[test]
    fn a_table_has_no_more_producers_and_appends_than_it_may_whatever_comes() {
        let limits = ProducerLimits { producers_max: 5, appends_max: 4, all_appends_max: 11 };
        let mut producers = Producers::new(limits);
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut end = 0;
        for _ in 0..20_000 {
            if next(50) == 0 {
                end -= next(6).min(end);
                producers.cut(Offset(end));
            } else {
                let producer = id(0, next(8));
                let sequence = producers.known.get(&producer).map_or(0, |producer| producer.next_sequence);
                producers.record(Appended { producer, sequence, count: 1, base: Offset(end) });
                end += 1;
            }
            let counted: usize = producers.known.values().map(|producer| producer.appends.len()).sum();
            assert_eq!(counted, producers.appends);
            assert!(producers.known.len() <= 5 && counted <= 11);
            let rich = producers.known.values().filter(|producer| producer.appends.len() > 2).count();
            assert_eq!(rich, producers.rich.len());
            assert_eq!(producers.by_age.len(), producers.known.len());
            assert_eq!(Producers::decode(&producers.encode(), limits).as_ref(), Ok(&producers));
        }
    }

    #[test]
    fn a_duplicate_from_before_the_window_is_named_as_one() {
        let appends = [0, 1, 2, 3, 4].map(|n| (id(0, 1), n, 1, n));
        let producers = table(&appends);
        assert_eq!(producers.check(id(0, 1), 1, 1), Verdict::Before(Offset(2)));
        assert_eq!(producers.check(id(0, 1), 2, 1), Verdict::Duplicate(Offset(2)));
    }

    #[test]
    fn a_producer_is_full_while_its_oldest_remembered_append_is_uncommitted() {
        let producers = table(&[(id(0, 1), 0, 2, 0), (id(0, 1), 2, 1, 2), (id(0, 1), 3, 1, 3)]);
        assert!(producers.is_full(id(0, 1), Offset(1)));
        assert!(!producers.is_full(id(0, 1), Offset(2)));
        assert!(!producers.is_full(id(0, 2), Offset(0)));
    }

    #[test]
    fn what_was_forgotten_because_of_cut_records_does_not_keep_new_producers_out() {
        let mut producers = table(&[(id(0, 1), 0, 1, 4), (id(0, 2), 0, 1, 5), (id(0, 3), 0, 1, 6)]);
        producers.cut(Offset(4));
        assert_eq!(producers.check(id(4, 9), 0, 1), Verdict::New);
        assert_eq!(producers.check(id(3, 9), 0, 1), Verdict::Refuse(Refusal::UnknownProducer));
    }

    #[test]
    fn a_forgotten_producer_is_refused_and_a_later_one_is_not() {
        let producers = table(&[(id(0, 1), 0, 1, 0), (id(0, 2), 0, 1, 1), (id(0, 3), 0, 1, 2)]);
        assert_eq!(producers.check(id(0, 1), 0, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(0, 1), 1, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(1, 4), 0, 1), Verdict::New);
    }

    #[test]
    fn a_cut_takes_back_what_it_cuts() {
        let appends = [(id(0, 1), 0, 2, 0), (id(0, 2), 0, 1, 2), (id(0, 1), 2, 2, 3)];
        let mut producers = table(&appends);
        producers.cut(Offset(3));
        assert_eq!(producers.check(id(0, 1), 2, 2), Verdict::New);
        assert_eq!(producers.check(id(0, 1), 0, 2), Verdict::Duplicate(Offset(0)));
        producers.cut(Offset(2));
        assert_eq!(producers.check(id(0, 2), 0, 1), Verdict::New);
        assert_eq!(producers.len(), 1);
    }

    #[test]
    fn forgotten_producers_are_refused_until_they_are_recorded_again() {
        let id = |born| ProducerId { born: Offset(born), nonce: 1 };
        let mut producers = Producers::default();
        producers.record(Appended { producer: id(0), sequence: 0, count: 2, base: Offset(0) });
        producers.forget(Offset(5));
        assert_eq!(producers.check(id(0), 2, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(4), 0, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(5), 0, 1), Verdict::New);
        producers.record(Appended { producer: id(0), sequence: 3, count: 1, base: Offset(5) });
        assert_eq!(producers.check(id(0), 4, 1), Verdict::New);
        assert_eq!(producers.check(id(0), 2, 1), Verdict::Before(Offset(5)));
    }

    #[test]
    fn a_cut_deeper_than_the_window_forgets_the_producer() {
        let appends = [0, 1, 2, 3, 4].map(|n| (id(0, 1), n, 1, n));
        let mut producers = table(&appends);
        producers.cut(Offset(2));
        assert_eq!(producers.check(id(0, 1), 1, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(0, 1), 2, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(2, 1), 0, 1), Verdict::New);
    }
}
