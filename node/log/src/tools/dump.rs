//! The frames of a log one by one, as they are in its files, for those who look after it. Needs no more of a log than its segments'
//! headers, and changes nothing.

use std::ops::ControlFlow;
use std::path::Path;

use zue_core::{Epoch, EpochStart, Offset, Tail};

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, HeaderFault, OpenError, Operation};
use crate::format::block::BLOCK_BYTES;
use crate::format::compacted_range::CompactedRange;
use crate::format::crcs::Crcs;
use crate::format::fault::Fault;
use crate::format::frame::{Frame, RecordView, parse};
use crate::format::local::{Snapshot, SyncMark};
use crate::format::salvage::GoodFrames;
use crate::format::salvage::used;
use crate::meta::{self, META_FILE, Meta};
use crate::num::wide;
use crate::recovery::chain::{chain, read_headers};
use crate::segment::header::{Header, segment_name};

/// Something that a log's files hold, and where.
#[derive(Debug)]
pub struct Dumped<'a> {
    /// The file.
    pub path: &'a Path,
    /// The position in the file at which it begins, bytes.
    pub position: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its kind.
    pub item: DumpItem<'a>,
}

/// The content of a log's files.
#[derive(Debug)]
pub enum DumpItem<'a> {
    /// The replica's knowledge of itself.
    Meta(Box<Meta>),
    /// The meta file is not one.
    BadMeta(HeaderFault),
    /// The head of a segment.
    Segment {
        /// Its number among all segments made in the directory.
        sequence: u64,
        /// The number of times it was written anew, compacted or repaired.
        generation: u64,
        /// Its first offset.
        base: Offset,
        /// The base of the segment before.
        prev: Option<Offset>,
    },
    /// The state before the segment's records.
    Snapshot {
        /// Of the last record before, ms since the Unix epoch.
        timestamp_ms: u64,
        /// All epoch starts before the segment.
        starts: Vec<EpochStart>,
        /// The length of the producers' table.
        producers_bytes: u64,
    },
    /// A record.
    Record(RecordView<'a>),
    /// Records that were compacted away: of one epoch, from the first offset to the second, exclusive.
    Compacted(Epoch, Offset, Offset),
    /// The start of an epoch.
    EpochStart(EpochStart),
    /// A sync had succeeded.
    SyncMark {
        /// Up to this position in the file.
        position: u64,
        /// The tail there.
        tail: Tail,
    },
    /// Bytes that are no frame: damage, or a torn tail when nothing good follows.
    Bad(Fault),
}

/// Gives what the files of a log hold, in its order: its meta file, then from the segment of record `from` on everything except
/// records before `from`; until `each` breaks.
///
/// # Errors
/// When a segment's header is bad, a segment is missing, or the disk refuses.
pub fn dump<D: Disk>(
    disk: &D,
    from: Offset,
    mut each: impl FnMut(&Dumped<'_>) -> ControlFlow<()>,
) -> Result<(), OpenError> {
    let mut known = (Offset::default(), 0);
    if let Some(meta) = meta::read(disk)? {
        if let Err(what @ HeaderFault::Later(_)) = meta {
            return Err(what.of(disk.path(META_FILE)));
        }
        known = meta.map_or(known, |meta| (meta.log_start, meta.synced.sequence));
        let item = meta.map_or_else(DumpItem::BadMeta, |meta| DumpItem::Meta(Box::new(meta)));
        let (path, position, bytes) = (&*disk.path(META_FILE), 0, wide(meta::META_BYTES));
        if each(&Dumped { path, position, bytes, item }).is_break() {
            return Ok(());
        }
    }
    let names = disk.list().context(Operation::List, || disk.path(""))?;
    let segments = chain(disk, known, read_headers(disk, &names)?)?;
    let nexts = segments.iter().skip(1).map(|next| Some(next.header)).chain([None]);
    for (segment, next) in segments.iter().zip(nexts) {
        if next.is_some_and(|next| next.base <= from) {
            continue;
        }
        let path = disk.path(&segment_name(segment.header.base));
        let end = next.map_or(segment.file_bytes, |next| segment.header.end_before(&next));
        let bytes = segment.file.view(0..end.min(segment.file_bytes)).context(Operation::Read, || path.clone())?;
        let walk = Walk { path: &path, bytes: &bytes, header: segment.header, is_last: next.is_none(), from };
        if walk.run(&mut each).is_break() {
            break;
        }
    }
    Ok(())
}

/// A segment as far as it is in the log.
struct Walk<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    header: Header,
    is_last: bool,
    from: Offset,
}

impl<'a> Walk<'a> {
    fn run(&self, each: &mut impl FnMut(&Dumped<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let Header { sequence, base, prev, .. } = self.header;
        let generation = self.header.generation();
        let head = DumpItem::Segment { sequence, generation, base, prev: prev.map(|prev| prev.base) };
        each(&self.dumped(0, BLOCK_BYTES, head))?;
        let (mut at, mut next) = (BLOCK_BYTES, base);
        while at < self.bytes.len() {
            let (item, bytes) = match parse(self.bytes.get(at..).unwrap_or_default(), self.header.mask()) {
                Ok((frame, bytes)) => (item(frame), bytes),
                Err(fault) => match self.bad_bytes(at) {
                    0 => break,
                    bytes => (DumpItem::Bad(fault), bytes),
                },
            };
            let is_before = match &item {
                DumpItem::Record(record) => {
                    next = record.offset.plus(1);
                    record.offset < self.from
                }
                DumpItem::Compacted(_, _, end) => {
                    next = *end;
                    next <= self.from
                }
                DumpItem::EpochStart(_) | DumpItem::SyncMark { .. } => next < self.from,
                _ => false,
            };
            if !is_before {
                each(&self.dumped(at, bytes, item))?;
            }
            at = at.saturating_add(bytes);
        }
        ControlFlow::Continue(())
    }

    fn dumped(&self, at: usize, bytes: usize, item: DumpItem<'a>) -> Dumped<'a> {
        Dumped { path: self.path, position: wide(at), bytes: wide(bytes), item }
    }

    /// The number of bytes that are no frame; none where the log ends.
    fn bad_bytes(&self, at: usize) -> usize {
        let all = Tail { epoch: Epoch(0), end: Offset(0) };
        let good = GoodFrames::behind(&mut Crcs::new(self.bytes), self.header.mask(), at, all).next();
        let rest = self.bytes.get(at..).unwrap_or_default();
        match good {
            Some(good) => good.at - at,
            // A file that was used before has other bytes than zeroes behind the log.
            None if self.is_last && self.header.used => 0,
            None if self.is_last => used(rest),
            None => rest.len(),
        }
    }
}

fn item(frame: Frame<'_>) -> DumpItem<'_> {
    match frame {
        Frame::Record(record) => DumpItem::Record(record),
        Frame::Compacted(CompactedRange { epoch, from, end, .. }) => DumpItem::Compacted(epoch, from, end),
        Frame::Start(start) => DumpItem::EpochStart(start),
        Frame::Snapshot(Snapshot { timestamp_ms, starts, producers, .. }) => {
            DumpItem::Snapshot { timestamp_ms, starts, producers_bytes: wide(producers.len()) }
        }
        Frame::SyncMark(SyncMark { position, tail }) => DumpItem::SyncMark { position, tail },
    }
}
