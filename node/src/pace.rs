//! Timers that go off together: a thread that rests is woken once for all of them.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// An interval in step with all others of this process whose periods divide each other. What it missed is not made up for.
pub(crate) fn in_step(period: Duration) -> Interval {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let (base, now) = (*BASE.get_or_init(Instant::now), Instant::now());
    let periods = now.duration_since(base).as_nanos().div_ceil(period.as_nanos().max(1));
    let ahead = period.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX));
    let mut interval = interval_at((base + ahead).max(now), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn intervals_that_begin_at_different_times_go_off_together() {
        let period = Duration::from_millis(20);
        let mut first = in_step(period);
        first.tick().await;
        tokio::time::sleep(period / 3).await;
        let (mut second, mut third) = (in_step(period), in_step(period * 2));
        let (next, other, rarer) = (first.tick().await, second.tick().await, third.tick().await);
        assert_eq!(next, other);
        assert!(rarer == next || rarer == next + period, "{next:?} {rarer:?}");
    }
}
