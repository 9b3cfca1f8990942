//! A controller: looks at the nodes, plans the next step, and takes it. One machine for whoever controls a cluster; it does no I/O and
//! reads no clock. Its shells carry messages, keep the store and wake it in time.

mod attempt;
mod decide;
mod feed;
mod io;
mod patience;
#[cfg(test)]
mod patience_tests;
mod pause;
mod places;
mod record;
mod standby;
#[cfg(test)]
mod standby_tests;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Blocked, Recorded, ReplicaStatus, Rules, Step, Wish};
use crate::types::{ClusterId, Epoch, Millis, ReplicaId};
use attempt::{Answers, Attempt, Handing};
use feed::Feed;
pub use io::{Action, Answer, Call, Event, Failure, Input, NodeReport, Placed, StandbyTerms, Who};
pub use patience::{Patience, StorePatience};
pub use pause::Backoff;
use pause::{Random, Retry};
use places::Places;
use record::Record;
use standby::Standby;
pub use standby::StandbyTimes;

/// An answer that was given in time may be taken in so much later: others wait in front of it.
const ANSWER_LATE_MS: u64 = 50;

/// When something that came to nothing may be tried again.
#[derive(Clone, Debug, Default)]
struct Pauses {
    election: Retry,
    /// Appointments that were not carried out in time: the next one gets more.
    appoint: Retry,
    hand_over: Retry,
    /// Changes of the voters that came to nothing.
    members: Retry,
    /// Telling a leader whom to feed.
    feeding: Retry,
    /// Elections of one who may reach a quorum that the leader misses.
    quorum: Retry,
    /// Steps towards a promise that is far ahead.
    far: Retry,
    /// The pause for changes that another controller undoes.
    contested: Retry,
    /// By what the nodes stand by, where another controller tells them otherwise.
    terms: Retry,
}

/// The work under way.
#[derive(Clone, Debug)]
enum Work {
    Resting,
    Looking {
        begun: Millis,
        until: Millis,
    },
    Feeding {
        feed: Feed,
        attempt: u64,
        until: Millis,
    },
    HandingOver {
        attempt: Attempt,
        asked: Handing,
        until: Millis,
    },
    Reserving(Attempt),
    Sealing(Attempt, Answers),
    Appointing {
        attempt: Attempt,
        choice: crate::control::election::Choice,
        cluster: crate::types::ClusterId,
        until: Millis,
    },
}

/// The facts of a node, learned since the last look began.
#[derive(Clone, Debug)]
enum Node {
    Unknown,
    Silent,
    Answered(Box<NodeReport>),
}

impl Node {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    fn told(&self) -> Option<&NodeReport> {
        if let Self::Answered(told) = self { Some(told) } else { None }
    }
}

/// The newest look at the nodes.
#[derive(Clone, Debug)]
struct Look {
    nodes: Vec<Node>,
    /// Its number, and when the next one is due.
    number: u64,
    at: Millis,
}

/// The epochs that this controller began, or tried to.
#[derive(Clone, Debug, Default)]
struct Epochs {
    attempts: u64,
    /// The greatest epoch for which somebody was appointed, perhaps in vain: never another for the same.
    appointed: Epoch,
    /// The newest epoch that this one began, and what it began with.
    begun: Option<StartedEpoch>,
    /// The most nodes that had told their status when an election came to nothing, since one came to something or none was needed.
    told_in_vain: usize,
    /// The epoch that another one began after that, once it is told.
    contested: Option<Epoch>,
}

/// News that was told, and is not told twice.
#[derive(Clone, Debug, Default)]
struct Announced {
    /// The terms that it told the nodes to stand by last, and the epoch whose leader it told.
    terms: Option<(Epoch, StandbyTerms)>,
    blocked: Option<Blocked>,
    problem: Option<alloc::string::String>,
}

/// The wish, and the way there.
#[derive(Clone, Debug)]
struct Plan {
    wish: Wish,
    step: Step,
    needed: usize,
    /// Since when all is as wished, in one epoch, and that is written down.
    steady: Option<(Epoch, Epoch, Millis)>,
}

/// Keeps one cluster as it is wished. Holds nothing that a fresh machine would miss.
#[derive(Clone, Debug)]
pub struct Machine<R> {
    rules: R,
    patience: Patience,
    /// Set where it stands by.
    standby: Option<Standby>,
    random: Random,
    plan: Plan,
    look: Look,
    epochs: Epochs,
    places: Places,
    record: Record,
    work: Work,
    pauses: Pauses,
    announced: Announced,
}

/// The start of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
struct StartedEpoch {
    epoch: Epoch,
    leader: ReplicaId,
    voters: Vec<ReplicaId>,
    quorum: u32,
}

impl<R: Rules> Machine<R> {
    /// A controller that knows nothing yet. The seed makes its pauses and ids differ from others'.
    pub fn new(rules: R, patience: Patience, seed: u64) -> Self {
        Self {
            rules,
            patience,
            standby: None,
            random: Random(seed),
            plan: Plan { wish: Wish::default(), step: Step::Nothing, needed: 0, steady: None },
            look: Look { nodes: Vec::new(), number: 0, at: Millis(0) },
            epochs: Epochs::default(),
            places: Places::default(),
            record: Record::new(),
            work: Work::Resting,
            pauses: Pauses::default(),
            announced: Announced::default(),
        }
    }

    /// A node that acts where no controller does, without a store: it elects and hands over, and nothing else.
    pub fn standing_by(rules: R, patience: Patience, seed: u64, own: usize, times: StandbyTimes) -> Self {
        Self { standby: Some(Standby::new(own, times)), ..Self::new(rules, patience, seed) }
    }

    /// Sets the wish from the next look on, and the number of nodes.
    pub fn wish(&mut self, wish: Wish, nodes: usize) {
        self.plan.wish = wish;
        self.look.nodes.resize(nodes, Node::Unknown);
    }

    /// The record, as far as this controller knows.
    pub fn recorded(&self) -> &Recorded {
        self.record.recorded()
    }

    /// Why the store cannot be used, if so.
    pub fn store_problem(&self) -> Option<&alloc::string::String> {
        self.record.problem()
    }

    /// The last plan. An election or hand-over whose last try failed is planned again at once, and done after a pause.
    pub fn planned(&self) -> &Step {
        &self.plan.step
    }

    /// The number of nodes that have to run, the first ones; those behind may be stopped for good.
    pub fn needed(&self) -> usize {
        self.plan.needed
    }

    /// Returns whether nothing is under way but what is written behind.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.work, Work::Resting)
    }

    /// Returns whether nobody else is asked before it acts.
    fn is_alone(&self) -> bool {
        self.standby.is_some()
    }

    /// The cluster that calls are about: by the record, or the own replica of a standby, else what anybody says.
    fn cluster(&self, seen: &[Option<ReplicaStatus>]) -> Option<ClusterId> {
        let own = || self.standby.as_ref().and_then(|standby| standby.cluster(seen));
        let found = || seen.iter().flatten().find_map(|seen| seen.cluster);
        self.record.recorded().cluster.or_else(own).or_else(found)
    }

    /// When it has to be woken, if nothing comes before.
    pub fn deadline(&self) -> Option<Millis> {
        let work = match &self.work {
            Work::Resting => Some(self.look.at),
            Work::Looking { until, .. } if self.look.nodes.iter().any(Node::is_unknown) => Some(*until),
            Work::Feeding { until, .. } | Work::HandingOver { until, .. } | Work::Appointing { until, .. } => {
                Some(*until)
            }
            Work::Sealing(_, answers) if answers.missing > 0 => Some(answers.until),
            // Only the store is waited for.
            Work::Looking { .. } | Work::Reserving(_) | Work::Sealing(..) => None,
        };
        let deadline = work.into_iter().chain(self.record.deadline()).min();
        debug_assert!(deadline.is_some(), "nothing wakes it, whatever it waits for");
        deadline
    }

    /// Looks now, unless something is under way.
    pub fn look(&mut self, now: Millis, out: &mut Vec<Action>) {
        if !self.is_at_rest() {
            return;
        }
        self.look.number += 1;
        self.look.nodes.iter_mut().for_each(|node| *node = Node::Unknown);
        let within_ms = self.patience.call_ms;
        self.work =
            Work::Looking { begun: now, until: Millis(now.0.saturating_add(within_ms).saturating_add(ANSWER_LATE_MS)) };
        out.push(Action::Look { look: self.look.number, within_ms });
        if !self.is_alone() {
            self.record.refresh(now, self.patience.store.answer_ms, out);
        }
        self.looked(now, out);
    }

    /// Takes in a fact, and goes on.
    pub fn step(&mut self, now: Millis, input: Input, out: &mut Vec<Action>) {
        let within = (self.patience.store.answer_ms, self.patience.store.retry);
        let (look_before, attempt_before) = (self.look.number, self.epochs.attempts);
        let (appointed_before, others) = (self.epochs.appointed, out.len());
        let reserved = match input {
            Input::Tick => None,
            Input::Status { look, ordinal, told } => {
                if let Some(node) = self.look.nodes.get_mut(ordinal).filter(|_| look == self.look.number) {
                    *node = told.map_or(Node::Silent, Node::Answered);
                }
                self.hurry();
                None
            }
            Input::Loaded { op, result } => self.record.loaded(now, within, (op, result), &mut self.random, out),
            Input::Swapped { op, result } => self.record.swapped(now, within, (op, result), &mut self.random, out),
            Input::Answer { attempt, ordinal, answer } => {
                if self.attempt() == Some(attempt) {
                    self.answered(now, ordinal, answer, out);
                }
                None
            }
        };
        let reserved = reserved.or_else(|| self.record.tick(now, within.1, &mut self.random));
        if let Some(reserved) = reserved {
            self.reserved(now, reserved, out);
        }
        self.tell_problem(out);
        if matches!(self.work, Work::Looking { .. }) && !self.is_alone() && !self.record.is_ready() {
            // Somebody else has written meanwhile.
            self.record.refresh(now, self.patience.store.answer_ms, out);
        }
        self.time_out(now, out);
        self.looked(now, out);
        if self.is_at_rest() && now >= self.look.at {
            self.look(now, out);
        }
        assert!(look_before <= self.look.number, "the number of a look was given twice");
        assert!(attempt_before <= self.epochs.attempts, "the number of an attempt was given twice");
        assert!(appointed_before <= self.epochs.appointed, "an epoch may get a second candidate");
        self.check_asked(attempt_before, out.get(others..).unwrap_or_default());
        self.check();
    }

    /// Once more than half of the nodes have told their status, the others are not waited for much longer: one that hangs is not to
    /// hold up what they say.
    fn hurry(&mut self) {
        let told = self.look.nodes.iter().filter_map(Node::told).count();
        if let Work::Looking { begun, until } = &mut self.work
            && told > self.look.nodes.len() / 2
        {
            *until = (*until).min(Millis(begun.0.saturating_add(self.patience.look_grace_ms)));
        }
    }

    /// The number that answers have to name.
    fn attempt(&self) -> Option<u64> {
        match &self.work {
            Work::Resting | Work::Looking { .. } | Work::Reserving(_) => None,
            Work::Feeding { attempt, .. } => Some(*attempt),
            Work::HandingOver { attempt, .. } | Work::Sealing(attempt, _) | Work::Appointing { attempt, .. } => {
                Some(attempt.id)
            }
        }
    }

    fn answered(&mut self, now: Millis, ordinal: usize, answer: Answer, out: &mut Vec<Action>) {
        match &self.work {
            Work::Feeding { .. } => self.fed(now, answer, out),
            Work::HandingOver { .. } => self.handed_over(now, answer, out),
            Work::Sealing(..) => self.seal_answered(now, ordinal, answer, out),
            Work::Appointing { .. } => self.appoint_answered(now, answer, out),
            Work::Resting | Work::Looking { .. } | Work::Reserving(_) => {}
        }
    }

    fn time_out(&mut self, now: Millis, out: &mut Vec<Action>) {
        let late = || Answer::Failed(alloc::string::String::from("no answer in time"));
        match &self.work {
            Work::Looking { until, .. } if now >= *until => {
                let unknown = self.look.nodes.iter_mut().filter(|node| matches!(node, Node::Unknown));
                unknown.for_each(|node| *node = Node::Silent);
            }
            Work::Feeding { until, .. } if now >= *until => self.fed(now, late(), out),
            Work::HandingOver { until, .. } if now >= *until => self.handed_over(now, late(), out),
            Work::Appointing { until, .. } if now >= *until => self.appoint_answered(now, late(), out),
            Work::Sealing(..) => self.sealed(now, out),
            _ => {}
        }
    }

    /// Nothing is under way any more: looks again in a while.
    fn rest(&mut self, now: Millis) {
        self.work = Work::Resting;
        self.look.at = Millis(now.0.saturating_add(self.patience.look_ms));
    }

    fn tell_problem(&mut self, out: &mut Vec<Action>) {
        let problem = self.record.problem().cloned();
        if problem == self.announced.problem {
            return;
        }
        if let Some(why) = problem.clone() {
            out.push(Action::Tell(Event::StoreFailed { why }));
        }
        self.announced.problem = problem;
    }

    /// Decides once every node has answered or is silent, and what is written down is known as far as it can be.
    fn looked(&mut self, now: Millis, out: &mut Vec<Action>) {
        let is_known = !self.look.nodes.iter().any(Node::is_unknown);
        if matches!(self.work, Work::Looking { .. }) && is_known && (self.is_alone() || self.record.is_ready()) {
            self.rest(now);
            self.decide(now, out);
        }
    }

    fn seen(&self) -> Vec<Option<ReplicaStatus>> {
        self.look.nodes.iter().map(|node| node.told().map(|told| told.seen.clone())).collect()
    }
}
