//! The CRCs of any parts of some bytes, each at about the same cost however long the part is: what is looked for behind damage may
//! claim any length, at any place.

use std::ops::Range;

use crc32fast::Hasher;

use crate::num::wide;

/// The distance of the places up to which the CRC is remembered.
const STEP_BYTES: usize = 1024;

/// Bytes, and the CRCs of as much of their beginning as was needed so far.
pub(crate) struct Crcs<'a> {
    pub(crate) bytes: &'a [u8],
    /// Of the first 0, 1, 2, … steps.
    known: Vec<u32>,
}

impl<'a> Crcs<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, known: Vec::new() }
    }

    /// The CRC of a part; `None` if the bytes do not reach that far.
    pub(crate) fn of(&mut self, part: Range<usize>) -> Option<u32> {
        let bytes = self.bytes.get(part.clone())?;
        let (first, last) = (part.start.div_ceil(STEP_BYTES), part.end / STEP_BYTES);
        if first >= last {
            return Some(crc32fast::hash(bytes));
        }
        let (head, rest) = bytes.split_at_checked(first * STEP_BYTES - part.start)?;
        let (steps, tail) = rest.split_at_checked((last - first) * STEP_BYTES)?;
        // Behind the first steps, the CRC of all up to there is that of the first steps drawn out over the others, XOR that of the
        // others (crc32_combine of zlib).
        let drawn_out = appended(self.up_to(first)?, 0, steps.len());
        let steps_crc = self.up_to(last)? ^ drawn_out;
        debug_assert_eq!(head.len() + steps.len() + tail.len(), bytes.len(), "a part is of other bytes");
        let mut crc = Hasher::new_with_initial(appended(crc32fast::hash(head), steps_crc, steps.len()));
        crc.update(tail);
        Some(crc.finalize())
    }

    /// The CRC of so many steps.
    fn up_to(&mut self, steps: usize) -> Option<u32> {
        while self.known.len() <= steps {
            let mut crc = Hasher::new_with_initial(self.known.last().copied().unwrap_or_default());
            if let Some(last) = self.known.len().checked_sub(1) {
                crc.update(self.bytes.get(last * STEP_BYTES..(last + 1) * STEP_BYTES)?);
            }
            self.known.push(crc.finalize());
        }
        self.known.get(steps).copied()
    }
}

/// The CRC of what has `front` in front of what has `back`, which is of so many bytes.
fn appended(front: u32, back: u32, bytes: usize) -> u32 {
    let mut crc = Hasher::new_with_initial(front);
    crc.combine(&Hasher::new_with_initial_len(back, wide(bytes)));
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_crc_of_a_part_is_that_of_its_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..9000),
            parts in proptest::collection::vec((0_usize..9100, 0_usize..9100), 1..20),
        ) {
            let mut crcs = Crcs::new(&bytes);
            for (from, to) in parts {
                let expected = bytes.get(from..to).map(crc32fast::hash);
                prop_assert_eq!(crcs.of(from..to), expected, "{}..{}", from, to);
            }
        }
    }
}
