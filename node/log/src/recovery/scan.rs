//! Scanning a segment: every frame checked, up to the first that is not what belongs there. Decides nothing.

use zue_core::{EpochStart, History, ProducerLimits, Producers, Tail};

use crate::format::fault::Fault;
use crate::format::frame::{Frame, parse};
use crate::format::limits::Limits;
use crate::format::local::Snapshot;
use crate::format::sequence::FrameSequence;
use crate::num::wide;
use crate::segment::index::{Entry, Spacing};

/// The state of a log at the end of a whole append.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) sequence: FrameSequence,
    pub(crate) starts: Vec<EpochStart>,
    pub(crate) producers: Producers,
}

/// The result of a scan.
#[derive(Debug)]
pub(crate) struct ScanResult {
    /// The number of bytes of whole appends and epoch starts.
    pub(crate) bytes: usize,
    /// The index entries of their records.
    pub(crate) entries: Vec<Entry>,
    /// The place where the scan ended, if that is not with a whole append at the end of the bytes.
    pub(crate) stop: Option<Stop>,
}

/// The place of something that does not belong there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Among the bytes that were scanned.
    pub(crate) at: usize,
    /// The state after the frames before it, perhaps a part of an append among them.
    pub(crate) sequence: FrameSequence,
    pub(crate) fault: Fault,
}

impl State {
    /// The state before a segment with the snapshot.
    pub(crate) fn at_start(snapshot: Snapshot, limits: ProducerLimits) -> Result<Self, Fault> {
        let Snapshot { base, timestamp_ms, starts, producers } = snapshot;
        let tail = Tail { epoch: starts.last().map_or_else(Default::default, |start| start.epoch), end: base };
        check_history(&starts, tail)?;
        let producers = Producers::decode(&producers, limits).map_err(|_| Fault::Snapshot)?;
        Ok(Self { sequence: FrameSequence::after(tail, timestamp_ms), starts, producers })
    }

    /// Takes all whole appends and epoch starts that `bytes` begin with. `position` is where they are in the file.
    pub(crate) fn scan(&mut self, bytes: &[u8], mask: u32, position: u64, spacing: &mut Spacing) -> ScanResult {
        let mut found = ScanResult { bytes: 0, entries: Vec::new(), stop: None };
        let (mut at, mut sequence, mut spaced) = (0, self.sequence, *spacing);
        let mut entries_whole = 0;
        while at < bytes.len() {
            let frame_at = position.saturating_add(wide(at));
            let taken = parse(bytes.get(at..).unwrap_or_default(), mask).and_then(|(frame, length)| {
                match frame {
                    Frame::Record(record) => {
                        let run = sequence.record(&record, &Limits::NONE)?;
                        if let Some(run) = run {
                            self.producers.record(run.appended());
                        }
                        if spaced.takes(frame_at) {
                            let (offset, timestamp_ms) = (record.offset.0, record.timestamp_ms);
                            found.entries.push(Entry { offset, position: frame_at, timestamp_ms });
                        }
                    }
                    Frame::Start(start) => {
                        sequence.start(&start)?;
                        self.starts.push(start);
                    }
                    Frame::Compacted(gap) => {
                        sequence.gap(&gap)?;
                        gap.runs.iter().for_each(|run| self.producers.record(run.appended()));
                    }
                    Frame::SyncMark(_) if sequence.unfinished().is_none() => {}
                    Frame::SyncMark(_) | Frame::Snapshot(_) => return Err(Fault::Kind(frame.kind())),
                }
                Ok(length)
            });
            match taken {
                Ok(length) => at += length,
                Err(fault) => {
                    found.stop = Some(Stop { at, sequence, fault });
                    break;
                }
            }
            if sequence.unfinished().is_none() {
                (found.bytes, entries_whole) = (at, found.entries.len());
                (self.sequence, *spacing) = (sequence, spaced);
            }
        }
        found.entries.truncate(entries_whole);
        assert!(found.bytes <= bytes.len(), "more was found than there is");
        debug_assert!(self.sequence.unfinished().is_none(), "a log ends inside an append");
        let unfinished = || sequence.unfinished().map(|base| Stop { at, sequence, fault: Fault::Unfinished(base) });
        found.stop = found.stop.or_else(unfinished);
        found
    }
}

fn check_history(starts: &[EpochStart], tail: Tail) -> Result<(), Fault> {
    let history = History::new(starts.to_vec()).map_err(|_| Fault::Snapshot)?;
    if history.last().is_some_and(|last| last.start > tail.end) { Err(Fault::Snapshot) } else { Ok(()) }
}
