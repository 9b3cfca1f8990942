//! Changes of the members under a leader: one small step at a time towards the first `replicas` nodes. Knows
//! nothing of steps taken before: each follows from what is seen, so any may be lost, repeated, or taken by two controllers.

use alloc::vec::Vec;

use super::plan::NodeReports;
use super::{Reason, ReplicaRole, ReplicaStatus, Step, Wish};
use crate::control::election::Change;
use crate::quorum::{effective_quorum, is_majority, majority};
use crate::types::ReplicaId;
use crate::types::history::{EpochStart, VOTERS_MAX};

/// A leader's report of the replicas it feeds.
struct Fed<'a> {
    leader: ReplicaId,
    start: &'a EpochStart,
    followers: &'a [(ReplicaId, bool, crate::types::Offset)],
}

impl Fed<'_> {
    fn is_in_sync(&self, id: ReplicaId) -> bool {
        id == self.leader || self.followers.iter().any(|(follower, in_sync, _)| *follower == id && *in_sync)
    }

    fn in_sync(&self, ids: &[ReplicaId]) -> usize {
        ids.iter().filter(|id| self.is_in_sync(**id)).count()
    }

    /// Returns whether these voters would commit at once, and the present ones can decide on them.
    fn would_do(&self, voters: &[ReplicaId], quorum: Option<u32>) -> bool {
        let needed = effective_quorum(voters.len(), quorum);
        let in_sync = |ids| u32::try_from(self.in_sync(ids)).unwrap_or(u32::MAX);
        in_sync(voters) >= needed && self.has_majorities()
    }

    fn has_majorities(&self) -> bool {
        self.start.electorates().all(|electorate| self.in_sync(electorate) >= majority(electorate.len()))
    }

    /// Those that it feeds without counting them.
    fn learners(&self) -> impl Iterator<Item = ReplicaId> {
        self.followers.iter().map(|(id, ..)| *id).filter(|id| !elects(self.start, *id))
    }
}

fn elects(start: &EpochStart, id: ReplicaId) -> bool {
    start.elects(id)
}

impl NodeReports<'_> {
    /// The next step towards the wished members, under a leader that is well.
    pub(super) fn membership(&self, start: &EpochStart, leader: &ReplicaStatus) -> Step {
        let ReplicaRole::Leader { followers, settled, handing_over: false, .. } = &leader.role else {
            return Step::Nothing;
        };
        let fed = Fed { leader: leader.replica, start, followers };
        let learners: Vec<ReplicaId> = self.learners(start).collect();
        if learners.len() != fed.learners().count() || fed.learners().any(|id| !learners.contains(&id)) {
            return Step::Feed { epoch: start.epoch, leader: leader.replica, learners };
        }
        if !(*settled || self.is_held(start)) || !fed.has_majorities() {
            return Step::Nothing;
        }
        let prefer = Some(leader.replica);
        match self.change(&fed, &learners) {
            // An epoch that records no old voters ends the change: they need not be asked any more.
            None if start.old_voters.is_some() => self.elect(Reason::VotersSettled, prefer, None),
            None if self.quorum_changes(&fed) => self.elect(Reason::QuorumChange, prefer, None),
            None => Step::Nothing,
            change => {
                Step::Elect { epoch: self.next(None), prefer, without: None, change, reason: Reason::VotersChange }
            }
        }
    }

    /// Returns whether the next epoch may change the voters, by what the replicas say: a majority of each electorate holds the epoch's
    /// start. A quorum that is larger may never hold it, once a disk is lost.
    fn is_held(&self, start: &EpochStart) -> bool {
        let holds = |id: &ReplicaId| {
            let last = self.seen(*id).and_then(|seen| seen.last.as_ref());
            last.is_some_and(|last| last.epoch == start.epoch)
        };
        start.electorates().all(|electorate| is_majority(electorate, holds))
    }

    /// Returns whether another quorum is wished for, and would commit at once.
    fn quorum_changes(&self, fed: &Fed<'_>) -> bool {
        let (voters, quorum) = (&fed.start.voters, self.wish.quorum);
        effective_quorum(voters.len(), quorum) != fed.start.quorum && fed.would_do(voters, quorum)
    }

    /// Whoever is at a wished node and does not vote.
    pub(super) fn learners(&self, start: &EpochStart) -> impl Iterator<Item = ReplicaId> {
        let wished = (0..self.wish.replicas).filter_map(|ordinal| self.at(ordinal));
        let is_fit = |id: &ReplicaId| self.seen(*id).is_some_and(|seen| seen.role != ReplicaRole::Failed);
        wished.filter(move |id| !elects(start, *id) && is_fit(id))
    }

    /// The next voter to go or to come. One goes only while there are more than wished, or when another that has caught up is to
    /// take its place.
    fn change(&self, fed: &Fed<'_>, learners: &[ReplicaId]) -> Option<Change> {
        let (voters, quorum) = (&fed.start.voters, self.wish.quorum);
        // By its own word, too, it holds the epoch's start: an epoch that could not add it would only cost it its stream.
        let ready = learners.iter().copied().find(|id| fed.is_in_sync(*id) && self.holds_start(*id, fed.start));
        let without = |gone: ReplicaId| voters.iter().copied().filter(|id| *id != gone).collect::<Vec<_>>();
        let with = |new: ReplicaId| voters.iter().copied().chain([new]).collect::<Vec<_>>();
        // A leader hands over before it goes.
        let may_go = |gone: &ReplicaId| *gone != fed.leader && fed.would_do(&without(*gone), quorum);
        let remove = self.superfluous(voters).find(may_go);
        debug_assert!(remove.is_none_or(|gone| voters.contains(&gone)), "a replica is to go that does not vote");
        debug_assert!(ready.is_none_or(|new| !voters.contains(&new)), "a voter is to be added that votes");
        if let Some(gone) = remove.filter(|_| voters.len() > self.wish.replicas || ready.is_some()) {
            return Some(Change::Remove(gone));
        }
        let has_room = voters.len() < self.wish.replicas || self.superfluous(voters).next().is_some();
        ready.filter(|new| has_room && voters.len() < VOTERS_MAX && fed.would_do(&with(*new), quorum)).map(Change::Add)
    }

    /// The voters that are to go, those first whose disk is lost, then the highest ordinals. A voter counts as lost when all the
    /// wished nodes answer and it is at none: one that merely does not answer may come back with its disk.
    fn superfluous<'a>(&'a self, voters: &'a [ReplicaId]) -> impl Iterator<Item = ReplicaId> + 'a {
        let wished = self.nodes.get(..self.wish.replicas).unwrap_or_default();
        let all_answer = wished.len() == self.wish.replicas && wished.iter().all(Option::is_some);
        let lost = voters.iter().copied().filter(move |id| all_answer && self.seen(*id).is_none());
        let beyond = (self.wish.replicas..self.nodes.len()).rev().filter_map(|ordinal| self.at(ordinal));
        lost.chain(beyond.filter(|id| voters.contains(id)))
    }
}

/// The number of nodes that have to run, the first ones: the wished ones, and all up to the last one that has a say. Those behind may
/// be stopped for good.
pub fn nodes_needed(wish: &Wish, nodes: &[Option<ReplicaStatus>]) -> usize {
    let all = nodes.len().max(wish.replicas);
    let newest = nodes.iter().flatten().filter_map(ReplicaStatus::begun).max_by_key(|start| start.epoch);
    let leads = |seen: &&ReplicaStatus| {
        seen.last.as_ref() == newest && matches!(seen.role, ReplicaRole::Leader { settled: true, .. })
    };
    let (Some(start), Some(_)) = (newest, nodes.iter().flatten().find(leads)) else { return all };
    let has_say = |seen: &Option<ReplicaStatus>| seen.as_ref().is_some_and(|seen| elects(start, seen.replica));
    let is_seen = |id: &ReplicaId| nodes.iter().flatten().any(|seen| seen.replica == *id);
    // One that is not seen may be at any node that does not answer.
    let hidden = !start.electorates().flatten().all(is_seen);
    let last = nodes.iter().rposition(|seen| has_say(seen) || (hidden && seen.is_none()));
    let needed = wish.replicas.max(last.map_or(0, |last| last + 1));
    assert!(
        wish.replicas <= needed && needed <= all,
        "a node is stopped that is wished for, or more run than there are"
    );
    needed
}
