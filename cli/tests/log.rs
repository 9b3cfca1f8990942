//! `zue log` on real directories: what it says, its exit code, and that looking changes nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::Value;
use zue_core::{Aged, Epoch, EpochStart, Offset, ReplicaId};
use zue_log::{Batch, BatchBuilder, Compacting, CompactionConfig, Limits, Log, LogConfig, OsDisk};

const FIRST: &str = "00000000000000000000.log";

/// A test that is alone: a process that another one starts would hold the locks of this one's logs until it is the program.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn zue(args: &[&str], dir: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_zue")).arg("log").args(args).arg(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn open(dir: &Path) -> Log<OsDisk> {
    let config = LogConfig { segment_bytes_max: 64 << 10, ..LogConfig::default() };
    Log::open(OsDisk::new(dir).unwrap(), config, ReplicaId(7)).unwrap().0
}

fn append(log: &mut Log<OsDisk>, count: u64) {
    for _ in 0..count {
        let mut builder = BatchBuilder::new(log.tail(), 1_700_000_000_000, Limits::default());
        let value = format!("value {} {}", log.tail().end, "x".repeat(900));
        builder.push(Some(b"key"), value.as_bytes(), [("name", b"header".as_slice())], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    log.sync().unwrap();
}

/// A data directory of 300 records, all committed, in several segments.
fn data(clean: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let voters = vec![ReplicaId(7)];
    let start =
        EpochStart { epoch: Epoch(3), start: Offset(0), leader: ReplicaId(7), voters, quorum: 1, old_voters: None };
    log.set_promise(start.epoch, Some(start.leader), None).unwrap();
    log.append(&Batch::epoch_start(Epoch(0), start).unwrap()).unwrap();
    append(&mut log, 300);
    log.note_commit(Offset(300));
    log.write_commit().unwrap();
    if clean {
        log.close().unwrap();
    }
    dir
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = names.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    names.sort();
    names
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Every file with its bytes and when it was changed.
fn state(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let file = |path: PathBuf| {
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        (path.clone(), (fs::read(path).unwrap_or_default(), changed))
    };
    fs::read_dir(dir).unwrap().map(|entry| file(entry.unwrap().path())).collect()
}

#[test]
fn a_sound_log_is_called_sound_and_nothing_is_changed() {
    let _alone = alone();
    for clean in [true, false] {
        let dir = data(clean);
        fs::write(dir.path().join("notes.txt"), "of somebody else").unwrap();
        let before = state(dir.path());
        let (code, out, err) = zue(&["verify"], dir.path());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("sound: records 0 to 300, epoch 3, "), "{out}");
        let (code, out, _) = zue(&["verify", "-o", "json"], dir.path());
        let found = json(&out);
        assert_eq!((code, found.len(), &found[0]["sound"], &found[0]["log_end"]), (0, 1, &true.into(), &300.into()));
        let (code, out, _) = zue(&["dump", "-o", "json"], dir.path());
        let records = json(&out).into_iter().filter(|one| one["kind"] == "record").count();
        assert_eq!((code, records), (0, 300));
        assert_eq!(zue(&["repair", "--dry-run"], dir.path()).0, 0);
        assert_eq!(state(dir.path()), before, "looking has changed something");
    }
}

type Harm = fn(&Path);

/// Damage to a log, and the words about it: the file and what else is named.
const DAMAGES: [(Harm, &str, &str); 7] = [
    (|dir| change(&segments(dir)[0], |bytes| bytes[20_000] ^= 4), FIRST, " are in doubt: CRC"),
    (|dir| change(&segments(dir)[0], |bytes| bytes[130] ^= 1), FIRST, "damaged at byte 128"),
    (|dir| change(&segments(dir)[0], |bytes| bytes[3] ^= 1), FIRST, "its first bytes are not those of such a file"),
    (|dir| change(&segments(dir)[0], |bytes| bytes.truncate(30_000)), FIRST, " are in doubt: "),
    (|dir| fs::remove_file(&segments(dir)[1]).unwrap(), ".log", "that is not there"),
    (|dir| change(&dir.join("meta"), |bytes| bytes[100] ^= 1), "meta", "its CRC does not match"),
    (|dir| fs::remove_file(dir.join("meta")).unwrap(), FIRST, "but no meta file"),
];

#[test]
fn the_first_damage_is_named_with_its_file_and_place() {
    let _alone = alone();
    for (harm, file, what) in DAMAGES {
        let dir = data(true);
        harm(dir.path());
        let before = state(dir.path());
        let (code, out, err) = zue(&["verify"], dir.path());
        let first = out.lines().next().unwrap();
        assert_eq!((code, err.as_str()), (1, ""), "{out}");
        assert!(first.contains(file) && first.contains(what), "{first}\nlacks {what}");
        let (code, out, _) = zue(&["verify", "-o", "json"], dir.path());
        let found = json(&out);
        assert_eq!(code, 1);
        assert!(found[0]["what"].as_str().unwrap().contains(what), "{out}");
        assert_eq!(state(dir.path()), before, "looking has changed something");
    }
}

/// As a power failure leaves them, or compaction: they are derived.
#[test]
fn an_index_that_will_be_rebuilt_is_no_damage() {
    type Harm = fn(&mut Vec<u8>);
    let _alone = alone();
    let index = |dir: &Path| dir.join(FIRST).with_extension("index");
    let harms: [(Harm, &str); 4] = [
        (|bytes| bytes[70] ^= 1, "damaged at byte 64"),
        (|bytes| bytes.truncate(70), "damaged at byte 64"),
        (|bytes| bytes.fill(0), "damaged at byte 0"),
        (Vec::clear, "it is not there, or empty"),
    ];
    for (harm, what) in harms {
        let dir = data(true);
        change(&index(dir.path()), harm);
        let before = state(dir.path());
        let (code, out, err) = zue(&["verify"], dir.path());
        let named = format!("0.index: {what}; it holds nothing of its own and will be rebuilt\nsound: ");
        assert!(code == 0 && err.is_empty() && out.contains(&named), "{code} {out}");
        let (code, out, _) = zue(&["verify", "-o", "json"], dir.path());
        let found = json(&out);
        assert_eq!((code, found.len(), &found[0]["sound"]), (0, 1, &true.into()));
        assert_eq!(found[0]["indexes"][0], index(dir.path()).to_str().unwrap());
        assert_eq!(state(dir.path()), before, "looking has changed something");
    }
}

/// An entry that is whole and names a place where its record is not: a log would believe it.
#[test]
fn an_index_that_is_not_true_is_damage_until_it_is_made_again() {
    let _alone = alone();
    let dir = data(true);
    let index = dir.path().join(FIRST).with_extension("index");
    let good = fs::read(&index).unwrap();
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    };
    change(&index, |bytes| {
        let mask = crc(&bytes[32..56]) ^ u32::from_le_bytes(bytes[56..60].try_into().unwrap());
        bytes[40] += 1;
        let crc = crc(&bytes[32..56]) ^ mask;
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
    });
    let (code, out, _) = zue(&["verify"], dir.path());
    assert!(code == 1 && out.contains("is where it is not; `zue log repair` makes it again\ndamaged: "), "{out}");
    let (code, out, _) = zue(&["repair"], dir.path());
    assert_eq!((code, out.as_str()), (0, "made again 00000000000000000000.index\n"));
    assert_eq!(fs::read(&index).unwrap(), good);
    assert_eq!(zue(&["verify"], dir.path()).0, 0);
}

#[test]
fn a_torn_tail_is_cut_by_a_repair_and_by_nothing_before() {
    let _alone = alone();
    let dir = data(false);
    let mut log = open(dir.path());
    append(&mut log, 1);
    drop(log);
    let last = segments(dir.path()).pop().unwrap();
    let end = fs::read(&last).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    change(&last, |bytes| bytes[end - 300..].fill(0));
    fs::write(dir.path().join("segment.next"), "").unwrap();
    let before = state(dir.path());
    let (code, out, _) = zue(&["verify"], dir.path());
    assert!(code == 0 && out.contains("bytes of a torn tail") && out.contains("sound: records 0 to 300"), "{out}");
    let (code, would, _) = zue(&["repair", "--dry-run"], dir.path());
    assert_eq!(code, 0, "{would}");
    for line in ["would cut ", "would go on in a new 00000000000000000300.log", "would remove segment.next"] {
        assert!(would.contains(line), "{would}");
    }
    assert_eq!(state(dir.path()), before, "a dry run has changed something");
    let (code, did, _) = zue(&["repair"], dir.path());
    assert_eq!(code, 0, "{did}");
    let as_did = would.replace("would cut", "cut").replace("would go on", "went on").replace("would remove", "removed");
    assert_eq!(did, as_did.replace("would make", "made"));
    assert!(!dir.path().join("segment.next").exists());
    assert_eq!(zue(&["repair", "--dry-run"], dir.path()).1, "there is nothing to repair here\n");
    assert_eq!(open(dir.path()).tail().end, Offset(300));
}

#[test]
fn an_index_is_made_again_and_damaged_records_are_left_to_another_replica() {
    let _alone = alone();
    let dir = data(true);
    let index = dir.path().join(FIRST).with_extension("index");
    let good = fs::read(&index).unwrap();
    change(&index, |bytes| bytes[70] ^= 1);
    let (code, out, _) = zue(&["repair"], dir.path());
    assert_eq!((code, out.as_str()), (0, "made again 00000000000000000000.index\n"));
    assert_eq!(fs::read(&index).unwrap(), good);
    change(&segments(dir.path())[0], |bytes| bytes[20_000] ^= 4);
    let damaged = fs::read(dir.path().join(FIRST)).unwrap();
    for args in [&["repair", "--dry-run"][..], &["repair"]] {
        let (code, out, _) = zue(args, dir.path());
        assert!(code == 1 && out.contains(" are in doubt: CRC"), "{out}");
        assert!(out.contains("only another replica has them"), "{out}");
    }
    assert_eq!(fs::read(dir.path().join(FIRST)).unwrap(), damaged, "damage is never cut away");
    fs::remove_file(dir.path().join("meta")).unwrap();
    let before = state(dir.path());
    let (code, out, _) = zue(&["repair"], dir.path());
    assert!(code == 1 && out.starts_with("nothing can be repaired: ") && out.contains("copies the log"), "{out}");
    assert_eq!(state(dir.path()), before);
}

#[test]
fn a_directory_that_is_none_or_in_use_is_refused_with_the_remedy() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let check = |dir: &Path, what: &str| {
        for args in [&["verify"][..], &["dump"], &["repair"], &["repair", "--dry-run"]] {
            let (code, out, err) = zue(args, dir);
            assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
            assert!(err.contains(what) && err.contains(dir.to_str().unwrap()), "{args:?}: {err}");
        }
    };
    check(dir.path(), "holds no log: name a node's data directory");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    check(&dir.path().join("none"), "No such file or directory");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    check(&file, "Not a directory");
    let dir = data(true);
    let log = open(dir.path());
    let before = state(dir.path());
    let own = format!("is held by another process ({}, ", std::process::id());
    check(dir.path(), &own);
    check(dir.path(), "): stop the node");
    assert_eq!(state(dir.path()), before);
    drop(log);
    // Something that cannot be read is not called damaged.
    let meta = dir.path().join("meta");
    fs::remove_file(&meta).unwrap();
    fs::create_dir(&meta).unwrap();
    let (code, _, err) = zue(&["verify"], dir.path());
    assert!(code == 2 && err.contains("meta"), "{code} {err}");
}

#[test]
fn a_dump_shows_frames_from_an_offset_on_as_many_as_asked_for() {
    let _alone = alone();
    let dir = data(true);
    let (code, out, _) = zue(&["dump", "--from", "150", "--max", "2"], dir.path());
    assert_eq!(code, 0);
    let records: Vec<&str> = out.lines().filter(|line| line.contains("\trecord\t")).collect();
    assert_eq!(records.len(), 2, "{out}");
    assert!(records[0].contains("\trecord\t150, epoch 3, 1700000000000 ms\tkey\tvalue 150 x"), "{}", records[0]);
    assert!(records[0].ends_with("\tname=header"));
    let (_, out, _) = zue(&["dump", "--max", "1", "-o", "json"], dir.path());
    let shown = json(&out);
    let kinds: Vec<&str> = shown.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["meta", "segment", "snapshot", "epoch-start", "record"]);
    assert_eq!((&shown[3]["epoch"], &shown[4]["offset"]), (&3.into(), &0.into()));
    change(&segments(dir.path())[0], |bytes| bytes[20_000] ^= 4);
    let (code, out, _) = zue(&["dump"], dir.path());
    assert!(code == 1 && out.contains("\tbad\t") && out.contains("\trecord\t21, "), "exit code {code}");
    // Nobody reads on.
    let mut child = Command::new(env!("CARGO_BIN_EXE_zue"))
        .args(["log", "dump"])
        .arg(dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_dump_shows_where_the_log_starts_and_how_often_a_segment_was_written_anew() {
    let _alone = alone();
    let dir = data(true);
    let compaction = Some(CompactionConfig::default());
    let config = LogConfig { segment_bytes_max: 64 << 10, compaction, ..LogConfig::default() };
    let (mut log, _) = Log::open(OsDisk::new(dir.path()).unwrap(), config, ReplicaId(7)).unwrap();
    let mut round = log.compaction(Aged::unknown()).unwrap();
    loop {
        match round.step(1 << 20).unwrap() {
            Compacting::Bytes(_) => {}
            Compacting::Segment(segment) => assert!(log.rewritten(*segment).unwrap()),
            Compacting::Done => break,
        }
    }
    log.compacted(round, true).unwrap();
    log.trim(Offset(100)).unwrap();
    log.close().unwrap();
    let (code, out, _) = zue(&["dump", "-o", "json"], dir.path());
    let shown = json(&out);
    assert_eq!((code, &shown[0]["log_start"]), (0, &100.into()));
    let generations: Vec<_> =
        shown.iter().filter(|one| one["kind"] == "segment").map(|one| one["generation"].as_u64().unwrap()).collect();
    let (active, sealed) = generations.split_last().unwrap();
    assert!(*active == 0 && !sealed.is_empty() && sealed.iter().all(|generation| *generation == 1), "{generations:?}");
    let (_, out, _) = zue(&["dump"], dir.path());
    assert!(out.contains(", log start 100, ") && out.contains(", generation 1, ") && out.contains(", generation 0, "));
}

#[test]
fn a_log_is_detached_only_from_the_cluster_that_is_named_and_says_before_what_that_means() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let id = |n: u128| format!("{n:032x}");
    let mut log = open(dir.path());
    let (voters, leader) = (vec![ReplicaId(7), ReplicaId(8), ReplicaId(9)], ReplicaId(8));
    let start = EpochStart { epoch: Epoch(3), start: Offset(0), leader, voters, quorum: 2, old_voters: None };
    log.set_promise(start.epoch, Some(leader), Some(zue_core::ClusterId(5))).unwrap();
    log.append(&Batch::epoch_start(Epoch(0), start).unwrap()).unwrap();
    append(&mut log, 20);
    log.note_commit(Offset(12));
    log.close().unwrap();
    fs::write(dir.path().join("standby.yaml"), "home: somewhere\n").unwrap();

    let before = state(dir.path());
    let (code, out, err) = zue(&["detach"], dir.path());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(state(dir.path()), before, "asking has changed something");
    for said in [&id(5), &id(7), "records before 20, of which those before 12", "must never run again"] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let (other, this, replica) = (id(6), id(5), id(7));
    let wrong = [
        (vec!["--cluster", &other], "is of cluster 00000000000000000000000000000005"),
        (vec!["--cluster", &this, "--replica", &other], "is of replica 00000000000000000000000000000007"),
    ];
    for (args, said) in wrong {
        let (code, out, _) = zue(&[&["detach"], &args[..]].concat(), dir.path());
        assert!(code == 1 && out.contains(said), "{code} {out}");
        let (code, out, _) = zue(&[&["detach", "--once"], &args[..]].concat(), dir.path());
        assert!(code == 0 && out.contains("nothing detached"), "{code} {out}");
    }
    let meta = *open(dir.path()).meta();
    assert_eq!((meta.replica, meta.cluster), (ReplicaId(7), Some(zue_core::ClusterId(5))));
    assert!(dir.path().join("standby.yaml").exists());

    let once = ["detach", "--once", "--cluster", &this, "--replica", &replica];
    let (code, out, err) = zue(&once, dir.path());
    assert!(code == 0 && out.contains("which ends at 20, is of no cluster any more"), "{code} {out} {err}");
    assert!(!dir.path().join("standby.yaml").exists(), "its node would ask those of the old cluster");
    let log = open(dir.path());
    let meta = *log.meta();
    assert!(meta.replica != ReplicaId(7) && meta.cluster.is_none(), "{meta:?}");
    assert_eq!((log.tail().end, meta.commit_end), (Offset(20), Offset(20)));
    let new = meta.replica;
    drop(log);
    // Whoever says so again is not obeyed again; and where there is no log there is nothing to be done.
    let (code, out, _) = zue(&once, dir.path());
    assert!(code == 0 && out.contains("the log is of no cluster"), "{code} {out}");
    assert_eq!(open(dir.path()).meta().replica, new);
    let blank = tempfile::tempdir().unwrap();
    assert_eq!(zue(&once, blank.path()).0, 0);
    assert_eq!(zue(&["detach", "--cluster", &this], blank.path()).0, 2);
}
