//! The place where a log's next bytes go, and the batch as it is written there.

use zue_core::Tail;

use crate::disk::Disk;
use crate::format::batch::Batch;
use crate::format::encode::{mask_crc, put_sync_mark};
use crate::format::layout::KIND_RECORD;
use crate::format::local::SyncMark;
use crate::num::wide;
use crate::read::read_view::Walk;
use crate::segment::index::{Entry, IndexWriter, Spacing};
use crate::segment::part::Part;
use crate::segment::preallocate::Preallocation;

/// The place of the next bytes.
#[derive(Debug)]
pub(crate) struct Writer<F> {
    /// The position in the active segment.
    pub(crate) position: u64,
    /// Everything in front of it is on the disk.
    pub(crate) synced: u64,
    /// Up to where the segment says so itself.
    pub(crate) marked: u64,
    /// The batch as it is written; kept for its memory.
    pub(crate) buffer: Vec<u8>,
    /// The index entries of the batch; kept for their memory.
    pub(crate) entries: Vec<Entry>,
    pub(crate) spacing: Spacing,
    pub(crate) preallocation: Preallocation,
    pub(crate) index: IndexWriter<F>,
    /// The sequence of the active segment, the highest there is.
    pub(crate) sequence: u64,
}

impl<F> Writer<F> {
    /// Holds what is true of the place between two writes to the segment, as much of which as readers see.
    pub(crate) fn check<D: Disk>(&self, active: &Part<D>) {
        assert_eq!(self.sequence, active.segment.header.sequence, "the next bytes go to another segment");
        debug_assert_eq!(self.position, active.bytes_end, "readers see other bytes than the writer");
        debug_assert!(self.position <= active.segment.file_bytes, "more is written than the segment has room for");
        debug_assert!(self.marked <= self.synced && self.synced <= self.position, "more is synced than is written");
    }

    /// Begins a write to a segment with that mask: with a mark of what is synced, if more is than was marked.
    pub(crate) fn mark(&mut self, mask: u32, synced: Tail) {
        debug_assert!(self.synced <= self.position, "more of a segment is synced than was written");
        debug_assert!(self.marked <= self.synced, "a segment marks what is not synced");
        self.buffer.clear();
        self.entries.clear();
        if self.synced > self.marked {
            put_sync_mark(&mut self.buffer, SyncMark { position: self.synced, tail: synced });
            mask_crc(&mut self.buffer, 0, mask);
            self.marked = self.synced;
        }
    }

    /// Adds a batch to the write, and its index entries beside it.
    pub(crate) fn add(&mut self, batch: &Batch, mask: u32) {
        let batch_at = self.buffer.len();
        self.buffer.extend_from_slice(batch.bytes());
        let mut walk = Walk::new(batch.bytes());
        while let Some(frame) = walk.frame() {
            let frame_at = batch_at + walk.at;
            mask_crc(&mut self.buffer, frame_at, mask);
            let position = self.position + wide(frame_at);
            if frame.kind == KIND_RECORD && self.spacing.takes(position) {
                self.entries.push(Entry { offset: frame.first_word, position, timestamp_ms: frame.timestamp_ms });
            }
            walk.pass(frame);
        }
        debug_assert!(walk.rest().is_empty(), "a batch has bytes that are no frame");
        debug_assert!(self.entries.is_sorted_by(|a, b| a.offset < b.offset), "offsets of an index fell");
    }
}
