//! The disk of a machine and the log on it: what was written, what of that is synced, and what a crash leaves.

use std::sync::Arc;

use zue_core::{
    Appended, ClusterId, Epoch, EpochStart, History, Offset, ProducerId, ProducerLimits, Producers, Promise, Recovered,
    ReplicaId, Tail,
};

use crate::dice::Dice;

/// A record as the checks see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) nonce: u64,
    pub(crate) sequence: u64,
    /// Of all of its bytes.
    pub(crate) hash: u64,
}

/// Work for the disk.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Promise { epoch: Epoch, leader: Option<ReplicaId>, cluster: Option<ClusterId> },
    Cut { depth: usize, end: Offset },
    Append(Batch),
}

#[derive(Clone, Debug)]
enum Frame {
    Start(EpochStart),
    Append { at: Appended, epoch: Epoch, time: u64 },
}

/// Whole appends and epoch starts that follow `prev`.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    prev: Tail,
    end: Tail,
    frames: Arc<[Frame]>,
}

impl Batch {
    pub(crate) fn epoch_start(last: Epoch, start: EpochStart) -> Self {
        let (end, prev) = (Tail { epoch: start.epoch, end: start.start }, Tail { epoch: last, end: start.start });
        Self { prev, end, frames: Arc::new([Frame::Start(start)]) }
    }

    /// One append after `prev`.
    pub(crate) fn append(prev: Tail, time: u64, at: Appended) -> Self {
        let end = Tail { epoch: prev.epoch, end: prev.end.plus(at.count.into()) };
        Self { prev, end, frames: Arc::new([Frame::Append { at, epoch: prev.epoch, time }]) }
    }

    pub(crate) fn prev(&self) -> Tail {
        self.prev
    }

    pub(crate) fn tail(&self) -> Tail {
        self.end
    }

    pub(crate) fn epoch_starts(&self) -> Vec<EpochStart> {
        self.frames.iter().filter_map(|f| if let Frame::Start(start) = f { Some(start.clone()) } else { None }).collect()
    }

    pub(crate) fn appends(&self) -> Vec<Appended> {
        self.frames.iter().filter_map(|f| if let Frame::Append { at, .. } = f { Some(*at) } else { None }).collect()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.frames.iter().flat_map(Frame::records).collect()
    }
}

impl Frame {
    fn records(&self) -> Vec<Record> {
        let Self::Append { at, epoch, time } = self else { return Vec::new() };
        let record = |k: u64| {
            let (nonce, sequence) = (at.producer.nonce, at.sequence + k);
            let hash = [nonce, sequence, at.base.0 + k, epoch.0, *time]
                .iter()
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29));
            Record { nonce, sequence, hash }
        };
        (0..u64::from(at.count)).map(record).collect()
    }

    fn after(&self, tail: Tail) -> Tail {
        match self {
            Self::Start(start) => Tail { epoch: start.epoch, end: start.start },
            Self::Append { at, .. } => Tail { epoch: tail.epoch, end: at.base.plus(at.count.into()) },
        }
    }
}

/// A disk.
#[derive(Debug)]
pub(crate) struct Storage {
    id: ReplicaId,
    cluster: Option<ClusterId>,
    promise: Promise,
    commit_noted: Offset,
    commit_end: Offset,
    frames: Vec<Frame>,
    synced: usize,
}

impl Storage {
    pub(crate) fn new(id: ReplicaId) -> Self {
        let zero = Offset(0);
        Self {
            id,
            cluster: None,
            promise: Promise::default(),
            commit_noted: zero,
            commit_end: zero,
            frames: vec![],
            synced: 0,
        }
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.id
    }

    fn tail_of(frames: &[Frame]) -> Tail {
        frames.iter().fold(Tail::default(), |tail, frame| frame.after(tail))
    }

    /// What is written.
    pub(crate) fn tail(&self) -> Tail {
        Self::tail_of(&self.frames)
    }

    /// What would be left if the machine stopped now.
    pub(crate) fn synced_tail(&self) -> Tail {
        Self::tail_of(self.frames.get(..self.synced).unwrap_or_default())
    }

    pub(crate) fn synced_promise(&self) -> Promise {
        self.promise
    }

    pub(crate) fn write(&mut self, work: Work) -> Result<(), String> {
        match work {
            Work::Promise { epoch, leader, cluster } => {
                self.promise = Promise { epoch, leader };
                self.cluster = cluster;
                self.commit_end = self.commit_noted.min(self.synced_tail().end);
            }
            Work::Cut { depth, end } => {
                let mut starts = 0;
                let keep = |frame: &Frame| match frame {
                    Frame::Start(_) => {
                        starts += 1;
                        starts <= depth
                    }
                    Frame::Append { at, .. } => at.base < end,
                };
                let kept = self.frames.iter().map(keep).take_while(|keep| *keep).count();
                self.frames.truncate(kept);
                self.synced = self.frames.len();
            }
            Work::Append(batch) => {
                if batch.prev != self.tail() {
                    return Err(format!("a batch after {} does not follow a log with {}", batch.prev, self.tail()));
                }
                self.frames.extend(batch.frames.iter().cloned());
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) {
        self.synced = self.frames.len();
    }

    pub(crate) fn note_commit(&mut self, end: Offset) {
        self.commit_noted = self.commit_noted.max(end);
    }

    /// The machine stops: what was not synced may or may not be there.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        let left = self.synced + dice.index(self.frames.len() - self.synced + 1);
        self.frames.truncate(left);
        self.synced = left;
        self.commit_noted = self.commit_end;
    }

    /// Starts the replica: what it finds, and its records.
    pub(crate) fn open(&mut self, limits: ProducerLimits) -> (Recovered, Vec<Record>) {
        let mut producers = Producers::new(limits);
        let mut history = History::default();
        for frame in &self.frames {
            match frame {
                Frame::Start(start) => history.push(start.clone()).expect("a history in order"),
                Frame::Append { at, .. } => producers.record(*at),
            }
        }
        let (id, cluster, promise, commit_end) = (self.id, self.cluster, self.promise, self.commit_end);
        let recovered = Recovered { id, cluster, promise, history, log: self.tail(), commit_end, producers };
        (recovered, self.frames.iter().flat_map(Frame::records).collect())
    }

    /// The frames after `from`, about as many as `bytes_max` hold, at least one; none if nothing follows.
    pub(crate) fn read_frames(&self, from: Tail, bytes_max: usize) -> Result<Option<Batch>, ()> {
        let mut tail = Tail::default();
        let mut at = 0;
        for frame in &self.frames {
            if tail >= from {
                break;
            }
            tail = frame.after(tail);
            at += 1;
        }
        if tail != from {
            return Err(());
        }
        let frames: Vec<_> = self.frames.iter().skip(at).take((bytes_max / 100).max(1)).cloned().collect();
        if frames.is_empty() {
            return Ok(None);
        }
        let end = frames.iter().fold(from, |tail, frame| frame.after(tail));
        Ok(Some(Batch { prev: from, end, frames: frames.into() }))
    }

    /// The records in `from..upto`.
    pub(crate) fn read(&self, from: Offset, upto: Offset, records_max: u64) -> Vec<Record> {
        let (from, count) = (from.0, upto.since(from).min(records_max));
        let all = self.frames.iter().flat_map(Frame::records);
        all.skip(usize::try_from(from).unwrap_or(usize::MAX)).take(usize::try_from(count).unwrap_or(0)).collect()
    }
}

/// The producer of the run's `n`th opening.
pub(crate) fn producer(born: Offset, nonce: u64) -> ProducerId {
    ProducerId { born, nonce }
}
