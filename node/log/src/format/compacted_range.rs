//! Gaps: what stands where compaction has removed records. A gap takes their offsets, so that a record that is missing is told
//! from one that was removed, and says what must outlive them.

use zue_core::{Epoch, OFFSET_MAX, OFFSETS_AHEAD_MAX, Offset};

use crate::format::encode::{close_frame, open_frame};
use crate::format::fault::Fault;
use crate::format::layout::{FLAG_MORE, FLAG_PRODUCER, KIND_COMPACTED};
use crate::format::producer::Producer;
use crate::format::producer::ProducerRun;
use crate::num::Cursor;

/// The number of appends that one gap remembers at most; what removes more makes several.
pub(crate) const COMPACTED_RUNS_MAX: usize = 4096;
/// An append of a producer, as bytes.
const RUN_BYTES: usize = 40;

/// Records of one epoch that were removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CompactedRange {
    /// The first of them.
    pub(crate) from: Offset,
    /// Behind the last of them.
    pub(crate) end: Offset,
    pub(crate) epoch: Epoch,
    /// Of the last of them, ms since the Unix epoch.
    pub(crate) timestamp_ms: u64,
    /// The append that the last of them is of, if further records of it follow.
    pub(crate) open: Option<Open>,
    /// Appends with a producer whose last record was removed, in order: the newest of each producer, as far as nothing behind tells
    /// of a newer one. So a repeated append is known again wherever the gap is copied.
    pub(crate) runs: Vec<ProducerRun>,
}

/// An append that goes on behind a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    /// The offset of its first record.
    pub(crate) base: Offset,
    /// Its sender.
    pub(crate) producer: Option<Producer>,
}

impl CompactedRange {
    /// The part of it behind `from`, which lies inside it.
    pub(crate) fn behind(mut self, from: Offset) -> Self {
        debug_assert!(from < self.end, "nothing is behind");
        self.from = self.from.max(from);
        self.runs.retain(|run| run.end() > from);
        self
    }

    /// The part of it in front of `end`, which lies inside it between two appends. What the last timestamp was there is not known: it
    /// is at least `timestamp_ms`.
    pub(crate) fn before(mut self, end: Offset, timestamp_ms: u64) -> Self {
        debug_assert!(self.from < end, "nothing is in front");
        if end < self.end {
            (self.end, self.timestamp_ms, self.open) = (end, timestamp_ms, None);
            self.runs.retain(|run| run.end() <= end);
        }
        self
    }

    /// Puts its frame.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        debug_assert!(self.is_sound(), "a compacted range that contradicts itself");
        self.put_as_is(out);
    }

    fn put_as_is(&self, out: &mut Vec<u8>) {
        let Self { from, end, epoch, timestamp_ms, open, runs } = self;
        let producer = open.and_then(|open| open.producer);
        let flags = if open.is_some() { FLAG_MORE } else { 0 } | if producer.is_some() { FLAG_PRODUCER } else { 0 };
        let frame_at = open_frame(out, KIND_COMPACTED, flags, 0);
        let base = open.map_or(Offset(0), |open| open.base);
        for word in [from.0, epoch.0, *timestamp_ms, end.0, base.0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        if let Some(Producer { id, sequence }) = producer {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        for ProducerRun { id, sequence, base, count } in runs {
            out.extend_from_slice(&id.to_le_bytes());
            for word in [*sequence, base.0, *count] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        close_frame(out, frame_at);
    }
}

pub(crate) fn parse_compacted(mut body: Cursor<'_>, flags: u8) -> Result<CompactedRange, Fault> {
    let mut parse = || {
        let (from, epoch, timestamp_ms) = (Offset(body.u64()?), Epoch(body.u64()?), body.u64()?);
        let (end, base) = (Offset(body.u64()?), Offset(body.u64()?));
        let producer = match flags & FLAG_PRODUCER {
            0 => None,
            _ => Some(Producer { id: body.u128()?, sequence: body.u64()? }),
        };
        let open = (flags & FLAG_MORE != 0).then_some(Open { base, producer });
        let (runs, []) = body.0.as_chunks::<RUN_BYTES>() else { return None };
        let run = |bytes: &[u8; RUN_BYTES]| {
            let mut run = Cursor(bytes);
            Some(ProducerRun { id: run.u128()?, sequence: run.u64()?, base: Offset(run.u64()?), count: run.u64()? })
        };
        let runs: Vec<ProducerRun> = runs.iter().map(run).collect::<Option<_>>()?;
        let is_plain = open.is_some() || (flags & FLAG_PRODUCER == 0 && base.0 == 0);
        let gap = CompactedRange { from, end, epoch, timestamp_ms, open, runs };
        Some(gap).filter(|gap| is_plain && gap.is_sound())
    };
    parse().ok_or(Fault::Layout)
}

impl CompactedRange {
    fn is_sound(&self) -> bool {
        let Self { from, end, open, runs, .. } = self;
        let open = open.is_none_or(|open| open.base < *end);
        let inside = |run: &ProducerRun| {
            let run_end = run.base.0.checked_add(run.count);
            run.count > 0 && run_end.is_some_and(|run_end| from.0 < run_end && run_end <= end.0)
        };
        from < end
            && *end <= OFFSET_MAX
            && end.since(*from) <= OFFSETS_AHEAD_MAX
            && open
            && runs.len() <= COMPACTED_RUNS_MAX
            && runs.iter().all(inside)
            && runs.is_sorted_by(|a, b| a.base < b.base)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use zue_core::Tail;

    use super::*;
    use crate::format::batch::Batch;
    use crate::format::frame::{Frame, parse};
    use crate::format::limits::Limits;

    fn run(id: u128, base: u64, count: u64) -> ProducerRun {
        ProducerRun { id, sequence: 7, base: Offset(base), count }
    }

    fn gap() -> CompactedRange {
        let producer = Some(Producer { id: 9, sequence: 3 });
        let open = Some(Open { base: Offset(18), producer });
        let runs = vec![run(1, 9, 2), run(2, 12, 1), run(3, 15, 3)];
        CompactedRange { from: Offset(10), end: Offset(20), epoch: Epoch(4), timestamp_ms: 500, open, runs }
    }

    fn bytes(gap: &CompactedRange) -> Vec<u8> {
        let mut out = Vec::new();
        gap.put_as_is(&mut out);
        out
    }

    #[test]
    fn a_gap_survives_its_form_as_bytes() {
        let ends = CompactedRange { open: None, ..gap() };
        let plain = CompactedRange { open: Some(Open { base: Offset(3), producer: None }), runs: vec![], ..gap() };
        for gap in [gap(), ends, plain] {
            let bytes = bytes(&gap);
            let Ok((Frame::Compacted(found), length)) = parse(&bytes, 0) else { panic!("{gap:?}") };
            assert_eq!((found, length), (gap, bytes.len()));
        }
    }

    #[test]
    fn a_gap_that_contradicts_itself_is_refused() {
        let bad = [
            CompactedRange { end: Offset(10), ..gap() },
            CompactedRange { open: Some(Open { base: Offset(20), producer: None }), ..gap() },
            CompactedRange { runs: vec![run(1, 8, 2)], ..gap() },
            CompactedRange { runs: vec![run(1, 19, 2)], ..gap() },
            CompactedRange { runs: vec![run(1, 12, 0)], ..gap() },
            CompactedRange { runs: vec![run(1, 12, u64::MAX)], ..gap() },
            CompactedRange { runs: vec![run(1, 12, 1), run(1, 12, 1)], ..gap() },
            CompactedRange { end: Offset(11 + OFFSETS_AHEAD_MAX), ..gap() },
            CompactedRange { end: Offset(OFFSET_MAX.0 + 1), from: OFFSET_MAX, open: None, runs: vec![], ..gap() },
            CompactedRange { end: Offset(u64::MAX), ..gap() },
        ];
        for gap in bad {
            assert!(matches!(parse(&bytes(&gap), 0), Err(Fault::Layout)), "{gap:?}");
        }
        let mut long = bytes(&gap());
        long.push(0);
        close_frame(&mut long, 0);
        assert!(matches!(parse(&long, 0), Err(Fault::Layout)));
    }

    #[test]
    fn a_batch_takes_a_gap_where_it_follows_and_nowhere_else() {
        let whole = CompactedRange { open: None, ..gap() };
        let decode = |gap: &CompactedRange, epoch, end| {
            let prev = Tail { epoch: Epoch(epoch), end: Offset(end) };
            Batch::decode(Bytes::from(bytes(gap)), prev, &Limits::default())
        };
        let batch = decode(&whole, 4, 10).unwrap();
        assert_eq!((batch.tail().end, batch.record_count(), batch.producers().len()), (Offset(20), 10, 3));
        assert!(decode(&whole, 4, 9).is_err());
        assert!(decode(&whole, 3, 10).is_err());
        assert!(decode(&gap(), 4, 10).is_err(), "it ends inside an append");
    }

    #[test]
    fn a_batch_takes_no_more_offsets_than_a_message_may_however_many_gaps_it_has() {
        let gap =
            |from, end| CompactedRange { from: Offset(from), end: Offset(end), open: None, runs: vec![], ..gap() };
        let prev = Tail { epoch: Epoch(4), end: Offset(10) };
        let far = 10 + OFFSETS_AHEAD_MAX;
        let one = bytes(&gap(10, far));
        let batch = Batch::decode(one.clone().into(), prev, &Limits::default()).unwrap();
        assert_eq!(batch.record_count(), OFFSETS_AHEAD_MAX);
        let two = [one, bytes(&gap(far, far + 1))].concat();
        let refused = Batch::decode(two.into(), prev, &Limits::default()).unwrap_err();
        assert!(matches!(refused.fault, Fault::TooManyOffsets { .. }), "{refused}");
    }

    #[test]
    fn a_part_of_a_gap_forgets_what_lies_outside_it() {
        let part = gap().behind(Offset(13)).before(Offset(18), 400);
        assert_eq!((part.from, part.end, part.timestamp_ms, part.open), (Offset(13), Offset(18), 400, None));
        assert_eq!(part.runs, [run(3, 15, 3)]);
    }
}
