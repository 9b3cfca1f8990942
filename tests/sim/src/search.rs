//! Many runs, on all cores.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{available_parallelism, scope};

use crate::coverage::Coverage;
use crate::coverage::done::{Done, Lost};
use crate::end::{Failure, Options, Report, replay, run};
use crate::left::FromBackup;
use crate::node::maintenance::MaintenanceCounts;

/// The sum of many runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Events in all of them.
    pub events: u64,
    /// The intended faults.
    pub faults: Coverage,
    /// The fewest events and faults of a run.
    pub fewest: (u64, u64),
    /// The work that was done.
    pub done: Done,
    /// The maintenance of logs while they were used.
    pub maintenance: MaintenanceCounts,
    /// Of runs that began with a restored log.
    pub from_backup: FromBackup,
    /// The losses that no rule can bring back.
    pub lost: Lost,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.faults.add_all(&report.faults);
        let (events, faults) = if self.seeds == 1 { (u64::MAX, u64::MAX) } else { self.fewest };
        self.fewest = (events.min(report.events), faults.min(report.faults.faults()));
        self.done.add(&report.done);
        self.maintenance.add(&report.maintenance);
        self.from_backup.add(&report.from_backup);
        self.lost.add(&report.lost);
    }
}

/// Runs all seeds of the range, and calls `progress` after each. Every failure ends the search.
///
/// # Errors
/// The failure of the lowest seed that failed, with its trace.
pub fn search(seeds: Range<u64>, options: Options, progress: impl Fn(&Totals) + Sync) -> Result<Totals, Failure> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Totals::default(), None::<Failure>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, options);
            let (totals, failure) = &mut *found.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(report) => {
                    totals.add(&report);
                    progress(totals);
                }
                Err(new) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    if failure.as_ref().is_none_or(|old| new.seed < old.seed) {
                        *failure = Some(new);
                    }
                }
            }
        }
    };
    scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    match found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (totals, None) => Ok(totals),
        (_, Some(failure)) => Err(replay(failure.seed, options).err().unwrap_or(failure)),
    }
}
