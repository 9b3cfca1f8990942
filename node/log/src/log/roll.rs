//! Going on in a further segment.

use std::sync::Arc;

use zue_core::{History, Offset, Producers};

use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::read::read_view::ReadView;
use crate::segment::create::Draft;
use crate::segment::header::{Prev, index_name};
use crate::segment::index::{IndexWriter, Spacing};
use crate::segment::part::Part;
use crate::segment::preallocate::Preallocation;

impl<D: Disk> Log<D> {
    /// Goes on in a further segment, which has room for `first_bytes`.
    pub(crate) fn roll(&mut self, first_bytes: u64) -> Result<(), LogError> {
        let active = self.view.active_part();
        let draft = self.draft(&active, self.view.history.starts(), self.ends.timestamp_ms, &self.producers);
        assert_eq!(active.end, self.ends.tail.end, "a segment is sealed that readers do not see the end of");
        let reserved =
            Draft { first_bytes, ..draft }.reserve(&self.disk, &mut self.beside.spare).map_err(LogError::NoRoom)?;
        // Before the next segment is there, so that only the last one can have a torn tail.
        self.sync_disk()?;
        self.writer.index.write_all();
        let next = reserved.commit(&self.disk, self.config.index_interval_bytes);
        let next = self.disk_result(next)?;
        let history = Arc::clone(&self.view.history);
        self.go_on_in(next, &active, history);
        self.check();
        self.keep_reserve();
        let meta = self.meta;
        match self.replace_meta(&meta) {
            // What is committed is written down another time.
            Err(LogError::NoRoom(_)) => Ok(()),
            replaced => replaced,
        }
    }

    /// A segment that follows the part. If that has no record, the new one takes its place and its name.
    pub(crate) fn draft<'a>(
        &self,
        part: &Part<D>,
        starts: &'a [zue_core::EpochStart],
        timestamp_ms: u64,
        producers: &'a Producers,
    ) -> Draft<'a> {
        let Part { segment, bytes_end, end: base } = part;
        let prev = if segment.base() == *base {
            segment.header.prev
        } else {
            let (sequence, generation) = (segment.header.sequence, segment.header.generation());
            assert!(segment.base() < *base, "a segment ends before it begins");
            Some(Prev { base: segment.base(), sequence, end: *bytes_end, generation })
        };
        Draft { prev, ..self.draft_at(*base, starts, timestamp_ms, producers) }
    }

    /// A segment with that base, which follows none.
    pub(crate) fn draft_at<'a>(
        &self,
        base: Offset,
        starts: &'a [zue_core::EpochStart],
        timestamp_ms: u64,
        producers: &'a Producers,
    ) -> Draft<'a> {
        let prev = None;
        let (sequence, file_bytes) = (self.writer.sequence + 1, self.config.segment_bytes_max);
        let (first_bytes, zero_bytes, may_be_short) = (0, 0, false);
        Draft {
            sequence,
            base,
            prev,
            starts,
            timestamp_ms,
            producers,
            first_bytes,
            file_bytes,
            may_be_short,
            zero_bytes,
        }
    }

    /// Makes the segment, which is durably in the log, the active one. `last` is what it follows, or what it replaces if that has
    /// the same base.
    pub(crate) fn go_on_in(
        &mut self,
        (active, preallocation): (Part<D>, Preallocation),
        last: &Part<D>,
        history: Arc<History>,
    ) {
        let (base, last_base) = (active.segment.base(), last.segment.base());
        assert!(last_base <= base, "a segment follows one that begins behind it");
        assert!(self.writer.sequence < active.segment.header.sequence, "the sequence of segments fell");
        let before = self.view.sealed.iter().filter(|part| part.segment.base() < last_base);
        let sealed: Arc<[Part<D>]> = before.chain(Some(last).filter(|_| last_base < base)).cloned().collect();
        self.write_to(&active, preallocation);
        self.show(ReadView::new(sealed, active, history, self.view.log_start));
    }

    /// Lets the next bytes go to that segment.
    pub(crate) fn write_to(&mut self, active: &Part<D>, preallocation: Preallocation) {
        let (segment, data_start) = (&active.segment, active.bytes_end);
        self.view.active.seal_index(&mut self.writer.index);
        (self.writer.position, self.writer.synced, self.writer.marked) = (data_start, data_start, data_start);
        (self.writer.sequence, self.writer.preallocation) = (segment.header.sequence, preallocation);
        self.writer.spacing = Spacing::new(self.config.index_interval_bytes, data_start);
        let index_file = self.disk.create(&index_name(segment.base())).ok();
        self.writer.index = IndexWriter::new(index_file, segment.header.nonce, segment.mask, &[]);
        assert!(self.writer.position <= segment.file_bytes, "a segment is shorter than its head");
    }
}
