//! A process starts, works on its disk, and crashes.

use std::collections::BTreeMap;

use zue_core::{Lineage, Millis, Offset, Producers, Recovered, Replica, ReplicaId, Ticket};
use zue_engine::disk_queue::{Ahead, Task};
use zue_engine::driver::StreamAnswer;
use zue_engine::ring::Ring;

use super::{Process, Writer};
use crate::breaks::Break;
use crate::coverage::Fault;
use crate::disk::{Opened, Work, WorkError};
use crate::event::{Event, ProcessEvent};
use crate::message::Address;
use crate::node::drive::Driver;
use crate::node::maintenance::Maintenance;
use crate::params::MaintenanceParams;
use crate::world::{Machine, World};

impl World {
    pub(crate) fn start_process(&mut self, machine: usize) {
        let life = self.next_id();
        let limits = self.params.node.producer_limits;
        if self.dice.chance(self.params.disk.stop * 10.0) {
            let after = self.dice.between((0, 8));
            self.machine(machine).storage.fail_soon(after, true);
        }
        let compaction = self.params.node.maintenance.as_ref().and_then(|maintenance| maintenance.compaction);
        let Opened { mut recovered, records, gone, last_ms } =
            match self.machine(machine).storage.open(limits, compaction) {
                Ok(opened) => opened,
                Err(WorkError::Disk | WorkError::Full) => return self.crash_for_a_while(machine),
                Err(WorkError::Unusable) => {
                    self.machine(machine).storage.stop(None);
                    return self.replace_disk(machine);
                }
                Err(WorkError::Wrong(what)) => return self.check.violated(what),
            };
        self.check.recovered(&recovered, &records);
        self.check.are_gone(recovered.id, &gone);
        if recovered.suspect.is_some_and(|suspect| suspect.end == Offset(u64::MAX)) {
            self.counts.faults.count(Fault::AcksForgotten);
        }
        self.mistake(machine, life, &mut recovered);
        let is_named = recovered.cluster.is_some();
        let (log, commit_end, promise) = (recovered.log, recovered.commit_end, recovered.promise);
        self.trace.say(
            self.now,
            format_args!("{machine} starts with {log}, {commit_end} committed, {promise:?} ({:?})", recovered.id),
        );
        let reader = self.machine(machine).storage.log().reader();
        let maintenance = self.params.node.maintenance.as_ref().map(|params| Maintenance::new(reader, params));
        let standing = self.standing_of(machine);
        let replica = Replica::new(self.params.node.limits, recovered);
        if replica.is_seed() {
            self.counts.from_backup.restarts += u64::from(replica.lineage().starts > 2);
            self.counts.from_backup.died += u64::from(is_named);
        }
        let process = Process {
            life,
            driver: Driver::new(replica, last_ms),
            writer: Writer::default(),
            records,
            feeds: BTreeMap::new(),
            members: BTreeMap::new(),
            led: None,
            memory: Ring::new(self.params.node.memory_bytes),
            inbound: BTreeMap::new(),
            followed: None,
            maintenance,
            standing,
        };
        self.machine(machine).process = Some(process);
        self.restart_standby(machine);
        self.after_of(machine, (0, self.params.node.tick_ms), ProcessEvent::Tick);
        if let Some(MaintenanceParams { turn_ms, .. }) = self.params.node.maintenance {
            self.after_of(machine, (1, turn_ms), ProcessEvent::Maintenance);
        }
    }

    /// Spoils what a process has found on its disk, where a rule about that is to be broken.
    fn mistake(&mut self, machine: usize, life: u64, recovered: &mut Recovered) {
        let limits = self.params.node.producer_limits;
        if self.broken_by(Break::ForgetPromise) {
            recovered.promise = zue_core::Promise { epoch: recovered.log.epoch, leader: None };
        }
        if self.broken_by(Break::SuspectForgotten) {
            recovered.suspect = None;
        }
        if self.broken_by(Break::HoleTrusted) && recovered.damaged {
            recovered.producers = self.machine(machine).storage.producers_around_holes(limits);
            recovered.damaged = false;
        }
        if self.broken_by(Break::StartsForgotten) {
            recovered.starts.lineage = Lineage { starts: life, nonces: Vec::new() };
        }
        if self.broken_by(Break::RestartCommitsAll) {
            recovered.commit_end = recovered.log.end;
        }
        if self.broken_by(Break::RestoredForgotten) && recovered.cluster.is_none() {
            recovered.producers = Producers::new(limits);
        }
    }

    /// The process is gone, with whatever was not synced.
    pub(crate) fn crash(&mut self, machine: usize) {
        self.trace.say(self.now, format_args!("{machine} crashes"));
        // Sometimes only the process stops, and the machine goes on.
        let machine_too = self.dice.chance(0.7).then(|| self.dice.bits());
        self.counts.faults.count(if machine_too.is_some() { Fault::MachineStopped } else { Fault::ProcessKilled });
        let at = machine;
        self.counts.maintenance.interrupted += u64::from(self.machine(at).storage.is_rewriting());
        let machine = self.machine(machine);
        machine.process = None;
        machine.storage.stop(machine_too);
        machine.held = None;
        if self.params.faults.disks.restore > 0 && self.dice.chance(0.6) {
            self.machine(at).storage.copy();
        }
    }

    pub(crate) fn process_event(&mut self, machine: usize, event: ProcessEvent) {
        match event {
            ProcessEvent::Tick => {
                self.tick(machine);
                let tick_ms = self.params.node.tick_ms;
                self.after_of(machine, (tick_ms, tick_ms), ProcessEvent::Tick);
            }
            ProcessEvent::CommitNews { follower, session } => self.commit_news(machine, follower, session),
            ProcessEvent::Keep => self.keep_standby(machine),
            ProcessEvent::DiskWrite => self.disk_write(machine),
            ProcessEvent::DiskSync => self.disk_sync(machine),
            ProcessEvent::Maintenance => self.maintenance(machine),
            ProcessEvent::Crash => self.crash_for_a_while(machine),
            ProcessEvent::Persisted(ticket) => self.step(machine, zue_core::Input::Persisted(ticket)),
        }
    }

    // ---- the disk

    pub(crate) fn ask_disk(&mut self, machine: usize, ticket: Ticket, work: Work) {
        let early = match &work {
            Work::Write(_) => self.broken_by(Break::AckEarly),
            Work::Promise { .. } => self.broken_by(Break::PromiseEarly),
            Work::Reset(_) => self.broken_by(Break::ResetEarly),
            // Alone: what is asked for before it is not durable either.
            Work::Trim(_) => self.broken_by(Break::TrimEarly) && self.process(machine).is_some_and(|p| !p.writer.busy),
            Work::Runs(_) | Work::Restored | Work::Suspect(_) | Work::Cut(_) | Work::Done => false,
        };
        if early {
            self.after_of(machine, (0, 0), ProcessEvent::Persisted(ticket));
        }
        let write_ms = self.params.disk.write_ms;
        let Some(process) = self.process(machine) else { return };
        process.writer.queue.extend([Task { ticket, work, share: None }]);
        if !std::mem::replace(&mut process.writer.busy, true) {
            self.after_of(machine, write_ms, ProcessEvent::DiskWrite);
        }
    }

    fn disk_write(&mut self, machine: usize) {
        self.fail_soon(machine);
        let count = self.dice.index(self.params.disk.batch_max) + 1;
        let at = self.machine(machine);
        let Some(process) = &mut at.process else { return };
        let count = count.min(process.writer.queue.len());
        let mut written = Ok(());
        let mut left = count;
        while left > 0 {
            let done = match at.storage.write_first(process.writer.queue.works().take(left)) {
                Ok(done) => done,
                Err(error) => {
                    written = Err(error);
                    break;
                }
            };
            left -= done;
            for Task { ticket, .. } in (0..done).filter_map(|_| process.writer.queue.pop()) {
                process.writer.written = ticket;
            }
        }
        let full = matches!(written, Err(WorkError::Full));
        let turned = std::mem::replace(&mut process.writer.full, full) != full;
        let more = !process.writer.queue.is_empty();
        if turned {
            self.step(machine, zue_core::Input::DiskFull(full));
        }
        if full {
            self.trace.say(self.now, format_args!("{machine} has no room for what comes next"));
            self.go_ahead(machine);
        } else if !self.disk_did(machine, written) {
            return;
        }
        let disk = &self.params.disk;
        let (write_ms, sync_ms) = (disk.write_ms, disk.sync_ms);
        if more && !full && self.dice.chance(0.3) {
            return self.after_of(machine, write_ms, ProcessEvent::DiskWrite);
        }
        let slow = self.dice.chance(self.params.disk.slow_sync);
        if slow {
            self.counts.faults.count(Fault::SyncSlow);
        }
        let stall_ms = self.params.node.limits.sync.lag_ms_max;
        let sync_ms = match slow {
            true if self.dice.chance(0.05) => (stall_ms, 10 * stall_ms),
            true => (sync_ms.1, sync_ms.1 * 20),
            false => sync_ms,
        };
        self.after_of(machine, sync_ms, ProcessEvent::DiskSync);
    }

    /// Does what may go ahead of what waits for room.
    fn go_ahead(&mut self, machine: usize) {
        let at = self.machine(machine);
        let Some(process) = &mut at.process else { return };
        let storage = &mut at.storage;
        let write = |work: &Work| match work {
            Work::Trim(before) if *before > storage.tail().end => Ok(Ahead::NotNow),
            work => match storage.write(work) {
                Ok(()) => Ok(Ahead::Done),
                Err(WorkError::Full) => Ok(Ahead::NotNow),
                Err(error) => Err(error),
            },
        };
        match process.writer.queue.go_ahead(write) {
            Ok(promised) => {
                for ticket in promised {
                    self.step(machine, zue_core::Input::Promised(ticket));
                }
            }
            Err(error) => _ = self.disk_did(machine, Err(error)),
        }
    }

    fn disk_sync(&mut self, machine: usize) {
        self.fail_soon(machine);
        let mut synced = self.machine(machine).storage.sync();
        if synced.is_err() && self.broken_by(Break::FailedSyncIgnored) {
            synced = Ok(());
        }
        if !self.disk_did(machine, synced) {
            return;
        }
        if self.machine(machine).storage.flip_is_due() {
            self.flip_bit(machine);
        }
        let Some(process) = self.process(machine) else { return };
        process.writer.busy = !process.writer.queue.is_empty();
        let (ticket, busy) = (process.writer.written, process.writer.busy);
        if busy {
            self.after_of(machine, self.params.disk.write_ms, ProcessEvent::DiskWrite);
        }
        self.step(machine, zue_core::Input::Persisted(ticket));
        if self.broken_by(Break::LateAck) {
            self.ack_late(machine);
        }
    }

    /// Perhaps one of the next changes of the disk fails.
    pub(crate) fn fail_soon(&mut self, machine: usize) {
        let (fails, stops) = (self.dice.chance(self.params.disk.fail), self.dice.chance(self.params.disk.stop));
        if fails || stops {
            let after = self.dice.between((0, 5));
            self.machine(machine).storage.fail_soon(after, stops);
            self.counts.faults.count(if stops { Fault::StoppedInWrite } else { Fault::WriteFailed });
        }
    }

    /// Returns whether the disk did what was asked. If not, the replica is told, or the machine has stopped.
    pub(crate) fn disk_did(&mut self, machine: usize, done: Result<(), WorkError>) -> bool {
        match done {
            Ok(()) => return true,
            Err(WorkError::Wrong(why)) => self.check.violated(format!("machine {machine} cannot write: {why}")),
            Err(_) if self.dice.chance(0.5) => self.crash_for_a_while(machine),
            Err(_) => {
                self.trace.say(self.now, format_args!("{machine}'s disk fails"));
                if let Some(process) = self.process(machine) {
                    process.writer.queue.clear();
                }
                self.step(machine, zue_core::Input::DiskFailed);
                self.after(self.params.faults.lasts_ms, Event::Restart { machine });
            }
        }
        false
    }

    /// Breaks a rule: tells the last leader what is durable, whatever was promised since.
    fn ack_late(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        if let (Some(session), durable) = (process.followed, process.replica().durable()) {
            self.say(machine, session, StreamAnswer::Ack(durable, 0));
        }
    }

    /// The time on a machine's monotonic clock.
    pub(crate) fn clock(&self, machine: usize) -> Millis {
        let Some(Machine { clock, .. }) = self.machines.get(machine) else { return Millis(self.now) };
        Millis(self.now * clock.percent / 100 + clock.ahead_ms)
    }

    pub(crate) fn address_of(&self, replica: ReplicaId) -> Option<Address> {
        self.net.address_book.get(&replica).map(|machine| Address::Machine(*machine))
    }
}
