//! Checking every byte of a log, a piece at a time, while it is used.

use std::sync::{Arc, Weak};

use zue_core::{Epoch, EpochStart, Offset, ProducerLimits, Producers, Tail};

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Damage, Operation, ReadError};
use crate::format::block::BLOCK_BYTES;
use crate::format::crcs::Crcs;
use crate::format::fault::Fault;
use crate::format::salvage::{DamagedRange, GoodFrames, GoodKind};
use crate::format::sequence::FrameSequence;
use crate::num::wide;
use crate::read::reader::Reader;
use crate::recovery::scan::{State, Stop};
use crate::segment::Segment;
use crate::segment::header::Header;
use crate::segment::index::Spacing;
use crate::segment::part::Part;

/// Goes over a log, from the first segment to the one that was the last when it began, and names what is damaged. What it finds is
/// known from then on: see [`crate::Reader::damaged`]. It holds one segment at a time, so that what is trimmed meanwhile can go.
#[derive(Debug)]
pub struct Verifier<D: Disk> {
    reader: Reader<D>,
    /// The offset at which the log ended when it began.
    end: Offset,
    now: Option<Cursor<D>>,
    last: Option<LastSegment<D>>,
    /// The state after the segments so far, unless the last one is damaged.
    before: Option<State>,
}

/// The last segment that was begun, and where it ended then.
#[derive(Debug)]
struct LastSegment<D: Disk> {
    segment: Weak<Segment<D>>,
    base: Offset,
    ends: (u64, Offset),
}

/// A place in a segment.
#[derive(Debug)]
struct Cursor<D: Disk> {
    part: Part<D>,
    position: u64,
    state: State,
    is_whole: bool,
}

/// The part that a step has checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// The number of bytes.
    pub bytes: u64,
    /// The damage behind them. The next step goes on behind that.
    pub damage: Option<Damage>,
}

impl<D: Disk> Reader<D> {
    /// Checks all that the log holds now, a piece at a time.
    pub fn verifier(&self) -> Verifier<D> {
        Verifier::new(self.clone())
    }
}

impl<D: Disk> Verifier<D> {
    pub(crate) fn new(reader: Reader<D>) -> Self {
        Self { end: reader.tail().end, reader, now: None, last: None, before: None }
    }

    /// The next segment, as it is in the log now; whether it follows the last one that was checked.
    fn next_part(&self) -> Option<(Part<D>, bool)> {
        let last = self.last.as_ref();
        let is_next =
            |part: &Part<D>| part.segment.base() <= self.end && last.is_none_or(|last| last.base < part.segment.base());
        let mut parts = self.reader.view().parts();
        let at = parts.iter().position(is_next)?;
        let before = at.checked_sub(1).and_then(|before| parts.get(before));
        // A cut leaves a segment as it is, but for where it ends.
        let follows = before.zip(last).is_some_and(|(part, last)| {
            last.segment.as_ptr() == Arc::as_ptr(&part.segment) && last.ends == (part.bytes_end, part.end)
        });
        Some((parts.swap_remove(at), follows))
    }

    /// Checks about as many bytes further; `None` once all are checked.
    ///
    /// # Errors
    /// When the disk refuses. The next step goes on with the next segment.
    pub fn step(&mut self, bytes_max: usize) -> Result<Option<Verified>, ReadError> {
        let before = self.before.take();
        let (verified, place) = match self.now.take() {
            Some(place) => place.step(bytes_max)?,
            None => match self.next_part() {
                Some((part, follows)) => {
                    let (segment, base) = (Arc::downgrade(&part.segment), part.segment.base());
                    self.last = Some(LastSegment { segment, base, ends: (part.bytes_end, part.end) });
                    Cursor::enter(part, before.as_ref().filter(|_| follows))?
                }
                None => return Ok(None),
            },
        };
        if place.position < place.part.bytes_end || place.state.sequence.tail.end != place.part.end {
            self.now = Some(place);
        } else {
            self.before = Some(place.state).filter(|_| place.is_whole);
        }
        Ok(Some(verified))
    }
}

impl<D: Disk> Cursor<D> {
    /// Checks what is in front of a segment's frames.
    fn enter(part: Part<D>, before: Option<&State>) -> Result<(Verified, Self), ReadError> {
        let (segment, base) = (&part.segment, part.segment.base());
        let damaged = |position, fault| {
            segment.place.note(DamagedRange { position, until: position, from: base, to: base, fault })
        };
        let head = segment.file.read(0..wide(BLOCK_BYTES));
        let head = head.context(Operation::Read, || segment.place.path.clone())?;
        let head = Header::decode(&head).ok().filter(|header| *header == segment.header);
        let found = match segment.snapshot() {
            Ok((snapshot, data_start)) => {
                let follows = before.is_none_or(|before| {
                    continues(&snapshot.starts, &before.starts)
                        && snapshot.timestamp_ms >= before.sequence.timestamp_ms
                        && base == before.sequence.tail.end
                });
                // Producers are not compared: what a cut has taken back is forgotten, not undone.
                let state = State::at_start(snapshot, ProducerLimits::default()).ok().filter(|_| follows);
                state.map(|state| (state, data_start)).ok_or_else(|| damaged(wide(BLOCK_BYTES), Fault::Snapshot))
            }
            Err(ReadError::Damaged(damage)) => Err(damage),
            Err(error) => return Err(error),
        };
        let damage = if head.is_none() { Some(damaged(0, Fault::Header)) } else { found.as_ref().err().cloned() };
        let (state, position) = found.unwrap_or_else(|_| (from_here(Tail { epoch: Epoch(0), end: base }), 0));
        let mut place = Self { is_whole: damage.is_none(), part, position, state };
        if place.position == 0 {
            place.pass(wide(BLOCK_BYTES), base)?;
        }
        Ok((Verified { bytes: position, damage }, place))
    }

    fn step(mut self, bytes_max: usize) -> Result<(Verified, Self), ReadError> {
        let Part { segment, bytes_end, end } = &self.part;
        let rest = bytes_end.saturating_sub(self.position);
        let mut take = rest.min(wide(bytes_max).max(1));
        let found = loop {
            let bytes = segment.view(self.position, self.position.saturating_add(take))?;
            let found =
                self.state.scan(&bytes, segment.mask, self.position, &mut Spacing::new(u32::MAX, self.position));
            if found.bytes > 0 || take == rest {
                break found;
            }
            // One append is longer.
            take = rest.min(take.saturating_mul(2));
        };
        let tail = self.state.sequence.tail.end;
        let stop = match found.stop {
            // The piece ends inside a frame or an append.
            Some(Stop { fault: Fault::Truncated { .. } | Fault::Unfinished(_), .. }) if take < rest => None,
            None if take == rest && tail != *end => {
                Some(Stop { at: found.bytes, sequence: self.state.sequence, fault: Fault::Empty })
            }
            stop => stop,
        };
        self.position = self.position.saturating_add(wide(found.bytes));
        let mut verified = Verified { bytes: wide(found.bytes), damage: None };
        if let Some(Stop { at, sequence, fault }) = stop {
            let position = self.position.saturating_add(wide(at.saturating_sub(found.bytes)));
            let (place, from) = (Arc::clone(&segment.place), sequence.tail.end);
            let to = self.pass(position, from)?;
            match place.blame(DamagedRange { position, until: self.position, from, to, fault }) {
                ReadError::Damaged(damage) => verified.damage = Some(damage),
                error => return Err(error),
            }
        }
        Ok((verified, self))
    }

    /// Goes on behind the bad frame at the position, where record `from` should be; the end of what is damaged.
    fn pass(&mut self, position: u64, from: Offset) -> Result<Offset, ReadError> {
        let Part { segment, bytes_end, end } = &self.part;
        let bytes = segment.view(position, *bytes_end)?;
        let after = Tail { epoch: Epoch(0), end: from };
        let mut crcs = Crcs::new(&bytes);
        let mut good = GoodFrames::behind(&mut crcs, segment.mask, 0, after).filter_map(|good| {
            let tail = match good.kind {
                GoodKind::Records { epoch, from, .. } => Tail { epoch, end: from },
                GoodKind::Start { epoch, start } => Tail { epoch: Epoch(epoch.0.saturating_sub(1)), end: start },
                GoodKind::SyncMark(_) => return None,
            };
            (tail.end <= *end).then_some((position.saturating_add(wide(good.at)), tail))
        });
        let (next, tail) = good.next().unwrap_or((*bytes_end, Tail { end: *end, ..after }));
        (self.position, self.state, self.is_whole) = (next, from_here(tail), false);
        Ok(tail.end)
    }
}

/// The state in front of a frame when what is before it is not known.
fn from_here(tail: Tail) -> State {
    State { sequence: FrameSequence::after(tail, 0), starts: Vec::new(), producers: Producers::default() }
}

/// Returns whether epoch starts begin with those that were there before, without the first ones if the log was trimmed between.
pub(crate) fn continues(starts: &[EpochStart], before: &[EpochStart]) -> bool {
    let first = starts.first().map_or(Epoch(0), |first| first.epoch);
    starts.starts_with(before.split_at(before.partition_point(|start| start.epoch < first)).1)
}
