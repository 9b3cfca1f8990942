//! Timers that go off together: a thread that rests is woken once for all of them.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// An interval in step with all others of this process whose periods divide each other. What it missed is not made up for.
pub(crate) fn in_step(period: Duration) -> Interval {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let (base, now) = (*BASE.get_or_init(Instant::now), Instant::now());
    let mut interval = interval_at(now + until_next(now.duration_since(base), period), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// How long it is until the next of the moments that lie so far apart, from zero on.
fn until_next(now: Duration, period: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    let left = now.as_nanos().next_multiple_of(period) - now.as_nanos();
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_that_begin_at_different_times_go_off_together() {
        let ms = Duration::from_millis;
        for (now, period, left) in [(0, 50, 0), (1, 50, 49), (50, 50, 0), (51, 50, 49), (51, 100, 49), (149, 100, 51)] {
            assert_eq!(until_next(ms(now), ms(period)), ms(left), "{now} of {period}");
        }
        assert_eq!(until_next(ms(7), Duration::ZERO), Duration::ZERO);
    }
}
