//! The indexes of sealed segments, which are searched in their files: whatever is in those, every record is found.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::io::ErrorKind;

use common::{ID, SMALL, SimLog, fill, fresh, open, read_all, segments};
use zue_core::{Epoch, Offset, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Disk, Log, OsDisk, Reader};

const RECORDS: u64 = 60;
/// The time of the record at an offset, as the log is filled.
const TIME: u64 = 1000;

/// A closed log of several segments, the index of the second, and the records of the second.
fn sealed(seed: u64) -> (SimDisk, String, std::ops::Range<u64>) {
    let (disk, mut log) = fresh(seed);
    fill(&mut log, RECORDS, 1500);
    log.note_commit(Offset(RECORDS));
    log.close().unwrap();
    let bases: Vec<u64> = segments(&disk).iter().map(|name| name[..20].parse().unwrap()).collect();
    assert!(bases.len() >= 3);
    (disk, format!("{:020}.index", bases[1]), bases[1]..bases[2])
}

/// Finds the record by its offset and by its time.
fn find<D: Disk>(reader: &Reader<D>, offset: u64) {
    let chunk = reader.read(Offset(offset), Offset(offset + 1), 0).unwrap();
    let record = chunk.records().next().unwrap().unwrap();
    assert_eq!(record.offset.0, offset);
    assert!(record.value.starts_with(Tail { epoch: Epoch(0), end: Offset(offset) }.to_string().as_bytes()));
    assert_eq!(reader.offset_at(TIME + offset).unwrap().0, offset);
}

fn find_all(log: &SimLog) {
    (0..RECORDS).for_each(|offset| find(&log.reader(), offset));
}

#[test]
fn an_index_of_which_a_byte_is_bad_is_made_again_once_the_byte_is_needed() {
    let (disk, index, _) = sealed(30);
    let good = disk.content(&index).unwrap();
    assert!(good.len() > 32 * 8);
    for byte in 0..good.len() {
        disk.damage(&index, |bytes| bytes[byte] ^= 0x40);
        let (log, _) = open(&disk);
        find_all(&log);
        assert_eq!(log.damaged(), [], "byte {byte}");
        assert_eq!(disk.content(&index).unwrap(), good, "byte {byte}");
        log.close().unwrap();
    }
}

#[test]
fn a_bad_entry_in_the_middle_misleads_no_search() {
    let (disk, index, records) = sealed(31);
    let good = disk.content(&index).unwrap();
    // What leads a search too far to either side, and what a page that was never written shows.
    for filler in [0xff, 0] {
        let entries = good.len() / 32 - 1;
        for entry in 1..entries - 1 {
            let at = 32 + entry * 32;
            disk.damage(&index, |bytes| bytes[at..at + 32].fill(filler));
            let bad = disk.content(&index).unwrap();
            let (log, _) = open(&disk);
            // The last entry says that the index is complete, and the last record needs none far in front of it.
            log.reader().read(Offset(records.end - 1), Offset(records.end), 0).unwrap();
            assert!(filler > 0 || entry + 4 > entries || disk.content(&index).unwrap() == bad, "entry {entry}");
            let word = u64::from_le_bytes(good[at..at + 8].try_into().unwrap());
            find(&log.reader(), word);
            assert_eq!(disk.content(&index).unwrap(), good, "entry {entry}");
            find_all(&log);
            log.close().unwrap();
        }
    }
}

#[test]
fn an_index_that_is_short_or_of_another_segment_is_made_again() {
    let (disk, index, _) = sealed(32);
    let good = disk.content(&index).unwrap();
    let other = disk.content("00000000000000000000.index").unwrap();
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|bytes| good[..bytes].to_vec()).collect();
    bad.push(other.clone());
    // The head is right, the entries are not.
    bad.push([&good[..32], &other[32..]].concat());
    bad.push([good.as_slice(), &[0; 32]].concat());
    bad.push([good.as_slice(), &good[32..64]].concat());
    for bad in bad {
        disk.damage(&index, |bytes| bytes.clone_from(&bad));
        let (log, _) = open(&disk);
        find_all(&log);
        assert_eq!(disk.content(&index).unwrap(), good, "{} bytes", bad.len());
        log.close().unwrap();
    }
    disk.remove(&index).unwrap();
    let (log, _) = open(&disk);
    find_all(&log);
    assert_eq!(disk.content(&index).unwrap(), good);
}

#[test]
fn what_cannot_be_read_of_an_index_is_found_without_it() {
    let (disk, index, _) = sealed(33);
    let good = disk.content(&index).unwrap();
    for page in 0..good.len() / 64 {
        disk.fault(&index, page * 64..(page + 1) * 64);
        let (log, _) = open(&disk);
        find_all(&log);
        assert_eq!((log.damaged(), disk.content(&index).unwrap()), (vec![], good.clone()));
        log.close().unwrap();
    }
}

#[test]
fn an_index_that_can_be_neither_read_nor_written_is_not_missed() {
    let (disk, index, records) = sealed(34);
    // Each call in its turn.
    for call in 0.. {
        disk.damage(&index, |bytes| bytes.truncate(70));
        let (log, _) = open(&disk);
        let reader = log.reader();
        let failing = disk.calls() + call;
        disk.fail_call_at(failing, ErrorKind::Other);
        let read = reader.read(Offset(records.start + 9), Offset(records.start + 10), 0);
        // Only of the segment itself it is told.
        drop(read.map_err(|error| assert!(error.to_string().contains(".log"), "{error}")));
        if disk.calls() <= failing {
            assert!(call > 8, "only {call} calls");
            break;
        }
        find_all(&log);
        log.close().unwrap();
    }
}

#[test]
fn an_index_that_a_cut_has_left_longer_serves_what_is_left() {
    let (disk, index, records) = sealed(35);
    let uncut = disk.content(&index).unwrap();
    // The same, and not committed.
    let (disk, mut log) = fresh(36);
    fill(&mut log, RECORDS, 1500);
    let end = records.start + 7;
    log.cut(Tail { epoch: Epoch(0), end: Offset(end) }).unwrap();
    assert_eq!(disk.content(&index).unwrap().len(), uncut.len());
    let check = |log: &SimLog| {
        (0..end).for_each(|offset| find(&log.reader(), offset));
        assert_eq!((log.reader().offset_at(u64::MAX).unwrap(), log.damaged()), (Offset(end), vec![]));
        assert_eq!(read_all(log).len() as u64, end);
    };
    check(&log);
    log.close().unwrap();
    check(&open(&disk).0);
}

#[test]
fn an_index_is_replaced_and_not_written_over_while_others_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = OsDisk::new(dir.path()).unwrap();
    let path = dir.path().join("index");
    let old = disk.create("index").unwrap();
    zue_log::DiskFile::write_at(&old, 0, b"old").unwrap();
    let view = zue_log::DiskFile::view(&old, 0..3).unwrap();
    let new = disk.create("index").unwrap();
    zue_log::DiskFile::write_at(&new, 0, b"new").unwrap();
    assert_eq!((&*view, std::fs::read(path).unwrap().as_slice()), (b"old".as_slice(), b"new".as_slice()));
}

#[test]
fn an_index_of_which_a_page_is_gone_is_made_again_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Several pages of entries in one segment.
    let config = zue_log::LogConfig { segment_bytes_max: 256 << 10, index_interval_bytes: 256, ..SMALL };
    let open = || Log::open(OsDisk::new(dir.path()).unwrap(), config, ID).unwrap().0;
    let mut log = open();
    fill(&mut log, 1500, 200);
    log.close().unwrap();
    let log = open();
    let reader = log.reader();
    let index = dir.path().join("00000000000000000000.index");
    let good = std::fs::read(&index).unwrap();
    assert!(good.len() > 3 * 4096, "{}", good.len());
    // Maps it, and uses its end only.
    let last = reader.read(Offset(0), Offset(u64::MAX), usize::MAX).unwrap().end().0 - 1;
    find(&reader, last);
    std::fs::File::options().write(true).open(&index).unwrap().set_len(4096).unwrap();
    for offset in (0..last).step_by(7) {
        find(&reader, offset);
    }
    assert_eq!((log.damaged(), std::fs::read(&index).unwrap() == good), (vec![], true));
}
