//! Starts of disks, a replica's own and those of others: a disk that was restored from a copy takes part in nothing.

use alloc::vec::Vec;

use crate::replica::progress::Leader;
use crate::replica::state::{Replica, Role};
use crate::replica::waiting::Effect;
use crate::types::ReplicaId;
use crate::types::incarnations::{Lineage, Run, Runs, STARTS_AHEAD_MAX};
use crate::types::io::Session;
use crate::types::output::Output;
use crate::types::refusal::Refusal;

impl Replica {
    /// Leader: whether a voter knows of a start of this disk that it has not seen. What a learner says is not believed: a learner is
    /// whoever was named as one.
    pub(crate) fn is_exposed_by(&mut self, from: ReplicaId, runs: &Runs, out: &mut Vec<Output>) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.elects(from)) && self.is_restored_by(runs, out)
    }

    /// Leader: a follower's disk says which starts it has seen, and a voter what it knows of others'. A start that is new here is written
    /// down before its acknowledgements count; who has not seen what is known here is a copy, and stays unknown.
    pub(crate) fn meet(&mut self, from: ReplicaId, lineage: &Lineage, runs: &Runs, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let votes = leader.elects(from);
        let Some(follower) = leader.followers.get_mut(&from) else { return };
        let mut told = if votes { runs.clone() } else { Runs::default() };
        told.forget(from);
        // What is said late, by an earlier start, changes nothing either.
        if self.starts.runs.get(from).is_none_or(|known| lineage.has(known)) {
            follower.meet(lineage.clone());
            told.set(from, lineage.run());
        }
        self.learn(told, out);
        self.recount();
    }

    /// Follower: what the leader has learned meanwhile.
    pub(crate) fn hear_of_runs(&mut self, session: Session, runs: Runs, out: &mut Vec<Output>) {
        match &mut self.role {
            Role::Follower(following) if following.session == Some(session) => following.runs = runs,
            _ => return,
        }
        if self.holds_leaders_start() && self.believe(out) {
            out.push(Output::Refuse { session, refusal: Refusal::Restored });
        }
    }

    /// Follower: whether the start of the epoch that it follows is in its log. Before, its leader's word counts for nothing but its
    /// frames: whoever reaches its port can open a stream.
    pub(crate) fn holds_leaders_start(&self) -> bool {
        let Role::Follower(following) = &self.role else { return false };
        following.pending.is_none() && self.log.history.last_epoch() == following.epoch
    }

    /// Follower: takes in what its leader has told of starts, or finds that its own disk is a copy.
    pub(crate) fn believe(&mut self, out: &mut Vec<Output>) -> bool {
        let Role::Follower(following) = &self.role else { return false };
        let runs = following.runs.clone();
        if self.is_restored_by(&runs, out) {
            return true;
        }
        self.learn(runs, out);
        false
    }

    /// Takes in what another knows of members, and has it written down if any of it is new.
    pub(crate) fn learn(&mut self, told: Runs, out: &mut Vec<Output>) {
        let mut runs = self.starts.runs.clone();
        let fed = match &self.role {
            Role::Leader(leader) => leader.followers.keys().copied().collect(),
            _ => Vec::<ReplicaId>::new(),
        };
        let elects = |id: ReplicaId| self.log.history.starts().iter().any(|start| start.elects(id));
        let is_member = |id: ReplicaId| id == self.id || elects(id) || fed.contains(&id);
        for (id, run) in told.iter().filter(|(id, _)| *id != self.id && is_member(*id)) {
            match &self.role {
                // A follower that has not seen it is a copy, whatever was known before.
                Role::Leader(leader) if leader.has_not_seen(id, run) => runs.correct(id, run),
                _ => runs.learn(id, run, is_member),
            }
        }
        debug_assert_eq!(runs.get(self.id), self.starts.runs.get(self.id), "others are believed about this disk");
        if runs != self.starts.runs {
            self.starts.runs = runs.clone();
            let ticket = self.next_ticket();
            out.push(Output::WriteRuns { ticket, runs: runs.clone() });
            self.after_disk(Effect::Noted(runs));
        }
    }

    /// Notes that what was learned is durable; returns whether more may be committed now.
    pub(crate) fn note_runs(&mut self, runs: Runs) -> bool {
        debug_assert_eq!(
            runs.get(self.id),
            self.starts.runs.get(self.id),
            "another start of this disk is written down"
        );
        self.starts.noted = runs;
        self.recount();
        matches!(self.role, Role::Leader(_))
    }

    fn recount(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        for (id, follower) in &mut leader.followers {
            let run = self.starts.runs.get(*id);
            let is_of_it = follower.lineage.as_ref().map(Lineage::run) == run;
            follower.counts = run.is_some() && is_of_it && self.starts.noted.get(*id) == run;
        }
    }

    /// Returns whether a leader speaks of a start of its disk that is over, or that a copy of it has made: nobody is to cut what it holds
    /// for that. Whoever is elected next tells it.
    pub(crate) fn contradicts(&self, leader: ReplicaId, told: &Runs) -> bool {
        let (Some(known), Some(told)) = (self.starts.runs.get(leader), told.get(leader)) else { return false };
        let is_over = known.starts > told.starts && known.starts - told.starts <= STARTS_AHEAD_MAX;
        is_over || (known.starts == told.starts && known.nonce != told.nonce)
    }

    /// Returns whether another knows of a start that this disk has not seen. Then it was restored from a copy, and says so from now on.
    pub(crate) fn is_restored_by(&mut self, runs: &Runs, out: &mut Vec<Output>) -> bool {
        if runs.get(self.id).is_none_or(|run| self.starts.lineage.has(run)) {
            return false;
        }
        self.fail(out);
        assert!(self.role == Role::Failed && self.waiting.is_empty(), "a disk that was put back takes part");
        self.starts.restored = true;
        let ticket = self.next_ticket();
        out.push(Output::WriteRestored { ticket });
        true
    }
}

impl Leader {
    fn has_not_seen(&self, id: ReplicaId, run: Run) -> bool {
        let lineage = self.followers.get(&id).and_then(|follower| follower.lineage.as_ref());
        lineage.is_some_and(|lineage| !lineage.has(run))
    }
}
