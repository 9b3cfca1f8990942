//! The disk of a machine and the real log on it. The disk outlives the log, and forgets what was not synced.

mod copies;
mod flips;
mod forgotten;
mod reads;
mod rewrites;

use std::io::ErrorKind;
use std::sync::Arc;

use zue_core::{
    History, KnownStarts, Lineage, Offset, Origin, ProducerLimits, Promise, Recovered, ReplicaId, Runs, Tail,
};
use zue_engine::disk_queue::apply_first;
use zue_engine::room::make_room;
use zue_log::sim::SimDisk;
use zue_log::{CompactionConfig, Durability, Log, LogConfig, LogError, ReadError, SEGMENT_BYTES_MIN};

use crate::batch::{Batch, Held};
use crate::node::standby::Standby;

/// Work for the disk.
pub(crate) type Work = zue_engine::disk_queue::Work<Batch>;

/// Why work was not done.
#[derive(Debug)]
pub(crate) enum WorkError {
    /// The disk was made to fail, or to stop.
    Disk,
    /// There is no room now; nothing has changed.
    Full,
    /// The disk is damaged, and the log says so: only an empty one helps.
    Unusable,
    /// The log should have been able to.
    Wrong(String),
}

/// The findings when the log is opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) recovered: Recovered,
    pub(crate) records: Held,
    /// Records that were compacted away.
    pub(crate) gone: Vec<Offset>,
    pub(crate) last_ms: u64,
}

/// The bits that were flipped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Harm {
    /// Any: what is read may be an error, never another record.
    pub(crate) any: bool,
    /// One of the meta file, which is read only when the log is opened.
    pub(crate) in_meta: bool,
    /// The log knows of all of them.
    pub(crate) known: bool,
}

/// The disk's earlier content, after so many starts.
pub(crate) struct DiskCopy {
    disk: SimDisk,
    records: Held,
    began_anew: Option<Tail>,
    starts: u64,
    harm: Harm,
    standby: Option<Arc<Standby>>,
}

/// A bit that flips once so many further syncs have told where the log ended. Before that the damage looks like a torn write.
#[derive(Debug)]
pub(crate) struct Flip {
    name: String,
    /// Of another file of that name, nothing flips.
    head: Vec<u8>,
    position: usize,
    mask: u8,
    syncs: u32,
}

impl Flip {
    pub(crate) fn synced(&mut self) {
        self.syncs = self.syncs.saturating_sub(1);
    }
}

/// The disk's content before a promise.
pub(crate) struct Unpromised {
    disk: SimDisk,
    promise: Promise,
}

/// The tail that must be there after a crash.
#[derive(Debug, Default)]
pub(crate) struct Must {
    pub(crate) synced: Tail,
    pub(crate) promise: Promise,
    /// The offset at which the log must begin at least.
    pub(crate) trimmed: Offset,
    /// The starts that are written down: its own last one, and those of others.
    pub(crate) lineage: Lineage,
    pub(crate) runs: Runs,
}

/// The disk as it was, for one that is put back.
#[derive(Default)]
pub(crate) struct Former {
    copy: Option<DiskCopy>,
    /// The disk before the last promises, if nothing else was written since.
    unpromised: Option<Unpromised>,
    pub(crate) keeps_unpromised: bool,
    /// The disk is such a copy.
    restored: bool,
}

/// A machine's disk and the log that is open on it.
pub(crate) struct Storage {
    id: ReplicaId,
    pub(crate) disk: SimDisk,
    pub(crate) durability: Durability,
    pub(crate) log: Option<Log<SimDisk>>,
    pub(crate) must: Must,
    /// The records of the log, synced or not, whatever befalls the disk.
    pub(crate) records: Held,
    /// The log began anew, or not: the disk failed meanwhile.
    pub(crate) began_anew: Option<Tail>,
    pub(crate) flip: Option<Flip>,
    pub(crate) harm: Harm,
    pub(crate) former: Former,
    /// True if what is trimmed stays until its room is needed, or it is dropped.
    pub(crate) keeps_trimmed: bool,
    /// By what the node stands by, in a file of its own.
    pub(crate) standby: Option<Arc<Standby>>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("id", &self.id).field("synced", &self.must.synced).finish_non_exhaustive()
    }
}

impl Storage {
    pub(crate) fn new(id: ReplicaId, seed: u64) -> Self {
        Self {
            id,
            disk: SimDisk::new(seed),
            durability: Durability::Sync,
            log: None,
            must: Must::default(),
            records: Held::default(),
            began_anew: None,
            flip: None,
            harm: Harm::default(),
            former: Former::default(),
            keeps_trimmed: false,
            standby: None,
        }
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.id
    }

    pub(crate) fn log(&self) -> &Log<SimDisk> {
        self.log.as_ref().expect("a process that runs has its log open")
    }

    /// The tail of what is written.
    pub(crate) fn tail(&self) -> Tail {
        self.log().tail()
    }

    /// The tail that would be left if the machine stopped now, and the promise.
    pub(crate) fn synced(&self) -> (Tail, Promise) {
        (self.must.synced, self.must.promise)
    }

    /// The next change of the disk but `after` fails; or the machine stops there.
    pub(crate) fn fail_soon(&self, after: u64, stops: bool) {
        let at = self.disk.operations() + after;
        if stops { self.disk.stop_at(at) } else { self.disk.fail_at(at, ErrorKind::Other) }
    }

    /// Leaves only so much room on the disk; any amount for `None`.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.disk.set_room(room);
    }

    pub(crate) fn write(&mut self, work: &Work) -> Result<(), WorkError> {
        self.write_first(std::iter::once(work)).map(drop)
    }

    /// Does the first of the works, and those behind it that go into the same write; says how many that are.
    pub(crate) fn write_first<'a>(
        &mut self,
        works: impl Iterator<Item = &'a Work> + Clone,
    ) -> Result<usize, WorkError> {
        loop {
            match self.try_write(works.clone()) {
                Err(WorkError::Full) if self.disk.has_stopped() => return Err(WorkError::Disk),
                Err(WorkError::Full) if make_room(self).map_err(work_error)?.is_some() => {}
                written => return written,
            }
        }
    }

    fn try_write<'a>(&mut self, works: impl Iterator<Item = &'a Work> + Clone) -> Result<usize, WorkError> {
        let Some(work) = works.clone().next() else { return Ok(0) };
        self.note_unpromised(work);
        let Some(log) = &mut self.log else { return Err(WorkError::Disk) };
        if let Work::Cut(to) = work {
            // Should the disk stop here, it may have been made or not.
            self.must.synced = self.must.synced.min(*to);
        }
        let done = apply_first(works.clone(), log).map_err(work_error);
        let has_room = !matches!(done, Err(WorkError::Full));
        // A part of what could not be written whole may be found later.
        for written in works.take(done.as_ref().map_or(usize::MAX, |count| *count)) {
            let Work::Write(batch) = written else { break };
            if has_room {
                self.records.extend(batch.records());
            }
        }
        if let Work::Reset(origin) = work {
            self.began_anew = has_room.then_some(origin.tail());
        }
        let count = done?;
        match work {
            Work::Cut(to) => {
                self.records.truncate(to.end);
                self.flip = None;
            }
            Work::Trim(before) if !self.keeps_trimmed => {
                log.drop_trimmed(*before, usize::MAX).map_err(work_error)?;
            }
            Work::Reset(origin) => {
                self.begin_anew(origin.tail());
                self.flip = None;
            }
            _ => {}
        }
        self.note_synced();
        Ok(count)
    }

    pub(crate) fn sync(&mut self) -> Result<(), WorkError> {
        let Some(log) = &mut self.log else { return Err(WorkError::Disk) };
        log.sync().map_err(work_error)?;
        let before = self.must.synced;
        self.note_synced();
        if let Some(flip) = self.flip.as_mut().filter(|_| before < self.must.synced) {
            flip.synced();
        }
        Ok(())
    }

    pub(crate) fn note_synced(&mut self) {
        let zue_log::Promise { epoch, leader } = self.log().meta().promise;
        (self.must.synced, self.must.promise) = (self.log().durable(), Promise { epoch, leader });
        (self.must.lineage, self.must.runs) = (self.log().meta().lineage(), self.log().meta().runs());
        self.must.trimmed = self.log().log_start();
    }

    fn begin_anew(&mut self, tail: Tail) {
        (self.records, self.must.synced, self.began_anew) = (Held::at(tail.end), tail, None);
    }

    /// The offset at which the log begins, durably.
    pub(crate) fn log_start(&self) -> Offset {
        self.must.trimmed
    }

    /// The epoch starts in the log, and the first offset that can still be replicated.
    pub(crate) fn held(&self) -> (History, Offset) {
        let (history, oldest) = self.log().reader().held();
        (History::clone(&history), oldest)
    }

    /// The origin for a follower that cannot be fed otherwise.
    pub(crate) fn origin(&self, limits: ProducerLimits) -> Result<Origin, ReadError> {
        self.log().reader().origin(limits)
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

    /// Opens the log: what a replica finds.
    pub(crate) fn open(
        &mut self,
        limits: ProducerLimits,
        compaction: Option<CompactionConfig>,
    ) -> Result<Opened, WorkError> {
        let config = LogConfig {
            segment_bytes_max: SEGMENT_BYTES_MIN,
            index_interval_bytes: 256,
            durability: self.durability,
            producers: limits,
            compaction,
        };
        let opened = Log::open(self.disk.clone(), config, self.id);
        let (log, found) = opened.map_err(|error| match error {
            zue_log::OpenError::Disk(_) => WorkError::Disk,
            _ if self.harm.any => WorkError::Unusable,
            error => WorkError::Wrong(format!("{:?} does not open: {error}", self.id)),
        })?;
        let zue_log::Meta { replica, cluster, commit_end, restored, .. } = *log.meta();
        let zue_log::Promise { epoch, leader } = log.meta().promise;
        let (tail, history, last_ms) = (log.tail(), log.history().clone(), log.last_timestamp_ms());
        let (producers, damaged) = (log.producers().clone(), !log.damaged().is_empty());
        let (log_start, oldest) = (log.log_start(), log.reader().held().1);
        self.log = Some(log);
        if let Some(anew) = self.began_anew.take()
            && (tail, oldest) == (anew, anew.end)
        {
            self.begin_anew(anew);
        }
        // What was synced is there, or is known to be missing.
        let found_tail = found.suspect.map_or(tail, |suspect| suspect.max(tail));
        let lost = found_tail < self.must.synced || epoch < self.must.promise.epoch || replica != self.id;
        if lost || log_start < self.must.trimmed {
            let (synced, promise, trimmed) = (self.must.synced, self.must.promise, self.must.trimmed);
            return Err(WorkError::Wrong(format!(
                "{:?} had synced {synced} and {promise:?}, trimmed to {trimmed}, and finds {tail} and {epoch} from {log_start} ({replica:?})",
                self.id
            )));
        }
        self.note_synced();
        self.records.truncate(tail.end);
        let gone = self.compare(limits)?;
        (self.harm.in_meta, self.harm.known) = (false, false);
        let promise = Promise { epoch, leader };
        let recovered = Recovered {
            id: replica,
            cluster,
            promise,
            history,
            log: tail,
            commit_end,
            log_start,
            producers,
            suspect: found.suspect,
            damaged,
            starts: KnownStarts { lineage: self.must.lineage.clone(), runs: self.must.runs.clone() },
            restored,
        };
        Ok(Opened { recovered, records: self.records.clone(), gone, last_ms })
    }
}

pub(crate) fn work_error(error: LogError) -> WorkError {
    match error {
        LogError::Poisoned { .. } | LogError::Disk(_) => WorkError::Disk,
        LogError::NoRoom { .. } => WorkError::Full,
        error => WorkError::Wrong(error.to_string()),
    }
}
