//! From sealed answers to who leads. Pure: the same answers give the same choice to everyone who looks at them.

use alloc::vec::Vec;

use crate::quorum::{effective_quorum, is_majority, majority};
use crate::types::history::{EpochStart, VOTERS_MAX};
pub use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Epoch, ReplicaId, Tail};

/// A wished change of the voters: one replica, never more. Two sets that differ by one have a voter in common in any two of
/// their majorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A replica that has caught up is to vote.
    Add(ReplicaId),
    /// A voter is to vote no more.
    Remove(ReplicaId),
}

/// The intended leader of the sealed epoch, and its voters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The candidate: the voter with the greatest durable tail, unless that is damaged and another will do.
    pub leader: ReplicaId,
    /// The voters.
    pub voters: Vec<ReplicaId>,
    /// The number of voters that commit.
    pub quorum: u32,
    /// The voters before, while a change of voters is unsettled.
    pub old_voters: Option<Vec<ReplicaId>>,
    /// True if this is the first epoch of the cluster.
    pub bootstrap: bool,
    /// Why the voters stay as they are, where a change was wished for.
    pub unchanged: Option<Unchanged>,
}

impl Choice {
    /// The choice, once its invariants hold.
    fn checked(self) -> Self {
        let quorum = usize::try_from(self.quorum).unwrap_or(usize::MAX);
        assert!(self.voters.contains(&self.leader), "a leader is chosen that does not vote");
        assert!(quorum >= majority(self.voters.len()), "two quorums need not meet");
        assert!(quorum <= self.voters.len(), "a quorum that nobody can reach");
        debug_assert!(self.unchanged.is_none() || !self.bootstrap, "the first voters are to change");
        self
    }
}

/// Why a change of the voters is left for another time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unchanged {
    /// The change before is not settled by what the answers show.
    #[error("too few answers hold the start of epoch {0}")]
    Unsettled(Epoch),
    /// The new voter did not answer.
    #[error("replica {0} did not answer in time")]
    Silent(ReplicaId),
    /// The new voter has not copied enough.
    #[error("replica {replica} holds the log up to {holds}, and lacks the start of epoch {epoch}")]
    Behind {
        /// The new voter.
        replica: ReplicaId,
        /// Its content.
        holds: Tail,
        /// The epoch whose start it lacks.
        epoch: Epoch,
    },
    /// The new voter has lost records.
    #[error("replica {0} lost data that it may have acknowledged")]
    Lost(ReplicaId),
    /// The voter that is to go leads.
    #[error("replica {0} leads")]
    Leads(ReplicaId),
    /// It is so already, or there is room for no more voters.
    #[error("there are {0} voters already, or no more are possible")]
    NoChange(usize),
    /// The voters after the change would commit nothing.
    #[error("{answered} of the {voters} voters to be answered, {needed} are needed to commit")]
    BelowQuorum {
        /// The number of them that answered.
        answered: usize,
        /// Their number after the change.
        voters: usize,
        /// The number that commits.
        needed: u32,
    },
}

/// The replicas of a cluster that is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct First<'a> {
    /// The first voters.
    pub voters: &'a [ReplicaId],
    /// Whoever is at a node of the cluster, to vote or not. Each of them has to answer, and to be blank, but for one that may have been
    /// restored: with another idea of who is to vote, another controller may be beginning a cluster among them.
    pub listed: &'a [ReplicaId],
}

/// Why no leader can be chosen from these answers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoChoice {
    /// Nobody answered.
    #[error("no replica answered")]
    NoAnswers,
    /// Too few of the voters answered.
    #[error("{} of {} voters answered, {} are needed", .answered, .voters, majority(*.voters))]
    NoMajority {
        /// The number of voters that answered.
        answered: usize,
        /// Their number.
        voters: usize,
        /// The voters that did not.
        missing: Vec<ReplicaId>,
    },
    /// Records that a voter has lost may have been committed, and nobody who answers holds it; one who does not answer may.
    #[error(
        "replica {replica} lost data that it may have acknowledged, up to {suspect}, and no answer reaches that far: every voter \
         must answer, {} did not", .missing.len()
    )]
    Suspect {
        /// The replica that has lost it.
        replica: ReplicaId,
        /// The tail at which its log may have ended.
        suspect: Tail,
        /// The replicas that may hold it and did not answer.
        missing: Vec<ReplicaId>,
    },
    /// A first epoch needs every replica that is listed, blank or restored.
    #[error("a new cluster needs an answer from all of its {listed} nodes; {answered} blank or restored ones answered")]
    NotAllBlank {
        /// The number of blank or restored replicas that answered.
        answered: usize,
        /// Their number.
        listed: usize,
    },
    /// More than one was restored from a backup, and nobody can say which log is meant.
    #[error("{} replicas were restored from a backup, and a new cluster begins with one: empty the disks of the others", .0.len())]
    ManyRestored(Vec<ReplicaId>),
    /// The restored log is not whole.
    #[error("the restored log of replica {0} is damaged or incomplete: empty its disk, and restore again")]
    RestoredHurt(ReplicaId),
    /// The cluster has begun, and those who answer have heard of none of its epochs.
    #[error("the {0} replicas that answered hold no epoch of the cluster; one that holds an epoch must answer")]
    OnlyBlank(usize),
    /// The answers come from different clusters.
    #[error("the replicas belong to different clusters: {0} and {1}")]
    MixedClusters(ClusterId, ClusterId),
}

/// Chooses the leader of a sealed epoch. `answers` come in the order of the ordinals; of equal candidates those win whose log is
/// whole, then the preferred one, then the first. `first` is given for a first epoch, `quorum` is the one wished for.
///
/// The electorate is the one named by the newest epoch start *among the answers*, so that no stale report can pick the wrong
/// one; while a change of voters is unsettled, a majority of the old voters is needed as well. What a voter has lost counts as
/// unknown, never as absent: unless the candidate's log reaches as far, or too few voters may have acknowledged it to commit it, every voter has to answer.
///
/// A first epoch begins with the one replica that was restored from a backup, whoever is preferred, or with blank ones alone. The restored
/// one counts as the voters before: it is asked until a majority of the new ones holds what it does. In a cluster that has begun, one that
/// was restored counts as no answer.
///
/// The voters stay as they are, but for a `change` from settled ones that the answers bear out; another is left for the next time.
///
/// # Errors
/// Why the answers are not enough.
pub fn choose(
    answers: &[Sealed],
    prefer: Option<ReplicaId>,
    first: Option<First<'_>>,
    quorum: Option<u32>,
    change: Option<Change>,
) -> Result<Choice, NoChoice> {
    if answers.is_empty() {
        return Err(NoChoice::NoAnswers);
    }
    let (seeds, answers): (Vec<Sealed>, Vec<Sealed>) = believed(answers).into_iter().partition(Sealed::is_seed);
    let answers = &answers;
    one_cluster(answers)?;
    let newest = answers.iter().filter_map(|answer| answer.last.as_ref()).max_by_key(|start| start.epoch);
    let Some(newest) = newest else {
        let first = first.ok_or(NoChoice::OnlyBlank(answers.len()))?;
        return choose_first(answers, &seeds, prefer, first, quorum);
    };
    for electorate in newest.electorates() {
        has_majority(electorate, answers)?;
    }
    let leader = candidate(answers, newest, prefer, change).ok_or(NoChoice::NoAnswers)?;
    debug_assert!(answer_of(answers, leader).is_some(), "one is chosen that did not answer");
    nothing_is_lost(newest, answers, leader)?;
    let choice = |voters: Vec<ReplicaId>, old_voters, unchanged| {
        let quorum = effective_quorum(voters.len(), quorum);
        let next = EpochStart { voters, old_voters, ..newest.clone() };
        debug_assert!(next.follows(newest), "voters are chosen that no replica accepts");
        let EpochStart { voters, old_voters, .. } = next;
        Choice { leader, voters, quorum, old_voters, bootstrap: false, unchanged }.checked()
    };
    let voters = newest.voters.clone();
    if !is_settled(newest, answers) {
        return Ok(choice(voters, newest.old_voters.clone(), change.map(|_| Unchanged::Unsettled(newest.epoch))));
    }
    Ok(match change.map(|change| changed(newest, answers, leader, change, quorum)) {
        Some(Ok(changed)) => choice(changed, Some(voters), None),
        Some(Err(unchanged)) => choice(voters, None, Some(unchanged)),
        None => choice(voters, None, None),
    })
}

/// The voters after the change, unless it cannot be made now: an added replica has to hold the newest epoch start, so one that is
/// blank or far behind is none, and the leader is never removed.
fn changed(
    newest: &EpochStart,
    answers: &[Sealed],
    leader: ReplicaId,
    change: Change,
    quorum: Option<u32>,
) -> Result<Vec<ReplicaId>, Unchanged> {
    let mut voters = newest.voters.clone();
    match change {
        Change::Add(new) if voters.contains(&new) || voters.len() >= VOTERS_MAX => {
            return Err(Unchanged::NoChange(voters.len()));
        }
        Change::Add(new) => {
            let answer = answer_of(answers, new).ok_or(Unchanged::Silent(new))?;
            if answer.durable.epoch != newest.epoch {
                return Err(Unchanged::Behind { replica: new, holds: answer.durable, epoch: newest.epoch });
            }
            if answer.suspect.is_some() {
                return Err(Unchanged::Lost(new));
            }
            voters.push(new);
        }
        Change::Remove(gone) if gone == leader => return Err(Unchanged::Leads(gone)),
        Change::Remove(gone) if !voters.contains(&gone) => return Err(Unchanged::NoChange(voters.len())),
        Change::Remove(gone) => voters.retain(|voter| *voter != gone),
    }
    debug_assert!(voters.len().abs_diff(newest.voters.len()) == 1, "the voters change by more than one");
    let answered = voters.iter().filter(|id| answer_of(answers, **id).is_some()).count();
    let needed = effective_quorum(voters.len(), quorum);
    if u32::try_from(answered).is_ok_and(|answered| answered >= needed) {
        return Ok(voters);
    }
    Err(Unchanged::BelowQuorum { answered, voters: voters.len(), needed })
}

/// The answers without those of restored disks: what another has heard from the same replica is not on them. They have forgotten
/// promises and acknowledgements, and count as no answer.
fn believed(answers: &[Sealed]) -> Vec<Sealed> {
    let knows = |answer: &Sealed, of: &Sealed| answer.runs.get(of.replica).is_none_or(|run| of.lineage.has(run));
    answers.iter().filter(|of| answers.iter().all(|answer| knows(answer, of))).cloned().collect()
}

fn answer_of(answers: &[Sealed], replica: ReplicaId) -> Option<&Sealed> {
    answers.iter().find(|answer| answer.replica == replica)
}

fn choose_first(
    answers: &[Sealed],
    seeds: &[Sealed],
    prefer: Option<ReplicaId>,
    first: First<'_>,
    quorum: Option<u32>,
) -> Result<Choice, NoChoice> {
    let First { voters, listed } = first;
    debug_assert!(voters.iter().all(|voter| listed.contains(voter)), "a first voter is at none of the nodes");
    let is_fresh = |id: &ReplicaId| {
        answer_of(answers, *id).is_some_and(Sealed::is_blank) || seeds.iter().any(|seed| seed.replica == *id)
    };
    let answered = listed.iter().filter(|id| is_fresh(id)).count();
    if answered < listed.len() || !voters.iter().all(is_fresh) || !answers.iter().all(Sealed::is_blank) {
        return Err(NoChoice::NotAllBlank { answered, listed: listed.len() });
    }
    let mut voters = voters.to_vec();
    let leader = match seeds {
        [] => preferred(answers, &voters, prefer, None).ok_or(NoChoice::NoAnswers)?,
        [seed] if !seed.is_whole() => return Err(NoChoice::RestoredHurt(seed.replica)),
        [seed] => seed.replica,
        seeds => return Err(NoChoice::ManyRestored(seeds.iter().map(|seed| seed.replica).collect())),
    };
    if !voters.contains(&leader) {
        // It is at a node behind those that are wished for: members come and go once it leads.
        voters.pop();
        voters.push(leader);
    }
    debug_assert!(voters.len() == first.voters.len().max(1), "more or fewer vote than are to");
    // What was restored is on one disk: while it is not on those of a majority, nobody is elected without that one.
    let old_voters = (!seeds.is_empty() && voters.len() > 1).then(|| alloc::vec![leader]);
    let quorum = effective_quorum(voters.len(), quorum);
    Ok(Choice { leader, voters, quorum, old_voters, bootstrap: true, unchanged: None }.checked())
}

fn one_cluster(answers: &[Sealed]) -> Result<(), NoChoice> {
    let mut clusters = answers.iter().filter(|answer| !answer.is_blank()).filter_map(|answer| answer.cluster);
    let Some(first) = clusters.next() else { return Ok(()) };
    clusters.find(|cluster| *cluster != first).map_or(Ok(()), |other| Err(NoChoice::MixedClusters(first, other)))
}

fn has_majority(voters: &[ReplicaId], answers: &[Sealed]) -> Result<(), NoChoice> {
    let missing: Vec<_> =
        voters.iter().copied().filter(|voter| !answers.iter().any(|answer| answer.replica == *voter)).collect();
    let answered = voters.len() - missing.len();
    if answered >= majority(voters.len()) {
        return Ok(());
    }
    Err(NoChoice::NoMajority { answered, voters: voters.len(), missing })
}

/// Fails while a voter that does not answer may hold what another has lost and the candidate does not have. Not so where too few may
/// have acknowledged it.
fn nothing_is_lost(newest: &EpochStart, answers: &[Sealed], candidate: ReplicaId) -> Result<(), NoChoice> {
    let electorate = || newest.electorates().flatten();
    let answer = |voter: &ReplicaId| answer_of(answers, *voter);
    let holds = answer(&candidate).map_or_else(Tail::default, |answer| answer.durable);
    let suspects = electorate().filter_map(answer).filter_map(|answer| Some((answer.suspect?, answer.replica)));
    let Some((suspect, replica)) = suspects.filter(|(suspect, _)| *suspect > holds).max() else { return Ok(()) };
    let may_have_acknowledged = |answer: &Sealed| answer.suspect > Some(holds);
    if !may_be_committed(newest, answers, may_have_acknowledged) {
        return Ok(());
    }
    let mut missing: Vec<_> = electorate().filter(|voter| answer(voter).is_none()).copied().collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { Err(NoChoice::Suspect { replica, suspect, missing }) }
}

/// Returns whether enough voters may have acknowledged something to commit it: those whose answers say so, and those that do not answer.
/// Whatever was committed from the newest epoch start on, a majority of its voters has, or of its old voters.
fn may_be_committed(newest: &EpochStart, answers: &[Sealed], may_have: impl Fn(&Sealed) -> bool) -> bool {
    let counts = |voter: &&ReplicaId| answer_of(answers, **voter).is_none_or(&may_have);
    newest.electorates().any(|voters| voters.iter().filter(counts).count() >= majority(voters.len()))
}

/// The voter with the greatest (last epoch, durable end), whole or not; or one that is whole and lacks only what cannot be committed, if
/// that one is damaged: what nobody can be given is cut.
fn candidate(
    answers: &[Sealed],
    newest: &EpochStart,
    prefer: Option<ReplicaId>,
    change: Option<Change>,
) -> Option<ReplicaId> {
    let is_newest = |answer: &Sealed| answer.last.as_ref().is_none_or(|last| last.epoch <= newest.epoch);
    debug_assert!(answers.iter().all(is_newest), "an answer holds a later epoch than the one that says who elects");
    let best = preferred(answers, &newest.voters, prefer, change)?;
    if answer_of(answers, best).is_none_or(|answer| !answer.damaged) {
        return Some(best);
    }
    let whole: Vec<Sealed> = answers.iter().filter(|answer| !answer.damaged).cloned().collect();
    let lacks_nothing = |id: &ReplicaId| {
        let holds = answer_of(answers, *id).map(|answer| answer.durable);
        !may_be_committed(newest, answers, |answer| Some(answer.durable) > holds || answer.suspect > holds)
    };
    preferred(&whole, &newest.voters, prefer, change).filter(lacks_nothing).or(Some(best))
}

/// The voter with the greatest (last epoch, durable end). Never the longest log alone: a newer epoch beats it. Of equal ones not
/// a damaged one, nor the one that is to be removed.
fn preferred(
    answers: &[Sealed],
    voters: &[ReplicaId],
    prefer: Option<ReplicaId>,
    change: Option<Change>,
) -> Option<ReplicaId> {
    let voting = || answers.iter().filter(|answer| voters.contains(&answer.replica));
    let best = voting().map(|answer| answer.durable).max()?;
    let reaching = || voting().filter(|answer| answer.durable == best);
    let is_whole = reaching().any(|answer| !answer.damaged);
    let equal = || reaching().filter(|answer| !(is_whole && answer.damaged)).map(|answer| answer.replica);
    let staying = || equal().filter(|replica| change != Some(Change::Remove(*replica)));
    staying().find(|replica| Some(*replica) == prefer).or_else(|| staying().next()).or_else(|| equal().next())
}

/// Returns whether a majority of its voters, and of its old voters, are seen to hold the epoch start.
fn is_settled(newest: &EpochStart, answers: &[Sealed]) -> bool {
    let holds = |id: &ReplicaId| {
        let epoch_of = |answer: &Sealed| answer.last.as_ref().map_or(Epoch(0), |last| last.epoch);
        answers.iter().any(|answer| answer.replica == *id && epoch_of(answer) == newest.epoch)
    };
    newest.electorates().all(|voters| is_majority(voters, holds))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::types::Offset;
    use crate::types::incarnations::Run;
    use crate::types::incarnations::{Lineage, Runs};

    const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
    const FIRST: Option<First<'_>> = Some(First { voters: &ALL, listed: &ALL });

    fn start(epoch: u64, voters: &[ReplicaId]) -> EpochStart {
        EpochStart {
            epoch: Epoch(epoch),
            start: Offset(0),
            leader: voters[0],
            voters: voters.to_vec(),
            quorum: effective_quorum(voters.len(), None),
            old_voters: None,
        }
    }

    fn report(replica: u128, epoch: u64, end: u64) -> Sealed {
        Sealed {
            replica: ReplicaId(replica),
            cluster: (epoch > 0).then_some(ClusterId(9)),
            last: (epoch > 0).then(|| start(epoch, &ALL)),
            durable: Tail { epoch: Epoch(epoch), end: Offset(end) },
            commit_end: Offset(0),
            suspect: None,
            damaged: false,
            lineage: Lineage::default(),
            runs: Runs::default(),
        }
    }

    fn suspect(replica: u128, (epoch, end): (u64, u64), (lost_epoch, lost_end): (u64, u64)) -> Sealed {
        let suspect = Tail { epoch: Epoch(lost_epoch), end: Offset(lost_end) };
        Sealed { suspect: Some(suspect), ..report(replica, epoch, end) }
    }

    fn leader(answers: &[Sealed], prefer: Option<u128>) -> Result<u128, NoChoice> {
        choose(answers, prefer.map(ReplicaId), FIRST, None, None).map(|choice| choice.leader.0)
    }

    #[test]
    fn a_newer_epoch_beats_a_longer_log() {
        assert_eq!(leader(&[report(1, 3, 90), report(2, 4, 10)], None), Ok(2));
    }

    #[test]
    fn in_one_epoch_the_longer_log_leads_whoever_is_preferred() {
        assert_eq!(leader(&[report(1, 3, 9), report(2, 3, 10)], Some(1)), Ok(2));
    }

    #[test]
    fn ties_go_to_the_preferred_then_to_the_first() {
        let equal = [report(1, 3, 9), report(2, 3, 9), report(3, 3, 9)];
        assert_eq!(leader(&equal, Some(2)), Ok(2));
        assert_eq!(leader(&equal, None), Ok(1));
        assert_eq!(leader(&equal, Some(7)), Ok(1));
    }

    #[test]
    fn a_damaged_candidate_leads_only_if_no_whole_one_has_all_that_may_be_committed() {
        let damaged = |replica, end| Sealed { damaged: true, ..report(replica, 3, end) };
        assert_eq!(leader(&[damaged(1, 9), report(2, 3, 9), report(3, 3, 9)], Some(1)), Ok(2));
        // The first has acknowledged it alone.
        assert_eq!(leader(&[damaged(1, 9), report(2, 3, 8), report(3, 3, 8)], Some(1)), Ok(2));
        // Two have it, or may have.
        assert_eq!(leader(&[damaged(1, 9), damaged(2, 9), report(3, 3, 8)], Some(2)), Ok(2));
        assert_eq!(leader(&[damaged(1, 9), report(2, 3, 8)], Some(2)), Ok(1));
        assert_eq!(leader(&[damaged(1, 9), report(2, 3, 8), suspect(3, (3, 8), (3, 9))], Some(2)), Ok(1));
        // Of two voters both have what is committed.
        let of_two = |answer: Sealed| Sealed { last: Some(start(3, &ALL[..2])), ..answer };
        assert_eq!(leader(&[of_two(damaged(1, 9)), of_two(report(2, 3, 8))], Some(1)), Ok(2));
    }

    #[test]
    fn a_restored_disk_counts_as_no_answer() {
        let lineage = |starts, nonces: &[u64]| Lineage { starts, nonces: nonces.to_vec() };
        let remembers = |starts, nonce| Runs::from_iter([(ReplicaId(1), Run { starts, nonce })]);
        let one = Sealed { lineage: lineage(3, &[33, 22, 11]), ..report(1, 4, 9) };
        let two = |starts, nonce| Sealed { runs: remembers(starts, nonce), ..report(2, 4, 8) };
        // It has only restarted since, or not even that.
        assert_eq!(leader(&[one.clone(), two(2, 22)], None), Ok(1));
        assert_eq!(leader(&[one.clone(), two(3, 33)], None), Ok(1));
        for restored in [two(4, 44), two(3, 99), two(2, 99)] {
            let answers = [one.clone(), restored];
            let missing = vec![ReplicaId(1), ReplicaId(3)];
            assert_eq!(leader(&answers, None), Err(NoChoice::NoMajority { answered: 1, voters: 3, missing }));
            assert_eq!(leader(&[answers.as_slice(), &[report(3, 4, 7)]].concat(), Some(1)), Ok(2));
        }
    }

    #[test]
    fn a_minority_elects_nobody() {
        let missing = vec![ReplicaId(1), ReplicaId(2)];
        assert_eq!(leader(&[report(3, 4, 9)], None), Err(NoChoice::NoMajority { answered: 1, voters: 3, missing }));
    }

    #[test]
    fn a_new_cluster_needs_every_replica_blank() {
        assert_eq!(leader(&[report(1, 0, 0), report(2, 0, 0), report(3, 0, 0)], Some(2)), Ok(2));
        let two = leader(&[report(1, 0, 0), report(2, 0, 0)], None);
        assert_eq!(two, Err(NoChoice::NotAllBlank { answered: 2, listed: 3 }));
    }

    #[test]
    fn a_new_cluster_of_some_replicas_needs_the_others_at_its_nodes_blank_too() {
        let first = Some(First { voters: &ALL[..1], listed: &ALL });
        let begun = |answers: &[Sealed]| choose(answers, None, first, None, None).map(|choice| choice.voters);
        let blank = [report(1, 0, 0), report(2, 0, 0), report(3, 0, 0)];
        assert_eq!(begun(&blank), Ok(ALL[..1].to_vec()));
        assert_eq!(begun(&blank[..2]), Err(NoChoice::NotAllBlank { answered: 2, listed: 3 }), "one is silent");
        let led = [report(1, 0, 0), report(2, 1, 0), report(3, 0, 0)];
        assert_eq!(begun(&led), Ok(ALL.to_vec()), "another controller has begun a cluster: that one goes on");
    }

    #[test]
    fn those_who_have_heard_of_no_epoch_elect_nobody_in_a_cluster_that_has_begun() {
        let blank = [report(2, 0, 0), report(3, 0, 0)];
        assert_eq!(choose(&blank, None, None, None, None), Err(NoChoice::OnlyBlank(2)));
    }

    #[test]
    fn blank_replicas_do_not_vote_in_a_cluster_that_knows_them_not() {
        let mut stranger = report(7, 0, 0);
        stranger.replica = ReplicaId(7);
        assert!(matches!(leader(&[report(1, 4, 9), stranger], None), Err(NoChoice::NoMajority { answered: 1, .. })));
    }

    #[test]
    fn the_newest_epoch_start_among_the_answers_names_the_electorate() {
        let mut newer = report(3, 5, 9);
        newer.last = Some(start(5, &[ReplicaId(3), ReplicaId(4), ReplicaId(5)]));
        assert!(matches!(leader(&[report(1, 4, 9), report(2, 4, 9), newer], None), Err(NoChoice::NoMajority { .. })));
    }

    #[test]
    fn an_unsettled_change_of_voters_needs_the_old_majority_too_and_is_carried_over() {
        let mut newest = start(5, &[ReplicaId(3), ReplicaId(4)]);
        newest.old_voters = Some(vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)]);
        let with = |replica, epoch, last: &EpochStart| Sealed { last: Some(last.clone()), ..report(replica, epoch, 9) };
        let new_only = [with(3, 5, &newest), with(4, 5, &newest)];
        assert!(matches!(leader(&new_only, None), Err(NoChoice::NoMajority { voters: 3, .. })));
        let both = [report(1, 4, 9), with(3, 5, &newest), with(4, 5, &newest)];
        let choice = choose(&both, None, FIRST, None, None).unwrap();
        assert_eq!((choice.leader, choice.old_voters), (ReplicaId(3), newest.old_voters));
    }

    #[test]
    fn what_a_voter_has_lost_is_waited_for_until_every_voter_answers() {
        // Replica 3 may have acknowledged up to 9 together with replica 1, which is down.
        let two = [report(2, 4, 7), suspect(3, (4, 5), (4, 9))];
        let tail = Tail { epoch: Epoch(4), end: Offset(9) };
        let waits = NoChoice::Suspect { replica: ReplicaId(3), suspect: tail, missing: vec![ReplicaId(1)] };
        assert_eq!(leader(&two, None), Err(waits));
        let [second, third] = two;
        assert_eq!(leader(&[report(1, 4, 9), second.clone(), third.clone()], None), Ok(1));
        // Nobody has it: it was never committed, or its voters lost it all.
        assert_eq!(leader(&[report(1, 4, 6), second, third], None), Ok(2));
    }

    #[test]
    fn what_a_voter_has_lost_does_not_matter_when_the_candidate_holds_it() {
        for candidate in [report(2, 4, 9), report(2, 5, 8)] {
            assert_eq!(leader(&[candidate, suspect(3, (4, 5), (4, 9))], None), Ok(2));
        }
    }

    #[test]
    fn what_a_replica_without_a_vote_has_lost_does_not_matter() {
        assert_eq!(leader(&[report(1, 4, 9), report(2, 4, 9), suspect(7, (4, 5), (4, 20))], None), Ok(1));
    }

    #[test]
    fn what_an_old_voter_has_lost_is_waited_for_too() {
        let mut newest = start(5, &[ReplicaId(3), ReplicaId(4), ReplicaId(5)]);
        newest.old_voters = Some(vec![ReplicaId(2), ReplicaId(3), ReplicaId(4)]);
        let with = |sealed: Sealed| Sealed { last: Some(newest.clone()), ..sealed };
        let answers = [suspect(2, (4, 5), (5, 10)), with(report(3, 5, 8)), with(suspect(4, (5, 7), (5, 9)))];
        let Err(NoChoice::Suspect { replica, missing, .. }) = choose(&answers, None, FIRST, None, None) else {
            panic!()
        };
        assert_eq!((replica, missing), (ReplicaId(2), vec![ReplicaId(5)]));
        // Two of the old voters commit, and no other of them may have acknowledged more than 8.
        let [second, third, _] = answers;
        let answers = [second, third, with(report(4, 5, 8))];
        assert_eq!(choose(&answers, None, FIRST, None, None).unwrap().leader, ReplicaId(3));
    }

    #[test]
    fn what_too_few_voters_may_have_acknowledged_was_not_committed_and_nobody_waits_for_it() {
        let five: Vec<ReplicaId> = (1..=5).map(ReplicaId).collect();
        let with = |sealed: Sealed| Sealed { last: Some(start(4, &five)), ..sealed };
        let chosen = |answers: &[Sealed]| choose(answers, None, FIRST, None, None).map(|choice| choice.leader.0);
        // Replica 5 does not answer: it may have acknowledged more, and so may 4. Three commit.
        for (epoch, end) in [(4, 9), (4, u64::MAX), (5, 1)] {
            let lost = |replica| with(suspect(replica, (4, 5), (epoch, end)));
            let [first, second, third] = [1, 2, 3].map(|replica| with(report(replica, 4, 7)));
            assert_eq!(chosen(&[first, second.clone(), third.clone(), lost(4)]), Ok(1));
            let with_two = chosen(&[lost(1), second, third, lost(4)]);
            assert!(matches!(with_two, Err(NoChoice::Suspect { .. })), "{with_two:?}");
        }
    }

    #[test]
    fn a_replica_that_lost_all_it_had_is_not_blank() {
        let answers = [report(1, 0, 0), report(2, 0, 0), suspect(3, (0, 0), (1, 4))];
        assert_eq!(leader(&answers, None), Err(NoChoice::NotAllBlank { answered: 2, listed: 3 }));
    }

    #[test]
    fn replicas_of_two_clusters_elect_nobody() {
        let mut foreign = report(2, 4, 9);
        foreign.cluster = Some(ClusterId(8));
        assert!(matches!(leader(&[report(1, 4, 9), foreign], None), Err(NoChoice::MixedClusters(..))));
    }

    fn voters(answers: &[Sealed], change: Change) -> (u128, Vec<u128>, Option<Vec<u128>>) {
        let numbers = |ids: Vec<ReplicaId>| ids.into_iter().map(|id| id.0).collect();
        let choice = choose(answers, Some(ReplicaId(1)), FIRST, None, Some(change)).unwrap();
        (choice.leader.0, numbers(choice.voters), choice.old_voters.map(numbers))
    }

    const ADD_4: Change = Change::Add(ReplicaId(4));
    const REMOVE_1: Change = Change::Remove(ReplicaId(1));
    const REMOVE_3: Change = Change::Remove(ReplicaId(3));

    #[test]
    fn a_change_of_settled_voters_records_the_old_ones() {
        let four = [report(1, 4, 9), report(2, 4, 9), report(3, 4, 9), report(4, 4, 7)];
        assert_eq!(voters(&four, ADD_4), (1, vec![1, 2, 3, 4], Some(vec![1, 2, 3])));
        assert_eq!(voters(&four, REMOVE_3), (1, vec![1, 2], Some(vec![1, 2, 3])));
        let choice = choose(&four, None, FIRST, Some(3), Some(ADD_4)).unwrap();
        assert_eq!(choice.quorum, 3);
    }

    #[test]
    fn a_replica_that_is_blank_behind_or_has_lost_something_is_not_added() {
        let with = |fourth: Sealed| [report(1, 4, 9), report(2, 4, 9), report(3, 4, 9), fourth];
        for fourth in [report(4, 0, 0), report(4, 3, 9), suspect(4, (4, 5), (4, 7))] {
            assert_eq!(voters(&with(fourth), ADD_4), (1, vec![1, 2, 3], None));
        }
        let silent = [report(1, 4, 9), report(2, 4, 9), report(3, 4, 9)];
        assert_eq!(voters(&silent, ADD_4), (1, vec![1, 2, 3], None));
    }

    #[test]
    fn an_added_replica_does_not_lead_the_epoch_that_adds_it() {
        let ahead = [report(1, 4, 8), report(2, 4, 8), report(3, 4, 8), report(4, 4, 9)];
        assert_eq!(voters(&ahead, ADD_4).0, 1);
    }

    #[test]
    fn the_one_that_is_removed_does_not_lead_and_stays_while_its_log_is_the_longest() {
        let equal = [report(1, 4, 9), report(2, 4, 9), report(3, 4, 9)];
        assert_eq!(voters(&equal, REMOVE_1), (2, vec![2, 3], Some(vec![1, 2, 3])));
        let ahead = [report(1, 4, 9), report(2, 4, 8), report(3, 4, 8)];
        assert_eq!(voters(&ahead, REMOVE_1), (1, vec![1, 2, 3], None));
    }

    #[test]
    fn no_change_leaves_voters_that_could_not_commit() {
        // Without replica 3, replica 2 would have to answer.
        assert_eq!(voters(&[report(1, 4, 9), report(3, 4, 9)], REMOVE_3), (1, vec![1, 2, 3], None));
        assert_eq!(voters(&[report(1, 4, 9), report(2, 4, 9)], REMOVE_3), (1, vec![1, 2], Some(vec![1, 2, 3])));
        // Of four, three would have to.
        assert_eq!(voters(&[report(1, 4, 9), report(2, 4, 9), report(4, 4, 9)], ADD_4).1, [1, 2, 3, 4]);
        let wished = choose(&[report(1, 4, 9), report(2, 4, 9)], None, FIRST, Some(3), Some(REMOVE_3)).unwrap();
        assert_eq!((wished.voters.len(), wished.quorum), (2, 2), "a wished quorum is at most all voters");
    }

    #[test]
    fn voters_do_not_change_before_the_last_change_is_settled() {
        // Epoch 5 has added replica 4, and only replicas 1 and 4 are seen to hold it: no majority of either set.
        let mut newest = start(5, &[ReplicaId(1), ReplicaId(2), ReplicaId(3), ReplicaId(4)]);
        newest.old_voters = Some(ALL.to_vec());
        let with = |replica| Sealed { last: Some(newest.clone()), ..report(replica, 5, 9) };
        let unsettled = [with(1), report(2, 4, 9), report(3, 4, 9), with(4)];
        assert_eq!(voters(&unsettled, REMOVE_3), (1, vec![1, 2, 3, 4], Some(vec![1, 2, 3])));
        // Three of four hold it, but of the old three only one answers so: still carried over.
        let mut five = start(6, &[ReplicaId(1), ReplicaId(4), ReplicaId(5)]);
        five.old_voters = Some(ALL.to_vec());
        let with_five = |replica| Sealed { last: Some(five.clone()), ..report(replica, 6, 9) };
        let new_only = [with_five(1), report(2, 4, 9), with_five(4), with_five(5)];
        assert_eq!(voters(&new_only, Change::Remove(ReplicaId(5))), (1, vec![1, 4, 5], Some(vec![1, 2, 3])));
        // Settled: the change is taken, and the old ones of the change before are done with.
        let settled = [with(1), with(2), with(4), report(3, 4, 9)];
        assert_eq!(voters(&settled, REMOVE_3), (1, vec![1, 2, 4], Some(vec![1, 2, 3, 4])));
        let carried_on = choose(&settled, None, FIRST, None, None).unwrap();
        assert_eq!((carried_on.voters.len(), carried_on.old_voters), (4, None));
    }

    #[test]
    fn a_first_epoch_changes_nothing() {
        let blank = [report(1, 0, 0), report(2, 0, 0), report(3, 0, 0), report(4, 0, 0)];
        assert_eq!(voters(&blank, ADD_4), (1, vec![1, 2, 3], None));
    }
}
