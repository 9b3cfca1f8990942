//! Segments that are not in the log any more: their files go, or one of them waits to be used again. What is written into such a
//! file costs no journal entry with its sync, as a sync in it moves data only; a nonce of its own keeps the old bytes from passing
//! for new ones.

use std::sync::Arc;

use zue_core::Offset;

use crate::config::RESERVE_BYTES;
use crate::disk::{Disk, DiskFile as _};
use crate::error::{Context, LogError, Operation};
use crate::format::block::BLOCK_BYTES;
use crate::format::encode::put_snapshot;
use crate::format::local::Snapshot;
use crate::log::Log;
use crate::num::wide;
use crate::segment::Segment;
use crate::segment::header::{RESERVE_FILE, SEGMENT_SPARE, index_name, segment_name};
use crate::segment::part::Part;
use crate::segment::preallocate::Spare;

impl<D: Disk> Log<D> {
    /// Takes the names of segments that have others, and that are durably not in the log any more.
    pub(crate) fn unname(&mut self, dead: &[Part<D>]) -> Result<(), LogError> {
        for base in dead.iter().map(|part| part.segment.base()) {
            assert!(!self.view.has_segment(base), "a segment of the log loses its name");
            let _ = self.disk.remove(&segment_name(base));
            let _ = self.disk.remove(&index_name(base));
        }
        let synced = self.disk.sync_dir().context(Operation::Sync, || self.disk.path(""));
        self.disk_result(synced)
    }

    /// Removes segments that are durably not in the log any more, and that the newest view does not show, oldest first. The file of
    /// the newest one that nobody can still read becomes the spare, if there is none: who reads goes on, and is never waited for.
    /// What cannot be removed is removed by the next open.
    pub(crate) fn retire(&mut self, dead: Vec<Part<D>>) -> Result<(), LogError> {
        let rises = |a: &Part<D>, b: &Part<D>| a.segment.base() < b.segment.base();
        debug_assert!(dead.is_sorted_by(rises), "another segment than the newest is used again");
        // While something is suspect, bytes behind the end of a segment may be needed.
        let mut wanted = self.beside.spare.is_none() && !self.beside.preparing && self.meta.suspect.is_none();
        // The reserve comes first: a full disk may take it to start again.
        wanted &= self.disk.open(RESERVE_FILE).is_ok();
        let has_removed = !dead.is_empty();
        let mut spare = None;
        for Part { segment, bytes_end, .. } in dead.into_iter().rev() {
            let (base, file_bytes) = (segment.base(), segment.file_bytes);
            assert!(!self.view.has_segment(base), "a segment of the log is removed");
            if wanted
                && file_bytes == self.config.segment_bytes_max
                && let Some(file) = unread(segment)
                // A file that was restored from a copy may have holes.
                && file.allocate(file_bytes).is_ok()
                && self.disk.rename(&segment_name(base), SEGMENT_SPARE).is_ok()
            {
                spare = Some(Spare { file, file_bytes, filled: bytes_end.min(file_bytes), used: true });
                wanted = false;
            } else {
                let _ = self.disk.remove(&segment_name(base));
            }
            let _ = self.disk.remove(&index_name(base));
        }
        if has_removed {
            self.keep_reserve();
        }
        if spare.is_some() {
            // Before anything is written into it: under its old name it would be a segment with a wrong header.
            let synced = self.disk.sync_dir().context(Operation::Sync, || self.disk.path(""));
            self.disk_result(synced)?;
            self.beside.spare = spare;
        }
        Ok(())
    }
}

/// The file of a segment that is whole, if nobody else has the segment, or anything that was read of it.
fn unread<D: Disk>(segment: Arc<Segment<D>>) -> Option<D::File> {
    let Segment { file, place, .. } = Arc::into_inner(segment)?;
    let is_whole = place.damaged().is_empty() && place.all_could_be_read().is_ok();
    // A chunk of records has the place, which has the file.
    drop(place);
    let mut file = Arc::into_inner(file).filter(|_| is_whole)?;
    file.reclaim().then_some(file)
}

impl<D: Disk> Log<D> {
    /// Makes the reserve again, or larger, if there is room: enough for a segment that a cut to here makes. Without it a full disk can
    /// do less, but nothing is wrong.
    pub(crate) fn keep_reserve(&self) {
        let starts = self.view.history.starts().to_vec();
        let snapshot = Snapshot { base: Offset(0), timestamp_ms: 0, starts, producers: self.producers.encode() };
        let mut head = vec![0; BLOCK_BYTES];
        put_snapshot(&mut head, &snapshot, 0);
        let need = wide(head.len()).saturating_add(RESERVE_BYTES).max(RESERVE_FILE_BYTES);
        let disk = &self.disk;
        match disk.open(RESERVE_FILE) {
            Ok(file) if file.len().is_ok_and(|bytes| bytes >= need) => {}
            // Without room it stays as it is.
            Ok(file) => drop(file.allocate(need)),
            Err(_) => {
                if let Ok(file) = disk.create(RESERVE_FILE)
                    && file.allocate(need).is_err()
                {
                    let _ = disk.remove(RESERVE_FILE);
                }
            }
        }
    }
}

pub(crate) const RESERVE_FILE_BYTES: u64 = 64 << 10;
const _: () = assert!(RESERVE_FILE_BYTES > RESERVE_BYTES, "the reserve has no room for a segment");
