//! Failures of a backup: each names the thing, the value and, where there is one, the remedy.

use std::io;
use std::path::PathBuf;

use zue_core::ClusterId;
use zue_log::{BadCopy, OpenError, ReadError, Until};

/// A backup, or a restore, that failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The address of a store.
    #[error("{url} is no address of a store: {what}; s3://BUCKET/PREFIX or file:///DIRECTORY is expected")]
    Url {
        /// As it was given.
        url: String,
        /// The fault.
        what: String,
    },
    /// A call of the store failed.
    #[error("the store failed to {what} {object}")]
    Store {
        /// The intended action.
        what: &'static str,
        /// With which object, or those whose names begin so.
        object: String,
        /// Why.
        source: object_store::Error,
    },
    /// A call of the store took too long.
    #[error("the store did not {what} {object} within {seconds} s")]
    TimedOut {
        /// The intended action.
        what: &'static str,
        /// With which object.
        object: String,
        /// The time that it was waited for.
        seconds: u64,
    },
    /// The store said that it had taken an object, and does not have it whole.
    #[error("the store took {object}, {expected} bytes, and then had {}", found.map_or_else(|| "none of it".to_owned(), |found| format!("{found} bytes")))]
    NotKept {
        /// Which.
        object: String,
        /// Its length.
        expected: u64,
        /// The present value.
        found: Option<u64>,
    },
    /// An object is not what was put there.
    #[error("{object}: {fault}")]
    Object {
        /// Which.
        object: String,
        /// Its fault.
        fault: Fault,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// There is no such backup.
    #[error("there is no backup {id} in {url}; `zue backup ls --from {url}` lists them")]
    NoSuchBackup {
        /// The id that was asked for.
        id: String,
        /// Of the store.
        url: String,
    },
    /// Several backups could be meant.
    #[error("{id} is ambiguous: the names of {count} backups begin with it")]
    Several {
        /// The given value.
        id: String,
        /// Their number.
        count: usize,
    },
    /// The store has backups of several clusters.
    #[error("{url} has backups of {} clusters: name one with --cluster: {}", clusters.len(), clusters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    SeveralClusters {
        /// Of the store.
        url: String,
        /// Which.
        clusters: Vec<ClusterId>,
    },
    /// No backup holds the point that was asked for.
    #[error("no backup can give the log until {}: {why}", point(*.until))]
    OutOfReach {
        /// The point.
        until: Until,
        /// The content of the store.
        why: String,
    },
    /// A directory that something is in.
    #[error("{} is not empty: it has {entry}. A log is restored into a directory of its own: name another, or empty it", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        entry: String,
    },
    /// The disk refused.
    #[error("cannot {what} {}", path.display())]
    Disk {
        /// The intended action.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The restored segments are not one log.
    #[error("the restored segments are not a log")]
    Open(#[from] OpenError),
    /// Work on another thread ended.
    #[error("work on another thread ended")]
    Thread(#[from] tokio::task::JoinError),
}

/// The fault in an object.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("it is not there")]
    Missing,
    /// It has another length.
    #[error("it has {found} bytes, not {expected}")]
    Length {
        /// By its name.
        expected: u64,
        /// In the store.
        found: u64,
    },
    /// Its bytes are not those that were put there.
    #[error("its bytes have changed: their SHA-256 begins with {found}, not {expected}")]
    Hash {
        /// By the manifest, or by the object's name.
        expected: String,
        /// Of the bytes.
        found: String,
    },
    /// It cannot be read as what it should be.
    #[error("it is no manifest: {0}")]
    Manifest(String),
    /// A later version has written it.
    #[error("it is of version {0} of the format, which this version of Zue does not know: use a later one")]
    Later(u32),
    /// The bytes are those that were put there, and are no segment.
    #[error("{0}")]
    Segment(BadCopy),
}

impl BackupError {
    /// The words that [`BackupError::reason`] gives.
    pub const REASONS: [&str; 6] = ["timeout", "damaged", "log", "denied", "store", "other"];

    /// In a word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "timeout",
            Self::NotKept { .. } | Self::Object { .. } => "damaged",
            Self::Log(_) | Self::Disk { .. } | Self::Open(_) => "log",
            Self::Store { source, .. } => match source {
                object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => "denied",
                _ => "store",
            },
            _ => "other",
        }
    }
}

/// As a person says it.
fn point(until: Until) -> String {
    match until {
        Until::Offset(offset) => format!("offset {offset}"),
        Until::Time(ms) => {
            let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            time.map_or_else(|| format!("{ms} ms"), |time| time.to_string())
        }
    }
}
