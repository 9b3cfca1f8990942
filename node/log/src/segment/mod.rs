//! An open segment. What is in its file beyond the header is looked at when it is first used, so that opening a log does not
//! grow with it.

pub(crate) mod create;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod index;
pub(crate) mod lookup;
pub(crate) mod part;
pub(crate) mod preallocate;
pub(crate) mod search;

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use zue_core::Offset;

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, Operation, ReadError};
use crate::format::block::BLOCK_BYTES;
use crate::format::fault::Fault;
use crate::format::frame::{Frame, parse};
use crate::format::layout::LENGTH_AT;
use crate::format::local::Snapshot;
use crate::format::salvage::DamagedRange;
use crate::num::{Cursor, wide};
use crate::segment::file::SegmentFile;
use crate::segment::header::{Header, segment_name};
use crate::segment::index::{Entry, IndexWriter};
use crate::segment::lookup::{Index, Lookup};

/// The number of bytes of a segment read at first for its snapshot.
const SNAPSHOT_BYTES: u64 = 16 << 10;
/// The number of bytes read of it at a time to see whether it is whole.
const PIECE_BYTES: u64 = 1 << 20;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Segment<D: Disk> {
    pub(crate) file: Arc<D::File>,
    pub(crate) file_bytes: u64,
    pub(crate) place: Arc<SegmentFile>,
    pub(crate) header: Header,
    pub(crate) mask: u32,
    pub(crate) index_interval: u32,
    pub(crate) disk: D,
    /// A sync of it has failed.
    sync_failed: Mutex<bool>,
    body: OnceLock<Body>,
    /// As in the body, for those who need no more than that.
    timestamp_ms: OnceLock<Option<u64>>,
}

/// The facts of a segment, known once it is used.
#[derive(Debug)]
pub(crate) struct Body {
    /// The position at which the frames behind the snapshot begin.
    pub(crate) data_start: u64,
    /// Of the last record before the segment; unknown when the snapshot is damaged.
    pub(crate) timestamp_ms: Option<u64>,
    pub(crate) lookup: Lookup,
}

impl Body {
    pub(crate) fn new(data_start: u64, timestamp_ms: Option<u64>) -> Self {
        Self { data_start, timestamp_ms, lookup: Lookup::default() }
    }
}

impl<D: Disk> Segment<D> {
    pub(crate) fn new(disk: &D, file: D::File, file_bytes: u64, header: Header, index_interval: u32) -> Self {
        debug_assert!(file_bytes >= wide(BLOCK_BYTES), "a segment is shorter than its header");
        let (path, mask) = (disk.path(&segment_name(header.base)), header.mask());
        let file = Arc::new(file);
        let same: Arc<dyn DiskFile> = Arc::<D::File>::clone(&file);
        let place = Arc::new(SegmentFile::new(path, same, mask));
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

    /// The entries of its index that are in memory: all of them while it is the active segment.
    pub(crate) fn held_index(&self) -> Vec<Entry> {
        self.body.get().map_or_else(Vec::new, |body| body.lookup.held())
    }

    /// Adds to its index, which is known.
    pub(crate) fn extend_index(&self, entries: &[Entry]) {
        self.body.get().into_iter().for_each(|body| body.lookup.extend(entries));
    }

    /// Gives up the entries of its index that are in memory, now that none is to come: all are in the file, if that could be written.
    pub(crate) fn seal_index(&self, writer: &mut IndexWriter<D::File>) {
        if let (Some(body), Some(file)) = (self.body.get(), writer.finish(self.file_bytes)) {
            body.lookup.set(Index::Filed(file));
        }
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
        let mut parsed = parse(&bytes, self.mask);
        if let Err(Fault::Truncated { need, .. }) = parsed
            && need <= self.file_bytes.saturating_sub(position)
        {
            // A length that was never written must not take the memory that it claims.
            let (stored, computed) = (Cursor(&bytes).u32().unwrap_or_default() ^ self.mask, self.crc(position, need)?);
            parsed = Err(Fault::Crc { stored, computed });
            if stored == computed {
                bytes = read(need)?;
                parsed = parse(&bytes, self.mask);
            }
        }
        let fault = match parsed {
            Ok((Frame::Snapshot(snapshot), bytes)) if snapshot.base == base => {
                return Ok((snapshot, position.saturating_add(wide(bytes))));
            }
            Ok(_) => Fault::Snapshot,
            Err(fault) => fault,
        };
        Err(self.place.note(DamagedRange { position, until: position, from: base, to: base, fault }).into())
    }

    /// The CRC of the frame of so many bytes at the position, read piece by piece.
    fn crc(&self, position: u64, bytes: u64) -> Result<u32, DiskError> {
        let (mut at, end) = (position.saturating_add(wide(LENGTH_AT)), position.saturating_add(bytes));
        let mut crc = crc32fast::Hasher::new();
        while at < end {
            let until = end.min(at.saturating_add(PIECE_BYTES));
            let piece = self.file.read(at..until).context(Operation::Read, || self.place.path.clone())?;
            crc.update(&piece);
            at = until;
        }
        Ok(crc.finalize())
    }

    /// The bytes between two positions.
    pub(crate) fn view(&self, from: u64, to: u64) -> Result<Bytes, ReadError> {
        Ok(self.file.view(from..to.max(from)).context(Operation::Read, || self.place.path.clone())?)
    }
}
