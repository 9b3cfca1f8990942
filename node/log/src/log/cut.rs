//! Cutting the log back. Nothing is overwritten: a further segment says how much of the one before is still in the log, and its
//! rename is the cut, of records and epoch starts at once. Readers of what was cut go on reading it.

use std::sync::Arc;

use bytes::Bytes;
use zue_core::{History, Offset, Tail};

use crate::disk::Disk;
use crate::error::{LogError, ReadError};
use crate::format::frame::{Frame, parse};
use crate::log::Log;
use crate::num::wide;
use crate::read::reader::Reader;
use crate::segment::create::Draft;
use crate::segment::part::Part;

/// The place of a cut.
pub(crate) struct Point<D: Disk> {
    /// The segment before the cut, as much of it as stays.
    pub(crate) part: Part<D>,
    /// The last timestamp before the cut, ms since the Unix epoch.
    pub(crate) timestamp_ms: u64,
}

impl<D: Disk> Log<D> {
    /// Cuts the log back to the prefix with that tail. All that is left is durable on return. After a crash the cut has either been
    /// made or not begun.
    ///
    /// # Errors
    /// When there is no such prefix, it would end inside an append, or it would take what is committed; when there is no room for
    /// a segment, or the disk refuses.
    pub fn cut(&mut self, to: Tail) -> Result<(), LogError> {
        self.check_poison()?;
        let (log, mut history) = (self.ends.tail, History::clone(&self.view.history));
        let dropped = history.starts().iter().find(|start| start.epoch > to.epoch).map(|next| next.start);
        history.cut(to.epoch);
        let begun = history.last().is_none_or(|last| last.start <= to.end);
        let over = dropped.is_none_or(|next| to.end <= next);
        let within = self.view.log_start <= to.end && to.end <= log.end;
        if history.last_epoch() != to.epoch || !begun || !over || !within {
            return Err(LogError::NoSuchPrefix { to, log });
        }
        if to.end < self.ends.commit_end {
            return Err(LogError::BelowCommit { end: to.end, commit_end: self.ends.commit_end });
        }
        if to == log {
            return self.sync_disk();
        }
        let point = self.cut_point(to)?;
        debug_assert_eq!((history.last_epoch(), point.part.end), (to.epoch, to.end), "the log is cut elsewhere");
        self.cut_at(point, history)
    }

    /// The place where the prefix with that tail ends: behind its last record, and what takes no offset and belongs to it.
    fn cut_point(&self, tail: Tail) -> Result<Point<D>, LogError> {
        let parts = self.view.parts();
        let Some(part) = parts.iter().rfind(|part| part.segment.base() < tail.end).cloned() else {
            // The first segment is replaced by an empty one.
            let mut part = parts.first().cloned().unwrap_or_else(|| self.view.active_part());
            let body = part.body()?;
            let (data_start, timestamp_ms) = (body.data_start, body.timestamp_ms.unwrap_or_default());
            (part.bytes_end, part.end) = (data_start, tail.end);
            return Ok(Point { part, timestamp_ms });
        };
        let (position, timestamp_ms) = match part.find(Offset(tail.end.0.saturating_sub(1))) {
            // The last record that stays is damaged, and stays so.
            Err(ReadError::Damaged(damage)) => (damage.position, None),
            found => {
                let (position, bytes) = found?;
                let (length, timestamp_ms) = prefix_in(&part, &bytes, tail)?;
                (position + wide(length), timestamp_ms)
            }
        };
        assert!(position <= part.bytes_end, "a cut ends behind its segment");
        let before = part.body()?.timestamp_ms.unwrap_or_default();
        let part = Part { bytes_end: position, end: tail.end, ..part };
        Ok(Point { part, timestamp_ms: timestamp_ms.unwrap_or(before) })
    }

    /// Makes the cut.
    pub(crate) fn cut_at(&mut self, point: Point<D>, history: History) -> Result<(), LogError> {
        let Point { part, timestamp_ms } = point;
        let tail = Tail { epoch: history.last_epoch(), end: part.end };
        assert!(tail <= self.ends.tail, "a cut makes the log longer");
        assert!(self.ends.commit_end <= tail.end, "a cut takes what is committed");
        let mut producers = self.producers.clone();
        producers.cut(tail.end);
        let draft = self.draft(&part, history.starts(), timestamp_ms, &producers);
        let reserved = Draft { may_be_short: true, ..draft }
            .reserve(&self.disk, &mut self.beside.spare)
            .map_err(LogError::NoRoom)?;
        if Arc::ptr_eq(&part.segment, &self.view.active) {
            self.sync_disk()?;
        }
        let next = reserved.commit(&self.disk, self.config.index_interval_bytes);
        let next = self.disk_result(next)?;
        self.producers = producers;
        self.beside.cuts += 1;
        let mut dead = self.view.parts();
        dead.retain(|part| part.segment.base() > tail.end);
        self.go_on_in(next, &part, Arc::new(history));
        (self.ends.tail, self.ends.durable, self.ends.synced) = (tail, tail, tail);
        self.ends.timestamp_ms = timestamp_ms;
        assert_eq!(self.view.tail(), tail, "the cut has left another tail");
        debug_assert!(
            self.producers.horizon() <= tail.end,
            "a producer was forgotten that appended behind the log's end"
        );
        self.check();
        self.retire(dead)
    }
}

/// The length of what belongs to the prefix with that tail, of bytes that begin with its last record; and that record's time.
fn prefix_in<D: Disk>(part: &Part<D>, bytes: &Bytes, tail: Tail) -> Result<(usize, Option<u64>), LogError> {
    let (mut at, mut last_ms) = (0, None);
    while at < bytes.len() {
        let Ok((frame, length)) = parse(bytes.get(at..).unwrap_or_default(), part.segment.mask) else {
            // What is damaged may be cut there; what cannot be read may not.
            part.segment.place.all_could_be_read().map_err(ReadError::from)?;
            break;
        };
        match frame {
            Frame::Record(record) if last_ms.is_none() && !record.more => last_ms = Some(record.timestamp_ms),
            Frame::Compacted(gap) if last_ms.is_none() && gap.end == tail.end && gap.open.is_none() => {
                last_ms = Some(gap.timestamp_ms);
            }
            Frame::Record(_) | Frame::Compacted(_) if last_ms.is_none() => {
                return Err(LogError::InsideAppend { end: tail.end });
            }
            Frame::Start(start) if start.epoch <= tail.epoch => {}
            Frame::SyncMark(_) => {}
            _ => break,
        }
        at += length;
    }
    Ok((at, last_ms))
}

impl<D: Disk> Reader<D> {
    /// The time of the last record before an offset of the log, in milliseconds since the Unix epoch, as a log keeps it that is cut
    /// there; none where an append lies on both sides, and it may not be cut. In front of and behind what is damaged it may.
    ///
    /// # Errors
    /// When the log does not reach as far, or the disk cannot be read.
    pub fn cut_ms(&self, at: Offset) -> Result<Option<u64>, ReadError> {
        let view = self.view();
        let (oldest, end) = (view.oldest(), view.tail().end);
        if at < oldest || at > end {
            return Err(ReadError::OutOfRange { from: at, log_start: oldest, end });
        }
        let parts = view.parts();
        let Some(part) = parts.iter().rfind(|part| part.segment.base() < at).or(parts.first()) else { return Ok(None) };
        let before = || Ok(Some(part.body()?.timestamp_ms.unwrap_or_default()));
        let last = at.0.checked_sub(1).map(Offset).filter(|last| *last >= part.segment.base());
        let bytes = match last.map(|last| part.find(last)) {
            None | Some(Err(ReadError::Damaged(_))) => return before(),
            Some(found) => found?.1,
        };
        match parse(&bytes, part.segment.mask) {
            Ok((Frame::Record(record), _)) => Ok((!record.more).then_some(record.timestamp_ms)),
            Ok((Frame::Compacted(gap), _)) => Ok((gap.end == at && gap.open.is_none()).then_some(gap.timestamp_ms)),
            _ => before(),
        }
    }
}
