//! Records that are acknowledged once they are in the system's memory, written by the thread that has them: two hand-overs to the disk's
//! thread and back take longer than the copy.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use zue_core::Ticket;
use zue_engine::disk_queue::{apply_first, is_short_copy};
use zue_log::{Disk, SharedLog};

use super::queue::{Queue, Tasks};
use super::syncer::Syncer;

/// A copy that takes longer waited for the disk.
const SLOW: Duration = Duration::from_millis(2);
/// The time for which a disk that was waited for is left to its own thread.
const AVOIDED: Duration = Duration::from_secs(10);

/// Writes where it is called.
pub(super) trait Write: Send + fmt::Debug {
    /// Does the work at the front, as far as it is short; takes what it did.
    fn write(&mut self, tasks: &mut Tasks) -> Option<Ticket>;
}

/// The log, for whoever writes to it without its thread.
pub(super) struct InMemory<D: Disk> {
    /// The disk's thread closes the log, and has it alone by then.
    log: Weak<SharedLog<D>>,
    queue: Arc<Queue>,
    syncer: Weak<Syncer<D>>,
    avoided_until: Option<Instant>,
}

impl<D: Disk> InMemory<D> {
    pub(super) fn new(log: &Arc<SharedLog<D>>, queue: &Arc<Queue>, syncer: &Arc<Syncer<D>>) -> Self {
        let (log, syncer) = (Arc::downgrade(log), Arc::downgrade(syncer));
        Self { log, queue: Arc::clone(queue), syncer, avoided_until: None }
    }

    fn took(&mut self, time: Duration) {
        if time > SLOW {
            self.avoided_until = Some(Instant::now() + AVOIDED);
        }
    }
}

impl<D: Disk> Write for InMemory<D> {
    fn write(&mut self, tasks: &mut Tasks) -> Option<Ticket> {
        let begun = Instant::now();
        if self.avoided_until.is_some_and(|until| begun < until) || !self.queue.is_done() {
            return None;
        }
        let (shared, syncer) = (self.log.upgrade()?, self.syncer.upgrade()?);
        let mut log = shared.try_lock()?;
        if !is_short_copy(tasks.works(), &log) {
            return None;
        }
        let (mut ticket, mut bytes) = (None, 0);
        // After an error the disk's thread meets the same one, and says so.
        while let Ok(count @ 1..) = apply_first(tasks.works(), &mut log) {
            for task in (0..count).map_while(|_| tasks.pop()) {
                ticket = Some(task.ticket);
                bytes += task.work.bytes();
            }
        }
        self.queue.timestamp_ms.store(log.last_timestamp_ms(), Ordering::Release);
        let acknowledged = log.sync_point();
        debug_assert!(!matches!(acknowledged, Ok(Some(_))), "a short copy waits for a sync");
        drop(log);
        syncer.acknowledged(bytes);
        self.took(begun.elapsed());
        ticket.filter(|_| acknowledged.is_ok())
    }
}

impl<D: Disk> fmt::Debug for InMemory<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("avoided_until", &self.avoided_until).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::sync::mpsc;
    use zue_core::{Epoch, EpochStart, ReplicaId, Tail};
    use zue_engine::disk_queue::Work;
    use zue_log::sim::SimDisk;
    use zue_log::{Batch, BatchBuilder, Disk as _, Durability, Limits, Log, LogConfig, LogError, SEGMENT_BYTES_MIN};

    use super::*;
    use crate::metrics::Metrics;
    use crate::storage::queue::Task;

    struct Bench {
        disk: SimDisk,
        log: Arc<SharedLog<SimDisk>>,
        queue: Arc<Queue>,
        in_memory: InMemory<SimDisk>,
        syncer: Arc<Syncer<SimDisk>>,
        tasks: Tasks,
    }

    impl Bench {
        fn new(durability: Durability) -> Self {
            let disk = SimDisk::new(1);
            let config = LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, durability, ..LogConfig::default() };
            let (log, _) = Log::open(disk.clone(), config, ReplicaId(1)).unwrap();
            let (log, queue) = (Arc::new(SharedLog::new(log)), Arc::new(Queue::default()));
            let syncer =
                Syncer::new(Arc::clone(&log), mpsc::channel(1).0, Arc::new(Metrics::new().unwrap()), durability);
            let in_memory = InMemory::new(&log, &queue, &syncer);
            Self { disk, log, queue, in_memory, syncer, tasks: Tasks::default() }
        }

        fn tail(&self) -> Tail {
            self.log.lock().tail()
        }

        fn add(&mut self, ticket: u64, work: Work) {
            self.tasks.extend([Task { ticket: Ticket(ticket), work, share: None }]);
        }

        fn batch(prev: Tail, bytes: usize) -> Batch {
            let mut builder = BatchBuilder::new(prev, 1, Limits::default());
            builder.push(None, &vec![1; bytes], [], None).unwrap();
            builder.finish().unwrap()
        }

        /// What was done of that, and how much is left.
        fn write(&mut self, works: impl IntoIterator<Item = Work>) -> (Option<Ticket>, usize) {
            self.tasks.clear();
            for (ticket, work) in (1..).zip(works) {
                self.add(ticket, work);
            }
            (self.in_memory.write(&mut self.tasks), self.tasks.len())
        }

        fn append(&mut self, bytes: usize) -> (Option<Ticket>, usize) {
            self.write([Work::Write(Self::batch(self.tail(), bytes))])
        }
    }

    const LEFT: (Option<Ticket>, usize) = (None, 1);

    #[test]
    fn short_appends_that_wait_for_no_sync_are_written_and_can_be_read() {
        for durability in [Durability::Os, Durability::Interval(1000)] {
            let mut bench = Bench::new(durability);
            let first = Bench::batch(bench.tail(), 10);
            let second = Bench::batch(first.tail(), 20);
            let (end, log_bytes) = (second.tail(), first.bytes().len() + second.bytes().len());
            assert_eq!(bench.write([first, second].map(Work::Write)), (Some(Ticket(2)), 0));
            let log = bench.log.lock();
            assert_eq!((log.tail(), log.durable()), (end, end));
            assert_eq!(bench.queue.timestamp_ms.load(Ordering::Acquire), log.last_timestamp_ms());
            assert_eq!(bench.syncer.unflushed_bytes(), log_bytes);
        }
    }

    #[test]
    fn what_takes_longer_is_left_to_the_thread_of_the_disk() {
        assert_eq!(Bench::new(Durability::Sync).append(10), LEFT, "a sync is waited for");
        let mut bench = Bench::new(Durability::Os);
        assert_eq!(bench.append(20 << 10), LEFT, "much is copied");
        let promise = Work::Promise { epoch: Epoch(1), leader: None, cluster: None };
        assert_eq!(bench.write([promise]), LEFT, "a promise is synced");
        let (leader, voters) = (ReplicaId(1), vec![ReplicaId(1)]);
        let start =
            EpochStart { epoch: Epoch(1), start: bench.tail().end, leader, voters, quorum: 1, old_voters: None };
        let start = Batch::epoch_start(Epoch(0), start).unwrap();
        assert_eq!(bench.write([Work::Write(start.clone())]), LEFT, "an epoch's start is synced");
        bench.log.lock().append(&start).unwrap();
        assert_eq!(bench.append(10), LEFT, "an epoch's start is not synced yet");
        bench.log.flush().unwrap();
        assert_eq!(bench.append(10), (Some(Ticket(1)), 0));
        while bench.append(7000) == (Some(Ticket(1)), 0) {}
        assert_eq!(bench.append(7000), LEFT, "the segment is full");
        assert_eq!(bench.append(10), (Some(Ticket(1)), 0));
        assert_eq!(bench.disk.content("segment.spare"), None, "the next segment is made by another thread");
    }

    #[test]
    fn two_appends_at_a_segments_end_make_no_file() {
        // The room that the first leaves is less than a mark of what was synced before it takes, and more.
        for spared in 0..100 {
            let mut bench = Bench::new(Durability::Os);
            while bench.log.lock().only_copies(6000) {
                bench.append(2000);
            }
            // A mark of that is to be written with what comes next.
            bench.log.flush().unwrap();
            let room = (0..usize::try_from(SEGMENT_BYTES_MIN).unwrap())
                .rev()
                .find(|bytes| bench.log.lock().only_copies(*bytes));
            let first = Bench::batch(bench.tail(), 1000);
            let overhead = first.bytes().len() - 1000;
            let second = Bench::batch(first.tail(), room.unwrap() - first.bytes().len() - overhead - spared);
            let segments = bench.disk.list().unwrap().len();
            let (_, left) = bench.write([first, second].map(Work::Write));
            assert_eq!(bench.disk.list().unwrap().len(), segments, "{spared} bytes spared, {left} left");
        }
    }

    #[test]
    fn nothing_overtakes_what_waits_for_the_disk_or_is_being_done() {
        let mut bench = Bench::new(Durability::Os);
        bench.queue.waiting().is_busy = true;
        assert_eq!(bench.append(10), LEFT, "the disk's thread works");
        bench.queue.waiting().is_busy = false;
        let waits = Task { ticket: Ticket(9), work: Work::Restored, share: None };
        bench.queue.waiting().tasks.extend([waits]);
        assert_eq!(bench.append(10), LEFT, "work waits");
        assert_eq!(bench.queue.take().map(|tasks| tasks.len()), Some(1));
        assert_eq!(bench.append(10), LEFT, "it is being done");
        bench.queue.waiting().tasks.extend([Task { ticket: Ticket(10), work: Work::Restored, share: None }]);
        assert_eq!(bench.queue.pause().map(|tasks| tasks.len()), Some(1));
        assert_eq!(bench.append(10), LEFT, "more waits for room");
        bench.queue.close();
        assert!(bench.queue.take().is_none());
        bench.queue.waiting().closed = false;
        bench.in_memory.took(Duration::from_mins(1));
        assert_eq!(bench.append(10), LEFT, "the disk was slow");
        bench.in_memory.avoided_until = Some(Instant::now());
        let log = Arc::clone(&bench.log);
        let held = log.lock();
        let batch = Bench::batch(held.tail(), 10);
        assert_eq!(bench.write([Work::Write(batch)]), LEFT, "another thread has the log");
        drop(held);
        assert_eq!(bench.append(10), (Some(Ticket(1)), 0));
    }

    #[test]
    fn what_fails_is_left_and_fails_again() {
        let mut bench = Bench::new(Durability::Os);
        bench.disk.fail_at(bench.disk.operations(), io::ErrorKind::Other);
        assert_eq!(bench.append(10), LEFT);
        let again = apply_first(bench.tasks.works(), &mut bench.log.lock());
        assert!(matches!(again, Err(LogError::Poisoned { .. })), "{again:?}");
    }

    #[test]
    fn what_was_written_before_a_refusal_is_told_and_the_rest_is_left() {
        let mut bench = Bench::new(Durability::Os);
        let first = Bench::batch(bench.tail(), 10);
        // Its time lies before the first one's: the two are no single write, and the log refuses it.
        let mut builder = BatchBuilder::new(first.tail(), 0, Limits::default());
        builder.push(None, b"value", [], None).unwrap();
        let second = builder.finish().unwrap();
        assert_eq!(bench.write([first, second].map(Work::Write)), (Some(Ticket(1)), 1));
        let again = apply_first(bench.tasks.works(), &mut bench.log.lock());
        assert!(matches!(again, Err(LogError::TimestampFell { .. })), "{again:?}");
    }
}
