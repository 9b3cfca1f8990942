//! Appends, as a machine's driver is given them.

mod acts;

use zue_core::{ProducerId, Tail};
use zue_log::Fault;

use crate::batch::{Batch, Shape};
use crate::node::process::Waiting;

/// An append, as a machine was given it.
#[derive(Debug)]
pub(crate) struct Append {
    waiter: Waiting,
    records: (ProducerId, u64, u32),
    shape: Shape,
    /// Breaks rules: it is taken for one that nobody repeats; it has this time.
    is_anonymous: bool,
    stamped: Option<u64>,
}

impl zue_engine::driver::Append for Append {
    type Batch = Batch;
    type Waiter = Waiting;
    type Share = ();

    fn producer(&self) -> Option<(ProducerId, u64)> {
        let (producer, sequence, _) = self.records;
        (!self.is_anonymous).then_some((producer, sequence))
    }

    fn count(&self) -> u32 {
        self.records.2
    }

    fn bytes(&self) -> u64 {
        self.records.2.into()
    }

    fn is_given_up(&self) -> bool {
        false
    }

    fn write(self, prev: Tail, timestamp_ms: u64) -> Result<(Batch, Waiting, ()), Fault> {
        let time = self.stamped.unwrap_or(timestamp_ms);
        Ok((Batch::append(prev, time, self.records, self.shape), self.waiter, ()))
    }

    fn into_waiter(self) -> Waiting {
        self.waiter
    }
}
