//! Zeroes ahead of the tail. Room that was only reserved becomes the file's with the first sync of what is written there, which
//! costs a write to the file system's journal; in room that was written before, a sync moves data only. So small syncs write zeroes
//! for many of their kind ahead, which are synced together with the data in front of them. Where a file was written before and memory
//! does not hold that any more, a write of a part of a page waits for the page to be read: it is asked for ahead.

use std::io;
use std::ops::Range;

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, Operation};
use crate::num::{length, wide};
use crate::segment::header::SEGMENT_SPARE;

/// Syncs of more bytes than this pay for their room themselves: zeroes would double what is written.
const SYNC_BYTES_MAX: u64 = 64 << 10;
/// For how many syncs of the same size there are to be zeroes.
const SYNCS_AHEAD: u64 = 32;
const ZERO_BYTES_MIN: u64 = 64 << 10;
const ZERO_BYTES_MAX: u64 = 2 << 20;
const _: () =
    assert!(ZERO_BYTES_MIN <= ZERO_BYTES_MAX && SYNC_BYTES_MAX * SYNCS_AHEAD <= ZERO_BYTES_MAX, "too little is filled");
/// The distance for which pages are asked for ahead.
const WANTED_BYTES: u64 = 1 << 20;

/// The number of bytes written at once: what is cached in larger pieces is slower to write over by less.
static ZEROES: [u8; 32 << 10] = [0; 32 << 10];

/// The progress of writing a segment, zeroes included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preallocation {
    /// The position at which the last sync ended.
    synced: u64,
    filled: u64,
    /// Up to where pages were asked for.
    wanted: u64,
}

impl Preallocation {
    /// At a position in a file that has been written up to `filled`.
    pub(crate) fn new(position: u64, filled: u64) -> Self {
        debug_assert!(position <= filled, "a segment is written further than it is filled");
        Self { synced: position, filled, wanted: position }
    }

    /// The pages to ask for when what was written ends at the position.
    pub(crate) fn want(&mut self, position: u64) -> Option<Range<u64>> {
        if position.saturating_add(WANTED_BYTES / 2) <= self.wanted {
            return None;
        }
        let start = self.wanted.max(position);
        self.wanted = position.saturating_add(WANTED_BYTES).min(self.filled).max(start);
        debug_assert!(position <= start, "pages are asked for that were written");
        (start < self.wanted).then_some(start..self.wanted)
    }

    /// The range to fill before a sync of what was written up to `position`.
    pub(crate) fn next(&mut self, position: u64, file_bytes: u64) -> Option<Range<u64>> {
        debug_assert!(self.synced <= position, "a segment is written backwards");
        debug_assert!(self.filled <= file_bytes, "a segment is filled behind its end");
        let bytes = position.saturating_sub(self.synced);
        self.synced = position;
        if bytes == 0 || bytes > SYNC_BYTES_MAX || position.saturating_add(bytes) <= self.filled {
            return None;
        }
        let ahead = bytes.saturating_mul(SYNCS_AHEAD).clamp(ZERO_BYTES_MIN, ZERO_BYTES_MAX);
        let start = self.filled.max(position);
        self.filled = start.saturating_add(ahead).min(file_bytes);
        (start < self.filled).then_some(start..self.filled)
    }
}

/// Writes zeroes to a file, as far as it is reserved but at most to `bytes_max`; gives the position up to which it did.
pub(crate) fn write_zeroes<F: DiskFile>(file: &F, from: u64, bytes_max: u64) -> io::Result<u64> {
    let mut at = from;
    while at < bytes_max {
        let zeroes = ZEROES.get(..length(bytes_max - at)).unwrap_or(&ZEROES);
        file.write_at(at, zeroes)?;
        at = at.saturating_add(wide(zeroes.len()));
    }
    debug_assert!(from <= at, "a file is filled backwards");
    Ok(at)
}

/// A segment file that is made ahead, off the way of appends: reserved and filled with zeroes.
#[derive(Debug)]
pub struct Preparation<D: Disk> {
    disk: D,
    file: D::File,
    file_bytes: u64,
    filled: u64,
}

/// A segment file that waits to be used.
#[derive(Debug)]
pub(crate) struct Spare<F> {
    pub(crate) file: F,
    pub(crate) file_bytes: u64,
    pub(crate) filled: u64,
    /// It was a segment before: there are other bytes than zeroes in it.
    pub(crate) used: bool,
}

impl<D: Disk> Preparation<D> {
    /// Reserves the room; `None` if there is none, or the disk refuses otherwise.
    pub(crate) fn begin(disk: &D, file_bytes: u64) -> Option<Self> {
        let file = disk.create(SEGMENT_SPARE).ok()?;
        if file.allocate(file_bytes).is_err() {
            // Gives back what was reserved.
            let _ = disk.remove(SEGMENT_SPARE);
            return None;
        }
        Some(Self { disk: disk.clone(), file, file_bytes, filled: 0 })
    }

    /// Writes and syncs a piece; whether there is more to do. To be given to [`crate::Log::prepared`] when there is not.
    ///
    /// # Errors
    /// When the disk refuses: it is of no use then, and a segment will be made when one is needed.
    pub fn step(&mut self) -> Result<bool, DiskError> {
        let upto = self.file_bytes.min(self.filled.saturating_add(ZERO_BYTES_MAX));
        let path = || self.disk.path(SEGMENT_SPARE);
        self.filled = write_zeroes(&self.file, self.filled, upto).context(Operation::Write, path)?;
        assert!(self.filled <= self.file_bytes, "a segment is filled behind its end");
        self.file.sync_data().context(Operation::Sync, path)?;
        Ok(self.filled < self.file_bytes)
    }

    pub(crate) fn finish(self) -> Spare<D::File> {
        let Self { file, file_bytes, filled, .. } = self;
        Spare { file, file_bytes, filled, used: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 64 << 20;

    #[test]
    fn small_syncs_find_zeroes_that_an_earlier_one_has_written() {
        let mut preallocation = Preallocation::new(1000, 1000);
        let first = preallocation.next(11_000, FILE).unwrap();
        assert_eq!(first, 11_000..11_000 + 320_000);
        let mut position = 11_000;
        for _ in 0..31 {
            position += 10_000;
            assert_eq!(preallocation.next(position, FILE), None, "at {position}");
        }
        assert_eq!(preallocation.next(position + 10_000, FILE).unwrap().start, first.end.max(position + 10_000));
    }

    #[test]
    fn pages_that_were_written_before_are_asked_for_once_and_in_time() {
        let (mut preallocation, mut wanted) = (Preallocation::new(1000, FILE), 1000);
        for position in (1000..FILE).step_by(300_000) {
            if let Some(range) = preallocation.want(position) {
                assert_eq!(range.start, wanted);
                wanted = range.end;
            }
            assert!(wanted >= (position + 300_000).min(FILE), "at {position}");
        }
        assert_eq!((wanted, preallocation.want(FILE)), (FILE, None));
        assert_eq!(Preallocation::new(1000, 1000).want(2000), None, "what was never written is not read");
    }

    #[test]
    fn large_syncs_and_the_end_of_the_file_are_not_filled() {
        let mut preallocation = Preallocation::new(0, 0);
        assert_eq!(preallocation.next(1 << 20, FILE), None);
        assert_eq!(preallocation.next(FILE - 10, FILE), None);
        let mut preallocation = Preallocation::new(FILE - 100, FILE - 100);
        assert_eq!(preallocation.next(FILE - 50, FILE), Some(FILE - 50..FILE));
        assert_eq!(preallocation.next(FILE, FILE), None);
        assert_eq!(preallocation.next(FILE, FILE), None);
    }
}
