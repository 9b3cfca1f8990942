//! Records that went because of their age were old, by the true time; and timestamps are near it. As far as most clocks were right.

use zue_core::{Aged, CLOCK_TOLERANCE_MS, Offset};

use super::{Checker, index};
use crate::batch::{Batch, Record};
use crate::node::ages::Clock;

/// The greatest age of what is known of other clocks, or was seen of the log, ms.
const OUTDATED_MS: u64 = 5000;

/// A judgement of records and its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge {
    /// The true time.
    pub(crate) now: u64,
    pub(crate) age_ms: u64,
    /// Most clocks are right: records from there on whose timestamps were right are old if it says so.
    pub(crate) by_clocks: Option<Offset>,
    /// Records from there on it has seen come.
    pub(crate) seen_from: Option<Offset>,
}

impl Checker {
    /// A leader appends records.
    pub(crate) fn appended(&mut self, batch: &Batch, now: u64) {
        for record in batch.records() {
            self.appended.entry((record.epoch, record.offset)).or_insert(now);
        }
    }

    /// A leader stamps what it appends, while most clocks are right.
    pub(crate) fn stamped(&mut self, timestamp_ms: u64, before_ms: u64, true_ms: u64) {
        let bound = before_ms.max(true_ms + CLOCK_TOLERANCE_MS + OUTDATED_MS);
        self.ensure(timestamp_ms <= bound, || {
            format!("a record is stamped {timestamp_ms} at {true_ms}, the one before it {before_ms}")
        });
    }

    fn is_old(&self, judge: &Judge, record: &Record) -> bool {
        let Some(appended) = self.appended.get(&(record.epoch, record.offset)) else { return true };
        let is_fair = record.timestamp_ms + OUTDATED_MS >= appended + Clock::RIGHT_MS;
        let lies_behind = |from: Option<Offset>| from.is_some_and(|from| record.offset >= from);
        let must_be = (lies_behind(judge.by_clocks) && is_fair) || lies_behind(judge.seen_from);
        !must_be || judge.now - appended + OUTDATED_MS >= judge.age_ms
    }

    /// These are trimmed because of their age.
    pub(crate) fn old_by_age(&mut self, judge: &Judge, from: Offset, upto: Offset) {
        let records = self.log.records.get(index(from)..index(upto)).unwrap_or_default();
        if let Some(record) = records.iter().find(|record| !self.is_old(judge, record)) {
            let (at, appended) = (record.offset, self.appended.get(&(record.epoch, record.offset)).copied());
            self.violated(format!("record {at}, appended at {appended:?}, is too old: {judge:?}"));
        }
    }

    /// Records that delete may go from now on that are as old.
    pub(crate) fn deletes_may_go(&mut self, judge: &Judge, aged: &Aged) {
        let age_ms = judge.age_ms;
        let goes = |record: &&Record| {
            record.deletes
                && !self.log.keys.may_go.contains(&record.offset)
                && aged.is_old(record.offset, age_ms, record.timestamp_ms)
        };
        let going: Vec<Record> = self.log.records.iter().filter(goes).copied().collect();
        for record in going {
            self.log.keys.may_go.insert(record.offset);
            let is_old = self.is_old(judge, &record);
            self.ensure(is_old, || format!("record {} deletes, and is called old: {judge:?}", record.offset));
        }
    }
}
