//! Requests to a leader that is well: whom to feed beside the voters, where they are, and to hand over.

use alloc::vec::Vec;

use super::attempt::{Attempt, Handing};
use super::io::{Action, Answer, Call, Event, NodeReport, Placed, StandbyTerms, Who};
use super::pause::Retry;
use super::places::ordinal_of;
use super::{Machine, Node, Work};
use crate::control::{ReplicaRole, ReplicaStatus, Rules, Wish};
use crate::types::history::EpochStart;
use crate::types::{Epoch, Millis, ReplicaId};

/// Whom a leader is to feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Feed {
    /// The epoch it leads.
    pub(super) epoch: Epoch,
    pub(super) leader: ReplicaId,
    pub(super) learners: Vec<ReplicaId>,
    /// Voters that are elsewhere than it was told.
    pub(super) moved: Vec<ReplicaId>,
    /// By what the nodes are to stand by, if that is news.
    pub(super) standby: Option<StandbyTerms>,
}

impl<R: Rules> Machine<R> {
    /// The message to a leader. By what the nodes stand by only after a while, where another controller tells them otherwise.
    pub(super) fn news(&mut self, now: Millis, seen: &[Option<ReplicaStatus>], out: &mut Vec<Action>) -> Option<Feed> {
        let mut feed = self.untold(seen)?;
        let terms = feed.standby.take().map(|terms| (feed.epoch, terms));
        if terms.is_some() && self.announced.terms == terms {
            self.announced.terms = None;
            self.pauses.terms.failed(now, self.patience.contested_retry, &mut self.random);
            // Once may be an answer from before.
            if self.pauses.terms.failures() > 1 {
                out.push(Action::Tell(Event::TermsContested { epoch: feed.epoch }));
            }
        }
        feed.standby = terms.map(|(_, terms)| terms).filter(|_| self.pauses.terms.is_due(now));
        (!feed.moved.is_empty() || feed.standby.is_some()).then_some(feed)
    }

    /// The message to a leader that looks for voters where they are not: they were silent when it was appointed, and guessed at. Only
    /// of those that answer now, and that it does not reach. And by what the nodes stand by, if it knows that otherwise.
    fn untold(&self, seen: &[Option<ReplicaStatus>]) -> Option<Feed> {
        let leads = |told: &&NodeReport| matches!(told.seen.role, ReplicaRole::Leader { .. });
        let led = |told: &&NodeReport| told.seen.last.as_ref().map(|last| last.epoch);
        let leader = self.look.nodes.iter().filter_map(Node::told).filter(leads).max_by_key(led)?;
        let (ReplicaRole::Leader { followers, .. }, Some(start)) = (&leader.seen.role, &leader.seen.last) else {
            return None;
        };
        let elects = |id: &ReplicaId| start.elects(*id);
        let is_misled = |id: &ReplicaId| {
            let at = ordinal_of(seen, *id);
            let is_told = |ordinal| {
                leader
                    .members
                    .iter()
                    .any(|placed| placed.replica == *id && placed.ordinal == ordinal && placed.is_reachable)
            };
            leader.unreached.contains(id) && at.is_some_and(|ordinal| !is_told(ordinal))
        };
        let (electorate, learners): (Vec<_>, Vec<_>) = followers.iter().map(|(id, ..)| *id).partition(elects);
        let moved: Vec<ReplicaId> = electorate.into_iter().filter(is_misled).collect();
        let (epoch, leader) = (start.epoch, leader.seen.replica);
        let standby = self.standby_news(seen, start);
        (!moved.is_empty() || standby.is_some()).then_some(Feed { epoch, leader, learners, moved, standby })
    }

    /// By what the nodes are to stand by, once it is known of every voter that it can, and where it is; none if the leader knows that.
    /// One that is silent is where it was when the leader was told of it: it could then.
    fn standby_news(&self, seen: &[Option<ReplicaStatus>], start: &EpochStart) -> Option<StandbyTerms> {
        let after_ms = self.plan.wish.standby_after_ms.filter(|_| start.old_voters.is_none())?;
        let at = |ordinal: usize| self.look.nodes.get(ordinal).and_then(Node::told).filter(|told| told.can_stand_by);
        let leader = at(ordinal_of(seen, start.leader)?)?;
        let is_silent = |ordinal: usize| matches!(seen.get(ordinal), Some(None));
        let known = |voter: ReplicaId| {
            let mut known = leader.standby.iter().flat_map(|terms| &terms.members);
            known.find(|member| member.replica == voter && is_silent(member.ordinal)).map(|member| member.ordinal)
        };
        let mut members = Vec::new();
        for voter in &start.voters {
            let ordinal = match ordinal_of(seen, *voter) {
                Some(ordinal) => at(ordinal).map(|_| ordinal),
                None => known(*voter),
            };
            members.push(Placed { replica: *voter, ordinal: ordinal?, is_reachable: true });
        }
        members.sort_by_key(|member| member.ordinal);
        // Where the one to lead does not vote, it is none of them: a named leader is waited for, and nobody takes its place.
        let place = members.iter().position(|member| member.ordinal == self.plan.wish.ordinal);
        let preferred = place.unwrap_or(members.len());
        let Wish { policy, detection_ms, .. } = self.plan.wish;
        let terms = StandbyTerms { policy, preferred, detection_ms, after_ms, members };
        let has_these = |told: &NodeReport| told.standby.as_ref() == Some(&terms);
        // A voter keeps what was told in a later epoch than the leader's terms were, until they are told again in this one.
        let keeps_other = |told: &NodeReport| told.standby_epoch > leader.standby_epoch && !has_these(told);
        let mut voters = start.voters.iter().filter_map(|voter| at(ordinal_of(seen, *voter)?));
        (!has_these(leader) || voters.any(keeps_other)).then_some(terms)
    }

    /// Tells the leader whom to feed beside the voters, and where they are.
    pub(super) fn feed(&mut self, now: Millis, feed: Feed, seen: &[Option<ReplicaStatus>], out: &mut Vec<Action>) {
        let Some(ordinal) = ordinal_of(seen, feed.leader) else { return };
        let cluster = self.cluster(seen);
        let mut places = self.places.of(&feed.learners, seen);
        places.extend(self.places.of(&feed.moved, seen));
        let (learners, moved, standby) = (feed.learners.clone(), feed.moved.clone(), feed.standby.clone());
        debug_assert!(self.is_at_rest(), "a leader is told whom to feed beside other work");
        debug_assert!(!self.is_alone(), "a node that stands by tells a leader whom to feed");
        self.epochs.attempts += 1;
        let (attempt, within_ms, target) = (self.epochs.attempts, self.patience.call_ms, feed.leader);
        let call = Call::Learners { cluster, epoch: feed.epoch, learners, moved, places, standby };
        out.push(Action::Call { attempt, ordinal, target, call, within_ms });
        self.work = Work::Feeding { feed, attempt, until: Millis(now.0.saturating_add(within_ms)) };
    }

    pub(super) fn fed(&mut self, now: Millis, answer: Answer, out: &mut Vec<Action>) {
        let Work::Feeding { feed, .. } = core::mem::replace(&mut self.work, Work::Resting) else { return };
        if let (Answer::Fed, Some(terms)) = (&answer, &feed.standby) {
            self.announced.terms = Some((feed.epoch, terms.clone()));
        }
        match answer {
            // It is given time to get through to them.
            Answer::Fed if !feed.moved.is_empty() => {
                self.pauses.feeding.failed(now, self.patience.election_retry, &mut self.random);
            }
            Answer::Fed => self.pauses.feeding = Retry::default(),
            answer => {
                let why = answer.into_why();
                self.pauses.feeding.failed(now, self.patience.election_retry, &mut self.random);
                let leader = Who { replica: feed.leader, ordinal: ordinal_of(&self.seen(), feed.leader) };
                out.push(Action::Tell(Event::LearnersRefused { leader, why }));
            }
        }
        self.rest(now);
    }

    pub(super) fn hand_over(
        &mut self,
        now: Millis,
        attempt: Attempt,
        epoch: Epoch,
        (from, to): (ReplicaId, ReplicaId),
        out: &mut Vec<Action>,
    ) {
        let asked = Handing { from: attempt.who(from), to: attempt.who(to), begun: now };
        let Some(ordinal) = asked.from.ordinal else { return };
        let deadline_ms = self.patience.handover_deadline_ms;
        let within_ms = deadline_ms.saturating_add(self.patience.call_ms);
        let call = Call::HandOver { cluster: attempt.cluster, epoch, to, deadline_ms };
        out.push(Action::Call { attempt: attempt.id, ordinal, target: from, call, within_ms });
        self.work = Work::HandingOver { attempt, asked, until: Millis(now.0.saturating_add(within_ms)) };
    }

    pub(super) fn handed_over(&mut self, now: Millis, answer: Answer, out: &mut Vec<Action>) {
        let Work::HandingOver { mut attempt, asked, .. } = core::mem::replace(&mut self.work, Work::Resting) else {
            return;
        };
        match answer {
            Answer::HandedOver => {
                // What answers the hand-over does not answer the seal.
                self.epochs.attempts += 1;
                attempt.id = self.epochs.attempts;
                attempt.handing = Some(asked);
                self.seal(now, attempt, out);
            }
            answer => {
                self.hand_over_failed(now, (asked.from, asked.to), Some(answer.into_why()), out);
                self.rest(now);
            }
        }
    }
}
