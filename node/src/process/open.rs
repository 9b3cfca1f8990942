//! From a data directory to a replica.

use std::io;
use std::path::Path;

use zue_core::{KnownStarts, Limits, Promise, Recovered, Replica, ReplicaId};
use zue_log::{Log, OpenError, OsDisk};
use zue_settings::NodeConfig;

use crate::config::convert::log_config;
use crate::num::length;

/// A data directory that does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenNodeError {
    #[error("cannot create the data directory {}", dir.display())]
    MakeDir { dir: std::path::PathBuf, source: io::Error },
    #[error("the log does not open")]
    Log(#[from] OpenError),
    #[error("the thread that opens the log ended")]
    Thread(#[from] tokio::task::JoinError),
}

/// Tells whether an error is about a directory in which a later version has written: another program is to be used, and nothing is damaged.
pub fn is_of_later_version(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::Later { .. }))
}

/// An open log and the replica that it makes.
pub(crate) struct Opened {
    pub(crate) log: Log<OsDisk>,
    pub(crate) replica: Replica,
}

/// Opens the log; makes a new replica if the directory is empty. Blocks meanwhile.
pub(crate) fn open(config: &NodeConfig) -> Result<Opened, OpenNodeError> {
    let dir: &Path = &config.data_dir;
    let limits = &config.limits;
    let disk = OsDisk::new(dir).map_err(|source| OpenNodeError::MakeDir { dir: dir.to_owned(), source })?;
    let (log, found) = Log::open(disk, log_config(config.log, limits.to_producers()), fresh_id())?;
    let zue_log::Recovered { initialised, cut_bytes, damaged, suspect, may_have_forgotten } = found;
    for damage in damaged {
        tracing::error!(%damage, "the log is damaged");
    }
    let meta = log.meta();
    tracing::info!(replica = %meta.replica, starts = meta.starts.count, initialised, cut_bytes, ?suspect, may_have_forgotten,
        log = %log.tail(), commit_end = %meta.commit_end, "the log is open");
    let recovered = Recovered {
        id: meta.replica,
        cluster: meta.cluster,
        promise: Promise { epoch: meta.promise.epoch, leader: meta.promise.leader },
        history: log.history().clone(),
        log: log.tail(),
        commit_end: meta.commit_end,
        log_start: log.log_start(),
        producers: log.producers().clone(),
        suspect,
        damaged: !log.damaged().is_empty(),
        starts: KnownStarts { lineage: meta.lineage(), runs: meta.runs() },
        restored: meta.restored,
    };
    let limits = Limits {
        sync: config.replication.to_sync(),
        waiting_max: length(limits.appends_max),
        reads_max: length(limits.readers_max),
    };
    let replica = Replica::new(limits, recovered);
    Ok(Opened { log, replica })
}

/// An id that no replica has had. Never 0, which stands for none.
fn fresh_id() -> ReplicaId {
    ReplicaId(rand::random::<u128>().max(1))
}
