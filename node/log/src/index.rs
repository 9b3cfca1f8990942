//! The sparse index of a segment: where some of its records are. Derived from the segment, and rebuilt when in doubt.

use crate::num::{Cursor, wide};

const MAGIC: [u8; 8] = *b"ZUE-IDX\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
/// Entries are written in pieces of this many bytes.
const PIECE_BYTES: usize = 4096;

/// Where a record is.
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

    /// Whether the record whose frame begins at `position` gets one.
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
    mask: u32,
    pending: Vec<u8>,
}

impl<F: crate::DiskFile> IndexWriter<F> {
    /// Writes into a new file, or not at all if there is none.
    pub(crate) fn new(file: Option<F>, nonce: u64, mask: u32, entries: &[Entry]) -> Self {
        let mut writer = Self { file, position: 0, mask, pending: encode_header(nonce).to_vec() };
        writer.extend(entries);
        writer
    }

    /// Goes on in a file that already holds `entries` entries.
    pub(crate) fn resume(file: F, mask: u32, entries: usize) -> Self {
        let position = position_of(entries);
        Self { file: Some(file), position, mask, pending: Vec::new() }
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
        if self.file.as_ref().is_some_and(|file| file.write_at(self.position, &self.pending).is_err()) {
            self.file = None;
        }
        self.position = self.position.saturating_add(wide(self.pending.len()));
        self.pending.clear();
    }
}

fn encode_header(nonce: u64) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let fields = [MAGIC, u64::from(VERSION).to_le_bytes(), nonce.to_le_bytes()].concat();
    let crc = crc32fast::hash(&fields).to_le_bytes();
    for (place, byte) in out.iter_mut().zip(fields.into_iter().chain(crc)) {
        *place = byte;
    }
    out
}

fn encode_entry(Entry { offset, position, timestamp_ms }: Entry, mask: u32) -> [u8; ENTRY_BYTES] {
    let mut out = [0; ENTRY_BYTES];
    let fields = [offset.to_le_bytes(), position.to_le_bytes(), timestamp_ms.to_le_bytes()].concat();
    let crc = (crc32fast::hash(&fields) ^ mask).to_le_bytes();
    for (place, byte) in out.iter_mut().zip(fields.into_iter().chain(crc)) {
        *place = byte;
    }
    out
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
        let mut cursor = Cursor(bytes);
        let mut parse = || Some(Entry { offset: cursor.u64()?, position: cursor.u64()?, timestamp_ms: cursor.u64()? });
        let entry = parse().filter(|entry| encode_entry(*entry, mask) == *bytes).ok_or(position)?;
        if entries.last().is_some_and(|last| last.offset >= entry.offset || last.position >= entry.position) {
            return Err(position);
        }
        entries.push(entry);
    }
    if torn.is_empty() { Ok(entries) } else { Err(wide(bytes.len() - torn.len())) }
}

/// Where the entry of that number is in an index file.
pub(crate) fn position_of(entry: usize) -> u64 {
    wide(HEADER_BYTES + entry * ENTRY_BYTES)
}
