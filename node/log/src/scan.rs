//! Scanning a segment: every frame checked, up to the first that is not what belongs there. Decides nothing.

use zue_core::{EpochStart, History, ProducerLimits, Producers, Tail};

use crate::frame::{Fault, Frame, KIND_EPOCH_START, KIND_RECORD, KIND_SNAPSHOT, Snapshot, parse, peek};
use crate::index::{Entry, Spacing};
use crate::limits::Limits;
use crate::num::wide;
use crate::order::Order;

/// What a log amounts to at the end of a whole append.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) order: Order,
    pub(crate) starts: Vec<EpochStart>,
    pub(crate) producers: Producers,
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Found {
    /// How many bytes of whole appends and epoch starts there are.
    pub(crate) bytes: usize,
    /// The index entries of their records.
    pub(crate) entries: Vec<Entry>,
    /// Why the scan ended before the bytes did.
    pub(crate) fault: Option<Fault>,
}

impl State {
    /// The state before a segment with the snapshot.
    pub(crate) fn at_start(snapshot: Snapshot, limits: ProducerLimits) -> Result<Self, Fault> {
        let Snapshot { base, timestamp_ms, starts, producers } = snapshot;
        let tail = Tail { epoch: starts.last().map_or_else(Default::default, |start| start.epoch), end: base };
        check_history(&starts, tail)?;
        let producers = Producers::decode(&producers, limits).map_err(|_| Fault::Snapshot)?;
        Ok(Self { order: Order::after(tail, timestamp_ms), starts, producers })
    }

    /// Takes all whole appends and epoch starts that `bytes` begin with. `position` is where they are in the file.
    pub(crate) fn scan(&mut self, bytes: &[u8], mask: u32, position: u64, spacing: &mut Spacing) -> Found {
        let mut found = Found { bytes: 0, entries: Vec::new(), fault: None };
        let (mut at, mut order, mut spaced) = (0, self.order, *spacing);
        let mut entries_whole = 0;
        while at < bytes.len() {
            let frame_at = position.saturating_add(wide(at));
            let taken = parse(bytes.get(at..).unwrap_or_default(), mask).and_then(|(frame, length)| {
                match frame {
                    Frame::Record(record) => {
                        let run = order.record(&record, &Limits::NONE)?;
                        if let Some(run) = run {
                            self.producers.record(run.appended());
                        }
                        if spaced.takes(frame_at) {
                            let (offset, timestamp_ms) = (record.offset.0, record.timestamp_ms);
                            found.entries.push(Entry { offset, position: frame_at, timestamp_ms });
                        }
                    }
                    Frame::Start(start) => {
                        order.start(&start)?;
                        self.starts.push(start);
                    }
                    Frame::Snapshot(_) => return Err(Fault::Kind(KIND_SNAPSHOT)),
                }
                Ok(length)
            });
            match taken {
                Ok(length) => at += length,
                Err(fault) => {
                    found.fault = Some(fault);
                    break;
                }
            }
            if order.unfinished().is_none() {
                (found.bytes, entries_whole) = (at, found.entries.len());
                (self.order, *spacing) = (order, spaced);
            }
        }
        found.entries.truncate(entries_whole);
        found.fault = found.fault.or(order.unfinished().map(Fault::Unfinished));
        found
    }
}

fn check_history(starts: &[EpochStart], tail: Tail) -> Result<(), Fault> {
    let history = History::new(starts.to_vec()).map_err(|_| Fault::Snapshot)?;
    if history.last().is_some_and(|last| last.start > tail.end) { Err(Fault::Snapshot) } else { Ok(()) }
}

/// How many of the bytes there are before the trailing zeroes.
pub(crate) fn used(bytes: &[u8]) -> usize {
    const PAGE: [u8; 4096] = [0; 4096];
    let (_, pages) = bytes.as_rchunks::<4096>();
    let zero_pages = pages.iter().rev().take_while(|page| **page == PAGE).count();
    let rest = bytes.get(..bytes.len() - zero_pages * PAGE.len()).unwrap_or_default();
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Whether a good frame of the same segment, of a record from `tail` on or of a later epoch, begins anywhere in the bytes.
pub(crate) fn any_frame(bytes: &[u8], mask: u32, tail: Tail) -> bool {
    (0..bytes.len()).any(|at| {
        let rest = bytes.get(at..).unwrap_or_default();
        peek(rest).is_some_and(|frame| match frame.kind {
            // The frame's claims come first: a CRC at every byte would take too long.
            KIND_RECORD => frame.first_word >= tail.end.0 && parse(rest, mask).is_ok(),
            KIND_EPOCH_START => frame.first_word > tail.epoch.0 && parse(rest, mask).is_ok(),
            _ => false,
        })
    })
}
