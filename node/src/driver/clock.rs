//! This node's wall clock, and what is known of the others': whether they agree, and what time it is as far as they do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zue_core::{Millis, Offset};

use crate::metrics::Metrics;

/// The error of a clock, or of the log's time, from which on there is a warning.
const WARN_MS: i64 = 60_000;

/// The time of this node's wall clock, milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The agreed time, known while a leader is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AgreedTime {
    /// The time that a majority's clocks have reached, ms since the Unix epoch.
    pub(crate) agreed_ms: u64,
    /// The end of what the leader knows to be committed.
    pub(crate) told_end: Offset,
}

/// The same, told by the driver to those who look at it when they need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTime(Arc<Mutex<Option<AgreedTime>>>);

impl SharedTime {
    fn cell(&self) -> MutexGuard<'_, Option<AgreedTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, known: Option<AgreedTime>) {
        *self.cell() = known;
    }

    pub(crate) fn known(&self) -> Option<AgreedTime> {
        *self.cell()
    }
}

/// This node's clock beside the others.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    last: Option<(Millis, u64)>,
    /// The lead over what a majority's clocks have reached, ms; none while that is not known.
    pub(crate) ahead_ms: Option<i64>,
    /// The lead of the log's newest timestamp over that, or of this clock while it is not known, ms.
    pub(crate) log_ahead_ms: u64,
    warned: (bool, bool),
}

impl Clocks {
    /// Compares what this clock shows with what is told of the others and with the log's newest timestamp.
    pub(crate) fn look(
        &mut self,
        (now, own_ms): (Millis, u64),
        told_ms: Option<u64>,
        newest_ms: u64,
        metrics: &Metrics,
    ) {
        if let Some(by_ms) = self.stepped(now, own_ms) {
            metrics.clock_steps.inc();
            tracing::warn!(by_s = by_ms / 1000, "this node's clock was set while it ran");
        }
        self.ahead_ms = told_ms.map(|told_ms| difference(own_ms, told_ms));
        self.log_ahead_ms = newest_ms.saturating_sub(told_ms.unwrap_or(own_ms));
        let behind = Duration::from_millis(self.ahead_ms.map_or(0, |ahead_ms| ahead_ms.min(0).unsigned_abs()));
        let ahead = Duration::from_millis(self.ahead_ms.map_or(0, |ahead_ms| ahead_ms.max(0).unsigned_abs()));
        metrics.clock_ahead_seconds.set(ahead.as_secs_f64() - behind.as_secs_f64());
        metrics.log_time_ahead_seconds.set(Duration::from_millis(self.log_ahead_ms).as_secs_f64());
        let warn = (self.clock_problem(), self.log_problem());
        let warned = std::mem::replace(&mut self.warned, (warn.0.is_some(), warn.1.is_some()));
        for (problem, warned) in [(warn.0, warned.0), (warn.1, warned.1)] {
            match problem {
                Some(problem) if !warned => tracing::warn!("{problem}"),
                None if warned => tracing::info!("the clocks, or the log's time, are within a minute again"),
                _ => {}
            }
        }
    }

    /// The time by which the clock was set since the last look, if more than a minute.
    fn stepped(&mut self, now: Millis, own_ms: u64) -> Option<i64> {
        let (then, was_ms) = self.last.replace((now, own_ms))?;
        let by_ms = difference(own_ms, was_ms.saturating_add(now.since(then)));
        (by_ms.abs() > WARN_MS).then_some(by_ms)
    }

    fn clock_problem(&self) -> Option<String> {
        let ahead_ms = self.ahead_ms.filter(|ahead_ms| ahead_ms.abs() > WARN_MS)?;
        let where_to = if ahead_ms > 0 { "ahead of" } else { "behind" };
        let by_s = ahead_ms.unsigned_abs() / 1000;
        Some(format!(
            "this node's clock is {by_s} s {where_to} the time that a majority of the voters' clocks have reached: set it right. \
             Nothing is deleted because of it"
        ))
    }

    fn log_problem(&self) -> Option<String> {
        let by_s = self.log_ahead_ms / 1000;
        (self.log_ahead_ms > WARN_MS.unsigned_abs()).then(|| {
            format!(
                "the log's newest timestamp is {by_s} s ahead of the clocks: new records get it too until they have caught up"
            )
        })
    }

    /// The problem of the clock, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        self.clock_problem().or_else(|| self.log_problem())
    }
}

/// The lead of one time over another, ms.
fn difference(time_ms: u64, other_ms: u64) -> i64 {
    let ahead = i64::try_from(time_ms.saturating_sub(other_ms)).unwrap_or(i64::MAX);
    let behind = i64::try_from(other_ms.saturating_sub(time_ms)).unwrap_or(i64::MAX);
    ahead - behind
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: u64 = 1_700_000_000_000;

    #[test]
    fn a_clock_or_a_log_that_is_off_by_more_than_a_minute_is_a_problem() {
        let (mut clocks, metrics) = (Clocks::default(), Metrics::new().unwrap());
        for (own_ms, told_ms, newest_ms, expected) in [
            (TRUE, Some(TRUE), TRUE, None),
            (TRUE + 60_000, Some(TRUE), TRUE, None),
            (TRUE + 60_001, Some(TRUE), TRUE, Some("60 s ahead of")),
            (TRUE - 3_600_000, Some(TRUE), TRUE, Some("3600 s behind")),
            (TRUE, None, TRUE, None),
            (TRUE, Some(TRUE), TRUE + 60_001, Some("newest timestamp is 60 s ahead")),
            (TRUE, None, TRUE + 3_600_000, Some("newest timestamp is 3600 s ahead")),
            (0, Some(u64::MAX), 0, Some("s behind")),
            (u64::MAX, Some(0), u64::MAX, Some("s ahead of")),
        ] {
            clocks.look((Millis(0), own_ms), told_ms, newest_ms, &metrics);
            let problem = clocks.problem();
            let is_told = problem.as_deref().zip(expected).map(|(problem, expected)| problem.contains(expected));
            assert_eq!((problem.is_some(), is_told.unwrap_or(true)), (expected.is_some(), true), "{problem:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_while_the_node_runs_is_counted() {
        let (mut clocks, metrics) = (Clocks::default(), Metrics::new().unwrap());
        for (now, own_ms, steps) in [
            (0, TRUE, 0),
            (1000, TRUE + 1000, 0),
            // The node did nothing for a while.
            (500_000, TRUE + 500_000, 0),
            (500_050, TRUE + 4_100_050, 1),
            (500_100, TRUE + 4_100_100, 1),
            (500_150, TRUE + 500_150, 2),
        ] {
            clocks.look((Millis(now), own_ms), None, 0, &metrics);
            assert_eq!(metrics.clock_steps.get(), steps, "{now}");
        }
    }
}
