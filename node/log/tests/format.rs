//! The format byte by byte, so that it cannot change unnoticed; and what a peer may send.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::fmt::Write;

use bytes::Bytes;
use common::{SMALL, batch, fresh, start, start_epoch};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zue_core::{Epoch, Offset, ReplicaId, Run, Tail};
use zue_log::{Batch, BatchBuilder, Bounded, Fault, Limits, Producer, ProducerRun, record_bytes};

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let space = if at > 0 && at % 8 == 0 { " " } else { "" };
        write!(out, "{space}{byte:02x}").unwrap();
    }
    out
}

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

fn two_records() -> Batch {
    let mut builder = BatchBuilder::new(tail(3, 7), 0x0102, Limits::default());
    let producer = |sequence| Some(Producer { id: 0xaabb, sequence });
    builder.push(Some(b"k"), b"value", [("n", b"hv".as_slice())], producer(4)).unwrap();
    builder.push(None, b"", [], producer(5)).unwrap();
    builder.finish().unwrap()
}

fn changed_voters() -> zue_core::EpochStart {
    zue_core::EpochStart { old_voters: Some(vec![ReplicaId(1)]), ..start(4, 9) }
}

#[test]
fn a_record_is_these_bytes() {
    assert_eq!(hex(two_records().bytes()), RECORDS);
}

#[test]
fn an_epoch_start_is_these_bytes() {
    assert_eq!(hex(Batch::epoch_start(Epoch(3), changed_voters()).unwrap().bytes()), EPOCH_START);
}

#[test]
fn a_segment_begins_with_these_bytes() {
    let (disk, mut log) = fresh(7);
    start_epoch(&mut log, 1);
    log.append(&batch(log.tail(), &["x"])).unwrap();
    log.cut(Tail { epoch: Epoch(1), end: Offset(0) }).unwrap();
    let bytes = disk.content("00000000000000000000.log").unwrap();
    assert_eq!(u64::try_from(bytes.len()).unwrap(), SMALL.segment_bytes_max);
    assert_eq!(hex(&bytes[..128 + 176]), SEGMENT);
}

#[test]
fn an_index_is_these_bytes() {
    let (disk, mut log) = fresh(7);
    common::fill(&mut log, 12, 200);
    log.close().unwrap();
    assert_eq!(hex(&disk.content("00000000000000000000.index").unwrap()), INDEX);
}

#[test]
fn a_sync_is_marked_by_these_bytes() {
    let (disk, mut log) = fresh(7);
    start_epoch(&mut log, 3);
    log.sync().unwrap();
    log.append(&batch(log.tail(), &["x"])).unwrap();
    // Behind the snapshot of 56 bytes and the epoch start of 108.
    assert_eq!(hex(&disk.content("00000000000000000000.log").unwrap()[292..][..40]), SYNC_MARK);
}

#[test]
fn a_meta_file_is_these_bytes() {
    let (disk, mut log) = fresh(7);
    common::fill(&mut log, 2, 10);
    log.sync().unwrap();
    log.note_commit(Offset(1));
    log.set_promise(Epoch(5), Some(ReplicaId(2)), Some(zue_core::ClusterId(6))).unwrap();
    log.set_runs(&[(ReplicaId(3), Run { starts: 4, nonce: 5 })].into_iter().collect()).unwrap();
    log.close().unwrap();
    let bytes = disk.content("meta").unwrap();
    assert_eq!(hex(&bytes[..320]), META);
    assert!(bytes.len() == 1024 && bytes[320..1020].iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_built_is_what_is_decoded() {
    for batch in
        [two_records(), batch(tail(0, 0), &["a", "b", ""]), Batch::epoch_start(Epoch(3), changed_voters()).unwrap()]
    {
        let decoded = Batch::decode(batch.bytes().clone(), batch.prev(), &Limits::default()).unwrap();
        assert_eq!(decoded, batch);
    }
    let run = ProducerRun { id: 0xaabb, sequence: 4, base: Offset(7), count: 2 };
    assert_eq!(two_records().producers(), [run]);
}

#[test]
fn appends_and_epoch_starts_travel_together() {
    let first = two_records();
    let epoch = Batch::epoch_start(Epoch(3), changed_voters()).unwrap();
    let last = {
        let mut builder = BatchBuilder::new(epoch.tail(), 0x0103, Limits::default());
        builder.push(None, b"z", [], None).unwrap();
        builder.finish().unwrap()
    };
    let bytes: Bytes = [first.bytes().clone(), epoch.bytes().clone(), last.bytes().clone()].concat().into();
    let all = Batch::decode(bytes, first.prev(), &Limits::default()).unwrap();
    assert_eq!((all.prev(), all.tail(), all.record_count()), (tail(3, 7), tail(4, 10), 3));
    assert_eq!((all.epoch_starts(), all.timestamps_ms()), ([changed_voters()].as_slice(), Some((0x0102, 0x0103))));
}

/// The fault that decoding these bytes after the tail finds, and where.
fn fault(bytes: &[u8], prev: Tail) -> (u64, Fault) {
    let error = Batch::decode(Bytes::copy_from_slice(bytes), prev, &Limits::default()).unwrap_err();
    (error.position, error.fault)
}

#[test]
fn what_does_not_follow_is_refused() {
    let records = two_records();
    let second = 79;
    let epoch = Batch::epoch_start(Epoch(3), changed_voters()).unwrap();
    assert_eq!(fault(records.bytes(), tail(3, 8)), (0, Fault::Offset { expected: Offset(8), found: Offset(7) }));
    assert_eq!(fault(records.bytes(), tail(2, 7)), (0, Fault::Epoch { expected: Epoch(2), found: Epoch(3) }));
    assert_eq!(fault(&[], tail(0, 0)), (0, Fault::Empty));
    let (position, found) = fault(&records.bytes()[..records.bytes().len() - 1], tail(3, 7));
    assert!(position > 0 && matches!(found, Fault::Truncated { .. }), "{position} {found}");
    let first_only = &records.bytes()[..usize::try_from(position).unwrap()];
    assert_eq!(position, second);
    assert_eq!(fault(first_only, tail(3, 7)), (0, Fault::Unfinished(Offset(7))));
    let inside = [first_only, epoch.bytes()].concat();
    assert!(matches!(fault(&inside, tail(3, 7)), (79, Fault::EpochStart { .. })));
    assert!(matches!(fault(epoch.bytes(), tail(4, 9)), (0, Fault::EpochStart { .. })));
    assert!(matches!(fault(epoch.bytes(), tail(3, 8)), (0, Fault::EpochStart { .. })));
    let earlier = BatchBuilder::new(records.tail(), 0x0101, Limits::default());
    let earlier = one_more(earlier, None);
    let fell = [records.bytes().clone(), earlier.bytes().clone()].concat();
    assert!(matches!(fault(&fell, tail(3, 7)).1, Fault::Timestamp { previous: 0x0102, found: 0x0101 }));
}

fn one_more(mut builder: BatchBuilder, producer: Option<Producer>) -> Batch {
    builder.push(None, b"", [], producer).unwrap();
    builder.finish().unwrap()
}

#[test]
fn a_snapshot_is_not_taken_from_a_peer() {
    let (disk, log) = fresh(7);
    drop(log);
    let bytes = disk.content("00000000000000000000.log").unwrap();
    let mut frame = bytes[128..128 + 56].to_vec();
    let crc = crc32fast::hash(&frame[4..]).to_le_bytes();
    frame[..4].copy_from_slice(&crc);
    assert_eq!(fault(&frame, tail(0, 0)), (0, Fault::Kind(3)));
}

#[test]
fn one_append_has_one_producer_in_sequence() {
    let producer = |id, sequence| Some(Producer { id, sequence });
    for second in [None, producer(1, 1), producer(1, 3), producer(2, 2)] {
        let mut builder = BatchBuilder::new(tail(1, 0), 0, Limits::default());
        builder.push(None, b"", [], producer(1, 1)).unwrap();
        assert_eq!(builder.push(None, b"", [], second), Err(Fault::Producer(Offset(1))));
        builder.push(None, b"", [], producer(1, 2)).unwrap();
        assert_eq!(builder.finish().unwrap().producers()[0].count, 2);
    }
}

/// The limit that is exceeded by so many records of that key, that length of value and those headers.
type Case<'a> = (Bounded, usize, Option<&'a [u8]>, usize, Vec<(&'a str, &'a [u8])>);

#[test]
fn every_limit_is_kept_by_builder_and_decoder() {
    let tight = Limits {
        record_bytes_max: 100,
        key_bytes_max: 10,
        headers_max: 1,
        header_name_bytes_max: 4,
        header_value_bytes_max: 8,
        append_records_max: 2,
        batch_bytes_max: 400,
    };
    let long = [b'x'; 200];
    let header = ("name", &long[..8]);
    let cases: [Case<'_>; 7] = [
        (Bounded::KeyBytes, 1, Some(&long[..11]), 0, vec![]),
        (Bounded::RecordBytes, 1, Some(&long[..10]), 91, vec![]),
        (Bounded::RecordBytes, 1, None, 90, vec![header]),
        (Bounded::Headers, 1, None, 0, vec![header, header]),
        (Bounded::HeaderNameBytes, 1, None, 0, vec![("names", &long[..8])]),
        (Bounded::HeaderValueBytes, 1, None, 0, vec![("name", &long[..9])]),
        (Bounded::AppendRecords, 3, None, 0, vec![]),
    ];
    for (bounded, records, key, value, headers) in cases {
        let build = |limits| {
            let mut builder = BatchBuilder::new(tail(1, 0), 0, limits);
            let pushed = (0..records).try_for_each(|_| builder.push(key, &long[..value], headers.clone(), None));
            pushed.map(|()| builder.finish().unwrap())
        };
        let is_limit = |fault: Fault| matches!(fault, Fault::Limit(limit) if limit.what == bounded);
        assert!(is_limit(build(tight).unwrap_err()), "{bounded} when built");
        let loose = build(Limits::default()).unwrap();
        let error = Batch::decode(loose.bytes().clone(), loose.prev(), &tight).unwrap_err();
        assert!(is_limit(error.fault), "{bounded} when decoded: {error}");
    }
}

#[test]
fn a_quorum_is_more_than_half_of_the_voters_and_not_more_than_all() {
    for (voters, quorum, good) in
        [(0, 0, false), (1, 1, true), (3, 1, false), (3, 2, true), (3, 4, false), (65, 33, false)]
    {
        let voters = (0..voters).map(ReplicaId).collect();
        let start = zue_core::EpochStart { voters, quorum, ..start(1, 0) };
        assert_eq!(Batch::epoch_start(Epoch(0), start).is_ok(), good);
    }
}

proptest! {
    #[test]
    fn a_record_is_as_long_and_as_refused_as_is_said_before_it_is_encoded(
        records in vec((option::of(vec(any::<u8>(), 0..12)), vec(any::<u8>(), 0..60), vec(("[a-z]{0,5}", vec(any::<u8>(), 0..10)), 0..4)), 0..20),
        has_producer in any::<bool>(),
    ) {
        let limits = Limits {
            record_bytes_max: 70,
            key_bytes_max: 10,
            headers_max: 2,
            header_name_bytes_max: 4,
            header_value_bytes_max: 8,
            ..Limits::default()
        };
        let mut builder = BatchBuilder::new(tail(1, 0), 0, limits);
        let (mut bytes, mut sequence) = (0, 0);
        for (key, value, headers) in &records {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            let said = record_bytes(key.as_deref(), value, headers.clone(), has_producer, &limits);
            let producer = has_producer.then_some(Producer { id: 7, sequence });
            let pushed = builder.push(key.as_deref(), value, headers, producer);
            prop_assert_eq!(pushed, said.map(|_| ()).map_err(Fault::Limit));
            bytes += said.unwrap_or(0);
            sequence += u64::from(said.is_ok());
        }
        match builder.finish() {
            Ok(batch) => prop_assert_eq!(batch.bytes().len(), bytes),
            Err(fault) => prop_assert_eq!((fault, bytes), (Fault::Empty, 0)),
        }
    }

    #[test]
    fn no_bytes_make_decode_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Batch::decode(bytes.into(), Tail::default(), &Limits::default());
    }

    #[test]
    fn no_well_summed_bytes_make_decode_panic(
        kind in 0_u8..5, flags in 0_u8..9, counts in any::<[u8; 6]>(), body in proptest::collection::vec(0_u8..4, 0..200)
    ) {
        let mut frame = vec![0; 8];
        frame.extend([kind, flags]);
        frame.extend(counts.map(|byte| byte & 3));
        frame.extend(body);
        let length = u32::try_from(frame.len() - 8).unwrap().to_le_bytes();
        frame[4..8].copy_from_slice(&length);
        let crc = crc32fast::hash(&frame[4..]).to_le_bytes();
        frame[..4].copy_from_slice(&crc);
        let _ = Batch::decode(frame.into(), Tail::default(), &Limits::default());
    }

    #[test]
    fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), change in 1_u8..) {
        let batch = two_records();
        let mut bytes = batch.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(Batch::decode(bytes.into(), batch.prev(), &Limits::default()).is_err());
    }
}

const RECORDS: &str = "\
    be7f9d3847000000 0107010001000000 0700000000000000 0300000000000000 0201000000000000 bbaa000000000000 \
    0000000000000000 0400000000000000 6b01006e02000000 687676616c7565ea 390d9c3800000001 0400000000000008 \
    0000000000000003 0000000000000002 01000000000000bb aa00000000000000 0000000000000005 00000000000000";
const EPOCH_START: &str = "\
    e201885f74000000 0201000000000000 0400000000000000 0900000000000000 0100000000000000 0000000000000000 \
    0200000003000000 0100000001000000 0000000000000000 0000000002000000 0000000000000000 0000000003000000 \
    0000000000000000 0000000001000000 0000000000000000 00000000";
const SEGMENT: &str = "\
    5a55452d5345470a 0100000000000000 022ab1ba804098e6 0200000000000000 0000000000000000 0000000000000000 \
    0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 \
    0000000000000000 0000000000000000 0000000000000000 00000000ed30d2bd 010a35cd9c000000 0300000000000000 \
    0000000000000000 0000000000000000 0100000010000000 9048ad0164000000 0200000000000000 0100000000000000 \
    0000000000000000 0100000000000000 0000000000000000 0200000003000000 0000000001000000 0000000000000000 \
    0000000002000000 0000000000000000 0000000003000000 0000000000000000 0000000001000000 0000000000000000 \
    0000000000000000 0000000000000000";
const INDEX: &str = "\
    5a55452d4944580a 0100000000000000 d70d3259e4e1cb63 7c3320ba00000000 0500000000000000 9f05000000000000 \
    ed03000000000000 9dfd915f00000000 0a00000000000000 860a000000000000 f203000000000000 0e26cb7600000000";
const SYNC_MARK: &str = "9cbd87ec20000000 0500000000000000 2401000000000000 0300000000000000 0000000000000000";
const META: &str = "\
    5a55452d4d45540a 0100000007000000 1d00000000000000 0000000000000000 0600000000000000 0000000000000000 \
    0200000000000000 0000000000000000 0000000000000000 0000000000000000 0100000000000000 0500000000000000 \
    0100000000000000 0100000000000000 0000000000000000 0200000000000000 0000000000000000 0000000000000000 \
    0000000000000000 0000000000000000 1c663cf4d73c4c04 0000000000000000 0000000000000000 0000000000000000 \
    0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 \
    0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 \
    0300000000000000 0000000000000000 0400000000000000 0500000000000000";
