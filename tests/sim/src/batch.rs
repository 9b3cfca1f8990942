//! Frames on their way, and records as the checks see them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use zue_core::{Epoch, Offset, ProducerId, Tail};
use zue_log::{BatchBuilder, Limits, Producer, RecordView};

/// A record as the checks see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    pub(crate) offset: Offset,
    pub(crate) epoch: Epoch,
    pub(crate) born: Offset,
    pub(crate) nonce: u64,
    pub(crate) sequence: u64,
    pub(crate) key: Option<u8>,
    /// It has a key and no value: it deletes the key.
    pub(crate) deletes: bool,
    pub(crate) timestamp_ms: u64,
    /// Of all that is in it.
    hash: u64,
}

/// The records of a log, from where it begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    first: Offset,
    records: Vec<Record>,
}

impl Held {
    /// None yet.
    pub(crate) fn at(first: Offset) -> Self {
        Self { first, records: Vec::new() }
    }

    pub(crate) fn first(&self) -> Offset {
        self.first
    }

    pub(crate) fn end(&self) -> Offset {
        self.first.plus(u64::try_from(self.records.len()).unwrap_or(u64::MAX))
    }

    fn index(&self, offset: Offset) -> usize {
        usize::try_from(offset.since(self.first)).unwrap_or(usize::MAX)
    }

    pub(crate) fn get(&self, offset: Offset) -> Option<Record> {
        if offset < self.first { None } else { self.records.get(self.index(offset)).copied() }
    }

    /// Those within the range that there are.
    pub(crate) fn range(&self, from: Offset, upto: Offset) -> &[Record] {
        let (from, upto) = (from.max(self.first), upto.min(self.end()));
        self.records.get(self.index(from)..self.index(upto)).unwrap_or_default()
    }

    pub(crate) fn extend(&mut self, more: &[Record]) {
        self.records.extend_from_slice(more);
    }

    pub(crate) fn truncate(&mut self, end: Offset) {
        self.records.truncate(self.index(end));
    }
}

/// Frames, and their records as the checks see them.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    frames: zue_log::Batch,
    /// Those that were compacted away are among them, as they were.
    records: Arc<[Record]>,
    /// These were compacted away.
    gone: Arc<[Offset]>,
}

/// The shape of a producer's records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The longest value, about.
    pub(crate) bytes: usize,
    /// The number of keys.
    pub(crate) keys: u64,
}

impl Shape {
    /// Key and value of a producer's record: a function of its sequence, so that a repeated append is the same.
    fn record(self, nonce: u64, sequence: u64) -> (Option<[u8; 1]>, Vec<u8>) {
        let key = (nonce ^ sequence.wrapping_mul(5)) % (self.keys + 1);
        let key = u8::try_from(key).ok().filter(|key| *key > 0).map(|key| [key]);
        let letter = u8::try_from(sequence % 251).unwrap_or_default();
        let deletes = key.is_some() && (nonce ^ sequence) % 6 == 5;
        let length = if deletes { 0 } else { self.bytes * usize::from(letter) / 251 };
        (key, vec![letter; length])
    }
}

impl Record {
    pub(crate) fn digest(&self) -> u64 {
        self.hash
    }

    pub(crate) fn of(view: &RecordView<'_>) -> Self {
        let producer = view.producer.map(|producer| (ProducerId::from_u128(producer.id), producer.sequence));
        let none = ProducerId { born: Offset(0), nonce: 0 };
        let at = (Tail { epoch: view.epoch, end: view.offset }, view.timestamp_ms);
        Self::new(at, producer.unwrap_or((none, 0)), view.key, view.value)
    }

    fn new(
        (at, timestamp_ms): (Tail, u64),
        (id, sequence): (ProducerId, u64),
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        let ProducerId { born, nonce } = id;
        (at.end, at.epoch, timestamp_ms, nonce, sequence, key, value).hash(&mut hasher);
        let (hash, deletes) = (hasher.finish(), key.is_some() && value.is_empty());
        let key = key.and_then(|key| key.first()).copied();
        Self { offset: at.end, epoch: at.epoch, born, nonce, sequence, key, deletes, timestamp_ms, hash }
    }
}

impl AsRef<zue_log::Batch> for Batch {
    fn as_ref(&self) -> &zue_log::Batch {
        &self.frames
    }
}

/// Frames without records.
impl From<zue_log::Batch> for Batch {
    fn from(frames: zue_log::Batch) -> Self {
        Self { frames, records: Arc::default(), gone: Arc::default() }
    }
}

impl Batch {
    pub(crate) fn new(frames: zue_log::Batch, records: Arc<[Record]>, gone: Arc<[Offset]>) -> Self {
        Self { frames, records, gone }
    }

    /// One append after `prev`.
    pub(crate) fn append(
        prev: Tail,
        time: u64,
        (producer, sequence, count): (ProducerId, u64, u32),
        shape: Shape,
    ) -> Self {
        let mut builder = BatchBuilder::new(prev, time, Limits::default());
        let mut records = Vec::new();
        for k in 0..u64::from(count) {
            let sequence = sequence + k;
            let (key, value) = shape.record(producer.nonce, sequence);
            let key = key.as_ref().map(<[u8; 1]>::as_slice);
            let sent_by = Producer { id: producer.to_u128(), sequence };
            builder.push(key, &value, [], Some(sent_by)).expect("an append within all limits");
            let at = (Tail { end: prev.end.plus(k), ..prev }, time);
            records.push(Record::new(at, (producer, sequence), key, &value));
        }
        let frames = builder.finish().expect("an append of at least one record");
        Self { frames, records: records.into(), gone: Arc::default() }
    }

    /// Batches that follow one another, as one.
    pub(crate) fn join(batches: &[Self]) -> Self {
        if let [only] = batches {
            return only.clone();
        }
        let prev = batches.first().map(Self::prev).unwrap_or_default();
        let frames = zue_log::Batch::decode(zue_log::Batch::join(batches), prev, &Limits::default())
            .expect("batches of one log");
        let records = batches.iter().flat_map(|batch| batch.records().iter().copied()).collect();
        Self { frames, records, gone: batches.iter().flat_map(|batch| batch.gone().iter().copied()).collect() }
    }

    /// The batch as it arrives on the other side of the network.
    pub(crate) fn arrive(&self) -> Result<Self, String> {
        let (bytes, prev) = (self.frames.bytes().clone(), self.frames.prev());
        let frames = zue_log::Batch::decode(bytes, prev, &Limits::default()).map_err(|error| error.to_string())?;
        if frames.tail() != self.frames.tail() {
            return Err(format!("a batch with {} arrives with {}", self.frames.tail(), frames.tail()));
        }
        Ok(Self { frames, ..self.clone() })
    }

    pub(crate) fn prev(&self) -> Tail {
        self.frames.prev()
    }

    pub(crate) fn tail(&self) -> Tail {
        self.frames.tail()
    }

    pub(crate) fn last_ms(&self) -> u64 {
        self.frames.timestamps_ms().map_or(0, |(_, last)| last)
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn gone(&self) -> &[Offset] {
        &self.gone
    }
}
