//! Compaction and repair against a model: which records are left, that replication and deduplication come out the same, that a
//! crash or a failure at any place loses nothing, and that what is damaged comes back from another replica.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;

use common::{SMALL, epochs, fill, segments, start_epoch};
use proptest::prelude::*;
use zue_core::{Aged, Offset, ProducerId, ReplicaId, Tail, Verdict};
use zue_log::sim::SimDisk;
use zue_log::{
    Batch, BatchBuilder, Compacting, CompactionConfig, Damage, Disk, Limits, Log, LogConfig, LogError, Producer,
    ReadError, RewriteError,
};

type SimLog = Log<SimDisk>;

const COMPACTED: LogConfig =
    LogConfig { compaction: Some(CompactionConfig { tombstone_retention_ms: 1000, dirty_percent: 1 }), ..SMALL };
const FIRST: &str = "00000000000000000000.log";

fn open(disk: &SimDisk) -> SimLog {
    Log::open(disk.clone(), COMPACTED, ReplicaId(7)).unwrap().0
}

/// A record of the tests: key, value, and its producer's sequence.
type Record = (Option<u8>, Vec<u8>);

fn append(log: &mut SimLog, records: &[Record], producer: Option<Producer>) {
    let tail = log.tail();
    let mut builder = BatchBuilder::new(tail, 1000 + tail.end.0, Limits::default());
    for ((key, value), n) in records.iter().zip(0..) {
        let producer = producer.map(|first| Producer { sequence: first.sequence + n, ..first });
        let key = key.map(|key| [key]);
        builder.push(key.as_ref().map(<[u8; 1]>::as_slice), value, [("h", b"x".as_slice())], producer).unwrap();
    }
    log.append(&builder.finish().unwrap()).unwrap();
}

fn put(log: &mut SimLog, key: u8, bytes: usize) {
    let mut value = format!("{} ", log.tail()).into_bytes();
    value.resize(bytes, b'.');
    append(log, &[(Some(key), value)], None);
}

/// Writes down that all is committed.
fn commit(log: &mut SimLog) {
    log.sync().unwrap();
    log.note_commit(log.tail().end);
    log.write_commit().unwrap();
}

/// One round, with memory for so many keys; whether there was one.
fn round(log: &mut SimLog, now_ms: u64, keys_max: usize) -> Result<bool, LogError> {
    round_at(log, Aged::by_timestamps(now_ms), keys_max)
}

fn round_at(log: &mut SimLog, aged: Aged, keys_max: usize) -> Result<bool, LogError> {
    let Some(mut work) = log.compaction_of(aged, keys_max) else { return Ok(false) };
    loop {
        match work.step(3000) {
            Ok(Compacting::Bytes(_)) => {}
            Ok(Compacting::Segment(segment)) => assert!(log.rewritten(*segment)?),
            Ok(Compacting::Done) => {
                log.compacted(work, true)?;
                return Ok(true);
            }
            Err(_) => {
                log.compacted(work, false)?;
                return Ok(false);
            }
        }
    }
}

fn compact(log: &mut SimLog, now_ms: u64) {
    while round(log, now_ms, 1 << 20).unwrap() {}
}

/// Offset, key and value of every record that is read.
fn read(log: &SimLog) -> BTreeMap<u64, Record> {
    let (reader, mut at, mut out) = (log.reader(), log.log_start(), BTreeMap::new());
    loop {
        let chunk = reader.read(at, Offset(u64::MAX), 5000).unwrap();
        if chunk.is_empty() {
            return out;
        }
        for record in chunk.records() {
            let record = record.unwrap();
            out.insert(record.offset.0, (record.key.map(|key| key[0]), record.value.to_vec()));
        }
        at = chunk.end();
    }
}

fn damages(log: &SimLog) -> Vec<Damage> {
    let mut verifier = log.reader().verifier();
    std::iter::from_fn(|| verifier.step(300).unwrap()).filter_map(|verified| verified.damage).collect()
}

/// The records before `sealed` that compaction leaves, if that is where the active segment begins.
fn left(records: &BTreeMap<u64, Record>, sealed: u64, deletes_kept_from_ms: u64) -> BTreeMap<u64, Record> {
    let newer = |offset: u64, key: &Option<u8>| records.range(offset + 1..sealed).any(|(_, (other, _))| other == key);
    let stays = |offset: u64, (key, value): &Record| {
        offset >= sealed
            || key.is_none()
            || (!newer(offset, key) && (!value.is_empty() || 1000 + offset >= deletes_kept_from_ms))
    };
    records.iter().filter(|(offset, record)| stays(**offset, record)).map(|(o, r)| (*o, r.clone())).collect()
}

/// Copies the log from where the other one ends, in batches of the size, checked as a follower does.
fn replicate(from: &SimLog, to: &mut SimLog, bytes_max: usize) {
    to.set_promise(from.tail().epoch.max(to.meta().promise.epoch), None, None).unwrap();
    let reader = from.reader();
    while let Some(batch) = reader.read_frames(to.tail(), from.tail(), bytes_max).unwrap() {
        let checked = Batch::decode(batch.bytes().clone(), to.tail(), &Limits::default()).unwrap();
        to.append(&checked).unwrap();
    }
    to.sync().unwrap();
}

/// The base of the active segment.
fn sealed_end(disk: &SimDisk) -> u64 {
    segments(disk).last().unwrap().trim_end_matches(".log").parse().unwrap()
}

fn three_keys(seed: u64, count: u64) -> (SimDisk, SimLog) {
    let disk = SimDisk::new(seed);
    let mut log = open(&disk);
    start_epoch(&mut log, 1);
    for n in 0..count {
        put(&mut log, (n % 3) as u8, 2000);
    }
    commit(&mut log);
    (disk, log)
}

#[test]
fn the_newest_of_each_key_stays_at_its_offset_and_a_clean_log_is_left_alone() {
    let (disk, mut log) = three_keys(1, 60);
    let (before, sealed) = (read(&log), sealed_end(&disk));
    compact(&mut log, 0);
    let after = read(&log);
    assert_eq!(after, left(&before, sealed, 0));
    assert!(after.len() < 25, "{}", after.len());
    assert_eq!(damages(&log), []);
    let operations = disk.operations();
    assert!(!round(&mut log, 0, 1 << 20).unwrap());
    assert_eq!(disk.operations(), operations);
    log.close().unwrap();
    let mut log = open(&disk);
    assert_eq!((read(&log), damages(&log), epochs(&log)), (after, vec![], vec![(1, 0)]));
    assert!(!round(&mut log, 0, 1 << 20).unwrap(), "it is known after a restart what was compacted");
}

#[test]
fn what_is_not_known_as_committed_is_not_compacted() {
    let disk = SimDisk::new(2);
    let mut log = open(&disk);
    for n in 0..60 {
        put(&mut log, n % 3, 2000);
    }
    log.sync().unwrap();
    assert!(log.compaction(Aged::unknown()).is_none());
}

#[test]
fn readers_of_before_read_on_and_those_of_now_skip_what_went() {
    let (_, mut log) = three_keys(3, 60);
    let old = log.reader().read(Offset(0), Offset(10), 1 << 20).unwrap();
    compact(&mut log, 0);
    assert_eq!(old.records().flatten().count(), 10);
    let chunk = log.reader().read(Offset(5), Offset(9), 1 << 20).unwrap();
    assert_eq!((chunk.records().count(), chunk.first(), chunk.end()), (0, Offset(5), Offset(9)));
}

#[test]
fn a_follower_anywhere_in_a_compacted_log_comes_out_with_the_same_records() {
    for held in 0..60 {
        let (_, mut log) = three_keys(4, 60);
        let disk = SimDisk::new(5);
        let mut follower = open(&disk);
        follower.set_promise(log.tail().epoch, None, None).unwrap();
        while follower.tail().end < Offset(held) {
            let batch = log.reader().read_frames(follower.tail(), log.tail(), 0).unwrap().unwrap();
            follower.append(&batch).unwrap();
        }
        compact(&mut log, 0);
        replicate(&log, &mut follower, 3000);
        assert_eq!(follower.tail(), log.tail());
        let (ours, theirs) = (read(&log), read(&follower));
        assert!(ours.iter().all(|(offset, record)| theirs.get(offset) == Some(record)), "from {held} on");
        assert!(theirs.keys().filter(|offset| **offset >= held).all(|offset| ours.contains_key(offset)));
        follower.close().unwrap();
        let follower = open(&disk);
        assert_eq!((read(&follower), damages(&follower)), (theirs, vec![]));
    }
}

#[test]
fn an_append_that_was_compacted_away_is_known_wherever_its_gap_was_copied() {
    let disk = SimDisk::new(6);
    let mut log = open(&disk);
    start_epoch(&mut log, 1);
    let id = |n: u64| ProducerId { born: Offset(0), nonce: n };
    let mut bases = Vec::new();
    for n in 0..3_u8 {
        bases.push(log.tail().end);
        let records = [(Some(1), vec![n; 900]), (Some(2), vec![n; 900])];
        append(&mut log, &records, Some(Producer { id: id(n.into()).to_u128(), sequence: 0 }));
    }
    for _ in 0..40 {
        append(&mut log, &[(Some(1), vec![1; 2000]), (Some(2), vec![2; 900])], None);
    }
    commit(&mut log);
    compact(&mut log, 0);
    assert!(read(&log).keys().all(|offset| *offset > 6), "all of the producers' records went");
    let mut follower = open(&SimDisk::new(7));
    replicate(&log, &mut follower, 1 << 20);
    for (n, base) in bases.iter().enumerate() {
        let verdict = follower.producers().check(id(n as u64), 0, 2);
        assert_eq!(verdict, Verdict::Duplicate(*base), "producer {n}");
    }
    assert_eq!(follower.producers(), log.producers());
}

#[test]
fn a_deleted_key_goes_when_its_record_is_old_enough_and_no_sooner() {
    let (disk, mut log) = three_keys(8, 30);
    append(&mut log, &[(Some(1), vec![])], None);
    let deleted = log.tail().end.0 - 1;
    // Seal it.
    fill(&mut log, 20, 4000);
    commit(&mut log);
    let timestamp = 1000 + deleted;
    compact(&mut log, timestamp + 1000);
    assert!(read(&log).contains_key(&deleted));
    assert!(read(&log).iter().all(|(offset, (key, _))| *key != Some(1) || *offset >= deleted));
    put(&mut log, 5, 2000);
    fill(&mut log, 20, 4000);
    commit(&mut log);
    compact(&mut log, timestamp + 1001);
    assert!(!read(&log).contains_key(&deleted));
    assert!(!read(&log).values().any(|(key, _)| *key == Some(1)));
    drop(disk);
}

#[test]
fn a_deleted_key_goes_by_what_was_seen_of_its_age_before_its_timestamp_counts() {
    // Relative to the record that deletes: older before, younger from there on. And whether it goes.
    for (old_before, young_from, agreed_ms, goes) in
        [(0, 0, u64::MAX, false), (0, 1, u64::MAX, true), (1, 1, 0, true), (0, u64::MAX, 0, false)]
    {
        let (_disk, mut log) = three_keys(8, 30);
        append(&mut log, &[(Some(1), vec![])], None);
        let deleted = log.tail().end.0 - 1;
        fill(&mut log, 20, 4000);
        commit(&mut log);
        let at = |by: u64| Offset(deleted.saturating_add(by));
        let aged = Aged { old_before: at(old_before), young_from: at(young_from), agreed_ms };
        while round_at(&mut log, aged, 1 << 20).unwrap() {}
        assert_eq!(!read(&log).contains_key(&deleted), goes, "{aged:?}");
    }
}

#[test]
fn a_round_that_is_given_up_on_a_full_disk_harms_nothing() {
    let (disk, mut log) = three_keys(9, 60);
    let before = read(&log);
    let operations = disk.operations();
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        disk.fail_at(disk.operations() + 2, kind);
        assert!(!round(&mut log, 0, 1 << 20).unwrap());
        assert_eq!(read(&log), before);
    }
    assert!(disk.operations() > operations);
    put(&mut log, 1, 100);
    compact(&mut log, 0);
    assert!(read(&log).len() < 30);
}

/// A step of the workload of the crash and failure tests, all of it repeatable.
fn workload(disk: &SimDisk, peer: &SimLog, durable: &mut u64) -> Result<(), LogError> {
    let Ok((mut log, _)) = Log::open(disk.clone(), COMPACTED, ReplicaId(7)) else { return Ok(()) };
    log.set_promise(peer.tail().epoch, None, None)?;
    for round_number in 0..3_u64 {
        let upto = Tail { end: Offset(20 * (round_number + 1)), ..peer.tail() };
        while let Some(batch) = peer.reader().read_frames(log.tail(), upto, 0).unwrap() {
            log.append(&batch)?;
        }
        log.sync()?;
        *durable = log.durable().end.0;
        log.note_commit(log.tail().end);
        log.write_commit()?;
        while round(&mut log, 0, 2)? {}
        if round_number == 1 {
            repair_all(&mut log, peer)?;
        }
    }
    log.close().map(|_| ())
}

/// Repairs whatever is damaged with what the peer has.
fn repair_all(log: &mut SimLog, peer: &SimLog) -> Result<(), LogError> {
    for damage in log.damaged() {
        let mut excerpts = Vec::new();
        for (from, to) in log.reader().missing(&damage)? {
            let mut at = from;
            while at < to {
                match peer.reader().excerpt(at, to, 3000) {
                    Ok(excerpt) => {
                        at = excerpt.end();
                        excerpts.push(excerpt);
                    }
                    Err(_) => at = at.plus(1),
                }
            }
        }
        let Some(mut repair) = log.repair(&damage, excerpts)? else { continue };
        let mut step = || repair.step(3000).map(|(_, more)| more);
        let stepped = loop {
            match step() {
                Ok(true) => {}
                Ok(false) => break true,
                Err(RewriteError::Read(_)) => break false,
                Err(RewriteError::Fault(fault)) => panic!("{fault}"),
            }
        };
        match repair.finish() {
            Ok(rewritten) if stepped => assert!(log.rewritten(rewritten)?),
            _ => log.forget_rewrite(),
        }
    }
    Ok(())
}

/// Every record of the log is one of the peer's, and none is missing that nothing newer stands for.
fn check_against(log: &SimLog, peer: &BTreeMap<u64, Record>, durable: u64, at: &str) {
    assert!(log.tail().end.0 >= durable, "{at}: what was durable is lost");
    let (found, end) = (read(log), log.tail().end.0);
    assert!(found.iter().all(|(offset, record)| peer.get(offset) == Some(record)), "{at}: a record has changed");
    for (offset, (key, _)) in peer.range(..end).filter(|(offset, _)| !found.contains_key(offset)) {
        let newer = peer.range(offset + 1..end).any(|(_, (other, _))| key.is_some() && other == key);
        assert!(newer, "{at}: record {offset} is gone");
    }
    assert_eq!(damages(log), [], "{at}");
}

#[test]
fn at_every_crash_point_of_compaction_nothing_but_what_is_outdated_is_gone() {
    let (_, peer) = three_keys(10, 60);
    let records = read(&peer);
    let clean = SimDisk::new(11);
    workload(&clean, &peer, &mut 0).unwrap();
    assert!(read(&open(&clean)).len() < 25);
    for stop in 0..clean.operations() {
        for seed in 0..4 {
            let (disk, mut durable) = (SimDisk::new(11 + seed), 0);
            disk.stop_at(stop);
            let _ = workload(&disk, &peer, &mut durable);
            disk.crash(seed);
            let at = format!("stopped before operation {stop}, seed {seed}");
            check_against(&open(&disk), &records, durable, &at);
            disk.kill();
            workload(&disk, &peer, &mut durable).unwrap();
            let log = open(&disk);
            check_against(&log, &records, 60, &at);
            assert!(!disk.list().unwrap().iter().any(|name| name == "segment.anew"), "{at}");
        }
    }
}

#[test]
fn a_failure_of_the_disk_at_any_call_of_compaction_leaves_a_log_that_opens() {
    let (_, peer) = three_keys(12, 60);
    let records = read(&peer);
    let clean = SimDisk::new(13);
    workload(&clean, &peer, &mut 0).unwrap();
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for operation in 0..clean.operations() {
            let (disk, mut durable) = (SimDisk::new(13), 0);
            disk.fail_at(operation, kind);
            let _ = workload(&disk, &peer, &mut durable);
            disk.crash(operation);
            check_against(&open(&disk), &records, durable, &format!("{kind} at operation {operation}"));
        }
    }
}

#[test]
fn bits_flipped_anywhere_in_a_segment_are_repaired_from_another_replica() {
    let (disk, log) = three_keys(14, 40);
    let (_, peer) = three_keys(14, 40);
    let held = read(&log);
    drop(log);
    let whole = disk.content(FIRST).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for byte in (128..400).chain((400..used).step_by(301)) {
        disk.kill();
        disk.damage(FIRST, |bytes| {
            bytes.clone_from(&whole);
            bytes[byte] ^= 4;
        });
        let mut log = open(&disk);
        assert_eq!(damages(&log).len(), 1, "byte {byte}");
        repair_all(&mut log, &peer).unwrap();
        assert_eq!((damages(&log), log.damaged(), read(&log)), (vec![], vec![], held.clone()), "byte {byte}");
        disk.crash(1);
        let log = open(&disk);
        assert_eq!((damages(&log), read(&log)), (vec![], held.clone()), "byte {byte}");
    }
}

#[test]
fn damage_in_the_active_segment_is_repaired_too() {
    let (disk, log) = three_keys(15, 5);
    let (_, peer) = three_keys(15, 5);
    let held = read(&log);
    drop(log);
    disk.kill();
    disk.damage(FIRST, |bytes| bytes[6000] ^= 1);
    let mut log = open(&disk);
    assert_eq!(log.damaged().len(), 1);
    repair_all(&mut log, &peer).unwrap();
    assert_eq!((log.damaged(), read(&log)), (vec![], held));
    put(&mut log, 1, 100);
    log.close().unwrap();
    assert_eq!(damages(&open(&disk)), []);
}

#[test]
fn damage_that_hides_no_record_is_repaired_with_nothing_from_anybody() {
    let (disk, log) = three_keys(24, 40);
    let held = read(&log);
    drop(log);
    let bytes = disk.content(FIRST).unwrap();
    // The epoch start in front of the first record.
    let is_start = |at: &usize| bytes[at + 8..at + 10] == [2, 0] && bytes[at + 16..at + 24] == 1_u64.to_le_bytes();
    let start = (128..bytes.len() - 24).find(is_start).unwrap();
    disk.kill();
    disk.damage(FIRST, |bytes| bytes[start + 20] ^= 1);
    let mut log = open(&disk);
    let damage = damages(&log).remove(0);
    assert_eq!(log.reader().missing(&damage).unwrap(), []);
    let mut repair = log.repair(&damage, vec![]).unwrap().unwrap();
    while repair.step(1000).unwrap().1 {}
    assert!(log.rewritten(repair.finish().unwrap()).unwrap());
    assert_eq!((damages(&log), log.damaged(), read(&log)), (vec![], vec![], held));
}

#[test]
fn what_no_replica_has_stays_lost_and_what_one_has_comes_back() {
    let (disk, log) = three_keys(16, 40);
    let (peer_disk, peer) = three_keys(16, 40);
    let held = read(&log);
    drop(log);
    disk.kill();
    // The last two are of records side by side.
    for at in [3000, 9000, 11_060] {
        disk.damage(FIRST, |bytes| bytes[at] ^= 1);
    }
    peer_disk.damage(FIRST, |bytes| bytes[9001] ^= 1);
    let mut log = open(&disk);
    let found: Vec<u64> = damages(&log).iter().map(|damage| damage.to.since(damage.from)).collect();
    assert_eq!(found, [1, 2]);
    repair_all(&mut log, &peer).unwrap();
    let lost = log.damaged();
    assert_eq!(lost.len(), 1);
    let (from, to) = (lost[0].from, lost[0].to);
    assert_eq!(to, from.plus(1));
    for (offset, (_, value)) in held.iter().filter(|(offset, _)| **offset != from.0) {
        let chunk = log.reader().read(Offset(*offset), Offset(offset + 1), 0).unwrap();
        assert_eq!(chunk.records().next().unwrap().unwrap().value, value);
    }
    let error = log.reader().read(from, to, 0).map(|chunk| chunk.records().next().unwrap().map(|_| ()));
    assert!(matches!(error, Err(ReadError::Damaged(_)) | Ok(Err(ReadError::Damaged(_)))));
    assert!(matches!(peer.reader().excerpt(from, to, 0), Err(ReadError::Damaged(_))));
}

#[test]
fn a_repair_from_a_compacted_replica_brings_gaps_and_one_from_another_is_compacted_again() {
    let (disk, log) = three_keys(17, 60);
    let (_, mut peer) = three_keys(17, 60);
    compact(&mut peer, 0);
    drop(log);
    disk.kill();
    disk.damage(FIRST, |bytes| bytes[5000] ^= 1);
    let mut log = open(&disk);
    assert_eq!(damages(&log).len(), 1);
    repair_all(&mut log, &peer).unwrap();
    assert_eq!(damages(&log), []);
    // The other way round.
    let (_, whole) = three_keys(17, 60);
    let left = read(&peer);
    let (disk, mut log) = three_keys(17, 60);
    compact(&mut log, 0);
    let end = disk.content(FIRST).unwrap().len();
    disk.damage(FIRST, |bytes| bytes[end - 20] ^= 1);
    assert_eq!(damages(&log).len(), 1);
    repair_all(&mut log, &whole).unwrap();
    assert!(read(&log).len() > left.len());
    compact(&mut log, 0);
    assert_eq!((read(&log), damages(&log)), (left, vec![]));
}

#[test]
fn what_was_cut_out_of_a_repaired_segment_never_comes_back() {
    let (peer_disk, peer) = three_keys(18, 40);
    let disk = SimDisk::new(19);
    let mut log = open(&disk);
    replicate(&peer, &mut log, 3000);
    log.note_commit(Offset(5));
    log.write_commit().unwrap();
    disk.damage(FIRST, |bytes| bytes[6000] ^= 1);
    assert_eq!(damages(&log).len(), 1);
    repair_all(&mut log, &peer).unwrap();
    let held = read(&log);
    log.cut(Tail { end: Offset(8), ..peer.tail() }).unwrap();
    start_epoch(&mut log, 2);
    for _ in 0..4 {
        put(&mut log, 9, 2000);
    }
    log.sync().unwrap();
    let expected = read(&log);
    assert!(expected.range(8..).all(|(_, (key, _))| *key == Some(9)));
    drop((log, peer_disk));
    disk.kill();
    let mut log = open(&disk);
    assert_eq!(damages(&log), []);
    assert!(read(&log) == expected, "what was cut away is back");
    let mut dumped = Vec::new();
    zue_log::dump(&disk, Offset(0), |item| {
        if let zue_log::DumpItem::Record(record) = item.item {
            dumped.push((record.offset.0, record.key.map(|key| key[0])));
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(dumped, expected.iter().map(|(offset, (key, _))| (*offset, *key)).collect::<Vec<_>>());
    fill(&mut log, 20, 4000);
    commit(&mut log);
    compact(&mut log, 0);
    assert!(read(&log).range(8..12).all(|(_, (key, _))| *key == Some(9)));
    assert!(read(&log).range(..8).all(|(offset, record)| held.get(offset) == Some(record)));
    let follower_disk = SimDisk::new(20);
    replicate(&log, &mut open(&follower_disk), 3000);
}

#[test]
fn what_cannot_be_read_for_a_while_is_neither_compacted_away_nor_taken_for_damage() {
    let (disk, mut log) = three_keys(22, 60);
    let (before, sealed) = (read(&log), sealed_end(&disk));
    disk.fault(FIRST, 4096..8192);
    for _ in 0..2 {
        assert!(round(&mut log, 0, 1 << 20).unwrap(), "it is done again");
    }
    disk.fault(FIRST, 0..0);
    // That segment stays as it is, and no other.
    let second: u64 = segments(&disk)[1].trim_end_matches(".log").parse().unwrap();
    let mut most = left(&before, sealed, 0);
    most.extend(before.range(..second).map(|(offset, record)| (*offset, record.clone())));
    assert!(read(&log) == most);
    assert_eq!(disk.content("segment.anew"), None);
    compact(&mut log, 0);
    assert!(read(&log) == left(&before, sealed, 0));
    assert_eq!((damages(&log), log.damaged()), (vec![], vec![]));
}

#[test]
fn a_repair_replaces_what_cannot_be_read_but_never_keeps_it() {
    let (_, peer) = three_keys(23, 40);
    for unreadable in [4096..8192, 12_288..16_384] {
        let (disk, mut log) = three_keys(23, 40);
        let held = read(&log);
        disk.damage(FIRST, |bytes| bytes[13_000] ^= 1);
        assert_eq!(damages(&log).len(), 1);
        let damage = log.damaged().remove(0);
        let missing = log.reader().missing(&damage).unwrap();
        let excerpt = peer.reader().excerpt(missing[0].0, missing[0].1, 3000).unwrap();
        let mut repair = log.repair(&damage, vec![excerpt]).unwrap().unwrap();
        disk.fault(FIRST, unreadable);
        assert!(matches!(repair.step(1 << 20), Err(RewriteError::Read(ReadError::Disk(_)))));
        // Nothing is lost where others have what cannot be read.
        assert!(log.reader().missing(&damage).unwrap() != missing);
        repair_all(&mut log, &peer).unwrap();
        assert_eq!((damages(&log), log.damaged()), (vec![], vec![]));
        assert!(read(&log) == held);
    }
}

#[test]
fn a_segment_that_is_written_anew_after_a_trim_keeps_what_it_rests_on() {
    let disk = SimDisk::new(24);
    let mut log = open(&disk);
    for n in 0..40_u64 {
        // So that an epoch starts where each segment does.
        start_epoch(&mut log, n + 1);
        let producer = Producer { id: ProducerId { born: Offset(0), nonce: n % 2 }.to_u128(), sequence: n / 2 };
        append(&mut log, &[(Some((n % 3) as u8), vec![b'.'; 4000])], Some(producer));
    }
    commit(&mut log);
    let second: u64 = segments(&disk)[1].trim_end_matches(".log").parse().unwrap();
    log.trim(Offset(second)).unwrap();
    let before = log.reader().origin(COMPACTED.producers).unwrap();
    assert_eq!(damages(&log), []);
    compact(&mut log, 0);
    assert!(read(&log).len() < 20);
    assert_eq!(log.reader().origin(COMPACTED.producers).unwrap(), before);
    assert_eq!(damages(&log), []);
    log.close().unwrap();
    let log = open(&disk);
    assert_eq!((damages(&log), log.damaged()), (vec![], vec![]));
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        records: Vec<(Option<u8>, u16)>,
        producer: Option<u8>,
    },
    Epoch,
    Compact {
        keys_max: usize,
    },
    Repair {
        damage: u32,
    },
    /// The last so many appends go, from the peer too, as far as they are not committed.
    Cut {
        appends: usize,
    },
    Reopen {
        seed: Option<u64>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let record =
        (prop_oneof![4 => (0_u8..6).prop_map(Some), 1 => Just(None)], prop_oneof![1 => Just(0), 5 => 1_u16..3000]);
    let records = proptest::collection::vec(record, 1..5);
    prop_oneof![
        8 => (records, proptest::option::of(0_u8..3)).prop_map(|(records, producer)| Step::Append { records, producer }),
        1 => Just(Step::Epoch),
        2 => (1_usize..8).prop_map(|keys_max| Step::Compact { keys_max }),
        1 => any::<u32>().prop_map(|damage| Step::Repair { damage }),
        1 => (1_usize..8).prop_map(|appends| Step::Cut { appends }),
        1 => proptest::option::of(any::<u64>()).prop_map(|seed| Step::Reopen { seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_holds_what_the_model_says(steps in proptest::collection::vec(step(), 1..80)) {
        let (disk, peer_disk) = (SimDisk::new(1), SimDisk::new(2));
        let mut log = open(&disk);
        let mut peer = Log::open(peer_disk, SMALL, ReplicaId(8)).unwrap().0;
        let mut sequences = [0; 3];
        let mut places = vec![(peer.tail(), sequences)];
        let (mut last_epoch, mut committed) = (0, Offset(0));
        // What a repair brings back may have been deleted by a record that has gone, which README.md says.
        let repairs = steps.iter().any(|step| matches!(step, Step::Repair { .. }));
        let now_ms = if repairs { 0 } else { u64::MAX };
        for step in steps {
            match step {
                Step::Append { records, producer } => {
                    let records: Vec<Record> =
                        records.iter().map(|(key, bytes)| (*key, vec![b'v'; usize::from(*bytes)])).collect();
                    let producer = producer.map(|n| {
                        let sequence = sequences[usize::from(n)];
                        sequences[usize::from(n)] += records.len() as u64;
                        Producer { id: n.into(), sequence }
                    });
                    append(&mut peer, &records, producer);
                    replicate(&peer, &mut log, 0);
                }
                Step::Epoch => {
                    last_epoch += 1;
                    start_epoch(&mut peer, last_epoch);
                    replicate(&peer, &mut log, 0);
                }
                Step::Cut { appends } => {
                    let committed = places.iter().take_while(|(tail, _)| tail.end < committed).count();
                    let (to, then) = places[places.len().saturating_sub(appends + 1).max(committed)];
                    peer.cut(to).unwrap();
                    log.cut(to).unwrap();
                    places.retain(|(tail, _)| *tail <= to);
                    sequences = then;
                    last_epoch += 1;
                    start_epoch(&mut peer, last_epoch);
                    replicate(&peer, &mut log, 0);
                }
                Step::Compact { keys_max } => {
                    commit(&mut log);
                    committed = log.tail().end;
                    while round(&mut log, now_ms, keys_max).unwrap() {}
                    let (found, expected) = (read(&log), left(&read(&peer), sealed_end(&disk), now_ms.saturating_sub(1000)));
                    prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
                    prop_assert!(found == expected, "a record has changed");
                }
                Step::Repair { damage } => {
                    let names = segments(&disk);
                    let name = &names[damage as usize % names.len()];
                    if names.len() > 1 && name != names.last().unwrap() {
                        let bytes = disk.content(name).unwrap().len();
                        disk.damage(name, |content| content[128 + damage as usize % (bytes - 128)] ^= 1 << (damage % 8));
                        damages(&log);
                        repair_all(&mut log, &peer).unwrap();
                        while round(&mut log, now_ms, 100).unwrap() {}
                    }
                }
                Step::Reopen { seed } => {
                    log.sync().unwrap();
                    match seed {
                        Some(seed) => disk.crash(seed),
                        None => disk.kill(),
                    }
                    drop(log);
                    log = open(&disk);
                }
            }
            if places.last().is_none_or(|(tail, _)| *tail < peer.tail()) {
                places.push((peer.tail(), sequences));
            }
            prop_assert_eq!(log.tail(), peer.tail());
            prop_assert_eq!(damages(&log), vec![]);
        }
        let mut follower = open(&SimDisk::new(3));
        replicate(&log, &mut follower, 5000);
        prop_assert!(read(&follower) == read(&log), "a follower of a compacted log holds other records");
        prop_assert_eq!(epochs(&follower), epochs(&log));
        let newest = |log: &SimLog| -> BTreeMap<u8, Vec<u8>> {
            read(log).into_values().filter_map(|(key, value)| key.map(|key| (key, value))).filter(|(_, v)| !v.is_empty()).collect()
        };
        let live: BTreeMap<u8, Vec<u8>> = {
            let mut live = BTreeMap::new();
            for (key, value) in read(&peer).into_values().filter_map(|(key, value)| key.map(|key| (key, value))) {
                if value.is_empty() { live.remove(&key); } else { live.insert(key, value); }
            }
            live
        };
        let newest = newest(&log);
        for (key, value) in live {
            prop_assert_eq!(newest.get(&key), Some(&value));
        }
        for n in 0..3_u8 {
            let id = ProducerId::from_u128(n.into());
            let next = sequences[usize::from(n)];
            if next > 0 {
                prop_assert_eq!(follower.producers().check(id, next, 1), Verdict::New);
                prop_assert!(!matches!(follower.producers().check(id, next - 1, 1), Verdict::New), "taken twice");
            }
        }
    }
}
