//! Disks in the end, beside what they must hold.

use zue_core::{EpochStart, Offset, ReplicaId, RoleView};
use zue_log::{Log, LogConfig, ReadError};

use super::{ALL, Range, is_in};
use crate::batch::Record;
use crate::disk::Storage;
use crate::world::World;

impl Storage {
    /// The ranges that cannot be read any more of the disk as it is, were it opened now; without an end where the log's is among it.
    pub(crate) fn unreadable(&self) -> Vec<Range> {
        let disk = self.disk.fork();
        disk.kill();
        let Ok((log, _)) = Log::open(disk, LogConfig::default(), self.id()) else { return vec![ALL] };
        let mut verifier = log.reader().verifier();
        while let Ok(Some(_)) = verifier.step(1 << 20) {}
        let damaged = log.damaged().into_iter().map(|damage| (damage.from, damage.to));
        let end = log.tail().end;
        damaged.chain((end < self.must.synced.end).then_some((end, ALL.1))).collect()
    }

    /// The records in `from..upto` that can be read, and what cannot.
    fn read_around(&self, from: Offset, upto: Offset) -> Result<(Vec<Record>, Vec<Range>), ReadError> {
        let (mut records, mut holes, mut at) = (Vec::new(), Vec::new(), from);
        while at < upto {
            match self.read(at, at.plus(1)) {
                // A read there gives nothing, as one of what was compacted away does.
                _ if at >= self.tail().end => holes.push((at, at.plus(1))),
                Ok(read) => records.extend(read),
                Err(ReadError::Damaged(_)) => holes.push((at, at.plus(1))),
                Err(error) => return Err(error),
            }
            at = at.plus(1);
        }
        Ok((records, holes))
    }
}

impl World {
    /// Returns whether this replica's disk may be lost or damaged. One other at least remembers the cluster, or another may begin.
    pub(crate) fn may_be_hurt(&self, replica: ReplicaId) -> bool {
        let others = || self.machines.iter().map(|at| at.storage.id()).filter(|id| *id != replica);
        let is_reckless = self.losses.reckless && self.has_begun() && others().any(|id| self.losses.remembers(id));
        self.is_dispensable(replica) || is_reckless
    }

    /// Until something is committed, a cluster whose first leader is gone waits for a person.
    pub(crate) fn has_begun(&self) -> bool {
        self.machines.len() > 1 && self.check.committed_end() > Offset(0)
    }

    /// Takes note of what a replica holds after a step.
    pub(crate) fn note_held(&mut self, machine: usize) {
        let now = self.clock(machine);
        let Some(process) = self.machines.get(machine).and_then(|at| at.process.as_ref()) else { return };
        let replica = process.replica();
        let (id, end, epoch) = (replica.id(), replica.commit_end(), replica.log().epoch);
        self.losses.holds(id, end.min(replica.durable().end));
        if self.losses.committed.insert(id, end).is_some_and(|before| before >= end) {
            return;
        }
        // Who has acknowledged what is committed holds it, whether or not it has heard so.
        if let RoleView::Leader { followers, .. } = replica.role(now) {
            let start = replica.history().last();
            if start.map(|start| start.epoch) > self.losses.newest.as_ref().map(|newest| newest.epoch) {
                self.losses.newest = start.cloned();
            }
            for (follower, progress) in followers.iter().filter(|(_, progress)| progress.durable.epoch == epoch) {
                self.losses.holds(*follower, end.min(progress.durable.end));
            }
        }
    }

    /// The newest epoch start that anybody holds, or held while it committed: it names who elects.
    fn newest(&self) -> Option<&EpochStart> {
        let starts = self.machines.iter().filter_map(|at| at.process.as_ref()?.replica().history().last());
        starts.chain(&self.losses.newest).max_by_key(|start| start.epoch)
    }

    /// Returns whether too few voters have kept their disks to elect or to commit.
    pub(crate) fn lacks_majority(&self) -> bool {
        self.newest().is_some_and(|start| self.losses.lacks_majority(start))
    }

    /// Returns whether the committed record may be lost.
    pub(crate) fn may_be_lost(&self, record: Offset) -> bool {
        self.newest().is_some_and(|start| self.losses.may_lack(start, record))
    }

    /// Returns whether any record that is not trimmed may be lost.
    pub(crate) fn may_lack_records(&self) -> bool {
        let start = self.machines.iter().map(|at| at.storage.log_start()).max().unwrap_or_default();
        (start.0..self.check.committed_end().0).any(|at| self.may_be_lost(Offset(at)))
    }

    /// Compares a disk with what was committed before `end`: all must be there but `may_lack`.
    pub(crate) fn compare_disk(
        &mut self,
        machine: usize,
        end: Offset,
        may_lack: impl Fn(&Self, Offset) -> bool,
    ) -> Result<(), String> {
        let Some(at) = self.machines.get(machine) else { return Ok(()) };
        let start = at.storage.log_start();
        let says =
            |error: &dyn std::fmt::Display| format!("machine {machine} does not hold what was committed: {error}");
        if at.storage.log.is_none() {
            return Err(says(&"its log is not open"));
        }
        let (records, holes) = at.storage.read_around(start, end).map_err(|error| says(&error))?;
        if let Some((from, _)) = holes.iter().find(|(from, _)| !may_lack(self, *from)) {
            return Err(says(&format_args!("record {from} cannot be read, and was not to be lost")));
        }
        let mut next = start;
        for (from, after) in holes.into_iter().chain([(end, end)]) {
            let between: Vec<_> = records.iter().filter(|r| (next..from).contains(&r.offset)).copied().collect();
            self.check.read(next.min(from), from, &between);
            next = after;
        }
        self.check.violation().map_or(Ok(()), |what| Err(what.to_owned()))
    }

    /// Checks that each disk still holds all that it held and that no fault took, where no more is to be asked for.
    pub(crate) fn compare_each(&mut self) -> Result<(), String> {
        for machine in 0..self.machines.len() {
            let Some(id) = self.machines.get(machine).map(|at| at.storage.id()) else { continue };
            let held = self.losses.held.get(&id).copied().unwrap_or_default();
            self.compare_disk(machine, held, |world, record| is_in(world.losses.taken(id), record))?;
        }
        Ok(())
    }
}
