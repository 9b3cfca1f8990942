//! The errors: opening, changing, reading. Each error names the file and the place.

pub(crate) mod open;

use std::io;
use std::path::PathBuf;

use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Tail};

use crate::disk::files_limit::is_no_more_files;
use crate::format::fault::Fault;

pub use crate::format::block::{HeaderFault, Later};
pub use open::OpenError;

/// The operation on a file, or on the directory, that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    Lock,
    List,
    Create,
    Open,
    Allocate,
    Write,
    Sync,
    Rename,
    Link,
    Remove,
    Read,
    Random,
    BootId,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::List => "list",
            Self::Create => "create",
            Self::Open => "open",
            Self::Allocate => "reserve room for",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Link => "make another name",
            Self::Remove => "remove",
            Self::Read => "read",
            Self::Random => "draw random bits for",
            Self::BootId => "name the boot for",
        })
    }
}

/// The disk refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct DiskError {
    /// The operation.
    pub operation: Operation,
    /// To which file or directory.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// The resource that is short when a file cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// Room on the disk.
    Room,
    /// Files that may be open.
    Files,
    /// Something else: a permission, perhaps. What the system said tells.
    Other,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Room => "there is no room",
            Self::Files => "no further file may be open",
            Self::Other => "the next file cannot be made",
        })
    }
}

impl DiskError {
    /// The resource that was short, if this kept a file from being made.
    pub fn shortage(&self) -> Shortage {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Shortage::Room,
            _ if is_no_more_files(&self.source) => Shortage::Files,
            _ => Shortage::Other,
        }
    }

    /// A file has no other name for want of room. Nothing has changed then.
    pub(crate) fn is_no_room_for_name(&self) -> bool {
        let is_full = matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        self.operation == Operation::Rename && is_full
    }
}

/// Adds to an error of the disk what was done to which file.
pub(crate) trait Context<T> {
    fn context(self, operation: Operation, path: impl FnOnce() -> PathBuf) -> Result<T, DiskError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, operation: Operation, path: impl FnOnce() -> PathBuf) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { operation, path: path(), source })
    }
}

/// Bytes of a segment that are not what was written, or are gone.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} is damaged at byte {position}, records {from} to {to} are in doubt: {fault}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The position at which the faulty frame begins.
    pub position: u64,
    /// The first record that is in doubt.
    pub from: Offset,
    /// The end of what is in doubt, as far as is known (exclusive).
    pub to: Offset,
    /// The fault.
    pub fault: Fault,
}

/// A change that was not made. Unless it is [`LogError::Disk`], the log is as before and goes on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An earlier write or sync failed; only opening the log again shows what the disk holds.
    #[error("the log accepts no changes because it could not {operation} {}", path.display())]
    Poisoned {
        /// The operation that failed.
        operation: Operation,
        /// On which file.
        path: PathBuf,
    },
    /// A write or sync failed. From now on the log is poisoned.
    #[error(transparent)]
    Disk(DiskError),
    /// The next segment or the meta file could not be made, mostly for want of room. Nothing has changed; it can be tried again.
    #[error("{}", .0.shortage())]
    NoRoom(DiskError),
    /// The batch does not follow the log's tail.
    #[error("a batch after {batch} does not follow a log with {log}")]
    NotNext {
        /// The log's tail.
        log: Tail,
        /// The tail that the batch follows.
        batch: Tail,
    },
    /// The batch's first timestamp lies before the log's last.
    #[error("timestamp {batch} ms after {log} ms")]
    TimestampFell {
        /// The log's last timestamp, ms since the Unix epoch.
        log: u64,
        /// The batch's first.
        batch: u64,
    },
    /// The log has no prefix with that tail.
    #[error("no prefix of a log with {log} has {to}")]
    NoSuchPrefix {
        /// The tail asked for.
        to: Tail,
        /// The log's tail.
        log: Tail,
    },
    /// The trim would take what is not known to be committed.
    #[error("a trim before {before} is not within {log_start} and {commit_end}, the end of what is committed")]
    AboveCommit {
        /// The offset at which the log was to start.
        before: Offset,
        /// The start of the log.
        log_start: Offset,
        /// The end of what is committed.
        commit_end: Offset,
    },
    /// The cut would take committed records.
    #[error("a cut to {end} would remove committed records; the committed end is {commit_end}")]
    BelowCommit {
        /// The offset at which the log was to end.
        end: Offset,
        /// The end of what is committed.
        commit_end: Offset,
    },
    /// The cut would end inside an append.
    #[error("a cut to {end} would end inside an append")]
    InsideAppend {
        /// The offset at which the log was to end.
        end: Offset,
    },
    /// The promise contradicts an earlier one.
    #[error("epoch {epoch} with leader {leader:?} was not promised: epoch {promised} with leader {bound:?} was")]
    Promised {
        /// The epoch to be promised.
        epoch: Epoch,
        /// The leader to be bound.
        leader: Option<ReplicaId>,
        /// The epoch promised before.
        promised: Epoch,
        /// The leader bound before.
        bound: Option<ReplicaId>,
    },
    /// The replica is of another cluster.
    #[error("this replica is of cluster {held}, not {asked}")]
    OtherCluster {
        /// The cluster it is of.
        held: ClusterId,
        /// The one asked for.
        asked: ClusterId,
    },
    /// Its content cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A read that gives no records.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log has no such offset.
    #[error("{from} is not within {log_start} and {end}")]
    OutOfRange {
        /// The offset asked for.
        from: Offset,
        /// The start of the log.
        log_start: Offset,
        /// The end of the log, or that of the range that was asked for.
        end: Offset,
    },
    /// The log asked for parts from this one: it has no prefix with that tail.
    #[error("no prefix of this log has {from}")]
    NoSuchPrefix {
        /// The tail of the other log.
        from: Tail,
    },
    /// The bytes are not what was written. They are not served.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
