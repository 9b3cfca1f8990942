//! Copies of a log's segments, byte for byte: which bytes of them are in the log, checked before they are given out; where such bytes
//! are to be cut; and how they become the log of a replica that is of no cluster yet.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use zue_core::{EpochStart, Offset, Promise, ReplicaId, Tail};

use crate::disk::{Disk, DiskFile};
use crate::error::open::BadCopy;
use crate::error::{Context, OpenError, Operation, ReadError};
use crate::format::block::BLOCK_BYTES;
use crate::format::fault::Fault;
use crate::format::frame::{Frame, parse};
use crate::format::salvage::DamagedRange;
use crate::format::sequence::FrameSequence;
use crate::meta::{self, LastUse, META_FILE, Meta, MetaFile, Synced};
use crate::num::{length, wide};
use crate::read::reader::Reader;
use crate::recovery::chain::{chain, read_headers};
use crate::segment::Segment;
use crate::segment::header::{Header, segment_name};

/// The point up to which a copy is to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// The records before this one.
    Offset(Offset),
    /// Records up to this time, ms since the Unix epoch, and those of the same millisecond.
    Time(u64),
}

/// The place where a copy of a segment ends: behind the last append that lies wholly in front of the point asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutPlace {
    /// The number of bytes of the segment.
    pub bytes: u64,
    /// The state of the log there.
    pub tail: Tail,
    /// Of the last record there, ms since the Unix epoch; 0 if there is none.
    pub timestamp_ms: u64,
}

/// Checks the bytes of a segment up to a point, every CRC and the order of all that is there, and gives where to cut them.
///
/// # Errors
/// When what lies before the point is not what was written.
pub fn cut_place(bytes: &[u8], until: Until) -> Result<CutPlace, BadCopy> {
    let header = Header::decode(bytes).map_err(BadCopy::Header)?;
    let (mask, bad) = (header.mask(), |at, fault| BadCopy::Frame { position: wide(at), fault });
    let (snapshot, length) = match parse(bytes.get(BLOCK_BYTES..).unwrap_or_default(), mask) {
        Ok((Frame::Snapshot(snapshot), length)) if snapshot.base == header.base => (snapshot, length),
        Ok(_) => return Err(bad(BLOCK_BYTES, Fault::Snapshot)),
        Err(fault) => return Err(bad(BLOCK_BYTES, fault)),
    };
    let epoch = snapshot.starts.last().map_or_else(Default::default, |start| start.epoch);
    let mut sequence = FrameSequence::after(Tail { epoch, end: snapshot.base }, snapshot.timestamp_ms);
    let mut at = BLOCK_BYTES + length;
    let mut whole = CutPlace { bytes: wide(at), tail: sequence.tail, timestamp_ms: sequence.timestamp_ms };
    let is_behind = |end: Offset, time| match until {
        Until::Offset(until) => end > until,
        Until::Time(until) => time > until,
    };
    while at < bytes.len() {
        let (frame, length) = parse(bytes.get(at..).unwrap_or_default(), mask).map_err(|fault| bad(at, fault))?;
        let taken = match &frame {
            Frame::Record(record) if is_behind(record.offset.plus(1), record.timestamp_ms) => break,
            Frame::Compacted(range) if is_behind(range.end, range.timestamp_ms) => break,
            Frame::Record(record) => sequence.record(record, &crate::format::limits::Limits::NONE).map(|_| ()),
            Frame::Compacted(range) => sequence.gap(range),
            Frame::Start(start) => sequence.start(start),
            Frame::SyncMark(_) => Ok(()),
            Frame::Snapshot(_) => Err(Fault::Kind(frame.kind())),
        };
        taken.map_err(|fault| bad(at, fault))?;
        at += length;
        if sequence.unfinished().is_none() {
            whole = CutPlace { bytes: wide(at), tail: sequence.tail, timestamp_ms: sequence.timestamp_ms };
        }
    }
    debug_assert!(whole.bytes <= wide(bytes.len()), "a segment is cut behind its end");
    Ok(whole)
}

/// A segment, as much of it as is in the log up to some point between two appends.
#[derive(Debug)]
pub struct Piece<D: Disk> {
    segment: Arc<Segment<D>>,
    /// The offset of its first record.
    pub base: Offset,
    /// The offset behind its last record.
    pub end: Offset,
    /// Its number of bytes.
    pub bytes: u64,
    /// Nothing is to come: it is as it stays, unless it is written anew.
    pub is_sealed: bool,
    /// The time of the last record before it, ms since the Unix epoch; 0 if there is none.
    pub before_ms: u64,
    /// Of its last record, or the last before it; known of the newest piece only.
    pub last_ms: Option<u64>,
}

impl<D: Disk> Piece<D> {
    /// Its number among all segments made in the directory.
    pub fn sequence(&self) -> u64 {
        self.segment.header.sequence
    }

    /// The number of times it was written anew, compacted or repaired.
    pub fn generation(&self) -> u64 {
        self.segment.header.generation()
    }

    /// The random number drawn for this file; no other file has it.
    pub fn nonce(&self) -> u64 {
        self.segment.header.nonce
    }

    /// Its bytes from one position to another. Every one of a sealed segment is checked before; those of another were when the piece
    /// was made.
    ///
    /// # Errors
    /// When they are damaged, or cannot be read.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        let bytes = self.segment.view(0, self.bytes)?;
        if self.is_sealed {
            let place = self.checked(&bytes, self.end)?;
            if place.bytes != self.bytes || place.tail.end != self.end {
                return Err(self.blame(place.bytes, Fault::Empty));
            }
        }
        self.segment.place.all_could_be_read()?;
        let [from, to] = [range.start, range.end].map(|at| length(at.min(self.bytes)));
        Ok(bytes.slice(from.min(to)..to))
    }

    fn checked(&self, bytes: &[u8], end: Offset) -> Result<CutPlace, ReadError> {
        cut_place(bytes, Until::Offset(end)).map_err(|bad| match bad {
            BadCopy::Header(_) => self.blame(0, Fault::Header),
            BadCopy::Frame { position, fault } => self.blame(position, fault),
        })
    }

    fn blame(&self, position: u64, fault: Fault) -> ReadError {
        self.segment.place.blame(DamagedRange { position, until: position, from: self.base, to: self.end, fault })
    }
}

impl<D: Disk> Reader<D> {
    /// The log up to an offset, or to the append before it, as pieces, the oldest first; and its epoch starts up to there. What is
    /// trimmed is among them as long as it is there.
    ///
    /// # Errors
    /// When the newest of them is damaged, or the disk refuses.
    pub fn pieces(&self, upto: Offset) -> Result<(Vec<Piece<D>>, Vec<EpochStart>), ReadError> {
        let view = self.view();
        let active = view.active.base();
        let mut pieces = Vec::new();
        let mut epoch = zue_core::Epoch(0);
        for part in view.parts() {
            let base = part.segment.base();
            if base > upto || (base == upto && !pieces.is_empty()) {
                break;
            }
            let before_ms = part.time_before()?.unwrap_or_default();
            let is_sealed = base < active && part.end <= upto;
            let mut piece = Piece {
                segment: Arc::clone(&part.segment),
                base,
                end: part.end,
                bytes: part.bytes_end,
                is_sealed,
                before_ms,
                last_ms: None,
            };
            let is_last = !is_sealed || part.end == upto;
            if is_last {
                let bytes = piece.segment.view(0, part.bytes_end)?;
                let place = piece.checked(&bytes, upto)?;
                epoch = place.tail.epoch;
                piece.last_ms = Some(place.timestamp_ms);
                if !is_sealed {
                    (piece.end, piece.bytes) = (place.tail.end, place.bytes);
                }
            }
            pieces.push(piece);
        }
        let follow = |(piece, next): (&Piece<D>, &Piece<D>)| piece.end == next.base;
        debug_assert!(pieces.iter().zip(pieces.iter().skip(1)).all(follow), "pieces with a gap between them");
        debug_assert!(pieces.iter().rev().skip(1).all(|piece| piece.is_sealed), "a piece follows one that still grows");
        let starts = view.history.starts().iter().filter(|start| start.epoch <= epoch).cloned().collect();
        Ok((pieces, starts))
    }
}

/// The replica's knowledge of itself, as it is on the disk now, also while the log is open.
///
/// # Errors
/// When there is no meta file, or it cannot be read.
pub fn read_meta<D: Disk>(disk: &D) -> Result<Meta, OpenError> {
    // It exchanges its name with the next one, which is written over: a read that came between is tried again.
    let mut last = None;
    for _ in 0..3 {
        match meta::read(disk)? {
            Some(Ok(meta)) => return Ok(meta),
            Some(Err(what)) => last = Some(what.of(disk.path(META_FILE))),
            None => return Err(OpenError::NoSegments { dir: disk.path("") }),
        }
    }
    Err(last.unwrap_or_else(|| OpenError::NoSegments { dir: disk.path("") }))
}

/// The description of a log that is made of copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// The id of the new replica.
    pub replica: ReplicaId,
    /// The start of the log.
    pub log_start: Offset,
    /// Up to where the copied one was compacted.
    pub compacted: Offset,
}

/// Makes the segments in the directory, all of them copies and whole on the disk, the log of a new replica that is of no cluster: by the
/// meta file, without which no log is opened. All that is there counts as committed.
///
/// # Errors
/// When they are not one log, or the disk refuses.
pub fn adopt<D: Disk>(disk: &D, adopted: Adopted) -> Result<Tail, OpenError> {
    let Adopted { replica, log_start, compacted } = adopted;
    let names = disk.list().context(Operation::List, || disk.path(""))?;
    let segments = chain(disk, (log_start, 0), read_headers(disk, &names)?)?;
    let last = segments.last().ok_or_else(|| OpenError::NoSegments { dir: disk.path("") })?;
    let path = || disk.path(&segment_name(last.header.base));
    let bytes = last.file.view(0..last.file_bytes).context(Operation::Read, path)?;
    let bad = |what| OpenError::BadCopy { path: path(), what };
    let CutPlace { bytes: end, tail, .. } = cut_place(&bytes, Until::Offset(zue_core::OFFSET_MAX)).map_err(bad)?;
    if end != last.file_bytes {
        return Err(bad(BadCopy::Frame { position: end, fault: Fault::Empty }));
    }
    let leader = last_leader(&bytes, tail);
    let boot = disk.boot_id().context(Operation::BootId, || disk.path(""))?;
    let last_use = LastUse { boot, lazy: false, clean: true };
    let meta = Meta {
        promise: Promise { epoch: tail.epoch, leader },
        commit_end: tail.end,
        log_start: log_start.min(tail.end),
        compacted: compacted.min(tail.end),
        synced: Synced { sequence: last.header.sequence, tail },
        ..Meta::new(replica, last_use)
    };
    MetaFile::new(disk.clone()).replace(&meta)?;
    Ok(tail)
}

/// The leader in the last epoch of a segment that was checked.
fn last_leader(bytes: &[u8], tail: Tail) -> Option<ReplicaId> {
    let mask = Header::decode(bytes).ok()?.mask();
    let (mut at, mut leader) = (BLOCK_BYTES, None);
    while let Ok((frame, length)) = parse(bytes.get(at..).unwrap_or_default(), mask) {
        match frame {
            Frame::Snapshot(snapshot) => leader = snapshot.starts.last().map(|start| (start.epoch, start.leader)),
            Frame::Start(start) => leader = Some((start.epoch, start.leader)),
            _ => {}
        }
        at += length;
    }
    leader.filter(|(epoch, _)| *epoch == tail.epoch).map(|(_, leader)| leader)
}
