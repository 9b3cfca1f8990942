//! The log: one writer appends, syncs and promises; readers read along. Cutting is in `cut`, trimming in `trim`, opening in `open`.

use std::sync::{Arc, PoisonError, RwLock};

use zue_core::{ClusterId, Epoch, History, Offset, Producers, ReplicaId, Runs, Tail};

use crate::batch::Batch;
use crate::config::{Durability, LogConfig, RESERVE_BYTES};
use crate::disk::{Disk, DiskFile};
use crate::encode::{SYNC_MARK_BYTES, mask_crc, put_sync_mark};
use crate::error::{Context, Damage, DiskError, LogError, Operation};
use crate::fill::{Fill, Spare};
use crate::frame::{KIND_RECORD, SyncMark};
use crate::index::{Entry, IndexWriter, Spacing};
use crate::meta::{Meta, MetaFile, NotReplaced, Promise, Synced};
use crate::num::wide;
use crate::reader::{Reader, Shared};
use crate::segment::{Draft, Prev, index_name};
use crate::view::{Part, View, Walk};

/// An open log. It has one writer, this; any number of [`Reader`]s.
#[derive(Debug)]
pub struct Log<D: Disk> {
    pub(crate) disk: D,
    pub(crate) config: LogConfig,
    pub(crate) meta: Meta,
    pub(crate) meta_file: MetaFile<D>,
    pub(crate) shared: Shared<D>,
    /// The newest view, which `shared` shows to readers.
    pub(crate) view: Arc<View<D>>,
    pub(crate) writer: Writer<D::File>,
    pub(crate) ends: Ends,
    /// Who appended what, up to the tail.
    pub(crate) producers: Producers,
    /// A file for the next segment.
    pub(crate) spare: Option<Spare<D::File>>,
    /// One is being made.
    pub(crate) preparing: bool,
    /// A segment may be being written anew: there is one such file at most.
    pub(crate) compacting: bool,
    /// How many cuts there were since the log was opened.
    /// The newest former log whose files are there.
    pub(crate) former: Option<u64>,
    pub(crate) cuts: u64,
    /// What failed, once a write or sync has.
    pub(crate) poison: Option<(Operation, std::path::PathBuf)>,
    pub(crate) _lock: D::Lock,
}

/// Where the next bytes go.
#[derive(Debug)]
pub(crate) struct Writer<F> {
    /// The position in the active segment.
    pub(crate) position: u64,
    /// Everything in front of it is on the disk.
    pub(crate) synced: u64,
    /// Up to where the segment says so itself.
    pub(crate) marked: u64,
    /// The batch as it is written; kept for its memory.
    pub(crate) buffer: Vec<u8>,
    /// The index entries of the batch; kept for their memory.
    pub(crate) entries: Vec<Entry>,
    pub(crate) spacing: Spacing,
    pub(crate) fill: Fill,
    pub(crate) index: IndexWriter<F>,
    /// The sequence of the active segment, the highest there is.
    pub(crate) sequence: u64,
}

/// How far the log has come. Invariant: `synced <= durable <= tail`, and `meta.commit_end <= synced.end`.
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

impl<D: Disk> Log<D> {
    /// What the replica knows of itself, as it is on the disk.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Where the log ends: after what was appended last, durable or not.
    pub fn tail(&self) -> Tail {
        self.ends.tail
    }

    /// Where its durable part ends.
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

    /// Who appended what.
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
        let Promise { epoch: promised, leader: bound_to } = self.meta.promise;
        let before = zue_core::Promise { epoch: promised, leader: bound_to };
        let is_bound = before.binds(self.meta.replica, self.history().last()) || self.meta.suspect.is_some();
        let bound = self.meta.cluster.filter(|_| is_bound);
        let meta = Meta { cluster: bound, ..self.meta }.promise(epoch, leader, cluster)?;
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

    /// Appends the batch, whole or not at all. It can be read at once and is durable after [`Log::sync`].
    ///
    /// # Errors
    /// When the batch does not follow the tail, there is no room for a further segment, or the disk refuses.
    pub fn append(&mut self, batch: &Batch) -> Result<Tail, LogError> {
        self.check_poison()?;
        if batch.prev() != self.ends.tail {
            return Err(LogError::NotNext { log: self.ends.tail, batch: batch.prev() });
        }
        let (first_ms, last_ms) = batch.timestamps_ms().unwrap_or((self.ends.timestamp_ms, self.ends.timestamp_ms));
        if first_ms < self.ends.timestamp_ms {
            return Err(LogError::TimestampFell { log: self.ends.timestamp_ms, batch: first_ms });
        }
        let bytes = wide(batch.bytes().len() + SYNC_MARK_BYTES);
        let reserve = if batch.record_count() == 0 { 0 } else { RESERVE_BYTES };
        if self.writer.position.saturating_add(bytes).saturating_add(reserve) > self.view.active.file_bytes {
            self.roll(bytes)?;
        }
        let segment = Arc::clone(&self.view.active);
        self.writer.fill(batch, segment.mask, self.ends.synced);
        let written = segment.file.write_at(self.writer.position, &self.writer.buffer);
        self.disk_result(written.context(Operation::Write, || segment.place.path.clone()))?;
        self.writer.position += wide(self.writer.buffer.len());
        segment.extend_index(&self.writer.entries);
        self.writer.index.extend(&self.writer.entries);
        self.ends.tail = batch.tail();
        self.ends.timestamp_ms = last_ms;
        batch.producers().iter().for_each(|run| self.producers.record(run.appended()));
        if batch.epoch_starts().is_empty() {
            self.view.grow(self.writer.position, batch.tail().end);
        } else {
            let mut history = History::clone(&self.view.history);
            for start in batch.epoch_starts() {
                history.push(start.clone()).expect("a batch that follows the tail continues its history");
            }
            let active = Part { segment, bytes_end: self.writer.position, end: batch.tail().end };
            self.show(View::new(Arc::clone(&self.view.sealed), active, Arc::new(history), self.view.log_start));
        }
        assert_eq!(self.view.tail(), self.ends.tail, "readers see another tail than the writer");
        Ok(self.ends.tail)
    }

    /// Closes the log cleanly: all of it is durable, and the next open knows where it ended.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(mut self) -> Result<Meta, LogError> {
        self.check_poison()?;
        self.sync_disk()?;
        self.writer.index.write_all();
        let mut meta = self.meta;
        meta.session.clean = true;
        self.replace_meta(&meta)?;
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
        assert!(meta.promise.epoch >= self.meta.promise.epoch, "the promise fell");
        match self.meta_file.replace(&meta) {
            Ok(()) => {}
            Err(NotReplaced::NoRoom(error)) => return Err(LogError::NoRoom(error)),
            Err(NotReplaced::Disk(error)) => return self.disk_result(Err(error)),
        }
        self.meta = meta;
        Ok(())
    }

    pub(crate) fn show(&mut self, view: View<D>) {
        self.view = Arc::new(view);
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.view);
    }

    /// Goes on in a further segment, which has room for `first_bytes`.
    pub(crate) fn roll(&mut self, first_bytes: u64) -> Result<(), LogError> {
        let active = self.view.active_part();
        let draft = self.draft(&active, self.view.history.starts(), self.ends.timestamp_ms, &self.producers);
        let reserved = Draft { first_bytes, ..draft }.reserve(&self.disk, &mut self.spare).map_err(LogError::NoRoom)?;
        // Before the next segment is there, so that only the last one can have a torn tail.
        self.sync_disk()?;
        self.writer.index.write_all();
        let next = reserved.commit(&self.disk, self.config.index_interval_bytes);
        let next = self.disk_result(next)?;
        let history = Arc::clone(&self.view.history);
        self.go_on_in(next, &active, history);
        self.keep_reserve();
        let meta = self.meta;
        match self.replace_meta(&meta) {
            // What is committed is written down another time.
            Err(LogError::NoRoom(_)) => Ok(()),
            replaced => replaced,
        }
    }

    /// A segment that follows the part. If that has no record, the new one takes its place and its name.
    pub(crate) fn draft<'a>(
        &self,
        part: &Part<D>,
        starts: &'a [zue_core::EpochStart],
        timestamp_ms: u64,
        producers: &'a Producers,
    ) -> Draft<'a> {
        let Part { segment, bytes_end, end: base } = part;
        let prev = if segment.base() == *base {
            segment.header.prev
        } else {
            let (sequence, generation) = (segment.header.sequence, segment.header.generation());
            Some(Prev { base: segment.base(), sequence, end: *bytes_end, generation })
        };
        Draft { prev, ..self.draft_at(*base, starts, timestamp_ms, producers) }
    }

    /// A segment with that base, which follows none.
    pub(crate) fn draft_at<'a>(
        &self,
        base: Offset,
        starts: &'a [zue_core::EpochStart],
        timestamp_ms: u64,
        producers: &'a Producers,
    ) -> Draft<'a> {
        let prev = None;
        let (sequence, file_bytes) = (self.writer.sequence + 1, self.config.segment_bytes_max);
        let (first_bytes, zero_bytes, may_be_short) = (0, 0, false);
        Draft {
            sequence,
            base,
            prev,
            starts,
            timestamp_ms,
            producers,
            first_bytes,
            file_bytes,
            may_be_short,
            zero_bytes,
        }
    }

    /// Makes the segment, which is durably in the log, the active one. `last` is what it follows, or what it replaces if that has
    /// the same base.
    pub(crate) fn go_on_in(&mut self, (active, fill): (Part<D>, Fill), last: &Part<D>, history: Arc<History>) {
        let (base, last_base) = (active.segment.base(), last.segment.base());
        let before = self.view.sealed.iter().filter(|part| part.segment.base() < last_base);
        let sealed: Arc<[Part<D>]> = before.chain(Some(last).filter(|_| last_base < base)).cloned().collect();
        self.write_to(&active, fill);
        self.show(View::new(sealed, active, history, self.view.log_start));
    }

    /// Lets the next bytes go to that segment.
    pub(crate) fn write_to(&mut self, active: &Part<D>, fill: Fill) {
        let (segment, data_start) = (&active.segment, active.bytes_end);
        self.view.active.seal_index(&mut self.writer.index);
        (self.writer.position, self.writer.synced, self.writer.marked) = (data_start, data_start, data_start);
        (self.writer.sequence, self.writer.fill) = (segment.header.sequence, fill);
        self.writer.spacing = Spacing::new(self.config.index_interval_bytes, data_start);
        let index_file = self.disk.create(&index_name(segment.base())).ok();
        self.writer.index = IndexWriter::new(index_file, segment.header.nonce, segment.mask, &[]);
    }
}

impl<F> Writer<F> {
    /// Puts the batch into the buffer as it goes to a segment with that mask, and its index entries beside it; in front of it a mark
    /// of what is synced, if more is than was marked.
    fn fill(&mut self, batch: &Batch, mask: u32, synced: Tail) {
        self.buffer.clear();
        self.entries.clear();
        if self.synced > self.marked {
            put_sync_mark(&mut self.buffer, SyncMark { position: self.synced, tail: synced });
            mask_crc(&mut self.buffer, 0, mask);
            self.marked = self.synced;
        }
        let batch_at = self.buffer.len();
        self.buffer.extend_from_slice(batch.bytes());
        let mut walk = Walk::new(batch.bytes());
        while let Some(frame) = walk.frame() {
            let frame_at = batch_at + walk.at;
            mask_crc(&mut self.buffer, frame_at, mask);
            let position = self.position + wide(frame_at);
            if frame.kind == KIND_RECORD && self.spacing.takes(position) {
                self.entries.push(Entry { offset: frame.first_word, position, timestamp_ms: frame.timestamp_ms });
            }
            walk.pass(frame);
        }
    }
}

/// A shared place for the view.
pub(crate) fn share<D: Disk>(view: &Arc<View<D>>) -> Shared<D> {
    Arc::new(RwLock::new(Arc::clone(view)))
}
