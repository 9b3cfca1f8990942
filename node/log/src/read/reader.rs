//! Reading, while the log is written: by offset for clients, by tail for replication. Nothing is copied that need not be, and
//! nothing is given out whose CRC does not match.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use zue_core::{EpochStart, Offset, Tail};

use crate::disk::Disk;
use crate::error::{Damage, ReadError};
use crate::format::batch::Batch;
use crate::format::encode::{mask_crc, put_start};
use crate::format::fault::Fault;
use crate::format::frame::{Frame, RecordView, parse, record};
use crate::format::layout::KIND_COMPACTED;
use crate::format::limits::Limits;
use crate::format::salvage::{DamagedRange, first_damage};
use crate::num::{length, wide};
use crate::read::read_view::{ReadView, Walk};
use crate::segment::file::SegmentFile;
use crate::segment::part::Part;

/// The state that a log and its readers share: the newest view.
pub(crate) type Shared<D> = Arc<RwLock<Arc<ReadView<D>>>>;

/// Reads a log. Clones read the same one, from any thread, also while it is written and after it was closed.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    shared: Shared<D>,
}

impl<D: Disk> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Consecutive records of one segment, as they are in its file; some of them, or all, may have been compacted away.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Bytes,
    mask: u32,
    first: Offset,
    end: Offset,
    /// The place of the bytes; `None` if there are none.
    place: Option<(Arc<SegmentFile>, u64)>,
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(shared: Shared<D>) -> Self {
        Self { shared }
    }

    pub(crate) fn view(&self) -> Arc<ReadView<D>> {
        Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The log's tail: what was appended, durable or not.
    pub fn tail(&self) -> Tail {
        self.view().tail()
    }

    /// The first offset there is.
    pub fn log_start(&self) -> Offset {
        self.view().log_start
    }

    /// The known damage: what opening the log found in its last segment, and what reads and verifiers have found since. A
    /// place without records in doubt does no harm. What is trimmed counts as long as its segment is there: it is still replicated.
    pub fn damaged(&self) -> Vec<Damage> {
        let view = self.view();
        let active = view.active_part();
        let clip = |part: &Part<D>| {
            let end = part.end;
            let damaged = part.segment.place.damaged().into_iter().filter(|damage| damage.from <= end);
            damaged.map(|damage| Damage { to: damage.to.min(end), ..damage }).collect::<Vec<_>>()
        };
        view.sealed.iter().chain([&active]).flat_map(clip).collect()
    }

    /// Records from `from` on, which may lie inside an append, and before `upto`: as many whole appends as `bytes_max` encoded
    /// bytes hold, at least one. Fewer at the end of a segment; none if `from` is `upto` or the log's end.
    ///
    /// # Errors
    /// When `from` is out of range, or what is there cannot be read.
    pub fn read(&self, from: Offset, upto: Offset, bytes_max: usize) -> Result<Chunk, ReadError> {
        let view = self.view();
        if from < view.log_start {
            let end = upto.min(view.tail().end);
            return Err(ReadError::OutOfRange { from, log_start: view.log_start, end });
        }
        let chunk = read(&*view, from, upto, bytes_max);
        let is_asked_for = |chunk: &Chunk| chunk.first == from && chunk.end <= upto;
        debug_assert!(chunk.iter().all(is_asked_for), "other records are read than were asked for");
        chunk
    }

    /// The offset of the first record that can be read and is no older than a time, ms since the Unix epoch: committed or not. The
    /// log's end if all are older.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn offset_at(&self, timestamp_ms: u64) -> Result<Offset, ReadError> {
        self.view().offset_at(timestamp_ms)
    }

    /// The frames that follow the prefix with tail `from`, epoch starts included, up to the one with tail `upto`: as many whole
    /// appends and epoch starts as `bytes_max` hold, at least one. `None` if nothing follows.
    ///
    /// # Errors
    /// When this log has no prefix with tail `from`, or what follows cannot be read.
    pub fn read_frames(&self, from: Tail, upto: Tail, bytes_max: usize) -> Result<Option<Batch>, ReadError> {
        let view = self.view();
        let upto = upto.min(view.tail());
        check_prefix(&view, from)?;
        let read = |bytes_max| {
            let frames = gather(&*view, from, upto, bytes_max)?;
            Ok::<_, ReadError>(
                (!frames.is_empty()).then(|| Batch::decode(frames.into(), from, &Limits::NONE)).transpose(),
            )
        };
        if let Ok(batch) = read(bytes_max)? {
            return Ok(batch);
        }
        // There is damage: give what is in front of it append by append, then name it.
        match read(0)? {
            Ok(batch) => Ok(batch),
            Err(error) => Err(name_damage(&*view, from.end, upto.end, error.fault)),
        }
    }
}

/// Fails unless the log has a prefix with that tail.
fn check_prefix<D: Disk>(view: &ReadView<D>, from: Tail) -> Result<(), ReadError> {
    let (oldest, tail) = (view.oldest(), view.tail());
    if from.end < oldest {
        return Err(ReadError::OutOfRange { from: from.end, log_start: oldest, end: tail.end });
    }
    let known = from.epoch.0 == 0 || view.history.at(from.epoch).is_some_and(|start| start.start <= from.end);
    let end = next_start(view, from).map_or(tail.end, |next| next.start);
    if known && from.end <= end { Ok(()) } else { Err(ReadError::NoSuchPrefix { from }) }
}

fn next_start<D: Disk>(view: &ReadView<D>, after: Tail) -> Option<&EpochStart> {
    let starts = view.history.starts();
    starts.get(starts.partition_point(|start| start.epoch <= after.epoch))
}

/// As [`Reader::read`], but of what is trimmed, too, as far as it is there.
pub(crate) fn read<D: Disk>(
    view: &ReadView<D>,
    from: Offset,
    upto: Offset,
    bytes_max: usize,
) -> Result<Chunk, ReadError> {
    let (oldest, end) = (view.oldest(), upto.min(view.tail().end));
    if from < oldest || from > end {
        return Err(ReadError::OutOfRange { from, log_start: view.log_start, end });
    }
    let Some(part) = view.part(from).filter(|_| from < end) else {
        return Ok(Chunk { bytes: Bytes::new(), mask: 0, first: from, end: from, place: None });
    };
    let (position, bytes) = part.find(from)?;
    let range = from..end.min(part.end);
    let (bytes_end, end) = measure(&part, &bytes, position, range.clone(), bytes_max)?;
    debug_assert!(range.start <= end && end <= range.end, "other records are read than were asked for");
    debug_assert!(bytes_end <= bytes.len(), "records end behind their bytes");
    let place = Some((Arc::clone(&part.segment.place), position));
    Ok(Chunk { bytes: bytes.slice(..bytes_end), mask: part.segment.mask, first: from, end, place })
}

/// The number of bytes of the part to give out, and the offset that they end at: an end of an append, or where damage begins.
fn measure<D: Disk>(
    part: &Part<D>,
    bytes: &Bytes,
    position: u64,
    range: Range<Offset>,
    bytes_max: usize,
) -> Result<(usize, Offset), ReadError> {
    // Most of a long way is in the index.
    let far = position.saturating_add(wide(bytes_max)).min(part.bytes_end.saturating_sub(1));
    let is_long = far.saturating_sub(position) > u64::from(part.segment.index_interval);
    let far = if is_long { part.last_before(range.end, far)? } else { None };
    if let Some(entry) = far.filter(|entry| entry.offset > range.start.0 && entry.position > position) {
        let at = length(entry.position - position);
        let (bytes, end) =
            walk(part, bytes, (position, at), Offset(entry.offset)..range.end, bytes_max).unwrap_or_default();
        if bytes > 0 {
            return Ok((bytes, end));
        }
    }
    walk(part, bytes, (position, 0), range, bytes_max)
}

/// Walks from a frame on to the last end of an append within `bytes_max`, or the first one behind.
fn walk<D: Disk>(
    part: &Part<D>,
    bytes: &Bytes,
    (position, at): (u64, usize),
    range: Range<Offset>,
    bytes_max: usize,
) -> Result<(usize, Offset), ReadError> {
    debug_assert!(at <= bytes.len() && range.start <= range.end, "a walk begins behind its end");
    let mut walk = Walk { bytes, at };
    let mut next = range.start;
    // The end of the last whole append, in bytes and as an offset.
    let mut whole = None;
    while next < range.end {
        let Some(frame) = walk.frame().filter(|frame| !frame.takes_offsets() || frame.holds(next)) else {
            // Damaged: what lies in front is given out, as whole appends if there are any.
            return match whole {
                Some(whole) => Ok(whole),
                None if next > range.start => Ok((walk.at, next)),
                None => Err(part.damage(position.saturating_add(wide(walk.at)), next)),
            };
        };
        walk.pass(frame);
        if frame.takes_offsets() {
            next = Offset(frame.end).min(range.end);
        }
        let ends_append = !frame.more || next == range.end;
        if ends_append && whole.is_some() && walk.at > bytes_max {
            break;
        }
        if ends_append {
            whole = Some((walk.at, next));
        }
    }
    Ok(whole.unwrap_or((0, range.start)))
}

/// The frames between two tails as they travel, unchecked.
fn gather<D: Disk>(view: &ReadView<D>, from: Tail, upto: Tail, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let (mut out, mut at) = (Vec::new(), from);
    loop {
        let next = next_start(view, at).filter(|next| next.epoch <= upto.epoch);
        let frame_at = out.len();
        let after = if let Some(next) = next.filter(|next| next.start == at.end) {
            put_start(&mut out, next);
            Tail { epoch: next.epoch, ..at }
        } else {
            let end = next.map_or(upto.end, |next| next.start.min(upto.end));
            if at.end >= end {
                break;
            }
            let chunk = match read(view, at.end, end, bytes_max.saturating_sub(out.len())) {
                Err(_) if !out.is_empty() => break,
                chunk => chunk?,
            };
            chunk.put_records(&mut out);
            Tail { end: chunk.end, ..at }
        };
        if frame_at > 0 && out.len() > bytes_max {
            out.truncate(frame_at);
            break;
        }
        if after == at || out.len() >= bytes_max {
            break;
        }
        at = after;
    }
    Ok(out)
}

/// The damage among the records of the append at `from`, which a batch of them has shown to be there.
fn name_damage<D: Disk>(view: &ReadView<D>, from: Offset, upto: Offset, fault: Fault) -> ReadError {
    let first_error = |chunk: &Chunk| chunk.records().find_map(Result::err);
    let name = || {
        let chunk = read(view, from, upto, 0)?;
        if let Some(error) = first_error(&chunk) {
            return Err(error);
        }
        // It ends inside the append, where the damage begins.
        first_error(&read(view, chunk.end, upto, 0)?).map_or(Ok(chunk), Err)
    };
    match name() {
        Err(error) => error,
        Ok(chunk) => {
            chunk.blame(DamagedRange { position: 0, until: wide(chunk.bytes.len()), from, to: chunk.end, fault })
        }
    }
}

impl Chunk {
    /// The first record's offset.
    pub fn first(&self) -> Offset {
        self.first
    }

    /// The offset behind the last record: where to read on.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Returns whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// The length of the frames, bytes.
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records, each checked as it is reached. Ends after the first that is damaged.
    pub fn records(&self) -> Records<'_> {
        Records { chunk: self, at: 0, next: self.first }
    }

    /// A key or value of one of the records, shared with the chunk and not copied.
    ///
    /// # Panics
    /// When `part` is not a part of this chunk.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// Puts the records and gaps as they travel; their CRCs are not checked.
    fn put_records(&self, out: &mut Vec<u8>) {
        let mut walk = Walk::new(&self.bytes);
        while let Some(frame) = walk.frame() {
            let gap = (frame.kind == KIND_COMPACTED && frame.first_word < self.first.0)
                .then(|| parse(walk.rest(), self.mask));
            if let Some(Ok((Frame::Compacted(gap), _))) = gap {
                // It stands for records that are not asked for, too.
                gap.behind(self.first).put(out);
            } else if frame.takes_offsets() {
                let frame_at = out.len();
                out.extend_from_slice(walk.rest().get(..frame.bytes).unwrap_or_default());
                mask_crc(out, frame_at, self.mask);
            }
            walk.pass(frame);
        }
    }

    /// Says why bytes at a place in the chunk are bad.
    fn blame(&self, damaged: DamagedRange) -> ReadError {
        let (place, at) = self.place.as_ref().expect("a chunk that has records has a place");
        let (position, until) = (at.saturating_add(damaged.position), at.saturating_add(damaged.until));
        place.blame(DamagedRange { position, until, ..damaged })
    }
}

/// The records of a chunk.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    chunk: &'a Chunk,
    at: usize,
    next: Offset,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.chunk.end {
            let bytes = self.chunk.bytes.get(self.at..).unwrap_or_default();
            if let Some((record, length)) = record(bytes, self.chunk.mask)
                && record.offset == self.next
            {
                self.at += length;
                self.next = record.offset.plus(1);
                return Some(Ok(record));
            }
            match parse(bytes, self.chunk.mask) {
                Ok((Frame::Record(record), length)) if record.offset == self.next => {
                    self.at += length;
                    self.next = record.offset.plus(1);
                    return Some(Ok(record));
                }
                Ok((Frame::Start(_) | Frame::SyncMark(_), length)) => self.at += length,
                Ok((Frame::Compacted(gap), length)) if (gap.from..gap.end).contains(&self.next) => {
                    self.at += length;
                    self.next = gap.end;
                }
                Ok(_) | Err(_) => {
                    let (from, end) = (self.next, self.chunk.end);
                    let damaged = first_damage(bytes, self.chunk.mask, wide(self.at), from..end);
                    match damaged.map(|damaged| (damaged, self.chunk.blame(damaged))) {
                        // No record is in doubt: what should come next is behind it.
                        Some((damaged, ReadError::Damaged(_))) if damaged.to == from => self.at = length(damaged.until),
                        found => {
                            self.next = end;
                            return found.map(|(_, error)| Err(error));
                        }
                    }
                }
            }
        }
        None
    }
}
