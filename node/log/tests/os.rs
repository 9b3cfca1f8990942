//! The log on a real file system: memory maps, locks, threads.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{ID, SMALL, append, fill, read_all, start_epoch};
use zue_core::{Epoch, Offset, Tail};
use zue_log::{Log, OpenError, OsDisk, ReadError, Recovered};

fn open(dir: &std::path::Path) -> (Log<OsDisk>, Recovered) {
    Log::open(OsDisk::new(dir).unwrap(), SMALL, ID).unwrap()
}

#[test]
fn a_directory_keeps_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, recovered) = open(dir.path());
    assert!(recovered.initialised);
    start_epoch(&mut log, 1);
    fill(&mut log, 50, 3000);
    let held = read_all(&log);
    drop(log);
    let (mut log, recovered) = open(dir.path());
    assert_eq!((recovered.cut_bytes, read_all(&log) == held), (0, true));
    log.cut(Tail { epoch: Epoch(1), end: Offset(7) }).unwrap();
    append(&mut log, &["new"]);
    log.close().unwrap();
    let (log, _) = open(dir.path());
    assert_eq!((&read_all(&log)[..7], log.tail().end), (&held[..7], Offset(8)));
}

#[test]
fn a_directory_is_held_by_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let second = Log::open(OsDisk::new(dir.path()).unwrap(), SMALL, ID);
    let error = second.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    drop(log);
    open(dir.path());
}

#[test]
fn values_are_shared_with_the_mapped_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, &["shared"]);
    let chunk = log.reader().read(Offset(0), Offset(1), 100).unwrap();
    let value = chunk.records().next().unwrap().unwrap().value;
    let shared = chunk.share(value);
    assert_eq!(shared.as_ptr(), value.as_ptr());
    drop((chunk, log));
    assert_eq!(shared, "shared");
}

#[test]
fn readers_see_whole_appends_while_the_log_rolls_and_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (reader, done) = (log.reader(), &done);
            scope.spawn(move || {
                let (mut at, mut seen) = (Offset(0), 0_u64);
                while !done.load(Ordering::Relaxed) {
                    let tail = reader.tail();
                    assert_eq!(tail.end.0 % 3, 0, "a tail inside an append");
                    // What lies behind the tail seen may have been cut since.
                    let Ok(chunk) = reader.read(at.min(tail.end), Offset(u64::MAX), 10_000) else { continue };
                    assert_eq!(chunk.end().0 % 3, 0, "a chunk that ends inside an append");
                    for record in chunk.records() {
                        let record = record.unwrap();
                        assert!(record.value.starts_with(format!("{} ", record.offset.0 / 3 * 3).as_bytes()));
                        seen += 1;
                    }
                    at = if chunk.is_empty() { Offset(0) } else { chunk.end() };
                }
                assert!(seen > 0);
            });
        }
        for round in 0..20_u64 {
            start_epoch(&mut log, round + 1);
            for _ in 0..40 {
                let value = format!("{} {}", log.tail().end, "x".repeat(500));
                append(&mut log, &[&value, &value, &value]);
            }
            let Tail { end, .. } = log.tail();
            let kept = end.0 / 6 * 3;
            let epoch = log.history().starts().iter().rfind(|start| start.start.0 <= kept).unwrap().epoch;
            log.cut(Tail { epoch, end: Offset(kept) }).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_of_the_disk_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    fill(&mut log, 40, 3000);
    log.note_commit(Offset(40));
    let held = read_all(&log);
    log.close().unwrap();
    let (log, _) = open(dir.path());
    let reader = log.reader();
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.to_str().unwrap().ends_with(".log"));
    names.sort();
    assert!(names.len() >= 3);
    let base: u64 = names[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    // Maps the file, and shows what is there while it can be read.
    assert_eq!(common::read_from(&reader, 0), held);
    let whole = std::fs::read(&names[1]).unwrap();
    let file = std::fs::File::options().write(true).open(&names[1]).unwrap();
    file.set_len(8192).unwrap();
    let chunk = |offset: u64| reader.read(Offset(offset), Offset(offset + 1), 0);
    let first =
        |offset| chunk(offset).and_then(|chunk| chunk.records().next().unwrap().map(|record| record.value.to_vec()));
    // The first of the segment is there, a later one is not; neither is it called damaged.
    assert_eq!(first(base).unwrap(), held[usize::try_from(base).unwrap()].1);
    for _ in 0..2 {
        let error = first(base + 5).unwrap_err();
        assert!(matches!(error, ReadError::Disk(_)), "{error}");
        let error = reader.read_frames(Tail { epoch: Epoch(0), end: Offset(base + 5) }, log.tail(), 0).unwrap_err();
        assert!(matches!(error, ReadError::Disk(_)), "{error}");
    }
    assert_eq!(log.damaged(), []);
    // Other segments are read as before, and so is this one once it can be.
    let before = usize::try_from(base).unwrap();
    assert_eq!((0..base).map(|offset| first(offset).unwrap()).collect::<Vec<_>>().len(), before);
    file.set_len(u64::try_from(whole.len()).unwrap()).unwrap();
    std::fs::write(&names[1], &whole).unwrap();
    assert_eq!(common::read_from(&reader, 0), held);
    assert_eq!(log.damaged(), []);
}

#[test]
fn a_verifier_tells_what_cannot_be_read_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    fill(&mut log, 40, 3000);
    let first = dir.path().join("00000000000000000000.log");
    std::fs::File::options().write(true).open(&first).unwrap().set_len(8192).unwrap();
    let (mut verifier, mut errors) = (log.reader().verifier(), Vec::new());
    loop {
        match verifier.step(1 << 20) {
            Ok(None) => break,
            Ok(Some(step)) => assert_eq!(step.damage, None),
            Err(error) => errors.push(error),
        }
    }
    assert!(matches!(&errors[..], [ReadError::Disk(_)]), "{errors:?}");
}
