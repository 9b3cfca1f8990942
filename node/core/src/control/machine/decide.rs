//! From what the nodes say to the next step, and to what is written down behind.

use alloc::vec::Vec;

use super::attempt::{self, Attempt, Voters};
use super::feed::Feed;
use super::io::{Action, Call, Event, NodeReport};
use super::pause::Retry;
use super::{Machine, Node, Work};
use crate::control::{Blocked, Reason, Recorded, ReplicaRole, ReplicaStatus, Rules, Step, Wish, nodes_needed};
use crate::types::{Epoch, Millis, ReplicaId};

/// The time for which all is as wished before a record that is too high is corrected.
const STEADY_MS: u64 = 10_000;
/// The time for which all is as wished before nothing counts as undone any more.
const CONTESTED_MS: u64 = 600_000;

impl<R: Rules> Machine<R> {
    pub(super) fn decide(&mut self, now: Millis, out: &mut Vec<Action>) {
        debug_assert!(self.is_at_rest(), "a step is decided beside other work");
        debug_assert!(!self.look.nodes.iter().any(Node::is_unknown), "a step is decided before all have answered");
        let seen = self.seen();
        self.places.learn(&seen, self.look.nodes.iter().filter_map(Node::told).flat_map(NodeReport::places));
        let mut recorded = self.record.recorded().clone();
        if let Some(standby) = &self.standby {
            // The quorum stays as it is, and the cluster is its own: it has no record.
            let newest = seen.iter().flatten().filter_map(ReplicaStatus::begun).max_by_key(|last| last.epoch);
            self.plan.wish.quorum = newest.map(|newest| newest.quorum);
            recorded.cluster = standby.cluster(&seen);
        }
        self.plan.needed = nodes_needed(&self.plan.wish, &seen);
        let step = self.rules.plan(&self.plan.wish, &recorded, &seen);
        if step == Step::Nothing {
            self.calm(now);
        }
        // Who comes back may be the one that was wanting; who comes and goes is not, or each time would cost an epoch.
        if seen.iter().flatten().count() > self.epochs.told_in_vain {
            self.pauses.election = Retry::default();
        }
        let step = match &mut self.standby {
            Some(standby) => standby.filter(now, step, &seen, &mut self.random),
            None => step,
        };
        self.plan.step = step.clone();
        self.tell_blocked(&step, out);
        let record = self.record_of(now, &step, &seen);
        self.take(now, step, seen, out);
        // Behind a reservation, if there is one.
        if let Some(to) = record {
            self.record.keep(now, self.patience.store.answer_ms, to, out);
        }
    }

    fn tell_blocked(&mut self, step: &Step, out: &mut Vec<Action>) {
        let blocked = if let Step::Blocked(blocked) = step { Some(blocked.clone()) } else { None };
        if let Some(blocked) = blocked.as_ref().filter(|now| self.announced.blocked.as_ref() != Some(*now)) {
            out.push(Action::Tell(Event::Blocked(blocked.clone())));
        }
        self.announced.blocked = blocked;
    }

    /// Nobody has to be elected.
    fn calm(&mut self, now: Millis) {
        (self.pauses.election, self.pauses.appoint, self.epochs.told_in_vain) = (Retry::default(), Retry::default(), 0);
        for vain in [&mut self.pauses.quorum, &mut self.pauses.far] {
            if vain.is_due(now) {
                *vain = Retry::default();
            }
        }
    }

    fn take(&mut self, now: Millis, step: Step, seen: Vec<Option<ReplicaStatus>>, out: &mut Vec<Action>) {
        match step {
            Step::Nothing => {
                if self.pauses.feeding.is_due(now)
                    && !self.is_alone()
                    && let Some(feed) = self.news(now, &seen, out)
                {
                    self.feed(now, feed, &seen, out);
                }
            }
            Step::Elect { epoch, prefer, without, change, reason } => {
                // A first epoch is written down before anything.
                let is_first = reason == Reason::Bootstrap && (self.is_alone() || self.record.is_away());
                if is_first || !self.pauses.election.is_due(now) || !self.is_due(now, reason, &seen, out) {
                    return;
                }
                match reason {
                    // The next one may be no better off.
                    Reason::QuorumLost => {
                        self.pauses.quorum.failed(now, self.patience.handover_retry, &mut self.random);
                    }
                    // Nor is this the last: a leader that is well is not to be deposed turn after turn.
                    Reason::FarPromise => {
                        self.pauses.far.failed(now, self.patience.members_retry, &mut self.random);
                    }
                    _ => {}
                }
                let attempt = self.attempt_of(seen, epoch, prefer, reason);
                self.begin(now, Attempt { without, change, ..attempt }, out);
            }
            Step::Feed { epoch, leader, learners } if self.pauses.feeding.is_due(now) => {
                self.feed(now, Feed { epoch, leader, learners, moved: Vec::new(), standby: None }, &seen, out);
            }
            Step::HandOver { epoch, from, to, next }
                if self.pauses.hand_over.is_due(now) && self.is_due(now, Reason::HandOver, &seen, out) =>
            {
                let attempt = self.attempt_of(seen, next, Some(to), Reason::HandOver);
                self.begin(now, Attempt { asks: Some((epoch, from, to)), ..attempt }, out);
            }
            Step::Blocked(_) | Step::HandOver { .. } | Step::Feed { .. } => {}
        }
    }

    fn attempt_of(
        &mut self,
        seen: Vec<Option<ReplicaStatus>>,
        epoch: Epoch,
        prefer: Option<ReplicaId>,
        reason: Reason,
    ) -> Attempt {
        self.epochs.attempts += 1;
        let cluster = self.cluster(&seen);
        let Wish { replicas, quorum, .. } = self.plan.wish;
        Attempt {
            id: self.epochs.attempts,
            seen,
            epoch,
            prefer,
            without: None,
            change: None,
            reason,
            cluster,
            wished: Voters { replicas, quorum },
            handing: None,
            asks: None,
            is_reserved: false,
        }
    }

    /// Returns whether an epoch may begin for that, as far as one that did and came to nothing is long enough ago.
    fn is_due(&mut self, now: Millis, reason: Reason, seen: &[Option<ReplicaStatus>], out: &mut Vec<Action>) -> bool {
        let vain = match reason {
            Reason::QuorumLost => self.pauses.quorum,
            Reason::FarPromise => self.pauses.far,
            reason if attempt::is_change(reason) => self.pauses.members,
            _ => Retry::default(),
        };
        let is_wish = attempt::is_change(reason) || matches!(reason, Reason::QuorumChange | Reason::HandOver);
        vain.is_due(now) && (!is_wish || self.is_uncontested(now, seen, out))
    }

    /// Returns whether what is wished for may be tried, as far as other controllers are concerned: one that wishes for something else
    /// undoes it with an epoch of its own. Then both wait, longer and longer. A node that stood by wishes for nothing: it replaced a leader.
    fn is_uncontested(&mut self, now: Millis, seen: &[Option<ReplicaStatus>], out: &mut Vec<Action>) -> bool {
        let newest = seen.iter().flatten().filter_map(ReplicaStatus::begun).max_by_key(|last| last.epoch);
        if let (Some(begun), Some(newest)) = (&self.epochs.begun, newest)
            && newest.epoch > begun.epoch.max(self.epochs.appointed)
            && self.epochs.contested.is_none_or(|told| told < newest.epoch)
            && (&newest.voters, newest.quorum, newest.leader) != (&begun.voters, begun.quorum, begun.leader)
            && !self.is_by_standby(newest.epoch)
        {
            let epoch = newest.epoch;
            self.epochs.contested = Some(epoch);
            self.pauses.contested.failed(now, self.patience.contested_retry, &mut self.random);
            out.push(Action::Tell(Event::Contested { epoch }));
        }
        self.pauses.contested.is_due(now)
    }

    fn is_by_standby(&self, epoch: Epoch) -> bool {
        let leads_it = |told: &&NodeReport| told.seen.last.as_ref().is_some_and(|last| last.epoch == epoch);
        self.look.nodes.iter().filter_map(Node::told).filter(leads_it).any(|told| told.by_standby)
    }

    /// The record that is to be written: a cluster that a replica is part of, which forbids another bootstrap; who is seen to lead, for
    /// people; and the newest epoch, should the record have fallen behind, or be too high for long.
    fn record_of(&mut self, now: Millis, step: &Step, seen: &[Option<ReplicaStatus>]) -> Option<Recorded> {
        let newest = seen.iter().flatten().filter_map(ReplicaStatus::begun).map(|last| last.epoch).max();
        let written = self.record.recorded().epoch;
        self.plan.steady = match (step, newest) {
            (Step::Nothing, Some(epoch)) => {
                let known = self.plan.steady.filter(|(of, then, _)| (*of, *then) == (epoch, written));
                Some(known.unwrap_or((epoch, written, now)))
            }
            _ => None,
        };
        if self.is_alone() || matches!(step, Step::Blocked(Blocked::ForeignReplica { .. })) {
            return None;
        }
        let is_steady = |ms| self.plan.steady.is_some_and(|(.., since)| now.since(since) >= ms);
        if is_steady(CONTESTED_MS) {
            (self.pauses.contested, self.pauses.terms, self.epochs.begun) = (Retry::default(), Retry::default(), None);
        }
        let recorded = self.record.recorded();
        let promised = seen.iter().flatten().map(|seen| seen.promised).max().unwrap_or_default();
        let epoch = recorded.epoch.max(newest.unwrap_or_default());
        let epoch = if is_steady(STEADY_MS) && self.are_all_seen() { epoch.min(promised) } else { epoch };
        let found = seen.iter().flatten().find_map(|seen| seen.cluster);
        let leader = newest_leader(seen, epoch).or(recorded.leader);
        Some(Recorded { epoch, leader, cluster: recorded.cluster.or(found) })
    }

    /// Holds the invariants of the work under way.
    pub(super) fn check(&self) {
        self.record.check();
        let begun = self.epochs.begun.as_ref().map_or(Epoch(0), |begun| begun.epoch);
        debug_assert!(begun <= self.epochs.appointed, "an epoch began for which nobody was appointed");
        let may_reserve =
            matches!(self.work, Work::Reserving(_) | Work::Sealing(Attempt { is_reserved: false, .. }, _));
        debug_assert!(may_reserve || !self.record.is_reserving(), "an epoch is reserved for no attempt");
        assert!(self.attempt().is_none_or(|id| id <= self.epochs.attempts), "an attempt without a number");
        match &self.work {
            Work::Looking { begun, until } => assert!(begun <= until, "a look ends before it begins"),
            Work::Reserving(attempt) => {
                assert!(!attempt.is_reserved, "a reservation is waited for that is made");
                assert!(!self.is_alone(), "a node that stands by waits for a store");
                debug_assert!(self.record.is_reserving(), "a reservation is waited for that nobody makes");
            }
            Work::Sealing(attempt, answers) => {
                let answered = answers.sealed.len() + answers.refusals.len();
                assert!(answered + answers.missing <= attempt.seen.len(), "more answers than nodes are waited for");
                let is_reserving = attempt.is_reserved || self.record.is_reserving();
                debug_assert!(is_reserving, "a reservation is waited for that nobody makes");
                debug_assert!(attempt.asks.is_none(), "a leader is sealed before it has handed over");
            }
            Work::Appointing { attempt, choice, .. } => {
                assert!(attempt.is_reserved, "a leader is appointed in an epoch that is not reserved");
                assert!(attempt.epoch <= self.epochs.appointed, "an epoch may get a second candidate");
                assert!(!choice.bootstrap || !self.is_alone(), "a node that stands by begins a cluster");
            }
            Work::HandingOver { attempt, .. } => {
                debug_assert!(attempt.is_reserved, "appends are held up for an epoch that is not reserved");
                debug_assert!(attempt.handing.is_none(), "a leader hands over twice in an attempt");
            }
            Work::Resting | Work::Feeding { .. } => {}
        }
    }

    /// Holds what is true of what a step asks for.
    pub(super) fn check_asked(&self, attempt_before: u64, asked: &[Action]) {
        let is_of_store = |asked: &Action| matches!(asked, Action::Load { .. } | Action::Swap { .. });
        debug_assert!(!self.is_alone() || !asked.iter().any(is_of_store), "a node that stands by asks a store");
        let is_numbered = |asked: &Action| match asked {
            Action::Call { attempt, .. } => (attempt_before..=self.epochs.attempts).contains(attempt),
            Action::Look { look, .. } => *look == self.look.number,
            _ => true,
        };
        debug_assert!(asked.iter().all(is_numbered), "an answer is not told from one to an earlier question");
        let appoints = |asked: &&Action| matches!(asked, Action::Call { call: Call::Appoint { .. }, .. });
        debug_assert!(asked.iter().filter(appoints).count() <= 1, "two are appointed at a time");
    }

    fn are_all_seen(&self) -> bool {
        self.look.nodes.iter().all(|node| matches!(node, Node::Answered(_)))
    }
}

/// The leader of the newest epoch that is led, if it is that one or a newer one: any older is outdated.
fn newest_leader(seen: &[Option<ReplicaStatus>], epoch: Epoch) -> Option<ReplicaId> {
    let leads = |seen: &&ReplicaStatus| matches!(seen.role, ReplicaRole::Leader { .. });
    let led = |seen: &ReplicaStatus| seen.last.as_ref().map(|last| (last.epoch, seen.replica));
    let newest = seen.iter().flatten().filter(leads).filter_map(led).max()?;
    Some(newest).filter(|(led, _)| *led >= epoch).map(|(_, leader)| leader)
}
