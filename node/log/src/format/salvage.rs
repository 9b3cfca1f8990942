//! Frames of which some may be damaged: where the next good one is, and what it says of what is missing. Looks at bytes only.

use std::ops::Range;

use zue_core::{Epoch, Offset, Tail};

use crate::format::compacted_range::CompactedRange;
use crate::format::crcs::Crcs;
use crate::format::fault::Fault;
use crate::format::frame::{Frame, RecordView, parse, parse_unchecked, peek};
use crate::format::layout::{
    FLAGS_AT, KIND_AT, KIND_COMPACTED, KIND_EPOCH_START, KIND_RECORD, KIND_SYNC_MARK, LENGTH_AT, PREFIX_BYTES,
    RECORD_FLAGS,
};
use crate::format::local::SyncMark;
use crate::num::{Cursor, wide};

/// Of so many bytes it is seen at once whether a frame may begin with any.
const PIECE_BYTES: usize = 32;

/// Bytes that are not what was written, and the records that are in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DamagedRange {
    /// In the segment.
    pub(crate) position: u64,
    /// The position in the segment at which something good follows, if the bytes were looked at.
    pub(crate) until: u64,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) fault: Fault,
}

/// A good frame behind damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Good {
    /// The position at which it begins among the bytes.
    pub(crate) at: usize,
    /// Its length.
    pub(crate) bytes: usize,
    pub(crate) kind: GoodKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GoodKind {
    /// A record or a gap.
    Records {
        epoch: Epoch,
        from: Offset,
        end: Offset,
    },
    Start {
        epoch: Epoch,
        start: Offset,
    },
    SyncMark(SyncMark),
}

impl Good {
    /// The end of what is missing in front of it, unless it does not say.
    pub(crate) fn missing_end(&self) -> Option<Offset> {
        match self.kind {
            GoodKind::Records { from, .. } => Some(from),
            GoodKind::Start { start, .. } => Some(start),
            GoodKind::SyncMark(_) => None,
        }
    }

    /// The tail of a log that ends with it.
    fn tail(&self) -> Tail {
        match self.kind {
            GoodKind::Records { epoch, end, .. } => Tail { epoch, end },
            GoodKind::Start { epoch, start } => Tail { epoch, end: start },
            GoodKind::SyncMark(mark) => mark.tail,
        }
    }
}

/// The good frames from a byte on, of a log that holds a prefix with a given tail in front of it. None is missed, and payloads that
/// are made to look like frames do not make it slow.
pub(crate) struct GoodFrames<'a, 'c> {
    crcs: &'c mut Crcs<'a>,
    mask: u32,
    bad_at: usize,
    at: usize,
    /// None begins from here on.
    end: usize,
    after: Tail,
}

impl<'a, 'c> GoodFrames<'a, 'c> {
    /// Those behind the bad frame at byte `bad_at`, or that frame if only something in front of it is missing.
    pub(crate) fn behind(crcs: &'c mut Crcs<'a>, mask: u32, bad_at: usize, after: Tail) -> Self {
        let end = bad_at.saturating_add(used(crcs.bytes.get(bad_at..).unwrap_or_default()));
        Self { crcs, mask, bad_at, at: bad_at, end, after }
    }

    fn look(&mut self) -> Option<Good> {
        let rest = self.crcs.bytes.get(self.at..)?;
        let peek = peek(rest)?;
        // Its claims come first: they cost less.
        let may_follow = match peek.kind {
            KIND_RECORD | KIND_COMPACTED => peek.first_word >= self.after.end.0,
            KIND_EPOCH_START => peek.first_word > self.after.epoch.0,
            KIND_SYNC_MARK => true,
            _ => false,
        };
        if !may_follow {
            return None;
        }
        let kind = match parse_unchecked(rest.get(PREFIX_BYTES..peek.bytes)?).ok()? {
            Frame::Record(record) if record.epoch >= self.after.epoch => {
                GoodKind::Records { epoch: record.epoch, from: record.offset, end: record.offset.plus(1) }
            }
            Frame::Compacted(gap) if gap.epoch >= self.after.epoch => {
                GoodKind::Records { epoch: gap.epoch, from: gap.from, end: gap.end }
            }
            Frame::Start(start) if start.start >= self.after.end => {
                GoodKind::Start { epoch: start.epoch, start: start.start }
            }
            Frame::SyncMark(mark) => GoodKind::SyncMark(mark),
            _ => return None,
        };
        let (stored, computed) = (Cursor(rest).u32()?, self.crcs.of(self.at + LENGTH_AT..self.at + peek.bytes)?);
        if stored ^ self.mask != computed {
            return None;
        }
        let good = Good { at: self.at, bytes: peek.bytes, kind };
        let follows = self.at > self.bad_at || good.missing_end().is_some_and(|end| end > self.after.end);
        follows.then_some(good)
    }
}

impl Iterator for GoodFrames<'_, '_> {
    type Item = Good;

    fn next(&mut self) -> Option<Good> {
        while self.at < self.end {
            self.at = self.at.saturating_add(self.crcs.bytes.get(self.at..).map_or(0, skipped));
            if self.at >= self.end {
                break;
            }
            if let Some(good) = self.look() {
                self.at += good.bytes;
                return Some(good);
            }
            self.at += 1;
        }
        None
    }
}

/// The number of bytes in front of the first that a frame may begin with, by its kind and flags: most cannot be, and that is seen of
/// many at once.
fn skipped(bytes: &[u8]) -> usize {
    let (kinds, flags) = (bytes.get(KIND_AT..).unwrap_or_default(), bytes.get(FLAGS_AT..).unwrap_or_default());
    let may_begin =
        |(kind, flags): (&u8, &u8)| kind.wrapping_sub(KIND_RECORD) < KIND_SYNC_MARK && *flags <= RECORD_FLAGS;
    let pieces = || kinds.chunks(PIECE_BYTES).zip(flags.chunks(PIECE_BYTES));
    let any = |(kinds, flags): (&[u8], &[u8])| kinds.iter().zip(flags).fold(false, |any, head| any | may_begin(head));
    let passed = pieces().take_while(|piece| !any(*piece)).count();
    let rest = pieces().nth(passed).and_then(|(kinds, flags)| kinds.iter().zip(flags).position(may_begin));
    let skipped = rest.map_or(bytes.len(), |rest| passed * PIECE_BYTES + rest);
    debug_assert!(skipped <= bytes.len(), "a frame is looked for behind the bytes");
    skipped
}

/// The findings behind a bad frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Behind {
    /// The greatest tail that a good frame tells of.
    pub(crate) tail: Tail,
    /// The bad frame was once whole on the disk: a sync had succeeded before something behind it was written.
    pub(crate) was_durable: bool,
}

/// Looks at everything behind the bad frame at byte `at`, whose position in the segment is `position`.
pub(crate) fn behind(crcs: &mut Crcs<'_>, mask: u32, at: usize, position: u64, after: Tail) -> Behind {
    let frames = GoodFrames::behind(crcs, mask, at, after);
    frames.fold(Behind::default(), |found, good| Behind {
        tail: found.tail.max(good.tail()),
        was_durable: found.was_durable || matches!(good.kind, GoodKind::SyncMark(sync) if sync.position > position),
    })
}

/// The records of a segment, each checked; what is damaged is passed over.
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    crcs: Crcs<'a>,
    mask: u32,
    /// The position at which the bytes are in the segment.
    position: u64,
    at: usize,
    /// The record that is next.
    next: Offset,
    /// The offset at which the records end.
    end: Offset,
}

/// The next finding.
pub(crate) enum Piece<'a> {
    /// A record, and where its frame begins in the segment.
    Record(u64, RecordView<'a>),
    /// A compacted range in place of removed records, and where its frame begins; of the first, a part may lie before what is asked for.
    Compacted(u64, CompactedRange),
    Damaged(DamagedRange),
}

impl<'a> Frames<'a> {
    /// Those of the bytes, which lie at the position, begin with the frame of record `next` or one before it that has no record, and
    /// should hold all before `end`.
    pub(crate) fn new(bytes: &'a [u8], mask: u32, position: u64, next: Offset, end: Offset) -> Self {
        Self { bytes, crcs: Crcs::new(bytes), mask, position, at: 0, next, end }
    }

    /// The offset at which the frame begins that comes next, and the record that it should be or stand in front of.
    pub(crate) fn place(&self) -> (u64, Offset) {
        (self.position.saturating_add(wide(self.at)), self.next)
    }

    /// Passes over what is not the next record.
    fn damaged(&mut self, fault: Fault) -> Piece<'a> {
        let (bad_at, from, after) = (self.at, self.next, Tail { epoch: Epoch(0), end: self.next });
        let goes_on = |good: Good| good.missing_end().filter(|end| *end <= self.end).map(|end| (good.at, end));
        let good = GoodFrames::behind(&mut self.crcs, self.mask, bad_at, after).find_map(goes_on);
        (self.at, self.next) = good.unwrap_or((self.bytes.len(), self.end));
        assert!(self.at > bad_at || self.next > from, "damage is not passed over");
        let (position, until) =
            (self.position.saturating_add(wide(bad_at)), self.position.saturating_add(wide(self.at)));
        Piece::Damaged(DamagedRange { position, until, from, to: self.next, fault })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty());
            let Some(rest) = rest else {
                return (self.next < self.end).then(|| self.damaged(Fault::Empty));
            };
            match parse(rest, self.mask) {
                Ok((Frame::Record(_) | Frame::Compacted(_), _)) if self.next >= self.end => {
                    // Not asked for, or not in the log any more.
                    self.at = self.bytes.len();
                    return None;
                }
                Ok((Frame::Record(record), bytes)) if record.offset == self.next => {
                    let position = self.position.saturating_add(wide(self.at));
                    self.at = self.at.saturating_add(bytes);
                    self.next = self.next.plus(1);
                    return Some(Piece::Record(position, record));
                }
                Ok((Frame::Compacted(gap), bytes)) if (gap.from..gap.end).contains(&self.next) => {
                    let position = self.position.saturating_add(wide(self.at));
                    self.at = self.at.saturating_add(bytes);
                    self.next = gap.end;
                    return Some(Piece::Compacted(position, gap));
                }
                Ok((Frame::Start(_) | Frame::SyncMark(_), bytes)) => self.at = self.at.saturating_add(bytes),
                Ok((
                    Frame::Record(RecordView { offset, .. }) | Frame::Compacted(CompactedRange { from: offset, .. }),
                    _,
                )) if (self.next..self.end).contains(&offset) => {
                    let fault = Fault::Offset { expected: self.next, found: offset };
                    let position = self.position.saturating_add(wide(self.at));
                    let from = std::mem::replace(&mut self.next, offset);
                    return Some(Piece::Damaged(DamagedRange { position, until: position, from, to: offset, fault }));
                }
                Ok((Frame::Record(record), _)) => {
                    return Some(self.damaged(Fault::Offset { expected: self.next, found: record.offset }));
                }
                Ok((frame, _)) => return Some(self.damaged(Fault::Kind(frame.kind()))),
                Err(fault) => return Some(self.damaged(fault)),
            }
        }
    }
}

/// The first damage among the bytes, which lie at the position and should hold those records.
pub(crate) fn first_damage(bytes: &[u8], mask: u32, position: u64, records: Range<Offset>) -> Option<DamagedRange> {
    let damaged = |piece| if let Piece::Damaged(damaged) = piece { Some(damaged) } else { None };
    Frames::new(bytes, mask, position, records.start, records.end).find_map(damaged)
}

/// The number of bytes before the trailing zeroes.
pub(crate) fn used(bytes: &[u8]) -> usize {
    const PAGE: [u8; 4096] = [0; 4096];
    let (_, pages) = bytes.as_rchunks::<4096>();
    let zero_pages = pages.iter().rev().take_while(|page| **page == PAGE).count();
    let rest = bytes.get(..bytes.len() - zero_pages * PAGE.len()).unwrap_or_default();
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_skipped_where_a_frame_may_begin() {
        for at in 0..100 {
            for (kind, flags) in [(0, 0), (1, 0), (5, 7), (6, 0), (255, 1), (1, 8)] {
                let mut bytes = [9; 120];
                (bytes[at + KIND_AT], bytes[at + FLAGS_AT]) = (kind, flags);
                let may_begin = (1..=5).contains(&kind) && flags < 8;
                assert_eq!(skipped(&bytes), if may_begin { at } else { 120 }, "{kind} {flags} at {at}");
                assert_eq!(skipped(&bytes[..at + FLAGS_AT]), at + FLAGS_AT);
            }
        }
    }
}
