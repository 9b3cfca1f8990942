//! Searching a segment by its index, which is made again once it shows itself to be bad.

use zue_core::Offset;

use crate::disk::Disk;
use crate::error::ReadError;
use crate::format::salvage::{Frames, Piece};
use crate::segment::Segment;
use crate::segment::header::index_name;
use crate::segment::index::{Entry, IndexFile, IndexWriter, Share, Spacing};
use crate::segment::lookup::{Index, last};
use crate::segment::part::Part;

impl<D: Disk> Part<D> {
    /// The last entry before the offset that lies at most at the position.
    pub(crate) fn last_before(&self, offset: Offset, position: u64) -> Result<Option<Entry>, ReadError> {
        self.last_entry(Some(Share(position, self.bytes_end)), |entry| {
            entry.offset < offset.0 && entry.position <= position
        })
    }

    /// The last entry that is older.
    pub(crate) fn last_older(&self, timestamp_ms: u64) -> Result<Option<Entry>, ReadError> {
        // A cut has left the entries of what it took.
        self.last_entry(None, |entry| entry.timestamp_ms < timestamp_ms && entry.position < self.bytes_end)
    }

    /// The place to begin to look for the record: a frame at or before it, if any is indexed.
    pub(crate) fn near(&self, offset: Offset) -> Result<Option<Entry>, ReadError> {
        let base = self.segment.base();
        self.last_entry(Some(Share(offset.since(base), self.end.since(base))), |entry| entry.offset <= offset.0)
    }

    /// The last entry for which it holds; it holds for none behind one for which it does not. An index that shows itself to be bad is
    /// made again.
    fn last_entry(&self, guess: Option<Share>, holds: impl Fn(&Entry) -> bool) -> Result<Option<Entry>, ReadError> {
        let body = self.body()?;
        let found = if let Ok(found) = body.lookup.last(guess, &holds) {
            found
        } else {
            let entries = self.entries_from(body.data_start, self.segment.base())?;
            let found = last(&entries, &holds);
            body.lookup.set(self.write_index(entries));
            found
        };
        Ok(found.filter(|entry| (body.data_start..self.bytes_end).contains(&entry.position)))
    }

    /// The index in its file. That is made again if it is not the segment's, or lacks entries at its end; the others are looked at when
    /// they are needed.
    pub(crate) fn load_index(&self, data_start: u64) -> Result<Index, ReadError> {
        let Segment { disk, header, mask, file_bytes, .. } = &*self.segment;
        let file = disk.open(&index_name(header.base)).ok();
        let file = file.and_then(|file| IndexFile::open(&file, *file_bytes, header.nonce, *mask));
        if let Some(file) = file
            && let Ok(last) = file.last(Some(Share(1, 1)), |entry| entry.position < self.bytes_end)
        {
            let last = last.filter(|entry| entry.position >= data_start);
            let (from, next) = last.map_or((data_start, header.base), |last| (last.position, Offset(last.offset)));
            if self.entries_from(from, next)?.is_empty() {
                return Ok(Index::Filed(file));
            }
        }
        Ok(self.write_index(self.entries_from(data_start, header.base)?))
    }

    /// The entries of the frames behind the one at the position, that of record `next`.
    fn entries_from(&self, position: u64, next: Offset) -> Result<Vec<Entry>, ReadError> {
        let Segment { mask, index_interval, place, .. } = &*self.segment;
        let (mut spacing, mut entries) = (Spacing::new(*index_interval, position), Vec::new());
        let bytes = self.segment.view(position, self.bytes_end)?;
        for piece in Frames::new(&bytes, *mask, position, next, self.end) {
            match piece {
                Piece::Record(position, record) if spacing.takes(position) => {
                    let (offset, timestamp_ms) = (record.offset.0, record.timestamp_ms);
                    entries.push(Entry { offset, position, timestamp_ms });
                }
                Piece::Record(..) | Piece::Compacted(..) => {}
                Piece::Damaged(damaged) => {
                    if let error @ ReadError::Disk(_) = place.blame(damaged) {
                        return Err(error);
                    }
                }
            }
        }
        let rises = |a: &Entry, b: &Entry| a.offset < b.offset && a.position < b.position;
        debug_assert!(entries.is_sorted_by(rises), "entries of an index are out of order");
        Ok(entries)
    }

    /// Writes the index file. Where that cannot be done, the entries stay in memory.
    fn write_index(&self, entries: Vec<Entry>) -> Index {
        let Segment { disk, header, mask, file_bytes, .. } = &*self.segment;
        let file = disk.create(&index_name(header.base)).ok();
        let written = IndexWriter::new(file, header.nonce, *mask, &entries).finish(*file_bytes);
        written.map_or(Index::Held(entries), Index::Filed)
    }
}
