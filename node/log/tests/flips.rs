//! Every bit of every file of a small log, flipped: it is noticed, or nothing of the log is there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use common::{ID, SMALL, append, batch_by, epochs, read_all, start_epoch};
use zue_core::{Epoch, Offset, Producers, Tail};
use zue_log::sim::SimDisk;
use zue_log::{
    Damage, Disk, IndexFault, Log, LogConfig, OpenError, Overlay, Producer, Promise, Recovered, bad_indexes, repair,
};

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

/// All that a log holds.
#[derive(PartialEq, Debug)]
struct Held {
    records: Vec<(u64, Vec<u8>)>,
    epochs: Vec<(u64, u64)>,
    producers: Producers,
    promise: Promise,
    commit_end: Offset,
    timestamp_ms: u64,
}

/// The finding in a directory that nobody has open.
enum Found {
    /// Something is wrong, and this is said.
    Noticed,
    /// Nothing is said.
    Silent(Box<Held>),
}

fn look(disk: &SimDisk) -> Found {
    let (log, recovered): (_, Recovered) = match repair(Overlay::new(disk.clone())) {
        Err(OpenError::Disk(error)) => panic!("{error}"),
        Err(_) => return Found::Noticed,
        Ok(opened) => opened,
    };
    let mut verifier = log.reader().verifier();
    let damaged: Vec<Damage> =
        std::iter::from_fn(|| verifier.step(500).unwrap()).filter_map(|verified| verified.damage).collect();
    let indexes = bad_indexes(&log, disk).unwrap();
    let bad_index = indexes.iter().any(|index| index.fault != IndexFault::Missing);
    if !damaged.is_empty() || !recovered.damaged.is_empty() || recovered.suspect.is_some() || bad_index {
        return Found::Noticed;
    }
    Found::Silent(Box::new(Held {
        records: read_all(&log),
        epochs: epochs(&log),
        producers: log.producers().clone(),
        promise: log.meta().promise,
        commit_end: log.meta().commit_end,
        timestamp_ms: log.last_timestamp_ms(),
    }))
}

/// A small log in three segments, with bytes in them that a cut has left behind, and left-over files.
fn small() -> SimDisk {
    let disk = SimDisk::new(50);
    let config = LogConfig { index_interval_bytes: 256, ..SMALL };
    let (mut log, _) = Log::open(disk.clone(), config, ID).unwrap();
    start_epoch(&mut log, 1);
    append(&mut log, &["a".repeat(200), "b".repeat(200)]);
    append(&mut log, &["cut away"]);
    log.cut(tail(1, 2)).unwrap();
    log.append(&batch_by(log.tail(), &["c", "d"], Some(Producer { id: 9, sequence: 0 }))).unwrap();
    log.sync().unwrap();
    append(&mut log, &["e"]);
    append(&mut log, &["cut away"]);
    log.cut(tail(1, 5)).unwrap();
    start_epoch(&mut log, 2);
    append(&mut log, &["f", "g"]);
    log.sync().unwrap();
    append(&mut log, &["h"]);
    log.note_commit(Offset(8));
    log.set_promise(Epoch(3), None, None).unwrap();
    log.close().unwrap();
    drop(disk.create("segment.next").unwrap());
    disk
}

/// The position at which the file's frames end: at the last byte that is not zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Up to where a flipped bit of the file must be noticed, and up to where it is looked for.
fn ends(name: &str, bytes: &[u8]) -> (usize, usize) {
    // What a cut has left behind is not the log's.
    let left_behind = "key".len() + "cut away".len() + 40 + 8;
    match name {
        "meta" => (bytes.len(), bytes.len()),
        // The other version of the meta file, and room: nothing that is read.
        "meta.next" | "reserve" => (0, used(bytes)),
        "00000000000000000000.log" | "00000000000000000002.log" => (used(bytes) - left_behind, used(bytes)),
        _ => (used(bytes), used(bytes)),
    }
}

#[test]
fn a_bit_flipped_anywhere_in_any_file_is_noticed_or_does_no_harm() {
    let disk = small();
    let Found::Silent(held) = look(&disk) else { panic!("damage without harm") };
    assert_eq!((held.records.len(), held.epochs.len()), (8, 2));
    let (mut flipped, mut files) = (0, Vec::new());
    for name in disk.list().unwrap() {
        let bytes = disk.content(&name).unwrap();
        let (must, end) = ends(&name, &bytes);
        let beyond = (end..bytes.len()).step_by(4099).filter(|_| !name.ends_with(".index"));
        for byte in (0..end).chain(beyond) {
            for bit in 0..8 {
                let flip = |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << bit;
                disk.damage(&name, flip);
                match look(&disk) {
                    Found::Noticed => {}
                    Found::Silent(_) if byte < must => panic!("bit {bit} of byte {byte} of {name} goes unnoticed"),
                    Found::Silent(now) => assert_eq!(now, held, "bit {bit} of byte {byte} of {name}"),
                }
                disk.damage(&name, flip);
                flipped += 1;
            }
        }
        files.push(name);
    }
    assert_eq!(files.iter().filter(|name| name.ends_with(".log")).count(), 3, "{files:?}");
    assert!(files.iter().any(|name| name.ends_with(".index")) && flipped > 10_000, "{flipped} in {files:?}");
    assert!(matches!(look(&disk), Found::Silent(now) if now == held));
}

#[test]
fn a_file_cut_short_anywhere_is_noticed_or_does_no_harm() {
    let disk = small();
    let Found::Silent(held) = look(&disk) else { panic!("damage without harm") };
    for name in disk.list().unwrap() {
        let bytes = disk.content(&name).unwrap();
        let (must, end) = ends(&name, &bytes);
        for length in (0..end).chain((end..bytes.len()).step_by(4099)) {
            disk.damage(&name, |bytes| bytes.truncate(length));
            match look(&disk) {
                Found::Noticed => {}
                // An index of fewer entries lags, as it does while the log is written.
                Found::Silent(_) if length < must && !name.ends_with(".index") => {
                    panic!("{name} goes unnoticed at {length} bytes")
                }
                Found::Silent(now) => assert_eq!(now, held, "{name} of {length} bytes"),
            }
            disk.damage(&name, |all| all.clone_from(&bytes));
        }
    }
}
