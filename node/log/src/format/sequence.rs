//! The rules by which frames follow each other: offsets without gaps, epochs in order, timestamps that never fall, appends that are whole.
//! The same rules for what comes from a peer and for what is found on disk.

use zue_core::{EpochStart, Offset, Tail};

use crate::format::compacted_range::{CompactedRange, Open};
use crate::format::fault::Fault;
use crate::format::frame::RecordView;
use crate::format::limits::{Bounded, Limits};
use crate::format::producer::{Producer, ProducerRun};

/// A place in a sequence of frames, and what may follow there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSequence {
    /// The state after the frames so far; inside an append its end is not a tail that a log may have.
    pub(crate) tail: Tail,
    /// Of the last record; 0 before the first.
    pub(crate) timestamp_ms: u64,
    /// The append that is not whole yet.
    append: Option<Open>,
}

impl FrameSequence {
    pub(crate) fn after(tail: Tail, timestamp_ms: u64) -> Self {
        Self { tail, timestamp_ms, append: None }
    }

    /// Takes a record. Gives the append that it completes, if that has a producer.
    pub(crate) fn record(&mut self, record: &RecordView<'_>, limits: &Limits) -> Result<Option<ProducerRun>, Fault> {
        if record.offset != self.tail.end {
            return Err(Fault::Offset { expected: self.tail.end, found: record.offset });
        }
        if record.epoch != self.tail.epoch {
            return Err(Fault::Epoch { expected: self.tail.epoch, found: record.epoch });
        }
        if record.timestamp_ms < self.timestamp_ms {
            return Err(Fault::Timestamp { previous: self.timestamp_ms, found: record.timestamp_ms });
        }
        let append = self.append.unwrap_or(Open { base: record.offset, producer: record.producer });
        let before = record.offset.since(append.base);
        let expected = append.producer.map(|first| Producer { sequence: first.sequence.wrapping_add(before), ..first });
        if record.producer != expected {
            return Err(Fault::Producer(record.offset));
        }
        let count = before + 1;
        Bounded::AppendRecords.check(crate::num::length(count), limits.append_records_max)?;
        self.tail.end = record.offset.checked_plus(1).ok_or(Fault::LastOffset(record.offset))?;
        debug_assert!(append.base < self.tail.end, "an append ends before it begins");
        self.timestamp_ms = record.timestamp_ms;
        self.append = record.more.then_some(append);
        let run = |first: Producer| ProducerRun { id: first.id, sequence: first.sequence, base: append.base, count };
        Ok(append.producer.filter(|_| !record.more).map(run))
    }

    /// Takes a gap.
    pub(crate) fn gap(&mut self, gap: &CompactedRange) -> Result<(), Fault> {
        if gap.from != self.tail.end {
            return Err(Fault::Offset { expected: self.tail.end, found: gap.from });
        }
        if gap.epoch != self.tail.epoch {
            return Err(Fault::Epoch { expected: self.tail.epoch, found: gap.epoch });
        }
        if gap.timestamp_ms < self.timestamp_ms {
            return Err(Fault::Timestamp { previous: self.timestamp_ms, found: gap.timestamp_ms });
        }
        debug_assert!(self.tail.end < gap.end, "a compacted range of no records");
        (self.tail.end, self.timestamp_ms, self.append) = (gap.end, gap.timestamp_ms, gap.open);
        Ok(())
    }

    /// Takes an epoch start.
    pub(crate) fn start(&mut self, start: &EpochStart) -> Result<(), Fault> {
        if start.epoch <= self.tail.epoch || start.start != self.tail.end || self.append.is_some() {
            let Tail { epoch: last_epoch, end } = self.tail;
            return Err(Fault::EpochStart { epoch: start.epoch, start: start.start, last_epoch, end });
        }
        self.tail.epoch = start.epoch;
        Ok(())
    }

    /// The append that is not whole yet.
    pub(crate) fn open(&self) -> Option<Open> {
        self.append
    }

    /// The offset at which the append begins that is not whole yet.
    pub(crate) fn unfinished(&self) -> Option<Offset> {
        self.append.map(|append| append.base)
    }
}
