//! The inputs and outputs of a controller's machine.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::control::election::{NoChoice, Unchanged};
use crate::control::{Blocked, Policy, Reason, Recorded, ReplicaStatus};
use crate::types::io::Terms;
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Epoch, ReplicaId};

/// The status of a node, as far as a controller needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReport {
    /// Of itself.
    pub seen: ReplicaStatus,
    /// The nodes of the members as it was told: by ordinal, those at nodes that the controller knows by name.
    pub members: Vec<Placed>,
    /// As a leader: those of its followers that it does not reach.
    pub unreached: Vec<ReplicaId>,
    /// True if it can elect by itself where no controller does.
    pub can_stand_by: bool,
    /// By what it does.
    pub standby: Option<StandbyTerms>,
    /// The epoch whose leader was told so; 0 if it is not known.
    pub standby_epoch: Epoch,
    /// As a leader: true if a node elected it, for want of a controller.
    pub by_standby: bool,
}

impl NodeReport {
    /// The nodes of others, as far as it knows.
    pub(super) fn places(&self) -> impl Iterator<Item = Placed> {
        self.members.iter().chain(self.standby.iter().flat_map(|terms| &terms.members)).copied()
    }
}

/// By what a node elects where no controller does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandbyTerms {
    /// The intended leader.
    pub policy: Policy,
    /// The winner of ties, or the one to lead: a place among the members. Their number where that one does not vote.
    pub preferred: usize,
    /// A voter that hears nothing of a leader for so long has lost it.
    pub detection_ms: u64,
    /// The time after that in which nobody else has acted.
    pub after_ms: u64,
    /// The voters, in the order of the ordinals.
    pub members: Vec<Placed>,
}

/// A replica and the node that it is said to be at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The replica.
    pub replica: ReplicaId,
    /// The node of that name.
    pub ordinal: usize,
    /// True if that node's address is the one that was told.
    pub is_reachable: bool,
}

/// A fact. What it answers is named by the number that the action gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The status of one node, or none where it does not answer.
    Status {
        /// The look.
        look: u64,
        /// The node.
        ordinal: usize,
        /// Its answer.
        told: Option<Box<NodeReport>>,
    },
    /// The record, or why it cannot be read.
    Loaded {
        /// The operation.
        op: u64,
        /// Its result.
        result: Result<Recorded, String>,
    },
    /// True if it was written: false where somebody else wrote meanwhile, and then nothing is.
    Swapped {
        /// The operation.
        op: u64,
        /// Its result.
        result: Result<bool, String>,
    },
    /// An answer to a call.
    Answer {
        /// The attempt that called.
        attempt: u64,
        /// The node.
        ordinal: usize,
        /// Its answer.
        answer: Answer,
    },
}

/// A node's answer to a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It has promised the epoch.
    Sealed(Box<Sealed>),
    /// It leads.
    Appointed,
    /// It feeds whom it is to feed.
    Fed,
    /// The one that is to lead holds all of its log.
    HandedOver,
    /// None, or a refusal: why.
    Failed(String),
}

impl Answer {
    /// Why it is not the one that was hoped for.
    pub(super) fn into_why(self) -> String {
        match self {
            Self::Failed(why) => why,
            Self::Sealed(_) | Self::Appointed | Self::Fed | Self::HandedOver => {
                String::from("it answers another question")
            }
        }
    }
}

/// Something to do. Nothing waits for it but the machine, by the number it is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask every node for its status.
    Look {
        /// The look.
        look: u64,
        /// The time that the nodes have: later, they count as silent.
        within_ms: u64,
    },
    /// Read what is written down.
    Load {
        /// The operation.
        op: u64,
    },
    /// Replace what is written down, durably, unless somebody else wrote meanwhile.
    Swap {
        /// The operation.
        op: u64,
        /// The present record.
        from: Recorded,
        /// The new record.
        to: Recorded,
    },
    /// Ask one node for something.
    Call {
        /// The attempt.
        attempt: u64,
        /// The node.
        ordinal: usize,
        /// The replica it is meant for.
        target: ReplicaId,
        /// The question.
        call: Call,
        /// The time that the answer is waited for.
        within_ms: u64,
    },
    /// Tell people.
    Tell(Event),
}

/// The question to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// For the promise to follow no epoch below this one.
    Seal {
        /// The cluster, if one is known.
        cluster: Option<ClusterId>,
        /// The epoch.
        epoch: Epoch,
    },
    /// To lead.
    Appoint {
        /// The cluster.
        cluster: ClusterId,
        /// The terms of the epoch.
        terms: Terms,
        /// At which node each voter is, old ones too, or is guessed to be.
        places: Vec<(ReplicaId, Option<usize>)>,
        /// Why.
        reason: Reason,
    },
    /// To feed some beside the voters.
    Learners {
        /// The cluster, if one is known.
        cluster: Option<ClusterId>,
        /// The epoch it leads.
        epoch: Epoch,
        /// Whom to feed, and nobody else.
        learners: Vec<ReplicaId>,
        /// Voters that are elsewhere than it was told.
        moved: Vec<ReplicaId>,
        /// At which node each of them is.
        places: Vec<(ReplicaId, Option<usize>)>,
        /// By what the nodes stand by from now on; none: as before.
        standby: Option<StandbyTerms>,
    },
    /// To let another catch up wholly.
    HandOver {
        /// The cluster, if one is known.
        cluster: Option<ClusterId>,
        /// The epoch it leads.
        epoch: Epoch,
        /// The next leader.
        to: ReplicaId,
        /// The time that it holds new appends.
        deadline_ms: u64,
    },
}

/// A replica, and the node it is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node, if it is at one.
    pub ordinal: Option<usize>,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A new cluster began.
    Bootstrapped {
        /// Its id.
        cluster: ClusterId,
        /// Its first epoch.
        epoch: Epoch,
    },
    /// A leader was appointed.
    LeaderElected {
        /// The epoch it leads.
        epoch: Epoch,
        /// The leader.
        leader: Who,
        /// Why an epoch was to begin.
        reason: Reason,
    },
    /// No leader was appointed; the epoch is used up, and another try follows.
    ElectionFailed {
        /// The epoch.
        epoch: Epoch,
        /// The obstacle.
        why: Failure,
    },
    /// A leader handed over as planned.
    HandedOver {
        /// The former leader.
        from: Who,
        /// The leader.
        to: Who,
        /// The new epoch.
        epoch: Epoch,
        /// The time that appends had to wait.
        took_ms: u64,
    },
    /// A planned hand-over did not come about.
    HandOverFailed {
        /// The leader.
        from: Who,
        /// The intended leader.
        to: Who,
        /// The obstacle; none where it was not elected.
        why: Option<String>,
    },
    /// A replica that has caught up votes.
    VoterAdded {
        /// The epoch from which on it does.
        epoch: Epoch,
        /// The voter.
        voter: Who,
        /// The number of voters now.
        voters: usize,
    },
    /// A voter votes no more. Its data stays where it is.
    VoterRemoved {
        /// The epoch from which on it doesn't.
        epoch: Epoch,
        /// The voter.
        voter: Who,
        /// The number of voters now.
        voters: usize,
    },
    /// A change of voters is settled: those before it need not be asked any more.
    VotersSettled {
        /// The epoch.
        epoch: Epoch,
        /// The number of voters.
        voters: usize,
    },
    /// An epoch began without the change of voters that was wished for; another try follows.
    VotersUnchanged {
        /// The epoch.
        epoch: Epoch,
        /// The number of voters.
        voters: usize,
        /// The obstacle; none where too few answered.
        why: Option<Unchanged>,
    },
    /// The leader did not take the names of its learners; another try follows.
    LearnersRefused {
        /// The leader.
        leader: Who,
        /// The obstacle.
        why: String,
    },
    /// Another controller undoes what this one does; it waits longer and longer.
    Contested {
        /// The epoch of the other one.
        epoch: Epoch,
    },
    /// Another controller tells the nodes otherwise by what they are to stand by; this one waits longer and longer.
    TermsContested {
        /// The epoch whose leader both tell.
        epoch: Epoch,
    },
    /// Nothing can be done; told once, until the reason changes.
    Blocked(Blocked),
    /// The record of the controllers could not be read or written; told once, until the reason changes.
    StoreFailed {
        /// The error of the store.
        why: String,
    },
}

/// The obstacle to an election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It could not be written down. The next try does without.
    Store(String),
    /// Another controller wrote meanwhile.
    Conflict,
    /// The replicas have promised the last epochs there are, beside this one, which is written down.
    NoEpochLeft(Epoch),
    /// From the answers nobody can be chosen.
    NoChoice {
        /// Why.
        choice: NoChoice,
        /// The answers of those nodes that did not promise.
        refusals: Vec<(usize, String)>,
    },
    /// The cluster is recorded, but every replica that answers is blank.
    DataGone(ClusterId),
    /// The chosen one did not say that it leads.
    NotAppointed {
        /// The chosen leader.
        leader: Who,
        /// Why not.
        why: String,
    },
}
