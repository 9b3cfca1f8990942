//! The record is read, written, lost and restored.

use zue_core::control::Recorded;
use zue_core::{EPOCHS_AHEAD_MAX, Epoch};

use super::{StoreAnswer, StoreCall};
use crate::coverage::Fault;
use crate::event::Event;
use crate::params::StoreParams;
use crate::world::World;

impl World {
    pub(crate) fn call_store(&mut self, controller: usize, op: (u64, u64), call: StoreCall) {
        self.after(self.params.control.store.answer_ms, Event::StoreCall { controller, op, call });
    }

    pub(crate) fn store_call(&mut self, controller: usize, op: (u64, u64), call: StoreCall) {
        let StoreParams { stale_read, refused_write: refused, lost_answer: lost, answer_ms } =
            self.params.control.store;
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
                // A store may write and then say that it has not.
                if fails && self.dice.chance(0.5) { StoreAnswer::Refused } else { StoreAnswer::Swapped(swapped) }
            }
        };
        let is_away = self.now < self.status.away_until;
        if is_away || self.dice.chance(lost) {
            self.counts.faults.count(Fault::StoreSilent);
        } else {
            self.after(answer_ms, Event::StoreAnswer { controller, op, answer });
        }
    }

    /// The store answers nobody for a while: what it is asked, it may do all the same.
    pub(crate) fn silence_store(&mut self) {
        let lasts = 10 * self.dice.between(self.params.faults.lasts_ms);
        self.status.away_until = self.now + lasts;
        self.counts.faults.count(Fault::StoreAway);
        self.trace.say(self.now, format_args!("the store answers nobody for {lasts} ms"));
    }

    /// Somebody writes an epoch that was never reserved.
    pub(crate) fn raise_record(&mut self) {
        let epoch = Epoch(self.status.now.epoch.0 + self.dice.between((1, 2 * EPOCHS_AHEAD_MAX)));
        self.counts.faults.count(Fault::StoreRaised);
        self.trace.say(self.now, format_args!("the store is given epoch {epoch}"));
        let to = Recorded { epoch, ..self.status.now.clone() };
        self.status.past.push(std::mem::replace(&mut self.status.now, to));
    }

    pub(crate) fn heal_store(&mut self) {
        self.status.away_until = 0;
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
