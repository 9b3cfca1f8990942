//! Damage that is not a torn tail: it is named, it is never cut away, and everything around it is read. What may have been
//! acknowledged and is not there any more is remembered until it is settled.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::ops::Range;

use common::{SimLog, append, batch, epochs, fill, fresh, open, read_from, segments, start_epoch, try_open};
use zue_core::{Epoch, Offset, ProducerId, Tail, Verdict};
use zue_log::sim::SimDisk;
use zue_log::{BatchBuilder, Damage, Disk, Limits, OpenError, Producer, ReadError, Reader};

const FIRST: &str = "00000000000000000000.log";

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

/// The position at which the file's frames end: at the last byte that is not zero.
fn used(disk: &SimDisk, name: &str) -> usize {
    disk.content(name).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Appends one record in a batch of its own and syncs; where its frame lies in the first segment.
fn synced(disk: &SimDisk, log: &mut SimLog, value: &str) -> Range<usize> {
    append(log, &[value]);
    log.sync().unwrap();
    let end = used(disk, FIRST);
    // Key "key", and a header "h" of "1".
    end - (40 + 3 + 8 + value.len())..end
}

/// The log of one epoch with records "0" to "9", each synced by itself; where their frames are.
fn ten(seed: u64) -> (SimDisk, SimLog, Vec<Range<usize>>) {
    let (disk, mut log) = fresh(seed);
    start_epoch(&mut log, 1);
    let frames = (0..10).map(|n| synced(&disk, &mut log, &n.to_string())).collect();
    (disk, log, frames)
}

fn commit(log: &mut SimLog, end: u64) {
    log.note_commit(Offset(end));
    log.write_commit().unwrap();
}

fn flip(disk: &SimDisk, name: &str, byte: usize, bit: u32) {
    disk.damage(name, |bytes| bytes[byte] ^= 1 << bit);
}

fn ranges(damaged: &[Damage]) -> Vec<(u64, u64)> {
    damaged.iter().map(|damage| (damage.from.0, damage.to.0)).collect()
}

/// Every record from `from` on that can be read, and what is named as damaged instead of the others.
fn read_around<D: Disk>(reader: &Reader<D>, from: u64, bytes_max: usize) -> (Vec<u64>, Vec<(u64, u64)>) {
    let (mut at, mut read, mut damaged) = (Offset(from), Vec::new(), Vec::new());
    while at < reader.tail().end {
        let before = at;
        let mut pass = |error| {
            let ReadError::Damaged(damage) = error else { panic!("{error}") };
            damaged.push((damage.from.0, damage.to.0));
            damage.to
        };
        match reader.read(at, Offset(u64::MAX), bytes_max) {
            Err(error) => at = pass(error),
            Ok(chunk) => {
                at = chunk.end();
                for record in chunk.records() {
                    match record {
                        Ok(record) => read.push(record.offset.0),
                        Err(error) => at = pass(error),
                    }
                }
            }
        }
        assert!(at > before, "reading stands still at {at}");
    }
    (read, damaged)
}

fn all_but(damaged: Range<u64>, end: u64) -> Vec<u64> {
    (0..end).filter(|offset| !damaged.contains(offset)).collect()
}

// ---- below the commit end

#[test]
fn a_committed_record_that_is_damaged_is_named_and_everything_around_it_is_read() {
    let (_, _, frames) = ten(1);
    let frame = frames[4].clone();
    for byte in frame.clone() {
        for bit in [0, 3, 7] {
            let (disk, mut log, _) = ten(1);
            commit(&mut log, 10);
            disk.kill();
            drop(log);
            flip(&disk, FIRST, byte, bit);
            let at = format!("bit {bit} of byte {} of the frame", byte - frame.start);
            for _ in 0..2 {
                let (log, recovered) = open(&disk);
                assert_eq!((ranges(&recovered.damaged), recovered.suspect), (vec![(4, 5)], None), "{at}");
                assert_eq!(recovered.damaged[0].position, frame.start as u64, "{at}");
                assert!(recovered.damaged[0].path.ends_with(FIRST));
                assert_eq!(log.damaged(), recovered.damaged, "{at}");
                assert_eq!((log.tail(), epochs(&log), recovered.cut_bytes), (tail(1, 10), vec![(1, 0)], 0), "{at}");
                for bytes_max in [0, 10_000] {
                    assert_eq!(read_around(&log.reader(), 0, bytes_max), (all_but(4..5, 10), vec![(4, 5)]), "{at}");
                }
                for offset in (0..10).filter(|offset| *offset != 4) {
                    let chunk = log.reader().read(Offset(offset), Offset(offset + 1), 0).unwrap();
                    assert_eq!(chunk.records().next().unwrap().unwrap().value, offset.to_string().as_bytes(), "{at}");
                }
                disk.kill();
            }
        }
    }
}

#[test]
fn replication_reads_up_to_damage_and_goes_on_behind_it() {
    let (disk, mut log, frames) = ten(2);
    commit(&mut log, 10);
    drop(log);
    flip(&disk, FIRST, frames[4].start + 50, 1);
    let (log, _) = open(&disk);
    let reader = log.reader();
    let before = reader.read_frames(Tail::default(), log.tail(), 1 << 20).unwrap().unwrap();
    let mut end = before.tail();
    while let Ok(Some(more)) = reader.read_frames(end, log.tail(), 1 << 20) {
        end = more.tail();
    }
    assert_eq!(end, tail(1, 4));
    let error = reader.read_frames(end, log.tail(), 1 << 20).unwrap_err();
    assert!(matches!(error, ReadError::Damaged(Damage { from: Offset(4), to: Offset(5), .. })), "{error}");
    let behind = reader.read_frames(tail(1, 5), log.tail(), 1 << 20).unwrap().unwrap();
    assert_eq!((behind.prev(), behind.tail()), (tail(1, 5), tail(1, 10)));
}

#[test]
fn of_an_append_that_is_damaged_inside_the_other_records_are_read_and_none_is_replicated() {
    for damaged in 1..4 {
        let (disk, mut log) = fresh(3);
        append(&mut log, &["a"]);
        let begins = used(&disk, FIRST);
        append(&mut log, &["b", "c", "d"]);
        append(&mut log, &["e"]);
        log.sync().unwrap();
        commit(&mut log, 5);
        drop(log);
        // The length, so that no walk finds the next frame.
        flip(&disk, FIRST, begins + (usize::try_from(damaged).unwrap() - 1) * 52 + 5, 2);
        let (log, recovered) = open(&disk);
        assert_eq!(ranges(&recovered.damaged), [(damaged, damaged + 1)]);
        for bytes_max in [0, 10_000] {
            let expected = (all_but(damaged..damaged + 1, 5), vec![(damaged, damaged + 1)]);
            assert_eq!(read_around(&log.reader(), 0, bytes_max), expected);
        }
        let before = log.reader().read_frames(Tail::default(), log.tail(), 1 << 20).unwrap().unwrap();
        assert_eq!(before.tail().end, Offset(1));
        let error = log.reader().read_frames(before.tail(), log.tail(), 1 << 20).unwrap_err();
        assert!(matches!(&error, ReadError::Damaged(found) if found.from.0 == damaged), "{error}");
    }
}

#[test]
fn a_log_whose_last_committed_records_are_damaged_goes_on_behind_them() {
    for lost in [0_usize, 7, 9] {
        let (disk, mut log, frames) = ten(4);
        commit(&mut log, 10);
        drop(log);
        let (begins, ends) = (frames[lost].start, frames[9].end);
        disk.damage(FIRST, |bytes| bytes[begins..ends].fill(0x5a));
        let (mut log, recovered) = open(&disk);
        let hole = (lost as u64, 10);
        assert_eq!((ranges(&recovered.damaged), recovered.suspect), (vec![hole], None));
        assert_eq!(log.tail(), tail(1, 10));
        append(&mut log, &["10"]);
        log.sync().unwrap();
        for _ in 0..2 {
            let read: Vec<u64> = (0..lost as u64).chain([10]).collect();
            assert_eq!(read_around(&log.reader(), 0, 10_000), (read, vec![hole]));
            assert_eq!(ranges(&log.damaged()), [hole]);
            // What is damaged stays where it is.
            assert_eq!(disk.content(FIRST).unwrap()[begins..ends], vec![0x5a; ends - begins]);
            disk.crash(1);
            drop(log);
            log = open(&disk).0;
        }
    }
}

#[test]
fn a_log_that_was_closed_does_not_go_on_over_its_last_committed_records() {
    for blank in [0, 0x5a] {
        let (disk, mut log, frames) = ten(24);
        commit(&mut log, 10);
        log.close().unwrap();
        disk.damage(FIRST, |bytes| bytes[frames[9].clone()].fill(blank));
        let (mut log, recovered) = open(&disk);
        assert_eq!((ranges(&recovered.damaged), recovered.suspect, log.tail()), (vec![(9, 10)], None, tail(1, 10)));
        assert_eq!(segments(&disk).len(), 2, "it goes on in another segment");
        for count in [1, 2] {
            append(&mut log, &["new"]);
            log.sync().unwrap();
            disk.crash(1);
            drop(log);
            log = open(&disk).0;
            let read = (0..9).chain(10..10 + count).collect();
            assert_eq!(read_around(&log.reader(), 0, 10_000), (read, vec![(9, 10)]), "{blank}, {count} appended");
        }
    }
}

#[test]
fn records_that_are_gone_without_a_trace_are_named_and_no_other() {
    let (disk, mut log, frames) = ten(25);
    commit(&mut log, 10);
    log.close().unwrap();
    disk.damage(FIRST, |bytes| {
        bytes.drain(frames[4].start..frames[5].end);
        bytes.resize(32 << 10, 0);
    });
    let (log, recovered) = open(&disk);
    assert_eq!(ranges(&recovered.damaged), [(4, 6)]);
    assert_eq!(read_around(&log.reader(), 0, 10_000), (all_but(4..6, 10), vec![(4, 6)]));
    let (mut verifier, mut found) = (log.reader().verifier(), Vec::new());
    while let Some(verified) = verifier.step(1 << 20).unwrap() {
        found.extend(verified.damage);
    }
    assert_eq!(ranges(&found), [(4, 6)]);
}

#[test]
fn a_last_segment_without_records_is_repaired_by_another_one() {
    let (disk, mut log) = fresh(26);
    start_epoch(&mut log, 1);
    log.sync().unwrap();
    // In its snapshot.
    flip(&disk, FIRST, 150, 1);
    let mut verifier = log.reader().verifier();
    let damage = verifier.step(1 << 20).unwrap().unwrap().damage.unwrap();
    assert!(log.repair(&damage, Vec::new()).unwrap().is_none());
    assert!(log.damaged().is_empty());
    append(&mut log, &["a"]);
    log.sync().unwrap();
    disk.crash(1);
    drop(log);
    let (log, _) = open(&disk);
    assert_eq!((log.tail(), epochs(&log)), (tail(1, 1), vec![(1, 0)]));
}

#[test]
fn an_epoch_start_that_may_be_missing_is_not_passed_over() {
    // Epochs 1, 2 and 5 start at 0, 1 and 2; there are records 0 to 3.
    let make = || {
        let (disk, mut log) = fresh(5);
        let mut frames = Vec::new();
        for (epoch, count) in [(1, 1), (2, 1), (5, 2)] {
            let at = used(&disk, FIRST).max(200);
            start_epoch(&mut log, epoch);
            frames.push(at..used(&disk, FIRST));
            for _ in 0..count {
                frames.push(synced(&disk, &mut log, "value"));
            }
        }
        commit(&mut log, 4);
        drop(log);
        (disk, frames)
    };
    // What is damaged, and whether the log opens without it.
    for (damaged, opens) in [(1, true), (2, false), (3, false), (4, false), (5, true), (6, true)] {
        let (disk, frames) = make();
        flip(&disk, FIRST, frames[damaged].end - 3, 1);
        let before: Vec<_> = segments(&disk).iter().map(|name| disk.content(name)).collect();
        match try_open(&disk) {
            Ok((log, _)) => {
                assert!(opens, "frame {damaged}");
                assert_eq!(epochs(&log), [(1, 0), (2, 1), (5, 2)]);
            }
            Err(OpenError::HistoryGap(damage)) => {
                assert!(!opens, "frame {damaged}: {damage}");
                let text = OpenError::HistoryGap(damage).to_string();
                assert!(text.contains(FIRST) && text.contains("start the replica with an empty one"), "{text}");
                assert_eq!(segments(&disk).iter().map(|name| disk.content(name)).collect::<Vec<_>>(), before);
            }
            Err(other) => panic!("frame {damaged}: {other}"),
        }
    }
}

#[test]
fn who_appended_what_in_a_damaged_place_is_refused_rather_than_taken_for_new() {
    let (disk, mut log) = fresh(6);
    let id = |born| ProducerId { born: Offset(born), nonce: 7 };
    let send = |log: &mut SimLog, born, sequence| {
        let mut builder = BatchBuilder::new(log.tail(), 5000, Limits::default());
        builder.push(None, b"v", [], Some(Producer { id: id(born).to_u128(), sequence })).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
        log.sync().unwrap();
        used(&disk, FIRST)
    };
    send(&mut log, 0, 0);
    let begins = used(&disk, FIRST);
    send(&mut log, 1, 0);
    send(&mut log, 0, 1);
    commit(&mut log, 3);
    drop(log);
    flip(&disk, FIRST, begins + 50, 0);
    let (log, recovered) = open(&disk);
    assert_eq!(ranges(&recovered.damaged), [(1, 2)]);
    assert!(matches!(log.producers().check(id(1), 0, 1), Verdict::Refuse(_)));
    assert!(matches!(log.producers().check(id(0), 0, 1), Verdict::Refuse(_) | Verdict::Before(_)));
    assert_eq!(log.producers().check(id(0), 1, 1), Verdict::Duplicate(Offset(2)));
    assert_eq!(log.producers().check(id(0), 2, 1), Verdict::New);
    assert_eq!(log.producers().check(id(2), 0, 1), Verdict::New);
}

#[test]
fn a_cut_to_a_damaged_place_is_made() {
    let (disk, mut log, frames) = ten(7);
    commit(&mut log, 2);
    for damaged in [5, 6] {
        flip(&disk, FIRST, frames[damaged].start + 45, 4);
    }
    log.cut(tail(1, 6)).unwrap();
    append(&mut log, &["new"]);
    assert_eq!(read_around(&log.reader(), 0, 10_000), (vec![0, 1, 2, 3, 4, 6], vec![(5, 6)]));
    drop(log);
    let (log, _) = open(&disk);
    assert_eq!(read_around(&log.reader(), 0, 10_000), (vec![0, 1, 2, 3, 4, 6], vec![(5, 6)]));
    assert_eq!(read_from(&log.reader(), 6), [(1, b"new".to_vec())]);
}

// ---- beyond the commit end

/// A log whose records 0 to 9 were synced one by one, 3 of them committed for all that is known, and record `lost` damaged.
fn suspect(seed: u64, lost: usize) -> (SimDisk, Vec<Range<usize>>) {
    let (disk, mut log) = fresh(seed);
    start_epoch(&mut log, 1);
    let mut frames: Vec<_> = (0..3).map(|n| synced(&disk, &mut log, &n.to_string())).collect();
    commit(&mut log, 3);
    frames.extend((3..10).map(|n| synced(&disk, &mut log, &n.to_string())));
    drop(log);
    flip(&disk, FIRST, frames[lost].start + 45, 1);
    (disk, frames)
}

#[test]
fn a_log_ends_before_what_may_be_lost_and_remembers_how_far_it_may_have_gone() {
    let (disk, _) = suspect(8, 5);
    let begun = disk.operations();
    drop(open(&disk));
    // The machine, or only the process, may stop anywhere while the log is opened.
    for stop in 0..=disk.operations() - begun {
        for crash in 0..6 {
            let (disk, frames) = suspect(8, 5);
            let before = disk.content(FIRST).unwrap();
            disk.stop_at(begun + stop);
            let stopped = try_open(&disk);
            if crash == 0 {
                disk.kill();
            } else {
                disk.crash(crash * 100 + stop);
            }
            drop(stopped);
            for _ in 0..2 {
                let (log, recovered) = open(&disk);
                assert_eq!((log.tail(), log.meta().suspect), (tail(1, 5), Some(tail(1, 10))), "{stop} {crash}");
                assert_eq!((recovered.suspect, log.meta().commit_end), (Some(tail(1, 10)), Offset(3)));
                assert_eq!(read_around(&log.reader(), 0, 10_000), ((0..5).collect(), vec![]));
                assert_eq!(
                    disk.content(FIRST).unwrap()[frames[5].start..],
                    before[frames[5].start..],
                    "bytes are gone"
                );
                disk.crash(4);
            }
        }
    }
}

#[test]
fn what_may_be_lost_is_named_when_it_is_found() {
    let (disk, frames) = suspect(9, 5);
    let (log, recovered) = open(&disk);
    assert_eq!(ranges(&recovered.damaged), [(5, 10)]);
    assert_eq!(recovered.damaged[0].position, frames[5].start as u64);
    assert!(recovered.cut_bytes > 0);
    // It is not a part of the log.
    assert_eq!(log.damaged(), []);
}

#[test]
fn a_suspicion_ends_when_the_log_reaches_as_far_again() {
    // By the records of the same epoch, or by the start of a later one.
    for later in [false, true] {
        let (disk, _) = suspect(10, 5);
        let (mut log, _) = open(&disk);
        if later {
            start_epoch(&mut log, 2);
        } else {
            fill(&mut log, 4, 10);
            log.sync().unwrap();
            log.set_promise(Epoch(2), None, None).unwrap();
            assert_eq!(log.meta().suspect, Some(tail(1, 10)));
            fill(&mut log, 1, 10);
        }
        log.set_promise(Epoch(3), None, None).unwrap();
        assert_eq!(log.meta().suspect, Some(tail(1, 10)), "not before it is durable");
        log.sync().unwrap();
        log.set_promise(Epoch(4), None, None).unwrap();
        assert_eq!(log.meta().suspect, None);
        disk.crash(1);
        drop(log);
        assert_eq!(open(&disk).1.suspect, None);
    }
}

#[test]
fn bytes_that_may_be_needed_are_kept_when_their_file_gives_its_name_away() {
    let make = || {
        let (disk, mut log) = fresh(11);
        start_epoch(&mut log, 1);
        log.sync().unwrap();
        append(&mut log, &["a"]);
        log.sync().unwrap();
        append(&mut log, &["b"]);
        drop(log);
        flip(&disk, FIRST, 220, 1);
        disk
    };
    let kept = |disk: &SimDisk| disk.list().unwrap().into_iter().find(|name| name.ends_with(".kept"));
    let disk = make();
    let (before, begun) = (disk.content(FIRST), disk.operations());
    drop(open(&disk));
    let stops = (0..=disk.operations() - begun).flat_map(|stop| (0..8).map(move |seed| (stop, seed)));
    for (stop, seed) in stops {
        let disk = make();
        disk.stop_at(begun + stop);
        let stopped = try_open(&disk);
        disk.crash(seed);
        drop(stopped);
        let (mut log, recovered) = open(&disk);
        assert_eq!((log.tail(), recovered.suspect), (Tail::default(), Some(tail(1, 2))));
        assert_eq!(disk.content(&kept(&disk).unwrap()), before);
        start_epoch(&mut log, 2);
        log.close().unwrap();
        drop(open(&disk));
        assert_eq!(kept(&disk), None, "the question is settled");
    }
}

#[test]
fn damage_to_the_end_of_what_was_told_is_noticed() {
    // Told with a promise, or with a clean close: nothing is behind it that could tell it from a torn tail.
    for clean in [false, true] {
        for epoch_start in [false, true] {
            let (disk, mut log, _) = ten(12);
            if epoch_start {
                start_epoch(&mut log, 2);
                log.sync().unwrap();
            }
            let told = log.tail();
            if clean {
                log.close().unwrap();
            } else {
                log.set_promise(Epoch(3), None, None).unwrap();
                drop(log);
            }
            let end = used(&disk, FIRST);
            flip(&disk, FIRST, end - 1, 5);
            let (log, recovered) = open(&disk);
            let found = if epoch_start { tail(1, 10) } else { tail(1, 9) };
            assert_eq!((log.tail(), recovered.suspect), (found, Some(told)));
        }
    }
}

#[test]
fn a_replica_that_lost_its_first_epoch_start_stays_with_its_cluster() {
    let (disk, mut log) = fresh(14);
    let (ours, theirs) = (zue_core::ClusterId(1), zue_core::ClusterId(2));
    log.set_promise(Epoch(1), None, Some(ours)).unwrap();
    start_epoch(&mut log, 1);
    log.sync().unwrap();
    append(&mut log, &["a"]);
    drop(log);
    flip(&disk, FIRST, 220, 1);
    let (mut log, recovered) = open(&disk);
    assert_eq!((log.history().depth(), recovered.suspect), (0, Some(tail(1, 1))));
    log.set_promise(Epoch(2), None, Some(theirs)).unwrap_err();
    log.set_promise(Epoch(2), None, Some(ours)).unwrap();
}

// ---- in segments that are no longer written

/// A log of several segments, all committed and closed.
fn sealed(seed: u64) -> (SimDisk, Vec<String>) {
    let (disk, mut log) = fresh(seed);
    start_epoch(&mut log, 1);
    for n in 0..60 {
        if n == 20 {
            start_epoch(&mut log, 2);
        }
        fill(&mut log, 1, 1500);
    }
    log.note_commit(Offset(60));
    log.close().unwrap();
    let names = segments(&disk);
    assert!(names.len() >= 3);
    (disk, names)
}

#[test]
fn damage_to_an_old_segment_hides_its_own_records_only() {
    let (disk, names) = sealed(15);
    let end = used(&disk, &names[1]);
    let base: u64 = names[1][..20].parse().unwrap();
    for byte in (128..1000).chain((1000..end).step_by(331)).chain(end - 50..end) {
        let (disk, names) = sealed(15);
        flip(&disk, &names[1], byte, 3);
        // The index too is made anew from what is left.
        disk.remove(&names[1].replace(".log", ".index")).unwrap();
        let (log, recovered) = open(&disk);
        assert!(recovered.damaged.is_empty());
        for bytes_max in [0, 4000] {
            let (read, damaged) = read_around(&log.reader(), 0, bytes_max);
            assert!(damaged.len() <= 1, "byte {byte}: {damaged:?}");
            let hole = damaged.first().map_or(0..0, |(from, to)| *from..*to);
            assert!(hole.end - hole.start <= 1 && hole.clone().all(|offset| offset >= base), "byte {byte}: {hole:?}");
            assert_eq!(read, all_but(hole.clone(), 60), "byte {byte}");
            for offset in all_but(hole, 60) {
                let chunk = log.reader().read(Offset(offset), Offset(offset + 1), 0).unwrap();
                assert_eq!(chunk.records().next().unwrap().unwrap().offset.0, offset, "byte {byte}");
            }
        }
        assert!(!log.damaged().is_empty(), "byte {byte}");
    }
}

#[test]
fn bad_bytes_between_two_records_hide_neither() {
    let whole = (all_but(0..0, 60), vec![]);
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (disk, names) = sealed(18);
    let is_start = |bytes: &[u8], at: usize| bytes[at + 8..at + 10] == [2, 0] && word(bytes, at + 16) == 2;
    let found = names.iter().find_map(|name| {
        let bytes = disk.content(name).unwrap();
        (4096..bytes.len() - 100).find(|at| is_start(&bytes, *at)).map(|at| (name, at))
    });
    let (name, at) = found.unwrap();
    for byte in at..at + 60 {
        let (disk, _) = sealed(18);
        flip(&disk, name, byte, 2);
        let (log, _) = open(&disk);
        for bytes_max in [0, 1 << 20] {
            assert_eq!(read_around(&log.reader(), 0, bytes_max), whole, "byte {byte}");
        }
    }
}

#[test]
fn a_record_inside_a_bad_frame_of_its_own_offset_does_not_stop_a_reader() {
    let (disk, mut log, frames) = ten(19);
    commit(&mut log, 10);
    drop(log);
    let frame = frames[4].clone();
    disk.damage(FIRST, |bytes| {
        let mut head = bytes[frame.start..frame.start + 40].to_vec();
        let claims = u32::try_from(32 + frame.len()).unwrap();
        head[4..8].copy_from_slice(&claims.to_le_bytes());
        bytes.splice(frame.start..frame.start, head);
    });
    let (log, _) = open(&disk);
    for from in 0..=4 {
        for bytes_max in [0, 100, 10_000] {
            let (read, damaged) = read_around(&log.reader(), from, bytes_max);
            assert_eq!((read, damaged), ((from..10).collect(), vec![]), "from {from} by {bytes_max}");
        }
    }
}

#[test]
fn payloads_that_look_like_frames_hide_nothing_behind_damage() {
    let mut value = Vec::new();
    for _ in 0..200 {
        value.extend_from_slice(&[0x5a; 4]);
        value.extend_from_slice(&8000_u32.to_le_bytes());
        value.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        value.extend_from_slice(&[0x11; 24]);
    }
    let (disk, mut log) = fresh(20);
    start_epoch(&mut log, 1);
    for _ in 0..30_u32 {
        let mut builder = BatchBuilder::new(log.tail(), 1000, Limits::default());
        builder.push(None, &value, [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    commit(&mut log, 30);
    log.close().unwrap();
    let names = segments(&disk);
    let base: u64 = names[1][..20].parse().unwrap();
    assert_eq!(names[2][..20].parse(), Ok(base + 3));
    // In the kind of the second of its three records; no index tells of the third.
    flip(&disk, &names[1], used(&disk, &names[1]) - 2 * 8040 + 8, 6);
    disk.remove(&names[1].replace(".log", ".index")).unwrap();
    let (log, _) = open(&disk);
    assert_eq!(read_around(&log.reader(), 0, 10_000), (all_but(base + 1..base + 2, 30), vec![(base + 1, base + 2)]));
}

#[test]
fn an_old_segment_that_was_shortened_hides_what_is_gone() {
    let (disk, names) = sealed(16);
    let end = used(&disk, &names[1]);
    disk.damage(&names[1], |bytes| bytes.truncate(end - 4000));
    let (log, recovered) = open(&disk);
    assert_eq!((recovered.damaged.len(), log.damaged()), (1, recovered.damaged));
    let (read, damaged) = read_around(&log.reader(), 0, 10_000);
    assert_eq!(damaged.len(), 1);
    assert_eq!(read, all_but(damaged[0].0..damaged[0].1, 60));
    assert_eq!(damaged[0].1 - damaged[0].0, 3);
}

#[test]
fn a_verifier_names_all_damage_whatever_the_size_of_its_steps() {
    let (disk, names) = sealed(17);
    // The snapshot of one segment, records of two, one of them by its length.
    flip(&disk, &names[1], 140, 1);
    flip(&disk, &names[1], 5000, 1);
    let second = used(&disk, &names[2]) - 1560;
    flip(&disk, &names[0], 9000, 7);
    disk.damage(&names[2], |bytes| bytes[second..second + 60].fill(0xff));
    let (log, _) = open(&disk);
    let verify = |bytes_max| {
        let (mut verifier, mut found) = (log.reader().verifier(), Vec::new());
        while let Some(verified) = verifier.step(bytes_max).unwrap() {
            found.extend(verified.damage);
        }
        found
    };
    let found = verify(1 << 20);
    let files: Vec<_> = found.iter().map(|damage| damage.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(files, [&names[0], &names[1], &names[1], &names[2]]);
    for bytes_max in [1, 100, 3000] {
        assert_eq!(verify(bytes_max), found, "{bytes_max}");
    }
    let records = |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(from, to)| *from..*to).collect::<Vec<_>>();
    let (_, damaged) = read_around(&log.reader(), 0, 10_000);
    assert_eq!(records(&damaged), records(&ranges(&found)));
    assert_eq!(ranges(&log.damaged()), ranges(&found));
}

#[test]
fn what_a_cut_has_left_in_an_index_is_not_taken_for_damage() {
    let (_, mut log) = fresh(19);
    fill(&mut log, 20, 1000);
    log.cut(tail(0, 7)).unwrap();
    fill(&mut log, 5, 900);
    for (from, upto) in (0..12).flat_map(|from| (from..=12).map(move |upto| (from, upto))) {
        let chunk = log.reader().read(Offset(from), Offset(upto), 1 << 20).unwrap();
        assert!(chunk.records().all(|record| record.is_ok()));
    }
    assert_eq!(log.damaged(), []);
}

#[test]
fn a_log_that_is_checked_is_trimmed_and_cut_meanwhile() {
    let (disk, mut log) = fresh(20);
    fill(&mut log, 40, 4000);
    log.sync().unwrap();
    let mut verifier = log.reader().verifier();
    assert_eq!(verifier.step(1).unwrap().unwrap().damage, None);
    log.note_commit(Offset(25));
    log.trim(Offset(20)).unwrap();
    assert!(disk.list().unwrap().iter().any(|name| name == "segment.spare"), "nobody holds what was trimmed");
    assert_eq!(verifier.step(40_000).unwrap().unwrap().damage, None);
    log.cut(tail(0, 30)).unwrap();
    start_epoch(&mut log, 1);
    fill(&mut log, 20, 3000);
    while let Some(verified) = verifier.step(3000).unwrap() {
        assert_eq!(verified.damage, None);
    }
    assert_eq!(log.damaged(), []);
}

#[test]
fn a_segment_that_is_cut_while_it_is_checked_is_followed_by_no_damage() {
    let (_, mut log) = fresh(21);
    fill(&mut log, 40, 4000);
    log.sync().unwrap();
    for steps in 1..20 {
        let mut verifier = log.reader().verifier();
        for _ in 0..steps {
            assert_eq!(verifier.step(3000).unwrap().unwrap().damage, None);
        }
        log.cut(tail(0, log.tail().end.0 - 1)).unwrap();
        log.cut(tail(0, 2)).unwrap();
        fill(&mut log, 38, 4000);
        while let Some(verified) = verifier.step(3000).unwrap() {
            assert_eq!(verified.damage, None, "after {steps} steps");
        }
        assert_eq!(log.damaged(), []);
    }
}

#[test]
fn a_log_without_damage_verifies() {
    let (disk, _) = sealed(18);
    let (mut log, _) = open(&disk);
    log.cut(tail(2, 60)).unwrap();
    log.append(&batch(log.tail(), &["x"])).unwrap();
    let mut verifier = log.reader().verifier();
    let mut bytes = 0;
    while let Some(verified) = verifier.step(777).unwrap() {
        assert_eq!(verified.damage, None);
        bytes += verified.bytes;
    }
    let held: usize = segments(&disk).iter().map(|name| used(&disk, name)).sum();
    assert!((held as u64 - bytes) < 8, "{bytes} of {held}");
}
