//! A run from its seed to its verdict: faults, then healing, then quiet.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use zue_core::Offset;

use crate::breaks::Break;
use crate::coverage::Coverage;
use crate::left::FromBackup;
use crate::node::upkeep::Kept;
use crate::world::World;

/// How many events a run has at least, and faults, those of single messages aside.
pub(crate) const EVENTS_MIN: u64 = 2000;
/// See [`EVENTS_MIN`].
pub(crate) const FAULTS_MIN: u64 = 10;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many events there are at least until everything is put right.
    pub events: u64,
    /// The rule to break.
    pub broken: Option<Break>,
    /// How many lines of a failed run are told.
    pub lines: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { events: EVENTS_MIN, broken: None, lines: 150 }
    }
}

/// What happened in a run that went well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Events, healing included.
    pub events: u64,
    /// What went wrong on purpose.
    pub faults: Coverage,
    /// Virtual milliseconds until everything was put right, and until all was at rest.
    pub faulty_ms: u64,
    /// See `faulty_ms`.
    pub total_ms: u64,
    /// Leaderships.
    pub elections: u64,
    /// Records committed.
    pub committed: u64,
    /// Appends answered.
    pub acknowledged: u64,
    /// Reads answered.
    pub reads: u64,
    /// Linearizable ones among the clients' questions that were answered.
    pub linearizable: u64,
    /// Trims answered.
    pub trims: u64,
    /// Replicas that began anew where their leader's log begins.
    pub resets: u64,
    /// Records that were trimmed because of their age.
    pub aged_out: u64,
    /// What was done to logs while they were used.
    pub kept: Kept,
    /// Leaders that nodes elected by themselves.
    pub by_standbys: u64,
    /// How it began, if with a restored log.
    pub from_backup: FromBackup,
    /// Whether faults took committed records from all voters that held them.
    pub lossy: bool,
    /// Whether a person had to trim those.
    pub trimmed_by_hand: bool,
    /// Whether a person would have to give the cluster up.
    pub stuck: bool,
    /// Of everything that happened.
    pub trace_hash: u64,
}

/// What was violated, and where.
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
        Report {
            events: self.counts.events,
            faults: self.counts.faults,
            faulty_ms: self.counts.faulty_ms,
            total_ms: self.now,
            elections: self.counts.elections,
            committed: self.check.committed_end().0,
            linearizable: self.clients.history.linearizable_reads,
            trims: self.counts.trims,
            resets: self.counts.resets,
            aged_out: self.counts.aged_out,
            kept: self.counts.kept,
            by_standbys: self.counts.by_standbys,
            from_backup: self.counts.from_backup,
            lossy: self.counts.lossy,
            trimmed_by_hand: self.counts.trimmed_by_hand > Offset(0),
            stuck: self.counts.stuck,
            acknowledged: self.check.acknowledged,
            reads: self.check.reads,
            trace_hash: self.trace.hash(),
        }
    }
}
