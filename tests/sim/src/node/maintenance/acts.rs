//! The maintenance takes its turns; questions and answers travel.

use zue_core::{Aged, ClusterId, Input, Offset, ReplicaId, RoleView};
use zue_engine::maintenance::{Ask, Event as Happened, Facts, Unanswered};
use zue_engine::room::Access as _;
use zue_log::{Excerpt, Log, LogError, ReadError};

use super::{Maintenance, settings};
use crate::breaks::Break;
use crate::check::Judge;
use crate::disk::{WorkError, work_error};
use crate::event::{Event, ProcessEvent};
use crate::message::{Address, Answer, Call, Caller, Message};
use crate::node::ages::Which;
use crate::node::process::Process;
use crate::world::World;

impl World {
    /// Does what comes next, and again later.
    pub(crate) fn maintenance(&mut self, machine: usize) {
        let Some(late_ms) = self.params.node.maintenance.as_ref().map(|params| params.late_ms) else { return };
        let life = self.process(machine).map(|process| process.life);
        let waits_ms = self.look_after(machine, None).max(1);
        if life == self.process(machine).map(|process| process.life) {
            self.after_of(machine, (waits_ms, waits_ms + late_ms), ProcessEvent::Maintenance);
        }
    }

    /// Lets the maintenance take its turn, or an answer; how long it waits then.
    fn look_after(&mut self, machine: usize, answer: Option<(u64, Result<Excerpt, Unanswered>)>) -> u64 {
        let now = self.clock(machine);
        let Some(settings) = self.params.node.maintenance.as_ref().map(|params| settings(params, self.healed)) else {
            return 0;
        };
        let is_failed = |process: &Process| process.replica().role(now) == RoleView::Failed;
        if self.process(machine).is_none_or(|process| is_failed(process)) {
            return settings.turn_ms;
        }
        self.fail_soon(machine);
        let mut done = self.write_commit_now_and_then(machine);
        let (aged, deletes) = (self.aged(machine, Which::Retention), self.aged(machine, Which::Deletes));
        let (others, go_early) = (self.others(machine), self.broken_by(Break::DeletesGoEarly));
        let backed_up = self.held_from(machine).filter(|_| !self.broken_by(Break::BackupsPassedOver));
        let at = self.machine(machine);
        let Some(process) = at.process.as_mut() else { return settings.turn_ms };
        let facts = Facts {
            now,
            committed: process.driver.replica().commit_end(),
            aged: aged.map_or(Aged::unknown(), |(aged, _)| aged),
            deletes: match deletes {
                _ if go_early => Aged::by_timestamps(u64::MAX),
                deletes => deletes.map_or(Aged::unknown(), |(aged, _)| aged),
            },
            others: Some(&others),
            backed_up,
        };
        let mut events = Vec::new();
        let Some(Maintenance { engine, .. }) = &mut process.maintenance else { return settings.turn_ms };
        engine.settings = settings;
        let waits = match answer {
            Some((number, answer)) => engine.answered(number, answer, &facts, &mut at.storage, &mut events),
            None => engine.turn(&facts, &mut at.storage, &mut events),
        };
        for event in events {
            done = done.and(self.take(machine, event, (aged.map(|(_, judge)| judge), deletes)));
        }
        if self.machine(machine).storage.disk.has_stopped() {
            done = Err(WorkError::Disk);
        }
        // A full disk is for later.
        if !matches!(done, Err(WorkError::Full)) {
            self.disk_did(machine, done);
        }
        u64::try_from(waits.as_millis()).unwrap_or(u64::MAX)
    }

    /// Perhaps what is committed is written down, as a node's disk does it each second.
    fn write_commit_now_and_then(&mut self, machine: usize) -> Result<(), WorkError> {
        let (due, all) = (self.dice.chance(0.2), self.broken_by(Break::CompactUncommitted));
        let storage = &mut self.machine(machine).storage;
        if all {
            // What is durable is taken for committed.
            storage.note_commit(storage.tail().end);
        }
        if due || all { storage.change(Log::write_commit).map_err(work_error) } else { Ok(()) }
    }

    /// The others who may have what is damaged here.
    fn others(&mut self, machine: usize) -> Vec<ReplicaId> {
        let id = self.machine(machine).storage.id();
        let start = self.process(machine).and_then(|process| process.replica().history().last());
        let voters = start.map(|start| start.voters.clone()).unwrap_or_default();
        voters.into_iter().filter(|voter| *voter != id).collect()
    }

    /// Does what the maintenance asks for, and judges what it has done.
    fn take(
        &mut self,
        machine: usize,
        event: Happened,
        (by_age, deletes): (Option<Judge>, Option<(Aged, Judge)>),
    ) -> Result<(), WorkError> {
        let (limits, kept) = (self.params.node.producer_limits, &mut self.counts.maintenance);
        let storage = &mut self.machines.get_mut(machine).expect("a machine of this world").storage;
        match event {
            Happened::Ask(ask) => self.ask_other(machine, ask),
            Happened::Expired(before) => self.expired(machine, before, by_age),
            Happened::Damaged(found) => {
                self.trace.say(self.now, format_args!("{machine} is damaged: {found:?}"));
                let is_told = found.ranges > 0 && !self.broken_by(Break::DamageForgotten);
                self.step(machine, Input::Damaged(is_told));
            }
            // Nothing has changed for want of room, or of a file to read.
            Happened::Failed(LogError::NoRoom(_) | LogError::Read(ReadError::Disk(_))) => return Err(WorkError::Full),
            Happened::Failed(error) => return Err(work_error(error)),
            Happened::Repaired(damage, missing, still) => {
                storage.flip = None;
                (kept.repairs, kept.restored) =
                    (kept.repairs + 1, kept.restored + count(&missing).saturating_sub(count(&still)));
                let (id, gone) = (storage.id(), storage.compare(limits)?);
                self.check.are_gone(id, &gone);
                self.trace.say(self.now, format_args!("{machine} has repaired {damage}: {missing:?}, but {still:?}"));
            }
            Happened::Compacts => {
                self.trace.say(self.now, format_args!("{machine} compacts"));
                if let Some((aged, judge)) = deletes {
                    self.check.deletes_may_go(&judge, &aged);
                }
            }
            Happened::Compacted(taken) => {
                storage.flip = None;
                kept.compacted += u64::from(taken);
            }
            Happened::CompactionDone => kept.compactions += 1,
            Happened::Checked(checked) => {
                if let Some(damage) = checked.damage.filter(|_| !storage.is_damaged()) {
                    return Err(WorkError::Wrong(format!("it is taken for damaged: {damage}")));
                }
            }
            Happened::CheckedAll if storage.mend(limits)? => self.mended(machine),
            Happened::CheckedAll | Happened::CompactedBytes(_) | Happened::Found(_) | Happened::Trimmed { .. } => {}
            event => self.trace.say(self.now, format_args!("{machine}'s maintenance: {event:?}")),
        }
        Ok(())
    }

    /// Notes that what was damaged is whole: it counts again.
    fn mended(&mut self, machine: usize) {
        let storage = &self.machine(machine).storage;
        let (id, is_restored) = (storage.id(), storage.is_restored());
        self.counts.maintenance.mended += 1;
        self.trace.say(self.now, format_args!("{machine} is whole again"));
        if !is_restored {
            self.check.mend(id);
            self.losses.mend(id);
        }
    }

    /// A leader trims what is too old; the others only look.
    fn expired(&mut self, machine: usize, before: Offset, judge: Option<Judge>) {
        let clock = self.clock(machine);
        let Some(process) = self.process(machine).filter(|process| process.driver.may_trim(clock, before)) else {
            return;
        };
        let (log_start, request) = (process.replica().log_start(), process.driver.request());
        self.trace.say(self.now, format_args!("{machine} trims what is too old, before {before}"));
        if self.held_from(machine).is_some() {
            self.check.is_backed_up(before);
        }
        if let Some(judge) = judge {
            self.check.old_by_age(&judge, log_start, before);
        }
        self.counts.done.aged_out += before.since(log_start);
        self.check.trim_asked(before);
        self.step(machine, Input::Trim { request, before });
    }

    // ---- backups, where retention waits for them

    pub(crate) fn backup_ms(&self) -> Option<(u64, u64)> {
        self.params.node.maintenance.as_ref()?.backup_ms
    }

    /// From where on retention is to leave what is in no backup, as far as a node knows; nowhere on a full disk.
    fn held_from(&mut self, machine: usize) -> Option<Offset> {
        self.backup_ms()?;
        let process = self.process(machine).filter(|process| !process.writer.is_full())?;
        process.maintenance.as_ref().map(|maintenance| maintenance.backed_up)
    }

    /// A backup is made of what one node can read, and some hear of it.
    pub(crate) fn back_up(&mut self) {
        let Some(pause_ms) = self.backup_ms() else { return };
        let made_by = self.dice.index(self.machines.len());
        let readable = |process: &Process| process.replica().commit_end().min(process.replica().durable().end);
        let newest = self.process(made_by).map(|process| readable(process)).unwrap_or_default();
        let newest = self.check.backed_up(newest);
        for machine in 0..self.machines.len() {
            let hears = self.dice.chance(0.5);
            let maintenance = self.process(machine).and_then(|process| process.maintenance.as_mut());
            maintenance.filter(|_| hears).into_iter().for_each(|maintenance| maintenance.backed_up = newest);
        }
        self.after(pause_ms, Event::BackUp);
    }

    // ---- questions and answers

    fn ask_other(&mut self, machine: usize, Ask { number, of, from, upto }: Ask) {
        let Some(process) = self.process(machine) else { return };
        let (life, cluster) = (process.life, process.replica().cluster());
        if let (Some(to), Some(cluster)) = (self.address_of(of), cluster)
            && !self.broken_by(Break::DamageForgotten)
        {
            self.trace.say(self.now, format_args!("{machine} asks {of:?} for what is from {from} to {upto}"));
            let caller = Caller::Repairer { machine, life, ask: number, from };
            let call = Call::Fetch { cluster, from, upto };
            self.send(Address::Machine(machine), to, Message::Call { caller, target: Some(of), call });
        }
    }

    /// Gives committed records to a replica that lacks them.
    pub(crate) fn give(&mut self, machine: usize, caller: Caller, cluster: ClusterId, (from, upto): (Offset, Offset)) {
        let answer_bytes = self.params.node.maintenance.as_ref().map_or(0, |maintenance| maintenance.answer_bytes);
        let at = self.machine(machine);
        let (Some(process), storage) = (&at.process, &at.storage) else { return };
        let replica = process.replica();
        // Where reads end: a leader may know more to be committed than its own disk holds.
        let readable = replica.commit_end().min(replica.durable().end);
        let is_ours = replica.cluster() == Some(cluster) && upto <= readable;
        let excerpt = is_ours.then(|| storage.log().reader().excerpt(from, upto, answer_bytes).ok()).flatten();
        let answer = excerpt.map_or(Answer::Unreachable, |excerpt| Answer::Excerpt(excerpt.bytes().clone()));
        self.answer(machine, caller, answer);
    }

    /// An answer, perhaps to a question of long ago.
    pub(crate) fn fetched(&mut self, machine: usize, caller: Caller, answer: Answer) {
        let Caller::Repairer { life, ask, from, .. } = caller else { return };
        if self.process(machine).is_none_or(|process| process.life != life) {
            return;
        }
        let answer = match answer {
            Answer::Excerpt(bytes) => match Excerpt::decode(bytes, from) {
                Ok(excerpt) => Ok(excerpt),
                Err(error) => {
                    return self.check.violated(format!("machine {machine} takes an excerpt for wrong: {error}"));
                }
            },
            _ => Err(Unanswered { reason: "it gives nothing".to_owned(), is_damaged: false }),
        };
        self.look_after(machine, Some((ask, answer)));
    }
}

fn count(ranges: &[(Offset, Offset)]) -> u64 {
    ranges.iter().map(|(from, end)| end.since(*from)).sum()
}
