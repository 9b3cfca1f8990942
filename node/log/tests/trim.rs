//! Logs that begin later: trimmed, or reset to where another begins.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use common::{SMALL, SimLog, append, batch_by, epochs, fill, fresh, open, read_all, segments, start_epoch, try_open};
use zue_core::{Aged, Epoch, Offset, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Batch, Disk, Limits, LogError, OpenError, Producer, ReadError, Retention};

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

/// A log of epochs 1 at 0, 2 at 40, 3 at 40, 4 at 60, of 80 records in several segments, all committed.
fn long() -> (SimDisk, SimLog) {
    let (disk, mut log) = fresh(40);
    for (epoch, count) in [(1, 40), (2, 0), (3, 20), (4, 20)] {
        start_epoch(&mut log, epoch);
        fill(&mut log, count, 1500);
    }
    log.note_commit(Offset(80));
    assert!(segments(&disk).len() >= 4);
    (disk, log)
}

fn bases(disk: &SimDisk) -> Vec<u64> {
    segments(disk).iter().map(|name| name[..20].parse().unwrap()).collect()
}

fn verify(log: &SimLog) {
    let mut verifier = log.reader().verifier();
    while let Some(step) = verifier.step(5000).unwrap() {
        assert_eq!(step.damage, None);
    }
}

#[test]
fn a_trim_anywhere_keeps_what_follows_and_the_epoch_it_began_in() {
    let held = read_all(&long().1);
    let in_force = |at: u64| [(1, 0), (2, 40), (3, 40), (4, 60)].into_iter().rfind(|(_, start)| *start < at);
    for before in 1..=80 {
        let (disk, mut log) = long();
        assert_eq!(log.trim(Offset(before)).unwrap(), Offset(before));
        let check = |log: &SimLog, end: u64| {
            assert_eq!((log.log_start(), log.tail().end), (Offset(before), Offset(end)));
            assert_eq!(&read_all(log)[..], &held[usize::try_from(before).unwrap()..usize::try_from(end).unwrap()]);
            let below = log.reader().read(Offset(before - 1), Offset(80), 100).unwrap_err();
            let named =
                matches!(below, ReadError::OutOfRange { log_start, end: e, .. } if log_start.0 == before && e.0 == end);
            assert!(named, "{below}");
            let mut history = log.history().clone();
            history.trim(Offset(before));
            assert_eq!(history.starts().first().map(|start| (start.epoch.0, start.start.0)), in_force(before));
            verify(log);
        };
        check(&log, 80);
        let bases_now = bases(&disk);
        assert!(bases_now[0] <= before && bases_now.get(1).is_none_or(|next| *next > before), "{bases_now:?}");
        log.sync().unwrap();
        disk.crash(before);
        drop(log);
        let (mut log, recovered) = open(&disk);
        assert_eq!((recovered.cut_bytes, recovered.suspect), (0, None));
        check(&log, log.tail().end.0);
        assert_eq!(bases(&disk)[0], bases_now[0]);
        // Nothing that was trimmed comes back, also where the log is cut to its start.
        log.cut(log.tail()).unwrap();
        fill(&mut log, 30, 1500);
        log.close().unwrap();
        let (log, _) = open(&disk);
        assert_eq!(log.log_start(), Offset(before));
        verify(&log);
    }
}

#[test]
fn a_trimmed_log_can_be_cut_to_its_start_and_goes_on() {
    let (disk, mut log) = fresh(41);
    start_epoch(&mut log, 1);
    fill(&mut log, 50, 1500);
    log.note_commit(Offset(30));
    log.trim(Offset(30)).unwrap();
    assert!(matches!(log.cut(tail(1, 29)), Err(LogError::NoSuchPrefix { .. })));
    log.cut(tail(1, 30)).unwrap();
    assert_eq!((log.log_start(), log.tail(), epochs(&log)), (Offset(30), tail(1, 30), vec![(1, 0)]));
    assert_eq!(read_all(&log), []);
    fill(&mut log, 50, 1500);
    let held = read_all(&log);
    log.close().unwrap();
    let (log, _) = open(&disk);
    assert_eq!((read_all(&log), log.log_start()), (held, Offset(30)));
    verify(&log);
}

#[test]
fn a_trim_of_what_is_not_known_to_be_committed_is_refused_and_names_the_range() {
    let (disk, mut log) = fresh(42);
    fill(&mut log, 50, 1500);
    log.note_commit(Offset(30));
    log.trim(Offset(10)).unwrap();
    let files = disk.list().unwrap();
    let refused = log.trim(Offset(31));
    let named = matches!(
        refused,
        Err(LogError::AboveCommit { before: Offset(31), log_start: Offset(10), commit_end: Offset(30) })
    );
    assert!(named, "{refused:?}");
    // One that was made before is made already.
    assert_eq!(log.trim(Offset(3)).unwrap(), Offset(10));
    assert_eq!((log.log_start(), disk.list().unwrap()), (Offset(10), files));
}

#[test]
fn a_reader_of_what_is_trimmed_reads_on() {
    let (_disk, mut log) = long();
    let held = read_all(&log);
    let chunk = log.reader().read(Offset(2), Offset(80), 100_000).unwrap();
    log.trim(Offset(80)).unwrap();
    fill(&mut log, 80, 1500);
    let values: Vec<_> = chunk.records().map(|record| record.unwrap().value.to_vec()).collect();
    assert!(!values.is_empty());
    assert!(values.iter().zip(&held[2..]).all(|(value, (_, held))| value == held));
}

#[test]
fn a_full_disk_can_be_trimmed_and_goes_on() {
    let (disk, mut log) = long();
    disk.set_room(Some(0));
    log.trim(Offset(60)).unwrap();
    fill(&mut log, 40, 1500);
    log.close().unwrap();
    assert_eq!(read_all(&open(&disk).0).len(), 60);
}

#[test]
fn a_segment_that_is_missing_above_the_start_is_missed() {
    let (disk, mut log) = long();
    let second = bases(&disk)[1];
    log.trim(Offset(second + 1)).unwrap();
    log.close().unwrap();
    disk.remove(&segments(&disk)[0]).unwrap();
    assert!(matches!(try_open(&disk), Err(OpenError::MissingSegment { .. })));
    let (disk, mut log) = long();
    log.note_commit(Offset(80));
    let first = segments(&disk)[0].clone();
    log.trim(Offset(second)).unwrap();
    assert!(!segments(&disk).contains(&first));
    log.close().unwrap();
    open(&disk);
}

#[test]
fn who_appended_what_is_known_after_a_trim() {
    let (disk, mut log) = fresh(43);
    for sequence in 0..50 {
        let producer = Producer { id: 7, sequence };
        log.append(&batch_by(log.tail(), &[vec![1; 1500]], Some(producer))).unwrap();
    }
    let known = log.producers().clone();
    log.note_commit(Offset(50));
    log.trim(Offset(50)).unwrap();
    log.close().unwrap();
    assert_eq!(open(&disk).0.producers(), &known);
}

/// Copies the log, from where a log begins that is reset to its origin.
fn copy(from: &SimLog, into: &mut SimLog) {
    let origin = from.reader().origin(SMALL.producers).unwrap();
    into.set_promise(from.tail().epoch.max(into.meta().promise.epoch), None, None).unwrap();
    into.reset(&origin).unwrap();
    assert_eq!((into.tail(), into.log_start(), read_all(into)), (origin.tail(), origin.at, vec![]));
    while let Some(batch) = from.reader().read_frames(into.tail(), from.tail(), 5000).unwrap() {
        let sent = Batch::decode(batch.bytes().clone(), into.tail(), &Limits::default()).unwrap();
        into.append(&sent).unwrap();
    }
}

#[test]
fn a_log_that_is_reset_to_where_another_begins_becomes_like_it() {
    for before in [0, 1, 20, 39, 40, 41, 60, 61, 79, 80] {
        let (_disk, mut log) = fresh(44);
        for (epoch, count) in [(1, 40), (2, 0), (3, 20), (4, 20)] {
            start_epoch(&mut log, epoch);
            for _ in 0..count {
                let base = log.tail().end.0;
                let producer = Producer { id: (base % 3).into(), sequence: base / 3 };
                log.append(&batch_by(log.tail(), &[vec![1; 1500]], Some(producer))).unwrap();
            }
        }
        log.note_commit(Offset(80));
        log.trim(Offset(before)).unwrap();
        // The other had what nobody else has.
        let (disk, mut other) = fresh(45);
        start_epoch(&mut other, 1);
        fill(&mut other, before / 2, 1500);
        start_epoch(&mut other, 2);
        fill(&mut other, 40, 1500);
        copy(&log, &mut other);
        let same = |other: &mut SimLog| {
            other.note_commit(Offset(80));
            other.trim(Offset(before)).unwrap();
            assert_eq!((read_all(other), other.tail()), (read_all(&log), log.tail()), "before {before}");
            assert_eq!((other.history(), other.producers()), (log.history(), log.producers()), "before {before}");
            assert_eq!(other.last_timestamp_ms(), log.last_timestamp_ms());
            verify(other);
        };
        same(&mut other);
        other.sync().unwrap();
        disk.crash(before);
        drop(other);
        same(&mut open(&disk).0);
    }
}

#[test]
fn a_log_whose_origin_is_damaged_lets_nobody_pass_for_new() {
    let (disk, mut log) = fresh(46);
    for sequence in 0..50 {
        log.append(&batch_by(log.tail(), &[vec![1; 1500]], Some(Producer { id: 7, sequence }))).unwrap();
    }
    log.note_commit(Offset(50));
    log.trim(Offset(40)).unwrap();
    disk.damage(&segments(&disk)[0], |bytes| bytes[150] ^= 1);
    drop(log);
    disk.kill();
    let (log, _) = open(&disk);
    let origin = log.reader().origin(SMALL.producers).unwrap();
    assert!(origin.producers.is_empty());
    let refused = origin.producers.check(zue_core::ProducerId::from_u128(9), 0, 1);
    assert!(matches!(refused, zue_core::Verdict::Refuse(_)), "{refused:?}");
}

/// Damages the record whose value is that byte again and again.
fn damage_record(disk: &SimDisk, value: u8) {
    let holds = |bytes: &[u8]| bytes.windows(200).position(|window| window.iter().all(|byte| *byte == value));
    for name in segments(disk) {
        let mut found = false;
        disk.damage(&name, |bytes| {
            if let Some(at) = holds(bytes) {
                (bytes[at + 100], found) = (!value, true);
            }
        });
        if found {
            return;
        }
    }
    panic!("no record of {value}");
}

#[test]
fn damage_to_what_is_trimmed_keeps_nobody_from_what_follows_it() {
    // A record that is damaged; where the log begins; from where on it is replicated then.
    for (damaged, before, from) in
        [(0, 14, 4), (5, 14, 8), (7, 12, 12), (7, 11, 0), (11, 12, 0), (11, 16, 16), (12, 12, 0), (30, 12, 0)]
    {
        let (disk, mut log) = fresh(49);
        for first in (0..40_u8).step_by(4) {
            let values: Vec<Vec<u8>> = (first..first + 4).map(|value| vec![value + 1; 300]).collect();
            let producer = Producer { id: 7, sequence: first.into() };
            log.append(&batch_by(log.tail(), &values, Some(producer))).unwrap();
        }
        log.note_commit(Offset(40));
        log.trim(Offset(before)).unwrap();
        assert_eq!(log.reader().held().1, Offset(0));
        damage_record(&disk, damaged + 1);
        log.close().unwrap();
        let (log, _) = open(&disk);
        let is_good = |at| log.reader().read_frames(tail(0, at), log.tail(), 1).is_ok();
        assert!(!(0..40).all(is_good), "{damaged}");
        let what = format!("{damaged} before {before}");
        assert_eq!(log.reader().held().1, Offset(from), "{what}");
        if from > 0 {
            let (_disk, mut other) = fresh(50);
            copy(&log, &mut other);
            other.note_commit(Offset(40));
            other.trim(Offset(before)).unwrap();
            assert_eq!((read_all(&other), other.tail()), (read_all(&log), log.tail()), "{what}");
        }
    }
}

/// The names of the files of former logs.
fn former(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".former")).collect()
}

#[test]
fn the_files_of_a_log_that_is_reset_stay_until_they_are_dropped_and_can_be_put_back() {
    let origin = {
        let (_disk, mut log) = long();
        log.trim(Offset(79)).unwrap();
        log.reader().origin(SMALL.producers).unwrap()
    };
    for is_crashed in [false, true] {
        let (disk, mut log) = fresh(48);
        start_epoch(&mut log, 1);
        fill(&mut log, 70, 1500);
        start_epoch(&mut log, 4);
        // One of the segments has the name of the new one.
        fill(&mut log, 70, 1500);
        log.sync().unwrap();
        log.note_commit(Offset(10));
        let (held, was, count) = (read_all(&log), log.tail(), segments(&disk).len());
        log.reset(&origin).unwrap();
        let kept = former(&disk);
        assert_eq!((kept.len(), segments(&disk).len()), (count + 1, 1), "its segments and its meta file");
        fill(&mut log, 40, 1500);
        if is_crashed {
            log.sync().unwrap();
            disk.crash(1);
        } else {
            log.close().unwrap();
        }
        let (log, _) = open(&disk);
        assert_eq!((log.log_start(), former(&disk)), (origin.at, kept.clone()));
        assert!(log.former().is_some());
        log.close().unwrap();
        // As a person does who wants it back.
        for name in disk.list().unwrap() {
            if name.ends_with(".log") || name.ends_with(".index") {
                disk.remove(&name).unwrap();
            }
        }
        for name in kept {
            let (is, _) = name.split_once('-').unwrap();
            let back = if is == "meta" { is.to_owned() } else { format!("{is}.log") };
            disk.rename(&name, &back).unwrap();
        }
        let (log, recovered) = open(&disk);
        assert_eq!((read_all(&log), log.tail(), recovered.suspect), (held, was, None));
        verify(&log);
    }
}

#[test]
fn former_logs_are_dropped_by_their_numbers_and_one_without_an_epoch_leaves_none() {
    let (disk, mut log) = fresh(49);
    let mut origin = log.reader().origin(SMALL.producers).unwrap();
    origin.at = Offset(5);
    log.reset(&origin).unwrap();
    assert_eq!((log.former(), former(&disk).len()), (None, 0));
    let mut numbers = Vec::new();
    for at in [50, 90] {
        start_epoch(&mut log, at);
        fill(&mut log, 5, 1500);
        origin.at = Offset(at);
        log.reset(&origin).unwrap();
        numbers.push(log.former().unwrap());
    }
    assert!(numbers[0] < numbers[1]);
    assert!(log.drop_former(numbers[0], usize::MAX) > 0);
    assert_eq!(log.former(), Some(numbers[1]));
    assert_eq!(log.drop_former(numbers[1], 1), 1);
    assert_eq!(log.former(), Some(numbers[1]), "there are more");
    log.drop_former(numbers[1], usize::MAX);
    assert_eq!((log.former(), former(&disk).len()), (None, 0));
    fill(&mut log, 5, 1500);
    verify(&log);
}

#[test]
fn a_reset_that_would_take_what_is_committed_is_refused() {
    let (_disk, mut log) = long();
    let origin = log.reader().origin(SMALL.producers).unwrap();
    let held = read_all(&log);
    assert!(matches!(log.reset(&origin), Err(LogError::BelowCommit { .. })));
    assert_eq!(read_all(&log), held);
    append(&mut log, &["goes on"]);
}

#[test]
fn a_retention_names_the_end_of_a_segment_that_is_committed_and_costs_one_look_at_each() {
    let (disk, log) = long();
    let starts = bases(&disk);
    let last = *starts.last().unwrap();
    log.close().unwrap();
    let (mut log, _) = open(&disk);
    let reader = log.reader();
    let from = |retention, commit_end, now_ms| {
        reader.retained_from(retention, Offset(commit_end), Aged::by_timestamps(now_ms)).unwrap().map(|offset| offset.0)
    };
    let bytes = |bytes| Retention { bytes: Some(bytes), age_ms: None };
    let age = |age_ms| Retention { bytes: None, age_ms: Some(age_ms) };
    assert_eq!(from(Retention::default(), 80, u64::MAX), None);
    assert_eq!(from(bytes(200_000), 80, 0), None);
    assert_eq!(from(bytes(0), 80, 0), Some(last));
    assert_eq!(from(bytes(0), last - 1, 0), Some(starts[starts.len() - 2]));
    assert_eq!(from(bytes(0), 0, 0), None);
    // Record n is of 1000 + n: the newest of a segment is the one before the next segment's base.
    for next in starts.windows(2).map(|pair| pair[1]) {
        let newest = 1000 + next - 1;
        assert_eq!(from(age(500), 80, newest + 501), Some(next));
        let before = starts.iter().rfind(|start| **start < next).filter(|start| **start > 0);
        assert_eq!(from(age(500), 80, newest + 500), before.copied());
    }
    let calls = disk.calls();
    assert_eq!((from(age(0), 80, u64::MAX), disk.calls()), (Some(last), calls), "it was read before");
    // What was trimmed is not named again.
    log.note_commit(Offset(80));
    log.trim(Offset(last)).unwrap();
    assert_eq!((from(bytes(0), 80, 0), from(age(0), 80, u64::MAX)), (None, None));
}

#[test]
fn a_segment_whose_age_is_not_known_is_as_old_as_what_lies_behind_it() {
    let (disk, log) = long();
    let starts = bases(&disk);
    log.close().unwrap();
    // The snapshot, which tells of the time before.
    disk.damage(&segments(&disk)[1], |bytes| bytes[140] ^= 1);
    let (log, _) = open(&disk);
    let reader = log.reader();
    let age = Retention { bytes: None, age_ms: Some(0) };
    let from =
        |now_ms| reader.retained_from(age, Offset(80), Aged::by_timestamps(now_ms)).unwrap().map(|offset| offset.0);
    assert_eq!(from(1000 + starts[1] + 1), None);
    assert_eq!(from(1000 + starts[2] - 1), None);
    assert_eq!(from(1000 + starts[2]), Some(starts[2]));
}
