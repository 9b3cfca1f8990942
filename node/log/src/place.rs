//! Where bytes are: a segment file, and what of it is known to be damaged. Shared by all who read the segment.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Damage;
use crate::resync::Hole;

/// How many damaged places of one segment are remembered one by one.
const HOLES_MAX: usize = 256;

/// A segment file.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// In order, apart from each other.
    holes: Mutex<Vec<Hole>>,
}

impl Place {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, holes: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Hole>> {
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that bytes of it are not what was written.
    pub(crate) fn damage(&self, hole: Hole) -> Damage {
        let Hole { position, from, to, fault } = hole;
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
        self.damage(hole)
    }

    /// What is known to be damaged.
    pub(crate) fn damaged(&self) -> Vec<Damage> {
        self.lock().iter().map(|hole| self.damage(*hole)).collect()
    }
}
