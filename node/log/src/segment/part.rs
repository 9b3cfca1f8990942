//! A segment as far as it is in the log.

use std::sync::Arc;

use zue_core::{Epoch, Offset, Tail};

use crate::disk::Disk;
use crate::error::ReadError;
use crate::format::block::BLOCK_BYTES;
use crate::format::crcs::Crcs;
use crate::format::local::Snapshot;
use crate::format::salvage::GoodFrames;
use crate::num::wide;
use crate::segment::{Body, Segment};

/// A segment, and how much of it is in the log.
#[derive(Debug)]
pub(crate) struct Part<D: Disk> {
    pub(crate) segment: Arc<Segment<D>>,
    /// The position at which its frames in the log end.
    pub(crate) bytes_end: u64,
    /// The offset at which its records in the log end.
    pub(crate) end: Offset,
}

impl<D: Disk> Clone for Part<D> {
    fn clone(&self) -> Self {
        Self { segment: Arc::clone(&self.segment), bytes_end: self.bytes_end, end: self.end }
    }
}

impl<D: Disk> Part<D> {
    /// The content of the segment.
    pub(crate) fn body(&self) -> Result<&Body, ReadError> {
        let segment = &*self.segment;
        if let Some(body) = segment.body.get() {
            return Ok(body);
        }
        let body = match segment.snapshot() {
            // The next segment's header says where this one ends, and may be wrong.
            Ok((Snapshot { timestamp_ms, .. }, data_start)) => {
                Body::new(data_start.min(self.bytes_end), Some(timestamp_ms))
            }
            // The records can be read without it.
            Err(ReadError::Damaged(_)) => Body::new(self.first_frame()?, None),
            Err(error) => return Err(error),
        };
        body.lookup.set(self.load_index(body.data_start)?);
        // If another reader was faster, it has found the same.
        Ok(segment.body.get_or_init(|| body))
    }

    /// The time of the last record before the segment; `None` when the snapshot, which says so, is damaged.
    pub(crate) fn time_before(&self) -> Result<Option<u64>, ReadError> {
        let segment = &*self.segment;
        if let Some(known) = segment.body.get().map(|body| body.timestamp_ms).or(segment.timestamp_ms.get().copied()) {
            return Ok(known);
        }
        let found = match segment.snapshot() {
            Ok((Snapshot { timestamp_ms, .. }, _)) => Some(timestamp_ms),
            Err(ReadError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(*segment.timestamp_ms.get_or_init(|| found))
    }

    /// The place where the first good frame begins that is not the snapshot.
    fn first_frame(&self) -> Result<u64, ReadError> {
        let bytes = self.segment.view(0, self.bytes_end)?;
        let before = Tail { epoch: Epoch(0), end: self.segment.base() };
        let mut crcs = Crcs::new(&bytes);
        let mut frames = GoodFrames::behind(&mut crcs, self.segment.mask, BLOCK_BYTES, before);
        Ok(frames.find(|good| good.missing_end().is_some()).map_or(self.bytes_end, |good| wide(good.at)))
    }
}
