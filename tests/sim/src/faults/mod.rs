//! Faults, and how they are put right at the end.

mod forgotten;
pub(crate) mod losses;

use std::collections::BTreeSet;

use zue_core::ReplicaId;
use zue_core::control::Policy;
use zue_core::quorum::majority;

use crate::breaks::Break;
use crate::coverage::Fault;
use crate::disk::Storage;
use crate::event::{Event, ProcessEvent};
use crate::message::Address;
use crate::node::ages::Clock;
use crate::world::{Machine, World};

/// Its weight, and what it does.
type Kind = (u64, fn(&mut World));

impl World {
    pub(crate) fn fault(&mut self) {
        if self.healed {
            return;
        }
        let f = &self.params.faults;
        let kinds: [Kind; 15] = [
            (f.processes.crash, Self::crash_one),
            (f.processes.crash_all, Self::crash_all),
            (f.processes.pause, Self::pause_one),
            (f.processes.pause_controller, Self::pause_controller),
            (f.partitions.any, Self::partition),
            (f.disks.wipe, Self::wipe_one),
            (f.disks.restore, Self::restore_disk),
            (f.disks.flip, Self::flip_later),
            (f.disks.fill, Self::fill_disk),
            (f.clocks.wall, Self::jump_wall_clock),
            (f.clocks.monotonic, Self::jump_clock),
            (f.store.restore, Self::restore_store),
            (f.store.silence, Self::silence_store),
            (f.store.raise, Self::raise_record),
            (f.scale, Self::scale),
        ];
        let mut left = self.dice.between((1, kinds.iter().map(|(weight, _)| weight).sum()));
        let chosen = kinds.iter().find(|(weight, _)| {
            let hit = left <= *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        if let Some((_, kind)) = chosen {
            kind(self);
        }
        self.after(self.params.faults.pause_ms, Event::Fault);
    }

    fn some_machine(&mut self) -> usize {
        self.dice.index(self.machines.len())
    }

    // ---- processes and controllers

    pub(crate) fn crash_for_a_while(&mut self, machine: usize) {
        self.crash(machine);
        self.after(self.params.faults.lasts_ms, Event::Restart { machine });
    }

    /// Leaders more often than others: most of what is delicate is about them.
    fn crash_one(&mut self) {
        let leader = self.feeding();
        let machine = match leader {
            Some(leader) if self.dice.chance(0.4) => leader,
            _ => self.some_machine(),
        };
        self.crash_for_a_while(machine);
    }

    /// A machine that leads, or did until it was cut off.
    pub(crate) fn feeding(&self) -> Option<usize> {
        let leads = |machine: &usize| {
            let process = self.machines.get(*machine).and_then(|at| at.process.as_ref());
            process.is_some_and(|process| !process.feeds.is_empty())
        };
        (0..self.machines.len()).find(leads)
    }

    fn crash_all(&mut self) {
        for machine in 0..self.machines.len() {
            self.crash_for_a_while(machine);
        }
    }

    /// Starts a machine that is down or failed.
    pub(crate) fn restart(&mut self, machine: usize) {
        let failed = |role| role == zue_core::RoleView::Failed;
        let now = self.clock(machine);
        match self.process(machine) {
            Some(process) if !failed(process.replica().role(now)) => return,
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
            self.counts.faults.count(Fault::ProcessPaused);
            self.trace.say(self.now, format_args!("{machine} is paused"));
            self.after(self.params.faults.lasts_ms, Event::Resume { who: Address::Machine(machine) });
        }
    }

    /// It finds the world changed when it goes on in the middle of what it was doing.
    fn pause_controller(&mut self) {
        let controller = self.dice.index(self.controllers.len());
        if let Some(at) = self.controllers.get_mut(controller).filter(|at| at.held.is_none()) {
            at.held = Some(Vec::new());
            self.counts.faults.count(Fault::ControllerPaused);
            self.trace.say(self.now, format_args!("controller {controller} is paused"));
            self.after(self.params.faults.lasts_ms, Event::Resume { who: Address::Controller(controller) });
        }
    }

    pub(crate) fn resume(&mut self, who: Address) {
        let held = match who {
            Address::Machine(machine) => self.machine(machine).held.take(),
            Address::Controller(controller) => self.controllers.get_mut(controller).and_then(|at| at.held.take()),
            Address::Clients => None,
        };
        if held.is_some() {
            self.trace.say(self.now, format_args!("{who:?} goes on"));
        }
        for event in held.unwrap_or_default() {
            self.happen(event);
        }
    }

    // ---- the network

    /// Some cannot reach others for a while, perhaps only in one direction.
    fn partition(&mut self) {
        let everybody = |machines: usize, controllers: usize| {
            let controllers = (0..controllers).map(Address::Controller);
            (0..machines).map(Address::Machine).chain(controllers).chain([Address::Clients])
        };
        let mut all: Vec<_> = everybody(self.machines.len(), self.controllers.len()).collect();
        if self.dice.chance(self.params.faults.partitions.of_replicas) {
            // Only the replicas cannot reach one another.
            all.truncate(self.machines.len());
        }
        let mut side: BTreeSet<_> = all.iter().copied().filter(|_| self.dice.chance(0.4)).collect();
        if let Some(leader) = self.feeding().filter(|_| self.dice.chance(self.params.faults.partitions.of_leader)) {
            // Only its clients reach the leader.
            all.retain(|who| *who != Address::Clients);
            side = BTreeSet::from([Address::Machine(leader)]);
        }
        if side.is_empty() || side.len() == all.len() {
            return;
        }
        let one_way = self.dice.chance(0.3);
        let lasts = self.dice.between(self.params.faults.lasts_ms);
        self.counts.faults.count(if one_way { Fault::PartitionOneWay } else { Fault::PartitionBothWays });
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

    pub(crate) fn block(&mut self, from: Address, to: Address, lasts: u64) {
        *self.net.blocked.entry((from, to)).or_default() += 1;
        self.at(self.now + lasts, Event::Unblock { from, to });
    }

    pub(crate) fn unblock(&mut self, from: Address, to: Address) {
        if let Some(count) = self.net.blocked.get_mut(&(from, to)) {
            *count -= 1;
        }
        self.net.blocked.retain(|_, count| *count > 0);
    }

    // ---- disks

    /// Returns whether every electorate does without this replica and those that are lost already.
    pub(crate) fn is_dispensable(&self, replica: ReplicaId) -> bool {
        let survives = |(voters, quorum): &(Vec<ReplicaId>, usize)| {
            let lost = |id: &&ReplicaId| **id == replica || self.check.is_lost(**id);
            let left = voters.len() - voters.iter().filter(lost).count();
            left >= majority(voters.len()) && left >= *quorum
        };
        self.has_begun() && self.check.electorates().all(survives)
    }

    /// Empties a disk, as long as no electorate loses too many.
    fn wipe_one(&mut self) {
        let machine = self.some_machine();
        let id = self.machines_id(machine);
        if !self.may_be_hurt(id) {
            return;
        }
        self.counts.faults.count(Fault::DiskLost);
        self.crash(machine);
        self.replace_disk(machine);
    }

    fn machines_id(&mut self, machine: usize) -> ReplicaId {
        self.machine(machine).storage.id()
    }

    /// The machine, which is down, gets an empty disk.
    pub(crate) fn replace_disk(&mut self, machine: usize) {
        let old = self.machines_id(machine);
        self.check.lose(old);
        self.losses.lose(old);
        let id = if self.broken_by(Break::WipedKeepsId) { old } else { ReplicaId(self.dice.id()) };
        self.trace.say(self.now, format_args!("{machine} gets an empty disk, {old:?} is {id:?} now"));
        let seed = self.dice.bits();
        self.machine(machine).storage = Storage::new(id, seed);
        self.machine(machine).storage.keeps_trimmed = self.params.keeps_trimmed;
        self.machine(machine).storage.former.keeps_unpromised = self.params.faults.moments.forget_promise > 0.0;
        self.net.address_book.insert(id, machine);
        self.after(self.params.faults.lasts_ms, Event::Restart { machine });
    }

    /// The disk of a stopped machine is restored to a copy from before its last start, as long as no electorate loses too many and
    /// all others have written down that start.
    fn restore_disk(&mut self) {
        let may_be = |machine: &usize| {
            let Some(Machine { storage, .. }) = self.machines.get(*machine) else { return false };
            let (id, run) = (storage.id(), storage.last_run());
            let others = self.machines.iter().filter(|other| other.storage.id() != id);
            let known = |other: &Machine| other.storage.runs().get(id) == run;
            // With that rule broken they know of other starts than the disk has.
            let all_know = || self.broken_by(Break::StartsForgotten) || others.clone().all(known);
            run.is_some() && storage.has_old_copy() && self.is_dispensable(id) && all_know()
        };
        let able: Vec<usize> = (0..self.machines.len()).filter(may_be).collect();
        if able.is_empty() {
            return;
        }
        let chosen = self.dice.index(able.len());
        let machine = able.get(chosen).copied().unwrap_or_default();
        let id = self.machines_id(machine);
        self.crash(machine);
        let seed = self.dice.bits();
        self.machine(machine).storage.restore(seed);
        self.check.restore(id);
        self.losses.lose(id);
        self.counts.faults.count(Fault::DiskRestored);
        self.trace.say(self.now, format_args!("{machine}'s disk is restored to an old copy"));
        // What it has forgotten shows while the leader is away.
        let leader = self.feeding().filter(|leader| *leader != machine);
        if let Some(leader) = leader
            && self.dice.chance(0.7)
        {
            self.crash_for_a_while(leader);
        }
        self.after((0, 20), Event::Restart { machine });
    }

    fn flip_later(&mut self) {
        let (machine, random) = (self.some_machine(), self.dice.bits());
        self.machine(machine).storage.flip_later(random);
    }

    /// Flips a bit of what was synced long ago, as long as no electorate loses too many.
    pub(crate) fn flip_bit(&mut self, machine: usize) {
        let id = self.machines_id(machine);
        if !self.may_be_hurt(id) || self.healed {
            return;
        }
        if let Some(file) = self.machine(machine).storage.flip() {
            self.check.impair(id);
            let unreadable = self.machine(machine).storage.unreadable();
            self.losses.damage(id, unreadable);
            self.counts.faults.count(Fault::BitFlipped);
            self.trace.say(self.now, format_args!("a bit of {machine}'s {file} flips"));
            // It shows when the log is opened, and counts most if that replica leads next.
            if self.dice.chance(0.5) {
                let leader = self.feeding().filter(|leader| *leader != machine);
                for machine in leader.into_iter().chain([machine]) {
                    self.after_of(machine, (0, 40), ProcessEvent::Crash);
                }
            }
        }
    }

    fn fill_disk(&mut self) {
        let (machine, room) = (self.some_machine(), self.dice.index(9000));
        self.machine(machine).storage.set_room(Some(room));
        self.counts.faults.count(Fault::DiskFull);
        self.trace.say(self.now, format_args!("{machine} has {room} bytes of room left"));
        self.after(self.params.faults.lasts_ms, Event::DiskEmptied { machine });
    }

    pub(crate) fn empty_disk(&mut self, machine: usize) {
        self.machine(machine).storage.set_room(None);
    }

    pub(crate) fn check_electorate(&mut self, voters: &[ReplicaId]) {
        let quorum = zue_core::quorum::effective_quorum(voters.len(), self.params.wish.quorum);
        let quorum = usize::try_from(quorum).unwrap_or(usize::MAX);
        self.check.electorate(voters, quorum);
    }

    // ---- members

    /// Another number of replicas is wished for; the named leader is always one of them.
    fn scale(&mut self) {
        let least = if self.params.wish.policy == Policy::Static { self.params.wish.ordinal } else { 0 };
        let replicas = least + 1 + self.dice.index(self.machines.len() - least);
        if std::mem::replace(&mut self.params.wish.replicas, replicas) != replicas {
            self.counts.faults.count(Fault::MembersChanged);
            self.trace.say(self.now, format_args!("{replicas} replicas are wished for"));
        }
    }

    // ---- the end

    /// Puts everything right: what goes on from here must end well.
    pub(crate) fn heal(&mut self) {
        self.trace.say(self.now, format_args!("all is put right"));
        self.healed = true;
        self.net.blocked.clear();
        self.heal_store();
        let p = &mut self.params;
        (p.net.drop, p.net.duplicate, p.net.long_delay, p.net.wild_streams) = (0.0, 0.0, 0.0, false);
        (p.disk.fail, p.disk.stop, p.disk.slow_sync) = (0.0, 0.0, 0.0);
        let c = &mut p.control;
        (c.whim, c.stop) = (0.0, 0.0);
        c.store.be_well();
        (p.faults.moments.crash_leading, p.faults.moments.forget_promise, p.faults.moments.crash_trimmed) =
            (0.0, 0.0, 0.0);
        if let Some(maintenance) = &mut p.node.maintenance {
            // A pass over the log does not take for ever.
            (maintenance.piece_bytes, maintenance.answer_bytes, maintenance.answer_ms) = (1 << 20, 1 << 20, 500);
            // Of a long log each segment takes a few turns.
            (maintenance.turn_ms, maintenance.late_ms, maintenance.bytes_per_second) = (10, 10, 1 << 30);
        }
        c.call_timeout_ms = 500;
        // A change that needs an answer must not be put off for ever because it came a little late.
        c.seal_grace_ms = c.seal_grace_ms.max(200);
        // A stream must outlast a round trip, or nothing is ever copied.
        p.node.stream_timeout_ms = p.node.stream_timeout_ms.max(300);

        for controller in 0..self.controllers.len() {
            self.resume(Address::Controller(controller));
            self.replace_controller(controller);
        }
        for machine in 0..self.machines.len() {
            self.heal_machine(machine);
        }
    }

    fn heal_machine(&mut self, machine: usize) {
        self.resume(Address::Machine(machine));
        self.empty_disk(machine);
        let now = self.clock(machine);
        // It goes on at the right speed, and does not fall.
        let (liar, ahead_ms) = (self.params.clocks.liar, now.0.saturating_sub(self.now));
        let clock = &mut self.machine(machine).clock;
        // A wall clock that is wrong stays so.
        let wall_ms = if liar == Some(machine) { clock.wall_ms } else { Clock::RIGHT_MS };
        *clock = Clock { percent: 100, ahead_ms, wall_ms };
        let repairs = self.params.node.maintenance.is_some();
        let storage = &self.machine(machine).storage;
        let is_repaired = repairs && !storage.is_restored();
        if is_repaired && storage.harm.in_meta {
            // Only an open shows it.
            self.crash(machine);
        } else if (storage.is_damaged() && !is_repaired) || storage.is_restored() {
            if self.machine(machine).process.is_some() {
                self.crash(machine);
            }
            self.replace_disk(machine);
        }
        self.restart(machine);
        // A message that was lost inside a stream is missed only when another follows.
        self.close_feeds(machine);
    }
}
