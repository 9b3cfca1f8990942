//! Files of segments that are not in the log any more are used again: only when nobody can read them, and nothing old comes back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{ID, SMALL, SimLog, append, fill, fresh, open, read_all, segments, start_epoch};
use zue_core::{Aged, Epoch, Offset, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Compacting, CompactionConfig, Disk as _, Log, LogConfig, OsDisk};

const SPARE: &str = "segment.spare";

fn open_dir(dir: &Path) -> Log<OsDisk> {
    Log::open(OsDisk::new(dir).unwrap(), SMALL, ID).unwrap().0
}

/// The bases of the segments and the inodes of their files, oldest first.
fn files(dir: &Path) -> Vec<(u64, u64)> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = names
        .filter(|path| path.to_str().unwrap().ends_with(".log"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().parse().unwrap(), inode(&path)))
        .collect();
    files.sort_unstable();
    files
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// A log of epoch 1 in at least so many segments.
fn long(dir: &Path, count: usize) -> Log<OsDisk> {
    let mut log = open_dir(dir);
    start_epoch(&mut log, 1);
    while files(dir).len() < count {
        fill(&mut log, 1, 1500);
    }
    log.note_commit(log.tail().end);
    log
}

/// Appends until the log goes on in another segment; gives that one's base and inode.
fn roll(log: &mut Log<OsDisk>, dir: &Path) -> (u64, u64) {
    let last = files(dir).last().copied();
    while files(dir).last().copied() == last {
        fill(log, 1, 1500);
    }
    log.note_commit(log.tail().end);
    *files(dir).last().unwrap()
}

fn trim(log: &mut Log<OsDisk>, before: u64) {
    assert_eq!(log.trim(Offset(before)).unwrap(), Offset(before));
}

#[test]
fn the_newest_file_that_a_trim_takes_is_the_next_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = long(dir.path(), 5);
    let before = files(dir.path());
    trim(&mut log, before[3].0);
    assert_eq!(inode(&dir.path().join(SPARE)), before[2].1);
    assert_eq!(files(dir.path()), before[3..]);
    let (base, again) = roll(&mut log, dir.path());
    assert_eq!(again, before[2].1);
    assert!(!dir.path().join(SPARE).exists());
    let header = std::fs::read(dir.path().join(format!("{base:020}.log"))).unwrap();
    assert_eq!(header[12], 1, "it says that there are old bytes in it");
    let held = read_all(&log);
    assert_eq!(held.len() as u64, log.tail().end.0 - before[3].0);
    // The process stops, and the next one reads no old bytes.
    drop(log);
    let mut log = open_dir(dir.path());
    assert_eq!(read_all(&log), held);
    assert_eq!(roll(&mut log, dir.path()).0, log.tail().end.0 - 1);
    // A clean close leaves nothing in doubt: the log goes on in the file.
    let start = files(dir.path())[1].0;
    trim(&mut log, start);
    let used = roll(&mut log, dir.path());
    let held = read_all(&log);
    log.close().unwrap();
    let log = open_dir(dir.path());
    assert_eq!((read_all(&log), files(dir.path()).last()), (held, Some(&used)));
}

#[test]
fn what_a_reader_holds_of_a_segment_keeps_its_file_from_being_used_again() {
    type Held = Box<dyn std::any::Any>;
    type Hold = fn(&Log<OsDisk>, u64) -> Held;
    let read = |log: &Log<OsDisk>, at: u64| log.reader().read(Offset(at), Offset(u64::MAX), 5000).unwrap();
    let ways: [Hold; 3] = [
        |log, at| Box::new(log.reader().read(Offset(at), Offset(u64::MAX), 5000).unwrap()),
        |log, at| {
            let chunk = log.reader().read(Offset(at), Offset(u64::MAX), 5000).unwrap();
            Box::new(chunk.share(chunk.records().next().unwrap().unwrap().value))
        },
        |log, _| {
            let mut verifier = log.reader().verifier();
            verifier.step(1).unwrap();
            Box::new(verifier)
        },
    ];
    for hold in ways {
        let dir = tempfile::tempdir().unwrap();
        let mut log = long(dir.path(), 2);
        let first = files(dir.path())[0];
        let chunk = read(&log, 1);
        let value = chunk.share(chunk.records().next().unwrap().unwrap().value);
        let copy = value.to_vec();
        drop(chunk);
        let kept = hold(&log, 1);
        drop(value);
        let start = files(dir.path())[1].0;
        trim(&mut log, start);
        assert!(!dir.path().join(SPARE).exists());
        assert!(!files(dir.path()).contains(&first));
        for _ in 0..3 {
            roll(&mut log, dir.path());
        }
        if let Ok(value) = kept.downcast::<bytes::Bytes>() {
            assert_eq!(*value, copy);
        }
        // Nobody has anything of the next ones any more.
        let before = files(dir.path());
        trim(&mut log, before[2].0);
        assert_eq!(inode(&dir.path().join(SPARE)), before[1].1);
        assert_eq!(roll(&mut log, dir.path()).1, before[1].1);
    }
}

fn offsets(log: &Log<OsDisk>) -> Vec<u64> {
    let (reader, mut offsets) = (log.reader(), Vec::new());
    let mut at = reader.log_start();
    while at < reader.tail().end {
        let chunk = reader.read(at, Offset(u64::MAX), 1 << 20).unwrap();
        offsets.extend(chunk.records().map(|record| record.unwrap().offset.0));
        at = chunk.end();
    }
    offsets
}

#[test]
fn a_round_of_compaction_keeps_no_file_of_what_is_trimmed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    drop(long(dir.path(), 5));
    let compaction = Some(CompactionConfig { tombstone_retention_ms: 1000, dirty_percent: 1 });
    let config = LogConfig { compaction, ..SMALL };
    let (mut log, _) = Log::open(OsDisk::new(dir.path()).unwrap(), config, ID).unwrap();
    log.note_commit(log.tail().end);
    log.write_commit().unwrap();
    let mut round = log.compaction(Aged::unknown()).unwrap();
    // It maps the first segment.
    round.step(100).unwrap();
    round.step(100).unwrap();
    let before = files(dir.path());
    trim(&mut log, before[3].0);
    assert_eq!(inode(&dir.path().join(SPARE)), before[2].1);
    // It ends all the same, with what is left.
    let whole = offsets(&log);
    loop {
        match round.step(1 << 20).unwrap() {
            Compacting::Bytes(_) => {}
            Compacting::Segment(segment) => drop(log.rewritten(*segment).unwrap()),
            Compacting::Done => break,
        }
    }
    log.compacted(round, true).unwrap();
    let compacted = offsets(&log);
    assert!(compacted.len() < whole.len() && compacted.last() == whole.last(), "{compacted:?}");
}

#[test]
fn of_several_files_that_a_trim_takes_one_that_nobody_reads_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = long(dir.path(), 5);
    let before = files(dir.path());
    let chunk = log.reader().read(Offset(before[2].0), Offset(u64::MAX), 5000).unwrap();
    let values = || chunk.records().map(|record| record.unwrap().value.to_vec()).collect::<Vec<_>>();
    let held = values();
    trim(&mut log, before[3].0);
    assert_eq!(inode(&dir.path().join(SPARE)), before[1].1);
    roll(&mut log, dir.path());
    roll(&mut log, dir.path());
    assert_eq!(values(), held);
}

#[test]
fn a_file_that_somebody_has_given_another_name_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = long(dir.path(), 3);
    let before = files(dir.path());
    let second = dir.path().join(format!("{:020}.log", before[1].0));
    let copy = dir.path().join("copy");
    std::fs::hard_link(&second, &copy).unwrap();
    let bytes = std::fs::read(&copy).unwrap();
    trim(&mut log, before[2].0);
    assert_eq!(inode(&dir.path().join(SPARE)), before[0].1);
    roll(&mut log, dir.path());
    assert!(std::fs::read(&copy).unwrap() == bytes);
}

#[test]
fn a_file_of_another_length_or_with_damage_is_not_used_again() {
    let (disk, mut log) = fresh(50);
    fill(&mut log, 5, 1500);
    // As long as it has to be.
    fill(&mut log, 1, 40_000);
    fill(&mut log, 1, 1500);
    let base_of = |name: &String| name[..20].parse::<u64>().unwrap();
    let bases: Vec<_> = segments(&disk).iter().map(base_of).collect();
    assert_eq!(bases, [0, 5, 6]);
    log.note_commit(Offset(7));
    disk.damage(&segments(&disk)[0], |bytes| bytes[4000] ^= 1);
    let mut verifier = log.reader().verifier();
    while verifier.step(5000).unwrap().is_some() {}
    drop(verifier);
    assert_eq!(log.damaged().len(), 1);
    log.trim(Offset(6)).unwrap();
    assert_eq!(disk.content(SPARE), None);
}

#[test]
fn a_full_disk_takes_as_much_as_was_trimmed() {
    let (disk, mut log) = fresh(51);
    fill(&mut log, 60, 1500);
    log.note_commit(Offset(60));
    let next = segments(&disk)[1][..20].parse().unwrap();
    disk.set_room(Some(0));
    log.trim(Offset(next)).unwrap();
    assert!(disk.content(SPARE).is_some());
    // No more room was made.
    let count = segments(&disk).len();
    while segments(&disk).len() == count {
        fill(&mut log, 1, 1500);
    }
    assert_eq!(disk.content(SPARE), None);
}

#[test]
fn on_a_full_disk_the_reserve_comes_before_a_file_to_be_used_again() {
    let (disk, mut log) = fresh(53);
    fill(&mut log, 60, 1500);
    log.note_commit(Offset(60));
    disk.remove("reserve").unwrap();
    disk.set_room(Some(0));
    let next = segments(&disk)[2][..20].parse().unwrap();
    log.trim(Offset(next)).unwrap();
    assert!(disk.content(SPARE).is_none() && disk.content("reserve").is_some());
}

#[test]
fn a_restored_file_with_holes_has_its_room_before_it_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_dir(dir.path());
    fill(&mut log, 1, 1500);
    // It does not fit, and the rest of the first segment stays empty.
    fill(&mut log, 1, 32_000);
    log.note_commit(Offset(2));
    let next = files(dir.path())[1].0;
    log.close().unwrap();
    let path = dir.path().join(format!("{:020}.log", 0));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    std::fs::write(&path, &bytes[..used]).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(bytes.len() as u64).unwrap();
    let room = |path: &Path| std::fs::metadata(path).unwrap().blocks() * 512;
    assert!(room(&path) < bytes.len() as u64);
    let mut log = open_dir(dir.path());
    trim(&mut log, next);
    assert!(room(&dir.path().join(SPARE)) >= bytes.len() as u64);
}

#[test]
fn a_sync_in_a_used_file_writes_nothing_but_data() {
    let (disk, mut log) = fresh(52);
    let operations = |log: &mut SimLog| {
        let before = disk.operations();
        fill(log, 1, 100);
        log.sync().unwrap();
        disk.operations() - before
    };
    let roll = |log: &mut SimLog| {
        let count = segments(&disk).len();
        while segments(&disk).len() == count {
            fill(log, 1, 1500);
        }
    };
    roll(&mut log);
    // The record, zeroes ahead, the sync.
    assert_eq!(operations(&mut log), 3);
    log.note_commit(log.tail().end);
    let active = segments(&disk)[1][..20].parse().unwrap();
    log.trim(Offset(active)).unwrap();
    roll(&mut log);
    assert_eq!(operations(&mut log), 2);
}

/// A log of epoch 1 that goes on in the file of a segment that was cut away: of the same base, with one record of it overwritten by
/// another of the same length. So the old second record lies where the new one belongs. Gives that base.
fn over_old_frames(seed: u64) -> (SimDisk, SimLog, u64) {
    let (disk, mut log) = fresh(seed);
    start_epoch(&mut log, 1);
    while segments(&disk).len() < 2 {
        append(&mut log, &[[b'o'; 1500]]);
    }
    let name = segments(&disk)[1].clone();
    let base: u64 = name[..20].parse().unwrap();
    for _ in 0..8 {
        append(&mut log, &[[b'o'; 1500]]);
    }
    log.sync().unwrap();
    log.cut(Tail { epoch: Epoch(1), end: Offset(base - 1) }).unwrap();
    assert!(disk.content(SPARE).is_some());
    append(&mut log, &[vec![b'n'; 23_500]]);
    append(&mut log, &[[b'n'; 1500]]);
    assert_eq!((segments(&disk).last(), disk.content(SPARE)), (Some(&name), None));
    let bytes = disk.content(&name).unwrap();
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let frame_end = |at: usize| at + 8 + u32::from_le_bytes(*bytes[at + 4..].first_chunk().unwrap()) as usize;
    let first = frame_end(128);
    assert_eq!((word(first + 16), word(frame_end(first) + 16)), (base, base + 1), "old and new do not meet");
    (disk, log, base)
}

#[test]
fn frames_of_an_earlier_life_that_would_follow_are_not_in_the_log() {
    let check = |disk: &SimDisk, base: u64, durable: u64, end: u64| {
        let (log, recovered) = open(disk);
        assert_eq!((recovered.suspect, &*recovered.damaged), (None, [].as_slice()));
        let tail = log.tail().end.0;
        assert!(durable <= tail && tail <= end, "{tail}");
        // The first new record is the one before the base.
        let records = read_all(&log).split_off(usize::try_from(base - 1).unwrap());
        assert!(records.iter().all(|(_, value)| value[0] == b'n'));
    };
    for seed in 0..50 {
        // The process stops with nothing unsynced.
        let (disk, mut log, base) = over_old_frames(seed);
        log.sync().unwrap();
        drop(log);
        disk.kill();
        check(&disk, base, base + 1, base + 1);
        // The machine stops while more is written, with and without a sync mark in front.
        let (disk, mut log, base) = over_old_frames(seed);
        log.sync().unwrap();
        for _ in 0..3 {
            append(&mut log, &[[b'n'; 1500]]);
        }
        disk.crash(seed);
        drop(log);
        check(&disk, base, base + 1, base + 4);
        let (disk, mut log, base) = over_old_frames(seed);
        for _ in 0..3 {
            append(&mut log, &[[b'n'; 1500]]);
        }
        disk.crash(seed);
        drop(log);
        check(&disk, base, base, base + 4);
    }
}

#[test]
fn damage_in_a_used_file_is_told_from_a_torn_tail() {
    // Old bytes behind the tail are neither; what was synced and is bad is damage, however much was written behind it.
    let (disk, mut log, base) = over_old_frames(60);
    log.sync().unwrap();
    append(&mut log, &[[b'n'; 1500]]);
    log.sync().unwrap();
    append(&mut log, &[[b'n'; 1500]]);
    drop(log);
    disk.kill();
    let name = segments(&disk).last().unwrap().clone();
    let used = disk.fork();
    let (log, recovered) = open(&used);
    assert_eq!((log.tail().end.0, recovered), (base + 3, zue_log::Recovered::default()));
    drop(log);
    // Two records and a mark lie behind the head.
    disk.damage(&name, |bytes| bytes[400 + 1560] ^= 1);
    let (log, recovered) = open(&disk);
    assert_eq!(log.tail().end.0, base + 1);
    assert_eq!(recovered.suspect, Some(Tail { epoch: Epoch(1), end: Offset(base + 3) }));
    assert_eq!(recovered.damaged.len(), 1);
}
