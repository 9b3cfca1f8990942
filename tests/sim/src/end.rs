//! A run from its seed to its verdict: faults, then healing, then quiet.

mod person;
mod rest;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use zue_core::Offset;

use crate::breaks::Break;
use crate::coverage::Coverage;
use crate::coverage::done::{Done, Lost};
use crate::left::FromBackup;
use crate::node::maintenance::MaintenanceCounts;
use crate::world::{Counts, World};

/// The least number of events of a run, and of faults, those of single messages aside.
pub(crate) const EVENTS_MIN: u64 = 2000;
/// See [`EVENTS_MIN`].
pub(crate) const FAULTS_MIN: u64 = 10;

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number of events at least until everything is put right.
    pub events: u64,
    /// The rule to break.
    pub broken: Option<Break>,
    /// The number of lines of a failed run that are told.
    pub lines: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { events: EVENTS_MIN, broken: None, lines: 150 }
    }
}

/// The events of a run that went well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Events, healing included.
    pub events: u64,
    /// The intended faults.
    pub faults: Coverage,
    /// Virtual milliseconds until everything was put right, and until all was at rest.
    pub faulty_ms: u64,
    /// See `faulty_ms`.
    pub total_ms: u64,
    /// The work that was done.
    pub done: Done,
    /// The maintenance of logs while they were used.
    pub maintenance: MaintenanceCounts,
    /// The beginning, if it was a restored log.
    pub from_backup: FromBackup,
    /// The losses that no rule can bring back.
    pub lost: Lost,
    /// Of everything that happened.
    pub trace_hash: u64,
}

/// The violated rule, and the place.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed to replay.
    pub seed: u64,
    /// The number of the event.
    pub event: u64,
    /// The violated invariant.
    pub what: String,
    /// The last lines of the trace; empty unless replayed.
    pub trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}, event {}: {}", self.seed, self.event, self.what)
    }
}

/// Runs one seed.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    run_traced(seed, options, false)
}

/// Runs one seed again, with words.
///
/// # Errors
/// The first violation and what led to it.
pub fn replay(seed: u64, options: Options) -> Result<Report, Failure> {
    run_traced(seed, options, true)
}

fn run_traced(seed: u64, options: Options, with_words: bool) -> Result<Report, Failure> {
    let mut world = World::new(seed, options.broken, with_words.then_some(options.lines));
    let ran = quietly(|| world.run(options.events));
    let what = match ran {
        Ok(Ok(())) => return Ok(world.report()),
        Ok(Err(what)) => what,
        Err(panic) => format!("a rule's assertion failed: {panic}"),
    };
    Err(Failure { seed, event: world.counts.events, what, trace: world.trace.take_lines() })
}

/// Runs something whose panics are results, not news.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let ran = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    ran.map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_owned())
    })
}

impl World {
    fn run(&mut self, events: u64) -> Result<(), String> {
        while self.counts.events < events || self.counts.faults.faults() < FAULTS_MIN {
            self.turn_checked()?;
        }
        self.counts.faulty_ms = self.now;
        self.heal();
        self.conclude()
    }

    /// Returns whether all is well in the end.
    pub(crate) fn conclude(&mut self) -> Result<(), String> {
        self.rest()?;
        self.counts.lossy |= self.may_lack_records();
        if self.counts.stuck {
            return self.compare_each();
        }
        // It must be possible to append.
        self.clients.known_end = self.check.committed_end();
        self.clients.open(&mut self.dice);
        self.append_new(self.clients.producers.len() - 1, 1);
        let before = self.check.committed_end();
        self.rest()?;
        if self.counts.stuck {
            return self.compare_each();
        }
        if self.check.committed_end() <= before {
            return Err("a new append was not committed".to_owned());
        }
        self.compare()?;
        let contradictions = self.clients.contradictions(self.check.committed_records());
        contradictions.into_iter().next().map_or(Ok(()), Err)
    }

    pub(crate) fn turn_checked(&mut self) -> Result<(), String> {
        if !self.turn() {
            return Err("nothing happens any more".to_owned());
        }
        self.check.violation().map_or(Ok(()), |what| Err(what.to_owned()))
    }

    /// Compares the voters' logs on disk, record for record: only what may be lost may be missing.
    fn compare(&mut self) -> Result<(), String> {
        let voters = self.leader().map(|leader| self.voters(leader)).unwrap_or_default();
        let end = self.check.committed_end();
        for machine in 0..self.machines.len() {
            if self.machines.get(machine).is_some_and(|at| voters.contains(&at.storage.id())) {
                self.compare_disk(machine, end, Self::may_be_lost)?;
            }
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let Counts { events, faults, faulty_ms, done, maintenance, from_backup, lossy, trimmed_by_hand, stuck } =
            self.counts;
        let lost = Lost {
            records: u64::from(lossy),
            trimmed: u64::from(trimmed_by_hand > Offset(0)),
            given_up: u64::from(stuck),
        };
        let done = Done {
            committed: self.check.committed_end().0,
            linearizable: self.clients.history.linearizable_reads,
            acknowledged: self.check.acknowledged,
            reads: self.check.reads,
            ..done
        };
        let (total_ms, trace_hash) = (self.now, self.trace.hash());
        Report { events, faults, faulty_ms, total_ms, done, maintenance, from_backup, lost, trace_hash }
    }
}
