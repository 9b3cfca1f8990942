//! Every crash point of a workload: the machine stops before each operation on the disk in turn, and of what was not synced each
//! piece is kept, torn or lost, in every combination. The log must open, hold all that was
//! durable, and nothing it never held. And every call of the disk fails in turn.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use common::{ID, SMALL, SimLog, append, open, read_all, segments, start};
use zue_core::{Epoch, History, Offset, Origin, Producers, ReplicaId, Tail};
use zue_log::sim::{Every, SimDisk};
use zue_log::{Batch, Disk as _, Log, LogError, Producer, ProducerRun, ReadError};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One append of so many records of so many bytes.
    Append(u8, usize),
    Epoch(u64),
    Sync,
    /// Note as committed.
    Commit(u64),
    /// To so many of all epoch starts, and to the offset.
    Cut(usize, u64),
    Trim(u64),
    /// To an empty log that begins at the offset, in the epoch, which began five records before.
    Reset(u64, u64),
    Promise(u64),
    /// Close and open.
    Reopen,
}
use Step::{Append, Commit, Cut, Epoch as Start, Promise, Reopen, Reset, Sync, Trim};

/// Rolls, cuts inside a segment, at a base, across segments and at equal offsets, trims inside a segment and over several, resets to
/// a name that is taken and to one that is not, and all with and without syncs between.
const WORKLOAD: &[Step] = &[
    Promise(1),
    Start(1),
    Append(1, 100),
    Append(3, 50),
    Sync,
    Append(1, 9000),
    Append(2, 6000),
    Append(1, 9000),
    Commit(5),
    Promise(4),
    Append(1, 9000),
    Sync,
    Start(2),
    Append(2, 200),
    Cut(1, 7),
    Start(3),
    Append(1, 3000),
    Sync,
    Reopen,
    Append(2, 9000),
    Append(1, 9000),
    Append(4, 100),
    Sync,
    Append(1, 9000),
    Promise(8),
    Append(1, 9000),
    Cut(2, 10),
    Append(1, 77),
    Start(5),
    Start(6),
    Cut(3, 11),
    Append(1, 10),
    Sync,
    Cut(3, 11),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Commit(12),
    Sync,
    Start(7),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Cut(4, 14),
    Promise(20),
    Append(2, 100),
    Cut(3, 13),
    Append(5, 20),
    Sync,
    Append(2, 40),
    Trim(6),
    Append(1, 9000),
    Cut(3, 18),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Commit(21),
    Append(1, 9000),
    // Beyond what is synced.
    Trim(21),
    Append(1, 9000),
    Reopen,
    Start(10),
    Append(2, 6000),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Sync,
    Commit(25),
    Trim(24),
    Trim(25),
    Cut(1, 27),
    // The base of a segment.
    Reset(27, 11),
    Append(2, 9000),
    Append(1, 9000),
    Sync,
    Append(1, 9000),
    Commit(29),
    // Inside an append.
    Trim(28),
    Start(12),
    Append(1, 9000),
    Reset(100, 12),
    Trim(100),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Sync,
    Commit(105),
    Start(13),
    Trim(105),
    Cut(1, 105),
    Append(1, 30),
    Sync,
    Append(1, 9000),
    // Into files that were used before: over the end of one, with cuts, another cut, a clean close and trims in them.
    Append(1, 9000),
    Append(1, 9000),
    Sync,
    Commit(109),
    Trim(107),
    Start(14),
    Append(2, 6000),
    Append(1, 9000),
    Sync,
    Append(1, 200),
    Cut(1, 109),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
    Sync,
    Append(2, 100),
    Cut(1, 112),
    Append(1, 50),
    Sync,
    Start(15),
    Append(3, 40),
    Reopen,
    Append(1, 300),
    Sync,
    Commit(116),
    Trim(112),
    Append(1, 9000),
    Append(1, 9000),
    Append(1, 9000),
];

/// The content of a log.
#[derive(Clone, PartialEq, Debug)]
struct State {
    log_start: u64,
    /// From the start on.
    records: Vec<(u64, Vec<u8>)>,
    epochs: Vec<(u64, u64)>,
    /// The appends of the producers.
    producers: Producers,
}

impl State {
    fn end(&self) -> u64 {
        self.log_start + self.records.len() as u64
    }

    fn trimmed(&self, before: u64) -> Self {
        let mut trimmed = self.clone();
        trimmed.records.drain(..usize::try_from(before - self.log_start).unwrap());
        trimmed.log_start = before;
        let begun = self.epochs.iter().filter(|(_, start)| *start < before).count();
        trimmed.epochs.drain(..begun.saturating_sub(1));
        trimmed
    }
}

/// The content that a log may have after a crash.
#[derive(Debug)]
struct Allowed {
    /// The last state that was durable for certain, and all since then.
    states: Vec<State>,
    /// The last promise that was made for certain, and the one that was being made.
    promised: (u64, u64),
}

impl Allowed {
    fn now(&self) -> State {
        self.states.last().unwrap().clone()
    }

    fn durable(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }
}

fn empty() -> State {
    State { log_start: 0, records: vec![], epochs: vec![], producers: Producers::new(SMALL.producers) }
}

fn state(log: &SimLog) -> State {
    let (log_start, mut history) = (log.log_start(), log.history().clone());
    // It keeps what it needs for the segments that it has.
    history.trim(log_start);
    let epochs = history.starts().iter().map(|start| (start.epoch.0, start.start.0)).collect();
    State { log_start: log_start.0, records: read_all(log), epochs, producers: log.producers().clone() }
}

fn origin(at: u64, epoch: u64) -> Origin {
    let mut producers = Producers::new(SMALL.producers);
    producers.record(ProducerRun { id: 1, sequence: 0, base: Offset(at - 2), count: 2 }.appended());
    let history = History::new(vec![start(epoch, at - 5)]).unwrap();
    Origin { at: Offset(at), history, timestamp_ms: 1000 + at - 1, producers }
}

fn reset(at: u64, epoch: u64) -> State {
    State { log_start: at, records: vec![], epochs: vec![(epoch, at - 5)], producers: origin(at, epoch).producers }
}

fn is_of_disk(error: &LogError) -> bool {
    matches!(error, LogError::Disk(_) | LogError::NoRoom(_) | LogError::Read(ReadError::Disk(_)))
}

/// Takes the step, and notes what it may have changed before it is known that it did. `None` once the machine has stopped.
fn take(step: Step, disk: &SimDisk, mut log: SimLog, allowed: &mut Allowed) -> Option<SimLog> {
    let mut next = allowed.now();
    match step {
        Append(count, bytes) => {
            let value = |index: u8| {
                let mut value = format!("{:?} {index} ", log.tail()).into_bytes();
                value.resize(bytes.max(value.len()), index);
                value
            };
            let values: Vec<_> = (0..count).map(value).collect();
            next.records.extend(values.iter().map(|value| (log.tail().epoch.0, value.clone())));
            let base = log.tail().end;
            // More producers than the table holds.
            let producer = Producer { id: (base.0 % 6).into(), sequence: base.0 };
            let run = ProducerRun { id: producer.id, sequence: base.0, base, count: count.into() };
            next.producers.record(run.appended());
            allowed.states.push(next);
            log.append(&common::batch_by(log.tail(), &values, Some(producer))).ok()?;
        }
        Start(epoch) => {
            let at = log.tail().end.0;
            next.epochs.push((epoch, at));
            allowed.states.push(next);
            log.append(&Batch::epoch_start(log.tail().epoch, start(epoch, at)).unwrap()).ok()?;
        }
        Sync => {
            log.sync().ok()?;
            allowed.durable();
        }
        Commit(end) => log.note_commit(Offset(end)),
        Cut(depth, end) => {
            next.records.truncate(usize::try_from(end - next.log_start).unwrap());
            next.epochs.truncate(depth);
            let to = Tail { epoch: Epoch(next.epochs.last().map_or(0, |(epoch, _)| *epoch)), end: Offset(end) };
            if Offset(end) < log.tail().end {
                next.producers.cut(Offset(end));
            }
            allowed.states.push(next);
            let cut = log.cut(to);
            assert!(cut.as_ref().err().is_none_or(is_of_disk), "{step:?}: {cut:?}");
            cut.ok()?;
            allowed.durable();
        }
        Trim(before) => {
            let trimmed = allowed.states.iter().filter(|state| state.end() >= before);
            let trimmed: Vec<_> = trimmed.map(|state| state.trimmed(before)).collect();
            allowed.states.extend(trimmed);
            let trim = log.trim(Offset(before));
            assert!(trim.as_ref().err().is_none_or(is_of_disk), "{step:?}: {trim:?}");
            assert_eq!(trim.ok()?, Offset(before));
            allowed.states.retain(|state| state.log_start == before);
        }
        Reset(at, epoch) => {
            allowed.states.push(reset(at, epoch));
            let reset = log.reset(&origin(at, epoch));
            assert!(reset.as_ref().err().is_none_or(is_of_disk), "{step:?}: {reset:?}");
            reset.ok()?;
            allowed.durable();
        }
        Promise(epoch) => {
            allowed.promised.1 = epoch;
            log.set_promise(Epoch(epoch), Some(ReplicaId(1)), None).ok()?;
            allowed.promised.0 = epoch;
        }
        Reopen => {
            log.close().ok()?;
            allowed.durable();
            log = Log::open(disk.clone(), SMALL, ID).ok()?.0;
        }
    }
    Some(log)
}

/// Runs the workload until the machine stops before the operation, if it does.
fn run(seed: u64, stop_at: Option<u64>) -> (SimDisk, Allowed) {
    run_on(SimDisk::new(seed), stop_at)
}

fn run_on(disk: SimDisk, stop_at: Option<u64>) -> (SimDisk, Allowed) {
    let mut allowed = Allowed { states: vec![empty()], promised: (0, 0) };
    if let Some(stop) = stop_at {
        disk.stop_at(stop);
    }
    let mut log = Log::open(disk.clone(), SMALL, ID).ok().map(|(log, _)| log);
    let mut used_again = BTreeSet::new();
    for step in WORKLOAD {
        log = log.and_then(|log| take(*step, &disk, log, &mut allowed));
        if stop_at.is_none() {
            let headers = segments(&disk).into_iter().map(|name| disk.content(&name).unwrap()[..32].to_vec());
            used_again.extend(headers.filter(|header| header[12] == 1));
        }
    }
    if stop_at.is_none() {
        assert!(used_again.len() >= 10, "{}", used_again.len());
        assert_eq!(state(&log.expect("the workload takes every step")), allowed.now());
    }
    (disk, allowed)
}

fn check(disk: &SimDisk, allowed: &Allowed, at: &str) {
    let (log, recovered) = open(disk);
    assert_eq!(
        (recovered.suspect, &*recovered.damaged),
        (None, [].as_slice()),
        "{at}: a crash loses nothing that was told"
    );
    let found = state(&log);
    assert!(allowed.states.contains(&found), "{at}: the log holds what it never held, or lacks what was durable");
    assert_eq!((log.tail().end.0, log.durable()), (found.end(), log.tail()), "{at}");
    let promised = log.meta().promise.epoch.0;
    assert!(promised == allowed.promised.0 || promised == allowed.promised.1, "{at}: promise {promised}");
    // It said that this is durable.
    disk.crash(2);
    drop(log);
    let (mut log, recovered) = open(disk);
    assert_eq!((state(&log), recovered.cut_bytes), (found, 0), "{at}: after a crash of the open log");
    // The log goes on, and what was left behind does not come back.
    append(&mut log, &["after", "the crash"]);
    let longer = state(&log);
    log.sync().unwrap();
    disk.crash(1);
    drop(log);
    let (log, recovered) = open(disk);
    assert_eq!((state(&log), recovered.cut_bytes), (longer, 0), "{at}: after a second crash");
}

fn crash_everywhere(seeds: std::ops::Range<u64>) {
    let (disk, _) = run(0, None);
    let operations = disk.operations();
    assert!(operations > 200, "{operations}");
    for stop in 0..operations {
        for seed in seeds.clone() {
            let at = format!("stopped before operation {stop}, seed {seed}");
            let (disk, allowed) = run(seed, Some(stop));
            // Only the process stops, or the machine does.
            let killed = seed == 0 || seed % 2 == 1;
            if killed {
                disk.kill();
            } else {
                disk.crash(seed);
            }
            // The machine stops while the log recovers.
            if seed > 0 {
                disk.stop_at(disk.operations() + seed * 2);
                let recovering = Log::open(disk.clone(), SMALL, ID);
                disk.crash(seed + stop);
                drop(recovering);
            }
            check(&disk, &allowed, &at);
        }
    }
}

#[test]
fn at_every_crash_point_the_log_holds_what_was_durable_and_nothing_it_never_held() {
    crash_everywhere(0..8);
}

/// So many possibilities of one crash point are looked at one by one; where there are more, the rest is up to chance.
const POSSIBILITIES_MAX: usize = 100;

#[test]
fn whatever_a_crash_leaves_of_what_was_not_synced_the_log_holds_what_was_durable() {
    let operations = run(0, None).0.operations();
    let (mut looked_at, mut whole) = (0, 0);
    for stop in 0..=operations {
        let (stopped, allowed) = run(0, Some(stop));
        // Nothing rests on an index: what is left of these is up to chance in the other tests.
        stopped
            .list()
            .unwrap()
            .iter()
            .filter(|name| name.ends_with(".index"))
            .for_each(|name| stopped.damage(name, |_| {}));
        let mut every = Every::default();
        for n in 1..=POSSIBILITIES_MAX {
            let disk = stopped.fork();
            disk.crash_by(&mut every);
            check(&disk, &allowed, &format!("stopped before operation {stop}, {every:?}"));
            looked_at += 1;
            if !every.go_on() {
                whole += 1;
                break;
            }
            if n == POSSIBILITIES_MAX {
                for seed in 0..20 {
                    let disk = stopped.fork();
                    disk.crash(seed);
                    check(&disk, &allowed, &format!("stopped before operation {stop}, seed {seed}"));
                }
            }
        }
    }
    assert!(
        looked_at > 5000 && whole * 4 > operations * 3,
        "{looked_at} possibilities, {whole} of {operations} points"
    );
}

#[test]
#[should_panic(expected = "stopped before operation")]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    for stop in 0..400 {
        let disk = SimDisk::new(0);
        drop(open(&disk));
        disk.lie();
        let (disk, allowed) = run_on(disk, Some(stop));
        disk.crash(stop);
        check(&disk, &allowed, &format!("stopped before operation {stop}"));
    }
}

#[test]
fn whichever_call_of_the_disk_fails_nothing_durable_is_lost_and_nothing_else_appears() {
    let calls = run(0, None).0.calls();
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for call in 0..calls {
            let disk = SimDisk::new(0);
            disk.fail_call_at(call, kind);
            let (disk, allowed) = run_on(disk, Some(u64::MAX));
            let at = format!("{kind} at call {call}");
            if call % 2 == 0 {
                disk.kill();
            } else {
                disk.crash(call);
            }
            check(&disk, &allowed, &at);
        }
    }
}

/// A name that the killed process had given is there when the next one opens, and may still be gone after a crash.
#[test]
fn a_machine_that_stops_while_a_log_opens_whose_process_was_killed_loses_nothing() {
    let operations = run(0, None).0.operations();
    for stop in 0..operations {
        for opening in 0..8 {
            let seed = 1 + (stop + opening) % 5;
            let at = format!("killed before operation {stop}, stopped {opening} later, seed {seed}");
            let (disk, allowed) = run(seed, Some(stop));
            disk.kill();
            disk.stop_at(disk.operations() + opening);
            let recovering = Log::open(disk.clone(), SMALL, ID);
            disk.crash(seed + stop);
            drop(recovering);
            check(&disk, &allowed, &at);
        }
    }
}
