//! A disk without room: what is kept only so that a person can have it back goes for it, the oldest first. And how one gets at a log
//! that others use.

use zue_log::{Disk, DiskError, Log, LogError, ReadError, RewriteError, SharedLog, Shortage};

/// The number of files of a former log that go at once: the log is locked meanwhile.
const FILES_MAX: usize = 16;

/// A log that others use too, for one change after the other.
pub trait Access<D: Disk> {
    /// Changes it, or looks at it, while nobody else does.
    fn change<T>(&mut self, change: impl FnOnce(&mut Log<D>) -> T) -> T;
}

impl<D: Disk> Access<D> for &SharedLog<D> {
    fn change<T>(&mut self, change: impl FnOnce(&mut Log<D>) -> T) -> T {
        change(&mut self.lock())
    }
}

/// The files that were deleted to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadeRoom {
    /// The oldest segment that was trimmed.
    Segment,
    /// The files of the oldest former log.
    Former {
        /// The segment.
        number: u64,
        /// Their length together.
        bytes: u64,
    },
}

/// Tells whether a segment less would help: a file may not be made for other reasons.
pub fn lacks_room(error: &DiskError) -> bool {
    matches!(error.shortage(), Shortage::Room | Shortage::Files)
}

/// Tells whether a change of the log failed for lack of space alone: then the log can still be used.
pub(crate) fn change_lacks_room(error: &LogError) -> bool {
    matches!(error, LogError::NoRoom(error) | LogError::Read(ReadError::Disk(error)) if lacks_room(error))
}

/// The same of a segment that was to be written anew.
pub(crate) fn rewrite_lacks_room(error: &RewriteError) -> bool {
    matches!(error, RewriteError::Read(ReadError::Disk(error)) if lacks_room(error))
}

/// Makes room: deletes the oldest trimmed segment that is still there, else the files of the oldest former log. Returns which one, if
/// there was any.
///
/// # Errors
/// When the disk refuses.
pub fn make_room<D: Disk>(log: &mut impl Access<D>) -> Result<Option<MadeRoom>, LogError> {
    let dropped = log.change(|log| {
        let log_start = log.log_start();
        log.drop_trimmed(log_start, 1)
    })?;
    if dropped > 0 {
        return Ok(Some(MadeRoom::Segment));
    }
    let oldest = log.change(|log| log.former_logs()).first().copied();
    Ok(oldest.filter(|(number, _)| drop_former(log, *number)).map(|(number, bytes)| MadeRoom::Former { number, bytes }))
}

/// Removes the files of former logs up to that one; whether there were any.
pub(crate) fn drop_former<D: Disk>(log: &mut impl Access<D>, upto: u64) -> bool {
    let mut dropped = false;
    while log.change(|log| log.drop_former(upto, FILES_MAX)) > 0 {
        dropped = true;
    }
    dropped
}

/// An error with its sources, on one line.
pub fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
