//! A disk without room: what is kept only so that a person can have it back goes for it, the oldest first.

use zue_log::{Disk, DiskError, LogError, ReadError, Refused, SharedLog, Shortage};

/// How many files of a former log go at once: the log is locked meanwhile.
pub(super) const FILES_MAX: usize = 16;

/// Whether a segment less would help: a file may not be made for other reasons.
pub(super) fn lacks_room(error: &DiskError) -> bool {
    matches!(error.shortage(), Shortage::Room | Shortage::Files)
}

/// Whether it was room that a change of the log lacked, and the log goes on.
pub(super) fn change_lacks_room(error: &LogError) -> bool {
    matches!(error, LogError::NoRoom(error) | LogError::Read(ReadError::Disk(error)) if lacks_room(error))
}

/// The same of a segment that was to be written anew.
pub(super) fn rewrite_lacks_room(error: &Refused) -> bool {
    matches!(error, Refused::Read(ReadError::Disk(error)) if lacks_room(error))
}

/// Makes room of the oldest segment that is trimmed and still there, or of the files of the oldest former log, if there are any.
pub(super) fn make_room<D: Disk>(log: &SharedLog<D>) -> Result<bool, LogError> {
    let oldest = {
        let mut log = log.lock();
        let log_start = log.log_start();
        if log.drop_trimmed(log_start, 1)? > 0 {
            return Ok(true);
        }
        log.former_logs().first().copied()
    };
    let Some((number, bytes)) = oldest else { return Ok(false) };
    tracing::warn!(
        files = format!("*-{number}.former"),
        bytes,
        "the disk is full: the files of a log before it was begun anew go"
    );
    Ok(drop_former(log, number))
}

/// Removes the files of former logs up to that one; whether there were any.
pub(super) fn drop_former<D: Disk>(log: &SharedLog<D>, upto: u64) -> bool {
    let mut dropped = false;
    while log.lock().drop_former(upto, FILES_MAX) > 0 {
        dropped = true;
    }
    dropped
}
