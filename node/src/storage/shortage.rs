//! A disk without room: what is kept only so that a person can have it back goes for it.

use zue_engine::room::{MadeRoom, make_room};
use zue_log::{Disk, LogError, SharedLog};

/// Makes room, if that can be.
pub(super) fn has_made_room<D: Disk>(mut log: &SharedLog<D>) -> Result<bool, LogError> {
    let gone = make_room(&mut log)?;
    if let Some(gone) = gone {
        tell_of(gone);
    }
    Ok(gone.is_some())
}

/// Says what went, where somebody may miss it.
pub(super) fn tell_of(gone: MadeRoom) {
    if let MadeRoom::Former { number, bytes } = gone {
        tracing::warn!(
            files = format!("*-{number}.former"),
            bytes,
            "the disk is full: deleting the files of a former log"
        );
    }
}
