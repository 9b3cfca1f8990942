//! Where controllers write down what they do: compare-and-swap, read late, refused, or restored from an old backup.

use zue_core::control::Recorded;

use crate::coverage::Fault;
use crate::world::{Event, World};

#[derive(Debug, Default)]
pub(crate) struct Status {
    now: Recorded,
    /// All values there ever were.
    past: Vec<Recorded>,
}

#[derive(Clone, Debug)]
pub(crate) enum StoreCall {
    Load,
    Swap { from: Recorded, to: Recorded },
}

#[derive(Clone, Debug)]
pub(crate) enum StoreAnswer {
    Loaded(Recorded),
    Swapped(bool),
}

impl World {
    pub(crate) fn call_store(&mut self, controller: usize, phase: u64, call: StoreCall) {
        self.after(self.params.control.store_ms, Event::StoreCall { controller, phase, call });
    }

    pub(crate) fn store_call(&mut self, controller: usize, phase: u64, call: StoreCall) {
        let control = &self.params.control;
        let (stale_read, refused, lost, store_ms) =
            (control.stale_read, control.refused_write, control.lost_answer, control.store_ms);
        let answer = match call {
            StoreCall::Load if !self.status.past.is_empty() && self.dice.chance(stale_read) => {
                self.counts.faults.count(Fault::StoreStale);
                let recent = self.dice.index(self.status.past.len().min(4));
                StoreAnswer::Loaded(self.status.past.iter().rev().nth(recent).cloned().unwrap_or_default())
            }
            StoreCall::Load => StoreAnswer::Loaded(self.status.now.clone()),
            StoreCall::Swap { from, to } => {
                let fails = self.dice.chance(refused);
                if fails {
                    self.counts.faults.count(Fault::StoreRefused);
                }
                let swapped = from == self.status.now && !fails;
                if swapped {
                    self.trace.say(self.now, format_args!("recorded: {to:?}"));
                    self.status.past.push(std::mem::replace(&mut self.status.now, to));
                }
                StoreAnswer::Swapped(swapped)
            }
        };
        if self.dice.chance(lost) {
            self.counts.faults.count(Fault::StoreSilent);
        } else {
            self.after(store_ms, Event::StoreAnswer { controller, phase, answer });
        }
    }

    /// The store is restored from a backup.
    pub(crate) fn restore_store(&mut self) {
        if !self.status.past.is_empty() {
            self.counts.faults.count(Fault::StoreRestored);
            let index = self.dice.index(self.status.past.len());
            let old = self.status.past.get(index).cloned().unwrap_or_default();
            self.trace.say(self.now, format_args!("the store is restored to {old:?}"));
            self.status.past.push(std::mem::replace(&mut self.status.now, old));
        }
    }
}
