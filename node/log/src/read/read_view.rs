//! A view: one prefix of the log as its segments. Only the newest grows; an older one goes on showing what it showed, whatever
//! is appended or cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use zue_core::{History, Offset, Tail};

use crate::disk::Disk;
use crate::error::ReadError;
use crate::format::fault::Fault;
use crate::format::frame::{Peek, peek};
use crate::format::salvage::{DamagedRange, Frames, Piece, first_damage};
use crate::num::{length, wide};
use crate::segment::Segment;
use crate::segment::part::Part;

/// One prefix of the log.
#[derive(Debug)]
pub(crate) struct ReadView<D: Disk> {
    pub(crate) sealed: Arc<[Part<D>]>,
    pub(crate) active: Arc<Segment<D>>,
    pub(crate) history: Arc<History>,
    /// The log's start: what lies before is read for replication only.
    pub(crate) log_start: Offset,
    bytes_end: AtomicU64,
    end: AtomicU64,
}

impl<D: Disk> ReadView<D> {
    pub(crate) fn new(sealed: Arc<[Part<D>]>, active: Part<D>, history: Arc<History>, log_start: Offset) -> Self {
        let Part { segment: active, bytes_end, end } = active;
        let (bytes_end, end) = (AtomicU64::new(bytes_end), AtomicU64::new(end.0));
        Self { sealed, active, history, log_start, bytes_end, end }
    }

    pub(crate) fn tail(&self) -> Tail {
        Tail { epoch: self.history.last_epoch(), end: Offset(self.end.load(Ordering::Acquire)) }
    }

    /// The first offset that is still in a segment; at most the log's start.
    pub(crate) fn oldest(&self) -> Offset {
        self.sealed.first().map_or(self.active.base(), |first| first.segment.base())
    }

    /// Holds its invariant: its segments follow each other without a gap.
    pub(crate) fn check(&self) {
        let bases = self.sealed.iter().skip(1).map(|next| next.segment.base()).chain([self.active.base()]);
        let follows = |(part, next): (&Part<D>, Offset)| part.segment.base() < next && part.end == next;
        debug_assert!(self.sealed.iter().zip(bases).all(follows), "readers see segments with a gap between them");
        assert!(self.active.base() <= self.tail().end, "readers see a segment that ends before it begins");
        let sequences =
            self.sealed.iter().map(|part| part.segment.header.sequence).chain([self.active.header.sequence]);
        debug_assert!(sequences.is_sorted_by(|a, b| a < b), "readers see a segment in front of an older one");
    }

    /// Returns whether a segment with that base is in it.
    pub(crate) fn has_segment(&self, base: Offset) -> bool {
        self.active.base() == base || self.sealed.binary_search_by_key(&base, |part| part.segment.base()).is_ok()
    }

    /// Shows further bytes that have been written; `end` is the end of an append.
    pub(crate) fn grow(&self, bytes_end: u64, end: Offset) {
        debug_assert!(self.bytes_end.load(Ordering::Relaxed) <= bytes_end, "a view shrank");
        debug_assert!(self.end.load(Ordering::Relaxed) <= end.0, "a view lost records");
        // In this order: who sees the end sees the bytes in front of it.
        self.bytes_end.store(bytes_end, Ordering::Release);
        self.end.store(end.0, Ordering::Release);
    }

    /// The active segment as far as it is in the log.
    pub(crate) fn active_part(&self) -> Part<D> {
        let end = self.tail().end;
        Part { segment: Arc::clone(&self.active), bytes_end: self.bytes_end.load(Ordering::Acquire), end }
    }

    /// All its parts, oldest first.
    pub(crate) fn parts(&self) -> Vec<Part<D>> {
        self.sealed.iter().cloned().chain([self.active_part()]).collect()
    }

    /// The part that holds the record, if the log does.
    pub(crate) fn part(&self, offset: Offset) -> Option<Part<D>> {
        let active = self.active_part();
        if offset >= active.end {
            return None;
        }
        if offset >= active.segment.base() {
            return Some(active);
        }
        let after = self.sealed.partition_point(|part| part.segment.base() <= offset);
        let part = self.sealed.get(after.checked_sub(1)?).cloned();
        debug_assert!(part.as_ref().is_none_or(|part| offset < part.end), "a record lies between two segments");
        part
    }
}

impl<D: Disk> Part<D> {
    /// The position of the record, or of the gap that stands for it, and the bytes from there to the end of the part. The frames that it
    /// walks past are not checked as long as each is in its place.
    pub(crate) fn find(&self, offset: Offset) -> Result<(u64, Bytes), ReadError> {
        debug_assert!(self.segment.base() <= offset && offset < self.end, "a record is looked for in another segment");
        let (from, first) = match self.near(offset)? {
            Some(near) => (near.position, Offset(near.offset)),
            None => (self.body()?.data_start, self.segment.base()),
        };
        let bytes = self.segment.view(from, self.bytes_end)?;
        let (mut walk, mut next) = (Walk::new(&bytes), first);
        while let Some(frame) = walk.frame() {
            if frame.takes_offsets() {
                if frame.first_word != next.0 || frame.end <= next.0 {
                    break;
                }
                if frame.holds(offset) {
                    return Ok((from.saturating_add(wide(walk.at)), bytes.slice(walk.at..)));
                }
                next = Offset(frame.end);
            }
            walk.pass(frame);
        }
        for piece in Frames::new(&bytes, self.segment.mask, from, first, self.end) {
            match piece {
                Piece::Record(position, record) if record.offset == offset => {
                    return Ok((position, bytes.slice(length(position.saturating_sub(from))..)));
                }
                Piece::Compacted(position, gap) if gap.end > offset => {
                    return Ok((position, bytes.slice(length(position.saturating_sub(from))..)));
                }
                Piece::Record(..) | Piece::Compacted(..) => {}
                Piece::Damaged(damaged) => {
                    let error = self.segment.place.blame(damaged);
                    if damaged.to > offset {
                        return Err(error);
                    }
                }
            }
        }
        unreachable!("a part holds, or lacks, every record up to its end")
    }

    /// The damage at the position, where the frame of record `from` should be.
    pub(crate) fn damage(&self, position: u64, from: Offset) -> ReadError {
        match self.segment.view(position, self.bytes_end) {
            Ok(bytes) => {
                if let Some(damaged) = first_damage(&bytes, self.segment.mask, position, from..self.end) {
                    return self.segment.place.blame(damaged);
                }
                // Bytes that are good now are not noted.
                let none = DamagedRange { position, until: self.bytes_end, from, to: from, fault: Fault::Layout };
                let readable = self.segment.place.all_could_be_read();
                readable.map_or_else(Into::into, |()| self.segment.place.damage(none).into())
            }
            Err(error) => error,
        }
    }
}

/// A walk over frames that does not check their CRCs.
pub(crate) struct Walk<'a> {
    pub(crate) bytes: &'a [u8],
    /// The position at which the frame that is next begins.
    pub(crate) at: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn frame(&self) -> Option<Peek> {
        peek(self.rest())
    }

    pub(crate) fn pass(&mut self, peek: Peek) {
        debug_assert!(0 < peek.bytes && peek.bytes <= self.rest().len(), "a frame ends behind the bytes, or is empty");
        self.at += peek.bytes;
    }
}
