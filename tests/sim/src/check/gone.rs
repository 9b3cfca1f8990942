//! Compacted records: only what a newer committed record of its key has replaced, or what deleted its key long ago.

use std::fmt::Debug;

use zue_core::Offset;

use super::{Checker, index};

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
