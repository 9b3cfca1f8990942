//! The plan itself.

use alloc::vec::Vec;

use super::climb::next_epoch;
use super::{Blocked, Policy, Reason, Recorded, Seen, SeenRole, Step, Wish};
use crate::control::election::{Change, Choice, choose};
use crate::quorum::{is_majority, majority};
use crate::types::history::EpochStart;
use crate::types::incarnations::{Lineage, Runs};
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId};

/// What is looked at, sorted.
pub(super) struct Look<'a> {
    pub(super) wish: &'a Wish,
    pub(super) nodes: &'a [Option<Seen>],
    cluster: Option<ClusterId>,
    /// The replicas of the cluster, and blank ones, that answer, and those that were restored where no cluster is; in the order of the
    /// ordinals.
    pub(super) ours: Vec<&'a Seen>,
    recorded: &'a Recorded,
    /// The newest epoch start that one of them holds.
    newest: Option<&'a EpochStart>,
}

/// What to do next. `nodes` are in the order of the ordinals; none stands for one that does not answer.
pub fn plan(wish: &Wish, recorded: &Recorded, nodes: &[Option<Seen>]) -> Step {
    let cluster = match one_cluster(recorded, nodes) {
        Ok(cluster) => cluster,
        Err(blocked) => return Step::Blocked(blocked),
    };
    let ours: Vec<&Seen> = nodes.iter().flatten().filter(|seen| is_ours(seen, cluster)).collect();
    let newest = ours.iter().filter_map(|seen| seen.begun()).max_by_key(|start| start.epoch);
    let look = Look { wish, nodes, cluster, ours, recorded, newest };
    let Some(newest) = newest else { return look.begin() };
    match look.ours.iter().find(|seen| leads(seen, newest)) {
        Some(leader) => look.led(newest, leader),
        None => look.not_led(newest),
    }
}

impl Look<'_> {
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

    /// The leader of the newest epoch answers, and leads.
    fn led(&self, newest: &EpochStart, leader: &Seen) -> Step {
        let automatic = self.wish.policy == Policy::Automatic;
        // Whoever leads goes on, if it can.
        let prefer = if automatic { Some(leader.replica) } else { self.preferred() };
        let fed = newest.electorates().flatten().copied().chain(self.learners(newest));
        let deaf: Vec<&Seen> = fed.filter_map(|id| self.seen(id)).filter(|seen| is_deaf(seen, newest)).collect();
        let takes_back = !deaf.is_empty() && self.would_choose(prefer, None, None).is_some();
        if takes_back && deaf.iter().any(|seen| self.next(None) > seen.promised) {
            return self.elect(Reason::HigherPromise, prefer, None);
        }
        // It can commit nothing, and they can, without it. Under Static only the named one is waited for.
        let may_go = automatic || Some(leader.replica) != self.preferred();
        let has_lost = |id| id != leader.replica && self.seen(id).is_some_and(|seen| self.waits(seen));
        let must_go = may_go && is_lost(newest, has_lost);
        // They may not have heard of any epoch yet: then nobody but this leader can lead, once it reaches them.
        if must_go && self.would_choose(self.preferred(), None, Some(leader.replica)).is_some() {
            return self.elect(Reason::LeaderLost, self.preferred(), Some(leader.replica));
        }
        if self.is_stuck(leader) {
            return self.elect(Reason::LeaderLost, self.preferred(), None);
        }
        if let Some(to) = self.better_connected(newest, leader).filter(|_| automatic) {
            return self.elect(Reason::QuorumLost, Some(to), None);
        }
        let step = match self.successor(newest, leader) {
            Some(to) => Step::HandOver { epoch: newest.epoch, from: leader.replica, to, next: self.next(None) },
            None => self.membership(newest, leader),
        };
        let step = match step {
            Step::HandOver { to, .. } if self.would_choose(Some(to), None, None).is_none() => Step::Nothing,
            Step::Elect { prefer, change, .. } if !self.would_change(newest, prefer, change) => Step::Nothing,
            step => step,
        };
        match (step, takes_back.then(|| self.why_far(newest))) {
            // Whoever has promised so much stays deaf for many steps, and nothing else is to wait for that: but a hand-over is over
            // once all is committed, and would wait itself where there is no quorum without it.
            (Step::Nothing, Some(reason)) | (Step::HandOver { .. }, Some(reason @ Reason::HigherPromise)) => {
                self.elect(reason, prefer, None)
            }
            (step, _) => step,
        }
    }

    /// Why a step is taken towards a promise that it does not come up to. Where no quorum is in sight without that replica, there is no
    /// leader to be spared.
    fn why_far(&self, newest: &EpochStart) -> Reason {
        let follows =
            |id: &&ReplicaId| self.seen(**id).is_some_and(|s| s.role != SeenRole::Failed && !is_deaf(s, newest));
        let able = newest.voters.iter().filter(follows).count();
        let is_quorum = u32::try_from(able).is_ok_and(|able| able >= newest.quorum);
        if is_quorum { Reason::FarPromise } else { Reason::HigherPromise }
    }

    /// Who may reach a quorum, where the leader misses one for want of a voter that waits for it in vain: the link between the two may
    /// be cut, and no other. One that would be elected: it holds all that the leader has.
    fn better_connected(&self, newest: &EpochStart, leader: &Seen) -> Option<ReplicaId> {
        let SeenRole::Leader { followers, .. } = &leader.role else { return None };
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

    /// What would be chosen from the answers of those that answer now, `without` one of them, if anything: a leader that is well is not
    /// sealed in vain.
    fn would_choose(
        &self,
        prefer: Option<ReplicaId>,
        change: Option<Change>,
        without: Option<ReplicaId>,
    ) -> Option<Choice> {
        let can_vote = |seen: &&&Seen| seen.role != SeenRole::Failed && Some(seen.replica) != without;
        let answers: Vec<Sealed> = self.ours.iter().filter(can_vote).map(|seen| sealed(seen)).collect();
        choose(&answers, prefer, None, self.wish.quorum, change).ok()
    }

    /// Whether an epoch for the sake of the voters would come to what it is for, by the answers at hand. Each that does not costs the
    /// learners their streams.
    fn would_change(&self, newest: &EpochStart, prefer: Option<ReplicaId>, change: Option<Change>) -> bool {
        let choice = self.would_choose(prefer, change, None);
        choice.is_some_and(|choice| match change {
            Some(_) => choice.voters != newest.voters,
            None => choice.old_voters.is_none(),
        })
    }

    /// Whether a leader that has committed nothing yet may never do so: what it has damaged, perhaps nobody else holds, and nothing
    /// behind that can be given to anybody. Those that are whole can go on without it, and then it follows them.
    fn is_stuck(&self, leader: &Seen) -> bool {
        let settled = matches!(leader.role, SeenRole::Leader { settled: true, .. });
        let another = || self.would_choose(self.preferred(), None, None).is_some_and(|c| c.leader != leader.replica);
        leader.damaged && !settled && another()
    }

    /// The leader of the newest epoch does not answer, or does not lead any more.
    fn not_led(&self, newest: &EpochStart) -> Step {
        let is_silent = self.seen(newest.leader).is_none();
        let reason = if is_silent { Reason::LeaderLost } else { Reason::NoLeader };
        let can_vote = |id: &ReplicaId| self.seen(*id).is_some_and(|seen| seen.role != SeenRole::Failed);
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

    /// Who is to take over from a leader that is well. Only one that is in sync and whole, and lacks little: no other could win the
    /// election.
    fn successor(&self, newest: &EpochStart, leader: &Seen) -> Option<ReplicaId> {
        let SeenRole::Leader { followers, far, handing_over, switch_to, .. } = &leader.role else { return None };
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

    /// Whether a voter hears a leader, of the newest epoch or of one that began out of sight. The leader of the newest epoch leads
    /// no more if it answers otherwise.
    fn hears(&self, seen: &Seen, newest: &EpochStart, leader_may_lead: bool) -> bool {
        let SeenRole::Follower { silence_ms, connected } = seen.role else { return false };
        let of_leader = if leader_may_lead { seen.promised >= newest.epoch } else { seen.promised > newest.epoch };
        // A stream that ended tells at once what silence tells only after a while.
        of_leader && connected && silence_ms < self.wish.detection_ms
    }

    /// Whether a voter has waited in vain for a leader that leads by its own word. A stream that ended may be opened again.
    fn waits(&self, seen: &Seen) -> bool {
        match seen.role {
            SeenRole::Idle { waiting_ms: ms } | SeenRole::Follower { silence_ms: ms, .. } => {
                ms >= self.wish.detection_ms
            }
            SeenRole::Leader { .. } | SeenRole::Failed => false,
        }
    }

    pub(super) fn elect(&self, reason: Reason, prefer: Option<ReplicaId>, without: Option<ReplicaId>) -> Step {
        Step::Elect { epoch: self.next(without), prefer, without, change: None, reason }
    }

    /// The epoch to elect next, without asking that one.
    pub(super) fn next(&self, without: Option<ReplicaId>) -> Epoch {
        next_epoch(self.recorded, &self.ours, self.newest, without)
    }

    pub(super) fn seen(&self, id: ReplicaId) -> Option<&Seen> {
        self.ours.iter().copied().find(|seen| seen.replica == id)
    }

    /// Whether it holds the start of that epoch by its own word: all that was before it, that is.
    pub(super) fn holds_start(&self, id: ReplicaId, start: &EpochStart) -> bool {
        self.seen(id).is_some_and(|seen| seen.durable.epoch == start.epoch)
    }

    /// The replica that answers at an ordinal.
    pub(super) fn at(&self, ordinal: usize) -> Option<ReplicaId> {
        let seen = self.nodes.get(ordinal)?.as_ref()?;
        Some(seen.replica).filter(|_| is_ours(seen, self.cluster))
    }

    /// Whether it is at one of the nodes that are to be members.
    fn is_wished(&self, id: ReplicaId) -> bool {
        (0..self.wish.replicas).any(|ordinal| self.at(ordinal) == Some(id))
    }

    fn preferred(&self) -> Option<ReplicaId> {
        self.at(self.wish.ordinal)
    }
}

/// Whether a majority of each electorate has lost the leader: without them it commits nothing, and they can elect another.
fn is_lost(newest: &EpochStart, has_lost: impl Fn(ReplicaId) -> bool) -> bool {
    newest.electorates().all(|electorate| is_majority(electorate, |id| has_lost(*id)))
}

/// What it would answer to a seal, as far as is known.
fn sealed(seen: &Seen) -> Sealed {
    let Seen { replica, cluster, durable, suspect, damaged, .. } = *seen;
    let (last, commit_end) = (seen.last.clone(), Offset(0));
    let (lineage, runs) = (Lineage::default(), Runs::default());
    Sealed { replica, cluster, last, durable, commit_end, suspect, damaged, lineage, runs }
}

/// Whether it can't follow the leader of that epoch any more: it has promised a later one, or is bound to another leader of that one.
/// One that has failed follows nobody, whatever the epoch.
fn is_deaf(seen: &Seen, newest: &EpochStart) -> bool {
    if seen.role == SeenRole::Failed {
        return false;
    }
    let is_bound_elsewhere = seen.bound.is_some_and(|bound| bound != newest.leader);
    seen.promised > newest.epoch || (seen.promised == newest.epoch && is_bound_elsewhere)
}

/// One that was restored is of no cluster that there is.
fn is_ours(seen: &Seen, cluster: Option<ClusterId>) -> bool {
    seen.cluster == cluster || (seen.cluster.is_none() && !seen.is_seed())
}

fn leads(seen: &Seen, newest: &EpochStart) -> bool {
    let is_newest = seen.last.as_ref().is_some_and(|last| last.epoch == newest.epoch);
    is_newest && matches!(seen.role, SeenRole::Leader { .. })
}

/// The cluster that is recorded, else the one that the replicas belong to. While none is recorded, replicas of two clusters are
/// left alone, and members beside one that was restored: nobody can say which one is meant.
fn one_cluster(recorded: &Recorded, nodes: &[Option<Seen>]) -> Result<Option<ClusterId>, Blocked> {
    let mut found = nodes.iter().enumerate().filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref()?.cluster?)));
    let Some(expected) = recorded.cluster.or_else(|| found.clone().next().map(|(_, cluster)| cluster)) else {
        return Ok(None);
    };
    let seed = nodes.iter().position(|seen| seen.as_ref().is_some_and(Seen::is_seed));
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
