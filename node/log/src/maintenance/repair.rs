//! Repairing what is damaged: a sealed segment is written anew, its bad frames replaced by those of another replica. What nobody has
//! whole stays as it is.

use std::sync::Arc;

use bytes::Bytes;
use zue_core::Offset;

use crate::disk::Disk;
use crate::error::{Damage, LogError, ReadError};
use crate::format::batch::FrameError;
use crate::format::encode::mask_crc;
use crate::format::fault::Fault;
use crate::format::frame::{Frame, parse};
use crate::format::salvage::{DamagedRange, Frames, Piece};
use crate::log::Log;
use crate::maintenance::rewrite::{Rewrite, RewriteError, Rewritten};
use crate::num::{length, wide};
use crate::read::reader::Reader;
use crate::segment::part::Part;

/// Consecutive records as they travel, or what stands for them where they were compacted away. Each is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt {
    bytes: Bytes,
    from: Offset,
    end: Offset,
}

impl Excerpt {
    /// Checks bytes that a peer sent: records, or gaps, without others missing between them, the first of which is `from`.
    ///
    /// # Errors
    /// The first fault and where it is.
    pub fn decode(bytes: Bytes, from: Offset) -> Result<Self, FrameError> {
        let (mut at, mut end) = (0, from);
        while at < bytes.len() {
            let fault = |fault| FrameError { position: wide(at), fault };
            let (frame, length) = parse(bytes.get(at..).unwrap_or_default(), 0).map_err(fault)?;
            let (first, behind) = match frame {
                Frame::Record(record) => (record.offset, record.offset.plus(1)),
                Frame::Compacted(gap) => (gap.from, gap.end),
                other => return Err(fault(Fault::Kind(other.kind()))),
            };
            if first != end {
                return Err(fault(Fault::Offset { expected: end, found: first }));
            }
            (at, end) = (at + length, behind);
        }
        if bytes.is_empty() {
            return Err(FrameError { position: 0, fault: Fault::Empty });
        }
        Ok(Self { bytes, from, end })
    }

    /// The frames as they travel.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The offset behind its last record.
    pub fn end(&self) -> Offset {
        self.end
    }
}

impl<D: Disk> Reader<D> {
    /// The part that has the damage.
    fn part_of(&self, damage: &Damage) -> Option<Part<D>> {
        self.view().parts().into_iter().find(|part| part.segment.place.path == damage.path)
    }

    /// The part that has the record.
    fn part(&self, offset: Offset, upto: Offset) -> Result<Part<D>, ReadError> {
        let view = self.view();
        let (log_start, end) = (view.oldest(), view.tail().end.min(upto));
        let part = view.part(offset).filter(|_| log_start <= offset && offset < end);
        part.ok_or(ReadError::OutOfRange { from: offset, log_start, end })
    }

    /// The records from `from` on and before `upto`, each checked, for another replica to repair its own: as many as `bytes_max`
    /// hold, at least one; fewer at the end of a segment and in front of damage.
    ///
    /// # Errors
    /// When `from` is out of range, or what is there cannot be read.
    pub fn excerpt(&self, from: Offset, upto: Offset, bytes_max: usize) -> Result<Excerpt, ReadError> {
        let part = self.part(from, upto)?;
        let (position, bytes) = part.find(from)?;
        let (mut out, mut end, mask) = (Vec::new(), from, part.segment.mask);
        let mut frames = Frames::new(&bytes, mask, position, from, part.end.min(upto));
        while end < upto && (end == from || out.len() < bytes_max) {
            let frame_at = out.len();
            match frames.next() {
                Some(Piece::Record(begins, record)) => {
                    let range = length(begins - position)..length(frames.place().0 - position);
                    out.extend_from_slice(bytes.get(range).unwrap_or_default());
                    mask_crc(&mut out, frame_at, mask);
                    end = record.offset.plus(1);
                }
                Some(Piece::Compacted(_, gap)) => {
                    let gap = gap.behind(end);
                    gap.put(&mut out);
                    end = gap.end;
                }
                Some(Piece::Damaged(damaged)) if end == from => return Err(part.segment.place.blame(damaged)),
                Some(Piece::Damaged(_)) | None => break,
            }
        }
        // What is copied is checked once more: a page may have gone from memory between.
        Excerpt::decode(out.into(), from).map_err(|_| part.damage(position, from))
    }

    /// Looks at every byte of a damaged segment: the records that cannot be read, each range by itself. None if what is damaged hides
    /// no record.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn missing(&self, damage: &Damage) -> Result<Vec<(Offset, Offset)>, ReadError> {
        let Some(part) = self.part_of(damage) else { return Ok(Vec::new()) };
        let mut source = Source::new(part)?;
        let mut missing = Vec::new();
        let mut take = |_: &[u8], piece: Piece<'_>| {
            if let Piece::Damaged(damaged) = piece
                && damaged.from < damaged.to
            {
                missing.push((damaged.from, damaged.to));
            }
            Ok::<_, ReadError>(())
        };
        while source.step(usize::MAX, &mut take)?.1 {}
        Ok(missing)
    }
}

/// A walk over the frames of a sealed segment.
#[derive(Debug)]
pub(crate) struct Source<D: Disk> {
    pub(crate) part: Part<D>,
    position: u64,
    next: Offset,
}

impl<D: Disk> Source<D> {
    pub(crate) fn new(part: Part<D>) -> Result<Self, ReadError> {
        let (position, next) = (part.body()?.data_start, part.segment.base());
        Ok(Self { part, position, next })
    }

    /// Takes the frames of about as many bytes: the bytes of each, and what it is. How many bytes there were, and whether there are more.
    pub(crate) fn step<E: From<ReadError>>(
        &mut self,
        bytes_max: usize,
        take: &mut impl FnMut(&[u8], Piece<'_>) -> Result<(), E>,
    ) -> Result<(u64, bool), E> {
        let Part { segment, bytes_end, end } = &self.part;
        let begun = self.position;
        let bytes = segment.view(begun, *bytes_end)?;
        let mut frames = Frames::new(&bytes, segment.mask, begun, self.next, *end);
        while self.position - begun < wide(bytes_max) {
            let Some(piece) = frames.next() else { return Ok((bytes_end - begun, false)) };
            let (until, next) = frames.place();
            let (Piece::Record(begins, _) | Piece::Compacted(begins, _)) = piece else {
                let Piece::Damaged(damaged) = piece else { continue };
                let range = length(damaged.position - begun)..length(until - begun);
                take(bytes.get(range).unwrap_or_default(), piece)?;
                (self.position, self.next) = (until, next);
                continue;
            };
            take(bytes.get(length(begins - begun)..length(until - begun)).unwrap_or_default(), piece)?;
            (self.position, self.next) = (until, next);
        }
        Ok((self.position - begun, true))
    }
}

/// A damaged segment that is being written anew.
#[derive(Debug)]
pub struct Repair<D: Disk> {
    source: Source<D>,
    anew: Rewrite<D>,
    /// The fetched excerpts, in order.
    excerpts: Vec<Excerpt>,
}

impl<D: Disk> Log<D> {
    /// The repair of the damaged segment with what was fetched from other replicas: each excerpt within what is missing, in
    /// order. `None` if the segment is not in the log any more. The active segment is sealed first.
    ///
    /// # Errors
    /// When there is no room for a further segment, or the disk refuses.
    pub fn repair(&mut self, damage: &Damage, excerpts: Vec<Excerpt>) -> Result<Option<Repair<D>>, LogError> {
        self.check_poison()?;
        let Some(part) = self.reader().part_of(damage) else { return Ok(None) };
        if Arc::ptr_eq(&part.segment, &self.view.active) {
            self.roll(0)?;
            if part.end == part.segment.base() {
                // One without records has been replaced by that.
                return Ok(None);
            }
        }
        let Some(part) = self.reader().part_of(damage) else { return Ok(None) };
        let source = Source::new(part)?;
        let anew = Rewrite::begin(&self.disk, &source.part, &self.view, self.config.producers)?;
        Ok(Some(Repair { source, anew, excerpts }))
    }
}

impl<D: Disk> Repair<D> {
    /// Writes about as many bytes; how many it were, and whether there is more to do.
    ///
    /// # Errors
    /// When the disk refuses, or what was fetched does not belong there.
    pub fn step(&mut self, bytes_max: usize) -> Result<(u64, bool), RewriteError> {
        let Self { source, anew, excerpts } = self;
        let (mask, part) = (source.part.segment.mask, source.part.clone());
        let mut take = |bytes: &[u8], piece: Piece<'_>| match piece {
            // A gap that was fetched may reach beyond what was damaged.
            Piece::Record(_, record) if record.offset < anew.next() => Ok(()),
            Piece::Record(_, record) => anew.record(bytes, &record, mask),
            Piece::Compacted(_, gap) if gap.end <= anew.next() => Ok(()),
            Piece::Compacted(_, gap) => anew.gap(gap, |_| true),
            Piece::Damaged(damaged) if damaged.to <= anew.next() => Ok(()),
            Piece::Damaged(damaged) => fill(anew, excerpts, damaged, bytes, &part),
        };
        source.step(bytes_max, &mut take)
    }

    /// Makes the new file durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(self) -> Result<Rewritten<D>, RewriteError> {
        self.anew.finish()
    }
}

/// Puts what was fetched where the damaged range is. What nobody has stays damaged; its bytes stay in front of the first of it.
fn fill<D: Disk>(
    anew: &mut Rewrite<D>,
    excerpts: &[Excerpt],
    damaged: DamagedRange,
    mut bytes: &[u8],
    part: &Part<D>,
) -> Result<(), RewriteError> {
    let keep = |anew: &mut Rewrite<D>, bytes: &[u8], to| {
        if !bytes.is_empty() {
            part.segment.place.is_as_shown(damaged, bytes)?;
        }
        anew.damaged(bytes, DamagedRange { to, ..damaged })
    };
    for excerpt in excerpts.iter().filter(|excerpt| excerpt.from < damaged.to && damaged.from < excerpt.end) {
        let mut at = 0;
        while let Ok((frame, length)) = parse(excerpt.bytes.get(at..).unwrap_or_default(), 0) {
            let frame_bytes = excerpt.bytes.get(at..at + length).unwrap_or_default();
            at += length;
            let (from, behind) = match &frame {
                Frame::Record(record) => (record.offset, record.offset.plus(1)),
                Frame::Compacted(gap) => (gap.from, gap.end),
                _ => continue,
            };
            if behind <= anew.next() || from >= damaged.to {
                continue;
            }
            if from > anew.next() {
                keep(anew, std::mem::take(&mut bytes), from)?;
            }
            match frame {
                Frame::Record(record) => {
                    anew.restores();
                    anew.record(frame_bytes, &record, 0)?;
                }
                Frame::Compacted(gap) => anew.gap(gap.before(part.end, anew.timestamp_ms()), |_| true)?,
                _ => {}
            }
        }
    }
    if anew.next() < damaged.to { keep(anew, bytes, damaged.to) } else { Ok(()) }
}
