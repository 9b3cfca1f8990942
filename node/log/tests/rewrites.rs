//! A log that is compacted, damaged, repaired, trimmed, cut and reset: the machine stops at every operation, and every call of the
//! disk fails. At each such place the log opens and holds what it held before the step or after it; what was to be repaired is
//! repaired or still named; and what was not done can be done again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::{ControlFlow, Range};

use common::{ID, SMALL, SimLog, start};
use zue_core::{Aged, Epoch, History, Offset, Origin, Producers, Tail};
use zue_log::sim::{Every, SimDisk};
use zue_log::{
    Batch, BatchBuilder, Compacting, CompactionConfig, Disk as _, DumpItem, Excerpt, Limits, Log, LogConfig, LogError,
    OpenError, Operation, Producer, ProducerRun, ReadError, RewriteError,
};

const COMPACTED: LogConfig =
    LogConfig { compaction: Some(CompactionConfig { tombstone_retention_ms: 0, dirty_percent: 1 }), ..SMALL };
const ANEW: &str = "segment.anew";
/// A record without a key.
const NONE: u8 = 0;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One append: the key and the size of each value; no bytes delete the key.
    Append(&'static [(u8, usize)]),
    Epoch(u64),
    Sync,
    /// All that is synced is committed, and that is written down.
    Commit,
    /// To so many of all epoch starts, and to the offset.
    Cut(usize, u64),
    Trim(u64),
    /// To an empty log that begins at the offset, in the epoch, which began five records before.
    Reset(u64, u64),
    /// All there is to compact; deletes go if they are of an offset before this one.
    Compact(u64),
    /// The disk damages the frame of the record, or of the gap that stands for it.
    Damage(u64),
    /// The other replica has lost the record.
    Lose(u64),
    /// All that is damaged, with what the other replica has.
    Repair,
    /// Close and open.
    Reopen,
}
use Step::{Append, Commit, Compact, Cut, Damage, Epoch as Start, Lose, Reopen, Repair, Reset, Sync, Trim};

const WORKLOAD: &[Step] = &[
    Start(1),
    Append(&[(1, 5000), (2, 5000)]),
    Append(&[(NONE, 3000)]),
    Append(&[(1, 6000)]),
    Append(&[(3, 6000), (2, 3000)]),
    Append(&[(1, 7000)]),
    Append(&[(2, 0)]),
    Append(&[(3, 7000)]),
    Append(&[(1, 7000)]),
    Append(&[(4, 7000)]),
    // 11
    Start(2),
    Append(&[(1, 7000)]),
    Append(&[(4, 7000)]),
    Append(&[(5, 7000)]),
    Append(&[(3, 7000)]),
    Sync,
    Commit,
    // Every segment but the newest, with what follows not synced.
    Append(&[(1, 100)]),
    Compact(0),
    // A gap, and a record; then both are back.
    Damage(0),
    Damage(2),
    Repair,
    Sync,
    Compact(0),
    Reopen,
    // 16: what is damaged while it is compacted stays so until it is repaired.
    Append(&[(5, 7000), (1, 2000)]),
    Append(&[(3, 7000)]),
    Append(&[(NONE, 7000)]),
    Append(&[(4, 7000)]),
    Sync,
    Commit,
    Damage(2),
    Compact(100),
    Append(&[(1, 7000)]),
    Repair,
    Compact(100),
    // 22: a trim inside a segment that was written anew, then over it, and compaction of what is left.
    Trim(3),
    Append(&[(2, 7000), (2, 0)]),
    Append(&[(6, 7000)]),
    Append(&[(7, 7000)]),
    Append(&[(1, 7000)]),
    Sync,
    Commit,
    Compact(0),
    Trim(16),
    Append(&[(6, 7000)]),
    Append(&[(7, 7000)]),
    Append(&[(5, 7000)]),
    Append(&[(5, 7000)]),
    Reopen,
    Commit,
    Compact(0),
    // What is not committed is repaired, and then cut inside the segment that was written anew.
    Start(3),
    Append(&[(8, 7000)]),
    Append(&[(8, 7000)]),
    Append(&[(8, 7000)]),
    Append(&[(8, 7000)]),
    Append(&[(8, 7000)]),
    Sync,
    Damage(32),
    Repair,
    Cut(3, 32),
    Reopen,
    Start(4),
    Append(&[(8, 3000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Sync,
    Commit,
    Compact(0),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    // What nobody has stays damaged, and is trimmed at last.
    Damage(32),
    Damage(34),
    Lose(34),
    Repair,
    Append(&[(8, 7000)]),
    Append(&[(8, 7000)]),
    Append(&[(9, 7000)]),
    Sync,
    Commit,
    Compact(100),
    Trim(38),
    Compact(100),
    Append(&[(9, 500)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    Append(&[(9, 7000)]),
    // The base of a segment that was written anew.
    Sync,
    Damage(46),
    Repair,
    Reset(45, 5),
    Append(&[(1, 9000)]),
    Append(&[(1, 9000)]),
    Append(&[(1, 9000)]),
    Append(&[(2, 9000)]),
    Sync,
    Commit,
    Compact(0),
    Damage(46),
    Reset(100, 6),
    Append(&[(1, 9000), (2, 5000)]),
    Append(&[(1, 9000)]),
    Append(&[(2, 9000)]),
    Append(&[(3, 9000)]),
    Sync,
    Commit,
    Compact(0),
    Trim(102),
    Append(&[(3, 100)]),
];

/// Fewer steps of every kind, for the failures.
const SHORT: &[Step] = &[
    Start(1),
    Append(&[(1, 9000), (2, 5000)]),
    Append(&[(1, 9000)]),
    Append(&[(2, 9000)]),
    Append(&[(3, 9000)]),
    Append(&[(1, 9000)]),
    Sync,
    Commit,
    Compact(0),
    Damage(0),
    Damage(2),
    Repair,
    Compact(0),
    Append(&[(3, 9000)]),
    Append(&[(2, 0)]),
    Append(&[(4, 9000)]),
    Cut(1, 7),
    Append(&[(2, 0)]),
    Start(2),
    Append(&[(4, 9000)]),
    Append(&[(4, 9000)]),
    Sync,
    Commit,
    Trim(4),
    Compact(100),
    Reopen,
    Reset(20, 3),
    Append(&[(1, 9000)]),
    Append(&[(1, 9000)]),
    Append(&[(1, 9000)]),
    Sync,
    Commit,
    Compact(0),
    Trim(21),
    Reopen,
];

/// A key and a value.
type Value = (Option<u8>, Vec<u8>);

/// A record: epoch, key, value.
type Record = (u64, Option<u8>, Vec<u8>);

/// The content of a log.
#[derive(Clone, PartialEq)]
struct State {
    range: Range<u64>,
    records: BTreeMap<u64, Record>,
    /// The offsets that are in doubt.
    damaged: BTreeSet<u64>,
    epochs: Vec<(u64, u64)>,
    producers: Producers,
}

/// The change by a segment that is written anew.
#[derive(Default)]
struct Change {
    gone: BTreeSet<u64>,
    back: BTreeMap<u64, Record>,
    /// These are known again, as records or as gone.
    known: BTreeSet<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { range, records, damaged, epochs, producers } = self;
        let records: Vec<_> = records.iter().map(|(at, (epoch, key, value))| (at, epoch, key, value.len())).collect();
        write!(f, "{range:?}, damaged {damaged:?}, epochs {epochs:?}, {records:?}, {producers:?}")
    }
}

impl State {
    fn trimmed(&self, before: u64) -> Self {
        let mut trimmed = self.clone();
        trimmed.range.start = before;
        trimmed.records.retain(|offset, _| *offset >= before);
        trimmed.damaged.retain(|offset| *offset >= before);
        let begun = self.epochs.iter().filter(|(_, start)| *start < before).count();
        trimmed.epochs.drain(..begun.saturating_sub(1));
        trimmed
    }

    fn changed(&self, change: &Change) -> Self {
        let mut changed = self.clone();
        changed.records.retain(|offset, _| !change.gone.contains(offset));
        changed.damaged.retain(|offset| !change.known.contains(offset));
        let back = change.back.iter().filter(|(offset, _)| self.range.contains(offset));
        changed.records.extend(back.map(|(offset, record)| (*offset, record.clone())));
        changed
    }

    /// The records in front of `end` that compaction removes.
    fn outdated(&self, end: u64, deletes_before: u64) -> BTreeSet<u64> {
        let is_outdated = |offset: u64, (_, key, value): &Record| {
            let newer = || self.records.range(offset + 1..end).any(|(_, (_, other, _))| other == key);
            // A value that is deleted may be among what is damaged.
            let hides = || self.damaged.iter().any(|damaged| *damaged < offset);
            key.is_some() && (newer() || (value.is_empty() && offset < deletes_before && !hides()))
        };
        let outdated = self.records.range(..end).filter(|(offset, record)| is_outdated(**offset, record));
        outdated.map(|(offset, _)| *offset).collect()
    }
}

fn key_bytes(key: &u8) -> Option<&[u8]> {
    (*key != NONE).then_some(std::slice::from_ref(key))
}

/// The append at that place: its values, and who appended it.
fn values(tail: Tail, records: &[(u8, usize)]) -> (Vec<Value>, Producer) {
    let value = |(n, (key, bytes)): (usize, &(u8, usize))| {
        let mut value = if *bytes == 0 { String::new() } else { format!("{tail} {n} ") }.into_bytes();
        value.resize(value.len().max(*bytes), *key);
        (Some(*key).filter(|key| *key != NONE), value)
    };
    // More producers than the table holds.
    let producer = Producer { id: (tail.end.0 % 6).into(), sequence: tail.end.0 };
    (records.iter().enumerate().map(value).collect(), producer)
}

fn batch(tail: Tail, records: &[(u8, usize)]) -> Batch {
    let (values, first) = values(tail, records);
    let mut builder = BatchBuilder::new(tail, 1000 + tail.end.0, Limits::default());
    for (((key, _), (_, value)), n) in records.iter().zip(&values).zip(0..) {
        let producer = Producer { sequence: first.sequence + n, ..first };
        builder.push(key_bytes(key), value, [("h", b"1".as_slice())], Some(producer)).unwrap();
    }
    builder.finish().unwrap()
}

fn origin(at: u64, epoch: u64) -> Origin {
    let mut producers = Producers::new(SMALL.producers);
    producers.record(ProducerRun { id: 1, sequence: 0, base: Offset(at - 2), count: 2 }.appended());
    let history = History::new(vec![start(epoch, at - 5)]).unwrap();
    Origin { at: Offset(at), history, timestamp_ms: 1000 + at - 1, producers }
}

/// All that the log holds, read as far as it can be, and checked byte by byte.
fn state(log: &SimLog) -> State {
    let (reader, range) = (log.reader(), log.log_start().0..log.tail().end.0);
    let (mut check, mut verified) = (reader.verifier(), BTreeSet::new());
    while let Some(step) = check.step(3000).unwrap() {
        verified.extend(step.damage.into_iter().flat_map(|damage| damage.from.0..damage.to.0));
    }
    verified.retain(|offset| range.contains(offset));
    let (mut records, mut damaged, mut at) = (BTreeMap::new(), BTreeSet::new(), Offset(range.start));
    let mut pass = |error| {
        let ReadError::Damaged(damage) = error else { panic!("{error}") };
        damaged.extend(damage.from.0.max(range.start)..damage.to.0);
        damage.to
    };
    while at.0 < range.end {
        match reader.read(at, Offset(u64::MAX), 5000) {
            Err(error) => at = pass(error),
            Ok(chunk) => {
                at = chunk.end();
                for record in chunk.records() {
                    match record {
                        Ok(record) => {
                            let key = record.key.map(|key| key[0]);
                            records.insert(record.offset.0, (record.epoch.0, key, record.value.to_vec()));
                        }
                        Err(error) => at = pass(error),
                    }
                }
            }
        }
    }
    assert_eq!(verified, damaged, "a check finds what reading finds");
    let mut history = log.history().clone();
    history.trim(log.log_start());
    let epochs = history.starts().iter().map(|start| (start.epoch.0, start.start.0)).collect();
    State { range, records, damaged, epochs, producers: log.producers().clone() }
}

/// Why a step was not taken.
#[derive(Debug)]
enum Failed {
    Log(LogError),
    /// Work beside the log.
    Beside(RewriteError),
    Open(OpenError),
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// A log, and what it may hold.
struct Run {
    disk: SimDisk,
    log: Option<SimLog>,
    /// The frames that the other replicas have, one a record.
    frames: BTreeMap<u64, Vec<u8>>,
    /// Every record there ever was at the offset and is not cut.
    whole: BTreeMap<u64, Record>,
    /// The last state that was durable for certain, and all since then.
    allowed: Vec<State>,
}

impl Run {
    fn new(disk: SimDisk) -> Self {
        let log = Log::open(disk.clone(), COMPACTED, ID).ok().map(|(log, _)| log);
        let (records, damaged) = (BTreeMap::new(), BTreeSet::new());
        let empty = State { range: 0..0, records, damaged, epochs: vec![], producers: Producers::new(SMALL.producers) };
        Self { disk, log, frames: BTreeMap::new(), whole: BTreeMap::new(), allowed: vec![empty] }
    }

    fn now(&self) -> State {
        self.allowed.last().unwrap().clone()
    }

    fn log(&mut self) -> &mut SimLog {
        self.log.as_mut().unwrap()
    }

    fn durable(&mut self) {
        self.allowed.drain(..self.allowed.len() - 1);
    }

    /// The same on a disk of its own, after a crash.
    fn fork(&self) -> Self {
        let (disk, log, frames, whole) = (self.disk.fork(), None, self.frames.clone(), self.whole.clone());
        Self { disk, log, frames, whole, allowed: self.allowed.clone() }
    }

    /// Promises the epoch: none is accepted before.
    fn promise(&mut self, epoch: u64) -> Result<(), Failed> {
        let log = self.log();
        if log.meta().promise.epoch < Epoch(epoch) {
            log.set_promise(Epoch(epoch), None, None)?;
        }
        Ok(())
    }

    /// Takes the step, and notes what it may change before it is known that it did.
    fn take(&mut self, step: Step) -> Result<(), Failed> {
        let mut next = self.now();
        match step {
            Append(records) => self.append(records)?,
            Start(epoch) => {
                self.promise(epoch)?;
                let Tail { epoch: last, end } = self.log().tail();
                next.epochs.push((epoch, end.0));
                self.allowed.push(next);
                self.log().append(&Batch::epoch_start(last, start(epoch, end.0)).unwrap())?;
            }
            Sync => {
                self.log().sync()?;
                self.durable();
            }
            Commit => {
                let log = self.log();
                log.note_commit(log.durable().end);
                log.write_commit()?;
            }
            Cut(depth, end) => {
                next.records.retain(|offset, _| *offset < end);
                next.damaged.retain(|offset| *offset < end);
                next.epochs.truncate(depth);
                let epoch = Epoch(next.epochs.last().map_or(0, |(epoch, _)| *epoch));
                if end < next.range.end {
                    next.producers.cut(Offset(end));
                }
                next.range.end = end;
                self.allowed.push(next);
                self.log().cut(Tail { epoch, end: Offset(end) })?;
                self.durable();
            }
            Trim(before) => {
                let trimmed = self.allowed.iter().filter(|state| state.range.end >= before);
                let trimmed: Vec<_> = trimmed.map(|state| state.trimmed(before)).collect();
                self.allowed.extend(trimmed);
                self.log().trim(Offset(before))?;
                self.allowed.retain(|state| state.range.start == before);
            }
            Reset(at, epoch) => {
                self.promise(epoch)?;
                let Origin { producers, .. } = origin(at, epoch);
                let (records, damaged, epochs) = (BTreeMap::new(), BTreeSet::new(), vec![(epoch, at - 5)]);
                self.allowed.push(State { range: at..at, records, damaged, epochs, producers });
                self.log().reset(&origin(at, epoch))?;
                self.durable();
            }
            Compact(deletes_before) => {
                while self.compact(deletes_before)? {}
                assert!(self.now().outdated(self.committed_base(), 0).is_empty(), "something outdated is left");
            }
            Damage(offset) => self.damage(offset),
            Lose(offset) => drop(self.frames.remove(&offset)),
            Repair => self.repair()?,
            Reopen => {
                self.log.take().unwrap().close()?;
                self.durable();
                self.log = Some(Log::open(self.disk.clone(), COMPACTED, ID)?.0);
            }
        }
        Ok(())
    }

    fn append(&mut self, records: &[(u8, usize)]) -> Result<(), Failed> {
        let mut next = self.now();
        let tail = self.log().tail();
        let (values, Producer { id, sequence }) = values(tail, records);
        let run = ProducerRun { id, sequence, base: tail.end, count: records.len().try_into().unwrap() };
        next.producers.record(run.appended());
        next.range.end += records.len() as u64;
        let batch = batch(tail, records);
        let mut frames = batch.bytes().as_ref();
        for (offset, (key, value)) in (tail.end.0..).zip(values) {
            let bytes = 8 + u32::from_le_bytes(frames[4..8].try_into().unwrap()) as usize;
            self.frames.insert(offset, frames[..bytes].to_vec());
            frames = &frames[bytes..];
            next.records.insert(offset, (tail.epoch.0, key, value));
        }
        self.whole.extend(next.records.range(tail.end.0..).map(|(at, record)| (*at, record.clone())));
        self.allowed.push(next);
        self.log().append(&batch)?;
        Ok(())
    }

    /// Lets a segment's new file take its place; `change` is what that changes.
    fn rewritten(&mut self, rewritten: zue_log::Rewritten<SimDisk>, change: &Change) -> Result<(), Failed> {
        let before = self.allowed.len();
        let changed: Vec<_> = self.allowed.iter().map(|state| state.changed(change)).collect();
        self.allowed.extend(changed);
        assert!(self.log().rewritten(rewritten)?);
        self.allowed.drain(..before);
        Ok(())
    }

    /// The bases of the segments.
    fn bases(&self) -> Vec<u64> {
        // The one call that fails may be this.
        let names = self.disk.list().or_else(|_| self.disk.list()).unwrap();
        names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
    }

    /// The position at which what is compacted ends: at a segment.
    fn committed_base(&mut self) -> u64 {
        let committed = self.log().meta().commit_end.0;
        self.bases().into_iter().filter(|base| *base <= committed).max().unwrap()
    }

    /// One round of compaction; whether there was one.
    fn compact(&mut self, deletes_before: u64) -> Result<bool, Failed> {
        let Some(mut work) = self.log().compaction(Aged::by_timestamps(1000 + deletes_before)) else {
            return Ok(false);
        };
        let (bases, outdated) = (self.bases(), self.now().outdated(self.committed_base(), deletes_before));
        loop {
            match work.step(3000) {
                Ok(Compacting::Bytes(_)) => {}
                Ok(Compacting::Segment(segment)) => {
                    let header = self.disk.content(ANEW).unwrap();
                    let base = u64::from_le_bytes(header[32..40].try_into().unwrap());
                    let end = bases.iter().copied().find(|next| *next > base).unwrap();
                    let gone = outdated.range(base..end).copied().collect();
                    if let Err(error) = self.rewritten(*segment, &Change { gone, ..Change::default() }) {
                        let _ = self.log().compacted(work, false);
                        return Err(error);
                    }
                }
                Ok(Compacting::Done) => {
                    self.log().compacted(work, true)?;
                    return Ok(true);
                }
                Err(error) => {
                    self.log().compacted(work, false)?;
                    return Err(Failed::Beside(error));
                }
            }
        }
    }

    /// The file with the record or the gap that stands for it, where in it that lies, and which offsets it takes.
    fn find(&self, offset: u64) -> Result<(String, usize, Range<u64>), OpenError> {
        let mut found = None;
        zue_log::dump(&self.disk, Offset(0), |dumped| {
            let holds = match &dumped.item {
                DumpItem::Record(record) if record.offset.0 == offset => offset..offset + 1,
                DumpItem::Compacted(_, from, end) if (from.0..end.0).contains(&offset) => from.0..end.0,
                _ => return ControlFlow::Continue(()),
            };
            let name = dumped.path.file_name().unwrap().to_str().unwrap().to_owned();
            found = Some((name, usize::try_from(dumped.position).unwrap(), holds));
            ControlFlow::Break(())
        })?;
        Ok(found.unwrap())
    }

    fn damage(&mut self, offset: u64) {
        // The one call that fails may be here.
        let found = self.find(offset).or_else(|_| self.find(offset));
        let (name, position, holds) = found.unwrap();
        assert!(self.bases().last().is_none_or(|active| holds.end <= *active), "{offset} is not sealed");
        self.disk.damage(&name, |bytes| bytes[position + 30] ^= 1);
        for state in &mut self.allowed {
            state.records.retain(|offset, _| !holds.contains(offset));
            state.damaged.extend(holds.clone().filter(|offset| state.range.contains(offset)));
        }
    }

    /// The part of the range that the other replicas have.
    fn fetch(&self, (from, to): (Offset, Offset)) -> Vec<Excerpt> {
        let mut excerpts: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut next = None;
        for (offset, frame) in self.frames.range(from.0..to.0) {
            match excerpts.last_mut().filter(|_| next == Some(*offset)) {
                Some((_, bytes)) => bytes.extend(frame),
                None => excerpts.push((*offset, frame.clone())),
            }
            next = Some(offset + 1);
        }
        excerpts.into_iter().map(|(from, bytes)| Excerpt::decode(bytes.into(), Offset(from)).unwrap()).collect()
    }

    /// Repairs all that is damaged, as far as the other replicas have it.
    fn repair(&mut self) -> Result<(), Failed> {
        let reader = self.log().reader();
        let mut verifier = reader.verifier();
        while verifier.step(1 << 20).map_err(LogError::from)?.is_some() {}
        for damage in self.log().damaged() {
            let missing = reader.missing(&damage).map_err(LogError::from)?;
            let excerpts: Vec<_> = missing.iter().flat_map(|range| self.fetch(*range)).collect();
            let known: BTreeSet<u64> = missing.iter().flat_map(|(from, to)| from.0..to.0).collect();
            let known: BTreeSet<u64> = known.into_iter().filter(|offset| self.frames.contains_key(offset)).collect();
            let back = known.iter().map(|offset| (*offset, self.whole[offset].clone())).collect();
            if excerpts.is_empty() {
                continue;
            }
            let Some(mut repair) = self.log().repair(&damage, excerpts)? else { continue };
            let stepped = loop {
                match repair.step(3000) {
                    Ok((_, true)) => {}
                    Ok((_, false)) => break repair.finish(),
                    Err(error) => break Err(error),
                }
            };
            match stepped {
                Ok(rewritten) => self.rewritten(rewritten, &Change { back, known, ..Change::default() })?,
                Err(error) => {
                    self.log().forget_rewrite();
                    return Err(Failed::Beside(error));
                }
            }
        }
        Ok(())
    }
}

/// Runs the workload until the machine stops before the operation, if it does.
fn run(seed: u64, stop_at: Option<u64>) -> Run {
    run_of(WORKLOAD, seed, stop_at)
}

fn run_of(workload: &[Step], seed: u64, stop_at: Option<u64>) -> Run {
    let disk = SimDisk::new(seed);
    if let Some(stop) = stop_at {
        disk.stop_at(stop);
    }
    let mut run = Run::new(disk);
    if run.log.is_none() {
        return run;
    }
    for (n, step) in workload.iter().enumerate() {
        let taken = run.take(*step);
        if stop_at.is_some() && taken.is_err() {
            run.log = None;
            break;
        }
        taken.unwrap_or_else(|error| panic!("step {n}, {step:?}: {error:?}"));
        if stop_at.is_none() {
            assert_eq!(state(run.log()), run.now(), "after step {n}, {step:?}");
        }
    }
    run
}

/// After a crash: opens the log, looks at what it holds, does the rest of the work and goes on.
fn check(run: &mut Run, at: &str) {
    let (log, recovered) = Log::open(run.disk.clone(), COMPACTED, ID).unwrap_or_else(|error| panic!("{at}: {error}"));
    assert_eq!(recovered.suspect, None, "{at}: a crash loses nothing that was told");
    let found = state(&log);
    assert!(run.allowed.contains(&found), "{at}: the log holds what it never held, or lacks what was durable");
    assert_eq!((log.tail().end.0, log.durable()), (found.range.end, log.tail()), "{at}");
    assert!(!run.disk.list().unwrap().iter().any(|name| name == ANEW), "{at}: a left-over");
    // It said that this is durable.
    run.disk.crash(2);
    drop(log);
    let (log, recovered) = Log::open(run.disk.clone(), COMPACTED, ID).unwrap();
    assert_eq!((state(&log), recovered.cut_bytes), (found.clone(), 0), "{at}: after a crash of the open log");
    (run.log, run.allowed) = (Some(log), vec![found]);
    for step in [Repair, Commit, Append(&[(1, 9000)]), Append(&[(2, 9000)]), Append(&[(1, 9000)]), Sync, Commit] {
        run.take(step).unwrap_or_else(|error| panic!("{at}: {step:?}: {error:?}"));
    }
    run.take(Compact(0)).unwrap();
    run.take(Reopen).unwrap();
    let (now, frames) = (run.now(), &run.frames);
    assert!(!now.damaged.iter().any(|offset| frames.contains_key(offset)), "{at}: damage is left");
    assert_eq!(state(run.log()), now, "{at}: after the rest");
}

#[test]
fn every_step_does_what_it_says() {
    let run = run(0, None);
    assert!(run.disk.operations() > 200, "{}", run.disk.operations());
}

#[test]
fn at_every_crash_point_the_old_segment_or_the_new_one_is_there() {
    let operations = run(0, None).disk.operations();
    for stop in 0..operations {
        let stopped = run(stop, Some(stop));
        for seed in 0..4 {
            let mut run = stopped.fork();
            // Only the process stops, or the machine does.
            if seed < 2 {
                run.disk.kill();
            } else {
                run.disk.crash(seed);
            }
            // The machine stops while the log recovers.
            if seed % 2 == 1 {
                run.disk.stop_at(run.disk.operations() + (seed + stop) % 9);
                let recovering = Log::open(run.disk.clone(), COMPACTED, ID);
                run.disk.crash(seed + stop);
                drop(recovering);
            }
            check(&mut run, &format!("stopped before operation {stop}, seed {seed}"));
        }
    }
}

/// So many possibilities of one crash point are looked at one by one.
const POSSIBILITIES_MAX: usize = 12;

#[test]
fn whatever_a_crash_leaves_of_what_was_not_synced_the_log_holds_what_was_durable() {
    let operations = run(0, None).disk.operations();
    let mut looked_at = 0;
    for stop in 0..=operations {
        let stopped = run(0, Some(stop));
        // Nothing rests on an index.
        let names = stopped.disk.list().unwrap();
        names.iter().filter(|name| name.ends_with(".index")).for_each(|name| stopped.disk.damage(name, |_| {}));
        let mut every = Every::default();
        for _ in 0..POSSIBILITIES_MAX {
            let mut run = stopped.fork();
            run.disk.crash_by(&mut every);
            check(&mut run, &format!("stopped before operation {stop}, {every:?}"));
            looked_at += 1;
            if !every.go_on() {
                break;
            }
        }
    }
    assert!(looked_at > 1500, "{looked_at}");
}

/// The newest record of each key, unless it deletes the key, and all without one.
fn newest(state: &State) -> BTreeMap<u64, Record> {
    let outdated = state.outdated(state.range.end, u64::MAX);
    state.records.iter().filter(|(at, _)| !outdated.contains(*at)).map(|(at, record)| (*at, record.clone())).collect()
}

/// Checks that a failure leaves what was there before the step or after it. Reads go on; a failed write or sync poisons until the log is
/// opened again, and nothing else does.
fn after_failure(run: &mut Run, failed: Failed, kind: ErrorKind, at: &str) {
    let was_closed = run.log.is_none();
    let poison = match failed {
        Failed::Log(LogError::Disk(error)) => {
            let full = kind == ErrorKind::StorageFull;
            let was_written = matches!(error.operation, Operation::Write | Operation::Sync);
            assert!(!full || was_written, "{at}: a full disk poisons: {error}");
            Some(error)
        }
        Failed::Log(LogError::NoRoom(error)) => {
            assert_eq!(error.source.kind(), kind, "{at}: {error}");
            None
        }
        Failed::Log(LogError::Read(ReadError::Disk(_)))
        | Failed::Beside(RewriteError::Read(ReadError::Disk(_)))
        | Failed::Open(OpenError::Disk(_)) => None,
        other => panic!("{at}: {other:?}"),
    };
    if run.log.is_none() {
        // It was being closed, or opened.
        run.disk.kill();
        run.log = Some(Log::open(run.disk.clone(), COMPACTED, ID).unwrap().0);
    }
    let found = state(run.log());
    assert!(run.allowed.contains(&found), "{at}: the open log holds something else");
    let Some(error) = poison.filter(|_| !was_closed) else {
        assert!(run.disk.content(ANEW).is_none(), "{at}: a left-over");
        run.log().write_commit().unwrap_or_else(|error| panic!("{at}: {error}"));
        run.allowed = vec![found];
        return;
    };
    let log = run.log();
    let poisoned = |result: Result<(), LogError>| assert!(matches!(result, Err(LogError::Poisoned { .. })), "{at}");
    poisoned(log.append(&batch(log.tail(), &[(1, 1)])).map(|_| ()));
    poisoned(log.sync().map(|_| ()));
    poisoned(log.trim(log.log_start().plus(1)).map(|_| ()));
    poisoned(log.reset(&origin(1000, 100)));
    assert!(log.compaction(Aged::unknown()).is_none(), "{at}: {error}");
    // While it is opened again, a few of the calls fail.
    for next in [at.len() as u64 % 5, 8, 17, 30] {
        run.log = None;
        run.disk.kill();
        run.disk.fail_call_at(run.disk.calls() + next, kind);
        run.log = Log::open(run.disk.clone(), COMPACTED, ID).ok().map(|(log, _)| log);
    }
    run.log = None;
    run.disk.kill();
    let (log, recovered) = Log::open(run.disk.clone(), COMPACTED, ID).unwrap_or_else(|error| panic!("{at}: {error}"));
    assert_eq!(recovered.suspect, None, "{at}");
    let found = state(&log);
    assert!(run.allowed.contains(&found), "{at}: the log holds what it never held, or lacks what it had");
    (run.log, run.allowed) = (Some(log), vec![found]);
}

fn fail_everywhere(kind: ErrorKind) {
    // Checked after every step, and then without these calls.
    let held = run_of(SHORT, 0, None).now();
    let calls = run_of(SHORT, 0, Some(u64::MAX)).disk.calls();
    let (mut poisoned, mut lost) = (0, 0);
    'calls: for call in 0..calls {
        let disk = SimDisk::new(0);
        disk.fail_call_at(call, kind);
        let mut run = Run::new(disk);
        if run.log.is_none() {
            run.disk.kill();
            run.log = Some(Log::open(run.disk.clone(), COMPACTED, ID).unwrap().0);
        }
        for (n, step) in SHORT.iter().enumerate() {
            let before = run.now();
            let Err(failed) = run.take(*step) else { continue };
            let at = format!("{kind} at call {call}, step {n}, {step:?}");
            poisoned += u64::from(matches!(failed, Failed::Log(LogError::Disk(_))));
            after_failure(&mut run, failed, kind, &at);
            // A failed sync has lost what was not synced before: it was not acknowledged, and the later steps build on it.
            let floor = if let Cut(_, end) = step { *end } else { before.range.end };
            let takes_epochs = matches!(step, Cut(..) | Trim(_) | Reset(..));
            let (now, epochs) = (run.now(), before.epochs.len());
            if now.range.end < floor || (now.epochs.len() < epochs && !takes_epochs) {
                lost += 1;
                run.disk.crash(call);
                check(&mut run, &at);
                continue 'calls;
            }
            // An append that was not taken back is not to be made twice.
            let is_done = matches!(step, Append(_) | Start(_)) && run.now() != before;
            if !is_done {
                run.take(*step).unwrap_or_else(|error| panic!("{at}: again: {error:?}"));
            }
        }
        let at = format!("{kind} at call {call}");
        let found = state(run.log());
        assert_eq!(found, run.now(), "{at}");
        // Where its segments begin may differ, and so what is compacted.
        assert_eq!((found.range.clone(), newest(&found)), (held.range.clone(), newest(&held)), "{at}: in the end");
        run.disk.crash(call);
        check(&mut run, &at);
    }
    assert!(poisoned > 30 && lost * 3 < poisoned, "{poisoned}, {lost}");
}

#[test]
fn whichever_call_fails_reads_go_on_and_what_was_not_done_is_done_once_the_log_is_opened_again() {
    fail_everywhere(ErrorKind::Other);
}

#[test]
fn whichever_call_finds_the_disk_full_nothing_is_lost_and_what_was_not_done_is_done_again() {
    fail_everywhere(ErrorKind::StorageFull);
}

#[test]
fn whatever_a_crash_leaves_after_a_failure_is_what_the_log_held() {
    let calls = run_of(SHORT, 0, Some(u64::MAX)).disk.calls();
    for call in 0..calls {
        let disk = SimDisk::new(call);
        disk.fail_call_at(call, if call % 2 == 0 { ErrorKind::Other } else { ErrorKind::StorageFull });
        let mut run = Run::new(disk);
        let mut steps = SHORT.iter();
        while run.log.is_some() {
            let Some(step) = steps.next() else { break };
            if run.take(*step).is_err() {
                run.log = None;
            }
        }
        run.disk.crash(call);
        check(&mut run, &format!("failed at call {call}"));
    }
}
