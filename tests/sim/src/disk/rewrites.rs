//! True if what maintenance does to a log leaves all of it whole.

use zue_core::{Offset, ProducerLimits};
use zue_engine::room::Access;
use zue_log::sim::SimDisk;
use zue_log::{Damage, Disk as _, Log};

use crate::disk::{Harm, Storage, WorkError};

impl Access<SimDisk> for Storage {
    fn change<T>(&mut self, change: impl FnOnce(&mut Log<SimDisk>) -> T) -> T {
        let done = change(self.log.as_mut().expect("a process that runs has its log open"));
        self.note_synced();
        done
    }
}

impl Storage {
    /// Returns whether a segment is being written anew.
    pub(crate) fn is_rewriting(&self) -> bool {
        self.disk.list().is_ok_and(|names| names.iter().any(|name| name == "segment.anew"))
    }

    /// Why the disk is not taken for whole.
    pub(crate) fn doubt(&self) -> Option<String> {
        let log = self.log.as_ref().filter(|_| self.harm.any)?;
        let (suspect, durable, damages) = (log.meta().suspect, log.durable(), log.damaged());
        Some(format!("{:?}: meta {}, suspect {suspect:?} at {durable}, {damages:?}", self.id(), self.harm.in_meta))
    }

    /// Returns whether all can be read: nothing is damaged but what is trimmed, or lost, which perhaps nobody has any more.
    pub(crate) fn is_readable(&self, is_lost: impl Fn(Offset) -> bool) -> bool {
        let is_lost = |damage: &Damage| (damage.from.0..damage.to.0).all(|at| is_lost(Offset(at)));
        let is_trimmed =
            |damage: &Damage| damage.from < damage.to && (damage.to <= self.log_start() || is_lost(damage));
        let damages = || self.log.as_ref().map(zue_log::Log::damaged).unwrap_or_default();
        !self.harm.any || (self.harm.known && damages().iter().all(is_trimmed))
    }

    /// Takes the disk for whole again once all of it is: nothing is damaged any more, or in doubt.
    pub(crate) fn mend(&mut self, limits: ProducerLimits) -> Result<bool, WorkError> {
        let log = self.log();
        let in_doubt = log.meta().suspect.is_some_and(|suspect| suspect > log.durable());
        if !self.harm.any || self.harm.in_meta || in_doubt {
            return Ok(false);
        }
        let mut verifier = log.reader().verifier();
        let all_read = std::iter::from_fn(|| verifier.step(1 << 20).transpose()).all(|step| step.is_ok());
        self.harm.known = all_read;
        if !all_read || !self.log().damaged().is_empty() {
            return Ok(false);
        }
        // A crash may bring back a damaged file that was trimmed, until its removal is on the disk.
        if self.disk.sync_dir().is_err() {
            return Ok(false);
        }
        self.harm = Harm::default();
        self.compare(limits).map(|_| true)
    }
}
