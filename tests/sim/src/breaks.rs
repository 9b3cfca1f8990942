//! The rules that can be broken on purpose, and how the choice of a leader is broken.

use zue_core::ReplicaId;
use zue_core::election::{Change, Choice, Sealed};
use zue_core::quorum::{effective_quorum, is_majority};

/// A rule to break, to see that the simulation finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// The disk's work counts as durable when it is asked for.
    AckEarly,
    /// A promise counts as durable when it is asked for.
    PromiseEarly,
    /// A log that begins anew counts as durable when that is asked for.
    ResetEarly,
    /// A restarted replica has forgotten its promise.
    ForgetPromise,
    /// The longest log leads, whatever its epoch.
    LongestLog,
    /// The named replica leads, whether or not it is the candidate.
    StaticAlways,
    /// One answer is enough to choose from.
    MinorityElects,
    /// A sealed replica reports only what it knows to be committed.
    SealedReportsCommitted,
    /// Acknowledgements leave after the replica has promised a higher epoch.
    LateAck,
    /// An emptied disk keeps the replica's identity.
    WipedKeepsId,
    /// Acknowledgements of older epochs count.
    CountOldEpochs,
    /// Frames are written whatever they follow.
    FramesUnchecked,
    /// Appends are answered when they are taken, not when they are committed.
    AnswerEarly,
    /// Reads give all of the log.
    ReadUncommitted,
    /// Repeated appends are not recognised.
    NoDedup,
    /// A restarted replica takes all of its log for committed.
    RestartCommitsAll,
    /// A failed sync counts as done.
    FailedSyncIgnored,
    /// A restarted replica does not say what its disk has lost.
    SuspectForgotten,
    /// A restarted replica takes who appended what is damaged for new.
    HoleTrusted,
    /// A restored disk passes for one that has only restarted.
    StartsForgotten,
    /// Damaged records are served as they are.
    DamageServed,
    /// Two voters change at once.
    TwoChanges,
    /// A leader says where the log ends without asking whether it still leads.
    ReadUnconfirmed,
    /// The oldest epoch start among the answers names the electorate.
    StaleElectorate,
    /// A change of voters elects and settles without a majority of the old ones.
    OldVotersForgotten,
    /// A change of voters is begun while the one before is unsettled.
    ChangeUnsettled,
    /// A first epoch needs no answer of those that are not to vote.
    FirstOfWished,
    /// A trim counts as durable when it is asked for.
    TrimEarly,
    /// A trim takes what is not known to be committed.
    TrimAboveCommit,
    /// A trim is answered when it is asked for, not once a quorum keeps to it.
    TrimAnsweredEarly,
    /// A follower does not tell a new leader where its log begins.
    TrimUntold,
    /// A replica that begins anew does not hear who appended what before.
    ResetForgetsProducers,
    /// A producer is called unknown before what it was forgotten for is committed.
    ForgottenEarly,
    /// A leader calls a producer unknown that was opened beyond its log without asking whether it still leads.
    UnknownUnconfirmed,
    /// Damage is not repaired, and forgotten.
    DamageForgotten,
    /// All that is durable is compacted, committed or not.
    CompactUncommitted,
    /// Records that delete are compacted away before their time.
    DeletesGoEarly,
    /// A replica's own clock decides what is old.
    LeadersClockDeletes,
    /// Timestamps decide what is old, whatever was seen.
    TimestampsAlone,
    /// Retention does not wait for backups.
    BackupsPassedOver,
    /// A leader stamps records as its own clock shows.
    LeaderStampsAlone,
    /// A replica promises an epoch however far ahead it is.
    AnyEpochPromised,
    /// A controller takes the epoch above all that are promised, however few would accept it.
    EpochsNotClimbed,
    /// The next epoch is taken where nobody writes down which one is.
    EpochsNotSkipped,
    /// Another is appointed for the same epoch where the appointed one does not answer.
    TwoCandidates,
    /// A stranger's word about starts of disks is believed.
    StartBelieved,
    /// Whoever opens a stream says where the log begins.
    AnyLogStart,
    /// A gap may take any number of offsets.
    OffsetsUnbounded,
    /// The times of a leader's records are not looked at before they are written.
    TimesUnchecked,
    /// A history that parts from what is committed counts as a failure of the log.
    ForeignHistoryFails,
    /// A leader's start takes what is to go of the log, before anything of the leader's log has come.
    JointAtOnce,
    /// A node that nobody told stands by, among all nodes that there are.
    StandbyUntold,
    /// A leader does not tell its followers by what to stand by.
    StandbyUnlearned,
    /// A leader's standby terms are believed before its epoch has begun.
    StandbyBelieved,
    /// A leader is told that others than the voters stand by.
    StandbyOfOthers,
    /// A first epoch begins with a blank replica although one was restored.
    RestoredPassedOver,
    /// A restored replica does not know who appended what before.
    RestoredForgotten,
    /// A restored replica counts as a member as soon as a cluster is named to it.
    RestoredNamed,
}

impl Break {
    /// All of them.
    pub const ALL: [Self; 58] = [
        Self::AckEarly,
        Self::PromiseEarly,
        Self::ResetEarly,
        Self::ForgetPromise,
        Self::LongestLog,
        Self::StaticAlways,
        Self::MinorityElects,
        Self::SealedReportsCommitted,
        Self::LateAck,
        Self::WipedKeepsId,
        Self::CountOldEpochs,
        Self::FramesUnchecked,
        Self::AnswerEarly,
        Self::ReadUncommitted,
        Self::NoDedup,
        Self::RestartCommitsAll,
        Self::FailedSyncIgnored,
        Self::SuspectForgotten,
        Self::HoleTrusted,
        Self::StartsForgotten,
        Self::DamageServed,
        Self::TwoChanges,
        Self::ReadUnconfirmed,
        Self::StaleElectorate,
        Self::OldVotersForgotten,
        Self::ChangeUnsettled,
        Self::FirstOfWished,
        Self::TrimEarly,
        Self::TrimAboveCommit,
        Self::TrimAnsweredEarly,
        Self::TrimUntold,
        Self::ResetForgetsProducers,
        Self::ForgottenEarly,
        Self::UnknownUnconfirmed,
        Self::DamageForgotten,
        Self::CompactUncommitted,
        Self::DeletesGoEarly,
        Self::LeadersClockDeletes,
        Self::TimestampsAlone,
        Self::BackupsPassedOver,
        Self::LeaderStampsAlone,
        Self::AnyEpochPromised,
        Self::EpochsNotClimbed,
        Self::EpochsNotSkipped,
        Self::TwoCandidates,
        Self::StartBelieved,
        Self::AnyLogStart,
        Self::OffsetsUnbounded,
        Self::TimesUnchecked,
        Self::ForeignHistoryFails,
        Self::JointAtOnce,
        Self::StandbyUntold,
        Self::StandbyUnlearned,
        Self::StandbyBelieved,
        Self::StandbyOfOthers,
        Self::RestoredPassedOver,
        Self::RestoredForgotten,
        Self::RestoredNamed,
    ];
}

impl Break {
    /// The broken choice.
    pub(crate) fn choose(
        self,
        chosen: Option<Choice>,
        prefer: Option<ReplicaId>,
        change: Option<Change>,
        answers: &[Sealed],
    ) -> Option<Choice> {
        let answered = |id: &ReplicaId| answers.iter().any(|answer| answer.replica == *id);
        let newest = answers.iter().filter_map(|answer| answer.last.as_ref()).max_by_key(|start| start.epoch);
        let with = |voters: Vec<ReplicaId>, choice: Choice| {
            let quorum = effective_quorum(voters.len(), None);
            Choice { old_voters: newest.map(|start| start.voters.clone()), voters, quorum, ..choice }
        };
        match self {
            Self::LongestLog => {
                let choice = chosen?;
                let voting = answers.iter().filter(|answer| choice.voters.contains(&answer.replica));
                let leader = voting.max_by_key(|answer| answer.durable.end)?.replica;
                Some(Choice { leader, ..choice })
            }
            Self::StaticAlways => {
                let choice = chosen?;
                let leader = prefer.filter(answered).filter(|id| choice.voters.contains(id)).unwrap_or(choice.leader);
                Some(Choice { leader, ..choice })
            }
            Self::MinorityElects if chosen.is_none() => {
                let best = answers.iter().filter(|answer| answer.last.is_some()).max_by_key(|answer| answer.durable)?;
                let last = best.last.clone()?;
                let (leader, voters, quorum) = (best.replica, last.voters, last.quorum);
                Some(Choice { leader, voters, quorum, old_voters: last.old_voters, bootstrap: false, unchanged: None })
            }
            Self::TwoChanges => {
                let choice = chosen?;
                let changes = newest.is_some_and(|start| start.voters != choice.voters);
                let other =
                    choice.voters.iter().find(|id| **id != choice.leader && Some(**id) != added(change)).copied();
                let voters = changed(&choice, other.map(Change::Remove)).filter(|_| changes);
                Some(voters.map_or_else(|| choice.clone(), |voters| with(voters, choice.clone())))
            }
            Self::StaleElectorate => {
                let oldest = answers.iter().filter_map(|answer| answer.last.as_ref()).min_by_key(|start| start.epoch);
                let Some(oldest) = oldest.filter(|start| is_majority(&start.voters, answered)) else { return chosen };
                let voting = answers.iter().filter(|answer| oldest.voters.contains(&answer.replica));
                let leader = voting.max_by_key(|answer| answer.durable)?.replica;
                let (voters, quorum) = (oldest.voters.clone(), oldest.quorum);
                Some(Choice { leader, voters, quorum, old_voters: None, bootstrap: false, unchanged: None })
            }
            Self::ChangeUnsettled => {
                let choice = chosen?;
                let unsettled =
                    newest.is_some_and(|start| start.voters == choice.voters && choice.old_voters.is_some());
                let voters = changed(&choice, change).filter(|_| unsettled);
                Some(voters.map_or_else(|| choice.clone(), |voters| with(voters, choice.clone())))
            }
            Self::RestoredPassedOver => {
                let choice = chosen?;
                let blank = answers.iter().find(|answer| choice.bootstrap && answer.is_blank());
                let leader = blank.map_or(choice.leader, |blank| blank.replica);
                Some(Choice { leader, ..choice })
            }
            Self::OldVotersForgotten => chosen.map(|choice| Choice { old_voters: None, ..choice }),
            _ => chosen,
        }
    }
}

fn added(change: Option<Change>) -> Option<ReplicaId> {
    match change {
        Some(Change::Add(id)) => Some(id),
        _ => None,
    }
}

/// The voters after the change, if it changes anything and leaves the leader.
fn changed(choice: &Choice, change: Option<Change>) -> Option<Vec<ReplicaId>> {
    let mut voters = choice.voters.clone();
    match change? {
        Change::Add(id) if !voters.contains(&id) => voters.push(id),
        Change::Remove(id) if id != choice.leader && voters.contains(&id) => voters.retain(|voter| *voter != id),
        _ => return None,
    }
    Some(voters)
}
