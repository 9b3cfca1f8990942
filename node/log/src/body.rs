//! An open segment. What is in its file beyond the header is looked at when it is first used, so that opening a log does not
//! grow with it.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use zue_core::{Epoch, Offset, Tail};

use crate::block::BLOCK_BYTES;
use crate::crcs::Crcs;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, Operation, ReadError};
use crate::fault::Fault;
use crate::frame::{Frame, Snapshot, parse};
use crate::index::{self, Entry, IndexWriter, Spacing};
use crate::num::wide;
use crate::place::Place;
use crate::resync::{Frames, GoodFrames, Hole, Piece};
use crate::segment::{Header, index_name, segment_name};
use crate::view::Part;

/// How much of a segment is read at first for its snapshot.
const SNAPSHOT_BYTES: u64 = 16 << 10;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Segment<D: Disk> {
    pub(crate) file: Arc<D::File>,
    pub(crate) file_bytes: u64,
    pub(crate) place: Arc<Place>,
    pub(crate) header: Header,
    pub(crate) mask: u32,
    index_interval: u32,
    disk: D,
    /// A sync of it has failed.
    sync_failed: Mutex<bool>,
    body: OnceLock<Body>,
    /// As in the body, for those who need no more than that.
    timestamp_ms: OnceLock<Option<u64>>,
}

/// What is known of a segment once it is used.
#[derive(Debug)]
pub(crate) struct Body {
    /// Where the frames behind the snapshot begin.
    pub(crate) data_start: u64,
    /// Of the last record before the segment; unknown when the snapshot is damaged.
    pub(crate) timestamp_ms: Option<u64>,
    index: RwLock<Vec<Entry>>,
}

impl Body {
    pub(crate) fn new(data_start: u64, timestamp_ms: Option<u64>) -> Self {
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

    /// The last entry that is older. What a cut has left in the index is no older than what is in front of it.
    pub(crate) fn last_older(&self, timestamp_ms: u64) -> Option<Entry> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.timestamp_ms < timestamp_ms);
        after.checked_sub(1).and_then(|last| index.get(last)).copied()
    }

    /// Where to begin to look for the record: a frame at or before it, if any is indexed.
    pub(crate) fn near(&self, offset: Offset) -> Option<Entry> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.offset <= offset.0);
        after.checked_sub(1).and_then(|last| index.get(last)).copied()
    }
}

impl<D: Disk> Segment<D> {
    pub(crate) fn new(disk: &D, file: D::File, file_bytes: u64, header: Header, index_interval: u32) -> Self {
        let (path, mask) = (disk.path(&segment_name(header.base)), header.mask());
        let file = Arc::new(file);
        let same: Arc<dyn DiskFile> = Arc::<D::File>::clone(&file);
        let place = Arc::new(Place::new(path, same, mask));
        let (disk, sync_failed) = (disk.clone(), Mutex::new(false));
        let (body, timestamp_ms) = (OnceLock::new(), OnceLock::new());
        Self { file, file_bytes, place, header, mask, index_interval, disk, sync_failed, body, timestamp_ms }
    }

    pub(crate) fn base(&self) -> Offset {
        self.header.base
    }

    /// Makes durable what was written. Once it has failed it always does: the system tells of a failure once, and takes for written
    /// what it could not write.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        // Held meanwhile, so that no other sync hides it.
        let mut failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        let synced =
            if *failed { Err(io::Error::other("an earlier sync of it failed")) } else { self.file.sync_data() };
        *failed = synced.is_err();
        synced.context(Operation::Sync, || self.place.path.clone())
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
        let (base, position) = (self.base(), wide(BLOCK_BYTES));
        let read = |bytes: u64| {
            let end = position.saturating_add(bytes).min(self.file_bytes);
            self.file.read(position..end.max(position)).context(Operation::Read, || self.place.path.clone())
        };
        let mut bytes = read(SNAPSHOT_BYTES)?;
        if let Err(Fault::Truncated { need, .. }) = parse(&bytes, self.mask) {
            bytes = read(need)?;
        }
        let fault = match parse(&bytes, self.mask) {
            Ok((Frame::Snapshot(snapshot), bytes)) if snapshot.base == base => {
                return Ok((snapshot, position.saturating_add(wide(bytes))));
            }
            Ok(_) => Fault::Snapshot,
            Err(fault) => fault,
        };
        Err(self.place.note(Hole { position, until: position, from: base, to: base, fault }).into())
    }

    /// The bytes between two positions.
    pub(crate) fn view(&self, from: u64, to: u64) -> Result<Bytes, ReadError> {
        Ok(self.file.view(from..to.max(from)).context(Operation::Read, || self.place.path.clone())?)
    }
}

impl<D: Disk> Part<D> {
    /// What is in the segment.
    pub(crate) fn body(&self) -> Result<&Body, ReadError> {
        let segment = &*self.segment;
        if let Some(body) = segment.body.get() {
            return Ok(body);
        }
        let body = match segment.snapshot() {
            Ok((Snapshot { timestamp_ms, .. }, data_start)) => Body::new(data_start, Some(timestamp_ms)),
            // The records can be read without it.
            Err(ReadError::Damaged(_)) => Body::new(self.first_frame()?, None),
            Err(error) => return Err(error),
        };
        body.extend_index(&self.load_index(body.data_start)?);
        // If another reader was faster, it has found the same.
        Ok(segment.body.get_or_init(|| body))
    }

    /// The time of the last record before the segment; `None` when the snapshot, which says so, is damaged.
    pub(crate) fn time_before(&self) -> Result<Option<u64>, ReadError> {
        let segment = &*self.segment;
        if let Some(known) = segment.body.get().map(|body| body.timestamp_ms).or(segment.timestamp_ms.get().copied()) {
            return Ok(known);
        }
        let found = match segment.snapshot() {
            Ok((Snapshot { timestamp_ms, .. }, _)) => Some(timestamp_ms),
            Err(ReadError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(*segment.timestamp_ms.get_or_init(|| found))
    }

    /// Where the first good frame begins that is not the snapshot.
    fn first_frame(&self) -> Result<u64, ReadError> {
        let bytes = self.segment.view(0, self.bytes_end)?;
        let before = Tail { epoch: Epoch(0), end: self.segment.base() };
        let mut crcs = Crcs::new(&bytes);
        let mut frames = GoodFrames::behind(&mut crcs, self.segment.mask, BLOCK_BYTES, before);
        Ok(frames.find(|good| good.missing_end().is_some()).map_or(self.bytes_end, |good| wide(good.at)))
    }

    /// The entries of the index file, and of the frames behind its last one; those of all frames if it is damaged or missing. The
    /// file is made again if it lacks any.
    fn load_index(&self, data_start: u64) -> Result<Vec<Entry>, ReadError> {
        let Segment { disk, header, mask, index_interval, place, .. } = &*self.segment;
        let name = index_name(header.base);
        let read = || {
            let file = disk.open(&name).ok()?;
            let bytes = file.read(0..file.len().ok()?).ok()?;
            index::decode(&bytes, header.nonce, *mask).ok()
        };
        let found = read();
        let mut entries = found.clone().unwrap_or_default();
        // A cut has left the entries of what it took.
        entries.retain(|entry| (data_start..self.bytes_end).contains(&entry.position));
        let (from, next) =
            entries.last().map_or((data_start, header.base), |last| (last.position, Offset(last.offset)));
        let mut spacing = Spacing::new(*index_interval, from);
        let bytes = self.segment.view(from, self.bytes_end)?;
        for piece in Frames::new(&bytes, *mask, from, next, self.end) {
            match piece {
                Piece::Record(position, record) if spacing.takes(position) => {
                    let (offset, timestamp_ms) = (record.offset.0, record.timestamp_ms);
                    entries.push(Entry { offset, position, timestamp_ms });
                }
                Piece::Record(..) | Piece::Gap(..) => {}
                Piece::Hole(hole) => {
                    let error = place.blame(hole);
                    if let ReadError::Disk(_) = error {
                        return Err(error);
                    }
                }
            }
        }
        if found.as_ref() != Some(&entries) {
            IndexWriter::new(disk.create(&name).ok(), header.nonce, *mask, &entries).write_all();
        }
        Ok(entries)
    }
}
