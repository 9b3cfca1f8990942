//! The contenders: this log, the raw disk, and the peers, each configured as its users would for such a workload.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};
use zue_core::{ReplicaId, Tail};
use zue_log::{Batch, BatchBuilder, Limits, Log, LogConfig, OsDisk, record_bytes};

use crate::group_commit::GroupCommit;

/// A log that appends batches of values.
pub(crate) trait Subject: Sync {
    /// Appends the values together; with `sync`, they are on the disk when it returns. May be called by several threads.
    fn append(&self, values: &[&[u8]], sync: bool) -> Result<()>;
    /// Reads and checks all records from the first on; gives their number.
    fn scan(&self) -> Result<usize>;
}

/// Makes a subject in an empty folder.
pub(crate) type Make = fn(&Path) -> Result<Box<dyn Subject>>;

/// This log.
pub(crate) struct Zue(GroupCommit<OsDisk>);

impl Zue {
    pub(crate) fn open(dir: &Path, config: LogConfig) -> Result<Self> {
        let (log, _) = Log::open(OsDisk::new(dir)?, config, ReplicaId(1))?;
        Ok(Self(GroupCommit::new(log)))
    }

    pub(crate) fn make(dir: &Path) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self::open(dir, LogConfig::default())?))
    }

    /// In a segment as all are but a log's first: its file was made ahead, so that a sync moves data only.
    pub(crate) fn prepared(dir: &Path) -> Result<Box<dyn Subject>> {
        let config = LogConfig::default();
        let (zue, value) = (Self::open(dir, config)?, vec![b'v'; 1 << 20]);
        let mut is_prepared = false;
        for _ in 0..config.segment_bytes_max >> 20 {
            zue.append(&[&value], false)?;
            let preparation = zue.0.lock().prepare();
            if let Some(mut preparation) = preparation {
                while preparation.step()? {}
                zue.0.lock().prepared(Some(preparation));
                is_prepared = true;
            }
        }
        anyhow::ensure!(is_prepared, "no segment was made ahead");
        zue.0.sync()?;
        Ok(Box::new(zue))
    }

    pub(crate) fn log(&self) -> &GroupCommit<OsDisk> {
        &self.0
    }
}

/// The batch of the values that follows a tail.
pub(crate) fn batch(prev: Tail, values: &[&[u8]]) -> Result<Batch> {
    let limits = Limits::default();
    let mut builder = BatchBuilder::new(prev, 1, limits);
    let lengths = values.iter().map(|value| record_bytes(None, value, [], false, &limits));
    builder.reserve(lengths.sum::<Result<usize, _>>()?);
    for value in values {
        builder.push(None, value, [], None)?;
    }
    Ok(builder.finish()?)
}

impl Subject for Zue {
    fn append(&self, values: &[&[u8]], sync: bool) -> Result<()> {
        let mut log = self.0.lock();
        let batch = batch(log.tail(), values)?;
        log.append(&batch)?;
        drop(log);
        if sync {
            self.0.sync()?;
        }
        Ok(())
    }

    fn scan(&self) -> Result<usize> {
        let reader = self.0.lock().reader();
        let (mut at, end) = (reader.log_start(), reader.tail().end);
        let mut count = 0;
        while at < end {
            let chunk = reader.read(at, end, 1 << 20)?;
            for record in chunk.records() {
                std::hint::black_box(record?.value);
                count += 1;
            }
            at = chunk.end();
        }
        Ok(count)
    }
}

/// The floor: the very bytes that this log writes, into a preallocated file, and nothing else.
pub(crate) struct Raw {
    file: File,
    position: AtomicU64,
    turn: Mutex<()>,
}

/// As long as one of this log's segments.
const RAW_BYTES: u64 = 64 << 20;

impl Raw {
    /// Into room that was reserved.
    pub(crate) fn reserved(dir: &Path) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self::new(dir)?))
    }

    /// Into room that was written before.
    pub(crate) fn written(dir: &Path) -> Result<Box<dyn Subject>> {
        let raw = Self::new(dir)?;
        let block = vec![1; 1 << 20];
        for n in 0..RAW_BYTES >> 20 {
            raw.file.write_all_at(&block, n << 20)?;
        }
        raw.file.sync_all()?;
        Ok(Box::new(raw))
    }

    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join("raw"))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RAW_BYTES)?;
        file.sync_all()?;
        Ok(Self { file, position: AtomicU64::new(0), turn: Mutex::new(()) })
    }

    /// Writes bytes that are encoded already, with a CRC over them.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        std::hint::black_box(crc32fast::hash(bytes));
        let bytes_count = u64::try_from(bytes.len())?;
        let position = self.position.fetch_add(bytes_count, Ordering::Relaxed) % (RAW_BYTES - bytes_count);
        Ok(self.file.write_all_at(bytes, position)?)
    }
}

impl Subject for Raw {
    fn append(&self, values: &[&[u8]], sync: bool) -> Result<()> {
        let turn = self.turn.lock().map_err(|_| anyhow!("a thread has panicked"))?;
        // The bytes of one record more than the value: what this log's frames have.
        let mut bytes = Vec::with_capacity(values.iter().map(|value| value.len() + 40).sum());
        for value in values {
            bytes.extend_from_slice(&[0; 40]);
            bytes.extend_from_slice(value);
        }
        self.write(&bytes)?;
        drop(turn);
        if sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn scan(&self) -> Result<usize> {
        Err(anyhow!("the raw file has no records"))
    }
}
