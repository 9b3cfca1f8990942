//! One attempt at an epoch: seal, choose, appoint, each only after the one before. The epoch is reserved beside the seal; a first one
//! before it. An attempt that fails anywhere leaves its epoch used up, and nothing to undo. From the seal on nobody leads, so nothing
//! but the replicas is waited for, and a store that answers.

use alloc::string::String;
use alloc::vec::Vec;

use super::io::{Action, Answer, Call, Event, Failure, Who};
use super::pause::Retry;
use super::places::ordinal_of;
use super::record::Reserved;
use super::{Machine, Node, StartedEpoch, StorePatience, Work};
use crate::control::election::{Change, Choice, First, NoChoice};
use crate::control::{Ballot, Reason, ReplicaStatus, Rules};
use crate::types::io::Terms;
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, EPOCHS_AHEAD_MAX, Epoch, Millis, ReplicaId};

/// The number of epochs that an attempt passes over at most that nobody writes down: should a voter's disk have been put back to an older
/// state, another attempt may pick the same one, and two logs would end in it.
const EPOCHS_SKIPPED_MAX: u64 = 1024;
const _: () = assert!(EPOCHS_SKIPPED_MAX < EPOCHS_AHEAD_MAX, "no replica accepts an epoch behind those passed over");

/// The two sides of a hand-over, and since when appends wait for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handing {
    pub(super) from: Who,
    pub(super) to: Who,
    pub(super) begun: Millis,
}

/// The number of replicas that are to vote, and to commit, as wished when an attempt began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voters {
    pub(super) replicas: usize,
    pub(super) quorum: Option<u32>,
}

/// The start of an epoch to come.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// Its number: what answers it says so.
    pub(super) id: u64,
    pub(super) seen: Vec<Option<ReplicaStatus>>,
    pub(super) epoch: Epoch,
    pub(super) prefer: Option<ReplicaId>,
    /// The replicas that are not sealed.
    pub(super) without: Option<ReplicaId>,
    /// The voter to add or to remove, if the answers bear it out.
    pub(super) change: Option<Change>,
    pub(super) reason: Reason,
    pub(super) cluster: Option<ClusterId>,
    pub(super) wished: Voters,
    pub(super) handing: Option<Handing>,
    /// The hand-over to ask for once the epoch is reserved: the epoch that is led, by whom, and to whom it goes.
    pub(super) asks: Option<(Epoch, ReplicaId, ReplicaId)>,
    /// True if the reservation has been written down, or nobody is asked to.
    pub(super) is_reserved: bool,
}

/// The answers of the sealed replicas so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) sealed: Vec<(usize, Sealed)>,
    pub(super) refusals: Vec<(usize, String)>,
    /// The number of replicas that have not answered.
    pub(super) missing: usize,
    /// When those that have not are waited for no more.
    pub(super) until: Millis,
}

impl Attempt {
    pub(super) fn who(&self, replica: ReplicaId) -> Who {
        Who { replica, ordinal: ordinal_of(&self.seen, replica) }
    }

    /// The replicas at the first nodes, so many of them.
    fn at_first(&self, nodes: usize) -> Vec<ReplicaId> {
        self.seen.iter().take(nodes).flatten().map(|seen| seen.replica).collect()
    }

    /// Whom to seal: not those of another cluster.
    fn targets(&self) -> Vec<(usize, ReplicaId)> {
        let is_asked = |seen: &&ReplicaStatus| {
            let is_of_another = seen.is_seed() && self.reason != Reason::Bootstrap;
            let is_ours = seen.cluster.is_none() || seen.cluster == self.cluster;
            is_ours && !is_of_another && Some(seen.replica) != self.without
        };
        let seen = self.seen.iter().enumerate();
        seen.filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref().filter(is_asked)?.replica))).collect()
    }

    fn choose(&self, rules: &impl Rules, sealed: &[(usize, Sealed)]) -> Result<Choice, NoChoice> {
        let mut in_order: Vec<_> = sealed.iter().collect();
        in_order.sort_by_key(|(ordinal, _)| *ordinal);
        debug_assert!(in_order.is_sorted_by(|(a, _), (b, _)| a < b), "a node has answered twice");
        let answers: Vec<Sealed> = in_order.into_iter().map(|(_, sealed)| sealed.clone()).collect();
        let (voters, listed) = (self.at_first(self.wished.replicas), self.at_first(self.seen.len()));
        // A first epoch needs an answer of every node: one that is silent may hold the cluster.
        if self.reason == Reason::Bootstrap && listed.len() < self.seen.len() {
            return Err(NoChoice::NotAllBlank { answered: answers.len(), listed: self.seen.len() });
        }
        let first = Some(First { voters: &voters, listed: &listed }).filter(|_| self.reason == Reason::Bootstrap);
        let Self { prefer, wished: Voters { quorum, .. }, change, .. } = *self;
        rules.choose(&Ballot { answers: &answers, prefer, first, quorum, change })
    }
}

impl<R: Rules> Machine<R> {
    /// Begins an attempt: reserves its epoch where a store answers, and seals. Where nobody leads, both at once; a leader that is well
    /// is not deposed, and a first epoch not begun, before the store has answered.
    pub(super) fn begin(&mut self, now: Millis, mut attempt: Attempt, out: &mut Vec<Action>) {
        debug_assert!(self.is_at_rest(), "two attempts at a time");
        debug_assert!(!self.is_alone() || attempt.change.is_none(), "a node that stands by changes the voters");
        debug_assert!(!self.record.is_reserving(), "another attempt's epoch is still being reserved");
        if let Some(standby) = &mut self.standby {
            standby.acts(now, &mut self.random);
        }
        if attempt.epoch == self.record.recorded().epoch {
            let why = Failure::NoEpochLeft(attempt.epoch);
            return self.failed(now, &attempt, why, out);
        }
        // One candidate an epoch, whatever answer was lost.
        attempt.epoch = attempt.epoch.max(Epoch(self.epochs.appointed.0.saturating_add(1)));
        let is_first = attempt.reason == Reason::Bootstrap;
        if self.is_alone() || self.record.is_away() && !is_first {
            attempt.epoch = self.skip(&attempt);
            attempt.is_reserved = true;
        } else {
            let StorePatience { answer_ms, failover_ms, .. } = self.patience.store;
            let within_ms = if is_urgent(attempt.reason) { failover_ms } else { answer_ms };
            self.record.reserve(now, within_ms, attempt.epoch, out);
        }
        assert!(!is_first || !attempt.is_reserved, "a cluster begins that is not written down");
        if attempt.is_reserved || is_urgent(attempt.reason) {
            self.go_on(now, attempt, out);
        } else {
            self.work = Work::Reserving(attempt);
        }
    }

    /// The epoch is reserved, or that goes on beside.
    fn go_on(&mut self, now: Millis, mut attempt: Attempt, out: &mut Vec<Action>) {
        match attempt.asks.take() {
            Some((epoch, from, to)) => self.hand_over(now, attempt, epoch, (from, to), out),
            None => self.seal(now, attempt, out),
        }
    }

    /// An epoch that nobody else takes by chance, as near as the replicas accept.
    fn skip(&mut self, attempt: &Attempt) -> Epoch {
        let skipped = self.rules.skipped(1 + self.random.next() % EPOCHS_SKIPPED_MAX);
        let beyond = Epoch(attempt.epoch.0.saturating_add(skipped));
        let promised = attempt.seen.iter().flatten().map(|seen| seen.promised);
        let lowest = promised.filter(|promised| attempt.epoch.follows(*promised)).min().unwrap_or_default();
        if beyond.0.saturating_sub(lowest.0) <= EPOCHS_AHEAD_MAX { beyond } else { attempt.epoch }
    }

    pub(super) fn seal(&mut self, now: Millis, attempt: Attempt, out: &mut Vec<Action>) {
        let targets = attempt.targets();
        debug_assert!(
            targets.iter().all(|(_, id)| Some(*id) != attempt.without),
            "one is sealed that is to be passed over"
        );
        let within_ms = self.patience.seal_ms;
        for (ordinal, target) in &targets {
            let call = Call::Seal { cluster: attempt.cluster, epoch: attempt.epoch };
            out.push(Action::Call { attempt: attempt.id, ordinal: *ordinal, target: *target, call, within_ms });
        }
        let until = Millis(now.0.saturating_add(within_ms));
        let answers = Answers { missing: targets.len(), until, ..Answers::default() };
        self.work = Work::Sealing(attempt, answers);
        self.sealed(now, out);
    }

    pub(super) fn seal_answered(&mut self, now: Millis, ordinal: usize, answer: Answer, out: &mut Vec<Action>) {
        let Work::Sealing(attempt, answers) = &mut self.work else { return };
        let has_answered = answers.sealed.iter().any(|(at, _)| *at == ordinal)
            || answers.refusals.iter().any(|(at, _)| *at == ordinal);
        if has_answered {
            return;
        }
        debug_assert!(answers.missing > 0, "one has answered that was not asked");
        answers.missing = answers.missing.saturating_sub(1);
        match answer {
            Answer::Sealed(sealed) => {
                let was_enough = attempt.choose(&self.rules, &answers.sealed).is_ok();
                answers.sealed.push((ordinal, *sealed));
                // Once the answers are enough, the others are waited for only a little: one whose disk hangs must not hold up the rest.
                if !was_enough && attempt.choose(&self.rules, &answers.sealed).is_ok() {
                    answers.until = answers.until.min(Millis(now.0.saturating_add(self.patience.seal_grace_ms)));
                }
            }
            answer => answers.refusals.push((ordinal, answer.into_why())),
        }
        self.sealed(now, out);
    }

    /// Goes on once all have answered or time is up, and the epoch is reserved.
    pub(super) fn sealed(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Work::Sealing(attempt, answers) = &self.work else { return };
        if answers.missing > 0 && now < answers.until {
            return;
        }
        let chosen = attempt.choose(&self.rules, &answers.sealed);
        if chosen.is_ok() && !attempt.is_reserved {
            return; // The store answers in time, or counts as away.
        }
        let Work::Sealing(attempt, answers) = core::mem::replace(&mut self.work, Work::Resting) else { return };
        let choice = match chosen {
            Ok(choice) if self.standby.is_some() => Choice { old_voters: old_voters(&answers.sealed), ..choice },
            Ok(choice) => choice,
            Err(choice) => {
                let why = Failure::NoChoice { choice, refusals: answers.refusals };
                return self.failed(now, &attempt, why, out);
            }
        };
        let is_first = attempt.reason == Reason::Bootstrap;
        debug_assert!(!choice.bootstrap || is_first, "a cluster begins that was not to");
        if let (true, Some(cluster)) = (choice.bootstrap, attempt.cluster) {
            return self.failed(now, &attempt, Failure::DataGone(cluster), out);
        }
        // What a blank one names is a cluster that may never have begun.
        let mut begun = answers.sealed.iter().filter(|(_, sealed)| !sealed.is_blank());
        let sealed_cluster = begun.find_map(|(_, sealed)| sealed.cluster);
        let cluster = sealed_cluster.unwrap_or_else(|| ClusterId(self.random.id()));
        self.appoint(now, attempt, choice, cluster, out);
    }

    fn appoint(&mut self, now: Millis, attempt: Attempt, choice: Choice, cluster: ClusterId, out: &mut Vec<Action>) {
        let Choice { leader, quorum, .. } = choice;
        let leader = attempt.who(leader);
        let Some(ordinal) = leader.ordinal else {
            let why = Failure::NotAppointed { leader, why: String::from("it is at none of the nodes any more") };
            return self.failed(now, &attempt, why, out);
        };
        let (voters, old_voters) = (choice.voters.clone(), choice.old_voters.clone());
        let mut places = self.places.of(&voters, &attempt.seen);
        for old in self.places.of(old_voters.as_deref().unwrap_or_default(), &attempt.seen) {
            if !voters.contains(&old.0) {
                places.push(old);
            }
        }
        // Above the last epoch there is none.
        let is_new = attempt.epoch > self.epochs.appointed || attempt.epoch == Epoch(u64::MAX);
        assert!(is_new, "an epoch may get a second candidate");
        let terms = Terms { epoch: attempt.epoch, voters, quorum, old_voters };
        let within_ms = self.patience.appoint.bound(self.pauses.appoint.failures().saturating_add(1));
        let call = Call::Appoint { cluster, terms, places, reason: attempt.reason };
        out.push(Action::Call { attempt: attempt.id, ordinal, target: leader.replica, call, within_ms });
        self.epochs.appointed = self.epochs.appointed.max(attempt.epoch);
        let until = Millis(now.0.saturating_add(within_ms));
        self.work = Work::Appointing { attempt, choice, cluster, until };
    }

    pub(super) fn appoint_answered(&mut self, now: Millis, answer: Answer, out: &mut Vec<Action>) {
        let Work::Appointing { attempt, choice, cluster, .. } = core::mem::replace(&mut self.work, Work::Resting)
        else {
            return;
        };
        let leader = attempt.who(choice.leader);
        match answer {
            Answer::Appointed => self.elected(now, &attempt, &choice, cluster, out),
            answer => {
                let why = answer.into_why();
                self.failed(now, &attempt, Failure::NotAppointed { leader, why }, out);
            }
        }
    }

    fn elected(&mut self, now: Millis, attempt: &Attempt, choice: &Choice, cluster: ClusterId, out: &mut Vec<Action>) {
        (self.pauses.election, self.pauses.appoint, self.epochs.told_in_vain) = (Retry::default(), Retry::default(), 0);
        let Choice { leader, quorum, ref voters, .. } = *choice;
        let before = self.epochs.begun.as_ref().map(|begun| begun.epoch);
        debug_assert!(before <= Some(attempt.epoch), "an epoch begins after a later one");
        self.epochs.begun = Some(StartedEpoch { epoch: attempt.epoch, leader, voters: voters.clone(), quorum });
        let (epoch, leader, reason) = (attempt.epoch, attempt.who(choice.leader), attempt.reason);
        if choice.bootstrap {
            out.push(Action::Tell(Event::Bootstrapped { cluster, epoch }));
        }
        let is_preferred = Some(choice.leader) == attempt.prefer;
        if is_change(reason) {
            self.voters_changed(now, attempt, choice, out);
        }
        if !is_change(reason) || !is_preferred {
            out.push(Action::Tell(Event::LeaderElected { epoch, leader, reason }));
        }
        if let Some(Handing { from, to, begun }) = attempt.handing {
            if is_preferred {
                self.pauses.hand_over = Retry::default();
                let took_ms = now.since(begun);
                out.push(Action::Tell(Event::HandedOver { from, to, epoch, took_ms }));
            } else {
                self.hand_over_failed(now, (from, to), None, out);
            }
        }
        self.rest(now);
    }

    /// Takes note of what a change of voters came to. One that the answers did not bear out is tried again, after a pause that grows
    /// until a change succeeds, whatever else happens meanwhile: each try costs an epoch, and the learners their streams.
    fn voters_changed(&mut self, now: Millis, attempt: &Attempt, choice: &Choice, out: &mut Vec<Action>) {
        let (epoch, voters, why) = (attempt.epoch, choice.voters.len(), choice.unchanged);
        let is_done = match attempt.change {
            Some(Change::Add(new)) => choice.voters.contains(&new),
            Some(Change::Remove(gone)) => !choice.voters.contains(&gone),
            None => choice.old_voters.is_none(),
        };
        out.push(Action::Tell(match attempt.change {
            _ if !is_done => Event::VotersUnchanged { epoch, voters, why },
            Some(Change::Add(new)) => Event::VoterAdded { epoch, voter: attempt.who(new), voters },
            Some(Change::Remove(gone)) => Event::VoterRemoved { epoch, voter: attempt.who(gone), voters },
            None => Event::VotersSettled { epoch, voters },
        }));
        if is_done {
            self.pauses.members = Retry::default();
        } else {
            self.pauses.members.failed(now, self.patience.members_retry, &mut self.random);
        }
    }

    /// Nothing came of it.
    pub(super) fn failed(&mut self, now: Millis, attempt: &Attempt, why: Failure, out: &mut Vec<Action>) {
        self.record.abandon();
        self.epochs.told_in_vain = self.epochs.told_in_vain.max(self.look.nodes.iter().filter_map(Node::told).count());
        if matches!(why, Failure::NotAppointed { .. }) {
            self.pauses.appoint.failed(now, self.patience.election_retry, &mut self.random);
        }
        // What was in the way is known by now: the next try does without the store, at once.
        if !matches!(why, Failure::Store(_)) {
            self.pauses.election.failed(now, self.patience.election_retry, &mut self.random);
        }
        out.push(Action::Tell(Event::ElectionFailed { epoch: attempt.epoch, why }));
        if let Some(Handing { from, to, .. }) = attempt.handing {
            self.hand_over_failed(now, (from, to), None, out);
        }
        self.rest(now);
    }

    pub(super) fn hand_over_failed(
        &mut self,
        now: Millis,
        (from, to): (Who, Who),
        why: Option<String>,
        out: &mut Vec<Action>,
    ) {
        self.pauses.hand_over.failed(now, self.patience.handover_retry, &mut self.random);
        out.push(Action::Tell(Event::HandOverFailed { from, to, why }));
    }

    /// The store has said whether the epoch is reserved.
    pub(super) fn reserved(&mut self, now: Millis, reserved: Reserved, out: &mut Vec<Action>) {
        match (reserved, core::mem::replace(&mut self.work, Work::Resting)) {
            (Reserved::Done, Work::Reserving(attempt)) => {
                self.go_on(now, Attempt { is_reserved: true, ..attempt }, out);
            }
            (Reserved::Done, Work::Sealing(attempt, answers)) => {
                self.work = Work::Sealing(Attempt { is_reserved: true, ..attempt }, answers);
                self.sealed(now, out);
            }
            (Reserved::Conflict, Work::Reserving(attempt) | Work::Sealing(attempt, _)) => {
                self.failed(now, &attempt, Failure::Conflict, out);
            }
            (Reserved::Failed(why), Work::Reserving(attempt) | Work::Sealing(attempt, _)) => {
                self.failed(now, &attempt, Failure::Store(why), out);
            }
            (_, work) => self.work = work,
        }
    }
}

/// A node that stands by repeats the old voters, settled or not: whom it appoints takes nothing else from a node. A controller lets them
/// go.
fn old_voters(sealed: &[(usize, Sealed)]) -> Option<Vec<ReplicaId>> {
    let newest = sealed.iter().filter_map(|(_, sealed)| sealed.last.as_ref()).max_by_key(|last| last.epoch);
    newest.and_then(|newest| newest.old_voters.clone())
}

/// Returns whether an epoch begins because nobody leads whom a quorum hears.
const fn is_urgent(reason: Reason) -> bool {
    matches!(reason, Reason::NoLeader | Reason::LeaderLost | Reason::QuorumLost | Reason::HigherPromise)
}

/// Returns whether an epoch begins for the sake of the voters alone.
pub(super) const fn is_change(reason: Reason) -> bool {
    matches!(reason, Reason::VotersChange | Reason::VotersSettled)
}
