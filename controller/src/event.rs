//! Deeds of a controller, as facts, and in words.

use std::fmt;
use std::time::Duration;

use zue_core::control::{Blocked, Reason};
use zue_core::{ClusterId, Epoch};

use crate::notices::Notice;

/// Something that happened in a turn.
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
        /// Its name.
        leader: String,
        /// Why an epoch was to begin.
        reason: Reason,
    },
    /// No leader was appointed; the epoch is used up, and another try follows.
    ElectionFailed {
        /// The epoch.
        epoch: Epoch,
        /// The obstacle.
        why: String,
    },
    /// A leader handed over as planned.
    HandedOver {
        /// The former leader.
        from: String,
        /// The leader.
        to: String,
        /// The new epoch.
        epoch: Epoch,
        /// The time that appends had to wait.
        took: Duration,
    },
    /// A planned hand-over did not come about.
    HandOverFailed {
        /// The leader.
        from: String,
        /// The intended leader.
        to: String,
        /// The obstacle.
        why: String,
    },
    /// A replica that has caught up votes.
    VoterAdded {
        /// The epoch from which on it does.
        epoch: Epoch,
        /// Its name.
        name: String,
        /// The number of voters now.
        voters: usize,
    },
    /// A voter votes no more. Its data stays where it is.
    VoterRemoved {
        /// The epoch from which on it doesn't.
        epoch: Epoch,
        /// Its name.
        name: String,
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
        /// The obstacle.
        why: String,
    },
    /// The leader did not take the names of its learners; another try follows.
    LearnersRefused {
        /// The leader.
        leader: String,
        /// The obstacle.
        why: String,
    },
    /// Another controller began an epoch after one of this one's.
    Contested {
        /// That epoch.
        epoch: Epoch,
    },
    /// Another controller tells the nodes otherwise by what they are to stand by.
    TermsContested {
        /// The epoch whose leader both tell.
        epoch: Epoch,
    },
    /// Nothing can be done; told once, until the reason changes.
    Blocked(Blocked),
    /// Replicas that are well and do not go together; told once, until it is so no more.
    Noticed(Notice),
    /// The record of the controllers could not be read or written; told once, until the reason changes.
    StoreFailed {
        /// The error of the store.
        why: String,
    },
}

impl Event {
    /// Its name, for logs and Kubernetes Events.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bootstrapped { .. } => "Bootstrapped",
            Self::LeaderElected { .. } => "LeaderElected",
            Self::ElectionFailed { .. } => "ElectionFailed",
            Self::HandedOver { .. } => "SwitchoverCompleted",
            Self::HandOverFailed { .. } => "SwitchoverFailed",
            Self::VoterAdded { .. } => "VoterAdded",
            Self::VoterRemoved { .. } => "VoterRemoved",
            Self::VotersSettled { .. } => "VotersSettled",
            Self::VotersUnchanged { .. } => "VotersUnchanged",
            Self::LearnersRefused { .. } => "LearnersRefused",
            Self::Contested { .. } | Self::TermsContested { .. } => "ControlContested",
            Self::Blocked(_) => "FailoverBlocked",
            Self::Noticed(notice) => notice.name(),
            Self::StoreFailed { .. } => "StoreFailed",
        }
    }

    /// Returns whether somebody may have to look.
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Bootstrapped { .. }
            | Self::LeaderElected { .. }
            | Self::HandedOver { .. }
            | Self::VoterAdded { .. }
            | Self::VoterRemoved { .. }
            | Self::VotersSettled { .. }
            | Self::Blocked(Blocked::WaitingForReplicas { .. }) => false,
            Self::ElectionFailed { .. }
            | Self::HandOverFailed { .. }
            | Self::VotersUnchanged { .. }
            | Self::LearnersRefused { .. }
            | Self::Contested { .. }
            | Self::TermsContested { .. }
            | Self::Blocked(_)
            | Self::Noticed(_)
            | Self::StoreFailed { .. } => true,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrapped { cluster, epoch } => write!(f, "cluster {cluster} begins with epoch {epoch}"),
            Self::LeaderElected { epoch, leader, reason } => {
                write!(f, "{leader} leads epoch {epoch}, because {}", in_words(*reason))
            }
            Self::ElectionFailed { epoch, why } => write!(f, "nobody was elected for epoch {epoch}: {why}"),
            Self::HandedOver { from, to, epoch, took } => {
                let ms = took.as_millis();
                write!(f, "{from} handed over to {to}, which leads epoch {epoch}; appends waited for {ms} ms")
            }
            Self::HandOverFailed { from, to, why } => write!(f, "{from} did not hand over to {to}: {why}"),
            Self::VoterAdded { epoch, name, voters } => {
                write!(f, "{name} votes from epoch {epoch} on; {voters} replicas vote")
            }
            Self::VoterRemoved { epoch, name, voters } => {
                write!(f, "{name} no longer votes from epoch {epoch} on; {voters} replicas vote")
            }
            Self::VotersSettled { epoch, voters } => {
                write!(f, "the change of voters is settled with epoch {epoch}; {voters} replicas vote")
            }
            Self::VotersUnchanged { epoch, voters, why } => {
                write!(f, "epoch {epoch} began with the same {voters} voters: {why}")
            }
            Self::LearnersRefused { leader, why } => write!(f, "{leader} refused to feed its learners: {why}"),
            Self::Contested { epoch } => write!(
                f,
                "another controller began epoch {epoch}: while two controllers want different things, changes wait longer and \
                 longer; run one controller"
            ),
            Self::TermsContested { epoch } => write!(
                f,
                "another controller gives the nodes of epoch {epoch} a different detectionTime, standbyAfter, policy or addresses: \
                 updates become less and less frequent; run one controller, or give both the same settings"
            ),
            Self::Blocked(blocked) => write!(f, "{blocked}"),
            Self::Noticed(notice) => write!(f, "{notice}"),
            Self::StoreFailed { why } => write!(f, "controller state store failed: {why}"),
        }
    }
}

const fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Bootstrap => "the cluster is new",
        Reason::NoLeader => "nobody led",
        Reason::LeaderLost => "a majority of the voters had lost the leader",
        Reason::QuorumLost => "the leader missed a quorum that another voter may have",
        Reason::HigherPromise => "a voter had promised an epoch above the leader's",
        Reason::FarPromise => "a voter has promised an epoch far above the leader's, and this is a step towards it",
        Reason::HandOver => "the leader handed over",
        Reason::VotersChange => "the voters were to change",
        Reason::VotersSettled => "a change of voters was to be settled",
        Reason::QuorumChange => "the quorum was to change",
    }
}
