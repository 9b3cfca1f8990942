//! Parts that the tests share: small logs, and an S3 server that can be told to fail.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part")]

pub(crate) mod bucket;

use std::path::Path;

use zue_backup::{Made, Pace, Source, Store};
use zue_core::{ClusterId, Epoch, EpochStart, Offset, ReplicaId, Tail};
use zue_log::{Batch, BatchBuilder, Disk, Limits, Log, LogConfig, OsDisk, Producer, Reader};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const REPLICA: ReplicaId = ReplicaId(0x1d);
pub(crate) const NEW: ReplicaId = ReplicaId(0xe0);

/// Small segments, so that a handful of records rolls.
pub(crate) fn config() -> LogConfig {
    LogConfig { segment_bytes_max: 32 << 10, index_interval_bytes: 1024, ..LogConfig::default() }
}

pub(crate) fn open(dir: &Path) -> Log<OsDisk> {
    let (mut log, found) = Log::open(OsDisk::new(dir).unwrap(), config(), REPLICA).unwrap();
    if found.initialised {
        start_epoch(&mut log, 1);
    }
    log
}

pub(crate) fn start_epoch(log: &mut Log<OsDisk>, epoch: u64) {
    let Tail { epoch: last, end } = log.tail();
    log.set_promise(Epoch(epoch), Some(REPLICA), Some(CLUSTER)).unwrap();
    let (voters, old_voters) = (vec![REPLICA], None);
    let start = EpochStart { epoch: Epoch(epoch), start: end, leader: REPLICA, voters, quorum: 1, old_voters };
    log.append(&Batch::epoch_start(last, start).unwrap()).unwrap();
    log.sync().unwrap();
}

/// The time of record `offset` of these logs.
pub(crate) fn ms(offset: u64) -> u64 {
    1_795_860_000_000 + offset * 10
}

/// `count` appends of two records of about a KiB each, by one of three producers each; all are committed.
pub(crate) fn fill(log: &mut Log<OsDisk>, count: u64) {
    for _ in 0..count {
        let tail = log.tail();
        let mut builder = BatchBuilder::new(tail, ms(tail.end.0), Limits::default());
        let (id, sequence) = (u128::from(tail.end.0 / 2 % 3) + 1, tail.end.0);
        for n in 0..2 {
            let mut value = format!("{} {n} ", tail.end).into_bytes();
            value.resize(1000, b'.');
            builder.push(None, &value, [], Some(Producer { id, sequence: sequence + n })).unwrap();
        }
        log.append(&builder.finish().unwrap()).unwrap();
    }
    log.sync().unwrap();
    log.note_commit(log.tail().end);
}

pub(crate) fn source(log: &Log<OsDisk>, commit_end: u64) -> Source<OsDisk> {
    let (reader, compacted) = (log.reader(), log.meta().compacted());
    Source { reader, cluster: CLUSTER, replica: REPLICA, commit_end: Offset(commit_end), compacted }
}

/// A backup of all that is in the log.
pub(crate) async fn back_up(store: &Store, log: &Log<OsDisk>, now_ms: u64) -> Made {
    let source = source(log, log.tail().end.0);
    let how = (zue_backup::Kind::Continuous, store.backups(CLUSTER).await.unwrap().pop(), now_ms);
    zue_backup::make(store, &source, how, &mut Pace::new(None)).await.unwrap()
}

/// Offset, time and value of every record.
pub(crate) fn records<D: Disk>(reader: &Reader<D>) -> Vec<(u64, u64, Vec<u8>)> {
    let (mut at, mut all) = (reader.log_start(), Vec::new());
    loop {
        let chunk = reader.read(at, Offset(u64::MAX), 1 << 20).unwrap();
        if chunk.is_empty() {
            return all;
        }
        let record = |record: Result<zue_log::RecordView<'_>, _>| {
            let record = record.unwrap();
            (record.offset.0, record.timestamp_ms, record.value.to_vec())
        };
        all.extend(chunk.records().map(record));
        at = chunk.end();
    }
}
