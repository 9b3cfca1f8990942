//! From a data directory to a replica: opens the log and rebuilds from it who appended what.

use std::io;
use std::path::Path;

use zue_core::{Appended, Limits, Offset, ProducerId, Producers, Promise, Recovered, Replica, ReplicaId};
use zue_log::{Log, OpenError, OsDisk, ReadError, Reader};

use crate::config::NodeConfig;
use crate::num::{length, narrow};

/// How much of the log is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A data directory that does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenNodeError {
    #[error("cannot make the data directory {}", dir.display())]
    MakeDir { dir: std::path::PathBuf, source: io::Error },
    #[error("the log does not open")]
    Log(#[from] OpenError),
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
}

/// An open log and the replica that it makes.
pub(crate) struct Opened {
    pub(crate) log: Log<OsDisk>,
    pub(crate) replica: Replica,
    /// A tail that may have been acknowledged was lost at this start.
    pub(crate) suspect: bool,
}

/// Opens the log; makes a new replica if the directory is empty. Reads all of the log, and blocks meanwhile.
pub(crate) fn open(config: &NodeConfig) -> Result<Opened, OpenNodeError> {
    let dir: &Path = &config.data_dir;
    let disk = OsDisk::new(dir).map_err(|source| OpenNodeError::MakeDir { dir: dir.to_owned(), source })?;
    let (log, found) = Log::open(disk, config.log.to_log(), fresh_id())?;
    let zue_log::Recovered { initialised, cut_bytes, suspect, may_have_forgotten, indexes_rebuilt } = found;
    let suspect = suspect || may_have_forgotten;
    let meta = log.meta();
    tracing::info!(replica = %meta.replica, starts = meta.starts, initialised, cut_bytes, suspect, indexes_rebuilt,
        log = %log.tail(), commit_end = %meta.commit_end, "the log is open");
    let limits = &config.limits;
    let recovered = Recovered {
        id: meta.replica,
        cluster: meta.cluster,
        promise: Promise { epoch: meta.promise.epoch, leader: meta.promise.leader },
        history: log.history().clone(),
        log: log.tail(),
        commit_end: meta.commit_end,
        producers: producers(&log.reader(), Producers::new(limits.to_producers()))?,
    };
    let limits = Limits { sync: config.replication.to_sync(), waiting_max: length(limits.appends_max) };
    let replica = Replica::new(limits, recovered);
    Ok(Opened { log, replica, suspect })
}

/// An id that no replica has had. Never 0, which stands for none.
fn fresh_id() -> ReplicaId {
    ReplicaId(rand::random::<u128>().max(1))
}

/// Records the appends of the whole log, in order.
fn producers(reader: &Reader<OsDisk>, mut producers: Producers) -> Result<Producers, ReadError> {
    let (mut at, end) = (reader.log_start(), reader.tail().end);
    let mut run: Option<Appended> = None;
    while at < end {
        let chunk = reader.read(at, end, CHUNK_BYTES)?;
        for record in chunk.records() {
            let record = record?;
            run = match (run, record.producer) {
                (Some(run), Some(_)) => Some(Appended { count: run.count.saturating_add(1), ..run }),
                (None, Some(producer)) => Some(first(producer, record.offset)),
                (_, None) => None,
            };
            if !record.more
                && let Some(append) = run.take()
            {
                producers.record(append);
            }
        }
        at = chunk.end();
    }
    Ok(producers)
}

fn first(producer: zue_log::Producer, base: Offset) -> Appended {
    let zue_log::Producer { id, sequence } = producer;
    Appended { producer: ProducerId::from_u128(id), sequence, count: 1, base }
}

/// The appends of a batch, as the replica wants to know them.
pub(crate) fn appends_of(batch: &zue_log::Batch) -> Vec<Appended> {
    let appended = |run: &zue_log::ProducerRun| Appended {
        producer: ProducerId::from_u128(run.id),
        sequence: run.sequence,
        count: narrow(run.count),
        base: run.base,
    };
    batch.producers().iter().map(appended).collect()
}
