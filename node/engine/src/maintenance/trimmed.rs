//! Trimmed segments that are still on the disk: they go some time after the log began behind them, so that a person can stop it
//! before they do. So do the files of a log that was begun anew. Those go at once that retention by bytes would not keep, and any when
//! the disk has no room for other things.

use std::collections::VecDeque;

use zue_core::{Aged, Millis, Offset};
use zue_log::{Disk, LogError, Reader, Retention};

use super::Event;
use crate::room::{Access, drop_former};

/// So many steps of its time are told apart: a segment stays longer by less than one of them.
const STEPS: u64 = 64;

#[derive(Debug)]
pub(super) struct Trimmed<D: Disk> {
    reader: Reader<D>,
    delay_ms: u64,
    /// The bytes that retention keeps, if there is any by bytes.
    retention: Option<Retention>,
    /// The times since when the log begins at an offset or behind it, rising. They are not known when the node starts.
    since: VecDeque<(Millis, Offset)>,
    /// The same of former logs.
    former: VecDeque<(Millis, u64)>,
    /// The bytes of each of them, the oldest first. Some may be gone by now.
    former_bytes: VecDeque<(u64, u64)>,
}

impl<D: Disk> Trimmed<D> {
    pub(super) fn new(reader: Reader<D>, delay_ms: u64, retention: Retention) -> Self {
        let retention = retention.bytes.map(|bytes| Retention { bytes: Some(bytes), age_ms: None });
        let (since, former, former_bytes) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { reader, delay_ms, retention, since, former, former_bytes }
    }

    /// Removes what has been there for long enough.
    pub(super) fn turn(&mut self, now: Millis, log: &mut impl Access<D>, out: &mut Vec<Event>) -> Result<(), LogError> {
        self.drop_former(now, log, out);
        if self.reader.trimmed_segments() == 0 {
            self.since.clear();
            return Ok(());
        }
        let (log_start, delay_ms) = (self.reader.log_start(), self.delay_ms);
        let is_due = |(noted, known): &(Millis, Offset)| *known < log_start && now.since(*noted) >= delay_ms / STEPS;
        if self.since.back().is_none_or(is_due) {
            out.push(Event::Trimmed { log_start, segments: self.reader.trimmed_segments() });
            self.since.push_back((now, log_start));
        }
        let mut upto = self.surplus()?;
        if self.reader.damaged().iter().any(|damage| damage.to <= log_start) {
            // No other replica need have them any more, and who is fed from here would wait for them.
            upto = log_start;
        }
        while let Some((_, known)) = self.since.pop_front_if(|(noted, _)| now.since(*noted) >= delay_ms) {
            upto = upto.max(known);
        }
        // One at a time: the log is locked meanwhile, and appends come first.
        while log.change(|log| log.drop_trimmed(upto, 1))? > 0 {}
        Ok(())
    }

    /// Removes the files of logs that were begun anew for long enough.
    fn drop_former(&mut self, now: Millis, log: &mut impl Access<D>, out: &mut Vec<Event>) {
        let newest = log.change(|log| log.former());
        if let Some(newest) = newest.filter(|newest| self.former.back().is_none_or(|(_, known)| known < newest)) {
            out.push(Event::Former(newest));
            self.former.push_back((now, newest));
            self.former_bytes = log.change(|log| log.former_logs()).into();
        }
        let delay_ms = self.delay_ms;
        while let Some((_, known)) = self.former.pop_front_if(|(noted, _)| now.since(*noted) >= delay_ms) {
            drop_former(log, known);
        }
        self.drop_surplus_former(log, out);
    }

    /// Removes the files of the oldest former logs, while they and the log are more than retention by bytes lets it take.
    fn drop_surplus_former(&mut self, log: &mut impl Access<D>, out: &mut Vec<Event>) {
        let Some(max) = self.retention.and_then(|retention| retention.bytes) else { return };
        if self.former_bytes.is_empty() {
            return;
        }
        let all = self.former_bytes.iter().map(|(_, bytes)| bytes);
        let mut held = all.fold(self.reader.bytes(), |held, bytes| held.saturating_add(*bytes));
        while held > max
            && let Some((number, bytes)) = self.former_bytes.pop_front()
        {
            held = held.saturating_sub(bytes);
            if drop_former(log, number) {
                out.push(Event::SurplusGone { number, bytes });
            }
        }
    }

    /// The offset up to which segments exceed retention by bytes.
    fn surplus(&self) -> Result<Offset, LogError> {
        let Some(retention) = self.retention else { return Ok(Offset(0)) };
        let log_start = self.reader.log_start();
        Ok(self.reader.retained_from(retention, log_start, Aged::unknown())?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use zue_core::{Epoch, EpochStart, Origin, ReplicaId};
    use zue_log::sim::SimDisk;
    use zue_log::{Batch, BatchBuilder, Limits, Log, LogConfig, SEGMENT_BYTES_MIN, SharedLog};

    use super::*;

    const DELAY: u64 = 60_000;
    const BEGUN: Millis = Millis(1000);

    /// A log of segments with a record each, all committed, that begins behind the fifth.
    fn trimmed(retention: Retention) -> (SharedLog<SimDisk>, Trimmed<SimDisk>) {
        let config = LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, ..LogConfig::default() };
        let (mut log, _) = Log::open(SimDisk::new(1), config, ReplicaId(1)).unwrap();
        let voters = vec![ReplicaId(1)];
        let start =
            EpochStart { epoch: Epoch(1), start: Offset(0), leader: ReplicaId(1), voters, quorum: 1, old_voters: None };
        log.set_promise(Epoch(1), Some(ReplicaId(1)), None).unwrap();
        log.append(&Batch::epoch_start(Epoch(0), start).unwrap()).unwrap();
        for _ in 0..8 {
            let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
            builder.push(None, &vec![1; usize::try_from(SEGMENT_BYTES_MIN / 2).unwrap()], [], None).unwrap();
            log.append(&builder.finish().unwrap()).unwrap();
        }
        log.sync().unwrap();
        log.note_commit(Offset(8));
        log.begin_at(Offset(5)).unwrap();
        let trimmed = Trimmed::new(log.reader(), DELAY, retention);
        (SharedLog::new(log), trimmed)
    }

    /// A turn so long after the beginning.
    fn turn(trimmed: &mut Trimmed<SimDisk>, mut log: &SharedLog<SimDisk>, after_ms: u64) {
        trimmed.turn(Millis(BEGUN.0 + after_ms), &mut log, &mut Vec::new()).unwrap();
    }

    #[test]
    fn trimmed_segments_go_some_time_after_the_log_began_behind_them() {
        let (log, mut trimmed) = trimmed(Retention::default());
        let reader = log.lock().reader();
        turn(&mut trimmed, &log, 0);
        assert!(reader.trimmed_segments() >= 4, "they are there");
        log.lock().begin_at(Offset(7)).unwrap();
        turn(&mut trimmed, &log, DELAY / 2);
        let kept = reader.trimmed_segments();
        turn(&mut trimmed, &log, DELAY - 1);
        assert_eq!(reader.trimmed_segments(), kept);
        turn(&mut trimmed, &log, DELAY);
        assert_eq!(reader.trimmed_segments(), 2, "those of the later trim stay");
        turn(&mut trimmed, &log, DELAY * 2);
        assert_eq!(reader.trimmed_segments(), 0);
    }

    #[test]
    fn the_files_of_a_log_that_was_begun_anew_go_some_time_later_also_after_a_restart() {
        let (log, mut trimmed) = trimmed(Retention::default());
        let former = |log: &SharedLog<SimDisk>| log.lock().former();
        let at = Offset(20);
        let history = log.lock().history().clone();
        let producers = log.lock().producers().clone();
        log.lock().reset(&Origin { at, history, timestamp_ms: 1, producers }).unwrap();
        turn(&mut trimmed, &log, 0);
        assert!(former(&log).is_some());
        let mut restarted = Trimmed::new(log.lock().reader(), DELAY, Retention::default());
        turn(&mut restarted, &log, DELAY / 2);
        turn(&mut restarted, &log, DELAY);
        assert!(former(&log).is_some(), "it does not know since when");
        turn(&mut trimmed, &log, DELAY);
        assert_eq!(former(&log), None);
    }

    #[test]
    fn former_logs_go_the_oldest_first_while_they_and_the_log_are_more_than_retention_by_bytes() {
        let reset = |log: &SharedLog<SimDisk>, at| {
            let mut log = log.lock();
            let (history, producers) = (log.history().clone(), log.producers().clone());
            log.reset(&Origin { at: Offset(at), history, timestamp_ms: 1, producers }).unwrap();
        };
        let kept = |max: &dyn Fn(u64, &[u64]) -> u64| {
            let (log, trimmed) = trimmed(Retention::default());
            drop(trimmed);
            reset(&log, 20);
            reset(&log, 30);
            let held = log.lock().reader().bytes();
            let former = log.lock().former_logs();
            let sizes: Vec<u64> = former.iter().map(|(_, bytes)| *bytes).collect();
            assert!(sizes.len() == 2 && sizes.iter().all(|bytes| *bytes > 1000), "{sizes:?}");
            let retention = Retention { bytes: Some(max(held, &sizes)), age_ms: None };
            let mut trimmed = Trimmed::new(log.lock().reader(), DELAY, retention);
            turn(&mut trimmed, &log, 0);
            let left = log.lock().former_logs();
            assert!(former.ends_with(&left), "the newest stay");
            left.len()
        };
        assert_eq!(kept(&|held, sizes| held + sizes[0] + sizes[1]), 2);
        assert_eq!(kept(&|held, sizes| held + sizes[0] + sizes[1] - 1), 1);
        assert_eq!(kept(&|held, sizes| held + sizes[1]), 1);
        assert_eq!(kept(&|held, sizes| held + sizes[1] - 1), 0);
    }

    #[test]
    fn what_is_more_than_retention_by_bytes_keeps_goes_at_once() {
        let bytes = Some(2 * SEGMENT_BYTES_MIN);
        let (log, mut trimmed) = trimmed(Retention { bytes, age_ms: Some(1) });
        let reader = log.lock().reader();
        let before = reader.trimmed_segments();
        turn(&mut trimmed, &log, 0);
        let after = reader.trimmed_segments();
        assert!(0 < after && after < before, "{after} of {before} are left");
    }

    #[test]
    fn a_log_takes_trims_back_as_long_as_the_segments_are_there() {
        let (log, trimmed) = trimmed(Retention::default());
        drop(trimmed);
        assert_eq!(log.lock().take_back_trims().unwrap(), Offset(0));
        assert_eq!(log.lock().reader().log_start(), Offset(0));
        log.lock().trim(Offset(5)).unwrap();
        assert!(log.lock().take_back_trims().unwrap() > Offset(0));
    }
}
