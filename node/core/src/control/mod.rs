//! The next step of a controller, from what it sees. Reads no clock and no network; level-triggered: every step may be lost,
//! repeated, or done by another controller, since the replicas' promises make it safe.

mod climb;
pub mod election;
mod led;
pub mod machine;
mod members;
#[cfg(test)]
mod members_tests;
mod plan;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::control::election::{Change, Choice, First, NoChoice, choose};
use crate::types::history::EpochStart;
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

pub use members::nodes_needed;
pub use plan::plan;

/// The intended leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Whoever leads, until it is lost; then the candidate by the rule.
    #[default]
    Automatic,
    /// The named replica, whenever it is the candidate by the rule; it is waited for while it is down.
    Static,
}

/// The wishes of the owner of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// The number of replicas to be: those at the first nodes. Others are fed and vote no more.
    pub replicas: usize,
    /// The intended leader.
    pub policy: Policy,
    /// Static: who leads. Automatic: who wins ties.
    pub ordinal: usize,
    /// Automatic: who is to take over from a leader that is well, as soon as it is in sync.
    pub switch_to: Option<usize>,
    /// Automatic: a voter that hears nothing of a leader for so long has lost it.
    pub detection_ms: u64,
    /// The number of voters that commit; none asks for a majority.
    pub quorum: Option<u32>,
    /// The time after the loss of a leader in which nobody has acted, before a node elects by itself; none tells the nodes nothing.
    pub standby_after_ms: Option<u64>,
}

/// The record that controllers write by compare-and-swap, before they act.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// The greatest epoch ever reserved.
    pub epoch: Epoch,
    /// The leader that was seen last.
    pub leader: Option<ReplicaId>,
    /// The cluster, once a replica was seen to belong to it. It forbids another bootstrap.
    pub cluster: Option<ClusterId>,
}

/// The status of one replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// Its identity.
    pub replica: ReplicaId,
    /// Its cluster; none before its first epoch start is durable.
    pub cluster: Option<ClusterId>,
    /// The greatest epoch it has promised.
    pub promised: Epoch,
    /// The only leader that it follows in that epoch, once it is bound to one.
    pub bound: Option<ReplicaId>,
    /// The newest epoch start it holds.
    pub last: Option<EpochStart>,
    /// The durable part of the log.
    pub durable: Tail,
    /// Up to where it may have acknowledged what its disk has lost since.
    pub suspect: Option<Tail>,
    /// True if records within its log are damaged.
    pub damaged: bool,
    /// True if it is about to stop, and wants to lead no more.
    pub leaving: bool,
    /// Its role.
    pub role: ReplicaRole,
}

impl ReplicaStatus {
    /// Returns whether it holds a log, and belongs to no cluster: it was restored from a backup.
    pub fn is_seed(&self) -> bool {
        self.cluster.is_none() && (self.last.is_some() || self.durable != Tail::default())
    }

    /// The newest epoch start that it holds of a cluster that it belongs to: what a restored log holds is of another one.
    pub fn begun(&self) -> Option<&EpochStart> {
        self.last.as_ref().filter(|_| !self.is_seed())
    }
}

/// The role of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaRole {
    /// Neither leads nor follows.
    Idle {
        /// The time that it has waited for a leader, since it started or made its last promise.
        waiting_ms: u64,
    },
    /// Follows the leader of the epoch that it has promised.
    Follower {
        /// The time since it heard from that leader.
        silence_ms: u64,
        /// True if that leader's stream is open.
        connected: bool,
    },
    /// Leads the epoch of its newest epoch start.
    Leader {
        /// Its log end.
        log_end: Offset,
        /// True if its epoch's start is committed: from here on the voters may change.
        settled: bool,
        /// Its followers' progress: who, whether in sync, and the durable end.
        followers: Vec<(ReplicaId, bool, Offset)>,
        /// Those of them that lack so many bytes that a hand-over would hold up appends in vain, in sync or not.
        far: Vec<ReplicaId>,
        /// True if it holds new appends for a hand-over.
        handing_over: bool,
        /// To whom somebody has asked it to hand over.
        switch_to: Option<ReplicaId>,
    },
    /// Its disk or log failed.
    Failed,
}

/// The next step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// All is as wished.
    Nothing,
    /// Nothing can be done; a person may have to.
    Blocked(Blocked),
    /// Reserve the epoch, seal, choose, appoint; who leads is recorded once it is seen to lead.
    Elect {
        /// The epoch to reserve.
        epoch: Epoch,
        /// The winner of ties.
        prefer: Option<ReplicaId>,
        /// The replica that is not asked for a promise: a leader that answers, but that a majority of the voters has lost. It has the
        /// longest log, and would be chosen again.
        without: Option<ReplicaId>,
        /// The voter to add or to remove with this epoch.
        change: Option<Change>,
        /// Why.
        reason: Reason,
    },
    /// Tell the leader whom to feed beside the voters.
    Feed {
        /// The epoch it leads.
        epoch: Epoch,
        /// The leader.
        leader: ReplicaId,
        /// Whom to feed, and nobody else.
        learners: Vec<ReplicaId>,
    },
    /// Ask the leader to hand over, then elect with the target preferred.
    HandOver {
        /// The epoch it leads.
        epoch: Epoch,
        /// The leader.
        from: ReplicaId,
        /// The intended leader.
        to: ReplicaId,
        /// The epoch to reserve for that.
        next: Epoch,
    },
}

/// The facts for a choice.
#[derive(Clone, Copy, Debug)]
pub struct Ballot<'a> {
    /// The answers of the sealed replicas, in the order of the ordinals.
    pub answers: &'a [Sealed],
    /// The winner of ties.
    pub prefer: Option<ReplicaId>,
    /// The replicas of a cluster that is to begin with this epoch.
    pub first: Option<First<'a>>,
    /// The number of voters that are to commit; none asks for a majority.
    pub quorum: Option<u32>,
    /// The voter to add or to remove.
    pub change: Option<Change>,
}

/// The rules a [`machine::Machine`] decides by. The simulation breaks them, one at a time.
pub trait Rules {
    /// The next step.
    fn plan(&self, wish: &Wish, recorded: &Recorded, nodes: &[Option<ReplicaStatus>]) -> Step {
        plan(wish, recorded, nodes)
    }

    /// The intended leader, and its voters.
    fn choose(&self, ballot: &Ballot<'_>) -> Result<Choice, NoChoice> {
        choose(ballot.answers, ballot.prefer, ballot.first, ballot.quorum, ballot.change)
    }

    /// The number of epochs to pass over where nobody writes down which one is taken.
    fn skipped(&self, random: u64) -> u64 {
        random
    }
}

/// The rules as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sound;

impl Rules for Sound {}

/// Why an epoch is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// All replicas are blank, but for one that may have been restored from a backup.
    Bootstrap,
    /// Nobody leads: the leader has restarted, failed, or stepped down.
    NoLeader,
    /// A majority of the voters has lost the leader.
    LeaderLost,
    /// The leader misses a quorum that another voter may have.
    QuorumLost,
    /// A replica has promised an epoch above the leader's and can't follow it any more.
    HigherPromise,
    /// The same, and so far above that the next epoch does not come up to it: one step of several.
    FarPromise,
    /// The leader handed over.
    HandOver,
    /// A replica is to vote, or to vote no more.
    VotersChange,
    /// A change of voters is settled: those before it need not be asked any more.
    VotersSettled,
    /// Another number of voters is to commit.
    QuorumChange,
}

/// Why nothing can be done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Blocked {
    /// Not all replicas answer, and none is part of a cluster yet.
    #[error("a new cluster waits for all of its replicas: {reachable} of {replicas} answer")]
    WaitingForReplicas {
        /// The number that answers.
        reachable: usize,
        /// The intended number.
        replicas: usize,
    },
    /// All replicas are blank, but the cluster is known to have existed.
    #[error("cluster {0} is recorded, but every replica that answers is blank: their data is gone or not mounted")]
    DataGone(ClusterId),
    /// Too few voters answer.
    #[error("{answered} of {voters} voters answer, {needed} are needed")]
    NoMajority {
        /// The number that answers.
        answered: usize,
        /// Their number.
        voters: usize,
        /// The number needed.
        needed: usize,
    },
    /// The policy names a leader that does not answer.
    #[error("replica {ordinal}, the leader by the Static policy, does not answer")]
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
    /// More than one replica was restored from a backup, and nobody can say which log is meant.
    #[error(
        "replicas {} hold restored logs, and a new cluster begins with one of them: empty the disks of the others", Listed(.0)
    )]
    ManyRestored(Vec<usize>),
    /// A replica was restored from a backup where a cluster is recorded, or begins.
    #[error(
        "replica {ordinal} holds a restored log, and cluster {cluster} exists already: a restored log begins its own cluster. \
         Restore under another name; to have the node join cluster {cluster}, empty its disk"
    )]
    RestoredBesideCluster {
        /// Its ordinal.
        ordinal: usize,
        /// The recorded cluster, or that of the others.
        cluster: ClusterId,
    },
    /// The restored log is not whole.
    #[error("the restored log of replica {ordinal} is damaged or incomplete: empty its disk, and restore again")]
    RestoredHurt {
        /// Its ordinal.
        ordinal: usize,
    },
}

/// Numbers for people: `0`, `0 and 2`, `0, 1 and 2`.
struct Listed<'a>(&'a [usize]);

impl core::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            let before = match at {
                0 => "",
                at if at + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            write!(f, "{before}{number}")?;
        }
        Ok(())
    }
}
