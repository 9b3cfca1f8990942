//! What a controller does next, from what it sees. Reads no clock and no network; level-triggered: every step may be lost,
//! repeated, or done by another controller, since the replicas' promises make it safe.

use alloc::vec::Vec;

use crate::history::EpochStart;
use crate::quorum::majority;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// Who is to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The replica of this ordinal, whenever it is the candidate by the rule.
    Static {
        /// Its ordinal.
        ordinal: usize,
    },
}

/// What the owner of the cluster asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Who is to lead.
    pub policy: Policy,
    /// How many voters commit; none asks for a majority.
    pub quorum: Option<u32>,
}

/// What controllers write down by compare-and-swap, before they act.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// The greatest epoch ever reserved.
    pub epoch: Epoch,
    /// Who was to be appointed last.
    pub leader: Option<ReplicaId>,
    /// The cluster, once a replica was seen to belong to it. It forbids another bootstrap.
    pub cluster: Option<ClusterId>,
}

/// What one replica says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Who it is.
    pub replica: ReplicaId,
    /// Its cluster; none before its first epoch start is durable.
    pub cluster: Option<ClusterId>,
    /// The greatest epoch it has promised.
    pub promised: Epoch,
    /// The newest epoch start it holds.
    pub last: Option<EpochStart>,
    /// What is durable.
    pub durable: Tail,
    /// What it does.
    pub role: SeenRole,
}

/// What a replica does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SeenRole {
    /// Neither leads nor follows.
    Idle,
    /// Follows a leader.
    Follower {
        /// Whether it heard from that leader lately.
        hears_leader: bool,
    },
    /// Leads the epoch of its newest epoch start.
    Leader {
        /// Its log end.
        log_end: Offset,
        /// Its followers' progress: who, whether in sync, and the durable end.
        followers: Vec<(ReplicaId, bool, Offset)>,
        /// Whether it holds new appends for a hand-over.
        handing_over: bool,
    },
    /// Its disk or log failed.
    Failed,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// All is as wished.
    Nothing,
    /// Nothing can be done; a person may have to.
    Blocked(Blocked),
    /// Reserve the epoch, seal, choose, record, appoint.
    Elect {
        /// The epoch to reserve.
        epoch: Epoch,
        /// Who wins ties.
        prefer: Option<ReplicaId>,
        /// Why.
        reason: Reason,
    },
    /// Ask the leader to hand over, then elect with the target preferred.
    HandOver {
        /// The epoch it leads.
        epoch: Epoch,
        /// Who leads.
        from: ReplicaId,
        /// Who is to.
        to: ReplicaId,
        /// The epoch to reserve for that.
        next: Epoch,
    },
}

/// Why an epoch is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// All replicas are blank.
    Bootstrap,
    /// Nobody leads.
    NoLeader,
    /// A replica has promised an epoch above the leader's and can't follow it any more.
    HigherPromise,
    /// The leader handed over.
    HandOver,
}

/// Why nothing can be done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Blocked {
    /// Not all replicas answer, and none is part of a cluster yet.
    #[error("a new cluster waits for all of its replicas: {reachable} of {replicas} answer")]
    WaitingForReplicas {
        /// How many answer.
        reachable: usize,
        /// How many there are to be.
        replicas: usize,
    },
    /// All replicas are blank, but the cluster is known to have existed.
    #[error("cluster {0} is recorded, but every replica that answers is blank: their data is gone or not mounted")]
    DataGone(ClusterId),
    /// Too few voters answer.
    #[error("{answered} of {voters} voters answer, {needed} are needed")]
    NoMajority {
        /// How many answer.
        answered: usize,
        /// How many there are.
        voters: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The policy names a leader that does not answer.
    #[error("replica {ordinal} is to lead by the Static policy, and does not answer")]
    StaticLeaderDown {
        /// Its ordinal.
        ordinal: usize,
    },
    /// A replica of another cluster answers.
    #[error("replica {ordinal} belongs to cluster {found}, not to {expected}")]
    ForeignReplica {
        /// Its ordinal.
        ordinal: usize,
        /// Its cluster.
        found: ClusterId,
        /// The recorded one.
        expected: ClusterId,
    },
}

/// What to do next. `nodes` are in the order of the ordinals; none stands for one that does not answer.
pub fn plan(wish: &Wish, recorded: &Recorded, nodes: &[Option<Seen>]) -> Step {
    let Policy::Static { ordinal } = wish.policy;
    let cluster = match one_cluster(recorded, nodes) {
        Ok(cluster) => cluster,
        Err(blocked) => return Step::Blocked(blocked),
    };
    let is_ours = |seen: &&Seen| seen.cluster.is_none() || seen.cluster == cluster;
    let ours: Vec<&Seen> = nodes.iter().flatten().filter(is_ours).collect();
    let named = nodes.get(ordinal).and_then(Option::as_ref).filter(is_ours);
    let next = next_epoch(recorded, &ours);
    let elect = |reason| Step::Elect { epoch: next, prefer: named.map(|seen| seen.replica), reason };

    let newest = ours.iter().filter_map(|seen| seen.last.as_ref()).max_by_key(|start| start.epoch);
    let Some(newest) = newest else {
        return match recorded.cluster {
            None if ours.len() == nodes.len() => elect(Reason::Bootstrap),
            None => Step::Blocked(Blocked::WaitingForReplicas { reachable: ours.len(), replicas: nodes.len() }),
            Some(cluster) if ours.len() == nodes.len() => Step::Blocked(Blocked::DataGone(cluster)),
            Some(_) => {
                let (answered, voters) = (ours.len(), nodes.len());
                Step::Blocked(Blocked::NoMajority { answered, voters, needed: majority(voters) })
            }
        };
    };
    if let Some(leader) = ours.iter().find(|seen| leads(seen, newest)) {
        let deaf = |seen: &&&Seen| newest.voters.contains(&seen.replica) && seen.promised > newest.epoch;
        if ours.iter().any(|seen| deaf(&seen)) {
            return elect(Reason::HigherPromise);
        }
        return named.map_or(Step::Nothing, |named| hand_over(leader, newest, named, next));
    }
    let voter = |id: &ReplicaId| ours.iter().find(|seen| seen.replica == *id);
    let hears = |id: &ReplicaId| voter(id).is_some_and(|seen| seen.role == SeenRole::Follower { hears_leader: true });
    // The leader itself counts: it hears itself, wherever it is.
    if newest.voters.iter().filter(|id| **id == newest.leader || hears(id)).count() >= majority(newest.voters.len())
        && voter(&newest.leader).is_none()
    {
        return Step::Nothing;
    }
    // An interim leader that answers, but leads no more, shows that the named one was not waited for.
    if named.is_none() && voter(&newest.leader).is_none() {
        return Step::Blocked(Blocked::StaticLeaderDown { ordinal });
    }
    for electorate in core::iter::once(&newest.voters).chain(&newest.old_voters) {
        let (answered, voters) = (electorate.iter().filter(|id| voter(id).is_some()).count(), electorate.len());
        if answered < majority(voters) {
            return Step::Blocked(Blocked::NoMajority { answered, voters, needed: majority(voters) });
        }
    }
    elect(Reason::NoLeader)
}

/// Above every epoch that was ever written down or promised.
fn next_epoch(recorded: &Recorded, nodes: &[&Seen]) -> Epoch {
    let known = |seen: &Seen| seen.promised.max(seen.last.as_ref().map_or(Epoch(0), |last| last.epoch));
    let seen = nodes.iter().map(|seen| known(seen)).max().unwrap_or_default();
    Epoch(seen.max(recorded.epoch).0.saturating_add(1))
}

/// The cluster that is recorded, else the one that the replicas belong to. While none is recorded, replicas of two clusters are
/// left alone: nobody can say which one is meant.
fn one_cluster(recorded: &Recorded, nodes: &[Option<Seen>]) -> Result<Option<ClusterId>, Blocked> {
    let mut found = nodes.iter().enumerate().filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref()?.cluster?)));
    let Some(expected) = recorded.cluster.or_else(|| found.clone().next().map(|(_, cluster)| cluster)) else {
        return Ok(None);
    };
    match found.find(|(_, found)| *found != expected) {
        Some((ordinal, found)) if recorded.cluster.is_none() => {
            Err(Blocked::ForeignReplica { ordinal, found, expected })
        }
        _ => Ok(Some(expected)),
    }
}

fn leads(seen: &Seen, newest: &EpochStart) -> bool {
    let is_newest = seen.last.as_ref().is_some_and(|last| last.epoch == newest.epoch);
    is_newest && matches!(seen.role, SeenRole::Leader { .. })
}

/// The named replica takes over once it is in sync, not before: it could not win the election.
fn hand_over(leader: &Seen, newest: &EpochStart, named: &Seen, next: Epoch) -> Step {
    let SeenRole::Leader { followers, handing_over, .. } = &leader.role else { return Step::Nothing };
    let in_sync = followers.iter().any(|(replica, in_sync, _)| *replica == named.replica && *in_sync);
    if *handing_over || leader.replica == named.replica || !newest.voters.contains(&named.replica) || !in_sync {
        return Step::Nothing;
    }
    Step::HandOver { epoch: newest.epoch, from: leader.replica, to: named.replica, next }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const STATIC: Wish = Wish { policy: Policy::Static { ordinal: 0 }, quorum: None };
    const CLUSTER: ClusterId = ClusterId(9);

    #[expect(clippy::unnecessary_wraps, reason = "a node as the plan sees it")]
    fn blank(replica: u128) -> Option<Seen> {
        Some(Seen {
            replica: ReplicaId(replica),
            cluster: None,
            promised: Epoch(0),
            last: None,
            durable: Tail::default(),
            role: SeenRole::Idle,
        })
    }

    fn member(replica: u128, epoch: u64, role: SeenRole) -> Option<Seen> {
        let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let start = EpochStart {
            epoch: Epoch(epoch),
            start: Offset(0),
            leader: ReplicaId(1),
            voters,
            quorum: 2,
            old_voters: None,
        };
        Some(Seen { cluster: Some(CLUSTER), promised: Epoch(epoch), last: Some(start), role, ..blank(replica)? })
    }

    fn leading(followers: &[(u128, bool)]) -> SeenRole {
        let followers = followers.iter().map(|(id, in_sync)| (ReplicaId(*id), *in_sync, Offset(5))).collect();
        SeenRole::Leader { log_end: Offset(5), followers, handing_over: false }
    }

    fn follower() -> SeenRole {
        SeenRole::Follower { hears_leader: true }
    }

    fn recorded(epoch: u64) -> Recorded {
        Recorded { epoch: Epoch(epoch), leader: None, cluster: Some(CLUSTER) }
    }

    #[test]
    fn a_new_cluster_begins_when_all_replicas_answer_and_are_blank() {
        let elect = Step::Elect { epoch: Epoch(1), prefer: Some(ReplicaId(1)), reason: Reason::Bootstrap };
        assert_eq!(plan(&STATIC, &Recorded::default(), &[blank(1), blank(2), blank(3)]), elect);
        let waiting = Step::Blocked(Blocked::WaitingForReplicas { reachable: 2, replicas: 3 });
        assert_eq!(plan(&STATIC, &Recorded::default(), &[blank(1), None, blank(3)]), waiting);
    }

    #[test]
    fn a_recorded_cluster_whose_replicas_are_all_blank_is_not_begun_again() {
        let step = plan(&STATIC, &recorded(4), &[blank(1), blank(2), blank(3)]);
        assert_eq!(step, Step::Blocked(Blocked::DataGone(CLUSTER)));
    }

    #[test]
    fn a_recorded_cluster_that_nobody_answers_for_is_no_new_one() {
        let blocked = Blocked::NoMajority { answered: 0, voters: 3, needed: 2 };
        assert_eq!(plan(&STATIC, &recorded(4), &[None, None, None]), Step::Blocked(blocked));
    }

    #[test]
    fn replicas_of_two_clusters_are_left_alone_until_one_is_recorded() {
        let mut foreign = member(3, 9, follower());
        foreign.as_mut().unwrap().cluster = Some(ClusterId(8));
        let nodes = [member(1, 4, leading(&[(2, true)])), member(2, 4, follower()), foreign];
        let blocked = Blocked::ForeignReplica { ordinal: 2, found: ClusterId(8), expected: CLUSTER };
        assert_eq!(plan(&STATIC, &Recorded::default(), &nodes), Step::Blocked(blocked));
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing);
    }

    #[test]
    fn a_cluster_with_its_named_leader_is_left_alone() {
        let nodes =
            [member(1, 4, leading(&[(2, true), (3, true)])), member(2, 4, follower()), member(3, 4, follower())];
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing);
    }

    #[test]
    fn a_restarted_leader_is_appointed_at_a_higher_epoch_than_any_seen() {
        let nodes = [member(1, 4, SeenRole::Idle), member(2, 4, follower()), None];
        let elect = |epoch| Step::Elect { epoch: Epoch(epoch), prefer: Some(ReplicaId(1)), reason: Reason::NoLeader };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect(5));
        assert_eq!(plan(&STATIC, &recorded(8), &nodes), elect(9));
    }

    #[test]
    fn a_named_leader_that_is_down_is_waited_for() {
        let silent = SeenRole::Follower { hears_leader: false };
        let nodes = [None, member(2, 4, silent.clone()), member(3, 4, silent)];
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Blocked(Blocked::StaticLeaderDown { ordinal: 0 }));
    }

    #[test]
    fn an_interim_leader_that_was_sealed_by_an_attempt_that_died_is_replaced_without_the_named_one() {
        let mut nodes = [None, member(2, 4, SeenRole::Idle), member(3, 4, SeenRole::Follower { hears_leader: false })];
        for seen in nodes.iter_mut().flatten() {
            seen.promised = Epoch(5);
            seen.last.as_mut().unwrap().leader = ReplicaId(2);
        }
        let elect = Step::Elect { epoch: Epoch(6), prefer: None, reason: Reason::NoLeader };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect);
    }

    #[test]
    fn a_leader_that_only_the_controller_has_lost_is_left_alone() {
        let nodes = [None, member(2, 4, follower()), member(3, 4, follower())];
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing);
    }

    #[test]
    fn a_minority_is_not_asked_to_elect() {
        let nodes = [member(1, 4, SeenRole::Idle), None, None];
        let blocked = Blocked::NoMajority { answered: 1, voters: 3, needed: 2 };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Blocked(blocked));
    }

    #[test]
    fn an_interim_leader_hands_over_once_the_named_one_is_in_sync() {
        let nodes = |in_sync| {
            [member(1, 4, follower()), member(2, 4, leading(&[(1, in_sync), (3, true)])), member(3, 4, follower())]
        };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes(false)), Step::Nothing);
        let step = Step::HandOver { epoch: Epoch(4), from: ReplicaId(2), to: ReplicaId(1), next: Epoch(5) };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes(true)), step);
    }

    #[test]
    fn a_voter_that_promised_a_higher_epoch_is_taken_back_by_a_new_one() {
        let mut deaf = member(3, 4, SeenRole::Idle);
        deaf.as_mut().unwrap().promised = Epoch(6);
        let nodes = [member(1, 4, leading(&[(2, true)])), member(2, 4, follower()), deaf];
        let elect = Step::Elect { epoch: Epoch(7), prefer: Some(ReplicaId(1)), reason: Reason::HigherPromise };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect);
    }

    #[test]
    fn a_named_replica_with_an_empty_disk_lets_the_candidate_lead() {
        let silent = SeenRole::Follower { hears_leader: false };
        let nodes = [blank(7), member(2, 4, silent.clone()), member(3, 4, silent)];
        let elect = Step::Elect { epoch: Epoch(5), prefer: Some(ReplicaId(7)), reason: Reason::NoLeader };
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect);
    }
}
