//! What a log's upkeep does to it: segments that are written anew, and whether all is whole again.

use bytes::Bytes;
use zue_core::{Aged, Offset, ProducerLimits};
use zue_log::sim::SimDisk;
use zue_log::{Compaction, Damage, Disk as _, Excerpt, FetchPlan, LogError, ReadError, Repair, Rewritten};

use crate::storage::{Harm, Storage, WorkError, work_error};

impl Storage {
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut zue_log::Log<SimDisk>) -> Result<T, LogError>,
    ) -> Result<T, WorkError> {
        let Some(log) = &mut self.log else { return Err(WorkError::Disk) };
        let changed = change(log).map_err(work_error);
        self.note_synced();
        match changed {
            Err(WorkError::Full) if self.disk.has_stopped() => Err(WorkError::Disk),
            changed => changed,
        }
    }

    /// What is known to be damaged.
    pub(crate) fn damages(&self) -> Vec<Damage> {
        self.log().damaged()
    }

    /// The records that are missing there.
    pub(crate) fn missing(&self, damage: &Damage) -> Result<Vec<(Offset, Offset)>, ReadError> {
        self.log().reader().missing(damage)
    }

    /// What is written down as committed.
    pub(crate) fn written_commit(&self) -> Offset {
        self.log().meta().commit_end
    }

    pub(crate) fn write_commit(&mut self) -> Result<(), WorkError> {
        self.change(zue_log::Log::write_commit)
    }

    /// Breaks a rule: takes all that is durable for committed.
    pub(crate) fn commit_all(&mut self) -> Result<(), WorkError> {
        self.note_commit(self.tail().end);
        self.write_commit()
    }

    /// Frames for another replica.
    pub(crate) fn excerpt(&self, from: Offset, upto: Offset, bytes_max: usize) -> Result<Bytes, ReadError> {
        Ok(self.log().reader().excerpt(from, upto, bytes_max)?.bytes().clone())
    }

    pub(crate) fn repair(
        &mut self,
        damage: &Damage,
        excerpts: Vec<Excerpt>,
    ) -> Result<Option<Repair<SimDisk>>, WorkError> {
        self.change(|log| match log.repair(damage, excerpts) {
            // Without the new file nothing has changed: another time.
            Err(LogError::Read(ReadError::Disk(_))) => Ok(None),
            begun => begun,
        })
    }

    pub(crate) fn compaction(&mut self, aged: Aged) -> Option<Compaction<SimDisk>> {
        self.log.as_mut()?.compaction(aged)
    }

    pub(crate) fn compacted(&mut self, round: Compaction<SimDisk>, done: bool) -> Result<(), WorkError> {
        self.change(|log| log.compacted(round, done))
    }

    /// The new file takes the old one's place, if that is still in the log.
    pub(crate) fn rewritten(&mut self, rewritten: Rewritten<SimDisk>) -> Result<bool, WorkError> {
        // Where the bit would be is in another file now.
        self.flip = None;
        self.change(|log| log.rewritten(rewritten))
    }

    pub(crate) fn forget_rewrite(&self) {
        self.log().forget_rewrite();
    }

    /// Whether a segment is being written anew.
    pub(crate) fn is_rewriting(&self) -> bool {
        self.disk.list().is_ok_and(|names| names.iter().any(|name| name == "segment.anew"))
    }

    /// Why the disk is not taken for whole.
    pub(crate) fn doubt(&self) -> Option<String> {
        let log = self.log.as_ref().filter(|_| self.harm.any)?;
        let (suspect, durable, damages) = (log.meta().suspect, log.durable(), log.damaged());
        Some(format!("{:?}: meta {}, suspect {suspect:?} at {durable}, {damages:?}", self.id(), self.harm.in_meta))
    }

    /// Whether all can be read: nothing is damaged but what is trimmed, or lost, which perhaps nobody has any more.
    pub(crate) fn is_readable(&self, is_lost: impl Fn(Offset) -> bool) -> bool {
        let is_lost = |damage: &Damage| (damage.from.0..damage.to.0).all(|at| is_lost(Offset(at)));
        let is_trimmed =
            |damage: &Damage| damage.from < damage.to && (damage.to <= self.log_start() || is_lost(damage));
        let damages = || self.log.as_ref().map(zue_log::Log::damaged).unwrap_or_default();
        !self.harm.any || (self.harm.known && damages().iter().all(is_trimmed))
    }

    /// Whether anything that is damaged is trimmed.
    pub(crate) fn holds_damaged_trimmed(&self) -> bool {
        let is_trimmed = |damage: &Damage| damage.to <= self.log_start();
        self.harm.any && self.log.as_ref().is_some_and(|log| log.damaged().iter().any(is_trimmed))
    }

    /// Takes the disk for whole again once all of it is: nothing is damaged any more, or in doubt.
    pub(crate) fn mend(&mut self, limits: ProducerLimits) -> Result<bool, WorkError> {
        let log = self.log();
        let in_doubt = log.meta().suspect.is_some_and(|suspect| suspect > log.durable());
        if !self.harm.any || self.harm.in_meta || in_doubt {
            return Ok(false);
        }
        let mut verifier = self.verifier();
        let all_read = std::iter::from_fn(|| verifier.step(1 << 20).transpose()).all(|step| step.is_ok());
        self.harm.known = all_read;
        if !all_read || !self.damages().is_empty() {
            return Ok(false);
        }
        // A crash may bring back a damaged file that was trimmed, until its removal is on the disk.
        if self.disk.sync_dir().is_err() {
            return Ok(false);
        }
        self.harm = Harm::default();
        self.compare(limits).map(|_| true)
    }

    /// What a repair lacks, if that is known to be committed.
    pub(crate) fn wanted(&self, damage: &Damage, commit_end: Offset) -> Option<(FetchPlan, Vec<(Offset, Offset)>)> {
        let missing = self.missing(damage).ok()?;
        let wanted = FetchPlan::new(&missing, commit_end.max(self.written_commit())).ok()?;
        Some((wanted, missing))
    }
}
