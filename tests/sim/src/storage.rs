//! The disk of a machine and the real log on it. The disk outlives the log, and forgets what was not synced.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::sync::Arc;

use zue_core::{
    Appended, ClusterId, Epoch, EpochStart, FrameFacts, Offset, ProducerId, ProducerLimits, Promise, Recovered,
    ReplicaId, Tail,
};
use zue_log::sim::SimDisk;
use zue_log::{BatchBuilder, Limits, Log, LogConfig, LogError, Producer, ReadError, RecordView, SEGMENT_BYTES_MIN};

/// A record as the checks see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) nonce: u64,
    pub(crate) sequence: u64,
    /// Of all that is in it.
    hash: u64,
}

/// Work for the disk.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Promise { epoch: Epoch, leader: Option<ReplicaId>, cluster: Option<ClusterId> },
    Cut(Tail),
    Append(Batch),
}

/// Why work was not done.
#[derive(Debug)]
pub(crate) enum WorkError {
    /// The disk was made to fail, or to stop.
    Disk,
    /// The log should have been able to.
    Wrong(String),
}

/// Frames, and their records as the checks see them.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    frames: zue_log::Batch,
    records: Arc<[Record]>,
}

impl Record {
    fn of(view: &RecordView<'_>) -> Self {
        let producer = view.producer.map(|producer| (ProducerId::from_u128(producer.id), producer.sequence));
        let (nonce, sequence) = producer.map_or((0, 0), |(id, sequence)| (id.nonce, sequence));
        Self::new(view.offset, view.epoch, view.timestamp_ms, (nonce, sequence), view.value)
    }

    fn new(offset: Offset, epoch: Epoch, time: u64, (nonce, sequence): (u64, u64), value: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (offset, epoch, time, nonce, sequence, value).hash(&mut hasher);
        Self { nonce, sequence, hash: hasher.finish() }
    }
}

impl Batch {
    pub(crate) fn epoch_start(last: Epoch, start: EpochStart) -> Self {
        let frames = zue_log::Batch::epoch_start(last, start).expect("a start that the rules have checked");
        Self { frames, records: Arc::default() }
    }

    /// One append after `prev`. A producer's values are functions of their sequence: a repeated append is the same.
    pub(crate) fn append(
        prev: Tail,
        time: u64,
        (producer, sequence, count): (ProducerId, u64, u32),
        bytes: usize,
    ) -> Self {
        let mut builder = BatchBuilder::new(prev, time, Limits::default());
        let mut records = Vec::new();
        for k in 0..u64::from(count) {
            let sequence = sequence + k;
            let letter = u8::try_from(sequence % 251).unwrap_or_default();
            let value = vec![letter; bytes * usize::from(letter) / 251];
            let sent_by = Producer { id: producer.to_u128(), sequence };
            builder.push(None, &value, [], Some(sent_by)).expect("an append within all limits");
            records.push(Record::new(prev.end.plus(k), prev.epoch, time, (producer.nonce, sequence), &value));
        }
        Self { frames: builder.finish().expect("an append of at least one record"), records: records.into() }
    }

    /// What arrives of it on the other side of the network.
    pub(crate) fn arrive(&self) -> Result<Self, String> {
        let (bytes, prev) = (self.frames.bytes().clone(), self.frames.prev());
        let frames = zue_log::Batch::decode(bytes, prev, &Limits::default()).map_err(|error| error.to_string())?;
        if frames.tail() != self.frames.tail() {
            return Err(format!("a batch with {} arrives with {}", self.frames.tail(), frames.tail()));
        }
        Ok(Self { frames, records: Arc::clone(&self.records) })
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

    pub(crate) fn facts(&self) -> FrameFacts {
        FrameFacts { end: self.tail(), epoch_starts: self.frames.epoch_starts().to_vec(), appends: self.appends() }
    }

    fn appends(&self) -> Vec<Appended> {
        let appended = |run: &zue_log::ProducerRun| Appended {
            producer: ProducerId::from_u128(run.id),
            sequence: run.sequence,
            count: u32::try_from(run.count).unwrap_or(u32::MAX),
            base: run.base,
        };
        self.frames.producers().iter().map(appended).collect()
    }
}

/// A machine's disk and the log that is open on it.
pub(crate) struct Storage {
    id: ReplicaId,
    disk: SimDisk,
    log: Option<Log<SimDisk>>,
    /// What must be there after a crash.
    synced: Tail,
    promise: Promise,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("id", &self.id).field("synced", &self.synced).finish_non_exhaustive()
    }
}

impl Storage {
    pub(crate) fn new(id: ReplicaId, seed: u64) -> Self {
        Self { id, disk: SimDisk::new(seed), log: None, synced: Tail::default(), promise: Promise::default() }
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.id
    }

    fn log(&self) -> &Log<SimDisk> {
        self.log.as_ref().expect("a process that runs has its log open")
    }

    /// What is written.
    pub(crate) fn tail(&self) -> Tail {
        self.log().tail()
    }

    /// What would be left if the machine stopped now, and the promise.
    pub(crate) fn synced(&self) -> (Tail, Promise) {
        (self.synced, self.promise)
    }

    /// The next change of the disk but `after` fails; or the machine stops there.
    pub(crate) fn fail_soon(&self, after: u64, stops: bool) {
        let at = self.disk.operations() + after;
        if stops { self.disk.stop_at(at) } else { self.disk.fail_at(at, ErrorKind::Other) }
    }

    pub(crate) fn write(&mut self, work: Work) -> Result<(), WorkError> {
        let Some(log) = &mut self.log else { return Err(WorkError::Disk) };
        match work {
            Work::Promise { epoch, leader, cluster } => log.set_promise(epoch, leader, cluster),
            Work::Cut(to) => log.cut(to),
            Work::Append(batch) => log.append(&batch.frames).map(drop),
        }
        .map_err(work_error)?;
        self.note_synced();
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), WorkError> {
        let Some(log) = &mut self.log else { return Err(WorkError::Disk) };
        log.sync().map_err(work_error)?;
        self.note_synced();
        Ok(())
    }

    fn note_synced(&mut self) {
        let zue_log::Promise { epoch, leader } = self.log().meta().promise;
        (self.synced, self.promise) = (self.log().durable(), Promise { epoch, leader });
    }

    pub(crate) fn note_commit(&mut self, end: Offset) {
        if let Some(log) = &mut self.log {
            log.note_commit(end);
        }
    }

    /// The process is gone; if the machine goes with it, so may be what was not synced.
    pub(crate) fn stop(&mut self, machine_too: Option<u64>) {
        self.log = None;
        match machine_too {
            Some(seed) => self.disk.crash(seed),
            None => self.disk.kill(),
        }
    }

    /// Opens the log: what a replica finds, its records, and the last timestamp.
    pub(crate) fn open(&mut self, limits: ProducerLimits) -> Result<(Recovered, Vec<Record>, u64), WorkError> {
        let config = LogConfig {
            segment_bytes_max: SEGMENT_BYTES_MIN,
            index_interval_bytes: 256,
            producers: limits,
            ..LogConfig::default()
        };
        let opened = Log::open(self.disk.clone(), config, self.id);
        let (log, found) = opened.map_err(|error| match error {
            zue_log::OpenError::Disk(_) => WorkError::Disk,
            error => WorkError::Wrong(format!("{:?} does not open: {error}", self.id)),
        })?;
        let zue_log::Meta { replica, cluster, commit_end, .. } = *log.meta();
        let zue_log::Promise { epoch, leader } = log.meta().promise;
        let (tail, history, last_ms) = (log.tail(), log.history().clone(), log.last_timestamp_ms());
        let producers = log.producers().clone();
        self.log = Some(log);
        let lost = tail < self.synced || epoch < self.promise.epoch || replica != self.id;
        if lost {
            let (synced, promise) = (self.synced, self.promise);
            return Err(WorkError::Wrong(format!(
                "{:?} had synced {synced} and {promise:?}, and finds {tail} and {epoch} ({replica:?})",
                self.id
            )));
        }
        self.note_synced();
        let (mut records, mut at) = (Vec::new(), Tail::default());
        while let Some(batch) = self.read_frames(at, 64 << 10).map_err(wrong_read)? {
            records.extend_from_slice(batch.records());
            at = batch.tail();
        }
        let promise = Promise { epoch, leader };
        Ok((
            Recovered {
                id: replica,
                cluster,
                promise,
                history,
                log: tail,
                commit_end,
                producers,
                suspect: found.suspect,
            },
            records,
            last_ms,
        ))
    }

    /// The frames after `from`, about as many as `bytes_max` hold, at least one; none if nothing follows.
    pub(crate) fn read_frames(&self, from: Tail, bytes_max: usize) -> Result<Option<Batch>, ReadError> {
        let reader = self.log().reader();
        let Some(frames) = reader.read_frames(from, reader.tail(), bytes_max)? else { return Ok(None) };
        let records = self.read(frames.prev().end, frames.tail().end)?.into();
        Ok(Some(Batch { frames, records }))
    }

    /// The records in `from..upto`.
    pub(crate) fn read(&self, from: Offset, upto: Offset) -> Result<Vec<Record>, ReadError> {
        let reader = self.log().reader();
        let mut records = Vec::new();
        let mut at = from;
        while at < upto {
            let chunk = reader.read(at, upto, 4 << 10)?;
            for record in chunk.records() {
                records.push(Record::of(&record?));
            }
            if chunk.end() == at {
                break;
            }
            at = chunk.end();
        }
        Ok(records)
    }
}

fn work_error(error: LogError) -> WorkError {
    match error {
        LogError::Poisoned { .. } | LogError::Disk(_) | LogError::NoRoom { .. } => WorkError::Disk,
        error => WorkError::Wrong(error.to_string()),
    }
}

fn wrong_read(error: ReadError) -> WorkError {
    WorkError::Wrong(error.to_string())
}
