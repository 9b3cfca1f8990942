//! The remains of unsynced data after a crash: by chance, or every possibility in turn.

use std::ops::Range;

use crate::num::{length, wide};

/// Picks what a crash leaves.
pub trait Chance {
    /// One of so many possibilities, counted from 0.
    fn pick(&mut self, of: u64) -> u64;
    /// The part of a write of so many bytes that is left.
    fn part(&mut self, bytes: usize) -> Range<usize>;
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Chance for Random {
    fn pick(&mut self, of: u64) -> u64 {
        self.next() % of.max(1)
    }

    fn part(&mut self, bytes: usize) -> Range<usize> {
        let mut place = || length(self.next() % (wide(bytes) + 1));
        let (a, b) = (place(), place());
        a.min(b)..a.max(b)
    }
}

/// Every possibility, one after the other: the first picks first, then the last of them is changed, and so on. A torn write has two
/// possibilities: its first half is left, or its second.
#[derive(Clone, Debug, Default)]
pub struct Every {
    /// The choice, and of how many.
    picked: Vec<(u64, u64)>,
    at: usize,
}

impl Every {
    /// Goes on to the next possibility; whether there is one.
    pub fn go_on(&mut self) -> bool {
        self.at = 0;
        while let Some((last, of)) = self.picked.pop() {
            if last + 1 < of {
                self.picked.push((last + 1, of));
                return true;
            }
        }
        false
    }
}

impl Chance for Every {
    fn pick(&mut self, of: u64) -> u64 {
        if self.picked.len() == self.at {
            self.picked.push((0, of));
        }
        let (picked, known) = self.picked.get(self.at).copied().unwrap_or_default();
        debug_assert_eq!(known, of, "what goes on is not what was begun");
        self.at += 1;
        picked
    }

    fn part(&mut self, bytes: usize) -> Range<usize> {
        if self.pick(2) == 0 { 0..bytes / 2 } else { bytes / 2..bytes }
    }
}
