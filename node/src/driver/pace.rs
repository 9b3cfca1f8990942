//! Timers that cost little: they go off together, so that a thread that rests is woken once for all of them; and one that is put off
//! again and again stays where it is.

use std::future::pending;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep_until};

/// An interval in step with all others of this process whose periods divide each other. What it missed is not made up for.
pub(crate) fn in_step(period: Duration) -> Interval {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let (base, now) = (*BASE.get_or_init(Instant::now), Instant::now());
    let mut interval = interval_at(now + until_next(now.duration_since(base), period), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// The time until the next of the moments that lie so far apart, from zero on.
fn until_next(now: Duration, period: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    let left = now.as_nanos().next_multiple_of(period) - now.as_nanos();
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

/// A timer that is put off more often than it goes off. The runtime wakes itself for each timer that is due before all others, which costs
/// more than the append for which it was set: this one is set again only once its time has come, or for an earlier one.
#[derive(Debug)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// An alarm that is not set.
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// Waits until `due`, which may be another time than when it was asked last; for ever if there is none.
    pub(crate) async fn wait(&mut self, due: Option<Instant>) {
        let Some(due) = due else { return pending().await };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            let set = sleep.deadline();
            if sleep.is_elapsed() || due < set {
                sleep.as_mut().reset(due);
            }
            sleep.as_mut().await;
            if sleep.deadline() >= due {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn an_alarm_goes_off_when_it_was_last_asked_to_and_is_set_no_more_often_than_it_has_to_be() {
        let mut alarm = Alarm::new();
        alarm.wait(Some(Instant::now())).await;
        let begun = Instant::now();
        assert!(poll!(pin!(alarm.wait(Some(begun + 6 * MS)))).is_pending());
        // Put off: it stays set for the first time.
        assert!(poll!(pin!(alarm.wait(Some(begun + 60_000 * MS)))).is_pending());
        assert_eq!(alarm.0.as_ref().unwrap().deadline(), begun + 6 * MS);
        assert!(poll!(pin!(alarm.wait(None))).is_pending());
        alarm.wait(Some(begun + 7 * MS)).await;
        assert!(begun.elapsed() >= 7 * MS);
        // Earlier than it was asked before; and at once what is over.
        assert!(poll!(pin!(alarm.wait(Some(begun + Duration::from_hours(1))))).is_pending());
        let now = Instant::now();
        alarm.wait(Some(now + MS)).await;
        assert!(now.elapsed() >= MS);
        assert!(poll!(pin!(alarm.wait(Some(begun + 3 * MS)))).is_ready());
    }

    #[test]
    fn intervals_that_begin_at_different_times_go_off_together() {
        let ms = Duration::from_millis;
        for (now, period, left) in [(0, 50, 0), (1, 50, 49), (50, 50, 0), (51, 50, 49), (51, 100, 49), (149, 100, 51)] {
            assert_eq!(until_next(ms(now), ms(period)), ms(left), "{now} of {period}");
        }
        assert_eq!(until_next(ms(7), Duration::ZERO), Duration::ZERO);
    }
}
