//! A world begins with what an earlier one has left.

use std::collections::BTreeMap;

use zue_core::{Offset, Origin, Tail};

use super::Left;
use crate::actors::clients::Clients;
use crate::check::Checker;
use crate::coverage::Fault;
use crate::dice::Dice;
use crate::disk::Storage;
use crate::event::{Event, ProcessEvent};
use crate::params::Params;
use crate::world::World;

/// The time for which the earlier cluster is watched at most.
const EVENTS_MAX: u64 = 6000;

/// The share of runs that begin so.
const RUNS: f64 = 0.08;

impl Left {
    /// The log to begin with in the run of that seed, if there is any.
    pub(crate) fn draw(seed: u64, params: &Params) -> Option<Self> {
        let mut dice = Dice::new(seed.rotate_left(16));
        if !dice.chance(RUNS) {
            return None;
        }
        let mut earlier = World::empty(dice.bits(), None, None);
        earlier.params.leave(params, &mut dice);
        earlier.populate(None);
        let records = dice.between((1, 100));
        while earlier.check.committed_end().0 < records && earlier.counts.events < EVENTS_MAX && earlier.turn() {}
        earlier.leave(&mut dice)
    }
}

impl World {
    /// The log that this cluster leaves: what one of its replicas holds of what is committed, or the beginning of that.
    fn leave(&self, dice: &mut Dice) -> Option<Left> {
        if let Some(what) = self.check.violation() {
            panic!("an earlier cluster: {what}");
        }
        let runs = |machine: &usize| self.machines.get(*machine).is_some_and(|at| at.process.is_some());
        let machines: Vec<usize> = (0..self.machines.len()).filter(runs).collect();
        let at = self.machines.get(*machines.get(dice.index(machines.len().max(1)))?)?;
        let process = at.process.as_ref()?;
        let storage = &at.storage;
        let committed = process.replica().commit_end().min(storage.tail().end);
        let oldest = storage.held().1;
        let cut =
            if dice.chance(0.5) { committed } else { Offset(dice.between((oldest.0.min(committed.0), committed.0))) };
        let origin =
            if oldest > Offset(0) { Some(storage.origin(self.params.node.producer_limits).ok()?) } else { None };
        let mut tail = origin.as_ref().map_or_else(Tail::default, Origin::tail);
        let (mut batches, mut appends) = (Vec::new(), BTreeMap::new());
        while let Ok(Some(batch)) = storage.read_frames(tail, 1) {
            if batch.tail().end > cut {
                break;
            }
            for run in batch.as_ref().producers() {
                let appended = run.appended();
                appends.insert(appended.producer, (appended.sequence, appended.count));
            }
            tail = batch.tail();
            batches.push(batch);
        }
        let records = self.check.committed_records().get(..usize::try_from(tail.end.0).ok()?)?.to_vec();
        let is_empty = records.is_empty() || batches.is_empty();
        (!is_empty).then_some(Left { records, origin, batches, appends, at: self.now })
    }

    /// Lets the world begin with it, on one of its machines.
    pub(crate) fn begin_with(&mut self, left: Left) -> (usize, Left) {
        self.now = left.at + self.dice.between((1, 5000));
        self.params.begin_restored(&mut self.dice);
        self.counts.from_backup.runs = 1;
        self.check.begin_with(&left);
        let retries = self.clients.go_on(&left, &mut self.dice);
        for (producer, sequence) in retries {
            self.after((0, 400), Event::AppendTimeout { producer, sequence, attempt: 0 });
        }
        (self.dice.index(self.params.machines), left)
    }

    /// Perhaps one that was restored crashes while it is appointed.
    pub(crate) fn crash_restored(&mut self, machine: usize) {
        let is_seed = self.process(machine).is_some_and(|process| process.replica().is_seed());
        if is_seed && self.dice.chance(self.params.faults.moments.crash_leading) {
            self.counts.faults.count(Fault::LeaderStopped);
            let sync_ms = self.params.disk.sync_ms.1;
            self.after_of(machine, (0, sync_ms + 5), ProcessEvent::Crash);
        }
    }

    /// Restores it to this machine.
    pub(crate) fn restore_to(&mut self, machine: usize, storage: &mut Storage, left: &Left) {
        left.restore(storage, self.params.node.producer_limits);
        self.check.is_restored_to(storage.id());
        self.trace.say(self.now, format_args!("{machine} was restored up to {}, epoch {}", left.end(), left.last()));
    }
}

impl Checker {
    /// All that was left is committed.
    fn begin_with(&mut self, left: &Left) {
        left.records.iter().for_each(|record| self.first_commit(*record));
        self.must_hold(left.end());
        self.trim_asked(left.origin.as_ref().map_or(Offset(0), |origin| origin.at));
        self.begins_behind(left.last());
    }
}

impl Clients {
    /// All that was left was acknowledged, and some producers go on. The first sequence of what each of them tries again.
    fn go_on(&mut self, left: &Left, dice: &mut Dice) -> Vec<(usize, u64)> {
        for record in &left.records {
            self.sent_before(record);
        }
        let appends = left.appends.iter().filter(|_| dice.chance(0.8)).map(|(id, append)| (id.nonce, (*id, *append)));
        let appends: BTreeMap<_, _> = appends.collect();
        for record in &left.records {
            let value = self.value(record.nonce, record.sequence);
            // What is tried again is still to be answered.
            if appends.get(&record.nonce).is_none_or(|(_, (sequence, _))| record.sequence < *sequence) {
                self.history.acked(value, record.offset.0);
            }
        }
        self.known_end = left.end();
        appends.into_values().map(|(id, append)| (self.try_again(id, append), append.0)).collect()
    }
}
