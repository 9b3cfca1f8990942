//! The check of the active segment when a log is opened: what is whole, what is damaged, what may be lost, what is torn. Looks
//! at bytes only and changes nothing.

use zue_core::{Epoch, Offset, Tail};

use crate::format::crcs::Crcs;
use crate::format::fault::Fault;
use crate::format::salvage::used;
use crate::format::salvage::{DamagedRange, GoodFrames, GoodKind, behind};
use crate::format::sequence::FrameSequence;
use crate::num::wide;
use crate::recovery::scan::{State, Stop};
use crate::segment::index::{Entry, Spacing};

/// The facts of a log besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogFacts {
    /// Everything before it is committed.
    pub(crate) commit_end: Offset,
    /// So much of the segment was on the disk once.
    pub(crate) synced: Tail,
    /// That was all, and nothing has been written behind it.
    pub(crate) closed: bool,
    /// The file was a segment before: behind the log are old bytes, and whether any of them is torn cannot be told.
    pub(crate) used: bool,
}

/// The result.
#[derive(Debug, Default)]
pub(crate) struct TailCheck {
    /// The number of bytes that are in the log.
    pub(crate) bytes: usize,
    /// The index entries of their records.
    pub(crate) entries: Vec<Entry>,
    /// Damage among them, and where what may be lost began.
    pub(crate) ranges: Vec<DamagedRange>,
    /// The number of bytes behind the log's end that are not zero, unless the file was used before.
    pub(crate) torn_bytes: usize,
    /// The log has to go on in another segment.
    pub(crate) renew: bool,
    /// The tail at which the log may have ended before a part of it was lost.
    pub(crate) suspect: Option<Tail>,
}

/// Why a log is not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forbids {
    /// A damaged range that cannot be passed over: an epoch may have started in it.
    HistoryGap(DamagedRange),
    /// A frame that only a later version writes. Taken for a torn tail, it would be cut away.
    Later { position: u64, fault: Fault },
}

/// The bytes of the active segment behind its snapshot.
#[derive(Clone, Copy)]
pub(crate) struct Active<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) mask: u32,
    /// The position of the first of them in the file.
    pub(crate) position: u64,
}

impl<'a> Active<'a> {
    /// Those from the one of that number on.
    fn rest(self, at: usize) -> &'a [u8] {
        self.bytes.get(at..).unwrap_or_default()
    }

    /// The position in the file.
    fn at(self, at: usize) -> u64 {
        self.position.saturating_add(wide(at))
    }
}

/// The end of the log, and the frame behind it that is not what belongs there.
#[derive(Clone, Copy)]
enum LogEnd {
    /// The last append is whole.
    Whole(Stop),
    /// The last committed records are damaged.
    Damaged(Stop),
}

/// Takes all frames that the bytes begin with into the state. Bad ones that were committed are passed over; the first other one ends
/// the log.
///
/// # Errors
/// What forbids to go on.
pub(crate) fn check_tail(
    state: &mut State,
    active: Active<'_>,
    spacing: &mut Spacing,
    known: LogFacts,
) -> Result<TailCheck, Forbids> {
    let mut tail_check = TailCheck::default();
    let mut crcs = Crcs::new(active.bytes);
    let end = loop {
        let stop = tail_check.take_whole(state, active, spacing)?;
        if state.sequence.tail.end >= known.commit_end {
            break LogEnd::Whole(stop);
        }
        if !tail_check.pass_over(state, active, &mut crcs, stop, known)? {
            break LogEnd::Damaged(stop);
        }
    };
    assert!(state.sequence.tail.end >= known.commit_end, "what is committed is left out of the log");
    assert!(tail_check.bytes <= active.bytes.len(), "more is in a segment than its file holds");
    debug_assert!(tail_check.entries.is_sorted_by(|a, b| a.position < b.position), "positions of an index fell");
    tail_check.judge_rest(end, state.sequence.tail, active, &mut crcs, known);
    Ok(tail_check)
}

impl TailCheck {
    /// Takes whole appends and epoch starts, up to the first frame that is not what belongs there.
    fn take_whole(&mut self, state: &mut State, active: Active<'_>, spacing: &mut Spacing) -> Result<Stop, Forbids> {
        let found = state.scan(active.rest(self.bytes), active.mask, active.at(self.bytes), spacing);
        self.entries.extend(found.entries);
        let nothing = Stop { at: found.bytes, sequence: state.sequence, fault: Fault::Empty };
        let stop = found.stop.unwrap_or(nothing);
        let stop = Stop { at: stop.at.saturating_add(self.bytes), ..stop };
        self.bytes = self.bytes.saturating_add(found.bytes);
        debug_assert!(self.bytes <= stop.at, "what stops a scan is taken");
        if stop.fault.is_of_later_version() {
            return Err(Forbids::Later { position: active.at(stop.at), fault: stop.fault });
        }
        Ok(stop)
    }

    /// Passes over what is damaged and was committed; returns whether frames follow that were committed.
    fn pass_over(
        &mut self,
        state: &mut State,
        active: Active<'_>,
        crcs: &mut Crcs<'_>,
        stop: Stop,
        known: LogFacts,
    ) -> Result<bool, Forbids> {
        let (after, bad_at) = (stop.sequence.tail, active.at(stop.at));
        let next = next_place(crcs, active.mask, stop).filter(|next| next.offset <= known.commit_end);
        let to = next.map_or(known.commit_end, |next| next.offset).max(after.end);
        let damaged = DamagedRange { position: bad_at, until: bad_at, from: after.end, to, fault: stop.fault };
        if next.map_or(known.synced.epoch > after.epoch, |next| !next.same_epoch) {
            return Err(Forbids::HistoryGap(damaged));
        }
        self.ranges.push(damaged);
        state.sequence = FrameSequence::after(Tail { end: to, ..after }, stop.sequence.timestamp_ms);
        // Who appended what is in there is not known.
        state.producers.forget(to);
        // The bytes stay with the segment: who repairs or rewrites it keeps them.
        self.bytes = next.map_or_else(|| stop.at + used(active.rest(stop.at)), |next| next.at);
        debug_assert!(next.is_none() || self.bytes > stop.at || to > after.end, "damage is not passed over");
        Ok(next.is_some())
    }

    /// Judges what lies behind the log's end: what a crash has torn, what may be lost, and whether the log has to go on elsewhere.
    fn judge_rest(&mut self, end: LogEnd, tail: Tail, active: Active<'_>, crcs: &mut Crcs<'_>, known: LogFacts) {
        let rest = active.rest(self.bytes);
        let (is_damaged, stop) = match end {
            LogEnd::Whole(stop) => (false, stop),
            LogEnd::Damaged(stop) => (true, stop),
        };
        if !is_damaged && known.closed && tail == known.synced && (known.used || used(rest) == 0) {
            return;
        }
        let position = active.at(stop.at);
        let behind = behind(crcs, active.mask, stop.at, position, stop.sequence.tail);
        // What a crash tears was never acknowledged; what was on the disk before it, and all behind that, may have been.
        let was_durable = behind.was_durable || is_damaged || known.synced > tail;
        self.suspect = Some(behind.tail.max(known.synced)).filter(|suspect| was_durable && *suspect > tail);
        if let Some(suspect) = self.suspect
            && !is_damaged
        {
            let to = suspect.end.max(tail.end);
            self.ranges.push(DamagedRange { position, until: position, from: tail.end, to, fault: stop.fault });
        }
        self.torn_bytes = if known.used { 0 } else { used(rest) };
        self.renew = known.used || is_damaged || self.torn_bytes > 0;
    }
}

/// The place where the frames go on.
#[derive(Clone, Copy)]
struct Next {
    at: usize,
    offset: Offset,
    /// No epoch has started between.
    same_epoch: bool,
}

fn next_place(crcs: &mut Crcs<'_>, mask: u32, stop: Stop) -> Option<Next> {
    let after = stop.sequence.tail;
    GoodFrames::behind(crcs, mask, stop.at, after).find_map(|good| {
        let same_epoch = match good.kind {
            GoodKind::Records { epoch, .. } => epoch == after.epoch,
            // Epochs rise: none lies between these two.
            GoodKind::Start { epoch, .. } => epoch == Epoch(after.epoch.0.saturating_add(1)),
            GoodKind::SyncMark(_) => false,
        };
        good.missing_end().map(|offset| Next { at: good.at, offset, same_epoch })
    })
}
