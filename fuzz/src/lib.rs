//! The targets: each takes arbitrary bytes and says, by a panic, when the log does with them what it must not.
//!
//! A CRC would keep a fuzzer from everything behind it, so the first byte of an input tells whether the CRCs are made right.

use std::sync::OnceLock;

use bytes::Bytes;
use zue_core::{Epoch, EpochStart, Offset, ReplicaId, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Batch, BatchBuilder, Disk, DiskFile, Limits, Log, LogConfig, OpenError, Overlay, Producer, ReadError};

const CONFIG: LogConfig = LogConfig {
    segment_bytes_max: 32 << 10,
    index_interval_bytes: 256,
    durability: zue_log::Durability::Sync,
    compaction: None,
    producers: zue_core::ProducerLimits { producers_max: 4, appends_max: 3, all_appends_max: 8 },
};
/// The head of a segment, and where its nonce is.
const BLOCK_BYTES: usize = 128;
const NONCE_AT: usize = 16;

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Gives every frame that the bytes may hold the CRC that it should have.
fn seal(bytes: &mut [u8], mask: u32) {
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let end = usize::try_from(word(bytes, at + 4)).unwrap().saturating_add(at + 8);
        let Some(checked) = bytes.get(at + 4..end) else { break };
        let crc = (crc32fast::hash(checked) ^ mask).to_le_bytes();
        bytes[at..at + 4].copy_from_slice(&crc);
        at = end;
    }
}

/// The input behind its first byte, whose lowest bit asks for right CRCs.
fn frames(input: &[u8], mask: u32) -> Vec<u8> {
    let Some((how, rest)) = input.split_first() else { return Vec::new() };
    let mut bytes = rest.to_vec();
    if how & 1 == 1 {
        seal(&mut bytes, mask);
    }
    bytes
}

fn rebuilt(record: &zue_log::RecordView<'_>) -> Batch {
    let prev = Tail { epoch: record.epoch, end: record.offset };
    let mut builder = BatchBuilder::new(prev, record.timestamp_ms, Limits::default());
    builder.push(record.key, record.value, record.headers(), record.producer).expect("it was within the limits");
    builder.finish().expect("it has a record")
}

/// One frame: what is taken for a record is what encoding that record gives, byte for byte.
pub fn record(input: &[u8]) {
    let mut bytes = frames(input, 0);
    if let Some(place) = bytes.get_mut(16..32) {
        // The first record of a log.
        place.fill(0);
        seal(&mut bytes, 0);
    }
    let bytes = Bytes::from(bytes);
    let Ok(batch) = Batch::decode(bytes.clone(), Tail::default(), &Limits::default()) else { return };
    if batch.record_count() != 1 || !batch.epoch_starts().is_empty() {
        return;
    }
    let (mut log, _) = Log::open(SimDisk::new(1), CONFIG, ReplicaId(1)).expect("an empty disk");
    log.append(&batch).expect("a batch that was decoded follows");
    let chunk = log.reader().read(Offset(0), Offset(1), 0).expect("what was appended can be read");
    for record in chunk.records() {
        let record = record.expect("what was appended is not damaged");
        assert_eq!(rebuilt(&record).bytes(), &bytes, "a record has two forms");
    }
}

/// A batch from a peer: it is refused, or it is the same after it has gone through a log.
pub fn batch(input: &[u8]) {
    let bytes = Bytes::from(frames(input, 0));
    let Ok(batch) = Batch::decode(bytes, Tail::default(), &Limits::default()) else { return };
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), CONFIG, ReplicaId(1)).expect("an empty disk");
    // Nobody accepts an epoch that it has not promised.
    log.set_promise(batch.tail().epoch, None, None).expect("none above it is promised");
    let tail = log.append(&batch).expect("a batch that was decoded follows");
    assert_eq!(tail, batch.tail());
    let sent = log.reader().read_frames(Tail::default(), tail, usize::MAX).expect("what was appended can be read");
    assert!(sent.is_some(), "a batch has something");
    log.sync().expect("the disk does not fail");
    drop(log);
    let (log, recovered) = Log::open(disk, CONFIG, ReplicaId(1)).expect("what was appended can be opened");
    assert_eq!((log.tail(), recovered.cut_bytes, recovered.damaged.len()), (tail, 0, 0));
}

/// The files of a small log whose first records are committed, the records in one active segment behind a sealed one.
fn template() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(2);
        let (mut log, _) = Log::open(disk.clone(), CONFIG, ReplicaId(1)).expect("an empty disk");
        let start = |epoch, at| {
            let voters = vec![ReplicaId(1)];
            EpochStart {
                epoch: Epoch(epoch),
                start: Offset(at),
                leader: ReplicaId(1),
                voters,
                quorum: 1,
                old_voters: None,
            }
        };
        log.set_promise(Epoch(1), None, None).expect("none is promised");
        log.append(&Batch::epoch_start(Epoch(0), start(1, 0)).expect("it is one")).expect("it follows");
        for n in 0..8_u64 {
            let mut builder = BatchBuilder::new(log.tail(), 1000 + n, Limits::default());
            let value = vec![b'v'; 200];
            let producer = (n % 2 == 0).then_some(Producer { id: 7, sequence: n / 2 });
            builder.push(Some(b"key"), &value, [("name", b"header".as_slice())], producer).expect("it is small");
            log.append(&builder.finish().expect("it has a record")).expect("it follows");
            if n == 3 {
                log.cut(Tail { epoch: Epoch(1), end: Offset(3) }).expect("there is such a prefix");
            }
            log.sync().expect("the disk does not fail");
        }
        log.note_commit(Offset(5));
        log.write_commit().expect("the disk does not fail");
        drop(log);
        let names = disk.list().expect("the disk does not fail");
        names.into_iter().map(|name| (name.clone(), disk.content(&name).expect("it is listed"))).collect()
    })
}

/// A disk with the files of the template, changed.
fn disk_with(change: impl Fn(&str, &mut Vec<u8>)) -> SimDisk {
    let disk = SimDisk::new(3);
    for (name, bytes) in template() {
        let mut bytes = bytes.clone();
        change(name, &mut bytes);
        let file = disk.create(name).expect("the disk does not fail");
        file.write_at(0, &bytes).expect("the disk does not fail");
        file.sync_data().expect("the disk does not fail");
    }
    disk.sync_dir().expect("the disk does not fail");
    disk
}

fn mask_of(segment: &[u8]) -> u32 {
    word(segment, NONCE_AT) ^ word(segment, NONCE_AT + 4)
}

const ACTIVE: &str = "00000000000000000003";

/// All records that can be read; what is damaged is passed over.
fn read_all<D: Disk>(log: &Log<D>) -> Vec<(Offset, Vec<u8>)> {
    let (reader, mut at, mut all) = (log.reader(), log.log_start(), Vec::new());
    while at < reader.tail().end {
        let before = at;
        let past = |error: ReadError| match error {
            ReadError::Damaged(damage) => damage.to,
            error => panic!("{error}"),
        };
        match reader.read(at, reader.tail().end, 700) {
            Err(error) => at = past(error),
            Ok(chunk) => {
                at = chunk.end();
                for record in chunk.records() {
                    match record {
                        Ok(record) => all.push((record.offset, record.value.to_vec())),
                        Err(error) => at = past(error),
                    }
                }
            }
        }
        assert!(at > before, "reading stands still at {at}");
    }
    all
}

/// The frames of an active segment: the log opens, or says why not; what it holds then can be read, checked, dumped, written on, and
/// is the same when it is opened again.
pub fn segment(input: &[u8]) {
    let disk = disk_with(|name, bytes| {
        if name.strip_suffix(".log") == Some(ACTIVE) {
            let data_at = BLOCK_BYTES + 8 + usize::try_from(word(bytes, BLOCK_BYTES + 4)).expect("a length");
            let put = frames(input, mask_of(bytes));
            let room = bytes.len() - data_at;
            bytes[data_at..].fill(0);
            bytes[data_at..data_at + put.len().min(room)].copy_from_slice(&put[..put.len().min(room)]);
        }
    });
    let looked = zue_log::repair(Overlay::new(disk.clone())).map(|(log, recovered)| (log.tail(), recovered));
    let _ = zue_log::dump(&disk, Offset(0), |_| std::ops::ControlFlow::Continue(()));
    let Ok((mut log, recovered)) = Log::open(disk.clone(), CONFIG, ReplicaId(1)) else {
        assert!(looked.is_err(), "a log that does not open was looked at as if it did");
        return;
    };
    assert_eq!(looked.ok(), Some((log.tail(), recovered)));
    assert!(log.tail().end >= Offset(5), "what is committed was cut away");
    let held = read_all(&log);
    let mut verifier = log.reader().verifier();
    while verifier.step(300).expect("the disk does not fail").is_some() {}
    let mut builder = BatchBuilder::new(log.tail(), u64::MAX, Limits::default());
    builder.push(None, b"after", [], None).expect("it is small");
    log.append(&builder.finish().expect("it has a record")).expect("a log goes on");
    let tail = log.tail();
    log.close().expect("the disk does not fail");
    let (log, recovered) = Log::open(disk, CONFIG, ReplicaId(1)).expect("a log that was opened can be opened again");
    assert_eq!((log.tail(), recovered.cut_bytes), (tail, 0));
    let again = read_all(&log);
    assert_eq!((&again[..again.len() - 1], &again[again.len() - 1].1), (&held[..], &b"after".to_vec()));
}

/// The indexes: whatever is in them, but for a later version, the log opens, and what it gives out is what it holds. Entries whose CRC is right are believed, so
/// those only must not do worse than to hide.
pub fn index(input: &[u8]) {
    let disk = disk_with(|name, bytes| {
        if let (Some((how, rest)), true) = (input.split_first(), name.ends_with(".index")) {
            let segment = template().iter().find(|(other, _)| {
                Some(&**other) == name.strip_suffix(".index").map(|base| format!("{base}.log")).as_deref()
            });
            let mask = segment.map_or(0, |(_, segment)| mask_of(segment));
            let head = bytes.get(..32).map(<[u8]>::to_vec).unwrap_or_default();
            *bytes = if how & 2 == 2 { [head, rest.to_vec()].concat() } else { rest.to_vec() };
            if how & 1 == 1 && bytes.len() > 32 {
                for entry in bytes[32..].chunks_exact_mut(32) {
                    let crc = (crc32fast::hash(&entry[..24]) ^ mask).to_le_bytes();
                    entry[24..28].copy_from_slice(&crc);
                }
            }
        }
    });
    let sealed = input.first().is_some_and(|how| how & 1 == 1);
    let (log, _) = match Log::open(disk, CONFIG, ReplicaId(1)) {
        Err(OpenError::Later { path, .. }) if path.extension().is_some_and(|end| end == "index") => return,
        opened => opened.expect("nothing rests on an index"),
    };
    static HELD: OnceLock<Vec<(Offset, Vec<u8>)>> = OnceLock::new();
    let held = HELD.get_or_init(|| {
        let disk = disk_with(|_, _| {});
        read_all(&Log::open(disk, CONFIG, ReplicaId(1)).expect("the template").0)
    });
    let read = read_all(&log);
    if sealed {
        assert!(read.iter().all(|record| held.contains(record)), "a record that was never there");
    } else {
        assert_eq!(&read, held);
    }
    let _ = log.reader().read(Offset(1), Offset(2), 0);
}

/// Inputs to begin with, for the target of that name.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let with = |how: u8, bytes: &[u8]| [&[how], bytes].concat();
    match target {
        "index" => {
            let indexes = template().iter().filter(|(name, _)| name.ends_with(".index"));
            indexes.flat_map(|(_, bytes)| [with(0, bytes), with(3, bytes.get(32..).unwrap_or_default())]).collect()
        }
        "segment" => {
            let (_, bytes) = template()
                .iter()
                .find(|(name, _)| name.starts_with(ACTIVE) && name.ends_with(".log"))
                .expect("a segment");
            let data_at = BLOCK_BYTES + 8 + usize::try_from(word(bytes, BLOCK_BYTES + 4)).expect("a length");
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(data_at, |last| last + 1);
            let frames = &bytes[data_at..end];
            vec![with(1, frames), with(0, frames), with(1, &frames[..frames.len() / 2]), vec![1]]
        }
        _ => {
            let mut builder = BatchBuilder::new(Tail::default(), 5, Limits::default());
            builder
                .push(Some(b"k"), b"value", [("n", b"h".as_slice())], Some(Producer { id: 3, sequence: 1 }))
                .expect("small");
            let one = builder.finish().expect("a record");
            let mut builder = BatchBuilder::new(Tail::default(), 5, Limits::default());
            for value in [b"a", b"b"] {
                builder.push(None, value, [], None).expect("small");
            }
            let two = builder.finish().expect("records");
            let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
            let start = EpochStart {
                epoch: Epoch(1),
                start: Offset(0),
                leader: ReplicaId(1),
                old_voters: Some(voters.clone()),
                voters,
                quorum: 2,
            };
            let start = Batch::epoch_start(Epoch(0), start).expect("a start");
            vec![with(1, one.bytes()), with(1, two.bytes()), with(1, start.bytes()), with(0, one.bytes())]
        }
    }
}
