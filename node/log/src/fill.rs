//! Zeroes ahead of the tail. Room that was only reserved becomes the file's with the first sync of what is written there, which
//! costs a write to the file system's journal; in room that was written before, a sync moves data only. So small syncs write zeroes
//! for many of their kind ahead, which are synced together with the data in front of them.

use std::ops::Range;

use crate::num::length;

/// Syncs of more bytes than this pay for their room themselves: zeroes would double what is written.
const SYNC_BYTES_MAX: u64 = 256 << 10;
/// For how many syncs of the same size there are to be zeroes.
const SYNCS_AHEAD: u64 = 32;
const FILL_BYTES_MIN: u64 = 64 << 10;
const FILL_BYTES_MAX: u64 = 2 << 20;

static ZEROES: [u8; 2 << 20] = [0; 2 << 20];

/// How far a segment has been written, zeroes included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    /// Where the last sync ended.
    synced: u64,
    filled: u64,
}

impl Fill {
    pub(crate) fn new(position: u64) -> Self {
        Self { synced: position, filled: position }
    }

    /// What to fill before a sync of what was written up to `position`.
    pub(crate) fn next(&mut self, position: u64, file_bytes: u64) -> Option<Range<u64>> {
        let bytes = position.saturating_sub(self.synced);
        self.synced = position;
        if bytes == 0 || bytes > SYNC_BYTES_MAX || position.saturating_add(bytes) <= self.filled {
            return None;
        }
        let ahead = bytes.saturating_mul(SYNCS_AHEAD).clamp(FILL_BYTES_MIN, FILL_BYTES_MAX);
        let start = self.filled.max(position);
        self.filled = start.saturating_add(ahead).min(file_bytes);
        (start < self.filled).then_some(start..self.filled)
    }
}

/// As many zeroes as the range is long.
pub(crate) fn zeroes_of(range: &Range<u64>) -> &'static [u8] {
    ZEROES.get(..length(range.end.saturating_sub(range.start))).unwrap_or(&ZEROES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::wide;

    const FILE: u64 = 64 << 20;

    #[test]
    fn small_syncs_find_zeroes_that_an_earlier_one_has_written() {
        let mut fill = Fill::new(1000);
        let first = fill.next(11_000, FILE).unwrap();
        assert_eq!(first, 11_000..11_000 + 320_000);
        let mut position = 11_000;
        for _ in 0..31 {
            position += 10_000;
            assert_eq!(fill.next(position, FILE), None, "at {position}");
        }
        assert_eq!(fill.next(position + 10_000, FILE).unwrap().start, first.end.max(position + 10_000));
    }

    #[test]
    fn large_syncs_and_the_end_of_the_file_are_not_filled() {
        let mut fill = Fill::new(0);
        assert_eq!(fill.next(1 << 20, FILE), None);
        assert_eq!(fill.next(FILE - 10, FILE), None);
        let mut fill = Fill::new(FILE - 100);
        assert_eq!(fill.next(FILE - 50, FILE), Some(FILE - 50..FILE));
        assert_eq!(fill.next(FILE, FILE), None);
        assert_eq!(fill.next(FILE, FILE), None);
    }

    #[test]
    fn the_zeroes_are_as_long_as_the_range() {
        assert_eq!(zeroes_of(&(5..5 + FILL_BYTES_MAX)).len(), length(FILL_BYTES_MAX));
        assert_eq!(wide(zeroes_of(&(5..8)).len()), 3);
    }
}
