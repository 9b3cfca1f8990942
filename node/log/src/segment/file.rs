//! The place of bytes: a segment file, and what of it is known to be damaged. Shared by all who read the segment.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::DiskFile;
use crate::error::{Context, Damage, DiskError, Operation, ReadError};
use crate::format::salvage::{DamagedRange, first_damage};

/// The number of damaged places of one segment that are remembered one by one.
const DAMAGED_RANGES_MAX: usize = 256;

/// A segment file.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    file: Arc<dyn DiskFile>,
    mask: u32,
    /// In order, apart from each other.
    ranges: Mutex<Vec<DamagedRange>>,
}

impl SegmentFile {
    pub(crate) fn new(path: PathBuf, file: Arc<dyn DiskFile>, mask: u32) -> Self {
        Self { path, file, mask, ranges: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DamagedRange>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that bytes of it are not what was written.
    pub(crate) fn damage(&self, damaged: DamagedRange) -> Damage {
        let DamagedRange { position, until: _, from, to, fault } = damaged;
        Damage { path: self.path.clone(), position, from, to, fault }
    }

    /// Remembers damage that was found, and says so.
    pub(crate) fn note(&self, damaged: DamagedRange) -> Damage {
        let mut ranges = self.lock();
        let at = ranges.partition_point(|known| known.position < damaged.position);
        let before = at.checked_sub(1).and_then(|before| ranges.get_mut(before));
        if let Some(known) = before.filter(|known| known.from <= damaged.from && damaged.from < known.to) {
            // A part of what is known.
            known.to = known.to.max(damaged.to);
        } else if let Some(known) = ranges.get_mut(at).filter(|known| known.position == damaged.position) {
            (known.from, known.to) = (known.from.min(damaged.from), known.to.max(damaged.to));
        } else if ranges.len() < DAMAGED_RANGES_MAX {
            ranges.insert(at, damaged);
        } else if let Some(last) = ranges.last_mut() {
            (last.from, last.to) = (last.from.min(damaged.from), last.to.max(damaged.to));
        }
        debug_assert!(ranges.is_sorted_by(|a, b| a.position < b.position), "damaged ranges are out of order");
        assert!(ranges.len() <= DAMAGED_RANGES_MAX, "too many damaged ranges are remembered");
        drop(ranges);
        self.damage(damaged)
    }

    /// Says why a view of the file shows bad bytes: they are damaged, or they could not be read.
    pub(crate) fn blame(&self, damaged: DamagedRange) -> ReadError {
        match self.could_be_read(damaged) {
            Ok(()) => self.note(damaged).into(),
            Err(error) => error.into(),
        }
    }

    /// Fails if the bytes of the damaged range, or whatever a view of the file has shown, could not be read.
    fn could_be_read(&self, damaged: DamagedRange) -> Result<(), DiskError> {
        if !self.file.has_faulted() {
            return Ok(());
        }
        let bytes = self.file.read(damaged.position..damaged.until).context(Operation::Read, || self.path.clone())?;
        match first_damage(&bytes, self.mask, damaged.position, damaged.from..damaged.to) {
            Some(_) => Ok(()),
            None => Err(self.unreadable()),
        }
    }

    /// Fails if the bytes of the damaged range are not those that a view has shown: what replaces them would lose them.
    pub(crate) fn is_as_shown(&self, damaged: DamagedRange, shown: &[u8]) -> Result<(), DiskError> {
        if !self.file.has_faulted() {
            return Ok(());
        }
        let bytes = self.file.read(damaged.position..damaged.until).context(Operation::Read, || self.path.clone())?;
        if bytes == shown { Ok(()) } else { Err(self.unreadable()) }
    }

    /// Fails if anything that was seen of the file could not be read.
    pub(crate) fn all_could_be_read(&self) -> Result<(), DiskError> {
        if self.file.has_faulted() { Err(self.unreadable()) } else { Ok(()) }
    }

    fn unreadable(&self) -> DiskError {
        let source = io::Error::other("a page of it could not be read");
        DiskError { operation: Operation::Read, path: self.path.clone(), source }
    }

    /// The known damage.
    pub(crate) fn damaged(&self) -> Vec<Damage> {
        self.lock().iter().map(|damaged| self.damage(*damaged)).collect()
    }
}
