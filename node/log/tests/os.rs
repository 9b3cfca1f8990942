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
use zue_core::{Offset, Tail};
use zue_log::{Log, OpenError, OsDisk, Recovered};

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
    log.cut(1, Offset(7)).unwrap();
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
            let depth = log.history().starts().iter().filter(|start| start.start.0 <= kept).count();
            log.cut(depth, Offset(kept)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}
