//! The mistakes that controllers make: a rule that is broken, and what comes into their heads in place of the plan.

use std::cell::Cell;
use std::rc::Rc;

use zue_core::Epoch;
use zue_core::control::{Ballot, Reason, Recorded, ReplicaStatus, Rules, Step, Wish, plan};
use zue_core::election::{Change, Choice, NoChoice, choose};

use crate::breaks::Break;

/// An election that nothing asks for, of an epoch that may be taken, and a change of some replica, a voter or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whim {
    /// The distance from the next epoch, from two below on.
    pub(crate) epoch: u64,
    pub(crate) prefer: usize,
    pub(crate) changed: usize,
    /// Nothing, to add, or to remove.
    pub(crate) change: usize,
}

impl Whim {
    fn step(self, recorded: &Recorded, nodes: &[Option<ReplicaStatus>]) -> Step {
        let epoch = Epoch((next_epoch(recorded, nodes).0 + self.epoch).saturating_sub(2).max(1));
        let at = |ordinal: usize| nodes.get(ordinal).and_then(Option::as_ref).map(|seen| seen.replica);
        let first = nodes.iter().all(|seen| seen.as_ref().is_some_and(|seen| seen.begun().is_none()));
        let reason = if first { Reason::Bootstrap } else { Reason::NoLeader };
        let change = at(self.changed).filter(|_| self.change > 0);
        let change = change.map(if self.change == 1 { Change::Add } else { Change::Remove });
        Step::Elect { epoch, prefer: at(self.prefer), without: None, change, reason }
    }
}

/// The rules, one of them broken perhaps, and what comes into a controller's head in their place.
#[derive(Clone, Debug)]
pub(crate) struct PerhapsBroken {
    pub(crate) rule: Option<Break>,
    pub(crate) whim: Rc<Cell<Option<Whim>>>,
}

impl Rules for PerhapsBroken {
    fn plan(&self, wish: &Wish, recorded: &Recorded, nodes: &[Option<ReplicaStatus>]) -> Step {
        if let Some(whim) = self.whim.take() {
            return whim.step(recorded, nodes);
        }
        let mut step = plan(wish, recorded, nodes);
        if let (Step::Elect { epoch, .. } | Step::HandOver { next: epoch, .. }, Some(Break::EpochsNotClimbed)) =
            (&mut step, self.rule)
        {
            *epoch = next_epoch(recorded, nodes);
        }
        step
    }

    fn choose(&self, ballot: &Ballot<'_>) -> Result<Choice, NoChoice> {
        let Ballot { answers, prefer, quorum, change, .. } = *ballot;
        let mut first = ballot.first;
        if let (Some(Break::FirstOfWished), Some(first)) = (self.rule, &mut first) {
            first.listed = first.voters;
        }
        let chosen = choose(answers, prefer, first, quorum, change);
        match self.rule {
            None => chosen,
            Some(rule) => rule
                .choose(chosen.clone().ok(), prefer, change, answers)
                .ok_or(chosen.err().unwrap_or(NoChoice::NoAnswers)),
        }
    }

    fn skipped(&self, random: u64) -> u64 {
        if self.rule == Some(Break::EpochsNotSkipped) { 0 } else { random }
    }
}

fn next_epoch(recorded: &Recorded, seen: &[Option<ReplicaStatus>]) -> Epoch {
    let known = seen.iter().flatten().map(|seen| seen.promised).max().unwrap_or_default();
    Epoch(known.max(recorded.epoch).0 + 1)
}
