//! The plan itself.

use alloc::vec::Vec;

use super::climb::next_epoch;
use super::{Blocked, Policy, Reason, Recorded, ReplicaRole, ReplicaStatus, Step, Wish};
use crate::quorum::{is_majority, majority};
use crate::types::history::EpochStart;
use crate::types::{ClusterId, Epoch, ReplicaId};

/// The reports of the nodes, sorted.
pub(super) struct NodeReports<'a> {
    pub(super) wish: &'a Wish,
    pub(super) nodes: &'a [Option<ReplicaStatus>],
    cluster: Option<ClusterId>,
    /// The replicas of the cluster, and blank ones, that answer, and those that were restored where no cluster is; in the order of the
    /// ordinals.
    pub(super) ours: Vec<&'a ReplicaStatus>,
    recorded: &'a Recorded,
    /// The newest epoch start that one of them holds.
    newest: Option<&'a EpochStart>,
}

/// The next step. `nodes` are in the order of the ordinals; none stands for one that does not answer.
pub fn plan(wish: &Wish, recorded: &Recorded, nodes: &[Option<ReplicaStatus>]) -> Step {
    let cluster = match one_cluster(recorded, nodes) {
        Ok(cluster) => cluster,
        Err(blocked) => return Step::Blocked(blocked),
    };
    let ours: Vec<&ReplicaStatus> = nodes.iter().flatten().filter(|seen| is_ours(seen, cluster)).collect();
    let newest = ours.iter().filter_map(|seen| seen.begun()).max_by_key(|start| start.epoch);
    let look = NodeReports { wish, nodes, cluster, ours, recorded, newest };
    let Some(newest) = newest else { return look.begin() };
    match look.ours.iter().find(|seen| leads(seen, newest)) {
        Some(leader) => look.led(newest, leader),
        None => look.not_led(newest),
    }
}

impl NodeReports<'_> {
    /// No replica that answers holds an epoch start.
    fn begin(&self) -> Step {
        let recorded = self.recorded;
        // Those beyond the wished ones too: one that does not answer may hold the cluster that an emptied disk has forgotten.
        let (answered, replicas) = (self.ours.len(), self.nodes.len());
        let mut others =
            self.nodes.iter().enumerate().filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref()?.cluster?)));
        if let Some((expected, (ordinal, found))) =
            recorded.cluster.zip(others.find(|(_, found)| Some(*found) != recorded.cluster))
        {
            return Step::Blocked(Blocked::ForeignReplica { ordinal, found, expected });
        }
        if let Some(blocked) = self.restored() {
            return Step::Blocked(blocked);
        }
        match recorded.cluster {
            None if answered == replicas => self.elect(Reason::Bootstrap, self.preferred(), None),
            None => Step::Blocked(Blocked::WaitingForReplicas { reachable: answered, replicas }),
            Some(cluster) if answered == replicas => Step::Blocked(Blocked::DataGone(cluster)),
            Some(_) => Step::Blocked(Blocked::NoMajority { answered, voters: replicas, needed: majority(replicas) }),
        }
    }

    /// Why no cluster can begin with what was restored, if so.
    fn restored(&self) -> Option<Blocked> {
        let seeds = || {
            let seen = self.nodes.iter().enumerate().filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref()?)));
            seen.filter(|(_, seen)| seen.is_seed())
        };
        let (ordinal, seed) = seeds().next()?;
        if let Some(cluster) = self.recorded.cluster {
            return Some(Blocked::RestoredBesideCluster { ordinal, cluster });
        }
        if seeds().count() > 1 {
            return Some(Blocked::ManyRestored(seeds().map(|(ordinal, _)| ordinal).collect()));
        }
        (seed.suspect.is_some() || seed.damaged).then_some(Blocked::RestoredHurt { ordinal })
    }

    /// The leader of the newest epoch does not answer, or does not lead any more.
    fn not_led(&self, newest: &EpochStart) -> Step {
        let is_silent = self.seen(newest.leader).is_none();
        let reason = if is_silent { Reason::LeaderLost } else { Reason::NoLeader };
        let can_vote = |id: &ReplicaId| self.seen(*id).is_some_and(|seen| seen.role != ReplicaRole::Failed);
        let has_lost = |id| can_vote(&id) && self.seen(id).is_some_and(|seen| !self.hears(seen, newest, is_silent));
        if self.wish.policy == Policy::Static {
            // The leader itself counts: it hears itself, wherever it is.
            let is_heard =
                |id: &ReplicaId| *id == newest.leader || self.seen(*id).is_some_and(|s| self.hears(s, newest, true));
            if is_silent && is_majority(&newest.voters, is_heard) {
                return Step::Nothing;
            }
            // An interim leader that answers, but leads no more, shows that the named one was not waited for.
            if is_silent && self.preferred().is_none() {
                return Step::Blocked(Blocked::StaticLeaderDown { ordinal: self.wish.ordinal });
            }
        }
        for electorate in newest.electorates() {
            let (answered, voters) = (electorate.iter().filter(|id| can_vote(id)).count(), electorate.len());
            if answered < majority(voters) {
                return Step::Blocked(Blocked::NoMajority { answered, voters, needed: majority(voters) });
            }
        }
        if self.wish.policy == Policy::Static || is_lost(newest, has_lost) {
            return self.elect(reason, self.preferred(), None);
        }
        // Enough voters hear a leader that this controller does not see, or may hear it for all that is known.
        Step::Nothing
    }

    /// Returns whether a voter hears a leader, of the newest epoch or of one that began out of sight. The leader of the newest epoch leads
    /// no more if it answers otherwise.
    fn hears(&self, seen: &ReplicaStatus, newest: &EpochStart, leader_may_lead: bool) -> bool {
        let ReplicaRole::Follower { silence_ms, connected } = seen.role else { return false };
        let of_leader = if leader_may_lead { seen.promised >= newest.epoch } else { seen.promised > newest.epoch };
        // A stream that ended tells at once what silence tells only after a while.
        of_leader && connected && silence_ms < self.wish.detection_ms
    }

    pub(super) fn elect(&self, reason: Reason, prefer: Option<ReplicaId>, without: Option<ReplicaId>) -> Step {
        Step::Elect { epoch: self.next(without), prefer, without, change: None, reason }
    }

    /// The epoch to elect next, without asking that one.
    pub(super) fn next(&self, without: Option<ReplicaId>) -> Epoch {
        next_epoch(self.recorded, &self.ours, self.newest, without)
    }

    pub(super) fn seen(&self, id: ReplicaId) -> Option<&ReplicaStatus> {
        self.ours.iter().copied().find(|seen| seen.replica == id)
    }

    /// Returns whether it holds the start of that epoch by its own word: all that was before it, that is.
    pub(super) fn holds_start(&self, id: ReplicaId, start: &EpochStart) -> bool {
        self.seen(id).is_some_and(|seen| seen.durable.epoch == start.epoch)
    }

    /// The replica that answers at an ordinal.
    pub(super) fn at(&self, ordinal: usize) -> Option<ReplicaId> {
        let seen = self.nodes.get(ordinal)?.as_ref()?;
        Some(seen.replica).filter(|_| is_ours(seen, self.cluster))
    }

    /// Returns whether it is at one of the nodes that are to be members.
    pub(super) fn is_wished(&self, id: ReplicaId) -> bool {
        (0..self.wish.replicas).any(|ordinal| self.at(ordinal) == Some(id))
    }

    pub(super) fn preferred(&self) -> Option<ReplicaId> {
        self.at(self.wish.ordinal)
    }
}

/// Returns whether a majority of each electorate has lost the leader: without them it commits nothing, and they can elect another.
pub(super) fn is_lost(newest: &EpochStart, has_lost: impl Fn(ReplicaId) -> bool) -> bool {
    newest.electorates().all(|electorate| is_majority(electorate, |id| has_lost(*id)))
}

/// One that was restored is of no cluster that there is.
fn is_ours(seen: &ReplicaStatus, cluster: Option<ClusterId>) -> bool {
    seen.cluster == cluster || (seen.cluster.is_none() && !seen.is_seed())
}

fn leads(seen: &ReplicaStatus, newest: &EpochStart) -> bool {
    let is_newest = seen.last.as_ref().is_some_and(|last| last.epoch == newest.epoch);
    is_newest && matches!(seen.role, ReplicaRole::Leader { .. })
}

/// The cluster that is recorded, else the one that the replicas belong to. While none is recorded, replicas of two clusters are
/// left alone, and members beside one that was restored: nobody can say which one is meant.
fn one_cluster(recorded: &Recorded, nodes: &[Option<ReplicaStatus>]) -> Result<Option<ClusterId>, Blocked> {
    let mut found = nodes.iter().enumerate().filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref()?.cluster?)));
    let Some(expected) = recorded.cluster.or_else(|| found.clone().next().map(|(_, cluster)| cluster)) else {
        return Ok(None);
    };
    let seed = nodes.iter().position(|seen| seen.as_ref().is_some_and(ReplicaStatus::is_seed));
    if let Some(ordinal) = seed.filter(|_| recorded.cluster.is_none()) {
        return Err(Blocked::RestoredBesideCluster { ordinal, cluster: expected });
    }
    match found.find(|(_, found)| *found != expected) {
        Some((ordinal, found)) if recorded.cluster.is_none() => {
            Err(Blocked::ForeignReplica { ordinal, found, expected })
        }
        _ => Ok(Some(expected)),
    }
}
