//! A run from its seed to its verdict: faults, then healing, then quiet.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use zue_core::control::Policy;
use zue_core::{ReplicaId, RoleView};

use crate::breaks::Break;
use crate::coverage::Coverage;
use crate::left::FromBackup;
use crate::node::upkeep::Kept;
use crate::world::World;

/// The time for which the world may take to come to rest once nothing goes wrong any more, virtual milliseconds.
const REST_MS: u64 = 60_000;

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
    /// The upkeep of logs while they were used.
    pub kept: Kept,
    /// Leaders that nodes elected by themselves.
    pub by_standbys: u64,
    /// The beginning, if it was a restored log.
    pub from_backup: FromBackup,
    /// True if faults took committed records from all voters that held them.
    pub lossy: bool,
    /// True if it ended without rest, for that or because too few voters were left.
    pub stuck: bool,
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
        self.rest()?;
        self.counts.lossy = self.may_lack_records();
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

    fn turn_checked(&mut self) -> Result<(), String> {
        if !self.turn() {
            return Err("nothing happens any more".to_owned());
        }
        self.check.violation().map_or(Ok(()), |what| Err(what.to_owned()))
    }

    /// Goes on until all appends are answered and all voters are equal; or until it is plain that too few voters are left for that, or
    /// that what was lost cannot be copied.
    fn rest(&mut self) -> Result<(), String> {
        let until = self.now + REST_MS;
        while !self.is_at_rest() {
            if self.now > until {
                let may_stop = self.lacks_majority() || (self.leader().is_some() && self.may_lack_records());
                self.counts.stuck = may_stop || self.is_held_up();
                return if self.counts.stuck { Ok(()) } else { Err(self.unrest()) };
            }
            self.turn_checked()?;
        }
        Ok(())
    }

    /// Returns whether trimmed records are damaged anywhere, which nobody may hold any more. Who lacks them cannot be fed from there.
    fn is_held_up(&self) -> bool {
        self.machines.iter().any(|at| at.storage.is_damaged() && at.storage.holds_damaged_trimmed())
    }

    fn is_at_rest(&self) -> bool {
        self.clients.is_quiet()
            && self.is_led_as_wished()
            && self.is_staffed_as_wished()
            && self.unequal().is_empty()
            && self.stand_by()
    }

    /// Checks that all voters know how to stand by, where nodes do.
    fn stand_by(&self) -> bool {
        let is_told = |leader| self.are_told(&self.voters(leader), leader);
        !self.params.control.stands_by || self.leader().is_some_and(is_told)
    }

    /// The replicas at the first machines vote, nobody else does, and no change is under way.
    fn is_staffed_as_wished(&self) -> bool {
        let process = self.leader().and_then(|leader| self.machines.get(leader)?.process.as_ref());
        let Some(start) = process.and_then(|process| process.replica().history().last()) else { return false };
        let wished = || self.machines.iter().take(self.params.wish.replicas).map(|at| at.storage.id());
        let all_vote = wished().all(|id| start.voters.contains(&id)) && start.voters.len() == self.params.wish.replicas;
        all_vote && start.old_voters.is_none()
    }

    /// Static: the named replica leads; if its disk was lost, any other. Automatic: any leads.
    fn is_led_as_wished(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        if self.params.wish.policy == Policy::Automatic {
            return true;
        }
        let ordinal = self.params.wish.ordinal;
        let named = self.machines.get(ordinal).map(|at| at.storage.id());
        leader == ordinal || named.is_none_or(|named| !self.voters(leader).contains(&named))
    }

    fn voters(&self, leader: usize) -> Vec<ReplicaId> {
        let process = self.machines.get(leader).and_then(|at| at.process.as_ref());
        let start = process.and_then(|process| process.replica().history().last());
        start.map(|start| start.voters.clone()).unwrap_or_default()
    }

    /// The machine that leads the newest epoch.
    fn leader(&self) -> Option<usize> {
        let leads = |machine: &usize| {
            let process = self.machines.get(*machine).and_then(|at| at.process.as_ref());
            process.is_some_and(|p| {
                matches!(p.replica().role(self.clock(*machine)), RoleView::Leader { settled: true, .. })
            })
        };
        let epoch = |machine: &usize| self.machines.get(*machine)?.process.as_ref().map(|p| p.replica().log().epoch);
        (0..self.machines.len()).filter(leads).max_by_key(epoch)
    }

    /// The machines that are down, and those whose replicas vote and do not hold all of the leader's log, committed.
    fn unequal(&self) -> Vec<usize> {
        let process = |machine: usize| self.machines.get(machine).and_then(|at| Some((at, at.process.as_ref()?)));
        let Some(machine) = self.leader() else { return Vec::new() };
        let Some((_, leader)) = process(machine) else { return Vec::new() };
        let voters = self.voters(machine);
        let is_equal = |machine: &usize| {
            process(*machine).is_some_and(|(at, process)| {
                !voters.contains(&at.storage.id())
                    || (process.replica().log() == leader.replica().log()
                        && process.replica().log_start() == leader.replica().log_start()
                        && at.storage.is_readable(|record| self.may_be_lost(record))
                        && self.check.is_whole(process, &at.storage))
            })
        };
        (0..self.machines.len()).filter(|machine| !is_equal(machine)).collect()
    }

    fn unrest(&self) -> String {
        let (leader, unequal, pending) = (self.leader(), self.unequal(), self.clients.pending());
        let (staffed, told) = (self.is_staffed_as_wished(), self.stand_by());
        let damaged: Vec<_> = self.machines.iter().filter_map(|at| at.storage.doubt()).collect();
        format!(
            "no rest, {damaged:?}: leader {leader:?}, behind {unequal:?}, {pending} appends without an answer, members as wished: {staffed}, who stand by as told: {told}"
        )
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
            stuck: self.counts.stuck,
            acknowledged: self.check.acknowledged,
            reads: self.check.reads,
            trace_hash: self.trace.hash(),
        }
    }
}
