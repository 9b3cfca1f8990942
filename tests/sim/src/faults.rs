//! What goes wrong, and how it is put right at the end.

use std::collections::BTreeSet;

use zue_core::ReplicaId;
use zue_core::quorum::majority;

use crate::message::Address;
use crate::params::Break;
use crate::storage::Storage;
use crate::world::{Event, World};

/// How likely it is, and what it does.
type Fault = (u64, fn(&mut World));

impl World {
    pub(crate) fn fault(&mut self) {
        if self.healed {
            return;
        }
        let f = &self.params.faults;
        let kinds: [Fault; 6] = [
            (f.crash, Self::crash_one),
            (f.crash_all, Self::crash_all),
            (f.pause, Self::pause_one),
            (f.partition, Self::partition),
            (f.wipe, Self::wipe_one),
            (f.restore_store, Self::restore_store),
        ];
        let mut left = self.dice.between((1, kinds.iter().map(|(weight, _)| weight).sum()));
        let chosen = kinds.iter().find(|(weight, _)| {
            let hit = left <= *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        self.counts.faults += 1;
        if let Some((_, kind)) = chosen {
            kind(self);
        }
        self.after(self.params.faults.pause_ms, Event::Fault);
    }

    fn some_machine(&mut self) -> usize {
        self.dice.index(self.machines.len())
    }

    pub(crate) fn crash_for_a_while(&mut self, machine: usize) {
        self.crash(machine);
        self.after(self.params.faults.lasts_ms, Event::Restart { machine });
    }

    /// Leaders more often than others: most of what is delicate is about them.
    fn crash_one(&mut self) {
        let leads = |machine: &usize| {
            let process = self.machines.get(*machine).and_then(|at| at.process.as_ref());
            process.is_some_and(|process| !process.feeds.is_empty())
        };
        let leader = (0..self.machines.len()).find(leads);
        let machine = match leader {
            Some(leader) if self.dice.chance(0.4) => leader,
            _ => self.some_machine(),
        };
        self.crash_for_a_while(machine);
    }

    fn crash_all(&mut self) {
        for machine in 0..self.machines.len() {
            self.crash_for_a_while(machine);
        }
    }

    /// Starts a machine that is down or failed.
    pub(crate) fn restart(&mut self, machine: usize) {
        let failed = |role| role == zue_core::RoleView::Failed;
        let now = self.millis();
        match self.process(machine) {
            Some(process) if !failed(process.replica.role(now)) => return,
            Some(_) => self.crash(machine),
            None => {}
        }
        self.start_process(machine);
    }

    fn pause_one(&mut self) {
        let machine = self.some_machine();
        let at = self.machine(machine);
        if at.process.is_some() && at.held.is_none() {
            at.held = Some(Vec::new());
            self.trace.say(self.now, format_args!("{machine} is paused"));
            self.after(self.params.faults.lasts_ms, Event::Resume { machine });
        }
    }

    pub(crate) fn resume(&mut self, machine: usize) {
        self.trace.say(self.now, format_args!("{machine} goes on"));
        for event in self.machine(machine).held.take().unwrap_or_default() {
            self.happen(event);
        }
    }

    /// Some cannot reach others for a while, perhaps only in one direction.
    fn partition(&mut self) {
        let everybody = |machines: usize, controllers: usize| {
            let controllers = (0..controllers).map(Address::Controller);
            (0..machines).map(Address::Machine).chain(controllers).chain([Address::Clients])
        };
        let all: Vec<_> = everybody(self.machines.len(), self.controllers.len()).collect();
        let side: BTreeSet<_> = all.iter().copied().filter(|_| self.dice.chance(0.4)).collect();
        let one_way = self.dice.chance(0.3);
        let lasts = self.dice.between(self.params.faults.lasts_ms);
        self.trace.say(self.now, format_args!("cut off for {lasts} ms: {side:?}, one way: {one_way}"));
        for a in &all {
            for b in all.iter().filter(|b| side.contains(a) && !side.contains(b)) {
                self.block(*a, *b, lasts);
                if !one_way {
                    self.block(*b, *a, lasts);
                }
            }
        }
    }

    fn block(&mut self, from: Address, to: Address, lasts: u64) {
        self.net.blocked.insert((from, to));
        self.at(self.now + lasts, Event::Unblock { from, to });
    }

    /// Empties a disk, as long as no electorate loses too many.
    fn wipe_one(&mut self) {
        let machine = self.some_machine();
        let old = self.machine(machine).storage.id();
        let survives = self.check.electorates().all(|(voters, quorum)| {
            let lost = |id: &&ReplicaId| **id == old || self.check.is_lost(**id);
            let left = voters.len() - voters.iter().filter(lost).count();
            left >= majority(voters.len()) && left >= *quorum
        });
        // Until something is committed, a cluster whose first leader is gone waits for a person.
        if !survives || self.machines.len() == 1 || self.check.committed_end() == zue_core::Offset(0) {
            return;
        }
        self.crash(machine);
        self.check.lose(old);
        let id = if self.broken_by(Break::WipedKeepsId) { old } else { ReplicaId(self.dice.id()) };
        self.trace.say(self.now, format_args!("{machine} loses its disk, {old:?} is {id:?} now"));
        let seed = self.dice.bits();
        self.machine(machine).storage = Storage::new(id, seed);
        self.homes.insert(id, machine);
        self.after(self.params.faults.lasts_ms, Event::Restart { machine });
    }

    pub(crate) fn check_electorate(&mut self, voters: &[ReplicaId]) {
        let quorum = zue_core::quorum::effective_quorum(voters.len(), self.params.wish.quorum);
        self.check.electorate(voters, usize::try_from(quorum).unwrap_or(usize::MAX));
    }

    /// Puts everything right: what goes on from here must end well.
    pub(crate) fn heal(&mut self) {
        self.trace.say(self.now, format_args!("all is put right"));
        self.healed = true;
        self.net.blocked.clear();
        let p = &mut self.params;
        (p.net.drop, p.net.duplicate, p.net.long_delay, p.net.wild_streams) = (0.0, 0.0, 0.0, false);
        (p.disk.fail, p.disk.stop, p.disk.slow_sync) = (0.0, 0.0, 0.0);
        let c = &mut p.control;
        (c.whim, c.stop, c.stale_read, c.refused_write, c.lost_answer) = (0.0, 0.0, 0.0, 0.0, 0.0);
        p.faults.crash_leading = 0.0;
        c.call_timeout_ms = 500;
        // A stream must outlast a round trip, or nothing is ever copied.
        p.stream_timeout_ms = p.stream_timeout_ms.max(300);

        for machine in 0..self.machines.len() {
            if self.machine(machine).held.is_some() {
                self.resume(machine);
            }
            self.restart(machine);
            // A message that was lost inside a stream is missed only when another follows.
            self.close_feeds(machine);
        }
    }
}
