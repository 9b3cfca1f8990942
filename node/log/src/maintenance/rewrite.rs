//! Writing a sealed segment anew, beside the old file: the same records but for what is left out or filled in. The new file takes
//! the old one's name, which is the one step that changes anything; who reads the old one reads on. Decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use zue_core::{EpochStart, OFFSETS_AHEAD_MAX, Offset, ProducerLimits, Producers, Tail};

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, LogError, Operation, ReadError};
use crate::format::block::BLOCK_BYTES;
use crate::format::compacted_range::{COMPACTED_RUNS_MAX, CompactedRange};
use crate::format::encode::{mask_crc, put_snapshot, put_start};
use crate::format::fault::Fault;
use crate::format::frame::{RecordView, parse, peek};
use crate::format::limits::Limits;
use crate::format::local::Snapshot;
use crate::format::producer::ProducerRun;
use crate::format::salvage::DamagedRange;
use crate::format::sequence::FrameSequence;
use crate::log::Log;
use crate::maintenance::scrub::continues;
use crate::meta::Meta;
use crate::num::wide;
use crate::read::read_view::ReadView;
use crate::segment::Segment;
use crate::segment::header;
use crate::segment::header::{Header, SEGMENT_REWRITTEN, kept_name, segment_name};
use crate::segment::part::Part;

/// The number of bytes written at once.
const PIECE_BYTES: usize = 1 << 20;

/// A segment's new file, as far as it is written.
#[derive(Debug)]
pub(crate) struct Rewrite<D: Disk> {
    disk: D,
    part: Part<D>,
    file: D::File,
    header: Header,
    /// The bytes that are not in the file yet, and where they go.
    out: Vec<u8>,
    position: u64,
    /// The epoch starts that are to come.
    starts: VecDeque<EpochStart>,
    sequence: FrameSequence,
    /// Records that are left out, right before what comes next.
    gap: Option<CompactedRange>,
    /// The remaining damage.
    ranges: Vec<DamagedRange>,
    /// From where on records are back that were not there.
    restored: Option<Offset>,
}

/// A segment's new file, whole and durable, which has not taken the old one's place yet. To be given to [`Log::rewritten`].
#[derive(Debug)]
pub struct Rewritten<D: Disk>(Rewrite<D>);

/// The beginning of a segment: the snapshot of the old file, or if that is damaged, one that claims to know less.
fn snapshot<D: Disk>(part: &Part<D>, view: &ReadView<D>, limits: ProducerLimits) -> Result<Snapshot, ReadError> {
    let starts = view.history.starts();
    match part.segment.snapshot() {
        Ok((snapshot, _)) if continues(starts, &snapshot.starts) => return Ok(snapshot),
        Ok(_) | Err(ReadError::Damaged(_)) => {}
        Err(error) => return Err(error),
    }
    let base = part.segment.base();
    let starts = starts.iter().take_while(|start| start.start <= base).cloned().collect();
    let mut producers = Producers::new(limits);
    producers.forget(base);
    Ok(Snapshot { base, timestamp_ms: timestamp_before(view, base)?, starts, producers: producers.encode() })
}

/// The timestamp of the last record before the offset; 0 if there is none, or it is damaged.
fn timestamp_before<D: Disk>(view: &ReadView<D>, base: Offset) -> Result<u64, ReadError> {
    let last = base.0.checked_sub(1).map(Offset);
    let Some((last, part)) = last.and_then(|last| Some((last, view.part(last)?))) else { return Ok(0) };
    match part.find(last) {
        Ok((_, bytes)) => Ok(peek(&bytes).map_or(0, |frame| frame.timestamp_ms)),
        Err(ReadError::Damaged(_)) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Returns whether appends of two ranges that become one follow each other. A peer may have sent others.
fn are_in_order(before: &[ProducerRun], behind: &[ProducerRun]) -> bool {
    before.last().zip(behind.first()).is_none_or(|(last, first)| last.base < first.base)
}

impl<D: Disk> Rewrite<D> {
    pub(crate) fn begin(
        disk: &D,
        part: &Part<D>,
        view: &ReadView<D>,
        limits: ProducerLimits,
    ) -> Result<Self, ReadError> {
        let path = || disk.path(SEGMENT_REWRITTEN);
        let nonce = disk.entropy().context(Operation::Random, path)?;
        let old = part.segment.header;
        // Where it ends is known when it is whole.
        let rewritten = Some(header::Rewritten { generation: old.generation().saturating_add(1), end: 0 });
        let header = Header { nonce, rewritten, used: false, ..old };
        let snapshot = snapshot(part, view, limits)?;
        let base = snapshot.base;
        let before = snapshot.starts.last().map_or_else(Default::default, |start| start.epoch);
        let sequence = FrameSequence::after(Tail { epoch: before, end: base }, snapshot.timestamp_ms);
        let coming = |start: &&EpochStart| start.epoch > before && start.start < part.end;
        let starts = view.history.starts().iter().filter(coming).cloned().collect();
        let mut out = vec![0; BLOCK_BYTES];
        put_snapshot(&mut out, &snapshot, header.mask());
        let file = disk.create(SEGMENT_REWRITTEN).context(Operation::Create, path)?;
        let (disk, part) = (disk.clone(), part.clone());
        let (position, gap, ranges, restored) = (0, None, Vec::new(), None);
        Ok(Self { disk, part, file, header, out, position, starts, sequence, gap, ranges, restored })
    }

    /// The offset that comes next.
    pub(crate) fn next(&self) -> Offset {
        self.sequence.tail.end
    }

    /// The timestamp of what came last, ms since the Unix epoch.
    pub(crate) fn timestamp_ms(&self) -> u64 {
        self.sequence.timestamp_ms
    }

    /// Says that the record that comes next was not there.
    pub(crate) fn restores(&mut self) {
        self.restored = self.restored.or(Some(self.next()));
    }

    /// Puts a record, whose frame is given with its CRC masked by `mask`.
    pub(crate) fn record(&mut self, frame: &[u8], record: &RecordView<'_>, mask: u32) -> Result<(), RewriteError> {
        self.begin_epochs()?;
        self.sequence.record(record, &Limits::NONE)?;
        self.close_compacted()?;
        let frame_at = self.out.len();
        self.out.extend_from_slice(frame);
        // What was copied is checked, not what was seen before: a page may have gone from memory between, and not come back.
        if parse(self.out.get(frame_at..).unwrap_or_default(), mask).is_err() {
            self.out.truncate(frame_at);
            return Err(RewriteError::Fault(Fault::Layout));
        }
        mask_crc(&mut self.out, frame_at, mask ^ self.header.mask());
        debug_assert_eq!(self.next(), record.offset.plus(1), "a record is put in another's place");
        self.write_some()
    }

    /// Leaves a record out. What its append was is kept if nothing behind it tells of a newer one of that producer.
    pub(crate) fn leave_out(
        &mut self,
        record: &RecordView<'_>,
        is_newest: impl Fn(&ProducerRun) -> bool,
    ) -> Result<(), RewriteError> {
        self.begin_epochs()?;
        let from = record.offset;
        let run = self.sequence.record(record, &Limits::NONE)?.filter(is_newest);
        let (Tail { epoch, end }, timestamp_ms, open) =
            (self.sequence.tail, self.sequence.timestamp_ms, self.sequence.open());
        self.extend_compacted(CompactedRange { from, end, epoch, timestamp_ms, open, runs: run.into_iter().collect() })
    }

    /// Puts a gap, from what comes next on.
    pub(crate) fn gap(
        &mut self,
        gap: CompactedRange,
        is_newest: impl Fn(&ProducerRun) -> bool,
    ) -> Result<(), RewriteError> {
        self.begin_epochs()?;
        let mut gap = gap.behind(self.next());
        // A peer may have sent one that hides where an epoch starts.
        if let Some(EpochStart { epoch, start, .. }) = self.starts.front().filter(|start| start.start < gap.end) {
            let (epoch, start, last_epoch, end) = (*epoch, *start, self.sequence.tail.epoch, gap.end);
            return Err(Fault::EpochStart { epoch, start, last_epoch, end }.into());
        }
        self.sequence.gap(&gap)?;
        gap.runs.retain(is_newest);
        self.extend_compacted(gap)
    }

    fn extend_compacted(&mut self, more: CompactedRange) -> Result<(), RewriteError> {
        match &mut self.gap {
            Some(gap)
                if gap.epoch == more.epoch
                    && are_in_order(&gap.runs, &more.runs)
                    && gap.runs.len() + more.runs.len() <= COMPACTED_RUNS_MAX
                    && more.end.since(gap.from) <= OFFSETS_AHEAD_MAX =>
            {
                debug_assert_eq!(gap.end, more.from, "something lies between two ranges that become one");
                (gap.end, gap.timestamp_ms, gap.open) = (more.end, more.timestamp_ms, more.open);
                gap.runs.extend(more.runs);
                Ok(())
            }
            _ => {
                self.close_compacted()?;
                self.gap = Some(more);
                Ok(())
            }
        }
    }

    /// Passes over what stays damaged; its bytes stay, too.
    pub(crate) fn damaged(&mut self, bytes: &[u8], damaged: DamagedRange) -> Result<(), RewriteError> {
        self.close_compacted()?;
        debug_assert!(self.next() < damaged.to || !bytes.is_empty(), "damage that takes no place");
        let position = self.position.saturating_add(wide(self.out.len()));
        self.out.extend_from_slice(bytes);
        let until = position.saturating_add(wide(bytes.len()));
        let from = self.next();
        self.ranges.push(DamagedRange { position, until, from, ..damaged });
        let begun = |start: &EpochStart| start.start < damaged.to;
        // An epoch start that was in there is known from elsewhere.
        let mut epoch = self.sequence.tail.epoch;
        while let Some(start) = self.starts.pop_front_if(|start| begun(start)) {
            epoch = start.epoch;
        }
        self.sequence = FrameSequence::after(Tail { epoch, end: damaged.to }, self.sequence.timestamp_ms);
        self.write_some()
    }

    /// Puts the epoch starts that belong in front of what comes next.
    fn begin_epochs(&mut self) -> Result<(), RewriteError> {
        let next = self.next();
        while let Some(start) = self.starts.pop_front_if(|start| start.start <= next) {
            self.close_compacted()?;
            let frame_at = self.out.len();
            put_start(&mut self.out, &start);
            mask_crc(&mut self.out, frame_at, self.header.mask());
            self.sequence.start(&start)?;
        }
        Ok(())
    }

    fn close_compacted(&mut self) -> Result<(), RewriteError> {
        if let Some(gap) = self.gap.take() {
            let frame_at = self.out.len();
            gap.put(&mut self.out);
            mask_crc(&mut self.out, frame_at, self.header.mask());
            self.write_some()?;
        }
        Ok(())
    }

    fn write_some(&mut self) -> Result<(), RewriteError> {
        if self.out.len() >= PIECE_BYTES { Ok(self.write()?) } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), DiskError> {
        self.file.write_at(self.position, &self.out).context(Operation::Write, || self.disk.path(SEGMENT_REWRITTEN))?;
        self.position = self.position.saturating_add(wide(self.out.len()));
        self.out.clear();
        Ok(())
    }

    /// Makes the file whole and durable.
    pub(crate) fn finish(mut self) -> Result<Rewritten<D>, RewriteError> {
        self.close_compacted()?;
        self.write()?;
        assert!(self.next() >= self.part.end, "records are missing in a rewritten segment");
        assert!(self.out.is_empty() && self.gap.is_none(), "a rewritten segment is not all in its file");
        assert!(self.starts.is_empty(), "an epoch start is missing in a rewritten segment");
        let generation = self.header.generation();
        self.header.rewritten = Some(header::Rewritten { generation, end: self.position });
        let path = || self.disk.path(SEGMENT_REWRITTEN);
        self.file.write_at(0, &self.header.encode()).context(Operation::Write, path)?;
        self.file.sync_data().context(Operation::Sync, path)?;
        Ok(Rewritten(self))
    }
}

/// Why a segment is not written anew. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The old file cannot be read, or the new one cannot be written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A frame that was read or fetched does not belong there.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<DiskError> for RewriteError {
    fn from(error: DiskError) -> Self {
        Self::Read(error.into())
    }
}

impl<D: Disk> Log<D> {
    /// Lets the new file take the old one's place, durably; whether it did: not if the segment was cut or removed meanwhile.
    ///
    /// # Errors
    /// When the disk refuses. Without room for the meta file, or the name, the old file stays and the new one is removed.
    pub fn rewritten(&mut self, rewritten: Rewritten<D>) -> Result<bool, LogError> {
        let Rewritten(Rewrite { part, file, header, position, ranges, restored, .. }) = rewritten;
        self.check_poison()?;
        let is_old = |other: &Part<D>| {
            Arc::ptr_eq(&other.segment, &part.segment) && (other.bytes_end, other.end) == (part.bytes_end, part.end)
        };
        let Some(at) = self.view.sealed.iter().position(is_old) else {
            self.forget_rewrite();
            return Ok(false);
        };
        if let Some(restored) = restored.filter(|restored| *restored < self.meta.compacted) {
            // What is back may be outdated by what follows it.
            self.replace_meta(&Meta { compacted: restored, ..self.meta }).inspect_err(|_| self.forget_rewrite())?;
        }
        let (old, generation) = (part.segment.header, header.generation());
        assert!(header.base == old.base && header.sequence == old.sequence, "a segment takes the place of another");
        assert!(generation > old.generation(), "an older form of a segment takes the place of a newer one");
        let name = segment_name(header.base);
        let kept = kept_name(&part.segment.header);
        if self.meta.suspect.is_some() && self.disk.open(&kept).is_err() {
            // Behind the end of the old one may be what is missing.
            let linked = self.disk.link(&name, &kept).context(Operation::Link, || self.disk.path(&kept));
            self.disk_result(linked).inspect_err(|_| self.forget_rewrite())?;
        }
        let renamed =
            self.disk.rename(SEGMENT_REWRITTEN, &name).context(Operation::Rename, || self.disk.path(SEGMENT_REWRITTEN));
        self.disk_result(renamed).inspect_err(|_| self.forget_rewrite())?;
        let synced = self.disk.sync_dir().context(Operation::Sync, || self.disk.path(""));
        self.disk_result(synced)?;
        let segment = Segment::new(&self.disk, file, position, header, self.config.index_interval_bytes);
        for damaged in ranges {
            segment.place.note(damaged);
        }
        let mut sealed = self.view.sealed.to_vec();
        if let Some(place) = sealed.get_mut(at) {
            *place = Part { segment: segment.into(), bytes_end: position, end: part.end };
        }
        let (active, history) = (self.view.active_part(), Arc::clone(&self.view.history));
        self.show(ReadView::new(sealed.into(), active, history, self.view.log_start));
        self.check();
        Ok(true)
    }

    /// Removes a new file that is not to take any place.
    pub fn forget_rewrite(&self) {
        // If it cannot be removed, the next open does it.
        let _ = self.disk.remove(SEGMENT_REWRITTEN);
    }
}

#[cfg(test)]
mod tests {
    use zue_core::{Epoch, ReplicaId};

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::{Batch, BatchBuilder, Limits, LogConfig};

    #[test]
    fn a_gap_that_hides_an_epoch_start_is_refused() {
        let (mut log, _) = Log::open(SimDisk::new(1), LogConfig::default(), ReplicaId(1)).unwrap();
        for epoch in [1, 2] {
            let (voters, leader, tail) = (vec![ReplicaId(1)], ReplicaId(1), log.tail());
            let start =
                EpochStart { epoch: Epoch(epoch), start: tail.end, leader, voters, quorum: 1, old_voters: None };
            log.append(&Batch::epoch_start(tail.epoch, start).unwrap()).unwrap();
            let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
            (0..5).for_each(|_| builder.push(None, b"value", [], None).unwrap());
            log.append(&builder.finish().unwrap()).unwrap();
        }
        let view = &log.view;
        let begin = || Rewrite::begin(&SimDisk::new(2), &view.active_part(), view, ProducerLimits::default()).unwrap();
        let gap = |from: u64, end: u64, epoch: u64| {
            let (from, end, epoch) = (Offset(from), Offset(end), Epoch(epoch));
            CompactedRange { from, end, epoch, timestamp_ms: 1, open: None, runs: vec![] }
        };
        for end in [6, 10] {
            let hidden = begin().gap(gap(0, end, 1), |_| true);
            let is_told = matches!(hidden, Err(RewriteError::Fault(Fault::EpochStart { epoch: Epoch(2), .. })));
            assert!(is_told, "{hidden:?}");
        }
        let mut whole = begin();
        whole.gap(gap(0, 5, 1), |_| true).unwrap();
        whole.gap(gap(5, 10, 2), |_| true).unwrap();
        whole.finish().unwrap();
    }
}
