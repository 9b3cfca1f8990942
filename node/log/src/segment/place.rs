//! Where bytes are: a segment file, and what of it is known to be damaged. Shared by all who read the segment.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::DiskFile;
use crate::error::{Context, Damage, DiskError, Operation, ReadError};
use crate::format::salvage::{Hole, first_hole};

/// How many damaged places of one segment are remembered one by one.
const HOLES_MAX: usize = 256;

/// A segment file.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    file: Arc<dyn DiskFile>,
    mask: u32,
    /// In order, apart from each other.
    holes: Mutex<Vec<Hole>>,
}

impl Place {
    pub(crate) fn new(path: PathBuf, file: Arc<dyn DiskFile>, mask: u32) -> Self {
        Self { path, file, mask, holes: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Hole>> {
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that bytes of it are not what was written.
    pub(crate) fn damage(&self, hole: Hole) -> Damage {
        let Hole { position, until: _, from, to, fault } = hole;
        Damage { path: self.path.clone(), position, from, to, fault }
    }

    /// Remembers damage that was found, and says so.
    pub(crate) fn note(&self, hole: Hole) -> Damage {
        let mut holes = self.lock();
        let at = holes.partition_point(|known| known.position < hole.position);
        let before = at.checked_sub(1).and_then(|before| holes.get_mut(before));
        if let Some(known) = before.filter(|known| known.from <= hole.from && hole.from < known.to) {
            // A part of what is known.
            known.to = known.to.max(hole.to);
        } else if let Some(known) = holes.get_mut(at).filter(|known| known.position == hole.position) {
            (known.from, known.to) = (known.from.min(hole.from), known.to.max(hole.to));
        } else if holes.len() < HOLES_MAX {
            holes.insert(at, hole);
        } else if let Some(last) = holes.last_mut() {
            (last.from, last.to) = (last.from.min(hole.from), last.to.max(hole.to));
        }
        drop(holes);
        self.damage(hole)
    }

    /// Says why a view of the file shows bad bytes: they are damaged, or they could not be read.
    pub(crate) fn blame(&self, hole: Hole) -> ReadError {
        match self.could_be_read(hole) {
            Ok(()) => self.note(hole).into(),
            Err(error) => error.into(),
        }
    }

    /// Fails if the bytes of the hole, or whatever a view of the file has shown, could not be read.
    fn could_be_read(&self, hole: Hole) -> Result<(), DiskError> {
        if !self.file.has_faulted() {
            return Ok(());
        }
        let bytes = self.file.read(hole.position..hole.until).context(Operation::Read, || self.path.clone())?;
        match first_hole(&bytes, self.mask, hole.position, hole.from..hole.to) {
            Some(_) => Ok(()),
            None => Err(self.unreadable()),
        }
    }

    /// Fails if the bytes of the hole are not those that a view has shown: what replaces them would lose them.
    pub(crate) fn is_as_shown(&self, hole: Hole, shown: &[u8]) -> Result<(), DiskError> {
        if !self.file.has_faulted() {
            return Ok(());
        }
        let bytes = self.file.read(hole.position..hole.until).context(Operation::Read, || self.path.clone())?;
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

    /// What is known to be damaged.
    pub(crate) fn damaged(&self) -> Vec<Damage> {
        self.lock().iter().map(|hole| self.damage(*hole)).collect()
    }
}
