//! The sparse index of a segment: where some of its records are. Derived from the segment, and rebuilt when in doubt.

use bytes::Bytes;

use crate::config::INDEX_INTERVAL_BYTES_MIN;
use crate::format::block::is_later;
use crate::num::{Cursor, length, wide};

const MAGIC: [u8; 8] = *b"ZUE-IDX\n";
const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
/// Entries are written in pieces of this many bytes.
const PIECE_BYTES: usize = 4096;
const _: () = assert!(HEADER_BYTES == ENTRY_BYTES, "entries do not lie at multiples of their length");

/// The place of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// Of its frame in the segment file.
    pub(crate) position: u64,
    pub(crate) timestamp_ms: u64,
}

/// Chooses the records that get an entry: the first that begins at least an interval after the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spacing {
    pub(crate) interval: u64,
    pub(crate) next_at: u64,
}

impl Spacing {
    pub(crate) fn new(interval: u32, data_start: u64) -> Self {
        Self { interval: interval.into(), next_at: data_start.saturating_add(interval.into()) }
    }

    /// Returns whether the record whose frame begins at `position` gets one.
    pub(crate) fn takes(&mut self, position: u64) -> bool {
        let takes = position >= self.next_at;
        if takes {
            self.next_at = position.saturating_add(self.interval);
        }
        takes
    }
}

/// The part of an index file that is not written yet. A failed write ends it: the index is rebuilt when the log is opened.
#[derive(Debug)]
pub(crate) struct IndexWriter<F> {
    file: Option<F>,
    position: u64,
    nonce: u64,
    mask: u32,
    pending: Vec<u8>,
}

impl<F: crate::DiskFile> IndexWriter<F> {
    /// Writes into a new file, or not at all if there is none.
    pub(crate) fn new(file: Option<F>, nonce: u64, mask: u32, entries: &[Entry]) -> Self {
        let mut writer = Self { file, position: 0, nonce, mask, pending: encode_header(nonce).to_vec() };
        writer.extend(entries);
        writer
    }

    /// Goes on in a file that already holds `entries` entries.
    pub(crate) fn resume(file: F, nonce: u64, mask: u32, entries: usize) -> Self {
        let position = position_of(entries);
        Self { file: Some(file), position, nonce, mask, pending: Vec::new() }
    }

    pub(crate) fn extend(&mut self, entries: &[Entry]) {
        if self.file.is_some() {
            self.pending.extend(entries.iter().flat_map(|entry| encode_entry(*entry, self.mask)));
        }
    }

    /// Writes what is pending if it has become a piece.
    pub(crate) fn write_some(&mut self) {
        if self.pending.len() >= PIECE_BYTES {
            self.write_all();
        }
    }

    /// Writes what is pending. Not synced: nothing depends on it.
    pub(crate) fn write_all(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        debug_assert!(self.pending.len().is_multiple_of(ENTRY_BYTES), "a part of an entry is to be written");
        debug_assert!(self.position.is_multiple_of(wide(ENTRY_BYTES)), "an entry is written into another");
        if self.file.as_ref().is_some_and(|file| file.write_at(self.position, &self.pending).is_err()) {
            self.file = None;
        }
        self.position = self.position.saturating_add(wide(self.pending.len()));
        self.pending.clear();
    }

    /// Writes the rest, and gives the whole file to be searched, unless it could not be written. Nothing is written any more then.
    pub(crate) fn finish(&mut self, segment_bytes: u64) -> Option<IndexFile> {
        self.write_all();
        let file = self.file.take()?;
        IndexFile::open(&file, segment_bytes, self.nonce, self.mask)
    }
}

/// An index file that is searched where it lies: the system may keep it in memory, or not. It is not written any more.
#[derive(Clone, Debug)]
pub(crate) struct IndexFile {
    entries: Bytes,
    mask: u32,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(pub(crate) u64, pub(crate) u64);

impl Share {
    fn of(self, count: usize) -> usize {
        length(wide(count).saturating_mul(self.0).checked_div(self.1).unwrap_or_default()).min(count)
    }
}

/// As [`slice::partition_point`], for one that is near the guess: few pages are touched then.
fn partition_near<T>(items: &[T], guess: usize, holds: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while items.get(high).is_some_and(&holds) {
        low = high + 1;
        high = high.saturating_add(step).min(items.len());
        step *= 2;
    }
    while low.checked_sub(1).and_then(|before| items.get(before)).is_some_and(|before| !holds(before)) {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    low + items.get(low..high).unwrap_or_default().partition_point(holds)
}

/// Bytes of an index are not those that were written, or could not be read.
#[derive(Debug)]
pub(crate) struct NotAsWritten;

impl IndexFile {
    /// The file, if its head and its length are those of an index of the segment with that nonce. Its entries are not looked at.
    pub(crate) fn open(file: &impl crate::DiskFile, segment_bytes: u64, nonce: u64, mask: u32) -> Option<Self> {
        let all = 0..file.len().ok().filter(|bytes| *bytes <= bytes_max(segment_bytes))?;
        // There are only so many maps.
        let bytes = file.view(all.clone()).or_else(|_| file.read(all)).ok()?;
        let (head, rest) = bytes.split_first_chunk()?;
        let is_it = *head == encode_header(nonce) && rest.len().is_multiple_of(ENTRY_BYTES);
        is_it.then(|| Self { entries: bytes.slice(HEADER_BYTES..), mask })
    }

    /// The last entry for which it holds; it holds for none behind one for which it does not. The guess is the share of
    /// the entries for which it may hold, if one can be made.
    pub(crate) fn last(
        &self,
        guess: Option<Share>,
        holds: impl Fn(&Entry) -> bool,
    ) -> Result<Option<Entry>, NotAsWritten> {
        let (entries, _) = self.entries.as_chunks::<ENTRY_BYTES>();
        // The CRCs of the two entries at which it ends are enough: if others have led it astray, these do not fit.
        let holds_raw = |bytes: &[u8; ENTRY_BYTES]| holds(&parse_entry(bytes));
        let after = match guess {
            Some(guess) => partition_near(entries, guess.of(entries.len()), holds_raw),
            None => entries.partition_point(holds_raw),
        };
        let fits = |at: usize, held: bool| match entries.get(at) {
            None => Ok(None),
            Some(bytes) => match decode_entry(bytes, self.mask).filter(|entry| holds(entry) == held) {
                None => Err(NotAsWritten),
                found => Ok(found),
            },
        };
        fits(after, false)?;
        after.checked_sub(1).map_or(Ok(None), |last| fits(last, true))
    }
}

fn encode_header(nonce: u64) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let fields = [MAGIC, u64::from(VERSION).to_le_bytes(), nonce.to_le_bytes()].concat();
    let crc = crc32fast::hash(&fields).to_le_bytes();
    debug_assert!(fields.len() + crc.len() <= HEADER_BYTES, "the head of an index is cut off");
    for (place, byte) in out.iter_mut().zip(fields.into_iter().chain(crc)) {
        *place = byte;
    }
    out
}

fn encode_entry(entry: Entry, mask: u32) -> [u8; ENTRY_BYTES] {
    let Entry { offset, position, timestamp_ms } = entry;
    let words = [offset, position, timestamp_ms].map(u64::to_le_bytes);
    let crc = u64::from(crc32fast::hash(words.as_flattened()) ^ mask).to_le_bytes();
    let [offset, position, timestamp_ms] = words;
    let mut out = [0; ENTRY_BYTES];
    out.as_chunks_mut().0.copy_from_slice(&[offset, position, timestamp_ms, crc]);
    debug_assert_eq!(parse_entry(&out), entry, "an entry that says something else");
    out
}

/// Parses the bytes of an entry, which may not be those that were written.
fn parse_entry(bytes: &[u8; ENTRY_BYTES]) -> Entry {
    let (words, _) = bytes.as_chunks();
    let word = |at: usize| words.get(at).map_or(0, |word| u64::from_le_bytes(*word));
    Entry { offset: word(0), position: word(1), timestamp_ms: word(2) }
}

/// The entry, if its bytes are those that were written.
fn decode_entry(bytes: &[u8; ENTRY_BYTES], mask: u32) -> Option<Entry> {
    Some(parse_entry(bytes)).filter(|entry| encode_entry(*entry, mask) == *bytes)
}

/// The entries of an index file.
///
/// # Errors
/// The position of the first byte that is not as it was written for the segment of that nonce.
pub(crate) fn decode(bytes: &[u8], nonce: u64, mask: u32) -> Result<Vec<Entry>, u64> {
    let rest = bytes.split_first_chunk().filter(|(head, _)| **head == encode_header(nonce));
    let Some((_, rest)) = rest else { return Err(0) };
    let (whole, torn) = rest.as_chunks::<ENTRY_BYTES>();
    let mut entries: Vec<Entry> = Vec::with_capacity(whole.len());
    for bytes in whole {
        let position = position_of(entries.len());
        let entry = decode_entry(bytes, mask).ok_or(position)?;
        if entries.last().is_some_and(|last| last.offset >= entry.offset || last.position >= entry.position) {
            return Err(position);
        }
        entries.push(entry);
    }
    if torn.is_empty() { Ok(entries) } else { Err(wide(bytes.len() - torn.len())) }
}

/// The version of the format, if that is a later one. Such an index says nothing that is not in its segment, and yet it is left as it is:
/// what else has changed with it is not known.
pub(crate) fn later_version(head: &[u8]) -> Option<u32> {
    let mut cursor = Cursor(head);
    let (magic, version) = (cursor.array()?, cursor.u32()?);
    let mut with_ours = || {
        let (_reserved, nonce) = (cursor.u32()?, cursor.u64()?);
        let mut ours = head.first_chunk::<HEADER_BYTES>().copied()?;
        ours.get_mut(MAGIC.len()..MAGIC.len() + 4)?.copy_from_slice(&VERSION.to_le_bytes());
        Some(ours == encode_header(nonce))
    };
    (magic == MAGIC && is_later(version, VERSION, || with_ours().unwrap_or_default())).then_some(version)
}

/// The largest size of an index file of a segment of so many bytes.
pub(crate) fn bytes_max(segment_bytes: u64) -> u64 {
    let entries = segment_bytes / u64::from(INDEX_INTERVAL_BYTES_MIN);
    entries.saturating_mul(wide(ENTRY_BYTES)).saturating_add(wide(HEADER_BYTES))
}

/// The position of the entry of that number in an index file.
pub(crate) fn position_of(entry: usize) -> u64 {
    wide(HEADER_BYTES + entry * ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guess_leads_to_the_same_place() {
        for count in 0..40 {
            let items: Vec<usize> = (0..count).collect();
            for (point, guess) in (0..=count).flat_map(|point| (0..=count).map(move |guess| (point, guess))) {
                assert_eq!(partition_near(&items, guess, |item| *item < point), point, "from {guess} of {count}");
            }
        }
    }

    #[test]
    fn a_share_is_never_more_than_the_whole() {
        let of_ten =
            [(0, 5), (1, 2), (5, 5), (9, 5), (3, 0), (u64::MAX, 1)].map(|(part, whole)| Share(part, whole).of(10));
        assert_eq!(of_ten, [0, 5, 10, 10, 0, 10]);
    }
}
