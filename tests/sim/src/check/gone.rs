//! Compacted records: only what a newer committed record of its key has replaced, or what deleted its key long ago.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use zue_core::Offset;

use super::{Checker, index};
use crate::batch::Record;

/// The records that may be compacted away.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The newest committed record of each key.
    newest: BTreeMap<u8, Offset>,
    /// Records that delete and that a replica found old enough.
    pub(super) may_go: BTreeSet<Offset>,
}

impl Keys {
    /// Takes note of the next committed record.
    pub(super) fn note(&mut self, record: &Record) {
        if let Some(key) = record.key {
            self.newest.insert(key, record.offset);
        }
    }

    fn may_go(&self, record: &Record) -> bool {
        let is_outdated = |key: &u8| self.newest.get(key).is_some_and(|newest| *newest > record.offset);
        record.key.as_ref().is_some_and(is_outdated) || self.may_go.contains(&record.offset)
    }
}

impl Checker {
    /// Somebody finds that these were compacted away.
    pub(crate) fn are_gone(&mut self, who: impl Debug, gone: &[Offset]) {
        let may_go =
            |at: &&Offset| self.log.records.get(index(**at)).is_some_and(|record| self.log.keys.may_go(record));
        if let Some(at) = gone.iter().find(|at| !may_go(at)) {
            self.violated(format!("record {at} was compacted away, which nothing committed has replaced ({who:?})"));
        }
    }
}
