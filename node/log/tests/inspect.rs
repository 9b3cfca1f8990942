//! Looking after a log: what a repair would do is what it does, and looking changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::{SMALL, append, fill, fresh, read_all, segments, start_epoch};
use zue_core::{Epoch, Offset, ReplicaId, Tail};
use zue_log::sim::SimDisk;
use zue_log::{
    BadIndex, Changes, Disk, DiskFile as _, DumpItem, IndexFault, Log, OpenError, OsDisk, Overlay, bad_indexes, dump,
    repair,
};

fn files(disk: &impl Disk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let bytes = file.read(0..file.len().unwrap()).unwrap();
        (name, bytes.to_vec())
    };
    disk.list().unwrap().into_iter().map(read).collect()
}

/// A log of two epochs in several segments, not closed, with records that are not synced at its end.
fn used(seed: u64) -> SimDisk {
    let (disk, mut log) = fresh(seed);
    start_epoch(&mut log, 1);
    fill(&mut log, 30, 1500);
    log.note_commit(Offset(30));
    start_epoch(&mut log, 2);
    fill(&mut log, 30, 1500);
    log.cut(Tail { epoch: Epoch(2), end: Offset(50) }).unwrap();
    fill(&mut log, 5, 1500);
    log.sync().unwrap();
    fill(&mut log, 1, 1500);
    disk
}

fn end_of(disk: &SimDisk, name: &str) -> usize {
    disk.content(name).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1
}

type Harm = (&'static str, fn(&SimDisk));

/// Harm that may have come to a directory.
const HARMS: [Harm; 9] = [
    ("nothing", |_| {}),
    ("a torn tail", |disk| {
        let last = segments(disk).pop().unwrap();
        let end = end_of(disk, &last);
        disk.damage(&last, |bytes| bytes[end - 700..].fill(0));
    }),
    ("an index that is gone", |disk| disk.remove("00000000000000000000.index").unwrap()),
    ("an index that is damaged", |disk| disk.damage("00000000000000000000.index", |bytes| bytes[40] ^= 1)),
    ("left-overs", |disk| {
        for name in ["segment.next", "segment.spare", "00000000000000009999.index"] {
            drop(disk.create(name).unwrap());
        }
    }),
    ("another's file", |disk| drop(disk.create("notes.txt").unwrap())),
    ("damage to what was durable", |disk| {
        let last = segments(disk).pop().unwrap();
        let end = end_of(disk, &last);
        disk.damage(&last, |bytes| bytes[end - 3000] ^= 1);
    }),
    ("damage to what is committed", |disk| disk.damage(&segments(disk)[0], |bytes| bytes[9000] ^= 1)),
    ("a lost sealed segment", |disk| disk.remove(&segments(disk)[1]).unwrap()),
];

#[test]
fn what_a_repair_would_do_is_what_it_does_and_looking_changes_nothing() {
    for (seed, (what, harm)) in HARMS.iter().enumerate() {
        let disk = used(seed as u64);
        disk.kill();
        harm(&disk);
        let (before, operations) = (files(&disk), disk.operations());
        let overlay = Overlay::new(disk.clone());
        let looked = repair(overlay.clone());
        let would = looked.map(|(log, recovered)| {
            let held = (log.tail(), log.damaged());
            log.close().unwrap();
            (held, recovered, overlay.changes().unwrap())
        });
        assert_eq!((files(&disk), disk.operations()), (before.clone(), operations), "{what}");
        let did = repair(disk.clone());
        let (Ok(((held, damaged), would_recover, changes)), Ok((log, recovered))) = (would, did) else {
            assert!(matches!(*what, "a lost sealed segment"), "{what}");
            continue;
        };
        assert_eq!((log.tail(), log.damaged(), &recovered), (held, damaged, &would_recover), "{what}");
        log.close().unwrap();
        let after = files(&disk);
        let names = |of: &BTreeMap<String, Vec<u8>>, and: &BTreeMap<String, Vec<u8>>| {
            of.keys().filter(|name| !and.contains_key(*name)).cloned().collect()
        };
        let rewritten = before.iter().filter(|(name, bytes)| after.get(*name).is_some_and(|after| after != *bytes));
        let did = Changes {
            made: names(&after, &before),
            removed: names(&before, &after),
            changed: rewritten.map(|(name, _)| name.clone()).collect(),
        };
        assert_eq!(changes, did, "{what}");
        // A repaired log needs no further repair than to be closed again.
        let (_, recovered) = repair(Overlay::new(disk.clone())).unwrap();
        assert_eq!(recovered.cut_bytes, 0, "{what}");
    }
}

#[test]
fn an_index_that_is_not_what_its_segment_gives_is_named_with_the_place() {
    let disk = used(20);
    disk.kill();
    repair(disk.clone()).unwrap().0.close().unwrap();
    let index = "00000000000000000000.index";
    let good = disk.content(index).unwrap();
    let look = || {
        let (log, _) = repair(Overlay::new(disk.clone())).unwrap();
        bad_indexes(&log, &disk).unwrap()
    };
    assert_eq!(look(), []);
    let bad = |fault| [BadIndex { path: disk.path(index), fault }];
    for byte in 0..good.len() {
        disk.damage(index, |bytes| bytes[byte] ^= 1);
        let position = if byte < 32 { 0 } else { byte as u64 / 32 * 32 };
        assert_eq!(look(), bad(IndexFault::Damaged(position)), "byte {byte}");
        let overlay = Overlay::new(disk.clone());
        let (log, _) = repair(overlay.clone()).unwrap();
        assert_eq!(bad_indexes(&log, &overlay).unwrap(), [], "byte {byte} is not mended");
        disk.damage(index, |bytes| bytes.clone_from(&good));
    }
    disk.damage(index, |bytes| bytes.truncate(70));
    assert_eq!(look(), bad(IndexFault::Damaged(64)));
    // Entries that are whole and not true.
    let other = segments(&disk)[1].replace(".log", ".index");
    disk.damage(index, |bytes| bytes.clone_from(&good));
    disk.remove(&other).unwrap();
    assert_eq!(look(), [BadIndex { path: disk.path(&other), fault: IndexFault::Missing }]);
}

#[test]
fn a_dump_shows_every_byte_of_the_log_once_and_what_is_damaged_in_its_place() {
    let disk = used(21);
    let (log, _) = repair(Overlay::new(disk.clone())).unwrap_or_else(|_| {
        disk.kill();
        repair(Overlay::new(disk.clone())).unwrap()
    });
    let held = read_all(&log);
    drop(log);
    let show = |from: u64| {
        let (mut records, mut starts, mut bad, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        dump(&disk, Offset(from), |dumped| {
            let end = bytes.entry(dumped.path.to_owned()).or_insert(0_u64);
            if from == 0 {
                assert_eq!(*end, dumped.position, "a byte is left out or shown twice");
            }
            *end = dumped.position + dumped.bytes;
            match &dumped.item {
                DumpItem::Record(record) => records.push((record.epoch.0, record.value.to_vec())),
                DumpItem::EpochStart(start) => starts.push(start.epoch.0),
                DumpItem::Bad(_) => bad.push(dumped.position),
                DumpItem::Meta(meta) => assert_eq!(meta.commit_end, Offset(30)),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        (records, starts, bad)
    };
    let (records, starts, bad) = show(0);
    assert_eq!((&records, &*bad), (&held, [].as_slice()));
    assert_eq!(starts, [1, 2]);
    assert_eq!(show(40).0, held[40..]);
    disk.damage(&segments(&disk)[0], |bytes| bytes[9000] ^= 1);
    let (records, _, bad) = show(0);
    assert_eq!((records.len(), bad.len()), (held.len() - 1, 1));
    let mut shown = 0;
    let stop = |_: &zue_log::Dumped<'_>| {
        shown += 1;
        if shown < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    dump(&disk, Offset(0), stop).unwrap();
    assert_eq!(shown, 3);
}

#[test]
fn a_directory_that_is_only_looked_at_is_not_changed_and_not_written_beside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    assert_eq!(OsDisk::read_only(&path).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(!path.exists());
    let (mut log, _) = Log::open(OsDisk::new(&path).unwrap(), SMALL, ReplicaId(7)).unwrap();
    append(&mut log, &["a", "b"]);
    let look = || repair(Overlay::new(OsDisk::read_only(&path).unwrap()));
    assert!(matches!(look(), Err(OpenError::Locked { .. })));
    drop(log);
    let (first, _) = look().unwrap();
    let (second, _) = look().unwrap();
    assert_eq!((read_all(&first).len(), read_all(&second).len()), (2, 2));
    let node = Log::open(OsDisk::new(&path).unwrap(), SMALL, ReplicaId(7));
    assert!(matches!(node, Err(OpenError::Locked { .. })), "nobody writes what is looked at");
    drop((first, second));
    Log::open(OsDisk::new(&path).unwrap(), SMALL, ReplicaId(7)).unwrap();
}
