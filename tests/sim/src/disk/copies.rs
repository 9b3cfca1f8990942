//! A disk that is put back to a copy from before its last start, and what a log with damage still tells.

use zue_core::{Offset, ProducerLimits, Producers, Promise, Run, Runs, Tail};
use zue_log::ReadError;

use super::{DiskCopy, Storage};

impl Storage {
    /// The last start, if there was one.
    pub(crate) fn last_run(&self) -> Option<Run> {
        Some(self.must.lineage.run()).filter(|run| run.starts > 0)
    }

    /// The starts of others that are written down.
    pub(crate) fn runs(&self) -> &Runs {
        &self.must.runs
    }

    /// Copies the disk of the machine, which is stopped.
    pub(crate) fn copy(&mut self) {
        let (disk, records, starts) = (self.disk.fork(), self.records.clone(), self.must.lineage.starts);
        let (began_anew, harm, standby) = (self.began_anew, self.harm, self.standby.clone());
        self.former.copy.get_or_insert(DiskCopy { disk, records, began_anew, starts, harm, standby });
    }

    /// Returns whether there is a copy from before the last start, and the disk is none.
    pub(crate) fn has_old_copy(&self) -> bool {
        !self.former.restored && self.former.copy.as_ref().is_some_and(|copy| copy.starts < self.must.lineage.starts)
    }

    /// Puts the copy in the place of the disk of the machine, which is stopped.
    pub(crate) fn restore(&mut self, seed: u64) {
        let Some(DiskCopy { disk, records, began_anew, harm, standby, .. }) = self.former.copy.take() else { return };
        disk.crash(seed);
        self.standby = standby;
        (self.disk, self.records, self.flip, self.former.restored) = (disk, records, None, true);
        self.harm.any |= harm.any;
        self.harm.in_meta |= harm.in_meta;
        (self.must.synced, self.must.promise) = (Tail::default(), Promise::default());
        (self.must.trimmed, self.began_anew) = (Offset(0), began_anew);
    }

    /// Returns whether the disk is an old copy.
    pub(crate) fn is_restored(&self) -> bool {
        self.former.restored
    }

    /// Breaks a rule: who appended what, as far as it can be read, as if nobody had appended the rest.
    pub(crate) fn producers_around_holes(&self, limits: ProducerLimits) -> Producers {
        let begins = self.origin(limits).map(|origin| origin.tail()).unwrap_or_default();
        let (mut producers, mut at) = (Producers::new(limits), begins);
        loop {
            match self.read_frames(at, 64 << 10) {
                Ok(Some(batch)) => {
                    batch.as_ref().producers().iter().for_each(|run| producers.record(run.appended()));
                    at = batch.tail();
                }
                Err(ReadError::Damaged(hole)) if hole.to > at.end => at.end = hole.to,
                _ => return producers,
            }
        }
    }
}
