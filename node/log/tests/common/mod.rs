//! Parts that the tests of the log share: small logs on a simulated disk, and what they hold as plain values.
#![allow(dead_code, reason = "each test uses a part")]

use zue_core::{Epoch, EpochStart, Offset, ProducerLimits, ReplicaId, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Batch, BatchBuilder, Disk, Limits, Log, LogConfig, OpenError, Producer, Reader, Recovered};

pub(crate) const ID: ReplicaId = ReplicaId(0x1d);

/// Small segments, so that a handful of records of a few KiB rolls.
pub(crate) const SMALL: LogConfig = LogConfig {
    segment_bytes_max: 32 << 10,
    index_interval_bytes: 1024,
    durability: zue_log::Durability::Sync,
    compaction: None,
    producers: ProducerLimits { producers_max: 4, appends_max: 3, all_appends_max: 8 },
};

pub(crate) type SimLog = Log<SimDisk>;

pub(crate) fn open(disk: &SimDisk) -> (SimLog, Recovered) {
    try_open(disk).unwrap()
}

pub(crate) fn try_open(disk: &SimDisk) -> Result<(SimLog, Recovered), OpenError> {
    Log::open(disk.clone(), SMALL, ID)
}

/// A new log on a new disk.
pub(crate) fn fresh(seed: u64) -> (SimDisk, SimLog) {
    let disk = SimDisk::new(seed);
    let (log, recovered) = open(&disk);
    assert!(recovered.initialised);
    (disk, log)
}

pub(crate) fn start(epoch: u64, at: u64) -> EpochStart {
    EpochStart {
        epoch: Epoch(epoch),
        start: Offset(at),
        leader: ReplicaId(1),
        voters: vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)],
        quorum: 2,
        old_voters: None,
    }
}

/// One append of the given values.
pub(crate) fn batch<V: AsRef<[u8]>>(prev: Tail, values: &[V]) -> Batch {
    batch_by(prev, values, None)
}

/// One append of the given values by a producer.
pub(crate) fn batch_by<V: AsRef<[u8]>>(prev: Tail, values: &[V], producer: Option<Producer>) -> Batch {
    let mut builder = BatchBuilder::new(prev, 1000 + prev.end.0, Limits::default());
    for (value, n) in values.iter().zip(0..) {
        let producer = producer.map(|first| Producer { sequence: first.sequence + n, ..first });
        builder.push(Some(b"key"), value.as_ref(), [("h", b"1".as_slice())], producer).unwrap();
    }
    builder.finish().unwrap()
}

pub(crate) fn append<D: Disk, V: AsRef<[u8]>>(log: &mut Log<D>, values: &[V]) -> Tail {
    let batch = batch(log.tail(), values);
    log.append(&batch).unwrap()
}

/// `count` appends of one record of about `bytes` each, all different.
pub(crate) fn fill<D: Disk>(log: &mut Log<D>, count: u64, bytes: usize) {
    for _ in 0..count {
        let mut value = format!("{} ", log.tail()).into_bytes();
        value.resize(bytes, b'.');
        append(log, &[value]);
    }
}

pub(crate) fn start_epoch<D: Disk>(log: &mut Log<D>, epoch: u64) {
    let Tail { epoch: last, end } = log.tail();
    // Nobody accepts an epoch that it has not promised.
    if log.meta().promise.epoch < Epoch(epoch) {
        log.set_promise(Epoch(epoch), None, None).unwrap();
    }
    log.append(&Batch::epoch_start(last, start(epoch, end.0)).unwrap()).unwrap();
}

/// Epoch, and value, of every record that is read from `from` on.
pub(crate) fn read_from<D: Disk>(reader: &Reader<D>, from: u64) -> Vec<(u64, Vec<u8>)> {
    let (mut at, mut out) = (Offset(from), Vec::new());
    loop {
        let chunk = reader.read(at, Offset(u64::MAX), 5000).unwrap();
        if chunk.is_empty() {
            return out;
        }
        for record in chunk.records() {
            let record = record.unwrap();
            assert_eq!(record.offset.0, from + u64::try_from(out.len()).unwrap());
            out.push((record.epoch.0, record.value.to_vec()));
        }
        at = chunk.end();
    }
}

pub(crate) fn read_all<D: Disk>(log: &Log<D>) -> Vec<(u64, Vec<u8>)> {
    read_from(&log.reader(), log.log_start().0)
}

pub(crate) fn epochs<D: Disk>(log: &Log<D>) -> Vec<(u64, u64)> {
    log.history().starts().iter().map(|start| (start.epoch.0, start.start.0)).collect()
}

pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list()
        .unwrap()
        .into_iter()
        .filter(|name| std::path::Path::new(name).extension().is_some_and(|extension| extension == "log"))
        .collect()
}
