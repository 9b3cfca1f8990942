//! An open segment. What is in its file beyond the header is looked at when it is first used, so that opening a log does not
//! grow with it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};

use zue_core::Offset;

use crate::block::BLOCK_BYTES;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Damage, Operation, ReadError};
use crate::frame::{Fault, Frame, KIND_RECORD, Snapshot, parse};
use crate::index::{self, Entry, IndexWriter, Spacing};
use crate::num::wide;
use crate::segment::{Header, index_name, segment_name};
use crate::view::Walk;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Segment<D: Disk> {
    pub(crate) file: D::File,
    pub(crate) file_bytes: u64,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) mask: u32,
    index_interval: u32,
    disk: D,
    body: OnceLock<Body>,
}

/// What is known of a segment once it is used.
#[derive(Debug)]
pub(crate) struct Body {
    /// Where the frames behind the snapshot begin.
    pub(crate) data_start: u64,
    /// Of the last record before the segment.
    pub(crate) timestamp_ms: u64,
    index: RwLock<Vec<Entry>>,
}

impl Body {
    pub(crate) fn new(data_start: u64, timestamp_ms: u64) -> Self {
        Self { data_start, timestamp_ms, index: RwLock::default() }
    }

    /// Its index entries, in order.
    fn index(&self) -> Vec<Entry> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds entries, whose offsets and positions rise.
    pub(crate) fn extend_index(&self, entries: &[Entry]) {
        if !entries.is_empty() {
            self.index.write().unwrap_or_else(PoisonError::into_inner).extend_from_slice(entries);
        }
    }

    /// The last entry before the offset that lies at most at the position.
    pub(crate) fn last_before(&self, offset: Offset, position: u64) -> Option<Entry> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.offset < offset.0 && entry.position <= position);
        after.checked_sub(1).and_then(|last| index.get(last)).copied()
    }

    /// Where to begin to look for the record: a frame at or before it.
    pub(crate) fn near(&self, offset: Offset) -> u64 {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.offset <= offset.0);
        after.checked_sub(1).and_then(|last| index.get(last)).map_or(self.data_start, |entry| entry.position)
    }
}

impl<D: Disk> Segment<D> {
    pub(crate) fn new(disk: &D, file: D::File, file_bytes: u64, header: Header, index_interval: u32) -> Self {
        let (path, mask) = (disk.path(&segment_name(header.base)), header.mask());
        Self { file, file_bytes, path, header, mask, index_interval, disk: disk.clone(), body: OnceLock::new() }
    }

    pub(crate) fn base(&self) -> Offset {
        self.header.base
    }

    /// Says that bytes of it are not what was written.
    pub(crate) fn damage(&self, position: u64, doubtful: Range<Offset>, fault: Fault) -> Damage {
        Damage { path: self.path.clone(), position, from: doubtful.start, to: doubtful.end, fault }
    }

    /// The entries of its index that are known.
    pub(crate) fn index(&self) -> Vec<Entry> {
        self.body.get().map_or_else(Vec::new, Body::index)
    }

    /// Adds to its index, which is known.
    pub(crate) fn extend_index(&self, entries: &[Entry]) {
        self.body.get().into_iter().for_each(|body| body.extend_index(entries));
    }

    /// Says what is in it, if nobody has yet.
    pub(crate) fn begin(&self, body: Body) {
        let _ = self.body.set(body);
    }

    /// Reads and checks its snapshot; gives it and where the frames behind it begin.
    pub(crate) fn snapshot(&self) -> Result<(Snapshot, u64), ReadError> {
        let bytes = self.file.view(0..self.file_bytes).context(Operation::Read, || self.path.clone())?;
        let found = match parse(bytes.get(BLOCK_BYTES..).unwrap_or_default(), self.mask) {
            Ok((Frame::Snapshot(snapshot), bytes)) if snapshot.base == self.base() => {
                Ok((snapshot, wide(BLOCK_BYTES + bytes)))
            }
            Ok(_) => Err(Fault::Snapshot),
            Err(fault) => Err(fault),
        };
        found.map_err(|fault| self.damage(wide(BLOCK_BYTES), self.base()..self.base(), fault).into())
    }

    /// What is in it; its frames in the log end at `bytes_end`.
    pub(crate) fn body(&self, bytes_end: u64) -> Result<&Body, ReadError> {
        if let Some(body) = self.body.get() {
            return Ok(body);
        }
        let (Snapshot { timestamp_ms, .. }, data_start) = self.snapshot()?;
        let body = Body::new(data_start, timestamp_ms);
        body.extend_index(&self.load_index(data_start, bytes_end)?);
        // If another reader was faster, it has found the same.
        Ok(self.body.get_or_init(|| body))
    }

    /// The entries of the index file, and of the frames behind its last one; those of all frames if it is damaged or missing. The
    /// file is made again if it lacks any.
    fn load_index(&self, data_start: u64, bytes_end: u64) -> Result<Vec<Entry>, ReadError> {
        let name = index_name(self.base());
        let read = || {
            let file = self.disk.open(&name).ok()?;
            let bytes = file.read(0..file.len().ok()?).ok()?;
            index::decode(&bytes, self.header.nonce, self.mask)
        };
        let found = read();
        let mut entries = found.clone().unwrap_or_default();
        // A cut has left the entries of what it took.
        entries.retain(|entry| (data_start..bytes_end).contains(&entry.position));
        let from = entries.last().map_or(data_start, |last| last.position);
        let mut spacing = Spacing::new(self.index_interval, from);
        let bytes = self.file.view(from..bytes_end).context(Operation::Read, || self.path.clone())?;
        let mut walk = Walk::new(&bytes);
        while let Some(frame) = walk.frame() {
            let position = from.saturating_add(wide(walk.at));
            if frame.kind == KIND_RECORD && spacing.takes(position) {
                entries.push(Entry { offset: frame.first_word, position, timestamp_ms: frame.timestamp_ms });
            }
            walk.pass(frame);
        }
        if found.as_ref() != Some(&entries) {
            IndexWriter::new(self.disk.create(&name).ok(), self.header.nonce, self.mask, &entries).write_all();
        }
        Ok(entries)
    }
}
