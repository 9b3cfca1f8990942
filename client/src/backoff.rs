//! The pauses between tries: doubling, bounded, jittered, so that many who failed together don't come back together.

use std::time::Duration;

/// The bounds of a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The pause after the first failure.
    pub min: Duration,
    /// The pause never grows above this.
    pub max: Duration,
}

impl Backoff {
    /// The pause after `failures` failures in a row; `jitter` in `0.0..1.0` takes it from half of the bound to all of it.
    fn pause_at(self, failures: u32, jitter: f64) -> Duration {
        self.bound(failures).mul_f64(0.5 + jitter / 2.0)
    }

    /// The longest pause after `failures` failures in a row.
    fn bound(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }

    /// The pause after `failures` failures in a row, jittered.
    pub fn pause(self, failures: u32) -> Duration {
        self.pause_at(failures, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_bound_and_jitters_downwards_only() {
        let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(1) };
        let pauses = [1, 2, 3, 4, 5, 60].map(|failures| backoff.pause_at(failures, 1.0).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.pause_at(1, 0.0).as_millis(), 50);
    }
}
