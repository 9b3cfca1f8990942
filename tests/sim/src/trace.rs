//! The trace of a run: a hash of all of it, and its last lines in words.

use std::collections::VecDeque;
use std::fmt::Arguments;

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    /// Words are made only for a run that is known to fail.
    lines: Option<VecDeque<String>>,
    lines_max: usize,
}

impl Trace {
    pub(crate) fn new(lines_max: Option<usize>) -> Self {
        let lines = lines_max.map(|_| VecDeque::new());
        Self { hash: 0xcbf2_9ce4_8422_2325, lines, lines_max: lines_max.unwrap_or_default() }
    }

    pub(crate) fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    pub(crate) fn say(&mut self, now: u64, words: Arguments<'_>) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() >= self.lines_max {
            lines.pop_front();
        }
        lines.push_back(format!("{now:>6} ms  {words}"));
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default().into()
    }
}
