//! What looks after a log while it is used, as a node's upkeep does: reads all of it again in time, fetches from other replicas what
//! is damaged, and compacts. A piece of it at a time; everything else goes on between.

use std::collections::BTreeMap;

use zue_core::{Aged, Input, Offset, RoleView};
use zue_log::sim::SimDisk;
use zue_log::{Compacting, Compaction, Verifier};

use crate::ages::{Aging, Which};
use crate::breaks::Break;
use crate::params::UpkeepParams;
use crate::process::Process;
use crate::repairs::{Fetching, Repairing};
use crate::storage::{Storage, WorkError};
use crate::world::{ProcessEvent, World};

/// The state of one process's upkeep.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    pub(crate) now: Doing,
    scrub: Option<Verifier<SimDisk>>,
    /// When damage, by its first record, is looked at again.
    pub(crate) retry: BTreeMap<(Offset, Offset), u64>,
    /// When it is time to compact again.
    compact_due: u64,
    /// How old records are, where some go because of that.
    pub(crate) retention: Option<Aging>,
    pub(crate) deletes: Option<Aging>,
    /// What the replica was told last: something is damaged.
    told: bool,
}

#[derive(Debug, Default)]
pub(crate) enum Doing {
    #[default]
    Nothing,
    Fetching(Fetching),
    Repairing(Repairing),
    Compacting(Box<Compaction<SimDisk>>),
}

impl Upkeep {
    /// Of a replica that knows whether anything is damaged.
    pub(crate) fn new(told: bool, params: Option<&UpkeepParams>) -> Self {
        let retention = params.and_then(|params| params.retention_ms).map(Aging::new);
        let deletes = params.and_then(|params| params.compaction);
        let deletes = deletes.map(|compaction| Aging::new(compaction.tombstone_retention_ms));
        Self { retention, deletes, told, ..Self::default() }
    }
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Damaged segments that were written anew.
    pub repairs: u64,
    /// Records that came back with them.
    pub restored: u64,
    /// Replicas that were damaged, and whole again.
    pub mended: u64,
    /// Rounds of compaction that were done.
    pub compactions: u64,
    /// Segments that were written anew by them.
    pub compacted: u64,
    /// Segments that were being written anew when the process or machine stopped.
    pub interrupted: u64,
}

impl Kept {
    pub(crate) fn add(&mut self, other: &Self) {
        self.repairs += other.repairs;
        self.restored += other.restored;
        self.mended += other.mended;
        self.compactions += other.compactions;
        self.compacted += other.compacted;
        self.interrupted += other.interrupted;
    }
}

impl World {
    /// Where the process and its disk are.
    pub(crate) fn kept(&mut self, machine: usize) -> Option<(&mut Process, &mut Storage)> {
        let at = self.machines.get_mut(machine)?;
        Some((at.process.as_mut()?, &mut at.storage))
    }

    pub(crate) fn upkeep(&mut self, machine: usize) {
        let Some(params) = &self.params.upkeep else { return };
        let every_ms = params.every_ms;
        self.after_of(machine, every_ms, ProcessEvent::Upkeep);
        let now = self.clock(machine);
        let is_failed = |process: &Process| process.replica().role(now) == RoleView::Failed;
        if self.process(machine).is_none_or(|process| is_failed(process)) {
            return;
        }
        self.retain(machine);
        self.fail_soon(machine);
        // What is damaged there, no other replica need have any more.
        let drops = self.dice.chance(0.05) || self.machine(machine).storage.holds_damaged_trimmed();
        let dropped = if drops { self.machine(machine).storage.drop_trimmed(usize::MAX).map(drop) } else { Ok(()) };
        let done = dropped.and_then(|()| self.keep(machine));
        let has_stopped = self.machine(machine).storage.disk.has_stopped();
        let done = if has_stopped { Err(WorkError::Disk) } else { done };
        // A full disk is for later.
        if matches!(done, Err(WorkError::Full)) || self.disk_did(machine, done) {
            self.tell_damage(machine);
        }
    }

    /// Does a piece of it.
    fn keep(&mut self, machine: usize) -> Result<(), WorkError> {
        let Some((process, _)) = self.kept(machine) else { return Ok(()) };
        match std::mem::take(&mut process.upkeep.now) {
            Doing::Nothing => self.begin(machine),
            Doing::Fetching(fetching) => self.ask_on(machine, fetching),
            Doing::Repairing(repairing) => self.repair_on(machine, repairing),
            Doing::Compacting(round) => self.compact_on(machine, round),
        }
    }

    fn begin(&mut self, machine: usize) -> Result<(), WorkError> {
        if self.dice.chance(0.2) {
            self.machine(machine).storage.write_commit()?;
        }
        if self.begin_repair(machine) {
            return Ok(());
        }
        if self.begin_compaction(machine)? {
            return Ok(());
        }
        self.scrub(machine)
    }

    pub(crate) fn go_on_with(&mut self, machine: usize, doing: Doing) {
        if let Some(process) = self.process(machine) {
            process.upkeep.now = doing;
        }
    }

    /// Tells the replica whether anything is damaged, if that has changed.
    fn tell_damage(&mut self, machine: usize) {
        let ignored = self.broken_by(Break::DamageForgotten);
        let Some((process, storage)) = self.kept(machine) else { return };
        if storage.log.is_none() {
            return;
        }
        let damaged = !storage.damages().is_empty() && !ignored;
        if std::mem::replace(&mut process.upkeep.told, damaged) != damaged {
            self.trace.say(self.now, format_args!("{machine} is damaged: {damaged}"));
            self.step(machine, Input::Damaged(damaged));
        }
    }

    /// How long until what failed is tried again.
    pub(crate) fn retry_ms(&self) -> (u64, u64) {
        self.params.upkeep.as_ref().map_or((0, 0), |upkeep| upkeep.retry_ms)
    }

    pub(crate) fn piece_bytes(&self) -> usize {
        self.params.upkeep.as_ref().map_or(0, |upkeep| upkeep.piece_bytes)
    }

    // ---- compaction

    /// Begins a round, if one is due; whether it did.
    fn begin_compaction(&mut self, machine: usize) -> Result<bool, WorkError> {
        let now = self.now;
        let looked = self.aged(machine, Which::Deletes);
        if self.process(machine).is_none_or(|process| now < process.upkeep.compact_due) {
            return Ok(false);
        }
        let aged = looked.map_or(Aged::unknown(), |(aged, _)| aged);
        let aged = if self.broken_by(Break::DeletesGoEarly) { Aged::by_timestamps(u64::MAX) } else { aged };
        if self.broken_by(Break::CompactUncommitted) {
            self.machine(machine).storage.commit_all()?;
        }
        let Some(round) = self.machine(machine).storage.compaction(aged) else { return Ok(false) };
        if let Some((aged, judge)) = looked {
            self.check.deletes_may_go(&judge, &aged);
        }
        self.trace.say(self.now, format_args!("{machine} compacts"));
        self.go_on_with(machine, Doing::Compacting(Box::new(round)));
        Ok(true)
    }

    fn compact_on(&mut self, machine: usize, mut round: Box<Compaction<SimDisk>>) -> Result<(), WorkError> {
        let piece_bytes = self.piece_bytes();
        let stepped = round.step(piece_bytes);
        let storage = &mut self.machine(machine).storage;
        let done = match stepped {
            Ok(Compacting::Bytes(_)) => {
                self.go_on_with(machine, Doing::Compacting(round));
                return Ok(());
            }
            Ok(Compacting::Segment(segment)) => match storage.rewritten(*segment) {
                Ok(taken) => {
                    self.counts.kept.compacted += u64::from(taken);
                    self.go_on_with(machine, Doing::Compacting(round));
                    return Ok(());
                }
                Err(error) => {
                    storage.compacted(*round, false)?;
                    return Err(error);
                }
            },
            Ok(Compacting::Done) => true,
            Err(error) => {
                self.trace.say(self.now, format_args!("{machine} gives up compaction: {error}"));
                false
            }
        };
        let again_at = self.now + self.dice.between(self.retry_ms());
        if let Some(process) = self.process(machine).filter(|_| !done || round.is_incomplete()) {
            process.upkeep.compact_due = again_at;
        }
        self.machine(machine).storage.compacted(*round, done)?;
        self.counts.kept.compactions += u64::from(done);
        Ok(())
    }

    // ---- scrub

    /// Reads a piece again.
    fn scrub(&mut self, machine: usize) -> Result<(), WorkError> {
        // Once all is put right nothing else is left to wait for.
        let least = if self.healed { 1 << 20 } else { 4 << 10 };
        let (piece_bytes, limits) = (self.piece_bytes().max(least), self.params.producer_limits);
        let Some((process, storage)) = self.kept(machine) else { return Ok(()) };
        let upkeep = &mut process.upkeep;
        let mut verifier = upkeep.scrub.take().unwrap_or_else(|| storage.verifier());
        match verifier.step(piece_bytes) {
            Ok(Some(checked)) => {
                upkeep.scrub = Some(verifier);
                let damage = checked.damage.filter(|_| !storage.is_damaged());
                if let Some(damage) = damage {
                    return Err(WorkError::Wrong(format!("it is taken for damaged: {damage}")));
                }
            }
            Ok(None) if storage.mend(limits)? => self.mended(machine),
            Ok(None) | Err(_) => {}
        }
        Ok(())
    }

    /// What was damaged is whole: it counts again.
    fn mended(&mut self, machine: usize) {
        let storage = &self.machine(machine).storage;
        let (id, is_restored) = (storage.id(), storage.is_restored());
        self.counts.kept.mended += 1;
        self.trace.say(self.now, format_args!("{machine} is whole again"));
        if !is_restored {
            self.check.mend(id);
            self.losses.mend(id);
        }
    }
}
