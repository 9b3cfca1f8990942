//! Batches of one record each, for the tests.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use zue_core::{Epoch, Offset, Tail};
use zue_log::{Batch, BatchBuilder, Limits};

/// The tail of a log of so many records.
pub(crate) fn tail(end: u64) -> Tail {
    Tail { epoch: Epoch(1), end: Offset(end) }
}

/// The record at that offset.
pub(crate) fn batch(base: u64) -> Batch {
    let mut builder = BatchBuilder::new(tail(base), 0, Limits::default());
    builder.push(None, b"0123456789", [], None).unwrap();
    builder.finish().unwrap()
}
