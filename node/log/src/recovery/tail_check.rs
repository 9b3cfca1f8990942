//! What the active segment amounts to when a log is opened: what is whole, what is damaged, what may be lost, what is torn. Looks
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
pub(crate) struct Known {
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
    /// How many of the bytes are in the log.
    pub(crate) bytes: usize,
    /// The index entries of their records.
    pub(crate) entries: Vec<Entry>,
    /// Damage among them, and where what may be lost began.
    pub(crate) ranges: Vec<DamagedRange>,
    /// What is behind the log's end and not zero, unless the file was used before.
    pub(crate) torn_bytes: usize,
    /// The log has to go on in another segment.
    pub(crate) renew: bool,
    /// Where the log may have ended before a part of it was lost.
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

/// Takes all frames that `bytes` begin with into the state. Bad ones that were committed are passed over; the first other one ends
/// the log. `position` is where the bytes are in the file.
///
/// # Errors
/// What forbids to go on.
pub(crate) fn check_tail(
    state: &mut State,
    bytes: &[u8],
    mask: u32,
    position: u64,
    spacing: &mut Spacing,
    known: Known,
) -> Result<TailCheck, Forbids> {
    let mut tail_check = TailCheck::default();
    let mut crcs = Crcs::new(bytes);
    // The last committed records are damaged.
    let mut ends_in_damage = false;
    let stop = loop {
        let rest = bytes.get(tail_check.bytes..).unwrap_or_default();
        let found = state.scan(rest, mask, position.saturating_add(wide(tail_check.bytes)), spacing);
        tail_check.entries.extend(found.entries);
        let nothing = Stop { at: found.bytes, sequence: state.sequence, fault: Fault::Empty };
        let stop = found.stop.unwrap_or(nothing);
        let stop = Stop { at: stop.at.saturating_add(tail_check.bytes), ..stop };
        tail_check.bytes = tail_check.bytes.saturating_add(found.bytes);
        if stop.fault.is_of_later_version() {
            return Err(Forbids::Later { position: position.saturating_add(wide(stop.at)), fault: stop.fault });
        }
        if state.sequence.tail.end >= known.commit_end {
            break stop;
        }
        let (after, bad_at) = (stop.sequence.tail, position.saturating_add(wide(stop.at)));
        let damaged = |to| DamagedRange { position: bad_at, until: bad_at, from: after.end, to, fault: stop.fault };
        let next = next_place(&mut crcs, mask, stop).filter(|next| next.offset <= known.commit_end);
        let end = next.map_or(known.commit_end, |next| next.offset).max(after.end);
        if next.map_or(known.synced.epoch > after.epoch, |next| !next.same_epoch) {
            return Err(Forbids::HistoryGap(damaged(end)));
        }
        tail_check.ranges.push(damaged(end));
        state.sequence = FrameSequence::after(Tail { end, ..after }, stop.sequence.timestamp_ms);
        // Who appended what is in there is not known.
        state.producers.forget(end);
        // The bytes stay with the segment: who repairs or rewrites it keeps them.
        tail_check.bytes =
            next.map_or_else(|| stop.at + used(bytes.get(stop.at..).unwrap_or_default()), |next| next.at);
        if next.is_none() {
            ends_in_damage = true;
            break stop;
        }
    };
    let tail = state.sequence.tail;
    let rest = bytes.get(tail_check.bytes..).unwrap_or_default();
    if !ends_in_damage && known.closed && tail == known.synced && (known.used || used(rest) == 0) {
        return Ok(tail_check);
    }
    let position = position.saturating_add(wide(stop.at));
    let behind = behind(&mut crcs, mask, stop.at, position, stop.sequence.tail);
    // What a crash tears was never acknowledged; what was on the disk before it, and all behind that, may have been.
    let was_durable = behind.was_durable || ends_in_damage || known.synced > tail;
    tail_check.suspect = Some(behind.tail.max(known.synced)).filter(|suspect| was_durable && *suspect > tail);
    if let Some(suspect) = tail_check.suspect
        && !ends_in_damage
    {
        let to = suspect.end.max(tail.end);
        tail_check.ranges.push(DamagedRange { position, until: position, from: tail.end, to, fault: stop.fault });
    }
    tail_check.torn_bytes = if known.used { 0 } else { used(rest) };
    tail_check.renew = known.used || ends_in_damage || tail_check.torn_bytes > 0;
    Ok(tail_check)
}

/// Where the frames go on.
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
