//! Key compaction: of the records with the same key only the newest is kept, and a record that deletes its key goes in time. In
//! rounds: what is new is mapped, key to newest offset, as far as the memory for that reaches; then every segment that holds
//! something older is written anew, the oldest first, so that no deleted value comes back wherever a round ends.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use zue_core::{Aged, Offset, ProducerLimits};

use crate::config::CompactionConfig;
use crate::disk::Disk;
use crate::error::{LogError, Operation, ReadError};
use crate::format::frame::{RecordView, parse};
use crate::format::producer::ProducerRun;
use crate::format::salvage::Piece;
use crate::log::Log;
use crate::maintenance::repair::Source;
use crate::maintenance::rewrite::{Rewrite, RewriteError, Rewritten};
use crate::meta::Meta;
use crate::read::read_view::ReadView;
use crate::read::reader::Reader;
use crate::segment::header::SEGMENT_REWRITTEN;
use crate::segment::part::Part;

/// The number of keys that one round maps: about 18 MiB.
const KEYS_MAX: usize = 900_000;
/// For how many producers of a segment it is known which of their appends is the newest: about 4 MiB. Of all others every append
/// that goes is kept in mind.
const PRODUCERS_MAX: usize = 100_000;

/// One round of compaction, to be done beside the log in steps.
#[derive(Debug)]
pub struct Compaction<D: Disk> {
    reader: Reader<D>,
    disk: D,
    limits: ProducerLimits,
    /// Records that delete are kept unless they are known to be older than so many ms.
    deletes_kept: (Aged, u64),
    keys: Keys,
    /// The bases of the segments to be mapped, then of those to be compacted; oldest first. None is held before its turn, so that
    /// what is trimmed meanwhile can go.
    parts: std::vec::IntoIter<Offset>,
    all: Vec<Offset>,
    /// The range that is mapped: from the end of the round before, up to where this one is to end.
    from: Offset,
    end: Offset,
    phase: Phase<D>,
    /// Something could not be read: a value that was deleted may be among it.
    may_hold_more: bool,
}

#[derive(Debug)]
enum Phase<D: Disk> {
    /// The next part is to be taken.
    Map,
    Mapping(Source<D>),
    Compact,
    Judging(Source<D>, Judgement),
    Writing(Source<D>, Box<Rewrite<D>>, Judgement),
}

/// The result of a step.
#[derive(Debug)]
pub enum Compacting<D: Disk> {
    /// So many bytes were read, or written as well; there is more to do.
    Bytes(u64),
    /// A segment is ready: for [`Log::rewritten`], before the next step.
    Segment(Box<Rewritten<D>>),
    /// The round is done: for [`Log::compacted`].
    Done,
}

/// The newest record of each key.
#[derive(Debug)]
struct Keys {
    newest: HashMap<u64, Offset>,
    hasher: RandomState,
    max: usize,
    /// Something could not be read, or two keys had the same hash: older records stay, and this round is to be done again.
    incomplete: bool,
}

/// The part of a segment to remove.
#[derive(Debug, Default)]
struct Judgement {
    /// A set of 64 offsets each that go, those of which none does left out: after a compaction a segment may span all offsets there are.
    goes: Vec<(u64, u64)>,
    /// The last offset of each producer.
    producers: HashMap<u128, Offset>,
}

impl Judgement {
    /// Offsets rise.
    fn set(&mut self, offset: Offset) {
        let (word, bit) = (offset.0 / 64, 1 << (offset.0 % 64));
        debug_assert!(self.goes.last().is_none_or(|(last, bits)| (*last, *bits) < (word, bit)), "offsets fell");
        match self.goes.last_mut() {
            Some((last, bits)) if *last == word => *bits |= bit,
            _ => self.goes.push((word, bit)),
        }
    }

    fn goes(&self, offset: Offset) -> bool {
        let (word, bit) = (offset.0 / 64, 1 << (offset.0 % 64));
        let found = self.goes.binary_search_by_key(&word, |(word, _)| *word);
        found.is_ok_and(|at| self.goes.get(at).is_some_and(|(_, bits)| bits & bit != 0))
    }

    fn saw(&mut self, producer: u128, offset: Offset) {
        if self.producers.len() < PRODUCERS_MAX || self.producers.contains_key(&producer) {
            self.producers.insert(producer, offset);
        }
    }

    /// Returns whether nothing behind it in the segment tells of a newer append of the producer.
    fn is_newest(&self, run: &ProducerRun) -> bool {
        self.producers.get(&run.id).is_none_or(|last| last.plus(1) <= run.end())
    }
}

impl Keys {
    /// Notes a record; whether there was room for its key.
    fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hasher.hash_one(key);
        if self.newest.len() >= self.max && !self.newest.contains_key(&hash) {
            return false;
        }
        let before = self.newest.insert(hash, offset);
        debug_assert!(
            before.is_none_or(|before| before < offset),
            "an older record is taken for the newest of its key"
        );
        debug_assert!(self.newest.len() <= self.max, "more keys are mapped than there is memory for");
        true
    }

    /// Returns whether a newer record of the key was mapped.
    fn has_newer<D: Disk>(&mut self, view: &ReadView<D>, key: &[u8], offset: Offset) -> bool {
        let Some(newest) = self.newest.get(&self.hasher.hash_one(key)).filter(|newest| **newest > offset) else {
            return false;
        };
        let is_same = is_key_of(view, *newest, key);
        self.incomplete |= !is_same;
        is_same
    }
}

/// Returns whether the record has that key. One that cannot be read has not.
fn is_key_of<D: Disk>(view: &ReadView<D>, offset: Offset, key: &[u8]) -> bool {
    let check = || {
        let part = view.part(offset)?;
        let (_, bytes) = part.find(offset).ok()?;
        let (record, _) = crate::format::frame::record(&bytes, part.segment.mask).or_else(|| {
            match parse(&bytes, part.segment.mask) {
                Ok((crate::format::frame::Frame::Record(record), length)) => Some((record, length)),
                _ => None,
            }
        })?;
        Some(record.offset == offset && record.key == Some(key))
    };
    check().unwrap_or(false)
}

impl<D: Disk> Log<D> {
    /// A round of compaction, if one is due: only sealed segments are compacted, and only what is written down as committed. `aged`
    /// tells which records that delete are old enough. What comes of it is to be told by [`Log::compacted`].
    pub fn compaction(&mut self, aged: Aged) -> Option<Compaction<D>> {
        self.compaction_of(aged, KEYS_MAX)
    }

    /// As [`Log::compaction`], with memory for so many keys.
    pub fn compaction_of(&mut self, aged: Aged, keys_max: usize) -> Option<Compaction<D>> {
        let CompactionConfig { tombstone_retention_ms, dirty_percent } = self.config.compaction?;
        if self.beside.compacting || self.poison.is_some() {
            return None;
        }
        let is_committed = |part: &&Part<D>| part.end <= self.meta.commit_end;
        let all: Vec<&Part<D>> = self.view.sealed.iter().take_while(is_committed).collect();
        let from = self.meta.compacted;
        let bytes = |parts: &mut dyn Iterator<Item = &Part<D>>| -> u64 { parts.map(|part| part.bytes_end).sum() };
        let dirty = bytes(&mut all.iter().copied().filter(|part| part.end > from));
        let is_due = dirty.saturating_mul(100) >= bytes(&mut all.iter().copied()).saturating_mul(dirty_percent.into());
        if dirty == 0 || !is_due {
            return None;
        }
        let (newest, hasher, max, incomplete) = (HashMap::new(), RandomState::new(), keys_max.max(1), false);
        let base = |part: &&Part<D>| part.segment.base();
        let dirty: Vec<_> = all.iter().filter(|part| part.end > from).map(base).collect();
        let (end, all) = (all.last().map_or(from, |part| part.end), all.iter().map(base).collect());
        assert!(end <= self.meta.commit_end, "what is not committed is to be compacted");
        debug_assert!(from <= end, "a round of compaction ends before it begins");
        self.beside.compacting = true;
        Some(Compaction {
            reader: self.reader(),
            disk: self.disk.clone(),
            limits: self.config.producers,
            deletes_kept: (aged, tombstone_retention_ms),
            keys: Keys { newest, hasher, max, incomplete },
            parts: dirty.into_iter(),
            end,
            all,
            from,
            phase: Phase::Map,
            may_hold_more: false,
        })
    }

    /// Takes note that a round is done, or was given up. The next one begins behind it.
    ///
    /// # Errors
    /// When the disk refuses. Without room for the meta file, the round may be done again.
    pub fn compacted(&mut self, round: Compaction<D>, done: bool) -> Result<(), LogError> {
        debug_assert!(self.beside.compacting, "a round ends that did not begin");
        debug_assert!(round.from <= round.end, "a round of compaction ends before it begins");
        self.beside.compacting = false;
        if !done {
            self.forget_rewrite();
            return Ok(());
        }
        // What a repair has brought back meanwhile is for the next round.
        if round.keys.incomplete || self.meta.compacted != round.from {
            return Ok(());
        }
        assert!(round.end <= self.meta.commit_end, "what is not committed was compacted");
        match self.replace_meta(&Meta { compacted: round.end, ..self.meta }) {
            Err(LogError::NoRoom(_)) => Ok(()),
            replaced => replaced,
        }
    }
}

impl<D: Disk> Compaction<D> {
    /// Returns whether older records stay in what it has done so far, for a later round.
    pub fn is_incomplete(&self) -> bool {
        self.keys.incomplete
    }

    /// Does a piece of the work. A segment that cannot be read stays as it is.
    ///
    /// # Errors
    /// When the disk refuses a write, or has no room: the round is to be given up then, and nothing is harmed.
    pub fn step(&mut self, bytes_max: usize) -> Result<Compacting<D>, RewriteError> {
        let is_mapping = matches!(self.phase, Phase::Map | Phase::Mapping(_));
        match self.try_step(bytes_max) {
            Err(RewriteError::Read(ReadError::Disk(error))) if error.operation == Operation::Read => {
                let _ = self.disk.remove(SEGMENT_REWRITTEN);
                (self.keys.incomplete, self.may_hold_more) = (true, true);
                self.phase = if is_mapping { Phase::Map } else { Phase::Compact };
                Ok(Compacting::Bytes(0))
            }
            stepped => stepped,
        }
    }

    fn try_step(&mut self, bytes_max: usize) -> Result<Compacting<D>, RewriteError> {
        match std::mem::replace(&mut self.phase, Phase::Map) {
            Phase::Map => match self.next_part() {
                Some(part) => {
                    self.phase = Phase::Mapping(Source::new(part)?);
                    Ok(Compacting::Bytes(0))
                }
                None => Ok(self.begin_compacting()),
            },
            Phase::Mapping(source) => Ok(self.map(source, bytes_max)?),
            Phase::Compact => match self.next_part() {
                Some(part) if part.segment.base() < self.end => {
                    self.phase = Phase::Judging(Source::new(part)?, Judgement::default());
                    Ok(Compacting::Bytes(0))
                }
                _ => Ok(Compacting::Done),
            },
            Phase::Judging(source, judgement) => self.judge(source, judgement, bytes_max),
            Phase::Writing(source, anew, judgement) => self.write(source, anew, judgement, bytes_max),
        }
    }

    /// The next segment as it is now, unless it was removed meanwhile.
    fn next_part(&mut self) -> Option<Part<D>> {
        let view = self.reader.view();
        let at = |base| view.sealed.iter().find(|part| part.segment.base() == base).cloned();
        self.parts.find_map(at)
    }

    fn begin_compacting(&mut self) -> Compacting<D> {
        self.parts = std::mem::take(&mut self.all).into_iter();
        self.phase = Phase::Compact;
        Compacting::Bytes(0)
    }

    fn map(&mut self, mut source: Source<D>, bytes_max: usize) -> Result<Compacting<D>, ReadError> {
        let (from, end, keys) = (self.from, &mut self.end, &mut self.keys);
        let place = Arc::clone(&source.part.segment.place);
        let mut take = |bytes: &[u8], piece: Piece<'_>| {
            if let Piece::Damaged(damaged) = piece {
                keys.incomplete |= place.is_as_shown(damaged, bytes).is_err();
            } else if let Piece::Record(_, record @ RecordView { key: Some(key), offset, .. }) = piece
                && (from..*end).contains(&record.offset)
                && !keys.note(key, offset)
            {
                *end = offset;
            }
            Ok::<_, ReadError>(())
        };
        let (bytes, more) = source.step(bytes_max, &mut take)?;
        let is_full = source.part.end > self.end;
        self.phase = if more && !is_full { Phase::Mapping(source) } else { Phase::Map };
        if is_full {
            self.begin_compacting();
        }
        Ok(Compacting::Bytes(bytes))
    }

    fn judge(
        &mut self,
        mut source: Source<D>,
        mut judgement: Judgement,
        bytes_max: usize,
    ) -> Result<Compacting<D>, RewriteError> {
        let (view, keys, end) = (self.reader.view(), &mut self.keys, self.end);
        let (may_hold_more, (aged, kept_ms)) = (&mut self.may_hold_more, self.deletes_kept);
        let place = Arc::clone(&source.part.segment.place);
        let mut take = |bytes: &[u8], piece: Piece<'_>| {
            match piece {
                Piece::Record(_, record) => {
                    if let Some(producer) = record.producer {
                        judgement.saw(producer.id, record.offset);
                    }
                    if let Some(key) = record.key.filter(|_| record.offset < end) {
                        let is_outdated = keys.has_newer(&view, key, record.offset);
                        // A record that deletes outlives all that it deletes.
                        let is_last = !*may_hold_more && !keys.incomplete;
                        let is_old = || aged.is_old(record.offset, kept_ms, record.timestamp_ms);
                        if is_outdated || (record.value.is_empty() && is_last && is_old()) {
                            judgement.set(record.offset);
                        }
                    }
                }
                Piece::Compacted(_, gap) => {
                    gap.runs.iter().for_each(|run| judgement.saw(run.id, Offset(run.end().0.saturating_sub(1))));
                }
                Piece::Damaged(damaged) => {
                    *may_hold_more = true;
                    place.is_as_shown(damaged, bytes)?;
                }
            }
            Ok::<_, ReadError>(())
        };
        let (bytes, more) = source.step(bytes_max, &mut take)?;
        self.phase = if more {
            Phase::Judging(source, judgement)
        } else if judgement.goes.is_empty() {
            Phase::Compact
        } else {
            let anew = Rewrite::begin(&self.disk, &source.part, &self.reader.view(), self.limits)?;
            Phase::Writing(Source::new(source.part)?, Box::new(anew), judgement)
        };
        Ok(Compacting::Bytes(bytes))
    }

    fn write(
        &mut self,
        mut source: Source<D>,
        mut anew: Box<Rewrite<D>>,
        judgement: Judgement,
        bytes_max: usize,
    ) -> Result<Compacting<D>, RewriteError> {
        let (mask, place) = (source.part.segment.mask, Arc::clone(&source.part.segment.place));
        let is_newest = |run: &ProducerRun| judgement.is_newest(run);
        let mut take = |bytes: &[u8], piece: Piece<'_>| match piece {
            Piece::Record(_, record) if judgement.goes(record.offset) => anew.leave_out(&record, is_newest),
            Piece::Record(_, record) => anew.record(bytes, &record, mask),
            Piece::Compacted(_, gap) => anew.gap(gap, is_newest),
            Piece::Damaged(damaged) => {
                place.is_as_shown(damaged, bytes)?;
                anew.damaged(bytes, damaged)
            }
        };
        let (bytes, more) = source.step(bytes_max, &mut take)?;
        if more {
            self.phase = Phase::Writing(source, anew, judgement);
            return Ok(Compacting::Bytes(bytes.saturating_mul(2)));
        }
        self.phase = Phase::Compact;
        Ok(Compacting::Segment(Box::new(anew.finish()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_remembered_record_by_record() {
        let mut judgement = Judgement::default();
        let (goes, far) = ([100, 163, 164, 500], u64::MAX - 1);
        goes.into_iter().chain([far]).for_each(|offset| judgement.set(Offset(offset)));
        let found: Vec<u64> = (0..600).filter(|offset| judgement.goes(Offset(*offset))).collect();
        assert_eq!((found.as_slice(), judgement.goes(Offset(far))), (goes.as_slice(), true));
        assert_eq!(judgement.goes.len(), 4, "no room for what lies between");
    }

    #[test]
    fn only_what_is_not_outlived_by_a_newer_append_is_kept_in_mind() {
        let mut judgement = Judgement::default();
        judgement.saw(1, Offset(3));
        judgement.saw(1, Offset(9));
        let run = |id, base| ProducerRun { id, sequence: 0, base: Offset(base), count: 2 };
        assert!(!judgement.is_newest(&run(1, 2)));
        assert!(judgement.is_newest(&run(1, 8)));
        assert!(judgement.is_newest(&run(2, 0)), "one that was not seen is kept");
    }
}
