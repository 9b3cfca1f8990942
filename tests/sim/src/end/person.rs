//! The person that a cluster waits for where faults took what no rule can bring back: a majority of the disks, or every copy of a
//! committed record. Of the first they give the cluster up (docs/runbooks/LostMajority.md). Behind such a record nothing can be given to
//! a replica that lacks it, and no program may call it lost: whoever held it may yet come back. A person may, and trims the log behind it
//! (docs/runbooks/ZueRecordsLost.md); then all has to go on. Everything else comes to rest without them.

#[cfg(test)]
mod tests;

use zue_core::{Offset, RoleView};
use zue_log::Damage;

use crate::message::Caller;
use crate::world::World;

/// The deed of a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Help {
    /// Nothing of this cluster goes on.
    GiveUp,
    /// The log is to begin behind what is lost.
    Trim { leader: usize, before: Offset },
}

impl World {
    /// The help of a person for a world that does not come to rest; nothing where they could not tell it from a fault of the program.
    pub(crate) fn help_needed(&self) -> Option<Help> {
        if self.lacks_majority() {
            return Some(Help::GiveUp);
        }
        let leader = self.leads_newest()?;
        let (from, to) = self.lost_at(leader)?;
        let process = self.machines.get(leader)?.process.as_ref()?;
        let (log_start, commit_end) = (process.replica().log_start(), process.replica().commit_end());
        if from >= commit_end {
            // It does not know that this was committed, and lets nobody trim it.
            return (from < self.check.committed_end() && self.leader().is_none()).then_some(Help::GiveUp);
        }
        let before = self.check.append_end(to).min(commit_end);
        (before > log_start.max(self.counts.trimmed_by_hand)).then_some(Help::Trim { leader, before })
    }

    pub(crate) fn trim_by_hand(&mut self, leader: usize, before: Offset) {
        self.trace.say(self.now, format_args!("a person trims what is before {before}, for what is lost"));
        (self.counts.trimmed_by_hand, self.counts.lossy) = (before, true);
        self.take_trim(leader, Caller::Snapshotter, before);
    }

    /// The machine that leads the newest epoch, whether or not anything of it is committed.
    fn leads_newest(&self) -> Option<usize> {
        let epoch = |machine: &usize| Some(self.machines.get(*machine)?.process.as_ref()?.replica().log().epoch);
        let newest = (0..self.machines.len()).max_by_key(epoch)?;
        let process = self.machines.get(newest)?.process.as_ref()?;
        matches!(process.replica().role(self.clock(newest)), RoleView::Leader { .. }).then_some(newest)
    }

    /// The last records that are damaged on this machine, and that no voter need hold any more.
    fn lost_at(&self, machine: usize) -> Option<(Offset, Offset)> {
        let storage = &self.machines.get(machine)?.storage;
        let is_gone = |at: Offset| at < storage.log_start() || self.may_be_lost(at);
        let is_lost =
            |damage: &Damage| damage.from < damage.to && (damage.from.0..damage.to.0).all(|at| is_gone(Offset(at)));
        let damages = storage.log.as_ref()?.damaged();
        damages.iter().filter(|damage| is_lost(damage)).map(|damage| (damage.from, damage.to)).max_by_key(|(_, to)| *to)
    }
}
