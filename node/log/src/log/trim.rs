//! Trimming and resetting: the log begins later. Where it begins is written down first; then, at once or some time later, segments of
//! which nothing is left are removed, or their files used again. Readers of what is trimmed go on reading it.

use std::sync::Arc;

use zue_core::{History, Offset, Origin, ProducerLimits, Producers};

use crate::disk::Disk;
use crate::error::{LogError, ReadError};
use crate::format::local::Snapshot;
use crate::log::Log;
use crate::meta::Meta;
use crate::read::read_view::ReadView;
use crate::read::reader::{Reader, read};
use crate::segment::create::Draft;
use crate::segment::part::Part;

impl<D: Disk> Log<D> {
    /// The first offset there is.
    pub fn log_start(&self) -> Offset {
        self.view.log_start
    }

    /// Lets the log begin at that offset, if it begins before it, and removes the segments that hold nothing else: both
    /// [`Log::begin_at`] and [`Log::drop_trimmed`].
    ///
    /// # Errors
    /// As those.
    pub fn trim(&mut self, before: Offset) -> Result<Offset, LogError> {
        let log_start = self.begin_at(before)?;
        self.drop_trimmed(before, usize::MAX)?;
        Ok(log_start)
    }

    /// Lets the log begin at that offset, if it begins before it. Where it begins is durable on return. What lies before is not
    /// read any more. Needs no room on the disk.
    ///
    /// # Errors
    /// When not all before the offset is noted as committed, or the disk refuses.
    pub fn begin_at(&mut self, before: Offset) -> Result<Offset, LogError> {
        self.check_poison()?;
        let (log_start, commit_end) = (self.view.log_start, self.ends.commit_end.min(self.ends.tail.end));
        if before <= log_start {
            return Ok(log_start);
        }
        if before > commit_end {
            return Err(LogError::AboveCommit { before, log_start, commit_end });
        }
        if before > self.ends.synced.end {
            self.sync_disk()?;
        }
        assert!(before <= self.ends.synced.end, "a log begins behind what is on the disk");
        self.replace_meta(&Meta { log_start: before, ..self.meta })?;
        let history = Arc::clone(&self.view.history);
        self.show(ReadView::new(Arc::clone(&self.view.sealed), self.view.active_part(), history, before));
        self.check();
        debug_assert_eq!(self.meta.log_start, before, "what is not read any more is back after a crash");
        Ok(before)
    }

    /// Removes segments, the oldest first and so many at most, that end at or before that offset and hold nothing of the log any
    /// more; gives how many. Needs no room on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn drop_trimmed(&mut self, before: Offset, segments_max: usize) -> Result<usize, LogError> {
        self.check_poison()?;
        let before = before.min(self.view.log_start);
        let active = self.view.active_part();
        let dead = self.view.sealed.iter().take_while(|part| part.end <= before).take(segments_max).count();
        if dead == 0 {
            return Ok(0);
        }
        let sealed = Arc::clone(&self.view.sealed);
        let (gone, kept) = sealed.split_at(dead);
        assert!(
            gone.iter().all(|part| part.end <= self.meta.log_start),
            "a segment goes that is not trimmed on the disk"
        );
        let (gone, kept) = (gone.to_vec(), Arc::<[_]>::from(kept));
        drop(sealed);
        let mut history = Arc::clone(&self.view.history);
        Arc::make_mut(&mut history).trim(kept.first().unwrap_or(&active).segment.base());
        self.show(ReadView::new(kept, active, history, self.view.log_start));
        self.check();
        self.retire(gone)?;
        Ok(dead)
    }

    /// Lets the log begin again with the oldest record whose segment is still there: takes back trims. Durable on return, with where it
    /// begins now. What another replica has been told of a trim, this one will be told again: all of a cluster's have to be taken back
    /// while none runs.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_back_trims(&mut self) -> Result<Offset, LogError> {
        self.check_poison()?;
        let oldest = self.view.oldest();
        if oldest < self.view.log_start {
            self.replace_meta(&Meta { log_start: oldest, ..self.meta })?;
            let history = Arc::clone(&self.view.history);
            self.show(ReadView::new(Arc::clone(&self.view.sealed), self.view.active_part(), history, oldest));
            self.check();
        }
        Ok(oldest)
    }

    /// Forgets the whole log and lets it begin anew, where and with what another's begins. Durable on return; after a crash it is
    /// the old log or the new one. The files of the old one stay beside the new one's, if there is room, see [`Log::drop_former`].
    ///
    /// # Errors
    /// When it would begin before the end of what is committed, when there is no room for a segment, or the disk refuses.
    pub fn reset(&mut self, origin: &Origin) -> Result<(), LogError> {
        self.check_poison()?;
        let Origin { at, history, timestamp_ms, producers } = origin;
        let (at, tail, timestamp_ms) = (*at, origin.tail(), *timestamp_ms);
        if at < self.ends.commit_end {
            return Err(LogError::BelowCommit { end: at, commit_end: self.ends.commit_end });
        }
        if history.last().is_some_and(|last| last.start > at) {
            return Err(LogError::NoSuchPrefix { to: tail, log: tail });
        }
        // It follows none, and so none of the others is in the log once it is.
        let draft =
            Draft { prev: None, may_be_short: true, ..self.draft_at(at, history.starts(), timestamp_ms, producers) };
        let reserved = draft.reserve(&self.disk, &mut self.beside.spare).map_err(LogError::NoRoom)?;
        let is_kept = self.keep_former()?;
        let next = reserved.commit(&self.disk, self.config.index_interval_bytes);
        let (active, preallocation) = self.disk_result(next)?;
        self.producers = producers.clone();
        self.beside.cuts += 1;
        self.write_to(&active, preallocation);
        let mut dead = self.view.parts();
        // The new one has taken its name.
        dead.retain(|part| part.segment.base() != at);
        self.show(ReadView::new(Arc::new([]), active, Arc::new(History::clone(history)), at));
        (self.ends.tail, self.ends.durable, self.ends.synced) = (tail, tail, tail);
        (self.ends.commit_end, self.ends.timestamp_ms) = (at, timestamp_ms);
        assert_eq!(self.view.tail(), tail, "a log has begun anew with another tail");
        debug_assert!(self.view.sealed.is_empty(), "readers see segments of the log that was before");
        debug_assert_eq!(self.view.active.base(), at, "a log begins anew elsewhere than it is said to");
        self.check();
        if is_kept {
            self.unname(&dead)?;
        } else {
            self.retire(dead)?;
        }
        match self.replace_meta(&Meta { log_start: at, ..self.meta }) {
            // The segment says so itself.
            Err(LogError::NoRoom(_)) => Ok(()),
            replaced => replaced,
        }
    }
}

impl<D: Disk> Reader<D> {
    /// The number of segments that are still there, though nothing of them is in the log any more.
    pub fn trimmed_segments(&self) -> usize {
        let view = self.view();
        view.sealed.iter().take_while(|part| part.end <= view.log_start).count()
    }

    /// Its epoch starts, and the first offset from which on it can still be replicated, which may lie before the log's start. What
    /// is known to be damaged there lies before it: nobody else need hold any more what is trimmed.
    pub fn held(&self) -> (Arc<History>, Offset) {
        let view = self.view();
        (Arc::clone(&view.history), feeds_from(&view))
    }

    /// The origin of a log that goes on with what can be replicated from this one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn origin(&self, limits: ProducerLimits) -> Result<Origin, ReadError> {
        let view = self.view();
        let (at, first) = (feeds_from(&view), view.sealed.first().map_or(&view.active, |first| &first.segment));
        let begun = view.history.starts().iter().rev().find(|start| start.start < at).map(|start| start.epoch);
        let mut history = History::clone(&view.history);
        history.trim(at);
        history.cut(begun.unwrap_or_default());
        let known = match first.snapshot() {
            Ok(_) if at > first.base() => None,
            Ok((Snapshot { timestamp_ms, producers, .. }, _)) => {
                Producers::decode(&producers, limits).ok().map(|producers| (timestamp_ms, producers))
            }
            Err(ReadError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        let (timestamp_ms, producers) = known.unwrap_or_else(|| {
            // Whoever appended before is refused, not trusted.
            let mut producers = Producers::new(limits);
            producers.forget(at);
            (0, producers)
        });
        debug_assert!(history.last().is_none_or(|last| last.start <= at), "a log begins before its epoch does");
        Ok(Origin { at, history, timestamp_ms, producers })
    }
}

/// The first offset from which on all is replicated: behind the last damage that is known among what is trimmed, at the end of an
/// append, and at most the log's start. The oldest that there is where no append ends between that damage and the log's start.
fn feeds_from<D: Disk>(view: &ReadView<D>) -> Offset {
    let trimmed = |part: &Part<D>| part.segment.base() < view.log_start;
    let behind = view.parts().iter().filter(|part| trimmed(part)).rev().find_map(|part| {
        let damaged = part.segment.place.damaged().into_iter();
        let until =
            damaged.filter(|damage| damage.from < damage.to.min(view.log_start)).map(|damage| damage.to).max()?;
        if until >= part.end { Some(part.end) } else { end_of_append(view, until, part.end) }
    });
    let from = behind.filter(|end| *end <= view.log_start).unwrap_or_else(|| view.oldest());
    debug_assert!(
        view.oldest() <= from && from <= view.log_start,
        "a log is fed from where it is not, or not all of it"
    );
    from
}

/// The offset at which the append ends that holds the record, if all of it from there on is good.
fn end_of_append<D: Disk>(view: &ReadView<D>, offset: Offset, part_end: Offset) -> Option<Offset> {
    let chunk = read(view, offset, part_end, 0).ok()?;
    chunk.records().all(|record| record.is_ok()).then(|| chunk.end())
}
