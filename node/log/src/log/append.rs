//! Appending: batches that follow the tail are written where the last write ended, small ones together.

use std::iter::once;
use std::sync::Arc;

use zue_core::{History, Tail};

use crate::config::RESERVE_BYTES;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, LogError, Operation};
use crate::format::batch::Batch;
use crate::format::encode::SYNC_MARK_BYTES;
use crate::log::Log;
use crate::num::wide;
use crate::read::read_view::ReadView;
use crate::segment::part::Part;

/// The bytes up to which batches are written together.
const WRITE_BYTES_MAX: usize = 64 << 10;

impl<D: Disk> Log<D> {
    /// Appends the batch, whole or not at all. It can be read at once and is durable after [`Log::sync`].
    ///
    /// # Errors
    /// When the batch does not follow the tail, there is no room for a further segment, or the disk refuses.
    pub fn append(&mut self, batch: &Batch) -> Result<Tail, LogError> {
        self.append_first(once(batch))?;
        Ok(self.ends.tail)
    }

    /// Appends the first of the batches as [`Log::append`] does, and with the same write those behind it that follow, up to 64 KiB
    /// and as far as the segment has room for them. Returns how many.
    ///
    /// # Errors
    /// As [`Log::append`], for the first batch.
    pub fn append_first<'a>(&mut self, batches: impl Iterator<Item = &'a Batch> + Clone) -> Result<usize, LogError> {
        self.check_poison()?;
        let Some(first) = batches.clone().next() else { return Ok(0) };
        self.check_next(first)?;
        if !self.fits(first, 0) {
            self.roll(wide(first.bytes().len() + SYNC_MARK_BYTES))?;
            assert!(self.fits(first, 0), "an append has no room in the segment that was made for it");
        }
        let segment = Arc::clone(&self.view.active);
        self.writer.mark(segment.mask, self.ends.synced);
        self.writer.add(first, segment.mask);
        let (mut count, mut last) = (1, first);
        for next in batches.clone().skip(1) {
            let behind = self.writer.buffer.len();
            let joins = behind + next.bytes().len() <= WRITE_BYTES_MAX && follows(last, next);
            if !joins || !self.fits(next, behind) {
                break;
            }
            self.writer.add(next, segment.mask);
            (count, last) = (count + 1, next);
        }
        let written = segment.file.write_at(self.writer.position, &self.writer.buffer);
        self.disk_result(written.context(Operation::Write, || segment.place.path.clone()))?;
        self.writer.position += wide(self.writer.buffer.len());
        assert!(self.writer.position <= segment.file_bytes, "an append reaches behind its segment");
        segment.extend_index(&self.writer.entries);
        self.writer.index.extend(&self.writer.entries);
        batches.take(count).for_each(|batch| self.appended(batch));
        if first.epoch_starts().is_empty() {
            self.view.grow(self.writer.position, last.tail().end);
        } else {
            let mut history = History::clone(&self.view.history);
            for start in first.epoch_starts() {
                history.push(start.clone()).expect("a batch that follows the tail continues its history");
            }
            let active = Part { segment, bytes_end: self.writer.position, end: last.tail().end };
            self.show(ReadView::new(Arc::clone(&self.view.sealed), active, Arc::new(history), self.view.log_start));
        }
        self.check();
        Ok(count)
    }

    /// Returns whether batches of so many bytes that hold records alone are appended and acknowledged by a copy into the system's memory: no
    /// file is made and no sync is waited for.
    pub fn only_copies(&self, bytes: usize) -> bool {
        let waits = self.config.durability.waits_for_disk() || self.ends.synced.epoch < self.ends.tail.epoch;
        // One mark that is to be written, and one that is counted for each batch.
        !waits && self.has_room(bytes.saturating_add(2 * SYNC_MARK_BYTES), RESERVE_BYTES)
    }

    fn check_next(&self, batch: &Batch) -> Result<(), LogError> {
        let log = &self.ends;
        if batch.prev() != log.tail {
            return Err(LogError::NotNext { log: log.tail, batch: batch.prev() });
        }
        match batch.timestamps_ms() {
            Some((first, _)) if first < log.timestamp_ms => {
                Err(LogError::TimestampFell { log: log.timestamp_ms, batch: first })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the segment has room for the batch behind so many bytes that are to be written. Epoch starts may use the reserve.
    fn fits(&self, batch: &Batch, behind: usize) -> bool {
        let reserve = if batch.record_count() == 0 { 0 } else { RESERVE_BYTES };
        self.has_room(batch.bytes().len() + SYNC_MARK_BYTES + behind, reserve)
    }

    fn has_room(&self, bytes: usize, reserve: u64) -> bool {
        self.writer.position.saturating_add(wide(bytes)).saturating_add(reserve) <= self.view.active.file_bytes
    }

    /// Notes a batch that was written.
    fn appended(&mut self, batch: &Batch) {
        assert_eq!(batch.prev(), self.ends.tail, "an append follows another place than the log's end");
        assert!(self.ends.tail <= batch.tail(), "an append shortened the log");
        self.ends.tail = batch.tail();
        if let Some((_, last)) = batch.timestamps_ms() {
            self.ends.timestamp_ms = last;
        }
        batch.producers().iter().for_each(|run| self.producers.record(run.appended()));
    }
}

/// Returns whether the next batch may be written with the last: it follows, and both are records alone.
fn follows(last: &Batch, next: &Batch) -> bool {
    let times = last.timestamps_ms().zip(next.timestamps_ms());
    last.tail() == next.prev()
        && last.epoch_starts().is_empty()
        && next.epoch_starts().is_empty()
        && times.is_some_and(|((_, last), (first, _))| last <= first)
}
