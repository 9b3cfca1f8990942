//! The pauses between tries: doubling, bounded, jittered, so that many who failed together don't come back together.

use crate::types::Millis;

/// The bounds of a pause, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The pause after the first failure.
    pub min_ms: u64,
    /// The pause never grows above this.
    pub max_ms: u64,
}

impl Backoff {
    /// The longest pause after `failures` failures in a row.
    pub fn bound(self, failures: u32) -> u64 {
        debug_assert!(self.min_ms <= self.max_ms, "the first pause is longer than the longest");
        let doublings = failures.saturating_sub(1).min(20);
        self.min_ms.saturating_mul(1 << doublings).min(self.max_ms)
    }

    /// The pause after `failures` failures in a row: from half of its bound to all of it, as `random` says.
    pub fn pause(self, failures: u32, random: u64) -> u64 {
        let bound = self.bound(failures);
        let pause = bound - random % (bound / 2 + 1);
        debug_assert!(pause <= bound && pause >= bound / 2, "a pause out of its bounds");
        pause
    }
}

/// When something that failed may be tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    not_before: Millis,
}

impl Retry {
    pub(super) fn is_due(self, now: Millis) -> bool {
        self.not_before <= now
    }

    pub(super) fn failures(self) -> u32 {
        self.failures
    }

    pub(super) fn failed(&mut self, now: Millis, backoff: Backoff, random: &mut Random) {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff.pause(self.failures, random.next());
        self.not_before = Millis(now.0.saturating_add(pause));
    }
}

/// Numbers that look random, from a seed: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An id: never 0.
    pub(super) fn id(&mut self) -> u128 {
        ((u128::from(self.next()) << 64) | u128::from(self.next())).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_bound_and_jitters_downwards_only() {
        let backoff = Backoff { min_ms: 100, max_ms: 1000 };
        assert_eq!([1, 2, 3, 4, 5, 60].map(|failures| backoff.pause(failures, 0)), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.pause(1, 50), 50);
        assert_eq!(backoff.pause(1, 51), 100);
    }

    #[test]
    fn a_retry_is_due_once_its_pause_is_over() {
        let (mut retry, mut random) = (Retry::default(), Random(7));
        assert!(retry.is_due(Millis(0)));
        retry.failed(Millis(10), Backoff { min_ms: 100, max_ms: 100 }, &mut random);
        assert!(!retry.is_due(Millis(59)) && retry.is_due(Millis(110)));
    }
}
