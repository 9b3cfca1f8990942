//! Other embedded logs, each configured for a log of this shape: no compression, large files, no purge while it is measured.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use anyhow::{Result, anyhow};
use commitlog::message::{MessageBuf, MessageSet as _};
use commitlog::{CommitLog, LogOptions, ReadLimit};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use okaywal::{Configuration, LogVoid, WriteAheadLog};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::subject::Subject;

/// raft-engine 0.4: `TiKV`'s log. A thread has a group of its own; an entry is a protobuf message whose first eight bytes are its
/// index.
pub(crate) struct RaftEngine {
    engine: Engine,
    /// The group of each thread, and its next index.
    groups: Mutex<HashMap<ThreadId, (u64, u64)>>,
}

#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

impl RaftEngine {
    pub(crate) fn make(dir: &Path) -> Result<Box<dyn Subject>> {
        let dir = dir.to_str().ok_or_else(|| anyhow!("{} is not text", dir.display()))?.to_owned();
        let config = Config { dir, batch_compression_threshold: ReadableSize(0), ..Config::default() };
        Ok(Box::new(Self { engine: Engine::open(config)?, groups: Mutex::default() }))
    }

    /// The group of this thread, and its next index, of which it takes `count`.
    fn take(&self, count: usize) -> Result<(u64, u64)> {
        let mut groups = self.groups.lock().map_err(|_| anyhow!("a thread has panicked"))?;
        let group = u64::try_from(groups.len())? + 1;
        let (group, next) = groups.entry(thread::current().id()).or_insert((group, 1));
        let first = *next;
        *next += u64::try_from(count)?;
        Ok((*group, first))
    }
}

impl Subject for RaftEngine {
    fn append(&self, values: &[&[u8]], sync: bool) -> Result<()> {
        let (group, first) = self.take(values.len())?;
        let entry = |(value, index): (&&[u8], u64)| {
            let mut entry = BytesValue::new();
            entry.value = [index.to_le_bytes().as_slice(), value].concat();
            entry
        };
        let entries: Vec<BytesValue> = values.iter().zip(first..).map(entry).collect();
        let mut batch = LogBatch::with_capacity(values.len());
        batch.add_entries::<Indexed>(group, &entries)?;
        self.engine.write(&mut batch, sync)?;
        Ok(())
    }

    fn scan(&self) -> Result<usize> {
        let (group, end) = self.take(0)?;
        let mut at = 1;
        let (mut count, mut entries) = (0, Vec::new());
        while at < end {
            entries.clear();
            let upto = (at + 1000).min(end);
            self.engine.fetch_entries_to::<Indexed>(group, at, upto, None, &mut entries)?;
            count += std::hint::black_box(&entries).len();
            at = upto;
        }
        Ok(count)
    }
}

/// okaywal 0.3: a write-ahead log; an entry is a batch, a chunk of it a record. Opened, it fills its file with zeroes.
pub(crate) struct OkayWal(WriteAheadLog);

impl OkayWal {
    pub(crate) fn make(dir: &Path) -> Result<Box<dyn Subject>> {
        let config = Configuration::default_for(dir).preallocate_bytes(64 << 20).checkpoint_after_bytes(1 << 40);
        Ok(Box::new(Self(config.open(LogVoid)?)))
    }
}

impl Subject for OkayWal {
    fn append(&self, values: &[&[u8]], _sync: bool) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        for value in values {
            entry.write_chunk(value)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn scan(&self) -> Result<usize> {
        Err(anyhow!("it reads in order only while it recovers"))
    }
}

/// fjall 3: an LSM tree, whose journal is a log; the key is the offset.
pub(crate) struct Fjall {
    database: Database,
    items: Keyspace,
    next: AtomicU64,
}

impl Fjall {
    pub(crate) fn make(dir: &Path) -> Result<Box<dyn Subject>> {
        let database = Database::builder(dir).manual_journal_persist(true).open()?;
        let items = database.keyspace("log", KeyspaceCreateOptions::default)?;
        Ok(Box::new(Self { database, items, next: AtomicU64::new(0) }))
    }
}

impl Subject for Fjall {
    fn append(&self, values: &[&[u8]], sync: bool) -> Result<()> {
        let first = self.next.fetch_add(u64::try_from(values.len())?, Ordering::Relaxed);
        let mut batch = self.database.batch().durability(sync.then_some(PersistMode::SyncData));
        for (value, offset) in values.iter().zip(first..) {
            batch.insert(&self.items, offset.to_be_bytes(), *value);
        }
        batch.commit()?;
        Ok(())
    }

    fn scan(&self) -> Result<usize> {
        let mut count = 0;
        for item in self.items.iter() {
            std::hint::black_box(item.value()?);
            count += 1;
        }
        Ok(count)
    }
}

/// commitlog 0.2: segments and an index like this log's; its flush does not sync.
pub(crate) struct Commitlog(Mutex<CommitLog>);

impl Commitlog {
    pub(crate) fn make(dir: &Path) -> Result<Box<dyn Subject>> {
        let mut options = LogOptions::new(dir);
        options.segment_max_bytes(64 << 20).index_max_items(1_000_000).message_max_bytes(8 << 20);
        Ok(Box::new(Self(Mutex::new(CommitLog::new(options)?))))
    }
}

impl Subject for Commitlog {
    fn append(&self, values: &[&[u8]], _sync: bool) -> Result<()> {
        let mut messages = MessageBuf::default();
        for value in values {
            messages.push(value).map_err(|error| anyhow!("{error:?}"))?;
        }
        let mut log = self.0.lock().map_err(|_| anyhow!("a thread has panicked"))?;
        log.append(&mut messages).map_err(|error| anyhow!("{error:?}"))?;
        Ok(())
    }

    fn scan(&self) -> Result<usize> {
        let log = self.0.lock().map_err(|_| anyhow!("a thread has panicked"))?;
        let (mut at, mut count) = (0, 0);
        while at < log.next_offset() {
            let messages = log.read(at, ReadLimit::max_bytes(1 << 20)).map_err(|error| anyhow!("{error:?}"))?;
            for message in messages.iter() {
                std::hint::black_box(message.payload());
                count += 1;
            }
            at += u64::try_from(messages.len())?;
        }
        Ok(count)
    }
}
