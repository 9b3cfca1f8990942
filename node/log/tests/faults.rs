//! A disk that fails, forgets, damages: what is torn is cut, what is damaged is named, what fails is not used further.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::io::ErrorKind;

use common::{
    ID, SMALL, SimLog, append, batch, batch_by, fill, fresh, open, read_all, segments, start_epoch, try_open,
};
use zue_core::{ClusterId, Epoch, Offset, ProducerId, ProducerLimits, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Damage, Disk, Durability, Log, LogConfig, LogError, OpenError, Producer, ReadError};

const FIRST: &str = "00000000000000000000.log";

/// A disk whose only segment ends with an append of three records; where that begins and ends.
fn with_last_append() -> (SimDisk, usize, usize) {
    let (disk, mut log) = fresh(20);
    append(&mut log, &["kept"]);
    log.sync().unwrap();
    let begins = used(&disk.content(FIRST).unwrap());
    append(&mut log, &["one", "two", "three"]);
    log.sync().unwrap();
    let ends = used(&disk.content(FIRST).unwrap());
    (disk, begins, ends)
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn an_append_torn_at_any_byte_is_cut_away_whole() {
    let (_, begins, ends) = with_last_append();
    for torn in begins..ends {
        let (disk, ..) = with_last_append();
        disk.kill();
        disk.damage(FIRST, |bytes| bytes[torn..].fill(0));
        let (mut log, recovered) = open(&disk);
        // In front of the append lies a mark of what was synced, whose last bytes are zero.
        let whole = torn == begins || (begins + 33..=begins + 40).contains(&torn);
        assert_eq!(recovered.cut_bytes > 0, !whole, "torn at {torn} of {begins}..{ends}");
        assert_eq!(read_all(&log), [(0, b"kept".to_vec())]);
        append(&mut log, &["next"]);
        log.sync().unwrap();
        disk.crash(0);
        let (log, recovered) = open(&disk);
        assert_eq!((read_all(&log).len(), recovered.cut_bytes), (2, 0));
    }
}

#[test]
fn a_lost_write_before_a_kept_one_cuts_both() {
    let (disk, begins, ends) = with_last_append();
    disk.kill();
    disk.damage(FIRST, |bytes| bytes[begins..begins + 60].fill(0));
    let (log, recovered) = open(&disk);
    assert_eq!((read_all(&log).len(), recovered.suspect), (1, None));
    assert_eq!(recovered.cut_bytes, u64::try_from(ends - begins - 60).unwrap() + 60);
}

#[test]
fn what_was_cut_as_torn_never_comes_back() {
    let (disk, begins, ends) = with_last_append();
    let whole = disk.content(FIRST).unwrap();
    disk.kill();
    disk.damage(FIRST, |bytes| bytes[begins..begins + 20].fill(0));
    drop(open(&disk));
    // As if the lost bytes had been on their way only.
    disk.damage(FIRST, |bytes| bytes[begins..ends].copy_from_slice(&whole[begins..ends]));
    disk.crash(3);
    let (log, _) = open(&disk);
    assert_eq!(read_all(&log).len(), 1);
}

#[test]
fn what_is_committed_before_it_is_durable_here_is_not_written_down_as_committed() {
    for seed in 0..20 {
        let (disk, mut log) = fresh(31);
        append(&mut log, &["a"]);
        log.sync().unwrap();
        append(&mut log, &["b"]);
        log.note_commit(Offset(2));
        log.set_promise(Epoch(1), None, None).unwrap();
        assert_eq!(log.meta().commit_end, Offset(1));
        disk.crash(seed);
        open(&disk);
    }
}

#[test]
fn a_bit_flipped_anywhere_in_a_sealed_segment_is_noticed() {
    let (disk, mut log) = fresh(22);
    start_epoch(&mut log, 1);
    append(&mut log, &["a", "b"]);
    // The segment ends with an epoch start, which the next one's snapshot has too.
    fill(&mut log, 5, 4000);
    start_epoch(&mut log, 2);
    fill(&mut log, 5, 4000);
    log.close().unwrap();
    let names = segments(&disk);
    assert_eq!(names[1], "00000000000000000007.log");
    let sealed = &names[0];
    let end = used(&disk.content(sealed).unwrap());
    for byte in (0..600).chain((600..end).step_by(97)).chain(end - 60..end) {
        for bit in [0, 7] {
            disk.damage(sealed, |bytes| bytes[byte] ^= 1 << bit);
            match try_open(&disk) {
                Err(OpenError::BadHeader { .. } | OpenError::MissingSegment { .. }) => {}
                Ok((log, _)) if damages(&log).iter().any(|damage| damage.path.ends_with(sealed)) => {}
                other => panic!("bit {bit} of byte {byte} of {end}: {other:?}"),
            }
            disk.damage(sealed, |bytes| bytes[byte] ^= 1 << bit);
        }
    }
    assert_eq!(damages(&open(&disk).0), []);
}

/// All that a check of every byte finds, in pieces so small that they end inside frames.
fn damages(log: &SimLog) -> Vec<Damage> {
    let mut verifier = log.reader().verifier();
    let step = || verifier.step(300).unwrap();
    std::iter::from_fn(step).filter_map(|verified| verified.damage).collect()
}

#[test]
fn a_damaged_record_is_neither_served_nor_replicated() {
    let (disk, mut log) = fresh(23);
    append(&mut log, &["a"]);
    append(&mut log, &["b"]);
    let end = used(&disk.content(FIRST).unwrap());
    append(&mut log, &["c"]);
    disk.damage(FIRST, |bytes| bytes[end - 1] ^= 1);
    let reader = log.reader();
    let chunk = reader.read(Offset(0), Offset(3), 10_000).unwrap();
    let records: Vec<_> = chunk.records().collect();
    assert!(matches!(&records[..], [Ok(_), Err(ReadError::Damaged(Damage { from: Offset(1), .. }))]), "{records:?}");
    let before = reader.read_frames(Tail::default(), log.tail(), 10_000).unwrap().unwrap();
    assert_eq!(before.tail().end, Offset(1));
    let error = reader.read_frames(before.tail(), log.tail(), 10_000).unwrap_err();
    assert!(matches!(error, ReadError::Damaged(Damage { from: Offset(1), .. })), "{error}");
}

#[test]
fn missing_files_are_named() {
    let sealed = |disk: &SimDisk| segments(disk)[1].clone();
    let make = || {
        let (disk, mut log) = fresh(24);
        fill(&mut log, 40, 4000);
        log.close().unwrap();
        disk
    };
    let disk = make();
    disk.remove("meta").unwrap();
    assert!(matches!(try_open(&disk), Err(OpenError::NoMeta { .. })));
    let disk = make();
    disk.damage("meta", |bytes| bytes[70] ^= 1);
    assert!(matches!(try_open(&disk), Err(OpenError::BadHeader { .. })));
    let disk = make();
    disk.remove(&sealed(&disk)).unwrap();
    assert!(matches!(try_open(&disk), Err(OpenError::MissingSegment { .. })));
    let disk = make();
    disk.remove(segments(&disk).last().unwrap()).unwrap();
    assert!(matches!(try_open(&disk), Err(OpenError::NewestGone { .. })));
    let disk = make();
    for name in segments(&disk) {
        disk.remove(&name).unwrap();
    }
    assert!(matches!(try_open(&disk), Err(OpenError::NoSegments { .. })));
}

#[test]
fn a_segment_of_another_directory_does_not_pass_for_ones_own() {
    let make = |seed| {
        let (disk, mut log) = fresh(seed);
        fill(&mut log, 20, 4000);
        log.close().unwrap();
        disk
    };
    let (ours, theirs) = (make(1), make(2));
    let name = segments(&ours)[1].clone();
    let (header, foreign) = (ours.content(&name).unwrap()[..128].to_vec(), theirs.content(&name).unwrap());
    ours.damage(&name, |bytes| {
        bytes.clone_from(&foreign);
        bytes[..128].copy_from_slice(&header);
    });
    assert!(matches!(&damages(&open(&ours).0)[..], [Damage { position: 128, .. }]));
}

type Change = (&'static str, fn(&mut Vec<u8>));

#[test]
fn an_index_that_is_damaged_missing_or_stale_is_made_again() {
    let (disk, mut log) = fresh(25);
    fill(&mut log, 60, 1500);
    let held = read_all(&log);
    log.close().unwrap();
    let indexes: Vec<_> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".index")).collect();
    assert!(indexes.len() >= 3);
    let good: Vec<_> = indexes.iter().map(|name| disk.content(name).unwrap()).collect();
    let changes: [Change; 5] = [
        ("header", |bytes| bytes[17] ^= 1),
        ("entry", |bytes| bytes[40] ^= 1),
        ("torn", |bytes| bytes.truncate(70)),
        ("empty", Vec::clear),
        ("longer", |bytes| bytes.extend_from_within(32..64)),
    ];
    for (what, change) in changes {
        for name in &indexes {
            disk.damage(name, change);
        }
        let (log, _) = open(&disk);
        assert_eq!(read_all(&log), held, "{what}");
        log.close().unwrap();
        assert_eq!(indexes.iter().map(|name| disk.content(name).unwrap()).collect::<Vec<_>>(), good, "{what}");
    }
    disk.remove(&indexes[1]).unwrap();
    let (log, _) = open(&disk);
    assert_eq!(read_all(&log), held);
    assert_eq!(disk.content(&indexes[1]).unwrap(), good[1]);
}

#[test]
fn a_failed_write_or_sync_poisons_until_the_log_is_reopened() {
    for failing_sync in [false, true] {
        let (disk, mut log) = fresh(26);
        append(&mut log, &["a"]);
        log.sync().unwrap();
        let durable = log.durable();
        disk.fail_at(disk.operations() + u64::from(failing_sync), ErrorKind::Other);
        let failed = log.append(&batch(log.tail(), &["b"])).and_then(|_| log.sync());
        assert!(matches!(failed, Err(LogError::Disk(_))), "{failed:?}");
        assert_eq!(log.durable(), durable);
        let poisoned = |result: Result<(), LogError>| assert!(matches!(result, Err(LogError::Poisoned { .. })));
        poisoned(log.append(&batch(log.tail(), &["c"])).map(|_| ()));
        poisoned(log.sync().map(|_| ()));
        poisoned(log.cut(Tail::default()));
        poisoned(log.set_promise(Epoch(9), None, None));
        assert_eq!(log.reader().read(Offset(0), Offset(1), 100).unwrap().end(), Offset(1));
        poisoned(log.close().map(|_| ()));
        disk.crash(1);
        let (mut log, _) = open(&disk);
        assert_eq!(read_all(&log)[0].1, b"a");
        append(&mut log, &["d"]);
    }
}

type Step = fn(&mut SimLog) -> Result<(), LogError>;

#[test]
fn what_a_failed_sync_has_lost_is_not_taken_for_durable_by_a_later_one() {
    let steps: [(&str, Step); 4] = [
        ("roll", |log| log.append(&batch(log.tail(), &[vec![1; 20_000]])).map(|_| ())),
        ("cut", |log| log.cut(Tail { end: Offset(4), ..log.tail() })),
        ("trim", |log| {
            log.note_commit(Offset(4));
            log.trim(Offset(4)).map(|_| ())
        }),
        ("sync", |log| log.sync().map(|_| ())),
    ];
    for (what, step) in steps {
        for seed in 0..8 {
            let (disk, mut log) = fresh(seed);
            fill(&mut log, 5, 4000);
            // Another thread runs it, and has not told of it yet.
            let point = log.sync_point().unwrap().unwrap();
            disk.fail_at(disk.operations(), ErrorKind::Other);
            let result = point.run();
            assert!(result.is_err());
            let failed = step(&mut log);
            assert!(matches!(failed, Err(LogError::Disk(_))), "{what}: {failed:?}");
            assert!(matches!(log.synced(&point, result), Err(LogError::Disk(_))));
            let durable = log.durable().end;
            disk.crash(seed);
            let (log, _) = open(&disk);
            assert!(log.tail().end >= durable, "{what}");
            assert_eq!(read_all(&log).len() as u64, log.tail().end.0, "{what}");
        }
    }
}

#[test]
fn a_full_disk_poisons_nothing_and_the_log_goes_on_when_there_is_room() {
    for step in 0..2 {
        let (disk, mut log) = fresh(27);
        fill(&mut log, 5, 4000);
        let (before, held) = (log.tail(), read_all(&log));
        let big = batch(log.tail(), &[vec![1; 8000]]);
        // Creating the next segment, and reserving room for it.
        disk.fail_at(disk.operations() + step, ErrorKind::StorageFull);
        let failed = log.append(&big);
        assert!(matches!(&failed, Err(LogError::NoRoom(_))), "{failed:?}");
        assert_eq!((log.tail(), read_all(&log)), (before, held));
        // The reserve takes epoch starts, and promises have their own.
        start_epoch(&mut log, 1);
        log.set_promise(Epoch(2), None, None).unwrap();
        append(&mut log, &[vec![1; 8000]]);
        assert_eq!(segments(&disk).len(), 2);
        log.close().unwrap();
        open(&disk);
    }
}

#[test]
fn a_segment_that_has_no_room_for_its_name_gives_that_of_its_file_back() {
    let mut refused = 0;
    for step in 0..30 {
        let (disk, mut log) = fresh(34);
        fill(&mut log, 4, 20_000);
        log.note_commit(Offset(4));
        let next = segments(&disk)[1][..20].parse().unwrap();
        log.trim(Offset(next)).unwrap();
        assert!(disk.content("segment.spare").is_some());
        disk.set_room(Some(0));
        let big = batch(log.tail(), &[vec![1; 20_000]]);
        disk.fail_at(disk.operations() + step, ErrorKind::StorageFull);
        if let Err(LogError::NoRoom(_)) = log.append(&big) {
            refused += 1;
            assert!(disk.content("segment.spare").is_none());
            append(&mut log, &[vec![1; 20_000]]);
            assert_eq!(read_all(&log).len() as u64, log.tail().end.0 - log.log_start().0);
        }
    }
    assert_eq!(refused, 1);
}

#[test]
fn a_disk_that_stays_full_lets_the_log_promise_and_recover() {
    let (disk, begins, _) = with_last_append();
    disk.set_room(Some(0));
    disk.kill();
    // A torn tail, which takes a segment to cut.
    disk.damage(FIRST, |bytes| bytes[begins + 60..].fill(0));
    let (mut log, recovered) = open(&disk);
    assert!(recovered.cut_bytes > 0);
    for epoch in 1..20 {
        log.set_promise(Epoch(epoch), None, None).unwrap();
    }
    start_epoch(&mut log, 19);
    log.sync().unwrap();
    disk.kill();
    let (log, _) = open(&disk);
    assert_eq!((read_all(&log).len(), log.tail().epoch, log.meta().promise.epoch), (1, Epoch(19), Epoch(19)));
}

#[test]
fn a_torn_log_of_many_producers_opens_on_a_full_disk() {
    let producers = ProducerLimits { producers_max: 5000, appends_max: 3, all_appends_max: 15_000 };
    let config = LogConfig { segment_bytes_max: 1 << 20, producers, ..SMALL };
    for has_spare in [true, false] {
        let disk = SimDisk::new(32);
        let (mut log, _) = Log::open(disk.clone(), config, ID).unwrap();
        for n in 0..2500 {
            let id = ProducerId { born: Offset(0), nonce: n }.to_u128();
            log.append(&batch_by(log.tail(), &[vec![b'.'; 150]], Some(Producer { id, sequence: 0 }))).unwrap();
        }
        log.sync().unwrap();
        if has_spare {
            let mut preparation = log.prepare().unwrap();
            while preparation.step().unwrap() {}
            log.prepared(Some(preparation));
        } else {
            log.close().unwrap();
            log = Log::open(disk.clone(), config, ID).unwrap().0;
        }
        assert_eq!(segments(&disk), [FIRST]);
        append(&mut log, &["kept"]);
        log.sync().unwrap();
        let begins = used(&disk.content(FIRST).unwrap());
        append(&mut log, &["torn"]);
        disk.set_room(Some(0));
        disk.kill();
        disk.damage(FIRST, |bytes| bytes[begins + 60..].fill(0));
        let (log, recovered) = Log::open(disk.clone(), config, ID).unwrap();
        assert!(recovered.cut_bytes > 0);
        assert_eq!(log.tail().end, Offset(2501));
    }
}

#[test]
fn a_cut_on_a_full_disk_makes_do_with_a_short_segment() {
    let (disk, mut log) = fresh(28);
    fill(&mut log, 5, 4000);
    disk.fail_at(disk.operations() + 1, ErrorKind::StorageFull);
    log.cut(Tail { epoch: Epoch(0), end: Offset(2) }).unwrap();
    assert!(disk.content(segments(&disk).last().unwrap()).unwrap().len() < 16 << 10);
    fill(&mut log, 20, 4000);
    log.close().unwrap();
    assert_eq!(read_all(&open(&disk).0).len(), 22);
}

#[test]
fn a_disk_that_fails_at_any_operation_leaves_a_log_that_opens() {
    let run = |disk: &SimDisk| -> Result<u64, LogError> {
        let Ok((mut log, _)) = try_open(disk) else { return Ok(0) };
        let mut durable = 0;
        for round in 1..6 {
            log.set_promise(Epoch(round), None, None).map_err(|_| ()).unwrap_or_default();
            for _ in 0..3 {
                let batch = batch(log.tail(), &[vec![1; 6000]]);
                if log.append(&batch).is_ok() && log.sync().is_ok() {
                    durable = log.durable().end.0;
                }
            }
        }
        Ok(durable)
    };
    let clean = SimDisk::new(29);
    run(&clean).unwrap();
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for operation in 0..clean.operations() {
            let disk = SimDisk::new(29);
            disk.fail_at(operation, kind);
            let durable = run(&disk).unwrap();
            disk.crash(operation);
            let (log, _) = open(&disk);
            assert!(log.tail().end.0 >= durable, "{kind} at operation {operation}");
            assert_eq!(read_all(&log).len() as u64, log.tail().end.0);
        }
    }
}

#[test]
fn acknowledgements_that_did_not_wait_for_the_disk_may_be_forgotten_by_a_reboot_only() {
    let config = LogConfig { durability: Durability::Os, ..SMALL };
    let disk = SimDisk::new(30);
    let open = |disk: &SimDisk| Log::open(disk.clone(), config, ID).unwrap();
    let (mut log, _) = open(&disk);
    log.set_promise(Epoch(1), None, Some(ClusterId(5))).unwrap();
    start_epoch(&mut log, 1);
    append(&mut log, &["a"]);
    assert_eq!(log.sync().unwrap().end, Offset(1));
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!((recovered.may_have_forgotten, read_all(&log).len()), (false, 1));
    log.close().unwrap();
    disk.crash(1);
    let (log, recovered) = open(&disk);
    assert!(!recovered.may_have_forgotten);
    disk.crash(1);
    drop(log);
    let (mut log, recovered) = open(&disk);
    let tail = |epoch, end| Tail { epoch: Epoch(epoch), end: Offset(end) };
    assert_eq!((recovered.may_have_forgotten, recovered.suspect), (true, Some(tail(1, u64::MAX))));
    // What it has acknowledged lies within the log of the leader of that epoch; of another one that says nothing.
    log.bound_suspect(tail(0, 3)).unwrap();
    assert_eq!(log.meta().suspect, recovered.suspect);
    log.bound_suspect(tail(1, 7)).unwrap();
    log.bound_suspect(tail(1, 9)).unwrap();
    drop(log);
    assert_eq!(open(&disk).1.suspect, Some(tail(1, 7)));
}

#[test]
fn acknowledgements_that_did_not_wait_for_the_disk_are_suspected_once_a_sync_fails_without_any_reboot() {
    let config = LogConfig { durability: Durability::Os, ..SMALL };
    // How many of them have lost something.
    let (mut while_running, mut while_opening) = (0, 0);
    let cases = (1..20).flat_map(|appends| (0..8).map(move |operation| (appends, operation)));
    for (appends, operation) in cases {
        let disk = SimDisk::new(1);
        let (mut log, _) = Log::open(disk.clone(), config, ID).unwrap();
        log.set_promise(Epoch(1), None, Some(ClusterId(5))).unwrap();
        start_epoch(&mut log, 1);
        log.sync().unwrap();
        fill(&mut log, appends, 20);
        let acknowledged = log.sync().unwrap();
        let has_lost = |disk: SimDisk| {
            let (log, recovered) = Log::open(disk, config, ID).unwrap();
            let reached = recovered.suspect.map_or(log.tail(), |suspect| suspect.max(log.tail()));
            assert!(reached >= acknowledged, "{appends}, {operation}: {} {recovered:?}", log.tail());
            u32::from(log.tail() < acknowledged)
        };
        let fork = disk.fork();
        // The sync that a trim needs.
        log.note_commit(Offset(1));
        disk.fail_at(disk.operations() + operation, ErrorKind::Other);
        let _ = log.begin_at(Offset(1));
        drop(log);
        disk.kill();
        while_running += has_lost(disk);
        // The system could not write what the process before has written.
        fork.kill();
        fork.fail_at(fork.operations() + operation, ErrorKind::Other);
        drop(Log::open(fork.clone(), config, ID));
        fork.kill();
        while_opening += has_lost(fork);
    }
    assert!(while_running > 5 && while_opening > 5, "{while_running} and {while_opening}");
}

#[test]
fn epoch_starts_are_not_forgotten_and_before_the_first_there_is_nothing_to_forget() {
    let config = LogConfig { durability: Durability::Os, ..SMALL };
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (mut log, _) = Log::open(disk.clone(), config, ID).unwrap();
        log.set_promise(Epoch(1), None, Some(ClusterId(5))).unwrap();
        start_epoch(&mut log, 1);
        disk.crash(seed);
        drop(log);
        let (mut log, recovered) = Log::open(disk.clone(), config, ID).unwrap();
        let tail = Tail { epoch: Epoch(1), end: Offset(u64::MAX) };
        let forgotten = Some(tail).filter(|_| log.tail().epoch == Epoch(1));
        assert_eq!((recovered.may_have_forgotten, recovered.suspect), (forgotten.is_some(), forgotten));
        start_epoch(&mut log, 2);
        assert_eq!(log.sync().unwrap().epoch, Epoch(2));
        append(&mut log, &["a"]);
        log.sync().unwrap();
        disk.crash(seed);
        drop(log);
        let (log, recovered) = Log::open(disk, config, ID).unwrap();
        assert_eq!((log.tail().epoch, recovered.suspect), (Epoch(2), Some(Tail { epoch: Epoch(2), ..tail })));
    }
}
