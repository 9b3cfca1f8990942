//! The record, and one operation on it at a time. An epoch is reserved beside the seal; all else is written behind.

use alloc::string::String;
use alloc::vec::Vec;

use super::io::Action;
use super::pause::{Backoff, Random, Retry};
use crate::control::Recorded;
use crate::types::{Epoch, Millis};

/// The result of the reservation of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reserved {
    Done,
    /// Somebody else wrote meanwhile.
    Conflict,
    /// The store does not answer, or refuses.
    Failed(String),
}

#[derive(Clone, Debug)]
enum Doing {
    Nothing,
    Loading,
    Swapping { to: Recorded, reserves: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The record when it was last known.
    last: Recorded,
    /// True if that is there still, for all that is known.
    is_known: bool,
    doing: Doing,
    /// The number of that, and when it is given up.
    op: u64,
    until: Millis,
    /// The epoch to reserve once what is under way is done, and what was there when that was decided.
    wanted: Option<(Epoch, Recorded)>,
    /// Why nothing could be read or written last.
    problem: Option<String>,
    /// The record that could not be written, if that is why.
    unwritten: Option<Recorded>,
    retry: Retry,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            last: Recorded::default(),
            is_known: false,
            doing: Doing::Nothing,
            op: 0,
            until: Millis(0),
            wanted: None,
            problem: None,
            unwritten: None,
            retry: Retry::default(),
        }
    }

    /// The record, as far as is known.
    pub(super) fn recorded(&self) -> &Recorded {
        &self.last
    }

    /// Returns whether the store did not answer last: nothing waits for it.
    pub(super) fn is_away(&self) -> bool {
        self.problem.is_some()
    }

    /// Why, if so.
    pub(super) fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }

    /// Returns whether an epoch is reserved, or is to be next.
    pub(super) fn is_reserving(&self) -> bool {
        self.wanted.is_some() || matches!(self.doing, Doing::Swapping { reserves: true, .. })
    }

    /// Holds the invariants of the operation under way.
    pub(super) fn check(&self) {
        let (is_known, reserves) = match &self.doing {
            Doing::Nothing => (self.is_known, false),
            Doing::Loading => (false, false),
            Doing::Swapping { reserves, .. } => (true, *reserves),
        };
        assert_eq!(self.is_known, is_known, "what is known is read, or what is not is replaced");
        debug_assert!(self.wanted.is_none() || !reserves, "two epochs are reserved at a time");
        let is_doing = !matches!(self.doing, Doing::Nothing);
        debug_assert!(self.wanted.is_none() || is_doing, "an epoch is to be reserved after nothing");
        debug_assert!(self.unwritten.is_none() || self.is_away(), "a store is well that could not be written");
    }

    /// Returns whether there is nothing to wait for before something is decided.
    pub(super) fn is_ready(&self) -> bool {
        self.is_known || self.is_away()
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        if matches!(self.doing, Doing::Nothing) { None } else { Some(self.until) }
    }

    /// Reads it again, if it is not known and it is time.
    pub(super) fn refresh(&mut self, now: Millis, within_ms: u64, out: &mut Vec<Action>) {
        if !self.is_known && matches!(self.doing, Doing::Nothing) && self.retry.is_due(now) {
            self.begin(now, within_ms, Doing::Loading);
            out.push(Action::Load { op: self.op });
        }
    }

    /// Writes that behind, if nothing else is under way.
    pub(super) fn keep(&mut self, now: Millis, within_ms: u64, to: Recorded, out: &mut Vec<Action>) {
        if !self.is_known || !matches!(self.doing, Doing::Nothing) {
            return;
        }
        if to == self.last {
            (self.problem, self.unwritten) = (None, None);
        } else if self.retry.is_due(now) {
            self.swap(now, within_ms, to, false, out);
        }
    }

    /// Reserves an epoch: at once, or as soon as what is under way is done.
    pub(super) fn reserve(&mut self, now: Millis, within_ms: u64, epoch: Epoch, out: &mut Vec<Action>) {
        self.wanted = Some((epoch, self.last.clone()));
        self.until = self.until.min(Millis(now.0.saturating_add(within_ms)));
        self.go_on(now, within_ms, out);
    }

    /// Drops the reservation of an attempt that has ended.
    pub(super) fn abandon(&mut self) {
        self.wanted = None;
        if let Doing::Swapping { reserves, .. } = &mut self.doing {
            *reserves = false;
        }
    }

    fn go_on(&mut self, now: Millis, within_ms: u64, out: &mut Vec<Action>) -> Option<Reserved> {
        if !matches!(self.doing, Doing::Nothing) {
            return None;
        }
        let (epoch, from) = self.wanted.take()?;
        if !self.is_known {
            self.wanted = Some((epoch, from));
            self.begin(now, within_ms, Doing::Loading);
            out.push(Action::Load { op: self.op });
            return None;
        }
        if self.last.epoch != from.epoch {
            return Some(Reserved::Conflict);
        }
        let to = Recorded { epoch, ..self.last.clone() };
        self.swap(now, within_ms, to, true, out);
        None
    }

    fn swap(&mut self, now: Millis, within_ms: u64, to: Recorded, reserves: bool, out: &mut Vec<Action>) {
        let from = self.last.clone();
        assert!(self.is_known, "what is there is replaced, and not known");
        debug_assert!(from.cluster.is_none() || to.cluster == from.cluster, "a recorded cluster is forgotten");
        self.begin(now, within_ms, Doing::Swapping { to: to.clone(), reserves });
        out.push(Action::Swap { op: self.op, from, to });
    }

    fn begin(&mut self, now: Millis, within_ms: u64, doing: Doing) {
        assert!(matches!(self.doing, Doing::Nothing), "two operations on the record at a time");
        debug_assert!(
            self.wanted.is_none() || matches!(doing, Doing::Loading),
            "a reservation waits for another write"
        );
        self.op += 1;
        self.until = Millis(now.0.saturating_add(within_ms));
        self.doing = doing;
    }

    pub(super) fn loaded(
        &mut self,
        now: Millis,
        (within_ms, backoff): (u64, Backoff),
        (op, result): (u64, Result<Recorded, String>),
        random: &mut Random,
        out: &mut Vec<Action>,
    ) -> Option<Reserved> {
        if op != self.op || !matches!(self.doing, Doing::Loading) {
            return None;
        }
        self.doing = Doing::Nothing;
        match result {
            Ok(recorded) => {
                // A store that can be read may still not be written.
                if self.unwritten.as_ref().is_none_or(|unwritten| *unwritten == recorded) {
                    (self.problem, self.unwritten, self.retry) = (None, None, Retry::default());
                }
                (self.last, self.is_known) = (recorded, true);
                self.go_on(now, within_ms, out)
            }
            Err(why) => self.failed(now, backoff, why, random),
        }
    }

    pub(super) fn swapped(
        &mut self,
        now: Millis,
        (within_ms, backoff): (u64, Backoff),
        (op, result): (u64, Result<bool, String>),
        random: &mut Random,
        out: &mut Vec<Action>,
    ) -> Option<Reserved> {
        if op != self.op {
            return None;
        }
        let Doing::Swapping { to, reserves } = core::mem::replace(&mut self.doing, Doing::Nothing) else { return None };
        match result {
            Ok(true) => {
                // What this one has written behind is no other's.
                if let Some((_, from)) = &mut self.wanted {
                    from.epoch = to.epoch;
                }
                (self.last, self.problem, self.unwritten, self.retry) = (to, None, None, Retry::default());
                if reserves { Some(Reserved::Done) } else { self.go_on(now, within_ms, out) }
            }
            Ok(false) => {
                (self.is_known, self.problem, self.unwritten) = (false, None, None);
                if reserves { Some(Reserved::Conflict) } else { self.go_on(now, within_ms, out) }
            }
            Err(why) => {
                // It may have been written all the same.
                (self.is_known, self.unwritten) = (false, Some(to));
                let failed = self.failed(now, backoff, why.clone(), random);
                if reserves { Some(Reserved::Failed(why)) } else { failed }
            }
        }
    }

    /// Gives up what takes too long.
    pub(super) fn tick(&mut self, now: Millis, backoff: Backoff, random: &mut Random) -> Option<Reserved> {
        if now < self.until {
            return None;
        }
        let reserves = match core::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => return None,
            Doing::Loading => false,
            Doing::Swapping { to, reserves } => {
                self.unwritten = Some(to);
                reserves
            }
        };
        self.is_known = false;
        let why = String::from("no answer in time");
        let failed = self.failed(now, backoff, why.clone(), random);
        if reserves { Some(Reserved::Failed(why)) } else { failed }
    }

    fn failed(&mut self, now: Millis, backoff: Backoff, why: String, random: &mut Random) -> Option<Reserved> {
        self.retry.failed(now, backoff, random);
        self.problem = Some(why.clone());
        self.wanted.take().map(|_| Reserved::Failed(why))
    }
}
