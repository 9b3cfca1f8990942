//! The choice of the lines that are told, of those that repeat. Reads no clock: what time it is is said by whoever asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Once as many lines alike were told as may come at once: one in this time.
const THEN_EVERY: Duration = Duration::from_mins(1);
/// So many lines are told apart; the others share what one may say.
const KINDS_MAX: usize = 1024;
/// The kind that the others count as.
const OTHERS: u64 = 0;

/// The counts of lines that are alike.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// When the lines told so far would all have been due, one every [`THEN_EVERY`].
    paid_at: Instant,
    left_out: u64,
}

/// The lines that were told lately.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    kinds: BTreeMap<u64, Kind>,
}

impl Repeats {
    pub(crate) const fn new() -> Self {
        Self { kinds: BTreeMap::new() }
    }

    /// Returns whether a line of this kind, of which so many may come at once, is told now; and if so, how many like it were left out since
    /// the last one.
    pub(crate) fn tell(&mut self, kind: u64, at_once: u32, now: Instant) -> Option<u64> {
        let is_known = self.kinds.contains_key(&kind);
        if !is_known && self.kinds.len() >= KINDS_MAX {
            self.kinds.retain(|_, known| known.paid_at > now);
        }
        let kind = if is_known || self.kinds.len() < KINDS_MAX { kind } else { OTHERS };
        let known = self.kinds.entry(kind).or_insert(Kind { paid_at: now, left_out: 0 });
        if known.paid_at.saturating_duration_since(now) > THEN_EVERY * at_once.saturating_sub(1) {
            known.left_out += 1;
            return None;
        }
        known.paid_at = known.paid_at.max(now) + THEN_EVERY;
        Some(std::mem::take(&mut known.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE_A_SECOND: Duration = Duration::from_millis(500);

    #[test]
    fn what_repeats_twice_a_second_is_told_ten_times_and_then_once_a_minute_with_how_many_were_left_out() {
        let (mut repeats, begun) = (Repeats::default(), Instant::now());
        let told: Vec<_> = (0..600).filter_map(|n| repeats.tell(7, 10, begun + TWICE_A_SECOND * n)).collect();
        assert_eq!(told, [&[0; 10][..], &[110, 119, 119, 119]].concat());
    }

    #[test]
    fn what_comes_seldom_is_always_told() {
        let (mut repeats, begun) = (Repeats::default(), Instant::now());
        assert!((0..1000).all(|n| repeats.tell(7, 10, begun + THEN_EVERY * n) == Some(0)));
    }

    #[test]
    fn lines_of_another_kind_are_told_all_the_same() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let told = (0..100).filter(|_| repeats.tell(7, 10, now).is_some()).count();
        assert_eq!((told, repeats.tell(8, 10, now)), (10, Some(0)));
    }

    #[test]
    fn ever_new_lines_cost_bounded_memory_and_are_told_seldom() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let told = (1..=10_000).filter(|n| repeats.tell(*n, 10, now).is_some()).count();
        assert_eq!((told, repeats.kinds.len()), (KINDS_MAX + 10, KINDS_MAX + 1));
        let later = now + THEN_EVERY * 11;
        assert_eq!(repeats.tell(20_000, 10, later), Some(0), "what is over is forgotten");
        assert_eq!(repeats.kinds.len(), 1);
    }
}
