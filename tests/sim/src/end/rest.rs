//! The rest that a world comes to once nothing goes wrong any more: all appends answered, all voters equal, members and leader as wished.

use zue_core::control::Policy;
use zue_core::{ReplicaId, RoleView};

use super::person::Help;
use crate::world::World;

/// The time for which the world may take to come to rest once nothing goes wrong any more, virtual milliseconds.
const REST_MS: u64 = 60_000;

impl World {
    /// Goes on until all is at rest, with the help of a person where faults took what no rule can bring back; or until that person has to
    /// give the cluster up.
    pub(crate) fn rest(&mut self) -> Result<(), String> {
        let mut until = self.now + REST_MS;
        while !self.is_at_rest() {
            if self.now > until {
                match self.help_needed() {
                    None => return Err(self.unrest()),
                    Some(Help::GiveUp) => {
                        self.counts.stuck = true;
                        return Ok(());
                    }
                    Some(Help::Trim { leader, before }) => {
                        self.trim_by_hand(leader, before);
                        until = self.now + REST_MS;
                    }
                }
            }
            self.turn_checked()?;
        }
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        self.clients.is_quiet()
            && self.is_led_as_wished()
            && self.is_staffed_as_wished()
            && self.unequal().is_empty()
            && self.stand_by()
    }

    /// Checks that all voters know how to stand by, where nodes do.
    fn stand_by(&self) -> bool {
        let is_told = |leader| self.are_told(&self.voters(leader), leader);
        !self.params.control.stands_by || self.leader().is_some_and(is_told)
    }

    /// The replicas at the first machines vote, nobody else does, and no change is under way.
    fn is_staffed_as_wished(&self) -> bool {
        let process = self.leader().and_then(|leader| self.machines.get(leader)?.process.as_ref());
        let Some(start) = process.and_then(|process| process.replica().history().last()) else { return false };
        let wished = || self.machines.iter().take(self.params.wish.replicas).map(|at| at.storage.id());
        let all_vote = wished().all(|id| start.voters.contains(&id)) && start.voters.len() == self.params.wish.replicas;
        all_vote && start.old_voters.is_none()
    }

    /// Static: the named replica leads; if its disk was lost, any other. Automatic: any leads.
    fn is_led_as_wished(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        if self.params.wish.policy == Policy::Automatic {
            return true;
        }
        let ordinal = self.params.wish.ordinal;
        let named = self.machines.get(ordinal).map(|at| at.storage.id());
        leader == ordinal || named.is_none_or(|named| !self.voters(leader).contains(&named))
    }

    pub(crate) fn voters(&self, leader: usize) -> Vec<ReplicaId> {
        let process = self.machines.get(leader).and_then(|at| at.process.as_ref());
        let start = process.and_then(|process| process.replica().history().last());
        start.map(|start| start.voters.clone()).unwrap_or_default()
    }

    /// The machine that leads the newest epoch, whose start is committed.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |machine: &usize| {
            let process = self.machines.get(*machine).and_then(|at| at.process.as_ref());
            process.is_some_and(|p| {
                matches!(p.replica().role(self.clock(*machine)), RoleView::Leader { settled: true, .. })
            })
        };
        let epoch = |machine: &usize| self.machines.get(*machine)?.process.as_ref().map(|p| p.replica().log().epoch);
        (0..self.machines.len()).filter(leads).max_by_key(epoch)
    }

    /// The machines that are down, and those whose replicas vote and do not hold all of the leader's log, committed.
    fn unequal(&self) -> Vec<usize> {
        let process = |machine: usize| self.machines.get(machine).and_then(|at| Some((at, at.process.as_ref()?)));
        let Some(machine) = self.leader() else { return Vec::new() };
        let Some((_, leader)) = process(machine) else { return Vec::new() };
        let voters = self.voters(machine);
        let is_equal = |machine: &usize| {
            process(*machine).is_some_and(|(at, process)| {
                !voters.contains(&at.storage.id())
                    || (process.replica().log() == leader.replica().log()
                        && process.replica().log_start() == leader.replica().log_start()
                        && at.storage.is_readable(|record| self.may_be_lost(record))
                        && self.check.is_whole(process, &at.storage))
            })
        };
        (0..self.machines.len()).filter(|machine| !is_equal(machine)).collect()
    }

    fn unrest(&self) -> String {
        let (leader, unequal, pending) = (self.leader(), self.unequal(), self.clients.pending());
        let (staffed, told) = (self.is_staffed_as_wished(), self.stand_by());
        let damaged: Vec<_> = self.machines.iter().filter_map(|at| at.storage.doubt()).collect();
        format!(
            "no rest, {damaged:?}: leader {leader:?}, behind {unequal:?}, {pending} appends without an answer, members as wished: {staffed}, who stand by as told: {told}"
        )
    }
}
