//! Making durable what was appended, by this thread or by another beside it; and making room ahead.

use std::sync::Arc;

use zue_core::Tail;

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, LogError, Operation};
use crate::log::Log;
use crate::meta::Meta;
use crate::segment::Segment;
use crate::segment::header::SEGMENT_SPARE;
use crate::segment::preallocate::{Preparation, write_zeroes};

/// A sync that is due: everything before it was written.
#[derive(Debug)]
pub struct SyncPoint<D: Disk> {
    segment: Arc<Segment<D>>,
    position: u64,
    tail: Tail,
    cuts: u64,
}

impl<D: Disk> SyncPoint<D> {
    /// Syncs, unless an earlier sync of the segment has failed. What comes of it is to be given to [`Log::synced`], and is not to be tried again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn run(&self) -> Result<(), DiskError> {
        self.segment.sync()
    }
}

impl<D: Disk> Log<D> {
    /// Makes durable what was appended, as far as the log's durability asks for it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<Tail, LogError> {
        match self.sync_point()? {
            Some(point) => {
                let result = point.run();
                self.synced(&point, result)
            }
            None => Ok(self.ends.durable),
        }
    }

    /// The work of a sync now, so that another thread can do it while this one appends on; `None` if what was appended counts
    /// as durable already, or does now.
    ///
    /// # Errors
    /// When the log is poisoned.
    pub fn sync_point(&mut self) -> Result<Option<SyncPoint<D>>, LogError> {
        // An epoch start is always on the disk before it counts: a machine that stops forgets in which epoch it acknowledged what, else.
        if self.config.durability.waits_for_disk() || self.ends.synced.epoch < self.ends.tail.epoch {
            return self.flush_point();
        }
        self.check_poison()?;
        self.ends.durable = self.ends.tail;
        Ok(None)
    }

    /// The sync that brings all that was appended to the disk, whatever the durability.
    ///
    /// # Errors
    /// When the log is poisoned.
    pub fn flush_point(&mut self) -> Result<Option<SyncPoint<D>>, LogError> {
        self.check_poison()?;
        if self.ends.synced == self.ends.tail {
            return Ok(None);
        }
        let segment = Arc::clone(&self.view.active);
        if let Some(zeroes) = self.writer.preallocation.next(self.writer.position, segment.file_bytes) {
            assert!(self.writer.position <= zeroes.start, "zeroes would be written over records");
            assert!(zeroes.end <= segment.file_bytes, "zeroes would be written behind the segment");
            let filled = write_zeroes(&*segment.file, zeroes.start, zeroes.end);
            self.disk_result(filled.context(Operation::Write, || segment.place.path.clone()))?;
        }
        debug_assert_eq!(segment.header.sequence, self.writer.sequence, "another segment is synced than was written");
        if let Some(range) = self.writer.preallocation.want(self.writer.position) {
            segment.file.will_write(range);
        }
        assert!(self.writer.synced <= self.writer.position, "more is on the disk than was written");
        let (position, tail, cuts) = (self.writer.position, self.ends.tail, self.beside.cuts);
        Ok(Some(SyncPoint { segment, position, tail, cuts }))
    }

    /// Takes note of what came of the point. What was cut meanwhile does not become durable by it.
    ///
    /// # Errors
    /// When the sync failed: the log is poisoned then.
    pub fn synced(&mut self, point: &SyncPoint<D>, result: Result<(), DiskError>) -> Result<Tail, LogError> {
        if result.is_err() {
            self.suspect_what_was_not_synced();
        }
        self.disk_result(result)?;
        self.check_poison()?;
        assert!(point.cuts <= self.beside.cuts, "a sync is of a log to come");
        if point.cuts == self.beside.cuts {
            self.ends.synced = self.ends.synced.max(point.tail);
            self.ends.durable = self.ends.durable.max(point.tail);
            if Arc::ptr_eq(&point.segment, &self.view.active) {
                debug_assert!(point.position <= self.writer.position, "more of a segment is synced than was written");
                self.writer.synced = self.writer.synced.max(point.position);
            }
        }
        self.check();
        self.writer.index.write_some();
        Ok(self.ends.durable)
    }

    /// The preparation of the next segment's file, before it is needed; `None` while it is too early, or under way, or
    /// done, or there is no room.
    pub fn prepare(&mut self) -> Option<Preparation<D>> {
        let early = self.writer.position < self.view.active.file_bytes / 2;
        if early || self.beside.preparing || self.beside.spare.is_some() || self.poison.is_some() {
            return None;
        }
        self.disk.may_hold_another().ok()?;
        let preparation = Preparation::begin(&self.disk, self.config.segment_bytes_max);
        self.beside.preparing = preparation.is_some();
        preparation
    }

    /// Takes what was prepared, or takes note that it failed: then its room is given back.
    pub fn prepared(&mut self, preparation: Option<Preparation<D>>) {
        self.beside.preparing = false;
        if preparation.is_none() {
            let _ = self.disk.remove(SEGMENT_SPARE);
        }
        self.beside.spare = preparation.map(Preparation::finish);
    }

    /// Writes down how much may have been acknowledged that a failed sync has lost. The system drops what it could not write, and
    /// whoever opens the log next, in the same boot, would miss nothing. There is no more to do if the disk refuses this too.
    fn suspect_what_was_not_synced(&mut self) {
        if self.ends.synced < self.ends.durable {
            let suspect = self.meta.suspect.max(Some(self.ends.durable));
            let _ = self.replace_meta(&Meta { suspect, ..self.meta });
        }
    }

    pub(crate) fn sync_disk(&mut self) -> Result<(), LogError> {
        if let Some(point) = self.flush_point()? {
            let result = point.run();
            self.synced(&point, result)?;
        }
        self.ends.durable = self.ends.tail;
        assert_eq!(self.ends.synced, self.ends.tail, "a sync has left something out");
        Ok(())
    }
}
