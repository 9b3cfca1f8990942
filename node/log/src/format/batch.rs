//! Batches: checked frames in log order, as they travel and as they are appended. Built by a leader, decoded by a follower.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zue_core::{Epoch, EpochStart, OFFSETS_AHEAD_MAX, Offset, Tail};

use crate::format::encode::{RecordHead, close_frame, put_start, record_bytes, set_more};
use crate::format::fault::Fault;
use crate::format::frame::{Frame, check_voters, parse};
use crate::format::limits::{Bounded, LimitError, Limits};
use crate::format::producer::Producer;
use crate::format::producer::ProducerRun;
use crate::format::sequence::FrameSequence;
use crate::num::{length, wide};

/// Bytes that are not a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("byte {position} of the batch: {fault}")]
pub struct FrameError {
    /// The position at which the faulty frame begins.
    pub position: u64,
    /// The fault in it.
    pub fault: Fault,
}

/// Whole appends and epoch starts that follow a given tail. Every frame has been checked. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    bytes: Bytes,
    prev: Tail,
    end: Tail,
    /// Of the first and the last record; `None` without records.
    timestamps_ms: Option<(u64, u64)>,
    starts: Arc<[EpochStart]>,
    producers: Arc<[ProducerRun]>,
}

impl AsRef<Batch> for Batch {
    fn as_ref(&self) -> &Batch {
        self
    }
}

impl Batch {
    /// A batch of one epoch start, which follows a log whose last epoch is `last`.
    ///
    /// # Errors
    /// When its epoch is not greater than `last`, or its voters and quorum cannot elect and commit.
    pub fn epoch_start(last: Epoch, start: EpochStart) -> Result<Self, Fault> {
        check_voters(&start)?;
        let prev = Tail { epoch: last, end: start.start };
        let mut sequence = FrameSequence::after(prev, 0);
        sequence.start(&start)?;
        let mut bytes = Vec::new();
        put_start(&mut bytes, &start);
        let (bytes, end) = (Bytes::from(bytes), sequence.tail);
        let batch =
            Self { bytes, prev, end, timestamps_ms: None, starts: Arc::new([start]), producers: Arc::default() };
        debug_assert_eq!(
            Self::decode(batch.bytes.clone(), prev, &Limits::NONE).as_ref(),
            Ok(&batch),
            "no follower takes it"
        );
        Ok(batch)
    }

    /// Checks bytes that a peer sent: every CRC and limit, and that they are whole appends and epoch starts which follow `prev`
    /// without a gap. Whatever the bytes are, it does not panic.
    ///
    /// # Errors
    /// The first fault and where it is.
    pub fn decode(bytes: Bytes, prev: Tail, limits: &Limits) -> Result<Self, FrameError> {
        let mut sequence = FrameSequence::after(prev, 0);
        let (mut starts, mut producers) = (Vec::new(), Vec::new());
        let (mut position, mut append_at) = (0, 0);
        let mut first_ms = None;
        let at = |position: usize| move |fault: Fault| FrameError { position: wide(position), fault };
        Bounded::BatchBytes.check(bytes.len(), limits.batch_bytes_max).map_err(|limit| at(0)(limit.into()))?;
        while position < bytes.len() {
            let (frame, length) = parse(bytes.get(position..).unwrap_or_default(), 0).map_err(at(position))?;
            match frame {
                Frame::Record(record) => {
                    if sequence.unfinished().is_none() {
                        append_at = position;
                    }
                    check_limits(&record, limits).map_err(|limit| at(position)(limit.into()))?;
                    producers.extend(sequence.record(&record, limits).map_err(at(position))?);
                    first_ms.get_or_insert(record.timestamp_ms);
                }
                Frame::Start(start) => {
                    sequence.start(&start).map_err(at(position))?;
                    starts.push(start);
                }
                Frame::Compacted(gap) => {
                    if sequence.unfinished().is_none() {
                        append_at = position;
                    }
                    sequence.gap(&gap).map_err(at(position))?;
                    first_ms.get_or_insert(gap.timestamp_ms);
                    producers.extend(gap.runs);
                }
                local => return Err(at(position)(Fault::Kind(local.kind()))),
            }
            position += length;
        }
        if let Some(base) = sequence.unfinished() {
            return Err(at(append_at)(Fault::Unfinished(base)));
        }
        if bytes.is_empty() {
            return Err(at(0)(Fault::Empty));
        }
        debug_assert!(prev < sequence.tail, "a batch that leads nowhere");
        let last_epoch = starts.last().map_or(prev.epoch, |last: &EpochStart| last.epoch);
        debug_assert_eq!(last_epoch, sequence.tail.epoch, "a batch ends in another epoch than the last that starts");
        let count = sequence.tail.end.since(prev.end);
        if count > OFFSETS_AHEAD_MAX {
            return Err(at(0)(Fault::TooManyOffsets { count }));
        }
        Ok(Self {
            bytes,
            prev,
            end: sequence.tail,
            timestamps_ms: first_ms.map(|first| (first, sequence.timestamp_ms)),
            starts: starts.into(),
            producers: producers.into(),
        })
    }

    /// The frames as they travel.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The tail that the batch follows.
    pub fn prev(&self) -> Tail {
        self.prev
    }

    /// The tail of a log that ends with the batch.
    pub fn tail(&self) -> Tail {
        self.end
    }

    /// The number of offsets it takes: those of its records, and of records that were compacted away.
    pub fn record_count(&self) -> u64 {
        self.end.end.since(self.prev.end)
    }

    /// The timestamps of the first and the last record, ms since the Unix epoch; `None` without records.
    pub fn timestamps_ms(&self) -> Option<(u64, u64)> {
        self.timestamps_ms
    }

    /// Returns whether it may follow a log whose last record has that timestamp: times never fall along a log.
    ///
    /// # Errors
    /// When its first record is older.
    pub fn follows_time(&self, previous: u64) -> Result<(), Fault> {
        match self.timestamps_ms {
            Some((found, _)) if found < previous => Err(Fault::Timestamp { previous, found }),
            _ => Ok(()),
        }
    }

    /// The bytes of batches that follow one another.
    pub fn join(batches: &[impl AsRef<Self>]) -> Bytes {
        debug_assert!(
            batches.is_sorted_by(|a, b| a.as_ref().end == b.as_ref().prev),
            "batches are joined that do not follow one another"
        );
        if let [only] = batches {
            return only.as_ref().bytes.clone();
        }
        let mut bytes = BytesMut::with_capacity(batches.iter().map(|batch| batch.as_ref().bytes.len()).sum());
        for batch in batches {
            bytes.extend_from_slice(&batch.as_ref().bytes);
        }
        bytes.freeze()
    }

    /// Its epoch starts, in order.
    pub fn epoch_starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// Its appends that have a producer, in order.
    pub fn producers(&self) -> &[ProducerRun] {
        &self.producers
    }
}

fn check_limits(record: &crate::RecordView<'_>, limits: &Limits) -> Result<(), LimitError> {
    Bounded::RecordBytes.check(record.payload_bytes(), limits.record_bytes_max)?;
    Bounded::KeyBytes.check(record.key.map_or(0, <[u8]>::len), limits.key_bytes_max)?;
    Bounded::Headers.check(usize::from(record.header_count()), limits.headers_max)?;
    record.headers().try_for_each(|(name, value)| {
        Bounded::HeaderNameBytes.check(name.len(), limits.header_name_bytes_max)?;
        Bounded::HeaderValueBytes.check(value.len(), limits.header_value_bytes_max)
    })
}

/// Builds the batch of one append, all of whose records have the same timestamp.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    prev: Tail,
    end: Offset,
    timestamp_ms: u64,
    limits: Limits,
    /// The place where the last frame begins; its flags are not final until it is known whether another follows.
    open_frame: Option<usize>,
    run: Option<ProducerRun>,
}

impl BatchBuilder {
    /// An append that follows `prev`, in its epoch. The timestamp is ms since the Unix epoch, and the greater one of now and
    /// [`crate::Log::last_timestamp_ms`].
    pub fn new(prev: Tail, timestamp_ms: u64, limits: Limits) -> Self {
        Self { bytes: Vec::new(), prev, end: prev.end, timestamp_ms, limits, open_frame: None, run: None }
    }

    /// Makes room at once for records of so many bytes together, as [`record_bytes`] counts them: then a batch is not copied while it
    /// grows, and holds no more memory than it needs.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes.min(length(self.limits.batch_bytes_max.into())));
    }

    /// Adds a record. Either all records have the same producer and consecutive sequences, or none has a producer.
    ///
    /// # Errors
    /// A limit, or a producer that does not continue; the builder is as before.
    pub fn push<'h>(
        &mut self,
        key: Option<&[u8]>,
        value: &[u8],
        headers: impl IntoIterator<Item = (&'h str, &'h [u8]), IntoIter: Clone>,
        producer: Option<Producer>,
    ) -> Result<(), Fault> {
        let count = self.end.since(self.prev.end);
        Bounded::AppendRecords.check(length(count + 1), self.limits.append_records_max)?;
        let next = |run: ProducerRun| Producer { id: run.id, sequence: run.sequence.wrapping_add(run.count) };
        if count > 0 && self.run.map(next) != producer {
            return Err(Fault::Producer(self.end));
        }
        let (offset, epoch, timestamp_ms) = (self.end, self.prev.epoch, self.timestamp_ms);
        let headers = headers.into_iter();
        let bytes = record_bytes(key, value, headers.clone(), producer.is_some(), &self.limits)?;
        Bounded::BatchBytes.check(self.bytes.len().saturating_add(bytes), self.limits.batch_bytes_max)?;
        self.bytes.reserve(bytes);
        // The frame before is closed first, as its CRC covers all that is behind it in the buffer.
        if let Some(last) = self.open_frame {
            set_more(&mut self.bytes, last, true);
            close_frame(&mut self.bytes, last);
        }
        let head = RecordHead { offset, epoch, timestamp_ms, producer, key };
        let frame_at = head.put(&mut self.bytes, value, headers);
        debug_assert_eq!(self.bytes.len() - frame_at, bytes, "a record takes other room than was counted");
        self.open_frame = Some(frame_at);
        self.end = offset.plus(1);
        self.run = producer.map(|Producer { id, sequence }| {
            let first = self.run.map_or((sequence, offset), |run| (run.sequence, run.base));
            ProducerRun { id, sequence: first.0, base: first.1, count: count + 1 }
        });
        Ok(())
    }

    /// The batch.
    ///
    /// # Errors
    /// [`Fault::Empty`] if no record was added.
    pub fn finish(mut self) -> Result<Batch, Fault> {
        let last = self.open_frame.ok_or(Fault::Empty)?;
        set_more(&mut self.bytes, last, false);
        close_frame(&mut self.bytes, last);
        let batch = Batch {
            bytes: self.bytes.into(),
            prev: self.prev,
            end: Tail { epoch: self.prev.epoch, end: self.end },
            timestamps_ms: Some((self.timestamp_ms, self.timestamp_ms)),
            starts: Arc::default(),
            producers: self.run.map_or_else(Arc::default, |run| Arc::from([run])),
        };
        debug_assert_eq!(
            Batch::decode(batch.bytes.clone(), batch.prev, &self.limits).as_ref(),
            Ok(&batch),
            "no follower takes it"
        );
        Ok(batch)
    }
}
