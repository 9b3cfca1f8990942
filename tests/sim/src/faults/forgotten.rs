//! A disk that forgets a promise and nothing else: it is put back to what it was just before. No start of the disk lies between, so
//! nobody can tell.
//!
//! Where a lower epoch than the forgotten one begins with that disk's promise, or is led on, what commits in it is lost to the log that
//! ends in the forgotten one: nothing guards against that. So what is forgotten here is only a promise of the epoch right above the one
//! that was promised before, whose leader is gone. Each later epoch is that one or a higher one. It must not be that one: it is written
//! down, or passed over. No epoch is drawn twice by chance here, as it may be outside, once in 1,024 times.

use zue_core::{Epoch, RoleView};

use crate::coverage::Fault;
use crate::event::Event;
use crate::message::Address;
use crate::world::World;

impl World {
    /// A leader begins, and nobody but clients hears of it for a while, nor of controllers. Meanwhile one that had promised its epoch
    /// forgets that.
    pub(crate) fn cut_off_leader(&mut self, machine: usize, epoch: Epoch) {
        let lasts = self.dice.between((300, 3000));
        self.trace.say(self.now, format_args!("{machine} is cut off for {lasts} ms"));
        let machines = (0..self.machines.len()).map(Address::Machine);
        for other in machines.clone().filter(|other| *other != Address::Machine(machine)) {
            self.part(Address::Machine(machine), other, lasts);
        }
        for controller in (0..self.controllers.len()).map(Address::Controller) {
            for other in machines.clone() {
                self.part(controller, other, lasts);
            }
        }
        self.counts.faults.count(Fault::PartitionBothWays);
        self.after((0, 60), Event::Forget { epoch });
    }

    fn part(&mut self, a: Address, b: Address, lasts: u64) {
        self.block(a, b, lasts);
        self.block(b, a, lasts);
    }

    /// One that had promised the epoch forgets it, if that can do no other harm.
    pub(crate) fn forget_promise(&mut self, epoch: Epoch) {
        let may_forget = |machine: &usize| self.may_forget(*machine, epoch);
        let Some(machine) = (0..self.machines.len()).find(may_forget).filter(|_| !self.healed) else { return };
        self.crash(machine);
        let (seed, at) = (self.dice.bits(), self.machine(machine));
        let id = at.storage.id();
        at.storage.forget_promise(seed);
        let promise = at.storage.must.promise;
        self.check.forgets(id, promise.epoch);
        self.counts.faults.count(Fault::PromiseForgotten);
        self.trace.say(self.now, format_args!("{machine} forgets that it promised {epoch}: {promise:?} is left"));
        self.after((0, 20), Event::Restart { machine });
    }

    fn may_forget(&self, machine: usize, epoch: Epoch) -> bool {
        let before = self.machines.get(machine).filter(|at| at.process.is_some());
        let Some(before) = before.and_then(|at| at.storage.promise_before(epoch)) else { return false };
        let leads_before = |machine: usize| {
            let process = self.machines.get(machine).and_then(|at| at.process.as_ref());
            process.is_some_and(|process| {
                let leads = matches!(process.replica().role(self.clock(machine)), RoleView::Leader { .. });
                leads && process.replica().log().epoch < epoch
            })
        };
        // Whom it has promised the epoch before led, and leads no more.
        before.epoch.0 + 1 == epoch.0 && self.check.was_led(before.epoch) && !(0..self.machines.len()).any(leads_before)
    }
}
