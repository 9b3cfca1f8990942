//! The next step where the leader of the newest epoch answers, and leads. The order of the questions is the order of what they cost: a
//! leader that is well is sealed for what cannot wait alone, and never in vain.

use alloc::vec::Vec;

use super::plan::{NodeReports, is_lost};
use super::{Policy, Reason, ReplicaRole, ReplicaStatus, Step};
use crate::control::election::{Change, Choice, choose};
use crate::types::history::EpochStart;
use crate::types::incarnations::{Lineage, Runs};
use crate::types::sealed::Sealed;
use crate::types::{Offset, ReplicaId};

/// The state of those that a leader feeds, as to whether they have promised too much to follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deafness {
    /// None has; or no election could help.
    None,
    /// The next epoch comes up to the promise of one.
    Near,
    /// It takes several.
    Far,
}

impl NodeReports<'_> {
    /// The first of these that applies: what must not wait, the wishes, and a promise so far above that it takes many steps to come up to
    /// it.
    pub(super) fn led(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Step {
        let deafness = self.deafness(newest, leader);
        let urgent =
            if deafness == Deafness::Near { Some(self.take_back(Reason::HigherPromise, leader)) } else { None };
        let urgent = urgent
            .or_else(|| self.pass_over_lost(newest, leader))
            .or_else(|| self.replace_stuck(leader))
            .or_else(|| self.connect_better(newest, leader));
        if let Some(urgent) = urgent {
            return urgent;
        }
        let wished = self.wished(newest, leader);
        if deafness == Deafness::None {
            return wished;
        }
        match (wished, self.why_far(newest)) {
            // Whoever has promised so much stays deaf for many steps, and nothing else is to wait for that: but a hand-over is over
            // once all is committed, and would wait itself where there is no quorum without it.
            (Step::Nothing, reason) | (Step::HandOver { .. }, reason @ Reason::HigherPromise) => {
                self.take_back(reason, leader)
            }
            (wished, _) => wished,
        }
    }

    /// Those that the leader feeds and that can't follow it, for a promise that they have made, as far as an election would be won.
    fn deafness(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Deafness {
        let fed = newest.electorates().flatten().copied().chain(self.learners(newest));
        let deaf: Vec<&ReplicaStatus> =
            fed.filter_map(|id| self.seen(id)).filter(|seen| is_deaf(seen, newest)).collect();
        let can_elect = || self.would_choose(self.going_on(leader), None, None).is_some();
        match () {
            () if deaf.is_empty() || !can_elect() => Deafness::None,
            () if deaf.iter().any(|seen| self.next(None) > seen.promised) => Deafness::Near,
            () => Deafness::Far,
        }
    }

    /// An epoch in which those that are deaf can follow again.
    fn take_back(&self, reason: Reason, leader: &ReplicaStatus) -> Step {
        self.elect(reason, self.going_on(leader), None)
    }

    /// The leader, which goes on if it can; under Static the named one.
    fn going_on(&self, leader: &ReplicaStatus) -> Option<ReplicaId> {
        match self.wish.policy {
            Policy::Automatic => Some(leader.replica),
            Policy::Static => self.preferred(),
        }
    }

    /// An election without a leader that a majority has lost: it can commit nothing, and they can, without it. Under Static only the
    /// named one is waited for.
    fn pass_over_lost(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Option<Step> {
        let may_go = self.wish.policy == Policy::Automatic || Some(leader.replica) != self.preferred();
        let has_lost = |id| id != leader.replica && self.seen(id).is_some_and(|seen| self.waits(seen));
        let without = Some(leader.replica);
        // They may not have heard of any epoch yet: then nobody but this leader can lead, once it reaches them.
        let must_go = may_go && is_lost(newest, has_lost);
        let can_go = must_go && self.would_choose(self.preferred(), None, without).is_some();
        can_go.then(|| self.elect(Reason::LeaderLost, self.preferred(), without))
    }

    /// An election of one that is whole, where a damaged leader may never commit anything.
    fn replace_stuck(&self, leader: &ReplicaStatus) -> Option<Step> {
        self.is_stuck(leader).then(|| self.elect(Reason::LeaderLost, self.preferred(), None))
    }

    /// An election of a voter that may reach the quorum that the leader misses.
    fn connect_better(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Option<Step> {
        let is_automatic = self.wish.policy == Policy::Automatic;
        let to = self.better_connected(newest, leader).filter(|_| is_automatic)?;
        Some(self.elect(Reason::QuorumLost, Some(to), None))
    }

    /// The next step towards the wishes, under a leader that is well: a hand-over first, then the members. No leader is sealed in vain.
    fn wished(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Step {
        let step = match self.successor(newest, leader) {
            Some(to) => Step::HandOver { epoch: newest.epoch, from: leader.replica, to, next: self.next(None) },
            None => self.membership(newest, leader),
        };
        match step {
            Step::HandOver { to, .. } if self.would_choose(Some(to), None, None).is_none() => Step::Nothing,
            Step::Elect { prefer, change, .. } if !self.would_change(newest, prefer, change) => Step::Nothing,
            step => step,
        }
    }

    // ---- what must not wait

    /// Why a step is taken towards a promise that it does not come up to. Where no quorum is in sight without that replica, there is no
    /// leader to be spared.
    fn why_far(&self, newest: &EpochStart) -> Reason {
        let follows =
            |id: &&ReplicaId| self.seen(**id).is_some_and(|s| s.role != ReplicaRole::Failed && !is_deaf(s, newest));
        let able = newest.voters.iter().filter(follows).count();
        let is_quorum = u32::try_from(able).is_ok_and(|able| able >= newest.quorum);
        if is_quorum { Reason::FarPromise } else { Reason::HigherPromise }
    }

    /// The voter that may reach a quorum, where the leader misses one for want of a voter that waits for it in vain: the link between the
    /// two may be cut, and no other. One that would be elected: it holds all that the leader has.
    fn better_connected(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Option<ReplicaId> {
        let ReplicaRole::Leader { followers, .. } = &leader.role else { return None };
        let follows = |id: ReplicaId| followers.iter().any(|(follower, in_sync, _)| *follower == id && *in_sync);
        let waits = |id: ReplicaId| self.seen(id).is_some_and(|seen| self.waits(seen));
        let counts = |id: &&ReplicaId| **id == leader.replica || follows(**id);
        let voters = || newest.voters.iter();
        let is_quorum = |count: usize| u32::try_from(count).is_ok_and(|count| count >= newest.quorum);
        let could_count = voters().filter(|id| counts(id) || waits(**id)).count();
        if is_quorum(voters().filter(counts).count()) || !is_quorum(could_count) {
            return None;
        }
        let is_fit = |id: &ReplicaId| self.seen(*id).is_some_and(|seen| !seen.leaving && !seen.damaged);
        let candidates = || voters().copied().filter(|id| follows(*id) && self.is_wished(*id)).filter(is_fit);
        let leads = |id: ReplicaId| self.would_choose(Some(id), None, None).is_some_and(|choice| choice.leader == id);
        candidates().find(|id| leads(*id))
    }

    /// Returns whether a leader that has committed nothing yet may never do so: what it has damaged, perhaps nobody else holds, and nothing
    /// behind that can be given to anybody. Those that are whole can go on without it, and then it follows them.
    fn is_stuck(&self, leader: &ReplicaStatus) -> bool {
        let settled = matches!(leader.role, ReplicaRole::Leader { settled: true, .. });
        let another = || self.would_choose(self.preferred(), None, None).is_some_and(|c| c.leader != leader.replica);
        leader.damaged && !settled && another()
    }

    /// Returns whether a voter has waited in vain for a leader that leads by its own word. A stream that ended may be opened again.
    fn waits(&self, seen: &ReplicaStatus) -> bool {
        match seen.role {
            ReplicaRole::Idle { waiting_ms: ms } | ReplicaRole::Follower { silence_ms: ms, .. } => {
                ms >= self.wish.detection_ms
            }
            ReplicaRole::Leader { .. } | ReplicaRole::Failed => false,
        }
    }

    // ---- wishes

    /// The voter that is to take over from a leader that is well. Only one that is in sync and whole, and lacks little: no other could win the
    /// election.
    fn successor(&self, newest: &EpochStart, leader: &ReplicaStatus) -> Option<ReplicaId> {
        let ReplicaRole::Leader { followers, far, handing_over, switch_to, .. } = &leader.role else { return None };
        let is_ready = |id: &ReplicaId| {
            let is_in_sync = followers.iter().any(|(replica, in_sync, _)| replica == id && *in_sync);
            let is_fit = self.is_wished(*id) && self.seen(*id).is_some_and(|seen| !seen.leaving && !seen.damaged);
            // What it lacks from before this leadership is not counted in bytes: it holds the start of it, so that there is none.
            let holds_start = self.holds_start(*id, newest);
            is_in_sync && newest.voters.contains(id) && is_fit && !far.contains(id) && holds_start
        };
        let wanted = match self.wish.policy {
            _ if *handing_over => None,
            Policy::Static => self.preferred(),
            Policy::Automatic => self.wish.switch_to.and_then(|ordinal| self.at(ordinal)).or(*switch_to),
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != leader.replica && is_ready(wanted)) {
            return Some(wanted);
        }
        let goes = leader.leaving || !self.is_wished(leader.replica);
        if !goes || *handing_over || self.wish.policy == Policy::Static {
            return None;
        }
        // The one that holds most takes over soonest; of equal ones the first.
        let ready = self.ours.iter().map(|seen| seen.replica).filter(is_ready);
        let end = |id: &ReplicaId| followers.iter().find(|(replica, ..)| replica == id).map(|(_, _, end)| *end);
        ready.rev().max_by_key(end)
    }

    // ---- elections that would be won

    /// The choice that would be made from the answers of those that answer now, `without` one of them, if anything: a leader that is well is not
    /// sealed in vain.
    fn would_choose(
        &self,
        prefer: Option<ReplicaId>,
        change: Option<Change>,
        without: Option<ReplicaId>,
    ) -> Option<Choice> {
        let can_vote = |seen: &&&ReplicaStatus| seen.role != ReplicaRole::Failed && Some(seen.replica) != without;
        let answers: Vec<Sealed> = self.ours.iter().filter(can_vote).map(|seen| sealed(seen)).collect();
        choose(&answers, prefer, None, self.wish.quorum, change).ok()
    }

    /// Returns whether an epoch for the sake of the voters would come to what it is for, by the answers at hand. Each that does not costs the
    /// learners their streams.
    fn would_change(&self, newest: &EpochStart, prefer: Option<ReplicaId>, change: Option<Change>) -> bool {
        let choice = self.would_choose(prefer, change, None);
        choice.is_some_and(|choice| match change {
            Some(_) => choice.voters != newest.voters,
            None => choice.old_voters.is_none(),
        })
    }
}

/// Its answer to a seal, as far as is known.
fn sealed(seen: &ReplicaStatus) -> Sealed {
    let ReplicaStatus { replica, cluster, durable, suspect, damaged, .. } = *seen;
    let (last, commit_end) = (seen.last.clone(), Offset(0));
    let (lineage, runs) = (Lineage::default(), Runs::default());
    Sealed { replica, cluster, last, durable, commit_end, suspect, damaged, lineage, runs }
}

/// Returns whether it can't follow the leader of that epoch any more: it has promised a later one, or is bound to another leader of that one.
/// One that has failed follows nobody, whatever the epoch.
fn is_deaf(seen: &ReplicaStatus, newest: &EpochStart) -> bool {
    if seen.role == ReplicaRole::Failed {
        return false;
    }
    let is_bound_elsewhere = seen.bound.is_some_and(|bound| bound != newest.leader);
    seen.promised > newest.epoch || (seen.promised == newest.epoch && is_bound_elsewhere)
}
