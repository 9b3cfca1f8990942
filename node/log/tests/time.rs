//! From a time to a place in the log, against a plain search over all records.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use common::{SimLog, fresh, open, segments, start_epoch};
use proptest::prelude::*;
use zue_core::{Offset, Tail};
use zue_log::sim::SimDisk;
use zue_log::{BatchBuilder, Disk, Limits, ReadError, Reader};

fn append_at(log: &mut SimLog, timestamp_ms: u64, records: usize, bytes: usize) {
    let mut builder = BatchBuilder::new(log.tail(), timestamp_ms, Limits::default());
    let value = vec![b'.'; bytes];
    for _ in 0..records {
        builder.push(None, &value, [], None).unwrap();
    }
    log.append(&builder.finish().unwrap()).unwrap();
}

/// Offset and time of every record that can be read.
fn readable<D: Disk>(reader: &Reader<D>) -> Vec<(u64, u64)> {
    let (mut at, mut out) = (reader.log_start(), Vec::new());
    loop {
        let chunk = match reader.read(at, Offset(u64::MAX), 20_000) {
            Ok(chunk) if chunk.is_empty() => return out,
            Ok(chunk) => chunk,
            Err(ReadError::Damaged(damage)) => {
                at = damage.to;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        at = chunk.end();
        for record in chunk.records() {
            match record {
                Ok(record) => out.push((record.offset.0, record.timestamp_ms)),
                Err(ReadError::Damaged(damage)) => at = damage.to,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Asks for every time there is, those beside them, and those beyond all.
fn check<D: Disk>(reader: &Reader<D>) {
    let records = readable(reader);
    let times = records.iter().flat_map(|(_, time)| [time.saturating_sub(1), *time, time + 1]);
    for time in times.chain([0, u64::MAX]) {
        let expected = records.iter().find(|(_, at)| *at >= time).map_or(reader.tail().end.0, |(offset, _)| *offset);
        assert_eq!(reader.offset_at(time).unwrap(), Offset(expected), "at {time} in {records:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// So much later than the last one.
    Append {
        later: u64,
        records: usize,
        bytes: usize,
    },
    Epoch,
    /// So many of the last records are cut away.
    Cut {
        records: u64,
    },
    /// All before so many of the last records is trimmed away.
    Trim {
        records: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let later = prop_oneof![3 => Just(0), 3 => 1_u64..4, 1 => 100_u64..1000];
    prop_oneof![
        8 => (later, 1_usize..6, 0_usize..3000)
            .prop_map(|(later, records, bytes)| Step::Append { later, records, bytes }),
        1 => Just(Step::Epoch),
        1 => (1_u64..20).prop_map(|records| Step::Cut { records }),
        1 => (0_u64..30).prop_map(|records| Step::Trim { records }),
        1 => Just(Step::Reopen),
    ]
}

/// A byte behind a segment's header, often one of its snapshot.
fn byte() -> impl Strategy<Value = usize> {
    prop_oneof![128_usize..190, 128_usize..32 << 10]
}

/// A log that has gone through these steps, synced; its first epoch holds all that is cut.
fn after(steps: &[Step]) -> (SimDisk, SimLog) {
    let (disk, mut log) = fresh(1);
    start_epoch(&mut log, 1);
    // Where the log may be cut: a cut inside an append is none.
    let (mut ends, mut epoch) = (vec![0], 1);
    for step in steps {
        match step {
            Step::Append { later, records, bytes } => {
                let time = log.last_timestamp_ms().max(1000) + later;
                append_at(&mut log, time, *records, *bytes);
                ends.push(log.tail().end.0);
            }
            Step::Epoch => {
                epoch += 1;
                start_epoch(&mut log, epoch);
            }
            Step::Cut { records } => {
                let wanted = log.tail().end.0.saturating_sub(*records);
                let Some(end) = ends.iter().copied().rfind(|end| *end <= wanted) else { continue };
                ends.retain(|kept| *kept <= end);
                let begun = log.history().starts().iter().rfind(|start| start.start.0 <= end);
                let to = Tail { epoch: begun.map_or_else(Default::default, |start| start.epoch), end: Offset(end) };
                log.cut(to).unwrap();
                epoch = log.history().last_epoch().0.max(epoch);
            }
            Step::Trim { records } => {
                let before = Offset(log.tail().end.0.saturating_sub(*records).max(log.log_start().0));
                log.note_commit(before);
                log.trim(before).unwrap();
                ends.retain(|end| *end >= before.0);
            }
            Step::Reopen => {
                log.sync().unwrap();
                drop(log);
                log = open(&disk).0;
            }
        }
    }
    log.sync().unwrap();
    (disk, log)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_time_leads_to_the_first_record_that_is_no_older(steps in prop::collection::vec(step(), 1..40)) {
        let (disk, log) = after(&steps);
        check(&log.reader());
        drop(log);
        check(&open(&disk).0.reader());
    }

    #[test]
    fn what_is_damaged_is_passed_over(
        steps in prop::collection::vec(step(), 20..60),
        flips in prop::collection::vec((any::<prop::sample::Index>(), byte(), 0_u32..8), 1..4),
    ) {
        let (disk, log) = after(&steps);
        drop(log);
        // Opened, it has no segments but its own.
        let mut log = open(&disk).0;
        // What is sealed may be damaged; the active segment is looked at when the log is opened.
        while segments(&disk).len() < 3 {
            let time = log.last_timestamp_ms() + 1;
            append_at(&mut log, time, 1, 4000);
        }
        log.sync().unwrap();
        drop(log);
        let names = segments(&disk);
        for (name, byte, bit) in &flips {
            let name = &names[name.index(names.len() - 1)];
            if disk.content(name).unwrap().len() > *byte {
                disk.damage(name, |bytes| bytes[*byte] ^= 1 << bit);
            }
        }
        check(&open(&disk).0.reader());
    }
}

#[test]
fn an_empty_log_ends_where_it_begins() {
    let (_disk, log) = fresh(1);
    assert_eq!(log.tail(), Tail::default());
    assert_eq!(log.reader().offset_at(7).unwrap(), Offset(0));
}
