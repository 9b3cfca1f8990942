//! The log: one writer appends, syncs and promises; readers read along. Appending is in `append`, cutting in `cut`, trimming in `trim`, leaving a cluster in `detach`, opening in `recovery`.

pub(crate) mod append;
pub(crate) mod cut;
pub(crate) mod detach;
pub(crate) mod former;
pub(crate) mod recycle;
pub(crate) mod roll;
pub(crate) mod shared;
pub(crate) mod sync;
pub(crate) mod trim;
pub(crate) mod writer;

use std::sync::{Arc, PoisonError, RwLock};

use zue_core::{ClusterId, Epoch, History, Offset, Producers, ReplicaId, Runs, Tail};

use crate::config::{Durability, LogConfig};
use crate::disk::Disk;
use crate::error::{Damage, DiskError, LogError, Operation};
use crate::log::writer::Writer;
use crate::meta::{Meta, MetaFile, NotReplaced, Synced};
use crate::read::read_view::ReadView;
use crate::read::reader::{Reader, Shared};
use crate::segment::preallocate::Spare;

/// An open log. It has one writer, this; any number of [`Reader`]s.
#[derive(Debug)]
pub struct Log<D: Disk> {
    pub(crate) disk: D,
    pub(crate) config: LogConfig,
    pub(crate) meta: Meta,
    pub(crate) meta_file: MetaFile<D>,
    pub(crate) shared: Shared<D>,
    /// The newest view, which `shared` shows to readers.
    pub(crate) view: Arc<ReadView<D>>,
    pub(crate) writer: Writer<D::File>,
    pub(crate) ends: Ends,
    /// The appends of the producers, up to the tail.
    pub(crate) producers: Producers,
    pub(crate) beside: Beside<D::File>,
    /// The failure, once a write or sync has.
    pub(crate) poison: Option<(Operation, std::path::PathBuf)>,
    pub(crate) _lock: D::Lock,
}

/// Files and work beside the segments.
#[derive(Debug)]
pub(crate) struct Beside<F> {
    /// A file for the next segment.
    pub(crate) spare: Option<Spare<F>>,
    /// One is being made.
    pub(crate) preparing: bool,
    /// A segment may be being written anew: there is one such file at most.
    pub(crate) compacting: bool,
    /// The newest former log whose files are there.
    pub(crate) former: Option<u64>,
    /// The number of cuts since the log was opened.
    pub(crate) cuts: u64,
}

impl<F> Default for Beside<F> {
    fn default() -> Self {
        Self { spare: None, preparing: false, compacting: false, former: None, cuts: 0 }
    }
}

/// The ends of the log. Invariant: `synced <= durable <= tail`, and `meta.commit_end <= synced.end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) tail: Tail,
    pub(crate) durable: Tail,
    /// Like `durable`, but on the disk whatever the durability.
    pub(crate) synced: Tail,
    /// As last noted: may be beyond the durable end, as a leader may commit before its own sync.
    pub(crate) commit_end: Offset,
    pub(crate) timestamp_ms: u64,
}

impl Ends {
    /// Holds the invariant.
    pub(crate) fn check(&self) {
        assert!(self.synced <= self.durable, "more is on the disk than counts as durable");
        assert!(self.durable <= self.tail, "more counts as durable than there is");
    }
}

impl<D: Disk> Log<D> {
    /// Holds what is true between two changes: readers, the writer, the ends and the meta file tell of the same log.
    pub(crate) fn check(&self) {
        self.ends.check();
        let (tail, active) = (self.ends.tail, self.view.active_part());
        self.writer.check(&active);
        assert_eq!(self.view.tail(), tail, "readers see another tail than the writer");
        debug_assert!(
            self.view.history.last().is_none_or(|last| last.start <= tail.end),
            "an epoch starts behind the log"
        );
        debug_assert!(self.meta.log_start <= self.view.log_start, "readers see what is trimmed on the disk");
        debug_assert!(self.meta.commit_end <= self.ends.synced.end, "what is called committed is not on the disk");
        debug_assert!(self.meta.synced.sequence <= self.writer.sequence, "the meta file tells of a segment to come");
        let is_written = self.ends.synced < tail || self.writer.synced == self.writer.position;
        debug_assert!(is_written, "the log is on the disk, and not all bytes of its segment");
    }
}

impl<D: Disk> Log<D> {
    /// The replica's knowledge of itself, as it is on the disk.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The end of the log: after what was appended last, durable or not.
    pub fn tail(&self) -> Tail {
        self.ends.tail
    }

    /// The end of its durable part.
    pub fn durable(&self) -> Tail {
        self.ends.durable
    }

    /// Its epoch starts.
    pub fn history(&self) -> &History {
        &self.view.history
    }

    /// The last record's timestamp, ms since the Unix epoch; 0 before the first. The next is not to be less.
    pub fn last_timestamp_ms(&self) -> u64 {
        self.ends.timestamp_ms
    }

    /// The appends of the producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// When what is appended counts as durable.
    pub fn durability(&self) -> Durability {
        self.config.durability
    }

    /// As [`Reader::damaged`].
    pub fn damaged(&self) -> Vec<Damage> {
        self.reader().damaged()
    }

    /// A reader of this log.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Promises the epoch, and binds it to a leader once that is known; names the cluster once that is known. Durable on return,
    /// with what was noted as committed.
    ///
    /// # Errors
    /// When a greater epoch was promised, or this one to another leader, or the replica is of another cluster.
    pub fn set_promise(
        &mut self,
        epoch: Epoch,
        leader: Option<ReplicaId>,
        cluster: Option<ClusterId>,
    ) -> Result<(), LogError> {
        self.check_poison()?;
        let is_of_it = self.meta.promise.binds(self.meta.replica, self.history().last());
        let is_bound = is_of_it || self.meta.suspect.is_some();
        let bound = self.meta.cluster.filter(|_| is_bound);
        let meta = Meta { cluster: bound, ..self.meta }.promise(epoch, leader, cluster)?;
        debug_assert_eq!(meta.promise.epoch, epoch, "another epoch is promised than was asked for");
        if meta == self.meta { Ok(()) } else { self.replace_meta(&meta) }
    }

    /// Notes which starts of replicas are known. Durable on return.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_runs(&mut self, runs: &Runs) -> Result<(), LogError> {
        self.check_poison()?;
        let meta = self.meta.with_runs(runs);
        if meta == self.meta { Ok(()) } else { self.replace_meta(&meta) }
    }

    /// Notes that this disk was restored from a copy. Durable on return.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_restored(&mut self) -> Result<(), LogError> {
        self.check_poison()?;
        self.replace_meta(&Meta { restored: true, ..self.meta })
    }

    /// Notes that everything before `end` is committed: it is never cut. Written down by [`Log::write_commit`], and with the next
    /// promise, segment or close.
    pub fn note_commit(&mut self, end: Offset) {
        self.ends.commit_end = self.ends.commit_end.max(end);
    }

    /// Writes down what is committed and durable, if more is than was written down. Without room the old figure stays.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_commit(&mut self) -> Result<(), LogError> {
        self.check_poison()?;
        if self.ends.commit_end.min(self.ends.synced.end) <= self.meta.commit_end {
            return Ok(());
        }
        let meta = self.meta;
        match self.replace_meta(&meta) {
            Err(LogError::NoRoom(_)) => Ok(()),
            replaced => replaced,
        }
    }

    /// Closes the log cleanly: all of it is durable, and the next open knows where it ended.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(mut self) -> Result<Meta, LogError> {
        self.check_poison()?;
        self.sync_disk()?;
        self.writer.index.write_all();
        assert_eq!(self.ends.synced, self.ends.tail, "a log is closed that is not all on the disk");
        let mut meta = self.meta;
        meta.last_use.clean = true;
        self.replace_meta(&meta)?;
        self.check();
        debug_assert_eq!(self.meta.synced.tail, self.ends.tail, "the next open does not know where the log ended");
        Ok(self.meta)
    }

    pub(crate) fn check_poison(&self) -> Result<(), LogError> {
        match &self.poison {
            None => Ok(()),
            Some((operation, path)) => Err(LogError::Poisoned { operation: *operation, path: path.clone() }),
        }
    }

    /// Poisons the log if the disk has failed. A full one has not.
    pub(crate) fn disk_result<T>(&mut self, result: Result<T, DiskError>) -> Result<T, LogError> {
        result.map_err(|error| {
            if error.is_no_room_for_name() {
                return LogError::NoRoom(error);
            }
            self.poison = Some((error.operation, error.path.clone()));
            LogError::Disk(error)
        })
    }

    pub(crate) fn replace_meta(&mut self, meta: &Meta) -> Result<(), LogError> {
        let commit_end = meta.commit_end.max(self.ends.commit_end.min(self.ends.synced.end));
        let synced = Synced { sequence: self.writer.sequence, tail: self.ends.synced };
        let suspect = meta.suspect.filter(|suspect| *suspect > synced.tail);
        let meta = Meta { commit_end, suspect, synced, ..*meta };
        assert_eq!(meta.replica, self.meta.replica, "the meta file is of another replica");
        assert!(meta.commit_end <= synced.tail.end, "what is not on the disk is called committed");
        assert!(meta.promise.epoch >= self.meta.promise.epoch, "the promise fell");
        assert!(meta.commit_end >= self.meta.commit_end, "the commit end fell");
        assert!(meta.log_start <= meta.commit_end, "the log starts behind what is committed");
        assert!(meta.starts.count >= self.meta.starts.count, "the number of starts fell");
        assert!(self.meta.restored <= meta.restored, "a disk that was put back is taken for another");
        self.write_meta(&meta)
    }

    /// Puts a meta file in the place of the present one. Only a log that leaves its cluster becomes another replica's by it.
    pub(crate) fn write_meta(&mut self, meta: &Meta) -> Result<(), LogError> {
        match self.meta_file.replace(meta) {
            Ok(()) => {}
            Err(NotReplaced::NoRoom(error)) => return Err(LogError::NoRoom(error)),
            Err(NotReplaced::Disk(error)) => return self.disk_result(Err(error)),
        }
        self.meta = *meta;
        Ok(())
    }

    pub(crate) fn show(&mut self, view: ReadView<D>) {
        assert!(view.oldest() <= view.log_start, "readers see a log that starts before its segments");
        assert!(view.log_start <= view.tail().end, "readers see a log that starts behind its end");
        view.check();
        self.view = Arc::new(view);
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.view);
    }
}

/// A shared place for the view.
pub(crate) fn share<D: Disk>(view: &Arc<ReadView<D>>) -> Shared<D> {
    Arc::new(RwLock::new(Arc::clone(view)))
}
