//! Frames that stay where they were written and are never sent: the snapshot of a segment, and sync marks.

use zue_core::{EpochStart, Offset, Tail};

/// What a segment's records rest on. Local to a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) base: Offset,
    /// Of the last record before the base; 0 if there is none.
    pub(crate) timestamp_ms: u64,
    /// The epoch starts before the segment, oldest first.
    pub(crate) starts: Vec<EpochStart>,
    /// Who appended what before the segment: [`zue_core::Producers`] as bytes.
    pub(crate) producers: Vec<u8>,
}

/// Tells that a sync had succeeded when what follows was written: a bad frame in front of it was once whole on the disk. Local to
/// a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SyncMark {
    /// The position in the segment up to which everything was durable.
    pub(crate) position: u64,
    /// What the log amounted to there.
    pub(crate) tail: Tail,
}
