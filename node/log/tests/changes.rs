//! Appending, rolling, cutting and promising, without faults: what was kept is there, what was cut is not, also after reopening.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use common::{ID, append, batch, epochs, fill, fresh, open, read_all, read_from, segments, start_epoch, try_open};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Tail};
use zue_log::{Batch, LogError, OpenError, ReadError};

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

#[test]
fn what_was_appended_is_read_and_is_there_after_reopening() {
    let (disk, mut log) = fresh(1);
    start_epoch(&mut log, 1);
    append(&mut log, &["a", "b"]);
    append(&mut log, &["c"]);
    assert_eq!((log.tail(), log.durable()), (tail(1, 3), tail(0, 0)));
    assert_eq!(log.sync().unwrap(), tail(1, 3));
    let held = read_all(&log);
    assert_eq!(held, [(1, b"a".to_vec()), (1, b"b".to_vec()), (1, b"c".to_vec())]);
    let timestamp_ms = log.last_timestamp_ms();
    log.close().unwrap();
    let (log, recovered) = open(&disk);
    assert_eq!(recovered, zue_log::Recovered::default());
    assert_eq!((read_all(&log), log.tail(), log.durable()), (held, tail(1, 3), tail(1, 3)));
    assert_eq!((log.last_timestamp_ms(), log.meta().starts.count, log.meta().replica), (timestamp_ms, 2, ID));
}

#[test]
fn a_log_rolls_and_every_record_is_found() {
    let (disk, mut log) = fresh(2);
    start_epoch(&mut log, 1);
    fill(&mut log, 100, 1500);
    start_epoch(&mut log, 2);
    fill(&mut log, 100, 1500);
    assert!(segments(&disk).len() > 5);
    let held = read_all(&log);
    assert_eq!(held.len(), 200);
    for offset in 0..200_u64 {
        let chunk = log.reader().read(Offset(offset), Offset(offset + 1), 0).unwrap();
        let record = chunk.records().next().unwrap().unwrap();
        assert_eq!((record.offset.0, chunk.end().0, record.key), (offset, offset + 1, Some(b"key".as_slice())));
        assert_eq!(record.value, held[usize::try_from(offset).unwrap()].1);
        assert_eq!(record.headers().collect::<Vec<_>>(), [("h", b"1".as_slice())]);
    }
    log.close().unwrap();
    let (log, _) = open(&disk);
    assert_eq!((read_all(&log), epochs(&log)), (held, vec![(1, 0), (2, 100)]));
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_larger_one() {
    let (disk, mut log) = fresh(3);
    append(&mut log, &["before"]);
    append(&mut log, &[vec![7; 100_000]]);
    append(&mut log, &["after"]);
    log.close().unwrap();
    let (log, _) = open(&disk);
    assert_eq!(read_all(&log).iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [6, 100_000, 5]);
}

#[test]
fn reads_out_of_range_name_the_range() {
    let (_disk, mut log) = fresh(3);
    append(&mut log, &["a", "b"]);
    let reader = log.reader();
    for (from, upto, end) in [(3, 9, 2), (2, 1, 1)] {
        let error = reader.read(Offset(from), Offset(upto), 100).unwrap_err();
        assert!(
            matches!(error, ReadError::OutOfRange { from: f, log_start: Offset(0), end: e } if f.0 == from && e.0 == end),
            "{error}"
        );
    }
    assert!(reader.read(Offset(2), Offset(9), 100).unwrap().is_empty());
}

#[test]
fn a_read_gives_whole_appends_and_may_begin_inside_one() {
    let (_disk, mut log) = fresh(3);
    append(&mut log, &["a", "b", "c"]);
    append(&mut log, &["d"]);
    let ends = |from, bytes_max| log.reader().read(Offset(from), Offset(4), bytes_max).unwrap().end().0;
    assert_eq!([ends(0, 0), ends(0, 10_000), ends(1, 0), ends(3, 0)], [3, 4, 3, 4]);
}

#[test]
fn replication_reads_what_follows_a_tail_epoch_starts_included() {
    let (_disk, mut log) = fresh(4);
    start_epoch(&mut log, 2);
    append(&mut log, &["a", "b"]);
    start_epoch(&mut log, 3);
    start_epoch(&mut log, 5);
    fill(&mut log, 60, 1500);
    let reader = log.reader();
    for bytes_max in [0, 100, 5000, 1 << 20] {
        let (disk, mut copy) = fresh(5);
        copy.set_promise(log.tail().epoch, None, None).unwrap();
        while let Some(batch) = reader.read_frames(copy.tail(), log.tail(), bytes_max).unwrap() {
            let sent = Batch::decode(batch.bytes().clone(), copy.tail(), &zue_log::Limits::default()).unwrap();
            copy.append(&sent).unwrap();
        }
        assert_eq!((copy.tail(), copy.history()), (log.tail(), log.history()));
        copy.close().unwrap();
        let (copy, _) = open(&disk);
        assert_eq!(read_all(&copy), read_all(&log));
    }
    for other in [tail(1, 0), tail(2, 3), tail(3, 1), tail(5, 100), tail(4, 2)] {
        assert!(matches!(reader.read_frames(other, log.tail(), 0), Err(ReadError::NoSuchPrefix { .. })), "{other}");
    }
    for (from, upto, next) in [(tail(2, 2), tail(3, 2), tail(3, 2)), (tail(2, 0), tail(2, 2), tail(2, 2))] {
        assert_eq!(reader.read_frames(from, upto, 1 << 20).unwrap().unwrap().tail(), next);
    }
}

#[test]
fn a_batch_that_does_not_follow_is_refused_and_changes_nothing() {
    let (_disk, mut log) = fresh(6);
    append(&mut log, &["a"]);
    for prev in [tail(0, 0), tail(0, 2), tail(1, 1)] {
        assert!(matches!(log.append(&batch(prev, &["x"])), Err(LogError::NotNext { .. })));
    }
    let mut earlier = zue_log::BatchBuilder::new(log.tail(), log.last_timestamp_ms() - 1, zue_log::Limits::default());
    earlier.push(None, b"", [], None).unwrap();
    assert!(matches!(log.append(&earlier.finish().unwrap()), Err(LogError::TimestampFell { .. })));
    assert_eq!(log.append(&batch(log.tail(), &["b"])).unwrap(), tail(0, 2));
}

/// A log of epochs 1 at 0, 2 at 40, 3 at 40, 4 at 60, of 80 records in several segments.
fn long() -> (zue_log::sim::SimDisk, common::SimLog) {
    let (disk, mut log) = fresh(8);
    for (epoch, count) in [(1, 40), (2, 0), (3, 20), (4, 20)] {
        start_epoch(&mut log, epoch);
        fill(&mut log, count, 1500);
    }
    assert!(segments(&disk).len() >= 4);
    (disk, log)
}

#[test]
fn a_cut_anywhere_keeps_the_prefix_and_nothing_else() {
    let (disk, log) = long();
    let (held, bases) = (read_all(&log), segments(&disk));
    drop(log);
    let bases = bases.iter().map(|name| name[..20].parse::<u64>().unwrap());
    let middles =
        [(1, 1), (1, 39), (1, 40), (2, 40), (3, 40), (3, 41), (3, 60), (4, 60), (4, 79), (4, 80), (0, 0), (1, 0)];
    let depth = |end: u64| 1 + usize::from(end > 40) * 2 + usize::from(end > 60);
    for (depth, end) in bases.map(|base| (depth(base), base)).chain(middles) {
        let (disk, mut log) = long();
        let reader = log.reader();
        log.cut(tail(depth as u64, end)).unwrap();
        assert_eq!(log.durable(), log.tail());
        let kept = &held[..usize::try_from(end).unwrap()];
        let check = |log: &common::SimLog| {
            assert_eq!((log.history().depth(), log.tail().end.0), (depth, end));
            assert_eq!(read_all(log), kept, "cut to {depth} {end}");
            assert_eq!(log.last_timestamp_ms(), if end == 0 { 0 } else { 1000 + end - 1 });
        };
        check(&log);
        assert_eq!(reader.tail(), log.tail());
        disk.crash(end);
        drop(log);
        let (mut log, recovered) = open(&disk);
        check(&log);
        assert_eq!(recovered.cut_bytes, 0);
        start_epoch(&mut log, 9);
        fill(&mut log, 30, 1500);
        let after = read_all(&log);
        assert_eq!((&after[..kept.len()], after.len()), (kept, kept.len() + 30));
        log.close().unwrap();
        let (log, _) = open(&disk);
        assert_eq!((read_all(&log), log.tail().epoch.0), (after, 9));
    }
}

#[test]
fn a_reader_of_what_is_cut_reads_on() {
    let (_disk, mut log) = long();
    let held = read_all(&log);
    let chunk = log.reader().read(Offset(70), Offset(80), 100_000).unwrap();
    log.cut(tail(1, 5)).unwrap();
    fill(&mut log, 80, 1500);
    let values: Vec<_> = chunk.records().map(|record| record.unwrap().value.to_vec()).collect();
    assert!(!values.is_empty());
    assert!(values.iter().zip(&held[70..]).all(|(value, (_, held))| value == held));
}

#[test]
fn cuts_that_are_no_prefix_are_refused() {
    let (_disk, mut log) = long();
    for (epoch, end) in [(1, 41), (3, 61), (4, 59), (5, 80), (4, 81), (2, 39)] {
        assert!(matches!(log.cut(tail(epoch, end)), Err(LogError::NoSuchPrefix { .. })), "{epoch} {end}");
    }
    append(&mut log, &["a", "b"]);
    assert!(matches!(log.cut(tail(4, 81)), Err(LogError::InsideAppend { .. })));
    log.note_commit(Offset(50));
    assert!(matches!(log.cut(tail(3, 49)), Err(LogError::BelowCommit { .. })));
    log.cut(tail(3, 50)).unwrap();
}

#[test]
fn epoch_starts_alone_can_fill_segments() {
    let (disk, mut log) = fresh(9);
    append(&mut log, &["a"]);
    for epoch in 1..400 {
        start_epoch(&mut log, epoch);
    }
    append(&mut log, &["b"]);
    log.close().unwrap();
    let (log, _) = open(&disk);
    assert_eq!((log.history().depth(), log.tail()), (399, tail(399, 2)));
    assert_eq!(read_from(&log.reader(), 0).len(), 2);
}

#[test]
fn a_promise_holds_and_never_falls() {
    let (disk, mut log) = fresh(10);
    let (a, b) = (ReplicaId(1), ReplicaId(2));
    log.set_promise(Epoch(5), None, None).unwrap();
    log.set_promise(Epoch(5), Some(a), Some(ClusterId(6))).unwrap();
    // Nothing of that cluster is in the log: its bootstrap died, and another may take the replica.
    log.set_promise(Epoch(5), Some(a), Some(ClusterId(7))).unwrap();
    start_epoch(&mut log, 5);
    log.sync().unwrap();
    log.set_promise(Epoch(5), None, None).unwrap();
    assert!(matches!(log.set_promise(Epoch(5), Some(b), None), Err(LogError::Promised { .. })));
    assert!(matches!(log.set_promise(Epoch(4), None, None), Err(LogError::Promised { .. })));
    let other = log.set_promise(Epoch(6), None, Some(ClusterId(8)));
    assert!(matches!(other, Err(LogError::OtherCluster { .. })), "{other:?}");
    disk.crash(1);
    drop(log);
    let (mut log, _) = open(&disk);
    assert_eq!((log.meta().promise.epoch, log.meta().promise.leader), (Epoch(5), Some(a)));
    assert_eq!((log.meta().cluster, log.meta().starts.count), (Some(ClusterId(7)), 2));
    log.set_promise(Epoch(6), Some(b), None).unwrap();
    assert_eq!(log.meta().promise.leader, Some(b));
}

#[test]
fn one_process_at_a_time() {
    let (disk, log) = fresh(11);
    assert!(matches!(try_open(&disk), Err(OpenError::Locked { .. })));
    drop(log);
    try_open(&disk).unwrap();
}

#[test]
fn settings_out_of_bounds_are_named() {
    let config = zue_log::LogConfig { segment_bytes_max: 1, ..common::SMALL };
    let error = zue_log::Log::open(zue_log::sim::SimDisk::new(0), config, ID).unwrap_err();
    assert_eq!(error.to_string(), "segment_bytes_max is 1, not within 32768 and 4294967296");
}

/// Appends of one record of so many bytes that follow one another from `prev` on.
fn chain(prev: Tail, sizes: &[usize]) -> Vec<Batch> {
    let mut prev = prev;
    let value = |size: &usize, n: u8| vec![vec![n; *size]];
    let mut next = |(size, n): (&usize, u8)| {
        let next = batch(prev, &value(size, n));
        prev = next.tail();
        next
    };
    sizes.iter().zip(1..).map(&mut next).collect()
}

#[test]
fn small_appends_that_wait_are_one_write_and_are_read_as_if_each_were_its_own() {
    let (disk, mut log) = fresh(9);
    let (_, mut other) = fresh(9);
    for log in [&mut log, &mut other] {
        start_epoch(log, 1);
        log.sync().unwrap();
    }
    let batches = chain(log.tail(), &[10, 500, 0, 2000]);
    let before = disk.operations();
    assert_eq!(log.append_first(batches.iter()).unwrap(), 4);
    assert_eq!(disk.operations() - before, 1);
    for batch in &batches {
        other.append(batch).unwrap();
    }
    assert_eq!((log.tail(), log.last_timestamp_ms()), (other.tail(), other.last_timestamp_ms()));
    let held = read_all(&log);
    assert_eq!(held, read_all(&other));
    log.close().unwrap();
    assert_eq!(read_all(&open(&disk).0), held);
}

#[test]
fn what_does_not_fit_or_follow_waits_for_the_next_write() {
    let (disk, mut log) = fresh(10);
    start_epoch(&mut log, 1);
    // Segments of 32 KiB: the first two fit into the one that there is.
    let batches = chain(log.tail(), &[10_000, 10_000, 10_000, 10_000]);
    assert_eq!(log.append_first(batches.iter()).unwrap(), 2);
    assert_eq!(log.append_first(batches[2..].iter()).unwrap(), 2);
    assert_eq!(segments(&disk).len(), 2);
    // A stranger behind the first is not taken, and is refused when it comes first.
    let (next, stranger) = (batch(log.tail(), &["next"]), batch(tail(1, 99), &["stranger"]));
    assert_eq!(log.append_first([&next, &stranger].into_iter()).unwrap(), 1);
    assert!(matches!(log.append_first([&stranger].into_iter()), Err(LogError::NotNext { .. })));
    // An epoch start is a write of its own.
    let next = batch(log.tail(), &["last"]);
    log.set_promise(Epoch(2), None, None).unwrap();
    let start = Batch::epoch_start(Epoch(1), common::start(2, next.tail().end.0)).unwrap();
    let behind = batch(start.tail(), &["behind"]);
    let mut left = vec![&next, &start, &behind];
    let mut counts = vec![];
    while !left.is_empty() {
        let count = log.append_first(left.iter().copied()).unwrap();
        left.drain(..count);
        counts.push(count);
    }
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(log.append_first(std::iter::empty()).unwrap(), 0);
    let held = read_all(&log);
    assert_eq!(held.len(), 7);
    log.close().unwrap();
    assert_eq!(read_all(&open(&disk).0), held);
}
