//! Storage on a disk that is full or fails.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zue_core::{Epoch, EpochStart, Offset, Origin, ReplicaId, Tail, Ticket};
use zue_engine::maintenance::Unanswered;
use zue_log::sim::SimDisk;
use zue_log::{Batch, BatchBuilder, CompactionConfig, Disk as _, Limits, Log, LogConfig, SEGMENT_BYTES_MIN, SharedLog};
use zue_settings::LogSettings;

use super::maintenance::Others;
use super::queue::Queue;
use super::syncer::{Syncer, Written};
use super::worker::Worker;
use super::{Around, DiskFact, Fetch, Storage, Task, Work};
use crate::driver::clock::SharedTime;
use crate::metrics::Metrics;

/// The first segment.
const SEGMENT: &str = "00000000000000000000.log";

struct Bench {
    disk: SimDisk,
    storage: Storage,
    facts: mpsc::Receiver<DiskFact>,
    tail: Tail,
    ticket: u64,
}

fn config() -> LogConfig {
    LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, ..LogConfig::default() }
}

impl Bench {
    fn new() -> Self {
        Self::on(SimDisk::new(1), mpsc::channel(1).0)
    }

    fn on(disk: SimDisk, fetches: mpsc::Sender<Fetch>) -> Self {
        Self::with(disk, config(), fetches, Box::new(|| Some(vec![ReplicaId(2)])))
    }

    fn with(disk: SimDisk, config: LogConfig, fetches: mpsc::Sender<Fetch>, others: Others) -> Self {
        let (log, _) = Log::open(disk.clone(), config, ReplicaId(1)).unwrap();
        let (sender, facts) = mpsc::channel(16);
        let tail = log.tail();
        let settings = crate::config::convert::maintenance_settings(LogSettings::default());
        let backed_up = Box::new(|| None);
        let around = Around { settings, fetches, time: SharedTime::default(), others, backed_up };
        let storage = Storage::spawn(log, "test", sender, Arc::new(Metrics::new().unwrap()), around).unwrap();
        Self { disk, storage, facts, tail, ticket: 0 }
    }

    fn push(&mut self, work: Work) -> Ticket {
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        self.storage.push(std::iter::once(Task { ticket, work, share: None }));
        ticket
    }

    fn append(&mut self, bytes: usize) -> Ticket {
        let mut builder = BatchBuilder::new(self.tail, 1, Limits::default());
        builder.push(None, &vec![1; bytes], [], None).unwrap();
        let batch = builder.finish().unwrap();
        self.tail = batch.tail();
        self.push(Work::Write(batch))
    }

    fn promise(&mut self, epoch: u64) -> Ticket {
        self.push(Work::Promise { epoch: Epoch(epoch), leader: None, cluster: None })
    }

    fn fact(&mut self) -> DiskFact {
        fact(&mut self.facts)
    }

    fn until_persisted(&mut self, ticket: Ticket) {
        loop {
            match self.fact() {
                DiskFact::Persisted(persisted) if persisted == ticket => return,
                DiskFact::Persisted(persisted) if persisted < ticket => {}
                fact => panic!("{fact:?} where {ticket:?} is to be persisted"),
            }
        }
    }
}

fn fact(facts: &mut mpsc::Receiver<DiskFact>) -> DiskFact {
    let wait = async { tokio::time::timeout(Duration::from_secs(20), facts.recv()).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(wait).expect("it says something").expect("it lives")
}

#[test]
fn a_full_disk_keeps_appends_waiting_but_not_promises() {
    let mut bench = Bench::new();
    let first = bench.append(8000);
    bench.until_persisted(first);
    bench.disk.set_room(Some(0));
    let (fits, waits, behind) = (bench.append(8000), bench.append(20_000), bench.append(10));
    let promise = bench.promise(3);
    let mut facts = vec![bench.fact(), bench.fact()];
    while !facts.iter().any(|fact| matches!(fact, DiskFact::Promised(_))) {
        facts.push(bench.fact());
    }
    assert!(facts.iter().any(|fact| matches!(fact, DiskFact::Full(Some(_)))), "{facts:?}");
    assert!(facts.iter().any(|fact| matches!(fact, DiskFact::Promised(ticket) if *ticket == promise)), "{facts:?}");
    let beyond = |fact: &DiskFact| matches!(fact, DiskFact::Persisted(ticket) if *ticket > fits);
    assert!(!facts.iter().any(beyond), "{facts:?}");
    let later = bench.promise(4);
    while !matches!(bench.fact(), DiskFact::Promised(ticket) if ticket == later) {}
    bench.disk.set_room(None);
    let mut facts = vec![];
    while !matches!(facts.last(), Some(DiskFact::Persisted(ticket)) if *ticket == later) {
        facts.push(bench.fact());
    }
    assert!(facts.iter().any(|fact| matches!(fact, DiskFact::Full(None))), "{facts:?}");
    assert!(waits < behind);
    bench.disk.kill();
    let (log, _) = Log::open(bench.disk.clone(), config(), ReplicaId(1)).unwrap();
    assert_eq!((log.tail(), log.meta().promise.epoch), (bench.tail, Epoch(4)));
}

#[test]
fn an_epoch_start_finds_room_on_a_full_disk() {
    let mut bench = Bench::new();
    bench.promise(1);
    let mut last = bench.append(7000);
    for _ in 0..2 {
        last = bench.append(7000);
    }
    bench.until_persisted(last);
    bench.disk.set_room(Some(0));
    let start = EpochStart {
        epoch: Epoch(1),
        start: bench.tail.end,
        leader: ReplicaId(1),
        voters: vec![ReplicaId(1)],
        quorum: 1,
        old_voters: None,
    };
    let ticket = bench.push(Work::Write(Batch::epoch_start(Epoch(0), start).unwrap()));
    bench.until_persisted(ticket);
}

#[test]
fn what_fails_is_told_and_nothing_is_persisted_after_it() {
    for further in 0..2 {
        let mut bench = Bench::new();
        let first = bench.append(10);
        bench.until_persisted(first);
        // The write or the sync of the next append.
        bench.disk.fail_at(bench.disk.operations() + further, io::ErrorKind::Other);
        bench.append(10);
        assert!(matches!(bench.fact(), DiskFact::Failed(_)));
        bench.append(10);
        bench.storage.queue.close();
        while let Some(fact) = bench.facts.blocking_recv() {
            assert!(matches!(fact, DiskFact::Failed(_)), "{fact:?}");
        }
        bench.disk.kill();
        let (log, _) = Log::open(bench.disk.clone(), config(), ReplicaId(1)).unwrap();
        assert!(log.tail().end >= Offset(1));
    }
}

#[test]
fn what_fails_is_told_while_a_sync_hangs() {
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(disk.clone(), config(), ReplicaId(1)).unwrap();
    let (log, queue) = (Arc::new(SharedLog::new(log)), Arc::new(Queue::default()));
    let (sender, mut facts) = mpsc::channel(16);
    let syncer =
        Syncer::new(Arc::clone(&log), sender.clone(), Arc::new(Metrics::new().unwrap()), zue_log::Durability::Sync);
    let (end, hangs) = std::sync::mpsc::channel::<()>();
    let (syncing, keeping) = (thread::spawn(move || hangs.recv().unwrap_or_default()), thread::spawn(|| {}));
    disk.fail_at(disk.operations(), io::ErrorKind::Other);
    let work = Work::Promise { epoch: Epoch(1), leader: None, cluster: None };
    queue.waiting().tasks.extend([Task { ticket: Ticket(1), work, share: None }]);
    let worker = Worker::new(log, Arc::clone(&queue), sender, syncer);
    let working = thread::spawn(move || worker.run(syncing, (&std::sync::mpsc::channel().0, keeping)));
    assert!(matches!(fact(&mut facts), DiskFact::Failed(_)));
    queue.close();
    drop(end);
    working.join().unwrap();
}

#[test]
fn what_no_acknowledgement_waits_for_is_flushed_once_it_is_much() {
    let disk = SimDisk::new(1);
    let config = LogConfig { durability: zue_log::Durability::Os, ..config() };
    let (mut log, _) = Log::open(disk.clone(), config, ReplicaId(1)).unwrap();
    let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
    builder.push(None, &b"value".repeat(100), [], None).unwrap();
    log.append(&builder.finish().unwrap()).unwrap();
    let log = Arc::new(SharedLog::new(log));
    let (sender, mut facts) = mpsc::channel(16);
    let metrics = Arc::new(Metrics::new().unwrap());
    let syncer = Syncer::new(log, sender, metrics, zue_log::Durability::Os);
    let survives = |seed: u64| {
        let fork = disk.fork();
        fork.crash(seed);
        Log::open(fork, config, ReplicaId(1)).unwrap().0.tail().end == Offset(1)
    };
    let write = |bytes: usize| {
        let mut written = Written::default();
        written.add(Ticket(1), None, bytes);
        syncer.written(written, false);
    };
    let flushing = Arc::clone(&syncer);
    let running = thread::spawn(move || flushing.run());
    write(100);
    assert!(matches!(fact(&mut facts), DiskFact::Persisted(Ticket(1))), "it counts at once");
    assert!(!(0..20).all(survives), "and is not on the disk");
    write(8 << 20);
    let begun = std::time::Instant::now();
    while !(0..20).all(survives) {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never flushed");
        thread::yield_now();
    }
    syncer.close();
    running.join().unwrap();
}

#[test]
fn a_repair_that_waits_for_others_asks_for_nothing_more_once_the_disk_has_failed() {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), config(), ReplicaId(1)).unwrap();
    for value in [b"one".repeat(100), b"two".repeat(100), b"three".repeat(100)] {
        let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
        builder.push(None, &value, [], None).unwrap();
        builder.push(None, &value, [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    log.sync().unwrap();
    log.note_commit(Offset(6));
    log.close().unwrap();
    disk.damage(SEGMENT, |bytes| {
        let is_two = |window: &[u8]| window == b"twotwo";
        for at in [bytes.windows(6).position(is_two).unwrap(), bytes.windows(6).rposition(is_two).unwrap()] {
            bytes[at] ^= 1;
        }
    });
    let (ask, mut fetches) = mpsc::channel(1);
    let mut bench = Bench::on(disk, ask);
    let asked = fetches.blocking_recv().unwrap();
    assert_eq!((asked.ask.of, asked.ask.from, asked.ask.upto), (ReplicaId(2), Offset(2), Offset(4)));
    assert!(matches!(bench.fact(), DiskFact::Damaged(Some(_))), "what is damaged is told before it is repaired");
    bench.disk.fail_at(bench.disk.operations(), io::ErrorKind::Other);
    bench.append(10);
    assert!(matches!(bench.fact(), DiskFact::Failed(_)));
    asked.reply.send(Err(Unanswered { reason: "it is damaged there".to_owned(), is_damaged: true }));
    assert!(fetches.blocking_recv().is_none(), "it asks for the next one");
}

/// A disk on which a log was begun anew twice, with records in several segments since, all committed; every other has the same key.
fn begun_anew(config: LogConfig) -> (SimDisk, Log<SimDisk>) {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), config, ReplicaId(1)).unwrap();
    log.set_promise(Epoch(1), Some(ReplicaId(1)), None).unwrap();
    let voters = vec![ReplicaId(1)];
    let start =
        EpochStart { epoch: Epoch(1), start: Offset(0), leader: ReplicaId(1), voters, quorum: 1, old_voters: None };
    log.append(&Batch::epoch_start(Epoch(0), start).unwrap()).unwrap();
    for at in [20, 30] {
        let (history, producers) = (log.history().clone(), log.producers().clone());
        log.reset(&Origin { at: Offset(at), history, timestamp_ms: 1, producers }).unwrap();
    }
    for number in 0..8_u8 {
        let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
        let (key, value) = if number % 2 == 0 { (b"k", 7) } else { (&[number], 8) };
        builder.push(Some(key), &[value; 12_000], [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    log.sync().unwrap();
    log.note_commit(Offset(38));
    assert_eq!(log.former_logs().len(), 2);
    (disk, log)
}

fn former(disk: &SimDisk) -> usize {
    disk.list().unwrap().iter().filter(|name| name.ends_with(".former")).count()
}

#[test]
fn a_repair_that_finds_no_room_lets_former_logs_go_the_oldest_first_and_tries_again() {
    let (disk, log) = begun_anew(config());
    let whole = log.reader().excerpt(Offset(30), Offset(31), 1 << 20).unwrap();
    log.close().unwrap();
    disk.damage("00000000000000000030.log", |bytes| {
        let at = bytes.windows(9).position(|window| window == [7; 9]).unwrap();
        bytes[at] ^= 1;
    });
    let (ask, mut fetches) = mpsc::channel::<Fetch>(1);
    disk.set_growth(Some(6000));
    let before = former(&disk);
    let mut bench = Bench::on(disk.clone(), ask);
    let giving = thread::spawn(move || {
        let mut asked = 0;
        while let Some(fetch) = fetches.blocking_recv() {
            asked += 1;
            fetch.reply.send(Ok(whole.clone()));
        }
        asked
    });
    while !matches!(bench.fact(), DiskFact::Damaged(None)) {}
    let after = former(&disk);
    assert!(0 < after && after < before, "{after} of {before} files are left: those of the newer log");
    bench.storage.queue.close();
    drop(bench);
    assert_eq!(giving.join().unwrap(), 2, "it tried again, once");
}

#[test]
fn a_compaction_that_finds_no_room_lets_former_logs_go_and_tries_again() {
    let compaction = Some(CompactionConfig { tombstone_retention_ms: 0, dirty_percent: 1 });
    let compacted = LogConfig { compaction, ..config() };
    let (disk, log) = begun_anew(compacted);
    log.close().unwrap();
    disk.set_growth(Some(6000));
    let before = former(&disk);
    let bench = Bench::with(disk.clone(), compacted, mpsc::channel(1).0, Box::new(|| None));
    let begun = Instant::now();
    let is_compacted = |disk: &SimDisk| {
        let bytes = disk.content("00000000000000000030.log").unwrap();
        bytes.windows(9).all(|window| window != [7; 9])
    };
    while !is_compacted(&disk) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is given up");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(former(&disk) < before);
    bench.storage.queue.close();
}

#[test]
fn a_thread_of_the_disk_that_panics_is_told_of_while_others_live_on() {
    let (facts, mut told) = mpsc::channel(1);
    let thread = super::spawn("disk test".to_owned(), &facts, super::failed, || panic!("a broken invariant")).unwrap();
    assert!(thread.join().is_err());
    assert!(matches!(told.try_recv(), Ok(DiskFact::Failed(problem)) if problem.contains("disk test")));
    super::spawn("disk test".to_owned(), &facts, super::failed, || {}).unwrap().join().unwrap();
    assert!(told.try_recv().is_err());
}

#[test]
fn a_panic_of_who_looks_after_the_log_is_told_and_appends_go_on() {
    let mut bench =
        Bench::with(SimDisk::new(1), config(), mpsc::channel(1).0, Box::new(|| panic!("a broken invariant")));
    let told = bench.fact();
    let DiskFact::Neglected(problem) = &told else { panic!("{told:?}") };
    assert!(problem.contains("\"maintain test\" panicked") && problem.contains("nothing is repaired"), "{problem}");
    let ticket = bench.append(10);
    bench.until_persisted(ticket);
}
